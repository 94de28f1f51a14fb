//! Bringing a file's bytes and extended attributes somewhere else.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD};

use super::{Facts, Take};
use crate::directory::copy_attributes;

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
