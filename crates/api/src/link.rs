//! How a session reaches its broker: the seam between what is said and what carries it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::address::{Address, Approach};
use crate::bearer::TokenFileError;
use crate::frame::FrameError;
use crate::stream;
pub use crate::stream::UPGRADE;
use crate::wire::{AttachRefusal, ClientMessage, ServerMessage};

/// Makes connections to one broker, one after the other.
pub trait Connector: Send + Sync {
    /// Connects, or says why not. Blocks a short time at most.
    fn connect(&self) -> Result<Connection, ConnectError>;
}

/// A living connection.
pub struct Connection {
    /// The way to the broker.
    pub outgoing: Box<dyn Outgoing>,
    /// The way back.
    pub incoming: Box<dyn Incoming>,
    /// Whether only regular words prove that the other side is there.
    pub heartbeat: bool,
}

impl Connection {
    /// Sends a message at once.
    pub fn say(&mut self, message: &ClientMessage) {
        self.outgoing.send(message);
        if let Some(outbox) = self.outgoing.outbox() {
            outbox.flush();
        }
    }
}

/// The way to the broker.
pub trait Outgoing: Send {
    /// Sends without ever blocking, or leaves it in the outbox. That a connection is broken shows on
    /// the way back.
    fn send(&mut self, message: &ClientMessage);

    /// Returns where messages lie until it is flushed; `None` if none do.
    fn outbox(&self) -> Option<Arc<dyn Outbox>> {
        None
    }
}

/// Messages on their way out. Sending takes a while, and the answer may be here before it returns:
/// so it is done without what the answer needs, such as the lock of a session.
pub trait Outbox: Send + Sync {
    /// Sends what lies here, in the order in which it came, without ever blocking; or lets whoever
    /// is at it do so.
    fn flush(&self);
}

/// The way back.
pub trait Incoming: Send {
    /// Waits for a message, at most `patience`; `None` if none came in that time.
    fn receive(&mut self, patience: Option<Duration>) -> Result<Option<ServerMessage>, Broken>;
}

/// A connection is of no more use.
#[derive(Debug)]
pub enum Broken {
    /// The other side closed it.
    Closed,
    /// The system says so.
    Io(io::Error),
    /// What came makes no sense.
    Frame(FrameError),
}

/// Why there is no connection to a broker.
#[derive(Debug)]
pub enum ConnectError {
    /// Nobody listens there: start a broker, or look elsewhere.
    NobodyThere(Address, io::Error),
    /// The host's name leads to no address: give another.
    NoSuchHost(String, io::Error),
    /// What listens there is no broker that speaks frames.
    NoBroker(Address),
    /// The broker is of another version (N16): use the release that fits.
    Version(u32),
    /// The broker wants a token, or another one.
    Unauthorized(Address),
    /// The token to show cannot be had.
    Token(TokenFileError),
    /// The broker said no.
    Refused(String),
    /// The broker did not answer.
    Silent,
}

impl ConnectError {
    /// Returns whether a broker may be there a moment later: one that is just being started anew.
    pub fn may_pass(&self) -> bool {
        match self {
            ConnectError::NobodyThere(_, error) => error.kind() != io::ErrorKind::PermissionDenied,
            ConnectError::NoSuchHost(..) | ConnectError::NoBroker(_) | ConnectError::Silent => true,
            ConnectError::Version(_)
            | ConnectError::Unauthorized(_)
            | ConnectError::Token(_)
            | ConnectError::Refused(_) => false,
        }
    }

    /// Returns what stands against this client at a broker that is there, and what can be done: waiting
    /// alone does not end it.
    pub(crate) fn bar(&self) -> Option<AttachRefusal> {
        let (reason, fix) = match self {
            ConnectError::Version(_) => (
                format!("it is of another release: {self}"),
                "run broker and views by one release: `gate daemon stop` and `gate daemon start` by that \
                 of the view, or mount the view anew by that of the broker",
            ),
            ConnectError::Unauthorized(_) | ConnectError::Token(_) => (
                self.to_string(),
                "write a token that it knows into the file that the view was given",
            ),
            ConnectError::Refused(_) => (self.to_string(), "look into the broker's log"),
            ConnectError::NobodyThere(..)
            | ConnectError::NoSuchHost(..)
            | ConnectError::NoBroker(_)
            | ConnectError::Silent => return None,
        };
        Some(AttachRefusal { reason, fix: fix.to_owned() })
    }

    /// Returns whether there is none on this machine that might have let others in: the kernel says
    /// that nobody listens.
    pub(crate) fn proves_that_no_broker_runs(&self) -> bool {
        let ConnectError::NobodyThere(address, error) = self else { return false };
        let nobody =
            matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
        nobody && address.is_of_this_machine()
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::NobodyThere(address, error) => {
                write!(f, "no broker at {address}: {error}")
            }
            ConnectError::NoSuchHost(host, error) => {
                write!(f, "the name `{host}` does not resolve: {error}")
            }
            ConnectError::NoBroker(address) => {
                write!(f, "what listens at {address} does not speak Gate's frames")
            }
            ConnectError::Version(theirs) => FrameError::Version(*theirs).fmt(f),
            ConnectError::Unauthorized(address) => {
                write!(f, "the broker at {address} wants a token, or another one")
            }
            ConnectError::Token(error) => error.fmt(f),
            ConnectError::Refused(why) => write!(f, "the broker refused: {why}"),
            ConnectError::Silent => f.write_str("the broker does not answer"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Io(error)
    }
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Broken {
        Broken::Frame(error)
    }
}

impl Connector for Address {
    fn connect(&self) -> Result<Connection, ConnectError> {
        stream::connect(&self.clone().into())
    }
}

impl Connector for Approach {
    fn connect(&self) -> Result<Connection, ConnectError> {
        stream::connect(self)
    }
}
