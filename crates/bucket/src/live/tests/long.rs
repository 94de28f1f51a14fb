//! What is too long for one entry is a version once all of it has come, and nothing before that.

use std::path::Path;

use gate_core::tree::id::{EntryId, FileId};

use super::saves::{file_at, make, name, quiet, shown};
use super::*;
use crate::bucket::history::{Asked, Wanted};
use crate::contents::PATCHES_MAX;
use crate::draft::Meta;
use crate::parts::PART_EXTENTS_MAX;
use crate::vault::EXTENTS_MAX;

/// Between what is written are holes, so that each of it is a chunk.
const STEP: u64 = 70_000;
/// Three parts.
const CHUNKS: u64 = PART_EXTENTS_MAX as u64 * 5 / 2;

/// Writes as many chunks.
fn write(live: &Live, at: &str, chunks: u64, byte: u8) {
    let what = live.find(&Directory::root(), &name(at)).unwrap().unwrap();
    let open = live.open(&what, true).unwrap();
    for n in 0..chunks {
        open.write_at(n * STEP, &[byte, n as u8, 7], None).unwrap();
    }
}

fn long(chunks: u64, byte: u8) -> Vec<u8> {
    let mut bytes = vec![0; ((chunks - 1) * STEP) as usize + 3];
    for n in 0..chunks {
        bytes[(n * STEP) as usize..][..3].copy_from_slice(&[byte, n as u8, 7]);
    }
    bytes
}

/// Where each entry begins, and the end.
fn entries(bucket: &Path) -> Vec<u64> {
    let bytes = fs::read(bucket.join("entries")).unwrap();
    let mut at = 8;
    let mut all = vec![at as u64];
    while at < bytes.len() {
        at += 8 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        all.push(at as u64);
    }
    all
}

fn cut_entries(bucket: &Path, to: u64) {
    fs::File::options().write(true).open(bucket.join("entries")).unwrap().set_len(to).unwrap();
}

/// A file that is `old`, and in a second version in parts; returns how many entries there were before that.
fn written_twice() -> (World, usize) {
    let world = quiet();
    let live = world.live();
    make(live, "f", b"old");
    live.settle().unwrap();
    let before = entries(&world.bucket).len() - 1;
    write(live, "f", CHUNKS, 1);
    live.settle().unwrap();
    (world, before)
}

#[test]
fn n13_a_long_version_is_whole_or_not_there_wherever_a_crash_comes() {
    let (mut world, before) = written_twice();
    let expected = long(CHUNKS, 1);
    assert_eq!(shown(world.live())["f"], expected);
    let at = entries(&world.bucket);
    assert_eq!(at.len() - 1 - before, 3, "it has three parts");
    let whole = world.home.path().join("whole");
    copy(&world.bucket, &whole);
    for (crash, end) in at[before..].iter().enumerate() {
        let left = world.home.path().join(format!("left {crash}"));
        copy(&whole, &left);
        cut_entries(&left, *end);
        // Who has the entries alone, as another device has, sees what there was, or all.
        let bare = world.home.path().join(format!("bare {crash}"));
        copy(&left, &bare);
        fs::remove_file(bare.join("dirty")).unwrap();
        world.bucket = bare;
        world.reopen();
        let is_all = *end == at[at.len() - 1];
        let seen = if is_all { expected.clone() } else { b"old".to_vec() };
        assert!(shown(world.live()) == BTreeMap::from([("f".to_owned(), seen)]), "{crash}");
        // The log tells all that was closed, also when there is a second crash before anything came of that.
        for again in 0..2 {
            world.bucket = left.clone();
            world.reopen();
            assert!(shown(world.live())["f"] == expected, "{crash} {again}");
            world.live = None;
            cut_entries(&left, *end);
        }
    }
}

