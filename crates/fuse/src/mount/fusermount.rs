//! Mounts for those who may not mount: the setuid helper of libfuse.
//!
//! It mounts in our name and passes the device back over a socket, whose number it takes from
//! an environment variable. The socket is its standard input, so that no descriptor has to be
//! made inheritable where another thread could fork at the same time.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{MountError, MountOptions, UnmountError, escape_option, push_setting, shared_settings};
use crate::channel::Device;

const PROGRAM: &str = "fusermount3";

pub(crate) fn mount(mountpoint: &Path, options: &MountOptions) -> Result<Device, MountError> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|errno| MountError::Failed(errno.into()))?;
    let mut command = Command::new(PROGRAM);
    command.arg("-o").arg(option_list(options)).arg("--").arg(mountpoint);
    command.env("_FUSE_COMMFD", "0").stdin(Stdio::from(theirs));
    let output = run(command).map_err(MountError::NoFusermount)?;
    if !output.status.success() {
        return Err(mount_refusal(&output));
    }
    let device = Device::taken_over(&ours).and_then(|device| {
        device.ok_or_else(|| io::Error::other("fusermount3 passed no descriptor"))
    });
    device.map_err(MountError::Failed)
}

pub(crate) fn unmount(mountpoint: &Path, arguments: &[&str]) -> Result<(), UnmountError> {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).arg("--").arg(mountpoint).stdin(Stdio::null());
    let output = run(command).map_err(UnmountError::NoFusermount)?;
    if output.status.success() { Ok(()) } else { Err(unmount_refusal(&output)) }
}

/// Runs the helper to its end. Its messages are read in the language they are matched in.
fn run(mut command: Command) -> io::Result<Output> {
    // `Command` keeps the child's standard input open until it is dropped, so it must be gone
    // before anybody waits on the other end of the socket.
    command.env("LC_ALL", "C").stdout(Stdio::null()).stderr(Stdio::piped()).output()
}

fn option_list(options: &MountOptions) -> OsString {
    let mut list = String::from(if options.read_only { "ro" } else { "rw" });
    list.push_str(if options.suid { ",suid" } else { ",nosuid" });
    list.push_str(if options.dev { ",dev" } else { ",nodev" });
    list.push_str(&format!(",subtype={}", options.subtype));
    for (key, value) in shared_settings(options) {
        list.push(',');
        push_setting(&mut list, key, value);
    }
    list.push_str(",fsname=");
    let mut list = OsString::from(list);
    list.push(escape_option(&options.fsname));
    list
}

fn mount_refusal(output: &Output) -> MountError {
    let complaint = Complaint::of(output);
    if complaint.says(&["user_allow_other"]) {
        MountError::AllowOther(complaint.error())
    } else if complaint.says(&["/dev/fuse", "device not found"]) {
        MountError::NoDevice(complaint.error())
    } else if complaint.says(&["Permission denied", "not permitted", "no write access"]) {
        MountError::NotPermitted(complaint.error())
    } else {
        MountError::Failed(complaint.error())
    }
}

fn unmount_refusal(output: &Output) -> UnmountError {
    let complaint = Complaint::of(output);
    if complaint.says(&["resource busy"]) {
        UnmountError::Busy(complaint.error())
    } else if complaint.says(&["not found in", "Invalid argument"]) {
        UnmountError::NotMounted(complaint.error())
    } else if complaint.says(&["Permission denied", "not permitted"]) {
        UnmountError::NotPermitted(complaint.error())
    } else {
        UnmountError::Failed(complaint.error())
    }
}

/// What the helper wrote: its only way to say what went wrong.
struct Complaint(String);

impl Complaint {
    fn of(output: &Output) -> Complaint {
        Complaint(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    fn says(&self, any: &[&str]) -> bool {
        any.iter().any(|part| self.0.contains(part))
    }

    fn error(self) -> io::Error {
        io::Error::other(self.0)
    }
}
