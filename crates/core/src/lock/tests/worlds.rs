//! Leases, fences, reclaim and restart, in every order in which they can happen.
//!
//! The broker is the product's own [`Table`]; the [`client`]s are modelled: each asks, writes
//! under its token, and lets go. A write is under way for a moment, in which anything may happen but
//! that time goes by: none takes as long as a lease. What is said to a client arrives in its order and at any time,
//! perhaps never; what a client says arrives at once. One clock goes for all, in steps, and the
//! broker is always punctual: it is the earliest that it may be.
//!
//! A client acts on what it was granted only within a lease of something that proves that the
//! broker could not have let others in: the sending of a heartbeat that was answered, or its
//! return. Every end that its owner did not ask for comes after that: one that could act all the time
//! was not ended. So a broker that may have forgotten an end takes back what such a client lists, and
//! one that could not act for a while lists nothing.
//!
//! So that three clients can be looked at, steps that change nothing for anybody are left out: who
//! is done sends no heartbeat, who could write does so before it lets go, and a client that noticed
//! that its connection is lost is like one that did not and hears nothing.
//!
//! Bounds: two files in one directory; three clients and one fault before time goes by, of the broker's
//! death 1.4 million worlds; two clients and one fault or two until a lease may have run out, at
//! most 0.8 million. In the long tier three clients meet one late, and two early.
//!
//! Not looked at: a client that sees that no broker runs, and acts on.

mod client;
mod lines;

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model, Property};

use self::client::{Client, Link, State};
use crate::id::{Epoch, OwnerId, SessionId, SpaceId, Ticket, Token};
use crate::lock::claim::{Claim, Party, Terms};
use crate::lock::event::{Command, Event, Notice};
use crate::lock::key::FileKey;
use crate::lock::table::{Record, Restore, Table};
use crate::lock::want::{Access, Node, Op, Place, Want};
use crate::path::ViewPath;
use crate::time::Time;

/// A lease, in steps of the clock.
const LEASE: u64 = 1;
/// Faults come before time goes by,
const EARLY: u64 = 0;
/// or until a lease may have run out.
const LATE: u64 = LEASE;
/// Two files in one directory.
const FILES: [&str; 2] = ["d/f", "d/g"];

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Job {
    /// To write one of the files.
    Open(usize),
    /// To write both, under a hold of their directory.
    Hold,
}

/// Sessions, each with what it wants.
const TWO: &[Job] = &[Job::Open(0), Job::Hold];
const THREE: &[Job] = &[Job::Open(0), Job::Hold, Job::Open(1)];

/// How many of each fault may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Faults {
    /// Connections that the broker counts as lost; the client may hear of it late or never.
    cuts: u8,
    kills: u8,
    /// Deaths of the broker.
    crashes: u8,
    /// Those after which the last decision is missing from the journal.
    losses: u8,
    /// Turns that are taken away.
    breaks: u8,
}

/// Worlds to be explored.
#[derive(Clone, Debug)]
struct Bounds {
    jobs: &'static [Job],
    faults: Faults,
    /// Faults come until then.
    faults_end: u64,
}

#[derive(Clone, Debug)]
struct World {
    broker: Broker,
    /// What the journal would have kept without the last decision.
    before: Memory,
    now: u64,
    clients: Vec<Client>,
    sessions: u64,
    /// The newest token under which each file was written.
    written: [Option<Token>; 2],
    newest: Token,
    left: Faults,
    broken: Option<&'static str>,
}

#[derive(Clone, Debug)]
enum Broker {
    Up(Box<Table>),
    Down { memory: Memory, incomplete: bool },
}

/// What a broker remembers.
#[derive(Clone, Debug, Default)]
struct Memory {
    epoch: u64,
    sessions: Vec<SessionId>,
    claims: Vec<(Ticket, Record)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Time,
    Ask(usize),
    Hear(usize),
    /// A client's write begins: it saw that it may.
    Write(usize),
    /// What it writes is there.
    Land(usize),
    LetGo(usize),
    Beat(usize),
    /// The broker counts a client's connection as lost.
    Cut(usize),
    Return(usize),
    Kill(usize),
    Break(usize),
    Crash {
        lossy: bool,
    },
    Start,
}

