//! `gate break`

use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::output;
use crate::reach::BrokerFlags;
use crate::target::Target;

/// The version of the JSON form.
const JSON_VERSION: u32 = 1;

/// Take a lock away from its holder, or send a waiter away
///
/// What is still written through an open file that lost its turn fails. The command of a `gate hold`
/// goes on: what it opens takes turns of its own, and `gate hold` says so at its end and exits with 1.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its ticket, as `gate locks` shows it, or a path that one owner holds
    lock: String,
    /// Say why, to whoever loses it
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let target = Target::find(&self.lock, &self.broker, "gate break")?;
        target.order(|session, ticket| session.break_lock(ticket, self.reason.clone()))?;
        let ticket = target.ticket;
        match self.json {
            true => output::print_json(&json!({"version": JSON_VERSION, "ticket": ticket}))?,
            false => output::print(&format!("ticket {ticket} is broken\n"))?,
        }
        Ok(Exit::Success)
    }
}

/// Reads why: whoever loses the lock is told, and so is the log.
fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("whoever loses it wants to know why".to_owned()),
        _ => super::hold::reason(text),
    }
}
