//! The bodies of the REST interface for buckets and for the device that they are sealed for.

use std::fmt;
use std::path::PathBuf;

use gate_view::written;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Refused, Written, WrittenPath};

/// Characters of a version that people are shown.
const VERSION_CHARS_SHOWN: usize = 12;

/// What nobody else may know; it shows itself nowhere but on the wire.
#[derive(ToSchema)]
#[schema(value_type = String)]
pub struct Secret(pub Zeroizing<String>);

/// The device whose buckets these are: of `GET /api/v0/device`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Device {
    /// `none`, `locked` or `open`.
    pub state: String,
    /// Its public key in hexadecimal digits, by which others know it; unknown while it is locked.
    pub device_id: Option<String>,
    /// Whether a passphrase seals it.
    pub has_passphrase: bool,
}

/// What opens the device: of `POST /api/v0/device` and `…/unlock`.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Key {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Secret>,
}

/// What is to open the device from now on: of `PUT /api/v0/device/passphrase`.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OtherKey {
    /// That of now, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Secret>,
    /// The next one; without it there is none any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Secret>,
}

/// A bucket of this device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Bucket {
    pub bucket_id: Uuid,
    /// What this device calls it.
    pub name: String,
    /// RFC 3339, UTC, by the clock of who made it.
    pub created_at: String,
    /// Bytes that it takes on the disk.
    pub stored_bytes: u64,
}

/// What a bucket is to be called: of `POST /api/v0/buckets` and `PATCH /api/v0/buckets/{bucket}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// At most 64 bytes of text.
    pub name: String,
}

/// The answer with one bucket.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OneBucket {
    pub bucket: Bucket,
    /// Whether the device was made along with it.
    #[serde(default)]
    pub device_made: bool,
}

/// The answer with all of them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AllBuckets {
    pub buckets: Vec<Bucket>,
}

/// How a bucket is to be checked: of `POST /api/v0/buckets/{bucket}/fsck`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Check {
    /// Read every byte, too.
    pub read_data: bool,
}

/// How far a check is, or what frees.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Checking {
    pub packs_done: u64,
    pub packs: u64,
}

/// What a check found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Checked {
    pub entries: u64,
    pub chunks: u64,
    /// All that is wrong still: a backup can mend it, or another device.
    pub fault_count: u64,
    /// What it is, up to a bound.
    pub faults: Vec<String>,
    /// What was wrong with the index, and is put right.
    pub mended: Vec<String>,
}

/// How to free what is not needed: of `POST /api/v0/buckets/{bucket}/gc`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Freeing {
    /// The oldest version that is kept: what files held before it is given up, for ever. Without it all are.
    pub keep_from: Option<String>,
}

/// What was freed: of `POST /api/v0/buckets/{bucket}/gc`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Freed {
    /// What it took on the disk.
    pub bytes: u64,
    /// Of so many chunks.
    pub chunks: u64,
    /// Files that are gone: what was needed of them moved.
    pub packs: u64,
    /// What nothing needs and is younger than a day: it stays.
    pub young_bytes: u64,
    /// Files that stay because something in them that is needed cannot be read.
    pub damaged_packs: u64,
}

/// Something in a bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Where it is, from the bucket's root on, with a slash first.
    #[serde(with = "written")]
    #[schema(value_type = Written)]
    pub path: PathBuf,
    /// `file`, `directory` or `symlink`.
    pub kind: String,
    /// Bytes of a file.
    pub size: u64,
    /// Permissions.
    pub mode: u32,
    /// RFC 3339, UTC.
    pub modified: String,
    /// Where a symbolic link leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Written>)]
    pub target: Option<WrittenPath>,
    /// From how many versions, written at the same time, what it holds is merged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged_of: Option<u64>,
}

/// The answer with all that is in a directory.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Listed {
    pub entries: Vec<Node>,
}

/// The answer with one of them.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct OneNode {
    pub entry: Node,
}

/// A directory to be made: of `POST /api/v0/buckets/{bucket}/mkdir`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDirectory {
    #[serde(with = "written")]
    #[schema(value_type = Written)]
    pub path: PathBuf,
    /// With those that lead there; one that is there is fine.
    #[serde(default)]
    pub parents: bool,
}

