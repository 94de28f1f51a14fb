//! Which names are gated, who says so, and readers behind an idle writer.

use std::fs;

use gate_tests::wait::{SOON, wait_until};
use gate_tests::{Actor, World};

#[test]
fn gate_toml_at_the_sources_root_says_what_is_gated() {
    let mut world = World::bare();
    world.seed("gate.toml", "policy = [\"*.out=none\", \"/free/=none\", \"/free/but=gated\"]\n");
    let view = mounted(&mut world, &[]);
    for name in ["a.out", "deep/er/b.out", "free/f"] {
        assert_free(&world, &view, name);
    }
    for name in ["a.txt", "free/but"] {
        assert_gated(&world, &view, name);
    }
}

#[test]
fn gate_toml_of_the_user_says_what_is_gated_and_the_source_and_flags_win() {
    let mut world = World::bare();
    let dir = world.home().join("home/.config/gate");
    fs::create_dir_all(&dir).unwrap();
    let rules = "policy = [\"*.a=none\", \"*.b=none\", \"*.c=none\"]\nread_wait = \"9s\"\n";
    fs::write(dir.join("gate.toml"), rules).unwrap();
    world.seed("gate.toml", "policy = [\"*.b=gated\", \"*.d=none\"]\nread_wait = \"8s\"\n");
    let view = mounted(&mut world, &["--policy", "*.c=gated", "--policy", "*.d=gated"]);
    assert_free(&world, &view, "f.a");
    for name in ["f.b", "f.c", "f.d"] {
        assert_gated(&world, &view, name);
    }
    fs::create_dir(world.home().join("second")).unwrap();
    let second = ["mount", "--foreground", "--read-wait", "7s", "source", "second"];
    let refusal = world.gate(second).run().refusal();
    let difference = "there read_wait 8s, here read_wait 7s; only there `*.c=gated *.d=gated`";
    assert!(refusal.contains(difference), "the source's file wins: {refusal}");
}

#[test]
fn what_gate_toml_may_not_say_is_refused_with_its_line() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    for (text, named) in [
        ("policy = []\nbroker_host = \"evil\"\n", "line 2"),
        ("\n\nread_weight = \"1s\"\n", "line 3"),
        ("read_wait = \"soon\"\n", "line 1"),
        ("policy = [\"*.log\"]\n", "*.log"),
        ("policy = [\"a[=none\"]\n", "a["),
    ] {
        world.seed("gate.toml", text);
        let outcome = world.gate(["mount", "--foreground", "source", "view"]).run();
        assert_eq!(outcome.code, Some(2), "{text}: {outcome}");
        let refusal = outcome.refusal();
        assert!(refusal.contains(named), "{text}: {refusal}");
    }
}

#[test]
fn holds_do_not_stop_what_is_not_gated() {
    let world = World::new();
    world.seed("d/server.log", "");
    world.seed("d/f", "");
    let mut holder = world.actor_under_hold(&world.view(), ["d"]);
    let mut other = world.actor(&world.view());
    other.ask(["append", "d/server.log", "x"]).unwrap();
    other.ask(["unlink", "d/server.log"]).unwrap();
    other.tell(["open", "r", "d/f"]);
    world.await_waiting("d/f", 1);
    holder.leave();
    other.opened();
}

/// The name at the open decides and stays with the handle.
#[test]
fn a_handle_keeps_what_its_name_was_when_it_was_opened() {
    let world = World::new();
    world.seed("f.log", "");
    let [mut first, mut second] = [world.actor(&world.view()), world.actor(&world.view())];
    let free = first.open("w", "f.log");
    second.ask(["rename", "f.log", "f.txt"]).unwrap();
    let gated = second.open("w", "f.txt");
    first.write(free, "x").unwrap();
    let mut third = world.actor(&world.view());
    third.tell(["open", "w", "f.txt"]);
    world.await_waiting("f.txt", 1);
    second.close(gated);
    third.opened();
}

/// The kernel does not say by which of its names a file is opened.
#[test]
fn a_file_that_has_a_gated_name_too_takes_turns_by_each_of_its_names() {
    let world = World::new();
    world.seed("d/f", "");
    fs::hard_link(world.source().join("d/f"), world.source().join("f.log")).unwrap();
    let [mut holder, mut next] = [(); 2].map(|()| world.actor(&world.view()));
    let held = holder.open("rw", "d/f");
    next.ask(["stat", "f.log"]).unwrap();
    next.tell(["open", "rw", "d/f"]);
    world.await_waiting("d/f", 1);
    holder.close(held);
    next.opened();
}

