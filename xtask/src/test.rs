//! `cargo xtask test`: bring what the tests need, lint, test, and see that nothing is left behind.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use crate::step::{self, Failure, step};
use crate::{fuzz, machine, python, tidy};

/// For each fuzz target.
const FUZZ_TIME: Duration = Duration::from_secs(20);

/// Simulated lives of a broker and its clients: a minute of two cores.
const SIMULATED_LIVES: &str = "10000";

/// What is compiled with threads and locks that can be led.
const LED: [&str; 8] = [
    "--package",
    "gate-api",
    "--package",
    "gate-bucket",
    "--package",
    "gate-view",
    "--features",
    "gate-bucket/shuttle,gate-view/shuttle",
];

/// That is compiled sooner than it would be optimised: its orders take less than a second.
const SOON: [&str; 2] = ["--config", "profile.dev.package.gate-bucket.opt-level=0"];

/// They wait for the kernel to end a watch more than they compute: so many for each core.
const RACES_PER_CORE: usize = 8;

/// Runs everything, or the tests that match a name.
pub fn run(names: &[&str], yes: bool) -> Result<(), Failure> {
    prepare(yes)?;
    step("build", build)?;
    if names.is_empty() {
        step("format", || step::run(&mut machine::cargo(&["fmt", "--all", "--check"])))?;
        step("lint", lint)?;
        step("tidy", tidy::run)?;
        step("deny", deny)?;
        step("python", python::check)?;
        step("races", || races(None))?;
    }
    let before = Footprint::take();
    let tested = step("test", || {
        let mut tests = tests("default")?;
        simulate(&mut tests, SIMULATED_LIVES);
        step::run(tests.args(names))
    });
    // What is left behind is told even when a test failed: it may be the reason.
    let left = step("nothing left behind", || Footprint::take().must_equal(&before));
    tested.and(left)?;
    if names.is_empty() {
        step("build fuzz", fuzz::build)?;
        fuzz::run(None, FUZZ_TIME)?;
    }
    Ok(())
}

/// Brings what the tests need.
pub fn prepare(yes: bool) -> Result<(), Failure> {
    let packages = [&machine::TO_TRY[..], &machine::TO_TEST].concat();
    step("prepare", || {
        machine::prepare(&packages, &machine::TOOLS, yes)?;
        python::bring().map(drop)
    })
}

/// Returns the command that runs the tests, as root.
pub fn tests(profile: &str) -> Result<Command, Failure> {
    let mut command = machine::cargo(&["nextest", "run", "--workspace", "--profile", profile]);
    if !rustix::process::geteuid().is_root() {
        let name = machine::host()?.to_uppercase().replace('-', "_");
        command.env(format!("CARGO_TARGET_{name}_RUNNER"), runner_as_root()?);
    }
    Ok(command)
}

/// Runs the tests that try the orders in which threads can run, so many of each kind. That
/// takes compiling the crates under test once more.
pub fn races(orders: Option<&str>) -> Result<(), Failure> {
    let lint = ["clippy", "--quiet", "--tests"];
    step::run(machine::cargo(&lint).args(LED).args(["--", "-D", "warnings"]))?;
    let mut command = machine::cargo(&["nextest", "run"]);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    command
        .args(LED)
        .args(SOON)
        .arg(format!("--test-threads={}", cores * RACES_PER_CORE))
        .arg("races::");
    if let Some(orders) = orders {
        command.env("GATE_ORDERS", orders);
    }
    step::run(&mut command)
}

/// Says how many lives of a broker and its clients are simulated, unless the caller did.
pub fn simulate(tests: &mut Command, lives: &str) {
    if std::env::var_os("GATE_SIM_SEEDS").is_none() {
        tests.env("GATE_SIM_SEEDS", lives);
    }
}

/// Builds the programs that the tests drive; test binaries alone would not bring them.
pub fn build() -> Result<(), Failure> {
    step::run(&mut machine::cargo(&["build", "--workspace", "--bins"]))?;
    step::run(&mut machine::cargo(&["nextest", "run", "--workspace", "--no-run"]))
}

fn lint() -> Result<(), Failure> {
    let words = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
    step::run(&mut machine::cargo(&words))
}

/// Advisories are left to a person: they change without any change of ours.
fn deny() -> Result<(), Failure> {
    step::run(&mut machine::cargo(&[
        "deny",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}

/// Cargo and the runner stay the user's, so that target/ does; only the tests become root.
fn runner_as_root() -> Result<String, Failure> {
    let path = machine::target().join("tools/as-root");
    let script = "#!/bin/sh\nexec sudo -E env \"PATH=$PATH\" \"$@\"\n";
    fs::create_dir_all(machine::target().join("tools"))
        .and_then(|()| fs::write(&path, script))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .and_then(|()| path.canonicalize())
        .map(|path| path.display().to_string())
        .map_err(|error| Failure::new("cannot write target/tools/as-root", error))
}

/// What a test could leave behind on this machine.
#[derive(Debug, PartialEq, Eq)]
struct Footprint(BTreeSet<String>);

impl Footprint {
    fn take() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mounts = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (point, kind) = (words.nth(1)?, words.next()?);
            let is_ours = (kind.starts_with("fuse") && kind != "fusectl") || point.contains("/gt-");
            is_ours.then(|| format!("mount {point} ({kind})"))
        });
        let processes = names_in("/proc").filter_map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            // What has ended has none, and only waits for init to look at it.
            let has_words = fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|w| !w.is_empty());
            (has_words && ["gate", "actor"].contains(&name.trim()))
                .then(|| format!("process {pid} ({})", name.trim()))
        });
        let homes = names_in("/tmp").filter(|name| name.starts_with("gt-"));
        let homes = homes.map(|name| format!("directory /tmp/{name}"));
        Self(mounts.chain(processes).chain(homes).collect())
    }

    fn must_equal(&self, before: &Self) -> Result<(), Failure> {
        let left: Vec<&str> = self.0.difference(&before.0).map(String::as_str).collect();
        if left.is_empty() {
            return Ok(());
        }
        let failure = Failure::new("the tests left something behind", left.join(", "));
        Err(failure.hint("end and unmount what is named, then find the test that left it"))
    }
}

fn names_in(dir: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}
