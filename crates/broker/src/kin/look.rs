//! Looks at processes: who is below whom, and for whom a thread sleeps.

use std::fs;
use std::path::Path;

use gate_api::process::Stat;
use gate_core::lock::claim::Process;

/// How far up a family is followed.
const DEPTH_MAX: usize = 256;
/// Descriptors of a process that are looked at.
const DESCRIPTORS_MAX: usize = 4_096;

/// A process and those above it, nearest first, each with its process group.
#[derive(Debug)]
pub(crate) struct Family {
    members: Vec<Member>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    pid: u32,
    parent: u32,
    group: u32,
    start: u64,
}

/// For what a thread sleeps, without a time-out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// For a child.
    Wait(Child),
    /// For the other end of a pipe.
    Pipe {
        /// The pipe; `None` if only the kind of sleep could be seen.
        inode: Option<u64>,
        /// Which end the other one has.
        other_end: End,
    },
}

/// Which children end a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Child {
    Any,
    Pid(u32),
    Group(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Reading,
    Writing,
}

impl Family {
    pub fn of(process: Process) -> Family {
        let mut members = Vec::new();
        let mut pid = process.pid;
        while members.len() < DEPTH_MAX
            && let Some(stat) = Stat::read(pid)
        {
            let Stat { parent, group, start, .. } = stat;
            if members.is_empty() && start != process.start {
                break;
            }
            members.push(Member { pid, parent, group, start });
            pid = parent;
        }
        Family { members }
    }

    /// Returns whether a process is above, the first one itself apart.
    pub fn is_below(&self, above: Process) -> bool {
        let above = |member: &Member| member.pid == above.pid && member.start == above.start;
        self.members.iter().skip(1).any(above)
    }

    /// Returns whether the end of this process, or of one above it, could end such a wait.
    fn could_end(&self, child: Child, parent: Process) -> bool {
        self.is_below(parent)
            && self.members.iter().filter(|member| member.parent == parent.pid).any(|member| {
                match child {
                    Child::Any => true,
                    Child::Pid(pid) => member.pid == pid,
                    Child::Group(group) => member.group == group,
                }
            })
    }
}

impl Sleep {
    /// Returns what a thread sleeps for; `None` if it does not, or for something else.
    pub fn of(pid: u32, thread: u32) -> Option<Sleep> {
        let task = format!("/proc/{pid}/task/{thread}");
        match fs::read_to_string(format!("{task}/syscall")) {
            Ok(syscall) => Sleep::in_call(pid, &syscall),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Sleep::in_channel(&fs::read_to_string(format!("{task}/wchan")).ok()?)
            }
            Err(_) => None,
        }
    }

    /// Returns whether what `waiter` does could end this sleep of `holder`.
    pub fn is_for(&self, waiter: Process, holder: Process) -> bool {
        match self {
            Sleep::Wait(child) => Family::of(waiter).could_end(*child, holder),
            Sleep::Pipe { inode: Some(inode), other_end } => {
                pipes(waiter.pid, *other_end).any(|pipe| pipe == *inode)
            }
            Sleep::Pipe { inode: None, other_end } => {
                let ours: Vec<u64> = pipes(holder.pid, other_end.opposite()).collect();
                pipes(waiter.pid, *other_end).any(|pipe| ours.contains(&pipe))
            }
        }
    }

    /// Reads `NUMBER ARG0 ARG1 … SP PC`; a thread that runs is just `running`.
    fn in_call(pid: u32, syscall: &str) -> Option<Sleep> {
        let mut words = syscall.split_ascii_whitespace();
        let number: i64 = words.next()?.parse().ok()?;
        let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        let [first, second] = [argument()?, argument()?];
        match number {
            libc::SYS_wait4 => Some(Sleep::Wait(wait4_child(pid, first)?)),
            libc::SYS_waitid => Some(Sleep::Wait(waitid_child(pid, first, second)?)),
            libc::SYS_read | libc::SYS_readv => Sleep::in_pipe(pid, first, End::Writing),
            libc::SYS_write | libc::SYS_writev => Sleep::in_pipe(pid, first, End::Reading),
            _ => None,
        }
    }

    fn in_pipe(pid: u32, descriptor: u64, other_end: End) -> Option<Sleep> {
        let inode = pipe_inode(Path::new(&format!("/proc/{pid}/fd/{descriptor}")))?;
        Some(Sleep::Pipe { inode: Some(inode), other_end })
    }

    /// Where the kernel shows no more than the function a thread sleeps in.
    fn in_channel(channel: &str) -> Option<Sleep> {
        let pipe = |other_end| Some(Sleep::Pipe { inode: None, other_end });
        match channel.trim() {
            "do_wait" | "__do_wait" => Some(Sleep::Wait(Child::Any)),
            "pipe_read" | "anon_pipe_read" => pipe(End::Writing),
            "pipe_write" | "anon_pipe_write" => pipe(End::Reading),
            _ => None,
        }
    }
}

impl End {
    fn opposite(self) -> End {
        match self {
            End::Reading => End::Writing,
            End::Writing => End::Reading,
        }
    }
}

/// `wait4(pid, …)`: a child, any (-1), one of a group (-group), one of the own group (0).
fn wait4_child(caller: u32, argument: u64) -> Option<Child> {
    // The register holds an `int`; its upper half means nothing.
    let pid = argument as u32 as i32;
    Some(match pid {
        -1 => Child::Any,
        0 => Child::Group(Stat::read(caller)?.group),
        pid if pid > 0 => Child::Pid(pid.unsigned_abs()),
        group => Child::Group(group.unsigned_abs()),
    })
}

fn waitid_child(caller: u32, kind: u64, id: u64) -> Option<Child> {
    let id = id as u32;
    let kind = libc::idtype_t::try_from(kind & u64::from(u32::MAX)).ok()?;
    Some(match kind {
        libc::P_ALL => Child::Any,
        libc::P_PID => Child::Pid(id),
        libc::P_PGID if id == 0 => Child::Group(Stat::read(caller)?.group),
        libc::P_PGID => Child::Group(id),
        libc::P_PIDFD => {
            let info = fs::read_to_string(format!("/proc/{caller}/fdinfo/{id}")).ok()?;
            let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
            Child::Pid(pid.trim().parse().ok()?)
        }
        _ => return None,
    })
}

/// Returns the pipes of which a process has that end open.
fn pipes(pid: u32, end: End) -> impl Iterator<Item = u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.take(DESCRIPTORS_MAX).filter_map(move |descriptor| {
        let inode = pipe_inode(&descriptor.path())?;
        let number = descriptor.file_name();
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", number.to_str()?)).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
        let has_end = match (flags & libc::O_ACCMODE, end) {
            (libc::O_RDWR, _) => true,
            (access, End::Reading) => access == libc::O_RDONLY,
            (access, End::Writing) => access == libc::O_WRONLY,
        };
        has_end.then_some(inode)
    })
}

/// Returns the inode of a descriptor's pipe: its link reads `pipe:[4711]`.
fn pipe_inode(descriptor: &Path) -> Option<u64> {
    let target = fs::read_link(descriptor).ok()?;
    target.to_str()?.strip_prefix("pipe:[")?.strip_suffix(']')?.parse().ok()
}
