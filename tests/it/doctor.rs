//! The doctor: finds what is wrong, says what to type, and hangs in nothing itself.

use std::path::Path;

use gate_tests::wait::{SOON, wait_until};
use gate_tests::{World, kernel};
use rustix::process::Signal;
use serde_json::Value;

/// Checks that name nothing of the machine the tests run on.
const OF_EVERY_MACHINE: [&str; 4] = ["kernel", "fuse-device", "fusermount3", "trial-view"];

#[test]
fn where_all_is_well_the_doctor_says_so() {
    healthy(World::new());
}

#[test]
fn an_ordinary_user_is_told_that_all_is_well() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    healthy(world);
}

fn healthy(world: World) {
    let [tmp, view] = [world.home().join("tmp"), world.view()];
    let text = world.gate(["doctor".as_ref(), view.as_os_str()]).run().success();
    assert!(!text.contains("FAIL"), "{text}");
    let checks = examine(&world, &view, Some(0));
    for name in OF_EVERY_MACHINE.iter().chain(&["broker", "broker-version", "journal"]) {
        assert_eq!(checks.of(name)["level"], "ok", "{name}: {text}");
    }
    let found = &checks.of("view")["found"];
    let server = format!("served by process {}", world.server_of(&view).pid());
    assert!(found.as_str().unwrap().contains(&server), "{found}");
    // The trial leaves nothing behind.
    assert_eq!(std::fs::read_dir(tmp).unwrap().count(), 0);
}

#[test]
fn no_broker_is_no_fault_and_one_that_was_named_and_is_not_there_is() {
    let mut world = World::bare();
    let named = examine_all(&world, Some(1));
    let broker = named.of("broker");
    assert_eq!(broker["level"], "fail", "{broker}");
    assert!(broker["mend"].as_str().unwrap().contains("gate broker --host"), "{broker}");
    world.find_broker_by_socket();
    let named = examine_all(&world, None);
    assert_eq!(named.of("broker")["level"], "ok");
    assert_eq!(named.of("state-dir")["level"], "warn", "the world's is open to others");
}

/// To start one there would not help.
#[test]
fn a_broker_at_a_name_that_does_not_resolve_is_not_to_be_started() {
    let world = World::bare();
    // No part of a name is so long: no name service is asked.
    let host = "x".repeat(64);
    let asked = ["doctor", "--json", "--broker-host", &host];
    let outcome = world.gate(asked).args([world.home()]).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    let checks = Checks::of_report(&outcome.stdout);
    let broker = checks.of("broker");
    assert!(broker["found"].as_str().unwrap().contains("does not resolve"), "{broker}");
    assert!(broker["mend"].as_str().unwrap().starts_with("give a host whose name"), "{broker}");
}

#[test]
fn a_dead_view_is_named_with_the_command_that_removes_it() {
    let mut world = World::new();
    let view = world.view();
    world.server_of(&view).signal(Signal::KILL);
    wait_until(SOON, "its server is gone", || !world.server_of(&view).is_running());
    let checks = examine(&world, &view, Some(1));
    let found = checks.of("view");
    assert_eq!((found["level"].as_str(), found["subject"].as_str()), (Some("fail"), view.to_str()));
    assert!(found["found"].as_str().unwrap().contains("died"), "{found}");
    let umount = format!("`gate umount {}`", view.display());
    assert!(found["mend"].as_str().unwrap().contains(&umount), "{found}");
    world.bury(&view);
    let checks = examine(&world, &view, Some(1));
    assert!(checks.of("view")["found"].as_str().unwrap().contains("no gated view"));
}

#[test]
fn a_view_that_hangs_is_found_in_bounded_time_with_the_process_to_wake() {
    let world = World::new();
    let view = world.view();
    let server = world.server_of(&view);
    server.signal(Signal::STOP);
    wait_until(SOON, "it is stopped", || kernel::is_stopped(server.pid()));
    let checks = examine(&world, &view, Some(1));
    let found = checks.of("view");
    assert_eq!(found["level"], "fail", "{found}");
    assert!(found["found"].as_str().unwrap().contains("hangs"), "{found}");
    let wake = format!("`kill -CONT {}`", server.pid());
    assert_eq!(found["mend"], wake.as_str(), "{found}");
    server.signal(Signal::CONT);
    assert_eq!(examine(&world, &view, Some(0)).of("view")["level"], "ok");
}

#[test]
fn a_view_whose_broker_is_gone_is_told_from_one_that_works() {
    let mut world = World::new();
    world.stop_broker();
    let view = world.view();
    let checks = examine(&world, &view, Some(1));
    let found = checks.of("view");
    assert_eq!(found["level"], "fail", "{found}");
    assert!(found["found"].as_str().unwrap().contains("what needs a turn waits"), "{found}");
    world.start_broker([""; 0]);
}

#[test]
fn without_fuse_the_doctor_says_what_to_type_and_tries_nothing() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = World::bare();
    let script = r#"
        mkdir dev && mount -t tmpfs tmpfs dev
        cp -a /dev/null /dev/zero /dev/random /dev/urandom dev
        mount --move dev /dev
        exec "$0" doctor --json view"#;
    let unshare = ["-m", "bash", "-euc", script];
    let run = world.command("unshare".as_ref()).args(unshare).args([world.program("gate")]);
    let outcome = run.run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    let checks = Checks::of_report(&outcome.stdout);
    assert_eq!(checks.of("fuse-device")["level"], "fail");
    assert_eq!(checks.of("trial-view")["level"], "skip");
}

/// What `gate doctor --json` found.
struct Checks(Vec<Value>);

impl Checks {
    #[track_caller]
    fn of_report(text: &str) -> Checks {
        let report: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(report["version"], 1);
        Checks(report["checks"].as_array().unwrap().clone())
    }

    #[track_caller]
    fn of(&self, name: &str) -> &Value {
        let found = self.0.iter().find(|check| check["check"] == name);
        found.unwrap_or_else(|| panic!("{name} is not checked: {:?}", self.0))
    }
}

/// Other tests have views, too; so one that is asked for is the only one that is checked.
#[track_caller]
fn examine(world: &World, view: &Path, code: Option<i32>) -> Checks {
    let outcome = world.gate(["doctor", "--json"]).args([view]).run();
    assert_eq!(outcome.code, code, "{outcome}");
    Checks::of_report(&outcome.stdout)
}

#[track_caller]
fn examine_all(world: &World, code: Option<i32>) -> Checks {
    let outcome = world.gate(["doctor", "--json"]).run();
    assert!(code.is_none() || outcome.code == code, "{outcome}");
    Checks::of_report(&outcome.stdout)
}
