//! When the table must look again, and what it does then.

use std::time::Duration;

use super::super::event::{End, Event, Recall, RecallCause, RecallStage, Refusal, Revocation};
use super::super::limits::{COURTESY_MAX, ENDED_AT_ONCE_MAX, LOOK_PAUSE_MIN};
use super::super::slot::{Held, Stay, Suspicion, Waiting};
use super::super::want::{Access, Op};
use super::judge::Asker;
use super::{Presence, Table};
use crate::id::{SessionId, Ticket};
use crate::time::Time;

/// What an alarm is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    Claim(Ticket),
    Session(SessionId),
    Grace,
}

impl Table {
    /// Sets a claim's alarm to its next instant of interest.
    pub(super) fn rearm(&mut self, ticket: Ticket) {
        let Some(slot) = self.slots.get_mut(&ticket) else { return };
        let next = slot.next_alarm();
        if next == slot.alarm {
            return;
        }
        if let Some(old) = std::mem::replace(&mut slot.alarm, next) {
            self.alarms.remove(&(old, Alarm::Claim(ticket)));
        }
        if let Some(next) = next {
            self.alarms.insert((next, Alarm::Claim(ticket)));
        }
    }

    /// Looks again whether a cycle stands that might resolve itself, after `patience`.
    pub(super) fn arm_recheck(&mut self, ticket: Ticket, now: Time, patience: Duration) {
        let slot = self.slot_mut(ticket);
        let waiting = slot.waiting.as_mut().expect("only waiters are in a cycle");
        let look_at = now + patience;
        let suspicion = waiting.suspicion.get_or_insert(Suspicion { since: now, look_at });
        suspicion.look_at = suspicion.look_at.min(look_at);
        self.rearm(ticket);
    }

    /// Decides the first thing that is due, if any is.
    pub(super) fn decide_tick(&self, now: Time) -> Vec<Event> {
        match self.alarms.first() {
            Some((time, alarm)) if *time <= now => match alarm {
                Alarm::Claim(ticket) => Vec::from_iter(self.decide_claim_alarm(*ticket, now)),
                Alarm::Session(session) => self.decide_session_alarm(*session, now),
                Alarm::Grace => self.decide_grace_end(now),
            },
            _ => Vec::new(),
        }
    }

    fn decide_claim_alarm(&self, ticket: Ticket, now: Time) -> Option<Event> {
        let slot = self.slot(ticket);
        let held = slot.held.as_ref().and_then(|held| self.decide_held_alarm(ticket, held, now));
        held.or_else(|| self.decide_waiting_alarm(ticket, slot.waiting.as_ref()?, now))
    }

    fn decide_waiting_alarm(&self, ticket: Ticket, waiting: &Waiting, now: Time) -> Option<Event> {
        if waiting.timeout_at().is_some_and(|at| at <= now) {
            return Some(self.refuse_waiter(ticket, Refusal::TimedOut));
        }
        if let Some(suspicion) = waiting.suspicion.filter(|suspicion| suspicion.look_at <= now) {
            return Some(self.decide_suspicion(ticket, suspicion, now));
        }
        if waiting.look_again.is_some_and(|at| at <= now) {
            return Some(self.decide_idle(ticket, waiting, now));
        }
        None
    }

    /// Cuts a cycle that stood for as long as it might have resolved itself.
    fn decide_suspicion(&self, ticket: Ticket, suspicion: Suspicion, now: Time) -> Event {
        let Some(cycle) = self.find_cycle(ticket) else { return Event::Cleared { ticket } };
        let until = suspicion.since + cycle.certainty.patience();
        if until <= now {
            return self.refuse_waiter(cycle.youngest, Refusal::Deadlock);
        }
        Event::Suspected { ticket, until }
    }

