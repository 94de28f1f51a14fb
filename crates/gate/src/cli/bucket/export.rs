//! `gate bucket export`

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags, fchmod, fsetxattr,
    futimens, linkat, mkdirat, openat, openat2, symlinkat, utimensat,
};
use serde_json::json;

use super::{At, JSON_VERSION, Which};
use crate::archive::{self, Facts, Item};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::progress::Progress;

/// Write all that is in a bucket to a directory
#[derive(Debug, clap::Args)]
pub struct Export {
    #[command(flatten)]
    which: Which,
    /// Where it is put: a directory that is empty, or is made
    dir: PathBuf,
    /// The directory in the bucket
    #[arg(default_value = "/")]
    path: PathBuf,
    #[command(flatten)]
    at: At,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// How much was written.
#[derive(Default)]
struct Written {
    files: u64,
    directories: u64,
    links: u64,
    bytes: u64,
}

impl Export {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        let cannot = |error: io::Error| {
            let what = format!("cannot write to {}", self.dir.display());
            Failure::new(what, error, "name a directory that is empty, or is not there yet")
                .exit(Exit::Unable)
        };
        let tree = rest.fetch(&self.at.address(&format!("{target}/export"), &self.path))?;
        let dir = Dir::make(&self.dir).map_err(cannot)?;
        let written = dir.write(tree).map_err(|error| {
            let hint = "what was written so far is there; try again with another directory";
            Failure::new("not all was exported", error, hint)
        })?;
        let Written { files, directories, links, bytes } = written;
        if self.json {
            let exported = json!({
                "files": files, "directories": directories, "links": links, "bytes": bytes,
            });
            return output::print_json(&json!({"version": JSON_VERSION, "exported": exported}));
        }
        let bytes = output::bytes(bytes);
        output::print(&format!(
            "{files} files ({bytes}), {directories} directories, {links} links\n"
        ))
    }
}

/// A directory into which a tree is written. Nothing that is in the tree leads out of it.
struct Dir(OwnedFd);

impl Dir {
    fn make(path: &Path) -> io::Result<Dir> {
        match std::fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if std::fs::read_dir(path)?.next().is_some() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        Ok(Dir(File::open(path)?.into()))
    }

    fn write(&self, tree: impl Read) -> io::Result<Written> {
        let shown = Progress::of_count();
        let mut written = Written::default();
        let mut directories = Vec::new();
        archive::read(tree, |path, item, facts, bytes| {
            let path = path.strip_suffix(b"/").unwrap_or(path);
            let named = |error: io::Error| {
                let path = OsStr::from_bytes(path).display().to_string();
                io::Error::new(error.kind(), format!("{path}: {error}"))
            };
            if *item == Item::Directory {
                directories.push((path.to_vec(), facts.clone()));
            }
            self.put(path, item, facts, bytes).map_err(named)?;
            match item {
                Item::Directory => written.directories += 1,
                Item::File(size) => {
                    written.files += 1;
                    written.bytes += size;
                }
                Item::Symlink(_) | Item::HardLink(_) | Item::Other => written.links += 1,
            }
            shown.tell(written.files, "files");
            Ok(())
        })?;
        // Last, for what is put into a directory changes its time, and its mode may forbid that.
        for (path, facts) in directories.iter().rev() {
            let opened = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            set(&opened, facts)?;
        }
        Ok(written)
    }

    fn put(&self, path: &[u8], item: &Item, facts: &Facts, bytes: &mut dyn Read) -> io::Result<()> {
        let (above, name) = self.place(path)?;
        match item {
            Item::Directory => mkdirat(&above, name, Mode::RWXU)?,
            Item::File(_) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(&above, name, flags, Mode::RUSR | Mode::WUSR)?;
                let mut file = File::from(file);
                io::copy(bytes, &mut file)?;
                set(&file, facts)?;
            }
            Item::Symlink(target) => {
                symlinkat(OsStr::from_bytes(target), &above, name)?;
                utimensat(&above, name, &times(facts), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Item::HardLink(first) => {
                let (of, first) = self.place(first)?;
                linkat(of, first, &above, name, AtFlags::empty())?;
            }
            Item::Other => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(())
    }

    /// Returns the directory of a path, and the name in it.
    fn place<'a>(&self, path: &'a [u8]) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b"."[..], path),
        };
        Ok((self.open(above, OFlags::PATH | OFlags::DIRECTORY)?, OsStr::from_bytes(name)))
    }

    fn open(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = flags | OFlags::CLOEXEC;
        Ok(openat2(&self.0, OsStr::from_bytes(path), flags, Mode::empty(), resolve)?)
    }
}

fn set(file: impl AsFd, facts: &Facts) -> io::Result<()> {
    for (name, value) in &facts.extended {
        match fsetxattr(&file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            Err(rustix::io::Errno::OPNOTSUPP) => {}
            outcome => outcome?,
        }
    }
    fchmod(&file, Mode::from_raw_mode(facts.mode))?;
    Ok(futimens(&file, &times(facts))?)
}

fn times(facts: &Facts) -> Timestamps {
    let (tv_sec, nanos) = facts.modified;
    let time = Timespec { tv_sec, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}
