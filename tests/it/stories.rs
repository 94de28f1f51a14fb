//! Stories: four agents in private views and a human in the view that all see work on one crate,
//! while parts of Gate are killed, stopped and renewed. Whatever becomes of them, no edit is lost.

mod judge;
mod play;

use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_for, wait_until};
use gate_tests::{kernel, scaled};
use rustix::io::Errno;
use rustix::process::{Signal, getpgid, kill_process};

use play::{
    AGENTS, AGENTS_DEEDS, ENDLESS, HUMAN, HUMANS_DEEDS, LEASE, LONG, Story, all, build_anew, pid,
};

/// Nothing goes wrong: nothing fails either, and whoever holds the sources can build them.
#[test]
fn agents_in_private_views_and_a_human_refactor_a_crate_and_lose_nothing() {
    let mut story = Story::new(&[], |name| match name {
        HUMAN => [HUMANS_DEEDS.as_slice(), &["build"]].concat(),
        _ => [AGENTS_DEEDS.as_slice(), &["rewrite", "rewrite", "build"]].concat(),
    });
    let said = story.work(80);
    story.assert_all_was_done(&said);
    story.assert_nothing_is_lost();
    build_anew(&story.world, &story.world.source());
    story.end(Vec::new());
}

/// What root may and an ordinary user may not is no part of it.
#[test]
fn an_ordinary_user_and_her_agents_in_private_views_lose_nothing() {
    let mut story = Story::of_ordinary_user(|name| match name {
        HUMAN => HUMANS_DEEDS.into(),
        _ => [AGENTS_DEEDS.as_slice(), &["rewrite", "rewrite"]].concat(),
    });
    let said = story.work(40);
    story.assert_all_was_done(&said);
    story.assert_nothing_is_lost();
    story.end(Vec::new());
}

/// N15: each part of Gate is killed in turn. Who has lost its view fails, and reaches no file by
/// another way; the others go on; what was killed can be started anew.
#[test]
fn n15_whatever_part_is_killed_the_others_go_on_and_nothing_is_lost() {
    let mut story = Story::new(&[], deeds);
    story.start_all(ENDLESS);
    story.await_deeds(all(), 1);
    let mut former = Vec::new();
    for _ in 0..scaled(2, 60) {
        kill_private_server(&mut story);
        kill_shared_server(&mut story);
        kill_daemon(&story);
        kill_agent(&mut story);
        kill_hold(&story);
        former.push(kill_guardians(&mut story));
    }
    story.stop();
    story.assert_nothing_was_torn();
    repair(&story);
    story.assert_nothing_is_lost();
    build_anew(&story.world, &story.world.source());
    story.end(former);
}

/// N7: an agent is stopped with its view for two leases. The others get what it held and
/// go on; when it goes on it is fenced, and destroys nothing of theirs.
#[test]
fn n7_an_agent_that_was_suspended_wakes_up_fenced_and_hurts_nobody() {
    let lease_ms = LEASE.as_millis().to_string();
    let mut story = Story::new(&["--lease-ms", &lease_ms], deeds);
    story.world.set_env("GATE_LEASE_MS", &lease_ms);
    story.start_all(ENDLESS);
    let mut late = story.actor("LIZ");
    let file = "src/parts/p00.rs";
    let fd = late.open("wa", file);
    late.write(fd, "// LIZ_1 ").unwrap();
    story.while_suspended("LIZ", late.pid(), |story| {
        let edits = story.edits_of(file);
        wait_until(LONG, "others get what it held", || story.edits_of(file) > edits);
    });
    assert_eq!(late.write(fd, "// LIZ_2 "), Err(Errno::IO));
    late.close(fd);
    for _ in 0..scaled(4, 80) {
        let name = *story.dice.pick(&AGENTS);
        story.while_suspended(name, story.worker(name).pid(), |story| {
            story.await_deeds(all().filter(|other| *other != name), 3);
        });
        story.await_deeds([name], 2);
    }
    late.ask(["append", file, "// LIZ_3 "]).unwrap();
    drop(late);
    story.stop();
    let lizs = story.marks_of("LIZ");
    assert!(!lizs.contains("LIZ_2"), "{lizs:?}");
    repair(&story);
    story.assert_nothing_is_lost();
    build_anew(&story.world, &story.world.source());
    story.end(Vec::new());
}

