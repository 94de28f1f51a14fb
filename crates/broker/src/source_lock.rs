//! One source, one broker: granular locking of directories by flock.
//!
//! The broker holds the root of each source exclusively and every directory above it shared. So a
//! second broker meets the first whether it comes for the same directory, one above or one below;
//! and a broker meets itself where a part of one of its sources is mounted elsewhere, too: locks on
//! paths would not meet there.
//!
//! What cannot be opened, or has no such locks, is a gap: a broker that comes that way is not met.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gate_api::mounts::{self, Mount, innermost};
use gate_api::wire::{Directory, Inode};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// How often the kernel is asked who has a lock.
const LOOKS: u32 = 4;

/// Keeps other brokers away from a source, until it is dropped.
#[derive(Default)]
pub(crate) struct SourceLock {
    /// The root's descriptor, and those of the directories above it.
    directories: Vec<OwnedFd>,
    gap: Option<Gap>,
}

/// The first directory that could not be locked, and why.
#[derive(Debug)]
pub(crate) struct Gap {
    path: PathBuf,
    why: String,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { path, why } = self;
        write!(f, "{} cannot be locked against other brokers: {why}", path.display())
    }
}

/// Somebody else has the source, or one that overlaps.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Another broker; its process, if the kernel tells.
    ByAnother(Option<u32>),
    /// This one serves it by another path.
    ByThis,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid = match self {
            Taken::ByThis => return f.write_str("this broker by another path, or overlaps that"),
            Taken::ByAnother(None) => return f.write_str("another process"),
            Taken::ByAnother(Some(pid)) => pid,
        };
        write!(f, "process {pid}")?;
        match command_line(*pid) {
            Some(command) => write!(f, " (`{command}`)"),
            None => Ok(()),
        }
    }
}

impl SourceLock {
    /// Takes it as far as it can be taken. `None` where a view lies over it, through which this
    /// broker would wait for itself.
    pub fn take(directory: &Directory, path: &Path) -> Result<Option<SourceLock>, Taken> {
        let mounts = mounts::all().unwrap_or_default();
        if innermost(&mounts, path).is_some_and(Mount::is_fuse) {
            return Ok(None);
        }
        let mut taken = SourceLock::default();
        taken.add(path, directory.root, FlockOperation::NonBlockingLockExclusive)?;
        for (above, (inode, _)) in path.ancestors().skip(1).zip(&directory.above) {
            taken.add(above, *inode, FlockOperation::NonBlockingLockShared)?;
        }
        for above in above_elsewhere(&mounts, path) {
            if let Ok(inode) = inode_of(&above) {
                taken.add(&above, inode, FlockOperation::NonBlockingLockShared)?;
            }
        }
        Ok(Some(taken))
    }

    /// Returns where another broker would not be met.
    pub fn gap(&self) -> Option<&Gap> {
        self.gap.as_ref()
    }

    fn add(&mut self, path: &Path, inode: Inode, how: FlockOperation) -> Result<(), Taken> {
        let locked = match open(path, inode) {
            Ok(directory) => lock(&directory, inode, how)?.map(|()| directory),
            Err(why) => Err(why),
        };
        match locked {
            Ok(directory) => self.directories.push(directory),
            Err(why) => drop(self.gap.get_or_insert(Gap { path: path.to_owned(), why })),
        }
        Ok(())
    }
}

/// Opens a directory if it is the one that is meant and may be opened; or says why not.
fn open(path: &Path, inode: Inode) -> Result<OwnedFd, String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(text)?;
    let found = rustix::fs::fstat(&directory).map_err(text)?;
    match found.st_dev == inode.device && found.st_ino == inode.number {
        true => Ok(directory),
        false => Err("the broker sees another directory there".to_owned()),
    }
}

fn text(errno: Errno) -> String {
    std::io::Error::from(errno).to_string()
}

fn inode_of(path: &Path) -> Result<Inode, Errno> {
    let found = rustix::fs::stat(path)?;
    Ok(Inode { device: found.st_dev, number: found.st_ino })
}

/// Locks a directory; the inner error says why that cannot be done at all.
fn lock(
    directory: &OwnedFd,
    inode: Inode,
    how: FlockOperation,
) -> Result<Result<(), String>, Taken> {
    match rustix::fs::flock(directory, how) {
        Err(Errno::WOULDBLOCK) => {
            let holders = flock_holders(inode);
            match holders.iter().find(|pid| **pid != std::process::id()) {
                None if !holders.is_empty() => Err(Taken::ByThis),
                other => Err(Taken::ByAnother(other.copied())),
            }
        }
        Ok(()) => Ok(Ok(())),
        // Some file systems have no flock.
        Err(errno) => Ok(Err(text(errno))),
    }
}

/// Asks the kernel who has a flock on an inode. It shows its locks page by page: one may slip
/// through while others come and go.
fn flock_holders(inode: Inode) -> Vec<u32> {
    let mut looks = (0..LOOKS).map(|_| {
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        flock_holders_in(&locks, inode)
    });
    looks.find(|found| !found.is_empty()).unwrap_or_default()
}

