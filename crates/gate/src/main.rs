//! `gate`: the program that people, scripts and agents run.
//!
//! [`cli`] has one file per command. Beside it lies what several commands need: [`reach`] finds
//! the broker, [`seen`] tells which view shows a path, [`footing`] where another can stand, [`board`] words what the broker says of
//! locks, [`bypass`] how one comes past a view, [`background`] makes processes that stay, [`temporary`] a view that goes with its command,
//! [`within`] gives up on what hangs, [`fstab`] is what mount(8) calls, [`notify`] what systemd hears, [`failure`] is how every command fails, [`fault`] how a
//! server ends whose code is wrong.

// They panic where standard error cannot be written: `output::say` does not.
#![deny(clippy::print_stderr)]

mod activation;
mod archive;
mod ask;
mod background;
mod board;
mod bypass;
mod cli;
mod config;
mod daemon;
mod duration;
mod failure;
mod fault;
mod footing;
mod fstab;
mod interruption;
mod log;
mod notify;
mod output;
mod overwritten;
mod processes;
mod progress;
mod query;
mod reach;
mod rest;
mod sealed;
mod seen;
#[cfg(test)]
mod shown;
mod signals;
mod standing;
mod target;
mod temporary;
mod tie;
mod tokens;
mod told;
mod unmount;
mod userns;
mod web;
mod within;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    log::start();
    let words: Vec<_> = std::env::args_os().collect();
    let outcome = match cli::Cli::try_parse_from(&words) {
        _ if fstab::is_called(&words) => fstab::run(&words),
        Ok(cli) => cli.run(),
        Err(error) => cli::misunderstood(&error, &words),
    };
    outcome.unwrap_or_else(|failure| failure.report()).into()
}
