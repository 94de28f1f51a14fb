//! What people see when a command fails: what, why, and what to type next.
//!
//! Always three lines on standard error. How a command ended is an [`Exit`].

use std::fmt;
use std::process::ExitCode;

use crate::output;

/// How a command ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Success,
    /// It did not work, or somebody else holds it.
    Failed,
    /// It was asked wrongly, or no broker answers.
    Unable,
    /// It waited as long as it was allowed to.
    TimedOut,
    /// The command to run cannot be run.
    NotExecutable,
    /// The command to run does not exist.
    NotFound,
    /// A signal with this number ended it.
    Signal(u8),
    /// Somebody else decided.
    Code(u8),
}

impl Exit {
    /// Returns the number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Unable => 2,
            Exit::TimedOut => 124,
            Exit::NotExecutable => 126,
            Exit::NotFound => 127,
            Exit::Signal(number) => number.saturating_add(128),
            Exit::Code(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    text: String,
    exit: Exit,
}

impl Failure {
    /// Says what failed, why, and what to type next.
    pub fn new(
        error: impl fmt::Display,
        cause: impl fmt::Display,
        hint: impl fmt::Display,
    ) -> Self {
        let line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (error, cause) = (line(error.to_string()), line(cause.to_string()));
        let hint = line(hint.to_string());
        let text = format!("error: {error}\ncause: {cause}\nhint:  {hint}\n");
        Failure { text, exit: Exit::Failed }
    }

    /// Passes on what another process of ours has already put into words.
    pub fn passed_on(text: String, exit: Exit) -> Self {
        Failure { text, exit }
    }

    /// Ends without a word: nobody is left to read it.
    pub fn silent(exit: Exit) -> Self {
        Failure { text: String::new(), exit }
    }

    /// Returns one of its lines: `error`, `cause` or `hint`.
    pub fn line(&self, name: &str) -> Option<&str> {
        let mut lines = self.text.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(head, rest)| (head == name).then_some(rest.trim_start()))
    }

    /// Sets how the command ends.
    pub fn exit(self, exit: Exit) -> Self {
        Failure { exit, ..self }
    }

    /// Tells the user, and returns how the command ends.
    pub fn report(&self) -> Exit {
        output::say(&self.text);
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_three_lines_whatever_the_cause_holds() {
        let failure = Failure::new("cannot mount", "first\n  second", "try again");
        let expected = "error: cannot mount\ncause: first second\nhint:  try again\n";
        assert_eq!(failure.to_string(), expected);
        assert_eq!(
            (failure.line("cause"), failure.line("hint")),
            (Some("first second"), Some("try again"))
        );
    }

    #[test]
    fn a_signal_ends_as_shells_say_it() {
        assert_eq!(Exit::Signal(2).code(), 130);
        assert_eq!(Exit::Signal(15).code(), 143);
    }
}
