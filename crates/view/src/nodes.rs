//! The nodes that the kernel knows, and those on the way to them; what they stand for is their
//! source's.
//!
//! A node lives while the kernel holds lookups of it or a known node lies beneath it. Its [`Anchor`]
//! sees to it that as long as the node lives its key is no other file's, so a file found under that
//! key *is* this node, unless it was retired: then it is found as another. Node ids are never reused.

mod book;
mod node;
mod tree;

use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use gate_fuse::{Errno, NodeId};
use rustc_hash::FxHashMap;
use rustix::fs::FileType;

pub use book::{Book, Review, Told};
pub use node::Node;
use tree::Tree;

/// What a node stands for.
pub trait Anchor: Send + Sync + fmt::Debug + 'static {
    /// What tells one file from another, whatever their names.
    type Key: Copy + Eq + Hash + Send + Sync + fmt::Debug;

    /// Which file it is. It changes in [`Nodes::succeed`] alone.
    fn key(&self) -> Self::Key;

    /// What it is.
    fn kind(&self) -> FileType;

    /// Whether all changes are told: of a directory those of what is in it, of anything else those of
    /// itself, under whichever of its names they are made.
    fn is_told(&self) -> bool;
}

/// The nodes of a source.
#[derive(Debug)]
pub struct Nodes<A: Anchor> {
    known: RwLock<Known<A>>,
    /// Somebody has looked into the root.
    is_entered: AtomicBool,
}

#[derive(Debug)]
struct Known<A: Anchor> {
    by_id: FxHashMap<NodeId, Arc<Node<A>>>,
    by_key: FxHashMap<A::Key, Arc<Node<A>>>,
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
pub type Place<'a> = (NodeId, &'a [u8]);

impl<A: Anchor> Nodes<A> {
    /// There is a root.
    pub fn new(root: A) -> Nodes<A> {
        let mut known = Known {
            by_id: FxHashMap::default(),
            by_key: FxHashMap::default(),
            tree: Tree::default(),
            newest: NodeId::ROOT,
        };
        // The lookup is never given back, so the root stays.
        known.insert(Node::new(NodeId::ROOT, root, 1));
        Nodes { known: RwLock::new(known), is_entered: AtomicBool::new(false) }
    }

    /// Notes that somebody looks into a directory, whatever is found there.
    pub fn enter(&self) {
        self.is_entered.store(true, Ordering::Relaxed);
    }

    /// A node that is known; ESTALE if it is not.
    pub fn get(&self, node: NodeId) -> Result<Arc<Node<A>>, Errno> {
        self.read().by_id.get(&node).cloned().ok_or(Errno::STALE)
    }

    /// The node of what was found under `place`, and is known under it from now on. Counts as a
    /// lookup.
    pub fn found(&self, anchor: A, place: Place<'_>) -> Arc<Node<A>> {
        if let Some(node) = self.read().find(&anchor.key(), place) {
            return node;
        }
        let (node, gone) = self.write().find_or_insert(anchor, Some(place));
        drop(gone);
        node
    }

    /// A node that is known, and under `place` at last: its own anchor stands for the file. Counts as
    /// a lookup.
    pub fn found_known(&self, key: &A::Key, place: Place<'_>) -> Option<Arc<Node<A>>> {
        self.read().find(key, place)
    }

    /// As [`Nodes::found`], for a file that has no name.
    pub fn found_nameless(&self, anchor: A) -> Arc<Node<A>> {
        self.write().find_or_insert(anchor, None).0
    }

    /// Counts one more lookup of a node that got a further name.
    pub fn linked(&self, node: &Arc<Node<A>>, (parent, name): Place<'_>) {
        let mut known = self.write();
        known.tree.link(parent, name, node.id, node.names());
        node.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one more lookup of a node.
    pub fn found_again(&self, node: NodeId) -> Result<Arc<Node<A>>, Errno> {
        let known = self.read();
        let node = known.by_id.get(&node).ok_or(Errno::STALE)?;
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::clone(node))
    }

    /// Lets a node stand for the file of another one, which lives on as what it was, for those who have
    /// it open: as if that were retired, and this one found for it. `rekey` is shown their anchors, that
    /// one's first, and is to give this one's the key of that one's; nobody finds either meanwhile.
    pub fn succeed(&self, old: NodeId, new: NodeId, rekey: impl FnOnce(&A, &A)) {
        let mut known = self.write();
        let pair = [old, new].map(|node| known.by_id.get(&node).cloned());
        let [Some(old), Some(new)] = pair else { return };
        known.strike(&old);
        known.strike(&new);
        rekey(&old, &new);
        known.by_key.insert(new.key(), Arc::clone(&new));
        drop(known);
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

    /// Moves what bears the first name to the second, in place of what bore that.
    pub fn renamed(&self, from: Place<'_>, to: Place<'_>) {
        let mut known = self.write();
        known.tree.rename(from, to);
        let gone = known.reap(vec![from.0, to.0]);
        drop(known);
        drop(gone);
    }

    /// Swaps what bears two names.
    pub fn exchanged(&self, one: Place<'_>, other: Place<'_>) {
        let mut known = self.write();
        known.tree.exchange(one, other);
        let gone = known.reap(vec![one.0, other.0]);
        drop(known);
        drop(gone);
    }

    /// The directory of a node's newest name.
    fn parent_by_newest(&self, node: NodeId) -> Option<Arc<Node<A>>> {
        let known = self.read();
        let (parent, _) = known.tree.newest(node)?;
        known.by_id.get(&parent).cloned()
    }

    /// The directory that a node was last found in.
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        self.read().tree.parent(node)
    }

