//! `flock(2)`: the kernel's own turns, for those who remember to ask.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::peer::{Client, Peer, hand_on};

/// Files that are locked whole.
pub struct Flock {
    dir: PathBuf,
}

impl Flock {
    /// Locks files in an existing directory.
    pub fn new(dir: PathBuf) -> Flock {
        Flock { dir }
    }

    fn open(&self, name: &str) -> io::Result<Locker> {
        let file =
            File::options().write(true).create(true).truncate(false).open(self.dir.join(name))?;
        Ok(Locker { file })
    }
}

impl Peer for Flock {
    fn name(&self) -> &'static str {
        "flock"
    }

    fn client(&self, number: u64) -> io::Result<Box<dyn Client>> {
        Ok(Box::new(self.open(&format!("lock-{number}"))?))
    }

    fn hand_offs(&self, waiters: u64) -> io::Result<Vec<Duration>> {
        let holder = self.open("shared")?;
        let blocked = format!(":{} ", holder.file.metadata()?.ino());
        let all = (0..waiters).map(|_| self.open("shared")).collect::<io::Result<Vec<_>>>()?;
        let count = all.len();
        hand_on(holder, all, || {
            let locks = std::fs::read_to_string("/proc/locks")?;
            let waits = |line: &&str| line.contains("->") && line.contains(&blocked);
            Ok(locks.lines().filter(waits).count() == count)
        })
    }
}

struct Locker {
    file: File,
}

impl Client for Locker {
    fn take(&mut self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.file, FlockOperation::LockExclusive)?)
    }

    fn give_back(&mut self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.file, FlockOperation::Unlock)?)
    }
}
