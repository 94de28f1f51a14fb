//! Who hears the broker: one thread at a time.
//!
//! It calls owners back itself, for to wake another thread for that would cost each of them as much
//! as the answer. But what an owner then does may be to wait for a slow disk. So for that time the
//! thread lays its link aside, and whoever stands by takes it up if it is not back soon.

use std::sync::PoisonError;
use std::time::Duration;

use super::reader::Link;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// How long a callback may keep others from hearing the broker, about.
const PATIENCE: Duration = Duration::from_millis(50);

/// So many threads a session has at most: one hears, one stands by, and the others are in callbacks.
const THREADS_MAX: usize = 64;

/// Where the link lies.
pub(super) struct Post {
    place: Mutex<Place>,
    /// Something for whoever stands by.
    called: Condvar,
    ended: Condvar,
}

struct Place {
    /// Of the thread that is in a callback.
    aside: Option<Link>,
    /// How often one was laid aside.
    times: u64,
    threads: usize,
    standby: Standby,
    is_over: bool,
}

/// Whether a thread stands by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standby {
    Nobody,
    /// It looks at the link from time to time.
    Awake,
    /// It is to be woken when a link is laid aside.
    Asleep,
}

/// Tells one that was laid aside from all others.
pub(super) struct Receipt(u64);

impl Post {
    /// Of a session with a thread.
    pub fn new() -> Post {
        let standby = Standby::Nobody;
        let place = Place { aside: None, times: 0, threads: 1, standby, is_over: false };
        Post { place: Mutex::new(place), called: Condvar::new(), ended: Condvar::new() }
    }

    /// Lays the link aside.
    pub fn lay_aside(&self, link: Link) -> Receipt {
        let mut place = self.lock();
        place.aside = Some(link);
        place.times += 1;
        if place.standby == Standby::Asleep {
            place.standby = Standby::Awake;
            self.called.notify_one();
        }
        Receipt(place.times)
    }

    /// Takes it up again; `None` if somebody else has.
    pub fn take_back(&self, Receipt(times): Receipt) -> Option<Link> {
        let mut place = self.lock();
        if place.times == times { place.aside.take() } else { None }
    }

    /// Whether a thread is to be started that stands by; it counts from now on.
    pub fn wants_another(&self) -> bool {
        let mut place = self.lock();
        let wants = place.threads < THREADS_MAX && place.engage();
        place.threads += usize::from(wants);
        wants
    }

    /// It could not be started.
    pub fn has_no_other(&self) {
        let mut place = self.lock();
        place.standby = Standby::Nobody;
        place.threads -= 1;
    }

    /// Lets a thread that lost its link stand by if nobody else does; else it counts no more.
    pub fn may_stay(&self) -> bool {
        let mut place = self.lock();
        let stays = place.engage();
        place.threads -= usize::from(!stays);
        stays
    }

    /// Stands by until there is a link that nobody comes back for; `None` if all is over.
    pub fn stand_by(&self) -> Option<Link> {
        let mut place = self.lock();
        loop {
            if place.aside.is_none() {
                place.standby = Standby::Asleep;
            }
            while place.standby == Standby::Asleep && !place.is_over {
                place = self.called.wait(place).unwrap_or_else(PoisonError::into_inner);
            }
            if place.is_over {
                return None;
            }
            let times = place.times;
            let waited = self.called.wait_timeout(place, PATIENCE);
            place = waited.unwrap_or_else(PoisonError::into_inner).0;
            if place.times == times
                && let Some(link) = place.aside.take()
            {
                place.standby = Standby::Nobody;
                return Some(link);
            }
        }
    }

    /// Nobody hears the broker any more.
    pub fn end(&self) {
        self.lock().is_over = true;
        self.called.notify_all();
        self.ended.notify_all();
    }

    /// Waits for that.
    pub fn await_end(&self, patience: Duration) {
        let goes_on = |place: &mut Place| !place.is_over;
        let _ = self.ended.wait_timeout_while(self.lock(), patience, goes_on);
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        // Nothing panics while it is held.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Has somebody stand by; false if somebody does, or nobody needs to any more.
    fn engage(&mut self) -> bool {
        let is_wanted = self.standby == Standby::Nobody && !self.is_over;
        if is_wanted {
            self.standby = Standby::Awake;
        }
        is_wanted
    }
}
