//! Bounds of what one client can take from the others; those of locks are core's.
//!
//! Who reaches one is told its name, and `gate status --limits` shows them all.

use gate_core::lock::limits::{Limit, SESSIONS_MAX};

/// Connections at once: a session each, and some that have not said hello.
pub(crate) const CONNECTIONS_MAX: usize = SESSIONS_MAX + 256;
/// Sessions of clients that came over TCP: the others are for the socket.
pub(crate) const TCP_SESSIONS_MAX: usize = SESSIONS_MAX / 2;
/// Connections over TCP at once, whatever is spoken there.
pub(crate) const TCP_CONNECTIONS_MAX: usize = 16_384;
/// Those of one other machine.
pub(crate) const TCP_CONNECTIONS_PER_ADDRESS_MAX: usize = 1_024;
/// Sources of one client.
pub(crate) const SOURCES_PER_CLIENT_MAX: usize = 1_024;
/// Questions that wait for a change.
pub(crate) const WATCHES_MAX: usize = 8_192;
/// Those of one client.
pub(crate) const WATCHES_PER_CLIENT_MAX: usize = 16;

/// Returns every bound with its name.
pub(crate) fn all() -> Vec<(String, usize)> {
    let ours = [
        ("connections", CONNECTIONS_MAX),
        ("tcp-sessions", TCP_SESSIONS_MAX),
        ("tcp-connections", TCP_CONNECTIONS_MAX),
        ("tcp-connections-per-address", TCP_CONNECTIONS_PER_ADDRESS_MAX),
        ("sources-per-client", SOURCES_PER_CLIENT_MAX),
        ("watches", WATCHES_MAX),
        ("watches-per-client", WATCHES_PER_CLIENT_MAX),
    ];
    let of_locks = Limit::ALL.map(|(limit, most)| (limit.to_string(), most));
    let ours = ours.map(|(name, most)| (name.to_owned(), most));
    of_locks.into_iter().chain(ours).collect()
}
