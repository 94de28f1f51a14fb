//! Where a view is to be, and what stands against it.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use gate_api::mounts::{self, Mount};
use gate_api::wire::PrivateLine;
use gate_core::fold::fold;
use gate_fuse::is_of_dead;
use rustix::fs::Access;
use rustix::io::Errno;

use crate::background;
use crate::failure::{Exit, Failure};
use crate::processes;

/// Bytes of a mount point that go into the name of its log file, of which a name has 255 at most.
const LOG_NAME_BYTES_MAX: usize = 200;

/// A source and a mount point that go together; both absolute and free of links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub source: PathBuf,
    pub mountpoint: PathBuf,
}

impl Site {
    /// Finds both; without a mount point the view lies over its source.
    pub fn find(source: &Path, mountpoint: Option<&Path>) -> Result<Site, Failure> {
        let unusable = |error: io::Error| unreachable_source(source, &error);
        let absolute = source.canonicalize().map_err(unusable)?;
        let Some(point) = mountpoint else { return Ok(Site::in_place(absolute)) };
        let mountpoint = point.canonicalize().map_err(|e| unreachable_mountpoint(point, &e))?;
        if mountpoint == absolute {
            return Ok(Site::in_place(absolute));
        }
        if !absolute.metadata().map_err(unusable)?.is_dir() {
            return Err(cannot_show(source, "it is no directory", "give a directory"));
        }
        let site = Site { source: absolute, mountpoint };
        match site.mountpoint.metadata() {
            Ok(found) if found.is_dir() => Ok(site),
            Ok(_) => Err(cannot_mount_at(point, "it is no directory", "give an empty directory")),
            Err(error) if is_of_dead(&error) && site.has_view()? => Ok(site),
            Err(error) => Err(unreachable_mountpoint(point, &error)),
        }
    }

    fn in_place(source: PathBuf) -> Site {
        Site { mountpoint: source.clone(), source }
    }

    /// Returns the mount point as one name, for a log file. What is long, or shows otherwise than it is, is
    /// told from others by a hash of it.
    pub fn log_name(&self) -> String {
        let bytes = self.mountpoint.as_os_str().as_bytes();
        let mut name = background::name_of(&self.mountpoint);
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._".contains(byte);
        if name.len() > LOG_NAME_BYTES_MAX || !bytes.iter().all(is_plain) {
            name.truncate(name.floor_char_boundary(LOG_NAME_BYTES_MAX));
            name = format!("{name}-{:016x}", fold(bytes));
        }
        name
    }

    /// Returns whether the view is to lie over its own source.
    pub fn is_in_place(&self) -> bool {
        self.source == self.mountpoint
    }

    /// Returns whether a view of the source is mounted there already.
    pub fn has_view(&self) -> Result<bool, Failure> {
        let point = &self.mountpoint;
        let mounted = mounts::at(point)
            .map_err(|error| cannot_mount_at(point, error, "is /proc mounted?"))?;
        Ok(mounted.is_some_and(|mount| mount.is_gated && mount.source == self.source))
    }

    /// Checks that the one does not lie in the other.
    pub fn check_overlap(&self) -> Result<(), Failure> {
        let Site { source, mountpoint } = self;
        let cause = match (mountpoint.starts_with(source), source.starts_with(mountpoint)) {
            (false, false) => return Ok(()),
            (true, _) => format!("it lies in the source, {}", source.display()),
            (false, true) => format!("the source, {}, lies in it", source.display()),
        };
        Err(cannot_mount_at(mountpoint, cause, "choose a mount point beside the source"))
    }

