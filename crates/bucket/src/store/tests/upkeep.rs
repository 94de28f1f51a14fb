//! Collections keep what is needed at whatever step they end, and checks name what is wrong.

use std::time::{Duration, SystemTime};

use redb::ReadableTableMetadata;

use super::*;
use crate::shelf::TREE;

fn addresses(chunks: &[(u32, ChunkRef)]) -> BTreeSet<Address> {
    chunks.iter().map(|(_, chunk)| chunk.address).collect()
}

fn collect(store: &Store, kept: &[(u32, ChunkRef)]) -> Collected {
    let kept = addresses(kept);
    run(&store.collection().unwrap(), |address| kept.contains(address))
}

/// As if nothing had been put lately.
fn run(collection: &Collection<'_>, is_marked: impl Fn(&Address) -> bool) -> Collected {
    let later = SystemTime::now() + Duration::from_secs(3600);
    collection.run(later, is_marked, |_| {}).unwrap()
}

#[test]
fn what_is_marked_stays_and_its_pack_goes() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..20);
    let (kept, dead) = chunks.split_at(5);
    let before = world.pack(0).metadata().unwrap().len();
    let collected = collect(&store, kept);
    let bytes = before - world.pack(1).metadata().unwrap().len();
    assert_eq!(collected, Collected { chunks: 15, packs: 1, bytes, ..Collected::default() });
    assert!(!world.pack(0).exists());
    assert_there(&store, kept);
    for (_, chunk) in dead {
        assert!(matches!(store.get([&keys()], chunk), Err(StoreError::Missing(_))));
    }
    assert_eq!(put(&store, 5..20), dead, "what is gone can be put again");
    store.sync().unwrap();
    drop(store);
    assert_there(&world.open(), &chunks);
}

#[test]
fn a_pack_that_is_mostly_needed_stays() {
    for (needed, stays) in [(16, true), (14, false)] {
        let world = World::new();
        let store = world.open();
        let chunks = put(&store, 0..20);
        assert_eq!(collect(&store, &chunks[..needed]) == Collected::default(), stays);
        assert_eq!(world.pack(0).exists(), stays);
    }
}

#[test]
fn a_pack_to_which_something_was_put_lately_stays_and_gets_no_more() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..20);
    let kept = addresses(&chunks[..5]);
    let collection = store.collection().unwrap();
    let is_marked = |address: &Address| kept.contains(address);
    let young = collection.run(SystemTime::UNIX_EPOCH, is_marked, |_| {}).unwrap();
    assert_eq!(young, Collected { young_bytes: young.young_bytes, ..Collected::default() });
    assert_there(&store, &chunks);
    put(&store, 20..21);
    store.sync().unwrap();
    assert!(world.pack(1).exists());
    assert_eq!(run(&collection, is_marked).bytes, young.young_bytes, "a day later");
}

/// An index can forget: then what lies in a pack is asked of that.
#[test]
fn what_is_needed_stays_even_if_the_index_has_forgotten_it() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..20);
    store.sync().unwrap();
    let forget = Change { gone: vec![chunks[2].1.address], ..Change::default() };
    store.index.apply(&forget).unwrap();
    assert_eq!(collect(&store, &chunks[..3]).packs, 1);
    assert_there(&store, &chunks[..3]);
}

#[test]
fn what_is_asked_for_while_a_collection_runs_stays() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..20);
    store.sync().unwrap();
    let collection = store.collection().unwrap();
    assert!(store.has(&chunks[0].1.address).unwrap());
    assert_eq!(run(&collection, |_| false).chunks, 19);
    assert_there(&store, &chunks[..1]);
}

#[test]
fn what_is_put_while_a_collection_runs_stays() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..20);
    store.sync().unwrap();
    let collection = store.collection().unwrap();
    assert!(matches!(store.collection(), Err(StoreError::Collecting)));
    assert_eq!(put(&store, 0..1), chunks[..1]);
    // The second is put at the last moment: after it was seen that nobody needs it.
    let asked = std::sync::atomic::AtomicU32::new(0);
    let late = |address: &Address| {
        if *address == chunks[1].1.address && asked.fetch_add(1, Ordering::Relaxed) == 1 {
            assert_eq!(put(&store, 1..2), chunks[1..2]);
        }
        false
    };
    assert_eq!(run(&collection, late).chunks, 18);
    drop(collection);
    assert_there(&store, &chunks[..2]);
    drop(store);
    assert_there(&world.open(), &chunks[..2]);
}

