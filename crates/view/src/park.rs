//! Calls that the kernel makes with a lock in its hands wait outside of it.
//!
//! CREATE, MKDIR, UNLINK, RENAME, … hold the directory's lock while they wait for an answer, and
//! SETATTR and SETXATTR the file's own: a view that let them wait would freeze the directory for
//! others, or the writer that they wait for. So a contended call is answered ESTALE and leaves a
//! *ticket* behind, named by its thread, directory and name. ESTALE makes the kernel let go of its
//! locks and walk the path once more; the walk needs the directory's attributes, which were just
//! declared stale; that GETATTR, which holds nothing, is what waits. When it is answered the
//! kernel issues the call again, and the ticket lets it through. A call is answered ESTALE once
//! only: the kernel would hand a second one to the program.
//!
//! The rules are [`tickets`]; here the kernel, the broker and the timer are told.

#[cfg(test)]
mod model;
mod tickets;

use std::ffi::CString;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use gate_api::{Answer, Ask, process};
use gate_core::lock::claim::Patience;
use gate_core::lock::event::Refusal;
use gate_core::lock::want::{Node, Want};
use gate_fuse::{Errno, NodeId, Parked, Reply, Stale};

use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering, now};
use crate::turn::{Round, Run, Turn, Verdict};
use crate::view::View;
use tickets::{About, Arrival, Decided, Rest, Spot, Stub, Tickets, Watch};

/// How long the broker may take to say yes or "wait", or a call may wait that was sent outside
/// already, while the kernel holds its locks.
const TRY_MAX: Duration = Duration::from_millis(50);

/// How long a turn is held for a call that was to come again, and a place for one whose walk was
/// to come.
pub(crate) const CLAIMED_WITHIN: Duration = Duration::from_secs(1);

/// When it is first seen whether a signal ended the thread rather than its call.
const SEEN_AFTER: Duration = Duration::from_millis(20);

/// How long it is remembered that a thread's ticket ran out: it may have been stopped.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// A call that may have to wait.
pub(crate) struct Call {
    /// The thread that makes it; not 0.
    pub thread: u32,
    /// The directory of its name, and of the second name if it has two.
    pub parents: [NodeId; 2],
    /// Its (first) name.
    pub name: CString,
    /// Whether it was sent to walk already.
    pub round: Round,
    /// What it asks of the broker.
    pub ask: Ask,
    /// What it would ask for by now; `None` where its names cannot come to mean something else.
    pub anew: Option<Anew>,
    /// Finds what makes it fail in any case, before it waits.
    pub check: Check,
    /// What it does when it is its turn.
    pub run: Run,
}

/// See [`Call::check`].
pub(crate) type Check = Box<dyn FnOnce(&View) -> Result<(), Errno> + Send>;

/// See [`Call::anew`].
pub(crate) type Anew = Arc<dyn Fn(&View) -> Option<Want> + Send + Sync>;

/// The calls of a view that wait outside.
#[derive(Default)]
pub(crate) struct Parking {
    tickets: Mutex<Tickets<InHand, Walk>>,
    /// As many as there are tickets, for those who only want to know whether there are any.
    count: AtomicUsize,
    printed: AtomicU64,
    sweeping: AtomicBool,
}

/// A call that the kernel waits for.
struct InHand {
    reply: Reply,
    parents: [NodeId; 2],
    check: Check,
    run: Run,
    since: Instant,
}

/// The GETATTR of a node that the kernel waits for.
struct Walk {
    node: NodeId,
    parked: Parked,
}

impl Parking {
    /// Returns whether any call waits: then attributes of directories must not be cached.
    pub fn is_in_use(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Nothing that is done with the tickets waits, or comes back for them.
    fn with<T>(&self, act: impl FnOnce(&mut Tickets<InHand, Walk>) -> T) -> T {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut tickets);
        self.count.store(tickets.len(), Ordering::Release);
        result
    }

    fn stub(&self, thread: u32) -> Stub {
        Stub { thread, number: self.printed.fetch_add(1, Ordering::Relaxed) }
    }
}

