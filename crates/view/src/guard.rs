//! The guard against lost updates.
//!
//! An agent that overwrites a file (opens it with `O_TRUNC`, renames another over it, truncates
//! it by path) which it has not seen as it is now would destroy what somebody else wrote, without
//! anybody noticing. By the view's [`Policy`] what it destroys is kept first, or it is told EBUSY.
//! Ordinary processes are not guarded, nor are `O_APPEND`, names that are not gated, and what
//! lies in a `.git` directory: git has a way of its own to be sure.
//!
//! [`memory`] is the pure half: who has seen what. [`keeper`] copies, on a thread of its own and
//! while the reply waits, parked; nothing of the view is locked meanwhile.

mod keeper;
mod memory;

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gate_core::lock::want::Op;
use gate_fuse::{Errno, NodeId, Reply, SetAttr};
use rustix::fs::FileType;

use crate::agent::Agent;
use crate::directory::{Directory, Pinned, Sighting};
use crate::handles::{Handle, User};
use crate::kept::{Place, Take, Went};
use crate::policy::Gating;
use crate::turn::Turn;
use crate::view::View;
use keeper::{Event, Job, Keeper};
use memory::{BOUNDS, Memory, Writers};

/// What happens when an agent overwrites what it has not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// What it destroys is kept first.
    #[default]
    Keep,
    /// It is told EBUSY, and nothing is changed.
    Refuse,
    /// Nothing.
    Allow,
}

/// The guard of a view whose policy is not to allow everything.
pub(crate) struct Guard {
    /// Rather than keep.
    refuses: bool,
    /// Whether any agent has come yet.
    in_use: AtomicBool,
    memory: Mutex<Memory>,
    keeper: Keeper,
    directory: Arc<Directory>,
}

/// An operation that leaves less of a file than there was.
pub(crate) struct Overwrite {
    pub agent: Option<Arc<Agent>>,
    pub op: Op,
    pub victim: Victim,
    /// How many bytes of it stay.
    pub stay: u64,
}

/// What is to be overwritten.
pub(crate) enum Victim {
    Node(NodeId),
    Name(NodeId, CString),
    /// What was at the second name, and is at the first since.
    Moved((NodeId, CString), (NodeId, CString)),
}

/// What the guard has looked at before it let an overwrite go on, if that is for it to judge.
pub(crate) type Judged = Option<Sighting>;

/// How an open deals with what was in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opens {
    ToRead,
    /// And not to read.
    ToWrite,
    /// It is new, or was emptied.
    Empty,
}

/// What the guard says of an overwrite.
enum Ruling {
    Pass(Judged),
    Refuse(Pinned, Event),
    Keep(Pinned, Event),
}

