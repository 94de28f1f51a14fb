//! Cycles of waits.
//!
//! A waiter waits for what is in its way. What a party holds is not let go while the party itself
//! waits, nor while those it leads wait. An edge is likely if nothing else of the party could let go:
//! it has one thread. It is sure if what is held is no open file, of whose close we may not have
//! heard yet, or if it is the very claim that waits to become stronger.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::super::limits::{DEADLOCK_PATIENCE, RELEASE_PATIENCE};
use super::super::mode::Mode;
use super::super::slot::QueueId;
use super::super::want::Op;
use super::Table;
use crate::id::Ticket;

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
            for holder in queue.holders_against(*mode) {
                if holder != waiter && !self.is_kin(asker, holder) {
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
