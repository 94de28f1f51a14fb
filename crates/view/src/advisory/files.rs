//! The files on which callers of this view have or await advisory locks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gate_fuse::{Errno, HandleId, NodeId};
use rustc_hash::{FxHashMap, FxHashSet};

use super::extents::Extents;
use super::relay::Relay;
use super::waiter::{Served, Waiter};
use crate::directory::{self, Bytes, Kind};
use crate::handles::Handle;
use crate::sync::now;
use crate::view::View;

/// How many pieces of one file a locker may have.
const EXTENTS_MAX: usize = 4096;

/// How long RELEASE may take after the last close, so that a lock may not be there any more that
/// still is.
pub(super) const RELEASED_WITHIN: Duration = Duration::from_millis(10);

/// Who locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Locker {
    /// flock(2): a handle.
    Handle(HandleId),
    /// fcntl(2): a process, or one open file (`F_OFD_SETLK`); the kernel does not tell which.
    Process(u64),
}

/// A lock that is asked for, or, without a kind, given back.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub locker: Locker,
    pub bytes: Bytes,
    pub kind: Option<Kind>,
    /// Through which handle, …
    pub id: HandleId,
    pub handle: Arc<Handle>,
    /// … and of which process.
    pub pid: u32,
}

/// The files, and who waits.
#[derive(Default)]
pub(super) struct Files {
    files: FxHashMap<NodeId, File>,
    /// Whether a look at those who wait is due.
    pub looking: bool,
}

#[derive(Default)]
pub(super) struct File {
    holders: Vec<Holder>,
    pub waiters: Vec<Waiter>,
    pub relay: Relay,
}

/// Who has locks of a file, or had some.
struct Holder {
    locker: Locker,
    pid: u32,
    has: Extents,
    by: By,
    /// The handles that it locked through.
    handles: Vec<HandleId>,
    /// When a descriptor of such a handle was last closed; always, as it were, if that is not told.
    closing: Closing,
}

/// What has the locks at the source: their end is its end.
enum By {
    /// The handle's own file.
    Handle(Arc<Handle>),
    /// A file that is open for nothing else.
    Own { file: OwnedFd, writes: bool },
}

#[derive(Clone, Copy)]
enum Closing {
    NotSeen,
    At(Instant),
    Unknown,
}

impl Files {
    pub fn of(&mut self, node: NodeId) -> &mut File {
        self.files.entry(node).or_default()
    }

    pub fn known(&mut self, node: NodeId) -> Option<&mut File> {
        self.files.get_mut(&node)
    }

    /// Lets those who wait for a file have what may be free.
    pub fn hand_on(&mut self, node: NodeId, view: &View) {
        if let Some(file) = self.files.get_mut(&node) {
            file.hand_on(view, now());
            if file.is_idle() {
                self.files.remove(&node);
            }
        }
    }

    /// Lets all who wait try anew.
    pub fn serve_all(&mut self, view: &View) {
        let now = now();
        for file in self.files.values_mut().filter(|file| !file.relay.rests(now)) {
            file.serve(view, now);
        }
        self.files.retain(|_, file| !file.is_idle());
    }

    /// Whether what is in the way may be gone as soon as RELEASE comes.
    pub fn may_be_free_soon(&self, wanted: &Wanted) -> bool {
        let now = now();
        self.in_the_way(wanted).any(|holder| match holder.closing {
            Closing::NotSeen => false,
            Closing::At(closed) => now.duration_since(closed) < RELEASED_WITHIN,
            Closing::Unknown => true,
        })
    }

    pub fn waiters(&self) -> usize {
        self.files.values().map(|file| file.waiters.len()).sum()
    }

