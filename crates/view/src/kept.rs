//! What was overwritten by agents that had not seen it, kept for a while.
//!
//! A *store* is a directory of one source, outside of it:
//!
//! ```text
//! lock             held, shared, by whoever is adding
//! limits.json      its bounds, for who trims all stores (see `stores`)
//! .new-PID-N/      not yet whole
//! 12/record.json   what happened (see `record`)
//! 12/content       the bytes, with their extended attributes, if they were kept
//! ```
//!
//! A version is made aside and gets its number by a rename, so that a store has whole versions
//! only, however its writers end. Several processes may add at once. Nothing is synced to the
//! disk: a kept version is for mistakes, not for power cuts, and [`Store::open`] tells when the
//! bytes are not all there. Store and versions are the owner's alone.

mod copy;
mod record;
mod stores;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gate_core::fold::fold;
use rustix::fs::{FlockOperation, OFlags};
use serde::{Deserialize, Serialize};

use record::When;
#[cfg(fuzzing)]
pub(crate) use record::read_any;
pub use record::{Facts, Outcome, Record};
pub use stores::{TRIM_PAUSE, root, trim};

const LOCK: &str = "lock";
const UNFINISHED: &str = ".new-";
const CONTENT: &str = "content";
const RECORD: &str = "record.json";
const LIMITS: &str = "limits.json";

/// Versions in a store, those included whose bytes were not kept.
const VERSIONS_MAX: usize = 4096;

/// The bounds of a store: the newest win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Of all that is kept together.
    pub bytes_max: u64,
    /// Of one version.
    pub file_bytes_max: u64,
    /// Seconds for which a version is kept.
    pub age_s_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        const MIB: u64 = 1 << 20;
        const DAY_S: u64 = 24 * 60 * 60;
        Limits { bytes_max: 1024 * MIB, file_bytes_max: 64 * MIB, age_s_max: 7 * DAY_S }
    }
}

/// Where a store is and how much it may hold: all that one needs to know to use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where.
    #[serde(with = "crate::written")]
    pub dir: PathBuf,
    /// How much.
    pub limits: Limits,
}

/// A store.
#[derive(Debug)]
pub struct Store {
    place: Place,
    /// What is there, as far as this process knows: others add too.
    known: BTreeMap<u64, Held>,
    /// Whether it says its bounds.
    is_marked: bool,
    /// When all stores were trimmed, and what was added since, which others may not know of.
    trimmed: Option<Instant>,
    untold_bytes: u64,
}

/// The space that a version takes.
#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    when: When,
}

/// How the bytes of a file come into a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The file goes on under its name: its bytes are copied.
    Copy,
    /// As before, and the descriptor is one to read from, at the beginning.
    AsOpen,
    /// The file is about to lose its name: it may be kept itself.
    Link,
}

/// A version that was added and whose file is about to be overwritten. Until it is settled or
/// dropped nobody takes it for litter.
#[derive(Debug)]
pub struct Addition {
    /// Its number.
    pub id: u64,
    _adding: File,
}

/// What came of an operation after that was kept which it was to overwrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Went {
    /// It was done, or has failed.
    Ahead,
    /// It was given up.
    Nowhere,
}

/// A kept version.
#[derive(Clone, Debug)]
pub struct Version {
    /// Its number in the store.
    pub id: u64,
    /// What happened.
    pub record: Record,
}

impl Place {
    /// Returns the place of a source's store below a state directory.
    pub fn of(state_dir: &Path, source: &Path, limits: Limits) -> Place {
        /// Of the directory's own name, so that people find it.
        const NAME_BYTES_MAX: usize = 64;
        let name: String = source.file_name().unwrap_or_default().display().to_string();
        let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        let name = name.get(..NAME_BYTES_MAX).unwrap_or(&name);
        let number = fold(source.as_os_str().as_bytes());
        Place { dir: stores::root(state_dir).join(format!("{name}-{number:016x}")), limits }
    }
}

