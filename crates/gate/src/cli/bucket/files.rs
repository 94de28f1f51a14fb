//! `gate bucket ls`, `cat`, `stat`, `get`, `add`, `mkdir`, `mv`, `rm`: what is in a bucket.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{At, JSON_VERSION, Which};
use crate::daemon::body::bucket::{Changed, Listed, Move, NewDirectory, Node, OneNode, Removal};
use crate::failure::{Exit, Failure};
use crate::output::{self, Table};
use crate::query;

/// Show what is in a directory of a bucket
#[derive(Debug, clap::Args)]
pub struct Ls {
    #[command(flatten)]
    which: Which,
    /// The directory, or one file
    #[arg(default_value = "/")]
    path: PathBuf,
    /// With modes, sizes and times
    #[arg(long, short)]
    long: bool,
    /// With all that is beneath
    #[arg(long, short = 'R')]
    recursive: bool,
    #[command(flatten)]
    at: At,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Write a line for each, with tabs between, and no heading
    #[arg(long, conflicts_with = "json")]
    plain: bool,
}

/// Write a file of a bucket to standard output
#[derive(Debug, clap::Args)]
pub struct Cat {
    #[command(flatten)]
    which: Which,
    /// The file
    path: PathBuf,
    #[command(flatten)]
    at: At,
}

/// Tell about one file or directory of a bucket
#[derive(Debug, clap::Args)]
pub struct Stat {
    #[command(flatten)]
    which: Which,
    /// What in the bucket
    path: PathBuf,
    #[command(flatten)]
    at: At,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Write a file of a bucket to one of this machine
#[derive(Debug, clap::Args)]
pub struct Get {
    #[command(flatten)]
    which: Which,
    /// The file in the bucket
    path: PathBuf,
    /// Where it is put; - for standard output [default: here, under the same name]
    file: Option<PathBuf>,
    /// Replace what is there
    #[arg(long, short)]
    force: bool,
    #[command(flatten)]
    at: At,
}

/// Put a file of this machine into a bucket; one that is there gets a new version
#[derive(Debug, clap::Args)]
pub struct Add {
    #[command(flatten)]
    which: Which,
    /// The file; - for standard input
    file: PathBuf,
    /// Where it is put, or with a slash at the end into which directory [default: the root, under the same name]
    path: Option<PathBuf>,
}

/// Make a directory in a bucket
#[derive(Debug, clap::Args)]
pub struct Mkdir {
    #[command(flatten)]
    which: Which,
    /// The directory
    path: PathBuf,
    /// With those that lead there; one that is there is fine
    #[arg(long, short)]
    parents: bool,
}

/// Move a file or a directory of a bucket, or give it another name
#[derive(Debug, clap::Args)]
pub struct Mv {
    #[command(flatten)]
    which: Which,
    /// What moves
    from: PathBuf,
    /// Where to: a directory that is there, or a new path, or a file that it replaces
    to: PathBuf,
}

/// Remove a file or a directory from a bucket; its versions stay
#[derive(Debug, clap::Args)]
pub struct Rm {
    #[command(flatten)]
    which: Which,
    /// What goes
    path: PathBuf,
    /// With all that is in it
    #[arg(long, short)]
    recursive: bool,
}

impl Ls {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        let mut target = self.at.address(&format!("{target}/ls"), &self.path);
        if self.recursive {
            target.push_str("&recursive=true");
        }
        let Listed { entries } = rest.ask("GET", &target)?;
        if self.json {
            return output::print_json(&json!({"version": JSON_VERSION, "entries": entries}));
        }
        // Of what is in it the names, of what is beneath the paths.
        let base = if self.recursive { Path::new("/") } else { &self.path };
        let base = Path::new("/").join(base);
        let shown = |node: &Node| {
            let path = node.path.strip_prefix(&base).ok().filter(|p| !p.as_os_str().is_empty());
            path.unwrap_or(&node.path).display().to_string()
        };
        if self.plain {
            let line = |node: &Node| {
                let Node { kind, size, mode, modified, .. } = node;
                let path = output::printable(&shown(node));
                format!("{kind}\t{mode:04o}\t{size}\t{modified}\t{path}\n")
            };
            return output::print(&entries.iter().map(line).collect::<String>());
        }
        if !self.long {
            let line = |node: &Node| output::printable(&(shown(node) + mark(node))) + "\n";
            return output::print(&entries.iter().map(line).collect::<String>());
        }
        let mut table = Table::new(["MODE", "SIZE", "MODIFIED", "NAME"]);
        for node in &entries {
            let leads = node.target.as_ref().map(|to| format!(" -> {}", to.0.display()));
            let name = shown(node) + leads.as_deref().unwrap_or(mark(node));
            let size = output::bytes(node.size);
            table.row([mode(node), size, node.modified.clone(), name]);
        }
        output::print(&table.text())
    }
}

