//! The buckets of a daemon, and the device that they are sealed for.
//!
//! A bucket is a directory in `buckets`, whose name for people lies in it; it is opened when it is first asked
//! for, and stays so. The device is the file `identity`; what opens it is never written down.

mod carry;
mod device;
mod diff;
mod files;
mod gc;
mod glance;
mod past;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gate_bucket::bucket::history::Lost;
use gate_bucket::bucket::{Bucket, BucketError};
use gate_bucket::frames::FramesError;
use gate_bucket::genesis::Genesis;
use gate_bucket::index::IndexError;
use gate_bucket::live::{Lent, Live};
use gate_bucket::log::LogError;
use gate_bucket::store::{self, Fault, StoreError};
use gate_bucket::whole;
use jiff::Timestamp;
use uuid::Uuid;

use super::body::bucket as body;
use super::refusal::{Kind, Refusal};
use crate::board;
use device::Device;
pub use diff::Since;
pub use files::Looked;
pub use glance::Glance;

/// The directory of buckets in the state directory.
const DIRECTORY: &str = "buckets";
/// The file in a bucket's directory that says what this device calls it.
const NAME: &str = "name";
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// How many buckets there may be.
const BUCKETS_MAX: usize = 4096;
/// Of an id people write so many characters, at least.
const ID_CHARS_MIN: usize = 4;
/// The largest genesis, in bytes.
const GENESIS_BYTES_MAX: usize = 4096;
/// What is put before the name of a bucket's directory when it goes.
const GOING: &str = ".going-";

/// The buckets of a daemon.
#[derive(Clone)]
pub struct Buckets(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    device: Device,
    /// Held while buckets are made, named, opened, and go.
    open: Mutex<HashMap<Uuid, Arc<Live>>>,
}

/// All buckets: one that is damaged hides no other.
pub struct All {
    /// By name.
    pub whole: Vec<body::Bucket>,
    /// Those of which not even the beginning can be read, and why.
    pub damaged: Vec<(Uuid, Refusal)>,
}

