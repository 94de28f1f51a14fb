//! What outlives the broker, and how a table is made of it again.

use std::sync::Arc;
use std::time::Duration;

use super::super::claim::Claim;
use super::super::event::{Kin, Passed, Revocation};
use super::super::slot::Stay;
use super::timers::Alarm;
use super::{Grace, Presence, Table};
use crate::id::{Epoch, SessionId, Ticket, Token};
use crate::time::Time;

/// A claim as it is remembered.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// It stood in line.
    Waiting(Arc<Claim>),
    /// It was let in.
    Held {
        /// What it holds.
        claim: Arc<Claim>,
        /// Its fencing token.
        token: Token,
        /// How many acquires stand behind it.
        count: u32,
        /// Whom it passed.
        passed: Passed,
        /// The holders it was told to be kin of, and their parties.
        kin: Kin,
        /// When it was let in; later than now if nobody knows.
        since: Time,
        /// Why its grant was taken away, if it was and its owner has not let go.
        revoked: Option<Revocation>,
    },
}

impl Record {
    /// Returns what it holds, or waits for.
    pub fn claim(&self) -> &Arc<Claim> {
        match self {
            Record::Waiting(claim) | Record::Held { claim, .. } => claim,
        }
    }

    /// Returns it without the names of files, which stay locked without them; `None` if it is of names alone.
    pub fn nameless(mut self) -> Option<Record> {
        let (Record::Waiting(claim) | Record::Held { claim, .. }) = &mut self;
        *claim = Arc::new(claim.nameless());
        (!self.claim().want().places.is_empty()).then_some(self)
    }
}

/// All that a broker remembers of its former run.
#[derive(Debug, Default)]
pub struct Restore {
    /// Sessions and their leases.
    pub sessions: Vec<(SessionId, Duration)>,
    /// Claims by ticket.
    pub claims: Vec<(Ticket, Record)>,
    /// Whether some of what was granted last may be missing.
    pub incomplete: bool,
    /// How long former sessions may take to come back.
    pub grace: Duration,
}

impl Table {
    /// Returns what must be remembered of a claim, if it stands.
    pub fn record(&self, ticket: Ticket) -> Option<Record> {
        let slot = self.slots.get(&ticket)?;
        Some(match (&slot.held, &slot.waiting) {
            (Some(held), _) => Record::Held {
                claim: held.claim.clone(),
                token: held.token,
                count: slot.count,
                passed: held.passed,
                kin: slot.kin.clone(),
                since: held.since,
                revoked: held.revoked(),
            },
            (None, Some(waiting)) => Record::Waiting(waiting.claim.clone()),
            (None, None) => unreachable!("a slot waits or holds"),
        })
    }

    /// Makes the table of a new run from what the former one remembered.
    pub fn restore(epoch: Epoch, now: Time, restore: Restore) -> Table {
        let mut table = Table::new(epoch);
        let Restore { sessions, mut claims, incomplete, grace } = restore;
        if !sessions.is_empty() || incomplete {
            let until = now + grace;
            table.grace = Some(Grace { until, sealed: incomplete });
            table.alarms.insert((until, Alarm::Grace));
        }
        for (session, lease) in sessions {
            table.open(session, lease, Presence::Former);
        }
        claims.sort_by_key(|(ticket, _)| *ticket);
        let mut led = Vec::new();
        for (ticket, record) in claims {
            if let Record::Held { kin, .. } = &record {
                led.push((ticket, kin.clone()));
            }
            table.restore_claim(ticket, record, now);
        }
        // A leader may have a later ticket than those it leads. One that is gone is remembered by its
        // ticket, which must not become another's.
        for (ticket, kin) in led {
            let last = kin.last_key_value().map_or(0, |(leader, _)| leader.0);
            table.next_ticket = table.next_ticket.max(last + 1);
            table.lead(ticket, &kin);
        }
        table
    }

    fn restore_claim(&mut self, ticket: Ticket, record: Record, now: Time) {
        match record {
            Record::Waiting(claim) => {
                self.queue_up(ticket, &claim, &Kin::new(), now);
            }
            Record::Held { claim, token, count, passed, since, revoked, .. } => {
                self.hold(ticket, &claim, token, passed, now);
                let slot = self.slot_mut(ticket);
                slot.count = count;
                if let Some(held) = &mut slot.held {
                    held.since = since.min(now);
                }
                if let (Some(why), Some(Grace { until, .. })) = (revoked, self.grace) {
                    self.set_stay(ticket, Stay::Revoked { why, until });
                }
                self.rearm(ticket);
            }
        }
    }
}
