//! `gate daemon`

mod units;

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Parser as _, ValueEnum};
use gate_api::address::with_short_path;
use gate_api::bearer::TokenFile;
use gate_api::{Address, ClientInfo, ConnectError, Watcher, process};
use gate_broker::{Listen, Policy, Running};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::json;

use super::broker::Limits;
use super::broker::serve;
use super::{Cli, Command};
use crate::background;
use crate::config::Settings;
use crate::daemon;
use crate::daemon::body::{Stop, Unmounted};
use crate::daemon::heap;
use crate::failure::{Exit, Failure};
use crate::notify;
use crate::output;
use crate::reach::{
    BrokerFlags, DaemonFlags, Deaf, HOST_DEFAULT, Reached, Unreached, Wanted, start_daemon,
};
use crate::rest::Rest;
use crate::tokens;
use units::Whose;

/// How long a daemon may take to end in order.
const END_PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// The version of the JSON form.
const JSON_VERSION: u32 = 1;

/// Run, start or stop what decides and keeps mounts for this user; root's is the system's
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
    /// Stop it although mounts are used: who has something of one goes on with that
    #[arg(long, short = 'z')]
    lazy: bool,
    #[command(flatten)]
    units: units::Flags,
    #[command(flatten)]
    api: ApiFlags,
    #[command(flatten)]
    limits: Limits,
}

/// Where it offers its REST interface and its board beside its own socket.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ApiFlags {
    /// Offer its REST interface at this port of the loopback address, too, to who shows a token
    #[arg(long, value_name = "PORT", env = "GATE_API_PORT")]
    api_port: Option<u16>,
    /// File with a `SCOPE TOKEN` on each line, mode 0600 [default: api.tokens in the state
    /// directory, made with one of the scope admin]
    #[arg(long, value_name = "FILE", env = "GATE_API_TOKEN_FILE")]
    api_token_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Run it in the foreground
    Run,
    /// Start it in the background
    Start,
    /// Unmount what it keeps, and end it in order
    Stop,
    /// End it and start it anew: mounts stay, and calls that need a turn wait meanwhile
    Restart,
    /// Tell whether it runs
    Status,
    /// Write units by which systemd keeps it running, or starts it when it is asked
    Install,
    /// Take those units away
    Uninstall,
}

impl ApiFlags {
    /// Returns what is given, and where nothing is, the others.
    fn or(self, others: ApiFlags) -> ApiFlags {
        ApiFlags {
            api_port: self.api_port.or(others.api_port),
            api_token_file: self.api_token_file.or(others.api_token_file),
        }
    }

