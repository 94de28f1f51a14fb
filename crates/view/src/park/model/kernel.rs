//! Programs, the kernel beneath them, and what the view's workers do for it.

use gate_fuse::Errno;

use super::broker::Purpose;
use super::{Bounds, DIRECTORY, Fault, Job, NAMES, Step, Timer, World};
use crate::park::tickets::{About, Arrival, Decided, Rest, Stub, Watch};
use crate::turn::{Round, Turn, Verdict};

/// A thread of a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    at: At,
    job: usize,
    /// Numbers of owners, tickets and walks, handed out so far.
    numbers: u8,
    killed: bool,
    /// A signal came; its INTERRUPT is on its way.
    interrupt: bool,
    /// The view knows it as one whom an open sent to walk.
    walks: bool,
    /// What workers have yet to note.
    owner: Option<(Stub, u64)>,
    walk: Option<(Stub, u8)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Program,
    /// The path was walked once more; the call is to be issued again.
    Walked,
    /// It was issued, and the view has not looked at it, or has.
    Sent(Request),
    Served(Request),
    /// It was answered ESTALE.
    Stale,
    /// GETATTR, as the view knows it.
    Getattr(Walk),
    Holds(u64),
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Walk {
    Sent,
    /// A worker found that it has to wait.
    ToPark(Stub),
    /// It waits, under this number.
    Parked(Stub, u8),
}

/// A request of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    op: Op,
    pub name: usize,
    round: Round,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Op {
    Create,
    Unlink,
    /// Of the file that had the name when the kernel looked.
    Open(u8),
}

impl Default for Caller {
    fn default() -> Caller {
        Caller {
            at: At::Program,
            job: 0,
            numbers: 0,
            killed: false,
            interrupt: false,
            walks: false,
            owner: None,
            walk: None,
        }
    }
}

impl Caller {
    pub fn is_dead(&self) -> bool {
        self.at == At::Dead
    }

    pub fn is_done(&self, jobs: usize) -> bool {
        self.is_dead() || (self.at == At::Program && self.job == jobs)
    }

    /// Whether its call was answered ESTALE and has not ended.
    pub fn is_on_its_way(&self) -> bool {
        match self.at {
            At::Stale | At::Getattr(_) | At::Walked => true,
            At::Sent(request) | At::Served(request) => request.round == Round::Last,
            At::Program | At::Holds(_) | At::Dead => false,
        }
    }

    pub fn is_to_be_served(&self) -> bool {
        matches!(self.at, At::Sent(_))
    }
}

impl World {
    pub fn steps_of(&self, i: usize, bounds: &Bounds, steps: &mut Vec<Step>) {
        let caller = &self.callers[i];
        if self.can_go(i, bounds) {
            steps.push(Step::Go(i));
        }
        match caller.at {
            At::Stale if self.left.may(Fault::Shortcut) => steps.push(Step::Shortcut(i)),
            At::Sent(_) if caller.owner.is_none() => steps.push(Step::Serve(i)),
            At::Getattr(Walk::Sent) => steps.push(Step::Serve(i)),
            At::Getattr(Walk::ToPark(_)) if caller.walk.is_none() => steps.push(Step::Park(i)),
            _ => {}
        }
        if caller.owner.is_some() {
            steps.push(Step::NoteOwner(i));
        }
        if caller.walk.is_some() {
            steps.push(Step::NoteWalk(i));
        }
        // One that overtakes its request is remembered until that is parked: the same as here.
        let parked = match caller.at {
            At::Getattr(walk) => matches!(walk, Walk::Parked(..)),
            At::Served(request) => matches!(request.op, Op::Open(_)),
            _ => false,
        };
        if caller.interrupt && parked {
            steps.push(Step::Interrupt(i));
        }
        let waits = matches!(caller.at, At::Getattr(_) | At::Served(_));
        if waits && !caller.killed && !caller.interrupt && self.left.may(Fault::Signal) {
            steps.push(Step::Signal(i));
        }
        if !matches!(caller.at, At::Program | At::Dead)
            && !caller.killed
            && self.left.may(Fault::Kill)
        {
            steps.push(Step::Kill(i));
        }
        if caller.killed && matches!(caller.at, At::Program | At::Walked | At::Stale) {
            steps.push(Step::Die(i));
        }
    }

