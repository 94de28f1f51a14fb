//! What was written last is read, whatever was sealed, frozen and committed meanwhile; and little is cut anew.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use gate_core::tree::id::{EntryId, FeedId, OpId};
use gate_core::tree::op::{ChunkRef, Content};
use proptest::prelude::*;

use super::layer::RUN_BYTES_MAX;
use super::*;
use crate::cut::{BLOCK_BYTES, CUT_BYTES_MAX, CUT_BYTES_MEAN, OVERWRITES_MAX};
use crate::hash::Secret;
use crate::law;
use crate::seal::ChunkKeys;
use crate::store::Store;
use crate::vault::{Cache, EXTENTS_MAX};

struct World {
    _home: tempfile::TempDir,
    vault: Vault,
}

impl World {
    fn new() -> World {
        let home = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(home.path(), &[7; 64]).unwrap());
        let keys = [ChunkKeys::of_epoch(&Secret::new([1; 32]))];
        let vault = Vault::new(store, keys.into())
            .with_cache(Cache { bytes_max: 4 << 20, age_max: Duration::MAX });
        World { _home: home, vault }
    }

    /// Returns a version of these bytes, and its body.
    fn contents(&self, bytes: &[u8]) -> Contents {
        let stored = self.vault.take_in(&mut &bytes[..]).unwrap();
        Contents::of(stored.size, Body::of(&stored.content, stored.size, None))
    }
}

/// Bytes that look random and are always the same.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn op(number: u64) -> OpId {
    OpId { entry: EntryId { feed: FeedId([0; 32]), number }, place: 0 }
}

fn read(contents: &Contents, vault: &Vault) -> Vec<u8> {
    let mut bytes = vec![9; contents.size() as usize + 1];
    assert_eq!(contents.read_at(vault, 0, &mut bytes).unwrap() as u64, contents.size());
    assert_eq!(bytes.pop(), Some(9), "no more is written than there is");
    bytes
}

fn read_body(body: &Body, size: u64, vault: &Vault) -> Vec<u8> {
    let mut bytes = vec![9; size as usize];
    assert_eq!(vault.read_at(body, size, 0, &mut bytes).unwrap() as u64, size);
    bytes
}

/// Where `cut` cuts the whole, without what is zeros.
fn cuts(file: &[u8]) -> Vec<(u64, u64)> {
    let mut cuts = Vec::new();
    let read = |at: u64, out: &mut [u8]| {
        out.copy_from_slice(&file[at as usize..][..out.len()]);
        Ok::<_, Infallible>(())
    };
    let Ok(()) = cut::cut(file.len() as u64, read, |at, bytes| {
        if bytes.iter().any(|byte| *byte != 0) {
            cuts.push((at, bytes.len() as u64));
        }
        Ok(())
    });
    cuts
}

fn extents_of(body: &Body) -> Vec<(u64, u64)> {
    let Body::Extents(extents) = body else { panic!("{body:?}") };
    extents.iter().map(|extent| (extent.offset, extent.chunk.len.into())).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Write { at: f64, seed: u64, len: usize },
    WriteZeros { at: f64, len: usize },
    Zero { at: f64, len: u64 },
    SetSize(u64),
    Seal,
    Sealed,
    Freeze,
    Unfreeze,
    Commit,
}

const SIZE_MAX: u64 = 400_000;

fn step() -> impl Strategy<Value = Step> {
    let at = || 0.0..1.2_f64;
    let len = prop_oneof![1..10_usize, 1..10_000_usize, 1..150_000_usize];
    prop_oneof![
        8 => (at(), 0..9_u64, len).prop_map(|(at, seed, len)| Step::Write { at, seed, len }),
        1 => (at(), 1..200_000_usize).prop_map(|(at, len)| Step::WriteZeros { at, len }),
        2 => (at(), 1..200_000_u64).prop_map(|(at, len)| Step::Zero { at, len }),
        2 => (0..SIZE_MAX).prop_map(Step::SetSize),
        2 => Just(Step::Seal),
        2 => Just(Step::Sealed),
        3 => Just(Step::Freeze),
        1 => Just(Step::Unfreeze),
        3 => Just(Step::Commit),
    ]
}

