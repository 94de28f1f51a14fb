//! Making mounts and ending them.
//!
//! With CAP_SYS_ADMIN (root, or a user namespace's root) a mount is made and then placed (see
//! [`detached`]), or both at once by mount(2) where that is refused; otherwise the setuid helper
//! `fusermount3` mounts. A mount is never ended by itself: a dead one must not uncover the bare
//! directory.

mod cover;
mod detached;
pub(crate) mod fusermount;

pub use cover::Cover;
pub use detached::{Detached, MADE_NAME_BYTES_MAX, Made, Place, make};

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::CapabilitySet;

use crate::channel::Device;

/// How to mount. Permissions are always the kernel's to check (`default_permissions`).
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// The name in the mount table: what is mounted.
    pub fsname: OsString,
    /// The type in the mount table: `fuse.SUBTYPE`.
    pub subtype: String,
    /// Refuse all writes.
    pub read_only: bool,
    /// Let other users in.
    pub allow_other: bool,
    /// Honour suid, sgid and file capabilities; refused to ordinary users.
    pub suid: bool,
    /// Honour device nodes; refused to ordinary users.
    pub dev: bool,
    /// Largest READ in bytes, if less than the session's.
    pub max_read: Option<u32>,
}

impl MountOptions {
    /// A mount as a user makes it: for that user, to be written, without suid and devices.
    #[must_use]
    pub fn new(fsname: impl Into<OsString>, subtype: &str) -> MountOptions {
        MountOptions {
            fsname: fsname.into(),
            subtype: subtype.to_owned(),
            read_only: false,
            allow_other: false,
            suid: false,
            dev: false,
            max_read: None,
        }
    }
}

/// Why a mount was not made.
#[derive(Debug)]
pub enum MountError {
    /// The mountpoint does not exist, or is out of reach.
    NoMountpoint(io::Error),
    /// The mountpoint is no directory.
    NotDirectory(io::Error),
    /// A dead FUSE mount lies on the mountpoint: detach it.
    Dead(io::Error),
    /// There is no `/dev/fuse`, or it may not be opened: load the module, pass the device in.
    NoDevice(io::Error),
    /// `fusermount3` is not installed.
    NoFusermount(io::Error),
    /// `allow_other` needs `user_allow_other` in `/etc/fuse.conf`.
    AllowOther(io::Error),
    /// This user may not mount there.
    NotPermitted(io::Error),
    /// This kernel does not make mounts in that way.
    Unsupported(io::Error),
    /// Neither of these.
    Failed(io::Error),
}

/// Why a mount was not ended.
#[derive(Debug)]
pub enum UnmountError {
    /// Somebody has a file or a working directory in it.
    Busy(io::Error),
    /// Nothing is mounted there.
    NotMounted(io::Error),
    /// It is somebody else's.
    NotPermitted(io::Error),
    /// `fusermount3` is not installed.
    NoFusermount(io::Error),
    /// Neither of these.
    Failed(io::Error),
}

/// Mounts on a directory.
pub fn mount(mountpoint: &Path, options: &MountOptions) -> Result<Device, MountError> {
    check_mountpoint(mountpoint)?;
    if !may_mount() {
        return fusermount::mount(mountpoint, options);
    }
    match mount_directly(mountpoint, options) {
        // A container may have the capability and forbid its use.
        Err(MountError::NotPermitted(refused)) => match fusermount::mount(mountpoint, options) {
            Err(MountError::NoFusermount(_)) => Err(MountError::NotPermitted(refused)),
            other => other,
        },
        other => other,
    }
}

/// Ends a mount that nobody uses.
pub fn unmount(mountpoint: &Path) -> Result<(), UnmountError> {
    end(mountpoint, UnmountFlags::NOFOLLOW, &["-u"])
}

/// Takes a mount out of the tree at once; it ends when its last user is gone. Who has a file
/// open goes on using it: a last resort, to be said aloud.
pub fn detach(mountpoint: &Path) -> Result<(), UnmountError> {
    end(mountpoint, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH, &["-u", "-z"])
}

fn end(mountpoint: &Path, flags: UnmountFlags, arguments: &[&str]) -> Result<(), UnmountError> {
    if !may_mount() {
        return fusermount::unmount(mountpoint, arguments);
    }
    rustix::mount::unmount(mountpoint, flags).map_err(|errno| match errno {
        Errno::BUSY => UnmountError::Busy(errno.into()),
        Errno::INVAL | Errno::NOENT => UnmountError::NotMounted(errno.into()),
        Errno::PERM | Errno::ACCESS => UnmountError::NotPermitted(errno.into()),
        errno => UnmountError::Failed(errno.into()),
    })
}

/// Returns whether this is what a dead mount answers: ECONNABORTED to whoever called while it died,
/// ENOTCONN from then on.
#[must_use]
pub fn is_of_dead(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotConnected | io::ErrorKind::ConnectionAborted)
}

