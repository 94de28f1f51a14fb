//! What an older broker shows of its locks, as ours would.

use std::io::{self, ErrorKind};

use gate_core::id::{Epoch, Token};
use gate_core::lock::want::{Access, Op};
use gate_core::path::ViewPath;

use super::SPACE;
use super::clerk::CALL_PATIENCE;
use super::http::{Call, Http};
use crate::http::Request;
use crate::v1::{BoardAnswer, Lock, Mode, Waiter};
use crate::wire::{Line, LinePlace, LineState, Locks, Scope};

/// Looks whether a server speaks the stateless interface.
pub(super) fn probe(http: &Http) -> io::Result<()> {
    fetch(http, "/v1/locks/status?path=.").map(drop)
}

/// Returns who holds and who waits in a scope, beyond the ticket `after`; `None` if the scope is
/// unknown there.
pub(super) fn show(http: &Http, scope: &Scope, after: u64) -> io::Result<Option<Locks>> {
    let top = match scope {
        Scope::Everything => ViewPath::root(),
        Scope::Within { space, path } if space == SPACE => path.clone(),
        Scope::Within { .. } | Scope::Absolute(_) => return Ok(None),
    };
    let board = fetch(http, "/v1/locks/status")?;
    let held = board.locks.iter().map(line_of_lock);
    let waiting = board.queue.iter().zip(1..).map(line_of_waiter);
    let mut lines: Vec<Line> = held.chain(waiting).collect();
    // There are no tickets: the order has to do.
    for (line, number) in lines.iter_mut().zip(1..) {
        line.ticket = number;
    }
    lines.retain(|line| line.ticket > after && is_beneath(line, &top));
    Ok(Some(Locks { version: 0, lines, more: false }))
}

fn fetch(http: &Http, target: &str) -> io::Result<BoardAnswer> {
    let reply = http.call(&Request::bare("GET", target), Some(CALL_PATIENCE), &Call::default())?;
    match reply.status {
        200 => Ok(serde_json::from_slice(&reply.body)?),
        status => Err(io::Error::new(ErrorKind::InvalidData, format!("status {status}"))),
    }
}

fn is_beneath(line: &Line, top: &ViewPath) -> bool {
    let beneath = |place: &LinePlace| place.path.as_ref().and_then(|path| path.beneath(top));
    top.is_root() || line.places.iter().any(|place| beneath(place).is_some())
}

fn line_of_lock(lock: &Lock) -> Line {
    let token = Token { epoch: Epoch(0), counter: 0 };
    let lease_expires_at_ms = lock.lease_expires_at.as_deref().map(ms_of);
    let state =
        LineState::Held { token, by_kin: false, lease_expires_at_ms, recalled_until_ms: None };
    let line = line(&lock.path, lock.mode, &lock.owner, state);
    Line { count: lock.hold_count, since_ms: ms_of(&lock.acquired_at), ..line }
}

fn line_of_waiter((waiter, place): (&Waiter, u64)) -> Line {
    let state = LineState::Waiting { place, behind: Vec::new() };
    let line = line(&waiter.path, waiter.mode, &waiter.owner, state);
    Line { since_ms: ms_of(&waiter.requested_at), ..line }
}

fn line(path: &str, mode: Mode, owner: &str, state: LineState) -> Line {
    let access = match mode {
        Mode::Read => Access::Read,
        Mode::Write => Access::Write,
    };
    Line {
        ticket: 0,
        space: SPACE.to_owned(),
        places: vec![LinePlace { path: ViewPath::parse(path.as_bytes()).ok(), directory: false }],
        op: Op::Lock(access),
        access,
        state,
        count: 1,
        since_ms: 0,
        owner: owner.to_owned(),
        reason: String::new(),
        process: None,
        client: String::new(),
    }
}

/// Reads RFC 3339; what is no time is shown as the beginning of times.
fn ms_of(time: &str) -> u64 {
    let time: Option<jiff::Timestamp> = time.parse().ok();
    time.and_then(|time| u64::try_from(time.as_millisecond()).ok()).unwrap_or_default()
}
