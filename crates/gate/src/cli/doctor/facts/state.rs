//! The directory in which a broker of this machine keeps its journal.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::broker::StateDir;

/// File systems by the numbers that the kernel gives them (linux/magic.h).
const NETWORK: [(u64, &str); 8] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFE53_4D42, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0x0102_1997, "9P"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x6573_5546, "FUSE"),
];
const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58F6];

/// How it is.
#[derive(Debug)]
pub enum State {
    /// On another machine.
    Elsewhere,
    /// Where it is has no answer.
    Unknown,
    /// It cannot be looked at.
    Closed(PathBuf, io::Error),
    /// It is made at the first start.
    Absent(PathBuf, Disk),
    There(Directory),
}

/// It is there.
#[derive(Debug)]
pub struct Directory {
    pub path: PathBuf,
    pub mode: u32,
    pub is_own: bool,
    pub disk: Disk,
    /// Whether the journal can be written; `None` if there is none yet.
    pub journal: Option<bool>,
}

/// Where it lies, or will lie.
#[derive(Debug)]
pub struct Disk {
    pub may_write: bool,
    pub free_bytes: u64,
    pub kind: Kind,
}

/// On what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Local,
    /// Gone with the machine's next start.
    Memory,
    Network(&'static str),
}

impl State {
    /// Looks at it.
    pub fn look(state_dir: StateDir) -> State {
        match state_dir {
            StateDir::Elsewhere => State::Elsewhere,
            StateDir::Unknown => State::Unknown,
            StateDir::Here(path) => {
                State::look_at(&path).unwrap_or_else(|error| State::Closed(path, error))
            }
        }
    }

    fn look_at(path: &Path) -> io::Result<State> {
        let found = match path.metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let absolute = std::path::absolute(path)?;
                let above = absolute.ancestors().find(|above| above.exists());
                let disk = Disk::of(above.unwrap_or(Path::new("/")))?;
                return Ok(State::Absent(path.to_owned(), disk));
            }
            Err(error) => return Err(error),
        };
        let journal = path.join("journal.sqlite");
        Ok(State::There(Directory {
            path: path.to_owned(),
            mode: found.mode() & 0o7777,
            is_own: found.uid() == rustix::process::geteuid().as_raw(),
            disk: Disk::of(path)?,
            journal: journal.try_exists()?.then(|| may(&journal, Access::WRITE_OK)),
        }))
    }
}

impl Disk {
    fn of(path: &Path) -> io::Result<Disk> {
        let room = rustix::fs::statvfs(path)?;
        let kind = Kind::of(rustix::fs::statfs(path)?.f_type as u64 & u64::from(u32::MAX));
        Ok(Disk {
            may_write: may(path, Access::WRITE_OK | Access::EXEC_OK),
            free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
            kind,
        })
    }
}

impl Kind {
    fn of(magic: u64) -> Kind {
        let network = NETWORK.iter().find(|(number, _)| *number == magic);
        match network {
            Some((_, name)) => Kind::Network(name),
            None if MEMORY.contains(&magic) => Kind::Memory,
            None => Kind::Local,
        }
    }
}

fn may(path: &Path, access: Access) -> bool {
    accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_lies_where_it_would() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        let State::Absent(at, disk) = State::look(StateDir::Here(path.clone())) else {
            panic!("it is not there");
        };
        assert_eq!(at, path);
        assert!(disk.may_write && disk.free_bytes > 0);
    }

    #[test]
    fn file_systems_are_told_by_their_numbers() {
        assert_eq!(Kind::of(0x6969), Kind::Network("NFS"));
        assert_eq!(Kind::of(0x0102_1994), Kind::Memory);
        assert_eq!(Kind::of(0xEF53), Kind::Local);
    }
}
