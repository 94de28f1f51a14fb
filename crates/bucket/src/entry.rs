//! Entries: what a device did, sealed and signed, one after another.
//!
//! Who has no key reads the header and verifies all but the operations; who has one opens them,
//! too. Nothing here knows what other entries there are: that is `feed`.

mod error;

use std::fmt;
use std::ops::{Deref, Range};

use gate_core::tree::id::{Address, EntryId, FeedId};
use gate_core::tree::op::Op;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use error::EntryError;

use crate::envelope;
use crate::genesis::BucketId;
use crate::hash::Secret;
use crate::identity::DeviceId;
use crate::members::RecordId;
use crate::record::{self, Bytes, at_most};
use crate::sign::{self, Purpose, Signature};

/// The most bytes of an entry.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// The most operations of an entry.
pub const OPS_MAX: usize = 65_536;
/// The most chunks that an entry brings.
pub const CHUNKS_MAX: usize = 8192;
/// The most entries of other feeds on which an entry depends by itself.
pub const DEPS_MAX: usize = 1024;

pub(crate) const VERSION: u8 = 1;
const SIGNATURE_BYTES: usize = 64;

/// An entry, by what is signed of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryHash(pub [u8; 32]);

/// That a feed is a device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub device: DeviceId,
    pub signature: Signature,
}

/// What is readable without a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub(crate) version: u8,
    pub bucket: BucketId,
    pub feed: FeedId,
    pub number: u64,
    /// The entry before in this feed; zeros before the first.
    pub previous: EntryHash,
    /// At the first entry of a feed alone.
    pub certificate: Option<Certificate>,
    /// The newest entries of other feeds that the author had, and that `previous` does not imply;
    /// rising by feed.
    #[serde(deserialize_with = "at_most::<_, _, DEPS_MAX>")]
    pub deps: Vec<EntryId>,
    /// One more than the most of all it depends on.
    pub lamport: u64,
    /// The newest record of membership that the author had.
    pub members: RecordId,
    /// The epoch whose key seals the operations.
    pub epoch: u64,
    /// When it was made by the author's clock, in ms since 1970.
    pub at_ms: u64,
    /// What it brings; rising.
    #[serde(deserialize_with = "at_most::<_, _, CHUNKS_MAX>")]
    pub chunks: Vec<Address>,
}

/// An entry whose form is as it must be; whether it is signed was not asked yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    header: Header,
    /// Where the header ends.
    header_end: usize,
    body: Range<usize>,
    hash: EntryHash,
    bytes: Vec<u8>,
}

/// An entry that is signed by its feed and, if it is the first of that, by its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified(Entry);

impl Entry {
    /// Reads an entry; what it says of its own size allocates nothing.
    pub fn decode(bytes: &[u8]) -> Result<Entry, EntryError> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(version) => return Err(EntryError::UnknownVersion(*version)),
            None => return Err(EntryError::Damaged),
        }
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong);
        }
        let (header, rest) = record::take::<Header>(bytes).ok_or(EntryError::Damaged)?;
        header.check()?;
        let header_end = bytes.len() - rest.len();
        let (body_bytes, rest) = record::take::<u64>(rest).ok_or(EntryError::Damaged)?;
        let body_start = bytes.len() - rest.len();
        let signed_bytes = bytes.len().checked_sub(SIGNATURE_BYTES).ok_or(EntryError::Damaged)?;
        let body = body_start..signed_bytes;
        if body.len() as u64 != body_bytes || body.len() < envelope::OVERHEAD_BYTES {
            return Err(EntryError::Damaged);
        }
        let hash = EntryHash(*blake3::hash(&bytes[..signed_bytes]).as_bytes());
        Ok(Entry { header, header_end, body, hash, bytes: bytes.to_vec() })
    }

    /// Verifies who made it.
    pub fn verify(self, bucket: &BucketId) -> Result<Verified, EntryError> {
        let Header { feed, certificate, .. } = &self.header;
        if self.header.bucket != *bucket {
            return Err(EntryError::OtherBucket);
        }
        if let Some(Certificate { device, signature }) = certificate {
            let hash = certified(bucket, feed);
            if !sign::is_signed(&device.0, Purpose::Feed, &hash, signature) {
                return Err(EntryError::NotCertified);
            }
        }
        let signature: &[u8; SIGNATURE_BYTES] =
            self.bytes.last_chunk().expect("decode() found a signature");
        if !sign::is_signed(&feed.0, Purpose::Entry, &self.hash.0, &Bytes(*signature)) {
            return Err(EntryError::NotSigned);
        }
        Ok(Verified(self))
    }

    /// Takes an entry as verified that was before it was kept on this device.
    pub fn verified_before(self) -> Verified {
        Verified(self)
    }

    /// Returns what is readable without a key.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns what it is called.
    pub fn id(&self) -> EntryId {
        EntryId { feed: self.header.feed, number: self.header.number }
    }

    pub fn hash(&self) -> EntryHash {
        self.hash
    }

    /// Returns all its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns its operations, by the entry key of its epoch.
    pub fn open(&self, key: &Secret) -> Result<Vec<Op>, EntryError> {
        let sealed = &self.bytes[self.body.clone()];
        let header = &self.bytes[..self.header_end];
        let plain = envelope::open(key, header, sealed).ok_or(EntryError::NotOpened)?;
        read_ops(&plain)
    }
}

