//! As much of HTTP/1.1 as a client of ours takes: one request at a time, and its answer.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};

use serde::Serialize;
use zeroize::Zeroizing;

/// Bytes of an answer's head, at most.
const HEAD_BYTES_MAX: u64 = 16 * 1024;
/// Bytes of an answer's body, at most: a long list of locks.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of a chunk of a body that is sent as it is read.
const CHUNK_BYTES: usize = 128 * 1024;

/// What is asked.
pub struct Request {
    head: String,
    /// It may be a secret.
    body: Zeroizing<Vec<u8>>,
}

/// What is answered.
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Request {
    /// Asks with a method that has no body.
    pub fn bare(method: &str, target: &str) -> Request {
        Request { head: format!("{method} {target} HTTP/1.1\r\n"), body: Zeroizing::default() }
    }

    /// Asks with JSON.
    pub fn json(method: &str, target: &str, body: &impl Serialize) -> io::Result<Request> {
        let body = Zeroizing::new(serde_json::to_vec(body)?);
        let head = format!(
            "{method} {target} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        Ok(Request { head, body })
    }

    /// Sends it; `headers` are whole lines, and may hold a secret.
    pub(crate) fn send(&self, mut to: impl Write, host: &str, headers: &str) -> io::Result<()> {
        let head = Zeroizing::new(format!("{}Host: {host}\r\n{headers}\r\n", self.head));
        let whole = Zeroizing::new([head.as_bytes(), &self.body].concat());
        to.write_all(&whole)
    }

    /// Sends it over a connection of its own, and waits for the answer.
    pub fn exchange(&self, stream: &mut (impl Read + Write)) -> io::Result<Reply> {
        self.open(stream)?.whole()
    }

    /// As [`Request::exchange`], and the answer's body is read by the caller.
    pub fn open<S: Read + Write>(&self, mut stream: S) -> io::Result<Incoming<BufReader<S>>> {
        self.send(&mut stream, "localhost", "Connection: close\r\n")?;
        Incoming::read_head(BufReader::new(stream))
    }

    /// As [`Request::open`], with a body that is read as it is sent. Who refuses it does so before its end.
    pub fn upload<S: Read + Write>(
        &self,
        mut stream: S,
        from: &mut dyn Read,
    ) -> io::Result<Incoming<BufReader<S>>> {
        let headers = "Connection: close\r\nContent-Type: application/octet-stream\r\n\
                       Transfer-Encoding: chunked\r\n";
        self.send(&mut stream, "localhost", headers)?;
        match send_chunks(&mut stream, from) {
            // It may have said why.
            Err(Failed::ToSend) | Ok(()) => Incoming::read_head(BufReader::new(stream)),
            Err(Failed::ToRead(error)) => Err(error),
        }
    }
}

/// What went wrong while a body was sent.
enum Failed {
    ToRead(io::Error),
    ToSend,
}

fn send_chunks(to: &mut impl Write, from: &mut dyn Read) -> Result<(), Failed> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            outcome => outcome.map_err(Failed::ToRead)?,
        };
        let bytes = &buffer[..read];
        let sent = write!(to, "{read:x}\r\n").and_then(|()| to.write_all(bytes));
        sent.and_then(|()| to.write_all(b"\r\n")).map_err(|_| Failed::ToSend)?;
        if read == 0 {
            return Ok(());
        }
    }
}

/// Writes bytes so that they are one value of a query.
pub fn quoted(bytes: &[u8]) -> String {
    let quote = |byte: &u8| match byte {
        b'/' | b'.' | b'-' | b'_' | b'~' => char::from(*byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(quote).collect()
}

/// Reads what was [`quoted`]; a `%` that no byte follows stands for itself.
pub fn unquoted(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.split_first_chunk().filter(|_| *first == b'%');
        let byte = digits.and_then(|(digits, tail)| {
            let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
            Some((u8::try_from(high? * 16 + low?).ok()?, tail))
        });
        let (byte, tail) = byte.unwrap_or((*first, tail));
        bytes.push(byte);
        rest = tail;
    }
    bytes
}

/// An answer whose body is yet to be read.
pub struct Incoming<R> {
    /// The status code.
    pub status: u16,
    reader: R,
    extent: Extent,
    /// Whether the connection may be used again, once the body was read.
    may_stay: bool,
}

/// What is left of a body.
enum Extent {
    Bytes(u64),
    /// So much of a chunk, and then other chunks.
    Chunk(u64),
    ToTheEnd,
    Over,
}

/// Reads an answer; says too whether the connection may be used again.
pub(crate) fn read_reply(reader: &mut impl BufRead) -> io::Result<(Reply, bool)> {
    let incoming = Incoming::read_head(reader)?;
    let may_stay = incoming.may_stay;
    incoming.whole().map(|reply| (reply, may_stay))
}

impl<R: BufRead> Incoming<R> {
    fn read_head(mut reader: R) -> io::Result<Incoming<R>> {
        let mut head = (&mut reader).take(HEAD_BYTES_MAX);
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
                Some(("transfer-encoding", "chunked")) => extent = Extent::Chunk(0),
                Some(("connection", "close")) => may_stay = false,
                Some(("connection", "keep-alive")) => may_stay = true,
                _ => {}
            }
        }
        if let Extent::Chunk(_) = extent {
            extent = next_chunk(&mut reader)?;
        }
        may_stay &= !matches!(extent, Extent::ToTheEnd);
        Ok(Incoming { status, reader, extent, may_stay })
    }

    /// Returns what it is read from.
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// Reads all of it, up to a bound.
    pub fn whole(mut self) -> io::Result<Reply> {
        let mut body = Vec::new();
        let is_long = matches!(self.extent, Extent::Bytes(bytes) if bytes > BODY_BYTES_MAX);
        if is_long
            || (&mut self).take(BODY_BYTES_MAX + 1).read_to_end(&mut body)? as u64 > BODY_BYTES_MAX
        {
            return Err(nonsense("the answer is too long"));
        }
        Ok(Reply { status: self.status, body })
    }
}

/// The body; one that was cut off ends in an error.
impl<R: BufRead> Read for Incoming<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = match &mut self.extent {
            Extent::Over | Extent::Bytes(0) => return Ok(0),
            Extent::ToTheEnd => return self.reader.read(buffer),
            Extent::Bytes(left) | Extent::Chunk(left) => left,
        };
        let read = (&mut self.reader).take(*left).read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        *left -= read as u64;
        if let Extent::Chunk(0) = self.extent {
            read_line(&mut (&mut self.reader).take(HEAD_BYTES_MAX))?;
            self.extent = next_chunk(&mut self.reader)?;
        }
        Ok(read)
    }
}

/// Reads up to the bytes of a chunk, or past the last one, which is empty.
fn next_chunk(reader: &mut impl BufRead) -> io::Result<Extent> {
    let line = read_line(&mut reader.take(HEAD_BYTES_MAX))?;
    let digits = line.split(';').next().unwrap_or_default().trim();
    match u64::from_str_radix(digits, 16).map_err(|_| nonsense("no chunk"))? {
        // After it comes the trailer, which nobody sends.
        0 => read_line(&mut reader.take(HEAD_BYTES_MAX)).map(|_| Extent::Over),
        length => Ok(Extent::Chunk(length)),
    }
}

pub(crate) fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
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
