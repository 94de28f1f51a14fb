//! What reaches the deciding thread from other threads, and how.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use gate_api::bearer::Rights;
use gate_api::wire::{ClientMessage, Reply, ServerMessage};
use gate_core::id::OwnerId;
use mio::{Registry, Token, Waker};
use tokio::sync::oneshot;

use crate::audit;
use crate::http::FramesPlace;
use crate::kin::Question;
use crate::metrics::Metrics;
use crate::stateless::Call;

/// One connection of one client; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub usize);

/// One thing for the deciding thread.
pub(crate) enum Mail {
    /// A client of this process comes in by a door of its own.
    Enter { door: DoorId, answers: Sender<ServerMessage> },
    /// It says something.
    Said { door: DoorId, message: ClientMessage },
    /// It is gone.
    Left { door: DoorId },
    /// A TCP client speaks frames from now on; what it said already is with it, and what it may do.
    Upgraded { socket: OwnedFd, first_bytes: Vec<u8>, rights: Rights, place: FramesPlace },
    /// A call of the stateless interface.
    Stateless(Call),
    /// The prober found that a holder waits for a waiter's process, or leads it.
    Kin { waiter: OwnerId, holder: OwnerId },
    /// The prober asks for what it is to look at.
    Probe(Question),
    /// The HTTP interface asks what happened.
    AskLog(audit::Question),
    /// The HTTP interface asks for the figures.
    Figures(oneshot::Sender<Arc<Metrics>>),
    /// The log has the answer to a client's question.
    Answered { connection: ConnectionId, id: u64, reply: Reply },
    /// End in order.
    Stop,
}

/// A door of this process: the number is its maker's choice.
pub(crate) type DoorId = u64;

/// The sending end: wakes the deciding thread.
#[derive(Clone)]
pub(crate) struct Inbox {
    mail: Sender<Mail>,
    waker: Arc<Waker>,
}

impl Inbox {
    pub fn new(registry: &Registry, token: Token) -> std::io::Result<(Inbox, Receiver<Mail>)> {
        let (mail, received) = channel();
        let waker = Arc::new(Waker::new(registry, token)?);
        Ok((Inbox { mail, waker }, received))
    }

    /// Sends; `false` if the deciding thread has ended.
    pub fn send(&self, mail: Mail) -> bool {
        self.mail.send(mail).is_ok() && self.waker.wake().is_ok()
    }
}
