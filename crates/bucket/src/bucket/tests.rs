//! A bucket is what was put into it, whatever happens between.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use gate_core::tree::id::{FeedId, FileId, LinkId};
use gate_core::tree::op::{Content, Extent, INLINE_BYTES_MAX, Kind as NodeKind, Name, Op, Stamp};
use gate_core::tree::shown::{Directory, What};
use gate_core::tree::tables::Look;

use super::*;
use crate::random;

struct World {
    home: tempfile::TempDir,
    device: Identity,
    uuid: Uuid,
}

fn label(feed: &FeedId) -> String {
    format!("{:02x}", feed.0[0])
}

impl World {
    fn new() -> World {
        let home = tempfile::tempdir().unwrap();
        let device = Identity::random();
        let uuid = Bucket::create(home.path(), &device, 1).unwrap();
        World { home, device, uuid }
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join(self.uuid.to_string())
    }

    fn open(&self) -> Bucket {
        Bucket::open(&self.dir(), &self.device).unwrap()
    }

    /// Puts a new file into the root.
    fn put(&self, bucket: &mut Bucket, name: &str, text: &[u8]) -> EntryId {
        let (link, file) = (LinkId::of_file(random::bytes()), FileId::of_file(random::bytes()));
        let (parent, modified) = (FileId::ROOT, Stamp::default());
        let name = Name::try_from(name.as_bytes()).unwrap();
        let (kind, mode) = (NodeKind::File, 0o644);
        let create = Op::Create { link, file, parent, name, kind, mode, modified, former: 0 };
        let mut chunks = Vec::new();
        let content = if text.len() <= INLINE_BYTES_MAX {
            Content::Inline(text.to_vec())
        } else {
            let chunk = bucket.store().put(bucket.chunk_keys().unwrap(), text).unwrap();
            chunks.push(chunk.address);
            Content::Extents(vec![Extent { offset: 0, chunk }])
        };
        let (size, base) = (text.len() as u64, Vec::new());
        let write = Op::Write { file, size, content, base, fence: None };
        bucket.commit(&[create, write], chunks, 2).unwrap()
    }

    /// Returns all files of the root, and what is in them.
    fn texts(&self, bucket: &mut Bucket) -> Vec<(String, Vec<u8>)> {
        let bodies = bucket.read(|tree| {
            let mut bodies = Vec::new();
            for shown in tree.list(&Directory::root(), &label)? {
                let What::File { file, .. } = shown.what else { panic!("{shown:?}") };
                let record = tree.tables().file(file)?.unwrap();
                let name = String::from_utf8(shown.name.bytes().to_vec()).unwrap();
                let (version, _) = record.winner().unwrap();
                bodies.push((name, tree.body(*version)?.unwrap()));
            }
            Ok(bodies)
        });
        let keys = bucket.chunk_keys().unwrap().clone();
        let read = |body| match body {
            gate_core::tree::content::Body::Inline(bytes) => bytes,
            gate_core::tree::content::Body::Extents(extents) => {
                bucket.store().get([&keys], &extents[0].chunk).unwrap().to_vec()
            }
        };
        bodies.unwrap().into_iter().map(|(name, body)| (name, read(body))).collect()
    }
}

#[test]
fn what_was_put_there_is_there_when_it_is_opened_again() {
    let world = World::new();
    let long = vec![7; 5000];
    let mut bucket = world.open();
    world.put(&mut bucket, "a", b"text");
    let first = world.put(&mut bucket, "b", &long);
    let expected = [("a".to_owned(), b"text".to_vec()), ("b".to_owned(), long)];
    assert_eq!(world.texts(&mut bucket), expected);
    let frontier = bucket.frontier();
    let root = bucket.read(|tree| tree.root()).unwrap();
    drop(bucket);
    let mut again = world.open();
    assert_eq!(again.frontier(), frontier);
    assert_eq!(again.read(|tree| tree.root()).unwrap(), root);
    assert_eq!(world.texts(&mut again), expected);
    assert_eq!(again.author(first), Some(world.device.device()));
    // A feed is begun anew whenever a bucket is opened.
    let next = world.put(&mut again, "c", b"");
    assert_ne!(next.feed, first.feed);
    assert_eq!(next.number, 0);
}

#[test]
fn an_index_that_is_lost_old_or_foreign_follows_from_the_rest() {
    let world = World::new();
    let mut bucket = world.open();
    world.put(&mut bucket, "a", b"text");
    drop(bucket);
    let index = world.dir().join("index");
    let old = fs::read(&index).unwrap();
    let mut bucket = world.open();
    world.put(&mut bucket, "b", &[7; 5000]);
    let expected = world.texts(&mut bucket);
    let root = bucket.read(|tree| tree.root()).unwrap();
    drop(bucket);
    let damaged = {
        let mut bytes = fs::read(&index).unwrap();
        bytes.iter_mut().step_by(700).for_each(|byte| *byte ^= 0xff);
        bytes
    };
    for bytes in [Vec::new(), old, damaged] {
        fs::write(&index, bytes).unwrap();
        let mut bucket = world.open();
        assert_eq!(world.texts(&mut bucket), expected);
        assert_eq!(bucket.read(|tree| tree.root()).unwrap(), root);
    }
    // An index that is ahead of the entries was of a bucket that lost some.
    let entries = world.dir().join("entries");
    let bytes = fs::read(&entries).unwrap();
    let mut bucket = world.open();
    world.put(&mut bucket, "c", b"lost");
    drop(bucket);
    fs::write(&entries, bytes).unwrap();
    assert_eq!(world.texts(&mut world.open()), expected);
}

