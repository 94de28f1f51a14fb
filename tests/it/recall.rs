//! Who holds too long: warned, asked, ended, and told why.

use gate_tests::actor::Fd;
use gate_tests::wait::{SOON, wait_until};
use gate_tests::{Actor, World};
use rustix::io::Errno;
use serde_json::{Value, json};

/// Lets one open `f` to write, and another wait for it.
fn held_and_waited_for(world: &World) -> (Actor, Fd, Actor) {
    world.seed("f", "old");
    let mut holder = world.actor(&world.view());
    let fd = holder.open("rw", "f");
    let mut waiter = world.actor(&world.view());
    waiter.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    (holder, fd, waiter)
}

/// N7: whatever took the turn away, nothing is written through its handle any more.
#[track_caller]
fn assert_fenced(world: &World, holder: &mut Actor, fd: Fd) {
    assert_eq!(holder.write(fd, "late"), Err(Errno::IO));
    assert_eq!(holder.on("fsync", fd, &[]), Err(Errno::IO));
    assert_eq!(holder.on("close", fd, &[]), Err(Errno::IO));
    assert_eq!(world.source_text("f"), "theirs");
}

fn why(world: &World, path: &str) -> String {
    world.gate(["why".as_ref(), world.view().join(path).as_os_str()]).run().success()
}

#[test]
fn n7_a_broken_lock_is_fenced_and_its_holder_learns_why() {
    let world = World::new();
    let (mut holder, fd, mut waiter) = held_and_waited_for(&world);
    let path = world.view().join("f");
    let said = world.gate(["break".as_ref(), path.as_os_str()]).args(["--reason", "it is stuck"]);
    assert!(said.run().success().contains("is broken"));
    let theirs = waiter.opened();
    waiter.write(theirs, "theirs").unwrap();
    assert_fenced(&world, &mut holder, fd);
    let told = why(&world, "f");
    assert!(told.contains("somebody broke it: it is stuck"), "{told}");
}

/// Not only who asks about the very path.
#[test]
fn status_tells_whose_turns_were_taken_away_lately_and_why() {
    let world = World::new();
    let status = || -> Value {
        serde_json::from_str(&world.gate(["status", "--json"]).run().success()).unwrap()
    };
    assert_eq!(status()["lately"], json!([]));
    let (_holder, _fd, mut waiter) = held_and_waited_for(&world);
    let path = world.view().join("f");
    let break_it = || {
        let said = ["--reason", "it is stuck"];
        world.gate(["break".as_ref(), path.as_os_str()]).args(said).run().success();
    };
    break_it();
    waiter.opened();
    break_it();
    let told = world.gate(["status"]).run().success();
    let lately: Vec<&str> = told.lines().filter(|line| line.contains("it is stuck")).collect();
    assert!(lately[0].starts_with("lately ") && lately.len() == 2, "{told}");
    assert!(lately[0].contains("open f to write (ticket 1) lost its turn: somebody broke it"));
    let lately = status()["lately"].take();
    let events: Vec<Value> =
        lately.as_array().unwrap().iter().map(|e| e["event"].clone()).collect();
    assert_eq!(events, ["revoked", "revoked"], "{lately}");
    assert_eq!((&lately[0]["path"], &lately[0]["said"]), (&json!("f"), &json!("it is stuck")));
}

#[test]
fn n7_who_was_asked_to_let_go_and_did_not_is_fenced() {
    let world = World::new();
    let (mut holder, fd, mut waiter) = held_and_waited_for(&world);
    let ticket = world.board().held("f").next().unwrap().ticket.to_string();
    let args = ["recall", &ticket, "--within", "300ms", "--reason", "the build needs it"];
    world.gate(args).run().success();
    let theirs = waiter.opened();
    waiter.write(theirs, "theirs").unwrap();
    assert_fenced(&world, &mut holder, fd);
    let told = why(&world, "f");
    assert!(told.contains("did not: the build needs it"), "{told}");
}

