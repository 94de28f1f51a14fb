//! What happens, for programs that watch: events as they come, and figures.
//!
//! `GET /v1/events` is a stream of server-sent events. A reader is told page by page, the next when
//! it has taken the last, so a slow one costs one page of memory; what the log gave up meanwhile is
//! told to it as `resync`. An event's id is its cursor, with which a reader goes on where it was.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use gate_api::event;
use gate_api::wire::{Cursor, LogPage, Stretch};
use gate_core::path::ViewPath;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::readers::{ReaderPlace, place_of};
use super::routes::{error, undecided};
use crate::audit::{Filter, Question};
use crate::bounds::EVENT_READERS;
use crate::mail::{Inbox, Mail};
use crate::metrics::MEDIA_TYPE;
use crate::spaces::DEFAULT;

/// Events of one page.
const PAGE_EVENTS: usize = 256;
/// How long the log waits for news before it is asked again.
const NEWS_PATIENCE: Duration = Duration::from_secs(60);
/// How long the figures may take.
const FIGURES_MAX: Duration = Duration::from_secs(5);

/// What to tell of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsRequest {
    /// After this event; without it, from now on.
    since: Option<String>,
    /// At and beneath this path; without it, everything.
    path: Option<String>,
    space: Option<String>,
}

/// `GET /v1/events`
pub(super) async fn events(
    State(inbox): State<Inbox>,
    headers: HeaderMap,
    request: Result<Query<EventsRequest>, QueryRejection>,
) -> Response {
    let Query(request) = match request {
        Ok(request) => request,
        Err(rejection) => return error(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let since = place_of(&headers, request.since);
    let (since, filter) = match (since, filter_of(request.path, request.space)) {
        (Ok(since), Ok(filter)) => (since, filter),
        (Err(why), _) => return error(StatusCode::BAD_REQUEST, &format!("since: {why}")),
        (_, Err(why)) => return error(StatusCode::BAD_REQUEST, &why),
    };
    let Some(place) = ReaderPlace::take() else {
        let why = format!("limit: {EVENT_READERS}");
        return error(StatusCode::TOO_MANY_REQUESTS, &why);
    };
    let ready = VecDeque::new();
    let mut reader = Reader { inbox, filter, place: Cursor::START, ready };
    match since {
        Some(since) => reader.place = since,
        None => match reader.page(Stretch::UpTo(None), 1).await {
            Some(page) => reader.place = page.end,
            None => return undecided(),
        },
    }
    place.tell(reader, Reader::next)
}

/// `GET /metrics`
pub(super) async fn metrics(State(inbox): State<Inbox>) -> Response {
    let (answer, answered) = oneshot::channel();
    inbox.send(Mail::Figures(answer));
    match tokio::time::timeout(FIGURES_MAX, answered).await {
        Ok(Ok(figures)) => ([(header::CONTENT_TYPE, MEDIA_TYPE)], figures.text()).into_response(),
        Ok(Err(_)) | Err(_) => undecided(),
    }
}

fn filter_of(path: Option<String>, space: Option<String>) -> Result<Filter, String> {
    let Some(path) = path else {
        return if space.is_none() {
            Ok(Filter::All)
        } else {
            Err("space: name a path in it; its root is `.`".to_owned())
        };
    };
    let path = ViewPath::parse(path.as_bytes()).map_err(|error| error.to_string())?;
    let space = space.unwrap_or_else(|| DEFAULT.to_owned());
    Ok(Filter::Beneath { space, path })
}

/// Reads text as what follows the `?` of each request that has such a thing. What makes sense means
/// the same when it is told again.
#[cfg(fuzzing)]
pub(crate) fn read_any(text: &str) {
    let Ok(uri) = format!("/?{text}").parse::<axum::http::Uri>() else { return };
    let is_same = |path: &ViewPath| ViewPath::parse(path.as_bytes()).as_ref() == Ok(path);
    if let Ok(Query(EventsRequest { since, path, space })) = Query::try_from_uri(&uri) {
        if let Some(Ok(since)) = since.map(|since| since.parse::<Cursor>()) {
            assert_eq!(since.to_string().parse(), Ok(since));
        }
        if let Ok(Filter::Beneath { path, .. }) = filter_of(path, space) {
            assert!(is_same(&path), "{path}");
        }
    }
    if let Ok(Query(gate_api::v1::StatusRequest { path, .. })) = Query::try_from_uri(&uri) {
        let path = path.and_then(|path| ViewPath::parse(path.as_bytes()).ok());
        assert!(path.as_ref().is_none_or(is_same), "{path:?}");
    }
}

/// Who reads a stream, and how far it has come.
struct Reader {
    inbox: Inbox,
    filter: Filter,
    place: Cursor,
    ready: VecDeque<Event>,
}

impl Reader {
    /// Returns the next event once there is one; `None` if the broker ends.
    async fn next(mut self) -> Option<(Event, Reader)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((event, self));
            }
            let page = self.page(Stretch::After(self.place), PAGE_EVENTS).await?;
            if page.gap {
                let begin = page.begin.to_string();
                self.ready.push_back(Event::default().event("resync").id(&begin).data(begin));
            }
            for entry in &page.entries {
                let told = event::Event::of(entry);
                let text = serde_json::to_string(&told).expect("our own values have string keys");
                let cursor = entry.cursor.to_string();
                self.ready.push_back(Event::default().event(told.event).id(cursor).data(text));
            }
            self.place = page.end;
        }
    }

    async fn page(&self, stretch: Stretch, limit: usize) -> Option<LogPage> {
        let (answer, answered) = oneshot::channel();
        self.inbox.send(Mail::AskLog(Question {
            filter: self.filter.clone(),
            stretch,
            limit,
            until: Instant::now() + NEWS_PATIENCE,
            answer: Box::new(move |page| {
                // The reader may be gone.
                let _ = answer.send(page);
            }),
        }));
        answered.await.ok()
    }
}
