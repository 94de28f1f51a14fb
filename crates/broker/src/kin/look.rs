//! Looks at processes: who is below whom, and for whom a thread sleeps.

use std::{fs, io};

use gate_api::process::{Stat, lineage};
use gate_core::lock::claim::Process;

/// Children that are looked at, and how many links a chain of them has at most.
const CHILDREN_MAX: usize = 64;
const LINKS_MAX: usize = 4;
/// How many it has at most below a hold.
const LINKS_BELOW_MAX: usize = 16;
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
        pipe: Option<Pipe>,
        /// Which end the other one has.
        other_end: End,
    },
}

/// A pipe or FIFO: told apart without asking its file system, which may be the view that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pipe {
    mount: u64,
    inode: u64,
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
        let member = |(pid, stat)| {
            let Stat { parent, group, start, .. } = stat;
            Member { pid, parent, group, start }
        };
        // Its number may have passed to another.
        let fits = |member: &Member| member.pid != process.pid || member.start == process.start;
        Family { members: lineage(process.pid).map(member).take_while(fits).collect() }
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
        match read_call(pid, thread) {
            Ok(syscall) => Sleep::in_call(pid, thread, &syscall),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Sleep::in_channel(&read_channel(pid, thread)?)
            }
            Err(_) => None,
        }
    }

    /// Returns whether what `waiter` does could end this sleep of `holder`.
    pub fn is_for(&self, waiter: Process, holder: Process) -> bool {
        self.leads_to(waiter, holder, LINKS_MAX)
    }

    /// As [`Sleep::is_for`]: a child that is waited for and sleeps for the waiter is a link of the
    /// chain, as in `{ echo a >&2; yes; } 2>>log | head 2>>log`.
    fn leads_to(&self, waiter: Process, holder: Process, links: usize) -> bool {
        match self {
            Sleep::Wait(child) => {
                Family::of(waiter).could_end(*child, holder)
                    || (links > 0
                        && children(holder, *child).filter(has_one_thread).any(|child| {
                            Sleep::of(child.pid, child.pid)
                                .is_some_and(|sleep| sleep.leads_to(waiter, child, links - 1))
                        }))
            }
            Sleep::Pipe { pipe: Some(pipe), other_end } => {
                open_ends(waiter.pid, *other_end).any(|open| open == *pipe)
            }
            Sleep::Pipe { pipe: None, other_end } => {
                let ours: Vec<Pipe> = open_ends(holder.pid, other_end.opposite()).collect();
                open_ends(waiter.pid, *other_end).any(|pipe| ours.contains(&pipe))
            }
        }
    }

    /// Reads `NUMBER ARG0 ARG1 … SP PC`; a thread that runs is just `running`.
    fn in_call(pid: u32, thread: u32, syscall: &str) -> Option<Sleep> {
        let mut words = syscall.split_ascii_whitespace();
        let number: i64 = words.next()?.parse().ok()?;
        let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        let [first, second] = [argument()?, argument()?];
        match number {
            libc::SYS_wait4 => Some(Sleep::Wait(wait4_child(pid, first)?)),
            libc::SYS_waitid => Some(Sleep::Wait(waitid_child(pid, first, second)?)),
            libc::SYS_read | libc::SYS_readv => Sleep::in_pipe((pid, thread), first, End::Writing),
            libc::SYS_write | libc::SYS_writev => {
                Sleep::in_pipe((pid, thread), first, End::Reading)
            }
            _ => None,
        }
    }

    /// A FIFO looks like any file by its descriptor, and asking its file system could wait for a
    /// view; so the function that the thread sleeps in tells.
    fn in_pipe((pid, thread): (u32, u32), descriptor: u64, other_end: End) -> Option<Sleep> {
        let link = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).ok()?;
        if !link.as_os_str().as_encoded_bytes().starts_with(b"pipe:[") {
            Sleep::in_channel(&read_channel(pid, thread)?)?;
        }
        let opened = OpenFile::of(pid, &descriptor.to_string())?;
        Some(Sleep::Pipe { pipe: Some(opened.pipe), other_end })
    }

    /// Where the kernel shows no more than the function a thread sleeps in.
    fn in_channel(channel: &str) -> Option<Sleep> {
        let pipe = |other_end| Some(Sleep::Pipe { pipe: None, other_end });
        match channel.trim() {
            "do_wait" | "__do_wait" => Some(Sleep::Wait(Child::Any)),
            "pipe_read" | "anon_pipe_read" | "fifo_pipe_read" => pipe(End::Writing),
            "pipe_write" | "anon_pipe_write" | "fifo_pipe_write" => pipe(End::Reading),
            _ => None,
        }
    }
}

