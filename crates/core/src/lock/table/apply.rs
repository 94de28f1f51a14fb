//! Making events so. Nothing here can fail, and nothing here decides.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::claim::Claim;
use super::super::event::{End, Event, Kin, Notice, Part, Passed, Revocation};
use super::super::key::Key;
use super::super::mode::Mode;
use super::super::queue::Queue;
use super::super::slot::{Held, QueueId, Slot, Stay, Waiting};
use super::super::want::{Access, Op};
use super::judge::Asker;
use super::timers::Alarm;
use super::{Presence, Session, Table};
use crate::id::{SessionId, Ticket, Token};
use crate::time::Time;

/// The fields of [`Event::Granted`].
struct Grant<'a> {
    ticket: Ticket,
    claim: &'a Arc<Claim>,
    token: Token,
    count: u32,
    passed: Passed,
    kin: &'a Kin,
    at: Time,
}

impl Table {
    /// Makes an event so and returns who must be told, once it is journaled.
    pub fn apply(&mut self, event: &Event) -> Vec<Notice> {
        match event {
            Event::Opened { session, lease } => self.open(*session, *lease, Presence::Here),
            Event::Lost { session, until } => self.lose(*session, *until),
            Event::Overdue { session, until } => self.run_over(*session, *until),
            Event::Back { session } => return self.come_back(*session),
            Event::Closed { session } => self.close(*session),
            Event::Queued { ticket, claim, kin, at } => {
                return self.queue_up(*ticket, claim, kin, *at);
            }
            Event::Granted { ticket, claim, token, count, passed, kin, at } => {
                let (ticket, token, count) = (*ticket, *token, *count);
                let (passed, at) = (*passed, *at);
                return self.grant(Grant { ticket, claim, token, count, passed, kin, at });
            }
            Event::Counted { ticket, count } => return self.recount(*ticket, *count),
            Event::Reshaped { ticket, part: Part::Held, claim } => self.reshape(*ticket, claim),
            Event::Reshaped { ticket, part: Part::Waiting, claim } => self.requeue(*ticket, claim),
            Event::Revoked { ticket, why, until } => return self.revoke(*ticket, *why, *until),
            Event::Ended { ticket, end } => return self.end(*ticket, *end),
            Event::UpgradeEnded { ticket, why } => {
                self.leave_line(*ticket);
                self.rearm(*ticket);
                let owner = self.slot(*ticket).claim().owner;
                return vec![Notice::Refused { owner, why: *why }];
            }
            Event::Renewed { ticket, lease, at } => self.renew(*ticket, *lease, *at),
            Event::Active { ticket, at } => {
                self.held_mut(*ticket).active = *at;
            }
            Event::Deferred { ticket, until } => {
                self.waiting_mut(*ticket).look_again = Some(*until);
                self.rearm(*ticket);
            }
            Event::Recalled { ticket, recall } => {
                self.set_stay(*ticket, Stay::Recalled(*recall));
                let owner = self.slot(*ticket).claim().owner;
                return vec![Notice::Recalled { owner, recall: *recall }];
            }
            Event::Spared { ticket, until } => {
                self.set_stay(*ticket, until.map_or(Stay::Free, Stay::Until));
            }
            Event::Outstayed { ticket } => {
                let until = self.held_mut(*ticket).asked_until().expect("it was asked to let go");
                self.set_stay(*ticket, Stay::Outstayed { until });
            }
            Event::Suspected { ticket, until } => self.suspect(*ticket, *until),
            Event::Cleared { ticket } => {
                self.waiting_mut(*ticket).suspicion = None;
                self.rearm(*ticket);
            }
            Event::Kin { waiter, holder } => {
                let party = self.held_mut(*holder).claim.party.clone();
                self.lead(*waiter, &Kin::from([(*holder, party)]));
                self.ripe.insert(*waiter);
            }
            Event::GraceEnded => self.end_grace(),
        }
        Vec::new()
    }

    pub(super) fn open(&mut self, session: SessionId, lease: Duration, presence: Presence) {
        let fresh = Session { lease, presence, tickets: BTreeSet::new(), waiting: 0 };
        self.sessions.insert(session, fresh);
    }

    fn lose(&mut self, session: SessionId, until: Time) {
        self.session_mut(session).presence = Presence::Away(until);
        self.alarms.insert((until, Alarm::Session(session)));
    }