/// N7: what was asked of it while nobody waited holds for whoever comes later.
#[test]
fn n7_who_was_asked_to_let_go_before_anybody_waited_is_fenced_when_somebody_does() {
    let world = World::new();
    world.seed("f", "old");
    let mut holder = world.actor(&world.view());
    let fd = holder.open("rw", "f");
    let path = world.view().join("f");
    world.gate(["recall".as_ref(), path.as_os_str()]).args(["--within", "1ms"]).run().success();
    let told = why(&world, "f");
    assert!(told.contains("asked to let go until"), "{told}");
    let mut waiter = world.actor(&world.view());
    let theirs = waiter.open("w", "f");
    waiter.write(theirs, "theirs").unwrap();
    assert_fenced(&world, &mut holder, fd);
}

#[test]
fn who_lets_go_when_asked_loses_nothing() {
    let world = World::new();
    let (mut holder, fd, mut waiter) = held_and_waited_for(&world);
    let path = world.view().join("f");
    world.gate(["recall".as_ref(), path.as_os_str()]).run().success();
    let told = why(&world, "f");
    assert!(told.contains("asked to let go until"), "{told}");
    holder.write(fd, "mine").unwrap();
    holder.close(fd);
    waiter.opened();
    assert_eq!(world.source_text("f"), "mine");
}

#[test]
fn n7_who_holds_longer_than_allowed_while_others_wait_is_fenced() {
    let world = World::with_view(["--max-hold-ms", "800"]);
    let (mut holder, fd, mut waiter) = held_and_waited_for(&world);
    let theirs = waiter.opened();
    waiter.write(theirs, "theirs").unwrap();
    assert_fenced(&world, &mut holder, fd);
    let told = why(&world, "f");
    assert!(told.contains("longer than max_hold"), "{told}");
}

/// Others have to wait for that: it is warned, asked, and ended, in this order and on record.
#[test]
fn who_holds_longer_than_allowed_is_warned_asked_and_ended_on_record() {
    let world = World::with_view(["--max-hold-ms", "800"]);
    let (_holder, _fd, mut waiter) = held_and_waited_for(&world);
    waiter.opened();
    let log = world.gate(["log", "--json", "--since", "0.0"]).run().success();
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_holder = |event: &&Value| event["ticket"] == 1 && event["why"].is_string();
    let told = events.iter().filter(of_holder).map(|event| (&event["event"], &event["why"]));
    let told: Vec<(&Value, &Value)> = told.collect();
    let why = json!("max-hold");
    let names = ["recall-warned", "recalled", "revoked"].map(Value::from);
    assert_eq!(told, names.each_ref().map(|name| (name, &why)), "{log}");
}

#[test]
fn a_hold_that_lasts_longer_than_allowed_is_told_so_and_why_it_ended() {
    let mut world = World::bare();
    world.start_broker(["--max-hold-ms", "1500"]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    world.seed("f", "");
    let mut hold =
        world.gate(["hold", "f", "--", "sh", "-c", "read line"]).dir(&view).start_with_input();
    wait_until(SOON, "it holds", || world.board().held("f").count() == 1);
    let mut waiter = world.actor(&view);
    waiter.tell(["open", "w", "f"]);
    waiter.opened();
    drop(hold.stdin());
    let outcome = hold.finish(SOON);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    let told = [
        "somebody waits, and it was held for long: it ends in ",
        "somebody still waits: let go, the hold is taken away in ",
        "it was held for longer than max_hold while somebody waited",
    ];
    let at = told.map(|told| outcome.stderr.find(told).unwrap_or_else(|| panic!("{outcome}")));
    assert!(at.is_sorted(), "{outcome}");
}

#[test]
fn a_hold_is_told_what_is_asked_of_it_and_ends_by_name() {
    let world = World::new();
    world.seed("d/f", "");
    let hold = world.gate(["hold", "d", "--", "sleep", "1000"]).dir(world.view()).start();
    let gate = world.view().join("d");
    wait_until(SOON, "it holds", || world.board().held("d").count() == 1);
    let lock = ["recall".as_ref(), gate.as_os_str()];
    world.gate(lock).args(["--reason", "lunch", "--within", "1h"]).run().success();
    wait_until(SOON, "it is told", || hold.so_far().contains("please let go"));
    assert!(hold.so_far().contains("lunch"), "{}", hold.so_far());
    world.gate(["break".as_ref(), gate.as_os_str()]).args(["--reason", "now"]).run().success();
    let mut other = world.actor(&world.view());
    other.open("w", "d/f");
    let command =
        std::process::Command::new("pgrep").args(["-P", &hold.pid().to_string()]).output();
    let child = String::from_utf8(command.unwrap().stdout).unwrap();
    let child = rustix::process::Pid::from_raw(child.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::TERM).unwrap();
    let outcome = hold.finish(SOON);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stderr.contains("somebody broke it: now"), "{outcome}");
}

