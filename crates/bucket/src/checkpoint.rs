//! Checkpoints: what follows from some entries, so that who has it need not do them again.
//!
//! A checkpoint names the entries that are in it, is signed by the feed of a device, and seals where the rows of the state
//! lie and what they come to. Who has no key reads which entries and which chunks that are. Nothing here knows which
//! entries and which records of membership there are: that is `bucket`.

mod error;

use std::fmt;
use std::ops::Range;

use gate_core::tree::content::Body;
use gate_core::tree::id::{Address, EntryId, FeedId, FileId};
use gate_core::tree::op::{Content, Op};
use gate_core::tree::seen::Seen;
use gate_core::tree::tables::Sum;
use serde::{Deserialize, Serialize};

pub use error::CheckpointError;

use crate::entry::{self, Certificate, EntryHash};
use crate::envelope;
use crate::feed::OwnFeed;
use crate::genesis::BucketId;
use crate::hash::Secret;
use crate::members::RecordId;
use crate::record::{self, Bytes, at_most};
use crate::shelf::rows::Tallied;
use crate::sign::{self, Purpose};
use crate::vault::{EXTENTS_MAX, Stored};

/// The most bytes of a checkpoint; the rows are in chunks.
pub const CHECKPOINT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most feeds of which entries are in it.
pub const HEADS_MAX: usize = 262_144;

/// The longest file that holds one.
pub const FILE_BYTES_MAX: usize = CHECKPOINT_BYTES_MAX + FILE_HEAD.len();

pub(crate) const VERSION: u8 = 1;
/// What the file that holds one begins with: what it is, a version.
const FILE_HEAD: &[u8; 7] = b"GATECP\x01";
const SIGNATURE_BYTES: usize = 64;

/// What is readable without a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub(crate) version: u8,
    pub bucket: BucketId,
    /// Who signs it.
    pub feed: FeedId,
    pub certificate: Certificate,
    /// The newest record of membership that the author had.
    pub members: RecordId,
    /// The epoch whose key seals where the rows are.
    pub epoch: u64,
    /// When it was made by the author's clock, in ms since 1970.
    pub at_ms: u64,
    /// The version of the tables whose rows they are.
    pub tables: u32,
    /// The newest entry of each feed that is in it; rising by feed.
    #[serde(deserialize_with = "at_most::<_, _, HEADS_MAX>")]
    pub heads: Vec<Head>,
    /// Where the rows are; rising.
    #[serde(deserialize_with = "at_most::<_, _, EXTENTS_MAX>")]
    pub chunks: Vec<Address>,
}

/// The newest entry of a feed that is in a checkpoint: with it, all before it are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub entry: EntryId,
    pub hash: EntryHash,
}

/// What is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    sum: [u64; 4],
    hash: [u8; 32],
    /// How many bytes the rows are.
    pub size: u64,
    /// They, as if they were in a file.
    content: Content,
}

/// What is to become a checkpoint.
#[derive(Clone, Debug)]
pub struct NewCheckpoint {
    pub bucket: BucketId,
    pub members: RecordId,
    pub epoch: u64,
    pub at_ms: u64,
    pub tables: u32,
    pub heads: Vec<Head>,
    /// The rows, as they were taken in.
    pub stored: Stored,
    pub tallied: Tallied,
}

/// A checkpoint whose form is as it must be; whether it is signed was not asked yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Checkpoint {
    header: Header,
    /// Where the header ends.
    header_end: usize,
    body: Range<usize>,
    bytes: Vec<u8>,
}

