//! Which names lead to which node.
//!
//! A link is a name in a parent. A directory has one link, a file as many as were looked up,
//! the newest last. Links are what was seen: a change behind the view's back is learnt at the
//! next lookup.

use std::sync::Arc;

use gate_fuse::NodeId;
use rustc_hash::FxHashMap;

/// Longest path that is told. Names that changed behind the view's back can close a circle;
/// this also ends it.
const PATH_BYTES_MAX: usize = 4095;

#[derive(Debug, Default)]
pub(super) struct Tree {
    vertices: FxHashMap<NodeId, Vertex>,
}

#[derive(Debug, Default)]
struct Vertex {
    links: Vec<Link>,
    children: FxHashMap<Arc<[u8]>, NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    parent: NodeId,
    name: Arc<[u8]>,
}

/// How many names a node can have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    One,
    Many,
}

impl Tree {
    /// The path from the root, by the newest names that lead there; the root's is empty.
    pub fn path_of(&self, node: NodeId) -> Option<Vec<u8>> {
        self.paths_of(node).next()
    }

    /// The paths from the root by each of a node's names, the newest first.
    pub fn paths_of(&self, node: NodeId) -> impl Iterator<Item = Vec<u8>> {
        let root = (node == NodeId::ROOT).then(Vec::new);
        let links = self.vertices.get(&node).map_or(&[][..], |vertex| &vertex.links);
        root.into_iter().chain(links.iter().rev().filter_map(|link| self.path_through(link)))
    }

    fn path_through(&self, last: &Link) -> Option<Vec<u8>> {
        let mut names = vec![&*last.name];
        let mut bytes = last.name.len();
        let mut at = last.parent;
        while at != NodeId::ROOT {
            let link = self.vertices.get(&at)?.links.last()?;
            bytes += link.name.len() + 1;
            if bytes > PATH_BYTES_MAX {
                return None;
            }
            names.push(&*link.name);
            at = link.parent;
        }
        names.reverse();
        Some(names.join(&b'/'))
    }

