//! Who has a checkpoint and what came after it has what follows from all entries, to the last byte; and whatever is
//! wrong with it, the bucket is as it would be without.

use std::collections::HashSet;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use gate_core::tree::id::{FeedId, FileId, LinkId};
use gate_core::tree::op::{Attribute, Content, Kind as NodeKind, Name, Op, Stamp};
use gate_core::tree::record::{FileRecord, LinkRecord};
use proptest::prelude::*;
use redb::ReadableTable;

use super::*;
use crate::entry::EntryHash;
use crate::feed::OwnFeed;
use crate::frames::{Frames, Kind};
use crate::genesis::Genesis;
use crate::identity::{DeviceId, Identity};
use crate::law;
use crate::members::Change;
use crate::random;
use crate::shelf::tests::{Choice, op};

/// Copies of one bucket, each with what came to it.
struct World<const N: usize> {
    home: tempfile::TempDir,
    device: Identity,
    buckets: [Option<Bucket>; N],
}

impl<const N: usize> World<N> {
    fn new() -> World<N> {
        let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let device = Identity::random();
        let uuid = Bucket::create(home.path(), &device, 1).unwrap();
        let first = home.path().join(uuid.to_string());
        let mut world = World { home, device, buckets: [const { None }; N] };
        for which in 0..N {
            fs::create_dir(world.dir(which)).unwrap();
            for file in ["genesis", "members", "entries"] {
                fs::copy(first.join(file), world.dir(which).join(file)).unwrap();
            }
            world.open(which);
        }
        world
    }

    fn dir(&self, which: usize) -> PathBuf {
        self.home.path().join(which.to_string())
    }

    fn open(&mut self, which: usize) -> &mut Bucket {
        self.buckets[which] = None;
        let bucket = Bucket::open(&self.dir(which), &self.device).unwrap();
        self.buckets[which].insert(bucket)
    }

    fn bucket(&mut self, which: usize) -> &mut Bucket {
        self.buckets[which].as_mut().unwrap()
    }

    /// Opens it as if its index had been lost.
    fn open_without_index(&mut self, which: usize) -> &mut Bucket {
        self.buckets[which] = None;
        fs::write(self.dir(which).join("index"), b"").unwrap();
        self.open(which)
    }

    /// Lets one have all entries of another, as if they had come to it.
    fn hear(&mut self, which: usize, other: usize) {
        let Ok([to, from]) = self.buckets.get_disjoint_mut([which, other]) else { return };
        let (to, from) = (to.as_mut().unwrap(), from.as_mut().unwrap());
        let frontier = to.frontier();
        for known in from.known.iter().filter(|known| !frontier.covers(known.id)) {
            let entry = from.decode(*known).unwrap().verified_before();
            to.feeds.accept(&entry, &to.members, |_| None).unwrap();
            let offset = to.entries.append(&[entry.bytes()]).unwrap()[0];
            let known = Known { id: entry.id(), offset };
            to.known.push(known);
            to.behind.push(known);
        }
    }
}

/// All rows of a bucket, but for what was spoken of and nothing is known.
fn rows(bucket: &mut Bucket) -> Vec<(Vec<u8>, Vec<u8>)> {
    bucket.snapshot().unwrap();
    let rows = bucket.store.index().read(|read| {
        let table = read.open_table(TREE)?;
        let rows = table.iter()?.map(|row| {
            let (key, value) = row?;
            Ok((key.value().to_vec(), value.value().to_vec()))
        });
        rows.collect::<Result<Vec<_>, redb::Error>>()
    });
    let mut rows = rows.unwrap();
    let nothing = [
        (b'f', postcard::to_stdvec(&FileRecord::default()).unwrap()),
        (b'l', postcard::to_stdvec(&LinkRecord::default()).unwrap()),
    ];
    rows.retain(|(key, value)| {
        !nothing.iter().any(|(kind, none)| key[0] == *kind && value == none)
    });
    rows
}

/// Puts the checkpoint and what came after it into an empty index; returns whether it was there to be put.
fn load(bucket: &mut Bucket) -> bool {
    bucket.clear().unwrap();
    let seen = bucket.load_checkpoint().unwrap();
    let is_there = seen.is_some();
    let seen = seen.unwrap_or_default();
    bucket.behind = bucket.known.iter().copied().filter(|known| !seen.covers(known.id)).collect();
    bucket.catch_up().unwrap();
    is_there
}

