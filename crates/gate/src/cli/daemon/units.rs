//! `gate daemon install` and `uninstall`: the units by which systemd keeps a daemon running.
//!
//! What is written ends with a mark of its own text, so that a file that somebody changed is told from one
//! that an earlier release wrote. Why the units say so little: docs/decisions/units-see-all-mounts.md.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use gate_core::fold::fold;

use crate::daemon::SOCKET_NAME;
use crate::failure::{Exit, Failure};
use crate::output;

/// Before the mark in the last line.
const MARK_HEAD: &str = "# As written: ";

#[derive(Debug, clap::Args)]
pub struct Flags {
    /// The units of this user's daemon: install, uninstall [default: unless this is root]
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// The units of the system's daemon: install, uninstall [default: if this is root]
    #[arg(long)]
    system: bool,
    /// Write a unit to the standard output, and nowhere else: install [default: service]
    #[arg(long, value_name = "UNIT", num_args = 0..=1, require_equals = true, default_missing_value = "service")]
    print: Option<Kind>,
    /// Also if somebody changed a unit, or it is enabled: install, uninstall
    #[arg(long)]
    force: bool,
    /// The program that the unit runs [default: this one]
    #[arg(long, value_name = "PATH", hide = true)]
    program: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// What runs the daemon.
    Service,
    /// What starts it when somebody asks its REST interface.
    Socket,
}

/// Whose daemon it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    System,
    User,
}

impl Flags {
    /// Returns whether any of them is given.
    pub fn are_given(&self) -> bool {
        self.user || self.system || self.print.is_some() || self.force || self.program.is_some()
    }

    /// Writes the units, and says what to type next.
    pub fn install(&self, options: &[(&str, OsString)]) -> Result<Exit, Failure> {
        let whose = self.whose();
        let program = self.program.clone().map_or_else(std::env::current_exe, Ok);
        let program = program.map_err(|error| {
            Failure::new("cannot tell where this program is", error, "is /proc mounted?")
        })?;
        let text = |kind| match kind {
            Kind::Service => marked(&service(whose, &program, options)),
            Kind::Socket => marked(&socket(whose, options)),
        };
        if let Some(kind) = self.print {
            output::print(&text(kind))?;
            return Ok(Exit::Success);
        }
        let dir = dir(whose)?;
        let units = Kind::ALL.map(|kind| (dir.join(kind.name()), text(kind)));
        let mut done = Vec::new();
        for (path, text) in &units {
            let there = there(path)?;
            if let Some(there) = &there
                && there != text
                && !is_as_written(there)
                && !self.force
            {
                return Err(changed(path, "`gate daemon install --force` replaces it"));
            }
            done.push(match there {
                Some(there) if there == *text => "is there already",
                Some(_) => "is replaced",
                None => "is written",
            });
        }
        for ((path, text), done) in units.iter().zip(&done) {
            write(path, text).map_err(|error| cannot("write", path, &error))?;
            output::print(&format!("{} {done}\n", path.display()))?;
        }
        let systemctl = whose.systemctl();
        output::print(&match done.contains(&"is replaced") {
            true => format!("next: `{systemctl} daemon-reload`\n"),
            false => format!(
                "next: `{systemctl} enable --now gate`, or `… gate.socket`: it starts when it is asked\n"
            ),
        })?;
        Ok(Exit::Success)
    }

    /// Takes the units away that were installed.
    pub fn uninstall(&self) -> Result<Exit, Failure> {
        let whose = self.whose();
        let dir = dir(whose)?;
        let mut all = Vec::new();
        for kind in Kind::ALL {
            let path = dir.join(kind.name());
            let Some(there) = there(&path)? else { continue };
            if !is_as_written(&there) && !self.force {
                return Err(changed(&path, "`gate daemon uninstall --force` removes it"));
            }
            let wanted = dir.join(format!("{}.wants", kind.target(whose))).join(kind.name());
            if wanted.symlink_metadata().is_ok() && !self.force {
                let hint = format!("`{} disable --now {}` first", whose.systemctl(), kind.name());
                let what = format!("cannot remove {}", path.display());
                return Err(Failure::new(what, "it is enabled", hint));
            }
            all.push(path);
        }
        if all.is_empty() {
            output::print(&format!("there is no {}\n", dir.join(Kind::Service.name()).display()))?;
            return Ok(Exit::Success);
        }
        for path in all {
            fs::remove_file(&path).map_err(|error| cannot("remove", &path, &error))?;
            output::print(&format!("{} is removed\n", path.display()))?;
        }
        output::print(&format!("next: `{} daemon-reload`\n", whose.systemctl()))?;
        Ok(Exit::Success)
    }

    /// Returns whose unit is meant.
    pub fn whose(&self) -> Whose {
        match (self.system, self.user) {
            (true, _) => Whose::System,
            (_, true) => Whose::User,
            _ => Whose::own(),
        }
    }
}

impl Whose {
    /// Returns that of whoever runs this.
    pub fn own() -> Whose {
        if rustix::process::geteuid().is_root() { Whose::System } else { Whose::User }
    }

    /// Returns the command that manages it.
    pub fn systemctl(self) -> &'static str {
        match self {
            Whose::System => "systemctl",
            Whose::User => "systemctl --user",
        }
    }
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Service, Kind::Socket];

    fn name(self) -> &'static str {
        match self {
            Kind::Service => "gate.service",
            Kind::Socket => "gate.socket",
        }
    }

    fn target(self, whose: Whose) -> &'static str {
        match (self, whose) {
            (Kind::Socket, _) => "sockets.target",
            (Kind::Service, Whose::System) => "multi-user.target",
            (Kind::Service, Whose::User) => "default.target",
        }
    }
}

