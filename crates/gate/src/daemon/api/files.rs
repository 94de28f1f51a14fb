//! What is in buckets.

use std::os::unix::ffi::OsStrExt as _;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;

use super::{Answer, Said, flow};
use crate::daemon::body::Refused;
use crate::daemon::body::bucket::{
    Changed, Imported, Listed, Move, NewDirectory, OneNode, Removal,
};
use crate::daemon::buckets::Buckets;
use crate::daemon::office::aside;
use crate::query::Asked;

/// What bytes are when nobody says more.
const BYTES: &str = "application/octet-stream";

/// What is in a directory, by name.
#[utoipa::path(
    get,
    path = "/api/v0/buckets/{bucket}/ls",
    params(
        ("bucket" = String, Path, description = "Its name, its id, or the beginning of that"),
        ("path" = Option<String>, Query, description = "Where, from the root on; percent-encoded bytes"),
        ("recursive" = Option<bool>, Query, description = "With all that is beneath"),
        ("at" = Option<String>, Query, description = "In which version: `@`, `~N`, the beginning of its id, or a time by RFC 3339"),
    ),
    responses(
        (status = 200, body = Listed, description = "It; of a file that alone"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket, or nothing is there"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn list(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    asked: Asked,
) -> Answer<Json<Listed>> {
    let is_recursive = asked.text("recursive") == Some("true");
    let listed = move || buckets.list(&bucket, path(&asked), at(&asked), is_recursive);
    aside(listed).await.map(|entries| Json(Listed { entries }))
}

/// One file, directory or symbolic link.
#[utoipa::path(
    get,
    path = "/api/v0/buckets/{bucket}/stat",
    params(
        ("bucket" = String, Path, description = "Its name, its id, or the beginning of that"),
        ("path" = Option<String>, Query, description = "Where, from the root on; percent-encoded bytes"),
        ("at" = Option<String>, Query, description = "In which version: `@`, `~N`, the beginning of its id, or a time by RFC 3339"),
    ),
    responses(
        (status = 200, body = OneNode, description = "It"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket, or nothing is there"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn stat(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    asked: Asked,
) -> Answer<Json<OneNode>> {
    let entry = aside(move || buckets.stat(&bucket, path(&asked), at(&asked))).await?;
    Ok(Json(OneNode { entry }))
}

/// What a file holds.
#[utoipa::path(
    get,
    path = "/api/v0/buckets/{bucket}/cat",
    params(
        ("bucket" = String, Path, description = "Its name, its id, or the beginning of that"),
        ("path" = Option<String>, Query, description = "Where, from the root on; percent-encoded bytes"),
        ("at" = Option<String>, Query, description = "In which version: `@`, `~N`, the beginning of its id, or a time by RFC 3339"),
    ),
    responses(
        (status = 200, content_type = "application/octet-stream", description = "Its bytes; if they cannot all be read, the answer is cut off"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket, or nothing is there"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn cat(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    asked: Asked,
) -> Answer<Response> {
    let mut bytes = aside(move || buckets.open_file(&bucket, path(&asked), at(&asked))).await?;
    Ok(flow::told(BYTES, move |to| std::io::copy(&mut bytes, to).map(drop)))
}

/// Stores the body as a file; one that is there gets a new version.
#[utoipa::path(
    post,
    path = "/api/v0/buckets/{bucket}/fs",
    params(
        ("bucket" = String, Path, description = "Its name, its id, or the beginning of that"),
        ("mount_path" = Option<String>, Query, description = "The directory, which is there: nothing or `/` is the root"),
        ("filename" = String, Query, description = "The name in it"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = Changed, description = "It is stored"),
        (status = 400, body = Refused, description = "There is no such directory, or that is no name"),
        (status = 404, body = Refused, description = "There is no such bucket, or nothing is there"),
        (status = 423, body = Refused, description = "The device is locked"),
        (status = 507, body = Refused, description = "There is no room on the disk"),
    ),
)]
pub(super) async fn put(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    asked: Asked,
    body: Body,
) -> Answer<Json<Changed>> {
    let mut sent = flow::Sent::new(body);
    let put = move || {
        let of = |name| asked.bytes(name).unwrap_or_default();
        buckets.put(&bucket, (of("mount_path"), of("filename")), &mut sent)
    };
    aside(put).await.map(Json)
}

/// Makes a directory.
#[utoipa::path(
    post,
    path = "/api/v0/buckets/{bucket}/mkdir",
    params(
        ("bucket" = String, Path, description = "Its name, its id, or the beginning of that"),
    ),
    request_body = NewDirectory,
    responses(
        (status = 200, body = Changed, description = "It is there"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket, or nothing is there"),
        (status = 409, body = Refused, description = "What is there is against it"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn mkdir(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    Said(NewDirectory { path, parents }): Said<NewDirectory>,
) -> Answer<Json<Changed>> {
    let made = move || buckets.make_directory(&bucket, path.as_os_str().as_bytes(), parents);
    aside(made).await.map(Json)
}

/// Moves something: into a directory that is there, or to a path, in the place of a file that is there.
#[utoipa::path(
    post,
    path = "/api/v0/buckets/{bucket}/mv",
    params(
        ("bucket" = String, Path, description = "Its name, its id, or the beginning of that"),
    ),
    request_body = Move,
    responses(
        (status = 200, body = Changed, description = "It is moved"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket, or nothing is there"),
        (status = 409, body = Refused, description = "What is there is against it"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn rename(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    Said(Move { from, to }): Said<Move>,
) -> Answer<Json<Changed>> {
    let moved = move || {
        let [from, to] = [&from, &to].map(|path| path.as_os_str().as_bytes());
        buckets.move_to(&bucket, from, to)
    };
    aside(moved).await.map(Json)
}

/// Removes something; its versions stay.
#[utoipa::path(
    post,
    path = "/api/v0/buckets/{bucket}/rm",
    params(
        ("bucket" = String, Path, description = "Its name, its id, or the beginning of that"),
    ),
    request_body = Removal,
    responses(
        (status = 200, body = Changed, description = "It is gone"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket, or nothing is there"),
        (status = 409, body = Refused, description = "The directory is not empty"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn remove(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    Said(Removal { path, recursive }): Said<Removal>,
) -> Answer<Json<Changed>> {
    let removed = move || buckets.remove(&bucket, path.as_os_str().as_bytes(), recursive);
    aside(removed).await.map(Json)
}

/// Puts all that is in a tar archive into a directory, which is made if it is missing.
#[utoipa::path(
    post,
    path = "/api/v0/buckets/{bucket}/import",
    params(
        ("bucket" = String, Path, description = "Its name, its id, or the beginning of that"),
        ("path" = Option<String>, Query, description = "Where, from the root on; percent-encoded bytes"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = Imported, description = "All is there"),
        (status = 400, body = Refused, description = "The archive makes no sense; what came before is there"),
        (status = 404, body = Refused, description = "There is no such bucket, or nothing is there"),
        (status = 409, body = Refused, description = "What is there is against it"),
        (status = 423, body = Refused, description = "The device is locked"),
        (status = 507, body = Refused, description = "There is no room on the disk"),
    ),
)]
pub(super) async fn import(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    asked: Asked,
    body: Body,
) -> Answer<Json<Imported>> {
    let mut sent = flow::Sent::new(body);
    aside(move || buckets.import(&bucket, path(&asked), &mut sent)).await.map(Json)
}

/// All that is in a directory, as a tar archive.
#[utoipa::path(
    get,
    path = "/api/v0/buckets/{bucket}/export",
    params(
        ("bucket" = String, Path, description = "Its name, its id, or the beginning of that"),
        ("path" = Option<String>, Query, description = "Where, from the root on; percent-encoded bytes"),
        ("at" = Option<String>, Query, description = "In which version: `@`, `~N`, the beginning of its id, or a time by RFC 3339"),
    ),
    responses(
        (status = 200, content_type = "application/x-tar", description = "It; if not all can be read, the answer is cut off"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such bucket, or nothing is there"),
        (status = 423, body = Refused, description = "The device is locked"),
    ),
)]
pub(super) async fn export(
    State(buckets): State<Buckets>,
    Path(bucket): Path<String>,
    asked: Asked,
) -> Answer<Response> {
    let export = aside(move || buckets.export(&bucket, path(&asked), at(&asked))).await?;
    Ok(flow::told("application/x-tar", move |to| export.write(to)))
}

fn at(asked: &Asked) -> Option<&str> {
    asked.text("at")
}

pub(super) fn path(asked: &Asked) -> &[u8] {
    asked.bytes("path").unwrap_or_default()
}
