//! Requests of the stateless interface: decode, call, answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use gate_api::bearer::Rights;
use gate_api::v1;
use gate_core::id::Ticket;
use gate_core::lock::event::{Refusal, Standstill};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::guard::{Guard, Policy, guarded, needs};
use super::sign_in;
use crate::mail::{Inbox, Mail};
use crate::stateless::{Call, Outcome, RequestId};

/// How long a decision may take that waits for nobody.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a body may take to come.
const BODY_MAX: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// Lines of a board.
const BOARD_LINES_MAX: usize = 16_384;

pub(super) fn router(inbox: Inbox, policy: Policy, more: Router) -> Router {
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
    // What else is served here has pages; where people sign in is one of them.
    let guard = Arc::new(Guard::new(policy, more.has_routes()));
    let more = if more.has_routes() { more.merge(sign_in::router(guard.clone())) } else { more };
    let routes = needs(Rights::Read, to_look)
        .merge(needs(Rights::Lock, to_lock))
        .merge(needs(Rights::Admin, to_order))
        .with_state(inbox)
        .merge(more)
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "this resource has another method: see Allow")
        })
        .fallback(|| async { error(StatusCode::NOT_FOUND, "no such resource") })
        .layer(DefaultBodyLimit::max(v1::BODY_BYTES_MAX));
    guarded(routes, guard)
}

async fn acquire(State(inbox): State<Inbox>, Said(body): Said<v1::AcquireRequest>) -> Response {
    let patience = body.timeout_ms.map(Duration::from_millis);
    let mut waiting = Waiting::begin(inbox, body);
    let told = match patience {
        None => waiting.outcome().await,
        Some(patience) => waiting.outcome_within(patience).await,
    };
    // What is decided after that was not heard of, and is undone.
    waiting.heard = !matches!(told, Told::Undecided);
    respond(told)
}

async fn release(State(inbox): State<Inbox>, Said(body): Said<v1::ReleaseRequest>) -> Response {
    respond(ask(&inbox, |answer| Call::Release { body, answer }).await)
}

async fn heartbeat(State(inbox): State<Inbox>, Said(body): Said<v1::HeartbeatRequest>) -> Response {
    respond(ask(&inbox, |answer| Call::Heartbeat { body, answer }).await)
}

async fn recall(State(inbox): State<Inbox>, Said(body): Said<v1::RecallRequest>) -> Response {
    respond(ask(&inbox, |answer| Call::Recall { body, answer }).await)
}

async fn end(State(inbox): State<Inbox>, Said(body): Said<v1::BreakRequest>) -> Response {
    respond(ask(&inbox, |answer| Call::Break { body, answer }).await)
}

