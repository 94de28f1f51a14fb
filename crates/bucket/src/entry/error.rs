//! Why bytes are no entry, and operations become none.

use std::fmt;

use gate_core::tree::op::OpFault;

/// Why bytes are no entry, or operations become none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryError {
    /// A newer program wrote it.
    UnknownVersion(u8),
    /// It is not as it was written.
    Damaged,
    /// More bytes than an entry may have: what is to be written goes into several.
    TooLong,
    /// There is a bound: what is to be written goes into several.
    TooMany(&'static str),
    /// Its parts do not fit one another, or are not in order.
    Disorder,
    OtherBucket,
    /// Whoever made it is not the feed that it names.
    NotSigned,
    /// The feed is not that of the device that it names.
    NotCertified,
    /// The device was not given the key of this epoch.
    NoKey(u64),
    /// The key is another, or the operations were changed.
    NotOpened,
    /// Whoever made it sealed something else than operations.
    NoOps,
    /// An operation is none.
    Op {
        place: usize,
        fault: OpFault,
    },
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntryError::UnknownVersion(version) => {
                write!(f, "an entry of version {version} is not known here")
            }
            EntryError::Damaged => f.write_str("the entry is damaged"),
            EntryError::TooLong => f.write_str("an entry has at most 1 MiB"),
            EntryError::TooMany(what) => write!(f, "an entry has too many {what}"),
            EntryError::Disorder => f.write_str("the entry is not in order"),
            EntryError::OtherBucket => f.write_str("the entry is of another bucket"),
            EntryError::NotSigned => f.write_str("the entry is not signed by its feed"),
            EntryError::NotCertified => f.write_str("the feed is not signed by its device"),
            EntryError::NoKey(epoch) => write!(f, "this device has no key of epoch {epoch}"),
            EntryError::NotOpened => f.write_str("the key does not open the entry"),
            EntryError::NoOps => f.write_str("what is sealed is no operations"),
            EntryError::Op { place, fault } => write!(f, "operation {place}: {fault}"),
        }
    }
}

impl std::error::Error for EntryError {}
