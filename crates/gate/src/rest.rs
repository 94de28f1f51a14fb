//! The daemon's REST interface, as commands speak to it: at its socket, one request a connection.

use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gate_api::address::with_short_path;
use gate_api::http::{Incoming, Request};
use gate_api::{ClientInfo, Watcher};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Settings;
use crate::daemon::SOCKET_NAME;
use crate::daemon::body::bucket::Line;
use crate::daemon::body::{All, Mount, Refused};
use crate::failure::{Exit, Failure};
use crate::reach::{BrokerFlags, DaemonFlags, Deaf, Reached, Wanted};

/// How long an answer may take: a view that is mounted may have to wait for its source's disk.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where mounts are kept, …
pub const MOUNTS: &str = "/api/v0/mounts";
/// … buckets, …
pub const BUCKETS: &str = "/api/v0/buckets";
/// … and the device that they are sealed for.
pub const DEVICE: &str = "/api/v0/device";

/// An answer whose body is yet to be read.
type Answer = Incoming<BufReader<UnixStream>>;

/// The way to a daemon.
#[derive(Debug)]
pub struct Rest {
    socket: PathBuf,
}

impl Rest {
    /// Finds the daemon that commands mean, and starts one where none runs.
    pub fn find_or_start(flags: &BrokerFlags, name: &str) -> Result<Rest, Failure> {
        let (client, deaf) = (ClientInfo::named(name), Arc::new(Deaf) as Arc<dyn Watcher>);
        let wanted = Wanted::find(flags, &Settings::load()?)?;
        Rest::of(&wanted.reach_or_start(&client, &deaf, &DaemonFlags::default())?)
    }

    /// Finds the daemon that commands mean.
    pub fn find(flags: &BrokerFlags, name: &str) -> Result<Rest, Failure> {
        let (client, deaf) = (ClientInfo::named(name), Arc::new(Deaf) as Arc<dyn Watcher>);
        let wanted = Wanted::find(flags, &Settings::load()?)?;
        Rest::of(&wanted.reach_one(&client, &deaf)?)
    }

    fn of(reached: &Reached) -> Result<Rest, Failure> {
        let none = |cause: &str| {
            let what = format!("the broker at {} keeps no mounts", reached.address);
            let hint = "name a daemon: --state-dir, or start one: `gate daemon start`";
            Failure::new(what, cause, hint).exit(Exit::Unable)
        };
        let state_dir = reached.state_dir_here().ok_or_else(|| none("it is on another machine"))?;
        Rest::offered_in(&state_dir)
            .ok_or_else(|| none("it is a broker alone, as `gate broker` starts it"))
    }

    /// Returns the daemon with this state directory, if it is one that keeps mounts.
    pub fn offered_in(state_dir: &Path) -> Option<Rest> {
        let rest = Rest { socket: state_dir.join(SOCKET_NAME) };
        rest.socket.exists().then_some(rest)
    }

    /// Returns all mounts that it keeps.
    pub fn mounts(&self) -> Result<Vec<Mount>, Failure> {
        self.ask::<All>("GET", MOUNTS).map(|all| all.mounts)
    }

    /// Asks without a body.
    pub fn ask<T: DeserializeOwned>(&self, method: &str, target: &str) -> Result<T, Failure> {
        self.exchange(&Request::bare(method, target))
    }

    /// Asks with a body.
    pub fn tell<T: DeserializeOwned>(
        &self,
        method: &str,
        target: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let request = Request::json(method, target, body);
        self.exchange(&request.map_err(|error| self.silent(&error))?)
    }

    /// Asks with a body for what takes its time; tells how far it is.
    pub fn follow<P: DeserializeOwned, T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
        mut progress: impl FnMut(P),
    ) -> Result<T, Failure> {
        let request = Request::json("POST", target, body);
        let answer = self.open(&request.map_err(|error| self.silent(&error))?, None)?;
        // Nobody knows how long it takes to the next word.
        let endless = answer.get_ref().get_ref().set_read_timeout(None);
        endless.map_err(|error| self.silent(&error))?;
        for line in BufReader::new(answer).lines() {
            let line = line.map_err(|error| self.silent(&error))?;
            match serde_json::from_str(&line).map_err(not_understood)? {
                Line::Progress(how_far) => progress(how_far),
                Line::Done(done) => return Ok(done),
                Line::Refused(refused) => return Err(refusal(&refused)),
            }
        }
        Err(self.silent(&io::ErrorKind::UnexpectedEof.into()))
    }

    /// Asks for what is read as it comes.
    pub fn fetch(&self, target: &str) -> Result<impl Read + use<>, Failure> {
        self.open(&Request::bare("GET", target), None)
    }

    /// Sends what is read meanwhile.
    pub fn upload<T: DeserializeOwned>(
        &self,
        target: &str,
        from: &mut dyn Read,
    ) -> Result<T, Failure> {
        let answer = self.open(&Request::bare("POST", target), Some(from))?;
        let reply = answer.whole().map_err(|error| self.silent(&error))?;
        serde_json::from_slice(&reply.body).map_err(not_understood)
    }

    fn exchange<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        let reply = self.open(request, None)?.whole().map_err(|error| self.silent(&error))?;
        serde_json::from_slice(&reply.body).map_err(not_understood)
    }

    /// Asks, with a body that is yet to be read if there is one; returns an answer that is no refusal.
    fn open(&self, request: &Request, body: Option<&mut dyn Read>) -> Result<Answer, Failure> {
        let call = || {
            let stream = with_short_path(&self.socket, |path| UnixStream::connect(path))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            match body {
                None => request.open(stream),
                Some(body) => request.upload(stream, body),
            }
        };
        let answer = call().map_err(|error| self.silent(&error))?;
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let reply = answer.whole().map_err(|error| self.silent(&error))?;
        Err(match serde_json::from_slice::<Refused>(&reply.body) {
            Ok(refused) => refusal(&refused),
            Err(_) => {
                let cause = format!("it answers with status {}", reply.status);
                Failure::new("the daemon refuses it", cause, "look into its log")
            }
        })
    }

    fn silent(&self, error: &io::Error) -> Failure {
        let what = format!("cannot speak to the daemon at {}", self.socket.display());
        Failure::new(what, error, "`gate daemon status` tells how it is").exit(Exit::Unable)
    }
}

fn refusal(refused: &Refused) -> Failure {
    let exit = if refused.code == "invalid" { Exit::Unable } else { Exit::Failed };
    let (what, cause) = match refused.message.split_once(": ") {
        Some((what, cause)) => (what, cause),
        None => ("the daemon refuses it", &*refused.message),
    };
    Failure::new(what, cause, &refused.hint).exit(exit)
}

fn not_understood(error: serde_json::Error) -> Failure {
    let hint = "use the same release of gate for the daemon and its commands";
    Failure::new("cannot understand the daemon", error, hint)
}
