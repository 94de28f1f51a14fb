//! Who waits behind whom: in the order of their coming, and not for the dead.

use super::client::{Client, Link};
use super::{LEASE, World};
use crate::id::{Ticket, Token};
use crate::lock::claim::Claim;
use crate::lock::table;

impl World {
    /// N2: who is let in overtakes nobody who came earlier, wants the same, and is there or may
    /// come back. What is taken back by its former holder was granted before.
    pub(super) fn look_for_overtaken(&mut self, granted: Ticket, token: Token) {
        let Some(table) = self.table().filter(|table| table.epoch() == token.epoch) else { return };
        let all = table.standings(table.tickets_after(Ticket(0), usize::MAX));
        let standings: Vec<_> = all.collect();
        let client_of = |ticket: Ticket| {
            let standing = standings.iter().find(|standing| standing.ticket == ticket)?;
            self.client_of(&standing.claim)
        };
        let Some(next) = client_of(granted) else { return };
        let waits = |standing: &&table::Standing| {
            standing.ticket < granted && matches!(standing.state, table::State::Waiting { .. })
        };
        let wants_the_same = |client: &&Client| {
            client.job.files().iter().any(|file| next.job.files().contains(file))
        };
        let mut earlier = standings.iter().filter(waits).filter_map(|s| self.client_of(&s.claim));
        if earlier.any(|client| wants_the_same(&client) && !self.is_gone(client)) {
            self.broken = Some("N2: somebody was let in before one who came earlier");
        }
    }

    /// N5: who was not heard of for a lease holds up nobody who is there.
    pub(super) fn look_for_hold_ups(&mut self) {
        let Some(table) = self.table() else { return };
        let all = table.tickets_after(Ticket(0), usize::MAX);
        let client = |ticket: &Ticket| {
            let claim = table.standings(vec![*ticket]).next()?.claim;
            self.client_of(&claim)
        };
        let is_gone = |ticket: &Ticket| client(ticket).is_none_or(|client| self.is_gone(client));
        let held_up = table.standings(all).any(|standing| {
            let table::State::Waiting { behind, .. } = &standing.state else { return false };
            let is_here = client(&standing.ticket).is_some_and(|client| client.link == Link::Up);
            is_here && behind.iter().any(is_gone)
        });
        if held_up {
            self.broken = Some("N5: somebody waits for one who is gone");
        }
    }

    fn client_of(&self, claim: &Claim) -> Option<&Client> {
        self.clients.iter().find(|client| client.session == claim.owner.session)
    }

    /// Whether it was not heard of for a lease.
    fn is_gone(&self, client: &Client) -> bool {
        let lost_at = client.lost_at.filter(|_| client.link != Link::Up);
        lost_at.is_some_and(|at| at + LEASE <= self.now)
    }
}
