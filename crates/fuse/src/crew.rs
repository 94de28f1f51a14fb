//! How many workers a session has.
//!
//! A worker that calls a slow disk answers nobody else meanwhile. So when the last one that waits
//! takes up a request another is started, up to a bound; and who came so leaves after a request once
//! enough others wait. The usual ones stay.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering};

/// So many workers a session has at most.
pub(crate) const WORKERS_MAX: u16 = 64;

/// Where so many wait nobody else needs to: more than are usual, so that none comes and goes at each
/// burst of requests.
const WAITING_AMPLE: u16 = 8;

/// The workers of a session.
#[derive(Debug)]
pub(crate) struct Crew(AtomicU32);

/// Whether a worker is there to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    Usual,
    Extra,
}

/// Whether another worker is to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Nobody,
    /// It counts from now on.
    Another,
}

/// What a worker does after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Wait,
    /// It counts no more.
    Leave,
}

/// Both in one word, so that they are always of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    workers: u16,
    busy: u16,
}

impl Crew {
    pub fn new(usual: NonZeroUsize) -> Crew {
        let workers = u16::try_from(usual.get()).unwrap_or(WORKERS_MAX);
        Crew(AtomicU32::new(Count { workers, busy: 0 }.word()))
    }

    /// A worker takes up a request.
    pub fn begin(&self) -> Need {
        let (before, after) = self.change(|count| {
            let busy = count.busy + 1;
            let all_are_busy = busy >= count.workers && count.workers < WORKERS_MAX;
            Count { workers: count.workers + u16::from(all_are_busy), busy }
        });
        if after.workers > before.workers { Need::Another } else { Need::Nobody }
    }

    /// A worker is done with a request.
    pub fn end(&self, rank: Rank) -> Next {
        let (before, after) = self.change(|count| {
            let waiting = count.workers - count.busy;
            let leaves = rank == Rank::Extra && waiting >= WAITING_AMPLE;
            Count { workers: count.workers - u16::from(leaves), busy: count.busy - 1 }
        });
        if after.workers < before.workers { Next::Leave } else { Next::Wait }
    }

    /// A worker could not be started, or can wait no more.
    pub fn lose(&self) {
        self.change(|count| Count { workers: count.workers - 1, ..count });
    }

    fn change(&self, change: impl Fn(Count) -> Count) -> (Count, Count) {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            let after = change(Count::of(before));
            // It counts, and protects nothing.
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            match self.0.compare_exchange_weak(before, after.word(), success, failure) {
                Ok(_) => return (Count::of(before), after),
                Err(other) => before = other,
            }
        }
    }
}

impl Count {
    fn of(word: u32) -> Count {
        Count { workers: (word >> 16) as u16, busy: word as u16 }
    }

    fn word(self) -> u32 {
        u32::from(self.workers) << 16 | u32::from(self.busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crew(usual: usize) -> Crew {
        Crew::new(usual.try_into().unwrap())
    }

    fn count(crew: &Crew) -> (u16, u16) {
        let Count { workers, busy } = Count::of(crew.0.load(Ordering::Relaxed));
        (workers, busy)
    }

    #[test]
    fn who_takes_up_a_request_as_the_last_has_another_started() {
        let crew = crew(2);
        assert_eq!(
            [crew.begin(), crew.begin(), crew.begin()],
            [Need::Nobody, Need::Another, Need::Another]
        );
        assert_eq!(count(&crew), (4, 3));
        crew.lose();
        assert_eq!((crew.end(Rank::Usual), crew.begin()), (Next::Wait, Need::Another));
    }

    #[test]
    fn there_is_a_bound() {
        let crew = crew(2);
        let started = (0..WORKERS_MAX).filter(|_| crew.begin() == Need::Another).count();
        assert_eq!((started, count(&crew)), (62, (WORKERS_MAX, WORKERS_MAX)));
    }

    #[test]
    fn who_is_not_usual_leaves_while_enough_wait() {
        let crew = crew(2);
        let extra = (0..20).filter(|_| crew.begin() == Need::Another).count();
        assert_eq!((extra, count(&crew)), (19, (21, 20)));
        assert!((0..2).all(|_| crew.end(Rank::Usual) == Next::Wait));
        let left = (0..18).filter(|_| crew.end(Rank::Extra) == Next::Leave).count();
        assert_eq!((left, count(&crew)), (13, (WAITING_AMPLE, 0)));
        // Those that are usual never do.
        assert!(
            (0..20).all(|_| crew.begin() == Need::Nobody && crew.end(Rank::Usual) == Next::Wait)
        );
    }
}
