//! Small files, one system call after the other, in this process.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::row::{Round, Site};
use crate::bench::peer::samples;

/// How often a round does it; the median of these is the time of the round.
const OPERATIONS: usize = 300;
const PAGE: [u8; 4096] = [b'x'; 4096];

/// Makes the file that is read and looked at.
pub fn prepare(site: &Site) -> io::Result<()> {
    fs::create_dir_all(site.dir.join("small"))?;
    fs::write(file(&site.dir, "read"), PAGE)
}

pub fn open(site: &Site) -> io::Result<Round> {
    let path = file(&site.dir, "read");
    round(|| File::open(&path)?.read_exact(&mut [0; PAGE.len()]))
}

pub fn create(site: &Site) -> io::Result<Round> {
    let path = file(&site.dir, "created");
    round(|| {
        File::create_new(&path)?.write_all(&PAGE)?;
        fs::remove_file(&path)
    })
}

pub fn save(site: &Site) -> io::Result<Round> {
    let [draft, saved] = ["saved.tmp", "saved"].map(|name| file(&site.dir, name));
    round(|| {
        File::create_new(&draft)?.write_all(&PAGE)?;
        fs::rename(&draft, &saved)
    })
}

pub fn stat(site: &Site) -> io::Result<Round> {
    let path = file(&site.dir, "read");
    round(|| fs::metadata(&path).map(drop))
}

fn round(mut work: impl FnMut() -> io::Result<()>) -> io::Result<Round> {
    let mut times = Vec::with_capacity(OPERATIONS);
    for _ in 0..OPERATIONS {
        let started = Instant::now();
        work()?;
        times.push(started.elapsed());
    }
    Ok(Round { time: samples(times).median(), operations: OPERATIONS })
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join("small").join(name)
}
