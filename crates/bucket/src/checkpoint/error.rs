//! Why there is no checkpoint, or one is not used.

use std::fmt;
use std::io;

use crate::identity::DeviceId;
use crate::index::IndexError;
use crate::shelf::ShelfError;
use crate::store::StoreError;
use crate::vault::TakeInError;

/// Why there is no checkpoint, or one is not used: the entries say the same, if not as fast.
#[derive(Debug)]
pub enum CheckpointError {
    /// A newer program wrote it.
    UnknownVersion(u8),
    /// It is of tables that are others here.
    OtherTables(u32),
    /// It is not as it was written.
    Damaged,
    /// There is more than it has room for.
    TooLong,
    /// Whoever made it is not the device that it names, or it is of another bucket.
    NotSigned,
    /// This device may not write, as far as the checkpoint and this device know.
    NoWriter(DeviceId),
    /// It goes by records of membership that are not known, or by another key than those say.
    UnknownMembers,
    /// It is of entries that are not known, or not all that those depend on.
    UnknownEntries,
    /// This device was not given the key of this epoch.
    NoKey(u64),
    /// The key is another, or what it seals was changed.
    NotOpened,
    /// The rows are none, or do not come to what it says.
    OtherRows,
    /// What it was to be of has changed meanwhile.
    Changed,
    /// Nobody wants it any more.
    NotWanted,
    Store(StoreError),
    Index(IndexError),
    Io(io::Error),
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::UnknownVersion(version) => {
                write!(f, "a checkpoint of version {version} is not known here")
            }
            CheckpointError::OtherTables(version) => {
                write!(f, "the checkpoint is of tables of version {version}")
            }
            CheckpointError::Damaged => f.write_str("the checkpoint is damaged"),
            CheckpointError::TooLong => f.write_str("there is more than a checkpoint may have"),
            CheckpointError::NotSigned => f.write_str("the checkpoint is not signed by its device"),
            CheckpointError::NoWriter(device) => {
                write!(f, "the checkpoint is by {device}, which may not write")
            }
            CheckpointError::UnknownMembers => {
                f.write_str("the checkpoint goes by members that are not known")
            }
            CheckpointError::UnknownEntries => {
                f.write_str("the checkpoint is of entries that are not known")
            }
            CheckpointError::NoKey(epoch) => write!(f, "this device has no key of epoch {epoch}"),
            CheckpointError::NotOpened => f.write_str("the key does not open the checkpoint"),
            CheckpointError::OtherRows => f.write_str("the rows are not those of the checkpoint"),
            CheckpointError::Changed => f.write_str("the members changed meanwhile"),
            CheckpointError::NotWanted => f.write_str("the bucket is not used any more"),
            CheckpointError::Store(error) => error.fmt(f),
            CheckpointError::Index(error) => error.fmt(f),
            CheckpointError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CheckpointError {}

impl From<StoreError> for CheckpointError {
    fn from(error: StoreError) -> CheckpointError {
        CheckpointError::Store(error)
    }
}

impl From<IndexError> for CheckpointError {
    fn from(error: IndexError) -> CheckpointError {
        CheckpointError::Index(error)
    }
}

impl From<ShelfError> for CheckpointError {
    fn from(error: ShelfError) -> CheckpointError {
        CheckpointError::Index(IndexError::Broken(error.to_string()))
    }
}

impl From<io::Error> for CheckpointError {
    fn from(error: io::Error) -> CheckpointError {
        match error.kind() {
            io::ErrorKind::InvalidData => CheckpointError::OtherRows,
            _ => CheckpointError::Io(error),
        }
    }
}

impl From<TakeInError> for CheckpointError {
    fn from(error: TakeInError) -> CheckpointError {
        match error {
            TakeInError::Read(error) => error.into(),
            TakeInError::Store(error) => error.into(),
            TakeInError::TooLarge => CheckpointError::TooLong,
        }
    }
}