/// The command goes on, as anybody else.
#[test]
fn below_a_hold_that_was_broken_opens_take_their_own_turns() {
    let world = World::new();
    world.seed("a", "old");
    let script = r#""$GATE" hold a -- sh -c 'echo runs; read go; echo mine > a'"#;
    let script = world.script(&world.view(), script).env("GATE", world.program("gate"));
    let mut hold = script.start_with_input();
    // Broken before, it would not begin at all.
    wait_until(SOON, "it runs under the hold", || hold.so_far().contains("runs"));
    let path = world.view().join("a");
    world.gate(["break".as_ref(), path.as_os_str()]).args(["--reason", "x"]).run().success();
    let mut other = world.actor(&world.view());
    let fd = other.open("w", "a");
    drop(hold.stdin());
    world.await_waiting("a", 1);
    other.write(fd, "theirs").unwrap();
    other.close(fd);
    let outcome = hold.finish(SOON);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.stderr.contains("took turns of its own"), "{outcome}");
    assert_eq!(world.source_text("a"), "mine\n");
}

#[test]
fn a_waiter_is_sent_away() {
    let world = World::new();
    let (mut holder, fd, mut waiter) = held_and_waited_for(&world);
    let ticket = world.board().waiting("f").next().unwrap().ticket.to_string();
    world.gate(["break", &ticket, "--reason", "not now"]).run().success();
    assert_eq!(waiter.answer(), Err(Errno::IO));
    holder.write(fd, "mine").unwrap();
    holder.close(fd);
}

#[test]
fn a_hold_that_is_sent_away_is_told_why() {
    let world = World::new();
    world.seed("f", "");
    let mut holder = world.actor_under_hold(&world.view(), ["f"]);
    let hold = world.gate(["hold", "f", "--", "true"]).dir(world.view()).start();
    world.await_waiting("f", 1);
    let ticket = world.board().waiting("f").next().unwrap().ticket.to_string();
    world.gate(["break", &ticket, "--reason", "not before noon"]).run().success();
    let outcome = hold.finish(SOON);
    assert_eq!(outcome.code, Some(1), "{outcome}");
    assert!(outcome.refusal().contains("somebody ended its wait: not before noon"));
    holder.leave();
}

#[test]
fn programs_are_told_which_lock_was_recalled_or_broken() {
    let world = World::new();
    let (_holder, _, mut waiter) = held_and_waited_for(&world);
    let ticket = world.board().held("f").next().unwrap().ticket;
    let path = world.view().join("f");
    let said = |words: &[&str]| {
        let said = world.gate(words).args([path.as_os_str()]).run().success();
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let recalled = json!({"version": 1, "ticket": ticket, "within_us": 90_500_000});
    assert_eq!(said(&["recall", "--json", "--within", "90.5"]), recalled);
    let broken = json!({"version": 1, "ticket": ticket});
    assert_eq!(said(&["break", "--json", "--reason", "x"]), broken);
    waiter.opened();
}

#[test]
fn what_is_no_lock_is_refused_by_name() {
    let world = World::new();
    world.seed("f", "");
    let nothing = world.gate(["break", "4711", "--reason", "x"]).run();
    assert_eq!(nothing.code, Some(1), "{nothing}");
    assert!(nothing.refusal().contains("no holder of that ticket"));
    let silent = world.gate(["break", "1", "--reason", " "]).run();
    assert_eq!(silent.code, Some(2), "{silent}");
    assert!(silent.refusal().contains("wants to know why"));
    let path = world.view().join("f");
    let free = world.gate(["recall".as_ref(), path.as_os_str()]).run().refusal();
    assert!(free.contains("nobody holds it"), "{free}");
    let [mut one, mut two] = [world.actor(&world.view()), world.actor(&world.view())];
    one.open("r", "f");
    two.open("r", "f");
    let both = world.gate(["recall".as_ref(), path.as_os_str()]).run().refusal();
    assert!(both.contains("2 hold it"), "{both}");
}
