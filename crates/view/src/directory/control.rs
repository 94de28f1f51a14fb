//! ioctl(2), as far as it is about files and not about devices: what lsattr(1) and chattr(1) ask.

use std::ffi::c_long;
use std::os::fd::{AsRawFd, OwnedFd};

use gate_fuse::{Caller, Errno, NodeId};
use rustix::fs::OFlags;
use rustix::ioctl::{Opcode, opcode};

use super::{Directory, caller, checked};

/// What can be asked of a file, with the number and the size of its argument; whatever else there is
/// is not done for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// `FS_IOC_GETFLAGS`
    Flags,
    /// `FS_IOC_SETFLAGS`
    SetFlags,
    /// `FS_IOC_GETVERSION`
    Generation,
    /// `FS_IOC_FSGETXATTR`
    Extended,
    /// `FS_IOC_FSSETXATTR`
    SetExtended,
}

/// `struct fsxattr`, in bytes.
const EXTENDED_BYTES: usize = 28;

/// Room for any argument, aligned as any of them.
#[repr(C, align(8))]
struct Argument([u8; 32]);

impl Control {
    const ALL: [Control; 5] = [
        Control::Flags,
        Control::SetFlags,
        Control::Generation,
        Control::Extended,
        Control::SetExtended,
    ];

    /// Reads a number of ioctl(2); ENOTTY, as of any file, if it is none of these.
    pub fn of(command: u32) -> Result<Control, Errno> {
        let mut all = Control::ALL.into_iter();
        all.find(|control| control.opcode() == command).ok_or(Errno::NOTTY)
    }

    /// Whether it changes the file.
    pub fn changes(self) -> bool {
        matches!(self, Control::SetFlags | Control::SetExtended)
    }

    /// The numbers of the first three tell of a long, and an int is what is read and written.
    fn opcode(self) -> Opcode {
        match self {
            Control::Flags => opcode::read::<c_long>(b'f', 1),
            Control::SetFlags => opcode::write::<c_long>(b'f', 2),
            Control::Generation => opcode::read::<c_long>(b'v', 1),
            Control::Extended => opcode::read::<[u8; EXTENDED_BYTES]>(b'X', 31),
            Control::SetExtended => opcode::write::<[u8; EXTENDED_BYTES]>(b'X', 32),
        }
    }

    /// How many bytes it tells.
    pub fn len_told(self) -> usize {
        if self.changes() { 0 } else { self.len() }
    }

    fn len(self) -> usize {
        match self {
            Control::Flags | Control::SetFlags | Control::Generation => size_of::<i32>(),
            Control::Extended | Control::SetExtended => EXTENDED_BYTES,
        }
    }
}

impl Directory {
    /// Does such a thing, and returns what it tells. What changes the node is done with the caller's
    /// rights: the kernel has asked for those that every file system demands, but not for those
    /// that one demands for a flag of its own.
    pub fn control(
        &self,
        node: NodeId,
        caller: &Caller,
        (control, input): (Control, &[u8]),
    ) -> Result<Vec<u8>, Errno> {
        let file = self.nodes.get(node)?.reopen(OFlags::RDONLY | OFlags::NONBLOCK)?;
        let mut argument = Argument([0; 32]);
        if !control.changes() {
            call(&file, control, &mut argument)?;
            return Ok(argument.0[..control.len()].to_vec());
        }
        let input = input.get(..control.len()).ok_or(Errno::INVAL)?;
        argument.0[..control.len()].copy_from_slice(input);
        caller::with_rights_of(caller, || call(&file, control, &mut argument))?;
        Ok(Vec::new())
    }
}

fn call(file: &OwnedFd, control: Control, argument: &mut Argument) -> Result<(), Errno> {
    let argument = argument.0.as_mut_ptr();
    // SAFETY: each of these reads or writes at most `len` bytes, which the argument has.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), control.opcode().into(), argument) })
}
