//! Which files need what is not here any more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use gate_core::tree::id::{FileId, OpId};
use gate_core::tree::op::{Content, Name, Op};

use super::super::{Bucket, BucketError};
use super::deeds;
use super::places::Places;
use crate::entry::EntryHash;

/// So many digits of a version are told.
const DIGITS_TOLD: usize = 12;

/// A version of a file of which a chunk is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What it was called when it was written.
    pub path: Vec<Name>,
    /// The entry that wrote it.
    pub entry: EntryHash,
}

impl Bucket {
    /// Returns what was written and is not all here, in the order in which it came; what was given up is not lost.
    pub fn lost(&mut self) -> Result<Vec<Lost>, BucketError> {
        let mut lacking = HashSet::new();
        for chunk in self.needed()? {
            if !self.store.has(&chunk)? {
                lacking.insert(chunk);
            }
        }
        if lacking.is_empty() {
            return Ok(Vec::new());
        }
        let mut places = Places::default();
        let mut torn = Vec::new();
        let (mut made, mut torn_parts) = (HashMap::new(), HashSet::new());
        for known in self.known.clone() {
            let opened = self.read_entry(known)?;
            places.note(&opened);
            let mut files: BTreeSet<FileId> = BTreeSet::new();
            for (place, op) in (0..).zip(opened.ops.iter()) {
                let Op::Write { file, content, .. } = op else { continue };
                let is_of_torn =
                    matches!(content, Content::Patch { of, .. } if torn_parts.contains(of));
                if !is_of_torn && !op.chunks().any(|chunk| lacking.contains(&chunk.address)) {
                    continue;
                }
                // A part has no name: what is made of it is told of.
                match self.is_made(&mut made, *file)? {
                    true => drop(files.insert(*file)),
                    false => drop(torn_parts.insert(OpId { entry: known.id, place })),
                }
            }
            if !files.is_empty() {
                torn.push((opened, files));
            }
        }
        let mut lost = Vec::new();
        for (opened, files) in torn {
            let entry = self.hash(opened.id).expect("it was accepted");
            for done in places.done(&opened) {
                let is_torn = done.file.is_some_and(|file| files.contains(&file));
                if let (true, Some(spot)) = (is_torn, done.after.or(done.before)) {
                    lost.push(Lost { path: spot.path, entry });
                }
            }
        }
        Ok(lost)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, entry) = (deeds::text(&self.path), self.entry.to_string());
        write!(f, "{path}, as version {} wrote it, is not all here", &entry[..DIGITS_TOLD])
    }
}