    /// The known node that bore a name when that was last looked up.
    pub fn child(&self, (parent, name): Place<'_>) -> Option<NodeId> {
        self.read().tree.child(parent, name)
    }

    /// How many nodes are known, the root included.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.read().by_id.len()
    }

    fn read(&self) -> RwLockReadGuard<'_, Known<A>> {
        // A panic while it is held comes from an exhausted memory at most; the maps are whole.
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known<A>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Anchor> Known<A> {
    /// A known node whose newest name this is already: nothing has to be written.
    fn find(&self, key: &A::Key, (parent, name): Place<'_>) -> Option<Arc<Node<A>>> {
        let node = self.by_key.get(key)?;
        if !self.tree.is_newest(parent, name, node.id) {
            return None;
        }
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(node))
    }

    /// Whether its file is found as this node.
    fn is_found(&self, node: &Node<A>) -> bool {
        self.by_key.get(&node.key()).is_some_and(|found| found.id == node.id)
    }

    fn strike(&mut self, node: &Node<A>) {
        if self.is_found(node) {
            self.by_key.remove(&node.key());
        }
    }

    /// The node and the nodes that this made superfluous.
    fn find_or_insert(
        &mut self,
        anchor: A,
        place: Option<Place<'_>>,
    ) -> (Arc<Node<A>>, Vec<Arc<Node<A>>>) {
        let node = match self.by_key.get(&anchor.key()) {
            Some(node) => {
                node.lookups.fetch_add(1, Ordering::Relaxed);
                Arc::clone(node)
            }
            None => {
                self.newest = NodeId(self.newest.0 + 1);
                self.insert(Node::new(self.newest, anchor, 1))
            }
        };
        let Some((parent, name)) = place else { return (node, Vec::new()) };
        let left = self.tree.link(parent, name, node.id, node.names());
        let gone = self.reap(left);
        (node, gone)
    }

    fn insert(&mut self, node: Node<A>) -> Arc<Node<A>> {
        let node = Arc::new(node);
        self.by_id.insert(node.id, Arc::clone(&node));
        self.by_key.insert(node.key(), Arc::clone(&node));
        node
    }

    /// Removes those of the nodes that nobody needs, and then maybe their parents.
    fn reap(&mut self, mut suspects: Vec<NodeId>) -> Vec<Arc<Node<A>>> {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// A file that is told from others by a number.
    #[derive(Debug)]
    struct Leaf(AtomicU64);

    impl Leaf {
        fn numbered(number: u64) -> Leaf {
            Leaf(AtomicU64::new(number))
        }
    }

    impl Anchor for Leaf {
        type Key = u64;

        fn key(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn kind(&self) -> FileType {
            FileType::RegularFile
        }

        fn is_told(&self) -> bool {
            true
        }
    }

    /// As it is saved: written beside, and renamed over.
    #[test]
    fn a_node_that_succeeds_another_is_found_for_its_file() {
        let nodes = Nodes::new(Leaf::numbered(0));
        let (f, tmp) = ((NodeId::ROOT, &b"f"[..]), (NodeId::ROOT, &b"tmp"[..]));
        let old = nodes.found(Leaf::numbered(1), f).id;
        let new = nodes.found(Leaf::numbered(2), tmp).id;
        nodes.renamed(tmp, f);
        nodes.succeed(old, new, |old, new| {
            let former = old.0.swap(3, Ordering::Relaxed);
            new.0.store(former, Ordering::Relaxed);
        });
        assert_eq!(nodes.found(Leaf::numbered(1), f).id, new);
        assert_eq!([old, new].map(|node| nodes.is_retired(node)), [true, false]);
        assert_eq!((nodes.path_of(old), nodes.path_of(new)), (None, Some(b"f".to_vec())));
        // What is left of either does not stand in the way of other files of these numbers.
        nodes.forget(old, 1);
        for number in [2, 3] {
            let other = nodes.found(Leaf::numbered(number), (NodeId::ROOT, b"other")).id;
            assert!(other > new, "{number}");
        }
        nodes.forget(new, 2);
        assert_eq!(nodes.get(new).err(), Some(Errno::STALE));
    }

    /// A hard link is told of as well.
    #[test]
    fn what_is_told_of_under_all_its_names_the_kernel_may_trust() {
        let nodes = Nodes::new(Leaf::numbered(0));
        let node = nodes.found(Leaf::numbered(1), (NodeId::ROOT, b"f")).id;
        let attr = gate_fuse::Attr { nlink: 2, ctime: 1, ..gate_fuse::Attr::default() };
        assert_eq!(nodes.tell(node, &attr), Told { name: true, attributes: true });
    }
}
