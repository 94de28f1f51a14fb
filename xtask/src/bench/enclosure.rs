//! A run's own namespaces of mounts and processes: whatever ends it, be it Ctrl-C, takes with it
//! all that it mounted and started.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::machine;
use crate::step::Failure;

/// Tells a process that it is inside.
const INSIDE: &str = "GATE_BENCH_INSIDE";

/// The shell is the first process of the namespace: the one that no Ctrl-C ends, so it is not
/// this program. Before, it lets go of the views that were mounted outside: a copy of a mount keeps it
/// alive after it was unmounted there.
const FIRST: &str = "sed -n 's/^[^ ]* \\([^ ]*\\) fuse\\.gate .*/\\1/p' /proc/self/mounts |
    while read -r view; do umount -l \"$(printf '%b' \"$view\")\"; done
\"$@\"; exit $?";

/// Tells whether this process is inside.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Lets those who keep a descriptor for each file that they know keep a million, if root may.
pub fn raise_descriptor_limit() {
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
    let limit = Rlimit { maximum: most.trim().parse().ok(), ..getrlimit(Resource::Nofile) };
    // Where root may not, whoever needs more fails, and is left out.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Runs `xtask bench` with these words inside, in `dir`.
pub fn run(words: &[&str], dir: &Path) -> Result<(), Failure> {
    let fail = |error| Failure::new("cannot enclose a run", error);
    let target = std::path::absolute(machine::target()).map_err(fail)?;
    let mut command = machine::as_root("env")?;
    command
        .args([format!("{INSIDE}=1"), format!("CARGO_TARGET_DIR={}", target.display())])
        .args(["setpriv", "--pdeathsig", "KILL"])
        .args([
            "unshare",
            "--mount",
            "--propagation",
            "slave",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-c", FIRST, "sh"])
        .arg(target.join("release/xtask"))
        .arg("bench")
        .args(words)
        .current_dir(dir);
    let status = command.status().map_err(fail)?;
    // What failed inside was told there.
    if status.success() { Ok(()) } else { std::process::exit(status.code().unwrap_or(1)) }
}
