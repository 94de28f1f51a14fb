//! Attends to what clients say, message by message.

use std::sync::Arc;
use std::time::Duration;

use gate_api::bearer::Rights;
use gate_api::wire::{
    self, Acquire, ClientMessage, Granted, Hello, Known, MaxHold, PrivateView, Query, Reply,
    Resume, ServerMessage, Source, Welcome,
};
use gate_core::id::{OwnerId, SessionId, SpaceId, Ticket};
use gate_core::lock::claim::{Claim, Party, Patience, Terms};
use gate_core::lock::event::{Change, Command, Refusal, Revocation};
use gate_core::lock::limits::{GRANTS_PER_SESSION_MAX, Limit, SESSIONS_MAX, TEXT_BYTES_MAX};
use gate_core::lock::table::Record;
use gate_core::path::{PATH_BYTES_MAX, ViewPath};
use gate_core::time::Time;

use super::questions::{About, Asked};
use super::{Desk, Guest, Letter, Stage, Visitor, Way};
use crate::bounds::{SOURCES_PER_CLIENT_MAX, TCP_SESSIONS_MAX};
use crate::kin::look::Family;
use crate::mail::ConnectionId;
use crate::sessions::{Client, Limits};

/// The shortest and the longest lease a client may ask for.
const LEASE_MIN: Duration = Duration::from_millis(wire::LEASE_MS_MIN);
const LEASE_MAX: Duration = Duration::from_millis(wire::LEASE_MS_MAX);
/// How long a client may take to say hello.
const GREETING_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a client's name.
const NAME_BYTES_MAX: usize = 256;

/// Why nothing came of an order.
pub(super) enum NotDone {
    /// To take a lock away takes a reason.
    NoReason,
    /// There is nothing of that ticket.
    NoSuchClaim,
}

impl Desk {
    /// A connection begins.
    pub fn enter(&mut self, connection: ConnectionId, guest: Guest) {
        let visitor = Visitor { guest, stage: Stage::New, asked: Asked::default() };
        self.visitors.insert(connection, visitor);
    }

    fn may(&self, connection: ConnectionId, rights: Rights) -> bool {
        self.visitors.get(&connection).is_some_and(|visitor| visitor.guest.rights >= rights)
    }

    /// Returns how long a client may say nothing where only its words prove that it is there.
    pub fn silence_allowed(&self, connection: ConnectionId) -> Duration {
        let session = self.visitors.get(&connection).and_then(|visitor| visitor.stage.session());
        let client = session.and_then(|session| self.sessions.get(session));
        client.map_or(GREETING_PATIENCE, |client| client.lease)
    }

    /// A connection is gone; its client may come back within a lease of when it was last heard.
    pub fn leave(&mut self, now: Time, connection: ConnectionId, heard: Time) {
        let Some(visitor) = self.visitors.remove(&connection) else { return };
        let Some(session) = visitor.stage.session() else { return };
        let Some(client) = self.sessions.get_mut(session) else { return };
        if client.connection == Some(connection) {
            client.connection = None;
            // Fails only if the session is gone as well.
            let _ = self.run(now, Command::Lose { session, heard });
        }
    }

    /// A client says something. Nonsense ends its connection.
    pub fn hear(&mut self, now: Time, connection: ConnectionId, message: ClientMessage) {
        let Some(visitor) = self.visitors.get_mut(&connection) else { return };
        match (&mut visitor.stage, message) {
            (Stage::Open { session }, message) => {
                let session = *session;
                self.serve(now, connection, session, message);
            }
            (Stage::New, ClientMessage::Hello(hello)) => self.greet(now, connection, hello),
            (Stage::Listing { held, .. }, ClientMessage::Held { acquire, token })
                if held.len() < GRANTS_PER_SESSION_MAX =>
            {
                held.push((acquire, token));
            }
            (Stage::Listing { waiting, .. }, ClientMessage::Waits { acquire })
                if waiting.len() < GRANTS_PER_SESSION_MAX =>
            {
                waiting.push(acquire);
            }
            (Stage::Listing { session, .. }, ClientMessage::Attach { space, source }) => {
                let session = *session;
                let Some(client) = self.sessions.get(session) else { return };
                match client.seats.get(&space) {
                    // It may have gone before it heard of that.
                    Some(seat) => {
                        let attached = self.spaces.attached(seat);
                        let message = ServerMessage::Attached { space, attached };
                        self.letters.push(Letter::Client(connection, message));
                    }
                    // The journal may have lost it, and with it every name that the client gives.
                    None => self.attach(connection, session, space, source),
                }
            }
            (Stage::Listing { .. }, ClientMessage::Listed) => self.reclaim(now, connection),
            (_, message) => {
                tracing::warn!(?connection, ?message, "a client speaks out of turn");
                self.letters.push(Letter::HangUp(connection));
            }
        }
    }

