//! The log of what happened, for who asks later and who follows.

use std::path::Path;

use gate_tests::World;
use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// One line of `gate log --json`.
fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What happened at a path, event by event.
fn story(events: &[Value], path: &str) -> Vec<String> {
    let at = events.iter().filter(|event| event["path"] == path);
    at.map(|event| event["event"].as_str().unwrap().to_owned()).collect()
}

/// Cursors of one run follow one another, and runs begin at 1.
#[track_caller]
fn assert_gap_free(events: &[Value]) {
    let cursor = |event: &Value| {
        let (epoch, number) = event["cursor"].as_str().unwrap().split_once('.').unwrap();
        (epoch.parse::<u64>().unwrap(), number.parse::<u64>().unwrap())
    };
    for pair in events.windows(2) {
        let [(epoch, number), after] = [cursor(&pair[0]), cursor(&pair[1])];
        let follows = after == (epoch, number + 1) || after == (epoch + 1, 1);
        assert!(follows, "{} is followed by {}", pair[0], pair[1]);
    }
}

fn follow(world: &World, args: &[&str]) -> Running {
    let follower = world.gate(["log", "--follow", "--json"]).args(args).start();
    wait_until(SOON, "the follower has begun", || follower.so_far().contains("broker-started"));
    follower
}

#[track_caller]
fn end(follower: Running) -> Vec<Value> {
    follower.signal(Signal::INT);
    let outcome = follower.finish(SOON);
    assert_eq!(outcome.stderr, "", "{outcome}");
    events(&outcome.stdout)
}

#[test]
fn a_follower_sees_a_wait_a_grant_and_a_release_in_order() {
    let world = World::new();
    world.seed("d/f", "");
    let follower = follow(&world, &[]);
    let [mut a, mut b] = [world.actor(&world.view()), world.actor(&world.view())];
    let fd = a.open("w", "d/f");
    b.tell(["open", "w", "d/f"]);
    world.await_waiting("d/f", 1);
    a.close(fd);
    let fd = b.opened();
    b.close(fd);
    let expected = ["granted", "waiting", "released", "granted", "released"];
    wait_until(SOON, "the story is told", || {
        let so_far = follower.so_far();
        let whole = so_far.rfind('\n').map_or("", |end| &so_far[..end]);
        story(&events(whole), "d/f").len() >= expected.len()
    });
    let told = end(follower);
    assert_gap_free(&told);
    assert_eq!(story(&told, "d/f"), expected);
    let waited = told.iter().find(|event| event["event"] == "granted" && event["pid"] == b.pid());
    let waited = waited.unwrap();
    assert!(waited["waited_us"].as_u64().unwrap() > 0, "{waited}");
    assert_eq!((&waited["mode"], &waited["op"]), (&"write".into(), &"open".into()));
    assert!(waited["token"].is_string() && waited["ticket"].is_u64(), "{waited}");
}

#[test]
fn what_happened_at_a_path_is_told_from_the_view_and_from_the_source() {
    let world = World::new();
    for name in ["d/f", "e"] {
        world.seed(name, "");
    }
    let mut actor = world.actor(&world.view());
    for name in ["d/f", "e"] {
        let fd = actor.open("w", name);
        actor.close(fd);
    }
    world.await_idle();
    let log = |path: &Path| world.gate(["log"]).args([path]).run().success();
    for top in [world.view(), world.source()] {
        let told = log(&top.join("d"));
        for word in ["open d/f to write", "was let in", "let go after", "the broker began"] {
            assert!(told.contains(word), "{word}: {told}");
        }
        assert!(!told.contains(" e "), "{told}");
    }
    let last = world.gate(["log", "--limit", "1", "--json"]).run().success();
    assert_eq!(events(&last).len(), 1);
    let elsewhere = world.gate(["log"]).args([world.twin()]).run();
    assert_eq!(elsewhere.code, Some(2), "{elsewhere}");
    let _ = elsewhere.refusal();
}

#[test]
fn the_log_and_its_followers_go_on_over_a_restart() {
    let mut world = World::new();
    world.seed("f", "");
    let mut actor = world.actor(&world.view());
    let fd = actor.open("w", "f");
    actor.close(fd);
    world.await_idle();
    let follower = follow(&world, &[]);
    world.stop_broker();
    world.start_broker([""; 0]);
    let fd = actor.open("w", "f");
    actor.close(fd);
    wait_until(SOON, "the new run is told of", || {
        let so_far = follower.so_far();
        so_far.matches("broker-started").count() == 2 && so_far.matches("released").count() == 2
    });
    let told = end(follower);
    assert_gap_free(&told);
    let runs: Vec<_> = told.iter().filter_map(|event| event["former"].as_str()).collect();
    assert_eq!(runs, ["none", "whole"]);
    // A killed one leaves a run without an end, which the next says.
    world.kill_broker();
    world.start_broker([""; 0]);
    let all = events(&world.gate(["log", "--json", "--since", "0.0"]).run().success());
    assert_gap_free(&all);
    let last = all.iter().rfind(|event| event["event"] == "broker-started").unwrap();
    assert_eq!(last["former"], "cut");
    // And from a record on nothing is told twice.
    let middle = all.len() / 2;
    let since = all[middle]["cursor"].as_str().unwrap();
    let rest = events(&world.gate(["log", "--json", "--since", since]).run().success());
    assert_eq!(rest[0], all[middle + 1]);
}

#[test]
fn why_remembers_over_a_restart() {
    let mut world = World::new();
    world.seed("f", "");
    let mut holder = world.actor_under_hold(&world.view(), ["f"]);
    let refused = world.gate(["hold", "-w", "0.05", "f", "--", "true"]).dir(world.view()).run();
    assert_eq!(refused.code, Some(124), "{refused}");
    let tell = || world.gate(["why"]).args([world.view().join("f")]).run().success();
    assert!(tell().contains("was refused: it waited as long as it was allowed to"), "{}", tell());
    holder.leave();
    let _ = holder.end(SOON);
    world.stop_broker();
    world.start_broker([""; 0]);
    let told = world.gate(["why"]).args([world.view().join("f")]).run().success();
    assert!(told.contains("was refused: it waited as long as it was allowed to"), "{told}");
}

#[test]
fn a_log_of_another_release_is_refused_with_the_way_out() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.stop_broker();
    let path = world.state().join("audit.sqlite");
    let mut bytes = std::fs::read(&path).unwrap();
    // SQLite's header has the version of the user at 60, big endian.
    bytes[60..64].copy_from_slice(&9_u32.to_be_bytes());
    std::fs::write(&path, bytes).unwrap();
    let refused = world.gate(["broker"]).run();
    let refused = refused.refusal();
    assert!(refused.contains("format version 9") && refused.contains("mv "), "{refused}");
}
