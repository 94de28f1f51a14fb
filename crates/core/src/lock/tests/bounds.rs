//! A table whose bounds are reached.

use std::sync::Arc;
use std::time::Duration;

use crate::id::{Epoch, OwnerId, SessionId, SpaceId, Ticket, Token};
use crate::lock::claim::{Claim, Label, Party, Patience, Terms};
use crate::lock::event::{Command, Refusal};
use crate::lock::key::FileKey;
use crate::lock::limits::{GRANTS_PER_SESSION_MAX, Limit};
use crate::lock::table::{Restore, Table};
use crate::lock::want::{Access, Node, Op, Place, Want};
use crate::time::Time;

const LEASE: Duration = Duration::from_secs(10);
const GREEDY: SessionId = SessionId(1);
const OTHER: SessionId = SessionId(2);

/// To write a file of its own, of which nothing but its key is known.
fn claim(session: SessionId, number: u64) -> Arc<Claim> {
    let owner = OwnerId { session, number };
    let terms = Terms {
        owner,
        party: Party::Owner(owner),
        caller: None,
        patience: Patience::Endless,
        read_wait: None,
        lease: None,
        max_hold: None,
        label: Label::default(),
    };
    let node = Node::File(FileKey { volume: session.0, inode: number, generation: 0 });
    let place = Place { space: SpaceId(1), path: None, node };
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
