//! What `gate locks --json` tells: the one place that knows its shape.

use serde_json::Value;

use crate::wait::{SOON, wait_until};
use crate::world::World;

/// One grant or one place in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The path within the space; of one that is no text the list of its bytes, as it is told.
    pub path: String,
    /// `read` or `write`.
    pub mode: String,
    /// `held` or `waiting`.
    pub state: String,
    /// The process it belongs to, where there is one.
    pub pid: Option<i32>,
    /// The fencing token of a grant, its numbers in the order in which they count.
    pub token: Option<Vec<u64>>,
    /// The place in the global order.
    pub ticket: u64,
}

/// All that the broker holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// The run of the broker.
    pub epoch: u64,
    /// Grants and places.
    pub locks: Vec<Lock>,
}

impl Board {
    /// Returns the grants on `path`.
    pub fn held(&self, path: &str) -> impl Iterator<Item = &Lock> {
        self.on(path, "held")
    }

    /// Returns the places in the line of `path`.
    pub fn waiting(&self, path: &str) -> impl Iterator<Item = &Lock> {
        self.on(path, "waiting")
    }

    /// Asserts that no two grants on one path conflict.
    #[track_caller]
    pub fn assert_no_conflict(&self) {
        for lock in self.locks.iter().filter(|l| l.state == "held" && l.mode == "write") {
            let others: Vec<_> = self.held(&lock.path).filter(|o| *o != lock).collect();
            assert!(others.is_empty(), "{lock:?} is held beside {others:?}");
        }
    }

    fn on(&self, path: &str, state: &str) -> impl Iterator<Item = &Lock> {
        self.locks.iter().filter(move |l| l.path == path && l.state == state)
    }
}

impl World {
    /// Asks `gate locks --json`.
    #[must_use]
    #[track_caller]
    pub fn board(&self) -> Board {
        let text = self.gate(["locks", "--json"]).run().success();
        parse(&text).unwrap_or_else(|| panic!("not the shape of a board: {text}"))
    }

    /// Waits until `count` requests wait in the line of `path`.
    #[track_caller]
    pub fn await_waiting(&self, path: &str, count: usize) {
        wait_until(SOON, &format!("{count} wait for {path}"), || {
            self.board().waiting(path).count() == count
        });
    }

    /// Waits until `count` grants stand on `path`.
    #[track_caller]
    pub fn await_held(&self, path: &str, count: usize) {
        wait_until(SOON, &format!("{count} hold {path}"), || {
            self.board().held(path).count() == count
        });
    }

    /// Waits until nobody holds and nobody waits for anything.
    #[track_caller]
    pub fn await_idle(&self) {
        wait_until(SOON, "nobody holds and nobody waits", || self.board().locks.is_empty());
    }
}

fn parse(text: &str) -> Option<Board> {
    let board: Value = serde_json::from_str(text).ok()?;
    assert_eq!(board["version"], 1, "an unknown version of the board");
    let locks = board["locks"].as_array()?.iter().map(parse_lock).collect::<Option<_>>()?;
    Some(Board { epoch: board["epoch"].as_u64()?, locks })
}

fn parse_lock(lock: &Value) -> Option<Lock> {
    let text = |name: &str| lock[name].as_str().map(str::to_owned);
    Some(Lock {
        path: text("path").unwrap_or_else(|| lock["path"].to_string()),
        mode: text("mode")?,
        state: text("state")?,
        pid: lock["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()),
        token: (!lock["token"].is_null()).then(|| numbers_in(&lock["token"].to_string())),
        ticket: lock["ticket"].as_u64()?,
    })
}

fn numbers_in(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}
