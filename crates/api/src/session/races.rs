//! The session's threads in every order that chance finds: those that ask, give up and let go,
//! and the one that hears the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gate_core::lock::claim::{Label, Patience};
use gate_core::lock::event::{Refusal, Revocation};
use gate_core::lock::want::{Access, Op, Want};
use shuttle::sync::mpsc;
use shuttle::thread;

use super::standing::{Moment, Standing};
use super::{Answer, Ask, ClientInfo, QueryError, Quiet, Session, Watcher};
use crate::staged::broker::Broker;
use crate::staged::{clock, in_many_orders};
use crate::wire::Party;

const LONG: Duration = Duration::from_secs(3600);

struct Deaf;

impl Watcher for Deaf {
    fn revoked(&self, _owner: u64, _why: Revocation, _reason: &str) -> Quiet {
        Quiet::Now
    }

    fn contended(&self, _owner: u64) {}
}

fn connect(broker: &Broker) -> Session {
    Session::connect(broker.clone(), ClientInfo::named("races"), Arc::new(Deaf)).unwrap()
}

fn ask(patience: Patience) -> Ask {
    Ask {
        party: Party::Owner,
        caller: None,
        patience,
        read_wait: None,
        label: Label::default(),
        want: Want { op: Op::Open(Access::Write), places: Vec::new() },
    }
}

/// Whatever the lock is for.
#[derive(Clone, Default)]
struct Treasure(Arc<AtomicUsize>);

