//! Views, each asked by a process of its own: a call into a view whose server hangs may be beyond
//! the reach of any signal, and then so is the process that made it.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gate_api::mounts::{self, Mount};
use gate_api::wire::AttachRefusal;
use gate_api::{ClientInfo, ConnectError, Watcher, process};
use gate_fuse::is_of_dead;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::failure::Failure;
use crate::processes::{self, Server};
use crate::reach::{BrokerFlags, Deaf, Unreached, Wanted, connect};
use crate::seen::{About, Unseen};
use crate::signals;
use crate::within::within;

/// How long all views together may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the broker of one may take.
const BROKER_PATIENCE: Duration = Duration::from_secs(3);

/// A mount point and what came of asking there.
#[derive(Debug)]
pub struct View {
    pub point: PathBuf,
    /// Whether it lies over its own source.
    pub is_in_place: bool,
    pub outcome: Outcome,
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// No gated view is mounted there.
    NotMounted,
    Answer(Answer),
    /// There was no answer in time; who serves it, if that can be told.
    Hangs(Option<Server>),
    /// It could not be asked.
    Unasked(String),
}

/// What a view answers, as one process tells the other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Serves(Served),
    /// Its server is gone.
    Dead,
    /// It is not for this user's eyes.
    Closed,
    /// It is of another release.
    Version(u32),
    /// Its server could not say.
    Failed(String),
}

/// A view that works.
#[derive(Debug, Serialize, Deserialize)]
pub struct Served {
    /// Its server, if that is of this pid namespace.
    pub pid: Option<u32>,
    /// Where its broker listens, for people.
    pub broker: String,
    /// Why its broker cannot be reached and what helps, if nobody listens there.
    pub broker_gone: Option<(String, String)>,
    /// Why its broker does not serve its source any more, or lets it not in, if that is so.
    pub refused: Option<AttachRefusal>,
    /// Whether the directory behind it was removed.
    pub source_removed: bool,
}

/// Asks one view, however long that takes.
pub fn ask(point: &Path) -> Answer {
    match About::of(point) {
        Ok(about) => Answer::Serves(Served {
            pid: Some(about.pid).filter(|_| about.pid_namespace == process::namespace()),
            broker: about.address().to_string(),
            broker_gone: broker_gone(&about),
            refused: about.refused,
            source_removed: is_removed(point),
        }),
        Err(Unseen::Version(theirs)) => Answer::Version(theirs),
        Err(Unseen::NotGated) => Answer::Closed,
        Err(Unseen::Io(error)) if is_of_dead(&error) => Answer::Dead,
        Err(Unseen::Io(error)) => Answer::Failed(error.to_string()),
    }
}

/// Returns whether a directory has no name any more, by the word of who serves it, not the kernel's.
fn is_removed(dir: &Path) -> bool {
    let found = statx(CWD, dir, AtFlags::STATX_FORCE_SYNC, StatxFlags::NLINK);
    found.is_ok_and(|found| found.stx_nlink == 0)
}

/// Asks all views of the mount table, or those at these mount points, at once.
pub fn ask_all(points: &[PathBuf]) -> Vec<View> {
    let table = mounts::all().unwrap_or_default();
    let is_gated = |point: &Path| is_gated(&table, point);
    let mut points: Vec<PathBuf> = match points {
        [] => table.iter().map(|mount| mount.point.clone()).filter(|at| is_gated(at)).collect(),
        points => points.iter().map(|point| written_as_in(&table, point)).collect(),
    };
    points.sort();
    points.dedup();
    let deadline = Instant::now() + PATIENCE;
    let asked: Vec<_> = points
        .into_iter()
        .map(|point| match is_gated(&point) {
            true => (Some(Asking::start(&point)), point),
            false => (None, point),
        })
        .collect();
    let hear = |(asking, point): (Option<io::Result<Asking>>, PathBuf)| {
        let outcome = match asking {
            None => Outcome::NotMounted,
            Some(Err(error)) => Outcome::Unasked(error.to_string()),
            Some(Ok(asking)) => asking.end(&point, deadline),
        };
        let uppermost = mounts::uppermost(&table, &point);
        let is_in_place = uppermost.is_some_and(|mount| mount.source == point);
        View { point, is_in_place, outcome }
    };
    asked.into_iter().map(hear).collect()
}

/// A process that asks a view.
struct Asking {
    child: Child,
    said: Receiver<Vec<u8>>,
}

impl Asking {
    fn start(point: &Path) -> io::Result<Asking> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["doctor", "--ask"]).arg(point);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = signals::unmasked(&mut command).spawn()?;
        let mut stdout = child.stdout.take().expect("its standard output is a pipe");
        let (tell, said) = channel();
        std::thread::spawn(move || {
            let mut answer = Vec::new();
            let _ = stdout.read_to_end(&mut answer);
            drop(tell.send(answer));
        });
        Ok(Asking { child, said })
    }

    fn end(mut self, point: &Path, deadline: Instant) -> Outcome {
        let patience = deadline.saturating_duration_since(Instant::now());
        let Ok(answer) = self.said.recv_timeout(patience) else {
            // It may be beyond reach, so nobody waits for its end.
            let _ = self.child.kill();
            return Outcome::Hangs(processes::server_of(point));
        };
        let _ = self.child.wait();
        match serde_json::from_slice(&answer) {
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => Outcome::Unasked(error.to_string()),
        }
    }
}

fn is_gated(table: &[Mount], point: &Path) -> bool {
    mounts::uppermost(table, point).is_some_and(|mount| mount.is_gated)
}

/// Returns a mount point as the mount table has it, without a look at what is mounted there.
fn written_as_in(table: &[Mount], point: &Path) -> PathBuf {
    let Ok(absolute) = std::path::absolute(point) else { return point.to_owned() };
    let above = absolute.parent().and_then(|parent| parent.canonicalize().ok());
    let written = match (above, absolute.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => absolute.clone(),
    };
    match is_gated(table, &written) {
        true => written,
        false => absolute.canonicalize().unwrap_or(written),
    }
}

/// Tells why a view's broker does not answer, unless it does or this user cannot know.
fn broker_gone(about: &About) -> Option<(String, String)> {
    let wanted = Wanted::find(&BrokerFlags::default(), &Settings::load().ok()?).ok()?;
    let approach = wanted.approach(about.address());
    let deaf: Arc<dyn Watcher> = Arc::new(Deaf);
    let asked = approach.clone();
    let answer = within(BROKER_PATIENCE, move || {
        connect(&asked, &ClientInfo::named("gate doctor"), &deaf).err()
    });
    // One that is there and silent takes longer to give up on than the view has to answer.
    let error = answer.unwrap_or(Some(ConnectError::Silent))?;
    let nobody = [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound];
    let is_gone = match &error {
        ConnectError::NobodyThere(_, why) => nobody.contains(&why.kind()),
        ConnectError::Silent => true,
        _ => false,
    };
    let text = error.to_string();
    let failure = Failure::from(Unreached { address: approach.address, error });
    let hint = failure.line("hint").unwrap_or_default().to_owned();
    is_gone.then_some((text, hint))
}
