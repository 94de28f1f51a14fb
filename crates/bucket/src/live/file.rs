//! The bytes of a file that somebody has open, or whose newest are in no version yet.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use gate_core::tree::content::Body;
use gate_core::tree::id::{FileId, OpId};
use gate_core::tree::op::{Fence, Span, Stamp};
use gate_core::tree::record::FileRecord;
use gate_core::tree::shown::{Merged, What};

use super::ahead::Course;
use super::bodies::Beneath;
use super::log::Untold;
use super::sealer::Sealing;
use super::{Facts, Inner, Live, Pending, lock, now};
use crate::bucket::BucketError;
use crate::contents::{Contents, Frozen, TooLarge};
use crate::draft::DraftError;
use crate::log::Record;
use crate::random;
use crate::store::StoreError;

/// A file in use.
#[derive(Debug)]
pub struct Working {
    face: RwLock<Face>,
}

/// What a file is by now.
#[derive(Debug)]
pub(super) struct Face {
    /// It is another once this was put in place of that.
    pub file: FileId,
    pub contents: Contents,
    /// The version that lies beneath, in whose place the next comes, and how many patches it took; none if there
    /// is none.
    pub base: Option<(OpId, u32)>,
    /// The versions in whose place the next comes, if that is not the one beneath.
    pub in_place_of: Option<Vec<OpId>>,
    /// Whether it was put in place of a file: it is to be a version then, whether or not anything is written.
    pub is_put: bool,
    /// The versions of which what lies beneath is merged, as long as nobody wrote to it; else none.
    pub merged: Vec<OpId>,
    pub modified: Stamp,
    /// Since when there is something that is in no version.
    pub dirty_since: Option<Instant>,
    /// Who have it open, and of these who may write.
    pub users: u32,
    pub writers: u32,
    /// Whether the log tells that it is written to.
    pub is_begun: bool,
    /// What was written and is not logged yet.
    pub untold: Untold,
    /// What is being sealed of it.
    pub sealing: Option<Sealing>,
    /// By which turn it was written last.
    pub fence: Option<Fence>,
    /// What it was when it lost its last name: from then on it is for those who have it open alone.
    pub gone: Option<Facts>,
}

/// A file that is open; what it holds stays readable whatever becomes of its names.
pub struct Opened {
    inner: Arc<Inner>,
    working: Arc<Working>,
    is_writer: bool,
    course: Course,
}

impl Live {
    /// Opens a file.
    pub fn open(&self, what: &What, to_write: bool) -> Result<Opened, DraftError> {
        let inner = &self.inner;
        let (file, version) = match what {
            What::Directory(_) => return Err(DraftError::IsADirectory),
            What::File { file, .. } => (*file, None),
            What::Beside { .. } if to_write => return Err(DraftError::IsBeside),
            What::Beside { file, version, .. } => (*file, Some(*version)),
        };
        let read = || inner.look(|pending| inner.working(pending, file, version)).map(Arc::new);
        let working = match version {
            // It stays what it is.
            Some(_) => read()?,
            None => {
                // Read under the lock: else it might be an older version than one that was made meanwhile.
                let mut files = lock(&inner.files);
                match files.entry(file) {
                    Entry::Occupied(known) => Arc::clone(known.get()),
                    Entry::Vacant(new) => Arc::clone(new.insert(read()?)),
                }
                .count(to_write)
            }
        };
        Ok(Opened {
            inner: Arc::clone(inner),
            working,
            is_writer: to_write,
            course: Course::default(),
        })
    }
}

impl Opened {
    /// Opens a file that is made without a name.
    pub(super) fn nameless(inner: &Arc<Inner>, file: FileId, facts: Facts) -> Opened {
        let working = inner.nameless(file, facts).count(true);
        Opened { inner: Arc::clone(inner), working, is_writer: true, course: Course::default() }
    }

    /// Returns how many bytes there are.
    pub fn size(&self) -> u64 {
        self.working.face().contents.size()
    }

    /// Reads from a place on; returns how many bytes there were, fewer than wanted at the end alone.
    pub fn read_at(&self, at: u64, out: &mut [u8]) -> Result<usize, StoreError> {
        let face = self.working.face();
        if let Some(next) = self.course.go_on(at..at.saturating_add(out.len() as u64)) {
            face.contents.chunks_in(next).for_each(|chunk| self.inner.ahead.ask(&chunk));
        }
        face.contents.read_at(&self.inner.vault, at, out)
    }

