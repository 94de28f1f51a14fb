//! `cargo xtask bench`: what a gated view costs, beside the bare directory and beside file systems
//! that others wrote, and what a turn costs, beside other givers of turns.
//!
//! Everything that is compared runs in turn, one round here, one there, in one run on one
//! machine; medians and ratios are printed. Trust the ratios.

mod broker;
mod enclosure;
mod etcd;
mod flock;
mod home;
mod interrupts;
mod mounted;
mod peer;
mod pong;
mod private;
mod process;
mod sample;
mod scale;
mod turns;
mod view;
mod words;

use std::path::Path;
use std::process::Command;

use crate::machine::{self, Package};
use crate::step::{self, Failure, step};
use home::Home;
use words::Wish;

/// Measurements that go together.
struct Group {
    name: &'static str,
    /// The name of a larger one, or its own.
    part_of: &'static str,
    needs: &'static [Package],
    run: fn(&Run<'_>) -> Result<(), Failure>,
}

/// What a group is given.
struct Run<'a> {
    home: &'a Home,
    /// Names the machine, for whoever reads the figures later.
    machine: &'a str,
    plan: &'a view::Plan,
}

const VIEW: Group = Group {
    name: "view",
    part_of: "view",
    needs: &machine::TO_COMPARE_VIEWS,
    run: |run| view::run(run.home, run.machine, run.plan),
};

const GROUPS: [Group; 5] = [
    VIEW,
    Group {
        name: "interrupts",
        part_of: "interrupts",
        needs: &[],
        run: |run| interrupts::run(run.home),
    },
    Group { name: "private", part_of: "private", needs: &[], run: |run| private::run(run.home) },
    Group {
        name: "turns",
        part_of: "broker",
        needs: &machine::TO_COMPARE_TURNS,
        run: |run| broker::run(run.home),
    },
    Group {
        name: "scale",
        part_of: "broker",
        needs: &machine::TO_CROWD,
        run: |run| scale::run(run.home),
    },
];

/// Where one row of the view spends its time: only when asked for.
const PROFILE: Group = Group {
    name: "profile",
    part_of: "profile",
    needs: &machine::TO_PROFILE,
    run: |run| view::profile(run.home, run.plan),
};

/// Measures what the words say; paths among them are relative to `dir`.
pub fn run(words: &[&str], dir: &Path, yes: bool) -> Result<(), Failure> {
    let wish = words::parse(words, dir)?;
    if !enclosure::is_inside() {
        build(&wish, yes)?;
        return enclosure::run(words, dir);
    }
    enclosure::raise_descriptor_limit();
    let machine = machine_line();
    println!("{machine}");
    let home = Home::make(&machine::target().join("release/gate"))?;
    let run = Run { home: &home, machine: &machine, plan: &wish.plan };
    wish.groups.iter().try_for_each(|group| (group.run)(&run))
}

/// Brings and builds what is measured and what measures: both optimised.
fn build(wish: &Wish, yes: bool) -> Result<(), Failure> {
    let needs = wish.groups.iter().map(|group| group.needs);
    let packages: Vec<&[Package]> =
        [&machine::TO_TRY[..], &machine::TO_ENCLOSE].into_iter().chain(needs).collect();
    step("prepare", || machine::prepare(&packages.concat(), &[], yes))?;
    if wish.groups.iter().any(|group| group.name == VIEW.name)
        && let Err(failure) = step("passthrough_hp", view::build_passthrough)
    {
        // The others can be measured without it.
        eprintln!("{failure}");
    }
    step("build", || {
        let words = ["build", "--quiet", "--release", "--package", "gate", "--package", "xtask"];
        step::run(&mut machine::cargo(&words))
    })
}

/// Names the machine.
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
