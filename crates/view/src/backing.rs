//! Which way the bytes of an open file go: through the kernel's cache and this view, past the
//! cache, or past the view.
//!
//! The kernel knows three ways, and demands one of all handles of a file: while one is *backed* by
//! the source's file, all are, by the same; while one goes through the *cache*, or can be mapped
//! there, none is backed. What is only written passes the cache *directly* and may stand beside either.
//!
//! The cache ends where the kernel takes the file to end, which for a moment may be where it ended
//! before it was changed elsewhere. Who opens a file soon after a change passes the cache.
//!
//! It must hold: no handle that was opened in a turn writes past the view, unless it is known to
//! ([`Way::Unfenced`]): a backed handle cannot be fenced. Of a view that was mounted to be fast
//! ([`Policy::Everything`]) each may; of others what is written comes to the view, and only a mapping
//! of a file that was backed already does not.

use std::collections::hash_map::Entry;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::PoisonError;

use gate_fuse::{Backer, Backing, BackingId, Errno, NodeId, OpenFlags};
use rustc_hash::FxHashMap;

use crate::directory;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// Files from this size on are worth two more system calls at each open: measured, see
/// docs/benchmarks.md.
const BACKED_FROM_BYTES: u64 = 32 * 1024;

/// What may go past the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    Nothing,
    /// What is read, and what is written without a turn.
    Reads,
    /// What is written in a turn, too.
    Everything,
}

/// What a handle is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Read,
    Write,
    ReadWrite,
}

/// A new handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub to: Use,
    /// Bytes of the file.
    pub size: u64,
    /// Whether it is opened in a turn, which may be taken away.
    pub in_turn: bool,
    /// Whether the kernel may take the file for longer or shorter than it is.
    pub size_is_unsure: bool,
}

/// The ways of the files that are open.
pub(crate) struct Ways {
    policy: Policy,
    backer: Option<Backer>,
    /// Whether what is open past the cache can be mapped by several (Linux ≥ 6.6).
    maps_direct: bool,
    /// Set once the kernel has refused for want of privilege.
    refused: AtomicBool,
    files: Mutex<FxHashMap<NodeId, Shared>>,
}

/// The way that the handles of a file share, and how many they are.
struct Shared {
    way: SharedWay,
    handles: usize,
    /// How many of them are [`Way::Unfenced`].
    unfenced: usize,
}

enum SharedWay {
    Cached,
    Backed(Backing, Backed),
}

/// How far a file is backed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backed {
    ToRead,
    ToWrite,
}

/// The way of one handle, to be given back when it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Past the cache, with nothing to map, and nobody's business.
    Direct,
    /// As the other handles of the file.
    Shared,
    /// As the other handles of the file, and what it writes, or stores in a mapping, does not come
    /// to the view.
    Unfenced,
}

/// What the kernel is told of a handle's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub way: Way,
    pub flags: OpenFlags,
    pub backing: Option<BackingId>,
}

impl Use {
    /// Reads the flags of open(2).
    pub fn of(flags: u32) -> Use {
        match flags.cast_signed() & libc::O_ACCMODE {
            libc::O_RDONLY => Use::Read,
            libc::O_WRONLY => Use::Write,
            _ => Use::ReadWrite,
        }
    }

    fn writes(self) -> bool {
        self != Use::Read
    }
}

impl Ways {
    /// `backer` is how files are registered, where the kernel can do that at all.
    pub fn new(policy: Policy, backer: Option<Backer>, maps_direct: bool) -> Ways {
        let refused = AtomicBool::new(false);
        Ways { policy, backer, maps_direct, refused, files: Mutex::default() }
    }

