//! Frames over a Unix socket, or over TCP after an HTTP upgrade.

#[cfg(test)]
#[cfg(feature = "shuttle")]
mod races;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use zeroize::Zeroizing;

use crate::address::{Address, Approach, with_short_path};
use crate::frame::{self, Decoder, PREAMBLE};
use crate::link::{Broken, ConnectError, Connection, Incoming, Outbox, Outgoing};
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, mpsc, thread};
use crate::wire::{ClientMessage, ServerMessage};

/// The name of the frames in an HTTP upgrade.
pub const UPGRADE: &str = "gate-frames/1";
/// What that begins with, whatever the version.
const UPGRADE_FAMILY: &str = "gate-frames/";
/// How long a TCP connection may take to stand.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of `HTTP/1.1 101 `.
const ANSWER_BYTES: usize = 13;
/// Bytes of an answer's head, at most.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes a broker may leave unread before its connection counts as broken.
const BACKLOG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Connects to the broker at an address.
pub(crate) fn connect(approach: &Approach) -> Result<Connection, ConnectError> {
    let address = &approach.address;
    let nobody = |error| ConnectError::NobodyThere(address.clone(), error);
    let (socket, first_bytes) = match address {
        Address::Unix(path) => {
            let stream = with_short_path(path, |path| UnixStream::connect(path)).map_err(nobody)?;
            (OwnedFd::from(stream), Vec::new())
        }
        Address::Tcp { host, port } => {
            let token = approach.token().map_err(ConnectError::Token)?;
            let token = token.map(|file| file.first().header()).unwrap_or_default();
            let unknown = |error| ConnectError::NoSuchHost(host.clone(), error);
            let found = resolve(host, *port).map_err(unknown)?;
            let mut stream = connect_tcp(&found).map_err(nobody)?;
            let first_bytes = upgrade(&mut stream, address, &token)?;
            (OwnedFd::from(stream), first_bytes)
        }
    };
    let socket = Arc::new(socket);
    let outgoing = Writer::new(socket.clone());
    let buffer = vec![0; READ_BYTES].into_boxed_slice();
    let mut incoming = Reader { socket, decoder: Decoder::default(), buffer, greeted: false };
    incoming.decoder.push(&first_bytes);
    Ok(Connection { outgoing: Box::new(outgoing), incoming: Box::new(incoming), heartbeat: true })
}

/// Finds where a host of that name may be.
pub(crate) fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((host, port).to_socket_addrs()?.collect())
}

