//! The messages between a client and its broker.
//!
//! Everything is pipelined. An owner is known by the number its session chose; a query by an id
//! of the client. A *space* in a want or a change is the session's own number for what it
//! attached; paths are relative to that source. The broker turns both into its own.
//!
//! A client says `Hello` first. If the broker knows its session it then lists all it has (`Attach`, `Held`, `Waits`)
//! and ends the list with `Listed` before it says anything else; whatever became of the listed owners is
//! told by ordinary messages, then comes `Restored`.

#[cfg(test)]
mod golden;
mod log;
mod report;

use std::sync::Arc;
use std::time::Duration;

use gate_core::id::{SpaceId, Ticket, Token};
use gate_core::lock::claim::{Caller, Label, Patience, Process};
use gate_core::lock::event::{Change, RecallCause, RecallStage, Refusal, Revocation};
use gate_core::lock::key::FileKey;
use gate_core::lock::want::Want;
use gate_core::path::ViewPath;
use serde::{Deserialize, Serialize};

use crate::mirror::{
    FileKeyDef, LabelDef, PatienceDef, ProcessDef, RecallCauseDef, RecallStageDef, RefusalDef,
    RevocationDef, SpaceIdDef, TicketDef, TokenDef, WantDef, maybe_caller, maybe_change, path,
};

pub use log::{
    Cursor, Deed, Entry, Fate, Former, Happening, LogPage, LogQuery, Named, NoCursor, Overwrite,
    Pass, Presence, Record, Stretch, Subject,
};
pub use report::{
    Halt, Line, LinePlace, LineState, Locks, PrivateLine, Query, Reply, Scope, SessionLine,
    Sessions, SpaceLine, Status, Why,
};

/// What a client says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ClientMessage {
    /// First of all: who is there.
    Hello(Hello),
    /// Of a resumed session: it holds this.
    Held {
        acquire: Arc<Acquire>,
        #[serde(with = "TokenDef")]
        token: Token,
    },
    /// Of a resumed session: it waits for this.
    Waits { acquire: Arc<Acquire> },
    /// Of a resumed session: that was all.
    Listed,
    /// Speak of a source by this number from now on.
    Attach {
        #[serde(with = "SpaceIdDef")]
        space: SpaceId,
        source: Source,
    },
    /// An owner asks.
    Acquire(Arc<Acquire>),
    /// An owner lets go.
    Release {
        owner: u64,
        #[serde(with = "maybe_change")]
        change: Option<Change>,
    },
    /// An owner no longer wants to wait.
    Withdraw {
        owner: u64,
        #[serde(with = "RefusalDef")]
        why: Refusal,
    },
    /// What an owner was to create exists.
    Created {
        owner: u64,
        #[serde(with = "FileKeyDef")]
        file: FileKey,
    },
    /// A contended handle did I/O.
    Active { owner: u64 },
    /// A question.
    Query { id: u64, query: Query },
    /// The client is alive, though it has nothing to say.
    Ping,
    /// The session ends, with all that is its.
    Goodbye,
    /// Of views: an agent overwrote what it had not seen, or was to. For the log alone.
    Guarded(Overwrite),
}

/// What a broker says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ServerMessage {
    /// Answers `Hello`.
    Welcome(Welcome),
    /// Answers `Hello`: no, and why.
    Unwelcome { why: String },
    /// All that became of a resumed session's owners was told.
    Restored,
    /// Answers `Attach`.
    Attached {
        #[serde(with = "SpaceIdDef")]
        space: SpaceId,
        attached: Attached,
    },
    /// Answers `Attach`: no.
    AttachRefused {
        #[serde(with = "SpaceIdDef")]
        space: SpaceId,
        refusal: AttachRefusal,
    },
    /// An owner stands in line.
    Waiting {
        owner: u64,
        #[serde(with = "TicketDef")]
        ticket: Ticket,
    },
    /// An owner is let in.
    Granted(Granted),
    /// An owner is told no.
    Refused {
        owner: u64,
        #[serde(with = "RefusalDef")]
        why: Refusal,
    },
    /// A reader may go on without a grant.
    Ungated { owner: u64 },
    /// A grant is taken away.
    Revoked {
        owner: u64,
        #[serde(with = "RevocationDef")]
        why: Revocation,
        /// In words, if somebody gave them.
        reason: String,
    },
    /// A reader waits for this open handle: tell of its I/O.
    Contended { owner: u64 },
    /// Answers `Query`.
    Reply { id: u64, reply: Reply },
    /// Answers `Ping`.
    Pong,
    /// A holder is asked to let go.
    Recalled { owner: u64, recall: Recall },
}

/// Who a client is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// What it calls itself, for people.
    pub client: String,
    /// Its process.
    #[serde(with = "ProcessDef")]
    pub process: Process,
    /// The boot of the machine it runs on.
    pub machine: u64,
    /// How long it may be away, within [`LEASE_MS_MIN`] and [`LEASE_MS_MAX`]; `None` for the broker's
    /// default.
    pub lease: Option<Duration>,
    /// How long its owners may hold while others wait; `None` for the broker's default.
    pub max_hold: Option<MaxHold>,
    /// The session it comes back to.
    pub resume: Option<Resume>,
    /// The view it serves, if that is not for everybody to see.
    pub private: Option<PrivateView>,
}

