//! The HTTP interface: a thread of its own, which only translates.
//!
//! Loopback alone, unless there are tokens to be shown by those who come from elsewhere ([`guard`]).

mod guard;
mod room;
mod routes;
#[cfg(test)]
mod tests;
mod upgrade;
mod watch;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::bounds::TcpConnections;
use crate::mail::Inbox;
use guard::Peer;
use room::{NoRoom, Place, Room};

pub use guard::Policy;
pub(crate) use room::FramesPlace;

/// How long the head of a request may take to come; also, how long a connection may be idle.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// Bytes of a head, and of what else is read at once.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a client may leave unread what it was sent.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// After how long of silence the system asks whether the other machine is there, how often, and
/// how many questions may stay unanswered.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(5), 3);
/// How soon after a client could not be let in the next attempt is made.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it is told at most that clients are turned away.
const TOLD_PAUSE: Duration = Duration::from_secs(60);

/// The running interface; it ends when this is dropped.
pub(crate) struct Http {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
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
    /// Listens, and serves until it is dropped.
    pub fn start(listen: Listen, inbox: Inbox) -> Result<Http, ListenError> {
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
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let router = routes::router(inbox, policy);
        let serve = move || runtime.block_on(serve(listener, router, stopped));
        let thread = std::thread::Builder::new().name("gate-http".into()).spawn(serve);
        Ok(Http { address, stop: Some(stop), thread: Some(thread.map_err(failed)?) })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was told when it happened.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, router: axum::Router, mut stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the HTTP interface cannot listen"),
    };
    let room = Room::new(TcpConnections::of_this_process());
    let mut told_at: Option<Instant> = None;
    loop {
        let vacancy = tokio::select! {
            _ = &mut stopped => return,
            vacancy = room.vacancy() => vacancy,
        };
        let (stream, peer) = tokio::select! {
            _ = &mut stopped => return,
            accepted = accept(&listener) => accepted,
        };
        match room.place(vacancy, peer.ip()) {
            Ok(place) => drop(tokio::spawn(converse(stream, Peer(peer), place, router.clone()))),
            Err(NoRoom(limit)) => {
                if told_at.is_none_or(|at| at.elapsed() >= TOLD_PAUSE) {
                    tracing::warn!(%peer, limit, "clients are turned away");
                    told_at = Some(Instant::now());
                }
                turn_away(&stream, limit);
            }
        }
    }
}

/// Waits for the next client. One for whom the system has no room, such as a descriptor, stays before
/// the door, and says nothing of when there is some.
async fn accept(listener: &tokio::net::TcpListener) -> (TcpStream, SocketAddr) {
    let mut is_told = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
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
async fn converse(stream: TcpStream, peer: Peer, place: Place, router: axum::Router) {
    if let Err(error) = watch_over(&stream) {
        tracing::debug!(%error, "a connection cannot be watched over");
    }
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

/// Says why there is no room, if that can be said at once.
fn turn_away(stream: &TcpStream, limit: &str) {
    let body = format!("{{\"error\":\"limit: {limit}\"}}");
    let head = "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\n\
                Content-Type: application/json";
    let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.try_write(answer.as_bytes());
}
