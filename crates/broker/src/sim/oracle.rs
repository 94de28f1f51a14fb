//! The judge: what must hold after every step, whatever the broker's own code thinks.
//!
//! It knows the rules ([`Footprint`]), who may still use what ([`Contacts`]), what each client
//! believes to hold, and all that stood in the table a step ago. Locks of the stateless interface, which
//! no session keeps, are judged in [`leash`].

mod leash;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gate_api::wire::{ClientMessage, ServerMessage};
use gate_core::id::{Epoch, OwnerId, SessionId, Ticket, Token};
use gate_core::lock::claim::{Claim, Party};
use gate_core::lock::table::{Record, Table};
use gate_core::lock::want::Op;
use gate_core::time::Time;

use super::contact::{Contacts, Meaning};
use super::files::Names;
use super::footprint::Footprint;
use crate::journal::Loss;
use crate::mail::ConnectionId;

use leash::Leash;
pub use leash::{Heard, Whose, Wish};

/// What the clocks show.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The broker's stands still while it is stopped.
    pub at_broker: Time,
    pub for_clients: Time,
}

/// What a life came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub steps: u64,
    pub grants: u64,
    pub by_kin: u64,
    pub waits: u64,
    pub crashes: u64,
    pub lost_tails: u64,
    pub reclaimed: u64,
    pub lost_leases: u64,
    pub refused: u64,
    pub halts: u64,
    /// Locks of the stateless interface that callers heard of.
    pub locks: u64,
    /// Requests of that interface that were sent again.
    pub repeated: u64,
}

/// A claim as it stood after the last step.
struct Seen {
    claim: Arc<Claim>,
    footprint: Footprint,
    held: Option<Token>,
    /// How many acquires stand behind it, if it is held.
    count: u32,
    /// Since when it stands.
    since: Time,
    /// How long it lives, if no session keeps it.
    leash: Option<Leash>,
    /// What its owner waits for beside what it holds.
    upgrade: Option<Footprint>,
}

/// What a client was told that it holds, and has not let go of.
#[derive(Clone)]
pub struct Belief {
    pub client: usize,
    pub party: Party,
    pub footprint: Footprint,
    pub token: Token,
}

pub struct Oracle {
    pub tally: Tally,
    names: Names,
    contacts: Contacts,
    claims: BTreeMap<Ticket, Seen>,
    beliefs: BTreeMap<OwnerId, Belief>,
    /// All that was believed once.
    acted_on: Vec<(OwnerId, Belief)>,
    /// Until when each client thinks that it may act on what it holds.
    good_until: BTreeMap<usize, Time>,
    /// Owners whose claims may end, and from when on: they said so, or somebody with the right to.
    excused: BTreeMap<OwnerId, Time>,
    kin: BTreeSet<(Party, Party)>,
    last_token: Option<Token>,
    /// What each owner was granted last.
    tokens: BTreeMap<OwnerId, Token>,
    /// Grants that somebody was told of.
    told: BTreeSet<Token>,
    /// A session that comes back: what it lists and the broker does not take is revoked.
    returning: Option<SessionId>,
    /// The call that the broker hears, and whose lock it is about.
    called: Option<(OwnerId, Wish)>,
    /// The broker takes back what it told nobody of.
    takes_back: bool,
    /// The last restart may have lost what was journaled last.
    incomplete: bool,
}

impl Oracle {
    pub fn new(names: Names) -> Oracle {
        Oracle {
            tally: Tally::default(),
            names,
            contacts: Contacts::default(),
            claims: BTreeMap::new(),
            beliefs: BTreeMap::new(),
            acted_on: Vec::new(),
            good_until: BTreeMap::new(),
            excused: BTreeMap::new(),
            kin: BTreeSet::new(),
            last_token: None,
            tokens: BTreeMap::new(),
            told: BTreeSet::new(),
            returning: None,
            called: None,
            takes_back: false,
            incomplete: false,
        }
    }

    pub fn begins(&mut self, id: ConnectionId, now: Time) {
        self.contacts.begins(id, now);
    }

    /// The broker is about to hear a message.
    pub fn hears(&mut self, id: ConnectionId, message: &ClientMessage, now: Time) {
        match self.contacts.hears(id, message, now) {
            Meaning::Nothing => {}
            Meaning::LetsGo(session, number) => {
                self.excused.insert(OwnerId { session, number }, now);
            }
            Meaning::Lists(session, listed) => {
                let owners = self.claims.values().map(|seen| seen.claim.owner);
                let mine = owners.filter(|owner| owner.session == session);
                let unlisted = mine.filter(|owner| !listed.contains(&owner.number));
                self.excused.extend(unlisted.map(|owner| (owner, now)));
                self.returning = Some(session);
                self.tally.reclaimed += listed.len() as u64;
            }
        }
    }

