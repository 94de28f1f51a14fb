//! Where it is measured: one directory, bare and as a view shows it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gate_api::mounts;
use rustix::io::Errno;
use tempfile::TempDir;

use super::works::{self, ROOM};
use crate::failure::{Exit, Failure};
use crate::interruption::Interruption;
use crate::seen::{About, Unseen};
use crate::temporary::TemporaryView;

/// What helps where nothing can be made.
const WRITABLE: &str = "be a user who may write there, or give a bare directory";

/// A directory for each, and nothing of them left when this is dropped.
pub struct Places {
    /// The directory that was meant, bare.
    pub source: PathBuf,
    /// The same in a view; `None` if there was none.
    pub view: Option<PathBuf>,
    /// Where to work: bare, and in the view.
    pub dirs: [PathBuf; 2],
    /// Both lie in it. It is made and removed on the bare side, which never waits for a turn.
    _scratch: TempDir,
    /// Ends last.
    _own: Option<TemporaryView>,
}

impl Places {
    /// Finds the bare side of a directory in a view, or mounts a view in a bare one.
    pub fn find(dir: &Path, interruption: &Interruption) -> Result<Places, Failure> {
        let absolute = dir
            .canonicalize()
            .map_err(|error| unusable(dir, &error, "give a directory").exit(Exit::Unable))?;
        let found = absolute.metadata().map_err(|error| {
            unusable(dir, &error, "be a user who may look there: the one who mounted the view")
        })?;
        if !found.is_dir() {
            let error = Errno::NOTDIR.into();
            return Err(unusable(dir, &error, "give a directory").exit(Exit::Unable));
        }
        match About::of(&absolute) {
            Ok(about) => Places::in_view(&about, absolute, dir, interruption),
            Err(Unseen::NotGated) => Places::in_bare(&absolute, interruption),
            Err(unseen) => Err(unseen.failure(dir)),
        }
    }

    /// Makes what the work needs.
    pub fn prepare(&self, interruption: &Interruption) -> Result<(), Failure> {
        for dir in &self.dirs {
            works::prepare(dir).map_err(|error| self.unusable(&error))?;
            for file in works::listed(dir) {
                interruption.check()?;
                fs::File::create_new(file).map_err(|error| self.unusable(&error))?;
            }
        }
        Ok(())
    }

    /// Says why they cannot be worked in.
    pub fn unusable(&self, error: &io::Error) -> Failure {
        let meant = self.view.as_ref().unwrap_or(&self.source);
        unusable(meant, error, "`gate doctor` looks for what is wrong")
    }

    fn in_view(
        about: &About,
        view: PathBuf,
        dir: &Path,
        interruption: &Interruption,
    ) -> Result<Places, Failure> {
        let Ok(inner) = view.strip_prefix(&about.mountpoint) else {
            return Err(Unseen::NotGated.failure(dir));
        };
        let (source, bare) = (about.source.join(inner), about.bare().join(inner));
        check_room(&bare)?;
        let (scratch, dirs) = make(&bare, &view, interruption)?;
        Ok(Places { source, view: Some(view), dirs, _scratch: scratch, _own: None })
    }

    fn in_bare(dir: &Path, interruption: &Interruption) -> Result<Places, Failure> {
        if let Some(view) = view_of(dir) {
            let what = format!("{} is behind a view", dir.display());
            let cause = "a view of a part of it would be a second gate";
            let hint = format!("measure that view: `gate bench {}`", view.display());
            return Err(Failure::new(what, cause, hint).exit(Exit::Unable));
        }
        check_room(dir)?;
        let own = TemporaryView::mount_in(dir)?;
        let (scratch, dirs) = make(&own.source(), &own.point(), interruption)?;
        let source = dir.to_owned();
        Ok(Places { source, view: None, dirs, _scratch: scratch, _own: Some(own) })
    }
}

/// Makes a directory in a source, and in it one to work in bare and one to work in through a view.
fn make(
    source: &Path,
    view: &Path,
    interruption: &Interruption,
) -> Result<(TempDir, [PathBuf; 2]), Failure> {
    let made = tempfile::Builder::new().prefix(".gate-bench-").tempdir_in(source);
    let scratch = made.map_err(|error| unusable(source, &error, WRITABLE))?;
    interruption.remove_at_worst(scratch.path());
    let name = scratch.path().file_name().expect("it was made with a name");
    // In another mount namespace the same path may lead elsewhere.
    if !view.join(name).is_dir() {
        let what = format!("cannot find the bare side of {}", view.display());
        let cause = format!("{} is not what it shows", source.display());
        let hint = "measure where the view was mounted, not in a container beside it";
        return Err(Failure::new(what, cause, hint));
    }
    let dirs = [scratch.path().join("bare"), view.join(name).join("view")];
    for dir in &dirs {
        fs::create_dir(dir).map_err(|error| unusable(dir, &error, WRITABLE))?;
    }
    Ok((scratch, dirs))
}

/// Returns where a view shows a bare directory.
fn view_of(dir: &Path) -> Option<PathBuf> {
    let views = mounts::all().ok()?.into_iter().filter(|mount| mount.is_gated);
    let mut shown =
        views.filter_map(|mount| Some(mount.point.join(dir.strip_prefix(&mount.source).ok()?)));
    shown.next()
}

fn check_room(dir: &Path) -> Result<(), Failure> {
    let cannot = |errno: Errno| unusable(dir, &errno.into(), "look at its disk");
    // What has no size, as /proc, has no room either way: that it cannot be written is the reason.
    if let Err(error) = tempfile::tempfile_in(dir) {
        let what = format!("cannot measure in {}", dir.display());
        let cause = format!("it cannot be written: {error}");
        return Err(Failure::new(what, cause, WRITABLE));
    }
    let disk = rustix::fs::statvfs(dir).map_err(cannot)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= 2 * ROOM || disk.f_blocks == 0 {
        return Ok(());
    }
    let what = format!("cannot measure in {}", dir.display());
    let cause = format!("{} MiB are free, and it takes {}", free >> 20, (2 * ROOM) >> 20);
    Err(Failure::new(what, cause, "make room, or give a directory of another disk"))
}

fn unusable(dir: &Path, error: &io::Error, hint: &str) -> Failure {
    Failure::new(format!("cannot measure in {}", dir.display()), error, hint)
}
