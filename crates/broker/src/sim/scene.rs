//! What all who live in a world share: its time, its chance, its net, its files, its judge.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use gate_api::wire::{ClientMessage, ServerMessage};
use gate_core::time::Time;

use super::chance::Chance;
use super::files::{Files, Names};
use super::net::Net;
use super::oracle::Oracle;
use super::post::{Post, Said, Stir, Told};
use crate::mail::ConnectionId;
use crate::stateless::RequestId;

/// Lines of the script that are kept.
const SCRIPT_LINES_MAX: usize = 300;

/// Who is to look at the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    Broker,
    Client(usize),
    Fate,
    Caller(usize),
}

pub struct Scene {
    pub now: Time,
    pub chance: Chance,
    pub net: Net,
    pub post: Post,
    pub files: Files,
    pub oracle: Oracle,
    pub names: Names,
    /// The longest pause of a client between two deeds.
    pub haste_ms: usize,
    /// Whether the source of all is that of the stateless interface.
    pub shared: bool,
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
            post: Post::default(),
            files: Files::new(),
            oracle: Oracle::new(names),
            names,
            haste_ms,
            shared: false,
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

    /// Sends a request of the stateless interface; returns its number, and when it arrives, unless it
    /// is lost.
    pub fn call(&mut self, caller: usize, said: Said) -> (RequestId, Option<Time>) {
        let (id, arrives) = (self.post.number(), self.passage());
        if let Some(at) = arrives {
            self.stir(at, id, Stir::Comes { caller, said });
        }
        (id, arrives)
    }

    pub fn stir(&mut self, at: Time, id: RequestId, stir: Stir) {
        self.post.stir(at, id, stir);
        self.wake(at, Wake::Broker);
    }

    /// Whoever sent a request is gone, which the broker hears of or does not: not before the request.
    pub fn hang_up(&mut self, id: RequestId, arrives: Option<Time>) {
        if let Some(arrives) = arrives
            && (self.calm || self.chance.one_in(2))
        {
            let at = self.arrival().max(arrives);
            self.stir(at, id, Stir::Leaves);
        }
    }

    /// Answers a request, if that is not lost.
    pub fn answer(&mut self, caller: usize, id: RequestId, told: Told) {
        if let Some(at) = self.passage() {
            self.post.tell(caller, at, id, told);
            self.wake(at, Wake::Caller(caller));
        }
    }

    /// Returns when something arrives that has a connection of its own, unless that is lost.
    fn passage(&mut self) -> Option<Time> {
        match self.chance.below(24) {
            0 if !self.calm => None,
            1..3 if !self.calm => Some(self.now + self.chance.millis(50..6_000)),
            _ => Some(self.arrival()),
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
