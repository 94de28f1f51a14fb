//! The log by itself: numbers without a gap, bounds, restarts, files that make no sense.

use std::sync::mpsc::channel;

use gate_api::wire::{Cursor, Entry, Fate, Former, Named, Pass, Presence, Subject};
use gate_core::lock::event::{Refusal, Revocation};
use gate_core::lock::want::{Access, Op};
use tempfile::TempDir;

use super::block::{Block, Records};
use super::*;
use crate::tests::SOON;

const BOUNDS: Bounds = Bounds { bytes_max: 64 << 20, age_max: Duration::from_secs(3600) };
const LOG_NAME: &str = "audit.sqlite";

fn start(state: &TempDir, epoch: u64) -> (Audit, Pen) {
    Audit::start(state.path(), Epoch(epoch), BOUNDS, Counter::default()).unwrap()
}

fn came(session: u64, text: &str) -> Happening<'_> {
    let client = text.into();
    Happening::Client { session, client, process: None, became: Presence::Came }
}

fn claim(space: &'static str, path: &str, became: Fate<'static>) -> Happening<'static> {
    let path = ViewPath::parse(path.as_bytes()).ok();
    let claim = Subject {
        ticket: Some(1),
        op: Op::Open(Access::Write),
        places: vec![Named { space: space.into(), path, directory: false }],
        owner: "o".into(),
        party: "".into(),
        reason: "".into(),
        process: None,
        session: 1,
        client: "c".into(),
    };
    Happening::Claim { became, claim }
}

fn write(pen: &mut Pen, count: u64) {
    for session in 0..count {
        pen.note(came(session, "a client"));
    }
    pen.hand_over();
}

fn ask_within(audit: &Audit, filter: Filter, stretch: Stretch, within: Duration) -> LogPage {
    let (answer, answered) = channel();
    audit.reader().ask(Question {
        filter,
        stretch,
        limit: 512,
        until: Instant::now() + within,
        answer: Box::new(move |page| answer.send(page).unwrap()),
    });
    answered.recv_timeout(SOON).expect("the log answers")
}

fn ask(audit: &Audit, stretch: Stretch) -> LogPage {
    ask_within(audit, Filter::All, stretch, Duration::ZERO)
}

/// Reads all there is after a place, page by page.
fn all_after(audit: &Audit, place: Cursor) -> (Vec<Entry>, bool) {
    let (mut entries, mut gap, mut place) = (Vec::new(), false, place);
    loop {
        let page = ask(audit, Stretch::After(place));
        gap |= page.gap;
        entries.extend(page.entries);
        if !page.more {
            return (entries, gap);
        }
        place = page.end;
    }
}

#[track_caller]
fn assert_gap_free(entries: &[Entry]) {
    for pair in entries.windows(2) {
        let [before, after] = [&pair[0], &pair[1]];
        let follows = before.cursor.number + after.record.count() == after.cursor.number;
        let begins = after.cursor.epoch > before.cursor.epoch && after.cursor.number == 1;
        assert!(follows || begins, "{} is followed by {}", before.cursor, after.cursor);
    }
}

fn cursor(epoch: u64, number: u64) -> Cursor {
    Cursor { epoch, number }
}

#[test]
fn numbers_go_on_over_restarts_and_a_lost_tail_is_told() {
    let state = TempDir::new().unwrap();
    let (audit, mut pen) = start(&state, 1);
    write(&mut pen, 3);
    pen.note(Happening::Stopped);
    pen.hand_over();
    drop((audit, pen));
    let (audit, mut pen) = start(&state, 2);
    write(&mut pen, 2);
    drop((audit, pen));
    let (audit, _pen) = start(&state, 3);
    let (entries, gap) = all_after(&audit, Cursor::START);
    assert_gap_free(&entries);
    assert!(!gap);
    let formers: Vec<Former> = entries.iter().filter_map(former).collect();
    assert_eq!(formers, [Former::None, Former::Whole, Former::Cut(cursor(2, 3))]);
    // One who saw more of the second run than was written goes on with the third.
    let (entries, gap) = all_after(&audit, cursor(2, 900));
    assert_eq!((entries[0].cursor, gap), (cursor(3, 1), false));
}

