//! Tables over others: what is put goes on top, and what is beneath stays as it is until told.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::encode::append;
use super::id::{EntryId, FileId, LinkId, OpId};
use super::op::Name;
use super::record::{FileRecord, LinkRecord, MoveRecord, Rank, Touched, Written};
use super::seen::Seen;
use super::tables::{Look, Sum, Tables};

/// Whether a link is shown under a name now; those of which nothing is said are as beneath.
type Names = BTreeMap<Name, BTreeMap<LinkId, bool>>;

/// Tables that lie over others, and hold what differs.
#[derive(Clone, Debug)]
pub struct Overlay<T> {
    beneath: T,
    changes: Changes,
}

/// What differs from tables: to be put down there.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    files: BTreeMap<FileId, Changed<FileRecord>>,
    links: BTreeMap<LinkId, Changed<LinkRecord>>,
    names: BTreeMap<FileId, Names>,
    touches: BTreeMap<Touched, BTreeSet<OpId>>,
    moves: BTreeMap<Rank, MoveRecord>,
    versions: BTreeMap<OpId, Written>,
    seen: BTreeMap<EntryId, Seen>,
}

/// A record as it is beneath, and as it is now.
#[derive(Clone, Debug)]
struct Changed<R> {
    before: R,
    now: R,
}

impl<T> Overlay<T> {
    /// Lies over tables, and holds nothing yet.
    pub fn new(beneath: T) -> Overlay<T> {
        Overlay { beneath, changes: Changes::default() }
    }

    /// Leaves what lies beneath as it is.
    pub fn into_changes(self) -> Changes {
        self.changes
    }
}

impl<T: Tables> Overlay<T> {
    /// Puts down what it holds.
    pub fn settle(self) -> Result<T, T::Error> {
        let Overlay { mut beneath, changes } = self;
        changes.settle(&mut beneath)?;
        Ok(beneath)
    }
}

impl Changes {
    /// Puts them down, in the tables over which they were made: each record once, however often it changed.
    pub fn settle<T: Tables>(&self, tables: &mut T) -> Result<(), T::Error> {
        tables.put_sum(self.count(tables.sum()?))?;
        for (id, file) in &self.files {
            tables.put_file(*id, &file.now)?;
        }
        for (id, link) in &self.links {
            tables.put_link(*id, &link.now)?;
        }
        for (parent, names) in &self.names {
            for (name, links) in names {
                for (link, is_shown) in links {
                    match is_shown {
                        true => tables.put_named(*parent, name, *link)?,
                        false => tables.take_named(*parent, name, *link)?,
                    }
                }
            }
        }
        for (what, ops) in &self.touches {
            ops.iter().try_for_each(|by| tables.put_touch(*what, *by))?;
        }
        for (rank, record) in &self.moves {
            tables.put_move(*rank, record)?;
        }
        for (id, version) in &self.versions {
            tables.put_version(*id, version)?;
        }
        self.seen.iter().try_for_each(|(entry, seen)| tables.put_seen(*entry, seen))
    }

    /// Counts each record in place of what it was.
    fn count(&self, mut sum: Sum) -> Sum {
        for (id, Changed { before, now }) in &self.files {
            sum.replace(b'f', id.bytes(), before, now);
        }
        for (id, Changed { before, now }) in &self.links {
            sum.replace(b'l', id.bytes(), before, now);
        }
        // A version never changes and never goes.
        self.versions.iter().for_each(|version| sum.add(&append(&version, vec![b'v'])));
        sum
    }
}

impl<T: Look> Look for Overlay<T> {
    type Error = T::Error;

    fn file(&self, id: FileId) -> Result<Option<FileRecord>, T::Error> {
        let file = self.changes.files.get(&id).map(|file| file.now.clone());
        file.map_or_else(|| self.beneath.file(id), |file| Ok(Some(file)))
    }

    fn link(&self, id: LinkId) -> Result<Option<LinkRecord>, T::Error> {
        let link = self.changes.links.get(&id).map(|link| link.now.clone());
        link.map_or_else(|| self.beneath.link(id), |link| Ok(Some(link)))
    }

    fn named(&self, parent: FileId, name: &Name) -> Result<BTreeSet<LinkId>, T::Error> {
        let mut links = self.beneath.named(parent, name)?;
        if let Some(changes) = self.changes.names.get(&parent).and_then(|names| names.get(name)) {
            change(&mut links, changes);
        }
        Ok(links)
    }

