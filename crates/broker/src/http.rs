//! The HTTP interface: a thread of its own, which only translates.
//!
//! Loopback alone, unless there are tokens to be shown by those who come from elsewhere ([`guard`]).

mod guard;
mod routes;
#[cfg(test)]
mod tests;
mod upgrade;
mod watch;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::thread::JoinHandle;

use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::oneshot;

use crate::mail::Inbox;
use guard::Peer;

pub use guard::Policy;

/// HTTP connections at once.
const CONNECTIONS_MAX: usize = 16_384;

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
    let room = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let (stream, peer) = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "an HTTP client could not be let in");
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
        // A small answer must not wait for another to fill its packet.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: hyper::Request<_>| {
            request.extensions_mut().insert(Peer(peer));
            service.call(request)
        });
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // A client that breaks off is no news.
            let _ = connection.await;
            drop(place);
        });
    }
}
