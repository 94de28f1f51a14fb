//! `gate status`

mod lately;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gate_api::mounts::{self, Mount};
use gate_api::wire::{Halt, PrivateLine, PrivateView, Status};
use gate_api::{ClientInfo, QueryError, Watcher, event};
use gate_core::lock::limits::Limit;
use gate_view::written;
use serde::Serialize;

use super::doctor::facts::view::{self, Answer, Outcome, Served};
use crate::board;
use crate::bypass::{self, Bypasses, Shown};
use crate::config::Settings;
use crate::failure::{Exit, Failure};
use crate::output::{self, Table};
use crate::reach::{BrokerFlags, Deaf, Wanted};
use lately::Lately;

/// What is said of a view that works …
const FINE: &str = "ok";
/// … of one that this user may not look at …
const OTHERS: &str = "another user's";
/// … and of one whose server has died.
const DEAD: &str = "dead";

/// What prefixes commands that need root.
const SUDO_VARIABLE: &str = "GATE_SUDO_CMD";
const SUDO_DEFAULT: &str = "sudo";

/// Show the broker and the views
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Show every bound
    #[arg(long)]
    limits: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    broker: Option<Broker>,
    /// Why there is no broker, if that is not as it should be.
    trouble: Option<String>,
    mounts: Vec<View>,
    private: Vec<Private>,
    bypasses: Vec<Bypasses>,
    lately: Lately,
    limits: BTreeMap<String, u64>,
    sudo: String,
}

#[derive(Debug, Serialize)]
struct Broker {
    address: String,
    #[serde(with = "written")]
    state_dir: PathBuf,
    pid: u32,
    version: String,
    epoch: u64,
    started_at: String,
    in_grace: bool,
    /// Why it grants nothing now, if that is so.
    halt: Option<Halted>,
    sessions: u64,
    /// Whose connection is gone, and what they have is kept.
    away: u64,
    held: u64,
    waiting: u64,
    counts: BTreeMap<String, u64>,
    spaces: Vec<Space>,
}

#[derive(Debug, Serialize)]
struct Halted {
    kind: &'static str,
    since: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct Space {
    name: String,
    source: String,
    clients: u64,
    /// Where another broker for its source would not be met, and why.
    gap: Option<String>,
}

#[derive(Debug, Serialize)]
struct View {
    mountpoint: String,
    source: String,
    state: &'static str,
}

/// A view that only one agent sees.
#[derive(Debug, Serialize)]
struct Private {
    agent: String,
    mountpoint: String,
    #[serde(with = "written")]
    source: PathBuf,
    /// Who serves it.
    pid: u32,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let report = Report::make(&self.broker)?;
        match (self.json, self.limits) {
            (true, _) => output::print_json(&report)?,
            (false, true) => output::print(&report.limits())?,
            (false, false) => output::print(&report.text())?,
        }
        Ok(Exit::Success)
    }
}

impl Report {
    fn make(flags: &BrokerFlags) -> Result<Report, Failure> {
        let wanted = Wanted::find(flags, &Settings::load()?)?;
        let client = ClientInfo::named("gate status");
        let deaf: Arc<dyn Watcher> = Arc::new(Deaf);
        let mut limits = Limit::ALL.map(|(limit, most)| (limit.to_string(), most as u64)).to_vec();
        let mut private = Vec::new();
        let mut lately = Lately::default();
        let (broker, trouble) = match wanted.reach(&client, &deaf) {
            Ok(None) => (None, None),
            Err(unreached) => (None, Some(unreached.error.to_string())),
            Ok(Some(reached)) => match reached.session.status() {
                Ok(status) => {
                    // It has bounds of its own beside those of locks.
                    limits.clone_from(&status.limits);
                    private.extend(status.private.iter().map(Private::new));
                    lately = Lately::ask(&reached.session);
                    (Some(Broker::new(reached.address.to_string(), status)), None)
                }
                Err(error) => (None, Some(QueryError::to_string(&error))),
            },
        };
        let mounts = mounts::all()
            .map_err(|error| Failure::new("cannot list the mounts", error, "is /proc mounted?"))?;
        let mounts: Vec<Mount> = mounts.into_iter().filter(|mount| mount.is_gated).collect();
        let views = View::all(&mounts, broker.as_ref());
        let shown = views.iter().map(|(mount, _)| Shown::from(*mount));
        let bypasses = bypass::find(shown.chain(private.iter().map(Shown::from)));
        Ok(Report {
            version: 1,
            bypasses,
            lately,
            mounts: views.into_iter().map(|(_, view)| view).collect(),
            private,
            broker,
            trouble,
            limits: limits.into_iter().collect(),
            sudo: std::env::var(SUDO_VARIABLE).unwrap_or_else(|_| SUDO_DEFAULT.to_owned()),
        })
    }

