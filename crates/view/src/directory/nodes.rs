//! The nodes that the kernel knows, and those on the way to them.
//!
//! A node lives while the kernel holds lookups of it or a known node lies beneath it. Its
//! descriptor pins the inode: as long as the node lives, its number stands for no other file,
//! so a file found under that number *is* this node, unless it was retired: then it is found as
//! another. Node ids are never reused.

use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gate_fuse::{Attr, Errno, NodeId};
use rustc_hash::{FxHashMap, FxHasher};
use rustix::fs::{FileType, Statx};

use super::FileKey;
use super::tree::{Names, Tree};
use super::watch::{Watch, Watches};

/// A file, directory, … of the source.
#[derive(Debug)]
pub(super) struct Node {
    pub id: NodeId,
    pub key: NodeKey,
    pub kind: FileType,
    /// `O_PATH`: good for `*at` calls and for reopening, not for reading.
    pub descriptor: OwnedFd,
    lookups: AtomicU64,
    /// A digest of the attributes that the kernel was last told.
    told: AtomicU64,
    /// A digest of those that it was last told to ask for.
    asked: AtomicU64,
    /// Whether it has asked since.
    heard: AtomicBool,
    /// Whether it may have heard of the node for the first time by an answer that is older than what it
    /// was told to ask for: that it did not know.
    unknown: AtomicBool,
    /// A digest of those when it was last made to take the file to be as long as it is.
    stretched: AtomicU64,
    /// Whether it may go by what it was told for long.
    trusts: AtomicBool,
    /// Of a directory: `Some(None)` if it cannot be watched.
    watch: OnceLock<Option<Watch>>,
    /// A digest of the content that the kernel may have read; 0 if that may change unseen.
    seen: AtomicU64,
}

/// The file, and the mount it was found on: a bind mount shows one directory in two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NodeKey {
    pub file: FileKey,
    pub mount: u64,
}

impl NodeKey {
    fn of(stat: &Statx) -> NodeKey {
        NodeKey { file: FileKey::of(stat), mount: stat.stx_mnt_id }
    }
}

#[derive(Debug)]
pub(super) struct Nodes(RwLock<Known>);

#[derive(Debug)]
struct Known {
    by_id: FxHashMap<NodeId, Arc<Node>>,
    by_key: FxHashMap<NodeKey, Arc<Node>>,
    tree: Tree,
    newest: NodeId,
}

/// How many nodes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Population {
    /// That are known, the root included.
    pub known: usize,
    /// That were ever made.
    pub ever: u64,
}

/// A node that the kernel may be asked to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The node.
    pub node: NodeId,
    /// What it is.
    pub kind: FileType,
    /// Its names, each in its directory.
    pub places: Vec<(NodeId, Arc<[u8]>)>,
}

/// The place of a name.
pub(super) type Place<'a> = (NodeId, &'a [u8]);

impl Nodes {
    pub fn new(root: OwnedFd, stat: &Statx) -> Nodes {
        let mut known = Known {
            by_id: FxHashMap::default(),
            by_key: FxHashMap::default(),
            tree: Tree::default(),
            newest: NodeId::ROOT,
        };
        // The lookup is never given back, so the root stays.
        known.insert(Node::new(NodeId::ROOT, root, stat, 1));
        Nodes(RwLock::new(known))
    }

    pub fn get(&self, node: NodeId) -> Result<Arc<Node>, Errno> {
        self.read().by_id.get(&node).cloned().ok_or(Errno::STALE)
    }

    /// The node of a freshly opened descriptor, known under `place` from now on. Counts as a
    /// lookup.
    pub fn found(&self, descriptor: OwnedFd, stat: &Statx, place: Place<'_>) -> Arc<Node> {
        let key = NodeKey::of(stat);
        if let Some(node) = self.read().find(&key, place) {
            return node;
        }
        let (node, gone) = self.write().find_or_insert(key, descriptor, stat, Some(place));
        drop(gone);
        node
    }

