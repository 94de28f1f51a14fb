//! Since which version the bytes of all versions are kept.
//!
//! Entries are never given up, so that what was done is known for ever; what files held before a version may be. That is
//! this device's own affair: a file in the bucket's directory says it, and a collection frees what that leaves out.
//! Whoever forgets writes it down before anything is freed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use gate_core::tree::id::FeedId;
use gate_core::tree::seen::Seen;

use super::history::{PastError, Version};
use super::{Bucket, BucketError};
use crate::hash;
use crate::whole;

/// The file in the bucket's directory.
const NAME: &str = "kept";
const MAGIC: &[u8; 6] = b"GATEKV";
const VERSION: u8 = 1;
/// The longest file, in bytes: more feeds than a bucket has.
const BYTES_MAX: usize = 64 * 1024 * 1024;
const HASH_BYTES: usize = 32;
/// A feed, and how many of its entries.
const ROW_BYTES: usize = 40;

/// Since when bytes are kept.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    /// What the oldest version that is kept had seen; none if all are.
    since: Option<Seen>,
    is_damaged: bool,
}

impl Kept {
    /// Reads it. Of one that is damaged nothing is believed: all is kept then that is there.
    pub(super) fn open(dir: &Path) -> io::Result<Kept> {
        let path = dir.join(NAME);
        let bytes = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            file => Some(whole::read(&file?, BYTES_MAX)?),
        };
        let since = bytes.as_deref().map(decode);
        let is_damaged = since == Some(None);
        Ok(Kept { path, since: since.flatten(), is_damaged })
    }

    /// Whether all is here of a version that was never lost.
    pub(super) fn has(&self, version: &Seen) -> bool {
        self.since.as_ref().is_none_or(|since| version.includes(since))
    }

    fn set(&mut self, since: Seen) -> io::Result<()> {
        whole::replace(&self.path, &encode(&since))?;
        (self.since, self.is_damaged) = (Some(since), false);
        Ok(())
    }
}

impl Bucket {
    /// Gives up what files held before a version, and returns whether that is more than was given up before: what it
    /// takes is freed by the next collection.
    ///
    /// That version and all that go on from it stay. Nothing brings the others back.
    pub fn forget_before(&mut self, version: &Version) -> Result<bool, PastError> {
        if !self.kept.has(version.seen()) {
            return Err(PastError::Forgotten);
        }
        if self.kept.since.as_ref() == Some(version.seen()) {
            return Ok(false);
        }
        self.kept.set(version.seen().clone()).map_err(BucketError::Io)?;
        Ok(true)
    }

    /// Whether it is not known any more which versions were given up: all that is there is kept.
    pub fn is_kept_damaged(&self) -> bool {
        self.kept.is_damaged
    }

    /// Fails for a version of which not all is kept.
    pub(super) fn check_kept(&self, seen: &Seen) -> Result<(), PastError> {
        if self.kept.has(seen) { Ok(()) } else { Err(PastError::Forgotten) }
    }

    /// Returns what the oldest version had seen that is kept; nothing if all are.
    pub(super) fn kept_since(&self) -> Seen {
        self.kept.since.clone().unwrap_or_default()
    }
}