impl Buckets {
    /// Finds the buckets of a state directory; none is opened.
    pub fn find(state_dir: &Path) -> Buckets {
        let dir = state_dir.join(DIRECTORY);
        let device = Device::find(state_dir);
        // What went was asked to go: a crash came before the end of it.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(GOING.as_bytes()) {
                let _tried_again_next_time = fs::remove_dir_all(entry.path());
            }
        }
        Buckets(Arc::new(Inner { dir, device, open: Mutex::default() }))
    }

    /// Returns the device that they are sealed for.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// Returns how many there are.
    pub fn count(&self) -> Result<usize, Refusal> {
        self.ids().map(|ids| ids.len())
    }

    /// Returns all buckets, by name.
    pub fn all(&self) -> Result<Vec<body::Bucket>, Refusal> {
        let All { whole, damaged } = self.all_and_damaged()?;
        for (id, refusal) in damaged {
            tracing::warn!(%id, message = %refusal.message, "a bucket cannot be read");
        }
        Ok(whole)
    }

    /// As [`Buckets::all`], and those that are damaged.
    pub fn all_and_damaged(&self) -> Result<All, Refusal> {
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        for id in self.ids()? {
            match self.describe(id) {
                Ok(bucket) => whole.push(bucket),
                Err(refusal) => damaged.push((id, refusal)),
            }
        }
        whole.sort_by(|a, b| (&a.name, a.bucket_id).cmp(&(&b.name, b.bucket_id)));
        Ok(All { whole, damaged })
    }

    /// Makes a bucket; says, too, whether the device was made for it.
    pub fn create(&self, name: &str) -> Result<(body::Bucket, bool), Refusal> {
        check_name(name)?;
        let _turn = self.open();
        self.check_free(name, None)?;
        if self.ids()?.len() >= BUCKETS_MAX {
            let hint = "delete one that nobody needs: `gate bucket delete`";
            let message = format!("there are {BUCKETS_MAX} buckets already");
            return Err(Refusal::new(Kind::Limit, message, hint));
        }
        let (device, was_made) = self.0.device.get_or_make()?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0.dir);
        made.map_err(failed)?;
        let id = Bucket::create(&self.0.dir, &device, now_ms()).map_err(refusal)?;
        whole::replace(&self.path(id).join(NAME), name.as_bytes()).map_err(failed)?;
        Ok((self.describe(id)?, was_made))
    }

    /// Returns which bucket is meant by a name, an id, or the beginning of one.
    pub fn id(&self, words: &str) -> Result<Uuid, Refusal> {
        let ids = self.ids()?;
        let named = ids.iter().find(|id| self.name(**id).is_ok_and(|name| name == words));
        if let Some(id) = named {
            return Ok(*id);
        }
        let lower = words.to_lowercase();
        let begins = |id: &&Uuid| id.to_string().starts_with(&lower);
        let mut found = ids.iter().filter(begins).filter(|_| words.len() >= ID_CHARS_MIN);
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(*id),
            (Some(one), Some(other)) => {
                let message = format!("both {one} and {other} begin with `{words}`");
                Err(Refusal::new(Kind::Invalid, message, "write more of it"))
            }
            (None, _) => {
                let hint = "`gate bucket list` shows those that are there";
                Err(Refusal::new(Kind::NotFound, format!("no such bucket: `{words}`"), hint))
            }
        }
    }

    /// Returns which bucket is meant, and what it is called.
    pub fn called(&self, words: &str) -> Result<(Uuid, String), Refusal> {
        let id = self.id(words)?;
        Ok((id, self.name(id)?))
    }

    /// Returns one bucket.
    pub fn one(&self, words: &str) -> Result<body::Bucket, Refusal> {
        self.describe(self.id(words)?)
    }

    /// Returns a bucket to work with.
    pub fn get(&self, words: &str) -> Result<Arc<Live>, Refusal> {
        let id = self.id(words)?;
        let device = self.0.device.get()?;
        let mut open = self.open();
        if let Some(bucket) = open.get(&id) {
            return Ok(bucket.clone());
        }
        let bucket = Live::begin(&self.path(id), &device);
        let bucket = Arc::new(bucket.map_err(refusal)?);
        open.insert(id, bucket.clone());
        Ok(bucket)
    }

    /// Gives a bucket another name.
    pub fn rename(&self, words: &str, name: &str) -> Result<body::Bucket, Refusal> {
        check_name(name)?;
        let _turn = self.open();
        let id = self.id(words)?;
        self.check_free(name, Some(id))?;
        whole::replace(&self.path(id).join(NAME), name.as_bytes()).map_err(failed)?;
        self.describe(id)
    }

    /// Deletes a bucket from this device, with all of its versions.
    pub fn delete(&self, words: &str) -> Result<(), Refusal> {
        let mut open = self.open();
        let id = self.id(words)?;
        if open.get(&id).is_some_and(|bucket| Arc::strong_count(bucket) > 1) {
            let hint = "wait until that is done, or end it";
            return Err(Refusal::new(Kind::Busy, "the bucket is used", hint));
        }
        open.remove(&id);
        // Gone at once, even if what it holds takes its time, or this process ends meanwhile.
        let going = self.0.dir.join(format!("{GOING}{id}"));
        fs::rename(self.path(id), &going).map_err(failed)?;
        drop(open);
        fs::remove_dir_all(&going).map_err(failed)
    }

    /// Checks a bucket; what is wrong with the index is put right.
    pub fn check(
        &self,
        words: &str,
        read_data: bool,
        progress: &mut dyn FnMut(body::Checking),
    ) -> Result<body::Checked, Refusal> {
        let bucket = self.get(words)?;
        let mut bucket = lock(&bucket)?;
        let told = |store::Progress { packs_done, packs }| {
            progress(body::Checking { packs_done: packs_done as u64, packs: packs as u64 });
        };
        let check = bucket.store().check(read_data, told).map_err(|e| refusal(e.into()))?;
        let checkpoint = mend_checkpoint(&mut bucket);
        // Those that an earlier check has found, too.
        let torn = bucket.lost().map_err(refusal)?;
        let damage = bucket.found().damage.iter().map(|gap| {
            format!("`entries` is damaged: {} bytes from {} on are no entry", gap.bytes, gap.offset)
        });
        let store = bucket.store();
        let is_mended = |fault: &&Fault| match fault {
            Fault::Index | Fault::Unknown(_) => true,
            // It was of a checkpoint that was made again.
            Fault::Chunk(address) => store.has(address).unwrap_or(false),
            Fault::Pack(_) | Fault::Bytes(..) => false,
        };
        let (mended, lost): (Vec<&Fault>, Vec<&Fault>) = check.faults.iter().partition(is_mended);
        let mended_count = mended.len() as u64;
        let mended = mended.into_iter().map(ToString::to_string);
        let mended = mended.chain(checkpoint.as_ref().ok().cloned().flatten()).collect();
        let worn = checkpoint.err();
        let lost = lost.into_iter().map(ToString::to_string);
        let gone = bucket.entries_gone();
        // What comes after damage is not known either: that is told already.
        let cut_off = (gone > 0 && bucket.found().damage.is_empty())
            .then(|| format!("`entries` ends too early: {gone} that were there are not any more"));
        let unknown = bucket.is_kept_damaged().then(|| {
            "`kept` is damaged: which versions were given up is not known; `gate bucket gc --keep-from` says it anew".to_owned()
        });
        Ok(body::Checked {
            entries: bucket.frontier().iter().map(|(_, count)| count).sum(),
            chunks: check.chunks,
            fault_count: check.fault_count - mended_count
                + u64::from(worn.is_some())
                + bucket.found().damage.len() as u64
                + torn.len() as u64
                + u64::from(unknown.is_some())
                + u64::from(cut_off.is_some()),
            faults: damage
                .chain(cut_off)
                .chain(unknown)
                .chain(lost)
                .chain(torn.iter().map(Lost::to_string))
                .chain(worn)
                .collect(),
            mended,
        })
    }

    /// Sees to it that all that was done in buckets is in them.
    pub fn settle(&self) {
        let open: Vec<_> = self.open().values().cloned().collect();
        for bucket in open {
            if let Err(error) = bucket.settle() {
                tracing::warn!(%error, "what was done in a bucket is in no entry yet");
            }
        }
    }

    /// Lets go of what was read of buckets and is too old by now; returns whether there was any.
    pub fn let_go_of_old(&self) -> bool {
        // Nobody who deletes one is to find it used for this.
        self.open().values().fold(false, |any, bucket| bucket.vault().let_go_of_old() | any)
    }

    /// Returns where a bucket lies.
    pub fn path(&self, id: Uuid) -> PathBuf {
        self.0.dir.join(id.to_string())
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Live>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self) -> Result<Vec<Uuid>, Refusal> {
        let entries = match fs::read_dir(&self.0.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let id = name.to_str().and_then(|name| name.parse::<Uuid>().ok());
            // What has no such name is none, as one that is being made or goes.
            ids.extend(id.filter(|id| name == *id.to_string()));
        }
        Ok(ids)
    }

    fn name(&self, id: Uuid) -> Result<String, Refusal> {
        let name = match read(&self.path(id).join(NAME), NAME_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            name => Some(name.map_err(failed)?),
        };
        let name = name.and_then(|name| String::from_utf8(name).ok());
        // One that was copied here without its name, or whose name somebody wrote: its id finds it.
        let name = name.filter(|name| check_name(name).is_ok());
        Ok(name.unwrap_or_else(|| id.to_string()))
    }

    fn describe(&self, id: Uuid) -> Result<body::Bucket, Refusal> {
        let dir = self.path(id);
        let genesis = read(&dir.join("genesis"), GENESIS_BYTES_MAX).map_err(failed)?;
        let genesis = Genesis::decode(&genesis).map_err(|error| refusal(error.into()))?;
        let created_at = board::utc(genesis.made_at_ms());
        let stored_bytes = stored_bytes(&dir).map_err(failed)?;
        Ok(body::Bucket { bucket_id: id, name: self.name(id)?, created_at, stored_bytes })
    }

    /// Checks that no other bucket has a name.
    fn check_free(&self, name: &str, but: Option<Uuid>) -> Result<(), Refusal> {
        let mut others = self.ids()?.into_iter().filter(|id| Some(*id) != but);
        match others.find(|id| self.name(*id).is_ok_and(|theirs| theirs == name)) {
            None => Ok(()),
            Some(id) => {
                let message = format!("the bucket {id} is called `{name}` already");
                Err(Refusal::new(Kind::Taken, message, "choose another name"))
            }
        }
    }
}

