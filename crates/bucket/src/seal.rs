//! How bytes become a sealed chunk, and how it is opened again.
//!
//! The bytes are encoded (made smaller where that pays, and filled up so that the length tells little), and
//! sealed under a key that is made from what was encoded: the same bytes are the same chunk, for whoever has
//! the bucket's keys and for nobody else. Who opens a chunk checks that its key is that of what was found.
//! Not here: where chunks lie. The bytes: `docs/bucket-format.md`.

use std::fmt;
use std::ops::{Deref, Range};

use gate_core::tree::op::{CHUNK_BYTES_MAX, ChunkRef};
use ring::aead;
use zstd::bulk::{Compressor, Decompressor};

use crate::hash::{self, Context, Secret};

/// What stands before the encoded data: algorithm and plain length.
const HEAD_BYTES: usize = 5;
/// The tag at the end of what is sealed.
const TAG_BYTES: usize = 16;
/// The shortest sealed chunk: cipher, head, tag.
pub const SEALED_BYTES_MIN: usize = 1 + HEAD_BYTES + TAG_BYTES;
/// The longest sealed chunk.
pub const SEALED_BYTES_MAX: usize = 1 + padme(HEAD_BYTES + CHUNK_BYTES_MAX as usize) + TAG_BYTES;

/// The level at which chunks are made smaller.
const ZSTD_LEVEL: i32 = 1;

/// Of so many bytes on a look at some of them tells whether they are noise …
const NOISE_BYTES_MIN: usize = 16 * 1024;
/// … if so many of each so many are counted, …
const SAMPLE_BYTES: usize = 16;
const SAMPLE_EVERY: usize = 256;
/// … and fewer than one in so many pairs of them are alike. Of noise one in 256 is; where a code for single bytes saves a
/// tenth, one in 148 at least.
const NOISE_PAIRS_MIN: u64 = 192;

/// What seals a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cipher {
    Aes256Gcm = 1,
    ChaCha20Poly1305 = 2,
}

/// The keys of one epoch under which chunks are made. They show nowhere.
#[derive(Clone)]
pub struct ChunkKeys {
    chunk: Secret,
    dedupe: Secret,
}

/// What tells within an epoch that the same bytes were sealed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DedupeId(pub [u8; 32]);

/// A sealed chunk, and how to find and open it.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub bytes: Vec<u8>,
    pub chunk: ChunkRef,
}

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// There are more bytes than a chunk holds: cut them.
    TooLong(usize),
}

/// Why a chunk was not opened. Another copy of it may be good, but for the last three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// No chunk has this length.
    Length(usize),
    /// It was sealed by something newer: nothing is wrong with it, this program is too old.
    UnknownCipher(u8),
    /// It was encoded by something newer.
    UnknownEncoding(u8),
    /// The key does not open these bytes: one or the other was changed.
    Damaged,
    /// It opens, but not with a key that any of the epochs would make: whoever made it meant harm, or an
    /// epoch is missing.
    ForeignKey,
    /// What is in it is no encoded chunk, or not what the reference says: whoever made it did not keep to the format.
    Malformed(&'static str),
}

/// What is in a chunk, or a part of that.
#[derive(Clone)]
pub struct Plain {
    bytes: Vec<u8>,
    range: Range<usize>,
}

/// Room and contexts for sealing and opening: making them anew costs more than a small chunk.
pub struct Workbench {
    compressor: Compressor<'static>,
    /// Where what is made smaller is put first.
    smaller: Vec<u8>,
    decompressor: Decompressor<'static>,
}

impl ChunkKeys {
    /// Derives the keys of an epoch.
    pub fn of_epoch(epoch: &Secret) -> ChunkKeys {
        ChunkKeys {
            chunk: hash::derive(Context::Chunk, epoch.bytes()),
            dedupe: hash::derive(Context::Dedupe, epoch.bytes()),
        }
    }

    /// Returns what bytes are known by in this epoch.
    pub fn dedupe_id(&self, plain: &[u8]) -> DedupeId {
        DedupeId(hash::keyed(&self.dedupe, &[plain]))
    }
}

impl fmt::Debug for ChunkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys of chunks")
    }
}

impl Workbench {
    pub fn new() -> Workbench {
        let compressor = Compressor::new(ZSTD_LEVEL);
        Workbench {
            compressor: compressor.expect("the level is one of zstd's"),
            smaller: Vec::new(),
            decompressor: Decompressor::new().expect("no dictionary can be wrong"),
        }
    }

