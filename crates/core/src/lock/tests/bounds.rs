//! A table whose bounds are reached.

use std::sync::Arc;
use std::time::Duration;

use crate::id::{Epoch, OwnerId, SessionId, SpaceId, Ticket, Token};
use crate::lock::claim::{Claim, Label, Party, Terms};
use crate::lock::event::{Command, Refusal};
use crate::lock::key::FileKey;
use crate::lock::limits::{
    GRANTS_PER_SESSION_MAX, Limit, SESSIONS_MAX, TEXT_BYTES_MAX, WAITERS_MAX,
    WAITERS_PER_SESSION_MAX,
};
use crate::lock::table::{Restore, Table};
use crate::lock::want::{Access, Node, Op, Place, Want};
use crate::time::Time;

const LEASE: Duration = Duration::from_secs(10);
const GREEDY: SessionId = SessionId(1);
const OTHER: SessionId = SessionId(2);

/// To write a file of its own, of which nothing but its key is known.
fn claim(session: SessionId, number: u64) -> Arc<Claim> {
    claim_on(session, number, FileKey { volume: session.0, inode: number, generation: 0 })
}

fn claim_on(session: SessionId, number: u64, file: FileKey) -> Arc<Claim> {
    labelled_claim_on(session, number, file, Label::default())
}

fn labelled_claim_on(session: SessionId, number: u64, file: FileKey, label: Label) -> Arc<Claim> {
    let owner = OwnerId { session, number };
    let terms = Terms { label, ..Terms::of(owner, Party::Owner(owner)) };
    let place = Place { space: SpaceId(1), path: None, node: Node::File(file) };
    Arc::new(Claim::new(terms, Want { op: Op::Open(Access::Write), places: vec![place] }))
}

fn ask(table: &mut Table, session: SessionId, number: u64) -> Result<(), Refusal> {
    let command = Command::Acquire { claim: claim(session, number), leaders: Vec::new() };
    table.execute(Time::ZERO + LEASE, command).map(drop)
}

#[test]
fn one_session_takes_half_of_all_grants_at_most() {
    let most = GRANTS_PER_SESSION_MAX as u64;
    let sessions = vec![(GREEDY, LEASE), (OTHER, LEASE)];
    let restore = Restore { sessions, claims: Vec::new(), incomplete: true, grace: LEASE };
    let mut table = Table::restore(Epoch(2), Time::ZERO, restore);
    // It lists one more than it can have had.
    let token = |number| Token { epoch: Epoch(1), counter: number };
    let held = (0..=most).map(|number| (claim(GREEDY, number), token(number))).collect();
    let reclaim = Command::Reclaim { session: GREEDY, held, waiting: Vec::new() };
    table.execute(Time::ZERO, reclaim).unwrap();
    assert_eq!(table.load(), (GRANTS_PER_SESSION_MAX, 0));
    let listed = Command::Reclaim { session: OTHER, held: Vec::new(), waiting: Vec::new() };
    table.execute(Time::ZERO, listed).unwrap();
    table.execute(Time::ZERO + LEASE, Command::Tick).unwrap();
    let full = Err(Refusal::Limit(Limit::GrantsPerSession));
    assert_eq!(ask(&mut table, GREEDY, most), full);
    assert_eq!(ask(&mut table, OTHER, 0), Ok(()));
    let owner = OwnerId { session: GREEDY, number: 0 };
    table.execute(Time::ZERO, Command::Release { owner, change: None }).unwrap();
    assert_eq!(ask(&mut table, GREEDY, most), Ok(()));
    assert_eq!(ask(&mut table, GREEDY, 0), full);
    assert!(table.record(Ticket(most + 2)).is_some());
}

#[test]
fn who_has_been_gone_longest_makes_room_for_a_session() {
    let mut table = Table::new(Epoch(1));
    let open = |table: &mut Table, number: usize| {
        let command = Command::Open { session: SessionId(number as u64), lease: LEASE };
        table.execute(Time::ZERO + LEASE, command).map(drop)
    };
    for number in 1..=SESSIONS_MAX {
        assert_eq!(open(&mut table, number), Ok(()));
    }
    let full = Err(Refusal::Limit(Limit::Sessions));
    assert_eq!(open(&mut table, SESSIONS_MAX + 1), full);
    // Without anything to keep they would be gone at once.
    for session in [OTHER, GREEDY] {
        assert_eq!(ask(&mut table, session, 1), Ok(()));
    }
    for (session, heard) in [(OTHER, Time::ZERO), (GREEDY, Time::ZERO + LEASE / 2)] {
        table.execute(Time::ZERO + LEASE, Command::Lose { session, heard }).unwrap();
    }
    table.execute(Time::ZERO + LEASE * 2, Command::Tick).unwrap();
    assert_eq!(open(&mut table, SESSIONS_MAX + 1), Ok(()));
    let gone = |session| table.sessions().all(|known| known != session);
    assert!(gone(OTHER) && !gone(GREEDY));
}