impl Cat {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        let mut bytes = rest.fetch(&self.at.address(&format!("{target}/cat"), &self.path))?;
        let out = &mut io::stdout().lock();
        copy(&self.path, &mut bytes, out, output::cannot_write)
    }
}

impl Stat {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        let target = self.at.address(&format!("{target}/stat"), &self.path);
        let OneNode { entry } = rest.ask("GET", &target)?;
        if self.json {
            return output::print_json(&json!({"version": JSON_VERSION, "entry": entry}));
        }
        let mut text = format!(
            "path:     {}\nkind:     {}\nsize:     {} ({})\nmode:     {}\nmodified: {}\n",
            entry.path.display(),
            entry.kind,
            entry.size,
            output::bytes(entry.size),
            mode(&entry),
            entry.modified,
        );
        if let Some(to) = &entry.target {
            text += &format!("target:   {}\n", to.0.display());
        }
        if let Some(versions) = entry.merged_of {
            text += &format!("merged:   from {versions} versions written at the same time\n");
        }
        let lines = text.lines().map(|line| output::printable(line) + "\n");
        output::print(&lines.collect::<String>())
    }
}

impl Get {
    pub fn run(self) -> Result<(), Failure> {
        let named = || self.path.file_name().map(PathBuf::from);
        let Some(file) = self.file.clone().or_else(named) else {
            let hint = "`gate bucket export` writes directories";
            return Err(Failure::new("cannot get that", "it is no file", hint).exit(Exit::Unable));
        };
        let (rest, target) = self.which.reach()?;
        let mut bytes = rest.fetch(&self.at.address(&format!("{target}/cat"), &self.path))?;
        if file == Path::new("-") {
            return copy(&self.path, &mut bytes, &mut io::stdout().lock(), output::cannot_write);
        }
        let cannot = |error: &io::Error| {
            let what = format!("cannot write {}", file.display());
            let hint = match error.kind() {
                io::ErrorKind::AlreadyExists => "--force replaces it",
                _ => "name another file, or mend that",
            };
            Failure::new(what, error, hint)
        };
        if !self.force && file.symlink_metadata().is_ok() {
            return Err(cannot(&io::ErrorKind::AlreadyExists.into()));
        }
        // What is there stays until all of it has come.
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
        let temporary = tempfile::Builder::new()
            .permissions(<fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666))
            .tempfile_in(dir.unwrap_or(Path::new(".")));
        let mut temporary = temporary.map_err(|error| cannot(&error))?;
        copy(&self.path, &mut bytes, temporary.as_file_mut(), cannot)?;
        let put = match self.force {
            true => temporary.persist(&file),
            false => temporary.persist_noclobber(&file),
        };
        put.map(drop).map_err(|error| cannot(&error.error))
    }
}

