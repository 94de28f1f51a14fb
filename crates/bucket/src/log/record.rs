//! What a log tells.
//!
//! The order of variants and fields is a format: `docs/bucket-format.md`.

use std::borrow::Cow;
use std::fmt;

use gate_core::tree::encode::append;
use gate_core::tree::id::{EntryId, FileId, OpId};
use gate_core::tree::op::{Extent, Fence, Op, Span};
use serde::{Deserialize, Serialize};

use super::LogError;
use crate::record;

/// Something that was done and is in no entry yet, or what became of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record<'a> {
    /// Names and attributes, in their order.
    Op(Op),
    /// A file begins to be written to, over the versions `base`: of so many bytes; over nothing if there are none.
    Begin { file: FileId, base: Vec<OpId>, size: u64, fence: Option<Fence> },
    /// Bytes were written. Many are several records.
    Bytes {
        file: FileId,
        at: u64,
        #[serde(with = "at_once")]
        bytes: Cow<'a, [u8]>,
    },
    /// Bytes were sealed: they are in chunks that were stored before.
    Sealed { file: FileId, extents: Vec<Extent> },
    /// A part of a file became zeros.
    Zeros { file: FileId, span: Span },
    /// A file was cut off, or made longer.
    Size { file: FileId, size: u64 },
    /// What is in one file, written to or not, is that of another now, in place of the versions `base`.
    Replace { from: FileId, to: FileId, base: Vec<OpId> },
    /// What was written to a file is not wanted any more.
    Drop { file: FileId },
    /// What was written to a file before is to be a version.
    Freeze { file: FileId },
    /// So many of the operations before, and the frozen files at their places in it, are to be this entry.
    Cut { entry: EntryId, ops: u32, writes: Vec<(FileId, u32)> },
}

/// The most bytes of a [`Record::Bytes`] that a frame holds: all else of it is less than the rest.
const BYTES_MARGIN: usize = 64;

/// Writes records to as few frames as hold them, each with some room before.
pub(super) fn payloads(
    records: &[Record<'_>],
    room: usize,
    bytes_max: usize,
) -> Result<Vec<Vec<u8>>, LogError> {
    let mut all = Vec::new();
    let mut payload = vec![0; room];
    let mut add = |record: &Record<'_>| {
        let before = payload.len();
        payload = append(record, std::mem::take(&mut payload));
        if payload.len() - room > bytes_max && before > room {
            let last = payload.split_off(before);
            all.push(std::mem::replace(&mut payload, vec![0; room]));
            payload.extend_from_slice(&last);
        }
        if payload.len() - room > bytes_max { Err(LogError::TooLong) } else { Ok(()) }
    };
    for record in records {
        match record {
            Record::Bytes { file, at, bytes } if bytes.len() > bytes_max - BYTES_MARGIN => {
                let mut at = *at;
                for piece in bytes.chunks(bytes_max - BYTES_MARGIN) {
                    add(&Record::Bytes { file: *file, at, bytes: Cow::Borrowed(piece) })?;
                    at += piece.len() as u64;
                }
            }
            record => add(record)?,
        }
    }
    if payload.len() > room {
        all.push(payload);
    }
    Ok(all)
}

/// Reads what one frame holds, if it is records and nothing else.
pub(crate) fn read_records(plain: &[u8]) -> Option<Vec<Record<'static>>> {
    let mut records = Vec::new();
    let mut rest = plain;
    while !rest.is_empty() {
        let record;
        (record, rest) = record::take(rest)?;
        records.push(record);
    }
    Some(records)
}

/// Bytes as postcard writes any sequence of them, but not one by one.
mod at_once {
    use std::borrow::Cow;
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, 'a, D>(deserializer: D) -> Result<Cow<'a, [u8]>, D::Error>
    where
        D: Deserializer<'de>,
    {
        struct AllBytes;

        impl Visitor<'_> for AllBytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }

        deserializer.deserialize_bytes(AllBytes).map(Cow::Owned)
    }
}

// What was written shows nowhere, nor what things are called.
impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Op(_) => f.write_str("an operation"),
            Record::Begin { file, size, .. } => write!(f, "begin {file:?} over {size} bytes"),
            Record::Bytes { file, at, bytes } => {
                write!(f, "{} bytes at {at} of {file:?}", bytes.len())
            }
            Record::Sealed { file, extents } => write!(f, "{} extents of {file:?}", extents.len()),
            Record::Zeros { file, span } => {
                write!(f, "{} zeros at {} of {file:?}", span.len, span.offset)
            }
            Record::Size { file, size } => write!(f, "{size} bytes are the size of {file:?}"),
            Record::Replace { from, to, .. } => write!(f, "{from:?} replaces {to:?}"),
            Record::Drop { file } => write!(f, "drop {file:?}"),
            Record::Freeze { file } => write!(f, "freeze {file:?}"),
            Record::Cut { entry, ops, writes } => {
                write!(f, "{ops} operations and {} writes are {entry:?}", writes.len())
            }
        }
    }
}
