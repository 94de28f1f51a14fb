//! Questions, and answers for people: who holds, who waits, why, how the broker is.

use std::time::Duration;

use gate_core::id::Token;
use gate_core::lock::claim::Process;
use gate_core::lock::event::Standstill;
use gate_core::lock::want::{Access, Op};
use gate_core::path::ViewPath;
use serde::{Deserialize, Serialize};

use super::{BrokerInfo, Entry, LogPage, LogQuery, PrivateView};
use crate::mirror::{AccessDef, OpDef, StandstillDef, TokenDef, maybe_path, maybe_process, path};

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Query {
    /// Who holds and who waits. With `newer_than`, answered once the table changed since then.
    Locks {
        scope: Scope,
        newer_than: Option<u64>,
        /// Only those with a later ticket: the next page.
        after: u64,
    },
    /// All about one path. About everything: the turns that were taken away lately, and no lines.
    Why { scope: Scope },
    /// How the broker is.
    Status,
    /// End a claim, and say why.
    Break { ticket: u64, reason: String },
    /// Ask a holder to let go within a time, and say why.
    Recall { ticket: u64, reason: String, within: Duration },
    /// What happened.
    Log(LogQuery),
    /// Which clients there are; only those with a later number: the next page.
    Sessions { after: u64 },
}

/// The paths a question is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// All there are.
    Everything,
    /// A path in a space, and all beneath it.
    Within {
        space: String,
        #[serde(with = "path")]
        path: ViewPath,
    },
    /// A path of the broker's machine, as bytes, at or below the root of a source.
    Absolute(Vec<u8>),
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To `Locks`.
    Locks(Locks),
    /// To `Why`.
    Why(Why),
    /// To `Status`.
    Status(Status),
    /// To `Break` and `Recall`: done.
    Done,
    /// To `Log`.
    Log(LogPage),
    /// There is no such path, space or ticket.
    Unknown,
    /// This client may not ask that.
    Forbidden,
    /// To ask that makes no sense, whoever does: to break a lock without a reason.
    Nonsense,
    /// To `Sessions`.
    Sessions(Sessions),
}

/// Who holds and who waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    /// The state of the table this is of.
    pub version: u64,
    /// Oldest first.
    pub lines: Vec<Line>,
    /// Whether there are more, with later tickets.
    pub more: bool,
}

/// One claim, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its place in the global order.
    pub ticket: u64,
    /// The space of its first place.
    pub space: String,
    /// Its names there.
    pub places: Vec<LinePlace>,
    /// What is done.
    #[serde(with = "OpDef")]
    pub op: Op,
    /// Whether it shares.
    #[serde(with = "AccessDef")]
    pub access: Access,
    /// Whether it holds or waits.
    pub state: LineState,
    /// How many acquires stand behind it.
    pub count: u32,
    /// Since when: milliseconds since 1970, UTC.
    pub since_ms: u64,
    /// Whose it is, as people know it.
    pub owner: String,
    /// Why, if somebody said so.
    pub reason: String,
    /// The process it belongs to, if one does.
    #[serde(with = "maybe_process")]
    pub process: Option<Process>,
    /// The client that asked, as it calls itself.
    pub client: String,
}

/// A name of a claim, as far as it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinePlace {
    /// The path in its space.
    #[serde(with = "maybe_path")]
    pub path: Option<ViewPath>,
    /// Whether it is a directory.
    pub directory: bool,
}

/// Whether a claim holds or waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineState {
    /// It was let in.
    Held {
        #[serde(with = "TokenDef")]
        token: Token,
        /// Whether only kin let it pass.
        by_kin: bool,
        /// When its lease ends, if it lives by one: milliseconds since 1970, UTC.
        lease_expires_at_ms: Option<u64>,
        /// Until when it was asked to let go, if it was: milliseconds since 1970, UTC.
        recalled_until_ms: Option<u64>,
    },
    /// It stands in line.
    Waiting {
        /// Its place there, from 1.
        place: u64,
        /// The tickets of some of those in its way, holders first.
        behind: Vec<u64>,
    },
}

/// All about one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The space.
    pub space: String,
    /// The path in it.
    #[serde(with = "path")]
    pub path: ViewPath,
    /// Who uses it, what is beneath it, or holds a directory above it.
    pub lines: Vec<Line>,
    /// What happened there lately that somebody may ask about, oldest first.
    pub past: Vec<Entry>,
}

/// The journal cannot be written, and so nothing is granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// What a caller is told.
    #[serde(with = "StandstillDef")]
    pub kind: Standstill,
    /// Since when: milliseconds since 1970, UTC.
    pub since_ms: u64,
    /// What the disk says.
    pub why: String,
}

/// How the broker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Who answers.
    pub broker: BrokerInfo,
    /// Since when it runs: milliseconds since 1970, UTC.
    pub started_at_ms: u64,
    /// Whether former sessions may still come back.
    pub in_grace: bool,
    /// Why nothing is granted now, if that is so.
    pub halt: Option<Halt>,
    /// Clients there are.
    pub sessions: u64,
    /// Those of them whose connection is gone; what they have is kept for them.
    pub away: u64,
    /// Claims that hold.
    pub held: u64,
    /// Claims that wait.
    pub waiting: u64,
    /// Sources served.
    pub spaces: Vec<SpaceLine>,
    /// Views that are not for everybody to see.
    pub private: Vec<PrivateLine>,
    /// Bounds, by name.
    pub limits: Vec<(String, u64)>,
    /// What was counted since the start, by name.
    pub counts: Vec<(String, u64)>,
}

/// A private view, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateLine {
    /// Whose and where.
    pub view: PrivateView,
    /// The process that serves it, where it runs.
    pub pid: u32,
}

/// Clients, by the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Some of them.
    pub lines: Vec<SessionLine>,
    /// Whether there are more, with greater numbers.
    pub more: bool,
}

/// A client, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLine {
    /// Its number, which no other client of this journal ever has.
    pub session: u64,
    /// What it calls itself.
    pub name: String,
    /// Its process, as it says.
    #[serde(with = "maybe_process")]
    pub process: Option<Process>,
    /// Whether it may be on another machine.
    pub elsewhere: bool,
    /// Whether its connection is gone, and what it has is kept for its lease.
    pub away: bool,
    /// How long it may be away.
    pub lease: Duration,
    /// The names of the spaces that it attached.
    pub spaces: Vec<String>,
    /// The agent whose private view it serves, if it serves one.
    pub agent: Option<String>,
}

/// A space, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceLine {
    /// Its name.
    pub name: String,
    /// Its source, for people; empty while it has none.
    pub source: String,
    /// How many have attached it: views, and those who hold something in it.
    pub clients: u64,
    /// Where another broker for its source would not be met, and why, for people.
    pub gap: Option<String>,
}
