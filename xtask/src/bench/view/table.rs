//! What was measured, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::peers::{BUCKET, GATE};
use super::row::{Bar, Bound, By, Row, Unit};
use crate::bench::process::mebibytes;
use crate::bench::sample::{print_heads, print_row, ratio, show};

/// What a row came to.
pub struct Outcome {
    pub row: &'static Row,
    pub figures: Vec<Figure>,
}

/// What it came to in one place.
pub struct Figure {
    pub place: &'static str,
    pub best: Duration,
    pub median: Duration,
    /// Of its server, before and after.
    pub memory: Option<(usize, usize)>,
}

/// A bar beside what was measured.
struct Verdict {
    bar: &'static Bar,
    of_medians: f64,
    of_bests: f64,
    is_met: bool,
}

impl Outcome {
    fn figure(&self, place: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.place == place)
    }

    fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.row.bars.iter().filter_map(|bar| {
            let [view, peer] = [bar.view, bar.peer].map(|name| self.figure(name));
            Some(judge(bar, view?, peer?))
        })
    }
}

fn judge(bar: &'static Bar, view: &Figure, peer: &Figure) -> Verdict {
    let measured = |view: Duration, peer: Duration| match bar.bound {
        Bound::Times(_) => view.as_secs_f64() / peer.as_secs_f64(),
        Bound::Percent(_) => 100.0 * peer.as_secs_f64() / view.as_secs_f64(),
        Bound::Millis(_) => 1e3 * view.as_secs_f64(),
    };
    let of_medians = measured(view.median, peer.median);
    let of_bests = measured(view.best, peer.best);
    let judged = match bar.by {
        By::Median => of_medians,
        By::Best => of_bests,
    };
    let is_met = match bar.bound {
        Bound::Times(bound) | Bound::Millis(bound) => judged <= bound,
        Bound::Percent(bound) => judged >= bound,
    };
    Verdict { bar, of_medians, of_bests, is_met }
}

/// Prints all figures of one row.
pub fn print_row_in_full(outcome: &Outcome) {
    println!();
    let heads = ["best", "median", "ours/this", "of bests", "memory", "after"];
    print_heads(&[&[outcome.row.title][..], &heads].concat());
    let gate = outcome.figure(GATE).or_else(|| outcome.figure(BUCKET));
    for figure in &outcome.figures {
        let [median, best] = match gate {
            Some(gate) => [ratio(gate.median, figure.median), ratio(gate.best, figure.best)],
            None => Default::default(),
        };
        let [before, after] = match figure.memory {
            Some((before, after)) => [mebibytes(before), mebibytes(after)],
            None => Default::default(),
        };
        let [bests, medians] = [figure.best, figure.median].map(|time| in_unit(outcome.row, time));
        print_row(&[figure.place, &bests, &medians, &median, &best, &before, &after]);
    }
    for verdict in outcome.verdicts() {
        println!("{}", sentence(&verdict));
    }
}

/// Prints the medians of all rows.
pub fn print_medians(outcomes: &[Outcome]) {
    println!();
    // The first row with the most places tells which there are.
    let widest = outcomes.iter().rev().max_by_key(|outcome| outcome.figures.len());
    let names: Vec<&str> = widest.iter().flat_map(|o| &o.figures).map(|f| f.place).collect();
    print_heads(&[&["median"], &names[..]].concat());
    for outcome in outcomes {
        let cell = |name: &&str| {
            outcome.figure(name).map_or_else(String::new, |f| in_unit(outcome.row, f.median))
        };
        let cells: Vec<String> = names.iter().map(cell).collect();
        let cells = cells.iter().map(String::as_str);
        print_row(&std::iter::once(outcome.row.title).chain(cells).collect::<Vec<_>>());
    }
}

/// Prints which bars are met.
pub fn print_bars(outcomes: &[Outcome]) {
    println!();
    print_heads(&["bar", "view", "beside", "bound", "of medians", "of bests", "met"]);
    for outcome in outcomes {
        for verdict in outcome.verdicts() {
            let Verdict { bar, is_met, .. } = verdict;
            let met = if is_met { "yes" } else { "no" };
            let bound = shown_bound(bar);
            let [medians, bests] = [verdict.of_medians, verdict.of_bests].map(|n| shown(bar, n));
            let title = outcome.row.title;
            print_row(&[title, bar.view, bar.peer, &bound, &medians, &bests, met]);
        }
    }
}

/// Returns all figures for a program, times in seconds.
pub fn json(ground: &str, outcomes: &[Outcome]) -> Value {
    let rows: Vec<Value> = outcomes.iter().map(row_json).collect();
    json!({ "on": ground, "rows": rows })
}

