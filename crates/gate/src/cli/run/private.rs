//! A view of one run's own, in a mount namespace of its own.
//!
//! The command that is to be run leaves the common tree of mounts first, and puts the view there
//! where the source, or a view of it, was. Who serves it stays outside, in the background. So the
//! view ends with the last process that sees it, whoever that is, and its server ends with the
//! view. Nothing has to be tidied up.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gate_fuse::{Device, MountError, MountOptions, may_mount, mount_directly};
use gate_view::mount::mount_options;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::UnshareFlags;

use crate::failure::{Exit, Failure};
use crate::footing::Footing;
use crate::userns;

/// Lets this process, and all it starts, see a view of their own at `dir` and around it.
pub fn enter(dir: &Path, agent: &str) -> Result<(), Failure> {
    let footing = Footing::find(dir)?;
    if let Some(above) = footing.agent() {
        let cause = format!("{} is already a private view, of the agent {above}", dir.display());
        let hint = "leave `--view private` out to work in that one, or start it outside";
        return Err(cannot(&cause, hint));
    }
    let server = Server::start(dir, agent)?;
    // Nobody else comes to see it. Of a user namespace, where all are one user, that would shut out
    // who is not in it: the server, which lets watchers hear of others.
    let allow_other = may_mount();
    leave_common_tree()?;
    let options = MountOptions { allow_other, ..mount_options(&footing.source) };
    let device = mount_directly(&footing.mountpoint, &options).map_err(not_mounted)?;
    server.serve(device)?;
    // What was the working directory is another one in the view.
    std::env::set_current_dir(dir).map_err(|error| cannot(&error, "look into the view's log"))
}

/// Who serves the view, on its way to the background.
struct Server {
    child: Child,
    socket: OwnedFd,
}

impl Server {
    /// Starts it, to find the source and the broker while its view is made.
    fn start(dir: &Path, agent: &str) -> Result<Server, Failure> {
        let failed = |error: io::Error| cannot(&error, "try again");
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(|errno| failed(errno.into()))?;
        let child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["mount", "--private", agent])
            .arg("--root")
            .arg(dir)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        Ok(Server { child, socket })
    }

    /// Has it serve, and waits until it does.
    fn serve(mut self, device: Device) -> Result<(), Failure> {
        let handed = device.hand_over(&self.socket);
        // It has said itself why it cannot.
        let ended = self.child.wait();
        match ended {
            Ok(status) if status.success() => handed.map_err(|error| cannot(&error, "try again")),
            Ok(_) => Err(Failure::silent(Exit::Unable)),
            Err(error) => Err(cannot(&error, "try again")),
        }
    }
}

/// Leaves the mounts that all others see. What is mounted and unmounted there goes on to show here,
/// but nothing of here shows there.
fn leave_common_tree() -> Result<(), Failure> {
    let unshare = |flags| {
        // SAFETY: this process has one thread, and shares its descriptors with no other.
        unsafe { rustix::thread::unshare_unsafe(flags) }
    };
    if may_mount() {
        let hint = "a container may forbid it: allow `unshare`, or give it CAP_SYS_ADMIN";
        unshare(UnshareFlags::NEWNS).map_err(|errno| cannot(&errno, hint))?;
    } else {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)
            .map_err(io::Error::from)
            .and_then(|()| fs::write("/proc/self/setgroups", "deny"))
            .and_then(|()| fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")))
            .and_then(|()| fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")))
            .map_err(forbidden)?;
    }
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|errno| forbidden(errno.into()))
}

fn not_mounted(error: MountError) -> Failure {
    match error {
        MountError::NotPermitted(error) => forbidden(error),
        MountError::NoDevice(error) => {
            let hint =
                "load the module: `modprobe fuse`; in a container, pass the device /dev/fuse in";
            cannot(&format!("/dev/fuse cannot be used: {error}"), hint)
        }
        error => {
            let why = std::error::Error::source(&error).map(ToString::to_string);
            let cause = format!("{error}: {}", why.unwrap_or_default());
            cannot(&cause, "look at `dmesg`, or leave `--view private` out")
        }
    }
}

/// What an ordinary user needs a user namespace for was refused.
fn forbidden(error: io::Error) -> Failure {
    match userns::Bar::find() {
        Some(bar) => cannot(&format!("{bar} ({error})"), &bar.remedy()),
        None => {
            let cause = format!("this user may not make a user namespace: {error}");
            cannot(&cause, userns::REMEDY_UNKNOWN)
        }
    }
}

fn cannot(cause: &dyn std::fmt::Display, hint: &str) -> Failure {
    Failure::new("cannot make a private view", cause, hint).exit(Exit::Unable)
}
