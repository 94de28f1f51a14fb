//! Holds whose broker was away, and holds that were away themselves.

use std::fs;

use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_for, wait_until};
use gate_tests::{World, kernel};
use rustix::process::Signal;

use super::held;

#[test]
fn a_hold_and_who_waits_for_it_outlive_a_restart_of_the_broker() {
    let mut world = World::new();
    world.seed("d/f", "");
    let mut holder = world.actor_under_hold(&world.view(), ["d"]);
    let waiting = world.gate(["hold", "d/f", "--", "true"]).dir(world.view()).start();
    world.await_waiting("d/f", 1);
    let before = world.board();
    for _ in 0..3 {
        world.kill_broker();
        holder.ask(["stat", "d/f"]).unwrap();
        world.start_broker([""; 0]);
        wait_until(SOON, "all are back", || {
            let board = world.board();
            board.held("d").count() == 1 && board.waiting("d/f").count() == 1
        });
        let tickets = |locks: &[gate_tests::locks::Lock]| {
            locks.iter().map(|lock| lock.ticket).collect::<Vec<_>>()
        };
        assert_eq!(tickets(&world.board().locks), tickets(&before.locks));
    }
    holder.ask(["append", "d/f", "x"]).unwrap();
    assert!(waiting.is_running());
    holder.leave();
    assert_eq!(waiting.finish(SOON).code, Some(0));
}

/// Whoever comes back with a request the broker has not seen is kin of whom it was kin before.
#[test]
fn what_a_command_below_a_hold_asks_during_an_outage_is_not_stopped_by_its_hold() {
    let mut world = World::new();
    world.seed("d/f", "");
    let mut holder = world.actor_under_hold(&world.view(), ["d"]);
    world.kill_broker();
    holder.tell(["append", "d/f", "x"]);
    let mut other = world.actor(&world.view());
    other.tell(["append", "d/f", "y"]);
    world.start_broker([""; 0]);
    assert_eq!(holder.answer(), Ok(String::new()));
    assert!(other.is_busy());
    holder.leave();
    assert_eq!(other.answer(), Ok(String::new()));
    assert_eq!(world.source_text("d/f"), "xy");
}

