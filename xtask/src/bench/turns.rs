//! Clients of the broker that take and give back turns.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gate_api::session::{Party, Session};
use gate_api::wire::{Directory, Inode, Origin, Source};
use gate_api::{Address, Answer, Ask, ClientInfo, Watcher, process};
use gate_core::id::SpaceId;
use gate_core::lock::claim::{Label, Patience};
use gate_core::lock::event::Revocation;
use gate_core::lock::key::FileKey;
use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_core::path::ViewPath;

use super::broker::Client;

/// A session that opens one file of its own to write, and closes it.
pub struct Turns {
    session: Session,
    space: SpaceId,
    number: u64,
}

struct Deaf;

impl Watcher for Deaf {
    fn revoked(&self, _: u64, _: Revocation) {}
    fn contended(&self, _: u64) {}
}

impl Turns {
    /// Connects to a broker by its socket; `number` tells this client's file from others'.
    pub fn connect(state_dir: &Path, number: u64) -> std::io::Result<Self> {
        let fail = |error: String| std::io::Error::other(error);
        let address = Address::of_state_dir(state_dir);
        let client = ClientInfo { name: "bench".into(), lease: None };
        let session = Session::connect(address, client, Arc::new(Deaf))
            .map_err(|error| fail(error.to_string()))?;
        let directory = Directory {
            // Another machine's: the broker must not look for it here.
            machine: !process::machine(),
            path: b"/bench".to_vec(),
            root: Inode { device: 1, number: 2 },
            above: Vec::new(),
        };
        let source = Source {
            origin: Origin::Directory(directory),
            space: None,
            by_host_and_port: false,
            rules: None,
        };
        let attached = session.attach(source).map_err(|error| fail(error.to_string()))?;
        Ok(Self { session, space: attached.space, number })
    }

    fn ask(&self, file: u64) -> Ask {
        let path = format!("src/deep/er/file-{file}");
        let path = ViewPath::parse(path.as_bytes()).expect("a plain path");
        let node = Node::File(FileKey { volume: 1, inode: file, generation: 0 });
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
    fn pair(&mut self) -> std::io::Result<()> {
        let grant = self.session.acquire_blocking(self.ask(self.number));
        let grant = grant.map_err(|no| std::io::Error::other(format!("{no:?}")))?;
        self.session.release(grant.owner, None);
        Ok(())
    }
}

/// Lets `waiters` writers queue for one file and hands it on from one to the next; returns how
/// long each hand-off took, from the release to the next one's yes.
pub fn hand_offs(state_dir: &Path, waiters: u64) -> std::io::Result<Vec<Duration>> {
    let (told, heard) = mpsc::channel();
    let clients = (0..waiters).map(|number| Turns::connect(state_dir, number));
    let clients = clients.collect::<std::io::Result<Vec<_>>>()?;
    for (index, client) in clients.iter().enumerate() {
        let told = told.clone();
        let then = move |answer: Answer| {
            if let Answer::Granted(grant) = answer {
                let _ = told.send((index, grant.owner, Instant::now()));
            }
        };
        client.session.acquire(client.ask(u64::MAX), Box::new(then));
    }
    let mut times = Vec::new();
    let mut released: Option<Instant> = None;
    for _ in 0..waiters {
        let next = heard.recv_timeout(Duration::from_secs(20));
        let (index, owner, at) = next.map_err(std::io::Error::other)?;
        times.extend(released.map(|released| at.duration_since(released)));
        released = Some(Instant::now());
        clients[index].session.release(owner, None);
    }
    Ok(times)
}
