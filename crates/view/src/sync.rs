//! What the threads of a view share and wait by: the standard library's, or, with the feature
//! `shuttle`, that of a scheduler which tries their orders.

pub(crate) use imp::*;

#[cfg(not(feature = "shuttle"))]
mod imp {
    pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub use std::sync::{Condvar, Mutex, MutexGuard, RwLock};
    pub use std::thread;
    use std::time::Instant;

    /// Reads the clock.
    pub fn now() -> Instant {
        Instant::now()
    }
}

#[cfg(feature = "shuttle")]
mod imp {
    pub use gate_api::staged::clock::{Condvar, now};
    pub use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub use shuttle::sync::{Mutex, MutexGuard, RwLock};
    pub use shuttle::thread;
}
