//! Which chunks are needed.
//!
//! Those of all versions that are kept: of the oldest of them what was in its files, of all later ones what any entry names.
//! What was put and is named by none is what was left behind by somebody who did not come to an end, or has not come there yet.
//! Not here: what is in a log and in no entry yet; who has that adds its chunks.

use std::collections::HashSet;
use std::io;

use gate_core::tree::id::{Address, FileId, LinkId};
use gate_core::tree::op::Op;
use gate_core::tree::record::FileRecord;
use gate_core::tree::seen::Seen;
use gate_core::tree::shown::{Authors, Directory, What};
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
}

impl Bucket {
    /// Returns the chunks of all versions that are kept.
    ///
    /// Where entries are damaged nobody knows what those and all that came after them name.
    pub fn marks(&mut self) -> Result<HashSet<Address>, BucketError> {
        if let Some(Gap { offset, bytes }) = self.found.damage.first() {
            let why = format!("{bytes} bytes from {offset} on are no entry");
            let error = io::Error::new(io::ErrorKind::InvalidData, why);
            return Err(BucketError::Incomplete("entries", error));
        }
        self.needed()
    }

    /// Returns the chunks that the kept versions need, as far as their entries are known.
    pub(super) fn needed(&mut self) -> Result<HashSet<Address>, BucketError> {
        let since = self.kept_since();
        let mut named = self.named_since(&since)?;
        let authors = self.authors_now();
        if since == self.frontier() {
            named.chunks.extend(self.read(|now| chunks_shown(now, &authors))?);
        } else {
            let then = self.replay(&since)?;
            let Ok(shown) = chunks_shown(&then, &authors);
            named.chunks.extend(shown);
            // It may have had no name then, and been given one later by who had it open.
            named.add_of(&then);
        }
        Ok(named.chunks)
    }

    /// Returns what the entries name that a version had not seen.
    fn named_since(&self, since: &Seen) -> Result<Named, BucketError> {
        let mut named = Named::default();
        for known in self.known.iter().filter(|known| !since.covers(known.id)) {
            let entry = self.decode(*known)?;
            named.chunks.extend(&entry.header().chunks);
            self.open_entry(*known, &entry)?.ops.iter().for_each(|op| named.note(op));
        }
        Ok(named)
    }
}

impl Named {
    fn note(&mut self, op: &Op) {
        self.chunks.extend(op.chunks().map(|chunk| chunk.address));
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
            let Ok(record) = then.file(*file);
            self.chunks.extend(chunks_of(&record));
        }
    }
}

/// Returns the chunks of all that is shown in a tree, versions beside others among it.
fn chunks_shown<T: Look>(
    tree: &State<T>,
    authors: &impl Authors,
) -> Result<HashSet<Address>, T::Error> {
    let mut chunks = HashSet::new();
    let mut left = vec![Directory::root()];
    while let Some(directory) = left.pop() {
        for shown in tree.list(&directory, authors)? {
            match shown.what {
                What::Directory(directory) => left.push(directory),
                What::File { file, .. } => chunks.extend(chunks_of(&tree.file(file)?)),
                // Another version of a file that has a name, too.
                What::Beside { .. } => {}
            }
        }
    }
    Ok(chunks)
}

fn chunks_of(record: &FileRecord) -> impl Iterator<Item = Address> {
    let bodies = record.heads.values().map(|version| &version.body);
    bodies.flat_map(|body| body.chunks()).map(|chunk| chunk.address)
}
