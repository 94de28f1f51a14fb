//! The log of a bucket: what was done and is in no entry yet, so that a crash does not lose it.
//!
//! Records are appended before what they tell is done in memory; they outlast the process at once, and a crash of
//! the machine once [`Log::sync`] returned. What is appended at once is found at once or not at all, if a frame
//! holds it. Frames are sealed under a key of the file's own, each with a number that no other had: a log that was
//! there before is read and never continued, what it held goes into a new one, which takes its place whole.
//! Order on the disk: chunks, then the log that names them, then entries. Not here: what records mean (`live`).

mod error;
mod record;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::frames::{self, Frames, Gap, Kind, OVERHEAD_BYTES};
use crate::hash::{Context, derive};
use crate::identity::LocalKeys;
use crate::random;

pub use error::LogError;
pub use record::Record;
pub(crate) use record::read_records;

/// A log of so many bytes is to be put into entries.
pub const LOG_BYTES_DUE: u64 = 64 * 1024 * 1024;
/// A log of so many bytes takes no more.
pub const LOG_BYTES_MAX: u64 = 256 * 1024 * 1024;

const NAME: &str = "dirty";
const NEW_NAME: &str = "dirty.new";
const SALT_BYTES: usize = 32;
const NUMBER_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
/// What a frame holds at most, once it is opened.
const PLAIN_BYTES_MAX: usize = Kind::DIRTY.payload_bytes_max - NUMBER_BYTES - TAG_BYTES;

/// A log that is written. Any thread may use it.
pub struct Log {
    /// To sync while others append.
    file: File,
    tail: Mutex<Tail>,
    syncs: Mutex<Syncs>,
    synced: Condvar,
    bytes_max: u64,
}

/// The end of the log. Taken for as long as the page cache needs, never while a disk is waited for.
struct Tail {
    frames: Frames,
    key: LessSafeKey,
    /// Of the next frame. One that could not be written is never used again.
    number: u64,
}

/// Who waits for the disk: one asks it for all who came before.
#[derive(Default)]
struct Syncs {
    /// So many bytes are there for sure.
    done: u64,
    is_running: bool,
    /// After a sync that failed, nobody knows what the disk has.
    is_broken: bool,
}

impl Log {
    /// Begins a log with what `fill` appends to it; once it is there for sure it takes the place of the one before.
    ///
    /// After an error the one before is there as it was, and may be appended to as before.
    pub fn begin(
        dir: &Path,
        keys: &LocalKeys,
        fill: impl FnOnce(&Log) -> Result<(), LogError>,
    ) -> Result<Log, LogError> {
        Log::begin_with(dir, keys, random::bytes(), fill)
    }

    pub(crate) fn begin_with(
        dir: &Path,
        keys: &LocalKeys,
        salt: [u8; SALT_BYTES],
        fill: impl FnOnce(&Log) -> Result<(), LogError>,
    ) -> Result<Log, LogError> {
        let new = dir.join(NEW_NAME);
        let made = Log::make(&new, keys, salt).and_then(|log| {
            fill(&log)?;
            log.sync()?;
            fs::rename(&new, dir.join(NAME))?;
            Ok(log)
        });
        if made.is_err() {
            let _gone_or_found_by_the_next = fs::remove_file(&new);
        }
        let log = made?;
        if File::open(dir).and_then(|dir| dir.sync_all()).is_err() {
            // The one before has no name any more, and this one may yet lose its own: neither is to be used.
            log.told(None);
        }
        Ok(log)
    }

    fn make(path: &Path, keys: &LocalKeys, salt: [u8; SALT_BYTES]) -> Result<Log, LogError> {
        let mut frames = Frames::begin(path, Kind::DIRTY)?;
        frames.append(&[&salt])?;
        let file = frames.file().try_clone()?;
        let tail = Mutex::new(Tail { frames, key: key_of(keys, &salt), number: 1 });
        let (syncs, synced) = (Mutex::default(), Condvar::new());
        Ok(Log { file, tail, syncs, synced, bytes_max: LOG_BYTES_MAX })
    }

    /// Whether a bucket has a log.
    pub fn exists(dir: &Path) -> bool {
        dir.join(NAME).exists()
    }

