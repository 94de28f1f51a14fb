//! What all who live in a world share: its time, its chance, its net, its files, its judge.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use gate_api::wire::{ClientMessage, ServerMessage};
use gate_core::time::Time;

use super::chance::Chance;
use super::files::{Files, Names};
use super::net::Net;
use super::oracle::Oracle;
use crate::mail::ConnectionId;

/// Lines of the script that are kept.
const SCRIPT_LINES_MAX: usize = 300;

/// Who is to look at the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    Broker,
    Client(usize),
    Fate,
}

pub struct Scene {
    pub now: Time,
    pub chance: Chance,
    pub net: Net,
    pub files: Files,
    pub oracle: Oracle,
    pub names: Names,
    /// The longest pause of a client between two deeds.
    pub haste_ms: usize,
    /// Somebody listens where the broker is to be found.
    pub open: bool,
    /// Nothing fails any more and nobody asks for anything new.
    pub calm: bool,
    wakes: BTreeSet<(Time, Wake)>,
    script: Option<VecDeque<String>>,
}

impl Scene {
    pub fn new(mut chance: Chance, with_script: bool) -> Scene {
        let names = if chance.one_in(2) { Names::Move } else { Names::Stay };
        let haste_ms = *chance.pick(&[20, 60, 200]);
        Scene {
            now: Time::ZERO + Duration::from_secs(1_000),
            chance,
            net: Net::default(),
            files: Files::new(),
            oracle: Oracle::new(names),
            names,
            haste_ms,
            open: false,
            calm: false,
            wakes: BTreeSet::new(),
            script: with_script.then(VecDeque::new),
        }
    }

    /// Adds a line to the script, if anybody reads it.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(script) = &mut self.script {
            if script.len() == SCRIPT_LINES_MAX {
                script.pop_front();
            }
            let ms = self.now.since(Time::ZERO).as_secs_f64() - 1_000.0;
            script.push_back(format!("{ms:9.4}  {}", line()));
        }
    }

    /// Returns the last lines of the script.
    pub fn script(&self) -> String {
        let lines = self.script.iter().flatten();
        lines.map(|line| format!("{line}\n")).collect()
    }

    pub fn wake(&mut self, at: Time, who: Wake) {
        self.wakes.insert((at.max(self.now), who));
    }

    /// Goes on to the next instant at which somebody has something to do.
    pub fn next(&mut self) -> Option<Wake> {
        let (at, who) = self.wakes.pop_first()?;
        self.now = at;
        Some(who)
    }

    /// Returns when what is sent now arrives.
    fn arrival(&mut self) -> Time {
        let delay = match self.chance.below(1_000) {
            // Longer than anybody waits for a greeting.
            0 if !self.calm => self.chance.millis(5_000..12_000),
            1..20 => self.chance.millis(10..300),
            _ => self.chance.millis(0..2),
        };
        self.now + delay
    }

    /// Connects, if anybody listens.
    pub fn dial(&mut self, client: usize) -> Option<ConnectionId> {
        let arrives = self.open.then(|| self.arrival())?;
        self.wake(arrives, Wake::Broker);
        Some(self.net.dial(client, arrives))
    }

    pub fn ask(&mut self, id: ConnectionId, message: ClientMessage) {
        let at = self.arrival();
        if let Some(at) = self.net.ask(id, message, at) {
            self.wake(at, Wake::Broker);
        }
    }

    pub fn tell(&mut self, id: ConnectionId, message: ServerMessage) {
        let at = self.arrival();
        if let Some((client, at)) = self.net.tell(id, message, at) {
            self.wake(at, Wake::Client(client));
        }
    }

    pub fn client_leaves(&mut self, id: ConnectionId) {
        let at = self.arrival();
        if let Some(at) = self.net.client_leaves(id, at) {
            self.wake(at, Wake::Broker);
        }
    }

    pub fn broker_leaves(&mut self, id: ConnectionId) {
        let at = self.arrival();
        if let Some((client, at)) = self.net.broker_leaves(id, at) {
            self.wake(at, Wake::Client(client));
        }
    }

    pub fn break_off(&mut self, id: ConnectionId) {
        let at = self.arrival();
        if let Some((broker_at, client, client_at)) = self.net.break_off(id, at, &mut self.chance) {
            self.wake(broker_at, Wake::Broker);
            self.wake(client_at, Wake::Client(client));
        }
    }
}