    /// Returns where the interface is to be offered beside the daemon's socket, if anywhere.
    fn plan(&self, settings: &Settings, state_dir: &Path) -> Result<Option<Listen>, Failure> {
        let Some(port) = self.api_port.or(settings.api_port) else { return Ok(None) };
        let named = self.api_token_file.as_ref().or(settings.api_token_file.as_ref());
        let cannot = |cause: &dyn Display, hint: &dyn Display| {
            Failure::new("cannot start the daemon", cause, hint).exit(Exit::Unable)
        };
        let path = match named {
            Some(path) => path.clone(),
            None => tokens::own(state_dir)
                .map_err(|error| cannot(&error, &"mend the permissions of the state directory"))?,
        };
        let tokens = TokenFile::load(&path);
        let tokens = tokens.map_err(|error| cannot(&error, &tokens::hint(&error)))?;
        let policy = Policy::Token(tokens);
        Ok(Some(Listen { host: HOST_DEFAULT.to_owned(), port, policy }))
    }
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let is_for_units = matches!(self.action, Action::Install | Action::Uninstall);
        let misplaced = [
            (self.json && self.action != Action::Status, "--json is for status", "status --json"),
            (self.lazy && self.action != Action::Stop, "--lazy is for stop", "stop --lazy"),
            (
                self.units.are_given() && !is_for_units,
                "--user, --system, --print and --force are for install and uninstall",
                "install --print",
            ),
        ];
        if let Some((_, cause, right)) = misplaced.into_iter().find(|(is_so, _, _)| *is_so) {
            let hint = format!("write it as `gate daemon {right}`");
            let what = "cannot understand the command line";
            return Err(Failure::new(what, cause, hint).exit(Exit::Unable));
        }
        match self.action {
            Action::Install => return self.units.install(&self.options_of_unit()),
            Action::Uninstall => return self.units.uninstall(),
            _ => {}
        }
        let settings = Settings::load()?;
        let flags = BrokerFlags { state_dir: self.state_dir.clone(), ..BrokerFlags::default() };
        let state_dir = flags.state_dir(&settings)?;
        match self.action {
            Action::Run => self.serve(&settings, state_dir),
            Action::Start => self.start(&state_dir),
            Action::Stop => stop(&state_dir, self.lazy),
            Action::Restart => self.restart(&settings, &state_dir),
            Action::Status if self.json => status_json(&state_dir),
            Action::Status => status(&state_dir),
            Action::Install | Action::Uninstall => unreachable!("they are done above"),
        }
    }

    fn serve(self, settings: &Settings, state_dir: PathBuf) -> Result<Exit, Failure> {
        if background::is_background() {
            background::leave_terminal()?;
        }
        heap::keep_few();
        let log = background::log_file(&state_dir, "daemon");
        let options = self.limits.options(state_dir.clone(), settings);
        let api = self.api.plan(settings, &state_dir)?;
        let beside = |running: &Running| daemon::start(running, &state_dir, api);
        serve::serve(options, beside, |addresses| match background::is_background() {
            true => background::ready(&log),
            false => {
                output::say_line(format_args!("broker ready: {addresses}"));
                Ok(())
            }
        })
    }

    /// Returns what a unit is to say that this command was told.
    fn options_of_unit(&self) -> Vec<(&'static str, OsString)> {
        let dir = self.state_dir.as_ref();
        let dir = dir.map(|dir| std::path::absolute(dir).unwrap_or(dir.clone()));
        dir.map(|dir| ("--state-dir", dir.into())).into_iter().chain(self.options()).collect()
    }

    /// Returns what a daemon is to be told that this command was told.
    fn options(&self) -> Vec<(&'static str, OsString)> {
        let numbers = self.limits.numbers().into_iter();
        let numbers = numbers.map(|(flag, number)| (flag, number.to_string().into()));
        let port = self.api.api_port.map(|port| ("--api-port", port.to_string().into()));
        let tokens = self.api.api_token_file.as_ref();
        let tokens = tokens.map(|file| std::path::absolute(file).unwrap_or(file.clone()));
        let tokens = tokens.map(|file| ("--api-token-file", file.into()));
        numbers.chain(port).chain(tokens).collect()
    }

    /// Returns the line by which this command is told something else.
    fn typed(&self, action: &str, options: &[(&'static str, OsString)]) -> String {
        // What a variable says is said again by itself.
        let said = std::env::var_os("GATE_STATE_DIR");
        let dir = self.state_dir.as_ref().filter(|dir| said.as_deref() != Some(dir.as_os_str()));
        let dir = dir.map(|dir| format!(" --state-dir {}", dir.display()));
        let options = options.iter().map(|(flag, value)| format!(" {flag} {}", value.display()));
        format!("`gate daemon {action}{}`", dir.into_iter().chain(options).collect::<String>())
    }

    /// Ends it and starts the one of this release, with the same options unless others are given. What
    /// can be known to keep the new one from starting leaves the old one as it is.
    fn restart(self, settings: &Settings, state_dir: &Path) -> Result<Exit, Failure> {
        let Some(running) = find(state_dir)? else { return Err(not_running(state_dir)) };
        let pid = running.session.broker().pid;
        if is_of_systemd(pid) {
            let hint = format!("`{} restart gate`: mounts stay", Whose::own().systemctl());
            let what = "cannot restart the daemon";
            return Err(Failure::new(what, format!("systemd keeps it, process {pid}"), hint));
        }
        let before = args_of(pid);
        let api = before.as_ref().map(|before| before.api.clone()).unwrap_or_default();
        if let Some(listen) = self.api.clone().or(api).plan(settings, state_dir)? {
            check_port(listen.port, pid)?;
        }
        let mut options = before.as_ref().map(Args::options).unwrap_or_default();
        let own = self.options();
        options.retain(|(flag, _)| own.iter().all(|(other, _)| other != flag));
        options.extend(own);
        let again = self.typed("start", &options);
        end(state_dir, running)?;
        start_daemon(state_dir, &DaemonFlags { options }).map_err(|failure| {
            let [cause, hint] = ["cause", "hint"].map(|name| failure.line(name).unwrap_or("none"));
            let what = "no daemon runs now: the old one has ended, and the new one cannot start";
            Failure::new(what, cause, format!("{hint}; then {again}"))
        })?;
        output::print(&format!("the daemon runs anew in {}\n", state_dir.display()))?;
        Ok(Exit::Success)
    }

    fn start(self, state_dir: &Path) -> Result<Exit, Failure> {
        if let Some(running) = find(state_dir)? {
            let pid = running.session.broker().pid;
            let told = args_of(pid).as_ref().map(Args::options).unwrap_or_default();
            let mut others = self.options();
            others.retain(|option| !told.contains(option));
            if others.is_empty() {
                let text = format!("it runs already, as process {pid}\n");
                return output::print(&text).map(|()| Exit::Success);
            }
            let what = format!("the daemon runs already, as process {pid}");
            let cause = "it was started with other options, and keeps them";
            return Err(Failure::new(what, cause, self.typed("restart", &others)));
        }
        // What the config file says it reads there itself.
        start_daemon(state_dir, &DaemonFlags { options: self.options() })?;
        output::print(&format!("the daemon runs in {}\n", state_dir.display()))?;
        Ok(Exit::Success)
    }
}

/// Unmounts what it keeps, ends it and waits until it has ended; other views wait for its return.
fn stop(state_dir: &Path, lazy: bool) -> Result<Exit, Failure> {
    let running = match look(state_dir) {
        Err(Unreached { address: Address::Unix(socket), error: ConnectError::Version(_) }) => {
            return stop_another(state_dir, lazy, &socket);
        }
        looked => looked?,
    };
    let Some(running) = running else { return Err(not_running(state_dir)) };
    unmount_kept(state_dir, lazy)?;
    let clients = end(state_dir, running)?;
    if clients > 0 {
        let hint = "calls that need a turn wait for it: `gate daemon start`, or unmount";
        output::print(&format!("it served views and holds ({clients}); {hint}\n"))?;
    }
    Ok(Exit::Success)
}

fn unmount_kept(state_dir: &Path, lazy: bool) -> Result<(), Failure> {
    if let Some(rest) = Rest::offered_in(state_dir) {
        let Unmounted { notices } = rest.tell("POST", "/api/v0/daemon/unmount", &Stop { lazy })?;
        for notice in notices {
            output::say_line(output::printable(&notice));
        }
    }
    Ok(())
}

/// Ends one of a release whose frames this one does not know: after an upgrade nothing else could.
fn stop_another(state_dir: &Path, lazy: bool, socket: &Path) -> Result<Exit, Failure> {
    unmount_kept(state_dir, lazy)?;
    let listener = with_short_path(socket, |path| UnixStream::connect(path))
        .and_then(|stream| Ok(socket_peercred(&stream)?.pid));
    match listener {
        Ok(pid) => end_process(state_dir, pid.as_raw_nonzero().get().unsigned_abs())?,
        Err(_) => return Err(not_running(state_dir)),
    }
    output::print("it was of another release\n")?;
    Ok(Exit::Success)
}

/// Ends it and waits until it has ended; returns how many it served.
fn end(state_dir: &Path, running: Reached) -> Result<u64, Failure> {
    let pid = running.session.broker().pid;
    let status = running.session.status().map_err(|error| cannot_stop(pid, &error))?;
    let clients: u64 = status.spaces.iter().map(|space| space.clients).sum();
    // Before it ends: a session that sees its broker go would try to come back.
    drop(running);
    end_process(state_dir, pid)?;
    Ok(clients)
}

fn end_process(state_dir: &Path, pid: u32) -> Result<(), Failure> {
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

fn cannot_stop(pid: u32, cause: &dyn Display) -> Failure {
    let hint = "`gate daemon status` tells how it is";
    Failure::new(format!("cannot stop the daemon, process {pid}"), cause, hint)
}

/// Returns whether systemd listens to it, and would not to one that somebody else starts.
fn is_of_systemd(pid: u32) -> bool {
    let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = variables.split(|byte| *byte == 0);
    let head = format!("{}=", notify::VARIABLE);
    variables.any(|variable| variable.starts_with(head.as_bytes()))
}

/// Returns what a daemon was told when it was started.
fn args_of(pid: u32) -> Option<Args> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = words.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words = words.map(|word| OsStr::from_bytes(word).to_owned());
    match Cli::try_parse_from(words).map(|cli| cli.command) {
        Ok(Command::Daemon(args)) => Some(args),
        _ => None,
    }
}

/// Checks that a port is free, or this process's own.
fn check_port(port: u16, pid: u32) -> Result<(), Failure> {
    match TcpListener::bind((HOST_DEFAULT, port)) {
        Err(error) if !is_at_port(pid, port) => {
            let cause = format!("cannot listen at {HOST_DEFAULT}:{port}: {error}");
            let hint = "choose another --api-port; the daemon goes on as it is";
            Err(Failure::new("cannot restart the daemon", cause, hint))
        }
        _ => Ok(()),
    }
}

/// Returns whether a process has a socket at that port.
fn is_at_port(pid: u32, port: u16) -> bool {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_there =
        |line: &Vec<&str>| line.get(1).is_some_and(|l| l.ends_with(&format!(":{port:04X}")));
    let inodes =
        lines.filter(is_there).filter_map(|line| line.get(9).map(|n| format!("socket:[{n}]")));
    let inodes: Vec<PathBuf> = inodes.map(PathBuf::from).collect();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|link| inodes.contains(&link))
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