    /// Whoever waits for something of the session looks again: it is no longer spared.
    fn run_over(&mut self, session: SessionId, until: Time) {
        self.disarm_session(session);
        self.session_mut(session).presence = Presence::Overdue(until);
        self.alarms.insert((until, Alarm::Session(session)));
        self.overdue.insert((until, session));
        self.spared.extend(&self.sessions[&session].tickets);
        let slots = self.sessions[&session].tickets.iter().map(|ticket| &self.slots[ticket]);
        let held = slots.clone().flat_map(|slot| slot.held.iter().flat_map(|held| &held.keys));
        let waited = slots.flat_map(|slot| slot.waiting.iter().flat_map(|wait| &wait.keys));
        let queues: Vec<QueueId> = held.chain(waited).map(|(queue, _)| *queue).collect();
        for queue in queues {
            self.touch(queue);
        }
    }

    fn come_back(&mut self, session: SessionId) -> Vec<Notice> {
        self.disarm_session(session);
        self.session_mut(session).presence = Presence::Here;
        let tickets: Vec<Ticket> = self.sessions[&session].tickets.iter().copied().collect();
        let mut notices = Vec::new();
        for ticket in tickets {
            let slot = self.slot_mut(ticket);
            if let Some(held) = &mut slot.held {
                // What it was told before it went away, it may have forgotten.
                held.contended = false;
            }
            if slot.waiting.is_some() {
                self.ripe.insert(ticket);
            }
            if self.slot(ticket).held.is_some() && self.is_waited_for(ticket) {
                self.warn_holder(ticket, &mut notices);
            }
            let slot = self.slot(ticket);
            if let Some(recall) = slot.held.as_ref().and_then(Held::recall) {
                notices.push(Notice::Recalled { owner: slot.claim().owner, recall });
            }
        }
        notices.push(Notice::Restored { session });
        notices
    }

    fn close(&mut self, session: SessionId) {
        self.disarm_session(session);
        let closed = self.sessions.remove(&session);
        assert!(
            closed.is_some_and(|session| session.tickets.is_empty()),
            "a session's claims end before it does"
        );
    }

    fn disarm_session(&mut self, session: SessionId) {
        if let Presence::Away(until) | Presence::Overdue(until) = self.sessions[&session].presence {
            self.alarms.remove(&(until, Alarm::Session(session)));
            if self.overdue.remove(&(until, session)) {
                let back = &self.sessions[&session].tickets;
                self.spared.retain(|ticket| !back.contains(ticket));
            }
        }
    }

    fn end_grace(&mut self) {
        if let Some(grace) = self.grace.take() {
            self.alarms.remove(&(grace.until, Alarm::Grace));
            let waiting = self.parties.values().flat_map(|tickets| tickets.waiting.iter());
            self.ripe.extend(waiting.copied());
        }
    }

    pub(super) fn queue_up(
        &mut self,
        ticket: Ticket,
        claim: &Arc<Claim>,
        kin: &Kin,
        at: Time,
    ) -> Vec<Notice> {
        let keys = self.intern(claim);
        for (queue, mode) in &keys {
            self.queues[*queue].wait(ticket, *mode);
        }
        let look_again = Table::first_look(claim, at);
        let waiting = Waiting {
            claim: claim.clone(),
            keys,
            since: at,
            watch: None,
            look_again,
            suspicion: None,
        };
        self.enlist(ticket, claim).waiting = Some(waiting);
        self.lead(ticket, kin);
        self.party_mut(claim).waiting.insert(ticket);
        self.session_mut(claim.owner.session).waiting += 1;
        self.waiting += 1;
        self.ripe.insert(ticket);
        self.rearm(ticket);
        let mut notices = vec![Notice::Waiting { owner: claim.owner, ticket }];
        if look_again.is_some() {
            self.warn_blockers(ticket, &mut notices);
        }
        notices
    }

    /// Tells open handles that a reader waits for, once each, that their I/O now matters.
    fn warn_blockers(&mut self, ticket: Ticket, notices: &mut Vec<Notice>) {
        let blockers: Vec<Ticket> = self.blockers(ticket).collect();
        for blocker in blockers {
            if self.slot(blocker).held.is_some() {
                self.warn_holder(blocker, notices);
            }
        }
    }

    fn warn_holder(&mut self, ticket: Ticket, notices: &mut Vec<Notice>) {
        let held = self.held_mut(ticket);
        if held.claim.want().op.follows_file() && !held.contended {
            held.contended = true;
            notices.push(Notice::Contended { owner: held.claim.owner });
        }
    }

