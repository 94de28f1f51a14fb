//! The view and its twin, each with its actors.

use std::path::PathBuf;

use gate_tests::actor::Answer;
use gate_tests::world::{ORDINARY_USER, Standing};
use gate_tests::{Actor, World};
use proptest::test_runner::TestCaseError;

use super::moments::{Moments, await_tick};
use super::script::{ACTORS, Move, names};
use super::{Clock, Play, Turns};

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

/// The view with its actors, the twin with its own, and who looks at the source.
pub struct Pair {
    turns: Turns,
    clock: Clock,
    found: Side,
    expected: Side,
    behind: Side,
    names: Vec<String>,
    played: usize,
}

/// A directory, who acts there, and what was seen of it last.
struct Side {
    dir: PathBuf,
    actors: Vec<Actor>,
    seen: Moments,
}

impl Pair {
    pub fn new(world: &World, play: &Play) -> Self {
        let [found, expected] =
            [world.view(), world.twin()].map(|dir| Side::new(world, dir, play.standing));
        let behind = Side::alone(world, world.source());
        let (turns, clock) = (play.turns, play.clock);
        Self { turns, clock, found, expected, behind, names: names(), played: 0 }
    }

    /// Plays a script in a fresh directory of both, and compares what is left of it.
    pub fn play(&mut self, script: &[Move]) -> Result<(), TestCaseError> {
        self.enter();
        for line in BEFORE.trim().lines() {
            self.step(0, line.trim())?;
        }
        let mut last = None;
        for part in script {
            let next = match part {
                Move::Step(who, _) => Some(*who),
                Move::AtOnce(_) => None,
            };
            if self.turns == Turns::OneByOne && (last.is_none() || last != next) {
                self.all_leave();
            }
            last = next;
            match part {
                Move::Step(who, line) => self.step(*who, line)?,
                Move::AtOnce(lines) => self.at_once(lines)?,
            }
        }
        self.all_leave();
        self.compare_times("the end")?;
        // Not everybody may look into a directory that was closed.
        self.ask(0, "chmod . 755")?;
        let in_view = self.ask(0, "tree .")?;
        same("the source behind the view", &in_view, &self.behind.ask(0, "tree ."))
    }

    fn enter(&mut self) {
        self.all_leave();
        let name = self.played.to_string();
        self.played += 1;
        for side in [&mut self.found, &mut self.expected] {
            side.make(&name);
        }
        for side in [&mut self.found, &mut self.expected, &mut self.behind] {
            side.enter(&name);
        }
    }

    fn all_leave(&mut self) {
        for actor in self.found.actors.iter_mut().chain(&mut self.expected.actors) {
            actor.ask(["leave"]).unwrap();
        }
    }

    fn step(&mut self, who: usize, line: &str) -> Result<(), TestCaseError> {
        self.part(&format!("{who} {line}"), |side| side.ask(who, line))
    }

    fn at_once(&mut self, lines: &[Vec<String>; ACTORS]) -> Result<(), TestCaseError> {
        self.part("what was done at once", |side| side.ask_at_once(lines))
    }

    fn part(&mut self, what: &str, act: impl Fn(&mut Side) -> String) -> Result<(), TestCaseError> {
        if self.clock == Clock::AtTheEnd {
            return self.both(what, act).map(drop);
        }
        await_tick();
        self.both(what, act)?;
        self.compare_times(what)
    }

    fn ask(&mut self, who: usize, line: &str) -> Result<String, TestCaseError> {
        self.both(&format!("{who} {line}"), |side| side.ask(who, line))
    }

    fn both(
        &mut self,
        what: &str,
        act: impl Fn(&mut Side) -> String,
    ) -> Result<String, TestCaseError> {
        let [expected, found] = [&mut self.expected, &mut self.found].map(act);
        same(what, &expected, &found)?;
        Ok(found)
    }

    /// Compares the times of all files, and which of them have changed since they were compared last.
    fn compare_times(&mut self, after: &str) -> Result<(), TestCaseError> {
        let sides = [&mut self.expected, &mut self.found, &mut self.behind];
        let [expected, found, behind] = sides.map(|side| side.look(&self.names));
        same(&format!("times of the source after {after}"), &behind.exactly(), &found.exactly())?;
        let before = [&self.found, &self.expected]
            .map(|side| (self.clock == Clock::StepByStep).then_some(&side.seen));
        same(&format!("times after {after}"), "", &found.unlike(&expected, before))?;
        (self.expected.seen, self.found.seen) = (expected, found);
        Ok(())
    }
}

impl Side {
    fn new(world: &World, dir: PathBuf, standing: Standing) -> Self {
        let mut actors: Vec<Actor> = (0..ACTORS).map(|_| world.actor(&dir)).collect();
        let last = actors.last_mut().unwrap();
        if standing == Standing::Runner {
            let [uid, gid] = [ORDINARY_USER.uid, ORDINARY_USER.gid].map(|id| id.to_string());
            last.ask(["become", &uid, &gid]).unwrap();
        }
        last.ask(["umask", "27"]).unwrap();
        Self { dir, actors, seen: Moments::default() }
    }

    fn alone(world: &World, dir: PathBuf) -> Self {
        Self { actors: vec![world.actor(&dir)], dir, seen: Moments::default() }
    }

    fn make(&mut self, name: &str) {
        let path = self.dir.join(name);
        let path = path.to_str().unwrap();
        self.actors[0].ask(["make", path, "directory", "777"]).unwrap();
        self.actors[0].ask(["chmod", path, "777"]).unwrap();
    }

    fn enter(&mut self, name: &str) {
        let path = self.dir.join(name);
        for actor in &mut self.actors {
            actor.ask(["cd".as_ref(), path.as_os_str()]).unwrap();
        }
        self.seen = Moments::default();
    }

    fn ask(&mut self, who: usize, line: &str) -> String {
        told(self.actors[who].ask(line.split(' ')))
    }

    fn ask_at_once(&mut self, lines: &[Vec<String>; ACTORS]) -> String {
        for (actor, lines) in self.actors.iter_mut().zip(lines) {
            lines.iter().for_each(|line| actor.tell(line.split(' ')));
        }
        let answers =
            self.actors.iter_mut().zip(lines).enumerate().flat_map(|(who, (actor, lines))| {
                lines.iter().map(move |line| format!("{who} {line}: {}\n", told(actor.answer())))
            });
        answers.collect()
    }

    fn look(&mut self, names: &[String]) -> Moments {
        Moments::of(&mut self.actors[0], names)
    }
}

fn told(answer: Answer) -> String {
    answer.unwrap_or_else(|errno| format!("errno {errno}"))
}

fn same(what: &str, expected: &str, found: &str) -> Result<(), TestCaseError> {
    if expected == found {
        return Ok(());
    }
    let [expected, found] = [expected, found].map(|text| text.replace("\\n", "\n"));
    let reason = format!("{what}\n--- expected\n{expected}\n--- found\n{found}\n--- by");
    Err(TestCaseError::fail(reason))
}
