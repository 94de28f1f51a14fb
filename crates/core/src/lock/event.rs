//! What goes into the lock table, what it decides, and what must be told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::claim::{Claim, Party};
use super::key::FileKey;
use super::limits::Limit;
use super::want::Want;
use crate::id::{OwnerId, SessionId, SpaceId, Ticket, Token};
use crate::path::ViewPath;
use crate::time::Time;

/// Something that somebody wants of the table.
#[derive(Clone, Debug)]
pub enum Command {
    /// A client came: begin its session.
    Open { session: SessionId, lease: Duration },
    /// A client's connection is gone; its process may come back within a lease of when it was last
    /// heard.
    Lose { session: SessionId, heard: Time },
    /// A client is back and lists all it has; what it does not list is freed. Each that waits
    /// comes with its leaders, as in `Acquire`: it may be new here.
    Reclaim {
        session: SessionId,
        held: Vec<(Arc<Claim>, Token)>,
        waiting: Vec<(Arc<Claim>, Vec<OwnerId>)>,
    },
    /// A client said good-bye, or its process is known to be dead. Of one that has much this ends
    /// a part; it is to be said again until the session is gone.
    Close { session: SessionId },
    /// An owner asks. One that already holds the same counts up; one that holds less upgrades.
    /// `leaders` are holders that its process is known to be kin of, as [`Command::Kin`] tells.
    Acquire { claim: Arc<Claim>, leaders: Vec<OwnerId> },
    /// An owner lets go of one count; with the last, of all; of what was taken away, at once. What it
    /// did to names moves with it.
    Release { owner: OwnerId, change: Option<Change> },
    /// A waiting owner no longer wants it; if it was granted meanwhile, it is released.
    Withdraw { owner: OwnerId, why: Refusal },
    /// What an owner asked to create now exists.
    Created { owner: OwnerId, file: FileKey },
    /// The holder of a leashed claim is alive.
    Renew { owner: OwnerId, lease: Option<Duration> },
    /// An open handle did I/O while a reader waits for it.
    Active { owner: OwnerId },
    /// Somebody looked: `holder` waits for the process of `waiter`, or leads it.
    Kin { waiter: OwnerId, holder: OwnerId },
    /// Somebody with the right to do so asks a holder to let go within that time.
    Recall { ticket: Ticket, within: Duration },
    /// Somebody with the right to do so ends a claim.
    Break { ticket: Ticket },
    /// Time went by.
    Tick,
}

/// Whom a claim passed when it was let in, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passed {
    /// It was its turn.
    Nobody,
    /// Its party had the same already, which it got in order: what follows from that is in order,
    /// too, and lets kin follow as that does.
    ByOwn,
    /// Somebody in the way is kin. Nobody else follows it: kin of kin is no kin.
    ByKin,
}

impl Passed {
    /// Returns whether others were passed, whatever the right.
    pub fn anybody(self) -> bool {
        self != Passed::Nobody
    }
}

/// The holders that a claim is kin of, each with its party.
pub type Kin = BTreeMap<Ticket, Party>;

/// What an operation did to names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A name is gone: unlinked or replaced.
    Removed { space: SpaceId, path: ViewPath },
    /// A name, or all beneath a directory, moved; what stood at `to` is gone.
    Renamed { space: SpaceId, from: ViewPath, to: ViewPath },
    /// Two names, or all beneath them, changed places.
    Exchanged { space: SpaceId, one: ViewPath, other: ViewPath },
}

impl Change {
    /// Returns the source whose names it changed.
    pub fn space(&self) -> SpaceId {
        match self {
            Change::Removed { space, .. }
            | Change::Renamed { space, .. }
            | Change::Exchanged { space, .. } => *space,
        }
    }

    /// Returns the names that it changed, and with them all beneath.
    pub fn tops(&self) -> Vec<&ViewPath> {
        match self {
            Change::Removed { path, .. } => vec![path],
            Change::Renamed { from, to, .. } => vec![from, to],
            Change::Exchanged { one, other, .. } => vec![one, other],
        }
    }
}

