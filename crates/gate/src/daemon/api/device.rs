//! The device that buckets are sealed for.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::{Answer, Said};
use crate::daemon::body::Refused;
use crate::daemon::body::bucket::{Device, Key, OtherKey};
use crate::daemon::buckets::Buckets;
use crate::daemon::office::aside;

/// How the device is.
#[utoipa::path(
    get,
    path = "/api/v0/device",
    responses((status = 200, body = Device, description = "It")),
)]
pub(super) async fn state(State(buckets): State<Buckets>) -> Answer<Json<Device>> {
    aside(move || buckets.device().describe()).await.map(Json)
}

/// Makes the device: keys of its own, that others know it by. With a passphrase nobody opens its buckets without that.
#[utoipa::path(
    post,
    path = "/api/v0/device",
    request_body = Option<Key>,
    responses(
        (status = 201, body = Device, description = "It is made, and open"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 409, body = Refused, description = "There is one"),
        (status = 500, body = Refused, description = "It cannot be written down"),
    ),
)]
pub(super) async fn make(
    State(buckets): State<Buckets>,
    Said(Key { passphrase }): Said<Key>,
) -> Answer<(StatusCode, Json<Device>)> {
    let made = aside(move || buckets.device().make(passphrase)).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Opens the device with its passphrase, until the daemon ends.
#[utoipa::path(
    post,
    path = "/api/v0/device/unlock",
    request_body = Option<Key>,
    responses(
        (status = 200, body = Device, description = "It is open"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 409, body = Refused, description = "There is none"),
        (status = 423, body = Refused, description = "It is another passphrase"),
    ),
)]
pub(super) async fn unlock(
    State(buckets): State<Buckets>,
    Said(Key { passphrase }): Said<Key>,
) -> Answer<Json<Device>> {
    aside(move || buckets.device().unlock(passphrase)).await.map(Json)
}

/// Has another passphrase open the device from now on, or none.
#[utoipa::path(
    put,
    path = "/api/v0/device/passphrase",
    request_body = Option<OtherKey>,
    responses(
        (status = 200, body = Device, description = "So it is"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 409, body = Refused, description = "There is none"),
        (status = 423, body = Refused, description = "The old one is another"),
    ),
)]
pub(super) async fn change_passphrase(
    State(buckets): State<Buckets>,
    Said(OtherKey { old, new }): Said<OtherKey>,
) -> Answer<Json<Device>> {
    aside(move || buckets.device().change_passphrase(old, new)).await.map(Json)
}
