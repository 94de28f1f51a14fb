//! Who asks, who holds what, and whom to tell.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gate_core::id::{Epoch, Ticket, Token};
use gate_core::lock::event::{Refusal, Revocation};
use gate_core::lock::limits::Limit;

use super::http::Call;
use super::session_name;
use crate::session::Party;
use crate::wire::{Acquire, Granted, ServerMessage};

/// Owners that ask at once, each with a thread and a connection of its own.
const ASKS_MAX: usize = 512;

/// A lock at the older broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    pub id: String,
    /// What the broker calls its owner.
    pub owner: String,
}

/// Whom v1 can tell from others: an owner, as the broker calls it, and a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub owner: String,
    pub path: String,
}

pub(super) struct Books {
    /// What the parties of this session are called, together with a name of their own.
    name: String,
    pages: Mutex<Pages>,
    /// Wakes who waits for another of its party, which asks for the same path.
    moved: Condvar,
}

/// The right to ask for a name; one at a time has it.
pub(super) struct Turn<'a> {
    books: &'a Books,
    name: Name,
}

#[derive(Default)]
struct Pages {
    /// The way to the session; `None` while the broker is away.
    link: Option<Sender<ServerMessage>>,
    lease: Duration,
    asking: HashMap<u64, Arc<Call>>,
    /// What is asked for just now.
    named: HashSet<Name>,
    held: HashMap<u64, Vec<Lock>>,
    /// Held when the connection broke, and not claimed again yet.
    former: HashMap<u64, Vec<Lock>>,
    tickets: u64,
    tokens: u64,
}

impl Books {
    pub fn new() -> Books {
        Books { name: session_name(), pages: Mutex::default(), moved: Condvar::new() }
    }

    pub fn lease(&self) -> Duration {
        self.pages().lease
    }

    pub fn set_lease(&self, lease: Duration) {
        self.pages().lease = lease;
    }

    /// Begins a connection; what is held is to be claimed by the session.
    pub fn link(&self, link: Sender<ServerMessage>) {
        let mut pages = self.pages();
        pages.drop_link();
        let held = std::mem::take(&mut pages.held);
        pages.former.extend(held);
        pages.link = Some(link);
        self.moved.notify_all();
    }

    /// Ends a connection: the session sees that the broker is away, and asks again later.
    pub fn unlink(&self) {
        self.pages().drop_link();
        self.moved.notify_all();
    }

    pub fn tell(&self, message: ServerMessage) {
        self.pages().tell(message);
    }

    /// Notes that an owner asks, and gives it a place; or tells why not.
    pub fn ask(&self, owner: u64) -> Option<(Ticket, Arc<Call>)> {
        let mut pages = self.pages();
        if pages.asking.len() >= ASKS_MAX {
            pages.refuse(owner, Refusal::Limit(Limit::WaitersPerSession));
            return None;
        }
        pages.tickets += 1;
        let call = Arc::new(Call::default());
        pages.asking.insert(owner, call.clone());
        Some((Ticket(pages.tickets), call))
    }

    /// Returns whether the owner was asking; its call ends, and what it brings is not wanted.
    pub fn give_up(&self, owner: u64) -> bool {
        let call = self.pages().asking.remove(&owner);
        self.moved.notify_all();
        call.is_some_and(|call| {
            call.give_up();
            true
        })
    }

    /// Returns whether an owner still wants what its call brings.
    pub fn is_asking(&self, owner: u64, call: &Arc<Call>) -> bool {
        self.pages().is_asking(owner, call)
    }

    /// Lets an owner in; gives the locks back if it does not want them any more.
    pub fn grant(
        &self,
        (owner, ticket): (u64, Ticket),
        call: &Arc<Call>,
        locks: Vec<Lock>,
    ) -> Result<(), Vec<Lock>> {
        let mut pages = self.pages();
        if !pages.is_asking(owner, call) {
            return Err(locks);
        }
        pages.asking.remove(&owner);
        pages.held.insert(owner, locks);
        pages.tokens += 1;
        let token = Token { epoch: Epoch(0), counter: pages.tokens };
        let granted = Granted { owner, ticket, token, count: 1, by_kin: false };
        pages.tell(ServerMessage::Granted(granted));
        Ok(())
    }

    /// Tells an owner no, if it still asks.
    pub fn refuse(&self, owner: u64, call: &Arc<Call>, why: Refusal) {
        let mut pages = self.pages();
        if pages.is_asking(owner, call) {
            pages.asking.remove(&owner);
            pages.refuse(owner, why);
        }
    }

    /// Claims what an owner held before the connection broke.
    pub fn reclaim(&self, owner: u64) {
        let mut pages = self.pages();
        match pages.former.remove(&owner) {
            Some(locks) => drop(pages.held.insert(owner, locks)),
            None => {
                pages.tell(lease_lost(owner));
            }
        }
    }

    /// Takes what an owner holds out of the books.
    pub fn take(&self, owner: u64) -> Vec<Lock> {
        self.pages().held.remove(&owner).unwrap_or_default()
    }

    /// Takes what nobody claimed out of the books.
    pub fn take_former(&self) -> Vec<Lock> {
        std::mem::take(&mut self.pages().former).into_values().flatten().collect()
    }

    pub fn take_all(&self) -> Vec<Lock> {
        let held = std::mem::take(&mut self.pages().held);
        held.into_values().flatten().chain(self.take_former()).collect()
    }

