//! As much of an HTTP/1.1 client as the stateless interface takes.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::address::{Address, Approach};
use crate::stream::{connect_tcp, resolve};

/// Connections that are kept for later calls.
const IDLE_MAX: usize = 64;
/// Bytes of an answer's head, at most.
const HEAD_BYTES_MAX: u64 = 16 * 1024;
/// Bytes of an answer's body, at most: a long list of locks.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The way to one server.
pub(super) struct Http {
    approach: Approach,
    idle: Mutex<Vec<Wire>>,
}

/// What is asked.
pub(super) struct Request {
    head: String,
    body: Vec<u8>,
}

/// What is answered.
pub(super) struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

/// A call in progress, which another thread may give up.
#[derive(Default)]
pub(super) struct Call(Mutex<Stage>);

#[derive(Default)]
enum Stage {
    #[default]
    Idle,
    On(Arc<TcpStream>),
    GivenUp,
}

struct Wire {
    reader: BufReader<TcpStream>,
    stream: Arc<TcpStream>,
    /// The header that shows the token, if there is one.
    token: Zeroizing<String>,
}

impl Request {
    pub fn get(target: &str) -> Request {
        Request { head: format!("GET {target} HTTP/1.1\r\n"), body: Vec::new() }
    }

    pub fn post(target: &str, body: &impl Serialize) -> io::Result<Request> {
        let body = serde_json::to_vec(body)?;
        let head = format!(
            "POST {target} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        Ok(Request { head, body })
    }
}

impl Call {
    /// Ends the call by closing its connection; a later one of the same owner fails at once.
    pub fn give_up(&self) {
        if let Stage::On(stream) = std::mem::replace(&mut *self.lock(), Stage::GivenUp) {
            // One that is closed already is closed.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn begin(&self, wire: &Wire) -> io::Result<()> {
        let mut stage = self.lock();
        if let Stage::GivenUp = *stage {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        *stage = Stage::On(wire.stream.clone());
        Ok(())
    }

    /// Returns whether it was not given up.
    fn end(&self) -> bool {
        let mut stage = self.lock();
        let whole = !matches!(*stage, Stage::GivenUp);
        if whole {
            *stage = Stage::Idle;
        }
        whole
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Http {
    pub fn new(approach: Approach) -> Http {
        Http { approach, idle: Mutex::default() }
    }

    /// Asks, and waits for the answer as long as `patience`, or without an end.
    pub fn call(
        &self,
        request: &Request,
        patience: Option<Duration>,
        call: &Call,
    ) -> io::Result<Reply> {
        let kept = self.idle().pop();
        if let Some(wire) = kept {
            match self.exchange(wire, request, patience, call) {
                // The server may have closed it while nobody looked.
                Err(error) if is_closed(&error) => self.forget(),
                outcome => return outcome,
            }
        }
        self.exchange(self.connect()?, request, patience, call)
    }

    /// Closes the connections that are kept.
    pub fn forget(&self) {
        self.idle().clear();
    }

    fn connect(&self) -> io::Result<Wire> {
        let Address::Tcp { host, port } = &self.approach.address else {
            return Err(ErrorKind::Unsupported.into());
        };
        let token = self.approach.token().map_err(io::Error::other)?;
        let token = token.map(|file| file.first().header()).unwrap_or_default();
        let stream = connect_tcp(&resolve(host, *port)?)?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Wire { reader, stream: Arc::new(stream), token })
    }

    fn exchange(
        &self,
        mut wire: Wire,
        request: &Request,
        patience: Option<Duration>,
        call: &Call,
    ) -> io::Result<Reply> {
        call.begin(&wire)?;
        let outcome =
            self.send(&wire, request, patience).and_then(|()| read_reply(&mut wire.reader));
        let whole = call.end();
        let (reply, may_stay) = outcome?;
        let mut idle = self.idle();
        if whole && may_stay && idle.len() < IDLE_MAX {
            idle.push(wire);
        }
        Ok(reply)
    }

    fn send(&self, wire: &Wire, request: &Request, patience: Option<Duration>) -> io::Result<()> {
        wire.stream.set_read_timeout(patience)?;
        let (address, token) = (&self.approach.address, &*wire.token);
        let head = Zeroizing::new(format!("{}Host: {address}\r\n{token}\r\n", request.head));
        let request = Zeroizing::new([head.as_bytes(), &request.body].concat());
        (&*wire.stream).write_all(&request)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Wire>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_closed(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// How long a body is.
enum Extent {
    Bytes(u64),
    Chunks,
    ToTheEnd,
}

/// Reads an answer; says too whether the connection may be used again.
fn read_reply(reader: &mut impl BufRead) -> io::Result<(Reply, bool)> {
    let mut head = reader.take(HEAD_BYTES_MAX);
    let first = read_line(&mut head)?;
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let status = status.ok_or_else(|| nonsense("no HTTP"))?;
    let mut extent = Extent::ToTheEnd;
    let mut may_stay = first.starts_with("HTTP/1.1");
    loop {
        let line = read_line(&mut head)?.to_ascii_lowercase();
        match line.split_once(':').map(|(name, value)| (name, value.trim())) {
            None if line.is_empty() => break,
            Some(("content-length", bytes)) => {
                extent = Extent::Bytes(bytes.parse().map_err(|_| nonsense("no length"))?);
            }
            Some(("transfer-encoding", "chunked")) => extent = Extent::Chunks,
            Some(("connection", "close")) => may_stay = false,
            Some(("connection", "keep-alive")) => may_stay = true,
            _ => {}
        }
    }
    may_stay &= !matches!(extent, Extent::ToTheEnd);
    let body = match extent {
        Extent::Bytes(length) => read_bytes(reader, length)?,
        Extent::Chunks => read_chunks(reader)?,
        Extent::ToTheEnd => {
            let mut body = Vec::new();
            reader.take(BODY_BYTES_MAX).read_to_end(&mut body)?;
            body
        }
    };
    Ok((Reply { status, body }, may_stay))
}

fn read_bytes(reader: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    if length > BODY_BYTES_MAX {
        return Err(nonsense("the answer is too long"));
    }
    let mut body = Vec::new();
    match reader.take(length).read_to_end(&mut body)? as u64 == length {
        true => Ok(body),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(&mut reader.take(HEAD_BYTES_MAX))?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(digits, 16).map_err(|_| nonsense("no chunk"))?;
        if body.len() as u64 + length.min(BODY_BYTES_MAX) > BODY_BYTES_MAX {
            return Err(nonsense("the answer is too long"));
        }
        body.extend(read_bytes(reader, length)?);
        // Ends the chunk, or, after the last and empty one, the trailer that nobody sends.
        read_line(&mut reader.take(HEAD_BYTES_MAX))?;
        if length == 0 {
            return Ok(body);
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(whole) => Ok(whole.trim_end_matches('\r').to_owned()),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}

fn nonsense(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Reads bytes as an answer, which says the same however it comes.
#[cfg(fuzzing)]
pub(crate) fn read_any(bytes: &[u8]) {
    fn told(mut reader: impl BufRead) -> Option<(u16, Vec<u8>, bool)> {
        let (reply, may_stay) = read_reply(&mut reader).ok()?;
        Some((reply.status, reply.body, may_stay))
    }
    let whole = told(bytes);
    assert_eq!(whole, told(BufReader::with_capacity(1, bytes)));
    assert!(whole.is_none_or(|(_, body, _)| body.len() as u64 <= BODY_BYTES_MAX));
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Serves one connection, answering one request by each of these texts.
    fn server(replies: &'static [&'static str]) -> Http {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            for reply in replies {
                let mut head = BufReader::new(stream.try_clone().unwrap());
                while !read_line(&mut head).unwrap().is_empty() {}
                stream.write_all(reply.as_bytes()).unwrap();
            }
        });
        at(port)
    }

    fn at(port: u16) -> Http {
        let host = "127.0.0.1".to_owned();
        Http::new(Address::Tcp { host, port }.into())
    }

    fn get(http: &Http) -> io::Result<(u16, String)> {
        let reply = http.call(&Request::get("/x"), None, &Call::default())?;
        Ok((reply.status, String::from_utf8(reply.body).unwrap()))
    }

    #[test]
    fn a_connection_is_used_again_however_the_body_is_framed() {
        let http = server(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
            "HTTP/1.1 408 X\r\ntransfer-encoding: chunked\r\n\r\n3\r\ncde\r\n1;x\r\nf\r\n0\r\n\r\n",
            "HTTP/1.0 404 Not Found\r\n\r\ng",
        ]);
        assert_eq!(get(&http).unwrap(), (200, "ab".to_owned()));
        assert_eq!(get(&http).unwrap(), (408, "cdef".to_owned()));
        assert_eq!(get(&http).unwrap(), (404, "g".to_owned()));
        assert!(http.idle().is_empty(), "that one was read to its end");
    }

    #[test]
    fn nonsense_and_torn_answers_are_errors() {
        for reply in [
            &["SSH-2.0-x\r\n\r\n"],
            &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"],
            &["HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"],
            &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
        ] {
            assert!(get(&server(reply)).is_err(), "{reply:?}");
        }
    }

    #[test]
    fn a_call_that_waits_can_be_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let http = at(listener.local_addr().unwrap().port());
        let call = Call::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| http.call(&Request::get("/x"), None, &call));
            let mut stream = listener.accept().unwrap().0;
            stream.read_exact(&mut [0; 16]).unwrap();
            call.give_up();
            assert!(waiting.join().unwrap().is_err());
        });
        assert!(http.call(&Request::get("/x"), None, &call).is_err(), "it stays given up");
    }
}
