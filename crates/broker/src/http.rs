//! The HTTP interface: a thread of its own for each place where it is offered, which only translates.
//!
//! Over TCP to loopback alone, unless there are tokens to be shown by those who come from elsewhere
//! ([`guard`]); over a Unix socket to its owner. What else is served there, as the mounts of a daemon,
//! its owner brings along as a [`axum::Router`].

mod door;
mod guard;
mod readers;
mod room;
mod routes;
mod sign_in;
#[cfg(test)]
mod tests;
mod upgrade;
mod watch;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use crate::bounds::TcpConnections;
use crate::mail::Inbox;
use crate::start::listen_privately;
use door::{Door, Guest};
use guard::Peer;
use room::{NoRoom, Place, Room};

pub use guard::{Policy, needs};
pub use readers::{ReaderPlace, place_of};
pub(crate) use room::FramesPlace;
#[cfg(fuzzing)]
pub(crate) use watch::read_any;

/// How long the head of a request may take to come; also, how long a connection may be idle.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// Bytes of a head, and of what else is read at once.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How soon after a client could not be let in the next attempt is made.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it is told at most that clients are turned away.
const TOLD_PAUSE: Duration = Duration::from_secs(60);

/// The running interface at one place; it ends when this is dropped.
pub struct Http {
    place: Offered,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Where it is offered.
enum Offered {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// At a socket that is somebody else's.
    Given,
}

/// Where the interface is offered, and to whom.
#[derive(Debug)]
pub struct Listen {
    /// A name or an address of this machine.
    pub host: String,
    /// The port; 0 takes any.
    pub port: u16,
    /// What is asked of those who come.
    pub policy: Policy,
}

/// Why the interface cannot be offered.
#[derive(Debug)]
pub enum ListenError {
    /// Others could reach it, without a token: use a loopback address, or tokens.
    NeedsTokens(String),
    /// The port is taken, or may not be used.
    Bind(String, io::Error),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::NeedsTokens(host) => {
                write!(f, "{host} can be reached from other machines, and no token file is given")
            }
            ListenError::Bind(at, error) => write!(f, "cannot listen on {at}: {error}"),
        }
    }
}

impl std::error::Error for ListenError {}

impl Http {
    /// Listens by TCP, and serves until it is dropped: what is the broker's, and `more`.
    pub(crate) fn start(listen: Listen, inbox: Inbox, more: Router) -> Result<Http, ListenError> {
        let Listen { host, port, policy } = listen;
        let failed = |error| ListenError::Bind(format!("{host}:{port}"), error);
        let addresses: Vec<SocketAddr> =
            (&*host, port).to_socket_addrs().map_err(failed)?.collect();
        let is_elsewhere = |address: &SocketAddr| !address.ip().is_loopback();
        match (&policy, addresses.iter().any(is_elsewhere)) {
            (Policy::Loopback, true) => return Err(ListenError::NeedsTokens(host)),
            (_, true) => tracing::warn!(
                host,
                "tokens and paths cross the network as plain text; tunnel it where others may listen"
            ),
            (_, false) => {}
        }
        let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
        let place = listener.local_addr().map(Offered::Tcp).map_err(failed)?;
        Http::serve(place, listener, routes::router(inbox, policy, more)).map_err(failed)
    }

    /// As [`Http::start`], at a socket file that its owner alone may use.
    pub(crate) fn start_privately(
        socket: &Path,
        inbox: Inbox,
        more: Router,
    ) -> Result<Http, ListenError> {
        let failed = |error| ListenError::Bind(socket.display().to_string(), error);
        let listener = listen_privately(socket).map_err(failed)?;
        let place = Offered::Unix(socket.to_owned());
        Http::serve(place, listener, routes::router(inbox, Policy::Owner, more)).map_err(failed)
    }

    /// As [`Http::start_privately`], at a socket that somebody else made so, and takes away.
    pub(crate) fn start_at(
        listener: UnixListener,
        inbox: Inbox,
        more: Router,
    ) -> Result<Http, ListenError> {
        let failed = |error| ListenError::Bind("the socket that is given".to_owned(), error);
        let router = routes::router(inbox, Policy::Owner, more);
        Http::serve(Offered::Given, listener, router).map_err(failed)
    }

    fn serve(place: Offered, listener: impl Into<Listener>, router: Router) -> io::Result<Http> {
        let listener = listener.into();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || runtime.block_on(serve(listener, router, stopped));
        let thread = std::thread::Builder::new().name("gate-http".into()).spawn(serve)?;
        Ok(Http { place, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the host and port at which it listens, if it does so by TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.place {
            Offered::Tcp(address) => Some(address),
            Offered::Unix(_) | Offered::Given => None,
        }
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        if let Offered::Unix(socket) = &self.place {
            // Whoever finds no socket knows at once that nobody listens.
            let _ = std::fs::remove_file(socket);
        }
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was told when it happened.
            let _ = thread.join();
        }
    }
}

/// A listening socket that nobody serves yet.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Listener {
        Listener::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Listener {
        Listener::Unix(listener)
    }
}

async fn serve(listener: Listener, router: Router, mut stopped: oneshot::Receiver<()>) {
    let door = match Door::open(listener) {
        Ok(door) => door,
        Err(error) => return tracing::error!(%error, "the HTTP interface cannot listen"),
    };
    let room = Room::new(TcpConnections::of_this_process());
    let mut told_at: Option<Instant> = None;
    loop {
        let vacancy = tokio::select! {
            _ = &mut stopped => return,
            vacancy = room.vacancy() => vacancy,
        };
        let guest = tokio::select! {
            _ = &mut stopped => return,
            guest = accept(&door) => guest,
        };
        match room.place(vacancy, guest.machine()) {
            Ok(place) => drop(tokio::spawn(receive(guest, place, router.clone()))),
            Err(NoRoom(limit)) => {
                if told_at.is_none_or(|at| at.elapsed() >= TOLD_PAUSE) {
                    tracing::warn!(guest = %guest.machine(), limit, "clients are turned away");
                    told_at = Some(Instant::now());
                }
                guest.turn_away(limit);
            }
        }
    }
}

/// Waits for the next client. One for whom the system has no room, such as a descriptor, stays before
/// the door, and says nothing of when there is some.
async fn accept(door: &Door) -> Guest {
    let mut is_told = false;
    loop {
        match door.accept().await {
            Ok(guest) => return guest,
            Err(error) if !is_told => {
                tracing::warn!(%error, "an HTTP client could not be let in");
                is_told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Serves one connection to its end.
async fn receive(guest: Guest, place: Place, router: Router) {
    match guest {
        Guest::Remote(stream, address) => {
            converse(stream, Peer::At(address), place, router).await;
        }
        Guest::Local(stream, uid) => converse(stream, Peer::User(uid), place, router).await,
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    place: Place,
    router: Router,
) {
    let place = Arc::new(place);
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<_>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(place.clone());
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // A client that breaks off is no news.
    let _ = connection.await;
}
