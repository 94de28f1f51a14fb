//! The thread that echoes: it calls, in the view's own mount, what others did elsewhere.
//!
//! A call in one's own mount waits for a lock that a call may hold which the view has yet to
//! answer; a view that is killed meanwhile must be dead all the same, and not wait for its own
//! answer. So this thread shares its descriptors with no other: see `gate_fuse`'s thread for names.
//!
//! While it rests it has nothing of the mount, which would be busy. To work it takes a copy of the
//! mount that lies nowhere, so that the one which everybody sees can be unmounted all the same.
//! Without the right to that (CAP_SYS_ADMIN) it takes the mount itself, for a short while, and
//! lets go for as long: who unmounts the view tries again.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use gate_fuse::{Errno, Notifier};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, Timespec, Timestamps,
    UTIME_OMIT, mkdirat, mknodat, openat2, renameat, statx, unlinkat, utimensat,
};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::thread::UnshareFlags;

use super::lookout::Lookout;
use super::stage::{Kind, Scene, Stage};
use super::{ECHOES_MAX, Echo, Queue, Site, Spot, Touch};

/// Echoes for which the mount is taken once.
const BATCH: usize = 32;

/// How often a call is tried: somebody may look its name up between two steps of one.
const TRIES: u32 = 4;

/// What the thread has: nothing of it is a descriptor.
pub(super) struct Player {
    pub queue: Arc<Queue>,
    pub stage: Arc<Stage>,
    pub notifier: Notifier,
    pub site: Site,
}

impl Player {
    /// Echoes until the view ends.
    pub fn run(&self) {
        if leave_descriptors().is_err() {
            return;
        }
        let mut lookout = Lookout::new(self.site.file_system);
        let mut unsure = Vec::new();
        loop {
            let until = (!unsure.is_empty()).then(|| lookout.due());
            let Some(mut fresh) = self.queue.take(until) else { return };
            if Instant::now() >= lookout.due() || unsure.len() > ECHOES_MAX {
                lookout.look();
                fresh.splice(..0, unsure.drain(..));
                fresh.retain(|echo| lookout.is_heard(echo));
            } else {
                unsure.extend(fresh.extract_if(.., |echo| !lookout.is_heard(echo)));
            }
            fresh.chunks(BATCH).for_each(|batch| self.play(batch, &lookout));
        }
    }

    fn play(&self, batch: &[Echo], lookout: &Lookout) {
        let began = Instant::now();
        let Some(way) = Way::find(&self.site, lookout.watchers()) else { return };
        if !self.stage.prove(|name| way.ask(name)) {
            return;
        }
        for echo in batch {
            // What is gone by now, or not this user's to change, is not echoed.
            let _ = self.play_one(&way, echo);
        }
        let is_apart = way.is_apart;
        drop(way);
        if !is_apart {
            self.queue.rest(Instant::now() + began.elapsed());
        }
    }

    fn play_one(&self, way: &Way, echo: &Echo) -> Result<(), Errno> {
        match echo {
            Echo::Made(spot, kind) => {
                let directory = way.directory(spot)?;
                let made = self.stage.play(Scene::Making(spot.at()), || match kind {
                    Kind::Directory => mkdirat(&directory, &spot.name, Mode::RWXU),
                    Kind::Other => {
                        mknodat(&directory, &spot.name, FileType::RegularFile, Mode::RWXU, 0)
                    }
                });
                look_up(&directory, spot);
                made
            }
            Echo::Gone(spot, kind) => {
                let directory = way.directory(spot)?;
                let flags = match kind {
                    Kind::Directory => AtFlags::REMOVEDIR,
                    Kind::Other => AtFlags::empty(),
                };
                let scene = || Scene::Removing { at: spot.at(), kind: *kind, seen: false };
                let gone = self.try_anew(spot, scene, || unlinkat(&directory, &spot.name, flags));
                look_up(&directory, spot);
                gone
            }
            Echo::Moved { from, to, kind } => {
                let (old, new) = (way.directory(from)?, way.directory(to)?);
                let scene = || Scene::Moving {
                    from: from.at(),
                    to: to.at(),
                    kind: *kind,
                    seen: [false; 2],
                };
                let moved =
                    self.try_anew(from, scene, || renameat(&old, &from.name, &new, &to.name));
                look_up(&old, from);
                look_up(&new, to);
                moved
            }
            Echo::Touched(spot, touch, _) => {
                let directory = way.directory(spot)?;
                let touch =
                    || utimensat(&directory, &spot.name, &times(*touch), AtFlags::SYMLINK_NOFOLLOW);
                self.stage.play(Scene::Touching, touch)
            }
        }
    }