fn service(whose: Whose, program: &Path, options: &[(&str, OsString)]) -> String {
    let program = quoted(program.as_os_str());
    let options = options.iter().map(|(flag, value)| {
        let value = quoted(value).replace('$', "$$");
        format!(" {flag} {value}")
    });
    let options = options.collect::<String>();
    let hardening = match whose {
        Whose::System => HARDENING_OF_SYSTEM,
        Whose::User => "",
    };
    let target = Kind::Service.target(whose);
    format!(
        "# Written by `gate daemon install`; `systemctl edit` adds to it and keeps it as it is.\n\
         [Unit]\n\
         Description=Gate: who takes a turn, and the mounts that are kept\n\
         Documentation=man:gate-daemon(1)\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={program} daemon run{options}\n\
         # Views stay when the daemon ends: the next one finds them.\n\
         KillMode=process\n\
         Restart=on-failure\n\
         RestartSec=1\n\
         LimitNOFILE=524288\n\
         # Nothing here may give it mounts of its own (ProtectSystem=, PrivateTmp=, ...): nobody else\n\
         # would see its views.\n\
         {hardening}\
         \n\
         [Install]\n\
         WantedBy={target}\n"
    )
}

/// Only of the interface for programs: views that look for their broker are to find none where it was stopped.
fn socket(whose: Whose, options: &[(&str, OsString)]) -> String {
    let named = options.iter().find(|(flag, _)| *flag == "--state-dir");
    let state_dir = match (named, whose) {
        // One word, whatever is in it.
        (Some((_, dir)), _) => dir.display().to_string().replace('%', "%%"),
        (None, Whose::System) => "/var/lib/gate".to_owned(),
        (None, Whose::User) => "%h/.local/state/gate".to_owned(),
    };
    let target = Kind::Socket.target(whose);
    format!(
        "# Written by `gate daemon install`; `systemctl edit` adds to it and keeps it as it is.\n\
         [Unit]\n\
         Description=Gate: starts the daemon when its REST interface is asked\n\
         Documentation=man:gate-daemon(1)\n\
         \n\
         [Socket]\n\
         ListenStream={state_dir}/{SOCKET_NAME}\n\
         SocketMode=0600\n\
         DirectoryMode=0700\n\
         \n\
         [Install]\n\
         WantedBy={target}\n"
    )
}

/// What neither a view nor a broker needs. A user's daemon has none of these rights, and any of the others would
/// keep it from `fusermount3`.
const HARDENING_OF_SYSTEM: &str = "\
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
CapabilityBoundingSet=~CAP_AUDIT_CONTROL CAP_AUDIT_WRITE CAP_BPF CAP_NET_ADMIN CAP_NET_RAW
CapabilityBoundingSet=~CAP_SYSLOG CAP_SYS_BOOT CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_TIME CAP_WAKE_ALARM
";

/// Writes a text as one word of ExecStart=.
fn quoted(word: &OsStr) -> String {
    let word = word.display().to_string();
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

fn marked(text: &str) -> String {
    format!("{text}{MARK_HEAD}{:016x}\n", fold(text.as_bytes()))
}

/// Returns whether nobody changed a text since it was written.
fn is_as_written(text: &str) -> bool {
    text.rfind(MARK_HEAD).is_some_and(|at| marked(&text[..at]) == text)
}

fn dir(whose: Whose) -> Result<PathBuf, Failure> {
    match whose {
        Whose::System => Ok(PathBuf::from("/etc/systemd/system")),
        Whose::User => {
            crate::config::user_base().map(|base| base.join("systemd/user")).ok_or_else(|| {
                let cause = "neither XDG_CONFIG_HOME nor HOME is set";
                Failure::new("cannot tell where units are", cause, "set HOME").exit(Exit::Unable)
            })
        }
    }
}

fn there(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("read", path, &error)),
    }
}

/// Puts the whole file there, or nothing.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().expect("a unit lies in a directory");
    fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

fn changed(path: &Path, hint: &str) -> Failure {
    let what = format!("{} stays as it is", path.display());
    Failure::new(what, "somebody changed it, or wrote it", hint)
}

fn cannot(verb: &str, path: &Path, error: &dyn Display) -> Failure {
    let hint = "as root for the system's daemon; `--user` is for this user's";
    Failure::new(format!("cannot {verb} {}", path.display()), error, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_from_another_release() {
        let text = marked("[Unit]\n");
        assert!(is_as_written(&text));
        assert!(is_as_written(&marked("[Unit]\nof another release\n")));
        assert!(!is_as_written(&text.replace("Unit", "unit")));
        assert!(!is_as_written(&format!("{text}Nice=5\n")));
        assert!(!is_as_written("[Unit]\n"));
    }

    #[test]
    fn a_text_is_one_word() {
        let text =
            service(Whose::User, Path::new("/a b/gate"), &[("--state-dir", "/x\"%$y".into())]);
        assert!(
            text.contains("ExecStart=\"/a b/gate\" daemon run --state-dir \"/x\\\"%%$$y\"\n"),
            "{text}"
        );
    }

    /// A mount namespace of its own would hide its views from everybody else.
    #[test]
    fn no_service_has_mounts_of_its_own() {
        for whose in [Whose::System, Whose::User] {
            let text = service(whose, Path::new("/usr/bin/gate"), &[]);
            let settings = text.lines().filter(|line| !line.starts_with('#'));
            for setting in settings {
                let apart = [
                    "Protect",
                    "Private",
                    "ReadOnly",
                    "Inaccessible",
                    "Bind",
                    "Root",
                    "Mount",
                    "Device",
                ];
                assert!(!apart.iter().any(|head| setting.starts_with(head)), "{setting}");
            }
        }
    }
}
