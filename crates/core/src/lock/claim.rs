//! A claim: one owner's request, from the moment it is made until its grant ends.

use std::sync::Arc;
use std::time::Duration;

use super::key::Keys;
use super::want::{Node, Place, Want};
use crate::id::{OwnerId, SessionId};
use crate::path::ViewPath;

/// Who an owner belongs to; claims of one party are kin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Party {
    /// A process of a machine.
    Process(Process),
    /// All who give this name: agents, clients of the stateless interface.
    Named(Arc<str>),
    /// All of one session: a mount that stands for one client.
    Session(SessionId),
    /// The owner alone: its process is not known.
    Owner(OwnerId),
}

/// A process, told from a later one with the same number by its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// The pid namespace (and machine) in which `pid` means something.
    pub namespace: u64,
    /// The process id there.
    pub pid: u32,
    /// When it started, in the kernel's ticks since boot.
    pub start: u64,
}

/// The thread behind a call, and its process: whichever party that belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The process.
    pub process: Process,
    /// The thread, in the process's namespace; 0 if not known.
    pub thread: u32,
    /// Whether the process has no other thread.
    pub single_threaded: bool,
}

/// How long a claim is willing to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    Try,
    /// At most so long.
    Limited(Duration),
    /// Until it is granted, withdrawn or refused.
    Endless,
}

/// The leash of a claim that no living session stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leash {
    /// Time between two renewals, at most.
    pub lease: Duration,
    /// Time it may be held in all.
    pub max_hold: Option<Duration>,
}

/// What people want to know of a claim; no rule looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// The owner as people know it.
    pub owner: String,
    /// Why it is held, if somebody said so.
    pub reason: String,
    /// When it was asked for: milliseconds since 1970, UTC.
    pub asked_at_ms: u64,
}

/// One owner's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose it is.
    pub owner: OwnerId,
    /// Who the owner belongs to.
    pub party: Party,
    /// Who made the call, as far as known.
    pub caller: Option<Caller>,
    /// How long it waits.
    pub patience: Patience,
    /// After how long without I/O open handles no longer stop it; for pure readers.
    pub read_wait: Option<Duration>,
    /// Set where no session keeps it alive.
    pub leash: Option<Leash>,
    /// For people.
    pub label: Label,
    want: Want,
    keys: Keys,
}

/// All of a claim but its want: what stays when names move.
#[derive(Clone, Debug)]
pub struct Terms {
    /// See [`Claim::owner`].
    pub owner: OwnerId,
    /// See [`Claim::party`].
    pub party: Party,
    /// See [`Claim::caller`].
    pub caller: Option<Caller>,
    /// See [`Claim::patience`].
    pub patience: Patience,
    /// See [`Claim::read_wait`].
    pub read_wait: Option<Duration>,
    /// See [`Claim::leash`].
    pub leash: Option<Leash>,
    /// See [`Claim::label`].
    pub label: Label,
}

impl Claim {
    /// Makes a claim for `want`; its keys follow from that.
    pub fn new(terms: Terms, want: Want) -> Claim {
        let Terms { owner, party, caller, patience, read_wait, leash, label } = terms;
        let keys = want.keys();
        Claim { owner, party, caller, patience, read_wait, leash, label, want, keys }
    }

    /// Returns whether nobody of its party can do anything while it waits.
    pub fn stops_its_party(&self) -> bool {
        matches!(self.party, Party::Process(_) | Party::Owner(_))
            && self.caller.is_some_and(|caller| caller.single_threaded)
    }

    /// Returns what it asks for.
    pub fn want(&self) -> &Want {
        &self.want
    }

    /// Returns the keys that takes.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Returns the same claim on something else.
    pub fn with_want(&self, want: Want) -> Claim {
        Claim { keys: want.keys(), want, ..self.clone() }
    }

    /// Returns the claim after its names changed by `rename`, or `None` if that leaves it as is.
    ///
    /// `rename` answers `None` for a name that stays, `Some(None)` for one that is gone and
    /// `Some(Some(path))` for a new one.
    pub fn renamed(&self, rename: impl Fn(&Place) -> Option<Option<ViewPath>>) -> Option<Claim> {
        let mut want = self.want.clone();
        let mut changed = false;
        for place in &mut want.places {
            if let Some(path) = rename(place) {
                changed |= place.path != path;
                place.path = path;
            }
        }
        changed.then(|| self.with_want(want))
    }

    /// Returns the claim with its file keys alone.
    pub fn nameless(&self) -> Claim {
        let mut want = self.want.clone();
        want.places.retain(|place| matches!(place.node, Node::File(_)));
        for place in &mut want.places {
            place.path = None;
        }
        self.with_want(want)
    }
}
