//! Threads that have of their own what the threads of a process usually share.

use std::fs;

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
    let threads = move || fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let ids = move || threads().filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    let others = std::iter::once_with(ids).flatten();
    std::iter::once(pid)
        .chain(others.filter(move |thread| *thread != pid && !share(pid, *thread, by)))
}

/// Returns whether two threads are known to share such a thing.
fn share(one: u32, other: u32, what: Shared) -> bool {
    let [one, other] = [one, other].map(u32::cast_signed);
    // SAFETY: it takes numbers alone.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, what as libc::c_int, 0, 0) == 0 }
}
