//! Where a broker listens.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::bearer::{TokenFile, TokenFileError};

/// The name of the socket in a broker's state directory.
pub const SOCKET_NAME: &str = "gate.sock";
/// Where the system's broker keeps its state.
pub const STATE_DIR_SYSTEM: &str = "/var/lib/gate";
/// The port of the HTTP interface.
pub const PORT_DEFAULT: u16 = 8787;

/// How a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// Its socket file.
    Unix(PathBuf),
    /// Its HTTP interface.
    Tcp {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
}

/// An address, and what opens the door there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approach {
    /// Where.
    pub address: Address,
    /// The file whose first token is shown at a TCP door; read anew for each connection.
    pub token_file: Option<PathBuf>,
}

impl Approach {
    /// Returns the token to show, if there is one.
    pub(crate) fn token(&self) -> Result<Option<TokenFile>, TokenFileError> {
        self.token_file.as_deref().map(TokenFile::load).transpose()
    }
}

impl From<Address> for Approach {
    fn from(address: Address) -> Approach {
        Approach { address, token_file: None }
    }
}

impl Address {
    /// Returns where the broker with this state directory listens.
    pub fn of_state_dir(state_dir: &Path) -> Address {
        Address::Unix(state_dir.join(SOCKET_NAME))
    }

    /// Returns how it is written, byte for byte: a path may be no text.
    pub fn to_os_string(&self) -> OsString {
        match self {
            Address::Unix(path) => path.clone().into(),
            Address::Tcp { .. } => self.to_string().into(),
        }
    }

    /// Returns whether it leads to this machine without leaving it.
    pub(crate) fn is_of_this_machine(&self) -> bool {
        match self {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => {
                host.eq_ignore_ascii_case("localhost")
                    || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => path.display().fmt(f),
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Returns where a user's broker keeps its state, if the environment says where the user lives.
pub fn state_dir_user() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(base?.join("gate"))
}

/// Calls `act` with a path that fits a socket address however long `socket` is.
pub fn with_short_path<T>(
    socket: &Path,
    act: impl FnOnce(&Path) -> std::io::Result<T>,
) -> std::io::Result<T> {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;

    /// The longest path a socket address holds, with its final NUL left out.
    const SOCKET_PATH_BYTES_MAX: usize = 107;
    if socket.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
        return act(socket);
    }
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return act(socket);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    act(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
}