#[test]
fn a_run_that_left_no_record_is_told_of() {
    let state = TempDir::new().unwrap();
    let former_of = |epoch: u64| {
        let (audit, mut pen) = start(&state, epoch);
        pen.note(Happening::Stopped);
        pen.hand_over();
        drop(pen);
        let (entries, _) = all_after(&audit, cursor(epoch, 0));
        former(&entries[0])
    };
    assert_eq!(former_of(3), Some(Former::Cut(Cursor::START)));
    assert_eq!(former_of(4), Some(Former::Whole));
}

fn former(entry: &Entry) -> Option<Former> {
    match &entry.record.what {
        Happening::Started { former, .. } => Some(*former),
        _ => None,
    }
}

#[test]
fn records_that_find_no_room_are_one_that_says_so() {
    let count = Counter::default();
    let tray = Arc::new(Tray::new(Epoch(1), count.clone()));
    let (words, heard) = channel();
    let mut pen = Pen::new(tray.clone(), words);
    let name = "x".repeat(64 * 1024);
    let mut written = 0;
    for _ in 0..800 {
        pen.note(came(1, &name));
        pen.hand_over();
        written += 1;
    }
    let blocks = tray.take();
    let bytes: usize = blocks.iter().map(|block| block.records.told.len()).sum();
    assert!(bytes < 33 << 20, "{bytes} bytes lay in the tray");
    pen.note(came(2, "after it"));
    pen.hand_over();
    let records = blocks.iter().chain(&tray.take()).flat_map(Block::read).collect::<Vec<_>>();
    let entries: Vec<Entry> = records.into_iter().map(|read| read.entry).collect();
    assert_gap_free(&entries);
    let missing = entries.iter().filter(|e| matches!(e.record.what, Happening::Missing { .. }));
    let missing: Vec<u64> = missing.map(|entry| entry.record.count()).collect();
    assert_eq!(missing, [count.get()]);
    assert_eq!(entries.last().unwrap().cursor, cursor(1, written + 1));
    // One word for each taking, however much there is.
    assert_eq!(heard.try_iter().count(), 2);
}

#[test]
fn a_follower_hears_each_record_once() {
    let state = TempDir::new().unwrap();
    let (audit, mut pen) = start(&state, 1);
    let reader = audit.reader();
    let writing = std::thread::spawn(move || {
        for _ in 0..50 {
            write(&mut pen, 20);
        }
        pen
    });
    let (mut place, mut entries) = (Cursor::START, Vec::new());
    while entries.len() < 1 + 50 * 20 {
        let page = ask_within(&audit, Filter::All, Stretch::After(place), SOON);
        assert!(!page.gap);
        place = page.end;
        entries.extend(page.entries);
    }
    assert_gap_free(&entries);
    drop((writing.join().unwrap(), reader));
}

#[test]
fn questions_that_wait_are_answered_in_time_and_at_the_end() {
    let state = TempDir::new().unwrap();
    let (audit, mut pen) = start(&state, 1);
    let newest = ask(&audit, Stretch::UpTo(None)).end;
    let filter = Filter::Beneath { space: "s".into(), path: ViewPath::parse(b"d").unwrap() };
    let page = ask_within(&audit, filter.clone(), Stretch::After(newest), Duration::from_millis(1));
    assert_eq!((page.entries.len(), page.end), (0, newest));
    // What it does not ask for moves it on without an answer.
    let (answer, answered) = channel();
    audit.reader().ask(Question {
        filter,
        stretch: Stretch::After(newest),
        limit: 512,
        until: Instant::now() + SOON,
        answer: Box::new(move |page| answer.send(page).unwrap()),
    });
    write(&mut pen, 3);
    pen.note(claim("other", "d/f", Fate::Waits));
    pen.note(claim("s", "e", Fate::Waits));
    pen.note(claim("s", "d/f", Fate::Waits));
    pen.hand_over();
    let page = answered.recv_timeout(SOON).unwrap();
    assert_eq!((page.entries.len(), page.end), (1, cursor(1, 7)));
    let (answer, answered) = channel();
    audit.reader().ask(Question {
        filter: Filter::All,
        stretch: Stretch::After(page.end),
        limit: 512,
        until: Instant::now() + SOON * 2,
        answer: Box::new(move |page| answer.send(page).unwrap()),
    });
    drop(audit);
    assert_eq!(answered.recv_timeout(SOON).unwrap().entries, []);
}

