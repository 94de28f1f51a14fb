//! Where a run keeps what it needs: a directory, a broker, and a `gate` that finds this broker and
//! no other.

use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::mounted::Mounted;
use super::peer::await_event;
use crate::step::Failure;

/// Where the broker of the home keeps its state.
const STATE: &str = "state";

/// An ordinary user that every Debian has, and its group.
const ORDINARY_USER: (u32, u32) = (5, 60);

/// A directory that goes when this is dropped, and its broker with it.
pub struct Home {
    gate: PathBuf,
    /// Whose it is, and who runs what runs there: an ordinary user, or else who measures.
    user: Option<(u32, u32)>,
    broker: Option<Broker>,
    dir: TempDir,
}

/// A broker; it ends when this is dropped.
pub struct Broker {
    server: Child,
    /// Where it keeps its journal and its socket.
    pub state_dir: PathBuf,
}

impl Home {
    /// Makes the directory and starts the broker.
    pub fn make(gate: &Path) -> Result<Self, Failure> {
        Self::make_for(None, gate)
    }

    /// Makes another one, and all that runs there an ordinary user's.
    pub fn of_ordinary_user(&self) -> Result<Self, Failure> {
        Self::make_for(Some(ORDINARY_USER), &self.gate)
    }

    fn make_for(user: Option<(u32, u32)>, gate: &Path) -> Result<Self, Failure> {
        let fail = |error| Failure::new("cannot make a place to measure in", error);
        let dir = tempfile::Builder::new().prefix("gate-bench-").tempdir_in("/tmp");
        let mut home = Self { gate: gate.to_owned(), user, broker: None, dir: dir.map_err(fail)? };
        home.hand_over(home.dir.path()).map_err(fail)?;
        if user.is_some() {
            // That user may not reach the directories of who measures.
            home.gate = home.at("gate");
            std::fs::copy(gate, &home.gate).map_err(fail)?;
        }
        home.make_dir("run")?;
        home.broker = Some(home.start_broker(STATE)?);
        Ok(home)
    }

    /// Returns what lies at this name in the directory.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a directory in it.
    pub fn make_dir(&self, name: &str) -> Result<PathBuf, Failure> {
        let dir = self.at(name);
        std::fs::create_dir(&dir)
            .and_then(|()| self.hand_over(&dir))
            .map_err(|e| Failure::new(format!("cannot make {}", dir.display()), e))?;
        Ok(dir)
    }

    fn hand_over(&self, path: &Path) -> io::Result<()> {
        match self.user {
            Some((uid, gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// Prepares a command of whose home it is.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Prepares a command that finds this broker and no other.
    pub fn gate(&self, words: &[&str]) -> Command {
        let mut command = self.command(&self.gate);
        command
            .args(words)
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.at("run"))
            .env("XDG_STATE_HOME", self.state_dir())
            .env("GATE_STATE_DIR", self.state_dir())
            .stdin(Stdio::null());
        command
    }

    /// Mounts a gated view; `flags` are those of `gate mount`.
    pub fn mount_view(
        &self,
        flags: &[&str],
        source: &Path,
        point: &Path,
    ) -> Result<Mounted, Failure> {
        let mut command = self.gate(&["mount", "--foreground"]);
        Mounted::start(command.args(flags).args([source, point]), point)
    }

    /// Starts a broker that keeps its state in a new directory of the home.
    pub fn start_broker(&self, state: &str) -> Result<Broker, Failure> {
        let fail = |error| Failure::new("cannot start a broker", error);
        let state_dir = self.at(state);
        let mut command = self.gate(&["broker", "--port", "0"]);
        command.env("GATE_STATE_DIR", &state_dir).stderr(Stdio::null());
        let mut broker = Broker { server: command.spawn().map_err(fail)?, state_dir };
        broker.await_answers().map_err(fail)?;
        Ok(broker)
    }

    /// Returns the broker of the home.
    pub fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("started when the home was made")
    }

    /// Returns where the broker of the home keeps its state.
    pub fn state_dir(&self) -> PathBuf {
        self.at(STATE)
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
