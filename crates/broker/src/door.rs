//! The door for clients in the broker's own process (N11): messages, no bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use gate_api::link::{Broken, ConnectError, Connection, Connector, Incoming, Outgoing};
use gate_api::wire::{ClientMessage, ServerMessage};

use crate::mail::{DoorId, Inbox, Mail};

/// Leads to the broker of this process.
#[derive(Clone)]
pub struct Door {
    inbox: Inbox,
}

struct ToBroker {
    inbox: Inbox,
    door: DoorId,
}

struct FromBroker {
    answers: Receiver<ServerMessage>,
}

impl Door {
    pub(crate) fn new(inbox: Inbox) -> Door {
        Door { inbox }
    }
}

impl Connector for Door {
    fn connect(&self) -> Result<Connection, ConnectError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let door = NEXT.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = channel();
        if !self.inbox.send(Mail::Enter { door, answers: sender }) {
            return Err(ConnectError::Silent);
        }
        Ok(Connection {
            outgoing: Box::new(ToBroker { inbox: self.inbox.clone(), door }),
            incoming: Box::new(FromBroker { answers }),
            heartbeat: false,
        })
    }
}

impl Outgoing for ToBroker {
    fn send(&mut self, message: &ClientMessage) {
        self.inbox.send(Mail::Said { door: self.door, message: message.clone() });
    }
}

impl Drop for ToBroker {
    fn drop(&mut self) {
        self.inbox.send(Mail::Left { door: self.door });
    }
}

impl Incoming for FromBroker {
    fn receive(&mut self, patience: Option<Duration>) -> Result<Option<ServerMessage>, Broken> {
        let Some(patience) = patience else {
            return self.answers.recv().map(Some).map_err(|_| Broken::Closed);
        };
        match self.answers.recv_timeout(patience) {
            Ok(message) => Ok(Some(message)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Broken::Closed),
        }
    }
}
