//! How fast a view is, as its users measure it: figures are told, none is judged here.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use gate_tests::World;
use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const ROWS: usize = 7;

#[test]
fn a_view_is_measured_beside_its_source() {
    let world = World::new();
    world.seed("d/f", "text");
    let report = measure(&world, &world.view().join("d"));
    assert_eq!(report["source"], world.source().join("d").to_str().unwrap());
    assert_eq!(names_in(&world.source().join("d")), ["f"], "nothing is left");
}

#[test]
fn an_ordinary_user_measures_a_bare_directory_by_a_view_made_for_it() {
    let world = World::bare_of_ordinary_user();
    let outcome = world.gate(["bench", "--seconds", "1", "twin"]).run();
    let is_slow = outcome.stderr.contains("debug build");
    assert_eq!(is_slow, cfg!(debug_assertions), "a gate that is slow says so: {outcome}");
    let text = outcome.success();
    let rows = text.lines().filter(|line| line.contains(" µs ") || line.contains(" ms "));
    assert_eq!(rows.count(), ROWS, "{text}");
    let end = format!("a view of its own beside {}:", world.twin().display());
    assert!(text.contains(&end), "{text}");
    assert!(names_in(&world.twin()).is_empty(), "nothing is left");
}

#[test]
fn what_cannot_be_measured_is_refused_with_its_reason() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    world.seed("d/f", "text");
    let refusal = |dir: &Path| world.gate([OsStr::new("bench"), dir.as_os_str()]).run().refusal();
    let behind = refusal(&source.join("d"));
    let hint = format!("`gate bench {}`", view.join("d").display());
    assert!(behind.contains(&hint), "{behind}");
    assert!(refusal(Path::new("missing")).contains("No such file"));
    assert!(refusal(&view.join("d/f")).contains("Not a directory"));
    let closed = refusal(Path::new("/"));
    assert!(closed.contains("ermission denied"), "{closed}");
    let no_disk = refusal(Path::new("/proc"));
    assert!(no_disk.contains("it cannot be written") && !no_disk.contains("MiB"), "{no_disk}");
}

#[test]
fn where_there_is_no_room_nothing_is_begun() {
    let world = World::bare();
    world.lay_small_disk(&world.twin(), "64m");
    let refusal = world.gate(["bench", "twin"]).run().refusal();
    assert!(refusal.contains("64 MiB are free"), "{refusal}");
    assert!(names_in(&world.twin()).is_empty());
    world.script(world.home(), "umount twin").run().success();
}

#[test]
fn ctrl_c_ends_a_bench_that_leaves_nothing() {
    let world = World::new();
    let bench = world.gate(["bench", "--seconds", "600", "view"]).start();
    interrupt_when(&bench, || !names_in(&world.source()).is_empty());
    assert_eq!(bench.finish(SOON).code, Some(130));
    assert!(names_in(&world.source()).is_empty());

    let bench = world.gate(["bench", "--seconds", "600", "twin"]).start();
    let measures = || {
        let own = names_in(&world.twin()).pop().map(|name| world.twin().join(name).join("source"));
        own.is_some_and(|own| own.exists() && !names_in(&own).is_empty())
    };
    interrupt_when(&bench, measures);
    assert_eq!(bench.finish(SOON).code, Some(130));
    assert!(names_in(&world.twin()).is_empty());
}

/// Its directory is another's for now: it waits in a call, and still nothing is left.
#[test]
fn ctrl_c_ends_a_bench_that_waits_for_its_turn() {
    let world = World::new();
    let mut holder = world.actor_under_hold(&world.view(), ["."]);
    let bench = world.gate(["bench", "view"]).start();
    interrupt_when(&bench, || world.board().locks.iter().any(|lock| lock.state == "waiting"));
    assert_eq!(bench.finish(SOON).code, Some(130));
    assert!(names_in(&world.source()).is_empty());
    holder.leave();
}

#[track_caller]
fn interrupt_when(bench: &Running, event: impl FnMut() -> bool) {
    wait_until(SOON, "it has begun", event);
    assert!(bench.is_running(), "{}", bench.so_far());
    bench.signal(Signal::INT);
}

#[track_caller]
fn measure(world: &World, dir: &Path) -> Value {
    let words = ["bench", "--seconds", "1", "--json"].map(OsStr::new);
    let text = world.gate(words).args([dir]).run().success();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["version"], 1);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), ROWS, "{text}");
    for row in rows {
        for figure in ["rounds", "bare_ns", "view_ns"] {
            assert!(row[figure].as_u64().unwrap() > 0, "{row}");
        }
    }
    report
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}
