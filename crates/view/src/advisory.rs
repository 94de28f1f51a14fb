//! flock(2) and fcntl(2): the locks that programs take to tell each other, and that stop nobody
//! else.
//!
//! They are taken on the source's files, so that callers of this view, those of other views of the
//! source and those of the bare directory stand in each other's way as on one directory. Those of
//! flock(2) belong to a handle, whose file has them. Those of fcntl(2) belong to a process: its
//! every file gets one open file of the source, which has them for it. Here it is noted who has
//! what, to tell which process is in the way, and who waits in a circle.
//!
//! Who waits is parked. What a caller of this view gives back, those who wait here get at once;
//! what is given back elsewhere is found by a look now and then, for no call of the system tells
//! it but one that occupies a thread. Nobody else waits: not even another lock of the same process.
//!
//! It must hold: after close(2) nothing of what the closer had is left, as far as the kernel tells
//! of it. FLUSH does. Handles that are opened in a turn may do without it: theirs is given back
//! with RELEASE, once the last descriptor is closed. So it is for flock(2) and `F_OFD_SETLK` in any
//! case, and RELEASE comes a little after the close: a lock that may be gone by then is tried
//! once more before anybody is told that it was in vain.
//!
//! Not here: turns. A file that is gated is gated, whatever locks it bears.

mod extents;
mod files;
mod relay;
mod waiter;

use std::sync::PoisonError;
use std::time::Duration;

use gate_fuse::{Errno, FileLock, HandleId, LockRequest, Reply};

use crate::directory::{self, Bytes, Kind};
use crate::handles::Handle;
use crate::sync::{Mutex, MutexGuard, now};
use crate::view::View;
use files::{Files, Locker, RELEASED_WITHIN, Wanted};
use waiter::{Patience, Waiter};

/// How often it is looked whether somebody elsewhere has given back what is waited for here.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How many calls of one view may wait.
const WAITERS_MAX: usize = 1024;

/// The advisory locks of a view. Nothing that is done under this one waits for another's.
#[derive(Default)]
pub(crate) struct Advisory(Mutex<Files>);

/// Whether a call waits for a lock: `F_SETLK` does not, `F_SETLKW` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    Yes,
}

impl Advisory {
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// Tells which lock is in the way of another.
    pub fn tell_lock(&self, request: &LockRequest, reply: Reply) {
        match self.lock_in_the_way(request) {
            Ok(lock) => reply.lock(&lock),
            Err(errno) => reply.error(errno),
        }
    }

    /// Gets an advisory lock, converts it or gives it back.
    pub fn set_lock(&self, request: &LockRequest, wait: Wait, reply: Reply) {
        let wanted = match self.wanted(request) {
            Ok(wanted) => wanted,
            Err(errno) => return reply.error(errno),
        };
        let mut files = self.advisory.lock();
        let file = files.of(wanted.handle.node);
        let result = match wait {
            Wait::Yes if file.relay.rests(now()) => Err(Errno::AGAIN),
            _ => file.attempt(self, &wanted),
        };
        match result {
            Ok(()) => reply.ok(),
            Err(Errno::AGAIN) => match patience(&files, &wanted, wait) {
                Ok(patience) => {
                    let waiter = Waiter::new(wanted.clone(), patience, reply);
                    files.of(wanted.handle.node).waiters.push(waiter);
                    self.look_later(&mut files);
                }
                Err(errno) => reply.error(errno),
            },
            Err(errno) => reply.error(errno),
        }
        // What was shared out or lost may be what another waits for.
        files.hand_on(wanted.handle.node, self);
    }

    /// Gives back what a process has of a file: it has closed a descriptor of it.
    pub fn give_back_locks(&self, handle: &Handle, id: HandleId, process: u64) {
        let mut files = self.advisory.lock();
        let Some(file) = files.known(handle.node) else { return };
        if file.descriptor_closed(id, process, now()) {
            files.hand_on(handle.node, self);
        }
    }

    /// Gives back what is left of a handle's locks: it is closed for good.
    pub fn end_locks(&self, handle: &Handle, id: HandleId) {
        let mut files = self.advisory.lock();
        let Some(file) = files.known(handle.node) else { return };
        if file.handle_closed(id) {
            files.hand_on(handle.node, self);
        }
    }

    fn wanted(&self, request: &LockRequest) -> Result<Wanted, Errno> {
        let LockRequest { handle: id, owner, lock, flock } = *request;
        let handle = self.handles.get(id)?;
        let kind = match lock.kind.cast_signed() {
            libc::F_RDLCK => Some(Kind::Shared),
            libc::F_WRLCK => Some(Kind::Exclusive),
            libc::F_UNLCK => None,
            _ => return Err(Errno::INVAL),
        };
        if kind.is_some() && handle.fence.is_shut() {
            return Err(Errno::IO);
        }
        let locker = if flock { Locker::Handle(id) } else { Locker::Process(owner) };
        let bytes = Bytes::new(lock.start, lock.end)?;
        Ok(Wanted { locker, bytes, kind, id, handle, pid: lock.pid })
    }

    fn lock_in_the_way(&self, request: &LockRequest) -> Result<FileLock, Errno> {
        let wanted = self.wanted(request)?;
        let mut files = self.advisory.lock();
        let file = files.of(wanted.handle.node);
        let (bytes, kind) = (wanted.bytes, wanted.kind);
        let found = match file.carrier(wanted.locker) {
            Some(its) => directory::lock_in_the_way(its, bytes, kind)?,
            None => wanted.handle.lock_in_the_way(bytes, kind)?,
        };
        let Some(found) = found else {
            let none = libc::F_UNLCK.cast_unsigned();
            return Ok(FileLock { kind: none, ..request.lock });
        };
        let bytes = Bytes::new(found.start, found.end)?;
        // The kernel names the process only on the bare directory: here a view's file has the lock.
        let pid = if found.pid != 0 { found.pid } else { file.who_has(wanted.locker, bytes) };
        Ok(FileLock { pid, ..found })
    }

    fn look_later(&self, files: &mut Files) {
        if !std::mem::replace(&mut files.looking, true) {
            let view = self.itself();
            self.timer.after(LOOK_EVERY, move || view.look());
        }
    }

    /// Lets all who wait try anew.
    fn look(&self) {
        let mut files = self.advisory.lock();
        files.looking = false;
        files.serve_all(self);
        if files.waiters() > 0 {
            self.look_later(&mut files);
        }
    }
}

/// How long a call is to wait for what it did not get; an errno if not at all.
fn patience(files: &Files, wanted: &Wanted, wait: Wait) -> Result<Patience, Errno> {
    let is_full = files.waiters() >= WAITERS_MAX;
    match wait {
        Wait::No if files.may_be_free_soon(wanted) && !is_full => {
            Ok(Patience::Until(now() + RELEASED_WITHIN))
        }
        Wait::No => Err(Errno::AGAIN),
        Wait::Yes if is_full => Err(Errno::NOLCK),
        // flock(2) knows no deadlock.
        Wait::Yes => match wanted.locker {
            Locker::Process(_) if files.closes_a_circle(wanted) => Err(Errno::DEADLK),
            Locker::Process(_) | Locker::Handle(_) => Ok(Patience::Endless),
        },
    }
}