/// An upgrade while all work on, and build: the daemon ends and begins, and the view that all see is
/// replaced.
#[test]
fn upgrades_are_noticed_by_nobody() {
    let mut story = Story::new(&[], |name| match name {
        HUMAN => [HUMANS_DEEDS.as_slice(), &["build", "build"]].concat(),
        _ => [AGENTS_DEEDS.as_slice(), &["rewrite", "rewrite", "build"]].concat(),
    });
    story.start_all(ENDLESS);
    story.await_deeds(all(), 1);
    let source = story.world.source();
    let mut former = Vec::new();
    for _ in 0..scaled(5, 150) {
        story.stop_daemon();
        story.start_daemon(&[]);
        story.await_deeds(all(), 2);
        former.push(story.world.mount_anew(&source, ["--replace"]));
        story.await_deeds(all(), 2);
    }
    wait_until(LONG, "she builds in it", || story.has_done(HUMAN, "build"));
    let said = story.stop();
    story.assert_all_was_done(&said);
    story.assert_nothing_is_lost();
    build_anew(&story.world, &source);
    story.end(former);
}

fn kill_private_server(story: &mut Story) {
    let name = *story.dice.pick(&AGENTS);
    let server = story.server_of(name);
    kill_process(pid(server), Signal::KILL).unwrap();
    nothing_comes_of(story, name);
    story.await_deeds(all().filter(|other| *other != name), 2);
    story.kill(name);
    story.start(name, ENDLESS);
    story.await_deeds([name], 2);
}

fn kill_shared_server(story: &mut Story) {
    let source = story.world.source();
    story.world.server_of(&source).signal(Signal::KILL);
    nothing_comes_of(story, HUMAN);
    story.await_deeds(AGENTS, 2);
    let former = story.world.mount_anew(&source, ["--force"]);
    assert_eq!(former.finish(SOON).signal, Some(Signal::KILL.as_raw()));
    story.await_deeds([HUMAN], 2);
}

fn kill_daemon(story: &Story) {
    let status = story.world.gate(["daemon", "status"]).run().success();
    let daemon = status.trim().rsplit(' ').next().unwrap().parse().unwrap();
    kernel::kill(daemon);
    story.start_daemon(&[]);
    story.await_deeds(all(), 2);
}

fn kill_agent(story: &mut Story) {
    let name = *story.dice.pick(&AGENTS);
    story.kill(name);
    story.await_deeds(all().filter(|other| *other != name), 2);
    story.start(name, ENDLESS);
    story.await_deeds([name], 2);
}

/// What runs below it goes on, and takes its turns like anybody. What it had read before it may overwrite
/// unseen by now: so it is one of an agent, whom the guard watches.
fn kill_hold(story: &Story) {
    let leaders = AGENTS.map(|name| Some(pid(story.worker(name).pid())));
    let home = story.world.home();
    let hold = wait_for(LONG, "an agent holds a file", || {
        let mut all = kernel::processes_of(home).into_iter();
        let hold = all.find(|(process, line)| {
            let is_theirs = || leaders.contains(&getpgid(Some(pid(*process))).ok());
            line.contains("/gate hold src/parts/") && is_theirs()
        });
        hold.map(|(process, _)| process)
    });
    kernel::kill(hold);
    story.await_deeds(all(), 2);
}

/// Who works in the views does not notice. Without them they are not killed: their agent is, and the one
/// that all see is replaced. Returns who served that: private views may still have a copy.
fn kill_guardians(story: &mut Story) -> Running {
    let (source, name) = (story.world.source(), *story.dice.pick(&AGENTS));
    for server in [story.world.server_of(&source).pid(), story.server_of(name)] {
        let guardian = wait_for(SOON, "it has a guardian", || kernel::guardian_of(server));
        kernel::kill(guardian);
        wait_until(SOON, "it has none", || kernel::is_dead(guardian));
    }
    story.await_deeds(all(), 2);
    story.kill(name);
    story.start(name, ENDLESS);
    let former = story.world.mount_anew(&source, ["--replace"]);
    story.await_deeds(all(), 2);
    former
}

/// Asserts that all that somebody tries fails, and leaves no trace in the bare directory.
fn nothing_comes_of(story: &Story, name: &str) {
    let before = story.marks_of(name);
    story.await_failures(name, 50);
    let after = story.marks_of(name);
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{name} has reached the bare directory: {new:?}");
}

/// What was killed, or stopped for too long, may have left the calls half renamed.
fn repair(story: &Story) {
    let script = r"sed -i 's/\bstep_[0-9]*/step_0/' src/calls/*.rs";
    story.world.script(&story.world.source(), script).run().success();
}

/// What is done where things are killed. Who is killed between emptying a file and writing it has
/// destroyed what it had seen, as on a bare directory; so nobody rewrites.
fn deeds(name: &str) -> Vec<&'static str> {
    match name {
        HUMAN => [HUMANS_DEEDS.as_slice(), &["build"]].concat(),
        _ => AGENTS_DEEDS.into(),
    }
}
