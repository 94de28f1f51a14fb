//! As much of HTTP/1.1 as it takes to speak to the broker like a client that knows nothing of Gate.

use std::io::{Read, Write};
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

fn parse(bytes: &[u8]) -> Option<Reply> {
    let text = str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = if body.is_empty() { Value::Null } else { parse_body(body) };
    Some(Reply { status, body })
}

/// A body that is no JSON is shown as the text it is.
fn parse_body(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))
}
