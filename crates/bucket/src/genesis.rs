//! The first record of a bucket: who made it, and by which rules it merges.
//!
//! A bucket is called by its hash, so whoever knows the id knows the owner. It never changes.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::hash::{Context, derive};
use crate::identity::{AgreementKey, DeviceId, Identity};
use crate::sign::{self, Purpose, Signature};
use crate::{random, record};

/// The rules by which histories become one tree.
pub const MERGE_VERSION: u32 = 1;

const MAGIC: &[u8; 6] = b"GATEBK";
const VERSION: u8 = 1;
const SIGNATURE_BYTES: usize = 64;

/// The most bytes that a genesis has.
pub const GENESIS_BYTES_MAX: usize = 256;

/// A bucket, by the hash of its genesis.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BucketId(pub [u8; 32]);

/// How a bucket begins: verified, whoever gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    record: Record,
    id: BucketId,
    bytes: Vec<u8>,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    uuid: [u8; 16],
    merge: u32,
    made_at_ms: u64,
    owner: DeviceId,
    owner_key: AgreementKey,
    random: [u8; 32],
}

/// Why bytes are no [`Genesis`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenesisError {
    /// A newer program wrote it.
    UnknownVersion(u8),
    /// A newer program is needed to merge what is in the bucket.
    UnknownMergeVersion(u32),
    /// It is not as it was written.
    Damaged,
    /// Whoever made it is not whom it names.
    NotSigned,
}

impl Genesis {
    /// Begins a bucket, at a time in ms since 1970.
    pub fn make(owner: &Identity, made_at_ms: u64) -> Genesis {
        Genesis::make_of(owner, made_at_ms, Uuid::new_v4(), random::bytes())
    }

    pub(crate) fn make_of(
        owner: &Identity,
        made_at_ms: u64,
        uuid: Uuid,
        random: [u8; 32],
    ) -> Genesis {
        let record = Record {
            uuid: uuid.into_bytes(),
            merge: MERGE_VERSION,
            made_at_ms,
            owner: owner.device(),
            owner_key: owner.agreement_key(),
            random,
        };
        let mut bytes = [&MAGIC[..], &[VERSION], &record::encode(&record)].concat();
        let id = BucketId(*derive(Context::BucketId, &bytes).bytes());
        let signature = owner.sign(Purpose::Genesis, blake3::hash(&bytes).as_bytes());
        bytes.extend_from_slice(&signature.0);
        Genesis { record, id, bytes }
    }

    /// Reads and verifies a genesis.
    pub fn decode(bytes: &[u8]) -> Result<Genesis, GenesisError> {
        let after = bytes.strip_prefix(MAGIC).ok_or(GenesisError::Damaged)?;
        let (version, after) = after.split_first().ok_or(GenesisError::Damaged)?;
        if *version != VERSION {
            return Err(GenesisError::UnknownVersion(*version));
        }
        let (written, signature) =
            after.split_last_chunk::<SIGNATURE_BYTES>().ok_or(GenesisError::Damaged)?;
        let record: Record = record::decode(written).ok_or(GenesisError::Damaged)?;
        let signed = &bytes[..bytes.len() - SIGNATURE_BYTES];
        let hash = blake3::hash(signed);
        let signature: Signature = record::Bytes(*signature);
        if !sign::is_signed(&record.owner.0, Purpose::Genesis, hash.as_bytes(), &signature) {
            return Err(GenesisError::NotSigned);
        }
        if record.merge != MERGE_VERSION {
            return Err(GenesisError::UnknownMergeVersion(record.merge));
        }
        let id = BucketId(*derive(Context::BucketId, signed).bytes());
        Ok(Genesis { record, id, bytes: bytes.to_vec() })
    }

    /// Returns the bytes of its file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns what the bucket is called.
    pub fn id(&self) -> BucketId {
        self.id
    }

    /// Returns what people call the bucket by.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.record.uuid)
    }

    /// Returns when it was made by its owner's clock, in ms since 1970.
    pub fn made_at_ms(&self) -> u64 {
        self.record.made_at_ms
    }

    /// Returns who made it.
    pub fn owner(&self) -> DeviceId {
        self.record.owner
    }

    /// Returns the key for which others seal what the owner is to open.
    pub fn owner_key(&self) -> AgreementKey {
        self.record.owner_key
    }
}

impl fmt::Display for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bucket:")?;
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for GenesisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GenesisError::UnknownVersion(version) => {
                write!(f, "a bucket of version {version} is not known here")
            }
            GenesisError::UnknownMergeVersion(version) => {
                write!(f, "a bucket that merges by version {version} is not known here")
            }
            GenesisError::Damaged => f.write_str("the genesis is damaged"),
            GenesisError::NotSigned => f.write_str("the genesis is not signed by its owner"),
        }
    }
}

impl std::error::Error for GenesisError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Genesis {
        Genesis::make(&Identity::random(), 1_700_000_000_000)
    }

    #[test]
    fn a_genesis_is_read_as_it_was_made() {
        let made = sample();
        assert_eq!(Genesis::decode(made.bytes()).as_ref(), Ok(&made));
        assert!(made.bytes().len() <= GENESIS_BYTES_MAX);
        assert_ne!(made.id(), sample().id());
        assert_eq!(made.id().to_string().len(), 64);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_genesis_is_refused() {
        let made = sample();
        for bit in 0..8 * made.bytes().len() {
            let mut flipped = made.bytes().to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Genesis::decode(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..made.bytes().len() {
            assert!(Genesis::decode(&made.bytes()[..len]).is_err(), "{len} bytes");
        }
        assert!(Genesis::decode(&[made.bytes(), &[0]].concat()).is_err());
    }

    #[test]
    fn a_genesis_that_names_another_owner_is_refused() {
        let owner = Identity::random();
        let mut record = sample().record;
        record.owner = Identity::random().device();
        assert_eq!(Genesis::decode(&signed(&owner, &record)), Err(GenesisError::NotSigned));
    }

    #[test]
    fn n16_a_genesis_of_another_version_is_refused_by_name() {
        let mut bytes = sample().bytes().to_vec();
        bytes[6] = 2;
        assert_eq!(Genesis::decode(&bytes), Err(GenesisError::UnknownVersion(2)));
        let owner = Identity::random();
        let mut record = Genesis::make(&owner, 0).record;
        record.merge = 2;
        let error = Genesis::decode(&signed(&owner, &record)).unwrap_err();
        assert_eq!(error, GenesisError::UnknownMergeVersion(2));
        assert!(error.to_string().contains("version 2"));
    }

    fn signed(owner: &Identity, record: &Record) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[VERSION], &record::encode(record)].concat();
        let signature = owner.sign(Purpose::Genesis, blake3::hash(&bytes).as_bytes());
        bytes.extend_from_slice(&signature.0);
        bytes
    }
}
