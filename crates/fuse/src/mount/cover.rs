//! What lies over a directory, and how that is reached which lies under it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount,
    open_tree, unmount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The uppermost mount at a directory, be its server dead or alive.
#[derive(Debug)]
pub struct Cover {
    point: PathBuf,
    /// Its root, as a reference that asks its server nothing.
    pub(super) top: OwnedFd,
}

impl Cover {
    /// Takes hold of what is mounted at a directory.
    pub fn at(point: &Path) -> io::Result<Cover> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = rustix::fs::open(point, flags, Mode::empty())?;
        Ok(Cover { point: point.to_owned(), top })
    }

    /// Opens the directory under it, with whatever is mounted in there. It is uncovered in a mount
    /// namespace that nobody else sees and that ends with this call, so not for a moment to others.
    ///
    /// Fails where nothing can be placed beneath it, so that who opens one can go on.
    pub fn beneath(&self) -> io::Result<OwnedFd> {
        check_kernel()?;
        // The mounts that a thread sees are its own once it has a namespace of its own.
        let opened = std::thread::scope(|scope| scope.spawn(|| uncovered(&self.point)).join());
        Ok(opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
    }

    /// Takes it out of the tree; who works in it goes on until they leave.
    pub fn remove(self) -> io::Result<()> {
        let itself = format!("/proc/self/fd/{}", self.top.as_raw_fd());
        Ok(unmount(itself, UnmountFlags::DETACH)?)
    }
}

/// Checks that this kernel places mounts beneath others: it looks for the path, which is none, only
/// if it knows the flag.
fn check_kernel() -> Result<(), Errno> {
    match move_mount(CWD, c"", CWD, c"", MoveMountFlags::MOVE_MOUNT_BENEATH) {
        Err(Errno::NOENT) | Ok(()) => Ok(()),
        Err(Errno::INVAL) => Err(Errno::OPNOTSUPP),
        Err(errno) => Err(errno),
    }
}

fn uncovered(point: &Path) -> Result<OwnedFd, Errno> {
    // SAFETY: unsharing mounts and working directory leaves descriptors and memory shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    open_tree(CWD, point, flags)
}
