//! Small files that are there whole or not at all: never half of one, whenever the power fails.
//!
//! A file is written beside its place, synced and renamed into it. They are the user's alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

/// Nobody else reads them.
pub(crate) const MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Writes a file that was not there; one that is stays as it is.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    put(path, bytes, |new| match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
        // Some file systems know no such rename, but all of those know links.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(new, path)?;
            fs::remove_file(new)
        }
        done => Ok(done?),
    })
}

/// Puts a file in the place of one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, |new| fs::rename(new, path))
}

/// Makes a directory that is there with all that is put into it, or not at all.
pub fn make_directory(path: &Path, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let new = beside(path);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = DirBuilder::new().mode(DIRECTORY_MODE).create(&new).and_then(|()| {
        fill(&new)?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, path)
    });
    if made.is_err() {
        let _gone_or_as_it_was = fs::remove_dir_all(&new);
    }
    made?;
    File::open(directory(path))?.sync_all()
}

/// Reads all of a file that may have so many bytes, and one byte more of one that has.
pub fn read(file: &File, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn put(path: &Path, bytes: &[u8], rename: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let directory = directory(path);
    let held = File::open(directory)?;
    // Two who write at once take turns; where directories cannot be locked, the second fails.
    match flock(&held, FlockOperation::LockExclusive) {
        Ok(()) | Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    let new = beside(path);
    // Whoever had the turn before and left this is dead.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let done = write(&new, bytes).and_then(|()| rename(&new));
    if done.is_err() {
        let _gone_or_as_it_was = fs::remove_file(&new);
    }
    done?;
    held.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    // A umask may have taken more away.
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        create(&path, b"first").unwrap();
        assert_eq!(create(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, MODE);
    }

    #[test]
    fn a_symbolic_link_that_leads_nowhere_is_something_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert_eq!(create(&path, b"first").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!directory.path().join("elsewhere").exists());
    }

    #[test]
    fn what_a_crash_left_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(directory.path().join("file.new"), b"half").unwrap();
        create(&path, b"first").unwrap();
        fs::write(directory.path().join("file.new"), b"half").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_any_length_is_read_to_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        create(&path, &[7; 100]).unwrap();
        assert_eq!(read(&File::open(&path).unwrap(), 100).unwrap().len(), 100);
        assert_eq!(read(&File::open(&path).unwrap(), 10).unwrap().len(), 11);
    }
}
