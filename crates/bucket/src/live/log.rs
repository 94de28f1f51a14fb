//! What was done and is in no entry yet is logged, and found again after a crash.
//!
//! Operations on names are logged as they are done; bytes of files once their writer closes or syncs the file, or
//! when they are many, so that who writes a long file seals it once and logs little. A log is begun anew, with
//! what is still in no entry, once it has grown.

use std::collections::{HashMap, HashSet};
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use gate_core::tree::content::Body;
use gate_core::tree::id::{EntryId, FileId, OpId};
use gate_core::tree::op::Op;
use gate_core::tree::tables::Look as _;

use super::bodies::Beneath;
use super::file::{Face, Working};
use super::{Inner, Pending, lock, now};
use crate::bucket::BucketError;
use crate::contents::{Ahead, Contents, SEAL_BYTES_DUE, TooLarge};
use crate::draft::DraftError;
use crate::log::{LOG_BYTES_DUE, Log, Record};
use crate::random;

/// A log of so many bytes is begun anew after the next entry.
const RENEWED_FROM_BYTES: u64 = if cfg!(test) { 64 * 1024 } else { 4 * 1024 * 1024 };
/// So many bytes of a file wait to be logged at most, …
const UNTOLD_BYTES_MAX: u64 = 4 * SEAL_BYTES_DUE;
/// … in so many parts.
const UNTOLD_PARTS_MAX: usize = 512;

/// Parts of a file that were written and are not logged yet.
#[derive(Debug, Default)]
pub(super) struct Untold {
    parts: Vec<Range<u64>>,
    bytes: u64,
}

impl Untold {
    pub(super) fn add(&mut self, part: Range<u64>) {
        self.bytes += part.end - part.start;
        match self.parts.last_mut() {
            Some(last) if last.end == part.start => last.end = part.end,
            _ => self.parts.push(part),
        }
    }

    /// Whether it is more than is to be lost.
    pub(super) fn is_much(&self) -> bool {
        self.bytes >= UNTOLD_BYTES_MAX || self.parts.len() >= UNTOLD_PARTS_MAX
    }

    pub(super) fn clear(&mut self) {
        *self = Untold::default();
    }

    /// Takes out what was told otherwise.
    fn without(&mut self, told: &[Range<u64>]) {
        let parts = std::mem::take(&mut self.parts);
        self.bytes = 0;
        for part in parts {
            let mut at = part.start;
            for told in told {
                if told.end <= at || told.start >= part.end {
                    continue;
                }
                if told.start > at {
                    self.add(at..told.start);
                }
                at = at.max(told.end);
            }
            if at < part.end {
                self.add(at..part.end);
            }
        }
    }
}

impl Inner {
    pub(super) fn append(&self, records: &[Record<'_>]) -> Result<(), BucketError> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = log.as_ref() {
            return Ok(log.append(records)?);
        }
        drop(log);
        // Who only reads needs none.
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        let log = match log.as_mut() {
            Some(log) => log,
            None => log.insert(Log::begin(&self.dir, &self.keys, |_| Ok(()))?),
        };
        Ok(log.append(records)?)
    }

    pub(super) fn sync_log(&self) -> Result<(), BucketError> {
        // Chunks come before what names them.
        self.vault.sync()?;
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        Ok(log.as_ref().map_or(Ok(()), Log::sync)?)
    }

    /// Logs what was written to a file.
    pub(super) fn tell(&self, face: &mut Face) -> Result<(), BucketError> {
        self.finish_sealing(face)?;
        let file = face.file;
        if face.gone.is_some() || (face.is_begun && face.untold.parts.is_empty()) {
            return Ok(());
        }
        let mut records = Vec::new();
        begin(face, &mut records);
        for part in &face.untold.parts {
            let mut bytes = vec![0; (part.end - part.start) as usize];
            let len = face.contents.read_at(&self.vault, part.start, &mut bytes)?;
            bytes.truncate(len);
            records.push(Record::Bytes { file, at: part.start, bytes: bytes.into() });
        }
        self.append(&records)?;
        face.is_begun = true;
        face.untold.clear();
        Ok(())
    }

