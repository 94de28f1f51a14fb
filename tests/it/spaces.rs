//! Several views: of one source, of one inside another, and in spaces with names.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use std::time::Duration;

use gate_tests::World;
use gate_tests::wait::{SOON, wait_until};
use rustix::io::Errno;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_second_view_of_a_source_takes_turns_with_the_first() {
    let mut world = World::new();
    world.seed("f", "text");
    let second = second_view(&mut world, [""; 0]);
    let [mut one, mut two] = [world.actor(&world.view()), world.actor(&second)];
    let fd = one.open("rw", "f");
    two.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    one.write(fd, "more").unwrap();
    one.close(fd);
    let fd = two.opened();
    one.tell(["unlink", "f"]);
    world.await_waiting("f", 1);
    two.close(fd);
    assert_eq!(one.answer(), Ok(String::new()));
    assert!(!world.source().join("f").exists());
}

/// What changed beside a view is seen at the next open, and in names after a second at most.
#[test]
fn what_one_view_writes_the_other_reads() {
    let mut world = World::new();
    world.seed("f", "old");
    let second = second_view(&mut world, [""; 0]);
    let [mut one, mut two] = [world.actor(&world.view()), world.actor(&second)];
    let fd = two.open("r", "f");
    assert_eq!(two.read(fd, 9), Ok("old".to_owned()));
    two.close(fd);
    let fd = one.open("w0", "f");
    one.write(fd, "newer").unwrap();
    one.close(fd);
    let fd = two.open("r", "f");
    assert_eq!(two.read(fd, 9), Ok("newer".to_owned()));
    one.ask(["mkdir", "d"]).unwrap();
    gate_tests::wait::wait_until(gate_tests::wait::SOON, "the new name is seen", || {
        two.ask(["stat", "d"]).is_ok()
    });
}

/// The kernel may trust attributes for a second; whoever is let in must not.
#[test]
fn appends_through_two_views_lose_nothing() {
    const ACTORS: usize = 6;
    const TIMES: usize = 100;
    let mut world = World::new();
    let second = second_view(&mut world, [""; 0]);
    world.seed("f", "");
    let views = [world.view(), second];
    let mut actors: Vec<_> = views.iter().cycle().take(ACTORS).map(|v| world.actor(v)).collect();
    for actor in &mut actors {
        actor.tell(["repeat", &TIMES.to_string(), "append", "f", "0123456789"]);
    }
    for actor in &mut actors {
        assert_eq!(actor.answer_by(LONG), Ok(String::new()));
    }
    assert_eq!(world.source_text("f"), "0123456789".repeat(ACTORS * TIMES));
}

/// A file that was replaced through one view is not written to through the other.
#[test]
fn who_opens_what_another_view_replaced_gets_the_new_file() {
    let mut world = World::new();
    let second = second_view(&mut world, [""; 0]);
    let [mut one, mut two] = [world.actor(&world.view()), world.actor(&second)];
    for round in 0..20 {
        for actor in [&mut one, &mut two] {
            actor.ask(["append", "f", "old"]).unwrap();
        }
        one.ask(["append", "tmp", "new"]).unwrap();
        one.ask(["rename", "tmp", "f"]).unwrap();
        two.ask(["append", "f", "more"]).unwrap();
        assert_eq!(world.source_text("f"), "newmore", "round {round}");
        one.ask(["unlink", "f"]).unwrap();
    }
}

/// A rename waits for no reader, so the file may be replaced again and again while one walks to it.
#[test]
fn who_reads_what_another_view_replaces_again_and_again_always_finds_a_whole_file() {
    let mut world = World::new();
    let second = second_view(&mut world, [""; 0]);
    world.seed("f", "whole");
    let replace = "
import os, threading
def replace(name):
    for _ in range(1000):
        with open(name, 'w') as file:
            file.write('whole')
        os.rename(name, 'f')
threads = [threading.Thread(target=replace, args=[name]) for name in ('one', 'two')]
for thread in threads: thread.start()
for thread in threads: thread.join()
open('end', 'w').close()";
    let read = "
import os
times = 0
while not os.path.exists('end'):
    with open('f') as file:
        text = file.read()
    assert text == 'whole', text
    times += 1
print(times)";
    let run = |view: &Path, script: &str| world.python(view, script).start();
    let readers = [run(&second, read), run(&second, read), run(&world.view(), read)];
    run(&world.view(), replace).finish(LONG).success();
    for reader in readers {
        let times: u32 = reader.finish(LONG).success().trim().parse().unwrap();
        assert!(times > 0, "it has read nothing");
    }
}

