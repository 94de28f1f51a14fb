//! A bucket in use: what was done to it is seen at once, and becomes entries a little later.
//!
//! Names and attributes are operations drafted over the newest state, bytes of files are [`Contents`] over the
//! newest version; both are readable as soon as the call that made them is back. One thread makes entries of
//! them (`cutter`), some at a time, so that a file that is saved twice in a moment is one version. Whoever wants
//! the bucket itself ([`Live::lock`]) waits until all that was done before is in it.
//!
//! Locks, in the order in which they are taken: `cutting`, `files`, a file's face, `tree`, the bucket. None but
//! `cutting` is held while a disk is waited for, but for what the index reads, and for texts that are merged for the first
//! time.
//! Not here: what a kernel makes of it, and turns.

mod ahead;
mod bodies;
mod checkpoint;
mod cutter;
mod file;
mod log;
mod names;
mod save;
mod sealer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gate_core::tree::id::{Address, FileId};
use gate_core::tree::op::Stamp;
use gate_core::tree::seen::Seen;

pub use file::{Opened, Working};
pub use names::{Facts, IfThere};
pub use save::{Saved, Seer};

use crate::bucket::{Bucket, BucketError};
use crate::draft::{Draft, DraftError};
use crate::identity::{Identity, LocalKeys};
use crate::log::{Log, Record};
use crate::shelf::ShelfError;
use crate::vault::{Cache, Vault};
use ahead::Ahead;
use bodies::Bodies;
use cutter::Bell;
use save::Sights;
use sealer::Sealer;

/// What is kept of chunks that were opened, unless somebody says otherwise.
const CACHE: Cache = Cache { bytes_max: 32 * 1024 * 1024, age_max: Duration::from_secs(60) };

/// A bucket in use. When it goes, what is left to be committed is, as far as that is possible.
pub struct Live {
    inner: Arc<Inner>,
    cutter: Option<JoinHandle<()>>,
}

struct Inner {
    bucket: Mutex<Bucket>,
    vault: Vault,
    ahead: Ahead,
    sealer: Sealer,
    dir: PathBuf,
    /// When the bucket was made.
    born: Stamp,
    keys: LocalKeys,
    /// None before something is to be logged.
    log: RwLock<Option<Log>>,
    /// What was done to names and attributes, over the newest state; none while the bucket is lent.
    tree: RwLock<Option<Pending>>,
    /// The files that somebody has open, or whose bytes are in no version yet.
    files: Mutex<HashMap<FileId, Arc<Working>>>,
    /// Held by whoever makes entries.
    cutting: Mutex<()>,
    sights: Sights,
    bodies: Bodies,
    bell: Bell,
    tidings: Arc<Tidings>,
}

/// Tells whoever shows the bucket that somebody else changed it.
#[derive(Debug, Default)]
pub struct Tidings {
    state: Mutex<Told>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Told {
    has_changed: bool,
    is_closed: bool,
}

/// What is in no entry yet, but for the bytes of files.
struct Pending {
    draft: Draft,
    /// When directories changed in which something came or went: told with the next entry.
    directories: BTreeMap<FileId, Stamp>,
    /// What it lies over is not the newest state.
    is_stale: bool,
}

/// The bucket itself, with all in it that was done before. Whoever uses it otherwise waits meanwhile.
pub struct Lent<'a> {
    inner: &'a Inner,
    /// Both are there until this goes.
    held: Option<(RwLockWriteGuard<'a, Option<Pending>>, MutexGuard<'a, Bucket>)>,
    /// All that was known when it was lent.
    before: Seen,
    _cutting: MutexGuard<'a, ()>,
}

impl Live {
    /// Opens a bucket that lies in a directory, with all that was done before a crash. Nobody else may have it open.
    pub fn begin(dir: &Path, device: &Identity) -> Result<Live, BucketError> {
        let mut bucket = Bucket::open(dir, device)?;
        let keys = device.local_keys(&bucket.genesis().id());
        let born = stamp(Duration::from_millis(bucket.genesis().made_at_ms()));
        let vault = bucket.vault()?.with_cache(CACHE);
        let ahead = Ahead::begin(vault.clone())?;
        let sealer = Sealer::begin(&vault)?;
        let pending = Pending::over(bucket.draft(), None, 0)?;
        let inner = Arc::new(Inner {
            bucket: Mutex::new(bucket),
            vault,
            ahead,
            sealer,
            dir: dir.to_owned(),
            born,
            keys,
            log: RwLock::new(None),
            tree: RwLock::new(Some(pending)),
            files: Mutex::default(),
            cutting: Mutex::default(),
            sights: Sights::default(),
            bodies: Bodies::default(),
            bell: Bell::default(),
            tidings: Arc::default(),
        });
        inner.recover()?;
        inner.settle()?;
        let worker = Arc::clone(&inner);
        let cutter = thread::Builder::new().name("gate-cutter".to_owned());
        let cutter = Some(cutter.spawn(move || worker.run())?);
        Ok(Live { inner, cutter })
    }

