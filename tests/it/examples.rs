//! The examples of both clients do what they say.

use std::io::Write;
use std::path::Path;

use gate_tests::World;
use gate_tests::run::{Run, Running};
use gate_tests::wait::wait_until;

use crate::client;

/// Prepares an example of the client for Rust.
fn rust(world: &World, name: &str) -> Run {
    let program = world.program("gate").with_file_name("examples").join(name);
    assert!(program.is_file(), "{name} is not built: run `cargo xtask test`, which does");
    world.command(&program)
}

/// Prepares an example of the client for Python.
fn python(world: &World, name: &str) -> Run {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/python/examples");
    client::command(world).args([examples.join(name)])
}

#[track_caller]
fn await_said(running: &Running, text: &str) {
    wait_until(client::PATIENCE, text, || running.so_far().contains(text));
}

#[track_caller]
fn check_hold(world: &World, example: Run) {
    let mut holder = example.start_with_input();
    let mut input = holder.stdin();
    await_said(&holder, "let in, fencing token");
    let mut actor = world.actor(&world.view());
    actor.tell(["open", "w", "d/f"]);
    world.await_waiting("d/f", 1);
    writeln!(input).unwrap();
    let fd = actor.opened();
    holder.finish(client::PATIENCE).success();
    actor.close(fd);
}

#[test]
fn the_examples_hold_until_enter_is_pressed() {
    let world = World::new();
    world.seed("d/f", "");
    world.seed("g", "");
    let names = ["d", "g"];
    check_hold(&world, rust(&world, "hold").args([world.source()]).args(names));
    check_hold(&world, python(&world, "hold.py").args(names).dir(world.view()));
}

#[test]
fn the_examples_say_so_when_they_lost_their_hold() {
    let world = World::new();
    world.seed("g", "");
    let rust = rust(&world, "hold").args([world.source()]);
    for example in [rust, python(&world, "hold.py").dir(world.view())] {
        let mut holder = example.args(["g"]).start_with_input();
        let mut input = holder.stdin();
        await_said(&holder, "let in, fencing token");
        let ticket = world.board().held("g").next().unwrap().ticket.to_string();
        world.gate(["break", &ticket, "--reason", "stuck"]).run().success();
        await_said(&holder, "the hold was taken away");
        writeln!(input).unwrap();
        let outcome = holder.finish(client::PATIENCE);
        assert_eq!(outcome.code, Some(1), "{outcome}");
        assert!(outcome.stderr.contains("to be done again"), "{outcome}");
    }
}

#[test]
fn the_examples_show_who_holds_and_who_waits() {
    let world = World::new();
    world.seed("f", "");
    let watchers = [rust(&world, "watch").start(), python(&world, "watch.py").start()];
    for watcher in &watchers {
        await_said(watcher, "--");
    }
    let mut holder = world.actor(&world.view());
    holder.open("w", "f");
    let mut waiter = world.actor(&world.view());
    waiter.tell(["open", "r", "f"]);
    for watcher in &watchers {
        await_said(watcher, "holds f");
        await_said(watcher, "waits for f");
    }
}
