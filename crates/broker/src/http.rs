//! The HTTP interface: a thread of its own, which only translates.
//!
//! Loopback alone. A request must name a loopback host and, if it comes from a page, a loopback
//! origin: else any web site could lock the files of who visits it.

mod routes;
#[cfg(test)]
mod tests;
mod upgrade;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::thread::JoinHandle;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::oneshot;

use crate::mail::Inbox;

/// HTTP connections at once.
const CONNECTIONS_MAX: usize = 16_384;

/// The running interface; it ends when this is dropped.
pub(crate) struct Http {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why the interface cannot be offered.
#[derive(Debug)]
pub enum ListenError {
    /// Others could reach it: use a loopback address.
    NotLoopback(String),
    /// The port is taken, or may not be used.
    Bind(String, io::Error),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::NotLoopback(host) => {
                write!(f, "{host} can be reached from other machines; listen on 127.0.0.1 or ::1")
            }
            ListenError::Bind(at, error) => write!(f, "cannot listen on {at}: {error}"),
        }
    }
}

impl std::error::Error for ListenError {}

impl Http {
    /// Listens, and serves until it is dropped.
    pub fn start(host: &str, port: u16, inbox: Inbox) -> Result<Http, ListenError> {
        let failed = |error| ListenError::Bind(format!("{host}:{port}"), error);
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(failed)?.collect();
        if !addresses.iter().all(|address| address.ip().is_loopback()) {
            return Err(ListenError::NotLoopback(host.to_owned()));
        }
        let listener = TcpListener::bind(&addresses[..]).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || runtime.block_on(serve(listener, inbox, stopped));
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

async fn serve(listener: TcpListener, inbox: Inbox, mut stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the HTTP interface cannot listen"),
    };
    let router = routes::router(inbox);
    let room = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
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

/// Returns whether a `Host` names this machine: `localhost:80`, `127.0.0.1`, `[::1]:8787`.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _)) => name,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns whether an `Origin` is a page of this machine.
fn is_loopback_origin(origin: &str) -> bool {
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    host.is_some_and(is_loopback)
}