    /// Lends the bucket itself, once all that was done is in it, but for what is in files that are open to be
    /// written.
    pub fn lock(&self) -> Result<Lent<'_>, BucketError> {
        self.inner.lend()
    }

    /// Waits until all that was done is in entries, but for what is in files that are open to be written.
    pub fn settle(&self) -> Result<(), BucketError> {
        self.inner.settle()
    }

    /// Returns who tells that the bucket was changed by those to whom it was lent.
    pub fn tidings(&self) -> Arc<Tidings> {
        Arc::clone(&self.inner.tidings)
    }

    /// Returns the chunks of files that are in use: what no entry names of them is needed, too.
    pub fn chunks(&self) -> Vec<Address> {
        let files: Vec<_> = lock(&self.inner.files).values().cloned().collect();
        files.iter().flat_map(|working| self.inner.chunks(working)).collect()
    }

    /// Waits until all that was done outlasts a crash, but for what is in files that are open to be written.
    pub fn sync(&self) -> Result<(), BucketError> {
        self.inner.sync_log()
    }

    /// Returns what reads and takes in bytes of files.
    pub fn vault(&self) -> &Vault {
        &self.inner.vault
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.inner.bell.close();
        if let Some(cutter) = self.cutter.take()
            && cutter.join().is_err()
        {
            tracing::error!("the thread that makes entries of a bucket is gone");
        }
    }
}

impl Inner {
    /// Returns the chunks of a file in use, those that are being sealed among them.
    fn chunks(&self, working: &Working) -> Vec<Address> {
        let mut face = working.face_mut();
        if let Err(error) = self.finish_sealing(&mut face) {
            tracing::debug!(%error, "what is written is sealed later");
        }
        face.contents.chunks().collect()
    }

    fn lend(&self) -> Result<Lent<'_>, BucketError> {
        self.settle()?;
        let cutting = lock(&self.cutting);
        let mut tree = loop {
            self.forget_passed()?;
            let tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
            if !tree.as_ref().is_some_and(Pending::has_passed) {
                break tree;
            }
        };
        let mut bucket = lock(&self.bucket);
        if let Some(pending) = tree.as_ref() {
            self.take_in(pending, &mut bucket)?;
        }
        // The index cannot be looked through while somebody reads what it was.
        *tree = None;
        let before = bucket.frontier();
        Ok(Lent { inner: self, held: Some((tree, bucket)), before, _cutting: cutting })
    }

    /// Asks the tree as it is by now.
    fn look<T>(&self, ask: impl Fn(&Pending) -> Result<T, DraftError>) -> Result<T, DraftError> {
        for _ in 0..2 {
            let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
            match tree.as_ref().filter(|pending| !pending.is_stale).map(&ask) {
                None | Some(Err(DraftError::Tree(_))) => {}
                Some(answer) => return answer,
            }
            drop(tree);
            self.renew()?;
        }
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        ask(tree.as_ref().expect("it was made anew, and is lent to nobody"))
    }

    /// Changes the tree, all of it or nothing.
    fn alter<T>(
        &self,
        mut change: impl FnMut(&mut Pending) -> Result<T, DraftError>,
    ) -> Result<T, DraftError> {
        loop {
            match self.alter_once(None, &mut change) {
                Err(DraftError::Full) => self.settle()?,
                outcome => return outcome,
            }
        }
    }

    /// As [`Inner::alter`], and logs something with it; does not make room where there is none.
    fn alter_once<T>(
        &self,
        with: Option<&Record<'static>>,
        mut change: impl FnMut(&mut Pending) -> Result<T, DraftError>,
    ) -> Result<T, DraftError> {
        let mut has_failed = false;
        loop {
            let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
            let outcome = match tree.as_mut().filter(|pending| !pending.is_stale) {
                Some(pending) => {
                    let before = pending.draft.ops().len();
                    let outcome = change(pending);
                    let with = with.filter(|_| outcome.is_ok());
                    self.log_ops(pending, before, with).and(outcome)
                }
                None => Err(DraftError::Tree(ShelfError::Damaged)),
            };
            drop(tree);
            match outcome {
                Err(DraftError::Tree(_)) if !has_failed => {
                    has_failed = true;
                    self.renew()?;
                }
                outcome => {
                    self.bell.ring();
                    return outcome;
                }
            }
        }
    }

    /// Logs what was drafted since; if that cannot be, it was not done.
    fn log_ops(
        &self,
        pending: &mut Pending,
        before: usize,
        with: Option<&Record<'static>>,
    ) -> Result<(), DraftError> {
        let new = pending.draft.ops()[before..].iter().map(|op| Record::Op(op.clone()));
        let records: Vec<_> = with.cloned().into_iter().chain(new).collect();
        let logged = if records.is_empty() { Ok(()) } else { self.append(&records) };
        Ok(logged.inspect_err(|_| {
            pending.draft.take_back(before);
            pending.is_stale = true;
        })?)
    }

    /// Puts what is drafted over the newest state.
    fn renew(&self) -> Result<(), BucketError> {
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        let former = tree.take();
        let renewed = Pending::over(lock(&self.bucket).draft(), former.as_ref(), 0);
        *tree = renewed.map(Some).or_else(|error| former.map(Some).ok_or(error))?;
        Ok(())
    }
}

