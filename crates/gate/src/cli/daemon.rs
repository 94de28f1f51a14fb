//! `gate daemon`

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use gate_api::address::with_short_path;
use gate_api::{Address, ClientInfo, ConnectError, Watcher, process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::json;

use super::broker::Limits;
use super::broker::serve;
use crate::background;
use crate::config::Settings;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::reach::{BrokerFlags, DaemonFlags, Deaf, Reached, Unreached, Wanted, start_daemon};

/// How long a daemon may take to end in order.
const END_PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// The version of the JSON form.
const JSON_VERSION: u32 = 1;

/// Run, start or stop the broker of this user; root's is the system's
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[arg(value_enum, default_value_t = Action::Run)]
    action: Action,
    /// Where it keeps its state and its socket [default: of root /var/lib/gate, else the user's
    /// state directory]
    #[arg(long, value_name = "DIR", env = "GATE_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Write JSON: of status
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: Limits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Run it in the foreground
    Run,
    /// Start it in the background
    Start,
    /// End it in order
    Stop,
    /// Tell whether it runs
    Status,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        if self.json && self.action != Action::Status {
            let hint = "write it as `gate daemon status --json`";
            let what = "cannot understand the command line";
            return Err(Failure::new(what, "--json is for status", hint).exit(Exit::Unable));
        }
        let settings = Settings::load()?;
        let flags = BrokerFlags { state_dir: self.state_dir.clone(), ..BrokerFlags::default() };
        let state_dir = flags.state_dir(&settings)?;
        match self.action {
            Action::Run => self.serve(&settings, state_dir),
            Action::Start => self.start(&state_dir),
            Action::Stop => stop(&state_dir),
            Action::Status if self.json => status_json(&state_dir),
            Action::Status => status(&state_dir),
        }
    }

    fn serve(self, settings: &Settings, state_dir: PathBuf) -> Result<Exit, Failure> {
        if background::is_background() {
            background::leave_terminal()?;
        }
        let log = background::log_file(&state_dir, "daemon");
        let options = self.limits.options(state_dir, settings);
        serve::serve(options, |addresses| match background::is_background() {
            true => background::ready(&log),
            false => {
                output::say_line(format_args!("broker ready: {addresses}"));
                Ok(())
            }
        })
    }

    fn start(self, state_dir: &Path) -> Result<Exit, Failure> {
        if let Some(running) = find(state_dir)? {
            let text = format!("it runs already, as process {}\n", running.session.broker().pid);
            return output::print(&text).map(|()| Exit::Success);
        }
        // What the config file says it reads there itself.
        start_daemon(state_dir, &DaemonFlags { numbers: self.limits.numbers() })?;
        output::print(&format!("the daemon runs in {}\n", state_dir.display()))?;
        Ok(Exit::Success)
    }
}

/// Ends it and waits until it has ended; views wait for its return.
fn stop(state_dir: &Path) -> Result<Exit, Failure> {
    let running = match look(state_dir) {
        Err(Unreached { address: Address::Unix(socket), error: ConnectError::Version(_) }) => {
            return stop_another(state_dir, &socket);
        }
        looked => looked?,
    };
    let Some(running) = running else { return Err(not_running(state_dir)) };
    let pid = running.session.broker().pid;
    let status = running.session.status().map_err(|error| cannot_stop(pid, &error))?;
    let clients: u64 = status.spaces.iter().map(|space| space.clients).sum();
    // Before it ends: a session that sees its broker go would try to come back.
    drop(running);
    end(state_dir, pid)?;
    if clients > 0 {
        let hint = "calls that need a turn wait for it: `gate daemon start`, or unmount";
        output::print(&format!("it served views and holds ({clients}); {hint}\n"))?;
    }
    Ok(Exit::Success)
}

/// Ends one of a release whose frames this one does not know: after an upgrade nothing else could.
fn stop_another(state_dir: &Path, socket: &Path) -> Result<Exit, Failure> {
    let listener = with_short_path(socket, |path| UnixStream::connect(path))
        .and_then(|stream| Ok(socket_peercred(&stream)?.pid));
    match listener {
        Ok(pid) => end(state_dir, pid.as_raw_nonzero().get().unsigned_abs())?,
        Err(_) => return Err(not_running(state_dir)),
    }
    output::print("it was of another release\n")?;
    Ok(Exit::Success)
}

fn end(state_dir: &Path, pid: u32) -> Result<(), Failure> {
    let Some(daemon) = process::of_pid(pid).and_then(process::watch) else {
        return Err(not_running(state_dir));
    };
    pidfd_send_signal(&daemon, Signal::TERM).map_err(|errno| cannot_stop(pid, &errno))?;
    match poll(&mut [PollFd::new(&daemon, PollFlags::IN)], Some(&END_PATIENCE)) {
        Ok(1..) => Ok(()),
        Ok(0) => Err(cannot_stop(pid, &"it takes longer than expected")),
        Err(errno) => Err(cannot_stop(pid, &errno)),
    }
}

fn cannot_stop(pid: u32, cause: &dyn std::fmt::Display) -> Failure {
    let hint = "`gate daemon status` tells how it is";
    Failure::new(format!("cannot stop the daemon, process {pid}"), cause, hint)
}

fn status(state_dir: &Path) -> Result<Exit, Failure> {
    let Some(running) = find(state_dir)? else { return Err(not_running(state_dir)) };
    let (broker, address) = (running.session.broker(), &running.address);
    let (pid, version) = (broker.pid, broker.version);
    output::print(&format!("it runs at {address}, gate {version}, process {pid}\n"))?;
    Ok(Exit::Success)
}

/// As [`status`]; that none runs is an answer, too.
fn status_json(state_dir: &Path) -> Result<Exit, Failure> {
    let running = find(state_dir)?;
    let broker = running.as_ref().map(|Reached { session, address }| {
        let broker = session.broker();
        json!({"address": address.to_string(), "pid": broker.pid, "version": broker.version})
    });
    output::print_json(&json!({
        "version": JSON_VERSION,
        "state_dir": state_dir.display().to_string(),
        "broker": broker,
    }))?;
    Ok(if running.is_some() { Exit::Success } else { Exit::Failed })
}

fn find(state_dir: &Path) -> Result<Option<Reached>, Failure> {
    Ok(look(state_dir)?)
}

fn look(state_dir: &Path) -> Result<Option<Reached>, Unreached> {
    let client = ClientInfo::named("gate daemon");
    let deaf: Arc<dyn Watcher> = Arc::new(Deaf);
    Wanted::StateDir(state_dir.to_owned()).reach_alive(&client, &deaf)
}

fn not_running(state_dir: &Path) -> Failure {
    let what = format!("no daemon runs in {}", state_dir.display());
    Failure::new(what, "nobody answers at its socket", "start it: `gate daemon start`")
}
