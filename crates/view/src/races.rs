//! A view in every order of its threads that chance finds: those that serve requests and
//! interrupts, the one that hears the broker, and the timer's.
//!
//! The view, its session and its source are the product's; the kernel and the broker are staged.

mod handles;
mod line;
mod park;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gate_api::session::Party;
use gate_api::staged::broker::{Broker, LEASE};
use gate_api::staged::clock;
use gate_api::{Ask, ClientInfo, QueryError, Session};
use gate_core::id::SpaceId;
use gate_core::lock::claim::{Label, Patience};
use gate_core::lock::want::{Access, Op, Want};
use gate_fuse::staged::{Answer, Kernel};
use gate_fuse::{Caller, FileSystem, HandleId, NodeId, Operation, Request, Unique};
use shuttle::thread;

use crate::agent::Agents;
use crate::asker::{Identity, OwnerScope};
use crate::backing::{self, Ways};
use crate::directory::Directory;
use crate::mount::Ears;
use crate::policy::Policies;
use crate::timer::Timer;
use crate::turn::{Run, Turn};
use crate::view::{Parts, Served, Settings, View};

/// How often time may pass until what nobody comes for is given back.
const SKIPS_MAX: usize = 100;

/// A view between a staged kernel and a staged broker.
#[derive(Clone)]
struct Stage {
    view: Arc<View>,
    kernel: Arc<Kernel>,
    broker: Broker,
    source: Arc<tempfile::TempDir>,
    /// Who is in a turn.
    busy: Arc<AtomicUsize>,
}

impl Stage {
    fn new() -> Stage {
        Stage::before(Broker::default())
    }

    fn before(broker: Broker) -> Stage {
        let kernel = Arc::new(Kernel::new().unwrap());
        let source = Arc::new(tempfile::tempdir().unwrap());
        for name in ["a", "b", "c"] {
            fs::write(source.path().join(name), "").unwrap();
        }
        let ears = Ears::new();
        let watcher = Arc::new(ears.clone());
        let session = Session::connect(broker.clone(), ClientInfo::named("races"), watcher);
        let identity = Identity {
            scope: OwnerScope::Process,
            owner: String::new(),
            agent: None,
            acquire_timeout: None,
        };
        let root = fs::File::open(source.path()).unwrap();
        let directory = Arc::new(Directory::new(root, 1).unwrap());
        let view = View::new(Parts {
            source: directory.clone(),
            bare: Some(directory),
            broker: session.unwrap(),
            handles: ears.handles,
            ways: Ways::new(backing::Policy::Nothing, None, true),
            timer: Timer::start().unwrap(),
            agents: Agents::new(&identity),
            guard: None,
            settings: Settings {
                space: SpaceId(1),
                policies: Policies::new(Vec::new(), None).unwrap(),
                identity,
                release_on_flush: false,
                kill: false,
                mountpoint: source.path().to_owned(),
                file_system: None,
                descriptors: 1024,
                about: serde_json::Map::new(),
            },
        });
        view.set_notifier(kernel.notifier());
        Stage { view, kernel, broker, source, busy: Arc::default() }
    }

    fn file(&self, name: &std::ffi::CStr) -> NodeId {
        self.view.source.lookup(NodeId::ROOT, name).unwrap().node
    }

    fn bare(&self) -> &Directory {
        self.view.bare.as_ref().unwrap()
    }

    /// Makes a request of this process, and waits for the answer.
    fn call(&self, node: NodeId, operation: Operation<'_>) -> Answer {
        self.call_while(std::process::id(), node, operation, |_| {})
    }

    fn call_while(
        &self,
        tid: u32,
        node: NodeId,
        operation: Operation<'_>,
        meanwhile: impl FnOnce(Unique),
    ) -> Answer {
        let (unique, reply) = self.kernel.request();
        meanwhile(unique);
        let caller = Caller { uid: 0, gid: 0, tid, supplementary_gid: None };
        let request = Request { unique, node, caller, operation };
        Served(self.view.clone()).handle(request, reply);
        self.kernel.answer(unique)
    }

    /// What a call does in its turn, N1: alone.
    fn work(&self) -> Run {
        let (busy, broker) = (self.busy.clone(), self.broker.clone());
        Box::new(move |view, reply, turn, _| {
            assert!(view.has(turn), "a turn was given away before it was used");
            let Turn::Granted { owner, .. } = turn else { panic!("all is gated") };
            assert!(broker.has_let_in(owner), "N7: others were let in before it was used");
            assert_eq!(busy.fetch_add(1, Ordering::Relaxed), 0, "two are in their turn");
            thread::yield_now();
            busy.fetch_sub(1, Ordering::Relaxed);
            view.end_turn(turn, None);
            reply.ok();
        })
    }

    /// Stands still for a lease, in which others are let in. That comes first here: a view that is heard
    /// of after its lease, and before others come, keeps what it has.
    fn sleep(&self) {
        self.broker.let_others_in();
        clock::pass(LEASE);
    }

    /// Lets time pass until nothing of anybody is left, and the view has ended.
    fn end(self) {
        for skips in 0.. {
            // Answers come in order: by now the broker has heard everything.
            while self.view.broker.break_lock(0, String::new()) == Err(QueryError::BrokerGone) {
                thread::yield_now();
            }
            if self.broker.is_free() {
                break;
            }
            assert!(skips < SKIPS_MAX, "somebody's turn, or place, is never given back");
            clock::skip();
        }
        assert!(!self.kernel.owes(), "every request is answered");
        let view = Arc::downgrade(&self.view);
        drop(self.view);
        while view.strong_count() > 0 {
            clock::skip();
        }
    }
}

/// What a program does when a signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It catches it, and makes its call anew.
    Again,
    /// It is dead.
    Dead,
}

fn ask() -> Ask {
    Ask {
        party: Party::Owner,
        caller: None,
        patience: Patience::Endless,
        read_wait: None,
        label: Label::default(),
        want: Want { op: Op::Open(Access::Write), places: Vec::new() },
    }
}

fn handle_in(answer: &Answer) -> HandleId {
    assert_eq!(answer.error, None);
    HandleId(u64::from_ne_bytes(answer.body[..8].try_into().unwrap()))
}
