//! What was synced is there after anything, and what is damaged is said to be.

mod upkeep;

use std::collections::BTreeSet;

use super::*;
use crate::hash::Secret;

const KEY: [u8; 64] = [5; 64];
const SMALL: usize = 300;

fn keys() -> ChunkKeys {
    ChunkKeys::of_epoch(&Secret::new([1; 32]))
}

/// Bytes that zstd makes no smaller.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        World { dir: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Store {
        Store::open(self.dir.path(), &KEY).unwrap()
    }

    /// Copies what a crash would leave.
    fn copy(&self) -> World {
        let copy = World::new();
        fs::create_dir_all(copy.dir.path().join("packs")).unwrap();
        let index = self.dir.path().join("index");
        if index.exists() {
            fs::copy(index, copy.dir.path().join("index")).unwrap();
        }
        for entry in fs::read_dir(self.dir.path().join("packs")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap();
            fs::copy(&path, copy.dir.path().join("packs").join(name)).unwrap();
        }
        copy
    }

    fn pack(&self, id: u32) -> PathBuf {
        PackId(id).path(&self.dir.path().join("packs"))
    }

    fn index(&self) -> PathBuf {
        self.dir.path().join("index")
    }
}

fn put(store: &Store, seeds: std::ops::Range<u32>) -> Vec<(u32, ChunkRef)> {
    seeds.map(|seed| (seed, store.put(&keys(), &noise(seed, SMALL)).unwrap())).collect()
}

fn assert_there(store: &Store, chunks: &[(u32, ChunkRef)]) {
    for (seed, chunk) in chunks {
        assert_eq!(store.get([&keys()], chunk).unwrap(), noise(*seed, SMALL), "{seed}");
    }
}

impl Store {
    /// Lets packs have so many bytes more, and then none.
    pub(crate) fn leave_room(&self, bytes: Option<u64>) {
        self.lock_writer().room = bytes;
    }
}

#[test]
fn what_was_put_is_there_before_and_after_it_is_synced_and_opened_again() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..20);
    assert_there(&store, &chunks);
    store.sync().unwrap();
    assert_there(&store, &chunks);
    drop(store);
    let store = world.open();
    assert!(!store.was_made_again());
    assert_there(&store, &chunks);
    let part = ChunkRef { from: 10, len: 20, ..chunks[0].1 };
    assert_eq!(store.get([&keys()], &part).unwrap(), noise(0, SMALL)[10..30]);
    let beyond = ChunkRef { from: u32::MAX, len: 2, ..chunks[0].1 };
    assert!(matches!(store.get([&keys()], &beyond), Err(StoreError::Refused(_))));
}

#[test]
fn the_same_bytes_are_stored_once() {
    let world = World::new();
    let store = world.open();
    let first = put(&store, 0..5);
    let len = || fs::metadata(world.pack(0)).unwrap().len();
    let len_before = len();
    assert_eq!(put(&store, 0..5), first);
    store.sync().unwrap();
    assert_eq!(put(&store, 0..5), first);
    drop(store);
    let store = world.open();
    assert_eq!(put(&store, 0..5), first);
    store.sync().unwrap();
    assert_eq!(len(), len_before);
}

/// N14: whoever fills packs waits for none of them, and a sync does for all.
#[test]
fn n14_packs_that_fill_up_before_a_sync_are_in_it_and_found_without() {
    let world = World::new();
    let store = world.open();
    let large = |seed| noise(seed, 250_000);
    let put = |seed| (seed, store.put(&keys(), &large(seed)).unwrap());
    let chunks: Vec<_> = (0..22).map(put).collect();
    let check = |store: &Store| {
        for (seed, chunk) in &chunks {
            assert_eq!(store.get([&keys()], chunk).unwrap(), large(*seed), "{seed}");
        }
    };
    let ends = |store: &Store| store.index.packs().unwrap().0;
    check(&store);
    let known = ends(&store).len();
    assert!(known < 6 && world.pack(5).exists(), "some are in no index yet: {known}");
    check(&world.copy().open());
    store.sync().unwrap();
    assert_eq!(ends(&store).len(), 6);
    for (id, end) in ends(&store) {
        assert_eq!(end, fs::metadata(world.pack(id.0)).unwrap().len(), "{id:?}");
    }
    check(&world.copy().open());
}