fn row_json(outcome: &Outcome) -> Value {
    let places: Vec<Value> = outcome.figures.iter().map(figure_json).collect();
    let bars: Vec<Value> = outcome.verdicts().map(|v| verdict_json(&v)).collect();
    let Row { name, title, .. } = outcome.row;
    json!({ "name": name, "title": title, "places": places, "bars": bars })
}

fn figure_json(figure: &Figure) -> Value {
    let Figure { place, best, median, memory } = figure;
    json!({
        "place": place,
        "best_s": best.as_secs_f64(),
        "median_s": median.as_secs_f64(),
        "memory_before_bytes": memory.map(|(before, _)| before),
        "memory_after_bytes": memory.map(|(_, after)| after),
    })
}

fn verdict_json(verdict: &Verdict) -> Value {
    let Verdict { bar, of_medians, of_bests, is_met } = verdict;
    json!({
        "view": bar.view,
        "beside": bar.peer,
        "bound": shown_bound(bar),
        "of_medians": of_medians,
        "of_bests": of_bests,
        "met": is_met,
    })
}

fn sentence(verdict: &Verdict) -> String {
    let Verdict { bar, of_medians, of_bests, is_met } = verdict;
    let measured = match bar.by {
        By::Median => format!("medians: {}", shown(bar, *of_medians)),
        By::Best => format!("bests: {}", shown(bar, *of_bests)),
    };
    let met = if *is_met { "met" } else { "NOT MET" };
    let beside = match bar.bound {
        Bound::Times(_) | Bound::Percent(_) => format!(" {}", bar.peer),
        Bound::Millis(_) => String::new(),
    };
    format!("bar: {} {}{beside}, {measured}, {met}", bar.view, shown_bound(bar))
}

fn shown_bound(bar: &Bar) -> String {
    match bar.bound {
        Bound::Times(bound) | Bound::Millis(bound) => format!("≤ {}", shown(bar, bound)),
        Bound::Percent(bound) => format!("≥ {}", shown(bar, bound)),
    }
}

fn shown(bar: &Bar, measured: f64) -> String {
    match bar.bound {
        Bound::Times(_) => format!("{measured:.2}×"),
        Bound::Percent(_) => format!("{measured:.0} %"),
        Bound::Millis(_) => format!("{measured:.2} ms"),
    }
}

fn in_unit(row: &Row, time: Duration) -> String {
    match row.unit {
        Unit::Time => show(time),
        Unit::Speed(bytes) => format!("{:.2} GB/s", bytes as f64 / 1e9 / time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers::{BARE, PASSTHROUGH};
    use super::super::row::ROWS;
    use super::*;

    fn outcome(row: &str, figures: &[(&'static str, u64, u64)]) -> Outcome {
        let row = ROWS.iter().find(|known| known.name == row).unwrap();
        let figure = |(place, best, median): &(&'static str, u64, u64)| Figure {
            place,
            best: Duration::from_micros(*best),
            median: Duration::from_micros(*median),
            memory: None,
        };
        Outcome { row, figures: figures.iter().map(figure).collect() }
    }

    #[track_caller]
    fn check(row: &str, figures: &[(&'static str, u64, u64)], expect: &[&str]) {
        let outcome = outcome(row, figures);
        let said: Vec<String> = outcome.verdicts().map(|v| sentence(&v)).collect();
        assert_eq!(said, expect);
    }

    #[test]
    fn a_bar_is_met_or_not() {
        let bar = "bar: gate ≤ 1.25× passthrough_hp, medians";
        check("open", &[(PASSTHROUGH, 9, 40), (GATE, 1, 50)], &[&format!("{bar}: 1.25×, met")]);
        check("open", &[(PASSTHROUGH, 9, 40), (GATE, 1, 51)], &[&format!("{bar}: 1.27×, NOT MET")]);
        let bar = "bar: gate ≥ 95 % passthrough_hp, bests";
        check("read", &[(PASSTHROUGH, 95, 1), (GATE, 100, 9)], &[&format!("{bar}: 95 %, met")]);
        check(
            "write",
            &[(BARE, 4, 4), (GATE, 4, 10)],
            &["bar: gate ≥ 45 % bare, medians: 40 %, NOT MET"],
        );
    }

    #[test]
    fn a_bar_beside_who_did_not_take_part_is_no_verdict() {
        check("open", &[(BARE, 1, 1), (GATE, 1, 50)], &[]);
    }
}
