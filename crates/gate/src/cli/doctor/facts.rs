//! What is the case on this machine, gathered in bounded time and judged elsewhere.

pub mod broker;
pub mod state;
pub mod trial;
pub mod view;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use gate_api::mounts;
use gate_fuse::may_mount;
use rustix::fs::inotify::{self, CreateFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

use crate::bypass::{self, Bypasses, Shown};
use crate::failure::Failure;
use crate::interruption::Interruption;
use crate::reach::BrokerFlags;
use crate::userns::{self, Bar};

/// The numbers that the kernel gives to the namespaces it starts with.
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Everything that is checked.
#[derive(Debug)]
pub struct Facts {
    pub machine: Machine,
    pub trial: trial::Trial,
    pub broker: broker::Broker,
    pub state: state::State,
    pub views: Vec<view::View>,
    pub bypasses: Vec<Bypasses>,
}

/// What holds for all views of this machine, and for this user.
#[derive(Debug)]
pub struct Machine {
    /// As the kernel writes it: `6.1.0-13-amd64`.
    pub kernel: String,
    /// What opening /dev/fuse leads to.
    pub device: Result<(), Errno>,
    /// Whether this user mounts without `fusermount3`.
    pub may_mount: bool,
    pub fusermount: Option<Fusermount>,
    /// Whether this user gets a user namespace to mount in, if only there they may.
    pub namespaces: Result<(), (Errno, Option<Bar>)>,
    /// Whether /etc/fuse.conf lets ordinary users let others in.
    pub user_allow_other: bool,
    pub descriptors: Descriptors,
    /// Whether this user may let the kernel read and write files for a view.
    pub may_back: bool,
    /// How many directories this user may watch, if one more view could watch any.
    pub watches: Result<Option<u64>, Errno>,
    /// Which processes may look into others of their user; `None` if all may.
    pub ptrace_scope: Option<u8>,
    /// Whether this user may look into all processes.
    pub may_trace: bool,
    pub surroundings: Surroundings,
}

/// The helper that mounts for those who may not.
#[derive(Debug)]
pub struct Fusermount {
    pub path: PathBuf,
    pub is_setuid_root: bool,
}

/// How many files a process may have open.
#[derive(Debug)]
pub struct Descriptors {
    pub soft: u64,
    pub hard: u64,
    /// What nobody may exceed.
    pub most: u64,
    /// Whether this user may raise the hard limit.
    pub may_raise: bool,
}

/// What lies around this process.
#[derive(Debug)]
pub struct Surroundings {
    pub in_container: bool,
    pub in_user_namespace: bool,
    pub in_pid_namespace: bool,
}

impl Facts {
    /// Gathers them, those that are quickly had first.
    pub fn gather(
        flags: &BrokerFlags,
        mountpoints: &[PathBuf],
        interruption: &Interruption,
    ) -> Result<Facts, Failure> {
        let machine = Machine::look();
        let trial = trial::run(&machine);
        interruption.check()?;
        let (broker, state_dir) = broker::ask(flags);
        interruption.check()?;
        let state = state::State::look(state_dir);
        let views = view::ask_all(mountpoints);
        interruption.check()?;
        let bypasses = bypasses(&views);
        interruption.check()?;
        Ok(Facts { machine, trial, broker, state, views, bypasses })
    }
}

impl Machine {
    fn look() -> Machine {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let capabilities = rustix::thread::capabilities(None).ok().map(|sets| sets.effective);
        let has = |capability| capabilities.is_some_and(|all| all.contains(capability));
        let limit = getrlimit(Resource::Nofile);
        let surroundings = Surroundings::look();
        let fuse_conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
        Machine {
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
            device: rustix::fs::open("/dev/fuse", flags, Mode::empty()).map(drop),
            may_mount: may_mount(),
            fusermount: Fusermount::find(),
            namespaces: match may_mount() {
                true => Ok(()),
                false => userns::attempt().map_err(|errno| (errno, Bar::find())),
            },
            user_allow_other: fuse_conf.lines().any(|line| line.trim() == "user_allow_other"),
            descriptors: Descriptors {
                soft: limit.current.unwrap_or(u64::MAX),
                hard: limit.maximum.unwrap_or(u64::MAX),
                most: number("/proc/sys/fs/nr_open").unwrap_or(u64::MAX),
                may_raise: has(CapabilitySet::SYS_RESOURCE),
            },
            may_back: has(CapabilitySet::SYS_ADMIN) && !surroundings.in_user_namespace,
            watches: inotify::init(CreateFlags::CLOEXEC)
                .map(|_| number("/proc/sys/fs/inotify/max_user_watches")),
            ptrace_scope: number("/proc/sys/kernel/yama/ptrace_scope"),
            may_trace: has(CapabilitySet::SYS_PTRACE),
            surroundings,
        }
    }

    /// Returns whether this user can mount a view, as far as can be told without trying.
    pub fn has_fuse(&self) -> bool {
        let is_helped = || self.fusermount.as_ref().is_some_and(|helper| helper.is_setuid_root);
        self.device.is_ok() && (self.may_mount || is_helped())
    }
}

impl Fusermount {
    fn find() -> Option<Fusermount> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find_map(|path| {
            let found = path.metadata().ok().filter(fs::Metadata::is_file)?;
            let is_setuid = Mode::from_raw_mode(found.permissions().mode()).contains(Mode::SUID);
            Some(Fusermount { path, is_setuid_root: is_setuid && found.uid() == 0 })
        })
    }
}

impl Surroundings {
    fn look() -> Surroundings {
        let signs = ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"];
        let is_other = |name: &str, first: u64| {
            fs::metadata(Path::new("/proc/self/ns").join(name)).is_ok_and(|ns| ns.ino() != first)
        };
        Surroundings {
            in_container: signs.iter().any(|sign| Path::new(sign).exists()),
            in_user_namespace: is_other("user", FIRST_USER_NAMESPACE),
            in_pid_namespace: is_other("pid", FIRST_PID_NAMESPACE),
        }
    }
}

/// Of the sources of these views.
fn bypasses(views: &[view::View]) -> Vec<Bypasses> {
    let table = mounts::all().unwrap_or_default();
    let is_meant = |point: &Path| views.iter().any(|view| view.point == point);
    let meant = table.iter().filter(|mount| mount.is_gated && is_meant(&mount.point));
    bypass::find(meant.map(Shown::from))
}

fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn number<T: std::str::FromStr>(path: &str) -> Option<T> {
    line(path)?.parse().ok()
}
