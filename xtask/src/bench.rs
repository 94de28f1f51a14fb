//! `cargo xtask bench`: what a gated view costs, beside the bare directory and beside bindfs, and
//! what a turn costs, beside other givers of turns.
//!
//! Everything that is compared runs in turn, one operation here, one there, in one run on one
//! machine; medians and ratios are printed. Trust the ratios.

mod broker;
mod commands;
mod etcd;
mod files;
mod flock;
mod interrupts;
mod peer;
mod places;
mod pong;
mod sample;
mod scale;
mod turns;

use std::process::Command;

use crate::machine;
use crate::step::{self, Failure, step};
use places::Places;

/// A group of measurements: its name, and the name of a larger one that it is part of.
type Group = (&'static str, &'static str, fn(&Places) -> Result<(), Failure>);

const GROUPS: [Group; 5] = [
    ("files", "view", files::run),
    ("commands", "view", commands::run),
    ("interrupts", "view", interrupts::run),
    ("turns", "broker", broker::run),
    ("scale", "broker", scale::run),
];

/// Runs every group, or those with this name.
pub fn run(name: Option<&str>, yes: bool) -> Result<(), Failure> {
    let chosen = |group: &&Group| name.is_none_or(|name| name == group.0 || name == group.1);
    let groups: Vec<&Group> = GROUPS.iter().filter(chosen).collect();
    if groups.is_empty() {
        let mut known = GROUPS.map(|group| [group.0, group.1]).concat();
        known.dedup();
        let failure = Failure::new("nothing to measure", format!("no group has the name {name:?}"));
        return Err(failure.hint(format!("choose one of: {}", known.join(", "))));
    }
    let packages = [&machine::TO_TRY[..], &machine::TO_BENCH].concat();
    step("prepare", || machine::prepare(&packages, &[], yes))?;
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
    for (_, _, group) in groups {
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