#[test]
fn sealed_chunks_go_from_one_store_to_another() {
    let (here, there) = (World::new(), World::new());
    let (from, to) = (here.open(), there.open());
    let chunks = put(&from, 0..3);
    for (_, chunk) in &chunks {
        assert!(matches!(to.get_sealed(&chunk.address), Err(StoreError::Missing(_))));
        let sealed = from.get_sealed(&chunk.address).unwrap();
        to.put_sealed(&chunk.address, &sealed).unwrap();
        let mut wrong = sealed.clone();
        wrong[9] ^= 1;
        let refused = to.put_sealed(&chunk.address, &wrong).unwrap_err();
        assert!(matches!(refused, StoreError::NotThatChunk(_)));
    }
    assert_there(&to, &chunks);
    let long = vec![1; SEALED_BYTES_MAX + 1];
    assert!(to.put_sealed(&hash::address(&long), &long).is_err());
    let none = Store::open(there.dir.path(), &KEY).unwrap_err();
    assert!(matches!(none, StoreError::Busy));
}

/// N14: only what a sync returned for is stored, and that is there at whatever byte the crash came.
#[test]
fn n14_a_pack_cut_off_at_any_byte_has_all_that_was_synced() {
    let world = World::new();
    let store = world.open();
    let synced = put(&store, 0..3);
    store.sync().unwrap();
    let safe_len = fs::metadata(world.pack(0)).unwrap().len();
    let unsynced = put(&store, 3..5);
    let crashed = world.copy();
    drop(store);
    let whole = fs::read(crashed.pack(0)).unwrap();
    for len in (safe_len as usize..=whole.len()).step_by(7).chain([whole.len()]) {
        let again = crashed.copy();
        fs::write(again.pack(0), &whole[..len]).unwrap();
        let store = again.open();
        assert!(!store.was_made_again());
        assert_there(&store, &synced);
        let more = put(&store, 5..7);
        store.sync().unwrap();
        drop(store);
        let store = again.open();
        assert_there(&store, &[synced.clone(), more].concat());
        let kept: Vec<_> = unsynced
            .iter()
            .filter(|(_, chunk)| store.has(&chunk.address).unwrap())
            .copied()
            .collect();
        assert_there(&store, &kept);
        assert!(len < whole.len() || kept.len() == 2);
    }
}

#[test]
fn an_index_that_is_gone_or_older_than_the_packs_loses_nothing() {
    let world = World::new();
    let store = world.open();
    let mut chunks = put(&store, 0..5);
    store.sync().unwrap();
    let old_index = fs::read(world.index()).unwrap();
    chunks.extend(put(&store, 5..10));
    store.sync().unwrap();
    drop(store);
    let behind = world.copy();
    fs::write(behind.index(), old_index).unwrap();
    assert_there(&behind.open(), &chunks);
    fs::remove_file(world.index()).unwrap();
    let store = world.open();
    assert_there(&store, &chunks);
    assert_eq!(put(&store, 0..10), chunks, "who puts them again is told the same");
    drop(store);
    let error = Store::open(world.dir.path(), &[6; 64]).map(|store| store.was_made_again());
    assert!(error.unwrap(), "under another key the index is noise");
}