    fn greet(&mut self, now: Time, connection: ConnectionId, hello: Hello) {
        // Who may only look does not come back to what it could lock before.
        let resume = hello.resume.filter(|_| self.may(connection, Rights::Lock));
        let resumed = resume.and_then(|resume| self.sessions.claimed_by(resume));
        if resumed.is_some() && self.stands_still() {
            return self.turn_away(connection, "the journal cannot be written".to_owned());
        }
        let session = match resumed {
            Some(session) => {
                let client = self.sessions.get_mut(session).expect("just claimed");
                client.private = hello.private;
                session
            }
            None => match self.admit(now, connection, hello) {
                Ok(session) => session,
                Err(why) => return self.turn_away(connection, why),
            },
        };
        let known = match resumed {
            None => Known::Nothing,
            Some(_) if self.table.may_have_forgotten() => Known::Part,
            Some(_) => Known::All,
        };
        let client = self.sessions.get_mut(session).expect("found or admitted above");
        let former = client.connection.replace(connection);
        let welcome = Welcome {
            session: Resume { session: session.0, key: client.key },
            known,
            lease: client.lease,
            broker: self.info.clone(),
        };
        if let Some(former) = former {
            self.visitors.remove(&former);
            self.letters.push(Letter::HangUp(former));
        }
        let visitor = self.visitors.get_mut(&connection).expect("it just said hello");
        visitor.stage = match resumed {
            Some(session) => Stage::Listing { session, held: Vec::new(), waiting: Vec::new() },
            None => Stage::Open { session },
        };
        self.letters.push(Letter::Client(connection, ServerMessage::Welcome(welcome)));
    }

    fn turn_away(&mut self, connection: ConnectionId, why: String) {
        self.letters.push(Letter::Client(connection, ServerMessage::Unwelcome { why }));
        self.letters.push(Letter::HangUp(connection));
    }

    fn admit(
        &mut self,
        now: Time,
        connection: ConnectionId,
        hello: Hello,
    ) -> Result<SessionId, String> {
        let is_long = |view: &PrivateView| {
            let is_long = |path: &Vec<u8>| path.len() > PATH_BYTES_MAX;
            view.agent.len() > TEXT_BYTES_MAX || is_long(&view.mountpoint) || is_long(&view.source)
        };
        if hello.client.len() > NAME_BYTES_MAX || hello.private.as_ref().is_some_and(is_long) {
            return Err(format!("limit: {}", Limit::TextBytes));
        }
        let lease = hello.lease.unwrap_or(self.terms.lease_session).clamp(LEASE_MIN, LEASE_MAX);
        let guest = self.visitors.get(&connection).map(|visitor| visitor.guest);
        let way = guest.map_or(Way::Tcp, |guest| guest.way);
        self.make_room(now, way);
        if way == Way::Tcp && self.sessions.over_tcp() >= TCP_SESSIONS_MAX {
            return Err("limit: tcp-sessions".to_owned());
        }
        let max_hold = match hello.max_hold {
            None => self.terms.max_hold,
            Some(MaxHold::After(limit)) => Some(limit),
            Some(MaxHold::Never) => None,
        };
        let session = self.sessions.admit(hello, Limits { lease, max_hold }, way);
        if let Err(refusal) = self.run(now, Command::Open { session, lease }) {
            self.sessions.remove(session);
            return Err(match refusal {
                Refusal::Limit(limit) => format!("limit: {limit}"),
                _ => "no session can begin".to_owned(),
            });
        }
        let client = self.sessions.get(session).expect("admitted above");
        if client.is_visible() {
            self.letters.push(Letter::Watch(session, client.process));
        }
        Ok(session)
    }

    /// Where there is no room for another session, ends one whose client is away and has nothing.
    fn make_room(&mut self, now: Time, way: Way) {
        let is_full = self.sessions.len() >= SESSIONS_MAX;
        let is_full_of_tcp = way == Way::Tcp && self.sessions.over_tcp() >= TCP_SESSIONS_MAX;
        if !is_full && !is_full_of_tcp {
            return;
        }
        let is_idle = |(id, client): &(SessionId, &Client)| {
            let gives_room = is_full || client.over_tcp;
            gives_room && client.connection.is_none() && !self.table.has_claims(*id)
        };
        let idle = self.sessions.iter().find(is_idle).map(|(id, _)| id);
        if let Some(session) = idle {
            self.see_off(now, session);
        }
    }

