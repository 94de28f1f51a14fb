//! Messages in a stream: a preamble once, then frames.
//!
//! Each side first says [`PREAMBLE`], which carries the protocol's version; a side that knows
//! another version says its own and hangs up (N16). A frame is its length (u32, little endian)
//! and a postcard message of exactly that length.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of the messages in [`crate::wire`].
pub const PROTOCOL_VERSION: u32 = 1;
/// The longest frame, without its length.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// How long a preamble is.
pub const PREAMBLE_BYTES: usize = 8;
/// What each side says first.
pub const PREAMBLE: [u8; PREAMBLE_BYTES] = preamble(PROTOCOL_VERSION);

const MAGIC: [u8; 4] = *b"GATE";
const LENGTH_BYTES: usize = 4;

/// Why a stream cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The peer does not speak this protocol at all.
    NotGate,
    /// The peer speaks another version of it.
    Version(u32),
    /// A frame is longer than [`FRAME_BYTES_MAX`].
    TooLong,
    /// A frame holds no message, or more than one.
    Malformed,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::NotGate => f.write_str("the peer does not speak Gate's frames"),
            FrameError::Version(theirs) => {
                write!(f, "the peer speaks version {theirs}, this is version {PROTOCOL_VERSION}")
            }
            FrameError::TooLong => write!(f, "a frame is longer than {FRAME_BYTES_MAX} bytes"),
            FrameError::Malformed => f.write_str("a frame holds no message"),
        }
    }
}

impl std::error::Error for FrameError {}

const fn preamble(version: u32) -> [u8; PREAMBLE_BYTES] {
    let [a, b, c, d] = version.to_le_bytes();
    [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], a, b, c, d]
}

/// Checks what a peer said first.
pub fn check_preamble(bytes: [u8; PREAMBLE_BYTES]) -> Result<(), FrameError> {
    let [a, b, c, d, version @ ..] = bytes;
    match u32::from_le_bytes(version) {
        _ if [a, b, c, d] != MAGIC => Err(FrameError::NotGate),
        PROTOCOL_VERSION => Ok(()),
        other => Err(FrameError::Version(other)),
    }
}

/// Appends a message to `out` as a frame; on an error `out` is as before.
pub fn encode(message: &impl Serialize, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    let written = postcard::to_io(message, &mut *out).map(|_| ());
    let length = out.len() - start - LENGTH_BYTES;
    if written.is_err() || length > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(if written.is_err() { FrameError::Malformed } else { FrameError::TooLong });
    }
    let length = u32::try_from(length).expect("checked against a smaller bound");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Bytes that came in, cut into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > FRAME_BYTES_MAX {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the peer's preamble, if all of it is here, and checks it.
    pub fn preamble(&mut self) -> Result<Option<()>, FrameError> {
        let Some(bytes) = self.bytes[self.start..].first_chunk() else { return Ok(None) };
        check_preamble(*bytes)?;
        self.start += PREAMBLE_BYTES;
        Ok(Some(()))
    }

    /// Takes the next message, if all of it is here.
    pub fn message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let rest = &self.bytes[self.start..];
        let Some(length) = rest.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong);
        }
        let Some(body) = rest.get(LENGTH_BYTES..LENGTH_BYTES + length) else { return Ok(None) };
        match postcard::take_from_bytes(body) {
            Ok((message, [])) => {
                self.start += LENGTH_BYTES + length;
                Ok(Some(message))
            }
            Ok(_) | Err(_) => Err(FrameError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let mut stream = Vec::new();
        for word in ["one", "", "three"] {
            encode(&word, &mut stream).unwrap();
        }
        for cut in 1..stream.len() {
            let mut decoder = Decoder::default();
            let mut words: Vec<String> = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some(word) = decoder.message().unwrap() {
                    words.push(word);
                }
            }
            assert_eq!(words, ["one", "", "three"], "cut every {cut} bytes");
        }
    }

    #[test]
    fn a_frame_beyond_the_bound_is_refused_on_both_sides() {
        let mut out = b"before".to_vec();
        let long = "x".repeat(FRAME_BYTES_MAX);
        assert_eq!(encode(&long, &mut out), Err(FrameError::TooLong));
        assert_eq!(out, b"before");
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        assert_eq!(decoder.message::<String>(), Err(FrameError::TooLong));
    }

    #[test]
    fn a_frame_holds_exactly_one_message() {
        let mut decoder = Decoder::default();
        decoder.push(&[2, 0, 0, 0, 7, 7]);
        assert_eq!(decoder.message::<u8>(), Err(FrameError::Malformed));
    }

    #[test]
    fn n16_an_unknown_version_is_named_not_guessed_at() {
        let mut decoder = Decoder::default();
        decoder.push(&PREAMBLE[..5]);
        assert_eq!(decoder.preamble(), Ok(None));
        assert_eq!(check_preamble(PREAMBLE), Ok(()));
        assert_eq!(check_preamble(preamble(9)), Err(FrameError::Version(9)));
        assert_eq!(check_preamble(*b"GET / HT"), Err(FrameError::NotGate));
    }
}
