//! `cargo xtask bench`: what a gated view costs, beside the bare directory and beside bindfs.
//!
//! Everything that is compared runs in turn, one operation here, one there, in one run on one
//! machine; medians and ratios are printed. Trust the ratios.

mod broker;
mod commands;
mod files;
mod interrupts;
mod places;
mod sample;
mod turns;

use std::process::Command;

use crate::machine;
use crate::step::{self, Failure, step};
use places::Places;

/// A group of measurements, by name.
type Group = (&'static str, fn(&Places) -> Result<(), Failure>);

const GROUPS: [Group; 4] = [
    ("files", files::run),
    ("commands", commands::run),
    ("interrupts", interrupts::run),
    ("broker", broker::run),
];

/// Runs every group, or the one with this name.
pub fn run(name: Option<&str>) -> Result<(), Failure> {
    let groups: Vec<&Group> = GROUPS.iter().filter(|g| name.is_none_or(|n| n == g.0)).collect();
    if groups.is_empty() {
        let known = GROUPS.map(|group| group.0).join(", ");
        let failure = Failure::new("nothing to measure", format!("no group has the name {name:?}"));
        return Err(failure.hint(format!("choose one of: {known}")));
    }
    if cfg!(debug_assertions) {
        // What measures is optimised as well as what is measured.
        let again = ["run", "--quiet", "--release", "--package", "xtask", "--", "bench"];
        return step::run(machine::cargo(&again).args(name));
    }
    step("build", || {
        step::run(&mut machine::cargo(&["build", "--quiet", "--release", "--package", "gate"]))
    })?;
    println!("{}", machine_line());
    let places = Places::make(&machine::target().join("release/gate"))?;
    for (_, group) in groups {
        group(&places)?;
    }
    Ok(())
}

/// Names the machine, for whoever reads the numbers later.
fn machine_line() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let date = Command::new("date").arg("+%F").output().map(|o| o.stdout).unwrap_or_default();
    format!(
        "{}: {} cores, {}, Linux {}",
        String::from_utf8_lossy(&date).trim(),
        cores,
        model.trim_start_matches(['\t', ' ', ':']),
        kernel.trim()
    )
}
