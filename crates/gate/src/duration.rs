//! Durations as people write them: `30s`, `500ms`, `2m`; a bare number is seconds.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use gate_api::wire::{LEASE_MS_MAX, LEASE_MS_MIN};

/// Parses a duration.
pub fn parse(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(format!("`{unit}` is none of ms, s, m, h, d")),
    };
    let number: f64 = number.parse().map_err(|_| "write it as 30s, 500ms or 2m".to_owned())?;
    Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|_| "it is too long".to_owned())
}

/// Parses the milliseconds of a lease.
pub fn lease_ms() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(LEASE_MS_MIN..=LEASE_MS_MAX)
}

/// Writes how long ago something was, in its two largest units at most.
pub fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Writes how long something took, in the unit that fits it.
pub fn fine(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    match micros {
        ..1e3 => format!("{micros:.1} µs"),
        1e3..1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_fractions() {
        for (text, ms) in
            [("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("1.5h", 5_400_000), ("0.1", 100)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "s", "3 s", "-1", "1e9", "5y", "1.2.3s", "99999999999999999999999d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn roughly() {
        for (seconds, text) in
            [(0, "0ms"), (59, "59s"), (61, "1m1s"), (7_260, "2h1m"), (90_000, "1d1h")]
        {
            assert_eq!(rough(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn finely() {
        for (nanos, text) in [(950, "0.9 µs"), (1_500_000, "1.5 ms"), (2_340_000_000, "2.34 s")] {
            assert_eq!(fine(Duration::from_nanos(nanos)), text);
        }
    }
}
