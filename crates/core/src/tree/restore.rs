//! A part of a tree as it was.
//!
//! What comes of it is a list of operations to be done to the tree as it is now. Done in their order, in one entry or in
//! several, they make that part look as it did: names, kinds, contents, modes, times, targets, extended attributes.
//! Nothing is read or sealed again. What was there and is deleted by now is shown again, so that its
//! history goes on; what was moved out of the part stays where it is, and is copied. Names that were given because
//! several things bore one, and versions that showed beside, become things of their own.

use std::collections::{HashMap, HashSet};

use super::content::Body;
use super::diff::Node;
use super::id::{FileId, LinkId, OpId};
use super::op::{Attribute, Content, Kind, Name, Op};
use super::record::{FileRecord, Place, Written};
use super::shown::{Directory, Lens, What};
use super::state::State;
use super::tables::Look;

/// So many extents are written again; of more it is said which version had them.
const EXTENTS_AGAIN_MAX: usize = 16;

/// Why something is not restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError<E> {
    /// It was not there then.
    NotThere,
    /// This is no directory now: move it out of the way, or restore that.
    InTheWay(Vec<Name>),
    Tables(E),
}

impl<E> From<E> for RestoreError<E> {
    fn from(error: E) -> RestoreError<E> {
        RestoreError::Tables(error)
    }
}

/// Returns what makes the part of `now` at a path as it was `then`; `fresh` gives random bytes.
///
/// `now` knows all that `then` does.
pub fn restore<T: Look, P: Look<Error: Into<T::Error>>>(
    now: &State<T>,
    then: &State<P>,
    path: &[Name],
    lens: &impl Lens,
    fresh: impl FnMut() -> [u8; 16],
) -> Result<Vec<Op>, RestoreError<T::Error>> {
    let mut was = What::Directory(Directory::root());
    let mut is = Some(was.clone());
    let mut place = None;
    let mut plan = Plan::new(now, then, lens, fresh);
    for (depth, name) in path.iter().enumerate() {
        let What::Directory(above) = &was else { return Err(RestoreError::NotThere) };
        let found = then.find(above, name, lens).map_err(Into::into)?;
        let found = found.filter(|what| !is_aside(what)).ok_or(RestoreError::NotThere)?;
        let parent = match &is {
            Some(What::Directory(directory)) => directory.first(),
            Some(_) => return Err(RestoreError::InTheWay(path[..depth].to_vec())),
            None => plan.put(place.take(), &was)?,
        };
        is = match is {
            Some(What::Directory(directory)) if depth + 1 == path.len() => {
                plan.fix_names(&directory, name)?;
                now.find(&directory, name, lens)?
            }
            Some(What::Directory(directory)) => now.find(&directory, name, lens)?,
            _ => None,
        };
        place = Some(Place { parent, name: name.clone() });
        was = found;
    }
    if let (Some(is @ What::Beside { .. }), true) = (&is, is.as_ref() == Some(&was))
        && is_like(now, &now.node(is, lens)?, then, &then.node(&was, lens).map_err(Into::into)?)?
    {
        return Ok(Vec::new());
    }
    let here = match is {
        Some(is) => all_in(now, is, lens)?,
        None => Vec::new(),
    };
    plan.here = here.iter().copied().collect();
    plan.wanted.extend(all_in(then, was.clone(), lens).map_err(Into::into)?);
    plan.put_all(place, was)?;
    let gone = here.into_iter().rev().filter(|link| !plan.kept.contains(link));
    plan.ops.extend(gone.map(|link| Op::Delete { link }));
    Ok(plan.ops)
}

/// Returns the links of something and of all in it, a directory before what is in it.
fn all_in<T: Look>(
    state: &State<T>,
    what: What,
    lens: &impl Lens,
) -> Result<Vec<LinkId>, T::Error> {
    let mut links = Vec::new();
    let mut left = vec![what];
    while let Some(what) = left.pop() {
        match what {
            What::Directory(directory) => {
                let named = directory.all().iter().filter(|file| **file != FileId::ROOT);
                links.extend(named.map(|file| LinkId::of_directory(*file)));
                let below = state.list(&directory, lens)?.into_iter().map(|shown| shown.what);
                left.extend(below.filter(|what| !is_aside(what)));
            }
            What::File { link, .. } => links.push(link),
            // It goes with the file's other versions.
            What::Beside { .. } => {}
        }
    }
    Ok(links)
}