    /// Writes bytes; before those that begin beyond the end are zeros.
    pub fn write_at(&self, at: u64, bytes: &[u8], by: Option<Fence>) -> Result<(), DraftError> {
        self.put(by, bytes, |_| at).map(drop)
    }

    /// Writes bytes behind the last, and returns where.
    pub fn append(&self, bytes: &[u8], by: Option<Fence>) -> Result<u64, DraftError> {
        self.put(by, bytes, Contents::size)
    }

    /// Cuts off what is beyond a size, or puts zeros up to it.
    pub fn set_size(&self, size: u64, by: Option<Fence>) -> Result<(), DraftError> {
        let record = |file| Record::Size { file, size };
        self.change(by, record, |contents| contents.set_size(size))
    }

    /// Makes a part zeros; the size stays.
    pub fn zero(&self, at: u64, len: u64, by: Option<Fence>) -> Result<(), DraftError> {
        let len = len.min(self.size().saturating_sub(at));
        if len == 0 {
            return Ok(());
        }
        let record = |file| Record::Zeros { file, span: Span { offset: at, len } };
        self.change(by, record, |contents| {
            contents.zero(at, len);
            Ok(())
        })
    }

    /// Whether it was opened to be written.
    pub fn is_writer(&self) -> bool {
        self.is_writer
    }

    /// Sees to it that what was written outlasts this process.
    pub fn flush(&self) -> Result<(), DraftError> {
        match self.is_writer {
            true => Ok(self.inner.tell(&mut self.working.face_mut())?),
            false => Ok(()),
        }
    }

    /// Returns where data is, from a place on; as lseek(2), `None` if there is none.
    pub fn seek_data(&self, at: u64) -> Option<u64> {
        self.working.face().contents.seek_data(at)
    }

    /// Returns where a hole is, from a place before the end on: there is one at the end.
    pub fn seek_hole(&self, at: u64) -> Option<u64> {
        self.working.face().contents.seek_hole(at)
    }

    /// Waits until all of it outlasts a crash.
    pub fn sync(&self) -> Result<(), DraftError> {
        self.inner.tell(&mut self.working.face_mut())?;
        Ok(self.inner.sync_log()?)
    }

    /// Writes bytes where is said of what is there by now.
    fn put(
        &self,
        by: Option<Fence>,
        bytes: &[u8],
        place: impl FnOnce(&Contents) -> u64,
    ) -> Result<u64, DraftError> {
        let mut face = self.working.face_mut();
        let face = &mut *face;
        self.inner.take_merged(face)?;
        let at = place(&face.contents);
        face.contents.write(at, bytes).map_err(|_| DraftError::TooLarge)?;
        if face.gone.is_none() {
            face.untold.add(at..at + bytes.len() as u64);
        }
        face.written(by);
        self.inner.seal_beside(face)?;
        if face.untold.is_much() {
            self.inner.tell(face)?;
        }
        self.inner.bell.ring();
        Ok(at)
    }

    fn change(
        &self,
        by: Option<Fence>,
        record: impl FnOnce(FileId) -> Record<'static>,
        change: impl FnOnce(&mut Contents) -> Result<(), TooLarge>,
    ) -> Result<(), DraftError> {
        let mut face = self.working.face_mut();
        let face = &mut *face;
        self.inner.take_merged(face)?;
        self.inner.tell(face)?;
        if face.gone.is_none() {
            self.inner.append(&[record(face.file)])?;
        }
        change(&mut face.contents).map_err(|_| DraftError::TooLarge)?;
        face.written(by);
        self.inner.bell.ring();
        Ok(())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut face = self.working.face_mut();
        // Whoever wants to hear of a failure closes in order; what is committed is in no need of it.
        if self.is_writer
            && let Err(error) = self.inner.tell(&mut face)
        {
            tracing::warn!(%error, "what was written to a file is not logged");
        }
        face.users = face.users.saturating_sub(1);
        face.writers -= u32::from(self.is_writer);
        drop(face);
        self.inner.let_go_if_unused(&self.working);
        // Now it may become a version.
        if self.is_writer {
            self.inner.bell.ring();
        }
    }
}

