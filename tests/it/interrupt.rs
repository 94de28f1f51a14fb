//! N6: a waiting call can be interrupted, freezes its directory for nobody, and holds no kernel
//! lock that the holder needs.

use std::collections::BTreeSet;
use std::time::Duration;

use gate_tests::actor::{Actor, Fd};
use gate_tests::wait::wait_until;
use gate_tests::{World, wait};
use rustix::io::Errno;
use rustix::process::Signal;

use super::slow::{AT_REST_MAX, threads};

/// The bench prints how long it really takes (≤ 50 ms); here it must merely not hang.
const PROMPT: Duration = Duration::from_secs(5);

/// More of each kind than the 64 threads that a view has at most.
const CROWD: usize = 80;

/// For what so many do, each by a process of its own.
const LATER: Duration = Duration::from_secs(60);

/// What waits for a writer of `d/f`, each as words for an actor.
const BLOCKED_BY_A_WRITER: [&[&str]; 10] = [
    &["open", "r", "d/f"],
    &["open", "w", "d/f"],
    &["open", "w+0", "d/f"],
    &["unlink", "d/f"],
    &["rename", "d/other", "d/f"],
    &["truncate", "d/f", "0"],
    &["chmod", "d/f", "600"],
    &["setxattr", "d/f", "user.x", "y"],
    &["touch", "d/f"],
    &["link", "d/f", "d/hard"],
];

/// What waits for a hold of `d`.
const BLOCKED_BY_A_HOLD: [&[&str]; 6] = [
    &["mkdir", "d/new"],
    &["open", "w+!", "d/new"],
    &["symlink", "x", "d/new"],
    &["mkfifo", "d/new"],
    &["rmdir", "d/empty"],
    &["unlink", "d/other"],
];

#[test]
fn what_waits_for_a_writer_ends_when_killed() {
    for words in BLOCKED_BY_A_WRITER {
        let mut scene = Scene::with_writer();
        for signal in [Signal::INT, Signal::KILL] {
            scene.end_by(words, signal);
        }
    }
}

#[test]
fn what_waits_for_a_hold_ends_when_killed() {
    for words in BLOCKED_BY_A_HOLD {
        let mut scene = Scene::with_hold();
        for signal in [Signal::INT, Signal::KILL] {
            scene.end_by(words, signal);
        }
    }
}

/// A process that catches SIGINT lives on; its call failed and it may try again.
#[test]
fn a_caught_interrupt_ends_the_call_and_not_the_process() {
    for words in BLOCKED_BY_A_WRITER {
        let mut scene = Scene::with_writer();
        let mut blocked = scene.blocked(words);
        blocked.signal(Signal::INT);
        let outcome = blocked.answer_by(PROMPT);
        assert!(outcome.is_err(), "{words:?}: {outcome:?}");
        assert_ne!(outcome, Err(Errno::STALE), "{words:?}");
        assert_eq!(blocked.ask(["access", "d/other"]), Ok(String::new()));
        scene.holder_goes_on();
    }
}

/// The kernel ends the wait of a FUSE call for any signal, and lets no such call begin anew by itself.
#[test]
fn a_waiting_call_fails_when_its_process_is_stopped_or_has_a_handler_that_restarts_calls() {
    for words in [BLOCKED_BY_A_WRITER[0], &["unlink", "d/f"], &["chmod", "d/f", "600"]] {
        let scene = Scene::with_writer();
        let mut stopped = scene.block(scene.world.actor(&scene.world.view()), words);
        stopped.signal(Signal::STOP);
        wait_until(wait::SOON, "it is stopped", || is_stopped(stopped.pid()));
        stopped.signal(Signal::CONT);
        assert_eq!(stopped.answer_by(PROMPT), Err(Errno::INTR), "{words:?}");
        let scene = Scene::with_writer();
        let mut actor = scene.world.actor(&scene.world.view());
        actor.ask(["catch", "restart"]).unwrap();
        let mut restarts = scene.block(actor, words);
        restarts.signal(Signal::INT);
        assert_eq!(restarts.answer_by(PROMPT), Err(Errno::INTR), "{words:?}");
    }
}

fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
}

#[test]
fn a_waiting_call_goes_on_when_the_holder_is_done() {
    for words in BLOCKED_BY_A_WRITER {
        let mut scene = Scene::with_writer();
        let mut blocked = scene.blocked(words);
        scene.neighbours_go_on();
        let fd = scene.fd.take().unwrap();
        scene.holder.close(fd);
        let outcome = blocked.answer_by(PROMPT);
        assert!(outcome.is_ok(), "{words:?}: {outcome:?}");
    }
    for words in BLOCKED_BY_A_HOLD {
        let mut scene = Scene::with_hold();
        let mut blocked = scene.blocked(words);
        scene.neighbours_go_on();
        scene.holder.leave();
        let outcome = blocked.answer_by(PROMPT);
        assert!(outcome.is_ok(), "{words:?}: {outcome:?}");
    }
}