    /// Takes a client back with all it listed, and tells what became of each.
    fn reclaim(&mut self, now: Time, connection: ConnectionId) {
        if self.stands_still() {
            return self.letters.push(Letter::HangUp(connection));
        }
        let Some(visitor) = self.visitors.get_mut(&connection) else { return };
        let Stage::Listing { session, held, waiting } =
            std::mem::replace(&mut visitor.stage, Stage::New)
        else {
            return;
        };
        visitor.stage = Stage::Open { session };
        let held: Vec<_> = held
            .into_iter()
            .map(|(acquire, token)| (acquire.owner, self.claim(session, acquire), token))
            .collect();
        let waiting: Vec<_> =
            waiting.into_iter().map(|asked| (asked.owner, self.claim(session, asked))).collect();
        let listed: Vec<u64> =
            held.iter().map(|(o, ..)| *o).chain(waiting.iter().map(|(o, _)| *o)).collect();
        let reclaim = Command::Reclaim {
            session,
            held: held
                .into_iter()
                .filter_map(|(_, claim, token)| Some((claim.ok()?, token)))
                .collect(),
            waiting: waiting
                .into_iter()
                .filter_map(|(_, claim)| claim.ok())
                .map(|claim| (claim.clone(), self.leaders_of(&claim)))
                .collect(),
        };
        if self.run(now, reclaim).is_err() {
            // The session ended under it: the client begins anew.
            return self.letters.push(Letter::HangUp(connection));
        }
        for number in listed {
            let message = self.whereabouts(OwnerId { session, number });
            self.letters.push(Letter::Client(connection, message));
        }
        self.letters.push(Letter::Client(connection, ServerMessage::Restored));
    }

    /// Says what an owner has.
    fn whereabouts(&mut self, owner: OwnerId) -> ServerMessage {
        let ticket = self.table.ticket_of(owner);
        let stands = ticket.and_then(|ticket| Some((ticket, self.table.record(ticket)?)));
        self.letters.extend(ticket.and_then(|ticket| self.case_of(ticket)).map(Letter::Probe));
        match stands {
            Some((ticket, Record::Held { revoked: Some(why), .. })) => {
                let reason = self.reasons.get(&ticket).cloned().unwrap_or_default();
                ServerMessage::Revoked { owner: owner.number, why, reason }
            }
            Some((ticket, Record::Held { token, count, passed, .. })) => {
                ServerMessage::Granted(Granted {
                    owner: owner.number,
                    ticket,
                    token,
                    count,
                    by_kin: passed.anybody(),
                })
            }
            Some((ticket, Record::Waiting(_))) => {
                ServerMessage::Waiting { owner: owner.number, ticket }
            }
            None => {
                let (owner, why) = (owner.number, Revocation::LeaseLost);
                ServerMessage::Revoked { owner, why, reason: String::new() }
            }
        }
    }

    fn serve(
        &mut self,
        now: Time,
        connection: ConnectionId,
        session: SessionId,
        message: ClientMessage,
    ) {
        let id = |number: u64| OwnerId { session, number };
        // A command about an owner that is gone meanwhile has nothing left to do.
        let _ = match message {
            ClientMessage::Acquire(acquire) => {
                return self.acquire(now, connection, session, acquire);
            }
            ClientMessage::Release { owner, change } => {
                let change = change.and_then(|change| self.change(session, change));
                self.run(now, Command::Release { owner: id(owner), change })
            }
            ClientMessage::Withdraw { owner, why } => {
                self.run(now, Command::Withdraw { owner: id(owner), why })
            }
            ClientMessage::Created { owner, file } => {
                self.run(now, Command::Created { owner: id(owner), file })
            }
            ClientMessage::Active { owner } => self.run(now, Command::Active { owner: id(owner) }),
            ClientMessage::Attach { space, source } => {
                return self.attach(connection, session, space, source);
            }
            ClientMessage::Query { id, query } => {
                return self.answer(now, connection, id, query);
            }
            ClientMessage::Ping => {
                return self.letters.push(Letter::Client(connection, ServerMessage::Pong));
            }
            ClientMessage::Goodbye => return self.close(now, session),
            ClientMessage::Guarded(overwrite) => return self.note_guarded(session, overwrite),
            ClientMessage::Hello(_)
            | ClientMessage::Held { .. }
            | ClientMessage::Waits { .. }
            | ClientMessage::Listed => {
                return self.letters.push(Letter::HangUp(connection));
            }
        };
    }

