//! Opens of existing files wait in line.
//!
//! The kernel holds no lock while it waits for the answer to OPEN, so the reply simply waits,
//! parked. A signal ends the waiting with EINTR; the place in line is kept for a moment, because
//! many programs ask again at once.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use gate_api::{Answer, Ask};
use gate_core::lock::claim::Process;
use gate_core::lock::event::Refusal;
use gate_core::lock::want::Access;
use gate_fuse::{Errno, NodeId, Parked, Reply};

use crate::sync::{Mutex, MutexGuard};
use crate::turn::{Round, Run, Turn, Verdict};
use crate::view::View;

/// How long an interrupted caller's place in line is kept.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// When it is first seen whether the signal ended the caller rather than its call.
const SEEN_AFTER: Duration = Duration::from_millis(20);

/// Who waits for what: the same again is the same place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Spot {
    pub process: Process,
    pub node: NodeId,
    pub access: Access,
}

/// The places that are kept.
#[derive(Default)]
pub(crate) struct Line(Mutex<HashMap<Spot, Arc<Wait>>>);

/// One place in line.
struct Wait {
    owner: OnceLock<u64>,
    spot: Spot,
    state: Mutex<State>,
}

enum State {
    /// About to be parked.
    Arriving(Run),
    /// The caller waits.
    Waiting(Parked, Run),
    /// It was decided, but the reply is in other hands: it is being parked, or an interrupt has it
    /// and is on its way here.
    Late(Verdict, Run),
    /// The caller was interrupted and may come back.
    Kept,
    /// As before, and it is its turn.
    KeptTurn(Turn),
    Done,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, HashMap<Spot, Arc<Wait>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, spot: &Spot) -> Option<Arc<Wait>> {
        self.lock().remove(spot)
    }

    /// Keeps that place no longer; returns whether it was kept.
    fn forget(&self, wait: &Arc<Wait>) -> bool {
        let mut kept = self.lock();
        let is_kept = kept.get(&wait.spot).is_some_and(|other| Arc::ptr_eq(other, wait));
        if is_kept {
            kept.remove(&wait.spot);
        }
        is_kept
    }
}

impl View {
    /// Runs an open when it is its turn.
    pub fn wait_in_line(&self, spot: Spot, ask: Ask, reply: Reply, run: Run) {
        if let Some(kept) = self.line.take(&spot) {
            match kept.resume(self, reply, run) {
                Resumed::Yes => return,
                Resumed::No(reply, run) => return self.join_line(spot, ask, reply, run),
            }
        }
        self.join_line(spot, ask, reply, run);
    }

    fn join_line(&self, spot: Spot, ask: Ask, reply: Reply, run: Run) {
        let state = Mutex::new(State::Arriving(run));
        let wait = Arc::new(Wait { owner: OnceLock::new(), spot, state });
        if !wait.park(self, reply) {
            return;
        }
        let (asking, view) = (wait.clone(), self.itself());
        let then = move |answer: Answer| {
            if let Some(verdict) = Verdict::of(&answer) {
                asking.decided(&view, verdict);
            }
        };
        let owner = wait.owner.get_or_init(|| self.broker.acquire(ask, Box::new(then)));
        // Given up in the meantime; to one that was decided this does nothing.
        if matches!(*wait.lock(), State::Done) {
            self.broker.withdraw(*owner, Refusal::Interrupted);
        }
    }
}

impl Verdict {
    /// Lets a caller that waited in line hear it.
    fn reach(self, view: &View, reply: Reply, run: Run) {
        match self {
            Verdict::Go(turn) => run(view, reply, turn, Round::First),
            Verdict::Stop(errno) => reply.error(errno),
        }
    }
}

/// Whether a kept place could be taken up again.
enum Resumed {
    Yes,
    No(Reply, Run),
}

impl Wait {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parks the reply of a place in state `Arriving`; false if a signal was faster. A place that
    /// was kept may be decided meanwhile.
    fn park(self: &Arc<Self>, view: &View, reply: Reply) -> bool {
        let (wait, of) = (self.clone(), view.itself());
        // Without the state's lock: an interrupt that came before is delivered in here.
        let parked = reply.park(move |reply| wait.interrupted(&of, reply));
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Done) {
            State::Arriving(run) => *state = State::Waiting(parked, run),
            State::Late(verdict, run) => match parked.resume() {
                Some(reply) => {
                    drop(state);
                    verdict.reach(view, reply, run);
                }
                None => *state = State::Late(verdict, run),
            },
            _ => return false,
        }
        true
    }

    fn decided(self: &Arc<Self>, view: &View, verdict: Verdict) {
        let mut state = self.lock();
        match (std::mem::replace(&mut *state, State::Done), verdict) {
            (State::Waiting(parked, run), _) => match parked.resume() {
                Some(reply) => {
                    drop(state);
                    verdict.reach(view, reply, run);
                }
                None => *state = State::Late(verdict, run),
            },
            (State::Arriving(run), _) => *state = State::Late(verdict, run),
            (State::Kept, Verdict::Go(turn)) => *state = State::KeptTurn(turn),
            (_, Verdict::Go(turn)) => {
                drop(state);
                view.end_turn(turn, None);
            }
            (_, Verdict::Stop(_)) => {
                drop(state);
                view.line.forget(self);
            }
        }
    }

    fn interrupted(self: &Arc<Self>, view: &View, reply: Reply) {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Done) {
            // It was decided before the signal came.
            State::Late(verdict, run) => {
                drop(state);
                return verdict.reach(view, reply, run);
            }
            State::Waiting(..) => {
                *state = State::Kept;
                drop(state);
                self.keep(view);
            }
            State::Arriving(_) | State::Done => {}
            kept @ (State::Kept | State::KeptTurn(_)) => *state = kept,
        }
        reply.error(Errno::INTR);
    }

    fn keep(self: &Arc<Self>, view: &View) {
        let before = view.line.lock().insert(self.spot, self.clone());
        if let Some(other) = before {
            other.give_up(view);
        }
        let (wait, of) = (self.clone(), view.itself());
        view.timer.after(SEEN_AFTER, move || {
            if !gate_api::process::is_alive(wait.spot.process) {
                wait.leave(&of);
            }
        });
        let (wait, of) = (self.clone(), view.itself());
        view.timer.after(KEPT_FOR, move || wait.leave(&of));
    }

    /// Gives up a place that is still kept for this caller.
    fn leave(self: &Arc<Self>, view: &View) {
        if view.line.forget(self) {
            self.give_up(view);
        }
    }

    fn give_up(&self, view: &View) {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Done) {
            State::Kept => {
                drop(state);
                self.withdraw(view);
            }
            State::KeptTurn(turn) => {
                drop(state);
                view.end_turn(turn, None);
            }
            other => *state = other,
        }
    }

    fn withdraw(&self, view: &View) {
        if let Some(owner) = self.owner.get() {
            view.broker.withdraw(*owner, Refusal::Interrupted);
        }
    }

    /// Takes up a kept place with a new request of the same caller.
    fn resume(self: &Arc<Self>, view: &View, reply: Reply, run: Run) -> Resumed {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Done) {
            State::Kept => {
                *state = State::Arriving(run);
                drop(state);
                if !self.park(view, reply) {
                    self.withdraw(view);
                }
                Resumed::Yes
            }
            State::KeptTurn(turn) => {
                drop(state);
                if view.stands(turn) {
                    run(view, reply, turn, Round::First);
                    return Resumed::Yes;
                }
                view.end_turn(turn, None);
                Resumed::No(reply, run)
            }
            _ => Resumed::No(reply, run),
        }
    }
}
