//! Writes down what happens, for the log and the counts.

use std::time::Duration;

use gate_api::wire::{Fate, Happening, Named, Overwrite, Pass, Presence, Recall, Subject};
use gate_core::id::{SessionId, Ticket};
use gate_core::lock::claim::{Claim, Party};
use gate_core::lock::event::{End, Event, Recall as RecallEvent, Refusal};
use gate_core::lock::table::{Record, Since};
use gate_core::lock::want::{Node, Op};
use gate_core::time::Time;

use super::Desk;
use super::attend::clipped;
use crate::clock;
use crate::sessions::Sessions;
use crate::spaces::Spaces;

/// Bytes of names that are recorded of one claim.
const NAMES_BYTES_MAX: usize = 16 * 1024;

impl Desk {
    /// Lets the log have what happened, if the journal has all of it (N3).
    pub fn hand_over(&mut self) {
        if !self.is_dirty() {
            self.pen.hand_over();
        }
    }

    /// Notes that the run ends.
    pub fn stop(&mut self) {
        self.pen.note(Happening::Stopped);
        self.hand_over();
    }

    /// Returns what a later run is to know of a claim.
    pub(super) fn written(&self, ticket: Ticket) -> Option<Record> {
        let record = self.table.record(ticket)?;
        if self.spaces.are_sealed(&record.claim().want().places) {
            record.nameless()
        } else {
            Some(record)
        }
    }

    /// Looks at the claim that an event is about, before that is applied.
    pub(super) fn since(&self, event: &Event) -> Since {
        match event {
            Event::Granted { ticket, .. }
            | Event::Revoked { ticket, .. }
            | Event::Ended { ticket, .. } => self.table.since(*ticket),
            _ => Since::default(),
        }
    }

    /// Notes what became of a claim that stands, or of a client that came.
    pub(super) fn note(&mut self, event: &Event, since: Since, now: Time, reason: &str) {
        match event {
            Event::Queued { ticket, claim, .. } => {
                self.metrics.waits.inc();
                self.note_claim(Some(*ticket), claim, Fate::Waits);
            }
            Event::Granted { ticket, claim, token, passed, .. } => {
                let waited = since.waiting.map_or(Duration::ZERO, |at| now.since(at));
                let pass = if passed.anybody() { self.pass_of(*ticket) } else { Pass::None };
                self.metrics.granted(pass);
                if since.waiting.is_some() {
                    self.metrics.waited(waited);
                    self.hand_offs.push(now);
                }
                self.note_claim(
                    Some(*ticket),
                    claim,
                    Fate::Granted { token: *token, waited, pass },
                );
            }
            Event::Counted { ticket, count } => {
                if let Some(claim) = self.claim_of(*ticket) {
                    self.note_claim(Some(*ticket), &claim, Fate::Counted(*count));
                }
            }
            Event::Recalled { ticket, recall } => {
                self.metrics.recalled(recall.why);
                let RecallEvent { why, stage, until } = *recall;
                let (within, reason) = (until.since(now), reason.to_owned());
                if let Some(claim) = self.claim_of(*ticket) {
                    let recall = Recall { why, stage, within, reason };
                    self.note_claim(Some(*ticket), &claim, Fate::Recalled(recall));
                }
            }
            Event::Opened { session, .. } => self.note_client(*session, Presence::Came),
            Event::Lost { session, .. } => self.note_client(*session, Presence::Lost),
            Event::Overdue { session, .. } => self.note_client(*session, Presence::Overdue),
            Event::Back { session } => self.note_client(*session, Presence::Back),
            _ => {}
        }
    }

    /// Returns whether a claim's grant was taken away, and its owner has not let go.
    pub(super) fn is_revoked(&self, ticket: Ticket) -> bool {
        matches!(self.table.record(ticket), Some(Record::Held { revoked: Some(_), .. }))
    }

    /// Notes the end of a claim, or of the wait for more than is held.
    pub(super) fn note_end_of(
        &mut self,
        (ticket, claim): (Ticket, &Claim),
        end: End,
        held: Option<Duration>,
        reason: &str,
    ) {
        // What was taken away was noted then.
        if matches!(end, End::Revoked(_)) && self.is_revoked(ticket) {
            return;
        }
        match end {
            End::Released => {}
            End::Refused(why) => self.metrics.refused(why),
            End::Revoked(why) => self.metrics.revoked(why),
            End::Ungated => {
                self.metrics.ungated.inc();
            }
        }
        if let Some(held) = held {
            self.metrics.held(held);
        }
        let became = match end {
            End::Released => Fate::Released { held },
            End::Refused(why) => Fate::Refused { why, reason: reason.into() },
            End::Revoked(why) => Fate::Revoked { why, reason: reason.into(), held },
            End::Ungated => Fate::Ungated,
        };
        self.note_claim(Some(ticket), claim, became);
    }

