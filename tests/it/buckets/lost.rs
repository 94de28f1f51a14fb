//! What is lost is named by the files that need it.

use std::fs;

use gate_tests::world::Standing;

use super::{in_bucket, listed};
use crate::managed::with_daemon;

/// Where the bytes of the first chunk lie in a pack, more or less.
const IN_THE_FIRST_CHUNK: usize = 1000;

#[test]
fn files_that_are_not_all_there_any_more_are_named_until_they_are() {
    let (world, _) = with_daemon(Standing::Runner);
    world.gate(["bucket", "create", "notes"]).run().success();
    let bucket = |args: &[&str]| in_bucket(&world, args);
    let make = "for name in f g; do head -c 50000 /dev/urandom > $name; done";
    world.script(&world.source(), make).run().success();
    bucket(&["add", "source/f"]).success();
    bucket(&["add", "source/g"]).success();
    bucket(&["mv", "f", "renamed"]).success();
    bucket(&["fsck", "--read-data"]).success();
    let (_, id) = listed(&world).remove(0);
    world.gate(["daemon", "stop"]).run().success();
    let pack = world.state().join("buckets").join(id).join("packs/00000000");
    let mut bytes = fs::read(&pack).unwrap();
    bytes[IN_THE_FIRST_CHUNK] ^= 1;
    fs::write(&pack, bytes).unwrap();
    world.gate(["daemon", "start"]).run().success();
    let history = bucket(&["history", "renamed"]).success();
    let wrote = history.lines().rfind(|line| line.contains("  by ")).unwrap();
    let named = format!("/f, as version {} wrote it, is not all here\n", &wrote[..12]);
    // Also when nothing knows any more that the chunk was ever here.
    for args in [&["fsck", "--read-data"][..], &["fsck"]] {
        let said = bucket(args);
        assert_eq!(said.code, Some(1), "{said}");
        assert!(said.stderr.contains(&named) && !said.stderr.contains("/g"), "{said}");
    }
    bucket(&["add", "source/f", "once-more"]).success();
    // The damaged bytes stay where they are; no file needs them.
    let said = bucket(&["fsck"]);
    assert_eq!(said.code, Some(0), "{said}");
    let same = "$GATE bucket cat notes renamed | cmp - source/f";
    world.script(world.home(), same).env("GATE", world.program("gate")).run().success();
    world.gate(["daemon", "stop"]).run().success();
}
