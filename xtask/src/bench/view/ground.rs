//! What all places of a run lie on.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::bench::home::Home;
use crate::step::{self, Failure};

/// How large the image of a file system may become.
const IMAGE_BYTES: u64 = 8 << 30;
/// How many files it can have: a million, and room.
const IMAGE_FILES: &str = "1500000";

/// Which file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum On {
    /// ext4, in an image in memory: no other user of the disk is measured.
    Ext4,
    Tmpfs,
    /// Whatever this directory lies on.
    Dir(PathBuf),
}

/// A directory on it.
pub struct Ground {
    pub dir: PathBuf,
    pub title: String,
    /// Unmounted from the end.
    mounted: Vec<PathBuf>,
    _lent: Option<TempDir>,
}

impl On {
    /// Reads it as it is given on the command line, in `dir`.
    pub fn parse(text: &str, dir: &Path) -> On {
        match text {
            "ext4" => On::Ext4,
            "tmpfs" => On::Tmpfs,
            path => On::Dir(dir.join(path)),
        }
    }
}

impl Ground {
    /// Makes and mounts it.
    pub fn lay(on: &On, home: &Home) -> Result<Ground, Failure> {
        let mut ground = Ground {
            dir: home.at("ground"),
            title: String::new(),
            mounted: Vec::new(),
            _lent: None,
        };
        match on {
            On::Tmpfs => {
                ground.title = "tmpfs".into();
                home.make_dir("ground")?;
                ground.mount(&["-t", "tmpfs", "-o", "nr_inodes=0", "tmpfs"], home.at("ground"))?;
            }
            On::Ext4 => {
                ground.title = "ext4, its image in memory".into();
                let memory = home.make_dir("memory")?;
                ground.mount(&["-t", "tmpfs", "tmpfs"], memory.clone())?;
                let image = make_image(&memory)?;
                let image = image.to_str().expect("its name is ours");
                let point = home.make_dir("ground")?;
                // The rest of an image is otherwise made ready while it is measured.
                ground.mount(&["-o", "loop,noinit_itable,nodiscard", image], point)?;
            }
            On::Dir(dir) => {
                let lent = tempfile::Builder::new().prefix("gate-bench-").tempdir_in(dir);
                let lent = lent.map_err(|error| {
                    Failure::new(format!("cannot measure in {}", dir.display()), error)
                })?;
                ground.title = dir.display().to_string();
                ground.dir = lent.path().to_owned();
                ground._lent = Some(lent);
            }
        }
        Ok(ground)
    }

    fn mount(&mut self, words: &[&str], point: PathBuf) -> Result<(), Failure> {
        step::run(Command::new("mount").args(words).arg(&point))?;
        self.mounted.push(point);
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for point in self.mounted.iter().rev() {
            let _ = Command::new("umount").arg(point).status();
        }
    }
}

fn make_image(dir: &Path) -> Result<PathBuf, Failure> {
    let image = dir.join("image");
    std::fs::File::create(&image)
        .and_then(|file| file.set_len(IMAGE_BYTES))
        .map_err(|error| Failure::new("cannot make an image", error))?;
    let options = ["-q", "-F", "-E", "lazy_itable_init=1", "-N", IMAGE_FILES];
    step::run(Command::new("mkfs.ext4").args(options).arg(&image))?;
    Ok(image)
}
