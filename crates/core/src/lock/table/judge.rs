//! Whether a claim may go in, and what is in its way.

use super::super::claim::{Claim, Party, Patience};
use super::super::event::{End, Event, Kin, Passed, Refusal};
use super::super::mode::Mode;
use super::super::queue::Queue;
use super::super::slot::QueueId;
use super::{Presence, Table};
use crate::id::{SessionId, Ticket, Token};
use crate::time::Time;

/// The answer to "may this claim go in now?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is in its way that it does not pass.
    Free(Passed),
    /// This queue stops it, in this mode.
    Stopped { queue: QueueId, mode: Mode },
}

/// Who asks: what the rules look at beside the keys.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub ticket: Ticket,
    pub party: &'a Party,
    pub kin: &'a Kin,
}

impl Table {
    /// Finds the next thing that follows from what was applied; to be applied before the next call.
    pub fn settle(&mut self, now: Time) -> Option<Event> {
        if self.may_have_forgotten() {
            return None;
        }
        loop {
            if let Some(event) = self.next_of_condemned() {
                return Some(event);
            }
            let event = match self.ripe.pop_first() {
                Some(ticket) => self.look(ticket, now),
                // Who may go in is in no cycle, and lets its kin pass: that comes first.
                None => {
                    self.suspect_whom_the_moved_wait_for(now);
                    let suspect = self.suspects.pop_first()?;
                    self.cut_cycle(suspect, now)
                }
            };
            if event.is_some() {
                return event;
            }
        }
    }

    /// Looks at one waiter: lets it in, or notes what stops it.
    fn look(&mut self, ticket: Ticket, now: Time) -> Option<Event> {
        let waiting = self.slots.get(&ticket)?.waiting.as_ref()?;
        let claim = waiting.claim.clone();
        let watched = waiting.watch;
        self.unwatch(ticket);
        if self.sessions[&claim.owner.session].presence != Presence::Here {
            if let Some(before) = watched {
                self.wake_first(before);
            }
            return None;
        }
        let slot = self.slot(ticket);
        match self.judge(Asker { ticket, party: &claim.party, kin: &slot.kin }, &claim) {
            Verdict::Free(passed) => {
                let token = Token { epoch: self.epoch, counter: self.next_token };
                let count = slot.count + u32::from(slot.held.is_some());
                let kin = slot.kin.clone();
                Some(Event::Granted { ticket, claim, token, count, passed, kin, at: now })
            }
            Verdict::Stopped { queue, mode } => {
                let may_be_kin = self.may_be_kin(ticket);
                self.queues[queue].watch(ticket, mode, may_be_kin);
                let waiting = self.slot_mut(ticket).waiting.as_mut().expect("looked at above");
                waiting.watch = Some((queue, mode));
                if let Some(before) = watched.filter(|before| *before != (queue, mode)) {
                    self.wake_first(before);
                }
                self.condemned = self.overdue_before(ticket, queue, mode);
                if self.condemned.is_some() {
                    return self.next_of_condemned();
                }
                if let Some(event) = self.end_of_outstayed(ticket, now) {
                    // There may be another one.
                    self.ripe.insert(ticket);
                    return Some(event);
                }
                if claim.patience == Patience::Try {
                    return Some(self.refuse_waiter(ticket, Refusal::WouldBlock));
                }
                // Who comes last and closes a cycle is waited for as kin, or for what its party has.
                if may_be_kin {
                    self.suspects.insert(ticket);
                }
                None
            }
        }
    }

    /// Who watched a key behind somebody that went elsewhere is now the first there.
    fn wake_first(&mut self, (queue, mode): (QueueId, Mode)) {
        self.ripe.extend(self.queues[queue].first_watcher(mode));
    }

    /// Returns the event that ends what a slot waits for.
    pub(super) fn refuse_waiter(&self, ticket: Ticket, why: Refusal) -> Event {
        match self.slot(ticket).held {
            Some(_) => Event::UpgradeEnded { ticket, why },
            None => Event::Ended { ticket, end: End::Refused(why) },
        }
    }

    pub(super) fn unwatch(&mut self, ticket: Ticket) {
        let waiting = self.slot_mut(ticket).waiting.as_mut().expect("only waiters watch");
        if let Some((queue, mode)) = waiting.watch.take() {
            self.queues[queue].unwatch(ticket, mode);
        }
    }

    /// Returns whether a new claim would have to wait: the time to learn what costs a look-up.
    pub fn would_wait(&self, claim: &Claim) -> bool {
        let (ticket, kin) = (Ticket(self.next_ticket), self.kin_of_party(&claim.party));
        let asker = Asker { ticket, party: &claim.party, kin: &kin };
        matches!(self.judge(asker, claim), Verdict::Stopped { .. })
    }

