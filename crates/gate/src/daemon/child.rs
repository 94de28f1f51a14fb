//! The view of a directory, served by a process of its own: started, looked at, ended.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gate_api::{mounts, process};
use gate_fuse::is_of_dead;
use rustix::event::{PollFd, PollFlags, poll};

use super::place;
use super::refusal::{Kind, Refusal};
use super::store::Record;
use super::views::Look;
use crate::background;
use crate::seen::{About, Unseen};
use crate::unmount;
use crate::within::within;

/// How long a view may take to say who serves it.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// How long the mount of a process that has ended may seem to be alive: its guardian sees to its end …
const END_PATIENCE: Duration = Duration::from_secs(10);
/// … and how often is looked.
const END_PAUSE: Duration = Duration::from_millis(5);

/// Mounts it, over its dead view if there is one, and waits until it is ready. A mount point that is
/// missing is made, as when the mount was added.
pub fn start(record: &Record, state_dir: &Path) -> Result<(), Refusal> {
    // Over the source itself nothing is made: that would be an empty source.
    let is_bare = matches!(mounts::at(&record.point), Ok(None)) && record.point != record.source;
    let made = match is_bare {
        true => place::point(&record.point, &record.source)?.1,
        false => None,
    };
    let outcome = serve(record, state_dir);
    if let (Err(_), Some(made)) = (&outcome, made) {
        made.undo();
    }
    outcome
}

fn serve(record: &Record, state_dir: &Path) -> Result<(), Refusal> {
    let words: [OsString; 8] = [
        "mount".into(),
        "--kept".into(),
        "--root".into(),
        record.source.clone().into(),
        "--mount".into(),
        record.point.clone().into(),
        "--state-dir".into(),
        state_dir.into(),
    ];
    let settings = record.settings;
    let flags = [(settings.read_only, "--read-only"), (settings.allow_other, "--allow-other")];
    let flags = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag.into());
    background::start(words.into_iter().chain(flags), Stdio::null())
        .map_err(|failure| Refusal::of(Kind::Failed, &failure))
}

/// Looks what is there.
pub fn look(record: &Record) -> Look {
    let (point, source) = (&record.point, &record.source);
    let mount = match mounts::at(point) {
        Ok(mount) => mount,
        Err(error) => return Look::Odd(format!("the table of mounts cannot be read: {error}")),
    };
    let Some(mount) = mount else { return Look::Nothing };
    if !mount.is_gated || mount.source != *source {
        // Over its own source lies what the source is.
        let is_source = record.point == record.source && !mount.is_gated;
        let other = format!("{} is mounted there", mount.source.display());
        return if is_source { Look::Nothing } else { Look::Odd(other) };
    }
    let asked = point.clone();
    match within(ANSWER_PATIENCE, move || About::of(&asked)) {
        Some(Ok(about)) if about.pid_namespace == process::namespace() => Look::Served(about.pid),
        Some(Ok(_)) => Look::Odd("its server is in another container".to_owned()),
        Some(Err(Unseen::Io(error))) if is_of_dead(&error) => Look::Dead,
        Some(Err(Unseen::Io(error))) => Look::Odd(format!("its view cannot be looked at: {error}")),
        Some(Err(Unseen::Version(version))) => {
            Look::Odd(format!("its view is of another release, format {version}"))
        }
        Some(Err(Unseen::NotGated)) => Look::Odd("its view does not say what it is".to_owned()),
        None => Look::Odd("its view does not answer".to_owned()),
    }
}

/// Waits until the process has ended, and looks what is there then.
pub fn await_end(record: &Record, pid: u32) -> Look {
    if let Some(server) = process::of_pid(pid).and_then(process::watch) {
        let mut ends = [PollFd::new(&server, PollFlags::IN)];
        while poll(&mut ends, None) == Err(rustix::io::Errno::INTR) {}
    }
    let deadline = Instant::now() + END_PATIENCE;
    loop {
        match look(record) {
            Look::Served(served) if served == pid && Instant::now() < deadline => {
                std::thread::park_timeout(END_PAUSE);
            }
            found => return found,
        }
    }
}

/// Unmounts it; the notice says what is to be said aloud.
pub fn end(record: &Record, lazy: bool) -> Result<Option<String>, Refusal> {
    let manner = if lazy { unmount::Manner::Lazy } else { unmount::Manner::InOrder };
    match unmount::end(&record.point, manner) {
        // Somebody else has just done that, and its server is about to end.
        Err(_) if mounts::at(&record.point).is_ok_and(|mount| mount.is_none()) => Ok(None),
        outcome => outcome.map_err(|failure| Refusal::of(Kind::Busy, &failure)),
    }
}
