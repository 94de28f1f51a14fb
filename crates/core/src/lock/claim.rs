//! A claim: one owner's request, from the moment it is made until its grant ends.

use std::ops::Deref;
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

/// All of a request but what it is for: what stays when names move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
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
    /// Where no session keeps it alive: the time between two renewals, at most.
    pub lease: Option<Duration>,
    /// How long it may be held. With a lease of its own it ends then; else it is asked to end, and
    /// ended, while somebody waits for it.
    pub max_hold: Option<Duration>,
    /// For people.
    pub label: Label,
}

#[cfg(test)]
impl Terms {
    /// Makes the terms of one that waits for as long as it takes, and of whom no more is known.
    pub fn of(owner: OwnerId, party: Party) -> Terms {
        Terms {
            owner,
            party,
            caller: None,
            patience: Patience::Endless,
            read_wait: None,
            lease: None,
            max_hold: None,
            label: Label::default(),
        }
    }
}

/// One owner's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    terms: Terms,
    want: Want,
    keys: Keys,
}

impl Deref for Claim {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

impl Claim {
    /// Makes a claim for `want`; its keys follow from that.
    pub fn new(terms: Terms, want: Want) -> Claim {
        let keys = want.keys();
        Claim { terms, want, keys }
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
        Claim::new(self.terms.clone(), want)
    }

    /// Returns the same claim on another lease.
    pub fn with_lease(&self, lease: Duration) -> Claim {
        let terms = Terms { lease: Some(lease), ..self.terms.clone() };
        Claim { terms, ..self.clone() }
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
