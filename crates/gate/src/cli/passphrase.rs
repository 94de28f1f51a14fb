//! `gate passphrase`

use std::path::PathBuf;

use super::init::tell;
use crate::ask;
use crate::daemon::body::bucket::{Device, OtherKey};
use crate::failure::{Exit, Failure};
use crate::reach::BrokerFlags;
use crate::rest::{DEVICE, Rest};

/// Give this device's keys another passphrase
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take the passphrase of now from the first line of a file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Take the next one from the first line of a file, or with - of standard input
    #[arg(long, value_name = "FILE", conflicts_with = "remove")]
    new_passphrase_file: Option<PathBuf>,
    /// Have none any more: who can read the file opens the buckets
    #[arg(long)]
    remove: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let rest = Rest::find_or_start(&self.broker, "gate passphrase")?;
        let device: Device = rest.ask("GET", DEVICE)?;
        let file = self.passphrase_file.as_deref();
        let old = device.has_passphrase.then(|| ask::secret("Passphrase of now: ", file));
        let new = (!self.remove).then(|| ask::new_secret(self.new_passphrase_file.as_deref()));
        let key = OtherKey { old: old.transpose()?, new: new.transpose()? };
        let device = rest.tell("PUT", &format!("{DEVICE}/passphrase"), &key)?;
        tell(&device, self.json)?;
        Ok(Exit::Success)
    }
}
