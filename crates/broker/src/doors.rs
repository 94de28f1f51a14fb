//! The connections there are, and the bytes in them.
//!
//! Nothing here blocks: what a client does not read waits in a bounded buffer, and a client that
//! lets it overflow is dropped.

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

use crate::mail::{ConnectionId, DoorId};

/// Bytes a client may leave unread.
const UNREAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes read of one client before the next has its turn.
const READ_BYTES: usize = 64 * 1024;

/// All connections.
pub(crate) struct Doors {
    registry: Registry,
    doors: FxHashMap<ConnectionId, Door>,
    inside: FxHashMap<DoorId, ConnectionId>,
    next: usize,
    read_buffer: Box<[u8]>,
    /// Connections with something to send.
    full: Vec<ConnectionId>,
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
    /// When the client was last heard.
    heard: Time,
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
        }
    }

    /// Lets a socket in.
    pub fn admit(
        &mut self,
        fd: OwnedFd,
        first_bytes: &[u8],
        now: Time,
    ) -> std::io::Result<ConnectionId> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let id = self.fresh();
        let mut source = SourceFd(&fd.as_raw_fd());
        self.registry.register(&mut source, Token(id.0), Interest::READABLE)?;
        let mut decoder = Decoder::default();
        decoder.push(first_bytes);
        let out = PREAMBLE.to_vec();
        let socket = Socket { fd, decoder, greeted: false, out, blocked: false, heard: now };
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

    /// Reads what one turn allows and hands out each message.
    pub fn read(
        &mut self,
        id: ConnectionId,
        now: Time,
        mut hear: impl FnMut(ClientMessage),
    ) -> Read {
        let Some(Door::Socket(socket)) = self.doors.get_mut(&id) else { return Read::Drained };
        // What came with the connection is decoded even if nothing follows.
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
        match socket.decode(&mut hear) {
            Ok(()) => read,
            Err(error) => {
                tracing::warn!(connection = id.0, %error, "a client was dropped");
                Read::Gone
            }
        }
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
            if let Some(Door::Socket(socket)) = self.doors.get_mut(&id)
                && !socket.blocked
                && !socket.flush(&self.registry, id)
            {
                lost.push(id);
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
    fn decode(&mut self, hear: &mut impl FnMut(ClientMessage)) -> Result<(), FrameError> {
        if !self.greeted {
            self.greeted = self.decoder.preamble()?.is_some();
        }
        while self.greeted
            && let Some(message) = self.decoder.message()?
        {
            hear(message);
        }
        Ok(())
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
