//! A path as a gated view shows it: which view, which broker, which place in which space.
//!
//! A view answers for any of its nodes what it is; so no registry is needed, and a path means
//! the same through every link that leads to it.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gate_api::wire::{AttachRefusal, Inode, Origin, Scope, Source};
use gate_api::{Address, Attachment, Session};
use gate_core::lock::key::FileKey;
use gate_core::lock::want::Node;
use gate_core::path::ViewPath;
use gate_fuse::is_of_dead;
use gate_view::kept::Place;
use gate_view::policy::{Gating, Rules};
use gate_view::written;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};

/// The attribute by which a view tells of itself.
const ATTRIBUTE: &str = "user.gate.view";
/// The version of its text that this release knows (N16).
const VERSION: u32 = 1;
/// Bytes of its text, at most.
const ATTRIBUTE_BYTES_MAX: usize = 64 * 1024;

/// What a view tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub version: u32,
    /// The directory behind it.
    #[serde(with = "written")]
    pub source: PathBuf,
    /// Which directory that is: by its path it may not be seen.
    pub root: Inode,
    /// Its descriptor in the process that serves the view.
    root_descriptor: u32,
    /// The bucket behind it, if it is one: its server, the daemon, has more to do.
    #[serde(default)]
    pub bucket: Option<String>,
    /// Where it is.
    #[serde(with = "written")]
    pub mountpoint: PathBuf,
    /// Where its broker listens.
    #[serde(with = "written")]
    broker: PathBuf,
    /// The name of its space.
    pub space: String,
    /// The one agent it speaks for and is shown to: of a private view.
    pub agent: Option<String>,
    /// Which names it gates.
    pub rules: Rules,
    /// Where it keeps what agents overwrite unseen.
    pub kept: Place,
    /// Where the source's root lies in that.
    #[serde(with = "written")]
    pub prefix: PathBuf,
    /// The file system of the node that was asked, as file keys have it.
    pub volume: u64,
    /// Why its broker does not serve its source any more, or lets it not in, if that is so.
    #[serde(default)]
    pub refused: Option<AttachRefusal>,
    /// Who serves it, in its own pid namespace.
    pub pid: u32,
    /// Which that is.
    pub pid_namespace: u64,
}

/// A path in a view.
#[derive(Debug)]
pub struct Seen {
    /// The view.
    pub about: About,
    /// The path from the view's root.
    pub path: ViewPath,
    /// What is there.
    pub node: Node,
    /// Keeps the file's number from becoming another file's, after the file is gone.
    _pin: Option<OwnedFd>,
}

/// Why nothing is known of a view.
#[derive(Debug)]
pub enum Unseen {
    /// The path is in no view.
    NotGated,
    /// Its view is of another release.
    Version(u32),
    /// It cannot be looked at.
    Io(io::Error),
}

impl About {
    /// Asks the view that shows a path, or one of the directories above it.
    pub fn of(path: &Path) -> Result<About, Unseen> {
        // The caller may not be allowed to read the node itself.
        for path in path.ancestors() {
            match attribute(path) {
                Ok(text) => return About::parse(&text),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => return Err(Unseen::NotGated),
                Err(Errno::ACCESS | Errno::PERM | Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(Unseen::Io(errno.into())),
            }
        }
        Err(Unseen::NotGated)
    }

    fn parse(text: &[u8]) -> Result<About, Unseen> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let nonsense = |error: serde_json::Error| Unseen::Io(error.into());
        let Versioned { version } = serde_json::from_slice(text).map_err(nonsense)?;
        if version != VERSION {
            return Err(Unseen::Version(version));
        }
        serde_json::from_slice(text).map_err(nonsense)
    }

    /// Lets a session speak of the view's source, just as the view does.
    pub fn attach(&self, session: &Session) -> Result<Attachment, Failure> {
        let cannot = |cause: &dyn fmt::Display| {
            let what = format!("cannot take turns in {}", self.mountpoint.display());
            Failure::new(what, cause, "`gate status` tells how the broker is").exit(Exit::Unable)
        };
        let directory = gate_api::source::directory_known(&self.source, self.root)
            .map_err(|error| cannot(&error))?;
        let source = Source {
            origin: Origin::Directory(directory),
            space: Some(self.space.clone()),
            by_host_and_port: false,
            rules: None,
        };
        session.attach(source).map_err(|error| cannot(&error))
    }

