//! One source, one broker: granular locking of directories by flock.
//!
//! The broker holds the root of each source exclusively and every directory above it shared. So a
//! second broker meets the first whether it comes for the same directory, one above or one below.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;

use gate_api::wire::{Directory, Inode};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// Keeps other brokers away from a source, until it is dropped.
pub(crate) struct SourceLock {
    /// The root's descriptor, and those of the directories above it.
    _directories: Vec<OwnedFd>,
}

/// Somebody else has the source, or one that overlaps.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Its process, if the kernel tells.
    pid: Option<u32>,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(pid) = self.pid else { return f.write_str("another process") };
        write!(f, "process {pid}")?;
        match command_line(pid) {
            Some(command) => write!(f, " (`{command}`)"),
            None => Ok(()),
        }
    }
}

impl SourceLock {
    /// Takes it. `None` where the directory cannot be locked here: it is not where its client sees
    /// it, or a view lies over it, through which this broker would wait for itself.
    pub fn take(directory: &Directory, path: &Path) -> Result<Option<SourceLock>, Taken> {
        let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        if lies_in_fuse(&mounts, path) {
            return Ok(None);
        }
        let Some(root) = open(path, directory.root) else { return Ok(None) };
        let mut directories = vec![];
        lock(&root, directory.root, FlockOperation::NonBlockingLockExclusive)?;
        directories.push(root);
        for (above, (inode, _)) in path.ancestors().skip(1).zip(&directory.above) {
            if let Some(above) = open(above, *inode) {
                lock(&above, *inode, FlockOperation::NonBlockingLockShared)?;
                directories.push(above);
            }
        }
        Ok(Some(SourceLock { _directories: directories }))
    }
}

/// Opens a directory if it is the one that is meant and may be opened.
fn open(path: &Path, inode: Inode) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let directory = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let found = rustix::fs::fstat(&directory).ok()?;
    (found.st_dev == inode.device && found.st_ino == inode.number).then_some(directory)
}

fn lock(directory: &OwnedFd, inode: Inode, how: FlockOperation) -> Result<(), Taken> {
    match rustix::fs::flock(directory, how) {
        Err(Errno::WOULDBLOCK) => {
            let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
            Err(Taken { pid: flock_holder(&locks, inode) })
        }
        // Some file systems have no flock; there brokers cannot meet.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Finds who has a flock on an inode: `1: FLOCK  ADVISORY  WRITE 814 fe:00:4112 0 EOF`.
pub(crate) fn flock_holder(locks: &str, inode: Inode) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(inode.device), rustix::fs::minor(inode.device));
    let file = format!("{major:02x}:{minor:02x}:{}", inode.number);
    let own = std::process::id();
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let at = fields.iter().position(|field| *field == file)?;
        let pid = fields.get(at.checked_sub(1)?)?.parse().ok()?;
        (fields.contains(&"FLOCK") && pid != own && pid != 0).then_some(pid)
    })
}

/// Returns whether the innermost mount a path lies in is a FUSE file system.
fn lies_in_fuse(mountinfo: &[u8], path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let below = |point: &[u8]| path.starts_with(Path::new(std::ffi::OsStr::from_bytes(point)));
    let mounts = mountinfo.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let point = unescape(fields.nth(4)?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        below(&point).then(|| (point.len(), kind.starts_with(b"fuse")))
    });
    // Of two mounts on one point the later one is on top.
    mounts.max_by_key(|(depth, _)| *depth).is_some_and(|(_, fuse)| fuse)
}

/// Undoes the kernel's `\040` for blanks and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    plain
}

fn command_line(pid: u32) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(|word| word.escape_ascii().to_string()).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &Path) -> Directory {
        gate_api::source::directory(path).unwrap()
    }

    fn flock(path: &Path, how: FlockOperation) -> OwnedFd {
        let found = rustix::fs::stat(path).unwrap();
        let fd = open(path, Inode { device: found.st_dev, number: found.st_ino }).unwrap();
        rustix::fs::flock(&fd, how).unwrap();
        fd
    }

    #[test]
    fn a_source_is_locked_against_one_above_below_and_the_same() {
        let home = tempfile::tempdir().unwrap();
        let middle = home.path().join("middle");
        let inner = middle.join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        let take = |path: &Path| SourceLock::take(&directory(path), path);
        let held = take(&middle).unwrap();
        assert!(held.is_some());
        assert!(take(&middle).is_err(), "the same");
        assert!(take(&inner).is_err(), "below");
        assert!(take(home.path()).is_err(), "above");
        drop(held);
        assert!(take(home.path()).unwrap().is_some());
    }

    #[test]
    fn neighbours_do_not_meet() {
        let home = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| home.path().join(name));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&other).unwrap();
        let _one = SourceLock::take(&directory(&one), &one).unwrap();
        assert!(SourceLock::take(&directory(&other), &other).unwrap().is_some());
    }

    #[test]
    fn a_foreign_lock_is_told_by_the_kernel() {
        let home = tempfile::tempdir().unwrap();
        let _held = flock(home.path(), FlockOperation::LockExclusive);
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let inode = directory(home.path()).root;
        let own = std::process::id().to_string();
        let foreign = locks.replace(&own, "4242424");
        assert_eq!(flock_holder(&foreign, inode), Some(4_242_424));
        assert_eq!(flock_holder(&locks, inode), None, "our own is no other broker's");
    }

    #[test]
    fn the_innermost_mount_decides() {
        let mounts = b"22 1 0:1 / / rw - ext4 /dev/vda rw\n\
            30 22 0:40 / /mnt/a\\040b rw shared:1 - fuse.gate gate rw\n\
            31 30 0:41 / /mnt/a\\040b/deep rw - tmpfs tmpfs rw\n";
        assert!(lies_in_fuse(mounts, Path::new("/mnt/a b/c")));
        assert!(!lies_in_fuse(mounts, Path::new("/mnt/a b/deep/c")));
        assert!(!lies_in_fuse(mounts, Path::new("/mnt/a")));
    }
}
