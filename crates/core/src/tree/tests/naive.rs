//! The whole set of entries, read at once: slow, and plainly what the rules say.

use std::collections::{BTreeMap, BTreeSet};

use super::Entry;
use crate::tree::id::{FileId, LinkId, OpId};
use crate::tree::op::{Attribute, Op};
use crate::tree::record::{Place, Rank};
use crate::tree::seen::Seen;
use crate::tree::state::State;
use crate::tree::tables::{Look, Memory};

struct Done<'a> {
    rank: Rank,
    seen: &'a Seen,
    op: &'a Op,
}

impl Done<'_> {
    fn saw(&self, other: &Done<'_>) -> bool {
        let (own, other) = (self.rank.op, other.rank.op);
        match own.entry == other.entry {
            true => other.place < own.place,
            false => self.seen.covers(other.entry),
        }
    }
}

pub struct Tree<'a> {
    /// In the order of all.
    done: Vec<Done<'a>>,
    places: BTreeMap<LinkId, Place>,
    files: BTreeMap<LinkId, FileId>,
    shown: BTreeSet<LinkId>,
}

impl<'a> Tree<'a> {
    pub fn of(entries: &'a [Entry]) -> Tree<'a> {
        let ops = entries.iter().flat_map(|entry| {
            (0..).zip(&entry.ops).map(move |(place, op)| {
                let rank = Rank { lamport: entry.lamport, op: OpId { entry: entry.id, place } };
                Done { rank, seen: &entry.seen, op }
            })
        });
        let mut done: Vec<Done<'a>> = ops.collect();
        done.sort_by_key(|done| done.rank);
        let (places, files, shown) = Default::default();
        let mut tree = Tree { done, places, files, shown };
        tree.bear();
        tree.move_about();
        tree.show();
        tree
    }

    fn bear(&mut self) {
        for Done { op, .. } in &self.done {
            if let Op::Create { link, file, parent, name, .. }
            | Op::Link { link, file, parent, name } = op
            {
                let place = Place { parent: *parent, name: name.clone() };
                self.files.insert(*link, *file);
                self.places.insert(*link, place);
            }
        }
    }

    fn move_about(&mut self) {
        for Done { op, .. } in &self.done {
            let Op::Move { link, parent, name } = op else { continue };
            if !link.is_directory() || !self.is_beneath(*parent, *link) {
                self.places.insert(*link, Place { parent: *parent, name: name.clone() });
            }
        }
    }

    fn is_beneath(&self, directory: FileId, link: LinkId) -> bool {
        let mut at = directory;
        while at != FileId::ROOT {
            if LinkId::of_directory(at) == link {
                return true;
            }
            at = self.places[&LinkId::of_directory(at)].parent;
        }
        false
    }

    /// Whether somebody deleted it who had seen everything.
    fn is_deleted(&self, link: LinkId) -> bool {
        let file = self.files[&link];
        let of_link = |op: &Op| match op {
            Op::Create { link: l, .. } | Op::Link { link: l, .. } | Op::Move { link: l, .. } => {
                *l == link
            }
            _ => false,
        };
        let of_file = |op: &Op| match op {
            Op::Create { file: f, .. } | Op::Write { file: f, .. } => *f == file,
            Op::SetAttr { file: f, attribute } => {
                *f == file && !matches!(attribute, Attribute::Modified(_))
            }
            _ => false,
        };
        let mut deletes =
            self.done.iter().filter(|d| matches!(d.op, Op::Delete { link: l } if *l == link));
        deletes.any(|delete| {
            self.done.iter().all(|other| {
                let was_seen = delete.saw(other);
                (!of_link(other.op) || was_seen)
                    && (!of_file(other.op) || was_seen || other.saw(delete))
            })
        })
    }

    fn show(&mut self) {
        self.shown = self.files.keys().copied().filter(|link| !self.is_deleted(*link)).collect();
        loop {
            let parents = self.shown.iter().map(|link| self.places[link].parent);
            let parents = parents.filter(|parent| *parent != FileId::ROOT);
            let more: BTreeSet<LinkId> = parents.map(LinkId::of_directory).collect();
            let before = self.shown.len();
            self.shown.extend(more);
            if self.shown.len() == before {
                return;
            }
        }
    }

    fn heads(&self, file: FileId) -> BTreeSet<OpId> {
        let of_file = |op: &Op| matches!(op, Op::Write { file: f, .. } if *f == file);
        let mut heads: BTreeSet<OpId> =
            self.done.iter().filter(|d| of_file(d.op)).map(|d| d.rank.op).collect();
        for Done { op, .. } in &self.done {
            if let Op::Write { base: gone, .. } | Op::Resolve { given_up: gone, .. } = op {
                heads.retain(|id| !gone.contains(id));
            }
        }
        heads
    }

    /// The last that somebody set of a file.
    fn last<V>(&self, file: FileId, value: impl Fn(&Op) -> Option<(FileId, V)>) -> Option<V> {
        let all = self.done.iter().filter_map(|done| value(done.op));
        all.filter(|(of, _)| *of == file).last().map(|(_, value)| value)
    }

    pub fn check(&self, state: &State<Memory>) {
        let tables = state.tables();
        for (link, file) in &self.files {
            let record = tables.link(*link).unwrap().unwrap();
            assert_eq!(record.place.unwrap().value, self.places[link], "{link:?}");
            assert_eq!(record.born.unwrap().value, *file, "{link:?}");
            assert_eq!(record.is_shown, self.shown.contains(link), "{link:?}");
            let record = tables.file(*file).unwrap().unwrap();
            assert_eq!(record.heads.keys().copied().collect::<BTreeSet<_>>(), self.heads(*file));
            let mode = self.last(*file, |op| match op {
                Op::Create { file, mode, .. } => Some((*file, *mode)),
                Op::SetAttr { file, attribute: Attribute::Mode(mode) } => Some((*file, *mode)),
                _ => None,
            });
            assert_eq!(record.mode.map(|set| set.value), mode);
            let modified = self.last(*file, |op| match op {
                Op::Create { file, modified, .. } => Some((*file, *modified)),
                Op::SetAttr { file, attribute: Attribute::Modified(at) } => Some((*file, *at)),
                _ => None,
            });
            assert_eq!(record.modified.map(|set| set.value), modified);
            let mark = self.last(*file, |op| match op {
                Op::SetAttr { file, attribute: Attribute::Extended { value, .. } } => {
                    Some((*file, value.clone()))
                }
                _ => None,
            });
            assert_eq!(record.extended.values().next().map(|set| set.value.clone()), mark);
        }
    }

    /// All that is to be shown is reached once, and what no longer is was taken away by somebody
    /// who had seen it.
    pub fn check_sight(&self, links: &[(LinkId, FileId)], beside: &[OpId]) {
        let seen: BTreeSet<LinkId> = links.iter().map(|(link, _)| *link).collect();
        assert_eq!(seen.len(), links.len(), "nothing is there twice");
        assert_eq!(seen, self.shown);
        let names = |file: FileId| links.iter().filter(|(_, f)| *f == file).count();
        for write in self.done.iter().filter(|done| matches!(done.op, Op::Write { .. })) {
            let Op::Write { file, .. } = write.op else { unreachable!() };
            // Nobody made it: it is a part of something that is written elsewhere.
            if !self.files.values().any(|made| made == file) {
                continue;
            }
            let (id, heads) = (write.rank.op, self.heads(*file));
            if !heads.contains(&id) {
                let is_named = |done: &&Done<'_>| match done.op {
                    Op::Write { base: gone, .. } | Op::Resolve { given_up: gone, .. } => {
                        gone.contains(&id)
                    }
                    _ => false,
                };
                assert!(
                    self.done.iter().filter(is_named).any(|by| by.saw(write)),
                    "{id:?} is gone"
                );
            } else if names(*file) == 0 {
                let is_end = |by: &&Done<'_>| match by.op {
                    Op::Delete { link } => self.files[link] == *file && by.saw(write),
                    _ => false,
                };
                assert!(self.done.iter().any(|by| is_end(&by)), "{id:?} was deleted unseen");
            } else {
                let others = beside.iter().filter(|version| heads.contains(version)).count();
                assert_eq!(others, (heads.len() - 1) * names(*file), "versions of {file:?}");
            }
        }
    }
}
