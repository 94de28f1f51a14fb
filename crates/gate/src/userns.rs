//! What stands against user namespaces of ordinary users, in which they may mount.

use std::fmt;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

/// What may help where no such setting is found.
pub const REMEDY_UNKNOWN: &str =
    "allow user namespaces (in a container: its seccomp profile), or be root";

/// A setting that forbids them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// There may be none.
    Most,
    /// Only root may make them: Debian.
    Clone,
    /// Who makes one has no rights in it, unless a profile says so: Ubuntu.
    AppArmor,
}

const MOST: &str = "/proc/sys/user/max_user_namespaces";
const CLONE: &str = "/proc/sys/kernel/unprivileged_userns_clone";
const APPARMOR: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

/// Tries, in a process of its own, whether this user gets one with the right to mount.
pub fn attempt() -> Result<(), Errno> {
    let enter = || {
        // SAFETY: this process is about to become another program, and has one thread.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }?;
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        Ok(())
    };
    let mut command = Command::new("/proc/self/exe");
    command.arg("version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: the closure makes two system calls; it allocates nothing and takes no lock.
    let child = unsafe { command.pre_exec(enter) }.spawn();
    let outcome = child.and_then(|mut child| child.wait());
    outcome.map(drop).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

impl Bar {
    /// Returns what forbids them here, if one of these does.
    pub fn find() -> Option<Bar> {
        Bar::among(|path| fs::read_to_string(path).ok())
    }

    fn among(read: impl Fn(&str) -> Option<String>) -> Option<Bar> {
        let is = |path, value| read(path).is_some_and(|text| text.trim() == value);
        let bars =
            [(MOST, "0", Bar::Most), (CLONE, "0", Bar::Clone), (APPARMOR, "1", Bar::AppArmor)];
        bars.into_iter().find_map(|(path, value, bar)| is(path, value).then_some(bar))
    }

    /// Returns what root may type to take it away.
    pub fn remedy(self) -> String {
        match self {
            Bar::Most => "as root: `sysctl user.max_user_namespaces=10000`".to_owned(),
            Bar::Clone => "as root: `sysctl kernel.unprivileged_userns_clone=1`".to_owned(),
            Bar::AppArmor => {
                let gate = std::env::current_exe().map(|path| path.display().to_string());
                let gate = gate.unwrap_or_else(|_| "gate".to_owned());
                format!(
                    "as root: write `profile gate {gate} flags=(unconfined) {{ userns, }}` to \
                     /etc/apparmor.d/gate and load it with `apparmor_parser -r`"
                )
            }
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bar::Most => "user namespaces are switched off: user.max_user_namespaces is 0",
            Bar::Clone => {
                "only root may make user namespaces: kernel.unprivileged_userns_clone is 0"
            }
            Bar::AppArmor => {
                "AppArmor gives no rights in user namespaces: \
                 kernel.apparmor_restrict_unprivileged_userns is 1"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_them_is_found() {
        let bar = |path: &'static str, value: &'static str| {
            Bar::among(move |asked| (asked == path).then(|| format!("{value}\n")))
        };
        assert_eq!(Bar::among(|_| None), None);
        assert_eq!((bar(MOST, "0"), bar(MOST, "9000")), (Some(Bar::Most), None));
        assert_eq!((bar(CLONE, "0"), bar(CLONE, "1")), (Some(Bar::Clone), None));
        assert_eq!((bar(APPARMOR, "1"), bar(APPARMOR, "0")), (Some(Bar::AppArmor), None));
    }
}
