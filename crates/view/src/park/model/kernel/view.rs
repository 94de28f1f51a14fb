//! What the view's workers do, and its session's thread: as the product does, with the product's tickets.

use std::sync::Arc;

use gate_core::lock::want::Access;
use gate_fuse::Errno;

use super::super::broker::{Purpose, Whose};
use super::super::wish::{Job, Wish};
use super::super::{DIRECTORY, NAMES, Timer, World};
use super::{At, Op, Request, Walk, thread};
use crate::park::stands;
use crate::park::tickets::{About, Arrival, Decided, Rest, Stub, Watch};
use crate::turn::{Round, Turn, Verdict};

/// In whose thread the broker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Worker,
    /// It hears nothing more before it has noted which owner it got.
    Session,
}

impl World {
    /// A worker looks what stands at the places of a request.
    pub fn look(&mut self, i: usize) {
        if let At::Sent(Request { op: Op::Names(job), stood, .. }) = &mut self.callers[i].at {
            *stood = Some(job.stands(&self.names));
        }
    }

    /// A worker takes up a request.
    pub fn serve(&mut self, i: usize) {
        match self.callers[i].at {
            At::Sent(Request { op: Op::Open { name, file, access }, .. }) => {
                self.serve_open(i, (name, file, access));
            }
            At::Sent(_) => self.serve_call(i, By::Worker),
            _ => self.serve_walk(i),
        }
    }

    fn serve_call(&mut self, i: usize, by: By) {
        if matches!(self.callers[i].at, At::Sent(Request { stood: None, .. })) {
            self.look(i);
        }
        let At::Sent(request @ Request { op: Op::Names(job), stood: Some(stood), .. }) =
            self.callers[i].at
        else {
            unreachable!("it was offered, and looked at")
        };
        self.callers[i].at = At::Served(request);
        let wish = job.wish(stood);
        let round = self.round_of_walk(i);
        let stub = Stub { thread: thread(i), number: self.number(i) };
        let about = About { spot: World::spot(job), round, stands: stands(&wish.want) };
        let (rest, arrival) = self.tickets.arrive(stub, about, request);
        self.give_back(rest);
        match arrival {
            Arrival::Ask => self.ask_for((stub, job), wish, by),
            Arrival::Run(_, turn) if !self.broker.holds(turn) => {
                self.end_turn(turn);
                self.fail(i, Errno::IO);
            }
            Arrival::Run(request, turn) => self.run(i, request, turn, Round::Last),
            Arrival::Fail(_, errno) => self.fail(i, errno),
            Arrival::Send(_, watch) => self.send_outside(i, watch),
            Arrival::AskBriefly(_) => {
                self.ask(i, wish, Purpose::Briefly(i));
            }
        }
    }

    fn ask_for(&mut self, (stub, job): (Stub, Job), wish: Arc<Wish>, by: By) {
        let i = stub.thread as usize;
        let owner = self.ask(i, wish, Purpose::Ticket(stub, job));
        let noted_by = match by {
            By::Worker => &mut self.callers[i].owner,
            By::Session => &mut self.heard_owner,
        };
        assert_eq!(noted_by.replace((stub, owner)), None, "each thread does one thing at a time");
    }

    /// The kernel holds no lock while it opens: the request simply waits.
    fn serve_open(&mut self, i: usize, (name, file, access): (usize, u8, Access)) {
        let At::Sent(request) = self.callers[i].at else { unreachable!("looked at above") };
        self.callers[i].at = At::Served(request);
        let walked = self.round_of_walk(i);
        let name = (DIRECTORY, NAMES[name].to_owned());
        let (rest, round) = self.tickets.open(thread(i), Some(&name));
        let made_before = match rest {
            Rest::Turn(turn) => Some(turn),
            rest => {
                self.give_back(rest);
                None
            }
        };
        let round = if walked == Round::Last { walked } else { round };
        self.ask(i, Wish::open(file, access, &self.names), Purpose::Open(i, round));
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
        let noted = self.callers[i].owner.take();
        self.note(noted);
    }

    pub fn note_heard_owner(&mut self) {
        let noted = self.heard_owner.take();
        self.note(noted);
    }

    fn note(&mut self, noted: Option<(Stub, u64)>) {
        let Some((stub, owner)) = noted else { unreachable!("offered") };
        if !self.tickets.asked(stub, owner) {
            self.broker.withdraw(owner);
        }
    }

