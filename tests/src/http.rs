//! As much of HTTP/1.1 as it takes to speak to the broker like a client that knows nothing of Gate.

use std::io::{BufRead as _, BufReader, Lines, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::wait::SOON;

/// A broker's HTTP door on this machine.
#[derive(Debug, Clone, Copy)]
pub struct Http {
    /// Its TCP port.
    pub port: u16,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body, `Null` when empty.
    pub body: Value,
}

impl Reply {
    /// Returns the `lock_id` of a grant.
    #[must_use]
    #[track_caller]
    pub fn lock_id(&self) -> String {
        assert_eq!(self.status, 200, "expected a grant: {self:?}");
        assert_eq!(self.body["status"], "granted", "{self:?}");
        self.body["lock"]["lock_id"].as_str().expect("a lock has an id").to_owned()
    }
}

/// A request whose answer has not been read; dropping it closes the connection.
#[derive(Debug)]
pub struct Pending {
    stream: TcpStream,
}

impl Http {
    /// Posts a JSON body and returns the answer.
    #[must_use]
    pub fn post(self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, body.to_string().as_bytes()).reply(SOON)
    }

    /// Gets a path and returns the answer.
    #[must_use]
    pub fn get(self, path: &str) -> Reply {
        self.send("GET", path, b"").reply(SOON)
    }

    /// Sends a request and does not wait for the answer.
    #[must_use]
    pub fn send(self, method: &str, path: &str, body: &[u8]) -> Pending {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .unwrap_or_else(|error| panic!("no broker at port {}: {error}", self.port));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.port,
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        // A server that refuses a body by its head may close before all of it is sent.
        let _ = stream.write_all(&request);
        Pending { stream }
    }
}

impl Pending {
    /// Waits for the answer; fails the test when it takes too long.
    #[must_use]
    #[track_caller]
    pub fn reply(mut self, within: Duration) -> Reply {
        self.stream.set_read_timeout(Some(within)).expect("a deadline is set");
        let mut bytes = Vec::new();
        let outcome = self.stream.read_to_end(&mut bytes);
        parse(&bytes).unwrap_or_else(|| panic!("no answer within {within:?}: {outcome:?}"))
    }

    /// Tells whether no byte of an answer has come.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket can be polled");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket can be polled");
        peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// A stream of server-sent events.
pub struct Events {
    lines: Lines<BufReader<Box<dyn Read + Send>>>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event {
    /// Where it stands.
    pub id: String,
    /// What happened.
    pub name: String,
    /// All of it, `Null` if that is no JSON.
    pub data: Value,
}

impl Http {
    /// Follows the broker's events; `last` is the id of the last one that was seen.
    #[must_use]
    #[track_caller]
    pub fn events(self, query: &str, last: Option<&str>) -> Events {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("a broker");
        stream.set_read_timeout(Some(SOON)).expect("a deadline is set");
        Events::follow(stream, &format!("/v1/events{query}"), last)
    }
}

impl Events {
    /// Follows a stream of events from what waits at the other end of `stream`.
    #[track_caller]
    pub(crate) fn follow(
        mut stream: impl Read + Write + Send + 'static,
        path: &str,
        last: Option<&str>,
    ) -> Self {
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        // Of this version bodies are what they are, not cut into chunks.
        let head = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).expect("somebody who reads");
        let stream: Box<dyn Read + Send> = Box::new(stream);
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next().expect("an answer").expect("in time");
        assert!(status.contains(" 200 "), "{status}");
        for line in lines.by_ref() {
            if line.expect("a head, in time").is_empty() {
                break;
            }
        }
        Self { lines }
    }

    /// Waits for the next event.
    #[track_caller]
    pub fn hear(&mut self) -> Event {
        let mut event = Event::default();
        loop {
            let line = self.lines.next().expect("the stream goes on").expect("in time");
            match line.split_once(": ") {
                Some(("id", id)) => event.id = id.to_owned(),
                Some(("event", name)) => event.name = name.to_owned(),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap_or_default(),
                // A heartbeat, or the end of one.
                _ if event == Event::default() => {}
                _ => return event,
            }
        }
    }
}

pub(crate) fn parse(bytes: &[u8]) -> Option<Reply> {
    let (status, body) = parse_bytes(bytes)?;
    let text = String::from_utf8(body).ok()?;
    let body = if text.is_empty() { Value::Null } else { parse_body(&text) };
    Some(Reply { status, body })
}

/// Reads an answer whose body may be anything; none that is cut off.
pub(crate) fn parse_bytes(bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 4..]);
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { joined(body)? } else { body.to_vec() };
    Some((status, body))
}

fn joined(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|two| two == b"\r\n")?;
        let length = usize::from_str_radix(str::from_utf8(&chunks[..end]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunks.get(end + 2..end + 2 + length)?);
        chunks = &chunks[end + 4 + length..];
    }
}

/// A body that is no JSON is shown as the text it is.
fn parse_body(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))
}
