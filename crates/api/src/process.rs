//! Who a caller is: its machine, its process, its threads.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt};
use std::sync::OnceLock;

use gate_core::fold::{fold, fold_into};
use gate_core::lock::claim::{Caller, Process};

/// More than `/proc/PID/stat` ever has.
const STAT_BYTES_MAX: usize = 1024;
/// How far up a family is followed.
const DEPTH_MAX: usize = 256;

/// What `/proc/PID/stat` tells of a process, or of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// One letter: `R`, `S`, `D`, `T`, `Z`, …
    pub state: u8,
    /// The parent process.
    pub parent: u32,
    /// The process group.
    pub group: u32,
    /// How many threads the process has.
    pub threads: u32,
    /// When it started, in ticks since boot.
    pub start: u64,
    /// What it runs.
    pub image: Image,
}

/// The program that a process runs, by where that lies in memory: another one once it calls
/// exec, which changes neither its number nor its start. Says nothing of processes whose memory
/// this one may not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Image(u64);

/// Returns a number of this boot of this machine, unlike that of any other.
pub fn machine() -> u64 {
    static MACHINE: OnceLock<u64> = OnceLock::new();
    *MACHINE
        .get_or_init(|| fold(&std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default()))
}

/// Returns the pid namespace of this process, unlike that of any other machine.
pub fn namespace() -> u64 {
    static NAMESPACE: OnceLock<u64> = OnceLock::new();
    *NAMESPACE.get_or_init(|| {
        let inode = std::fs::metadata("/proc/self/ns/pid").map(|found| found.ino());
        inode.unwrap_or_default() ^ machine()
    })
}

/// Returns this process.
pub fn own() -> Process {
    let pid = std::process::id();
    of_pid(pid).unwrap_or(Process { namespace: namespace(), pid, start: 0 })
}

/// Returns this process as one that calls; which thread does is not said.
pub fn own_call() -> Caller {
    Caller { process: own(), thread: 0, single_threaded: false }
}

/// Returns the process that has this id now, in the namespace of this process.
pub fn of_pid(pid: u32) -> Option<Process> {
    let stat = Stat::read(pid)?;
    Some(Process { namespace: namespace(), pid, start: stat.start })
}

/// Returns the process of a thread and what it runs, or `None` if it is gone or beyond this pid
/// namespace.
pub fn of_thread(thread: u32) -> Option<(Caller, Image)> {
    let stat = Stat::read_again(thread)?;
    if stat.threads <= 1 {
        let process = Process { namespace: namespace(), pid: thread, start: stat.start };
        return Some((Caller { process, thread, single_threaded: true }, stat.image));
    }
    let process = process_of_thread(thread, &stat)?;
    Some((Caller { process, thread, single_threaded: false }, stat.image))
}

/// Returns the process of one thread of several. A thread stays in its process, and no other one has
/// its number and its start: so each is looked for once, as far as is remembered.
fn process_of_thread(thread: u32, stat: &Stat) -> Option<Process> {
    /// Threads that one thread of ours remembers.
    const REMEMBERED_MAX: usize = 256;
    thread_local! {
        static KNOWN: RefCell<HashMap<(u32, u64), Process>> = RefCell::default();
    }
    let key = (thread, stat.start);
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&key).copied()) {
        return Some(known);
    }
    let pid = leader(thread)?;
    let start = if pid == thread { stat.start } else { Stat::read(pid)?.start };
    let process = Process { namespace: namespace(), pid, start };
    KNOWN.with_borrow_mut(|known| {
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(key, process);
    });
    Some(process)
}

/// Returns a process and those above it, the nearest first, as far as they can be read.
pub fn lineage(pid: u32) -> impl Iterator<Item = (u32, Stat)> {
    let read = |pid| Some((pid, Stat::read(pid)?));
    std::iter::successors(read(pid), move |(_, stat)| read(stat.parent)).take(DEPTH_MAX)
}

/// Returns whether a process of this pid namespace still runs.
pub fn is_alive(process: Process) -> bool {
    Stat::read(process.pid)
        .is_some_and(|stat| stat.start == process.start && !matches!(stat.state, b'Z' | b'X'))
}

/// Returns a descriptor that becomes readable when the process ends; `None` if it has.
pub fn watch(process: Process) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(process.pid).ok()?)?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    // The number may have passed to another process before it was opened.
    is_alive(process).then_some(pidfd)
}

impl Stat {
    /// Reads it; `None` if there is no such process.
    pub fn read(pid: u32) -> Option<Stat> {
        if pid == 0 {
            return None;
        }
        let mut buffer = [0; STAT_BYTES_MAX];
        let length = read_once(&format!("/proc/{pid}/stat"), &mut buffer).ok()?;
        Stat::parse(&buffer[..length])
    }

    /// Reads that of a thread which is likely to have been read before, by a descriptor kept from
    /// then: of another thread that has come by the same number, that tells nothing.
    fn read_again(thread: u32) -> Option<Stat> {
        /// Descriptors that one thread of ours keeps.
        const KEPT_MAX: usize = 4;
        thread_local! {
            static KEPT: RefCell<VecDeque<(u32, File)>> = RefCell::default();
        }
        if thread == 0 {
            return None;
        }
        let mut buffer = [0; STAT_BYTES_MAX];
        KEPT.with_borrow_mut(|kept| {
            if let Some(at) = kept.iter().position(|(of, _)| *of == thread) {
                if let Ok(length) = kept[at].1.read_at(&mut buffer, 0) {
                    return Stat::parse(&buffer[..length]);
                }
                kept.remove(at);
            }
            let file = File::open(format!("/proc/{thread}/stat")).ok()?;
            let length = file.read_at(&mut buffer, 0).ok()?;
            kept.truncate(KEPT_MAX - 1);
            kept.push_front((thread, file));
            Stat::parse(&buffer[..length])
        })
    }

