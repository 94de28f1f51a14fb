//! Why a record of membership does not hold.

use std::fmt;

use super::RecordId;
use crate::identity::DeviceId;

/// Why a record does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberError {
    /// A newer program wrote it.
    UnknownVersion(u8),
    /// It is not as it was written.
    Damaged,
    /// More bytes than a record may have.
    TooLong,
    /// Whoever made it is not whom it names.
    NotSigned,
    /// It was accepted before: nothing is to be done.
    Known,
    /// Another record came after the same one: owners did not know of each other.
    Fork {
        after: RecordId,
    },
    /// What comes before it is not known yet: ask for that first.
    Gap,
    /// A bucket begins with its owner, and a key.
    NotFounded,
    /// Only owners say who is what.
    NotOwner(DeviceId),
    NotMember(DeviceId),
    /// Nobody could change anything any more.
    LastOwner,
    /// It is so already.
    NoChange,
    /// With such a key nothing can be signed, or sealed.
    WeakKey,
    /// Devices or feeds do not rise.
    Disorder,
    /// It is neither the next epoch nor one that is there.
    WrongEpoch(u64),
    /// The key is given to others than those who read, and lack it.
    WrongReaders(u64),
    /// Others were given another key as that of this epoch.
    OtherKey(u64),
    /// There is a bound.
    TooMany(&'static str),
}

impl fmt::Display for MemberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemberError::UnknownVersion(version) => {
                write!(f, "a record of membership of version {version} is not known here")
            }
            MemberError::Damaged => f.write_str("a record of membership is damaged"),
            MemberError::TooLong => f.write_str("a record of membership has more than 1 MiB"),
            MemberError::NotSigned => f.write_str("a record of membership is not signed"),
            MemberError::Known => f.write_str("the record of membership is known"),
            MemberError::Fork { after } => {
                write!(f, "the log of membership forks: two records come after {after:?}")
            }
            MemberError::Gap => f.write_str("records of membership are missing before this one"),
            MemberError::NotFounded => {
                f.write_str("a bucket begins with its owner and the first key")
            }
            MemberError::NotOwner(device) => write!(f, "{device} is no owner"),
            MemberError::NotMember(device) => write!(f, "{device} is no member"),
            MemberError::LastOwner => f.write_str("a bucket keeps an owner"),
            MemberError::NoChange => f.write_str("the device is what it was before"),
            MemberError::WeakKey => f.write_str("a device's key is none"),
            MemberError::Disorder => f.write_str("a record of membership is not in order"),
            MemberError::WrongEpoch(number) => write!(f, "epoch {number} is not the next one"),
            MemberError::WrongReaders(number) => {
                write!(f, "the key of epoch {number} is given to others than those who read")
            }
            MemberError::OtherKey(number) => write!(f, "epoch {number} has another key"),
            MemberError::TooMany(what) => write!(f, "there are too many {what}"),
        }
    }
}

impl std::error::Error for MemberError {}
