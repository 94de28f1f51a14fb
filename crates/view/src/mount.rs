//! From a source and a broker to a mounted view.
//!
//! The order matters: who listens to the broker comes first ([`Ears`]), for the session needs it;
//! the source's root is opened before anything is mounted over it; the view is mounted last, and
//! answers once it is served.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use gate_api::session::{Attachment, Quiet, Recall, Session, Watcher};
use gate_api::{process, wire};
use gate_core::lock::event::Revocation;
use gate_fuse::{
    Cover, Detached, Device, InitFlags, Made, MountError, MountOptions, Place, StartError, Wishes,
};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, statx};
use rustix::process::Pid;

use crate::agent::Agents;
use crate::asker::Identity;
use crate::backing::{self, Ways};
use crate::beside;
use crate::directory::{self, Directory};
use crate::echo;
use crate::guard::{self, Guard};
use crate::handles::Handles;
use crate::kept;
use crate::policy::Policies;
use crate::room;
use crate::source::Source;
use crate::timer::Timer;
use crate::view::{FileSystemNumber, Parts, Served, Settings, View};

/// How long the broker may take to hear that a view came to its end.
const PARTING_PATIENCE: Duration = Duration::from_secs(3);
/// How many requests of one mount are worked on at once.
const WORKERS: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");

/// How many descriptors a process has by default.
const DESCRIPTORS_USUAL: u64 = 1024;

/// As if there were so many where a node needs none: its memory is limited, too. The kernel is asked to
/// forget when half of them are known.
const NODES: u64 = 4 << 20;

/// What the broker says unasked reaches the view's handles through this.
#[derive(Clone)]
pub struct Ears {
    pub(crate) handles: Arc<Handles>,
    /// Set once there is one.
    view: Arc<OnceLock<Weak<View>>>,
}

impl Ears {
    /// Makes the ears of a view to be.
    pub fn new() -> Ears {
        Ears { handles: Arc::new(Handles::new()), view: Arc::default() }
    }

    fn view(&self) -> Option<Arc<View>> {
        self.view.get()?.upgrade()
    }
}

impl Default for Ears {
    fn default() -> Ears {
        Ears::new()
    }
}

impl Watcher for Ears {
    fn revoked(&self, owner: u64, why: Revocation, reason: &str) -> Quiet {
        let view = self.view();
        let quiet =
            view.as_ref().map_or_else(|| self.handles.fence(owner), |view| view.fence(owner));
        tracing::warn!(owner, ?why, reason, ?quiet, "a grant was taken away");
        if let (Some(view), Some(handle)) = (view, self.handles.unfenced(owner)) {
            view.oust(&handle, why);
        }
        quiet
    }

    fn recalled(&self, owner: u64, recall: &Recall) {
        tracing::warn!(owner, ?recall, "who has a file open is asked to close it");
    }

    fn contended(&self, owner: u64) {
        self.handles.contend(owner);
        if let (Some(view), Some(handle)) = (self.view(), self.handles.unfenced(owner)) {
            view.watch_unseen(owner, &handle);
        }
    }

    fn away(&self) {
        tracing::warn!("the broker is away; calls that need a turn wait");
    }

    fn back(&self) {
        tracing::warn!("the broker is back");
    }
}

/// A directory that is a source, opened before anything can be mounted over it.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    root: OwnedFd,
}

impl Root {
    /// Opens a directory as a source. Its path is made absolute, without symbolic links.
    pub fn open(path: &Path) -> io::Result<Root> {
        let path = path.canonicalize()?;
        Root::open_at(path.clone(), &path)
    }

    /// Opens a directory that is reached by another way than its path, absolute and free of links.
    pub fn open_at(path: PathBuf, way: &Path) -> io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(way, flags, Mode::empty())?;
        Ok(Root { path, root })
    }

    /// Takes a directory that its caller has opened; the path, absolute and free of links, may
    /// lead to something that lies over it.
    pub fn of(path: PathBuf, root: OwnedFd) -> Root {
        Root { path, root }
    }

    /// Returns a path by which this process reaches it, whatever lies over it.
    pub fn bare(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()))
    }

    /// Returns what a broker must know of it to see overlaps, however it was reached.
    pub fn describe(&self) -> io::Result<wire::Directory> {
        gate_api::source::directory_known(&self.path, self.inode()?)
    }

    /// Returns which directory it is.
    pub fn inode(&self) -> io::Result<wire::Inode> {
        let stat = rustix::fs::fstat(&self.root)?;
        Ok(wire::Inode { device: stat.st_dev, number: stat.st_ino })
    }
}

