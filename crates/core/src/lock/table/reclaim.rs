//! What becomes of a session that comes back and lists all it has.
//!
//! What the journal knows stands, what is not listed is freed. What only the client knows, because
//! the machine went down before it was synced, is taken back if there is room for it.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::super::claim::{Claim, Party};
use super::super::event::{End, Event, Kin, Passed, Refusal};
use super::super::key::Key;
use super::super::limits::GRANTS_PER_SESSION_MAX;
use super::super::mode::Mode;
use super::judge::Asker;
use super::{Presence, Table};
use crate::id::{OwnerId, SessionId, Ticket, Token};
use crate::time::Time;

/// What is taken back in one go, by keys: the party that has it, or `None` if several have.
#[derive(Default)]
struct TakenBack<'a>(FxHashMap<(&'a Key, Mode), Option<&'a Party>>);

impl Table {
    pub(super) fn decide_reclaim(
        &self,
        session: SessionId,
        held: &[(Arc<Claim>, Token)],
        waiting: &[(Arc<Claim>, Vec<OwnerId>)],
        now: Time,
    ) -> Result<Vec<Event>, Refusal> {
        let known = self.sessions.get(&session).ok_or(Refusal::Unknown)?;
        let held_owners = held.iter().map(|(claim, _)| claim.owner);
        let waiting_owners = waiting.iter().map(|(claim, _)| claim.owner);
        let listed: FxHashSet<OwnerId> = held_owners.chain(waiting_owners).collect();
        let is_listed = |ticket: &Ticket| listed.contains(&self.slot(*ticket).claim().owner);
        let mut events = vec![Event::Back { session }];
        for ticket in known.tickets.iter().filter(|ticket| !is_listed(ticket)) {
            let end = self.slot(*ticket).end(End::Released);
            events.push(Event::Ended { ticket: *ticket, end });
        }
        let stays = |ticket: Ticket| !known.tickets.contains(&ticket) || is_listed(&ticket);
        let kept = known.tickets.iter().filter(|ticket| is_listed(ticket)).count();
        let room = GRANTS_PER_SESSION_MAX.saturating_sub(kept);
        let mut fresh = (self.next_ticket..).map(Ticket).take(room);
        let mut seen = FxHashSet::default();
        let mut taken_back = TakenBack::default();
        for (claim, token) in held.iter().filter(|(claim, _)| seen.insert(claim.owner)) {
            let former = self.owners.get(&claim.owner).copied();
            if let Some(ticket) = former.filter(|ticket| self.slot(*ticket).held.is_some()) {
                // What is listed though it was taken away is not done with.
                let (revoked, until) = (self.slot(ticket).revoked(), now + known.lease);
                events.extend(revoked.map(|why| Event::Revoked { ticket, why, until }));
                continue;
            }
            let Some(ticket) = former.or_else(|| fresh.next()) else { continue };
            if self.was_lost(*token) && self.has_room(ticket, claim, stays, &taken_back) {
                taken_back.add(claim);
                let (claim, token, kin) = (claim.clone(), *token, Kin::new());
                let (count, passed, at) = (1, Passed::Nobody, now);
                events.push(Event::Granted { ticket, claim, token, count, passed, kin, at });
            } else if former.is_some() {
                // Its owner does not know that it waits, and would not take a grant.
                events.push(Event::Ended { ticket, end: End::Released });
            }
        }
        let mut is_new = |owner| !self.owners.contains_key(&owner) && seen.insert(owner);
        let places = waiting.iter().filter(|(claim, _)| is_new(claim.owner));
        for ((claim, leaders), ticket) in places.zip(fresh) {
            let kin = self.kin_of(claim, leaders);
            events.push(Event::Queued { ticket, claim: claim.clone(), kin, at: now });
        }
        if known.presence == Presence::Former {
            events.extend(self.grace_over(session));
        }
        Ok(events)
    }

    /// Returns whether a grant of that token is one that the journal can have lost.
    fn was_lost(&self, token: Token) -> bool {
        self.grace.is_some_and(|grace| grace.sealed) && token.epoch < self.epoch
    }

    /// Returns whether a claim stands beside what stays and what was taken back before it.
    fn has_room(
        &self,
        ticket: Ticket,
        claim: &Claim,
        stays: impl Fn(Ticket) -> bool,
        taken_back: &TakenBack<'_>,
    ) -> bool {
        let asker = Asker { ticket, party: &claim.party, kin: &Kin::new() };
        self.fits_beside(asker, claim, stays) && taken_back.leave_room_for(claim)
    }
}

impl<'a> TakenBack<'a> {
    fn add(&mut self, claim: &'a Claim) {
        for (key, mode) in claim.keys().iter().filter(|(key, _)| key.knows_kin()) {
            let whose = self.0.entry((key, mode)).or_insert(Some(&claim.party));
            if *whose != Some(&claim.party) {
                *whose = None;
            }
        }
    }

    fn leave_room_for(&self, claim: &Claim) -> bool {
        let stopped = |key, mode: Mode| {
            let against = Mode::ALL.into_iter().filter(|other| other.conflicts(mode));
            let mut whose = against.filter_map(|other| self.0.get(&(key, other)));
            whose.any(|whose| *whose != Some(&claim.party))
        };
        !claim.keys().iter().any(|(key, mode)| stopped(key, mode))
    }
}
