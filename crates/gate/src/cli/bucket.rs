//! `gate bucket`: sealed trees of files, every version kept.

mod all;
mod diff;
mod export;
mod files;
mod fsck;
mod gc;
mod import;
mod past;

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

pub use diff::{Look, told};
pub use files::mode;

use gate_bucket::bucket::history::DIGITS_MIN;

use super::log::{Since, parse_since};
use crate::board;
use crate::failure::{Exit, Failure};
use crate::query;
use crate::reach::BrokerFlags;
use crate::rest::{BUCKETS, Rest};

/// What these commands call themselves at the broker.
const COMMAND: &str = "gate bucket";
/// The version of the JSON forms.
const JSON_VERSION: u32 = 1;

/// Keep files sealed, with every version of them
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Create(all::Create),
    List(all::List),
    Rename(all::Rename),
    Delete(all::Delete),
    Ls(files::Ls),
    Cat(files::Cat),
    Stat(files::Stat),
    Get(files::Get),
    Add(files::Add),
    Mkdir(files::Mkdir),
    Mv(files::Mv),
    Rm(files::Rm),
    Import(import::Import),
    Export(export::Export),
    History(past::History),
    Diff(diff::Diff),
    Restore(past::Restore),
    Undo(past::Undo),
    Fsck(fsck::Fsck),
    Gc(gc::Gc),
}

/// Which bucket, and at which daemon.
#[derive(Debug, clap::Args)]
struct Which {
    /// The bucket: its name, its id, or the beginning of that
    bucket: String,
    #[command(flatten)]
    broker: BrokerFlags,
}

/// In which version.
#[derive(Debug, clap::Args)]
struct At {
    /// As it was in a version: the beginning of its id, `~N` for N entries ago, or a time
    #[arg(long, value_name = "VERSION")]
    at: Option<String>,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        match self.what {
            What::Create(args) => args.run(),
            What::List(args) => args.run(),
            What::Rename(args) => args.run(),
            What::Delete(args) => args.run(),
            What::Ls(args) => args.run(),
            What::Cat(args) => args.run(),
            What::Stat(args) => args.run(),
            What::Get(args) => args.run(),
            What::Add(args) => args.run(),
            What::Mkdir(args) => args.run(),
            What::Mv(args) => args.run(),
            What::Rm(args) => args.run(),
            What::Import(args) => args.run(),
            What::Export(args) => args.run(),
            What::History(args) => args.run(),
            What::Diff(args) => args.run(),
            What::Restore(args) => args.run(),
            What::Undo(args) => args.run(),
            What::Fsck(args) => return args.run(),
            What::Gc(args) => args.run(),
        }?;
        Ok(Exit::Success)
    }
}

impl Which {
    /// Finds the daemon, and where it offers the bucket.
    fn reach(&self) -> Result<(Rest, String), Failure> {
        let rest = Rest::find_or_start(&self.broker, COMMAND)?;
        Ok((rest, target(&self.bucket)))
    }
}

impl At {
    /// Returns where something in a bucket is asked for.
    fn address(&self, target: &str, path: &Path) -> String {
        let at = self.at.as_deref().map(moment).unwrap_or_default();
        // It is never without a path: whoever adds something adds it behind.
        let path = Path::new("/").join(path);
        let pairs = [("path", path.as_os_str().as_bytes()), ("at", at.as_bytes())];
        query::address(target, &pairs)
    }
}

/// Returns a version as the daemon understands it: times of people are of their own zone, or so long ago.
fn moment(version: &str) -> String {
    // `9d` is hexadecimal, too, but too short for an id.
    let is_id = version.len() >= DIGITS_MIN && version.bytes().all(|b| b.is_ascii_hexdigit());
    match parse_since(version) {
        Ok(Since::Time(ms)) if !is_id => board::utc(ms),
        _ => version.to_owned(),
    }
}

/// Returns where a bucket is offered.
fn target(bucket: &str) -> String {
    // A slash would lead elsewhere.
    let quoted = gate_api::http::quoted(bucket.as_bytes()).replace('/', "%2F");
    format!("{BUCKETS}/{quoted}")
}