impl World {
    fn new(bounds: &Bounds) -> World {
        let mut world = World {
            broker: Broker::Up(Box::new(Table::new(Epoch(1)))),
            before: Memory::default(),
            now: 0,
            clients: bounds.jobs.iter().map(|job| Client::new(*job)).collect(),
            sessions: 0,
            written: [None; 2],
            newest: Token { epoch: Epoch(1), counter: 0 },
            left: bounds.faults,
            broken: None,
        };
        for i in 0..world.clients.len() {
            world.begin_session(i);
        }
        world
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Time => {
                self.now += 1;
                for client in &mut self.clients {
                    client.age(self.now);
                }
                self.tick();
            }
            Step::Ask(i) => self.ask(i),
            Step::Hear(i) => self.hear(i),
            Step::Write(i) => self.clients[i].begin_to_write(),
            Step::Land(i) => self.land(i),
            Step::LetGo(i) => self.let_go(i),
            Step::Beat(i) => self.beat(i),
            Step::Cut(i) => {
                self.left.cuts -= 1;
                self.lose(i);
            }
            Step::Return(i) => self.come_back(i),
            Step::Kill(i) => {
                self.left.kills -= 1;
                self.kill(i);
            }
            Step::Break(i) => {
                self.left.breaks -= 1;
                self.take_away(i);
            }
            Step::Crash { lossy } => self.crash(lossy),
            Step::Start => self.start(),
        }
        self.look_for_hold_ups();
    }

    fn table(&self) -> Option<&Table> {
        match &self.broker {
            Broker::Up(table) => Some(table),
            Broker::Down { .. } => None,
        }
    }

    fn time(&self) -> Time {
        at(self.now)
    }

    fn tick(&mut self) {
        if self.table().is_some_and(|table| table.deadline().is_some_and(|due| due <= self.time()))
        {
            self.execute(Command::Tick);
        }
    }

    fn execute(&mut self, command: Command) {
        let now = self.time();
        let Broker::Up(table) = &mut self.broker else { unreachable!("it was looked for") };
        if self.left.losses > 0 {
            self.before = Memory::of(table);
        }
        // A client may let go of what a broker that forgot does not know that it had.
        let Ok(outcome) = table.execute(now, command) else { return };
        for event in &outcome.events {
            if let Event::Granted { ticket, token, .. } = event {
                self.note_token(*token);
                self.look_for_overtaken(*ticket, *token);
            }
        }
        for notice in outcome.notices {
            self.tell(notice);
        }
    }

    /// N4. What is taken back by its former holder is not issued.
    fn note_token(&mut self, token: Token) {
        if self.table().is_none_or(|table| table.epoch() != token.epoch) {
            return;
        }
        if token <= self.newest {
            self.broken = Some("N4: a token fell");
        }
        self.newest = token;
    }

    fn tell(&mut self, notice: Notice) {
        let (session, word) = match notice {
            Notice::Granted { owner, token, .. } => (owner.session, client::Word::Granted(token)),
            Notice::Revoked { owner, .. } => (owner.session, client::Word::Revoked),
            Notice::Waiting { .. } | Notice::Contended { .. } | Notice::Restored { .. } => return,
            other => unreachable!("nobody gives up, is asked or is told no: {other:?}"),
        };
        let of = self.clients.iter_mut().find(|client| client.session == session);
        if let Some(client) = of.filter(|client| client.link == Link::Up) {
            client.words.push_back(word);
        }
    }

    /// The broker counts a client's connection as lost.
    fn lose(&mut self, i: usize) {
        let client = &mut self.clients[i];
        client.link = Link::Gone;
        client.lost_at = Some(client.heard);
        let (session, heard) = (client.session, at(client.heard));
        self.execute(Command::Lose { session, heard });
    }

    fn take_away(&mut self, i: usize) {
        let ticket = self.table().and_then(|table| table.ticket_of(self.clients[i].owner()));
        self.execute(Command::Break { ticket: ticket.expect("it was looked for") });
    }

    fn crash(&mut self, lossy: bool) {
        let Broker::Up(table) = &self.broker else { unreachable!("it was looked for") };
        let memory = if lossy {
            self.left.losses -= 1;
            self.before.clone()
        } else {
            self.left.crashes -= 1;
            Memory::of(table)
        };
        // What was lost stays lost until the grace is over.
        let incomplete = lossy || table.may_have_forgotten();
        self.broker = Broker::Down { memory, incomplete };
        for client in &mut self.clients {
            if client.link == Link::Up {
                client.link = Link::Gone;
            }
            client.lost_at = None;
        }
    }

    fn start(&mut self) {
        let Broker::Down { memory, incomplete } = self.broker.clone() else {
            unreachable!("it was looked for")
        };
        let lease = seconds(LEASE);
        for client in &mut self.clients {
            client.lost_at = Some(self.now);
        }
        let restore = Restore {
            sessions: memory.sessions.iter().map(|session| (*session, lease)).collect(),
            claims: memory.claims,
            incomplete,
            grace: lease,
        };
        // Each run writes down that it began before it grants anything.
        let epoch = Epoch(self.newest.epoch.0.max(memory.epoch) + 1);
        self.broker = Broker::Up(Box::new(Table::restore(epoch, self.time(), restore)));
        self.newest = Token { epoch, counter: 0 };
        self.execute(Command::Tick);
    }

    fn begin_session(&mut self, i: usize) {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        self.execute(Command::Open { session, lease: seconds(LEASE) });
        self.clients[i].begin(session, self.now);
    }

    /// A file is written under a token. N1: never after it was written under a later one.
    fn write_file(&mut self, file: usize, token: Token) {
        if self.written[file].is_some_and(|newest| token < newest) {
            self.broken = Some("N1: a file was written under a token that had been passed on");
        }
        self.written[file] = self.written[file].max(Some(token));
    }

    /// Whether all had their turn, and nothing is left of those who are there.
    fn is_at_rest(&self) -> bool {
        let Some(table) = self.table() else { return false };
        let is_done = |client: &Client| client.link == Link::Dead || client.state == State::Done;
        let is_left = |claim: &Claim| {
            let of = |client: &&Client| client.session == claim.owner.session;
            self.clients.iter().find(of).is_some_and(|client| client.link == Link::Up)
        };
        let all = table.tickets_after(Ticket(0), usize::MAX);
        self.clients.iter().all(is_done)
            && !table.standings(all).any(|standing| is_left(&standing.claim))
    }
}

