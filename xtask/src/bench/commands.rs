//! Whole commands over a repository of three thousand files.

use std::path::Path;
use std::process::{Command, Stdio};

use super::files::{failed, print_places_heads, print_places_row};
use super::places::Places;
use super::sample::{paired, timed};
use crate::step::Failure;

const ROUNDS: usize = 5;
const DIRS: usize = 60;
const FILES: usize = 50;

/// What is done before each round, unmeasured, and what is measured; `$1` is the repository.
const WORKS: [(&str, &str, &str); 3] = [
    ("git clone of 3 000 files", "rm -rf clone", "git clone -q --no-local \"$1\" clone"),
    ("git status", "git -C clone status >/dev/null", "git -C clone status >/dev/null"),
    ("rg", ":", "rg -c needle clone >/dev/null"),
];

/// Measures and prints.
pub fn run(places: &Places) -> Result<(), Failure> {
    let repository = places.beside("repository");
    make_repository(&repository)?;
    let dirs = places.dirs();
    print_places_heads();
    for (name, before, work) in WORKS {
        let samples = paired(name, dirs.len(), ROUNDS, |place, _| {
            let dir = &dirs[place];
            shell(name, dir, before, &repository)?;
            timed(|| shell(name, dir, work, &repository))
        })?;
        print_places_row(name, &samples);
    }
    Ok(())
}

fn make_repository(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir(dir).map_err(|e| failed("a repository", dir, &e))?;
    let script = format!(
        "git init -q -b main . && for d in $(seq {DIRS}); do mkdir $d; for f in $(seq {FILES}); do \
         seq 100 > $d/$f.txt; echo needle $d $f >> $d/$f.txt; done; done && git add . && \
         git -c user.name=x -c user.email=x@localhost commit -q -m first"
    );
    shell("a repository", dir, &script, dir)
}

fn shell(name: &str, dir: &Path, script: &str, repository: &Path) -> Result<(), Failure> {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(repository).current_dir(dir).stdin(Stdio::null());
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(name, dir, &status)),
        Err(error) => Err(failed(name, dir, &error)),
    }
}
