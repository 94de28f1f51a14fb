//! What was appended is read, as far as the file is whole, and nothing else ever is.

use std::borrow::Cow;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, LazyLock};
use std::thread;

use gate_core::tree::id::{EntryId, FeedId, FileId, LinkId, OpId};
use gate_core::tree::op::{Op, Span};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::*;
use crate::frames::HEAD_BYTES;
use crate::genesis::BucketId;
use crate::identity::Identity;

static KEYS: LazyLock<LocalKeys> = LazyLock::new(|| keys(1));

fn keys(seed: u8) -> LocalKeys {
    Identity::from_secrets(&[seed; 32], [2; 32]).local_keys(&BucketId([3; 32]))
}

fn file(n: u8) -> FileId {
    FileId::of_file([n; 16])
}

fn bytes(at: u64, bytes: &[u8]) -> Record<'_> {
    Record::Bytes { file: file(1), at, bytes: Cow::Borrowed(bytes) }
}

/// Begins an empty log in a directory of its own.
fn begin() -> (tempfile::TempDir, Log) {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::begin(dir.path(), &KEYS, |_| Ok(())).unwrap();
    (dir, log)
}

/// Returns what the frames of a log hold, and what comes after them.
fn read(dir: &Path) -> Result<(Vec<Vec<Record<'static>>>, Option<Gap>), LogError> {
    let mut all = Vec::new();
    let rest = Log::read(dir, &KEYS, |records| {
        all.push(records);
        ControlFlow::Continue(())
    })?;
    Ok((all, rest))
}

fn read_whole(dir: &Path) -> Vec<Vec<Record<'static>>> {
    let (all, rest) = read(dir).unwrap();
    assert_eq!(rest, None);
    all
}

/// Some records of all lengths, one append each.
fn some() -> Vec<Vec<Record<'static>>> {
    let base = vec![OpId { entry: EntryId { feed: FeedId([5; 32]), number: 6 }, place: 7 }];
    vec![
        vec![Record::Op(Op::Delete { link: LinkId::of_file([4; 16]) })],
        vec![
            Record::Begin { file: file(1), base, size: 300, fence: None },
            Record::Bytes { file: file(1), at: 4, bytes: Cow::Borrowed(b"hello") },
            Record::Size { file: file(1), size: 200 },
        ],
        vec![Record::Zeros { file: file(2), span: Span { offset: 1, len: 2 } }],
        vec![Record::Freeze { file: file(1) }, Record::Drop { file: file(2) }],
    ]
}

#[test]
fn what_was_appended_is_read_in_its_order() {
    let (dir, log) = begin();
    assert_eq!(read_whole(dir.path()), Vec::<Vec<_>>::new());
    for records in some() {
        log.append(&records).unwrap();
    }
    log.append(&[]).unwrap();
    assert_eq!(read_whole(dir.path()), some());
    assert_eq!(log.bytes(), fs::metadata(dir.path().join(NAME)).unwrap().len());
}

#[test]
fn where_no_log_is_none_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let never = |_: Vec<Record<'_>>| panic!("there is nothing");
    assert_eq!(Log::read(dir.path(), &KEYS, never).unwrap(), None);
}

#[test]
fn more_than_a_frame_holds_is_several() {
    let (dir, log) = begin();
    let many: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 100) as u8).collect();
    let small = vec![7; 400_000];
    log.append(&[bytes(5, &many), bytes(0, &small), bytes(0, &small), bytes(0, &small)]).unwrap();
    let frames = read_whole(dir.path());
    assert_eq!(frames.len(), 5, "three, and two for what is small");
    let mut found = Vec::new();
    for record in frames.iter().flatten() {
        let Record::Bytes { at, bytes, .. } = record else { panic!("{record:?}") };
        match *at {
            0 => assert_eq!(bytes.len(), small.len()),
            at => {
                assert_eq!(at, 5 + found.len() as u64);
                found.extend_from_slice(bytes);
            }
        }
    }
    assert!(found == many);
    let writes = vec![(file(1), 1); 100_000];
    let cut = Record::Cut { entry: EntryId { feed: FeedId([5; 32]), number: 6 }, ops: 0, writes };
    let before = log.bytes();
    assert!(matches!(log.append(&[cut]), Err(LogError::TooLong)));
    assert_eq!(log.bytes(), before);
}

