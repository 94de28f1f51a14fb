//! The log of what happened, for who asks later and who follows.

use std::path::Path;

use gate_tests::World;
use gate_tests::http::Reply;
use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

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
    let follower = world.gate(["log", "--follow", "--json"]).args(args).dir(world.view()).start();
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
fn a_follower_sees_who_was_asked_to_let_go_and_who_lost_a_lock_and_why() {
    let world = World::new();
    world.seed("f", "");
    let follower = follow(&world, &["f"]);
    let [mut a, mut b] = [world.actor(&world.view()), world.actor(&world.view())];
    a.open("w", "f");
    b.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    let ticket = world.board().held("f").next().unwrap().ticket.to_string();
    world.gate(["recall", &ticket, "--reason", "soon"]).run().success();
    world.gate(["break", &ticket, "--reason", "stuck"]).run().success();
    b.opened();
    let expected = ["granted", "waiting", "recalled", "revoked", "granted"];
    wait_until(SOON, "the story is told", || {
        let so_far = follower.so_far();
        let whole = so_far.rfind('\n').map_or("", |end| &so_far[..end]);
        story(&events(whole), "f").len() >= expected.len()
    });
    let told = end(follower);
    assert_eq!(story(&told, "f"), expected);
    let said = |name: &str| {
        let event = told.iter().find(|event| event["event"] == name).unwrap();
        (event["why"].as_str().unwrap(), event["said"].as_str().unwrap())
    };
    assert_eq!((said("recalled"), said("revoked")), (("request", "soon"), ("broken", "stuck")));
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

/// Whoever asks does so when the processes are long gone.
#[test]
fn the_log_says_which_agent_it_was_with_and_without_a_guard() {
    for guard in ["keep", "allow"] {
        let world = World::with_view(["--guard", guard]);
        world.seed("f", "");
        // No name of an agent is too long to take turns with.
        for agent in ["ada", &"é".repeat(200)] {
            let script = world.script(&world.view(), "cat f; echo x >g");
            script.env("GATE_AGENT", agent).run().success();
        }
        world.await_idle();
        let told = world.gate(["log"]).run().success();
        for words in ["ada open f to read", "ada create g", "éé open f to read"] {
            assert!(told.contains(words), "{words}: {told}");
        }
        let told = events(&world.gate(["log", "--json", "f"]).dir(world.view()).run().success());
        let owner = |name| told.iter().find(|event| event["event"] == name).map(|e| &e["owner"]);
        assert_eq!(
            (owner("granted"), owner("released")),
            (Some(&"ada".into()), Some(&"ada".into()))
        );
    }
}

#[test]
fn clients_that_come_and_go_are_told_if_all_is_asked_for() {
    let world = World::new();
    world.seed("f", "");
    let mut actor = world.actor(&world.view());
    let fd = actor.open("w", "f");
    actor.close(fd);
    world.await_idle();
    for _ in 0..3 {
        world.gate(["why", "view/f"]).run().success();
    }
    wait_until(SOON, "they are gone", || {
        let told = world.gate(["log", "--all"]).run().success();
        told.matches("gate why, process").count() == 6
    });
    let told = world.gate(["log"]).run().success();
    assert!(told.contains("the broker began") && !told.contains(" came"), "{told}");
    let told = world.gate(["log", "-n", "2"]).run().success();
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains("was let in") && lines[1].contains("let go after"), "{told}");
    // What a time looks like there is understood.
    let since = lines[0].get(.."2026-01-31 12:00:00.000".len()).unwrap();
    let told = world.gate(["log", "--since", since]).run().success();
    assert!(told.starts_with(lines[0]), "{told}");
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
    // What is told is written down a moment later.
    let log = world.state().join("audit.sqlite");
    wait_until(SOON, "the second run is written down", || {
        let script = r#"sqlite3 "$0" 'select max(epoch) from block'"#;
        let newest = world.script(world.home(), script).args([&log]).run().stdout;
        newest.trim() == "2"
    });
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

#[test]
fn events_over_http_go_on_where_they_were_without_gap_or_repeat() {
    let mut world = World::new();
    world.seed("d/f", "");
    let mut actor = world.actor(&world.view());
    let mut turn = || {
        let fd = actor.open("w", "d/f");
        actor.close(fd);
    };
    let mut events = world.http().events("?path=d", None);
    turn();
    let first = events.hear();
    assert_eq!((first.name.as_str(), &first.data["path"]), ("granted", &"d/f".into()));
    assert_eq!(first.data["cursor"], first.id.as_str());
    let mut seen = vec![first.clone(), events.hear()];
    drop(events);
    turn();
    // The kernel tells of the last close a moment later.
    world.await_idle();
    world.stop_broker();
    world.start_broker([""; 0]);
    turn();
    let mut events = world.http().events("?path=d&since=0.0", Some(&seen[1].id));
    let expected =
        ["granted", "released", "broker-stopped", "broker-started", "granted", "released"];
    let mut names = expected.into_iter().peekable();
    while let Some(name) = names.peek() {
        let event = events.hear();
        // The view may not have been back at once.
        if event.name != "waiting" {
            assert_eq!(event.name, *name, "{event:?} after {seen:?}");
            names.next();
        }
        seen.push(event);
    }
    let mut again = world.http().events("?path=d&since=0.0", None);
    assert_eq!(again.hear().name, "broker-started");
    for event in seen {
        assert_eq!(again.hear(), event);
    }
    let lost = world.http().events("?since=9.9", None).hear();
    assert_eq!(lost.name, "resync");
    for nonsense in ["?since=x", "?path=a/../b", "?space=s", "?what=1"] {
        let refused = world.http().get(&format!("/v1/events{nonsense}"));
        assert_eq!(refused.status, 400, "{nonsense}: {refused:?}");
    }
}

#[test]
fn figures_count_what_happened() {
    let world = World::new();
    world.seed("f", "");
    let [mut a, mut b] = [world.actor(&world.view()), world.actor(&world.view())];
    let fd = a.open("w", "f");
    b.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    let figures = || world.http().get("/metrics").body.as_str().unwrap().to_owned();
    let figure = |name: &str| {
        let told = figures();
        let line = told.lines().find(|line| line.split(' ').next() == Some(name));
        let number = line.and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok());
        number.unwrap_or_else(|| panic!("no {name}: {told}"))
    };
    let (grants, waits) = (figure("gate_grants_total{right=\"turn\"}"), figure("gate_waits_total"));
    assert_eq!((figure("gate_longest_line"), figure("gate_waiting")), (1.0, 1.0));
    a.close(fd);
    let fd = b.opened();
    b.close(fd);
    world.await_idle();
    assert_eq!(figure("gate_grants_total{right=\"turn\"}"), grants + 1.0);
    assert_eq!(figure("gate_waits_total"), waits);
    assert_eq!((figure("gate_longest_line"), figure("gate_held")), (0.0, 0.0));
    for name in ["gate_wait_seconds", "gate_hand_off_seconds"] {
        assert_eq!(figure(&format!("{name}_count")), 1.0, "{name}");
    }
    assert!(figure("gate_wait_seconds_sum") > 0.0 && figure("gate_commit_seconds_count") > 0.0);
    let _fd = a.open("w", "f");
    let refused = world.gate(["hold", "-n", "f", "--", "true"]).dir(world.view()).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    let refused = world.gate(["hold", "-w", "0.1", "f", "--", "true"]).dir(world.view()).run();
    assert_eq!(refused.code, Some(124), "{refused}");
    for why in ["would-block", "timed-out"] {
        assert_eq!(figure(&format!("gate_refusals_total{{why=\"{why}\"}}")), 1.0, "{why}");
    }
}

#[test]
fn gate_audit_max_mib_and_days_bound_the_log() {
    let mut world = World::bare();
    world.set_env("GATE_AUDIT_MAX_MIB", "1");
    world.start_broker([""; 0]);
    let path = "d".repeat(4_000);
    let release = |reply: Reply| {
        let body = json!({ "lock_id": reply.lock_id(), "owner": "o" });
        assert_eq!(world.http().post("/v1/locks/release", &body).status, 200);
    };
    for _ in 0..400 {
        let body = json!({ "path": path, "mode": "write", "owner": "o" });
        release(world.http().post("/v1/locks/acquire", &body));
    }
    // Whoever asks for what was given up is told.
    wait_until(SOON, "the oldest are given up", || {
        let since = world.gate(["log", "--json", "--since", "1.1", "-n", "1"]).run();
        since.stderr.contains("what was before is not known")
    });
    let size = std::fs::metadata(world.state().join("audit.sqlite")).unwrap().len();
    assert!(size < 3 << 20, "{size} bytes");
    world.stop_broker();
    world.set_env("GATE_AUDIT_MAX_DAYS", "0");
    let refused = world.gate(["broker"]).run();
    assert!(refused.refusal().contains("--audit-max-days"));
}
