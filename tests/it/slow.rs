//! A source that is slow: who waits for it holds up nobody else.

use std::fs;

use gate_tests::World;
use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_until};

/// More than work on a view's requests usually.
const STUCK: usize = 12;

/// More do not wait for requests to come.
pub const AT_REST_MAX: usize = 9;

/// Holds a lease on each of these files, and gives none back: who opens one sleeps in the kernel.
const LEASES: &str = r#"
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
for name in sys.argv[1:]:
    fcntl.fcntl(os.open(name, os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)
open("leased", "w")
sys.stdin.read()
"#;

/// Where nobody takes turns each open occupies a worker of the view.
#[test]
fn calls_that_the_source_does_not_answer_hold_up_nobody_else() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, ["--policy", "stuck-*=none"]);
    let (leases, readers) = read_what_is_leased(&world);
    let workers = || threads(world.server_of(&view), "fuse-");
    wait_until(SOON, "all are stuck", || workers() > STUCK);
    others_get_on(&world);
    all_get_on_at_last(leases, readers);
    wait_until(SOON, "who came for those that were stuck has gone", || {
        world.script(&view, "cat d/f").run().success();
        workers() <= AT_REST_MAX
    });
}

/// What an open does in its turn is done by the thread that hears the broker.
#[test]
fn turns_that_the_source_does_not_let_begin_hold_up_no_other() {
    let world = World::new();
    let (leases, readers) = read_what_is_leased(&world);
    let hearing = || threads(world.server_of(&world.view()), "gate-session");
    wait_until(SOON, "all are stuck", || hearing() > STUCK);
    others_get_on(&world);
    all_get_on_at_last(leases, readers);
    wait_until(SOON, "who came for those that were stuck has gone", || hearing() <= 2);
}

/// Starts readers of files in the view, each of which waits for a lease beside the view.
fn read_what_is_leased(world: &World) -> (Running, Vec<Running>) {
    let names: Vec<_> = (0..STUCK).map(|number| format!("stuck-{number}")).collect();
    names.iter().for_each(|name| world.seed(name, "late"));
    world.seed("d/f", "text");
    let leases = world.python(&world.source(), LEASES).args(&names).start_with_input();
    wait_until(SOON, "they are leased", || world.source().join("leased").exists());
    let read = |name: &String| world.script(&world.view(), &format!("exec cat {name}")).start();
    (leases, names.iter().map(read).collect())
}

#[track_caller]
fn others_get_on(world: &World) {
    let script = "cat d/f; echo more > d/g; ls d; rm d/g";
    let outcome = world.script(&world.view(), script).within(SOON).run();
    assert_eq!(outcome.success(), "textf\ng\n");
}

#[track_caller]
fn all_get_on_at_last(mut leases: Running, readers: Vec<Running>) {
    assert!(readers.iter().all(Running::is_running));
    drop(leases.stdin());
    for reader in readers {
        assert_eq!(reader.finish(SOON).success(), "late");
    }
}

/// How many threads of a process have that name, with a number behind it or none.
pub fn threads(process: &Running, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    names.filter(|other| other.trim().strip_prefix(name).is_some_and(is_number)).count()
}
