//! What a crash may leave of the log and of the file. Each must open, and remember a state that was
//! committed once: never half a batch, never less than what had less time, and never an epoch that
//! was used before (N4).

use std::fs;

use gate_core::id::Epoch;
use gate_core::lock::table::{Restore, Table};
use gate_core::time::Time;
use tempfile::TempDir;

use super::super::{Memory, PAGE_BYTES};
use super::{BOOT, Entry, JOURNAL_NAME, Journal, gone, held, open};

/// What is remembered after each batch.
const STATES: [&[u64]; 5] = [&[], &[1, 2], &[2, 3], &[4], &[4, 5]];
const PAGE: usize = PAGE_BYTES as usize;

fn batch(number: usize) -> Vec<Entry<'static>> {
    match number {
        1 => vec![held(1), held(2)],
        2 => vec![gone(1), held(3)],
        3 => vec![gone(2), gone(3), held(4)],
        _ => vec![held(5)],
    }
}

/// A journal with three batches in its log.
struct Written {
    dir: TempDir,
    journal: Journal,
    /// How long the log was before them.
    begun: usize,
}

impl Written {
    fn new() -> Written {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path(), BOOT).unwrap();
        let mut written = Written { dir, journal, begun: 0 };
        written.begun = written.log().len();
        for number in 1..=3 {
            written.journal.commit(batch(number).into_iter()).unwrap();
        }
        written
    }

    fn fold(&mut self) {
        self.journal.falls_behind();
        self.journal.checkpointer.catch_up(&self.journal.connection);
    }

    fn file(&self) -> Vec<u8> {
        fs::read(self.dir.path().join(JOURNAL_NAME)).unwrap()
    }

    fn log(&self) -> Vec<u8> {
        fs::read(self.dir.path().join(format!("{JOURNAL_NAME}-wal"))).unwrap()
    }
}

/// Where what was left is opened: in memory if that can be, for it is opened thousands of times.
struct Wreck(TempDir);

impl Wreck {
    fn new() -> Wreck {
        Wreck(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    /// Returns what a run remembers that begins with what was left.
    fn opened(&self, file: &[u8], log: &[u8]) -> Memory {
        let dir = self.0.path();
        for entry in fs::read_dir(dir).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(dir.join(JOURNAL_NAME), file).unwrap();
        fs::write(dir.join(format!("{JOURNAL_NAME}-wal")), log).unwrap();
        open(dir, BOOT).unwrap().1
    }

    /// Returns how many batches are remembered of what the first run left.
    fn batches(&self, file: &[u8], log: &[u8]) -> usize {
        let memory = self.opened(file, log);
        assert_eq!(memory.epoch, Epoch(2), "the first epoch was synced before any grant");
        let mut tickets: Vec<u64> = memory.claims.iter().map(|(ticket, _)| ticket.0).collect();
        tickets.sort_unstable();
        let restore = Restore { claims: memory.claims, ..Restore::default() };
        Table::restore(memory.epoch, Time(1), restore);
        let state = STATES.iter().position(|state| *state == tickets);
        state.unwrap_or_else(|| panic!("nobody committed {tickets:?}"))
    }
}

/// Returns what is left of a log that is cut at each of these lengths: with nothing behind the cut, and
/// with something else than was written.
fn cuts(log: &[u8], at: impl Iterator<Item = usize>) -> impl Iterator<Item = (usize, Vec<u8>)> {
    at.flat_map(move |cut| {
        let spoilt: Vec<u8> = log[cut..].iter().map(|byte| !byte).collect();
        [(cut, log[..cut].to_vec()), (cut, [&log[..cut], &spoilt].concat())]
    })
}

/// Nothing was granted yet, so that the first epoch may begin once more. Not at every byte, for much is
/// written.
#[test]
fn a_journal_whose_making_was_cut_short_anywhere_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path(), BOOT).unwrap();
    let made = Written { dir, journal, begun: 0 };
    let (file, log, wreck) = (made.file(), made.log(), Wreck::new());
    assert_eq!(wreck.opened(&[], &[]).epoch, Epoch(1));
    let mut last = 1;
    for (cut, left) in cuts(&log, (0..log.len()).step_by(37).chain([log.len()])) {
        let memory = wreck.opened(&file, &left);
        let epoch = memory.epoch.0;
        assert!(epoch >= last, "cut at {cut}: a former epoch again");
        assert!(memory.claims.is_empty() && memory.sessions.is_empty() && memory.spaces.is_empty());
        last = epoch;
    }
    assert_eq!(last, 2, "what is whole was used");
}

