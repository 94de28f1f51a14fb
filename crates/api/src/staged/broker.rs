//! A broker of one lock, first come, first let in, and the ways in which it may go away.
//!
//! It hears a client on a thread of its own, so what both say may cross.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use gate_core::id::{Epoch, Ticket, Token};
use gate_core::lock::claim::Patience;
use gate_core::lock::event::{Refusal, Revocation};
use shuttle::sync::{Mutex, MutexGuard, mpsc};
use shuttle::thread;

use crate::link::{Broken, ConnectError, Connection, Connector, Incoming, Outgoing};
use crate::wire::{
    BrokerInfo, ClientMessage, Granted, Hello, Known, Reply, Resume, ServerMessage, Welcome,
};

/// How long its client may be away.
pub const LEASE: Duration = Duration::from_secs(2);

/// A broker of one client.
#[derive(Clone, Default)]
pub struct Broker(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    is_away: bool,
    /// Whether its client must be heard within a lease.
    is_strict: bool,
    /// Counts connections: what comes by an earlier one comes to nobody.
    connection: u64,
    to_client: Option<mpsc::Sender<ServerMessage>>,
    holder: Option<u64>,
    /// Whether it was told that the lock is taken away from it.
    is_revoked: bool,
    line: VecDeque<u64>,
    /// What a client that is back has listed.
    listed: BTreeSet<u64>,
    /// Of the last grant.
    counter: u64,
}

impl Broker {
    /// Makes one that may let others in when it has not heard of its client for a lease.
    pub fn strict() -> Broker {
        let broker = Broker::default();
        broker.book().is_strict = true;
        broker
    }

    /// Lets others have the lock, of whom nobody here hears more.
    pub fn let_others_in(&self) {
        let mut book = self.book();
        if let Some(owner) = book.holder.take() {
            book.tell_revoked(owner);
        }
    }

    /// Returns whether the lock is that owner's.
    pub fn has_let_in(&self, owner: u64) -> bool {
        self.book().holder == Some(owner)
    }

    /// Breaks the connection; what is under way is lost.
    pub fn cut(&self) {
        let mut book = self.book();
        book.connection += 1;
        book.to_client = None;
    }

    /// Goes away: nobody can connect.
    pub fn go(&self) {
        self.book().is_away = true;
        self.cut();
    }

    /// Is back, and remembers everything.
    pub fn come_back(&self) {
        self.book().is_away = false;
    }

    /// Takes the lock away from whoever holds it: the next has it once that one lets go.
    pub fn revoke(&self) {
        let mut book = self.book();
        if let Some(owner) = book.holder {
            book.is_revoked = true;
            book.tell_revoked(owner);
        }
    }

    /// Returns whether nobody holds the lock, or waits for it.
    pub fn is_free(&self) -> bool {
        let book = self.book();
        book.holder.is_none() && book.line.is_empty()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, connection: u64, messages: &mpsc::Receiver<ClientMessage>) {
        while let Ok(message) = messages.recv() {
            let mut book = self.book();
            if book.connection != connection {
                return;
            }
            book.hear(message);
        }
        // The client closed it.
        let mut book = self.book();
        if book.connection == connection {
            book.to_client = None;
        }
    }
}

impl Connector for Broker {
    fn connect(&self) -> Result<Connection, ConnectError> {
        let mut book = self.book();
        if book.is_away {
            return Err(ConnectError::Silent);
        }
        let (to_broker, messages) = mpsc::channel();
        let (to_client, answers) = mpsc::channel();
        book.connection += 1;
        book.to_client = Some(to_client);
        let (broker, connection, heartbeat) = (self.clone(), book.connection, book.is_strict);
        drop(book);
        thread::spawn(move || broker.serve(connection, &messages));
        Ok(Connection {
            outgoing: Box::new(ToBroker(to_broker)),
            incoming: Box::new(ToClient(answers)),
            heartbeat,
        })
    }
}

struct ToBroker(mpsc::Sender<ClientMessage>);

impl Outgoing for ToBroker {
    fn send(&mut self, message: &ClientMessage) {
        // That nobody hears it shows on the way back.
        let _ = self.0.send(message.clone());
    }
}

struct ToClient(mpsc::Receiver<ServerMessage>);

