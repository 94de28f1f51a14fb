//! Answers that wait, and the signals that end the waiting.
//!
//! A parked reply is in the hands of exactly one of two: whoever resumes it, or the INTERRUPT
//! of its request. INTERRUPT can overtake its request between two workers, so the newest
//! interrupts that found nothing parked are remembered. A request that never parks never
//! comes here.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, PoisonError};

#[cfg(feature = "shuttle")]
use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(feature = "shuttle"))]
use std::sync::{Mutex, MutexGuard};

use crate::reply::Reply;
use crate::request::Unique;

/// How many interrupts are remembered for requests that may yet park. Only those matter whose
/// request is between the read of its frame and its parking, on some worker, at this moment.
const EARLY_MAX: usize = 1024;

type OnInterrupt = Box<dyn FnOnce(Reply) + Send>;

/// The parked replies of one session.
#[derive(Default)]
pub(crate) struct Parking(Mutex<Places>);

#[derive(Default)]
struct Places {
    waiting: HashMap<Unique, (Reply, OnInterrupt)>,
    early: VecDeque<Unique>,
    closed: bool,
}

impl Parking {
    pub fn park(self: &Arc<Self>, reply: Reply, on_interrupt: OnInterrupt) -> Parked {
        let unique = reply.unique();
        let mut places = self.lock();
        let interrupted = match places.early.iter().position(|early| *early == unique) {
            Some(at) => {
                places.early.remove(at);
                true
            }
            None => places.closed,
        };
        if interrupted {
            drop(places);
            on_interrupt(reply);
        } else {
            places.waiting.insert(unique, (reply, on_interrupt));
        }
        Parked { unique, parking: Arc::clone(self) }
    }

    pub fn interrupt(&self, target: Unique) {
        let mut places = self.lock();
        if let Some((reply, on_interrupt)) = places.waiting.remove(&target) {
            drop(places);
            on_interrupt(reply);
            return;
        }
        if places.early.len() == EARLY_MAX {
            places.early.pop_front();
        }
        places.early.push_back(target);
    }

    /// Interrupts all that wait and all that will: nobody is left to hear an answer.
    pub fn close(&self) {
        let mut places = self.lock();
        places.closed = true;
        let waiting = std::mem::take(&mut places.waiting);
        drop(places);
        for (reply, on_interrupt) in waiting.into_values() {
            on_interrupt(reply);
        }
    }

    fn take(&self, unique: Unique) -> Option<Reply> {
        let taken = self.lock().waiting.remove(&unique);
        taken.map(|(reply, _)| reply)
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claim to a parked reply. Dropped, it answers EIO, unless the interrupt came first.
#[must_use = "dropping it answers EIO"]
pub struct Parked {
    unique: Unique,
    parking: Arc<Parking>,
}

impl Parked {
    /// Takes the reply back to answer it; `None` when the request was interrupted.
    pub fn resume(self) -> Option<Reply> {
        self.parking.take(self.unique)
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        drop(self.parking.take(self.unique));
    }
}

impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Parked").field(&self.unique).finish()
    }
}

impl fmt::Debug for Parking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parking")
    }
}
