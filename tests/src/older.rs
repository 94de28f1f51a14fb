//! A broker of the time before frames: a door to a real one that lets only the v1 interface through.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;

use crate::http::Http;

const NO_FRAMES: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The door; it stays open until the test ends.
#[derive(Debug, Clone, Copy)]
pub struct Older {
    port: u16,
}

impl Older {
    /// Opens a door to the broker behind `http`, which may come and go.
    #[must_use]
    pub fn before(http: Http) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("one port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                thread::spawn(move || serve(client, http.port));
            }
        });
        Self { port }
    }

    /// Returns the flags that name it.
    #[must_use]
    pub fn flags(self) -> [String; 4] {
        let port = self.port.to_string();
        ["--broker-host", "127.0.0.1", "--broker-port", &port].map(str::to_owned)
    }
}

/// Serves one connection: its first request decides.
fn serve(mut client: TcpStream, port: u16) {
    let mut head = vec![0; 4096];
    let Ok(length) = client.read(&mut head) else { return };
    head.truncate(length);
    if head.starts_with(b"GET /gate/") {
        // A client that does not stay to hear it has its answer too.
        let _ = client.write_all(NO_FRAMES);
        return;
    }
    let Ok(mut broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return };
    if broker.write_all(&head).is_err() {
        return;
    }
    let (Ok(from_client), Ok(to_broker)) = (client.try_clone(), broker.try_clone()) else { return };
    thread::spawn(move || pass_on(from_client, to_broker));
    pass_on(broker, client);
}

/// Passes bytes on; where one side ends both do, as when a client goes away.
fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    // However it ends, it ends.
    let _ = std::io::copy(&mut from, &mut to);
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