fn read_call(pid: u32, thread: u32) -> io::Result<String> {
    #[cfg(test)]
    super::tests::may_read_calls()?;
    fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall"))
}

fn read_channel(pid: u32, thread: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/task/{thread}/wchan")).ok()
}

/// Returns whether a thread of `holder` sleeps for `waiter` and for nobody else: for itself, or for
/// children each of which does.
pub(crate) fn only_waits_for(waiter: Process, holder: Process, thread: u32) -> bool {
    leads_only_to(waiter, holder, thread, LINKS_BELOW_MAX)
}

fn leads_only_to(waiter: Process, holder: Process, thread: u32, links: usize) -> bool {
    match Sleep::of(holder.pid, thread) {
        Some(Sleep::Wait(awaited)) if links > 0 => {
            let mut children = children(holder, awaited).peekable();
            children.peek().is_some()
                && children.all(|child| {
                    child == waiter || leads_only_to(waiter, child, child.pid, links - 1)
                })
        }
        Some(pipe @ Sleep::Pipe { .. }) => pipe.is_for(waiter, holder),
        Some(Sleep::Wait(_)) | None => false,
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

/// What the kernel tells of an open file without looking at its file system.
struct OpenFile {
    pipe: Pipe,
    access: i32,
}

impl OpenFile {
    fn of(pid: u32, descriptor: &str) -> Option<OpenFile> {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).ok()?;
        let field = |name| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let flags = i32::from_str_radix(field("flags:")?, 8).ok()?;
        let pipe =
            Pipe { mount: field("mnt_id:")?.parse().ok()?, inode: field("ino:")?.parse().ok()? };
        Some(OpenFile { pipe, access: flags & libc::O_ACCMODE })
    }

    fn has(&self, end: End) -> bool {
        match end {
            _ if self.access == libc::O_RDWR => true,
            End::Reading => self.access == libc::O_RDONLY,
            End::Writing => self.access == libc::O_WRONLY,
        }
    }
}

/// Returns the pipes, among other files, of which a process has that end open.
fn open_ends(pid: u32, end: End) -> impl Iterator<Item = Pipe> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.take(DESCRIPTORS_MAX).filter_map(move |descriptor| {
        let opened = OpenFile::of(pid, descriptor.file_name().to_str()?)?;
        opened.has(end).then_some(opened.pipe)
    })
}

/// Returns the children of a process whose end could end such a wait.
fn children(parent: Process, awaited: Child) -> impl Iterator<Item = Process> {
    let list = format!("/proc/{0}/task/{0}/children", parent.pid);
    let list = fs::read_to_string(list).unwrap_or_default();
    let pids: Vec<u32> = list.split_ascii_whitespace().flat_map(str::parse).collect();
    pids.into_iter().take(CHILDREN_MAX).filter_map(move |pid| {
        let stat = Stat::read(pid)?;
        let meant = match awaited {
            Child::Any => true,
            Child::Pid(awaited) => pid == awaited,
            Child::Group(group) => stat.group == group,
        };
        meant.then_some(Process { namespace: parent.namespace, pid, start: stat.start })
    })
}

fn has_one_thread(process: &Process) -> bool {
    Stat::read(process.pid).is_some_and(|stat| stat.threads == 1)
}
