//! A file that somebody goes on writing, whatever the view says: its name is given to a copy.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};

use gate_fuse::{Errno, NodeId};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};

use super::own::Deed;

use super::{Directory, copy_attributes, errno_of};
use crate::nodes::Book as _;
use crate::source::{Source, What};

/// The largest file that is copied while others wait for it.
const COPIED_BYTES_MAX: u64 = 64 << 20;

/// Why a file keeps its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptName {
    /// It is larger than 64 MiB.
    Large,
    /// It has several names, or none that is known.
    OtherNames,
    /// Who writes it by right, or may do so by now, would lose what it writes.
    InUse,
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
        let (parent, name) = self.nodes.link_of(node).ok_or(KeptName::OtherNames)?;
        let file = self.nodes.get(node)?;
        let stat = rustix::fs::fstat(&file.descriptor)?;
        if stat.st_nlink != 1 || !(self as &dyn Source).leads_to((parent, &name), node) {
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
        let copy = self.doing([Deed::ToName(What::Made, parent, interim.clone())], || {
            rustix::fs::openat(&directory.descriptor, &interim, flags, Mode::empty())
        })?;
        let from = File::from(file.reopen(OFlags::RDONLY)?);
        let filled = fill(&from, &File::from(copy), &stat).map_err(|error| errno_of(&error));
        let placed = filled.and_then(|()| {
            self.doing(Deed::rename((parent, &interim), (parent, &name)), || {
                rustix::fs::renameat(&directory.descriptor, &interim, &directory.descriptor, &name)
            })
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

fn fill(from: &File, mut to: &File, stat: &Stat) -> io::Result<()> {
    // No more than that: whoever goes on writing may do so without end.
    io::copy(&mut from.take(COPIED_BYTES_MAX), &mut to)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_attributes(from, to)?;
    let time = |tv_sec, nsec: u64| Timespec { tv_sec, tv_nsec: nsec.cast_signed() };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(rustix::fs::futimens(to, &times)?)
}
