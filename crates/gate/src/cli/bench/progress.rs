//! How far a bench has come, on a terminal and nowhere else.

use std::io::IsTerminal as _;

use crate::output;

/// A line that is gone when this is dropped.
pub struct Progress {
    steps: usize,
    is_shown: bool,
}

impl Progress {
    pub fn new(steps: usize) -> Progress {
        Progress { steps, is_shown: std::io::stderr().is_terminal() }
    }

    /// Shows how many steps are done, and what is being done.
    pub fn tell(&self, done: usize, what: &str) {
        if self.is_shown {
            let (full, empty) = ("#".repeat(done), " ".repeat(self.steps.saturating_sub(done)));
            output::say(format_args!("\r\x1b[K[{full}{empty}] {what}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            output::say("\r\x1b[K");
        }
    }
}
