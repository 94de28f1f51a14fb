//! How long a session may act on what it holds without hearing of its broker.
//!
//! A broker that hears nothing of a client for a lease may let others in. So a client acts only
//! within a lease of something that proves that the broker could not have: the sending of a
//! heartbeat that was answered, or, on one machine, the sight that no broker runs. The clock goes
//! on while the machine sleeps, and nobody can set it.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use crate::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering, since_boot};

/// An instant on the clock since boot, the time asleep included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Duration);

impl Moment {
    /// Reads the clock.
    pub fn now() -> Moment {
        Moment(since_boot())
    }

    /// Returns whether `lease` has gone by since then.
    pub fn is_past(self, lease: Duration) -> bool {
        Moment::now().0 >= self.0.saturating_add(lease)
    }
}

/// Until when a session may act.
pub(super) struct Standing {
    /// In nanoseconds of the clock since boot.
    until: AtomicU64,
    /// The latest proof.
    proven: Mutex<Moment>,
    extended: Condvar,
}

impl Standing {
    /// Makes one that ends a lease after `proof`; without proof nothing can end it.
    pub fn new(proof: Option<Moment>, lease: Duration) -> Standing {
        let until = proof.map_or(u64::MAX, |proof| nanos(proof.0.saturating_add(lease)));
        let proven = Mutex::new(proof.unwrap_or(Moment(Duration::ZERO)));
        Standing { until: AtomicU64::new(until), proven, extended: Condvar::new() }
    }

    /// Returns whether it may act now.
    pub fn is_good(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == u64::MAX || nanos(Moment::now().0) < until
    }

    /// Lets it act for a lease after `proof`.
    pub fn extend(&self, proof: Moment, lease: Duration) {
        self.until.fetch_max(nanos(proof.0.saturating_add(lease)), Ordering::AcqRel);
        let mut proven = self.proven();
        *proven = proof.max(*proven);
        drop(proven);
        self.extended.notify_all();
    }

    /// Lets it act for a lease after `proof` that nobody can be let in. Where it may not act by now
    /// that proves nothing: others may have been let in before.
    pub fn prolong(&self, proof: Moment, lease: Duration) {
        if self.is_good() {
            self.extend(proof, lease);
        }
    }

    /// Waits until it may act; `false` if that does not come within `patience`.
    pub fn await_good(&self, patience: Duration) -> bool {
        let is_late = |_: &mut Moment| !self.is_good();
        let waited = self.extended.wait_timeout_while(self.proven(), patience, is_late);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.is_good()
    }

    /// Waits for a proof no older than `asked`; `false` if none comes within `patience`.
    pub fn await_proof(&self, asked: Moment, patience: Duration) -> bool {
        let is_older = |proven: &mut Moment| *proven < asked;
        let waited = self.extended.wait_timeout_while(self.proven(), patience, is_older);
        *waited.unwrap_or_else(PoisonError::into_inner).0 >= asked
    }

    fn proven(&self) -> MutexGuard<'_, Moment> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The heartbeats that were not answered yet. Answers come in order.
#[derive(Debug, Default)]
pub(super) struct Heartbeats(VecDeque<Moment>);

impl Heartbeats {
    /// Notes that one was sent.
    pub fn sent(&mut self, at: Moment) {
        self.0.push_back(at);
    }

    /// Returns when the one was sent that is answered now.
    pub fn answered(&mut self) -> Option<Moment> {
        self.0.pop_front()
    }

    /// Returns how many are not answered.
    pub fn unanswered(&self) -> usize {
        self.0.len()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn ago(duration: Duration) -> Moment {
        Moment(Moment::now().0 - duration)
    }

    #[test]
    fn who_heard_nothing_for_a_lease_may_not_act_until_it_does() {
        let standing = Standing::new(Some(ago(LONG)), LONG);
        assert!(!standing.is_good());
        standing.extend(ago(LONG), LONG);
        assert!(!standing.await_good(Duration::from_millis(1)));
        standing.extend(Moment::now(), LONG);
        assert!(standing.is_good());
        // Older proof takes nothing away.
        standing.extend(ago(LONG), LONG);
        assert!(standing.is_good());
    }

    #[test]
    fn that_no_broker_runs_by_now_proves_nothing_of_the_time_before() {
        let standing = Standing::new(Some(ago(LONG)), LONG);
        standing.prolong(Moment::now(), LONG);
        assert!(!standing.is_good());
        standing.extend(ago(LONG / 2), LONG);
        standing.prolong(Moment::now(), LONG * 2);
        assert!(standing.await_good(Duration::ZERO));
    }

    #[test]
    fn who_waits_for_proof_is_woken_by_it() {
        let standing = std::sync::Arc::new(Standing::new(Some(ago(LONG)), LONG));
        let waiting = standing.clone();
        let waiter = std::thread::spawn(move || waiting.await_good(LONG));
        standing.extend(Moment::now(), LONG);
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn only_proof_that_came_later_tells_of_the_time_before() {
        for first in [None, Some(Moment::now())] {
            let standing = Standing::new(first, LONG);
            let asked = Moment(Moment::now().0 + LONG);
            assert!(!standing.await_proof(asked, Duration::ZERO));
            standing.extend(asked, LONG);
            assert!(standing.await_proof(asked, Duration::ZERO));
            standing.extend(Moment::now(), LONG);
            assert!(standing.await_proof(asked, Duration::ZERO));
        }
    }

    #[test]
    fn without_a_wire_nothing_has_to_be_proven() {
        assert!(Standing::new(None, Duration::ZERO).is_good());
    }
}
