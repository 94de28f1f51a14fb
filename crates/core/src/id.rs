//! Ids, each a type of its own so that no two can be swapped.

use std::fmt;

/// One client's life at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The session of all clients of the stateless HTTP interface: never lost, never reclaimed;
    /// each of its locks lives by a lease of its own.
    pub const STATELESS: SessionId = SessionId(0);
}

/// One open file or one hold of a session; the number is the session's own choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId {
    /// The session the owner belongs to.
    pub session: SessionId,
    /// Chosen by the session, unique among its living owners.
    pub number: u64,
}

/// The paths of one source, or of several that overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpaceId(pub u32);

/// A place in line: global and rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// One run of the broker; rises with every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// A fencing token: it only rises and is never issued twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// The run of the broker that issued it.
    pub epoch: Epoch,
    /// Its number within that run, from 1.
    pub counter: u64,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch.0, self.counter)
    }
}