#[test]
fn an_index_that_was_changed_anywhere_hides_nothing_for_ever() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..40);
    store.sync().unwrap();
    drop(store);
    let whole = fs::read(world.index()).unwrap();
    let used: Vec<usize> = (0..whole.len())
        .step_by(256)
        .filter(|at| whole[at / 512 * 512..][..512] != [0; 512])
        .collect();
    let mut found_out = 0;
    for at in used.iter().step_by(used.len().div_ceil(60)) {
        let mut bytes = whole.clone();
        bytes[at + 33] ^= 0x10;
        let damaged = world.copy();
        fs::write(damaged.index(), &bytes).unwrap();
        let Ok(store) = Store::open(damaged.dir.path(), &KEY) else {
            panic!("an index is no reason not to open: byte {at}");
        };
        found_out += usize::from(store.was_made_again());
        for (seed, chunk) in &chunks {
            match store.get([&keys()], chunk) {
                Ok(plain) => assert_eq!(plain, noise(*seed, SMALL), "byte {at}"),
                Err(StoreError::Missing(_) | StoreError::Damaged(_)) => {}
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
        drop(store);
        fs::remove_file(damaged.index()).unwrap();
        assert_there(&damaged.open(), &chunks);
    }
    assert!(found_out > 0);
}

#[test]
fn a_damaged_chunk_is_named_and_the_others_are_read() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..4);
    store.sync().unwrap();
    drop(store);
    let whole = fs::read(world.pack(0)).unwrap();
    for at in (PACK_HEAD.len()..whole.len()).step_by(41) {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(world.pack(0), &bytes).unwrap();
        for has_index in [true, false] {
            let damaged = world.copy();
            if !has_index {
                fs::remove_file(damaged.index()).unwrap();
            }
            let store = damaged.open();
            let mut lost = BTreeSet::new();
            for (seed, chunk) in &chunks {
                match store.get([&keys()], chunk) {
                    Ok(plain) => assert_eq!(plain, noise(*seed, SMALL)),
                    Err(StoreError::Damaged(address) | StoreError::Missing(address)) => {
                        assert_eq!(address, chunk.address);
                        lost.insert(*seed);
                    }
                    Err(error) => panic!("byte {at}: {error}"),
                }
            }
            assert_eq!(lost.len(), 1, "byte {at}");
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_when_there_is_room_all_goes_on() {
    let world = World::new();
    let store = world.open();
    let stored = put(&store, 0..3);
    store.sync().unwrap();
    store.leave_room(Some(500));
    let more = put(&store, 3..4);
    let full = store.put(&keys(), &noise(4, SMALL)).unwrap_err();
    let StoreError::Io(error) = full else { panic!("{full}") };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    store.sync().unwrap();
    assert_there(&store, &[stored.clone(), more.clone()].concat());
    store.leave_room(None);
    let rest = put(&store, 4..6);
    store.sync().unwrap();
    drop(store);
    assert_there(&world.open(), &[stored, more, rest].concat());
}

/// After a sync that failed nobody knows what the disk has: it is all put again, elsewhere.
#[test]
fn what_a_failed_sync_left_in_doubt_is_put_again() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..3);
    store.lock_writer().is_doubtful = true;
    store.sync().unwrap();
    assert!(world.pack(1).exists());
    fs::remove_file(world.pack(0)).unwrap();
    drop(store);
    assert_there(&world.open(), &chunks);
}

#[test]
fn n16_a_pack_of_a_later_gate_stops_the_store_by_name() {
    let world = World::new();
    let store = world.open();
    put(&store, 0..1);
    store.sync().unwrap();
    drop(store);
    let mut bytes = fs::read(world.pack(0)).unwrap();
    bytes[6] = 2;
    fs::write(world.pack(0), bytes).unwrap();
    for _ in 0..2 {
        let error = Store::open(world.dir.path(), &KEY).unwrap_err();
        assert!(matches!(error, StoreError::UnknownVersion(PackId(0), 2)), "{error}");
        let _ = fs::remove_file(world.index());
    }
}

#[test]
fn many_threads_put_and_get_at_once() {
    let world = World::new();
    let store = world.open();
    std::thread::scope(|scope| {
        for n in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let chunks = put(store, n * 20..n * 20 + 60);
                store.sync().unwrap();
                assert_there(store, &chunks);
            });
        }
    });
    drop(store);
    let store = world.open();
    let chunks = put(&store, 0..120);
    assert_there(&store, &chunks);
}

#[test]
fn what_waits_for_a_sync_has_a_bound() {
    let world = World::new();
    let store = world.open();
    let chunks = put(&store, 0..PENDING_MAX as u32 + 40);
    assert_eq!(store.read_pending().chunks.len(), 40);
    // Others sealed them before, and this device learns of their twins alone.
    store.sync().unwrap();
    drop(store);
    fs::remove_file(world.index()).unwrap();
    let store = world.open();
    assert_eq!(put(&store, 0..PENDING_MAX as u32 + 40), chunks);
    assert_eq!(store.read_pending().chunks.len(), 0);
    assert_eq!(store.read_pending().twins.len(), 40);
    store.sync().unwrap();
    assert!(store.read_pending().twins.is_empty());
}

#[test]
fn n12_a_store_shows_no_key() {
    let world = World::new();
    let shown = format!("{:?} {:?}", world.open(), keys());
    assert!(!shown.contains("5, 5") && shown.starts_with("the store in /"), "{shown}");
}