/// Makes a file with a name of its own.
fn make(bucket: &mut Bucket, name: &str) -> FileId {
    let (link, file) = (LinkId::of_file(random::bytes()), FileId::of_file(random::bytes()));
    let (parent, modified, kind) = (FileId::ROOT, Stamp::default(), NodeKind::File);
    let name = Name::try_from(name.as_bytes()).unwrap();
    let create = Op::Create { link, file, parent, name, kind, mode: 0o644, modified, former: 0 };
    bucket.commit(&[create], Vec::new(), 1).unwrap();
    file
}

/// Gives it what takes room in the rows, and no chunk.
fn mark(bucket: &mut Bucket, file: FileId) {
    let mut value = vec![0; 60_000];
    blake3::Hasher::new().update(&random::bytes::<16>()).finalize_xof().fill(&mut value);
    let attribute = Attribute::Extended { name: b"user.x".to_vec(), value: Some(value) };
    bucket.commit(&[Op::SetAttr { file, attribute }], Vec::new(), 1).unwrap();
}

#[derive(Clone, Debug)]
enum Act {
    Do(usize, Choice),
    Hear(usize, usize),
    Checkpoint(usize),
    LoseIndex(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let one = 0..3_usize;
    prop_oneof![
        12 => (one.clone(), any::<Choice>()).prop_map(|(who, choice)| Act::Do(who, choice)),
        3 => (one.clone(), one.clone()).prop_map(|(who, other)| Act::Hear(who, other)),
        2 => one.clone().prop_map(Act::Checkpoint),
        1 => one.prop_map(Act::LoseIndex),
    ]
}

#[test]
fn what_follows_from_a_checkpoint_and_the_rest_is_what_follows_from_all() {
    law::hold(16, &proptest::collection::vec(act(), 0..60), |acts| {
        let mut world = World::<3>::new();
        for act in acts {
            match act {
                Act::Do(who, choice) => {
                    world.bucket(who).commit(&[op(choice)], Vec::new(), 1).map(drop).unwrap();
                }
                Act::Hear(who, other) => world.hear(who, other),
                Act::Checkpoint(who) => {
                    let bucket = world.bucket(who);
                    let is_new = bucket.frontier() != Seen::new()
                        && bucket.sound().is_none_or(|now| now.seen() != bucket.frontier());
                    prop_assert_eq!(bucket.checkpoint(1).unwrap(), is_new);
                }
                Act::LoseIndex(who) => drop(world.open_without_index(who).frontier()),
            }
        }
        for (who, other) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
            world.hear(who, other);
        }
        let mut all = Vec::new();
        for who in 0..3 {
            let bucket = world.bucket(who);
            let expected = rows(bucket);
            let has_one = bucket.checkpoint.found().is_some();
            prop_assert_eq!(load(bucket), has_one);
            prop_assert_eq!(&rows(bucket), &expected, "from its checkpoint on");
            bucket.checkpoint.found = Ok(None);
            prop_assert!(!load(bucket));
            prop_assert_eq!(&rows(bucket), &expected, "from all entries");
            all.push(expected);
        }
        prop_assert!(all[0] == all[1] && all[0] == all[2], "each device has the same rows");
        Ok(())
    });
}

#[test]
fn a_checkpoint_is_taken_over_by_who_has_the_entries_and_its_chunks() {
    let mut world = World::<2>::new();
    let file = make(world.bucket(0), "a");
    mark(world.bucket(0), file);
    assert!(world.bucket(0).checkpoint(1).unwrap());
    assert!(!world.bucket(0).checkpoint(1).unwrap(), "there is nothing new");
    make(world.bucket(0), "b");
    let expected = rows(world.bucket(0));
    world.hear(1, 0);
    (world.buckets[0], world.buckets[1]) = (None, None);
    let (from, to) = (world.dir(0), world.dir(1));
    fs::copy(from.join(NAME), to.join(NAME)).unwrap();
    fs::copy(from.join("packs/00000000"), to.join("packs/00000000")).unwrap();
    let bucket = world.open_without_index(1);
    assert_eq!(rows(bucket), expected);
    assert!(load(bucket));
    assert_eq!(rows(bucket), expected);
    bucket.check_checkpoint().unwrap();
}

/// Members, and what each of them may do.
fn add(world: &mut World<1>, device: &Identity, role: Role) {
    change(world, Change::Add { device: device.device(), key: device.agreement_key(), role });
}

