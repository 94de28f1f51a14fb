//! `gate status`

mod lately;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gate_api::mounts::{self, Mount};
use gate_api::wire::{PrivateLine, PrivateView};
use gate_api::{ClientInfo, QueryError, Watcher};
use gate_core::lock::limits::Limit;
use gate_view::written;
use serde::Serialize;

use super::doctor::facts::view::{self, Answer, Outcome, Served};
use crate::bypass::{self, Bypasses, Shown};
use crate::config::Settings;
use crate::daemon::body;
use crate::failure::{Exit, Failure};
use crate::output::{self, Table};
use crate::reach::{BrokerFlags, Deaf, Wanted};
use crate::rest::Rest;
use crate::standing::Standing;
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
    broker: Option<Standing>,
    /// Why there is no broker, if that is not as it should be.
    trouble: Option<String>,
    mounts: Vec<View>,
    /// Those that it keeps, as `gate mount list --json` shows them.
    kept: Vec<body::Mount>,
    private: Vec<Private>,
    bypasses: Vec<Bypasses>,
    lately: Lately,
    limits: BTreeMap<String, u64>,
    sudo: String,
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
        let mut kept = Vec::new();
        let (broker, trouble) = match wanted.reach(&client, &deaf) {
            Ok(None) => (None, None),
            Err(unreached) => (None, Some(unreached.error.to_string())),
            Ok(Some(reached)) => match reached.session.status() {
                Ok(status) => {
                    // It has bounds of its own beside those of locks.
                    limits.clone_from(&status.limits);
                    private.extend(status.private.iter().map(Private::new));
                    lately = Lately::ask(&reached.session);
                    let daemon = reached.state_dir_here().and_then(|dir| Rest::offered_in(&dir));
                    kept = daemon.map(|daemon| daemon.mounts()).transpose()?.unwrap_or_default();
                    (Some(Standing::new(reached.address.to_string(), status)), None)
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
            kept,
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
        let mut table = Table::new(["KEPT MOUNT", "SOURCE", "NOT THERE, BECAUSE"]);
        for mount in &self.kept {
            if let Some(why) = mount.trouble() {
                let [point, source] =
                    [&mount.mount_point, &mount.source].map(|path| path.display().to_string());
                table.row([point, source, why.to_owned()]);
            }
        }
        if !table.is_empty() {
            text.push_str(&table.text());
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

/// Returns whether a view is one of its own, by the word of the view, or else by the source: a
/// view may have come to it by another address, or say nothing.
fn has(broker: &Standing, view: &View, outcome: &Outcome) -> bool {
    let sources = broker.spaces.iter().map(|space| Path::new(&space.source));
    let mut sources = sources.filter(|source| !source.as_os_str().is_empty());
    match outcome {
        // Of a dead one no broker knows any more.
        Outcome::Answer(Answer::Dead) => true,
        Outcome::Answer(Answer::Serves(served)) if served.broker == broker.address => true,
        _ => sources.any(|at| Path::new(&view.source).starts_with(at)),
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
    fn all<'a>(mounts: &'a [Mount], broker: Option<&Standing>) -> Vec<(&'a Mount, View)> {
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
            broker.is_none_or(|of| has(of, &view, &found.outcome)).then_some((mount, view))
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
