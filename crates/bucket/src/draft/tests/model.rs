//! A tree of paths as everybody knows them, to compare with.

use std::collections::BTreeMap;

use proptest::prelude::*;

/// What is done at paths.
#[derive(Clone, Debug)]
pub enum Act {
    MakeDirectory(String, u32),
    MakeDirectories(String, u32),
    Put(String, Vec<u8>, u32),
    Symlink(String, Vec<u8>),
    Link(String, String),
    Remove(String),
    RemoveAll(String),
    Rename(String, String),
    Mode(String, u32),
    Modified(String, i64),
    Extended(String, Option<Vec<u8>>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    File(Vec<u8>),
    Directory,
    Symlink(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub thing: Thing,
    pub mode: u32,
    pub modified: i64,
    pub extended: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Paths, and the nodes that they lead to: a file may have several.
#[derive(Clone, Debug)]
pub struct Model {
    paths: BTreeMap<String, usize>,
    nodes: Vec<Node>,
}

type Outcome = Result<(), &'static str>;

pub fn act() -> impl Strategy<Value = Act> {
    let names = prop::sample::select(vec!["a", "b", "c~1", "d@x"]);
    let at = prop::collection::vec(names, 0..4)
        .prop_map(|names| names.iter().flat_map(|name| ["/", name]).collect::<String>());
    let bytes = prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (1..9_u8).prop_map(|byte| vec![byte; 3000]),
    ];
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..4));
    let mode = 0..0o1000_u32;
    prop_oneof![
        4 => (at.clone(), mode.clone()).prop_map(|(at, mode)| Act::MakeDirectory(at, mode)),
        2 => (at.clone(), mode.clone()).prop_map(|(at, mode)| Act::MakeDirectories(at, mode)),
        6 => (at.clone(), bytes, mode.clone()).prop_map(|(at, b, mode)| Act::Put(at, b, mode)),
        1 => (at.clone(), 1..9_u8).prop_map(|(at, to)| Act::Symlink(at, vec![to; 3])),
        2 => (at.clone(), at.clone()).prop_map(|(at, other)| Act::Link(at, other)),
        2 => at.clone().prop_map(Act::Remove),
        1 => at.clone().prop_map(Act::RemoveAll),
        6 => (at.clone(), at.clone()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => (at.clone(), mode).prop_map(|(at, mode)| Act::Mode(at, mode)),
        1 => (at.clone(), 0..9_i64).prop_map(|(at, seconds)| Act::Modified(at, seconds)),
        2 => (at, value).prop_map(|(at, value)| Act::Extended(at, value)),
    ]
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Where the names of a path end.
fn ends(path: &str) -> impl Iterator<Item = usize> {
    let inner = path.match_indices('/').skip(1).map(|(end, _)| end);
    inner.chain((!path.is_empty()).then_some(path.len()))
}

impl Model {
    pub fn new() -> Model {
        let root = node(Thing::Directory, 0, 0);
        Model { paths: [(String::new(), 0)].into(), nodes: vec![root] }
    }

    pub fn told(&self) -> BTreeMap<String, Node> {
        let paths = self.paths.iter();
        paths.map(|(path, id)| (path.clone(), self.nodes[*id].clone())).collect()
    }

    pub fn act(&mut self, act: &Act) -> Outcome {
        match act {
            Act::MakeDirectory(at, mode) => {
                self.check_vacant(at)?;
                self.add(at, node(Thing::Directory, *mode, (*mode).into()));
            }
            Act::MakeDirectories(at, mode) => {
                for end in ends(at) {
                    match self.paths.get(&at[..end]) {
                        Some(id) => check(!self.is_directory(*id), "NotADirectory")?,
                        None => {
                            self.add(&at[..end], node(Thing::Directory, *mode, (*mode).into()));
                        }
                    }
                }
            }
            Act::Put(at, bytes, mode) => self.put(at, bytes, *mode)?,
            Act::Symlink(at, target) => {
                self.check_vacant(at)?;
                self.add(at, node(Thing::Symlink(target.clone()), 0o777, 3));
            }
            Act::Link(at, other) => {
                let id = self.walk(at)?;
                check(self.is_directory(id), "IsADirectory")?;
                self.check_vacant(other)?;
                self.paths.insert(other.clone(), id);
            }
            Act::Remove(at) | Act::RemoveAll(at) => {
                self.walk(at)?;
                check(at.is_empty(), "IsRoot")?;
                let gone = self.beneath(at);
                check(matches!(act, Act::Remove(_)) && gone.len() > 1, "NotEmpty")?;
                self.paths.retain(|path, _| !gone.contains(path));
            }
            Act::Rename(from, to) => self.rename(from, to)?,
            Act::Mode(at, mode) => self.node(at)?.mode = *mode,
            Act::Modified(at, seconds) => self.node(at)?.modified = *seconds,
            Act::Extended(at, Some(value)) => {
                self.node(at)?.extended.insert(b"user.x".to_vec(), value.clone());
            }
            Act::Extended(at, None) => drop(self.node(at)?.extended.remove(&b"user.x"[..])),
        }
        Ok(())
    }

    fn put(&mut self, at: &str, bytes: &[u8], mode: u32) -> Outcome {
        check(at.is_empty(), "IsADirectory")?;
        self.check_directory(parent(at))?;
        let new = node(Thing::File(bytes.to_vec()), mode, mode.into());
        let Some(id) = self.paths.get(at) else {
            self.add(at, new);
            return Ok(());
        };
        let there = &mut self.nodes[*id];
        match there.thing {
            Thing::Directory => return Err("IsADirectory"),
            Thing::Symlink(_) => return Err("Exists"),
            Thing::File(_) => *there = Node { extended: there.extended.clone(), ..new },
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Outcome {
        let id = self.walk(from)?;
        check(from.is_empty() || to.is_empty(), "IsRoot")?;
        if from == to {
            return Ok(());
        }
        let is_directory = self.is_directory(id);
        self.check_directory(parent(to))?;
        check(is_directory && to.starts_with(&format!("{from}/")), "IntoItself")?;
        if let Some(there) = self.paths.get(to).copied() {
            match (is_directory, self.is_directory(there)) {
                (true, true) => check(self.beneath(to).len() > 1, "NotEmpty")?,
                (true, false) => return Err("NotADirectory"),
                (false, true) => return Err("IsADirectory"),
                (false, false) if id == there => return Ok(()),
                (false, false) => {}
            }
        }
        for path in self.beneath(from) {
            let id = self.paths.remove(&path).expect("it is beneath");
            self.paths.insert(format!("{to}{}", &path[from.len()..]), id);
        }
        Ok(())
    }

    fn node(&mut self, at: &str) -> Result<&mut Node, &'static str> {
        let id = self.walk(at)?;
        Ok(&mut self.nodes[id])
    }

    fn walk(&self, at: &str) -> Result<usize, &'static str> {
        let mut id = 0;
        for end in ends(at) {
            check(!self.is_directory(id), "NotADirectory")?;
            id = *self.paths.get(&at[..end]).ok_or("NotFound")?;
        }
        Ok(id)
    }

    fn check_directory(&self, at: &str) -> Outcome {
        let id = self.walk(at)?;
        check(!self.is_directory(id), "NotADirectory")
    }

    /// Checks that something can be made there.
    fn check_vacant(&self, at: &str) -> Outcome {
        check(at.is_empty(), "Exists")?;
        self.check_directory(parent(at))?;
        check(self.paths.contains_key(at), "Exists")
    }

    fn add(&mut self, at: &str, node: Node) {
        self.paths.insert(at.to_owned(), self.nodes.len());
        self.nodes.push(node);
    }

    fn is_directory(&self, id: usize) -> bool {
        self.nodes[id].thing == Thing::Directory
    }

    /// Returns a path and all that lead on from there.
    fn beneath(&self, at: &str) -> Vec<String> {
        let start = format!("{at}/");
        let paths = self.paths.keys();
        paths.filter(|path| *path == at || path.starts_with(&start)).cloned().collect()
    }
}

fn node(thing: Thing, mode: u32, modified: i64) -> Node {
    Node { thing, mode, modified, extended: BTreeMap::new() }
}

fn check(is_wrong: bool, why: &'static str) -> Outcome {
    if is_wrong { Err(why) } else { Ok(()) }
}
