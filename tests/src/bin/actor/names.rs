//! What scripts do by path, and what they see of a tree.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, RenameFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};

use crate::slots::digest;
use crate::{mode, none, number, word};

/// Times that scripts set lie before this one (2001), times of the clock after it.
const CLOCK_AFTER: i64 = 1_000_000_000;

/// As much as scripts ever put into an attribute, or a list of them.
const XATTR_MAX: usize = 4096;

pub(crate) fn act(verb: &str, rest: &[&OsStr]) -> Result<OsString> {
    let path = word(rest, 0)?;
    match verb {
        "become" => become_user(number(rest, 0)?, number(rest, 1)?),
        "umask" => {
            rustix::process::umask(mode(rest, 0)?);
            Ok(none(()))
        }
        "tree" => Ok(tree(Path::new(path)).into()),
        "look" => rustix::fs::stat(path).map(|stat| show(&stat).into()),
        "lstat" => rustix::fs::lstat(path).map(|stat| show(&stat).into()),
        "moments" => Ok(moments(rest).into()),
        "readlink" => {
            let target = rustix::fs::readlink(path, Vec::new())?;
            Ok(OsStr::from_bytes(target.as_bytes()).to_owned())
        }
        "make" => make(path, word(rest, 1)?, mode(rest, 2)?),
        "move" => {
            let flags = match word(rest, 2)?.to_str() {
                Some("exchange") => RenameFlags::EXCHANGE,
                Some("noreplace") => RenameFlags::NOREPLACE,
                _ => RenameFlags::empty(),
            };
            rustix::fs::renameat_with(CWD, path, CWD, word(rest, 1)?, flags).map(none)
        }
        "lchown" => {
            let id = |index| number(rest, index).map(|id| u32::try_from(id).unwrap_or(u32::MAX));
            let (uid, gid) = (Uid::from_raw(id(1)?), Gid::from_raw(id(2)?));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(CWD, path, Some(uid), Some(gid), flags).map(none)
        }
        "utimens" => {
            let times = times(number(rest, 1)?, number(rest, 2)?);
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map(none)
        }
        "lsetxattr" => {
            let flags = match word(rest, 3)?.to_str() {
                Some("create") => XattrFlags::CREATE,
                Some("replace") => XattrFlags::REPLACE,
                _ => XattrFlags::empty(),
            };
            let value = word(rest, 2)?.as_bytes();
            rustix::fs::lsetxattr(path, word(rest, 1)?, value, flags).map(none)
        }
        "lremovexattr" => rustix::fs::lremovexattr(path, word(rest, 1)?).map(none),
        "xattrs" => xattrs(path).map(OsString::from),
        "entries" => entries(path).map(OsString::from),
        _ => Err(Errno::NOSYS),
    }
}

/// Gives up root's ids, and with them its rights.
fn become_user(uid: u64, gid: u64) -> Result<OsString> {
    let id = |number| u32::try_from(number).map_err(|_| Errno::INVAL);
    let (uid, gid) = (Uid::from_raw(id(uid)?), Gid::from_raw(id(gid)?));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map(none)
}

fn make(path: &OsStr, kind: &OsStr, mode: Mode) -> Result<OsString> {
    let kind = match kind.to_str() {
        Some("directory") => return rustix::fs::mkdir(path, mode).map(none),
        Some("fifo") => FileType::Fifo,
        Some("socket") => FileType::Socket,
        Some("device") => FileType::CharacterDevice,
        _ => FileType::RegularFile,
    };
    let null = if kind == FileType::CharacterDevice { rustix::fs::makedev(1, 3) } else { 0 };
    rustix::fs::mknodat(CWD, path, kind, mode, null).map(none)
}

/// Times of access and of modification; 0 leaves one as it is, 1 is the clock's.
pub(crate) fn times(access: u64, modification: u64) -> Timestamps {
    let time = |seconds: u64| match seconds {
        0 => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        1 => Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        _ => Timespec { tv_sec: seconds.cast_signed(), tv_nsec: 123_456_789 },
    };
    Timestamps { last_access: time(access), last_modification: time(modification) }
}