    /// Logs what was sealed of a file, instead of its bytes.
    pub(super) fn tell_sealed(&self, face: &mut Face, ahead: Ahead) -> Result<(), BucketError> {
        let (file, Ahead { extents, zeros }) = (face.file, ahead);
        if face.gone.is_some() || (extents.is_empty() && zeros.is_empty()) {
            return Ok(());
        }
        let sealed = extents.iter().map(|e| e.offset..e.offset + u64::from(e.chunk.len));
        let empty = zeros.iter().map(|span| span.offset..span.offset + span.len);
        let told: Vec<_> = sealed.chain(empty).collect();
        let mut records = Vec::new();
        begin(face, &mut records);
        records.push(Record::Sealed { file, extents });
        records.extend(zeros.into_iter().map(|span| Record::Zeros { file, span }));
        self.append(&records)?;
        face.is_begun = true;
        face.untold.without(&told);
        Ok(())
    }

    /// Begins the log anew if it has grown, with what is still in no entry.
    pub(super) fn renew_log(&self) -> Result<(), BucketError> {
        let bytes = {
            let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
            log.as_ref().map_or(0, Log::bytes)
        };
        if bytes < RENEWED_FROM_BYTES { Ok(()) } else { self.begin_log() }
    }

    /// Forgets what was done if nothing of it lasts.
    pub(super) fn forget_passed(&self) -> Result<(), BucketError> {
        let has_passed = {
            let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
            tree.as_ref().is_some_and(Pending::has_passed)
        };
        if has_passed { self.begin_log() } else { Ok(()) }
    }

    /// Begins a log anew, with what is in no entry yet, but for names if nothing that was done to them lasts.
    pub(super) fn begin_log(&self) -> Result<(), BucketError> {
        let files = lock(&self.files);
        let mut faces: Vec<_> = files.values().map(|working| working.face_mut()).collect();
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        let has_passed = tree.as_ref().is_some_and(Pending::has_passed);
        let lasting = tree.as_ref().filter(|_| !has_passed);
        let ops = lasting.map_or(&[][..], |pending| pending.draft.ops());
        let new = Log::begin(&self.dir, &self.keys, |log| {
            for op in ops {
                log.append(&[Record::Op(op.clone())])?;
            }
            faces.iter().filter(|face| face.is_dirty()).try_for_each(|face| {
                let records = told_whole(face);
                records.iter().try_for_each(|record| log.append(std::slice::from_ref(record)))
            })
        })?;
        *log = Some(new);
        if has_passed {
            *tree = tree.take().map(|pending| {
                let done = pending.draft.ops().len();
                pending.stale(done)
            });
        }
        for face in &mut faces {
            face.is_begun = face.is_dirty();
            face.untold.clear();
        }
        Ok(())
    }

    /// Reads what lies beneath a file that was written to before a crash.
    fn lay_over(&self, face: &mut Face) -> Result<(), BucketError> {
        let Some((id, _)) = face.base else { return Ok(()) };
        match self.look(|pending| self.beneath(pending, id)) {
            Ok(Some(Beneath { body, patches, .. })) => {
                face.contents.lay_over(body);
                face.base = Some((id, patches));
                Ok(())
            }
            Ok(None) => Err(std::io::Error::from(std::io::ErrorKind::InvalidData).into()),
            Err(DraftError::Bucket(error)) => Err(error),
            Err(error) => Err(std::io::Error::other(error).into()),
        }
    }

    /// Whether so much is logged that it is to become entries, whoever still writes.
    pub(super) fn is_log_long(&self) -> bool {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        log.as_ref().is_some_and(|log| log.bytes() >= LOG_BYTES_DUE)
    }

