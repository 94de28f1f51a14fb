//! `cargo xtask soak`: the long tier, for a night rather than for each change.

use std::fs;

use crate::step::{self, Failure, step};
use crate::{machine, test};

const FUZZ_MINUTES: u64 = 5;
/// Lives of the lock table beside its naive model.
const MODEL_LIVES: &str = "200000";

/// Runs the tests with their counts scaled up, and every fuzz target for some minutes.
///
/// A number is the minutes for each fuzz target; a name runs the tests and targets that match it.
pub fn run(what: Option<&str>, yes: bool) -> Result<(), Failure> {
    let minutes = what.and_then(|word| word.parse::<u64>().ok());
    let name = if minutes.is_some() { None } else { what };
    test::prepare(yes)?;
    step("build", test::build)?;
    step("soak", || {
        let mut tests = test::tests("soak")?;
        // A name that only a fuzz target has is not an error.
        tests.env("GATE_SOAK", "1").env("PROPTEST_CASES", MODEL_LIVES);
        step::run(tests.args(["--no-tests", "pass"]).args(name))
    })?;
    for target in fuzz_targets() {
        if name.is_none_or(|name| target.contains(name)) {
            let seconds = minutes.unwrap_or(FUZZ_MINUTES) * 60;
            step(&format!("fuzz {target}"), || fuzz(&target, seconds))?;
        }
    }
    Ok(())
}

fn fuzz_targets() -> Vec<String> {
    let entries = fs::read_dir("fuzz/fuzz_targets").into_iter().flatten().flatten();
    let stem = |path: std::path::PathBuf| path.file_stem()?.to_str().map(str::to_owned);
    let mut names: Vec<String> = entries.filter_map(|entry| stem(entry.path())).collect();
    names.sort();
    names
}

fn fuzz(target: &str, seconds: u64) -> Result<(), Failure> {
    if !machine::is_there("cargo-fuzz") {
        let tools = machine::target().join("tools");
        step::run(
            machine::cargo(&["install", "--quiet", "--locked", "cargo-fuzz", "--root"]).arg(tools),
        )?;
    }
    let limit = format!("-max_total_time={seconds}");
    // Coverage and sanitizers are unstable flags of the one stable toolchain.
    let mut command = machine::cargo(&["fuzz", "run", target, "--", &limit]);
    step::run(command.env("RUSTC_BOOTSTRAP", "1"))
}
