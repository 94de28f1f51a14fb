//! A view for a while: of a directory of its own, with a broker of its own, and gone with the
//! command that made it, however that ends.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use gate_api::process;
use gate_broker::{Broker, Options, Running};
use gate_fuse::UnmountError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::failure::{Exit, Failure};
use crate::unmount;

/// How long its server may take to mount it.
const READY_PATIENCE: Duration = Duration::from_secs(20);
/// How long its server may take to end once it is unmounted.
const END_PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A view that ends when this is dropped.
pub struct TemporaryView {
    /// `None` once it has ended.
    server: Option<Child>,
    /// Ends after the view that asks it.
    _broker: Running,
    home: TempDir,
}

impl TemporaryView {
    /// Mounts one; all of it lies in a fresh directory in `dir`. To be called by the thread that
    /// lives as long as the command: the view ends with it.
    pub fn mount_in(dir: &Path) -> Result<TemporaryView, Failure> {
        let cannot = |error: io::Error| {
            let what = format!("cannot make a view in {}", dir.display());
            Failure::new(what, error, "choose a directory that is yours and has room")
        };
        let dir = dir.canonicalize().map_err(cannot)?;
        let home = tempfile::Builder::new().prefix(".gate-").tempdir_in(&dir).map_err(cannot)?;
        let [source, point, state] = ["source", "view", "state"].map(|name| home.path().join(name));
        fs::create_dir(&source).and_then(|()| fs::create_dir(&point)).map_err(cannot)?;
        let broker = Broker::start(Options::new(state.clone())).map_err(|error| {
            Failure::new("cannot start a broker for it", error, "look into that directory")
        })?;
        let mut server = server(&source, &point, &state).map_err(cannot)?;
        let said = server.stderr.take().expect("its standard error is a pipe");
        let view = TemporaryView { server: Some(server), _broker: broker, home };
        await_ready(said)?;
        Ok(view)
    }

    /// Returns the directory behind it.
    pub fn source(&self) -> PathBuf {
        self.home.path().join("source")
    }

    /// Returns where it is mounted.
    pub fn point(&self) -> PathBuf {
        self.home.path().join("view")
    }

    /// Unmounts it and waits for the end of its server.
    pub fn end(mut self) -> Result<(), UnmountError> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        end(&mut server, &self.point())
    }
}

impl Drop for TemporaryView {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // A server that was ended by force has left its mount behind, which is then detached.
            let _ = end(&mut server, &self.point());
        }
    }
}

fn server(source: &Path, point: &Path, state: &Path) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["mount", "--foreground", "--state-dir"]).args([state, source, point]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Ctrl-C is for the command; it ends the view when it is done.
    command.process_group(0);
    let end_with_parent =
        || rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).map_err(Into::into);
    // SAFETY: the closure makes one system call, allocates nothing and takes no lock.
    unsafe { command.pre_exec(end_with_parent) };
    command.spawn()
}

/// Waits until the server says that the view is there; until then what it says is why not.
fn await_ready(said: ChildStderr) -> Result<(), Failure> {
    let (tell, heard) = channel();
    // Reads on to the end: a server that nobody listens to could not write.
    std::thread::spawn(move || {
        BufReader::new(said).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
    });
    let deadline = Instant::now() + READY_PATIENCE;
    let mut complaint = String::new();
    loop {
        match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.starts_with("view ready") => return Ok(()),
            Ok(line) => complaint.extend([&line, "\n"]),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::passed_on(complaint, Exit::Failed));
            }
            Err(RecvTimeoutError::Timeout) => {
                let cause = format!("it is not there after {} s", READY_PATIENCE.as_secs());
                return Err(Failure::new("cannot mount a view", cause, "look at `dmesg`"));
            }
        }
    }
}

fn end(server: &mut Child, point: &Path) -> Result<(), UnmountError> {
    let unmounted = unmount::unmount(point);
    if unmounted.is_err() || !ends_by_itself(server) {
        let _ = server.kill();
        let _ = server.wait();
        let _ = gate_fuse::detach(point);
    }
    let _ = server.wait();
    unmounted
}

fn ends_by_itself(server: &Child) -> bool {
    let Some(watched) = process::of_pid(server.id()).and_then(process::watch) else { return true };
    poll(&mut [PollFd::new(&watched, PollFlags::IN)], Some(&END_PATIENCE)).is_ok_and(|n| n > 0)
}
