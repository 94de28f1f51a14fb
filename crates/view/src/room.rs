//! Room for nodes: every one that the kernel knows holds a descriptor, and those are limited.
//!
//! The kernel keeps what it once looked up until its own memory runs short. Long before that,
//! above a mark, a thread asks it to forget what nobody has open, the oldest first; it answers with
//! FORGETs, which free descriptors. What is in use all the same (by `O_PATH`, as a socket, or as the
//! directory that a process works in) just stays known.
//!
//! Before Linux 6.18 it can only be asked to drop names, and only those of files: a directory that
//! a process works in would lose its path. The thread is nobody else's: such a notification waits
//! for the lock of the directory, which the kernel holds while a lookup or a creation in it is not
//! answered.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gate_fuse::{Errno, NodeId};
use rustix::fs::FileType;

use crate::nodes::{Idle, Population};
use crate::view::View;

/// How often a lookup that found no descriptor is tried again: for seconds in all, because on a
/// busy machine the kernel's FORGETs come late. It holds the lock of its directory meanwhile: if
/// what could be forgotten is all in there, it fails.
pub(crate) const TRIES: u32 = 70;

/// How long such a lookup waits before the first of these tries, and then twice as long each time.
const PAUSE: Duration = Duration::from_millis(2);

/// How long it waits before a try at most.
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// Returns how long a lookup waits that has so many tries left.
pub(crate) fn pause(tries: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(TRIES.saturating_sub(tries));
    PAUSE.saturating_mul(doubled).min(PAUSE_MAX)
}

/// The room of a view. Dropping it ends the thread.
pub(crate) struct Room {
    marks: Marks,
    /// How many nodes must ever have been made before the next sweep.
    due: AtomicU64,
    bell: Arc<Bell>,
}

/// Numbers of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    /// A sweep leaves so many.
    ample: usize,
    /// More make a sweep.
    short: usize,
    /// With more, nothing is looked up that was not asked for.
    scarce: usize,
    /// So many are made from one sweep to the next, so that the kernel's answers come between
    /// and a view full of what cannot be forgotten is not searched all the time.
    stride: u64,
}

/// Returns how many files a view with so many descriptors knows before it has some forgotten.
pub fn files_at_ease(descriptors: u64) -> usize {
    Marks::of(descriptors).short
}

/// What wakes the thread.
#[derive(Default)]
struct Bell {
    wanted: Mutex<Wanted>,
    rung: Condvar,
    sweeping: AtomicBool,
    /// The last sweep that was asked for found nothing that the kernel could forget.
    barren: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wanted {
    #[default]
    Nothing,
    Sweep,
    End,
}

impl Room {
    /// Measures the room that so many descriptors give.
    pub fn new(descriptors: u64) -> Room {
        Room { marks: Marks::of(descriptors), due: AtomicU64::new(0), bell: Arc::default() }
    }

    /// Has room made if it got short.
    pub fn mind(&self, population: Population) {
        let due = self.due.load(Ordering::Relaxed);
        if population.known > self.marks.short && population.ever >= due {
            self.due.store(population.ever + self.marks.stride, Ordering::Relaxed);
            self.make();
        }
    }

    /// Has room made.
    pub fn make(&self) {
        self.bell.barren.store(false, Ordering::Relaxed);
        self.bell.ring(Wanted::Sweep);
    }

    /// Returns whether no room could be made: all that is known is open.
    pub fn is_barren(&self) -> bool {
        self.bell.barren.load(Ordering::Relaxed)
    }

    /// Returns whether what is left is for what must be.
    pub fn is_scarce(&self, population: Population) -> bool {
        population.known > self.marks.scarce
    }

    /// Returns whether who makes a node should let the thread that makes room go first.
    pub fn is_pressed(&self, population: Population) -> bool {
        self.is_scarce(population) && self.bell.sweeping.load(Ordering::Relaxed)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.bell.ring(Wanted::End);
    }
}

impl Marks {
    /// A quarter is left for open files and everything else.
    fn of(descriptors: u64) -> Marks {
        let quarter = usize::try_from(descriptors / 4).unwrap_or(usize::MAX / 4);
        Marks { ample: quarter, short: 2 * quarter, scarce: 3 * quarter, stride: descriptors / 16 }
    }
}

impl Bell {
    fn ring(&self, wanted: Wanted) {
        *self.lock() = wanted;
        self.rung.notify_one();
    }