    /// Lets a reader go on ungated if all it waits for are open handles that did nothing so long.
    fn decide_idle(&self, ticket: Ticket, waiting: &Waiting, now: Time) -> Event {
        let patience = waiting.claim.read_wait.expect("only patient readers look again");
        let patience = patience.max(LOOK_PAUSE_MIN);
        let mut idle_since = waiting.since;
        for blocker in self.blockers(ticket) {
            let slot = self.slot(blocker);
            if !slot.asked().want().op.follows_file() {
                return Event::Deferred { ticket, until: now + patience };
            }
            if let Some(held) = &slot.held {
                idle_since = idle_since.max(held.active);
            }
        }
        if idle_since + patience <= now {
            Event::Ended { ticket, end: End::Ungated }
        } else {
            Event::Deferred { ticket, until: idle_since + patience }
        }
    }

    /// Returns when a claim that begins to wait first asks whether those before it are idle.
    pub(super) fn first_look(claim: &super::super::claim::Claim, at: Time) -> Option<Time> {
        let reader = claim.want().op == Op::Open(Access::Read);
        claim.read_wait.filter(|_| reader).map(|patience| at + patience)
    }

    fn decide_held_alarm(&self, ticket: Ticket, held: &Held, now: Time) -> Option<Event> {
        let revoked = |why| Event::Ended { ticket, end: End::Revoked(why) };
        if held.lease_ends_at().is_some_and(|at| at <= now) {
            return Some(revoked(Revocation::LeaseLost));
        }
        if held.stay_ends_at().is_none_or(|at| now < at) {
            return None;
        }
        if let Some(why) = held.revoked() {
            return Some(revoked(why));
        }
        let has_session = held.claim.lease.is_none();
        if has_session && !self.is_wanted(ticket, held) {
            return Some(match held.stay {
                Stay::Recalled(Recall { why: RecallCause::Request, .. }) => {
                    Event::Outstayed { ticket }
                }
                _ => Event::Spared { ticket, until: look_again(held, now) },
            });
        }
        Some(match held.stay {
            Stay::Until(_) if has_session => Event::Recalled { ticket, recall: warning(held, now) },
            Stay::Recalled(Recall { stage: RecallStage::Warned, why, until }) => {
                let recall = Recall { stage: RecallStage::Asked, why, until };
                Event::Recalled { ticket, recall }
            }
            Stay::Recalled(Recall { why: RecallCause::Request, .. }) => {
                self.revocation(ticket, held, Revocation::Recalled, now)
            }
            Stay::Free
            | Stay::Until(_)
            | Stay::Recalled(_)
            | Stay::Outstayed { .. }
            | Stay::Revoked { .. } => self.revocation(ticket, held, Revocation::MaxHold, now),
        })
    }

    /// Returns the end of one that is in the way of a waiter and should have let go before it came.
    pub(super) fn end_of_outstayed(&self, waiter: Ticket, now: Time) -> Option<Event> {
        if self.outstayed.is_empty() {
            return None;
        }
        let slot = self.slot(waiter);
        let asker = Asker { ticket: waiter, party: &slot.asked().party, kin: &slot.kin };
        let mut keys = slot.waiting.iter().flat_map(|waiting| &waiting.keys);
        let holder = keys.find_map(|(id, mode)| {
            let queue = &self.queues[*id];
            queue.holders_against(*mode).find(|holder| {
                self.outstayed.contains(holder)
                    && *holder != waiter
                    && !self.is_kin(asker, queue, *holder)
            })
        })?;
        let held = self.slot(holder).held.as_ref().expect("holders hold");
        Some(self.revocation(holder, held, Revocation::Recalled, now))
    }

    /// Returns whether a holder is in the way of somebody.
    fn is_wanted(&self, ticket: Ticket, held: &Held) -> bool {
        let all = Ticket(u64::MAX);
        held.keys.iter().any(|(queue, mode)| {
            let queue = &self.queues[*queue];
            queue.waiters_against(*mode, all).any(|waiter| {
                let slot = self.slot(waiter);
                let asker = Asker { ticket: waiter, party: &slot.asked().party, kin: &slot.kin };
                waiter != ticket && !self.is_kin(asker, queue, ticket)
            })
        })
    }

