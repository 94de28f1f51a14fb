//! What a request locks, by the rules on paper.
//!
//! Written from the key table of the rules, not from the code that the broker uses: it is the
//! judge of that code. The world has few names, so a set of keys is a word of bits for each mode.

use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_core::path::ViewPath;

/// Every name there can be. Directories are `d`, `h` and their `e`.
pub const NAMES: [&str; 13] =
    ["", "a", "b", "d", "d/x", "d/y", "d/e", "d/e/z", "h", "h/x", "h/y", "h/e", "h/e/z"];
/// How many files may be made in one life.
pub const FILES_MAX: u64 = 64;

const PATHS: usize = 0;
const TREES: usize = 16;
const HOLDS: usize = 32;
const MADE: usize = 48;
const FILES: usize = 64;

/// The keys of a request: those taken in IS, IX, S and X.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    intent_shared: u128,
    intent_exclusive: u128,
    shared: u128,
    exclusive: u128,
}

impl Footprint {
    pub fn of(want: &Want) -> Footprint {
        let mut all = Footprint::default();
        for place in &want.places {
            all.add_file(want.op, place);
            if let Some(path) = &place.path {
                all.add_names(want.op, index_of(path), place.node == Node::Directory);
            }
        }
        all
    }

    /// Returns what says which of two calls that are under way came first.
    pub fn calls(self) -> Footprint {
        self.masked((u128::MAX << MADE) & !(u128::MAX << FILES))
    }

    /// Returns all but that.
    pub fn without_calls(self) -> Footprint {
        self.masked(!(u128::MAX << MADE) | u128::MAX << FILES)
    }

    /// Returns whether two that are not kin may not have both.
    pub fn conflicts(self, other: Footprint) -> bool {
        let clash = self.exclusive & other.all()
            | self.all() & other.exclusive
            | self.shared & other.intent_exclusive
            | self.intent_exclusive & other.shared;
        clash != 0
    }

    /// Returns what is left once the names may have moved.
    pub fn nameless(self) -> Footprint {
        self.masked(u128::MAX << FILES)
    }

    fn masked(self, keys: u128) -> Footprint {
        Footprint {
            intent_shared: self.intent_shared & keys,
            intent_exclusive: self.intent_exclusive & keys,
            shared: self.shared & keys,
            exclusive: self.exclusive & keys,
        }
    }

    fn all(self) -> u128 {
        self.intent_shared | self.intent_exclusive | self.shared | self.exclusive
    }

    fn add_file(&mut self, op: Op, place: &Place) {
        let Node::File(file) = place.node else { return };
        let bit = 1 << (FILES as u64 + file.inode);
        match op {
            Op::Open(Access::Read) | Op::Hold(Access::Read) => self.shared |= bit,
            Op::Open(Access::Write) | Op::Hold(Access::Write) | Op::Truncate => {
                self.exclusive |= bit;
            }
            Op::Unlink | Op::Link | Op::Rename => self.shared |= bit,
            Op::Chmod | Op::Chown | Op::Utimens | Op::Setxattr => self.shared |= bit,
            Op::Create | Op::Mkdir | Op::Mknod | Op::Symlink | Op::Rmdir | Op::Lock(_) => {}
        }
    }

    fn add_names(&mut self, op: Op, name: usize, directory: bool) {
        let reads =
            matches!(op, Op::Open(Access::Read) | Op::Hold(Access::Read) | Op::Lock(Access::Read));
        let path = 1 << (PATHS + name);
        match op {
            Op::Hold(Access::Read) | Op::Lock(Access::Read) => self.shared |= path,
            Op::Hold(Access::Write) | Op::Lock(Access::Write) | Op::Create => {
                self.exclusive |= path;
            }
            Op::Open(Access::Read) => self.intent_shared |= path,
            _ => self.intent_exclusive |= path,
        }
        for above in directories_above(name) {
            let tree = 1 << (TREES + above);
            if reads {
                self.intent_shared |= tree;
            } else {
                self.intent_exclusive |= tree;
            }
            if matches!(op, Op::Hold(_) | Op::Lock(_)) {
                self.intent_exclusive |= 1 << (HOLDS + above);
            }
            if op == Op::Create {
                self.intent_exclusive |= 1 << (MADE + above);
            }
        }
        let [tree, holds, made] = [TREES, HOLDS, MADE].map(|keys| 1 << (keys + name));
        match op {
            Op::Lock(_) => self.intent_exclusive |= holds,
            Op::Hold(access) if directory => {
                self.intent_exclusive |= holds;
                match access {
                    Access::Read => self.shared |= tree,
                    Access::Write => self.exclusive |= tree,
                }
            }
            Op::Rmdir if directory => self.exclusive |= holds,
            Op::Create => self.intent_exclusive |= made,
            Op::Unlink => self.exclusive |= made,
            Op::Rename => self.exclusive |= holds | made,
            _ => {}
        }
    }
}

pub fn path_of(name: usize) -> ViewPath {
    ViewPath::parse(NAMES[name].as_bytes()).unwrap()
}

pub fn index_of(path: &ViewPath) -> usize {
    let found = NAMES.iter().position(|name| name.as_bytes() == path.as_bytes());
    found.unwrap_or_else(|| panic!("nobody speaks of {path}"))
}

fn directories_above(name: usize) -> impl Iterator<Item = usize> {
    let text = NAMES[name];
    let ends = text.match_indices('/').map(|(at, _)| &text[..at]);
    let above = ends.chain((!text.is_empty()).then_some(""));
    above.map(|above| NAMES.iter().position(|known| *known == above).unwrap())
}
