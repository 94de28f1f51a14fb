//! Which broker a command speaks to.
//!
//! What is named wins: flags over variables over the config file, at each level host and port
//! over the state directory. Where nothing is named the order is: the system's daemon, the
//! user's daemon, what answers at the default port, a new daemon of this user.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf, absolute};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gate_api::address::{PORT_DEFAULT, STATE_DIR_SYSTEM, state_dir_user};
use gate_api::fallback::V1Broker;
use gate_api::{Address, Approach, ClientInfo, ConnectError, Quiet, Session, Watcher};
use gate_core::lock::event::Revocation;

use crate::background;
use crate::config::Settings;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::tokens;

/// The host where brokers listen unless told otherwise.
pub const HOST_DEFAULT: &str = "127.0.0.1";

/// How long a broker that another command has started may take to listen, or one that was killed to
/// end, …
const OTHERS_PATIENCE: Duration = Duration::from_secs(5);
/// … and how often it is looked for.
const OTHERS_PAUSE: Duration = Duration::from_millis(20);

/// The flags by which people name a broker.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct BrokerFlags {
    /// Host of the broker [env: GATE_BROKER_HOST]
    #[arg(long, value_name = "HOST", help_heading = "Broker")]
    pub broker_host: Option<String>,
    /// Port of the broker [env: GATE_BROKER_PORT]
    #[arg(long, value_name = "PORT", help_heading = "Broker")]
    pub broker_port: Option<u16>,
    /// State directory of the broker, where its socket is [env: GATE_STATE_DIR]
    #[arg(long, value_name = "DIR", help_heading = "Broker")]
    pub state_dir: Option<PathBuf>,
    /// File with the token for the broker at that host and port [env: GATE_TOKEN_FILE]
    #[arg(long, value_name = "FILE", help_heading = "Broker")]
    pub token_file: Option<PathBuf>,
}

/// Where to look for a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// At this host and port, and nowhere else; the token is for no other broker's eyes.
    Tcp { host: String, port: u16, token_file: Option<PathBuf> },
    /// In this state directory, and nowhere else.
    StateDir(PathBuf),
    /// Nobody said.
    Any,
}

/// A broker that answered.
pub struct Reached {
    /// The connection.
    pub session: Session,
    /// Where it was found.
    pub address: Address,
}

/// A broker that should be there and did not let us in.
#[derive(Debug)]
pub struct Unreached {
    /// Where it should be.
    pub address: Address,
    /// What is wrong.
    pub error: ConnectError,
}

/// What a daemon that has to be started is told.
#[derive(Clone, Debug, Default)]
pub struct DaemonFlags {
    /// Flags of `gate daemon run` with their values.
    pub options: Vec<(&'static str, OsString)>,
}

/// Connects to a broker; to an older one by the interface that it knows.
pub fn connect(
    approach: &Approach,
    client: &ClientInfo,
    watcher: &Arc<dyn Watcher>,
) -> Result<Session, ConnectError> {
    let no_frames = match Session::connect(approach.clone(), client.clone(), watcher.clone()) {
        Err(error @ ConnectError::NoBroker(_)) => error,
        outcome => return outcome,
    };
    let older = V1Broker::find(approach).ok_or(no_frames)?;
    Session::connect(older, client.clone(), watcher.clone())
}

/// Says nothing: for commands that only ask.
pub struct Deaf;

impl Watcher for Deaf {
    fn revoked(&self, _owner: u64, _why: Revocation, _reason: &str) -> Quiet {
        Quiet::Now
    }

    fn contended(&self, _owner: u64) {}
}

impl Wanted {
    /// Returns what flags, variables and the config file say.
    pub fn find(flags: &BrokerFlags, settings: &Settings) -> Result<Wanted, Failure> {
        let configured = BrokerFlags {
            broker_host: settings.broker_host.clone(),
            broker_port: settings.broker_port,
            state_dir: settings.state_dir.clone(),
            token_file: settings.token_file.clone(),
        };
        Ok(Wanted::of_levels(&[flags, &BrokerFlags::of_environment()?, &configured]))
    }