    /// Seals at most [`CHUNK_BYTES_MAX`] bytes.
    pub fn seal(&mut self, keys: &ChunkKeys, plain: &[u8]) -> Result<Sealed, SealError> {
        self.seal_with(Cipher::Aes256Gcm, keys, plain)
    }

    fn seal_with(
        &mut self,
        cipher: Cipher,
        keys: &ChunkKeys,
        plain: &[u8],
    ) -> Result<Sealed, SealError> {
        if plain.len() > CHUNK_BYTES_MAX as usize {
            return Err(SealError::TooLong(plain.len()));
        }
        let mut bytes = self.encode(cipher, plain);
        let key = hash::keyed(&keys.chunk, &[&bytes]);
        let tag = cipher
            .key(&key)
            .seal_in_place_separate_tag(nonce(), aead::Aad::empty(), &mut bytes[1..])
            .expect("a chunk is shorter than what a cipher seals");
        bytes.extend_from_slice(tag.as_ref());
        let len = plain.len() as u32;
        let chunk = ChunkRef { address: hash::address(&bytes), key, plain_len: len, from: 0, len };
        Ok(Sealed { bytes, chunk })
    }

    /// Returns the cipher's byte and the encoded bytes, with room for a tag.
    fn encode(&mut self, cipher: Cipher, plain: &[u8]) -> Vec<u8> {
        // Room for no more than what still saves a tenth: zstd gives up where there is no more.
        let room = if is_noise(plain) { 0 } else { plain.len() * 9 / 10 };
        if self.smaller.len() < room {
            self.smaller.resize(room, 0);
        }
        let smaller = &mut self.smaller[..room];
        let (encoding, data) = match room {
            0 => (ENCODING_PLAIN, plain),
            _ => match self.compressor.compress_to_buffer(plain, smaller) {
                Ok(len) => (ENCODING_ZSTD, &self.smaller[..len]),
                Err(_) => (ENCODING_PLAIN, plain),
            },
        };
        let mut bytes = Vec::with_capacity(1 + padme(HEAD_BYTES + data.len()) + TAG_BYTES);
        bytes.extend_from_slice(&[cipher as u8, encoding]);
        bytes.extend_from_slice(&(plain.len() as u32).to_le_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(1 + padme(bytes.len() - 1), 0);
        bytes
    }

    /// Opens a chunk that was sealed in any of the epochs, and returns all that is in it.
    pub fn open<'a>(
        &mut self,
        epochs: impl IntoIterator<Item = &'a ChunkKeys>,
        chunk: &ChunkRef,
        sealed: Vec<u8>,
    ) -> Result<Plain, OpenError> {
        if !(SEALED_BYTES_MIN..=SEALED_BYTES_MAX).contains(&sealed.len()) {
            return Err(OpenError::Length(sealed.len()));
        }
        let cipher = match sealed[0] {
            1 => Cipher::Aes256Gcm,
            2 => Cipher::ChaCha20Poly1305,
            unknown => return Err(OpenError::UnknownCipher(unknown)),
        };
        let mut bytes = sealed;
        let encoded_len = cipher
            .key(&chunk.key)
            .open_in_place(nonce(), aead::Aad::empty(), &mut bytes[1..])
            .map_err(|_| OpenError::Damaged)?
            .len();
        bytes.truncate(1 + encoded_len);
        // Bytes can be made that two keys open: only one of them is the key of what it finds.
        if !epochs.into_iter().any(|keys| hash::keyed(&keys.chunk, &[&bytes]) == chunk.key) {
            return Err(OpenError::ForeignKey);
        }
        let plain = match self.decode(&bytes[1..])? {
            Decoded::Within(range) => Plain { range: 1 + range.start..1 + range.end, bytes },
            Decoded::Anew(bytes) => Plain { range: 0..bytes.len(), bytes },
        };
        if plain.len() != chunk.plain_len as usize {
            return Err(OpenError::Malformed("the length is not that of the reference"));
        }
        Ok(plain)
    }

    /// Returns how many bytes are encoded there.
    #[cfg(fuzzing)]
    pub(crate) fn decoded_len(&mut self, encoded: &[u8]) -> Result<usize, OpenError> {
        self.decode(encoded).map(|decoded| match decoded {
            Decoded::Within(range) => range.len(),
            Decoded::Anew(bytes) => bytes.len(),
        })
    }

