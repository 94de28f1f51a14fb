//! Who watches what in the view: that is in /proc/PID/fdinfo, and nowhere else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gate_fuse::NodeId;
use rustc_hash::FxHashSet;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::time::{ClockId, clock_gettime};

use super::Echo;
use crate::view::FileSystemNumber;

/// How often it is looked, at most; and what is not known to be watched waits for that.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// At least so many times as long as a look takes of a processor it takes until the next: many
/// processes may have many files open.
const SHARE: u32 = 20;

/// What is known of watchers.
pub(super) struct Lookout {
    view: FileSystemNumber,
    /// Numbers of watched inodes.
    watched: FxHashSet<u64>,
    watchers: Vec<u32>,
    due: Instant,
}

impl Lookout {
    pub fn new(view: FileSystemNumber) -> Lookout {
        let (watched, watchers) = (FxHashSet::default(), Vec::new());
        Lookout { view, watched, watchers, due: Instant::now() }
    }

    /// When it may be looked again.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Looks into all processes that this one may look into.
    pub fn look(&mut self) {
        let began = worked();
        self.watched.clear();
        self.watchers.clear();
        let own = executable(Path::new("/proc/self"));
        for process in processes() {
            let path = PathBuf::from(format!("/proc/{process}"));
            // Servers of views watch their sources, and have a descriptor for each node.
            if own.is_some() && executable(&path) == own {
                continue;
            }
            let before = self.watched.len();
            self.look_into(&path);
            if self.watched.len() > before {
                self.watchers.push(process);
            }
        }
        let took = worked().saturating_sub(began);
        self.due = Instant::now() + LOOK_EVERY.max(took * SHARE);
    }

    /// Processes that watch something here.
    pub fn watchers(&self) -> &[u32] {
        &self.watchers
    }

    /// Whether somebody is there to hear it.
    pub fn is_heard(&self, echo: &Echo) -> bool {
        let file = match echo {
            Echo::Touched(_, _, file) => *file,
            Echo::Made(..) | Echo::Gone(..) | Echo::Moved { .. } => None,
        };
        // The root has the number of its node until the kernel has kept an answer about it.
        let of_root = echo.spots().map(|spot| spot.directory).find(|node| *node == NodeId::ROOT);
        let inodes = echo.spots().map(|spot| spot.inode).chain(file);
        let mut inodes = inodes.chain(of_root.map(|root| root.0));
        inodes.any(|inode| self.watched.contains(&inode))
    }

    fn look_into(&mut self, process: &Path) {
        // Of other users' processes, and of one that is gone, nothing is seen.
        for descriptor in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let is_inotify = fs::read_link(descriptor.path())
                .is_ok_and(|target| target.as_os_str() == "anon_inode:inotify");
            if !is_inotify {
                continue;
            }
            let facts = process.join("fdinfo").join(descriptor.file_name());
            let facts = fs::read_to_string(facts).unwrap_or_default();
            self.watched.extend(facts.lines().filter_map(|line| watched_in(line, self.view)));
        }
    }
}

/// Reads the number of a watched inode, if it is of this file system.
fn watched_in(line: &str, (major, minor): FileSystemNumber) -> Option<u64> {
    /// The kernel's own way to put both numbers of a device into one.
    const MINOR_BITS: u32 = 20;
    let facts = line.strip_prefix("inotify ")?;
    let fact = |name: &str| {
        let value = facts.split(' ').find_map(|fact| fact.strip_prefix(name))?;
        u64::from_str_radix(value, 16).ok()
    };
    let device = u64::from(major) << MINOR_BITS | u64::from(minor);
    (fact("sdev:")? == device).then(|| fact("ino:")).flatten()
}

/// How long this thread had a processor.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Which file a process runs. It may lie in a view that does not answer: that is not asked.
fn executable(process: &Path) -> Option<(u32, u32, u64)> {
    let found = statx(CWD, process.join("exe"), AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    Some((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watched_inodes_of_a_view_are_told_from_those_of_others() {
        let of_view = "inotify wd:1 ino:1f sdev:2e mask:fce ignored_mask:0 fhandle-bytes:8";
        assert_eq!(watched_in(of_view, (0, 0x2e)), Some(0x1f));
        assert_eq!(watched_in(of_view, (0, 0x2f)), None);
        assert_eq!(watched_in("inotify wd:1 ino:2 sdev:800003 mask:2", (8, 3)), Some(2));
        for other in ["pos:\t0", "fanotify ino:1f sdev:2e", "inotify wd:1 sdev:2e", ""] {
            assert_eq!(watched_in(other, (0, 0x2e)), None, "{other}");
        }
    }
}