impl Guard {
    /// Makes the guard of a view, if its policy needs one.
    pub fn start(
        policy: Policy,
        place: Place,
        directory: &Arc<Directory>,
    ) -> io::Result<Option<Guard>> {
        if policy == Policy::Allow {
            return Ok(None);
        }
        Ok(Some(Guard {
            refuses: policy == Policy::Refuse,
            in_use: AtomicBool::new(false),
            memory: Mutex::new(Memory::new(BOUNDS)),
            keeper: Keeper::start(place)?,
            directory: directory.clone(),
        }))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing panics while it is held.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// Notes that a file was opened in a turn. Who opens without one, because the name is not gated or
    /// an idle writer is passed, would only push out of memory what matters.
    pub fn guard_open(&self, node: NodeId, user: &User, opens: Opens) {
        let (Some(guard), Some(agent)) = (&self.guard, &user.agent) else { return };
        guard.in_use.store(true, Ordering::Relaxed);
        let Ok(now) = guard.directory.sighting(node) else { return };
        let writers = self.writers(Some(node));
        let mut memory = guard.memory();
        match opens {
            Opens::ToRead => memory.opened_to_read(agent, now, writers),
            Opens::ToWrite => memory.opened_to_write(now, writers),
            Opens::Empty => memory.emptied(agent, now),
        }
    }

    /// Notes that a handle will not be written any more; while its turn still stands.
    pub fn guard_end(&self, handle: &Handle) {
        // What was fenced has written nothing since others came.
        if handle.user.writes && !handle.fence.is_shut() {
            self.guard_change(handle.user.agent.as_ref(), handle.node);
        }
    }

    /// Notes that somebody has changed what is in a file.
    pub fn guard_change(&self, agent: Option<&Arc<Agent>>, node: NodeId) {
        if let Some(guard) = self.guard_in_use()
            && let Ok(now) = guard.directory.sighting(node)
        {
            match agent.filter(|_| now.stamp.size == 0) {
                Some(agent) => guard.memory().emptied(agent, now),
                None => guard.memory().changed(agent, now),
            }
        }
    }

    /// Sets attributes of a file. That its times are set does not change what is in it.
    pub fn guard_setattr<T>(
        &self,
        agent: Option<&Arc<Agent>>,
        (node, change): (NodeId, &SetAttr),
        set: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let sets_times = change.atime.is_some() || change.mtime.is_some();
        let Some(guard) = self.guard_in_use().filter(|_| sets_times || change.size.is_some())
        else {
            return set();
        };
        let before = guard.directory.sighting(node);
        let done = set()?;
        match (change.size, before, guard.directory.sighting(node)) {
            (Some(_), _, _) => self.guard_change(agent, node),
            (None, Ok(before), Ok(after)) => guard.memory().times_set(before, after),
            (None, _, _) => {}
        }
        Ok(done)
    }

    /// Runs what overwrites a file, as the policy says.
    pub fn overwrite(
        &self,
        overwrite: Overwrite,
        (turn, reply): (Turn, Reply),
        run: impl FnOnce(&View, Reply, Turn, Judged) + Send + 'static,
    ) {
        let Some(guard) = &self.guard else { return run(self, reply, turn, None) };
        match self.rule(guard, &overwrite) {
            Ruling::Pass(judged) => run(self, reply, turn, judged),
            Ruling::Refuse(victim, event) => {
                self.end_turn(turn, None);
                reply.error(Errno::BUSY);
                guard.keeper.hand(Job::Refused { victim: victim.descriptor, event });
            }
            Ruling::Keep(victim, event) => {
                let parked = reply.park(|reply| reply.error(Errno::INTR));
                let view = self.itself();
                let judged = Some(victim.sighting);
                let then = move || match parked.resume() {
                    Some(reply) if view.stands(turn) => {
                        run(&view, reply, turn, judged);
                        Went::Ahead
                    }
                    // It was interrupted, or its turn was taken away.
                    late => {
                        view.end_turn(turn, None);
                        late.into_iter().for_each(|reply| reply.error(Errno::IO));
                        Went::Nowhere
                    }
                };
                let take = self.take(&overwrite);
                let then = Box::new(then);
                guard.keeper.hand(Job::Keep { victim: victim.descriptor, take, event, then });
            }
        }
    }

    /// Keeps what turns out to have been overwritten unseen: it is too late to refuse.
    pub fn overwritten(&self, overwrite: Overwrite, then: impl FnOnce(&View) + Send + 'static) {
        let Some(guard) = &self.guard else { return then(self) };
        match self.rule(guard, &overwrite) {
            Ruling::Pass(_) => then(self),
            Ruling::Refuse(victim, event) | Ruling::Keep(victim, event) => {
                let view = self.itself();
                let then = Box::new(move || {
                    then(&view);
                    Went::Ahead
                });
                let take = self.take(&overwrite);
                guard.keeper.hand_over(Job::Keep { victim: victim.descriptor, take, event, then });
            }
        }
    }

    fn rule(&self, guard: &Guard, overwrite: &Overwrite) -> Ruling {
        let Some(agent) = &overwrite.agent else { return Ruling::Pass(None) };
        let (path, pinned) = match &overwrite.victim {
            Victim::Node(node) => (self.source.book().path_of(*node), guard.directory.pin(*node)),
            Victim::Name(parent, name) => {
                (self.path_in(*parent, name), guard.directory.pin_name(*parent, name))
            }
            Victim::Moved(at, of) => {
                (self.path_in(of.0, &of.1), guard.directory.pin_name(at.0, &at.1))
            }
        };
        // What has no name, or cannot be found, is nobody's to lose.
        let (Some(path), Ok(victim)) = (path, pinned) else { return Ruling::Pass(None) };
        let is_exempt = self.gating(Some(&path)) == Gating::None || is_in_git(&path);
        if is_exempt || victim.kind != FileType::RegularFile {
            return Ruling::Pass(None);
        }
        let loses = victim.sighting.stamp.size > overwrite.stay;
        let writers = self.writers(self.node_of(&overwrite.victim));
        if !loses || guard.memory().has_seen(agent, victim.sighting, writers) {
            return Ruling::Pass(Some(victim.sighting));
        }
        let path = Path::new(OsStr::from_bytes(&path)).to_owned();
        let event = Event { path, agent: agent.clone(), op: overwrite.op, view: self.itself() };
        match guard.refuses {
            true => Ruling::Refuse(victim, event),
            false => Ruling::Keep(victim, event),
        }
    }

    /// One that somebody writes must not be kept by its name: it would change.
    fn take(&self, overwrite: &Overwrite) -> Take {
        match (&overwrite.victim, self.writers(self.node_of(&overwrite.victim))) {
            // Whoever writes what was replaced already is to find it kept as well.
            (Victim::Name(..), Writers::None) | (Victim::Moved(..), _) => Take::Link,
            (Victim::Name(..), Writers::Some) | (Victim::Node(_), _) => Take::Copy,
        }
    }

    fn node_of(&self, victim: &Victim) -> Option<NodeId> {
        match victim {
            Victim::Node(node) => Some(*node),
            Victim::Name(parent, name) => self.source.book().known(*parent, name),
            Victim::Moved(..) => None,
        }
    }

    fn writers(&self, node: Option<NodeId>) -> Writers {
        match node.is_some_and(|node| self.handles.is_written(node)) {
            true => Writers::Some,
            false => Writers::None,
        }
    }

    fn guard_in_use(&self) -> Option<&Guard> {
        self.guard.as_ref().filter(|guard| guard.in_use.load(Ordering::Relaxed))
    }
}

fn is_in_git(path: &[u8]) -> bool {
    let mut names = path.rsplit(|byte| *byte == b'/').skip(1);
    names.any(|name| name == b".git")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_git_directory_is_gits() {
        for path in [".git/index", "sub/.git/refs/heads/main"] {
            assert!(is_in_git(path.as_bytes()), "{path}");
        }
        for path in [".git", "sub/.git", ".github/x", "a.git/x"] {
            assert!(!is_in_git(path.as_bytes()), "{path}");
        }
    }
}
