//! A file that somebody goes on writing, whatever the view says: its name is given to a copy.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use gate_fuse::{Errno, NodeId};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};

use super::Directory;

/// The largest file that is copied while others wait for it.
const COPIED_BYTES_MAX: u64 = 64 << 20;
/// Bytes copied at once.
const STEP_BYTES: usize = 1 << 20;
/// Largest list of extended attributes, and largest attribute, of Linux.
const XATTR_BYTES_MAX: usize = 65_536;

/// Why a file keeps its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptName {
    /// It is larger than 64 MiB.
    Large,
    /// It has several names, or none that is known.
    OtherNames,
    /// The copy failed.
    Failed(Errno),
}

impl From<Errno> for KeptName {
    fn from(errno: Errno) -> KeptName {
        KeptName::Failed(errno)
    }
}

impl Directory {
    /// Gives the name of a file to a copy, with the same owner, permissions, times and extended
    /// attributes, so that what is still written goes to a file without a name. Returns the name:
    /// the kernel is to forget to what it led.
    pub fn set_apart(&self, node: NodeId) -> Result<(NodeId, CString), KeptName> {
        let (parent, name) = self.link_of(node).ok_or(KeptName::OtherNames)?;
        let file = self.nodes.get(node)?;
        let stat = rustix::fs::fstat(&file.descriptor)?;
        if stat.st_nlink != 1 || !self.leads_to((parent, &name), node) {
            return Err(KeptName::OtherNames);
        }
        if stat.st_size.cast_unsigned() > COPIED_BYTES_MAX {
            return Err(KeptName::Large);
        }
        let directory = self.nodes.get(parent)?;
        let interim = interim_name(node);
        // What a former run may have left in its last moment.
        let _ = rustix::fs::unlinkat(&directory.descriptor, &interim, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let copy = rustix::fs::openat(&directory.descriptor, &interim, flags, Mode::empty())?;
        let from = file.reopen(OFlags::RDONLY)?;
        let placed = fill(&from, &copy, &stat).and_then(|()| {
            rustix::fs::renameat(&directory.descriptor, &interim, &directory.descriptor, &name)
        });
        if let Err(errno) = placed {
            let _ = rustix::fs::unlinkat(&directory.descriptor, &interim, AtFlags::empty());
            return Err(errno.into());
        }
        self.nodes.unlinked((parent, name.to_bytes()));
        Ok((parent, name))
    }
}

fn interim_name(node: NodeId) -> CString {
    let name = format!(".gate-{}-{}", std::process::id(), node.0);
    CString::new(name).expect("digits have no NUL")
}

fn fill(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    copy_bytes(from, to)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_xattrs(from, to)?;
    let time = |tv_sec, nsec: u64| Timespec { tv_sec, tv_nsec: nsec.cast_signed() };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(to, &times)
}

/// Copies what was there at the beginning: whoever goes on writing may do so without end.
fn copy_bytes(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mut left = COPIED_BYTES_MAX;
    while left > 0 {
        let step = STEP_BYTES.min(usize::try_from(left).unwrap_or(STEP_BYTES));
        let copied = match rustix::fs::copy_file_range(from, None, to, None, step) {
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                read_and_write(from, to, step)?
            }
            copied => copied?,
        };
        if copied == 0 {
            return Ok(());
        }
        left -= copied as u64;
    }
    Ok(())
}

fn read_and_write(from: &OwnedFd, to: &OwnedFd, step: usize) -> Result<usize, Errno> {
    let mut buffer = vec![0; step];
    let count = rustix::io::read(from, &mut buffer)?;
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(to, rest)?..];
    }
    Ok(count)
}

fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let mut list = vec![0; XATTR_BYTES_MAX];
    let length = match rustix::fs::flistxattr(&from, &mut list) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    for name in list[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let mut value = vec![0; XATTR_BYTES_MAX];
        let length = rustix::fs::fgetxattr(&from, name, &mut value)?;
        rustix::fs::fsetxattr(&to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}
