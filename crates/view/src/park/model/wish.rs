//! What somebody wants of names and files, with the keys that the product says it takes.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use gate_core::id::SpaceId;
use gate_core::lock::event::Change;
use gate_core::lock::key::{FileKey, Keys};
use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_core::path::ViewPath;

const SPACE: SpaceId = SpaceId(1);
/// The one directory, and two names in it.
const DIRECTORY: &str = "d";
const PATHS: [&str; 2] = ["d/a", "d/b"];

/// The file that each name leads to.
pub type Names = [Option<u8>; 2];

/// What a program does with names, or another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// open(O_CREAT | O_WRONLY), and close.
    Create(usize),
    /// open(O_RDONLY), and close.
    Read(usize),
    /// open(O_WRONLY), and close.
    Write(usize),
    Unlink(usize),
    /// Of the first name to the second, over what is there.
    Rename(usize, usize),
    /// `gate hold` of a name, and of all beneath the directory.
    Hold(usize),
    HoldAll,
}

use Job::{Create, Hold, HoldAll, Read, Rename, Unlink, Write};

impl Job {
    /// Returns what stands at its places.
    pub fn stands(self, names: &Names) -> [Option<u8>; 2] {
        match self {
            Create(_) | HoldAll => [None; 2],
            Read(name) | Write(name) | Unlink(name) | Hold(name) => [names[name], None],
            Rename(from, to) => [names[from], names[to]],
        }
    }

    /// Returns its first name.
    pub fn name(self) -> usize {
        match self {
            Create(name) | Read(name) | Write(name) | Unlink(name) | Hold(name) => name,
            Rename(from, _) => from,
            HoldAll => unreachable!("it has none"),
        }
    }

    /// Returns all of them.
    pub fn names(self) -> Vec<usize> {
        match self {
            Rename(from, to) => vec![from, to],
            HoldAll => Vec::new(),
            _ => vec![self.name()],
        }
    }

    /// Whether it fails in any case.
    pub fn fails(self, names: &Names) -> bool {
        match self {
            Create(_) | Hold(_) | HoldAll => false,
            Read(_) | Write(_) | Unlink(_) | Rename(..) => names[self.name()].is_none(),
        }
    }

    pub fn changes_names(self) -> bool {
        matches!(self, Unlink(_) | Rename(..))
    }

    /// Returns what it asks for where that stands.
    pub fn wish(self, stands: [Option<u8>; 2]) -> Arc<Wish> {
        let [first, second] = stands;
        let op = match self {
            Create(_) => Op::Create,
            Read(_) => Op::Open(Access::Read),
            Write(_) => Op::Open(Access::Write),
            Unlink(_) => Op::Unlink,
            Rename(..) => Op::Rename,
            Hold(_) | HoldAll => Op::Hold(Access::Write),
        };
        let places = match self {
            HoldAll => vec![place(Some(DIRECTORY), Node::Directory)],
            Rename(from, to) => vec![named(from, first), named(to, second)],
            _ => vec![named(self.name(), first)],
        };
        Wish::new(Want { op, places })
    }

    /// Changes the names; returns what to tell of it.
    pub fn change(self, names: &mut Names) -> Option<Change> {
        match self {
            Unlink(name) => {
                names[name].take()?;
                Some(Change::Removed { space: SPACE, path: path(PATHS[name]) })
            }
            Rename(from, to) => {
                names[to] = Some(names[from].take()?);
                let [from, to] = [from, to].map(|name| path(PATHS[name]));
                Some(Change::Renamed { space: SPACE, from, to })
            }
            Create(_) | Read(_) | Write(_) | Hold(_) | HoldAll => None,
        }
    }
}

/// A want and the keys that it takes.
#[derive(Debug)]
pub struct Wish {
    pub want: Want,
    keys: Keys,
    /// Worlds are hashed often, and wishes are many in each.
    digest: u64,
}

impl Wish {
    fn new(want: Want) -> Arc<Wish> {
        let digest = BuildHasherDefault::<DefaultHasher>::default().hash_one(&want);
        Arc::new(Wish { keys: want.keys(), want, digest })
    }

    /// An open of a file by the name that leads to it by now, if any.
    pub fn open(file: u8, access: Access, names: &Names) -> Arc<Wish> {
        let name = names.iter().position(|there| *there == Some(file));
        let place = place(name.map(|name| PATHS[name]), node(file));
        Wish::new(Want { op: Op::Open(access), places: vec![place] })
    }

    /// The same once the file that was to be created is there.
    pub fn created(&self, file: u8) -> Arc<Wish> {
        let mut want = self.want.clone();
        want.op = Op::Open(Access::Write);
        want.places[0].node = node(file);
        Wish::new(want)
    }

    /// The same after names changed; `None` if that leaves it as it is.
    pub fn moved(&self, change: &Change) -> Option<Arc<Wish>> {
        let here = self.want.places[0].path.as_ref().filter(|_| self.want.op.follows_file())?;
        let path = match change {
            Change::Renamed { from, to, .. } if here == from => Some(to.clone()),
            Change::Removed { path: gone, .. } | Change::Renamed { to: gone, .. }
                if here == gone =>
            {
                None
            }
            _ => return None,
        };
        let mut want = self.want.clone();
        want.places[0].path = path;
        Some(Wish::new(want))
    }

    pub fn conflicts(&self, other: &Wish) -> bool {
        let against = |(key, mode)| {
            let mut others = other.keys.iter();
            others.any(|(known, held): (_, gate_core::lock::mode::Mode)| {
                known == key && held.conflicts(mode)
            })
        };
        self.keys.iter().any(against)
    }

    /// Whether who has this keeps others from a file and its names, whatever keys that takes.
    pub fn keeps_from(&self, files: [Option<u8>; 2], names: &[usize], to_write: bool) -> bool {
        let place = &self.want.places[0];
        let is_of_it = files.iter().flatten().any(|file| place.node == node(*file));
        let is_above = place.node == Node::Directory
            || names.iter().any(|name| place.path.as_ref() == Some(&path(PATHS[*name])));
        match self.want.op {
            Op::Open(Access::Write) => is_of_it,
            Op::Open(Access::Read) => is_of_it && to_write,
            Op::Hold(_) => is_above,
            _ => false,
        }
    }
}

impl PartialEq for Wish {
    fn eq(&self, other: &Wish) -> bool {
        self.want == other.want
    }
}

impl Eq for Wish {}

impl Hash for Wish {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

fn named(name: usize, file: Option<u8>) -> Place {
    place(Some(PATHS[name]), file.map_or(Node::None, node))
}

fn place(name: Option<&str>, node: Node) -> Place {
    Place { space: SPACE, path: name.map(path), node }
}

fn node(file: u8) -> Node {
    Node::File(FileKey { volume: 1, inode: u64::from(file) + 1, generation: 0 })
}

fn path(text: &str) -> ViewPath {
    ViewPath::parse(text.as_bytes()).expect("a plain path")
}
