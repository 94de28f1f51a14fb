//! Starting a broker, and ending it in order.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use gate_api::Address;
use gate_api::address::{SOCKET_NAME, with_short_path};
use gate_api::wire::BrokerInfo;
use mio::Poll;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::actor::{self, Actor, WAKER};
use crate::audit::{Audit, AuditError, Bounds, UnknownFormat};
use crate::clock;
use crate::desk::{self, Desk, Terms};
use crate::door::Door;
use crate::http::{Http, Listen, ListenError};
use crate::journal::{Journal, JournalError};
use crate::kin;
use crate::mail::{Inbox, Mail};
use crate::metrics::{Census, Metrics};

/// The file in the state directory that its broker locks and writes its process id to.
const LOCK_NAME: &str = "broker.pid";

/// How a broker is to be run.
#[derive(Debug)]
pub struct Options {
    /// Where it keeps its journal and its socket.
    pub state_dir: PathBuf,
    /// Where it offers HTTP, if at all.
    pub listen: Option<Listen>,
    /// How long a connected client may be away.
    pub lease_session: Duration,
    /// How long a lock of the stateless interface lives without a heartbeat.
    pub lease_stateless: Duration,
    /// How long such a lock may be held in all.
    pub max_hold: Option<Duration>,
    /// How long a request waits that does not say.
    pub acquire_timeout: Option<Duration>,
    /// Bytes that the log of what happened may take, about.
    pub log_bytes_max: u64,
    /// How long the log remembers, about.
    pub log_age_max: Duration,
}

/// The broker, to be started.
pub struct Broker;

/// A broker that runs; it is ended in order when this is dropped.
pub struct Running {
    inbox: Inbox,
    socket: PathBuf,
    http: Option<Http>,
    figures: Arc<Metrics>,
    thread: Option<JoinHandle<io::Result<()>>>,
    /// Ends after the deciding thread, whose last words it writes.
    audit: Option<Audit>,
    /// Held as long as the state directory is ours.
    _lock: File,
}

/// Ends a broker in order, from any thread.
pub struct Stopper(Inbox);

/// Why a broker cannot start.
#[derive(Debug)]
pub enum StartError {
    /// Another broker runs there: use that, or stop it.
    InUse { state_dir: PathBuf, pid: Option<u32> },
    /// The state directory cannot be made or used: choose another, or mend its permissions.
    StateDir(PathBuf, io::Error),
    /// See the journal's error for what to do.
    Journal(JournalError),
    /// Another release wrote the log: use that, or set the file aside.
    Log(UnknownFormat),
    /// Choose another host or port.
    Listen(ListenError),
    /// The system has no room for its threads or descriptors.
    System(io::Error),
}

impl Options {
    /// Returns the defaults for a state directory: no HTTP.
    pub fn new(state_dir: PathBuf) -> Options {
        Options {
            state_dir,
            listen: None,
            lease_session: Duration::from_secs(10),
            lease_stateless: Duration::from_secs(3600),
            max_hold: Some(Duration::from_secs(3600)),
            acquire_timeout: None,
            log_bytes_max: 256 << 20,
            log_age_max: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

impl Broker {
    /// Starts a broker; it listens when this returns.
    pub fn start(mut options: Options) -> Result<Running, StartError> {
        let state_dir = prepare_state_dir(&options.state_dir)?;
        let lock = lock_state_dir(&state_dir)?;
        let boot = boot_id().map_err(StartError::System)?;
        let (journal, memory) =
            Journal::open(&state_dir, &boot, clock::now()).map_err(StartError::Journal)?;
        let poll = Poll::new().map_err(StartError::System)?;
        let (inbox, mail) = Inbox::new(poll.registry(), WAKER).map_err(StartError::System)?;
        let socket = state_dir.join(SOCKET_NAME);
        let listener = listen_privately(&socket)
            .map_err(|error| StartError::StateDir(options.state_dir.clone(), error))?;
        // Last: who finds the port open finds the socket, too.
        let http = options.listen.take();
        let http = http.map(|listen| Http::start(listen, inbox.clone(), Router::new()));
        let http = http.transpose().map_err(StartError::Listen)?;
        let (prober, cases) = channel();
        let probing = inbox.clone();
        spawn("gate-prober", move || kin::run(probing, &cases)).map_err(StartError::System)?;
        let info = BrokerInfo {
            epoch: memory.epoch.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            state_dir: std::os::unix::ffi::OsStrExt::as_bytes(state_dir.as_os_str()).to_vec(),
        };
        let bounds = Bounds { bytes_max: options.log_bytes_max, age_max: options.log_age_max };
        let metrics = Arc::new(Metrics::new());
        let (audit, pen) = Audit::start(&state_dir, memory.epoch, bounds, metrics.missing.clone())?;
        let terms = terms(&options);
        let (log, inbox_for_log) = (audit.reader(), inbox.clone());
        let figures = metrics.clone();
        let parts = desk::Parts { terms, info, pen, log, inbox: inbox_for_log, metrics };
        let desk = Desk::restore(memory, parts, clock::now());
        let actor = Actor::new(actor::Parts { poll, listener, mail, desk, journal, prober });
        let actor = actor.map_err(StartError::System)?;
        let thread = spawn("gate-broker", move || actor.run()).map_err(StartError::System)?;
        let (thread, audit) = (Some(thread), Some(audit));
        Ok(Running { inbox, socket, http, figures, thread, audit, _lock: lock })
    }
}

impl Running {
    /// Returns the way in for clients of this process (N11).
    pub fn door(&self) -> Door {
        Door::new(self.inbox.clone())
    }

    /// Returns where other processes of this machine reach it.
    pub fn address(&self) -> Address {
        Address::Unix(self.socket.clone())
    }

    /// Returns where it offers HTTP, if it does.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(Http::address)
    }

    /// Offers HTTP at one more place, until that is dropped: what the broker has, and `more`.
    pub fn offer(&self, listen: Listen, more: Router) -> Result<Http, ListenError> {
        Http::start(listen, self.inbox.clone(), more)
    }

    /// As [`Running::offer`], at a socket file in the state directory, to this user and root.
    pub fn offer_to_owner(&self, name: &str, more: Router) -> Result<Http, ListenError> {
        let socket = self.socket.with_file_name(name);
        Http::start_privately(&socket, self.inbox.clone(), more)
    }

    /// As [`Running::offer_to_owner`], at a socket that somebody else made for this user and root alone.
    pub fn offer_at(&self, listener: UnixListener, more: Router) -> Result<Http, ListenError> {
        Http::start_at(listener, self.inbox.clone(), more)
    }

    /// Tells among its figures how many there are of something else, by status, from now on.
    pub fn count(
        &self,
        name: &'static str,
        help: &'static str,
        counts: impl Fn() -> BTreeMap<&'static str, usize> + Send + Sync + 'static,
    ) {
        self.figures.include(Census { name, help, counts: Box::new(counts) });
    }

    /// Returns what ends it while somebody waits for its end.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.inbox.clone())
    }

    /// Ends it: what was decided is journaled, clients may come back to the next.
    pub fn stop(mut self) -> io::Result<()> {
        self.stopper().stop();
        self.join()
    }

    /// Waits until it ends; it does so by itself only if it cannot go on, and then says why.
    pub fn wait(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("the broker panicked")));
        drop(self.http.take());
        drop(self.audit.take());
        // Whoever finds no socket knows at once that nobody listens.
        let _ = std::fs::remove_file(&self.socket);
        ended
    }
}

