//! What a session knows: a state machine that is told what happened and says whom to call.
//!
//! Only the session's thread calls owners back, never under the lock: what is due comes out as a
//! [`Call`]. Asking and letting go happen on any thread and only send, or, while the broker is
//! away, leave an errand for the session's thread.

mod outage;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gate_core::id::{SpaceId, Ticket, Token};
use gate_core::lock::event::{Change, Refusal, Revocation};
use gate_core::lock::key::FileKey;

use super::standing::{Heartbeats, Moment};
use super::{Answer, Ask, Grant, Waiters};
use crate::link::{Outbox, Outgoing};
use crate::sync::mpsc;
use crate::wire::{
    Acquire, AttachRefusal, Attached, BrokerInfo, ClientMessage, Granted, Query, Recall, Reply,
    Resume, ServerMessage, Source, Welcome,
};

/// A broker drops a client that it has not heard for a few of these.
const HEARTBEAT_MAX: Duration = Duration::from_secs(2);

pub type Then = Box<dyn FnMut(Answer) + Send>;
type AttachAnswer = Result<Attached, AttachRefusal>;

/// A session without a thread and without a connection of its own.
pub struct State {
    link: Link,
    /// Of the connection that is up.
    heartbeats: Heartbeats,
    resume: Resume,
    lease: Duration,
    broker: BrokerInfo,
    next_number: u64,
    /// By number, and so in the order in which they asked.
    owners: BTreeMap<u64, Owner>,
    /// Owners whose turn was taken away and who were not done with it when that was last looked at.
    busy: Vec<u64>,
    /// Owners to look at on the session's thread, while the broker is away.
    errands: Vec<u64>,
    sources: BTreeMap<SpaceId, Source>,
    /// Those of them that were served, and are not since the broker is back; and why.
    refused: BTreeMap<SpaceId, AttachRefusal>,
    /// What keeps it from a broker that is there again, if anything does.
    bar: Option<AttachRefusal>,
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
        /// What it created.
        file: Option<FileKey>,
    },
    /// Taken away; something may still be done under it.
    Revoked {
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
pub enum Call {
    /// An owner that will hear more: give `then` back by [`State::give_back`].
    Waiting { owner: u64, then: Then, ticket: Option<Ticket> },
    /// An owner's last answer.
    Final { then: Then, answer: Answer },
    /// A watcher's business; the owner is to be let go of once nothing is done under its grant.
    Revoked { owner: u64, why: Revocation, reason: String },
    /// A watcher's business.
    Recalled { owner: u64, recall: Recall },
    /// A watcher's business.
    Contended { owner: u64 },
    /// The broker heard of the session after that.
    Proven { sent: Moment },
    /// All that became of a resumed session's owners was told.
    Restored,
}

impl State {
    pub fn new(outgoing: Box<dyn Outgoing>, welcome: Welcome, heartbeat: bool) -> State {
        State {
            link: Link::Up { outgoing, heartbeat },
            heartbeats: Heartbeats::default(),
            resume: welcome.session,
            lease: welcome.lease,
            broker: welcome.broker,
            next_number: 1,
            owners: BTreeMap::new(),
            busy: Vec::new(),
            errands: Vec::new(),
            sources: BTreeMap::new(),
            refused: BTreeMap::new(),
            bar: None,
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

    /// Returns how long the broker may not hear of it.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Lets the broker hear of it, if the broker is there, and that it is not done yet with what
    /// was taken away.
    pub fn ping(&mut self, now: Moment) {
        if self.say(&ClientMessage::Ping) {
            self.heartbeats.sent(now);
        }
        let is_busy = |owner: &u64| matches!(self.owners.get(owner), Some(Owner::Revoked { .. }));
        self.busy.retain(is_busy);
        for owner in self.busy.clone() {
            self.say(&ClientMessage::Active { owner });
        }
    }

    /// Returns how many heartbeats are not answered.
    pub fn unanswered(&self) -> usize {
        self.heartbeats.unanswered()
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

    /// Returns where what was said may lie; it is flushed without the session's lock.
    pub fn outbox(&self) -> Option<Arc<dyn Outbox>> {
        match &self.link {
            Link::Up { outgoing, .. } => outgoing.outbox(),
            Link::Away { .. } | Link::Closed => None,
        }
    }

    pub fn goodbye(&mut self) {
        self.say(&ClientMessage::Goodbye);
        self.link = Link::Closed;
    }

    /// A broker that is away, or goes before it has answered, is asked on return.
    pub fn attach(
        &mut self,
        source: Source,
        answer: mpsc::Sender<AttachAnswer>,
    ) -> Option<SpaceId> {
        let space = SpaceId(u32::try_from(self.number()).ok()?);
        if self.is_closed() {
            return None;
        }
        self.say(&ClientMessage::Attach { space, source: source.clone() });
        self.sources.insert(space, source);
        self.attaching.insert(space, answer);
        Some(space)
    }

    /// Nobody waits for that answer any more.
    pub fn forget_attach(&mut self, space: SpaceId) {
        self.attaching.remove(&space);
        self.sources.remove(&space);
    }

    /// Asks anew for what is no longer served.
    pub fn attach_refused(&mut self) {
        let mut refused = self.sources.clone();
        refused.retain(|space, _| self.refused.contains_key(space));
        for (space, source) in refused {
            self.say(&ClientMessage::Attach { space, source });
        }
    }

    /// Returns why a source that was served is not any more, if that is so.
    pub fn refusal(&self, space: SpaceId) -> Option<&AttachRefusal> {
        self.bar.as_ref().or_else(|| self.refused.get(&space))
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
        let (Owner::Held { acquire, token, .. } | Owner::Revoked { acquire, token }) = known else {
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

    /// Returns whether an owner has a grant, as far as it was told.
    pub fn holds(&self, owner: u64) -> bool {
        matches!(self.owners.get(&owner), Some(Owner::Held { .. }))
    }

    /// Says which file an owner created, and will again: the handle is locked by its name alone
    /// until the broker has heard of it.
    pub fn created(&mut self, owner: u64, created: FileKey) {
        if let Some(Owner::Held { file, .. }) = self.owners.get_mut(&owner) {
            *file = Some(created);
            self.say(&ClientMessage::Created { owner, file: created });
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
    ///
    /// An owner that nobody here knows had its answer while the list that still named it was on
    /// its way: the broker took it up again from there, and would keep its place for nobody.
    pub fn receive(&mut self, message: ServerMessage) -> Option<Call> {
        match message {
            ServerMessage::Waiting { owner, ticket } => self.tell_waiting(owner, Some(ticket)),
            ServerMessage::Granted(granted) => self.tell_granted(granted),
            ServerMessage::Refused { owner, why } => self.finish(owner, Answer::Refused(why)),
            ServerMessage::Ungated { owner } => self.finish(owner, Answer::Ungated),
            ServerMessage::Revoked { owner, why, reason } => self.tell_revoked(owner, why, reason),
            ServerMessage::Recalled { owner, recall } => {
                let held = matches!(self.owners.get(&owner), Some(Owner::Held { .. }));
                held.then_some(Call::Recalled { owner, recall })
            }
            ServerMessage::Contended { owner } => {
                let held = matches!(self.owners.get(&owner), Some(Owner::Held { .. }));
                held.then_some(Call::Contended { owner })
            }
            ServerMessage::Attached { space, attached } => {
                self.tell_attached(space, Ok(attached));
                None
            }
            ServerMessage::AttachRefused { space, refusal } => {
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
            ServerMessage::Pong => self.heartbeats.answered().map(|sent| Call::Proven { sent }),
            ServerMessage::Restored => Some(Call::Restored),
            ServerMessage::Welcome(_) | ServerMessage::Unwelcome { .. } => None,
        }
    }

    /// Lets an owner that was told to wait hear more.
    pub fn give_back(&mut self, owner: u64, then: Then) {
        if let Some(Owner::Asked(asked)) = self.owners.get_mut(&owner) {
            asked.then = Some(then);
        }
    }

    fn tell_waiting(&mut self, owner: u64, ticket: Option<Ticket>) -> Option<Call> {
        let asked = match self.owners.get_mut(&owner) {
            Some(Owner::Asked(asked)) => asked,
            Some(_) => return None,
            None => {
                self.say(&ClientMessage::Withdraw { owner, why: Refusal::Interrupted });
                return None;
            }
        };
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
                let held = Owner::Held { acquire: asked.acquire.clone(), token, file: None };
                self.owners.insert(owner, held);
                let grant = Grant { owner, ticket, token, by_kin };
                Some(Call::Final { then, answer: Answer::Granted(grant) })
            }
            Some(Owner::Held { token: known, .. }) => {
                *known = token;
                None
            }
            Some(Owner::Revoked { .. } | Owner::Leaving { .. }) => None,
            None => {
                self.say(&ClientMessage::Release { owner, change: None });
                None
            }
        }
    }

    fn tell_revoked(&mut self, owner: u64, why: Revocation, reason: String) -> Option<Call> {
        match self.owners.get(&owner)? {
            Owner::Held { acquire, token, .. } => {
                let (acquire, token) = (acquire.clone(), *token);
                self.owners.insert(owner, Owner::Revoked { acquire, token });
                self.busy.push(owner);
                Some(Call::Revoked { owner, why, reason })
            }
            Owner::Asked(_) => {
                // It was never told of what was taken away.
                self.say(&ClientMessage::Release { owner, change: None });
                self.finish(owner, Answer::Refused(Refusal::Interrupted))
            }
            Owner::Revoked { .. } => None,
            Owner::Leaving { .. } => {
                self.owners.remove(&owner);
                None
            }
        }
    }

    fn tell_attached(&mut self, space: SpaceId, answer: AttachAnswer) {
        if let Some(asker) = self.attaching.remove(&space) {
            if answer.is_err() {
                self.sources.remove(&space);
            }
            // Who asked may have stopped waiting.
            return drop(asker.send(answer));
        }
        if !self.sources.contains_key(&space) {
            return;
        }
        match answer {
            Ok(_) if self.refused.remove(&space).is_some() => {
                tracing::warn!("the broker serves the source again");
            }
            Ok(_) => {}
            Err(refusal) => {
                let reason = refusal.reason.clone();
                if self.refused.insert(space, refusal).is_none() {
                    tracing::error!(reason, "the broker no longer serves the source");
                }
            }
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

    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }
}

impl Ask {
    fn into_acquire(self, owner: u64) -> Acquire {
        let Ask { party, caller, patience, read_wait, label, want } = self;
        Acquire { owner, party, caller, patience, read_wait, label, want }
    }
}
