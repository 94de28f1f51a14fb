//! The log: what happened, for people who ask later and for programs that follow.
//!
//! The deciding thread writes records with a [`Pen`] into a bounded tray ([`pen`]); it never waits
//! and touches no disk. A thread of its own, the [`keeper`], takes them from there, remembers the
//! latest ([`recent`]), puts all into SQLite ([`store`]) and answers questions. A [`block`] is a
//! run of records as bytes, from the pen to the file.
//!
//! What must hold: nothing is told that the journal does not have (N3); a record's number follows
//! that of the one before; what cannot be kept is counted, and a record says so in its place.
//! Locks matter more than their history: no trouble of the log reaches the deciding thread.

mod block;
mod keeper;
mod pen;
mod recent;
mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gate_api::wire::{Fate, Happening, LogPage, Record, Stretch};
use gate_core::id::Epoch;
use gate_core::path::ViewPath;
use prometheus_client::metrics::counter::Counter;

use keeper::Keeper;
use pen::Tray;
use recent::Recent;
use store::{Kind, Store};

pub use store::UnknownFormat;

#[cfg(fuzzing)]
pub(crate) use block::read_any;
pub(crate) use pen::Pen;

/// How much of the log is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Bytes of its file, about.
    pub bytes_max: u64,
    /// Age of a record, about.
    pub age_max: Duration,
}

/// The running log; it ends, with all written that can be, when this is dropped.
pub(crate) struct Audit {
    reader: Reader,
    thread: Option<JoinHandle<()>>,
}

/// Asks the log, from any thread.
#[derive(Clone)]
pub(crate) struct Reader(Sender<Word>);

/// What the keeper hears.
enum Word {
    /// There is something in the tray.
    Filled,
    /// Somebody asks.
    Asked(Question),
    /// It is time to end.
    End,
}

/// A question about what happened.
pub(crate) struct Question {
    /// Where.
    pub filter: Filter,
    /// When.
    pub stretch: Stretch,
    /// At most so many records.
    pub limit: usize,
    /// When to answer even if there is nothing.
    pub until: Instant,
    /// Hears the answer; must not block.
    pub answer: Box<dyn FnOnce(LogPage) + Send>,
}

/// Which records are asked for.
#[derive(Clone, Debug)]
pub(crate) enum Filter {
    /// All.
    All,
    /// What happened to claims at or beneath a path, and to the log itself.
    Beneath { space: String, path: ViewPath },
    /// What somebody may ask about of a path, what is beneath it and what is above.
    OddAt { space: String, path: ViewPath },
    /// Turns that were taken away, wherever.
    TakenAway,
}

impl Audit {
    /// Opens or makes the log in a state directory, and begins the run of that epoch in it. What
    /// cannot be kept is added to `missing`.
    pub fn start(
        state_dir: &Path,
        epoch: Epoch,
        bounds: Bounds,
        missing: Counter,
    ) -> Result<(Audit, Pen), AuditError> {
        let (store, former) = Store::open(state_dir, epoch, bounds).map_err(AuditError::Format)?;
        let tray = Arc::new(Tray::new(epoch, missing.clone()));
        let (words, heard): (_, Receiver<Word>) = channel();
        let mut pen = Pen::new(tray.clone(), words.clone());
        pen.note(Happening::Started { version: env!("CARGO_PKG_VERSION").into(), former });
        pen.hand_over();
        let keeper = Keeper::new(tray, store, Recent::new(epoch, missing));
        let thread = std::thread::Builder::new()
            .name("gate-audit".into())
            .spawn(move || keeper.run(&heard))
            .map_err(AuditError::System)?;
        Ok((Audit { reader: Reader(words), thread: Some(thread) }, pen))
    }

    /// Returns a pen and a reader of a log that nobody keeps.
    #[cfg(test)]
    pub fn unkept(epoch: Epoch) -> (Reader, Pen) {
        let (words, _) = channel();
        let tray = Tray::new(epoch, Counter::default());
        (Reader(words.clone()), Pen::new(Arc::new(tray), words))
    }

    /// Returns what asks it.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let _ = self.reader.0.send(Word::End);
        if let Some(thread) = self.thread.take() {
            // A panic there was told when it happened.
            let _ = thread.join();
        }
    }
}

impl Reader {
    /// Asks. After the end of the log the question is dropped, and its answer with it.
    pub fn ask(&self, question: Question) {
        let _ = self.0.send(Word::Asked(question));
    }
}

/// Why a broker cannot have its log.
#[derive(Debug)]
pub(crate) enum AuditError {
    /// Another release wrote it.
    Format(UnknownFormat),
    /// The system has no room for its thread.
    System(io::Error),
}

impl Filter {
    fn kind(&self) -> Kind {
        match self {
            Filter::All | Filter::Beneath { .. } => Kind::All,
            Filter::OddAt { .. } | Filter::TakenAway => Kind::Odd,
        }
    }

    fn accepts(&self, record: &Record<'_>) -> bool {
        let is_claim = matches!(record.what, Happening::Claim { .. });
        match self {
            Filter::All => true,
            Filter::Beneath { space, path } if is_claim => {
                touches(record, space, |named| named.beneath(path).is_some())
            }
            Filter::Beneath { .. } => !matches!(record.what, Happening::Client { .. }),
            Filter::OddAt { space, path } => {
                let near = |named: &ViewPath| {
                    named.beneath(path).is_some() || path.beneath(named).is_some()
                };
                record.is_odd() && touches(record, space, near)
            }
            Filter::TakenAway => {
                matches!(record.what, Happening::Claim { became: Fate::Revoked { .. }, .. })
            }
        }
    }
}

fn touches(record: &Record<'_>, space: &str, is_near: impl Fn(&ViewPath) -> bool) -> bool {
    let Happening::Claim { claim, .. } = &record.what else { return false };
    let mut places = claim.places.iter().filter(|place| place.space == space);
    places.any(|place| place.path.as_ref().is_some_and(&is_near))
}
