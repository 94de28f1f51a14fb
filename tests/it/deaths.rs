//! Views whose server is killed: what was synced stays, and nothing reaches the bare directory.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use gate_tests::dice::{Dice, seed};
use gate_tests::wait::{SOON, wait_for, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel};
use rustix::io::Errno;
use rustix::process::Signal;

/// N15: a call that keeps a directory locked waits for the server, which waits for the directory, and
/// is killed.
#[test]
fn n15_a_view_that_dies_while_it_drops_a_name_is_dead_all_the_same() {
    let mut world = World::new();
    let view = world.view();
    for name in ["f", "g", "t0", "t1"] {
        world.seed(name, name);
        fs::read(view.join(name)).unwrap();
    }
    let replace = |agent: &str, by: &str| {
        world.gate(["run", "--agent", agent, "--", "mv", "-f", by, "view/f"])
    };
    replace("ada", "view/t0").run().success();
    // Who replaces what he has not seen waits for the place where it is kept.
    world.seed("f", "unseen");
    let _store = locked_store(&world);
    let mover = replace("bob", "view/t1").start();
    kill_while_it_drops(world.server_of(&view).pid(), &world.source().join("g"));
    wait_until(SOON, "the view is dead", || {
        fs::metadata(&view).is_err_and(|error| error.kind() == ErrorKind::NotConnected)
    });
    assert_ne!(mover.finish(SOON).code, Some(0));
    world.bury(&view);
}

/// Locks the place where the only source's versions are kept.
pub fn locked_store(world: &World) -> fs::File {
    let found = world.script(world.home(), "find ~+ -path '*/kept/*/lock'").run().success();
    let store = fs::File::open(found.trim_end()).unwrap();
    rustix::fs::flock(&store, rustix::fs::FlockOperation::LockExclusive).unwrap();
    store
}

/// Waits until a server waits for that place, removes a name in its source, and kills it in the
/// moment in which it wants that name's directory.
pub fn kill_while_it_drops(server: i32, name: &Path) {
    wait_until(SOON, "the directory is locked", || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("->") && line.contains(&format!(" {server} ")))
    });
    fs::remove_file(name).unwrap();
    wait_until(SOON, "the server waits for the directory", || {
        let threads = fs::read_dir(format!("/proc/{server}/task")).unwrap().flatten();
        let mut stats = threads.filter_map(|it| fs::read_to_string(it.path().join("stat")).ok());
        stats.any(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('D')))
    });
    kernel::kill(server);
}

/// N15: a dead view fails closed.
#[test]
fn a_view_whose_server_died_lets_nothing_through_to_the_bare_directory() {
    Standing::ALL.into_iter().for_each(dead_view_lets_nothing_through);
}

fn dead_view_lets_nothing_through(standing: Standing) {
    let mut world = World::with_view_of(standing, [""; 0]);
    world.seed("f", "text");
    world.server_of(&world.view()).signal(Signal::KILL);
    let mut actor = world.actor(world.home());
    let view = world.view();
    wait_until(SOON, "the view is dead", || {
        actor.ask(["stat".as_ref(), view.join("f").as_os_str()]).is_err()
    });
    for verb in ["open\tw+", "mkdir"] {
        let words = verb.split('\t').map(Path::new).chain([Path::new("view/new")]);
        assert_eq!(actor.ask(words), Err(Errno::NOTCONN), "{verb}");
    }
    let again = world.gate(["mount", "source", "view"]).run();
    if again.code == Some(0) {
        assert_eq!(world.script(world.home(), "cat view/f").run().success(), "text");
    } else {
        assert!(standing != Standing::Runner, "a new one takes its place: {again}");
        let refusal = again.refusal();
        assert!(refusal.contains("its view has died"), "{refusal}");
        assert!(refusal.contains("--force"), "{refusal}");
    }
    world.bury(&view);
    assert!(!world.source().join("new").exists() && !view.join("new").exists());
}

/// N15: a view needs its guardian in no moment but that of
/// `n15_a_view_that_dies_while_it_drops_a_name_is_dead_all_the_same`.
#[test]
fn n15_a_view_whose_guardian_was_killed_works_on_and_fails_closed() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.seed("f", "text");
    for together in [false, true] {
        world.mount(&source, &view, [""; 0]);
        let server = world.server_of(&view).pid();
        let guardian = wait_for(SOON, "it has a guardian", || kernel::guardian_of(server));
        kernel::kill(guardian);
        if !together {
            wait_until(SOON, "it is gone", || kernel::is_dead(guardian));
            world.script(&view, "cat f; echo more > new; rm new").run().success();
            fs::write(source.join("beside"), "").unwrap();
            world.script(&view, "rm beside").run().success();
            assert_eq!(told_of(&world), "ok");
        }
        kernel::kill(server);
        wait_until(SOON, "the view is dead", || {
            fs::metadata(&view).is_err_and(|error| error.kind() == ErrorKind::NotConnected)
        });
        let mut actor = world.actor(world.home());
        assert_eq!(actor.ask(["open", "w+", "view/new"]), Err(Errno::NOTCONN));
        assert_eq!(actor.ask(["mkdir", "view/new"]), Err(Errno::NOTCONN));
        assert_eq!(told_of(&world), "dead");
        wait_until(SOON, "nobody is left", || [server, guardian].into_iter().all(kernel::is_dead));
        world.bury(&view);
        assert_eq!(fs::read_dir(&source).unwrap().count(), 1, "nothing came past it");
    }
}

/// Returns how the only view is, by `gate status`.
fn told_of(world: &World) -> String {
    let status = world.gate(["status"]).run().success();
    let view = world.view();
    let mut rows = status.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.first().is_some_and(|point| view.as_os_str() == *point));
    (*row.expect("it is told of").last().expect("a row has words")).to_owned()
}

/// N15: so it does when its server is killed at any moment of somebody's writing; and what was
/// synced before is in the source.
#[test]
fn n15_a_view_that_is_killed_while_it_is_written_keeps_what_was_synced_and_fails_closed() {
    kill_while_it_is_written(Standing::Runner, gate_tests::scaled(5, 100));
    kill_while_it_is_written(Standing::OrdinaryUser, gate_tests::scaled(2, 100));
    kill_while_it_is_written(Standing::UserNamespace, gate_tests::scaled(2, 100));
}

fn kill_while_it_is_written(standing: Standing, kills: usize) {
    let mut world = World::bare_of(standing);
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    let [synced, told] = [source.join("f"), world.home().join("told")];
    world.seed("f", "");
    let lines = |path: &Path| -> Vec<u64> {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n')?.parse().ok())
            .collect()
    };
    let mut dice = Dice::new(seed());
    for _ in 0..kills {
        world.mount(&source, &view, [""; 0]);
        let writes = "i=$(cat source/f | wc -l)
            while :; do i=$((i + 1)); echo $i >> view/f; sync view/f; echo $i >> told; done";
        let writer = world.script(world.home(), writes).start();
        let enough = lines(&told).len() + 1 + dice.below(40);
        wait_until(SOON, "enough is written", || lines(&told).len() >= enough);
        world.server_of(&view).signal(Signal::KILL);
        assert_ne!(writer.finish(SOON).code, Some(0));
        let (kept, told) = (lines(&synced), lines(&told));
        assert!(kept.len() >= told.len(), "{} of {}", kept.len(), told.len());
        assert!(kept.iter().copied().eq(1..=kept.len() as u64), "{kept:?}");
        let late = world.script(world.home(), "echo late >> view/f").run();
        assert_ne!(late.code, Some(0));
        world.bury(&view);
    }
}
