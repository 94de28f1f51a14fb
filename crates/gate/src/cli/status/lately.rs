//! Turns that were taken away lately.

use std::fmt::Write as _;
use std::time::Duration;

use gate_api::Session;
use gate_api::event::Event;
use gate_api::wire::{Entry, Scope};
use serde::{Serialize, Serializer};

use crate::board;
use crate::output::printable;
use crate::told;

/// For how long a turn that was taken away is shown.
const LATELY: Duration = Duration::from_secs(60 * 60);
/// How many of them people are shown.
const SHOWN_MAX: usize = 4;

/// The oldest first.
#[derive(Debug, Default)]
pub struct Lately(Vec<Entry>);

impl Lately {
    /// Asks a broker; one that does not know tells of none.
    pub fn ask(session: &Session) -> Lately {
        let mut taken = session.why(Scope::Everything).map(|why| why.past).unwrap_or_default();
        let age = |at_ms| Duration::from_millis(board::now_ms().saturating_sub(at_ms));
        taken.retain(|entry| age(entry.record.at_ms) < LATELY);
        Lately(taken)
    }

    /// Returns lines for people: the newest, each with who it was and why.
    pub fn text(&self) -> String {
        let older = self.0.len().saturating_sub(SHOWN_MAX);
        let mut lines: Vec<String> =
            self.0[older..].iter().map(|entry| printable(&told::line(&entry.record))).collect();
        if older > 0 {
            lines.push(format!("and {older} more within an hour: see `gate log`"));
        }
        let mut text = String::new();
        for (line, title) in lines.iter().zip(["lately"].into_iter().chain(std::iter::repeat(""))) {
            let _ = writeln!(text, "{title:<8} {line}");
        }
        text
    }
}

/// As in `gate log --json`.
impl Serialize for Lately {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Event::of))
    }
}