impl View {
    /// Runs a call when it is its turn.
    pub fn wait_outside(&self, call: Call, reply: Reply) {
        let Call { thread, parents, name, round, ask, anew, check, run } = call;
        let stub = self.parking.stub(thread);
        let in_hand = InHand { reply, parents, check, run, since: now() };
        let about = About { spot: Spot { parents, name }, round, stands: stands(&ask.want) };
        let (rest, arrival) = self.parking.with(|tickets| tickets.arrive(stub, about, in_hand));
        self.give_back(rest);
        match arrival {
            Arrival::Ask => self.ask_for(stub, ask, anew),
            // While nobody looked it may have been taken away.
            Arrival::Run(call, turn) if !self.stands(turn) => {
                self.end_turn(turn, None);
                call.reply.error(Errno::IO);
            }
            Arrival::Run(call, turn) => (call.run)(self, call.reply, turn, Round::Last),
            Arrival::Fail(call, errno) => call.reply.error(errno),
            Arrival::Send(call, watch) => self.send_outside(call.parents, call.reply, watch),
            Arrival::AskBriefly(call) => {
                let ask = Ask { patience: Patience::Limited(TRY_MAX), ..ask };
                self.ask_briefly(ask, call.reply, Round::Last, call.run);
            }
        }
    }

    /// Lets the walk of a waiting call wait; gives the reply back if it is not such a walk.
    pub fn wait_in_walk(&self, thread: u32, node: NodeId, reply: Reply) -> Option<Reply> {
        if !self.parking.is_in_use() {
            return Some(reply);
        }
        let Some(stub) = self.parking.with(|tickets| tickets.walk_of(thread, node)) else {
            return Some(reply);
        };
        let view = self.itself();
        // Without the lock: an interrupt that came before is delivered in here.
        let parked = reply.park(move |reply| {
            view.walk_interrupted(stub);
            reply.error(Errno::INTR);
        });
        let walk = Walk { node, parked };
        self.parking.with(|tickets| tickets.parked(stub, walk))?.parked.resume()
    }

    /// Takes over the turn of a call that comes back as an open; returns the round of that.
    pub fn take_ticket(
        &self,
        thread: u32,
        name: Option<&(NodeId, CString)>,
    ) -> (Option<Turn>, Round) {
        if !self.parking.is_in_use() {
            return (None, Round::First);
        }
        match self.parking.with(|tickets| tickets.open(thread, name)) {
            (Rest::Turn(turn), round) => (Some(turn), round),
            (rest, round) => {
                self.give_back(rest);
                (None, round)
            }
        }
    }

    fn ask_for(&self, stub: Stub, ask: Ask, anew: Option<Anew>) {
        self.sweep_later();
        let view = self.itself();
        let again = anew.map(|anew| (ask.clone(), anew));
        let then = move |answer: Answer| match (Verdict::of(&answer), &again) {
            (Some(Verdict::Go(turn)), Some(again)) => view.granted(stub, turn, again),
            (Some(verdict), _) => view.decided(stub, verdict),
            (None, _) => view.must_wait(stub),
        };
        let owner = self.broker.acquire(ask, Box::new(then));
        if !self.parking.with(|tickets| tickets.asked(stub, owner)) {
            // Given up in the meantime; to one that was decided this does nothing.
            self.give_back(Rest::Place(owner));
        }
    }

    /// N1: while a call waited its names may have come to stand for other files, which have turns of
    /// their own. From its turn on they stay as they are: see `Op::Rename` in the rules.
    fn granted(&self, stub: Stub, turn: Turn, (ask, anew): &(Ask, Anew)) {
        let is_outside = self.parking.with(|tickets| tickets.is_outside(stub));
        let by_now = if is_outside { anew(self) } else { None };
        let Some(want) = by_now.filter(|want| stands(want) != stands(&ask.want)) else {
            return self.decided(stub, Verdict::Go(turn));
        };
        self.end_turn(turn, None);
        self.parking.with(|tickets| tickets.asks_for(stub, stands(&want)));
        self.ask_for(stub, Ask { want, ..ask.clone() }, Some(anew.clone()));
    }

