//! Questions wait for their turn: no asker holds up who takes a lock.
//!
//! Each turn of the deciding thread answers a few, oldest first, whoever asked. A client is not
//! heard while it waits for an answer, so there is one of each in line, and a client that asks
//! without end waits for itself alone. Who asks to be told of a change is answered after it.

use std::collections::VecDeque;

use gate_api::v1;
use gate_api::wire::{Reply, Scope, ServerMessage};
use gate_core::id::{SessionId, Ticket};
use tokio::sync::oneshot;

use super::{Desk, Letter};
use crate::bounds::{WATCHES_MAX, WATCHES_PER_CLIENT_MAX};
use crate::mail::ConnectionId;
use crate::stateless::{self, Outcome};

/// Questions over frames that are answered in one turn; of the stateless interface it is one, too.
const ANSWERS_PER_TURN_MAX: usize = 1;

/// What was asked and not answered yet.
#[derive(Default)]
pub(super) struct Questions {
    due: VecDeque<Question>,
    /// To be answered once the table changed.
    watches: Vec<Question>,
    /// Those of the stateless interface.
    pages: VecDeque<Page>,
}

/// A page of a board, for a client of the stateless interface.
pub(super) struct Page {
    pub body: v1::StatusRequest,
    pub after: Ticket,
    pub answer: oneshot::Sender<Outcome>,
}

/// One question of one client.
struct Question {
    connection: ConnectionId,
    id: u64,
    about: About,
}

/// What can be asked that takes a look at the table.
pub(super) enum About {
    Locks { scope: Scope, after: Ticket },
    Why { scope: Scope },
    Status,
    Sessions { after: SessionId },
}

/// What a client asked and is not told yet.
#[derive(Default)]
pub(super) struct Asked {
    /// Whether a question of its own stands in line.
    due: bool,
    /// How many the log is to answer.
    pub of_log: usize,
}

impl Desk {
    /// Takes a question; one that wants to know of a change waits for it.
    pub(super) fn ask(&mut self, connection: ConnectionId, id: u64, about: About) {
        if let Some(visitor) = self.visitors.get_mut(&connection) {
            visitor.asked.due = true;
            self.questions.due.push_back(Question { connection, id, about });
        }
    }

    /// Takes a question that is answered once the table is newer than that; at once if its client
    /// watches too much already.
    pub(super) fn watch(&mut self, connection: ConnectionId, id: u64, about: About, known: u64) {
        let watches = &mut self.questions.watches;
        if watches.len() >= WATCHES_MAX {
            watches.retain(|question| self.visitors.contains_key(&question.connection));
        }
        let own = watches.iter().filter(|question| question.connection == connection);
        let is_room = own.count() < WATCHES_PER_CLIENT_MAX && watches.len() < WATCHES_MAX;
        if known >= self.version && is_room {
            watches.push(Question { connection, id, about });
        } else {
            self.ask(connection, id, about);
        }
    }

    /// Takes a question of the stateless interface.
    pub(super) fn ask_for_page(&mut self, page: Page) {
        self.questions.pages.push_back(page);
    }

    /// The table changed: who watches is to be told.
    pub(super) fn wake_watchers(&mut self) {
        self.questions.due.extend(self.questions.watches.drain(..));
    }

    /// Returns whether anybody waits for an answer.
    pub fn has_questions(&self) -> bool {
        !(self.questions.due.is_empty() && self.questions.pages.is_empty())
    }

    /// Returns whether a client waits for an answer and is not to be heard until then.
    pub fn awaits_answer(&self, connection: ConnectionId) -> bool {
        let asked = self.visitors.get(&connection).map(|visitor| &visitor.asked);
        asked.is_some_and(|asked| asked.due || asked.of_log >= WATCHES_PER_CLIENT_MAX)
    }

    /// Answers as many questions as one turn has time for.
    pub fn answer_some(&mut self) {
        if let Some(Page { body, after, answer }) = self.questions.pages.pop_front() {
            let outcome = self.board(&body, after);
            self.letters.push(Letter::Stateless(stateless::Reply { answer, outcome }));
        }
        for _ in 0..ANSWERS_PER_TURN_MAX {
            let Some(Question { connection, id, about }) = self.next_question() else { return };
            let reply = match about {
                About::Locks { scope, after } => self.locks(&scope, after),
                About::Why { scope } => {
                    self.answer_why(connection, id, &scope);
                    continue;
                }
                About::Status => Reply::Status(self.status()),
                About::Sessions { after } => Reply::Sessions(self.sessions_after(after)),
            };
            self.answered(connection, id, reply);
        }
    }

    /// Tells a client the answer to a question that was taken; one that is gone hears nothing.
    pub fn answered(&mut self, connection: ConnectionId, id: u64, reply: Reply) {
        if let Some(visitor) = self.visitors.get_mut(&connection) {
            match reply {
                Reply::Log(_) => visitor.asked.of_log -= 1,
                _ => visitor.asked.due = false,
            }
        }
        self.reply(connection, id, reply);
    }

    pub(super) fn reply(&mut self, connection: ConnectionId, id: u64, reply: Reply) {
        self.letters.push(Letter::Client(connection, ServerMessage::Reply { id, reply }));
    }

    fn next_question(&mut self) -> Option<Question> {
        loop {
            let question = self.questions.due.pop_front()?;
            // Who is gone wants no answer.
            if self.visitors.contains_key(&question.connection) {
                return Some(question);
            }
        }
    }
}