fn change(world: &mut World<1>, change: Change) {
    let record = world.buckets[0].as_ref().unwrap().members.make(&world.device, 2, change);
    let (mut members, _) =
        Frames::open(&world.dir(0).join("members"), Kind::MEMBERS, |_, _| {}).unwrap();
    members.append(&[&record.unwrap()]).unwrap();
    world.open(0);
}

/// Makes a checkpoint of all there is that somebody else signs, after a change.
fn by(bucket: &mut Bucket, device: &Identity, change: impl Fn(&mut NewCheckpoint)) -> Checkpoint {
    bucket.checkpoint.found = Ok(None);
    let Dump { members, applied, stored, tallied } =
        bucket.dumping().unwrap().unwrap().write(&|| true).unwrap();
    let heads = applied.iter().map(|(feed, count)| {
        let entry = EntryId { feed, number: count - 1 };
        Head { entry, hash: bucket.feeds.hash(entry).unwrap() }
    });
    let mut new = NewCheckpoint {
        bucket: bucket.genesis.id(),
        members,
        epoch: bucket.members.epoch().unwrap(),
        at_ms: 1,
        tables: INDEX_VERSION,
        heads: heads.collect(),
        stored,
        tallied,
    };
    let key = bucket.members.keys(0).unwrap().checkpoint.clone();
    change(&mut new);
    Checkpoint::make(&OwnFeed::new(device, bucket.genesis.id()), &key, new).unwrap()
}

/// What becomes of a checkpoint that lies there when the index is lost; the tree is the same in any case.
fn outcome(world: &mut World<1>, checkpoint: &Checkpoint) -> Result<(), String> {
    let expected = rows(world.bucket(0));
    world.bucket(0).checkpoint.set(checkpoint.clone()).unwrap();
    let bucket = world.open_without_index(0);
    assert_eq!(rows(bucket), expected);
    let judged = bucket.walk(checkpoint, |_| Ok(())).map(drop);
    assert_eq!(load(bucket), judged.is_ok());
    assert_eq!(rows(bucket), expected);
    // One that is not believed is in nobody's way.
    assert_eq!(bucket.check_checkpoint().is_ok(), judged.is_ok());
    assert_eq!(bucket.checkpoint(2).unwrap(), judged.is_err());
    bucket.check_checkpoint().unwrap();
    judged.map_err(|error| error.to_string())
}

#[test]
fn a_checkpoint_is_believed_of_devices_that_may_write_and_of_this_one() {
    let mut world = World::<1>::new();
    make(world.bucket(0), "a");
    let [writer, reader, gone, stranger] = [(); 4].map(|()| Identity::random());
    add(&mut world, &writer, Role::Writer);
    add(&mut world, &reader, Role::Reader);
    add(&mut world, &gone, Role::Writer);
    let owner = Identity::from_secrets(&[1; 32], [2; 32]);
    add(&mut world, &owner, Role::Owner);
    let before = world.bucket(0).members.head();
    change(&mut world, Change::Remove { device: gone.device(), cut: Vec::new() });
    let refused = |device: DeviceId| Err(CheckpointError::NoWriter(device).to_string());
    for (device, is_believed) in
        [(&writer, true), (&owner, true), (&reader, false), (&gone, false), (&stranger, false)]
    {
        let made = by(world.bucket(0), device, |_| {});
        let expected = if is_believed { Ok(()) } else { refused(device.device()) };
        assert_eq!(outcome(&mut world, &made), expected);
    }
    // By the members that it names it might write, and by those of now it may not.
    let made = by(world.bucket(0), &gone, |new| new.members = before);
    assert_eq!(outcome(&mut world, &made), refused(gone.device()));
    // Who may only read has one for himself.
    let own = Identity::from_secrets(&[3; 32], [4; 32]);
    add(&mut world, &own, Role::Reader);
    let made = by(world.bucket(0), &own, |_| {});
    assert_eq!(outcome(&mut world, &made), refused(own.device()));
    by(world.bucket(0), &own, |_| {});
    world.bucket(0).device = own.device();
    assert!(world.bucket(0).judge(&made).is_ok());
}

