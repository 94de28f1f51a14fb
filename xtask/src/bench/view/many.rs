//! Many files: all names, all attributes, all gone.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::row::{Behind, Round, Site};

/// How many files lie in one directory.
const IN_ONE: usize = 1_000;

pub fn list(site: &Site) -> io::Result<Round> {
    over_new_files(site, |tree| each_entry(tree, |_| Ok(())))
}

pub fn walk(site: &Site) -> io::Result<Round> {
    over_new_files(site, |tree| each_entry(tree, |entry| entry.metadata().map(drop)))
}

pub fn remove(site: &Site) -> io::Result<Round> {
    over_new_files(site, |tree| fs::remove_dir_all(tree))
}

/// How long somebody else waits at most for one open meanwhile.
pub fn remove_beside_another(site: &Site) -> io::Result<Round> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let file = site.dir.join("beside-many");
            File::create(&file)?;
            let (mut longest, mut operations) = (Duration::ZERO, 0);
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                File::open(&file)?;
                longest = longest.max(asked.elapsed());
                operations += 1;
            }
            fs::remove_file(&file)?;
            Ok(Round { time: longest, operations })
        });
        let removed = remove(site);
        over.store(true, Ordering::Relaxed);
        let waited = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        removed.and(waited)
    })
}

/// Times what is done to files that the place has never shown; what is left of them goes.
fn over_new_files(site: &Site, work: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Round> {
    // Made behind the mount where that can be: much quicker, and the mount knows nothing of them.
    let made = match &site.behind {
        Behind::Plain(dir) => dir,
        Behind::Nothing | Behind::Sealed => &site.dir,
    };
    let name = free_name(made)?;
    make(&made.join(&name), site.files)?;
    let started = Instant::now();
    work(&site.dir.join(&name))?;
    let time = started.elapsed();
    match fs::remove_dir_all(site.dir.join(&name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(Round { time: time / site.files as u32, operations: site.files }),
    }
}

/// A name that was not there before: nothing that a kernel still knows can be about it.
fn free_name(dir: &Path) -> io::Result<PathBuf> {
    let tree = tempfile::Builder::new().prefix("many-").tempdir_in(dir)?.keep();
    tree.file_name().map(PathBuf::from).ok_or_else(|| io::Error::other("it has a name"))
}

fn make(tree: &Path, files: usize) -> io::Result<()> {
    for number in 0..files {
        let dir = tree.join((number / IN_ONE).to_string());
        if number % IN_ONE == 0 {
            fs::create_dir(&dir)?;
        }
        File::create(dir.join(format!("file-{number}")))?;
    }
    Ok(())
}

fn each_entry(
    tree: &Path,
    mut work: impl FnMut(&fs::DirEntry) -> io::Result<()>,
) -> io::Result<()> {
    for dir in fs::read_dir(tree)? {
        for entry in fs::read_dir(dir?.path())? {
            work(&entry?)?;
        }
    }
    Ok(())
}
