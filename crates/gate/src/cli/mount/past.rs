//! Who gets past a view over its own source: those who were there before it, and those who see the
//! directory where the view does not lie.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::in_place::{Insistence, cannot};
use super::site::Site;
use crate::background;
use crate::failure::Failure;
use crate::mounts::{self, Mount};
use crate::processes::{self, Grip};

/// How many ways past the view are named.
const WAYS_NAMED_MAX: usize = 5;

/// Refuses to mount past who works in the directory already, unless that is insisted on; says who it
/// is then, and where else the directory is seen.
pub fn check(site: &Site, insistence: Insistence) -> Result<(), Failure> {
    let mut tables = Tables::default();
    let own = std::process::id();
    let Some(spot) = tables.of(own).and_then(|table| Spot::of(table, &site.source)) else {
        return Ok(());
    };
    let users = users_of(&spot, &mut tables);
    let (source, named) = (site.source.display(), processes::named(&users));
    match (users.is_empty(), insistence.force) {
        (true, _) => {}
        (false, true) => eprintln!("these take no turns until they have left {source}: {named}"),
        (false, false) => {
            let cause = format!("who works there already would take no turns: {named}");
            let hint = "let them end, or leave it and close their files; or mount all the same: \
                        --force";
            return Err(cannot(site, cause, hint));
        }
    }
    let ways = tables.ways_to(&spot, &site.source);
    if !ways.is_empty() {
        let ways = ways.join(", ");
        eprintln!("turns are taken at {source}, and not where else it is seen: {ways}");
    }
    Ok(())
}

fn users_of(spot: &Spot, tables: &mut Tables) -> Vec<processes::User> {
    // The command that waits for this one may have been called there.
    let waits = background::is_background().then(rustix::process::getppid).flatten();
    let waits = waits.map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    processes::users_where(|grip| {
        spot.has(grip, tables)
            && Some(grip.pid) != waits
            // Brokers and views of the same source have directories open, and take turns.
            && !processes::runs_own_program(grip.pid)
    })
}

/// A directory as its file system has it, by whatever mount it is seen.
#[derive(Debug)]
struct Spot {
    device: (u32, u32),
    path: PathBuf,
    /// The group of the mount by which it was named: a view over it is mounted in all of them.
    shared: Option<u64>,
}

impl Spot {
    fn of(table: &[Mount], path: &Path) -> Option<Spot> {
        let mount = mounts::innermost(table, path)?;
        let inner = path.strip_prefix(&mount.point).ok()?;
        Some(Spot { device: mount.device, path: mount.root.join(inner), shared: mount.shared })
    }

    /// Returns whether a process has something there, or beneath.
    fn has(&self, grip: &Grip, tables: &mut Tables) -> bool {
        let found = grip.path.is_absolute().then(|| tables.of(grip.pid)).flatten();
        let found = found.and_then(|table| Spot::of(table, &grip.path));
        found.is_some_and(|found| found.device == self.device && found.path.starts_with(&self.path))
    }

    /// Returns where a mount of a table shows some of the directory, without a view over it.
    fn shown_by(&self, mount: &Mount, table: &[Mount]) -> Option<PathBuf> {
        let is_told = mount.shared == self.shared || mount.master == self.shared;
        if mount.device != self.device || (is_told && self.shared.is_some()) {
            return None;
        }
        let shown = match self.path.strip_prefix(&mount.root) {
            Ok(inner) => mount.point.join(inner),
            // Or a part of it.
            Err(_) => mount.root.starts_with(&self.path).then(|| mount.point.clone())?,
        };
        // Something else may lie over it.
        mounts::innermost(table, &shown).is_some_and(|there| there.id == mount.id).then_some(shown)
    }
}

/// The tables of mounts, by mount namespace, each with a process that is in it.
#[derive(Default)]
struct Tables(BTreeMap<OsString, (u32, Vec<Mount>)>);

impl Tables {
    /// Returns the table of a process; where that is not told it is this process'.
    fn of(&mut self, pid: u32) -> Option<&[Mount]> {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let own = std::process::id();
        let (pid, namespace) =
            namespace(pid).map(|it| (pid, it)).or_else(|| Some((own, namespace(own)?)))?;
        let (_, table) = self.0.entry(namespace.into_os_string()).or_insert_with(|| {
            let table = fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            (pid, mounts::parse(&table))
        });
        Some(table)
    }

    /// Returns the words for where a directory is seen without a view over it.
    fn ways_to(&mut self, spot: &Spot, source: &Path) -> Vec<String> {
        // Threads of the kernel have no program, and open nothing.
        let has_program = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok();
        for pid in processes::all().filter(has_program) {
            let _ = self.of(pid);
        }
        let mut ways = Vec::new();
        for (pid, table) in self.0.values() {
            let shown = table.iter().filter_map(|mount| spot.shown_by(mount, table));
            match *pid == std::process::id() {
                true => ways.extend(
                    shown.filter(|path| path != source).map(|path| path.display().to_string()),
                ),
                false => ways.extend(shown.take(1).map(|path| {
                    let command = processes::command_of_pid(*pid).unwrap_or_default();
                    format!("{} of {command} (process {pid})", path.display())
                })),
            }
        }
        if ways.len() > WAYS_NAMED_MAX {
            let more = ways.len() - WAYS_NAMED_MAX;
            ways.truncate(WAYS_NAMED_MAX);
            ways.push(format!("{more} more"));
        }
        ways
    }
}
