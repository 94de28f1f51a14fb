//! A call that waits for an advisory lock.

use std::sync::Arc;
use std::time::Instant;

use gate_fuse::{Errno, Parked, Reply};

use super::files::{File, Locker, Wanted};
use crate::sync::{AtomicBool, Ordering};
use crate::view::View;

/// How long a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It was not to wait at all, but what is in the way may be about to go.
    Until(Instant),
    /// For as long as it is not interrupted.
    Endless,
}

/// A waiting call.
pub(super) struct Waiter {
    pub wanted: Wanted,
    patience: Patience,
    parked: Parked,
    interrupted: Arc<AtomicBool>,
}

/// What came of another try.
pub(super) enum Served {
    /// It got what it wanted.
    Yes,
    /// It ended otherwise.
    Gone,
    NotYet(Waiter),
}

impl Waiter {
    pub fn new(wanted: Wanted, patience: Patience, reply: Reply) -> Waiter {
        let interrupted = Arc::new(AtomicBool::new(false));
        let told = interrupted.clone();
        // It may be interrupted within this call: it must not need what its caller has locked.
        let parked = reply.park(move |reply| {
            told.store(true, Ordering::Release);
            reply.error(match patience {
                Patience::Until(_) => Errno::AGAIN,
                Patience::Endless => Errno::INTR,
            });
        });
        Waiter { wanted, patience, parked, interrupted }
    }

    /// Whether it is one of these, and nothing but the lock or a signal ends its waiting.
    pub fn waits_for_good(&self, locker: Locker) -> bool {
        let interrupted = self.interrupted.load(Ordering::Acquire);
        self.wanted.locker == locker && self.patience == Patience::Endless && !interrupted
    }

    /// Tries anew, unless it is known that it would be in vain.
    pub fn serve(self, file: &mut File, view: &View, now: Instant) -> Served {
        if self.interrupted.load(Ordering::Acquire) {
            return Served::Gone;
        }
        let expired = matches!(self.patience, Patience::Until(end) if end <= now);
        if !expired && file.is_locked(&self.wanted) {
            return Served::NotYet(self);
        }
        // Before the try: what an interrupted call got would have to be given back.
        let Some(reply) = self.parked.resume() else { return Served::Gone };
        match file.attempt(view, &self.wanted) {
            Ok(()) => {
                reply.ok();
                Served::Yes
            }
            Err(Errno::AGAIN) if !expired => {
                Served::NotYet(Waiter::new(self.wanted, self.patience, reply))
            }
            Err(errno) => {
                reply.error(errno);
                Served::Gone
            }
        }
    }
}
