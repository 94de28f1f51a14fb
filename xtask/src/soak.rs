//! `cargo xtask soak`: the long tier, for a night rather than for each change.

use std::time::Duration;

use crate::step::{self, Failure, step};
use crate::{fuzz, machine, mutants, test};

/// For each fuzz target.
const FUZZ_MINUTES: u64 = 10;
/// Lives of the lock table beside its naive model.
const MODEL_LIVES: &str = "200000";
/// Simulated lives of a broker and its clients, unless the caller says how many.
const SIMULATED_LIVES: &str = "1000000";

/// Orders of threads that each test of races tries, of each kind.
const ORDERS: &str = "50000";

/// Runs the tests with their counts scaled up, every fuzz target for some minutes, and the mutants.
///
/// A number is the minutes for each fuzz target; a name runs the tests and targets that match it,
/// `mutants` the mutants alone.
pub fn run(what: Option<&str>, yes: bool) -> Result<(), Failure> {
    let minutes = what.and_then(|word| word.parse::<u64>().ok());
    let name = if minutes.is_some() { None } else { what };
    machine::prepare(&[], &[mutants::TOOL], yes)?;
    if name == Some("mutants") {
        return mutants::run();
    }
    test::prepare(yes)?;
    step("build", test::build)?;
    step("soak", || {
        let mut tests = test::tests("soak")?;
        // A name that only a fuzz target has is not an error.
        tests.env("GATE_SOAK", "1").env("PROPTEST_CASES", MODEL_LIVES);
        test::simulate(&mut tests, SIMULATED_LIVES);
        step::run(tests.args(["--no-tests", "pass"]).args(name))
    })?;
    if name.is_none() {
        step("races", || test::races(Some(ORDERS)))?;
    }
    step("build fuzz", fuzz::build)?;
    fuzz::run(name, Duration::from_secs(minutes.unwrap_or(FUZZ_MINUTES) * 60))?;
    if name.is_none() { mutants::run() } else { Ok(()) }
}
