//! Mutants: a change of the lock table that no test notices is a test that is missing.

use crate::machine::{self, Tool};
use crate::step::{self, Failure, step};

/// What makes and judges them; see `.cargo/mutants.toml` for what is left out and why.
pub const TOOL: Tool = Tool::named("cargo-mutants");

/// How long the tests may take with a mutant that hangs them.
const TIMEOUT_SECONDS: &str = "120";
/// Lives of the lock table beside its naive model, for each mutant.
const MODEL_LIVES: &str = "300";

/// Changes the lock table in every way that the tool knows, and runs core's tests with each.
pub fn run() -> Result<(), Failure> {
    step("mutants", || {
        // The tests are known to pass: they ran before.
        let words = ["mutants", "--package", "gate-core", "--baseline", "skip", "--no-times"];
        let mut command = machine::cargo(&words);
        command.args(["--timeout", TIMEOUT_SECONDS, "--output"]).arg(machine::target());
        step::run(command.args(["--", "--lib"]).env("PROPTEST_CASES", MODEL_LIVES))
    })
}
