//! The REST interface: requests decoded, done, answered.

use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use gate_api::bearer::Rights;
use gate_broker::needs;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::body::{
    self, At, Deleted, Health, Identity, One, Order, Ordered, Started, Stop, Stopped, Unmounted,
    Version, Wanted,
};
use super::keeper::Keeper;
use super::office::{self, Office};
use super::refusal::{Kind, Refusal};
use crate::board::Board;
use crate::standing::Standing;

/// Bytes of a body, at most.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a body may take to come.
const BODY_MAX: Duration = Duration::from_secs(10);

type Answer<T> = Result<T, Refusal>;

/// Returns what is served beside the broker's own.
pub fn router(office: Office) -> Router {
    let to_look = Router::new()
        .route("/api/v0/locks", get(locks))
        .route("/api/v0/holds", get(holds))
        .route("/api/v0/sessions", get(sessions))
        .route("/api/v0/status", get(status))
        .route("/_status/identity", get(identity));
    let to_order = Router::new()
        .route("/api/v0/locks/{ticket}/break", post(break_lock))
        .route("/api/v0/locks/{ticket}/recall", post(recall));
    let for_all = Router::new()
        .route("/_status/livez", get(livez))
        .route("/_status/readyz", get(readyz))
        .route("/_status/version", get(version));
    let of_broker =
        needs(Rights::Read, to_look).merge(needs(Rights::Admin, to_order)).merge(for_all);
    of_broker
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(office.clone())
        .merge(mounts(office.keeper))
}

/// Returns what is served of the mounts.
fn mounts(keeper: Keeper) -> Router {
    let mut to_look = Router::new();
    let mut to_change = Router::new();
    for slash in ["", "/"] {
        let path = |path: &str| format!("/api/v0/mounts{path}{slash}");
        to_look = to_look.route(&path(""), get(all)).route(&path("/{id}"), get(one));
        to_change = to_change
            .route(&path(""), post(add))
            .route(&path("/{id}"), axum::routing::patch(set).delete(remove))
            .route(&path("/{id}/start"), post(start))
            .route(&path("/{id}/stop"), post(stop));
    }
    to_change = to_change.route("/api/v0/daemon/unmount", post(unmount_all));
    needs(Rights::Read, to_look)
        .merge(needs(Rights::Admin, to_change))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(keeper)
}

async fn all(State(keeper): State<Keeper>) -> Json<body::All> {
    Json(body::All { mounts: keeper.all() })
}

async fn one(State(keeper): State<Keeper>, id: Id) -> Answer<Json<One>> {
    keeper.one(id.0).map(|mount| Json(One { mount }))
}

async fn add(
    State(keeper): State<Keeper>,
    Said(wanted): Said<Wanted>,
) -> Answer<(StatusCode, Json<One>)> {
    let mount = aside(move || keeper.add(wanted)).await?;
    Ok((StatusCode::CREATED, Json(One { mount })))
}

async fn set(
    State(keeper): State<Keeper>,
    id: Id,
    Said(wanted): Said<Wanted>,
) -> Answer<Json<One>> {
    aside(move || keeper.set(id.0, &wanted)).await.map(|mount| Json(One { mount }))
}

async fn remove(State(keeper): State<Keeper>, id: Id) -> Answer<Json<Deleted>> {
    aside(move || keeper.remove(id.0)).await.map(|()| Json(Deleted { deleted: true }))
}

async fn start(State(keeper): State<Keeper>, id: Id) -> Answer<Json<Started>> {
    let mount = aside(move || keeper.mount(id.0)).await?;
    let body::Mount { mount_id, status, pid, .. } = mount;
    Ok(Json(Started { started: true, mount_id, status, pid }))
}

async fn stop(
    State(keeper): State<Keeper>,
    id: Id,
    Said(Stop { lazy }): Said<Stop>,
) -> Answer<Json<Stopped>> {
    let (mount, notice) = aside(move || keeper.unmount(id.0, lazy)).await?;
    let body::Mount { mount_id, status, .. } = mount;
    Ok(Json(Stopped { stopped: true, mount_id, status, notice }))
}

async fn locks(
    State(office): State<Office>,
    query: Result<Query<At>, QueryRejection>,
) -> Answer<Json<Board>> {
    let Query(At { space, path }) = query.map_err(|rejection| {
        Refusal::new(Kind::Invalid, rejection.body_text(), "ask with `space` and `path`")
    })?;
    let scope = office::scope(space, path)?;
    aside(move || office.locks(&scope)).await.map(Json)
}

async fn holds(State(office): State<Office>) -> Answer<Json<Value>> {
    let holds = aside(move || office.holds()).await?;
    Ok(Json(json!({"holds": holds})))
}

