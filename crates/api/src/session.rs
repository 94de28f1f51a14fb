//! A client's life at a broker.
//!
//! Owners ask and are answered on the session's own thread: at most once [`Answer::Waiting`], then
//! exactly one final answer. When the connection breaks the session comes back with all it has; to
//! its owners that is contention: they wait, at most one lease or, if they ask later, a moment; and
//! what is held stays held until the broker says otherwise.
//!
//! The logic is [`state`], which knows no transport; [`reader`] is the thread, and [`post`] lets
//! another take its place while it is held up.

mod hold;
mod post;
#[cfg(test)]
#[cfg(feature = "shuttle")]
mod races;
mod reader;
mod standing;
pub mod state;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use gate_core::id::{SpaceId, Ticket, Token};
use gate_core::lock::claim::{Caller, Label, Patience};
use gate_core::lock::event::{Change, Refusal, Revocation};
use gate_core::lock::key::FileKey;
use gate_core::lock::want::Want;
use gate_core::path::ViewPath;

use crate::link::Connector;
use crate::process;
use crate::sync::{Condvar, Mutex, MutexGuard, mpsc, now};
use crate::wire::{
    AttachRefusal, BrokerInfo, ClientMessage, Hello, Line, Locks, LogPage, LogQuery, Overwrite,
    Query, Reply, Scope, SessionLine, Sessions, Source, Status, Why,
};

pub use crate::link::ConnectError;
pub use crate::wire::{MaxHold, Party, PrivateView, Recall};
pub use hold::Hold;
use post::Post;
pub use standing::Moment;
use standing::Standing;
use state::State;

/// How long a broker may take to answer a question.
const QUERY_PATIENCE: Duration = Duration::from_secs(10);

/// A client's life at a broker; it ends, with all that is its, when the last clone is dropped.
#[derive(Clone)]
pub struct Session(Arc<Life>);

/// Says good-bye when it is dropped, if the broker is there. One that is away when the session ends
/// hears of that by silence: who is next in line is let in once the lease is over, or at once if the
/// process ends on the broker's machine. To come back only to say good-bye would take a thread that
/// outlives its session, which most processes do not, either.
struct Life {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes the session's thread while the broker is away.
    stirred: Condvar,
    post: Post,
    standing: Standing,
    connector: Box<dyn Connector>,
    watcher: Arc<dyn Watcher>,
    hello: Hello,
}

/// Hears what comes without having been asked for, on the session's thread. Must not block.
pub trait Watcher: Send + Sync {
    /// An owner has nothing any more: fence it, and say when nothing is done any more under what it
    /// had: the next waits for that. `reason` is for people, and may be empty.
    fn revoked(&self, owner: u64, why: Revocation, reason: &str) -> Quiet;
    /// An owner is asked to let go.
    fn recalled(&self, _owner: u64, _recall: &Recall) {}
    /// A reader waits for this open handle: tell of its I/O by [`Session::active`].
    fn contended(&self, owner: u64);
    /// The broker is away; owners wait.
    fn away(&self) {}
    /// The broker is back.
    fn back(&self) {}
}

/// When nothing is done any more under a grant that was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// From now on.
    Now,
    /// Once [`Session::release`] is called for its owner.
    Later,
}

/// Who connects.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// What it calls itself, for people.
    pub name: String,
    /// How long it may be away; `None` for the broker's default.
    pub lease: Option<Duration>,
    /// How long its owners may hold while others wait; `None` for the broker's default.
    pub max_hold: Option<MaxHold>,
    /// The view it serves, if that is not for everybody to see.
    pub private: Option<PrivateView>,
}

impl ClientInfo {
    /// Returns a client of that name which takes the broker's defaults.
    pub fn named(name: impl Into<String>) -> ClientInfo {
        ClientInfo { name: name.into(), lease: None, max_hold: None, private: None }
    }
}

/// One owner's request. A space in its want is an [`Attachment::space`].
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who the owner belongs to.
    pub party: Party,
    /// Who makes the call, as far as known.
    pub caller: Option<Caller>,
    /// How long it waits.
    pub patience: Patience,
    /// After how long without I/O open handles no longer stop it; for pure readers.
    pub read_wait: Option<Duration>,
    /// For people.
    pub label: Label,
    /// What it asks for.
    pub want: Want,
}

