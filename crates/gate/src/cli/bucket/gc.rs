//! `gate bucket gc`

use serde_json::json;

use super::{JSON_VERSION, Which, moment};
use crate::ask;
use crate::daemon::body::bucket::{Checking, Freed, Freeing, OneBucket};
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;

/// Free what no version of a bucket needs: what was left behind when something was not stored to its end
///
/// No version is lost, whatever its age, unless `--keep-from` says since when they are kept. What is younger than a day
/// stays, for it may be needed by what is not done yet.
#[derive(Debug, clap::Args)]
pub struct Gc {
    #[command(flatten)]
    which: Which,
    /// Give up what files held before this version: the beginning of its id, `~N` for N entries ago, `@` for the
    /// newest, or a time; that cannot be undone
    #[arg(long, value_name = "VERSION")]
    keep_from: Option<String>,
    /// Do not ask
    #[arg(long, short, requires = "keep_from")]
    force: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl Gc {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        if let (Some(version), false) = (&self.keep_from, self.force) {
            let OneBucket { bucket, .. } = rest.ask("GET", &target)?;
            let name = &bucket.name;
            let question = format!(
                "Give up what files of {name} held before version {version}? That cannot be undone."
            );
            let command = format!("gate bucket gc {name} --keep-from {version} --force");
            ask::confirm(name, &question, &command)?;
        }
        let freeing = Freeing { keep_from: self.keep_from.as_deref().map(moment) };
        let shown = Progress::of_count();
        let told = |Checking { packs_done, packs }| {
            shown.tell(packs_done, &format!("of {packs} packs are looked at"));
        };
        let freed: Freed = rest.follow(&format!("{target}/gc"), &freeing, told)?;
        drop(shown);
        if self.json {
            return output::print_json(&json!({"version": JSON_VERSION, "freed": freed}));
        }
        let Freed { bytes, chunks, young_bytes, damaged_packs, .. } = freed;
        if young_bytes > 0 {
            let young = output::bytes(young_bytes);
            output::say_line(format_args!("{young} more are younger than a day, and stay"));
        }
        if damaged_packs > 0 {
            output::say_line("not all can be read: `gate bucket fsck --read-data` says more");
        }
        output::print(&match chunks {
            0 => "nothing was to be freed\n".to_owned(),
            _ => format!("{} freed\n", output::bytes(bytes)),
        })
    }
}
