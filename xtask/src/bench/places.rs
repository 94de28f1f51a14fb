//! Where the work is done: a bare directory, a bindfs mount, a gated view.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::step::Failure;

const MOUNTED_WITHIN: Duration = Duration::from_secs(20);

/// The places, in the order of the columns.
pub struct Places {
    servers: Vec<(Child, Option<PathBuf>)>,
    gate: PathBuf,
    home: TempDir,
}

impl Places {
    /// The columns.
    pub const NAMES: [&str; 3] = ["bare", "bindfs", "gate"];

    /// Makes the directories, mounts what is to be mounted, starts a broker.
    pub fn make(gate: &Path) -> Result<Self, Failure> {
        let fail = |error| Failure::new("cannot make a place to measure in", error);
        let home =
            tempfile::Builder::new().prefix("gate-bench-").tempdir_in("/tmp").map_err(fail)?;
        for name in ["bare", "bindfs", "gate", "behind-bindfs", "behind-gate", "state", "run"] {
            std::fs::create_dir(home.path().join(name)).map_err(fail)?;
        }
        let gate = gate.canonicalize().map_err(fail)?;
        let mut places = Self { servers: Vec::new(), gate, home };
        let bindfs = Command::new("bindfs");
        places.mount(bindfs, &["-f", "--no-allow-other"], "behind-bindfs", "bindfs")?;
        places.start_broker()?;
        let gate = places.gate(&["mount", "--foreground"]);
        places.mount(gate, &[], "behind-gate", "gate")?;
        Ok(places)
    }

    /// Returns the directory of each place.
    pub fn dirs(&self) -> [PathBuf; 3] {
        Self::NAMES.map(|name| self.home.path().join(name))
    }

    /// Returns the gated view.
    pub fn view(&self) -> PathBuf {
        self.home.path().join("gate")
    }

    /// Returns a directory beside the places.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Prepares a command that finds this broker and no other.
    pub fn gate(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.gate);
        command
            .args(words)
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.beside("run"))
            .env("XDG_STATE_HOME", self.beside("state"))
            .env("GATE_STATE_DIR", self.beside("state"))
            .stdin(Stdio::null());
        command
    }

    fn start_broker(&mut self) -> Result<(), Failure> {
        let broker = self.gate(&["broker"]).stderr(Stdio::null()).spawn();
        let broker = broker.map_err(|error| Failure::new("cannot start the broker", error))?;
        self.servers.push((broker, None));
        self.await_event("the broker answers", |places| {
            let ask = places.gate(&["locks"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
            ask.is_ok_and(|status| status.success())
        })
    }

    fn mount(
        &mut self,
        mut command: Command,
        words: &[&str],
        source: &str,
        point: &str,
    ) -> Result<(), Failure> {
        let [source, point] = [source, point].map(|name| self.home.path().join(name));
        let server = command.args(words).args([&source, &point]).stderr(Stdio::null()).spawn();
        let server =
            server.map_err(|error| Failure::new(format!("cannot run {command:?}"), error))?;
        self.servers.push((server, Some(point.clone())));
        self.await_event("the mount is there", |_| is_mounted(&point))
    }

    fn await_event(
        &mut self,
        what: &str,
        mut event: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        while !event(self) {
            let is_over = self.servers.iter_mut().any(|(s, _)| !matches!(s.try_wait(), Ok(None)));
            if is_over || started.elapsed() > MOUNTED_WITHIN {
                return Err(Failure::new("cannot prepare the places", format!("not so: {what}")));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for (mut server, point) in std::mem::take(&mut self.servers).into_iter().rev() {
            match point {
                Some(point) => {
                    let _ = Command::new("fusermount3").arg("-u").arg(point).status();
                }
                None => {
                    let _ = server.kill();
                }
            }
            let _ = server.wait();
        }
    }
}

fn is_mounted(point: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == point))
}
