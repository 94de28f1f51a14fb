//! `gate unlock`

use std::path::PathBuf;

use super::init::tell;
use crate::ask;
use crate::daemon::body::bucket::{Device, Key};
use crate::failure::{Exit, Failure};
use crate::reach::BrokerFlags;
use crate::rest::{DEVICE, Rest};

/// Open this device's keys with its passphrase, until the daemon ends
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Take the first line of a file, or with - of standard input
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let rest = Rest::find_or_start(&self.broker, "gate unlock")?;
        let mut device: Device = rest.ask("GET", DEVICE)?;
        if device.has_passphrase {
            let passphrase = ask::secret("Passphrase: ", self.passphrase_file.as_deref())?;
            let key = Key { passphrase: Some(passphrase) };
            device = rest.tell("POST", &format!("{DEVICE}/unlock"), &key)?;
        } else if device.state == "none" {
            let failure = Failure::new("nothing is locked", "there is no device", "`gate init`");
            return Err(failure.exit(Exit::Unable));
        }
        tell(&device, self.json)?;
        Ok(Exit::Success)
    }
}
