//! Buckets: `gate init`, `unlock`, `passphrase`, `gate bucket …`, and the same by REST.

mod diff;
mod gc;
mod harm;
mod long;
mod lost;
mod merged;
pub(crate) mod mounted;
mod saves;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use gate_tests::dice::{Dice, seed};
use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::Standing;
use gate_tests::{Outcome, World, kernel, scaled};
use serde_json::{Value, json};

use crate::managed::with_daemon;

const BUCKETS: &str = "/api/v0/buckets";
const DEVICE: &str = "/api/v0/device";

/// Returns the buckets by name, as programs see them.
fn listed(world: &World) -> Vec<(String, String)> {
    let list = world.gate(["bucket", "list", "--json"]).run().success();
    let list: Value = serde_json::from_str(&list).unwrap();
    let text = |bucket: &Value, name: &str| bucket[name].as_str().unwrap().to_owned();
    let buckets = list["buckets"].as_array().unwrap().iter();
    buckets.map(|bucket| (text(bucket, "name"), text(bucket, "bucket_id"))).collect()
}

/// Does something in the bucket that tests call notes.
fn in_bucket(world: &World, args: &[&str]) -> Outcome {
    let (what, rest) = args.split_first().unwrap();
    world.gate([&["bucket", what, "notes"], rest].concat()).run()
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[test]
fn buckets_are_made_listed_renamed_and_deleted() {
    for standing in [Standing::Runner, Standing::OrdinaryUser] {
        let (world, _) = with_daemon(standing);
        let none = world.gate(["bucket", "list"]).run().success();
        assert!(none.contains("gate bucket create NAME"), "{none}");
        let made = world.gate(["bucket", "create", "notes"]).run();
        assert!(made.stderr.contains("keep a copy"), "{made}");
        assert!(made.success().starts_with("notes is made, with the id "));
        let again = world.gate(["bucket", "create", "notes"]).run();
        assert_eq!(again.code, Some(1), "{again}");
        assert!(again.refusal().contains("is called `notes` already"));
        let wrong = world.gate(["bucket", "create", "a/b"]).run();
        assert_eq!(wrong.code, Some(2), "{wrong}");
        let second = world.gate(["bucket", "create", "letters"]).run();
        // There is a device by now.
        assert_eq!(second.stderr, "");
        let ids = listed(&world);
        let [(first, letters), (last, notes)] = &ids[..] else { panic!("{ids:?}") };
        assert_eq!([&**first, &**last], ["letters", "notes"]);
        let people = world.gate(["bucket", "list"]).run().success();
        assert!(people.contains(&letters[..8]) && people.contains("KiB"), "{people}");
        let plain = world.gate(["bucket", "list", "--plain"]).run().success();
        assert!(plain.starts_with(&format!("{letters}\tletters\t")), "{plain}");
        world.gate(["bucket", "rename", &notes[..6], "diary"]).run().success();
        let taken = world.gate(["bucket", "rename", "diary", "letters"]).run();
        assert_eq!(taken.code, Some(1), "{taken}");
        let unsure = world.gate(["bucket", "delete", "letters"]).run();
        assert_eq!(unsure.code, Some(2), "{unsure}");
        assert!(unsure.refusal().contains("gate bucket delete -f letters"));
        world.gate(["bucket", "delete", "-f", "letters"]).run().success();
        let missing = world.gate(["bucket", "delete", "-f", "letters"]).run();
        assert!(missing.refusal().contains("gate bucket list"));
        // All of it outlasts the daemon.
        world.gate(["daemon", "restart"]).run().success();
        assert_eq!(listed(&world), [("diary".to_owned(), notes.clone())]);
        let dirs: Vec<_> = fs::read_dir(world.state().join("buckets")).unwrap().collect();
        assert_eq!(dirs.len(), 1, "{dirs:?}");
        world.gate(["daemon", "stop"]).run().success();
    }
}

#[test]
fn a_device_is_made_once_and_its_file_is_its_owners_alone() {
    let (world, rest) = with_daemon(Standing::OrdinaryUser);
    let none = rest.ask("GET", DEVICE);
    assert_eq!((none.status, &none.body["state"]), (200, &json!("none")));
    let made = world.gate(["init"]).run().success();
    assert!(made.contains("is open; it has no passphrase"), "{made}");
    let path = world.state().join("identity");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    let before = fs::read(&path).unwrap();
    let again = world.gate(["init"]).run();
    assert_eq!(again.code, Some(1), "{again}");
    assert!(again.refusal().contains("is there already"));
    assert_eq!(fs::read(&path).unwrap(), before);
    // One that others could read is not used.
    world.gate(["daemon", "stop"]).run().success();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    world.gate(["daemon", "start"]).run().success();
    let refused = world.gate(["bucket", "create", "notes"]).run().refusal();
    assert!(refused.contains("chmod 600"), "{refused}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    world.gate(["bucket", "create", "notes"]).run().success();
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn n12_a_passphrase_opens_the_device_and_shows_nowhere() {
    let (world, rest) = with_daemon(Standing::Runner);
    let [first, second] = ["first", "second"].map(|name| world.home().join(name));
    write(&first, "correct horse\n");
    write(&second, "battery staple\n");
    let file = |path: &Path| path.to_str().unwrap().to_owned();
    world.gate(["init", "--passphrase-file", &file(&first)]).run().success();
    world.gate(["bucket", "create", "notes"]).run().success();
    world.gate(["daemon", "restart"]).run().success();
    // Which buckets there are is no secret on this device; what they hold is.
    assert_eq!(listed(&world).len(), 1);
    let locked = world.gate(["bucket", "create", "letters"]).run();
    assert_eq!(locked.code, Some(1), "{locked}");
    assert!(locked.refusal().contains("gate unlock"));
    assert_eq!(rest.ask("GET", DEVICE).body["state"], "locked");
    assert_eq!(rest.tell("POST", BUCKETS, &json!({"name": "letters"})).status, 423);
    let wrong = world.gate(["unlock", "--passphrase-file", &file(&second)]).run().refusal();
    assert!(wrong.contains("another passphrase"), "{wrong}");
    world.gate(["unlock", "--passphrase-file", &file(&first)]).run().success();
    world.gate(["bucket", "create", "letters"]).run().success();
    let [old, new] = ["--passphrase-file", "--new-passphrase-file"];
    let change = ["passphrase", old, &file(&first), new, &file(&second)];
    world.gate(change).run().success();
    world.gate(["daemon", "restart"]).run().success();
    let former = world.gate(["unlock", "--passphrase-file", &file(&first)]).run();
    assert_eq!(former.code, Some(1), "{former}");
    // By way of standard input, as from a program that keeps passphrases.
    let piped = "cat second | $GATE unlock --passphrase-file -";
    world.script(world.home(), piped).env("GATE", world.program("gate")).run().success();
    world.gate(["passphrase", "--passphrase-file", &file(&second), "--remove"]).run().success();
    world.gate(["daemon", "restart"]).run().success();
    world.gate(["bucket", "create", "open"]).run().success();
    let unneeded = world.gate(["unlock"]).run().success();
    assert!(unneeded.contains("it has no passphrase"), "{unneeded}");
    world.gate(["daemon", "stop"]).run().success();
    assert_nothing_says(&world.state(), &["correct horse", "battery staple"]);
}

/// Asserts that no file below a directory has any of some words.
fn assert_nothing_says(dir: &Path, words: &[&str]) {
    let mut files = 0;
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => left.push(entry.path()),
                kind if kind.is_file() => {
                    files += 1;
                    let bytes = fs::read(entry.path()).unwrap();
                    for word in words {
                        let found = bytes.windows(word.len()).any(|some| some == word.as_bytes());
                        assert!(!found, "{} has `{word}`", entry.path().display());
                    }
                }
                _ => {}
            }
        }
    }
    assert!(files > 5, "there is something to look at");
}

