//! What a command leads to. Nothing here changes the table.

use std::sync::Arc;
use std::time::Duration;

use super::super::claim::{Claim, Party, Patience};
use super::super::event::{
    Command, End, Event, Kin, Part, Recall, RecallCause, RecallStage, Refusal, Revocation,
};
use super::super::key::FileKey;
use super::super::limits::{
    ENDED_AT_ONCE_MAX, GRANTS_MAX, GRANTS_PER_SESSION_MAX, KEYS_PER_REQUEST_MAX, Limit,
    SESSIONS_MAX, TEXT_BYTES_MAX, WAITERS_MAX, WAITERS_PER_SESSION_MAX,
};
use super::super::slot::{Held, Slot};
use super::super::want::{Access, Node, Op};
use super::judge::{Asker, Verdict};
use super::timers::Closing;
use super::{Presence, Table};
use crate::id::{OwnerId, SessionId, Ticket, Token};
use crate::time::Time;

/// What becomes of a request whose owner has a claim.
enum Again {
    /// It has that already, once more.
    Counted(Vec<Event>),
    /// It is to be let in for this, beside or instead of what it has.
    Anew(Arc<Claim>),
}

impl Table {
    /// Says what a command leads to; the events are to be applied in order.
    pub fn decide(&self, now: Time, command: Command) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Open { session, lease } if self.sessions.contains_key(&session) => {
                debug_assert!(false, "session ids are fresh: {session:?} {lease:?}");
                Err(Refusal::OwnerBusy)
            }
            Command::Open { session, lease } => self.decide_open(session, lease),
            Command::Lose { session, heard } => self.decide_lose(session, heard),
            Command::Close { session } => self.decide_close(session),
            Command::Reclaim { session, held, waiting } => {
                self.decide_reclaim(session, &held, &waiting, now)
            }
            Command::Acquire { claim, leaders } => self.decide_acquire(claim, &leaders, now),
            Command::Release { owner, change } => self.decide_release(owner, change.as_ref()),
            Command::Withdraw { owner, why } => self.decide_withdraw(owner, why),
            Command::Created { owner, file } => self.decide_created(owner, file),
            Command::Renew { owner, lease } => self.decide_renew(owner, lease, now),
            Command::Active { owner } => Ok(self.decide_active(owner, now)),
            Command::Kin { waiter, holder } => Ok(self.decide_kin(waiter, holder)),
            Command::Recall { ticket, within } => self.decide_recall(ticket, now + within),
            Command::Break { ticket } => self.decide_break(ticket, now),
            Command::Tick => Ok(self.decide_tick(now)),
        }
    }

    fn decide_open(&self, session: SessionId, lease: Duration) -> Result<Vec<Event>, Refusal> {
        // The stateless one is no client's.
        let full = self.sessions.len() > SESSIONS_MAX;
        let mut events = if full { self.make_room(Limit::Sessions)? } else { Vec::new() };
        events.push(Event::Opened { session, lease });
        Ok(events)
    }

    /// At a bound, courtesy ends: whoever has been gone longest makes room.
    fn make_room(&self, limit: Limit) -> Result<Vec<Event>, Refusal> {
        let (_, longest_gone) = self.overdue.first().ok_or(Refusal::Limit(limit))?;
        Ok(self.closing(*longest_gone, Closing::LeaseLost, usize::MAX))
    }

    fn decide_lose(&self, session: SessionId, heard: Time) -> Result<Vec<Event>, Refusal> {
        let known = self.sessions.get(&session).ok_or(Refusal::Unknown)?;
        Ok(match known.presence {
            Presence::Here => vec![Event::Lost { session, until: heard + known.lease }],
            Presence::Away(_) | Presence::Overdue(_) | Presence::Former => Vec::new(),
        })
    }

    fn decide_close(&self, session: SessionId) -> Result<Vec<Event>, Refusal> {
        let known = self.sessions.get(&session).ok_or(Refusal::Unknown)?;
        let mut events = self.closing(session, Closing::Goodbye, ENDED_AT_ONCE_MAX);
        let is_closed = known.tickets.len() <= ENDED_AT_ONCE_MAX;
        if is_closed && known.presence == Presence::Former {
            events.extend(self.grace_over(session));
        }
        Ok(events)
    }

    fn decide_acquire(
        &self,
        claim: Arc<Claim>,
        leaders: &[OwnerId],
        now: Time,
    ) -> Result<Vec<Event>, Refusal> {
        check_bounds(&claim)?;
        let session = self.sessions.get(&claim.owner.session).ok_or(Refusal::Unknown)?;
        let before = self.owners.get(&claim.owner).map(|ticket| (*ticket, self.slot(*ticket)));
        let claim = match before {
            None => claim,
            Some((ticket, slot)) => match self.asked_again(ticket, slot, claim, now)? {
                Again::Anew(claim) => claim,
                Again::Counted(events) => return Ok(events),
            },
        };
        if before.is_none() && session.tickets.len() >= GRANTS_PER_SESSION_MAX {
            return Err(Refusal::Limit(Limit::GrantsPerSession));
        }
        let full = before.is_none() && self.slots.len() >= GRANTS_MAX;
        let ticket = before.map_or(Ticket(self.next_ticket), |(ticket, _)| ticket);
        let kin = self.kin_of(&claim, leaders);
        let sealed = self.may_have_forgotten();
        let verdict = self.judge(Asker { ticket, party: &claim.party, kin: &kin }, &claim);
        match verdict {
            Verdict::Free(passed) if !sealed && !full => {
                let token = Token { epoch: self.epoch, counter: self.next_token };
                let count = before.map_or(1, |(_, slot)| slot.count + 1);
                Ok(vec![Event::Granted { ticket, claim, token, count, passed, kin, at: now }])
            }
            // What is in its way may be spared out of courtesy alone: that ends when it is looked at.
            _ if claim.patience == Patience::Try && (sealed || self.overdue.is_empty()) => {
                Err(Refusal::WouldBlock)
            }
            _ if session.waiting >= WAITERS_PER_SESSION_MAX
                && claim.owner.session != SessionId::STATELESS =>
            {
                Err(Refusal::Limit(Limit::WaitersPerSession))
            }
            _ => {
                let mut events = match full {
                    true => self.make_room(Limit::Grants)?,
                    false if self.waiting >= WAITERS_MAX => self.make_room(Limit::Waiters)?,
                    false => Vec::new(),
                };
                events.push(Event::Queued { ticket, claim, kin, at: now });
                Ok(events)
            }
        }
    }

    /// Returns what a request of an owner that has a claim leads to.
    fn asked_again(
        &self,
        ticket: Ticket,
        slot: &Slot,
        claim: Arc<Claim>,
        now: Time,
    ) -> Result<Again, Refusal> {
        let covered = slot.asked().keys().cover(claim.keys());
        match (&slot.held, &slot.waiting) {
            (Some(_), Some(_)) => Err(Refusal::OwnerBusy),
            (Some(held), None) if held.revoked().is_some() => Err(Refusal::OwnerBusy),
            (Some(_), None) if !covered => Ok(Again::Anew(claim)),
            // It may have been let go of since, and others let in, which the journal lost.
            (Some(held), None) if held.claim.lease.is_some() && held.token.epoch < self.epoch => {
                Ok(Again::Anew(claim.on(held.claim.want().clone())))
            }
            _ if covered => {
                // Who did not hear of its grant asks again: it has it for its lease from now.
                let former = slot.held.as_ref().and_then(|held| held.claim.lease);
                let lease = former.map(|lease| lease.max(claim.lease.unwrap_or_default()));
                let renewed = lease.map(|lease| Event::Renewed { ticket, lease, at: now });
                let counted = Event::Counted { ticket, count: slot.count + 1 };
                Ok(Again::Counted(renewed.into_iter().chain([counted]).collect()))
            }
            _ => Err(Refusal::OwnerBusy),
        }
    }

    fn decide_release(
        &self,
        owner: OwnerId,
        change: Option<&super::super::event::Change>,
    ) -> Result<Vec<Event>, Refusal> {
        let ticket = *self.owners.get(&owner).ok_or(Refusal::Unknown)?;
        let slot = self.slot(ticket);
        if slot.held.is_none() {
            return Err(Refusal::Unknown);
        }
        if slot.count > 1 && slot.revoked().is_none() {
            return Ok(vec![Event::Counted { ticket, count: slot.count - 1 }]);
        }
        let mut events = vec![Event::Ended { ticket, end: slot.end(End::Released) }];
        if let Some(change) = change {
            events.extend(self.reshapes(change, ticket));
        }
        Ok(events)
    }

    fn decide_withdraw(&self, owner: OwnerId, why: Refusal) -> Result<Vec<Event>, Refusal> {
        let ticket = *self.owners.get(&owner).ok_or(Refusal::Unknown)?;
        let slot = self.slot(ticket);
        Ok(vec![match (&slot.held, &slot.waiting) {
            (Some(_), Some(_)) => Event::UpgradeEnded { ticket, why },
            _ if slot.revoked().is_some() => Event::Ended { ticket, end: slot.end(End::Released) },
            _ if slot.count > 1 => Event::Counted { ticket, count: slot.count - 1 },
            (None, _) => Event::Ended { ticket, end: End::Refused(why) },
            (Some(_), None) => Event::Ended { ticket, end: End::Released },
        }])
    }

    /// The name was locked while it was made; from now on it is an open file like any other.
    fn decide_created(&self, owner: OwnerId, file: FileKey) -> Result<Vec<Event>, Refusal> {
        let ticket = *self.owners.get(&owner).ok_or(Refusal::Unknown)?;
        let slot = self.slot(ticket);
        let Some(held) = slot.held.as_ref().filter(|held| held.claim.want().op == Op::Create)
        else {
            return Err(Refusal::Unknown);
        };
        let mut want = held.claim.want().clone();
        want.op = Op::Open(Access::Write);
        for place in &mut want.places {
            place.node = Node::File(file);
        }
        let claim = held.claim.on(want);
        let asker = Asker { ticket, party: &claim.party, kin: &slot.kin };
        // A stale grant on a reused inode number: the name, kept whole, protects the new file.
        if !self.fits(asker, &claim) {
            return Ok(Vec::new());
        }
        Ok(vec![Event::Reshaped { ticket, part: Part::Held, claim }])
    }

    fn decide_renew(
        &self,
        owner: OwnerId,
        lease: Option<Duration>,
        now: Time,
    ) -> Result<Vec<Event>, Refusal> {
        let ticket = *self.owners.get(&owner).ok_or(Refusal::Unknown)?;
        let held = self.slot(ticket).held.as_ref().ok_or(Refusal::Unknown)?;
        let former = held.claim.lease.ok_or(Refusal::Unknown)?;
        Ok(vec![Event::Renewed { ticket, lease: lease.unwrap_or(former), at: now }])
    }

    /// I/O of a handle counts for its kin on the way too: a pair of them is one worker.
    fn decide_active(&self, owner: OwnerId, now: Time) -> Vec<Event> {
        let Some(ticket) = self.owners.get(&owner) else { return Vec::new() };
        let slot = self.slot(*ticket);
        let Some(held) = &slot.held else { return Vec::new() };
        if let Some(why) = held.revoked() {
            // What is under way under it is not done with.
            return vec![self.revocation(*ticket, held, why, now)];
        }
        let same_party = self.parties[&held.claim.party].held.iter().copied();
        let led_by = slot.kin.keys().copied().filter(|holder| self.holds(*holder));
        let files = |ticket: &Ticket| {
            let other = &self.slot(*ticket).held.as_ref().expect("filtered").keys;
            held.keys.first().is_some_and(|(queue, _)| other.iter().any(|(q, _)| q == queue))
        };
        let active = same_party.chain(led_by).filter(files);
        active.map(|ticket| Event::Active { ticket, at: now }).collect()
    }

    fn decide_kin(&self, waiter: OwnerId, holder: OwnerId) -> Vec<Event> {
        let (Some(waiter), Some(holder)) = (self.owners.get(&waiter), self.owners.get(&holder))
        else {
            return Vec::new();
        };
        let slot = self.slot(*waiter);
        let news = slot.waiting.is_some() && !slot.kin.contains_key(holder) && waiter != holder;
        if news && self.holds(*holder) {
            vec![Event::Kin { waiter: *waiter, holder: *holder }]
        } else {
            Vec::new()
        }
    }

    fn decide_recall(&self, ticket: Ticket, until: Time) -> Result<Vec<Event>, Refusal> {
        let held = self.slots.get(&ticket).and_then(|slot| slot.held.as_ref());
        let held = held.ok_or(Refusal::Unknown)?;
        if held.revoked().is_some() {
            return Ok(Vec::new());
        }
        let until = held.end_of_stay().into_iter().fold(until, Time::min);
        let (why, stage) = (RecallCause::Request, RecallStage::Asked);
        Ok(vec![Event::Recalled { ticket, recall: Recall { why, stage, until } }])
    }

    fn decide_break(&self, ticket: Ticket, now: Time) -> Result<Vec<Event>, Refusal> {
        let slot = self.slots.get(&ticket).ok_or(Refusal::Unknown)?;
        Ok(match &slot.held {
            Some(held) if held.revoked().is_some() => Vec::new(),
            Some(held) => vec![self.revocation(ticket, held, Revocation::Broken, now)],
            None => vec![Event::Ended { ticket, end: End::Refused(Refusal::Broken) }],
        })
    }

    /// Takes a grant away: at once if nothing can be under way under it any more, else once its owner
    /// says so, or knows by its own clock that it may not act.
    pub(super) fn revocation(
        &self,
        ticket: Ticket,
        held: &Held,
        why: Revocation,
        now: Time,
    ) -> Event {
        match self.acts_until(&held.claim, now).filter(|until| now < *until) {
            Some(until) => Event::Revoked { ticket, why, until },
            None => Event::Ended { ticket, end: End::Revoked(why) },
        }
    }

    /// Returns until when the owner of a claim may believe that it still has it, if it is not told
    /// otherwise. Where no session keeps it there is nobody to be told, or to say anything.
    fn acts_until(&self, claim: &Claim, now: Time) -> Option<Time> {
        let session = &self.sessions[&claim.owner.session];
        match session.presence {
            _ if claim.lease.is_some() => None,
            Presence::Here => Some(now + session.lease),
            Presence::Away(until) => Some(until),
            Presence::Former => self.grace.map(|grace| grace.until),
            Presence::Overdue(_) => None,
        }
    }

    /// Whom a process is kin of, all its claims are.
    pub(super) fn kin_of_party(&self, party: &Party) -> Kin {
        let led = self.parties.get(party).into_iter().flat_map(|tickets| &tickets.led);
        led.flat_map(|ticket| self.slot(*ticket).kin.clone()).collect()
    }

    /// Returns all kin that a new claim is known to have.
    pub(super) fn kin_of(&self, claim: &Claim, leaders: &[OwnerId]) -> Kin {
        let mut kin = self.kin_of_party(&claim.party);
        kin.extend(leaders.iter().filter_map(|leader| self.as_leader(*leader)));
        kin
    }

    fn as_leader(&self, owner: OwnerId) -> Option<(Ticket, Party)> {
        let ticket = *self.owners.get(&owner)?;
        let held = self.slot(ticket).held.as_ref()?;
        Some((ticket, held.claim.party.clone()))
    }

    fn holds(&self, ticket: Ticket) -> bool {
        self.slots.get(&ticket).is_some_and(|slot| slot.held.is_some())
    }
}

fn check_bounds(claim: &Claim) -> Result<(), Refusal> {
    if claim.keys().iter().len() > KEYS_PER_REQUEST_MAX {
        return Err(Refusal::Limit(Limit::KeysPerRequest));
    }
    if claim.label.owner.len().max(claim.label.reason.len()) > TEXT_BYTES_MAX {
        return Err(Refusal::Limit(Limit::TextBytes));
    }
    Ok(())
}
