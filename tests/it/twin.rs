//! A view beside its twin, the bare directory: processes do the same in both, step by step or at
//! once, and all must come out the same.
//!
//! Scripts are made up, and cut down when one fails, by proptest; a line of a script says what
//! somebody does, in the words of an actor. Where root acts the last of the actors is an ordinary
//! user.

mod moments;
mod pair;
mod script;

use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use gate_tests::World;
use gate_tests::world::Standing;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use pair::Pair;
use script::{Move, scripts, scripts_without_mappings, scripts_without_set_id_bits};

/// How often, and for how long, a script that fails is played again to cut it down.
const SHRINKS_MAX: u32 = 1000;
const SHRINKING_MAX: Duration = Duration::from_secs(60);

/// In whose view scripts are played, and how.
struct Play {
    standing: Standing,
    mode: &'static str,
    turns: Turns,
    clock: Clock,
    scripts: usize,
}

/// How one process makes way for the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turns {
    /// All are one owner, and nobody is in anybody's way.
    Together,
    /// Who acts next finds that the one before has let go of everything.
    OneByOne,
}

/// What is asked of times.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// What they are at the end.
    AtTheEnd,
    /// Which of them each step has changed; the clock goes on before the next.
    StepByStep,
}

const USUAL: Play = Play {
    standing: Standing::Runner,
    mode: "default",
    turns: Turns::Together,
    clock: Clock::AtTheEnd,
    scripts: 100,
};

#[test]
fn processes_of_one_owner_do_in_a_view_what_they_do_on_the_bare_directory() {
    check(&USUAL, &scripts());
}

#[test]
fn processes_that_take_turns_do_in_a_view_what_they_do_on_the_bare_directory() {
    check(&Play { turns: Turns::OneByOne, ..USUAL }, &scripts());
}

#[test]
fn what_is_done_in_a_strict_view_comes_out_as_on_the_bare_directory() {
    check(&Play { mode: "strict", ..USUAL }, &scripts());
}

#[test]
fn what_is_done_in_a_fast_view_comes_out_as_on_the_bare_directory() {
    check(&Play { mode: "fast", ..USUAL }, &scripts_without_set_id_bits());
}

#[test]
fn each_step_changes_in_a_view_the_times_that_it_changes_on_the_bare_directory() {
    check(&Play { clock: Clock::StepByStep, scripts: 30, ..USUAL }, &scripts_without_mappings());
}

#[test]
fn processes_of_an_ordinary_user_do_in_their_view_what_they_do_on_the_bare_directory() {
    let theirs = Play { standing: Standing::OrdinaryUser, scripts: 20, ..USUAL };
    check(&theirs, &scripts());
    check(&Play { turns: Turns::OneByOne, ..theirs }, &scripts());
}

#[test]
fn processes_in_a_user_namespace_do_in_their_view_what_they_do_on_the_bare_directory() {
    let theirs = Play { standing: Standing::UserNamespace, scripts: 20, ..USUAL };
    check(&theirs, &scripts());
    check(&Play { turns: Turns::OneByOne, ..theirs }, &scripts());
}

#[track_caller]
fn check(play: &Play, scripts: &impl Strategy<Value = Vec<Move>>) {
    let world = world_of(play);
    let pair = RefCell::new(Pair::new(&world, play));
    // After a step that never ended the actors no longer answer to what they are asked: what
    // failed first is what is told.
    let hung = Cell::new(false);
    let cases = u32::try_from(gate_tests::scaled(play.scripts, play.scripts * 200)).unwrap();
    let config = Config {
        cases,
        max_shrink_iters: SHRINKS_MAX,
        max_shrink_time: u32::try_from(SHRINKING_MAX.as_millis()).unwrap(),
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
        if let Err(TestCaseError::Fail(reason)) = &outcome {
            eprintln!("{reason}\n{}", told(&script));
        }
        outcome
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, script)) => panic!("{reason}\n{}", told(&script)),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

fn told(script: &[Move]) -> String {
    script.iter().map(Move::to_string).collect::<Vec<_>>().join("\n")
}

fn world_of(play: &Play) -> World {
    let mut args = vec!["--mode", play.mode];
    if play.turns == Turns::Together {
        args.extend(["--owner-scope", "mount"]);
    }
    if play.standing == Standing::Runner {
        assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
        args.push("--allow-other");
    }
    let world = World::with_view_of(play.standing, args);
    fs::set_permissions(world.home(), fs::Permissions::from_mode(0o755)).unwrap();
    world
}
