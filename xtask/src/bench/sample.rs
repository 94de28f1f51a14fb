//! Paired samples and the table they make.

use std::time::{Duration, Instant};

/// Runs `work` in each place in turn, `rounds` times; returns the times of each place, sorted.
/// Each round begins with another place.
///
/// `work` gets the number of the place and of the round and returns what it measured.
pub fn paired<E>(
    name: &str,
    places: usize,
    rounds: usize,
    mut work: impl FnMut(usize, usize) -> Result<Duration, E>,
) -> Result<Vec<Samples>, E> {
    let mut samples = vec![Samples(Vec::with_capacity(rounds)); places];
    let mut told = Instant::now();
    for round in 0..rounds {
        for turn in 0..places {
            let place = (round + turn) % places;
            samples[place].0.push(work(place, round)?);
        }
        if told.elapsed() > Duration::from_secs(2) {
            eprintln!("   {name}: {} of {rounds}", round + 1);
            told = Instant::now();
        }
    }
    for samples in &mut samples {
        samples.0.sort_unstable();
    }
    Ok(samples)
}

/// Sorted times of one thing in one place.
#[derive(Debug, Clone)]
pub struct Samples(pub Vec<Duration>);

impl Samples {
    /// Returns the time that `percent` of the samples do not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        self.per_mille(percent * 10)
    }

    /// Returns the time that so many of a thousand samples do not exceed.
    pub fn per_mille(&self, part: usize) -> Duration {
        let at = (self.0.len() * part / 1_000).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }

    /// Returns the shortest.
    pub fn best(&self) -> Duration {
        self.percentile(0)
    }

    /// Returns the median.
    pub fn median(&self) -> Duration {
        self.percentile(50)
    }
}

/// Prints the heads of a table whose first columns are wide.
pub fn print_heads(heads: &[&str]) {
    print_row(heads);
    let dashes: Vec<String> = heads.iter().map(|head| "-".repeat(head.len().max(3))).collect();
    print_row(&dashes.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Prints one row.
pub fn print_row(cells: &[&str]) {
    let (first, rest) = cells.split_first().unwrap_or((&"", &[]));
    let rest: Vec<String> = rest.iter().map(|cell| format!("{cell:>12}")).collect();
    println!("| {first:<36} | {} |", rest.join(" | "));
}

/// Shows a time in the unit that fits it.
pub fn show(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        0.0..1_000.0 => format!("{micros:.1} µs"),
        1_000.0..1_000_000.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// Shows how many times as long `time` is as `unit`.
pub fn ratio(time: Duration, unit: Duration) -> String {
    format!("{:.2}×", time.as_secs_f64() / unit.as_secs_f64().max(1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_take_turns_and_medians_are_of_sorted_times() {
        let mut order = Vec::new();
        let samples = paired("x", 2, 3, |place, round| {
            order.push((place, round));
            Ok::<_, ()>(Duration::from_millis([30, 10, 20][round]))
        });
        assert_eq!(order, [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2)]);
        let samples = samples.unwrap();
        assert_eq!(samples[1].median(), Duration::from_millis(20));
        assert_eq!(samples[1].percentile(99), Duration::from_millis(30));
        assert_eq!(show(Duration::from_micros(1500)), "1.5 ms");
        assert_eq!(ratio(Duration::from_secs(3), Duration::from_secs(2)), "1.50×");
    }
}
