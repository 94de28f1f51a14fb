//! Changes that others make to the source, beside the view: inotify.
//!
//! A directory is watched from its first lookup on, for as long as its node is known, where the
//! file system tells of all changes and the kernel allows one more watch. Changes of the view's own
//! are told too: whoever listens compares with what it knows.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gate_fuse::{Errno, NodeId};
use rustc_hash::FxHashMap;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, Reader, WatchFlags};

use super::{descriptor_path, file};
use crate::source::{Change, Happening, News, What};

/// Bytes of events that are read at once.
const EVENT_BYTES: usize = 16 * 1024;

/// Events after which it is enough for who looks at all of them: who changes things without a pause
/// is to be told of meanwhile.
pub(super) const EVENTS_ENOUGH: usize = 1024;

/// As many events as the kernel remembers: what was told until now is among them.
pub(super) const EVENTS_ALL: usize = 16_384;

/// How long events are gathered: programs change a file many times in a row.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// One change.
    Happening(Happening),
    /// There were more changes than the kernel remembers.
    Lost,
}

impl Notice {
    /// What may have changed.
    pub(super) fn change(&self) -> Change {
        match self {
            Notice::Happening(Happening { directory, name, .. }) => {
                Change::Name(*directory, name.clone())
            }
            Notice::Lost => Change::Anything,
        }
    }
}

/// The flags of one event have one of these.
fn what_of(event: &Event<'_>) -> What {
    const OF_FLAGS: [(ReadFlags, What); 6] = [
        (ReadFlags::CREATE, What::Made),
        (ReadFlags::DELETE, What::Gone),
        (ReadFlags::MOVED_FROM, What::MovedFrom),
        (ReadFlags::MOVED_TO, What::MovedTo),
        (ReadFlags::MODIFY, What::Written),
        (ReadFlags::CLOSE_WRITE, What::Closed),
    ];
    let found = OF_FLAGS.iter().find(|(flag, _)| event.events().contains(*flag));
    found.map_or(What::Attributes, |(_, what)| *what)
}
/// The watched directories of a source.
#[derive(Debug)]
pub struct Watches {
    inotify: OwnedFd,
    /// Readable once there is nothing more to tell.
    end: OwnedFd,
    /// Readable while there is something that was read by another than who waits for it.
    bell: OwnedFd,
    /// An inode that is mounted in two places is two nodes, and watched once.
    nodes: Mutex<FxHashMap<i32, Vec<NodeId>>>,
    exhausted: AtomicBool,
}

/// Keeps a directory watched.
#[derive(Debug)]
pub(super) struct Watch {
    watches: Arc<Watches>,
    number: i32,
    node: NodeId,
}

impl Watches {
    pub(super) fn new() -> Result<Watches, Errno> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let [end, bell] =
            [(); 2].map(|()| eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC));
        let exhausted = AtomicBool::new(false);
        Ok(Watches { inotify, end: end?, bell: bell?, nodes: Mutex::default(), exhausted })
    }

    /// Watches a directory, if its changes can be told.
    pub(super) fn add(self: &Arc<Self>, node: NodeId, directory: &OwnedFd) -> Option<Watch> {
        if self.exhausted.load(Ordering::Relaxed) || !file::is_local(directory) {
            return None;
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR
            | WatchFlags::EXCL_UNLINK;
        // An event may come before its number is known otherwise.
        let mut nodes = self.lock();
        match inotify::add_watch(&self.inotify, descriptor_path(directory), flags) {
            Ok(number) => {
                nodes.entry(number).or_default().push(node);
                Some(Watch { watches: self.clone(), number, node })
            }
            Err(errno) => {
                if errno == Errno::NOSPC && !self.exhausted.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "no more directories can be watched (fs.inotify.max_user_watches): \
                         changes beside the view in others show within a second"
                    );
                }
                None
            }
        }
    }

    /// Ends a wait: what was told has been read already.
    pub(super) fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Ends all waiting.
    pub(super) fn close(&self) {
        let _ = rustix::io::write(&self.end, &1_u64.to_ne_bytes());
    }

    /// Returns whether one of them has come; `None` at the end.
    fn wait_for(&self, any: &[&OwnedFd], patience: Option<Duration>) -> Option<bool> {
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let awaited = std::iter::once(&self.end).chain(any.iter().copied());
        let mut ready: Vec<_> = awaited.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        // A signal is as good as nothing.
        let _ = poll(&mut ready, patience.as_ref());
        let mut has_come = ready.iter().map(|fd| !fd.revents().is_empty());
        let is_over = has_come.next() == Some(true);
        (!is_over).then(|| has_come.any(|has_come| has_come))
    }

    /// Tells what has come until now, of at most about so many events.
    pub(super) fn read(&self, most: usize, mut tell: impl FnMut(Notice)) {
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut count = 0;
        // What was read from the kernel must be told.
        while count < most || !reader.is_buffer_empty() {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            count += 1;
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                tell(Notice::Lost);
            }
            let Some(name) = event.file_name() else { continue };
            let directories = self.lock().get(&event.wd()).cloned().unwrap_or_default();
            for directory in directories {
                tell(Notice::Happening(Happening {
                    directory,
                    name: name.to_owned(),
                    what: what_of(&event),
                    rename: event.cookie(),
                    is_directory: event.events().contains(ReadFlags::ISDIR),
                }));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<i32, Vec<NodeId>>> {
        // Nothing panics while it is held.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl News for Watches {
    fn wait(&self, patience: Option<Duration>) -> Option<()> {
        if self.wait_for(&[&self.inotify, &self.bell], patience)? {
            let _ = rustix::io::read(&self.bell, &mut [0; size_of::<u64>()]);
            self.wait_for(&[], Some(GATHERED_FOR))?;
        }
        Some(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut nodes = self.watches.lock();
        let Some(of_number) = nodes.get_mut(&self.number) else { return };
        of_number.retain(|node| *node != self.node);
        if of_number.is_empty() {
            nodes.remove(&self.number);
            // The directory may be gone, and its watch with it.
            let _ = inotify::remove_watch(&self.watches.inotify, self.number);
        }
    }
}
