//! What the kernel knows of a world: its mounts, its processes, and the way out of a hang.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The environment variable by which a world finds every process that was started in it.
pub const WORLD_VARIABLE: &str = "GATE_TEST_WORLD";

const FUSE_CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// One line of /proc/self/mountinfo.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Its type, as in `fuse.gate`.
    pub kind: OsString,
    /// Its source.
    pub source: OsString,
    /// Its options, per mount and per file system, comma-separated.
    pub options: OsString,
    minor: u32,
}

impl Mount {
    /// Tells whether a FUSE server answers for it.
    #[must_use]
    pub fn is_fuse(&self) -> bool {
        self.kind.as_bytes().starts_with(b"fuse")
    }
}

/// Returns the mounts at or below `dir`, in the order in which they were made.
#[must_use]
pub fn mounts_below(dir: &Path) -> Vec<Mount> {
    mounts_seen_by(None, dir)
}

/// Returns the mounts at or below `dir` that a process sees, or else this thread.
#[must_use]
pub fn mounts_seen_by(pid: Option<i32>, dir: &Path) -> Vec<Mount> {
    let who = pid.map_or("thread-self".to_owned(), |pid| pid.to_string());
    let table = fs::read(format!("/proc/{who}/mountinfo")).expect("the mount table is readable");
    mounts_of(&table).filter(|m| m.point.starts_with(dir)).collect()
}

/// Returns one process of each other mount namespace in which something is mounted at or below
/// `dir`.
#[must_use]
pub fn elsewhere_mounted_below(dir: &Path) -> Vec<i32> {
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/mnt")).ok();
    let mut seen: BTreeSet<_> = namespace("thread-self").into_iter().collect();
    let is_new = |pid: &i32| namespace(&pid.to_string()).is_some_and(|ns| seen.insert(ns));
    let has_mounts = |pid: &i32| {
        let table = fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        mounts_of(&table).any(|m| m.point.starts_with(dir))
    };
    processes().filter(is_new).filter(has_mounts).collect()
}

/// Leaves the common mounts, with all that this thread will start, for a copy without the views
/// of anybody else.
pub fn leave_common_mounts() {
    // SAFETY: only the working directory and the mask of this thread are no longer shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root may leave the common mounts");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).expect("who has mounts of its own may change them");
    for mount in mounts_below("/".as_ref()).iter().rev().filter(|m| m.kind == "fuse.gate") {
        unmount(&mount.point, UnmountFlags::DETACH).expect("a mount can be detached");
    }
}

/// Returns how many bytes of memory are a process's own.
///
/// # Panics
///
/// If there is no such process.
#[must_use]
pub fn memory(pid: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kib.expect("the kernel tells it in KiB") * 1024
}

/// Tells whether a process works in a directory, has it as its root or a file of it open, or is a
/// program of it.
#[must_use]
pub fn uses(pid: i32, dir: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let mut links =
        open.map(|file| file.path()).chain(["cwd", "root", "exe"].map(|link| process.join(link)));
    links.any(|link| fs::read_link(link).is_ok_and(|to| to.starts_with(dir)))
}

/// Tells whether this kernel is of a version, or newer.
#[must_use]
pub fn is_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel has a release");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

/// Aborts every FUSE connection at or below `dir`: calls that hang in it end at once.
pub fn abort_fuse_below(dir: &Path) {
    let mounts: Vec<_> = mounts_below(dir).into_iter().filter(Mount::is_fuse).collect();
    if mounts.is_empty() {
        return;
    }
    show_connections();
    for mount in mounts {
        let abort = format!("{FUSE_CONNECTIONS}/{}/abort", mount.minor);
        if let Err(error) = fs::write(&abort, "1") {
            eprintln!("cannot abort {}: {error}", mount.point.display());
        }
    }
}

/// Detaches every mount at or below `dir`, however busy.
pub fn detach_below(dir: &Path) {
    for mount in mounts_below(dir).iter().rev() {
        if unmount(&mount.point, UnmountFlags::DETACH).is_err() {
            // An ordinary user unmounts by the set-uid helper.
            let _ = Command::new("fusermount3").arg("-uz").arg(&mount.point).status();
        }
    }
}

/// Returns the processes that were started in the world at `home`, with their command lines.
#[must_use]
pub fn processes_of(home: &Path) -> Vec<(i32, String)> {
    let mut mark = OsString::from(WORLD_VARIABLE);
    mark.push("=");
    mark.push(home);
    let me = std::process::id().cast_signed();
    processes()
        .filter(|pid| *pid != me && is_marked(*pid, &mark))
        .map(|pid| (pid, command_line(pid)))
        .collect()
}

