//! Attributes: reading, changing, and the extended ones.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use gate_fuse::{Attr, Caller, Errno, NodeId, SetAttr, SetTime, StatFs, StatxTime};
use rustix::fs::{
    AtFlags, Mode, OFlags, StatVfs, Statx, StatxFlags, StatxTimestamp, Timespec, Timestamps,
    UTIME_NOW, UTIME_OMIT, XattrFlags,
};
use rustix::process::{Gid, Uid};

use super::caller::{self, Strip};
use super::own::Deed;

use super::{Directory, STAT_FIELDS, stat};
use crate::source::{File, SetXattr, What};

/// Largest extended attribute, and largest list of their names, of Linux.
const XATTR_BYTES_MAX: usize = 65_536;

impl Directory {
    /// The attributes of a node, its birth among them if the source tells it.
    pub fn statx(&self, node: NodeId) -> Result<(Attr, gate_fuse::Statx), Errno> {
        let node = self.nodes.get(node)?;
        let fields = STAT_FIELDS | StatxFlags::BTIME;
        let stat = rustix::fs::statx(&node.descriptor, c"", AtFlags::EMPTY_PATH, fields)?;
        Ok((attr_of(&stat), wire_of(&stat)))
    }

    /// Changes attributes and returns those that then hold. `file` is the open file that a
    /// truncation came through, if any.
    pub fn setattr(
        &self,
        caller: &Caller,
        node: NodeId,
        file: Option<&dyn File>,
        change: &SetAttr,
    ) -> Result<Attr, Errno> {
        self.doing(deeds(node, change), || self.set(caller, node, file, change))
    }

    fn set(
        &self,
        caller: &Caller,
        node: NodeId,
        file: Option<&dyn File>,
        change: &SetAttr,
    ) -> Result<Attr, Errno> {
        let node = self.nodes.get(node)?;
        if let Some(mode) = change.mode {
            // The kernel has judged the sgid bit by groups of the caller that are not known here.
            caller::strip_suidgid(Strip::No)?;
            rustix::fs::chmod(node.reopen_path(), Mode::from_raw_mode(mode & 0o7777))?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            let (uid, gid) = (change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw));
            caller::change_as(caller, || {
                rustix::fs::chownat(&node.descriptor, c"", uid, gid, AtFlags::EMPTY_PATH)
            })?;
        }
        if let Some(size) = change.size {
            caller::strip_suidgid(Strip::if_asked(change.kill_suidgid))?;
            match file.and_then(File::descriptor) {
                Some(file) => rustix::fs::ftruncate(file, size)?,
                None => rustix::fs::ftruncate(node.reopen(OFlags::WRONLY)?, size)?,
            }
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(change.atime),
                last_modification: timespec(change.mtime),
            };
            rustix::fs::utimensat(&node.descriptor, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        Ok(attr_of(&stat(&node.descriptor)?))
    }

    /// Sets an extended attribute.
    pub fn setxattr(
        &self,
        caller: &Caller,
        node: NodeId,
        xattr: &SetXattr<'_>,
    ) -> Result<(), Errno> {
        let node = self.nodes.get(node)?;
        let set = || {
            let flags = XattrFlags::from_bits_retain(xattr.flags);
            rustix::fs::setxattr(node.reopen_path(), xattr.name, xattr.value, flags)
        };
        self.doing([Deed::ToNode(What::Attributes, node.id)], || {
            if xattr.kill_sgid {
                caller::change_as(caller, set)
            } else {
                caller::strip_suidgid(Strip::No)?;
                set()
            }
        })
    }

    /// The size of an extended attribute.
    pub fn xattr_size(&self, node: NodeId, name: &CStr) -> Result<usize, Errno> {
        rustix::fs::getxattr_query(self.nodes.get(node)?.reopen_path(), name)
    }

    /// An extended attribute of at most `size` bytes.
    pub fn getxattr(&self, node: NodeId, name: &CStr, size: u32) -> Result<Vec<u8>, Errno> {
        let path = self.nodes.get(node)?.reopen_path();
        read_xattr(size, |buffer| rustix::fs::getxattr(path, name, buffer))
    }

