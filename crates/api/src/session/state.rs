//! What a session knows: a state machine that is told what happened and says whom to call.
//!
//! Only the session's thread calls owners back, never under the lock: what is due comes out as a
//! [`Call`]. Asking and letting go happen on any thread and only send, or, while the broker is
//! away, leave an errand for the session's thread.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use gate_core::id::{SpaceId, Ticket, Token};
use gate_core::lock::claim::Patience;
use gate_core::lock::event::{Change, Refusal, Revocation};

use super::{Answer, Ask, Grant, Waiters};
use crate::link::Outgoing;
use crate::wire::{
    Acquire, AttachRefusal, Attached, BrokerInfo, ClientMessage, Granted, Query, Reply, Resume,
    ServerMessage, Source, Welcome,
};

/// A broker drops a client that it has not heard for a few of these.
const HEARTBEAT_MAX: Duration = Duration::from_secs(2);

pub(super) type Then = Box<dyn FnMut(Answer) + Send>;
type AttachAnswer = Result<Attached, AttachRefusal>;

pub(super) struct State {
    link: Link,
    resume: Resume,
    lease: Duration,
    broker: BrokerInfo,
    next_number: u64,
    owners: HashMap<u64, Owner>,
    /// Owners to look at on the session's thread, while the broker is away.
    errands: Vec<u64>,
    sources: BTreeMap<SpaceId, Source>,
    attaching: Waiters<SpaceId, AttachAnswer>,
    queries: Waiters<u64, Reply>,
}

enum Link {
    Up { outgoing: Box<dyn Outgoing>, heartbeat: bool },
    Away { since: Instant },
    Closed,
}

enum Owner {
    Asked(Asked),
    Held {
        acquire: Arc<Acquire>,
        token: Token,
    },
    /// Let go while the broker was away; what it did to names is still to be told.
    Leaving {
        acquire: Arc<Acquire>,
        token: Token,
        change: Change,
    },
}

struct Asked {
    acquire: Arc<Acquire>,
    /// Taken out while it is called.
    then: Option<Then>,
    since: Instant,
    told_waiting: bool,
    withdrawn: Option<Refusal>,
}

/// Somebody to call, without the lock.
pub(super) enum Call {
    /// An owner that will hear more: give `then` back by [`State::give_back`].
    Waiting { owner: u64, then: Then, ticket: Option<Ticket> },
    /// An owner's last answer.
    Final { then: Then, answer: Answer },
    /// A watcher's business.
    Revoked { owner: u64, why: Revocation },
    /// A watcher's business.
    Contended { owner: u64 },
}

impl State {
    pub fn new(outgoing: Box<dyn Outgoing>, welcome: Welcome, heartbeat: bool) -> State {
        State {
            link: Link::Up { outgoing, heartbeat },
            resume: welcome.session,
            lease: welcome.lease,
            broker: welcome.broker,
            next_number: 1,
            owners: HashMap::new(),
            errands: Vec::new(),
            sources: BTreeMap::new(),
            attaching: HashMap::new(),
            queries: HashMap::new(),
        }
    }

    pub fn broker(&self) -> &BrokerInfo {
        &self.broker
    }

