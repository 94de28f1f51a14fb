//! What happened lately that somebody may ask about, and how often things happened at all.

use std::collections::VecDeque;

use gate_api::wire::{self, PastEvent};
use gate_core::id::{SpaceId, Ticket};
use gate_core::lock::claim::Claim;
use gate_core::lock::event::{End, Refusal};
use gate_core::path::ViewPath;

use crate::clock;

/// How much of the past is kept.
const KEPT_MAX: usize = 4_096;
/// How much of it is told at once.
const TOLD_MAX: usize = 64;

/// A bounded memory: the oldest is forgotten first.
#[derive(Default)]
pub(crate) struct Past {
    entries: VecDeque<(Vec<SpaceId>, wire::Past)>,
    granted: u64,
    waited: u64,
    by_kin: u64,
    refused: u64,
    revoked: u64,
    ungated: u64,
}

impl Past {
    pub fn count_granted(&mut self) {
        self.granted += 1;
    }

    pub fn count_waited(&mut self) {
        self.waited += 1;
    }

    /// Notes that a claim was let in because a holder waits for it.
    pub fn passed(&mut self, ticket: Ticket, claim: &Claim) {
        self.by_kin += 1;
        tracing::info!(%ticket, owner = claim.label.owner, "let in by kin");
        self.note(ticket, claim, PastEvent::PassedByKin, "");
    }

    /// Notes that a claim ended; `reason` is in the words of whoever ended it.
    pub fn ended(&mut self, ticket: Ticket, claim: &Claim, end: End, reason: &str) {
        let what = match end {
            End::Released | End::Refused(Refusal::Interrupted | Refusal::WouldBlock) => return,
            End::Refused(why) => {
                self.refused += 1;
                PastEvent::Refused(why)
            }
            End::Revoked(why) => {
                self.revoked += 1;
                PastEvent::Revoked(why)
            }
            End::Ungated => {
                self.ungated += 1;
                PastEvent::Ungated
            }
        };
        tracing::info!(%ticket, ?what, owner = claim.label.owner, "a claim ended out of order");
        self.note(ticket, claim, what, reason);
    }

    /// Returns the latest of what happened at a path, beneath it or above it, oldest first.
    pub fn at(&self, space: SpaceId, path: &ViewPath) -> Vec<wire::Past> {
        let touches =
            |other: &ViewPath| other.beneath(path).is_some() || path.beneath(other).is_some();
        let entries = self.entries.iter().rev().filter(|(spaces, past)| {
            spaces.contains(&space) && past.path.as_ref().is_some_and(touches)
        });
        let mut told: Vec<_> = entries.take(TOLD_MAX).map(|(_, past)| past.clone()).collect();
        told.reverse();
        told
    }

    /// Returns what was counted, by name.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let counts = [
            ("granted", self.granted),
            ("passed-by-kin", self.by_kin),
            ("refused", self.refused),
            ("revoked", self.revoked),
            ("ungated", self.ungated),
            ("waited", self.waited),
        ];
        counts.map(|(name, count)| (name.to_owned(), count)).into()
    }

    fn note(&mut self, ticket: Ticket, claim: &Claim, what: PastEvent, reason: &str) {
        let places = &claim.want().places;
        let past = wire::Past {
            at_ms: clock::wall_ms(),
            what,
            ticket: ticket.0,
            path: places.first().and_then(|place| place.path.clone()),
            op: claim.want().op,
            owner: claim.label.owner.clone(),
            process: claim.caller.map(|caller| caller.process),
            reason: reason.to_owned(),
        };
        if self.entries.len() >= KEPT_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back((places.iter().map(|place| place.space).collect(), past));
    }
}
