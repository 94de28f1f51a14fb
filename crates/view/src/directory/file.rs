//! Open files.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};

use gate_fuse::{Backer, Backing, Caller, CopyFileRange, Errno, Write};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom};
use rustix::io::ReadWriteFlags;

use super::caller::{self, Strip};
use super::checked;
use crate::source::File;

/// A file of the source, open.
#[derive(Debug)]
pub struct OpenFile(OwnedFd);

/// File systems of this machine alone: ext2 to 4, XFS, Btrfs, F2FS, bcachefs, tmpfs and ramfs.
/// They report errors where they occur, and all their changes are made, and told, by this kernel.
/// Of those below a network it is not so, of others not known.
const LOCAL: [u32; 7] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0xca45_1a4e, 0x0102_1994, 0x8584_58f6];

/// Returns whether what lies there is this machine's alone, as far as is known.
pub(super) fn is_local(file: impl AsFd) -> bool {
    // The types of FsWord differ between architectures; the magic numbers have 32 bits.
    rustix::fs::fstatfs(file).is_ok_and(|stat| LOCAL.contains(&(stat.f_type as u32)))
}

impl OpenFile {
    pub(super) fn new(file: OwnedFd) -> OpenFile {
        OpenFile(file)
    }

    /// What the source's file is opened with, of the flags that the caller gave. O_CREAT,
    /// O_EXCL and O_NOFOLLOW are done; O_DIRECT would bind us to the caller's alignment; and
    /// O_APPEND is a matter of the single write: pages of a mapping are written through any
    /// handle, to where they belong.
    pub(super) fn flags(flags: u32) -> OFlags {
        let done = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        OFlags::from_bits_retain(flags) - done - OFlags::DIRECT - OFlags::APPEND
    }
}

/// Lets the kernel read and write a file itself, with none of the rights that would let writes leave
/// suid and sgid in place.
pub fn back(file: BorrowedFd<'_>, backer: &Backer) -> Result<Backing, Errno> {
    caller::strip_suidgid(Strip::Yes)?;
    backer.open(file)
}

impl File for OpenFile {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        rustix::io::pread(&self.0, buffer, offset)
    }

    /// Reads one byte as nobody who reads: that does not count as an access. `EPERM` of files of others.
    fn peek(&self, offset: u64) -> Result<Option<u8>, Errno> {
        let flags = rustix::fs::fcntl_getfl(&self.0)?;
        rustix::fs::fcntl_setfl(&self.0, flags | OFlags::NOATIME)?;
        let mut byte = [0];
        let read = rustix::io::pread(&self.0, &mut byte, offset);
        rustix::fs::fcntl_setfl(&self.0, flags)?;
        Ok((read? == 1).then_some(byte[0]))
    }

    /// Writes. What was opened to append is appended, wherever the kernel believed the end to
    /// be: somebody beside this view may have written.
    fn write(&self, write: &Write<'_>) -> Result<usize, Errno> {
        caller::strip_suidgid(Strip::if_asked(write.kill_suidgid))?;
        let append = write.flags & libc::O_APPEND.cast_unsigned() != 0;
        if append && !write.cached {
            let data = [IoSlice::new(write.data)];
            return rustix::io::pwritev2(&self.0, &data, write.offset, ReadWriteFlags::APPEND);
        }
        rustix::io::pwrite(&self.0, write.data, write.offset)
    }

    fn sync(&self, data_only: bool) -> Result<(), Errno> {
        if data_only { rustix::fs::fdatasync(&self.0) } else { rustix::fs::fsync(&self.0) }
    }

    /// Reports errors of earlier writes as close(2) does: a network file system has them only
    /// there.
    fn flush(&self) -> Result<(), Errno> {
        let duplicate = rustix::io::fcntl_dupfd_cloexec(&self.0, 0)?.into_raw_fd();
        // SAFETY: the descriptor was made above and belongs to nobody else.
        checked(unsafe { libc::close(duplicate) })
    }

    fn may_fail_at_close(&self) -> bool {
        !is_local(&self.0)
    }

    fn allocate(&self, caller: &Caller, mode: u32, offset: u64, length: u64) -> Result<(), Errno> {
        caller::strip_suidgid(Strip::unless_root(caller))?;
        rustix::fs::fallocate(&self.0, FallocateFlags::from_bits_retain(mode), offset, length)
    }

    fn seek(&self, offset: u64, whence: u32) -> Result<u64, Errno> {
        let position = match whence.cast_signed() {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        rustix::fs::seek(&self.0, position)
    }

    fn copy_to(&self, to: &dyn File, caller: &Caller, range: &CopyFileRange) -> Result<u32, Errno> {
        let to = to.descriptor().ok_or(Errno::XDEV)?;
        caller::strip_suidgid(Strip::unless_root(caller))?;
        let (mut from_offset, mut to_offset) = (range.offset_in, range.offset_out);
        // The answer has 32 bits. A caller goes on where a copy stopped.
        let length = range.length.min(u64::from(u32::MAX)) as usize;
        let (from_at, to_at) = (Some(&mut from_offset), Some(&mut to_offset));
        let copied = rustix::fs::copy_file_range(&self.0, from_at, to, to_at, length)?;
        u32::try_from(copied).map_err(|_| Errno::OVERFLOW)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

impl From<OpenFile> for OwnedFd {
    fn from(file: OpenFile) -> OwnedFd {
        file.0
    }
}
