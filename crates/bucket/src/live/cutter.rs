//! What was done becomes entries: all names and attributes at once, and each file whose writers are done.
//!
//! What is being made an entry stays readable, and what is done meanwhile comes on top of it. After an error
//! all is as it was, and is tried again.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gate_core::tree::id::{Address, EntryId, FileId, LinkId, OpId};
use gate_core::tree::op::{Attribute, Content, Fence, Op, Stamp};

use super::bodies::Beneath;
use super::file::Working;
use super::{Inner, Pending, lock, now_ms};
use crate::bucket::{Bucket, BucketError};
use crate::contents::{Frozen, Ground, Version};
use crate::draft::{CHUNK_BYTES, DRAFT_BYTES_MAX, DRAFT_CHUNKS_MAX, DRAFT_OPS_MAX, DraftError};
use crate::log::Record;
use crate::parts;
use crate::random;
use crate::record;
use crate::vault::TakeInError;

/// Between two entries there is so much time at least, so that what is done in one go is in one.
const PAUSE: Duration = Duration::from_millis(200);
/// After an error it is tried again so much later.
const PATIENCE: Duration = Duration::from_secs(1);
/// A file that somebody goes on writing becomes a version so often.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// Wakes the thread that makes entries.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    since: Option<Instant>,
    is_closed: bool,
}

/// Which files become versions, beside those that nobody has open to write and those that wait long.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Also {
    None,
    All,
}

/// A file that is becoming a version.
struct Becoming {
    file: FileId,
    working: Arc<Working>,
    /// None if its times alone changed.
    frozen: Option<Frozen>,
    base: Option<(OpId, u32)>,
    in_place_of: Option<Vec<OpId>>,
    modified: Stamp,
    fence: Option<Fence>,
    version: Option<Version>,
}

/// What becomes an entry.
#[derive(Default)]
struct Making {
    ops: Vec<Op>,
    chunks: Vec<Address>,
    bytes: usize,
    /// So many of the drafted operations are in it.
    names: usize,
    /// Files of those operations of which nobody hears.
    passed: HashSet<FileId>,
    times: BTreeMap<FileId, Stamp>,
    /// The files whose versions are in it, each with its operation's place.
    files: Vec<(Becoming, u32)>,
}

impl Bell {
    /// Something was done.
    pub(super) fn ring(&self) {
        let mut state = lock(&self.state);
        if state.since.is_none() {
            state.since = Some(Instant::now());
            self.changed.notify_all();
        }
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        lock(&self.state).is_closed = true;
        self.changed.notify_all();
    }

    /// Whether nothing comes any more.
    pub(super) fn is_closed(&self) -> bool {
        lock(&self.state).is_closed
    }

