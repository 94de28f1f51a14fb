//! The table against a naive model: random lives of a few processes on a few files.
//!
//! The model keeps a plain list of claims with their keys and grants by scanning it: no counts, no
//! watches, no early ends. Whatever the table does must be what the list says.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::id::{Epoch, OwnerId, SessionId, SpaceId, Ticket, Token};
use crate::lock::claim::{Claim, Label, Party, Patience, Process, Terms};
use crate::lock::event::{Command, Notice, Refusal};
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
    /// Tells that the n-th waiter is kin of the m-th holder.
    Kin(usize, usize),
    Close(u64),
    /// Kills the broker, starts it on what it remembered, and lets all sessions come back.
    Restart,
}

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
        1 => (0usize..8, 0usize..8).prop_map(|(waiter, holder)| Step::Kin(waiter, holder)),
        1 => (1u64..6).prop_map(Step::Close),
        1 => Just(Step::Restart),
    ]
}

/// One claim of the model.
#[derive(Clone, Debug)]
struct Entry {
    claim: Arc<Claim>,
    held: bool,
    by_kin: bool,
    kin: Vec<u64>,
}

/// The naive model: claims by arrival, and the sessions that have yet to come back.
#[derive(Default)]
struct Model(BTreeMap<u64, Entry>, Vec<SessionId>);

impl Model {
    fn may_enter(&self, arrival: u64) -> Option<bool> {
        let asker = &self.0[&arrival];
        let mut passed = false;
        for (key, mode) in asker.claim.keys().iter() {
            let at_key = |entry: &Entry| {
                let mut keys = entry.claim.keys().iter();
                keys.find(|(k, _)| *k == key).map(|(_, m)| m)
            };
            let same = |entry: &Entry| entry.claim.party == asker.claim.party;
            let holders: Vec<_> = self
                .0
                .iter()
                .filter(|(at, entry)| entry.held && **at != arrival)
                .filter_map(|(at, entry)| at_key(entry).map(|m| (*at, entry, m)))
                .collect();
            let stands_against = holders.iter().any(|(_, _, m)| m.conflicts(mode));
            let waits_before = self
                .0
                .range(..arrival)
                .any(|(_, entry)| !entry.held && at_key(entry).is_some_and(|m| m.conflicts(mode)));
            if !stands_against && !waits_before {
                continue;
            }
            if holders.iter().any(|(_, entry, m)| same(entry) && m.covers(mode)) {
                passed = true;
                continue;
            }
            let kin =
                |at: u64, entry: &Entry| same(entry) || (!entry.by_kin && asker.kin.contains(&at));
            let blocked = holders.iter().any(|(at, e, m)| m.conflicts(mode) && !kin(*at, e));
            let in_line = !holders.iter().any(|(at, e, _)| kin(*at, e))
                && self.0.range(..arrival).any(|(_, entry)| {
                    !entry.held
                        && at_key(entry).is_some_and(|m| m.conflicts(mode))
                        && !self.waits_for_kin(asker, entry)
                });
            if blocked || in_line {
                return None;
            }
            passed = true;
        }
        Some(passed)
    }

    /// Whether kin of `asker` is in the way of `waiter`.
    fn waits_for_kin(&self, asker: &Entry, waiter: &Entry) -> bool {
        let is_kin = |of: &Entry, at: u64, holder: &Entry| {
            holder.claim.party == of.claim.party || (!holder.by_kin && of.kin.contains(&at))
        };
        waiter.claim.keys().iter().any(|(key, mode)| {
            self.0.iter().any(|(at, holder)| {
                let held = holder.claim.keys().iter().find(|(k, _)| *k == key);
                holder.held
                    && held.is_some_and(|(_, m)| m.conflicts(mode))
                    && is_kin(asker, *at, holder)
                    && !is_kin(waiter, *at, holder)
            })
        })
    }

    fn kin_of(&self, party: &Party) -> Vec<u64> {
        let same = self.0.values().filter(|entry| entry.claim.party == *party);
        same.flat_map(|entry| entry.kin.clone()).collect()
    }

    /// Lets everybody in who may enter; returns who was let in.
    fn settle(&mut self) -> Vec<OwnerId> {
        let mut entered = Vec::new();
        loop {
            let is_here = |entry: &Entry| !self.1.contains(&entry.claim.owner.session);
            let waiting = self.0.iter().filter(|(_, entry)| !entry.held && is_here(entry));
            let next = waiting
                .map(|(at, _)| *at)
                .find_map(|at| self.may_enter(at).map(|by_kin| (at, by_kin)));
            let Some((at, by_kin)) = next else { return entered };
            let kin = self.kin_of(&self.0[&at].claim.party);
            let entry = self.0.get_mut(&at).unwrap();
            (entry.held, entry.by_kin) = (true, by_kin);
            if by_kin {
                entry.kin.extend(kin);
            }
            entered.push(entry.claim.owner);
        }
    }
}