    fn decode(&mut self, encoded: &[u8]) -> Result<Decoded, OpenError> {
        let (head, data) =
            encoded.split_first_chunk::<HEAD_BYTES>().ok_or(OpenError::Malformed("no head"))?;
        let [encoding, len @ ..] = *head;
        let len = u32::from_le_bytes(len);
        if len > CHUNK_BYTES_MAX {
            return Err(OpenError::Malformed("it says that it holds more than a chunk does"));
        }
        let len = len as usize;
        let (plain, used) = match encoding {
            ENCODING_PLAIN => {
                data.get(..len).ok_or(OpenError::Malformed("it holds less"))?;
                (Decoded::Within(HEAD_BYTES..HEAD_BYTES + len), len)
            }
            ENCODING_ZSTD => {
                let used = zstd::zstd_safe::find_frame_compressed_size(data)
                    .ok()
                    .filter(|used| *used <= data.len())
                    .ok_or(OpenError::Malformed("no zstd frame"))?;
                let mut plain = vec![0; len];
                match self.decompressor.decompress_to_buffer(&data[..used], &mut plain[..]) {
                    Ok(found) if found == len => (Decoded::Anew(plain), used),
                    _ => return Err(OpenError::Malformed("the zstd frame holds something else")),
                }
            }
            unknown => return Err(OpenError::UnknownEncoding(unknown)),
        };
        let is_filled = data[used..].iter().all(|byte| *byte == 0);
        if !is_filled || encoded.len() != padme(HEAD_BYTES + used) {
            return Err(OpenError::Malformed("it is not filled up as it should be"));
        }
        Ok(plain)
    }
}

impl Deref for Plain {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

impl Plain {
    #[cfg(test)]
    pub(crate) fn of(bytes: Vec<u8>) -> Plain {
        Plain { range: 0..bytes.len(), bytes }
    }

    /// Returns a part of it, if it has that.
    pub(crate) fn part(mut self, from: u32, len: u32) -> Option<Plain> {
        let end = from.checked_add(len)? as usize;
        (end <= self.len()).then(|| {
            self.range = self.range.start + from as usize..self.range.start + end;
            self
        })
    }

    /// Returns how much memory it takes.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Plain {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

// What files hold shows nowhere.
impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of a chunk", self.range.len())
    }
}

impl Default for Workbench {
    fn default() -> Workbench {
        Workbench::new()
    }
}

impl fmt::Debug for Workbench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a workbench")
    }
}

/// Where the bytes of a chunk are.
enum Decoded {
    /// In what was decoded.
    Within(Range<usize>),
    Anew(Vec<u8>),
}

/// The bytes as they are.
const ENCODING_PLAIN: u8 = 0;
const ENCODING_ZSTD: u8 = 1;

impl Cipher {
    fn key(self, key: &[u8; 32]) -> aead::LessSafeKey {
        let algorithm = match self {
            Cipher::Aes256Gcm => &aead::AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = aead::UnboundKey::new(algorithm, key).expect("both have keys of 32 bytes");
        aead::LessSafeKey::new(key)
    }
}

/// Zeros: a key seals one text.
fn nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

/// Whether bytes seem to be random, or made smaller before: what zstd would find out, by a look at a few of them.
fn is_noise(bytes: &[u8]) -> bool {
    if bytes.len() < NOISE_BYTES_MIN {
        return false;
    }
    let mut counts = [0_u64; 256];
    for part in bytes.chunks_exact(SAMPLE_EVERY) {
        part[..SAMPLE_BYTES].iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    }
    let pairs = |count: u64| count * count - count;
    let alike: u64 = counts.iter().map(|count| pairs(*count)).sum();
    alike * NOISE_PAIRS_MIN < pairs(counts.iter().sum())
}

/// Returns the length to which so many bytes are filled up: at most an eighth more.
pub const fn padme(len: usize) -> usize {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let kept = exponent.checked_ilog2();
    let kept = match kept {
        Some(bits) => bits + 1,
        None => 1,
    };
    let mask = (1 << exponent.saturating_sub(kept)) - 1;
    (len + mask) & !mask
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SealError::TooLong(len) = self;
        write!(f, "{len} bytes are more than a chunk holds")
    }
}

impl std::error::Error for SealError {}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Length(len) => write!(f, "no chunk has {len} bytes"),
            OpenError::UnknownCipher(cipher) => {
                write!(f, "a chunk is sealed with cipher {cipher}, which this gate does not know")
            }
            OpenError::UnknownEncoding(encoding) => {
                write!(f, "a chunk has encoding {encoding}, which this gate does not know")
            }
            OpenError::Damaged => f.write_str("a chunk does not open: it is damaged"),
            OpenError::ForeignKey => f.write_str("a chunk's key is not that of what is in it"),
            OpenError::Malformed(why) => write!(f, "no chunk: {why}"),
        }
    }
}

impl std::error::Error for OpenError {}

#[cfg(test)]
mod tests;