    /// Waits until something was done, or some time has come; returns whether there may be more.
    fn wait(&self, after: Instant, at_last: Option<Instant>) -> bool {
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            if state.is_closed {
                return false;
            }
            let rung = state.since.map(|since| after.max(since + PAUSE));
            let until = [rung, at_last].into_iter().flatten().min();
            if until.is_some_and(|until| until <= now) {
                state.since = None;
                return true;
            }
            state = match until {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(now);
                    let woken = self.changed.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Inner {
    /// Makes entries until the bucket is used no more, and of all that is left then.
    pub(super) fn run(&self) {
        thread::scope(|scope| {
            let mut beside = None;
            let (mut after, mut at_last, mut has_failed) = (Instant::now(), None, false);
            while self.bell.wait(after, at_last) {
                match self.cut(Also::None) {
                    Ok(()) => {
                        has_failed = false;
                        self.begin_checkpoint(scope, &mut beside);
                        (after, at_last) = (Instant::now() + PAUSE, self.next_long_open());
                    }
                    Err(error) => {
                        if !has_failed {
                            tracing::warn!(%error, "what was done in a bucket is in no entry yet");
                        }
                        has_failed = true;
                        after = Instant::now() + PATIENCE;
                        at_last = Some(after);
                    }
                }
            }
            if let Err(error) = self.cut(Also::All).and_then(|()| self.forget_passed()) {
                tracing::error!(%error, "what was done in a bucket at the end is in no entry");
            }
        });
    }

    /// Waits until all that was done is in entries, but for what is in files that are open to be written.
    pub(super) fn settle(&self) -> Result<(), BucketError> {
        self.cut(Also::None)
    }

    /// Returns when the file is due that has been written for the longest time.
    fn next_long_open(&self) -> Option<Instant> {
        let files: Vec<_> = lock(&self.files).values().cloned().collect();
        let since = files.iter().filter_map(|working| {
            let face = working.face();
            face.dirty_since.filter(|_| face.gone.is_none())
        });
        since.min().map(|at| at + OPEN_MAX)
    }

    pub(super) fn cut(&self, also: Also) -> Result<(), BucketError> {
        let _cutting = lock(&self.cutting);
        // What was made before a file was written is among the names, for they are counted afterwards.
        let also = if self.is_log_long() { Also::All } else { also };
        let (mut becoming, told) = self.freeze(also);
        let made = told.and_then(|()| self.make_versions(&mut becoming));
        let outcome = made.and_then(|()| self.commit(&mut becoming));
        for left in becoming {
            let mut face = left.working.face_mut();
            face.contents.unfreeze();
            face.dirty_since.get_or_insert_with(Instant::now);
        }
        outcome?;
        let is_crowded = {
            let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
            tree.as_ref().is_some_and(|pending| pending.draft.is_crowded())
        };
        if is_crowded { self.begin_log() } else { self.renew_log() }
    }

    fn freeze(&self, also: Also) -> (Vec<Becoming>, Result<(), BucketError>) {
        let files: Vec<_> = lock(&self.files).values().cloned().collect();
        let mut becoming = Vec::new();
        for working in files {
            let mut face = working.face_mut();
            let Some(since) = face.dirty_since else { continue };
            let is_wanted = face.writers == 0 || since.elapsed() >= OPEN_MAX || also == Also::All;
            // What was put in place of a file goes with the names: it may have been a version under its own.
            let is_wanted = is_wanted || face.is_put;
            if !is_wanted || face.gone.is_some() {
                continue;
            }
            let file = face.file;
            let told = self.tell(&mut face).and_then(|()| self.append(&[Record::Freeze { file }]));
            if told.is_err() {
                return (becoming, told);
            }
            let frozen = face.freeze();
            face.dirty_since = None;
            let (base, in_place_of) = (face.base, face.in_place_of.clone());
            let (modified, fence) = (face.modified, face.fence);
            drop(face);
            let version = None;
            becoming.push(Becoming {
                file,
                working,
                frozen,
                base,
                in_place_of,
                modified,
                fence,
                version,
            });
        }
        (becoming, Ok(()))
    }

    fn make_versions(&self, becoming: &mut Vec<Becoming>) -> Result<(), BucketError> {
        let mut made = Vec::new();
        let mut outcome = Ok(());
        for mut one in becoming.drain(..) {
            let frozen = one.frozen.as_ref().filter(|_| outcome.is_ok());
            match frozen.map(|frozen| self.version_of(frozen, one.base)).transpose() {
                Ok(version) => one.version = version,
                Err(TakeInError::Read(error)) => outcome = Err(error.into()),
                Err(TakeInError::Store(error)) => outcome = Err(error.into()),
                // It holds up nobody else; its writer is refused more as soon as that is seen.
                Err(error @ TakeInError::TooLarge) => {
                    tracing::warn!(%error, file = ?one.file, "a file is in no entry yet");
                    let mut face = one.working.face_mut();
                    face.contents.unfreeze();
                    face.dirty_since = Some(Instant::now());
                    continue;
                }
            }
            made.push(one);
        }
        *becoming = made;
        outcome
    }

    fn version_of(
        &self,
        frozen: &Frozen,
        base: Option<(OpId, u32)>,
    ) -> Result<Version, TakeInError> {
        let high = base.and_then(|(id, patches)| Some((id, frozen.is_high(patches)?)));
        // Without one all of it is told, which is right, too.
        let ground = high.and_then(|(id, most)| self.ground(id, most).ok().flatten());
        frozen.version(&self.vault, base, ground.as_ref())
    }

    fn ground(&self, version: OpId, patches: u32) -> Result<Option<Ground>, DraftError> {
        self.look(|pending| {
            let id = pending.draft.tree().beneath(version, patches)?;
            let Some(id) = id else { return Ok(None) };
            let beneath = self.beneath(pending, id)?;
            Ok(beneath.map(|beneath| Ground { id, patches: beneath.patches, body: beneath.body }))
        })
    }

    /// Makes entries of all names and of some files; what is in one is taken off the list.
    fn commit(&self, becoming: &mut Vec<Becoming>) -> Result<(), BucketError> {
        let mut making = Making::default();
        {
            let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(pending) = tree.as_ref() {
                making = Making::of(pending);
            }
        }
        becoming.retain(|one| !making.passed.contains(&one.file));
        // What is long comes after what is short, and so behind its own name.
        becoming.sort_by_key(|one| std::cmp::Reverse(one.parts()));
        loop {
            while let Some(one) = becoming.pop_if(|one| one.parts() == 1) {
                if let Some(one) = making.take(one) {
                    becoming.push(one);
                    break;
                }
            }
            if making.is_empty() {
                // What is left is long.
                let Some(one) = becoming.last_mut() else { return Ok(()) };
                self.commit_parts(one)?;
                continue;
            }
            let outcome = self.make(&making, &mut lock(&self.bucket));
            let entry = match outcome {
                Ok(entry) => entry,
                Err(error) => {
                    becoming.extend(making.files.into_iter().map(|(one, _)| one));
                    return Err(error);
                }
            };
            self.committed(making, entry)?;
            making = Making::default();
        }
    }

    /// Makes entries of all parts of a version but the last, as which it is left.
    ///
    /// If that one never comes it is made anew of the log, which tells of no part.
    fn commit_parts(&self, one: &mut Becoming) -> Result<(), BucketError> {
        let Some(version) = &mut one.version else { return Ok(()) };
        let file = FileId::of_file(random::bytes());
        let content = std::mem::replace(&mut version.content, Content::EMPTY);
        let mut parts = parts::cut(content, std::mem::take(&mut version.chunks));
        let last = parts.pop().expect("there is one at least");
        let mut of = None;
        for part in parts {
            let (size, chunks) = (version.size, part.chunks.clone());
            let ops = vec![parts::write(file, size, part.content(of))];
            let making = Making { ops, chunks, ..Making::default() };
            let entry = self.make(&making, &mut lock(&self.bucket))?;
            self.committed(making, entry)?;
            of = Some(OpId { entry, place: 0 });
        }
        version.chunks.clone_from(&last.chunks);
        version.content = last.content(of);
        Ok(())
    }

    /// Makes an entry of what was done to names since they were settled.
    pub(super) fn take_in(
        &self,
        pending: &Pending,
        bucket: &mut Bucket,
    ) -> Result<(), BucketError> {
        let making = Making::of(pending);
        if making.is_empty() { Ok(()) } else { self.make(&making, bucket).map(drop) }
    }

    /// Makes one entry. What it is to be is logged for sure before: else a crash between the two would have the
    /// same done twice.
    fn make(&self, making: &Making, bucket: &mut Bucket) -> Result<EntryId, BucketError> {
        let entry = bucket.next_entry();
        let ops = u32::try_from(making.names).expect("an entry has fewer");
        let files = making.files.iter().filter(|(one, _)| one.version.is_some());
        let writes = files.map(|(one, place)| (one.file, *place)).collect();
        self.append(&[Record::Cut { entry, ops, writes }])?;
        self.sync_log()?;
        bucket.commit(&making.ops, making.chunks_named(), now_ms())
    }

    /// What was made an entry is in the state now.
    fn committed(&self, making: Making, entry: EntryId) -> Result<(), BucketError> {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let former = tree.take();
        let draft = lock(&self.bucket).draft();
        *tree = match Pending::over(draft, former.as_ref(), making.names) {
            Ok(mut pending) => {
                pending.directories.retain(|file, at| making.times.get(file) != Some(at));
                Some(pending)
            }
            // Whoever asks next tries again, with what is left to be done.
            Err(error) => {
                tracing::warn!(%error, "the state of a bucket cannot be read");
                former.map(|former| former.stale(making.names))
            }
        };
        drop(tree);
        let mut is_other = false;
        for (one, place) in making.files {
            is_other |= one.version.is_some() && self.has_several(one.file);
            let mut face = one.working.face_mut();
            if let Some(version) = one.version {
                let id = OpId { entry, place };
                let Version { size, patches, body, .. } = &version;
                let beneath = Beneath { size: *size, body: Arc::clone(body), patches: *patches };
                self.bodies.put(id, beneath);
                face.became(id, version.patches);
                face.contents.thaw(version.body, version.size);
            }
            let is_used = face.users > 0;
            drop(face);
            self.let_go_if_unused(&one.working);
            // Somebody else may have written at the same time.
            if is_used {
                self.catch_up(&one.working);
            }
        }
        // What is shown may be more than what was written.
        if is_other {
            self.tidings.tell();
        }
        Ok(())
    }

    fn has_several(&self, file: FileId) -> bool {
        let several = self.look(|pending| Ok(pending.draft.file(file)?.heads.len() > 1));
        several.unwrap_or(false)
    }
}

impl Pending {
    /// Whether something was done, and nothing of it lasts.
    pub(super) fn has_passed(&self) -> bool {
        !self.draft.is_empty() && lasting(self.draft.ops()).0.is_empty()
    }
}

impl Becoming {
    /// Returns in how many parts it is written.
    fn parts(&self) -> usize {
        self.version.as_ref().map_or(1, |version| parts::count(&version.content))
    }

    /// Returns the versions in whose place this one comes.
    fn replaced(&self, content: &Content) -> Vec<OpId> {
        let mut base = match &self.in_place_of {
            Some(versions) => versions.clone(),
            None => self.base.iter().map(|(id, _)| *id).collect(),
        };
        // What a patch is of is among them, also if it is another file's, or a part.
        if let Content::Patch { of, .. } = content
            && !base.contains(of)
        {
            base.push(*of);
        }
        base
    }
}

impl Making {
    /// Begins with all that was done to names.
    fn of(pending: &Pending) -> Making {
        let drafted = pending.draft.ops();
        let (ops, passed) = lasting(drafted);
        if ops.is_empty() {
            // Times alone are told with the next entry, too.
            return Making { passed, ..Making::default() };
        }
        let bytes = ops.iter().map(|op| record::encode(op).len()).sum();
        let mut making = Making { ops, bytes, names: drafted.len(), passed, ..Making::default() };
        let directories = pending.directories.iter();
        let lasting = directories.filter(|(file, _)| !making.passed.contains(file));
        for (file, at) in lasting.collect::<Vec<_>>() {
            let attribute = Attribute::Modified(*at);
            // A time that finds no room is told of with the next entry.
            if making.push(vec![Op::SetAttr { file: *file, attribute }], &[]).is_ok() {
                making.times.insert(*file, *at);
            }
        }
        making
    }

    fn is_empty(&self) -> bool {
        self.names == 0 && self.ops.is_empty()
    }

    /// Takes a file's version into the entry, or returns it if there is no room.
    fn take(&mut self, one: Becoming) -> Option<Becoming> {
        let file = one.file;
        let mut ops = Vec::new();
        let mut chunks = &[][..];
        if let Some(version) = &one.version {
            let Version { size, content, .. } = version;
            let (size, content) = (*size, content.clone());
            let base = one.replaced(&content);
            ops.push(Op::Write { file, size, content, base, fence: one.fence });
            chunks = &version.chunks;
        }
        ops.push(Op::SetAttr { file, attribute: Attribute::Modified(one.modified) });
        let place = u32::try_from(self.ops.len()).expect("an entry has fewer");
        match self.push(ops, chunks) {
            Ok(()) => {
                self.files.push((one, place));
                None
            }
            Err(NoRoom) => Some(one),
        }
    }

    fn push(&mut self, ops: Vec<Op>, chunks: &[Address]) -> Result<(), NoRoom> {
        let bytes = chunks.len() * CHUNK_BYTES
            + ops.iter().map(|op| record::encode(op).len()).sum::<usize>();
        let is_full = self.ops.len() + ops.len() > DRAFT_OPS_MAX
            || self.chunks.len() + chunks.len() > DRAFT_CHUNKS_MAX
            || self.bytes + bytes > DRAFT_BYTES_MAX;
        // What is more than a whole entry alone is refused by whoever makes that.
        if is_full && !self.ops.is_empty() {
            return Err(NoRoom);
        }
        self.bytes += bytes;
        self.chunks.extend_from_slice(chunks);
        self.ops.extend(ops);
        Ok(())
    }

    /// Returns the chunks that it brings, each once; rising.
    fn chunks_named(&self) -> Vec<Address> {
        let mut chunks = self.chunks.clone();
        chunks.sort_unstable();
        chunks.dedup();
        chunks
    }
}

/// An entry has no room for more.
struct NoRoom;

/// Returns operations without those on files that are made and lose their last name among them, and on directories
/// of which that is so, and these: nobody hears of what lived for a moment.
fn lasting(ops: &[Op]) -> (Vec<Op>, HashSet<FileId>) {
    let mut made: HashSet<FileId> = HashSet::new();
    let mut names: BTreeMap<LinkId, FileId> = BTreeMap::new();
    let mut deleted: HashSet<LinkId> = HashSet::new();
    for op in ops {
        match op {
            Op::Create { link, file, .. } => {
                made.insert(*file);
                names.insert(*link, *file);
            }
            Op::Link { link, file, .. } => drop(names.insert(*link, *file)),
            Op::Delete { link } => drop(deleted.insert(*link)),
            _ => {}
        }
    }
    for (link, file) in &names {
        if !deleted.contains(link) {
            made.remove(file);
        }
    }
    let is_lasting = |op: &Op, passed: &HashSet<FileId>| match op {
        Op::Create { file, .. }
        | Op::Link { file, .. }
        | Op::Write { file, .. }
        | Op::SetAttr { file, .. }
        | Op::Resolve { file, .. } => !passed.contains(file),
        Op::Move { link, .. } | Op::Delete { link } => {
            names.get(link).is_none_or(|file| !passed.contains(file))
        }
    };
    // Something that lasts may have been in a directory that is gone: then that is told of, too.
    let mut passed = made;
    loop {
        let lasting = ops.iter().filter(|op| is_lasting(op, &passed));
        let parents = lasting.filter_map(|op| match op {
            Op::Create { parent, .. } | Op::Link { parent, .. } | Op::Move { parent, .. } => {
                Some(*parent)
            }
            _ => None,
        });
        let needed: HashSet<_> = parents.filter(|parent| passed.contains(parent)).collect();
        if needed.is_empty() {
            break;
        }
        passed.retain(|file| !needed.contains(file));
    }
    (ops.iter().filter(|op| is_lasting(op, &passed)).cloned().collect(), passed)
}