#[test]
fn who_waits_for_a_hold_while_the_broker_is_gone_for_a_lease_is_told_so() {
    let mut world = World::bare();
    world.start_broker(["--lease-ms", "1000"]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    world.seed("f", "");
    let _holder = world.actor_under_hold(&view, ["f"]);
    let waiting = world.gate(["hold", "f", "--", "true"]).dir(&view).start();
    world.await_waiting("f", 1);
    world.kill_broker();
    // A lease, and somewhat more.
    let outcome = waiting.finish(SOON * 3);
    assert_eq!(outcome.code, Some(2), "{outcome}");
    assert!(outcome.refusal().contains("away for longer than a lease"));
    let late = world.gate(["hold", "f", "--", "true"]).dir(&view).run();
    assert_eq!(late.code, Some(2), "{late}");
    let _ = late.refusal();
    world.start_broker(["--lease-ms", "1000"]);
}

/// The kernel answers for a client that is stopped: over TCP, too, only its own words count.
#[test]
fn n5_a_hold_that_is_stopped_beyond_its_lease_holds_up_nobody_over_tcp_either() {
    let world = World::new();
    // Nobody comes in another way.
    fs::remove_file(world.state().join("gate.sock")).unwrap();
    world.seed("f", "");
    let mut hold = held(&world, &["f", "--", "sh", "-c", "echo ready; read _ || true"]);
    let input = hold.stdin();
    hold.stop();
    let mut other = world.actor(&world.view());
    other.tell(["open", "w", "f"]);
    // A lease, and somewhat more.
    other.answer_by(SOON * 3).unwrap();
    hold.signal(Signal::CONT);
    wait_until(SOON, "it learns", || hold.so_far().contains("the hold was taken away"));
    drop(input);
    let outcome = hold.finish(SOON);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    other.leave();
}

/// By the variable, or by the flag, which wins.
#[test]
fn a_hold_that_is_stopped_has_the_lease_it_asked_for() {
    let world = World::new();
    let files = ["f", "g", "h"];
    files.iter().for_each(|name| world.seed(name, ""));
    let cases = [
        (&["f"][..], "200", "first"),
        (&["g", "--lease-ms", "200"], "3600000", "second"),
        (&["h", "--lease-ms", "3600000"], "200", "third"),
    ];
    let holds = cases.map(|(args, lease_ms, word)| {
        let command = ["--", "sh", "-c", &format!("echo {word}; read _ || true")];
        let hold = world.gate(["hold"]).args(args).args(command).env("GATE_LEASE_MS", lease_ms);
        let hold = hold.dir(world.view()).start_with_input();
        wait_until(SOON, "it holds", || hold.so_far().contains(word));
        hold
    });
    holds.iter().for_each(Running::stop);
    let mut others = files.map(|name| {
        let mut other = world.actor(&world.view());
        other.tell(["open", "w", name]);
        other
    });
    let [first, second, third] = &mut others;
    first.opened();
    second.opened();
    assert!(third.is_busy());
    for hold in &holds {
        hold.signal(Signal::CONT);
    }
    let [first, second, third] = holds.map(|hold| hold.finish(SOON).code);
    assert_eq!((first, second, third), (Some(1), Some(1), Some(0)));
}

/// Both wait for it when it goes on, that its turn was taken away and that its command ended.
#[test]
fn a_hold_that_was_taken_away_while_it_was_stopped_says_so_though_its_command_has_ended() {
    let world = World::new();
    world.seed("f", "");
    let (mut hold, command) = held_by(&world);
    hold.stop();
    let ticket = world.board().held("f").next().unwrap().ticket.to_string();
    world.gate(["break", &ticket, "--reason", "stuck"]).run().success();
    drop(hold.stdin());
    wait_until(SOON, "the command ends", || kernel::is_dead(command));
    hold.signal(Signal::CONT);
    let outcome = hold.finish(SOON);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stderr.contains("the hold was taken away"), "{outcome}");
    assert!(outcome.stderr.contains("somebody broke it: stuck"), "{outcome}");
}

#[test]
fn a_hold_whose_command_ends_during_an_outage_says_what_is_known() {
    let mut world = World::new();
    world.seed("f", "");
    let (mut hold, _) = held_by(&world);
    signal_broker(&world, Signal::STOP);
    drop(hold.stdin());
    let outcome = hold.finish(SOON);
    signal_broker(&world, Signal::CONT);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    assert!(outcome.stderr.contains("the broker does not answer"), "{outcome}");
    // Nobody is let in while none runs.
    let (mut hold, _) = held_by(&world);
    world.kill_broker();
    drop(hold.stdin());
    let outcome = hold.finish(SOON);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome}");
    world.start_broker([""; 0]);
}

#[test]
fn a_hold_that_was_stopped_beyond_its_lease_does_not_say_that_it_stood_before_it_knows() {
    let world = World::new();
    world.seed("f", "");
    let (mut hold, command) = held_by(&world);
    hold.stop();
    drop(hold.stdin());
    wait_until(SOON, "the command ends", || kernel::is_dead(command));
    let mut other = world.actor(&world.view());
    other.tell(["open", "w", "f"]);
    other.answer_by(SOON * 3).unwrap();
    signal_broker(&world, Signal::STOP);
    hold.signal(Signal::CONT);
    let outcome = hold.finish(SOON);
    signal_broker(&world, Signal::CONT);
    assert_eq!(outcome.code, Some(2), "{outcome}");
    assert!(outcome.stderr.contains("may have been taken away"), "{outcome}");
}

fn signal_broker(world: &World, signal: Signal) {
    let broker = rustix::process::Pid::from_raw(world.broker_pid()).unwrap();
    rustix::process::kill_process(broker, signal).unwrap();
}

/// Starts a hold of `f` whose command lives until its input ends; returns the command's process,
/// too.
fn held_by(world: &World) -> (Running, i32) {
    let hold = held(world, &["f", "--", "sh", "-c", "echo ready $$; read _ || true"]);
    let command = || hold.so_far().trim_end().strip_prefix("ready ")?.parse().ok();
    let command = wait_for(SOON, "the command says who it is", command);
    (hold, command)
}
