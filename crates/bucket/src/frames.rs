//! Files that only grow: a head, and frames that are checked one by one.
//!
//! What a crash cut off is at the end, and is taken away when the file is opened. Damage anywhere
//! else is named and stays where it is: what comes after it is found again. Nothing is there for
//! sure before [`Frames::sync`] said so; after an error of it nobody knows, and nothing is added.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::whole;

/// Bytes of the head: what the file is, a version, a zero byte.
pub const HEAD_BYTES: u64 = 8;
/// Bytes of a frame around what it holds: a length before, a check after.
pub const OVERHEAD_BYTES: u64 = 8;

const VERSION: u8 = 1;
/// How much is hashed at most to find frames after damage: beyond it the rest counts as damaged.
const SEARCH_BYTES_MAX: u64 = 64 * 1024 * 1024;
const WINDOW_BYTES: usize = 256 * 1024;

/// What a file of frames is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    magic: &'static [u8; 6],
    /// The most bytes that a frame holds.
    pub payload_bytes_max: usize,
}

/// A file of frames, open to add some.
#[derive(Debug)]
pub struct Frames {
    file: File,
    kind: Kind,
    end: u64,
    /// Something failed after which nobody knows what is on the disk.
    is_broken: bool,
}

/// Bytes of a file that are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub offset: u64,
    pub bytes: u64,
}

/// What was wrong with a file that was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// A frame that was never finished, and is gone now.
    pub cut: Option<Gap>,
    /// Frames that were there once. The bytes are as they are.
    pub damage: Vec<Gap>,
}

/// Why a file of frames cannot be used.
#[derive(Debug)]
pub enum FramesError {
    /// A newer program wrote it.
    UnknownVersion(u8),
    /// It is another file, or its head is damaged: a backup must be put in its place.
    OtherFile,
    /// It would hold more than a frame may.
    TooLong,
    /// No frame begins there, or it is damaged.
    NoFrame(u64),
    /// An earlier error left it unknown: the file must be opened again.
    Broken,
    Io(io::Error),
}

impl Kind {
    /// All entries of a bucket.
    pub const ENTRIES: Kind = Kind { magic: b"GATEEN", payload_bytes_max: 1024 * 1024 };
    /// The log of membership.
    pub const MEMBERS: Kind = Kind { magic: b"GATEMB", payload_bytes_max: 1024 * 1024 };
    /// What is in no entry yet.
    pub const DIRTY: Kind = Kind { magic: b"GATEDW", payload_bytes_max: 1024 * 1024 };

    fn head(self) -> [u8; HEAD_BYTES as usize] {
        let mut head = [0; HEAD_BYTES as usize];
        head[..6].copy_from_slice(self.magic);
        head[6] = VERSION;
        head
    }
}

impl Frames {
    /// Makes a file without frames; one that is there stays as it is.
    pub fn create(path: &Path, kind: Kind) -> Result<Frames, FramesError> {
        whole::create(path, &kind.head())?;
        Ok(Frames::open(path, kind, |_, _| {})?.0)
    }

