//! Threads that have of their own what the threads of a process usually share.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// The links of the directory of the threads where there is one: those of any directory, and its own.
const LINKS_OF_ONE: u64 = 3;

/// What they share, until one leaves that (unshare(2)). The numbers are those of kcmp(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// The open files.
    Files = 2,
    /// The working directory and the root, and with them the mounts.
    Directories = 3,
}

/// Returns a process, and those of its threads that do not share such a thing with it. /proc has
/// all of them by their numbers.
pub fn apart(pid: u32, by: Shared) -> impl Iterator<Item = u32> {
    let others = std::iter::once_with(move || others(pid)).flatten();
    std::iter::once(pid).chain(others.filter(move |thread| !share(pid, *thread, by)))
}

/// Returns the threads beside the first.
fn others(pid: u32) -> impl Iterator<Item = u32> {
    let dir = format!("/proc/{pid}/task");
    // Most processes have one thread, which is told sooner than listed: each is a link of it.
    let has_others = fs::metadata(&dir).is_ok_and(|dir| dir.nlink() > LINKS_OF_ONE);
    let threads = has_others.then(|| fs::read_dir(dir)).into_iter().flatten().flatten().flatten();
    let ids = threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    ids.filter(move |thread| *thread != pid)
}

/// Returns whether two threads are known to share such a thing.
fn share(one: u32, other: u32, what: Shared) -> bool {
    let [one, other] = [one, other].map(u32::cast_signed);
    // SAFETY: it takes numbers alone.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, what as libc::c_int, 0, 0) == 0 }
}
