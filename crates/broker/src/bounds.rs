//! Bounds of what one client can take from the others; those of locks are core's.
//!
//! Who reaches one is told its name, and `gate status --limits` shows them all.

use gate_core::lock::limits::{Limit, SESSIONS_MAX};
use rustix::process::{Resource, getrlimit};

use crate::{desk, kin};

/// Connections at once: a session each, and some that have not said hello.
pub(crate) const CONNECTIONS_MAX: usize = SESSIONS_MAX + 256;
/// Sessions of clients that came over TCP: the others are for the socket.
pub(crate) const TCP_SESSIONS_MAX: usize = SESSIONS_MAX / 2;
/// Connections over TCP at once, whatever is spoken there.
const TCP_CONNECTIONS_MAX: usize = 16_384;
/// Those of one other machine.
const TCP_CONNECTIONS_PER_ADDRESS_MAX: usize = 1_024;
/// The bound of connections over TCP of clients of this machine.
pub(crate) const TCP_FROM_HERE: &str = "tcp-connections-from-here";
/// The bound of those of one other machine.
pub(crate) const TCP_PER_ADDRESS: &str = "tcp-connections-per-address";
/// Sources of one client.
pub(crate) const SOURCES_PER_CLIENT_MAX: usize = 1_024;
/// Questions that wait for a change.
pub(crate) const WATCHES_MAX: usize = 8_192;
/// Those of one client.
pub(crate) const WATCHES_PER_CLIENT_MAX: usize = 16;
/// Readers of events at once, over HTTP.
pub(crate) const EVENT_READERS_MAX: usize = 1_024;
/// The bound of those.
pub(crate) const EVENT_READERS: &str = "event-readers";

/// How many connections there may be over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpConnections {
    /// In all.
    pub all: usize,
    /// Of clients of this machine: that leaves places for others.
    pub from_here: usize,
    /// Of one other machine.
    pub per_address: usize,
}

impl TcpConnections {
    /// Returns what a process may have that may open so many files, if that is bounded: what else it
    /// opens, such as connections of its socket, has as much room as they.
    pub fn with_files(files_max: Option<u64>) -> TcpConnections {
        let files_max = files_max.and_then(|most| usize::try_from(most).ok());
        let all = files_max.map_or(TCP_CONNECTIONS_MAX, |most| TCP_CONNECTIONS_MAX.min(most / 2));
        let from_here = all / 2;
        let per_address = TCP_CONNECTIONS_PER_ADDRESS_MAX.min(from_here);
        TcpConnections { all, from_here, per_address }
    }

    /// Returns what this process may have.
    pub fn of_this_process() -> TcpConnections {
        TcpConnections::with_files(getrlimit(Resource::Nofile).current)
    }
}

/// Returns every bound with its name.
pub(crate) fn all() -> Vec<(String, usize)> {
    let tcp_connections = TcpConnections::of_this_process();
    let ours = [
        ("connections", CONNECTIONS_MAX),
        ("tcp-sessions", TCP_SESSIONS_MAX),
        ("tcp-connections", tcp_connections.all),
        (TCP_FROM_HERE, tcp_connections.from_here),
        (TCP_PER_ADDRESS, tcp_connections.per_address),
        ("sources-per-client", SOURCES_PER_CLIENT_MAX),
        ("watches", WATCHES_MAX),
        ("watches-per-client", WATCHES_PER_CLIENT_MAX),
        (EVENT_READERS, EVENT_READERS_MAX),
        ("waiters-watched-for-kin", kin::CASES_MAX),
        ("holders-watched-per-waiter", desk::SUSPECTS_MAX),
    ];
    let of_locks = Limit::ALL.map(|(limit, most)| (limit.to_string(), most));
    let ours = ours.map(|(name, most)| (name.to_owned(), most));
    of_locks.into_iter().chain(ours).collect()
}
