//! What the desk does while the journal cannot be written.
//!
//! Nobody is let in or put in line, as nobody could be told (N3): who asks is told no at once, who
//! waits already keeps the place. All else goes on: clients let go, give up, look and leave, and
//! hear what became of that before it is written. For a run that does not know of it takes more to
//! be held than is, never less.
//!
//! It ends with the first batch that is written; then those who wait are let in.

use gate_api::wire::{Halt, ServerMessage};
use gate_core::id::{OwnerId, SessionId};
use gate_core::lock::event::{Command, Refusal, Standstill};
use gate_core::lock::table::Record;
use gate_core::time::Time;
use rustc_hash::FxHashSet;

use super::{Desk, Letter, Stage};
use crate::clock;
use crate::mail::ConnectionId;
use crate::stateless::{Outcome, Reply};

impl Desk {
    /// The journal cannot be written: grants nothing until it can.
    pub fn stand_still(&mut self, now: Time, kind: Standstill, why: String) {
        if self.stands_still() {
            return;
        }
        tracing::error!(why, "the journal cannot be written; nothing is granted until it can");
        self.halt = Some(Halt { kind, since_ms: clock::wall_ms(), why });
        self.metrics.halted.set(1);
        self.take_back(now, Refusal::Standstill(kind));
    }

    /// Returns whether it waits for the journal.
    pub fn stands_still(&self) -> bool {
        self.halt.is_some()
    }

    /// Returns whether its letters may be told though not all is written.
    pub(super) fn tells_no_grant(&self) -> bool {
        self.letters.is_empty()
            || (self.stands_still() && !self.letters.iter().any(Letter::needs_journal))
    }

    /// The journal is written again.
    pub(super) fn go_on(&mut self) {
        if self.halt.take().is_some() {
            tracing::info!("the journal is written again");
            self.metrics.halted.set(0);
        }
    }

    /// Returns what whoever asks is told now, if nothing is granted.
    pub(super) fn refusal_of_all(&self) -> Option<Refusal> {
        self.halt.as_ref().map(|halt| Refusal::Standstill(halt.kind))
    }

    /// Takes back what was decided and not told yet: its owners are told no instead. Who came back
    /// may do so again.
    fn take_back(&mut self, now: Time, why: Refusal) {
        let letters = std::mem::take(&mut self.letters);
        let returning: FxHashSet<ConnectionId> = letters.iter().filter_map(returns).collect();
        for letter in letters {
            match letter {
                Letter::Client(connection, _) if returning.contains(&connection) => {}
                Letter::Client(connection, ServerMessage::Granted(granted)) => {
                    self.deny(now, connection, granted.owner, why);
                }
                Letter::Client(connection, ServerMessage::Waiting { owner, .. }) => {
                    self.deny(now, connection, owner, why);
                }
                Letter::Stateless(Reply { answer, outcome: Outcome::Granted(lock) }) => {
                    self.undelivered(now, &lock);
                    let outcome = Outcome::Refused(why);
                    self.letters.push(Letter::Stateless(Reply { answer, outcome }));
                }
                other => self.letters.push(other),
            }
        }
        self.letters.extend(returning.into_iter().map(Letter::HangUp));
    }

    /// Tells an owner no that stands in the table already.
    fn deny(&mut self, now: Time, connection: ConnectionId, number: u64, why: Refusal) {
        let Some(session) = self.session_of(connection) else { return };
        let owner = OwnerId { session, number };
        let record = self.table.ticket_of(owner).and_then(|ticket| self.table.record(ticket));
        // It may be gone again by now: who withdrew is told by the grant that came before.
        let _ = self.run(now, Command::Withdraw { owner, why });
        // The end of a wait is told by itself.
        if !matches!(record, Some(Record::Waiting(_))) {
            let refused = ServerMessage::Refused { owner: number, why };
            self.letters.push(Letter::Client(connection, refused));
        }
    }

    fn session_of(&self, connection: ConnectionId) -> Option<SessionId> {
        self.visitors.get(&connection).map(|visitor| &visitor.stage).and_then(Stage::session)
    }
}

impl Letter {
    /// Returns whether it is true only if the journal has what it tells of.
    fn needs_journal(&self) -> bool {
        match self {
            Letter::Client(_, message) => matches!(
                message,
                ServerMessage::Granted(_) | ServerMessage::Waiting { .. } | ServerMessage::Restored
            ),
            Letter::Stateless(reply) => matches!(reply.outcome, Outcome::Granted(_)),
            Letter::HangUp(_)
            | Letter::Watch(..)
            | Letter::Unwatch(_)
            | Letter::Probe(_)
            | Letter::Unprobe(_) => false,
        }
    }
}

fn returns(letter: &Letter) -> Option<ConnectionId> {
    match letter {
        Letter::Client(connection, ServerMessage::Restored) => Some(*connection),
        _ => None,
    }
}
