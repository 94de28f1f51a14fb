//! Attends to the calls of the stateless interface.

use std::sync::Arc;
use std::time::Duration;

use gate_api::v1;
use gate_api::wire::LEASE_MS_MAX;
use gate_core::id::{OwnerId, SessionId, SpaceId, Ticket};
use gate_core::lock::claim::{Claim, Label, Party, Patience, Terms};
use gate_core::lock::event::{Command, Refusal};
use gate_core::lock::limits::Limit;
use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_core::path::{PathError, ViewPath};
use gate_core::time::Time;
use tokio::sync::oneshot;

use super::attend::NotDone;
use super::questions::Page;
use super::{Desk, Letter};
use crate::clock::{self, Reading};
use crate::spaces::DEFAULT;
use crate::stateless::{Call, Name, Outcome, Reply, RequestId, show_lock, show_waiter};

/// Lines of one page of a status: what is told in one go holds nobody up.
const LINES_MAX: usize = 128;

impl Desk {
    /// Attends to a call; answers come as letters.
    pub fn call(&mut self, now: Time, call: Call) {
        let (answer, outcome) = match call {
            Call::Acquire { request, body, answer } => {
                return self.acquire_stateless(now, request, body, answer);
            }
            Call::GiveUp { request } => return self.give_up(now, request, Refusal::TimedOut),
            Call::Abandon { request } => return self.give_up(now, request, Refusal::Interrupted),
            Call::Release { body, answer } => (answer, self.release_stateless(now, &body)),
            Call::Heartbeat { body, answer } => (answer, self.renew_stateless(now, &body)),
            Call::Recall { body, answer } => {
                let (ticket, within) = (Ticket(body.ticket), Duration::from_millis(body.within_ms));
                let done = self.order(now, Command::Recall { ticket, within }, body.reason);
                (answer, done.map_or_else(Outcome::from, |()| Outcome::Recalled))
            }
            Call::Break { body, answer } => {
                let command = Command::Break { ticket: Ticket(body.ticket) };
                let done = self.order(now, command, body.reason);
                (answer, done.map_or_else(Outcome::from, |()| Outcome::Broken))
            }
            Call::Status { body, after, answer } => {
                return self.ask_for_page(Page { body, after, answer });
            }
        };
        self.letters.push(Letter::Stateless(Reply { answer, outcome }));
    }

    /// Takes a grant back that its client did not live to hear of.
    pub fn undelivered(&mut self, now: Time, lock: &v1::Lock) {
        if let Some((number, _)) = self.stateless.lookup(&lock.lock_id) {
            let owner = OwnerId { session: SessionId::STATELESS, number };
            // It may have ended by itself meanwhile.
            let _ = self.run(now, Command::Release { owner, change: None });
        }
    }

    fn acquire_stateless(
        &mut self,
        now: Time,
        request: RequestId,
        body: v1::AcquireRequest,
        answer: oneshot::Sender<Outcome>,
    ) {
        let tries = body.timeout_ms == Some(0);
        let refused = self.refusal_of_all().map_or(Ok(()), |why| Err(Outcome::Refused(why)));
        let claim = match refused.and_then(|()| self.stateless_claim(body)) {
            Ok(claim) => claim,
            Err(outcome) => {
                return self.letters.push(Letter::Stateless(Reply { answer, outcome }));
            }
        };
        let owner = claim.owner;
        self.stateless.expect(request, owner.number, answer);
        match self.run(now, Command::Acquire { claim: claim.clone(), leaders: Vec::new() }) {
            // It joined its own place in line, which waits.
            Ok(()) if tries => self.give_up(now, request, Refusal::WouldBlock),
            Ok(()) => {}
            Err(why) => {
                self.note_refusal(&claim, why);
                self.stateless.answer(request, Outcome::Refused(why), &mut self.letters);
                if self.table.ticket_of(owner).is_none() {
                    self.stateless.forget(owner.number);
                }
            }
        }
    }

    /// Makes a claim of a request. How long it waits is kept by its HTTP request: two requests
    /// of one owner are one place in line, each with a patience of its own.
    fn stateless_claim(&mut self, body: v1::AcquireRequest) -> Result<Arc<Claim>, Outcome> {
        let path = parse_path(&body.path)?;
        let lease = self.lease_of(body.lease_ms)?.unwrap_or(self.terms.lease_stateless);
        let max_hold = match body.max_hold_ms {
            None => self.terms.max_hold,
            Some(limit) => limit.filter(|ms| *ms > 0).map(Duration::from_millis),
        };
        if body.owner.is_empty() {
            return Err(Outcome::Nonsense("owner is empty".to_owned()));
        }
        let space = body.space.as_deref().unwrap_or(DEFAULT);
        let space = match self.space_named(space) {
            Some(known) => known,
            None => self.make_space(space)?,
        };
        let access = match body.mode {
            v1::Mode::Read => Access::Read,
            v1::Mode::Write => Access::Write,
        };
        let party: Arc<str> = body.owner.as_str().into();
        let name = Name { space, path: path.clone(), owner: party.clone() };
        let number = self.stateless.number_of(name);
        let asked_at_ms = clock::wall_ms();
        let terms = Terms {
            owner: OwnerId { session: SessionId::STATELESS, number },
            party: Party::Named(party),
            caller: None,
            patience: if body.timeout_ms == Some(0) { Patience::Try } else { Patience::Endless },
            read_wait: None,
            lease: Some(lease),
            max_hold,
            label: Label { owner: body.owner, reason: String::new(), asked_at_ms },
        };
        let places = vec![Place { space, path: Some(path), node: Node::None }];
        Ok(Arc::new(Claim::new(terms, Want { op: Op::Lock(access), places })))
    }