impl Working {
    /// Returns a file as it is, or of which there is no version yet.
    fn of(file: FileId, modified: Stamp, beneath: Option<(OpId, Beneath)>) -> Working {
        let base = beneath.as_ref().map(|(id, beneath)| (*id, beneath.patches));
        let (size, body) =
            beneath.map_or_else(Default::default, |(_, beneath)| (beneath.size, beneath.body));
        let face = Face {
            file,
            contents: Contents::of(size, body),
            base,
            in_place_of: None,
            is_put: false,
            merged: Vec::new(),
            modified,
            dirty_since: None,
            users: 0,
            writers: 0,
            is_begun: false,
            untold: Untold::default(),
            sealing: None,
            fence: None,
            gone: None,
        };
        Working { face: RwLock::new(face) }
    }

    /// Returns a file whose versions merge to something that is in none of them.
    fn of_merged(file: FileId, modified: Stamp, record: &FileRecord, merged: Merged) -> Working {
        let working = Working::of(file, modified, None);
        let mut face = working.face_mut();
        face.contents = Contents::of(merged.size, merged.body);
        face.merged = record.heads.keys().copied().collect();
        drop(face);
        working
    }

    /// Returns a file as it was before a crash.
    pub(super) fn again(
        file: FileId,
        contents: Contents,
        base: Option<(OpId, u32)>,
        modified: Stamp,
        fence: Option<Fence>,
    ) -> Working {
        let working = Working::of(file, Stamp::default(), None);
        let mut face = working.face_mut();
        (face.contents, face.base, face.modified) = (contents, base, modified);
        (face.fence, face.is_begun) = (fence, true);
        drop(face);
        working
    }

    fn count(self: Arc<Working>, to_write: bool) -> Arc<Working> {
        let mut face = self.face_mut();
        face.users += 1;
        face.writers += u32::from(to_write);
        drop(face);
        self
    }

