//! The end of a view, as people ask for it: unless somebody uses it, who is named.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gate_api::mounts;
use gate_api::process;
use gate_fuse::UnmountError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::bypass::{Table, Tables};
use crate::failure::Failure;
use crate::output;
use crate::processes::{self, User};
use crate::seen::{About, Unseen};
use crate::within::within;

/// How long a view may take to say who serves it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// How long it is tried to unmount a view that nobody is seen to use: whoever asks it something, as
/// `gate status` does, keeps it busy meanwhile; and so does the view itself, for moments, where it may
/// not copy its mount, to tell watchers of others' changes …
const MOMENTS_MAX: Duration = Duration::from_secs(1);
/// … and how long between two tries.
const MOMENT: Duration = Duration::from_millis(2);
/// How long its process may take to end once it is unmounted, without a word …
const END_PATIENCE_SILENT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// … and after it was said what it may wait for.
const END_PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// How a view is unmounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Not while somebody uses it.
    InOrder,
    /// Also then: who has something of it goes on with that, and nobody else comes in.
    Lazy,
}

/// Unmounts the view at a mount point, and waits until its server has ended. Returns what is to be said
/// aloud: who uses it still.
pub fn end(path: &Path, manner: Manner) -> Result<Option<String>, Failure> {
    let point = point_of(path).map_err(|error| cannot(path, error, "check the path"))?;
    let mount = mounts::at(&point).map_err(|error| cannot(&point, error, "is /proc mounted?"));
    let mount = match mount? {
        Some(mount) if mount.is_gated => mount,
        Some(_) => {
            let hint = format!("`umount {}` ends other mounts", point.display());
            return Err(cannot(&point, "what is mounted there is no gated view", hint));
        }
        None => return Err(not_mounted(&point)),
    };
    let server = server_of(&point)?;
    match (unmount(&point), manner) {
        (Err(UnmountError::Busy(_)), Manner::Lazy) => {
            let users = users_of(&point);
            gate_fuse::detach(&point).map_err(|error| refused(&point, &error))?;
            let users = match users.is_empty() {
                true => "somebody".to_owned(),
                false => processes::named(&users),
            };
            let point = point.display();
            return Ok(Some(format!("{point} is unmounted, and still used by {users}")));
        }
        (outcome, _) => outcome.map_err(|error| refused(&point, &error))?,
    }
    if let Some(server) = server {
        await_end(&server, &point, mount.device)?;
    }
    Ok(None)
}

/// Unmounts a view, unless somebody else than itself uses it.
pub fn unmount(point: &Path) -> Result<(), UnmountError> {
    let end = Instant::now() + MOMENTS_MAX;
    loop {
        match gate_fuse::unmount(point) {
            Err(UnmountError::Busy(_)) if Instant::now() < end && users_of(point).is_empty() => {
                std::thread::park_timeout(MOMENT);
            }
            outcome => return outcome,
        }
    }
}

/// Says why a view was not unmounted.
pub fn refused(point: &Path, error: &UnmountError) -> Failure {
    let cause = || io_cause(error);
    match error {
        UnmountError::Busy(_) => busy(point, &users_of(point)),
        UnmountError::NotMounted(_) | UnmountError::NotPermitted(_) if is_of_another(point) => {
            let hint = "do it as the user who mounted it, or as root";
            cannot(point, "another user's view is mounted there", hint)
        }
        UnmountError::NotMounted(_) => not_mounted(point),
        UnmountError::NotPermitted(_) => {
            cannot(point, cause(), "do it as the user who mounted it, or as root")
        }
        UnmountError::NoFusermount(_) => cannot(point, cause(), "install fuse3"),
        UnmountError::Failed(_) => cannot(point, cause(), "try again"),
    }
}

/// Who has something of a view: its server does for moments, and that ends.
fn users_of(point: &Path) -> Vec<User> {
    let mount = mounts::at(point).ok().flatten();
    let mut users = mount.map(|mount| processes::users_of(&mount)).unwrap_or_default();
    if !users.is_empty() {
        let server = processes::server_of(point).map(|server| server.pid);
        users.retain(|user| Some(user.pid) != server);
    }
    users
}

fn busy(point: &Path, users: &[User]) -> Failure {
    if users.is_empty() {
        return match rustix::process::geteuid().is_root() {
            true => {
                let cause = "it is busy, and no process of here is seen to use it";
                let hint =
                    "look for mounts below it and for users in other containers, then try again";
                cannot(point, cause, hint)
            }
            false => {
                let cause = "it is busy, and who uses it may not be seen by this user";
                cannot(point, cause, "look as root: `gate umount` then names them")
            }
        };
    }
    let cause = format!("it is in use by {}", processes::named(users));
    let hint = "close these files, leave the directory, then try again; or let them go on, and nobody else in";
    cannot(point, cause, format!("{hint}: `gate umount --lazy {}`", point.display()))
}

