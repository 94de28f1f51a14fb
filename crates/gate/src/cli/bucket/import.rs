//! `gate bucket import`

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use rustix::fs::OFlags;
use serde_json::json;

use super::{JSON_VERSION, Which};
use crate::archive::{self, Facts, Item};
use crate::daemon::body::bucket::Imported;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::progress::Progress;
use crate::query;

/// Bytes of extended attributes of one file, at most.
const ATTRIBUTE_BYTES_MAX: usize = 64 * 1024;

/// Put all that is in a directory into a bucket
///
/// Files that are there already get a new version if they differ; what is there and not in DIR stays. What an
/// import that failed has put there stays too: once more puts the rest.
#[derive(Debug, clap::Args)]
pub struct Import {
    #[command(flatten)]
    which: Which,
    /// The directory on this machine
    dir: PathBuf,
    /// The directory in the bucket; made if it is missing
    #[arg(default_value = "/")]
    path: PathBuf,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

impl Import {
    pub fn run(self) -> Result<(), Failure> {
        let meta = fs::metadata(&self.dir).and_then(|meta| match meta.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        meta.map_err(|error| {
            let what = format!("cannot import {}", self.dir.display());
            Failure::new(what, error, "name a directory; `gate bucket add` puts a file")
                .exit(Exit::Unable)
        })?;
        let (rest, target) = self.which.reach()?;
        let path = self.path.as_os_str().as_bytes();
        let target = query::address(&format!("{target}/import"), &[("path", path)]);
        let mut tree = Tree::open(&self.dir).map_err(|error| failed(&error))?;
        let imported = rest.upload(&target, &mut tree);
        // What went wrong here is the reason for what the daemon says of it.
        tree.end().map_err(|error| failed(&error))?;
        let Imported { files, directories, links, bytes, unchanged } = imported?;
        if self.json {
            let imported = json!({
                "files": files, "directories": directories, "links": links, "bytes": bytes,
                "unchanged": unchanged,
            });
            return output::print_json(&json!({"version": JSON_VERSION, "imported": imported}));
        }
        let bytes = output::bytes(bytes);
        output::print(&format!(
            "{files} files ({bytes}), {directories} directories, {links} links; {unchanged} were the same\n"
        ))
    }
}

fn failed(error: &io::Error) -> Failure {
    let hint = "mend that, and import once more: what is there already is not sent twice";
    Failure::new("not all was imported", error, hint)
}

/// A directory as a stream, which a thread writes while it is read.
struct Tree {
    bytes: PipeReader,
    writer: Option<JoinHandle<io::Result<()>>>,
    shown: Progress,
    files: Arc<AtomicU64>,
    outcome: io::Result<()>,
}

impl Tree {
    fn open(dir: &Path) -> io::Result<Tree> {
        let (bytes, to) = io::pipe()?;
        let files = Arc::new(AtomicU64::new(0));
        let (dir, counted) = (dir.to_owned(), files.clone());
        let writer = Some(thread::spawn(move || write(&dir, to, &counted)));
        Ok(Tree { bytes, writer, shown: Progress::of_count(), files, outcome: Ok(()) })
    }

    /// Returns why not all of it was read, if that is so.
    fn end(mut self) -> io::Result<()> {
        drop(self.bytes);
        match self.writer.take() {
            // It had not come to its end: whoever reads is to blame.
            Some(writer) => drop(writer.join()),
            None => self.outcome?,
        }
        Ok(())
    }
}

impl Read for Tree {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        self.shown.tell(self.files.load(Ordering::Relaxed), "files");
        if read > 0 {
            return Ok(read);
        }
        let Some(writer) = self.writer.take() else { return Ok(0) };
        let outcome = writer.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
        self.outcome = outcome;
        match &self.outcome {
            Ok(()) => Ok(0),
            // It must not look like an end.
            Err(error) => Err(error.kind().into()),
        }
    }
}

/// Writes what is in a directory, each directory before what is in it.
fn write(root: &Path, to: PipeWriter, files: &AtomicU64) -> io::Result<()> {
    let mut writer = archive::Writer::new(io::BufWriter::with_capacity(1 << 20, to));
    let mut names = HashMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(inner) = left.pop() {
        let path = root.join(&inner);
        let outcome = write_one(&mut writer, &path, &inner, &mut names);
        let meta = match outcome {
            // It is gone by now, as temporary files are.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            outcome => outcome.map_err(|error| named(&path, &error))?,
        };
        match meta.is_dir() {
            true => {
                let read = || -> io::Result<Vec<_>> {
                    fs::read_dir(&path)?.map(|entry| Ok(entry?.file_name())).collect()
                };
                let mut inside = read().map_err(|error| named(&path, &error))?;
                inside.sort_unstable_by(|a, b| b.cmp(a));
                left.extend(inside.iter().map(|name| inner.join(name)));
            }
            false => drop(files.fetch_add(1, Ordering::Relaxed)),
        }
    }
    writer.finish()?.flush()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn write_one(
    writer: &mut archive::Writer<impl io::Write>,
    path: &Path,
    inner: &Path,
    names: &mut HashMap<(u64, u64), PathBuf>,
) -> io::Result<Metadata> {
    let meta = fs::symlink_metadata(path)?;
    let to = inner.as_os_str().as_bytes();
    if inner.as_os_str().is_empty() {
        // Where it is put is there, or is made as anything is.
        return Ok(meta);
    }
    let file = (meta.dev(), meta.ino());
    if !meta.is_dir()
        && meta.nlink() > 1
        && let Some(first) = names.get(&file)
    {
        let item = Item::HardLink(first.as_os_str().as_bytes().to_vec());
        writer.put(to, &item, &facts_of(path, &meta)?)?;
    } else if meta.is_file() {
        // Neither a link that took its place meanwhile nor a FIFO is waited for.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let opened: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let meta = opened.metadata()?;
        writer.put_file(to, &facts_of(path, &meta)?, meta.len(), opened)?;
    } else if meta.is_dir() {
        writer.put(to, &Item::Directory, &facts_of(path, &meta)?)?;
    } else if meta.is_symlink() {
        let target = fs::read_link(path)?.into_os_string().into_vec();
        writer.put(to, &Item::Symlink(target), &facts_of(path, &meta)?)?;
    } else {
        output::say_line(format_args!("{} is left out: it is no file", path.display()));
    }
    if meta.nlink() > 1 && !meta.is_dir() {
        names.entry(file).or_insert_with(|| inner.to_owned());
    }
    Ok(meta)
}

fn facts_of(path: &Path, meta: &Metadata) -> io::Result<Facts> {
    let nanos = u32::try_from(meta.mtime_nsec()).unwrap_or(0);
    let extended = if meta.is_symlink() { Vec::new() } else { extended(path)? };
    Ok(Facts { mode: meta.mode() & 0o7777, modified: (meta.mtime(), nanos), extended })
}

/// Returns the extended attributes that are the user's own.
fn extended(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut buffer = vec![0; ATTRIBUTE_BYTES_MAX];
    let len = match rustix::fs::llistxattr(path, &mut buffer) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        len => len?,
    };
    let names: Vec<Vec<u8>> = buffer[..len].split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    let mut all = Vec::new();
    for name in names.into_iter().filter(|name| name.starts_with(b"user.")) {
        match rustix::fs::lgetxattr(path, OsStr::from_bytes(&name), &mut buffer) {
            Ok(len) => all.push((name, buffer[..len].to_vec())),
            Err(rustix::io::Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}
