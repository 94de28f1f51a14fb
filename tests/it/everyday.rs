//! Everyday work that a gate must not freeze.
//!
//! "As on the bare directory, within a second more": that is measured against the same script on the
//! bare directory in the same moment, some times where something else keeps the machine busy. Each case is
//! worked in a view of its own, and in one beside a load that keeps the same directory busy. There what
//! waits for the load takes its time, too; so the scripts have a deadline far above that
//! second and far below `read_wait` (30 s), which is what a freeze would last.

use std::time::Duration;

use gate_tests::World;
use gate_tests::kernel;
use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_until};
use rustix::process::Signal;

const NO_FREEZE: Duration = Duration::from_secs(15);
/// What a view may add to a script: who opens many files pays for each.
const MORE: Duration = Duration::from_secs(1);
const TIMES: u32 = 5;
/// How often a script is given the chance to show that it takes no longer.
const TRIES: usize = 3;
/// The machine itself is slow by then; a freeze would last for as long as the load.
const NO_FREEZE_UNDER_LOAD: Duration = Duration::from_secs(60);

/// Writers of one file and of their own, saves by rename, readers of all there is. They open more
/// than one file at a time and may be told of a deadlock.
const LOAD: [&str; 4] = [
    "while :; do echo one >> .load/all; echo $0 > .load-own-$0; done",
    "while :; do cat .load/all > .load-copy-$0; : > .load/all; done",
    "while :; do echo saved > .load-new-$0; mv .load-new-$0 .load-saved-$0; done",
    "while :; do rg -c --hidden . > /dev/null; find . -type f > /dev/null; done 2>&1",
];
/// Processes of each.
const LOAD_EACH: usize = 2;

#[test]
fn git_gc_beside_a_pager_that_keeps_packs_mapped() {
    check(
        r#"
        git init -q -b main .
        for i in $(seq 20); do
            seq $((i * 1000)) > numbers.txt; git add numbers.txt; git commit -q -m $i
        done
        git gc -q
        seq 5 > numbers.txt; git commit -q -a -m last
        pipe=$(mktemp -u) && mkfifo $pipe
        git log -p > $pipe &
        exec 3< $pipe
        read -r line <&3
        git gc -q --prune=now
        cat <&3 | md5sum
        wait $!
        git fsck --no-progress
        "#,
    );
}

#[test]
fn rebuilding_a_running_binary() {
    check(
        r#"
        printf '#include <stdio.h>\nint main(void) { puts("one"); fflush(stdout); getchar(); puts(TWO); }\n' > prog.c
        pipe=$(mktemp -u) && mkfifo $pipe
        cc -DTWO='"old"' -o prog prog.c
        ./prog < $pipe > out &
        exec 3> $pipe
        until [ -s out ]; do :; done
        cc -DTWO='"new"' -o prog prog.c
        echo | ./prog
        cc -DTWO='"newest"' -o other prog.c
        echo >&3
        wait $!
        cat out
        rm out

        ./prog < $pipe > out &
        exec 3> $pipe
        until [ -s out ]; do :; done
        LC_ALL=C cp other prog 2>&1 || echo "cp $?"
        : > prog || echo "truncate $?"
        mv other prog
        echo | ./prog
        echo >&3
        wait $!
        cat out
        rm prog
        "#,
    );
}

#[test]
fn moving_node_modules_away_under_open_files() {
    check(
        r#"
        mkdir -p node_modules/a
        echo index > node_modules/a/index.js
        echo old > node_modules/a/notes.txt
        exec 3< node_modules/a/index.js 4>> node_modules/a/notes.txt
        mv node_modules old
        mkdir -p node_modules/a
        echo fresh > node_modules/a/index.js
        cat <&3
        echo more >&4
        cat old/a/notes.txt
        exec 3<&- 4>&-
        rm -rf old
        cat node_modules/a/index.js
        "#,
    );
}

#[test]
fn a_lock_file_taken_by_flock() {
    for name in ["l", "x.lock"] {
        check(&format!(
            r#"
            exec 9>{name}
            flock -n 9
            bash -c 'exec 8>{name}; flock -n 8' || echo "second $?"
            exec 9>&-
            bash -c 'exec 8>{name}; flock -n 8' && echo again
            "#
        ));
    }
}

