//! Files that were cut off, flipped and made longer: what is whole is found, the rest is named.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

struct Log {
    path: PathBuf,
    offsets: Vec<u64>,
    _directory: tempfile::TempDir,
}

/// A file of frames that hold what is given.
fn log(payloads: &[&[u8]]) -> Log {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("entries");
    let mut frames = Frames::create(&path, Kind::ENTRIES).unwrap();
    let offsets = frames.append(payloads).unwrap();
    frames.sync().unwrap();
    Log { path, offsets, _directory: directory }
}

fn open(path: &Path) -> (Frames, Found, Vec<Vec<u8>>) {
    let mut held = Vec::new();
    let each = |_, payload: &[u8]| held.push(payload.to_vec());
    let (frames, found) = Frames::open(path, Kind::ENTRIES, each).unwrap();
    (frames, found, held)
}

#[test]
fn frames_are_found_again_in_their_order() {
    let Log { path, offsets, _directory } = &log(&[b"one", b"two"]);
    let (mut frames, found, held) = open(path);
    assert_eq!((held, found), (vec![b"one".to_vec(), b"two".to_vec()], Found::default()));
    assert_eq!(offsets[..], [8, 8 + 3 + 8]);
    assert_eq!(frames.read(offsets[1]).unwrap(), b"two");
    let third = frames.append(&[b"three"]).unwrap()[0];
    assert_eq!(frames.read(third).unwrap(), b"three");
    assert_eq!(open(path).2.len(), 3);
}

#[test]
fn a_tail_that_a_crash_cut_off_at_any_byte_is_taken_away() {
    let Log { path, offsets, _directory } = &log(&[b"first", b"second", &[7; 300]]);
    let whole = fs::read(path).unwrap();
    for len in HEAD_BYTES as usize..whole.len() {
        fs::write(path, &whole[..len]).unwrap();
        let (mut frames, found, held) = open(path);
        let ends = offsets.iter().skip(1).copied().chain([whole.len() as u64]);
        let expected = ends.filter(|end| *end <= len as u64).count();
        assert_eq!(held.len(), expected, "{len} bytes");
        assert_eq!(found.damage, []);
        let is_whole = offsets.contains(&(len as u64));
        assert_eq!(found.cut.is_none(), is_whole, "{len} bytes");
        frames.append(&[b"more"]).unwrap();
        let (_, found, held) = open(path);
        assert_eq!((held.len(), found), (expected + 1, Found::default()));
    }
}

#[test]
fn a_tail_that_was_made_longer_and_never_written_is_taken_away() {
    let Log { path, _directory, .. } = &log(&[b"first"]);
    let whole = fs::read(path).unwrap();
    for zeros in 1..64 {
        fs::write(path, [&whole[..], &vec![0; zeros]].concat()).unwrap();
        let (_, found, held) = open(path);
        assert_eq!((held.len(), found.damage.len()), (1, 0), "{zeros} zeros");
        assert_eq!(fs::read(path).unwrap(), whole);
    }
}

#[test]
fn damage_in_the_middle_is_named_and_the_rest_is_read() {
    let Log { path, offsets, _directory } = &log(&[b"first", b"second", b"third"]);
    let whole = fs::read(path).unwrap();
    let (from, to) = (offsets[1] as usize, offsets[2] as usize);
    for bit in 8 * from..8 * to {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(path, &flipped).unwrap();
        let (_, found, held) = open(path);
        assert_eq!(held, [b"first", b"third"], "bit {bit}");
        let gap = Gap { offset: offsets[1], bytes: offsets[2] - offsets[1] };
        assert_eq!(found, Found { cut: None, damage: vec![gap] }, "bit {bit}");
        assert_eq!(fs::read(path).unwrap(), flipped, "nothing is thrown away");
    }
}