/// Finds who has a flock on an inode: `1: FLOCK  ADVISORY  WRITE 814 fe:00:4112 0 EOF`.
fn flock_holders_in(locks: &str, inode: Inode) -> Vec<u32> {
    let (major, minor) = (rustix::fs::major(inode.device), rustix::fs::minor(inode.device));
    let file = format!("{major:02x}:{minor:02x}:{}", inode.number);
    let holder = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let at = fields.iter().position(|field| *field == file)?;
        let pid = fields.get(at.checked_sub(1)?)?.parse().ok()?;
        (fields.contains(&"FLOCK") && pid != 0).then_some(pid)
    };
    locks.lines().filter_map(holder).collect()
}

/// Returns the directories above one, nearest first, as far as its own mount does not show them
/// and another does.
fn above_elsewhere(mounts: &[Mount], path: &Path) -> Vec<PathBuf> {
    let Some(own) = innermost(mounts, path) else { return Vec::new() };
    let shows_more = |mount: &&Mount| {
        mount.device == own.device && mount.root != own.root && own.root.starts_with(&mount.root)
    };
    let more = mounts.iter().filter(shows_more);
    let Some(most) = more.min_by_key(|mount| mount.root.components().count()) else {
        return Vec::new();
    };
    let below = own.root.strip_prefix(&most.root).unwrap_or(Path::new(""));
    let above = below.ancestors().skip(1);
    above.map(|below| most.point.join(below)).collect()
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
        assert!(held.as_ref().is_some_and(|held| held.gap().is_none()));
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

    /// Its client sees another directory there.
    #[test]
    fn what_could_not_be_locked_is_told() {
        let home = tempfile::tempdir().unwrap();
        let inner = home.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let meant = directory(&inner);
        let take = |meant: &Directory| SourceLock::take(meant, &inner).unwrap().unwrap();
        assert!(take(&meant).gap().is_none());
        let mut other = meant.clone();
        other.above[0].0.number += 1;
        let said = take(&other).gap().unwrap().to_string();
        assert!(said.starts_with(&format!("{} cannot be locked", home.path().display())), "{said}");
        std::fs::remove_dir(&inner).unwrap();
        let said = take(&meant).gap().unwrap().to_string();
        assert!(said.starts_with(&format!("{} cannot", inner.display())), "{said}");
        assert!(said.contains("No such file"), "{said}");
    }

    #[test]
    fn who_has_a_lock_is_told_by_the_kernel() {
        let home = tempfile::tempdir().unwrap();
        let _held = flock(home.path(), FlockOperation::LockExclusive);
        let taken = SourceLock::take(&directory(home.path()), home.path()).err();
        assert_eq!(taken, Some(Taken::ByThis));
    }

    #[test]
    fn a_lock_is_found_by_its_inode_and_its_kind() {
        let inode = Inode { device: rustix::fs::makedev(0xfe, 0), number: 4112 };
        let found = |locks| flock_holders_in(locks, inode);
        assert_eq!(found("1: FLOCK  ADVISORY  WRITE 814 fe:00:4112 0 EOF\n"), [814]);
        let many = "1: FLOCK  ADVISORY  READ 8 fe:00:4112 0 EOF\n\
            2: FLOCK  ADVISORY  READ 9 fe:00:4112 0 EOF\n\
            2: -> FLOCK  ADVISORY  WRITE 7 fe:00:4113 0 EOF\n";
        assert_eq!(found(many), [8, 9]);
        for other in [
            "1: FLOCK  ADVISORY  WRITE 814 fe:00:41120 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 814 fe:01:4112 0 EOF",
            "1: POSIX  ADVISORY  WRITE 814 fe:00:4112 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 0 fe:00:4112 0 EOF",
            "1: FLOCK",
            "",
        ] {
            assert!(found(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn the_innermost_mount_decides() {
        let mounts = mounts::parse(
            b"22 1 0:1 / / rw - ext4 /dev/vda rw\n\
            30 22 0:40 / /mnt/a\\040b rw shared:1 - fuse.gate gate rw\n\
            31 30 0:41 / /mnt/a\\040b/deep rw - tmpfs tmpfs rw\n",
        );
        let lies_in_fuse = |path: &str| innermost(&mounts, Path::new(path)).unwrap().is_fuse();
        assert!(lies_in_fuse("/mnt/a b/c"));
        assert!(!lies_in_fuse("/mnt/a b/deep/c"));
        assert!(!lies_in_fuse("/mnt/a"));
    }

    #[test]
    fn what_lies_above_a_part_that_is_mounted_is_found() {
        let mounts = mounts::parse(
            b"1 0 8:1 / / rw - ext4 a rw\n\
            2 1 8:1 /home/s/d /part rw - ext4 a rw\n\
            3 1 8:1 /home/s /whole rw - ext4 a rw\n\
            4 1 8:2 /home/s/d /foreign rw - ext4 b rw\n",
        );
        let above = |path: &str| above_elsewhere(&mounts, Path::new(path));
        assert_eq!(above("/part/e"), ["/home/s", "/home", "/"].map(PathBuf::from));
        assert_eq!(above("/whole"), ["/home", "/"].map(PathBuf::from));
        assert!(above("/home/s/d").is_empty() && above("/foreign").is_empty());
    }
}
