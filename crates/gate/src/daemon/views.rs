//! The views that a daemon keeps, whoever serves them: of a directory a process of its own, of a bucket the
//! daemon.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};

use super::child;
use super::inside::Inside;
use super::refusal::Refusal;
use super::store::Record;

/// The views of one daemon.
pub struct Views {
    state_dir: PathBuf,
    pub inside: Inside,
}

/// What is at a mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// No view, nor anything else that is mounted.
    Nothing,
    /// The view of the source that was asked for, served by this process.
    Served(u32),
    /// That view, whose server has died.
    Dead,
    /// Something else, or a view that does not answer: what is wrong.
    Odd(String),
}

impl Views {
    pub fn new(state_dir: PathBuf, inside: Inside) -> Views {
        Views { state_dir, inside }
    }

    /// Mounts it, over its dead view if there is one, and waits until it is ready. A mount point that is missing
    /// is made, as when the mount was added.
    pub fn start(&self, record: &Record) -> Result<(), Refusal> {
        match record.bucket {
            None => child::start(record, &self.state_dir),
            Some(bucket) => self.inside.start(record, bucket),
        }
    }

    /// Looks what is there.
    pub fn look(&self, record: &Record) -> Look {
        if record.bucket.is_some() { self.inside.look(record) } else { child::look(record) }
    }

    /// Waits until nobody serves it any more, and looks what is there then.
    pub fn await_end(&self, record: &Record, pid: u32) -> Look {
        match record.bucket {
            None => child::await_end(record, pid),
            Some(_) => {
                self.inside.await_end(record);
                self.inside.look(record)
            }
        }
    }

    /// Unmounts it; the notice says what is to be said aloud.
    pub fn end(&self, record: &Record, lazy: bool) -> Result<Option<String>, Refusal> {
        let notice = child::end(record, lazy)?;
        if record.bucket.is_some() && notice.is_none() {
            self.inside.await_end(record);
        }
        Ok(notice)
    }
}

/// What is mounted and unmounted, as it happens.
pub struct Changes(File);

impl Changes {
    /// Begins with what happens next.
    pub fn begin() -> io::Result<Changes> {
        File::open("/proc/self/mountinfo").map(Changes)
    }

    /// Waits until something was mounted or unmounted since.
    pub fn next(&self) -> io::Result<()> {
        loop {
            match poll(&mut [PollFd::new(&self.0, PollFlags::PRI)], None) {
                Err(rustix::io::Errno::INTR) => {}
                outcome => return outcome.map(drop).map_err(io::Error::from),
            }
        }
    }
}
