//! Seeing who holds and who waits.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

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
            "what to do: `gate recall ",
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
    let json = world.gate(["why", "--json"]).args([world.view().join("d/f")]).run().success();
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let locks = json["locks"].take();
    let locks = locks.as_array().unwrap().iter().map(|lock| [&lock["op"], &lock["reason"]]);
    let expected = [["hold", "nightly build"], ["open", ""]];
    assert_eq!(serde_json::json!(locks.collect::<Vec<_>>()), serde_json::json!(expected));
    let expected = serde_json::json!({
        "version": 1, "space": "default", "path": "d/f", "locks": null, "past": [],
        "ungated_by": null, "overwritten": [], "advice": [],
    });
    assert_eq!(json, expected);
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
    let mut alike = world.actor(&world.view());
    world.seed(r"n\xff\xfe", "");
    alike.open("w", r"n\xff\xfe");
    let shown = world.gate(["locks"]).run().success();
    assert!(shown.contains(r"n\\xff\\xfe"), "that is another: {shown}");
    let told = world.gate(["locks", "--json"]).run().success();
    assert!(told.contains(r#""path":[110,255,254]"#), "a list of its bytes: {told}");
    assert!(told.contains(r#""path":"n\\xff\\xfe""#), "{told}");
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

/// Where the broker keeps its state, too.
#[test]
fn a_broker_at_a_name_that_is_no_text_is_found_by_commands() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    let state = world.state().join(OsStr::from_bytes(b"n\xff\xfe"));
    let gate = |words: &[&str]| world.gate(words).env("GATE_STATE_DIR", &state).run().success();
    gate(&["mount", "source", "view"]);
    let report: serde_json::Value = serde_json::from_str(&gate(&["status", "--json"])).unwrap();
    assert_eq!(report["broker"]["state_dir"], serde_json::json!(state.as_os_str().as_bytes()));
    assert_eq!(state_in(&report, &world.view()), "ok");
    assert!(gate(&["why", "view/f"]).contains("nobody holds it"));
    gate(&["umount", "view"]);
    gate(&["daemon", "stop"]);
}

/// What `gate status --json` says of the world's view.
#[track_caller]
fn state_of_view(world: &World) -> String {
    let report = world.gate(["status", "--json"]).run().success();
    state_in(&serde_json::from_str(&report).unwrap(), &world.view()).to_owned()
}

/// What such a report says of the view at `point`, one of the machine's.
#[track_caller]
fn state_in<'r>(report: &'r serde_json::Value, point: &Path) -> &'r str {
    let mut views = report["mounts"].as_array().unwrap().iter();
    let view = views.find(|view| view["mountpoint"].as_str() == point.to_str());
    view.unwrap_or_else(|| panic!("{report}"))["state"].as_str().unwrap()
}

#[test]
fn status_tells_how_each_view_is() {
    let mut world = World::new();
    assert_eq!(state_of_view(&world), "ok");
    std::fs::remove_dir_all(world.source()).unwrap();
    assert_eq!(state_of_view(&world), "source removed");
    let checks = world.gate(["doctor"]).args([world.view()]).run();
    assert_eq!(checks.code, Some(1), "{checks}");
    assert!(checks.stdout.contains("the directory behind it was removed"), "{checks}");
    world.stop_broker();
    std::fs::create_dir(world.source()).unwrap();
    world.start_broker([""; 0]);
    world.server_of(&world.view()).signal(Signal::KILL);
    wait_until(SOON, "its server is gone", || !world.server_of(&world.view()).is_running());
    wait_until(SOON, "it is told", || state_of_view(&world) == "dead");
    let told = world.gate(["status"]).run().success();
    assert!(told.contains("dead") && told.contains("`gate doctor`"), "{told}");
    let refused = world.gate(["why"]).args([world.view().join("f")]).run().refusal();
    assert!(refused.contains("has died") && !refused.contains("check the path"), "{refused}");
    let view = world.view();
    world.bury(&view);
}

#[test]
fn status_counts_views_and_holds_as_the_clients_of_a_space() {
    let world = World::new();
    let mut hold = world.actor_under_hold(&world.view(), ["f"]);
    let report = world.gate(["status", "--json"]).run().success();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let space = &report["broker"]["spaces"][0];
    assert_eq!((&space["clients"], &space["views"]), (&2.into(), &serde_json::Value::Null));
    hold.leave();
}

#[test]
fn what_is_closed_to_a_user_is_not_taken_for_absent() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = World::new();
    world.script(world.home(), "chmod 755 .; chmod 700 state; mkdir -m 700 closed").run().success();
    let gate = world.home().join("gate");
    std::fs::copy(world.program("gate"), &gate).unwrap();
    let as_user = |words: &[&str]| {
        let other = ["--reuid=5", "--regid=60", "--clear-groups"];
        let run = world.command("setpriv".as_ref()).args(other).args([&gate]).args(words);
        let run = run.without_env("GATE_BROKER_HOST").without_env("GATE_BROKER_PORT");
        run.env("HOME", "/nonexistent").dir("/").run()
    };
    let path = |name: &str| world.home().join(name).to_str().unwrap().to_owned();
    let refused = as_user(&["umount", &path("view")]).refusal();
    assert!(refused.contains("another user's view"), "{refused}");
    let told = as_user(&["status"]).success();
    assert!(told.contains("ermission denied") && !told.contains("none runs"), "{told}");
    let refused = as_user(&["locks"]).refusal();
    assert!(refused.contains("as the user whose broker it is"), "{refused}");
    let refused = as_user(&["mount", &path("closed")]).refusal();
    assert!(
        refused.contains("may not look into it") && !refused.contains("gate.toml"),
        "{refused}"
    );
}