/// Checks what a bucket is to be called: a word that people can write, and that is no id.
fn check_name(name: &str) -> Result<(), Refusal> {
    let invalid = |message: &str| {
        let hint = format!(
            "take letters, digits, `.`, `-` and `_`: at most {NAME_BYTES_MAX} bytes, and not `-` first"
        );
        Err(Refusal::new(Kind::Invalid, message, hint))
    };
    let is_fine = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    match name {
        "" => invalid("the name is empty"),
        "." | ".." => invalid("that is no name"),
        _ if name.len() > NAME_BYTES_MAX => invalid("the name is too long"),
        _ if name.starts_with('-') || !name.chars().all(is_fine) => {
            invalid("the name has characters that it may not have")
        }
        _ if name.parse::<Uuid>().is_ok() => invalid("that is an id"),
        _ => Ok(()),
    }
}

/// Reads the checkpoint of a bucket, and makes one that is damaged again; returns what was put right, or what
/// cannot be.
fn mend_checkpoint(bucket: &mut Bucket) -> Result<Option<String>, String> {
    let Err(fault) = bucket.check_checkpoint() else { return Ok(None) };
    let again = bucket.checkpoint(now_ms()).and_then(|_| bucket.check_checkpoint());
    match again {
        Ok(()) => Ok(Some(format!("{fault}; it was made again"))),
        Err(error) => Err(format!("{fault}; it cannot be made again: {error}")),
    }
}