#[test]
fn n8_what_was_synced_is_there_wherever_a_crash_cuts_the_log_off() {
    let (dir, log) = begin();
    let mut ends = Vec::new();
    for records in some() {
        log.append(&records).unwrap();
        log.sync().unwrap();
        ends.push(log.bytes());
    }
    let path = dir.path().join(NAME);
    let whole = fs::read(&path).unwrap();
    let count = |bytes: &[u8]| {
        ends.iter().filter(|end| bytes.starts_with(&whole[..**end as usize])).count()
    };
    for len in HEAD_BYTES..=whole.len() as u64 {
        fs::write(&path, &whole[..len as usize]).unwrap();
        let (found, rest) = read(dir.path()).unwrap();
        assert_eq!(found, some()[..count(&whole[..len as usize])], "{len} bytes");
        let end = found.len().checked_sub(1).map(|last| ends[last]);
        let gap = rest.map_or(len, |gap| {
            assert_eq!(gap.offset + gap.bytes, len);
            gap.offset
        });
        assert!(end.is_none_or(|end| gap == end), "{len} bytes: {rest:?}");
        // A file system may have made it longer, and written nothing there.
        let longer = [&whole[..len as usize], &[0; 100]].concat();
        fs::write(&path, &longer).unwrap();
        let (found, rest) = read(dir.path()).unwrap();
        assert_eq!(found, some()[..count(&longer)], "{len} bytes");
        assert!(rest.is_some());
    }
    for len in 0..HEAD_BYTES as usize {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(matches!(read(dir.path()), Err(LogError::OtherFile)));
    }
}