#[test]
fn what_is_for_people_is_short() {
    let mut table = Table::new(Epoch(1));
    table.execute(Time::ZERO, Command::Open { session: OTHER, lease: LEASE }).unwrap();
    let mut ask = |owner: usize, reason: usize| {
        let number = (owner + reason) as u64;
        let (owner, reason) = ("o".repeat(owner), "r".repeat(reason));
        let label = Label { owner, reason, asked_at_ms: 0 };
        let file = FileKey { volume: 0, inode: number, generation: 0 };
        let claim = labelled_claim_on(OTHER, number, file, label);
        let command = Command::Acquire { claim, leaders: Vec::new() };
        table.execute(Time::ZERO, command).map(drop)
    };
    let long = Err(Refusal::Limit(Limit::TextBytes));
    assert_eq!(ask(TEXT_BYTES_MAX, 0), Ok(()));
    assert_eq!(ask(TEXT_BYTES_MAX - 1, TEXT_BYTES_MAX), Ok(()));
    assert_eq!(ask(TEXT_BYTES_MAX + 1, 0), long);
    assert_eq!(ask(0, TEXT_BYTES_MAX + 1), long);
}

#[test]
fn a_line_is_bounded_for_each_session_and_for_all() {
    let mut table = Table::new(Epoch(1));
    let last = SessionId(3);
    for session in [GREEDY, OTHER, last] {
        table.execute(Time::ZERO, Command::Open { session, lease: LEASE }).unwrap();
    }
    let file = FileKey { volume: 0, inode: 1, generation: 0 };
    let mut number = 0;
    let mut wait = |table: &mut Table, session| {
        number += 1;
        let claim = claim_on(session, number, file);
        table.execute(Time::ZERO, Command::Acquire { claim, leaders: Vec::new() }).map(drop)
    };
    // Who asked as the second of all, and the first of the greedy.
    let leave = |table: &mut Table| {
        let (owner, why) = (OwnerId { session: GREEDY, number: 2 }, Refusal::Interrupted);
        table.execute(Time::ZERO, Command::Withdraw { owner, why }).unwrap();
    };
    assert_eq!(wait(&mut table, OTHER), Ok(()));
    for _ in 0..WAITERS_PER_SESSION_MAX {
        assert_eq!(wait(&mut table, GREEDY), Ok(()));
    }
    assert_eq!(wait(&mut table, GREEDY), Err(Refusal::Limit(Limit::WaitersPerSession)));
    // Stateless clients are many.
    for _ in 0..WAITERS_MAX - 2 * WAITERS_PER_SESSION_MAX {
        assert_eq!(wait(&mut table, SessionId::STATELESS), Ok(()));
    }
    for _ in 0..WAITERS_PER_SESSION_MAX {
        assert_eq!(wait(&mut table, OTHER), Ok(()));
    }
    assert_eq!(wait(&mut table, last), Err(Refusal::Limit(Limit::Waiters)));
    leave(&mut table);
    assert_eq!(wait(&mut table, GREEDY), Ok(()), "one has gone");
    assert_eq!(wait(&mut table, last), Err(Refusal::Limit(Limit::Waiters)));
}

/// Whoever drives the table by hand must know when it may stop.
#[test]
fn nothing_comes_between_the_steps_in_which_a_session_ends() {
    let mut table = Table::new(Epoch(1));
    for session in [GREEDY, OTHER] {
        table.execute(Time::ZERO, Command::Open { session, lease: LEASE }).unwrap();
    }
    let now = Time::ZERO + LEASE * 2;
    for number in 1..=2 {
        ask(&mut table, GREEDY, number).unwrap();
    }
    table.execute(now, Command::Lose { session: GREEDY, heard: Time::ZERO }).unwrap();
    let claim = claim_on(OTHER, 1, FileKey { volume: GREEDY.0, inode: 1, generation: 0 });
    let asked = table.decide(now, Command::Acquire { claim, leaders: Vec::new() }).unwrap();
    let mut next = asked.into_iter().next();
    let mut ends = Vec::new();
    while let Some(event) = next {
        table.apply(&event);
        ends.push(table.ends_a_session());
        next = table.settle(now);
    }
    // It queued, ended both that the session had, closed that, and went in.
    assert_eq!(ends, [false, true, true, false, false]);
}
