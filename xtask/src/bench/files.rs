//! Small files, one system call after the other, in this process.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::places::Places;
use super::sample::{Samples, paired, print_heads, print_row, ratio, show, timed};
use crate::step::Failure;

const ROUNDS: usize = 2000;
const PAGE: [u8; 4096] = [b'x'; 4096];

type Work = fn(&Path) -> std::io::Result<()>;

const WORKS: [(&str, Work); 4] = [
    ("open, read 4 KiB, close", read),
    ("create, write 4 KiB, close, unlink", create),
    ("save by rename", save),
    ("stat", stat),
];

/// Measures and prints.
pub fn run(places: &Places) -> Result<(), Failure> {
    let dirs = places.dirs();
    for dir in &dirs {
        prepare(dir).map_err(|error| Failure::new("cannot write into a place", error))?;
    }
    print_places_heads();
    for (name, work) in WORKS {
        let samples = paired(name, dirs.len(), ROUNDS, |place, _| {
            timed(|| work(&dirs[place]).map_err(|e| failed(name, &dirs[place], &e)))
        })?;
        print_places_row(name, &samples);
    }
    Ok(())
}

/// Prints the heads for one time and two ratios in each place.
pub fn print_places_heads() {
    println!();
    let [bare, bindfs, gate] = Places::NAMES;
    print_heads(&["median", bare, bindfs, gate, "gate/bare", "gate/bindfs"]);
}

/// Prints the medians of the places and what the view costs beside the others.
pub fn print_places_row(name: &str, samples: &[Samples]) {
    let medians: Vec<_> = samples.iter().map(Samples::median).collect();
    let [bare, bindfs, gate] = medians[..] else { unreachable!("a sample for each place") };
    let cells = [show(bare), show(bindfs), show(gate), ratio(gate, bare), ratio(gate, bindfs)];
    let cells = std::iter::once(name).chain(cells.iter().map(String::as_str));
    print_row(&cells.collect::<Vec<_>>());
}

/// What failed, where.
pub fn failed(name: &str, dir: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("cannot measure `{name}` in {}", dir.display()), error)
}

fn prepare(dir: &Path) -> std::io::Result<()> {
    fs::create_dir(dir.join("files"))?;
    fs::write(file(dir, "read"), PAGE)
}

fn read(dir: &Path) -> std::io::Result<()> {
    File::open(file(dir, "read"))?.read_exact(&mut [0; PAGE.len()])
}

fn create(dir: &Path) -> std::io::Result<()> {
    let path = file(dir, "created");
    File::create_new(&path)?.write_all(&PAGE)?;
    fs::remove_file(path)
}

fn save(dir: &Path) -> std::io::Result<()> {
    let draft = file(dir, "saved.tmp");
    File::create_new(&draft)?.write_all(&PAGE)?;
    fs::rename(draft, file(dir, "saved"))
}

fn stat(dir: &Path) -> std::io::Result<()> {
    fs::metadata(file(dir, "read")).map(drop)
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join("files").join(name)
}