/// Who is let in reads all that was written before, whatever the kernel was told in the meantime.
#[test]
fn who_reads_after_another_view_has_written_reads_all_of_it() {
    let mut world = World::new();
    let second = second_view(&mut world, [""; 0]);
    world.seed("f", "");
    let write = "
import os
for _ in range(400):
    with open('f', 'a') as file:
        file.write('another line\\n')
    os.chmod('f', 0o600)
    os.chmod('f', 0o644)";
    let read = "
import os, sys
while not os.path.exists('end'):
    before = os.stat(sys.argv[1]).st_size
    with open('f') as file:
        size = len(file.read())
    assert size >= before, f'{size} bytes of {before}'";
    let bare = world.source().join("f");
    let run = |view: &Path, script: &str| world.python(view, script).args([&bare]).start();
    let readers = [run(&second, read), run(&second, read), run(&second, read)];
    let writers = [run(&world.view(), write), run(&world.view(), write)];
    for writer in writers {
        writer.finish(LONG).success();
    }
    fs::write(world.source().join("end"), "").unwrap();
    for reader in readers {
        reader.finish(LONG).success();
    }
}

#[test]
fn a_source_inside_a_served_one_takes_turns_with_it() {
    let mut world = World::new();
    world.seed("d/f", "");
    let inner = world.home().join("inner");
    fs::create_dir(&inner).unwrap();
    let source = world.source().join("d");
    world.mount(&source, &inner, [""; 0]);
    let [mut outside, mut inside] = [world.actor(&world.view()), world.actor(&inner)];
    let fd = inside.open("w", "f");
    outside.tell(["open", "r", "d/f"]);
    world.await_waiting("d/f", 1);
    inside.close(fd);
    let fd = outside.opened();
    outside.close(fd);

    let mut holder = world.actor_under_hold(&inner, ["."]);
    outside.tell(["mkdir", "d/new"]);
    world.await_waiting("d/new", 1);
    holder.leave();
    assert_eq!(outside.answer(), Ok(String::new()));
}

#[test]
fn a_source_above_a_served_one_is_refused() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.seed("d/f", "");
    let [source, inner, view] = [world.source(), world.source().join("d"), world.view()];
    world.mount(&inner, &view, [""; 0]);
    let refusal = refused(&world, &source, [""; 0]);
    assert!(refusal.contains(inner.to_str().unwrap()), "{refusal}");
}

#[test]
fn views_with_different_rules_are_refused_with_both_shown() {
    let mut world = World::with_view(["--policy", "*.x=none", "--read-wait", "7s"]);
    let source = world.source();
    let refusal = refused(&world, &source, ["--policy", "*.y=none"]);
    for rule in ["*.x=none", "*.y=none", "7s", "30s"] {
        assert!(refusal.contains(rule), "{rule}: {refusal}");
    }
    let strict = refused(&world, &source, ["--mode", "strict"]);
    assert!(strict.contains("for ever"), "{strict}");
    let view = world.view();
    world.umount(&view);
    world.mount(&source, &view, ["--policy", "*.y=none"]);
}

/// Stateless locks are of the default space unless they name another.
#[test]
fn a_space_with_a_name_has_locks_of_its_own() {
    let world = World::with_view(["--space", "team"]);
    world.seed("f", "");
    let lock = |more: Value| {
        let mut body = json!({"path": "f", "mode": "write", "owner": "ada", "timeout_ms": 0});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        world.http().post("/v1/locks/acquire", &body)
    };
    assert_eq!(lock(json!({})).status, 200, "nobody holds f of the default space");
    let mut actor = world.actor(&world.view());
    let fd = actor.open("w", "f");
    assert_eq!(lock(json!({"space": "team"})).status, 408);
    actor.close(fd);
    // The kernel tells of the last close a moment later.
    wait_until(SOON, "it is free", || lock(json!({"space": "team"})).status == 200);
    actor.tell(["open", "r", "f"]);
    world.await_waiting("f", 1);
}

#[test]
fn a_space_is_that_of_one_source() {
    let world = World::with_view(["--space", "team"]);
    let other = world.twin();
    let refusal = refused(&world, &other, ["--space", "team"]);
    assert!(refusal.contains(world.source().to_str().unwrap()), "{refusal}");
    let renamed = refused(&world, &world.source(), ["--space", "others"]);
    assert!(renamed.contains("team") && renamed.contains("others"), "{renamed}");
}

