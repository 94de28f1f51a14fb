//! The connections there are, and the bytes in them.
//!
//! Nothing here blocks: what a client does not read waits in a bounded buffer. While much waits
//! there the client is not read either, and one that lets the buffer overflow is dropped.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::Sender;

use gate_api::frame::{self, Decoder, FrameError, PREAMBLE};
use gate_api::wire::{ClientMessage, ServerMessage};
use gate_core::time::Time;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustc_hash::FxHashMap;
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::http::FramesPlace;
use crate::mail::{ConnectionId, DoorId};

/// Bytes a client may leave unread.
const UNREAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes a client may leave unread and still be heard.
const UNREAD_BYTES_HEARD: usize = 64 * 1024;
/// Bytes read of one client before the next has its turn.
const READ_BYTES: usize = 16 * 1024;

/// All connections.
pub(crate) struct Doors {
    registry: Registry,
    doors: FxHashMap<ConnectionId, Door>,
    inside: FxHashMap<DoorId, ConnectionId>,
    next: usize,
    read_buffer: Box<[u8]>,
    /// Connections with something to send.
    full: Vec<ConnectionId>,
    /// Connections that may be read again.
    heard_again: Vec<ConnectionId>,
}

enum Door {
    Socket(Socket),
    Inside(Sender<ServerMessage>),
}

struct Socket {
    fd: OwnedFd,
    decoder: Decoder,
    /// Whether the client's preamble was seen.
    greeted: bool,
    out: Vec<u8>,
    /// Whether the kernel tells when more can be sent.
    blocked: bool,
    /// Whether it is to be read once it has read.
    unheard: bool,
    /// When the client was last heard.
    heard: Time,
    /// Free again when the connection ends.
    _place: Option<FramesPlace>,
}

/// A socket on its way in.
pub(crate) struct Arrival {
    pub fd: OwnedFd,
    /// What it said already.
    pub first_bytes: Vec<u8>,
    /// The place of one that came over TCP.
    pub place: Option<FramesPlace>,
}

/// How a turn of reading ended.
pub(crate) enum Read {
    /// All there was.
    Drained,
    /// There may be more.
    Partly,
    /// The client is gone, or makes no sense.
    Gone,
}

impl Arrival {
    /// Returns one that came by the socket file and said nothing yet.
    pub fn local(fd: OwnedFd) -> Arrival {
        Arrival { fd, first_bytes: Vec::new(), place: None }
    }
}

/// What came is no message; that was logged.
struct Nonsense;

impl Doors {
    /// Begins; ids of connections rise from `first`, so that they serve as tokens as well.
    pub fn new(registry: Registry, first: usize) -> Doors {
        Doors {
            registry,
            doors: FxHashMap::default(),
            inside: FxHashMap::default(),
            next: first,
            read_buffer: vec![0; READ_BYTES].into_boxed_slice(),
            full: Vec::new(),
            heard_again: Vec::new(),
        }
    }

    /// Lets a socket in.
    pub fn admit(&mut self, arrival: Arrival, now: Time) -> std::io::Result<ConnectionId> {
        let Arrival { fd, first_bytes, place } = arrival;
        rustix::io::ioctl_fionbio(&fd, true)?;
        let id = self.fresh();
        let mut source = SourceFd(&fd.as_raw_fd());
        self.registry.register(&mut source, Token(id.0), Interest::READABLE)?;
        let mut decoder = Decoder::default();
        decoder.push(&first_bytes);
        let out = PREAMBLE.to_vec();
        let (greeted, blocked, unheard) = (false, false, false);
        let socket =
            Socket { fd, decoder, greeted, out, blocked, unheard, heard: now, _place: place };
        self.doors.insert(id, Door::Socket(socket));
        self.full.push(id);
        Ok(id)
    }

    /// Lets a client of this process in.
    pub fn admit_inside(&mut self, door: DoorId, answers: Sender<ServerMessage>) -> ConnectionId {
        let id = self.fresh();
        self.doors.insert(id, Door::Inside(answers));
        self.inside.insert(door, id);
        id
    }

    /// Returns the connection of a client of this process.
    pub fn inside(&self, door: DoorId) -> Option<ConnectionId> {
        self.inside.get(&door).copied()
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.doors.len()
    }

