//! Prints who holds and who waits, now and whenever that changes.
//!
//!     cargo run -p gate-api --example watch

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gate_api::wire::{LineState, Scope};
use gate_api::{Address, ClientInfo, QueryError, Quiet, Session, Watcher, address};
use gate_core::lock::event::Revocation;

/// For those who only ask.
struct Deaf;

impl Watcher for Deaf {
    fn revoked(&self, _owner: u64, _why: Revocation, _reason: &str) -> Quiet {
        Quiet::Now
    }

    fn contended(&self, _owner: u64) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let state_dir = std::env::var_os("GATE_STATE_DIR").map(PathBuf::from);
    let state_dir = state_dir.or_else(address::state_dir_user).ok_or("HOME is not set")?;
    let broker = Address::of_state_dir(&state_dir);
    let session = Session::connect(broker, ClientInfo::named("example"), Arc::new(Deaf))?;
    let mut version = None;
    loop {
        let locks = match session.locks(&Scope::Everything, version, Duration::from_secs(60)) {
            Err(QueryError::Unchanged) => continue,
            answer => answer?,
        };
        version = Some(locks.version);
        for line in &locks.lines {
            let who = if line.owner.is_empty() { &line.client } else { &line.owner };
            let does = match line.state {
                LineState::Held { .. } => "holds",
                LineState::Waiting { .. } => "waits for",
            };
            let paths = line.places.iter().filter_map(|place| place.path.as_ref());
            let names: Vec<String> = paths.map(ToString::to_string).collect();
            println!("{} {who} {does} {}", line.ticket, names.join(", "));
        }
        println!("--");
    }
}