/// Takes a bucket, with all in it that was done before.
fn lock(bucket: &Live) -> Result<Lent<'_>, Refusal> {
    bucket.lock().map_err(refusal)
}

fn read(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    whole::read(&fs::File::open(path)?, bytes_max)
}

/// Returns how much room a bucket takes on the disk.
fn stored_bytes(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;

    let mut bytes = 0;
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => left.push(entry.path()),
                Ok(meta) => bytes += meta.blocks() * 512,
                // A pack that was collected meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}

/// Returns the time of now, as entries have it.
pub fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

fn failed(error: io::Error) -> Refusal {
    refusal(error.into())
}

/// Returns what the disk said, if it is to blame.
fn io_of(error: &BucketError) -> Option<&io::Error> {
    match error {
        BucketError::Io(error)
        | BucketError::Store(StoreError::Io(error))
        | BucketError::Log(LogError::Io(error))
        | BucketError::Frames(FramesError::Io(error))
        | BucketError::Index(IndexError::Io(error)) => Some(error),
        _ => None,
    }
}

/// Says why a bucket does not do what was asked.
pub fn refusal(error: BucketError) -> Refusal {
    let io = io_of(&error).map(io::Error::kind);
    let (kind, hint) = match (&error, io) {
        (_, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) => {
            (Kind::NoRoom, "make room; nothing that was stored is lost")
        }
        (BucketError::Store(StoreError::Busy), _) => {
            (Kind::Busy, "another process has it open: end that, then try again")
        }
        (BucketError::Store(StoreError::Collecting | StoreError::InUse), _) => {
            (Kind::Busy, "wait until that is done")
        }
        (BucketError::Incomplete(..), _) => {
            (Kind::Failed, "get it back from a backup; `gate bucket fsck` says more")
        }
        (BucketError::MayNotWrite | BucketError::NoKey(_), _) => {
            (Kind::State, "ask an owner of the bucket for it")
        }
        _ => (
            Kind::Failed,
            "`gate bucket fsck` looks at the bucket, the log of the daemon says more",
        ),
    };
    Refusal::new(kind, error, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_a_name_that_can_be_written_anywhere() {
        for fine in ["notes", "Grüße", "a.b-c_d", "0123"] {
            check_name(fine).unwrap();
        }
        let id = Uuid::nil().to_string();
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        for wrong in ["", ".", "..", "-f", "a/b", "a b", "a\nb", "a\u{202e}b", &id, &long] {
            assert_eq!(check_name(wrong).unwrap_err().kind, Kind::Invalid, "{wrong:?}");
        }
    }
}
