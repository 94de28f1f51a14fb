//! The table against a naive model: random lives of a few processes on a few files.
//!
//! The model ([`naive`]) keeps a plain list of claims with their keys and grants by scanning it: no
//! counts, no watches, no early ends. Whatever the table does must be what the list says, and nobody
//! in the list may wait for itself.

mod naive;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use self::naive::{Cycles, Entry, Model};
use crate::id::{Epoch, OwnerId, SessionId, SpaceId, Ticket, Token};
use crate::lock::claim::{Caller, Claim, Party, Process, Terms};
use crate::lock::event::{Change, Command, End, Event, Refusal};
use crate::lock::key::FileKey;
use crate::lock::limits::DEADLOCK_PATIENCE;
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

/// Lives in which many hold something and wait for something else, of which names move.
fn tangle() -> impl Strategy<Value = Step> {
    let op = prop_oneof![
        4 => Just(Op::Open(Access::Write)),
        1 => Just(Op::Open(Access::Read)),
        4 => Just(Op::Hold(Access::Write)),
        3 => Just(Op::Rename),
    ];
    prop_oneof![
        8 => (1u64..6, op, 0..PATHS.len()).prop_map(|(who, op, path)| Step::Ask { who, op, path }),
        3 => (0usize..32).prop_map(Step::End),
        3 => (0usize..8, 0usize..8).prop_map(|(waiter, holder)| Step::Kin(waiter, holder)),
        1 => (0usize..8).prop_map(Step::Break),
        1 => Just(Step::Wait),
    ]
}

struct Pair {
    table: Table,
    model: Model,
    now: Time,
    /// Which cycles are cut at this moment.
    cut: Cycles,
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
        if matches!(op, Op::Rename | Op::Hold(Access::Write)) {
            places.push(place((path + 1) % PATHS.len()));
        }
        self.next += 1;
        let owner = OwnerId { session: SessionId(who), number: self.next };
        let process = Process { namespace: 1, pid: who as u32, start: 1 };
        // Every other process has more threads than one.
        let caller = Caller { process, thread: 1, single_threaded: who.is_multiple_of(2) };
        let terms = Terms { caller: Some(caller), ..Terms::of(owner, Party::Process(process)) };
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
                self.model.entries.insert(claim.owner.number, Entry::waiting(&claim, kin));
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
            Step::Wait => self.wait(),
            Step::Restart => self.restart(),
            Step::Close(_) | Step::Lose(_) => {}
        }
    }

    fn wait(&mut self) {
        self.cut = Cycles::Possible;
        self.now = self.now + LEASE;
        self.execute(Command::Tick);
        let mut left = self.model.entries.values();
        assert!(!left.any(|entry| entry.revoked), "N5: taken away, and there after a lease");
        // Each refusal may close other cycles.
        let mut before = usize::MAX;
        while self.model.entries.len() < before {
            before = self.model.entries.len();
            self.now = self.now + DEADLOCK_PATIENCE;
            self.execute(Command::Tick);
        }
        self.check_cycles(Cycles::Possible);
        self.cut = Cycles::Sure;
    }

    /// Nobody waits for itself over others that are here.
    fn check_cycles(&self, which: Cycles) {
        let is_here = |at| self.model.is_here(&self.model.entries[&at]);
        let mut waiting = self.model.listeners().map(|(at, _)| at);
        let stuck = waiting.find(|at| self.model.is_in_cycle(*at, which, is_here));
        assert_eq!(stuck, None, "waits for itself: {which:?}");
    }

    fn end(&mut self, n: usize) {
        let ends = self.model.entries.iter().filter(|(_, entry)| self.model.is_here(entry));
        let ends: Vec<u64> = ends.map(|(at, _)| *at).collect();
        let Some(at) = ends.get(n % ends.len().max(1)) else { return };
        let entry = self.model.entries.remove(at).unwrap();
        let owner = entry.claim.owner;
        self.execute(match entry.held {
            true => Command::Release { owner, change: change_of(&entry.claim) },
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
        self.check_cycles(Cycles::Sure);
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
            Event::Reshaped { ticket, claim, .. } => {
                let entry = self.model.entries.get_mut(&self.tickets[ticket]).unwrap();
                entry.claim = claim.clone();
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
                if cut {
                    let is_youngest = self.model.is_in_cycle(arrival, self.cut, |at| at <= arrival);
                    assert!(is_youngest, "refused for others: {arrival}");
                }
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

/// What an operation did to names.
fn change_of(claim: &Claim) -> Option<Change> {
    let space = SpaceId(1);
    let mut paths = claim.want().places.iter().filter_map(|place| place.path.clone());
    match claim.want().op {
        Op::Unlink => Some(Change::Removed { space, path: paths.next()? }),
        Op::Rename => Some(Change::Renamed { space, from: paths.next()?, to: paths.next()? }),
        _ => None,
    }
}

impl Pair {
    fn live(steps: Vec<Step>) {
        let mut pair = Pair {
            table: Table::new(Epoch(1)),
            model: Model::default(),
            now: Time::ZERO,
            cut: Cycles::Sure,
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

proptest! {
    #[test]
    fn n1_n2_the_table_does_what_the_model_says(
        steps in proptest::collection::vec(step(), 1..60)
    ) {
        Pair::live(steps);
    }

    #[test]
    fn n1_n2_who_waits_for_who_waits_for_it_is_told_whoever_closes_the_circle(
        steps in proptest::collection::vec(tangle(), 1..40)
    ) {
        Pair::live(steps);
    }
}
