//! The bodies of the REST interface, as both of its ends know them.

pub mod bucket;

use std::path::PathBuf;

use gate_api::wire::SessionLine;
use gate_view::written;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::processes;

/// Characters of an id that people are shown.
const ID_CHARS_SHOWN: usize = 8;

/// A mount, as it is configured and as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Mount {
    pub mount_id: Uuid,
    /// Of a mounted bucket, which it is.
    pub bucket_id: Option<Uuid>,
    /// Of a mounted directory, which it is; of a bucket, its name.
    #[serde(with = "written")]
    #[schema(value_type = Written)]
    pub source: PathBuf,
    #[serde(with = "written")]
    #[schema(value_type = Written)]
    pub mount_point: PathBuf,
    pub enabled: bool,
    pub auto_mount: bool,
    pub read_only: bool,
    pub allow_other: bool,
    pub cache_size_mb: u32,
    pub cache_ttl_secs: u32,
    /// Who serves it.
    pub pid: Option<u32>,
    /// `stopped`, `starting`, `running`, `stopping` or `error`.
    pub status: String,
    /// What went wrong last, until it runs again.
    pub error_message: Option<String>,
    pub created_at: String,
    pub updated_at: String,
}

impl Mount {
    /// Returns why it is not there although it is to be.
    pub fn trouble(&self) -> Option<&str> {
        let is_tried = ["error", "starting"].contains(&&*self.status);
        self.error_message.as_deref().filter(|_| is_tried)
    }
}

/// What became of a mount: of `GET /api/v0/mounts/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MountEvent {
    /// `added`, `changed` (what is configured), `status`, or `removed`.
    pub event: String,
    /// RFC 3339, UTC.
    pub at: String,
    pub mount_id: Uuid,
    #[serde(with = "written")]
    #[schema(value_type = Written)]
    pub mount_point: PathBuf,
    /// As it is by then, or was when it was removed.
    pub status: String,
    pub pid: Option<u32>,
    pub error_message: Option<String>,
}

/// Where to begin: of `GET /api/v0/mounts/events`.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct Since {
    /// After the event with this id; without it, with what happens next.
    pub since: Option<String>,
}

/// What is wanted of a mount: of `POST /api/v0/mounts`, and what is to be changed, of
/// `PATCH /api/v0/mounts/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Written>)]
    pub source: Option<WrittenPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Written>)]
    pub mount_point: Option<WrittenPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_mount: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_other: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_size_mb: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_ttl_secs: Option<u32>,
}

/// A path in JSON: text, or its bytes where it is none.
#[derive(Serialize, ToSchema)]
#[expect(dead_code, reason = "it is there for its schema alone")]
#[serde(untagged)]
pub enum Written {
    Text(String),
    Bytes(Vec<u8>),
}

/// A path of a mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WrittenPath(#[serde(with = "written")] pub PathBuf);

/// How a mount is to be stopped, and a daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// Also while it is used: who has something of it goes on with that until it is done.
    pub lazy: bool,
}

/// The answer with one mount.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct One {
    pub mount: Mount,
}

/// The answer with all of them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct All {
    pub mounts: Vec<Mount>,
}

/// The answer of `POST …/start`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Started {
    pub started: bool,
    pub mount_id: Uuid,
    pub status: String,
    pub pid: Option<u32>,
}

/// The answer of `POST …/stop`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Stopped {
    pub stopped: bool,
    pub mount_id: Uuid,
    pub status: String,
    /// What is to be said aloud, as that it is still used by somebody.
    pub notice: Option<String>,
}

/// The answer of `POST /api/v0/daemon/unmount`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Unmounted {
    /// What is to be said aloud, as that a mount is still used by somebody.
    pub notices: Vec<String>,
}

/// The answer of `DELETE …`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    pub deleted: bool,
}

/// A client of the broker: of `GET /api/v0/sessions`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Session {
    pub session_id: u64,
    /// What it calls itself.
    pub name: String,
    pub pid: Option<u32>,
    /// What that process runs, where it can be seen.
    pub command: Option<String>,
    /// Whether it may be on another machine.
    pub elsewhere: bool,
    /// Whether its connection is gone, and what it has is kept for its lease.
    pub away: bool,
    /// How long it may be away.
    pub lease_ms: u64,
    /// The names of the spaces in which it takes turns.
    pub spaces: Vec<String>,
    /// The agent whose private view it serves.
    pub agent: Option<String>,
}

/// The answer with all of them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Sessions {
    pub sessions: Vec<Session>,
}

/// Why a lock is taken away, or asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    pub reason: String,
    /// Of a recall: how long its holder has.
    pub within_ms: Option<u64>,
}

/// The answer to an order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Ordered {
    pub ticket: u64,
}

/// Where to look: of `GET /api/v0/locks`.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct At {
    /// The name of a space.
    pub space: Option<String>,
    /// A path in it, whose root is `.`; without a space an absolute one of this machine, in a view or behind one.
    pub path: Option<String>,
}

/// Who answers: of `GET /_status/identity`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    pub user: u32,
    pub host: String,
    pub pid: u32,
    #[serde(with = "written")]
    #[schema(value_type = Written)]
    pub state_dir: PathBuf,
    /// The run of the broker.
    pub epoch: u64,
}

/// Which release it is: of `GET /_status/version`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Version {
    pub version: String,
    pub arch: String,
}

/// Whether it works: of `GET /_status/livez` and `readyz`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    pub status: String,
    /// What is wrong.
    pub why: Option<String>,
}

/// Returns as much of an id as people need: so much tells mounts apart, mostly.
pub fn short(id: Uuid) -> String {
    id.to_string().chars().take(ID_CHARS_SHOWN).collect()
}

impl MountEvent {
    /// Tells how a mount is by now.
    pub fn new(event: String, at: String, mount: &Mount) -> MountEvent {
        let Mount { mount_id, mount_point, status, pid, error_message, .. } = mount.clone();
        MountEvent { event, at, mount_id, mount_point, status, pid, error_message }
    }
}

impl Session {
    /// Words what the broker says of a client.
    pub fn new(line: SessionLine) -> Session {
        let process = line.process.filter(|_| !line.elsewhere);
        Session {
            session_id: line.session,
            name: line.name,
            pid: line.process.map(|process| process.pid),
            command: process.and_then(processes::command),
            elsewhere: line.elsewhere,
            away: line.away,
            lease_ms: u64::try_from(line.lease.as_millis()).unwrap_or(u64::MAX),
            spaces: line.spaces,
            agent: line.agent,
        }
    }
}

/// What all refusals say.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Refused {
    /// One word, for programs.
    pub code: String,
    pub message: String,
    /// What to do.
    pub hint: String,
}
