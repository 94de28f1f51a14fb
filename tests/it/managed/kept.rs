//! What a daemon keeps is there again: after a crash of the daemon or of a view, after a restart.

use std::fs;

use gate_tests::rest::{MOUNTS, Rest};
use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::with_daemon;

pub fn await_status(rest: &Rest, id: &str, status: &str) {
    wait_until(SOON * 2, &format!("{id} is {status}"), || rest.status(id) == status);
}

pub fn pid_of_daemon(world: &World) -> i32 {
    let told = world.gate(["daemon", "status", "--json"]).run().success();
    let told: Value = serde_json::from_str(&told).unwrap();
    i32::try_from(told["broker"]["pid"].as_i64().unwrap()).unwrap()
}

pub fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    wait_until(SOON, "it is dead", || kernel::is_dead(pid));
}

/// The whole story: two mounts come up with the daemon, outlive it, and go with it.
#[test]
fn mounts_come_up_with_the_daemon_outlive_its_crash_and_go_with_its_end() {
    for standing in [Standing::Runner, Standing::OrdinaryUser] {
        let (world, rest) = with_daemon(standing);
        world.seed("f", "");
        let other = world.home().join("other");
        world.script(world.home(), "mkdir other; echo text > other/g").run().success();
        let view = world.gate(["mount", "add", "source", "view", "--auto-mount"]).run().success();
        assert!(view.contains("is kept"), "{view}");
        world.gate(["mount", "add", "other", "other", "--auto-mount"]).run().success();
        world.gate(["daemon", "stop"]).run().success();
        world.gate(["daemon", "start"]).run().success();
        let mounts = rest.ask("GET", MOUNTS).body["mounts"].clone();
        let ids = [0, 1].map(|n| mounts[n]["mount_id"].as_str().unwrap().to_owned());
        ids.iter().for_each(|id| await_status(&rest, id, "running"));
        let before = ids.clone().map(|id| rest.pid(&id));
        let mut writer = world.actor(&world.view());
        let fd = writer.open("rw", "f");
        kill(pid_of_daemon(&world));
        writer.write(fd, "written while no daemon was there").unwrap();
        world.gate(["daemon", "start"]).run().success();
        ids.iter().for_each(|id| await_status(&rest, id, "running"));
        assert_eq!(ids.clone().map(|id| rest.pid(&id)), before, "they were adopted");
        world.await_held("f", 1);
        let mut next = world.actor(&world.view());
        next.tell(["open", "w", "f"]);
        world.await_waiting("f", 1);
        writer.close(fd);
        next.opened();
        assert_eq!(world.source_text("f"), "written while no daemon was there");
        assert_eq!(world.script(&other, "cat g").run().success(), "text\n");
        drop((writer, next));
        world.gate(["daemon", "stop"]).run().success();
        assert!(kernel::mounts_below(world.home()).is_empty());
    }
}

#[test]
fn a_build_goes_on_while_the_daemon_is_restarted() {
    let (world, rest) = with_daemon(Standing::Runner);
    let makefile = "FILES = 0 1 2 3 4 5 6 7 8 9\nall: $(FILES)\n$(FILES):\n\
                    \tcat Makefile > $@ && test -s $@\n\techo $@ >> log\n";
    world.seed("Makefile", makefile);
    let id = rest.add(&world.source(), &world.view(), json!({}));
    world.gate(["mount", "start", "view"]).run().success();
    let pid = rest.pid(&id);
    let script =
        "for n in 1 2 3 4 5 6 7 8 9 10; do rm -f [0-9]; make -s || exit 1; done; echo done >> log";
    let make = world.script(&world.view(), script).start();
    for _ in 0..3 {
        world.gate(["daemon", "restart"]).run().success();
        assert_eq!((rest.status(&id), rest.pid(&id)), ("running".to_owned(), pid));
    }
    assert_eq!(make.finish(SOON * 6).success(), "");
    let log = world.source_text("log");
    assert_eq!(log.lines().count(), 101, "{log}");
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_restart_keeps_the_limits_that_the_daemon_was_started_with() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    world.gate(["daemon", "start", "--max-hold-ms", "1234567"]).run().success();
    world.gate(["daemon", "restart", "--audit-max-mib", "9"]).run().success();
    let words = fs::read(format!("/proc/{}/cmdline", pid_of_daemon(&world))).unwrap();
    let words = String::from_utf8(words).unwrap().replace('\0', " ");
    assert!(
        words.contains("--max-hold-ms 1234567") && words.contains("--audit-max-mib 9"),
        "{words}"
    );
    world.gate(["daemon", "stop"]).run().success();
}