/// Reads the operations that an entry seals.
pub(crate) fn read_ops(plain: &[u8]) -> Result<Vec<Op>, EntryError> {
    let (count, mut rest) = record::take::<u64>(plain).ok_or(EntryError::NoOps)?;
    if count > OPS_MAX as u64 {
        return Err(EntryError::TooMany("operations"));
    }
    let mut ops = Vec::new();
    for place in 0..count as usize {
        let (op, after) = record::take::<Op>(rest).ok_or(EntryError::NoOps)?;
        op.check().map_err(|fault| EntryError::Op { place, fault })?;
        ops.push(op);
        rest = after;
    }
    if rest.is_empty() { Ok(ops) } else { Err(EntryError::NoOps) }
}

impl Header {
    /// Checks what can be checked without other entries.
    pub(crate) fn check(&self) -> Result<(), EntryError> {
        let is_first = self.number == 0;
        let is_rising = self.deps.windows(2).all(|pair| pair[0].feed < pair[1].feed)
            && self.chunks.windows(2).all(|pair| pair[0] < pair[1]);
        let is_own = self.deps.iter().any(|dep| dep.feed == self.feed);
        let is_fine = is_rising
            && !is_own
            && is_first == self.certificate.is_some()
            && (!is_first || self.previous == EntryHash::NONE)
            && self.lamport > 0;
        if is_fine { Ok(()) } else { Err(EntryError::Disorder) }
    }

    /// Seals and signs operations under this header.
    pub(crate) fn seal(
        self,
        feed: &ed25519_dalek::SigningKey,
        nonce: [u8; envelope::NONCE_BYTES],
        key: &Secret,
        ops: &[Op],
    ) -> Result<Verified, EntryError> {
        let bounds = [
            (ops.len(), OPS_MAX, "operations"),
            (self.chunks.len(), CHUNKS_MAX, "chunks"),
            (self.deps.len(), DEPS_MAX, "dependencies"),
        ];
        if let Some((.., what)) = bounds.iter().find(|(count, max, _)| count > max) {
            return Err(EntryError::TooMany(what));
        }
        self.check()?;
        let mut plain = Zeroizing::new(record::encode(&(ops.len() as u64)));
        for (place, op) in ops.iter().enumerate() {
            op.check().map_err(|fault| EntryError::Op { place, fault })?;
            plain.extend_from_slice(&record::encode(op));
            if plain.len() > ENTRY_BYTES_MAX {
                return Err(EntryError::TooLong);
            }
        }
        let mut bytes = record::encode(&self);
        let header_end = bytes.len();
        let sealed = envelope::seal_with(nonce, key, &bytes, &plain);
        bytes.extend_from_slice(&record::encode(&(sealed.len() as u64)));
        let body = bytes.len()..bytes.len() + sealed.len();
        bytes.extend_from_slice(&sealed);
        let hash = EntryHash(*blake3::hash(&bytes).as_bytes());
        bytes.extend_from_slice(&sign::sign(feed, Purpose::Entry, &hash.0).0);
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong);
        }
        Ok(Verified(Entry { header: self, header_end, body, hash, bytes }))
    }
}

/// Returns the hash of what certifies a feed.
pub(crate) fn certified(bucket: &BucketId, feed: &FeedId) -> [u8; 32] {
    *blake3::hash(&[bucket.0, feed.0].concat()).as_bytes()
}

impl EntryHash {
    /// What the first entry of a feed names as the one before it.
    pub const NONE: EntryHash = EntryHash([0; 32]);
}

impl Deref for Verified {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.0
    }
}

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entry:")?;
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}/{:?}", self.hash, self.header.number, self.header.feed)
    }
}