#[test]
fn damage_of_the_last_frame_is_no_tail_that_a_crash_cut_off() {
    let Log { path, offsets, _directory } = &log(&[b"first", b"second"]);
    let mut bytes = fs::read(path).unwrap();
    bytes[offsets[1] as usize + 5] ^= 1;
    fs::write(path, &bytes).unwrap();
    let (mut frames, found, held) = open(path);
    assert_eq!((held.len(), found.cut, found.damage.len()), (1, None, 1));
    assert!(matches!(frames.read(offsets[1]), Err(FramesError::NoFrame(_))));
    frames.append(&[b"third"]).unwrap();
    assert_eq!(open(path).2, [b"first", b"third"]);
}

#[test]
fn n16_frames_of_another_version_are_refused_by_name() {
    let Log { path, _directory, .. } = &log(&[b"first"]);
    let mut bytes = fs::read(path).unwrap();
    bytes[6] = 2;
    fs::write(path, &bytes).unwrap();
    let error = Frames::open(path, Kind::ENTRIES, |_, _| {}).unwrap_err();
    assert!(matches!(error, FramesError::UnknownVersion(2)));
    assert!(error.to_string().contains("version 2"));
    assert_eq!(fs::read(path).unwrap(), bytes);
}

#[test]
fn another_file_is_left_as_it_is() {
    let Log { path, _directory, .. } = &log(&[b"first"]);
    let wrong = Frames::open(path, Kind::MEMBERS, |_, _| {});
    assert!(matches!(wrong, Err(FramesError::OtherFile)));
    for len in 0..HEAD_BYTES as usize {
        fs::write(path, &Kind::ENTRIES.head()[..len]).unwrap();
        let wrong = Frames::open(path, Kind::ENTRIES, |_, _| {});
        assert!(matches!(wrong, Err(FramesError::OtherFile)));
        assert_eq!(fs::read(path).unwrap().len(), len);
    }
}

#[test]
fn a_frame_holds_something_and_no_more_than_it_may() {
    let Log { path, _directory, .. } = &log(&[b"first"]);
    let before = fs::read(path).unwrap();
    let mut frames = open(path).0;
    let long = vec![1; Kind::ENTRIES.payload_bytes_max + 1];
    assert!(matches!(frames.append(&[b"fine", b""]), Err(FramesError::TooLong)));
    assert!(matches!(frames.append(&[b"fine", &long]), Err(FramesError::TooLong)));
    assert_eq!(fs::read(path).unwrap(), before, "none of them is there");
    frames.append(&[&long[1..]]).unwrap();
    assert_eq!(open(path).2.len(), 2);
}

#[test]
fn a_file_that_means_harm_is_judged_in_bounded_time() {
    let Log { path, _directory, .. } = &log(&[b"first"]);
    // Each place says that it is the beginning of half a MiB.
    let mut bytes = fs::read(path).unwrap();
    bytes.extend([0, 8].repeat(600 * 1024));
    fs::write(path, &bytes).unwrap();
    let (_, found, held) = open(path);
    assert_eq!((held.len(), found.cut, found.damage.len()), (1, None, 1));
    assert_eq!(fs::read(path).unwrap().len(), bytes.len());
}

proptest! {
    #[test]
    fn whatever_follows_the_head_is_read_or_named(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let Log { path, _directory, .. } = &log(&[b"first"]);
        let mut bytes = fs::read(path).unwrap();
        bytes.extend(&tail);
        fs::write(path, &bytes).unwrap();
        let (frames, found, held) = open(path);
        prop_assert_eq!(&held[0], b"first");
        let gaps = found.damage.iter().chain(&found.cut).map(|gap| gap.bytes).sum::<u64>();
        let frames_bytes = held.iter().map(|held| held.len() as u64 + OVERHEAD_BYTES).sum::<u64>();
        prop_assert_eq!(HEAD_BYTES + frames_bytes + gaps, bytes.len() as u64);
        let cut = found.cut.map_or(0, |cut| cut.bytes);
        prop_assert_eq!(frames.end() + cut, bytes.len() as u64);
    }
}
