//! Chunks that were opened last, so that who reads one piece by piece opens it once.
//!
//! What was not asked for longest goes first. A chunk is known by its address and its key: whoever names the one
//! with another key is given nothing that he could not open. Of several who want one at once, one opens it, and the
//! others wait for that.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
#[cfg(not(feature = "shuttle"))]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(feature = "shuttle")]
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use gate_core::tree::op::ChunkRef;
#[cfg(feature = "shuttle")]
use shuttle::sync::{Mutex, MutexGuard};

use crate::seal::Plain;

#[cfg(all(test, feature = "shuttle"))]
mod races;

/// Opened chunks, within bounds.
pub(super) struct Opened {
    kept: Mutex<Kept>,
}

/// What is kept of the chunks that were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// So many bytes at most.
    pub bytes_max: usize,
    /// So long at most since it was last asked for; it goes when another is kept or looked for, or by
    /// [`Vault::let_go_of_old`](super::Vault::let_go_of_old).
    pub age_max: Duration,
}

struct Kept {
    bounds: Cache,
    /// Each by its whole reference, with the turn in which it was last asked for.
    chunks: HashMap<ChunkRef, (u64, Arc<Plain>)>,
    /// Those that somebody opens just now.
    opening: HashMap<ChunkRef, Arc<Mutex<Option<Arc<Plain>>>>>,
    turns: BTreeMap<u64, (ChunkRef, Instant)>,
    turn: u64,
    bytes: usize,
}

/// Chunks that are kept no more. They go after the lock: to give memory back takes longer than all that is done under it.
type Gone = Vec<Arc<Plain>>;

/// How many know of a turn for which nobody waits: who has it, and the list of them.
const ALONE: usize = 2;

impl Opened {
    pub(super) fn new(bounds: Cache) -> Opened {
        let (chunks, opening, turns) = (HashMap::new(), HashMap::new(), BTreeMap::new());
        Opened { kept: Mutex::new(Kept { bounds, chunks, opening, turns, turn: 0, bytes: 0 }) }
    }

    /// Keeps within other bounds from now on.
    pub(super) fn set_bounds(&self, bounds: Cache) {
        let mut gone = Gone::new();
        let mut kept = self.lock();
        kept.bounds = bounds;
        kept.trim(0, Instant::now(), &mut gone);
    }

    /// Lets go of what is too old; returns whether there was any.
    pub(super) fn let_go_of_old(&self, now: Instant) -> bool {
        let mut gone = Gone::new();
        self.lock().trim(0, now, &mut gone);
        !gone.is_empty()
    }

    /// Returns how much is kept at most.
    pub(super) fn bytes_max(&self) -> usize {
        self.lock().bounds.bytes_max
    }

