//! The command line: one file per command, each with its flags and a `run`.

mod bench;
mod r#break;
mod broker;
pub mod bucket;
mod completions;
mod config;
mod daemon;
mod demo;
mod doctor;
mod hold;
mod init;
pub mod locks;
pub mod log;
mod man;
mod mount;
mod passphrase;
mod recall;
mod restore;
mod run;
mod status;
mod top;
mod umount;
mod unlock;
mod version;
pub mod why;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::failure::{Exit, Failure};

/// Let people, editors, scripts and agents take turns on the same files
#[derive(Debug, Parser)]
#[command(name = "gate", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mount(Box<mount::Args>),
    Umount(umount::Args),
    Status(status::Args),
    Locks(locks::Args),
    Top(top::Args),
    Why(why::Args),
    Log(log::Args),
    Restore(restore::Args),
    Hold(hold::Args),
    Recall(recall::Args),
    Break(r#break::Args),
    Run(run::Args),
    Demo(demo::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
    Init(init::Args),
    Unlock(unlock::Args),
    Passphrase(passphrase::Args),
    Bucket(bucket::Args),
    Broker(broker::Args),
    Daemon(daemon::Args),
    Config(config::Args),
    Version(version::Args),
    Completions(completions::Args),
    Man(man::Args),
}

impl Cli {
    /// Does what it says.
    pub fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Command::Mount(args) => args.run(),
            Command::Umount(args) => args.run(),
            Command::Status(args) => args.run(),
            Command::Locks(args) => args.run(),
            Command::Top(args) => args.run(),
            Command::Why(args) => args.run(),
            Command::Log(args) => args.run(),
            Command::Restore(args) => args.run(),
            Command::Hold(args) => args.run(),
            Command::Recall(args) => args.run(),
            Command::Break(args) => args.run(),
            Command::Run(args) => args.run(),
            Command::Demo(args) => args.run(),
            Command::Doctor(args) => args.run(),
            Command::Bench(args) => args.run(),
            Command::Init(args) => args.run(),
            Command::Unlock(args) => args.run(),
            Command::Passphrase(args) => args.run(),
            Command::Bucket(args) => args.run(),
            Command::Broker(args) => args.run(),
            Command::Daemon(args) => args.run(),
            Command::Config(args) => args.run(),
            Command::Version(args) => args.run(),
            Command::Completions(args) => args.run(),
            Command::Man(args) => args.run(),
        }
    }
}

/// Answers a command line that asks for help or makes no sense.
pub fn misunderstood(error: &clap::Error, words: &[OsString]) -> Result<Exit, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print_as_it_is(error);
            Ok(Exit::Success)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            print_as_it_is(error);
            Ok(Exit::Unable)
        }
        _ => Err(usage(&error.to_string(), words)),
    }
}

fn print_as_it_is(error: &clap::Error) {
    // Whoever asked for help and went away does not miss it.
    let _ = error.print();
}

/// Puts what clap says into three lines: its first paragraph is the cause, its usage the hint.
fn usage(text: &str, words: &[OsString]) -> Failure {
    let mut paragraphs = text.split("\n\n");
    let cause = paragraphs.next().unwrap_or_default().trim_start_matches("error: ");
    let usage = paragraphs.find_map(|paragraph| paragraph.trim().strip_prefix("Usage: "));
    let tip = text.split("\n\n").find_map(|paragraph| paragraph.trim().strip_prefix("tip: "));
    let guess = tip.filter(|tip| tip.contains("similar"));
    let hint = match (guess, usage) {
        (Some(guess), _) => guess.to_owned(),
        (None, Some(usage)) => format!("write it as `{}`, or see --help", usage.trim()),
        (None, None) => match words.get(1).and_then(subcommand) {
            Some(command) => format!("see `gate {} --help`", command.get_name()),
            None => "see `gate --help`".to_owned(),
        },
    };
    Failure::new("cannot understand the command line", cause, hint).exit(Exit::Unable)
}

fn subcommand(name: &OsString) -> Option<clap::Command> {
    Cli::command().find_subcommand(name).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<const N: usize>(words: [&str; N]) -> String {
        let error = Cli::try_parse_from(words).unwrap_err();
        misunderstood(&error, &words.map(OsString::from)).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_three_lines() {
        let text = refusal(["gate", "locks", "--nonsense"]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].contains("'--nonsense'"), "{text}");
        assert!(lines[2].contains("gate locks"), "{text}");
    }

    #[test]
    fn what_was_mistyped_is_guessed_at() {
        let text = refusal(["gate", "statsu"]);
        assert!(text.contains("hint:  a similar subcommand exists: 'status'"), "{text}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = refusal(["gate", "umount"]);
        assert!(text.contains("<MOUNTPOINT>"), "{text}");
    }

    #[test]
    fn a_value_that_is_none_points_to_the_help_of_its_command() {
        let text = refusal(["gate", "broker", "--port", "x"]);
        assert!(text.contains("--port") && text.contains("`gate broker --help`"), "{text}");
    }

    #[test]
    fn every_command_and_flag_has_a_help_text() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty() && !help.ends_with('.'), "{argument}: {help}");
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
