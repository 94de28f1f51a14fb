//! What differs between two trees, as people see them.
//!
//! Done to a tree that looks like the one, in this order, the changes make one that looks like the other: what
//! was renamed is taken out with all in it, the deepest first; what was removed goes; what was added or renamed is put in,
//! in the order of the paths; the rest is changed where it then lies. Times are nothing that differs.
//!
//! A directory does not know what lies somewhere beneath it: all that both trees have is looked at, unless the
//! trees are the same altogether, which their sums tell.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::mem::{discriminant, take};
use std::ops::Bound;
use std::sync::Arc;

use super::content::Body;
use super::id::{FileId, LinkId, OpId};
use super::op::{Kind, Name};
use super::record::FileRecord;
use super::shown::{Directory, Lens, Merged, What};
use super::state::State;
use super::tables::Look;

/// The mode of what nobody gave one: the directory without a name.
pub const MODE_DEFAULT: u32 = 0o755;

/// All that people see of something but its name and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    pub mode: u32,
    pub held: Held,
    pub extended: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a file holds: so many bytes, of a version that the tree knows in which it was found, or of none. What is no file
/// holds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub size: u64,
    pub version: Option<OpId>,
    /// What several versions merge to.
    pub merged: Option<Arc<Body>>,
}

/// One difference, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of what was removed the path that it had, of all else the one that it has now.
    pub path: Vec<Name>,
    pub what: Difference,
}

/// What is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is gone. What was in it is told of for itself.
    Removed(Node),
    /// It is new. What is in it is told of for itself.
    Added(Node),
    /// It was there, with all in it of which nothing else is told.
    Renamed {
        from: Vec<Name>,
    },
    Content {
        before: Held,
        after: Held,
    },
    /// A symbolic link leads elsewhere.
    Target {
        before: Vec<u8>,
        after: Vec<u8>,
    },
    Mode {
        before: u32,
        after: u32,
    },
    /// An extended attribute; nothing where it is not set.
    Extended {
        name: Vec<u8>,
        before: Option<Vec<u8>>,
        after: Option<Vec<u8>>,
    },
}

impl<T: Look> State<T> {
    /// Returns what people see of something.
    pub fn node(&self, what: &What, lens: &impl Lens) -> Result<Node, T::Error> {
        match what {
            What::Directory(_) | What::File { .. } => self.node_of(what.file(), lens),
            What::Beside { file, version, .. } => {
                Ok(Node::of_version(self.file(*file)?, *file, Some(*version)))
            }
        }
    }

    /// As `node`, of what bears a name.
    pub(super) fn node_of(&self, file: FileId, lens: &impl Lens) -> Result<Node, T::Error> {
        let record = self.file(file)?;
        let merged = self.merged(&record, lens)?;
        let node = Node::of_version(record, file, None);
        Ok(match merged {
            Some(Merged { size, body }) => {
                let held = Held { size, version: None, merged: Some(body) };
                Node { held, ..node }
            }
            None => node,
        })
    }

    /// Returns the bytes that something holds which was found in this tree.
    pub fn body_of(&self, held: &Held) -> Result<Body, T::Error> {
        if let Some(merged) = &held.merged {
            return Ok(Body::clone(merged));
        }
        let body = held.version.map(|version| self.body(version)).transpose()?;
        Ok(body.flatten().unwrap_or_default())
    }

    /// Whether a file holds what one of another tree does.
    pub(super) fn holds<O: Look, E>(
        &self,
        held: &Held,
        other: &State<O>,
        its: &Held,
    ) -> Result<bool, E>
    where
        T::Error: Into<E>,
        O::Error: Into<E>,
    {
        // A version is the same wherever it is known.
        if held == its || held.size != its.size {
            return Ok(held == its);
        }
        let body = self.body_of(held).map_err(Into::into)?;
        Ok(body == other.body_of(its).map_err(Into::into)?)
    }
}

impl Node {
    /// Where no version is named it is the one that bears the name.
    fn of_version(record: FileRecord, file: FileId, version: Option<OpId>) -> Node {
        let head = match version {
            Some(id) => record.heads.get_key_value(&id),
            None => record.winner(),
        };
        let held =
            head.map(|(id, head)| Held { size: head.size, version: Some(*id), merged: None });
        let made = record.made.map(|made| made.value);
        // Nobody makes the root, nor a directory that shows versions.
        let kind = if file.is_directory() { Some(Kind::Directory) } else { made };
        let kind = kind.unwrap_or(Kind::File);
        // Nobody reads what was written into a symbolic link.
        let held = held.filter(|_| kind == Kind::File).unwrap_or_default();
        let extended = record.extended.into_iter();
        Node {
            kind,
            mode: record.mode.map_or(MODE_DEFAULT, |mode| mode.value),
            held,
            extended: extended.filter_map(|(name, set)| Some((name, set.value?))).collect(),
        }
    }
}

