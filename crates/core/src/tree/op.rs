//! What can be done to a bucket's tree.
//!
//! The order of variants and fields is a format: `docs/bucket-format.md`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::{Address, FileId, LinkId, OpId};

/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest target of a symbolic link, in bytes.
pub const TARGET_BYTES_MAX: usize = 4095;
/// The longest name of an extended attribute, in bytes.
pub const ATTRIBUTE_NAME_BYTES_MAX: usize = 255;
/// The longest value of an extended attribute, in bytes.
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 65_536;
/// The longest content that an operation itself carries, in bytes.
pub const INLINE_BYTES_MAX: usize = 1024;
/// The largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// The largest chunk, in bytes of what it holds.
pub const CHUNK_BYTES_MAX: u32 = 256 * 1024;

/// A checked name in a directory.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Name(Box<[u8]>);

/// Why bytes are no [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    Empty,
    TooLong,
    /// It is `.` or `..`, or has a slash or a NUL byte.
    Forbidden,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    File,
    Directory,
    /// A symbolic link, and where it leads.
    Symlink(Vec<u8>),
}

/// A time, by the clock of whoever set it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Stamp {
    /// Seconds since 1970.
    pub seconds: i64,
    pub nanos: u32,
}

/// A part of a chunk, and how to open that.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChunkRef {
    pub address: Address,
    pub key: [u8; 32],
    /// Bytes of all that it holds.
    pub plain_len: u32,
    /// Where the part begins.
    pub from: u32,
    /// Bytes of the part.
    pub len: u32,
}

/// Some bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// Where in the file they lie.
    pub offset: u64,
    pub chunk: ChunkRef,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Content {
    Inline(Vec<u8>),
    /// Rising, without overlaps; what lies between is zeros.
    Extents(Vec<Extent>),
    /// As another version but for some parts, so that a small change of a large file is a small
    /// operation. Of a version that is inline nothing is taken over.
    Patch {
        /// One of the versions in whose place it comes.
        of: OpId,
        /// Parts that are zeros now: rising, without overlaps.
        zeros: Vec<Span>,
        /// What is there now instead: rising, without overlaps.
        extents: Vec<Extent>,
    },
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    pub offset: u64,
    pub len: u64,
}

/// A turn by which something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence {
    pub epoch: u64,
    pub token: u64,
}

/// One attribute, and its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Attribute {
    /// Permission bits, 0o7777.
    Mode(u32),
    Modified(Stamp),
    /// An extended one; without a value it is removed.
    Extended {
        name: Vec<u8>,
        value: Option<Vec<u8>>,
    },
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    /// Something new gets its first name.
    Create {
        link: LinkId,
        file: FileId,
        parent: FileId,
        name: Name,
        kind: Kind,
        mode: u32,
        modified: Stamp,
        /// Directories that had that name there before, as far as known.
        former: u32,
    },
    /// A file gets another name.
    Link {
        link: LinkId,
        file: FileId,
        parent: FileId,
        name: Name,
    },
    /// A name changes.
    Move {
        link: LinkId,
        parent: FileId,
        name: Name,
    },
    /// A name goes.
    Delete {
        link: LinkId,
    },
    /// A file's content is replaced.
    Write {
        file: FileId,
        size: u64,
        content: Content,
        /// The versions in whose place it comes.
        base: Vec<OpId>,
        fence: Option<Fence>,
    },
    SetAttr {
        file: FileId,
        attribute: Attribute,
    },
    /// Versions of a file's content are given up for the others.
    Resolve {
        file: FileId,
        given_up: Vec<OpId>,
    },
}

/// Why an operation is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpFault(pub &'static str);

impl Op {
    /// Returns the chunks that it names.
    pub fn chunks(&self) -> impl Iterator<Item = &ChunkRef> {
        let extents = match self {
            Op::Write { content: Content::Extents(extents), .. }
            | Op::Write { content: Content::Patch { extents, .. }, .. } => &extents[..],
            _ => &[],
        };
        extents.iter().map(|extent| &extent.chunk)
    }

