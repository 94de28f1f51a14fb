//! `gate daemon`: how it starts, what it tells of itself, how it ends.

use std::os::unix::net::UnixListener;
use std::thread;

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

/// Where a thread of a killed one is still to end the kernel takes who comes, and nobody answers.
#[test]
fn a_daemon_begins_where_the_socket_of_one_that_was_killed_is_still_open() {
    let world = World::bare();
    for words in [&["daemon", "start"][..], &["mount", "--state-dir", "state", "source", "view"]] {
        let socket = world.state().join("gate.sock");
        let killed = UnixListener::bind(&socket).unwrap();
        let end = thread::spawn(move || (0..3).for_each(|_| drop(killed.accept().unwrap())));
        world.gate(words).run().success();
        end.join().unwrap();
        world.gate(["daemon", "stop"]).run().success();
    }
    world.gate(["umount", "view"]).run().success();
}