    /// Sees to it that no call waits longer for the broker's first word than it may.
    fn sweep_later(&self) {
        if !self.parking.sweeping.swap(true, Ordering::AcqRel) {
            let view = self.itself();
            self.timer.after(TRY_MAX, move || view.sweep());
        }
    }

    fn sweep(&self) {
        self.parking.sweeping.store(false, Ordering::Release);
        let is_overdue = |since: Instant| now().saturating_duration_since(since) >= TRY_MAX;
        let (overdue, others): (Vec<_>, Vec<_>) = self.parking.with(|tickets| {
            let asked = tickets.in_hand().map(|(stub, call)| (stub, call.since));
            asked.partition(|(_, since)| is_overdue(*since))
        });
        for (stub, _) in overdue {
            self.must_wait(stub);
        }
        if !others.is_empty() {
            self.sweep_later();
        }
    }

    /// The broker's answer is not yes: the call leaves the kernel's locks, or fails.
    fn must_wait(&self, stub: Stub) {
        let sent = self.parking.with(|tickets| tickets.must_wait(stub));
        let Some((InHand { reply, parents, check, .. }, watch)) = sent else { return };
        match check(self) {
            Ok(()) => self.send_outside(parents, reply, watch),
            Err(errno) => {
                self.end_ticket(stub);
                reply.error(errno);
            }
        }
    }

    /// Sends the kernel on its walk.
    fn send_outside(&self, parents: [NodeId; 2], reply: Reply, watch: Watch) {
        for parent in parents {
            // Only attributes: that takes no lock that a call in progress could hold.
            if let Err(errno) = self.notifier().inval_inode(parent, Stale::Attributes) {
                tracing::warn!(%errno, ?parent, "attributes could not be declared stale");
            }
        }
        reply.error(Errno::STALE);
        self.expire_later(watch);
    }

    fn decided(&self, stub: Stub, verdict: Verdict) {
        match (self.parking.with(|tickets| tickets.decided(stub, verdict)), verdict) {
            (Decided::Now(call), Verdict::Go(turn)) => {
                (call.run)(self, call.reply, turn, Round::First);
            }
            (Decided::Now(call), Verdict::Stop(errno)) => call.reply.error(errno),
            (Decided::Later(walk, watch), _) => {
                if let Some(Walk { node, parked }) = walk
                    && let Some(reply) = parked.resume()
                {
                    self.answer_walk(node, reply);
                }
                self.expire_later(watch);
            }
            (Decided::Nobody, Verdict::Go(turn)) => self.end_turn(turn, None),
            (Decided::Nobody, Verdict::Stop(_)) => {}
        }
    }

    fn walk_interrupted(&self, stub: Stub) {
        let interrupted = self.parking.with(|tickets| tickets.interrupted(stub));
        let Some(watch) = interrupted else { return };
        let view = self.itself();
        self.timer.after(SEEN_AFTER, move || {
            if !is_alive(stub.thread) {
                view.end_ticket(stub);
            }
        });
        self.expire_later(watch);
    }

    fn expire_later(&self, watch: Watch) {
        let view = self.itself();
        self.timer.after(CLAIMED_WITHIN, move || {
            let expired = view.parking.with(|tickets| tickets.expire(watch));
            let Some(rest) = expired else { return };
            view.give_back(rest);
            let of = view.itself();
            let forget = move || of.parking.with(|tickets| tickets.forget(watch.stub));
            view.timer.after(REMEMBERED_FOR, forget);
        });
    }

    fn end_ticket(&self, stub: Stub) {
        self.give_back(self.parking.with(|tickets| tickets.end(stub)));
    }

    fn give_back(&self, rest: Rest) {
        match rest {
            Rest::Nothing => {}
            Rest::Place(owner) => self.broker.withdraw(owner, Refusal::Interrupted),
            Rest::Turn(turn) => self.end_turn(turn, None),
        }
    }
}

fn stands(want: &Want) -> Vec<Node> {
    want.places.iter().map(|place| place.node).collect()
}

fn is_alive(thread: u32) -> bool {
    process::Stat::read(thread).is_some_and(|stat| !matches!(stat.state, b'Z' | b'X'))
}
