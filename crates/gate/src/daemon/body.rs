//! The bodies of the REST interface for mounts, as both of its ends know them.

use std::path::PathBuf;

use gate_view::written;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A mount, as it is configured and as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    pub mount_id: Uuid,
    /// Of a mounted bucket, which it is.
    pub bucket_id: Option<Uuid>,
    /// Of a mounted directory, which it is.
    #[serde(with = "written")]
    pub source: PathBuf,
    #[serde(with = "written")]
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

/// What is wanted of a mount: of `POST /api/v0/mounts`, and what is to be changed, of
/// `PATCH /api/v0/mounts/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<WrittenPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// A path in JSON: text, or numbers where it is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WrittenPath(#[serde(with = "written")] pub PathBuf);

/// How a mount is to be stopped, and a daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// Also while it is used: who has something of it goes on with that until it is done.
    pub lazy: bool,
}

/// The answer with one mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct One {
    pub mount: Mount,
}

/// The answer with all of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct All {
    pub mounts: Vec<Mount>,
}

/// The answer of `POST …/start`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Started {
    pub started: bool,
    pub mount_id: Uuid,
    pub status: String,
    pub pid: Option<u32>,
}

/// The answer of `POST …/stop`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stopped {
    pub stopped: bool,
    pub mount_id: Uuid,
    pub status: String,
    /// What is to be said aloud, as that it is still used by somebody.
    pub notice: Option<String>,
}

/// The answer of `POST /api/v0/daemon/unmount`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unmounted {
    /// What is to be said aloud, as that a mount is still used by somebody.
    pub notices: Vec<String>,
}

/// The answer of `DELETE …`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deleted {
    pub deleted: bool,
}

/// What all refusals say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// One word, for programs.
    pub code: String,
    pub message: String,
    /// What to do.
    pub hint: String,
}
