//! Calls of the stateless interface: connections that are kept, calls that can be given up.

use std::io::{self, BufReader, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::address::{Address, Approach};
use crate::http::{Reply, Request, read_reply};
use crate::stream::{connect_tcp, resolve};

/// Connections that are kept for later calls.
const IDLE_MAX: usize = 64;
/// The way to one server.
pub(super) struct Http {
    approach: Approach,
    idle: Mutex<Vec<Wire>>,
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
        request.send(&*wire.stream, &self.approach.address.to_string(), &wire.token)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Wire>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_closed(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::http::read_line;

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
        let reply = http.call(&Request::bare("GET", "/x"), None, &Call::default())?;
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
            let waiting = scope.spawn(|| http.call(&Request::bare("GET", "/x"), None, &call));
            let mut stream = listener.accept().unwrap().0;
            stream.read_exact(&mut [0; 16]).unwrap();
            call.give_up();
            assert!(waiting.join().unwrap().is_err());
        });
        assert!(http.call(&Request::bare("GET", "/x"), None, &call).is_err(), "it stays given up");
    }
}
