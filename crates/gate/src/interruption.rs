//! Ctrl-C for commands that must leave nothing behind.
//!
//! A signal is remembered; the command asks between its steps, ends, and clears away as it always
//! does. One that does not come to its next step in time is ended where it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::process::Signal;

use crate::failure::{Exit, Failure};
use crate::signals::Signals;

/// How long a command may take to end in order.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// What the signals of this command lead to.
pub struct Interruption {
    /// The number of the signal that came, or 0.
    signal: Arc<AtomicI32>,
    /// Tells the thread that waits that the command has ended.
    _running: Sender<()>,
}

impl Interruption {
    /// Listens to signals. To be called before the first thread starts.
    pub fn watch() -> Result<Interruption, Failure> {
        let cannot = |error| Failure::new("cannot listen to signals", error, "try again");
        let signals = Signals::keep(&[Signal::INT, Signal::TERM, Signal::HUP]).map_err(cannot)?;
        let signal = Arc::new(AtomicI32::new(0));
        let (running, ended) = channel();
        let told = Arc::clone(&signal);
        std::thread::spawn(move || await_signal(&signals, &told, &ended));
        Ok(Interruption { signal, _running: running })
    }

    /// Ends the command if a signal came.
    pub fn check(&self) -> Result<(), Failure> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => Err(Failure::silent(exit_of(number))),
        }
    }
}

fn await_signal(signals: &Signals, told: &AtomicI32, ended: &Receiver<()>) {
    let Ok(received) = signals.next() else { return };
    let number = received.signal.as_raw();
    told.store(number, Ordering::Relaxed);
    if ended.recv_timeout(END_PATIENCE) == Err(RecvTimeoutError::Timeout) {
        std::process::exit(exit_of(number).code().into());
    }
}

fn exit_of(number: i32) -> Exit {
    Exit::Signal(u8::try_from(number).unwrap_or(0))
}
