//! Cycles of waits.
//!
//! A waiter waits for what is in its way. What a party holds is not let go while the party itself
//! waits, nor while those it leads wait. An edge is sure if nothing else of the party could let
//! go: it has one thread, or it is the very claim that waits to become stronger.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

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
    /// Whether it can only be resolved by a refusal.
    pub sure: bool,
}

/// How far each queue was walked: all waiters before that ticket are known.
type Walked = FxHashMap<(QueueId, Mode), Ticket>;

impl Table {
    /// Finds a cycle through a waiter, a sure one if there is one.
    pub(super) fn find_cycle(&self, start: Ticket) -> Option<Cycle> {
        if !self.may_be_waited_for(start) {
            return None;
        }
        let sure = self.walk_waits(start, true).map(|youngest| Cycle { youngest, sure: true });
        sure.or_else(|| {
            self.walk_waits(start, false).map(|youngest| Cycle { youngest, sure: false })
        })
    }

    /// Returns whether anything could wait for this waiter or its party.
    fn may_be_waited_for(&self, ticket: Ticket) -> bool {
        let slot = self.slot(ticket);
        !slot.kin.is_empty() || self.party_holds(&slot.asked().party, ticket)
    }

    fn walk_waits(&self, start: Ticket, only_sure: bool) -> Option<Ticket> {
        let mut came_from: FxHashMap<Ticket, Ticket> = FxHashMap::default();
        let mut walked = Walked::default();
        let mut next = VecDeque::from([start]);
        while let Some(waiter) = next.pop_front() {
            for successor in self.waits_for(waiter, &mut walked, only_sure) {
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
    fn waits_for(&self, waiter: Ticket, walked: &mut Walked, only_sure: bool) -> Vec<Ticket> {
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
                    self.held_up_by(holder, only_sure, &mut found);
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
    fn held_up_by(&self, holder: Ticket, only_sure: bool, found: &mut Vec<Ticket>) {
        let slot = self.slot(holder);
        let held = slot.held.as_ref().expect("holders hold");
        if let Some(tickets) = self.parties.get(&held.claim.party) {
            let sure =
                |ticket: &Ticket| *ticket == holder || self.slot(*ticket).asked().stops_its_party();
            found.extend(tickets.waiting.iter().filter(|ticket| !only_sure || sure(ticket)));
        }
        let sleeps = held.claim.stops_its_party() && !matches!(held.claim.want().op, Op::Hold(_));
        if sleeps || !only_sure {
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