    /// Reads the log of a bucket, if there is one: `each` is given what one frame holds, and may end it there.
    ///
    /// Returns what comes after the last frame that was taken: a crash cut it off, or it is false.
    pub fn read(
        dir: &Path,
        keys: &LocalKeys,
        mut each: impl FnMut(Vec<Record<'static>>) -> ControlFlow<()>,
    ) -> Result<Option<Gap>, LogError> {
        let mut key = None;
        let mut former = 0;
        let mut unreadable = None;
        let rest = frames::read_through(&dir.join(NAME), Kind::DIRTY, |offset, held| {
            let Some(key) = &key else {
                let Ok(salt) = held.try_into() else { return ControlFlow::Break(()) };
                key = Some(key_of(keys, salt));
                return ControlFlow::Continue(());
            };
            let Some((number, plain)) = open(key, offset, held).filter(|(n, _)| *n > former) else {
                return ControlFlow::Break(());
            };
            former = number;
            match read_records(&plain) {
                Some(records) => each(records),
                None => {
                    unreadable = Some(offset);
                    ControlFlow::Break(())
                }
            }
        });
        match rest {
            Err(frames::FramesError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            rest => match unreadable {
                Some(offset) => Err(LogError::Unreadable(offset)),
                None => Ok(rest?),
            },
        }
    }

    /// Appends records; the kernel has them when it returns.
    ///
    /// After [`LogError::Full`] or a full disk nothing changed, and less may still be appended.
    pub fn append(&self, records: &[Record<'_>]) -> Result<(), LogError> {
        let mut payloads = record::payloads(records, NUMBER_BYTES, PLAIN_BYTES_MAX)?;
        let mut tail = self.lock_tail();
        if self.lock_syncs().is_broken {
            return Err(LogError::Broken);
        }
        let mut end = tail.frames.end();
        for payload in &mut payloads {
            tail.seal(end, payload);
            end += payload.len() as u64 + OVERHEAD_BYTES;
        }
        if end > self.bytes_max {
            return Err(LogError::Full);
        }
        let payloads: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
        tail.frames.append(&payloads)?;
        Ok(())
    }

    /// Waits until all that was appended before is there for sure.
    ///
    /// Many who wait are one sync of the disk. If that fails all of them are told, and the log takes nothing any
    /// more: it must be begun anew.
    pub fn sync(&self) -> Result<(), LogError> {
        let wanted = self.bytes();
        let mut syncs = self.lock_syncs();
        loop {
            if syncs.is_broken {
                return Err(LogError::Broken);
            }
            if syncs.done >= wanted {
                return Ok(());
            }
            if !syncs.is_running {
                break;
            }
            syncs = self.synced.wait(syncs).unwrap_or_else(PoisonError::into_inner);
        }
        syncs.is_running = true;
        drop(syncs);
        // Others appended since: they need not wait for another.
        let end = self.bytes();
        let outcome = self.file.sync_data();
        self.told(outcome.is_ok().then_some(end));
        Ok(outcome?)
    }

    /// Tells all who wait how far the log is there for sure, or that nobody knows.
    fn told(&self, done: Option<u64>) {
        let mut syncs = self.lock_syncs();
        syncs.is_running = false;
        match done {
            Some(end) => syncs.done = syncs.done.max(end),
            None => syncs.is_broken = true,
        }
        drop(syncs);
        self.synced.notify_all();
    }

    /// Returns how long it is, for who bounds it.
    pub fn bytes(&self) -> u64 {
        self.lock_tail().frames.end()
    }

    fn lock_tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_syncs(&self) -> MutexGuard<'_, Syncs> {
        self.syncs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    /// Seals what is to be the frame at an offset, behind the room for its number.
    fn seal(&mut self, offset: u64, payload: &mut Vec<u8>) {
        let number = self.number;
        self.number += 1;
        let (head, plain) = payload.split_at_mut(NUMBER_BYTES);
        head.copy_from_slice(&number.to_le_bytes());
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(number), Aad::from(offset.to_le_bytes()), plain)
            .expect("a frame is shorter than what a cipher seals");
        payload.extend_from_slice(tag.as_ref());
    }
}

/// Opens the frame at an offset, and returns its number, too.
fn open(key: &LessSafeKey, offset: u64, held: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (number, sealed) = held.split_first_chunk::<NUMBER_BYTES>()?;
    let number = u64::from_le_bytes(*number);
    let mut plain = sealed.to_vec();
    let aad = Aad::from(offset.to_le_bytes());
    let len = key.open_in_place(nonce(number), aad, &mut plain).ok()?.len();
    plain.truncate(len);
    Some((number, plain))
}

fn key_of(keys: &LocalKeys, salt: &[u8; SALT_BYTES]) -> LessSafeKey {
    let mut secret = Zeroizing::new([0; 32 + SALT_BYTES]);
    secret[..32].copy_from_slice(keys.dirty.bytes());
    secret[32..].copy_from_slice(salt);
    let key = derive(Context::Log, &secret[..]);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.bytes()).expect("it has 32 bytes"))
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..NUMBER_BYTES].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

// Neither keys nor what was written show.
impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a log of {} bytes", self.bytes())
    }
}