/// What an owner is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It waits: in line with that ticket, or for the broker to come back. More will follow.
    Waiting {
        /// The place in line.
        ticket: Option<Ticket>,
    },
    /// It is let in, until it is released or revoked.
    Granted(Grant),
    /// A reader may go on without a grant; there is nothing to release.
    Ungated,
    /// No.
    Refused(Refusal),
    /// The broker is away for longer than a lease.
    BrokerGone,
}

/// The broker's yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who is let in.
    pub owner: u64,
    /// Its place in the global order.
    pub ticket: Ticket,
    /// The fencing token.
    pub token: Token,
    /// Whether only kin let it pass.
    pub by_kin: bool,
}

/// A final answer that is no grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoGrant {
    /// No.
    Refused(Refusal),
    /// Go on without one.
    Ungated,
    /// The broker is away for longer than a lease.
    BrokerGone,
}

/// A source, as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// What stands for it in wants and changes of this session.
    pub space: SpaceId,
    /// The space's name at the broker.
    pub name: String,
    /// Where the source's root lies in that.
    pub prefix: ViewPath,
    /// What the user should be told, if anything.
    pub notice: Option<String>,
}

/// Why a source is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// The broker says no, why, and what to do.
    Refused(AttachRefusal),
    /// The broker is away.
    BrokerGone,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// There is no such path, space or ticket.
    Unknown,
    /// This client may not ask that: come by the broker's socket, or with another token.
    Forbidden,
    /// To ask that makes no sense: there must be a reason to break a lock.
    Nonsense,
    /// Nothing changed in the time that was given.
    Unchanged,
    /// The broker is away.
    BrokerGone,
}

