//! Mutants: a change of the lock table that no test notices is a test that is missing.

use std::fs;
use std::process::ExitStatus;

use crate::machine::{self, Tool};
use crate::step::{Failure, step};

/// What makes and judges them; see `.cargo/mutants.toml` for what is left out and why.
pub const TOOL: Tool = Tool::named("cargo-mutants");

/// How long the tests may take with a mutant that hangs them: more than ten times what they need.
const TIMEOUT_SECONDS: &str = "30";
/// Lives of the lock table beside its naive model, for each mutant.
const MODEL_LIVES: &str = "300";

/// Exploring every world takes many times as long as all other tests, which tell as much.
const TESTS_LEFT_OUT: [&str; 3] = ["--", "--skip", "worlds::"];
/// What is compiled for each mutant anew is run for a moment.
const UNOPTIMISED: &str = "--config=profile.dev.package.gate-core.opt-level=0";
/// What the tool exits with if tests ran into the timeout, whatever else there was.
const SOME_HUNG: i32 = 3;

/// Changes the lock table in every way that the tool knows, and runs core's tests with each.
pub fn run() -> Result<(), Failure> {
    step("mutants", || {
        // First of all it runs the tests without a mutant, within the same time: tests that need more
        // would seem to notice everything.
        let words = ["mutants", "--package", "gate-core", "--baseline", "run", "--no-times"];
        let mut command = machine::cargo(&words);
        command.args(["--timeout", TIMEOUT_SECONDS, "--output"]).arg(machine::target());
        command.args(["--cargo-arg", UNOPTIMISED, "--", "--lib"]).args(TESTS_LEFT_OUT);
        let status = command.env("PROPTEST_CASES", MODEL_LIVES).status();
        judge(status.map_err(|error| Failure::new("cannot run `cargo mutants`", error))?)
    })
}

/// A mutant that hangs the tests was noticed, too; but then the status says nothing of the others.
fn judge(status: ExitStatus) -> Result<(), Failure> {
    if status.code() != Some(SOME_HUNG) {
        let failure = || Failure::new("`cargo mutants` failed", status);
        return status.success().then_some(()).ok_or_else(failure);
    }
    let list = machine::target().join("mutants.out/missed.txt");
    let missed = fs::read_to_string(&list)
        .map_err(|error| Failure::new(format!("cannot read {}", list.display()), error))?;
    if missed.is_empty() {
        Ok(())
    } else {
        Err(Failure::new("no test notices some mutants", missed.trim_end()))
    }
}