    fn grant(&mut self, grant: Grant<'_>) -> Vec<Notice> {
        let Grant { ticket, claim, token, count, passed, kin, at } = grant;
        let token_is_new = token.epoch < self.epoch || token.counter >= self.next_token;
        assert!(token_is_new, "N4: tokens only rise");
        if token.epoch == self.epoch {
            self.next_token = token.counter + 1;
        }
        if self.slots.get(&ticket).is_some_and(|slot| slot.waiting.is_some()) {
            self.leave_line(ticket);
        }
        self.hold(ticket, claim, token, passed, at);
        self.lead(ticket, kin);
        if passed.anybody() {
            // It may have been let in for what its process had.
            let inherited = self.kin_of_party(&claim.party);
            self.lead(ticket, &inherited);
        }
        self.slot_mut(ticket).count = count;
        let slot = self.slot(ticket);
        let asker = Asker { ticket, party: &claim.party, kin: &slot.kin };
        assert!(self.fits(asker, claim), "N1: a grant conflicts with nobody but kin");
        self.rearm(ticket);
        // Kin of a new holder are no longer stopped by what they were.
        let kin = self.parties[&claim.party].waiting.iter().copied();
        self.ripe.extend(kin);
        let mut notices =
            vec![Notice::Granted { owner: claim.owner, ticket, token, count, passed }];
        if claim.want().op == Op::Open(Access::Write) && self.is_waited_for(ticket) {
            self.warn_holder(ticket, &mut notices);
        }
        notices
    }

    /// Notes whom a claim is kin of; some of them may be gone by now.
    pub(super) fn lead(&mut self, ticket: Ticket, kin: &Kin) {
        if kin.is_empty() {
            return;
        }
        let claim = self.slot(ticket).claim().clone();
        self.party_mut(&claim).led.insert(ticket);
        for (leader, party) in kin.iter().filter(|(leader, _)| **leader != ticket) {
            self.slot_mut(ticket).kin.insert(*leader, party.clone());
            if let Some(held) = self.slots.get_mut(leader).and_then(|slot| slot.held.as_mut()) {
                held.leads.insert(ticket);
            }
        }
    }

    pub(super) fn hold(
        &mut self,
        ticket: Ticket,
        claim: &Arc<Claim>,
        token: Token,
        passed: Passed,
        at: Time,
    ) {
        let upgraded = self.slots.get_mut(&ticket).and_then(|slot| slot.held.take());
        if let Some(before) = &upgraded {
            self.moved.extend(&before.leads);
            self.give_up(ticket, before);
        }
        let since = upgraded.as_ref().map_or(at, |before| before.since);
        let counted_from = upgraded.as_ref().map_or(at, |before| before.counted_from);
        // Whoever was asked to let go is not let off for having more now.
        let asked = upgraded.as_ref().map(|before| before.stay);
        let asked = asked.filter(|stay| matches!(stay, Stay::Recalled(_) | Stay::Outstayed { .. }));
        let keys = self.intern(claim);
        let former_lease = upgraded.as_ref().and_then(|before| before.claim.lease);
        let longer = former_lease.filter(|former| Some(*former) > claim.lease);
        let claim =
            &longer.map_or_else(|| claim.clone(), |lease| Arc::new(claim.with_lease(lease)));
        for (queue, mode) in &keys {
            self.queues[*queue].hold(ticket, *mode);
        }
        let held = Held {
            claim: claim.clone(),
            keys,
            token,
            passed,
            since,
            counted_from,
            stay: Stay::of(claim, counted_from),
            renewed: at,
            active: at,
            contended: false,
            leads: upgraded.map(|before| before.leads).unwrap_or_default(),
        };
        self.enlist(ticket, claim).held = Some(held);
        self.party_mut(claim).held.insert(ticket);
        if let Some(stay) = asked {
            self.set_stay(ticket, stay);
        }
    }

    /// Returns whether anybody waits for the file or the name that a holder has.
    fn is_waited_for(&self, ticket: Ticket) -> bool {
        let held = self.slot(ticket).held.as_ref().expect("looked at as a holder");
        let narrow = held
            .keys
            .iter()
            .filter(|(queue, _)| matches!(self.queues[*queue].key, Key::File(_) | Key::Path(..)));
        narrow.into_iter().any(|(queue, _)| self.queues[*queue].waiters().next().is_some())
    }

