//! The gated view: the kernel's requests, each in its turn.
//!
//! A request that only looks is answered from the [`source`](crate::source) at once. One
//! that opens or changes something first asks the broker ([`wants`] says for what) and waits
//! where that freezes nobody: opens in [`line`](crate::line), everything else in
//! [`park`](crate::park). What happened to names while an open waited is dealt with in
//! [`walk`](crate::walk).

mod attributes;
mod control;
mod dispatch;
mod files;
mod listing;
mod names;
mod oust;
mod wants;

pub(crate) use dispatch::Served;
#[cfg(test)]
pub(crate) use listing::{list, list_found};

use std::ffi::CStr;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use gate_api::Session;
use gate_core::id::SpaceId;
use gate_fuse::{Attr, Entry, Errno, NodeId, Notifier, OpenFlags, Reply, Stale};

use crate::advisory::Advisory;
use crate::agent::Agents;
use crate::asker::{Asker, Identity};
use crate::backing::Ways;
use crate::directory::Directory;
use crate::echo::Echoes;
use crate::guard::Guard;
use crate::handles::Handles;
use crate::line::Line;
use crate::nodes::{Review, Told};
use crate::park::Parking;
use crate::policy::{Gating, Policies};
use crate::room::Room;
use crate::source::{File, Found, Source};
use crate::timer::Timer;
use crate::walk::Walkers;

/// How long the kernel may trust names and attributes: others may change the source beside us …
const VALID: Duration = Duration::from_secs(1);

/// … and how long where their changes are told. Stores in a mapping are not, until it is closed.
const VALID_WATCHED: Duration = Duration::from_secs(60);

/// One mounted view.
pub(crate) struct View {
    itself: Weak<View>,
    pub source: Arc<dyn Source>,
    /// The source itself if it is a directory, for what is done of those alone.
    pub bare: Option<Arc<Directory>>,
    pub broker: Session,
    pub handles: Arc<Handles>,
    pub ways: Ways,
    pub advisory: Advisory,
    pub line: Line,
    pub parking: Parking,
    pub walkers: Walkers,
    pub timer: Timer,
    pub room: Room,
    pub echoes: Echoes,
    pub agents: Agents,
    /// `None` if every overwrite is allowed.
    pub guard: Option<Guard>,
    pub settings: Settings,
    /// The generation of all nodes but the root: their numbers begin anew with each view, and who
    /// has a file handle may come with it to the next.
    generation: u32,
    notifier: OnceLock<Notifier>,
    /// Held by whoever passes on what has changed.
    news: Mutex<()>,
}

/// The number of a file system: major and minor.
pub(crate) type FileSystemNumber = (u32, u32);

/// What a view is told about itself.
pub(crate) struct Settings {
    /// What stands for the source in this session's wants.
    pub space: SpaceId,
    pub policies: Policies,
    pub identity: Identity,
    pub release_on_flush: bool,
    /// Whether who cannot be fenced is killed.
    pub kill: bool,
    pub mountpoint: PathBuf,
    /// By which the view is told from its source, where it lies over it; `None` if it is not seen
    /// from here.
    pub file_system: Option<FileSystemNumber>,
    /// How many descriptors this process may have.
    pub descriptors: u64,
    /// What `user.gate.view` tells of the view, so that commands find its broker.
    pub about: serde_json::Map<String, serde_json::Value>,
}

/// Everything a view is made of.
pub(crate) struct Parts {
    pub source: Arc<dyn Source>,
    pub bare: Option<Arc<Directory>>,
    pub broker: Session,
    pub handles: Arc<Handles>,
    pub ways: Ways,
    pub timer: Timer,
    pub agents: Agents,
    pub guard: Option<Guard>,
    pub settings: Settings,
}