/// Returns what differs, by path.
pub fn diff<A: Look, B: Look, E: From<A::Error> + From<B::Error>>(
    before: &State<A>,
    after: &State<B>,
    lens: &impl Lens,
) -> Result<Vec<Change>, E> {
    if before.root()? == after.root()? {
        return Ok(Vec::new());
    }
    let mut walk = Walk {
        before,
        after,
        lens,
        gone: Side::default(),
        come: Side::default(),
        renamed: HashSet::new(),
        moved: BTreeSet::new(),
        pairs: Vec::new(),
        changes: Vec::new(),
    };
    let root = What::Directory(Directory::root());
    walk.meet::<E>(Vec::new(), &root, Vec::new(), &root)?;
    walk.follow_pairs::<E>()?;
    walk.follow_renames::<E>()?;
    walk.tell_the_rest::<E>()?;
    let Walk { mut changes, moved, .. } = walk;
    // Several directories of one name show as one: what goes from one to another of them stays where it is.
    changes.retain(|Change { path, what }| match what {
        Difference::Renamed { from } => from != path || lies_in(path, &moved),
        _ => true,
    });
    // What is removed there is told of before what came instead.
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// Returns by what something is known under another name.
fn key(what: &What) -> Option<LinkId> {
    match what {
        What::Directory(directory) => Some(LinkId::of_directory(directory.first())),
        What::File { link, .. } => Some(*link),
        What::Beside { .. } => None,
    }
}

/// What is in one tree and, under that path, not in the other.
#[derive(Default)]
struct Side {
    nodes: BTreeMap<Vec<Name>, What>,
    paths: HashMap<LinkId, Vec<Name>>,
    /// Where something was that was told of as renamed: what is in it is told of with that.
    taken: BTreeSet<Vec<Name>>,
}

impl Side {
    fn put(&mut self, path: Vec<Name>, what: What) {
        if let Some(key) = key(&what) {
            self.paths.insert(key, path.clone());
        }
        self.nodes.insert(path, what);
    }

    /// Takes out what is at a path and what is told of with that.
    fn take(&mut self, path: &[Name]) -> Option<What> {
        let beneath = self.nodes.range(path.to_vec()..).map(|(path, _)| path);
        let beneath = beneath.take_while(|at| at.starts_with(path));
        let is_with_it = |at: &Vec<Name>| {
            (path.len() + 1..=at.len()).all(|end| !self.taken.contains(&at[..end]))
        };
        let beneath: Vec<_> = beneath.filter(|at| is_with_it(at)).cloned().collect();
        self.taken.insert(path.to_vec());
        let mut first = None;
        for at in beneath {
            let what = self.nodes.remove(&at);
            if let Some(key) = what.as_ref().and_then(key) {
                self.paths.remove(&key);
            }
            first = first.or(what);
        }
        first
    }
}

/// A directory that is in both trees, and where.
struct Pair {
    before: (Vec<Name>, Directory),
    after: (Vec<Name>, Directory),
}

struct Walk<'a, A, B, L> {
    before: &'a State<A>,
    after: &'a State<B>,
    lens: &'a L,
    gone: Side,
    come: Side,
    /// What was told of as renamed.
    renamed: HashSet<LinkId>,
    /// Where that was, and where it is now.
    moved: BTreeSet<Vec<Name>>,
    pairs: Vec<Pair>,
    changes: Vec<Change>,
}