/// Asks page by page, so that a long board holds nobody up who takes a lock.
async fn status(
    State(inbox): State<Inbox>,
    query: Result<Query<v1::StatusRequest>, QueryRejection>,
) -> Response {
    let Query(wanted) = match query {
        Ok(wanted) => wanted,
        Err(rejection) => return error(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let mut all = v1::BoardAnswer { locks: Vec::new(), queue: Vec::new() };
    let mut after = Ticket(0);
    while all.locks.len() + all.queue.len() < BOARD_LINES_MAX {
        let body = wanted.clone();
        let (page, more) = match ask(&inbox, |answer| Call::Status { body, after, answer }).await {
            Told::Outcome(Outcome::Board(page, more)) => (page, more),
            told => return respond(told),
        };
        all.locks.extend(page.locks);
        all.queue.extend(page.queue);
        match more {
            Some(last) => after = last,
            None => break,
        }
    }
    Json(all).into_response()
}

/// What becomes of a question.
enum Told {
    Outcome(Outcome),
    /// Nothing is decided in time.
    Undecided,
    /// The broker ends.
    Ending,
}

async fn ask(inbox: &Inbox, call: impl FnOnce(oneshot::Sender<Outcome>) -> Call) -> Told {
    let (answer, answered) = oneshot::channel();
    inbox.send(Mail::Stateless(call(answer)));
    match tokio::time::timeout(ANSWER_MAX, answered).await {
        Ok(Ok(outcome)) => Told::Outcome(outcome),
        Ok(Err(_)) => Told::Ending,
        Err(_) => Told::Undecided,
    }
}

pub(super) fn undecided() -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "nothing can be decided now: the broker is overloaded")
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

    async fn outcome(&mut self) -> Told {
        (&mut self.answered).await.map_or(Told::Ending, Told::Outcome)
    }

    /// Waits for a lock as long as its client is willing to.
    async fn outcome_within(&mut self, patience: Duration) -> Told {
        if !patience.is_zero() {
            if let Ok(told) = tokio::time::timeout(patience, self.outcome()).await {
                return told;
            }
            self.give_up();
        }
        tokio::time::timeout(ANSWER_MAX, self.outcome()).await.unwrap_or(Told::Undecided)
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

/// A body that came in time and makes sense.
struct Said<T>(T);

impl<T: DeserializeOwned> FromRequest<Inbox> for Said<T> {
    type Rejection = Response;

    async fn from_request(request: Request, inbox: &Inbox) -> Result<Said<T>, Response> {
        let body = tokio::time::timeout(BODY_MAX, Bytes::from_request(request, inbox)).await;
        // Not 408, which says that a lock was not to be had.
        let body = body.map_err(|_| error(StatusCode::BAD_REQUEST, "the body comes too slowly"))?;
        let body = body.map_err(|rejection| match rejection.status() {
            status @ StatusCode::PAYLOAD_TOO_LARGE => {
                error(status, &format!("the body has more than {} bytes", v1::BODY_BYTES_MAX))
            }
            status => error(status, &rejection.body_text()),
        })?;
        let said = serde_json::from_slice(&body);
        said.map(Said).map_err(|nonsense| error(StatusCode::BAD_REQUEST, &nonsense.to_string()))
    }
}

fn respond(told: Told) -> Response {
    let outcome = match told {
        Told::Outcome(outcome) => outcome,
        Told::Undecided => return undecided(),
        Told::Ending => return error(StatusCode::SERVICE_UNAVAILABLE, "the broker is ending"),
    };
    match outcome {
        Outcome::Granted(lock) => {
            let (status, lock) = ("granted".to_owned(), *lock);
            Json(v1::GrantedAnswer { status, lock }).into_response()
        }
        Outcome::Released => word(StatusCode::OK, "released"),
        Outcome::Renewed => word(StatusCode::OK, "ok"),
        Outcome::Recalled => word(StatusCode::OK, "recalled"),
        Outcome::Broken => word(StatusCode::OK, "broken"),
        Outcome::Board(board, _) => Json(board).into_response(),
        Outcome::Refused(refusal) => refuse(refusal),
        Outcome::WrongOwner => error(StatusCode::FORBIDDEN, "the lock is another owner's"),
        Outcome::Unknown => error(StatusCode::NOT_FOUND, "no such lock"),
        Outcome::Nonsense(why) => error(StatusCode::BAD_REQUEST, &why),
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
        Refusal::Standstill(Standstill::NoRoom) => {
            let why = "no room: nothing is granted until there is some on the disk of the broker's \
                       state directory";
            error(StatusCode::INSUFFICIENT_STORAGE, why)
        }
        Refusal::Standstill(Standstill::Fault) => {
            let why = "the journal cannot be written, and nothing is granted until it can: the \
                       broker's log says why";
            error(StatusCode::SERVICE_UNAVAILABLE, why)
        }
    }
}

fn word(status: StatusCode, word: &str) -> Response {
    (status, Json(v1::StatusAnswer { status: word.to_owned() })).into_response()
}

pub(super) fn error(status: StatusCode, why: &str) -> Response {
    let code = status.canonical_reason().unwrap_or("error").to_lowercase().replace(' ', "_");
    let (error, message) = (why.to_owned(), why.to_owned());
    let hint = match status {
        StatusCode::UNAUTHORIZED => "show one: `Authorization: Bearer TOKEN`",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "try again later",
        _ => "docs/clients.md has what may be asked",
    };
    (status, Json(v1::ErrorAnswer { error, code, message, hint: hint.to_owned() })).into_response()
}
