//! How a file is saved: written beside, and renamed over the one that is there.
//!
//! That one stays the file that it is, with its history, and gets what is in the other, which is gone (rule 7). So
//! it is in memory, too: whoever has the other open has it open under that name now; whoever has the old one open
//! keeps what that held, as a file without a name.
//!
//! The new version comes in place of those that whoever renames could know: of what others put into the bucket
//! behind the back of whoever uses it so, what came after they opened the file, or after the other was made, stays
//! beside.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use gate_core::tree::id::{EntryId, FileId, LinkId, OpId};
use gate_core::tree::op::Name;
use gate_core::tree::record::FileRecord;
use gate_core::tree::seen::Seen;
use gate_core::tree::shown::{Directory, What};

use super::{Facts, Inner, Pending, lock};
use crate::draft::DraftError;
use crate::log::Record;
use crate::random;

/// Of so many files is remembered who opened them, and of as many when they were made.
const SIGHTS_MAX: usize = 16_384;
/// So many times others put something into the bucket; what came before counts as known to all.
const ARRIVALS_MAX: usize = 64;

/// Who opens and saves files: what they saw is what they may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seer(pub u64);

/// What became of a file that was put in place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The file that it was, which is gone.
    pub from: FileId,
    /// What it is now, as whoever has it open finds it under the other's name.
    pub is: What,
    /// What the other is from now on, for those who have that open: a file without a name.
    pub left: What,
}

/// Who could know what.
#[derive(Debug, Default)]
pub(super) struct Sights(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// How often others put something into the bucket.
    times: u64,
    /// What was known before the newest of those times, and after.
    arrivals: VecDeque<(Seen, Seen)>,
    /// When somebody opened a file last, and its versions then.
    opened: HashMap<(Seer, FileId), (u64, Vec<OpId>)>,
    made: HashMap<FileId, u64>,
}

impl Sights {
    /// Somebody opens a file.
    pub(super) fn open(&self, who: Seer, file: FileId, record: &FileRecord) {
        let mut known = lock(&self.0);
        let sight = (known.times, record.heads.keys().copied().collect());
        make_room(&mut known.opened).insert((who, file), sight);
    }

    /// A file is made.
    pub(super) fn make(&self, file: FileId) {
        let mut known = lock(&self.0);
        let times = known.times;
        make_room(&mut known.made).insert(file, times);
    }

    /// Others put something into the bucket.
    pub(super) fn arrive(&self, before: Seen, after: Seen) {
        let mut known = lock(&self.0);
        known.times += 1;
        if known.arrivals.len() == ARRIVALS_MAX {
            known.arrivals.pop_front();
        }
        known.arrivals.push_back((before, after));
    }

    /// Returns the versions of a file in whose place another comes that somebody renames over it.
    fn base(&self, who: Seer, new: FileId, there: FileId, record: &FileRecord) -> Vec<OpId> {
        let known = lock(&self.0);
        let opened = known.opened.get(&(who, there));
        let made = known.made.get(&new).copied();
        let since = opened.map(|(times, _)| *times).or(made).unwrap_or(known.times);
        let heads = record.heads.keys().copied();
        let mut base: Vec<_> = heads.filter(|id| known.time_of(id.entry) <= since).collect();
        // What was opened is what the others came in place of, too.
        if base.len() < record.heads.len()
            && let Some((_, versions)) = opened
        {
            base.extend(versions.iter().filter(|id| !record.heads.contains_key(id)));
        }
        base
    }
}

impl Known {
    /// Returns after how many times there was an entry; 0 if it was made by whoever uses the bucket.
    fn time_of(&self, entry: EntryId) -> u64 {
        let is_in = |(before, after): &(Seen, Seen)| after.covers(entry) && !before.covers(entry);
        let place = self.arrivals.iter().position(is_in);
        place.map_or(0, |place| self.times - (self.arrivals.len() - 1 - place) as u64)
    }
}

/// Forgets all rather than to grow on: who is forgotten could know all.
fn make_room<K, V>(map: &mut HashMap<K, V>) -> &mut HashMap<K, V> {
    if map.len() >= SIGHTS_MAX {
        map.clear();
    }
    map
}

impl Inner {
    /// Puts a file in place of another, if both are files with one name.
    pub(super) fn save_over(
        &self,
        from: (&Directory, &Name),
        to: (&Directory, &Name),
        by: Seer,
    ) -> Result<Option<Saved>, DraftError> {
        let is_pair = |pending: &Pending| Ok(pending.pair(from, to)?.is_some());
        if !self.look(is_pair)? {
            return Ok(None);
        }
        loop {
            match self.try_to_save_over(from, to, by) {
                Err(DraftError::Full) => self.settle()?,
                outcome => return outcome,
            }
        }
    }

    fn try_to_save_over(
        &self,
        from: (&Directory, &Name),
        to: (&Directory, &Name),
        by: Seer,
    ) -> Result<Option<Saved>, DraftError> {
        // A version that is being made of one of them is that of the file that it was.
        let _cutting = lock(&self.cutting);
        let mut files = lock(&self.files);
        let pair = self.look(|pending| pending.pair(from, to))?;
        let Some(Pair { link, file, there, old }) = pair else { return Ok(None) };
        let base = self.sights.base(by, file, there, &old);
        let working = files.get(&file).cloned();
        let working = match working {
            Some(working) => working,
            None => Arc::new(self.look(|pending| self.working(pending, file, None))?),
        };
        let mut face = working.face_mut();
        self.take_merged(&mut face)?;
        if face.is_dirty() {
            self.tell(&mut face)?;
        }
        let replace = Record::Replace { from: file, to: there, base: base.clone() };
        let (is, facts) = self.alter_once(Some(&replace), |pending| {
            let what = pending.draft.at(to.0, to.1)?.ok_or(DraftError::NotFound)?;
            let facts = pending.facts(&what)?;
            pending.draft.succeed((link, file), there)?;
            pending.touch(from.0);
            pending.touch(to.0);
            Ok((what, facts))
        })?;
        face.put_in_place(there, base);
        drop(face);
        files.remove(&file);
        let left = files.insert(there, working);
        // Nobody else knows it: whatever becomes of either file, it is neither.
        let nobody = FileId::of_file(random::bytes());
        if let Some(left) = left {
            let mut face = left.face_mut();
            face.file = nobody;
            (face.gone, face.dirty_since) = (Some(Facts { names: 0, ..facts }), None);
            let is_used = face.users > 0;
            drop(face);
            if is_used {
                files.insert(nobody, left);
            }
        }
        drop(files);
        let left = What::File { link: LinkId::of_file(random::bytes()), file: nobody };
        Ok(Some(Saved { from: file, is, left }))
    }
}

/// A file, and one of whose name it is put in place.
struct Pair {
    link: LinkId,
    file: FileId,
    there: FileId,
    old: FileRecord,
}

impl Pending {
    fn pair(
        &self,
        (parent, name): (&Directory, &Name),
        (to, to_name): (&Directory, &Name),
    ) -> Result<Option<Pair>, DraftError> {
        let (Some(What::File { link, file }), Some(What::File { file: there, .. })) =
            (self.draft.at(parent, name)?, self.draft.at(to, to_name)?)
        else {
            return Ok(None);
        };
        let records = self.draft.to_replace(file, there)?;
        Ok(records.map(|(_, old)| Pair { link, file, there, old }))
    }
}