    /// The broker tells a client something.
    pub fn tells(&mut self, id: ConnectionId, message: &ServerMessage) {
        self.contacts.tells(id, message);
        if let ServerMessage::Granted(granted) = message {
            self.told.insert(granted.token);
        }
    }

    /// The broker cannot write: what it told nobody of it may take back.
    pub fn halts(&mut self, now: Time) {
        self.tally.halts += 1;
        self.takes_back = true;
        let held = self.claims.values().filter_map(|seen| Some((seen.held?, seen.claim.owner)));
        let untold = held.filter(|(token, _)| !self.told.contains(token));
        self.excused.extend(untold.map(|(_, owner)| (owner, now)));
    }

    /// The journal knows all by now.
    pub fn written(&mut self) {
        self.contacts.written();
    }

    pub fn parts(&mut self, id: ConnectionId, heard: Time) {
        self.contacts.parts(id, heard);
    }

    pub fn buried(&mut self, session: SessionId) {
        self.contacts.buried(session);
    }

    /// Somebody breaks or recalls a lock.
    pub fn may_end(&mut self, ticket: Ticket, from: Time) {
        if let Some(seen) = self.claims.get(&ticket) {
            let earliest = self.excused.entry(seen.claim.owner).or_insert(from);
            *earliest = from.min(*earliest);
        }
    }

    /// A client is told that it holds something.
    pub fn believes(&mut self, owner: OwnerId, belief: Belief) {
        // The broker may have taken it back meanwhile, for a reason that was looked at.
        let stands = self.claims.values().any(|seen| {
            seen.claim.owner == owner && seen.held.is_some_and(|token| token == belief.token)
        });
        if stands {
            self.acted_on.push((owner, belief.clone()));
            self.beliefs.insert(owner, belief);
        }
    }

    /// A file that a client created is there: from now on it is what the client holds.
    pub fn created(&mut self, owner: OwnerId, footprint: Footprint) {
        if let Some(belief) = self.beliefs.get_mut(&owner) {
            belief.footprint = footprint;
        }
    }

    /// A client has proof that what it holds stands until then. N1: what it could not act on for a
    /// while, nobody else did.
    pub fn relies(&mut self, client: usize, until: Time, now: Time) {
        let known = self.good_until.entry(client).or_default();
        let has_lapsed = *known <= now;
        *known = until.max(*known);
        if has_lapsed && now < until {
            let held = self.beliefs.iter().filter(|(_, belief)| belief.client == client);
            held.for_each(|(owner, belief)| self.check_passed_on(*owner, belief));
        }
    }

    /// A client no longer uses what it had: if that was taken away, nothing of it is under way.
    pub fn lets_go(&mut self, client: usize, number: u64) {
        self.beliefs.retain(|owner, belief| belief.client != client || owner.number != number);
    }

    /// A client is dead, or has no more to do with its session.
    pub fn dies(&mut self, client: usize) {
        self.beliefs.retain(|_, belief| belief.client != client);
        self.good_until.remove(&client);
    }

    /// Two claims that somebody may say are kin: the first waits for the second.
    pub fn possible_kin(&self, choose: impl Fn(usize) -> usize) -> Option<(OwnerId, OwnerId)> {
        let mut pairs = Vec::new();
        // Of callers nobody knows a process.
        let has_process = |seen: &Seen| seen.claim.owner.session != SessionId::STATELESS;
        let waiting = self.claims.iter().filter(|(_, seen)| seen.held.is_none());
        for (ticket, waiter) in waiting.filter(|(_, seen)| has_process(seen)) {
            let against = self.against(*ticket, waiter.footprint);
            let against = against.filter(|(_, seen)| seen.held.is_some() && has_process(seen));
            pairs.extend(against.map(|(_, holder)| (waiter.claim.owner, holder.claim.owner)));
        }
        (!pairs.is_empty()).then(|| pairs[choose(pairs.len())])
    }

