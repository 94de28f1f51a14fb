//! Steps: a command each, with a line that says how long it took, and failures in three lines.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What failed, why, and what to type next.
#[derive(Debug)]
pub struct Failure {
    /// What failed.
    pub error: String,
    /// Why.
    pub cause: String,
    /// What to do about it.
    pub hint: String,
}

impl Failure {
    /// A failure that only a look at its cause can mend.
    pub fn new(error: impl Into<String>, cause: impl fmt::Display) -> Self {
        let hint = "mend the cause, then run the same command again".to_owned();
        Self { error: error.into(), cause: cause.to_string(), hint }
    }

    /// The same failure with advice of its own.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { error, cause, hint } = self;
        write!(f, "error: {error}\ncause: {cause}\nhint:  {hint}")
    }
}

/// Does `work` and prints a line with `name` and the time it took.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    println!("── {name}");
    let started = Instant::now();
    let outcome = work();
    let mark = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!("── {name}: {mark}, {}", seconds(started.elapsed()));
    outcome
}

/// Runs a command whose output the user sees; its failure is ours.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    let name = words_of(command);
    let status =
        command.status().map_err(|error| Failure::new(format!("cannot run `{name}`"), error))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("`{name}` failed"), status)) }
}

/// Runs a command and returns what it prints.
pub fn output(command: &mut Command) -> Result<String, Failure> {
    let name = words_of(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::new(format!("cannot run `{name}`"), error))?;
    if !output.status.success() {
        return Err(Failure::new(format!("`{name}` failed"), output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| Failure::new(format!("`{name}`"), error))
}

/// Shows a duration as people time steps.
pub fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

fn words_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.display().to_string()).collect::<Vec<_>>().join(" ")
}
