//! A bucket beside gocryptfs and the bare directory: the rows of files, then what its store is judged by.

mod edits;
mod import;
mod million;

use std::io;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::home::Home;
use super::process::{mebibytes, peak_bytes};
use super::sample::{print_heads, print_row};
use super::view::{self, BUCKET, Place, Plan};
use crate::step::Failure;

/// What a daemon may need at most, whatever it is given.
const MEMORY_BYTES_MAX: usize = 200_000_000;

/// Measures and prints; returns the figures.
pub fn run(home: &Home, plan: &Plan) -> Result<Value, Failure> {
    view::run_sealed(home, plan, |places| {
        store(home, places).map_err(|error| Failure::new("cannot measure a bucket's store", error))
    })
}

fn store(home: &Home, places: &[Place<'_>]) -> io::Result<Value> {
    let bucket = places.iter().find(|place| place.name == BUCKET);
    let keeper = bucket.and_then(Place::keeper).ok_or(io::ErrorKind::NotFound)?;
    let import = import::measure(home, places, keeper)?;
    let edits = edits::measure(home, keeper)?;
    let million = million::measure(home, keeper)?;
    // It was started anew after the first million.
    let peak = peak_bytes(keeper.pid()?)?.max(million.peak);
    println!();
    print_heads(&["memory of the daemon", "at most", "bar", "met"]);
    let met = yes_or_no(peak <= MEMORY_BYTES_MAX);
    print_row(&["for all of it", &mebibytes(peak), &mebibytes(MEMORY_BYTES_MAX), met]);
    Ok(json!({
        "import": import,
        "edits": edits,
        "million": million.figures,
        "peak_bytes": peak,
    }))
}

fn yes_or_no(is_met: bool) -> &'static str {
    if is_met { "yes" } else { "no" }
}

/// Runs a command whose output nobody wants.
fn done(command: &mut Command) -> io::Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?}: {status}"))) }
}
