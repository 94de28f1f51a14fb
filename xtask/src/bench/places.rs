//! Where the work is done: a bare directory, a bindfs mount, a gated view.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::peer::await_event;
use crate::step::Failure;

/// Where the broker of the places keeps its state.
const STATE: &str = "state";

/// The places, in the order of the columns.
pub struct Places {
    mounts: Vec<(Child, PathBuf)>,
    gate: PathBuf,
    /// Ends after the view that asks it.
    broker: Option<Broker>,
    home: TempDir,
}

/// A broker; it ends when this is dropped.
pub struct Broker {
    server: Child,
    /// Where it keeps its journal and its socket.
    pub state_dir: PathBuf,
}

impl Places {
    /// The columns.
    pub const NAMES: [&str; 3] = ["bare", "bindfs", "gate"];

    /// Makes the directories, mounts what is to be mounted, starts a broker.
    pub fn make(gate: &Path) -> Result<Self, Failure> {
        let fail = |error| Failure::new("cannot make a place to measure in", error);
        let home =
            tempfile::Builder::new().prefix("gate-bench-").tempdir_in("/tmp").map_err(fail)?;
        for name in ["bare", "bindfs", "gate", "behind-bindfs", "behind-gate", "run"] {
            std::fs::create_dir(home.path().join(name)).map_err(fail)?;
        }
        let gate = gate.canonicalize().map_err(fail)?;
        let mut places = Self { mounts: Vec::new(), gate, broker: None, home };
        let bindfs = Command::new("bindfs");
        places.mount(bindfs, &["-f", "--no-allow-other"], "behind-bindfs", "bindfs")?;
        places.broker = Some(places.start_broker(STATE)?);
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
            .env("XDG_STATE_HOME", self.beside(STATE))
            .env("GATE_STATE_DIR", self.beside(STATE))
            .stdin(Stdio::null());
        command
    }

    /// Starts a broker that keeps its state in a new directory beside the places.
    pub fn start_broker(&self, state: &str) -> Result<Broker, Failure> {
        let fail = |error| Failure::new("cannot start a broker", error);
        let state_dir = self.beside(state);
        let mut command = self.gate(&["broker", "--port", "0"]);
        command.env("GATE_STATE_DIR", &state_dir).stderr(Stdio::null());
        let mut broker = Broker { server: command.spawn().map_err(fail)?, state_dir };
        broker.await_answers().map_err(fail)?;
        Ok(broker)
    }

    /// Returns where the broker of the places keeps its state.
    pub fn state_dir(&self) -> PathBuf {
        self.beside(STATE)
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
        self.mounts.push((server, point.clone()));
        let (server, _) = self.mounts.last_mut().expect("pushed above");
        await_event(server, "the mount is there", || is_mounted(&point))
            .map_err(|error| Failure::new("cannot prepare the places", error))
    }
}

impl Broker {
    /// Returns its process.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    fn await_answers(&mut self) -> io::Result<()> {
        let socket = self.state_dir.join("gate.sock");
        await_event(&mut self.server, "the broker answers", || UnixStream::connect(&socket).is_ok())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for (server, point) in self.mounts.iter_mut().rev() {
            let _ = Command::new("fusermount3").arg("-u").arg(point).status();
            let _ = server.wait();
        }
    }
}

fn is_mounted(point: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == point))
}
