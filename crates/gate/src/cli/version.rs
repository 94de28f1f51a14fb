//! `gate version`

use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::output;

/// Show which release this is
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let (version, target) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
        match self.json {
            true => output::print_json(&json!({"version": version, "arch": target}))?,
            false => output::print(&format!("gate {version} ({target})\n"))?,
        }
        Ok(Exit::Success)
    }
}