    /// Reads what one turn allows and hands out each message, until one ends the turn.
    pub fn read(
        &mut self,
        id: ConnectionId,
        now: Time,
        mut hear: impl FnMut(ClientMessage) -> ControlFlow<()>,
    ) -> Read {
        let Some(Door::Socket(socket)) = self.doors.get_mut(&id) else { return Read::Drained };
        if socket.out.len() > UNREAD_BYTES_HEARD {
            socket.unheard = true;
            return Read::Drained;
        }
        // What was read before comes first, so that it does not pile up.
        match socket.decode(id, &mut hear) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Read::Partly,
            Err(Nonsense) => return Read::Gone,
        }
        let read = match rustix::io::read(&socket.fd, &mut *self.read_buffer) {
            Ok(0) => Read::Gone,
            Ok(length) => {
                socket.decoder.push(&self.read_buffer[..length]);
                if length < READ_BYTES { Read::Drained } else { Read::Partly }
            }
            Err(Errno::AGAIN) => Read::Drained,
            Err(Errno::INTR) => Read::Partly,
            Err(_) => Read::Gone,
        };
        if matches!(read, Read::Drained | Read::Partly) {
            socket.heard = now;
        }
        match socket.decode(id, &mut hear) {
            Ok(ControlFlow::Continue(())) => read,
            Ok(ControlFlow::Break(())) => Read::Partly,
            Err(Nonsense) => Read::Gone,
        }
    }

    /// Returns the connections that were not read until they read, and have.
    pub fn take_heard_again(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.heard_again)
    }

    /// Sends a message, or keeps it until there is room.
    pub fn send(&mut self, id: ConnectionId, message: &ServerMessage) {
        match self.doors.get_mut(&id) {
            Some(Door::Socket(socket)) => {
                if socket.out.is_empty() {
                    self.full.push(id);
                }
                if let Err(error) = frame::encode(message, &mut socket.out) {
                    tracing::error!(%error, "an answer does not fit a frame");
                }
            }
            Some(Door::Inside(answers)) => {
                // A client that no longer listens is about to say so.
                let _ = answers.send(message.clone());
            }
            None => {}
        }
    }

    /// Writes what is to be sent; returns the connections that must end.
    pub fn flush(&mut self) -> Vec<ConnectionId> {
        let mut lost = Vec::new();
        for id in std::mem::take(&mut self.full) {
            let Some(Door::Socket(socket)) = self.doors.get_mut(&id) else { continue };
            if !socket.blocked && !socket.flush(&self.registry, id) {
                lost.push(id);
            }
            if socket.unheard && socket.out.len() <= UNREAD_BYTES_HEARD {
                socket.unheard = false;
                self.heard_again.push(id);
            }
        }
        lost
    }

    /// There is room again.
    pub fn unblock(&mut self, id: ConnectionId) {
        if let Some(Door::Socket(socket)) = self.doors.get_mut(&id) {
            socket.blocked = false;
            self.full.push(id);
        }
    }

    /// Ends a connection.
    pub fn close(&mut self, id: ConnectionId) {
        match self.doors.remove(&id) {
            Some(Door::Socket(mut socket)) => {
                // What can still be said is said: a refusal, a last answer.
                socket.blocked = false;
                socket.flush(&self.registry, id);
                let _ = self.registry.deregister(&mut SourceFd(&socket.fd.as_raw_fd()));
            }
            Some(Door::Inside(_)) => self.inside.retain(|_, connection| *connection != id),
            None => {}
        }
    }

    /// Returns when each client was last heard, if it has to be.
    pub fn last_heard(&self) -> Vec<(ConnectionId, Time)> {
        let heard = |(id, door): (&ConnectionId, &Door)| match door {
            Door::Socket(socket) => Some((*id, socket.heard)),
            // It cannot be cut off from its own process.
            Door::Inside(_) => None,
        };
        self.doors.iter().filter_map(heard).collect()
    }

    fn fresh(&mut self) -> ConnectionId {
        let id = ConnectionId(self.next);
        self.next += 1;
        id
    }
}

impl Socket {
    fn decode(
        &mut self,
        id: ConnectionId,
        hear: &mut impl FnMut(ClientMessage) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Nonsense> {
        loop {
            match self.next() {
                Ok(Some(message)) => {
                    if hear(message).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(None) => return Ok(ControlFlow::Continue(())),
                Err(error) => {
                    tracing::warn!(connection = id.0, %error, "a client was dropped");
                    return Err(Nonsense);
                }
            }
        }
    }

    fn next(&mut self) -> Result<Option<ClientMessage>, FrameError> {
        if !self.greeted {
            self.greeted = self.decoder.preamble()?.is_some();
        }
        if self.greeted { self.decoder.message() } else { Ok(None) }
    }

    /// Returns whether the connection is still of use.
    fn flush(&mut self, registry: &Registry, id: ConnectionId) -> bool {
        let mut sent = 0;
        while sent < self.out.len() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(self.fd.as_fd(), &self.out[sent..], flags) {
                Ok(length) => sent += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.blocked = true;
                    break;
                }
                Err(_) => return false,
            }
        }
        self.out.drain(..sent);
        if self.blocked {
            let both = Interest::READABLE | Interest::WRITABLE;
            let mut source = SourceFd(&self.fd.as_raw_fd());
            if registry.reregister(&mut source, Token(id.0), both).is_err() {
                return false;
            }
        }
        self.out.len() <= UNREAD_BYTES_MAX
    }
}