    fn make_space(&mut self, name: &str) -> Result<SpaceId, Outcome> {
        self.forget_unused_spaces();
        let made = self.spaces.named(name, true);
        let space =
            made.ok_or_else(|| Outcome::Nonsense(format!("no room for the space {name}")))?;
        self.dirty_spaces.insert(space);
        Ok(space)
    }

    /// A request waits no longer.
    fn give_up(&mut self, now: Time, request: RequestId, why: Refusal) {
        let Some(number) = self.stateless.awaited_by(request) else { return };
        let owner = OwnerId { session: SessionId::STATELESS, number };
        // Where others wait with it, only the count falls.
        let _ = self.run(now, Command::Withdraw { owner, why });
        self.stateless.answer(request, Outcome::Refused(why), &mut self.letters);
    }

    fn release_stateless(&mut self, now: Time, body: &v1::ReleaseRequest) -> Outcome {
        let owner = match self.owned(&body.lock_id, &body.owner) {
            Ok(owner) => owner,
            Err(outcome) => return outcome,
        };
        match self.run(now, Command::Release { owner, change: None }) {
            Ok(()) => Outcome::Released,
            Err(_) => Outcome::Unknown,
        }
    }

    fn renew_stateless(&mut self, now: Time, body: &v1::HeartbeatRequest) -> Outcome {
        let renewal = self
            .owned(&body.lock_id, &body.owner)
            .and_then(|owner| Ok((owner, self.lease_of(body.lease_ms)?)));
        let (owner, lease) = match renewal {
            Ok(renewal) => renewal,
            Err(outcome) => return outcome,
        };
        match self.run(now, Command::Renew { owner, lease }) {
            Ok(()) => Outcome::Renewed,
            Err(_) => Outcome::Unknown,
        }
    }

    pub(super) fn board(&self, body: &v1::StatusRequest, after: Ticket) -> Outcome {
        let path = match body.path.as_deref().map(parse_path).transpose() {
            Ok(path) => path,
            Err(outcome) => return outcome,
        };
        let space = body.space.as_deref().unwrap_or(DEFAULT);
        let mut board = v1::BoardAnswer { locks: Vec::new(), queue: Vec::new() };
        let Some(space) = self.space_named(space) else { return Outcome::Board(board, None) };
        let tickets = match &path {
            Some(path) => self.table.tickets_on(space, path, after, LINES_MAX),
            None => self.table.tickets_at(space, &ViewPath::root(), after, LINES_MAX),
        };
        let more = tickets.last().copied().filter(|_| tickets.len() == LINES_MAX);
        let reading = Reading::take();
        for standing in self.table.standings(tickets) {
            board.locks.extend(show_lock(&standing, reading));
            board.queue.extend(show_waiter(&standing, reading));
        }
        Outcome::Board(board, more)
    }

    fn owned(&self, lock_id: &str, owner: &str) -> Result<OwnerId, Outcome> {
        let (number, name) = self.stateless.lookup(lock_id).ok_or(Outcome::Unknown)?;
        if &*name.owner != owner {
            return Err(Outcome::WrongOwner);
        }
        Ok(OwnerId { session: SessionId::STATELESS, number })
    }

    fn lease_of(&self, lease_ms: Option<u64>) -> Result<Option<Duration>, Outcome> {
        match lease_ms {
            Some(0) => Err(Outcome::Nonsense("lease_ms must be at least 1".to_owned())),
            Some(ms) if ms > LEASE_MS_MAX => {
                Err(Outcome::Nonsense(format!("lease_ms must be at most {LEASE_MS_MAX}")))
            }
            lease_ms => Ok(lease_ms.map(Duration::from_millis)),
        }
    }

    fn space_named(&self, name: &str) -> Option<SpaceId> {
        self.spaces.iter().find(|(_, space)| space.name == name).map(|(id, _)| id)
    }
}

impl From<NotDone> for Outcome {
    fn from(why: NotDone) -> Outcome {
        match why {
            NotDone::NoReason => Outcome::Nonsense("reason is empty".to_owned()),
            NotDone::NoSuchClaim => Outcome::Unknown,
        }
    }
}

fn parse_path(path: &str) -> Result<ViewPath, Outcome> {
    if path.is_empty() {
        return Err(Outcome::Nonsense("path is empty; the root is `.`".to_owned()));
    }
    ViewPath::parse(path.as_bytes()).map_err(|error| match error {
        PathError::TooLong => Outcome::Refused(Refusal::Limit(Limit::PathBytes)),
        PathError::Nul | PathError::Parent => Outcome::Nonsense(error.to_string()),
    })
}
