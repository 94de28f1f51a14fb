//! Decides: what clients say goes in, what must be journaled and who must be told comes out.
//!
//! The desk does no I/O of its own but to lock sources and to look at processes. Whoever runs it
//! journals its [`Desk::entries`], and only then delivers its [`Letter`]s (N3).

mod attend;
mod note;
mod questions;
mod report;
mod standstill;
mod v1;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gate_api::bearer::Rights;
use gate_api::process;
use gate_api::wire::{self, Acquire, BrokerInfo, Granted, Halt, ServerMessage};
use gate_core::id::{OwnerId, SessionId, SpaceId, Ticket, Token};
use gate_core::lock::claim::{Claim, Process};
use gate_core::lock::event::{Command, End, Event, Notice, Recall, Refusal};
use gate_core::lock::table::{Record, Restore, Table};
use gate_core::lock::want::Op;
use gate_core::time::Time;
use rustc_hash::FxHashMap;

use crate::audit::{Pen, Reader};
use crate::clock;
use crate::journal::{Entry, Loss, Memory};
use crate::kin::{Case, Suspect};
use crate::mail::{ConnectionId, Inbox};
use crate::metrics::Metrics;
use crate::sessions::Sessions;
use crate::spaces::Spaces;
use crate::stateless::{Reply, Stateless};
use questions::{Asked, Questions};

/// Steps of what nobody asked for in this moment that one turn takes: leases that end, clients that
/// go. More of them go on in the next, so that a thousand do not hold up the one who asks.
const STEPS_PER_TURN: usize = 16;
/// What follows from one command before the next is heard; the rest follows later.
const SETTLED_AT_ONCE_MAX: usize = 512;
/// Holders that are looked at for one waiter at a time: those found to be kin make room for others.
pub(crate) const SUSPECTS_MAX: usize = 64;

/// What a broker grants to those who do not ask for something else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long a connected client may be away.
    pub lease_session: Duration,
    /// How long a lock of the stateless interface lives without a heartbeat.
    pub lease_stateless: Duration,
    /// How long such a lock may be held in all.
    pub max_hold: Option<Duration>,
    /// How long a request waits.
    pub acquire_timeout: Option<Duration>,
}

/// Something to be told or done, once all before it is journaled.
pub(crate) enum Letter {
    /// To a client.
    Client(ConnectionId, ServerMessage),
    /// End a connection.
    HangUp(ConnectionId),
    /// To a client of the stateless interface.
    Stateless(Reply),
    /// Tell when a client's process ends.
    Watch(SessionId, Process),
    /// That does not matter any more.
    Unwatch(SessionId),
    /// Look whether a waiter is kin of those it waits for.
    Probe(Case),
    /// That does not matter any more.
    Unprobe(Ticket),
}

pub(crate) struct Desk {
    table: Table,
    sessions: Sessions,
    spaces: Spaces,
    stateless: Stateless,
    pen: Pen,
    log: Reader,
    /// Where the log's answers come in.
    inbox: Inbox,
    metrics: Arc<Metrics>,
    /// When those were let in who had waited, and were not told yet.
    hand_offs: Vec<Time>,
    visitors: FxHashMap<ConnectionId, Visitor>,
    questions: Questions,
    letters: Vec<Letter>,
    /// Sessions that are to end, or have ended in part.
    leaving: VecDeque<SessionId>,
    /// Steps taken in this turn.
    steps: usize,
    /// Whether more may follow from what was applied.
    unsettled: bool,
    /// Why nothing is granted now.
    halt: Option<Halt>,
    dirty_claims: BTreeSet<Ticket>,
    dirty_sessions: BTreeSet<SessionId>,
    dirty_spaces: BTreeSet<SpaceId>,
    /// Why claims are to end, in the words of whoever asked for it.
    reasons: FxHashMap<Ticket, String>,
    /// The grace ended, which is not yet in the journal.
    complete: bool,
    /// The lease of who outlives the machine and may hold something; not yet in the journal.
    elsewhere: Option<Duration>,
    /// Rises with every batch that changed who holds or waits.
    version: u64,
    terms: Terms,
    info: BrokerInfo,
    started_at_ms: u64,
}

