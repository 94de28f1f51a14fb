//! Who reads a file from end to end finds opened what comes next.
//!
//! Threads of their own open the chunks behind those that were just read; what they hold is in the vault's cache
//! then. Whoever is faster opens its chunk itself, and waits for one that is being opened.

use std::io;
use std::iter;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use gate_core::tree::op::ChunkRef;

use super::lock;
use crate::vault::Vault;

/// So far ahead chunks are opened.
const AHEAD_BYTES: u64 = 2 * 1024 * 1024;
/// More are asked for when so little is left: several requests of a kernel, since to wake who opens them takes
/// as long as to open one.
const LEFT_BYTES_MIN: u64 = AHEAD_BYTES / 4 * 3;
/// Requests of a kernel for one stretch come on several threads: so far apart they still are one.
const APART_MAX: u64 = 256 * 1024;
/// So many chunks wait to be opened; more are not noted.
const WAITING_MAX: usize = 64;

/// So many open them side by side: one alone is slower than its reader.
const WORKERS: usize = 2;

/// Opens chunks that nobody asked for yet.
pub(super) struct Ahead {
    /// None once it ends.
    waiting: Option<SyncSender<ChunkRef>>,
    workers: Vec<JoinHandle<()>>,
}

/// How far somebody has come who reads a file.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Where the newest of his reads ended.
    end: AtomicU64,
    /// Up to where chunks were opened ahead.
    asked: AtomicU64,
}

impl Ahead {
    pub(super) fn begin(vault: Vault) -> io::Result<Ahead> {
        let (waiting, asked) = sync_channel::<ChunkRef>(WAITING_MAX);
        let asked = Arc::new(Mutex::new(asked));
        let mut ahead = Ahead { waiting: Some(waiting), workers: Vec::new() };
        for _ in 0..WORKERS {
            let (vault, asked) = (vault.clone(), Arc::clone(&asked));
            let next = move || lock(&asked).recv().ok();
            let work = move || iter::from_fn(next).for_each(|chunk| vault.open_ahead(&chunk));
            let worker = thread::Builder::new().name("gate-ahead".to_owned()).spawn(work)?;
            ahead.workers.push(worker);
        }
        Ok(ahead)
    }

    pub(super) fn ask(&self, chunk: &ChunkRef) {
        if let Some(waiting) = &self.waiting {
            // Where many wait this one is opened by its reader.
            let _ = waiting.try_send(*chunk);
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.waiting = None;
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a thread that opens chunks ahead is gone");
            }
        }
    }
}

impl Course {
    /// Notes what is read now; returns what will be wanted next, but for what was returned before, if it goes on from what was
    /// read before.
    pub(super) fn go_on(&self, now: Range<u64>) -> Option<Range<u64>> {
        let before = self.end.swap(now.end, Ordering::Relaxed);
        let goal = now.end.saturating_add(AHEAD_BYTES);
        if now.start == 0 || now.start.abs_diff(before) > APART_MAX {
            self.asked.store(now.end, Ordering::Relaxed);
            return None;
        }
        if self.asked.load(Ordering::Relaxed) >= now.end.saturating_add(LEFT_BYTES_MIN) {
            return None;
        }
        let asked = self.asked.fetch_max(goal, Ordering::Relaxed);
        let from = asked.max(now.end);
        (from < goal).then_some(from..goal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: u64 = 128 * 1024;

    #[test]
    fn who_reads_on_is_ahead_by_each_byte_once() {
        let course = Course::default();
        assert_eq!(course.go_on(0..REQUEST), None);
        let ahead = REQUEST * 2 + AHEAD_BYTES;
        assert_eq!(course.go_on(REQUEST..REQUEST * 2), Some(REQUEST * 2..ahead));
        for n in 2..=5 {
            assert_eq!(course.go_on(REQUEST * n..REQUEST * (n + 1)), None);
        }
        // The second of two requests is the first to come.
        let further = REQUEST * 8 + AHEAD_BYTES;
        assert_eq!(course.go_on(REQUEST * 7..REQUEST * 8), Some(ahead..further));
        assert_eq!(course.go_on(REQUEST * 6..REQUEST * 7), None);
    }

    #[test]
    fn who_reads_here_and_there_is_not_ahead() {
        let course = Course::default();
        for place in [0, 100 << 20, 3 << 20, 50 << 20, 0] {
            assert_eq!(course.go_on(place..place + 4096), None);
        }
        // He may begin to read on anywhere.
        assert_eq!(course.go_on(60 << 20..61 << 20), None);
        assert!(course.go_on(61 << 20..62 << 20).is_some());
    }
}