/// N15: between a view that died and the next nothing is laid bare, over the source and elsewhere.
#[test]
fn n15_a_kept_view_that_died_comes_back_and_nothing_falls_through() {
    let (world, rest) = with_daemon(Standing::Runner);
    let auto = json!({"auto_mount": true});
    let own = world.home().join("own");
    fs::create_dir(&own).unwrap();
    let ids = [rest.add(&world.source(), &world.view(), auto.clone()), rest.add(&own, &own, auto)];
    for (id, (view, source)) in
        ids.iter().zip([(world.view(), world.source()), (own.clone(), own.clone())])
    {
        world.gate(["mount", "start", id]).run().success();
        let script =
            "n=0; while test ! -e stop; do echo $n > $n 2> /dev/null && n=$((n+1)); done; echo $n";
        // By its whole path each time: the working directory of a view that died is dead.
        let script = script.replace("-e stop", &format!("-e {}/../stop", view.display()));
        let script = script.replace("> $n", &format!("> {}/$n", view.display()));
        let writer = world.script(world.home(), &script).start();
        wait_until(SOON, "it writes", || view.join("3").exists());
        for _ in 0..3 {
            let pid = rest.pid(id).unwrap();
            kill(pid);
            wait_until(SOON * 2, "another serves it", || {
                rest.pid(id).is_some_and(|next| next != pid)
            });
            let now = rest.mount(id);
            assert_eq!(now["error_message"], Value::Null, "{now}");
        }
        fs::write(world.home().join("stop"), "").unwrap();
        let written: usize = writer.finish(SOON).success().trim().parse().unwrap();
        fs::remove_file(world.home().join("stop")).unwrap();
        world.gate(["mount", "stop", id]).run().success();
        let there = |n: &usize| source.join(n.to_string()).is_file();
        assert!(written > 3 && (0..written).all(|n| there(&n)), "{written}");
        if view != source {
            assert_eq!(fs::read_dir(&view).unwrap().count(), 0, "nothing fell through");
        }
    }
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_view_that_nobody_keeps_stays_dead_and_closed_until_somebody_asks() {
    let (world, rest) = with_daemon(Standing::Runner);
    let id = rest.add(&world.source(), &world.view(), json!({}));
    world.gate(["mount", "start", "view"]).run().success();
    let pid = rest.pid(&id).unwrap();
    kill(pid);
    await_status(&rest, &id, "error");
    let message = rest.mount(&id)["error_message"].as_str().unwrap().to_owned();
    assert!(message.contains(&format!("process {pid}, died")), "{message}");
    let refused = fs::write(world.view().join("f"), "").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(107), "ENOTCONN: {refused}");
    kill(pid_of_daemon(&world));
    world.gate(["daemon", "start"]).run().success();
    await_status(&rest, &id, "error");
    assert!(fs::write(world.view().join("f"), "").is_err(), "it is closed still");
    world.gate(["mount", "start", "view"]).run().success();
    fs::write(world.view().join("f"), "text").unwrap();
    assert_eq!(world.source_text("f"), "text");
    kill(rest.pid(&id).unwrap());
    await_status(&rest, &id, "error");
    world.gate(["mount", "stop", "view"]).run().success();
    assert_eq!(rest.status(&id), "stopped");
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_dead_view_that_somebody_unmounts_is_stopped_whether_it_is_kept_or_not() {
    let (world, rest) = with_daemon(Standing::OrdinaryUser);
    for (name, is_kept) in [("kept", true), ("other", false)] {
        let point = world.home().join(name);
        let id = rest.add(&world.source(), &point, json!({"auto_mount": is_kept}));
        world.gate(["mount", "start", &id]).run().success();
        kill(rest.pid(&id).unwrap());
        // A kept one is tried at once, and then again after some time.
        let said = if is_kept { "its view has died" } else { "its server" };
        wait_until(SOON, "it is dead, and is not tried now", || {
            rest.mount(&id)["error_message"].as_str().is_some_and(|why| why.contains(said))
        });
        world.gate(["umount", name]).run().success();
        await_status(&rest, &id, "stopped");
        kill(pid_of_daemon(&world));
        world.gate(["daemon", "start"]).run().success();
        await_status(&rest, &id, "stopped");
        assert!(kernel::mounts_below(world.home()).is_empty());
    }
    world.gate(["daemon", "stop"]).run().success();
}

/// Everything is where it was: what somebody stopped stays so, until the daemon ends in order.
#[test]
fn what_somebody_stopped_stays_stopped_through_a_crash_of_the_daemon() {
    let (world, rest) = with_daemon(Standing::Runner);
    let auto = json!({"auto_mount": true});
    let other = world.home().join("other");
    let ids = [
        rest.add(&world.source(), &world.view(), auto.clone()),
        rest.add(&world.source(), &other, auto),
    ];
    for id in &ids {
        world.gate(["mount", "start", id]).run().success();
    }
    world.gate(["mount", "stop", &ids[0]]).run().success();
    // As good as that: somebody unmounts it by hand.
    world.gate(["umount", "other"]).run().success();
    await_status(&rest, &ids[1], "stopped");
    kill(pid_of_daemon(&world));
    world.gate(["daemon", "start"]).run().success();
    ids.iter().for_each(|id| await_status(&rest, id, "stopped"));
    world.gate(["daemon", "stop"]).run().success();
    world.gate(["daemon", "start"]).run().success();
    ids.iter().for_each(|id| await_status(&rest, id, "running"));
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_list_of_mounts_that_lost_what_was_in_it_is_said_to_be_damaged() {
    let (world, rest) = with_daemon(Standing::Runner);
    rest.add(&world.source(), &world.view(), json!({"auto_mount": true}));
    world.gate(["daemon", "stop"]).run().success();
    let list = world.state().join("mounts.sqlite");
    fs::write(&list, "").unwrap();
    let refused = world.gate(["daemon", "start"]).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    let text = refused.refusal();
    assert!(text.contains("it is empty") && text.contains("mv "), "{text}");
    fs::rename(&list, list.with_extension("aside")).unwrap();
    world.gate(["daemon", "start"]).run().success();
    world.gate(["daemon", "stop"]).run().success();
}

/// N16: the list of another release is left as it is.
#[test]
fn n16_a_list_of_mounts_of_another_release_is_named_and_left_alone() {
    let (world, rest) = with_daemon(Standing::Runner);
    rest.add(&world.source(), &world.view(), json!({}));
    world.gate(["daemon", "stop"]).run().success();
    let list = world.state().join("mounts.sqlite");
    let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); \
                  db.execute('PRAGMA user_version = 99'); db.commit(); db.close()";
    let change = |script: &str| {
        let path = list.to_str().unwrap();
        let line = format!("python3 -c \"{script}\" {path}");
        world.script(world.home(), &line).run().success();
    };
    change(script);
    let refused = world.gate(["daemon", "start"]).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    let text = refused.refusal();
    assert!(text.contains("version 99") && text.contains("mv "), "{text}");
    change(&script.replace("99", "2"));
    world.gate(["daemon", "start"]).run().success();
    assert_eq!(rest.ask("GET", MOUNTS).body["mounts"].as_array().unwrap().len(), 1);
    world.gate(["daemon", "stop"]).run().success();
}
