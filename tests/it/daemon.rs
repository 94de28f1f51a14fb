//! `gate daemon`: how it starts, what it tells of itself, how it ends.

use gate_tests::World;
use serde_json::{Value, json};

#[test]
fn a_daemon_tells_programs_whether_it_runs() {
    let world = World::bare();
    let status = |code| {
        let outcome = world.gate(["daemon", "status", "--json"]).run();
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(code), ""), "{outcome}");
        serde_json::from_str::<Value>(&outcome.stdout).unwrap()
    };
    let state = world.state();
    let none = json!({"version": 1, "state_dir": state, "broker": null});
    assert_eq!(status(1), none);
    world.gate(["daemon", "start"]).run().success();
    let told = status(0);
    let plain = world.gate(["daemon", "status"]).run().success();
    let pid: u32 = plain.trim().rsplit(' ').next().unwrap().parse().unwrap();
    let socket = state.join("gate.sock");
    let broker = json!({"address": socket, "pid": pid, "version": env!("CARGO_PKG_VERSION")});
    assert_eq!(told, json!({"version": 1, "state_dir": state, "broker": broker}));
    world.gate(["daemon", "stop"]).run().success();
    assert_eq!(status(1), none);
    let refused = world.gate(["daemon", "start", "--json"]).run();
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.refusal().contains("--json is for status"));
}
