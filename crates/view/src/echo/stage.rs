//! What the thread that echoes calls at this moment, and what it is answered.
//!
//! The thread is known by its number, as the kernel tells it with each request: in another pid
//! namespace it may be another one than the thread's own. It is learned by a *proof*: the thread
//! asks, through the mount, for something that only the two know. That tells the thread, too, that
//! the mount which it has reached is the view.
//!
//! Of the thread's calls nothing is done, whatever they are. A call that would reach a node of the
//! source all the same, because the kernel did not ask for its name, is answered ESTALE: then the
//! kernel asks.

use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gate_fuse::{Errno, NodeId, Operation, Request};

/// With what the names of proofs begin.
const PROOF: &[u8] = b"user.gate.echo.";

/// The kernel tells no number of a thread that it cannot see.
const NOBODY: u32 = 0;

/// From here on nodes are stand-ins. Those of the source are counted from 1.
const STAND_IN_FIRST: u64 = 1 << 62;

/// What is between the thread and the view.
#[derive(Debug)]
pub(super) struct Stage {
    thread: AtomicU32,
    scene: Mutex<Scene>,
    next: AtomicU64,
}

/// A name in a directory.
pub(super) type At = (NodeId, CString);

/// What the thread calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scene {
    /// Nothing that would change anything.
    Quiet,
    /// It asks for a name that nobody else knows.
    Proof(CString),
    /// There is nothing of this name; a stand-in is made.
    Making(At),
    /// A stand-in bears this name, and is removed.
    Removing { at: At, kind: Kind, seen: bool },
    /// A stand-in bears the one name, and gets the other, which nothing has.
    Moving { from: At, to: At, kind: Kind, seen: [bool; 2] },
    /// Attributes are set to what they are.
    Touching,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// No directory: nothing more is told of it.
    Other,
}

/// What the thread is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    StandIn(NodeId, Kind),
    /// The attributes of the node.
    AsItIs,
    Refused(Errno),
}

impl Default for Stage {
    fn default() -> Stage {
        Stage {
            thread: AtomicU32::new(NOBODY),
            scene: Mutex::new(Scene::Quiet),
            next: AtomicU64::new(STAND_IN_FIRST),
        }
    }
}

impl Stage {
    /// Plays a scene while `call` lasts.
    pub fn play<T>(&self, scene: Scene, call: impl FnOnce() -> T) -> T {
        *self.lock() = scene;
        let called = call();
        *self.lock() = Scene::Quiet;
        called
    }

    /// Has the thread asked for a name that nobody else knows: whether the view was asked.
    pub fn prove(&self, ask: impl FnOnce(&CStr) -> Result<(), Errno>) -> bool {
        // Seeded by the system, anew for each.
        let secret = [(); 2].map(|()| RandomState::new().hash_one(0_u8));
        let name = [PROOF, format!("{:016x}{:016x}", secret[0], secret[1]).as_bytes()].concat();
        let name = CString::new(name).expect("letters and digits have no NUL");
        self.thread.store(NOBODY, Ordering::Relaxed);
        let asked = self.play(Scene::Proof(name.clone()), || ask(&name));
        asked.is_ok() && self.thread.load(Ordering::Relaxed) != NOBODY
    }

    /// Returns what a request is answered if it is one of the thread, and one that must not be
    /// answered as everybody's are.
    pub fn answer(&self, request: &Request<'_>) -> Option<Answer> {
        let (thread, node) = (request.caller.tid, request.node);
        if let Operation::Getxattr { name, .. } = request.operation
            && name.to_bytes().starts_with(PROOF)
        {
            return self.hear_proof(name, thread);
        }
        if thread == NOBODY || thread != self.thread.load(Ordering::Relaxed) {
            return None;
        }
        let mut scene = self.lock();
        match request.operation {
            Operation::Lookup { name } => self.look_up(&mut scene, (node, name)),
            Operation::Getattr { .. } | Operation::Statx { .. } | Operation::Getxattr { .. } => {
                None
            }
            ref call => Some(self.call(&mut scene, node, call)),
        }
    }

    fn hear_proof(&self, name: &CStr, thread: u32) -> Option<Answer> {
        let is_it = matches!(&*self.lock(), Scene::Proof(wanted) if **wanted == *name);
        is_it.then(|| {
            self.thread.store(thread, Ordering::Relaxed);
            Answer::Done
        })
    }

    fn look_up(&self, scene: &mut Scene, asked: (NodeId, &CStr)) -> Option<Answer> {
        match scene {
            Scene::Making(at) if is(at, asked) => Some(Answer::Refused(Errno::NOENT)),
            Scene::Removing { at, kind, seen } if is(at, asked) => {
                *seen = true;
                Some(self.stand_in(*kind))
            }
            Scene::Moving { from, kind, seen, .. } if is(from, asked) => {
                seen[0] = true;
                Some(self.stand_in(*kind))
            }
            Scene::Moving { to, seen, .. } if is(to, asked) => {
                seen[1] = true;
                Some(Answer::Refused(Errno::NOENT))
            }
            _ => None,
        }
    }

    fn call(&self, scene: &mut Scene, node: NodeId, call: &Operation<'_>) -> Answer {
        match (scene, call) {
            (Scene::Making(at), Operation::Mkdir { name, .. }) if is(at, (node, name)) => {
                self.stand_in(Kind::Directory)
            }
            (Scene::Making(at), Operation::Mknod { name, .. }) if is(at, (node, name)) => {
                self.stand_in(Kind::Other)
            }
            (
                Scene::Removing { at, seen, .. },
                Operation::Unlink { name } | Operation::Rmdir { name },
            ) if is(at, (node, name)) => done_if(*seen),
            (
                Scene::Moving { from, to, seen, .. },
                Operation::Rename { name, new_parent, new_name, .. },
            ) if is(from, (node, name)) && is(to, (*new_parent, new_name)) => {
                done_if(*seen == [true; 2])
            }
            (Scene::Touching, Operation::Setattr(_)) => Answer::AsItIs,
            _ => Answer::Refused(Errno::CANCELED),
        }
    }