    /// Waits for the next ring; false at the end.
    fn wait(&self) -> bool {
        let silent = |wanted: &mut Wanted| *wanted == Wanted::Nothing;
        let wanted = self.rung.wait_while(self.lock(), silent);
        let mut wanted = wanted.unwrap_or_else(PoisonError::into_inner);
        if *wanted == Wanted::End {
            return false;
        }
        *wanted = Wanted::Nothing;
        true
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the kernel is asked to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forget {
    /// Nodes, of which it keeps those in use.
    ByNode,
    /// Names of files, in use or not.
    ByName,
}

/// Starts the thread that makes room in a view.
pub(crate) fn start(view: &Arc<View>) -> std::io::Result<()> {
    let (bell, view) = (view.room.bell.clone(), Arc::downgrade(view));
    let run = move || {
        let (mut swept, mut how) = (NodeId::ROOT, Forget::ByNode);
        while bell.wait() {
            let Some(view) = view.upgrade() else { return };
            bell.sweeping.store(true, Ordering::Relaxed);
            let idle = idle(&view, swept);
            bell.barren.store(idle.is_empty(), Ordering::Relaxed);
            swept = idle.last().map_or(swept, |idle| idle.node);
            how = sweep(&view, &idle, how);
            bell.sweeping.store(false, Ordering::Relaxed);
        }
    };
    std::thread::Builder::new().name("view-forgetter".into()).spawn(run)?;
    Ok(())
}

/// Finds what the kernel is to forget, from the node after `swept` on: what it keeps is not asked
/// for again before all others were. If few are known and descriptors are short all the same, it
/// is half of them.
fn idle(view: &View, swept: NodeId) -> Vec<Idle> {
    let known = view.source.book().population().known;
    let excess = known.saturating_sub(view.room.marks.ample).max(known.div_ceil(2));
    view.source.book().idle(swept, excess, &|node| view.handles.is_open(node))
}

/// Asks the kernel to forget nodes, and returns how it is asked from now on.
fn sweep(view: &View, idle: &[Idle], how: Forget) -> Forget {
    if how == Forget::ByNode {
        match view.notifier().prune(&leaves_first(idle)) {
            Err(Errno::INVAL) => {}
            Err(errno) => {
                tracing::debug!(%errno, "the kernel does not forget");
                return how;
            }
            Ok(()) => return how,
        }
    }
    for idle in idle.iter().filter(|idle| idle.kind != FileType::Directory) {
        if view.handles.is_open(idle.node) {
            continue; // It was opened since.
        }
        for (parent, name) in &idle.places {
            if let Err(errno) = view.notifier().inval_entry(*parent, name) {
                tracing::debug!(%errno, node = ?idle.node, "the kernel does not forget");
            }
        }
    }
    Forget::ByName
}

/// A directory can be forgotten once all in it is; those that were found last are the deepest.
fn leaves_first(idle: &[Idle]) -> Vec<NodeId> {
    let of_kind = |is_directory| {
        let nodes =
            idle.iter().filter(move |idle| (idle.kind == FileType::Directory) == is_directory);
        nodes.map(|idle| idle.node)
    };
    of_kind(false).chain(of_kind(true).rev()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_is_due_above_the_mark_and_then_once_in_a_stride() {
        let room = Room::new(1024);
        let rings = |known, ever| {
            room.mind(Population { known, ever });
            std::mem::take(&mut *room.bell.lock()) == Wanted::Sweep
        };
        assert!(!rings(512, 600));
        assert!(rings(513, 601) && !rings(514, 602) && !rings(576, 664));
        assert!(rings(577, 665));
        assert!(!rings(400, 5_000) && rings(600, 5_200));
    }

    /// A busy machine is slow, and not out of descriptors; a full one is not to hang.
    #[test]
    fn a_lookup_waits_for_seconds_and_not_for_minutes() {
        let waited: Duration = (1..=TRIES).map(pause).sum();
        assert!((Duration::from_secs(3)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
        assert_eq!(pause(TRIES), PAUSE);
    }

    #[test]
    fn names_are_listed_bare_when_room_is_scarce() {
        let room = Room::new(1024);
        let scarce = |known| room.is_scarce(Population { known, ever: 1_000 });
        assert!(!scarce(768) && scarce(769));
    }
}
