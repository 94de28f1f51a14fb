//! `gate bench`
//!
//! The same work on the bare directory and through the view, in turns, so that what else the
//! machine does hits both alike.

mod places;
mod works;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::duration;
use crate::failure::{Exit, Failure};
use crate::interruption::Interruption;
use crate::output::{self, Table};
use crate::progress::Progress;
use places::Places;
use works::{WORKS, Work};

/// A median of fewer says nothing.
const ROUNDS_MIN: usize = 3;
/// More make it no better.
const ROUNDS_MAX: usize = 20_000;

/// Measure how fast a view is beside the bare directory
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory in a view, or a bare one, of which a view is mounted for the time being
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Measure for about so long
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
}

#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    /// `None` if one was made for the time being.
    view: Option<String>,
    source: String,
    rows: Vec<Row>,
}

/// One kind of work in both places: the medians of all rounds.
#[derive(Debug, Serialize)]
struct Row {
    work: &'static str,
    rounds: usize,
    bare_ns: u64,
    view_ns: u64,
    ratio: f64,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let interruption = Interruption::watch()?;
        let places = Places::find(&self.dir, &interruption)?;
        let progress = Progress::of_steps(WORKS.len());
        progress.tell(0, "making files");
        places.prepare(&interruption)?;
        let share = Duration::from_secs(self.seconds.into()) / WORKS.len() as u32;
        let mut rows = Vec::new();
        for (number, work) in WORKS.iter().enumerate() {
            progress.tell(number, work.name);
            rows.push(measure(work, &places, share, &interruption)?);
        }
        drop(progress);
        if cfg!(debug_assertions) {
            output::say_line(
                "this gate is a debug build, and slow: `cargo build --release -p gate`",
            );
        }
        let view = places.view.as_ref().map(|view| view.display().to_string());
        let source = places.source.display().to_string();
        let report = Report { version: 1, view, source, rows };
        match self.json {
            true => output::print_json(&report)?,
            false => output::print(&report.text())?,
        }
        Ok(Exit::Success)
    }
}

/// Does one work in both places until its time is up, each place as often first as the other.
fn measure(
    work: &Work,
    places: &Places,
    share: Duration,
    interruption: &Interruption,
) -> Result<Row, Failure> {
    let mut samples = [Vec::new(), Vec::new()];
    let began = Instant::now();
    for round in 0..ROUNDS_MAX {
        if round >= ROUNDS_MIN && began.elapsed() >= share {
            break;
        }
        for place in [round % 2, 1 - round % 2] {
            interruption.check()?;
            let started = Instant::now();
            (work.act)(&places.dirs[place]).map_err(|error| places.unusable(&error))?;
            samples[place].push(started.elapsed());
        }
    }
    Ok(Row::new(work.name, samples))
}

impl Row {
    fn new(work: &'static str, samples: [Vec<Duration>; 2]) -> Row {
        let rounds = samples[0].len();
        let [bare_ns, view_ns] = samples.map(median_ns);
        let ratio = view_ns as f64 / bare_ns.max(1) as f64;
        Row { work, rounds, bare_ns, view_ns, ratio: (ratio * 100.0).round() / 100.0 }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut table = Table::new(["WORK", "BARE", "VIEW", "VIEW/BARE"]);
        for row in &self.rows {
            let time = |ns| duration::fine(Duration::from_nanos(ns));
            let [bare, view] = [row.bare_ns, row.view_ns].map(time);
            table.row([row.work.to_owned(), bare, view, format!("{:.2}", row.ratio)]);
        }
        let view = self.view.as_deref().unwrap_or("a view of its own");
        let [view, source] = [view, &self.source].map(output::printable);
        format!("{}\n{view} beside {source}: medians of paired rounds, warm\n", table.text())
    }
}

fn median_ns(mut samples: Vec<Duration>) -> u64 {
    samples.sort_unstable();
    let median = samples.get(samples.len() / 2).copied().unwrap_or_default();
    u64::try_from(median.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_medians_and_what_the_view_costs() {
        let samples = [[30, 10, 20], [90, 10, 50]].map(|ms| ms.map(Duration::from_millis).to_vec());
        let row = Row::new("stat", samples);
        assert_eq!((row.rounds, row.bare_ns, row.view_ns), (3, 20_000_000, 50_000_000));
        let report =
            Report { version: 1, view: Some("/v".into()), source: "/s".into(), rows: vec![row] };
        let expected = "WORK  BARE     VIEW     VIEW/BARE\n\
            stat  20.0 ms  50.0 ms  2.50\n\n\
            /v beside /s: medians of paired rounds, warm\n";
        assert_eq!(report.text(), expected);
    }
}
