//! The buckets of this device.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};

use super::{Answer, Said, flow};
use crate::daemon::body::bucket::{AllBuckets, Check, Checked, Freed, Freeing, Named, OneBucket};
use crate::daemon::body::{Deleted, Refused};
use crate::daemon::buckets::Buckets;
use crate::daemon::keeper::Keeper;
use crate::daemon::office::aside;
use crate::daemon::refusal::Refusal;

/// All buckets, by name.
#[utoipa::path(
    get,
    path = "/api/v0/buckets",
    responses(
        (status = 200, body = AllBuckets, description = "They"),
        (status = 500, body = Refused, description = "The disk does not say"),
    ),
)]
pub(super) async fn all(State(buckets): State<Buckets>) -> Answer<Json<AllBuckets>> {
    aside(move || buckets.all()).await.map(|buckets| Json(AllBuckets { buckets }))
}

/// One bucket.
#[utoipa::path(
    get,
    path = "/api/v0/buckets/{bucket}",
    params(("bucket" = String, Path, description = "Its name, its id, or the beginning of that")),
    responses(
        (status = 200, body = OneBucket, description = "It"),
        (status = 400, body = Refused, description = "Several begin so"),
        (status = 404, body = Refused, description = "There is no such bucket"),
    ),
)]
pub(super) async fn one(
    State(buckets): State<Buckets>,
    Path(words): Path<String>,
) -> Answer<Json<OneBucket>> {
    let bucket = aside(move || buckets.one(&words)).await?;
    Ok(Json(OneBucket { bucket, device_made: false }))
}

/// Makes a bucket, and the device where there is none yet.
#[utoipa::path(
    post,
    path = "/api/v0/buckets",
    request_body = Named,
    responses(
        (status = 201, body = OneBucket, description = "It is made"),
        (status = 400, body = Refused, description = "That is no name for a bucket"),
        (status = 409, body = Refused, description = "Another has that name, or there are too many"),
        (status = 423, body = Refused, description = "The device is locked"),
        (status = 500, body = Refused, description = "It cannot be written down"),
        (status = 507, body = Refused, description = "There is no room on the disk"),
    ),
)]
pub(super) async fn create(
    State(buckets): State<Buckets>,
    Said(Named { name }): Said<Named>,
) -> Answer<(StatusCode, Json<OneBucket>)> {
    let (bucket, device_made) = aside(move || buckets.create(&name)).await?;
    Ok((StatusCode::CREATED, Json(OneBucket { bucket, device_made })))
}

/// Gives a bucket another name, on this device alone.
#[utoipa::path(
    patch,
    path = "/api/v0/buckets/{bucket}",
    params(("bucket" = String, Path, description = "Its name, its id, or the beginning of that")),
    request_body = Named,
    responses(
        (status = 200, body = OneBucket, description = "So it is called"),
        (status = 400, body = Refused, description = "That is no name for a bucket"),
        (status = 404, body = Refused, description = "There is no such bucket"),
        (status = 409, body = Refused, description = "Another has that name"),
    ),
)]
pub(super) async fn rename(
    State(buckets): State<Buckets>,
    Extension(keeper): Extension<Keeper>,
    Path(words): Path<String>,
    Said(Named { name }): Said<Named>,
) -> Answer<Json<OneBucket>> {
    let rename = move || {
        let bucket = buckets.rename(&words, &name)?;
        keeper.renamed(bucket.bucket_id, &bucket.name)?;
        Ok::<_, Refusal>(bucket)
    };
    let bucket = aside(rename).await?;
    Ok(Json(OneBucket { bucket, device_made: false }))
}

/// Deletes a bucket from this device, with all of its versions.
#[utoipa::path(
    delete,
    path = "/api/v0/buckets/{bucket}",
    params(("bucket" = String, Path, description = "Its name, its id, or the beginning of that")),
    responses(
        (status = 200, body = Deleted, description = "It is gone"),
        (status = 400, body = Refused, description = "Several begin so"),
        (status = 404, body = Refused, description = "There is no such bucket"),
        (status = 409, body = Refused, description = "It is used"),
    ),
)]
pub(super) async fn delete(
    State(buckets): State<Buckets>,
    Path(words): Path<String>,
) -> Answer<Json<Deleted>> {
    aside(move || buckets.delete(&words)).await.map(|()| Json(Deleted { deleted: true }))
}

/// Checks a bucket, and puts its index right where that is wrong.
#[utoipa::path(
    post,
    path = "/api/v0/buckets/{bucket}/fsck",
    params(("bucket" = String, Path, description = "Its name, its id, or the beginning of that")),
    request_body = Option<Check>,
    responses(
        (
            status = 200, body = Checked, content_type = "application/x-ndjson",
            description = "Lines: `{\"progress\": …}` for each pack, then `{\"done\": …}` with this, or `{\"refused\": …}`",
        ),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn check(
    State(buckets): State<Buckets>,
    Path(words): Path<String>,
    Said(Check { read_data }): Said<Check>,
) -> Answer<Response> {
    let (opened, named) = (buckets.clone(), words.clone());
    aside(move || opened.get(&named).map(drop)).await?;
    Ok(flow::lines(move |progress| buckets.check(&words, read_data, progress)))
}

/// Frees what no version of a bucket needs that is kept; what is younger than a day stays.
#[utoipa::path(
    post,
    path = "/api/v0/buckets/{bucket}/gc",
    params(("bucket" = String, Path, description = "Its name, its id, or the beginning of that")),
    request_body = Option<Freeing>,
    responses(
        (
            status = 200, body = Freed, content_type = "application/x-ndjson",
            description = "Lines: `{\"progress\": …}` for each pack, then `{\"done\": …}` with this, or `{\"refused\": …}`",
        ),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket, or no such version"),
        (status = 409, body = Refused, description = "That version was given up"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn free(
    State(buckets): State<Buckets>,
    Path(words): Path<String>,
    Said(Freeing { keep_from }): Said<Freeing>,
) -> Answer<Response> {
    let (opened, named) = (buckets.clone(), words.clone());
    aside(move || opened.forget(&named, keep_from.as_deref())).await?;
    Ok(flow::lines(move |progress| buckets.free(&words, progress)))
}