    /// Returns a path that leads behind the view: where it lies over its own source, by way of who
    /// serves it.
    pub fn bare(&self) -> PathBuf {
        match self.source == self.mountpoint {
            true => PathBuf::from(format!("/proc/{}/fd/{}", self.pid, self.root_descriptor)),
            false => self.source.clone(),
        }
    }

    /// Returns what the broker calls an absolute path of this view; `path` is what the user wrote.
    pub fn scope(&self, absolute: &Path, path: &Path) -> Result<Scope, Failure> {
        let inner = self.inner(absolute).ok_or_else(|| Unseen::NotGated.failure(path))?;
        let too_long = || Unseen::Io(io::ErrorKind::InvalidFilename.into());
        self.scope_of(&inner).ok_or_else(|| too_long().failure(path))
    }

    fn scope_of(&self, inner: &ViewPath) -> Option<Scope> {
        let prefix = ViewPath::parse(self.prefix.as_os_str().as_bytes()).ok()?;
        Some(Scope::Within { space: self.space.clone(), path: inner.below(&prefix).ok()? })
    }

    /// Returns an absolute path as seen from the view's root.
    pub fn inner(&self, absolute: &Path) -> Option<ViewPath> {
        let inner = absolute.strip_prefix(&self.mountpoint).ok()?;
        ViewPath::parse(inner.as_os_str().as_bytes()).ok()
    }

    /// Returns the glob by which a path from the view's root is not gated, if it is not.
    pub fn ungated_by(&self, inner: &ViewPath) -> Option<String> {
        let policies = self.rules.policies().ok()?;
        let rule = policies.rule_of(inner.as_bytes())?;
        (rule.gating == Gating::None).then(|| rule.glob.clone())
    }

    fn node_of(&self, pin: &OwnedFd) -> Result<Node, Errno> {
        let stat = rustix::fs::fstat(pin)?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Node::Directory,
            FileType::RegularFile => {
                Node::File(FileKey { volume: self.volume, inode: stat.st_ino, generation: 0 })
            }
            _ => Node::None,
        })
    }

    /// Returns where the view's broker listens.
    pub fn address(&self) -> Address {
        let text = self.broker.to_str().filter(|_| self.broker.is_relative());
        match text
            .and_then(|text| text.rsplit_once(':'))
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        {
            Some((host, port)) => {
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                Address::Tcp { host, port }
            }
            None => Address::Unix(self.broker.clone()),
        }
    }
}

impl Seen {
    /// Finds out how a view shows a path, which need not exist.
    pub fn find(path: &Path) -> Result<Seen, Failure> {
        let failed = |error: io::Error| cannot_look(path, &error);
        let absolute = resolve(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let what = format!("cannot look at {}", path.display());
                let cause = "the directory that it is to lie in does not exist";
                Failure::new(what, cause, "make that directory first").exit(Exit::Unable)
            }
            _ => failed(error),
        })?;
        let about = About::of(&absolute).map_err(|why| why.failure(path))?;
        let inner = about.inner(&absolute).ok_or_else(|| Unseen::NotGated.failure(path))?;
        // Only a reference: that takes no turn.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pin = match rustix::fs::open(&absolute, flags, Mode::empty()) {
            Ok(pin) => Some(pin),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed(errno.into())),
        };
        let node = pin.as_ref().map_or(Ok(Node::None), |pin| about.node_of(pin));
        Ok(Seen { about, path: inner, node: node.map_err(|e| failed(e.into()))?, _pin: pin })
    }
}

impl Seen {
    /// Returns what the broker calls it; `None` if that is too long.
    pub fn scope(&self) -> Option<Scope> {
        self.about.scope_of(&self.path)
    }
}

