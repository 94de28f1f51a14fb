//! Who works, in which view, on what, and how far they have come.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gate_tests::dice::{Dice, seed};
use gate_tests::run::Running;
use gate_tests::wait::{SOON, try_wait_for, wait_until};
use gate_tests::{Actor, World, is_soak, kernel};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::judge::marks;

/// What agents in private views are called.
pub const AGENTS: [&str; 4] = ["ADA", "BOB", "EVE", "KIM"];
/// Who works in the view that all see, and is no agent: nothing guards what she overwrites.
pub const HUMAN: &str = "SUE";

pub const LONG: Duration = Duration::from_secs(60);
/// The lease of views that are suspended.
pub const LEASE: Duration = Duration::from_secs(1);
/// More rounds than anybody has time for.
pub const ENDLESS: usize = 1_000_000_000;

const PARTS: usize = 24;
const CALLS: usize = 12;

/// What agents do, beside rewriting whole files.
pub const AGENTS_DEEDS: [&str; 10] = [
    "add",
    "add",
    "edit",
    "edit",
    "save",
    "save",
    "add_held",
    "edit_held",
    "rename_held",
    "commit",
];
pub const HUMANS_DEEDS: [&str; 6] =
    ["add", "add", "add_held", "edit_held", "rename_held", "commit"];

/// A crate, and those who work on it.
pub struct Story {
    pub world: World,
    pub dice: Dice,
    bare: File,
    workers: BTreeMap<&'static str, Running>,
    pub deeds: fn(&str) -> Vec<&'static str>,
    runs: usize,
}

impl Story {
    /// Makes the crate, gates it in place, and lets a daemon decide.
    pub fn new(daemon: &[&str], deeds: fn(&str) -> Vec<&'static str>) -> Story {
        assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
        Story::begin(World::apart(), "cargo build -q --offline", daemon, deeds)
    }

    /// As [`Story::new`], of an ordinary user, who has nothing to build with.
    pub fn of_ordinary_user(deeds: fn(&str) -> Vec<&'static str>) -> Story {
        Story::begin(World::apart_of_ordinary_user(), "true", &[], deeds)
    }

    fn begin(
        mut world: World,
        build: &str,
        daemon: &[&str],
        deeds: fn(&str) -> Vec<&'static str>,
    ) -> Story {
        world.find_broker_by_socket();
        fs::create_dir(record(&world)).unwrap();
        world.hand_over(&record(&world));
        fs::write(script(&world), include_str!("worker.sh")).unwrap();
        make_crate(&world, build);
        let bare = File::open(world.source()).unwrap();
        let dice = Dice::new(seed());
        let workers = BTreeMap::new();
        let mut story = Story { world, dice, bare, workers, deeds, runs: 0 };
        story.start_daemon(daemon);
        story.mount();
        story
    }

    pub fn start_daemon(&self, args: &[&str]) {
        self.world.gate(["daemon", "start"]).args(args).run().success();
    }

    pub fn stop_daemon(&self) {
        self.world.gate(["daemon", "stop"]).run().success();
    }

    /// Puts the view that all see over the crate. The test itself has the bare directory open.
    pub fn mount(&mut self) {
        let source = self.world.source();
        self.world.mount(&source, &source, ["--force"]);
    }

    /// Lets one begin to work, or begin anew after it was killed.
    pub fn start(&mut self, name: &'static str, rounds: usize) {
        self.runs += 1;
        let world = &self.world;
        let dir = world.source();
        let agent = ["run", "--view", "private", "--agent", name, "--in"];
        let run = match name {
            HUMAN => world.command("bash".as_ref()),
            _ => world.gate(agent).args([dir.as_os_str(), "--".as_ref(), "bash".as_ref()]),
        };
        let [run_number, seed, rounds] =
            [self.runs.to_string(), self.dice.below(1 << 15).to_string(), rounds.to_string()];
        let paths = [script(world), dir, record(world), world.program("gate")];
        let run = run.args(paths).args([name, &run_number, &seed, &rounds]);
        self.workers.insert(name, run.args((self.deeds)(name)).start());
    }

    pub fn start_all(&mut self, rounds: usize) {
        for name in all() {
            self.start(name, rounds);
        }
    }

    pub fn worker(&self, name: &str) -> &Running {
        &self.workers[name]
    }