    fn can_go(&self, i: usize, bounds: &Bounds) -> bool {
        let caller = &self.callers[i];
        match caller.at {
            At::Program if caller.killed || caller.job == bounds.scene.programs[i].len() => false,
            At::Program | At::Walked => match self.next_request(i, bounds) {
                Some(Request { op: Op::Create | Op::Unlink, .. }) => self.locked_by.is_none(),
                _ => true,
            },
            At::Stale | At::Holds(_) => true,
            At::Sent(_) | At::Served(_) | At::Getattr(_) | At::Dead => false,
        }
    }

    /// The program makes its call, or the kernel goes on with it.
    pub fn go(&mut self, i: usize, bounds: &Bounds) {
        match self.callers[i].at {
            At::Program | At::Walked => match self.next_request(i, bounds) {
                Some(request) => {
                    if !matches!(request.op, Op::Open(_)) {
                        self.locked_by = Some(i);
                    }
                    self.callers[i].at = At::Sent(request);
                }
                None => self.end_call(i, At::Program),
            },
            At::Stale => self.callers[i].at = At::Getattr(Walk::Sent),
            At::Holds(owner) => {
                self.broker.release(owner);
                self.end_call(i, At::Program);
            }
            At::Sent(_) | At::Served(_) | At::Getattr(_) | At::Dead => unreachable!("it waits"),
        }
    }

    pub fn shortcut(&mut self, i: usize) {
        self.left.happens(Fault::Shortcut);
        self.callers[i].at = At::Walked;
    }

    /// What the kernel makes of a job by what it finds; `None` if it fails by itself.
    fn next_request(&self, i: usize, bounds: &Bounds) -> Option<Request> {
        let round = if self.callers[i].at == At::Walked { Round::Last } else { Round::First };
        let (op, name) = match bounds.scene.programs[i][self.callers[i].job] {
            Job::Create(name) => (self.names[name].map_or(Op::Create, Op::Open), name),
            Job::Unlink(name) => (self.names[name].map(|_| Op::Unlink)?, name),
        };
        Some(Request { op, name, round })
    }

    /// A worker takes up a request.
    pub fn serve(&mut self, i: usize) {
        let request = match self.callers[i].at {
            At::Sent(request) => request,
            _ => return self.serve_walk(i),
        };
        self.callers[i].at = At::Served(request);
        if let Op::Open(_) = request.op {
            return self.serve_open(i, request);
        }
        let round = self.round_of_walk(i);
        let stub = Stub { thread: thread(i), number: self.number(i) };
        let about = About { spot: World::spot(request.name), round, stands: Vec::new() };
        let (rest, arrival) = self.tickets.arrive(stub, about, request);
        self.give_back(rest);
        match arrival {
            Arrival::Ask => {
                let owner = self.ask(i, request.name, Purpose::Ticket(stub));
                self.callers[i].owner = Some((stub, owner));
            }
            Arrival::Run(_, turn) if !self.broker.holds(turn) => {
                self.end_turn(turn);
                self.fail(i, Errno::IO);
            }
            Arrival::Run(request, turn) => self.run(i, request, turn, Round::Last),
            Arrival::Fail(_, errno) => self.fail(i, errno),
            Arrival::Send(_, watch) => self.send_outside(i, watch),
            Arrival::AskBriefly(_) => {
                self.ask(i, request.name, Purpose::Briefly(i));
            }
        }
    }

    /// The kernel holds no lock while it opens: the request simply waits.
    fn serve_open(&mut self, i: usize, request: Request) {
        let walked = self.round_of_walk(i);
        let name = (DIRECTORY, NAMES[request.name].to_owned());
        let (rest, round) = self.tickets.open(thread(i), Some(&name));
        let made_before = match rest {
            Rest::Turn(turn) => Some(turn),
            rest => {
                self.give_back(rest);
                None
            }
        };
        let round = if walked == Round::Last { walked } else { round };
        self.ask(i, request.name, Purpose::Open(i, round));
        if let Some(turn) = made_before {
            self.end_turn(turn);
        }
    }