impl Incoming for ToClient {
    fn receive(&mut self, _: Option<Duration>) -> Result<Option<ServerMessage>, Broken> {
        self.0.recv().map(Some).map_err(|_| Broken::Closed)
    }
}

impl Book {
    fn hear(&mut self, message: ClientMessage) {
        match message {
            ClientMessage::Hello(hello) => self.welcome(&hello),
            ClientMessage::Held { acquire, .. } => self.reclaim(acquire.owner),
            ClientMessage::Waits { acquire } => self.rejoin(acquire.owner),
            ClientMessage::Listed => self.forget_unlisted(),
            ClientMessage::Acquire(acquire) => self.join(acquire.owner, acquire.patience),
            ClientMessage::Release { owner, .. } => self.leave(owner),
            ClientMessage::Withdraw { owner, why } => {
                if self.line.contains(&owner) {
                    self.say(ServerMessage::Refused { owner, why });
                }
                self.leave(owner);
            }
            ClientMessage::Query { id, .. } => {
                self.say(ServerMessage::Reply { id, reply: Reply::Done });
            }
            ClientMessage::Ping => self.say(ServerMessage::Pong),
            ClientMessage::Goodbye => {
                (self.holder, self.to_client) = (None, None);
                self.line.clear();
            }
            ClientMessage::Attach { .. }
            | ClientMessage::Created { .. }
            | ClientMessage::Active { .. }
            | ClientMessage::Guarded(_) => {}
        }
    }

    fn welcome(&mut self, hello: &Hello) {
        self.listed.clear();
        let broker = BrokerInfo { epoch: 1, version: String::new(), pid: 1, state_dir: Vec::new() };
        let session = Resume { session: 1, key: 1 };
        let known = if hello.resume.is_some() { Known::All } else { Known::Nothing };
        self.say(ServerMessage::Welcome(Welcome { session, known, lease: LEASE, broker }));
    }

    fn reclaim(&mut self, owner: u64) {
        self.listed.insert(owner);
        match self.holder == Some(owner) && !self.is_revoked {
            true => self.tell_granted(owner),
            false => self.tell_revoked(owner),
        }
    }

    fn rejoin(&mut self, owner: u64) {
        self.listed.insert(owner);
        match self.holder == Some(owner) {
            true if self.is_revoked => self.tell_revoked(owner),
            true => self.tell_granted(owner),
            false => self.join(owner, Patience::Endless),
        }
    }

    fn forget_unlisted(&mut self) {
        let listed = std::mem::take(&mut self.listed);
        self.line.retain(|owner| listed.contains(owner));
        self.holder = self.holder.filter(|owner| listed.contains(owner));
        self.settle();
        self.say(ServerMessage::Restored);
    }

    fn join(&mut self, owner: u64, patience: Patience) {
        if !self.line.contains(&owner) {
            self.line.push_back(owner);
        }
        self.settle();
        if self.holder == Some(owner) {
            return;
        }
        let why = match patience {
            Patience::Endless => {
                return self.say(ServerMessage::Waiting { owner, ticket: Ticket(owner) });
            }
            Patience::Try => Refusal::WouldBlock,
            // It ends at once: that is as good as any time.
            Patience::Limited(_) => Refusal::TimedOut,
        };
        self.line.retain(|other| *other != owner);
        self.say(ServerMessage::Refused { owner, why });
    }

    fn leave(&mut self, owner: u64) {
        self.line.retain(|other| *other != owner);
        self.holder = self.holder.filter(|holder| *holder != owner);
        self.settle();
    }

    fn settle(&mut self) {
        if self.holder.is_none()
            && let Some(next) = self.line.pop_front()
        {
            (self.holder, self.is_revoked) = (Some(next), false);
            self.counter += 1;
            self.tell_granted(next);
        }
    }

    fn tell_granted(&mut self, owner: u64) {
        let token = Token { epoch: Epoch(1), counter: self.counter };
        let ticket = Ticket(owner);
        self.say(ServerMessage::Granted(Granted { owner, ticket, token, count: 1, by_kin: false }));
    }

    fn tell_revoked(&mut self, owner: u64) {
        let (why, reason) = (Revocation::Broken, String::new());
        self.say(ServerMessage::Revoked { owner, why, reason });
    }

    fn say(&mut self, message: ServerMessage) {
        if let Some(client) = &self.to_client {
            // A client that is gone comes back and asks.
            let _ = client.send(message);
        }
    }
}
