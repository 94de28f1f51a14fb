//! `gate bucket fsck`

use serde_json::json;

use super::{JSON_VERSION, Which};
use crate::daemon::body::bucket::{Check, Checked, Checking};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::progress::Progress;

/// Check what is stored of a bucket, and put its index right
///
/// Ends with 1 if something is wrong that only a backup or another device can mend.
#[derive(Debug, clap::Args)]
pub struct Fsck {
    #[command(flatten)]
    which: Which,
    /// Read every byte, too
    #[arg(long)]
    read_data: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl Fsck {
    pub fn run(self) -> Result<Exit, Failure> {
        let (rest, target) = self.which.reach()?;
        let check = Check { read_data: self.read_data };
        let shown = Progress::of_count();
        let told = |Checking { packs_done, packs }| {
            shown.tell(packs_done, &format!("of {packs} packs are checked"));
        };
        let checked: Checked = rest.follow(&format!("{target}/fsck"), &check, told)?;
        drop(shown);
        let Checked { entries, chunks, fault_count, faults, mended } = &checked;
        if self.json {
            output::print_json(&json!({"version": JSON_VERSION, "fsck": checked}))?;
        } else {
            for fault in mended {
                output::say_line(format_args!("put right: {}", output::printable(fault)));
            }
            for fault in faults {
                output::say_line(output::printable(fault));
            }
            let found = match fault_count {
                0 => "all is well".to_owned(),
                1 => "1 fault".to_owned(),
                count => format!("{count} faults"),
            };
            output::print(&format!("{entries} entries, {chunks} chunks: {found}\n"))?;
        }
        Ok(if *fault_count == 0 { Exit::Success } else { Exit::Failed })
    }
}
