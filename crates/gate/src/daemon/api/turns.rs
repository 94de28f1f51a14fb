//! Who holds, who waits, which clients there are, and how the broker is.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Said};
use crate::board::{Board, Row};
use crate::daemon::body::{self, At, Order, Ordered, Refused};
use crate::daemon::office::{self, Office, aside};
use crate::daemon::refusal::{Kind, Refusal};
use crate::standing::Standing;

/// The version of [`Report`].
const REPORT_VERSION: u32 = 1;

/// What commands hold.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Holds {
    holds: Vec<Row>,
}

/// How all is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Report {
    version: u32,
    broker: Standing,
    /// How many there are, by status.
    mounts: BTreeMap<&'static str, usize>,
}

/// Who holds and who waits, everywhere or in one place.
#[utoipa::path(
    get,
    path = "/api/v0/locks",
    params(At),
    responses(
        (status = 200, body = Board, description = "Oldest first"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "There is no such place"),
        (status = 500, body = Refused, description = "The broker did not answer"),
    ),
)]
pub(super) async fn locks(
    State(office): State<Office>,
    query: Result<Query<At>, QueryRejection>,
) -> Answer<Json<Board>> {
    let Query(At { space, path }) = query.map_err(|rejection| {
        Refusal::new(Kind::Invalid, rejection.body_text(), "ask with `space` and `path`")
    })?;
    aside(move || office.locks(&office::scope(space, path)?)).await.map(Json)
}

/// What commands hold, as those of `gate hold`, or wait to.
#[utoipa::path(
    get,
    path = "/api/v0/holds",
    responses(
        (status = 200, body = Holds, description = "Oldest first"),
        (status = 500, body = Refused, description = "The broker did not answer"),
    ),
)]
pub(super) async fn holds(State(office): State<Office>) -> Answer<Json<Holds>> {
    aside(move || office.holds()).await.map(|holds| Json(Holds { holds }))
}

/// The clients of the broker.
#[utoipa::path(
    get,
    path = "/api/v0/sessions",
    responses(
        (status = 200, body = body::Sessions, description = "In the order in which they came"),
        (status = 500, body = Refused, description = "The broker did not answer"),
    ),
)]
pub(super) async fn sessions(State(office): State<Office>) -> Answer<Json<body::Sessions>> {
    aside(move || office.sessions()).await.map(|sessions| Json(body::Sessions { sessions }))
}

/// How the broker is, and how many mounts have which status.
#[utoipa::path(
    get,
    path = "/api/v0/status",
    responses(
        (status = 200, body = Report, description = "So"),
        (status = 500, body = Refused, description = "The broker did not answer"),
    ),
)]
pub(super) async fn status(State(office): State<Office>) -> Answer<Json<Report>> {
    let broker = aside({
        let office = office.clone();
        move || office.standing()
    });
    let broker = broker.await?;
    Ok(Json(Report { version: REPORT_VERSION, broker, mounts: office.keeper.counts() }))
}

/// Takes a lock away from its holder, or sends a waiter away; whoever loses it is told why.
#[utoipa::path(
    post,
    path = "/api/v0/locks/{ticket}/break",
    params(("ticket" = u64, Path, description = "Its place in the global order")),
    request_body = Order,
    responses(
        (status = 200, body = Ordered, description = "It is broken"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "It has ended"),
        (status = 500, body = Refused, description = "It was tried, and did not work"),
    ),
)]
pub(super) async fn break_lock(
    State(office): State<Office>,
    Ticket(ticket): Ticket,
    Said(order): Said<Order>,
) -> Answer<Json<Ordered>> {
    if order.within_ms.is_some() {
        let hint = "ask its holder to let go: …/recall";
        return Err(Refusal::new(Kind::Invalid, "a lock is broken at once", hint));
    }
    aside(move || office.break_lock(ticket, &order.reason)).await?;
    Ok(Json(Ordered { ticket }))
}

/// Asks a holder to let go; after that time it loses its turn if somebody waits.
#[utoipa::path(
    post,
    path = "/api/v0/locks/{ticket}/recall",
    params(("ticket" = u64, Path, description = "Its place in the global order")),
    request_body = Option<Order>,
    responses(
        (status = 200, body = Ordered, description = "It is asked"),
        (status = 400, body = Refused, description = "The request makes no sense"),
        (status = 404, body = Refused, description = "It has ended"),
        (status = 500, body = Refused, description = "It was tried, and did not work"),
    ),
)]
pub(super) async fn recall(
    State(office): State<Office>,
    Ticket(ticket): Ticket,
    Said(Order { reason, within_ms }): Said<Order>,
) -> Answer<Json<Ordered>> {
    aside(move || office.recall(ticket, &reason, within_ms)).await?;
    Ok(Json(Ordered { ticket }))
}

/// The ticket in a request's path.
pub(super) struct Ticket(u64);

impl<S: Send + Sync> FromRequestParts<S> for Ticket {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Ticket, Refusal> {
        let unknown = |_: PathRejection| {
            let hint = "a ticket is a number: `gate locks` shows it";
            Refusal::new(Kind::NotFound, "nobody has that ticket", hint)
        };
        let path = Path::<u64>::from_request_parts(parts, state).await;
        path.map(|Path(ticket)| Ticket(ticket)).map_err(unknown)
    }
}