/// N14: whatever step a crash comes at, what is needed is there.
#[test]
fn n14_a_collection_that_ends_anywhere_loses_nothing_that_is_needed() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..20);
    store.sync().unwrap();
    let kept = &chunks[..6];
    let before = world.copy();
    let marked = addresses(kept);
    let steps = std::sync::Mutex::new(Vec::new());
    let note = |address: &Address| {
        steps.lock().unwrap().push(world.copy());
        marked.contains(address)
    };
    run(&store.collection().unwrap(), note);
    drop(store);
    // The index was committed and the old pack was not yet removed.
    let late = world.copy();
    fs::copy(before.pack(0), late.pack(0)).unwrap();
    let steps = steps.into_inner().unwrap();
    assert!(steps.len() >= 40);
    for crashed in steps.iter().chain([&late]) {
        let store = crashed.open();
        assert_there(&store, kept);
        collect(&store, kept);
        assert_there(&store, kept);
        drop(store);
        assert!(!crashed.pack(0).exists());
        assert_there(&crashed.open(), kept);
    }
}

#[test]
fn a_pack_with_something_needed_that_is_damaged_stays() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..20);
    store.sync().unwrap();
    let mut bytes = fs::read(world.pack(0)).unwrap();
    bytes[100] ^= 1;
    fs::write(world.pack(0), bytes).unwrap();
    assert_eq!(collect(&store, &chunks[..3]).damaged_packs, 1);
    assert!(world.pack(0).exists());
    assert_there(&store, &chunks[1..3]);
}

#[test]
fn a_check_of_what_is_whole_finds_nothing() {
    let world = World::new();
    let store = world.open();
    put(&store, 0..20);
    let mut seen = Vec::new();
    let found = store.check(true, |progress| seen.push(progress)).unwrap();
    assert_eq!(found, Check { chunks: 20, ..Check::default() });
    assert_eq!(seen.last(), Some(&Progress { packs_done: 1, packs: 1 }));
    assert_eq!(store.check(false, |_| {}).unwrap(), found);
}

#[test]
fn a_check_names_each_bit_that_flipped_and_the_chunk_can_be_put_again() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..3);
    store.sync().unwrap();
    drop(store);
    let whole = fs::read(world.pack(0)).unwrap();
    for at in (PACK_HEAD.len()..whole.len()).step_by(29) {
        let damaged = world.copy();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        fs::write(damaged.pack(0), &bytes).unwrap();
        let store = damaged.open();
        let found = store.check(true, |_| {}).unwrap();
        let hit = (at - PACK_HEAD.len()) / ((whole.len() - PACK_HEAD.len()) / 3);
        let lost = Fault::Chunk(chunks[hit].1.address);
        assert!(found.faults.contains(&lost), "byte {at}: {found:?}");
        let is_damage = |fault: &&Fault| matches!(fault, Fault::Bytes(PackId(0), ..));
        assert_eq!(found.faults.iter().filter(is_damage).count(), 1, "byte {at}");
        assert_eq!((found.fault_count, found.chunks), (2, 2), "byte {at}");
        assert_eq!(put(&store, 0..3), chunks);
        store.sync().unwrap();
        assert_there(&store, &chunks);
    }
}

#[test]
fn a_check_puts_an_index_right_that_forgot_or_that_is_broken() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..5);
    store.sync().unwrap();
    let gone = chunks[2].1.address;
    let forget = Change { gone: vec![gone], ..Change::default() };
    store.index.apply(&forget).unwrap();
    assert!(!store.has(&gone).unwrap());
    let found = store.check(true, |_| {}).unwrap();
    assert_eq!((found.faults, found.chunks), (vec![Fault::Unknown(gone)], 5));
    assert_there(&store, &chunks);
    let wrong = Place { pack: PackId(0), offset: 9, len: 400 };
    let lie = Change { chunks: vec![(gone, wrong)], ..Change::default() };
    store.index.apply(&lie).unwrap();
    let found = store.check(true, |_| {}).unwrap();
    assert_eq!(found.faults, [Fault::Chunk(gone), Fault::Unknown(gone)]);
    assert_there(&store, &chunks);
    drop(store);
    fs::remove_file(world.pack(0)).unwrap();
    let found = world.open().check(false, |_| {}).unwrap();
    assert!(found.faults.contains(&Fault::Pack(PackId(0))));
    assert_eq!(found.fault_count, 6);
}

#[test]
fn a_check_makes_an_index_again_of_which_a_reader_said_that_it_is_damaged() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..5);
    store.sync().unwrap();
    store.index.suspect().raise();
    let found = store.check(false, |_| {}).unwrap();
    assert_eq!((found.faults, found.chunks), (vec![Fault::Index], 5));
    assert_there(&store, &chunks);
    assert_eq!(store.check(true, |_| {}).unwrap().fault_count, 0);
}

#[test]
fn an_index_that_somebody_reads_as_it_was_is_not_taken_for_a_broken_one() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..5);
    store.sync().unwrap();
    store.index.write(|write| Ok(write.open_table(TREE).map(drop)?)).unwrap();
    let reader = store.index.read(|read| Ok(read.open_table(TREE)?)).unwrap();
    assert!(matches!(store.check(false, |_| {}), Err(StoreError::InUse)));
    assert_there(&store, &chunks);
    assert_eq!(reader.len().unwrap(), 0, "it goes on");
    drop(reader);
    assert_eq!(store.check(false, |_| {}).unwrap().fault_count, 0);
}