    /// Does once more what the log tells that is in no entry, and begins another with that.
    pub(super) fn recover(&self) -> Result<(), BucketError> {
        let mut last: HashMap<EntryId, usize> = HashMap::new();
        let mut cuts = 0;
        let found = Log::read(&self.dir, &self.keys, |records| {
            for record in records {
                if let Record::Cut { entry, .. } = record {
                    last.insert(entry, cuts);
                    cuts += 1;
                }
            }
            ControlFlow::Continue(())
        })?;
        if found.is_none() && cuts == 0 && !Log::exists(&self.dir) {
            return Ok(());
        }
        // What failed to become an entry was tried again under the same number: the last counts.
        let committed: HashSet<usize> = {
            let known = lock(&self.bucket).frontier();
            last.iter().filter(|(entry, _)| known.covers(**entry)).map(|(_, cut)| *cut).collect()
        };
        let mut again = Again { inner: self, ops: Vec::new(), cuts: 0, committed };
        let mut outcome = Ok(());
        Log::read(&self.dir, &self.keys, |records| {
            outcome = records.into_iter().try_for_each(|record| again.take(record));
            match outcome {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        match outcome {
            // What is missing was never there for sure, so nobody was told that what comes after it was.
            Ok(()) | Err(Stop::Missing) => {}
            Err(Stop::Failed(error)) => return Err(error),
        }
        let ops = again.ops;
        let count = ops.len();
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(pending) = tree.as_mut() {
            pending.redo(ops)?;
        }
        drop(tree);
        let files: Vec<_> = {
            let mut files = lock(&self.files);
            files.retain(|_, working| {
                let mut face = working.face_mut();
                // What was to be a version is in no entry: it is told of with what was written over it.
                face.contents.unfreeze();
                face.is_dirty()
            });
            files.values().cloned().collect()
        };
        for working in &files {
            self.lay_over(&mut working.face_mut())?;
        }
        let files = files.len();
        if count + files == 0 {
            return Ok(());
        }
        tracing::info!(operations = count, files, "what was done before a crash is found again");
        // Before any of it is made an entry: done twice, it would contradict itself.
        self.begin_log()
    }
}

/// Why the rest of a log is not done once more.
enum Stop {
    /// It names what is not there.
    Missing,
    Failed(BucketError),
}

impl<E: Into<BucketError>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Failed(error.into())
    }
}

fn failed(error: DraftError) -> Stop {
    match error {
        DraftError::Bucket(error) => Stop::Failed(error),
        error => Stop::Failed(std::io::Error::other(error).into()),
    }
}

/// Does once more what a log tells.
struct Again<'a> {
    inner: &'a Inner,
    /// What is in no entry yet.
    ops: Vec<Op>,
    /// How many attempts at an entry were met.
    cuts: usize,
    committed: HashSet<usize>,
}

