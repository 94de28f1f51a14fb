//! Requests of the stateless interface: decode, call, answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use gate_api::bearer::Rights;
use gate_api::v1;
use gate_core::lock::event::Refusal;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::guard::{Policy, guarded, needs};
use crate::mail::{Inbox, Mail};
use crate::stateless::{Call, Outcome, RequestId};

/// How long a decision may take that waits for nobody.
const ANSWER_MAX: Duration = Duration::from_secs(5);

pub(super) fn router(inbox: Inbox, policy: Policy) -> Router {
    // What else is asked of a session of frames, the deciding thread asks.
    let to_look = Router::new()
        .route("/v1/locks/status", get(status))
        .route("/v1/events", get(super::watch::events))
        .route("/metrics", get(super::watch::metrics))
        .route("/gate/frames", get(super::upgrade::frames));
    let to_lock = Router::new()
        .route("/v1/locks/acquire", post(acquire))
        .route("/v1/locks/release", post(release))
        .route("/v1/locks/heartbeat", post(heartbeat));
    let to_order =
        Router::new().route("/v1/locks/recall", post(recall)).route("/v1/locks/break", post(end));
    let routes = needs(Rights::Read, to_look)
        .merge(needs(Rights::Lock, to_lock))
        .merge(needs(Rights::Admin, to_order))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "no such resource") })
        .layer(DefaultBodyLimit::max(v1::BODY_BYTES_MAX));
    guarded(routes, policy).with_state(inbox)
}

async fn acquire(State(inbox): State<Inbox>, body: Result<Bytes, BytesRejection>) -> Response {
    let body: v1::AcquireRequest = match parse(body) {
        Ok(body) => body,
        Err((status, why)) => return error(status, &why),
    };
    let patience = body.timeout_ms.map(Duration::from_millis);
    let mut waiting = Waiting::begin(inbox, body);
    let outcome = match patience {
        None => waiting.outcome().await,
        Some(patience) => match waiting.outcome_within(patience).await {
            Some(outcome) => outcome,
            // Whatever is decided later was not heard of, and is undone.
            None => return undecided(),
        },
    };
    waiting.heard = true;
    respond(outcome)
}

async fn release(State(inbox): State<Inbox>, body: Result<Bytes, BytesRejection>) -> Response {
    match parse(body) {
        Ok(body) => ask(&inbox, |answer| Call::Release { body, answer }).await,
        Err((status, why)) => error(status, &why),
    }
}

async fn heartbeat(State(inbox): State<Inbox>, body: Result<Bytes, BytesRejection>) -> Response {
    match parse(body) {
        Ok(body) => ask(&inbox, |answer| Call::Heartbeat { body, answer }).await,
        Err((status, why)) => error(status, &why),
    }
}

async fn recall(State(inbox): State<Inbox>, body: Result<Bytes, BytesRejection>) -> Response {
    match parse(body) {
        Ok(body) => ask(&inbox, |answer| Call::Recall { body, answer }).await,
        Err((status, why)) => error(status, &why),
    }
}

async fn end(State(inbox): State<Inbox>, body: Result<Bytes, BytesRejection>) -> Response {
    match parse(body) {
        Ok(body) => ask(&inbox, |answer| Call::Break { body, answer }).await,
        Err((status, why)) => error(status, &why),
    }
}

async fn status(
    State(inbox): State<Inbox>,
    query: Result<Query<v1::StatusRequest>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(body)) => ask(&inbox, |answer| Call::Status { body, answer }).await,
        Err(rejection) => error(StatusCode::BAD_REQUEST, &rejection.body_text()),
    }
}

async fn ask(inbox: &Inbox, call: impl FnOnce(oneshot::Sender<Outcome>) -> Call) -> Response {
    let (answer, answered) = oneshot::channel();
    inbox.send(Mail::Stateless(call(answer)));
    match tokio::time::timeout(ANSWER_MAX, answered).await {
        Ok(outcome) => respond(outcome.ok()),
        Err(_) => undecided(),
    }
}

pub(super) fn undecided() -> Response {
    let why =
        "nothing can be decided now: the journal cannot be written, or the broker is overloaded";
    error(StatusCode::SERVICE_UNAVAILABLE, why)
}

