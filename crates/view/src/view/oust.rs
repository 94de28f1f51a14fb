//! Turns taken away from who writes past the view.
//!
//! A handle that is backed by the source's file to be written cannot be fenced. Its file is set
//! apart: the name goes to a copy, and whatever is still written to a file that has none. Where
//! that cannot be, its turn ends with its last close, or, with `--kill`, with whoever has it open.
//! N7: the next in line is let in only then; unless the lease ran out, for then it is in already.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gate_core::lock::event::Revocation;
use gate_fuse::{Attr, NodeId};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{FileSystemNumber, View};
use crate::directory::KeptName;
use crate::handles::Handle;

/// How often it is looked whether a file is written past the view.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl View {
    /// Makes way for the next in line, on a thread of its own: it takes as long as a copy.
    pub fn oust(self: Arc<Self>, handle: &Handle, why: Revocation) {
        let node = handle.node;
        let started =
            std::thread::Builder::new().name("view-oust".into()).spawn(move || {
                match self.make_way(node, why) {
                    Ok(()) => {}
                    Err(reason) if self.settings.kill => self.kill_users(node, reason),
                    Err(reason) => tracing::warn!(
                        ?reason,
                        path = ?self.source.book().path_of(node),
                        "a file is written past the view until it is closed"
                    ),
                }
            });
        if let Err(error) = started {
            tracing::error!(%error, "a file is written past the view until it is closed");
        }
    }

    fn make_way(&self, node: NodeId, why: Revocation) -> Result<(), KeptName> {
        let writers = self.handles.writers(node);
        if why == Revocation::LeaseLost || writers.iter().any(|writer| !writer.fence.is_shut()) {
            return Err(KeptName::InUse);
        }
        let bare = self.bare.as_ref().expect("what goes past the view is a directory's");
        let (parent, name) = bare.set_apart(node)?;
        tracing::warn!(?name, "what is still written goes to a file without a name");
        if let Err(errno) = self.notifier().inval_entry(parent, name.to_bytes()) {
            tracing::warn!(%errno, ?name, "a name could not be declared stale");
        }
        for writer in writers {
            self.end_turn(writer.end_turn(), None);
        }
        Ok(())
    }

    /// Tells that a handle works whose I/O is not seen, for as long as the file changes.
    pub fn watch_unseen(self: Arc<Self>, owner: u64, handle: &Arc<Handle>) {
        let seen = self.source.getattr(handle.node).ok();
        self.look_again(owner, Arc::downgrade(handle), seen);
    }

    fn look_again(
        self: Arc<Self>,
        owner: u64,
        handle: std::sync::Weak<Handle>,
        seen: Option<Attr>,
    ) {
        let timer = self.timer.clone();
        timer.after(LOOK_EVERY, move || {
            let Some(open) = handle.upgrade().filter(|handle| handle.is_contended()) else {
                return;
            };
            let now = self.source.getattr(open.node).ok();
            if now.map(written) != seen.map(written) {
                self.broker.active(owner);
            }
            self.look_again(owner, handle, now);
        });
    }

    /// Kills every process that has a file of this view open or mapped.
    fn kill_users(&self, node: NodeId, reason: KeptName) {
        let Some(path) = self.source.book().path_of(node) else { return };
        let path = self.settings.mountpoint.join(OsStr::from_bytes(&path));
        let inode = self.source.getattr(node).ok().map(|attr| attr.ino);
        let file = self.settings.file_system.zip(inode);
        for pid in users_of(&path, file) {
            tracing::warn!(?reason, %pid, path = %path.display(), "killed: it writes past the view");
            // Who is gone by now has closed it, too.
            let _ = pidfd_open(pid, PidfdFlags::empty())
                .and_then(|process| pidfd_send_signal(process, Signal::KILL));
        }
    }
}

/// What changes when a file is written.
fn written(attr: Attr) -> (u64, u64, u32) {
    (attr.size, attr.mtime, attr.mtime_nsec)
}

/// Returns the processes that have a file of the view open or mapped, by what the kernel knows of it:
/// asking the file itself would be a call to this view. Where the view lies over its source a file
/// of that bears the same path.
fn users_of(path: &Path, file: Option<(FileSystemNumber, u64)>) -> Vec<Pid> {
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let others = pids.filter(|pid| pid.unsigned_abs() != own);
    others.filter(|pid| uses(*pid, path, file)).filter_map(Pid::from_raw).collect()
}

fn uses(pid: i32, path: &Path, file: Option<(FileSystemNumber, u64)>) -> bool {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    // So it is called when the kernel has dropped the name since, if only to look it up again.
    let mut dropped = path.as_os_str().to_owned();
    dropped.push(" (deleted)");
    ["fd", "map_files"].iter().any(|list| {
        let links = fs::read_dir(proc.join(list)).into_iter().flatten().flatten();
        links.map(|link| link.path()).any(|link| match (fs::read_link(&link), file) {
            (Ok(target), None) => target == path,
            (Ok(target), Some(file)) => (target == path || target == *dropped) && is(&link, file),
            (Err(_), _) => false,
        })
    })
}

fn is(link: &Path, (view, inode): (FileSystemNumber, u64)) -> bool {
    let fields = StatxFlags::INO;
    let found = statx(CWD, link, AtFlags::STATX_DONT_SYNC, fields);
    found.is_ok_and(|found| {
        (found.stx_dev_major, found.stx_dev_minor) == view && found.stx_ino == inode
    })
}
