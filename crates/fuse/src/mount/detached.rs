//! Mounts that are made first and placed later.
//!
//! A made mount is a descriptor: it lies nowhere, and nobody reaches it, until it is placed, which
//! takes one step of the kernel. In between it can agree with its server, and be handed into
//! another mount namespace. It needs CAP_SYS_ADMIN and Linux 5.2.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::{Cover, MountError, MountOptions, direct_settings, refused, shared_settings};
use crate::channel::Device;

/// Bytes of the name of what a made mount shows, at most: the kernel takes no longer settings.
pub const MADE_NAME_BYTES_MAX: usize = 255;

/// A file system, and a mount of it that lies nowhere yet.
#[derive(Debug)]
pub struct Made {
    /// Its server's side.
    pub device: Device,
    /// Its users' side.
    pub mount: Detached,
}

/// A mount that lies nowhere yet; it ends when it is dropped.
#[derive(Debug)]
pub struct Detached(OwnedFd);

/// Where a mount is put.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// Over a directory, and over whatever is mounted there.
    On(&'a Path),
    /// Under what is mounted there, which goes on hiding the directory; Linux 6.5.
    Beneath(&'a Cover),
}

/// Makes a mount that lies nowhere.
pub fn make(options: &MountOptions) -> Result<Made, MountError> {
    if options.fsname.len() > MADE_NAME_BYTES_MAX {
        return Err(MountError::Unsupported(Errno::NAMETOOLONG.into()));
    }
    let device = Device::open().map_err(|errno| MountError::NoDevice(errno.into()))?;
    let mount = configure(&device, options).map_err(refused)?;
    Ok(Made { device, mount: Detached(mount) })
}

fn configure(device: &Device, options: &MountOptions) -> Result<OwnedFd, Errno> {
    let context = fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let source = CString::new(options.fsname.as_bytes()).map_err(|_| Errno::INVAL)?;
    fsconfig_set_string(&context, c"source", source)?;
    fsconfig_set_string(&context, c"subtype", &options.subtype)?;
    if options.read_only {
        fsconfig_set_flag(&context, c"ro")?;
    }
    for (key, value) in direct_settings(device).into_iter().chain(shared_settings(options)) {
        match value {
            Some(value) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, key)?,
        }
    }
    fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, options.read_only);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, !options.suid);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !options.dev);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Detached {
    /// Puts it into the tree of the caller's mount namespace.
    pub fn place(self, at: Place<'_>) -> Result<(), MountError> {
        let from = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        let moved = match at {
            Place::On(directory) => {
                let flags = from | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
                move_mount(&self.0, c"", CWD, directory, flags)
            }
            Place::Beneath(cover) => {
                let beneath =
                    MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_BENEATH;
                move_mount(&self.0, c"", &cover.top, c"", from | beneath)
            }
        };
        moved.map_err(refused)
    }
}
