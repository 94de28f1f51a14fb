//! What is open in a view.

use std::hash::Hash;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use gate_api::session::Quiet;
use gate_core::lock::claim::Process;
use gate_fuse::{Errno, FileLock, HandleId, NodeId};
use rustc_hash::FxHashMap;

use crate::agent::Agent;
use crate::backing::Way;
use crate::directory::{self, Bytes, Kind};
use crate::fence::{Fence, Found, InUse};
use crate::source::{File, Listing, Who};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, RwLock};
use crate::turn::Turn;

/// How often the I/O of a handle that a reader waits for is told, at most.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// One open file.
#[derive(Debug)]
pub(crate) struct Handle {
    pub node: NodeId,
    pub user: User,
    /// Whether FLUSH already gave the turn back.
    pub turn_ended: AtomicBool,
    /// Shut once the turn is taken away.
    pub fence: Fence,
    turn: Turn,
    file: Box<dyn File>,
    pub way: Way,
    contended: AtomicBool,
    /// When its I/O was last told, in milliseconds of the view's clock, plus one.
    told_ms: AtomicU64,
}

/// Who opened a file, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// `None` if it lies beyond this pid namespace.
    pub process: Option<Process>,
    /// Whom it speaks for, where that matters.
    pub agent: Option<Arc<Agent>>,
    pub writes: bool,
    pub executes: bool,
}

/// The handles of a view.
pub(crate) struct Handles {
    files: RwLock<FxHashMap<HandleId, Arc<Handle>>>,
    directories: RwLock<FxHashMap<HandleId, Arc<dyn Listing>>>,
    /// The handles of owners at the broker.
    owners: Mutex<FxHashMap<u64, Arc<Handle>>>,
    /// Who has a file open, each as often as it has.
    users: Mutex<FxHashMap<NodeId, Vec<Arc<Handle>>>>,
    next: AtomicU64,
    started: Instant,
}

impl User {
    pub fn who(&self) -> Who {
        let agent = self.agent.as_ref().map(|agent| agent.tag.clone());
        Who { process: self.process, agent }
    }
}

impl Handle {
    pub fn new(node: NodeId, user: User, turn: Turn, (file, way): (Box<dyn File>, Way)) -> Handle {
        Handle {
            node,
            user,
            turn_ended: AtomicBool::new(false),
            fence: Fence::default(),
            turn,
            file,
            way,
            contended: AtomicBool::new(false),
            told_ms: AtomicU64::new(0),
        }
    }

    /// Returns whether a reader waits for it.
    pub fn is_contended(&self) -> bool {
        self.contended.load(Ordering::Relaxed) && !self.turn_ended.load(Ordering::Acquire)
    }

    /// Returns whether it was opened in a turn.
    pub fn has_turn(&self) -> bool {
        matches!(self.turn, Turn::Granted { .. })
    }

    /// Locks the file by flock(2), converts that or gives it back: the fence is about bytes.
    pub fn flock(&self, kind: Option<Kind>) -> Result<(), Errno> {
        directory::flock(self.descriptor()?, kind)
    }

    /// Finds what is in the way of a lock by fcntl(2).
    pub fn lock_in_the_way(
        &self,
        bytes: Bytes,
        kind: Option<Kind>,
    ) -> Result<Option<FileLock>, Errno> {
        directory::lock_in_the_way(self.descriptor()?, bytes, kind)
    }

    /// Where files have none the kernel keeps the locks itself, and does not ask.
    fn descriptor(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.file.descriptor().ok_or(Errno::NOSYS)
    }

    /// Returns the turn, the first time it is asked for.
    pub fn end_turn(&self) -> Turn {
        match self.turn_ended.swap(true, Ordering::AcqRel) {
            false => self.turn,
            true => Turn::Ungated,
        }
    }
}

impl InUse<'_> {
    /// Returns the file: from nowhere else is it to be had.
    pub fn file(&self) -> &dyn File {
        &*self.file
    }
}

impl Handles {
    pub fn new() -> Handles {
        Handles {
            files: RwLock::default(),
            directories: RwLock::default(),
            owners: Mutex::default(),
            users: Mutex::default(),
            next: AtomicU64::new(1),
            started: Instant::now(),
        }
    }

    pub fn insert(&self, handle: Handle) -> HandleId {
        let id = self.fresh();
        let handle = Arc::new(handle);
        if let Turn::Granted { owner, .. } = handle.turn {
            lock(&self.owners).insert(owner, handle.clone());
        }
        lock(&self.users).entry(handle.node).or_default().push(handle.clone());
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(id, handle);
        id
    }

