//! The broker: decides who holds.
//!
//! One thread decides ([`actor`]), on the rules of core; what it decides is journaled ([`journal`])
//! before anybody is told. Clients reach it by a Unix socket, over TCP, or from the same process
//! ([`Door`]). Beside it stand threads that only look and translate: the prober ([`kin`]), the
//! HTTP interface ([`http`]), the log of what happened ([`audit`]), the journal's checkpoints.
//!
//! Not here: the rules themselves (core), the messages (api), files behind a view.

mod actor;
mod audit;
mod backlog;
mod books;
mod bounds;
mod clock;
mod desk;
mod door;
mod doors;
mod http;
mod journal;
mod kin;
mod mail;
mod metrics;
mod rounds;
mod sessions;
#[cfg(test)]
mod sim;
mod source_lock;
mod spaces;
mod start;
mod stateless;
#[cfg(test)]
mod tests;

pub use audit::UnknownFormat;
pub use door::Door;
pub use http::{Http, Listen, ListenError, Policy, ReaderPlace, needs, place_of};
pub use journal::JournalError;
pub use start::{Broker, Options, Running, StartError, Stopper};

/// What only a fuzzer calls.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads bytes as each kind of row of the journal.
    pub fn journal_rows(bytes: &[u8]) {
        crate::journal::read_any(bytes);
    }

    /// Reads bytes as a block of the log.
    pub fn log_block(bytes: &[u8]) {
        crate::audit::read_any(bytes);
    }

    /// Reads text as what follows the `?` of a request.
    pub fn http_query(text: &str) {
        crate::http::read_any(text);
    }

    /// Reads text as the id of a lock.
    pub fn lock_id(text: &str) {
        crate::stateless::read_any(text);
    }
}
