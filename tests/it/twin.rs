//! A view beside its twin, the bare directory: processes do the same in both, step by step, and
//! each step must come out the same.
//!
//! Scripts are made up, and cut down when one fails, by proptest; a line of a script says who acts
//! and what it does, in the words of an actor. The last of the actors is an ordinary user.

mod script;

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gate_tests::world::ORDINARY_USER;
use gate_tests::{Actor, World};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use script::{ACTORS, Step, scripts, scripts_without_set_id_bits};

/// What each script finds: `d/large` is above the size from which the kernel reads by itself.
const BEFORE: &str = "
    make d directory 777
    make d/e directory 755
    at 0 open w+ a
    at 0 write 5000 1
    at 0 open w+ d/large
    at 0 pwrite 8192 300000 2
    lchown d/large 5 60
    symlink a l
    symlink ../d/e d/l
    leave";

/// How often a script that fails is played again to cut it down.
const SHRINKS_MAX: u32 = 1000;

/// How one process makes way for the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turns {
    /// All are one owner, and nobody is in anybody's way.
    Together,
    /// Who acts next finds that the one before has let go of everything.
    OneByOne,
}

#[test]
fn processes_of_one_owner_do_in_a_view_what_they_do_on_the_bare_directory() {
    check(&["--owner-scope", "mount"], Turns::Together, &scripts());
}

#[test]
fn processes_that_take_turns_do_in_a_view_what_they_do_on_the_bare_directory() {
    check(&[], Turns::OneByOne, &scripts());
}

#[test]
fn what_is_done_in_a_strict_view_comes_out_as_on_the_bare_directory() {
    check(&["--mode", "strict", "--owner-scope", "mount"], Turns::Together, &scripts());
}

#[test]
fn what_is_done_in_a_fast_view_comes_out_as_on_the_bare_directory() {
    let args = ["--mode", "fast", "--owner-scope", "mount"];
    check(&args, Turns::Together, &scripts_without_set_id_bits());
}

#[track_caller]
fn check(args: &[&str], turns: Turns, scripts: &impl Strategy<Value = Vec<Step>>) {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = World::with_view([&["--allow-other"], args].concat());
    fs::set_permissions(world.home(), fs::Permissions::from_mode(0o755)).unwrap();
    let pair = RefCell::new(Pair::new(&world, turns));
    // After a step that never ended the actors no longer answer to what they are asked: what
    // failed first is what is told.
    let hung = Cell::new(false);
    let cases = u32::try_from(gate_tests::scaled(100, 20_000)).unwrap();
    let config = Config {
        cases,
        max_shrink_iters: SHRINKS_MAX,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(scripts, |script| {
        if hung.replace(true) {
            hung.set(true);
            return Ok(());
        }
        let outcome = pair.borrow_mut().play(&script);
        hung.set(false);
        outcome
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, script)) => {
            let lines: Vec<String> =
                script.iter().map(|(who, line)| format!("{who} {line}")).collect();
            panic!("{reason}\n{}", lines.join("\n"));
        }
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// The view with its actors, the twin with its own, and who looks at the source.
struct Pair<'a> {
    world: &'a World,
    turns: Turns,
    found: Vec<Actor>,
    expected: Vec<Actor>,
    behind: Actor,
    played: usize,
}

impl<'a> Pair<'a> {
    fn new(world: &'a World, turns: Turns) -> Self {
        let actors = |dir: &Path| {
            let mut actors: Vec<Actor> = (0..ACTORS).map(|_| world.actor(dir)).collect();
            let user = actors.last_mut().unwrap();
            let [uid, gid] = [ORDINARY_USER.uid, ORDINARY_USER.gid].map(|id| id.to_string());
            user.ask(["become", &uid, &gid]).unwrap();
            user.ask(["umask", "27"]).unwrap();
            actors
        };
        let (found, expected) = (actors(&world.view()), actors(&world.twin()));
        Self { world, turns, found, expected, behind: world.actor(&world.source()), played: 0 }
    }

    /// Plays a script in a fresh directory of both, and compares what is left of it.
    fn play(&mut self, script: &[Step]) -> Result<(), TestCaseError> {
        self.enter();
        for line in BEFORE.trim().lines() {
            self.step(0, line.trim())?;
        }
        let mut last = None;
        for (who, line) in script {
            if self.turns == Turns::OneByOne && last.is_some_and(|last| last != *who) {
                self.all_leave();
            }
            last = Some(*who);
            self.step(*who, line)?;
        }
        self.all_leave();
        let in_view = self.step(0, "tree .")?;
        let behind = self.behind.ask(["tree", "."]).unwrap();
        same("the source behind the view", &in_view, &behind)
    }

    fn enter(&mut self) {
        self.all_leave();
        let name = self.played.to_string();
        self.played += 1;
        for dir in [self.world.twin(), self.world.view()] {
            fs::create_dir(dir.join(&name)).unwrap();
            fs::set_permissions(dir.join(&name), fs::Permissions::from_mode(0o777)).unwrap();
        }
        for (actors, dir) in
            [(&mut self.found, self.world.view()), (&mut self.expected, self.world.twin())]
        {
            for actor in actors {
                actor.ask(["cd".as_ref(), dir.join(&name).as_os_str()]).unwrap();
            }
        }
        self.behind.ask(["cd".as_ref(), self.world.source().join(&name).as_os_str()]).unwrap();
    }

    fn all_leave(&mut self) {
        for actor in self.found.iter_mut().chain(&mut self.expected) {
            actor.ask(["leave"]).unwrap();
        }
    }

    fn step(&mut self, who: usize, line: &str) -> Result<String, TestCaseError> {
        let [expected, found] = [&mut self.expected, &mut self.found].map(|actors| {
            let answer = actors[who].ask(line.split(' '));
            answer.unwrap_or_else(|errno| format!("errno {errno}"))
        });
        same(&format!("{who} {line}"), &expected, &found)?;
        Ok(found)
    }
}

fn same(what: &str, expected: &str, found: &str) -> Result<(), TestCaseError> {
    if expected == found {
        return Ok(());
    }
    let [expected, found] = [expected, found].map(|text| text.replace("\\n", "\n"));
    let reason = format!("{what}\n--- expected\n{expected}\n--- found\n{found}\n--- by");
    Err(TestCaseError::fail(reason))
}