/// Who comes in by a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    /// How it came.
    pub way: Way,
    /// What it may do.
    pub rights: Rights,
}

/// What a desk begins with, beside what the former run remembered.
pub(crate) struct Parts {
    pub terms: Terms,
    pub info: BrokerInfo,
    pub pen: Pen,
    pub log: Reader,
    pub inbox: Inbox,
    pub metrics: Arc<Metrics>,
}

/// How somebody came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From this machine, as the process that the kernel told of, if it could.
    Local(Option<Process>),
    /// Over TCP, from wherever.
    Tcp,
}

/// Who is behind a connection.
struct Visitor {
    guest: Guest,
    stage: Stage,
    asked: Asked,
}

/// How far a connection has come.
enum Stage {
    /// It has not said hello.
    New,
    /// It lists what it has.
    Listing { session: SessionId, held: Vec<(Arc<Acquire>, Token)>, waiting: Vec<Arc<Acquire>> },
    /// It is at work.
    Open { session: SessionId },
}

impl Stage {
    fn session(&self) -> Option<SessionId> {
        match self {
            Stage::New => None,
            Stage::Listing { session, .. } | Stage::Open { session } => Some(*session),
        }
    }
}

impl Desk {
    /// Begins a run with what the former one remembered.
    pub fn restore(memory: Memory, parts: Parts, now: Time) -> Desk {
        let Parts { terms, info, pen, log, inbox, metrics } = parts;
        let Memory { epoch, loss, lease_lost, claims, sessions, spaces } = memory;
        let leases: Vec<_> = sessions.iter().map(|(id, client)| (*id, client.lease)).collect();
        let known = |session: SessionId| leases.iter().any(|(id, _)| *id == session);
        let (kept, forgotten): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|(_, record)| match record {
                // Who waited there was answered when the connection broke.
                Record::Waiting(claim) => known(claim.owner.session),
                Record::Held { claim, .. } => {
                    claim.owner.session == SessionId::STATELESS || known(claim.owner.session)
                }
            });
        let usual = terms.lease_session;
        let longest = leases.iter().map(|(_, lease)| *lease).max().unwrap_or(usual);
        let grace = if loss == Loss::Tail { longest.max(lease_lost).max(usual) } else { longest };
        let stateless = Stateless::restore(epoch, &kept);
        let incomplete = loss == Loss::Tail;
        let restore = Restore { sessions: leases, claims: kept, incomplete, grace };
        let mut desk = Desk {
            table: Table::restore(epoch, now, restore),
            sessions: Sessions::restore(epoch, sessions),
            spaces: Spaces::restore(spaces),
            stateless,
            pen,
            log,
            inbox,
            metrics,
            hand_offs: Vec::new(),
            visitors: FxHashMap::default(),
            questions: Questions::default(),
            letters: Vec::new(),
            leaving: VecDeque::new(),
            steps: 0,
            unsettled: false,
            halt: None,
            dirty_claims: forgotten.into_iter().map(|(ticket, _)| ticket).collect(),
            dirty_sessions: BTreeSet::new(),
            dirty_spaces: BTreeSet::new(),
            reasons: FxHashMap::default(),
            complete: false,
            elsewhere: None,
            version: 1,
            terms,
            info,
            started_at_ms: clock::wall_ms(),
        };
        desk.review_former_sessions(now, loss);
        desk
    }

    /// Ends former sessions whose process is dead, for it was seen or went down with the machine, or
    /// whose source another broker has.
    fn review_former_sessions(&mut self, now: Time, loss: Loss) {
        let taken = self.spaces.lock_again();
        for (space, by) in &taken {
            tracing::error!(?space, %by, "a source is served by another broker now");
        }
        let mut ended = Vec::new();
        let mut seats = Vec::new();
        for (id, client) in self.sessions.iter() {
            seats.extend(client.seats.values().map(|seat| seat.space));
            let lost =
                client.seats.values().any(|seat| taken.iter().any(|(s, _)| *s == seat.space));
            let is_dead = loss == Loss::Clients
                || (client.is_visible() && !process::is_alive(client.process));
            if lost || is_dead {
                ended.push(id);
            } else if client.is_visible() {
                self.letters.push(Letter::Watch(id, client.process));
            }
        }
        for space in seats {
            self.spaces.count_client(space);
        }
        for session in ended {
            self.close(now, session);
        }
        if loss == Loss::Clients {
            // In one batch, before anybody else is let in: a run that finds part of it would end
            // those, too.
            while let Some(session) = self.leaving.pop_front() {
                self.see_off(now, session);
            }
            self.complete = true;
        }
        self.forget_unused_spaces();
    }

    #[cfg(test)]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Returns when [`Desk::tick`] is due, if ever.
    pub fn deadline(&self) -> Option<Time> {
        self.table.deadline()
    }

    /// Returns whether something was put off to the next turn.
    pub fn is_behind(&self) -> bool {
        (self.unsettled && !self.stands_still()) || !self.leaving.is_empty()
    }

    /// Does what time brought about and what was put off, as far as one turn allows.
    pub fn tick(&mut self, now: Time) {
        if std::mem::take(&mut self.unsettled) {
            self.settle(now);
        }
        self.steps = 0;
        while self.steps < STEPS_PER_TURN {
            self.steps += 1;
            if let Some(session) = self.leaving.pop_front() {
                self.see_off(now, session);
            } else if self.table.deadline().is_some_and(|at| at <= now) {
                let ticked = self.run(now, Command::Tick);
                debug_assert!(ticked.is_ok(), "time cannot be refused");
            } else {
                break;
            }
        }
        self.steps = 0;
    }

    /// Returns everything that changed, as it now stands.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let claims = self.dirty_claims.iter();
        let sessions = self.dirty_sessions.iter();
        let spaces = self.dirty_spaces.iter();
        claims
            .map(|ticket| Entry::Claim(*ticket, self.written(*ticket)))
            .chain(sessions.map(|id| Entry::Session(*id, self.sessions.get(*id))))
            .chain(spaces.map(|id| Entry::Space(*id, self.spaces.get(*id))))
            .chain(self.complete.then_some(Entry::Complete))
            .chain(self.elsewhere.map(Entry::Elsewhere))
            .chain(self.halt.is_some().then_some(Entry::Trial))
    }

    /// Returns whether anything changed since the last commit.
    pub fn is_dirty(&self) -> bool {
        !(self.dirty_claims.is_empty()
            && self.dirty_sessions.is_empty()
            && self.dirty_spaces.is_empty()
            && !self.complete
            && self.elsewhere.is_none())
    }

    /// Takes note that all entries are in the journal.
    pub fn committed(&mut self, took: Duration) {
        self.metrics.committed(took);
        self.go_on();
        if !self.dirty_claims.is_empty() {
            self.version += 1;
            self.wake_watchers();
        }
        self.dirty_claims.clear();
        self.dirty_sessions.clear();
        self.dirty_spaces.clear();
        self.complete = false;
        self.elsewhere = None;
    }

    /// Returns whether anybody is to be told anything.
    pub fn has_letters(&self) -> bool {
        !self.letters.is_empty()
    }

    /// Hands out what is to be told, which must be journaled by now.
    pub fn take_letters(&mut self) -> Vec<Letter> {
        assert!(!self.is_dirty() || self.tells_no_grant(), "N3: journaled before it is told");
        std::mem::take(&mut self.letters)
    }

    /// Somebody looked: `holder` waits for the process of `waiter`, or leads it.
    pub fn kin(&mut self, now: Time, waiter: OwnerId, holder: OwnerId) {
        // Either may be gone by now.
        let _ = self.run(now, Command::Kin { waiter, holder });
    }

    /// Returns the case of each that still waits, and says which do not.
    pub fn probe(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            let case = self.case_of(*ticket).map_or(Letter::Unprobe(*ticket), Letter::Probe);
            self.letters.push(case);
        }
    }

    /// A client's process is dead, or it said good-bye.
    pub fn close(&mut self, now: Time, session: SessionId) {
        if self.leaving.is_empty() && self.steps < STEPS_PER_TURN {
            self.steps += 1;
            self.see_off(now, session);
        } else {
            self.leaving.push_back(session);
        }
    }

    /// Ends a part of a session; it stays next in turn until all of it is gone.
    fn see_off(&mut self, now: Time, session: SessionId) {
        // It may have ended by itself.
        let closing = self.run(now, Command::Close { session });
        if closing.is_ok() && self.sessions.get(session).is_some() {
            self.leaving.push_front(session);
        }
    }

    /// Decides and applies one command and what follows from it, and takes note.
    fn run(&mut self, now: Time, command: Command) -> Result<(), Refusal> {
        let events = self.table.decide(now, command)?;
        for event in events {
            self.apply(now, &event);
        }
        if !self.unsettled {
            self.settle(now);
        }
        Ok(())
    }

    fn settle(&mut self, now: Time) {
        if self.stands_still() {
            self.unsettled = true;
            return;
        }
        let mut settled = 0;
        while settled < SETTLED_AT_ONCE_MAX || self.table.ends_a_session() {
            let Some(event) = self.table.settle(now) else { return };
            self.apply(now, &event);
            settled += 1;
        }
        self.unsettled = true;
    }

    fn apply(&mut self, now: Time, event: &Event) {
        let reason = self.reason_of(event);
        let since = self.since(event);
        self.witness(event, since.held.map(|at| now.since(at)), &reason);
        for notice in self.table.apply(event) {
            self.address(now, notice, &reason);
        }
        self.note(event, since, now, &reason);
        if let Event::Closed { session } = event {
            self.note_gone(*session);
            self.forget(*session);
        }
    }

    /// Takes note of an event while what it is about still stands.
    fn witness(&mut self, event: &Event, held: Option<Duration>, reason: &str) {
        match event {
            Event::Queued { ticket, .. }
            | Event::Granted { ticket, .. }
            | Event::Counted { ticket, .. }
            | Event::Reshaped { ticket, .. }
            | Event::Renewed { ticket, .. } => {
                self.dirty_claims.insert(*ticket);
            }
            Event::Revoked { ticket, why, .. } => {
                self.dirty_claims.insert(*ticket);
                if let Some(claim) = self.claim_of(*ticket) {
                    self.note_end_of((*ticket, &claim), End::Revoked(*why), held, reason);
                }
            }
            Event::Ended { ticket, end } => {
                self.dirty_claims.insert(*ticket);
                if let Some(claim) = self.claim_of(*ticket) {
                    self.note_end_of((*ticket, &claim), *end, held, reason);
                    self.stateless.ended(claim.owner, *end, &mut self.letters);
                }
            }
            Event::UpgradeEnded { ticket, why } => {
                if let Some(claim) = self.claim_of(*ticket) {
                    self.note_end_of((*ticket, &claim), End::Refused(*why), None, reason);
                    self.stateless.ended_upgrade(claim.owner, *why, &mut self.letters);
                }
            }
            Event::Opened { session, .. } => {
                self.dirty_sessions.insert(*session);
            }
            Event::Recalled { ticket, .. } => {
                // To the journal it is as before; not to those who watch.
                self.dirty_claims.insert(*ticket);
            }
            Event::Lost { .. }
            | Event::Overdue { .. }
            | Event::Spared { .. }
            | Event::Outstayed { .. }
            | Event::Back { .. }
            | Event::Closed { .. }
            | Event::Active { .. }
            | Event::Deferred { .. }
            | Event::Cleared { .. }
            | Event::Suspected { .. }
            | Event::Kin { .. } => {}
            Event::GraceEnded => self.complete = true,
        }
    }

    /// Returns why a claim ends or is asked to, if somebody said so.
    fn reason_of(&mut self, event: &Event) -> String {
        let reason = match event {
            Event::Ended { ticket, .. } | Event::Spared { ticket, .. } => {
                self.reasons.remove(ticket)
            }
            Event::Recalled { ticket, .. } | Event::Revoked { ticket, .. } => {
                self.reasons.get(ticket).cloned()
            }
            _ => None,
        };
        reason.unwrap_or_default()
    }

    fn claim_of(&self, ticket: Ticket) -> Option<Arc<Claim>> {
        Some(match self.table.record(ticket)? {
            Record::Waiting(claim) | Record::Held { claim, .. } => claim,
        })
    }

    /// Turns a notice into a letter to whoever it is for.
    fn address(&mut self, now: Time, notice: Notice, reason: &str) {
        let owner = match &notice {
            Notice::Granted { owner, .. }
            | Notice::Waiting { owner, .. }
            | Notice::Refused { owner, .. }
            | Notice::Ungated { owner }
            | Notice::Revoked { owner, .. }
            | Notice::Recalled { owner, .. }
            | Notice::Contended { owner } => *owner,
            Notice::Restored { .. } => return,
        };
        if let Notice::Waiting { ticket, .. } = notice {
            self.letters.extend(self.case_of(ticket).map(Letter::Probe));
        }
        if owner.session == SessionId::STATELESS {
            if let Notice::Granted { ticket, .. } = notice {
                let lock = report::v1_lock(&self.table, ticket);
                self.stateless.granted(owner.number, lock, &mut self.letters);
            }
            return;
        }
        let client = self.sessions.get(owner.session);
        let Some(connection) = client.and_then(|client| client.connection) else { return };
        if let Some(message) = message_of(now, notice, owner.number, reason) {
            self.letters.push(Letter::Client(connection, message));
        }
    }

    /// Returns what to look at to learn whether a waiter is kin of those in its way, if that can be
    /// seen from here.
    fn case_of(&self, ticket: Ticket) -> Option<Case> {
        let claim = self.claim_of(ticket).filter(|_| self.table.waits(ticket))?;
        let process = visible_process(&claim)?;
        let holders = self.table.holders_before(ticket, SUSPECTS_MAX);
        let suspects: Vec<Suspect> = holders
            .into_iter()
            .filter_map(|holder| {
                let claim = self.claim_of(holder)?;
                let process = visible_process(&claim)?;
                let thread = claim.caller.map_or(0, |caller| caller.thread);
                let is_hold = claim.want().op.is_hold();
                Some(Suspect { owner: claim.owner, process, thread, is_hold })
            })
            .collect();
        Some(Case { ticket, owner: claim.owner, process, suspects })
    }

    fn forget(&mut self, session: SessionId) {
        self.dirty_sessions.insert(session);
        let Some(client) = self.sessions.remove(session) else { return };
        if client.is_visible() {
            self.letters.push(Letter::Unwatch(session));
        }
        for seat in client.seats.values() {
            self.spaces.detach(seat.space);
        }
        if let Some(connection) = client.connection {
            self.visitors.remove(&connection);
            self.letters.push(Letter::HangUp(connection));
        }
        self.forget_unused_spaces();
    }

    fn forget_unused_spaces(&mut self) {
        let table = &self.table;
        let root = gate_core::path::ViewPath::root();
        let used = |space| !table.tickets_at(space, &root, Ticket(0), 1).is_empty();
        let unused = self.spaces.forget_unused(used);
        self.dirty_spaces.extend(unused);
    }
}

