//! What is there when all that is known was done.
//!
//! A state is a function of the set of entries: [`State::apply`] may be told of them in any order in
//! which each comes after those that its author had seen, and the same set leads to the same tables.
//! So most of a record only ever grows or is replaced by what is later in the order of all. Moves
//! of directories alone depend on what was done before them: they are kept in that order, and those
//! after a new one are taken back and done again.

use super::content::{Body, Whole};
use super::id::{EntryId, FileId, LinkId, OpId};
use super::op::{Attribute, Content, Name, Op, OpFault};
use super::overlay::Overlay;
use super::record::{
    FileRecord, LinkRecord, MoveRecord, Place, Rank, Set, Touched, Version, Written, set, set_first,
};
use super::seen::Seen;
use super::shown::Directory;
use super::tables::{Look, Sum, Tables};

/// A bucket's state, in tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State<T> {
    pub(super) tables: T,
}

/// What an entry does.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub id: EntryId,
    /// More than that of all entries that its author had seen.
    pub lamport: u64,
    /// What its author had seen.
    pub seen: &'a Seen,
    pub ops: &'a [Op],
}

/// Why an entry was not applied.
#[derive(Debug, PartialEq, Eq)]
pub enum ApplyError<E> {
    /// Nobody may do that: the whole entry counts for nothing.
    Fault(OpFault),
    Tables(E),
}

impl<E> From<E> for ApplyError<E> {
    fn from(error: E) -> ApplyError<E> {
        ApplyError::Tables(error)
    }
}

impl Batch<'_> {
    /// Checks what can be checked of an entry alone.
    pub fn check(&self) -> Result<(), OpFault> {
        for (place, op) in (0..).zip(self.ops) {
            op.check()?;
            let (Op::Write { base: named, .. } | Op::Resolve { given_up: named, .. }) = op else {
                continue;
            };
            let is_past = |op: &OpId| match op.entry == self.id {
                true => op.place < place,
                false => self.seen.covers(op.entry),
            };
            if !named.iter().all(is_past) {
                return Err(OpFault("it names a version that its author had not seen"));
            }
        }
        Ok(())
    }
}

impl<T: Look> State<T> {
    /// Makes a state of tables as they are.
    pub fn new(tables: T) -> State<T> {
        State { tables }
    }

    pub fn tables(&self) -> &T {
        &self.tables
    }

    pub fn into_tables(self) -> T {
        self.tables
    }

    /// Returns a number that two states share if, and but for chance only if, they are the same.
    pub fn root(&self) -> Result<Sum, T::Error> {
        self.tables.sum()
    }

    /// Returns what a version holds, if it is known.
    pub fn body(&self, id: OpId) -> Result<Option<Body>, T::Error> {
        Ok(self.whole(id)?.map(|whole| whole.body))
    }

    /// Returns a version with all patches put in that it is made of, if it is known.
    pub fn whole(&self, id: OpId) -> Result<Option<Whole>, T::Error> {
        let Some(Written { size, mut content, .. }) = self.tables.version(id)? else {
            return Ok(None);
        };
        let mut patches = Vec::new();
        let mut size_there = size;
        while let Content::Patch { of, .. } = content {
            patches.push((size_there, content));
            // What a faulty entry wrote is nothing.
            (size_there, content) =
                self.tables.version(of)?.map_or((0, Content::EMPTY), |of| (of.size, of.content));
        }
        let count = u32::try_from(patches.len()).unwrap_or(u32::MAX);
        let first = Body::default().then(content, size_there);
        let put_in = |body: Body, (size, patch)| body.then(patch, size);
        let body = patches.into_iter().rev().fold(first, put_in);
        Ok(Some(Whole { size, body, patches: count }))
    }

    /// Returns the version of no more than so many patches that a version is made of, the newest of those.
    pub fn beneath(&self, id: OpId, patches: u32) -> Result<Option<OpId>, T::Error> {
        let mut chain = vec![id];
        while let Some(Written { content: Content::Patch { of, .. }, .. }) =
            self.tables.version(chain[chain.len() - 1])?
        {
            chain.push(of);
        }
        Ok(chain.into_iter().rev().nth(patches as usize))
    }

    /// Returns the id that a directory gets which is made there now.
    pub fn id_of_new_directory(
        &self,
        parent: FileId,
        name: &Name,
    ) -> Result<(FileId, u32), T::Error> {
        let mut former = 0;
        loop {
            let id = FileId::of_directory(parent, name.bytes(), former);
            if self.tables.file(id)?.is_none_or(|record| record.made.is_none()) {
                return Ok((id, former));
            }
            former += 1;
        }
    }

