//! What no version of a bucket needs is freed, and nothing else.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use gate_tests::World;
use gate_tests::world::Standing;
use serde_json::Value;

use super::{BUCKETS, in_bucket, listed};
use crate::managed::with_daemon;

/// Makes all that was stored of a bucket two days old.
fn age(world: &World, id: &str) {
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    for pack in fs::read_dir(world.state().join("buckets").join(id).join("packs")).unwrap() {
        let pack = File::options().write(true).open(pack.unwrap().path()).unwrap();
        pack.set_modified(long_ago).unwrap();
    }
}

#[test]
fn what_no_version_needs_is_freed_and_every_version_stays() {
    let (world, rest) = with_daemon(Standing::OrdinaryUser);
    world.gate(["bucket", "create", "notes"]).run().success();
    let bucket = |args: &[&str]| in_bucket(&world, args);
    let freed = || -> Value {
        let told = bucket(&["gc", "--json"]).success();
        serde_json::from_str::<Value>(&told).unwrap()["freed"].clone()
    };
    assert_eq!(bucket(&["gc"]).success(), "nothing was to be freed\n");
    let make = "for name in kept old; do head -c 200000 /dev/urandom > $name; done
        head -c 3000000 /dev/urandom > left";
    world.script(&world.source(), make).run().success();
    bucket(&["add", "source/kept"]).success();
    bucket(&["add", "source/old", "gone"]).success();
    bucket(&["rm", "gone"]).success();
    bucket(&["mkdir", "d"]).success();
    // All of it came before it was seen that it cannot be put there.
    bucket(&["add", "source/left", "/d"]).refusal();
    let young = bucket(&["gc"]);
    assert!(young.stderr.contains("younger than a day"), "{young}");
    assert_eq!(young.success(), "nothing was to be freed\n");
    let (_, id) = listed(&world).remove(0);
    age(&world, &id);
    let stored =
        || rest.ask("GET", &format!("{BUCKETS}/notes")).body["bucket"]["stored_bytes"].clone();
    let before = stored().as_u64().unwrap();
    let told = freed();
    let bytes = told["bytes"].as_u64().unwrap();
    assert!((3_000_000..3_200_000).contains(&bytes), "{told}");
    let after = stored().as_u64().unwrap();
    assert!(before - after > 2_500_000, "{before} bytes were stored, {after} are");
    // By REST, when nothing is left to free.
    let answer = rest.send("POST", &format!("{BUCKETS}/notes/gc"), b"");
    let last = answer.body.as_str().unwrap().lines().last().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!((answer.status, last["done"]["bytes"].as_u64()), (200, Some(0)), "{last}");
    for _ in 0..2 {
        bucket(&["fsck", "--read-data"]).success();
        for (file, name, at) in [("kept", "kept", "@"), ("old", "gone", "~2")] {
            let same = format!("$GATE bucket cat notes {name} --at {at} | cmp - source/{file}");
            world.script(world.home(), &same).env("GATE", world.program("gate")).run().success();
        }
        world.gate(["daemon", "restart"]).run().success();
    }
    // What was left behind can be put all the same.
    bucket(&["add", "source/left"]).success();
    let same = "$GATE bucket cat notes left | cmp - source/left";
    world.script(world.home(), same).env("GATE", world.program("gate")).run().success();
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn versions_that_are_given_up_are_freed_and_said_to_be_gone() {
    let (world, rest) = with_daemon(Standing::OrdinaryUser);
    world.gate(["bucket", "create", "notes"]).run().success();
    let bucket = |args: &[&str]| in_bucket(&world, args);
    for _ in 0..5 {
        world.script(&world.source(), "head -c 300000 /dev/urandom > f").run().success();
        bucket(&["add", "source/f", "f"]).success();
    }
    let (_, id) = listed(&world).remove(0);
    age(&world, &id);
    let told = bucket(&["history", "--json"]).success();
    let told: Value = serde_json::from_str(&told).unwrap();
    let versions: Vec<&str> =
        (0..5).map(|n| told["versions"][n]["version"].as_str().unwrap()).collect();
    // Nobody is there to be asked, and a time before all versions leaves all.
    let refused = bucket(&["gc", "--keep-from", "@"]);
    assert!(refused.refusal().contains("--force"));
    assert_eq!(bucket(&["gc", "--keep-from", "9d", "-f"]).success(), "nothing was to be freed\n");
    assert!(bucket(&["gc", "--keep-from", "ffff", "-f"]).refusal().contains("no such entry"));
    let body = format!("{{\"keep_from\": \"{}\"}}", versions[3]);
    let answer = rest.send("POST", &format!("{BUCKETS}/notes/gc"), body.as_bytes());
    let last = answer.body.as_str().unwrap().lines().last().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    // One of five is less than a quarter of a pack.
    assert_eq!((answer.status, last["done"]["bytes"].as_u64()), (200, Some(0)), "{last}");
    let freed = bucket(&["gc", "--keep-from", "@", "--force"]).success();
    assert!(freed.contains("iB freed"), "{freed}");
    for _ in 0..2 {
        bucket(&["fsck", "--read-data"]).success();
        let same = "$GATE bucket cat notes f | cmp - source/f";
        world.script(world.home(), same).env("GATE", world.program("gate")).run().success();
        for version in &versions[1..] {
            let refused = bucket(&["cat", "f", "--at", version]).refusal();
            assert!(refused.contains("given up") && refused.contains("history"), "{refused}");
        }
        let told = bucket(&["history"]).success();
        assert_eq!(told.matches("(given up)").count(), 4, "{told}");
        assert!(bucket(&["undo"]).refusal().contains("given up"));
        assert!(bucket(&["gc", "--keep-from", versions[2], "-f"]).refusal().contains("given up"));
        world.gate(["daemon", "restart"]).run().success();
    }
    world.gate(["daemon", "stop"]).run().success();
    // Of a note that is damaged nothing is believed, and that is said.
    let kept = world.state().join("buckets").join(&id).join("kept");
    let mut bytes = fs::read(&kept).unwrap();
    bytes[9] ^= 1;
    fs::write(&kept, bytes).unwrap();
    world.gate(["daemon", "start"]).run().success();
    let checked = bucket(&["fsck"]);
    assert_eq!(checked.code, Some(1), "{checked}");
    assert!(checked.stderr.contains("--keep-from"), "{checked}");
    bucket(&["gc", "--keep-from", "@", "-f"]).success();
    bucket(&["fsck"]).success();
    world.gate(["daemon", "stop"]).run().success();
}

/// Nobody knows which chunks an entry named that cannot be read: a backup of it would find them gone.
#[test]
fn nothing_is_freed_where_an_entry_is_damaged() {
    let (world, _) = with_daemon(Standing::Runner);
    world.gate(["bucket", "create", "notes"]).run().success();
    let bucket = |args: &[&str]| in_bucket(&world, args);
    world.script(&world.source(), "head -c 200000 /dev/urandom > f").run().success();
    bucket(&["add", "source/f"]).success();
    bucket(&["mkdir", "d"]).success();
    world.gate(["daemon", "stop"]).run().success();
    let (entries, whole) = {
        let buckets = fs::read_dir(world.state().join("buckets")).unwrap();
        let entries = buckets.map(|bucket| bucket.unwrap().path().join("entries")).next().unwrap();
        (entries.clone(), fs::read(entries).unwrap())
    };
    let mut damaged = whole.clone();
    damaged[200] ^= 1;
    fs::write(&entries, damaged).unwrap();
    world.gate(["daemon", "start"]).run().success();
    let (_, id) = listed(&world).remove(0);
    age(&world, &id);
    let refused = bucket(&["gc"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.refusal().contains("backup"));
    world.gate(["daemon", "stop"]).run().success();
    fs::write(&entries, whole).unwrap();
    world.gate(["daemon", "start"]).run().success();
    let same = "$GATE bucket cat notes f | cmp - source/f";
    world.script(world.home(), same).env("GATE", world.program("gate")).run().success();
    world.gate(["daemon", "stop"]).run().success();
}