impl Memory {
    fn of(table: &Table) -> Memory {
        let tickets = table.tickets_after(Ticket(0), usize::MAX);
        let record = |ticket| Some((ticket, table.record(ticket)?));
        let mut sessions: Vec<_> = table.sessions().collect();
        sessions.sort_unstable();
        let claims = tickets.into_iter().filter_map(record).collect();
        Memory { epoch: table.epoch().0, sessions, claims }
    }

    fn digest(&self) -> impl Hash + PartialEq + use<> {
        let owner = |(ticket, record): &(Ticket, Record)| match record {
            Record::Waiting(claim) => (*ticket, claim.owner, None),
            Record::Held { claim, token, revoked, .. } => {
                (*ticket, claim.owner, Some((*token, *revoked)))
            }
        };
        let claims: Vec<_> = self.claims.iter().map(owner).collect();
        (self.epoch, self.sessions.clone(), claims)
    }
}

impl World {
    fn digest(&self) -> impl Hash + PartialEq + use<> {
        let broker = match &self.broker {
            Broker::Up(table) => (Some(table.digest()), None),
            Broker::Down { memory, incomplete } => (None, Some((memory.digest(), *incomplete))),
        };
        let before = self.before.digest();
        let world = (self.now, self.clients.clone(), self.sessions, self.written, self.newest);
        (broker, before, world, self.left, self.broken)
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest().hash(state);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &World) -> bool {
        self.digest() == other.digest()
    }
}

