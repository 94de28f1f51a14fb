//! The past of buckets.

use std::os::unix::ffi::OsStrExt as _;

use axum::Json;
use axum::extract::{Path, State};

use super::{Answer, Said};
use crate::daemon::body::Refused;
use crate::daemon::body::bucket::{BucketVersions, Changed, Differences, Restoration, Undoing};
use crate::daemon::buckets::{Buckets, Since};
use crate::daemon::office::aside;
use crate::query::Asked;

/// BucketVersions that are told of unless somebody says how many.
const TOLD: usize = 100;

/// What was done, the newest first.
#[utoipa::path(
    get,
    path = "/api/v0/buckets/{bucket}/history",
    params(
        ("bucket" = String, Path, description = "Its name, its id, or the beginning of that"),
        ("path" = Option<String>, Query, description = "Only what was done to this or in it, whatever it was called then"),
        ("after" = Option<String>, Query, description = "Only what is older than this version"),
        ("most" = Option<usize>, Query, description = "At most so many: 100, and 1 000 at most"),
    ),
    responses(
        (status = 200, body = BucketVersions, description = "It"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket, or no such version"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn history(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    asked: Asked,
) -> Answer<Json<BucketVersions>> {
    let told = move || {
        let most = asked.text("most").and_then(|most| most.parse().ok()).unwrap_or(TOLD);
        buckets.history(&bucket, asked.bytes("path"), asked.text("after"), most)
    };
    aside(told).await.map(Json)
}

/// What differs between two versions.
#[utoipa::path(
    get,
    path = "/api/v0/buckets/{bucket}/diff",
    params(
        ("bucket" = String, Path, description = "Its name, its id, or the beginning of that"),
        ("path" = Option<String>, Query, description = "Only what is there or in it, from the root on; percent-encoded bytes"),
        ("from" = Option<String>, Query, description = "From which version on: `~N`, the beginning of its id, or a time by RFC 3339; that before the newest"),
        ("to" = Option<String>, Query, description = "Up to which version; the newest"),
        ("lines" = Option<bool>, Query, description = "With the lines of text files that differ"),
    ),
    responses(
        (status = 200, body = Differences, description = "It, by path"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket or version, or nothing is there in either"),
        (status = 409, body = Refused, description = "Too much differs for one answer"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn diff(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    asked: Asked,
) -> Answer<Json<Differences>> {
    let compared = move || {
        let since = asked.text("from").map_or(Since::BeforeTheLast, Since::Version);
        let versions = (since, asked.text("to"));
        let with_lines = asked.text("lines") == Some("true");
        buckets.diff(&bucket, super::files::path(&asked), versions, with_lines)
    };
    aside(compared).await.map(Json)
}

/// Makes what is at a path as it was in a version, with all in it: as a new version.
#[utoipa::path(
    post,
    path = "/api/v0/buckets/{bucket}/restore",
    params(("bucket" = String, Path, description = "Its name, its id, or the beginning of that")),
    request_body = Restoration,
    responses(
        (status = 200, body = Changed, description = "It is as it was"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket or version, or nothing was there then"),
        (status = 409, body = Refused, description = "What is there is against it"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn restore(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    Said(Restoration { path, at }): Said<Restoration>,
) -> Answer<Json<Changed>> {
    let restored = move || buckets.restore(&bucket, path.as_os_str().as_bytes(), &at);
    aside(restored).await.map(Json)
}

/// Takes back what was done that led to a version, unless something later changed the same.
#[utoipa::path(
    post,
    path = "/api/v0/buckets/{bucket}/undo",
    params(("bucket" = String, Path, description = "Its name, its id, or the beginning of that")),
    request_body = Option<Undoing>,
    responses(
        (status = 200, body = Changed, description = "It is taken back"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket or version"),
        (status = 409, body = Refused, description = "Something later changed the same"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn undo(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    Said(Undoing { version }): Said<Undoing>,
) -> Answer<Json<Changed>> {
    aside(move || buckets.undo(&bucket, version.as_deref())).await.map(Json)
}
