//! Files of the server that the kernel reads and writes itself.

use std::ffi::c_int;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Weak};

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, ioctl};

use crate::abi;
use crate::channel::Channel;
use crate::reply::BackingId;

/// Registers files with the kernel.
#[derive(Clone, Debug)]
pub struct Backer {
    /// Weak, as a notifier's.
    channel: Weak<Channel>,
}

/// A registered file; dropping it takes the registration back. Handles that are backed by it stay
/// so until they are released.
pub struct Backing {
    id: BackingId,
    channel: Weak<Channel>,
}

impl Backer {
    pub(crate) fn new(channel: &Arc<Channel>) -> Backer {
        Backer { channel: Arc::downgrade(channel) }
    }

    /// Registers a file. The kernel keeps it open, and acts on it with the rights that this
    /// thread has now. EPERM without CAP_SYS_ADMIN, EOPNOTSUPP if it was not agreed on, ELOOP on a
    /// file system that is stacked on another.
    pub fn open(&self, file: impl AsFd) -> Result<Backing, Errno> {
        let channel = self.channel.upgrade().ok_or(Errno::NODEV)?;
        let fd = file.as_fd().as_raw_fd();
        let map = abi::BackingMap { fd, flags: 0, padding: 0 };
        // SAFETY: the request takes a pointer to such a map, and the device is a FUSE device.
        let id = unsafe { ioctl(channel.device(), Register(map)) }?;
        Ok(Backing { id: BackingId(id), channel: self.channel.clone() })
    }
}

impl Backing {
    /// What an answer calls it.
    pub fn id(&self) -> BackingId {
        self.id
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        let Some(channel) = self.channel.upgrade() else { return };
        let id = self.id.0.cast_unsigned();
        // SAFETY: the argument of this ioctl is a pointer to a u32, which `Setter` passes.
        let close = unsafe { Setter::<{ abi::DEV_IOC_BACKING_CLOSE }, u32>::new(id) };
        // SAFETY: as above; the descriptor is a FUSE device.
        if let Err(errno) = unsafe { ioctl(channel.device(), close) } {
            tracing::warn!(%errno, id, "a backing file could not be taken back");
        }
    }
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

/// `FUSE_DEV_IOC_BACKING_OPEN`, which returns the number.
struct Register(abi::BackingMap);

// SAFETY: the opcode is that of a request that reads a `fuse_backing_map` and writes nothing.
unsafe impl Ioctl for Register {
    type Output = c_int;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        abi::DEV_IOC_BACKING_OPEN
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(
        out: IoctlOutput,
        _: *mut rustix::ffi::c_void,
    ) -> rustix::io::Result<c_int> {
        Ok(out)
    }
}
