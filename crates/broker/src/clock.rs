//! The broker's clocks: one to decide by, one for people.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gate_core::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// Reads the monotonic clock.
pub(crate) fn now() -> Time {
    let read = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(read.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(read.tv_nsec).unwrap_or_default();
    Time::ZERO + Duration::new(seconds, nanos)
}

/// Returns the time for people: milliseconds since 1970, UTC.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Tells instants of the one clock by the other.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    /// The time for people at the start of the monotonic clock.
    start_ms: u64,
}

/// How far the clocks may drift apart before instants are told anew.
const DRIFT_MAX_MS: u64 = 1_000;
const NANOS_PER_MS: u64 = 1_000_000;

impl Reading {
    pub fn take() -> Reading {
        /// So that an instant is told alike each time, though the clocks are read one by one.
        static LAST: AtomicU64 = AtomicU64::new(0);
        let start_ms = wall_ms().saturating_sub(now().0 / NANOS_PER_MS);
        let last = LAST.load(Ordering::Relaxed);
        if last.abs_diff(start_ms) <= DRIFT_MAX_MS {
            return Reading { start_ms: last };
        }
        LAST.store(start_ms, Ordering::Relaxed);
        Reading { start_ms }
    }

    /// Returns an instant for people.
    pub fn wall_ms_of(self, at: Time) -> u64 {
        self.start_ms.saturating_add(at.0 / NANOS_PER_MS)
    }
}
