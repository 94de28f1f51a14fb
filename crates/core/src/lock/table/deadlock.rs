//! Cycles of waits.
//!
//! A waiter waits for what is in its way. What a party holds is not let go while the party itself
//! waits, nor while those it leads wait. An edge is likely if nothing else of the party could let go:
//! it has one thread. It is sure if what is held is no open file, of whose close we may not have
//! heard yet, or if it is the very claim that waits to become stronger.
//!
//! In a cycle somebody is waited for as kin, or for what its party has: a line alone leads to ever
//! earlier ones. So a cycle is looked for from such a waiter, when it comes or learns of kin; and from
//! each that is waited for, over others too, by one that moved: a line may be another after names
//! moved, and who passed others by a holder's right no longer does when that holder is gone. Of each
//! cycle that stands somebody is refused, or is looked at again when it stood long enough.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::super::event::{Event, Refusal};
use super::super::limits::{
    CYCLE_SEARCHES_MAX, DEADLOCK_PATIENCE, LOOK_PAUSE_MIN, RELEASE_PATIENCE,
};
use super::super::mode::Mode;
use super::super::slot::QueueId;
use super::super::want::Op;
use super::Table;
use crate::id::Ticket;
use crate::time::Time;

/// A cycle of waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cycle {
    /// Who is refused.
    pub youngest: Ticket,
    /// How sure it is that only a refusal resolves it.
    pub certainty: Certainty,
}

/// How sure it is that a cycle is resolved by a refusal alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// It is.
    Sure,
    /// It is, unless what somebody holds was let go of already, and the word is under way.
    Likely,
    /// A process has other threads, which may let go.
    Possible,
}

impl Certainty {
    /// Returns how long such a cycle must stand.
    pub fn patience(self) -> Duration {
        match self {
            Certainty::Sure => Duration::ZERO,
            Certainty::Likely => RELEASE_PATIENCE,
            Certainty::Possible => DEADLOCK_PATIENCE,
        }
    }
}

/// How far each queue was walked: all waiters before that ticket are known.
type Walked = FxHashMap<(QueueId, Mode), Ticket>;

impl Table {
    /// Notes that a holder goes or changes: its kin that waits may pass fewer than before, and may
    /// be waited for by more.
    pub(super) fn move_kin_of(&mut self, holder: Ticket) {
        if let Some(held) = self.slots.get(&holder).and_then(|slot| slot.held.as_ref()) {
            self.moved.extend(&held.leads);
            self.moved.extend(&self.parties[&held.claim.party].waiting);
        }
    }

    /// Suspects those through whom the moved may have closed a cycle.
    pub(super) fn suspect_whom_the_moved_wait_for(&mut self, now: Time) {
        if self.moved.is_empty() {
            return;
        }
        let moved = std::mem::take(&mut self.moved);
        let suspects = self.waited_for(moved).into_iter().filter(|t| self.may_be_kin(*t));
        let suspects: Vec<Ticket> = suspects.collect();
        let (at_once, later) = suspects.split_at(suspects.len().min(CYCLE_SEARCHES_MAX));
        self.suspects.extend(at_once);
        for ticket in later {
            self.arm_recheck(*ticket, now, LOOK_PAUSE_MIN);
        }
    }

    /// Returns all that any of these wait for, and those that they wait for in turn.
    fn waited_for(&self, these: BTreeSet<Ticket>) -> BTreeSet<Ticket> {
        let mut walked = Walked::default();
        let mut found = BTreeSet::new();
        let waits = |ticket: &Ticket| self.slots.get(ticket).is_some_and(|s| s.waiting.is_some());
        let mut next: Vec<Ticket> = these.into_iter().filter(waits).collect();
        while let Some(waiter) = next.pop() {
            let successors = self.waits_for(waiter, &mut walked, Certainty::Possible);
            next.extend(successors.into_iter().filter(|successor| found.insert(*successor)));
        }
        found
    }

    /// Refuses the youngest of a cycle through a waiter, or looks again when it stood long enough.
    pub(super) fn cut_cycle(&mut self, ticket: Ticket, now: Time) -> Option<Event> {
        self.slots.get(&ticket)?.waiting.as_ref()?;
        let cycle = self.find_cycle(ticket)?;
        if cycle.certainty != Certainty::Sure {
            self.arm_recheck(ticket, now, cycle.certainty.patience());
            return None;
        }
        // There may be another one.
        self.suspects.insert(ticket);
        Some(self.refuse_waiter(cycle.youngest, Refusal::Deadlock))
    }

