//! What the table keeps of one claim.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::claim::{Claim, Patience};
use super::event::{End, Kin, Passed, Recall, RecallCause, RecallStage, Revocation};
use super::limits::{LOOK_PAUSE_MIN, RECALL_NOTICE_MAX};
use super::mode::Mode;
use crate::id::{Ticket, Token};
use crate::time::Time;

/// The index of a queue in the table.
pub(super) type QueueId = usize;

/// A claim that waits, holds, or holds less than it waits for; never neither.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Slot {
    pub waiting: Option<Waiting>,
    pub held: Option<Held>,
    /// How many acquires of the owner stand behind the claim.
    pub count: u32,
    /// Holders that this claim's process is kin of, told by somebody who looked.
    pub kin: Kin,
    /// The instant the table must look at this claim again, as armed.
    pub alarm: Option<Time>,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Waiting {
    pub claim: Arc<Claim>,
    pub keys: Vec<(QueueId, Mode)>,
    pub since: Time,
    /// The key that stops it and wakes it.
    pub watch: Option<(QueueId, Mode)>,
    /// When a patient reader looks whether those before it are idle.
    pub look_again: Option<Time>,
    /// That it may be part of a cycle.
    pub suspicion: Option<Suspicion>,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Held {
    pub claim: Arc<Claim>,
    pub keys: Vec<(QueueId, Mode)>,
    pub token: Token,
    pub passed: Passed,
    pub since: Time,
    /// From when on counts for how long it may hold: a broker that was away could not ask it to let go.
    pub counted_from: Time,
    /// When a leashed claim was last renewed.
    pub renewed: Time,
    /// When its owner last did I/O, as far as told.
    pub active: Time,
    /// Whether its owner knows that a reader waits for it.
    pub contended: bool,
    /// What is next for having been held so long.
    pub stay: Stay,
    /// Waiters told to be kin of this: it will not be let go before they are let in.
    pub leads: BTreeSet<Ticket>,
}

/// A cycle that may resolve itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspicion {
    /// When it was found.
    pub since: Time,
    /// When it is looked at again.
    pub look_at: Time,
}

/// How a holder's time goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// It holds for as long as it likes.
    Free,
    /// Then it has held long enough, should somebody wait for it.
    Until(Time),
    /// It was asked to let go.
    Recalled(Recall),
    /// It was asked to let go by then, and did not: whoever waits for it ends it.
    Outstayed { until: Time },
    /// It was told that its grant is taken away; then it is over, whatever the owner says.
    Revoked { why: Revocation, until: Time },
}

impl Slot {
    /// Makes a slot that is about to wait or hold.
    pub fn new() -> Slot {
        Slot { waiting: None, held: None, count: 1, kin: Kin::new(), alarm: None }
    }

    /// Returns the claim as it stands: what is held, or else what is waited for.
    pub fn claim(&self) -> &Arc<Claim> {
        match (&self.held, &self.waiting) {
            (Some(held), _) => &held.claim,
            (None, Some(waiting)) => &waiting.claim,
            (None, None) => unreachable!("a slot waits or holds"),
        }
    }

    /// Returns the claim that is asked for: what is waited for, or else what is held.
    pub fn asked(&self) -> &Arc<Claim> {
        match &self.waiting {
            Some(waiting) => &waiting.claim,
            None => self.claim(),
        }
    }

    /// Returns why the grant was taken away, if it was.
    pub fn revoked(&self) -> Option<Revocation> {
        self.held.as_ref().and_then(Held::revoked)
    }

    /// Returns how the claim ends that would end so: what was taken away is not let go of.
    pub fn end(&self, end: End) -> End {
        self.revoked().map_or(end, End::Revoked)
    }

    /// Returns when the table must look at this claim next.
    pub fn next_alarm(&self) -> Option<Time> {
        let waiting = self.waiting.iter().flat_map(|waiting| {
            let suspicion = waiting.suspicion.map(|suspicion| suspicion.look_at);
            [waiting.timeout_at(), waiting.look_again, suspicion].into_iter().flatten()
        });
        let held = self
            .held
            .iter()
            .flat_map(|held| [held.lease_ends_at(), held.stay_ends_at()].into_iter().flatten());
        waiting.chain(held).min()
    }
}

impl Waiting {
    pub fn timeout_at(&self) -> Option<Time> {
        match self.claim.patience {
            Patience::Limited(limit) => Some(self.since + limit),
            Patience::Try | Patience::Endless => None,
        }
    }
}

impl Held {
    pub fn lease_ends_at(&self) -> Option<Time> {
        self.claim.lease.map(|lease| self.renewed + lease)
    }

    /// Returns when it ends however it is renewed, if it lives by a lease of its own.
    pub fn end_of_stay(&self) -> Option<Time> {
        self.claim.lease.and(self.claim.max_hold).map(|limit| self.counted_from + limit)
    }

    /// Returns when its stay is looked at next.
    pub fn stay_ends_at(&self) -> Option<Time> {
        match self.stay {
            Stay::Free | Stay::Outstayed { .. } => None,
            Stay::Until(at) | Stay::Revoked { until: at, .. } => Some(at),
            Stay::Recalled(Recall { stage: RecallStage::Warned, until, .. }) => {
                Some(until - self.claim.recall_notice())
            }
            Stay::Recalled(Recall { stage: RecallStage::Asked, until, .. }) => Some(until),
        }
    }

    pub fn recall(&self) -> Option<Recall> {
        match self.stay {
            Stay::Recalled(recall) => Some(recall),
            Stay::Outstayed { until } => {
                Some(Recall { why: RecallCause::Request, stage: RecallStage::Asked, until })
            }
            Stay::Free | Stay::Until(_) | Stay::Revoked { .. } => None,
        }
    }

    /// Returns until when its owner has to let go, if it was told so.
    pub fn asked_until(&self) -> Option<Time> {
        match self.stay {
            Stay::Recalled(Recall { until, .. })
            | Stay::Outstayed { until }
            | Stay::Revoked { until, .. } => Some(until),
            Stay::Free | Stay::Until(_) => None,
        }
    }

    /// Returns why its grant was taken away, if it was: it stands in the way, and is good for nothing.
    pub fn revoked(&self) -> Option<Revocation> {
        match self.stay {
            Stay::Revoked { why, .. } => Some(why),
            Stay::Free | Stay::Until(_) | Stay::Recalled(_) | Stay::Outstayed { .. } => None,
        }
    }
}

impl Stay {
    /// Returns how the stay of a claim begins that counts from then on.
    pub fn of(claim: &Claim, counted_from: Time) -> Stay {
        let Some(limit) = claim.max_hold else { return Stay::Free };
        // Without a session there is nobody to ask.
        let asked_before =
            if claim.lease.is_some() { Duration::ZERO } else { claim.recall_notice() * 2 };
        Stay::Until(counted_from + limit.saturating_sub(asked_before))
    }
}

impl Claim {
    /// Returns how long before its end a holder is asked to let go.
    pub(super) fn recall_notice(&self) -> Duration {
        let notice = self.max_hold.map_or(RECALL_NOTICE_MAX, |limit| limit / 4);
        notice.clamp(LOOK_PAUSE_MIN, RECALL_NOTICE_MAX)
    }
}
