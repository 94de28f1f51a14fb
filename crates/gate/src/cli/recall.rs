//! `gate recall`

use std::time::Duration;

use serde_json::json;

use crate::duration;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::reach::BrokerFlags;
use crate::target::Target;

/// The version of the JSON form.
const JSON_VERSION: u32 = 1;

/// Ask a holder to let go; it loses its lock after a time if somebody waits for it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its ticket, as `gate locks` shows it, or a path that one owner holds
    lock: String,
    /// Say why, to whoever holds it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = super::hold::reason)]
    reason: String,
    /// How long it has to let go, as in 30s, 500ms, 2m; a bare number is seconds
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    within: Duration,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let target = Target::find(&self.lock, &self.broker, "gate recall")?;
        target.order(|session, ticket| session.recall(ticket, self.reason.clone(), self.within))?;
        let (ticket, within) = (target.ticket, duration::rough(self.within));
        let us = u64::try_from(self.within.as_micros()).unwrap_or(u64::MAX);
        let done = json!({"version": JSON_VERSION, "ticket": ticket, "within_us": us});
        match self.json {
            true => output::print_json(&done)?,
            false => output::print(&format!("ticket {ticket} has {within} to let go\n"))?,
        }
        Ok(Exit::Success)
    }
}
