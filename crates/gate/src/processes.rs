//! What /proc tells of the processes of this machine.

mod threads;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gate_api::mounts::Mount;
use gate_api::process;
use gate_core::lock::claim::Process;
use gate_view::written;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::Serialize;

use crate::output;
use threads::Shared;

/// The variables in which a process tree carries the name of its agent, and which tree it is.
pub use gate_view::agent::{AGENT_VARIABLE, RUN_VARIABLE};

/// What a server of a view has open …
const DEVICE: &str = "/dev/fuse";
/// … and what a broker, by its name.
const JOURNAL_NAME: &str = "journal.sqlite";

/// Somebody who uses something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// The process.
    pub pid: u32,
    /// Its command.
    pub command: String,
    /// What it has there.
    pub has: Use,
    /// Where.
    #[serde(with = "written")]
    pub path: PathBuf,
}

/// What a process has beneath a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Its working directory.
    WorkingDirectory,
    /// Its root directory.
    RootDirectory,
    /// An open file.
    OpenFile,
    /// A file mapped to memory, or the program it runs.
    Mapping,
}

impl Use {
    /// Returns the words for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Use::WorkingDirectory => "working directory",
            Use::RootDirectory => "root directory",
            Use::OpenFile => "open file",
            Use::Mapping => "mapped file",
        }
    }
}

/// Returns the command's name of a process, if it is one of this pid namespace and lives.
pub fn command(of: Process) -> Option<String> {
    is_here(of).then(|| command_of_pid(of.pid)).flatten()
}

/// Returns whether a process of this pid namespace is known not to live any more.
pub fn has_ended(of: Process) -> bool {
    of.namespace == process::namespace() && !process::is_alive(of)
}

/// Returns the agent a process belongs to, as far as it may be known.
pub fn agent(of: Process) -> Option<String> {
    if !is_here(of) {
        return None;
    }
    let environment = fs::read(format!("/proc/{}/environ", of.pid)).ok()?;
    let is_agent = |variable: &&[u8]| variable.starts_with(AGENT_VARIABLE.as_bytes());
    let mut variables = environment.split(|byte| *byte == 0).filter(is_agent);
    let value = variables.find_map(|variable| {
        variable[AGENT_VARIABLE.len()..].strip_prefix(b"=").filter(|name| !name.is_empty())
    })?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Something that a process has of a file system.
#[derive(Debug)]
pub struct Grip {
    /// The process.
    pub pid: u32,
    has: Use,
    /// Where it is, as the process' mounts have it.
    pub path: PathBuf,
    way: Way,
}

/// How it was come to.
#[derive(Debug)]
enum Way {
    /// By a link in /proc.
    Link(PathBuf),
    /// As a mapping, of which the file system is told.
    Mapping((u32, u32)),
}

/// By what something is told apart from others of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The mount it was opened by.
    Mount(u64),
    /// Its file system.
    Device((u32, u32)),
}

impl Grip {
    /// Returns whether it is of this very mount.
    pub fn is_of(&self, mount: &Mount) -> bool {
        match self.mark() {
            Some(Mark::Mount(id)) => id == mount.id,
            Some(Mark::Device(device)) => device == mount.device,
            None => false,
        }
    }

    /// Returns by what it is told apart; that asks no server of a file system.
    pub fn mark(&self) -> Option<Mark> {
        match &self.way {
            Way::Mapping(device) => Some(Mark::Device(*device)),
            Way::Link(link) => {
                let found = statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::MNT_ID);
                found.ok().map(|found| Mark::Mount(found.stx_mnt_id))
            }
        }
    }
}

/// Returns who has something of a mount, once per process, as far as may be known.
pub fn users_of(mount: &Mount) -> Vec<User> {
    users_where(|grip| grip.path.starts_with(&mount.point) && grip.is_of(mount))
}

/// Returns who has something of a kind, once per process, as far as may be known.
pub fn users_where(mut is_meant: impl FnMut(&Grip) -> bool) -> Vec<User> {
    let pids = all().filter(|pid| *pid != std::process::id());
    let users = pids.filter_map(|pid| grips_of(pid).find(&mut is_meant));
    users.filter_map(Grip::into_user).collect()
}

