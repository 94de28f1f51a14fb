//! As much of HTTP/1.1 as a client of ours takes: one request at a time, and its answer.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};

use serde::Serialize;
use zeroize::Zeroizing;

/// Bytes of an answer's head, at most.
const HEAD_BYTES_MAX: u64 = 16 * 1024;
/// Bytes of an answer's body, at most: a long list of locks.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What is asked.
pub struct Request {
    head: String,
    body: Vec<u8>,
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
        Request { head: format!("{method} {target} HTTP/1.1\r\n"), body: Vec::new() }
    }

    /// Asks with JSON.
    pub fn json(method: &str, target: &str, body: &impl Serialize) -> io::Result<Request> {
        let body = serde_json::to_vec(body)?;
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
        self.send(&mut *stream, "localhost", "Connection: close\r\n")?;
        read_reply(&mut BufReader::new(stream)).map(|(reply, _)| reply)
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

/// How long a body is.
enum Extent {
    Bytes(u64),
    Chunks,
    ToTheEnd,
}

/// Reads an answer; says too whether the connection may be used again.
pub(crate) fn read_reply(reader: &mut impl BufRead) -> io::Result<(Reply, bool)> {
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
