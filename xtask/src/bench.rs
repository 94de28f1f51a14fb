//! `cargo xtask bench`: what a gated view costs, beside the bare directory and beside file systems
//! that others wrote, what a turn costs, beside other givers of turns, and what a daemon costs.
//!
//! Everything that is compared runs in turn, one round here, one there, in one run on one
//! machine; medians and ratios are printed. Trust the ratios.

mod broker;
mod bucket;
mod daemon;
mod enclosure;
mod etcd;
mod flock;
mod home;
mod interrupts;
mod keeper;
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

use std::cell::RefCell;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

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
    plan: &'a view::Plan,
    /// What is to be kept for programs, by the names of groups.
    figures: RefCell<Map<String, Value>>,
}

impl Run<'_> {
    fn keep(&self, group: &str, figures: Value) {
        self.figures.borrow_mut().insert(group.to_owned(), figures);
    }
}

const VIEW: Group = Group {
    name: "view",
    part_of: "view",
    needs: &machine::TO_COMPARE_VIEWS,
    run: |run| view::run(run.home, run.plan).map(|figures| run.keep("view", figures)),
};

const GROUPS: [Group; 7] = [
    VIEW,
    Group {
        name: "bucket",
        part_of: "bucket",
        needs: &machine::TO_COMPARE_BUCKETS,
        run: |run| bucket::run(run.home, run.plan).map(|figures| run.keep("bucket", figures)),
    },
    Group {
        name: "interrupts",
        part_of: "interrupts",
        needs: &[],
        run: |run| interrupts::run(run.home),
    },
    Group { name: "private", part_of: "private", needs: &[], run: |run| private::run(run.home) },
    Group {
        name: "daemon",
        part_of: "daemon",
        needs: &[],
        run: |run| daemon::run(run.home).map(|figures| run.keep("daemon", figures)),
    },
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
    let figures = RefCell::new(Map::from_iter([("machine".to_owned(), Value::String(machine))]));
    let run = Run { home: &home, plan: &wish.plan, figures };
    wish.groups.iter().try_for_each(|group| (group.run)(&run))?;
    let Some(file) = &wish.json else { return Ok(()) };
    std::fs::write(file, format!("{:#}\n", Value::Object(run.figures.into_inner())))
        .map_err(|e| Failure::new(format!("cannot write {}", file.display()), e))
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