    /// Notes a request that was told no at the door.
    pub(super) fn note_refusal(&mut self, claim: &Claim, why: Refusal) {
        self.metrics.refused(why);
        self.note_claim(None, claim, Fate::Refused { why, reason: "".into() });
    }

    /// Notes what the guard of a view did, which no turn depends on.
    pub(super) fn note_guarded(&mut self, session: SessionId, overwrite: Overwrite) {
        let Overwrite { space, path, op, agent, became } = overwrite;
        let Some(client) = self.sessions.get(session) else { return };
        let Some(seat) = client.seats.get(&space) else { return };
        let Ok(path) = path.below(&seat.prefix) else { return };
        let Some(space) = self.spaces.get(seat.space) else { return };
        let place = Named { space: space.name.as_str().into(), path: Some(path), directory: false };
        let claim = Subject {
            ticket: None,
            op,
            places: vec![place],
            owner: clipped(agent).into(),
            party: "".into(),
            reason: "".into(),
            process: None,
            session: session.0,
            client: client.name.as_str().into(),
        };
        let what = Happening::Claim { became: Fate::Guarded(became), claim };
        if space.is_sealed() { self.pen.note_sealed(what) } else { self.pen.note(what) }
    }

    /// Notes that a client is gone, which is still known.
    pub(super) fn note_gone(&mut self, session: SessionId) {
        self.note_client(session, Presence::Gone);
    }

    /// Says by which right a claim was let in. What a process has already costs nothing, and that
    /// a command works below its hold is what the hold is for: neither is news.
    fn pass_of(&self, ticket: Ticket) -> Pass {
        let is_hold = |leader| {
            let leader = self.claim_of(leader);
            leader.is_some_and(|claim| matches!(claim.want().op, Op::Hold(_)))
        };
        match self.table.record(ticket) {
            Some(Record::Held { kin, .. }) if kin.keys().any(|leader| !is_hold(*leader)) => {
                Pass::AwaitedByHolder
            }
            _ => Pass::Own,
        }
    }

    /// All letters are out: counts how long those let in had to wait for theirs.
    pub fn told(&mut self) {
        if self.hand_offs.is_empty() {
            return;
        }
        let now = clock::now();
        for decided in self.hand_offs.drain(..) {
            self.metrics.handed_off(now.since(decided));
        }
    }

    /// Says how much there is of what.
    pub(super) fn measure(&self) {
        let (held, waiting) = self.table.load();
        let sizes = &self.metrics.sizes;
        let connections = self.sessions.iter().filter(|(_, client)| client.connection.is_some());
        for (gauge, size) in [
            (&sizes.sessions, self.sessions.len()),
            (&sizes.connections, connections.count()),
            (&sizes.held, held),
            (&sizes.waiting, waiting),
            (&sizes.longest_line, self.table.longest_line()),
        ] {
            gauge.set(i64::try_from(size).unwrap_or(i64::MAX));
        }
    }

    fn note_claim(&mut self, ticket: Option<Ticket>, claim: &Claim, became: Fate<'_>) {
        let is_sealed = self.spaces.are_sealed(&claim.want().places);
        let claim = subject(ticket, claim, &self.spaces, &self.sessions);
        if became.is_odd() {
            tracing::info!(ticket = claim.ticket, ?became, owner = %claim.owner, "out of order");
        }
        let what = Happening::Claim { became, claim };
        if is_sealed { self.pen.note_sealed(what) } else { self.pen.note(what) }
    }

    fn note_client(&mut self, session: SessionId, became: Presence) {
        let Some(client) = self.sessions.get(session) else { return };
        self.pen.note(Happening::Client {
            session: session.0,
            client: client.name.as_str().into(),
            process: Some(client.process),
            became,
        });
    }
}

/// Says of a claim what stays true when its space and its session are gone.
fn subject<'a>(
    ticket: Option<Ticket>,
    claim: &'a Claim,
    spaces: &'a Spaces,
    sessions: &'a Sessions,
) -> Subject<'a> {
    let mut bytes = 0;
    let named = claim.want().places.iter().map(|place| Named {
        space: spaces.get(place.space).map_or("", |space| space.name.as_str()).into(),
        path: place.path.clone(),
        directory: place.node == Node::Directory,
    });
    let places = named.take_while(|named| {
        let fits = bytes <= NAMES_BYTES_MAX;
        bytes += named.space.len() + named.path.as_ref().map_or(0, |path| path.as_bytes().len());
        fits
    });
    let client = sessions.get(claim.owner.session);
    Subject {
        ticket: ticket.map(|ticket| ticket.0),
        op: claim.want().op,
        places: places.collect(),
        owner: claim.label.owner.as_str().into(),
        party: match &claim.party {
            Party::Named(name) => (&**name).into(),
            Party::Process(_) | Party::Session(_) | Party::Owner(_) => "".into(),
        },
        reason: claim.label.reason.as_str().into(),
        process: claim.caller.map(|caller| caller.process),
        session: claim.owner.session.0,
        client: client.map_or("", |client| client.name.as_str()).into(),
    }
}
