//! Seeing who holds and who waits.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use gate_tests::World;
use gate_tests::wait::{SOON, wait_until};
use rustix::process::Signal;

#[test]
fn why_names_who_holds_who_waits_and_what_to_do() {
    let world = World::new();
    world.seed("d/f", "");
    let [mut holder, mut other] = [world.actor(&world.view()), world.actor(&world.view())];
    holder.open("w", "d/f");
    other.tell(["open", "r", "d/f"]);
    world.await_waiting("d/f", 1);
    for path in [world.view().join("d/f"), world.source().join("d/f")] {
        let why = world.gate(["why"]).args([&path]).run().success();
        for word in [
            &format!("process {} holds d/f to write", holder.pid()),
            &format!("process {} waits for d/f to read", other.pid()),
            &format!("end process {}", holder.pid()),
            "what to do: let ",
            "place 1",
        ] {
            assert!(why.contains(word), "{word}: {why}");
        }
    }
    let elsewhere = world.gate(["why"]).args([world.twin().join("f")]).run();
    assert_eq!(elsewhere.code, Some(2), "{elsewhere}");
    let _ = elsewhere.refusal();
}

#[test]
fn a_hold_is_shown_with_its_reason_and_its_command() {
    let world = World::new();
    let reason = ["--reason", "nightly build", "d"];
    world.seed("d/f", "");
    let mut holder = world.actor_under_hold(&world.view(), reason);
    let why = world.gate(["why"]).args([world.view().join("d")]).run().success();
    assert!(why.contains("nightly build") && why.contains("actor"), "{why}");
    // That a command works below its hold is no news.
    holder.open("w", "d/f");
    let why = world.gate(["why"]).args([world.view().join("d/f")]).run().success();
    assert!(why.contains("nightly build") && !why.contains("lately"), "{why}");
    holder.leave();
}

#[test]
fn locks_are_shown_at_and_beneath_a_path() {
    let world = World::new();
    for name in ["d/f", "e/g"] {
        world.seed(name, "");
    }
    let mut actor = world.actor(&world.view());
    actor.open("w", "d/f");
    actor.open("r", "e/g");
    let locks = |path: &str| world.gate(["locks", path]).dir(world.view()).run().success();
    let all = world.gate(["locks"]).run().success();
    assert!(all.contains("d/f") && all.contains("e/g"), "{all}");
    for path in ["d", "d/f"] {
        let some = locks(path);
        assert!(some.contains("d/f") && !some.contains("e/g"), "{path}: {some}");
    }
}

#[test]
fn locks_that_are_watched_show_each_change() {
    let world = World::new();
    world.seed("f", "");
    let watch = world.gate(["locks", "--watch"]).start();
    wait_until(SOON, "the first board", || watch.so_far().contains("nobody holds anything"));
    let mut holder = world.actor(&world.view());
    let fd = holder.open("w", "f");
    wait_until(SOON, "the holder is shown", || watch.so_far().contains("held"));
    let mut other = world.actor(&world.view());
    other.tell(["open", "w", "f"]);
    wait_until(SOON, "the waiter is shown", || watch.so_far().contains("waiting #1"));
    holder.close(fd);
    let fd = other.opened();
    other.close(fd);
    let is_empty_again = || {
        let said = watch.so_far();
        let last = said.lines().last();
        last.is_some_and(|line| line.contains("nobody holds anything"))
    };
    wait_until(SOON, "the last board is empty again", is_empty_again);
    watch.signal(Signal::INT);
    assert_eq!(watch.finish(SOON).signal, Some(Signal::INT.as_raw()));
}

#[test]
fn locks_that_are_watched_in_a_terminal_grow_older() {
    let world = World::new();
    world.seed("f", "");
    let mut holder = world.actor(&world.view());
    holder.open("w", "f");
    let line = format!("{} locks --watch", world.program("gate").display());
    let script = world.command("script".as_ref()).args(["-qefc", &line, "/dev/null"]);
    let watch = script.start_with_input();
    wait_until(SOON, "the holder is shown again and again", || {
        watch.so_far().matches("held").count() > 2
    });
    // The end of the terminal is that of what runs in it.
    watch.signal(Signal::TERM);
    let _ = watch.finish(SOON);
}

#[test]
fn names_that_are_no_text_are_held_and_shown() {
    let world = World::new();
    let name = OsString::from_vec(b"n\xff\xfe".to_vec());
    std::fs::write(world.source().join(&name), "").unwrap();
    let gate = world.program("gate");
    let script = r#"exec "$0" hold "$1" -- bash -c 'echo in; echo x >> "$0"; read -r go' "$1""#;
    let mut hold = world.script(&world.view(), script).args([gate.as_os_str(), &name]);
    hold = hold.within(SOON);
    let mut hold = hold.start_with_input();
    let input = hold.stdin();
    wait_until(SOON, "it is held", || hold.so_far().contains("in"));
    let mut other = world.actor(&world.view());
    other.tell(["open".as_ref(), "w".as_ref(), name.as_os_str()]);
    wait_until(SOON, "the other waits", || {
        world.board().locks.iter().any(|lock| lock.state == "waiting")
    });
    let shown = world.gate(["locks"]).run().success();
    assert!(shown.contains(r"n\xff\xfe"), "{shown}");
    let why = world.gate(["why"]).args([world.view().join(&name)]).run().success();
    assert!(why.contains("waits for"), "{why}");
    drop(input);
    let _ = hold.finish(SOON);
    other.opened();
}

/// Sources, mount points and what lies between a source and the one that it is in.
#[test]
fn views_at_names_that_are_no_text_are_found_by_commands() {
    let mut world = World::new();
    let name = OsStr::from_bytes(b"n\xff\xfe");
    let (source, point) = (world.source().join(name), world.home().join(name));
    for dir in [&source, &point] {
        std::fs::create_dir(dir).unwrap();
    }
    std::fs::write(source.join("f"), "text").unwrap();
    world.mount(&source, &point, [""; 0]);
    let mut holder = world.actor_under_hold(&point, ["f"]);
    holder.open("w", "f");
    let mut other = world.actor(&world.view().join(name));
    other.tell(["open", "r", "f"]);
    wait_until(SOON, "the other view's open waits", || {
        world.gate(["why"]).args([point.join("f")]).run().success().contains("waits for")
    });
    holder.leave();
    other.opened();
}