    /// The process of the waiter is what the holder waits for.
    pub fn are_kin_now(&mut self, waiter: OwnerId, holder: OwnerId) {
        let party = |owner: OwnerId| {
            let seen = self.claims.values().find(|seen| seen.claim.owner == owner);
            seen.map(|seen| seen.claim.party.clone())
        };
        if let (Some(waiter), Some(holder)) = (party(waiter), party(holder)) {
            self.kin.insert((waiter.clone(), holder.clone()));
            self.kin.insert((holder, waiter));
        }
    }

    pub fn held_tickets(&self) -> Vec<Ticket> {
        let held = self.claims.iter().filter(|(_, seen)| seen.held.is_some());
        held.map(|(ticket, _)| *ticket).collect()
    }

    /// The broker did one thing.
    pub fn after(&mut self, table: &Table, now: Now) {
        self.tally.steps += 1;
        self.contacts.are_now(&table.sessions().collect(), now.at_broker);
        let before = self.read(table, now.at_broker);
        self.check_locks(&before, now.at_broker);
        self.check_ends(&before, now.at_broker);
        let changed = |(ticket, seen): &(&Ticket, &Seen)| {
            let old = before.get(*ticket);
            old.is_none_or(|old| old.held != seen.held || !Arc::ptr_eq(&old.claim, &seen.claim))
        };
        let mut granted = Vec::new();
        for (ticket, seen) in self.claims.iter().filter(changed) {
            let Some(token) = seen.held else {
                self.tally.waits += u64::from(!before.contains_key(ticket));
                continue;
            };
            self.check_exclusion(*ticket, seen, table.epoch());
            if before.get(ticket).is_none_or(|old| old.held != Some(token)) {
                granted.push((token, *ticket));
            }
        }
        granted.sort_unstable();
        for (token, ticket) in granted {
            let Some(Record::Held { passed, .. }) = table.record(ticket) else { unreachable!() };
            let by_kin = passed.anybody();
            // Its kin may have gone in the same step.
            let party = &self.claims[&ticket].claim.party;
            let had_kin = before.iter().any(|(other, seen)| {
                *other != ticket && seen.held.is_some() && seen.claim.party == *party
            });
            let passes = by_kin && (had_kin || self.has_kin(ticket, party));
            assert!(passes == by_kin, "{ticket} passed others as kin of nobody");
            self.tally.by_kin += u64::from(by_kin);
            self.check_grant(table.epoch(), token, ticket, passes, now.for_clients);
        }
        if let Some(back) = self.returning.take() {
            let claims = self.claims.values().filter(|seen| seen.held.is_some());
            let held: BTreeSet<OwnerId> = claims.map(|seen| seen.claim.owner).collect();
            self.beliefs.retain(|owner, _| owner.session != back || held.contains(owner));
        }
    }

    /// The broker has done all it could for now.
    pub fn at_rest(&self, table: &Table, now: Time) {
        self.check_leashes(now);
        if self.incomplete && table.in_grace() {
            return;
        }
        for (ticket, seen) in &self.claims {
            let Some(footprint) = seen.waits_for() else { continue };
            let is_lock = |seen: &Seen| seen.claim.owner.session == SessionId::STATELESS;
            if !is_lock(seen) && !self.contacts.is_present(seen.claim.owner.session, now) {
                continue;
            }
            // One that others stop as well is not looked at before these are gone.
            let over = |other: &Seen| {
                !is_lock(other) && self.contacts.must_be_over(other.claim.owner.session, now)
            };
            let mut against = self.against(*ticket, footprint).peekable();
            assert!(against.peek().is_some(), "{ticket} waits for nothing");
            assert!(
                against.any(|(_, other)| !over(other)),
                "N5: {ticket} waits only for clients that are gone for longer than their lease"
            );
        }
    }

    /// A broker that crashed is back.
    pub fn after_restart(&mut self, table: &Table, loss: Loss, now: Time) {
        let incomplete = loss != Loss::Nothing;
        self.incomplete = incomplete;
        self.tally.crashes += 1;
        self.tally.lost_tails += u64::from(incomplete);
        let known = table.sessions().collect();
        let given_up = self.contacts.after_restart(&known, !incomplete, now);
        self.beliefs.retain(|owner, _| !given_up.contains(&owner.session));
        if loss == Loss::Clients {
            known.iter().for_each(|session| self.contacts.buried(*session));
        }
        self.read(table, now);
        self.begin_anew(now);
        if incomplete {
            // Its clock began anew, too: what was to come is not known any more.
            self.excused.values_mut().for_each(|from| *from = now);
            return;
        }
        for (owner, belief) in &self.beliefs {
            let record = table.ticket_of(*owner).and_then(|ticket| table.record(ticket));
            // A caller whose request was sent twice may have more than it heard of.
            let is_lock = owner.session == SessionId::STATELESS;
            let is_it = |token| token == belief.token || (is_lock && token > belief.token);
            let known = matches!(record, Some(Record::Held { token, .. }) if is_it(token));
            assert!(
                known || self.excused.contains_key(owner),
                "N3: {owner:?} was told of {}, and the journal does not know it",
                belief.token
            );
        }
    }

