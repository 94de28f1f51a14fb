//! What is measured.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

const PAGE: [u8; 4096] = [b'x'; 4096];
const MIB: usize = 1 << 20;
const LARGE_MIB: usize = 64;
const FILES: usize = 1_000;

/// Bytes that they take in one place, at most.
pub const ROOM: u64 = ((LARGE_MIB + 8) * MIB) as u64;

/// One kind of work.
pub struct Work {
    /// For people, and for programs.
    pub name: &'static str,
    /// Does it once in a directory.
    pub act: fn(&Path) -> io::Result<()>,
}

/// All kinds. What one leaves behind the next may need.
pub const WORKS: [Work; 7] = [
    Work { name: "open, read 4 KiB, close", act: read },
    Work { name: "create, write 4 KiB, close, unlink", act: create },
    Work { name: "save by rename", act: save },
    Work { name: "stat", act: stat },
    Work { name: "list 1000 files", act: list },
    Work { name: "write 64 MiB", act: write_large },
    Work { name: "read 64 MiB", act: read_large },
];

/// Makes what they need, but for the files that are listed.
pub fn prepare(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir.join("many"))?;
    fs::write(dir.join("small"), PAGE)
}

/// Returns the files that are listed.
pub fn listed(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let many = dir.join("many");
    (0..FILES).map(move |number| many.join(number.to_string()))
}

fn read(dir: &Path) -> io::Result<()> {
    File::open(dir.join("small"))?.read_exact(&mut [0; PAGE.len()])
}

fn create(dir: &Path) -> io::Result<()> {
    let path = dir.join("created");
    File::create_new(&path)?.write_all(&PAGE)?;
    fs::remove_file(path)
}

fn save(dir: &Path) -> io::Result<()> {
    let draft = dir.join("saved.draft");
    File::create_new(&draft)?.write_all(&PAGE)?;
    fs::rename(draft, dir.join("saved"))
}

fn stat(dir: &Path) -> io::Result<()> {
    fs::metadata(dir.join("small")).map(drop)
}

/// As `ls -l` does: each name, and what is there.
fn list(dir: &Path) -> io::Result<()> {
    let mut entries = fs::read_dir(dir.join("many"))?;
    entries.try_for_each(|entry| entry?.metadata().map(drop))
}

fn write_large(dir: &Path) -> io::Result<()> {
    let mut file = File::create(dir.join("large"))?;
    let block = vec![b'x'; MIB];
    (0..LARGE_MIB).try_for_each(|_| file.write_all(&block))
}

fn read_large(dir: &Path) -> io::Result<()> {
    let mut file = File::open(dir.join("large"))?;
    let mut block = vec![0; MIB];
    (0..LARGE_MIB).try_for_each(|_| file.read_exact(&mut block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_work_can_be_done_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        listed(dir.path()).for_each(|file| drop(File::create_new(file).unwrap()));
        for work in WORKS.iter().chain(&WORKS) {
            (work.act)(dir.path()).unwrap_or_else(|error| panic!("{}: {error}", work.name));
        }
        assert_eq!(fs::read_dir(dir.path().join("many")).unwrap().count(), FILES);
        assert_eq!(fs::metadata(dir.path().join("large")).unwrap().len(), (LARGE_MIB * MIB) as u64);
        assert!(!dir.path().join("created").exists());
    }
}