/// A lock file that is gated waits where flock would fail, and can be interrupted.
#[test]
fn a_gated_lock_file_waits_for_the_process_that_has_it_open() {
    for scene in Scene::both([""; 0]) {
        let world = &scene.world;
        let [mut first, mut second] = [world.actor(&world.view()), world.actor(&world.view())];
        let held = first.open("w+", "l");
        assert_eq!(first.on("flock", held, &["x"]), Ok(String::new()));
        second.tell(["open", "w+", "l"]);
        wait_until(SOON, "the second waits", || {
            world.board().waiting("l").any(|lock| lock.pid == Some(second.pid()))
        });
        assert!(second.is_busy());
        let third = world.script(&world.view(), "exec 9>l; flock -n 9").start();
        wait_until(SOON, "the third waits", || {
            world.board().waiting("l").any(|lock| lock.pid == Some(third.pid()))
        });
        third.signal(Signal::INT);
        assert_eq!(third.finish(SOON).signal, Some(Signal::INT.as_raw()));
        first.close(held);
        let taken = second.opened();
        assert_eq!(second.on("flock", taken, &["x"]), Ok(String::new()));
    }
}

#[test]
fn a_pipeline_whose_ends_append_to_one_error_file() {
    check("set +o pipefail; yes 2>>e | head -n 3 2>>e; { echo a >&2; yes; } 2>>e | head -n 2 2>>e");
}

#[test]
fn two_shells_that_read_and_append_one_file_go_on_until_one_is_told_of_a_deadlock() {
    for scene in Scene::both([""; 0]) {
        let world = &scene.world;
        world.seed("f", "one\ntwo\n");
        let loops = "exec 3<f; echo ready; read -r go
                     for i in $(seq 20); do read -r l <&3; echo x >>f; done; echo done";
        let mut shells: Vec<_> =
            (0..2).map(|_| world.script(&world.view(), loops).start_with_input()).collect();
        for shell in &shells {
            wait_until(SOON, "both shells have the file open", || shell.so_far().contains("ready"));
        }
        for shell in &mut shells {
            std::io::Write::write_all(&mut shell.stdin(), b"go\n").unwrap();
        }
        let outcomes: Vec<_> =
            shells.into_iter().map(|shell| shell.finish(scene.deadline())).collect();
        let refused = outcomes.iter().filter(|o| o.stderr.contains("deadlock avoided")).count();
        let done = outcomes.iter().filter(|o| o.stdout.contains("done")).count();
        assert_eq!((refused, done), (1, 1), "{outcomes:?}");
        let why = world.gate(["why"]).args([world.view().join("f")]).run().success();
        assert!(why.contains("EDEADLK"), "{why}");
    }
}

#[test]
fn following_the_log_of_a_server() {
    for scene in Scene::both([""; 0]) {
        let world = &scene.world;
        world.seed("server.log", "started\n");
        let mut server = world.actor(&world.view());
        let log = server.open("wa", "server.log");
        let tail = world.script(&world.view(), "exec tail -f server.log").start();
        wait_until(SOON, "tail shows what is there", || tail.so_far().contains("started"));
        server.write(log, "request").unwrap();
        wait_until(SOON, "tail shows what is new", || tail.so_far().contains("request"));
        assert!(tail.is_running());
    }
}

#[test]
fn searching_a_tree_with_open_writers() {
    for mut scene in Scene::both(["--read-wait", "300ms"]) {
        let world = &scene.world;
        let tree = "mkdir t; for i in $(seq 200); do echo needle $i > t/$i.txt; done";
        for dir in [world.twin(), world.view()] {
            world.script(&dir, tree).run().success();
        }
        let mut writers: Vec<_> = (1..=3).map(|_| world.actor(&world.view())).collect();
        for (number, writer) in (1..).zip(&mut writers) {
            writer.open("wa", format!("t/{number}.txt"));
        }
        let script = "rg --sort path needle; find t -type f -exec md5sum {} + | sort";
        world.says_as_bare(script, scene.deadline());
        drop(writers);
        scene.end_load();
        scene.world.looks_as_bare(&[]);
    }
}