struct Pair {
    table: Table,
    model: Model,
    next: u64,
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
        let terms = Terms {
            owner,
            party: Party::Process(Process { namespace: 1, pid: who as u32, start: 1 }),
            // Cycles through processes with many threads stand two seconds, and this world has no
            // clock.
            caller: None,
            patience: Patience::Endless,
            read_wait: None,
            leash: None,
            label: Label::default(),
        };
        Arc::new(Claim::new(terms, Want { op, places }))
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Ask { who, op, path } => {
                let session = SessionId(who);
                if !self.table.sessions().any(|known| known == session) {
                    let lease = std::time::Duration::from_secs(10);
                    self.execute(Command::Open { session, lease });
                }
                let claim = self.claim(who, op, path);
                // Whom a process is kin of, all its later claims are.
                let kin = self.model.kin_of(&claim.party);
                let entry = Entry { claim: claim.clone(), held: false, by_kin: false, kin };
                self.model.0.insert(claim.owner.number, entry);
                self.execute(Command::Acquire { claim, leaders: Vec::new() });
            }
            Step::End(n) if !self.model.0.is_empty() => {
                let at = *self.model.0.keys().nth(n % self.model.0.len()).unwrap();
                let entry = self.model.0.remove(&at).unwrap();
                let owner = entry.claim.owner;
                self.execute(match entry.held {
                    true => Command::Release { owner, change: None },
                    false => Command::Withdraw { owner, why: Refusal::Interrupted },
                });
            }
            Step::Kin(waiter, holder) => self.tell_kin(waiter, holder),
            Step::Close(who) if self.table.sessions().any(|s| s == SessionId(who)) => {
                self.model.0.retain(|_, entry| entry.claim.owner.session != SessionId(who));
                self.execute(Command::Close { session: SessionId(who) });
            }
            Step::Restart => self.restart(),
            Step::End(_) | Step::Close(_) => {}
        }
    }

    /// N3, N5: a restart neither lets anybody in nor loses a grant or a place of the living.
    fn restart(&mut self) {
        let lease = std::time::Duration::from_secs(10);
        let sessions: Vec<SessionId> = self.table.sessions().collect();
        let standings = self.table.standings();
        let claims = standings
            .iter()
            .map(|standing| (standing.ticket, self.table.record(standing.ticket).unwrap()));
        let restore = Restore {
            sessions: sessions.iter().map(|session| (*session, lease)).collect(),
            claims: claims.collect(),
            incomplete: false,
            grace: lease,
        };
        let epoch = Epoch(self.table.epoch().0 + 1);
        self.table = Table::restore(epoch, Time::ZERO, restore);
        self.table.check();
        for entry in self.model.0.values_mut().filter(|entry| !entry.held) {
            // Who is kin of whom while it waits is looked up anew.
            entry.kin.clear();
        }
        self.model.1 = sessions.clone();
        for session in sessions {
            self.model.1.retain(|away| *away != session);
            let of = |held: bool| {
                let mine = move |entry: &&Entry| {
                    entry.held == held && entry.claim.owner.session == session
                };
                self.model.0.values().filter(mine).map(|entry| entry.claim.clone())
            };
            let held = of(true).map(|claim| (claim.clone(), self.tokens[&claim.owner])).collect();
            let waiting = of(false).collect();
            self.execute(Command::Reclaim { session, held, waiting });
        }
    }

    fn tell_kin(&mut self, waiter: usize, holder: usize) {
        let of = |held: bool| {
            let entries = self.model.0.iter().filter(move |(_, entry)| entry.held == held);
            entries.map(|(at, entry)| (*at, entry.claim.owner)).collect::<Vec<_>>()
        };
        let (waiters, holders) = (of(false), of(true));
        if waiters.is_empty() || holders.is_empty() {
            return;
        }
        let (at, waiter) = waiters[waiter % waiters.len()];
        let (kin, holder) = holders[holder % holders.len()];
        self.model.0.get_mut(&at).unwrap().kin.push(kin);
        self.execute(Command::Kin { waiter, holder });
    }

    /// N1, N2: the table lets in exactly whom the model lets in.
    fn execute(&mut self, command: Command) {
        let outcome = self.table.execute(Time::ZERO, command).expect("the steps are legal");
        self.table.check();
        let mut granted = Vec::new();
        for notice in &outcome.notices {
            if let Notice::Granted { owner, token, .. } = notice {
                // N4: tokens rise, over restarts too.
                assert!(self.tokens.values().all(|known| known < token));
                self.tokens.insert(*owner, *token);
                granted.push(*owner);
            }
        }
        let mut expected = self.model.settle();
        granted.sort_unstable();
        expected.sort_unstable();
        assert_eq!(granted, expected);
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
            next: 0,
            tokens: BTreeMap::new(),
        };
        for step in steps {
            pair.run(step);
        }
        let left: Vec<Ticket> =
            pair.table.standings().iter().map(|standing| standing.ticket).collect();
        assert_eq!(left.len(), pair.model.0.len());
    }
}