    fn text(&self) -> String {
        let mut text = match (&self.broker, &self.trouble) {
            (Some(broker), _) => broker.text(),
            (None, Some(trouble)) => format!("broker   none: {trouble}\n"),
            (None, None) => "broker   none runs; `gate mount R M` starts one\n".to_owned(),
        };
        text.push_str(&self.lately.text());
        let mut table = Table::new(["VIEW", "SOURCE", "STATE"]);
        for view in &self.mounts {
            table.row([view.mountpoint.clone(), view.source.clone(), view.state.to_owned()]);
        }
        match table.is_empty() {
            true => text.push_str("views    none\n"),
            false => text.push_str(&table.text()),
        }
        if self.mounts.iter().any(|view| ![FINE, OTHERS].contains(&view.state)) {
            text.push_str("`gate doctor` says what to do\n");
        }
        let mut table = Table::new(["PRIVATE VIEW", "SOURCE", "AGENT", "SERVED BY"]);
        for Private { agent, mountpoint, source, pid } in &self.private {
            let source = source.display().to_string();
            table.row([mountpoint.clone(), source, agent.clone(), pid.to_string()]);
        }
        if !table.is_empty() {
            text.push_str(&table.text());
        }
        let mut table = Table::new(["SOURCE", "WAYS PAST ITS VIEWS"]);
        for Bypasses { source, ways } in &self.bypasses {
            ways.iter().for_each(|way| table.row([source.display().to_string(), way.text()]));
        }
        if !table.is_empty() {
            text.push_str(&table.text());
        }
        text
    }

    fn limits(&self) -> String {
        let mut table = Table::new(["LIMIT", "AT MOST"]);
        for (name, most) in &self.limits {
            table.row([name.clone(), most.to_string()]);
        }
        table.text()
    }
}

impl Broker {
    fn new(address: String, status: Status) -> Broker {
        use std::os::unix::ffi::OsStringExt as _;

        let space = |line: gate_api::wire::SpaceLine| Space {
            name: line.name,
            source: line.source,
            clients: line.clients,
            gap: line.gap,
        };
        Broker {
            address,
            state_dir: std::ffi::OsString::from_vec(status.broker.state_dir).into(),
            pid: status.broker.pid,
            version: status.broker.version,
            epoch: status.broker.epoch,
            started_at: board::utc(status.started_at_ms),
            in_grace: status.in_grace,
            halt: status.halt.map(Halted::new),
            sessions: status.sessions,
            away: status.away,
            held: status.held,
            waiting: status.waiting,
            counts: status.counts.into_iter().collect(),
            spaces: status.spaces.into_iter().map(space).collect(),
        }
    }

    /// Returns whether a view is one of its own, by the word of the view, or else by the source: a
    /// view may have come to it by another address, or say nothing.
    fn has(&self, view: &View, outcome: &Outcome) -> bool {
        let sources = self.spaces.iter().map(|space| Path::new(&space.source));
        let mut sources = sources.filter(|source| !source.as_os_str().is_empty());
        match outcome {
            // Of a dead one no broker knows any more.
            Outcome::Answer(Answer::Dead) => true,
            Outcome::Answer(Answer::Serves(served)) if served.broker == self.address => true,
            _ => sources.any(|at| Path::new(&view.source).starts_with(at)),
        }
    }

