//! What a program in a view and somebody beside it write at the same time.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use gate_tests::World;
use gate_tests::world::Standing;
use serde_json::Value;

use super::in_bucket;
use super::mounted::{end, world};

/// A program has the file open that it writes, and meanwhile somebody puts another into the bucket.
fn write_at_once(world: &World, at: &str, (in_view, beside): (&str, &str)) {
    let open = File::options().write(true).open(world.view().join(at)).unwrap();
    let put = world.home().join("put");
    fs::write(&put, beside).unwrap();
    in_bucket(world, &["add", put.to_str().unwrap(), at]).success();
    open.write_all_at(in_view.as_bytes(), 0).unwrap();
    open.set_len(in_view.len() as u64).unwrap();
}

fn told(world: &World, at: &str) -> Value {
    let told = in_bucket(world, &["stat", at, "--json"]).success();
    serde_json::from_str::<Value>(&told).unwrap()["entry"].clone()
}

#[test]
fn n13_texts_that_two_write_at_the_same_time_are_one_in_a_view_and_beside_it() {
    let (world, _) = world(Standing::Runner);
    let base = "1\n2\n3\n4\n5\n";
    for at in ["f", "g"] {
        fs::write(world.view().join(at), base).unwrap();
        assert_eq!(in_bucket(&world, &["cat", at]).success(), base);
    }
    write_at_once(&world, "f", ("one\n2\n3\n4\n5\n", "1\n2\n3\n4\nfive\n"));
    write_at_once(&world, "g", ("one\n2\n3\n4\n5\n", "uno\n2\n3\n4\n5\n"));
    let merged = "one\n2\n3\n4\nfive\n";
    assert_eq!(in_bucket(&world, &["cat", "f"]).success(), merged);
    let (text, other) = (told(&world, "f"), told(&world, "g"));
    assert_eq!((&text["merged_of"], &text["size"]), (&2.into(), &merged.len().into()));
    assert_eq!(other["merged_of"], Value::Null);
    let stat = in_bucket(&world, &["stat", "f"]).success();
    assert!(stat.contains("merged:   from 2 versions"), "{stat}");
    // In the view, too, and wherever it is taken from there.
    let names = in_bucket(&world, &["ls"]).success();
    let listed = world.script(&world.view(), "ls; cat f; stat -c %s f").run().success();
    assert_eq!(listed, format!("{names}{merged}{}\n", merged.len()));
    assert_eq!((names.lines().count(), names.matches("g@").count()), (3, 1), "{names}");
    let out = world.home().join("out");
    in_bucket(&world, &["export", out.to_str().unwrap()]).success();
    assert_eq!(fs::read_to_string(out.join("f")).unwrap(), merged);
    let versions = || in_bucket(&world, &["history", "f"]).success().matches("written").count();
    let before = versions();
    // Who writes it writes in place of both.
    world.script(&world.view(), "echo six >> f").run().success();
    assert_eq!(in_bucket(&world, &["cat", "f"]).success(), format!("{merged}six\n"));
    assert_eq!((told(&world, "f")["merged_of"].clone(), versions()), (Value::Null, before + 1));
    assert_eq!(in_bucket(&world, &["cat", "f", "--at", "~1"]).success(), merged);
    in_bucket(&world, &["undo"]).success();
    assert_eq!(in_bucket(&world, &["cat", "f"]).success(), merged);
    in_bucket(&world, &["fsck", "--read-data"]).success();
    end(&world);
}
