//! Mounts that a daemon keeps: `gate mount list`, `add`, `remove`, `start`, `stop`, `set`, and the same
//! by REST.

mod events;
mod faults;
pub(crate) mod kept;
mod story;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use gate_tests::rest::{MOUNTS, Rest};
use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel};
use serde_json::{Value, json};

/// A world with a daemon, and the way to that.
pub(crate) fn with_daemon(standing: Standing) -> (World, Rest) {
    let mut world = World::bare_of(standing);
    world.find_broker_by_socket();
    world.gate(["daemon", "start"]).run().success();
    let rest = Rest::of_state_dir(&world.state());
    (world, rest)
}

fn is_mounted(point: &PathBuf) -> bool {
    kernel::mounts_below(point).iter().any(|mount| mount.point == *point && mount.is_fuse())
}

#[test]
fn a_mount_is_added_started_stopped_changed_and_removed() {
    for standing in [Standing::Runner, Standing::OrdinaryUser] {
        let (world, _) = with_daemon(standing);
        world.seed("f", "text");
        let point = world.home().join("made/for/it");
        let added =
            world.gate(["mount", "add", "source", "made/for/it", "--start"]).run().success();
        assert!(added.contains("is mounted at"), "{added}");
        assert_eq!(world.script(&point, "cat f").run().success(), "text");
        let id = added.split(' ').next().unwrap().to_owned();
        let listed = world.gate(["mount", "list"]).run().success();
        assert!(listed.contains(&id) && listed.contains("running"), "{listed}");
        let again = world.gate(["mount", "start", &id]).run();
        assert_eq!(again.code, Some(1), "{again}");
        assert!(again.refusal().contains("the mount is running"));
        let slip = world.gate(["mount", "start", &id[..3]]).run();
        assert!(slip.refusal().contains("of an id give 4 characters or more"));
        let elsewhere = world.gate(["mount", "set", &id, "--mount-point", "other"]).run();
        assert!(elsewhere.refusal().contains("gate mount stop"));
        assert!(!world.home().join("other").exists());
        world.gate(["mount", "stop", "made/for/it"]).run().success();
        assert!(!is_mounted(&point));
        world.gate(["mount", "set", &id, "--read-only", "true"]).run().success();
        world.gate(["mount", "set", &id, "--mount-point", "other"]).run().success();
        world.gate(["mount", "start", "other"]).run().success();
        let refused = world.script(&world.home().join("other"), "touch new").run();
        assert!(refused.stderr.contains("Read-only file system"), "{refused}");
        let unsure = world.gate(["mount", "remove", &id]).run();
        assert_eq!(unsure.code, Some(2), "nobody is there to be asked: {unsure}");
        world.gate(["mount", "remove", "-f", &id]).run().success();
        assert!(!is_mounted(&world.home().join("other")));
        let none = world.gate(["mount", "list"]).run().success();
        assert!(none.contains("gate mount add"), "{none}");
        assert_eq!(world.source_text("f"), "text");
        world.gate(["daemon", "stop"]).run().success();
    }
}

/// Removing what the link leads to would unmount, and forget, a mount that nobody named.
#[test]
fn a_mount_point_that_became_a_link_is_that_of_its_own_mount() {
    let (world, rest) = with_daemon(Standing::Runner);
    let [own, other] = ["own", "other"].map(|name| {
        fs::create_dir(world.home().join(name)).unwrap();
        rest.add(&world.home().join(name), &world.home().join("at").join(name), json!({}))
    });
    fs::remove_dir(world.home().join("at/own")).unwrap();
    symlink("other", world.home().join("at/own")).unwrap();
    symlink("at", world.home().join("by")).unwrap();
    world.gate(["mount", "set", "at/own", "--read-only", "true"]).run().success();
    world.gate(["mount", "set", "by/own", "--auto-mount", "true"]).run().success();
    let changed =
        |id: &str| (rest.mount(id)["read_only"].clone(), rest.mount(id)["auto_mount"].clone());
    assert_eq!(changed(&own), (json!(true), json!(true)));
    assert_eq!(changed(&other), (json!(false), json!(false)));
    world.gate(["mount", "remove", "-f", "at/own"]).run().success();
    assert_eq!(rest.ask("GET", &format!("{MOUNTS}/{own}")).status, 404);
    world.gate(["mount", "remove", "-f", "at/own"]).run().success();
    assert_eq!(rest.ask("GET", MOUNTS).body, json!({"mounts": []}), "then the link is followed");
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn the_list_is_told_to_programs_as_json_and_as_lines() {
    let (world, rest) = with_daemon(Standing::Runner);
    let id = rest.add(&world.source(), &world.view(), json!({"auto_mount": true}));
    let told = world.gate(["mount", "list", "--json"]).run().success();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["version"], 1);
    let mount = &told["mounts"][0];
    let expected = json!({
        "mount_id": id, "bucket_id": null, "source": world.source(), "mount_point": world.view(),
        "enabled": true, "auto_mount": true, "read_only": false, "allow_other": true,
        "cache_size_mb": 100, "cache_ttl_secs": 60, "pid": null, "status": "stopped",
        "error_message": null, "created_at": mount["created_at"], "updated_at": mount["updated_at"],
    });
    assert_eq!(*mount, expected);
    assert_eq!(mount["created_at"], mount["updated_at"]);
    let plain = world.gate(["mount", "list", "--plain"]).run().success();
    let fields: Vec<&str> = plain.trim_end().split('\t').collect();
    let (source, view) = (world.source(), world.view());
    let expected =
        [&*id, "stopped", source.to_str().unwrap(), view.to_str().unwrap(), "auto,allow-other"];
    assert_eq!(fields, expected);
    world.gate(["daemon", "stop"]).run().success();
}

