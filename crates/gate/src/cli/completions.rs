//! `gate completions`

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::{Exit, Failure};
use crate::output;

/// Write a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "For bash: source <(gate completions bash)")]
pub struct Args {
    /// The shell
    shell: Shell,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "gate", &mut script);
        output::print(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Success)
    }
}
