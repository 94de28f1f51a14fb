//! How one process hangs together with another that may wait for it in a way nobody can see: in
//! poll(2) a program that waits for its child looks like one that waits for anything.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use gate_api::process;
use gate_core::lock::claim::Process;

/// Descriptors of a process that are looked at.
const DESCRIPTORS_MAX: usize = 4_096;
/// What a descriptor's link in /proc lets its owner do if it was opened to read and to write.
const BOTH: u32 = 0o600;

/// Why a process may have to wait for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// The other runs below it.
    Below,
    /// They have the two ends of a pipe.
    Pipe,
}

/// Returns what ties `waiter` to `holder`, as far as may be known.
pub fn between(holder: Process, waiter: Process) -> Option<Tie> {
    let is_here = |of: Process| of.namespace == process::namespace() && process::is_alive(of);
    if holder == waiter || !is_here(holder) || !is_here(waiter) {
        return None;
    }
    if process::lineage(waiter.pid).skip(1).any(|(pid, _)| pid == holder.pid) {
        return Some(Tie::Below);
    }
    let (held, wanted) = (pipe_ends(holder.pid), pipe_ends(waiter.pid));
    let meet = held.iter().any(|(pipe, end)| wanted.get(pipe).is_some_and(|other| other != end));
    meet.then_some(Tie::Pipe)
}

/// Returns the pipes of which a process has one end, and which. Who has both is not told when the
/// others close theirs, and so waits for none of them: a whole family shares such a one in make(1).
fn pipe_ends(pid: u32) -> BTreeMap<PathBuf, u32> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut ends = BTreeMap::new();
    for link in links.take(DESCRIPTORS_MAX).map(|link| link.path()) {
        let (Ok(name), Ok(facts)) = (fs::read_link(&link), fs::symlink_metadata(&link)) else {
            continue;
        };
        if name.as_os_str().as_bytes().starts_with(b"pipe:[") {
            *ends.entry(name).or_default() |= facts.mode() & BOTH;
        }
    }
    ends.retain(|_, end| *end != BOTH);
    ends
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn cat(stdin: Stdio, stdout: Stdio) -> Child {
        Command::new("cat").stdin(stdin).stdout(stdout).spawn().unwrap()
    }

    fn of(child: &Child) -> Process {
        process::of_pid(child.id()).unwrap()
    }

    #[test]
    fn a_child_is_below_and_those_at_the_ends_of_a_pipe_are_tied() {
        let (reads, _input) = std::io::pipe().unwrap();
        let (other_reads, _other_input) = std::io::pipe().unwrap();
        let mut first = cat(reads.into(), Stdio::piped());
        let mut next = cat(first.stdout.take().unwrap().into(), Stdio::null());
        let mut other = cat(other_reads.into(), Stdio::null());
        assert_eq!(between(process::own(), of(&first)), Some(Tie::Below));
        assert_eq!(between(of(&first), process::own()), Some(Tie::Pipe));
        for (one, another) in [(&first, &next), (&next, &first)] {
            assert_eq!(between(of(one), of(another)), Some(Tie::Pipe));
        }
        assert_eq!(between(of(&next), of(&other)), None);
        for child in [&mut first, &mut next, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