impl View {
    pub fn new(parts: Parts) -> Arc<View> {
        Arc::new_cyclic(|itself| View {
            itself: itself.clone(),
            source: parts.source,
            bare: parts.bare,
            broker: parts.broker,
            handles: parts.handles,
            ways: parts.ways,
            advisory: Advisory::default(),
            line: Line::default(),
            parking: Parking::default(),
            walkers: Walkers::default(),
            timer: parts.timer,
            room: Room::new(parts.settings.descriptors),
            echoes: Echoes::default(),
            agents: parts.agents,
            guard: parts.guard,
            settings: parts.settings,
            generation: any_number(),
            notifier: OnceLock::new(),
            news: Mutex::new(()),
        })
    }

    /// Returns the handle that keeps the view alive while something waits.
    pub fn itself(&self) -> Arc<View> {
        self.itself.upgrade().expect("who calls a method holds the view")
    }

    /// Says how the kernel is told of changes; before the first request.
    pub fn set_notifier(&self, notifier: Notifier) {
        let _ = self.notifier.set(notifier);
    }

    pub fn notifier(&self) -> &Notifier {
        self.notifier.get().expect("set before the first request")
    }

    /// Answers the walk of a call that waited.
    pub fn answer_walk(&self, node: NodeId, reply: Reply) {
        match self.source.getattr(node) {
            Ok(attr) => reply.attr(&attr, Duration::ZERO),
            Err(errno) => reply.error(errno),
        }
    }

    /// Finds out who a thread is.
    fn asker(&self, thread: u32) -> Asker {
        self.settings.identity.asker(thread, &self.agents)
    }

    pub fn gating(&self, path: Option<&[u8]>) -> Gating {
        // A file without a name was gated when it had one.
        path.map_or(Gating::Gated, |path| self.settings.policies.gating(path))
    }

    /// While calls wait the walk of each must come to us; and what is written past us, or to the node
    /// that a file is by now, changes attributes that the kernel would not ask for.
    fn attr_valid(&self, node: NodeId, told: &Told) -> Duration {
        let unsure = self.parking.is_in_use()
            || self.ways.is_written_unseen(node)
            || self.source.book().is_retired(node);
        if unsure { Duration::ZERO } else { valid(told.attributes) }
    }

    /// The kernel may keep a listing where all changes are told; it goes by the time at which the
    /// directory was changed.
    fn listing_flags(&self, directory: NodeId) -> OpenFlags {
        match self.source.is_watched(directory) {
            true => OpenFlags::CACHE_DIR | OpenFlags::KEEP_CACHE,
            false => OpenFlags::empty(),
        }
    }

    pub fn answer_attr(&self, node: NodeId, attr: &Attr, reply: Reply) {
        let told = self.source.book().tell(node, attr);
        reply.attr(attr, self.attr_valid(node, &told));
    }

    /// Answers a change of attributes. Its turn is over: others may change the file before the kernel
    /// takes the answer, and it takes this one whatever it was told meanwhile.
    pub fn answer_set(&self, node: NodeId, attr: &Attr, reply: Reply) {
        self.source.book().tell(node, attr);
        reply.attr(attr, Duration::ZERO);
    }

    /// Lets an open see the file as it is: another view, or somebody beside this one, may have
    /// changed it within the time for which the kernel trusts what it was told.
    fn refresh(&self, node: NodeId) -> Result<Review, Errno> {
        let review = self.source.review(node)?;
        if review.is_news {
            self.declare_changed(node);
        }
        Ok(review)
    }

    /// Lets the kernel take a file that was opened to be read to be as long as it is: that it is to ask for
    /// attributes does not change the size that it copies and sends by.
    ///
    /// Not where others have it open: somebody who reads it may have locked the page, and wait for us.
    fn stretch(&self, node: NodeId, attr: &Attr, file: &dyn File) {
        let Some(last) = attr.size.checked_sub(1) else { return };
        if self.handles.is_open(node) || !self.source.book().stretch(node, attr) {
            return;
        }
        let stored = file.peek(last).and_then(|byte| match byte {
            Some(byte) => self.notifier().store(node, last, &[byte]),
            None => Ok(()),
        });
        if let Err(errno) = stored {
            tracing::debug!(%errno, ?node, "the kernel goes by the size that it knew");
        }
    }