    /// Returns whether a claim stands beside all holders that are not kin.
    pub(super) fn fits(&self, asker: Asker<'_>, claim: &Claim) -> bool {
        self.fits_beside(asker, claim, |_| true)
    }

    /// Returns whether a claim stands beside all of these holders that are not kin. Which call came
    /// first that was under way is no question for such as were let in already.
    pub(super) fn fits_beside(
        &self,
        asker: Asker<'_>,
        claim: &Claim,
        these: impl Fn(Ticket) -> bool,
    ) -> bool {
        claim.keys().iter().filter(|(key, _)| key.knows_kin()).all(|(key, mode)| {
            self.queue(key).is_none_or(|queue| {
                let against = queue.holders_against(mode);
                let mut against = against.filter(|t| *t != asker.ticket && these(*t));
                against.all(|holder| self.are_kin(asker, holder))
            })
        })
    }

    /// Returns whether two are of one party, or either was let in as kin of the other's.
    fn are_kin(&self, asker: Asker<'_>, holder: Ticket) -> bool {
        let other = self.slot(holder);
        let party = &other.claim().party;
        party == asker.party
            || asker.kin.values().any(|kin| kin == party)
            || other.kin.values().any(|kin| kin == asker.party)
    }

    fn recount(&mut self, ticket: Ticket, count: u32) -> Vec<Notice> {
        let slot = self.slot_mut(ticket);
        let rose = count > slot.count;
        slot.count = count;
        let owner = slot.claim().owner;
        match &slot.held {
            Some(held) if rose => {
                let (token, passed) = (held.token, held.passed);
                vec![Notice::Granted { owner, ticket, token, count, passed }]
            }
            None if rose => vec![Notice::Waiting { owner, ticket }],
            _ => Vec::new(),
        }
    }

    /// Gives a waiter its place in the lines of other keys, where later ones may wait already.
    fn requeue(&mut self, ticket: Ticket, claim: &Arc<Claim>) {
        let since = self.waiting_mut(ticket).since;
        self.leave_line(ticket);
        self.queue_up(ticket, claim, &Kin::new(), since);
        self.moved.insert(ticket);
    }

    /// What lets a holder's kin pass is elsewhere by now.
    fn reshape(&mut self, ticket: Ticket, claim: &Arc<Claim>) {
        self.move_kin_of(ticket);
        self.ripe.extend(&self.moved);
        let keys = self.intern(claim);
        let held = self.held_mut(ticket);
        held.claim = claim.clone();
        let old = std::mem::replace(&mut held.keys, keys.clone());
        for (queue, _) in &old {
            self.queues[*queue].let_go(ticket);
        }
        for (queue, mode) in keys {
            self.queues[queue].hold(ticket, mode);
        }
        for (queue, _) in old {
            self.touch(queue);
        }
    }

    /// What it waits for beside what it holds is nothing to wait for any more. Said once more, its
    /// owner is given more time.
    fn revoke(&mut self, ticket: Ticket, why: Revocation, until: Time) -> Vec<Notice> {
        if self.slot(ticket).waiting.is_some() {
            self.leave_line(ticket);
        }
        self.move_kin_of(ticket);
        let is_told = self.slot(ticket).revoked().is_some();
        self.set_stay(ticket, Stay::Revoked { why, until });
        match is_told {
            true => Vec::new(),
            false => vec![Notice::Revoked { owner: self.slot(ticket).claim().owner, why }],
        }
    }

    fn end(&mut self, ticket: Ticket, end: End) -> Vec<Notice> {
        let is_told = self.slot(ticket).revoked().is_some();
        let claim = self.slot(ticket).claim().clone();
        if self.slot(ticket).waiting.is_some() {
            self.leave_line(ticket);
        }
        self.move_kin_of(ticket);
        let mut slot = self.slots.remove(&ticket).expect("what ends was there");
        if let Some(held) = slot.held.take() {
            self.give_up(ticket, &held);
        }
        if let Some(alarm) = slot.alarm {
            self.alarms.remove(&(alarm, Alarm::Claim(ticket)));
        }
        for holder in slot.kin.keys() {
            if let Some(held) = self.slots.get_mut(holder).and_then(|slot| slot.held.as_mut()) {
                held.leads.remove(&ticket);
            }
        }
        self.delist(ticket, &claim);
        let owner = claim.owner;
        match end {
            End::Released => Vec::new(),
            End::Revoked(_) if is_told => Vec::new(),
            End::Refused(why) => vec![Notice::Refused { owner, why }],
            End::Revoked(why) => vec![Notice::Revoked { owner, why }],
            End::Ungated => vec![Notice::Ungated { owner }],
        }
    }

