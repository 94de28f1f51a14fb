//! What becomes of owners while the broker is away, and when it is back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gate_core::lock::claim::Patience;
use gate_core::lock::event::{Refusal, Revocation};

use super::{Asked, Call, Heartbeats, Link, Owner, State};
use crate::link::Outgoing;
use crate::session::Answer;
use crate::wire::{Acquire, AttachRefusal, ClientMessage, Known, Welcome};

/// How long who asks after a lease without a broker still waits for it: a broker that is back is
/// found within a pause between two attempts, and its clients must not fail until then.
const LATE_PATIENCE: Duration = Duration::from_secs(1);

impl State {
    /// The connection is gone; all who wait are errands now.
    pub fn lose(&mut self, now: Instant) {
        if self.is_closed() {
            return;
        }
        self.link = Link::Away { since: now };
        self.queries.clear();
        let asked = self.owners.iter().filter(|(_, owner)| matches!(owner, Owner::Asked(_)));
        self.errands = asked.map(|(number, _)| *number).collect();
        // The oldest is taken first, from the end.
        self.errands.reverse();
    }

    /// Takes note of what keeps it from a broker that is there, if anything does; returns whether that
    /// is news.
    pub fn note_bar(&mut self, bar: Option<AttachRefusal>) -> bool {
        let is_news = bar.is_some() && bar != self.bar;
        self.bar = bar;
        is_news
    }

    /// Returns whom to call now that the broker is away, one at a time.
    pub fn next_errand(&mut self, now: Instant) -> Option<Call> {
        while let Some(owner) = self.errands.pop() {
            let Some(Owner::Asked(asked)) = self.owners.get(&owner) else { continue };
            let call = match self.answer_while_away(asked, now) {
                Some(answer) => self.finish(owner, answer),
                None => self.tell_waiting(owner, None),
            };
            if call.is_some() {
                return call;
            }
        }
        None
    }

