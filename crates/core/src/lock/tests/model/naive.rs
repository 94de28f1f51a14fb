//! The naive model: a plain list of claims by arrival, and the rules as scans of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::SessionId;
use crate::lock::claim::{Claim, Party};
use crate::lock::event::Passed;
use crate::lock::key::Key;
use crate::lock::mode::Mode;
use crate::lock::want::Op;

/// One claim of the model.
#[derive(Clone, Debug)]
pub struct Entry {
    pub claim: Arc<Claim>,
    pub held: bool,
    pub passed: Passed,
    /// Taken away, and its owner has not let go.
    pub revoked: bool,
    pub kin: Vec<u64>,
}

/// The naive model: claims by arrival, the sessions that have yet to come back, and those of them
/// whose lease ran out.
#[derive(Default)]
pub struct Model {
    pub entries: BTreeMap<u64, Entry>,
    pub away: BTreeSet<SessionId>,
    pub overdue: BTreeSet<SessionId>,
}

/// Which cycles of waits are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cycles {
    /// Those that only a refusal resolves.
    Sure,
    /// All.
    Possible,
}

impl Entry {
    pub fn waiting(claim: &Arc<Claim>, kin: Vec<u64>) -> Entry {
        let (claim, passed) = (claim.clone(), Passed::Nobody);
        Entry { claim, held: false, passed, revoked: false, kin }
    }

    fn mode_of(&self, key: &Key) -> Option<Mode> {
        self.claim.keys().iter().find(|(known, _)| *known == key).map(|(_, mode)| mode)
    }

    fn is_against(&self, key: &Key, mode: Mode) -> bool {
        self.mode_of(key).is_some_and(|own| own.conflicts(mode))
    }

    /// Whether a holder never blocks this one at a key.
    fn is_kin(&self, key: &Key, at: u64, holder: &Entry) -> bool {
        if matches!(key, Key::Names(..)) {
            return false;
        }
        let is_led = holder.passed != Passed::ByKin && self.kin.contains(&at);
        !holder.revoked && (is_led || holder.claim.party == self.claim.party)
    }
}

impl Model {
    pub fn may_enter(&self, arrival: u64) -> Option<Passed> {
        let keys = self.entries[&arrival].claim.keys().iter();
        keys.map(|(key, mode)| self.judge(arrival, key, mode).ok())
            .try_fold(Passed::Nobody, |by, passed| Some(by.max(passed?)))
    }

    /// Whom a claim passes at a key, or else who is in its way there.
    fn judge(&self, arrival: u64, key: &Key, mode: Mode) -> Result<Passed, Vec<u64>> {
        let asker = &self.entries[&arrival];
        let all = self.entries.iter().map(|(at, entry)| (*at, entry));
        let holders = all.filter(|(at, e)| e.held && *at != arrival && e.mode_of(key).is_some());
        let holders: Vec<_> = holders.collect();
        let before = self.entries.range(..arrival).filter(|(_, e)| !e.held);
        let before: Vec<_> = before.filter(|(_, e)| e.is_against(key, mode)).collect();
        if before.is_empty() && !holders.iter().any(|(_, e)| e.is_against(key, mode)) {
            return Ok(Passed::Nobody);
        }
        let same = |e: &Entry| {
            !matches!(key, Key::Names(..)) && !e.revoked && e.claim.party == asker.claim.party
        };
        let covers = |e: &Entry| e.mode_of(key).is_some_and(|own| own.covers(mode));
        let own = holders.iter().filter(|(_, entry)| same(entry) && covers(entry));
        if let Some(by_what) = own.map(|(_, entry)| entry.passed).min() {
            return Ok(by_what.max(Passed::ByOwn));
        }
        let stands =
            |(at, e): &&(u64, &Entry)| e.is_against(key, mode) && !asker.is_kin(key, *at, e);
        let mut blockers: Vec<u64> = holders.iter().filter(stands).map(|(at, _)| *at).collect();
        if !holders.iter().any(|(at, entry)| asker.is_kin(key, *at, entry)) {
            let in_line = before.iter().filter(|(_, entry)| !self.waits_for_kin(asker, entry));
            blockers.extend(in_line.map(|(at, _)| **at));
        }
        if blockers.is_empty() { Ok(Passed::ByKin) } else { Err(blockers) }
    }