    /// The directory that a node was last found in.
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        self.vertices.get(&node)?.links.last().map(|link| link.parent)
    }

    /// The newest name of a node and the directory that it is in.
    pub fn newest(&self, node: NodeId) -> Option<(NodeId, Arc<[u8]>)> {
        let link = self.vertices.get(&node)?.links.last()?;
        Some((link.parent, link.name.clone()))
    }

    /// All names of a node, each in its directory.
    pub fn places(&self, node: NodeId) -> Vec<(NodeId, Arc<[u8]>)> {
        let links = self.vertices.get(&node).map_or(&[][..], |vertex| &vertex.links);
        links.iter().map(|link| (link.parent, link.name.clone())).collect()
    }

    pub fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        self.vertices.get(&parent)?.children.get(name).copied()
    }

    pub fn has_children(&self, node: NodeId) -> bool {
        self.vertices.get(&node).is_some_and(|vertex| !vertex.children.is_empty())
    }

    /// Whether linking would change nothing.
    pub fn is_newest(&self, parent: NodeId, name: &[u8], child: NodeId) -> bool {
        let newest = self.vertices.get(&child).and_then(|vertex| vertex.links.last());
        newest.is_some_and(|link| link.parent == parent && *link.name == *name)
    }

    /// Makes this name the child's newest and takes it from whoever bore it. Returns the
    /// directories that lost a child.
    pub fn link(
        &mut self,
        parent: NodeId,
        name: &[u8],
        child: NodeId,
        names: Names,
    ) -> Vec<NodeId> {
        if self.is_newest(parent, name, child) {
            return Vec::new();
        }
        self.unlink(parent, name);
        let left = match names {
            Names::One => self.unlink_all(child),
            Names::Many => Vec::new(),
        };
        let name: Arc<[u8]> = name.into();
        self.vertex(parent).children.insert(Arc::clone(&name), child);
        self.vertex(child).links.push(Link { parent, name });
        left
    }

    /// Forgets a name, and says whose it was.
    pub fn unlink(&mut self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let child = self.vertices.get_mut(&parent)?.children.remove(name)?;
        if let Some(vertex) = self.vertices.get_mut(&child) {
            vertex.links.retain(|link| !(link.parent == parent && *link.name == *name));
        }
        self.prune(parent);
        self.prune(child);
        Some(child)
    }

    /// Forgets all names of a node. Returns the directories that lost a child.
    pub fn unlink_all(&mut self, child: NodeId) -> Vec<NodeId> {
        let Some(vertex) = self.vertices.get_mut(&child) else { return Vec::new() };
        let links = std::mem::take(&mut vertex.links);
        self.prune(child);
        for link in &links {
            if let Some(parent) = self.vertices.get_mut(&link.parent) {
                parent.children.remove(&link.name);
            }
            self.prune(link.parent);
        }
        links.into_iter().map(|link| link.parent).collect()
    }

    /// Moves what bears the first name to the second, in place of what bore that.
    pub fn rename(&mut self, from: (NodeId, &[u8]), to: (NodeId, &[u8])) {
        let moved = self.child(from.0, from.1);
        if moved.is_some() && moved == self.child(to.0, to.1) {
            return; // rename(2) leaves two names of one file as they are.
        }
        self.unlink(from.0, from.1);
        self.unlink(to.0, to.1);
        if let Some(moved) = moved {
            self.link(to.0, to.1, moved, Names::Many);
        }
    }

    /// Swaps what bears two names.
    pub fn exchange(&mut self, one: (NodeId, &[u8]), other: (NodeId, &[u8])) {
        let first = self.unlink(one.0, one.1);
        let second = self.unlink(other.0, other.1);
        if let Some(first) = first {
            self.link(other.0, other.1, first, Names::Many);
        }
        if let Some(second) = second {
            self.link(one.0, one.1, second, Names::Many);
        }
    }

    fn vertex(&mut self, node: NodeId) -> &mut Vertex {
        self.vertices.entry(node).or_default()
    }

    fn prune(&mut self, node: NodeId) {
        let vertex = self.vertices.get(&node);
        if vertex.is_some_and(|vertex| vertex.links.is_empty() && vertex.children.is_empty()) {
            self.vertices.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: NodeId = NodeId::ROOT;
    const DIR: NodeId = NodeId(2);
    const SUB: NodeId = NodeId(3);
    const FILE: NodeId = NodeId(4);
    const OTHER: NodeId = NodeId(5);

    /// `d/s/f`, and `f` also as `g`.
    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.link(ROOT, b"d", DIR, Names::One);
        tree.link(DIR, b"s", SUB, Names::One);
        tree.link(ROOT, b"g", FILE, Names::Many);
        tree.link(SUB, b"f", FILE, Names::Many);
        tree
    }

    fn path(tree: &Tree, node: NodeId) -> Option<String> {
        tree.path_of(node).map(|path| String::from_utf8(path).unwrap())
    }

    fn check(tree: &Tree, node: NodeId, expected: &str) {
        assert_eq!(path(tree, node).as_deref(), Some(expected));
    }

    #[test]
    fn the_newest_name_counts() {
        let mut tree = tree();
        check(&tree, ROOT, "");
        check(&tree, SUB, "d/s");
        check(&tree, FILE, "d/s/f");
        assert!(tree.paths_of(FILE).eq([b"d/s/f".to_vec(), b"g".to_vec()]));
        tree.link(ROOT, b"g", FILE, Names::Many);
        check(&tree, FILE, "g");
        assert!(tree.is_newest(ROOT, b"g", FILE) && !tree.is_newest(SUB, b"f", FILE));
    }

    #[test]
    fn a_hard_link_outlives_the_other() {
        let mut tree = tree();
        assert_eq!(tree.unlink(SUB, b"f"), Some(FILE));
        check(&tree, FILE, "g");
        assert_eq!(tree.unlink(ROOT, b"g"), Some(FILE));
        assert_eq!(path(&tree, FILE), None);
        assert_eq!(tree.unlink(ROOT, b"g"), None);
    }

    #[test]
    fn a_renamed_directory_takes_everything_along() {
        let mut tree = tree();
        tree.rename((ROOT, b"d"), (ROOT, b"e"));
        check(&tree, FILE, "e/s/f");
        tree.rename((DIR, b"s"), (ROOT, b"t"));
        check(&tree, FILE, "t/f");
        check(&tree, DIR, "e");
    }

    #[test]
    fn a_rename_takes_the_name_from_what_it_replaces() {
        let mut tree = tree();
        tree.link(ROOT, b"o", OTHER, Names::Many);
        tree.rename((SUB, b"f"), (ROOT, b"o"));
        check(&tree, FILE, "o");
        assert_eq!(path(&tree, OTHER), None);
        assert_eq!(tree.child(SUB, b"f"), None);
    }

    #[test]
    fn a_rename_between_two_names_of_one_file_changes_nothing() {
        let mut tree = tree();
        tree.rename((ROOT, b"g"), (SUB, b"f"));
        assert_eq!((tree.child(ROOT, b"g"), tree.child(SUB, b"f")), (Some(FILE), Some(FILE)));
    }

    #[test]
    fn a_rename_of_what_was_never_seen_still_clears_the_target() {
        let mut tree = tree();
        tree.rename((ROOT, b"unseen"), (ROOT, b"g"));
        assert_eq!(tree.child(ROOT, b"g"), None);
        check(&tree, FILE, "d/s/f");
    }

    #[test]
    fn an_exchange_swaps_whatever_is_known() {
        let mut tree = tree();
        tree.exchange((ROOT, b"d"), (ROOT, b"g"));
        check(&tree, SUB, "g/s");
        assert_eq!(tree.child(ROOT, b"d"), Some(FILE));
        tree.exchange((ROOT, b"unseen"), (ROOT, b"g"));
        check(&tree, SUB, "unseen/s");
        assert_eq!(tree.child(ROOT, b"g"), None);
    }

    #[test]
    fn a_directory_seen_elsewhere_has_moved() {
        let mut tree = tree();
        assert_eq!(tree.link(ROOT, b"s2", SUB, Names::One), [DIR]);
        check(&tree, SUB, "s2");
        assert!(!tree.has_children(DIR));
    }

    #[test]
    fn a_name_seen_on_another_node_was_replaced() {
        let mut tree = tree();
        tree.link(SUB, b"f", OTHER, Names::Many);
        check(&tree, OTHER, "d/s/f");
        check(&tree, FILE, "g");
    }

    #[test]
    fn below_a_vanished_directory_nothing_has_a_path() {
        let mut tree = tree();
        tree.unlink(ROOT, b"g");
        tree.unlink(DIR, b"s");
        assert_eq!((path(&tree, SUB), path(&tree, FILE)), (None, None));
    }

    #[test]
    fn a_circle_has_no_path() {
        let mut tree = tree();
        tree.link(SUB, b"d", DIR, Names::One);
        assert_eq!(path(&tree, SUB), None);
    }

    #[test]
    fn nothing_is_left_of_what_is_forgotten() {
        let mut tree = tree();
        assert_eq!(tree.unlink_all(FILE), [ROOT, SUB]);
        assert_eq!(tree.unlink_all(SUB), [DIR]);
        assert_eq!(tree.unlink_all(DIR), [ROOT]);
        assert!(tree.vertices.is_empty());
    }
}