    /// Returns when somebody who waits must be told something, and makes them errands then.
    pub fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for (number, owner) in &self.owners {
            let Owner::Asked(asked) = owner else { continue };
            if self.answer_while_away(asked, now).is_some() {
                self.errands.push(*number);
            }
            let gone = self.gone_at(asked);
            let out_of_patience = asked.patience_ends_at();
            let at = gone.into_iter().chain(out_of_patience).filter(|at| *at > now).min();
            next = next.into_iter().chain(at).min();
        }
        if self.errands.is_empty() { next } else { Some(now) }
    }

    /// The broker answered again; returns what was lost meanwhile. What the welcome says is known is
    /// that to this client.
    pub fn come_back(
        &mut self,
        outgoing: Box<dyn Outgoing>,
        heartbeat: bool,
        welcome: Welcome,
        now: Instant,
    ) -> Vec<Call> {
        if self.is_closed() {
            return Vec::new();
        }
        self.link = Link::Up { outgoing, heartbeat };
        self.bar = None;
        self.heartbeats = Heartbeats::default();
        self.resume = welcome.session;
        self.lease = welcome.lease;
        self.broker = welcome.broker;
        // Whoever could not be told yet is still asked for, and is told by the broker.
        self.errands.clear();
        let is_known = welcome.known == Known::All;
        let lost = if is_known {
            self.list_all();
            Vec::new()
        } else {
            self.begin_again()
        };
        let (waiting, anew): (Vec<_>, Vec<_>) = self
            .asked(now)
            .into_iter()
            .partition(|acquire| is_known && acquire.patience != Patience::Try);
        for acquire in waiting {
            self.say(&ClientMessage::Waits { acquire });
        }
        if welcome.known != Known::Nothing {
            self.say(&ClientMessage::Listed);
            self.tell_created();
            self.tell_leaving();
        }
        for acquire in anew {
            self.say(&ClientMessage::Acquire(acquire));
        }
        self.withdraw_again();
        lost
    }

    fn list_all(&mut self) {
        self.attach_again();
        let held: Vec<_> = self
            .owners
            .values()
            .filter_map(|owner| match owner {
                Owner::Held { acquire, token, .. }
                | Owner::Revoked { acquire, token }
                | Owner::Leaving { acquire, token, .. } => {
                    Some(ClientMessage::Held { acquire: acquire.clone(), token: *token })
                }
                Owner::Asked(_) => None,
            })
            .collect();
        for message in held {
            self.say(&message);
        }
    }

    /// A broker that comes back may have forgotten what was attached last.
    fn attach_again(&mut self) {
        for (space, source) in self.sources.clone() {
            self.say(&ClientMessage::Attach { space, source });
        }
    }

    /// Nothing that was held stands; what is waited for is asked for anew.
    fn begin_again(&mut self) -> Vec<Call> {
        self.attach_again();
        let gone = self.owners.extract_if(.., |_, owner| !matches!(owner, Owner::Asked(_)));
        gone.filter(|(_, owner)| matches!(owner, Owner::Held { .. }))
            .map(|(owner, _)| {
                let (why, reason) = (Revocation::LeaseLost, String::new());
                Call::Revoked { owner, why, reason }
            })
            .collect()
    }

    /// Returns what is waited for, in the order it was asked, with the patience that is left.
    fn asked(&self, now: Instant) -> Vec<Arc<Acquire>> {
        let asked = self.owners.values().filter_map(|owner| match owner {
            Owner::Asked(asked) => {
                let waited = now.saturating_duration_since(asked.since);
                Some(asked.acquire.clone().with_patience_left(waited))
            }
            Owner::Held { .. } | Owner::Revoked { .. } | Owner::Leaving { .. } => None,
        });
        asked.collect()
    }

    /// The broker may not have heard of it, or may have forgotten. Names move after it.
    fn tell_created(&mut self) {
        let created = self.owners.iter().filter_map(|(owner, held)| match held {
            Owner::Held { file: Some(file), .. } => Some((*owner, *file)),
            _ => None,
        });
        for (owner, file) in created.collect::<Vec<_>>() {
            self.say(&ClientMessage::Created { owner, file });
        }
    }

    fn tell_leaving(&mut self) {
        let leaving = self.owners.extract_if(.., |_, owner| matches!(owner, Owner::Leaving { .. }));
        for (owner, leaving) in leaving.collect::<Vec<_>>() {
            if let Owner::Leaving { change, .. } = leaving {
                self.say(&ClientMessage::Release { owner, change: Some(change) });
            }
        }
    }

    /// Who was withdrawn while the session's thread had not yet got to it.
    fn withdraw_again(&mut self) {
        let withdrawn = self.owners.iter().filter_map(|(number, owner)| match owner {
            Owner::Asked(Asked { withdrawn: Some(why), .. }) => Some((*number, *why)),
            _ => None,
        });
        for (owner, why) in withdrawn.collect::<Vec<_>>() {
            self.say(&ClientMessage::Withdraw { owner, why });
        }
    }

    fn answer_while_away(&self, asked: &Asked, now: Instant) -> Option<Answer> {
        if let Some(why) = asked.withdrawn {
            return Some(Answer::Refused(why));
        }
        if asked.acquire.patience == Patience::Try {
            return Some(Answer::Refused(Refusal::WouldBlock));
        }
        if self.gone_at(asked).is_some_and(|at| at <= now) {
            return Some(Answer::BrokerGone);
        }
        let timed_out = asked.patience_ends_at().is_some_and(|at| at <= now);
        timed_out.then_some(Answer::Refused(Refusal::TimedOut))
    }

    /// Returns when somebody who asked is told that the broker is gone.
    fn gone_at(&self, asked: &Asked) -> Option<Instant> {
        match self.link {
            Link::Away { since } => Some((since + self.lease).max(asked.since + LATE_PATIENCE)),
            Link::Up { .. } | Link::Closed => None,
        }
    }
}

impl Asked {
    fn patience_ends_at(&self) -> Option<Instant> {
        match self.acquire.patience {
            Patience::Limited(limit) => self.since.checked_add(limit),
            Patience::Try | Patience::Endless => None,
        }
    }
}

impl Acquire {
    /// Returns the same request after it waited so long already.
    fn with_patience_left(self: Arc<Self>, waited: Duration) -> Arc<Acquire> {
        match self.patience {
            Patience::Limited(limit) => {
                let patience = Patience::Limited(limit.saturating_sub(waited));
                Arc::new(Acquire { patience, ..Acquire::clone(&self) })
            }
            Patience::Try | Patience::Endless => self,
        }
    }
}