/// Returns the words for some of those who have something, and how many there are beyond.
pub fn named(users: &[User]) -> String {
    let name = |user: &User| {
        let User { pid, command, has, path } = user;
        format!("{command} (process {pid}: {} {})", has.as_str(), path.display())
    };
    output::some_of(&users.iter().map(name).collect::<Vec<_>>())
}

/// The process that serves a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// The process.
    pub pid: u32,
    /// Whether a signal has stopped it.
    pub is_stopped: bool,
}

/// Returns who serves the view at a mount point, without asking the view: the one process that has
/// the device open and was told to mount at such a name; `None` if there are several, or if this
/// user may not know.
pub fn server_of(point: &Path) -> Option<Server> {
    let mut servers = all().filter(|pid| serves(*pid, point));
    let pid = servers.next()?;
    let is_stopped = process::Stat::read(pid)?.state == b'T';
    servers.next().is_none().then_some(Server { pid, is_stopped })
}

fn serves(pid: u32, point: &Path) -> bool {
    let of = PathBuf::from(format!("/proc/{pid}"));
    let words = fs::read(of.join("cmdline")).unwrap_or_default();
    let dir = fs::read_link(of.join("cwd")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0).map(|word| Path::new(OsStr::from_bytes(word)));
    // A private view is at such a place, too, and another one.
    if words.clone().any(|word| word == Path::new("--private")) {
        return false;
    }
    // In the background it has left the directory that it was told a path from.
    let is_left = |word: &Path| dir == Path::new("/") && word.is_relative();
    let is_told = words.any(|word| {
        dir.join(word) == point || is_left(word) && word.file_name() == point.file_name()
    });
    is_told && has_open(&of, |path| path == Path::new(DEVICE))
}

/// Returns whether a process is of Gate: it runs this very program, or another release of it has it
/// serve.
pub fn is_of_gate(pid: u32) -> bool {
    let [own, its] = ["self", &pid.to_string()].map(|of| Path::new("/proc").join(of));
    // A name alone proves nothing, and costs less than what proves it.
    program_name(&its).is_some_and(|name| program_name(&own) == Some(name))
        && (program_file(&its).is_some_and(|file| program_file(&own) == Some(file))
            || has_open(&its, is_of_server))
}

fn program_name(process: &Path) -> Option<Vec<u8>> {
    let path = fs::read_link(process.join("exe")).ok()?;
    // The kernel says so of a program that was replaced since.
    let name = path.file_name()?.as_bytes();
    Some(name.strip_suffix(b" (deleted)").unwrap_or(name).to_owned())
}

