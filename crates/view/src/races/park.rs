//! Calls that wait outside of the kernel's locks, and the signals that end their waiting.

use std::sync::Arc;

use gate_api::staged::broker::Broker;
use gate_api::staged::{clock, in_many_orders};
use gate_fuse::{Errno, NodeId, Operation, Unique};
use shuttle::sync::Mutex;
use shuttle::thread::{self, JoinHandle};

use super::{Stage, Then, ask};
use crate::park::{CLAIMED_WITHIN, Call};
use crate::turn::Round;

/// Threads that run, whatever they are.
const ALIVE: [u32; 2] = [1, 2];
/// Threads that do not: there are no such numbers.
const DEAD: [u32; 2] = [u32::MAX, u32::MAX - 1];

/// A view, and the kernel's lock of its one directory.
#[derive(Clone)]
struct Directory {
    stage: Stage,
    lock: Arc<Mutex<()>>,
    /// Whether calls may come too late, and be told to come again.
    is_slow: bool,
}

impl Directory {
    fn new() -> Directory {
        Directory::of(Stage::new())
    }

    fn of(stage: Stage) -> Directory {
        Directory { stage, lock: Arc::default(), is_slow: false }
    }

    /// A thread makes a call on the names in it, as kernel and program would.
    fn change(&self, thread: u32, signal: Option<Then>) {
        let mut was_sent = false;
        loop {
            match self.call_once(thread) {
                None => return,
                Some(Errno::AGAIN) if self.is_slow && was_sent => return,
                Some(Errno::STALE) => {
                    assert!(!was_sent, "a second ESTALE reaches the program");
                    was_sent = true;
                }
                other => panic!("{other:?}"),
            }
            match (self.walk(thread, signal.filter(|_| was_sent)), signal) {
                (_, Some(Then::Dead)) => return,
                (None, _) => {}
                (Some(Errno::INTR), Some(Then::Again)) => {
                    // It makes the call anew, and is sent on a walk of its own.
                    was_sent = false;
                }
                (other, _) => panic!("{other:?}"),
            }
        }
    }

    fn call_once(&self, thread: u32) -> Option<Errno> {
        let _locked = self.lock.lock().unwrap();
        let (unique, reply) = self.stage.kernel.request();
        let call = Call {
            thread,
            parents: [NodeId::ROOT; 2],
            name: c"a".to_owned(),
            round: Round::First,
            ask: ask(),
            anew: None,
            check: Box::new(|_| Ok(())),
            run: self.stage.work(),
        };
        self.stage.view.wait_outside(call, reply);
        self.stage.kernel.answer(unique).error
    }

    fn walk(&self, thread: u32, signal: Option<Then>) -> Option<Errno> {
        let interrupt = |unique: Unique| {
            if signal.is_some() {
                let kernel = self.stage.kernel.clone();
                thread::spawn(move || kernel.interrupt(unique));
            }
        };
        let getattr = Operation::Getattr { handle: None };
        self.stage.call_while(thread, NodeId::ROOT, getattr, interrupt).error
    }

    fn changer(&self, thread: u32, signal: Option<Then>) -> JoinHandle<()> {
        let directory = self.clone();
        thread::spawn(move || directory.change(thread, signal))
    }
}

/// The clock stands still.
#[test]
fn n6_no_call_that_waits_keeps_its_directory_from_the_holder() {
    in_many_orders(|| {
        let directory = Directory::new();
        let broker = directory.stage.view.broker.clone();
        let holder = broker.acquire_blocking(ask()).unwrap();
        let changers = ALIVE.map(|thread| directory.changer(thread, None));
        drop(directory.lock.lock().unwrap());
        broker.release(holder.owner, None);
        for changer in changers {
            changer.join().unwrap();
        }
        directory.stage.end();
    });
}

#[test]
fn everybody_has_a_turn_though_signals_come() {
    in_many_orders(|| {
        let directory = Directory::new();
        let changers = ALIVE.map(|thread| directory.changer(thread, Some(Then::Again)));
        for changer in changers {
            changer.join().unwrap();
        }
        directory.stage.end();
    });
}

#[test]
fn n5_who_is_killed_in_its_walk_leaves_neither_its_place_nor_its_turn() {
    in_many_orders(|| {
        let directory = Directory::new();
        let broker = directory.stage.view.broker.clone();
        let holder = broker.acquire_blocking(ask()).unwrap();
        let killed = DEAD.map(|thread| directory.changer(thread, Some(Then::Dead)));
        broker.release(holder.owner, None);
        for changer in killed {
            changer.join().unwrap();
        }
        directory.stage.end();
    });
}

/// Threads and walks may be on their way for longer than a ticket is kept for them, though not for
/// so long that it is forgotten that they were sent.
#[test]
fn who_comes_too_late_is_answered_and_leaves_nothing_behind() {
    in_many_orders(|| {
        let directory = Directory { is_slow: true, ..Directory::new() };
        let changers = ALIVE.map(|thread| directory.changer(thread, Some(Then::Again)));
        for _ in 0..3 {
            clock::pass(CLAIMED_WITHIN);
        }
        for changer in changers {
            changer.join().unwrap();
        }
        directory.stage.end();
    });
}

/// N7: between the walk and the call others may have been let in, and the view not have heard of it.
#[test]
fn n7_who_sleeps_between_its_walk_and_its_call_changes_nothing_in_the_turn_of_others() {
    in_many_orders(|| {
        let directory = Directory::of(Stage::before(Broker::strict()));
        let session = directory.stage.view.broker.clone();
        let holder = session.acquire_blocking(ask()).unwrap();
        assert_eq!(directory.call_once(ALIVE[0]), Some(Errno::STALE));
        session.release(holder.owner, None);
        assert_eq!(directory.walk(ALIVE[0], None), None);
        directory.stage.sleep();
        // Too late for its ticket it may have got another turn.
        let answer = directory.call_once(ALIVE[0]);
        assert!(matches!(answer, None | Some(Errno::IO | Errno::AGAIN)), "{answer:?}");
        directory.stage.end();
    });
}
