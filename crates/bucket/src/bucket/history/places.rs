//! What everything was called, to whoever had seen some of the entries.
//!
//! It follows from the operations that give names alone: the newest that somebody had seen counts. Of
//! what several things of one name are called, nothing is known here.

use std::collections::{BTreeSet, HashMap};

use gate_core::tree::id::{EntryId, FileId, LinkId, OpId};
use gate_core::tree::op::{Name, Op};
use gate_core::tree::record::{Place, Rank};

use super::deeds::{Did, Done};
use super::{Opened, batch};

/// All names that were ever given.
#[derive(Debug, Default)]
pub struct Places {
    links: HashMap<LinkId, Link>,
    /// The names of files.
    names: HashMap<FileId, Vec<LinkId>>,
}

#[derive(Debug, Default)]
struct Link {
    file: Option<FileId>,
    places: Vec<(Rank, Place)>,
    deletes: Vec<Rank>,
}

/// Where something is, and the directories in which that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    pub path: Vec<Name>,
    pub within: Vec<FileId>,
}

impl Places {
    /// Takes note of the names that an entry gives.
    pub fn note(&mut self, opened: &Opened<'_>) {
        if batch(opened).check().is_err() {
            return;
        }
        for (place, op) in (0..).zip(opened.ops.iter()) {
            let rank = Rank { lamport: opened.lamport, op: OpId { entry: opened.id, place } };
            match op {
                Op::Create { link, file, parent, name, .. }
                | Op::Link { link, file, parent, name } => {
                    let record = self.links.entry(*link).or_default();
                    if record.file.is_none() {
                        record.file = Some(*file);
                        self.names.entry(*file).or_default().push(*link);
                    }
                    // A directory is moved from where it was made, whenever that was.
                    let rank = if link.is_directory() { Rank::FIRST } else { rank };
                    record.places.push((rank, Place { parent: *parent, name: name.clone() }));
                }
                Op::Move { link, parent, name } => {
                    let place = Place { parent: *parent, name: name.clone() };
                    self.links.entry(*link).or_default().places.push((rank, place));
                }
                Op::Delete { link } => self.links.entry(*link).or_default().deletes.push(rank),
                Op::Write { .. } | Op::SetAttr { .. } | Op::Resolve { .. } => {}
            }
        }
    }

    /// Returns what an entry did to each thing, in the order in which it did.
    pub fn done(&self, opened: &Opened<'_>) -> Vec<Done> {
        if batch(opened).check().is_err() {
            return Vec::new();
        }
        let before = |entry: EntryId| opened.seen.covers(entry);
        let after = |entry: EntryId| entry == opened.id || opened.seen.covers(entry);
        let mut order = Vec::<LinkId>::new();
        let mut all = HashMap::<LinkId, Done>::new();
        for op in opened.ops.iter() {
            let Some(link) = self.link_of(op, &after) else { continue };
            let done = all.entry(link).or_insert_with(|| {
                order.push(link);
                Done {
                    file: self.file_of(link),
                    before: self.spot(link, &before),
                    was_deleted: self.is_deleted(link, &before),
                    after: self.spot(link, &after),
                    did: Vec::new(),
                }
            });
            done.did.push(Did::of(op, done.before.as_ref(), done.was_deleted));
        }
        order.into_iter().filter_map(|link| all.remove(&link)).collect()
    }

    /// Returns the name to which an operation does something: of a file the first that is there.
    fn link_of(&self, op: &Op, sees: &impl Fn(EntryId) -> bool) -> Option<LinkId> {
        let file = match op {
            Op::Create { link, .. }
            | Op::Link { link, .. }
            | Op::Move { link, .. }
            | Op::Delete { link } => return Some(*link),
            Op::Write { file, .. } | Op::SetAttr { file, .. } | Op::Resolve { file, .. } => file,
        };
        if *file == FileId::ROOT {
            return Some(LinkId::of_directory(FileId::ROOT));
        }
        let known = || self.names.get(file).into_iter().flatten().copied();
        let is_there = |link: &LinkId| self.spot(*link, sees).is_some();
        let living = known().find(|link| is_there(link) && !self.is_deleted(*link, sees));
        living.or_else(|| known().find(is_there))
    }

    fn file_of(&self, link: LinkId) -> Option<FileId> {
        let is_root = link == LinkId::of_directory(FileId::ROOT);
        is_root.then_some(FileId::ROOT).or_else(|| self.links.get(&link)?.file)
    }

    fn is_deleted(&self, link: LinkId, sees: &impl Fn(EntryId) -> bool) -> bool {
        let Some(record) = self.links.get(&link) else { return false };
        let newest =
            |ranks: &mut dyn Iterator<Item = Rank>| ranks.filter(|rank| sees(rank.op.entry)).max();
        let deleted = newest(&mut record.deletes.iter().copied());
        // Who moves what was deleted brings it back.
        let placed = newest(&mut record.places.iter().map(|(rank, _)| *rank));
        deleted.is_some_and(|deleted| placed.is_none_or(|placed| placed < deleted))
    }

    /// Returns where something is to whoever sees some entries.
    fn spot(&self, link: LinkId, sees: &impl Fn(EntryId) -> bool) -> Option<Spot> {
        let mut spot = Spot { path: Vec::new(), within: Vec::new() };
        let mut met = BTreeSet::new();
        let mut at = link;
        while at != LinkId::of_directory(FileId::ROOT) {
            let places = self.links.get(&at)?.places.iter();
            let seen = places.filter(|(rank, _)| *rank == Rank::FIRST || sees(rank.op.entry));
            let (_, place) = seen.max_by_key(|(rank, _)| *rank)?;
            // Moves that would put a directory into itself are none, which only the tree knows.
            if !met.insert(at) {
                return None;
            }
            spot.path.push(place.name.clone());
            spot.within.push(place.parent);
            at = LinkId::of_directory(place.parent);
        }
        spot.path.reverse();
        Some(spot)
    }
}
