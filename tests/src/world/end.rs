//! The end of a world: in order where all went well, by force where it did not.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use super::World;
use crate::kernel;
use crate::wait::{SOON, try_wait_for};

/// How long a test may take before everything it waits for is ended by force.
const DEADLINE: Duration = Duration::from_secs(150);
const DEADLINE_SOAK: Duration = Duration::from_secs(3600);

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_what_happened();
            self.raze();
            return;
        }
        let mut wrong = self.end();
        // A process that was told to end may need a moment.
        try_wait_for(SOON, || self.left().is_empty().then_some(()));
        wrong.extend(self.left());
        self.raze();
        drop(self.watchdog.take());
        assert!(wrong.is_empty(), "left behind:\n{}", wrong.join("\n"));
    }
}

impl World {
    /// Ends all that runs, in order; returns what did not go as it should.
    fn end(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for view in std::mem::take(&mut self.views).into_iter().rev() {
            let outcome = self.gate([OsStr::new("umount"), view.point.as_ref()]).run();
            if outcome.code != Some(0) {
                wrong.push(outcome.to_string());
                continue;
            }
            let outcome = view.server.finish(SOON);
            if outcome.code != Some(0) {
                wrong.push(outcome.to_string());
            }
        }
        if let Some(broker) = self.broker.take() {
            broker.signal(Signal::TERM);
            let outcome = broker.finish(SOON);
            if outcome.code != Some(0) {
                wrong.push(outcome.to_string());
            }
        }
        if let Some(namespace) = self.namespace.take() {
            let mounts = kernel::mounts_seen_by(Some(namespace.keeper()), self.home());
            wrong.extend(mounts.iter().map(|m| format!("mount {}", m.point.display())));
            let outcome = namespace.end();
            if outcome.code != Some(0) {
                wrong.push(outcome.to_string());
            }
        }
        wrong
    }

    /// Names what is left of the world.
    fn left(&self) -> Vec<String> {
        let mounts = kernel::mounts_below(self.home());
        let mounts = mounts.iter().map(|m| format!("mount {}", m.point.display()));
        let processes = kernel::processes_of(self.home());
        let processes = processes.into_iter().map(|(pid, line)| format!("process {pid}: {line}"));
        let litter = fs::read_dir(self.source()).into_iter().flatten().flatten();
        let litter = litter
            .map(|entry| entry.file_name().display().to_string())
            .filter(|name| name.starts_with(".fuse_hidden"));
        mounts.chain(processes).chain(litter).collect()
    }

    /// Ends everything by force.
    fn raze(&mut self) {
        kernel::abort_fuse_below(self.home());
        for (pid, _) in kernel::processes_of(self.home()) {
            kernel::kill(pid);
        }
        self.views.clear();
        self.broker = None;
        self.namespace = None;
        kernel::detach_below(self.home());
    }

    fn tell_what_happened(&self) {
        for view in &self.views {
            eprintln!("--- view {}\n{}", view.point.display(), view.server.so_far());
        }
        if let Some(broker) = &self.broker {
            eprintln!("--- broker\n{}", broker.so_far());
        }
        // Where only the end of all that is shown, it is this that counts.
        eprintln!("--- why\n{}", why().as_deref().unwrap_or("unknown"));
    }
}

/// What the latest panic said.
static WHY: Mutex<Option<String>> = Mutex::new(None);

fn why() -> MutexGuard<'static, Option<String>> {
    WHY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what the latest panic said, to be told again below what the servers said.
pub(super) fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            *why() = Some(panic.to_string());
            told(panic);
        }));
    });
}

/// Ends what a test waits for when the test takes too long, so that it fails rather than hangs.
pub(super) fn watch(rope: &Receiver<()>, home: &Path) {
    let deadline = if crate::scaled(0, 1) == 1 { DEADLINE_SOAK } else { DEADLINE };
    if rope.recv_timeout(deadline) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    eprintln!("the test overran {deadline:?}: ending what runs in {}", home.display());
    kernel::abort_fuse_below(home);
    for (pid, line) in kernel::processes_of(home) {
        eprintln!("killed {pid}: {line}");
        kernel::kill(pid);
    }
}
