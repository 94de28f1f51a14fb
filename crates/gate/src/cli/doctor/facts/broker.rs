//! The broker that this user's commands speak to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gate_api::wire::Halt;
use gate_api::{ClientInfo, Watcher};

use crate::config::Settings;
use crate::daemon::body::Mount;
use crate::failure::Failure;
use crate::reach::{BrokerFlags, Deaf, Wanted};
use crate::rest::Rest;

/// How it is.
#[derive(Debug)]
pub enum Broker {
    /// What is configured makes no sense.
    Misconfigured(Failure),
    /// None runs, and none was named.
    None,
    /// The one that should be there does not let us in.
    Unreached(Failure),
    /// It let us in and then said nothing.
    Silent {
        address: String,
        error: String,
    },
    Answers(Answer),
}

/// What it says of itself.
#[derive(Debug)]
pub struct Answer {
    pub address: String,
    pub version: String,
    pub pid: u32,
    pub in_grace: bool,
    /// Why it grants nothing now, if that is so.
    pub halt: Option<Halt>,
    pub started_at_ms: u64,
    /// Its sources for which another broker would not be met, each with the reason.
    pub gaps: Vec<(String, String)>,
    /// The mounts that it keeps, if it keeps any.
    pub kept: Option<Result<Vec<Mount>, Failure>>,
    /// What time this process takes it to be.
    pub now_ms: u64,
}

/// Where the broker that is meant keeps its state.
#[derive(Debug)]
pub enum StateDir {
    Here(PathBuf),
    /// It is not of this machine.
    Elsewhere,
    Unknown,
}

/// Asks it.
pub fn ask(flags: &BrokerFlags) -> (Broker, StateDir) {
    let settings = match Settings::load() {
        Ok(settings) => settings,
        Err(failure) => return (Broker::Misconfigured(failure), StateDir::Unknown),
    };
    let own = || flags.state_dir(&settings).map_or(StateDir::Unknown, StateDir::Here);
    let wanted = match Wanted::find(flags, &settings) {
        Ok(wanted) => wanted,
        Err(failure) => return (Broker::Misconfigured(failure), own()),
    };
    let deaf: Arc<dyn Watcher> = Arc::new(Deaf);
    let reached = match wanted.reach(&ClientInfo::named("gate doctor"), &deaf) {
        Ok(Some(reached)) => reached,
        Ok(None) => return (Broker::None, own()),
        Err(unreached) => return (Broker::Unreached(unreached.into()), own()),
    };
    let state_dir = reached.state_dir_here();
    let daemon = state_dir.as_deref().and_then(Rest::offered_in);
    let state_dir = state_dir.map_or(StateDir::Elsewhere, StateDir::Here);
    let address = reached.address.to_string();
    let broker = match reached.session.status() {
        Ok(status) => {
            let gaps =
                status.spaces.into_iter().filter_map(|space| Some((space.source, space.gap?)));
            Broker::Answers(Answer {
                address,
                version: status.broker.version,
                pid: status.broker.pid,
                in_grace: status.in_grace,
                halt: status.halt,
                started_at_ms: status.started_at_ms,
                gaps: gaps.collect(),
                kept: daemon.map(|daemon| daemon.mounts()),
                now_ms: now_ms(),
            })
        }
        Err(error) => Broker::Silent { address, error: error.to_string() },
    };
    (broker, state_dir)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