    /// A node that is known, and under `place` at last: its own descriptor pins the inode. Counts as
    /// a lookup.
    pub fn found_known(&self, stat: &Statx, place: Place<'_>) -> Option<Arc<Node>> {
        self.read().find(&NodeKey::of(stat), place)
    }

    /// As [`Nodes::found`], for a file that has no name.
    pub fn found_nameless(&self, descriptor: OwnedFd, stat: &Statx) -> Arc<Node> {
        self.write().find_or_insert(NodeKey::of(stat), descriptor, stat, None).0
    }

    /// Counts one more lookup of a node that got a further name.
    pub fn linked(&self, node: &Arc<Node>, (parent, name): Place<'_>) {
        let mut known = self.write();
        known.tree.link(parent, name, node.id, node.names());
        node.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one more lookup of a node.
    pub fn found_again(&self, node: NodeId) -> Result<Arc<Node>, Errno> {
        let known = self.read();
        let node = known.by_id.get(&node).ok_or(Errno::STALE)?;
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::clone(node))
    }

    pub fn forget(&self, node: NodeId, lookups: u64) {
        let last = match self.read().by_id.get(&node) {
            Some(node) => {
                let last = node.lookups.fetch_sub(lookups, Ordering::Relaxed) == lookups;
                if !last {
                    // What the kernel hears of it next may have been on its way for long.
                    node.set_unknown(true);
                }
                last
            }
            None => false,
        };
        if last {
            let gone = self.write().reap(vec![node]);
            drop(gone); // Only now: closing the last descriptor of a large file takes its time.
        }
    }

    /// Lets a file be found as another node from now on; to this one only what is open leads.
    pub fn retire(&self, node: NodeId) {
        let mut known = self.write();
        let Some(retired) = known.by_id.get(&node).cloned() else { return };
        known.strike(&retired);
    }

    pub fn is_retired(&self, node: NodeId) -> bool {
        let known = self.read();
        known.by_id.get(&node).is_some_and(|retired| !known.is_found(retired))
    }

    /// Forgets a name that leads nowhere any more.
    pub fn unlinked(&self, (parent, name): Place<'_>) {
        if self.read().tree.child(parent, name).is_none() {
            return;
        }
        let mut known = self.write();
        known.tree.unlink(parent, name);
        let gone = known.reap(vec![parent]);
        drop(known);
        drop(gone);
    }

    pub fn renamed(&self, from: Place<'_>, to: Place<'_>) {
        let mut known = self.write();
        known.tree.rename(from, to);
        let gone = known.reap(vec![from.0, to.0]);
        drop(known);
        drop(gone);
    }

    pub fn exchanged(&self, one: Place<'_>, other: Place<'_>) {
        let mut known = self.write();
        known.tree.exchange(one, other);
        let gone = known.reap(vec![one.0, other.0]);
        drop(known);
        drop(gone);
    }

    pub fn path_of(&self, node: NodeId) -> Option<Vec<u8>> {
        self.read().tree.path_of(node)
    }

    pub fn paths_of(&self, node: NodeId) -> Vec<Vec<u8>> {
        self.read().tree.paths_of(node).collect()
    }

    pub fn newest(&self, node: NodeId) -> Option<(NodeId, Arc<[u8]>)> {
        self.read().tree.newest(node)
    }

    /// The directory of a node's newest name.
    pub fn parent_by_newest(&self, node: NodeId) -> Option<Arc<Node>> {
        let known = self.read();
        let (parent, _) = known.tree.newest(node)?;
        known.by_id.get(&parent).cloned()
    }