#[test]
fn every_flipped_bit_ends_the_log_where_it_is() {
    let (dir, log) = begin();
    let mut ends = vec![log.bytes()];
    for records in some() {
        log.append(&records).unwrap();
        ends.push(log.bytes());
    }
    let path = dir.path().join(NAME);
    let whole = fs::read(&path).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        match read(dir.path()) {
            Ok((found, rest)) => {
                let count = ends.iter().filter(|end| **end <= bit as u64 / 8).count();
                assert_eq!(found, some()[..count.saturating_sub(1)], "bit {bit}");
                let offset = if count == 0 { HEAD_BYTES } else { ends[count - 1] };
                assert_eq!(rest.map(|gap| gap.offset), Some(offset), "bit {bit}");
            }
            Err(LogError::UnknownVersion(_)) => assert_eq!(bit / 8, 6),
            Err(LogError::OtherFile) => assert!(bit / 8 < HEAD_BYTES as usize),
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
}

/// Each frame is sealed to its place, and no number comes twice.
#[test]
fn frames_that_were_moved_left_out_or_doubled_are_not_read() {
    let (dir, log) = begin();
    let mut ends = vec![log.bytes() as usize];
    for n in 0..3 {
        log.append(&[bytes(n, b"bytes of one length")]).unwrap();
        ends.push(log.bytes() as usize);
    }
    let path = dir.path().join(NAME);
    let whole = fs::read(&path).unwrap();
    let frame = |n: usize| &whole[ends[n]..ends[n + 1]];
    let head = &whole[..ends[0]];
    for (order, expected) in
        [(&[0, 1, 2][..], 3), (&[0, 2, 1], 1), (&[0, 2], 1), (&[1], 0), (&[0, 0], 1)]
    {
        let frames: Vec<u8> = order.iter().flat_map(|n| frame(*n)).copied().collect();
        fs::write(&path, [head, &frames].concat()).unwrap();
        assert_eq!(read(dir.path()).unwrap().0.len(), expected, "{order:?}");
    }
}

/// A disk may still have what could not be written whole, and was sealed to the same place as what came then.
#[test]
fn a_frame_that_was_never_appended_is_not_read_behind_a_later_one() {
    let (dir, log) = begin();
    let record = [bytes(0, b"some")];
    let mut given_up = record::payloads(&record, NUMBER_BYTES, PLAIN_BYTES_MAX).unwrap();
    let len = (given_up[0].len() + TAG_BYTES) as u64 + OVERHEAD_BYTES;
    let second = log.bytes() + len;
    log.lock_tail().seal(second, &mut given_up[0]);
    log.append(&record).unwrap();
    assert_eq!(log.bytes(), second);
    log.lock_tail().frames.append(&[&given_up[0]]).unwrap();
    let (found, rest) = read(dir.path()).unwrap();
    assert_eq!((found.len(), rest), (1, Some(Gap { offset: second, bytes: len })));
}

#[test]
fn n12_nothing_in_the_log_shows_what_was_written() {
    let (dir, log) = begin();
    let text = b"what nobody is to read";
    log.append(&[bytes(0, text), Record::Freeze { file: file(9) }]).unwrap();
    let raw = fs::read(dir.path().join(NAME)).unwrap();
    for secret in [&text[..8], &[1; 8], &[9; 8]] {
        assert!(!raw.windows(secret.len()).any(|bytes| bytes == secret));
    }
    assert_eq!(format!("{log:?}"), format!("a log of {} bytes", raw.len()));
    assert_eq!(format!("{:?}", bytes(4, text)), "22 bytes at 4 of file:010101010101");
    // Two logs of the same records have nothing in common but the head.
    let (other, log) = begin();
    log.append(&[bytes(0, text), Record::Freeze { file: file(9) }]).unwrap();
    let other = fs::read(other.path().join(NAME)).unwrap();
    assert_eq!(raw.len(), other.len());
    let common = raw.windows(8).filter(|bytes| other.windows(8).any(|other| other == *bytes));
    assert!(common.count() <= HEAD_BYTES as usize + 5);
}

#[test]
fn n12_who_has_another_key_reads_nothing() {
    let (dir, log) = begin();
    log.append(&some()[0]).unwrap();
    let never = |_: Vec<Record<'_>>| panic!("nothing opens");
    let rest = Log::read(dir.path(), &keys(2), never).unwrap();
    let salt_end = HEAD_BYTES + SALT_BYTES as u64 + OVERHEAD_BYTES;
    assert_eq!(rest.map(|gap| gap.offset), Some(salt_end));
}

#[test]
fn who_reads_may_end_it_before_what_he_does_not_believe() {
    let (dir, log) = begin();
    log.append(&some()[0]).unwrap();
    let end = log.bytes();
    log.append(&some()[1]).unwrap();
    log.append(&some()[2]).unwrap();
    let rest = Log::read(dir.path(), &KEYS, |records| match records.len() {
        1 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    assert_eq!(rest.unwrap(), Some(Gap { offset: end, bytes: log.bytes() - end }));
}

/// A gate that knows more records wrote it: to read on, or to begin anew, would lose what they tell.
#[test]
fn what_is_sealed_and_no_record_is_refused_by_name() {
    let (dir, log) = begin();
    log.append(&some()[0]).unwrap();
    let mut tail = log.lock_tail();
    let end = tail.frames.end();
    let mut payload = [&[0; NUMBER_BYTES][..], &[99, 1, 2]].concat();
    tail.seal(end, &mut payload);
    tail.frames.append(&[&payload]).unwrap();
    drop(tail);
    assert!(matches!(read(dir.path()), Err(LogError::Unreadable(at)) if at == end));
}

#[test]
fn n8_a_log_that_is_full_refuses_and_changes_nothing() {
    let (dir, mut log) = begin();
    log.append(&some()[0]).unwrap();
    log.bytes_max = log.bytes() + 300;
    let before = fs::read(dir.path().join(NAME)).unwrap();
    assert!(matches!(log.append(&[bytes(0, &[7; 300])]), Err(LogError::Full)));
    assert_eq!(fs::read(dir.path().join(NAME)).unwrap(), before);
    // What is less still goes in, and no number was used for two texts.
    log.append(&some()[1]).unwrap();
    assert_eq!(log.lock_tail().number, 4);
    assert_eq!(read_whole(dir.path()), some()[..2]);
}

#[test]
fn n8_a_log_that_cannot_be_written_refuses_and_changes_nothing() {
    let (_dir, log) = begin();
    // A file that nobody may make longer stands for a disk that is full.
    let full = memfd_create("log", MemfdFlags::ALLOW_SEALING).unwrap();
    let path = format!("/proc/self/fd/{}", full.as_raw_fd());
    fs::write(&path, fs::read(_dir.path().join(NAME)).unwrap()).unwrap();
    let (frames, _) = Frames::open(Path::new(&path), Kind::DIRTY, |_, _| {}).unwrap();
    fcntl_add_seals(&full, SealFlags::GROW).unwrap();
    log.lock_tail().frames = frames;
    let before = log.bytes();
    for _ in 0..2 {
        assert!(matches!(log.append(&some()[0]), Err(LogError::Io(_))));
        assert_eq!(log.bytes(), before);
    }
    assert_eq!(fs::read(&path).unwrap().len() as u64, before);
    assert_eq!(log.lock_tail().number, 3, "a number is used once, whatever became of its frame");
}

#[test]
fn n8_a_failed_sync_is_told_to_all_who_waited_for_it() {
    let (_dir, mut log) = begin();
    // Nobody can sync a pipe.
    let (pipe, _other): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
    log.file = pipe.into();
    log.append(&some()[0]).unwrap();
    // This test is the first who syncs, all others wait for it or come later.
    log.lock_syncs().is_running = true;
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| log.sync())).collect();
        let outcome = log.file.sync_data();
        log.told(outcome.is_ok().then_some(log.bytes()));
        for waiter in waiters {
            assert!(matches!(waiter.join().unwrap(), Err(LogError::Broken)));
        }
    });
    assert!(matches!(log.sync(), Err(LogError::Broken)));
    assert!(matches!(log.append(&some()[0]), Err(LogError::Broken)));
}

