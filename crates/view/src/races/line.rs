//! Opens that wait in line, and the signals that end their waiting.

use gate_api::process;
use gate_api::staged::in_many_orders;
use gate_core::lock::claim::Process;
use gate_core::lock::want::Access;
use gate_fuse::{Errno, NodeId};
use shuttle::thread::{self, JoinHandle};

use super::{Stage, Then, ask};
use crate::line::Spot;

/// Opens a file, while a signal may come at any time.
fn open(stage: &Stage, number: u64, signal: Option<Then>) {
    let process = process_that(signal != Some(Then::Dead));
    let spot = Spot { process, node: NodeId(number), access: Access::Write };
    let mut signals = usize::from(signal.is_some());
    loop {
        let (unique, reply) = stage.kernel.request();
        if signals > 0 {
            signals -= 1;
            // It may overtake its request between two workers.
            let kernel = stage.kernel.clone();
            thread::spawn(move || kernel.interrupt(unique));
        }
        stage.view.wait_in_line(spot, ask(), reply, stage.work());
        match (stage.kernel.answer(unique).error, signal) {
            (None, _) | (Some(Errno::INTR), Some(Then::Dead)) => return,
            (Some(Errno::INTR), Some(Then::Again)) => {}
            (other, _) => panic!("{other:?}"),
        }
    }
}

/// Returns a process that runs, or one that does not.
fn process_that(runs: bool) -> Process {
    let own = process::own();
    if runs { own } else { Process { start: own.start + 1, ..own } }
}

fn opener(stage: &Stage, number: u64, signal: Option<Then>) -> JoinHandle<()> {
    let stage = stage.clone();
    thread::spawn(move || open(&stage, number, signal))
}

#[test]
fn everybody_in_line_gets_in_though_signals_come() {
    in_many_orders(|| {
        let stage = Stage::new();
        let signals = [None, Some(Then::Again), Some(Then::Again)];
        let openers = signals.iter().zip(1..).map(|(signal, at)| opener(&stage, at, *signal));
        for opener in openers.collect::<Vec<_>>() {
            opener.join().unwrap();
        }
        stage.end();
    });
}

#[test]
fn n5_who_is_killed_in_line_leaves_neither_its_place_nor_its_turn() {
    in_many_orders(|| {
        let stage = Stage::new();
        let killed = [opener(&stage, 1, Some(Then::Dead)), opener(&stage, 2, Some(Then::Dead))];
        for opener in killed {
            opener.join().unwrap();
        }
        stage.end();
    });
}

#[test]
fn two_threads_of_a_process_that_are_both_interrupted_leave_no_turn_behind() {
    in_many_orders(|| {
        let stage = Stage::new();
        let holder = stage.view.broker.acquire_blocking(ask()).unwrap();
        let threads = [opener(&stage, 1, Some(Then::Dead)), opener(&stage, 1, Some(Then::Dead))];
        stage.view.broker.release(holder.owner, None);
        for thread in threads {
            thread.join().unwrap();
        }
        stage.end();
    });
}

/// The clock stands still: a signal costs nobody its place.
#[test]
fn n2_who_is_interrupted_and_comes_again_keeps_its_place() {
    in_many_orders(|| {
        let stage = Stage::new();
        let holder = stage.view.broker.acquire_blocking(ask()).unwrap();
        let openers = [opener(&stage, 1, Some(Then::Again)), opener(&stage, 2, None)];
        stage.view.broker.release(holder.owner, None);
        for opener in openers {
            opener.join().unwrap();
        }
        // Owners are numbered as they ask: nobody has asked twice.
        let next = stage.view.broker.acquire_blocking(ask()).unwrap();
        assert_eq!(next.owner, holder.owner + 3);
        stage.view.broker.release(next.owner, None);
        stage.end();
    });
}