    /// The strongest level that names anything decides of what kind the broker is; a host and a
    /// port may then come from different levels.
    fn of_levels(levels: &[&BrokerFlags]) -> Wanted {
        let names_tcp = |l: &BrokerFlags| l.broker_host.is_some() || l.broker_port.is_some();
        for level in levels {
            if names_tcp(level) {
                let host = levels.iter().find_map(|level| level.broker_host.clone());
                let port = levels.iter().find_map(|level| level.broker_port);
                let host = host.unwrap_or_else(|| HOST_DEFAULT.to_owned());
                let token_file = levels.iter().find_map(|level| level.token_file.as_deref());
                // A view goes on in another directory.
                let token_file = token_file.map(|file| absolute(file).unwrap_or(file.to_owned()));
                return Wanted::Tcp { host, port: port.unwrap_or(PORT_DEFAULT), token_file };
            }
            if let Some(dir) = &level.state_dir {
                return Wanted::StateDir(dir.clone());
            }
        }
        Wanted::Any
    }

    fn candidates(&self) -> Vec<Address> {
        match self {
            Wanted::Tcp { host, port, .. } => {
                vec![Address::Tcp { host: host.clone(), port: *port }]
            }
            Wanted::StateDir(dir) => vec![Address::of_state_dir(dir)],
            Wanted::Any => {
                let mut found = vec![Address::of_state_dir(Path::new(STATE_DIR_SYSTEM))];
                found.extend(state_dir_user().map(|dir| Address::of_state_dir(&dir)));
                found.push(Address::Tcp { host: HOST_DEFAULT.to_owned(), port: PORT_DEFAULT });
                found
            }
        }
    }

    /// Returns the file with the token for the broker that was named.
    pub fn token_file(&self) -> Option<&Path> {
        match self {
            Wanted::Tcp { token_file, .. } => token_file.as_deref(),
            Wanted::StateDir(_) | Wanted::Any => None,
        }
    }

    /// Returns the way to an address. Only who is wanted by host and port is shown the token:
    /// a view, or whoever listens at a usual port, may be anybody's.
    pub fn approach(&self, address: Address) -> Approach {
        let token_file = match (self, &address) {
            (Wanted::Tcp { host, port, token_file }, Address::Tcp { host: at, port: on })
                if (host, port) == (at, on) =>
            {
                token_file.clone()
            }
            _ => None,
        };
        Approach { address, token_file }
    }

