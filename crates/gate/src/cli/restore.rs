//! `gate restore`

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use gate_view::directory::copy_attributes;
use gate_view::kept::{Facts, Outcome, Record, Store, Take, Version};
use rustix::fs::{Mode, Timespec, Timestamps};
use rustix::process::{Gid, Uid};
use serde::Serialize;

use crate::board;
use crate::failure::{Exit, Failure};
use crate::output::{self, Table};
use crate::overwritten::{Kept, Seat, outcome};
use crate::processes::AGENT_VARIABLE;

/// The version of the JSON form.
const JSON_VERSION: u32 = 1;

/// Bring back what an agent overwrote without having seen it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file, in a view; behind one or a directory to --list
    path: PathBuf,
    /// Show what was overwritten here and what can be brought back
    #[arg(long, conflicts_with_all = ["version", "to"])]
    list: bool,
    /// Bring back this version [default: the newest]
    #[arg(long, value_name = "ID")]
    version: Option<u64>,
    /// Write it to another file, or with - to standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Replace the FILE if there is something in it, which is not kept
    #[arg(long, requires = "to")]
    force: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// All that was overwritten at a path, for programs.
#[derive(Serialize)]
struct List {
    version: u32,
    versions: Vec<Row>,
}

/// What was overwritten.
#[derive(Serialize)]
pub struct Row {
    id: u64,
    at: String,
    path: String,
    agent: String,
    op: String,
    size: u64,
    is_kept: bool,
    outcome: String,
}

/// What was done, for programs.
#[derive(Serialize)]
struct Done {
    version: u32,
    path: String,
    restored: u64,
    /// What was there until now.
    replaced: Option<u64>,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let kept = Kept::find(&self.path)?;
        let versions = kept.versions()?;
        if self.list {
            return self.show(&versions).map(|()| Exit::Success);
        }
        let version = self.choose(&versions, &kept)?;
        let content = Store::open(&kept.place.dir, version)
            .map_err(|error| self.cannot(error, "`--list` shows the others"))?;
        match &self.to {
            Some(to) if to == Path::new("-") => write_out(content)?,
            Some(to) => self.write_to(to, content, &version.record.file)?,
            None => {
                let replaced = self.put_back(&kept, version, content)?;
                self.tell(version, replaced)?;
            }
        }
        Ok(Exit::Success)
    }

    /// Bytes that were not kept cannot come back, nor can those of another file of the directory.
    fn choose<'a>(&self, versions: &'a [Version], kept: &Kept) -> Result<&'a Version, Failure> {
        let is_wanted = |version: &&Version| {
            version.record.outcome == Outcome::Kept
                && kept.is_of(version)
                && self.version.is_none_or(|id| id == version.id)
        };
        versions.iter().rfind(is_wanted).ok_or_else(|| {
            let hint = format!("`gate restore {} --list` shows what there is", self.path.display());
            self.cannot("no such version was kept", hint)
        })
    }

    fn show(&self, versions: &[Version]) -> Result<(), Failure> {
        let rows: Vec<Row> = versions.iter().map(Row::of).collect();
        if self.json {
            return output::print_json(&List { version: JSON_VERSION, versions: rows });
        }
        let mut table = Table::new(["ID", "AT", "SIZE", "AGENT", "OP", "PATH", "OUTCOME"]);
        for row in rows {
            let (id, size) = (row.id.to_string(), row.size.to_string());
            table.row([id, row.at, size, row.agent, row.op, row.path, row.outcome]);
        }
        match table.is_empty() {
            true => output::print("nothing was overwritten unseen\n"),
            false => output::print(&table.text()),
        }
    }

    /// All by one open file, so in one turn: what is there is kept, then replaced.
    fn put_back(&self, kept: &Kept, version: &Version, from: File) -> Result<Option<u64>, Failure> {
        match kept.seat {
            Seat::OwnView => {}
            Seat::OthersView => {
                let hint = "do it as the user who mounted it, or write it elsewhere: --to FILE";
                return Err(self.cannot("the view is another user's", hint));
            }
            Seat::Behind => {
                let hint = "give the path in a view, or write it elsewhere: --to FILE";
                return Err(self.cannot("it would be put back without taking a turn", hint));
            }
        }
        let failed = |error: io::Error| self.cannot(error, "or write it elsewhere: --to FILE");
        if kept.absolute.is_dir() {
            return Err(failed(ErrorKind::IsADirectory.into()));
        }
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let facts = &version.record.file;
        let file = options.mode(facts.mode).open(&kept.absolute).map_err(failed)?;
        let file = OwnedFd::from(file);
        let replaced = self.keep_present(kept, version, &file)?;
        let mut file = File::from(file);
        replace(&mut file, from, facts).map_err(failed)?;
        Ok(replaced)
    }

    fn keep_present(
        &self,
        kept: &Kept,
        version: &Version,
        file: &OwnedFd,
    ) -> Result<Option<u64>, Failure> {
        let failed = |error| self.cannot(error, "or write it elsewhere: --to FILE");
        let facts = Facts::of(file).map_err(failed)?;
        if facts.size == 0 {
            return Ok(None);
        }
        if facts.size > kept.place.limits.file_bytes_max {
            let cause = "what is there now is too large to be kept";
            return Err(self.cannot(cause, "move it away first, or give --to FILE"));
        }
        let agent = std::env::var(AGENT_VARIABLE).unwrap_or_else(|_| "gate".to_owned());
        let record = Record::new(version.record.path.clone(), (&agent, "restore"), facts);
        let mut store = Store::open_or_make_later(kept.place.clone());
        let added = store.keep(file, Take::AsOpen, &record).map_err(failed)?;
        Ok(Some(added.id))
    }

    fn write_to(&self, to: &Path, mut from: File, facts: &Facts) -> Result<(), Failure> {
        let failed = |error: io::Error| self.cannot(error, format!("check {}", to.display()));
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(to).map_err(failed)?;
        let present = file.metadata().map_err(failed)?;
        if !present.is_file() {
            // A device or a pipe stays what it is.
            return io::copy(&mut from, &mut file).map(drop).map_err(failed);
        }
        if present.len() > 0 && !self.force {
            let cause = format!("there is something in {}, which would be lost", to.display());
            return Err(self.cannot(cause, "choose another name, or replace it: --force"));
        }
        fill(&mut file, from, facts).map_err(failed)
    }

    fn tell(&self, version: &Version, replaced: Option<u64>) -> Result<(), Failure> {
        let path = self.path.display().to_string();
        if self.json {
            return output::print_json(&Done {
                version: JSON_VERSION,
                path,
                restored: version.id,
                replaced,
            });
        }
        let mut text = format!("{path} is as in version {} again\n", version.id);
        if let Some(id) = replaced {
            text.push_str(&format!("what it was until now is version {id}\n"));
        }
        output::print(&text)
    }

    fn cannot(&self, cause: impl std::fmt::Display, hint: impl std::fmt::Display) -> Failure {
        Failure::new(format!("cannot restore {}", self.path.display()), cause, hint)
    }
}

