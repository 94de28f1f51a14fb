//! Whether the daemon works, and who it is.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Answer;
use crate::daemon::body::{Health, Identity, Refused, Version};
use crate::daemon::office::{Office, aside};
use crate::standing::Standing;

/// Tells that the process answers.
#[utoipa::path(
    get,
    path = "/_status/livez",
    responses(
        (status = 200, body = Health, description = "It does"),
    ),
)]
pub(super) async fn livez() -> Json<Health> {
    Json(Health { status: "ok".to_owned(), why: None })
}

/// Tells whether turns are granted.
#[utoipa::path(
    get,
    path = "/_status/readyz",
    responses(
        (status = 200, body = Health, description = "They are"),
        (status = 503, body = Health, description = "They are not, and why"),
    ),
)]
pub(super) async fn readyz(State(office): State<Office>) -> (StatusCode, Json<Health>) {
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

/// Who answers.
#[utoipa::path(
    get,
    path = "/_status/identity",
    responses(
        (status = 200, body = Identity, description = "This daemon"),
        (status = 500, body = Refused, description = "The broker did not answer"),
    ),
)]
pub(super) async fn identity(State(office): State<Office>) -> Answer<Json<Identity>> {
    let Standing { pid, state_dir, epoch, .. } = aside(move || office.standing()).await?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let user = rustix::process::geteuid().as_raw();
    Ok(Json(Identity { user, host, pid, state_dir, epoch }))
}

/// Which release it is.
#[utoipa::path(
    get,
    path = "/_status/version",
    responses(
        (status = 200, body = Version, description = "This"),
    ),
)]
pub(super) async fn version() -> Json<Version> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Json(Version { version, arch: std::env::consts::ARCH.to_owned() })
}