    /// The session's thread hears the broker.
    pub fn hear(&mut self) {
        let Some((purpose, verdict, wish)) = self.broker.hear() else { return };
        match (purpose, verdict) {
            (Purpose::Ticket(stub, job), None) => self.must_wait(stub, job),
            (Purpose::Ticket(stub, job), Some(Verdict::Go(turn))) => {
                self.granted((stub, job), turn, &wish);
            }
            (Purpose::Ticket(stub, _), Some(verdict)) => self.decided(stub, verdict),
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

    /// While it waited its names may have come to stand for other files.
    fn granted(&mut self, (stub, job): (Stub, Job), turn: Turn, asked: &Wish) {
        let by_now = job.wish(job.stands(&self.names));
        let is_new = stands(&by_now.want) != stands(&asked.want);
        if !is_new || !job.changes_names() || !self.tickets.is_outside(stub) {
            return self.decided(stub, Verdict::Go(turn));
        }
        self.end_turn(turn);
        self.tickets.asks_for(stub, stands(&by_now.want));
        self.ask_for((stub, job), by_now, By::Session);
    }

    fn run_served(&mut self, i: usize, turn: Turn, round: Round) {
        let At::Served(request) = self.callers[i].at else { unreachable!("it waits") };
        self.run(i, request, turn, round);
    }

    fn must_wait(&mut self, stub: Stub, job: Job) {
        let Some((_, watch)) = self.tickets.must_wait(stub) else { return };
        let i = stub.thread as usize;
        if job.fails(&self.names) {
            let rest = self.tickets.end(stub);
            self.give_back(rest);
            return self.fail(i, Errno::NOENT);
        }
        self.send_outside(i, watch);
    }

    /// The broker's first word is overdue.
    pub fn sweep(&mut self, stub: Stub) {
        let At::Served(Request { op: Op::Names(job), .. }) = self.callers[stub.thread as usize].at
        else {
            unreachable!("its call is in hand")
        };
        self.must_wait(stub, job);
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
        let Turn::Granted { owner, .. } = turn else { unreachable!("all is gated here") };
        if !self.broker.may_act(owner) {
            self.broken = Some("a call is executed without a grant");
        }
        match request.op {
            Op::Names(Job::Create(name)) if self.names[name].is_none() => {
                self.look_for_others(Whose::View(owner), [None; 2], Job::Create(name), true);
                self.names[name] = Some(self.files);
                self.broker.created(owner, self.files);
                self.files += 1;
                self.let_in(i, owner);
            }
            Op::Open { name, file, access }
                if self.names[name] == Some(file)
                    || (access, round) == (Access::Read, Round::Last) =>
            {
                let to_write = access == Access::Write;
                let job = if to_write { Job::Write(name) } else { Job::Read(name) };
                self.look_for_others(Whose::View(owner), [Some(file), None], job, to_write);
                self.let_in(i, owner);
            }
            // The name leads elsewhere by now: the kernel is to walk once more.
            Op::Names(Job::Create(_)) | Op::Open { .. } => {
                self.end_turn(turn);
                match round {
                    Round::First => {
                        self.callers[i].walks = true;
                        self.fail(i, Errno::STALE);
                    }
                    Round::Last => self.fail(i, Errno::AGAIN),
                }
            }
            Op::Names(job) if request.stood != Some(job.stands(&self.names)) => {
                self.again(i, request, turn, round);
            }
            Op::Names(job) => {
                let stands = job.stands(&self.names);
                self.look_for_others(Whose::View(owner), stands, job, false);
                let change = job.change(&mut self.names);
                self.broker.release(owner, change.as_ref());
                self.answer(i, change.map(|_| ()).ok_or(Errno::NOENT));
            }
        }
    }

    /// The turn was for something else than what is there by now.
    fn again(&mut self, i: usize, request: Request, turn: Turn, round: Round) {
        self.end_turn(turn);
        match round {
            Round::First => {
                self.callers[i].at = At::Sent(Request { stood: None, ..request });
                self.serve_call(i, By::Session);
            }
            Round::Last => self.fail(i, Errno::AGAIN),
        }
    }

    /// What a call does is not done while somebody else has it, whatever keys that takes.
    pub fn look_for_others(
        &mut self,
        whose: Whose,
        files: [Option<u8>; 2],
        job: Job,
        to_write: bool,
    ) {
        let mut others = self.broker.held_beside(whose);
        if others.any(|other| other.keeps_from(files, &job.names(), to_write)) {
            self.broken = Some("a call is executed while somebody else has what it changes");
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

    fn ask(&mut self, i: usize, wish: Arc<Wish>, purpose: Purpose) -> u64 {
        let owner = u64::from(thread(i)) * 256 + self.number(i);
        self.broker.ask(owner, wish, purpose);
        owner
    }
}
