//! Connections: what is said arrives late but in order, or is lost with its connection.

use std::collections::{BTreeMap, VecDeque};

use gate_api::wire::{ClientMessage, ServerMessage};
use gate_core::time::Time;

use super::chance::Chance;
use crate::mail::ConnectionId;

/// What arrives at an end of a connection.
pub enum Parcel<T> {
    /// Somebody connects.
    Begin,
    /// Somebody says something.
    Said(T),
    /// The other end is gone.
    End,
}

/// All connections, by the id that the broker knows them by too.
#[derive(Default)]
pub struct Net {
    lines: BTreeMap<ConnectionId, Line>,
    next: usize,
}

struct Line {
    client: usize,
    up: Stream<ClientMessage>,
    down: Stream<ServerMessage>,
    /// Nothing arrives any more, at neither end, and nobody is told.
    dark: bool,
}

struct Stream<T> {
    parcels: VecDeque<(Time, Parcel<T>)>,
    /// When the last parcel arrives.
    last: Time,
    /// Its sender is done.
    shut: bool,
    /// Its receiver no longer reads.
    deaf: bool,
}

impl Net {
    pub fn dial(&mut self, client: usize, arrives: Time) -> ConnectionId {
        self.next += 1;
        let id = ConnectionId(self.next);
        let mut line = Line { client, up: Stream::new(), down: Stream::new(), dark: false };
        line.up.push(arrives, Parcel::Begin);
        self.lines.insert(id, line);
        id
    }

    /// Returns whose it is.
    pub fn client_of(&self, id: ConnectionId) -> Option<usize> {
        self.lines.get(&id).map(|line| line.client)
    }

    pub fn ids(&self) -> Vec<ConnectionId> {
        self.lines.keys().copied().collect()
    }

    /// A client says something; returns when it arrives.
    pub fn ask(&mut self, id: ConnectionId, message: ClientMessage, at: Time) -> Option<Time> {
        let line = self.lines.get_mut(&id).filter(|line| !line.dark)?;
        Some(line.up.push(at, Parcel::Said(message)))
    }

    /// The broker says something; returns to whom, and when it arrives.
    pub fn tell(
        &mut self,
        id: ConnectionId,
        message: ServerMessage,
        at: Time,
    ) -> Option<(usize, Time)> {
        let line = self.lines.get_mut(&id).filter(|line| !line.dark)?;
        Some((line.client, line.down.push(at, Parcel::Said(message))))
    }

    pub fn heard_by_broker(
        &mut self,
        id: ConnectionId,
        now: Time,
    ) -> Option<Parcel<ClientMessage>> {
        self.lines.get_mut(&id)?.up.take(now)
    }

    pub fn heard_by_client(
        &mut self,
        id: ConnectionId,
        now: Time,
    ) -> Option<Parcel<ServerMessage>> {
        self.lines.get_mut(&id)?.down.take(now)
    }

    /// A client closes its end; returns when the broker sees it.
    pub fn client_leaves(&mut self, id: ConnectionId, at: Time) -> Option<Time> {
        let line = self.lines.get_mut(&id)?;
        let seen = (!line.dark).then(|| line.up.push(at, Parcel::End));
        line.up.shut = true;
        line.down.cease();
        self.forget_dead(id);
        seen
    }

    /// The broker closes its end; returns which client sees it, and when.
    pub fn broker_leaves(&mut self, id: ConnectionId, at: Time) -> Option<(usize, Time)> {
        let line = self.lines.get_mut(&id)?;
        let seen = (!line.dark).then(|| (line.client, line.down.push(at, Parcel::End)));
        line.down.shut = true;
        line.up.cease();
        self.forget_dead(id);
        seen
    }

    /// The connection breaks: some of what is under way is lost. Returns when the broker sees it,
    /// and which client does, and when.
    pub fn break_off(
        &mut self,
        id: ConnectionId,
        at: Time,
        chance: &mut Chance,
    ) -> Option<(Time, usize, Time)> {
        let line = self.lines.get_mut(&id).filter(|line| !line.dark)?;
        Some((line.up.cut(at, chance), line.client, line.down.cut(at, chance)))
    }

    /// The connection falls silent, and neither end knows.
    pub fn darken(&mut self, id: ConnectionId) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.dark = true;
            line.up.parcels.clear();
            line.down.parcels.clear();
        }
    }

    fn forget_dead(&mut self, id: ConnectionId) {
        if self.lines[&id].up.deaf && self.lines[&id].down.deaf {
            self.lines.remove(&id);
        }
    }
}

impl<T> Stream<T> {
    fn new() -> Stream<T> {
        Stream { parcels: VecDeque::new(), last: Time::ZERO, shut: false, deaf: false }
    }

    /// Sends, unless nobody could read it; nothing overtakes what was sent before.
    fn push(&mut self, at: Time, parcel: Parcel<T>) -> Time {
        self.last = self.last.max(at);
        if !self.shut && !self.deaf {
            self.parcels.push_back((self.last, parcel));
        }
        self.last
    }

    fn take(&mut self, now: Time) -> Option<Parcel<T>> {
        let (at, _) = self.parcels.front()?;
        (*at <= now).then(|| self.parcels.pop_front().expect("looked at above").1)
    }

    fn cease(&mut self) {
        self.deaf = true;
        self.parcels.clear();
    }

    fn cut(&mut self, at: Time, chance: &mut Chance) -> Time {
        if self.shut {
            return self.last;
        }
        let kept = chance.below(self.parcels.len() + 1);
        // That somebody connects is not lost: it is the connection.
        let begun = matches!(self.parcels.front(), Some((_, Parcel::Begin)));
        self.parcels.truncate(kept.max(usize::from(begun)));
        self.last = self.parcels.back().map_or(Time::ZERO, |(last, _)| *last);
        let seen = self.push(at, Parcel::End);
        self.shut = true;
        seen
    }
}
