//! Files that are saved by a rename in the view of a bucket: to programs it is as everywhere, and the bucket has versions of
//! one file.

use gate_tests::world::Standing;

use super::in_bucket;
use super::mounted::{DEADLINE, end, world};

/// Says the same in a bucket and on a bare directory. Whoever has a file open when it is replaced has that file.
const NUMBERS: &str = r#"
import os
def text(fd): return os.pread(fd, 100, 0)
def known(): return {e.name: e.inode() for e in os.scandir(".")}
def put(name, said, keep=False):
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
    os.write(fd, said)
    if keep: return fd
    os.close(fd)
put("f", b"first")
for n in range(20):
    old = os.open("f", os.O_RDONLY)
    was = os.stat("f").st_ino
    assert os.fstat(old).st_ino == was
    said = b"%d" % n
    new = put("tmp", said, n % 2 == 0)
    number = os.stat("tmp").st_ino
    assert number != was
    before = text(old)
    os.rename("tmp", "f")
    assert os.stat("f").st_ino == number, "it is what was renamed"
    assert known()["f"] == number
    assert os.fstat(old).st_ino == was and text(old) == before, "whoever had it open has it"
    print(n, os.fstat(old).st_nlink, os.fstat(old).st_size, open("f", "rb").read() if not new else "")
    if new:
        assert os.fstat(new).st_ino == number
        os.pwrite(new, b"more", 1)
        print(text(new), os.stat("f").st_size, text(old))
        os.close(new)
    os.close(old)
    print(open("f", "rb").read(), oct(os.stat("f").st_mode), os.stat("f").st_nlink, os.listdir("."))
"#;

#[test]
fn what_is_renamed_over_a_file_of_a_bucket_is_to_programs_as_everywhere() {
    let (world, _) = world(Standing::Runner);
    world.says_as_bare(
        &format!("cat > ../numbers.py <<'E'\n{NUMBERS}\nE\npython3 ../numbers.py"),
        DEADLINE,
    );
    in_bucket(&world, &["fsck", "--read-data"]).success();
    end(&world);
}

#[test]
fn a_file_that_is_saved_ten_times_has_its_history_and_is_there_after_a_restart() {
    let (world, _) = world(Standing::Runner);
    let run = |script: &str| world.script(&world.view(), script).within(DEADLINE).run().success();
    run("echo 0 > f; setfattr -n user.a -v 0 f");
    assert_eq!(in_bucket(&world, &["cat", "f"]).success(), "0\n");
    let versions = || in_bucket(&world, &["history", "f"]).success();
    for n in 1..10 {
        let save = ["echo N > f.tmp && mv f.tmp f", "sed -i s/.*/N/ f"][n % 2];
        run(&save.replace('N', &n.to_string()));
        // What is asked of the bucket waits until it is a version.
        assert_eq!(in_bucket(&world, &["cat", "f"]).success(), format!("{n}\n"));
    }
    let told = versions();
    assert_eq!(told.matches("written").count(), 9, "{told}");
    // Those of the file: a slow save is two of the bucket, with what it is saved by alone in the first.
    let ids: Vec<_> = told.lines().filter(|line| !line.starts_with(' ')).collect();
    let at = |back: usize| ids[back].split_whitespace().next().unwrap();
    for (back, expected) in [(0, "9\n"), (4, "5\n")] {
        let shown = in_bucket(&world, &["cat", "f", "--at", at(back)]).success();
        assert_eq!(shown, expected, "{told}");
    }
    in_bucket(&world, &["restore", "f", "--at", at(5)]).success();
    assert_eq!(in_bucket(&world, &["cat", "f"]).success(), "4\n");
    run("git init -q .; git add f; git -c user.name=a -c user.email=a@b commit -qm one");
    // Whoever is killed in between loses nothing of it.
    run("echo last > f.tmp && mv f.tmp f");
    world.gate(["mount", "set", "view", "--auto-mount", "true"]).run().success();
    world.gate(["daemon", "restart"]).run().success();
    let is_back = || world.script(&world.view(), "cat f").run().stdout == "last\n";
    gate_tests::wait::wait_until(gate_tests::wait::SOON, "it is mounted again", is_back);
    assert_eq!(run("ls -A; git status --short"), ".git\nf\n M f\n");
    in_bucket(&world, &["fsck", "--read-data"]).success();
    end(&world);
}
