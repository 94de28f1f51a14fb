//! Sockets at which somebody else has listened until this process was there, as sd_listen_fds(3) has it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use listenfd::ListenFd;

/// What tells of them. Of no concern to what this process starts.
pub const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Takes the socket with this file; all others are told of.
pub fn take(socket: &Path) -> Option<UnixListener> {
    let mut given = ListenFd::from_env();
    let (mine, others): (Vec<_>, Vec<_>) =
        (0..given.len()).map(|n| given.take_unix_listener(n)).partition(
            |listener| matches!(listener, Ok(Some(it)) if is_at(it, socket).unwrap_or(false)),
        );
    for other in others {
        let error = other.err();
        tracing::warn!(?error, socket = %socket.display(), "a socket is given that is of no use here");
    }
    mine.into_iter().next()?.ok()?
}

fn is_at(listener: &UnixListener, socket: &Path) -> io::Result<bool> {
    let address = listener.local_addr()?;
    let Some(path) = address.as_pathname() else { return Ok(false) };
    let [given, wanted] = [fs::metadata(path)?, fs::metadata(socket)?];
    Ok((given.dev(), given.ino()) == (wanted.dev(), wanted.ino()))
}