#[test]
fn strict_gates_what_is_shipped_as_not_gated() {
    let view_of = |args: &[&str]| {
        let mut world = World::bare();
        let view = mounted(&mut world, args);
        (world, view)
    };
    let (world, view) = view_of(&[]);
    for name in ["a.log", "target/x", "b.sqlite-wal", "apt.lock"] {
        assert_free(&world, &view, name);
    }
    let (world, view) = view_of(&["--mode", "strict"]);
    for name in ["a.log", "target/x", "b.sqlite-wal", "apt.lock"] {
        assert_gated(&world, &view, name);
    }
}

#[test]
fn a_reader_passes_an_idle_writer_on_record_and_never_a_hold() {
    let world = World::with_view(["--read-wait", "300ms"]);
    world.seed("idle", "text");
    world.seed("held", "text");
    let mut holder = world.actor_under_hold(&world.view(), ["held"]);
    let mut writer = world.actor(&world.view());
    writer.open("w", "idle");
    // It waits for longer than the one that passes, and stays.
    let mut behind_hold = world.actor(&world.view());
    behind_hold.tell(["open", "r", "held"]);
    world.await_waiting("held", 1);
    let mut reader = world.actor(&world.view());
    let fd = reader.open("r", "idle");
    assert_eq!(reader.read(fd, 9), Ok("text".to_owned()));
    assert!(behind_hold.is_busy(), "a reader passed a hold");
    assert_eq!(world.board().held("idle").count(), 1, "it reads without a grant");
    let why = world.gate(["why"]).args([world.view().join("idle")]).run().success();
    assert!(why.contains("read without a turn"), "{why}");
    let mut other = world.actor(&world.view());
    other.tell(["open", "w", "idle"]);
    world.await_waiting("idle", 1);
    assert!(other.is_busy(), "a writer passed a writer");
    holder.leave();
    behind_hold.opened();
}

/// What waits for an open file and for a hold waits for the hold.
#[test]
fn a_reader_behind_a_waiting_hold_does_not_pass_it() {
    let world = World::with_view(["--read-wait", "100ms"]);
    world.seed("d/f", "");
    world.seed("g", "");
    let [mut writer, mut other] = [world.actor(&world.view()), world.actor(&world.view())];
    let fd = writer.open("w", "d/f");
    other.open("w", "g");
    let mut hold = world.gate(["hold", "d", "--", "cat"]).dir(world.view()).start_with_input();
    let input = hold.stdin();
    world.await_waiting("d", 1);
    let mut reader = world.actor(&world.view());
    reader.tell(["open", "r", "d/f"]);
    world.await_waiting("d/f", 1);
    world.actor(&world.view()).open("r", "g");
    assert!(reader.is_busy(), "a reader passed a hold that waits");
    writer.close(fd);
    world.await_held("d", 1);
    assert!(reader.is_busy());
    drop(input);
    hold.finish(SOON).success();
    reader.opened();
}

#[test]
fn a_read_wait_of_zero_means_for_ever() {
    let mut world = World::with_view(["--read-wait", "0"]);
    let source = world.source();
    let second = world.home().join("second");
    fs::create_dir(&second).unwrap();
    let refusal = world.gate(["mount", "--foreground", "source", "second"]).run().refusal();
    assert!(refusal.contains("read_wait for ever"), "{refusal}");
    world.mount(&source, &second, ["--read-wait", "0s"]);
}

fn mounted(world: &mut World, args: &[&str]) -> std::path::PathBuf {
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, args);
    view
}

#[track_caller]
fn assert_free(world: &World, view: &std::path::Path, name: &str) {
    world.seed(name, "");
    let (mut first, mut second) = two(world, view);
    first.open("w", name);
    second.open("w", name);
    assert!(world.board().locks.is_empty(), "{name} took a turn");
}

#[track_caller]
fn assert_gated(world: &World, view: &std::path::Path, name: &str) {
    world.seed(name, "");
    let (mut first, mut second) = two(world, view);
    let fd = first.open("w", name);
    second.tell(["open", "w", name]);
    world.await_waiting(name, 1);
    first.close(fd);
    let fd = second.opened();
    second.close(fd);
    wait_until(SOON, "nothing is held", || world.board().locks.is_empty());
}

fn two(world: &World, view: &std::path::Path) -> (Actor, Actor) {
    (world.actor(view), world.actor(view))
}