    /// Returns the process that serves an agent's private view.
    pub fn server_of(&self, agent: &str) -> i32 {
        let mark = format!("mount --private {agent} ");
        let servers = kernel::processes_of(self.world.home()).into_iter();
        let mut servers = servers.filter(|(_, line)| line.contains(&mark));
        servers.next().expect("a private view is served").0
    }

    /// Ends an agent by force, with all that it started, and waits for the end of its view.
    pub fn kill(&mut self, name: &str) {
        let worker = self.workers.remove(name).unwrap();
        let _ = kill_process_group(pid(worker.pid()), Signal::KILL);
        let _ = worker.finish(SOON);
        let mark = format!("mount --private {name} ");
        wait_until(SOON, "its view has ended", || {
            let mut all = kernel::processes_of(self.world.home()).into_iter();
            !all.any(|(_, line)| line.contains(&mark))
        });
    }

    /// Lets an actor act in a private view.
    pub fn actor(&self, agent: &str) -> Actor {
        let gate = self.world.program("gate").into_os_string();
        let flags = ["run", "--view", "private", "--agent", agent, "--in"].map(OsString::from);
        let dir = self.world.source();
        let words = [gate].into_iter().chain(flags).chain([dir.clone().into(), "--".into()]);
        self.world.actor_by(words, &dir)
    }

    /// Stops an agent, with all that its leader has started and with its view, until it is overdue,
    /// two leases have gone by and the others have done something; then lets it go on.
    pub fn while_suspended(&self, agent: &str, leader: i32, act: impl FnOnce(&Story)) {
        let (since, _) = self.newest_record();
        let server = pid(self.server_of(agent));
        kill_process_group(pid(leader), Signal::STOP).unwrap();
        kill_process(server, Signal::STOP).unwrap();
        let (_, stopped) = self.newest_record();
        let of_it = format!("\"pid\":{}", server.as_raw_nonzero());
        // Of one that holds nothing it is only said that it is gone.
        let is_over = |line: &str| {
            let ends = ["client-overdue", "client-gone"];
            line.contains(&of_it) && ends.iter().any(|end| line.contains(end))
        };
        wait_until(LONG, "its lease ran out", || {
            let log = self.world.gate(["log", "--json", "--since", &since]).run().success();
            log.lines().any(is_over)
        });
        wait_until(LONG, "it could have run out twice", || {
            self.newest_record().1 >= stopped + 2 * LEASE
        });
        act(self);
        kill_process(server, Signal::CONT).unwrap();
        kill_process_group(pid(leader), Signal::CONT).unwrap();
    }

