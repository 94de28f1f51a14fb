//! Waiting for an event, with a deadline: the one place that lets time pass.

use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

/// What a test allows for anything that should happen at once.
pub const SOON: Duration = Duration::from_secs(10);

const PAUSE_MS_MIN: u64 = 1;
const PAUSE_MS_MAX: u64 = 32;

/// Waits until `event` is true; panics naming `what` when the deadline passes first.
pub fn wait_until(deadline: Duration, what: &str, mut event: impl FnMut() -> bool) {
    wait_for(deadline, what, || event().then_some(()));
}

/// Waits until `event` yields a value; panics naming `what` when the deadline passes first.
pub fn wait_for<T>(deadline: Duration, what: &str, event: impl FnMut() -> Option<T>) -> T {
    try_wait_for(deadline, event).unwrap_or_else(|| panic!("not within {deadline:?}: {what}"))
}

/// Waits until `event` yields a value or the deadline passes.
pub fn try_wait_for<T>(deadline: Duration, mut event: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    let mut pause_ms = PAUSE_MS_MIN;
    loop {
        if let Some(value) = event() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        pause(Duration::from_millis(pause_ms));
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
    }
}

/// Returns a duration as the kernel's time span.
pub(crate) fn timespec(span: Duration) -> Timespec {
    Timespec::try_from(span).expect("a deadline fits a timespec")
}

fn pause(span: Duration) {
    // An early return (a signal) only asks the event again.
    let _ = poll(&mut [], Some(&timespec(span)));
}
