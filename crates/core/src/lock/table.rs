//! The lock table: a pure state machine.
//!
//! [`Table::decide`] says what a command leads to and changes nothing; [`Table::apply`] makes it
//! so and cannot fail; [`Table::settle`] finds, one by one, what follows: grants whose turn has
//! come, cycles that must be cut. [`Table::execute`] does all three. [`Table::deadline`] says when
//! to come back with [`Command::Tick`].
//!
//! What must hold after every step: owners that are not kin never hold conflicting modes of a key
//! (N1); nobody is granted before an earlier waiter in conflict, kin apart (N2); tokens rise (N4).

mod apply;
#[cfg(any(test, debug_assertions))]
mod check;
mod deadlock;
mod decide;
mod judge;
mod names;
mod reclaim;
mod restore;
mod standing;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::claim::Party;
use super::event::{Command, Event, Notice, Refusal};
use super::key::Key;
use super::queue::Queue;
use super::slot::{QueueId, Slot};
use crate::id::{Epoch, OwnerId, SessionId, Ticket};
use crate::time::Time;

pub use restore::{Record, Restore};
pub use standing::{Since, Standing, State};
use timers::Alarm;

/// All sessions, claims and queues of one broker.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Table {
    epoch: Epoch,
    next_ticket: u64,
    next_token: u64,
    sessions: FxHashMap<SessionId, Session>,
    /// In order: so that they can be listed page by page.
    slots: BTreeMap<Ticket, Slot>,
    owners: FxHashMap<OwnerId, Ticket>,
    parties: FxHashMap<Party, Tickets>,
    index: FxHashMap<Key, QueueId>,
    queues: Slab<Queue>,
    waiting: usize,
    alarms: BTreeSet<(Time, Alarm)>,
    /// Sessions whose lease ran out, the longest gone first.
    overdue: BTreeSet<(Time, SessionId)>,
    /// What they hold and wait for.
    spared: BTreeSet<Ticket>,
    /// One of them that somebody wants something of: its end is under way.
    condemned: Option<SessionId>,
    /// Holders that should have let go by now, and that nobody waited for so far.
    outstayed: BTreeSet<Ticket>,
    grace: Option<Grace>,
    /// Waiters to look at.
    ripe: BTreeSet<Ticket>,
    /// Waiters that wait for others than before, or others for them, though they did not come anew.
    moved: BTreeSet<Ticket>,
    /// Waiters that may close a cycle: to be looked for when nobody is ripe.
    suspects: BTreeSet<Ticket>,
}

/// What one command led to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What happened, to be journaled.
    pub events: Vec<Event>,
    /// Whom to tell, after that.
    pub notices: Vec<Notice>,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Session {
    lease: Duration,
    presence: Presence,
    tickets: BTreeSet<Ticket>,
    waiting: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Connected.
    Here,
    /// Its connection is gone; its lease runs out then.
    Away(Time),
    /// Its lease ran out; it may come back until then, or until somebody wants what it has.
    Overdue(Time),
    /// Known from before a restart; it may come back until the grace ends.
    Former,
}

/// The time after a start in which former sessions may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grace {
    until: Time,
    /// Nothing is granted before it ends: what was granted before may not all be known.
    sealed: bool,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
struct Tickets {
    held: BTreeSet<Ticket>,
    waiting: BTreeSet<Ticket>,
    /// Those of both that are kin of somebody else's.
    led: BTreeSet<Ticket>,
}

impl Table {
    /// Makes an empty table for one run of the broker.
    pub fn new(epoch: Epoch) -> Table {
        let stateless = Session {
            lease: Duration::ZERO,
            presence: Presence::Here,
            tickets: BTreeSet::new(),
            waiting: 0,
        };
        Table {
            epoch,
            next_ticket: 1,
            next_token: 1,
            sessions: FxHashMap::from_iter([(SessionId::STATELESS, stateless)]),
            slots: BTreeMap::new(),
            owners: FxHashMap::default(),
            parties: FxHashMap::default(),
            index: FxHashMap::default(),
            queues: Slab::new(),
            waiting: 0,
            alarms: BTreeSet::new(),
            overdue: BTreeSet::new(),
            spared: BTreeSet::new(),
            condemned: None,
            outstayed: BTreeSet::new(),
            grace: None,
            ripe: BTreeSet::new(),
            moved: BTreeSet::new(),
            suspects: BTreeSet::new(),
        }
    }

    /// Decides, applies and settles one command.
    pub fn execute(&mut self, now: Time, command: Command) -> Result<Outcome, Refusal> {
        let mut outcome = Outcome::default();
        let events = self.decide(now, command)?;
        self.carry_out(now, events, &mut outcome);
        while self.deadline().is_some_and(|at| at <= now) {
            let due = self.decide_tick(now);
            self.carry_out(now, due, &mut outcome);
        }
        Ok(outcome)
    }

    fn carry_out(&mut self, now: Time, events: Vec<Event>, outcome: &mut Outcome) {
        for event in events {
            outcome.notices.append(&mut self.apply(&event));
            outcome.events.push(event);
        }
        while let Some(event) = self.settle(now) {
            outcome.notices.append(&mut self.apply(&event));
            outcome.events.push(event);
        }
    }

    /// Returns when [`Command::Tick`] is due, if ever.
    pub fn deadline(&self) -> Option<Time> {
        self.alarms.first().map(|(time, _)| *time)
    }

    /// Returns the run this table serves.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn queue(&self, key: &Key) -> Option<&Queue> {
        self.index.get(key).map(|id| &self.queues[*id])
    }

    fn slot(&self, ticket: Ticket) -> &Slot {
        self.slots.get(&ticket).expect("tickets in indexes have a slot")
    }

    fn slot_mut(&mut self, ticket: Ticket) -> &mut Slot {
        self.slots.get_mut(&ticket).expect("tickets in indexes have a slot")
    }
}