    fn acquire(
        &mut self,
        now: Time,
        connection: ConnectionId,
        session: SessionId,
        acquire: Arc<Acquire>,
    ) {
        let owner = acquire.owner;
        let outcome = self.claim(session, acquire).and_then(|claim| {
            let leaders = self.leaders_of(&claim);
            let decided = match self.refusal_of_all() {
                Some(why) => Err(why),
                None => self.run(now, Command::Acquire { claim: claim.clone(), leaders }),
            };
            decided.inspect_err(|why| self.note_refusal(&claim, *why))
        });
        if let Err(why) = outcome {
            let refused = ServerMessage::Refused { owner, why };
            self.letters.push(Letter::Client(connection, refused));
        }
    }

    /// Learns of a process what only matters if it would wait: whether it works below a hold that
    /// is in its way. That has to be known before it waits, for behind others that wait for the
    /// hold it would seem to be part of a deadlock.
    fn leaders_of(&self, claim: &Claim) -> Vec<OwnerId> {
        let Some(process) = super::visible_process(claim) else { return Vec::new() };
        if !self.table.would_wait(claim) {
            return Vec::new();
        }
        let mut family = None;
        let mut is_leader = |holder: &Claim| {
            let above = super::leading_process(holder);
            above.is_some_and(|above| {
                family.get_or_insert_with(|| Family::of(process)).is_below(above)
            })
        };
        let holders = self.table.holders_in_the_way(claim, super::SUSPECTS_MAX).into_iter();
        let holders = holders.filter_map(|ticket| self.claim_of(ticket));
        holders.filter(|holder| is_leader(holder)).map(|holder| holder.owner).collect()
    }

    /// Makes a claim of a request: the session's spaces become the broker's.
    fn claim(&self, session: SessionId, acquire: Arc<Acquire>) -> Result<Arc<Claim>, Refusal> {
        let client = self.sessions.get(session).ok_or(Refusal::Unknown)?;
        let acquire = Arc::unwrap_or_clone(acquire);
        let owner = OwnerId { session, number: acquire.owner };
        let mut want = acquire.want;
        if want.places.is_empty() {
            return Err(Refusal::Unknown);
        }
        for place in &mut want.places {
            let seat = client.seats.get(&place.space).ok_or(Refusal::Unknown)?;
            if let Some(path) = &place.path {
                let path =
                    path.below(&seat.prefix).map_err(|_| Refusal::Limit(Limit::PathBytes))?;
                place.path = Some(path);
            }
            place.space = seat.space;
        }
        let patience = match (acquire.patience, self.terms.acquire_timeout) {
            (Patience::Endless, Some(limit)) => Patience::Limited(limit),
            (patience, _) => patience,
        };
        let terms = Terms {
            owner,
            party: party_of(acquire.party, owner),
            caller: acquire.caller,
            patience,
            read_wait: acquire.read_wait,
            lease: None,
            max_hold: client.max_hold,
            label: acquire.label,
        };
        Ok(Arc::new(Claim::new(terms, want)))
    }

    fn change(&self, session: SessionId, change: Change) -> Option<Change> {
        let client = self.sessions.get(session)?;
        Some(match change {
            Change::Removed { space, path } => {
                let (space, path) = broker_path(client, space, &path)?;
                Change::Removed { space, path }
            }
            Change::Renamed { space, from, to } => {
                let (_, to) = broker_path(client, space, &to)?;
                let (space, from) = broker_path(client, space, &from)?;
                Change::Renamed { space, from, to }
            }
            Change::Exchanged { space, one, other } => {
                let (_, other) = broker_path(client, space, &other)?;
                let (space, one) = broker_path(client, space, &one)?;
                Change::Exchanged { space, one, other }
            }
        })
    }

