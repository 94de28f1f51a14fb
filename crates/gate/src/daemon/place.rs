//! Where a configured mount is to be: what can be told before it is ever started.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use gate_fuse::is_of_dead;

use super::refusal::{Kind, Refusal};

/// The mode of a mount point that is made.
const PRIVATE: u32 = 0o700;

/// Returns the directory behind a view, free of links.
pub fn source(path: &Path) -> Result<PathBuf, Refusal> {
    let shown = path.display();
    absolute(path, "source")?;
    let found = path.canonicalize().map_err(|error| {
        invalid(format!("the source {shown} cannot be used: {error}"), "give an existing directory")
    })?;
    match found.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(found),
        // A view may lie over it, and be dead: what is behind that is a directory.
        Err(error) if is_of_dead(&error) => Ok(found),
        Ok(_) => Err(invalid(format!("the source {shown} is no directory"), "give a directory")),
        Err(error) => {
            let hint = "make it readable for the user of the daemon";
            Err(invalid(format!("the source {shown} cannot be used: {error}"), hint))
        }
    }
}

/// Returns a mount point, free of links; makes it if nothing is there. What it made is the second.
pub fn point(path: &Path, source: &Path) -> Result<(PathBuf, Option<Made>), Refusal> {
    point_where(path, |point| check_beside(point, source))
}

/// As [`point`], for what lies in the state of a daemon: that is not to be hidden.
pub fn point_outside(path: &Path, state_dir: &Path) -> Result<(PathBuf, Option<Made>), Refusal> {
    point_where(path, |point| match point.starts_with(state_dir) || state_dir.starts_with(point) {
        false => Ok(()),
        true => {
            let text =
                format!("Gate's own state, {}, would lie in it or beneath", state_dir.display());
            Err(invalid(text, "choose another mount point"))
        }
    })
}

fn point_where(
    path: &Path,
    check: impl Fn(&Path) -> Result<(), Refusal>,
) -> Result<(PathBuf, Option<Made>), Refusal> {
    let shown = path.display();
    absolute(path, "mount_point")?;
    let unusable = |error: io::Error| {
        let hint = "give a directory that is there, or can be made";
        invalid(format!("the mount point {shown} cannot be used: {error}"), hint)
    };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = first_existing(path).canonicalize().map_err(unusable)?;
            check(&parent.join(beneath(path)))?;
            let made = Made::new(path).map_err(unusable)?;
            Ok((path.canonicalize().map_err(unusable)?, Some(made)))
        }
        Err(error) if !is_of_dead(&error) => Err(unusable(error)),
        Ok(_) | Err(_) => {
            let found = path.canonicalize().map_err(unusable)?;
            let is_file = found.metadata().is_ok_and(|metadata| !metadata.is_dir());
            if is_file {
                let text = format!("the mount point {shown} is no directory");
                return Err(invalid(text, "give an empty directory"));
            }
            check(&found)?;
            Ok((found, None))
        }
    }
}

/// Directories that were made for a mount point, and go again if it comes to nothing.
#[derive(Debug)]
pub struct Made(Vec<PathBuf>);

impl Made {
    fn new(path: &Path) -> io::Result<Made> {
        let missing = path.ancestors().take_while(|dir| dir.symlink_metadata().is_err());
        let mut missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        missing.reverse();
        let mut made = Made(Vec::new());
        for dir in missing {
            match DirBuilder::new().mode(PRIVATE).create(&dir) {
                Ok(()) => made.0.push(dir),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    made.undo();
                    return Err(error);
                }
            }
        }
        Ok(made)
    }

    /// Removes them, as far as nobody put something there.
    pub fn undo(self) {
        for dir in self.0.iter().rev() {
            if fs::remove_dir(dir).is_err() {
                return;
            }
        }
    }
}

/// Checks that the one does not lie in the other, unless they are the same.
fn check_beside(point: &Path, source: &Path) -> Result<(), Refusal> {
    let hint = "choose a mount point beside the source, or the source itself";
    match (point == source, point.starts_with(source), source.starts_with(point)) {
        (true, ..) | (_, false, false) => Ok(()),
        (_, true, _) => Err(invalid("the mount point lies in the source", hint)),
        (_, _, true) => Err(invalid("the source lies in the mount point", hint)),
    }
}

fn absolute(path: &Path, field: &str) -> Result<(), Refusal> {
    match path.is_absolute() {
        true => Ok(()),
        false => {
            let text = format!("{field} is no absolute path: `{}`", path.display());
            Err(invalid(text, "begin it with a /"))
        }
    }
}

fn first_existing(path: &Path) -> &Path {
    path.ancestors().find(|dir| dir.symlink_metadata().is_ok()).unwrap_or(Path::new("/"))
}

fn beneath(path: &Path) -> &Path {
    path.strip_prefix(first_existing(path)).unwrap_or(path)
}

fn invalid(message: impl std::fmt::Display, hint: &str) -> Refusal {
    Refusal::new(Kind::Invalid, message, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_made_if_it_is_missing_and_goes_again() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        fs::create_dir(home.join("source")).unwrap();
        let source = source(&home.join("source/.")).unwrap();
        assert_eq!(source, home.join("source"));
        let (found, made) = point(&home.join("a/b"), &source).unwrap();
        assert_eq!(found, home.join("a/b"));
        assert!(found.is_dir());
        made.unwrap().undo();
        assert!(!home.join("a").exists());
        let (found, made) = point(&home.join("source"), &source).unwrap();
        assert_eq!((found, made.is_none()), (source, true));
    }

    #[test]
    fn what_cannot_be_is_refused_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        fs::create_dir_all(home.join("top/source/inner")).unwrap();
        fs::write(home.join("file"), "").unwrap();
        let at = |name: &str| home.join(name);
        for (path, why) in [("none", "No such file"), ("file", "no directory")] {
            let refusal = source(&at(path)).unwrap_err();
            assert!(refusal.message.contains(why), "{refusal:?}");
        }
        assert!(source(Path::new("top")).unwrap_err().message.contains("no absolute path"));
        let source = source(&at("top/source")).unwrap();
        for (path, why) in [
            ("top/source/inner", "lies in the source"),
            ("top/source/new/er", "lies in the source"),
            ("top", "the source lies in"),
            ("file", "no directory"),
            ("file/under", "cannot be used"),
        ] {
            let refusal = point(&at(path), &source).unwrap_err();
            assert_eq!(refusal.kind, Kind::Invalid);
            assert!(refusal.message.contains(why), "{path}: {refusal:?}");
        }
        assert_eq!(fs::read_dir(at("top/source")).unwrap().count(), 1);
    }
}
