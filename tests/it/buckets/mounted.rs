//! The view of a bucket: a directory like any other, for tools that know nothing of Gate.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use gate_tests::dice::{Dice, seed};
use gate_tests::rest::Rest;
use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel, scaled, tree};

use super::in_bucket;
use crate::managed::kept::{kill, pid_of_daemon};
use crate::managed::with_daemon;
use crate::tools::{self, UNSTABLE};

/// Long enough for a `git gc` on a busy machine of two cores.
pub(super) const DEADLINE: Duration = Duration::from_secs(180);

/// A world whose view shows the bucket `notes`.
pub(crate) fn world(standing: Standing) -> (World, Rest) {
    let (world, rest) = with_daemon(standing);
    world.gate(["bucket", "create", "notes"]).run().success();
    let added = world.gate(["mount", "add", "notes", "view", "--start"]).run().success();
    assert!(added.contains("is mounted at"), "{added}");
    (world, rest)
}

pub(crate) fn end(world: &World) {
    world.gate(["daemon", "stop"]).run().success();
    assert!(kernel::mounts_below(world.home()).is_empty());
}

/// Does the same in the bucket and on the bare directory.
#[track_caller]
fn check(script: &str) {
    let (world, _) = world(Standing::Runner);
    world.says_as_bare(script, DEADLINE);
    tree::assert_same(&world.twin(), &world.view(), &UNSTABLE);
    // What is in entries is what was shown.
    let [twin, out] = [world.twin(), world.home().join("out")];
    in_bucket(&world, &["export", out.to_str().unwrap()]).success();
    let differs = format!("diff -r --no-dereference {} {}", twin.display(), out.display());
    let excluded =
        UNSTABLE.map(|name| format!(" -x {}", Path::new(name).file_name().unwrap().display()));
    world.script(world.home(), &(differs + &excluded.concat())).run().success();
    in_bucket(&world, &["fsck", "--read-data"]).success();
    end(&world);
}

#[test]
fn a_bucket_is_mounted_used_and_found_again() {
    for standing in [Standing::Runner, Standing::OrdinaryUser] {
        let (world, _) = world(standing);
        // As old as the bucket, which was just made.
        world.script(&world.view(), "find . -maxdepth 0 -mmin -60 | grep -q .").run().success();
        world
            .script(&world.view(), "mkdir -p a/b; echo text > a/b/f; ln -s f a/b/l")
            .run()
            .success();
        // What is seen in the view is in the bucket at once, for whoever asks that.
        assert_eq!(in_bucket(&world, &["cat", "a/b/f"]).success(), "text\n");
        // And what is done to the bucket is seen in the view.
        let file = world.home().join("new");
        fs::write(&file, "other").unwrap();
        world.hand_over(&file);
        assert_eq!(world.script(&world.view(), "cat a/b/l").run().success(), "text\n");
        in_bucket(&world, &["add", file.to_str().unwrap(), "a/b/f"]).success();
        let shows = || world.script(&world.view(), "cat a/b/f").run().success() == "other";
        wait_until(SOON, "the view shows it", shows);
        let taken = world.gate(["bucket", "delete", "-f", "notes"]).run();
        assert_eq!(taken.code, Some(1), "{taken}");
        let twice = world.gate(["mount", "add", "notes", "second", "--start"]).run();
        assert!(twice.stderr.contains("the bucket is mounted at"), "{twice}");
        world.gate(["mount", "remove", "-f", "second"]).run().success();
        world.gate(["bucket", "rename", "notes", "diary"]).run().success();
        let listed = world.gate(["mount", "list"]).run().success();
        assert!(listed.contains("diary"), "{listed}");
        world.gate(["bucket", "rename", "diary", "notes"]).run().success();
        world.gate(["mount", "set", "view", "--auto-mount", "true"]).run().success();
        world.gate(["daemon", "restart"]).run().success();
        let is_back = || world.script(&world.view(), "cat a/b/f").run().stdout == "other";
        wait_until(SOON, "it is mounted again", is_back);
        let mut user = world.actor(&world.view());
        let fd = user.open("r", "a/b/f");
        let busy = world.gate(["mount", "stop", "view"]).run().refusal();
        assert!(busy.contains("in use by"), "{busy}");
        user.close(fd);
        drop(user);
        end(&world);
    }
}

