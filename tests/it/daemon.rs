//! `gate daemon`: how it starts, what it tells of itself, how it ends.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::thread;

use gate_tests::world::Standing;
use gate_tests::{World, kernel};
use serde_json::{Value, json};

use crate::managed::with_daemon;

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

/// Takes a port of the loopback address; returns its number, too.
fn taken_port() -> (TcpListener, String) {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    (taken, port)
}

#[test]
fn a_daemon_that_cannot_start_leaves_nothing_mounted_and_nothing_running() {
    let (world, rest) = with_daemon(Standing::Runner);
    rest.add(&world.source(), &world.view(), json!({"auto_mount": true}));
    world.gate(["daemon", "stop"]).run().success();
    let (_taken, port) = taken_port();
    let refused = world.gate(["daemon", "start", "--api-port", &port]).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    let said = refused.refusal();
    assert!(said.contains("cannot listen"), "{said}");
    // At once: what was begun would come to an end, or not, some time later.
    let left = kernel::processes_of(world.home());
    assert!(left.is_empty(), "{left:?}");
    assert!(kernel::mounts_below(world.home()).is_empty());
}

/// Who begins to serve what a daemon keeps when that daemon has just ended is not to start another.
#[test]
fn a_kept_view_starts_no_daemon() {
    let world = World::bare();
    let words = ["mount", "--kept", "--state-dir", "state", "source", "view"];
    let refused = world.gate(words).run();
    assert_eq!(refused.code, Some(2), "{refused}");
    let said = refused.refusal();
    assert!(said.contains("no broker runs here"), "{said}");
    assert!(kernel::processes_of(world.home()).is_empty());
}

#[test]
fn a_restart_that_cannot_come_to_anything_leaves_the_daemon_as_it_is() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    let port = world.http().port.to_string();
    world.gate(["daemon", "start", "--api-port", &port]).run().success();
    let tokens = world.state().join("api.tokens");
    let good = fs::read_to_string(&tokens).unwrap();
    let pid = pid_of_daemon(&world);
    let (_taken, other) = taken_port();
    let refused = |why: &str, words: &[&str]| {
        let refused = world.gate([&["daemon", "restart"], words].concat()).run();
        assert!(refused.code > Some(0), "{refused}");
        let said = refused.refusal();
        assert!(said.contains(why), "{said}");
        assert_eq!(pid_of_daemon(&world), pid);
    };
    refused("cannot listen", &["--api-port", &other]);
    for bad in ["one two three\n", "admin abc\n"] {
        fs::write(&tokens, bad).unwrap();
        refused("api.tokens", &[]);
    }
    fs::write(&tokens, good).unwrap();
    // At its own port, which is as taken.
    world.gate(["daemon", "restart"]).run().success();
    world.gate(["daemon", "restart", "--api-port", &port]).run().success();
    assert_ne!(pid_of_daemon(&world), pid);
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_restart_after_which_no_daemon_runs_says_so_and_what_to_type() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    world.gate(["daemon", "start", "--max-hold-ms", "7"]).run().success();
    let list = world.state().join("mounts.sqlite");
    let version = |set: &str| {
        let words = [list.to_str().unwrap().to_owned(), format!("PRAGMA user_version{set}")];
        let sqlite = "sqlite3 \"$0\" \"$1\"";
        world.command("sh".as_ref()).args(["-c", sqlite]).args(words).run().success()
    };
    let of_now = version("");
    version("=99");
    let refused = world.gate(["daemon", "restart", "--audit-max-mib", "9"]).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    let said = refused.refusal();
    let again = "`gate daemon start --max-hold-ms 7 --audit-max-mib 9`";
    for part in ["no daemon runs now", "version 99", again] {
        assert!(said.contains(part), "{said}");
    }
    version(&format!("={}", of_now.trim()));
    world.gate(["daemon", "start"]).run().success();
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn options_that_a_running_daemon_was_not_started_with_are_refused() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    world.gate(["daemon", "start", "--max-hold-ms", "7"]).run().success();
    for words in [&["daemon", "start"][..], &["daemon", "start", "--max-hold-ms", "7"]] {
        let again = world.gate(words).run().success();
        assert!(again.contains("it runs already"), "{again}");
    }
    let words = ["daemon", "start", "--max-hold-ms", "7", "--audit-max-mib", "9"];
    let refused = world.gate(words).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    let said = refused.refusal();
    assert!(said.contains("`gate daemon restart --audit-max-mib 9`"), "{said}");
    world.gate(["daemon", "stop"]).run().success();
}

fn pid_of_daemon(world: &World) -> u64 {
    let told = world.gate(["daemon", "status", "--json"]).run().success();
    let told: Value = serde_json::from_str(&told).unwrap();
    told["broker"]["pid"].as_u64().unwrap()
}
