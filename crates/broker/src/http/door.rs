//! The listening socket of the interface, and who comes in by it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::Listener;

/// How long a client may leave unread what it was sent.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// After how long of silence the system asks whether the other machine is there, how often, and
/// how many questions may stay unanswered.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 3);

pub(super) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Who comes in.
pub(super) enum Guest {
    /// By TCP, from this machine or another.
    Remote(TcpStream, SocketAddr),
    /// By the socket file, as this user.
    Local(UnixStream, u32),
}

impl Door {
    /// Opens it to those who come to a listening socket.
    pub fn open(listener: Listener) -> io::Result<Door> {
        match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Door::Tcp)
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener).map(Door::Unix)
            }
        }
    }

    /// Waits for the next.
    pub async fn accept(&self) -> io::Result<Guest> {
        match self {
            Door::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                if let Err(error) = watch_over(&stream) {
                    tracing::debug!(%error, "a connection cannot be watched over");
                }
                Ok(Guest::Remote(stream, address))
            }
            Door::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok(Guest::Local(stream, uid))
            }
        }
    }
}

impl Guest {
    /// Returns where it is; whoever comes by the socket file is here.
    pub fn machine(&self) -> IpAddr {
        match self {
            Guest::Remote(_, address) => address.ip(),
            Guest::Local(..) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Says why there is no room, if that can be said at once.
    pub fn turn_away(&self, limit: &str) {
        let body = format!("{{\"error\":\"limit: {limit}\"}}");
        let head = "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\n\
                    Content-Type: application/json";
        let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = match self {
            Guest::Remote(stream, _) => stream.try_write(answer.as_bytes()),
            Guest::Local(stream, _) => stream.try_write(answer.as_bytes()),
        };
    }
}

/// A client that lost its power or its network, or reads no more, is gone some time later; and a
/// small answer does not wait for another to fill its packet.
fn watch_over(stream: &TcpStream) -> io::Result<()> {
    let (idle, pause, most) = KEEPALIVE;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, pause)?;
    sockopt::set_tcp_keepcnt(stream, most)?;
    let unread_ms = u32::try_from(UNREAD_MAX.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, unread_ms)?)
}