impl Session {
    /// Connects to a broker and begins a session.
    pub fn connect(
        connector: impl Connector + 'static,
        client: ClientInfo,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Session, ConnectError> {
        let hello = Hello {
            client: client.name,
            process: process::own(),
            machine: process::machine(),
            lease: client.lease,
            max_hold: client.max_hold,
            resume: None,
            private: client.private,
        };
        let greeted = Moment::now();
        let (connection, welcome) = reader::greet(&connector, &hello)?;
        let standing = Standing::new(connection.heartbeat.then_some(greeted), welcome.lease);
        let state = State::new(connection.outgoing, welcome, connection.heartbeat);
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            stirred: Condvar::new(),
            post: Post::new(),
            standing,
            connector: Box::new(connector),
            watcher,
            hello,
        });
        reader::start(&shared, connection.incoming, greeted)
            .map_err(|error| ConnectError::Refused(error.to_string()))?;
        Ok(Session(Arc::new(Life { shared })))
    }

    /// Ends the session for all who have it. Waits so long, if the broker is there, until it has taken
    /// back what was the session's, such as the source that it kept from others.
    pub fn part(&self, patience: Duration) {
        self.0.say_goodbye();
        self.0.shared.post.await_end(patience);
    }

    /// Returns who the broker is, as last seen.
    pub fn broker(&self) -> BrokerInfo {
        self.state().broker().clone()
    }

    /// Asks the broker to serve a source, and waits for the answer; if it is away, for its return, but
    /// not for long.
    pub fn attach(&self, source: Source) -> Result<Attachment, AttachError> {
        let (answer, answered) = mpsc::channel();
        let space = self.state().attach(source, answer).ok_or(AttachError::BrokerGone)?;
        let attached = answered.recv_timeout(QUERY_PATIENCE).map_err(|_| {
            self.state().forget_attach(space);
            AttachError::BrokerGone
        })?;
        let attached = attached.map_err(AttachError::Refused)?;
        let (name, prefix, notice) = (attached.space, attached.prefix, attached.notice);
        Ok(Attachment { space, name, prefix, notice })
    }

    /// Returns why the broker, since it is back, does not serve a source that it served, if that is
    /// so: it is asked again once a lease. Or why it does not let this client in at all, as one of
    /// another release does not.
    pub fn refusal(&self, space: SpaceId) -> Option<AttachRefusal> {
        self.0.shared.silent_state().refusal(space).cloned()
    }

    /// Asks, and returns the owner's number at once; `then` hears the answers on the session's
    /// thread. It may be held up with the final one, as by a slow disk: then others hear theirs on
    /// another.
    pub fn acquire(&self, ask: Ask, then: Box<dyn FnMut(Answer) + Send>) -> u64 {
        let (owner, must_stir) = self.state().acquire(ask, then, now());
        if must_stir {
            self.0.shared.stirred.notify_one();
        }
        owner
    }

    /// Asks, and waits for the final answer.
    pub fn acquire_blocking(&self, ask: Ask) -> Result<Grant, NoGrant> {
        let (answer, answered) = mpsc::sync_channel(2);
        self.acquire(
            ask,
            Box::new(move |told| {
                // Somebody waits below until the final answer.
                let _ = answer.send(told);
            }),
        );
        loop {
            return match answered.recv() {
                Ok(Answer::Waiting { .. }) => continue,
                Ok(Answer::Granted(grant)) => Ok(grant),
                Ok(Answer::Ungated) => Err(NoGrant::Ungated),
                Ok(Answer::Refused(why)) => Err(NoGrant::Refused(why)),
                Ok(Answer::BrokerGone) | Err(_) => Err(NoGrant::BrokerGone),
            };
        }
    }

    /// Lets go of what an owner holds, or held until it was taken away; `change` is what its operation
    /// did to names.
    pub fn release(&self, owner: u64, change: Option<Change>) {
        self.state().release(owner, change);
    }

    /// Returns whether an owner was let in and neither let go nor had it taken away.
    pub fn holds(&self, owner: u64) -> bool {
        self.state().holds(owner)
    }

    /// Takes a waiting owner out of the line: its final answer is then `Refused(why)`. Does
    /// nothing to an owner whose final answer was already told.
    pub fn withdraw(&self, owner: u64, why: Refusal) {
        if self.state().withdraw(owner, why) {
            self.0.shared.stirred.notify_one();
        }
    }

    /// Says which file an owner created.
    pub fn created(&self, owner: u64, file: FileKey) {
        self.state().created(owner, file);
    }

    /// Says that a contended handle did I/O.
    pub fn active(&self, owner: u64) {
        self.state().say(&ClientMessage::Active { owner });
    }

    /// Tells the log what the guard of a view did. A broker that is away does not hear of it.
    pub fn guarded(&self, overwrite: Overwrite) {
        self.state().say(&ClientMessage::Guarded(overwrite));
    }

    /// Returns whether what is held may be used now. Where it was too long since the broker was
    /// heard of, waits for that, at most `patience`; then ask again what is held: it may have been
    /// revoked. Cheap as long as all is well. Not for the session's own thread.
    pub fn may_act(&self, patience: Duration) -> bool {
        let standing = &self.0.shared.standing;
        if standing.is_good() {
            return true;
        }
        self.state().ping(Moment::now());
        standing.await_good(patience)
    }

    /// Returns whether an owner may act now on its grant: as [`Session::may_act`], and it still holds.
    pub fn stands(&self, owner: u64, patience: Duration) -> bool {
        self.may_act(patience) && self.holds(owner)
    }

    /// Waits until the watcher was told all that the broker had to say when this was called, or, on
    /// one machine, until no broker runs that could say anything; `false` if that takes longer than
    /// `patience`. Not for the session's own thread.
    pub fn hear_out(&self, patience: Duration) -> bool {
        let asked = Moment::now();
        self.state().ping(asked);
        self.0.shared.standing.await_proof(asked, patience)
    }

    /// Returns who holds and who waits; with `newer_than`, once that changed, within `patience`.
    pub fn locks(
        &self,
        scope: &Scope,
        newer_than: Option<u64>,
        patience: Duration,
    ) -> Result<Locks, QueryError> {
        let mut all = self.locks_page(scope, newer_than, 0, patience)?;
        while let (true, Some(last)) = (all.more, all.lines.last().map(|line: &Line| line.ticket)) {
            let page = self.locks_page(scope, None, last, QUERY_PATIENCE)?;
            all.lines.extend(page.lines);
            all.more = page.more;
        }
        Ok(all)
    }

    /// Returns all about one path.
    pub fn why(&self, scope: Scope) -> Result<Why, QueryError> {
        match self.query(Query::Why { scope }, QUERY_PATIENCE)? {
            Reply::Why(why) => Ok(why),
            other => Err(QueryError::of(&other)),
        }
    }

    /// Returns how the broker is.
    pub fn status(&self) -> Result<Status, QueryError> {
        match self.query(Query::Status, QUERY_PATIENCE)? {
            Reply::Status(status) => Ok(status),
            other => Err(QueryError::of(&other)),
        }
    }

    /// Returns all clients of the broker.
    pub fn sessions(&self) -> Result<Vec<SessionLine>, QueryError> {
        let mut all: Vec<SessionLine> = Vec::new();
        loop {
            let after = all.last().map_or(0, |line| line.session);
            match self.query(Query::Sessions { after }, QUERY_PATIENCE)? {
                Reply::Sessions(Sessions { lines, more }) => {
                    let is_over = lines.is_empty() || !more;
                    all.extend(lines);
                    if is_over {
                        return Ok(all);
                    }
                }
                other => return Err(QueryError::of(&other)),
            }
        }
    }

    /// Returns a page of what happened.
    pub fn log(&self, query: LogQuery) -> Result<LogPage, QueryError> {
        let patience = query.patience + QUERY_PATIENCE;
        match self.query(Query::Log(query), patience)? {
            Reply::Log(page) => Ok(page),
            other => Err(QueryError::of(&other)),
        }
    }

    /// Ends a claim, whoever's it is. A holder is fenced and told why, so there must be a reason.
    pub fn break_lock(&self, ticket: u64, reason: String) -> Result<(), QueryError> {
        self.order(Query::Break { ticket, reason })
    }

    /// Asks a holder to let go within a time; after it, it loses its grant if somebody waits.
    pub fn recall(&self, ticket: u64, reason: String, within: Duration) -> Result<(), QueryError> {
        self.order(Query::Recall { ticket, reason, within })
    }

    fn order(&self, order: Query) -> Result<(), QueryError> {
        match self.query(order, QUERY_PATIENCE)? {
            Reply::Done => Ok(()),
            other => Err(QueryError::of(&other)),
        }
    }

    fn locks_page(
        &self,
        scope: &Scope,
        newer_than: Option<u64>,
        after: u64,
        patience: Duration,
    ) -> Result<Locks, QueryError> {
        let query = Query::Locks { scope: scope.clone(), newer_than, after };
        match self.query(query, patience)? {
            Reply::Locks(locks) => Ok(locks),
            other => Err(QueryError::of(&other)),
        }
    }

    fn query(&self, query: Query, patience: Duration) -> Result<Reply, QueryError> {
        let (answer, answered) = mpsc::channel();
        let id = self.state().query(query, answer).ok_or(QueryError::BrokerGone)?;
        answered.recv_timeout(patience).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => {
                self.state().forget_query(id);
                QueryError::Unchanged
            }
            mpsc::RecvTimeoutError::Disconnected => QueryError::BrokerGone,
        })
    }

    fn state(&self) -> Speaking<'_> {
        self.0.shared.state()
    }
}

