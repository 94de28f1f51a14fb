//! The broker's clocks: one to decide by, one for people.
//!
//! The one to decide by stands still while the machine sleeps, cannot be set, and stands still while
//! the broker itself could hear nobody, stopped or stuck on a disk: else leases would run out whose
//! holders did all they could.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gate_core::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// How late the broker may wake up before it counts as stopped.
const LATE_MAX: Duration = Duration::from_secs(1);
/// How long others have, after it was stopped, to be heard before what was due is done.
const HEARING: Duration = Duration::from_secs(2);

/// For how long the broker was stopped, in nanoseconds.
static STOPPED: AtomicU64 = AtomicU64::new(0);

/// Reads the clock to decide by.
pub(crate) fn now() -> Time {
    let read = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(read.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(read.tv_nsec).unwrap_or_default();
    let stopped = Duration::from_nanos(STOPPED.load(Ordering::Relaxed));
    Time::ZERO + Duration::new(seconds, nanos) - stopped
}

/// Tells that the broker wakes up that was to wake at `due`, and last heard clients at `heard`. If
/// that is late, it was stopped: the clock goes back to a little before `due`, never before `heard`.
pub(crate) fn wake(due: Time, heard: Time) {
    let stopped = time_lost(now(), due, heard);
    STOPPED.fetch_add(u64::try_from(stopped.as_nanos()).unwrap_or(0), Ordering::Relaxed);
}

/// Returns how long it was stopped.
pub(crate) fn time_lost(now: Time, due: Time, heard: Time) -> Duration {
    if now.since(due) < LATE_MAX {
        return Duration::ZERO;
    }
    now.since(heard.max(due - HEARING))
}

/// Returns an instant as brokers after this one know it, until the machine starts anew, in nanoseconds.
pub(crate) fn for_successors(at: Time) -> u64 {
    at.0.saturating_add(STOPPED.load(Ordering::Relaxed))
}

/// Returns an instant that a broker before this one knew.
pub(crate) fn of_predecessor(nanos: u64) -> Time {
    Time(nanos.saturating_sub(STOPPED.load(Ordering::Relaxed)))
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_broker_that_wakes_in_time_lost_nothing() {
        assert_eq!(time_lost(at(10), at(10), at(3)), Duration::ZERO);
        assert_eq!(time_lost(at(10), at(11), at(3)), Duration::ZERO, "something came before");
    }

    #[test]
    fn a_broker_that_was_stopped_first_hears_who_has_something_to_say() {
        let lost = time_lost(at(100), at(20), at(3));
        assert_eq!(at(100) - lost, at(20) - HEARING);
    }

    #[test]
    fn the_clock_goes_back_no_further_than_to_when_somebody_was_heard() {
        let lost = time_lost(at(100), at(20), at(19));
        assert_eq!(at(100) - lost, at(19));
        let lost = time_lost(at(100), at(20), at(60));
        assert_eq!(at(100) - lost, at(60), "stuck after the deadline had passed");
    }

    const CHILD: &str = "GATE_TEST_SLEPT";

    /// To a process in such a namespace the machine has slept for a day: elsewhere, where it may not
    /// have slept at all, one clock may pass for the other.
    #[test]
    fn a_broker_decides_by_a_clock_that_cannot_be_set_and_sleeps_with_the_machine() {
        if std::env::var_os(CHILD).is_some() {
            let read = |clock| Time::ZERO + Duration::try_from(clock_gettime(clock)).unwrap();
            let [before, now, after] = [read(ClockId::Monotonic), now(), read(ClockId::Monotonic)];
            assert!(before <= now && now <= after, "{before:?}, {now:?}, {after:?}");
            let slept = read(ClockId::Boottime).since(now);
            assert!(slept >= Duration::from_secs(86_000), "{slept:?}");
            return;
        }
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--time", "--boottime", "86400"]).arg(std::env::current_exe().unwrap());
        let name = "clock::tests::a_broker_decides_by_a_clock_that_cannot_be_set_and_sleeps_with_the_machine";
        let output = command.args(["--exact", name]).env(CHILD, "").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}{output:?}");
    }
}
