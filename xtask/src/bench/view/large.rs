//! One large file: from end to end, and here and there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::{Advice, fadvise, syncfs};

use super::row::{Behind, Round, Site};
use crate::bench::peer::samples;

/// How large it is.
pub const BYTES: u64 = 256 << 20;
/// How much is read or written at once, as `cp` does.
const PIECE: usize = 128 << 10;
const PAGE: usize = 4096;
const PAGES: u64 = BYTES / PAGE as u64;
/// How many pages a round reads or writes.
const OPERATIONS: u64 = 2_000;
/// How often one opens and closes it for a page.
const REWRITES: u64 = 100;

/// Makes the file that is read.
pub fn prepare(site: &Site) -> io::Result<()> {
    match fs::metadata(large(site)) {
        Ok(meta) if meta.len() == BYTES => Ok(()),
        Ok(_) => Err(io::Error::other("the large file has another size")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fill(&large(site), &fresh(BYTES as usize))
        }
        Err(error) => Err(error),
    }
}

pub fn write(site: &Site) -> io::Result<Round> {
    let path = site.dir.join("written");
    let bytes = fresh(BYTES as usize);
    // What was written before does not go to the disk meanwhile.
    syncfs(File::open(&site.ground)?)?;
    let started = Instant::now();
    fill(&path, &bytes)?;
    let time = started.elapsed();
    fs::remove_file(path)?;
    Ok(Round { time, operations: 1 })
}

pub fn read(site: &Site) -> io::Result<Round> {
    let mut piece = vec![0; PIECE];
    forget(site)?;
    let started = Instant::now();
    let mut file = File::open(large(site))?;
    while file.read(&mut piece)? > 0 {}
    Ok(Round { time: started.elapsed(), operations: 1 })
}

/// Opens it, writes one page and closes it.
pub fn rewrite(site: &Site) -> io::Result<Round> {
    let (mut times, mut page) = (Vec::with_capacity(REWRITES as usize), 1);
    for _ in 0..REWRITES {
        page = (page + 40_503) % PAGES;
        let bytes = fresh(PAGE);
        let started = Instant::now();
        let file = OpenOptions::new().write(true).open(large(site))?;
        file.write_all_at(&bytes, page * PAGE as u64)?;
        drop(file);
        times.push(started.elapsed());
    }
    Ok(Round { time: samples(times).median(), operations: REWRITES as usize })
}

pub fn read_here_and_there(site: &Site) -> io::Result<Round> {
    forget(site)?;
    here_and_there(File::open(large(site))?, |file, _, at| file.read_exact_at(&mut [0; PAGE], at))
}

pub fn write_here_and_there(site: &Site) -> io::Result<Round> {
    let file = OpenOptions::new().write(true).open(large(site))?;
    let bytes = fresh(OPERATIONS as usize * PAGE);
    here_and_there(file, |file, number, at| file.write_all_at(&bytes[number * PAGE..][..PAGE], at))
}

/// Closes the file, too: some keep what is written until then.
fn here_and_there(
    file: File,
    work: impl Fn(&File, usize, u64) -> io::Result<()>,
) -> io::Result<Round> {
    let started = Instant::now();
    let mut page = 1;
    for number in 0..OPERATIONS as usize {
        // Each page at most once, in the same order everywhere: a walk by a large odd number.
        page = (page + 40_503) % PAGES;
        work(&file, number, page * PAGE as u64)?;
    }
    drop(file);
    Ok(Round { time: started.elapsed() / OPERATIONS as u32, operations: OPERATIONS as usize })
}

fn large(site: &Site) -> PathBuf {
    site.dir.join("large")
}

fn fill(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    bytes.chunks(PIECE).try_for_each(|piece| file.write_all(piece))
}

/// Returns noise that nobody was given before: whoever stores the same only once has all of this to store. It is made
/// before a clock is started.
fn fresh(len: usize) -> Vec<u8> {
    static GIVEN: AtomicU64 = AtomicU64::new(0);
    let mut bytes = vec![0; len];
    noise(GIVEN.fetch_add(1, Ordering::Relaxed), &mut bytes);
    bytes
}

/// What nobody stores in less room than it takes, other noise for each number; quick to make.
pub fn noise(number: u64, bytes: &mut [u8]) {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
}

/// Lets the mount forget what it knows of the file; what lies behind it stays in memory, as the
/// bare file does.
fn forget(site: &Site) -> io::Result<()> {
    match site.behind {
        Behind::Nothing => Ok(()),
        Behind::Plain(_) | Behind::Sealed => {
            Ok(fadvise(File::open(large(site))?, 0, None, Advice::DontNeed)?)
        }
    }
}