/// The second run grants nothing before its epoch is in the log: until then it may be the third's.
#[test]
fn n4_a_second_start_cut_short_anywhere_takes_no_epoch_that_was_used() {
    let written = Written::new();
    let (file, first) = (written.file(), written.log());
    let second = tempfile::tempdir().unwrap();
    fs::write(second.path().join(JOURNAL_NAME), &file).unwrap();
    fs::write(second.path().join(format!("{JOURNAL_NAME}-wal")), &first).unwrap();
    let (journal, memory) = open(second.path(), BOOT).unwrap();
    assert_eq!(memory.epoch, Epoch(2));
    let mut written = Written { dir: second, journal, begun: first.len() };
    let begun = written.log().len();
    written.journal.commit(batch(4).into_iter()).unwrap();
    let log = written.log();
    assert!(written.file() == file && log.starts_with(&first) && begun > first.len());
    let wreck = Wreck::new();
    let mut last = 2;
    for (cut, left) in cuts(&log, first.len()..=log.len()) {
        let memory = wreck.opened(&file, &left);
        let epoch = memory.epoch.0;
        assert!(epoch >= last, "cut at {cut}: a former epoch again");
        assert_eq!(epoch == 3, cut >= begun, "cut at {cut}: the second run is known by its epoch");
        assert!(memory.claims.iter().any(|(ticket, _)| ticket.0 == 4), "cut at {cut}");
        last = epoch;
    }
}

/// With nothing behind the cut, or something else than was written.
#[test]
fn a_log_cut_anywhere_yields_what_some_commit_left() {
    let written = Written::new();
    let (file, log, wreck) = (written.file(), written.log(), Wreck::new());
    let mut last = 0;
    for (cut, left) in cuts(&log, written.begun..=log.len()) {
        let batches = wreck.batches(&file, &left);
        assert!(batches >= last, "cut at {cut}: less is remembered of more");
        last = batches;
    }
    assert_eq!(last, 3, "the whole log remembers all");
}

/// After each page that is written, and in the midst of it.
#[test]
fn a_crash_while_the_log_is_folded_into_the_file_loses_nothing() {
    let mut written = Written::new();
    let (mut file, log, wreck) = (written.file(), written.log(), Wreck::new());
    written.fold();
    let folded = written.file();
    let mut writes = 0;
    for (page, begin) in folded.chunks(PAGE).zip((0..).step_by(PAGE)) {
        if file.get(begin..begin + PAGE) == Some(page) {
            continue;
        }
        for bytes in [PAGE / 2, PAGE] {
            let end = begin + bytes;
            file.resize(file.len().max(end), 0);
            file[begin..end].copy_from_slice(&page[..bytes]);
            assert_eq!(wreck.batches(&file, &log), 3, "cut at {end}");
        }
        writes += 1;
    }
    assert!(writes > 1 && file == folded);
}

/// What is folded is written over from the beginning.
#[test]
fn a_log_that_begins_anew_cut_anywhere_loses_nothing_that_was_folded() {
    let mut written = Written::new();
    written.fold();
    let (file, log, wreck) = (written.file(), written.log(), Wreck::new());
    written.journal.commit(batch(4).into_iter()).unwrap();
    let next = written.log();
    assert!(next.len() == log.len() && written.file() == file, "the log took it");
    let mut last = 3;
    let differs = next.iter().zip(&log).rposition(|(new, old)| new != old).unwrap();
    for cut in 0..=differs + 1 {
        let batches = wreck.batches(&file, &[&next[..cut], &log[cut..]].concat());
        assert!(batches >= last, "cut at {cut}: less is remembered of more");
        last = batches;
    }
    assert_eq!(last, 4);
}