    /// Finds a cycle through a waiter, the surest there is.
    pub(super) fn find_cycle(&self, start: Ticket) -> Option<Cycle> {
        [Certainty::Sure, Certainty::Likely, Certainty::Possible].into_iter().find_map(
            |certainty| {
                let youngest = self.walk_waits(start, certainty)?;
                Some(Cycle { youngest, certainty })
            },
        )
    }

    fn walk_waits(&self, start: Ticket, certainty: Certainty) -> Option<Ticket> {
        let mut came_from: FxHashMap<Ticket, Ticket> = FxHashMap::default();
        let mut walked = Walked::default();
        let mut next = VecDeque::from([start]);
        while let Some(waiter) = next.pop_front() {
            for successor in self.waits_for(waiter, &mut walked, certainty) {
                if successor == start {
                    return Some(youngest(start, waiter, &came_from));
                }
                if let Entry::Vacant(unseen) = came_from.entry(successor) {
                    unseen.insert(waiter);
                    next.push_back(successor);
                }
            }
        }
        None
    }

    /// Returns the waiters that must be let in before `waiter` can be.
    fn waits_for(&self, waiter: Ticket, walked: &mut Walked, certainty: Certainty) -> Vec<Ticket> {
        let slot = self.slot(waiter);
        let claim = slot.asked();
        let asker = super::judge::Asker { ticket: waiter, party: &claim.party, kin: &slot.kin };
        let mut found = Vec::new();
        for (id, mode) in slot.waiting.iter().flat_map(|waiting| &waiting.keys) {
            let queue = &self.queues[*id];
            if !self.stops(asker, queue, *mode) {
                continue;
            }
            let known = walked.get(&(*id, *mode)).copied();
            // A call that is under way waits for nobody, or for what it should not.
            let may_be_held_up = queue.key.knows_kin() || certainty == Certainty::Possible;
            for holder in queue.holders_against(*mode).filter(|_| may_be_held_up) {
                if holder != waiter && !self.is_kin(asker, queue, holder) {
                    self.held_up_by(holder, certainty, &mut found);
                }
            }
            if self.has_kin(asker) {
                // It passes some of those before it, which others may not.
                found.extend(self.waiters_in_the_way(asker, queue, *mode));
            } else if known.is_none_or(|known| known < waiter) {
                walked.insert((*id, *mode), waiter);
                let before = queue.waiters_against(*mode, waiter);
                found.extend(before.filter(|ticket| known.is_none_or(|known| *ticket >= known)));
            }
        }
        found
    }

    /// Adds the waiters without which `holder` is not let go.
    fn held_up_by(&self, holder: Ticket, certainty: Certainty, found: &mut Vec<Ticket>) {
        let slot = self.slot(holder);
        let held = slot.held.as_ref().expect("holders hold");
        if held.revoked().is_some() {
            return; // It goes whatever its party waits for.
        }
        let op = held.claim.want().op;
        if let Some(tickets) = self.parties.get(&held.claim.party) {
            let stops = |ticket: &Ticket| self.slot(*ticket).asked().stops_its_party();
            let counts = |ticket: &&Ticket| match certainty {
                Certainty::Possible => true,
                Certainty::Likely => **ticket == holder || stops(ticket),
                Certainty::Sure => **ticket == holder || (op.is_hold() && stops(ticket)),
            };
            found.extend(tickets.waiting.iter().filter(counts));
        }
        let sleeps = held.claim.stops_its_party() && !matches!(op, Op::Hold(_));
        if sleeps || certainty == Certainty::Possible {
            let waits = |ticket: &&Ticket| {
                self.slots.get(ticket).is_some_and(|slot| slot.waiting.is_some())
            };
            found.extend(held.leads.iter().filter(waits));
        }
    }
}

fn youngest(start: Ticket, last: Ticket, came_from: &FxHashMap<Ticket, Ticket>) -> Ticket {
    let mut youngest = start;
    let mut at = last;
    while at != start {
        youngest = youngest.max(at);
        at = came_from[&at];
    }
    youngest
}
