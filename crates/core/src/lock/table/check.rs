//! All invariants, checked the slow way, and all that tells one table from another; for tests.

use std::collections::BTreeSet;

use super::super::mode::Mode;
use super::super::slot::Stay;
use super::Table;
use super::judge::Asker;
use crate::id::Ticket;

impl Table {
    /// Returns all that the future of the table depends on, of claims that are what their owner
    /// says: equal tables, equal texts.
    #[cfg(test)]
    pub fn digest(&self) -> impl std::hash::Hash + PartialEq + use<> {
        let mut slots: Vec<_> = self
            .slots
            .iter()
            .map(|(ticket, slot)| {
                let held = slot.held.as_ref();
                let held = held.map(|held| (held.token, held.claim.owner, held.stay_ends_at()));
                (*ticket, held, slot.waiting.as_ref().map(|waiting| waiting.claim.owner))
            })
            .collect();
        slots.sort_unstable();
        let presence = |session: &super::Session| format!("{:?}", session.presence);
        let mut sessions: Vec<_> =
            self.sessions.iter().map(|(id, session)| (*id, presence(session))).collect();
        sessions.sort_unstable();
        let next = (self.epoch, self.next_ticket, self.next_token);
        (
            next,
            slots,
            sessions,
            self.outstayed.clone(),
            self.grace.map(|grace| (grace.until, grace.sealed)),
        )
    }

    /// Panics unless all that must hold between the indexes and the claims does.
    pub fn check(&self) {
        for (id, queue) in &self.queues {
            queue.check();
            assert_eq!(self.index[&queue.key], id);
        }
        assert_eq!(self.index.len(), self.queues.len());
        let waiting = self.slots.values().filter(|slot| slot.waiting.is_some()).count();
        assert_eq!(waiting, self.waiting);
        for ticket in self.slots.keys() {
            self.check_slot(*ticket);
        }
        let overdue = self.overdue.iter().flat_map(|(_, session)| &self.sessions[session].tickets);
        assert_eq!(overdue.copied().collect::<BTreeSet<_>>(), self.spared);
        let outstayed = self.slots.iter().filter(|(_, slot)| {
            let stay = slot.held.as_ref().map(|held| held.stay);
            matches!(stay, Some(Stay::Outstayed { .. }))
        });
        assert!(outstayed.map(|(ticket, _)| ticket).eq(&self.outstayed));
        let tickets: usize = self.sessions.values().map(|session| session.tickets.len()).sum();
        assert_eq!(tickets, self.slots.len());
        assert_eq!(self.owners.len(), self.slots.len());
    }

    fn check_slot(&self, ticket: Ticket) {
        let slot = self.slot(ticket);
        assert!(slot.held.is_some() || slot.waiting.is_some());
        assert_eq!(self.owners[&slot.claim().owner], ticket);
        if let Some(held) = &slot.held {
            let asker = Asker { ticket, party: &held.claim.party, kin: &slot.kin };
            assert!(self.fits(asker, &held.claim), "N1: {:?}", held.claim);
            let keys: Vec<Mode> = held.claim.keys().iter().map(|(_, mode)| mode).collect();
            let modes: Vec<Mode> = held.keys.iter().map(|(_, mode)| *mode).collect();
            assert_eq!(keys, modes);
            for (queue, mode) in &held.keys {
                assert_eq!(self.queues[*queue].holders.get(&ticket), Some(mode));
            }
        }
        if let Some(waiting) = &slot.waiting {
            for (queue, _) in &waiting.keys {
                assert!(self.queues[*queue].waiters().any(|waiter| waiter == ticket));
            }
        }
    }
}
