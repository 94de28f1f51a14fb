//! What was taken in is read again, wherever one begins, and is cut as if its length had been known.

use std::convert::Infallible;
use std::fs;
use std::path::Path;

use gate_core::tree::op::CHUNK_BYTES_MAX;
use proptest::prelude::*;

use super::*;
use crate::cut::SINGLE_BYTES_MAX;
use crate::hash::Secret;
use crate::law;

struct World {
    home: tempfile::TempDir,
    vault: Vault,
}

impl World {
    fn new() -> World {
        let home = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(home.path(), &[7; 64]).unwrap());
        let keys = [2, 1].map(|n| ChunkKeys::of_epoch(&Secret::new([n; 32])));
        World { vault: Vault::new(store, keys.into()), home }
    }
}

/// Gives bytes in pieces of some length, as a pipe does.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(self.1);
        self.0.read(&mut out[..len])
    }
}

/// Bytes that look random and are always the same.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Files of all layouts, with zeros in them.
fn files() -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop_oneof![
        0..2000_usize,
        65_000..66_000_usize,
        Just(INLINE_BYTES_MAX),
        Just(SINGLE_BYTES_MAX as usize),
        100_000..600_000_usize,
    ];
    prop::collection::vec((any::<bool>(), 0..9_u64, lengths), 0..4).prop_map(|runs| {
        let runs = runs.into_iter().map(|(is_zeros, seed, len)| match is_zeros {
            true => vec![0; len],
            false => noise(seed, len),
        });
        runs.flatten().collect()
    })
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

fn body(stored: &Stored) -> Body {
    Body::of(&stored.content, stored.size, None)
}

#[test]
fn what_is_taken_in_is_cut_as_the_whole_and_read_from_anywhere() {
    let world = World::new();
    let pieces = prop_oneof![500..5000_usize, 5000..300_000_usize];
    let reads = prop::collection::vec((0.0..1.1_f64, 0..300_000_usize), 1..5);
    // Files of some hundred KiB tell as much in a few cases as small things in thousands.
    law::hold(40, &(files(), pieces, reads), |(file, piece, reads)| {
        let stored = world.vault.take_in(&mut Pieces(&file, piece)).unwrap();
        prop_assert_eq!(stored.size, file.len() as u64);
        check_content(&stored, &file);
        let body = body(&stored);
        for (at, len) in reads {
            let at = (at * file.len() as f64) as usize;
            let mut out = vec![9; len];
            let found = world.vault.read_at(&body, stored.size, at as u64, &mut out).unwrap();
            let expected = &file[at.min(file.len())..(at + len).min(file.len())];
            prop_assert_eq!(found, expected.len());
            prop_assert!(&out[..found] == expected);
            prop_assert!(out[found..].iter().all(|byte| *byte == 9), "no more is written");
        }
        let mut whole = Vec::new();
        let mut reader = world.vault.reader(body, stored.size);
        let mut out = vec![0; piece];
        while let len @ 1.. = reader.read(&mut out).unwrap() {
            whole.extend_from_slice(&out[..len]);
        }
        prop_assert!(whole == file);
        Ok(())
    });
}

fn check_content(stored: &Stored, file: &[u8]) {
    match &stored.content {
        Content::Inline(bytes) => {
            assert!(file.len() <= INLINE_BYTES_MAX);
            assert_eq!(bytes, file);
        }
        Content::Extents(extents) => {
            assert!(file.len() > INLINE_BYTES_MAX);
            let found: Vec<_> = extents.iter().map(|e| (e.offset, end(e) - e.offset)).collect();
            assert_eq!(found, cuts(file));
            let named = |extent: &Extent| stored.chunks.contains(&extent.chunk.address);
            assert!(extents.iter().all(named) && stored.chunks.len() <= extents.len());
        }
        Content::Patch { .. } => panic!("{stored:?}"),
    }
}

/// Makes all packs useless, whoever has them open.
fn spoil(store: &Path) {
    for pack in fs::read_dir(store.join("packs")).unwrap() {
        let pack = pack.unwrap().path();
        fs::write(&pack, vec![0; fs::metadata(&pack).unwrap().len() as usize]).unwrap();
    }
}

#[test]
fn who_reads_in_order_opens_each_chunk_once() {
    let world = World::new();
    let file = noise(1, 200_000);
    let stored = world.vault.take_in(&mut &file[..]).unwrap();
    let (first, ..) = cuts(&file)[1];
    let mut reader = world.vault.reader(body(&stored), stored.size);
    assert_eq!(reader.read(&mut [0]).unwrap(), 1);
    spoil(world.home.path());
    let mut rest = vec![0; first as usize - 1];
    reader.read_exact(&mut rest).unwrap();
    assert!(rest == file[1..first as usize]);
    reader.read(&mut [0]).unwrap_err();
}

#[test]
fn what_was_sealed_in_an_older_epoch_is_read_in_a_newer() {
    let World { vault, home: _home } = World::new();
    let older = Vault::new(Arc::clone(&vault.store), vault.epochs[1..].into());
    let file = noise(1, 5000);
    let stored = older.take_in(&mut &file[..]).unwrap();
    let mut whole = Vec::new();
    vault.reader(body(&stored), stored.size).read_to_end(&mut whole).unwrap();
    assert!(whole == file);
    let newer = vault.take_in(&mut &file[..]).unwrap();
    assert_ne!(newer.content, stored.content, "what is new is sealed by the newest");
    let mut out = [0; 1];
    older.read_at(&body(&newer), newer.size, 0, &mut out).unwrap_err();
}

#[test]
fn more_than_a_file_may_have_is_refused_but_zeros_may_go_on() {
    let World { vault, home: _home } = World::new();
    let too_many = (EXTENTS_MAX + 1) * CHUNK_BYTES_MAX as usize;
    let refused = vault.take_in(&mut &noise(1, too_many)[..]);
    let Err(refused @ TakeInError::TooLarge) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.to_string(), format!("a file has at most {EXTENTS_MAX} chunks"));
    let zeros = vault.take_in(&mut io::repeat(0).take(too_many as u64)).unwrap();
    assert_eq!((zeros.size, zeros.content), (too_many as u64, Content::Extents(Vec::new())));
}

#[test]
fn who_fails_to_give_bytes_is_told_from_a_store_that_fails() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let World { vault, home } = World::new();
    let failed = vault.take_in(&mut noise(1, 3000).chain(Broken));
    assert!(matches!(failed, Err(TakeInError::Read(_))), "{failed:?}");
    let stored = vault.take_in(&mut &noise(2, 3000)[..]).unwrap();
    spoil(home.path());
    let failed = vault.read_at(&body(&stored), stored.size, 0, &mut [0]);
    assert!(matches!(failed, Err(StoreError::Damaged(_))), "{failed:?}");
}