/// A name may have 255 bytes, and its log file is named for all that is before it, too.
#[test]
fn a_mount_point_may_have_as_long_a_name_as_any_directory() {
    let (world, _) = with_daemon(Standing::Runner);
    world.seed("f", "text");
    let deep = world.home().join("d".repeat(200)).join("e".repeat(200)).join("p".repeat(255));
    for point in [world.home().join("n".repeat(255)), deep] {
        let source = world.source();
        let words = [
            "mount".as_ref(),
            "add".as_ref(),
            source.as_os_str(),
            point.as_os_str(),
            "--start".as_ref(),
        ];
        world.gate(words).run().success();
        assert_eq!(world.script(&point, "cat f").run().success(), "text");
        world
            .gate(["mount".as_ref(), "remove".as_ref(), "-f".as_ref(), point.as_os_str()])
            .run()
            .success();
    }
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn the_seven_calls_answer_as_they_are_documented() {
    let (world, rest) = with_daemon(Standing::Runner);
    let body = json!({"source": world.source(), "mount_point": world.view(), "cache_ttl_secs": 5});
    let added = rest.tell("POST", "/api/v0/mounts/", &body);
    assert_eq!(added.status, 201, "{added:?}");
    let id = added.body["mount"]["mount_id"].as_str().unwrap();
    let one = format!("{MOUNTS}/{id}");
    for path in [&one, &format!("{one}/")] {
        assert_eq!(rest.ask("GET", path).body, added.body);
    }
    assert_eq!(rest.ask("GET", MOUNTS).body, json!({"mounts": [added.body["mount"]]}));
    let started = rest.ask("POST", &format!("{one}/start"));
    let pid = rest.pid(id).unwrap();
    let expected = json!({"started": true, "mount_id": id, "status": "running", "pid": pid});
    assert_eq!((started.status, started.body), (200, expected));
    assert!(kernel::processes_of(world.home()).iter().any(|(other, _)| *other == pid));
    let changed = rest.tell("PATCH", &one, &json!({"auto_mount": true, "cache_size_mb": 7}));
    assert_eq!(changed.status, 200, "{changed:?}");
    let mount = &changed.body["mount"];
    assert_eq!((&mount["auto_mount"], &mount["cache_size_mb"]), (&json!(true), &json!(7)));
    assert_eq!((&mount["status"], &mount["cache_ttl_secs"]), (&json!("running"), &json!(5)));
    let expected = json!({"stopped": true, "mount_id": id, "status": "stopped", "notice": null});
    for _ in 0..2 {
        let stopped = rest.ask("POST", &format!("{one}/stop"));
        assert_eq!((stopped.status, &stopped.body), (200, &expected), "also of a stopped one");
    }
    let deleted = rest.ask("DELETE", &one);
    assert_eq!((deleted.status, deleted.body), (200, json!({"deleted": true})));
    assert_eq!(rest.ask("GET", MOUNTS).body, json!({"mounts": []}));
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn bad_input_is_refused_with_a_hint_and_changes_nothing() {
    let (world, rest) = with_daemon(Standing::Runner);
    let home = world.home();
    let (source, view) = (world.source(), world.view());
    fs::write(home.join("file"), "").unwrap();
    let id = rest.add(&source, &view, json!({}));
    let before = rest.ask("GET", MOUNTS);
    let one = format!("{MOUNTS}/{id}");
    let nobody = format!("{MOUNTS}/00000000-0000-4000-8000-000000000000");
    let good = |more: Value| {
        let mut body = json!({"source": source, "mount_point": home.join("new")});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let sealed = |more: Value| {
        let mut body = good(more);
        body.as_object_mut().unwrap().remove("source");
        body
    };
    let cases: &[(&str, &str, Value, u16, &str)] = &[
        ("POST", MOUNTS, json!({}), 400, "source is missing"),
        ("POST", MOUNTS, json!({"source": source}), 400, "mount_point is missing"),
        ("POST", MOUNTS, json!("x"), 400, "expected"),
        ("POST", MOUNTS, good(json!({"read_only": "yes"})), 400, "expected a boolean"),
        ("POST", MOUNTS, good(json!({"cache_size_mb": 0})), 400, "cache_size_mb is 0"),
        ("POST", MOUNTS, good(json!({"cache_size_mb": -1})), 400, "-1"),
        ("POST", MOUNTS, good(json!({"cache_ttl_secs": 1u64 << 40})), 400, "expected u32"),
        ("POST", MOUNTS, good(json!({"automount": true})), 400, "unknown field `automount`"),
        ("POST", MOUNTS, good(json!({"source": "source"})), 400, "no absolute path"),
        ("POST", MOUNTS, good(json!({"source": home.join("none")})), 400, "No such file"),
        ("POST", MOUNTS, good(json!({"source": home.join("file")})), 400, "no directory"),
        ("POST", MOUNTS, good(json!({"mount_point": home.join("file")})), 400, "no directory"),
        ("POST", MOUNTS, good(json!({"mount_point": "new"})), 400, "no absolute path"),
        ("POST", MOUNTS, good(json!({"mount_point": source.join("in")})), 400, "in the source"),
        ("POST", MOUNTS, good(json!({"mount_point": home})), 400, "the source lies in"),
        ("POST", MOUNTS, good(json!({"mount_point": view})), 409, "is the mount point of"),
        ("POST", MOUNTS, good(json!({"mount_point": view.join("in")})), 409, "lie in one another"),
        ("POST", MOUNTS, good(json!({"bucket": "b"})), 400, "both a directory and a bucket"),
        ("POST", MOUNTS, sealed(json!({"bucket": "b"})), 400, "no such bucket"),
        ("POST", MOUNTS, sealed(json!({"bucket_id": id})), 400, "no such bucket"),
        ("PATCH", &one, json!({"source": home}), 400, "keeps its source"),
        ("PATCH", &one, json!({"mount_point": source.join("in")}), 400, "in the source"),
        ("PATCH", &one, json!({"pid": 1}), 400, "unknown field `pid`"),
        ("PATCH", &nobody, json!({"enabled": false}), 404, "no mount has the id"),
        ("POST", &format!("{one}/stop"), json!({"hard": true}), 400, "unknown field `hard`"),
        ("POST", &format!("{nobody}/start"), json!({}), 404, "no mount has the id"),
        ("DELETE", &format!("{MOUNTS}/x"), json!({}), 404, "no such mount"),
        ("GET", &nobody, json!({}), 404, "no mount has the id"),
    ];
    for (method, path, body, status, why) in cases {
        let reply = rest.tell(method, path, body);
        assert_eq!(reply.status, *status, "{method} {path} {body}: {reply:?}");
        let said = |field: &str| reply.body[field].as_str().unwrap_or_default().to_owned();
        assert!(said("message").contains(why), "{method} {path} {body}: {reply:?}");
        assert!(!said("code").is_empty() && !said("hint").is_empty(), "{reply:?}");
        assert_eq!(rest.ask("GET", MOUNTS).body, before.body, "{method} {path} {body}");
    }
    assert!(!home.join("new").exists() && !source.join("in").exists(), "nothing was made");
    assert_eq!(rest.send("POST", MOUNTS, b"{").status, 400);
    assert_eq!(rest.send("POST", MOUNTS, &vec![b' '; 1 << 20]).status, 400);
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn what_is_not_enabled_is_neither_started_nor_said_to_be_wrong() {
    let (world, rest) = with_daemon(Standing::Runner);
    let id =
        rest.add(&world.source(), &world.view(), json!({"auto_mount": true, "enabled": false}));
    let refused = rest.ask("POST", &format!("{MOUNTS}/{id}/start"));
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.body["hint"].as_str().unwrap().contains("--enabled true"));
    world.gate(["daemon", "stop"]).run().success();
    world.gate(["daemon", "start"]).run().success();
    assert_eq!(rest.status(&id), "stopped");
    world.gate(["mount", "set", "view", "--enabled", "true"]).run().success();
    world.gate(["mount", "start", "view"]).run().success();
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_mount_that_cannot_be_started_says_why_and_the_others_run() {
    let (world, rest) = with_daemon(Standing::Runner);
    let [gone, other] = ["gone", "other"].map(|name| world.home().join(name));
    fs::create_dir(&gone).unwrap();
    let bad = rest.add(&gone, &other, json!({"auto_mount": true}));
    let good = rest.add(&world.source(), &world.view(), json!({"auto_mount": true}));
    world.gate(["daemon", "stop"]).run().success();
    fs::remove_dir(&gone).unwrap();
    world.gate(["daemon", "start"]).run().success();
    kept::await_status(&rest, &good, "running");
    kept::await_status(&rest, &bad, "error");
    let message = rest.mount(&bad)["error_message"].as_str().unwrap().to_owned();
    assert!(message.contains("No such file"), "{message}");
    let listed = world.gate(["mount", "list"]).run().success();
    assert!(listed.contains("No such file"), "{listed}");
    fs::create_dir(&gone).unwrap();
    kept::await_status(&rest, &bad, "running");
    assert_eq!(rest.mount(&bad)["error_message"], Value::Null);
    world.gate(["daemon", "stop"]).run().success();
}

/// As after a boot where it lies below /run.
#[test]
fn a_mount_point_that_is_gone_is_made_anew_and_a_source_is_not() {
    let (world, rest) = with_daemon(Standing::Runner);
    world.seed("f", "text");
    let [run, own] = ["run", "own"].map(|name| world.home().join(name));
    let point = run.join("made/for/it");
    fs::create_dir(&own).unwrap();
    let id = rest.add(&world.source(), &point, json!({"auto_mount": true}));
    let over = rest.add(&own, &own, json!({}));
    world.gate(["mount", "start", &id]).run().success();
    world.gate(["mount", "stop", &id]).run().success();
    fs::remove_dir_all(&run).unwrap();
    world.gate(["mount", "start", &id]).run().success();
    assert_eq!(fs::read_to_string(point.join("f")).unwrap(), "text");
    world.gate(["daemon", "stop"]).run().success();
    fs::remove_dir_all(&run).unwrap();
    fs::remove_dir(&own).unwrap();
    world.gate(["daemon", "start"]).run().success();
    kept::await_status(&rest, &id, "running");
    assert_eq!(fs::read_to_string(point.join("f")).unwrap(), "text");
    let refused = world.gate(["mount", "start", &over]).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(!own.exists(), "it would be an empty source");
    world.gate(["mount", "stop", &id]).run().success();
    fs::remove_dir_all(&run).unwrap();
    fs::rename(world.source(), world.home().join("away")).unwrap();
    let refused = world.gate(["mount", "start", &id]).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    // It is tried again and again, and each time for nothing.
    wait_until(SOON, "what was made for it is gone", || !run.exists());
    fs::rename(world.home().join("away"), world.source()).unwrap();
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_mount_in_use_is_not_stopped_unless_that_is_said() {
    let (world, rest) = with_daemon(Standing::Runner);
    world.seed("f", "text");
    let id = rest.add(&world.source(), &world.view(), json!({"auto_mount": true}));
    world.gate(["mount", "start", "view"]).run().success();
    let mut user = world.actor(&world.view());
    let fd = user.open("r", "f");
    let pid = rest.pid(&id);
    for words in
        [&["mount", "stop", "view"][..], &["daemon", "stop"], &["mount", "remove", "-f", "view"]]
    {
        let refused = world.gate(words).run();
        assert_eq!(refused.code, Some(1), "{refused}");
        let text = refused.refusal();
        assert!(text.contains(&user.pid().to_string()), "{words:?}");
        assert!(text.contains("`gate umount --lazy"), "{words:?}: {text}");
        assert_eq!((rest.status(&id), rest.pid(&id)), ("running".to_owned(), pid));
    }
    let stopped = world.gate(["mount", "stop", "--lazy", "view"]).run();
    assert_eq!(stopped.code, Some(0), "{stopped}");
    assert!(stopped.stderr.contains("still used by"), "{stopped}");
    assert!(!is_mounted(&world.view()));
    assert_eq!(user.read(fd, 4), Ok("text".to_owned()));
    user.close(fd);
    drop(user);
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_broker_alone_keeps_no_mounts_and_says_so() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    let refused = world.gate(["mount", "list"]).run();
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.refusal().contains("gate daemon start"));
}
