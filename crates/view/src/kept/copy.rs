//! Bringing a file's bytes and extended attributes somewhere else.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, XattrFlags};
use rustix::io::Errno;

use super::{Facts, Take};

/// Bytes of all names of extended attributes, and of one value, at most (Linux).
const ATTRIBUTE_BYTES_MAX: usize = 65_536;

/// Makes a file of what another one holds.
pub(super) fn bring(file: &OwnedFd, take: Take, facts: &Facts, to: &Path) -> io::Result<()> {
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    // One that has another name can still be changed through that.
    if take == Take::Link
        && facts.links == 1
        && rustix::fs::linkat(CWD, &from, CWD, to, AtFlags::SYMLINK_FOLLOW).is_ok()
    {
        return Ok(());
    }
    let from = match take {
        Take::AsOpen => File::from(file.try_clone()?),
        Take::Copy | Take::Link => File::open(from)?,
    };
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
        let copied = io::copy(&mut (&from).take(facts.size), &mut to)?;
        if copied != facts.size {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "it shrank meanwhile"));
        }
    }
    copy_attributes(&from, &to)
}

/// Gives one file the extended attributes of another, as far as this user may.
pub fn copy_attributes(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut names = vec![0; ATTRIBUTE_BYTES_MAX];
    let length = match rustix::fs::flistxattr(&from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        listed => listed?,
    };
    let mut value = vec![0; ATTRIBUTE_BYTES_MAX];
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
