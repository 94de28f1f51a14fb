//! What a browser sends of a form with files (RFC 7578), as it comes: none of it is ever whole in memory.
//!
//! One part is read at a time. Where the body ends before a part does it was cut off, and reading fails: so
//! nothing is taken for whole that is not.

use std::io::{self, Read};

/// Bytes of a part's head, at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// The longest boundary that there may be.
const BOUNDARY_BYTES_MAX: usize = 70;

/// The parts of a body.
pub struct Parts<R> {
    from: R,
    /// What stands between two parts, with the line break before it.
    between: Vec<u8>,
    /// What was read, …
    ahead: Vec<u8>,
    /// … how much of that was given away, …
    given: usize,
    /// … and how much of the rest is of this part for sure.
    sure: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Within a part, or before the first.
    Inside,
    /// Behind what is between two parts.
    Between,
    /// There is no other part.
    Over,
}

/// One part, to be read.
pub struct Part<'a, R> {
    /// What the file is called; of another field nothing.
    pub file: Option<Vec<u8>>,
    parts: &'a mut Parts<R>,
}

/// Returns what stands between the parts of a body of this type.
pub fn boundary(content_type: &str) -> Option<&str> {
    let (kind, rest) = content_type.split_once(';')?;
    let mut parameters = rest.split(';').filter_map(|parameter| parameter.trim().split_once('='));
    let (_, boundary) = parameters.find(|(name, _)| name.eq_ignore_ascii_case("boundary"))?;
    let boundary = boundary.trim_matches('"');
    let is_fine = (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len());
    (is_fine && kind.trim().eq_ignore_ascii_case("multipart/form-data")).then_some(boundary)
}

impl<R: Read> Parts<R> {
    pub fn new(from: R, boundary: &str) -> Parts<R> {
        let between = format!("\r\n--{boundary}").into_bytes();
        // Before the first there is no line break.
        let ahead = b"\r\n".to_vec();
        Parts { from, between, ahead, given: 0, sure: 0, state: State::Inside }
    }

    /// Returns the next part, if there is one; what was not read of the one before is passed over.
    pub fn next(&mut self) -> io::Result<Option<Part<'_, R>>> {
        while self.state == State::Inside {
            let passed = self.known()?;
            self.given += passed;
            self.sure -= passed;
        }
        while self.state == State::Between {
            let ahead = &self.ahead[self.given..];
            if ahead.starts_with(b"--") {
                self.state = State::Over;
            } else if let Some(end) = find(ahead, b"\r\n\r\n") {
                let file = file_name(&ahead[..end]);
                self.given += end + 4;
                self.state = State::Inside;
                return Ok(Some(Part { file, parts: self }));
            } else if ahead.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("the head of a part is too long"));
            } else {
                self.read_on()?;
            }
        }
        Ok(None)
    }

    /// Returns how much of what was read is of this part, and nothing at its end.
    fn known(&mut self) -> io::Result<usize> {
        while self.sure == 0 && self.state == State::Inside {
            let ahead = &self.ahead[self.given..];
            match find(ahead, &self.between) {
                Some(0) => {
                    self.given += self.between.len();
                    self.state = State::Between;
                }
                Some(end) => self.sure = end,
                // What comes at the end may be the beginning of what is between.
                None if ahead.len() >= self.between.len() => {
                    self.sure = ahead.len() - (self.between.len() - 1);
                }
                None => self.read_on()?,
            }
        }
        Ok(self.sure)
    }

    fn read_on(&mut self) -> io::Result<()> {
        self.ahead.drain(..self.given);
        self.given = 0;
        let had = self.ahead.len();
        self.ahead.resize(had + PIECE_BYTES, 0);
        let read = self.from.read(&mut self.ahead[had..]);
        self.ahead.truncate(had + *read.as_ref().unwrap_or(&0));
        match read? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Part<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let parts = &mut *self.parts;
        let len = parts.known()?.min(out.len());
        out[..len].copy_from_slice(&parts.ahead[parts.given..parts.given + len]);
        parts.given += len;
        parts.sure -= len;
        Ok(len)
    }
}

