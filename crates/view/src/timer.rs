//! Things to do a little later, on one thread.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, now, thread};

type Job = Box<dyn FnOnce() + Send>;

/// A thread that runs jobs when they are due. Dropping the last clone ends it; what is not due by
/// then is not run.
#[derive(Clone)]
pub struct Timer(Arc<Owner>);

struct Owner(Arc<Shared>);

struct Shared {
    agenda: Mutex<Agenda>,
    changed: Condvar,
}

#[derive(Default)]
struct Agenda {
    /// The number keeps jobs of one instant apart.
    jobs: BTreeMap<(Instant, u64), Job>,
    next: u64,
    closed: bool,
}

impl Timer {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Timer> {
        let shared = Arc::new(Shared { agenda: Mutex::default(), changed: Condvar::new() });
        let runner = shared.clone();
        thread::Builder::new().name("view-timer".into()).spawn(move || runner.run())?;
        Ok(Timer(Arc::new(Owner(shared))))
    }

    /// Runs `job` once `delay` has passed. Jobs are short: the next one waits for them.
    pub fn after(&self, delay: Duration, job: impl FnOnce() + Send + 'static) {
        let shared = &self.0.0;
        let mut agenda = shared.agenda.lock().unwrap_or_else(PoisonError::into_inner);
        let number = agenda.next;
        agenda.next += 1;
        let due = (now() + delay, number);
        let first = agenda.jobs.first_key_value().is_none_or(|(next, _)| due < *next);
        agenda.jobs.insert(due, Box::new(job));
        drop(agenda);
        if first {
            shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut agenda = self.agenda.lock().unwrap_or_else(PoisonError::into_inner);
        while !agenda.closed {
            let now = now();
            let next = agenda.jobs.first_key_value().map(|((due, _), _)| *due);
            agenda = match next {
                Some(due) if due <= now => {
                    let job = agenda.jobs.pop_first().map(|(_, job)| job);
                    drop(agenda);
                    job.into_iter().for_each(|job| job());
                    self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
                }
                Some(due) => {
                    let waited = self.changed.wait_timeout(agenda, due - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(agenda).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.agenda.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn jobs_run_in_the_order_in_which_they_are_due() {
        let timer = Timer::start().unwrap();
        let (tell, told) = mpsc::channel();
        for (delay, name) in [(30, "later"), (0, "now"), (15, "soon")] {
            let tell = tell.clone();
            timer.after(Duration::from_millis(delay), move || tell.send(name).unwrap());
        }
        let order: Vec<_> =
            (0..3).map(|_| told.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
        assert_eq!(order, ["now", "soon", "later"]);
    }

    #[test]
    fn what_is_not_due_when_the_timer_goes_is_not_run() {
        let timer = Timer::start().unwrap();
        let (tell, told) = mpsc::channel::<()>();
        timer.after(Duration::from_secs(3600), move || tell.send(()).unwrap());
        drop(timer);
        assert_eq!(
            told.recv_timeout(Duration::from_secs(20)),
            Err(mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
