//! The protocol of parked calls, checked in every order in which it can happen.
//!
//! The view's part is the product's own [`Tickets`], and what a call takes at the broker is the product's
//! own [`Want`](gate_core::lock::want::Want); the [`kernel`] with its programs, the [`broker`] with the
//! session between, and other sessions [`elsewhere`] are modelled. Each lock that the product takes is one
//! step, so threads interleave as they do in life. Timers go off at any moment after they were
//! set, with one exception that is the protocol's own bound: a thread that was sent outside is
//! not forgotten (a minute) while its call is on its way.
//!
//! Everything that makes the world go round is bounded, so every path ends, and what holds where
//! paths end holds in the end.
//!
//! Bounds: one directory with two files; two or three callers in one view, and one or two other
//! sessions that have or want the same (a hold, a reader, a writer, a rename); one fault, or two or three
//! where there are but two callers. The broker's death comes in all scenes but the [`CROWD`]: at most 1.2 million
//! worlds, all in all 4. In the long tier each scene meets each fault, and the [`BUSY`] one each two.

mod broker;
mod elsewhere;
mod kernel;
mod wish;

use std::collections::BTreeSet;

use gate_fuse::NodeId;
use stateright::{Checker, HasDiscoveries, Model, Property};

use self::broker::Broker;
use self::elsewhere::Stage;
use self::kernel::{Caller, Request};
use self::wish::Job::{self, Create, Hold, HoldAll, Read, Rename, Unlink, Write};
use self::wish::Names;
use super::tickets::{Rest, Spot, Stub, Tickets, Watch};
use crate::turn::Turn;

/// The one directory.
const DIRECTORY: NodeId = NodeId(1);
/// Two files in it.
const NAMES: [&std::ffi::CStr; 2] = [c"a", c"b"];

/// The calls of each caller's program, what other sessions do, and how many of the names are there.
#[derive(Clone, Copy, Debug)]
struct Scene {
    programs: &'static [&'static [Job]],
    elsewhere: &'static [Elsewhere],
    files: u8,
}

/// What another session does.
#[derive(Clone, Copy, Debug)]
struct Elsewhere {
    job: Job,
    /// Whether it was let in before anybody else came.
    is_first: bool,
}

const fn has(job: Job) -> Elsewhere {
    Elsewhere { job, is_first: true }
}

const fn wants(job: Job) -> Elsewhere {
    Elsewhere { job, is_first: false }
}

/// Callers that want the file that is there.
const TWO: Scene =
    Scene { programs: &[&[Unlink(0)], &[Create(0)]], elsewhere: &[has(Write(0))], files: 1 };
/// As before, and one that has business elsewhere first.
const BUSY: Scene = Scene {
    programs: &[&[Unlink(0)], &[Create(0)], &[Create(1), Unlink(0)]],
    elsewhere: &[has(Write(0))],
    files: 1,
};
/// Callers that make a file: who waited to make it comes back to open it, and may find it gone.
const MAKERS: Scene = Scene {
    programs: &[&[Create(1)], &[Create(1)], &[Unlink(1)]],
    elsewhere: &[has(Hold(1))],
    files: 1,
};
/// Names come to stand for other files while others wait for those.
const MOVERS: Scene = Scene {
    programs: &[&[Rename(0, 1)], &[Unlink(1)], &[Create(0)]],
    elsewhere: &[has(Write(0))],
    files: 2,
};
/// As before, and it is another view in which they do.
const ACROSS: Scene = Scene {
    programs: &[&[Unlink(0)], &[Rename(0, 1)]],
    elsewhere: &[has(Write(0)), wants(Rename(1, 0))],
    files: 2,
};
/// As before, and one that makes a file.
const CROWD: Scene = Scene { programs: &[&[Unlink(0)], &[Rename(0, 1)], &[Create(1)]], ..ACROSS };
/// All is held, and somebody else waits for one of the files.
const HELD: Scene = Scene {
    programs: &[&[Rename(0, 1)], &[Create(1)], &[Read(0)]],
    elsewhere: &[has(HoldAll), wants(Write(0))],
    files: 1,
};
/// Readers, whom who removes a name does not wait for, and a hold that does.
const READERS: Scene = Scene {
    programs: &[&[Read(0)], &[Create(0)], &[Unlink(0)]],
    elsewhere: &[has(Read(0)), wants(Hold(0))],
    files: 1,
};