    fn attach(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        spoken: SpaceId,
        source: Source,
    ) {
        let may_lock = self.may(connection, Rights::Lock);
        let Some(client) = self.sessions.get_mut(session) else { return };
        let full =
            client.seats.len() >= SOURCES_PER_CLIENT_MAX || client.seats.contains_key(&spoken);
        let attached = if !may_lock {
            Err(wire::AttachRefusal {
                reason: format!("this client's token has only the scope {}", Rights::Read),
                fix: format!("use a token with the scope {}", Rights::Lock),
            })
        } else if full {
            Err(wire::AttachRefusal {
                reason: format!(
                    "this client has {SOURCES_PER_CLIENT_MAX} sources, or this one already"
                ),
                fix: "use a client for each source".to_owned(),
            })
        } else {
            self.spaces.attach(source)
        };
        let refused_before = client.refused.take() == Some(spoken);
        let message = match attached {
            // Another broker had it, and may be starting again: it has until the next attempt.
            Ok((seat, _)) if refused_before => {
                self.spaces.detach(seat.space);
                self.forget_unused_spaces();
                let refusal = wire::AttachRefusal {
                    reason: "another broker served it a moment ago".to_owned(),
                    fix: "wait: it is asked for again".to_owned(),
                };
                ServerMessage::AttachRefused { space: spoken, refusal }
            }
            Ok((seat, attached)) => {
                self.dirty_spaces.insert(seat.space);
                self.dirty_sessions.insert(session);
                client.seats.insert(spoken, seat);
                self.elsewhere = self.elsewhere.max(client.lease_elsewhere());
                ServerMessage::Attached { space: spoken, attached }
            }
            Err(refusal) => {
                client.refused = Some(spoken);
                ServerMessage::AttachRefused { space: spoken, refusal }
            }
        };
        self.letters.push(Letter::Client(connection, message));
    }

    fn answer(&mut self, now: Time, connection: ConnectionId, id: u64, query: Query) {
        let reply = match query {
            Query::Locks { scope, newer_than, after } => {
                let about = About::Locks { scope, after: Ticket(after) };
                return match newer_than {
                    Some(known) => self.watch(connection, id, about, known),
                    None => self.ask(connection, id, about),
                };
            }
            Query::Why { scope } => return self.ask(connection, id, About::Why { scope }),
            Query::Status => return self.ask(connection, id, About::Status),
            Query::Sessions { after } => {
                return self.ask(connection, id, About::Sessions { after: SessionId(after) });
            }
            Query::Log(query) => return self.answer_log(connection, id, query),
            Query::Break { ticket, reason } => {
                let command = Command::Break { ticket: Ticket(ticket) };
                self.order_of(now, connection, command, reason)
            }
            Query::Recall { ticket, reason, within } => {
                let command = Command::Recall { ticket: Ticket(ticket), within };
                self.order_of(now, connection, command, reason)
            }
        };
        self.reply(connection, id, reply);
    }

    /// Does what only some may ask: to end a claim, or to have it ended.
    fn order_of(
        &mut self,
        now: Time,
        connection: ConnectionId,
        command: Command,
        reason: String,
    ) -> Reply {
        if !self.may(connection, Rights::Admin) {
            return Reply::Forbidden;
        }
        match self.order(now, command, reason) {
            Ok(()) => Reply::Done,
            Err(NotDone::NoReason) => Reply::Nonsense,
            Err(NotDone::NoSuchClaim) => Reply::Unknown,
        }
    }

    /// Ends a claim, or has it ended, for a reason that whoever loses it is told.
    pub(super) fn order(
        &mut self,
        now: Time,
        command: Command,
        reason: String,
    ) -> Result<(), NotDone> {
        let ticket = match command {
            Command::Break { .. } if reason.trim().is_empty() => return Err(NotDone::NoReason),
            Command::Break { ticket } | Command::Recall { ticket, .. } => ticket,
            _ => return Err(NotDone::NoSuchClaim),
        };
        if self.is_revoked(ticket) {
            return Ok(()); // It is done, for the reason that was given first.
        }
        self.reasons.insert(ticket, clipped(reason));
        let outcome = self.run(now, command);
        outcome.map_err(|_| {
            self.reasons.remove(&ticket);
            NotDone::NoSuchClaim
        })
    }
}

/// Returns at most as much of a text as is kept.
pub(super) fn clipped(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(TEXT_BYTES_MAX));
    reason
}

fn broker_path(client: &Client, space: SpaceId, path: &ViewPath) -> Option<(SpaceId, ViewPath)> {
    let seat = client.seats.get(&space)?;
    Some((seat.space, path.below(&seat.prefix).ok()?))
}

fn party_of(party: wire::Party, owner: OwnerId) -> Party {
    match party {
        wire::Party::Process(process) => Party::Process(process),
        wire::Party::Named(name) => Party::Named(name.into()),
        wire::Party::Session => Party::Session(owner.session),
        wire::Party::Owner => Party::Owner(owner),
    }
}
