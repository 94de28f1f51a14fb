//! What the kernel knows of the nodes, whatever they are.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use gate_fuse::{Attr, NodeId};
use rustix::fs::FileType;

use super::node::is_fresh;
use super::{Anchor, Idle, Node, Nodes, Population};

/// Which changes by others are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Those of the newest name.
    pub name: bool,
    /// Those of the attributes.
    pub attributes: bool,
}

/// A file that is being opened.
#[derive(Clone, Copy, Debug)]
pub struct Review {
    /// Its attributes.
    pub attr: Attr,
    /// Whether the content that the kernel has read of it still holds.
    pub content_holds: bool,
    /// Whether the kernel may take it for longer or shorter than it is, whatever it was told.
    pub size_is_unsure: bool,
    /// Whether the kernel is yet to be told to ask for its attributes.
    pub is_news: bool,
}

/// The book of a source's nodes: their names, as they were seen, and what the kernel was told of them.
/// Nothing here waits for a disk.
pub trait Book: Send + Sync {
    /// Takes back lookups of a node.
    fn forget(&self, node: NodeId, lookups: u64);

    /// Returns how many nodes there are.
    fn population(&self) -> Population;

    /// Returns at most so many nodes that the kernel may be asked to forget, oldest first, those
    /// up to `after` last.
    fn idle(&self, after: NodeId, most: usize, busy: &dyn Fn(NodeId) -> bool) -> Vec<Idle>;

    /// The path of a node from the root (which is empty), by its newest known name. `None` when
    /// no name of it is known, or the path is longer than 4095 bytes.
    fn path_of(&self, node: NodeId) -> Option<Vec<u8>>;

    /// As [`Book::path_of`], by each of its known names, the newest first.
    fn paths_of(&self, node: NodeId) -> Vec<Vec<u8>>;

    /// The newest known name of a node, and the directory that it is in; the root has none.
    fn link_of(&self, node: NodeId) -> Option<(NodeId, CString)>;

    /// The known node that bore a name when that was last looked up.
    fn known(&self, parent: NodeId, name: &CStr) -> Option<NodeId>;

    /// All names that are known, each in its directory, with what they lead to.
    fn places(&self) -> Vec<(NodeId, Arc<[u8]>, NodeId)>;

    /// Notes that the kernel is told these attributes, and returns for which of the node's changes
    /// it need not ask: they are told from now on. What is done under other names of a file may be
    /// done where nobody looks.
    fn tell(&self, node: NodeId, attr: &Attr) -> Told;

    /// Looks at a file that is being opened, and has these attributes. What the kernel then reads
    /// counts as seen now.
    fn review(&self, node: NodeId, attr: &Attr) -> Review;

    /// Notes that the kernel, which asks next, will hear these.
    fn expect(&self, node: NodeId, attr: &Attr);

    /// Notes that the kernel was told to ask for a node's attributes, which were these.
    fn asked(&self, node: NodeId, attr: &Attr);

    /// Notes whether the kernel did not know a node when it was told to ask.
    fn set_unknown(&self, node: NodeId, is_unknown: bool);

    /// Whether the kernel did not know a node when it was last told to ask, and is to be told again.
    fn is_unknown(&self, node: NodeId) -> bool;

    /// Notes that the kernel is made to take a file to be as long as these say; returns whether it was
    /// not before.
    fn stretch(&self, node: NodeId, attr: &Attr) -> bool;

    /// Whether the kernel goes by these attributes of a node, or asks for them.
    ///
    /// That it was told them is not enough as long as an older answer may come before that one.
    fn is_sure(&self, node: NodeId, attr: &Attr) -> bool;

    /// Notes that the kernel trusts what it hears of a node for long.
    fn trust(&self, node: NodeId);

    /// Notes that the kernel asks for a node's attributes next; returns whether it would not have
    /// for long.
    fn distrust(&self, node: NodeId) -> bool;

    /// Whether the kernel may have heard something older of a node after it was told what is so, and
    /// trust that.
    fn is_doubtful(&self, node: NodeId, attr: &Attr) -> bool;

    /// Whether the kernel was told these attributes of a node.
    fn was_told(&self, node: NodeId, attr: &Attr) -> bool;

    /// Whether the kernel knows more of a node than its number, as it does of all but the root: it
    /// drops an answer that is on its way when the node is declared stale, and without the first of
    /// all lets nobody in.
    fn has_face(&self, node: NodeId) -> bool;

    /// Lets a file be found as another node from now on; to this one only what is open leads, and what
    /// the kernel has cached of it is not shared with those who open the file later.
    fn retire(&self, node: NodeId);

    /// Whether a file would be found as another node.
    fn is_retired(&self, node: NodeId) -> bool;
}