/// Returns which file a process runs; that asks no server of a file system.
fn program_file(process: &Path) -> Option<(u32, u32, u64)> {
    let exe = process.join("exe");
    let found = statx(CWD, &exe, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    Some((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}

/// What servers of views and their guardians have open, and what brokers.
fn is_of_server(path: &Path) -> bool {
    path == Path::new(DEVICE) || path.file_name() == Some(OsStr::new(JOURNAL_NAME))
}

fn is_here(of: Process) -> bool {
    of.namespace == process::namespace() && process::is_alive(of)
}

/// Returns the command's name of a process of this pid namespace.
pub fn command_of_pid(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

/// Returns all processes that may be seen.
pub fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Returns a process, and those of its threads that are in directories of their own, and maybe among
/// other mounts.
pub fn with_own_directories(pid: u32) -> impl Iterator<Item = u32> {
    threads::apart(pid, Shared::Directories)
}

/// The plainest use first: where a process is tells people more than what it has open.
fn grips_of(pid: u32) -> impl Iterator<Item = Grip> {
    let by_link = move |has, link: PathBuf| {
        let path = fs::read_link(&link).ok()?;
        Some(Grip { pid, has, path, way: Way::Link(link) })
    };
    let places = with_own_directories(pid).flat_map(|task| {
        let of = PathBuf::from(format!("/proc/{task}"));
        [(Use::WorkingDirectory, of.join("cwd")), (Use::RootDirectory, of.join("root"))]
    });
    let places = places.filter_map(move |(has, link)| by_link(has, link));
    let fds = threads::apart(pid, Shared::Files)
        .flat_map(|task| fs::read_dir(format!("/proc/{task}/fd")).into_iter().flatten().flatten());
    let open = fds.filter_map(move |fd| by_link(Use::OpenFile, fd.path()));
    places.chain(open).chain(mappings_of(pid))
}

impl Grip {
    fn into_user(self) -> Option<User> {
        let Grip { pid, has, path, .. } = self;
        Some(User { pid, command: command_of_pid(pid)?, has, path })
    }
}

fn has_open(process: &Path, is_meant: impl Fn(&Path) -> bool) -> bool {
    let links = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    links.filter_map(|link| fs::read_link(link.path()).ok()).any(|path| is_meant(&path))
}

fn mappings_of(pid: u32) -> impl Iterator<Item = Grip> {
    // Read when it is come to, for most who have something are found by less.
    std::iter::once(pid).flat_map(|pid| {
        let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
        let lines = maps.split(|byte| *byte == b'\n');
        lines.filter_map(|line| mapping(pid, line)).collect::<Vec<_>>()
    })
}

/// `7f00-7f10 r-xp 00000000 08:01 17   /usr/bin/true`
fn mapping(pid: u32, line: &[u8]) -> Option<Grip> {
    let slash = line.iter().position(|byte| *byte == b'/')?;
    let path = PathBuf::from(OsStr::from_bytes(&line[slash..]));
    let device = str::from_utf8(line[..slash].split(|byte| *byte == b' ').nth(3)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let number = |digits| u32::from_str_radix(digits, 16).ok();
    let way = Way::Mapping((number(major)?, number(minor)?));
    Some(Grip { pid, has: Use::Mapping, path, way })
}

/// Returns the files from which this process runs.
pub fn own_mappings() -> impl Iterator<Item = PathBuf> {
    mappings_of(std::process::id()).map(|grip| grip.path)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use gate_api::mounts;

    use super::*;

    #[test]
    fn this_process_has_a_name_and_keeps_its_program_busy() {
        let own = process::own();
        assert!(command(own).is_some_and(|name| !name.is_empty()));
        assert_eq!(command(Process { start: own.start + 1, ..own }), None);
        let program = std::env::current_exe().unwrap();
        assert!(own_mappings().any(|path| path == program));
    }

    /// It may leave what the others share.
    #[test]
    fn what_one_thread_has_alone_is_found() {
        use rustix::thread::{UnshareFlags, unshare_unsafe};

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let found = |has| {
            let mut grips = grips_of(std::process::id());
            grips.any(|grip| grip.has == has && grip.path == path)
        };
        for (what, has) in
            [(UnshareFlags::FS, Use::WorkingDirectory), (UnshareFlags::FILES, Use::OpenFile)]
        {
            std::thread::scope(|scope| {
                let alone = scope.spawn(|| {
                    // SAFETY: nothing of what is no longer shared is used by two threads.
                    unsafe { unshare_unsafe(what) }.unwrap();
                    let _open = match has {
                        Use::OpenFile => Some(fs::File::open(&path).unwrap()),
                        _ => std::env::set_current_dir(&path).map(|()| None).unwrap(),
                    };
                    found(has)
                });
                assert!(alone.join().unwrap(), "{has:?}");
            });
            assert!(!found(has), "{has:?}");
        }
    }

    #[test]
    fn who_sits_in_a_directory_keeps_it_busy() {
        let dir = std::env::temp_dir().canonicalize().unwrap();
        let mut child = std::process::Command::new("cat")
            .current_dir(&dir)
            .env(AGENT_VARIABLE, "ada")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Once it answers it is the program that was started, with its environment.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let grip = grips_of(child.id()).find(|grip| grip.path == dir).unwrap();
        let all = mounts::all().unwrap();
        let (of, others): (Vec<_>, Vec<_>) = all.iter().partition(|mount| grip.is_of(mount));
        assert_eq!((of.len(), others.len()), (1, all.len() - 1));
        let user = grip.into_user().unwrap();
        assert_eq!((user.has, user.path), (Use::WorkingDirectory, dir));
        let process = process::of_pid(child.id()).unwrap();
        assert_eq!(agent(process).as_deref(), Some("ada"));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