/// A view that only one agent sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateView {
    /// The agent.
    pub agent: String,
    /// Where it sees the view, as bytes of a path.
    pub mountpoint: Vec<u8>,
    /// The directory behind it, as bytes of a path.
    pub source: Vec<u8>,
}

/// How long an owner may hold while others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MaxHold {
    /// So long.
    After(Duration),
    /// For ever.
    Never,
}

/// Proof that a session is the client's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The session.
    pub session: u64,
    /// Its secret.
    pub key: u128,
}

/// The shortest lease of a client: heartbeats of it are heard in time.
pub const LEASE_MS_MIN: u64 = 100;
/// The longest: a day.
pub const LEASE_MS_MAX: u64 = 24 * 3600 * 1000;

/// What a client must know of its session and its broker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The session, with what it takes to come back to it.
    pub session: Resume,
    /// What the broker knows of the session the client asked to resume.
    pub known: Known,
    /// How long the client may be away.
    pub lease: Duration,
    /// Who answers.
    pub broker: BrokerInfo,
}

/// What a broker knows of a session that a client comes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Known {
    /// Nothing: this is another session, and what was held is lost.
    Nothing,
    /// All.
    All,
    /// Not all: its machine went down, and it may have forgotten that it ended what the session held.
    /// That it did only after the client could no longer act; to such a one it is as if nothing were
    /// known.
    Part,
}

impl Known {
    /// Returns what that is to a client that could act all the time: it was not ended.
    pub fn to_one_who_could_act(self) -> Known {
        match self {
            Known::All | Known::Part => Known::All,
            Known::Nothing => Known::Nothing,
        }
    }
}

/// A broker, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerInfo {
    /// Its run.
    pub epoch: u64,
    /// Its release.
    pub version: String,
    /// Its process id, where it runs.
    pub pid: u32,
    /// Where it keeps its journal, as bytes of a path.
    pub state_dir: Vec<u8>,
}

/// One owner's request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Acquire {
    /// The session's number for who asks.
    pub owner: u64,
    /// Who the owner belongs to.
    pub party: Party,
    /// Who makes the call, as far as known.
    #[serde(with = "maybe_caller")]
    pub caller: Option<Caller>,
    /// How long it waits.
    #[serde(with = "PatienceDef")]
    pub patience: Patience,
    /// After how long without I/O open handles no longer stop it; for pure readers.
    pub read_wait: Option<Duration>,
    /// For people.
    #[serde(with = "LabelDef")]
    pub label: Label,
    /// What it asks for.
    #[serde(with = "WantDef")]
    pub want: Want,
}

/// Who an owner belongs to, as its client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Party {
    /// A process.
    Process(#[serde(with = "ProcessDef")] Process),
    /// All who give this name.
    Named(String),
    /// All of this session.
    Session,
    /// The owner alone.
    Owner,
}

/// An owner is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Who.
    pub owner: u64,
    /// Its place in line, for people.
    #[serde(with = "TicketDef")]
    pub ticket: Ticket,
    /// The fencing token.
    #[serde(with = "TokenDef")]
    pub token: Token,
    /// How many acquires stand behind it.
    pub count: u32,
    /// Whether only kin let it pass.
    pub by_kin: bool,
}

/// A holder is asked to let go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recall {
    /// Why.
    #[serde(with = "RecallCauseDef")]
    pub why: RecallCause,
    /// How seriously.
    #[serde(with = "RecallStageDef")]
    pub stage: RecallStage,
    /// It loses its grant after this, if somebody waits for it then.
    pub within: Duration,
    /// In words, if somebody gave them.
    pub reason: String,
}

/// The files behind a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// What they are.
    pub origin: Origin,
    /// The space the client wants it in, if it said so.
    pub space: Option<String>,
    /// Whether the client found the broker by host and port: then the default space is meant.
    pub by_host_and_port: bool,
    /// How it is to be served; `None` for a client that shows no view of it and takes what is.
    pub rules: Option<Rules>,
}

/// What a source is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A directory of a machine.
    Directory(Directory),
    /// A bucket, by its id.
    Bucket(String),
}

/// A directory, with all that lies above it: so overlaps are seen however it was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The boot of its machine.
    pub machine: u64,
    /// Its absolute path, as bytes.
    pub path: Vec<u8>,
    /// Itself.
    pub root: Inode,
    /// The directories above it, nearest first, each with the name that leads down from it.
    pub above: Vec<(Inode, Vec<u8>)>,
}

/// A directory's identity on its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Inode {
    /// The device.
    pub device: u64,
    /// The inode number.
    pub number: u64,
}

/// What the first view of a source fixes for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// See `read_wait`; `None` is for ever.
    pub read_wait: Option<Duration>,
    /// The policies, in a canonical text.
    pub policies: String,
}

/// Where a source lies at the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The name of its space.
    pub space: String,
    /// Where its root lies in that.
    #[serde(with = "path")]
    pub prefix: ViewPath,
    /// What the user should be told, if anything.
    pub notice: Option<String>,
}

/// Why a source is not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRefusal {
    /// What stands against it.
    pub reason: String,
    /// What can be done.
    pub fix: String,
}