#[test]
fn the_newest_are_found_page_by_page_and_by_time() {
    let state = TempDir::new().unwrap();
    let (audit, mut pen) = start(&state, 1);
    write(&mut pen, 2_000);
    drop(audit);
    let (audit, _pen) = start(&state, 2);
    let newest = ask(&audit, Stretch::UpTo(None));
    assert_eq!((newest.entries.len(), newest.more), (512, true));
    assert_eq!(newest.entries.last().unwrap().cursor, cursor(2, 1));
    let page = ask(&audit, Stretch::UpTo(Some(newest.begin)));
    assert_eq!((page.entries.len(), page.end), (512, newest.begin));
    let (entries, _) = all_after(&audit, page.begin);
    assert_eq!(entries.len(), 1_024);
    assert_gap_free(&entries);
    let at_ms = page.entries[0].record.at_ms;
    assert!(ask(&audit, Stretch::Since(at_ms)).entries[0].record.at_ms >= at_ms);
    let first = ask(&audit, Stretch::Since(0));
    assert_eq!(first.entries[0].cursor, cursor(1, 1));
}

#[test]
fn the_past_of_a_path_is_what_is_odd_at_above_and_beneath_it() {
    let state = TempDir::new().unwrap();
    let (audit, mut pen) = start(&state, 1);
    let deadlock = || Fate::Refused { why: Refusal::Deadlock, reason: "".into() };
    let broken = Fate::Revoked { why: Revocation::Broken, reason: "x".into(), held: None };
    let token = gate_core::id::Token { epoch: Epoch(1), counter: 1 };
    let granted = |pass| Fate::Granted { token, waited: Duration::ZERO, pass };
    for (path, became) in [
        ("d", broken),
        ("d/e", deadlock()),
        ("d/e/f", granted(Pass::AwaitedByHolder)),
        ("d/e", granted(Pass::Own)),
        ("d/e", Fate::Refused { why: Refusal::Interrupted, reason: "".into() }),
        ("d/other", deadlock()),
    ] {
        pen.note(claim("s", path, became));
    }
    pen.note(claim("t", "d/e", deadlock()));
    pen.hand_over();
    let filter = Filter::OddAt { space: "s".into(), path: ViewPath::parse(b"d/e").unwrap() };
    let numbers = |filter| -> Vec<u64> {
        let page = ask_within(&audit, filter, Stretch::UpTo(None), Duration::ZERO);
        page.entries.iter().map(|entry| entry.cursor.number).collect()
    };
    assert_eq!(numbers(filter), [2, 3, 4]);
    assert_eq!(numbers(Filter::TakenAway), [2]);
}

#[test]
fn n12_what_is_sealed_is_told_by_name_and_written_without_it() {
    let state = TempDir::new().unwrap();
    let secret = || claim("notes", "secret-name", Fate::Waits);
    let named = |page: &LogPage| -> Vec<Option<String>> {
        let claims = page.entries.iter().filter_map(|entry| match &entry.record.what {
            Happening::Claim { claim, .. } => Some(&claim.places[0].path),
            _ => None,
        });
        claims.map(|path| path.as_ref().map(ToString::to_string)).collect()
    };
    let (audit, mut pen) = start(&state, 1);
    pen.note(claim("plain", "before", Fate::Waits));
    pen.note_sealed(secret());
    pen.note(claim("plain", "after", Fate::Waits));
    pen.hand_over();
    let page = ask(&audit, Stretch::UpTo(None));
    let all = ["before", "secret-name", "after"].map(|name| Some(name.to_owned()));
    assert_eq!(named(&page), all);
    drop((audit, pen));
    for file in std::fs::read_dir(state.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"secret"), "it is written down");
    }
    let (audit, _pen) = start(&state, 2);
    let page = ask(&audit, Stretch::After(Cursor::START));
    assert_eq!(named(&page), [Some("before".into()), None, Some("after".into())]);
    assert!(!page.gap);
}