impl Bounds {
    /// Returns when the clock ends: by then whatever a fault led to is over, and a broker that begins
    /// has time to end its grace. Where nothing went wrong nothing waits for the clock.
    fn end_of(&self, world: &World) -> u64 {
        let end = self.faults_end + 2 * LEASE + 1;
        match world.broker {
            _ if world.left == self.faults => self.faults_end,
            Broker::Down { .. } => end - LEASE,
            Broker::Up(_) => end,
        }
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_some() || world.is_at_rest() {
            return;
        }
        let is_quiet = world.clients.iter().all(|client| client.writing.is_none());
        if is_quiet && world.now < self.end_of(world) {
            steps.push(Step::Time);
        }
        let left = if world.now > self.faults_end { Faults::default() } else { world.left };
        for i in 0..world.clients.len() {
            world.steps_of(i, &left, steps);
        }
        match &world.broker {
            Broker::Down { .. } => steps.push(Step::Start),
            Broker::Up(_) => {
                let crash = (left.crashes > 0).then_some(Step::Crash { lossy: false });
                let loss = (left.losses > 0).then_some(Step::Crash { lossy: true });
                steps.extend(crash.into_iter().chain(loss));
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        next.take(step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("N1 N2 N4 N5", |_, world: &World| world.broken.is_none()),
            Property::always("all get their turn", |bounds: &Bounds, world: &World| {
                let mut steps = Vec::new();
                bounds.actions(world, &mut steps);
                !steps.is_empty() || world.broken.is_some() || world.is_at_rest()
            }),
        ]
    }
}

fn seconds(steps: u64) -> Duration {
    Duration::from_secs(steps)
}

fn at(step: u64) -> Time {
    // Not at the start of the clock: there is a time before.
    Time::ZERO + seconds(1_000 + step)
}

impl Job {
    fn claim(self, owner: OwnerId) -> Arc<Claim> {
        let (op, path, node) = match self {
            Job::Open(file) => (Op::Open(Access::Write), FILES[file], Node::File(file_key(file))),
            Job::Hold => (Op::Hold(Access::Write), "d", Node::Directory),
        };
        let path = Some(ViewPath::parse(path.as_bytes()).unwrap());
        let terms = Terms::of(owner, Party::Session(owner.session));
        let places = vec![Place { space: SpaceId(1), path, node }];
        Arc::new(Claim::new(terms, Want { op, places }))
    }

    fn files(self) -> &'static [usize] {
        match self {
            Job::Open(0) => &[0],
            Job::Open(_) => &[1],
            Job::Hold => &[0, 1],
        }
    }
}

fn file_key(file: usize) -> FileKey {
    FileKey { volume: 1, inode: file as u64 + 1, generation: 0 }
}

/// Two clients meet these faults late, three meet them early, and in the long tier late.
fn explore(faults: Faults) {
    explore_all(Bounds { jobs: TWO, faults, faults_end: LATE });
    explore_all(Bounds { jobs: THREE, faults, faults_end: EARLY });
    if is_long() {
        explore_all(Bounds { jobs: THREE, faults, faults_end: LATE });
    }
}

/// As before; three only in the long tier, and early.
fn explore_by_two(faults: Faults) {
    explore_all(Bounds { jobs: TWO, faults, faults_end: LATE });
    if is_long() {
        explore_all(Bounds { jobs: THREE, faults, faults_end: EARLY });
    }
}

fn is_long() -> bool {
    std::env::var_os("GATE_SOAK").is_some()
}

/// Depth first: the worlds that are to be looked at yet are few.
fn explore_all(bounds: Bounds) {
    let shown = format!("{bounds:?}");
    let checker = bounds.checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_dfs().join();
    let (worlds, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{shown}: {worlds} worlds, {depth} steps deep");
    checker.assert_properties();
}

#[test]
fn n2_all_get_their_turn_in_the_order_in_which_they_came() {
    explore(Faults::default());
}

#[test]
fn n1_n5_a_fenced_client_writes_nothing_when_its_connection_is_lost() {
    explore(Faults { cuts: 1, ..Faults::default() });
}

#[test]
fn n1_n5_fenced_clients_write_nothing_when_connections_are_lost_again() {
    explore_by_two(Faults { cuts: 2, ..Faults::default() });
    explore_by_two(Faults { cuts: 1, kills: 1, ..Faults::default() });
}

/// N7: the next is let in when nothing is under way any more, or cannot be.
#[test]
fn n1_n7_who_loses_its_turn_writes_nothing_in_that_of_the_next() {
    explore(Faults { breaks: 1, ..Faults::default() });
}

#[test]
fn n1_n7_who_loses_its_turn_and_its_connection_writes_nothing() {
    explore_by_two(Faults { breaks: 1, cuts: 1, ..Faults::default() });
    explore_by_two(Faults { breaks: 1, kills: 1, ..Faults::default() });
}

#[test]
fn n1_n7_a_turn_that_was_taken_away_stays_so_when_the_broker_dies() {
    explore_by_two(Faults { breaks: 1, crashes: 1, ..Faults::default() });
}

#[test]
fn n5_the_dead_hold_up_nobody_beyond_their_lease() {
    explore(Faults { kills: 1, ..Faults::default() });
}

#[test]
fn n1_n4_a_broker_that_dies_lets_nobody_in_who_must_wait() {
    explore(Faults { crashes: 1, ..Faults::default() });
}

#[test]
fn n1_n4_a_broker_that_dies_twice_lets_nobody_in_who_must_wait() {
    explore_by_two(Faults { crashes: 2, ..Faults::default() });
}

#[test]
fn n1_n4_n5_who_returns_to_a_broker_that_died_may_be_cut_off_or_die() {
    explore_by_two(Faults { crashes: 1, cuts: 1, ..Faults::default() });
    explore_by_two(Faults { crashes: 1, kills: 1, ..Faults::default() });
}

#[test]
fn n1_n4_a_broker_that_forgot_its_last_decision_lets_nobody_in_who_must_wait() {
    explore_by_two(Faults { losses: 1, ..Faults::default() });
}

#[test]
fn n1_n4_a_broker_that_forgot_and_dies_again_lets_nobody_in_who_must_wait() {
    explore_by_two(Faults { losses: 1, crashes: 1, ..Faults::default() });
}
