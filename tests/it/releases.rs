//! A broker of another release under views that live on: one whose frames they do not know.

use std::ffi::OsString;
use std::fs;

use gate_tests::run::{Outcome, Running};
use gate_tests::wait::{SOON, wait_until};
use gate_tests::{Actor, World};
use rustix::io::Errno;
use rustix::process::Signal;

/// The lease of the views: an outage that is longer is an error.
const LEASE_MS: &str = "1000";

/// As much of it as its clients come to see: it says which frames it speaks, and hangs up.
const NEWER: &str = "import os, socket
door = socket.socket(socket.AF_UNIX)
door.bind('gate.sock')
door.listen(64)
print('ready', flush=True)
while True:
    client, _ = door.accept()
    try:
        client.sendall(b'GATE' + (2).to_bytes(4, 'little'))
        client.recv(65536)
    except OSError:
        pass
    client.close()";

/// N16: who needs a turn is told no, and nobody loses anything: neither what was written before nor
/// what is held, which is of no use meanwhile, for the other one may let others in.
#[test]
fn n16_under_a_broker_of_another_release_views_say_so_take_no_turns_and_lose_nothing() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    world.set_env("GATE_LEASE_MS", LEASE_MS);
    for name in ["f", "g"] {
        world.seed(name, "");
    }
    start_daemon(&world);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    let mut ada = private_actor(&world);
    let mut sue = world.actor(&view);
    let held = sue.open("w", "f");
    sue.write(held, "before").unwrap();
    let newer = replace_daemon(&world);
    for actor in [&mut ada, &mut world.actor(&view)] {
        assert_eq!(actor.ask(["open", "w", "g"]), Err(Errno::IO));
        assert_eq!(actor.ask(["stat", "f"]), Ok("6".to_owned()), "who looks takes no turn");
    }
    assert_eq!(sue.write(held, "meanwhile"), Err(Errno::IO));
    assert_eq!(world.source_text("f"), "before");
    let why = "it is of another release: the peer speaks version 2, this is version 1";
    assert_is_told(&world, why);
    let log = world.server_of(&view).so_far();
    assert_eq!(log.matches("lets this client not in").count(), 1, "{log}");
    world.gate(["daemon", "stop"]).run().success();
    assert_eq!(newer.finish(SOON).signal, Some(Signal::TERM.as_raw()));
    start_daemon(&world);
    for actor in [&mut ada, &mut world.actor(&view)] {
        wait_until(SOON, "turns are taken again", || actor.ask(["append", "g", "x"]).is_ok());
    }
    sue.write(held, " and after").unwrap();
    sue.close(held);
    assert_eq!(world.source_text("f"), "before and after");
    let doctor = world.gate(["doctor", "view"]).run();
    assert!(!doctor.stdout.contains("another release"), "{doctor}");
    drop((ada, sue));
    world.umount(&view);
    world.gate(["daemon", "stop"]).run().success();
}

/// Commands of this release, too, say so, and the one that ends it does.
#[test]
fn n16_commands_name_a_daemon_of_another_release_and_end_it() {
    let world = World::bare();
    let newer = start_newer(&world);
    let in_state = ["--state-dir", "state"];
    let said = |outcome: Outcome| {
        let refusal = outcome.refusal();
        let is_told = ["version 2", "`gate daemon stop`"].iter().all(|it| refusal.contains(it));
        assert!(is_told, "{refusal}");
    };
    said(world.gate(["daemon", "start"]).run());
    said(world.gate(["daemon", "status"]).run());
    said(world.gate(["mount", "source", "view"]).args(in_state).run());
    said(world.gate(["locks"]).args(in_state).run());
    let doctor = world.gate(["doctor"]).args(in_state).run();
    assert!(doctor.stdout.contains("FAIL  broker"), "{doctor}");
    world.gate(["daemon", "stop"]).run().success();
    assert_eq!(newer.finish(SOON).signal, Some(Signal::TERM.as_raw()));
    world.gate(["daemon", "start"]).run().success();
    world.gate(["daemon", "stop"]).run().success();
}

fn start_daemon(world: &World) {
    world.gate(["daemon", "start", "--lease-ms", LEASE_MS]).run().success();
}

fn replace_daemon(world: &World) -> Running {
    world.gate(["daemon", "stop"]).run().success();
    start_newer(world)
}

fn start_newer(world: &World) -> Running {
    let _ = fs::remove_file(world.state().join("gate.sock"));
    let newer = world.python(&world.state(), NEWER).start();
    wait_until(SOON, "it listens", || newer.so_far().contains("ready"));
    newer
}

fn private_actor(world: &World) -> Actor {
    let words = ["run", "--agent", "ada", "--view", "private", "--in"].map(OsString::from);
    let gate = world.program("gate").into_os_string();
    let words = std::iter::once(gate).chain(words);
    let words = words.chain([world.source().into(), "--".into()]);
    let mut ada = world.actor_by(words, &world.source());
    ada.ask(["stat", "."]).unwrap();
    ada
}

/// By what lists the views, and by what says how to mend them.
fn assert_is_told(world: &World, why: &str) {
    let status = world.gate(["status"]).run().success();
    assert!(status.contains("broker   none: the peer speaks version 2"), "{status}");
    assert!(status.contains(" refused\n"), "{status}");
    let doctor = world.gate(["doctor", "view"]).run();
    let line = doctor.stdout.lines().find(|line| line.starts_with("FAIL  view "));
    let line = line.unwrap_or_else(|| panic!("{doctor}"));
    assert!(line.contains(why) && line.contains("`gate daemon stop`"), "{line}");
    let refusal = world.gate(["why", "view/f"]).run().refusal();
    assert!(refusal.contains(why), "{refusal}");
}
