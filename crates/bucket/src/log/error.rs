//! What can be wrong with a log.

use std::fmt;
use std::io;

use crate::frames::FramesError;

/// Why a log was not written or read.
#[derive(Debug)]
pub enum LogError {
    /// It has as many bytes as it may: put what it holds into entries. Nothing changed.
    Full,
    /// A record is longer than a frame: nothing that is made within its bounds is. Nothing changed.
    TooLong,
    /// An earlier error left it unknown what the disk has: begin another.
    Broken,
    /// A newer gate wrote it: use that.
    UnknownVersion(u8),
    /// What is at that offset is sealed as it should be, and no record that this gate knows.
    Unreadable(u64),
    /// It is another file, or its head is damaged.
    OtherFile,
    /// The disk is full, and nothing changed; or it failed.
    Io(io::Error),
}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> LogError {
        LogError::Io(error)
    }
}

impl From<FramesError> for LogError {
    fn from(error: FramesError) -> LogError {
        match error {
            FramesError::UnknownVersion(version) => LogError::UnknownVersion(version),
            FramesError::OtherFile => LogError::OtherFile,
            FramesError::TooLong => LogError::TooLong,
            FramesError::NoFrame(offset) => LogError::Unreadable(offset),
            FramesError::Broken => LogError::Broken,
            FramesError::Io(error) => LogError::Io(error),
        }
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Full => f.write_str("too much was written that is in no entry yet"),
            LogError::TooLong => f.write_str("a record of the log is longer than a frame"),
            LogError::Broken => f.write_str("the log must be begun anew, after an error"),
            LogError::UnknownVersion(version) => {
                write!(f, "a log of version {version} is not known here")
            }
            LogError::Unreadable(offset) => {
                write!(f, "what the log has at byte {offset} is not known here")
            }
            LogError::OtherFile => f.write_str("it is no log, or its head is damaged"),
            LogError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let LogError::Io(error) = self { Some(error) } else { None }
    }
}
