//! `gate init`

use std::path::PathBuf;

use crate::ask;
use crate::daemon::body::bucket::{Device, Key};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::reach::BrokerFlags;
use crate::rest::{DEVICE, Rest};

/// Make the device that buckets are sealed for
///
/// Its keys lie in the file `identity` of the daemon's state directory, which nobody else can read. Who loses
/// it loses the buckets that no other device has: keep a copy. With a passphrase the file alone opens nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seal its keys with a passphrase; `gate unlock` opens them whenever the daemon has started
    #[arg(long)]
    passphrase: bool,
    /// As --passphrase, the first line of a file, or with - of standard input
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
        let rest = Rest::find_or_start(&self.broker, "gate init")?;
        let is_wanted = self.passphrase || self.passphrase_file.is_some();
        let passphrase =
            is_wanted.then(|| ask::new_secret(self.passphrase_file.as_deref())).transpose()?;
        let device: Device = rest.tell("POST", DEVICE, &Key { passphrase })?;
        tell(&device, self.json)?;
        Ok(Exit::Success)
    }
}

/// Tells how the device is.
pub fn tell(device: &Device, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::print_json(&serde_json::json!({"version": 1, "device": device}));
    }
    let Device { state, device_id, has_passphrase } = device;
    let id = device_id.as_deref().unwrap_or_default();
    let key = if *has_passphrase { "a passphrase opens it" } else { "it has no passphrase" };
    output::print(&format!("device {id} is {state}; {key}\n"))
}
