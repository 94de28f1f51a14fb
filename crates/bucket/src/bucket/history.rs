//! The past of a bucket: its entries, the tree at each of them, and ways back.
//!
//! A *version* is the tree at an entry: that entry and all that its author had seen. Nothing of it is kept but the
//! entries: a version is made of them anew whenever it is asked for, from a checkpoint on if one lies before it. What files held in versions that were given up is
//! not there any more, so nobody is given those. Entries stand in the order of all, by lamport
//! number and feed, so that who made one has seen none that is newer in the order.
//! Not here: the times that people write, and what becomes of operations that lead back.

mod deeds;
mod lost;
mod places;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use gate_core::tree::id::{EntryId, FileId};
use gate_core::tree::op::{Name, Op};
use gate_core::tree::restore::{RestoreError, restore};
use gate_core::tree::seen::Seen;
use gate_core::tree::shown::{Lens, What};
use gate_core::tree::state::{ApplyError, Batch, State};
use gate_core::tree::tables::Memory;
use gate_core::tree::undo::{UndoError, undo};
use gate_core::tree::walk::WalkError;

use super::{Bucket, BucketError, Known, Opened};
use crate::entry::{EntryHash, OPS_MAX};
use crate::identity::DeviceId;
use crate::shelf::ShelfError;
use crate::{random, record};
use places::Places;

pub use deeds::{DEEDS_MAX, Deed, Did};
pub use lost::Lost;

/// The most entries that are told of at once.
pub const ENTRIES_AT_ONCE_MAX: usize = 1000;
/// The least digits by which an entry is named.
pub const DIGITS_MIN: usize = 4;
/// So many are named when several entries begin so.
const AMBIGUOUS_MAX: usize = 8;
/// The most bytes of operations that are put into one entry: there must be room for its header.
const PART_BYTES_MAX: usize = 512 * 1024;

/// How people name a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All that is known.
    Newest,
    /// So many entries before the newest.
    Back(u64),
    /// The entry whose hash begins with these digits.
    Hash(String),
    /// The newest entry that was made not after this, in ms since 1970 by its author's clock.
    At(u64),
}

/// The text names no version: it is neither `@`, `latest`, `~N` nor the first digits of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoVersion;

/// A tree as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The entry that led there; none where all is meant that is known.
    pub entry: Option<EntryId>,
    seen: Seen,
}

/// Which entries somebody wants to be told of.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Only what is older than this one.
    pub after: Option<EntryId>,
    /// At most [`ENTRIES_AT_ONCE_MAX`].
    pub most: usize,
    /// Only what did something to this, or in it, whatever it was called.
    pub path: Option<Vec<Name>>,
}

/// An entry, told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub id: EntryId,
    pub hash: EntryHash,
    pub author: DeviceId,
    /// By the author's clock, in ms since 1970.
    pub at_ms: u64,
    pub lamport: u64,
    /// What it did, by path; at most [`DEEDS_MAX`].
    pub deeds: Vec<Deed>,
    /// How many more there are.
    pub more: usize,
    /// Whether what files held then is still there.
    pub is_kept: bool,
}

/// Why nothing comes of the past.
#[derive(Debug)]
pub enum PastError {
    /// No entry is named so: look at the list of them.
    NoEntry,
    /// Several begin so: give more digits.
    Ambiguous(Vec<EntryHash>),
    /// It was not there then: ask for another version.
    NotThere,
    /// This is no directory now: move it out of the way, or restore that.
    InTheWay(Vec<Name>),
    /// What files held then was given up: ask for a newer version.
    Forgotten,
    /// Something later changed the same: undo that first, or restore what is wanted.
    Changed(BTreeSet<Vec<Name>>),
    Bucket(BucketError),
}

impl Version {
    /// Returns the entries of which the tree comes.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl FromStr for Wanted {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Wanted, NoVersion> {
        if matches!(text, "@" | "latest") {
            return Ok(Wanted::Newest);
        }
        if let Some(number) = text.strip_prefix('~') {
            let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            let number = number.parse().ok().filter(|_| is_number);
            return number.map(Wanted::Back).ok_or(NoVersion);
        }
        let is_hash = (DIGITS_MIN..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let hash = || Wanted::Hash(text.to_ascii_lowercase());
        is_hash.then(hash).ok_or(NoVersion)
    }
}

impl Bucket {
    /// Finds the version that somebody names.
    pub fn version(&mut self, wanted: &Wanted) -> Result<Version, PastError> {
        let entry = match wanted {
            Wanted::Newest => {
                return Ok(Version { entry: None, seen: self.feeds.frontier() });
            }
            Wanted::Back(number) => {
                let mut before = *number;
                let (mut made, mut found) = (HashMap::new(), None);
                for known in self.newest_first() {
                    let opened = self.read_entry(known)?;
                    if self.is_part(&mut made, &opened)? {
                        continue;
                    }
                    if before == 0 {
                        found = Some(known.id);
                        break;
                    }
                    before -= 1;
                }
                found
            }
            Wanted::Hash(digits) => Some(self.entry_of(digits)?),
            Wanted::At(at_ms) => {
                let mut found = None;
                for known in self.newest_first() {
                    if self.decode(known)?.header().at_ms <= *at_ms {
                        found = Some(known.id);
                        break;
                    }
                }
                found
            }
        };
        self.version_of(entry.ok_or(PastError::NoEntry)?)
    }