/// What was written is still on its way into the bucket when nothing is mounted any more.
#[test]
fn a_daemon_stops_right_after_somebody_unmounted_a_bucket() {
    let (world, _) = world(Standing::Runner);
    for round in 0..3 {
        let script = format!("head -c 8000000 /dev/urandom > {round}");
        world.script(&world.view(), &script).run().success();
        world.gate(["umount", "view"]).run().success();
        world.gate(["daemon", "stop"]).run().success();
        world.gate(["daemon", "start"]).run().success();
        world.gate(["mount", "start", "view"]).run().success();
    }
    let sizes = world.script(&world.view(), "stat -c %s 0 1 2").run().success();
    assert_eq!(sizes, "8000000\n".repeat(3));
    end(&world);
}

#[test]
fn what_was_read_of_a_bucket_long_ago_needs_no_memory() {
    const MUCH: usize = 12 << 20;
    let (world, _) = world(Standing::Runner);
    world.gate(["mount", "set", "view", "--cache-ttl-secs", "5"]).run().success();
    world.script(&world.view(), &format!("head -c {} /dev/urandom > f", 2 * MUCH)).run().success();
    // What it took to write it is not counted.
    world.gate(["daemon", "restart"]).run().success();
    world.gate(["mount", "start", "view"]).run().success();
    let daemon = pid_of_daemon(&world);
    let before = kernel::memory(daemon);
    world.script(&world.view(), "cat f > /dev/null").run().success();
    let after = kernel::memory(daemon);
    assert!(after > before + MUCH, "{before} bytes before, {after} after");
    wait_until(SOON * 6, "it is given back", || kernel::memory(daemon) < before + MUCH / 2);
    end(&world);
}

/// N1: whoever writes to a file of a bucket is alone.
#[test]
fn n1_writers_of_a_bucket_take_turns() {
    let (world, _) = world(Standing::Runner);
    world.script(&world.view(), "echo one > f").run().success();
    let mut first = world.actor(&world.view());
    let fd = first.open("rw", "f");
    let mut second = world.actor(&world.view());
    second.tell(["open", "rw", "f"]);
    world.await_waiting("f", 1);
    first.write(fd, "two").unwrap();
    first.close(fd);
    let fd = second.opened();
    assert_eq!(second.read(fd, 3).unwrap(), "two");
    second.close(fd);
    drop((first, second));
    end(&world);
}

#[test]
fn git_clones_commits_and_packs_in_a_bucket() {
    check(&tools::git(20));
}

#[test]
fn editors_and_coreutils_change_files_of_a_bucket() {
    check(
        r#"
        printf 'one\ntwo\n' > f
        sed -i s/one/ONE/ f; cat f
        for copy in yes no auto; do
            vim -es -u NONE -c "set backupcopy=$copy" -c "1s/.*/$copy/" -c wq f; cat f
        done
        cp -a f g; ln g h; ln -s h i; stat -c '%n %a %h %s' f g h
        truncate -s 100000 g; printf x | dd of=g bs=1 seek=50000 conv=notrunc status=none; cksum g
        truncate -s 10 g; cksum h
        mv f g; cat h | wc -c; cat g
        mkdir -p d/e; mv d/e d/f; rmdir d/f; touch -d '2001-02-03 04:05:06.789' d; stat -c %y d
        install -m 755 g bin; ./bin 2> /dev/null || echo $?
        chmod 640 g; stat -c %a g; python3 -c 'import os; os.setxattr("g", "user.a", b"b"); print(os.getxattr("g", "user.a"), os.listxattr("h"))'
        mv -T d n; mkdir d; mv -T d n; ls
        dd if=/dev/zero of=big bs=1M count=3 status=none; echo end >> big; cksum big; fallocate -p -o 4096 -l 8192 big; cksum big
        cat big big > both; cmp both <(cat big big) && rm big
        find . | sort
        "#,
    );
}

#[test]
fn archives_and_databases_live_in_a_bucket() {
    check(
        r#"
        mkdir -p t/a/b; for n in $(seq 60); do seq $n > t/a/$n; done; ln -s ../1 t/a/b/l; ln t/a/2 t/a/b/h
        tar cf t.tar t; mkdir out; tar xf t.tar -C out; diff -r t out/t; rm t.tar
        rsync -a t/ r/; echo more >> t/a/7; rsync -a --delete t/ r/; diff -r t r; rm -r out
        sqlite3 db 'create table t(a integer primary key, b);'
        for n in $(seq 30); do sqlite3 db "insert into t(b) values ($n);"; done
        sqlite3 db 'pragma journal_mode=wal; insert into t(b) values (99); select count(*), sum(b) from t; pragma integrity_check;'
        sqlite3 db 'select count(*) from t'
        "#,
    );
}

