//! What becomes of mounts, as a stream of server-sent events.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use gate_api::wire::Cursor;
use gate_broker::{ReaderPlace, place_of};
use tokio::sync::watch;

use super::Answer;
use crate::daemon::body::{MountEvent, Refused, Since};
use crate::daemon::keeper::Keeper;
use crate::daemon::keeper::events::{Lately, Next};
use crate::daemon::refusal::{Kind, Refusal};

/// Each change of a mount, as a stream of server-sent events.
#[utoipa::path(
    get,
    path = "/api/v0/mounts/events",
    params(Since),
    responses(
        (
            status = 200, body = MountEvent, content_type = "text/event-stream",
            description = "Each with its name as `event`, its place as `id`, and this as data; `resync` where some are gone, \
                           with the place after which it goes on. It goes on after `since`, or the header `Last-Event-ID`",
        ),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 409, body = Refused, description = "There are as many readers as there may be"),
    ),
)]
pub(super) async fn events(
    State(keeper): State<Keeper>,
    headers: HeaderMap,
    query: Result<Query<Since>, QueryRejection>,
) -> Answer<Response> {
    let invalid = |text: String| {
        let hint = "name the `id` of an event as `since`, or nothing";
        Refusal::new(Kind::Invalid, text, hint)
    };
    let Query(Since { since }) = query.map_err(|rejection| invalid(rejection.body_text()))?;
    let since = place_of(&headers, since).map_err(|error| invalid(format!("since: {error}")))?;
    let Some(place) = ReaderPlace::take() else {
        let hint = "end one that nobody needs any more; `gate status --limits` says how many";
        return Err(Refusal::new(Kind::Limit, "there are too many readers of events", hint));
    };
    let news = keeper.events();
    let at = since.unwrap_or_else(|| news.borrow().end());
    Ok(place.tell(Reader { news, at }, Reader::next))
}

/// Who reads, and how far it has come.
struct Reader {
    news: watch::Receiver<Lately>,
    at: Cursor,
}

impl Reader {
    /// Returns the next event once there is one; `None` if the daemon ends.
    async fn next(mut self) -> Option<(Event, Reader)> {
        loop {
            let told = told(&self.news.borrow_and_update(), self.at);
            if let Some((at, event)) = told {
                return Some((event, Reader { at, ..self }));
            }
            self.news.changed().await.ok()?;
        }
    }
}

/// Returns what is told after a place, and the place where that leads.
fn told(lately: &Lately, at: Cursor) -> Option<(Cursor, Event)> {
    match lately.after(at) {
        Next::Event(at, told) => {
            let text = serde_json::to_string(told).expect("our own values have string keys");
            Some((at, Event::default().event(&told.event).id(at.to_string()).data(text)))
        }
        Next::Resync(at) => {
            let place = at.to_string();
            Some((at, Event::default().event("resync").id(&place).data(place)))
        }
        Next::Nothing => None,
    }
}