#[test]
fn what_was_left_of_a_long_version_is_needed_by_nobody() {
    let (mut world, before) = written_twice();
    let at = entries(&world.bucket);
    world.live = None;
    fs::remove_file(world.bucket.join("dirty")).unwrap();
    let mut bucket = Bucket::open(&world.bucket, &world.device).unwrap();
    assert_eq!(bucket.marks().unwrap().len(), CHUNKS as usize);
    // A version that is given up between the parts needs none of it; the one after needs all.
    let parts: Vec<_> = bucket.frontier().iter().collect();
    let (feed, count) = parts[0];
    for number in before as u64..count {
        let entry = EntryId { feed, number };
        let version = bucket.version_of(entry).unwrap();
        bucket.forget_before(&version).unwrap();
        assert_eq!(bucket.marks().unwrap().len(), CHUNKS as usize, "{number}");
    }
    drop(bucket);
    fs::remove_file(world.bucket.join("kept")).unwrap();
    // The last never came.
    cut_entries(&world.bucket, at[at.len() - 2]);
    let mut bucket = Bucket::open(&world.bucket, &world.device).unwrap();
    assert_eq!(bucket.marks().unwrap().len(), 0);
    assert_eq!(bucket.lost().unwrap(), []);
    let version = bucket.version(&Wanted::Newest).unwrap();
    bucket.forget_before(&version).unwrap();
    assert_eq!(bucket.marks().unwrap().len(), 0);
}

/// What comes may be on its way.
#[test]
fn a_part_at_the_end_of_a_feed_is_waited_for() {
    let mut world = quiet();
    make(world.live(), "f", b"old");
    world.live = None;
    let mut bucket = Bucket::open(&world.bucket, &world.device).unwrap();
    let mut put = |bytes: &[u8]| {
        let stored = bucket.vault().unwrap().take_in(&mut &bytes[..]).unwrap();
        let nobodys = FileId::of_file([9; 16]);
        let op = crate::parts::write(nobodys, stored.size, stored.content);
        bucket.commit(&[op], stored.chunks, 1).unwrap();
        bucket.marks().unwrap().len()
    };
    assert_eq!(put(&[1; 5000]), 1);
    assert_eq!(put(&[2; 6000]), 1, "the first went on with something else");
    drop(bucket);
    let mut bucket = Bucket::open(&world.bucket, &world.device).unwrap();
    assert_eq!(bucket.marks().unwrap().len(), 0, "who made it is gone");
}

#[test]
fn the_past_tells_a_long_version_once_and_leads_back_to_it() {
    let (world, _) = written_twice();
    let live = world.live();
    make(live, "g", b"other");
    live.settle().unwrap();
    let mut lent = live.lock().unwrap();
    let lens = lent.lens();
    let told = lent.told(&Asked { most: 9, ..Asked::default() }, &lens).unwrap();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|told| told.deeds.len() == 1), "{told:?}");
    let versions: Vec<_> =
        (0..3).map(|n| lent.version(&Wanted::Back(n)).unwrap().entry.unwrap()).collect();
    assert_eq!(versions, told.iter().map(|told| told.id).collect::<Vec<_>>());
    let undone = lent.undoing(told[1].id).unwrap();
    lent.commit(&undone, Vec::new(), 1).unwrap();
    let then = lent.version_of(told[1].id).unwrap();
    drop(lent);
    assert_eq!(shown(live)["f"], b"old");
    // There and back is one patch, however often.
    for _ in 0..3 {
        let mut lent = live.lock().unwrap();
        let ops = lent.restoring(&[name("f")], &then, &lens).unwrap();
        lent.commit(&ops, Vec::new(), 1).unwrap();
        let newest = lent.version(&Wanted::Back(0)).unwrap().entry.unwrap();
        drop(lent);
        assert!(shown(live)["f"] == long(CHUNKS, 1));
        assert_eq!(patches(live), 3);
        let mut lent = live.lock().unwrap();
        let ops = lent.undoing(newest).unwrap();
        lent.commit(&ops, Vec::new(), 1).unwrap();
    }
}

/// Of how many patches `f` is made.
fn patches(live: &Live) -> u32 {
    let file = file_at(live, "f");
    let whole = live.inner.look(|pending| {
        let (id, _) = pending.draft.file(file)?.winner().map(|(id, head)| (*id, *head)).unwrap();
        Ok(pending.draft.tree().whole(id)?.unwrap())
    });
    whole.unwrap().patches
}

