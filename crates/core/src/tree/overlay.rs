//! Tables over others: what is put goes on top, and what is beneath stays as it is until told.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

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
    files: BTreeMap<FileId, FileRecord>,
    links: BTreeMap<LinkId, LinkRecord>,
    names: BTreeMap<FileId, Names>,
    touches: BTreeMap<Touched, BTreeSet<OpId>>,
    moves: BTreeMap<Rank, MoveRecord>,
    versions: BTreeMap<OpId, Written>,
    seen: BTreeMap<EntryId, Seen>,
    sum: Option<Sum>,
}

impl<T> Overlay<T> {
    /// Lies over tables, and holds nothing yet.
    pub fn new(beneath: T) -> Overlay<T> {
        Overlay {
            beneath,
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            names: BTreeMap::new(),
            touches: BTreeMap::new(),
            moves: BTreeMap::new(),
            versions: BTreeMap::new(),
            seen: BTreeMap::new(),
            sum: None,
        }
    }
}

impl<T: Tables> Overlay<T> {
    /// Puts down what it holds: each record once, however often it changed.
    pub fn settle(self) -> Result<T, T::Error> {
        let mut tables = self.beneath;
        for (id, record) in &self.files {
            tables.put_file(*id, record)?;
        }
        for (id, record) in &self.links {
            tables.put_link(*id, record)?;
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
        for (entry, seen) in &self.seen {
            tables.put_seen(*entry, seen)?;
        }
        self.sum.into_iter().try_for_each(|sum| tables.put_sum(sum))?;
        Ok(tables)
    }
}

impl<T: Look> Look for Overlay<T> {
    type Error = T::Error;

    fn file(&self, id: FileId) -> Result<Option<FileRecord>, T::Error> {
        self.files.get(&id).map_or_else(|| self.beneath.file(id), |record| Ok(Some(record.clone())))
    }

    fn link(&self, id: LinkId) -> Result<Option<LinkRecord>, T::Error> {
        self.links.get(&id).map_or_else(|| self.beneath.link(id), |record| Ok(Some(record.clone())))
    }

    fn named(&self, parent: FileId, name: &Name) -> Result<BTreeSet<LinkId>, T::Error> {
        let mut links = self.beneath.named(parent, name)?;
        if let Some(changes) = self.names.get(&parent).and_then(|names| names.get(name)) {
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
        let Some(changed) = self.names.get(&parent) else {
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
        if let Some(more) = self.touches.get(&what) {
            touches.extend(more);
            touches.sort_unstable();
        }
        Ok(touches)
    }

    fn moves_from(&self, rank: Rank) -> Result<Vec<(Rank, MoveRecord)>, T::Error> {
        let mut moves: BTreeMap<_, _> = self.beneath.moves_from(rank)?.into_iter().collect();
        moves.extend(self.moves.range(rank..).map(|(rank, record)| (*rank, record.clone())));
        Ok(moves.into_iter().collect())
    }

    fn version(&self, id: OpId) -> Result<Option<Written>, T::Error> {
        let version = self.versions.get(&id).cloned();
        version.map_or_else(|| self.beneath.version(id), |version| Ok(Some(version)))
    }

    fn seen(&self, entry: EntryId) -> Result<Option<Seen>, T::Error> {
        let seen = self.seen.get(&entry).cloned();
        seen.map_or_else(|| self.beneath.seen(entry), |seen| Ok(Some(seen)))
    }

    fn sum(&self) -> Result<Sum, T::Error> {
        self.sum.map_or_else(|| self.beneath.sum(), Ok)
    }
}

impl<T: Look> Tables for Overlay<T> {
    fn put_file(&mut self, id: FileId, record: &FileRecord) -> Result<(), T::Error> {
        self.files.insert(id, record.clone());
        Ok(())
    }

    fn put_link(&mut self, id: LinkId, record: &LinkRecord) -> Result<(), T::Error> {
        self.links.insert(id, record.clone());
        Ok(())
    }

    fn put_named(&mut self, parent: FileId, name: &Name, link: LinkId) -> Result<(), T::Error> {
        self.note(parent, name, link, true);
        Ok(())
    }

    fn take_named(&mut self, parent: FileId, name: &Name, link: LinkId) -> Result<(), T::Error> {
        self.note(parent, name, link, false);
        Ok(())
    }

    fn put_touch(&mut self, what: Touched, by: OpId) -> Result<(), T::Error> {
        self.touches.entry(what).or_default().insert(by);
        Ok(())
    }

    fn put_move(&mut self, rank: Rank, record: &MoveRecord) -> Result<(), T::Error> {
        self.moves.insert(rank, record.clone());
        Ok(())
    }

    fn put_version(&mut self, id: OpId, version: &Written) -> Result<(), T::Error> {
        self.versions.insert(id, version.clone());
        Ok(())
    }

    fn put_seen(&mut self, entry: EntryId, seen: &Seen) -> Result<(), T::Error> {
        self.seen.insert(entry, seen.clone());
        Ok(())
    }

    fn put_sum(&mut self, sum: Sum) -> Result<(), T::Error> {
        self.sum = Some(sum);
        Ok(())
    }
}

impl<T> Overlay<T> {
    fn note(&mut self, parent: FileId, name: &Name, link: LinkId, is_shown: bool) {
        let names = self.names.entry(parent).or_default();
        names.entry(name.clone()).or_default().insert(link, is_shown);
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