/// Connects, in a bounded time, and lets reads wait for as long at first.
pub(crate) fn connect_tcp(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(CONNECT_PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Asks for frames instead of HTTP; returns what came after the answer's head.
fn upgrade(
    stream: &mut TcpStream,
    address: &Address,
    token: &str,
) -> Result<Vec<u8>, ConnectError> {
    let request = Zeroizing::new(format!(
        "GET /gate/frames HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
         Upgrade: {UPGRADE}\r\n{token}\r\n"
    ));
    let nobody = |error| ConnectError::NobodyThere(address.clone(), error);
    stream.write_all(request.as_bytes()).map_err(nobody)?;
    let mut answer = Vec::new();
    loop {
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = answer.split_off(end + 4);
            return match answer.get(..ANSWER_BYTES) {
                Some(b"HTTP/1.1 101 ") => Ok(rest),
                Some(b"HTTP/1.1 401 ") => Err(ConnectError::Unauthorized(address.clone())),
                Some(b"HTTP/1.1 426 ") => Err(spoken_there(&answer).map_or_else(
                    || ConnectError::NoBroker(address.clone()),
                    ConnectError::Version,
                )),
                _ => Err(ConnectError::NoBroker(address.clone())),
            };
        }
        let mut bytes = [0; 1024];
        match stream.read(&mut bytes).map_err(nobody)? {
            0 => return Err(ConnectError::NoBroker(address.clone())),
            _ if answer.len() > HEAD_BYTES_MAX => {
                return Err(ConnectError::NoBroker(address.clone()));
            }
            length => answer.extend_from_slice(&bytes[..length]),
        }
    }
}

/// Returns the version of the frames that a broker wants instead, by the head of its answer.
fn spoken_there(head: &[u8]) -> Option<u32> {
    let mut fields = str::from_utf8(head).ok()?.lines().filter_map(|line| line.split_once(':'));
    let (_, wanted) = fields.find(|(name, _)| name.eq_ignore_ascii_case("upgrade"))?;
    wanted.trim().strip_prefix(UPGRADE_FAMILY)?.parse().ok()
}

struct Writer(Arc<Letterbox>);

/// What is sent over a socket.
struct Letterbox {
    socket: Arc<OwnedFd>,
    /// Bytes that nobody has taken yet.
    waiting: Mutex<Vec<u8>>,
    /// Locked by whoever sends; it takes what waits only then, so bytes go out in order.
    sending: Mutex<Sending>,
}

#[derive(Default)]
struct Sending {
    bytes: Vec<u8>,
    /// Set once the broker did not read fast enough.
    backlog: Option<Backlog>,
}

/// Bytes that a thread of their own writes, as the broker reads them.
struct Backlog {
    chunks: mpsc::Sender<Vec<u8>>,
    bytes: Arc<AtomicUsize>,
}

impl Writer {
    fn new(socket: Arc<OwnedFd>) -> Writer {
        let waiting = Mutex::new(PREAMBLE.to_vec());
        Writer(Arc::new(Letterbox { socket, waiting, sending: Mutex::default() }))
    }
}

impl Outgoing for Writer {
    fn send(&mut self, message: &ClientMessage) {
        if let Err(error) = frame::encode(message, &mut lock(&self.0.waiting)) {
            // Bounded by what a view can ask for; if not, the broker must not miss a part.
            tracing::error!(%error, "a message does not fit a frame");
            self.0.give_up();
        }
    }

    fn outbox(&self) -> Option<Arc<dyn Outbox>> {
        Some(self.0.clone())
    }
}

impl Drop for Writer {
    /// Ends the reading side too, after what was said has gone out.
    fn drop(&mut self) {
        self.0.send(&mut lock(&self.0.sending));
        let _ = rustix::net::shutdown(&*self.0.socket, Shutdown::Write);
    }
}

impl Outbox for Letterbox {
    fn flush(&self) {
        // Who finds it locked leaves its bytes to whoever has the lock, who looks again after that.
        while !lock(&self.waiting).is_empty() {
            let Some(mut sending) = try_lock(&self.sending) else { return };
            self.send(&mut sending);
        }
    }
}

impl Letterbox {
    /// Sends what waits.
    fn send(&self, sending: &mut Sending) {
        sending.bytes.clear();
        std::mem::swap(&mut *lock(&self.waiting), &mut sending.bytes);
        let queued = sending.backlog.as_ref().map_or(0, |log| log.bytes.load(Ordering::Acquire));
        let sent = if queued == 0 { self.try_write(&sending.bytes) } else { 0 };
        if sent < sending.bytes.len() {
            self.queue(sending, sent, queued);
        }
    }

    /// Writes as much as fits at once; a broken connection swallows all.
    fn try_write(&self, bytes: &[u8]) -> usize {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match rustix::net::send(&*self.socket, bytes, flags) {
                Ok(sent) => return sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return 0,
                Err(_) => return bytes.len(),
            }
        }
    }

    fn queue(&self, sending: &mut Sending, sent: usize, queued: usize) {
        if queued > BACKLOG_BYTES_MAX {
            return self.give_up();
        }
        let backlog = sending.backlog.get_or_insert_with(|| Backlog::start(self.socket.clone()));
        let rest = sending.bytes[sent..].to_vec();
        backlog.bytes.fetch_add(rest.len(), Ordering::AcqRel);
        // Fails only once the connection is broken, which shows on the way back.
        let _ = backlog.chunks.send(rest);
    }

    fn give_up(&self) {
        let _ = rustix::net::shutdown(&*self.socket, Shutdown::Both);
    }
}

/// Nothing panics while one of these is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Backlog {
    fn start(socket: Arc<OwnedFd>) -> Backlog {
        let (chunks, queue) = mpsc::channel::<Vec<u8>>();
        let bytes = Arc::new(AtomicUsize::new(0));
        let left = bytes.clone();
        thread::spawn(move || {
            for chunk in queue {
                if write_all(&socket, &chunk).is_err() {
                    let _ = rustix::net::shutdown(&*socket, Shutdown::Both);
                    return;
                }
                left.fetch_sub(chunk.len(), Ordering::AcqRel);
            }
        });
        Backlog { chunks, bytes }
    }
}