#[test]
fn the_oldest_are_given_up_by_size_and_who_asks_for_them_is_told() {
    let state = TempDir::new().unwrap();
    let bounds = Bounds { bytes_max: 1 << 20, ..BOUNDS };
    let mut store = Store::open(state.path(), Epoch(1), bounds).unwrap().0;
    let (name, at_ms) = ("x".repeat(32 * 1024), crate::clock::wall_ms());
    let mut records = Records::default();
    records.push(&Record { at_ms, what: came(1, &name) }, None);
    for number in 1..=400 {
        let block =
            Block { last: number, records: records.clone(), ..Block::begun(1, number, at_ms) };
        assert!(store.write(&[Arc::new(block)]));
        store.trim(at_ms);
    }
    let oldest = store.after(Cursor::START, 1)[0].first;
    assert!((360..400).contains(&oldest), "{oldest}");
    drop(store);
    let size = std::fs::metadata(state.path().join(LOG_NAME)).unwrap().len();
    assert!(size < 4 << 20, "{size} bytes");
    let (audit, _pen) = start(&state, 2);
    let page = ask(&audit, Stretch::After(cursor(1, 1)));
    assert_eq!((page.gap, page.begin), (true, cursor(1, oldest - 1)));
    assert!(!ask(&audit, Stretch::After(cursor(1, oldest - 1))).gap);
    assert!(ask(&audit, Stretch::After(cursor(7, 1))).gap, "it is of another log");
}

#[test]
fn the_oldest_are_given_up_by_age() {
    let state = TempDir::new().unwrap();
    let bounds = Bounds { age_max: Duration::from_millis(100), ..BOUNDS };
    let mut store = Store::open(state.path(), Epoch(1), bounds).unwrap().0;
    let block = |number, at_ms| Arc::new(Block { last: number, ..Block::begun(1, number, at_ms) });
    assert!(store.write(&[block(1, 1_000), block(2, 1_050), block(3, 1_120)]));
    store.trim(1_120);
    let kept: Vec<u64> =
        store.after(Cursor::START, usize::MAX).iter().map(|block| block.first).collect();
    assert_eq!(kept, [2, 3]);
}

#[test]
fn a_smaller_bound_gives_room_back() {
    let state = TempDir::new().unwrap();
    let mut store = Store::open(state.path(), Epoch(1), BOUNDS).unwrap().0;
    let (name, mut records) = ("x".repeat(64 << 10), Records::default());
    records.push(&Record { at_ms: 5, what: came(1, &name) }, None);
    let block = |number| {
        Arc::new(Block { last: number, records: records.clone(), ..Block::begun(1, number, 5) })
    };
    assert!(store.write(&(1..=512).map(block).collect::<Vec<_>>()));
    let size = || std::fs::metadata(state.path().join(LOG_NAME)).unwrap().len();
    drop(store);
    let bounds = Bounds { bytes_max: 1 << 20, ..BOUNDS };
    let (mut store, former) = Store::open(state.path(), Epoch(2), bounds).unwrap();
    assert_eq!(former, Former::Cut(cursor(1, 512)));
    for number in 513..=528 {
        assert!(store.write(&[block(number)]));
        store.trim(5);
    }
    let oldest = store.after(Cursor::START, 1)[0].first;
    assert!((500..528).contains(&oldest), "{oldest}");
    drop(store);
    assert!(size() < 16 << 20, "{} bytes", size());
}

#[test]
fn blocks_that_are_written_again_are_there_once() {
    let state = TempDir::new().unwrap();
    let mut store = Store::open(state.path(), Epoch(1), BOUNDS).unwrap().0;
    let blocks = [Arc::new(Block { last: 3, ..Block::begun(1, 1, 5) })];
    assert!(store.write(&blocks) && store.write(&blocks));
    assert_eq!(store.after(Cursor::START, usize::MAX), blocks);
}

#[test]
fn n16_an_unknown_version_of_the_log_is_refused_by_name() {
    let state = TempDir::new().unwrap();
    drop(start(&state, 1));
    let file = rusqlite::Connection::open(state.path().join(LOG_NAME)).unwrap();
    file.pragma_update(None, "user_version", 9).unwrap();
    drop(file);
    let refused = Audit::start(state.path(), Epoch(2), BOUNDS, Counter::default());
    let Err(AuditError::Format(unknown)) = refused else { panic!("it was guessed at") };
    let text = unknown.to_string();
    assert!(text.contains("audit.sqlite has format version 9, this release knows 1"), "{text}");
}

