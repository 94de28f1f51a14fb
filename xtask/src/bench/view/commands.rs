//! Whole commands over a repository of three thousand files.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::row::{Round, Site};

/// Makes the repository that is cloned, beside all places.
const REPOSITORY: &str = "\
[ -d \"$1\" ] && exit; git init -q -b main \"$1\" && cd \"$1\" && \
for d in $(seq 60); do mkdir $d; for f in $(seq 50); do \
seq 100 > $d/$f.txt; echo needle $d $f >> $d/$f.txt; done; done && git add . && \
git -c user.name=x -c user.email=x@localhost commit -q -m first";
const CLONE: &str = "git clone -q --no-local \"$1\" clone";
const STATUS: &str = "git -C clone status >/dev/null";
const SEARCH: &str = "rg -c needle clone >/dev/null";

pub fn prepare_repository(site: &Site) -> io::Result<()> {
    shell(site, REPOSITORY)
}

/// Makes a clone, and lets git and the caches see all of it.
pub fn prepare_clone(site: &Site) -> io::Result<()> {
    prepare_repository(site)?;
    shell(site, &format!("[ -d clone ] || {CLONE} && {STATUS}"))
}

pub fn clone(site: &Site) -> io::Result<Round> {
    shell(site, "rm -rf clone")?;
    timed(site, CLONE)
}

pub fn status(site: &Site) -> io::Result<Round> {
    timed(site, STATUS)
}

pub fn search(site: &Site) -> io::Result<Round> {
    timed(site, SEARCH)
}

fn timed(site: &Site, script: &str) -> io::Result<Round> {
    let started = Instant::now();
    shell(site, script)?;
    Ok(Round { time: started.elapsed(), operations: 1 })
}

/// Runs a script in a place; its `$1` is the repository.
fn shell(site: &Site, script: &str) -> io::Result<()> {
    let repository: &Path = &site.ground.join("repository");
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(repository).current_dir(&site.dir);
    // No settings of whoever runs this.
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    let status = command.stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("`{script}`: {status}"))) }
}
