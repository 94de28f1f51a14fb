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

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gate_api::{Answer, Ask, process};
use gate_core::lock::claim::Patience;
use gate_core::lock::event::Refusal;
use gate_fuse::{Errno, NodeId, Parked, Reply, Stale};

use crate::turn::{Round, Run, Turn, Verdict};
use crate::view::View;

/// How long the broker may take to say yes or "wait" while the kernel holds its locks.
const TRY_MAX: Duration = Duration::from_millis(50);

/// How long a turn is held for a call that was to come again, and a place for one whose walk was
/// to come.
const CLAIMED_WITHIN: Duration = Duration::from_secs(1);

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
    /// What it asks of the broker.
    pub ask: Ask,
    /// Finds what makes it fail in any case, before it waits.
    pub check: Check,
    /// What it does when it is its turn.
    pub run: Run,
}

/// See [`Call::check`].
pub(crate) type Check = Box<dyn FnOnce(&View) -> Result<(), Errno> + Send>;

/// The tickets, by thread: a thread makes one call at a time.
#[derive(Default)]
pub(crate) struct Parking {
    tickets: Mutex<HashMap<u32, Arc<Ticket>>>,
    /// As many as there are tickets, for those who only want to know whether there are any.
    count: AtomicUsize,
    sweeping: AtomicBool,
}

struct Ticket {
    thread: u32,
    parents: [NodeId; 2],
    name: CString,
    owner: OnceLock<u64>,
    standing: Mutex<Standing>,
}

struct Standing {
    state: State,
    /// When it came to be in this state.
    since: Instant,
}

enum State {
    /// The call holds the kernel's locks and waits for a word of the broker.
    Asked(Reply, Check, Run),
    /// The call was answered ESTALE; its walk may have come and be parked.
    InLine(Option<(Parked, NodeId)>),
    /// It is its turn; the call will come again.
    Turn(Turn),
    /// It was told no; the call will come again to hear it.
    Refused(Errno),
    /// The walk was interrupted; the program may make the call anew.
    Kept,
    /// The call did not come again in time.
    Expired,
    /// The call came again, or never had to wait.
    Done,
}

/// What a thread's ticket means for the call that it makes now.
enum Before {
    /// Nothing: it comes for the first time.
    Nothing,
    Run(Turn),
    Fail(Errno),
    /// Its place was kept; the walk is to come once more.
    WaitAgain(Arc<Ticket>),
    /// It must not be answered ESTALE once more.
    LastTry,
}

impl Parking {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<Ticket>>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether any call waits: then attributes of directories must not be cached.
    pub fn is_in_use(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    fn insert(&self, ticket: Arc<Ticket>) {
        let mut tickets = self.lock();
        tickets.insert(ticket.thread, ticket);
        self.count.store(tickets.len(), Ordering::Release);
    }

    fn remove(&self, ticket: &Arc<Ticket>) {
        let mut tickets = self.lock();
        if tickets.get(&ticket.thread).is_some_and(|known| Arc::ptr_eq(known, ticket)) {
            tickets.remove(&ticket.thread);
        }
        self.count.store(tickets.len(), Ordering::Release);
    }

    fn get(&self, thread: u32) -> Option<Arc<Ticket>> {
        if !self.is_in_use() {
            return None;
        }
        self.lock().get(&thread).cloned()
    }
}

impl View {
    /// Runs a call when it is its turn.
    pub fn wait_outside(&self, call: Call, reply: Reply) {
        match self.before(&call) {
            Before::Nothing => self.ask_and_leave_ticket(call, reply),
            Before::Run(turn) => (call.run)(self, reply, turn, Round::Last),
            Before::Fail(errno) => reply.error(errno),
            Before::WaitAgain(ticket) => ticket.go_outside(self, reply),
            Before::LastTry => {
                let ask = Ask { patience: Patience::Try, ..call.ask };
                self.ask_briefly(ask, reply, Round::Last, call.run);
            }
        }
    }

    /// Lets the walk of a waiting call wait; gives the reply back if it is not such a walk.
    pub fn wait_in_walk(&self, thread: u32, node: NodeId, reply: Reply) -> Option<Reply> {
        match self.parking.get(thread) {
            Some(ticket) if ticket.parents.contains(&node) => ticket.walk(self, node, reply),
            _ => Some(reply),
        }
    }

