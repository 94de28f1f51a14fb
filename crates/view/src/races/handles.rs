//! The table of what is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gate_api::session::Quiet;
use gate_api::staged::broker::Broker;
use gate_api::staged::in_many_orders;
use gate_core::lock::want::Access;
use gate_fuse::{Errno, HandleId, NodeId, Operation, Write};
use shuttle::thread;

use super::{Stage, ask, handle_in};
use crate::backing::Way;
use crate::handles::{Handle, Handles, User};
use crate::turn::Turn;
use crate::walk::Kept;

const USER: User = User { process: None, agent: None, writes: true, executes: false };
const READ_WRITE: u32 = libc::O_RDWR.cast_unsigned();

/// A handle of a file of the source, for a table without a view.
fn handle(stage: &Stage, node: NodeId, turn: Turn) -> Handle {
    let file = stage.bare().open(node, READ_WRITE, false).unwrap();
    Handle::new(node, USER, turn, (Box::new(file), Way::Shared))
}

fn write_through(stage: &Stage, handle: HandleId, data: &[u8]) -> Option<Errno> {
    let flags = READ_WRITE;
    let write = Write { handle, offset: 0, data, flags, cached: false, kill_suidgid: false };
    stage.call(NodeId::ROOT, Operation::Write(write)).error
}

/// Opens a file; a signal may come, after which it is opened anew.
fn open(stage: &Stage, node: NodeId) -> HandleId {
    let mut signals = 1;
    loop {
        let meanwhile = |unique| {
            if signals > 0 {
                signals -= 1;
                let kernel = stage.kernel.clone();
                thread::spawn(move || kernel.interrupt(unique));
            }
        };
        let operation = Operation::Open { flags: READ_WRITE, kill_suidgid: false };
        let answer = stage.call_while(std::process::id(), node, operation, meanwhile);
        if answer.error != Some(Errno::INTR) {
            return handle_in(&answer);
        }
    }
}

/// N7: the kernel found the file by a name that was given to a copy before the open came; or by none,
/// as /proc/PID/fd leads to files.
#[test]
fn n7_who_came_to_a_file_that_lost_its_name_is_sent_to_the_one_that_bears_it() {
    in_many_orders(|| {
        let stage = Stage::new();
        let former = stage.file(c"a");
        stage.bare().set_apart(former).unwrap();
        let now = stage.file(c"a");
        assert_ne!(now, former);
        let open = || Operation::Open { flags: READ_WRITE, kill_suidgid: false };
        for found in [now, former] {
            assert_eq!(stage.call(former, open()).error, Some(Errno::STALE));
            let handle = handle_in(&stage.call(found, open()));
            assert_eq!(write_through(&stage, handle, b"bytes"), None);
            let (lock_owner, flock_unlock) = (0, false);
            stage.call(found, Operation::Release { handle, lock_owner, flock_unlock });
        }
        stage.end();
    });
}

#[test]
fn a_number_leads_to_what_was_opened_under_it_and_to_nothing_afterwards() {
    in_many_orders(|| {
        let stage = Stage::new();
        let handles = Arc::new(Handles::new());
        let users = [(1, c"a"), (2, c"a"), (3, c"b")].map(|(owner, name)| {
            let (handles, node) = (handles.clone(), stage.file(name));
            let own = handle(&stage, node, Turn::of(owner));
            thread::spawn(move || {
                let number = handles.insert(own);
                assert_eq!(handles.get(number).unwrap().node, node);
                assert!(handles.is_open(node) && handles.is_written(node));
                assert_eq!(handles.remove(number).unwrap().node, node);
                assert_eq!(handles.get(number).err(), Some(Errno::BADF));
                assert_eq!(handles.fence(owner), Quiet::Later, "there is nothing to fence");
            })
        });
        for user in users {
            user.join().unwrap();
        }
        assert!(!handles.is_open(stage.file(c"a")) && !handles.is_open(stage.file(c"b")));
        stage.end();
    });
}