impl Pending {
    /// Takes off operations that are in an entry by now; the rest is to be put over the newest state.
    fn stale(mut self, done: usize) -> Pending {
        self.draft.forget(done);
        self.is_stale = true;
        self
    }

    /// Does once more what was drafted, but for some operations that are in the state by now.
    fn over(
        draft: Result<Draft, BucketError>,
        former: Option<&Pending>,
        done: usize,
    ) -> Result<Pending, BucketError> {
        let mut new = Pending { draft: draft?, directories: BTreeMap::new(), is_stale: false };
        let Some(former) = former else { return Ok(new) };
        new.directories.clone_from(&former.directories);
        new.redo(former.draft.ops()[done..].to_vec())?;
        Ok(new)
    }
}

impl Tidings {
    /// Waits until the bucket was changed, at most for so long; `None` once it is used no more.
    pub fn wait(&self, patience: Option<Duration>) -> Option<()> {
        let state = lock(&self.state);
        let waits = |state: &mut Told| !state.has_changed && !state.is_closed;
        let state = match patience {
            None => self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                let woken = self.changed.wait_timeout_while(state, patience, waits);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        (!state.is_closed).then_some(())
    }

    /// Returns whether the bucket was changed since this was last asked.
    pub fn take(&self) -> bool {
        std::mem::take(&mut lock(&self.state).has_changed)
    }

    /// Ends all waiting.
    pub fn close(&self) {
        lock(&self.state).is_closed = true;
        self.changed.notify_all();
    }

    fn tell(&self) {
        lock(&self.state).has_changed = true;
        self.changed.notify_all();
    }
}

impl Deref for Lent<'_> {
    type Target = Bucket;

    fn deref(&self) -> &Bucket {
        &self.held.as_ref().expect("it is held until this goes").1
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Bucket {
        &mut self.held.as_mut().expect("it is held until this goes").1
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Some((mut tree, mut bucket)) = self.held.take() else { return };
        // If this fails, whoever asks next tries again.
        match Pending::over(bucket.draft(), None, 0) {
            Ok(pending) => *tree = Some(pending),
            Err(error) => tracing::warn!(%error, "the state of a bucket cannot be read"),
        }
        let after = bucket.frontier();
        drop((tree, bucket));
        if after != self.before {
            self.inner.sights.arrive(self.before.clone(), after);
            self.inner.catch_up_files();
            self.inner.tidings.tell();
            self.inner.bell.ring();
        }
    }
}

/// The time of now, as it is kept of files.
fn now() -> Stamp {
    stamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn stamp(since: Duration) -> Stamp {
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Stamp { seconds, nanos: since.subsec_nanos() }
}

fn now_ms() -> u64 {
    let Stamp { seconds, nanos } = now();
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000) + u64::from(nanos) / 1_000_000
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
