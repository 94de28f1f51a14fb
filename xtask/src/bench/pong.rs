//! The bare ping-pong: what two round trips over a Unix socket cost, whatever is decided.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::peer::{Client, Peer};

const MESSAGE: [u8; 64] = [b'x'; 64];

/// One thread that answers all, as the broker does.
pub struct Pong {
    socket: PathBuf,
}

impl Pong {
    /// Listens, and answers until this process ends.
    pub fn start(socket: PathBuf) -> io::Result<Pong> {
        let listener = UnixListener::bind(&socket)?;
        std::thread::spawn(move || serve(&listener));
        Ok(Pong { socket })
    }
}

impl Peer for Pong {
    fn name(&self) -> &'static str {
        "bare ping-pong"
    }

    fn client(&self, _: u64) -> io::Result<Box<dyn Client>> {
        Ok(Box::new(Ping::connect(&self.socket)?))
    }

    fn hand_offs(&self, _: u64) -> io::Result<Vec<Duration>> {
        Ok(Vec::new())
    }
}

struct Ping {
    stream: UnixStream,
}

impl Ping {
    fn connect(socket: &Path) -> io::Result<Ping> {
        UnixStream::connect(socket).map(|stream| Ping { stream })
    }

    fn round_trip(&mut self) -> io::Result<()> {
        self.stream.write_all(&MESSAGE)?;
        self.stream.read_exact(&mut [0; MESSAGE.len()])
    }
}

impl Client for Ping {
    fn take(&mut self) -> io::Result<()> {
        self.round_trip()
    }

    fn give_back(&mut self) -> io::Result<()> {
        self.round_trip()
    }
}

fn serve(listener: &UnixListener) {
    let mut streams: Vec<UnixStream> = Vec::new();
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        fds.extend(streams.iter().map(|s| PollFd::from_borrowed_fd(s.as_fd(), PollFlags::IN)));
        if poll(&mut fds, None).is_err() {
            return;
        }
        let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = is_ready.iter().skip(1);
        streams.retain(|stream| !ready.next().copied().unwrap_or(false) || pong(stream).is_ok());
        if is_ready[0] {
            streams.extend(listener.accept().map(|(stream, _)| stream));
        }
    }
}

fn pong(mut stream: &UnixStream) -> io::Result<()> {
    let mut message = MESSAGE;
    stream.read_exact(&mut message)?;
    stream.write_all(&message)
}
