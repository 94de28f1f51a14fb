//! How long locks of the stateless interface live, by what the broker heard.
//!
//! Each ends when it is let go of as often as it was asked for, when nobody renewed it for its lease,
//! when it was held for as long as it may be, or when a person says so; and for no other reason.

use std::collections::BTreeMap;
use std::time::Duration;

use gate_core::id::{OwnerId, SessionId, Ticket};
use gate_core::lock::claim::{Claim, Party};
use gate_core::lock::table::{State, Table};
use gate_core::time::Time;

use super::{Footprint, Oracle, Seen};

/// What a call of the stateless interface means.
pub struct Heard {
    pub whose: Whose,
    pub wish: Wish,
}

/// The lock that a call is about.
#[derive(Clone, Debug)]
pub enum Whose {
    /// The lock of that id.
    Lock(OwnerId),
    /// That of an owner on a path, if there is one.
    Named { owner: String, path: String },
}

/// What is to become of a lock.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    /// Its owner asks for it, once more if it has it, for a lease.
    Asks(Option<Duration>),
    /// It is held once less, or waited for no longer.
    LetsGo,
    /// It goes on for a lease, for that if one is named.
    Renews(Option<Duration>),
}

/// How long a lock lives.
#[derive(Clone, Copy, Debug)]
pub struct Leash {
    renewed: Time,
    lease: Duration,
    since: Time,
    max_hold: Option<Duration>,
}

impl Leash {
    pub fn begin(claim: &Claim, now: Time) -> Leash {
        let lease = claim.lease.expect("no session keeps it");
        Leash { renewed: now, lease, since: now, max_hold: claim.max_hold }
    }

    fn renew(&mut self, now: Time, lease: Duration) {
        (self.renewed, self.lease) = (now, lease);
    }

    fn is_over(&self, now: Time) -> bool {
        let ends = self.max_hold.map(|limit| self.since + limit);
        self.renewed + self.lease <= now || ends.is_some_and(|at| at <= now)
    }
}

/// Returns what the owner of a lock waits for beside it.
pub fn upgrade_of(table: &Table, ticket: Ticket) -> Option<Footprint> {
    let mut standings = table.standings(vec![ticket]);
    let waiting = standings.find(|standing| matches!(standing.state, State::Waiting { .. }))?;
    Some(Footprint::of(waiting.claim.want()))
}

impl Oracle {
    /// The broker is about to hear a call.
    pub fn hears_call(&mut self, heard: Heard) {
        let owner = match heard.whose {
            Whose::Lock(owner) => Some(owner),
            Whose::Named { owner, path } => {
                let named = Party::Named(owner.into());
                let is_it = |seen: &&Seen| {
                    let place = seen.claim.want().places.first().and_then(|p| p.path.as_ref());
                    seen.claim.owner.session == SessionId::STATELESS
                        && seen.claim.party == named
                        && place.is_some_and(|place| place.as_bytes() == path.as_bytes())
                };
                self.claims.values().find(is_it).map(|seen| seen.claim.owner)
            }
        };
        self.called = owner.map(|owner| (owner, heard.wish));
    }

    /// Somebody is told of a lock.
    pub fn tells_of_lock(&mut self, ticket: Ticket) {
        self.told.extend(self.claims.get(&ticket).and_then(|seen| seen.held));
    }

    /// A broker that is back counts from now on.
    pub(super) fn begin_anew(&mut self, now: Time) {
        for seen in self.claims.values_mut() {
            seen.since = now;
            seen.leash = seen.leash.map(|_| Leash::begin(&seen.claim, now));
        }
    }

    /// What became of locks follows from what was heard.
    pub(super) fn check_locks(&mut self, before: &BTreeMap<Ticket, Seen>, now: Time) {
        let called = self.called.take();
        let takes_back = std::mem::take(&mut self.takes_back);
        for (ticket, old) in before {
            let Some(leash) = old.leash else { continue };
            let owner = old.claim.owner;
            let wish = called.filter(|(whose, _)| *whose == owner).map(|(_, wish)| wish);
            let Some(seen) = self.claims.get_mut(ticket).filter(|seen| seen.held.is_some()) else {
                let is_told = self.excused.get(&owner).is_some_and(|from| *from <= now);
                let lets_go = matches!(wish, Some(Wish::LetsGo)) && old.count == 1;
                assert!(
                    is_told || lets_go || takes_back || leash.is_over(now),
                    "{ticket}, held {} times, ended for no reason: {leash:?}",
                    old.count
                );
                self.excused.entry(owner).or_insert(now);
                if is_told {
                    // There is no way to tell its owner.
                    self.beliefs.remove(&owner);
                }
                continue;
            };
            let is_stronger = seen.held != old.held;
            let fits = match i64::from(seen.count) - i64::from(old.count) {
                0 => !is_stronger,
                1 => is_stronger || matches!(wish, Some(Wish::Asks(_))),
                -1 => takes_back || matches!(wish, Some(Wish::LetsGo)),
                _ => takes_back,
            };
            let (then, now_held) = (old.count, seen.count);
            assert!(fits, "{ticket} was held {then} times, and is {now_held}: {wish:?}");
            let rose = now_held > then;
            let longest = leash.lease.max(seen.claim.lease.unwrap_or_default());
            match (wish, &mut seen.leash) {
                (Some(Wish::Asks(lease)), Some(leash)) if rose => {
                    leash.renew(now, longest.max(lease.unwrap_or_default()));
                }
                (Some(Wish::Renews(lease)), Some(leash)) => {
                    leash.renew(now, lease.unwrap_or(leash.lease));
                }
                (_, Some(leash)) if is_stronger => leash.renew(now, longest),
                _ => {}
            }
        }
    }

    /// What is over has ended.
    pub(super) fn check_leashes(&self, now: Time) {
        for (ticket, seen) in &self.claims {
            let is_over = seen.leash.is_some_and(|leash| leash.is_over(now));
            assert!(!is_over, "N5: {ticket} outlives {:?}", seen.leash);
        }
    }
}
