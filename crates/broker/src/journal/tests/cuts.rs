//! What a crash may leave of the log and of the file. Each must open, and remember a state that was
//! committed once: never half a batch, never less than what had less time, and never an epoch that
//! was used before (N4).

use std::fs;

use gate_core::id::Epoch;
use gate_core::lock::table::{Restore, Table};
use gate_core::time::Time;
use tempfile::TempDir;

use super::super::PAGE_BYTES;
use super::{BOOT, Entry, JOURNAL_NAME, Journal, gone, held};

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
        let (journal, _) = Journal::open(dir.path(), BOOT).unwrap();
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

    /// Returns how many batches are remembered of what was left.
    fn batches(&self, file: &[u8], log: &[u8]) -> usize {
        let dir = self.0.path();
        for entry in fs::read_dir(dir).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(dir.join(JOURNAL_NAME), file).unwrap();
        fs::write(dir.join(format!("{JOURNAL_NAME}-wal")), log).unwrap();
        let (_, memory) = Journal::open(dir, BOOT).unwrap();
        assert_eq!(memory.epoch, Epoch(2), "the first epoch was synced before any grant");
        let mut tickets: Vec<u64> = memory.claims.iter().map(|(ticket, _)| ticket.0).collect();
        tickets.sort_unstable();
        let restore = Restore { claims: memory.claims, ..Restore::default() };
        Table::restore(memory.epoch, Time(1), restore);
        let state = STATES.iter().position(|state| *state == tickets);
        state.unwrap_or_else(|| panic!("nobody committed {tickets:?}"))
    }
}

/// With nothing behind the cut, or something else than was written.
#[test]
fn a_log_cut_anywhere_yields_what_some_commit_left() {
    let written = Written::new();
    let (file, log, wreck) = (written.file(), written.log(), Wreck::new());
    let mut last = 0;
    for cut in written.begun..=log.len() {
        let spoilt = log[cut..].iter().map(|byte| !byte).collect();
        for tail in [Vec::new(), spoilt] {
            let batches = wreck.batches(&file, &[&log[..cut], &tail].concat());
            assert!(batches >= last, "cut at {cut}: less is remembered of more");
            last = batches;
        }
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
