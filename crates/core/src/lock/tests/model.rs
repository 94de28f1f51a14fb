//! The table against a naive model: random lives of a few processes on a few files.
//!
//! The model keeps a plain list of claims with their keys and grants by scanning it: no counts, no
//! watches, no early ends. Whatever the table does must be what the list says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::id::{Epoch, OwnerId, SessionId, SpaceId, Ticket, Token};
use crate::lock::claim::{Claim, Party, Process, Terms};
use crate::lock::event::{Command, End, Event, Passed, Refusal};
use crate::lock::key::FileKey;
use crate::lock::table::{Restore, Table};
use crate::lock::want::{Access, Node, Op, Place, Want};
use crate::path::ViewPath;
use crate::time::Time;

#[derive(Clone, Debug)]
enum Step {
    Ask {
        who: u64,
        op: Op,
        path: usize,
    },
    /// Lets go of, or gives up, the n-th living claim.
    End(usize),
    /// Takes the n-th grant away.
    Break(usize),
    /// Tells that the n-th waiter is kin of the m-th holder.
    Kin(usize, usize),
    Close(u64),
    /// Breaks a client's connection.
    Lose(u64),
    /// Lets a client come back with all it has.
    Back(u64),
    /// Lets a lease go by.
    Wait,
    /// Kills the broker, starts it on what it remembered, and lets all sessions come back.
    Restart,
}

const LEASE: Duration = Duration::from_secs(10);
const PATHS: [&str; 6] = ["f", "d/x", "d/y", "d/e/z", "d", "d/e"];