impl<A: Anchor> Book for Nodes<A> {
    fn forget(&self, node: NodeId, lookups: u64) {
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

    fn population(&self) -> Population {
        let known = self.read();
        Population { known: known.by_id.len(), ever: known.newest.0 }
    }

    /// Of those that have names: those that are newer than `after`, and then, as on a ring, those that
    /// are not.
    fn idle(&self, after: NodeId, most: usize, busy: &dyn Fn(NodeId) -> bool) -> Vec<Idle> {
        let known = self.read();
        let nodes = known.by_id.values().map(|node| (node.id, node.kind()));
        let mut ring: Vec<_> = nodes.filter(|(id, _)| !busy(*id)).collect();
        ring.sort_unstable_by_key(|(id, _)| (*id <= after, *id));
        let idle = ring.into_iter().map(|(node, kind)| Idle {
            node,
            kind,
            places: known.tree.places(node),
        });
        idle.filter(|idle| !idle.places.is_empty()).take(most).collect()
    }

    fn path_of(&self, node: NodeId) -> Option<Vec<u8>> {
        self.read().tree.path_of(node)
    }

    fn paths_of(&self, node: NodeId) -> Vec<Vec<u8>> {
        self.read().tree.paths_of(node).collect()
    }

    fn link_of(&self, node: NodeId) -> Option<(NodeId, CString)> {
        let (parent, name) = self.read().tree.newest(node)?;
        Some((parent, CString::new(&*name).ok()?))
    }

    fn known(&self, parent: NodeId, name: &CStr) -> Option<NodeId> {
        self.child((parent, name.to_bytes()))
    }

    fn places(&self) -> Vec<(NodeId, Arc<[u8]>, NodeId)> {
        let known = self.read();
        let of_node = |node: &NodeId| {
            let places = known.tree.places(*node).into_iter();
            places.map(|(parent, name)| (parent, name, *node)).collect::<Vec<_>>()
        };
        known.by_id.keys().flat_map(of_node).collect()
    }

    fn tell(&self, node: NodeId, attr: &Attr) -> Told {
        let Ok(node) = self.get(node) else { return Told { name: false, attributes: false } };
        node.tell(attr);
        let parent = self.parent_by_newest(node.id);
        let name = parent.is_some_and(|parent| parent.is_told());
        let has_one_name = node.kind() != FileType::Directory && attr.nlink == 1;
        let inside = node.is_told() || has_one_name;
        // Of what changes again and again two answers may be on their way, and the kernel keeps
        // the one that it takes first.
        let attributes = name && inside && !is_fresh(attr, SystemTime::now());
        if attributes {
            node.trust();
        }
        Told { name, attributes }
    }

    fn review(&self, node: NodeId, attr: &Attr) -> Review {
        let attr = *attr;
        let Ok(node) = self.get(node) else {
            return Review { attr, content_holds: false, size_is_unsure: true, is_news: true };
        };
        let now = SystemTime::now();
        let size_is_unsure = !node.is_size_sure(&attr, now);
        let is_news = !node.is_sure(&attr, now);
        Review { attr, content_holds: node.see(&attr, now), size_is_unsure, is_news }
    }

    fn expect(&self, node: NodeId, attr: &Attr) {
        if let Ok(node) = self.get(node) {
            node.expect(attr);
        }
    }

    fn asked(&self, node: NodeId, attr: &Attr) {
        if let Ok(node) = self.get(node) {
            node.ask(attr);
        }
    }

    fn set_unknown(&self, node: NodeId, is_unknown: bool) {
        if let Ok(node) = self.get(node) {
            node.set_unknown(is_unknown);
        }
    }

    fn is_unknown(&self, node: NodeId) -> bool {
        self.get(node).is_ok_and(|node| node.is_unknown())
    }

    fn stretch(&self, node: NodeId, attr: &Attr) -> bool {
        self.get(node).is_ok_and(|node| node.stretch(attr))
    }

    fn is_sure(&self, node: NodeId, attr: &Attr) -> bool {
        self.get(node).is_ok_and(|node| node.is_sure(attr, SystemTime::now()))
    }

    fn trust(&self, node: NodeId) {
        if let Ok(node) = self.get(node) {
            node.trust();
        }
    }

    fn distrust(&self, node: NodeId) -> bool {
        self.get(node).is_ok_and(|node| node.distrust())
    }

    fn is_doubtful(&self, node: NodeId, attr: &Attr) -> bool {
        let is_doubtful =
            |node: &Node<A>| node.is_unknown() || (node.trusts() && !node.was_asked(attr));
        self.get(node).is_ok_and(|node| is_doubtful(&node))
    }

    fn was_told(&self, node: NodeId, attr: &Attr) -> bool {
        self.get(node).is_ok_and(|node| node.was_told(attr))
    }

    fn has_face(&self, node: NodeId) -> bool {
        node != NodeId::ROOT || self.is_entered.load(Ordering::Relaxed)
    }

    fn retire(&self, node: NodeId) {
        let mut known = self.write();
        let Some(retired) = known.by_id.get(&node).cloned() else { return };
        known.strike(&retired);
    }

    fn is_retired(&self, node: NodeId) -> bool {
        let known = self.read();
        known.by_id.get(&node).is_some_and(|retired| !known.is_found(retired))
    }
}