#[test]
fn a_crate_is_built_and_run_in_a_bucket() {
    check(
        r#"
        cargo init -q --vcs none --name built .
        for n in $(seq 9); do echo "pub const N: u32 = $n;" > src/m$n.rs; echo "mod m$n;" >> src/main.rs; done
        echo 'pub fn sum() -> u32 { m1::N + m9::N }' >> src/main.rs
        sed -i 's/"Hello, world!"/"{}", sum()/' src/main.rs
        cargo run -q --offline 2> /dev/null; sed -i s/9/90/ src/m9.rs; cargo run -q --offline 2> /dev/null
        cargo test -q --offline > /dev/null 2>&1; echo $?
        "#,
    );
}

#[test]
fn fsx_in_a_bucket_does_its_operations() {
    let (world, _) = world(Standing::Runner);
    let operations = scaled(2_000, 100_000).to_string();
    let seed = (seed() >> 1).to_string();
    for (name, weights) in [("mapped", ""), ("unmapped", "mapread = 0\nmapwrite = 0\n")] {
        let config = world.home().join("fsx.toml");
        let weights = format!(
            "flen = 262144\n[opsize]\nmin = 1\n[weights]\nclose_open = 5\ntruncate = 5\ninvalidate = 1\nfsync = 1\n\
             fdatasync = 1\nposix_fallocate = 2\npunch_hole = 2\nsendfile = 2\nposix_fadvise = 1\n{weights}"
        );
        fs::write(&config, weights).unwrap();
        let run = world
            .command(&world.program("fsx"))
            .args(["-N", &operations, "-S", &seed, "-P"])
            .args([world.home(), "-f".as_ref(), &config, &world.view().join(name)]);
        let said = run.within(DEADLINE * 4).run().success();
        assert!(said.contains("All operations completed"), "{name}: {said}");
    }
    end(&world);
}

/// N8, N14: whatever was synced is there after a crash, all of it or what came later, and so is what was closed.
#[test]
fn n8_what_was_synced_in_a_bucket_outlasts_a_killed_daemon() {
    let (world, _) = world(Standing::Runner);
    let mut dice = Dice::new(seed());
    for round in 0..scaled(4, 200) {
        let writer = format!(
            r#"
import os, sys
for n in range(10**6):
    name = "%d-%d" % ({round}, n % 7)
    f = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(f, 0)
    os.pwrite(f, (b"%09d\n" % n) * (1 + n % 5000), 0)
    if n % 3 == 0: os.fsync(f)
    os.close(f)
    if n % 5 == 0:
        os.rename(name, "kept-" + name)
        name = "kept-" + name
    sys.stdout.write("%s %d\n" % (name, n)); sys.stdout.flush()
"#
        );
        let noted = world.home().join(format!("noted-{round}"));
        let script = world.home().join("writer.py");
        fs::write(&script, writer).unwrap();
        let run = format!("python3 {} > {} 2>/dev/null || true", script.display(), noted.display());
        let wanted = dice.below(60) + 5;
        std::thread::scope(|scope| {
            let running = scope.spawn(|| world.script(&world.view(), &run).within(DEADLINE).run());
            let count = || fs::read_to_string(&noted).map_or(0, |text| text.lines().count());
            wait_until(SOON, "it writes", || count() >= wanted);
            kill(pid_of_daemon(&world));
            running.join().unwrap();
        });
        world.gate(["daemon", "start"]).run().success();
        world.gate(["mount", "start", "view"]).run().success();
        // The newest of each name is there as it was closed, but for those that were being written.
        let text = fs::read_to_string(&noted).unwrap();
        let mut newest = BTreeMap::new();
        let mut last = 0;
        for line in text.rsplit_once('\n').map_or("", |(whole, _)| whole).lines() {
            let (name, n) = line.split_once(' ').unwrap();
            last = n.parse::<usize>().unwrap();
            newest.remove(name.strip_prefix("kept-").unwrap_or(name));
            newest.insert(name.to_owned(), last);
        }
        let written = format!("{round}-{}", (last + 1) % 7);
        newest.retain(|name, _| !name.ends_with(&written));
        assert!(!newest.is_empty());
        for (name, n) in newest {
            let found = fs::read_to_string(world.view().join(&name));
            let found = found.unwrap_or_else(|error| panic!("{name} of {n}: {error}"));
            let is_whole = found == format!("{n:09}\n").repeat(1 + n % 5000);
            let first = found.lines().next();
            assert!(is_whole, "{name} of {n} has {} bytes and begins {first:?}", found.len());
        }
        in_bucket(&world, &["fsck"]).success();
    }
    end(&world);
}
