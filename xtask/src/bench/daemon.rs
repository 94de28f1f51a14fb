//! A daemon that keeps mounts: how soon it is there and they with it, how soon a view that was killed is
//! back, and how much memory all of them need of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gate_api::process;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::home::Home;
use super::keeper::{self, Keeper};
use super::peer::{samples, wait_for};
use super::process::{mebibytes, proportional_bytes, resident_bytes};
use super::sample::{Samples, print_heads, print_row, show};
use crate::step::Failure;

const MOUNTS: usize = 20;
const ROUNDS: usize = 15;
const READY_MAX: Duration = Duration::from_secs(1);
const BACK_MAX: Duration = Duration::from_secs(2);
const MEMORY_BYTES_MAX: usize = 30_000_000;
/// What is in each source.
const FILE: &str = "file";

/// Measures and prints; returns the figures.
pub fn run(home: &Home) -> Result<Value, Failure> {
    let fail = |error| Failure::new("cannot measure a daemon", error);
    let figures = Daemon::set(home)?.measure().map_err(fail)?;
    figures.print();
    Ok(figures.json())
}

struct Figures {
    ready: Samples,
    shown: Samples,
    back: Samples,
    memory: Vec<Memory>,
}

/// Bytes of the daemon, its views apart.
#[derive(Clone, Copy)]
struct Memory {
    resident: usize,
    /// What it shares with its views counts once among them.
    share: usize,
}

impl Figures {
    fn rows(&self) -> [(&'static str, &'static str, &Samples, Option<Duration>); 3] {
        [
            ("ready", "`gate daemon start`", &self.ready, Some(READY_MAX)),
            ("shown", "… until all views answer", &self.shown, None),
            ("back", "a view is killed, until it is back", &self.back, Some(BACK_MAX)),
        ]
    }

    fn print(&self) {
        println!();
        print_heads(&[&format!("a daemon with {MOUNTS} mounts"), "median", "worst", "bar"]);
        for (_, title, samples, bar) in self.rows() {
            let times = [samples.median(), samples.percentile(100)].map(show);
            let bar = bar.map_or_else(String::new, |bar| format!("≤ {}", show(bar)));
            print_row(&[title, &times[0], &times[1], &bar]);
        }
        println!();
        print_heads(&["memory of the daemon alone", "resident", "worst", "share", "bar"]);
        let Memory { resident, share } = self.memory[self.memory.len() / 2];
        let [resident, worst, share] = [resident, self.worst_memory(), share].map(mebibytes);
        let bar = format!("≤ {}", mebibytes(MEMORY_BYTES_MAX));
        print_row(&["all views are there", &resident, &worst, &share, &bar]);
    }

    fn json(&self) -> Value {
        let row = |(name, _, samples, bar): (&str, &str, &Samples, Option<Duration>)| {
            json!({
                "name": name,
                "median_s": samples.median().as_secs_f64(),
                "worst_s": samples.percentile(100).as_secs_f64(),
                "bar_s": bar.map(|bar| bar.as_secs_f64()),
            })
        };
        let Memory { resident, share } = self.memory[self.memory.len() / 2];
        json!({
            "mounts": MOUNTS,
            "rows": self.rows().map(row),
            "memory": {
                "resident_bytes": resident,
                "worst_bytes": self.worst_memory(),
                "share_bytes": share,
                "bar_bytes": MEMORY_BYTES_MAX,
            },
        })
    }

    fn worst_memory(&self) -> usize {
        self.memory.last().expect("each round has looked").resident
    }
}

/// A daemon and what it keeps.
struct Daemon<'a> {
    keeper: Keeper<'a>,
    points: Vec<PathBuf>,
}

impl Daemon<'_> {
    /// Configures the mounts; leaves the daemon stopped.
    fn set(home: &Home) -> Result<Daemon<'_>, Failure> {
        let names = (0..MOUNTS).map(|number| format!("daemon-shown-{number}"));
        let points = names.map(|name| home.at(&name)).collect();
        let daemon = Daemon { keeper: Keeper::new(home, home.at("daemon")), points };
        let fail = |error| Failure::new("cannot configure mounts", error);
        daemon.keeper.start().map_err(fail)?;
        for (number, point) in daemon.points.iter().enumerate() {
            let source = home.make_dir(&format!("daemon-source-{number}"))?;
            fs::write(source.join(FILE), "text").map_err(fail)?;
            let [source, point] = [&source, point].map(|path| path.to_str().expect("we named it"));
            daemon.keeper.gate(&["mount", "add", source, point, "--auto-mount"]).map_err(fail)?;
        }
        daemon.keeper.stop().map_err(fail)?;
        Ok(daemon)
    }

    fn measure(&self) -> io::Result<Figures> {
        let (mut ready, mut shown, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let started = Instant::now();
            self.keeper.start()?;
            ready.push(started.elapsed());
            self.await_views()?;
            shown.push(started.elapsed());
            memory.push(self.memory()?);
            self.keeper.stop()?;
        }
        self.keeper.start()?;
        self.await_views()?;
        // Each once: one that dies again and again is given time.
        let back = self.points.iter().map(|point| self.kill(point)).collect::<io::Result<_>>()?;
        memory.push(self.memory()?);
        self.keeper.stop()?;
        memory.sort_unstable_by_key(|memory| memory.resident);
        Ok(Figures { ready: samples(ready), shown: samples(shown), back: samples(back), memory })
    }

    fn await_views(&self) -> io::Result<()> {
        wait_for("all views answer", || Ok(self.points.iter().all(|point| answers(point))))
    }

    /// Kills the server of a view; returns how long nothing could be opened there.
    fn kill(&self, point: &Path) -> io::Result<Duration> {
        let told = self.keeper.told(&["mount", "list", "--json"])?;
        let mut mounts = told["mounts"].as_array().into_iter().flatten();
        let mount =
            mounts.find(|mount| mount["mount_point"].as_str().map(Path::new) == Some(point));
        let server = keeper::pid_in(&mount.unwrap_or(&Value::Null)["pid"])?;
        let alive = process::of_pid(server).ok_or(io::ErrorKind::NotFound)?;
        let started = Instant::now();
        let server = i32::try_from(server).ok().and_then(Pid::from_raw);
        kill_process(server.ok_or(io::ErrorKind::NotFound)?, Signal::KILL)?;
        wait_for("it is dead", || Ok(!process::is_alive(alive)))?;
        wait_for("it is back", || Ok(answers(point)))?;
        Ok(started.elapsed())
    }

    fn memory(&self) -> io::Result<Memory> {
        let pid = self.keeper.pid()?;
        Ok(Memory { resident: resident_bytes(pid)?, share: proportional_bytes(pid)? })
    }
}

/// Tells whether the view there opens a file: what the kernel has kept of it does not count.
fn answers(point: &Path) -> bool {
    fs::read(point.join(FILE)).is_ok()
}