/// What a view shows.
pub enum Behind {
    /// A directory.
    Directory(Root),
    /// Any other tree. Nothing goes past such a view, so of the [`Options`] those of backing, killing,
    /// guarding and keeping mean nothing; the kernel keeps the locks of flock(2) and fcntl(2) itself,
    /// for this mount, and judges by modes alone.
    Tree {
        /// What it is called in the table of mounts.
        name: OsString,
        /// The tree.
        source: Arc<dyn Source>,
        /// What `user.gate.view` tells of it.
        about: serde_json::Map<String, serde_json::Value>,
    },
}

/// What is behind a view, ready to be used.
struct Opened {
    source: Arc<dyn Source>,
    bare: Option<Arc<Directory>>,
    /// How many descriptors there are for its nodes, or nodes that need none.
    descriptors: u64,
}

impl Behind {
    fn name(&self) -> &OsStr {
        match self {
            Behind::Directory(root) => root.path.as_os_str(),
            Behind::Tree { name, .. } => name,
        }
    }

    fn open(&self) -> Result<Opened, ServeError> {
        let root = match self {
            Behind::Directory(root) => root,
            Behind::Tree { source, .. } => {
                return Ok(Opened { source: source.clone(), bare: None, descriptors: NODES });
            }
        };
        let directory = Directory::new(&root.root, process::machine())
            .map_err(|errno| ServeError::Source(io::Error::from(errno)))?;
        let directory = Arc::new(directory);
        let descriptors = directory::raise_descriptor_limit().unwrap_or_else(|errno| {
            tracing::debug!(%errno, "the limit of open files stays");
            DESCRIPTORS_USUAL
        });
        Ok(Opened { source: directory.clone(), bare: Some(directory), descriptors })
    }

    /// Returns what the view tells of it.
    fn about(&self, kept: &kept::Place) -> io::Result<serde_json::Map<String, serde_json::Value>> {
        let root = match self {
            Behind::Directory(root) => root,
            Behind::Tree { about, .. } => return Ok(about.clone()),
        };
        Ok(serde_json::Map::from_iter([
            ("source".to_owned(), written(root.path.as_os_str().as_bytes())),
            ("root".to_owned(), serde_json::json!(root.inode()?)),
            ("root_descriptor".to_owned(), root.root.as_raw_fd().into()),
            ("kept".to_owned(), serde_json::json!(kept)),
        ]))
    }
}

/// How a view is mounted.
#[derive(Debug)]
pub struct Options {
    /// Where.
    pub mountpoint: PathBuf,
    /// How it comes to be there.
    pub berth: Berth,
    /// Which names are gated, and how long readers wait.
    pub policies: Policies,
    /// How callers are told apart.
    pub identity: Identity,
    /// Give the turn back at the first close of a descriptor rather than at the last.
    pub release_on_flush: bool,
    /// Others than the mounting user may use it.
    pub allow_other: bool,
    /// Nothing may be changed through it.
    pub read_only: bool,
    /// What the kernel may read and write without asking the view.
    pub backing: backing::Policy,
    /// Whether who writes past the view after its turn was taken away is killed, where nothing else
    /// stops it.
    pub kill: bool,
    /// What happens when an agent overwrites what it has not seen.
    pub guard: guard::Policy,
    /// Where what it destroys is kept.
    pub kept: kept::Place,
    /// What `user.gate.view` tells, in addition to what the view knows: pairs of JSON text.
    pub about: About,
}

/// How a view comes to be where it is seen.
#[derive(Debug)]
pub enum Berth {
    /// It is mounted there.
    Free,
    /// It is mounted there beneath what makes way then, so that the directory is not bare for a
    /// moment.
    Taken(Cover),
    /// Another process has mounted it, in a mount namespace that this one does not see.
    Elsewhere {
        /// The server's side of it.
        device: Device,
        /// A process there, while this one starts.
        seen_by: Option<Pid>,
    },
}

