//! The daemon's REST interface, spoken to at its socket like a client that knows nothing of Gate.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::http::{Events, Reply, parse, parse_bytes};
use crate::wait::SOON;

/// Where the mounts are.
pub const MOUNTS: &str = "/api/v0/mounts";
/// What bodies are unless said otherwise.
const JSON: &str = "application/json";

/// A daemon.
#[derive(Debug, Clone)]
pub struct Rest {
    way: Way,
    token: Option<String>,
}

#[derive(Debug, Clone)]
enum Way {
    Socket(PathBuf),
    Port(u16),
}

impl Rest {
    /// Returns the way to it.
    #[must_use]
    pub fn of_state_dir(state_dir: &Path) -> Self {
        Self { way: Way::Socket(state_dir.join("http.sock")), token: None }
    }

    /// Returns the way to one that listens at a port, with a token or without one.
    #[must_use]
    pub fn at_port(port: u16, token: Option<&str>) -> Self {
        Self { way: Way::Port(port), token: token.map(str::to_owned) }
    }

    /// Sends a request with any body, and returns the answer.
    #[must_use]
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        let answer = self.exchange_anywhere(method, path, body);
        parse(&answer).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// As [`Rest::send`], for an answer whose body may be anything: its status and that body.
    #[must_use]
    #[track_caller]
    pub fn bytes(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let answer = self.exchange_anywhere(method, path, body);
        parse_bytes(&answer).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// Sends what a browser makes of a form, and returns all of the answer: its status, its head and its body.
    #[must_use]
    #[track_caller]
    pub fn submit(&self, path: &str, kind: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        self.page("POST", path, kind, body)
    }

    /// Fetches a page, and returns all of the answer: its status, its head and its body.
    #[must_use]
    #[track_caller]
    pub fn fetch(&self, path: &str) -> (u16, String, Vec<u8>) {
        self.page("GET", path, JSON, b"")
    }

    #[track_caller]
    fn page(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let answer = self.exchange_of(method, path, kind, body);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let (status, body) =
            parse_bytes(&answer).unwrap_or_else(|| panic!("no answer to {method} {path}"));
        (status, head, body)
    }

    #[track_caller]
    fn exchange_anywhere(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        self.exchange_of(method, path, JSON, body)
    }

    #[track_caller]
    fn exchange_of(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
        match &self.way {
            Way::Socket(socket) => {
                let stream = UnixStream::connect(socket)
                    .unwrap_or_else(|error| panic!("no daemon at {}: {error}", socket.display()));
                stream.set_read_timeout(Some(SOON * 3)).expect("a deadline is set");
                self.exchange(stream, (method, path), kind, body)
            }
            Way::Port(port) => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port))
                    .unwrap_or_else(|error| panic!("no daemon at port {port}: {error}"));
                stream.set_read_timeout(Some(SOON * 3)).expect("a deadline is set");
                self.exchange(stream, (method, path), kind, body)
            }
        }
    }

    #[track_caller]
    fn exchange(
        &self,
        mut stream: impl Read + Write,
        (method, path): (&str, &str),
        kind: &str,
        body: &[u8],
    ) -> Vec<u8> {
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let token = token.unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
             {token}Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        // A server that refuses a body by its head may close before all of it is sent.
        let _ = stream.write_all(&[head.as_bytes(), body].concat());
        let mut bytes = Vec::new();
        let outcome = stream.read_to_end(&mut bytes);
        assert!(!bytes.is_empty(), "no answer to {method} {path}: {outcome:?}");
        bytes
    }

    /// Asks without a body.
    #[must_use]
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str) -> Reply {
        self.send(method, path, b"")
    }

    /// Asks with a body.
    #[must_use]
    #[track_caller]
    pub fn tell(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.send(method, path, body.to_string().as_bytes())
    }

    /// Follows what becomes of mounts; `last` is the id of the last event that was seen.
    #[must_use]
    #[track_caller]
    pub fn events(&self, last: Option<&str>) -> Events {
        let Way::Socket(socket) = &self.way else { panic!("it is followed at the socket") };
        let stream = UnixStream::connect(socket).expect("a daemon");
        // Shorter than the silence between two heartbeats, which are no news.
        stream.set_read_timeout(Some(SOON)).expect("a deadline is set");
        Events::follow(stream, &format!("{MOUNTS}/events"), last)
    }

    /// Configures a mount, which must be possible; returns its id.
    #[track_caller]
    pub fn add(&self, source: &Path, point: &Path, more: Value) -> String {
        let mut body = json!({"source": source, "mount_point": point});
        let Value::Object(more) = more else { panic!("{more} is no object") };
        body.as_object_mut().expect("it is one").extend(more);
        let reply = self.tell("POST", MOUNTS, &body);
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.body["mount"]["mount_id"].as_str().expect("a mount has an id").to_owned()
    }

    /// Returns one mount.
    #[must_use]
    #[track_caller]
    pub fn mount(&self, id: &str) -> Value {
        let reply = self.ask("GET", &format!("{MOUNTS}/{id}"));
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body["mount"].clone()
    }

    /// Returns the status of one mount.
    #[must_use]
    #[track_caller]
    pub fn status(&self, id: &str) -> String {
        self.mount(id)["status"].as_str().expect("a mount has a status").to_owned()
    }

    /// Returns who serves a mount, if somebody does.
    #[must_use]
    #[track_caller]
    pub fn pid(&self, id: &str) -> Option<i32> {
        self.mount(id)["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
    }
}