#[test]
fn a_long_file_that_is_changed_again_and_again_is_told_in_little() {
    let mut world = quiet();
    make(world.live(), "f", b"");
    write(world.live(), "f", CHUNKS, 1);
    world.live().settle().unwrap();
    let mut expected = long(CHUNKS, 1);
    let first = fs::metadata(world.bucket.join("entries")).unwrap().len();
    let changes = 3 * u64::from(PATCHES_MAX);
    for n in 0..changes {
        let at = n % 5 * STEP;
        let what = world.live().find(&Directory::root(), &name("f")).unwrap().unwrap();
        let open = world.live().open(&what, true).unwrap();
        open.write_at(at, &[n as u8; 9], None).unwrap();
        expected[at as usize..][..9].copy_from_slice(&[n as u8; 9]);
        drop(open);
        world.live().settle().unwrap();
        assert!(patches(world.live()) <= PATCHES_MAX + 3, "{n}");
        if n == changes / 2 {
            world.reopen();
        }
    }
    let bytes = fs::metadata(world.bucket.join("entries")).unwrap().len() - first;
    let each = bytes / changes;
    assert!(each < 1_000, "{each} bytes for each change");
    assert!(shown(world.live())["f"] == expected);
}

#[test]
fn more_than_a_file_may_have_is_refused_and_all_before_it_is_kept() {
    let mut world = quiet();
    make(world.live(), "f", b"");
    let what = world.live().find(&Directory::root(), &name("f")).unwrap().unwrap();
    let open = world.live().open(&what, true).unwrap();
    let mut chunks = 0;
    let refused = loop {
        match open.write_at(chunks * STEP, &[1, chunks as u8, 7], None) {
            Ok(()) => chunks += 1,
            Err(error) => break error,
        }
        // What is in a version is counted as what it is.
        if chunks % 32 == 0 {
            open.flush().unwrap();
            world.live().inner.cut(cutter::Also::All).unwrap();
        }
    };
    assert!(matches!(refused, DraftError::TooLarge), "{refused:?}");
    assert!(chunks > EXTENTS_MAX as u64 * 3 / 4, "{chunks}");
    drop(open);
    world.live().settle().unwrap();
    assert!(shown(world.live())["f"] == long(chunks, 1));
    world.reopen();
    assert!(shown(world.live())["f"] == long(chunks, 1));
}

#[test]
fn what_is_put_by_path_may_be_long_twice_in_one_change() {
    let mut world = quiet();
    world.live = None;
    let mut bucket = Bucket::open(&world.bucket, &world.device).unwrap();
    let vault = bucket.vault().unwrap();
    let path = |at: &str| TreePath::try_from(at.as_bytes()).unwrap();
    let texts = [1, 2, 3].map(|byte| noise(byte, 80 * 64 * 1024));
    let stored = texts.each_ref().map(|text| vault.take_in(&mut &text[..]).unwrap());
    let meta = Meta { mode: 0o644, modified: Stamp::default() };
    let put = bucket.change::<_, DraftError>(1, |draft| {
        draft.put(&path("a"), &stored[0], meta)?;
        draft.put(&path("a"), &stored[1], meta)?;
        draft.put(&path("b"), &stored[2], meta)?;
        draft.put(&path("c"), &stored[0], meta)?;
        draft.rename(&path("b"), &path("c"))
    });
    let (entry, ()) = put.unwrap();
    assert!(entry.unwrap().number > 4, "parts are entries");
    let root = bucket.read(|tree| tree.root()).unwrap();
    let writes = bucket.at(&bucket.version_of(entry.unwrap()).unwrap()).unwrap();
    assert_eq!(writes.root().unwrap(), root);
    drop((bucket, vault));
    world.reopen();
    let all = shown(world.live());
    assert!(all["a"] == texts[1] && all["c"] == texts[2] && all.len() == 2);
    let file = file_at(world.live(), "a");
    let heads = world.live().inner.look(|pending| pending.draft.file(file)).unwrap().heads;
    assert_eq!(heads.len(), 1, "the second came in place of the first");
}

