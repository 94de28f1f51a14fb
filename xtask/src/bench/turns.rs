//! The broker as a giver of turns.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gate_api::session::{Party, Session};
use gate_api::wire::{Directory, Inode, Origin, Source};
use gate_api::{Address, Answer, Ask, ClientInfo, Quiet, Watcher, process};
use gate_core::id::SpaceId;
use gate_core::lock::claim::{Label, Patience};
use gate_core::lock::event::Revocation;
use gate_core::lock::key::FileKey;
use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_core::path::ViewPath;

use super::peer::{Client, Peer};

/// How long the broker may take to answer.
const TOLD_WITHIN: Duration = Duration::from_secs(20);
/// What all queue for.
const SHARED: u64 = u64::MAX;

/// A broker, found by its state directory.
pub struct Gate {
    state_dir: PathBuf,
}

impl Gate {
    /// The broker that keeps its state there.
    pub fn at(state_dir: PathBuf) -> Gate {
        Gate { state_dir }
    }
}

impl Peer for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn client(&self, number: u64) -> io::Result<Box<dyn Client>> {
        Ok(Box::new(Turns::connect(&self.state_dir, number)?))
    }

    /// The next one's yes is heard where a view hears it: on its session's thread.
    fn hand_offs(&self, waiters: u64) -> io::Result<Vec<Duration>> {
        let mut holder = Turns::connect(&self.state_dir, SHARED)?;
        holder.take()?;
        let clients = (0..waiters).map(|_| Turns::connect(&self.state_dir, SHARED));
        let clients = clients.collect::<io::Result<Vec<_>>>()?;
        let (told, heard) = mpsc::channel();
        for (index, client) in clients.iter().enumerate() {
            let told = told.clone();
            let then = move |answer: Answer| {
                let _ = told.send((index, answer, Instant::now()));
            };
            client.session.acquire(client.ask(), Box::new(then));
        }
        let next = || heard.recv_timeout(TOLD_WITHIN).map_err(io::Error::other);
        for _ in &clients {
            next()?;
        }
        let mut times = Vec::new();
        let mut released = Instant::now();
        holder.give_back()?;
        for _ in &clients {
            let (index, answer, at) = next()?;
            let Answer::Granted(grant) = answer else {
                return Err(io::Error::other(format!("{answer:?}")));
            };
            times.push(at.duration_since(released));
            released = Instant::now();
            clients[index].session.release(grant.owner, None);
        }
        Ok(times)
    }
}

/// A session that opens one file to write, and closes it.
pub struct Turns {
    /// What it says otherwise, it says by this.
    pub session: Session,
    /// The space's name at the broker.
    pub space_name: String,
    space: SpaceId,
    number: u64,
    /// The owner that has its turn.
    owner: u64,
}

struct Deaf;

impl Watcher for Deaf {
    fn revoked(&self, _: u64, _: Revocation, _: &str) -> Quiet {
        Quiet::Now
    }

    fn contended(&self, _: u64) {}
}

impl Turns {
    /// Connects to a broker by its socket; `number` tells the file.
    pub fn connect(state_dir: &Path, number: u64) -> io::Result<Self> {
        let address = Address::of_state_dir(state_dir);
        let client = ClientInfo::named("bench");
        let session =
            Session::connect(address, client, Arc::new(Deaf)).map_err(io::Error::other)?;
        let attached = session.attach(source()).map_err(io::Error::other)?;
        let (space, space_name) = (attached.space, attached.name);
        Ok(Self { session, space_name, space, number, owner: 0 })
    }

    fn ask(&self) -> Ask {
        let path = format!("src/deep/er/file-{}", self.number);
        let path = ViewPath::parse(path.as_bytes()).expect("a plain path");
        let node = Node::File(FileKey { volume: 1, inode: self.number, generation: 0 });
        let place = Place { space: self.space, path: Some(path), node };
        Ask {
            party: Party::Owner,
            caller: None,
            patience: Patience::Endless,
            read_wait: None,
            label: Label::default(),
            want: Want { op: Op::Open(Access::Write), places: vec![place] },
        }
    }
}

impl Client for Turns {
    fn take(&mut self) -> io::Result<()> {
        let grant = self.session.acquire_blocking(self.ask());
        self.owner = grant.map_err(|no| io::Error::other(format!("{no:?}")))?.owner;
        Ok(())
    }

    fn give_back(&mut self) -> io::Result<()> {
        self.session.release(self.owner, None);
        Ok(())
    }
}

/// A directory that all clients speak of.
pub fn source() -> Source {
    let directory = Directory {
        // Another machine's: the broker must not look for it here.
        machine: !process::machine(),
        path: b"/bench".to_vec(),
        root: Inode { device: 1, number: 2 },
        above: Vec::new(),
    };
    Source {
        origin: Origin::Directory(directory),
        space: None,
        by_host_and_port: false,
        rules: None,
    }
}