fn visible_process(claim: &Claim) -> Option<Process> {
    let process = claim.caller.map(|caller| caller.process);
    process.filter(|process| process.namespace == process::namespace())
}

/// Returns the process below which all are kin of a holder.
fn leading_process(holder: &Claim) -> Option<Process> {
    visible_process(holder).filter(|_| matches!(holder.want().op, Op::Hold(_)))
}

fn message_of(now: Time, notice: Notice, owner: u64, reason: &str) -> Option<ServerMessage> {
    Some(match notice {
        Notice::Granted { ticket, token, count, passed, .. } => {
            let by_kin = passed.anybody();
            ServerMessage::Granted(Granted { owner, ticket, token, count, by_kin })
        }
        Notice::Waiting { ticket, .. } => ServerMessage::Waiting { owner, ticket },
        Notice::Refused { why, .. } => ServerMessage::Refused { owner, why },
        Notice::Ungated { .. } => ServerMessage::Ungated { owner },
        Notice::Revoked { why, .. } => {
            ServerMessage::Revoked { owner, why, reason: reason.to_owned() }
        }
        Notice::Recalled { recall, .. } => {
            let Recall { why, stage, until } = recall;
            let (within, reason) = (until.since(now), reason.to_owned());
            let recall = wire::Recall { why, stage, within, reason };
            ServerMessage::Recalled { owner, recall }
        }
        Notice::Contended { .. } => ServerMessage::Contended { owner },
        Notice::Restored { .. } => return None,
    })
}