    /// Parses it. The command's name comes second and may hold anything, so fields are counted
    /// from its last parenthesis.
    fn parse(bytes: &[u8]) -> Option<Stat> {
        let end = bytes.iter().rposition(|byte| *byte == b')')?;
        let rest = str::from_utf8(bytes.get(end + 2..)?).ok()?;
        let mut fields = rest.split(' ');
        Some(Stat {
            state: fields.next()?.bytes().next()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            threads: fields.nth(14)?.parse().ok()?,
            start: fields.nth(1)?.parse().ok()?,
            image: Image::parse(fields),
        })
    }
}

impl Image {
    /// Reads where code, stack and environment begin and where the environment ends, from the
    /// fields after the start. The kernel places at least the stack at random.
    fn parse<'a>(mut fields: impl Iterator<Item = &'a str>) -> Image {
        let mut image = 0;
        for skipped in [3, 1, 21, 0] {
            let field = fields.nth(skipped).unwrap_or_default();
            image = fold_into(image, field.as_bytes());
        }
        Image(image)
    }
}

/// Returns the process a thread belongs to.
fn leader(thread: u32) -> Option<u32> {
    static KERNEL_TELLS: OnceLock<bool> = OnceLock::new();
    let asked = pidfd_info::leader(thread);
    if *KERNEL_TELLS.get_or_init(|| asked.is_some()) && asked.is_some() {
        return asked;
    }
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// PIDFD_GET_INFO: Linux 6.13 and later.
mod pidfd_info {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    /// The kernel's `struct pidfd_info`, in its first version.
    #[repr(C)]
    #[derive(Default)]
    struct PidfdInfo {
        mask: u64,
        cgroup: u64,
        pid: u32,
        tgid: u32,
        parent: u32,
        ids: [u32; 8],
        exit_code: i32,
    }

    const PIDFD_INFO_PID: u64 = 1;
    const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;
    /// `_IOWR(0xFF, 11, struct pidfd_info)`
    const PIDFD_GET_INFO: libc::c_ulong =
        3 << 30 | (size_of::<PidfdInfo>() as libc::c_ulong) << 16 | 0xFF << 8 | 11;

    pub(super) fn leader(thread: u32) -> Option<u32> {
        let thread = libc::pid_t::try_from(thread).ok()?;
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or an error.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, thread, PIDFD_THREAD) };
        let pidfd = i32::try_from(pidfd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the descriptor is new, so nobody else owns it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let mut info = PidfdInfo { mask: PIDFD_INFO_PID, ..PidfdInfo::default() };
        // SAFETY: the number of the ioctl carries the size of `info`, which the kernel fills.
        let outcome = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &mut info) };
        (outcome == 0 && info.mask & PIDFD_INFO_PID != 0).then_some(info.tgid)
    }
}

fn read_once(path: &str, buffer: &mut [u8]) -> io::Result<usize> {
    File::open(path)?.read(buffer)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = b"7 (a) R 1 (b)) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 1234 1 2\n";
        let image = Stat::parse(stat).unwrap().image;
        let expected = Stat { state: b'S', parent: 3, group: 7, threads: 9, start: 1234, image };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse(b"7 (a"), None);
    }

    #[test]
    fn a_thread_is_known_by_its_process() {
        let (told, hear) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            told.send(rustix::thread::gettid().as_raw_pid().cast_unsigned()).unwrap();
            let _ = ended.recv();
        });
        let (caller, image) = of_thread(hear.recv().unwrap()).unwrap();
        assert_eq!(caller, Caller { thread: caller.thread, ..own_call() });
        assert_eq!(Some(image), Stat::read(std::process::id()).map(|stat| stat.image));
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn exec_changes_the_image_and_nothing_else() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "read go; exec env -i cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let before = Stat::read(shell.id()).unwrap();
        shell.stdin.as_mut().unwrap().write_all(b"go\nx").unwrap();
        shell.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let after = Stat::read(shell.id()).unwrap();
        assert_ne!(before.image, after.image);
        assert_eq!(before.start, after.start);
        drop(shell.stdin.take());
        shell.wait().unwrap();
    }

    /// What is kept from the first look must show exec, and be of no use once the process is gone.
    #[test]
    fn who_is_seen_again_is_seen_as_it_is_by_now() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "read go; exec cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (caller, before) = of_thread(shell.id()).unwrap();
        assert_eq!(of_thread(shell.id()), Some((caller, before)));
        let mut asks = shell.stdin.take().unwrap();
        asks.write_all(b"go\nx").unwrap();
        shell.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let (again, after) = of_thread(shell.id()).unwrap();
        assert!(again == caller && after != before);
        drop(asks);
        shell.wait().unwrap();
        assert_eq!(of_thread(shell.id()), None);
    }

    #[test]
    fn the_kernel_and_proc_agree_on_the_leader() {
        let pid = std::process::id();
        assert_eq!(leader(pid), Some(pid));
    }

    #[test]
    fn a_child_is_alive_until_it_was_waited_for() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = of_pid(child.id()).unwrap();
        assert!(is_alive(process) && watch(process).is_some());
        assert!(!is_alive(Process { start: process.start + 1, ..process }));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!is_alive(process) && watch(process).is_none());
    }
}