    /// Returns the version to which an entry led.
    pub fn version_of(&self, entry: EntryId) -> Result<Version, PastError> {
        let seen = self.seen_with(entry).ok_or(PastError::NoEntry)?;
        Ok(Version { entry: Some(entry), seen })
    }

    /// Whether an entry has a part of a long version and nothing else: what was done is told with the last.
    fn is_part(
        &mut self,
        made: &mut HashMap<FileId, bool>,
        opened: &Opened<'_>,
    ) -> Result<bool, BucketError> {
        match &opened.ops[..] {
            [Op::Write { file, .. }] => Ok(!self.is_made(made, *file)?),
            _ => Ok(false),
        }
    }

    /// Whether a version is the tree as it is now: [`Bucket::read`] reads it at once.
    pub fn is_newest(&self, version: &Version) -> bool {
        version.seen == self.feeds.frontier()
    }

    /// Makes a version's tree anew, of exactly the entries that led there.
    pub fn at(&self, version: &Version) -> Result<State<Memory>, PastError> {
        self.check_kept(&version.seen)?;
        Ok(self.replay(&version.seen)?)
    }

    /// Tells of entries, the newest first.
    ///
    /// All entries are read, for what things were called then.
    pub fn told(&mut self, asked: &Asked, lens: &impl Lens) -> Result<Vec<Told>, PastError> {
        let mut order = self.newest_first();
        if let Some(after) = asked.after {
            let place = order.iter().position(|known| known.id == after);
            order.drain(..=place.ok_or(PastError::NoEntry)?);
        }
        let mut wanted = match &asked.path {
            Some(path) => self.read(|now| reach(now, path, lens))?,
            None => BTreeSet::new(),
        };
        let mut places = Places::default();
        for known in &self.known {
            places.note(&self.read_entry(*known)?);
        }
        let (mut made, mut told) = (HashMap::new(), Vec::new());
        for known in order {
            if told.len() == asked.most.min(ENTRIES_AT_ONCE_MAX) {
                break;
            }
            let opened = self.read_entry(known)?;
            if self.is_part(&mut made, &opened)? {
                continue;
            }
            let done = places.done(&opened);
            if let Some(path) = &asked.path {
                // Of what is not there now the newest of that name is meant.
                if wanted.is_empty() {
                    wanted.extend(done.iter().filter_map(|one| one.file_at(path)));
                }
                if !done.iter().any(|one| one.is_in(&wanted)) {
                    continue;
                }
            }
            let mut deeds = deeds::lines(done);
            let more = deeds.len().saturating_sub(DEEDS_MAX);
            deeds.truncate(DEEDS_MAX);
            told.push(self.tell(known, deeds, more)?);
        }
        Ok(told)
    }

    /// Returns operations that make what is at a path as it was, with all in it.
    ///
    /// They may be done in several entries ([`parts`]), in their order.
    pub fn restoring(
        &mut self,
        path: &[Name],
        version: &Version,
        lens: &impl Lens,
    ) -> Result<Vec<Op>, PastError> {
        let then = self.at(version)?;
        let ops = self.read(|now| match restore(now, &then, path, lens, random::bytes) {
            Ok(ops) => Ok(Ok(ops)),
            Err(RestoreError::NotThere) => Ok(Err(PastError::NotThere)),
            Err(RestoreError::InTheWay(path)) => Ok(Err(PastError::InTheWay(path))),
            Err(RestoreError::Tables(error)) => Err(error),
        });
        ops?
    }

    /// Returns operations that take back what an entry did, if nothing later changed the same.
    pub fn undoing(&mut self, entry: EntryId) -> Result<Vec<Op>, PastError> {
        let known = self.known.iter().find(|known| known.id == entry);
        let opened = self.read_entry(*known.ok_or(PastError::NoEntry)?)?;
        self.check_kept(&opened.seen)?;
        let before = self.replay(&opened.seen)?;
        let mut after = before.clone();
        apply(&mut after, &opened);
        let ops = self.read(|now| match undo(&opened.ops, &before, &after, now) {
            Ok(ops) => Ok(Ok(ops)),
            Err(UndoError::Changed(paths)) => Ok(Err(PastError::Changed(paths))),
            Err(UndoError::Tables(error)) => Err(error),
        });
        ops?
    }

    /// Returns an entry, and all that its author had seen.
    fn seen_with(&self, entry: EntryId) -> Option<Seen> {
        let mut seen = self.feeds.seen_by(entry)?;
        seen.see(entry);
        Some(seen)
    }