    /// A lease that ran out ends nothing by itself: as long as nobody wants what the session has,
    /// it may still come back to it.
    fn decide_session_alarm(&self, session: SessionId, now: Time) -> Vec<Event> {
        match self.sessions[&session].presence {
            Presence::Away(_) => self.running_over(session, now),
            Presence::Overdue(_) => self.closing(session, Closing::LeaseLost, ENDED_AT_ONCE_MAX),
            Presence::Here | Presence::Former => Vec::new(),
        }
    }

    /// Returns what happens when a lease runs out: who has nothing has nothing to come back to.
    fn running_over(&self, session: SessionId, now: Time) -> Vec<Event> {
        if self.sessions[&session].tickets.is_empty() {
            return vec![Event::Closed { session }];
        }
        vec![Event::Overdue { session, until: now + COURTESY_MAX }]
    }

    /// Returns the events that end the oldest `most` of what is a session's; then the session
    /// itself, if that is all.
    pub(super) fn closing(&self, session: SessionId, how: Closing, most: usize) -> Vec<Event> {
        let tickets = &self.sessions[&session].tickets;
        let ended = tickets.iter().take(most).map(|ticket| self.ending(*ticket, how));
        let closed = (tickets.len() <= most).then_some(Event::Closed { session });
        ended.chain(closed).collect()
    }

    fn ending(&self, ticket: Ticket, how: Closing) -> Event {
        let slot = self.slot(ticket);
        let end = match how {
            Closing::LeaseLost if slot.held.is_some() => End::Revoked(Revocation::LeaseLost),
            Closing::LeaseLost | Closing::Goodbye => End::Released,
        };
        Event::Ended { ticket, end: slot.end(end) }
    }

    /// Returns whether a session is being ended by [`Table::settle`]: until it is gone no command
    /// must come between.
    pub fn ends_a_session(&self) -> bool {
        self.condemned.is_some()
    }

    /// Returns the next step towards the end of a session that somebody wants something of.
    pub(super) fn next_of_condemned(&mut self) -> Option<Event> {
        let session = self.condemned?;
        Some(match self.sessions[&session].tickets.first() {
            Some(ticket) => self.ending(*ticket, Closing::LeaseLost),
            None => {
                self.condemned = None;
                Event::Closed { session }
            }
        })
    }

    /// Who did not come back in time has run over its lease like anybody else. It is spared only
    /// if nobody can have been let in before: a broker that forgot cannot know, and ends it, in steps.
    fn decide_grace_end(&self, now: Time) -> Vec<Event> {
        let mut former: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.presence == Presence::Former)
            .map(|(id, _)| *id)
            .collect();
        former.sort_unstable();
        if let Some(first) = former.first().filter(|_| self.may_have_forgotten()) {
            return self.closing(*first, Closing::LeaseLost, ENDED_AT_ONCE_MAX);
        }
        let ran_out = former.into_iter().flat_map(|session| self.running_over(session, now));
        ran_out.chain([Event::GraceEnded]).collect()
    }

    /// Returns the end of the grace, if this is the moment: no former session is left. Where
    /// whole sessions may have been lost, nobody knows, and it takes its time.
    pub(super) fn grace_over(&self, leaving: SessionId) -> Option<Event> {
        self.grace.filter(|grace| !grace.sealed)?;
        let others = self
            .sessions
            .iter()
            .any(|(id, session)| *id != leaving && session.presence == Presence::Former);
        (!others).then_some(Event::GraceEnded)
    }
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// Its client said good-bye, or its process is dead.
    Goodbye,
    /// It was away for longer than its lease.
    LeaseLost,
}

/// Returns when a holder is looked at again that nobody waits for.
fn look_again(held: &Held, now: Time) -> Option<Time> {
    match Stay::of(&held.claim, held.counted_from) {
        Stay::Until(at) => Some(at.max(now + held.claim.recall_notice())),
        Stay::Free | Stay::Recalled(_) | Stay::Outstayed { .. } | Stay::Revoked { .. } => None,
    }
}

/// Tells a holder that it will be asked to let go: it has the whole notice, however late somebody
/// began to wait.
fn warning(held: &Held, now: Time) -> Recall {
    let until = now + held.claim.recall_notice() * 2;
    Recall { why: RecallCause::MaxHold, stage: RecallStage::Warned, until }
}