/// Contents, and what they should be.
struct Pair<'a> {
    vault: &'a Vault,
    contents: Contents,
    plain: Vec<u8>,
    /// What is being sealed, and what is left of what was sealed before.
    sealing: VecDeque<Stretch>,
    tail: Tail,
    /// What was frozen, and the bytes at that time.
    frozen: Option<(Frozen, Vec<u8>)>,
    committed: (Arc<Body>, u64, Option<(OpId, u32)>),
    number: u64,
}

impl<'a> Pair<'a> {
    fn new(world: &'a World, plain: Vec<u8>) -> Pair<'a> {
        let contents = world.contents(&plain);
        let committed = (Arc::clone(&contents.body), contents.body_size, Some((op(0), 0)));
        Pair {
            vault: &world.vault,
            contents,
            plain,
            sealing: VecDeque::new(),
            tail: Tail::default(),
            frozen: None,
            committed,
            number: 0,
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.contents.write(at, bytes).unwrap();
        let end = at as usize + bytes.len();
        self.plain.resize(self.plain.len().max(end), 0);
        self.plain[at as usize..end].copy_from_slice(bytes);
    }

    fn step(&mut self, step: &Step) {
        let place = |at: f64| ((self.plain.len() as f64 * at) as u64).min(SIZE_MAX);
        match step {
            Step::Write { at, seed, len } => self.write(place(*at), &noise(*seed, *len)),
            Step::WriteZeros { at, len } => self.write(place(*at), &vec![0; *len]),
            Step::Zero { at, len } => {
                let at = place(*at);
                self.contents.zero(at, *len);
                let to = ((at + len) as usize).min(self.plain.len());
                self.plain[(at as usize).min(to)..to].fill(0);
            }
            Step::SetSize(size) => {
                self.contents.set_size(*size).unwrap();
                self.plain.resize(*size as usize, 0);
            }
            Step::Seal => {
                let stretch = self.contents.begin_to_seal();
                if stretch.is_first() {
                    (self.sealing, self.tail) = Default::default();
                }
                self.sealing.push_back(stretch);
            }
            Step::Sealed => {
                if let Some(stretch) = self.sealing.pop_front() {
                    self.contents.sealed(stretch.cut(&mut self.tail).seal(self.vault).unwrap());
                }
            }
            Step::Freeze => {
                let frozen = self.contents.freeze();
                if self.frozen.is_none() {
                    self.frozen = frozen.map(|frozen| (frozen, self.plain.clone()));
                }
            }
            Step::Unfreeze => {
                self.contents.unfreeze();
                self.frozen = None;
            }
            Step::Commit => self.commit(),
        }
    }

    fn commit(&mut self) {
        let Some((frozen, bytes)) = self.frozen.take() else { return };
        let (former, _, of) = &self.committed;
        let version = frozen.version(self.vault, *of, None).unwrap();
        assert_eq!(version.size, bytes.len() as u64);
        let body = Body::of(&version.content, version.size, Some(former));
        assert_eq!(body, *version.body, "it is read from the entry as it was made");
        assert!(read_body(&body, version.size, self.vault) == bytes);
        let known: Vec<_> = former.chunks().map(|chunk| chunk.address).collect();
        let mut new: Vec<_> = body.chunks().map(|chunk| chunk.address).collect();
        new.retain(|address| !known.contains(address));
        new.sort_unstable();
        new.dedup();
        assert_eq!(version.chunks, new);
        self.number += 1;
        let of = Some((op(self.number), version.patches));
        self.committed = (Arc::clone(&version.body), version.size, of);
        self.contents.thaw(version.body, version.size);
    }

    fn check(&self) {
        assert_eq!(self.contents.size(), self.plain.len() as u64);
        assert!(read(&self.contents, self.vault) == self.plain);
        if let Some((frozen, bytes)) = &self.frozen {
            let mut found = vec![9; bytes.len()];
            assert_eq!(frozen.read_at(self.vault, 0, &mut found).unwrap(), bytes.len());
            assert!(found == *bytes, "a snapshot stays what it was");
        }
        self.check_seeks();
    }

    /// Data and holes take turns, and where a hole is are zeros.
    fn check_seeks(&self) {
        let (contents, size) = (&self.contents, self.contents.size());
        let mut at = 0;
        while at < size {
            let data = contents.seek_data(at);
            let hole = data.unwrap_or(size);
            assert!(self.plain[at as usize..hole as usize].iter().all(|byte| *byte == 0));
            let Some(data) = data else { break };
            assert!(data == at || contents.seek_hole(at) == Some(at));
            at = contents.seek_hole(data).unwrap();
            assert!(at > data && at <= size);
        }
        assert_eq!((contents.seek_data(size), contents.seek_hole(size)), (None, None));
    }
}

fn files() -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop_oneof![0..2000_usize, 60_000..70_000_usize, 100_000..300_000_usize];
    (0..9_u64, lengths).prop_map(|(seed, len)| noise(seed + 20, len))
}

#[test]
fn contents_are_what_was_written_last_whatever_was_committed_meanwhile() {
    let world = World::new();
    law::hold(8, &(files(), prop::collection::vec(step(), 1..25)), |(file, steps)| {
        let mut pair = Pair::new(&world, file);
        for step in &steps {
            pair.step(step);
            pair.check();
        }
        pair.step(&Step::Freeze);
        pair.commit();
        pair.step(&Step::Freeze);
        pair.commit();
        prop_assert!(!pair.contents.is_dirty());
        prop_assert_eq!(pair.contents.bytes_held(), 0);
        pair.check();
        Ok(())
    });
}

/// Where nothing is a hole, how it was written shows nowhere.
#[test]
fn what_changed_cut_anew_is_the_whole_cut_anew() {
    let world = World::new();
    let step = prop_oneof![
        4 => (0.0..1.0_f64, 0..9_u64, prop_oneof![1..5000_usize, 1..150_000_usize])
            .prop_map(|(at, seed, len)| Step::Write { at, seed, len }),
        1 => (2_000..SIZE_MAX).prop_map(Step::SetSize),
    ];
    let versions = prop::collection::vec(prop::collection::vec(step, 1..4), 1..4);
    law::hold(8, &(files(), versions), |(file, versions)| {
        let mut pair = Pair::new(&world, file);
        for steps in versions {
            // What is as long as a block by chance is taken for one.
            let first = pair.contents.body.chunks().next();
            if first.is_some_and(|chunk| u64::from(chunk.len) == BLOCK_BYTES) {
                return Ok(());
            }
            for step in steps {
                match step {
                    Step::SetSize(size) if size > pair.contents.size() => {
                        let at = pair.contents.size();
                        pair.write(at, &noise(size, (size - at) as usize));
                    }
                    step => pair.step(&step),
                }
            }
            pair.step(&Step::Freeze);
            pair.commit();
            if let Body::Extents(_) = *pair.contents.body {
                prop_assert_eq!(extents_of(&pair.contents.body), cuts(&pair.plain));
            }
        }
        Ok(())
    });
}

/// Commits what was written, and returns the version.
fn commit(contents: &mut Contents, vault: &Vault, of: Option<(OpId, u32)>) -> Version {
    let version = contents.freeze().unwrap().version(vault, of, None).unwrap();
    contents.thaw(Arc::clone(&version.body), version.size);
    version
}

#[test]
fn a_small_change_of_a_large_file_costs_the_chunks_around_it() {
    let world = World::new();
    let vault = &world.vault;
    let mut file = noise(1, 2 << 20);
    let mut contents = world.contents(&file);
    let before = extents_of(&contents.body).len();
    for n in 0..16_usize {
        let at = n * (file.len() / 16) + 777;
        let bytes = noise(n as u64, 4096);
        contents.write(at as u64, &bytes).unwrap();
        file[at..at + 4096].copy_from_slice(&bytes);
        let version = commit(&mut contents, vault, Some((op(n as u64), n as u32)));
        let Content::Patch { of, zeros, extents } = &version.content else { panic!("{version:?}") };
        assert_eq!((*of, zeros.len(), version.patches), (op(n as u64), 0, n as u32 + 1));
        assert!(extents.len() <= 5 && extents.len() < before, "{extents:?}");
        assert_eq!(version.chunks.len(), extents.len());
    }
    assert!(read(&contents, vault) == file);
}

#[test]
fn cutting_off_and_appending_seal_the_end_alone() {
    let world = World::new();
    let file = noise(1, 1 << 20);
    let mut contents = world.contents(&file);
    contents.set_size(700_000).unwrap();
    let version = commit(&mut contents, &world.vault, Some((op(0), 0)));
    assert!(matches!(&version.content, Content::Patch { .. }), "{version:?}");
    assert!(version.chunks.len() <= 1, "{version:?}");
    contents.write(700_000, &noise(2, 10)).unwrap();
    let version = commit(&mut contents, &world.vault, Some((op(1), 1)));
    assert!(version.chunks.len() <= 2, "{version:?}");
    let expected = [&file[..700_000], &noise(2, 10)].concat();
    assert_eq!(extents_of(&version.body), cuts(&expected));
}

/// Has all sealed that lies around the newest write, if it is much.
fn seal_ahead(contents: &mut Contents, tail: &mut Tail, vault: &Vault) -> Ahead {
    if contents.unsealed() < SEAL_BYTES_DUE {
        return Ahead::default();
    }
    let stretch = contents.begin_to_seal();
    if stretch.is_first() {
        *tail = Tail::default();
    }
    contents.sealed(stretch.cut(tail).seal(vault).unwrap())
}

#[test]
fn who_writes_a_long_file_needs_little_memory_and_it_is_cut_as_the_whole() {
    let world = World::new();
    let file = noise(1, 3 << 20);
    let (mut contents, mut replayed) =
        (Contents::of(0, Body::default()), Contents::of(0, Body::default()));
    let (mut at, mut tail) = (0, Tail::default());
    for bytes in file.chunks(4096) {
        contents.write(at, bytes).unwrap();
        at += bytes.len() as u64;
        let ahead = seal_ahead(&mut contents, &mut tail, &world.vault);
        replayed.put(&ahead).unwrap();
        assert!(
            contents.bytes_held() as u64 <= SEAL_BYTES_DUE + 10_000,
            "{}",
            contents.bytes_held()
        );
    }
    assert!(read(&contents, &world.vault) == file);
    // What is not sealed is at the end, and is no more than the longest chunk and what a seal waits for.
    let tail = replayed.size() as usize;
    assert!(file.len() - tail <= SEAL_BYTES_DUE as usize);
    assert!(read(&replayed, &world.vault) == file[..tail]);
    let sealed = contents.chunks().count();
    let version = commit(&mut contents, &world.vault, None);
    assert_eq!(extents_of(&version.body), cuts(&file));
    assert!(version.chunks.len() > sealed && sealed > 20);
}

#[test]
fn zeros_among_many_bytes_are_no_chunks() {
    let world = World::new();
    let mut contents = world.contents(&noise(1, 1 << 20));
    contents.write(100, &vec![0; 1 << 20]).unwrap();
    let ahead = seal_ahead(&mut contents, &mut Tail::default(), &world.vault);
    assert_eq!(ahead.extents, []);
    assert!(!ahead.zeros.is_empty());
    let mut expected = noise(1, 100);
    expected.resize(100 + (1 << 20), 0);
    assert!(read(&contents, &world.vault) == expected);
    let version = commit(&mut contents, &world.vault, None);
    assert_eq!(extents_of(&version.body).len(), 1);
    assert!(read(&contents, &world.vault) == expected);
}

#[test]
fn small_writes_in_any_order_are_few_runs() {
    let vault = World::new().vault;
    let expected = noise(1, 512 * 1024);
    let piece = 1024;
    let places: Vec<usize> = (0..expected.len() / piece).collect();
    let backwards: Vec<usize> = places.iter().rev().copied().collect();
    let in_turns: Vec<usize> =
        (0..2).flat_map(|n| places.iter().skip(n).step_by(2).copied()).collect();
    for places in [places, backwards, in_turns] {
        let mut contents = Contents::of(0, Body::default());
        for n in places {
            contents.write((n * piece) as u64, &expected[n * piece..][..piece]).unwrap();
        }
        assert!(read(&contents, &vault) == expected);
        let runs_max = 2 * expected.len() / RUN_BYTES_MAX + 2;
        let held = expected.len() + runs_max * layer::RUN_COSTS;
        assert!(contents.bytes_held() <= held, "{}", contents.bytes_held());
    }
}

#[test]
fn a_file_that_is_overwritten_again_and_again_is_kept_in_blocks() {
    let world = World::new();
    let mut file = noise(1, 1 << 20);
    let mut contents = world.contents(&file);
    let mut patches = 0;
    for n in 0..3 * u64::from(OVERWRITES_MAX) {
        let at = 100_000 + n % 7 * 130_000;
        let bytes = noise(n, 4096);
        contents.write(at, &bytes).unwrap();
        file[at as usize..][..4096].copy_from_slice(&bytes);
        let version = commit(&mut contents, &world.vault, Some((op(n), patches)));
        let is_whole = patches == PATCHES_MAX;
        assert_eq!(version.patches, if is_whole { 0 } else { patches + 1 });
        assert_eq!(matches!(version.content, Content::Extents(_)), is_whole);
        patches = version.patches;
        if n >= u64::from(OVERWRITES_MAX) {
            assert_eq!(version.chunks.len(), 1, "{n}: one block, and nothing around it");
            let Body::Extents(extents) = &*version.body else { panic!("{version:?}") };
            let block = extents.iter().find(|extent| extent.chunk.address == version.chunks[0]);
            let block = block.unwrap();
            assert_eq!(block.offset, at / BLOCK_BYTES * BLOCK_BYTES);
            assert_eq!(u64::from(block.chunk.len), BLOCK_BYTES);
        }
    }
    assert!(read(&contents, &world.vault) == file);
    // What is written from the start is no file in blocks any more.
    contents.set_size(0).unwrap();
    contents.write(0, &file).unwrap();
    let version = commit(&mut contents, &world.vault, Some((op(0), 0)));
    assert_eq!(extents_of(&version.body), cuts(&file));
}

#[test]
fn a_hole_of_any_length_costs_nothing() {
    let world = World::new();
    let mut contents = Contents::of(0, Body::default());
    let far = 1 << 50;
    contents.write(far, b"x").unwrap();
    contents.write(10, b"y").unwrap();
    assert_eq!((contents.seek_data(0), contents.seek_hole(10)), (Some(10), Some(11)));
    assert_eq!((contents.seek_data(11), contents.seek_hole(far)), (Some(far), Some(far + 1)));
    let version = commit(&mut contents, &world.vault, None);
    assert_eq!(version.chunks.len(), 2);
    // What is short before it is cut with it, what is long is not.
    assert_eq!(extents_of(&version.body), [(0, 11), (far, 1)]);
    contents.zero(0, far);
    let version = commit(&mut contents, &world.vault, Some((op(0), 0)));
    assert_eq!((version.size, version.chunks.len()), (far + 1, 0));
    assert_eq!(contents.seek_data(0), Some(far));
    let mut byte = [0; 2];
    assert_eq!(contents.read_at(&world.vault, far, &mut byte).unwrap(), 1);
    assert_eq!(byte, *b"x\0");
}

#[test]
fn what_is_too_large_is_refused_and_changes_nothing() {
    let world = World::new();
    let mut contents = world.contents(b"abc");
    assert_eq!(contents.write(FILE_BYTES_MAX, b"x"), Err(TooLarge));
    assert_eq!(contents.write(u64::MAX, b"x"), Err(TooLarge));
    assert_eq!(contents.set_size(FILE_BYTES_MAX + 1), Err(TooLarge));
    let strange = Span { offset: u64::MAX, len: 2 };
    let ahead = Ahead { zeros: vec![strange], ..Ahead::default() };
    assert_eq!(contents.put(&ahead), Err(TooLarge));
    assert!(!contents.is_dirty() && contents.size() == 3);
    let much = noise(1, EXTENTS_MAX * CUT_BYTES_MAX);
    assert_eq!(contents.write(0, &much), Err(TooLarge));
    assert!(!contents.is_dirty() && contents.size() == 3);
}

/// Else it could never be put into an entry.
#[test]
fn what_is_not_refused_becomes_a_version() {
    let world = World::new();
    let mut contents = Contents::of(0, Body::default());
    let file = noise(1, EXTENTS_MAX * CUT_BYTES_MEAN * 2);
    let (mut at, mut chunks, mut tail) = (0, 0, Tail::default());
    // Once it was refused, a version makes room: what is not sealed is counted for more than it is.
    for _ in 0..2 {
        while contents.write(at, &file[at as usize..][..32 * 1024]).is_ok() {
            at += 32 * 1024;
            seal_ahead(&mut contents, &mut tail, &world.vault);
        }
        let version = commit(&mut contents, &world.vault, None);
        assert!(extents_of(&version.body).len() > chunks);
        chunks = extents_of(&version.body).len();
    }
    assert!(chunks > EXTENTS_MAX * 2 / 3, "{chunks}");
    assert!(read(&contents, &world.vault) == file[..at as usize]);
    // In place there is room for as much as there is, a piece at a time.
    contents.write(0, &file[at as usize..][..4096]).unwrap();
    contents.zero(0, at);
    contents.write(0, &file[..500_000]).unwrap();
    commit(&mut contents, &world.vault, None);
}

#[test]
fn a_version_that_fails_leaves_what_was_written() {
    let world = World::new();
    let file = noise(1, 100_000);
    let chunk = ChunkRef { address: Address([9; 32]), key: [9; 32], plain_len: 9, from: 0, len: 9 };
    let mut contents = Contents::of(9, Body::Extents(vec![Extent { offset: 0, chunk }]));
    contents.write(9, &file).unwrap();
    contents.freeze().unwrap().version(&world.vault, None, None).unwrap_err();
    contents.unfreeze();
    let mut rest = vec![0; file.len()];
    assert_eq!(contents.read_at(&world.vault, 9, &mut rest).unwrap(), file.len());
    assert!(rest == file);
    let missing = contents.read_at(&world.vault, 0, &mut [0]);
    assert!(matches!(missing, Err(StoreError::Missing(_))), "{missing:?}");
}

#[test]
fn what_was_cut_off_while_a_version_was_made_stays_cut_off() {
    let world = World::new();
    let file = noise(1, 3000);
    for is_committed in [true, false] {
        let mut contents = world.contents(&file);
        contents.write(1000, &noise(2, 1000)).unwrap();
        let frozen = contents.freeze().unwrap();
        contents.set_size(100).unwrap();
        contents.set_size(3000).unwrap();
        contents.write(2900, b"end").unwrap();
        if is_committed {
            let version = frozen.version(&world.vault, None, None).unwrap();
            contents.thaw(version.body, version.size);
        } else {
            contents.unfreeze();
        }
        let mut expected = file[..100].to_vec();
        expected.resize(3000, 0);
        expected[2900..2903].copy_from_slice(b"end");
        assert!(read(&contents, &world.vault) == expected, "{is_committed}");
    }
}

#[test]
fn n12_contents_show_in_no_debug() {
    let world = World::new();
    let mut contents = world.contents(b"a secret text");
    contents.write(3, b"another").unwrap();
    assert_eq!(format!("{contents:?}"), "contents of 13 bytes");
    let frozen = contents.freeze().unwrap();
    assert_eq!(format!("{frozen:?}"), "frozen contents of 13 bytes");
}
