//! Crashes and damage. What is lost at worst is what nobody was told of.

mod cuts;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gate_core::id::{Epoch, OwnerId, SessionId, SpaceId, Ticket, Token};
use gate_core::lock::claim::{Caller, Claim, Label, Party, Patience, Process, Terms};
use gate_core::lock::event::Passed;
use gate_core::lock::key::FileKey;
use gate_core::lock::table::Record;
use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_core::path::ViewPath;
use gate_core::time::Time;

use super::rows;
use super::{Entry, JOURNAL_NAME, Journal, JournalError, Loss, Memory};

const BOOT: &str = "this boot";
const NOW: Time = Time(5_000);
const ELSEWHERE: Entry<'static> = Entry::Elsewhere(Duration::ZERO);

fn open(dir: &Path, boot: &str) -> Result<(Journal, Memory), JournalError> {
    Journal::open(dir, boot, NOW)
}

fn record(number: u64) -> Record {
    let owner = OwnerId { session: SessionId::STATELESS, number };
    let process = Process { namespace: 1, pid: 2, start: 3 };
    let terms = Terms {
        owner,
        party: Party::Process(process),
        caller: Some(Caller { process, thread: 4, single_threaded: true }),
        patience: Patience::Limited(Duration::from_millis(5)),
        read_wait: Some(Duration::from_secs(6)),
        lease: Some(Duration::from_secs(7)),
        max_hold: None,
        label: Label { owner: "o".to_owned(), reason: "r".to_owned(), asked_at_ms: 8 },
    };
    let path = Some(ViewPath::parse(format!("f{number}").as_bytes()).unwrap());
    let node = Node::File(FileKey { volume: 9, inode: number, generation: 11 });
    let want =
        Want { op: Op::Open(Access::Write), places: vec![Place { space: SpaceId(0), path, node }] };
    Record::Held {
        claim: Arc::new(Claim::new(terms, want)),
        token: Token { epoch: Epoch(1), counter: number },
        count: 1,
        passed: Passed::ByKin,
        kin: BTreeMap::from([(Ticket(1), Party::Named("k".into()))]),
        since: Time(number),
        revoked: None,
    }
}

fn held(ticket: u64) -> Entry<'static> {
    Entry::Claim(Ticket(ticket), Some(record(ticket)))
}

fn gone(ticket: u64) -> Entry<'static> {
    Entry::Claim(Ticket(ticket), None)
}

fn tickets(dir: &Path) -> Result<Vec<u64>, JournalError> {
    let (_, memory) = open(dir, BOOT)?;
    let mut tickets: Vec<u64> = memory.claims.iter().map(|(ticket, _)| ticket.0).collect();
    tickets.sort_unstable();
    Ok(tickets)
}

fn refusal(dir: &Path) -> JournalError {
    match open(dir, BOOT) {
        Err(error) => error,
        Ok(_) => panic!("the journal was opened"),
    }
}

#[test]
fn a_claim_is_remembered_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, memory) = open(dir.path(), BOOT).unwrap();
    assert_eq!((memory.epoch, memory.loss), (Epoch(1), Loss::Nothing));
    journal.commit([held(1), held(2), gone(3)].into_iter()).unwrap();
    journal.commit([gone(1)].into_iter()).unwrap();
    drop(journal);
    let (_, memory) = open(dir.path(), BOOT).unwrap();
    assert_eq!((memory.epoch, memory.loss), (Epoch(2), Loss::Nothing));
    assert_eq!(memory.claims, [(Ticket(2), record(2))]);
}

#[test]
fn what_holds_the_keys_of_sessions_is_for_its_user_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), BOOT).unwrap();
    journal.commit([held(1)].into_iter()).unwrap();
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert!(files.len() > 1, "the write-ahead log is there too: {files:?}");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
    }
}

fn loss(dir: &Path, boot: &str) -> Loss {
    open(dir, boot).unwrap().1.loss
}

#[test]
fn n1_another_boot_may_have_lost_the_tail_to_who_is_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(loss(dir.path(), BOOT), Loss::Nothing);
    assert_eq!(loss(dir.path(), "another"), Loss::Clients, "all were on the machine");
    let (mut journal, memory) = open(dir.path(), "another").unwrap();
    assert_eq!(memory.loss, Loss::Clients, "nobody noted yet that they are gone");
    journal.commit([Entry::Complete].into_iter()).unwrap();
    let begun = fs::metadata(dir.path().join(format!("{JOURNAL_NAME}-wal"))).unwrap().len();
    journal.commit([ELSEWHERE].into_iter()).unwrap();
    let log = fs::metadata(dir.path().join(format!("{JOURNAL_NAME}-wal"))).unwrap().len();
    assert!(log > begun, "it is noted, and so synced");
    journal.commit([ELSEWHERE].into_iter()).unwrap();
    drop(journal);
    assert_eq!(loss(dir.path(), "third"), Loss::Tail);
}

/// A session that was lost with the tail is waited for as long as it may take to come back.
#[test]
fn n1_the_longest_lease_of_who_is_elsewhere_outlives_the_tail() {
    let dir = tempfile::tempdir().unwrap();
    let lost = || {
        let (journal, memory) = open(dir.path(), "another").unwrap();
        (journal, memory.lease_lost.as_secs())
    };
    let (mut journal, _) = open(dir.path(), BOOT).unwrap();
    for seconds in [0, 60, 3_600, 1] {
        let lease = Duration::from_secs(seconds);
        journal.commit([Entry::Elsewhere(lease)].into_iter()).unwrap();
    }
    drop(journal);
    assert_eq!(lost().1, 3_600);
    let (mut journal, seconds) = lost();
    assert_eq!(seconds, 3_600, "until it is complete");
    journal.commit([Entry::Complete].into_iter()).unwrap();
    drop(journal);
    assert_eq!(loss(dir.path(), "another"), Loss::Nothing);
    assert_eq!(lost().1, 0, "nobody is remembered");
}

