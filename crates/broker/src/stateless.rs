//! The stateless interface: who asked, which lock that is, who still waits for an answer.
//!
//! A lock is known by space, path and owner; the same three again re-enter. Its id is the number
//! of its owner in the table, which the journal keeps and no later run gives to another.

use std::sync::Arc;

use gate_api::v1;
use gate_core::id::{Epoch, OwnerId, SessionId, SpaceId, Ticket};
use gate_core::lock::claim::Party;
use gate_core::lock::event::{End, Refusal};
use gate_core::lock::table::{Record, Standing, State};
use gate_core::lock::want::Access;
use gate_core::path::ViewPath;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::clock::Reading;
use crate::desk::Letter;

/// One HTTP request that waits for its answer; the number is its maker's choice.
pub(crate) type RequestId = u64;

/// What a client of the stateless interface wants.
pub(crate) enum Call {
    Acquire {
        request: RequestId,
        body: v1::AcquireRequest,
        answer: oneshot::Sender<Outcome>,
    },
    /// It waited as long as it was willing to.
    GiveUp {
        request: RequestId,
    },
    /// Its client is gone.
    Abandon {
        request: RequestId,
    },
    Release {
        body: v1::ReleaseRequest,
        answer: oneshot::Sender<Outcome>,
    },
    Heartbeat {
        body: v1::HeartbeatRequest,
        answer: oneshot::Sender<Outcome>,
    },
    Recall {
        body: v1::RecallRequest,
        answer: oneshot::Sender<Outcome>,
    },
    Break {
        body: v1::BreakRequest,
        answer: oneshot::Sender<Outcome>,
    },
    /// A page of what is there: claims with later tickets.
    Status {
        body: v1::StatusRequest,
        after: Ticket,
        answer: oneshot::Sender<Outcome>,
    },
}

/// What it is told.
#[derive(Debug)]
pub(crate) enum Outcome {
    Granted(Box<v1::Lock>),
    Released,
    Renewed,
    Recalled,
    Broken,
    /// A page, and after which ticket the next begins, if there is more.
    Board(v1::BoardAnswer, Option<Ticket>),
    Refused(Refusal),
    WrongOwner,
    Unknown,
    Nonsense(String),
}

/// An answer on its way.
pub(crate) struct Reply {
    pub answer: oneshot::Sender<Outcome>,
    pub outcome: Outcome,
}

/// What makes a lock the same lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub space: SpaceId,
    pub path: ViewPath,
    pub owner: Arc<str>,
}

#[derive(Default)]
pub(crate) struct Stateless {
    numbers: FxHashMap<Name, u64>,
    names: FxHashMap<u64, Name>,
    pending: FxHashMap<u64, Vec<(RequestId, oneshot::Sender<Outcome>)>>,
    requests: FxHashMap<RequestId, u64>,
    epoch: u64,
    next: u64,
}

impl Stateless {
    /// Takes over the locks of a former run.
    pub fn restore(epoch: Epoch, claims: &[(Ticket, Record)]) -> Stateless {
        let mut restored = Stateless { epoch: epoch.0, next: 1, ..Stateless::default() };
        for (_, record) in claims {
            let Record::Held { claim, .. } = record else { continue };
            let (SessionId::STATELESS, Party::Named(owner)) = (claim.owner.session, &claim.party)
            else {
                continue;
            };
            let place = claim.want().places.first();
            let named = place.and_then(|place| Some((place.space, place.path.clone()?)));
            if let Some((space, path)) = named {
                restored.learn(claim.owner.number, Name { space, path, owner: owner.clone() });
            }
        }
        restored
    }

    /// Returns the number of a lock, new or known.
    pub fn number_of(&mut self, name: Name) -> u64 {
        if let Some(known) = self.numbers.get(&name) {
            return *known;
        }
        let number = self.epoch << 32 | self.next;
        self.next += 1;
        self.learn(number, name);
        number
    }

    /// Returns the lock with that id, if there is one.
    pub fn lookup(&self, lock_id: &str) -> Option<(u64, &Name)> {
        let number = u64::from_str_radix(lock_id, 16).ok()?;
        Some((number, self.names.get(&number)?))
    }

    /// Notes that a request waits for the lock of that number.
    pub fn expect(&mut self, request: RequestId, number: u64, answer: oneshot::Sender<Outcome>) {
        self.pending.entry(number).or_default().push((request, answer));
        self.requests.insert(request, number);
    }

    /// Returns the lock a request waits for, if it still does.
    pub fn awaited_by(&self, request: RequestId) -> Option<u64> {
        self.requests.get(&request).copied()
    }

    /// Answers one request that still waits.
    pub fn answer(&mut self, request: RequestId, outcome: Outcome, letters: &mut Vec<Letter>) {
        let Some(number) = self.requests.remove(&request) else { return };
        let Some(pending) = self.pending.get_mut(&number) else { return };
        if let Some(at) = pending.iter().position(|(other, _)| *other == request) {
            let (_, answer) = pending.swap_remove(at);
            letters.push(Letter::Stateless(Reply { answer, outcome }));
        }
        if pending.is_empty() {
            self.pending.remove(&number);
        }
    }

