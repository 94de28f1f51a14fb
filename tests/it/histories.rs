//! Recorded histories: processes take turns at random through two views of one source, things go
//! wrong at random moments, and afterwards all that was written down is judged.
//!
//! Nothing here follows from the seed alone, as the processes race; it says what was tried.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gate_tests::dice::{Dice, seed};
use gate_tests::history::broker::{Parents, Revocation};
use gate_tests::history::bytes::{FIRST, Known};
use gate_tests::history::names::{self, Entry, Names};
use gate_tests::history::record::{PAUSE, PAUSED, Process, STAMP_BYTES, STOP, of_1970, parse};
use gate_tests::history::turns::Turns;
use gate_tests::history::{broker, bytes};
use gate_tests::locks::Board;
use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_for, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel, scaled};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

const LONG: Duration = Duration::from_secs(30);
const WORKERS: usize = 8;
const FILES: [&str; 5] = ["d/a", "d/b", "d/large", "e/a", "e/b"];
/// Where names change, and those that do; a slash tells directories.
const NAMED: &str = "n";
const NAMES: [&str; 4] = ["n/a", "n/b", "n/d/x", "n/d/"];
/// A file there whose name stays.
const NAMED_FILE: &str = "n/stays";
/// Readers of a file of this size read it beside the view.
const LARGE_BYTES: usize = 256 * 1024;
/// What a turn is in a record, about.
const TURN_BYTES: u64 = 700;
/// What `gate hold` exits with takes the place of an errno.
const HOLD_LOST: Errno = Errno::from_raw_os_error(1);
const NO_LIMIT: &str = "1000000000";

/// N1, N2, N4.
#[test]
fn n1_n2_n4_who_takes_turns_excludes_others_in_the_order_of_their_arrival() {
    let mut play = Play::new(Standing::Runner, &[], &[]);
    play.kill_workers(scaled(10, 500));
    let judged = play.judge(&[]);
    assert_eq!(judged.revocations, []);
    assert!(judged.passes > 0, "nobody worked below a hold");
    assert!(judged.grants >= scaled(2_000, 100_000), "only {} grants", judged.grants);
}

/// N1, N2: what became of each name fits one order, which is that of the log.
#[test]
fn n1_n2_who_changes_names_excludes_others_in_the_order_of_their_arrival() {
    let mut play = Play::with_names();
    play.kill_workers(scaled(10, 250));
    let judged = play.judge(&[]);
    assert!(judged.grants >= scaled(2_000, 50_000), "only {} grants", judged.grants);
    let changes = judged.names.changes;
    let kinds: Vec<&str> = changes.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["make", "mkdir", "rename", "rmdir", "truncate", "unlink"]);
    assert!(changes.values().all(|count| *count >= scaled(5, 200)), "only {changes:?}");
}

/// N1, N2, N3, N4.
#[test]
fn n1_n2_n3_n4_turns_stay_turns_while_workers_and_the_broker_are_killed() {
    kill_workers_and_the_broker(Standing::Runner, scaled(12, 500));
}

/// N1, N2, N3, N4.
#[test]
fn n1_n2_n3_n4_turns_of_an_ordinary_user_stay_turns_while_workers_and_the_broker_are_killed() {
    kill_workers_and_the_broker(Standing::OrdinaryUser, scaled(4, 500));
    kill_workers_and_the_broker(Standing::UserNamespace, scaled(4, 500));
}

fn kill_workers_and_the_broker(standing: Standing, kills: usize) {
    let mut play = Play::new(standing, &[], &["--lease-ms", "60000"]);
    for _ in 0..kills {
        play.await_turns(60);
        match play.dice.below(3) {
            0 => play.kill_worker(),
            _ => play.kill_broker(),
        }
    }
    // What the log of a killed broker lacks, nobody judges; what stood then shows in what follows.
    play.await_turns(200);
    let judged = play.judge(&[]);
    assert_eq!(judged.revocations, []);
    assert!(judged.grants >= 100 + kills * 10, "only {} grants", judged.grants);
}