/// Somebody who was granted what the tail held may still be on the way back when the broker dies
/// a second time.
#[test]
fn n1_a_lost_tail_stays_lost_until_the_grace_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), BOOT).unwrap();
    journal.commit([ELSEWHERE].into_iter()).unwrap();
    drop(journal);
    assert_eq!(loss(dir.path(), "another"), Loss::Tail);
    let (mut journal, memory) = open(dir.path(), "another").unwrap();
    assert_eq!(memory.loss, Loss::Tail);
    journal.commit([Entry::Complete].into_iter()).unwrap();
    drop(journal);
    assert_eq!(loss(dir.path(), "another"), Loss::Nothing);
}

/// Who was elsewhere and has gone is not waited for at every power loss to come.
#[test]
fn where_nobody_is_remembered_nobody_is_expected() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), BOOT).unwrap();
    journal.commit([ELSEWHERE].into_iter()).unwrap();
    drop(journal);
    assert_eq!(loss(dir.path(), BOOT), Loss::Nothing);
    assert_eq!(loss(dir.path(), "another"), Loss::Clients);
}

#[test]
fn n16_an_unknown_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), BOOT).unwrap());
    let file = rusqlite::Connection::open(dir.path().join(JOURNAL_NAME)).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    drop(file);
    assert!(matches!(refusal(dir.path()), JournalError::Version(_, 99)));
}

#[test]
fn a_damaged_journal_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), BOOT).unwrap();
    journal.commit([held(1)].into_iter()).unwrap();
    journal.connection.execute("UPDATE claim SET row = x'ff'", ()).unwrap();
    drop(journal);
    let text = refusal(dir.path()).to_string();
    assert!(text.contains(JOURNAL_NAME) && text.contains("move"), "{text}");
    fs::write(dir.path().join(JOURNAL_NAME), vec![b'x'; 8192]).unwrap();
    assert!(matches!(refusal(dir.path()), JournalError::Corrupt(..)));
}

#[test]
fn a_batch_that_fails_leaves_nothing_and_may_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), BOOT).unwrap();
    journal.commit([held(1)].into_iter()).unwrap();
    // A full disk, as SQLite sees it.
    let pages: i64 =
        journal.connection.pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
    journal.connection.pragma_update(None, "max_page_count", pages).unwrap();
    let batch = || (2..500).map(held).chain([gone(1)]);
    assert!(journal.commit(batch()).is_err());
    assert!(journal.stored.contains(&Ticket(1)) && !journal.stored.contains(&Ticket(2)));
    journal.connection.pragma_update(None, "max_page_count", 1 << 20).unwrap();
    journal.commit(batch()).unwrap();
    drop(journal);
    assert_eq!(tickets(dir.path()).unwrap(), Vec::from_iter(2..500));
}

#[test]
fn a_log_that_grew_too_long_is_folded_by_the_next_commit_and_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), BOOT).unwrap();
    let log = || fs::metadata(dir.path().join(format!("{JOURNAL_NAME}-wal"))).unwrap().len();
    let mut commit = |tickets: std::ops::Range<u64>| {
        for ticket in tickets {
            journal.commit([held(ticket)].into_iter()).unwrap();
        }
        journal.falls_behind();
    };
    commit(0..200);
    let grown = log();
    commit(200..300);
    assert_eq!(log(), grown, "what follows is written over what was folded");
    drop(journal);
    assert_eq!(tickets(dir.path()).unwrap().len(), 300);
}

/// Returns since when each claim is held.
fn since(dir: &Path, boot: &str) -> Vec<Time> {
    let (_, memory) = open(dir, boot).unwrap();
    let claims = memory.claims.into_iter();
    let since = claims.map(|(_, record)| match record {
        Record::Held { since, .. } => since,
        Record::Waiting(_) => unreachable!("all are held"),
    });
    since.collect()
}

#[test]
fn since_when_a_claim_is_held_outlives_a_broker_and_begins_anew_with_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), BOOT).unwrap();
    journal.commit([held(1), held(2)].into_iter()).unwrap();
    drop(journal);
    assert_eq!(since(dir.path(), BOOT), [Time(1), Time(2)]);
    assert_eq!(since(dir.path(), "another"), [NOW; 2]);
    let (mut journal, memory) = open(dir.path(), "another").unwrap();
    assert_eq!(memory.loss, Loss::Clients);
    journal.commit([Entry::Complete].into_iter()).unwrap();
    drop(journal);
    assert_eq!(since(dir.path(), "another"), [NOW; 2], "no instant of the former boot is left");
}

/// N16: a former release wrote them.
#[test]
fn rows_of_the_version_before_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(dir.path(), BOOT).unwrap();
    journal.commit([held(7)].into_iter()).unwrap();
    journal.connection.pragma_update(None, "user_version", 3).unwrap();
    let row = "UPDATE claim SET row = x'010007000102030101020304010100c096b10201060001070000016f01720800010\
               100010266370109070b01070101010101016b'";
    journal.connection.execute(row, ()).unwrap();
    drop(journal);
    assert_eq!(since(dir.path(), BOOT), [rows::NEVER]);
    assert_eq!(tickets(dir.path()).unwrap(), [7], "it is of this version now");
}

/// If this fails, the format changed: raise its version.
#[test]
fn the_format_of_a_row_is_fixed() {
    let expected = "030007000102030101020304010100c096b10201060001070000016f0172080001\
                    0100010266370109070b01070101010101016b07";
    let hex: String = rows::encode_claim(&record(7)).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, expected);
}
