//! What harms a bucket in use: disks that are full or rot, and who looks at what lies on them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use gate_tests::World;
use gate_tests::dice::{Dice, seed};
use gate_tests::scaled;
use gate_tests::world::Standing;

use super::mounted::{DEADLINE, end, world};
use super::{assert_nothing_says, in_bucket};
use crate::managed::kept::{kill, pid_of_daemon};

/// N12: not even while it is used, before any version is made of what was written.
#[test]
fn n12_nothing_beside_a_view_shows_what_is_written_in_it() {
    let (world, _) = world(Standing::Runner);
    let words =
        ["heather-inline", "heather-chunk", "heather-name", "heather-target", "heather-attr"];
    let mut user = world.actor(&world.view());
    let open = user.open("w+", "heather-name");
    user.write(open, "heather-inline").unwrap();
    let script = r#"
        ln -s heather-target l; mkdir heather-name-too
        for n in $(seq 20000); do printf 'heather-chunk '; done > long; sync long
        python3 -c 'import os; os.setxattr("long", "user.heather-attr", b"heather-attr")'
        mv long heather-name-too/moved; sync -f ."#;
    world.script(&world.view(), script).run().success();
    let assert_nothing_shows = || assert_nothing_says(&world.state(), &words);
    // Who asks the broker that runs is told.
    let told = world.gate(["log"]).run().success();
    assert!(told.contains("heather-name"), "{told}");
    assert_nothing_shows();
    // The one that is open is in no version yet; nor is any in what the daemon shows of itself.
    let shown = "cat /proc/$1/cmdline /proc/$1/environ; ls -l /proc/$1/fd /proc/$1/map_files";
    let pid = pid_of_daemon(&world).to_string();
    let sh = world.command("sh".as_ref()).args(["-c", shown, "sh", &pid]).run().success();
    for word in words {
        assert!(!sh.contains(word), "{word}: {sh}");
    }
    user.close(open);
    drop(user);
    in_bucket(&world, &["ls", "-R"]).success();
    assert_nothing_shows();
    end(&world);
    assert_nothing_shows();
    world.gate(["daemon", "start"]).run().success();
    let told = world.gate(["log"]).run().success();
    assert!(told.contains("(in ") && !told.contains("heather"), "{told}");
    end(&world);
}

#[test]
fn a_check_leaves_those_alone_who_read_a_bucket_as_it_was() {
    let (world, _) = world(Standing::Runner);
    world.script(&world.view(), "truncate -s 256M f").run().success();
    let mut stream = UnixStream::connect(world.state().join("http.sock")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let get =
        "GET /api/v0/buckets/notes/export HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(get.as_bytes()).unwrap();
    let mut archive = vec![0; 4096];
    stream.read_exact(&mut archive).unwrap();
    // Nobody takes the rest yet.
    let refused = in_bucket(&world, &["fsck"]).refusal();
    assert!(refused.contains("as it was") && refused.contains("wait until"), "{refused}");
    stream.read_to_end(&mut archive).unwrap();
    assert!(archive.len() > 256 << 20 && archive.ends_with(b"0\r\n\r\n"), "{}", archive.len());
    in_bucket(&world, &["fsck"]).success();
    end(&world);
}

#[test]
fn a_view_of_a_bucket_on_a_full_disk_says_so_and_keeps_what_was_written() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    world.lay_small_disk(&world.state(), "48m");
    world.gate(["daemon", "start"]).run().success();
    world.gate(["bucket", "create", "notes"]).run().success();
    world.gate(["mount", "add", "notes", "view", "--start"]).run().success();
    let script =
        "echo kept > kept; sync kept; head -c 1000000 /dev/urandom > some; sync some; cksum some";
    let before = world.script(&world.view(), script).run().success();
    let fill = "head -c 90000000 /dev/urandom 2>&1 > big || true; sync big 2>&1 || true";
    let full = world.script(&world.view(), fill).run().success();
    assert!(full.contains("No space left on device"), "{full}");
    let same = "cat kept; cksum some";
    assert_eq!(world.script(&world.view(), same).run().success(), format!("kept\n{before}"));
    // Somebody makes room: all goes on, by what is there and by what is new.
    let larger = format!("mount -o remount,size=300m {}", world.state().display());
    world.script(world.home(), &larger).run().success();
    let script = "rm -f big; head -c 20000000 /dev/urandom > new; sync new; cksum new";
    let new = world.script(&world.view(), script).run().success();
    world.gate(["daemon", "restart"]).run().success();
    world.gate(["mount", "start", "view"]).run().success();
    let same = "cat kept; cksum some; cksum new";
    assert_eq!(world.script(&world.view(), same).run().success(), format!("kept\n{before}{new}"));
    in_bucket(&world, &["fsck", "--read-data"]).success();
    world.gate(["daemon", "stop"]).run().success();
    world.script(world.home(), "umount state").run().success();
}

