//! Which chunks are needed.
//!
//! Those of all versions that are kept: of the oldest of them what was in its files, of all later ones what any entry names.
//! What was put and is named by none is what was left behind by somebody who did not come to an end, or has not come there yet.
//! So are parts of a version of which the last never came: what they name is needed if something is made of them, or
//! if their feed ends there and may go on.
//! What several versions that stand side by side have in common is needed for as long as they do: by it they merge.
//! What a checkpoint names is needed, too.
//! Not here: what is in a log and in no entry yet; who has that adds its chunks.

use std::collections::{HashMap, HashSet};
use std::io;

use gate_core::tree::id::{Address, EntryId, FeedId, FileId, LinkId, OpId};
use gate_core::tree::op::{Content, Op};
use gate_core::tree::record::FileRecord;
use gate_core::tree::seen::Seen;
use gate_core::tree::shown::{Directory, What};
use gate_core::tree::state::State;
use gate_core::tree::tables::{Look, Memory};

use super::{Bucket, BucketError};
use crate::frames::Gap;

/// What some entries name.
#[derive(Default)]
struct Named {
    chunks: HashSet<Address>,
    /// Files and names to which they do something.
    files: HashSet<FileId>,
    links: HashSet<LinkId>,
    /// Parts of versions of which nobody knows yet whether anything is made of them.
    parts: HashMap<OpId, Part>,
    /// Versions that are made of something older: what they hold of that is named by nothing newer.
    over_older: Vec<OpId>,
    /// Versions in whose place they come.
    past: HashSet<OpId>,
}

/// A part of a long version that is not the last.
struct Part {
    of: Option<OpId>,
    chunks: Vec<Address>,
}

impl Bucket {
    /// Returns the chunks of all versions that are kept, and of the checkpoint.
    ///
    /// Where entries are damaged nobody knows what those and all that came after them name.
    pub fn marks(&mut self) -> Result<HashSet<Address>, BucketError> {
        if let Some(Gap { offset, bytes }) = self.found.damage.first() {
            let why = format!("{bytes} bytes from {offset} on are no entry");
            let error = io::Error::new(io::ErrorKind::InvalidData, why);
            return Err(BucketError::Incomplete("entries", error));
        }
        let mut marks = self.needed()?;
        let checkpoint = self.checkpoint.found();
        marks.extend(checkpoint.into_iter().flat_map(|found| &found.header().chunks));
        Ok(marks)
    }

    /// Returns the chunks that the kept versions need, as far as their entries are known.
    pub(super) fn needed(&mut self) -> Result<HashSet<Address>, BucketError> {
        let since = self.kept_since();
        let mut named = self.named_since(&since)?;
        if since == self.frontier() {
            named.chunks.extend(self.read(chunks_shown)?);
        } else {
            let then = self.replay(&since)?;
            let Ok(shown) = chunks_shown(&then);
            named.chunks.extend(shown);
            // It may have had no name then, and been given one later by who had it open.
            named.add_of(&then);
        }
        let mut older = named.over_older;
        // What was written since may stand beside something older, and merge with that.
        older.extend(named.past.into_iter().filter(|version| since.covers(version.entry)));
        if since != Seen::new() {
            for file in named.files {
                older.extend(self.read(|now| in_common(now, &now.file(file)?))?);
            }
        }
        for version in older {
            let body = self.read(|now| now.body(version))?.unwrap_or_default();
            named.chunks.extend(body.chunks().map(|chunk| chunk.address));
        }
        Ok(named.chunks)
    }

    /// Returns what the entries name that a version had not seen.
    fn named_since(&mut self, since: &Seen) -> Result<Named, BucketError> {
        let mut named = Named::default();
        let mut made = HashMap::new();
        let mut patches = Vec::new();
        for known in self.known.clone().into_iter().filter(|known| !since.covers(known.id)) {
            let entry = self.decode(known)?;
            let mut brought: HashSet<_> = entry.header().chunks.iter().copied().collect();
            for (place, op) in (0..).zip(self.open_entry(known, &entry)?.ops.iter()) {
                let id = OpId { entry: known.id, place };
                if let Op::Write { file, content, .. } = op {
                    let of = patched(content);
                    if !self.is_made(&mut made, *file)? {
                        let chunks: Vec<_> = op.chunks().map(|chunk| chunk.address).collect();
                        for chunk in &chunks {
                            brought.remove(chunk);
                        }
                        named.parts.insert(id, Part { of, chunks });
                        continue;
                    }
                    patches.extend(of.map(|of| (id, of)));
                }
                named.note(op);
            }
            named.chunks.extend(brought);
        }
        patches.extend(self.feeds_that_may_go_on().map(|id| (id, id)));
        for (id, of) in patches {
            named.use_parts(id, of, since);
        }
        Ok(named)
    }