/// Returns the process that would see off what a view's server leaves behind; it comes a moment after
/// the mount.
#[must_use]
pub fn guardian_of(server: i32) -> Option<i32> {
    let parent = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    processes()
        .filter(|pid| parent(*pid) == Some(server))
        .find(|pid| command_line(*pid).starts_with("fuse-guardian"))
}

/// Sends SIGKILL to one process.
pub fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Tells whether the process is gone, or dead and not yet reaped.
#[must_use]
pub fn is_dead(pid: i32) -> bool {
    state(pid).is_none_or(|state| matches!(state, b'Z' | b'X'))
}

/// Tells whether the process runs, or would if there were a processor for it.
#[must_use]
pub fn is_runnable(pid: i32) -> bool {
    state(pid) == Some(b'R')
}

/// Tells whether the process is stopped by a signal.
#[must_use]
pub fn is_stopped(pid: i32) -> bool {
    state(pid) == Some(b'T')
}

fn state(pid: i32) -> Option<u8> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.bytes().next()
}

/// Tells whether a thread of the process is inside of a system call of that number.
#[must_use]
pub fn is_in_call(pid: i32, number: i64) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut calls = threads.filter_map(|t| fs::read_to_string(t.path().join("syscall")).ok());
    calls.any(|call| call.split(' ').next() == Some(&number.to_string()))
}

/// Tells whether all workers of a view's server wait for requests: none that was made before is on its
/// way or in hand, it is answered or parked.
#[must_use]
pub fn is_at_rest(server: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{server}/task")).into_iter().flatten().flatten();
    let is_worker = |name: &str| {
        let number = name.trim_end().strip_prefix("fuse-").unwrap_or_default();
        number.parse::<u32>().is_ok()
    };
    let mut workers = threads.map(|thread| thread.path()).filter(|thread| {
        fs::read_to_string(thread.join("comm")).is_ok_and(|name| is_worker(&name))
    });
    let read = format!("{} ", libc::SYS_read);
    workers.all(|worker| {
        fs::read_to_string(worker.join("syscall")).is_ok_and(|call| call.starts_with(&read))
    })
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("/proc is readable").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn is_marked(pid: i32, mark: &OsStr) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|b| *b == 0).any(|v| v == mark.as_bytes()))
        && !is_dead(pid)
}

fn command_line(pid: i32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned()
}

/// Mounts fusectl where the machine has not done so; without the right to, the abort will say so.
fn show_connections() {
    let is_shown = fs::read_dir(FUSE_CONNECTIONS).is_ok_and(|mut list| list.next().is_some());
    if !is_shown {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let _ = rustix::mount::mount("fusectl", FUSE_CONNECTIONS, "fusectl", flags, None);
    }
}

fn mounts_of(table: &[u8]) -> impl Iterator<Item = Mount> {
    table.split(|b| *b == b'\n').filter_map(parse_mount)
}

/// `36 35 98:0 /root /point rw,noatime shared:1 - ext3 /dev/root rw`
fn parse_mount(line: &[u8]) -> Option<Mount> {
    let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = words.iter().position(|w| *w == b"-")?;
    let minor = str::from_utf8(words.get(2)?).ok()?.split_once(':')?.1.parse().ok()?;
    let mut options = words.get(5)?.to_vec();
    options.push(b',');
    options.extend_from_slice(words.get(dash + 3)?);
    Some(Mount {
        point: PathBuf::from(unescape(words.get(4)?)),
        kind: unescape(words.get(dash + 1)?),
        source: unescape(words.get(dash + 2)?),
        options: OsString::from_vec(options),
        minor,
    })
}

/// Undoes the table's octal escapes (`\040` is a space).
fn unescape(word: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        let (code, next) = match octal {
            Some(code) => (code, &tail[3..]),
            None => (byte, tail),
        };
        out.push(code);
        rest = next;
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_line_is_read_with_its_escapes() {
        let line = br"36 35 0:98 / /tmp/a\040b rw,nosuid shared:1 - fuse.gate /s\134x rw,user_id=0";
        let mount = parse_mount(line).unwrap();
        assert_eq!(mount.point, Path::new("/tmp/a b"));
        assert_eq!(mount.source, r"/s\x");
        assert_eq!(mount.options, "rw,nosuid,rw,user_id=0");
        assert_eq!(mount.minor, 98);
        assert!(mount.is_fuse());
    }
}