    /// The names of the extended attributes that a caller may see, each ended by NUL. Those of
    /// which only root knows are hidden from others, as nothing but the bare file system would.
    pub fn listxattr(&self, caller: &Caller, node: NodeId) -> Result<Vec<u8>, Errno> {
        const ONLY_ROOTS: &[u8] = b"trusted.";
        let path = self.nodes.get(node)?.reopen_path();
        let list = read_xattr(u32::MAX, |buffer| rustix::fs::listxattr(path, buffer))?;
        if caller.uid == 0 {
            return Ok(list);
        }
        let names = list.split_inclusive(|byte| *byte == 0);
        Ok(names.filter(|name| !name.starts_with(ONLY_ROOTS)).flatten().copied().collect())
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, node: NodeId, name: &CStr) -> Result<(), Errno> {
        let path = self.nodes.get(node)?.reopen_path();
        self.doing([Deed::ToNode(What::Attributes, node)], || rustix::fs::removexattr(path, name))
    }
}

/// Gives one file the extended attributes of another, as far as this user may.
pub fn copy_attributes(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut names = vec![0; XATTR_BYTES_MAX];
    let length = match rustix::fs::flistxattr(&from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        listed => listed?,
    };
    let mut value = vec![0; XATTR_BYTES_MAX];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(length) = rustix::fs::fgetxattr(&from, name, &mut value[..]) else { continue };
        let value = &value[..length];
        match rustix::fs::fsetxattr(&to, name, value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn read_xattr(
    size: u32,
    read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; (size as usize).min(XATTR_BYTES_MAX)];
    let len = read(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

/// What inotify tells of it: of a time of the content that is set alone, that the content changed.
fn deeds(node: NodeId, change: &SetAttr) -> impl Iterator<Item = Deed> {
    let SetAttr { mode, uid, gid, size, atime, mtime, .. } = *change;
    let times = atime.is_some() && mtime.is_some();
    let attributes = mode.is_some() || uid.is_some() || gid.is_some() || times;
    let content = size.is_some() || (mtime.is_some() && !times);
    let told = [(attributes, What::Attributes), (content, What::Written)];
    told.into_iter().filter(|(is_told, _)| *is_told).map(move |(_, what)| Deed::ToNode(what, node))
}

fn timespec(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(SetTime::At(time)) => time,
    }
}

pub(super) fn attr_of(stat: &Statx) -> Attr {
    let seconds = |time: &StatxTimestamp| time.tv_sec.cast_unsigned();
    let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
    Attr {
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: seconds(&stat.stx_atime),
        mtime: seconds(&stat.stx_mtime),
        ctime: seconds(&stat.stx_ctime),
        atime_nsec: stat.stx_atime.tv_nsec,
        mtime_nsec: stat.stx_mtime.tv_nsec,
        ctime_nsec: stat.stx_ctime.tv_nsec,
        mode: u32::from(stat.stx_mode),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12),
        blksize: stat.stx_blksize,
        flags: 0,
    }
}

fn wire_of(stat: &Statx) -> gate_fuse::Statx {
    let time = |time: &StatxTimestamp| StatxTime {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec,
        reserved: 0,
    };
    gate_fuse::Statx {
        mask: stat.stx_mask & (StatxFlags::BASIC_STATS | StatxFlags::BTIME).bits(),
        blksize: stat.stx_blksize,
        attributes: stat.stx_attributes.bits(),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mode: stat.stx_mode,
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        attributes_mask: stat.stx_attributes_mask.bits(),
        atime: time(&stat.stx_atime),
        btime: time(&stat.stx_btime),
        ctime: time(&stat.stx_ctime),
        mtime: time(&stat.stx_mtime),
        rdev_major: stat.stx_rdev_major,
        rdev_minor: stat.stx_rdev_minor,
        dev_major: stat.stx_dev_major,
        dev_minor: stat.stx_dev_minor,
        ..gate_fuse::Statx::default()
    }
}

pub(super) fn figures_of(figures: &StatVfs) -> StatFs {
    // Larger units than these do not exist.
    let unit = |unit: u64| u32::try_from(unit).unwrap_or(u32::MAX);
    StatFs {
        blocks: figures.f_blocks,
        bfree: figures.f_bfree,
        bavail: figures.f_bavail,
        files: figures.f_files,
        ffree: figures.f_ffree,
        bsize: unit(figures.f_bsize),
        namelen: unit(figures.f_namemax),
        frsize: unit(figures.f_frsize),
    }
}
