//! Every bound of the lock table; reaching one is a refusal that names it.

use std::fmt;
use std::time::Duration;

/// Sessions at one broker.
pub const SESSIONS_MAX: usize = 4_096;
/// Waiting requests in all; fewer where tests of this crate fill a table.
pub const WAITERS_MAX: usize = if cfg!(test) { 1_024 } else { 65_536 };
/// Waiting requests of one session.
pub const WAITERS_PER_SESSION_MAX: usize = WAITERS_MAX / 4;
/// Keys of one request.
pub const KEYS_PER_REQUEST_MAX: usize = 1_024;
/// Grants that stand at once; fewer where tests of this crate fill a table.
pub const GRANTS_MAX: usize = if cfg!(test) { 4_096 } else { 1_048_576 };
/// Those of one session, with what it waits for: half, so that one client, which may be a view with
/// very many open files, never takes what all others need. All v1 clients are one session.
pub const GRANTS_PER_SESSION_MAX: usize = GRANTS_MAX / 2;
/// Bytes of an owner's name or of a reason.
pub const TEXT_BYTES_MAX: usize = 256;
/// Claims that end by one command: a client that has very many goes in steps, so that nobody else
/// waits for all of it.
pub const ENDED_AT_ONCE_MAX: usize = 64;
/// How many cycles are looked for at once after names moved or somebody let go: each search looks at
/// every waiter once at most. What is left is looked for a moment later.
pub const CYCLE_SEARCHES_MAX: usize = 16;
/// How long a cycle that may resolve itself must stand before it is refused.
pub const DEADLOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How long one must stand that only a release which is under way could resolve: the kernel tells of
/// a close a little after it, and of the next open before.
pub const RELEASE_PATIENCE: Duration = Duration::from_millis(50);
/// How long a session whose lease ran out is kept at most while nobody wants what it has.
pub const COURTESY_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long before its end a holder is asked to let go, at most; it is warned twice as long before.
pub const RECALL_NOTICE_MAX: Duration = Duration::from_secs(30);
/// The shortest time after which the same claim is looked at again: whatever a client asks for, the
/// table comes to rest.
pub const LOOK_PAUSE_MIN: Duration = Duration::from_millis(10);

/// A bound that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`SESSIONS_MAX`]
    Sessions,
    /// [`WAITERS_MAX`]
    Waiters,
    /// [`WAITERS_PER_SESSION_MAX`]
    WaitersPerSession,
    /// [`KEYS_PER_REQUEST_MAX`]
    KeysPerRequest,
    /// [`GRANTS_MAX`]
    Grants,
    /// [`crate::path::PATH_BYTES_MAX`]
    PathBytes,
    /// [`TEXT_BYTES_MAX`]
    TextBytes,
    /// [`GRANTS_PER_SESSION_MAX`]
    GrantsPerSession,
}

impl Limit {
    /// All bounds with their values, as `gate status --limits` shows them.
    pub const ALL: [(Limit, usize); 8] = [
        (Limit::Sessions, SESSIONS_MAX),
        (Limit::Waiters, WAITERS_MAX),
        (Limit::WaitersPerSession, WAITERS_PER_SESSION_MAX),
        (Limit::KeysPerRequest, KEYS_PER_REQUEST_MAX),
        (Limit::Grants, GRANTS_MAX),
        (Limit::GrantsPerSession, GRANTS_PER_SESSION_MAX),
        (Limit::PathBytes, crate::path::PATH_BYTES_MAX),
        (Limit::TextBytes, TEXT_BYTES_MAX),
    ];

    /// Returns the name used in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::Sessions => "sessions",
            Limit::Waiters => "waiters",
            Limit::WaitersPerSession => "waiters-per-session",
            Limit::KeysPerRequest => "keys-per-request",
            Limit::Grants => "grants",
            Limit::PathBytes => "path-bytes",
            Limit::TextBytes => "text-bytes",
            Limit::GrantsPerSession => "grants-per-session",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
