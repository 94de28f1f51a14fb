//! A view that is mounted, written and read, to see whether it works here.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::Machine;
use crate::failure::Failure;
use crate::temporary::TemporaryView;
use crate::unmount;
use crate::within::within;

/// How long writing and reading a few bytes may take.
const PATIENCE: Duration = Duration::from_secs(10);
const TEXT: &[u8] = b"gate doctor\n";

/// What became of it.
#[derive(Debug)]
pub enum Trial {
    /// FUSE cannot be used here, as another check says.
    Skipped,
    Works,
    Failed(Failure),
}

/// Tries it.
pub fn run(machine: &Machine) -> Trial {
    if !machine.has_fuse() {
        return Trial::Skipped;
    }
    match attempt() {
        Ok(()) => Trial::Works,
        Err(failure) => Trial::Failed(failure),
    }
}

fn attempt() -> Result<(), Failure> {
    let view = TemporaryView::mount_in(&std::env::temp_dir())?;
    let (source, point) = (view.source(), view.point());
    let failed = |cause: &dyn std::fmt::Display| {
        Failure::new("the view cannot be used", cause, "look at `dmesg`, then try again")
    };
    let dirs = (source, point.clone());
    // What hangs ends with the view.
    match within(PATIENCE, move || use_it(dirs)) {
        Some(outcome) => outcome.map_err(|error| failed(&error))?,
        None => return Err(failed(&"it does not answer")),
    }
    view.end().map_err(|error| unmount::refused(&point, &error))
}

fn use_it((source, point): (PathBuf, PathBuf)) -> io::Result<()> {
    fs::write(point.join("file"), TEXT)?;
    for dir in [&point, &source] {
        if fs::read(dir.join("file"))? != TEXT {
            return Err(io::Error::other("what was written is not what is read"));
        }
    }
    fs::remove_file(point.join("file"))
}