#[test]
fn what_is_asked_wrongly_of_buckets_is_refused_by_name() {
    let (world, rest) = with_daemon(Standing::Runner);
    let refused = |method: &str, target: &str, body: &str| {
        let reply = rest.send(method, target, body.as_bytes());
        (reply.status, reply.body["code"].as_str().unwrap_or_default().to_owned())
    };
    let not_found = (404, "not_found".to_owned());
    let invalid = (400, "invalid".to_owned());
    assert_eq!(refused("GET", &format!("{BUCKETS}/nothing"), ""), not_found);
    assert_eq!(refused("DELETE", &format!("{BUCKETS}/nothing"), ""), not_found);
    assert_eq!(refused("POST", BUCKETS, "{}"), invalid);
    assert_eq!(refused("POST", BUCKETS, r#"{"name": ""}"#), invalid);
    assert_eq!(refused("POST", BUCKETS, r#"{"name": "a", "merge": "so"}"#), invalid);
    assert_eq!(refused("POST", DEVICE, r#"{"passphrase": ""}"#), invalid);
    assert_eq!(refused("POST", DEVICE, "[null]"), invalid);
    let made = rest.tell("POST", BUCKETS, &json!({"name": "notes"}));
    assert_eq!((made.status, &made.body["device_made"]), (201, &json!(true)));
    let id = made.body["bucket"]["bucket_id"].as_str().unwrap().to_owned();
    assert_eq!(rest.ask("GET", &format!("{BUCKETS}/{id}/")).body["bucket"]["name"], "notes");
    // A name that was lost is no way to lose a bucket.
    fs::remove_file(world.state().join("buckets").join(&id).join("name")).unwrap();
    assert_eq!(listed(&world), [(id.clone(), id.clone())]);
    world.gate(["bucket", "rename", &id, "found"]).run().success();
    assert_eq!(listed(&world), [("found".to_owned(), id)]);
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_bucket_is_checked_and_what_is_wrong_is_named() {
    let (world, rest) = with_daemon(Standing::Runner);
    world.gate(["bucket", "create", "notes"]).run().success();
    let checked = world.gate(["bucket", "fsck", "notes"]).run().success();
    assert_eq!(checked, "0 entries, 0 chunks: all is well\n");
    let (_, id) = listed(&world).remove(0);
    let answer = rest.send("POST", &format!("{BUCKETS}/notes/fsck"), br#"{"read_data": true}"#);
    let last = answer.body.as_str().unwrap().lines().last().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!((answer.status, &last["done"]["fault_count"]), (200, &json!(0)));
    world.gate(["daemon", "stop"]).run().success();
    // A frame of which the middle was written over, and one that is whole.
    let path = world.state().join("buckets").join(id).join("entries");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(&[9; 100]);
    fs::write(&path, bytes).unwrap();
    world.gate(["daemon", "start"]).run().success();
    let damaged = world.gate(["bucket", "fsck", "notes", "--json"]).run();
    assert_eq!(damaged.code, Some(1), "{damaged}");
    let said: Value = serde_json::from_str(&damaged.stdout).unwrap();
    let fault = said["fsck"]["faults"][0].as_str().unwrap();
    assert_eq!(fault, "`entries` is damaged: 100 bytes from 8 on are no entry");
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn files_are_put_shown_moved_and_removed() {
    let (world, rest) = with_daemon(Standing::OrdinaryUser);
    world.gate(["bucket", "create", "notes"]).run().success();
    let bucket = |args: &[&str]| in_bucket(&world, args);
    world.seed("today.md", "first\n");
    world.seed("big", &"0123456789abcdef".repeat(40_000));
    bucket(&["add", "source/today.md"]).success();
    bucket(&["mkdir", "-p", "a/b"]).success();
    bucket(&["add", "source/big", "/a/b/"]).success();
    assert_eq!(bucket(&["cat", "today.md"]).success(), "first\n");
    assert_eq!(bucket(&["cat", "/a/b/big"]).success(), "0123456789abcdef".repeat(40_000));
    assert_eq!(bucket(&["ls"]).success(), "a/\ntoday.md\n");
    assert_eq!(bucket(&["ls", "-R"]).success(), "a/\na/b/\na/b/big\ntoday.md\n");
    assert_eq!(bucket(&["ls", "today.md"]).success(), "/today.md\n");
    let long = bucket(&["ls", "-l", "a/b"]).success();
    assert!(long.contains("-rw-r--r--") && long.contains("625.0 KiB"), "{long}");
    // A file that is there gets a new version, and no other name.
    world.seed("today.md", "second\n");
    bucket(&["add", "source/today.md"]).success();
    assert_eq!(bucket(&["cat", "today.md"]).success(), "second\n");
    assert_eq!(bucket(&["ls"]).success(), "a/\ntoday.md\n");
    bucket(&["mv", "today.md", "a"]).success();
    bucket(&["mv", "a/today.md", "a/tomorrow.md"]).success();
    let stat = bucket(&["stat", "a/tomorrow.md", "--json"]).success();
    let stat: Value = serde_json::from_str(&stat).unwrap();
    assert_eq!((&stat["entry"]["size"], &stat["entry"]["kind"]), (&json!(7), &json!("file")));
    let full = bucket(&["rm", "a"]);
    assert_eq!(full.code, Some(1), "{full}");
    assert!(full.refusal().contains("-r"));
    bucket(&["get", "a/tomorrow.md", "source/here"]).success();
    assert_eq!(fs::read_to_string(world.source().join("here")).unwrap(), "second\n");
    let there = bucket(&["get", "a/tomorrow.md", "source/here"]);
    assert!(there.refusal().contains("--force"));
    bucket(&["rm", "-r", "a"]).success();
    assert_eq!(bucket(&["ls"]).success(), "");
    for wrong in [&["cat", "a"][..], &["stat", "x/y"], &["rm", "x"], &["mv", "x", "y"]] {
        let refusal = bucket(wrong).refusal();
        assert!(refusal.contains(&format!("/{}", wrong[1])), "{refusal}");
        assert!(refusal.contains("gate bucket ls"), "{refusal}");
    }
    let root = bucket(&["cat", "/"]);
    assert_eq!(root.code, Some(2), "{root}");
    // All of it outlasts the daemon.
    bucket(&["add", "source/big", "kept"]).success();
    world.gate(["daemon", "restart"]).run().success();
    assert_eq!(bucket(&["cat", "kept"]).success().len(), 640_000);
    assert_eq!(rest.ask("GET", &format!("{BUCKETS}/notes/ls")).body["entries"][0]["path"], "/kept");
    world.gate(["daemon", "stop"]).run().success();
}

/// What the earlier system got wrong, and what its clients rely on.
#[test]
fn a_body_is_stored_as_a_file_of_a_directory_that_is_there() {
    let (world, rest) = with_daemon(Standing::Runner);
    world.gate(["bucket", "create", "notes"]).run().success();
    let put = |query: &str, body: &[u8]| {
        rest.send("POST", &format!("{BUCKETS}/notes/fs?{query}"), body).status
    };
    let cat = |path: &str| world.gate(["bucket", "cat", "notes", path]).run().success();
    assert_eq!(put("mount_path=&filename=test.md", b"one"), 200);
    assert_eq!(put("mount_path=/&filename=other.md", b""), 200);
    assert_eq!((cat("/test.md"), cat("/other.md")), ("one".into(), String::new()));
    assert_eq!(put("mount_path=/&filename=test.md", b"two"), 200);
    assert_eq!(cat("/test.md"), "two");
    world.gate(["bucket", "mkdir", "notes", "a b"]).run().success();
    assert_eq!(put("mount_path=%2Fa%20b&filename=c%2Bd", b"three"), 200);
    assert_eq!(put("mount_path=a%20b&filename=e", b"four"), 200);
    assert_eq!((cat("a b/c+d"), cat("a b/e")), ("three".into(), "four".into()));
    for refused in ["mount_path=/none&filename=f", "mount_path=/&filename=a/b", "mount_path=/"] {
        assert_eq!(put(refused, b"x"), 400, "{refused}");
    }
    assert_eq!(put("mount_path=/test.md&filename=f", b"x"), 400);
    // A slash at the end, and names that are no text.
    assert_eq!(put("mount_path=/&filename=%FF%0A", b"odd"), 200);
    let odd = rest.ask("GET", &format!("{BUCKETS}/notes/stat?path=%2F%FF%0A"));
    assert_eq!((odd.status, &odd.body["entry"]["size"]), (200, &json!(3)), "{odd:?}");
    let list = world.gate(["bucket", "ls", "notes"]).run().success();
    assert_eq!(list.lines().count(), 4, "{list}");
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_tree_goes_into_a_bucket_and_comes_out_as_it_was() {
    let (world, rest) = with_daemon(Standing::OrdinaryUser);
    world.gate(["bucket", "create", "notes"]).run().success();
    let make = "mkdir -p d/e empty && echo text > d/f && chmod 751 d/f && ln d/f d/e/twin
        ln -s ../elsewhere d/link && touch -d '1969-12-31 23:59:58.25 UTC' d/e/old
        head -c 3000000 /dev/urandom > d/big && truncate -s 5M d/sparse && printf x >> d/sparse
        mkdir 'odd names' && touch \"odd names/$(printf 'a\\nb\\377')\" && chmod 500 empty
        setfattr -n user.note -v 'two lines' d/f && touch -d '2001-02-03 04:05:06.789 UTC' d";
    world.script(&world.source(), make).run().success();
    let import = || {
        let said = world.gate(["bucket", "import", "notes", "source", "/in/it", "--json"]).run();
        serde_json::from_str::<Value>(&said.success()).unwrap()["imported"].clone()
    };
    let first = import();
    assert_eq!((&first["files"], &first["links"]), (&json!(5), &json!(2)), "{first}");
    world.gate(["daemon", "restart"]).run().success();
    // Once more nothing is new.
    let again = import();
    assert_eq!((&again["files"], &again["directories"]), (&json!(0), &json!(0)), "{again}");
    world.gate(["bucket", "export", "notes", "out", "in/it"]).run().success();
    let look = "find . -printf '%P %y %m %s %T@ %n %l\\n' | grep -v '^ ' | sort
        find . -type f -exec cksum {} + | sort; getfattr -d d/f";
    let [before, after] = [world.source(), world.home().join("out")]
        .map(|dir| world.script(&dir, look).run().success());
    // A directory's own size is a matter of the disk.
    let without_sizes = |text: &str| -> Vec<String> {
        let line = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let is_directory = words.contains(&"d") && !line.contains("odd");
            if is_directory { words[..3].join(" ") } else { line.to_owned() }
        };
        text.lines().map(line).collect()
    };
    assert_eq!(without_sizes(&after), without_sizes(&before));
    let full = world.gate(["bucket", "export", "notes", "out"]).run();
    assert_eq!(full.code, Some(2), "{full}");
    // Other programs read it, too.
    let (status, archive) = rest.bytes("GET", &format!("{BUCKETS}/notes/export?path=/in/it"), b"");
    assert_eq!(status, 200);
    fs::write(world.home().join("out.tar"), archive).unwrap();
    let listed = world.script(world.home(), "tar tf out.tar").run().success();
    assert!(listed.contains("d/e/twin\n") && listed.contains("d/sparse\n"), "{listed}");
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn n12_nothing_in_the_state_directory_shows_what_a_bucket_holds() {
    let (world, _) = with_daemon(Standing::Runner);
    world.gate(["bucket", "create", "notes"]).run().success();
    let words = ["meadow-inline", "meadow-chunk", "meadow-name", "meadow-target"];
    world.seed("meadow-name", "meadow-inline");
    world.seed("longer", &"meadow-chunk ".repeat(20_000));
    world.script(&world.source(), "ln -s meadow-target link").run().success();
    world.gate(["bucket", "import", "notes", "source"]).run().success();
    let refused = world.gate(["bucket", "rm", "notes", "no-meadow-name"]).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert_nothing_says(&world.state(), &words);
    world.gate(["daemon", "stop"]).run().success();
    assert_nothing_says(&world.state(), &words);
}

#[test]
fn every_version_can_be_seen_and_brought_back() {
    let (world, rest) = with_daemon(Standing::OrdinaryUser);
    world.gate(["bucket", "create", "notes"]).run().success();
    let bucket = |args: &[&str]| in_bucket(&world, args);
    assert_eq!(bucket(&["history"]).success(), "nothing was done\n");
    for (text, name) in [("one\n", "f"), ("two\n", "f"), ("other\n", "g")] {
        world.seed(name, text);
        bucket(&["add", &format!("source/{name}")]).success();
    }
    bucket(&["mv", "f", "renamed"]).success();
    bucket(&["rm", "g"]).success();
    let versions = rest.ask("GET", &format!("{BUCKETS}/notes/history?path=/")).body;
    let ids: Vec<String> = versions["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["version"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 5, "{versions}");
    let told = bucket(&["history"]).success();
    assert!(
        told.contains("/g: removed\n") && told.contains("/renamed: renamed from /f\n"),
        "{told}"
    );
    // Of one file, whatever it was called, and a page of it.
    let of_one = bucket(&["history", "renamed"]).success();
    assert!(!of_one.contains("/g") && of_one.matches("  by ").count() == 3, "{of_one}");
    let page = bucket(&["history", "-n", "2"]).success();
    assert!(page.contains(&format!("--after {}", &ids[1][..12])), "{page}");
    let rest_of_it = bucket(&["history", "--after", &ids[1][..12], "-n", "1"]).success();
    assert!(rest_of_it.starts_with(&ids[2][..12]), "{rest_of_it}");
    // As it was.
    for at in ["~4", &ids[4][..8], &ids[4]] {
        assert_eq!(bucket(&["cat", "f", "--at", at]).success(), "one\n");
    }
    assert_eq!(bucket(&["ls", "--at", "~2"]).success(), "f\ng\n");
    assert_eq!(bucket(&["stat", "renamed", "--at", "@"]).code, Some(0));
    bucket(&["export", "then", "/", "--at", "~2"]).success();
    assert_eq!(fs::read_to_string(world.home().join("then/g")).unwrap(), "other\n");
    let early = bucket(&["ls", "--at", "2001-01-01 00:00"]);
    assert!(early.refusal().contains("gate bucket history"));
    let none = bucket(&["ls", "--at", "yesterday"]);
    assert_eq!(none.code, Some(2), "{none}");
    // And so again.
    bucket(&["undo"]).success();
    assert_eq!(bucket(&["ls"]).success(), "g\nrenamed\n");
    bucket(&["restore", "renamed", "--at", "~3"]).refusal();
    bucket(&["restore", "f", "--at", &ids[4]]).success();
    assert_eq!(bucket(&["cat", "f"]).success(), "one\n");
    bucket(&["restore", "/", "--at", "~0"]).success();
    assert_eq!(bucket(&["restore", "/", "--at", "@"]).success(), "nothing had to change\n");
    world.seed("g", "changed\n");
    bucket(&["add", "source/g"]).success();
    let later = bucket(&["undo", &ids[2]]);
    assert_eq!(later.code, Some(1), "{later}");
    assert!(later.refusal().contains("/g"));
    world.gate(["daemon", "stop"]).run().success();
}

/// Over bytes that it did not write the index's library may panic: that is no end of the daemon, and of its mounts.
#[test]
fn an_index_that_is_damaged_is_made_again_and_the_daemon_goes_on() {
    let (world, rest) = with_daemon(Standing::Runner);
    world.gate(["bucket", "create", "notes"]).run().success();
    world.script(&world.source(), "seq 500 | while read n; do echo $n > f$n; done").run().success();
    world.gate(["bucket", "import", "notes", "source"]).run().success();
    let list = || world.gate(["bucket", "ls", "notes", "-l"]).run();
    let before = list().success();
    assert_eq!(before.lines().count(), 501);
    let pid = || rest.ask("GET", "/_status/identity").body["pid"].as_i64().unwrap();
    let (_, id) = listed(&world).remove(0);
    let index = world.state().join("buckets").join(id).join("index");
    for (from, step) in [(4096, 4096), (512, 65_536), (0, 512)] {
        world.gate(["daemon", "stop"]).run().success();
        let mut bytes = fs::read(&index).unwrap();
        for place in (from..bytes.len()).step_by(step) {
            bytes[place] ^= 0x55;
        }
        fs::write(&index, bytes).unwrap();
        world.gate(["daemon", "start"]).run().success();
        let daemon = pid();
        // Whatever it says by then: a record may have become another one that makes sense.
        let said = list();
        assert!(said.code == Some(0) || said.stderr.contains("fsck"), "{said}");
        world.gate(["bucket", "fsck", "notes"]).run().success();
        assert_eq!(list().success(), before, "damaged from {from} on, each {step} bytes");
        assert_eq!(pid(), daemon, "the daemon went on");
    }
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn on_a_full_disk_a_bucket_refuses_and_loses_nothing() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    world.lay_small_disk(&world.state(), "24m");
    world.gate(["daemon", "start"]).run().success();
    world.gate(["bucket", "create", "notes"]).run().success();
    world.seed("kept", "kept\n");
    world.script(&world.source(), "head -c 60000000 /dev/urandom > big").run().success();
    world.gate(["bucket", "add", "notes", "source/kept"]).run().success();
    let add = |file: &str| world.gate(["bucket", "add", "notes", file]).run();
    for _ in 0..2 {
        let full = add("source/big");
        assert_eq!(full.code, Some(1), "{full}");
        assert!(full.refusal().contains("make room"));
    }
    assert_eq!(world.gate(["bucket", "cat", "notes", "kept"]).run().success(), "kept\n");
    world.gate(["daemon", "restart"]).run().success();
    assert_eq!(world.gate(["bucket", "ls", "notes"]).run().success(), "kept\n");
    world.gate(["bucket", "fsck", "notes", "--read-data"]).run().success();
    let larger = format!("mount -o remount,size=300m {}", world.state().display());
    world.script(world.home(), &larger).run().success();
    add("source/big").success();
    let same = "$GATE bucket cat notes big | cmp - source/big";
    world.script(world.home(), same).env("GATE", world.program("gate")).run().success();
    world.gate(["daemon", "stop"]).run().success();
    world.script(world.home(), "umount state").run().success();
}

/// N14: the daemon is killed while files are put, small ones and large ones, and trees.
#[test]
fn n14_whenever_the_daemon_is_killed_what_was_stored_is_there() {
    let (world, _) = with_daemon(Standing::Runner);
    let mut dice = Dice::new(seed());
    world.gate(["bucket", "create", "notes"]).run().success();
    world
        .script(&world.source(), "mkdir tree; for n in $(seq 300); do echo $n > tree/$n; done")
        .run()
        .success();
    // What was stored is written down where nothing else is: the number of the file.
    let script = "for n in $(seq $FIRST 1000000); do
            [ ! -e ../stop ] || break
            head -c $((n * 7919 % 200000)) /dev/urandom > ../file
            cp ../file ../made/$n
            $GATE bucket add notes ../file /$n 2> ../said || break
            echo $n >> ../stored
            [ $((n % 5)) != 0 ] || $GATE bucket import notes tree /tree$n 2> ../said || break
        done";
    fs::create_dir(world.home().join("made")).unwrap();
    let stored = || -> Vec<u64> {
        let text = fs::read_to_string(world.home().join("stored")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    };
    for _ in 0..scaled(6, 200) {
        let first = stored().last().map_or(1, |last| last + 2);
        let script = world.script(&world.source(), script).env("GATE", world.program("gate"));
        let writer = script.env("FIRST", first.to_string()).start();
        let goal = stored().len() + dice.below(12) + 1;
        wait_until(SOON * 3, "some are stored", || stored().len() >= goal);
        let status = world.gate(["daemon", "status"]).run().success();
        kernel::kill(status.trim().rsplit(' ').next().unwrap().parse().unwrap());
        // Its next command may have started a daemon already.
        let stop = world.home().join("stop");
        write(&stop, "");
        assert_eq!(writer.finish(SOON).code, Some(0));
        fs::remove_file(stop).unwrap();
        world.gate(["daemon", "start"]).run().success();
        let fsck = world.gate(["bucket", "fsck", "notes", "--read-data"]).run();
        assert_eq!(fsck.code, Some(0), "{fsck}");
        let look =
            "for n in $(cat stored); do $GATE bucket cat notes $n | cmp - made/$n || exit; done";
        world.script(world.home(), look).env("GATE", world.program("gate")).run().success();
    }
    world.gate(["daemon", "stop"]).run().success();
}
