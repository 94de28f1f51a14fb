//! What /proc tells of the processes of this machine.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gate_api::process;
use gate_core::lock::claim::Process;

/// The variables in which a process tree carries the name of its agent, and which tree it is.
pub use gate_view::agent::{AGENT_VARIABLE, RUN_VARIABLE};

/// Somebody who keeps a mount busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The process.
    pub pid: u32,
    /// Its command.
    pub command: String,
    /// What it has there.
    pub has: Use,
    /// Where.
    pub path: PathBuf,
}

/// What a process has beneath a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Its working directory.
    WorkingDirectory,
    /// Its root directory.
    Root,
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
            Use::Root => "root directory",
            Use::OpenFile => "open file",
            Use::Mapping => "mapped file",
        }
    }
}

/// Returns the command's name of a process, if it is one of this pid namespace and lives.
pub fn command(of: Process) -> Option<String> {
    is_here(of).then(|| command_of_pid(of.pid)).flatten()
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

/// Returns who has something at or beneath `top`, once per process, as far as may be known.
pub fn users_of(top: &Path) -> Vec<User> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id()).filter_map(|pid| use_of(pid, top)).collect()
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
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut servers = pids.filter(|pid| serves(*pid, point));
    let pid = servers.next()?;
    let is_stopped = process::Stat::read(pid)?.state == b'T';
    servers.next().is_none().then_some(Server { pid, is_stopped })
}

fn serves(pid: u32, point: &Path) -> bool {
    let of = PathBuf::from(format!("/proc/{pid}"));
    let words = fs::read(of.join("cmdline")).unwrap_or_default();
    let dir = fs::read_link(of.join("cwd")).unwrap_or_default();
    let mut words = words.split(|byte| *byte == 0).map(|word| Path::new(OsStr::from_bytes(word)));
    // In the background it has left the directory that it was told a path from.
    let is_left = |word: &Path| dir == Path::new("/") && word.is_relative();
    let is_told = words.any(|word| {
        dir.join(word) == point || is_left(word) && word.file_name() == point.file_name()
    });
    is_told && first_link_below(&of.join("fd"), Path::new("/dev/fuse")).is_some()
}

fn is_here(of: Process) -> bool {
    of.namespace == process::namespace() && process::is_alive(of)
}

fn command_of_pid(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

fn use_of(pid: u32, top: &Path) -> Option<User> {
    let of = PathBuf::from(format!("/proc/{pid}"));
    let target =
        |name: &str| fs::read_link(of.join(name)).ok().filter(|path| path.starts_with(top));
    let (has, path) = None
        .or_else(|| Some((Use::WorkingDirectory, target("cwd")?)))
        .or_else(|| Some((Use::Root, target("root")?)))
        .or_else(|| Some((Use::OpenFile, first_link_below(&of.join("fd"), top)?)))
        .or_else(|| Some((Use::Mapping, first_mapping_below(&of, top)?)))?;
    let command = command_of_pid(pid)?;
    Some(User { pid, command, has, path })
}

fn first_link_below(dir: &Path, top: &Path) -> Option<PathBuf> {
    let links = fs::read_dir(dir).ok()?.flatten();
    links.filter_map(|link| fs::read_link(link.path()).ok()).find(|path| path.starts_with(top))
}

/// `7f00-7f10 r-xp 00000000 08:01 17   /usr/bin/true`
fn first_mapping_below(of: &Path, top: &Path) -> Option<PathBuf> {
    let maps = fs::read(of.join("maps")).ok()?;
    let path = |line: &[u8]| {
        let slash = line.iter().position(|byte| *byte == b'/')?;
        Some(PathBuf::from(OsStr::from_bytes(&line[slash..])))
    };
    maps.split(|byte| *byte == b'\n').filter_map(path).find(|path| path.starts_with(top))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn this_process_has_a_name_and_keeps_its_program_busy() {
        let own = process::own();
        assert!(command(own).is_some_and(|name| !name.is_empty()));
        assert_eq!(command(Process { start: own.start + 1, ..own }), None);
        let program = std::env::current_exe().unwrap();
        let found = first_mapping_below(Path::new("/proc/self"), &program);
        assert_eq!(found, Some(program));
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
        let user = use_of(child.id(), &dir).unwrap();
        assert_eq!((user.has, user.path), (Use::WorkingDirectory, dir));
        let process = process::of_pid(child.id()).unwrap();
        assert_eq!(agent(process).as_deref(), Some("ada"));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