    /// Makes a file without frames where nothing is, or what a crash left; it is there once it was synced.
    pub(crate) fn begin(path: &Path, kind: Kind) -> Result<Frames, FramesError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(whole::MODE).open(path)?;
        file.write_all_at(&kind.head(), 0)?;
        Ok(Frames { file, kind, end: HEAD_BYTES, is_broken: false })
    }

    /// Returns the file, for who syncs it while another appends.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Opens a file, and shows each frame's offset and what it holds.
    ///
    /// Nobody else may have it open to write.
    pub fn open(
        path: &Path,
        kind: Kind,
        mut each: impl FnMut(u64, &[u8]),
    ) -> Result<(Frames, Found), FramesError> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut window = Window::new(&file)?;
        check_head(&mut window, kind)?;
        let found = scan(&mut window, kind, &mut each)?;
        let mut end = window.len;
        if let Some(cut) = found.cut {
            end = cut.offset;
            file.set_len(end)?;
            file.sync_data()?;
        }
        Ok((Frames { file, kind, end, is_broken: false }, found))
    }

    /// Adds frames, and returns where each begins.
    pub fn append(&mut self, payloads: &[&[u8]]) -> Result<Vec<u64>, FramesError> {
        if self.is_broken {
            return Err(FramesError::Broken);
        }
        let mut bytes = Vec::new();
        let mut offsets = Vec::with_capacity(payloads.len());
        for payload in payloads {
            if payload.is_empty() || payload.len() > self.kind.payload_bytes_max {
                return Err(FramesError::TooLong);
            }
            offsets.push(self.end + bytes.len() as u64);
            let length = u32::try_from(payload.len()).map_err(|_| FramesError::TooLong)?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(payload);
            bytes.extend_from_slice(&check(payload));
        }
        if let Err(error) = self.file.write_all_at(&bytes, self.end) {
            // Half a frame is in nobody's way if it can be taken back.
            self.is_broken = self.file.set_len(self.end).is_err();
            return Err(error.into());
        }
        self.end += bytes.len() as u64;
        Ok(offsets)
    }

    /// Waits until all that was added is there for sure.
    pub fn sync(&mut self) -> Result<(), FramesError> {
        if self.is_broken {
            return Err(FramesError::Broken);
        }
        // The kernel tells of an error once, and forgets what it could not write.
        self.file.sync_data().inspect_err(|_| self.is_broken = true).map_err(FramesError::Io)
    }

    /// Returns what the frame at an offset holds.
    pub fn read(&self, offset: u64) -> Result<Vec<u8>, FramesError> {
        let mut window = Window { len: self.end, ..Window::new(&self.file)? };
        match frame_at(&mut window, offset, self.kind)? {
            At::Whole(bytes) => {
                let payload = window.get(offset + 4, bytes)?;
                payload.map(<[u8]>::to_vec).ok_or(FramesError::NoFrame(offset))
            }
            At::Wrong | At::Unfinished => Err(FramesError::NoFrame(offset)),
        }
    }

    /// Returns where the next frame will begin.
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// Shows the frames of a file up to the first that is none, or after which `each` ends it.
///
/// Returns what comes after the last that it went on behind. The file stays as it is.
pub(crate) fn read_through(
    path: &Path,
    kind: Kind,
    mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<Option<Gap>, FramesError> {
    let file = File::open(path)?;
    let mut window = Window::new(&file)?;
    check_head(&mut window, kind)?;
    let mut offset = HEAD_BYTES;
    while offset < window.len {
        let At::Whole(bytes) = frame_at(&mut window, offset, kind)? else { break };
        let payload = window.get(offset + 4, bytes)?.expect("a whole frame is in the file");
        if each(offset, payload).is_break() {
            break;
        }
        offset += bytes + OVERHEAD_BYTES;
    }
    let bytes = window.len - offset;
    Ok((bytes > 0).then_some(Gap { offset, bytes }))
}

/// What is at an offset.
enum At {
    /// A frame that holds so many bytes.
    Whole(u64),
    /// The beginning of one that the file does not hold.
    Unfinished,
    Wrong,
}

fn check_head(window: &mut Window<'_>, kind: Kind) -> Result<(), FramesError> {
    match window.get(0, HEAD_BYTES)? {
        Some(head) if *head == kind.head() => Ok(()),
        Some(head) if head.starts_with(kind.magic) && head[6] != VERSION => {
            Err(FramesError::UnknownVersion(head[6]))
        }
        _ => Err(FramesError::OtherFile),
    }
}

fn scan(
    window: &mut Window<'_>,
    kind: Kind,
    each: &mut dyn FnMut(u64, &[u8]),
) -> Result<Found, FramesError> {
    let mut found = Found::default();
    let mut search_left = SEARCH_BYTES_MAX;
    let mut offset = HEAD_BYTES;
    while offset < window.len {
        let at = frame_at(window, offset, kind)?;
        if let At::Whole(bytes) = at {
            let payload = window.get(offset + 4, bytes)?;
            each(offset, payload.expect("a whole frame is in the file"));
            offset += bytes + OVERHEAD_BYTES;
            continue;
        }
        let next = search(window, offset + 1, kind, &mut search_left)?;
        let gap = Gap { offset, bytes: next.unwrap_or(window.len) - offset };
        if next.is_none() && is_torn(window, &at, gap, kind)? {
            found.cut = Some(gap);
        } else {
            found.damage.push(gap);
        }
        offset += gap.bytes;
    }
    Ok(found)
}

/// Whether a crash left this at the end: it is no more than one frame, and not all of that.
///
/// A file system may have made the file longer, and not written what is there: that is zeros.
fn is_torn(window: &mut Window<'_>, at: &At, gap: Gap, kind: Kind) -> io::Result<bool> {
    let is_one = gap.bytes < kind.payload_bytes_max as u64 + OVERHEAD_BYTES;
    let is_unfinished = matches!(at, At::Unfinished)
        || window.get(window.len - 4, 4)?.is_some_and(|check| check == [0; 4]);
    Ok(is_one && is_unfinished)
}

/// Finds the next frame after damage.
fn search(
    window: &mut Window<'_>,
    from: u64,
    kind: Kind,
    bytes_left: &mut u64,
) -> io::Result<Option<u64>> {
    for offset in from..window.len {
        let Some(bytes) = length_at(window, offset, kind)? else { continue };
        // Each place may say that it is the beginning of a long one.
        let Some(left) = bytes_left.checked_sub(bytes) else { return Ok(None) };
        *bytes_left = left;
        if let At::Whole(_) = frame_at(window, offset, kind)? {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

fn frame_at(window: &mut Window<'_>, offset: u64, kind: Kind) -> io::Result<At> {
    if window.len.saturating_sub(offset) < 4 {
        return Ok(At::Unfinished);
    }
    let Some(bytes) = length_at(window, offset, kind)? else { return Ok(At::Wrong) };
    let Some(held) = window.get(offset + 4, bytes + 4)? else { return Ok(At::Unfinished) };
    let (payload, found) = held.split_at(bytes as usize);
    Ok(if check(payload) == found { At::Whole(bytes) } else { At::Wrong })
}

/// Returns the length that is said at an offset, if a frame may have it.
fn length_at(window: &mut Window<'_>, offset: u64, kind: Kind) -> io::Result<Option<u64>> {
    let Some(length) = window.get(offset, 4)? else { return Ok(None) };
    let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
    let may_be = length != 0 && length as usize <= kind.payload_bytes_max;
    Ok(may_be.then_some(length.into()))
}

fn check(payload: &[u8]) -> [u8; 4] {
    *blake3::hash(payload).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// A part of a file, in memory.
struct Window<'a> {
    file: &'a File,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn new(file: &File) -> io::Result<Window<'_>> {
        Ok(Window { file, len: file.metadata()?.len(), start: 0, bytes: Vec::new() })
    }

    /// Returns bytes of the file, if it has them.
    fn get(&mut self, offset: u64, bytes: u64) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(bytes).filter(|end| *end <= self.len) else {
            return Ok(None);
        };
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            let wanted = bytes.max(WINDOW_BYTES as u64).min(self.len - offset);
            self.bytes.clear();
            self.bytes.resize(wanted as usize, 0);
            self.file.read_exact_at(&mut self.bytes, offset)?;
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(Some(&self.bytes[from..from + bytes as usize]))
    }
}

impl From<io::Error> for FramesError {
    fn from(error: io::Error) -> FramesError {
        FramesError::Io(error)
    }
}

impl fmt::Display for FramesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FramesError::UnknownVersion(version) => {
                write!(f, "a file of version {version} is not known here")
            }
            FramesError::OtherFile => f.write_str("it is another file, or its head is damaged"),
            FramesError::TooLong => f.write_str("a frame holds 1 byte to 1 MiB"),
            FramesError::NoFrame(offset) => write!(f, "there is no whole frame at byte {offset}"),
            FramesError::Broken => f.write_str("the file must be opened again, after an error"),
            FramesError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FramesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let FramesError::Io(error) = self { Some(error) } else { None }
    }
}
