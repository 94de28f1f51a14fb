//! The clients there are, and how they are told from others who say so.

use std::collections::BTreeMap;
use std::time::Duration;

use gate_api::process;
use gate_api::wire::{Hello, PrivateView, Resume};
use gate_core::id::{Epoch, SessionId, SpaceId};
use gate_core::lock::claim::Process;
use rustc_hash::FxHashMap;

use crate::desk::Way;
use crate::mail::ConnectionId;
use crate::spaces::Seat;

/// One client.
pub(crate) struct Client {
    /// What it must know to come back.
    pub key: u128,
    /// What it calls itself.
    pub name: String,
    /// Its process.
    pub process: Process,
    /// The boot of its machine.
    pub machine: u64,
    /// How long it may be away.
    pub lease: Duration,
    /// How long its owners may hold while others wait.
    pub max_hold: Option<Duration>,
    /// The view it serves that is not for everybody to see, once it was heard of in this run of the
    /// broker.
    pub private: Option<PrivateView>,
    /// Whether it came over TCP, in this run of the broker.
    pub over_tcp: bool,
    /// What it attached, by the numbers it speaks of.
    pub seats: BTreeMap<SpaceId, Seat>,
    /// What it was refused when it last attached something in this run of the broker.
    pub refused: Option<SpaceId>,
    /// Where it is heard, while it is there.
    pub connection: Option<ConnectionId>,
}

/// What a client and the broker agreed on.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// See [`Client::lease`].
    pub lease: Duration,
    /// See [`Client::max_hold`].
    pub max_hold: Option<Duration>,
}

/// All clients.
#[derive(Default)]
pub(crate) struct Sessions {
    clients: FxHashMap<SessionId, Client>,
    epoch: u64,
    next: u64,
}

impl Sessions {
    /// Takes over those of a former run.
    pub fn restore(epoch: Epoch, clients: Vec<(SessionId, Client)>) -> Sessions {
        Sessions { clients: clients.into_iter().collect(), epoch: epoch.0, next: 1 }
    }

    /// Makes a client of who says hello.
    pub fn admit(&mut self, hello: Hello, limits: Limits, way: Way) -> SessionId {
        // Ids of one run never meet those of another, which journals and clients may remember.
        let id = SessionId(self.epoch << 32 | self.next);
        self.next += 1;
        let foreign = hello.process.namespace != process::namespace();
        let process = match way {
            Way::Local(Some(peer)) if foreign => peer,
            Way::Local(_) | Way::Tcp => hello.process,
        };
        let client = Client {
            key: random_key(),
            name: hello.client,
            process,
            machine: hello.machine,
            lease: limits.lease,
            max_hold: limits.max_hold,
            private: hello.private,
            over_tcp: way == Way::Tcp,
            seats: BTreeMap::new(),
            refused: None,
            connection: None,
        };
        self.clients.insert(id, client);
        id
    }

    /// Returns the session that a client proves to be its own.
    pub fn claimed_by(&self, resume: Resume) -> Option<SessionId> {
        let id = SessionId(resume.session);
        self.clients.get(&id).filter(|client| client.key == resume.key).map(|_| id)
    }

    pub fn get(&self, id: SessionId) -> Option<&Client> {
        self.clients.get(&id)
    }

    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Client> {
        self.clients.get_mut(&id)
    }

    pub fn remove(&mut self, id: SessionId) -> Option<Client> {
        self.clients.remove(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Client)> {
        self.clients.iter().map(|(id, client)| (*id, client))
    }

    /// Returns how many came over TCP.
    pub fn over_tcp(&self) -> usize {
        self.clients.values().filter(|client| client.over_tcp).count()
    }

    pub fn len(&self) -> usize {
        self.clients.len()
    }
}

impl Client {
    /// Returns whether it may outlive this machine: it runs on another, as it says, or may.
    pub fn is_elsewhere(&self) -> bool {
        self.over_tcp || self.machine != process::machine()
    }

    /// Returns its lease if it may outlive this machine with something that it holds: who attached
    /// nothing holds nothing.
    pub fn lease_elsewhere(&self) -> Option<Duration> {
        (self.is_elsewhere() && !self.seats.is_empty()).then_some(self.lease)
    }

    /// Returns whether its process runs where this broker can see it.
    pub fn is_visible(&self) -> bool {
        self.process.namespace == process::namespace()
    }
}

/// Draws what nobody guesses.
pub(crate) fn random_key() -> u128 {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        // Without secrets sessions could be stolen; the kernel has them from early boot on.
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)
            .expect("the kernel draws random numbers");
    }
    u128::from_le_bytes(bytes)
}