    fn names(
        &self,
        parent: FileId,
        after: Option<&Name>,
        most: usize,
    ) -> Result<Vec<(Name, BTreeSet<LinkId>)>, T::Error> {
        let most = most.max(1);
        let Some(changed) = self.changes.names.get(&parent) else {
            return self.beneath.names(parent, after, most);
        };
        let mut after = after.cloned();
        loop {
            let some = self.beneath.names(parent, after.as_ref(), most)?;
            let is_all = some.len() < most;
            let last = some.last().map(|(name, _)| name.clone());
            let mut names: BTreeMap<_, _> = some.into_iter().collect();
            // What comes behind the last of these may come behind others, too, that are not known yet.
            let to = last.clone().filter(|_| !is_all).map_or(Bound::Unbounded, Bound::Included);
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            for (name, changes) in changed.range((from, to)) {
                change(names.entry(name.clone()).or_default(), changes);
            }
            names.retain(|_, links| !links.is_empty());
            if is_all || !names.is_empty() {
                return Ok(names.into_iter().take(most).collect());
            }
            after = last;
        }
    }

    fn touches(&self, what: Touched) -> Result<Vec<OpId>, T::Error> {
        let mut touches = self.beneath.touches(what)?;
        if let Some(more) = self.changes.touches.get(&what) {
            touches.extend(more);
            touches.sort_unstable();
        }
        Ok(touches)
    }

    fn moves_from(&self, rank: Rank) -> Result<Vec<(Rank, MoveRecord)>, T::Error> {
        let mut moves: BTreeMap<_, _> = self.beneath.moves_from(rank)?.into_iter().collect();
        moves
            .extend(self.changes.moves.range(rank..).map(|(rank, record)| (*rank, record.clone())));
        Ok(moves.into_iter().collect())
    }

    fn version(&self, id: OpId) -> Result<Option<Written>, T::Error> {
        let version = self.changes.versions.get(&id).cloned();
        version.map_or_else(|| self.beneath.version(id), |version| Ok(Some(version)))
    }

    fn seen(&self, entry: EntryId) -> Result<Option<Seen>, T::Error> {
        let seen = self.changes.seen.get(&entry).cloned();
        seen.map_or_else(|| self.beneath.seen(entry), |seen| Ok(Some(seen)))
    }

    fn sum(&self) -> Result<Sum, T::Error> {
        Ok(self.changes.count(self.beneath.sum()?))
    }
}

impl<T> Overlay<T> {
    pub(super) fn put_file(&mut self, id: FileId, before: FileRecord, now: FileRecord) {
        put(&mut self.changes.files, id, before, now);
    }

    pub(super) fn put_link(&mut self, id: LinkId, before: LinkRecord, now: LinkRecord) {
        put(&mut self.changes.links, id, before, now);
    }

    /// Takes note whether a link is shown under a name.
    pub(super) fn put_named(&mut self, parent: FileId, name: &Name, link: LinkId, is_shown: bool) {
        let names = self.changes.names.entry(parent).or_default();
        names.entry(name.clone()).or_default().insert(link, is_shown);
    }

    pub(super) fn put_touch(&mut self, what: Touched, by: OpId) {
        self.changes.touches.entry(what).or_default().insert(by);
    }

    pub(super) fn put_move(&mut self, rank: Rank, record: MoveRecord) {
        self.changes.moves.insert(rank, record);
    }

    pub(super) fn put_version(&mut self, id: OpId, version: Written) {
        self.changes.versions.insert(id, version);
    }

    pub(super) fn put_seen(&mut self, entry: EntryId, seen: Seen) {
        self.changes.seen.insert(entry, seen);
    }
}

fn put<K: Ord, R>(records: &mut BTreeMap<K, Changed<R>>, id: K, before: R, now: R) {
    match records.entry(id) {
        Entry::Vacant(place) => {
            place.insert(Changed { before, now });
        }
        Entry::Occupied(mut place) => place.get_mut().now = now,
    }
}

fn change(links: &mut BTreeSet<LinkId>, changes: &BTreeMap<LinkId, bool>) {
    for (link, is_shown) in changes {
        match is_shown {
            true => links.insert(*link),
            false => links.remove(link),
        };
    }
}
