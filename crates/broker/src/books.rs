//! When what the desk decided is journaled, so that it may be told.
//!
//! Whatever somebody is to be told of goes into the journal at once, all of a turn in one batch.
//! Letting go needs no commit of its own: it waits a moment for one that somebody needs.

use std::time::{Duration, Instant};

use gate_core::time::Time;

use crate::desk::Desk;
use crate::journal::Journal;

/// How long what nobody waits for may stay out of the journal.
const COMMIT_DELAY: Duration = Duration::from_millis(4);
/// The pause after a commit that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The journal, and what is still to be written to it.
pub(crate) struct Books {
    journal: Journal,
    commit_by: Option<Time>,
}

impl Books {
    pub fn new(journal: Journal) -> Books {
        Books { journal, commit_by: None }
    }

    #[cfg(test)]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Returns when [`Books::settle`] is due, if nothing else happens.
    pub fn deadline(&self) -> Option<Time> {
        self.commit_by
    }

    /// Journals what must be by now. After that the desk's letters may be delivered; if it fails,
    /// the desk is to stand still first, and it is tried again after a pause.
    pub fn settle(&mut self, desk: &mut Desk, now: Time) -> Result<(), rusqlite::Error> {
        if !desk.is_dirty() {
            return Ok(());
        }
        let is_needed = desk.has_letters() && !desk.stands_still();
        if is_needed || self.commit_by.is_some_and(|by| by <= now) {
            return self.commit(desk, now);
        }
        self.commit_by.get_or_insert(now + COMMIT_DELAY);
        Ok(())
    }

    /// Journals everything.
    pub fn commit(&mut self, desk: &mut Desk, now: Time) -> Result<(), rusqlite::Error> {
        if desk.is_dirty() {
            self.commit_by = Some(now + RETRY_PAUSE);
            let began = Instant::now();
            self.journal.commit(desk.entries())?;
            desk.committed(began.elapsed());
        }
        self.commit_by = None;
        Ok(())
    }
}