/// N1, N2, N7: whoever lost its turn writes nothing any more, however it lost it.
#[test]
fn n1_n2_n7_who_loses_a_turn_leaves_no_byte_in_that_of_the_next() {
    let mut play = Play::new(Standing::Runner, &["--max-hold-ms", "1000"], &["--lease-ms", "1000"]);
    let rounds = scaled(12, 300);
    for round in 0..rounds {
        play.await_turns(60);
        match round % 6 {
            5 => play.freeze_view(),
            _ => play.take_from_a_stopped_worker(),
        }
    }
    let judged = play.judge(&[Errno::IO, HOLD_LOST]);
    assert!(judged.fenced > 0, "nobody was told that it lost its turn");
    assert!(judged.grants >= rounds * 30, "only {} grants", judged.grants);
}

/// Workers in two views, and what they write down.
struct Play {
    world: World,
    broker: &'static [&'static str],
    seed: u64,
    dice: Dice,
    views: Vec<PathBuf>,
    workers: Vec<Running>,
    changes_names: bool,
}

/// What came of it.
struct Judged {
    grants: usize,
    passes: usize,
    revocations: Vec<Revocation>,
    fenced: usize,
    names: names::Verdict,
}

impl Play {
    fn new(standing: Standing, broker: &'static [&'static str], mount: &[&str]) -> Self {
        let mut world = World::bare_of(standing);
        world.start_broker(broker);
        let [source, view] = [world.source(), world.view()];
        world.mount(&source, &view, mount);
        let second = super::spaces::second_view(&mut world, mount);
        Self::begin(world, broker, vec![view, second], false)
    }

    /// In one view: what another one knows of names is late.
    fn with_names() -> Self {
        let world = World::new();
        world.seed(NAMED_FILE, &format!("{FIRST:<STAMP_BYTES$}").repeat(2));
        let views = vec![world.view()];
        Self::begin(world, &[], views, true)
    }

    fn begin(
        world: World,
        broker: &'static [&'static str],
        views: Vec<PathBuf>,
        changes_names: bool,
    ) -> Self {
        let seed = seed();
        for file in FILES {
            let half = format!("{FIRST:<STAMP_BYTES$}");
            let between = " ".repeat(if file.ends_with("large") { LARGE_BYTES } else { 0 });
            world.seed(file, &[half.as_str(), &between, &half].concat());
        }
        fs::create_dir(record_of(&world)).unwrap();
        world.hand_over(&record_of(&world));
        let (dice, workers) = (Dice::new(seed), Vec::new());
        let mut play = Self { world, broker, seed, dice, views, workers, changes_names };
        for number in 0..WORKERS {
            let worker = play.worker(number);
            play.workers.push(worker);
        }
        play
    }

    fn worker(&mut self, number: usize) -> Running {
        let seed = self.dice.roll().to_string();
        let [record, worker, gate] =
            [record_of(&self.world), self.world.program("worker"), self.world.program("gate")];
        let run = self.world.command(&worker).dir(&self.views[number % self.views.len()]);
        let words = [record.as_os_str(), seed.as_ref(), NO_LIMIT.as_ref(), gate.as_os_str()];
        let names: &[&str] = if self.changes_names { &NAMES } else { &[] };
        let files = self.files();
        run.args(words).args(files).args(names.first().map(|_| "--")).args(names).start()
    }

    fn files(&self) -> Vec<&'static str> {
        FILES.into_iter().chain(self.changes_names.then_some(NAMED_FILE)).collect()
    }

    fn kill_workers(&mut self, times: usize) {
        for _ in 0..times {
            self.await_turns(200);
            self.kill_worker();
        }
    }

    /// Waits until there were so many turns more, about.
    fn await_turns(&self, more: u64) {
        let written = || -> u64 {
            let records = fs::read_dir(record_of(&self.world)).unwrap().flatten();
            records.map(|record| record.metadata().unwrap().len()).sum()
        };
        let enough = written() + more * TURN_BYTES;
        wait_until(LONG, "the workers get on", || written() >= enough);
    }

    fn kill_worker(&mut self) {
        let number = self.dice.below(WORKERS);
        self.workers[number].signal(Signal::KILL);
        let next = self.worker(number);
        let killed = std::mem::replace(&mut self.workers[number], next);
        assert_eq!(killed.finish(SOON).signal, Some(Signal::KILL.as_raw()));
    }

    fn kill_broker(&mut self) {
        self.world.kill_broker();
        self.world.start_broker(self.broker);
    }

    /// Lets a worker stop between its writes, takes the turn away, and lets it go on.
    fn take_from_a_stopped_worker(&mut self) {
        let record = record_of(&self.world);
        fs::write(record.join(PAUSE), "").unwrap();
        let worker = wait_for(LONG, "a worker stops in its turn", || {
            let pid = fs::read_to_string(record.join(PAUSED)).ok()?.parse().ok()?;
            kernel::is_stopped(pid).then_some(pid)
        });
        fs::remove_file(record.join(PAUSED)).unwrap();
        let held = |board: Board| board.locks.into_iter().find(|l| l.pid == Some(worker));
        // Its view may have lost its lease meanwhile.
        if let Some(ticket) = held(self.world.board()).map(|lock| lock.ticket.to_string()) {
            let _ = match self.dice.below(3) {
                0 => self.world.gate(["break", &ticket, "--reason", "test"]).run().code,
                1 => self.world.gate(["recall", &ticket, "--within", "50ms"]).run().code,
                _ => None,
            };
        }
        wait_until(LONG, "it is taken away", || held(self.world.board()).is_none());
        self.await_turns(5);
        kill_process(Pid::from_raw(worker).unwrap(), Signal::CONT).unwrap();
    }

    /// Stops a view until others no longer wait for it.
    fn freeze_view(&mut self) {
        let view = self.dice.pick(&self.views).clone();
        let newest = self.world.gate(["log", "--json", "--limit", "1"]).run().success();
        let newest: serde_json::Value = serde_json::from_str(&newest).unwrap();
        let since = newest["cursor"].as_str().unwrap().to_owned();
        let server = self.world.server_of(&view);
        server.signal(Signal::STOP);
        wait_until(SOON, "its lease ran out", || {
            let log = self.world.gate(["log", "--json", "--since", &since]).run().success();
            // Who has nothing at that moment is gone at once.
            log.contains("client-overdue") || log.contains("client-gone")
        });
        self.await_turns(20);
        server.signal(Signal::CONT);
    }

    /// Lets the workers end and judges all that was written down; they may meet these errors.
    fn judge(mut self, allowed: &[Errno]) -> Judged {
        let record = record_of(&self.world);
        fs::write(record.join(STOP), "").unwrap();
        for worker in std::mem::take(&mut self.workers) {
            worker.finish(SOON).success();
        }
        wait_until(SOON, "what worked below a hold is done", || {
            let processes = kernel::processes_of(self.world.home());
            !processes.iter().any(|(_, line)| line.contains("/worker "))
        });
        fs::remove_file(record.join(STOP)).unwrap();
        let to_read = LONG * u32::try_from(scaled(1, 20)).unwrap();
        let log =
            self.world.gate(["log", "--json", "--since", "0.0"]).within(to_read).run().success();
        let processes = read_records(&record);
        let told = broker::judge(&log, &parents_in(&processes));
        let known = Known { revoked: moments(&told.revocations), last: self.last() };
        let seen = bytes::judge(&processes, &known);
        let names = match self.changes_names {
            true => {
                let turns = Turns::read(&log, of_1970());
                names::judge(&processes, &turns, &self.last_names(), &[NAMED])
            }
            false => names::Verdict::default(),
        };
        let failures = processes.iter().flat_map(|process| &process.failures);
        let failures = failures
            .filter(|(_, errno)| !allowed.iter().any(|allowed| allowed.raw_os_error() == *errno));
        let failures = failures.map(|(call, errno)| format!("{call}: errno {errno}"));
        println!(
            "grants {} (waited {}, passed as kin {}), inversions {}, revocations {:?}; files opened \
             {}, left open by the dead {}, fenced {}; calls by name {}, told to try again {}, \
             changes {:?}",
            told.grants,
            told.waits,
            told.passes,
            told.inversions,
            count(&told.revocations),
            seen.turns,
            seen.abandoned,
            seen.fenced,
            names.deeds,
            names.again,
            names.changes
        );
        let wrong = told.wrong.into_iter().chain(seen.wrong).chain(names.wrong.clone());
        let wrong: Vec<_> = wrong.chain(failures).collect();
        if !wrong.is_empty() {
            let kept = keep(self.seed, &record, &log);
            panic!("{} is wrong, see {}:\n{}", wrong.len(), kept.display(), wrong.join("\n"));
        }
        Judged {
            grants: told.grants,
            passes: told.passes,
            revocations: told.revocations,
            fenced: seen.fenced,
            names,
        }
    }

    fn last(&self) -> BTreeMap<String, [String; 2]> {
        let ends = |file: &str| {
            let text = self.world.source_text(file);
            let [front, back] = [&text[..STAMP_BYTES], &text[text.len() - STAMP_BYTES..]];
            [front.trim_end().to_owned(), back.trim_end().to_owned()]
        };
        self.files().into_iter().map(|file| (file.to_owned(), ends(file))).collect()
    }

    /// Returns what there is by now beside the file whose name stays.
    fn last_names(&self) -> Names {
        let source = self.world.source();
        let mut names = Names::new();
        let mut dirs = vec![NAMED.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(source.join(&dir)).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{dir}/{}", entry.file_name().to_str().unwrap());
                if name == NAMED_FILE {
                    continue;
                }
                if entry.file_type().unwrap().is_dir() {
                    names.insert(name.clone(), Entry::Directory);
                    dirs.push(name);
                } else {
                    let text = self.world.source_text(&name);
                    let stamp = &text[..STAMP_BYTES.min(text.len())];
                    let stamp = stamp.trim_end_matches(['\0', ' ']).to_owned();
                    names.insert(name, Entry::File(stamp, text.len() as u64));
                }
            }
        }
        names
    }
}