impl Checkpoint {
    /// Makes one, signed by a feed of this device. Its chunks must be stored for sure before it is kept.
    pub fn make(
        own: &OwnFeed,
        key: &Secret,
        new: NewCheckpoint,
    ) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::make_with(crate::random::bytes(), own, key, new)
    }

    pub(crate) fn make_with(
        nonce: [u8; envelope::NONCE_BYTES],
        own: &OwnFeed,
        key: &Secret,
        new: NewCheckpoint,
    ) -> Result<Checkpoint, CheckpointError> {
        let NewCheckpoint { bucket, members, epoch, at_ms, tables, heads, stored, tallied } = new;
        let Stored { size, content, chunks } = stored;
        let held = Held { sum: tallied.sum.0, hash: tallied.hash, size, content };
        let (version, feed, certificate) = (VERSION, own.id(), own.certificate());
        let header = Header {
            version,
            bucket,
            feed,
            certificate,
            members,
            epoch,
            at_ms,
            tables,
            heads,
            chunks,
        };
        if header.heads.len() > HEADS_MAX || header.chunks.len() > EXTENTS_MAX {
            return Err(CheckpointError::TooLong);
        }
        header.check()?;
        let mut bytes = record::encode(&header);
        let sealed = envelope::seal_with(nonce, key, &bytes, &record::encode(&held));
        bytes.extend(record::encode(&(sealed.len() as u64)));
        bytes.extend(sealed);
        bytes.extend(own.sign(Purpose::Checkpoint, blake3::hash(&bytes).as_bytes()).0);
        Checkpoint::decode(&bytes)
    }

    /// Reads a checkpoint; what it says of its own size allocates nothing.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(version) => return Err(CheckpointError::UnknownVersion(*version)),
            None => return Err(CheckpointError::Damaged),
        }
        if bytes.len() > CHECKPOINT_BYTES_MAX {
            return Err(CheckpointError::TooLong);
        }
        let damaged = CheckpointError::Damaged;
        let Some((header, rest)) = record::take::<Header>(bytes) else { return Err(damaged) };
        header.check()?;
        let header_end = bytes.len() - rest.len();
        let Some((body_bytes, rest)) = record::take::<u64>(rest) else { return Err(damaged) };
        let body = bytes.len() - rest.len()..bytes.len().saturating_sub(SIGNATURE_BYTES);
        if body.len() as u64 != body_bytes || body.len() < envelope::OVERHEAD_BYTES {
            return Err(damaged);
        }
        Ok(Checkpoint { header, header_end, body, bytes: bytes.to_vec() })
    }

    /// Returns the bytes of the file that holds it.
    pub fn encode_file(&self) -> Vec<u8> {
        [FILE_HEAD, self.bytes()].concat()
    }

    /// Reads the file that holds one.
    pub fn decode_file(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
        let (head, rest) = bytes.split_at_checked(FILE_HEAD.len()).unwrap_or_default();
        if head == FILE_HEAD {
            return Checkpoint::decode(rest);
        }
        match head.split_last() {
            Some((version, magic)) if FILE_HEAD.starts_with(magic) => {
                Err(CheckpointError::UnknownVersion(*version))
            }
            _ => Err(CheckpointError::Damaged),
        }
    }

    /// Verifies which device made it.
    pub fn verify(&self, bucket: &BucketId) -> Result<(), CheckpointError> {
        let Header { feed, certificate, .. } = &self.header;
        let certified = entry::certified(bucket, feed);
        let (signed, signature) =
            self.bytes.split_last_chunk().expect("decode() found a signature");
        let hash = blake3::hash(signed);
        let is_signed = self.header.bucket == *bucket
            && sign::is_signed(
                &certificate.device.0,
                Purpose::Feed,
                &certified,
                &certificate.signature,
            )
            && sign::is_signed(&feed.0, Purpose::Checkpoint, hash.as_bytes(), &Bytes(*signature));
        if is_signed { Ok(()) } else { Err(CheckpointError::NotSigned) }
    }

    /// Returns what is readable without a key.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns all its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns what it seals, by the checkpoint key of its epoch.
    pub fn open(&self, key: &Secret) -> Result<Held, CheckpointError> {
        let (header, sealed) = (&self.bytes[..self.header_end], &self.bytes[self.body.clone()]);
        let plain = envelope::open(key, header, sealed).ok_or(CheckpointError::NotOpened)?;
        let held = Held::decode(&plain)?;
        let mut chunks: Vec<_> = held.body().chunks().map(|chunk| chunk.address).collect();
        chunks.sort_unstable();
        chunks.dedup();
        // Others keep for it what the header names.
        if chunks == self.header.chunks { Ok(held) } else { Err(CheckpointError::Damaged) }
    }
}

impl Header {
    /// Returns all entries that are in it.
    pub fn seen(&self) -> Seen {
        let mut seen = Seen::new();
        self.heads.iter().for_each(|head| seen.see(head.entry));
        seen
    }

    fn check(&self) -> Result<(), CheckpointError> {
        let is_rising = self.heads.windows(2).all(|two| two[0].entry.feed < two[1].entry.feed)
            && self.chunks.windows(2).all(|two| two[0] < two[1]);
        let is_counted = self.heads.iter().all(|head| head.entry.number < u64::MAX);
        if is_rising && is_counted { Ok(()) } else { Err(CheckpointError::Damaged) }
    }
}

impl Held {
    pub(crate) fn decode(plain: &[u8]) -> Result<Held, CheckpointError> {
        let held = record::decode::<Held>(plain).ok_or(CheckpointError::Damaged)?;
        // It is held to what a file may be that nobody wrote before.
        let (file, size, content) = (FileId::of_file([0; 16]), held.size, held.content.clone());
        let write = Op::Write { file, size, content, base: Vec::new(), fence: None };
        write.check().map_err(|_| CheckpointError::Damaged)?;
        Ok(held)
    }

    /// Returns what the rows come to.
    pub fn tallied(&self) -> Tallied {
        Tallied { hash: self.hash, sum: Sum(self.sum) }
    }

    /// Returns the rows.
    pub fn body(&self) -> Body {
        Body::of(&self.content, self.size, None)
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Header { heads, certificate, .. } = &self.header;
        write!(f, "a checkpoint of {} feeds by {:?}", heads.len(), certificate.device)
    }
}