/// Something that happened. Applying it cannot fail, now or at recovery.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A session began.
    Opened { session: SessionId, lease: Duration },
    /// A session's connection went away; it has until then to come back.
    Lost { session: SessionId, until: Time },
    /// A session's lease ran out. It is kept until somebody wants what it has, or until then.
    Overdue { session: SessionId, until: Time },
    /// A session came back.
    Back { session: SessionId },
    /// A session ended, with all that was its.
    Closed { session: SessionId },
    /// A claim stands in line.
    Queued { ticket: Ticket, claim: Arc<Claim>, kin: Kin, at: Time },
    /// A claim is let in.
    Granted {
        ticket: Ticket,
        claim: Arc<Claim>,
        token: Token,
        count: u32,
        passed: Passed,
        kin: Kin,
        at: Time,
    },
    /// A claim is held so many times.
    Counted { ticket: Ticket, count: u32 },
    /// A claim now has other names.
    Reshaped { ticket: Ticket, part: Part, claim: Arc<Claim> },
    /// A grant is taken away. Something may still be under way under it: it stands in everybody's way
    /// until its owner lets go, or until then, when its owner knows by itself.
    Revoked { ticket: Ticket, why: Revocation, until: Time },
    /// A waiter or holder is gone.
    Ended { ticket: Ticket, end: End },
    /// An upgrade is given up; what was held before stays.
    UpgradeEnded { ticket: Ticket, why: Refusal },
    /// A leashed claim was renewed.
    Renewed { ticket: Ticket, lease: Duration, at: Time },
    /// An open handle did I/O.
    Active { ticket: Ticket, at: Time },
    /// A reader looks again at that time whether those it waits for are idle.
    Deferred { ticket: Ticket, until: Time },
    /// A holder is asked to let go.
    Recalled { ticket: Ticket, recall: Recall },
    /// Nobody waits for a holder that held long enough: it is looked at again then, if ever.
    Spared { ticket: Ticket, until: Option<Time> },
    /// The time that a holder was given to let go is over, and nobody waits: who comes first ends it.
    Outstayed { ticket: Ticket },
    /// A cycle that might have stood no longer does.
    Cleared { ticket: Ticket },
    /// A cycle stands that might still resolve itself: it is looked at again then.
    Suspected { ticket: Ticket, until: Time },
    /// A waiter is kin of a holder.
    Kin { waiter: Ticket, holder: Ticket },
    /// Former sessions no longer hold up anybody.
    GraceEnded,
}

/// Which claim of an owner: it may hold one while it waits for a stronger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What it holds.
    Held,
    /// What it waits for.
    Waiting,
}

/// How a claim ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its owner let go, or its session closed.
    Released,
    /// It was not, or no longer, willing or allowed to wait.
    Refused(Refusal),
    /// A grant was taken away.
    Revoked(Revocation),
    /// A reader goes on without a grant: those it waited for are idle.
    Ungated,
}

/// The table's no. Each tells the caller something different to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It waited as long as it was willing to.
    TimedOut,
    /// It was not willing to wait.
    WouldBlock,
    /// It was interrupted while it waited.
    Interrupted,
    /// It would wait for itself.
    Deadlock,
    /// A bound is reached.
    Limit(Limit),
    /// There is no such owner, ticket or session.
    Unknown,
    /// The owner has a claim already that this one cannot join.
    OwnerBusy,
    /// Somebody with the right to do so ended its wait.
    Broken,
    /// Nothing can be granted.
    Standstill(Standstill),
}

/// Why grants cannot be written down, and so nothing is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standstill {
    /// There is no room for them.
    NoRoom,
    /// Something else that a person must look into.
    Fault,
}

/// A holder is asked to let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recall {
    /// Why.
    pub why: RecallCause,
    /// How seriously.
    pub stage: RecallStage,
    /// When it loses its grant, if somebody waits for it then.
    pub until: Time,
}

/// Why a holder is asked to let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecallCause {
    /// It holds for as long as it may, and somebody waits.
    MaxHold,
    /// Somebody with the right to do so asks.
    Request,
}

/// How seriously a holder is asked to let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecallStage {
    /// It will be asked soon.
    Warned,
    /// It is asked: what comes next is the end of its grant.
    Asked,
}

/// Why a grant was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// Held as long as it may be.
    MaxHold,
    /// Its lease ran out.
    LeaseLost,
    /// Somebody with the right to do so broke it.
    Broken,
    /// It was asked to let go and did not.
    Recalled,
}

/// What somebody must be told, once the event behind it is journaled.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// An owner is let in.
    Granted { owner: OwnerId, ticket: Ticket, token: Token, count: u32, passed: Passed },
    /// An owner waits.
    Waiting { owner: OwnerId, ticket: Ticket },
    /// A waiting owner is told no.
    Refused { owner: OwnerId, why: Refusal },
    /// A reader may go on without a grant.
    Ungated { owner: OwnerId },
    /// A holder has nothing any more: it is to let go once nothing is under way under its grant.
    Revoked { owner: OwnerId, why: Revocation },
    /// A holder is asked to let go.
    Recalled { owner: OwnerId, recall: Recall },
    /// A reader waits for this open handle: its I/O is worth telling from now on.
    Contended { owner: OwnerId },
    /// What a session has after it came back: nothing else.
    Restored { session: SessionId },
}

impl Claim {
    /// Returns the claim of the same owner on `want`, shared.
    pub(super) fn on(&self, want: Want) -> Arc<Claim> {
        Arc::new(self.with_want(want))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_line_passes_nobody() {
        let passed = [Passed::Nobody, Passed::ByOwn, Passed::ByKin].map(Passed::anybody);
        assert_eq!(passed, [false, true, true]);
    }
}