    pub fn places(&self) -> Vec<(NodeId, Arc<[u8]>, NodeId)> {
        let known = self.read();
        let of_node = |node: &NodeId| {
            let places = known.tree.places(*node).into_iter();
            places.map(|(parent, name)| (parent, name, *node)).collect::<Vec<_>>()
        };
        known.by_id.keys().flat_map(of_node).collect()
    }

    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        self.read().tree.parent(node)
    }

    pub fn child(&self, (parent, name): Place<'_>) -> Option<NodeId> {
        self.read().tree.child(parent, name)
    }

    pub fn population(&self) -> Population {
        let known = self.read();
        Population { known: known.by_id.len(), ever: known.newest.0 }
    }

    /// At most so many of the nodes that have names: the oldest that are newer than `after`, and
    /// then, as on a ring, those that are not.
    pub fn idle(&self, after: NodeId, most: usize, busy: impl Fn(NodeId) -> bool) -> Vec<Idle> {
        let known = self.read();
        let nodes = known.by_id.values().map(|node| (node.id, node.kind));
        let mut ring: Vec<_> = nodes.filter(|(id, _)| !busy(*id)).collect();
        ring.sort_unstable_by_key(|(id, _)| (*id <= after, *id));
        let idle = ring.into_iter().map(|(node, kind)| Idle {
            node,
            kind,
            places: known.tree.places(node),
        });
        idle.filter(|idle| !idle.places.is_empty()).take(most).collect()
    }

    /// How many nodes are known, the root included.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.population().known
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        // A panic while it is held comes from an exhausted memory at most; the maps are whole.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// A known node whose newest name this is already: nothing has to be written.
    fn find(&self, key: &NodeKey, (parent, name): Place<'_>) -> Option<Arc<Node>> {
        let node = self.by_key.get(key)?;
        if !self.tree.is_newest(parent, name, node.id) {
            return None;
        }
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(node))
    }

    /// Whether its file is found as this node.
    fn is_found(&self, node: &Node) -> bool {
        self.by_key.get(&node.key).is_some_and(|found| found.id == node.id)
    }

    fn strike(&mut self, node: &Node) {
        if self.is_found(node) {
            self.by_key.remove(&node.key);
        }
    }

    /// The node and the nodes that this made superfluous.
    fn find_or_insert(
        &mut self,
        key: NodeKey,
        descriptor: OwnedFd,
        stat: &Statx,
        place: Option<Place<'_>>,
    ) -> (Arc<Node>, Vec<Arc<Node>>) {
        let node = match self.by_key.get(&key) {
            Some(node) => {
                node.lookups.fetch_add(1, Ordering::Relaxed);
                Arc::clone(node)
            }
            None => {
                self.newest = NodeId(self.newest.0 + 1);
                self.insert(Node::new(self.newest, descriptor, stat, 1))
            }
        };
        let Some((parent, name)) = place else { return (node, Vec::new()) };
        let left = self.tree.link(parent, name, node.id, node.names());
        let gone = self.reap(left);
        (node, gone)
    }

    fn insert(&mut self, node: Node) -> Arc<Node> {
        let node = Arc::new(node);
        self.by_id.insert(node.id, Arc::clone(&node));
        self.by_key.insert(node.key, Arc::clone(&node));
        node
    }

    /// Removes those of the nodes that nobody needs, and then maybe their parents.
    fn reap(&mut self, mut suspects: Vec<NodeId>) -> Vec<Arc<Node>> {
        let mut gone = Vec::new();
        while let Some(suspect) = suspects.pop() {
            let Entry::Occupied(entry) = self.by_id.entry(suspect) else { continue };
            let needed = entry.get().lookups.load(Ordering::Relaxed) > 0;
            if needed || self.tree.has_children(suspect) {
                continue;
            }
            let node = entry.remove();
            self.strike(&node);
            suspects.extend(self.tree.unlink_all(suspect));
            gone.push(node);
        }
        gone
    }
}

impl Node {
    fn new(id: NodeId, descriptor: OwnedFd, stat: &Statx, lookups: u64) -> Node {
        Node {
            id,
            key: NodeKey::of(stat),
            kind: FileType::from_raw_mode(u32::from(stat.stx_mode)),
            descriptor,
            lookups: AtomicU64::new(lookups),
            told: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            heard: AtomicBool::new(false),
            unknown: AtomicBool::new(false),
            stretched: AtomicU64::new(0),
            trusts: AtomicBool::new(false),
            watch: OnceLock::new(),
            seen: AtomicU64::new(0),
        }
    }

    pub fn tell(&self, attr: &Attr) {
        self.heard.store(true, Ordering::Relaxed);
        self.told.store(digest(attr), Ordering::Relaxed);
    }

