//! What an entry did, taken back.
//!
//! Only what the entry changed is changed back, and only if nothing later changed the same: who undoes loses
//! nothing that came after. What several things of one name were called, and which showed, may come out another way.

use std::collections::{BTreeMap, BTreeSet};

use super::id::{FileId, LinkId, OpId};
use super::op::{Attribute, Name, Op};
use super::record::{FileRecord, Place, Set};
use super::restore::empty;
use super::state::State;
use super::tables::Look;

/// Names that are read from a table at once.
const NAMES_AT_ONCE: usize = 1024;

/// Why an entry is not undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UndoError<E> {
    /// Something later changed the same: undo that first, or restore what is wanted of it.
    Changed(BTreeSet<Vec<Name>>),
    Tables(E),
}

impl<E> From<E> for UndoError<E> {
    fn from(error: E) -> UndoError<E> {
        UndoError::Tables(error)
    }
}

/// Returns what takes back the operations that made `after` of `before`, in a tree that knows them.
pub fn undo<T: Look, P: Look<Error: Into<T::Error>>>(
    ops: &[Op],
    before: &State<P>,
    after: &State<P>,
    now: &State<T>,
) -> Result<Vec<Op>, UndoError<T::Error>> {
    let mut back = Back {
        before,
        after,
        now,
        moves: BTreeMap::new(),
        deletes: BTreeSet::new(),
        changed: BTreeSet::new(),
        ops: Vec::new(),
    };
    let (links, files) = touched(ops);
    links.into_iter().try_for_each(|link| back.name(link))?;
    back.check_places()?;
    back.put_back()?;
    files.into_iter().try_for_each(|file| back.file(file))?;
    match back.changed.is_empty() {
        true => {
            back.ops.extend(back.deletes.into_iter().map(|link| Op::Delete { link }));
            Ok(back.ops)
        }
        false => Err(UndoError::Changed(back.changed)),
    }
}

fn touched(ops: &[Op]) -> (BTreeSet<LinkId>, BTreeSet<FileId>) {
    let (mut links, mut files) = (BTreeSet::new(), BTreeSet::new());
    for op in ops {
        match op {
            Op::Create { link, file, .. } => {
                links.insert(*link);
                files.insert(*file);
            }
            Op::Link { link, .. } | Op::Move { link, .. } | Op::Delete { link } => {
                links.insert(*link);
            }
            Op::Write { file, .. } | Op::SetAttr { file, .. } | Op::Resolve { file, .. } => {
                files.insert(*file);
            }
        }
    }
    (links, files)
}

struct Back<'a, P, T> {
    before: &'a State<P>,
    after: &'a State<P>,
    now: &'a State<T>,
    /// Names that are put back, and where.
    moves: BTreeMap<LinkId, Place>,
    /// Names that go.
    deletes: BTreeSet<LinkId>,
    /// What something later changed.
    changed: BTreeSet<Vec<Name>>,
    ops: Vec<Op>,
}