fn record_of(world: &World) -> PathBuf {
    world.home().join("record")
}

fn read_records(dir: &Path) -> Vec<Process> {
    let records = fs::read_dir(dir).unwrap().map(|record| record.unwrap().path());
    records.map(|record| parse(&fs::read_to_string(record).unwrap())).collect()
}

fn parents_in(processes: &[Process]) -> Parents {
    let of = |process: &Process| {
        let (pid, parent) = (process.pid, process.parent);
        let children = process.children.clone();
        children.into_iter().map(move |child| (child, pid)).chain([(pid, parent)])
    };
    processes.iter().flat_map(of).collect()
}

/// The broker tells milliseconds of a clock that counts from 1970.
fn moments(revocations: &[Revocation]) -> Vec<(u32, String, (u64, u64))> {
    let nanos = |ms: i64| u64::try_from(i128::from(ms) * 1_000_000 + of_1970()).unwrap();
    let moment = |r: &Revocation| (r.pid, r.path.clone(), (nanos(r.at_ms - 1), nanos(r.at_ms + 2)));
    revocations.iter().map(moment).collect()
}

fn count(revocations: &[Revocation]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for revocation in revocations {
        *counts.entry(revocation.why.as_str()).or_default() += 1;
    }
    counts
}

/// Keeps a history for who wants to know what happened.
fn keep(seed: u64, record: &Path, log: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("history-{seed}"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("log.jsonl"), log).unwrap();
    for entry in fs::read_dir(record).unwrap().flatten() {
        fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    dir
}
