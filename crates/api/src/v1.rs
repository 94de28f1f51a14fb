//! The bodies of the stateless HTTP interface, as clients of former systems know them.
//!
//! Fields may be added to answers, none may be taken away. Times are RFC 3339, UTC.

use serde::{Deserialize, Deserializer, Serialize};

/// Bytes of a request's body, at most.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// `read` or `write`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Shared with other readers.
    Read,
    /// Alone.
    Write,
}

/// `POST /v1/locks/acquire`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcquireRequest {
    /// Relative to the root of the space, which is `.`.
    pub path: String,
    /// How.
    pub mode: Mode,
    /// Who; the same owner re-enters.
    pub owner: String,
    /// Missing or null waits for ever, 0 tries once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Missing or null is the broker's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Missing is the broker's default; null and 0 are no cap.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub max_hold_ms: Option<Option<u64>>,
    /// Missing is the default space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
}

/// `POST /v1/locks/release`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// From the grant.
    pub lock_id: String,
    /// Who was granted it.
    pub owner: String,
}

/// `POST /v1/locks/heartbeat`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatRequest {
    /// From the grant.
    pub lock_id: String,
    /// Who was granted it.
    pub owner: String,
    /// A new lease; missing or null leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
}

/// `POST /v1/locks/recall`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecallRequest {
    /// Whose lock.
    pub ticket: u64,
    /// Why; for who holds it.
    #[serde(default)]
    pub reason: String,
    /// How long it has to let go.
    #[serde(default = "recall_within_ms")]
    pub within_ms: u64,
}

/// `POST /v1/locks/break`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakRequest {
    /// Whose lock, or place in line.
    pub ticket: u64,
    /// Why; for who loses it.
    pub reason: String,
}

/// `GET /v1/locks/status`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRequest {
    /// Only what is on this path.
    pub path: Option<String>,
    /// Missing is the default space.
    pub space: Option<String>,
}

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// What release and heartbeat name.
    pub lock_id: String,
    /// Relative to the root of the space.
    pub path: String,
    /// How.
    pub mode: Mode,
    /// Who.
    pub owner: String,
    /// Since when.
    pub acquired_at: String,
    /// When it ends without a heartbeat; null for what lives with its session.
    pub lease_expires_at: Option<String>,
    /// How long it may be held in all; null is no cap.
    pub max_hold_ms: Option<u64>,
    /// How many acquires stand behind it.
    pub hold_count: u32,
    /// The fencing token; former systems had none.
    #[serde(default)]
    pub token: String,
    /// Its place in the global order; former systems had none.
    #[serde(default)]
    pub ticket: u64,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// Its place in the global order.
    pub req_id: String,
    /// Relative to the root of the space.
    pub path: String,
    /// How.
    pub mode: Mode,
    /// Who.
    pub owner: String,
    /// Since when.
    pub requested_at: String,
    /// Its place in the line, from 1; former systems did not say.
    #[serde(default)]
    pub place: u64,
}

/// Answers `acquire`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedAnswer {
    /// `granted`
    pub status: String,
    /// The lock.
    pub lock: Lock,
}

/// Answers with one word: `timeout`, `released`, `ok`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The word.
    pub status: String,
}

/// Answers `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardAnswer {
    /// Who holds.
    pub locks: Vec<Lock>,
    /// Who waits, in order.
    pub queue: Vec<Waiter>,
}

/// Answers what cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// Why.
    pub error: String,
    /// One word for it.
    #[serde(default)]
    pub code: String,
    /// Why, by the name that newer interfaces have for it.
    #[serde(default)]
    pub message: String,
    /// What to do, where that is known.
    #[serde(default)]
    pub hint: String,
}

fn recall_within_ms() -> u64 {
    30_000
}

/// Tells a field that is null from one that is missing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn max_hold_of(text: &str) -> Option<Option<u64>> {
        let body = format!(r#"{{"path":"a","mode":"read","owner":"o"{text}}}"#);
        serde_json::from_str::<AcquireRequest>(&body).unwrap().max_hold_ms
    }

    #[test]
    fn a_null_cap_is_none_and_a_missing_one_the_default() {
        assert_eq!(max_hold_of(""), None);
        assert_eq!(max_hold_of(r#","max_hold_ms":null"#), Some(None));
        assert_eq!(max_hold_of(r#","max_hold_ms":5"#), Some(Some(5)));
    }
}