    /// Returns the holders that a new claim would wait for, at most `most` of each key: those in
    /// its own way, and those in the way of whom it would stand behind.
    pub fn holders_in_the_way(&self, claim: &Claim, most: usize) -> Vec<Ticket> {
        let (ticket, kin) = (Ticket(self.next_ticket), self.kin_of_party(&claim.party));
        let asker = Asker { ticket, party: &claim.party, kin: &kin };
        let own = || claim.keys().iter().filter_map(|(key, mode)| Some((self.queue(key)?, mode)));
        // One of each line is enough: the claim passes none of it, or all of it for one kin.
        let first = |(queue, mode): (&Queue, _)| queue.waiters_against(mode, ticket).next();
        let before = own().filter_map(first);
        let before = before.flat_map(|waiter| &self.slot(waiter).waiting);
        let theirs = before.flat_map(|waiting| &waiting.keys);
        let theirs = theirs.map(|(id, mode)| (&self.queues[*id], *mode));
        let of_key = |(queue, mode): (&Queue, Mode)| -> Vec<Ticket> {
            let holders = queue.holders_against(mode);
            holders.filter(|holder| !self.is_kin(asker, queue, *holder)).take(most).collect()
        };
        own().chain(theirs).flat_map(of_key).collect()
    }

    /// Returns a session that is in the way of a waiter at a key out of courtesy alone: its lease ran
    /// out. The shorter of the two lists is walked, that of what is spared or that of the key.
    fn overdue_before(&self, ticket: Ticket, queue: QueueId, mode: Mode) -> Option<SessionId> {
        let queue = &self.queues[queue];
        let slot = self.slot(ticket);
        let asker = Asker { ticket, party: &slot.asked().party, kin: &slot.kin };
        let spared = if self.spared.len() <= queue.holders.len() + queue.length() {
            let stands = |spared: &&Ticket| {
                queue.is_held_by(**spared, mode) || queue.is_waited_for_by(**spared, mode)
            };
            self.spared.iter().filter(stands).copied().find(|t| self.is_before(asker, queue, *t))
        } else {
            let holders = queue.holders_against(mode);
            let mut all = holders.chain(queue.waiters_against(mode, ticket));
            all.find(|t| self.spared.contains(t) && self.is_before(asker, queue, *t))
        };
        spared.map(|ticket| self.slot(ticket).claim().owner.session)
    }

    /// Returns whether who asks waits for one that stands against it at a key.
    fn is_before(&self, asker: Asker<'_>, queue: &Queue, other: Ticket) -> bool {
        if queue.holders.contains_key(&other) {
            return !self.is_kin(asker, queue, other);
        }
        let passes = self.kin_holds(asker, queue)
            || (self.has_kin(asker) && self.waits_for_kin(asker, other));
        other < asker.ticket && !passes
    }

    /// Judges a claim by all its keys.
    pub(super) fn judge(&self, asker: Asker<'_>, claim: &Claim) -> Verdict {
        let mut by = Passed::Nobody;
        for (key, mode) in claim.keys().iter() {
            let Some(id) = self.index.get(key) else { continue };
            match self.judge_key(asker, &self.queues[*id], mode) {
                Verdict::Free(passed) => by = by.max(passed),
                Verdict::Stopped { .. } => return Verdict::Stopped { queue: *id, mode },
            }
        }
        Verdict::Free(by)
    }

    fn judge_key(&self, asker: Asker<'_>, queue: &Queue, mode: Mode) -> Verdict {
        let mut in_the_way = queue.holders_against(mode).filter(|t| *t != asker.ticket).peekable();
        let held_against = in_the_way.peek().is_some();
        let queued_before = queue.waiters_against(mode, asker.ticket).any(|t| t != asker.ticket);
        if !held_against && !queued_before {
            return Verdict::Free(Passed::Nobody);
        }
        if let Some(passed) = self.party_has(asker, queue, mode) {
            return Verdict::Free(passed);
        }
        let stopped = in_the_way.any(|holder| !self.is_kin(asker, queue, holder))
            || (queued_before && self.waiters_in_the_way(asker, queue, mode).next().is_some());
        if stopped {
            let id = self.index[&queue.key];
            Verdict::Stopped { queue: id, mode }
        } else {
            Verdict::Free(Passed::ByKin)
        }
    }

    /// Returns whether a key stops who asks.
    pub(super) fn stops(&self, asker: Asker<'_>, queue: &Queue, mode: Mode) -> bool {
        matches!(self.judge_key(asker, queue, mode), Verdict::Stopped { .. })
    }

    /// Returns whether `holder` never blocks who asks for a key. One whose grant was taken away
    /// blocks all.
    pub(super) fn is_kin(&self, asker: Asker<'_>, queue: &Queue, holder: Ticket) -> bool {
        if !queue.key.knows_kin() {
            return false;
        }
        let held = self.slot(holder).held.as_ref().expect("holders hold");
        let is_kin = held.claim.party == *asker.party
            || (held.passed != Passed::ByKin && asker.kin.contains_key(&holder));
        is_kin && held.revoked().is_none()
    }