    /// A new one each time: it is nobody's but the call's.
    fn stand_in(&self, kind: Kind) -> Answer {
        Answer::StandIn(NodeId(self.next.fetch_add(1, Ordering::Relaxed)), kind)
    }

    fn lock(&self) -> MutexGuard<'_, Scene> {
        // Nothing panics while it is held.
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is((directory, name): &At, asked: (NodeId, &CStr)) -> bool {
    (*directory, name.as_c_str()) == asked
}

/// What was not asked for in this call may be a node of the source.
fn done_if(seen: bool) -> Answer {
    if seen { Answer::Done } else { Answer::Refused(Errno::STALE) }
}

#[cfg(test)]
mod tests {
    use gate_fuse::{Caller, SetAttr, Unique};

    use super::*;

    const THREAD: u32 = 77;

    fn ask(stage: &Stage, tid: u32, operation: Operation<'_>) -> Option<Answer> {
        let caller = Caller { uid: 0, gid: 0, tid, supplementary_gid: None };
        stage.answer(&Request { unique: Unique(2), node: NodeId::ROOT, caller, operation })
    }

    fn proven() -> Stage {
        let stage = Stage::default();
        let asks = |name: &CStr| match ask(&stage, THREAD, Operation::Getxattr { name, size: 1 }) {
            Some(Answer::Done) => Ok(()),
            _ => Err(Errno::NODATA),
        };
        assert!(stage.prove(asks));
        stage
    }

    fn at(name: &CStr) -> At {
        (NodeId::ROOT, name.to_owned())
    }

    #[test]
    fn nobody_is_believed_who_does_not_know_the_name() {
        let stage = Stage::default();
        let guess = Operation::Getxattr { name: c"user.gate.echo.0", size: 1 };
        assert!(!stage.prove(|_| {
            assert_eq!(ask(&stage, THREAD, guess), None);
            Err(Errno::NODATA)
        }));
        // Whom the kernel cannot see it cannot be told from others.
        assert!(!stage.prove(|name| {
            ask(&stage, NOBODY, Operation::Getxattr { name, size: 1 });
            Ok(())
        }));
        let unlink = || Operation::Unlink { name: c"f" };
        assert_eq!(ask(&stage, NOBODY, unlink()), None);
        let stage = proven();
        assert_eq!(ask(&stage, THREAD + 1, unlink()), None);
        assert_eq!(ask(&stage, THREAD, unlink()), Some(Answer::Refused(Errno::CANCELED)));
    }

    #[test]
    fn what_is_made_is_a_stand_in() {
        let stage = proven();
        let look = || Operation::Lookup { name: c"f" };
        let make = |name| Operation::Mknod { name, mode: 0, rdev: 0, umask: 0 };
        assert_eq!(ask(&stage, THREAD, look()), None, "as everybody's");
        stage.play(Scene::Making(at(c"f")), || {
            assert_eq!(ask(&stage, THREAD, look()), Some(Answer::Refused(Errno::NOENT)));
            assert_eq!(ask(&stage, THREAD + 1, look()), None);
            let made = [(); 2].map(|()| ask(&stage, THREAD, make(c"f")));
            assert!(matches!(made[0], Some(Answer::StandIn(_, Kind::Other))));
            assert_ne!(made[0], made[1]);
            let other = ask(&stage, THREAD, make(c"g"));
            assert_eq!(other, Some(Answer::Refused(Errno::CANCELED)));
        });
        assert_eq!(ask(&stage, THREAD, make(c"f")), Some(Answer::Refused(Errno::CANCELED)));
    }

    /// The kernel may remember the name, and would remove what really bears it.
    #[test]
    fn nothing_is_removed_or_moved_that_was_not_asked_for() {
        let stage = proven();
        let look = |name| ask(&stage, THREAD, Operation::Lookup { name });
        let scene = Scene::Removing { at: at(c"f"), kind: Kind::Directory, seen: false };
        stage.play(scene, || {
            let remove = || ask(&stage, THREAD, Operation::Rmdir { name: c"f" });
            assert_eq!(remove(), Some(Answer::Refused(Errno::STALE)));
            assert!(matches!(look(c"f"), Some(Answer::StandIn(_, Kind::Directory))));
            assert_eq!(remove(), Some(Answer::Done));
        });
        let (from, to, kind) = (at(c"f"), at(c"g"), Kind::Other);
        stage.play(Scene::Moving { from, to, kind, seen: [false; 2] }, || {
            let rename = || {
                let (new_parent, new_name) = (NodeId::ROOT, c"g");
                let rename = Operation::Rename { name: c"f", new_parent, new_name, flags: 0 };
                ask(&stage, THREAD, rename)
            };
            assert!(matches!(look(c"f"), Some(Answer::StandIn(_, Kind::Other))));
            assert_eq!(rename(), Some(Answer::Refused(Errno::STALE)));
            assert_eq!(look(c"g"), Some(Answer::Refused(Errno::NOENT)));
            assert_eq!(rename(), Some(Answer::Done));
        });
    }

    #[test]
    fn attributes_stay_as_they_are() {
        let stage = proven();
        let touch = || ask(&stage, THREAD, Operation::Setattr(SetAttr::default()));
        assert_eq!(stage.play(Scene::Touching, touch), Some(Answer::AsItIs));
        assert_eq!(touch(), Some(Answer::Refused(Errno::CANCELED)));
    }
}