    /// Takes the table as it is now; returns what was known before.
    fn read(&mut self, table: &Table, now: Time) -> BTreeMap<Ticket, Seen> {
        let mut before = std::mem::take(&mut self.claims);
        let mut old = BTreeMap::new();
        for ticket in table.tickets_after(Ticket(0), usize::MAX) {
            let Some(record) = table.record(ticket) else { continue };
            let (claim, held, count) = match record {
                Record::Waiting(claim) => (claim, None, 0),
                Record::Held { claim, token, count, .. } => (claim, Some(token), count),
            };
            let known = before.remove(&ticket);
            let footprint = match &known {
                Some(known) if Arc::ptr_eq(&known.claim, &claim) => known.footprint,
                _ => Footprint::of(claim.want()),
            };
            let since = known.as_ref().filter(|known| known.held == held);
            let since = since.map_or(now, |known| known.since);
            let is_lock = held.is_some() && claim.owner.session == SessionId::STATELESS;
            let leash = known.as_ref().and_then(|known| known.leash);
            let leash = is_lock.then(|| leash.unwrap_or_else(|| Leash::begin(&claim, now)));
            let upgrade = is_lock.then(|| leash::upgrade_of(table, ticket)).flatten();
            let seen = Seen { claim, footprint, held, count, since, leash, upgrade };
            self.claims.insert(ticket, seen);
            old.extend(known.map(|known| (ticket, known)));
        }
        old.append(&mut before);
        old
    }

    /// What somebody holds is not taken away for no reason.
    fn check_ends(&mut self, before: &BTreeMap<Ticket, Seen>, now: Time) {
        let are_kept = |seen: &Seen| seen.held.is_some() && seen.leash.is_none();
        for (ticket, seen) in before.iter().filter(|(_, seen)| are_kept(seen)) {
            if self.claims.get(ticket).is_some_and(|now| now.held.is_some()) {
                continue;
            }
            let owner = seen.claim.owner;
            let over = self.contacts.may_be_over(owner.session, now);
            let limit = seen.claim.max_hold.map(|limit| seen.since + limit);
            let mut excused = self.excused.get(&owner).copied().into_iter().chain(limit);
            if !excused.any(|from| from <= now) {
                // Its client has not heard of it, and must know by itself.
                assert!(over, "{ticket} of {owner:?} was taken away for no reason");
                self.tally.lost_leases += u64::from(self.beliefs.contains_key(&owner));
            }
            // What it had is gone, whatever it goes on to believe.
            self.excused.entry(owner).or_insert(now);
        }
    }

    /// N1, among what the broker thinks is held.
    fn check_exclusion(&self, ticket: Ticket, seen: &Seen, run: Epoch) {
        for (other, against) in &self.claims {
            // What was let in by a broker that forgot it stood side by side: those calls are over.
            let is_former = |seen: &Seen| seen.held.is_some_and(|token| token.epoch < run);
            let are_ordered = is_former(seen) && is_former(against);
            let [one, two] = [seen.footprint, against.footprint];
            let clash = match self.are_kin(&seen.claim.party, &against.claim.party) {
                true => !are_ordered && one.calls().conflicts(two),
                false if are_ordered => one.without_calls().conflicts(two),
                false => one.conflicts(two),
            };
            assert!(
                *other == ticket || against.held.is_none() || !clash,
                "N1: {ticket} and {other} both hold: {:?} and {:?}",
                seen.claim.want(),
                against.claim.want()
            );
        }
    }

    fn check_grant(&mut self, run: Epoch, token: Token, ticket: Ticket, passes: bool, now: Time) {
        let seen = &self.claims[&ticket];
        let owner = seen.claim.owner;
        if token.epoch < run {
            // A grant that the journal lost and its client still had.
            let before = self.tokens.get(&owner);
            assert_eq!(before, Some(&token), "N4: {owner:?} never had this token of a former run");
            // It lists the names that it asked for, which may have moved since.
            let footprint = self.relied_on(seen.claim.want().op, seen.footprint);
            return self.check_beliefs(ticket, seen, footprint, now);
        }
        assert!(self.last_token < Some(token), "N4: {token} after {:?}", self.last_token);
        self.last_token = Some(token);
        self.tokens.insert(owner, token);
        if !passes {
            self.check_order(ticket, seen);
        }
        self.check_beliefs(ticket, seen, seen.footprint, now);
        self.tally.grants += 1;
    }

