//! Advisory locks on the source's files, as flock(2) and fcntl(2) know them. Nothing here waits.

use std::os::fd::{AsRawFd, BorrowedFd};

use gate_fuse::{Errno, FileLock};
use rustix::fs::FlockOperation;

use super::checked;

/// What a lock leaves to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As much.
    Shared,
    /// Nothing.
    Exclusive,
}

/// Bytes of a file, from the first to the last, which may lie beyond its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    first: i64,
    last: i64,
}

impl Bytes {
    /// From `first` to `last`; EINVAL if there are none, or no file is that long.
    pub fn new(first: u64, last: u64) -> Result<Bytes, Errno> {
        let [first, last] = [first, last].map(|at| i64::try_from(at).map_err(|_| Errno::INVAL));
        let (first, last) = (first?, last?);
        if first <= last { Ok(Bytes { first, last }) } else { Err(Errno::INVAL) }
    }

    /// Whether any byte is in both.
    pub fn meets(self, other: Bytes) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// All bytes of both, if there is none between them.
    pub fn joined(self, other: Bytes) -> Option<Bytes> {
        let after = |one: Bytes, next: Bytes| next.first > one.last.saturating_add(1);
        let apart = after(self, other) || after(other, self);
        let (first, last) = (self.first.min(other.first), self.last.max(other.last));
        (!apart).then_some(Bytes { first, last })
    }

    /// Those that are not in the other.
    pub fn without(self, other: Bytes) -> impl Iterator<Item = Bytes> {
        let before = Bytes { last: self.last.min(other.first - 1), ..self };
        let after = Bytes { first: self.first.max(other.last.saturating_add(1)), ..self };
        let rest = [Some(before), Some(after).filter(|_| other.last < self.last)];
        rest.into_iter().flatten().filter(|bytes| bytes.first <= bytes.last)
    }
}

/// Locks the whole file for this very open file, or unlocks it. EAGAIN if another one is in the
/// way; what it had is lost then, if it had another kind.
pub fn flock(file: BorrowedFd<'_>, kind: Option<Kind>) -> Result<(), Errno> {
    let operation = match kind {
        Some(Kind::Shared) => FlockOperation::NonBlockingLockShared,
        Some(Kind::Exclusive) => FlockOperation::NonBlockingLockExclusive,
        None => FlockOperation::NonBlockingUnlock,
    };
    rustix::fs::flock(file, operation)
}

/// Locks bytes for this very open file, or unlocks them; EAGAIN if somebody is in the way.
pub fn lock_bytes(file: BorrowedFd<'_>, bytes: Bytes, kind: Option<Kind>) -> Result<(), Errno> {
    fcntl(file, libc::F_OFD_SETLK, &mut wire(bytes, kind))
}

/// Finds a lock that stands in the way of this open file: of whom, as fcntl(2) tells it, and
/// where. Without a kind, one that it has itself, on Linux ≥ 6.6.
pub fn lock_in_the_way(
    file: BorrowedFd<'_>,
    bytes: Bytes,
    kind: Option<Kind>,
) -> Result<Option<FileLock>, Errno> {
    let mut lock = wire(bytes, kind);
    fcntl(file, libc::F_OFD_GETLK, &mut lock)?;
    if i32::from(lock.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let last = match lock.l_len {
        0 => i64::MAX,
        length => lock.l_start + (length - 1),
    };
    Ok(Some(FileLock {
        start: lock.l_start.cast_unsigned(),
        end: last.cast_unsigned(),
        kind: u32::from(lock.l_type.cast_unsigned()),
        pid: u32::try_from(lock.l_pid).unwrap_or(0),
    }))
}

fn fcntl(file: BorrowedFd<'_>, command: i32, lock: &mut libc::flock) -> Result<(), Errno> {
    // SAFETY: these commands take a pointer to such a struct, which outlives the call.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), command, lock) })
}
fn wire(bytes: Bytes, kind: Option<Kind>) -> libc::flock {
    let l_type = match kind {
        Some(Kind::Shared) => libc::F_RDLCK,
        Some(Kind::Exclusive) => libc::F_WRLCK,
        None => libc::F_UNLCK,
    };
    libc::flock {
        // The three kinds are 0 to 2.
        l_type: l_type as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: bytes.first,
        // 0: to the end of the file, wherever that may be.
        l_len: if bytes.last == i64::MAX { 0 } else { bytes.last - bytes.first + 1 },
        l_pid: 0,
    }
}
