//! What a worker does with names.

use std::ffi::CString;

use gate_tests::history::record::STAMP_BYTES;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use super::{Worker, close, read_stamp};

/// Sizes that files are truncated to, beyond a stamp.
const SIZES: usize = 1 << 20;

impl Worker<'_> {
    /// Makes, changes or looks up one of its names, or only looks.
    pub fn deed(&mut self, may_write: bool) {
        let name = self.dice.pick(self.names).clone();
        match (name.strip_suffix('/'), self.dice.below(100)) {
            (None, 0..30) => self.look(&name),
            _ if !may_write => {}
            (Some(dir), 0..60) => self.call(&format!("mkdir {dir}"), || {
                rustix::fs::mkdir(dir, Mode::from_raw_mode(0o755))
            }),
            (Some(dir), _) => self.call(&format!("rmdir {dir}"), || rustix::fs::rmdir(dir)),
            (None, 30..50) => self.make(&name),
            (None, 50..65) => self.call(&format!("unlink {name}"), || rustix::fs::unlink(&name)),
            (None, 65..75) => self.truncate(&name),
            (None, _) => self.replace(&name),
        }
    }

    fn call(&mut self, words: &str, call: impl FnOnce() -> Result<()>) {
        let _ = self.pen.call(words, || call().map(|()| String::new()));
    }

    fn look(&mut self, name: &str) {
        let _ = self.pen.call(&format!("look {name}"), || {
            let file = rustix::fs::open(name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            let size = || rustix::fs::fstat(&file).map(|stat| stat.st_size);
            let (before, stamp, after) = (size()?, read_stamp(&file, 0)?, size()?);
            close(file)?;
            // In its turn nobody else writes.
            let seen = if before == after { "" } else { " and then another" };
            Ok(format!("{stamp} {before}{seen}"))
        });
    }

    fn make(&mut self, name: &str) {
        let stamp = self.stamp();
        self.call(&format!("make {name} {stamp}"), || {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::open(name, flags, Mode::from_raw_mode(0o644))?;
            let bytes = format!("{stamp: <STAMP_BYTES$}");
            let count = rustix::io::pwrite(&file, bytes.as_bytes(), 0)?;
            close(file)?;
            if count == STAMP_BYTES { Ok(()) } else { Err(Errno::IO) }
        });
    }

    /// As editors save: a new file takes the place of the old one.
    fn replace(&mut self, name: &str) {
        let Some(spare) = self.spare.take() else {
            self.stamps += 1;
            let (dir, number) = (self.names[0].rsplit_once('/'), self.stamps);
            let dir = dir.map_or("", |(dir, _)| dir);
            let spare = format!("{dir}/new-{}-{number}", std::process::id());
            self.make(&spare);
            self.spare = Some(spare);
            return;
        };
        let renamed = self.pen.call(&format!("rename {spare} {name}"), || {
            rustix::fs::rename(&spare, name).map(|()| String::new())
        });
        self.spare = Some(spare).filter(|_| renamed.is_err());
    }

    fn truncate(&mut self, name: &str) {
        let size = STAMP_BYTES + self.dice.below(SIZES);
        let path = CString::new(name).expect("a name has no NUL");
        self.call(&format!("truncate {name} {size}"), || {
            let size = i64::try_from(size).expect("a small size");
            // SAFETY: the path is a string that ends with NUL and outlives the call.
            if unsafe { libc::truncate(path.as_ptr(), size) } == 0 {
                return Ok(());
            }
            let error = std::io::Error::last_os_error();
            Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        });
    }
}