/// Each file of the store in turn, at a place that nobody chose: nobody is given what was not written, what is gone is said to
/// be, and all else is read.
#[test]
fn a_bit_that_flipped_anywhere_is_found_and_named_and_the_rest_is_read() {
    let (world, _) = world(Standing::Runner);
    let mut dice = Dice::new(seed());
    // Of so much in entries a checkpoint is made.
    let make = "for n in $(seq 5); do head -c 100000 /dev/urandom > f$n; echo $n > s$n; done
        mkdir many; head -c 1200000 /dev/urandom | split -a 4 -b 1000 - many/; sync -f .";
    world.script(&world.view(), make).run().success();
    in_bucket(&world, &["gc", "--keep-from", "@", "-f"]).success();
    world.script(&world.view(), "echo more > f1").run().success();
    in_bucket(&world, &["ls"]).success();
    // Who is killed leaves a log.
    world.script(&world.view(), "echo last > s1; sync s1").run().success();
    kill(pid_of_daemon(&world));
    let (bucket, saved) = (only_bucket(&world), world.home().join("saved"));
    let id = bucket.file_name().unwrap().to_str().unwrap().to_owned();
    let copy = |from: &Path, to: &Path| {
        let script = format!("rm -rf '{1}'; cp -a '{0}' '{1}'", from.display(), to.display());
        world.script(world.home(), &script).run().success();
    };
    copy(&bucket, &saved);
    // Each file: what it holds, or nothing where it is refused.
    let contents = || -> Vec<String> {
        let all = "for f in f1 f2 f3 f4 f5 s1 s2 s3 s4 s5; do
            \"$GATE\" bucket cat \"$ID\" $f > out 2> /dev/null && cksum < out || echo; done";
        let run = world.script(world.home(), all).env("GATE", world.program("gate")).env("ID", &id);
        run.run().success().lines().map(str::to_owned).collect()
    };
    world.gate(["daemon", "start"]).run().success();
    let whole = contents();
    assert!(whole.iter().all(|said| !said.is_empty()), "{whole:?}");
    world.gate(["daemon", "stop"]).run().success();
    let logs = ["genesis", "members", "entries", "dirty", "kept", "name"];
    let files = logs.into_iter().chain(["packs/00000000", "index", "checkpoint"]);
    for round in 0..scaled(1, 40) {
        for name in files.clone() {
            copy(&saved, &bucket);
            let file = fs::File::options().read(true).write(true).open(bucket.join(name)).unwrap();
            let len = file.metadata().unwrap().len();
            let (at, mut byte) = (dice.below(usize::try_from(len).unwrap()) as u64, [0]);
            file.read_exact_at(&mut byte, at).unwrap();
            byte[0] ^= 1 << dice.below(8);
            file.write_all_at(&byte, at).unwrap();
            world.gate(["daemon", "start"]).run().success();
            let found = contents();
            let checked = world.gate(["bucket", "fsck", &id, "--read-data"]).run();
            let what = format!("{round}: {name}, byte {at} of {len}: {found:?}, {checked}");
            let is_named = checked.code == Some(1);
            // Of the log the end is not told from what was never written.
            let may_be_older = |at: usize| match name {
                "dirty" => at == 5,
                "entries" => is_named,
                _ => false,
            };
            for (at, (found, whole)) in found.iter().zip(&whole).enumerate() {
                assert!(found == whole || found.is_empty() || may_be_older(at), "{what}");
            }
            let lost = found.iter().zip(&whole).filter(|(found, whole)| found != whole).count();
            match name {
                // Without these nobody has the bucket, nor any that came after what is damaged.
                "genesis" | "members" | "entries" => assert!(lost == 0 || is_named, "{what}"),
                "packs/00000000" => assert!(lost == 0 || (is_named && lost == 1), "{what}"),
                "kept" => assert!(lost == 0 && is_named, "{what}"),
                // What is elsewhere, too, and what was written last.
                _ => assert!(lost <= usize::from(name == "dirty") && !is_named, "{what}"),
            }
            world.gate(["daemon", "stop"]).run().success();
        }
    }
    for gone in [&[][..], &["index"], &["index", "checkpoint"]] {
        copy(&saved, &bucket);
        gone.iter().for_each(|name| fs::remove_file(bucket.join(name)).unwrap());
        world.gate(["daemon", "start"]).run().success();
        assert_eq!(contents(), whole, "without {gone:?}");
        world.gate(["bucket", "fsck", &id, "--read-data"]).run().success();
        world.gate(["daemon", "stop"]).run().success();
    }
    world.gate(["daemon", "start"]).run().success();
    end(&world);
}

fn only_bucket(world: &World) -> PathBuf {
    let mut buckets = fs::read_dir(world.state().join("buckets")).unwrap();
    buckets.next().unwrap().unwrap().path()
}