    /// Connects to the first broker that answers; `None` if none does and none was named.
    pub fn reach(
        &self,
        client: &ClientInfo,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Option<Reached>, Unreached> {
        for address in self.candidates() {
            match connect(&self.approach(address.clone()), client, watcher) {
                Ok(session) => return Ok(Some(Reached { session, address })),
                Err(error) if self.may_look_on(&address, &error) => {}
                Err(error) => return Err(Unreached { address, error }),
            }
        }
        Ok(None)
    }

    /// As [`Wanted::reach`], for who would start one otherwise: of a broker that was killed a last
    /// thread may live on for a moment, and its socket with it, where nobody answers any more.
    pub fn reach_alive(
        &self,
        client: &ClientInfo,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Option<Reached>, Unreached> {
        let deadline = Instant::now() + OTHERS_PATIENCE;
        loop {
            match self.reach(client, watcher) {
                Err(Unreached { error: ConnectError::Silent, .. }) if Instant::now() < deadline => {
                    pause();
                }
                outcome => return outcome,
            }
        }
    }

    /// As [`Wanted::reach`]; that none answers is a failure.
    pub fn reach_one(
        &self,
        client: &ClientInfo,
        watcher: &Arc<dyn Watcher>,
    ) -> Result<Reached, Failure> {
        self.reach(client, watcher)?.ok_or_else(|| {
            let hint = "mount something: `gate mount R M`, or start one: `gate daemon start`";
            Failure::new("no broker runs here", "none of the usual places answers", hint)
                .exit(Exit::Unable)
        })
    }

    /// As [`Wanted::reach`]; where none answers a daemon is started, unless a host and a port
    /// say that it should be there already.
    pub fn reach_or_start(
        &self,
        client: &ClientInfo,
        watcher: &Arc<dyn Watcher>,
        daemon: &DaemonFlags,
    ) -> Result<Reached, Failure> {
        if let Some(reached) = self.reach_alive(client, watcher)? {
            return Ok(reached);
        }
        let state_dir = match self {
            Wanted::StateDir(dir) => dir.clone(),
            // One that is named by host and port has answered or failed above.
            Wanted::Any | Wanted::Tcp { .. } => state_dir_own()?,
        };
        let started = start_daemon(&state_dir, daemon);
        // Another command may have been faster: then its daemon is as good, once it listens.
        let there = Wanted::StateDir(state_dir.clone());
        let deadline = Instant::now() + OTHERS_PATIENCE;
        let mut found = there.reach(client, watcher)?;
        while found.is_none() && started.is_err() && Instant::now() < deadline {
            pause();
            found = there.reach(client, watcher)?;
        }
        match found {
            Some(reached) => {
                let socket = &reached.address;
                if started.is_ok() {
                    output::say_line(format_args!(
                        "started a broker at {socket}; `gate daemon stop` ends it"
                    ));
                }
                Ok(reached)
            }
            None => Err(started.err().unwrap_or_else(|| {
                Failure::new(
                    format!("cannot start a broker in {}", state_dir.display()),
                    "it started and went away again",
                    format!("look into {}", background::log_file(&state_dir, "daemon").display()),
                )
            })),
        }
    }

    /// Where something else answers, or nobody, somebody else may still be the broker.
    fn may_look_on(&self, address: &Address, error: &ConnectError) -> bool {
        match (self, address, error) {
            (Wanted::Tcp { .. }, _, _) => false,
            // A closed directory may have a broker in it; of those that nobody named it is
            // another user's.
            (Wanted::StateDir(_), _, ConnectError::NobodyThere(_, why)) => {
                why.kind() != io::ErrorKind::PermissionDenied
            }
            (_, _, ConnectError::NobodyThere(..)) => true,
            (Wanted::Any, Address::Tcp { .. }, ConnectError::NoBroker(_)) => true,
            _ => false,
        }
    }
}

impl Reached {
    /// Returns where the broker keeps its state, if that is on this machine and it says so.
    pub fn state_dir_here(&self) -> Option<PathBuf> {
        let is_here = match &self.address {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => {
                host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
        };
        let state_dir = PathBuf::from(OsString::from_vec(self.session.broker().state_dir));
        (is_here && state_dir.is_absolute()).then_some(state_dir)
    }
}

impl BrokerFlags {
    /// Returns the state directory that was named, or this user's own.
    pub fn state_dir(&self, settings: &Settings) -> Result<PathBuf, Failure> {
        let named =
            self.state_dir.clone().or_else(|| variable("GATE_STATE_DIR").map(PathBuf::from));
        named.or_else(|| settings.state_dir.clone()).map_or_else(state_dir_own, Ok)
    }

    fn of_environment() -> Result<BrokerFlags, Failure> {
        let port = match variable("GATE_BROKER_PORT") {
            Some(text) => {
                Some(text.to_str().and_then(|port| port.parse().ok()).ok_or_else(|| {
                    let cause = format!("GATE_BROKER_PORT is `{}`", text.display());
                    Failure::new("that is no port", cause, "set it to a number up to 65535")
                        .exit(Exit::Unable)
                })?)
            }
            None => None,
        };
        Ok(BrokerFlags {
            broker_host: variable("GATE_BROKER_HOST").and_then(|host| host.into_string().ok()),
            broker_port: port,
            state_dir: variable("GATE_STATE_DIR").map(PathBuf::from),
            token_file: variable("GATE_TOKEN_FILE").map(PathBuf::from),
        })
    }
}

/// Returns where a daemon of this user keeps its state: root's is the system's.
pub fn state_dir_own() -> Result<PathBuf, Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from(STATE_DIR_SYSTEM));
    }
    state_dir_user().ok_or_else(|| {
        let cause = "neither XDG_STATE_HOME nor HOME is set";
        Failure::new("cannot tell where to keep the state", cause, "give --state-dir")
            .exit(Exit::Unable)
    })
}

/// Starts a daemon in the background and waits until it listens.
pub fn start_daemon(state_dir: &Path, flags: &DaemonFlags) -> Result<(), Failure> {
    let mut words: Vec<OsString> = ["daemon", "run", "--state-dir"].map(OsString::from).into();
    words.push(state_dir.into());
    for (flag, value) in &flags.options {
        words.extend([flag.into(), value.clone()]);
    }
    background::start(words, Stdio::null())
}

impl From<Unreached> for Failure {
    fn from(Unreached { address, error }: Unreached) -> Failure {
        let hint = match (&error, &address) {
            (ConnectError::Version(_), Address::Tcp { .. }) => {
                "use the same release of gate on both sides".to_owned()
            }
            (ConnectError::Version(_), Address::Unix(_)) => {
                "use the gate of its release; or end it, whatever its release, by `gate daemon stop`"
                    .to_owned()
            }
            (ConnectError::Unauthorized(_), _) => {
                "give a file with a token that it knows: --token-file, or GATE_TOKEN_FILE"
                    .to_owned()
            }
            (ConnectError::Token(error), _) => tokens::hint(error),
            (ConnectError::NoSuchHost(..), _) => {
                "give a host whose name resolves, or its address: --broker-host, or GATE_BROKER_HOST"
                    .to_owned()
            }
            (ConnectError::NoBroker(_), _) => "name the host and port of a gate broker".to_owned(),
            (ConnectError::Silent, _) => {
                "it may be stopped, or its disk be full: `gate doctor` looks".to_owned()
            }
            (ConnectError::NobodyThere(_, why), Address::Unix(_))
                if why.kind() == io::ErrorKind::PermissionDenied =>
            {
                "ask as the user whose broker it is, or as root".to_owned()
            }
            (_, Address::Tcp { host, port }) => {
                format!("start one: `gate broker --host {host} --port {port}`")
            }
            (_, Address::Unix(_)) => "start one: `gate daemon start`".to_owned(),
        };
        let what = format!("cannot reach the broker at {address}");
        Failure::new(what, error, hint).exit(Exit::Unable)
    }
}

fn pause() {
    #[expect(clippy::disallowed_methods, reason = "nothing tells of another's listen(2) or end")]
    std::thread::sleep(OTHERS_PAUSE);
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(host: Option<&str>, port: Option<u16>, dir: Option<&str>) -> BrokerFlags {
        BrokerFlags {
            broker_host: host.map(str::to_owned),
            broker_port: port,
            state_dir: dir.map(PathBuf::from),
            token_file: None,
        }
    }

    #[track_caller]
    fn check(levels: &[BrokerFlags], expected: Wanted) {
        assert_eq!(Wanted::of_levels(&levels.iter().collect::<Vec<_>>()), expected);
    }

    #[test]
    fn the_strongest_level_decides() {
        let tcp = |host: &str, port| Wanted::Tcp { host: host.to_owned(), port, token_file: None };
        let none = level(None, None, None);
        check(&[none.clone(), none.clone()], Wanted::Any);
        check(&[level(None, Some(1), Some("/s"))], tcp("127.0.0.1", 1));
        check(&[level(Some("h"), None, None)], tcp("h", 8787));
        check(&[level(None, Some(1), None), level(Some("h"), Some(2), None)], tcp("h", 1));
        let environment = level(Some("h"), Some(2), None);
        check(&[level(None, None, Some("/s")), environment], Wanted::StateDir("/s".into()));
    }

    #[test]
    fn a_token_is_shown_to_the_broker_that_was_named_and_to_no_other() {
        let named = BrokerFlags { token_file: Some("/t".into()), ..level(Some("h"), None, None) };
        let shown_to = |wanted: &Wanted, host: &str| {
            let address = Address::Tcp { host: host.to_owned(), port: 8787 };
            wanted.approach(address).token_file
        };
        let wanted = Wanted::of_levels(&[&named]);
        assert_eq!(shown_to(&wanted, "h"), Some("/t".into()));
        assert_eq!(shown_to(&wanted, "other"), None);
        assert_eq!(shown_to(&Wanted::Any, HOST_DEFAULT), None);
    }
}