#[test]
fn a_checkpoint_of_what_is_not_known_here_or_of_other_rows_is_not_used() {
    let mut world = World::<1>::new();
    make(world.bucket(0), "a");
    world.open(0);
    make(world.bucket(0), "b");
    let device = Identity::random();
    add(&mut world, &device, Role::Writer);
    let first = world.bucket(0).known[0].id;
    let last = world.bucket(0).known[1].id;
    let other_bucket = Genesis::make(&device, 1).id();
    let mut check =
        |what: &str, expected: &CheckpointError, change: &dyn Fn(&mut NewCheckpoint)| {
            let made = by(world.bucket(0), &device, change);
            assert_eq!(outcome(&mut world, &made), Err(expected.to_string()), "{what}");
        };
    let [entries, members] = [CheckpointError::UnknownEntries, CheckpointError::UnknownMembers];
    check("an entry that nobody knows", &entries, &|new| new.heads[0].entry.number += 1);
    check("another entry of that name", &entries, &|new| new.heads[0].hash = EntryHash([1; 32]));
    check("a feed that nobody knows", &entries, &|new| {
        new.heads =
            vec![Head { entry: EntryId { feed: FeedId([7; 32]), number: 0 }, ..new.heads[0] }];
    });
    check("not what it depends on", &entries, &|new| {
        new.heads.retain(|head| head.entry == last && head.entry != first);
    });
    check("a record that nobody knows", &members, &|new| new.members = RecordId([1; 32]));
    check("another epoch", &members, &|new| new.epoch = 1);
    check("other tables", &CheckpointError::OtherTables(0), &|new| new.tables = 0);
    check("another bucket", &CheckpointError::NotSigned, &|new| new.bucket = other_bucket);
    check("another sum", &CheckpointError::OtherRows, &|new| new.tallied.sum.0[2] ^= 1);
    check("other rows", &CheckpointError::OtherRows, &|new| new.tallied.hash[31] ^= 1);
    check("more than rows", &CheckpointError::OtherRows, &|new| new.stored.size += 1);
    check("what is no row", &CheckpointError::OtherRows, &|new| {
        let rows = [&[1, 0, 0, 0, 0, 0, 0, 0][..], b"x"].concat();
        new.tallied.hash = *blake3::hash(&rows).as_bytes();
        new.tallied.sum = Default::default();
        new.stored.chunks.clear();
        (new.stored.size, new.stored.content) = (rows.len() as u64, Content::Inline(rows));
    });
}

#[test]
fn a_checkpoint_with_any_bit_flipped_or_any_end_cut_off_is_none() {
    let mut world = World::<1>::new();
    make(world.bucket(0), "a");
    world.bucket(0).checkpoint(1).unwrap();
    let whole = fs::read(world.dir(0).join(NAME)).unwrap();
    let bucket = world.bucket(0);
    let is_believed = |bytes: &[u8]| {
        Checkpoint::decode_file(bytes).is_ok_and(|it| bucket.walk(&it, |_| Ok(())).is_ok())
    };
    assert!(is_believed(&whole));
    for bit in 0..8 * whole.len() {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_believed(&bytes), "bit {bit}");
    }
    for len in 0..whole.len() {
        assert!(!is_believed(&whole[..len]), "{len} bytes");
    }
    assert!(!is_believed(&[&whole[..], &[0]].concat()));
}

#[test]
fn n16_a_checkpoint_of_another_version_is_named_and_not_used() {
    let mut world = World::<1>::new();
    make(world.bucket(0), "a");
    world.bucket(0).checkpoint(1).unwrap();
    let expected = rows(world.bucket(0));
    let path = world.dir(0).join(NAME);
    let whole = fs::read(&path).unwrap();
    for at in [6, 7] {
        let mut bytes = whole.clone();
        bytes[at] = 9;
        fs::write(&path, bytes).unwrap();
        let bucket = world.open_without_index(0);
        let found = bucket.checkpoint.found.as_ref().err();
        assert!(matches!(found, Some(CheckpointError::UnknownVersion(9))), "{found:?}");
        assert_eq!(rows(bucket), expected);
        assert!(bucket.check_checkpoint().is_err() && bucket.check_checkpoint().is_ok());
        assert!(bucket.checkpoint(1).unwrap());
        assert_eq!(world.open(0).check_checkpoint().map_err(|error| error.to_string()), Ok(()));
    }
}

/// Makes files whose rows are more than one chunk.
fn make_large(bucket: &mut Bucket, names: Range<u32>) -> Vec<FileId> {
    let files: Vec<_> = names.map(|name| make(bucket, &name.to_string())).collect();
    files.iter().for_each(|file| mark(bucket, *file));
    files
}