/// Whether it only shows versions of files that are elsewhere: those go with the files.
fn is_aside(what: &What) -> bool {
    matches!(what, What::Directory(directory) if directory.is_aside())
}

struct Plan<'a, T, P, L, R> {
    now: &'a State<T>,
    then: &'a State<P>,
    lens: &'a L,
    fresh: R,
    /// What is there now.
    here: HashSet<LinkId>,
    /// What was there then.
    wanted: HashSet<LinkId>,
    /// What is there and stays.
    kept: HashSet<LinkId>,
    /// Directories that are made.
    made: HashSet<FileId>,
    /// Files that are made, by those of which they are copies.
    copies: HashMap<FileId, FileId>,
    /// Files whose content and attributes are set.
    set: HashSet<FileId>,
    ops: Vec<Op>,
}

impl<'a, T, P, L, R> Plan<'a, T, P, L, R>
where
    T: Look,
    P: Look<Error: Into<T::Error>>,
    L: Lens,
    R: FnMut() -> [u8; 16],
{
    fn new(now: &'a State<T>, then: &'a State<P>, lens: &'a L, fresh: R) -> Plan<'a, T, P, L, R> {
        Plan {
            now,
            then,
            lens,
            fresh,
            here: HashSet::new(),
            wanted: HashSet::new(),
            kept: HashSet::new(),
            made: HashSet::new(),
            copies: HashMap::new(),
            set: HashSet::new(),
            ops: Vec::new(),
        }
    }

    /// Makes names their own that others have instead of one: what comes there next leaves them alone.
    fn fix_names(&mut self, parent: &Directory, name: &Name) -> Result<(), T::Error> {
        let mut links = HashSet::new();
        for directory in parent.all() {
            links.extend(self.now.tables.named(*directory, name)?);
        }
        if links.len() < 2 {
            return Ok(());
        }
        for shown in self.now.list(parent, self.lens)?.into_iter().filter(|s| s.name != *name) {
            let ids = match &shown.what {
                What::Directory(directory) => {
                    directory.all().iter().map(|file| LinkId::of_directory(*file)).collect()
                }
                What::File { link, .. } => vec![*link],
                What::Beside { .. } => Vec::new(),
            };
            for link in ids.into_iter().filter(|link| links.contains(link)) {
                let Some(place) = self.now.link(link)?.place else { continue };
                let (parent, name) = (place.value.parent, shown.name.clone());
                self.ops.push(Op::Move { link, parent, name });
            }
        }
        Ok(())
    }

    /// Puts something and all that was in it where it was.
    fn put_all(&mut self, place: Option<Place>, was: What) -> Result<(), T::Error> {
        let mut left = vec![(place, was)];
        while let Some((place, was)) = left.pop() {
            let parent = self.put(place, &was)?;
            if let What::Directory(directory) = was {
                let below = self.then.list(&directory, self.lens).map_err(Into::into)?.into_iter();
                left.extend(
                    below.map(|shown| (Some(Place { parent, name: shown.name }), shown.what)),
                );
            }
        }
        Ok(())
    }

    /// Puts one thing there, and returns what it is by now.
    fn put(&mut self, place: Option<Place>, was: &What) -> Result<FileId, T::Error> {
        let (link, file) = match was {
            // Of what nobody made somebody makes one; what it showed are files of their own then.
            What::Directory(directory) if directory.is_aside() => {
                let place = place.expect("it has a name");
                return self.make_directory(place, was);
            }
            What::Directory(directory) => {
                (LinkId::of_directory(directory.first()), directory.first())
            }
            What::File { link, file } => (*link, *file),
            What::Beside { file, version, .. } => {
                let place = place.expect("the root is a directory");
                return self.copy(place, was, *file, Some(*version));
            }
        };
        let Some(place) = place else {
            self.set_like(file, file)?;
            return Ok(file);
        };
        let record = self.now.link(link)?;
        if record.is_shown && !self.here.contains(&link) {
            return match was {
                What::Directory(_) => self.make_directory(place, was),
                What::File { .. } | What::Beside { .. } => self.copy(place, was, file, None),
            };
        }
        let is_there = record.place.as_ref().is_some_and(|set| set.value == place);
        if !is_there || !record.is_alive() {
            // Who moves what was deleted shows it again.
            let Place { parent, name } = place;
            self.ops.push(Op::Move { link, parent, name });
        }
        self.kept.insert(link);
        if self.set.insert(file) {
            self.set_like(file, file)?;
        }
        Ok(file)
    }

    /// Finds what has that place and would go, and is as good as something new.
    fn stand_in(&mut self, place: &Place, was: &What) -> Result<Option<FileId>, T::Error> {
        let node = self.then.node(was, self.lens).map_err(Into::into)?;
        for link in self.now.tables.named(place.parent, &place.name)? {
            let is_free = self.here.contains(&link)
                && !self.wanted.contains(&link)
                && !self.kept.contains(&link);
            let record = self.now.link(link)?;
            let Some(born) = record.born.as_ref().filter(|_| is_free) else { continue };
            let file = born.value;
            let heads = self.now.file(file)?.heads.len();
            let is_like = match was {
                What::Directory(_) => file.is_directory(),
                _ => {
                    heads < 2
                        && is_like(self.now, &self.now.node_of(file, self.lens)?, self.then, &node)?
                }
            };
            if is_like {
                if !record.is_alive() {
                    // It was deleted, and shows for what is in it, which may go.
                    let Place { parent, name } = place.clone();
                    self.ops.push(Op::Move { link, parent, name });
                }
                self.kept.insert(link);
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    fn make_directory(&mut self, place: Place, was: &What) -> Result<FileId, T::Error> {
        if let Some(file) = self.stand_in(&place, was)? {
            self.set_like(file, was.file())?;
            return Ok(file);
        }
        let Place { parent, name } = place;
        let (mut file, mut former) = self.now.id_of_new_directory(parent, &name)?;
        while !self.made.insert(file) {
            former += 1;
            file = FileId::of_directory(parent, name.bytes(), former);
        }
        self.create(LinkId::of_directory(file), file, Place { parent, name }, former, was)?;
        Ok(file)
    }

    fn copy(
        &mut self,
        place: Place,
        was: &What,
        of: FileId,
        version: Option<OpId>,
    ) -> Result<FileId, T::Error> {
        if let Some(file) = self.stand_in(&place, was)? {
            return Ok(file);
        }
        let link = LinkId::of_file((self.fresh)());
        if let (None, Some(file)) = (version, self.copies.get(&of).copied()) {
            let Place { parent, name } = place;
            self.ops.push(Op::Link { link, file, parent, name });
            return Ok(file);
        }
        let file = FileId::of_file((self.fresh)());
        if version.is_none() {
            self.copies.insert(of, file);
        }
        self.create(link, file, place, 0, was)?;
        let record = self.then.file(of).map_err(Into::into)?;
        let is_file = matches!(&record.made, Some(made) if made.value == Kind::File);
        if version.is_none() && self.is_merged(was)? {
            let again = self.now.write_all_again(file, self.then, &record, Vec::new())?;
            self.ops.extend(again);
        } else if let Some(id) = version.or(record.winner().map(|(id, _)| *id)).filter(|_| is_file)
            && let Some(head) = record.heads.get(&id)
        {
            let op = self.now.write_again(file, id, head.size, Vec::new())?;
            self.ops.push(op);
        }
        Ok(file)
    }

    /// Whether something was shown as what several versions merge to: then it is that again if all of them are there.
    fn is_merged(&self, was: &What) -> Result<bool, T::Error> {
        Ok(self.then.node(was, self.lens).map_err(Into::into)?.held.merged.is_some())
    }

    fn create(
        &mut self,
        link: LinkId,
        file: FileId,
        place: Place,
        former: u32,
        was: &What,
    ) -> Result<(), T::Error> {
        let node = self.then.node(was, self.lens).map_err(Into::into)?;
        let record = self.then.file(was.file()).map_err(Into::into)?;
        let Place { parent, name } = place;
        let modified = record.modified.map(|set| set.value).unwrap_or_default();
        let (kind, mode) = (node.kind, node.mode);
        self.ops.push(Op::Create { link, file, parent, name, kind, mode, modified, former });
        for (name, value) in node.extended {
            let attribute = Attribute::Extended { name, value: Some(value) };
            self.ops.push(Op::SetAttr { file, attribute });
        }
        Ok(())
    }

    /// Gives what is known now the content and the attributes that something had.
    fn set_like(&mut self, file: FileId, was: FileId) -> Result<(), T::Error> {
        let then = self.then.node_of(was, self.lens).map_err(Into::into)?;
        let was = self.then.file(was).map_err(Into::into)?;
        let now = self.now.node_of(file, self.lens)?;
        let record: FileRecord = self.now.file(file)?;
        let mut set = |attribute| self.ops.push(Op::SetAttr { file, attribute });
        if then.mode != now.mode {
            set(Attribute::Mode(then.mode));
        }
        for name in now.extended.keys().filter(|name| !then.extended.contains_key(*name)) {
            set(Attribute::Extended { name: name.clone(), value: None });
        }
        for (name, value) in &then.extended {
            if now.extended.get(name) != Some(value) {
                set(Attribute::Extended { name: name.clone(), value: Some(value.clone()) });
            }
        }
        let is_like = self.now.holds(&now.held, self.then, &then.held)?;
        let is_one = record.heads.len() < 2 || now.held.merged.is_some();
        if !is_one || !is_like {
            let heads = record.heads.keys().copied().collect();
            let again = match was.winner().filter(|_| then.kind == Kind::File) {
                Some(_) if then.held.merged.is_some() => {
                    self.now.write_all_again(file, self.then, &was, heads)?
                }
                Some((id, head)) => vec![self.now.write_again(file, *id, head.size, heads)?],
                None if is_like => vec![Op::Resolve { file, given_up: heads }],
                None => vec![empty(file, heads)],
            };
            self.ops.extend(again);
        }
        let modified = |record: &FileRecord| record.modified.as_ref().map(|set| set.value);
        if let Some(stamp) = modified(&was)
            && modified(&record) != Some(stamp)
        {
            let attribute = Attribute::Modified(stamp);
            self.ops.push(Op::SetAttr { file, attribute });
        }
        Ok(())
    }
}

impl<T: Look> State<T> {
    /// Returns what writes a version again that is known here: the same chunks, in few bytes.
    pub fn write_again(
        &self,
        file: FileId,
        version: OpId,
        size: u64,
        mut base: Vec<OpId>,
    ) -> Result<Op, T::Error> {
        let content = match self.body(version)?.unwrap_or_default() {
            Body::Extents(extents) if extents.len() > EXTENTS_AGAIN_MAX => {
                let of = self.first_written(version)?;
                if !base.contains(&of) {
                    base.push(of);
                }
                Content::Patch { of, zeros: Vec::new(), extents: Vec::new() }
            }
            body => body.into(),
        };
        Ok(Op::Write { file, size, content, base, fence: None })
    }

    /// Returns what writes all versions of a file again that it had, the one that bore its name last: in place of `base`
    /// and, as they came, of what they have in common, so that those which merged merge again.
    pub(super) fn write_all_again<P: Look<Error: Into<T::Error>>>(
        &self,
        file: FileId,
        then: &State<P>,
        record: &FileRecord,
        mut base: Vec<OpId>,
    ) -> Result<Vec<Op>, T::Error> {
        let heads: Vec<_> = record.heads.keys().copied().collect();
        let common = match &heads[..] {
            [_] => None,
            several => then.common_base(several).map_err(Into::into)?,
        };
        let mut ops = Vec::new();
        for (id, version) in record.by_rank().into_iter().rev() {
            let mut base = std::mem::take(&mut base);
            base.extend(common.filter(|common| !base.contains(common)));
            ops.push(self.write_again(file, *id, version.size, base)?);
        }
        Ok(ops)
    }

    /// Returns the version that one only writes again: what goes there and back puts no patches on one another.
    fn first_written(&self, version: OpId) -> Result<OpId, T::Error> {
        let mut at = version;
        let mut here = self.tables.version(at)?;
        while let Some(Written { size, content: Content::Patch { of, zeros, extents }, .. }) = here
        {
            let beneath = self.tables.version(of)?;
            let is_same = beneath.as_ref().is_some_and(|beneath| beneath.size == size);
            if !is_same || !zeros.is_empty() || !extents.is_empty() {
                break;
            }
            (at, here) = (of, beneath);
        }
        Ok(at)
    }
}

/// Whether something looks like something in another tree.
fn is_like<T: Look, P: Look<Error: Into<T::Error>>>(
    now: &State<T>,
    here: &Node,
    then: &State<P>,
    there: &Node,
) -> Result<bool, T::Error> {
    let is_like =
        (&here.kind, here.mode, &here.extended) == (&there.kind, there.mode, &there.extended);
    Ok(is_like && now.holds(&here.held, then, &there.held)?)
}

/// Returns what makes a file empty.
pub(super) fn empty(file: FileId, base: Vec<OpId>) -> Op {
    Op::Write { file, size: 0, content: Content::EMPTY, base, fence: None }
}