impl Treasure {
    /// N1: has it alone for a while.
    fn use_alone(&self) {
        assert_eq!(self.0.fetch_add(1, Ordering::Relaxed), 0, "two have it");
        thread::yield_now();
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks, and returns the owner with the way on which its final answers come.
fn ask_aside(session: &Session, patience: Patience) -> (u64, mpsc::Receiver<Answer>) {
    let (tell, told) = mpsc::channel();
    let then = move |answer: Answer| {
        if !matches!(answer, Answer::Waiting { .. }) {
            tell.send(answer).unwrap();
        }
    };
    (session.acquire(ask(patience), Box::new(then)), told)
}

/// Takes the lock, uses what it is for, and lets go.
fn take_a_turn(session: &Session, treasure: &Treasure) {
    let grant = session.acquire_blocking(ask(Patience::Endless)).unwrap();
    treasure.use_alone();
    session.release(grant.owner, None);
}

/// Asks while somebody else takes it out of the line; a grant that came first is used.
fn waver(session: &Session, treasure: &Treasure) {
    let (owner, told) = ask_aside(session, Patience::Endless);
    let other = session.clone();
    let tempter = thread::spawn(move || other.withdraw(owner, Refusal::Interrupted));
    match told.recv().unwrap() {
        Answer::Granted(grant) => {
            treasure.use_alone();
            session.release(grant.owner, None);
        }
        answer => assert_eq!(answer, Answer::Refused(Refusal::Interrupted)),
    }
    tempter.join().unwrap();
    assert!(told.recv().is_err(), "one final answer is all");
}

type Visit = fn(&Session, &Treasure);

/// Lets each visitor come on a thread of its own while the connection breaks so many times.
fn visit(visitors: &'static [Visit], cuts: usize) {
    let (broker, treasure) = (Broker::default(), Treasure::default());
    let session = connect(&broker);
    let here = Arc::new(AtomicUsize::new(visitors.len()));
    for visitor in visitors {
        let (session, treasure, here) = (session.clone(), treasure.clone(), here.clone());
        thread::spawn(move || {
            visitor(&session, &treasure);
            here.fetch_sub(1, Ordering::Relaxed);
        });
    }
    for _ in 0..cuts {
        broker.cut();
    }
    // Between two attempts to connect.
    while cuts > 0 && here.load(Ordering::Relaxed) > 0 {
        clock::skip();
    }
}

#[test]
fn who_gives_up_as_the_grant_comes_leaves_the_lock_to_the_next() {
    in_many_orders(|| {
        visit(&[take_a_turn, waver, waver, take_a_turn], 0);
    });
}

#[test]
fn n1_no_grant_is_lost_or_told_twice_while_connections_break() {
    in_many_orders(|| {
        visit(&[take_a_turn, waver, take_a_turn], 2);
    });
}

/// Nothing is healed by the clock: it stands still.
#[test]
fn while_the_broker_is_away_who_cannot_wait_is_told_at_once() {
    in_many_orders(|| {
        let broker = Broker::default();
        let session = connect(&broker);
        let other = session.clone();
        let waits = thread::spawn(move || waver(&other, &Treasure::default()));
        broker.go();
        let (_, told) = ask_aside(&session, Patience::Try);
        match told.recv().unwrap() {
            // It was asked before the connection broke.
            Answer::Granted(grant) => session.release(grant.owner, None),
            answer => assert_eq!(answer, Answer::Refused(Refusal::WouldBlock)),
        }
        assert!(told.recv().is_err(), "one final answer is all");
        waits.join().unwrap();
    });
}

#[test]
fn who_waits_longer_than_a_lease_for_a_broker_is_told_and_who_holds_still_does() {
    in_many_orders(|| {
        let broker = Broker::default();
        let session = connect(&broker);
        let held = session.acquire_blocking(ask(Patience::Endless)).unwrap();
        let (_, told) = ask_aside(&session, Patience::Endless);
        broker.go();
        let answer = loop {
            match told.try_recv() {
                Ok(answer) => break answer,
                Err(_) => clock::skip(),
            }
        };
        assert_eq!(answer, Answer::BrokerGone);
        assert!(session.holds(held.owner));
        broker.come_back();
        let next = session.clone();
        let turn = thread::spawn(move || take_a_turn(&next, &Treasure::default()));
        clock::skip();
        session.release(held.owner, None);
        while !broker.is_free() {
            clock::skip();
        }
        turn.join().unwrap();
    });
}

/// The clock alone tells that they are: it passes as often as anybody waits for it.
#[test]
fn who_is_held_up_with_an_answer_holds_up_nobody_else() {
    in_many_orders(|| {
        let broker = Broker::default();
        let session = connect(&broker);
        let held_up = |patience| {
            let (free, held) = mpsc::channel::<()>();
            let then = move |answer: Answer| {
                if !matches!(answer, Answer::Waiting { .. }) {
                    held.recv().unwrap();
                }
            };
            (session.acquire(ask(patience), Box::new(then)), free)
        };
        let ((owner, granted), (_, refused)) = (held_up(Patience::Endless), held_up(Patience::Try));
        let (_, told) = ask_aside(&session, Patience::Try);
        let answer = loop {
            match told.try_recv() {
                Ok(answer) => break answer,
                Err(_) => clock::skip(),
            }
        };
        assert_eq!(answer, Answer::Refused(Refusal::WouldBlock));
        assert!(session.holds(owner));
        refused.send(()).unwrap();
        granted.send(()).unwrap();
        session.release(owner, None);
        take_a_turn(&session, &Treasure::default());
    });
}

#[test]
fn a_session_that_ends_ends_its_thread_and_answers_nobody_wrongly() {
    in_many_orders(|| {
        let broker = Broker::default();
        let session = connect(&broker);
        let ends = broker.clone();
        let outage = thread::spawn(move || ends.go());
        let (_, told) = ask_aside(&session, Patience::Endless);
        drop(session);
        outage.join().unwrap();
        // Shuttle sees a thread that is left.
        match told.recv() {
            Ok(Answer::Granted(_)) | Err(mpsc::RecvError) => {}
            Ok(answer) => panic!("{answer:?}"),
        }
    });
}

#[test]
fn no_question_is_left_without_an_answer() {
    in_many_orders(|| {
        let broker = Broker::default();
        let session = connect(&broker);
        let cut = broker.clone();
        let outage = thread::spawn(move || cut.cut());
        let answer = session.break_lock(1, String::new());
        assert!(matches!(answer, Ok(()) | Err(QueryError::BrokerGone)));
        outage.join().unwrap();
    });
}

#[test]
fn who_hears_the_broker_out_knows_what_was_taken_away_before() {
    in_many_orders(|| {
        let broker = Broker::default();
        let session = connect(&broker);
        let held = session.acquire_blocking(ask(Patience::Endless)).unwrap();
        broker.revoke();
        let outage = thread::spawn(move || broker.cut());
        // However the outage falls between them.
        for _ in 0..2 {
            assert!(session.hear_out(LONG));
            assert!(!session.holds(held.owner));
        }
        outage.join().unwrap();
    });
}

#[test]
fn who_waits_for_proof_hears_of_it() {
    in_many_orders(|| {
        let old = Moment(Moment::now().0 - LONG);
        let standing = Arc::new(Standing::new(Some(old), LONG));
        let waiting = standing.clone();
        let waiter = thread::spawn(move || waiting.await_good(LONG));
        standing.extend(Moment::now(), LONG);
        assert!(waiter.join().unwrap());
    });
}