#[test]
fn a_second_source_by_host_and_port_has_a_space_of_its_own_and_is_told_so() {
    let mut world = World::new();
    world.seed("f", "");
    fs::write(world.twin().join("f"), "").unwrap();
    let second = world.home().join("second");
    fs::create_dir(&second).unwrap();
    let twin = world.twin();
    world.mount(&twin, &second, [""; 0]);
    let said = world.server_of(&second).so_far();
    assert!(said.contains("default"), "{said}");
    let [mut one, mut two] = [world.actor(&world.view()), world.actor(&second)];
    one.open("w", "f");
    two.open("w", "f");
}

#[test]
fn a_view_that_is_read_only_changes_nothing_and_takes_turns() {
    let mut world = World::new();
    world.seed("f", "text");
    let second = second_view(&mut world, ["--read-only"]);
    let [mut writer, mut reader] = [world.actor(&world.view()), world.actor(&second)];
    for words in [
        &["open", "w", "f"][..],
        &["open", "w+", "new"],
        &["mkdir", "new"],
        &["unlink", "f"],
        &["chmod", "f", "600"],
        &["truncate", "f", "0"],
        &["rename", "f", "g"],
        &["setxattr", "f", "user.x", "y"],
    ] {
        assert_eq!(reader.ask(words), Err(Errno::ROFS), "{words:?}");
    }
    let fd = writer.open("w", "f");
    reader.tell(["open", "r", "f"]);
    world.await_waiting("f", 1);
    writer.close(fd);
    let fd = reader.opened();
    assert_eq!(reader.read(fd, 9), Ok("text".to_owned()));
}

/// The size that the kernel knows of a file is that of its open, also while it is told of changes:
/// cat(1) has the kernel copy so many bytes.
#[test]
fn who_copies_what_another_view_just_appended_to_copies_all_of_it() {
    let mut world = World::new();
    let second = second_view(&mut world, [""; 0]);
    world.seed("f", "");
    let [mut writer, mut reader] = [world.actor(&world.view()), world.actor(&second)];
    for length in 1..=gate_tests::scaled(300, 5000) {
        let fd = writer.open("wa", "f");
        reader.tell(["capture", "sh", "-c", "cat f > copy"]);
        world.await_waiting("f", 1);
        writer.write(fd, "x").unwrap();
        writer.close(fd);
        reader.answer().unwrap();
        assert_eq!(world.source_text("copy").len(), length);
    }
}

/// Mounts another view of the world's source.
pub fn second_view<S: AsRef<OsStr>>(
    world: &mut World,
    args: impl IntoIterator<Item = S>,
) -> PathBuf {
    let [source, point] = [world.source(), world.home().join("second")];
    fs::create_dir(&point).unwrap();
    world.hand_over(&point);
    world.mount(&source, &point, args);
    point
}

#[track_caller]
fn refused<S: AsRef<OsStr>>(
    world: &World,
    source: &Path,
    args: impl IntoIterator<Item = S>,
) -> String {
    let point = world.home().join("refused");
    fs::create_dir_all(&point).unwrap();
    let words = ["mount".as_ref(), "--foreground".as_ref(), source.as_os_str(), point.as_ref()];
    world.gate(words).args(args).run().refusal()
}

#[test]
fn sqlite_in_two_views_of_one_source_loses_nothing() {
    count_with_sqlite("delete");
}

/// Its index lies in memory that all users map: the kernel maps the source's file for each of them.
#[test]
fn sqlite_with_a_write_ahead_log_in_two_views_of_one_source_loses_nothing() {
    count_with_sqlite("wal");
}

#[track_caller]
fn count_with_sqlite(journal_mode: &str) {
    const INCREMENTS: usize = 25;
    let mut world = World::new();
    let second = second_view(&mut world, [""; 0]);
    let twin = world.twin();
    let counted = [[&twin, &twin], [&world.view(), &second]].map(|places| {
        let script = format!(
            r#"
            sqlite3 "$0/count.db" 'pragma journal_mode = {journal_mode}' \
                'create table t (n); insert into t values (0)'
            increment() {{
                {{ printf '.timeout 60000\n'
                   for i in $(seq {INCREMENTS}); do
                       echo 'begin immediate; update t set n = n + 1; commit;'
                   done
                }} | sqlite3 -bail "$1/count.db"
            }}
            for i in 1 2 3 4; do
                increment "$0" & pids="${{pids-}} $!"
                increment "$1" & pids="$pids $!"
            done
            for pid in $pids; do wait $pid || echo "failed $?"; done
            sqlite3 "$1/count.db" 'select n from t; pragma integrity_check'
            "#
        );
        let run = world.script(world.home(), &script).args(places);
        run.within(Duration::from_secs(120)).run().success()
    });
    let expected = format!("{journal_mode}\n{}\nok\n", 8 * INCREMENTS);
    assert_eq!(counted, [expected.clone(), expected]);
}
