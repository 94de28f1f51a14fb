//! `gate man`

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::failure::{Exit, Failure};
use crate::output;

/// Write manual pages
#[derive(Debug, clap::Args)]
#[command(after_help = "To read one: gate man --page hold | man -l -")]
pub struct Args {
    /// Where to write all of them; without it one is written to the standard output
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Which one, as `hold` or `mount-add` [default: that of gate itself]
    #[arg(long, value_name = "COMMAND", conflicts_with = "dir")]
    page: Option<String>,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        match &self.dir {
            Some(dir) => write_all(dir)?,
            None => output::print(&one(self.page.as_deref())?)?,
        }
        Ok(Exit::Success)
    }
}

fn write_all(dir: &Path) -> Result<(), Failure> {
    let cannot = |error: io::Error| {
        let what = format!("cannot write manual pages into {}", dir.display());
        Failure::new(what, error, "give a directory that can be written to")
    };
    fs::create_dir_all(dir).map_err(cannot)?;
    for page in pages() {
        page.generate_to(dir).map_err(cannot)?;
    }
    Ok(())
}

fn one(page: Option<&str>) -> Result<String, Failure> {
    let name = page.map_or_else(|| "gate.1".to_owned(), |page| format!("gate-{page}.1"));
    let found = pages().into_iter().find(|page| page.get_filename() == name);
    let page = found.ok_or_else(|| {
        let cause = "no command has that name";
        let hint = "`gate --help` lists the commands; those of `gate mount` are as `mount-add`";
        Failure::new(format!("there is no page {name}"), cause, hint).exit(Exit::Unable)
    })?;
    let mut text = Vec::new();
    page.render(&mut text).map_err(|error| output::cannot_write(&error))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Returns a page for each command that `--help` names.
fn pages() -> Vec<Man> {
    fn collect(command: &clap::Command, pages: &mut Vec<Man>) {
        let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
        shown.for_each(|command| collect(command, pages));
        let source = format!("gate {}", env!("CARGO_PKG_VERSION"));
        pages.push(Man::new(command.clone()).manual("Gate").source(source));
    }
    // Without it each command would bring one page more, of its own `help`.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, &mut pages);
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_found_by_the_name_of_its_command() {
        for (page, line) in [
            (None, ".TH gate 1"),
            (Some("hold"), ".TH gate-hold 1"),
            (Some("mount-add"), ".TH gate-mount-add 1"),
        ] {
            let text = one(page).unwrap();
            assert!(text.lines().any(|l| l.starts_with(line)), "{page:?}: {text}");
        }
        assert!(one(Some("help")).unwrap_err().to_string().contains("no page gate-help.1"));
    }
}
