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

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    use super::since_boot;

    const CHILD: &str = "GATE_TEST_SLEPT";

    /// To a process in such a namespace the machine has slept for a day: elsewhere, where it may not
    /// have slept at all, one clock may pass for the other.
    #[test]
    fn a_client_counts_the_time_that_its_machine_slept() {
        if std::env::var_os(CHILD).is_some() {
            let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap();
            let [before, now, after] =
                [read(ClockId::Boottime), since_boot(), read(ClockId::Boottime)];
            assert!(before <= now && now <= after, "{before:?}, {now:?}, {after:?}");
            let awake = read(ClockId::Monotonic);
            assert!(now - awake >= Duration::from_secs(86_000), "{now:?}, {awake:?} awake");
            return;
        }
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--time", "--boottime", "86400"]).arg(std::env::current_exe().unwrap());
        let name = "sync::tests::a_client_counts_the_time_that_its_machine_slept";
        let output = command.args(["--exact", name]).env(CHILD, "").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}{output:?}");
    }
}
