//! `gate bucket history`, `restore`, `undo`: what was done, and ways back.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use serde_json::json;

use super::{JSON_VERSION, Which, moment};
use crate::daemon::body::bucket::{
    BucketVersion, BucketVersions, Changed, Restoration, Undoing, short,
};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::query;

/// Show what was done in a bucket, the newest first
#[derive(Debug, clap::Args)]
pub struct History {
    #[command(flatten)]
    which: Which,
    /// Only what was done to this or in it, whatever it was called then
    #[arg(default_value = "/")]
    path: PathBuf,
    /// At most so many versions
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Only what is older than this version
    #[arg(long, value_name = "VERSION")]
    after: Option<String>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Make what is at a path of a bucket as it was in a version, with all in it
#[derive(Debug, clap::Args)]
pub struct Restore {
    #[command(flatten)]
    which: Which,
    /// What in the bucket
    path: PathBuf,
    /// The beginning of its id, `~N` for N entries ago, or a time
    #[arg(long, value_name = "VERSION")]
    at: String,
}

/// Take back what was done last in a bucket, or what led to a version
#[derive(Debug, clap::Args)]
pub struct Undo {
    #[command(flatten)]
    which: Which,
    /// The version: the beginning of its id, or `~N` for N entries ago [default: the newest]
    version: Option<String>,
}

impl History {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        let (most, after) = (self.limit.to_string(), self.after.unwrap_or_default());
        let path = self.path.as_os_str().as_bytes();
        let pairs = [("path", path), ("most", most.as_bytes()), ("after", after.as_bytes())];
        let asked = query::address(&format!("{target}/history"), &pairs);
        let BucketVersions { versions, are_more } = rest.ask("GET", &asked)?;
        if self.json {
            let told = json!({
                "version": JSON_VERSION, "versions": versions, "are_more": are_more,
            });
            return output::print_json(&told);
        }
        let mut text = String::new();
        for BucketVersion { version, at, author, did, more, is_kept } in &versions {
            let (version, author) = (short(version), &author[..8]);
            let given_up = if *is_kept { "" } else { "  (given up)" };
            let _ = writeln!(text, "{version}  {at}  by {author}{given_up}");
            for line in did {
                let _ = writeln!(text, "    {}", output::printable(line));
            }
            if *more > 0 {
                let _ = writeln!(text, "    and {more} more");
            }
        }
        if let (true, Some(last)) = (are_more, versions.last()) {
            let _ = writeln!(text, "older ones: --after {}", short(&last.version));
        }
        if text.is_empty() {
            text.push_str("nothing was done\n");
        }
        output::print(&text)
    }
}

impl Restore {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        let wanted = Restoration { path: self.path, at: moment(&self.at) };
        let changed = rest.tell("POST", &format!("{target}/restore"), &wanted)?;
        tell(&changed, "it is as it was")
    }
}

impl Undo {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        if self.version.as_deref().is_some_and(|version| version.trim().is_empty()) {
            let failure =
                Failure::new("nothing is taken back", "no version is named", "leave it out");
            return Err(failure.exit(Exit::Unable));
        }
        let wanted = Undoing { version: self.version };
        let changed = rest.tell("POST", &format!("{target}/undo"), &wanted)?;
        tell(&changed, "it is taken back")
    }
}

fn tell(changed: &Changed, what: &str) -> Result<(), Failure> {
    output::print(&match &changed.version {
        Some(version) => format!("{what}: version {}\n", short(version)),
        None => "nothing had to change\n".to_owned(),
    })
}