    /// What the view knows of the round of a call, apart from its ticket.
    fn round_of_walk(&mut self, i: usize) -> Round {
        if std::mem::take(&mut self.callers[i].walks) { Round::Last } else { Round::First }
    }

    fn serve_walk(&mut self, i: usize) {
        match self.tickets.walk_of(thread(i), DIRECTORY) {
            Some(stub) => self.callers[i].at = At::Getattr(Walk::ToPark(stub)),
            None => self.answer_walk(i),
        }
    }

    pub fn park(&mut self, i: usize) {
        let At::Getattr(Walk::ToPark(stub)) = self.callers[i].at else { unreachable!("offered") };
        let number = u8::try_from(self.number(i)).expect("few");
        self.callers[i].walk = Some((stub, number));
        self.callers[i].at = At::Getattr(Walk::Parked(stub, number));
    }

    pub fn note_walk(&mut self, i: usize) {
        let Some((stub, number)) = self.callers[i].walk.take() else { unreachable!("offered") };
        if let Some(number) = self.tickets.parked(stub, number) {
            self.resume(i, number);
        }
    }

    pub fn note_owner(&mut self, i: usize) {
        let Some((stub, owner)) = self.callers[i].owner.take() else { unreachable!("offered") };
        if !self.tickets.asked(stub, owner) {
            self.broker.withdraw(owner);
        }
    }

    pub fn signal(&mut self, i: usize) {
        self.left.happens(Fault::Signal);
        self.callers[i].interrupt = true;
    }

    pub fn kill(&mut self, i: usize) {
        self.left.happens(Fault::Kill);
        let caller = &mut self.callers[i];
        (caller.killed, caller.interrupt) = (true, true);
    }

    pub fn die(&mut self, i: usize) {
        self.end_call(i, At::Dead);
    }

    /// The kernel's INTERRUPT ends a request that is parked.
    pub fn interrupt(&mut self, i: usize) {
        self.callers[i].interrupt = false;
        match self.callers[i].at {
            At::Getattr(Walk::Parked(stub, _)) => {
                if let Some(watch) = self.tickets.interrupted(stub) {
                    self.timers.insert(Timer::See(stub));
                    self.timers.insert(Timer::Expire(watch));
                }
                self.fail(i, Errno::INTR);
            }
            _ => self.broker.withdraw_open(i),
        }
    }

    /// The session's thread hears the broker.
    pub fn hear(&mut self) {
        let Some((purpose, verdict)) = self.broker.hear() else { return };
        match (purpose, verdict) {
            (Purpose::Ticket(stub), None) => self.must_wait(stub),
            (Purpose::Ticket(stub), Some(verdict)) => self.decided(stub, verdict),
            (Purpose::Open(..) | Purpose::Briefly(_), None) => {}
            (Purpose::Open(i, _) | Purpose::Briefly(i), Some(Verdict::Stop(errno))) => {
                self.fail(i, errno);
            }
            (Purpose::Open(i, round), Some(Verdict::Go(turn))) => self.run_served(i, turn, round),
            (Purpose::Briefly(i), Some(Verdict::Go(turn))) => {
                self.run_served(i, turn, Round::Last);
            }
        }
    }

    fn run_served(&mut self, i: usize, turn: Turn, round: Round) {
        let At::Served(request) = self.callers[i].at else { unreachable!("it waits") };
        self.run(i, request, turn, round);
    }

    pub fn must_wait(&mut self, stub: Stub) {
        let Some((request, watch)) = self.tickets.must_wait(stub) else { return };
        let i = stub.thread as usize;
        if request.op == Op::Unlink && self.names[request.name].is_none() {
            let rest = self.tickets.end(stub);
            self.give_back(rest);
            return self.fail(i, Errno::NOENT);
        }
        self.send_outside(i, watch);
    }