    /// Chooses the way of a new handle of a file, which is open as `file` if it is one of this machine.
    /// `read_write` opens it to be read and written.
    pub fn join(
        &self,
        node: NodeId,
        mut opening: Opening,
        file: Option<BorrowedFd<'_>>,
        read_write: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> Chosen {
        opening.size_is_unsure &= self.maps_direct;
        let alone = !self.lock().contains_key(&node);
        let how = self.wanted(opening).filter(|_| alone);
        let backing = how.and_then(|how| match (how, opening.to) {
            (Backed::ToRead, _) | (Backed::ToWrite, Use::ReadWrite) => self.back(how, Ok(file?)),
            (Backed::ToWrite, _) => {
                let file = read_write();
                self.back(how, file.as_ref().map(AsFd::as_fd).map_err(|errno| *errno))
            }
        });
        let mut files = self.lock();
        let shared = match files.entry(node) {
            // Another handle was faster, or there were some: its way is this one's.
            Entry::Occupied(shared) => shared.into_mut(),
            Entry::Vacant(_) if backing.is_none() && opening.to == Use::Write => {
                return Chosen::direct();
            }
            Entry::Vacant(vacant) => {
                let way =
                    backing.map_or(SharedWay::Cached, |(file, how)| SharedWay::Backed(file, how));
                vacant.insert(Shared { way, handles: 0, unfenced: 0 })
            }
        };
        let told = shared.way.told(opening, self.must_see(opening));
        shared.handles += usize::from(told.way != Way::Direct);
        shared.unfenced += usize::from(told.way == Way::Unfenced);
        told
    }

    /// A handle is gone.
    pub fn leave(&self, node: NodeId, way: Way) {
        if way == Way::Direct {
            return;
        }
        let mut files = self.lock();
        let Entry::Occupied(mut shared) = files.entry(node) else { return };
        shared.get_mut().handles -= 1;
        shared.get_mut().unfenced -= usize::from(way == Way::Unfenced);
        if shared.get().handles == 0 {
            let shared = shared.remove();
            drop(files);
            drop(shared); // Takes the registration back.
        }
    }

    /// Returns whether a file may change without the kernel's telling us.
    pub fn is_written_unseen(&self, node: NodeId) -> bool {
        self.lock().get(&node).is_some_and(|shared| shared.unfenced > 0)
    }

    fn wanted(&self, opening: Opening) -> Option<Backed> {
        match self.policy {
            Policy::Nothing => None,
            Policy::Reads | Policy::Everything if opening.to.writes() => {
                (!self.must_see(opening)).then_some(Backed::ToWrite)
            }
            Policy::Reads | Policy::Everything => {
                (opening.size >= BACKED_FROM_BYTES).then_some(Backed::ToRead)
            }
        }
    }

    /// Returns whether what is written must come to the view.
    fn must_see(&self, opening: Opening) -> bool {
        match self.policy {
            Policy::Nothing => true,
            Policy::Reads => opening.in_turn,
            Policy::Everything => false,
        }
    }

    fn back(&self, how: Backed, file: Result<BorrowedFd<'_>, Errno>) -> Option<(Backing, Backed)> {
        let backer = self.backer.as_ref().filter(|_| !self.refused.load(Ordering::Relaxed))?;
        match file.and_then(|file| directory::back(file, backer)) {
            Ok(backing) => Some((backing, how)),
            Err(errno) => {
                // Everything works without, only slower.
                tracing::debug!(%errno, "the kernel does not read a file itself");
                self.refused.fetch_or(errno == Errno::PERM, Ordering::Relaxed);
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<NodeId, Shared>> {
        // Nothing panics while it is held.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedWay {
    fn told(&self, opening: Opening, must_be_seen: bool) -> Chosen {
        match (self, opening.to) {
            (SharedWay::Cached, Use::Write) => Chosen::direct(),
            (SharedWay::Cached, Use::Read | Use::ReadWrite) => {
                // A mapping of what passes the cache is in the cache all the same.
                let mut flags = OpenFlags::empty();
                flags.set(OpenFlags::DIRECT_IO, opening.size_is_unsure);
                Chosen { way: Way::Shared, flags, backing: None }
            }
            (SharedWay::Backed(backing, how), to) => {
                let mut flags = OpenFlags::PASSTHROUGH;
                let seen = to.writes() && (*how == Backed::ToRead || must_be_seen);
                flags.set(OpenFlags::DIRECT_IO, seen);
                let way = match to {
                    // A mapping of it is one of the source's file, whatever else is seen.
                    Use::ReadWrite => Way::Unfenced,
                    Use::Write if !seen => Way::Unfenced,
                    Use::Read | Use::Write => Way::Shared,
                };
                Chosen { way, flags, backing: Some(backing.id()) }
            }
        }
    }
}

impl Chosen {
    fn direct() -> Chosen {
        Chosen { way: Way::Direct, flags: OpenFlags::DIRECT_IO, backing: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_map_a_file_past_the_cache_counts_among_those_who_share_it() {
        for to in [Use::Read, Use::ReadWrite] {
            let opening = Opening { to, size: 0, in_turn: true, size_is_unsure: true };
            let told = SharedWay::Cached.told(opening, true);
            let shared = Chosen { way: Way::Shared, flags: OpenFlags::DIRECT_IO, backing: None };
            assert_eq!(told, shared, "{to:?}");
        }
    }
}