/// Those who wait to open a file, and those who wait to make or remove one and stand in the line of
/// another way, are more than the threads that a view has at most.
#[test]
fn n6_a_crowd_that_waits_occupies_no_thread_and_holds_up_nobody() {
    let world = World::new();
    world.seed("f", "");
    world.seed("e/f", "text");
    for number in 1..=CROWD {
        world.seed(&format!("d/old-{number}"), "");
    }
    let mut writer = world.actor(&world.view());
    let fd = writer.open("w", "f");
    let mut holder = world.actor_under_hold(&world.view(), ["d"]);
    let each = ["echo x >> f", "> d/new-$i", "rm d/old-$i"].map(|call| format!("{call} & "));
    let script = format!("for i in {{1..{CROWD}}}; do {} done; wait", each.concat());
    let crowd = world.script(&world.view(), &script).start();
    wait_until(LATER, "all wait", || waiting(&world) == 3 * CROWD);
    let server = world.server_of(&world.view());
    wait_until(wait::SOON, "no more threads serve the view than when nobody waits", || {
        let others = "cat e/f; echo more > e/g; ls e; rm e/g; stat -c %s d/old-1; ls d | wc -l";
        let others = world.script(&world.view(), others).within(PROMPT).run();
        assert_eq!(others.success(), format!("textf\ng\n0\n{CROWD}\n"));
        threads(server, "fuse-") <= AT_REST_MAX
    });
    assert_eq!(waiting(&world), 3 * CROWD);
    writer.close(fd);
    holder.leave();
    let _ = crowd.finish(LATER).success();
    assert_eq!(world.source_text("f"), "x\n".repeat(CROWD));
    let names = std::fs::read_dir(world.source().join("d")).unwrap();
    let names: BTreeSet<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, (1..=CROWD).map(|number| format!("new-{number}").into()).collect());
}

/// An operation on two names is one place in the line, listed under both.
fn waiting(world: &World) -> usize {
    let board = world.board();
    let waiting = board.locks.iter().filter(|lock| lock.state == "waiting");
    waiting.map(|lock| lock.ticket).collect::<BTreeSet<u64>>().len()
}

/// A holder of `d/f` or of `d`, and others in the same directory.
struct Scene {
    holder: Actor,
    /// The holder's open file, where that is what it holds.
    fd: Option<Fd>,
    world: World,
}

impl Scene {
    fn with_writer() -> Self {
        let world = Self::tree();
        let mut holder = world.actor(&world.view());
        let fd = holder.open("rw", "d/f");
        Self { holder, fd: Some(fd), world }
    }

    fn with_hold() -> Self {
        let world = Self::tree();
        let holder = world.actor_under_hold(&world.view(), ["d"]);
        Self { holder, fd: None, world }
    }

    fn tree() -> World {
        let world = World::new();
        for name in ["d/f", "d/other", "d/more", "e/f"] {
            world.seed(name, "text");
        }
        std::fs::create_dir(world.source().join("d/empty")).unwrap();
        world
    }

    fn blocked(&self, words: &[&str]) -> Actor {
        let mut actor = self.world.actor(&self.world.view());
        actor.ask(["catch"]).unwrap();
        self.block(actor, words)
    }

    fn block(&self, mut actor: Actor, words: &[&str]) -> Actor {
        actor.tell(words);
        wait_until(wait::SOON, &format!("{words:?} waits"), || {
            assert!(actor.is_busy(), "{words:?} did not wait: {:?}", actor.answer());
            self.waiting() == 1
        });
        actor
    }

    fn waiting(&self) -> usize {
        waiting(&self.world)
    }

    fn end_by(&mut self, words: &[&str], signal: Signal) {
        let mut blocked = self.block(self.world.actor(&self.world.view()), words);
        self.neighbours_go_on();
        self.holder_goes_on();
        blocked.signal(signal);
        assert_eq!(blocked.end(PROMPT), Some(signal.as_raw()), "{words:?}");
        wait_until(wait::SOON, "its place in the line is free", || self.waiting() == 0);
        self.holder_goes_on();
    }

    /// Everything else in the directory proceeds, names that the kernel has not cached too.
    fn neighbours_go_on(&self) {
        let mut neighbour = self.world.actor(&self.world.view());
        let mut ok = |words: &[&str]| {
            let outcome = neighbour.ask(words);
            assert!(outcome.is_ok(), "{words:?}: {outcome:?}");
        };
        ok(&["stat", "d/more"]);
        ok(&["list", "d"]);
        ok(&["append", "e/f", "x"]);
        if self.fd.is_some() {
            ok(&["append", "d/more", "x"]);
            ok(&["append", "d/fresh", "x"]);
            ok(&["unlink", "d/fresh"]);
            ok(&["mkdir", "d/sub"]);
            ok(&["rmdir", "d/sub"]);
        }
        assert_eq!(neighbour.ask(["stat", "d/nothing"]), Err(Errno::NOENT));
    }

    /// The holder's own read, write and so on proceed.
    fn holder_goes_on(&mut self) {
        match self.fd {
            Some(fd) => {
                self.holder.write(fd, "more").unwrap();
                self.holder.on("seek", fd, &["0"]).unwrap();
                assert_eq!(self.holder.read(fd, 4), Ok("more".to_owned()));
                self.holder.on("fsync", fd, &[]).unwrap();
                self.holder.on("fchmod", fd, &["644"]).unwrap();
                self.holder.on("seek", fd, &["0"]).unwrap();
            }
            None => {
                self.holder.ask(["append", "d/f", "x"]).unwrap();
                self.holder.ask(["mkdir", "d/own"]).unwrap();
                self.holder.ask(["rmdir", "d/own"]).unwrap();
            }
        }
    }
}