impl Shared {
    fn state(&self) -> Speaking<'_> {
        Speaking(Some(self.silent_state()))
    }

    /// As above, for who says nothing. No callback runs under this lock, so a panic of one leaves the
    /// state whole.
    fn silent_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state, in the hands of somebody who may say something: it goes out once the lock is free, for
/// the answer needs that.
struct Speaking<'a>(Option<MutexGuard<'a, State>>);

impl Deref for Speaking<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.0.as_ref().expect("taken by drop alone")
    }
}

impl DerefMut for Speaking<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.0.as_mut().expect("taken by drop alone")
    }
}

impl Drop for Speaking<'_> {
    fn drop(&mut self) {
        let outbox = self.outbox();
        drop(self.0.take());
        if let Some(outbox) = outbox {
            outbox.flush();
        }
    }
}

impl Life {
    fn say_goodbye(&self) {
        self.shared.state().goodbye();
        self.shared.stirred.notify_one();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

impl QueryError {
    fn of(reply: &Reply) -> QueryError {
        match reply {
            Reply::Forbidden => QueryError::Forbidden,
            Reply::Nonsense => QueryError::Nonsense,
            Reply::Locks(_)
            | Reply::Why(_)
            | Reply::Status(_)
            | Reply::Done
            | Reply::Log(_)
            | Reply::Sessions(_)
            | Reply::Unknown => QueryError::Unknown,
        }
    }
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachError::Refused(refusal) => f.write_str(&refusal.reason),
            AttachError::BrokerGone => f.write_str("the broker is away"),
        }
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QueryError::Unknown => "the broker knows no such thing",
            QueryError::Forbidden => {
                "this takes the broker's own socket, or a token with the scope admin"
            }
            QueryError::Nonsense => "to break a lock takes a reason",
            QueryError::Unchanged => "nothing changed in time",
            QueryError::BrokerGone => "the broker is away",
        })
    }
}

impl std::error::Error for AttachError {}
impl std::error::Error for QueryError {}

type Waiters<K, T> = HashMap<K, mpsc::Sender<T>>;