/// Returns whether a gated view is there that is not this user's to end: the helper that unmounts
/// does not know those.
fn is_of_another(point: &Path) -> bool {
    let own = rustix::process::geteuid();
    let is_other = |user: u32| !own.is_root() && user != own.as_raw();
    let mount = mounts::at(point).ok().flatten().filter(|mount| mount.is_gated);
    mount.and_then(|mount| mount.user).is_some_and(is_other)
}

fn not_mounted(point: &Path) -> Failure {
    let inside = About::of(point).ok().filter(|about| about.mountpoint != point);
    let hint = match inside {
        Some(about) => format!("it lies in a view: `gate umount {}`", about.mountpoint.display()),
        None => "`gate status` lists the views".to_owned(),
    };
    cannot(point, "no gated view is mounted there", hint)
}

/// Returns the mount point in the words of the mount table. A dead view cannot be looked at, but
/// the directory around it can.
fn point_of(path: &Path) -> io::Result<PathBuf> {
    let error = match path.canonicalize() {
        Ok(point) => return Ok(point),
        Err(error) => error,
    };
    let absolute = std::path::absolute(path)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) if error.kind() != io::ErrorKind::NotFound => {
            Ok(parent.canonicalize()?.join(name))
        }
        _ => Err(error),
    }
}

/// Returns the process that serves a view, so that its end can be waited for; `None` for a dead
/// view, and for one that is served in another pid namespace.
fn server_of(point: &Path) -> Result<Option<OwnedFd>, Failure> {
    let asked = point.to_owned();
    match within(ANSWER_PATIENCE, move || About::of(&asked)) {
        Some(Ok(About { agent: Some(agent), .. })) => {
            let cause = format!("it is the private view of the agent {agent}");
            Err(cannot(point, cause, "it ends with the last process that sees it"))
        }
        // Its server, the daemon, goes on.
        Some(Ok(About { bucket: Some(_), .. })) => Ok(None),
        Some(Ok(about)) => {
            let pid = Some(about.pid).filter(|_| about.pid_namespace == process::namespace());
            Ok(pid.and_then(process::of_pid).and_then(process::watch))
        }
        Some(Err(Unseen::NotGated | Unseen::Version(_) | Unseen::Io(_))) => Ok(None),
        None => {
            let hint = "end the process that serves it (`gate mount …`), then try again";
            Err(cannot(point, "the view does not answer", hint))
        }
    }
}

fn await_end(server: &OwnedFd, point: &Path, device: (u32, u32)) -> Result<(), Failure> {
    if ends_within(server, &END_PATIENCE_SILENT) {
        return Ok(());
    }
    let seen_by = who_sees(device);
    let still =
        format!("{} still see it, in mount namespaces of their own", output::some_of(&seen_by));
    if !seen_by.is_empty() {
        output::say_line(format_args!("{} is unmounted here; {still}", point.display()));
    }
    if ends_within(server, &END_PATIENCE) {
        return Ok(());
    }
    let what = format!("{} is unmounted, but not yet at rest", point.display());
    Err(match seen_by.is_empty() {
        true => {
            let cause = "the process that served it has not ended";
            Failure::new(what, cause, "look into its log before using the source")
        }
        false => Failure::new(what, still, "its server ends when they have ended"),
    })
}

/// Returns the words for who sees a file system in other mount namespaces, one of each.
fn who_sees(device: (u32, u32)) -> Vec<String> {
    let tables = Tables::read();
    let sees = |table: &Table| table.mounts.iter().any(|mount| mount.device == device);
    let pids = tables.others().filter(|(_, table)| sees(table)).map(|(_, table)| table.pid);
    let named = |pid| Some(format!("{} (process {pid})", processes::command_of_pid(pid)?));
    pids.filter_map(named).collect()
}

fn ends_within(server: &OwnedFd, patience: &Timespec) -> bool {
    let mut ends = [PollFd::new(server, PollFlags::IN)];
    loop {
        match poll(&mut ends, Some(patience)) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => return false,
            Ok(_) | Err(_) => return true,
        }
    }
}

fn io_cause(error: &UnmountError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn cannot(point: &Path, cause: impl std::fmt::Display, hint: impl std::fmt::Display) -> Failure {
    Failure::new(format!("cannot unmount {}", point.display()), cause, hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::Use;

    #[test]
    fn those_who_keep_it_busy_are_named() {
        let user = |pid| User {
            pid,
            command: "bash".into(),
            has: Use::WorkingDirectory,
            path: "/m/d".into(),
        };
        let text = busy(Path::new("/m"), &(1..=7).map(user).collect::<Vec<_>>()).to_string();
        assert!(text.contains("bash (process 1: working directory /m/d)"), "{text}");
        assert!(text.contains("2 more"), "{text}");
    }

    #[test]
    fn a_mount_point_is_written_as_the_kernel_does() {
        assert_eq!(point_of(Path::new("/proc/../proc")).unwrap(), Path::new("/proc"));
        assert!(point_of(Path::new("/nothing/here")).is_err());
    }
}
