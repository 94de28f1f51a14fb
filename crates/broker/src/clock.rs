//! The broker's clocks: one to decide by, one for people.

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

/// Both clocks, read at once: tells instants of one by the other.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    now: Time,
    wall_ms: u64,
}

impl Reading {
    pub fn take() -> Reading {
        Reading { now: now(), wall_ms: wall_ms() }
    }

    /// Returns an instant for people.
    pub fn wall_ms_of(self, at: Time) -> u64 {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let past = self.wall_ms.saturating_sub(ms(self.now.since(at)));
        past.saturating_add(ms(at.since(self.now)))
    }
}
