//! How a broker is, for people and programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use gate_api::event;
use gate_api::wire::{Halt, Status};
use gate_view::written;
use serde::Serialize;
use utoipa::ToSchema;

use crate::board;

/// What a broker says of itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct Standing {
    pub address: String,
    #[serde(with = "written")]
    #[schema(value_type = String)]
    pub state_dir: PathBuf,
    pub pid: u32,
    pub version: String,
    pub epoch: u64,
    pub started_at: String,
    pub in_grace: bool,
    /// Why it grants nothing now, if that is so.
    pub halt: Option<Halted>,
    pub sessions: u64,
    /// Whose connection is gone, and what they have is kept.
    pub away: u64,
    pub held: u64,
    pub waiting: u64,
    pub counts: BTreeMap<String, u64>,
    pub spaces: Vec<Space>,
}

/// Why it grants nothing.
#[derive(Debug, Serialize, ToSchema)]
pub struct Halted {
    pub kind: &'static str,
    pub since: String,
    pub why: String,
}

/// A source that it decides about.
#[derive(Debug, Serialize, ToSchema)]
pub struct Space {
    pub name: String,
    pub source: String,
    pub clients: u64,
    /// Where another broker for its source would not be met, and why.
    pub gap: Option<String>,
}

impl Standing {
    /// Words what a broker says of itself.
    pub fn new(address: String, status: Status) -> Standing {
        use std::os::unix::ffi::OsStringExt as _;

        let space = |line: gate_api::wire::SpaceLine| Space {
            name: line.name,
            source: line.source,
            clients: line.clients,
            gap: line.gap,
        };
        Standing {
            address,
            state_dir: std::ffi::OsString::from_vec(status.broker.state_dir).into(),
            pid: status.broker.pid,
            version: status.broker.version,
            epoch: status.broker.epoch,
            started_at: board::utc(status.started_at_ms),
            in_grace: status.in_grace,
            halt: status.halt.map(Halted::new),
            sessions: status.sessions,
            away: status.away,
            held: status.held,
            waiting: status.waiting,
            counts: status.counts.into_iter().collect(),
            spaces: status.spaces.into_iter().map(space).collect(),
        }
    }

    /// Returns it as lines.
    pub fn text(&self) -> String {
        let Standing { address, version, pid, epoch, started_at, .. } = self;
        let mut text = format!("broker   {address}, gate {version}, process {pid}\n");
        let _ = writeln!(text, "state    {}", self.state_dir.display());
        let _ = writeln!(text, "since    {started_at}, epoch {epoch}");
        let Standing { sessions, held, waiting, .. } = self;
        let _ = writeln!(text, "locks    {held} held, {waiting} waiting; clients: {sessions}");
        if self.away > 0 {
            let _ = writeln!(text, "away     {} of them; what they have is kept", self.away);
        }
        if let Some(Halted { since, why, .. }) = &self.halt {
            let _ = writeln!(text, "journal  cannot be written since {since}: {why}");
            text.push_str(
                "         nothing is granted until it can; `gate doctor` says what to do\n",
            );
        }
        for Space { source, gap, .. } in &self.spaces {
            if let Some(gap) = gap {
                let _ = writeln!(text, "alone    maybe not, for {source}: {gap}");
            }
        }
        if self.in_grace {
            text.push_str("grace    former sessions may still come back\n");
        }
        text
    }
}

impl Halted {
    fn new(halt: Halt) -> Halted {
        let Halt { kind, since_ms, why } = halt;
        Halted { kind: event::standstill(kind), since: board::utc(since_ms), why }
    }
}
