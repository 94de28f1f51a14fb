//! Files in a view, beside the bare directory and beside file systems that others wrote: the rows
//! of the speed table, and whether each bar is met.

mod commands;
mod ground;
mod large;
mod many;
mod passthrough;
mod peers;
mod profile;
mod row;
mod small;
mod table;

use std::io;
use std::time::Duration;

pub use ground::On;
pub use large::noise;
pub use passthrough::build as build_passthrough;
pub use peers::{BUCKET, GOCRYPTFS, Place};
pub use profile::run as profile;
pub use row::{BUCKET_ROWS, ROWS, Row};
use serde_json::Value;

use self::ground::Ground;
use self::table::{Figure, Outcome};
use super::home::Home;
use super::sample::{Samples, paired};
use crate::step::Failure;

/// Which rows are measured, and how.
pub struct Plan {
    pub rows: Vec<&'static Row>,
    pub bucket_rows: Vec<&'static Row>,
    /// Whether what a bucket's store needs is measured, too.
    pub has_store: bool,
    pub on: On,
    /// How many files are many.
    pub files: usize,
}

/// Measures and prints; returns the figures.
pub fn run(home: &Home, plan: &Plan) -> Result<Value, Failure> {
    let ground = Ground::lay(&plan.on, home)?;
    let places = peers::all(home, &ground, plan.files)?;
    if !places.iter().any(|place| place.name == peers::PASSTHROUGH) {
        println!("without {}: it could not be built", peers::PASSTHROUGH);
    }
    println!("on {}; many: {} files", ground.title, plan.files);
    measure_all(&plan.rows, &ground.title, &places)
}

/// The same for a bucket; `then` goes on in the same places.
pub fn run_sealed(
    home: &Home,
    plan: &Plan,
    then: impl FnOnce(&[Place<'_>]) -> Result<Value, Failure>,
) -> Result<Value, Failure> {
    let ground = Ground::lay(&plan.on, home)?;
    let places = peers::sealed(home, &ground, plan.files)?;
    println!("\nbuckets, on {}; many: {} files", ground.title, plan.files);
    let mut figures = measure_all(&plan.bucket_rows, &ground.title, &places)?;
    if plan.has_store {
        figures["store"] = then(&places)?;
    }
    Ok(figures)
}

fn measure_all(rows: &[&'static Row], title: &str, places: &[Place<'_>]) -> Result<Value, Failure> {
    let mut outcomes = Vec::new();
    for row in rows {
        let outcome = measure(row, places)?;
        table::print_row_in_full(&outcome);
        outcomes.push(outcome);
    }
    if outcomes.len() > 1 {
        table::print_medians(&outcomes);
        table::print_bars(&outcomes);
    }
    Ok(table::json(title, &outcomes))
}

/// Measures one row; others that cannot do it are left out.
fn measure(row: &'static Row, places: &[Place<'_>]) -> Result<Outcome, Failure> {
    let mut places: Vec<&Place<'_>> =
        places.iter().filter(|place| place.is_in(row.field)).collect();
    loop {
        let (number, error) = match attempt(row, &places) {
            Ok(figures) => return Ok(Outcome { row, figures }),
            Err(failed) => failed,
        };
        let place = places.remove(number);
        let what = format!("cannot measure `{}` in `{}`", row.title, place.name);
        if place.is_view() {
            return Err(Failure::new(what, error));
        }
        println!("\n{what}: {error}");
    }
}

/// How old most files are at least.
const AT_REST_AFTER: Duration = Duration::from_secs(61);

#[expect(clippy::disallowed_methods, reason = "it is time that has to pass")]
fn rest(title: &str) {
    println!("   {title}: the files rest for {} s", AT_REST_AFTER.as_secs());
    std::thread::sleep(AT_REST_AFTER);
}

/// Measures one row, or tells which place failed.
fn attempt(row: &Row, places: &[&Place<'_>]) -> Result<Vec<Figure>, (usize, io::Error)> {
    for (number, place) in places.iter().enumerate() {
        (row.prepare)(&place.site).map_err(|error| (number, error))?;
    }
    if row.at_rest {
        rest(row.title);
    }
    let memory: Vec<_> = places.iter().map(|place| place.memory()).collect();
    let samples = paired(row.title, places.len(), row.rounds, |number, _| {
        let round = (row.round)(&places[number].site).map_err(|error| (number, error))?;
        Ok(round.time)
    })?;
    let figure = |((place, samples), before): ((&&Place<'_>, Samples), Option<usize>)| Figure {
        place: place.name,
        best: samples.best(),
        median: samples.median(),
        memory: before.zip(place.memory()),
    };
    Ok(places.iter().zip(samples).zip(memory).map(figure).collect())
}
