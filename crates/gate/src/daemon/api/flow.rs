//! Bodies that are read and written as they come, by threads that may wait: neither is ever whole in memory.

use std::io::{self, Read, Write};

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Sender, channel};

use crate::daemon::body::bucket::Line;
use crate::daemon::refusal::Refusal;

/// Pieces that wait for a reader who is slower.
const PIECES_MAX: usize = 16;
/// Bytes of a piece, about.
const PIECE_BYTES: usize = 128 * 1024;

/// A body that is sent, as a thread reads it; one that is cut off ends in an error.
pub struct Sent {
    pieces: BodyDataStream,
    runtime: Handle,
    piece: Bytes,
}

impl Sent {
    /// Takes a body; within the runtime.
    pub fn new(body: Body) -> Sent {
        let (pieces, runtime) = (body.into_data_stream(), Handle::current());
        Sent { pieces, runtime, piece: Bytes::new() }
    }
}

impl Read for Sent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.block_on(self.pieces.next()) {
                None => return Ok(0),
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
            }
        }
        let len = buffer.len().min(self.piece.len());
        buffer[..len].copy_from_slice(&self.piece.split_to(len));
        Ok(len)
    }
}

/// Where a thread writes a body that is read meanwhile.
pub struct Told {
    pieces: Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
    /// Otherwise it ends as what was cut off.
    is_whole: bool,
}

impl Drop for Told {
    fn drop(&mut self) {
        if !self.is_whole {
            let _nobody_reads = self.pieces.blocking_send(Err(io::ErrorKind::Interrupted.into()));
        }
    }
}

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece).into();
        // Nobody reads any more.
        self.pieces.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Answers with what is written on a thread of its own; an error cuts the body off.
pub fn told(
    content_type: &'static str,
    write: impl FnOnce(&mut Told) -> io::Result<()> + Send + 'static,
) -> Response {
    let (pieces, told) = channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let mut to = Told { pieces, piece: Vec::new(), is_whole: false };
        let outcome = write(&mut to).and_then(|()| to.flush());
        to.is_whole =
            outcome.inspect_err(|error| tracing::warn!(%error, "an answer is cut off")).is_ok();
    });
    let told = stream::unfold(told, async |mut told| Some((told.recv().await?, told)));
    ([(CONTENT_TYPE, content_type)], Body::from_stream(told)).into_response()
}

/// Answers with lines of JSON, each as soon as it is known: how far it is, and at last what came out or why not.
pub fn lines<P: Serialize, T: Serialize>(
    work: impl FnOnce(&mut dyn FnMut(P)) -> Result<T, Refusal> + Send + 'static,
) -> Response {
    told("application/x-ndjson", move |to| {
        let outcome = work(&mut |progress| {
            // Who went away does not end it.
            let _gone = write_line(to, &Line::<P, T>::Progress(progress));
        });
        write_line(
            to,
            &match outcome {
                Ok(done) => Line::<P, T>::Done(done),
                Err(refusal) => Line::Refused(super::refused(refusal)),
            },
        )
    })
}

fn write_line(to: &mut Told, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")?;
    to.flush()
}
