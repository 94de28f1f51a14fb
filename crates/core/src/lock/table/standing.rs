//! Who holds, who waits, and behind whom: the table as people and programs see it.

use std::sync::Arc;

use super::super::claim::Claim;
use super::super::event::Recall;
use super::super::key::Key;
use super::super::slot::Slot;
use super::Table;
use crate::id::{OwnerId, SessionId, SpaceId, Ticket, Token};
use crate::path::ViewPath;
use crate::time::Time;

/// How many of those in its way are named for one waiter.
pub const BLOCKERS_SHOWN_MAX: usize = 16;

/// One claim as it stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its place in line.
    pub ticket: Ticket,
    /// What it is.
    pub claim: Arc<Claim>,
    /// Whether it holds or waits.
    pub state: State,
    /// Since when, on the broker's clock.
    pub since: Time,
    /// How many acquires of its owner stand behind it.
    pub count: u32,
}

/// Whether a claim holds or waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It was let in.
    Held {
        /// Its fencing token.
        token: Token,
        /// Whether only kin let it pass.
        by_kin: bool,
        /// When its lease ends, if it lives by one.
        lease_ends_at: Option<Time>,
        /// Set if it was asked to let go.
        recall: Option<Recall>,
    },
    /// It stands in line.
    Waiting {
        /// How many requests in its way stand before it, plus one.
        place: usize,
        /// Some of those in its way, holders first.
        behind: Vec<Ticket>,
    },
}

impl Table {
    /// Returns all claims, oldest first; an upgrade is listed twice, as held and as waiting.
    pub fn standings(&self) -> Vec<Standing> {
        let mut tickets: Vec<Ticket> = self.slots.keys().copied().collect();
        tickets.sort_unstable();
        tickets.into_iter().flat_map(|ticket| self.standings_of(ticket)).collect()
    }

    /// Returns the tickets of all claims later than one, in order: to list them page by page.
    pub fn tickets_after(&self, after: Ticket) -> Vec<Ticket> {
        let mut tickets: Vec<Ticket> =
            self.slots.keys().copied().filter(|ticket| *ticket > after).collect();
        tickets.sort_unstable();
        tickets
    }

    /// Returns the claims that use a path or, for a directory, anything beneath it.
    pub fn standings_at(&self, space: SpaceId, path: &ViewPath) -> Vec<Standing> {
        let keys = [Key::Path(space, path.clone()), Key::Tree(space, path.clone())];
        let mut tickets: Vec<Ticket> = keys
            .iter()
            .filter_map(|key| self.queue(key))
            .flat_map(|queue| queue.holders.keys().copied().chain(queue.waiters()))
            .collect();
        tickets.sort_unstable();
        tickets.dedup();
        tickets.into_iter().flat_map(|ticket| self.standings_of(ticket)).collect()
    }

    /// Returns one claim by its ticket: as held first, then as waiting.
    pub fn standings_of(&self, ticket: Ticket) -> Vec<Standing> {
        let Some(slot) = self.slots.get(&ticket) else { return Vec::new() };
        let held = slot.held.as_ref().map(|held| Standing {
            ticket,
            claim: held.claim.clone(),
            state: State::Held {
                token: held.token,
                by_kin: held.by_kin,
                lease_ends_at: held.lease_ends_at(),
                recall: held.recall(),
            },
            since: held.since,
            count: slot.count,
        });
        held.into_iter().chain(self.waiting_standing(ticket, slot)).collect()
    }

    fn waiting_standing(&self, ticket: Ticket, slot: &Slot) -> Option<Standing> {
        let waiting = slot.waiting.as_ref()?;
        let mut behind: Vec<Ticket> = self.blockers(ticket).take(BLOCKERS_SHOWN_MAX * 4).collect();
        behind.sort_unstable();
        behind.dedup();
        let place = 1 + self.waiters_before(ticket);
        behind.sort_by_key(|t| self.slot(*t).held.is_none());
        behind.truncate(BLOCKERS_SHOWN_MAX);
        Some(Standing {
            ticket,
            claim: waiting.claim.clone(),
            state: State::Waiting { place, behind },
            since: waiting.since,
            count: slot.count,
        })
    }

    fn waiters_before(&self, ticket: Ticket) -> usize {
        let slot = self.slot(ticket);
        let keys = slot.waiting.iter().flat_map(|waiting| &waiting.keys);
        let before =
            |(id, mode): &(usize, _)| self.queues[*id].waiters_against(*mode, ticket).count();
        keys.map(before).max().unwrap_or(0)
    }

    /// Returns the ticket of an owner, if it has a claim.
    pub fn ticket_of(&self, owner: OwnerId) -> Option<Ticket> {
        self.owners.get(&owner).copied()
    }

    /// Returns whom a waiter waits for, those who hold: at most `most`.
    pub fn holders_before(&self, ticket: Ticket, most: usize) -> Vec<Ticket> {
        if self.slots.get(&ticket).is_none_or(|slot| slot.waiting.is_none()) {
            return Vec::new();
        }
        let held = |holder: &Ticket| self.slot(*holder).held.is_some();
        let mut holders: Vec<Ticket> = self.blockers(ticket).filter(held).take(most).collect();
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    /// Returns how many claims hold and how many wait.
    pub fn load(&self) -> (usize, usize) {
        (self.slots.len() - self.waiting.min(self.slots.len()), self.waiting)
    }

    /// Returns whether former sessions may still come back.
    pub fn in_grace(&self) -> bool {
        self.grace.is_some()
    }

    /// Returns the living sessions, the stateless one apart.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions.keys().copied().filter(|session| *session != SessionId::STATELESS)
    }
}
