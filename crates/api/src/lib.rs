//! What crosses a wire, and the client that speaks it.
//!
//! [`wire`] are the messages, [`mirror`] how core's types look in them, [`frame`] how they lie in
//! a stream; [`v1`] are the bodies of the stateless HTTP interface. A [`session::Session`] is a
//! client's life at a broker over any [`link::Connector`]: it asks, holds, lets go, and comes
//! back with all it has when the connection breaks; [`fallback`] is a connector for brokers that
//! speak v1 alone. [`process`] says who a caller is, [`mounts`] which mount a path lies in, [`bearer`]
//! by which token one may come from another machine.
//!
//! Not here: who may open what, and in which order (core); the broker's side of the wire.

pub mod address;
pub mod bearer;
pub mod event;
pub mod fallback;
pub mod frame;
pub mod http;
pub mod link;
pub mod mirror;
pub mod mounts;
pub mod process;
pub mod session;
pub mod source;
#[cfg(feature = "shuttle")]
pub mod staged;
mod stream;
mod sync;
pub mod v1;
pub mod wire;

pub use address::{Address, Approach};
pub use session::{
    Answer, Ask, AttachError, Attachment, ClientInfo, ConnectError, Grant, Hold, NoGrant,
    QueryError, Quiet, Session, Watcher,
};

/// What only a fuzzer calls.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads bytes as the answer of a broker over HTTP.
    pub fn http_reply(bytes: &[u8]) {
        crate::http::read_any(bytes);
    }

    /// Reads text as a file of bearer tokens.
    pub fn token_file(text: &str) {
        crate::bearer::read_any(text);
    }
}