/// What a view tells of its broker.
#[derive(Clone, Debug)]
pub struct About {
    /// The broker's address, as it is written.
    pub broker: OsString,
}

/// A view that is mounted and waits to be served.
pub struct Ready {
    view: Arc<View>,
    session: gate_fuse::Session,
    /// What the view tells others of is open for as long as it is served.
    _behind: Behind,
}

/// Why a view could not be mounted.
#[derive(Debug)]
pub enum ServeError {
    /// The mount failed.
    Mount(MountError),
    /// The kernel and the view could not agree.
    Start(StartError),
    /// The source failed.
    Source(io::Error),
    /// A thread could not be started, or the mount's device failed.
    Io(io::Error),
}

impl Ready {
    /// Mounts a view.
    pub fn mount(
        behind: Behind,
        (broker, attachment): (Session, &Attachment),
        ears: &Ears,
        mut options: Options,
    ) -> Result<Ready, ServeError> {
        let mount_options = MountOptions {
            read_only: options.read_only,
            allow_other: options.allow_other,
            ..mount_options(behind.name())
        };
        let berth = std::mem::replace(&mut options.berth, Berth::Free);
        let moor = berth.moor(&options.mountpoint, &mount_options);
        let (device, mooring) = moor.map_err(ServeError::Mount)?;
        let ready = mooring.file_system().map_err(ServeError::Io).and_then(|file_system| {
            Ready::assemble(behind, (device, file_system), (broker, attachment), ears, options)
        });
        match ready {
            Ok(ready) => mooring.finish().map(|()| ready),
            Err(error) => {
                mooring.undo();
                Err(error)
            }
        }
    }

    fn assemble(
        behind: Behind,
        (device, file_system): (Device, Option<FileSystemNumber>),
        (broker, attachment): (Session, &Attachment),
        ears: &Ears,
        options: Options,
    ) -> Result<Ready, ServeError> {
        let Opened { source, bare, descriptors } = behind.open()?;
        let backing = match bare {
            Some(_) => options.backing,
            None => backing::Policy::Nothing,
        };
        let read_only = options.read_only;
        let about = about(&behind, &broker, attachment, &options).map_err(ServeError::Source)?;
        let wishes = Wishes {
            // The kernel can only enforce ACLs of the source for a server that acts for everybody.
            posix_acl: bare.is_some() && rustix::process::geteuid().is_root(),
            passthrough: backing != backing::Policy::Nothing,
            locks: bare.is_some(),
        };
        let session = gate_fuse::Session::start(device, wishes).map_err(ServeError::Start)?;
        let settings = Settings {
            space: attachment.space,
            policies: options.policies,
            identity: options.identity,
            release_on_flush: options.release_on_flush,
            kill: options.kill,
            mountpoint: options.mountpoint,
            file_system,
            descriptors,
            about,
        };
        let timer = Timer::start().map_err(ServeError::Io)?;
        let agents = Agents::new(&settings.identity);
        let guard = match &bare {
            Some(bare) => {
                Guard::start(options.guard, options.kept, bare).map_err(ServeError::Io)?
            }
            None => None,
        };
        let handles = ears.handles.clone();
        let maps_direct = session.negotiated().flags.contains(InitFlags::DIRECT_IO_ALLOW_MMAP);
        let ways = Ways::new(backing, session.backer(), maps_direct);
        let is_bare = bare.is_some();
        let parts = Parts { source, bare, broker, handles, ways, timer, agents, guard, settings };
        let view = View::new(parts);
        view.set_notifier(session.notifier());
        let _ = ears.view.set(Arc::downgrade(&view));
        room::start(&view).map_err(ServeError::Io)?;
        beside::start(&view).map_err(ServeError::Io)?;
        // The thread that echoes calls the view from its own process, where only a directory's view is
        // alone.
        if is_bare && !read_only {
            echo::start(&view).map_err(ServeError::Io)?;
        }
        Ok(Ready { view, session, _behind: behind })
    }

    /// Serves the view until it is unmounted.
    pub fn serve(self) -> Result<(), ServeError> {
        let broker = self.view.broker.clone();
        let served = self.session.serve(WORKERS, &Arc::new(Served(self.view)));
        // Whoever waits for the end of this process may then do to the source what it wants: the
        // broker keeps it busy until it has heard of the end.
        broker.part(PARTING_PATIENCE);
        served.map_err(ServeError::Io)
    }
}