    pub fn resume(&self) -> Resume {
        self.resume
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.link, Link::Closed)
    }

    /// Returns how often the broker must be heard, if silence means anything.
    pub fn heartbeat(&self) -> Option<Duration> {
        match &self.link {
            Link::Up { heartbeat: true, .. } => Some((self.lease / 3).min(HEARTBEAT_MAX)),
            _ => None,
        }
    }

    /// Sends, if the broker is there.
    pub fn say(&mut self, message: &ClientMessage) -> bool {
        match &mut self.link {
            Link::Up { outgoing, .. } => {
                outgoing.send(message);
                true
            }
            Link::Away { .. } | Link::Closed => false,
        }
    }

    pub fn goodbye(&mut self) {
        self.say(&ClientMessage::Goodbye);
        self.link = Link::Closed;
    }

    pub fn attach(
        &mut self,
        source: Source,
        answer: mpsc::Sender<AttachAnswer>,
    ) -> Option<SpaceId> {
        let space = SpaceId(u32::try_from(self.number()).ok()?);
        let message = ClientMessage::Attach { space, source };
        if !self.say(&message) {
            return None;
        }
        if let ClientMessage::Attach { space, source } = message {
            self.sources.insert(space, source);
        }
        self.attaching.insert(space, answer);
        Some(space)
    }

    pub fn query(&mut self, query: Query, answer: mpsc::Sender<Reply>) -> Option<u64> {
        let id = self.number();
        if !self.say(&ClientMessage::Query { id, query }) {
            return None;
        }
        self.queries.insert(id, answer);
        Some(id)
    }

    pub fn forget_query(&mut self, id: u64) {
        self.queries.remove(&id);
    }

    /// Returns the owner's number, and whether the session's thread must look at it.
    pub fn acquire(&mut self, ask: Ask, then: Then, now: Instant) -> (u64, bool) {
        let owner = self.number();
        let acquire = Arc::new(ask.into_acquire(owner));
        let sent = self.say(&ClientMessage::Acquire(acquire.clone()));
        let asked =
            Asked { acquire, then: Some(then), since: now, told_waiting: false, withdrawn: None };
        self.owners.insert(owner, Owner::Asked(asked));
        if !sent {
            self.errands.push(owner);
        }
        (owner, !sent)
    }

    pub fn release(&mut self, owner: u64, change: Option<Change>) {
        let Some(known) = self.owners.remove(&owner) else { return };
        let Owner::Held { acquire, token } = known else {
            debug_assert!(false, "only what is held is let go of");
            self.owners.insert(owner, known);
            return;
        };
        let message = ClientMessage::Release { owner, change };
        if self.say(&message) {
            return;
        }
        // What is not listed on return is freed; but names that moved must be told.
        if let ClientMessage::Release { change: Some(change), .. } = message {
            self.owners.insert(owner, Owner::Leaving { acquire, token, change });
        }
    }

    /// Returns whether the session's thread must look at the owner.
    pub fn withdraw(&mut self, owner: u64, why: Refusal) -> bool {
        let Some(Owner::Asked(asked)) = self.owners.get_mut(&owner) else { return false };
        if asked.withdrawn.replace(why).is_some()
            || self.say(&ClientMessage::Withdraw { owner, why })
        {
            return false;
        }
        self.errands.push(owner);
        true
    }

    /// Takes note of a message; returns whom to call.
    pub fn receive(&mut self, message: ServerMessage) -> Option<Call> {
        match message {
            ServerMessage::Waiting { owner, ticket } => self.tell_waiting(owner, Some(ticket)),
            ServerMessage::Granted(granted) => self.tell_granted(granted),
            ServerMessage::Refused { owner, why } => self.finish(owner, Answer::Refused(why)),
            ServerMessage::Ungated { owner } => self.finish(owner, Answer::Ungated),
            ServerMessage::Revoked { owner, why } => self.tell_revoked(owner, why),
            ServerMessage::Contended { owner } => {
                let held = matches!(self.owners.get(&owner), Some(Owner::Held { .. }));
                held.then_some(Call::Contended { owner })
            }
            ServerMessage::Attached { space, attached } => {
                self.tell_attached(space, Ok(attached));
                None
            }
            ServerMessage::AttachRefused { space, refusal } => {
                self.sources.remove(&space);
                self.tell_attached(space, Err(refusal));
                None
            }
            ServerMessage::Reply { id, reply } => {
                if let Some(asker) = self.queries.remove(&id) {
                    // Who asked may have stopped waiting.
                    let _ = asker.send(reply);
                }
                None
            }
            ServerMessage::Restored
            | ServerMessage::Pong
            | ServerMessage::Welcome(_)
            | ServerMessage::Unwelcome { .. } => None,
        }
    }

    /// Lets an owner that was told to wait hear more.
    pub fn give_back(&mut self, owner: u64, then: Then) {
        if let Some(Owner::Asked(asked)) = self.owners.get_mut(&owner) {
            asked.then = Some(then);
        }
    }

    /// The connection is gone; all who wait are errands now.
    pub fn lose(&mut self, now: Instant) {
        if self.is_closed() {
            return;
        }
        self.link = Link::Away { since: now };
        self.attaching.clear();
        self.queries.clear();
        let asked = self.owners.iter().filter(|(_, owner)| matches!(owner, Owner::Asked(_)));
        self.errands = asked.map(|(number, _)| *number).collect();
    }

    /// Returns whom to call now that the broker is away, one at a time.
    pub fn next_errand(&mut self, now: Instant) -> Option<Call> {
        while let Some(owner) = self.errands.pop() {
            let Some(Owner::Asked(asked)) = self.owners.get(&owner) else { continue };
            let call = match self.answer_while_away(asked, now) {
                Some(answer) => self.finish(owner, answer),
                None => self.tell_waiting(owner, None),
            };
            if call.is_some() {
                return call;
            }
        }
        None
    }

    /// Returns when somebody who waits must be told something, and makes them errands then.
    pub fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for (number, owner) in &self.owners {
            let Owner::Asked(asked) = owner else { continue };
            if self.answer_while_away(asked, now).is_some() {
                self.errands.push(*number);
            }
            let gone = self.gone_at();
            let out_of_patience = asked.patience_ends_at();
            let at = gone.into_iter().chain(out_of_patience).filter(|at| *at > now).min();
            next = next.into_iter().chain(at).min();
        }
        if self.errands.is_empty() { next } else { Some(now) }
    }

    /// The broker answered again; returns what was lost meanwhile.
    pub fn come_back(
        &mut self,
        outgoing: Box<dyn Outgoing>,
        heartbeat: bool,
        welcome: Welcome,
        now: Instant,
    ) -> Vec<Call> {
        if self.is_closed() {
            return Vec::new();
        }
        self.link = Link::Up { outgoing, heartbeat };
        self.resume = welcome.session;
        self.lease = welcome.lease;
        self.broker = welcome.broker;
        // Whoever could not be told yet is still asked for, and is told by the broker.
        self.errands.clear();
        let lost = if welcome.resumed {
            self.list_all();
            Vec::new()
        } else {
            self.begin_again()
        };
        let (waiting, anew): (Vec<_>, Vec<_>) = self
            .asked(now)
            .into_iter()
            .partition(|acquire| welcome.resumed && acquire.patience != Patience::Try);
        for acquire in waiting {
            self.say(&ClientMessage::Waits { acquire });
        }
        if welcome.resumed {
            self.say(&ClientMessage::Listed);
            self.tell_leaving();
        }
        for acquire in anew {
            self.say(&ClientMessage::Acquire(acquire));
        }
        self.withdraw_again();
        lost
    }

    fn list_all(&mut self) {
        let held: Vec<_> = self
            .owners
            .values()
            .filter_map(|owner| match owner {
                Owner::Held { acquire, token } | Owner::Leaving { acquire, token, .. } => {
                    Some(ClientMessage::Held { acquire: acquire.clone(), token: *token })
                }
                Owner::Asked(_) => None,
            })
            .collect();
        for message in held {
            self.say(&message);
        }
    }

    /// Nothing that was held stands; what is waited for is asked for anew.
    fn begin_again(&mut self) -> Vec<Call> {
        let sources: Vec<_> = self.sources.clone().into_iter().collect();
        for (space, source) in sources {
            self.say(&ClientMessage::Attach { space, source });
        }
        let gone = self.owners.extract_if(|_, owner| !matches!(owner, Owner::Asked(_)));
        gone.filter(|(_, owner)| matches!(owner, Owner::Held { .. }))
            .map(|(owner, _)| Call::Revoked { owner, why: Revocation::LeaseLost })
            .collect()
    }

    /// Returns what is waited for, in the order it was asked, with the patience that is left.
    fn asked(&self, now: Instant) -> Vec<Arc<Acquire>> {
        let asked = self.owners.values().filter_map(|owner| match owner {
            Owner::Asked(asked) => {
                let waited = now.saturating_duration_since(asked.since);
                Some(asked.acquire.clone().with_patience_left(waited))
            }
            Owner::Held { .. } | Owner::Leaving { .. } => None,
        });
        let mut asked: Vec<_> = asked.collect();
        asked.sort_unstable_by_key(|acquire| acquire.owner);
        asked
    }

    fn tell_leaving(&mut self) {
        let leaving = self.owners.extract_if(|_, owner| matches!(owner, Owner::Leaving { .. }));
        for (owner, leaving) in leaving.collect::<Vec<_>>() {
            if let Owner::Leaving { change, .. } = leaving {
                self.say(&ClientMessage::Release { owner, change: Some(change) });
            }
        }
    }

    /// Who was withdrawn while the session's thread had not yet got to it.
    fn withdraw_again(&mut self) {
        let withdrawn = self.owners.iter().filter_map(|(number, owner)| match owner {
            Owner::Asked(Asked { withdrawn: Some(why), .. }) => Some((*number, *why)),
            _ => None,
        });
        for (owner, why) in withdrawn.collect::<Vec<_>>() {
            self.say(&ClientMessage::Withdraw { owner, why });
        }
    }

    fn tell_waiting(&mut self, owner: u64, ticket: Option<Ticket>) -> Option<Call> {
        let Some(Owner::Asked(asked)) = self.owners.get_mut(&owner) else { return None };
        if asked.told_waiting || asked.withdrawn.is_some() {
            return None;
        }
        asked.told_waiting = true;
        let then = asked.then.take()?;
        Some(Call::Waiting { owner, then, ticket })
    }

    fn tell_granted(&mut self, granted: Granted) -> Option<Call> {
        let Granted { owner, ticket, token, by_kin, .. } = granted;
        match self.owners.get_mut(&owner) {
            Some(Owner::Asked(asked)) => {
                // A withdrawal under way lets go of it; whoever withdrew hears just that.
                if let Some(why) = asked.withdrawn {
                    return self.finish(owner, Answer::Refused(why));
                }
                let then = asked.then.take()?;
                let held = Owner::Held { acquire: asked.acquire.clone(), token };
                self.owners.insert(owner, held);
                let grant = Grant { owner, ticket, token, by_kin };
                Some(Call::Final { then, answer: Answer::Granted(grant) })
            }
            Some(Owner::Held { token: known, .. }) => {
                *known = token;
                None
            }
            Some(Owner::Leaving { .. }) | None => None,
        }
    }

    fn tell_revoked(&mut self, owner: u64, why: Revocation) -> Option<Call> {
        match self.owners.get(&owner)? {
            Owner::Held { .. } => {
                self.owners.remove(&owner);
                Some(Call::Revoked { owner, why })
            }
            Owner::Asked(_) => self.finish(owner, Answer::Refused(Refusal::Interrupted)),
            Owner::Leaving { .. } => {
                self.owners.remove(&owner);
                None
            }
        }
    }

    fn tell_attached(&mut self, space: SpaceId, answer: AttachAnswer) {
        match (self.attaching.remove(&space), answer) {
            // Who asked may have stopped waiting.
            (Some(asker), answer) => drop(asker.send(answer)),
            (None, Err(refusal)) => {
                tracing::error!(reason = refusal.reason, "a source is no longer served");
            }
            (None, Ok(_)) => {}
        }
    }

    fn finish(&mut self, owner: u64, answer: Answer) -> Option<Call> {
        if !matches!(self.owners.get(&owner), Some(Owner::Asked(_))) {
            return None;
        }
        let Some(Owner::Asked(asked)) = self.owners.remove(&owner) else { return None };
        let answer = asked.withdrawn.map_or(answer, Answer::Refused);
        Some(Call::Final { then: asked.then?, answer })
    }

    fn answer_while_away(&self, asked: &Asked, now: Instant) -> Option<Answer> {
        if let Some(why) = asked.withdrawn {
            return Some(Answer::Refused(why));
        }
        if asked.acquire.patience == Patience::Try {
            return Some(Answer::Refused(Refusal::WouldBlock));
        }
        if self.gone_at().is_some_and(|at| at <= now) {
            return Some(Answer::BrokerGone);
        }
        let timed_out = asked.patience_ends_at().is_some_and(|at| at <= now);
        timed_out.then_some(Answer::Refused(Refusal::TimedOut))
    }

    fn gone_at(&self) -> Option<Instant> {
        match self.link {
            Link::Away { since } => Some(since + self.lease),
            Link::Up { .. } | Link::Closed => None,
        }
    }

    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}

impl Asked {
    fn patience_ends_at(&self) -> Option<Instant> {
        match self.acquire.patience {
            Patience::Limited(limit) => self.since.checked_add(limit),
            Patience::Try | Patience::Endless => None,
        }
    }
}

impl Ask {
    fn into_acquire(self, owner: u64) -> Acquire {
        let Ask { party, thread, single_threaded, patience, read_wait, label, want } = self;
        Acquire { owner, party, thread, single_threaded, patience, read_wait, label, want }
    }
}

impl Acquire {
    /// Returns the same request after it waited so long already.
    fn with_patience_left(self: Arc<Self>, waited: Duration) -> Arc<Acquire> {
        match self.patience {
            Patience::Limited(limit) => {
                let patience = Patience::Limited(limit.saturating_sub(waited));
                Arc::new(Acquire { patience, ..Acquire::clone(&self) })
            }
            Patience::Try | Patience::Endless => self,
        }
    }
}