    /// Returns all of a chunk: what is kept of it, or what opening it gives.
    pub(super) fn get_or_open<E>(
        &self,
        whole: &ChunkRef,
        open: impl FnOnce() -> Result<Arc<Plain>, E>,
    ) -> Result<Arc<Plain>, E> {
        let mut gone = Gone::new();
        let turn = {
            let mut kept = self.lock();
            if let Some(found) = kept.find(whole, &mut gone) {
                return Ok(found);
            }
            Arc::clone(kept.opening.entry(*whole).or_default())
        };
        let mut opened = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*opened {
            return Ok(Arc::clone(found));
        }
        let outcome = open();
        let mut kept = self.lock();
        match &outcome {
            Ok(chunk) => {
                kept.keep(whole, chunk, &mut gone);
                kept.opening.remove(whole);
                // Nobody else waits until those are awake who wait for this one.
                drop(kept);
                *opened = Some(Arc::clone(chunk));
            }
            Err(_) => {
                drop(opened);
                // Who waits for this one has its turn, and whoever comes meanwhile waits with him.
                if Arc::strong_count(&turn) == ALONE {
                    kept.opening.remove(whole);
                }
                // Before the next counts.
                drop(turn);
            }
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn find(&mut self, whole: &ChunkRef, gone: &mut Gone) -> Option<Arc<Plain>> {
        let now = Instant::now();
        self.trim(0, now, gone);
        let (turn, chunk) = self.chunks.get_mut(whole)?;
        self.turns.remove(turn);
        self.turn += 1;
        *turn = self.turn;
        self.turns.insert(*turn, (*whole, now));
        Some(Arc::clone(chunk))
    }

    /// Keeps a chunk, and lets go of what that leaves no room for.
    fn keep(&mut self, whole: &ChunkRef, chunk: &Arc<Plain>, gone: &mut Gone) {
        let (bytes, now) = (chunk.memory(), Instant::now());
        if bytes > self.bounds.bytes_max || self.chunks.contains_key(whole) {
            return;
        }
        self.trim(bytes, now, gone);
        self.turn += 1;
        self.bytes += bytes;
        self.turns.insert(self.turn, (*whole, now));
        self.chunks.insert(*whole, (self.turn, Arc::clone(chunk)));
    }

    /// Lets go of what is too old, and of what leaves no room for so many bytes more.
    fn trim(&mut self, bytes: usize, now: Instant, gone: &mut Gone) {
        while let Some(oldest) = self.turns.first_entry() {
            let is_old = now.duration_since(oldest.get().1) > self.bounds.age_max;
            if !is_old && self.bytes + bytes <= self.bounds.bytes_max {
                return;
            }
            let (oldest, _) = oldest.remove();
            let (_, chunk) = self.chunks.remove(&oldest).expect("what has a turn is kept");
            self.bytes -= chunk.memory();
            gone.push(chunk);
        }
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "opened chunks, kept within {:?}", self.lock().bounds)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use gate_core::tree::id::Address;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn whole(n: u8) -> ChunkRef {
        ChunkRef { address: Address([n; 32]), key: [n; 32], plain_len: 10, from: 0, len: 10 }
    }

    /// Keeps some bytes under a number.
    fn keep(opened: &Opened, n: u8, len: usize) {
        let chunk = Arc::new(Plain::of(vec![7; len]));
        let Ok(_) = opened.get_or_open(&whole(n), || Ok::<_, Infallible>(chunk));
    }

    /// Returns what is kept, and how many bytes that is.
    fn kept(opened: &Opened) -> (Vec<u8>, usize) {
        let kept = opened.lock();
        assert!(kept.opening.is_empty());
        let mut found: Vec<u8> = kept.chunks.keys().map(|chunk| chunk.key[0]).collect();
        found.sort_unstable();
        (found, kept.bytes)
    }

    #[test]
    fn what_is_too_old_or_too_much_by_new_bounds_goes() {
        let opened = Opened::new(Cache { bytes_max: 30, age_max: LONG });
        (1..=3).for_each(|n| keep(&opened, n, 10));
        opened.set_bounds(Cache { bytes_max: 20, age_max: LONG });
        assert_eq!(kept(&opened), (vec![2, 3], 20));
        assert!(!opened.let_go_of_old(Instant::now()));
        assert!(opened.let_go_of_old(Instant::now() + LONG * 2));
        assert_eq!(kept(&opened), (vec![], 0));
    }

    #[test]
    fn what_was_not_asked_for_longest_goes_first() {
        let opened = Opened::new(Cache { bytes_max: 30, age_max: LONG });
        (1..=3).for_each(|n| keep(&opened, n, 10));
        assert_eq!(kept(&opened).0, [1, 2, 3]);
        let found = opened.get_or_open(&whole(1), || Err("it is kept"));
        assert_eq!(found.unwrap().len(), 10);
        for (n, len, expected) in
            [(4, 10, &[1, 3, 4][..]), (5, 20, &[4, 5]), (6, 31, &[4, 5]), (7, 30, &[7])]
        {
            keep(&opened, n, len);
            assert_eq!(kept(&opened).0, expected);
        }
        assert_eq!(kept(&opened).1, 30);
    }

    #[test]
    fn who_has_another_key_is_given_nothing() {
        let opened = Opened::new(Cache { bytes_max: 30, age_max: LONG });
        keep(&opened, 1, 10);
        let other = ChunkRef { key: [9; 32], ..whole(1) };
        assert_eq!(
            opened.get_or_open(&other, || Err("it is not here")).unwrap_err(),
            "it is not here"
        );
        assert_eq!(kept(&opened), (vec![1], 10));
    }

    /// The first of them fails: the next opens it, and all others are given that.
    #[test]
    fn of_those_who_want_one_at_once_one_opens_it() {
        const READERS: usize = 4;
        let opened = Opened::new(Cache { bytes_max: 30, age_max: LONG });
        let (tried, begun) = (AtomicUsize::new(0), Barrier::new(READERS));
        let read = || {
            begun.wait();
            let open = || match tried.fetch_add(1, Ordering::SeqCst) {
                0 => Err("it fails once"),
                _ => Ok(Arc::new(Plain::of(vec![7; 10]))),
            };
            opened.get_or_open(&whole(1), open).is_ok()
        };
        let all = thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
            readers.into_iter().map(|r| r.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(all.iter().filter(|is_there| **is_there).count(), READERS - 1);
        assert_eq!((tried.into_inner(), kept(&opened)), (2, (vec![1], 10)));
    }
}
