//! What commands write: tables for people and JSON for programs to standard output, what else is to be
//! said to standard error.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde::Serialize;

use crate::failure::{Exit, Failure};

/// What a process ends with whose reader went away.
const BROKEN_PIPE: Exit = Exit::Signal(13);

/// How many of several are named.
const NAMED_MAX: usize = 5;

/// Writes to standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| cannot_write(&error))
}

/// Says something to people on standard error. Nothing ends because it cannot be written there: the
/// log file of a view lies on a disk that may be full.
pub fn say(text: impl Display) {
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}

/// As [`say`], a line.
pub fn say_line(text: impl Display) {
    say(format_args!("{text}\n"));
}

/// Says why nothing more can be written to standard output.
pub fn cannot_write(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(BROKEN_PIPE),
        _ => Failure::new("cannot write the output", error, "look at where it is sent to"),
    }
}

/// Writes one value as a line of JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text =
        serde_json::to_string(value).expect("our own values have string keys and no odd numbers");
    text.push('\n');
    print(&text)
}

/// Rows under a heading, as wide as they must be.
#[derive(Debug)]
pub struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// Begins a table.
    pub fn new(heading: [&str; COLUMNS]) -> Self {
        Table { rows: vec![heading.map(str::to_owned)] }
    }

    /// Adds a row. Names are others' bytes: nothing in them may steer the terminal.
    pub fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.map(|cell| printable(&cell)));
    }

    /// Returns whether there is nothing below the heading.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// Returns it as text.
    pub fn text(&self) -> String {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or(0));
        let line = |row: &[String; COLUMNS]| {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            let mut line = cells.collect::<Vec<_>>().join("  ").trim_end().to_owned();
            line.push('\n');
            line
        };
        self.rows.iter().map(line).collect()
    }
}

/// Returns some of what is named, in a row, and how many there are beyond.
pub fn some_of(names: &[String]) -> String {
    match names.split_at_checked(NAMED_MAX) {
        Some((named, more @ [_, ..])) => format!("{}, {} more", named.join(", "), more.len()),
        _ => names.join(", "),
    }
}

/// Returns a number of bytes as people say it.
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut from_largest = units.into_iter().enumerate().rev();
    let Some((power, unit)) = from_largest.find(|(power, _)| count >> (10 * (power + 1)) > 0)
    else {
        return format!("{count} B");
    };
    let tenths = (u128::from(count) * 10) >> (10 * (power + 1));
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Returns text in which characters that steer a terminal are spelt out.
pub fn printable(text: &str) -> String {
    let spell = |c: char| match steers(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(spell).collect()
}

/// Control characters, and those that break lines or turn the direction of what follows.
fn steers(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_said_in_the_largest_unit_of_which_there_is_one() {
        let said = [0, 1023, 1024, 1536, 5 << 20, (1 << 30) - 1, u64::MAX].map(bytes);
        let expected = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "1023.9 MiB", "15.9 EiB"];
        assert_eq!(said, expected);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["STATE", "PATH"]);
        assert!(table.is_empty());
        table.row(["held".into(), "a".into()]);
        table.row(["waiting".into(), "src/b".into()]);
        assert_eq!(table.text(), "STATE    PATH\nheld     a\nwaiting  src/b\n");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let mut table = Table::new(["PATH"]);
        table.row(["a\x1b[2J\nb".into()]);
        table.row(["gpj.\u{202e}exe".into()]);
        assert_eq!(table.text(), "PATH\na\\u{1b}[2J\\nb\ngpj.\\u{202e}exe\n");
    }
}
