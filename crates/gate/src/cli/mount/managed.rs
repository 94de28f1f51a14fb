//! `gate mount list`, `add`, `remove`, `start`, `stop`, `set`: the mounts that a daemon keeps.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::ask;
use crate::daemon::body::bucket::{AllBuckets, Bucket};
use crate::daemon::body::{self, Deleted, Mount, One, Started, Stop, Stopped, Wanted, WrittenPath};
use crate::failure::{Exit, Failure};
use crate::output::{self, Table};
use crate::reach::BrokerFlags;
use crate::rest::{BUCKETS, MOUNTS, Rest};

/// The version of the JSON form.
const JSON_VERSION: u32 = 1;
/// What these commands call themselves at the broker.
const COMMAND: &str = "gate mount";
/// Fewer characters name no mount: they are a slip.
const ID_CHARS_MIN: usize = 4;

#[derive(Debug, clap::Subcommand)]
pub enum Managed {
    /// Show the mounts that the daemon keeps
    List(List),
    /// Have the daemon keep a mount
    Add(Add),
    /// Have the daemon forget a mount, which is unmounted
    Remove(Remove),
    /// Mount one of them
    Start(Start),
    /// Unmount one of them
    Stop(StopArgs),
    /// Change what a mount is to be
    Set(Set),
}