    /// Whether a directory is another, or lies somewhere in it.
    pub fn is_in(&self, directory: &Directory, other: &Directory) -> Result<bool, T::Error> {
        for part in other.all() {
            if self.is_at_or_beneath(directory.first(), LinkId::of_directory(*part))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a directory is one that is named so, or lies somewhere in it.
    fn is_at_or_beneath(&self, directory: FileId, link: LinkId) -> Result<bool, T::Error> {
        let mut at = directory;
        while at != FileId::ROOT {
            let here = LinkId::of_directory(at);
            if here == link {
                return Ok(true);
            }
            let record = self.tables.link(here)?;
            let Some(place) = record.and_then(|record| record.place) else { return Ok(false) };
            at = place.value.parent;
        }
        Ok(false)
    }

    /// Returns what is known of a file.
    pub fn file(&self, id: FileId) -> Result<FileRecord, T::Error> {
        Ok(self.tables.file(id)?.unwrap_or_default())
    }

    pub(super) fn link(&self, id: LinkId) -> Result<LinkRecord, T::Error> {
        Ok(self.tables.link(id)?.unwrap_or_default())
    }
}

impl<T: Tables> State<T> {
    /// Does what an entry says. All entries that its author had seen were applied before.
    pub fn apply(&mut self, batch: Batch<'_>) -> Result<(), ApplyError<T::Error>> {
        let mut state = State::new(Overlay::new(&self.tables));
        state.note(batch)?;
        Ok(state.into_tables().into_changes().settle(&mut self.tables)?)
    }
}

impl<T: Look> State<Overlay<T>> {
    /// As [`State::apply`]: what lies beneath does not hear of it yet.
    pub fn note(&mut self, batch: Batch<'_>) -> Result<(), ApplyError<T::Error>> {
        batch.check().map_err(ApplyError::Fault)?;
        self.tables.put_seen(batch.id, batch.seen.clone());
        for (place, op) in (0..).zip(batch.ops) {
            let rank = Rank { lamport: batch.lamport, op: OpId { entry: batch.id, place } };
            self.apply_one(rank, batch.seen, op)?;
        }
        Ok(())
    }

    /// Does one operation of an entry that is not made yet. What can be checked of it was.
    pub fn apply_one(&mut self, rank: Rank, seen: &Seen, op: &Op) -> Result<(), T::Error> {
        match op {
            Op::Create { link, file, parent, name, kind, mode, modified, .. } => {
                let place = Place { parent: *parent, name: name.clone() };
                self.change_file(*file, |record| {
                    set_first(&mut record.made, rank, kind.clone());
                    set(&mut record.mode, rank, *mode);
                    set(&mut record.modified, rank, *modified);
                })?;
                self.bear(rank, *link, *file, place)?;
                self.touch(rank, seen, Touched::File(*file))?;
                self.touch(rank, seen, Touched::Link(*link))
            }
            Op::Link { link, file, parent, name } => {
                let place = Place { parent: *parent, name: name.clone() };
                self.bear(rank, *link, *file, place)?;
                self.touch(rank, seen, Touched::Link(*link))
            }
            Op::Move { link, parent, name } => {
                let to = Place { parent: *parent, name: name.clone() };
                match link.is_directory() {
                    true => self.move_directory(rank, *link, to)?,
                    false => self.place_file(rank, *link, to)?,
                }
                self.touch(rank, seen, Touched::Link(*link))
            }
            Op::Delete { link } => self.delete(rank.op, seen, *link),
            Op::Write { file, size, content, base, fence } => {
                let version = Version { rank, size: *size, fence: *fence };
                let (lamport, size) = (rank.lamport, *size);
                let (content, past) = (content.clone(), base.clone());
                self.tables.put_version(rank.op, Written { lamport, size, content, base: past });
                self.change_file(*file, |record| {
                    record.heads.retain(|head, _| !base.contains(head));
                    record.heads.insert(rank.op, version);
                })?;
                self.touch(rank, seen, Touched::File(*file))
            }
            Op::SetAttr { file, attribute } => self.set_attribute(rank, seen, *file, attribute),
            Op::Resolve { file, given_up } => self.change_file(*file, |record| {
                record.heads.retain(|head, _| !given_up.contains(head));
            }),
        }
    }

    fn set_attribute(
        &mut self,
        rank: Rank,
        seen: &Seen,
        file: FileId,
        attribute: &Attribute,
    ) -> Result<(), T::Error> {
        self.change_file(file, |record| match attribute {
            Attribute::Mode(mode) => set(&mut record.mode, rank, *mode),
            Attribute::Modified(stamp) => set(&mut record.modified, rank, *stamp),
            Attribute::Extended { name, value } => {
                let mut former = record.extended.remove(name);
                set(&mut former, rank, value.clone());
                record.extended.extend(former.map(|now| (name.clone(), now)));
            }
        })?;
        match attribute {
            // Who looks at a file may change its times.
            Attribute::Modified(_) => Ok(()),
            Attribute::Mode(_) | Attribute::Extended { .. } => {
                self.touch(rank, seen, Touched::File(file))
            }
        }
    }

    /// A link begins to bear a file.
    fn bear(&mut self, rank: Rank, id: LinkId, file: FileId, place: Place) -> Result<(), T::Error> {
        let mut link = self.link(id)?;
        let former = link.born.as_ref().map(|born| born.value);
        set_first(&mut link.born, rank, file);
        let bears = link.born.as_ref().map(|born| born.value);
        // Shown is what it was for the file that it bore.
        let left = if former == bears { None } else { self.hide(id, &mut link)? };
        self.put_link(id, link)?;
        left.into_iter().try_for_each(|left| self.refresh(left))?;
        if former != bears {
            for (which, is_now) in [(former, false), (bears, true)] {
                let Some(which) = which else { continue };
                self.change_file(which, |record| {
                    if is_now {
                        record.links.insert(id)
                    } else {
                        record.links.remove(&id)
                    };
                })?;
            }
        }
        match id.is_directory() {
            // Who makes the same directory makes it at the same place: its id says where that is.
            true if former.is_none() => self.give_birth_place(id, place),
            true => Ok(()),
            false => self.place_file(rank, id, place),
        }?;
        self.refresh(id)
    }

    fn place_file(&mut self, rank: Rank, id: LinkId, place: Place) -> Result<(), T::Error> {
        let link = self.link(id)?;
        match &link.place {
            Some(former) if former.rank > rank => Ok(()),
            _ => self.set_place(id, Some(Set { rank, value: place })),
        }
    }

    /// Moves are done from where a directory was made: what was moved before it was known was not.
    fn give_birth_place(&mut self, id: LinkId, place: Place) -> Result<(), T::Error> {
        let moves = self.tables.moves_from(Rank::FIRST)?;
        let is_awaited = moves.iter().any(|(_, record)| record.link == id);
        let moves = if is_awaited { moves } else { Vec::new() };
        self.take_back(&moves)?;
        // Whoever makes it puts it there, so it does not matter who.
        self.set_place(id, Some(Set { rank: Rank::FIRST, value: place }))?;
        moves.into_iter().try_for_each(|(rank, record)| self.do_move(rank, record))
    }

    fn move_directory(&mut self, rank: Rank, link: LinkId, to: Place) -> Result<(), T::Error> {
        let later = self.tables.moves_from(rank)?;
        self.take_back(&later)?;
        self.do_move(rank, MoveRecord { link, to, from: None, was_done: false })?;
        later.into_iter().try_for_each(|(rank, record)| self.do_move(rank, record))
    }

    fn take_back(&mut self, moves: &[(Rank, MoveRecord)]) -> Result<(), T::Error> {
        let done = moves.iter().rev().filter(|(_, record)| record.was_done);
        for (_, record) in done {
            self.set_place(record.link, record.from.clone())?;
        }
        Ok(())
    }

    /// Moves a directory, unless that would put it into itself.
    fn do_move(&mut self, rank: Rank, mut record: MoveRecord) -> Result<(), T::Error> {
        let from = self.link(record.link)?.place;
        let target = record.to.parent;
        record.was_done = from.is_some() && !self.is_at_or_beneath(target, record.link)?;
        record.from = from;
        self.tables.put_move(rank, record.clone());
        match record.was_done {
            true => self.set_place(record.link, Some(Set { rank, value: record.to })),
            false => Ok(()),
        }
    }

    fn delete(&mut self, by: OpId, seen: &Seen, id: LinkId) -> Result<(), T::Error> {
        let mut link = self.link(id)?;
        let mut is_void = false;
        for touch in self.tables.touches(Touched::Link(id))? {
            is_void |= !saw(by, seen, touch);
        }
        if let Some(born) = &link.born {
            for touch in self.tables.touches(Touched::File(born.value))? {
                is_void |= !saw(by, seen, touch);
            }
        }
        link.deletes.insert(by, is_void);
        self.put_link(id, link)?;
        self.refresh(id)
    }

    /// Takes note of a change, and of deletions that had not seen it.
    fn touch(&mut self, rank: Rank, seen: &Seen, what: Touched) -> Result<(), T::Error> {
        self.tables.put_touch(what, rank.op);
        let links = match what {
            Touched::Link(link) => [link].into(),
            Touched::File(file) => self.file(file)?.links,
        };
        for id in links {
            let mut link = self.link(id)?;
            let mut has_changed = false;
            for (delete, is_void) in link.deletes.iter_mut().filter(|(_, is_void)| !**is_void) {
                // Who goes on with a file that has another name lets the deleted name be.
                let is_later = matches!(what, Touched::File(_)) && saw(rank.op, seen, *delete);
                *is_void = !is_later && !self.saw(*delete, rank.op)?;
                has_changed |= *is_void;
            }
            if has_changed {
                self.put_link(id, link)?;
                self.refresh(id)?;
            }
        }
        Ok(())
    }

    fn saw(&self, later: OpId, earlier: OpId) -> Result<bool, T::Error> {
        match later.entry == earlier.entry {
            true => Ok(earlier.place < later.place),
            false => Ok(self.tables.seen(later.entry)?.is_some_and(|s| s.covers(earlier.entry))),
        }
    }

    /// Shows or hides a name as is right by now, and with it directories that are shown for what
    /// is in them.
    fn refresh(&mut self, id: LinkId) -> Result<(), T::Error> {
        let mut next = Some(id);
        while let Some(id) = next {
            let mut link = self.link(id)?;
            let Some(born) = &link.born else { return Ok(()) };
            let file = self.file(born.value)?;
            let is_wanted = link.is_alive() || file.shown > 0;
            let is_right = is_wanted && link.place.is_some() && file.made.is_some();
            next = match (is_right, link.is_shown) {
                (true, false) => self.show(id, &mut link)?,
                (false, true) => self.hide(id, &mut link)?,
                (true, true) | (false, false) => return Ok(()),
            };
            self.put_link(id, link)?;
        }
        Ok(())
    }

    fn set_place(&mut self, id: LinkId, place: Option<Set<Place>>) -> Result<(), T::Error> {
        let mut link = self.link(id)?;
        let left = self.hide(id, &mut link)?;
        link.place = place;
        self.put_link(id, link)?;
        left.into_iter().try_for_each(|left| self.refresh(left))?;
        self.refresh(id)
    }

    /// Returns the directory that may have to be shown or hidden for it.
    fn show(&mut self, id: LinkId, link: &mut LinkRecord) -> Result<Option<LinkId>, T::Error> {
        let Some(Set { value: Place { parent, name }, .. }) = &link.place else { return Ok(None) };
        self.tables.put_named(*parent, name, id, true);
        link.is_shown = true;
        self.count_shown(*parent, |shown| shown + 1)
    }

    /// As `show`, of one that may be hidden already.
    fn hide(&mut self, id: LinkId, link: &mut LinkRecord) -> Result<Option<LinkId>, T::Error> {
        if !link.is_shown {
            return Ok(None);
        }
        let Some(Set { value: Place { parent, name }, .. }) = &link.place else { return Ok(None) };
        self.tables.put_named(*parent, name, id, false);
        link.is_shown = false;
        self.count_shown(*parent, |shown| shown - 1)
    }

    fn count_shown(
        &mut self,
        directory: FileId,
        count: fn(u64) -> u64,
    ) -> Result<Option<LinkId>, T::Error> {
        self.change_file(directory, |record| record.shown = count(record.shown))?;
        Ok((directory != FileId::ROOT).then(|| LinkId::of_directory(directory)))
    }

    fn change_file(
        &mut self,
        id: FileId,
        change: impl FnOnce(&mut FileRecord),
    ) -> Result<(), T::Error> {
        let before = self.file(id)?;
        let mut record = before.clone();
        change(&mut record);
        self.note_versions(id, before.heads.len() > 1, record.heads.len() > 1);
        self.tables.put_file(id, before, record);
        Ok(())
    }

    fn put_link(&mut self, id: LinkId, record: LinkRecord) -> Result<(), T::Error> {
        let before = self.link(id)?;
        self.tables.put_link(id, before, record);
        Ok(())
    }
}

/// Whether the author of an operation had seen another.
fn saw(later: OpId, seen: &Seen, earlier: OpId) -> bool {
    match later.entry == earlier.entry {
        true => earlier.place < later.place,
        false => seen.covers(earlier.entry),
    }
}