    /// Returns by what the asker's party lets it in, if that has the key already in a mode that
    /// covers `mode`.
    fn party_has(&self, asker: Asker<'_>, queue: &Queue, mode: Mode) -> Option<Passed> {
        let covering = self.party_holdings(asker, queue).filter(|(_, held)| held.covers(mode));
        let passes = covering.filter_map(|(ticket, _)| self.slot(ticket).held.as_ref());
        passes.map(|held| held.passed.max(Passed::ByOwn)).min()
    }

    /// Returns the waiters before the asker that it does not pass. It passes those that wait for
    /// its kin: its kin would wait for the asker, and so for them.
    pub(super) fn waiters_in_the_way<'a>(
        &'a self,
        asker: Asker<'a>,
        queue: &'a Queue,
        mode: Mode,
    ) -> impl Iterator<Item = Ticket> + 'a {
        let passes_all = self.kin_holds(asker, queue);
        let has_kin = self.has_kin(asker);
        let before = queue.waiters_against(mode, asker.ticket).filter(move |_| !passes_all);
        before.filter(move |waiter| {
            *waiter != asker.ticket && !(has_kin && self.waits_for_kin(asker, *waiter))
        })
    }

    /// Returns whether the asker has kin that holds anything.
    pub(super) fn has_kin(&self, asker: Asker<'_>) -> bool {
        !asker.kin.is_empty() || self.party_holds(asker.party, asker.ticket)
    }

    /// Returns whether kin of the asker is in the way of a waiter.
    fn waits_for_kin(&self, asker: Asker<'_>, waiter: Ticket) -> bool {
        let slot = self.slot(waiter);
        let other = Asker { ticket: waiter, party: &slot.asked().party, kin: &slot.kin };
        slot.waiting.iter().flat_map(|waiting| &waiting.keys).any(|(id, mode)| {
            let queue = &self.queues[*id];
            queue.holders_against(*mode).any(|holder| {
                holder != waiter
                    && self.is_kin(asker, queue, holder)
                    && !self.is_kin(other, queue, holder)
            })
        })
    }

    /// Returns whether kin of the asker holds the key at all: then its queue waits for that kin,
    /// and the asker passes it.
    fn kin_holds(&self, asker: Asker<'_>, queue: &Queue) -> bool {
        self.party_holdings(asker, queue).next().is_some()
            || asker.kin.keys().any(|holder| {
                queue.holders.contains_key(holder) && self.is_kin(asker, queue, *holder)
            })
    }

    fn party_holdings<'a>(
        &'a self,
        asker: Asker<'a>,
        queue: &'a Queue,
    ) -> impl Iterator<Item = (Ticket, Mode)> + 'a {
        let held = self.parties.get(asker.party).map(|tickets| &tickets.held);
        let held = held.filter(|_| queue.key.knows_kin());
        // The shorter of the two lists is walked: a process may have many handles, a directory
        // many users.
        let few_holders = held.is_some_and(|held| queue.holders.len() < held.len());
        let by_queue = few_holders.then_some(&queue.holders).into_iter().flatten();
        let by_queue = by_queue
            .filter(move |(ticket, _)| held.is_some_and(|held| held.contains(ticket)))
            .map(|(ticket, mode)| (*ticket, *mode));
        let by_party = held.filter(|_| !few_holders).into_iter().flatten();
        let by_party = by_party.filter_map(|ticket| Some((*ticket, *queue.holders.get(ticket)?)));
        by_queue.chain(by_party).filter(move |(ticket, _)| {
            *ticket != asker.ticket && self.slot(*ticket).revoked().is_none()
        })
    }

    fn party_holds(&self, party: &Party, except: Ticket) -> bool {
        let held = self.parties.get(party).map(|tickets| &tickets.held);
        held.is_some_and(|held| held.iter().any(|ticket| *ticket != except))
            || self.slots.get(&except).is_some_and(|slot| slot.held.is_some())
    }

    /// Returns whether a waiter may be kin of a holder: others may wait for it as they do for that.
    pub(super) fn may_be_kin(&self, waiter: Ticket) -> bool {
        let slot = self.slot(waiter);
        !slot.kin.is_empty() || self.party_holds(&slot.asked().party, waiter)
    }

    /// Returns who is in the way of a waiter, oldest first per key; each may occur once per key.
    pub(super) fn blockers(&self, ticket: Ticket) -> impl Iterator<Item = Ticket> + '_ {
        let slot = self.slot(ticket);
        let claim = slot.asked();
        let asker = Asker { ticket, party: &claim.party, kin: &slot.kin };
        let keys = slot.waiting.iter().flat_map(|waiting| waiting.keys.iter());
        keys.flat_map(move |(id, mode)| {
            let queue = &self.queues[*id];
            let stopped = self.stops(asker, queue, *mode);
            let holders = queue
                .holders_against(*mode)
                .filter(move |holder| *holder != ticket && !self.is_kin(asker, queue, *holder));
            let waiters = self.waiters_in_the_way(asker, queue, *mode);
            holders.chain(waiters).filter(move |_| stopped)
        })
    }
}
