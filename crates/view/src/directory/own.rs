//! What a view does to its source itself, told from what others do.
//!
//! inotify tells of both alike. A change is noted before it is made, and the event that tells of it
//! takes the note away. Writes are too many for that: who has a file open to write has a [`Pen`],
//! and as events come in order, all its writes were told once the close is.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gate_fuse::{Errno, NodeId};
use rustc_hash::FxHashMap;

use super::watch::What;

/// How long the event of a change may be on its way. What is noted and never told (the directory is
/// not watched, the kernel made one event of two) is believed of somebody else's change meanwhile.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// Changes that are noted at once; with more, the oldest count as others'.
const NOTED_MAX: usize = 4096;

/// Files of closed pens that are remembered before those are dropped whose close is never told.
const CLOSED_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Own(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    deeds: VecDeque<(Instant, Deed)>,
    pens: FxHashMap<NodeId, Pens>,
}

/// One change, as inotify tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deed {
    what: What,
    /// The directory of a name, or the node whose content or attributes change.
    node: NodeId,
    name: CString,
}

/// Those of one file.
#[derive(Debug)]
enum Pens {
    Open(usize),
    /// What was written may be on its way.
    Closed(Instant),
}

/// Leave to write to a node, until it is dropped: before the file is closed.
#[derive(Debug)]
pub(super) struct Pen {
    own: Arc<Own>,
    node: NodeId,
}

impl Deed {
    pub fn to_name(what: What, directory: NodeId, name: &CStr) -> Deed {
        Deed { what, node: directory, name: name.to_owned() }
    }

    pub fn to_node(what: What, node: NodeId) -> Deed {
        Deed { what, node, name: CString::default() }
    }

    /// A rename is told as two halves.
    pub fn rename(from: (NodeId, &CStr), to: (NodeId, &CStr)) -> [Deed; 2] {
        [Deed::to_name(What::MovedFrom, from.0, from.1), Deed::to_name(What::MovedTo, to.0, to.1)]
    }

    pub fn exchange(one: (NodeId, &CStr), other: (NodeId, &CStr)) -> Vec<Deed> {
        [Deed::rename(one, other), Deed::rename(other, one)].concat()
    }
}

impl Own {
    /// Does what it notes; what fails is not told.
    pub fn doing<T>(
        &self,
        deeds: impl IntoIterator<Item = Deed>,
        act: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let deeds: Vec<Deed> = deeds.into_iter().collect();
        self.lock().note(&deeds, Instant::now());
        act().inspect_err(|_| self.lock().take_back(&deeds))
    }

    /// Returns whether the view did this itself. Each deed is told once.
    pub fn did(&self, deed: &Deed) -> bool {
        let mut notes = self.lock();
        notes.drop_old(Instant::now());
        // They are told in their order: it is among the first.
        let found = notes.deeds.iter().position(|(_, noted)| noted == deed);
        found.is_some_and(|place| notes.deeds.remove(place).is_some())
    }

    pub fn pen(self: &Arc<Own>, node: NodeId) -> Pen {
        self.lock().open(node, Instant::now());
        Pen { own: Arc::clone(self), node }
    }

    /// Returns whether what is written to a node most likely comes from here.
    pub fn writes(&self, node: NodeId) -> bool {
        self.lock().pens.get(&node).is_some_and(|pens| pens.is_wet(Instant::now()))
    }

    /// Notes that all was told that was written with pens that are closed.
    pub fn dried(&self, node: NodeId) {
        if let Entry::Occupied(pens) = self.lock().pens.entry(node)
            && matches!(pens.get(), Pens::Closed(_))
        {
            pens.remove();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    fn note(&mut self, deeds: &[Deed], now: Instant) {
        self.drop_old(now);
        self.deeds.extend(deeds.iter().map(|deed| (now, deed.clone())));
        let excess = self.deeds.len().saturating_sub(NOTED_MAX);
        self.deeds.drain(..excess);
    }

    fn take_back(&mut self, deeds: &[Deed]) {
        for deed in deeds {
            if let Some(place) = self.deeds.iter().rposition(|(_, noted)| noted == deed) {
                self.deeds.remove(place);
            }
        }
    }

    fn drop_old(&mut self, now: Instant) {
        while self.deeds.pop_front_if(|(at, _)| now.duration_since(*at) > TOLD_WITHIN).is_some() {}
    }

    fn open(&mut self, node: NodeId, now: Instant) {
        if self.pens.len() >= CLOSED_MAX {
            self.pens.retain(|_, pens| pens.is_wet(now));
        }
        match self.pens.entry(node).or_insert(Pens::Open(0)) {
            Pens::Open(count) => *count += 1,
            closed @ Pens::Closed(_) => *closed = Pens::Open(1),
        }
    }

    fn close(&mut self, node: NodeId, now: Instant) {
        match self.pens.get_mut(&node) {
            Some(Pens::Open(count)) if *count > 1 => *count -= 1,
            Some(pens) => *pens = Pens::Closed(now),
            None => {}
        }
    }
}

impl Pens {
    fn is_wet(&self, now: Instant) -> bool {
        match self {
            Pens::Open(_) => true,
            Pens::Closed(at) => now.duration_since(*at) <= TOLD_WITHIN,
        }
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        self.own.lock().close(self.node, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &CStr) -> Deed {
        Deed::to_name(What::Made, NodeId::ROOT, name)
    }

    #[test]
    fn what_was_done_here_is_believed_once_and_what_failed_never() {
        let own = Own::default();
        assert_eq!(own.doing([made(c"a"), made(c"b")], || Ok(1)), Ok(1));
        assert!(!own.did(&made(c"c")));
        assert!(own.did(&made(c"b")) && !own.did(&made(c"b")));
        assert_eq!(own.doing([made(c"a")], || Err::<(), _>(Errno::EXIST)), Err(Errno::EXIST));
        assert!(own.did(&made(c"a")) && !own.did(&made(c"a")));
    }

    #[test]
    fn what_is_never_told_is_forgotten() {
        let (mut notes, now) = (Notes::default(), Instant::now());
        notes.note(&[made(c"a")], now);
        notes.note(&[made(c"b")], now + TOLD_WITHIN);
        notes.drop_old(now + TOLD_WITHIN + Duration::from_millis(1));
        assert_eq!(notes.deeds.len(), 1);
        for _ in 0..NOTED_MAX {
            notes.note(&[made(c"a"), made(c"c")], now + TOLD_WITHIN);
        }
        assert_eq!(notes.deeds.len(), NOTED_MAX);
    }

    #[test]
    fn what_is_written_is_of_here_until_the_last_close_is_told() {
        let own = Arc::new(Own::default());
        let [first, second] = [(); 2].map(|()| own.pen(NodeId(2)));
        drop(first);
        own.dried(NodeId(2)); // Somebody else's close.
        assert!(own.writes(NodeId(2)) && !own.writes(NodeId(3)));
        drop(second);
        assert!(own.writes(NodeId(2)));
        own.dried(NodeId(2));
        assert!(!own.writes(NodeId(2)));
    }

    #[test]
    fn pens_whose_close_is_never_told_take_no_room() {
        let (mut notes, now) = (Notes::default(), Instant::now());
        for node in 0..2 * CLOSED_MAX as u64 {
            notes.open(NodeId(node), now + TOLD_WITHIN * 2);
            notes.close(NodeId(node), now);
        }
        assert!(notes.pens.len() <= CLOSED_MAX);
    }
}
