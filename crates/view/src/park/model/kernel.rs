//! Programs, the kernel beneath them, and what the [`view`] does for it.

mod view;

use gate_core::lock::want::Access;
use gate_fuse::Errno;

use super::wish::Job;
use super::{Bounds, Fault, Step, Timer, World};
use crate::park::tickets::Stub;
use crate::turn::Round;

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
    round: Round,
    /// What stood at its places when a worker looked.
    stood: Option<[Option<u8>; 2]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Op {
    /// With the directory's lock in hand.
    Names(Job),
    /// Of the file that had the name when the kernel looked.
    Open { name: usize, file: u8, access: Access },
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

    /// Returns which owner a worker has yet to note.
    pub fn owner_to_note(&self) -> Option<u64> {
        self.owner.map(|(_, owner)| owner)
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
            At::Sent(Request { stood: None, op: Op::Names(_), .. })
                if self.names_change_elsewhere(bounds) =>
            {
                steps.push(Step::Look(i));
            }
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
            At::Served(request) => matches!(request.op, Op::Open { .. }),
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
                Some(Request { op: Op::Names(_), .. }) => self.locked_by.is_none(),
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
                    if let Op::Names(_) = request.op {
                        self.locked_by = Some(i);
                    }
                    self.callers[i].at = At::Sent(request);
                }
                None => self.end_call(i, At::Program),
            },
            At::Stale => self.callers[i].at = At::Getattr(Walk::Sent),
            At::Holds(owner) => {
                self.broker.release(owner, None);
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
        let job = bounds.scene.programs[i][self.callers[i].job];
        if job.fails(&self.names) {
            return None;
        }
        let access = if let Job::Read(_) = job { Access::Read } else { Access::Write };
        let op = match (job, self.names[job.name()]) {
            (Job::Create(name) | Job::Read(name) | Job::Write(name), Some(file)) => {
                Op::Open { name, file, access }
            }
            _ => Op::Names(job),
        };
        Some(Request { op, round, stood: None })
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

    fn number(&mut self, i: usize) -> u64 {
        self.callers[i].numbers += 1;
        u64::from(self.callers[i].numbers)
    }
}

fn thread(i: usize) -> u32 {
    u32::try_from(i).expect("few callers")
}