/// Returns what the file is called whose part has such a head, if it is one.
fn file_name(head: &[u8]) -> Option<Vec<u8>> {
    const DISPOSITION: &[u8] = b"content-disposition:";
    const NAME: &[u8] = b"; filename=\"";
    let is_disposition = |line: &&[u8]| {
        line.get(..DISPOSITION.len()).is_some_and(|name| name.eq_ignore_ascii_case(DISPOSITION))
    };
    let line = head.split(|byte| *byte == b'\n').find(is_disposition)?;
    let name = &line[find(line, NAME)? + NAME.len()..];
    let mut name = name[..find(name, b"\"")?].to_vec();
    // These alone are spelt out by browsers.
    for (spelt, byte) in [(b"%22", b'"'), (b"%0D", b'\r'), (b"%0A", b'\n')] {
        while let Some(at) = find(&name, spelt) {
            name.splice(at..at + spelt.len(), [byte]);
        }
    }
    Some(name)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let len = self.1.min(self.0.len()).min(out.len());
            out[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    /// What a file is called, and what it holds.
    type Whole = (Option<Vec<u8>>, Vec<u8>);

    fn read(body: &[u8], at_once: usize) -> io::Result<Vec<Whole>> {
        let mut parts = Parts::new(Slow(body, at_once), "B");
        let mut all = Vec::new();
        while let Some(mut part) = parts.next()? {
            let mut bytes = Vec::new();
            part.read_to_end(&mut bytes)?;
            all.push((part.file.take(), bytes));
        }
        Ok(all)
    }

    const BODY: &[u8] = b"--B\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nfield\r\n\
        --B\r\nContent-disposition: form-data; name=\"file\"; filename=\"a%22\xff; b\"\r\nContent-Type: text/plain\r\n\r\n\
        one\r\n--A\r\n-\r\n\r\r\n--B\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"\"\r\n\r\n\r\n--B--\r\n";

    #[test]
    fn parts_are_read_however_they_come() {
        for at_once in [1, 2, 3, 7, 1000] {
            let parts = read(BODY, at_once).unwrap();
            let expected = [
                (None, b"field".to_vec()),
                (Some(b"a\"\xff; b".to_vec()), b"one\r\n--A\r\n-\r\n\r".to_vec()),
                (Some(Vec::new()), Vec::new()),
            ];
            assert_eq!(parts, expected, "{at_once} bytes at once");
        }
        // What nobody reads is passed over.
        let mut parts = Parts::new(BODY, "B");
        let mut count = 0;
        while parts.next().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 3);
    }

    #[test]
    fn wherever_a_body_is_cut_off_that_is_seen() {
        let end = BODY.len() - b"--\r\n".len();
        for len in 0..=end {
            assert!(read(&BODY[..len], 5).is_err(), "{len} of {} bytes", BODY.len());
        }
        let endless = [b"--B\r\n".to_vec(), vec![b'a'; HEAD_BYTES_MAX * 8]].concat();
        assert_eq!(read(&endless, 1000).unwrap_err().kind(), io::ErrorKind::Other);
    }

    #[test]
    fn what_is_between_parts_is_said_by_the_type_of_the_body() {
        assert_eq!(boundary("multipart/form-data; boundary=----x=1"), Some("----x=1"));
        assert_eq!(boundary("Multipart/Form-Data; charset=x; Boundary=\"a b\""), Some("a b"));
        for other in ["multipart/form-data", "multipart/form-data; boundary=", "a/b; boundary=x"] {
            assert_eq!(boundary(other), None, "{other}");
        }
        assert_eq!(boundary(&format!("multipart/form-data; boundary={}", "x".repeat(71))), None);
    }
}