#[test]
fn a_chunk_of_a_checkpoint_that_is_damaged_or_gone_costs_time_alone() {
    let mut world = World::<1>::new();
    make_large(world.bucket(0), 0..10);
    world.bucket(0).checkpoint(1).unwrap();
    let expected = rows(world.bucket(0));
    let chunks = world.bucket(0).checkpoint.found().unwrap().header().chunks.clone();
    assert!(chunks.len() > 1, "{chunks:?}");
    let pack = world.dir(0).join("packs/00000000");
    let whole = fs::read(&pack).unwrap();
    let ends = [whole.len(), whole.len() / 2, 100];
    for (at, end) in [(whole.len() / 2, ends[0]), (0, ends[1]), (0, ends[2])] {
        let mut bytes = whole[..end].to_vec();
        if at > 0 {
            bytes[at] ^= 1;
        }
        fs::write(&pack, bytes).unwrap();
        let bucket = world.open_without_index(0);
        assert!(bucket.checkpoint.found().is_some());
        assert_eq!(rows(bucket), expected);
        assert!(!load(bucket));
        assert_eq!(rows(bucket), expected);
        assert!(bucket.check_checkpoint().is_err() && bucket.check_checkpoint().is_ok());
        // It is made again, of what is still there and of what is not.
        assert!(bucket.checkpoint(1).unwrap());
        bucket.check_checkpoint().unwrap();
        assert!(load(bucket));
        assert_eq!(rows(bucket), expected);
        world.buckets[0] = None;
        for pack in fs::read_dir(world.dir(0).join("packs")).unwrap() {
            fs::remove_file(pack.unwrap().path()).unwrap();
        }
        fs::write(&pack, &whole).unwrap();
    }
}

#[test]
fn n14_a_checkpoint_is_not_kept_before_its_chunks_are_stored() {
    let mut world = World::<1>::new();
    make_large(world.bucket(0), 0..10);
    assert!(world.bucket(0).checkpoint(1).unwrap());
    let former = fs::read(world.dir(0).join(NAME)).unwrap();
    make_large(world.bucket(0), 10..13);
    // Wherever the disk is full, the former one is there.
    for room in (0..40_000).step_by(8_000) {
        world.bucket(0).store.leave_room(Some(room));
        let full = world.bucket(0).checkpoint(1);
        assert!(full.is_err(), "{room}: {full:?}");
        assert_eq!(fs::read(world.dir(0).join(NAME)).unwrap(), former);
        let bucket = world.open(0);
        let expected = rows(bucket);
        assert!(load(bucket));
        assert_eq!(rows(bucket), expected);
    }
    // Wherever it is killed while the file is replaced, the one or the other is there.
    world.bucket(0).store.leave_room(None);
    assert!(world.bucket(0).checkpoint(1).unwrap());
    let new = fs::read(world.dir(0).join(NAME)).unwrap();
    let expected = rows(world.bucket(0));
    for len in (0..=new.len()).step_by(50) {
        fs::write(world.dir(0).join(NAME), &former).unwrap();
        fs::write(world.dir(0).join("checkpoint.new"), &new[..len]).unwrap();
        let bucket = world.open(0);
        assert!(load(bucket));
        assert_eq!(rows(bucket), expected);
    }
    // After a crash that takes everything which was not synced.
    fs::write(world.dir(0).join(NAME), &new).unwrap();
    let bucket = world.open_without_index(0);
    assert!(load(bucket));
    assert_eq!(rows(bucket), expected);
}

#[test]
fn rows_that_were_put_there_in_part_before_a_crash_are_put_there_anew() {
    let mut world = World::<1>::new();
    make_large(world.bucket(0), 0..10);
    world.bucket(0).checkpoint(1).unwrap();
    make(world.bucket(0), "c");
    let expected = rows(world.bucket(0));
    let bucket = world.bucket(0);
    for left in [1, expected.len() / 2, expected.len() - 3] {
        bucket.clear().unwrap();
        let mut some = expected.clone();
        some.retain(|(key, _)| !matches!(&key[..], b"a" | b"r"));
        some.truncate(left);
        let some: Vec<_> = some.iter().map(|(key, value)| Row::read(key, value).unwrap()).collect();
        bucket.put_rows(&some).unwrap();
        bucket.compare().unwrap();
        assert_eq!(rows(bucket), expected, "{left} rows");
    }
}