    /// Whether whoever waits for this waits for itself: for one who waits, and so on, for it.
    pub fn closes_a_circle(&self, wanted: &Wanted) -> bool {
        let mut seen = FxHashSet::default();
        let lockers = |wanted| self.in_the_way(wanted).map(|holder| holder.locker);
        let mut in_the_way: Vec<Locker> = lockers(wanted).collect();
        while let Some(locker) = in_the_way.pop() {
            if locker == wanted.locker {
                return true;
            }
            if seen.insert(locker) {
                let waiters = self.files.values().flat_map(|file| &file.waiters);
                let its = waiters.filter(|waiter| waiter.waits_for_good(locker));
                in_the_way.extend(its.flat_map(|waiter| lockers(&waiter.wanted)));
            }
        }
        false
    }

    fn in_the_way(&self, wanted: &Wanted) -> impl Iterator<Item = &Holder> {
        let file = self.files.get(&wanted.handle.node);
        file.into_iter().flat_map(|file| file.in_the_way(wanted))
    }
}

impl File {
    /// Gets a lock, or gives it back. EAGAIN if it is another's, here or elsewhere.
    pub fn attempt(&mut self, view: &View, wanted: &Wanted) -> Result<(), Errno> {
        let at = match self.holders.iter().position(|holder| holder.locker == wanted.locker) {
            Some(at) => at,
            None if wanted.kind.is_none() => return Ok(()),
            None => {
                self.holders.push(Holder::new(view, wanted)?);
                self.holders.len() - 1
            }
        };
        let result = self.holders[at].set(view, wanted);
        // A process will lock again; its file is kept until it closes its own.
        self.holders
            .retain(|holder| holder.has.len() > 0 || matches!(holder.locker, Locker::Process(_)));
        result
    }

    /// Whether a caller of this view is in the way.
    pub fn is_locked(&self, wanted: &Wanted) -> bool {
        self.in_the_way(wanted).next().is_some()
    }

    /// The file that carries the locks of a process, if it ever had any.
    pub fn carrier(&self, locker: Locker) -> Option<BorrowedFd<'_>> {
        let holder = self.holders.iter().find(|holder| holder.locker == locker)?;
        match &holder.by {
            By::Handle(_) => None,
            By::Own { file, .. } => Some(file.as_fd()),
        }
    }

    /// Which other process of this view has any of these bytes; 0 if none has.
    pub fn who_has(&self, but: Locker, bytes: Bytes) -> u32 {
        let mut others = self
            .holders
            .iter()
            .filter(|holder| matches!(holder.locker, Locker::Process(_)) && holder.locker != but);
        let holder = others.find(|holder| holder.has.conflict(bytes, Kind::Exclusive));
        holder.map_or(0, |holder| holder.pid)
    }

    /// A process closed a descriptor of a handle: what it had of the file is free. Returns whether
    /// anything may be.
    pub fn descriptor_closed(&mut self, id: HandleId, process: u64, now: Instant) -> bool {
        let before = self.holders.len();
        self.holders.retain(|holder| holder.locker != Locker::Process(process));
        for holder in self.holders.iter_mut().filter(|holder| holder.handles.contains(&id)) {
            if !matches!(holder.closing, Closing::Unknown) {
                holder.closing = Closing::At(now);
            }
        }
        self.holders.len() < before
    }

    /// A handle is gone: whoever locked through it has closed it, and what they had is free. Returns
    /// whether anything may be.
    pub fn handle_closed(&mut self, id: HandleId) -> bool {
        let before = self.holders.len();
        for holder in self.holders.iter().filter(|holder| holder.locker == Locker::Handle(id)) {
            // Somebody else may still keep the file open for a moment.
            if let By::Handle(handle) = &holder.by {
                let _ = handle.flock(None);
            }
        }
        self.holders.retain(|holder| !holder.handles.contains(&id));
        self.holders.len() < before
    }

    fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }

    fn hand_on(&mut self, view: &View, now: Instant) {
        if !self.waiters.is_empty() && self.relay.may_hand_on(now) && self.serve(view, now) {
            self.relay.handed_on(now);
        }
    }

    /// Lets those who wait try anew. Returns whether anybody got what it wanted.
    fn serve(&mut self, view: &View, now: Instant) -> bool {
        let mut any = false;
        for waiter in std::mem::take(&mut self.waiters) {
            match waiter.serve(self, view, now) {
                Served::Yes => any = true,
                Served::Gone => {}
                Served::NotYet(waiter) => self.waiters.push(waiter),
            }
        }
        any
    }

    fn in_the_way(&self, wanted: &Wanted) -> impl Iterator<Item = &Holder> {
        let same_family = |one, other| {
            matches!(
                (one, other),
                (Locker::Handle(_), Locker::Handle(_)) | (Locker::Process(_), Locker::Process(_))
            )
        };
        let (locker, bytes, kind) = (wanted.locker, wanted.bytes, wanted.kind);
        self.holders.iter().filter(move |holder| {
            same_family(holder.locker, locker)
                && holder.locker != locker
                && kind.is_some_and(|kind| holder.has.conflict(bytes, kind))
        })
    }
}

