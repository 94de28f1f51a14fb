//! Who reads streams of server-sent events: so many at once, whatever they are told of.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use gate_api::wire::{Cursor, NoCursor};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::bounds::EVENT_READERS_MAX;

/// The longest silence of a stream.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The place of one of them.
pub struct ReaderPlace {
    _permit: SemaphorePermit<'static>,
}

impl ReaderPlace {
    /// Returns one, if there is one left.
    pub fn take() -> Option<ReaderPlace> {
        static ROOM: Semaphore = Semaphore::const_new(EVENT_READERS_MAX);
        ROOM.try_acquire().ok().map(|permit| ReaderPlace { _permit: permit })
    }

    /// Tells a reader what `next` finds, until that is nothing any more or the reader goes.
    pub fn tell<R, F>(self, reader: R, next: impl FnMut(R) -> F + Send + 'static) -> Response
    where
        R: Send + 'static,
        F: Future<Output = Option<(Event, R)>> + Send + 'static,
    {
        let events = stream::unfold(reader, next).map(move |event| {
            let _place = &self;
            Ok::<_, Infallible>(event)
        });
        Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
    }
}

/// Returns where a reader goes on: a browser that comes back says where it was.
pub fn place_of(headers: &HeaderMap, since: Option<String>) -> Result<Option<Cursor>, NoCursor> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    last.or(since).map(|text| text.parse()).transpose()
}