    /// Takes over the turn of a call that comes back as another: a CREATE whose name exists by
    /// now is issued again as an OPEN.
    pub fn take_ticket(&self, thread: u32) -> Option<Turn> {
        let ticket = self.parking.get(thread)?;
        ticket.withdraw(self)
    }

    fn before(&self, call: &Call) -> Before {
        let Some(ticket) = self.parking.get(call.thread) else { return Before::Nothing };
        if ticket.parents != call.parents || ticket.name != call.name {
            if let Some(turn) = ticket.withdraw(self) {
                self.end_turn(turn, None);
            }
            return Before::Nothing;
        }
        let mut standing = ticket.lock();
        let state = standing.turn_to(State::Done);
        if let State::Kept = state {
            standing.turn_to(State::InLine(None));
            drop(standing);
            return Before::WaitAgain(ticket);
        }
        drop(standing);
        self.parking.remove(&ticket);
        match state {
            State::Turn(turn) => Before::Run(turn),
            State::Refused(errno) => Before::Fail(errno),
            State::Expired => Before::LastTry,
            // The kernel came again without a walk, and must not be sent away a second time.
            State::InLine(_) => {
                ticket.leave_line(self);
                Before::Fail(Errno::AGAIN)
            }
            State::Kept | State::Asked(..) | State::Done => Before::Nothing,
        }
    }

    fn ask_and_leave_ticket(&self, call: Call, reply: Reply) {
        let state = State::Asked(reply, call.check, call.run);
        let ticket = Arc::new(Ticket {
            thread: call.thread,
            parents: call.parents,
            name: call.name,
            owner: OnceLock::new(),
            standing: Mutex::new(Standing { state, since: Instant::now() }),
        });
        self.parking.insert(ticket.clone());
        self.sweep_later();
        let (asking, view) = (ticket.clone(), self.itself());
        let then = move |answer: Answer| match Verdict::of(&answer) {
            Some(verdict) => asking.decided(&view, verdict),
            None => asking.must_wait(&view),
        };
        let owner = ticket.owner.get_or_init(|| self.broker.acquire(call.ask, Box::new(then)));
        // Given up in the meantime; to one that was decided this does nothing.
        if matches!(ticket.lock().state, State::Done | State::Expired) {
            self.broker.withdraw(*owner, Refusal::Interrupted);
        }
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
        let tickets: Vec<Arc<Ticket>> = self.parking.lock().values().cloned().collect();
        let mut still_asked = false;
        for ticket in &tickets {
            let standing = ticket.lock();
            let asked = matches!(standing.state, State::Asked(..));
            let overdue = asked && standing.since.elapsed() >= TRY_MAX;
            drop(standing);
            if overdue {
                ticket.must_wait(self);
            }
            still_asked |= asked && !overdue;
        }
        if still_asked {
            self.sweep_later();
        }
    }
}

impl Standing {
    fn turn_to(&mut self, state: State) -> State {
        self.since = Instant::now();
        std::mem::replace(&mut self.state, state)
    }
}

impl Ticket {
    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker's answer is not yes: the call leaves the kernel's locks, or fails.
    fn must_wait(self: &Arc<Self>, view: &View) {
        let mut standing = self.lock();
        if !matches!(standing.state, State::Asked(..)) {
            return;
        }
        let State::Asked(reply, check, _) = standing.turn_to(State::InLine(None)) else {
            unreachable!("looked at above")
        };
        drop(standing);
        match check(view) {
            Ok(()) => self.go_outside(view, reply),
            Err(errno) => {
                if let Some(turn) = self.withdraw(view) {
                    view.end_turn(turn, None);
                }
                reply.error(errno);
            }
        }
    }

    /// Sends the kernel on its walk.
    fn go_outside(self: &Arc<Self>, view: &View, reply: Reply) {
        for parent in self.parents {
            // Only attributes: that takes no lock that a call in progress could hold.
            if let Err(errno) = view.notifier().inval_inode(parent, Stale::Attributes) {
                tracing::warn!(%errno, ?parent, "attributes could not be declared stale");
            }
        }
        reply.error(Errno::STALE);
        self.expire_later(view);
    }