impl Row {
    pub fn of(version: &Version) -> Row {
        let record = &version.record;
        Row {
            id: version.id,
            at: board::utc(record.at_ms),
            path: record.path.display().to_string(),
            agent: record.agent.clone(),
            op: record.op.clone(),
            size: record.file.size,
            is_kept: record.outcome == Outcome::Kept,
            outcome: outcome(&record.outcome, version.id),
        }
    }
}

/// The modification time becomes now: who builds by it must see that there is something new.
fn replace(file: &mut File, mut from: File, facts: &Facts) -> io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    io::copy(&mut from, file)?;
    resemble(file, &from, facts)?;
    file.sync_all()
}

fn fill(file: &mut File, mut from: File, facts: &Facts) -> io::Result<()> {
    file.set_len(0)?;
    io::copy(&mut from, file)?;
    resemble(file, &from, facts)?;
    let modified = Timespec { tv_sec: facts.modified_s, tv_nsec: facts.modified_ns.into() };
    let times = Timestamps { last_access: modified, last_modification: modified };
    Ok(rustix::fs::futimens(&*file, &times)?)
}

fn write_out(mut from: File) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = io::copy(&mut from, &mut stdout).and_then(|_| stdout.flush());
    written.map_err(|error| output::cannot_write(&error))
}

/// Gives a file back its owner, permissions and extended attributes, as far as this user may.
fn resemble(file: &File, like: &File, facts: &Facts) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(facts.uid), Gid::from_raw(facts.gid));
    let owned = rustix::fs::fchown(file, Some(uid), Some(gid));
    // Somebody else's suid bit is not for this user to give.
    let mode = if owned.is_ok() { facts.mode } else { facts.mode & 0o777 };
    let _ = rustix::fs::fchmod(file, Mode::from_raw_mode(mode));
    copy_attributes(like, file)
}
