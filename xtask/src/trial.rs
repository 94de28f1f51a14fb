//! `cargo xtask try`: from a checkout to a view in which two writers take turns.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine;
use crate::step::{self, Failure, step};

/// Mounts a gated view of `source`, or of a sample repository, and shows two writers in it.
pub fn run(source: Option<&Path>, yes: bool) -> Result<(), Failure> {
    let given = source.map(absolute).transpose()?;
    step("prepare", || machine::prepare(&machine::TO_TRY, &[], yes))?;
    step("build", || step::run(&mut machine::cargo(&["build", "--quiet", "--package", "gate"])))?;
    let gate = absolute(&machine::target().join("debug/gate"))?;
    let here = absolute(&machine::target())?.join("try");
    let source = match given {
        Some(dir) => dir,
        None => step("sample repository", || sample(&here.join("sample")))?,
    };
    let view = here.join("view");
    make_dir(&view)?;
    if is_mounted(&view) {
        step("unmount the view of the last try", || {
            step::run(Command::new(&gate).arg("umount").arg(&view))
        })?;
    }
    step("mount", || step::run(Command::new(&gate).arg("mount").args([&source, &view])))?;
    step("two writers take turns", || step::run(Command::new(&gate).arg("demo").arg(&view)))?;
    tell_what_next(&gate, &source, &view);
    Ok(())
}

fn tell_what_next(gate: &Path, source: &Path, view: &Path) {
    let [gate, source, view] = [gate, source, view].map(Path::display);
    println!("\n{source} is mounted, gated, at {view}. Type next:\n");
    let lines = [
        (format!("cd {view}"), "work here with any tool: every open takes its turn"),
        (format!("{gate} top"), "in another terminal: who holds, who waits"),
        (format!("{gate} hold README.md -- vi README.md"), "have it alone for as long as vi runs"),
        (format!("{gate} umount {view}"), "when you are done"),
        (format!("{gate} mount DIR"), "gates a directory of yours where it is, under its own path"),
    ];
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
    for (line, what) in lines {
        println!("  {line:width$}  {what}");
    }
}

/// A repository with a few commits, made once.
fn sample(dir: &Path) -> Result<PathBuf, Failure> {
    if dir.join(".git").exists() {
        return Ok(dir.to_owned());
    }
    make_dir(dir)?;
    let readme = "# A sample\n\nTwo writers take turns here.\n";
    fs::write(dir.join("README.md"), readme).map_err(|error| cannot_make(dir, error))?;
    let identity = ["-c", "user.name=Gate", "-c", "user.email=gate@localhost"];
    for words in [
        &["init", "--quiet", "--initial-branch", "main"][..],
        &["add", "."],
        &["commit", "--quiet", "--message", "a first commit"],
    ] {
        step::run(Command::new("git").arg("-C").arg(dir).args(identity).args(words))?;
    }
    Ok(dir.to_owned())
}

fn is_mounted(point: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == point))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| {
        let failure = Failure::new(format!("cannot find {}", path.display()), error);
        failure.hint("give a directory that exists")
    })
}

fn make_dir(dir: &Path) -> Result<(), Failure> {
    // The directory of a dead view exists, and cannot be looked at.
    if is_mounted(dir) { Ok(()) } else { fs::create_dir_all(dir).map_err(|e| cannot_make(dir, e)) }
}

fn cannot_make(dir: &Path, error: std::io::Error) -> Failure {
    Failure::new(format!("cannot make {}", dir.display()), error)
}
