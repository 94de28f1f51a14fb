//! Files of more chunks than one entry has room for.

use gate_tests::wait::wait_until;
use gate_tests::world::Standing;

use super::in_bucket;
use super::mounted::{DEADLINE, end, world};

/// Between what is written are holes: each place is a chunk of its own, and there are more than an entry names.
const PLACES: &str = r#"
import os, sys
COUNT, STEP, CHANGED = 9000, 81920, 4567
what = sys.argv[1]
def said(n): return b"changed" if n == CHANGED and what in ("change", "look") else b"%07d" % n
how = {"write": os.O_RDWR | os.O_CREAT, "change": os.O_RDWR}
fd = os.open("f", how.get(what, os.O_RDONLY), 0o640)
if what == "write":
    for n in range(COUNT): assert os.pwrite(fd, said(n), n * STEP) == 7
if what == "change":
    os.pwrite(fd, said(CHANGED), CHANGED * STEP)
assert os.fstat(fd).st_size == (COUNT - 1) * STEP + 7
for n in range(COUNT): assert os.pread(fd, 9, n * STEP)[:7] == said(n), n
os.close(fd)
print("as it is to be")
"#;

#[test]
fn a_file_longer_than_one_entry_is_stored_whole() {
    let (world, _) = world(Standing::Runner);
    let run = |what: &str| {
        let script = format!("cat > ../places.py <<'E'\n{PLACES}\nE\npython3 ../places.py {what}");
        world.script(&world.view(), &script).within(DEADLINE).run()
    };
    let check = |what: &str| assert_eq!(run(what).success(), "as it is to be\n");
    check("write");
    let told = || in_bucket(&world, &["history", "f"]).success();
    let before = told().matches("written").count();
    check("change");
    // What is asked of the bucket waits until it is a version; a small change of it is one.
    assert_eq!(told().matches("written").count(), before + 1);
    world.gate(["mount", "set", "view", "--auto-mount", "true"]).run().success();
    world.gate(["daemon", "restart"]).run().success();
    let shows = |what: &str| run(what).stdout == "as it is to be\n";
    wait_until(DEADLINE, "it is mounted again", || shows("look"));
    in_bucket(&world, &["undo"]).success();
    wait_until(DEADLINE, "the view shows what was there before", || shows("was"));
    assert_eq!(told().matches("written").count(), before + 2);
    in_bucket(&world, &["fsck"]).success();
    end(&world);
}