    fn newest_first(&self) -> Vec<Known> {
        let rank = |known: &Known| (self.feeds.lamport(known.id), known.id.feed);
        let mut order = self.known.clone();
        order.sort_by_cached_key(|known| std::cmp::Reverse(rank(known)));
        order
    }

    fn entry_of(&self, digits: &str) -> Result<EntryId, PastError> {
        let hashes = self.known.iter().filter_map(|known| {
            let hash = self.feeds.hash(known.id)?;
            hash.to_string().starts_with(digits).then_some((known.id, hash))
        });
        let found: Vec<_> = hashes.take(AMBIGUOUS_MAX).collect();
        match &found[..] {
            [] => Err(PastError::NoEntry),
            [(id, _)] => Ok(*id),
            several => Err(PastError::Ambiguous(several.iter().map(|(_, hash)| *hash).collect())),
        }
    }

    pub(super) fn replay(&self, seen: &Seen) -> Result<State<Memory>, BucketError> {
        let (mut state, done) = self.tree_within(seen).unwrap_or_default();
        let is_left = |known: &&Known| seen.covers(known.id) && !done.covers(known.id);
        for known in self.known.iter().filter(is_left) {
            apply(&mut state, &self.read_entry(*known)?);
        }
        Ok(state)
    }

    fn tell(&self, known: Known, deeds: Vec<Deed>, more: usize) -> Result<Told, BucketError> {
        let entry = self.decode(known)?;
        let (id, hash, header) = (known.id, entry.hash(), entry.header());
        let author = self.author(id).expect("it was accepted");
        let (at_ms, lamport) = (header.at_ms, header.lamport);
        let is_kept = self.kept.has(&self.seen_with(id).expect("it was accepted"));
        Ok(Told { id, hash, author, at_ms, lamport, deeds, more, is_kept })
    }
}

/// Splits operations into what one entry each can have.
pub fn parts(ops: Vec<Op>) -> Vec<Vec<Op>> {
    let mut parts: Vec<Vec<Op>> = Vec::new();
    let mut bytes = PART_BYTES_MAX;
    for op in ops {
        let len = record::encode(&op).len();
        let is_full = parts.last().is_none_or(|part| part.len() == OPS_MAX);
        if is_full || bytes + len > PART_BYTES_MAX {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += len;
        parts.last_mut().expect("one was put there").push(op);
    }
    parts
}

fn batch<'a>(opened: &'a Opened<'_>) -> Batch<'a> {
    let Opened { id, lamport, seen, ops } = opened;
    Batch { id: *id, lamport: *lamport, seen, ops }
}

/// Does what an entry says, if that is something that may be done.
fn apply(state: &mut State<Memory>, opened: &Opened<'_>) {
    match state.apply(batch(opened)) {
        Ok(()) | Err(ApplyError::Fault(_)) => {}
        Err(ApplyError::Tables(never)) => match never {},
    }
}

/// Returns what is at a path.
fn reach(
    now: &super::Tree,
    path: &[Name],
    lens: &impl Lens,
) -> Result<BTreeSet<FileId>, ShelfError> {
    let at = match now.walk(path, lens) {
        Ok(at) => at,
        Err(WalkError::NotFound | WalkError::NotADirectory) => return Ok(BTreeSet::new()),
        Err(WalkError::Tables(error)) => return Err(error),
    };
    Ok(match at {
        What::Directory(directory) => directory.all().iter().copied().collect(),
        What::File { file, .. } | What::Beside { file, .. } => [file].into(),
    })
}

impl fmt::Display for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for NoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a version is `@`, `latest`, `~N`, or {DIGITS_MIN} or more digits of a hash")
    }
}

impl std::error::Error for NoVersion {}

impl fmt::Display for PastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &[Name]| deeds::text(path);
        match self {
            PastError::NoEntry => f.write_str("there is no such entry"),
            PastError::Ambiguous(hashes) => {
                let hashes: Vec<_> = hashes.iter().map(|hash| hash.to_string()).collect();
                write!(f, "several entries begin so: {}", hashes.join(", "))
            }
            PastError::NotThere => f.write_str("it was not there then"),
            PastError::InTheWay(at) => write!(f, "`{}` is no directory now", path(at)),
            PastError::Forgotten => f.write_str("what files held then was given up"),
            PastError::Changed(paths) => {
                let paths: Vec<_> = paths.iter().map(|at| format!("`{}`", path(at))).collect();
                write!(f, "something later changed {}", paths.join(", "))
            }
            PastError::Bucket(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for PastError {}

impl From<BucketError> for PastError {
    fn from(error: BucketError) -> PastError {
        PastError::Bucket(error)
    }
}

impl From<Infallible> for ShelfError {
    fn from(never: Infallible) -> ShelfError {
        match never {}
    }
}