/// Magic, version, then for each feed in rising order its id and how many of its entries were seen, then the hash of
/// all that.
fn encode(since: &Seen) -> Vec<u8> {
    let mut bytes = [&MAGIC[..], &[VERSION]].concat();
    for (feed, count) in since.iter() {
        bytes.extend(feed.0);
        bytes.extend(count.to_be_bytes());
    }
    let hash = hash::address(&bytes);
    bytes.extend(hash.0);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Seen> {
    let (bytes, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
    let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(&[VERSION])?;
    let (rows, []) = rest.as_chunks::<ROW_BYTES>() else { return None };
    let count = |row: &[u8; ROW_BYTES]| {
        let (feed, count) = row.split_first_chunk().expect("a row is longer than an id");
        Some((FeedId(*feed), u64::from_be_bytes(count.try_into().ok()?)))
    };
    let seen: Seen = rows.iter().map(count).collect::<Option<_>>()?;
    let is_whole = hash::address(bytes).0 == *hash && seen != Seen::new();
    is_whole.then_some(seen)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use gate_core::tree::id::{Address, EntryId, FileId, LinkId};
    use gate_core::tree::op::{Name, Op, Stamp};
    use gate_core::tree::shown::What;
    use gate_core::tree::walk::TreePath;

    use super::*;
    use crate::bucket::history::{Asked, Wanted};
    use crate::draft::Meta;
    use crate::identity::Identity;
    use crate::random;

    const META: Meta = Meta { mode: 0o644, modified: Stamp { seconds: 0, nanos: 0 } };

    fn path(text: &str) -> TreePath {
        TreePath::try_from(text.as_bytes()).unwrap()
    }

    /// Puts a file, and returns its chunk.
    fn put(bucket: &mut Bucket, name: &str, byte: u8) -> Address {
        let stored = bucket.vault().unwrap().take_in(&mut &[byte; 5000][..]).unwrap();
        let chunk = stored.chunks[0];
        let done = bucket.change(1, |draft| draft.put(&path(name), &stored, META));
        done.unwrap();
        chunk
    }

    #[test]
    fn what_is_given_up_is_what_no_version_needs_that_is_kept() {
        let (home, device) = (tempfile::tempdir().unwrap(), Identity::random());
        let dir = home.path().join(Bucket::create(home.path(), &device, 1).unwrap().to_string());
        let mut bucket = Bucket::open(&dir, &device).unwrap();
        let first = put(&mut bucket, "a", 1);
        let second = put(&mut bucket, "a", 2);
        let gone = put(&mut bucket, "gone", 3);
        let Ok(What::File { file, .. }) = bucket.draft().unwrap().find(&path("gone")) else {
            panic!("it was put there")
        };
        bucket.change(1, |draft| draft.remove(&path("gone"))).unwrap();
        let third = put(&mut bucket, "a", 4);
        assert_eq!(bucket.marks().unwrap(), [first, second, gone, third].into());
        let versions: Vec<_> =
            (0..5).map(|back| bucket.version(&Wanted::Back(back)).unwrap()).collect();
        // That it was removed is the oldest version that stays.
        assert!(bucket.forget_before(&versions[1]).unwrap());
        assert!(!bucket.forget_before(&versions[1]).unwrap(), "nothing more");
        for _ in 0..2 {
            assert_eq!(bucket.marks().unwrap(), [second, third].into());
            for (back, version) in versions.iter().enumerate() {
                let there = bucket.at(version).map(drop);
                let is_given_up = matches!(there, Err(PastError::Forgotten));
                assert_eq!(is_given_up, back > 1, "{back}: {there:?}");
            }
            let older = bucket.forget_before(&versions[2]);
            assert!(matches!(older, Err(PastError::Forgotten)), "{older:?}");
            let undone = bucket.undoing(versions[1].entry.unwrap());
            assert!(matches!(undone, Err(PastError::Forgotten)), "{undone:?}");
            let nobody = |_: &FeedId| String::new();
            let told = bucket.told(&Asked { most: 9, ..Asked::default() }, &nobody).unwrap();
            let kept: Vec<bool> = told.iter().map(|told| told.is_kept).collect();
            assert_eq!(kept, [true, true, false, false, false]);
            assert!(bucket.lost().unwrap().is_empty());
            drop(bucket);
            bucket = Bucket::open(&dir, &device).unwrap();
        }
        // Somebody had it open all the time, and gives it a name again.
        let (parent, name) = (FileId::ROOT, Name::try_from(&b"again"[..]).unwrap());
        let link = LinkId::of_file(random::bytes());
        bucket.commit(&[Op::Link { link, file, parent, name }], Vec::new(), 1).unwrap();
        let all: HashSet<_> = [second, third, gone].into();
        assert_eq!(bucket.marks().unwrap(), all);
        let newest = bucket.version(&Wanted::Newest).unwrap();
        assert!(bucket.forget_before(&newest).unwrap());
        assert_eq!(bucket.marks().unwrap(), [third, gone].into());
        let undo = bucket.change(1, |draft| draft.remove(&path("a"))).unwrap();
        assert_eq!(bucket.undoing(undo.0.unwrap()).unwrap().len(), 1);
    }

    #[test]
    fn what_was_written_down_is_read_again_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(dir.path()).unwrap();
        assert!(kept.has(&Seen::new()) && !kept.is_damaged);
        let mut since = Seen::new();
        since.see(EntryId { feed: FeedId([7; 32]), number: 300 });
        kept.set(since.clone()).unwrap();
        let again = Kept::open(dir.path()).unwrap();
        assert!(again.has(&since) && !again.has(&Seen::new()) && !again.is_damaged);
        let whole = encode(&since);
        for at in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            assert_eq!(decode(&bytes), None, "bit {at}");
            assert_eq!(decode(&whole[..at / 8]), None);
        }
        std::fs::write(dir.path().join(NAME), &whole[1..]).unwrap();
        let damaged = Kept::open(dir.path()).unwrap();
        assert!(damaged.has(&Seen::new()) && damaged.is_damaged);
    }
}
