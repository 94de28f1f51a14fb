//! The files that clients work on: which name stands for what, and what operations do to that.

use gate_core::id::SpaceId;
use gate_core::lock::event::Change;
use gate_core::lock::key::FileKey;
use gate_core::lock::want::{Access, Node, Op, Place, Want};

use super::chance::Chance;
use super::footprint::{FILES_MAX, NAMES, path_of};

pub struct Files {
    nodes: [Node; NAMES.len()],
    next_inode: u64,
}

/// Whether names may move in a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    Stay,
    Move,
}

impl Files {
    pub fn new() -> Files {
        let mut files = Files { nodes: [Node::None; NAMES.len()], next_inode: 0 };
        for name in ["", "d", "d/e"] {
            files.nodes[index(name)] = Node::Directory;
        }
        for name in ["a", "d/x", "d/y", "d/e/z"] {
            files.nodes[index(name)] = files.fresh();
        }
        files
    }

    /// Chooses something to do that makes sense now.
    pub fn choose(&self, chance: &mut Chance, names: Names) -> Want {
        loop {
            if let Some(want) = self.think_of(chance, names) {
                return want;
            }
        }
    }

    fn think_of(&self, chance: &mut Chance, names: Names) -> Option<Want> {
        use Access::{Read, Write};
        let moving = [Op::Unlink, Op::Rename, Op::Mkdir, Op::Rmdir];
        let op = match names {
            Names::Move if chance.one_in(3) => *chance.pick(&moving),
            _ => *chance.pick(&[
                Op::Open(Read),
                Op::Open(Read),
                Op::Open(Write),
                Op::Open(Write),
                Op::Open(Write),
                Op::Create,
                Op::Create,
                Op::Truncate,
                Op::Chmod,
                Op::Hold(Read),
                Op::Hold(Write),
                Op::Hold(Write),
            ]),
        };
        let at = 1 + chance.below(NAMES.len() - 1);
        if !self.makes_sense(op, at) {
            return None;
        }
        let mut places = vec![self.place(at)];
        if op == Op::Rename {
            let to = 1 + chance.below(NAMES.len() - 1);
            if !self.may_become(at, to) {
                return None;
            }
            // What a directory is renamed to is a directory's name, whether or not it is there.
            let node = match (self.nodes[at], self.nodes[to]) {
                (Node::Directory, Node::None) => Node::Directory,
                (_, node) => node,
            };
            places.push(Place { node, ..self.place(to) });
        }
        if matches!(op, Op::Hold(_)) && chance.one_in(4) {
            places.push(self.place(1 + chance.below(NAMES.len() - 1)));
        }
        Some(Want { op, places })
    }

    /// Makes the file that a create was granted for; `None` if somebody else was faster.
    pub fn create(&mut self, want: &Want) -> Option<FileKey> {
        let at = name_of(&want.places[0]);
        let parent = NAMES[at].rsplit_once('/').map_or("", |(parent, _)| parent);
        let possible = self.nodes[at] == Node::None
            && self.nodes[index(parent)] == Node::Directory
            && !is_directory_name(at);
        if !possible || self.next_inode >= FILES_MAX {
            return None;
        }
        self.nodes[at] = self.fresh();
        match self.nodes[at] {
            Node::File(file) => Some(file),
            Node::None | Node::Directory => None,
        }
    }

    /// Does what was granted; returns what it did to names, if it still could be done. A view does
    /// nothing in a turn for something else than what is there now.
    pub fn perform(&mut self, want: &Want) -> Option<Change> {
        let at = name_of(&want.places[0]);
        let space = want.places[0].space;
        let is_there = |place: &Place| self.nodes[name_of(place)] == place.node;
        if !want.places.iter().all(is_there) || !self.makes_sense(want.op, at) {
            return None;
        }
        match want.op {
            Op::Unlink => {
                self.nodes[at] = Node::None;
                Some(Change::Removed { space, path: path_of(at) })
            }
            Op::Rename => self.rename(at, name_of(&want.places[1]), space),
            Op::Mkdir => {
                self.nodes[at] = Node::Directory;
                None
            }
            Op::Rmdir => {
                self.nodes[at] = Node::None;
                None
            }
            _ => None,
        }
    }

    fn rename(&mut self, from: usize, to: usize, space: SpaceId) -> Option<Change> {
        if !self.may_become(from, to) {
            return None;
        }
        let (top, goal) = (NAMES[from], NAMES[to]);
        for (at, name) in NAMES.iter().enumerate() {
            let rest =
                name.strip_prefix(top).filter(|rest| rest.is_empty() || rest.starts_with('/'));
            if let Some(rest) = rest {
                let moved = std::mem::replace(&mut self.nodes[at], Node::None);
                if moved != Node::None {
                    self.nodes[index(&format!("{goal}{rest}"))] = moved;
                }
            }
        }
        Some(Change::Renamed { space, from: path_of(from), to: path_of(to) })
    }

    fn makes_sense(&self, op: Op, at: usize) -> bool {
        let parent = NAMES[at].rsplit_once('/').map_or("", |(parent, _)| parent);
        let reachable = self.nodes[index(parent)] == Node::Directory;
        let node = self.nodes[at];
        reachable
            && match op {
                Op::Open(_) | Op::Truncate | Op::Unlink => matches!(node, Node::File(_)),
                Op::Create => {
                    node == Node::None && !is_directory_name(at) && self.next_inode < FILES_MAX
                }
                Op::Mkdir => node == Node::None && is_directory_name(at),
                Op::Rmdir => node == Node::Directory && self.is_empty(at),
                Op::Rename => node != Node::None,
                _ => true,
            }
    }

    /// A file may take any place for files; a directory one that is free or empty.
    fn may_become(&self, from: usize, to: usize) -> bool {
        let parent = NAMES[to].rsplit_once('/').map_or("", |(parent, _)| parent);
        let same_kind = is_directory_name(from) == is_directory_name(to);
        // Names below `e` exist only in `d` and `h`.
        let same_depth =
            !is_directory_name(from) || NAMES[from].contains('/') == NAMES[to].contains('/');
        let free = !is_directory_name(to) || self.nodes[to] == Node::None || self.is_empty(to);
        from != to
            && same_kind
            && same_depth
            && free
            && self.nodes[index(parent)] == Node::Directory
    }

    fn is_empty(&self, at: usize) -> bool {
        let below = format!("{}/", NAMES[at]);
        let mut names = NAMES.iter().zip(&self.nodes);
        !names.any(|(name, node)| name.starts_with(&below) && *node != Node::None)
    }

    /// The space is that of whoever asks, who puts it in.
    fn place(&self, at: usize) -> Place {
        Place { space: SpaceId(0), path: Some(path_of(at)), node: self.nodes[at] }
    }

    fn fresh(&mut self) -> Node {
        self.next_inode += 1;
        Node::File(FileKey { volume: 1, inode: self.next_inode - 1, generation: 1 })
    }
}

fn name_of(place: &Place) -> usize {
    super::footprint::index_of(place.path.as_ref().expect("wants have names"))
}

fn index(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).expect("a name of this world")
}

fn is_directory_name(at: usize) -> bool {
    matches!(NAMES[at], "" | "d" | "h" | "d/e" | "h/e")
}