    /// Notes that the kernel, which asks next, will hear these.
    pub fn expect(&self, attr: &Attr) {
        self.heard.store(false, Ordering::Relaxed);
        self.told.store(digest(attr), Ordering::Relaxed);
    }

    /// Notes that the kernel was told to ask, for these.
    pub fn ask(&self, attr: &Attr) {
        self.asked.store(digest(attr), Ordering::Relaxed);
    }

    pub fn is_sure(&self, attr: &Attr, now: SystemTime) -> bool {
        let was_told = self.was_told(attr) && !is_fresh(attr, now);
        !self.is_unknown() && (was_told || self.was_asked(attr))
    }

    /// Whether it takes the file to be as long as these say.
    pub fn is_size_sure(&self, attr: &Attr, now: SystemTime) -> bool {
        let has_heard = self.was_told(attr) && self.heard.load(Ordering::Relaxed);
        !self.is_unknown() && has_heard && !is_fresh(attr, now)
    }

    /// Notes that the kernel is made to take the file to be as long as these say; returns whether it was
    /// not before.
    pub fn stretch(&self, attr: &Attr) -> bool {
        let length = digest(attr);
        self.stretched.swap(length, Ordering::Relaxed) != length
    }

    /// Notes whether the kernel did not know the node when it was told to ask.
    pub fn set_unknown(&self, is_unknown: bool) {
        self.unknown.store(is_unknown, Ordering::Relaxed);
    }

    pub fn is_unknown(&self) -> bool {
        self.unknown.load(Ordering::Relaxed)
    }

    pub fn was_asked(&self, attr: &Attr) -> bool {
        self.asked.load(Ordering::Relaxed) == digest(attr)
    }

    /// Notes that the kernel goes by what it is told for long.
    pub fn trust(&self) {
        self.trusts.store(true, Ordering::Relaxed);
    }

    pub fn trusts(&self) -> bool {
        self.trusts.load(Ordering::Relaxed)
    }

    /// Notes that it does no longer; returns whether it did.
    pub fn distrust(&self) -> bool {
        self.trusts.swap(false, Ordering::Relaxed)
    }

    pub fn was_told(&self, attr: &Attr) -> bool {
        self.told.load(Ordering::Relaxed) == digest(attr)
    }

    /// Watches a directory, if that was not tried before.
    pub fn watch(&self, watches: &Arc<Watches>) {
        self.watch.get_or_init(|| watches.add(self.id, &self.descriptor));
    }

    pub fn is_watched(&self) -> bool {
        self.watch.get().is_some_and(Option::is_some)
    }

    /// Notes that the file is about to be read as it is; returns whether it was the same when
    /// that was last noted.
    pub fn see(&self, attr: &Attr, now: SystemTime) -> bool {
        let content = if is_settled(attr, now) { content_digest(attr) } else { 0 };
        self.seen.swap(content, Ordering::Relaxed) == content && content != 0
    }

    fn names(&self) -> Names {
        match self.kind {
            FileType::Directory => Names::One,
            _ => Names::Many,
        }
    }
}

/// How long ago a file must have changed for its next change to be seen by its times: longer
/// than the clock of any file system takes to tick, and than the kernel leaves what was stored in
/// a mapping unwritten (30 s by default); until that is written, more may be stored at the same
/// time.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// How long after a change the kernel may not know of it: longer than an answer that was older is
/// on its way, and than it takes until everything is looked at once more.
const FRESH_FOR: Duration = Duration::from_secs(2);

fn is_settled(attr: &Attr, now: SystemTime) -> bool {
    is_older(attr, now, SETTLED_AFTER)
}

/// Whether a file has changed of late.
pub(super) fn is_fresh(attr: &Attr, now: SystemTime) -> bool {
    !is_older(attr, now, FRESH_FOR)
}

fn is_older(attr: &Attr, now: SystemTime, than: Duration) -> bool {
    let changed = UNIX_EPOCH + Duration::new(attr.ctime, attr.ctime_nsec);
    now.duration_since(changed).is_ok_and(|age| age > than)
}