fn write_all(socket: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct Reader {
    socket: Arc<OwnedFd>,
    decoder: Decoder,
    buffer: Box<[u8]>,
    /// Whether the broker's preamble was seen.
    greeted: bool,
}

impl Incoming for Reader {
    fn receive(&mut self, patience: Option<Duration>) -> Result<Option<ServerMessage>, Broken> {
        loop {
            if let Some(message) = self.decode()? {
                return Ok(Some(message));
            }
            if !self.has_bytes(patience)? {
                return Ok(None);
            }
            self.read()?;
        }
    }
}

impl Reader {
    fn decode(&mut self) -> Result<Option<ServerMessage>, Broken> {
        if !self.greeted {
            self.greeted = self.decoder.preamble()?.is_some();
        }
        if self.greeted { Ok(self.decoder.message()?) } else { Ok(None) }
    }

    /// Waits for bytes. A reader that slept in read(2) would be woken by every message of ours
    /// that the other side takes, too.
    fn has_bytes(&self, patience: Option<Duration>) -> Result<bool, Broken> {
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut ready = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        match poll(&mut ready, patience.as_ref()) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(Broken::Io(error.into())),
        }
    }

    fn read(&mut self) -> Result<(), Broken> {
        match rustix::io::read(&*self.socket, &mut *self.buffer) {
            Ok(0) => Err(Broken::Closed),
            Ok(length) => {
                self.decoder.push(&self.buffer[..length]);
                Ok(())
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Err(error) => Err(Broken::Io(error.into())),
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests {
    use rustix::net::sockopt::set_socket_send_buffer_size;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[track_caller]
    fn check_answer(answer: &'static str, expected: &str) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
        };
        let broker = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let _ = client.read(&mut [0; 1024]).unwrap();
            client.write_all(answer.as_bytes()).unwrap();
        });
        let error = connect(&address.into()).err().unwrap();
        broker.join().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn n16_a_broker_that_wants_other_frames_is_known_by_their_version() {
        let wants = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: gate-frames/7\r\n\r\n";
        check_answer(wants, "the peer speaks version 7");
        check_answer("HTTP/1.1 426 Upgrade Required\r\n\r\n", "does not speak Gate's frames");
        let other = "HTTP/1.1 426 Upgrade Required\r\nupgrade: h2c\r\n\r\n";
        check_answer(other, "does not speak Gate's frames");
        check_answer("HTTP/1.1 404 Not Found\r\n\r\n", "does not speak Gate's frames");
    }

    /// Who sends without the lock under which it was said could overtake, or be left behind.
    #[test]
    fn what_several_threads_say_goes_out_in_order_and_all_of_it() {
        const THREADS: usize = 4;
        const WORDS: usize = 2_000;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let saying = Mutex::new((Writer::new(Arc::new(ours.into())), 0));
        let say = || {
            for _ in 0..WORDS {
                let outbox = {
                    let (writer, said) = &mut *saying.lock().unwrap();
                    *said += 1;
                    say(writer, *said)
                };
                outbox.flush();
            }
        };
        thread::scope(|scope| {
            (0..THREADS).for_each(|_| drop(scope.spawn(say)));
            Hearing::of(theirs).hear(THREADS * WORDS);
        });
    }

    /// Another thread still writes that; who found room on the socket could overtake it.
    #[test]
    fn what_did_not_fit_goes_out_before_what_is_said_later() {
        const AT_FIRST: u64 = 20_000;
        const LATER: u64 = 200;
        let (ours, theirs) = UnixStream::pair().unwrap();
        set_socket_send_buffer_size(&ours, 4096).unwrap();
        let mut writer = Writer::new(Arc::new(ours.into()));
        (1..AT_FIRST).for_each(|word| drop(say(&mut writer, word)));
        say(&mut writer, AT_FIRST).flush();
        let mut hearing = Hearing::of(theirs);
        for word in AT_FIRST + 1..=AT_FIRST + LATER {
            hearing.read();
            say(&mut writer, word).flush();
        }
        hearing.hear((AT_FIRST + LATER) as usize);
    }

    fn say(writer: &mut Writer, word: u64) -> Arc<dyn Outbox> {
        writer.send(&ClientMessage::Active { owner: word });
        writer.outbox().unwrap()
    }

    /// Hears words, which count from 1.
    struct Hearing {
        from: UnixStream,
        decoder: Decoder,
        heard: usize,
    }

    impl Hearing {
        fn of(from: UnixStream) -> Hearing {
            from.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut hearing = Hearing { from, decoder: Decoder::default(), heard: 0 };
            hearing.read();
            hearing.decoder.preamble().unwrap().unwrap();
            hearing
        }

        fn read(&mut self) {
            let mut bytes = [0; 1024];
            let length = self.from.read(&mut bytes).expect("nothing is left behind");
            self.decoder.push(&bytes[..length]);
        }

        fn hear(&mut self, words: usize) {
            while self.heard < words {
                while let Some(message) = self.decoder.message().unwrap() {
                    let ClientMessage::Active { owner } = message else { panic!("{message:?}") };
                    self.heard += 1;
                    assert_eq!(owner, self.heard as u64);
                }
                if self.heard < words {
                    self.read();
                }
            }
        }
    }
}