impl<A: Look, B: Look, L: Lens> Walk<'_, A, B, L> {
    /// Compares what is one thing in both trees.
    fn meet<E: From<A::Error> + From<B::Error>>(
        &mut self,
        from: Vec<Name>,
        before: &What,
        path: Vec<Name>,
        after: &What,
    ) -> Result<(), E> {
        self.compare::<E>(
            &path,
            self.before.node(before, self.lens)?,
            self.after.node(after, self.lens)?,
        )?;
        if let (What::Directory(before), What::Directory(after)) = (before, after) {
            self.pairs.push(Pair { before: (from, before.clone()), after: (path, after.clone()) });
        }
        Ok(())
    }

    fn follow_pairs<E: From<A::Error> + From<B::Error>>(&mut self) -> Result<(), E> {
        while let Some(Pair { before, after }) = self.pairs.pop() {
            let mut there: BTreeMap<Name, What> = by_name(self.before.list(&before.1, self.lens)?);
            for (name, what) in by_name(self.after.list(&after.1, self.lens)?) {
                let path = joined(&after.0, &name);
                let is_same = |there: &What| match (there, &what) {
                    (What::Beside { .. }, What::Beside { .. }) => true,
                    (there, here) => key(there).is_some() && key(there) == key(here),
                };
                if there.get(&name).is_some_and(is_same) {
                    let from = joined(&before.0, &name);
                    let was = there.remove(&name).expect("it was found");
                    self.meet::<E>(from, &was, path, &what)?;
                } else {
                    expand(self.after, self.lens, &self.renamed, path, what, &mut self.come)?;
                }
            }
            for (name, what) in there {
                let path = joined(&before.0, &name);
                expand(self.before, self.lens, &self.renamed, path, what, &mut self.gone)?;
            }
        }
        Ok(())
    }

    /// Finds what is somewhere else now. What is in it is compared at its new place.
    fn follow_renames<E: From<A::Error> + From<B::Error>>(&mut self) -> Result<(), E> {
        let mut next = self.gone.nodes.first_key_value().map(|(path, _)| path.clone());
        while let Some(from) = next {
            let key = self.gone.nodes.get(&from).and_then(key);
            let to = key.and_then(|key| self.come.paths.get(&key)).cloned();
            if let (Some(key), Some(path)) = (key, to) {
                self.renamed.insert(key);
                let was = self.gone.take(&from).expect("it is the next");
                let is = self.come.take(&path).expect("it was found there");
                if from != path {
                    self.moved.extend([from.clone(), path.clone()]);
                }
                let what = Difference::Renamed { from: from.clone() };
                self.changes.push(Change { path: path.clone(), what });
                self.meet::<E>(from.clone(), &was, path, &is)?;
                self.follow_pairs::<E>()?;
            }
            // What was found in it lies beneath it, and so after it.
            let after = (Bound::Excluded(from), Bound::Unbounded);
            next = self.gone.nodes.range(after).next().map(|(path, _)| path.clone());
        }
        Ok(())
    }

    fn tell_the_rest<E: From<A::Error> + From<B::Error>>(&mut self) -> Result<(), E> {
        let mut come = take(&mut self.come.nodes);
        for (path, what) in take(&mut self.gone.nodes) {
            let before = self.before.node(&what, self.lens)?;
            let after = come.get(&path).map(|what| self.after.node(what, self.lens)).transpose()?;
            let is_like = |after: &Node| {
                let is_kind = discriminant(&after.kind) == discriminant(&before.kind);
                is_kind && !lies_in(&path, &self.moved)
            };
            match after.filter(is_like) {
                Some(after) => {
                    come.remove(&path);
                    self.compare::<E>(&path, before, after)?;
                }
                None => self.changes.push(Change { path, what: Difference::Removed(before) }),
            }
        }
        for (path, what) in come {
            let what = Difference::Added(self.after.node(&what, self.lens)?);
            self.changes.push(Change { path, what });
        }
        Ok(())
    }

    fn compare<E: From<A::Error> + From<B::Error>>(
        &mut self,
        path: &[Name],
        before: Node,
        after: Node,
    ) -> Result<(), E> {
        let is_same = self.before.holds::<_, E>(&before.held, self.after, &after.held)?;
        let mut tell = |what| self.changes.push(Change { path: path.to_vec(), what });
        if let (Kind::Symlink(before), Kind::Symlink(after)) = (&before.kind, &after.kind)
            && before != after
        {
            tell(Difference::Target { before: before.clone(), after: after.clone() });
        }
        if !is_same {
            let (before, after) = (before.held, after.held);
            tell(Difference::Content { before, after });
        }
        if before.mode != after.mode {
            tell(Difference::Mode { before: before.mode, after: after.mode });
        }
        for (name, value) in &before.extended {
            if after.extended.get(name) != Some(value) {
                let (name, before) = (name.clone(), Some(value.clone()));
                let after = after.extended.get(&name).cloned();
                tell(Difference::Extended { name, before, after });
            }
        }
        for (name, value) in after.extended {
            if !before.extended.contains_key(&name) {
                tell(Difference::Extended { name, before: None, after: Some(value) });
            }
        }
        Ok(())
    }
}

/// Puts something and all in it on a side, but for what was told of as renamed.
fn expand<T: Look>(
    state: &State<T>,
    lens: &impl Lens,
    renamed: &HashSet<LinkId>,
    path: Vec<Name>,
    what: What,
    side: &mut Side,
) -> Result<(), T::Error> {
    let mut left = vec![(path, what)];
    while let Some((path, what)) = left.pop() {
        if key(&what).is_some_and(|key| renamed.contains(&key)) {
            continue;
        }
        if let What::Directory(directory) = &what {
            let below = state.list(directory, lens)?.into_iter();
            left.extend(below.map(|shown| (joined(&path, &shown.name), shown.what)));
        }
        side.put(path, what);
    }
    Ok(())
}

/// Whether something lies in a directory that has another place, or is at one where another came.
fn lies_in(path: &[Name], moved: &BTreeSet<Vec<Name>>) -> bool {
    (1..path.len()).any(|end| moved.contains(&path[..end]))
}

fn by_name(list: Vec<super::shown::Shown>) -> BTreeMap<Name, What> {
    list.into_iter().map(|shown| (shown.name, shown.what)).collect()
}

fn joined(path: &[Name], name: &Name) -> Vec<Name> {
    path.iter().chain([name]).cloned().collect()
}
