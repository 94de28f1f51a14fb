//! What a file holds, told from what it held before by what the source says of it.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use gate_fuse::{Errno, NodeId};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags, StatxTimestamp};

use super::{Directory, Inode};

/// A file as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Which file.
    pub file: Inode,
    /// What it holds.
    pub stamp: Stamp,
}

/// Changes with every change of a file's content, as finely as the source's clock ticks. The
/// change time (`ctime`) is left out: every chmod, link and rename moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Tells a file from an earlier one of the same number, where the source knows.
    pub born: (i64, u32),
    /// When it was last written.
    pub modified: (i64, u32),
    /// How many bytes it has.
    pub size: u64,
}

/// A file, whatever becomes of its names.
#[derive(Debug)]
pub struct Pinned {
    /// `O_PATH`.
    pub descriptor: OwnedFd,
    /// What it held when it was pinned.
    pub sighting: Sighting,
    /// What it is.
    pub kind: FileType,
}

impl Directory {
    /// Looks at the file of a node.
    pub fn sighting(&self, node: NodeId) -> Result<Sighting, Errno> {
        Ok(Sighting::of(&look(&self.nodes.get(node)?.descriptor)?))
    }

    /// Pins the file of a node.
    pub fn pin(&self, node: NodeId) -> Result<Pinned, Errno> {
        let node = self.nodes.get(node)?;
        Pinned::new(node.reopen(OFlags::PATH)?)
    }

    /// Pins what bears a name.
    pub fn pin_name(&self, parent: NodeId, name: &CStr) -> Result<Pinned, Errno> {
        let parent = self.nodes.get(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Pinned::new(rustix::fs::openat(&parent.descriptor, name, flags, Mode::empty())?)
    }
}

impl Pinned {
    fn new(descriptor: OwnedFd) -> Result<Pinned, Errno> {
        let stat = look(&descriptor)?;
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        Ok(Pinned { descriptor, sighting: Sighting::of(&stat), kind })
    }
}

impl Sighting {
    fn of(stat: &Statx) -> Sighting {
        let time = |time: &StatxTimestamp| (time.tv_sec, time.tv_nsec);
        let knows_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let born = if knows_birth { time(&stat.stx_btime) } else { (0, 0) };
        let stamp = Stamp { born, modified: time(&stat.stx_mtime), size: stat.stx_size };
        Sighting { file: Inode::of(stat), stamp }
    }
}

fn look(descriptor: &OwnedFd) -> Result<Statx, Errno> {
    let fields = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    rustix::fs::statx(descriptor, c"", AtFlags::EMPTY_PATH, fields)
}