impl<P: Look<Error: Into<T::Error>>, T: Look> Back<'_, P, T> {
    fn name(&mut self, link: LinkId) -> Result<(), T::Error> {
        let (before, was_alive) = place(self.before, link).map_err(Into::into)?;
        let (after, is_alive) = place(self.after, link).map_err(Into::into)?;
        // What is shown for what is in it alone is as good as alive.
        if value_of(&before) == value_of(&after) && (is_alive || !was_alive) {
            return Ok(());
        }
        if place(self.now, link)? != (after, is_alive) {
            let path = self.path(link)?;
            self.changed.insert(path);
        }
        match before {
            Some(place) => drop(self.moves.insert(link, place.value)),
            None => drop(self.deletes.insert(link)),
        }
        Ok(())
    }

    /// Whether a name is not shown any more where it is.
    fn leaves(&self, link: LinkId, parent: FileId, name: &Name) -> bool {
        let goes = |to: &Place| to.parent != parent || to.name != *name;
        self.deletes.contains(&link) || self.moves.get(&link).is_some_and(goes)
    }

    /// Finds what came into the way of what goes back.
    fn check_places(&mut self) -> Result<(), T::Error> {
        let mut in_the_way = Vec::new();
        for (link, Place { parent, name }) in &self.moves {
            let former = self.before.tables.named(*parent, name).map_err(Into::into)?;
            for other in self.now.tables.named(*parent, name)? {
                let is_new = other != *link && !former.contains(&other);
                if is_new && !self.leaves(other, *parent, name) {
                    in_the_way.push(other);
                }
            }
        }
        for link in self.deletes.iter().filter(|link| link.is_directory()) {
            let Some(born) = self.now.link(*link)?.born else { continue };
            in_the_way.extend(self.staying(born.value)?);
        }
        for link in in_the_way {
            let path = self.path(link)?;
            self.changed.insert(path);
        }
        Ok(())
    }

    /// Returns what stays in a directory and came there with the entry or after it.
    fn staying(&self, directory: FileId) -> Result<Vec<LinkId>, T::Error> {
        let (mut staying, mut last) = (Vec::new(), None);
        loop {
            let some = self.now.tables.names(directory, last.as_ref(), NAMES_AT_ONCE)?;
            let Some((name, _)) = some.last() else { return Ok(staying) };
            last = Some(name.clone());
            for (name, links) in some {
                // Before, too, it may have been deleted and shown for what was in it.
                let former = self.before.tables.named(directory, &name).map_err(Into::into)?;
                let stays = |l: &LinkId| !former.contains(l) && !self.leaves(*l, directory, &name);
                staying.extend(links.into_iter().filter(stays));
            }
        }
    }

    /// Puts names where they were, a directory before what is in it.
    fn put_back(&mut self) -> Result<(), T::Error> {
        let mut order = Vec::new();
        for link in self.moves.keys() {
            match self.depth(*link)? {
                Some(depth) => order.push((depth, *link)),
                // Something was put into it in which it was before.
                None => {
                    let path = self.path(*link)?;
                    self.changed.insert(path);
                }
            }
        }
        order.sort_unstable();
        for (_, link) in order {
            let Place { parent, name } = self.moves[&link].clone();
            self.ops.push(Op::Move { link, parent, name });
        }
        Ok(())
    }

    /// Returns how deep something lies when all is put back, if that is not in itself.
    fn depth(&self, link: LinkId) -> Result<Option<usize>, T::Error> {
        let mut met = BTreeSet::new();
        let mut at = link;
        while met.insert(at) {
            let place = match self.moves.get(&at) {
                Some(place) => Some(place.clone()),
                None => self.now.link(at)?.place.map(|set| set.value),
            };
            match place {
                Some(place) if place.parent != FileId::ROOT => {
                    at = LinkId::of_directory(place.parent);
                }
                _ => return Ok(Some(met.len())),
            }
        }
        Ok(None)
    }

    fn file(&mut self, file: FileId) -> Result<(), T::Error> {
        let before = self.before.file(file).map_err(Into::into)?;
        let after = self.after.file(file).map_err(Into::into)?;
        let now = self.now.file(file)?;
        let heads = |record: &FileRecord| record.heads.keys().copied().collect::<Vec<_>>();
        let is_same_now = heads(&after) == heads(&now);
        let mut is_changed = false;
        if before.made.is_none() {
            // It goes, and nothing that was done to it since.
            is_changed |= !is_same_now || after.mode != now.mode || after.extended != now.extended;
        } else {
            if heads(&before) != heads(&after) {
                is_changed |= !is_same_now;
                self.write_back(file, &before, heads(&now))?;
            }
            is_changed |= self.set_back(file, &before, &after, &now);
        }
        if is_changed {
            let link = now.links.first().or(after.links.first());
            let path = link.map_or(Ok(Vec::new()), |link| self.path(*link))?;
            self.changed.insert(path);
        }
        Ok(())
    }

    /// Writes all versions again that a file had.
    fn write_back(
        &mut self,
        file: FileId,
        before: &FileRecord,
        base: Vec<OpId>,
    ) -> Result<(), T::Error> {
        let again = match before.heads.is_empty() {
            true => vec![empty(file, base)],
            false => self.now.write_all_again(file, self.before, before, base)?,
        };
        self.ops.extend(again);
        Ok(())
    }

    /// Sets attributes as they were, and returns whether something later set them.
    fn set_back(
        &mut self,
        file: FileId,
        before: &FileRecord,
        after: &FileRecord,
        now: &FileRecord,
    ) -> bool {
        let mut is_changed = false;
        let mut set = |attribute| self.ops.push(Op::SetAttr { file, attribute });
        if let Some(mode) = value_of(&before.mode)
            && Some(mode) != value_of(&after.mode)
        {
            is_changed |= after.mode != now.mode;
            set(Attribute::Mode(*mode));
        }
        for (name, to) in &after.extended {
            let value = before.extended.get(name).and_then(|set| set.value.clone());
            if value != to.value {
                is_changed |= now.extended.get(name) != Some(to);
                set(Attribute::Extended { name: name.clone(), value });
            }
        }
        // Times are no change that anybody is asked about.
        if let Some(stamp) = value_of(&before.modified)
            && Some(stamp) != value_of(&after.modified)
            && after.modified == now.modified
        {
            set(Attribute::Modified(*stamp));
        }
        is_changed
    }

    /// Returns what something is called, now or when the entry was made.
    fn path(&self, link: LinkId) -> Result<Vec<Name>, T::Error> {
        match place(self.now, link)?.0 {
            Some(_) => path(self.now, link),
            None => path(self.after, link).map_err(Into::into),
        }
    }
}

/// Returns where a name is, if people see it, and whether it is not deleted.
fn place<T: Look>(state: &State<T>, link: LinkId) -> Result<(Option<Set<Place>>, bool), T::Error> {
    let record = state.link(link)?;
    let is_alive = record.is_alive();
    Ok((record.place.filter(|_| record.is_shown), is_alive))
}

/// Returns the path of a name, whoever else bears it.
fn path<T: Look>(state: &State<T>, link: LinkId) -> Result<Vec<Name>, T::Error> {
    let mut path = Vec::new();
    let mut at = link;
    while let Some(Set { value, .. }) = state.link(at)?.place {
        path.push(value.name);
        if value.parent == FileId::ROOT {
            break;
        }
        at = LinkId::of_directory(value.parent);
    }
    path.reverse();
    Ok(path)
}

fn value_of<T>(set: &Option<Set<T>>) -> Option<&T> {
    set.as_ref().map(|set| &set.value)
}