/// Of all that changes with a file's content. Never 0.
fn content_digest(attr: &Attr) -> u64 {
    let mut hasher = FxHasher::default();
    (attr.size, attr.mtime, attr.mtime_nsec, attr.ctime, attr.ctime_nsec).hash(&mut hasher);
    hasher.finish().max(1)
}

/// Of all that changes with a file's content or mode; its last access tells nothing of either.
fn digest(attr: &Attr) -> u64 {
    let mut hasher = FxHasher::default();
    (attr.size, attr.mode, attr.uid, attr.gid, attr.nlink).hash(&mut hasher);
    (attr.mtime, attr.mtime_nsec, attr.ctime, attr.ctime_nsec).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_holds_while_a_file_that_has_settled_shows_no_change() {
        let old = Attr { size: 3, ctime: 1_000, mtime: 1_000, ..Attr::default() };
        let others =
            [Attr { size: 4, ..old }, Attr { ctime_nsec: 1, ..old }, Attr { mtime: 999, ..old }];
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        for changed in others {
            let node = node_of_nothing();
            let seen = [old, old, changed, changed, old].map(|attr| node.see(&attr, at(2_000)));
            assert_eq!(seen, [false, true, false, true, false], "{changed:?}");
        }
        // Its times may not move with its next change; nor if the clock was set back.
        for now in [0, 1_001, 1_060] {
            let node = node_of_nothing();
            assert_eq!([(); 3].map(|()| node.see(&old, at(now))), [false; 3], "{now}");
            assert!(!node.see(&old, at(2_000)), "what was read then may be something else");
        }
    }

    #[test]
    fn the_size_of_what_was_changed_of_late_is_unsure() {
        let attr = Attr { ctime: 1_000, ctime_nsec: 500_000_000, ..Attr::default() };
        let at = |millis: u64| UNIX_EPOCH + Duration::from_millis(millis);
        let fresh = [1_000_600, 1_002_500, 999_000].map(|millis| is_fresh(&attr, at(millis)));
        assert_eq!(fresh, [true; 3], "also if the clock was set back");
        assert!(!is_fresh(&attr, at(1_002_501)));
    }

    #[test]
    fn what_changed_of_late_the_kernel_is_told_to_ask_for_once_whatever_it_was_told() {
        let attr = Attr { ctime: 1_000, ..Attr::default() };
        let other = Attr { size: 4, ..attr };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let node = node_of_nothing();
        let is_sure = |attr, now| node.is_sure(attr, at(now));
        assert!(!is_sure(&attr, 1_000) && !is_sure(&attr, 2_000));
        node.tell(&attr);
        assert!(!is_sure(&attr, 1_000), "an older answer may be on its way");
        assert!(is_sure(&attr, 2_000) && !is_sure(&other, 2_000));
        node.ask(&other);
        assert!(is_sure(&other, 1_000) && !is_sure(&attr, 1_000));
        assert!(!node.was_told(&other), "it has not asked yet");
        node.set_unknown(true);
        assert!(!is_sure(&other, 1_000) && !is_sure(&attr, 2_000), "it hears of it only now");
    }

    #[test]
    fn the_kernel_knows_the_size_that_it_has_heard_and_not_one_that_it_is_to_ask_for() {
        let attr = Attr { ctime: 1_000, ..Attr::default() };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let node = node_of_nothing();
        let is_sure = |now| node.is_size_sure(&attr, at(now));
        node.expect(&attr);
        assert!(node.was_told(&attr) && !is_sure(2_000));
        node.tell(&attr);
        assert!(!is_sure(1_000) && is_sure(2_000));
        node.set_unknown(true);
        assert!(!is_sure(2_000));
        assert_eq!([node.stretch(&attr), node.stretch(&attr)], [true, false]);
    }

    fn node_of_nothing() -> Node {
        let root = std::fs::File::open("/").unwrap();
        let stat = super::super::stat(&root.try_clone().unwrap().into()).unwrap();
        Node::new(NodeId::ROOT, root.into(), &stat, 1)
    }
}
