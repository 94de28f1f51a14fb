//! Claims and a broker for tests: `w f` writes f, `r f` reads it.

use gate_api::wire::{BrokerInfo, Line, LinePlace, LineState, SpaceLine, Status};
use gate_core::id::{Epoch, Token};
use gate_core::lock::want::{Access, Op};
use gate_core::path::ViewPath;

/// A claim that holds since then.
pub fn held(ticket: u64, what: &str, since_ms: u64) -> Line {
    let token = Token { epoch: Epoch(1), counter: ticket };
    let state = LineState::Held {
        token,
        by_kin: false,
        lease_expires_at_ms: None,
        recalled_until_ms: None,
    };
    Line { since_ms, ..line(ticket, what, state) }
}

/// A claim that waits since the beginning; its place is that behind all these tickets.
pub fn waits(ticket: u64, what: &str, behind: &[u64]) -> Line {
    let place = behind.len() as u64;
    line(ticket, what, LineState::Waiting { place, behind: behind.to_vec() })
}

fn line(ticket: u64, what: &str, state: LineState) -> Line {
    let (mode, paths) = what.split_once(' ').unwrap();
    let access = if mode == "r" { Access::Read } else { Access::Write };
    let place = |path: &str| LinePlace {
        path: Some(ViewPath::parse(path.as_bytes()).unwrap()),
        directory: false,
    };
    Line {
        ticket,
        space: "default".into(),
        places: paths.split(' ').map(place).collect(),
        op: Op::Open(access),
        access,
        state,
        count: 1,
        since_ms: 0,
        owner: format!("owner{ticket}"),
        reason: String::new(),
        process: None,
        client: "mount /mnt".into(),
    }
}

/// A broker at work.
pub fn status(epoch: u64) -> Status {
    let broker =
        BrokerInfo { epoch, version: "0.1.0".into(), pid: 7, state_dir: b"/state".to_vec() };
    Status {
        broker,
        started_at_ms: 0,
        in_grace: false,
        halt: None,
        sessions: 4,
        away: 0,
        held: 3,
        waiting: 2,
        spaces: vec![SpaceLine {
            name: "default".into(),
            source: "/src".into(),
            clients: 1,
            gap: None,
        }],
        private: vec![],
        limits: vec![],
        counts: vec![("granted".into(), 9), ("refused".into(), 1), ("revoked".into(), 0)],
    }
}
