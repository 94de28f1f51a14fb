//! A turn: what a call has to have before it touches the source.
//!
//! [`Turn`] is the broker's yes in the hands of one call or one handle; [`refusal_errno`] is its
//! no as a caller sees it.

use std::time::Duration;

use gate_api::{Answer, Ask};
use gate_core::id::Token;
use gate_core::lock::claim::Patience;
use gate_core::lock::event::{Change, Refusal, Standstill};
use gate_fuse::{Errno, Reply};

use crate::view::View;

/// How long a call may wait with the directory locked by the kernel: nobody else gets at it.
const UNDER_LOCK_WAITS_MAX: Duration = Duration::from_millis(50);

/// How long a call waits to hear that its turn still stands, where that is not known.
pub(crate) const PROOF_PATIENCE: Duration = Duration::from_secs(1);

/// The right to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Turn {
    /// An owner at the broker was let in.
    Granted {
        /// Its number in the view's session.
        owner: u64,
        /// What tells what is done in it from what is done in later ones.
        token: Token,
    },
    /// Nothing is held: the name is not gated, or those in the way are idle.
    Ungated,
}

impl Turn {
    /// The turn of an owner, whose token is its number.
    #[cfg(test)]
    pub fn of(owner: u64) -> Turn {
        let token = Token { epoch: gate_core::id::Epoch(1), counter: owner };
        Turn::Granted { owner, token }
    }

    /// Returns its token; none without a turn.
    pub fn token(self) -> Option<Token> {
        match self {
            Turn::Granted { token, .. } => Some(token),
            Turn::Ungated => None,
        }
    }
}

/// What a call does once it is its turn; it answers the reply and gives the turn back.
pub(crate) type Run = Box<dyn FnOnce(&View, Reply, Turn, Round) + Send>;

/// Whether the kernel would issue a call again if it were answered ESTALE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Round {
    /// It would.
    First,
    /// It was issued again already: ESTALE would reach the program.
    Last,
}

/// The end of a request at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go(Turn),
    Stop(Errno),
}

impl Verdict {
    /// Reads an answer of the broker; `None` if there is more to come.
    pub fn of(answer: &Answer) -> Option<Verdict> {
        Some(match answer {
            Answer::Waiting { .. } => return None,
            Answer::Granted(grant) => {
                Verdict::Go(Turn::Granted { owner: grant.owner, token: grant.token })
            }
            Answer::Ungated => Verdict::Go(Turn::Ungated),
            Answer::Refused(refusal) => Verdict::Stop(refusal_errno(*refusal)),
            Answer::BrokerGone => Verdict::Stop(Errno::IO),
        })
    }
}

impl View {
    /// Gives a turn back, with what the call did to names.
    pub fn end_turn(&self, turn: Turn, change: Option<Change>) {
        match turn {
            Turn::Granted { owner, .. } => self.broker.release(owner, change),
            Turn::Ungated => {}
        }
    }

    /// Returns whether a call may act in a turn that it was given some time ago.
    ///
    /// N7: a view that was stopped, or cut off, may have lost it without having heard of it yet. Then it
    /// first hears of its broker: what was lost is revoked by then. Not for the session's own thread,
    /// which hands out what it has just heard.
    pub fn stands(&self, turn: Turn) -> bool {
        match turn {
            Turn::Granted { owner, .. } => self.broker.stands(owner, PROOF_PATIENCE),
            Turn::Ungated => true,
        }
    }

    /// Returns whether a turn was not taken away, as far as was told.
    pub fn has(&self, turn: Turn) -> bool {
        match turn {
            Turn::Granted { owner, .. } => self.broker.holds(owner),
            Turn::Ungated => true,
        }
    }

    /// Asks with the directory locked by the kernel, for a call that would not be issued again.
    pub fn ask_under_lock(&self, ask: Ask, reply: Reply, run: Run) {
        let ask = Ask { patience: Patience::Limited(UNDER_LOCK_WAITS_MAX), ..ask };
        self.ask_briefly(ask, reply, Round::Last, run);
    }

    /// Asks without a caller that can wait: the reply is held until the final answer, which is not
    /// far.
    pub fn ask_briefly(&self, ask: Ask, reply: Reply, round: Round, run: Run) {
        let view = self.itself();
        let mut waiting = Some((reply, run));
        let then = move |answer: Answer| {
            let Some(verdict) = Verdict::of(&answer) else { return };
            let Some((reply, run)) = waiting.take() else { return };
            match verdict {
                Verdict::Go(turn) => run(&view, reply, turn, round),
                // It was never willing to wait longer than a moment.
                Verdict::Stop(Errno::TIMEDOUT) => reply.error(Errno::AGAIN),
                Verdict::Stop(errno) => reply.error(errno),
            }
        };
        self.broker.acquire(ask, Box::new(then));
    }
}

/// The broker's no as a caller of the file system sees it.
pub(crate) fn refusal_errno(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::TimedOut => Errno::TIMEDOUT,
        Refusal::WouldBlock => Errno::AGAIN,
        Refusal::Interrupted => Errno::INTR,
        Refusal::Deadlock => Errno::DEADLK,
        Refusal::Limit(_) => Errno::NOLCK,
        Refusal::Standstill(Standstill::NoRoom) => Errno::NOSPC,
        // The session and its owners are the view's own: something else than the caller is wrong.
        Refusal::Unknown
        | Refusal::OwnerBusy
        | Refusal::Broken
        | Refusal::Standstill(Standstill::Fault) => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use gate_core::lock::limits::Limit;

    use super::*;

    /// A parked call may end in any errno but ESTALE: the kernel would ask a third time.
    #[test]
    fn no_refusal_is_a_stale_handle() {
        for refusal in [
            Refusal::TimedOut,
            Refusal::WouldBlock,
            Refusal::Interrupted,
            Refusal::Deadlock,
            Refusal::Limit(Limit::Waiters),
            Refusal::Unknown,
            Refusal::OwnerBusy,
            Refusal::Broken,
            Refusal::Standstill(Standstill::NoRoom),
            Refusal::Standstill(Standstill::Fault),
        ] {
            assert_ne!(refusal_errno(refusal), Errno::STALE);
        }
    }
}