#[test]
fn who_syncs_is_told_that_it_failed() {
    let (_dir, mut log) = begin();
    log.sync().unwrap();
    let (pipe, _other): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
    log.file = pipe.into();
    log.sync().unwrap();
    log.append(&some()[0]).unwrap();
    assert!(matches!(log.sync(), Err(LogError::Io(_))));
    assert!(matches!(log.sync(), Err(LogError::Broken)));
}

#[test]
fn one_sync_is_for_all_who_appended_before_it() {
    let (_dir, log) = begin();
    let is_synced = AtomicBool::new(false);
    let appended = Barrier::new(5);
    log.lock_syncs().is_running = true;
    thread::scope(|scope| {
        for n in 0..4 {
            let (log, is_synced, appended) = (&log, &is_synced, &appended);
            scope.spawn(move || {
                log.append(&[bytes(n, b"x")]).unwrap();
                appended.wait();
                log.sync().unwrap();
                assert!(is_synced.load(Ordering::SeqCst), "nobody is told before it is so");
            });
        }
        appended.wait();
        log.file.sync_data().unwrap();
        is_synced.store(true, Ordering::SeqCst);
        log.told(Some(log.bytes()));
    });
    assert_eq!(log.lock_syncs().done, log.bytes());
}

#[test]
fn many_threads_append_and_sync_and_all_of_it_is_there() {
    let (dir, log) = begin();
    let (threads, each) = (8, 20);
    thread::scope(|scope| {
        for thread in 0..threads {
            let log = &log;
            scope.spawn(move || {
                for n in 0..each {
                    log.append(&[bytes(thread * each + n, &[7; 100]), bytes(0, b"")]).unwrap();
                    log.sync().unwrap();
                }
            });
        }
    });
    let mut places: Vec<u64> = read_whole(dir.path())
        .iter()
        .map(|records| match records[..] {
            [Record::Bytes { at, .. }, Record::Bytes { .. }] => at,
            _ => panic!("{records:?}"),
        })
        .collect();
    places.sort_unstable();
    assert_eq!(places, (0..threads * each).collect::<Vec<_>>());
}

#[test]
fn a_new_log_takes_the_place_of_the_one_before_whole_or_not_at_all() {
    let (dir, old) = begin();
    old.append(&some()[0]).unwrap();
    let failed = Log::begin(dir.path(), &KEYS, |new| {
        new.append(&some()[1])?;
        assert_eq!(read_whole(dir.path()), some()[..1], "the one before is there until then");
        Err(LogError::Full)
    });
    assert!(matches!(failed, Err(LogError::Full)));
    old.append(&some()[1]).unwrap();
    assert_eq!(read_whole(dir.path()), some()[..2]);
    // What a crash left of another is in nobody's way.
    fs::write(dir.path().join(NEW_NAME), b"half").unwrap();
    let new = Log::begin(dir.path(), &KEYS, |new| new.append(&some()[2])).unwrap();
    assert_eq!(read_whole(dir.path()), some()[2..3]);
    new.append(&some()[3]).unwrap();
    assert_eq!(read_whole(dir.path()), some()[2..]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(dir.path().join(NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}