    fn renew(&mut self, ticket: Ticket, lease: Duration, at: Time) {
        let held = self.held_mut(ticket);
        held.renewed = at;
        if held.claim.lease != Some(lease) {
            held.claim = Arc::new(held.claim.with_lease(lease));
        }
        self.rearm(ticket);
    }

    fn suspect(&mut self, ticket: Ticket, look_at: Time) {
        if let Some(suspicion) = &mut self.waiting_mut(ticket).suspicion {
            suspicion.look_at = look_at;
        }
        self.rearm(ticket);
    }

    pub(super) fn set_stay(&mut self, ticket: Ticket, stay: Stay) {
        self.held_mut(ticket).stay = stay;
        match stay {
            Stay::Outstayed { .. } => self.outstayed.insert(ticket),
            _ => self.outstayed.remove(&ticket),
        };
        self.rearm(ticket);
    }

    /// Takes a waiter out of every line it stands in.
    fn leave_line(&mut self, ticket: Ticket) {
        self.unwatch(ticket);
        let slot = self.slot_mut(ticket);
        let waiting = slot.waiting.take().expect("only waiters leave a line");
        for (queue, mode) in &waiting.keys {
            self.queues[*queue].leave(ticket, *mode);
            self.touch(*queue);
        }
        let claim = &waiting.claim;
        self.party_mut(claim).waiting.remove(&ticket);
        self.session_mut(claim.owner.session).waiting -= 1;
        self.waiting -= 1;
        self.ripe.remove(&ticket);
    }

    fn give_up(&mut self, ticket: Ticket, held: &Held) {
        for (queue, _) in &held.keys {
            self.queues[*queue].let_go(ticket);
            self.touch(*queue);
        }
        self.party_mut(&held.claim).held.remove(&ticket);
        self.outstayed.remove(&ticket);
    }

    /// Notes that a queue lost somebody: its watchers look again, or it is forgotten.
    fn touch(&mut self, id: QueueId) {
        let queue = &self.queues[id];
        if queue.is_empty() {
            let queue = self.queues.remove(id);
            self.index.remove(&queue.key);
        } else {
            self.ripe.extend(queue.concerned());
        }
    }

    fn intern(&mut self, claim: &Claim) -> Vec<(QueueId, Mode)> {
        let queue_of = |(key, mode): (&Key, Mode)| {
            if let Some(id) = self.index.get(key) {
                return (*id, mode);
            }
            let id = self.queues.insert(Queue::new(key.clone()));
            self.index.insert(key.clone(), id);
            (id, mode)
        };
        claim.keys().iter().map(queue_of).collect()
    }

    fn enlist(&mut self, ticket: Ticket, claim: &Arc<Claim>) -> &mut Slot {
        self.next_ticket = self.next_ticket.max(ticket.0 + 1);
        self.owners.insert(claim.owner, ticket);
        self.session_mut(claim.owner.session).tickets.insert(ticket);
        self.slots.entry(ticket).or_insert_with(Slot::new)
    }

    fn delist(&mut self, ticket: Ticket, claim: &Claim) {
        self.spared.remove(&ticket);
        self.owners.remove(&claim.owner);
        self.session_mut(claim.owner.session).tickets.remove(&ticket);
        let party = self.party_mut(claim);
        party.led.remove(&ticket);
        if party.held.is_empty() && party.waiting.is_empty() {
            self.parties.remove(&claim.party);
        }
    }

    fn party_mut(&mut self, claim: &Claim) -> &mut super::Tickets {
        self.parties.entry(claim.party.clone()).or_default()
    }

    pub(super) fn session_mut(&mut self, session: SessionId) -> &mut Session {
        self.sessions.get_mut(&session).expect("claims belong to living sessions")
    }

    fn held_mut(&mut self, ticket: Ticket) -> &mut Held {
        self.slot_mut(ticket).held.as_mut().expect("the event is about a holder")
    }

    fn waiting_mut(&mut self, ticket: Ticket) -> &mut Waiting {
        self.slot_mut(ticket).waiting.as_mut().expect("the event is about a waiter")
    }
}
