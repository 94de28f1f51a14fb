//! etcd: one server of its own on loopback, its lock service asked over HTTP.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::peer::{Client, Peer, await_event, hand_on};

/// How long a client waits for an answer: longer than any line here.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// Seconds that a client's lease lives without being renewed: longer than any run.
const LEASE_SECS: u64 = 3_600;
/// What all queue for; etcd's JSON carries bytes as base64, which this is.
const SHARED: &str = "shared00";

/// A server; it ends, and its data with it, when it is dropped.
pub struct Etcd {
    name: &'static str,
    server: Child,
    port: u16,
    _data: TempDir,
}

impl Etcd {
    /// Starts a server that keeps its data beneath `dir`, and waits until it answers.
    pub fn start(name: &'static str, dir: &Path) -> io::Result<Etcd> {
        let data = tempfile::Builder::new().prefix("gate-bench-etcd-").tempdir_in(dir)?;
        let (port, peer_port) = (free_port()?, free_port()?);
        let [url, peer_url] = [port, peer_port].map(|port| format!("http://127.0.0.1:{port}"));
        let server = Command::new("etcd")
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut etcd = Etcd { name, server, port, _data: data };
        await_event(&mut etcd.server, "etcd answers", || {
            Wire::connect(port).and_then(|mut wire| wire.keys()).is_ok()
        })?;
        Ok(etcd)
    }

    fn locker(&self, lock: &str) -> io::Result<Locker> {
        let mut wire = Wire::connect(self.port)?;
        let lease = wire.post("/v3/lease/grant", &json!({ "TTL": LEASE_SECS }))?;
        let ask = json!({ "name": lock, "lease": lease["ID"] });
        Ok(Locker { wire, ask, held: Value::Null })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Peer for Etcd {
    fn name(&self) -> &'static str {
        self.name
    }

    fn client(&self, number: u64) -> io::Result<Box<dyn Client>> {
        Ok(Box::new(self.locker(&format!("{number:08}"))?))
    }

    fn hand_offs(&self, waiters: u64) -> io::Result<Vec<Duration>> {
        let holder = self.locker(SHARED)?;
        let all = (0..waiters).map(|_| self.locker(SHARED)).collect::<io::Result<Vec<_>>>()?;
        let mut wire = Wire::connect(self.port)?;
        // One key for each that holds or waits.
        hand_on(holder, all, || Ok(wire.keys()? == waiters + 1))
    }
}

/// One client: a connection that is kept, and a lease behind what it takes.
struct Locker {
    wire: Wire,
    ask: Value,
    held: Value,
}

impl Client for Locker {
    fn take(&mut self) -> io::Result<()> {
        self.held = self.wire.post("/v3/lock/lock", &self.ask)?["key"].take();
        Ok(())
    }

    fn give_back(&mut self) -> io::Result<()> {
        let key = self.held.take();
        self.wire.post("/v3/lock/unlock", &json!({ "key": key })).map(drop)
    }
}

/// As much of an HTTP/1.1 client as etcd's gateway takes.
struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    fn connect(port: u16) -> io::Result<Wire> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWERED_WITHIN))?;
        Ok(Wire { stream: BufReader::new(stream) })
    }

    /// Returns how many keys there are.
    fn keys(&mut self) -> io::Result<u64> {
        // From the first key there can be to the last.
        let all = json!({ "key": "AA==", "range_end": "AA==", "count_only": true });
        let counted = self.post("/v3/kv/range", &all)?;
        let count = counted["count"].as_str().unwrap_or("0");
        count.parse().map_err(io::Error::other)
    }

    fn post(&mut self, path: &str, body: &Value) -> io::Result<Value> {
        let body = body.to_string();
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {length}\r\n\r\n");
        self.stream.get_mut().write_all((head + &body).as_bytes())?;
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().map_err(io::Error::other)?;
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if !status.starts_with("HTTP/1.1 200 ") {
            let body = String::from_utf8_lossy(&body);
            return Err(io::Error::other(format!("{path}: {} {body}", status.trim_end())));
        }
        Ok(serde_json::from_slice(&body)?)
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
