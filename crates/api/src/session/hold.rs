//! What is held for as long as a value lives.

use std::fmt;
use std::time::Duration;

use gate_core::lock::claim::{Label, Patience};
use gate_core::lock::want::{Access, Op, Place, Want};

use super::{Ask, Grant, NoGrant, Party, Session};
use crate::process;

/// Places that this process holds; dropping it lets go.
pub struct Hold {
    session: Session,
    grant: Grant,
}

impl Ask {
    /// Returns this process's request for a hold of all these places, at most 1 024 keys of them.
    pub fn hold(access: Access, places: Vec<Place>, patience: Patience, label: Label) -> Ask {
        Ask {
            party: Party::Process(process::own()),
            caller: Some(process::own_call()),
            patience,
            read_wait: None,
            label,
            want: Want { op: Op::Hold(access), places },
        }
    }
}

impl Session {
    /// Takes what [`Ask::hold`] asks for, all or nothing, and waits for it as long as that allows.
    ///
    /// A hold is the process's: what runs below it works under the hold, and another hold of the
    /// same process on the same is granted beside it, with [`Grant::by_kin`].
    pub fn hold(&self, ask: Ask) -> Result<Hold, NoGrant> {
        let grant = self.acquire_blocking(ask)?;
        Ok(Hold { session: self.clone(), grant })
    }
}

impl Hold {
    /// Returns the broker's yes: its fencing token goes with whatever is changed beyond the view.
    pub fn grant(&self) -> Grant {
        self.grant
    }

    /// Returns whether it still stands. Ask before what cannot be undone; where the broker was not
    /// heard of for a lease, it must say so first, within `patience`.
    pub fn stands(&self, patience: Duration) -> bool {
        self.session.stands(self.grant.owner, patience)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.session.release(self.grant.owner, None);
    }
}

impl fmt::Display for NoGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoGrant::Refused(why) => write!(f, "refused: {why:?}"),
            NoGrant::Ungated => f.write_str("it goes on without a turn"),
            NoGrant::BrokerGone => f.write_str("the broker is away for longer than a lease"),
        }
    }
}

impl std::error::Error for NoGrant {}
