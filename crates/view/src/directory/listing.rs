//! Listings of directories, streamed: one chunk of the source's entries is held, never all.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use gate_fuse::{DirEntry, Errno, NodeId};
use rustix::fs::{Mode, OFlags, SeekFrom};

use super::{Directory, errno_of};
use crate::source::Listing;

/// How much of a directory is read at once.
const CHUNK_BYTES: usize = 32 * 1024;

/// Where the fields of `struct linux_dirent64` lie.
mod dirent {
    pub const INO: usize = 0;
    pub const OFFSET: usize = 8;
    pub const RECORD_LEN: usize = 16;
    pub const KIND: usize = 18;
    pub const NAME: usize = 19;
}

/// A directory of the source, open.
#[derive(Debug)]
pub struct OpenDirectory(Mutex<Stream>);

#[derive(Debug)]
struct Stream {
    directory: OwnedFd,
    /// Entries that were read and not yet taken.
    chunk: Vec<u8>,
    /// Where in the chunk the next entry begins.
    next: usize,
    /// The source's own mark of that entry.
    mark: u64,
}

impl Directory {
    /// Opens a directory.
    pub fn opendir(&self, node: NodeId) -> Result<OpenDirectory, Errno> {
        let node = self.nodes.get(node)?;
        // Before it is listed: what changes later is told.
        self.enter(&node);
        let directory = node.reopen(OFlags::RDONLY | OFlags::DIRECTORY)?;
        let stream = Stream { directory, chunk: Vec::new(), next: 0, mark: 0 };
        Ok(OpenDirectory(Mutex::new(stream)))
    }

    /// Whether a directory has no names but its own.
    pub fn is_empty(&self, parent: NodeId, name: &CStr) -> Result<bool, Errno> {
        let parent = self.nodes.get(parent)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&parent.descriptor, name, flags, Mode::empty())?;
        let stream = Stream { directory, chunk: Vec::new(), next: 0, mark: 0 };
        let mut empty = true;
        OpenDirectory(Mutex::new(stream)).visit(0, &mut |entry, _| {
            empty = matches!(entry.name, b"." | b"..");
            empty
        })?;
        Ok(empty)
    }
}

impl Listing for OpenDirectory {
    fn sync(&self, data_only: bool) -> Result<(), Errno> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = &stream.directory;
        if data_only { rustix::fs::fdatasync(directory) } else { rustix::fs::fsync(directory) }
    }

    fn visit(
        &self,
        mark: u64,
        take: &mut dyn FnMut(&DirEntry<'_>, &CStr) -> bool,
    ) -> Result<(), Errno> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.go_to(mark)?;
        let mut any = false;
        loop {
            if stream.next == stream.chunk.len() {
                match stream.read_chunk() {
                    Ok(()) if stream.chunk.is_empty() => return Ok(()),
                    Ok(()) => {}
                    // What was taken is answered; the error comes again with the next request.
                    Err(_) if any => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
            let record = Record::first_of(&stream.chunk[stream.next..])?;
            if !take(&record.entry, record.name) {
                return Ok(());
            }
            any = true;
            (stream.mark, stream.next) = (record.entry.offset, stream.next + record.len);
        }
    }
}

impl Stream {
    fn go_to(&mut self, mark: u64) -> Result<(), Errno> {
        if mark == self.mark {
            return Ok(());
        }
        rustix::fs::seek(&self.directory, SeekFrom::Start(mark))?;
        self.chunk.clear();
        (self.next, self.mark) = (0, mark);
        Ok(())
    }

    fn read_chunk(&mut self) -> Result<(), Errno> {
        self.next = 0;
        self.chunk.clear();
        self.chunk.reserve_exact(CHUNK_BYTES);
        let spare = self.chunk.spare_capacity_mut();
        let directory = self.directory.as_raw_fd();
        // SAFETY: the kernel writes at most so many bytes into the spare capacity.
        let len = unsafe {
            libc::syscall(libc::SYS_getdents64, directory, spare.as_mut_ptr(), spare.len())
        };
        let len = usize::try_from(len).map_err(|_| errno_of(&std::io::Error::last_os_error()))?;
        // SAFETY: the kernel has written `len` bytes.
        unsafe { self.chunk.set_len(len) };
        Ok(())
    }
}

struct Record<'a> {
    entry: DirEntry<'a>,
    name: &'a CStr,
    len: usize,
}

impl Record<'_> {
    /// Decodes the first record of a chunk; anything but a record is EIO.
    fn first_of(chunk: &[u8]) -> Result<Record<'_>, Errno> {
        Record::decode(chunk).ok_or(Errno::IO)
    }

    fn decode(chunk: &[u8]) -> Option<Record<'_>> {
        let long = |at: usize| Some(u64::from_ne_bytes(chunk.get(at..at + 8)?.try_into().ok()?));
        let len_bytes = chunk.get(dirent::RECORD_LEN..dirent::RECORD_LEN + 2)?;
        let len = usize::from(u16::from_ne_bytes(len_bytes.try_into().ok()?));
        let name = CStr::from_bytes_until_nul(chunk.get(dirent::NAME..len)?).ok()?;
        let entry = DirEntry {
            ino: long(dirent::INO)?,
            offset: long(dirent::OFFSET)?,
            kind: *chunk.get(dirent::KIND)?,
            name: name.to_bytes(),
        };
        Some(Record { entry, name, len })
    }
}