/// A chunk that is gone is told of with the file, not with a part that nobody knows.
#[test]
fn what_is_lost_of_a_long_version_is_named() {
    let (mut world, _) = written_twice();
    world.live = None;
    fs::remove_dir_all(world.bucket.join("packs")).unwrap();
    fs::create_dir(world.bucket.join("packs")).unwrap();
    fs::remove_file(world.bucket.join("index")).unwrap();
    let mut bucket = Bucket::open(&world.bucket, &world.device).unwrap();
    let lost = bucket.lost().unwrap();
    let newest = bucket.version(&Wanted::Back(0)).unwrap().entry.unwrap();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!((&lost[0].path[..], Some(lost[0].entry)), (&[name("f")][..], bucket.hash(newest)));
}

/// A patch names what it is of among those in whose place it comes, and nothing else that is not the file's.
#[test]
fn a_save_by_rename_may_be_long() {
    let mut world = quiet();
    let live = world.live();
    make(live, "f", b"old");
    live.settle().unwrap();
    let file = file_at(live, "f");
    make(live, "tmp", b"");
    write(live, "tmp", CHUNKS, 3);
    let root = Directory::root();
    let saved = live.rename((&root, &name("tmp")), (&root, &name("f")), IfThere::Succeed, ME);
    saved.unwrap().unwrap();
    live.settle().unwrap();
    assert!(shown(live) == BTreeMap::from([("f".to_owned(), long(CHUNKS, 3))]));
    assert_eq!(file_at(live, "f"), file);
    world.crash();
    assert!(shown(world.live()) == BTreeMap::from([("f".to_owned(), long(CHUNKS, 3))]));
}

/// What is done to a long file.
#[derive(Clone, Debug)]
enum Deed {
    /// Writes to so many places from one on.
    Write(u64, u64, u8),
    SetSize(u64),
    Settle,
    Reopen,
    Crash,
}

fn deed() -> impl Strategy<Value = Deed> {
    let places = EXTENTS_MAX as u64 * 3 / 4;
    let write = (0..places, 1..places, any::<u8>());
    prop_oneof![
        4 => write.prop_map(move |(at, count, byte)| Deed::Write(at, count.min(places - at), byte)),
        1 => (0..places).prop_map(|at| Deed::SetSize(at * STEP + 1)),
        3 => Just(Deed::Settle),
        1 => Just(Deed::Reopen),
        1 => Just(Deed::Crash),
    ]
}

#[test]
fn a_long_file_is_what_was_written_whatever_came_between() {
    // Each makes a bucket, and reads megabytes after every deed.
    law::hold(64, &proptest::collection::vec(deed(), 1..12), |deeds| {
        let mut world = quiet();
        make(world.live(), "f", b"");
        let mut expected = Vec::new();
        for deed in deeds {
            let open = || {
                let what = world.live().find(&Directory::root(), &name("f")).unwrap().unwrap();
                world.live().open(&what, true).unwrap()
            };
            match deed {
                Deed::Write(at, count, byte) => {
                    let open = open();
                    for n in at..at + count {
                        let (place, bytes) = (n * STEP, [byte, n as u8, 7]);
                        open.write_at(place, &bytes, None).unwrap();
                        let end = place as usize + bytes.len();
                        expected.resize(expected.len().max(end), 0);
                        expected[place as usize..end].copy_from_slice(&bytes);
                    }
                }
                Deed::SetSize(size) => {
                    open().set_size(size, None).unwrap();
                    expected.resize(size as usize, 0);
                }
                Deed::Settle => world.live().settle().unwrap(),
                Deed::Reopen => world.reopen(),
                Deed::Crash => world.crash(),
            }
            prop_assert!(shown(world.live())["f"] == expected);
        }
        world.reopen();
        prop_assert!(shown(world.live())["f"] == expected);
        let index = world.bucket.join("index");
        world.live = None;
        fs::remove_file(index).unwrap();
        world.reopen();
        prop_assert!(shown(world.live())["f"] == expected, "it follows from the entries alone");
        Ok(())
    });
}

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}