    /// Returns each lock that is to be renewed once; none while the broker is away.
    pub fn renewals(&self) -> Vec<Lock> {
        let pages = self.pages();
        if pages.link.is_none() {
            return Vec::new();
        }
        let locks = pages.held.values().chain(pages.former.values()).flatten();
        let by_id: HashMap<&str, &Lock> = locks.map(|lock| (lock.id.as_str(), lock)).collect();
        by_id.into_values().cloned().collect()
    }

    /// A lock is gone: tells its owners, and returns what else they held.
    pub fn lose(&self, id: &str) -> Vec<Lock> {
        let mut pages = self.pages();
        let has_it = |locks: &[Lock]| locks.iter().any(|lock| lock.id == id);
        let lost: Vec<_> = pages.held.extract_if(|_, locks| has_it(locks)).collect();
        let unclaimed: Vec<_> = pages.former.extract_if(|_, locks| has_it(locks)).collect();
        for (owner, _) in &lost {
            pages.tell(lease_lost(*owner));
        }
        let locks = lost.into_iter().chain(unclaimed).flat_map(|(_, locks)| locks);
        locks.filter(|lock| lock.id != id).collect()
    }

    /// Returns what the broker calls an owner: all of one party alike, so that it enters again
    /// where it holds already.
    pub fn owner_name(&self, acquire: &Acquire) -> String {
        let session = &self.name;
        match &acquire.party {
            Party::Process(process) => format!("{session} pid {}.{}", process.pid, process.start),
            Party::Named(name) => format!("{session} {name}"),
            Party::Session => format!("{session} all"),
            Party::Owner => format!("{session} owner {}", acquire.owner),
        }
    }

    /// Waits until nobody else asks for that name: v1 lets an owner wait for a path but once.
    /// Returns `None` if the time runs out or the owner gives up.
    pub fn turn(
        &self,
        name: &Name,
        (owner, call): (u64, &Arc<Call>),
        until: Option<Instant>,
    ) -> Option<Turn<'_>> {
        let mut pages = self.pages();
        while pages.is_asking(owner, call) {
            if pages.named.insert(name.clone()) {
                return Some(Turn { books: self, name: name.clone() });
            }
            pages = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return None,
                Some(left) => {
                    let woken = self.moved.wait_timeout(pages, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.moved.wait(pages).unwrap_or_else(PoisonError::into_inner),
            };
        }
        None
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.books.pages().named.remove(&self.name);
        self.books.moved.notify_all();
    }
}

impl Pages {
    fn drop_link(&mut self) {
        self.link = None;
        for (_, call) in self.asking.drain() {
            call.give_up();
        }
    }

    fn tell(&mut self, message: ServerMessage) {
        if let Some(link) = &self.link {
            // A session that has ended hears nothing.
            let _ = link.send(message);
        }
    }

    fn refuse(&mut self, owner: u64, why: Refusal) {
        self.tell(ServerMessage::Refused { owner, why });
    }

    fn is_asking(&self, owner: u64, call: &Arc<Call>) -> bool {
        self.asking.get(&owner).is_some_and(|known| Arc::ptr_eq(known, call))
    }
}

fn lease_lost(owner: u64) -> ServerMessage {
    ServerMessage::Revoked { owner, why: Revocation::LeaseLost, reason: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_party_asks_for_a_path_at_a_time() {
        let books = Books::new();
        let name = Name { owner: "o".to_owned(), path: "f".to_owned() };
        let (_, first) = books.ask(1).unwrap();
        let (_, second) = books.ask(2).unwrap();
        let turn = books.turn(&name, (1, &first), None).unwrap();
        assert!(books.turn(&name, (2, &second), Some(Instant::now())).is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| books.turn(&name, (2, &second), None).is_some());
            drop(turn);
            assert!(waiting.join().unwrap());
        });
        let _turn = books.turn(&name, (1, &first), None).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| books.turn(&name, (2, &second), None).is_some());
            assert!(books.give_up(2));
            assert!(!waiting.join().unwrap(), "who gave up does not wait");
        });
    }

    #[test]
    fn a_lost_lock_is_told_to_all_that_share_it() {
        let books = Books::new();
        let (link, told) = std::sync::mpsc::channel();
        books.link(link);
        let lock = |id: &str| Lock { id: id.to_owned(), owner: "o".to_owned() };
        for (owner, locks) in [(1, vec![lock("x")]), (2, vec![lock("x"), lock("y")])] {
            let (ticket, call) = books.ask(owner).unwrap();
            books.grant((owner, ticket), &call, locks).unwrap();
        }
        assert_eq!(books.renewals().len(), 2, "each is renewed once");
        assert_eq!(books.lose("x"), [lock("y")]);
        let revoked = |message: &ServerMessage| matches!(message, ServerMessage::Revoked { .. });
        assert_eq!(told.try_iter().filter(revoked).count(), 2);
        assert!(books.take(1).is_empty() && books.renewals().is_empty());
    }

    #[test]
    fn asks_are_bounded() {
        let books = Books::new();
        let (link, told) = std::sync::mpsc::channel();
        books.link(link);
        let room = u64::try_from(ASKS_MAX).unwrap();
        assert!((0..room).all(|owner| books.ask(owner).is_some()));
        assert!(books.ask(room).is_none());
        let why = Refusal::Limit(Limit::WaitersPerSession);
        assert!(matches!(told.recv(), Ok(ServerMessage::Refused { why: told, .. }) if told == why));
    }
}
