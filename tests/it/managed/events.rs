//! What becomes of mounts, as programs are told while it happens: `GET /api/v0/mounts/events`.

use gate_tests::http::Event;
use gate_tests::rest::MOUNTS;
use gate_tests::world::Standing;
use serde_json::json;

use super::kept::{await_status, kill};
use super::with_daemon;

/// The name of an event, and the status that it tells.
fn in_short(event: &Event) -> (&str, &str) {
    assert_eq!(event.data["event"], *event.name, "{event:?}");
    (&event.name, event.data["status"].as_str().unwrap())
}

#[test]
fn each_change_of_a_mount_is_told_as_it_happens_and_who_comes_back_misses_none() {
    let (world, rest) = with_daemon(Standing::Runner);
    let mut events = rest.events(None);
    let id = rest.add(&world.source(), &world.view(), json!({"auto_mount": true}));
    world.gate(["mount", "set", &id, "--cache-ttl-secs", "7"]).run().success();
    world.gate(["mount", "start", &id]).run().success();
    let first = rest.pid(&id).unwrap();
    kill(first);
    let expected = [
        ("added", "stopped"),
        ("changed", "stopped"),
        ("status", "starting"),
        ("status", "running"),
        ("status", "error"),
        ("status", "starting"),
        ("status", "running"),
    ];
    let told = expected.map(|expected| {
        let event = events.hear();
        assert_eq!(in_short(&event), expected, "{event:?}");
        event
    });
    assert_eq!(told[3].data["pid"], first);
    let died = &told[4].data;
    assert!(died["error_message"].as_str().unwrap().contains("died"), "{died}");
    let last = &told[6];
    assert_eq!(last.data["pid"], rest.pid(&id).unwrap());
    let expected = json!({
        "event": "status", "at": last.data["at"], "mount_id": id, "mount_point": world.view(),
        "status": "running", "pid": last.data["pid"], "error_message": null,
    });
    assert_eq!(last.data, expected);
    // Who was away meanwhile.
    let mut back = rest.events(Some(&told[0].id));
    world.gate(["mount", "stop", &id]).run().success();
    world.gate(["mount", "remove", "-f", &id]).run().success();
    for event in &told[1..] {
        assert_eq!(back.hear(), *event);
    }
    for expected in [("status", "stopping"), ("status", "stopped"), ("removed", "stopped")] {
        let event = events.hear();
        assert_eq!(in_short(&event), expected, "{event:?}");
        assert_eq!(back.hear(), event);
    }
    for nonsense in ["?since=x", "?since=1", "?from=1.1"] {
        let refused = rest.ask("GET", &format!("{MOUNTS}/events{nonsense}"));
        assert_eq!((refused.status, &refused.body["code"]), (400, &json!("invalid")));
    }
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn who_reads_on_after_a_restart_of_the_daemon_is_told_to_look_anew() {
    let (world, rest) = with_daemon(Standing::Runner);
    let mut events = rest.events(None);
    let id = rest.add(&world.source(), &world.view(), json!({"auto_mount": true}));
    let before = events.hear();
    world.gate(["daemon", "restart"]).run().success();
    await_status(&rest, &id, "running");
    let mut events = rest.events(Some(&before.id));
    let resync = events.hear();
    assert_eq!(resync.name, "resync", "{resync:?}");
    let next = events.hear();
    assert_eq!(in_short(&next), ("status", "running"), "all of this run follows: {next:?}");
    assert_ne!(resync.id.split('.').next(), before.id.split('.').next());
    world.gate(["daemon", "stop"]).run().success();
}
