//! The REST interface: requests decoded, done, answered.

mod buckets;
mod device;
mod document;
mod events;
mod files;
pub mod flow;
mod health;
mod mounts;
mod past;
mod turns;

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post, put};
use axum::{Extension, Json, Router};
use gate_api::bearer::Rights;
use gate_broker::needs;
use serde::de::DeserializeOwned;

use super::body;
use super::buckets::Buckets;
use super::keeper::Keeper;
use super::office::Office;
use super::refusal::{Kind, Refusal};

/// Bytes of a body, at most.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long a body may take to come.
const BODY_MAX: Duration = Duration::from_secs(10);

type Answer<T> = Result<T, Refusal>;

/// Returns what is served beside the broker's own.
pub fn router(office: Office) -> Router {
    let to_look = Router::new()
        .route("/api/v0/locks", get(turns::locks))
        .route("/api/v0/holds", get(turns::holds))
        .route("/api/v0/sessions", get(turns::sessions))
        .route("/api/v0/status", get(turns::status))
        .route("/api/v0/openapi.json", get(document::openapi))
        .route("/_status/identity", get(health::identity));
    let to_order = Router::new()
        .route("/api/v0/locks/{ticket}/break", post(turns::break_lock))
        .route("/api/v0/locks/{ticket}/recall", post(turns::recall));
    let for_all = Router::new()
        .route("/_status/livez", get(health::livez))
        .route("/_status/readyz", get(health::readyz))
        .route("/_status/version", get(health::version));
    let of_broker =
        needs(Rights::Read, to_look).merge(needs(Rights::Admin, to_order)).merge(for_all);
    of_broker
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(office.clone())
        .merge(of_mounts(office.keeper.clone()))
        .merge(of_buckets(office.buckets, office.keeper))
}

/// Returns what is served of the mounts.
fn of_mounts(keeper: Keeper) -> Router {
    let mut to_look = Router::new();
    let mut to_change = Router::new().route("/api/v0/daemon/unmount", post(mounts::unmount_all));
    for slash in ["", "/"] {
        let path = |path: &str| format!("/api/v0/mounts{path}{slash}");
        to_look = to_look
            .route(&path(""), get(mounts::all))
            .route(&path("/events"), get(events::events))
            .route(&path("/{id}"), get(mounts::one));
        to_change = to_change
            .route(&path(""), post(mounts::add))
            .route(&path("/{id}"), patch(mounts::set).delete(mounts::remove))
            .route(&path("/{id}/start"), post(mounts::start))
            .route(&path("/{id}/stop"), post(mounts::stop));
    }
    needs(Rights::Read, to_look)
        .merge(needs(Rights::Admin, to_change))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(keeper)
}

/// Returns what is served of the buckets, and of the device. What is in them is for its owner alone.
fn of_buckets(buckets: Buckets, keeper: Keeper) -> Router {
    let of_device = Router::new()
        .route("/api/v0/device", get(device::state).post(device::make))
        .route("/api/v0/device/unlock", post(device::unlock))
        .route("/api/v0/device/passphrase", put(device::change_passphrase));
    let (mut routes, mut streams) = (of_device, Router::new());
    for slash in ["", "/"] {
        let path = |path: &str| format!("/api/v0/buckets{path}{slash}");
        let one = get(buckets::one).patch(buckets::rename).delete(buckets::delete);
        routes = routes
            .route(&path(""), get(buckets::all).post(buckets::create))
            .route(&path("/{bucket}"), one)
            .route(&path("/{bucket}/fsck"), post(buckets::check))
            .route(&path("/{bucket}/gc"), post(buckets::free))
            .route(&path("/{bucket}/ls"), get(files::list))
            .route(&path("/{bucket}/stat"), get(files::stat))
            .route(&path("/{bucket}/cat"), get(files::cat))
            .route(&path("/{bucket}/mkdir"), post(files::mkdir))
            .route(&path("/{bucket}/mv"), post(files::rename))
            .route(&path("/{bucket}/rm"), post(files::remove))
            .route(&path("/{bucket}/export"), get(files::export))
            .route(&path("/{bucket}/history"), get(past::history))
            .route(&path("/{bucket}/diff"), get(past::diff))
            .route(&path("/{bucket}/restore"), post(past::restore))
            .route(&path("/{bucket}/undo"), post(past::undo));
        // What is sent there is as long as it is.
        streams = streams
            .route(&path("/{bucket}/fs"), post(files::put))
            .route(&path("/{bucket}/import"), post(files::import));
    }
    // Who shows a bucket hears what it is called.
    let bounded = routes.layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).layer(Extension(keeper));
    needs(Rights::Admin, bounded.merge(streams)).with_state(buckets)
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
        let text: &[u8] = if matches!(&*bytes, b"" | b"null") { b"{}" } else { &bytes };
        // By place in an array nothing has a name.
        if text.trim_ascii_start().starts_with(b"[") {
            return Err(invalid("the body is no object".into(), "see the OpenAPI document"));
        }
        let said = serde_json::from_slice(text);
        said.map(Said).map_err(|error| invalid(error.to_string(), "see the OpenAPI document"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        (status, Json(refused(self))).into_response()
    }
}

fn refused(Refusal { kind, message, hint }: Refusal) -> body::Refused {
    body::Refused { code: kind.code().to_owned(), message, hint }
}
