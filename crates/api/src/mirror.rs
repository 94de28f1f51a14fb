//! How core's types look on a wire and in the journal.
//!
//! Core derives no `Serialize`; each definition here mirrors one of its types, checked by the
//! compiler. The order of variants and fields is the format: a change is a new version of the
//! protocol and of the journal.

use std::fmt;
use std::time::Duration;

use gate_core::id::{Epoch, SessionId, SpaceId, Ticket, Token};
use gate_core::lock::claim::{Caller, Label, Patience, Process};
use gate_core::lock::event::{Change, RecallCause, RecallStage, Refusal, Revocation, Standstill};
use gate_core::lock::key::FileKey;
use gate_core::lock::limits::Limit;
use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_core::path::ViewPath;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeSeq};

#[derive(Serialize, Deserialize)]
#[serde(remote = "SpaceId")]
pub struct SpaceIdDef(pub u32);

#[derive(Serialize, Deserialize)]
#[serde(remote = "SessionId")]
pub struct SessionIdDef(pub u64);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Ticket")]
pub struct TicketDef(pub u64);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Epoch")]
pub struct EpochDef(pub u64);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Token")]
pub struct TokenDef {
    #[serde(with = "EpochDef")]
    pub epoch: Epoch,
    pub counter: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "FileKey")]
pub struct FileKeyDef {
    pub volume: u64,
    pub inode: u64,
    pub generation: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Access")]
pub enum AccessDef {
    Read,
    Write,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Op")]
pub enum OpDef {
    Open(#[serde(with = "AccessDef")] Access),
    Create,
    Truncate,
    Unlink,
    Link,
    Rename,
    Chmod,
    Chown,
    Utimens,
    Setxattr,
    Mkdir,
    Mknod,
    Symlink,
    Rmdir,
    Hold(#[serde(with = "AccessDef")] Access),
    Lock(#[serde(with = "AccessDef")] Access),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Node")]
pub enum NodeDef {
    None,
    File(#[serde(with = "FileKeyDef")] FileKey),
    Directory,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Place")]
pub struct PlaceDef {
    #[serde(with = "SpaceIdDef")]
    pub space: SpaceId,
    #[serde(with = "maybe_path")]
    pub path: Option<ViewPath>,
    #[serde(with = "NodeDef")]
    pub node: Node,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Want")]
pub struct WantDef {
    #[serde(with = "OpDef")]
    pub op: Op,
    #[serde(with = "places")]
    pub places: Vec<Place>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Change")]
pub enum ChangeDef {
    Removed {
        #[serde(with = "SpaceIdDef")]
        space: SpaceId,
        #[serde(with = "path")]
        path: ViewPath,
    },
    Renamed {
        #[serde(with = "SpaceIdDef")]
        space: SpaceId,
        #[serde(with = "path")]
        from: ViewPath,
        #[serde(with = "path")]
        to: ViewPath,
    },
    Exchanged {
        #[serde(with = "SpaceIdDef")]
        space: SpaceId,
        #[serde(with = "path")]
        one: ViewPath,
        #[serde(with = "path")]
        other: ViewPath,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Process")]
pub struct ProcessDef {
    pub namespace: u64,
    pub pid: u32,
    pub start: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Caller")]
pub struct CallerDef {
    #[serde(with = "ProcessDef")]
    pub process: Process,
    pub thread: u32,
    pub single_threaded: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Patience")]
pub enum PatienceDef {
    Try,
    Limited(Duration),
    Endless,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Label")]
pub struct LabelDef {
    pub owner: String,
    pub reason: String,
    pub asked_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Limit")]
pub enum LimitDef {
    Sessions,
    Waiters,
    WaitersPerSession,
    KeysPerRequest,
    Grants,
    PathBytes,
    TextBytes,
    GrantsPerSession,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Refusal")]
pub enum RefusalDef {
    TimedOut,
    WouldBlock,
    Interrupted,
    Deadlock,
    Limit(#[serde(with = "LimitDef")] Limit),
    Unknown,
    OwnerBusy,
    Broken,
    Standstill(#[serde(with = "StandstillDef")] Standstill),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Standstill")]
pub enum StandstillDef {
    NoRoom,
    Fault,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Revocation")]
pub enum RevocationDef {
    MaxHold,
    LeaseLost,
    Broken,
    Recalled,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RecallCause")]
pub enum RecallCauseDef {
    MaxHold,
    Request,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RecallStage")]
pub enum RecallStageDef {
    Warned,
    Asked,
}

/// Makes a module for `#[serde(with)]` of a mirrored type that may be missing.
macro_rules! maybe {
    ($(#[$doc:meta])* $module:ident, $def:literal, $type:ty) => {
        $(#[$doc])*
        pub mod $module {
            use super::*;

            #[derive(Serialize, Deserialize)]
            struct Carried(#[serde(with = $def)] $type);

            pub fn serialize<S: Serializer>(
                value: &Option<$type>,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                value.clone().map(Carried).serialize(serializer)
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Option<$type>, D::Error> {
                Ok(Option::<Carried>::deserialize(deserializer)?.map(|carried| carried.0))
            }
        }
    };
}

maybe!(
    /// A path that may be missing.
    maybe_path, "path", ViewPath
);
maybe!(
    /// A change of names that may be missing.
    maybe_change, "ChangeDef", Change
);
maybe!(
    /// A process that may not be known.
    maybe_process, "ProcessDef", Process
);
maybe!(
    /// A caller that may not be known.
    maybe_caller, "CallerDef", Caller
);

/// A path, as bytes.
pub mod path {
    use super::*;

    pub fn serialize<S: Serializer>(path: &ViewPath, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(path.as_bytes())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ViewPath, D::Error> {
        deserializer.deserialize_bytes(PathVisitor)
    }

    struct PathVisitor;

    impl de::Visitor<'_> for PathVisitor {
        type Value = ViewPath;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the bytes of a path")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<ViewPath, E> {
            ViewPath::parse(bytes).map_err(E::custom)
        }
    }
}

/// The places of a want.
pub mod places {
    use super::*;

    #[derive(Deserialize)]
    struct Carried(#[serde(with = "PlaceDef")] Place);

    #[derive(Serialize)]
    struct Lent<'a>(#[serde(serialize_with = "lent_place")] &'a Place);

    fn lent_place<S: Serializer>(place: &&Place, serializer: S) -> Result<S::Ok, S::Error> {
        PlaceDef::serialize(place, serializer)
    }

    pub fn serialize<S: Serializer>(places: &[Place], serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(places.len()))?;
        for place in places {
            sequence.serialize_element(&Lent(place))?;
        }
        sequence.end()
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Place>, D::Error> {
        let places = Vec::<Carried>::deserialize(deserializer)?;
        Ok(places.into_iter().map(|carried| carried.0).collect())
    }
}