    /// Waits until each of some has done so much more.
    pub fn await_deeds<'a>(&self, names: impl IntoIterator<Item = &'a str>, more: usize) {
        let goals = names.into_iter().map(|name| (name, self.count(name, "done") + more));
        for (name, goal) in goals.collect::<Vec<_>>() {
            wait_until(LONG, &format!("{name} gets on"), || self.count(name, "done") >= goal);
        }
    }

    /// Tells whether somebody has done something of a kind.
    pub fn has_done(&self, name: &str, deed: &str) -> bool {
        self.count(name, &format!("done {deed}")) > 0
    }

    pub fn failures_of(&self, name: &str) -> usize {
        self.count(name, "failed")
    }

    /// Waits until somebody has failed so many times more.
    pub fn await_failures(&self, name: &str, more: usize) {
        let goal = self.failures_of(name) + more;
        wait_until(LONG, &format!("{name} fails"), || self.failures_of(name) >= goal);
    }

    /// Returns how many edits of a file were done.
    pub fn edits_of(&self, file: &str) -> usize {
        let records = all().map(|name| self.record_of(name)).collect::<String>();
        records.lines().filter(|line| line.starts_with("done") && line.ends_with(file)).count()
    }

    fn count(&self, name: &str, what: &str) -> usize {
        self.record_of(name).lines().filter(|line| line.starts_with(what)).count()
    }

    /// Returns what somebody wrote down, without a line that is not whole.
    pub fn record_of(&self, name: &str) -> String {
        let mut text = fs::read_to_string(record(&self.world).join(name)).unwrap_or_default();
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        text
    }

    /// Returns a way to the bare directory that no view can hide.
    pub fn bare(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.bare.as_raw_fd()).into()
    }

    /// Returns the marks of somebody that are in the bare directory.
    pub fn marks_of(&self, name: &str) -> BTreeSet<String> {
        let ours = |mark: &String| mark.starts_with(&format!("{name}_"));
        marks(&self.bare().join("src")).into_iter().filter(ours).collect()
    }

    /// Returns the newest record of the log, and its time; whoever asks makes one.
    fn newest_record(&self) -> (String, Timestamp) {
        let newest = self.world.gate(["log", "--json", "--limit", "1"]).run().success();
        let newest: serde_json::Value = serde_json::from_str(&newest).unwrap();
        let [cursor, at] = ["cursor", "at"].map(|name| newest[name].as_str().unwrap());
        (cursor.to_owned(), at.parse().unwrap())
    }

    /// Lets all work for so many rounds, or for five minutes in the long tier; returns what they said.
    pub fn work(&mut self, rounds: usize) -> BTreeMap<&'static str, String> {
        if !is_soak() {
            self.start_all(rounds);
            return self.finish(LONG * 10);
        }
        self.start_all(ENDLESS);
        let _ = try_wait_for(LONG * 5, || None::<()>);
        self.stop()
    }

    /// Waits until all have done their rounds, and returns what they said.
    fn finish(&mut self, within: Duration) -> BTreeMap<&'static str, String> {
        let workers = std::mem::take(&mut self.workers).into_iter();
        let said = workers.map(|(name, worker)| {
            let outcome = worker.finish(within);
            assert_eq!(outcome.code, Some(0), "{name}: {outcome}");
            (name, outcome.stderr)
        });
        said.collect()
    }

    /// Lets all end what they are at.
    pub fn stop(&mut self) -> BTreeMap<&'static str, String> {
        fs::write(record(&self.world).join("stop"), "").unwrap();
        self.finish(LONG)
    }

    /// Ends the view and the daemon, and asserts that no mount namespace has anything left of them.
    pub fn end(mut self, former: Vec<Running>) {
        let source = self.world.source();
        drop(self.bare);
        self.world.umount(&source);
        for view in former {
            let _ = view.finish(SOON);
        }
        self.world.gate(["daemon", "stop"]).run().success();
        let home = self.world.home().to_owned();
        wait_until(SOON, "no process has a mount of the story", || {
            kernel::elsewhere_mounted_below(&home).is_empty()
        });
    }
}

pub fn all() -> impl Iterator<Item = &'static str> + Clone {
    AGENTS.into_iter().chain([HUMAN])
}

pub fn pid(pid: i32) -> Pid {
    Pid::from_raw(pid).unwrap()
}

pub fn record(world: &World) -> PathBuf {
    world.home().join("record")
}

fn script(world: &World) -> PathBuf {
    world.home().join("worker.sh")
}

/// Parts that everybody changes on their own, and calls that have to be changed all at once.
fn make_crate(world: &World, build: &str) {
    world.seed(".gitignore", "target\n");
    let manifest = "[package]\nname = \"tale\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
    world.seed("Cargo.toml", manifest);
    let modules = |letter: char, count: usize| -> String {
        (0..count).map(|n| format!("pub mod {letter}{n:02};\n")).collect()
    };
    world.seed("src/parts.rs", &modules('p', PARTS));
    world.seed("src/calls.rs", &modules('c', CALLS));
    let main = "#![allow(dead_code)]\nmod calls;\nmod parts;\nfn main() {\n    \
                println!(\"{}\", calls::c01::call());\n}\n";
    world.seed("src/main.rs", main);
    for n in 0..PARTS {
        world.seed(&format!("src/parts/p{n:02}.rs"), &format!("//! Part {n}.\n"));
    }
    world.seed("src/calls/c00.rs", "pub fn step_0(n: u32) -> u32 {\n    n + 1\n}\n");
    for n in 1..CALLS {
        let call = format!("pub fn call() -> u32 {{\n    super::c00::step_0({n})\n}}\n");
        world.seed(&format!("src/calls/c{n:02}.rs"), &call);
    }
    let script = format!(
        "git init -q -b main . && git config user.name story
        git config user.email story@example.org && git config gc.autoDetach false
        {build} && git add . && git commit -q -m first"
    );
    world.script(&world.source(), &script).run().success();
}

/// Builds a crate from nothing. What cannot be built is shown.
pub fn build_anew(world: &World, dir: &Path) {
    let target = world.home().join("tmp/target");
    let script = "cargo build -q --offline || { tail -n +1 src/calls/*.rs >&2; false; }";
    world.script(dir, script).env("CARGO_TARGET_DIR", &target).run().success();
    assert_eq!(world.command(&target.join("debug/tale")).run().success(), "2\n");
}
