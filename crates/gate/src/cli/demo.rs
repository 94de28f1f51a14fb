//! `gate demo`
//!
//! Two writers and a reader, each a process of its own, want one file at the same time. They say
//! what happens to them on one pipe, so that what is seen is the order in which it happened.

mod actor;
mod play;

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;

use crate::failure::{Exit, Failure};
use crate::output;
use actor::Part;
use play::Play;

/// The file that two terminals share.
const SHARED_NAME: &str = ".gate-demo";

/// Show two writers and a reader taking turns
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory in a gated view, however it is mounted
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Play one part in this terminal, the other part in another one
    #[arg(long, value_enum, conflicts_with = "check")]
    role: Option<Role>,
    /// Only tell whether they took turns: exit status 0 if so
    #[arg(long)]
    check: bool,
    /// Play one part for another process of this program
    #[arg(long, hide = true, value_enum)]
    part: Option<Part>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Take the file and keep it until Enter is pressed
    Holder,
    /// Ask for the file and wait
    Waiter,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        if let Some(part) = self.part {
            return part.act(&self.path).map(|()| Exit::Success).map_err(|error| {
                Failure::new(format!("cannot use {}", self.path.display()), error, "look there")
            });
        }
        if !self.path.is_dir() {
            let what = format!("cannot play in {}", self.path.display());
            let hint = "give a directory in a gated view";
            return Err(Failure::new(what, "it is no directory", hint).exit(Exit::Unable));
        }
        match self.role {
            Some(role) => role.play(&self.path),
            None => Play::in_dir(&self.path, !self.check)?.run().map(|()| Exit::Success),
        }
    }
}

impl Role {
    fn play(self, dir: &Path) -> Result<Exit, Failure> {
        let start = Instant::now();
        let say = |what: &str| output::print(&stamped(start, what));
        let path = dir.join(SHARED_NAME);
        say(&format!("asks for {} to write", path.display()))?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|error| {
            Failure::new(format!("cannot open {}", path.display()), error, "`gate why` may tell")
        })?;
        say("is let in")?;
        if let Role::Holder = self {
            say("holds it: start `gate demo --role waiter` elsewhere, then press Enter here")?;
            // The end of the input is as good as Enter.
            let _ = io::stdin().read_line(&mut String::new());
        }
        say("lets go")?;
        drop(file);
        // Waits for the other one's turn to end; who comes second finds nothing.
        let _ = std::fs::remove_file(&path);
        Ok(Exit::Success)
    }
}

/// Returns a line with the time since the start.
fn stamped(start: Instant, what: &str) -> String {
    format!("{:8.3}s  {what}\n", start.elapsed().as_secs_f64())
}