impl Unseen {
    /// Says why a command cannot do anything with a path.
    pub fn failure(&self, path: &Path) -> Failure {
        let path = path.display();
        let failure = match self {
            Unseen::NotGated => Failure::new(
                format!("{path} takes no turns"),
                "it is not in a gated view",
                "give a path below a mount point: `gate status` lists them",
            ),
            Unseen::Version(theirs) => Failure::new(
                format!("cannot understand the view that shows {path}"),
                format!("it speaks version {theirs}, this gate version {VERSION}"),
                "use the release that mounted it",
            ),
            Unseen::Io(error) => Failure::new(
                format!("cannot ask the view that shows {path}"),
                error,
                "if it is dead, `gate umount` it and mount again",
            ),
        };
        failure.exit(Exit::Unable)
    }
}

/// Says why a path cannot be looked at.
pub fn cannot_look(path: &Path, error: &io::Error) -> Failure {
    let what = format!("cannot look at {}", path.display());
    let failure = if is_of_dead(error) {
        let hint = "`gate status` lists the views, `gate doctor` says what to do";
        Failure::new(what, "the view that it lies in has died", hint)
    } else {
        Failure::new(what, error, "check the path")
    };
    failure.exit(Exit::Unable)
}

/// Makes a path absolute and free of links; its last name need not exist.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = if path.is_absolute() { path.to_owned() } else { here()?.join(path) };
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        resolved => return resolved,
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Returns where this process works. Who works in a view that was replaced is at no path any more;
/// then it is the same place in what has replaced it.
pub fn here() -> io::Result<PathBuf> {
    let lost = match std::env::current_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => error,
        found => return found,
    };
    let former = attribute(".".as_ref()).ok().and_then(|text| About::parse(&text).ok());
    // Of what is mounted nowhere any more the kernel tells paths from its own root.
    let inner = std::fs::read_link("/proc/self/cwd")?;
    match (former, inner.strip_prefix("/")) {
        (Some(former), Ok(inner)) => Ok(former.mountpoint.join(inner)),
        _ => Err(lost),
    }
}

fn attribute(path: &Path) -> Result<Vec<u8>, Errno> {
    let mut text = vec![0; ATTRIBUTE_BYTES_MAX];
    let length = rustix::fs::getxattr(path, ATTRIBUTE, &mut text[..])?;
    text.truncate(length);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use gate_view::kept::Limits;
    use gate_view::policy::Policies;

    use super::*;

    fn about(broker: impl Into<PathBuf>) -> About {
        About {
            version: VERSION,
            source: "/s".into(),
            bucket: None,
            root: Inode { device: 1, number: 2 },
            root_descriptor: 3,
            mountpoint: "/m".into(),
            broker: broker.into(),
            space: "default".into(),
            agent: None,
            rules: Policies::new(Vec::new(), None).unwrap().rules(),
            kept: Place::of("/s".as_ref(), "/r".as_ref(), Limits::default()),
            prefix: ".".into(),
            volume: 7,
            refused: None,
            pid: 1,
            pid_namespace: 2,
        }
    }

    #[test]
    fn an_address_is_read_as_it_was_written() {
        for address in [
            Address::Unix("/run/a:1/gate.sock".into()),
            Address::Unix(PathBuf::from(OsStr::from_bytes(b"/run/\xff/gate.sock"))),
            Address::Tcp { host: "localhost".into(), port: 8787 },
            Address::Tcp { host: "::1".into(), port: 1 },
        ] {
            let text = serde_json::to_vec(&about(address.to_os_string())).unwrap();
            assert_eq!(About::parse(&text).unwrap().address(), address);
        }
    }

    #[test]
    fn an_unknown_version_is_not_guessed_at() {
        let text = serde_json::to_vec(&about("/s")).unwrap();
        assert_eq!(About::parse(&text).unwrap(), about("/s"));
        assert!(matches!(About::parse(br#"{"version":2}"#), Err(Unseen::Version(2))));
        assert!(matches!(About::parse(b"{"), Err(Unseen::Io(_))));
    }

    #[test]
    fn a_bare_directory_is_not_gated() {
        assert!(matches!(About::of(Path::new("/proc/self")), Err(Unseen::NotGated)));
    }

    #[test]
    fn a_path_need_not_exist_but_its_directory_must() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(resolve(Path::new("nothing-here")).unwrap(), here.join("nothing-here"));
        assert_eq!(resolve(Path::new(".")).unwrap(), here);
        assert!(resolve(Path::new("/nothing/here")).is_err());
    }
}
