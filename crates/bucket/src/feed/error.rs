//! Why an entry is not accepted.

use std::fmt;

use gate_core::tree::id::EntryId;

use crate::entry::{EntryHash, Verified};
use crate::identity::DeviceId;
use crate::members::RecordId;

/// Why an entry is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedError {
    /// It was accepted before: nothing is to be done.
    Known,
    /// Ask for this one first.
    Missing(EntryId),
    /// Ask for this record of membership first.
    MissingMembers(RecordId),
    OtherBucket,
    /// Whoever has the feed's key signed two entries of one number: keep both, tell people.
    Forked(Box<Fork>),
    /// It names another entry before it than the one that is there.
    NotChained,
    /// It names as new what its feed had seen.
    SeenBefore,
    /// It does not come right after what it depends on.
    WrongLamport,
    /// It names an older record of membership than the entry before it.
    OlderMembers,
    /// Its author was no writer.
    NoWriter(DeviceId),
    /// It is sealed by the key of another epoch than was.
    WrongEpoch(u64),
}

/// The proof that a feed has two entries of one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Of the one that was accepted.
    pub hash: EntryHash,
    /// That one, unless it is damaged.
    pub first: Option<Verified>,
    /// The one that was not.
    pub second: Verified,
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FeedError::Known => f.write_str("the entry is known"),
            FeedError::Missing(EntryId { feed, number }) => {
                write!(f, "entry {number} of {feed:?} is missing")
            }
            FeedError::MissingMembers(record) => write!(f, "{record:?} is missing"),
            FeedError::OtherBucket => f.write_str("the entry is of another bucket"),
            FeedError::Forked(fork) => {
                let EntryId { feed, number } = fork.second.id();
                write!(f, "{feed:?} has two entries of number {number}")
            }
            FeedError::NotChained => f.write_str("the entry does not follow the one before it"),
            FeedError::SeenBefore => f.write_str("the entry depends on what its feed had seen"),
            FeedError::WrongLamport => f.write_str("the entry's place in time is another"),
            FeedError::OlderMembers => f.write_str("the entry goes back in the membership"),
            FeedError::NoWriter(device) => write!(f, "{device} was no writer"),
            FeedError::WrongEpoch(epoch) => write!(f, "epoch {epoch} was not the one"),
        }
    }
}

impl std::error::Error for FeedError {}