/// How far a mount has come before it can be served.
enum Mooring {
    /// It is there, and callers wait.
    Mounted(PathBuf),
    /// It is made, and takes the place of another.
    Waiting { mount: Detached, former: Cover },
    /// Nothing of it is this process's; how it is seen from there.
    Elsewhere(Option<PathBuf>),
}

impl Berth {
    fn moor(self, point: &Path, options: &MountOptions) -> Result<(Device, Mooring), MountError> {
        match self {
            Berth::Free => {
                let device = gate_fuse::mount(point, options)?;
                Ok((device, Mooring::Mounted(point.to_owned())))
            }
            Berth::Taken(former) => {
                let Made { device, mount } = gate_fuse::make(options)?;
                Ok((device, Mooring::Waiting { mount, former }))
            }
            Berth::Elsewhere { device, seen_by } => {
                let root = |pid: Pid| PathBuf::from(format!("/proc/{pid}/root"));
                let inside = point.strip_prefix("/").unwrap_or(point);
                let way = seen_by.map(|pid| root(pid).join(inside));
                Ok((device, Mooring::Elsewhere(way)))
            }
        }
    }
}

impl Mooring {
    /// By which number the kernel knows the file system, where that is seen; asks no server.
    fn file_system(&self) -> io::Result<Option<FileSystemNumber>> {
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::EMPTY_PATH;
        let found = match self {
            Mooring::Mounted(point) => statx(CWD, point, flags, StatxFlags::empty()),
            Mooring::Waiting { mount, .. } => statx(mount, c"", flags, StatxFlags::empty()),
            // Who started this process may be out of its sight.
            Mooring::Elsewhere(way) => {
                let found = |way| statx(CWD, way, flags, StatxFlags::empty()).ok();
                let Some(found) = way.as_ref().and_then(found) else { return Ok(None) };
                Ok(found)
            }
        }?;
        Ok(Some((found.stx_dev_major, found.stx_dev_minor)))
    }

    /// From the one to the other without a moment in which the directory is bare.
    fn finish(self) -> Result<(), ServeError> {
        let Mooring::Waiting { mount, former } = self else { return Ok(()) };
        mount.place(Place::Beneath(&former)).map_err(ServeError::Mount)?;
        former.remove().map_err(ServeError::Io)
    }

    /// Leaves nothing of this process's where nobody will serve.
    fn undo(self) {
        if let Mooring::Mounted(point) = self {
            let _ = gate_fuse::detach(&point);
        }
    }
}

/// Returns how a view of a source is mounted for the user who mounts it.
pub fn mount_options(source: impl Into<OsString>) -> MountOptions {
    MountOptions::new(source, "gate")
}

/// Returns what the view tells of itself; see `View::about` for the rest.
fn about(
    behind: &Behind,
    broker: &Session,
    attachment: &Attachment,
    options: &Options,
) -> io::Result<serde_json::Map<String, serde_json::Value>> {
    let mut about = behind.about(&options.kept)?;
    about.extend([
        ("version".to_owned(), 1.into()),
        ("mountpoint".to_owned(), written(options.mountpoint.as_os_str().as_bytes())),
        ("broker".to_owned(), written(options.about.broker.as_bytes())),
        ("space".to_owned(), attachment.name.clone().into()),
        ("prefix".to_owned(), written(attachment.prefix.as_bytes())),
        ("agent".to_owned(), options.identity.agent.clone().into()),
        ("rules".to_owned(), serde_json::json!(options.policies.rules())),
        ("pid".to_owned(), std::process::id().into()),
        ("pid_namespace".to_owned(), process::namespace().into()),
        ("epoch".to_owned(), broker.broker().epoch.into()),
    ]);
    Ok(about)
}

/// JSON has no bytes but numbers; where a path is text it reads better so.
fn written(path: &[u8]) -> serde_json::Value {
    match str::from_utf8(path) {
        Ok(text) => serde_json::Value::from(text),
        Err(_) => path.to_vec().into(),
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Mount(error) => write!(f, "{error}"),
            ServeError::Start(error) => {
                write!(f, "the kernel and the view do not agree: {error:?}")
            }
            ServeError::Source(error) => write!(f, "the source cannot be used: {error}"),
            ServeError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServeError {}