impl Holder {
    fn new(view: &View, wanted: &Wanted) -> Result<Holder, Errno> {
        let by = match wanted.locker {
            Locker::Handle(_) => By::Handle(wanted.handle.clone()),
            Locker::Process(_) => By::own(view, &wanted.handle)?,
        };
        Ok(Holder {
            locker: wanted.locker,
            pid: wanted.pid,
            has: Extents::default(),
            by,
            handles: vec![wanted.id],
            closing: Closing::NotSeen,
        })
    }

    fn set(&mut self, view: &View, wanted: &Wanted) -> Result<(), Errno> {
        if !self.handles.contains(&wanted.id) {
            self.handles.push(wanted.id);
        }
        // Of a handle that is opened in a turn the kernel may not tell when descriptors are closed.
        if wanted.handle.has_turn() {
            self.closing = Closing::Unknown;
        }
        if wanted.kind.is_some() && self.has.len() >= EXTENTS_MAX {
            return Err(Errno::NOLCK);
        }
        if let By::Own { writes: false, .. } = self.by
            && wanted.kind == Some(Kind::Exclusive)
        {
            self.move_to(By::own(view, &wanted.handle)?)?;
        }
        let done = match &self.by {
            By::Handle(handle) => handle.flock(wanted.kind),
            By::Own { file, .. } => directory::lock_bytes(file.as_fd(), wanted.bytes, wanted.kind),
        };
        match (done, self.locker) {
            (Ok(()), _) => {
                self.pid = wanted.pid;
                self.has.set(wanted.bytes, wanted.kind);
                if wanted.kind.is_some() {
                    // What others wrote while they had the lock is what it is taken for.
                    view.declare_changed(wanted.handle.node);
                }
            }
            // A conversion begins with the loss of what there was.
            (Err(Errno::AGAIN), Locker::Handle(_)) => self.has.set(wanted.bytes, None),
            (Err(_), _) => {}
        }
        done
    }

    /// What only reads has only shared locks, which stand beside those of its successor.
    fn move_to(&mut self, by: By) -> Result<(), Errno> {
        if let By::Own { file, .. } = &by {
            let lock = |(bytes, kind)| directory::lock_bytes(file.as_fd(), bytes, Some(kind));
            self.has.iter().try_for_each(lock)?;
        }
        self.by = by;
        Ok(())
    }
}

impl By {
    /// Opens the file for its locks: to write only if the handle does, so that who watches the
    /// source is not told of a writer where there is none.
    fn own(view: &View, handle: &Handle) -> Result<By, Errno> {
        // As of a handle without a descriptor.
        let bare = view.bare.as_ref().ok_or(Errno::NOSYS)?;
        let open = |mode: i32| bare.open(handle.node, mode.cast_unsigned(), false);
        let writes = handle.user.writes;
        let opened = match writes {
            true => open(libc::O_RDWR | libc::O_APPEND)
                .or_else(|_| open(libc::O_WRONLY | libc::O_APPEND)),
            false => open(libc::O_RDONLY),
        };
        match opened {
            Ok(file) => Ok(By::Own { file: file.into(), writes }),
            // What fcntl(2) says when there is no room for more locks.
            Err(Errno::MFILE | Errno::NFILE) => Err(Errno::NOLCK),
            Err(errno) => Err(errno),
        }
    }
}