    fn decided(self: &Arc<Self>, view: &View, verdict: Verdict) {
        let mut standing = self.lock();
        let next = match verdict {
            Verdict::Go(turn) => State::Turn(turn),
            Verdict::Stop(errno) => State::Refused(errno),
        };
        match standing.turn_to(State::Done) {
            State::Asked(reply, _, run) => {
                drop(standing);
                view.parking.remove(self);
                match verdict {
                    Verdict::Go(turn) => run(view, reply, turn, Round::First),
                    Verdict::Stop(errno) => reply.error(errno),
                }
            }
            State::InLine(walk) => {
                standing.turn_to(next);
                drop(standing);
                if let Some((parked, node)) = walk
                    && let Some(reply) = parked.resume()
                {
                    view.answer_walk(node, reply);
                }
                self.expire_later(view);
            }
            State::Kept if matches!(verdict, Verdict::Go(_)) => {
                standing.turn_to(next);
                drop(standing);
                self.expire_later(view);
            }
            other => {
                standing.turn_to(other);
                drop(standing);
                if let Verdict::Go(turn) = verdict {
                    view.end_turn(turn, None);
                }
            }
        }
    }

    /// A GETATTR of the directory by the thread whose call waits.
    fn walk(self: Arc<Self>, view: &View, node: NodeId, reply: Reply) -> Option<Reply> {
        if !matches!(self.lock().state, State::InLine(None)) {
            return Some(reply);
        }
        let (ticket, of) = (self.clone(), view.itself());
        let parked = reply.park(move |reply| {
            ticket.interrupted(&of);
            reply.error(Errno::INTR);
        });
        let mut standing = self.lock();
        if let State::InLine(walk @ None) = &mut standing.state {
            *walk = Some((parked, node));
            return None;
        }
        drop(standing);
        parked.resume()
    }

    /// The walk was interrupted: the program will see EINTR, and may make the call again.
    fn interrupted(self: &Arc<Self>, view: &View) {
        let mut standing = self.lock();
        if let State::InLine(_) = standing.state {
            standing.turn_to(State::Kept);
        }
        drop(standing);
        let (ticket, of) = (self.clone(), view.itself());
        view.timer.after(SEEN_AFTER, move || {
            if !is_alive(ticket.thread)
                && let Some(turn) = ticket.withdraw(&of)
            {
                of.end_turn(turn, None);
            }
        });
        self.expire_later(view);
    }

    fn expire_later(self: &Arc<Self>, view: &View) {
        let (ticket, of) = (self.clone(), view.itself());
        view.timer.after(CLAIMED_WITHIN, move || ticket.expire(&of));
    }

    /// Gives up what nobody came for, and remembers for a while that the thread was sent away.
    fn expire(self: &Arc<Self>, view: &View) {
        let mut standing = self.lock();
        let unclaimed = matches!(
            standing.state,
            State::InLine(None) | State::Turn(_) | State::Refused(_) | State::Kept
        );
        // Since it was armed the ticket may have moved on; then it was armed again.
        if !unclaimed || standing.since.elapsed() < CLAIMED_WITHIN {
            return;
        }
        let before = standing.turn_to(State::Expired);
        drop(standing);
        match before {
            State::Turn(turn) => view.end_turn(turn, None),
            State::InLine(_) => self.leave_line(view),
            State::Kept => {
                self.leave_line(view);
                // The program has had its answer: nothing of the call is outstanding.
                return view.parking.remove(self);
            }
            State::Refused(_) | State::Asked(..) | State::Expired | State::Done => {}
        }
        let (ticket, of) = (self.clone(), view.itself());
        view.timer.after(REMEMBERED_FOR, move || of.parking.remove(&ticket));
    }

    /// Ends a ticket whose call will not come again; returns its turn if it has one.
    fn withdraw(self: &Arc<Self>, view: &View) -> Option<Turn> {
        view.parking.remove(self);
        let mut standing = self.lock();
        let before = standing.turn_to(State::Done);
        drop(standing);
        match before {
            State::Turn(turn) => return Some(turn),
            State::InLine(_) | State::Kept => self.leave_line(view),
            State::Asked(..) | State::Refused(_) | State::Expired | State::Done => {}
        }
        None
    }

    fn leave_line(&self, view: &View) {
        if let Some(owner) = self.owner.get() {
            view.broker.withdraw(*owner, Refusal::Interrupted);
        }
    }
}

fn is_alive(thread: u32) -> bool {
    process::Stat::read(thread).is_some_and(|stat| !matches!(stat.state, b'Z' | b'X'))
}