fn check_mountpoint(mountpoint: &Path) -> Result<(), MountError> {
    let stat = rustix::fs::stat(mountpoint).map_err(|errno| {
        let error = io::Error::from(errno);
        if is_of_dead(&error) { MountError::Dead(error) } else { MountError::NoMountpoint(error) }
    })?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(()),
        _ => Err(MountError::NotDirectory(Errno::NOTDIR.into())),
    }
}

/// Returns whether this process may mount without `fusermount3`, as far as its capabilities tell.
pub fn may_mount() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Mounts on a directory without `fusermount3`: takes CAP_SYS_ADMIN over the mount namespace.
pub fn mount_directly(mountpoint: &Path, options: &MountOptions) -> Result<Device, MountError> {
    match make(options) {
        Ok(Made { device, mount }) => mount.place(Place::On(mountpoint)).map(|()| device),
        // Which is what a filter of system calls says, too, and of mount(2) it may think otherwise.
        Err(MountError::Unsupported(_) | MountError::NotPermitted(_)) => {
            mount_at_once(mountpoint, options)
        }
        Err(error) => Err(error),
    }
}

fn mount_at_once(mountpoint: &Path, options: &MountOptions) -> Result<Device, MountError> {
    let device = Device::open().map_err(|errno| MountError::NoDevice(errno.into()))?;
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOSUID, !options.suid);
    flags.set(MountFlags::NODEV, !options.dev);
    let kind = format!("fuse.{}", options.subtype);
    let data =
        CString::new(direct_options(&device, options)).expect("numbers and keywords hold no NUL");
    rustix::mount::mount(options.fsname.as_os_str(), mountpoint, kind, flags, &*data)
        .map_err(refused)?;
    Ok(device)
}

/// Reads what the kernel says to a mount that it does not make.
fn refused(errno: Errno) -> MountError {
    match errno {
        Errno::PERM | Errno::ACCESS => MountError::NotPermitted(errno.into()),
        Errno::NODEV => MountError::NoDevice(errno.into()),
        Errno::NOSYS => MountError::Unsupported(errno.into()),
        errno => MountError::Failed(errno.into()),
    }
}

fn direct_options(device: &Device, options: &MountOptions) -> String {
    let mut data = String::new();
    for (key, value) in direct_settings(device).into_iter().chain(shared_settings(options)) {
        data.push_str(if data.is_empty() { "" } else { "," });
        push_setting(&mut data, key, value);
    }
    data
}

/// What only the kernel is told.
fn direct_settings(device: &Device) -> [Setting; 4] {
    let fd = device.0.as_raw_fd().cast_unsigned();
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    [
        ("fd", Some(fd.to_string())),
        ("rootmode", Some("40000".to_owned())),
        ("user_id", Some(uid.to_string())),
        ("group_id", Some(gid.to_string())),
    ]
}

/// What the kernel and `fusermount3` both are told.
fn shared_settings(options: &MountOptions) -> Vec<Setting> {
    let mut settings = vec![("default_permissions", None)];
    settings.extend(options.allow_other.then_some(("allow_other", None)));
    settings.extend(options.max_read.map(|bytes| ("max_read", Some(bytes.to_string()))));
    settings
}

/// A keyword, with or without a value.
type Setting = (&'static str, Option<String>);

fn push_setting(data: &mut String, key: &str, value: Option<String>) {
    data.push_str(key);
    if let Some(value) = value {
        data.push('=');
        data.push_str(&value);
    }
}

impl MountError {
    fn parts(&self) -> (&'static str, &io::Error) {
        match self {
            MountError::NoMountpoint(error) => ("the mountpoint is out of reach", error),
            MountError::NotDirectory(error) => ("the mountpoint is no directory", error),
            MountError::Dead(error) => ("a dead mount lies on the mountpoint", error),
            MountError::NoDevice(error) => ("/dev/fuse cannot be used", error),
            MountError::NoFusermount(error) => ("fusermount3 cannot be run", error),
            MountError::AllowOther(error) => ("fuse.conf does not allow allow_other", error),
            MountError::NotPermitted(error) => ("mounting there is not permitted", error),
            MountError::Unsupported(error) => ("this kernel does not mount so", error),
            MountError::Failed(error) => ("mounting failed", error),
        }
    }
}

impl UnmountError {
    fn parts(&self) -> (&'static str, &io::Error) {
        match self {
            UnmountError::Busy(error) => ("the mount is in use", error),
            UnmountError::NotMounted(error) => ("nothing is mounted there", error),
            UnmountError::NotPermitted(error) => ("unmounting is not permitted", error),
            UnmountError::NoFusermount(error) => ("fusermount3 cannot be run", error),
            UnmountError::Failed(error) => ("unmounting failed", error),
        }
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.parts().0)
    }
}

impl fmt::Display for UnmountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.parts().0)
    }
}

impl std::error::Error for MountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.parts().1)
    }
}

impl std::error::Error for UnmountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.parts().1)
    }
}

/// Escapes what separates options in the lists that `fusermount3` reads.
fn escape_option(value: &OsStr) -> OsString {
    let mut escaped = Vec::with_capacity(value.len());
    for &byte in value.as_bytes() {
        if matches!(byte, b',' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    std::os::unix::ffi::OsStringExt::from_vec(escaped)
}
