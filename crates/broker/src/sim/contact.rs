//! Who was heard when, and so whose lease may or must be over.
//!
//! It sees the same messages as the broker, by the broker's clock, and none of its code.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gate_api::wire::{ClientMessage, Known, ServerMessage};
use gate_core::id::SessionId;
use gate_core::time::Time;

use crate::mail::ConnectionId;

/// The lease of those who ask for none.
pub const LEASE: Duration = Duration::from_secs(10);
/// The longest lease that any client asks for: how long a restarted broker waits for all.
pub const LEASE_MAX: Duration = Duration::from_secs(30);

/// How a session stands with the broker.
struct Contact {
    lease: Duration,
    /// Where it is heard.
    line: Option<ConnectionId>,
    /// Since when its lease runs, and when it ends at the latest.
    away: Option<(Time, Time)>,
    /// It said good-bye, or its process is known to be dead.
    ended: bool,
    /// The journal knows of it. It has nothing before.
    written: bool,
}

struct Line {
    heard: Time,
    session: Option<SessionId>,
    listed: BTreeSet<u64>,
}

/// What a message means for what its client has.
pub enum Meaning {
    Nothing,
    /// The session keeps what is listed, and no more.
    Lists(SessionId, BTreeSet<u64>),
    /// The owner gives up what it has.
    LetsGo(SessionId, u64),
}

#[derive(Default)]
pub struct Contacts {
    sessions: BTreeMap<SessionId, Contact>,
    /// Those that ended: a broker that crashes may not have journaled it yet.
    gone: BTreeMap<SessionId, Contact>,
    lines: BTreeMap<ConnectionId, Line>,
}

impl Contacts {
    pub fn begins(&mut self, id: ConnectionId, now: Time) {
        let line = Line { heard: now, session: None, listed: BTreeSet::new() };
        self.lines.insert(id, line);
    }

    pub fn hears(&mut self, id: ConnectionId, message: &ClientMessage, now: Time) -> Meaning {
        let Some(line) = self.lines.get_mut(&id) else { return Meaning::Nothing };
        line.heard = now;
        if let (ClientMessage::Hello(hello), None) = (message, line.session) {
            let Some(resume) = hello.resume else { return Meaning::Nothing };
            let session = SessionId(resume.session);
            if let Some(contact) = self.sessions.get_mut(&session) {
                contact.line = Some(id);
                line.session = Some(session);
            }
            return Meaning::Nothing;
        }
        let Some(session) = line.session else { return Meaning::Nothing };
        let Some(contact) = self.sessions.get_mut(&session) else { return Meaning::Nothing };
        match message {
            ClientMessage::Held { acquire, .. } | ClientMessage::Waits { acquire } => {
                line.listed.insert(acquire.owner);
                Meaning::Nothing
            }
            ClientMessage::Listed => {
                contact.away = None;
                Meaning::Lists(session, std::mem::take(&mut line.listed))
            }
            ClientMessage::Release { owner, .. } | ClientMessage::Withdraw { owner, .. } => {
                Meaning::LetsGo(session, *owner)
            }
            ClientMessage::Goodbye => {
                contact.ended = true;
                Meaning::Nothing
            }
            _ => Meaning::Nothing,
        }
    }

    pub fn tells(&mut self, id: ConnectionId, message: &ServerMessage) {
        let ServerMessage::Welcome(welcome) = message else { return };
        let Some(line) = self.lines.get_mut(&id).filter(|_| welcome.known == Known::Nothing) else {
            return;
        };
        let session = SessionId(welcome.session.session);
        line.session = Some(session);
        let lease = welcome.lease;
        let contact = Contact { lease, line: Some(id), away: None, ended: false, written: false };
        self.sessions.insert(session, contact);
    }

    /// The journal knows all by now.
    pub fn written(&mut self) {
        self.sessions.values_mut().for_each(|contact| contact.written = true);
    }

    /// A connection is gone; its client was last known to be there at `heard`.
    pub fn parts(&mut self, id: ConnectionId, heard: Time) {
        let Some(session) = self.lines.remove(&id).and_then(|line| line.session) else { return };
        let Some(contact) = self.sessions.get_mut(&session) else { return };
        if contact.line == Some(id) {
            contact.line = None;
            contact.away.get_or_insert((heard, heard + contact.lease));
        }
    }

    /// A client's process is known to be dead.
    pub fn buried(&mut self, session: SessionId) {
        if let Some(contact) = self.sessions.get_mut(&session) {
            contact.ended = true;
        }
    }

    /// Takes note of the sessions that the broker has now; panics if it ended one for no reason.
    pub fn are_now(&mut self, sessions: &BTreeSet<SessionId>, now: Time) {
        let ended: Vec<SessionId> =
            self.sessions.keys().copied().filter(|id| !sessions.contains(id)).collect();
        for id in ended {
            assert!(self.may_be_over(id, now), "the session {id:?} ended before its lease");
            let contact = self.sessions.remove(&id).expect("known above");
            self.gone.insert(id, contact);
        }
    }

    /// The broker is back, and knows these. `complete`: what it told before, it knows. Returns
    /// those that it forgot and will not wait for: it cannot know that their lease is longer than
    /// the usual one and those of all that it remembers.
    pub fn after_restart(
        &mut self,
        known: &BTreeSet<SessionId>,
        complete: bool,
        now: Time,
    ) -> Vec<SessionId> {
        self.lines.clear();
        for id in known {
            if let Some(contact) = self.gone.remove(id) {
                self.sessions.insert(*id, contact);
            }
        }
        let remembered = known.iter().filter_map(|id| self.sessions.get(id)).map(|c| c.lease);
        let grace = remembered.max().unwrap_or(LEASE).max(LEASE);
        let forgotten = self.sessions.extract_if(.., |id, _| !known.contains(id));
        let forgotten: Vec<_> = forgotten.collect();
        let is_lost = |(_, contact): &(SessionId, Contact)| complete && contact.written;
        assert!(!forgotten.iter().any(is_lost), "the journal forgot sessions");
        let given_up = forgotten.into_iter().filter(|(_, contact)| contact.lease > grace);
        let given_up = given_up.map(|(id, _)| id).collect();
        for contact in self.sessions.values_mut() {
            contact.line = None;
            // Its end may not have been journaled.
            contact.ended = false;
            contact.away = Some((now, now + LEASE_MAX));
        }
        given_up
    }

    /// Returns whether the session's lease may be over by now.
    pub fn may_be_over(&self, session: SessionId, now: Time) -> bool {
        let Some(contact) = self.sessions.get(&session) else { return true };
        let away = contact.away.is_some_and(|(since, _)| since + contact.lease <= now);
        contact.ended || away || self.is_silent(contact, now)
    }

    /// Returns whether the session must no longer be in anybody's way.
    pub fn must_be_over(&self, session: SessionId, now: Time) -> bool {
        let Some(contact) = self.sessions.get(&session) else { return true };
        let away = contact.away.is_some_and(|(_, until)| until <= now);
        contact.ended || away || self.is_silent(contact, now)
    }

    /// Returns whether the session's client is there and at work.
    pub fn is_present(&self, session: SessionId, now: Time) -> bool {
        self.sessions.get(&session).is_some_and(|contact| {
            contact.line.is_some() && contact.away.is_none() && !self.is_silent(contact, now)
        })
    }

    fn is_silent(&self, contact: &Contact, now: Time) -> bool {
        let line = contact.line.and_then(|line| self.lines.get(&line));
        line.is_some_and(|line| line.heard + contact.lease <= now)
    }
}