    /// Checks what can be checked without the tree: whoever made it may mean harm.
    pub fn check(&self) -> Result<(), OpFault> {
        let fault = |is_wrong: bool, why| if is_wrong { Err(OpFault(why)) } else { Ok(()) };
        match self {
            Op::Create { link, file, parent, name, kind, mode, modified, former } => {
                fault(!parent.is_directory(), "the parent is no directory")?;
                fault(*mode > 0o7777, "the mode has more than permissions")?;
                modified.check()?;
                match kind {
                    Kind::Directory => {
                        let expected = FileId::of_directory(*parent, name.bytes(), *former);
                        fault(*file != expected, "a directory's id is not that of its name")?;
                        fault(*link != LinkId::of_directory(*file), "a directory's link is another")
                    }
                    Kind::File | Kind::Symlink(_) => {
                        fault(file.is_directory(), "a file has the id of a directory")?;
                        fault(link.is_directory(), "a file's link is that of a directory")?;
                        fault(*former != 0, "a file counts former directories")?;
                        let Kind::Symlink(target) = kind else { return Ok(()) };
                        let is_wrong = target.is_empty() || target.contains(&0);
                        fault(is_wrong || target.len() > TARGET_BYTES_MAX, "no target of a link")
                    }
                }
            }
            Op::Link { link, file, parent, .. } => {
                fault(!parent.is_directory(), "the parent is no directory")?;
                fault(file.is_directory() || link.is_directory(), "a directory has one name")
            }
            Op::Move { parent, .. } => fault(!parent.is_directory(), "the parent is no directory"),
            Op::Delete { .. } => Ok(()),
            Op::Write { file, size, content, base, .. } => {
                fault(file.is_directory(), "a directory has no content")?;
                fault(*size > FILE_BYTES_MAX, "the file is too large")?;
                let is_strange = |of| !base.contains(of);
                let is_wrong = matches!(content, Content::Patch { of, .. } if is_strange(of));
                fault(is_wrong, "it changes a version in whose place it does not come")?;
                content.check(*size)
            }
            Op::SetAttr { attribute, .. } => match attribute {
                Attribute::Mode(mode) => {
                    fault(*mode > 0o7777, "the mode has more than permissions")
                }
                Attribute::Modified(stamp) => stamp.check(),
                Attribute::Extended { name, value } => {
                    let is_wrong = name.is_empty() || name.contains(&0);
                    let is_long = name.len() > ATTRIBUTE_NAME_BYTES_MAX
                        || value.as_ref().is_some_and(|v| v.len() > ATTRIBUTE_VALUE_BYTES_MAX);
                    fault(is_wrong || is_long, "no extended attribute")
                }
            },
            Op::Resolve { file, .. } => fault(file.is_directory(), "a directory has no content"),
        }
    }
}

impl Stamp {
    fn check(self) -> Result<(), OpFault> {
        let is_fine = self.nanos < 1_000_000_000;
        if is_fine { Ok(()) } else { Err(OpFault("a second has no more than 999 999 999 ns")) }
    }
}

impl Content {
    /// What an empty file holds.
    pub const EMPTY: Content = Content::Inline(Vec::new());

    fn check(&self, size: u64) -> Result<(), OpFault> {
        match self {
            Content::Inline(bytes) if bytes.len() > INLINE_BYTES_MAX => {
                Err(OpFault("more is inline than may be"))
            }
            Content::Inline(bytes) if bytes.len() as u64 != size => {
                Err(OpFault("the size is not that of the content"))
            }
            Content::Inline(_) => Ok(()),
            Content::Extents(extents) => check_extents(extents, size),
            Content::Patch { zeros, extents, .. } => {
                let spans = zeros.iter().map(|zeros| (zeros.offset, zeros.len));
                check_spans(spans, size)?;
                check_extents(extents, size)
            }
        }
    }
}

fn check_extents(extents: &[Extent], size: u64) -> Result<(), OpFault> {
    for Extent { chunk, .. } in extents {
        let is_part = chunk.from.checked_add(chunk.len).is_some_and(|to| to <= chunk.plain_len);
        if !is_part || chunk.plain_len > CHUNK_BYTES_MAX {
            return Err(OpFault("no part of a chunk"));
        }
    }
    check_spans(extents.iter().map(|extent| (extent.offset, extent.chunk.len.into())), size)
}

fn check_spans(spans: impl Iterator<Item = (u64, u64)>, size: u64) -> Result<(), OpFault> {
    let mut end = 0;
    for (offset, len) in spans {
        if offset < end || len == 0 {
            return Err(OpFault("parts of a file are empty or overlap"));
        }
        end = offset.checked_add(len).ok_or(OpFault("too large an offset"))?;
    }
    if end > size { Err(OpFault("a part ends after the file")) } else { Ok(()) }
}

impl Name {
    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Name {
    type Error = NameError;

    fn try_from(bytes: &[u8]) -> Result<Name, NameError> {
        match bytes {
            b"" => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Forbidden),
            _ if bytes.len() > NAME_BYTES_MAX => Err(NameError::TooLong),
            _ if bytes.iter().any(|byte| matches!(byte, 0 | b'/')) => Err(NameError::Forbidden),
            _ => Ok(Name(bytes.into())),
        }
    }
}

impl TryFrom<Vec<u8>> for Name {
    type Error = NameError;

    fn try_from(bytes: Vec<u8>) -> Result<Name, NameError> {
        Name::try_from(&bytes[..])
    }
}

impl From<Name> for Vec<u8> {
    fn from(name: Name) -> Vec<u8> {
        name.0.into()
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::Empty => "a name is empty",
            NameError::TooLong => "a name has more than 255 bytes",
            NameError::Forbidden => "a name is `.` or `..`, or has a slash or a NUL byte",
        })
    }
}

impl std::error::Error for NameError {}

impl fmt::Display for OpFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for OpFault {}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

// A key opens what was sealed: it shows nowhere.
impl fmt::Debug for ChunkRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}[{}+{} of {}]", self.address, self.from, self.len, self.plain_len)
    }
}
