//! `gate run`

mod private;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use gate_core::lock::limits::TEXT_BYTES_MAX;

use crate::failure::{Exit, Failure};
use crate::processes::{AGENT_VARIABLE, RUN_VARIABLE};
use crate::seen;

/// Run a command as one agent: its exit status is ours
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the agent, shown wherever it holds or waits [default: the command's]
    #[arg(long, value_name = "NAME", env = "GATE_AGENT", value_parser = agent)]
    agent: Option<String>,
    /// Directory to run it in
    #[arg(long = "in", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Which view of the directory it sees: the one that all see, or one of its own at the same place
    #[arg(long, value_enum, default_value_t = View::Shared)]
    view: View,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

/// Which view a command sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum View {
    /// What everybody sees there
    Shared,
    /// A view of its own, which lives as long as what was run; all in it are this agent
    Private,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let agent = self.agent.unwrap_or_else(|| name_of(&self.command[0]));
        if let Some(dir) = &self.dir {
            std::env::set_current_dir(dir).map_err(|error| cannot_run_in(dir, error))?;
        }
        if self.view == View::Private {
            let dir = seen::here().map_err(|error| cannot_run_in(".".as_ref(), error))?;
            private::enter(&dir, &agent)?;
        }
        let mut command = prepare(&self.command);
        command.env(RUN_VARIABLE, run_of(&agent)).env(AGENT_VARIABLE, agent);
        Err(cannot_run(&self.command, &command.exec()))
    }
}

fn cannot_run_in(dir: &Path, error: io::Error) -> Failure {
    let what = format!("cannot run in {}", dir.display());
    Failure::new(what, error, "give a directory to --in").exit(Exit::Unable)
}

/// Returns what tells this run from others of an agent of the same name: the process that the
/// command will be. Below a run of the same agent it is that run.
fn run_of(agent: &str) -> OsString {
    let above = std::env::var_os(RUN_VARIABLE);
    let is_same = std::env::var_os(AGENT_VARIABLE).is_some_and(|above| above == agent);
    let own = gate_api::process::own();
    above
        .filter(|_| is_same)
        .unwrap_or_else(|| format!("{:x}-{}-{}", own.namespace, own.pid, own.start).into())
}

/// Makes a command of a program and its arguments; clap has seen to it that there is one.
pub fn prepare(words: &[OsString]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// Says why a command was not run, in the exit codes of shells.
pub fn cannot_run(words: &[OsString], error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::NotFound => Exit::NotFound,
        _ => Exit::NotExecutable,
    };
    let what = format!("cannot run {}", words[0].display());
    Failure::new(what, error, "check its name and its mode").exit(exit)
}

/// Parses the name of an agent: the broker keeps no longer ones.
fn agent(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return Err(format!("a name has 1 to {TEXT_BYTES_MAX} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("a name has no control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// Returns the name of a program, for people.
pub fn name_of(program: &OsStr) -> String {
    let name = std::path::Path::new(program).file_name().unwrap_or(program);
    let name = name.display().to_string();
    name.chars().filter(|c| !c.is_control()).take(TEXT_BYTES_MAX / 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_printable() {
        assert!(agent("ada").is_ok());
        assert!(agent("").is_err());
        assert!(agent("a\nb").is_err());
        assert!(agent(&"x".repeat(257)).is_err());
        assert_eq!(name_of("/usr/bin/claude".as_ref()), "claude");
    }
}