fn step() -> impl Strategy<Value = Step> {
    let op = prop_oneof![
        4 => Just(Op::Open(Access::Read)),
        4 => Just(Op::Open(Access::Write)),
        1 => Just(Op::Create),
        1 => Just(Op::Unlink),
        1 => Just(Op::Rename),
        1 => Just(Op::Hold(Access::Read)),
        1 => Just(Op::Hold(Access::Write)),
        1 => Just(Op::Lock(Access::Write)),
    ];
    prop_oneof![
        6 => (1u64..6, op, 0..PATHS.len()).prop_map(|(who, op, path)| Step::Ask { who, op, path }),
        5 => (0usize..32).prop_map(Step::End),
        1 => (0usize..8).prop_map(Step::Break),
        1 => (0usize..8, 0usize..8).prop_map(|(waiter, holder)| Step::Kin(waiter, holder)),
        1 => (1u64..6).prop_map(Step::Close),
        1 => (1u64..6).prop_map(Step::Lose),
        1 => (1u64..6).prop_map(Step::Back),
        1 => Just(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// One claim of the model.
#[derive(Clone, Debug)]
struct Entry {
    claim: Arc<Claim>,
    held: bool,
    passed: Passed,
    /// Taken away, and its owner has not let go.
    revoked: bool,
    kin: Vec<u64>,
}

/// The naive model: claims by arrival, the sessions that have yet to come back, and those of them
/// whose lease ran out.
#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    away: BTreeSet<SessionId>,
    overdue: BTreeSet<SessionId>,
}

impl Model {
    fn may_enter(&self, arrival: u64) -> Option<Passed> {
        let asker = &self.entries[&arrival];
        let mut passed = Passed::Nobody;
        for (key, mode) in asker.claim.keys().iter() {
            let at_key = |entry: &Entry| {
                let mut keys = entry.claim.keys().iter();
                keys.find(|(k, _)| *k == key).map(|(_, m)| m)
            };
            let same = |entry: &Entry| !entry.revoked && entry.claim.party == asker.claim.party;
            let holders: Vec<_> = self
                .entries
                .iter()
                .filter(|(at, entry)| entry.held && **at != arrival)
                .filter_map(|(at, entry)| at_key(entry).map(|m| (*at, entry, m)))
                .collect();
            let stands_against = holders.iter().any(|(_, _, m)| m.conflicts(mode));
            let waits_before = self
                .entries
                .range(..arrival)
                .any(|(_, entry)| !entry.held && at_key(entry).is_some_and(|m| m.conflicts(mode)));
            if !stands_against && !waits_before {
                continue;
            }
            let own = holders.iter().filter(|(_, entry, m)| same(entry) && m.covers(mode));
            if let Some(by_what) = own.map(|(_, entry, _)| entry.passed).min() {
                passed = passed.max(by_what).max(Passed::ByOwn);
                continue;
            }
            let leads =
                |at, entry: &Entry| entry.passed != Passed::ByKin && asker.kin.contains(&at);
            let kin = |at: u64, entry: &Entry| same(entry) || (!entry.revoked && leads(at, entry));
            let blocked = holders.iter().any(|(at, e, m)| m.conflicts(mode) && !kin(*at, e));
            let in_line = !holders.iter().any(|(at, e, _)| kin(*at, e))
                && self.entries.range(..arrival).any(|(_, entry)| {
                    !entry.held
                        && at_key(entry).is_some_and(|m| m.conflicts(mode))
                        && !self.waits_for_kin(asker, entry)
                });
            if blocked || in_line {
                return None;
            }
            passed = Passed::ByKin;
        }
        Some(passed)
    }

    /// Whether kin of `asker` is in the way of `waiter`.
    fn waits_for_kin(&self, asker: &Entry, waiter: &Entry) -> bool {
        let is_kin = |of: &Entry, at: u64, holder: &Entry| {
            let is_kin = holder.claim.party == of.claim.party
                || (holder.passed != Passed::ByKin && of.kin.contains(&at));
            is_kin && !holder.revoked
        };
        waiter.claim.keys().iter().any(|(key, mode)| {
            self.entries.iter().any(|(at, holder)| {
                let held = holder.claim.keys().iter().find(|(k, _)| *k == key);
                holder.held
                    && held.is_some_and(|(_, m)| m.conflicts(mode))
                    && is_kin(asker, *at, holder)
                    && !is_kin(waiter, *at, holder)
            })
        })
    }

    fn kin_of(&self, party: &Party) -> Vec<u64> {
        let same = self.entries.values().filter(|entry| entry.claim.party == *party);
        same.flat_map(|entry| entry.kin.clone()).collect()
    }

    fn is_here(&self, entry: &Entry) -> bool {
        !self.away.contains(&entry.claim.owner.session)
    }

    /// Returns those who wait and could be told.
    fn listeners(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let waiting = self.entries.iter().filter(|(_, entry)| !entry.held && self.is_here(entry));
        waiting.map(|(at, entry)| (*at, entry))
    }

    fn enter(&mut self, arrival: u64, passed: Passed) {
        let kin = self.kin_of(&self.entries[&arrival].claim.party);
        let entry = self.entries.get_mut(&arrival).unwrap();
        (entry.held, entry.passed) = (true, passed);
        if passed.anybody() {
            entry.kin.extend(kin);
        }
    }

    /// Returns whether somebody waits that could go in, or further, were it not for a session.
    fn is_wanted(&self, session: SessionId) -> bool {
        let conflict = |one: &Entry, other: &Entry| {
            one.claim.keys().iter().any(|(key, mode)| {
                other.claim.keys().iter().any(|(k, m)| k == key && m.conflicts(mode))
            })
        };
        self.listeners().any(|(at, asker)| {
            self.entries.iter().any(|(other_at, other)| {
                let before = other.held || *other_at < at;
                other.claim.owner.session == session && before && conflict(asker, other)
            })
        })
    }

    /// Returns the model without the sessions whose lease ran out.
    fn without_the_overdue(&self) -> Model {
        let stays = |entry: &Entry| !self.overdue.contains(&entry.claim.owner.session);
        let entries = self.entries.iter().filter(|(_, entry)| stays(entry));
        let entries = entries.map(|(at, entry)| (*at, entry.clone())).collect();
        Model { entries, away: self.away.clone(), overdue: BTreeSet::new() }
    }
}

struct Pair {
    table: Table,
    model: Model,
    now: Time,
    next: u64,
    tickets: BTreeMap<Ticket, u64>,
    tokens: BTreeMap<OwnerId, Token>,
}

impl Pair {
    fn claim(&mut self, who: u64, op: Op, path: usize) -> Arc<Claim> {
        let node = |path: usize| match PATHS[path] {
            "d" | "d/e" => Node::Directory,
            _ if op == Op::Create => Node::None,
            name => Node::File(FileKey { volume: 1, inode: name.len() as u64, generation: 0 }),
        };
        let place = |path: usize| Place {
            space: SpaceId(1),
            path: Some(ViewPath::parse(PATHS[path].as_bytes()).unwrap()),
            node: node(path),
        };
        let mut places = vec![place(path)];
        if op == Op::Rename {
            places.push(place((path + 1) % PATHS.len()));
        }
        self.next += 1;
        let owner = OwnerId { session: SessionId(who), number: self.next };
        let process = Process { namespace: 1, pid: who as u32, start: 1 };
        // Cycles through processes with many threads are cut when time goes by.
        let terms = Terms::of(owner, Party::Process(process));
        Arc::new(Claim::new(terms, Want { op, places }))
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Ask { who, op, path } => {
                let session = SessionId(who);
                if !self.table.sessions().any(|known| known == session) {
                    self.execute(Command::Open { session, lease: LEASE });
                }
                self.bring_back(session);
                let claim = self.claim(who, op, path);
                // Whom a process is kin of, all its later claims are.
                let kin = self.model.kin_of(&claim.party);
                let entry = Entry {
                    claim: claim.clone(),
                    held: false,
                    passed: Passed::Nobody,
                    revoked: false,
                    kin,
                };
                self.model.entries.insert(claim.owner.number, entry);
                self.execute(Command::Acquire { claim, leaders: Vec::new() });
            }
            Step::End(n) => self.end(n),
            Step::Break(n) => self.take_away(n),
            Step::Kin(waiter, holder) => self.tell_kin(waiter, holder),
            Step::Close(who) if self.table.sessions().any(|s| s == SessionId(who)) => {
                self.model.entries.retain(|_, entry| entry.claim.owner.session != SessionId(who));
                self.model.away.remove(&SessionId(who));
                self.model.overdue.remove(&SessionId(who));
                self.execute(Command::Close { session: SessionId(who) });
            }
            Step::Lose(who) if self.table.sessions().any(|s| s == SessionId(who)) => {
                self.model.away.insert(SessionId(who));
                self.execute(Command::Lose { session: SessionId(who), heard: self.now });
            }
            Step::Back(who) => self.bring_back(SessionId(who)),
            Step::Wait => {
                self.now = self.now + LEASE;
                self.execute(Command::Tick);
                let mut left = self.model.entries.values();
                assert!(
                    !left.any(|entry| entry.revoked),
                    "N5: taken away, and there after a lease"
                );
            }
            Step::Restart => self.restart(),
            Step::Close(_) | Step::Lose(_) => {}
        }
    }

    fn end(&mut self, n: usize) {
        let ends = self.model.entries.iter().filter(|(_, entry)| self.model.is_here(entry));
        let ends: Vec<u64> = ends.map(|(at, _)| *at).collect();
        let Some(at) = ends.get(n % ends.len().max(1)) else { return };
        let entry = self.model.entries.remove(at).unwrap();
        let owner = entry.claim.owner;
        self.execute(match entry.held {
            true => Command::Release { owner, change: None },
            false => Command::Withdraw { owner, why: Refusal::Interrupted },
        });
    }

    fn take_away(&mut self, n: usize) {
        let held = self.model.entries.iter().filter(|(_, entry)| entry.held);
        let held: Vec<u64> = held.map(|(at, _)| *at).collect();
        let Some(at) = held.get(n % held.len().max(1)) else { return };
        let entry = &self.model.entries[at];
        let (owner, was_revoked) = (entry.claim.owner, entry.revoked);
        let ticket = self.table.ticket_of(owner).unwrap();
        if self.model.overdue.contains(&owner.session) {
            // Its client knows by now that it may not act.
            self.model.entries.remove(at);
            return self.execute(Command::Break { ticket });
        }
        let digest = self.table.digest();
        self.execute(Command::Break { ticket });
        assert!(self.model.entries[at].revoked, "it ended before its client knows");
        assert!(!was_revoked || self.table.digest() == digest, "taken away twice");
    }

    /// Lets a client that is away come back with all it has.
    fn bring_back(&mut self, session: SessionId) {
        if !self.model.away.remove(&session) {
            return;
        }
        self.model.overdue.remove(&session);
        let of = |held: bool| {
            let mine =
                move |entry: &&Entry| entry.held == held && entry.claim.owner.session == session;
            self.model.entries.values().filter(mine).map(|entry| entry.claim.clone())
        };
        let held = of(true).map(|claim| (claim.clone(), self.tokens[&claim.owner])).collect();
        let waiting = of(false).map(|claim| (claim, Vec::new())).collect();
        self.execute(Command::Reclaim { session, held, waiting });
    }

    /// N3, N5: a restart neither lets anybody in nor loses a grant or a place of the living.
    fn restart(&mut self) {
        let sessions: Vec<SessionId> = self.table.sessions().collect();
        let tickets = self.table.tickets_after(Ticket(0), usize::MAX);
        let claims = tickets.into_iter().map(|ticket| (ticket, self.table.record(ticket).unwrap()));
        let restore = Restore {
            sessions: sessions.iter().map(|session| (*session, LEASE)).collect(),
            claims: claims.collect(),
            incomplete: false,
            grace: LEASE,
        };
        let epoch = Epoch(self.table.epoch().0 + 1);
        self.table = Table::restore(epoch, self.now, restore);
        self.table.check();
        for entry in self.model.entries.values_mut().filter(|entry| !entry.held) {
            // Who is kin of whom while it waits is looked up anew.
            entry.kin.clear();
        }
        self.model.away = sessions.iter().copied().collect();
        self.model.overdue.clear();
        for session in sessions {
            self.bring_back(session);
        }
    }

    fn tell_kin(&mut self, waiter: usize, holder: usize) {
        let of = |held: bool| {
            let entries = self.model.entries.iter().filter(move |(_, entry)| entry.held == held);
            entries.map(|(at, entry)| (*at, entry.claim.owner)).collect::<Vec<_>>()
        };
        let (waiters, holders) = (of(false), of(true));
        if waiters.is_empty() || holders.is_empty() {
            return;
        }
        let (at, waiter) = waiters[waiter % waiters.len()];
        let (kin, holder) = holders[holder % holders.len()];
        self.model.entries.get_mut(&at).unwrap().kin.push(kin);
        self.execute(Command::Kin { waiter, holder });
    }

    /// N1, N2, N4, N5: the table lets in whom the model lets in, and nobody is left behind.
    fn execute(&mut self, command: Command) {
        let outcome = self.table.execute(self.now, command).expect("the steps are legal");
        self.table.check();
        for event in &outcome.events {
            self.follow(event);
        }
        let may_enter = |model: &Model| {
            let may = model.listeners().map(|(at, _)| at);
            may.filter(|at| model.may_enter(*at).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(may_enter(&self.model), [0; 0], "left outside");
        // N5: nobody waits for those whose lease ran out alone.
        assert_eq!(may_enter(&self.model.without_the_overdue()), [0; 0], "held up by the dead");
    }

    fn follow(&mut self, event: &Event) {
        match event {
            Event::Queued { ticket, claim, .. } => {
                self.tickets.insert(*ticket, claim.owner.number);
            }
            Event::Granted { ticket, claim, token, passed, .. } => {
                let arrival = claim.owner.number;
                assert_eq!(self.model.may_enter(arrival), Some(*passed), "N1, N2");
                // N4: tokens rise, over restarts too.
                assert!(self.tokens.values().all(|known| known < token));
                self.tokens.insert(claim.owner, *token);
                self.tickets.insert(*ticket, arrival);
                self.model.enter(arrival, *passed);
            }
            Event::Revoked { ticket, .. } => {
                self.model.entries.get_mut(&self.tickets[ticket]).unwrap().revoked = true;
            }
            Event::Overdue { session, .. } => {
                self.model.overdue.insert(*session);
            }
            Event::Ended { ticket, end } => {
                // What somebody let go of is out of the model already.
                let arrival = self.tickets[ticket];
                let Some(entry) = self.model.entries.get(&arrival) else { return };
                let session = entry.claim.owner.session;
                // A cycle is cut whoever is in it.
                let cut = *end == End::Refused(Refusal::Deadlock);
                if !cut && self.model.overdue.remove(&session) {
                    assert!(self.model.is_wanted(session), "courtesy ended for nobody");
                }
                self.model.entries.remove(&arrival);
            }
            Event::Closed { session } => {
                self.model.overdue.remove(session);
                self.model.away.remove(session);
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn n1_n2_the_table_does_what_the_model_says(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        let mut pair = Pair {
            table: Table::new(Epoch(1)),
            model: Model::default(),
            now: Time::ZERO,
            next: 0,
            tickets: BTreeMap::new(),
            tokens: BTreeMap::new(),
        };
        for step in steps {
            pair.run(step);
        }
        let left = pair.table.tickets_after(Ticket(0), usize::MAX);
        let left = pair.table.standings(left).count();
        assert_eq!(left, pair.model.entries.len());
    }
}