#[test]
fn a_collection_leaves_the_chunks_of_the_checkpoint_and_takes_those_of_the_one_before() {
    let mut world = World::<1>::new();
    let bucket = world.bucket(0);
    let files = make_large(bucket, 0..10);
    bucket.checkpoint(1).unwrap();
    let former: HashSet<_> =
        bucket.checkpoint.found().unwrap().header().chunks.iter().copied().collect();
    let dump = |bucket: &mut Bucket| bucket.dumping().unwrap().unwrap().write(&|| true).unwrap();
    for _ in 0..2 {
        files.iter().for_each(|file| mark(bucket, *file));
        dump(bucket);
    }
    for file in &files[2..] {
        let attribute = Attribute::Extended { name: b"user.x".to_vec(), value: None };
        bucket.commit(&[Op::SetAttr { file: *file, attribute }], Vec::new(), 1).unwrap();
    }
    let dump = dump(bucket);
    let chunks: HashSet<_> = dump.stored.chunks.iter().copied().collect();
    let collect = |bucket: &mut Bucket| {
        let (store, marks) = (Arc::clone(&bucket.store), bucket.marks().unwrap());
        let collection = store.collection().unwrap();
        // All packs are old, the one that ends by it, too.
        let since = SystemTime::now() + Duration::from_secs(3600);
        collection.run(since, |address| marks.contains(address), |_| {}).unwrap()
    };
    assert_eq!(bucket.marks().unwrap(), former);
    assert!(collect(bucket).chunks > 0);
    // Nobody asked for them while that ran, and then they are needed.
    let missing = bucket.keep(dump, 1);
    assert!(matches!(missing, Err(CheckpointError::Store(StoreError::Missing(_)))), "{missing:?}");
    bucket.check_checkpoint().unwrap();
    assert!(bucket.checkpoint(1).unwrap());
    assert_eq!(bucket.marks().unwrap(), chunks);
    collect(bucket);
    bucket.check_checkpoint().unwrap();
    let is_gone = |chunk: &&_| !bucket.store.has(chunk).unwrap();
    assert!(former.iter().any(|chunk| is_gone(&chunk)));
}

#[test]
fn a_checkpoint_is_due_once_much_came_since_the_last_was_begun() {
    let mut world = World::<1>::new();
    let bucket = world.bucket(0);
    let file = make(bucket, "a");
    let mut count = 0;
    while !bucket.is_checkpoint_due() {
        mark(bucket, file);
        count += 1;
    }
    assert_eq!(count, BEHIND_BYTES_MAX.div_ceil(60_000));
    let bucket = world.open(0);
    assert!(bucket.is_checkpoint_due(), "it is due after a restart, too");
    // Whether anything comes of it or not.
    let dumping = bucket.dumping().unwrap().unwrap();
    assert!(!bucket.is_checkpoint_due());
    let unwanted = dumping.write(&|| false);
    assert!(matches!(unwanted, Err(CheckpointError::NotWanted)), "{unwanted:?}");
    assert!(world.open(0).is_checkpoint_due());
    assert!(world.bucket(0).checkpoint(1).unwrap());
    mark(world.bucket(0), file);
    assert!(!world.open(0).is_checkpoint_due());
}

#[test]
fn who_looks_through_the_index_waits_for_a_checkpoint() {
    let mut world = World::<1>::new();
    let bucket = world.bucket(0);
    make_large(bucket, 0..10);
    let (store, dumping) = (Arc::clone(&bucket.store), bucket.dumping().unwrap().unwrap());
    let has_begun = std::sync::Once::new();
    let check = std::thread::scope(|scope| {
        let (begin, begun) = std::sync::mpsc::channel::<()>();
        let check = scope.spawn(move || {
            begun.recv().unwrap();
            store.check(true, |_| {}).unwrap()
        });
        let dump = dumping.write(&|| {
            has_begun.call_once(|| begin.send(()).unwrap());
            true
        });
        assert!(bucket.keep(dump.unwrap(), 1).unwrap());
        check.join().unwrap()
    });
    assert_eq!(check.faults, []);
    bucket.check_checkpoint().unwrap();
}

#[test]
fn rows_that_are_not_what_their_sum_says_become_no_checkpoint_and_are_made_again() {
    let mut world = World::<1>::new();
    let bucket = world.bucket(0);
    make_large(bucket, 0..10);
    let expected = rows(bucket);
    let (key, value) = expected.iter().find(|(key, _)| key[0] == b'f').unwrap();
    let mut other = value.clone();
    *other.last_mut().unwrap() ^= 1;
    let put = bucket.store.index().write(|write| {
        write.open_table(TREE)?.insert(&key[..], &other[..])?;
        Ok(())
    });
    put.unwrap();
    let refused = bucket.checkpoint(1);
    assert!(matches!(refused, Err(CheckpointError::OtherRows)), "{refused:?}");
    assert_eq!(rows(bucket), expected);
    assert!(bucket.checkpoint(1).unwrap());
}