    /// Forgets a lock that nobody has and nobody waits for.
    pub fn forget(&mut self, number: u64) {
        if let Some(name) = self.names.remove(&number) {
            self.numbers.remove(&name);
        }
    }

    /// A lock is held: answers all who wait for it.
    pub fn granted(&mut self, number: u64, lock: Option<v1::Lock>, letters: &mut Vec<Letter>) {
        for (request, answer) in self.pending.remove(&number).unwrap_or_default() {
            self.requests.remove(&request);
            let outcome = match &lock {
                Some(lock) => Outcome::Granted(Box::new(lock.clone())),
                None => Outcome::Unknown,
            };
            letters.push(Letter::Stateless(Reply { answer, outcome }));
        }
    }

    /// A lock, or the wait for it, ends.
    pub fn ended(&mut self, owner: OwnerId, end: End, letters: &mut Vec<Letter>) {
        if owner.session != SessionId::STATELESS {
            return;
        }
        let why = match end {
            End::Refused(why) => why,
            End::Released | End::Revoked(_) | End::Ungated => Refusal::Interrupted,
        };
        self.ended_upgrade(owner, why, letters);
        self.forget(owner.number);
    }

    /// The wait for more than is held ends.
    pub fn ended_upgrade(&mut self, owner: OwnerId, why: Refusal, letters: &mut Vec<Letter>) {
        if owner.session != SessionId::STATELESS {
            return;
        }
        for (request, answer) in self.pending.remove(&owner.number).unwrap_or_default() {
            self.requests.remove(&request);
            letters.push(Letter::Stateless(Reply { answer, outcome: Outcome::Refused(why) }));
        }
    }

    fn learn(&mut self, number: u64, name: Name) {
        self.names.insert(number, name.clone());
        self.numbers.insert(name, number);
    }
}

/// Returns a held claim as this interface shows it, whoever's it is.
pub(crate) fn show_lock(standing: &Standing, reading: Reading) -> Option<v1::Lock> {
    let State::Held { token, lease_ends_at, .. } = &standing.state else { return None };
    let claim = &standing.claim;
    Some(v1::Lock {
        lock_id: lock_id(claim.owner, standing.ticket),
        path: path_of(standing),
        mode: mode_of(standing),
        owner: claim.label.owner.clone(),
        acquired_at: rfc3339(reading.wall_ms_of(standing.since)),
        lease_expires_at: lease_ends_at.map(|at| rfc3339(reading.wall_ms_of(at))),
        max_hold_ms: claim
            .max_hold
            .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        hold_count: standing.count,
        token: token.to_string(),
        ticket: standing.ticket.0,
    })
}

/// Returns a waiting claim as this interface shows it.
pub(crate) fn show_waiter(standing: &Standing, reading: Reading) -> Option<v1::Waiter> {
    let State::Waiting { place, .. } = &standing.state else { return None };
    Some(v1::Waiter {
        req_id: standing.ticket.to_string(),
        path: path_of(standing),
        mode: mode_of(standing),
        owner: standing.claim.label.owner.clone(),
        requested_at: rfc3339(reading.wall_ms_of(standing.since)),
        place: u64::try_from(*place).unwrap_or(u64::MAX),
    })
}

fn lock_id(owner: OwnerId, ticket: Ticket) -> String {
    match owner.session {
        SessionId::STATELESS => format!("{:016x}", owner.number),
        // Shown, but not to be released from here.
        _ => format!("ticket-{ticket}"),
    }
}

/// Reads text as the id of a lock: it is that of one lock, or of none, and as it was told or nearly so.
#[cfg(fuzzing)]
pub(crate) fn read_any(text: &str) {
    let mut stateless = Stateless { epoch: 1, next: 1, ..Stateless::default() };
    let name =
        |owner: &str| Name { space: SpaceId(0), path: ViewPath::root(), owner: owner.into() };
    let numbers = ["ada", "bob"].map(|owner| stateless.number_of(name(owner)));
    let owner = |number| OwnerId { session: SessionId::STATELESS, number };
    let ids = numbers.map(|number| lock_id(owner(number), Ticket(1)));
    for (number, id) in numbers.iter().zip(&ids) {
        assert!(stateless.lookup(id).is_some_and(|(found, _)| found == *number));
    }
    if let Some((number, _)) = stateless.lookup(text) {
        let plain = |id: &str| id.trim_start_matches(['+', '0']).to_ascii_lowercase();
        assert_eq!(plain(text), plain(&lock_id(owner(number), Ticket(1))));
    }
}

fn path_of(standing: &Standing) -> String {
    let path = standing.claim.want().places.iter().find_map(|place| place.path.as_ref());
    path.map(ViewPath::to_string).unwrap_or_default()
}

fn mode_of(standing: &Standing) -> v1::Mode {
    match standing.claim.want().op.access() {
        Access::Read => v1::Mode::Read,
        Access::Write => v1::Mode::Write,
    }
}

fn rfc3339(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
}