impl Store {
    /// Opens a store, which need not exist yet, and clears away what crashed writers left.
    pub fn open_or_make_later(place: Place) -> Store {
        let mut store = Store {
            place,
            known: BTreeMap::new(),
            is_marked: false,
            trimmed: None,
            untold_bytes: 0,
        };
        if let Err(error) = store.look_around()
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(dir = %store.place.dir.display(), %error, "kept versions cannot be listed");
        }
        store.prune();
        store
    }

    /// Returns how much it may hold.
    pub fn limits(&self) -> Limits {
        self.place.limits
    }

    /// Adds a version with the bytes of a file; for most ways to take them `O_PATH` will do.
    pub fn keep(&mut self, file: &OwnedFd, take: Take, record: &Record) -> io::Result<Addition> {
        self.add(record, |content| copy::bring(file, take, &record.file, content))
    }

    /// Says what became of what was to be overwritten: if that is still there nothing was lost,
    /// and a version that is the file itself would change with it. Returns whether it is kept.
    pub fn settle(&mut self, addition: Addition, went: Went) -> bool {
        let dir = self.dir_of(addition.id);
        let is_kept = went == Went::Ahead && !is_elsewhere(&dir);
        if !is_kept {
            self.forget(addition.id);
        }
        is_kept
    }

    /// Adds a version without bytes: only what happened.
    pub fn note(&mut self, record: &Record) -> io::Result<()> {
        self.add(record, |_| Ok(())).map(drop)
    }

    fn add(
        &mut self,
        record: &Record,
        bring: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Addition> {
        let adding = self.lock(FlockOperation::LockShared)?;
        let unfinished = Unfinished::make(&self.place.dir)?;
        bring(&unfinished.0.join(CONTENT))?;
        let mut text = serde_json::to_vec(record)?;
        text.push(b'\n');
        fs::write(unfinished.0.join(RECORD), text)?;
        let id = self.publish(&unfinished)?;
        let bytes = if record.outcome == Outcome::Kept { record.file.size } else { 0 };
        self.known.insert(id, Held { bytes, when: record.when() });
        self.untold_bytes += bytes;
        self.prune();
        Ok(Addition { id, _adding: adding })
    }

    /// Gives it the next number. One that another process took meanwhile is a directory that is
    /// not empty, and those no rename replaces.
    fn publish(&mut self, unfinished: &Unfinished) -> io::Result<u64> {
        let mut id = self.known.last_key_value().map_or(1, |(newest, _)| newest + 1);
        loop {
            match fs::rename(&unfinished.0, self.dir_of(id)) {
                Ok(()) => return Ok(id),
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => id += 1,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => id += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes what is too old, and the oldest until what is left is within the bounds.
    fn prune(&mut self) {
        if self.is_within_bounds() {
            return;
        }
        // Others may have removed it already; and what cannot be listed is not known, and stays.
        let _ = self.look_around();
        let overdue: Vec<u64> = self.overdue().collect();
        overdue.into_iter().for_each(|id| self.forget(id));
        while !self.is_within_bounds()
            && let Some((id, _)) = self.oldest()
        {
            self.forget(id);
        }
    }

    fn is_within_bounds(&self) -> bool {
        self.bytes() <= self.place.limits.bytes_max
            && self.known.len() <= VERSIONS_MAX
            && self.overdue().next().is_none()
    }

    /// Returns what is older than allowed: mostly the first, unless somebody set the clock.
    fn overdue(&self) -> impl Iterator<Item = u64> {
        let (now, age_ms_max) = (When::now(), self.place.limits.age_s_max.saturating_mul(1000));
        let is_overdue = move |held: &Held| held.when.age_ms(now) > age_ms_max;
        self.known.iter().filter(move |(_, held)| is_overdue(held)).map(|(id, _)| *id)
    }

    fn bytes(&self) -> u64 {
        self.known.values().map(|held| held.bytes).sum()
    }

    fn oldest(&self) -> Option<(u64, Held)> {
        self.known.first_key_value().map(|(id, held)| (*id, *held))
    }

    fn forget(&mut self, id: u64) {
        if let Err(error) = remove(&self.dir_of(id)) {
            tracing::warn!(id, %error, "a kept version cannot be removed");
        }
        self.known.remove(&id);
    }

    /// Finds out what is there by now. If nobody is adding, what is not whole is a dead writer's.
    fn look_around(&mut self) -> io::Result<()> {
        self.known.clear();
        let listed = fs::read_dir(&self.place.dir)?;
        let alone = self.lock(FlockOperation::NonBlockingLockExclusive).is_ok();
        for entry in listed.flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            if name.as_bytes().starts_with(UNFINISHED.as_bytes()) {
                if alone {
                    let _ = remove(&path); // What stays is looked at again the next time.
                }
                continue;
            }
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if alone && is_elsewhere(&path) {
                let _ = remove(&path); // Who added it died before it overwrote anything.
                continue;
            }
            match Record::read(&path.join(RECORD)) {
                Ok(record) => {
                    let content = fs::symlink_metadata(path.join(CONTENT));
                    let bytes = content.map_or(0, |content| content.size());
                    self.known.insert(id, Held { bytes, when: record.when() });
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let _ = remove(&path); // Somebody was removing it.
                }
                // Another release may read it.
                Err(error) => tracing::warn!(id, %error, "a kept version cannot be read"),
            }
        }
        Ok(())
    }

    fn lock(&self, how: FlockOperation) -> io::Result<File> {
        make_dir(&self.place.dir)?;
        let path = self.place.dir.join(LOCK);
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        rustix::fs::flock(&lock, how)?;
        Ok(lock)
    }

    fn dir_of(&self, id: u64) -> PathBuf {
        self.place.dir.join(id.to_string())
    }
}

/// Reading a store, for people who want something back.
impl Store {
    /// Returns its versions, oldest first; those of other releases are left out.
    pub fn versions(dir: &Path) -> io::Result<Vec<Version>> {
        let listed = match fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed?,
        };
        let version = |entry: fs::DirEntry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let record = Record::read(&entry.path().join(RECORD)).ok()?;
            Some(Version { id, record })
        };
        let mut versions: Vec<Version> = listed.flatten().filter_map(version).collect();
        versions.sort_unstable_by_key(|version| version.id);
        Ok(versions)
    }

    /// Opens the bytes of a version.
    pub fn open(dir: &Path, version: &Version) -> io::Result<File> {
        let path = dir.join(version.id.to_string()).join(CONTENT);
        let no_link = OFlags::NOFOLLOW.bits().cast_signed();
        let content = OpenOptions::new().read(true).custom_flags(no_link).open(path)?;
        match content.metadata()?.len() == version.record.file.size {
            true => Ok(content),
            false => Err(io::Error::new(ErrorKind::InvalidData, "some of its bytes are missing")),
        }
    }
}

/// A version on its way into a store; dropped before it has a number, it leaves nothing.
struct Unfinished(PathBuf);

impl Unfinished {
    fn make(dir: &Path) -> io::Result<Unfinished> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{UNFINISHED}{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Unfinished(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = remove(&self.0); // Once it has a number this finds nothing.
    }
}

/// Returns whether the content of a version has a name somewhere else.
fn is_elsewhere(dir: &Path) -> bool {
    fs::symlink_metadata(dir.join(CONTENT)).is_ok_and(|content| content.nlink() > 1)
}

/// Removes a version, its record first: without that it is none. A directory with anything else
/// in it is no version and stays.
fn remove(dir: &Path) -> io::Result<()> {
    for name in [RECORD, CONTENT, LIMITS] {
        let _ = fs::remove_file(dir.join(name));
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Returns the time of day: milliseconds since 1970, UTC.
pub fn now_ms() -> u64 {
    let now: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
