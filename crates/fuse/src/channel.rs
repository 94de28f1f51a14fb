//! The device: frames in, answers out.
//!
//! An answer goes back through the channel its request came from; the kernel looks for it
//! nowhere else.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use zerocopy::IntoBytes;

use crate::abi;
use crate::request::Unique;

/// The path of the device.
pub(crate) const DEVICE: &str = "/dev/fuse";

/// A mounted connection to the kernel that nobody serves yet.
///
/// When it, its session and all that came of them are gone, the mount is dead: it answers
/// ENOTCONN until it is unmounted.
#[derive(Debug)]
pub struct Device(pub(crate) OwnedFd);

impl Device {
    pub(crate) fn open() -> Result<Device, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        Ok(Device(rustix::fs::open(DEVICE, flags, Mode::empty())?))
    }

    /// Hands it to the process at the other end of a Unix socket, which is to serve the mount.
    pub fn hand_over(self, to: impl AsFd) -> io::Result<()> {
        let descriptors = [self.0.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(to, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits until the process at the other end of a Unix socket hands one over; `None` if it hangs
    /// up.
    pub fn taken_over(from: impl AsFd) -> io::Result<Option<Device>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        recvmsg(from, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let device = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        Ok(device.map(Device))
    }
}

#[derive(Debug)]
pub(crate) struct Channel {
    device: OwnedFd,
    /// How many want nobody to wait in a read.
    hasty: Mutex<usize>,
}

/// As long as one is there nobody waits in a read of its channel: another may take what has come.
#[derive(Debug)]
pub(crate) struct Haste(Arc<Channel>);

/// What a read of the device brought.
pub(crate) enum Received {
    Frame(usize),
    /// None has come, and nobody is to wait here.
    Nothing,
    /// Unmounted or aborted.
    End,
}

impl Channel {
    pub fn new(device: Device) -> Channel {
        Channel { device: device.0, hasty: Mutex::default() }
    }

    /// Opens a further channel of the same connection, with a queue of its own for requests in
    /// progress.
    pub fn another(&self) -> Result<Channel, Errno> {
        let device = Device::open()?;
        let connection = self.device.as_raw_fd().cast_unsigned();
        // SAFETY: the argument of this ioctl is a pointer to a u32, which `Setter` passes.
        let clone = unsafe { Setter::<{ abi::DEV_IOC_CLONE }, u32>::new(connection) };
        // SAFETY: as above; the descriptor is a FUSE device.
        unsafe { ioctl(device.0.as_fd(), clone) }?;
        Ok(Channel::new(device))
    }

    /// The device itself.
    pub fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Lets nobody wait in a read. Those who do go on doing so.
    pub fn make_haste(self: &Arc<Self>) -> Result<Haste, Errno> {
        let mut hasty = self.hasty();
        fcntl_setfl(&self.device, OFlags::NONBLOCK)?;
        *hasty += 1;
        Ok(Haste(Arc::clone(self)))
    }

    fn hasty(&self) -> MutexGuard<'_, usize> {
        // Nothing panics while it is held.
        self.hasty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a frame; waits for it, unless there is haste.
    pub fn receive(&self, frame: &mut [u8]) -> io::Result<Received> {
        loop {
            match rustix::io::read(&self.device, &mut *frame) {
                Ok(len) => return Ok(Received::Frame(len)),
                // ENOENT: the request was taken back while it was being read.
                Err(Errno::NOENT | Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(Received::End),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Answers a request. There is nobody to tell of a failure: either the kernel has dropped
    /// the request with its mount, or the answer was unfit and EIO goes in its place.
    pub fn answer(&self, unique: Unique, error: i32, first: &[u8], second: &[u8]) {
        let Err(errno) = self.send(unique.0, error, first, second) else { return };
        if matches!(errno, Errno::NOENT | Errno::NODEV) {
            tracing::debug!(unique = unique.0, "the kernel no longer waits for this answer");
            return;
        }
        tracing::error!(unique = unique.0, %errno, "the kernel refused an answer");
        // The refused answer may have ended the request all the same; then this one finds nothing.
        let _ = self.send(unique.0, -Errno::IO.raw_os_error(), &[], &[]);
    }

    /// Sends one message: an answer when `unique` is not 0, else a notification whose code is
    /// in `error`.
    pub fn send(&self, unique: u64, error: i32, first: &[u8], second: &[u8]) -> Result<(), Errno> {
        let len = size_of::<abi::OutHeader>() + first.len() + second.len();
        let len = u32::try_from(len).map_err(|_| Errno::TOOBIG)?;
        let header = abi::OutHeader { len, error, unique };
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(first), IoSlice::new(second)];
        // The kernel takes a message whole or not at all.
        rustix::io::writev(&self.device, &parts)?;
        #[cfg(feature = "shuttle")]
        crate::staged::told();
        Ok(())
    }
}

impl Drop for Haste {
    fn drop(&mut self) {
        let mut hasty = self.0.hasty();
        *hasty -= 1;
        if *hasty == 0 {
            let _ = fcntl_setfl(&self.0.device, OFlags::empty());
        }
    }
}
