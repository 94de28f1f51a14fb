//! Fuzzing: every decoder, from the inputs that are kept in `fuzz/seeds`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::machine;
use crate::step::{self, Failure, step};

/// No decoder has unsafe code, in which a sanitizer would find more than a panic does; without one they are built sooner, and
/// try five times as many inputs.
const WITHOUT_SANITIZER: [&str; 2] = ["--sanitizer", "none"];

/// Builds all targets at once.
pub fn build() -> Result<(), Failure> {
    // Coverage is an unstable flag of the one stable toolchain.
    let mut command = machine::cargo(&["fuzz", "build"]);
    step::run(command.args(WITHOUT_SANITIZER).env("RUSTC_BOOTSTRAP", "1"))
}

/// Runs each target that a name matches for so long, as many side by side as there are cores.
pub fn run(name: Option<&str>, time: Duration) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut targets = targets();
    targets.retain(|target| name.is_none_or(|name| target.contains(name)));
    for targets in targets.chunks(cores) {
        step(&format!("fuzz {}", targets.join(", ")), || {
            std::thread::scope(|scope| {
                let runs: Vec<_> = targets
                    .iter()
                    .map(|target| scope.spawn(move || run_one(target, time)))
                    .collect();
                // Each ends by itself, whatever another finds.
                runs.into_iter().map(|run| run.join().expect("no panic")).fold(Ok(()), Result::and)
            })
        })?;
    }
    Ok(())
}

fn run_one(target: &str, time: Duration) -> Result<(), Failure> {
    // What is found goes to the first directory; the seeds stay as they are.
    let found = machine::target().join("fuzz").join(target);
    let seeds = Path::new("fuzz/seeds").join(target);
    fs::create_dir_all(&found).map_err(|error| Failure::new("cannot keep what is found", error))?;
    let limit = format!("-max_total_time={}", time.as_secs());
    let mut command = machine::cargo(&["fuzz", "run"]);
    command.args(WITHOUT_SANITIZER).arg(target).arg(found).arg(seeds).args([
        "--",
        &limit,
        "-print_final_stats=1",
        "-verbosity=0",
    ]);
    step::run(command.env("RUSTC_BOOTSTRAP", "1"))
}

fn targets() -> Vec<String> {
    let entries = fs::read_dir("fuzz/fuzz_targets").into_iter().flatten().flatten();
    let stem = |path: std::path::PathBuf| path.file_stem()?.to_str().map(str::to_owned);
    let mut names: Vec<String> = entries.filter_map(|entry| stem(entry.path())).collect();
    names.sort();
    names
}