    /// Checks that the source is not what a view shows, nor has one in it: a call would take two
    /// turns then, and wait for itself.
    pub fn check_gated(&self) -> Result<(), Failure> {
        let source = &self.source;
        let table =
            mounts::all().map_err(|error| cannot_show(source, error, "is /proc mounted?"))?;
        let views = || table.iter().filter(|mount| mount.is_gated);
        if let Some(inner) = views().find(|view| is_beneath(&view.point, source)) {
            let point = inner.point.display();
            let cause = format!("there is a view in it, {point}");
            return Err(cannot_show(source, cause, format!("`gate umount {point}` first")));
        }
        match mounts::innermost(&table, source).filter(|mount| mount.is_gated) {
            Some(outer) if outer.point != *source || !self.is_in_place() => {
                let cause = format!("it is in the view {}", outer.point.display());
                Err(cannot_show(source, cause, "work there: turns are taken in it already"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that no view shows what lies at the mount point: its server would walk into this one, as
    /// one more caller that waits, and take turns here for what it has turns for there. Of private views
    /// the broker tells.
    pub fn check_unshown(&self, private: &[PrivateLine]) -> Result<(), Failure> {
        let point = &self.mountpoint;
        let table =
            mounts::all().map_err(|error| cannot_mount_at(point, error, "is /proc mounted?"))?;
        // What is mounted on a view is seen by no server: they all look behind it.
        if mounts::innermost(&table, point).is_some_and(|mount| mount.is_gated) {
            return Ok(());
        }
        let shows_it = |mount: &&Mount| mount.is_gated && is_beneath(point, &mount.source);
        if let Some(Mount { point: other, source, .. }) = table.iter().find(shows_it) {
            let inner = other.join(point.strip_prefix(source).unwrap_or(point));
            let (other, inner) = (other.display(), inner.display());
            let cause = format!("the view {other} shows what lies there");
            let hint = format!("work in {inner}, or `gate umount {other}` first");
            return Err(cannot_mount_at(point, cause, hint));
        }
        let shows_it = |line: &&PrivateLine| {
            // The broker's clients may be on other machines.
            is_beneath(point, OsStr::from_bytes(&line.view.source).as_ref())
                && processes::is_of_gate(line.pid)
        };
        match private.iter().find(shows_it) {
            Some(PrivateLine { view, .. }) => {
                let cause = format!("the private view of {} shows what lies there", view.agent);
                Err(cannot_mount_at(point, cause, "mount it when that run has ended"))
            }
            None => Ok(()),
        }
    }

    /// Checks that this user may look into the source, by a path that leads there past any view.
    pub fn check_open(&self, bare: &Path) -> Result<(), Failure> {
        match rustix::fs::access(bare, Access::EXEC_OK) {
            Err(Errno::ACCESS) => {
                let hint = "mount it as a user who may, or as root";
                Err(cannot_show(&self.source, "this user may not look into it", hint))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Checks that the view would not show what Gate itself writes.
    pub fn check_state(&self, state_dir: &Path) -> Result<(), Failure> {
        // A directory that does not exist yet lies where its parent says.
        let state_dir = crate::seen::resolve(state_dir).unwrap_or_else(|_| state_dir.to_owned());
        if state_dir.starts_with(&self.mountpoint) && !self.is_in_place() {
            let cause = format!("Gate's own state, {}, would lie in it", state_dir.display());
            let hint = "choose another mount point, or keep the state elsewhere: --state-dir";
            return Err(cannot_mount_at(&self.mountpoint, cause, hint));
        }
        let cause = match (state_dir.starts_with(&self.source), self.source.starts_with(&state_dir))
        {
            (false, false) => return Ok(()),
            (true, _) => format!("it holds Gate's own state, {}", state_dir.display()),
            (false, true) => format!("it lies in Gate's own state, {}", state_dir.display()),
        };
        let hint = "choose another source, or keep the state elsewhere: --state-dir";
        Err(cannot_show(&self.source, cause, hint))
    }

    /// Checks that nothing is there yet.
    pub fn check_vacant(&self) -> Result<(), Failure> {
        let point = &self.mountpoint;
        let mounted = mounts::at(point)
            .map_err(|error| cannot_mount_at(point, error, "is /proc mounted?"))?;
        if let Some(mount) = mounted {
            let hint = match mount.is_gated {
                true => format!("use it, or `gate umount {}`", point.display()),
                false => "choose an empty directory".to_owned(),
            };
            let cause = format!("{} is mounted there already", mount.source.display());
            return Err(cannot_mount_at(point, cause, hint));
        }
        match fs::read_dir(point).map(|mut entries| entries.next().is_some()) {
            Ok(true) => {
                let hint = "choose an empty directory: the view would hide what is there";
                Err(cannot_mount_at(point, "it is not empty", hint))
            }
            // Whether this user may mount there is for the kernel to say.
            Ok(false) | Err(_) => Ok(()),
        }
    }
}

fn is_beneath(path: &Path, top: &Path) -> bool {
    path != top && path.starts_with(top)
}

fn unreachable_source(source: &Path, error: &io::Error) -> Failure {
    if is_of_dead(error) {
        let cause = "a view that lies over it, or above, has died";
        return cannot_show(source, cause, "`gate doctor` tells which, and what to type");
    }
    cannot_show(source, error, "give an existing directory")
}

fn unreachable_mountpoint(point: &Path, error: &io::Error) -> Failure {
    let is_view = || {
        let mounted = std::path::absolute(point).and_then(|point| mounts::at(&point));
        mounted.is_ok_and(|mount| mount.is_some_and(|mount| mount.is_gated))
    };
    let shown = point.display();
    let elsewhere = "choose a mount point of your own";
    match error.kind() {
        io::ErrorKind::NotFound => {
            cannot_mount_at(point, error, format!("make it: `mkdir -p {shown}`"))
        }
        _ if is_of_dead(error) => {
            let hint = format!("`gate umount {shown}` removes it, then mount again");
            cannot_mount_at(point, "the view that was mounted there has died", hint)
        }
        io::ErrorKind::PermissionDenied if is_view() => {
            cannot_mount_at(point, "another user's view is mounted there", elsewhere)
        }
        io::ErrorKind::PermissionDenied => {
            let cause = "a directory on the way there may not be searched by this user";
            cannot_mount_at(point, cause, elsewhere)
        }
        _ => cannot_mount_at(point, error, "check the path"),
    }
}

pub fn cannot_show(source: &Path, cause: impl Display, hint: impl Display) -> Failure {
    Failure::new(format!("cannot mount {}", source.display()), cause, hint).exit(Exit::Unable)
}

fn cannot_mount_at(point: &Path, cause: impl Display, hint: impl Display) -> Failure {
    Failure::new(format!("cannot mount at {}", point.display()), cause, hint).exit(Exit::Unable)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fresh directory with `source/inner` and `view`.
    struct Home(PathBuf);

    impl Home {
        fn new(name: &str) -> Home {
            let home =
                std::env::temp_dir().join(format!("gate-site-{}-{name}", std::process::id()));
            fs::create_dir_all(home.join("source/inner")).unwrap();
            fs::create_dir_all(home.join("view")).unwrap();
            Home(home.canonicalize().unwrap())
        }

        fn site(&self, source: &str, point: &str) -> Result<Site, Failure> {
            Site::find(&self.0.join(source), Some(&self.0.join(point)))
        }

        #[track_caller]
        fn refused(&self, source: &str, point: &str) -> String {
            let site = self.site(source, point);
            let checked = site.and_then(|site| site.check_overlap().and(site.check_vacant()));
            checked.unwrap_err().to_string()
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_cannot_be_mounted_is_told_with_its_reason() {
        let home = Home::new("told");
        fs::write(home.0.join("file"), "").unwrap();
        for (source, point, cause) in [
            ("none", "view", "No such file"),
            ("file", "view", "no directory"),
            ("source", "none", "mkdir -p"),
            ("source", "file", "no directory"),
            ("source", "source/inner", "lies in the source"),
            ("source/inner", "source", "lies in it"),
            ("view", "source", "not empty"),
        ] {
            let text = home.refused(source, point);
            assert!(text.contains(cause), "{source} at {point}: {text}");
        }
        assert!(home.site("source", "view").unwrap().check_vacant().is_ok());
        let site = home.site("source", "source").unwrap();
        assert!(site.is_in_place());
        assert_eq!(site, Site::find(&home.0.join("view/../source"), None).unwrap());
    }

    #[test]
    fn a_log_file_is_named_for_its_mount_point_however_long_that_is() {
        let name = |point: &str| Site { source: "/s".into(), mountpoint: point.into() }.log_name();
        assert_eq!(name("/mnt/my-repo/x.y"), "mnt-my-repo-x.y");
        assert_ne!(name("/mnt/a b"), name("/mnt/a-b"));
        let long = |last: char| format!("/mnt/{}{last}", "é".repeat(126));
        assert_ne!(name(&long('a')), name(&long('b')));
        assert!(name(&long('a')).len() < 230, "{}", name(&long('a')));
    }

    #[test]
    fn gates_own_state_is_not_shown() {
        let home = Home::new("state");
        let site = home.site("source", "view").unwrap();
        assert!(site.check_state(&home.0.join("state")).is_ok());
        for state_dir in ["source", "source/inner", "source/none", "", "view", "view/none"] {
            let outcome = site.check_state(&home.0.join(state_dir));
            assert!(outcome.unwrap_err().to_string().contains("own state"), "{state_dir}");
        }
    }
}