#[test]
fn a_log_that_makes_no_sense_is_set_aside_and_begun_anew() {
    let state = TempDir::new().unwrap();
    drop(start(&state, 1));
    let path = state.path().join(LOG_NAME);
    let set = |what: &str| {
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute(&format!("UPDATE block SET {what}"), ()).unwrap();
    };
    let spoilt: [&dyn Fn(); 4] = [
        &|| std::fs::write(&path, b"no database at all").unwrap(),
        &|| set("records = x'ff'"),
        &|| set("first = last + 2"),
        // Its run is later than the next: the journal was begun anew.
        &|| {},
    ];
    for (epoch, spoil) in [2, 3, 4, 4].into_iter().zip(spoilt) {
        spoil();
        let (audit, mut pen) = start(&state, epoch);
        write(&mut pen, 1);
        let (entries, _) = all_after(&audit, Cursor::START);
        assert_eq!(former(&entries[0]), Some(Former::Unreadable));
        assert_eq!(entries.len(), 2);
        assert!(state.path().join("audit.sqlite.aside").exists());
        std::fs::remove_file(state.path().join("audit.sqlite.aside")).unwrap();
    }
}

#[test]
fn a_log_that_cannot_be_written_is_kept_in_memory_until_it_can() {
    let state = TempDir::new().unwrap();
    let path = state.path().join(LOG_NAME);
    std::fs::create_dir(&path).unwrap();
    let (audit, mut pen) = start(&state, 1);
    write(&mut pen, 3);
    assert_eq!(all_after(&audit, Cursor::START).0.len(), 4);
    std::fs::remove_dir(&path).unwrap();
    drop(audit);
    let (audit, _pen) = start(&state, 2);
    let (entries, gap) = all_after(&audit, Cursor::START);
    assert_gap_free(&entries);
    assert_eq!((entries.len(), gap), (5, false));
}

#[test]
fn what_is_too_much_for_memory_before_it_is_written_is_told_as_missing() {
    let count = Counter::default();
    let mut recent = Recent::new(Epoch(1), count.clone());
    let records = Records::read(vec![0; 1 << 20]);
    for number in 1..=80 {
        let block = Block { last: number, records: records.clone(), ..Block::begun(1, number, 1) };
        recent.push(vec![block]);
    }
    let unwritten = recent.unwritten();
    assert!(unwritten.len() < 45, "{} MiB wait", unwritten.len());
    let Some(missing) = unwritten[0].decode() else { panic!("it makes sense") };
    assert_eq!(missing[0].entry.record.count(), count.get());
    assert_eq!(count.get() + unwritten.len() as u64 - 1, 80);
    assert_eq!(unwritten[0].last + 1, unwritten[1].first);
    recent.all_written();
    assert!(recent.unwritten().is_empty());
}

#[test]
fn the_log_is_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let state = TempDir::new().unwrap();
    let (_audit, _pen) = start(&state, 1);
    for entry in std::fs::read_dir(state.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
    }
}

/// Whoever has the file to itself, a backup for one, keeps nobody from a turn. For so long that the log
/// gives up to write for now; would turns wait for the file as it does, there would be five.
#[test]
fn turns_go_on_while_somebody_else_has_the_log_and_are_told_of_afterwards() {
    let state = TempDir::new().unwrap();
    let broker = crate::tests::start(&state);
    let client = crate::tests::connect(&broker.address(), "c");
    let mut file = rusqlite::Connection::open(state.path().join(LOG_NAME)).unwrap();
    file.busy_timeout(SOON).unwrap();
    let held = file.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive).unwrap();
    let blocks = |file: &rusqlite::Connection| -> i64 {
        file.query_row("SELECT count(*) FROM block", (), |row| row.get(0)).unwrap()
    };
    let (before, begun) = (blocks(&held), Instant::now());
    let mut turns = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        let owner = client.hold("f");
        owner.is_granted();
        client.session.release(owner.number, None);
        turns += 1;
    }
    assert!(turns >= 50, "{turns} turns");
    assert_eq!(blocks(&held), before, "nothing could be written");
    held.commit().unwrap();
    drop(client);
    broker.stop().unwrap();
    let (audit, _pen) = start(&state, 2);
    let (entries, gap) = all_after(&audit, Cursor::START);
    assert_gap_free(&entries);
    let granted = |entry: &&Entry| {
        matches!(&entry.record.what, Happening::Claim { became: Fate::Granted { .. }, .. })
    };
    assert_eq!((entries.iter().filter(granted).count(), gap), (turns, false));
}
