//! One `gate mount` of a directory at a time: between its look at what lies there and its own
//! mount nobody else's may come.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// How long another may take: it may have a broker to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked whether it is done.
const PAUSE: Duration = Duration::from_millis(20);

/// The right to mount at a directory, until it is dropped or its process ends.
///
/// It is a name in the kernel that one socket can have: users who share no directory for a lock
/// file meet there, and nothing of it stays behind. Who has another network namespace is not met.
#[derive(Debug)]
pub struct Reservation {
    _name: UnixDatagram,
}

impl Reservation {
    /// Waits for it.
    pub fn of(point: &Path) -> io::Result<Reservation> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let name = name_of(point)?;
            match UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?) {
                // Whoever had it before may have mounted there meanwhile: then another name counts.
                Ok(socket) if name_of(point)? == name => return Ok(Reservation { _name: socket }),
                Ok(_) => {}
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error),
                Err(_) if Instant::now() >= deadline => {
                    let text = "another `gate mount` of it takes longer than expected";
                    return Err(io::Error::other(text));
                }
                #[expect(clippy::disallowed_methods, reason = "nothing tells of a name's end")]
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// Names what is there by now; asks no server, which may be dead, or another user's.
fn name_of(point: &Path) -> io::Result<String> {
    let found = statx(CWD, point, AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?;
    let (major, minor) = (found.stx_dev_major, found.stx_dev_minor);
    Ok(format!("gate mount {major}:{minor}:{}", found.stx_ino))
}