impl Stopper {
    /// Asks it to end; one that has ended already does not mind.
    pub fn stop(&self) {
        self.0.send(Mail::Stop);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper().stop();
        if let Err(error) = self.join() {
            tracing::error!(%error, "the broker did not end in order");
        }
    }
}

fn terms(options: &Options) -> Terms {
    Terms {
        lease_session: options.lease_session,
        lease_stateless: options.lease_stateless,
        max_hold: options.max_hold,
        acquire_timeout: options.acquire_timeout,
    }
}

fn prepare_state_dir(state_dir: &Path) -> Result<PathBuf, StartError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
    made.and_then(|()| state_dir.canonicalize())
        .map_err(|error| StartError::StateDir(state_dir.to_owned(), error))
}

fn lock_state_dir(state_dir: &Path) -> Result<File, StartError> {
    let failed = |error: io::Error| StartError::StateDir(state_dir.to_owned(), error);
    let path = state_dir.join(LOCK_NAME);
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // Without it the person has one hint less.
            let _ = file.read_to_string(&mut pid);
            let state_dir = state_dir.to_owned();
            return Err(StartError::InUse { state_dir, pid: pid.trim().parse().ok() });
        }
        Err(error) => return Err(failed(error.into())),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

/// Listens on a socket file that only this user may use. The lock on the state directory says
/// that a file found there is a dead broker's.
pub(crate) fn listen_privately(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = with_short_path(socket, |path| UnixListener::bind(path))?;
    // Nobody is let in before this: who serves has not begun, and looks at the peer.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::InUse { state_dir, pid: Some(pid) } => {
                write!(f, "process {pid} is the broker of {}", state_dir.display())
            }
            StartError::InUse { state_dir, pid: None } => {
                write!(f, "another process is the broker of {}", state_dir.display())
            }
            StartError::StateDir(path, error) => {
                write!(f, "the state directory {} cannot be used: {error}", path.display())
            }
            StartError::Journal(error) => error.fmt(f),
            StartError::Log(unknown) => unknown.fmt(f),
            StartError::Listen(error) => error.fmt(f),
            StartError::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<AuditError> for StartError {
    fn from(error: AuditError) -> StartError {
        match error {
            AuditError::Format(unknown) => StartError::Log(unknown),
            AuditError::System(error) => StartError::System(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> (Running, tempfile::TempDir) {
        let state = tempfile::tempdir().unwrap();
        let options = Options::new(state.path().to_owned());
        (Broker::start(options).unwrap(), state)
    }

    #[test]
    fn who_waits_for_the_end_sees_an_orderly_one() {
        let (running, _state) = start();
        let stopper = running.stopper();
        let waiting = spawn("waiting", move || running.wait()).unwrap();
        stopper.stop();
        waiting.join().unwrap().unwrap();
        stopper.stop();
    }

    #[test]
    fn who_waits_for_the_end_sees_that_it_could_not_go_on() {
        let (mut running, _state) = start();
        let failing = spawn("failing", || Err(io::Error::other("no events"))).unwrap();
        let deciding = running.thread.replace(failing);
        assert_eq!(running.wait().unwrap_err().to_string(), "no events");
        drop(deciding);
    }
}
