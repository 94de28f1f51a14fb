//! Ctrl-C for commands that must leave nothing behind.
//!
//! A signal is remembered; the command asks between its steps, ends, and clears away as it always
//! does. One that does not come to its next step in time is ended where it is, and what it named is
//! removed for it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::failure::{Exit, Failure};
use crate::signals::Signals;

/// How long a command may take to end in order.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// How often what a command makes while it is removed is removed, too.
const REMOVALS_MAX: usize = 100;

/// What the signals of this command lead to.
pub struct Interruption {
    state: Arc<State>,
    /// Tells the thread that waits that the command has ended.
    _running: Sender<()>,
}

#[derive(Default)]
struct State {
    /// The number of the signal that came, or 0.
    signal: AtomicI32,
    /// What the command would remove itself if it could.
    doomed: Mutex<Option<PathBuf>>,
}

impl Interruption {
    /// Listens to signals. To be called before the first thread starts.
    pub fn watch() -> Result<Interruption, Failure> {
        let cannot = |error| Failure::new("cannot listen to signals", error, "try again");
        let signals = Signals::keep(&[Signal::INT, Signal::TERM, Signal::HUP]).map_err(cannot)?;
        let state = Arc::new(State::default());
        let (running, ended) = channel();
        let told = Arc::clone(&state);
        std::thread::spawn(move || await_signal(&signals, &told, &ended));
        Ok(Interruption { state, _running: running })
    }

    /// Ends the command if a signal came.
    pub fn check(&self) -> Result<(), Failure> {
        match self.state.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => Err(Failure::silent(exit_of(number))),
        }
    }

    /// Has a directory removed if the command has to be ended where it is.
    pub fn remove_at_worst(&self, dir: &Path) {
        *self.state.doomed.lock().unwrap_or_else(PoisonError::into_inner) = Some(dir.to_owned());
    }
}

fn await_signal(signals: &Signals, state: &State, ended: &Receiver<()>) {
    let Ok(received) = signals.next() else { return };
    let number = received.signal.as_raw();
    state.signal.store(number, Ordering::Relaxed);
    if ended.recv_timeout(END_PATIENCE) == Err(RecvTimeoutError::Timeout) {
        if let Some(dir) = &*state.doomed.lock().unwrap_or_else(PoisonError::into_inner) {
            remove(dir);
        }
        std::process::exit(exit_of(number).code().into());
    }
}

/// Removes a directory into which the command may still put something.
fn remove(dir: &Path) {
    for _ in 0..REMOVALS_MAX {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            Ok(()) | Err(_) => return,
        }
    }
}

fn exit_of(number: i32) -> Exit {
    Exit::Signal(u8::try_from(number).unwrap_or(0))
}