    /// Whether somebody made a file: to one that nobody did parts of versions are written.
    pub(super) fn is_made(
        &mut self,
        known: &mut HashMap<FileId, bool>,
        file: FileId,
    ) -> Result<bool, BucketError> {
        if let Some(is_made) = known.get(&file) {
            return Ok(*is_made);
        }
        let is_made = self.read(|now| Ok(now.file(file)?.made.is_some()))?;
        known.insert(file, is_made);
        Ok(is_made)
    }

    /// Returns what may be the newest part of a version that goes on: who opens a bucket begins another feed.
    fn feeds_that_may_go_on(&self) -> impl Iterator<Item = OpId> {
        let is_over =
            |feed: &FeedId| self.feeds.device(feed) == Some(self.device) && *feed != self.own.id();
        let ends: Vec<_> = self.frontier().iter().filter(|(feed, _)| !is_over(feed)).collect();
        let newest = |(feed, count)| EntryId { feed, number: count - 1 };
        ends.into_iter().map(newest).map(|entry| OpId { entry, place: 0 })
    }
}

impl Named {
    fn note(&mut self, op: &Op) {
        self.chunks.extend(op.chunks().map(|chunk| chunk.address));
        if let Op::Write { base, .. } = op {
            self.past.extend(base);
        }
        match op {
            Op::Create { file, .. }
            | Op::Link { file, .. }
            | Op::Write { file, .. }
            | Op::SetAttr { file, .. }
            | Op::Resolve { file, .. } => drop(self.files.insert(*file)),
            Op::Move { link, .. } | Op::Delete { link } => drop(self.links.insert(*link)),
        }
    }

    /// Adds what those files held then.
    fn add_of(&mut self, then: &State<Memory>) {
        for link in &self.links {
            let Ok(record) = then.tables().link(*link);
            self.files.extend(record.and_then(|record| record.born).map(|born| born.value));
        }
        for file in &self.files {
            let Ok(chunks) = then.file(*file).and_then(|record| chunks_of(then, &record));
            self.chunks.extend(chunks);
        }
    }

    /// Something is made of a version: if that is a part, what it names is needed, and so is the one before.
    fn use_parts(&mut self, id: OpId, of: OpId, since: &Seen) {
        let mut at = Some(of);
        while let Some(of) = at {
            let Some(part) = self.parts.get(&of) else { break };
            self.chunks.extend(&part.chunks);
            at = part.of;
        }
        if at.is_some_and(|of| of != id && since.covers(of.entry)) {
            self.over_older.push(id);
        }
    }
}

/// Returns the chunks of all that is shown in a tree, versions beside others among it.
fn chunks_shown<T: Look>(tree: &State<T>) -> Result<HashSet<Address>, T::Error> {
    // What things are called makes no difference.
    let lens = |_: &FeedId| String::new();
    let mut chunks = HashSet::new();
    let mut left = vec![Directory::root()];
    while let Some(directory) = left.pop() {
        for shown in tree.list(&directory, &lens)? {
            match shown.what {
                What::Directory(directory) => left.push(directory),
                What::File { file, .. } => chunks.extend(chunks_of(tree, &tree.file(file)?)?),
                // Another version of a file that has a name, too.
                What::Beside { .. } => {}
            }
        }
    }
    Ok(chunks)
}

/// Returns the chunks of all versions of a file in whose place no other came, and of what those have in common.
fn chunks_of<T: Look>(tree: &State<T>, record: &FileRecord) -> Result<Vec<Address>, T::Error> {
    let mut chunks = Vec::new();
    let common = in_common(tree, record)?;
    for version in record.heads.keys().copied().chain(common) {
        let body = tree.body(version)?.unwrap_or_default();
        chunks.extend(body.chunks().map(|chunk| chunk.address));
    }
    Ok(chunks)
}

/// Returns the version by which several of a file merge, if they do.
fn in_common<T: Look>(tree: &State<T>, record: &FileRecord) -> Result<Option<OpId>, T::Error> {
    let heads: Vec<_> = record.heads.keys().copied().collect();
    if heads.len() < 2 { Ok(None) } else { tree.common_base(&heads) }
}

fn patched(content: &Content) -> Option<OpId> {
    match content {
        Content::Patch { of, .. } => Some(*of),
        Content::Inline(_) | Content::Extents(_) => None,
    }
}
