//! What a session's threads share and wait by, those that send for it too: the standard library's, or, with the feature
//! `shuttle`, that of a scheduler which tries their orders.

pub(crate) use imp::*;

#[cfg(not(feature = "shuttle"))]
mod imp {
    pub use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    pub use std::sync::{Condvar, Mutex, MutexGuard, mpsc};
    pub use std::thread;
    use std::time::{Duration, Instant};

    use rustix::time::{ClockId, clock_gettime};

    /// Reads the clock.
    pub fn now() -> Instant {
        Instant::now()
    }

    /// Reads the clock since boot, the time asleep included.
    pub fn since_boot() -> Duration {
        let read = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(read.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(read.tv_nsec).unwrap_or_default())
    }
}

#[cfg(feature = "shuttle")]
mod imp {
    pub use shuttle::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    pub use shuttle::sync::{Mutex, MutexGuard, mpsc};
    pub use shuttle::thread;

    pub use crate::staged::clock::{Condvar, now, since_boot};
}
