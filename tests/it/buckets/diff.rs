//! What differs between two versions of a bucket.

use std::fs;

use gate_tests::terminal::Terminal;
use gate_tests::world::Standing;
use serde_json::{Value, json};

use super::{BUCKETS, in_bucket};
use crate::managed::with_daemon;

#[test]
fn what_differs_between_two_versions_is_told_with_its_lines() {
    let (world, rest) = with_daemon(Standing::OrdinaryUser);
    world.gate(["bucket", "create", "notes"]).run().success();
    let bucket = |args: &[&str]| in_bucket(&world, args);
    assert_eq!(bucket(&["diff"]).success(), "");
    let make =
        "mkdir d e; seq 20 > d/f; echo a > d/old; echo m > tool; ln -s here link; seq 5 > e/g
        printf 'a\\0b' > binary; seq 300000 > long; printf 'no end' > last";
    world.script(&world.source(), make).run().success();
    let import = || bucket(&["import", "source"]).success();
    import();
    // What was done first led from nothing.
    let first = bucket(&["diff", "d"]).success();
    assert!(
        first.starts_with("added /d (directory)\nadded /d/f (51 B)\n--- /dev/null\n"),
        "{first}"
    );
    let newest = || {
        let told = rest.ask("GET", &format!("{BUCKETS}/notes/history?most=1")).body;
        told["versions"][0]["version"].as_str().unwrap().to_owned()
    };
    let before = newest();
    bucket(&["mv", "e", "moved"]).success();
    bucket(&["rm", "d/old"]).success();
    let change = "rm -r e d/old; sed -i 's/^7$/seven/' d/f; chmod 700 tool; ln -sfn there link
        printf 'a\\0c' > binary; echo more >> long; printf 'no end\\n' > last; mkdir moved
        seq 5 | tac > moved/g; : > new; setfattr -n user.note -v x tool";
    world.script(&world.source(), change).run().success();
    import();
    let stat = bucket(&["diff", "--stat", "--from", &before]).success();
    let expected = "changed /binary (3 B)\nchanged /d/f (51 B -> 55 B)\nremoved /d/old (2 B)\n\
                    changed /last (6 B -> 7 B)\ntarget /link (to here -> to there)\n\
                    changed /long (1.8 MiB)\nrenamed /moved (from /e)\n\
                    changed /moved/g (10 B)\nadded /new (0 B)\nmode /tool (0644 -> 0700)\n\
                    attribute user.note of /tool (set)\n";
    assert_eq!(stat, expected);
    let told = bucket(&["diff", "--from", &before]).success();
    let of_f = "--- a/d/f\n+++ b/d/f\n@@ -4,7 +4,7 @@\n 4\n 5\n 6\n-7\n+seven\n 8\n 9\n 10\n";
    assert!(told.contains(of_f), "{told}");
    assert!(told.contains("-no end\n\\ No newline at end of file\n+no end\n"), "{told}");
    assert!(!told.contains("b/binary") && !told.contains("b/long"), "{told}");
    // Other programs make the one of the other by it.
    bucket(&["export", "then", "--at", &before]).success();
    fs::write(world.home().join("told"), &told).unwrap();
    let patch = "mv then/e then/moved; patch -s -p1 -d then < told
        for f in d/f last moved/g; do cmp then/$f source/$f; done; [ ! -e then/d/old ]";
    world.script(world.home(), patch).run().success();
    // The other way round, of a path, and by REST.
    let after = newest();
    let back = bucket(&["diff", "d", "--stat", "--from", &after[..8], "--to", &before]).success();
    assert_eq!(back, "changed /d/f (55 B -> 51 B)\nadded /d/old (2 B)\n");
    let moved = bucket(&["diff", "e", "--stat", "--from", &before]).success();
    assert_eq!(moved, "renamed /moved (from /e)\n");
    assert_eq!(bucket(&["diff", "--from", "@"]).success(), "");
    let answer = rest.ask("GET", &format!("{BUCKETS}/notes/diff?from={before}&path=link"));
    let expected = json!([{
        "path": "/link", "what": "target", "before": {"target": "here"}, "after": {"target": "there"},
    }]);
    assert_eq!((answer.status, &answer.body["differences"]), (200, &expected));
    let json = bucket(&["diff", "tool", "--from", &before, "--json"]).success();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["differences"][0]["after"], json!({"mode": 0o700}), "{json}");
    for wrong in [&["diff", "nothing"][..], &["diff", "--from", "~99"], &["diff", "--to", "0000"]] {
        let refused = bucket(wrong);
        assert_eq!(refused.code, Some(1), "{refused}");
    }
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn what_differs_has_colours_on_a_terminal_alone() {
    let (world, _) = with_daemon(Standing::Runner);
    world.gate(["bucket", "create", "notes"]).run().success();
    let bucket = |args: &[&str]| in_bucket(&world, args);
    for text in ["one\n", "\u{1b}[2J\ttwo\n"] {
        world.seed("f", text);
        bucket(&["add", "source/f"]).success();
    }
    // What others read is what is in the file.
    assert!(bucket(&["diff"]).success().ends_with("\n-one\n+\u{1b}[2J\ttwo\n"));
    let terminal = Terminal::open(&world, 80, 24);
    let gate = world.program("gate").display().to_string();
    terminal.enter(&format!("{gate} bucket diff notes; echo first is $?"));
    terminal.wait_for("first is 0");
    let screen = terminal.screen_with_colours();
    assert!(screen.contains("\u{1b}[31m-one"), "{screen}");
    assert!(screen.contains("+\\u{1b}[2J"), "{screen}");
    terminal.enter("clear");
    terminal.enter(&format!("NO_COLOR=1 {gate} bucket diff notes; echo second is $?"));
    terminal.wait_for("second is 0");
    let screen = terminal.screen_with_colours();
    assert!(screen.contains("-one") && !screen.contains("\u{1b}[31m"), "{screen}");
    drop(terminal);
    world.gate(["daemon", "stop"]).run().success();
}