    /// N2: nobody is let in before an earlier waiter it conflicts with, kin apart.
    fn check_order(&self, ticket: Ticket, seen: &Seen) {
        let party = &seen.claim.party;
        for (other, before) in self.claims.range(..ticket) {
            assert!(
                before.waits_for().is_none_or(|asked| !asked.conflicts(seen.footprint))
                    || self.are_kin(party, &before.claim.party),
                "N2: {ticket} was let in before {other}: {:?} before {:?}",
                seen.claim.want(),
                before.claim.want()
            );
        }
    }

    /// Whether both are of a session that is coming back. What it lists it had before, side by side;
    /// of what the broker does not take, because names have moved since, it is told in a moment.
    fn takes_back(&self, one: OwnerId, other: OwnerId) -> bool {
        self.returning.is_some_and(|back| one.session == back && other.session == back)
    }

    /// N1, among what clients believe to hold and may rely on.
    fn check_beliefs(&self, ticket: Ticket, seen: &Seen, footprint: Footprint, now: Time) {
        for (owner, belief) in &self.beliefs {
            assert!(
                *owner == seen.claim.owner
                    || self.takes_back(*owner, seen.claim.owner)
                    || !belief.footprint.conflicts(footprint)
                    || self.are_kin(&seen.claim.party, &belief.party)
                    || self.good_until.get(&belief.client).is_none_or(|until| *until <= now),
                "N1, N7: {ticket} was let in though {owner:?} acts on {}",
                belief.token
            );
        }
    }

    /// N1: nobody acts on what somebody else acted on after it.
    fn check_passed_on(&self, owner: OwnerId, belief: &Belief) {
        for (other, later) in &self.acted_on {
            assert!(
                *other == owner
                    || later.token < belief.token
                    || !later.footprint.conflicts(belief.footprint)
                    || self.are_kin(&later.party, &belief.party),
                "N1: {owner:?} acts again on {}, after {other:?} did on {}",
                belief.token,
                later.token
            );
        }
    }

    /// Returns who is in a claim's way by the rules, kin or not.
    fn against(
        &self,
        ticket: Ticket,
        footprint: Footprint,
    ) -> impl Iterator<Item = (Ticket, &Seen)> {
        let others = self.claims.iter().map(|(other, against)| (*other, against));
        others.filter(move |(other, against)| {
            let holds = against.held.is_some() && against.footprint.conflicts(footprint);
            let waits = against.waits_for().is_some_and(|asked| asked.conflicts(footprint));
            *other != ticket && (holds || (*other < ticket && waits))
        })
    }

    /// Returns whether a party has anything else, or was said to be kin of somebody.
    fn has_kin(&self, ticket: Ticket, party: &Party) -> bool {
        let others = self.claims.iter().filter(|(other, _)| **other != ticket);
        let mut held = others.filter(|(_, seen)| seen.held.is_some());
        held.any(|(_, seen)| seen.claim.party == *party)
            || self.kin.iter().any(|(one, _)| one == party)
    }

    fn are_kin(&self, one: &Party, other: &Party) -> bool {
        one == other || self.kin.contains(&(one.clone(), other.clone()))
    }

    /// Returns what a client may rely on: a name of an open handle, or of what is being created, may
    /// have moved meanwhile.
    pub fn relied_on(&self, op: Op, footprint: Footprint) -> Footprint {
        match op {
            Op::Open(_) | Op::Create if self.names == Names::Move => footprint.nameless(),
            _ => footprint,
        }
    }
}

impl Seen {
    /// Returns what it asks for and does not have.
    fn waits_for(&self) -> Option<Footprint> {
        self.upgrade.or_else(|| self.held.is_none().then_some(self.footprint))
    }
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.steps += other.steps;
        self.grants += other.grants;
        self.by_kin += other.by_kin;
        self.waits += other.waits;
        self.crashes += other.crashes;
        self.lost_tails += other.lost_tails;
        self.reclaimed += other.reclaimed;
        self.lost_leases += other.lost_leases;
        self.refused += other.refused;
        self.halts += other.halts;
        self.locks += other.locks;
        self.repeated += other.repeated;
    }
}