impl Again<'_> {
    fn take(&mut self, record: Record<'_>) -> Result<(), Stop> {
        match record {
            Record::Op(op) => self.ops.push(op),
            Record::Begin { file, base, size, fence } => {
                let base = base.first().copied();
                base.map_or(Ok(()), |id| self.check_known(id))?;
                let (contents, base) =
                    (Contents::of(size, Body::default()), base.map(|id| (id, 0)));
                let working = Working::again(file, contents, base, now(), fence);
                lock(&self.inner.files).insert(file, working.into());
            }
            Record::Bytes { file, at, bytes } => {
                self.change(file, |contents| contents.write(at, &bytes))?;
            }
            Record::Sealed { file, extents } => {
                let store = self.inner.vault.store();
                for extent in &extents {
                    if !store.has(&extent.chunk.address)? {
                        return Err(Stop::Missing);
                    }
                }
                let ahead = Ahead { extents, zeros: Vec::new() };
                self.change(file, |contents| contents.put(&ahead))?;
            }
            Record::Zeros { file, span } => {
                let ahead = Ahead { extents: Vec::new(), zeros: vec![span] };
                self.change(file, |contents| contents.put(&ahead))?;
            }
            Record::Size { file, size } => {
                self.change(file, |contents| contents.set_size(size))?;
            }
            Record::Replace { from, to, base } => self.replace(from, to, base)?,
            Record::Drop { file } => drop(lock(&self.inner.files).remove(&file)),
            Record::Freeze { file } => {
                if let Some(working) = self.inner.in_use(file) {
                    working.face_mut().freeze();
                }
            }
            Record::Cut { entry, ops, writes } => {
                let is_committed = self.committed.contains(&self.cuts);
                self.cuts += 1;
                if is_committed {
                    self.ops.drain(..(ops as usize).min(self.ops.len()));
                }
                for (file, place) in writes {
                    self.cut(file, OpId { entry, place }, is_committed)?;
                }
            }
        }
        Ok(())
    }

    fn replace(&self, from: FileId, to: FileId, base: Vec<OpId>) -> Result<(), Stop> {
        let mut files = lock(&self.inner.files);
        let working = match files.remove(&from) {
            Some(working) => working,
            // It was a version, and nothing was written over that.
            None => {
                let working = self.inner.look(|pending| self.inner.working(pending, from, None));
                Arc::new(working.map_err(failed)?)
            }
        };
        working.face_mut().put_in_place(to, base);
        files.insert(to, working);
        Ok(())
    }

    fn change(
        &self,
        file: FileId,
        change: impl FnOnce(&mut Contents) -> Result<(), TooLarge>,
    ) -> Result<(), Stop> {
        if let Some(working) = self.inner.in_use(file) {
            let mut face = working.face_mut();
            face.dirty_since.get_or_insert_with(Instant::now);
            change(&mut face.contents).map_err(|error| Stop::from(std::io::Error::other(error)))?;
        }
        Ok(())
    }

    fn cut(&self, file: FileId, version: OpId, is_committed: bool) -> Result<(), Stop> {
        let Some(working) = self.inner.in_use(file) else { return Ok(()) };
        let mut face = working.face_mut();
        if !is_committed {
            face.contents.unfreeze();
        } else if let Some(size) = face.contents.frozen_size() {
            self.check_known(version)?;
            face.became(version, 0);
            face.contents.thaw(Body::default(), size);
        }
        // It stays: whoever has it open may have gone on to write it, which is not begun anew then.
        if !face.contents.is_dirty() && !face.is_put {
            face.dirty_since = None;
        }
        Ok(())
    }

    /// What a version holds is read once all that is written over it is known: most of what a log tells is in entries.
    fn check_known(&self, version: OpId) -> Result<(), Stop> {
        let known = self.inner.look(|pending| {
            let version = pending.draft.tree().tables().version(version)?;
            Ok(version.is_some())
        });
        if known.map_err(failed)? { Ok(()) } else { Err(Stop::Missing) }
    }
}

/// Tells that a file begins to be written to, unless it was told.
fn begin(face: &Face, records: &mut Vec<Record<'static>>) {
    if !face.is_begun {
        records.push(begun(face.file, face));
    }
}

fn begun(file: FileId, face: &Face) -> Record<'static> {
    let base = face.base.iter().map(|(id, _)| *id).collect();
    Record::Begin { file, base, size: face.contents.body_size(), fence: face.fence }
}

/// Tells all that is in no version of a file.
fn told_whole(face: &Face) -> Vec<Record<'_>> {
    // What comes in place of others than the one beneath is begun as a file of its own.
    let from = match face.in_place_of {
        Some(_) => FileId::of_file(random::bytes()),
        None => face.file,
    };
    let mut records = vec![begun(from, face)];
    face.contents.tell(from, &mut records);
    let base = face.in_place_of.clone();
    records.extend(base.map(|base| Record::Replace { from, to: face.file, base }));
    records
}

impl Pending {
    /// Drafts operations that were logged.
    pub(super) fn redo(&mut self, ops: Vec<Op>) -> Result<(), BucketError> {
        match self.draft.redo(ops) {
            Ok(()) => Ok(()),
            Err(DraftError::Bucket(error)) => Err(error),
            Err(error) => Err(std::io::Error::other(error).into()),
        }
    }
}