#[derive(Debug, clap::Args)]
pub struct List {
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Write a line for each, with tabs between, and no heading
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

#[derive(Debug, clap::Args)]
pub struct Add {
    /// The directory behind the view, or a bucket by its name or id; `./DIR` is never a bucket
    #[arg(value_name = "DIR|BUCKET")]
    source: PathBuf,
    /// Where the view is shown; made if it is missing, and DIR itself is as good
    #[arg(value_name = "PATH")]
    point: PathBuf,
    /// Mount it whenever the daemon starts, and again when it died
    #[arg(long)]
    auto_mount: bool,
    /// Refuse all changes
    #[arg(long)]
    read_only: bool,
    /// Let other users in [default: if the daemon is root's]
    #[arg(long)]
    allow_other: bool,
    /// Memory for what was read of a bucket
    #[arg(long, value_name = "MB")]
    cache_size_mb: Option<u32>,
    /// Keep that for so long
    #[arg(long, value_name = "SECONDS")]
    cache_ttl_secs: Option<u32>,
    /// Mount it at once
    #[arg(long)]
    start: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Its id, the beginning of that, or its mount point
    id: String,
    /// Do not ask
    #[arg(long, short)]
    force: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

#[derive(Debug, clap::Args)]
pub struct Start {
    /// Its id, the beginning of that, or its mount point
    id: String,
    #[command(flatten)]
    broker: BrokerFlags,
}

#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Its id, the beginning of that, or its mount point
    id: String,
    /// Also while it is used: who has something of it goes on with that, and nobody else comes in
    #[arg(long, short = 'z')]
    lazy: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

#[derive(Debug, clap::Args)]
pub struct Set {
    /// Its id, the beginning of that, or its mount point
    id: String,
    /// Show it elsewhere; it must be stopped
    #[arg(long, value_name = "PATH")]
    mount_point: Option<PathBuf>,
    /// Whether it may be mounted at all
    #[arg(long, value_name = "BOOL")]
    enabled: Option<bool>,
    /// Whether it is mounted whenever the daemon starts, and again when it died
    #[arg(long, value_name = "BOOL")]
    auto_mount: Option<bool>,
    /// Whether all changes are refused
    #[arg(long, value_name = "BOOL")]
    read_only: Option<bool>,
    /// Whether other users are let in
    #[arg(long, value_name = "BOOL")]
    allow_other: Option<bool>,
    /// Memory for what was read of a bucket
    #[arg(long, value_name = "MB")]
    cache_size_mb: Option<u32>,
    /// Keep that for so long
    #[arg(long, value_name = "SECONDS")]
    cache_ttl_secs: Option<u32>,
    #[command(flatten)]
    broker: BrokerFlags,
}

impl Managed {
    pub fn run(self) -> Result<Exit, Failure> {
        match self {
            Managed::List(args) => args.run(),
            Managed::Add(args) => args.run(),
            Managed::Remove(args) => args.run(),
            Managed::Start(args) => args.run(),
            Managed::Stop(args) => args.run(),
            Managed::Set(args) => args.run(),
        }?;
        Ok(Exit::Success)
    }
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let mounts = Rest::find(&self.broker, COMMAND)?.mounts()?;
        if self.json {
            return output::print_json(&json!({"version": JSON_VERSION, "mounts": mounts}));
        }
        if self.plain {
            let line = |mount: &Mount| {
                format!("{}\n", cells(mount, &mount.mount_id.to_string()).join("\t"))
            };
            return output::print(&mounts.iter().map(line).collect::<String>());
        }
        let mut table = Table::new(["ID", "STATUS", "SOURCE", "MOUNT POINT", "OPTIONS"]);
        mounts.iter().for_each(|mount| table.row(cells(mount, &short(mount))));
        if table.is_empty() {
            return output::print("no mounts; `gate mount add DIR PATH` adds one\n");
        }
        let errors = mounts.iter().filter_map(|mount| {
            let message = mount.error_message.as_deref()?;
            Some(output::printable(&format!("{}: {message}", mount.mount_point.display())) + "\n")
        });
        output::print(&(table.text() + &errors.collect::<String>()))
    }
}

impl Add {
    fn run(self) -> Result<(), Failure> {
        let rest = Rest::find_or_start(&self.broker, COMMAND)?;
        let bucket = bucket(&rest, &self.source)?;
        let source = match bucket {
            None => Some(WrittenPath(absolute(&self.source)?)),
            Some(_) => None,
        };
        let wanted = Wanted {
            bucket,
            source,
            mount_point: Some(WrittenPath(absolute(&self.point)?)),
            auto_mount: Some(self.auto_mount),
            read_only: Some(self.read_only),
            allow_other: self.allow_other.then_some(true),
            cache_size_mb: self.cache_size_mb,
            cache_ttl_secs: self.cache_ttl_secs,
            ..Wanted::default()
        };
        let One { mount } = rest.tell("POST", MOUNTS, &wanted)?;
        let target = target(&mount);
        if self.start && mount.status == "stopped" {
            let started: Result<Started, Failure> = rest.ask("POST", &format!("{target}/start"));
            started.inspect_err(|_| {
                let id = short(&mount);
                output::say_line(format_args!("{id} is kept; `gate mount start {id}` tries again"));
            })?;
        }
        let One { mount } = rest.ask("GET", &target)?;
        if self.json {
            return output::print_json(&json!({"version": JSON_VERSION, "mount": mount}));
        }
        let (id, point) = (short(&mount), mount.mount_point.display());
        let text = match mount.status.as_str() {
            "running" => format!("{id} is mounted at {point}\n"),
            _ => format!("{id} is kept; `gate mount start {id}` mounts it\n"),
        };
        output::print(&text)
    }
}

impl Remove {
    fn run(self) -> Result<(), Failure> {
        let rest = Rest::find(&self.broker, COMMAND)?;
        let mount = find(&rest, &self.id)?;
        if !self.force {
            let point = mount.mount_point.display();
            let question = format!("Unmount {point} and forget it? Its source stays as it is.");
            ask::confirm(point, &question, &format!("gate mount remove -f {}", short(&mount)))?;
        }
        let Deleted { .. } = rest.ask("DELETE", &target(&mount))?;
        output::print(&format!("{} is removed\n", short(&mount)))
    }
}

impl Start {
    fn run(self) -> Result<(), Failure> {
        let rest = Rest::find_or_start(&self.broker, COMMAND)?;
        let mount = find(&rest, &self.id)?;
        let Started { pid, .. } = rest.ask("POST", &format!("{}/start", target(&mount)))?;
        let point = mount.mount_point.display();
        let by = pid.map(|pid| format!(", served by process {pid}")).unwrap_or_default();
        output::print(&format!("{} is mounted at {point}{by}\n", short(&mount)))
    }
}

impl StopArgs {
    fn run(self) -> Result<(), Failure> {
        let rest = Rest::find(&self.broker, COMMAND)?;
        let mount = find(&rest, &self.id)?;
        let target = format!("{}/stop", target(&mount));
        let Stopped { notice, .. } = rest.tell("POST", &target, &Stop { lazy: self.lazy })?;
        if let Some(notice) = notice {
            output::say_line(output::printable(&notice));
        }
        output::print(&format!("{} is stopped\n", short(&mount)))
    }
}

impl Set {
    fn run(self) -> Result<(), Failure> {
        let rest = Rest::find(&self.broker, COMMAND)?;
        let mount = find(&rest, &self.id)?;
        let point = self.mount_point.as_deref().map(absolute).transpose()?;
        let wanted = Wanted {
            mount_point: point.map(WrittenPath),
            enabled: self.enabled,
            auto_mount: self.auto_mount,
            read_only: self.read_only,
            allow_other: self.allow_other,
            cache_size_mb: self.cache_size_mb,
            cache_ttl_secs: self.cache_ttl_secs,
            ..Wanted::default()
        };
        if wanted == Wanted::default() {
            let hint = "name what is to change, as in `--auto-mount true`; see --help";
            let failure = Failure::new("nothing is to be changed", "no option is given", hint);
            return Err(failure.exit(Exit::Unable));
        }
        let One { mount: changed } = rest.tell("PATCH", &target(&mount), &wanted)?;
        let shows = |m: &Mount| (m.read_only, m.allow_other, m.cache_size_mb, m.cache_ttl_secs);
        if changed.status == "running" && shows(&changed) != shows(&mount) {
            output::say_line("it shows when it is mounted anew: `gate mount stop`, `start`");
        }
        output::print(&format!("{} is changed\n", short(&mount)))
    }
}

/// Returns the bucket that is meant, if a word without a slash is the name or the id of one.
fn bucket(rest: &Rest, word: &Path) -> Result<Option<String>, Failure> {
    let Some(word) = word.to_str().filter(|word| !word.contains('/')) else { return Ok(None) };
    let all: AllBuckets = rest.ask("GET", BUCKETS)?;
    let is_meant = |bucket: &&Bucket| {
        let id = bucket.bucket_id.to_string();
        bucket.name == word || (word.len() >= ID_CHARS_MIN && id.starts_with(&word.to_lowercase()))
    };
    let mut found = all.buckets.iter().filter(is_meant);
    // Who writes the beginning of an id hears from the daemon if it is not enough.
    Ok(found.next().map(|_| word.to_owned()))
}

/// Finds the mount that people mean.
fn find(rest: &Rest, words: &str) -> Result<Mount, Failure> {
    let mounts = rest.mounts()?;
    let is_kept = |point: &PathBuf| mounts.iter().any(|mount| mount.mount_point == *point);
    let point = readings(Path::new(words)).into_iter().flatten().find(is_kept);
    let is_meant = |mount: &&Mount| {
        mount.mount_id.to_string().starts_with(&words.to_lowercase()) && words.len() >= ID_CHARS_MIN
            || point.as_ref() == Some(&mount.mount_point)
    };
    let mut found = mounts.iter().filter(is_meant);
    let cannot = |cause: String, hint: &str| {
        Err(Failure::new(format!("cannot tell which mount `{words}` is"), cause, hint)
            .exit(Exit::Unable))
    };
    match (found.next(), found.next()) {
        (Some(mount), None) => Ok(mount.clone()),
        (Some(one), Some(other)) => {
            let (one, other) = (one.mount_id, other.mount_id);
            cannot(format!("both {one} and {other} begin so"), "write more of it")
        }
        (None, _) => {
            let hint = format!(
                "`gate mount list` shows the mounts; of an id give {ID_CHARS_MIN} characters or more"
            );
            cannot("no mount has that id or that mount point".to_owned(), &hint)
        }
    }
}

/// Returns what a written mount point may be, the likeliest first. Where a mount is stopped a link may lie at
/// its point by now, which leads to another's: a link is followed only where no mount lies at it itself.
fn readings(path: &Path) -> [Option<PathBuf>; 3] {
    let written = std::path::absolute(path).ok();
    let beside = written
        .as_deref()
        .and_then(|path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)));
    [written, beside, crate::seen::resolve(path).ok()]
}

fn cells(mount: &Mount, id: &str) -> [String; 5] {
    let options = [
        (mount.auto_mount, "auto"),
        (mount.read_only, "read-only"),
        (mount.allow_other, "allow-other"),
        (!mount.enabled, "disabled"),
    ];
    let options = options.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name);
    [
        id.to_owned(),
        mount.status.clone(),
        mount.source.display().to_string(),
        mount.mount_point.display().to_string(),
        options.collect::<Vec<_>>().join(","),
    ]
}

fn short(mount: &Mount) -> String {
    body::short(mount.mount_id)
}

fn target(mount: &Mount) -> String {
    format!("{MOUNTS}/{}", mount.mount_id)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        let what = format!("cannot tell where {} is", path.display());
        Failure::new(what, error, "give an absolute path").exit(Exit::Unable)
    })
}
