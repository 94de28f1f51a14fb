//! An open by name is an open of the file that bears the name when it is let in.
//!
//! While an open waits those before it may replace the file, as a save by rename does; but the
//! kernel has long found its node. So in its turn the name is looked at once more. If another file
//! bears it the open takes a turn on that one, and ESTALE makes the kernel walk the path anew; the
//! turn is kept for the open that comes back from the walk. That is said once only: a second
//! ESTALE would reach the program. A rename waits for no reader and may come between once more, so
//! who reads then gets the file that the kernel walked to.
//!
//! A node that bears no name at all was found before that went to another, or by none, as /proc/PID/fd
//! leads to files: only a walk tells.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use gate_core::lock::key::FileKey;
use gate_core::lock::want::Access;
use gate_fuse::NodeId;

use crate::sync::{Mutex, MutexGuard, now};
use crate::turn::{Round, Turn};
use crate::view::View;

/// How soon the kernel is back from a walk.
const WALKED_WITHIN: Duration = Duration::from_secs(1);

/// The threads whose opens were sent to walk their path once more.
#[derive(Default)]
pub(crate) struct Walkers(Mutex<HashMap<u32, Walk>>);

/// A walk.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    /// The node that had lost its name; `None` if nothing was to have it.
    pub node: Option<NodeId>,
    /// The name.
    name: (NodeId, CString),
    /// The turn for who comes back.
    pub kept: Option<Kept>,
    since: Instant,
}

/// A turn on the file that bears the name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub file: FileKey,
    pub access: Access,
    pub turn: Turn,
}

impl Walk {
    pub fn new(node: Option<NodeId>, name: (NodeId, CString), kept: Option<Kept>) -> Walk {
        Walk { node, name, kept, since: now() }
    }
}

impl Walkers {
    /// Returns the walk from which a thread comes, if it was on one.
    pub fn back(&self, thread: u32) -> Option<Walk> {
        self.lock().remove(&thread)
    }

    /// Returns the walk from which a thread comes to that name.
    fn back_at(&self, thread: u32, name: &(NodeId, CString)) -> Option<Walk> {
        let mut walks = self.lock();
        walks.get(&thread).filter(|walk| walk.name == *name)?;
        walks.remove(&thread)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Walk>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// Returns the round of a call by name; an open whose name is gone comes back as a CREATE.
    pub fn round_of(&self, thread: u32, name: &(NodeId, CString)) -> Round {
        let Some(walk) = self.walkers.back_at(thread, name) else { return Round::First };
        if let Some(kept) = walk.kept {
            self.end_turn(kept.turn, None);
        }
        Round::Last
    }

    /// Returns the turn that was kept for an open, unless it came to another file.
    pub fn kept_for(&self, node: NodeId, access: Access, kept: Kept) -> Option<Turn> {
        let file = self.source.file_key(node);
        if (file, access) == (Ok(kept.file), kept.access) && self.stands(kept.turn) {
            return Some(kept.turn);
        }
        self.end_turn(kept.turn, None);
        None
    }

    /// Notes that a thread will walk; if it finds nothing to open its turn ends soon.
    pub fn send_to_walk(&self, thread: u32, walk: Walk) {
        let (kept, since) = (walk.kept, walk.since);
        let before = self.walkers.lock().insert(thread, walk);
        if let Some(kept) = before.and_then(|before| before.kept) {
            self.end_turn(kept.turn, None);
        }
        let view = self.itself();
        self.timer.after(WALKED_WITHIN, move || {
            let mut walkers = view.walkers.lock();
            if walkers.get(&thread).is_none_or(|known| known.since != since) {
                return;
            }
            walkers.remove(&thread);
            drop(walkers);
            if let Some(kept) = kept {
                view.end_turn(kept.turn, None);
            }
        });
    }
}
