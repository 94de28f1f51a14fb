//! The real thing, over its socket.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use gate_api::wire::{Origin, Party, Rules, Source};
use gate_api::{Address, Answer, Ask, Attachment, ClientInfo, Grant, Session, Watcher};
use gate_core::lock::claim::{Label, Patience};
use gate_core::lock::event::Revocation;
use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_core::path::ViewPath;
use tempfile::TempDir;

use crate::{Broker, Options, Running};

/// Long enough for a busy machine; a test that waits so long has failed.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What a client hears that it did not ask for.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Revoked(u64, Revocation),
    Contended(u64),
    Away,
    Back,
}

struct Ears(mpsc::Sender<Heard>);

impl Watcher for Ears {
    fn revoked(&self, owner: u64, why: Revocation) {
        let _ = self.0.send(Heard::Revoked(owner, why));
    }
    fn contended(&self, owner: u64) {
        let _ = self.0.send(Heard::Contended(owner));
    }
    fn away(&self) {
        let _ = self.0.send(Heard::Away);
    }
    fn back(&self) {
        let _ = self.0.send(Heard::Back);
    }
}

/// A client with a source of its own making.
pub(crate) struct Client {
    pub session: Session,
    pub attachment: Attachment,
    pub heard: mpsc::Receiver<Heard>,
}

/// An owner's answers.
pub(crate) struct Owner {
    pub number: u64,
    answers: mpsc::Receiver<Answer>,
}

pub(crate) fn start(state: &TempDir) -> Running {
    Broker::start(Options::new(state.path().to_owned())).unwrap()
}

pub(crate) fn bucket() -> Source {
    Source {
        origin: Origin::Bucket("test".to_owned()),
        space: None,
        by_host_and_port: false,
        rules: Rules { read_wait: None, policies: String::new() },
    }
}

pub(crate) fn connect(address: &Address, name: &str) -> Client {
    let (ears, heard) = mpsc::channel();
    let info = ClientInfo { name: name.to_owned(), lease: None };
    let session = Session::connect(address.clone(), info, Arc::new(Ears(ears))).unwrap();
    let attachment = session.attach(bucket()).unwrap();
    Client { session, attachment, heard }
}

impl Client {
    pub fn ask(&self, op: Op, path: &str) -> Ask {
        let path = Some(ViewPath::parse(path.as_bytes()).unwrap());
        let place = Place { space: self.attachment.space, path, node: Node::None };
        Ask {
            party: Party::Owner,
            thread: 0,
            single_threaded: false,
            patience: Patience::Endless,
            read_wait: None,
            label: Label { owner: "test".to_owned(), reason: String::new(), asked_at_ms: 0 },
            want: Want { op, places: vec![place] },
        }
    }

    pub fn acquire(&self, ask: Ask) -> Owner {
        let (sender, answers) = mpsc::channel();
        let then = Box::new(move |answer| {
            let _ = sender.send(answer);
        });
        Owner { number: self.session.acquire(ask, then), answers }
    }

    pub fn hold(&self, path: &str) -> Owner {
        self.acquire(self.ask(Op::Hold(Access::Write), path))
    }

    pub fn hears(&self) -> Heard {
        self.heard.recv_timeout(SOON).unwrap()
    }
}

impl Owner {
    pub fn hears(&self) -> Answer {
        self.answers.recv_timeout(SOON).unwrap()
    }

    #[track_caller]
    pub fn is_granted(&self) -> Grant {
        match self.hears() {
            Answer::Granted(grant) => grant,
            other => panic!("expected a grant: {other:?}"),
        }
    }

    #[track_caller]
    pub fn waits(&self) {
        let answer = self.hears();
        assert!(matches!(answer, Answer::Waiting { .. }), "{answer:?}");
    }

    pub fn has_heard_nothing(&self) -> bool {
        self.answers.try_recv().is_err()
    }
}

#[test]
fn owners_take_turns() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let [a, b] = ["a", "b"].map(|name| connect(&broker.address(), name));
    let first = a.hold("f");
    let granted = first.is_granted();
    let second = b.hold("f");
    second.waits();
    let third = a.hold("f");
    third.waits();
    a.session.release(first.number, None);
    let next = second.is_granted();
    assert!(next.token > granted.token, "N4: {next:?}");
    assert!(third.has_heard_nothing(), "N2");
    b.session.release(second.number, None);
    third.is_granted();
}