    pub fn insert_directory(&self, directory: Box<dyn Listing>) -> HandleId {
        let id = self.fresh();
        let mut directories = self.directories.write().unwrap_or_else(PoisonError::into_inner);
        directories.insert(id, Arc::from(directory));
        id
    }

    pub fn get(&self, id: HandleId) -> Result<Arc<Handle>, Errno> {
        lookup(&self.files, &id)
    }

    pub fn directory(&self, id: HandleId) -> Result<Arc<dyn Listing>, Errno> {
        lookup(&self.directories, &id)
    }

    pub fn remove(&self, id: HandleId) -> Option<Arc<Handle>> {
        let handle = self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&id)?;
        if let Turn::Granted { owner, .. } = handle.turn {
            lock(&self.owners).remove(&owner);
        }
        let mut users = lock(&self.users);
        if let Some(of_node) = users.get_mut(&handle.node) {
            of_node.retain(|other| !Arc::ptr_eq(other, &handle));
            if of_node.is_empty() {
                users.remove(&handle.node);
            }
        }
        drop(users);
        Some(handle)
    }

    pub fn remove_directory(&self, id: HandleId) {
        let mut directories = self.directories.write().unwrap_or_else(PoisonError::into_inner);
        drop(directories.remove(&id));
    }

    /// Fences the handle of an owner: from now on its calls fail and change nothing. What an owner
    /// without a handle has is in the hands of a call, which gives it back.
    pub fn fence(&self, owner: u64) -> Quiet {
        let owners = lock(&self.owners);
        match owners.get(&owner).map(|handle| (handle.fence.shut(), handle.way)) {
            Some((Found::Nobody, Way::Direct | Way::Shared)) => Quiet::Now,
            Some((Found::Nobody, Way::Unfenced) | (Found::Somebody | Found::Shut, _)) | None => {
                Quiet::Later
            }
        }
    }

    /// Returns the handle of an owner if it writes.
    pub fn writer(&self, owner: u64) -> Option<Arc<Handle>> {
        lock(&self.owners).get(&owner).filter(|handle| handle.user.writes).cloned()
    }

    /// Returns the handle of an owner if what it writes does not come to the view.
    pub fn unfenced(&self, owner: u64) -> Option<Arc<Handle>> {
        self.writer(owner).filter(|handle| handle.way == Way::Unfenced)
    }

    /// Notes that a reader waits for an owner: its I/O is to be told.
    pub fn contend(&self, owner: u64) {
        if let Some(handle) = lock(&self.owners).get(&owner) {
            handle.contended.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the owner whose I/O is to be told now, if any.
    pub fn io_to_tell(&self, handle: &Handle) -> Option<u64> {
        if !handle.contended.load(Ordering::Relaxed) {
            return None;
        }
        let Turn::Granted { owner, .. } = handle.turn else { return None };
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX) + 1;
        let told = handle.told_ms.load(Ordering::Relaxed);
        let pause = u64::try_from(TOLD_EVERY.as_millis()).unwrap_or(u64::MAX);
        let due = told == 0 || now.saturating_sub(told) >= pause;
        let won = due
            && handle
                .told_ms
                .compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        won.then_some(owner)
    }

    /// Returns the handles of a file.
    pub fn of(&self, node: NodeId) -> Vec<Arc<Handle>> {
        lock(&self.users).get(&node).cloned().unwrap_or_default()
    }

    /// Returns whether a file is open.
    pub fn is_open(&self, node: NodeId) -> bool {
        lock(&self.users).contains_key(&node)
    }

    /// Returns whether a file is open to be written.
    pub fn is_written(&self, node: NodeId) -> bool {
        lock(&self.users)
            .get(&node)
            .is_some_and(|users| users.iter().any(|handle| handle.user.writes))
    }

    /// Returns the handles by which a file is written.
    pub fn writers(&self, node: NodeId) -> Vec<Arc<Handle>> {
        let users = lock(&self.users);
        let handles = users.get(&node).into_iter().flatten();
        handles.filter(|handle| handle.user.writes).cloned().collect()
    }

    /// Returns whether a file runs as a program.
    pub fn is_executed(&self, node: NodeId) -> bool {
        lock(&self.users)
            .get(&node)
            .is_some_and(|users| users.iter().any(|handle| handle.user.executes))
    }

    fn fresh(&self) -> HandleId {
        HandleId(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

fn lookup<K: Eq + Hash, V: ?Sized>(
    table: &RwLock<FxHashMap<K, Arc<V>>>,
    id: &K,
) -> Result<Arc<V>, Errno> {
    let table = table.read().unwrap_or_else(PoisonError::into_inner);
    table.get(id).cloned().ok_or(Errno::BADF)
}

/// Nothing panics while one of these is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
