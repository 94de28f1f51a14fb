//! An older broker: a session over the stateless HTTP interface alone.
//!
//! [`V1Broker`] is a [`Connector`] like any other, so a session and its owners need not know. One
//! thread and one connection wait for each owner that asks; a *clerk* lets go, renews leases and
//! asks questions, one after the other.
//!
//! What v1 cannot express is weaker than with frames:
//!
//! * Only names are locked, each by itself: not files, so two names of one file do not meet; not
//!   what is beneath a directory; and a name that moves leaves its lock behind. An owner without
//!   a name has what it asks for. A name that is not UTF-8 is locked as it is shown to people.
//! * What changes a name in any way is a writer: it waits for readers too.
//! * Several names are taken one after the other, in the order of their paths, and given back
//!   if one cannot be had: that is not one place in the line.
//! * A party enters again where it holds already, and one that reads and writes is a writer until
//!   it has let go of all. Nobody else is kin: who works below a hold or is waited for by a holder
//!   waits. Readers do not pass idle writers.
//! * Places in line are lost when the broker ends. What is held lives by its lease, renewed here;
//!   that a lease or the longest hold ran out shows at the next renewal, a third of a lease later
//!   at most. What is granted in the moment in which it is given up lives until its lease ends.
//! * Tokens count from 1 in each session: they fence nothing beyond it.
//! * There is one space and no policy; why somebody waits, and how the broker is, is not known.

mod attempt;
mod board;
mod books;
mod clerk;
mod http;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use gate_core::path::ViewPath;

use crate::address::{Address, Approach};
use crate::link::{Broken, ConnectError, Connection, Connector, Incoming, Outgoing};
use crate::process;
use crate::wire::{
    AttachRefusal, Attached, BrokerInfo, ClientMessage, Hello, Known, Query, Reply, Resume,
    ServerMessage, Source, Welcome,
};
use books::Books;
use clerk::Errand;
use http::Http;

/// How long a client may be away that does not say.
const LEASE_DEFAULT: Duration = Duration::from_secs(10);
/// How long the end of a session waits until all that it held is given back.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(2);
/// What an older broker calls its one space.
const SPACE: &str = "default";

/// A broker that speaks the stateless HTTP interface alone; for one session.
pub struct V1Broker(Arc<Desk>);

/// What the threads of a session share.
struct Desk {
    address: Address,
    http: Http,
    books: Books,
    errands: Sender<Errand>,
}

impl V1Broker {
    /// Looks whether such a broker answers at an address.
    pub fn find(approach: &Approach) -> Option<V1Broker> {
        let address = &approach.address;
        if let Address::Unix(_) = address {
            return None;
        }
        let http = Http::new(approach.clone());
        board::probe(&http).ok()?;
        let (errands, received) = channel();
        let desk = Desk { address: address.clone(), http, books: Books::new(), errands };
        let desk = Arc::new(desk);
        let clerk = desk.clone();
        let thread = std::thread::Builder::new().name("gate-v1-clerk".into());
        thread.spawn(move || clerk::run(&clerk, &received)).ok()?;
        tracing::warn!(%address, "the broker is an older one: turns there are by name alone");
        Some(V1Broker(desk))
    }
}

impl Connector for V1Broker {
    fn connect(&self) -> Result<Connection, ConnectError> {
        let nobody = |error| ConnectError::NobodyThere(self.0.address.clone(), error);
        board::probe(&self.0.http).map_err(nobody)?;
        let (tell, told) = channel();
        self.0.books.link(tell);
        Ok(Connection {
            outgoing: Box::new(ToBroker(self.0.clone())),
            incoming: Box::new(FromBroker(told)),
            heartbeat: true,
        })
    }
}

impl Drop for V1Broker {
    fn drop(&mut self) {
        self.0.errand(Errand::End(channel().0));
    }
}

struct ToBroker(Arc<Desk>);