    fn text(&self) -> String {
        let Broker { address, version, pid, epoch, started_at, .. } = self;
        let mut text = format!("broker   {address}, gate {version}, process {pid}\n");
        let _ = writeln!(text, "state    {}", self.state_dir.display());
        let _ = writeln!(text, "since    {started_at}, epoch {epoch}");
        let Broker { sessions, held, waiting, .. } = self;
        let _ = writeln!(text, "locks    {held} held, {waiting} waiting; clients: {sessions}");
        if self.away > 0 {
            let _ = writeln!(text, "away     {} of them; what they have is kept", self.away);
        }
        if let Some(Halted { since, why, .. }) = &self.halt {
            let _ = writeln!(text, "journal  cannot be written since {since}: {why}");
            text.push_str(
                "         nothing is granted until it can; `gate doctor` says what to do\n",
            );
        }
        for Space { source, gap, .. } in &self.spaces {
            if let Some(gap) = gap {
                let _ = writeln!(text, "alone    maybe not, for {source}: {gap}");
            }
        }
        if self.in_grace {
            text.push_str("grace    former sessions may still come back\n");
        }
        text
    }
}

impl Halted {
    fn new(halt: Halt) -> Halted {
        let Halt { kind, since_ms, why } = halt;
        Halted { kind: event::standstill(kind), since: board::utc(since_ms), why }
    }
}

impl Private {
    fn new(line: &PrivateLine) -> Private {
        let PrivateLine { view: PrivateView { agent, mountpoint, source }, pid } = line;
        let mountpoint = String::from_utf8_lossy(mountpoint).into_owned();
        let source = PathBuf::from(OsStr::from_bytes(source));
        Private { agent: agent.clone(), mountpoint, source, pid: *pid }
    }
}

impl From<&Private> for Shown {
    fn from(view: &Private) -> Shown {
        let server = std::fs::metadata(format!("/proc/{}", view.pid));
        let user = server.ok().map(|server| server.uid());
        Shown { source: view.source.clone(), user }
    }
}

impl View {
    /// Returns the uppermost of each mount point, if a broker is named those of it, and how it is.
    fn all<'a>(mounts: &'a [Mount], broker: Option<&Broker>) -> Vec<(&'a Mount, View)> {
        let points: Vec<PathBuf> = mounts.iter().map(|mount| mount.point.clone()).collect();
        if points.is_empty() {
            return Vec::new();
        }
        let found = view::ask_all(&points).into_iter();
        let views = found.filter_map(|found| {
            let mount = mounts::uppermost(mounts, &found.point)?;
            let text = |path: &Path| path.display().to_string();
            let (mountpoint, source) = (text(&mount.point), text(&mount.source));
            let view = View { mountpoint, source, state: state_of(&found.outcome) };
            broker.is_none_or(|of| of.has(&view, &found.outcome)).then_some((mount, view))
        });
        views.collect()
    }
}

fn state_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answer(Answer::Serves(Served { source_removed: true, .. })) => "source removed",
        Outcome::Answer(Answer::Serves(Served { broker_gone: Some(_), .. })) => "broker away",
        Outcome::Answer(Answer::Serves(Served { refused: Some(_), .. })) => "refused",
        Outcome::Answer(Answer::Serves(_)) => FINE,
        Outcome::Answer(Answer::Dead) => DEAD,
        Outcome::Answer(Answer::Closed) => OTHERS,
        Outcome::Answer(Answer::Version(_)) => "another release",
        Outcome::Hangs(_) => "does not answer",
        Outcome::NotMounted | Outcome::Answer(Answer::Failed(_)) | Outcome::Unasked(_) => "unknown",
    }
}
