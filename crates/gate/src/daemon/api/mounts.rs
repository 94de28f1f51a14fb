//! The mounts that are kept.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use uuid::Uuid;

use super::{Answer, Said};
use crate::daemon::body::{
    self, All, Deleted, One, Refused, Started, Stop, Stopped, Unmounted, Wanted,
};
use crate::daemon::keeper::Keeper;
use crate::daemon::office::aside;
use crate::daemon::refusal::{Kind, Refusal};

/// All mounts that are kept, the oldest first.
#[utoipa::path(
    get,
    path = "/api/v0/mounts",
    responses(
        (status = 200, body = All, description = "They"),
    ),
)]
pub(super) async fn all(State(keeper): State<Keeper>) -> Json<All> {
    Json(All { mounts: keeper.all() })
}

/// One mount.
#[utoipa::path(
    get,
    path = "/api/v0/mounts/{id}",
    params(("id" = Uuid, Path, description = "Which mount")),
    responses(
        (status = 200, body = One, description = "It"),
        (status = 404, body = Refused, description = "There is no such mount"),
    ),
)]
pub(super) async fn one(State(keeper): State<Keeper>, id: Id) -> Answer<Json<One>> {
    keeper.one(id.0).map(|mount| Json(One { mount }))
}

/// Configures a mount; its mount point is made if it is missing.
#[utoipa::path(
    post,
    path = "/api/v0/mounts",
    request_body = Wanted,
    responses(
        (status = 201, body = One, description = "It is kept"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 409, body = Refused, description = "Another mount has that mount point, or there are too many"),
        (status = 500, body = Refused, description = "It cannot be written down"),
        (status = 507, body = Refused, description = "There is no room on the disk"),
    ),
)]
pub(super) async fn add(
    State(keeper): State<Keeper>,
    Said(wanted): Said<Wanted>,
) -> Answer<(StatusCode, Json<One>)> {
    let mount = aside(move || keeper.add(wanted)).await?;
    Ok((StatusCode::CREATED, Json(One { mount })))
}

/// Changes a mount. What its view was mounted with it keeps until it is mounted anew.
#[utoipa::path(
    patch,
    path = "/api/v0/mounts/{id}",
    params(("id" = Uuid, Path, description = "Which mount")),
    request_body = Wanted,
    responses(
        (status = 200, body = One, description = "It is changed"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such mount"),
        (status = 409, body = Refused, description = "Its state, or somebody, is against it"),
        (status = 500, body = Refused, description = "It was tried, and did not work"),
    ),
)]
pub(super) async fn set(
    State(keeper): State<Keeper>,
    id: Id,
    Said(wanted): Said<Wanted>,
) -> Answer<Json<One>> {
    aside(move || keeper.set(id.0, &wanted)).await.map(|mount| Json(One { mount }))
}

/// Forgets a mount, which is unmounted first.
#[utoipa::path(
    delete,
    path = "/api/v0/mounts/{id}",
    params(("id" = Uuid, Path, description = "Which mount")),
    responses(
        (status = 200, body = Deleted, description = "It is forgotten"),
        (status = 404, body = Refused, description = "There is no such mount"),
        (status = 409, body = Refused, description = "Its state, or somebody, is against it"),
        (status = 500, body = Refused, description = "It was tried, and did not work"),
    ),
)]
pub(super) async fn remove(State(keeper): State<Keeper>, id: Id) -> Answer<Json<Deleted>> {
    aside(move || keeper.remove(id.0)).await.map(|()| Json(Deleted { deleted: true }))
}

/// Mounts it, and waits until it is there.
#[utoipa::path(
    post,
    path = "/api/v0/mounts/{id}/start",
    params(("id" = Uuid, Path, description = "Which mount")),
    responses(
        (status = 200, body = Started, description = "It is mounted"),
        (status = 404, body = Refused, description = "There is no such mount"),
        (status = 409, body = Refused, description = "Its state, or somebody, is against it"),
        (status = 500, body = Refused, description = "It was tried, and did not work"),
    ),
)]
pub(super) async fn start(State(keeper): State<Keeper>, id: Id) -> Answer<Json<Started>> {
    let mount = aside(move || keeper.mount(id.0)).await?;
    let body::Mount { mount_id, status, pid, .. } = mount;
    Ok(Json(Started { started: true, mount_id, status, pid }))
}

/// Unmounts it, and waits until it is gone.
#[utoipa::path(
    post,
    path = "/api/v0/mounts/{id}/stop",
    params(("id" = Uuid, Path, description = "Which mount")),
    request_body = Option<Stop>,
    responses(
        (status = 200, body = Stopped, description = "It is not mounted"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such mount"),
        (status = 409, body = Refused, description = "Its state, or somebody, is against it"),
        (status = 500, body = Refused, description = "It was tried, and did not work"),
    ),
)]
pub(super) async fn stop(
    State(keeper): State<Keeper>,
    id: Id,
    Said(Stop { lazy }): Said<Stop>,
) -> Answer<Json<Stopped>> {
    let (mount, notice) = aside(move || keeper.unmount(id.0, lazy)).await?;
    let body::Mount { mount_id, status, .. } = mount;
    Ok(Json(Stopped { stopped: true, mount_id, status, notice }))
}

/// Unmounts all, and starts none any more: the daemon is to end.
#[utoipa::path(
    post,
    path = "/api/v0/daemon/unmount",
    request_body = Option<Stop>,
    responses(
        (status = 200, body = Unmounted, description = "None is mounted"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 409, body = Refused, description = "Its state, or somebody, is against it"),
        (status = 500, body = Refused, description = "It was tried, and did not work"),
    ),
)]
pub(super) async fn unmount_all(
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

/// The id of a mount in a request's path.
pub(super) struct Id(Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Id, Refusal> {
        let unknown = |_: PathRejection| {
            Refusal::new(Kind::NotFound, "no such mount", "`gate mount list` shows the ids")
        };
        Path::<Uuid>::from_request_parts(parts, state).await.map(|Path(id)| Id(id)).map_err(unknown)
    }
}
