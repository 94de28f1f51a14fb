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

/// A daemon and what it keeps; ends when this is dropped.
struct Daemon<'a> {
    home: &'a Home,
    state_dir: PathBuf,
    points: Vec<PathBuf>,
}

impl Daemon<'_> {
    /// Configures the mounts; leaves the daemon stopped.
    fn set(home: &Home) -> Result<Daemon<'_>, Failure> {
        let names = (0..MOUNTS).map(|number| format!("daemon-shown-{number}"));
        let points = names.map(|name| home.at(&name)).collect();
        let daemon = Daemon { home, state_dir: home.at("daemon"), points };
        let fail = |error| Failure::new("cannot configure mounts", error);
        daemon.gate(&["daemon", "start"]).map_err(fail)?;
        for (number, point) in daemon.points.iter().enumerate() {
            let source = home.make_dir(&format!("daemon-source-{number}"))?;
            fs::write(source.join(FILE), "text").map_err(fail)?;
            let [source, point] = [&source, point].map(|path| path.to_str().expect("we named it"));
            daemon.gate(&["mount", "add", source, point, "--auto-mount"]).map_err(fail)?;
        }
        daemon.gate(&["daemon", "stop"]).map_err(fail)?;
        Ok(daemon)
    }

    fn measure(&self) -> io::Result<Figures> {
        let (mut ready, mut shown, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let started = Instant::now();
            self.gate(&["daemon", "start"])?;
            ready.push(started.elapsed());
            self.await_views()?;
            shown.push(started.elapsed());
            memory.push(self.memory()?);
            self.gate(&["daemon", "stop"])?;
        }
        self.gate(&["daemon", "start"])?;
        self.await_views()?;
        // Each once: one that dies again and again is given time.
        let back = self.points.iter().map(|point| self.kill(point)).collect::<io::Result<_>>()?;
        memory.push(self.memory()?);
        self.gate(&["daemon", "stop"])?;
        memory.sort_unstable_by_key(|memory| memory.resident);
        Ok(Figures { ready: samples(ready), shown: samples(shown), back: samples(back), memory })
    }

    fn await_views(&self) -> io::Result<()> {
        wait_for("all views answer", || Ok(self.points.iter().all(|point| answers(point))))
    }

    /// Kills the server of a view; returns how long nothing could be opened there.
    fn kill(&self, point: &Path) -> io::Result<Duration> {
        let told = self.told(&["mount", "list", "--json"])?;
        let mut mounts = told["mounts"].as_array().into_iter().flatten();
        let mount =
            mounts.find(|mount| mount["mount_point"].as_str().map(Path::new) == Some(point));
        let server = pid(&mount.unwrap_or(&Value::Null)["pid"])?;
        let alive = process::of_pid(server).ok_or(io::ErrorKind::NotFound)?;
        let started = Instant::now();
        let server = i32::try_from(server).ok().and_then(Pid::from_raw);
        kill_process(server.ok_or(io::ErrorKind::NotFound)?, Signal::KILL)?;
        wait_for("it is dead", || Ok(!process::is_alive(alive)))?;
        wait_for("it is back", || Ok(answers(point)))?;
        Ok(started.elapsed())
    }

    fn memory(&self) -> io::Result<Memory> {
        let pid = pid(&self.told(&["daemon", "status", "--json"])?["broker"]["pid"])?;
        Ok(Memory { resident: resident_bytes(pid)?, share: proportional_bytes(pid)? })
    }

    fn told(&self, words: &[&str]) -> io::Result<Value> {
        Ok(serde_json::from_slice(&self.gate(words)?)?)
    }

    fn gate(&self, words: &[&str]) -> io::Result<Vec<u8>> {
        let done = self.home.gate(words).env("GATE_STATE_DIR", &self.state_dir).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        let failed = || io::Error::other(format!("gate {}: {said}", words.join(" ")));
        if done.status.success() { Ok(done.stdout) } else { Err(failed()) }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // It has ended already, where nothing failed.
        let _ = self.gate(&["daemon", "stop", "--lazy"]);
    }
}

/// Tells whether the view there opens a file: what the kernel has kept of it does not count.
fn answers(point: &Path) -> bool {
    fs::read(point.join(FILE)).is_ok()
}

fn pid(told: &Value) -> io::Result<u32> {
    let pid = told.as_u64().and_then(|pid| u32::try_from(pid).ok());
    pid.ok_or_else(|| io::Error::other("no process serves it"))
}