    /// Makes a call on a name that the kernel does not remember.
    fn try_anew(
        &self,
        spot: &Spot,
        scene: impl Fn() -> Scene,
        call: impl Fn() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut called = Ok(());
        for _ in 0..TRIES {
            self.notifier.inval_entry(spot.directory, spot.name.to_bytes())?;
            called = self.stage.play(scene(), &call);
            // Somebody has looked it up once more, and found that there is nothing.
            if called != Err(Errno::NOENT) {
                break;
            }
        }
        called
    }
}

/// The view's mount, for as long as this is.
struct Way {
    root: OwnedFd,
    /// It is a copy, and keeps nobody from unmounting the view.
    is_apart: bool,
}

impl Way {
    /// Reaches the mount: by its path or, where that is another mount's, as a watcher sees it.
    fn find(site: &Site, watchers: &[u32]) -> Option<Way> {
        let point = site.mountpoint.strip_prefix("/").ok()?;
        let of_watcher = |pid: &u32| PathBuf::from(format!("/proc/{pid}/root")).join(point);
        let paths = std::iter::once(site.mountpoint.clone());
        let mut ways =
            paths.chain(watchers.iter().map(of_watcher)).filter_map(|path| Way::to(&path));
        ways.find(|way| way.leads_to(site))
    }

    fn to(path: &Path) -> Option<Way> {
        let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if let Ok(root) = open_tree(CWD, path, copy) {
            return Some(Way { root, is_apart: true });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        Some(Way { root, is_apart: false })
    }

    /// Asks nobody: it may be a mount that does not answer.
    fn leads_to(&self, site: &Site) -> bool {
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::EMPTY_PATH;
        let found = statx(&self.root, c"", flags, StatxFlags::empty());
        found.is_ok_and(|found| (found.stx_dev_major, found.stx_dev_minor) == site.file_system)
    }

    fn ask(&self, name: &CStr) -> Result<(), Errno> {
        let root = format!("/proc/thread-self/fd/{}", self.root.as_raw_fd());
        rustix::fs::getxattr(root, name, &mut [0_u8; 1]).map(drop)
    }

    fn directory(&self, spot: &Spot) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(&self.root, &spot.path, flags, Mode::empty(), inside)
    }
}

impl Spot {
    fn at(&self) -> super::stage::At {
        (self.directory, self.name.clone())
    }
}

/// Which times are set says what watchers are told; to what does not matter.
fn times(touch: Touch) -> Timestamps {
    let [set, omit] = [0, UTIME_OMIT].map(|tv_nsec| Timespec { tv_sec: 0, tv_nsec });
    let last_access = match touch {
        Touch::Content => omit,
        Touch::Attributes => set,
    };
    Timestamps { last_access, last_modification: set }
}

/// What really bears the name takes the place of a stand-in in the kernel's memory; a directory
/// that somebody works in has its path again.
fn look_up(directory: &OwnedFd, spot: &Spot) {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    let _ = statx(directory, &spot.name, flags, StatxFlags::empty());
}

/// Parts this thread's descriptors from those of all others, and keeps none.
fn leave_descriptors() -> std::io::Result<()> {
    // SAFETY: from here on this thread uses no descriptor that another opens, and closes none that
    // another uses: theirs are their own.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) }?;
    // SAFETY: whoever owns these descriptors has them in another table.
    match unsafe { libc::close_range(0, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
