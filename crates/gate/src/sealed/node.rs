//! What a node of a bucket stands for, and how a kernel sees it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gate_bucket::live::Facts;
use gate_bucket::pack::RESERVE_BYTES;
use gate_core::fold;
use gate_core::lock::key::FileKey;
use gate_core::tree::id::{FileId, OpId};
use gate_core::tree::op::{Kind, Stamp};
use gate_core::tree::shown::What;
use gate_fuse::{Attr, Errno, StatFs, Statx, StatxTime};
use gate_view::nodes::Anchor;
use rustix::fs::{FileType, Timespec};

/// What is read and written at once, best.
const BLOCK_BYTES: u32 = 128 * 1024;
/// The longest name, in bytes.
const NAME_BYTES_MAX: u32 = 255;
/// `STATX_BASIC_STATS`.
const STATX_BASIC: u32 = 0x7ff;

/// Something in a bucket.
#[derive(Debug)]
pub struct Leaf {
    /// It is another once this was put in place of that, or something in place of this.
    what: RwLock<What>,
    /// The file as the kernel knows it, and its number.
    key: Key,
    ino: u64,
    kind: FileType,
    /// When it was changed last since the kernel knows it, in nanoseconds since 1970; it only rises.
    changed: AtomicU64,
}

/// Which file it is, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    File(FileId),
    Beside(FileId, OpId),
}

impl Leaf {
    pub fn new(what: What, face: FileId, kind: &Kind) -> Leaf {
        let kind = match kind {
            Kind::File => FileType::RegularFile,
            Kind::Directory => FileType::Directory,
            Kind::Symlink(_) => FileType::Symlink,
        };
        let key = match &what {
            What::Beside { file, version, .. } => Key::Beside(*file, *version),
            What::File { .. } | What::Directory(_) => Key::File(face),
        };
        let (ino, what) = (number_of(&what, face), RwLock::new(what));
        Leaf { what, key, ino, kind, changed: AtomicU64::new(0) }
    }

    /// Returns what it stands for; that stays so for as long as this is held.
    pub fn what(&self) -> RwLockReadGuard<'_, What> {
        self.what.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Leaf::what`], to make it stand for something else.
    pub fn what_mut(&self) -> RwLockWriteGuard<'_, What> {
        self.what.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that it was changed. Each change is later than the one before, so that each is seen.
    pub fn change(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let later = |before: u64| Some(now.max(before.saturating_add(1)));
        let _ = self.changed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    /// Returns the file as the broker knows it: the same in all views of the bucket.
    pub fn file_key(&self, volume: u64) -> FileKey {
        FileKey { volume, inode: self.ino(), generation: 0 }
    }

    /// Returns the number that users see.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    pub fn attr(&self, facts: &Facts, (uid, gid): (u32, u32)) -> Attr {
        let modified = facts.modified;
        let local = Duration::from_nanos(self.changed.load(Ordering::Relaxed));
        let (seconds, nanos) = (modified.seconds.cast_unsigned(), modified.nanos);
        let changed = match modified.seconds >= 0 {
            true => local.max(Duration::new(seconds, nanos)),
            false => local,
        };
        Attr {
            ino: self.ino(),
            size: facts.size,
            blocks: facts.size.div_ceil(512),
            atime: seconds,
            mtime: seconds,
            ctime: changed.as_secs(),
            atime_nsec: nanos,
            mtime_nsec: nanos,
            ctime_nsec: changed.subsec_nanos(),
            mode: self.kind.as_raw_mode() | facts.mode,
            nlink: u32::try_from(facts.names).unwrap_or(u32::MAX),
            uid,
            gid,
            blksize: BLOCK_BYTES,
            ..Attr::default()
        }
    }
}

impl Anchor for Leaf {
    type Key = Key;

    fn key(&self) -> Key {
        self.key
    }

    fn kind(&self) -> FileType {
        self.kind
    }

    fn is_told(&self) -> bool {
        true
    }
}

/// Returns the number that users see. Two of a million files have the same in one of 10⁷ buckets: they take turns
/// together then, and nothing else goes by it.
fn number_of(what: &What, face: FileId) -> u64 {
    // Ids of what is made together begin the same.
    let number =
        |id: FileId| u64::from_le_bytes(*id.bytes().last_chunk().expect("it has 16 bytes"));
    match what {
        What::Directory(directory) if directory.first() == FileId::ROOT => 1,
        What::Beside { file, version, .. } => {
            fold::fold_into(number(*file), format!("{version:?}").as_bytes()).max(2)
        }
        What::File { .. } | What::Directory(_) => number(face).max(2),
    }
}

pub fn statx_of(attr: &Attr) -> Statx {
    let time = |seconds: u64, nanoseconds: u32| StatxTime {
        seconds: seconds.cast_signed(),
        nanoseconds,
        reserved: 0,
    };
    Statx {
        mask: STATX_BASIC,
        blksize: attr.blksize,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        mode: attr.mode as u16,
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: time(attr.atime, attr.atime_nsec),
        ctime: time(attr.ctime, attr.ctime_nsec),
        mtime: time(attr.mtime, attr.mtime_nsec),
        ..Statx::default()
    }
}

/// Returns how much room there is for a bucket that lies somewhere.
pub fn figures_of(dir: &Path) -> Result<StatFs, Errno> {
    let figures = rustix::fs::statvfs(dir)?;
    let unit = figures.f_frsize.max(1);
    let reserve = RESERVE_BYTES / unit;
    let narrow = |unit: u64| u32::try_from(unit).unwrap_or(u32::MAX);
    Ok(StatFs {
        blocks: figures.f_blocks,
        bfree: figures.f_bfree.saturating_sub(reserve),
        bavail: figures.f_bavail.saturating_sub(reserve),
        files: figures.f_files,
        ffree: figures.f_ffree,
        bsize: narrow(figures.f_bsize),
        namelen: NAME_BYTES_MAX,
        frsize: narrow(unit),
    })
}

pub fn now() -> Stamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    Stamp { seconds, nanos: now.subsec_nanos() }
}

pub fn stamp_of(time: Timespec) -> Result<Stamp, Errno> {
    let nanos = u32::try_from(time.tv_nsec).map_err(|_| Errno::INVAL)?;
    Ok(Stamp { seconds: time.tv_sec, nanos })
}