/// What is to go: of `POST /api/v0/buckets/{bucket}/rm`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    #[serde(with = "written")]
    #[schema(value_type = Written)]
    pub path: PathBuf,
    /// With all that is in it.
    #[serde(default)]
    pub recursive: bool,
}

/// What is to move: of `POST /api/v0/buckets/{bucket}/mv`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Move {
    #[serde(with = "written")]
    #[schema(value_type = Written)]
    pub from: PathBuf,
    #[serde(with = "written")]
    #[schema(value_type = Written)]
    pub to: PathBuf,
}

/// What is to be as it was: of `POST /api/v0/buckets/{bucket}/restore`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Restoration {
    #[serde(with = "written")]
    #[schema(value_type = Written)]
    pub path: PathBuf,
    /// In which version: `~N`, the beginning of its id, or a time.
    pub at: String,
}

/// What is to be taken back: of `POST /api/v0/buckets/{bucket}/undo`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Undoing {
    /// The version that what was done led to; without it the newest.
    pub version: Option<String>,
}

/// A version, and what was done that led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BucketVersion {
    pub version: String,
    /// RFC 3339, UTC, by the clock of who did it.
    pub at: String,
    /// The device that did it.
    pub author: String,
    /// A line for each path, up to a bound.
    pub did: Vec<String>,
    /// How many more there are.
    pub more: u64,
    /// Whether what files held then is still there: `gc` may have given it up.
    pub is_kept: bool,
}

/// The answer with several of them, the newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BucketVersions {
    pub versions: Vec<BucketVersion>,
    /// Whether there are older ones: ask with the last as `after`.
    pub are_more: bool,
}

/// Something that differs between two versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// Where it is; of what was removed where it was.
    #[serde(with = "written")]
    #[schema(value_type = Written)]
    pub path: PathBuf,
    /// `added`, `removed`, `renamed`, `changed` (what a file holds), `mode`, `target` (where a symbolic link leads)
    /// or `attribute`.
    pub what: String,
    /// Where it was before it was renamed, with all in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Written>)]
    pub from: Option<WrittenPath>,
    /// Which extended attribute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Written>)]
    pub attribute: Option<WrittenPath>,
    /// As it was, as far as that is different; nothing if it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Side>,
    /// As it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Side>,
    /// Of a text of at most 1 MiB the lines that differ, as `diff -u` writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<String>,
}

/// How something is or was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Side {
    /// `file`, `directory` or `symlink`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Bytes of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Permissions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Where a symbolic link leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Written>)]
    pub target: Option<WrittenPath>,
}

/// The answer with all that differs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Differences {
    pub differences: Vec<Difference>,
    /// Of so many files there was no room for the lines.
    pub left_out: u64,
}

/// The answer to what changes a bucket.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// Which version the bucket has by now; nothing if it did not change.
    pub version: Option<String>,
}

/// How much was imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    /// Files of which there is a new version.
    pub files: u64,
    /// What they hold.
    pub bytes: u64,
    /// Directories that were made.
    pub directories: u64,
    /// Symbolic links, and further names of files.
    pub links: u64,
    /// What was there just so.
    pub unchanged: u64,
}

/// A line of an answer that takes its time.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line<P, T> {
    Progress(P),
    Done(T),
    Refused(Refused),
}

/// Returns as much of a version as people need.
pub fn short(version: &str) -> &str {
    version.get(..VERSION_CHARS_SHOWN).unwrap_or(version)
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(|text| Secret(Zeroizing::new(text)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n12_a_secret_shows_itself_on_the_wire_alone() {
        let key = Key { passphrase: Some(Secret(Zeroizing::new("open sesame".into()))) };
        assert_eq!(format!("{key:?}"), "Key { passphrase: Some(a secret) }");
        let written = serde_json::to_string(&key).unwrap();
        assert_eq!(written, r#"{"passphrase":"open sesame"}"#);
        let read: Key = serde_json::from_str(&written).unwrap();
        assert_eq!(&**read.passphrase.unwrap().0, "open sesame");
    }
}