async fn sessions(State(office): State<Office>) -> Answer<Json<body::Sessions>> {
    aside(move || office.sessions()).await.map(|sessions| Json(body::Sessions { sessions }))
}

async fn status(State(office): State<Office>) -> Answer<Json<Value>> {
    let broker = aside({
        let office = office.clone();
        move || office.standing()
    });
    let broker = broker.await?;
    Ok(Json(json!({"version": 1, "broker": broker, "mounts": office.keeper.counts()})))
}

async fn break_lock(
    State(office): State<Office>,
    Path(ticket): Path<u64>,
    Said(order): Said<Order>,
) -> Answer<Json<Ordered>> {
    if order.within_ms.is_some() {
        let hint = "ask its holder to let go: …/recall";
        return Err(Refusal::new(Kind::Invalid, "a lock is broken at once", hint));
    }
    aside(move || office.break_lock(ticket, &order.reason)).await?;
    Ok(Json(Ordered { ticket }))
}

async fn recall(
    State(office): State<Office>,
    Path(ticket): Path<u64>,
    Said(Order { reason, within_ms }): Said<Order>,
) -> Answer<Json<Ordered>> {
    aside(move || office.recall(ticket, &reason, within_ms)).await?;
    Ok(Json(Ordered { ticket }))
}

/// Tells that the process answers.
async fn livez() -> Json<Health> {
    Json(Health { status: "ok".to_owned(), why: None })
}

/// Tells whether turns are granted.
async fn readyz(State(office): State<Office>) -> (StatusCode, Json<Health>) {
    let why = match aside(move || office.standing()).await {
        Ok(standing) => standing.halt.map(|halt| halt.why),
        Err(refusal) => Some(refusal.message),
    };
    let (status, word) = match why {
        None => (StatusCode::OK, "ok"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    (status, Json(Health { status: word.to_owned(), why }))
}

async fn identity(State(office): State<Office>) -> Answer<Json<Identity>> {
    let Standing { pid, state_dir, epoch, .. } = aside(move || office.standing()).await?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let user = rustix::process::geteuid().as_raw();
    Ok(Json(Identity { user, host, pid, state_dir, epoch }))
}

async fn version() -> Json<Version> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Json(Version { version, arch: std::env::consts::ARCH.to_owned() })
}

/// Unmounts all, before the daemon ends.
async fn unmount_all(
    State(keeper): State<Keeper>,
    Said(Stop { lazy }): Said<Stop>,
) -> Answer<Json<Unmounted>> {
    let all = move || keeper.unmount_all(lazy).map_err(|refusals| several(&refusals));
    aside(all).await.map(|notices| Json(Unmounted { notices }))
}

/// Says of several refusals what the first says, and how many there are.
fn several(refusals: &[Refusal]) -> Refusal {
    let Some(first) = refusals.first() else {
        return Refusal::new(Kind::Failed, "it did not work", "try again");
    };
    match refusals.len() {
        1 => first.clone(),
        count => {
            let message = format!("{} (and {} more)", first.message, count - 1);
            Refusal { message, ..first.clone() }
        }
    }
}

/// Does what may wait on a thread of its own.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Answer<T> + Send + 'static) -> Answer<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        Err(Refusal::new(Kind::Failed, "the daemon failed at it", "its log says why"))
    })
}

/// The id of a mount in a request's path.
struct Id(Uuid);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Id, Refusal> {
        let unknown = |_: PathRejection| {
            Refusal::new(Kind::NotFound, "no such mount", "`gate mount list` shows the ids")
        };
        Path::<Uuid>::from_request_parts(parts, state).await.map(|Path(id)| Id(id)).map_err(unknown)
    }
}

/// A body that came in time and makes sense; none is as good as an empty one.
struct Said<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Said<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Said<T>, Refusal> {
        let bytes = axum::body::Bytes::from_request(request, state);
        let invalid = |text: String, hint| Refusal::new(Kind::Invalid, text, hint);
        let Ok(bytes) = tokio::time::timeout(BODY_MAX, bytes).await else {
            return Err(invalid("the body did not come in time".into(), "send it at once"));
        };
        let bytes = bytes
            .map_err(|rejection| invalid(rejection.body_text(), "send less than 64 KiB of JSON"))?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let said = serde_json::from_slice(text);
        said.map(Said).map_err(|error| invalid(error.to_string(), "see the OpenAPI document"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.kind {
            Kind::Invalid | Kind::NoSuchBucket => StatusCode::BAD_REQUEST,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Taken | Kind::State | Kind::Busy | Kind::Limit => StatusCode::CONFLICT,
            Kind::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
            Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let Refusal { kind, message, hint } = self;
        (status, Json(body::Refused { code: kind.code().to_owned(), message, hint }))
            .into_response()
    }
}