    fn send_outside(&mut self, i: usize, watch: Watch) {
        self.timers.insert(Timer::Expire(watch));
        self.fail(i, Errno::STALE);
    }

    fn decided(&mut self, stub: Stub, verdict: Verdict) {
        let i = stub.thread as usize;
        match (self.tickets.decided(stub, verdict), verdict) {
            (Decided::Now(request), Verdict::Go(turn)) => self.run(i, request, turn, Round::First),
            (Decided::Now(_), Verdict::Stop(errno)) => self.fail(i, errno),
            (Decided::Later(walk, watch), _) => {
                self.timers.insert(Timer::Expire(watch));
                if let Some(number) = walk {
                    self.resume(i, number);
                }
            }
            (Decided::Nobody, Verdict::Go(turn)) => self.end_turn(turn),
            (Decided::Nobody, Verdict::Stop(_)) => {}
        }
    }

    /// Does what a call is for, in its turn.
    fn run(&mut self, i: usize, request: Request, turn: Turn, round: Round) {
        let Turn::Granted { owner } = turn else { unreachable!("all is gated here") };
        self.has_its_turn(turn, request.name);
        let there = self.names[request.name];
        match (request.op, there) {
            (Op::Create, None) => {
                self.names[request.name] = Some(self.files);
                self.files += 1;
                self.let_in(i, owner);
            }
            (Op::Open(file), Some(there)) if file == there => self.let_in(i, owner),
            // The name leads elsewhere by now: the kernel is to walk once more.
            (Op::Create | Op::Open(_), _) => {
                self.end_turn(turn);
                match round {
                    Round::First => {
                        self.callers[i].walks = true;
                        self.fail(i, Errno::STALE);
                    }
                    Round::Last => self.fail(i, Errno::AGAIN),
                }
            }
            (Op::Unlink, there) => {
                self.names[request.name] = None;
                self.end_turn(turn);
                self.answer(i, there.map(|_| ()).ok_or(Errno::NOENT));
            }
        }
    }

    fn let_in(&mut self, i: usize, owner: u64) {
        self.unlock(i);
        self.callers[i].at = At::Holds(owner);
    }

    fn fail(&mut self, i: usize, errno: Errno) {
        self.answer(i, Err(errno));
    }

    /// Answers a call that leaves nothing open.
    fn answer(&mut self, i: usize, answer: Result<(), Errno>) {
        self.unlock(i);
        let round = match self.callers[i].at {
            At::Served(request) => request.round,
            At::Getattr(_) => Round::Last,
            _ => unreachable!("only what was served is answered"),
        };
        match (answer, round) {
            (Err(Errno::STALE), Round::First) => self.callers[i].at = At::Stale,
            (Err(Errno::STALE), Round::Last) => self.broken = Some("ESTALE reaches the program"),
            // The program makes its call once more.
            (Err(Errno::INTR), _) => self.callers[i].at = At::Program,
            _ => self.end_call(i, At::Program),
        }
    }

    fn resume(&mut self, i: usize, number: u8) {
        match self.callers[i].at {
            At::Getattr(Walk::Parked(_, parked)) if parked == number => self.answer_walk(i),
            // The interrupt was faster.
            _ => {}
        }
    }

    fn answer_walk(&mut self, i: usize) {
        self.callers[i].at = At::Walked;
    }

    fn unlock(&mut self, i: usize) {
        if self.locked_by == Some(i) {
            self.locked_by = None;
        }
    }

    fn end_call(&mut self, i: usize, at: At) {
        let caller = &mut self.callers[i];
        caller.at = at;
        caller.job += 1;
        caller.walks = false;
        caller.interrupt = false;
    }

    fn ask(&mut self, i: usize, name: usize, purpose: Purpose) -> u64 {
        let owner = u64::from(thread(i)) * 32 + self.number(i);
        self.broker.ask(owner, name, purpose);
        owner
    }

    fn number(&mut self, i: usize) -> u64 {
        self.callers[i].numbers += 1;
        u64::from(self.callers[i].numbers)
    }
}

fn thread(i: usize) -> u32 {
    u32::try_from(i).expect("few callers")
}