impl Outgoing for ToBroker {
    fn send(&mut self, message: &ClientMessage) {
        let desk = &self.0;
        match message {
            ClientMessage::Hello(hello) => desk.welcome(hello),
            ClientMessage::Held { acquire, .. } => desk.books.reclaim(acquire.owner),
            ClientMessage::Waits { acquire } | ClientMessage::Acquire(acquire) => {
                attempt::start(desk, acquire);
            }
            ClientMessage::Listed => desk.listed(),
            ClientMessage::Attach { space, source } => {
                desk.books.tell(match attach(source) {
                    Ok(attached) => ServerMessage::Attached { space: *space, attached },
                    Err(refusal) => ServerMessage::AttachRefused { space: *space, refusal },
                });
            }
            ClientMessage::Release { owner, .. } => desk.release(*owner),
            ClientMessage::Withdraw { owner, why } => {
                if desk.books.give_up(*owner) {
                    desk.books.tell(ServerMessage::Refused { owner: *owner, why: *why });
                } else {
                    // It was let in just now, and will not hear of it.
                    desk.release(*owner);
                }
            }
            ClientMessage::Query { id, query } => desk.query(*id, query),
            ClientMessage::Ping => desk.errand(Errand::Ping),
            ClientMessage::Goodbye => desk.goodbye(),
            // An older broker knows names alone, and nobody passes there.
            ClientMessage::Created { .. }
            | ClientMessage::Active { .. }
            | ClientMessage::Guarded(_) => {}
        }
    }
}

struct FromBroker(Receiver<ServerMessage>);

impl Incoming for FromBroker {
    fn receive(&mut self, patience: Option<Duration>) -> Result<Option<ServerMessage>, Broken> {
        let Some(patience) = patience else {
            return self.0.recv().map(Some).map_err(|_| Broken::Closed);
        };
        match self.0.recv_timeout(patience) {
            Ok(message) => Ok(Some(message)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Broken::Closed),
        }
    }
}

impl Desk {
    /// Leaves something to the clerk.
    fn errand(&self, errand: Errand) {
        // After the end of the session there is no clerk, and nothing left to do.
        let _ = self.errands.send(errand);
    }

    fn welcome(&self, hello: &Hello) {
        let lease = hello.lease.unwrap_or(LEASE_DEFAULT);
        self.books.set_lease(lease);
        let broker =
            BrokerInfo { epoch: 0, version: "v1".to_owned(), pid: 0, state_dir: Vec::new() };
        let session = hello.resume.unwrap_or(Resume { session: 0, key: 0 });
        let known = if hello.resume.is_some() { Known::All } else { Known::Nothing };
        self.books.tell(ServerMessage::Welcome(Welcome { session, known, lease, broker }));
    }

    /// What a session that came back did not list, it let go of.
    fn listed(&self) {
        for lock in self.books.take_former() {
            self.errand(Errand::Release(lock));
        }
        self.errand(Errand::Renew);
        self.books.tell(ServerMessage::Restored);
    }

    fn release(&self, owner: u64) {
        for lock in self.books.take(owner) {
            self.errand(Errand::Release(lock));
        }
    }

    fn query(&self, id: u64, query: &Query) {
        match query {
            Query::Locks { scope, newer_than: None, after } => {
                self.errand(Errand::Show { id, scope: scope.clone(), after: *after });
            }
            Query::Locks { .. }
            | Query::Why { .. }
            | Query::Status
            | Query::Break { .. }
            | Query::Recall { .. }
            | Query::Log(_)
            | Query::Sessions { .. } => {
                self.books.tell(ServerMessage::Reply { id, reply: Reply::Unknown });
            }
        }
    }

    /// The connection is of no more use: the session is to come back, with all it holds.
    fn broke(&self, error: &std::io::Error) {
        tracing::debug!(%error, "the older broker is away");
        self.books.unlink();
        self.http.forget();
    }

    /// Gives everything back. The process may end right after, so this waits a moment for it.
    fn goodbye(&self) {
        self.books.unlink();
        for lock in self.books.take_all() {
            self.errand(Errand::Release(lock));
        }
        let (done, ended) = channel();
        self.errand(Errand::End(done));
        // What was not given back in time lives until its lease ends.
        let _ = ended.recv_timeout(GOODBYE_PATIENCE);
    }
}

/// Paths of all sources mean the same at an older broker.
fn attach(source: &Source) -> Result<Attached, AttachRefusal> {
    match &source.space {
        Some(space) if space != SPACE => Err(AttachRefusal {
            reason: format!("the broker is an older one, which has no space `{space}`"),
            fix: "leave --space out, or run a broker of this release".to_owned(),
        }),
        _ => {
            let prefix = ViewPath::root();
            Ok(Attached { space: SPACE.to_owned(), prefix, notice: None })
        }
    }
}

/// Returns what begins the names of one session's owners, and of no other's.
fn session_name() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};

    static NEXT: AtomicU64 = AtomicU64::new(1);
    let own = process::own();
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("gate.{:x}.{}.{}.{nth}", own.namespace, own.pid, own.start)
}
