//! Why something is not drafted.

use std::fmt;

use gate_core::tree::op::{NameError, OpFault};
use gate_core::tree::walk::WalkError;

use crate::bucket::BucketError;
use crate::shelf::ShelfError;

/// Why something is not drafted, or a draft not committed.
#[derive(Debug)]
pub enum DraftError {
    NotFound,
    NotADirectory,
    IsADirectory,
    Exists,
    NotEmpty,
    /// A directory cannot be put into itself.
    IntoItself,
    /// The root has no name, so nothing can be done to that.
    IsRoot,
    /// It is a version beside a file, and no file of its own: rename or remove it.
    IsBeside,
    /// What was to be a name is none.
    Invalid(NameError),
    /// An attribute or a target is none.
    Fault(OpFault),
    /// Commit what there is, and draft this anew.
    Full,
    /// Even alone it is more than an entry has.
    TooLarge,
    Tree(ShelfError),
    Bucket(BucketError),
}

impl From<NameError> for DraftError {
    fn from(error: NameError) -> DraftError {
        DraftError::Invalid(error)
    }
}

impl From<OpFault> for DraftError {
    fn from(fault: OpFault) -> DraftError {
        DraftError::Fault(fault)
    }
}

impl From<ShelfError> for DraftError {
    fn from(error: ShelfError) -> DraftError {
        DraftError::Tree(error)
    }
}

impl From<BucketError> for DraftError {
    fn from(error: BucketError) -> DraftError {
        DraftError::Bucket(error)
    }
}

impl<E: Into<ShelfError>> From<WalkError<E>> for DraftError {
    fn from(error: WalkError<E>) -> DraftError {
        match error {
            WalkError::NotFound => DraftError::NotFound,
            WalkError::NotADirectory => DraftError::NotADirectory,
            WalkError::Tables(error) => DraftError::Tree(error.into()),
        }
    }
}

impl fmt::Display for DraftError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DraftError::NotFound => f.write_str("nothing is there"),
            DraftError::NotADirectory => f.write_str("it is no directory"),
            DraftError::IsADirectory => f.write_str("it is a directory"),
            DraftError::Exists => f.write_str("something is there"),
            DraftError::NotEmpty => f.write_str("the directory is not empty"),
            DraftError::IntoItself => f.write_str("a directory cannot be put into itself"),
            DraftError::IsRoot => f.write_str("it is the root"),
            DraftError::IsBeside => f.write_str("it is a version beside a file"),
            DraftError::Invalid(error) => error.fmt(f),
            DraftError::Fault(fault) => fault.fmt(f),
            DraftError::Full => f.write_str("no more fits into one entry"),
            DraftError::TooLarge => f.write_str("it is more than an entry has"),
            DraftError::Tree(error) => error.fmt(f),
            DraftError::Bucket(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DraftError {}