/// A request for a lock. Dropped before its answer was heard, its client is gone: it leaves the
/// line, and lets go of what it was given and did not hear of.
struct Waiting {
    inbox: Inbox,
    request: RequestId,
    answered: oneshot::Receiver<Outcome>,
    heard: bool,
}

impl Waiting {
    fn begin(inbox: Inbox, body: v1::AcquireRequest) -> Waiting {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let request = NEXT.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        inbox.send(Mail::Stateless(Call::Acquire { request, body, answer }));
        Waiting { inbox, request, answered, heard: false }
    }

    /// Waits for the answer; `None` if the broker ends.
    async fn outcome(&mut self) -> Option<Outcome> {
        (&mut self.answered).await.ok()
    }

    /// Waits for a lock as long as its client is willing to; `None` if nothing is decided then.
    async fn outcome_within(&mut self, patience: Duration) -> Option<Option<Outcome>> {
        if !patience.is_zero() {
            if let Ok(outcome) = tokio::time::timeout(patience, self.outcome()).await {
                return Some(outcome);
            }
            self.give_up();
        }
        tokio::time::timeout(ANSWER_MAX, self.outcome()).await.ok()
    }

    fn give_up(&self) {
        self.inbox.send(Mail::Stateless(Call::GiveUp { request: self.request }));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.heard {
            return;
        }
        self.answered.close();
        let call = match self.answered.try_recv() {
            Ok(Outcome::Granted(lock)) => {
                let body = v1::ReleaseRequest { lock_id: lock.lock_id, owner: lock.owner };
                Call::Release { body, answer: oneshot::channel().0 }
            }
            _ => Call::Abandon { request: self.request },
        };
        self.inbox.send(Mail::Stateless(call));
    }
}

/// Why a body is no request.
type Nonsense = (StatusCode, String);

fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Nonsense> {
    let body = body.map_err(|rejection| (rejection.status(), rejection.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

fn respond(outcome: Option<Outcome>) -> Response {
    match outcome {
        Some(Outcome::Granted(lock)) => {
            let (status, lock) = ("granted".to_owned(), *lock);
            Json(v1::GrantedAnswer { status, lock }).into_response()
        }
        Some(Outcome::Released) => word(StatusCode::OK, "released"),
        Some(Outcome::Renewed) => word(StatusCode::OK, "ok"),
        Some(Outcome::Recalled) => word(StatusCode::OK, "recalled"),
        Some(Outcome::Broken) => word(StatusCode::OK, "broken"),
        Some(Outcome::Board(board)) => Json(board).into_response(),
        Some(Outcome::Refused(refusal)) => refuse(refusal),
        Some(Outcome::WrongOwner) => error(StatusCode::FORBIDDEN, "the lock is another owner's"),
        Some(Outcome::Unknown) => error(StatusCode::NOT_FOUND, "no such lock"),
        Some(Outcome::Nonsense(why)) => error(StatusCode::BAD_REQUEST, &why),
        None => error(StatusCode::SERVICE_UNAVAILABLE, "the broker is ending"),
    }
}

fn refuse(refusal: Refusal) -> Response {
    match refusal {
        Refusal::TimedOut | Refusal::WouldBlock => word(StatusCode::REQUEST_TIMEOUT, "timeout"),
        Refusal::Deadlock => error(StatusCode::CONFLICT, "deadlock"),
        Refusal::OwnerBusy => error(StatusCode::CONFLICT, "the owner waits for this path already"),
        Refusal::Broken => error(StatusCode::CONFLICT, "broken"),
        Refusal::Interrupted => error(StatusCode::CONFLICT, "the request was ended"),
        Refusal::Limit(limit) => error(StatusCode::TOO_MANY_REQUESTS, &format!("limit: {limit}")),
        Refusal::Unknown => error(StatusCode::NOT_FOUND, "no such lock"),
    }
}

fn word(status: StatusCode, word: &str) -> Response {
    (status, Json(v1::StatusAnswer { status: word.to_owned() })).into_response()
}

pub(super) fn error(status: StatusCode, why: &str) -> Response {
    (status, Json(v1::ErrorAnswer { error: why.to_owned() })).into_response()
}