/// Worlds to be explored: who does what, and what may go wrong, how often.
#[derive(Clone, Debug)]
struct Bounds {
    scene: Scene,
    faults: Faults,
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A signal comes that the program catches; it makes its call anew.
    Signal,
    Kill,
    /// A waiter runs out of patience.
    Timeout,
    /// The broker dies.
    Outage,
    /// A grant is taken away.
    Revocation,
    /// The kernel walks without asking for attributes.
    Shortcut,
    /// A call comes again, or its walk comes, later than a ticket is kept for it.
    Delay,
    /// The broker's first word is overdue.
    Silence,
}

const FAULTS: [Fault; 8] = [
    Fault::Signal,
    Fault::Kill,
    Fault::Timeout,
    Fault::Outage,
    Fault::Revocation,
    Fault::Shortcut,
    Fault::Delay,
    Fault::Silence,
];

/// How many of each may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Faults([u8; FAULTS.len()]);

impl Faults {
    fn of(faults: &[Fault]) -> Faults {
        let mut left = Faults::default();
        for fault in faults {
            left.0[*fault as usize] += 1;
        }
        left
    }

    fn may(&self, fault: Fault) -> bool {
        self.0[fault as usize] > 0
    }

    fn happens(&mut self, fault: Fault) {
        self.0[fault as usize] -= 1;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    callers: Vec<Caller>,
    /// Who has the kernel's lock of the directory.
    locked_by: Option<usize>,
    names: Names,
    files: u8,
    tickets: Tickets<Request, u8>,
    timers: BTreeSet<Timer>,
    broker: Broker,
    elsewhere: Vec<Stage>,
    /// What the session's thread has yet to note before it hears more.
    heard_owner: Option<(Stub, u64)>,
    left: Faults,
    /// What must not happen and did.
    broken: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    Expire(Watch),
    See(Stub),
    Forget(Stub),
}

impl Timer {
    fn stub(&self) -> Stub {
        match self {
            Timer::Expire(watch) => watch.stub,
            Timer::See(stub) | Timer::Forget(stub) => *stub,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A program or the kernel goes on.
    Go(usize),
    /// The kernel goes on without asking for attributes.
    Shortcut(usize),
    /// A worker of the view looks what a request is about, and takes it up.
    Look(usize),
    Serve(usize),
    /// It notes which owner it got from the session, as does the session's own thread.
    NoteOwner(usize),
    NoteHeardOwner,
    /// It parks a walk, and then notes that it did.
    Park(usize),
    NoteWalk(usize),
    Signal(usize),
    Kill(usize),
    Die(usize),
    /// The kernel's INTERRUPT arrives.
    Interrupt(usize),
    /// The session's thread hears the next answer.
    Hear,
    /// The broker's first word is overdue.
    Sweep(Stub),
    Timer(Timer),
    /// Another session goes on.
    Elsewhere(usize),
    TimeOut(u64),
    Revoke(u64),
    /// The broker is away, for longer than a lease, and back with or without the session.
    Lose,
    LeaseEnds,
    Return {
        resumed: bool,
    },
}

impl World {
    fn new(bounds: &Bounds) -> World {
        let mut world = World {
            callers: bounds.scene.programs.iter().map(|_| Caller::default()).collect(),
            locked_by: None,
            names: [0, 1].map(|file| (file < bounds.scene.files).then_some(file)),
            files: bounds.scene.files,
            tickets: Tickets::default(),
            timers: BTreeSet::new(),
            broker: Broker::new(),
            elsewhere: Vec::new(),
            heard_owner: None,
            left: bounds.faults,
            broken: None,
        };
        world.begin_elsewhere(bounds);
        world
    }

    fn take(&mut self, step: Step, bounds: &Bounds) {
        match step {
            Step::Go(i) => self.go(i, bounds),
            Step::Shortcut(i) => self.shortcut(i),
            Step::Look(i) => self.look(i),
            Step::Serve(i) => self.serve(i),
            Step::NoteOwner(i) => self.note_owner(i),
            Step::NoteHeardOwner => self.note_heard_owner(),
            Step::Park(i) => self.park(i),
            Step::NoteWalk(i) => self.note_walk(i),
            Step::Signal(i) => self.signal(i),
            Step::Kill(i) => self.kill(i),
            Step::Die(i) => self.die(i),
            Step::Interrupt(i) => self.interrupt(i),
            Step::Hear => self.hear(),
            Step::Sweep(stub) => {
                self.left.happens(Fault::Silence);
                self.sweep(stub);
            }
            Step::Timer(timer) => self.go_off(timer),
            Step::Elsewhere(k) => self.go_on_elsewhere(k, bounds),
            Step::TimeOut(owner) => self.broker.time_out(owner, &mut self.left),
            Step::Revoke(owner) => {
                self.left.happens(Fault::Revocation);
                self.broker.revoke(owner);
            }
            Step::Lose => {
                self.left.happens(Fault::Outage);
                self.broker.lose();
            }
            Step::LeaseEnds => self.broker.lease_ends(),
            Step::Return { resumed } => self.broker.come_back(resumed),
        }
        self.drop_idle_timers();
    }

    fn may_go_off(&self, timer: &Timer) -> bool {
        let is_awaited = |stub: &Stub| self.callers[stub.thread as usize].is_on_its_way();
        match timer {
            Timer::Expire(watch) => self.left.may(Fault::Delay) || !is_awaited(&watch.stub),
            Timer::See(_) => true,
            Timer::Forget(stub) => !is_awaited(stub),
        }
    }

    fn go_off(&mut self, timer: Timer) {
        self.timers.remove(&timer);
        match timer {
            Timer::Expire(watch) => {
                if self.callers[watch.stub.thread as usize].is_on_its_way() {
                    self.left.happens(Fault::Delay);
                }
                if let Some(rest) = self.tickets.expire(watch) {
                    self.give_back(rest);
                    self.timers.insert(Timer::Forget(watch.stub));
                }
            }
            Timer::See(stub) => {
                if self.callers[stub.thread as usize].is_dead() {
                    let rest = self.tickets.end(stub);
                    self.give_back(rest);
                }
            }
            Timer::Forget(stub) => self.tickets.forget(stub),
        }
    }

    /// Timers that would do nothing, now or later, only make more worlds of one.
    fn drop_idle_timers(&mut self) {
        let tickets = &self.tickets;
        self.timers.retain(|timer| match timer {
            Timer::Expire(watch) => tickets.clone().expire(*watch).is_some(),
            Timer::See(stub) | Timer::Forget(stub) => {
                let mut ended = tickets.clone();
                let _ = ended.end(*stub);
                ended != *tickets
            }
        });
    }

    fn give_back(&mut self, rest: Rest) {
        match rest {
            Rest::Nothing => {}
            Rest::Place(owner) => self.broker.withdraw(owner),
            Rest::Turn(turn) => self.end_turn(turn),
        }
    }

    fn end_turn(&mut self, turn: Turn) {
        if let Turn::Granted { owner, .. } = turn {
            self.broker.release(owner, None);
        }
    }

    fn spot(job: Job) -> Spot {
        Spot { parents: [DIRECTORY; 2], name: NAMES[job.name()].to_owned() }
    }

    /// Whether nobody waits for anything and nothing is left of anybody.
    fn is_at_rest(&self, bounds: &Bounds) -> bool {
        let done = |(i, caller): (usize, &Caller)| caller.is_done(bounds.scene.programs[i].len());
        self.callers.iter().enumerate().all(done)
            && self.locked_by.is_none()
            && self.elsewhere.iter().all(|stage| *stage == Stage::Done)
            && self.tickets.len() == 0
            && self.broker.is_empty()
    }

    /// Whether who stands in line for a call that may wait does so for one that still wants it, or
    /// whose maker is seen to be dead soon.
    fn nobody_is_forgotten_in_line(&self) -> bool {
        let is_noted_soon = |owner: u64| {
            let by_workers = self.callers.iter().filter_map(|caller| caller.owner_to_note());
            by_workers.chain(self.heard_owner.map(|(_, heard)| heard)).any(|noted| noted == owner)
        };
        let mut in_line =
            self.broker.in_line().filter(|(owner, _)| !is_noted_soon(*owner)).peekable();
        let mut tickets = in_line.peek().map(|_| self.tickets.clone()).unwrap_or_default();
        let is_looked_after = |stub: Stub| {
            let is_dead = self.callers[stub.thread as usize].is_dead();
            !is_dead || self.timers.iter().any(|timer| timer.stub() == stub)
        };
        in_line.all(|(owner, stub)| tickets.asked(stub, owner) && is_looked_after(stub))
    }

    /// Whether who has the kernel's lock needs nothing but the view to let go of it.
    fn lock_is_short(&self) -> bool {
        self.locked_by.is_none_or(|i| {
            self.callers[i].is_to_be_served()
                || self.tickets.in_hand().any(|(stub, _)| stub.thread as usize == i)
                || self.broker.waits_briefly(i)
        })
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_some() {
            return;
        }
        for i in 0..world.callers.len() {
            world.steps_of(i, self, steps);
        }
        if world.left.may(Fault::Silence) {
            steps.extend(world.tickets.in_hand().map(|(stub, _)| Step::Sweep(stub)));
        }
        let due = world.timers.iter().filter(|timer| world.may_go_off(timer));
        steps.extend(due.map(|timer| Step::Timer(*timer)));
        match world.heard_owner {
            Some(_) => steps.push(Step::NoteHeardOwner),
            None if world.broker.has_words() => steps.push(Step::Hear),
            None => {}
        }
        world.steps_elsewhere(steps);
        world.broker.steps(&world.left, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        next.take(step, self);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing is broken", |_, world: &World| world.broken.is_none()),
            Property::always("N6: the kernel's locks are held for a moment", |_, world: &World| {
                world.lock_is_short()
            }),
            Property::always("nobody is forgotten in line", |_, world: &World| {
                world.nobody_is_forgotten_in_line()
            }),
            Property::always(
                "all calls end, nothing is left of them",
                |bounds: &Bounds, world: &World| {
                    let mut steps = Vec::new();
                    bounds.actions(world, &mut steps);
                    !steps.is_empty() || world.broken.is_some() || world.is_at_rest(bounds)
                },
            ),
        ]
    }
}

fn explore(scene: Scene, faults: &[Fault]) {
    let bounds = Bounds { scene, faults: Faults::of(faults) };
    let checker = bounds.checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
    // Depth first: the worlds that are to be looked at yet are few.
    let checker = checker.spawn_dfs().join();
    let (worlds, depth) = (checker.unique_state_count(), checker.max_depth());
    let Scene { programs, elsewhere, .. } = scene;
    println!("{programs:?} {elsewhere:?}, {faults:?}: {worlds} worlds, {depth} steps deep");
    checker.assert_properties();
}

/// In the long tier also lets the busy meet these faults, and each other one beside them.
fn explore_usual(scene: Scene, faults: &[Fault]) {
    explore(scene, faults);
    if is_long() {
        explore(BUSY, faults);
        for other in FAULTS {
            explore(BUSY, &[faults, &[other]].concat());
        }
    }
}

/// In the long tier also lets a scene meet each fault.
fn explore_all(scene: Scene) {
    explore(scene, &[]);
    if is_long() {
        for fault in FAULTS {
            explore(scene, &[fault]);
        }
    }
}

fn is_long() -> bool {
    std::env::var_os("GATE_SOAK").is_some()
}

#[test]
fn n6_parked_calls_end_in_their_turn() {
    explore_usual(BUSY, &[]);
    explore_usual(MAKERS, &[]);
}

#[test]
fn n6_parked_calls_end_when_signals_come() {
    explore_usual(BUSY, &[Fault::Signal]);
    explore_usual(TWO, &[Fault::Signal, Fault::Timeout]);
}

#[test]
fn n6_parked_calls_of_the_killed_leave_nothing() {
    explore_usual(BUSY, &[Fault::Kill]);
}

#[test]
fn n6_parked_calls_end_when_walks_are_late_or_skipped_and_the_broker_silent() {
    explore_usual(BUSY, &[Fault::Delay]);
    explore_usual(TWO, &[Fault::Delay, Fault::Shortcut, Fault::Silence]);
}

#[test]
fn n6_parked_calls_end_when_the_broker_dies() {
    explore_usual(BUSY, &[Fault::Outage]);
}

#[test]
fn n6_parked_calls_end_when_their_turns_are_taken_away() {
    explore_usual(BUSY, &[Fault::Revocation]);
}

#[test]
fn n1_n6_parked_calls_change_nothing_that_another_session_has() {
    for scene in [MOVERS, ACROSS, HELD, READERS, CROWD] {
        explore_all(scene);
    }
}

#[test]
fn n1_n6_parked_calls_of_several_sessions_end_when_the_broker_dies() {
    for scene in [MOVERS, ACROSS, HELD, READERS] {
        explore(scene, &[Fault::Outage]);
    }
}