#[test]
fn a_turn_is_given_back_once_though_two_give_it_back() {
    in_many_orders(|| {
        let stage = Stage::new();
        let shared = Arc::new(handle(&stage, stage.file(c"a"), Turn::of(1)));
        let ends = Arc::new(AtomicUsize::new(0));
        let closers = [(); 2].map(|()| {
            let (shared, ends) = (shared.clone(), ends.clone());
            thread::spawn(move || {
                if shared.end_turn() != Turn::Ungated {
                    ends.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        for closer in closers {
            closer.join().unwrap();
        }
        assert_eq!(ends.load(Ordering::Relaxed), 1);
        stage.end();
    });
}

/// N7: also what was taken away while the file was being opened.
#[test]
fn n7_nothing_is_written_through_a_handle_whose_turn_was_taken_away() {
    in_many_orders(|| {
        let stage = Stage::new();
        let node = stage.file(c"a");
        let holder = stage.view.broker.acquire_blocking(ask()).unwrap();
        let (broker, session) = (stage.broker.clone(), stage.view.broker.clone());
        let fate = thread::spawn(move || {
            session.release(holder.owner, None);
            session.break_lock(0, String::new()).unwrap();
            broker.revoke();
        });
        let number = open(&stage, node);
        fate.join().unwrap();
        // The view hears of it before it hears this answer, and the broker that it did before the next.
        stage.view.broker.break_lock(0, String::new()).unwrap();
        stage.view.broker.break_lock(0, String::new()).unwrap();
        let taken = stage.broker.is_free();
        let written = write_through(&stage, number, b"bytes");
        assert_eq!(written, taken.then_some(Errno::IO));
        let length = stage.source.path().join("a").metadata().unwrap().len();
        assert_eq!(length, if taken { 0 } else { 5 });
        let (lock_owner, flock_unlock) = (0, false);
        stage.call(node, Operation::Release { handle: number, lock_owner, flock_unlock });
        stage.end();
    });
}

/// N7: what is under way when a turn is taken away is done before the next begins.
#[test]
fn n7_nothing_is_written_any_more_when_the_next_is_let_in() {
    in_many_orders(|| {
        let stage = Stage::new();
        let node = stage.file(c"a");
        let number = open(&stage, node);
        let writers = [b"one", b"two"].map(|data| {
            let stage = stage.clone();
            thread::spawn(move || write_through(&stage, number, data))
        });
        stage.broker.revoke();
        let next = stage.view.broker.acquire_blocking(ask()).unwrap();
        let there = || std::fs::read(stage.source.path().join("a")).unwrap();
        let found = there();
        let answers = writers.map(|writer| writer.join().unwrap());
        assert_eq!(there(), found);
        assert_eq!(answers == [Some(Errno::IO); 2], found.is_empty());
        stage.view.broker.release(next.owner, None);
        let (lock_owner, flock_unlock) = (0, false);
        stage.call(node, Operation::Release { handle: number, lock_owner, flock_unlock });
        stage.end();
    });
}

/// N7: also what was kept for an open that walks its path once more.
#[test]
fn n7_nothing_is_opened_in_a_turn_that_others_were_given_while_the_view_slept() {
    in_many_orders(|| {
        let stage = Stage::before(Broker::strict());
        let (node, access) = (stage.file(c"a"), Access::Write);
        let file = stage.view.source.file_key(node).unwrap();
        for sleeps in [false, true] {
            let owner = stage.view.broker.acquire_blocking(ask()).unwrap().owner;
            let turn = Turn::of(owner);
            if sleeps {
                stage.sleep();
            }
            let kept = stage.view.kept_for(node, access, Kept { file, access, turn });
            assert_eq!(kept, (!sleeps).then_some(turn));
            kept.into_iter().for_each(|turn| stage.view.end_turn(turn, None));
        }
        stage.end();
    });
}