    pub(super) fn face(&self) -> RwLockReadGuard<'_, Face> {
        self.face.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn face_mut(&self) -> RwLockWriteGuard<'_, Face> {
        self.face.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Face {
    /// Notes that something was written.
    fn written(&mut self, by: Option<Fence>) {
        self.modified = now();
        self.fence = by.or(self.fence);
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    /// What there is by now is to be a version.
    pub(super) fn freeze(&mut self) -> Option<Frozen> {
        match self.is_put {
            // Also if nothing was written: the version beneath is another file's.
            true => Some(self.contents.freeze_all()),
            false => self.contents.freeze(),
        }
    }

    /// All of it is another file's from now on, in place of some versions of that.
    pub(super) fn put_in_place(&mut self, file: FileId, base: Vec<OpId>) {
        (self.file, self.in_place_of) = (file, Some(base));
        (self.is_put, self.is_begun) = (true, true);
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    /// It is this version by now; what was written since lies over it.
    pub(super) fn became(&mut self, version: OpId, patches: u32) {
        (self.base, self.in_place_of) = (Some((version, patches)), None);
        self.is_put = false;
    }

    /// Whether there is something that is in no version and ought to be.
    pub(super) fn is_dirty(&self) -> bool {
        self.gone.is_none() && (self.dirty_since.is_some() || self.contents.is_dirty())
    }
}

impl Inner {
    /// Returns a file to be used: a version that is named, or else what bears the name.
    pub(super) fn working(
        &self,
        pending: &Pending,
        file: FileId,
        version: Option<OpId>,
    ) -> Result<Working, DraftError> {
        let record = pending.draft.file(file)?;
        let modified = record.modified.as_ref().map_or(Stamp::default(), |set| set.value);
        let merged = if version.is_none() { pending.draft.merged(&record)? } else { None };
        if let Some(merged) = merged {
            return Ok(Working::of_merged(file, modified, &record, merged));
        }
        let head = match version {
            Some(id) => record.heads.contains_key(&id).then_some(id),
            None => record.winner().map(|(id, _)| *id),
        };
        let Some(id) = head else { return Ok(Working::of(file, modified, None)) };
        let beneath = self.beneath(pending, id)?;
        Ok(Working::of(file, modified, beneath.map(|beneath| (id, beneath))))
    }

    /// Returns a file that is in use.
    pub(super) fn in_use(&self, file: FileId) -> Option<Arc<Working>> {
        lock(&self.files).get(&file).cloned()
    }

    /// Lets go of a file that nobody uses and that is a version.
    pub(super) fn let_go_if_unused(&self, working: &Arc<Working>) {
        let mut files = lock(&self.files);
        let face = working.face();
        let file = face.file;
        let is_unused = face.users == 0 && !face.is_dirty();
        drop(face);
        let is_known = files.get(&file).is_some_and(|known| Arc::ptr_eq(known, working));
        if is_known && is_unused {
            files.remove(&file);
        }
    }

    /// Lets go of a file that lost its last name: what is in it is for those who have it open.
    pub(super) fn let_go(&self, gone: Option<(FileId, Facts)>) {
        let Some((file, facts)) = gone else { return };
        let Some(working) = self.in_use(file) else { return };
        let mut face = working.face_mut();
        face.gone = Some(Facts { names: 0, ..facts });
        face.dirty_since = None;
        // Else it would only be written into an entry in vain.
        if std::mem::take(&mut face.is_begun)
            && let Err(error) = self.append(&[Record::Drop { file }])
        {
            tracing::debug!(%error, "the log still has a file that is gone");
        }
        drop(face);
        self.let_go_if_unused(&working);
    }

    /// A file that had no name got one: what is in it is to be a version.
    pub(super) fn got_name(&self, file: FileId) {
        let Some(working) = self.in_use(file) else { return };
        let mut face = working.face_mut();
        face.gone = None;
        // Whether or not anything was written: there was no version.
        (face.base, face.dirty_since) = (None, Some(Instant::now()));
        let mut records =
            vec![Record::Begin { file, base: Vec::new(), size: 0, fence: face.fence }];
        face.contents.tell(file, &mut records);
        let told = self.append(&records);
        drop(records);
        match told {
            Ok(()) => {
                face.is_begun = true;
                face.untold.clear();
            }
            Err(error) => tracing::warn!(%error, "what was written to a file is not logged"),
        }
    }

    /// Makes a file without a name, which is for those who have it open until it gets one.
    pub(super) fn nameless(&self, file: FileId, facts: Facts) -> Arc<Working> {
        let mut working = Working::of(file, Stamp::default(), None);
        let face = working.face.get_mut().unwrap_or_else(PoisonError::into_inner);
        (face.modified, face.gone) = (facts.modified, Some(Facts { names: 0, ..facts }));
        let working = Arc::new(working);
        lock(&self.files).insert(file, Arc::clone(&working));
        working
    }

    /// Somebody else may have changed the tree: who only reads a file goes on with what is newest.
    pub(super) fn catch_up_files(&self) {
        let files: Vec<_> = lock(&self.files).values().cloned().collect();
        files.iter().for_each(|working| self.catch_up(working));
    }

    /// Who only reads a file goes on with what is newest.
    pub(super) fn catch_up(&self, working: &Working) {
        let mut face = working.face_mut();
        if face.writers > 0 || face.is_dirty() || face.gone.is_some() {
            return;
        }
        let newest = self.look(|pending| {
            let record = pending.draft.file(face.file)?;
            let is_same = match pending.draft.merged(&record)? {
                Some(_) => face.merged.iter().eq(record.heads.keys()),
                None => {
                    let base = face.base.map(|(id, _)| id);
                    face.merged.is_empty() && record.winner().map(|(id, _)| *id) == base
                }
            };
            if is_same { Ok(None) } else { self.working(pending, face.file, None).map(Some) }
        });
        if let Ok(Some(newest)) = newest {
            let newest = newest.face.into_inner().unwrap_or_else(PoisonError::into_inner);
            *face = Face { users: face.users, ..newest };
        }
    }

    /// Somebody writes to what several versions merge to, which is in none of them: from now on all of it is written, in
    /// their place. It is logged as if it had been written beside and put there.
    pub(super) fn take_merged(&self, face: &mut Face) -> Result<(), DraftError> {
        if face.merged.is_empty() || face.gone.is_some() {
            return Ok(());
        }
        let mut bytes = vec![0; face.contents.size() as usize];
        face.contents.read_at(&self.vault, 0, &mut bytes).map_err(BucketError::from)?;
        let mut contents = Contents::of(0, Body::default());
        contents.write(0, &bytes).map_err(|_| DraftError::TooLarge)?;
        let (from, to, base) = (FileId::of_file(random::bytes()), face.file, face.merged.clone());
        self.append(&[
            Record::Begin { file: from, base: Vec::new(), size: 0, fence: face.fence },
            Record::Bytes { file: from, at: 0, bytes: bytes.into() },
            Record::Replace { from, to, base },
        ])?;
        face.in_place_of = Some(std::mem::take(&mut face.merged));
        (face.contents, face.is_begun) = (contents, true);
        face.dirty_since.get_or_insert_with(Instant::now);
        Ok(())
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open {:?}", self.working)
    }
}
