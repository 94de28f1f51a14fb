//! A clock that stands still until a test lets time pass, and waits that end by it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, LockResult, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shuttle::sync::Condvar as Inner;
use shuttle::thread;

/// When the clock of each test begins.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// For how long the machine has run by then.
const UP: Duration = Duration::from_secs(86_400);

shuttle::lazy_static! {
    /// Of one run of a test.
    static ref CLOCK: Clock = Clock(Mutex::default());
}

/// Its lock is held for a moment, never while another thread is chosen.
struct Clock(Mutex<Face>);

#[derive(Default)]
struct Face {
    passed: Duration,
    /// Who waits, and until when.
    sleepers: BTreeMap<u64, (Duration, Arc<Inner>)>,
    next: u64,
}

/// Reads the clock.
pub fn now() -> Instant {
    *START + CLOCK.lock().passed
}

/// Reads the clock since boot.
pub fn since_boot() -> Duration {
    UP + CLOCK.lock().passed
}

/// Lets time pass, and wakes whose time has come.
pub fn pass(span: Duration) {
    CLOCK.lock().passed += span;
    CLOCK.wake();
}

/// Lets time pass until it is somebody's, if anybody waits for it.
pub fn skip() {
    let mut face = CLOCK.lock();
    let first = face.sleepers.values().map(|(until, _)| *until).min();
    face.passed = face.passed.max(first.unwrap_or_default());
    drop(face);
    CLOCK.wake();
    thread::yield_now();
}

impl Clock {
    fn lock(&self) -> MutexGuard<'_, Face> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is about to wait has noted until when, and is woken once it does.
    fn wake(&self) {
        while let Some(sleeper) = self.overdue() {
            sleeper.notify_all();
            thread::yield_now();
        }
    }

    fn overdue(&self) -> Option<Arc<Inner>> {
        let face = self.lock();
        let mut sleepers = face.sleepers.values();
        sleepers.find(|(until, _)| *until <= face.passed).map(|(_, inner)| inner.clone())
    }
}

/// Shuttle's, whose waits never time out by themselves, with this clock.
#[derive(Debug, Default)]
pub struct Condvar(Arc<Inner>);

/// Whether a wait ended by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut(pub bool);

type Guard<'a, T> = shuttle::sync::MutexGuard<'a, T>;

impl Condvar {
    /// Makes one that nobody waits for.
    pub fn new() -> Condvar {
        Condvar::default()
    }

    /// Wakes one who waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits to be woken.
    pub fn wait<'a, T>(&self, guard: Guard<'a, T>) -> LockResult<Guard<'a, T>> {
        self.0.wait(guard)
    }

    /// Waits to be woken, or until the clock says so.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: Guard<'a, T>,
        limit: Duration,
    ) -> LockResult<(Guard<'a, T>, TimedOut)> {
        let (number, until) = {
            let mut face = CLOCK.lock();
            let (number, until) = (face.next, face.passed.saturating_add(limit));
            face.next += 1;
            face.sleepers.insert(number, (until, self.0.clone()));
            (number, until)
        };
        let woken = self.0.wait(guard);
        let mut face = CLOCK.lock();
        face.sleepers.remove(&number);
        let timed_out = TimedOut(until <= face.passed);
        drop(face);
        match woken {
            Ok(guard) => Ok((guard, timed_out)),
            Err(poisoned) => Err(PoisonError::new((poisoned.into_inner(), timed_out))),
        }
    }

    /// Waits while `condition` holds, or until the clock says so.
    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: Guard<'a, T>,
        limit: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(Guard<'a, T>, TimedOut)> {
        let until = now() + limit;
        while condition(&mut guard) {
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return Ok((guard, TimedOut(true)));
            }
            (guard, _) = self.wait_timeout(guard, left)?;
        }
        Ok((guard, TimedOut(false)))
    }
}
