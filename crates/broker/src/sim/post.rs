//! Requests of the stateless interface, on their way.
//!
//! Each has a connection of its own, so that one overtakes another. Who hears nothing sends again, and
//! then both may arrive.

use std::collections::BTreeMap;

use gate_api::v1::{AcquireRequest, HeartbeatRequest, Lock, ReleaseRequest};
use gate_core::lock::event::Refusal;
use gate_core::time::Time;

use crate::stateless::RequestId;

/// What a caller says.
#[derive(Clone, Debug)]
pub enum Said {
    Acquire(AcquireRequest),
    Release(ReleaseRequest),
    Heartbeat(HeartbeatRequest),
}

/// What it is told.
#[derive(Debug)]
pub enum Told {
    /// The lock, and since when it is held.
    Granted(Box<Lock>, Time),
    Done,
    Refused(Refusal),
    Unknown,
    /// The connection broke.
    Nothing,
}

/// What happens to a request where the broker is.
#[derive(Debug)]
pub enum Stir {
    /// It is there.
    Comes { caller: usize, said: Said },
    /// It waited for as long as it was to.
    TimesOut,
    /// Its caller is gone.
    Leaves,
}

/// All that is under way, by when it arrives.
#[derive(Default)]
pub struct Post {
    up: BTreeMap<(Time, u64), (RequestId, Stir)>,
    down: BTreeMap<(usize, Time, u64), (RequestId, Told)>,
    last: u64,
}

impl Post {
    /// Returns a number that was not there before.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub fn stir(&mut self, at: Time, id: RequestId, stir: Stir) {
        let number = self.number();
        self.up.insert((at, number), (id, stir));
    }

    pub fn tell(&mut self, caller: usize, at: Time, id: RequestId, told: Told) {
        let number = self.number();
        self.down.insert((caller, at, number), (id, told));
    }

    pub fn heard_by_broker(&mut self, now: Time) -> Option<(RequestId, Stir)> {
        let first = self.up.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub fn heard_by(&mut self, caller: usize, now: Time) -> Option<(RequestId, Told)> {
        let arrived = (caller, Time::ZERO, 0)..=(caller, now, u64::MAX);
        let first = *self.down.range(arrived).next()?.0;
        self.down.remove(&first)
    }

    /// Nobody was there to hear what arrived until now.
    pub fn lose_arrived(&mut self, now: Time) {
        self.up.retain(|(at, _), _| *at > now);
    }

    /// All machines that anything is under way between go down.
    pub fn lose_all(&mut self) {
        self.up.clear();
        self.down.clear();
    }
}