#[test]
fn entries_that_a_crash_cut_off_are_gone_and_all_before_them_are_there() {
    let world = World::new();
    let mut bucket = world.open();
    world.put(&mut bucket, "a", b"text");
    let expected = world.texts(&mut bucket);
    let before = fs::metadata(world.dir().join("entries")).unwrap().len();
    world.put(&mut bucket, "b", b"more");
    drop(bucket);
    let entries = world.dir().join("entries");
    let whole = fs::read(&entries).unwrap();
    for len in (usize::try_from(before).unwrap()..whole.len()).step_by(13) {
        fs::write(&entries, &whole[..len]).unwrap();
        assert_eq!(world.texts(&mut world.open()), expected, "{len}");
    }
    fs::write(&entries, whole).unwrap();
    assert_eq!(world.texts(&mut world.open()).len(), 2);
}

#[test]
fn n14_an_entry_is_not_made_before_its_chunks_are_stored() {
    let world = World::new();
    let mut bucket = world.open();
    let frontier = bucket.frontier();
    let missing = bucket.commit(&[], vec![Address([1; 32])], 2);
    let expected = Address([1; 32]);
    assert!(
        matches!(missing, Err(BucketError::Store(StoreError::Missing(address))) if address == expected),
        "{missing:?}"
    );
    assert_eq!(bucket.frontier(), frontier);
    // What it names is there after a crash that takes everything which was not synced.
    world.put(&mut bucket, "b", &[7; 5000]);
    let copy = tempfile::tempdir().unwrap();
    let dir = copy.path().join("bucket");
    fs::create_dir_all(dir.join("packs")).unwrap();
    for name in ["genesis", "members", "entries"] {
        fs::copy(world.dir().join(name), dir.join(name)).unwrap();
    }
    for pack in fs::read_dir(world.dir().join("packs")).unwrap() {
        let pack = pack.unwrap();
        fs::copy(pack.path(), dir.join("packs").join(pack.file_name())).unwrap();
    }
    let mut copy = Bucket::open(&dir, &world.device).unwrap();
    assert_eq!(world.texts(&mut copy), world.texts(&mut bucket));
}

#[test]
fn what_nobody_may_do_is_refused_and_nothing_changes() {
    let world = World::new();
    let mut bucket = world.open();
    world.put(&mut bucket, "a", b"text");
    let (frontier, expected) = (bucket.frontier(), world.texts(&mut bucket));
    let strange = Op::Resolve {
        file: FileId::of_file([1; 16]),
        given_up: vec![gate_core::tree::id::OpId {
            entry: EntryId { feed: FeedId([1; 32]), number: 0 },
            place: 0,
        }],
    };
    let refused = bucket.commit(&[strange], Vec::new(), 2);
    assert!(matches!(refused, Err(BucketError::Fault(_))), "{refused:?}");
    assert_eq!(bucket.frontier(), frontier);
    drop(bucket);
    assert_eq!(world.texts(&mut world.open()), expected);
}

#[test]
fn a_bucket_is_opened_once_by_its_devices_and_by_nobody_else() {
    let world = World::new();
    let bucket = world.open();
    let second = Bucket::open(&world.dir(), &world.device).err().unwrap();
    assert!(matches!(second, BucketError::Store(StoreError::Busy)), "{second:?}");
    drop(bucket);
    assert_eq!(fs::metadata(world.dir()).unwrap().permissions().mode() & 0o7777, 0o700);
    let mut stranger = Bucket::open(&world.dir(), &Identity::random()).unwrap();
    assert!(matches!(stranger.chunk_keys(), Err(BucketError::NoKey(0))));
    assert!(matches!(stranger.commit(&[], vec![], 2), Err(BucketError::MayNotWrite)));
}

#[test]
fn n12_nothing_in_a_buckets_directory_shows_what_is_in_it() {
    let world = World::new();
    let mut bucket = world.open();
    let (name, text) = ("a name nobody knows", b"words that nobody reads ".repeat(100));
    world.put(&mut bucket, name, &text);
    world.put(&mut bucket, "short", &text[..100]);
    drop(bucket);
    let mut files = vec![world.dir()];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        seen += bytes.len();
        for secret in [name.as_bytes(), &text[..16], b"short"] {
            assert!(!bytes.windows(secret.len()).any(|some| some == secret), "{}", path.display());
        }
    }
    assert!(seen > text.len(), "what was looked at is the bucket");
}

#[test]
fn what_any_version_holds_is_marked_and_what_no_entry_names_is_not() {
    let world = World::new();
    let mut bucket = world.open();
    let put = |bucket: &Bucket, text: &[u8]| {
        bucket.store().put(bucket.chunk_keys().unwrap(), text).unwrap().address
    };
    world.put(&mut bucket, "a", &[1; 5000]);
    let removed = world.put(&mut bucket, "b", &[2; 5000]);
    let undo = bucket.undoing(removed).unwrap();
    bucket.commit(&undo, Vec::new(), 3).unwrap();
    let [first, second, left] = [1, 2, 3].map(|n| put(&bucket, &[n; 5000]));
    let marks = bucket.marks().unwrap();
    assert_eq!(marks, [first, second].into());
    assert!(!marks.contains(&left));
    // Where an entry is damaged nobody knows.
    drop(bucket);
    let entries = world.dir().join("entries");
    let mut bytes = fs::read(&entries).unwrap();
    let at = bytes.len() - 10;
    bytes[at] ^= 1;
    bytes.extend_from_slice(&[9; 100]);
    fs::write(&entries, bytes).unwrap();
    let refused = world.open().marks();
    assert!(matches!(refused, Err(BucketError::Incomplete("entries", _))), "{refused:?}");
}
