//! Changes that others make to the source, beside the view: inotify.
//!
//! A directory is watched from its first lookup on, for as long as its node is known, where the
//! file system tells of all changes and the kernel allows one more watch. Changes of the view's own
//! are told too: whoever listens compares with what it knows.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gate_fuse::{Errno, NodeId};
use rustc_hash::FxHashMap;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use super::{descriptor_path, file};

/// Bytes of events that are read at once.
const EVENT_BYTES: usize = 64 * 1024;

/// How long events are gathered: programs change a file many times in a row.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// What bears this name in that directory, and the directory.
    Name(NodeId, CString),
    /// Anything: there were more changes than the kernel remembers.
    Anything,
}

/// The watched directories of a source.
#[derive(Debug)]
pub struct Watches {
    inotify: OwnedFd,
    /// Readable once there is nothing more to tell.
    end: OwnedFd,
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
        let end = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let exhausted = AtomicBool::new(false);
        Ok(Watches { inotify, end, nodes: Mutex::default(), exhausted })
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

    /// Waits for changes, at most for so long; `None` after [`Watches::close`].
    pub fn next(&self, patience: Option<Duration>) -> Option<Vec<Change>> {
        if self.wait(patience, true)? {
            self.wait(Some(GATHERED_FOR), false)?;
        }
        Some(self.read())
    }

    /// Ends all waiting.
    pub(super) fn close(&self) {
        let _ = rustix::io::write(&self.end, &1_u64.to_ne_bytes());
    }

    /// Returns whether there are changes; `None` at the end.
    fn wait(&self, patience: Option<Duration>, for_changes: bool) -> Option<bool> {
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut ready =
            [PollFd::new(&self.end, PollFlags::IN), PollFd::new(&self.inotify, PollFlags::IN)];
        let of_interest = if for_changes { &mut ready[..] } else { &mut ready[..1] };
        // A signal is as good as nothing.
        let _ = poll(of_interest, patience.as_ref());
        ready[0].revents().is_empty().then(|| !ready[1].revents().is_empty())
    }

    fn read(&self) -> Vec<Change> {
        let mut buffer = vec![MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut changes = Vec::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(_) => return changes,
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                changes.push(Change::Anything);
            }
            let Some(name) = event.file_name() else { continue };
            for node in self.lock().get(&event.wd()).into_iter().flatten() {
                changes.push(Change::Name(*node, name.to_owned()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<i32, Vec<NodeId>>> {
        // Nothing panics while it is held.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
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