#[test]
fn one_process_reads_and_writes_one_file() {
    check(
        r#"
        seq 5 > f
        exec 3<f 4>>f 5<>f
        read -r a <&3; echo six >&4; read -r b <&5; echo $a $b
        exec 3<&- 4>&- 5<&-
        while read -r l; do [ $l = 3 ] && echo seven >> f; done < f
        sort f -o f; cat f
        echo created 1<>new; cat new
        "#,
    );
}

#[test]
fn names_that_are_no_text_and_links_of_both_kinds() {
    check(
        r#"
        name=$(printf 'n\xff\xfe')
        echo bytes > "$name" && cat "$name" && mv "$name" "$name$name" && ls | od -c
        ln -s target/of/link link && readlink link
        echo x > one && ln one two && echo y >> two && cat one && stat -c %h one two && rm one && cat two
        ln -s two through && echo z >> through && cat two
        "#,
    );
}

#[test]
fn a_file_removed_while_open_leaves_no_litter() {
    check(
        r#"
        echo kept > f
        exec 3<>f
        rm f
        ls -A -I '.load*'
        cat <&3
        echo more >&3
        echo other > f && mv f g && ls -A -I '.load*'
        "#,
    );
}

#[track_caller]
fn check(script: &str) {
    for mut scene in Scene::both([""; 0]) {
        scene.world.says_as_bare(script, scene.deadline());
        let is_quiet = scene.load.is_empty();
        scene.end_load();
        scene.world.looks_as_bare(&[".git", "prog", "other"]);
        if is_quiet {
            takes_as_long_as_bare(&scene.world, script);
        }
    }
}

/// Runs a script in the view and on the bare directory at the same time, and again where it took
/// longer in the view than it may.
#[track_caller]
fn takes_as_long_as_bare(world: &World, script: &str) {
    let mut seen = Vec::new();
    let takes_no_longer = (1..=TRIES).any(|number| {
        let [bare, view] = [world.twin(), world.view()].map(|dir| {
            let dir = dir.join(format!("again-{number}"));
            std::fs::create_dir(&dir).unwrap();
            world.git_script(&dir, script).start()
        });
        let [bare, view] = [bare, view].map(|running| {
            let outcome = running.finish(NO_FREEZE_UNDER_LOAD);
            assert_eq!(outcome.code, Some(0), "{outcome}");
            outcome.took
        });
        let more = view.saturating_sub(bare);
        seen.push((bare, more));
        more <= MORE + bare * TIMES
    });
    println!("on the bare directory, and how much longer in the view: {seen:?}");
    assert!(takes_no_longer, "it took so much longer than on the bare directory: {seen:?}");
}

/// A world, and what keeps its view busy.
struct Scene {
    load: Vec<Running>,
    world: World,
}

impl Scene {
    /// Sets a quiet scene, and then a busy one.
    fn both<const N: usize>(mount: [&'static str; N]) -> impl Iterator<Item = Scene> {
        [0, LOAD_EACH].into_iter().map(move |each| {
            let world = World::with_view(mount);
            world.script(&world.view(), "mkdir .load").run().success();
            let loops = (0..each).flat_map(|_| LOAD).zip(0..);
            let start = |(script, number): (&str, usize)| {
                let script = format!("set +e; {script}");
                world.script(&world.view(), &script).args([number.to_string()]).start()
            };
            let load: Vec<Running> = loops.map(start).collect();
            if !load.is_empty() {
                wait_until(SOON, "the load is at it", || world.source().join(".load/all").exists());
            }
            Scene { load, world }
        })
    }

    fn deadline(&self) -> Duration {
        if self.load.is_empty() { NO_FREEZE } else { NO_FREEZE_UNDER_LOAD }
    }

    /// What the loops started dies a little after them.
    fn kill_load(&mut self) {
        self.load.clear();
        let view = self.world.view();
        let works_there = |pid: i32| {
            let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
            cwd.is_ok_and(|cwd| cwd.starts_with(&view))
        };
        wait_until(SOON, "the load is gone", || {
            !kernel::processes_of(self.world.home()).iter().any(|(pid, _)| works_there(*pid))
        });
    }

    /// Ends the load, which leaves nothing.
    fn end_load(&mut self) {
        assert!(self.load.iter().all(Running::is_running), "the load ended by itself");
        self.kill_load();
        self.world.script(&self.world.view(), "rm -rf .load .load-*").run().success();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !self.load.is_empty() && !std::thread::panicking() {
            self.kill_load();
        }
    }
}
