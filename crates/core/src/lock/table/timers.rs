//! When the table must look again, and what it does then.

use super::super::event::{End, Event, Refusal, Revocation};
use super::super::limits::DEADLOCK_PATIENCE;
use super::super::slot::{Held, Waiting};
use super::super::want::{Access, Op};
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

    pub(super) fn arm_recheck(&mut self, ticket: Ticket, now: Time) {
        let slot = self.slot_mut(ticket);
        let waiting = slot.waiting.as_mut().expect("only waiters are in a cycle");
        waiting.recheck.get_or_insert(now + DEADLOCK_PATIENCE);
        self.rearm(ticket);
    }

    /// Decides the first thing that is due, if any is.
    pub(super) fn decide_tick(&self, now: Time) -> Vec<Event> {
        match self.alarms.first() {
            Some((time, alarm)) if *time <= now => match alarm {
                Alarm::Claim(ticket) => Vec::from_iter(self.decide_claim_alarm(*ticket, now)),
                Alarm::Session(session) => self.closing(*session),
                Alarm::Grace => self.decide_grace_end(),
            },
            _ => Vec::new(),
        }
    }

    fn decide_claim_alarm(&self, ticket: Ticket, now: Time) -> Option<Event> {
        let slot = self.slot(ticket);
        let held = slot.held.as_ref().and_then(|held| decide_held_alarm(ticket, held, now));
        held.or_else(|| self.decide_waiting_alarm(ticket, slot.waiting.as_ref()?, now))
    }

    fn decide_waiting_alarm(&self, ticket: Ticket, waiting: &Waiting, now: Time) -> Option<Event> {
        if waiting.timeout_at().is_some_and(|at| at <= now) {
            return Some(self.refuse_waiter(ticket, Refusal::TimedOut));
        }
        if waiting.recheck.is_some_and(|at| at <= now) {
            return Some(match self.find_cycle(ticket) {
                Some(cycle) => self.refuse_waiter(cycle.youngest, Refusal::Deadlock),
                None => Event::Rechecked { ticket },
            });
        }
        if waiting.look_again.is_some_and(|at| at <= now) {
            return Some(self.decide_idle(ticket, waiting, now));
        }
        None
    }

    /// Lets a reader go on ungated if all it waits for are open handles that did nothing so long.
    fn decide_idle(&self, ticket: Ticket, waiting: &Waiting, now: Time) -> Event {
        let patience = waiting.claim.read_wait.expect("only patient readers look again");
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

    /// Returns the events that end a session and all that is its.
    pub(super) fn closing(&self, session: SessionId) -> Vec<Event> {
        let mut tickets: Vec<Ticket> = self.sessions[&session].tickets.iter().copied().collect();
        tickets.sort_unstable();
        let ended = tickets.into_iter().map(|ticket| Event::Ended { ticket, end: End::Released });
        ended.chain([Event::Closed { session }]).collect()
    }

    fn decide_grace_end(&self) -> Vec<Event> {
        let mut former: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.presence == Presence::Former)
            .map(|(id, _)| *id)
            .collect();
        former.sort_unstable();
        let mut events: Vec<Event> = former.into_iter().flat_map(|id| self.closing(id)).collect();
        events.push(Event::GraceEnded);
        events
    }

    /// Returns the end of the grace, if this is the moment: no former session is left.
    pub(super) fn grace_over(&self, leaving: SessionId) -> Option<Event> {
        self.grace?;
        let others = self
            .sessions
            .iter()
            .any(|(id, session)| *id != leaving && session.presence == Presence::Former);
        (!others).then_some(Event::GraceEnded)
    }
}

fn decide_held_alarm(ticket: Ticket, held: &Held, now: Time) -> Option<Event> {
    let revoked = |why| Some(Event::Ended { ticket, end: End::Revoked(why) });
    if held.max_hold_ends_at().is_some_and(|at| at <= now) {
        return revoked(Revocation::MaxHold);
    }
    if held.lease_ends_at().is_some_and(|at| at <= now) {
        return revoked(Revocation::LeaseLost);
    }
    None
}