    /// Lets the kernel ask anew for a node's attributes if it may go by others.
    ///
    /// Once for each change: the kernel drops an answer that is on its way when it is told to ask
    /// anew, and who copies a file right after the open would go by the size of before.
    pub fn declare_changed(&self, node: NodeId) {
        let _one_by_one = self.one_by_one();
        // It is what the kernel will hear when it asks, or something newer. But who has it open may
        // have it mapped: the thread that listens sees to that, and has yet to find the change.
        if let Some(attr) = self.ask_anew(node, |attr| !self.source.book().is_sure(node, attr))
            && !self.handles.is_open(node)
        {
            self.source.book().expect(node, &attr);
        }
    }

    /// Lets the kernel ask anew where it was told what is so, but may have heard something older after that.
    pub fn declare_doubtful(&self, node: NodeId) {
        let _one_by_one = self.one_by_one();
        self.ask_anew(node, |attr| self.source.book().is_doubtful(node, attr));
    }

    fn one_by_one(&self) -> MutexGuard<'_, ()> {
        // Nothing panics while it is held.
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the kernel told to ask for a node's attributes if it must, and returns them if it was.
    fn ask_anew(&self, node: NodeId, must: impl FnOnce(&Attr) -> bool) -> Option<Attr> {
        // As it is by now: somebody may have told of something newer than was seen before.
        let attr = self.source.getattr(node).ok()?;
        let is_told = must(&attr) && self.declare_stale(node, Stale::Attributes);
        is_told.then(|| self.source.book().asked(node, &attr)).map(|()| attr)
    }

    /// Declares something of a node stale, and returns whether the kernel knows the node. Who walks
    /// to it for the first time may have an answer on the way, and will go by that.
    pub fn declare_stale(&self, node: NodeId, stale: Stale) -> bool {
        if !self.source.book().has_face(node) {
            return false;
        }
        // Before: what the kernel is told from then on it may trust.
        let trusted = self.source.book().distrust(node);
        let declared = self.notifier().inval_inode(node, stale).unwrap_or_else(|errno| {
            tracing::warn!(%errno, ?node, ?stale, "what is stale could not be declared so");
            false
        });
        self.source.book().set_unknown(node, !declared);
        if trusted && !declared {
            self.source.book().trust(node);
        }
        declared
    }

    fn entry(&self, found: &Found) -> Entry {
        self.room.mind(self.source.book().population());
        let told = self.source.book().tell(found.node, &found.attr);
        // The kernel gave the root its own.
        let generation = if found.node == NodeId::ROOT { 0 } else { self.generation };
        Entry {
            node: found.node,
            generation: generation.into(),
            attr: found.attr,
            entry_valid: valid(told.name),
            attr_valid: self.attr_valid(found.node, &told),
        }
    }

    /// Returns the path of a name, from the root of the source; `None` in a removed directory.
    pub fn path_in(&self, parent: NodeId, name: &CStr) -> Option<Vec<u8>> {
        let mut path = self.source.book().path_of(parent)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        Some(path)
    }
}

/// No two views have the same one, but by chance.
fn any_number() -> u32 {
    let number = RandomState::new().build_hasher().finish();
    u32::try_from(number >> 32).expect("half of the bits are left")
}

fn valid(changes_are_told: bool) -> Duration {
    if changes_are_told { VALID_WATCHED } else { VALID }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With [`Told`] this bounds how old anything may be where nothing is watched.
    #[test]
    fn what_is_not_told_is_trusted_for_a_second() {
        assert_eq!(valid(false), Duration::from_secs(1));
        assert!(valid(true) <= Duration::from_mins(1));
    }
}