impl Add {
    pub fn run(self) -> Result<(), Failure> {
        let is_stdin = self.file == Path::new("-");
        let cannot = |cause: &dyn std::fmt::Display, hint: &str| {
            let what = format!("cannot add {}", self.file.display());
            Failure::new(what, cause, hint).exit(Exit::Unable)
        };
        let name = self.file.file_name().filter(|_| !is_stdin);
        let path = self.path.clone().unwrap_or_else(|| PathBuf::from("/"));
        let is_directory = path.as_os_str().as_bytes().ends_with(b"/");
        let (parent, name) = match is_directory {
            true => (Some(path.as_path()), name),
            false => (path.parent(), path.file_name()),
        };
        let (Some(parent), Some(name)) = (parent, name) else {
            return Err(cannot(&"it has no name", "say where it is put, as in `/notes/today.md`"));
        };
        let (rest, target) = self.which.reach()?;
        let pairs = [("mount_path", parent.as_os_str().as_bytes()), ("filename", name.as_bytes())];
        let target = query::address(&format!("{target}/fs"), &pairs);
        let mut from: Box<dyn Read> = match is_stdin {
            true => Box::new(io::stdin().lock()),
            false => {
                let opened = OpenOptions::new().read(true).open(&self.file);
                let opened: File =
                    opened.map_err(|error| cannot(&error, "name a file that you may read"))?;
                if opened.metadata().is_ok_and(|meta| meta.is_dir()) {
                    let hint = "`gate bucket import` puts directories";
                    return Err(cannot(&"it is a directory", hint));
                }
                Box::new(opened)
            }
        };
        let Changed { .. } = rest.upload(&target, &mut from)?;
        output::print(&format!("{} is stored\n", shown(&parent.join(name))))
    }
}

impl Mkdir {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        let wanted = NewDirectory { path: self.path, parents: self.parents };
        let Changed { .. } = rest.tell("POST", &format!("{target}/mkdir"), &wanted)?;
        output::print(&format!("{} is made\n", shown(&wanted.path)))
    }
}

impl Mv {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        let wanted = Move { from: self.from, to: self.to };
        let Changed { .. } = rest.tell("POST", &format!("{target}/mv"), &wanted)?;
        output::print(&format!("{} is moved\n", shown(&wanted.from)))
    }
}

impl Rm {
    pub fn run(self) -> Result<(), Failure> {
        let (rest, target) = self.which.reach()?;
        let wanted = Removal { path: self.path, recursive: self.recursive };
        let Changed { .. } = rest.tell("POST", &format!("{target}/rm"), &wanted)?;
        output::print(&format!("{} is removed\n", shown(&wanted.path)))
    }
}

/// Writes what a file of a bucket holds somewhere else; it is said who is to blame if not all comes there.
fn copy(
    path: &Path,
    from: &mut impl Read,
    to: &mut impl io::Write,
    cannot_write: impl Fn(&io::Error) -> Failure,
) -> Result<(), Failure> {
    let cut_off = |error: io::Error| {
        let what = format!("not all of {} came", path.display());
        Failure::new(what, error, "`gate bucket fsck --read-data` tells whether it is damaged")
    };
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let written = match from.read(&mut buffer).map_err(cut_off)? {
            0 => return to.flush().map_err(|error| cannot_write(&error)),
            read => to.write_all(&buffer[..read]),
        };
        written.map_err(|error| cannot_write(&error))?;
    }
}

/// Returns a path in a bucket as people are told of it.
fn shown(path: &Path) -> String {
    output::printable(&Path::new("/").join(path).display().to_string())
}

fn mark(node: &Node) -> &'static str {
    match &*node.kind {
        "directory" => "/",
        "symlink" => "@",
        _ => "",
    }
}

/// Returns a mode as `ls` shows it.
pub fn mode(node: &Node) -> String {
    let kind = match &*node.kind {
        "directory" => 'd',
        "symlink" => 'l',
        _ => '-',
    };
    let letters = "rwxrwxrwx".chars().enumerate();
    let bits = letters.map(|(at, c)| if node.mode & (0o400 >> at) == 0 { '-' } else { c });
    std::iter::once(kind).chain(bits).collect()
}