    /// Whether kin of `asker` is in the way of `waiter`.
    fn waits_for_kin(&self, asker: &Entry, waiter: &Entry) -> bool {
        self.entries.iter().any(|(at, holder)| {
            let mut keys = waiter.claim.keys().iter();
            let stops_it = |(key, mode)| {
                let is_its_kin = asker.is_kin(key, *at, holder) && !waiter.is_kin(key, *at, holder);
                is_its_kin && holder.is_against(key, mode)
            };
            holder.held && keys.any(stops_it)
        })
    }

    /// Whether a waiter waits for itself, over such as wait, and are `among` those that count.
    pub fn is_in_cycle(&self, waiter: u64, which: Cycles, among: impl Fn(u64) -> bool) -> bool {
        let (mut known, mut next) = (BTreeSet::new(), vec![waiter]);
        while let Some(at) = next.pop() {
            let counted = self.waits_for(at, which).into_iter().filter(|at| among(*at));
            next.extend(counted.filter(|at| known.insert(*at)));
        }
        known.contains(&waiter)
    }

    /// Returns the waiters that must be let in before another one can be.
    fn waits_for(&self, waiter: u64, which: Cycles) -> Vec<u64> {
        let keys = self.entries[&waiter].claim.keys().iter();
        let blockers =
            keys.filter_map(|(key, mode)| Some((key, self.judge(waiter, key, mode).err()?)));
        let waiters = blockers.flat_map(|(key, blockers)| {
            let under_way = matches!(key, Key::Names(..)) && which == Cycles::Sure;
            blockers.into_iter().flat_map(move |at| match self.entries[&at].held {
                true if under_way => Vec::new(),
                true => self.held_up_by(at, which),
                false => vec![at],
            })
        });
        waiters.collect()
    }

    /// Returns the waiters without which a holder does not let go.
    fn held_up_by(&self, at: u64, which: Cycles) -> Vec<u64> {
        let holder = &self.entries[&at];
        let (op, all) = (holder.claim.want().op, which == Cycles::Possible);
        let sleeps = holder.claim.stops_its_party() && !matches!(op, Op::Hold(_));
        let holds_up = |waiter: &Entry| {
            let is_same = waiter.claim.party == holder.claim.party;
            let is_stopped = op.is_hold() && waiter.claim.stops_its_party();
            is_same && (all || is_stopped) || waiter.kin.contains(&at) && (all || sleeps)
        };
        let waiting = self.entries.iter().filter(|(_, entry)| !entry.held && !holder.revoked);
        waiting.filter(|(_, entry)| holds_up(entry)).map(|(at, _)| *at).collect()
    }

    /// Whom a process is kin of, all its later claims are.
    pub fn kin_of(&self, party: &Party) -> Vec<u64> {
        let same = self.entries.values().filter(|entry| entry.claim.party == *party);
        same.flat_map(|entry| entry.kin.clone()).collect()
    }

    pub fn is_here(&self, entry: &Entry) -> bool {
        !self.away.contains(&entry.claim.owner.session)
    }

    /// Returns those who wait and could be told.
    pub fn listeners(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let waiting = self.entries.iter().filter(|(_, entry)| !entry.held && self.is_here(entry));
        waiting.map(|(at, entry)| (*at, entry))
    }

    pub fn enter(&mut self, arrival: u64, passed: Passed) {
        let kin = self.kin_of(&self.entries[&arrival].claim.party);
        let entry = self.entries.get_mut(&arrival).unwrap();
        (entry.held, entry.passed) = (true, passed);
        if passed.anybody() {
            entry.kin.extend(kin);
        }
    }

    /// Returns whether somebody waits that could go in, or further, were it not for a session.
    pub fn is_wanted(&self, session: SessionId) -> bool {
        let conflict = |one: &Entry, other: &Entry| {
            one.claim.keys().iter().any(|(key, mode)| other.is_against(key, mode))
        };
        self.listeners().any(|(at, asker)| {
            self.entries.iter().any(|(other_at, other)| {
                let before = other.held || *other_at < at;
                other.claim.owner.session == session && before && conflict(asker, other)
            })
        })
    }

    /// Returns the model without the sessions whose lease ran out.
    pub fn without_the_overdue(&self) -> Model {
        let stays = |entry: &Entry| !self.overdue.contains(&entry.claim.owner.session);
        let entries = self.entries.iter().filter(|(_, entry)| stays(entry));
        let entries = entries.map(|(at, entry)| (*at, entry.clone())).collect();
        Model { entries, away: self.away.clone(), overdue: BTreeSet::new() }
    }
}