/// Tells, a line each, when files were accessed, modified and changed, in nanoseconds of the clock,
/// and their inodes; leaves out what cannot be looked at.
fn moments(paths: &[&OsStr]) -> String {
    let mut lines = Vec::new();
    for path in paths {
        let Ok(stat) = rustix::fs::lstat(*path) else { continue };
        let times = [
            (stat.st_atime, stat.st_atime_nsec),
            (stat.st_mtime, stat.st_mtime_nsec),
            (stat.st_ctime, stat.st_ctime_nsec),
        ];
        let [accessed, modified, changed] =
            times.map(|(seconds, rest)| i128::from(seconds) * 1_000_000_000 + i128::from(rest));
        lines.push(format!("{accessed} {modified} {changed} {} {}", stat.st_ino, path.display()));
    }
    lines.join("\n")
}

/// Tells what must be alike in two places of a file. What a clock set is only told to be so.
pub(crate) fn show(stat: &Stat) -> String {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let size = if kind == FileType::Directory { 0 } else { stat.st_size };
    let (mode, links, device) = (stat.st_mode & 0o7777, stat.st_nlink, stat.st_rdev);
    let changed = match stat.st_mtime {
        CLOCK_AFTER.. => "now".to_owned(),
        seconds => format!("{seconds}.{:09}", stat.st_mtime_nsec),
    };
    let owner = format!("{}:{}", stat.st_uid, stat.st_gid);
    format!("{kind:?} {mode:o} {owner} {links} links {size} bytes {device:x} changed {changed}")
}

fn xattrs(path: impl rustix::path::Arg + Copy) -> Result<String> {
    let mut list = [0; XATTR_MAX];
    let count = rustix::fs::llistxattr(path, &mut list)?;
    let mut shown = Vec::new();
    for name in list[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = [0; XATTR_MAX];
        let count = rustix::fs::lgetxattr(path, name, &mut value)?;
        shown.push(format!("{}={}", name.escape_ascii(), value[..count].escape_ascii()));
    }
    shown.sort();
    Ok(shown.join(" "))
}

fn entries(path: impl rustix::path::Arg) -> Result<String> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let dir = rustix::fs::open(path, flags, Mode::empty())?;
    let mut shown = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        shown.push(format!(
            "{} {:?}",
            entry.file_name().to_bytes().escape_ascii(),
            entry.file_type()
        ));
    }
    shown.sort();
    Ok(shown.join(", "))
}

/// Tells each file beneath a directory in a line; names of one file name the first of them. What
/// may not be looked at or into is told by the error.
fn tree(root: &Path) -> String {
    let mut lines = BTreeMap::new();
    let mut firsts = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let line = match rustix::fs::lstat(&path) {
            Ok(stat) => {
                let first = firsts.entry(stat.st_ino).or_insert_with(|| path.clone()).clone();
                let holds = holds(&path, &stat, &mut left).map_err(|error| error.raw_os_error());
                let xattrs = xattrs(path.as_path());
                format!("{} {holds:?} as {first:?} {xattrs:?}", show(&stat))
            }
            Err(errno) => errno.to_string(),
        };
        lines.insert(path, line);
    }
    let lines: Vec<_> = lines.iter().map(|(path, line)| format!("{path:?} {line}")).collect();
    lines.join("\n")
}

/// Tells what a file holds; what a directory does is left to be looked at.
fn holds(path: &Path, stat: &Stat, left: &mut Vec<PathBuf>) -> std::io::Result<OsString> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => std::fs::read(path).map(|bytes| digest(&bytes)),
        FileType::Symlink => std::fs::read_link(path).map(Into::into),
        FileType::Directory => {
            left.append(&mut children(path)?);
            Ok(OsString::new())
        }
        _ => Ok(OsString::new()),
    }
}

/// Sorted backwards, so that they are looked at in order from the end.
fn children(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let mut children = entries.collect::<std::io::Result<Vec<_>>>()?;
    children.sort_by(|one, other| other.cmp(one));
    Ok(children)
}
