//! What a daemon cannot write down or reach is said, changes nothing, and holds up no other mount.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use gate_tests::World;
use gate_tests::rest::{MOUNTS, Rest};
use gate_tests::world::Standing;
use serde_json::json;

use super::kept::await_status;
use super::{is_mounted, with_daemon};

/// Tries to change the list by each command that does; each is refused so, and nothing has changed.
#[track_caller]
fn check_refused(world: &World, rest: &Rest, cause: &str, hint: &str) {
    let before = rest.ask("GET", MOUNTS).body;
    for words in [
        &["mount", "add", "twin", "made/for/it"][..],
        &["mount", "set", "view", "--mount-point", "made/for/it"],
        &["mount", "start", "view"],
        &["mount", "remove", "-f", "view"],
    ] {
        let refused = world.gate(words).run();
        assert_eq!(refused.code, Some(1), "{words:?}: {refused}");
        let said = refused.refusal();
        assert!(said.contains(cause) && said.contains(hint), "{words:?}: {said}");
        assert_eq!(rest.ask("GET", MOUNTS).body, before, "{words:?}");
        assert!(!world.home().join("made").exists(), "{words:?}: what was made for it is gone");
    }
}

/// The same commands are obeyed when nothing is in the way any more.
#[track_caller]
fn check_obeyed(world: &World) {
    world.gate(["mount", "add", "twin", "made/for/it", "--start"]).run().success();
    world.gate(["mount", "set", "view", "--read-only", "true"]).run().success();
    world.gate(["mount", "start", "view"]).run().success();
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn where_the_list_of_mounts_finds_no_room_changes_are_refused_and_nothing_is_lost() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    world.lay_small_disk(&world.state(), "2m");
    world.gate(["daemon", "start"]).run().success();
    let rest = Rest::of_state_dir(&world.state());
    rest.add(&world.source(), &world.view(), json!({}));
    world.fill_disk(&world.state());
    check_refused(&world, &rest, "is full", "make room");
    fs::remove_file(world.state().join("filler")).unwrap();
    check_obeyed(&world);
    world.script(world.home(), "umount state").run().success();
}

/// Nothing of its end has to be written down.
#[test]
fn a_daemon_that_finds_no_room_for_its_list_can_be_stopped() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    world.lay_small_disk(&world.state(), "2m");
    world.gate(["daemon", "start"]).run().success();
    let rest = Rest::of_state_dir(&world.state());
    let id = rest.add(&world.source(), &world.view(), json!({"auto_mount": true}));
    world.gate(["mount", "start", "view"]).run().success();
    let user = world.actor(&world.view());
    world.fill_disk(&world.state());
    let refused = world.gate(["daemon", "stop"]).run().refusal();
    assert!(refused.contains(&user.pid().to_string()), "{refused}");
    drop(user);
    world.gate(["daemon", "stop"]).run().success();
    assert!(!is_mounted(&world.view()));
    fs::remove_file(world.state().join("filler")).unwrap();
    world.gate(["daemon", "start"]).run().success();
    await_status(&rest, &id, "running");
    world.gate(["daemon", "stop"]).run().success();
    world.script(world.home(), "umount state").run().success();
}

#[test]
fn a_list_of_mounts_that_somebody_else_has_locked_is_said_to_be_so() {
    let (world, rest) = with_daemon(Standing::Runner);
    rest.add(&world.source(), &world.view(), json!({}));
    let mut other = Command::new("sqlite3")
        .arg(world.state().join("mounts.sqlite"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut asks = other.stdin.take().unwrap();
    asks.write_all(b"begin exclusive; select count(*) from mount;\n").unwrap();
    let mut said = String::new();
    BufReader::new(other.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "1\n");
    check_refused(&world, &rest, "another process", "end the program");
    drop(asks);
    other.wait().unwrap();
    check_obeyed(&world);
}

#[test]
fn a_source_that_its_user_may_not_read_is_named_and_the_others_run() {
    let (world, rest) = with_daemon(Standing::OrdinaryUser);
    let closed = rest.add(&world.twin(), &world.home().join("closed"), json!({}));
    rest.add(&world.source(), &world.view(), json!({}));
    let open_to = |mode| fs::set_permissions(world.twin(), fs::Permissions::from_mode(mode));
    open_to(0o000).unwrap();
    let refused = world.gate(["mount", "start", "closed"]).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    let said = refused.refusal();
    let twin = world.twin();
    let cause = "this user may not look into it";
    assert!(said.contains(cause) && said.contains(twin.to_str().unwrap()), "{said}");
    let told = rest.mount(&closed)["error_message"].to_string();
    assert!(told.contains(cause), "{told}");
    world.gate(["mount", "start", "view"]).run().success();
    open_to(0o755).unwrap();
    world.gate(["mount", "start", "closed"]).run().success();
    world.gate(["daemon", "stop"]).run().success();
}
