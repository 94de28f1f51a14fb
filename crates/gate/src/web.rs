//! The web board: what people see of a daemon in a browser, and what they may do there.
//!
//! Each page is made here and is whole without a script. One script fetches the board of locks, or of mounts, again
//! when the daemon tells of something; it and all else that a page is made of is in the binary. Nothing is
//! decided here: the [`Office`] is asked. Names are others' bytes: what is shown of them is [`shown`].
//!
//! Not here: who may come in, which the broker's HTTP says, and where browsers sign in.

mod assets;
mod buckets;
mod deeds;
mod locks;
mod mounts;
mod overview;
mod page;
mod parts;
mod sessions;
mod shown;
mod story;
mod why;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use gate_api::bearer::Rights;
use gate_broker::needs;

use crate::daemon::office::Office;
use crate::daemon::refusal::{Kind, Refusal};
use page::Fault;

/// Bytes of a form, at most.
const FORM_BYTES_MAX: usize = 64 * 1024;
/// What a page may be made of: what comes from here, and nothing that is written into it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Returns the pages, to be served beside the rest.
pub fn router(office: Office) -> Router {
    let to_look = Router::new()
        .route("/", get(overview::page))
        .route("/locks", get(locks::page))
        .route("/locks/board", get(locks::part))
        .route("/mounts", get(mounts::page))
        .route("/mounts/board", get(mounts::part))
        .route("/buckets", get(buckets::page))
        .route("/sessions", get(sessions::page))
        .route("/log", get(story::page))
        .route("/why", get(why::page));
    let to_change = Router::new()
        .route("/locks/{ticket}/{deed}", get(deeds::page).post(deeds::done))
        .route("/mounts/add", get(mounts::add_page).post(mounts::add))
        .route("/mounts/{id}", get(mounts::edit_page).post(mounts::edit))
        .route("/mounts/{id}/start", post(mounts::start))
        .route("/mounts/{id}/stop", post(mounts::stop))
        .route("/mounts/{id}/remove", get(mounts::remove_page).post(mounts::remove))
        .merge(buckets::router())
        .route_layer(middleware::from_fn(for_admins));
    needs(Rights::Read, to_look.merge(to_change))
        .route("/login", get(page::sign_in))
        .merge(assets::router())
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(middleware::map_response(protected))
        .with_state(office)
}

/// Shows who may only look a page that says so.
async fn for_admins(request: Request, next: Next) -> Response {
    match request.extensions().get::<Rights>() {
        Some(Rights::Admin) => next.run(request).await,
        Some(_) | None => {
            let hint = "sign out, and in again with a token of that scope";
            let refusal =
                Refusal::new(Kind::State, "this takes a token with the scope admin", hint);
            Fault::of(refusal).with(StatusCode::FORBIDDEN).into_response()
        }
    }
}

/// Says of each answer what a browser may do with it.
async fn protected(mut response: Response) -> Response {
    let headers: &mut HeaderMap = response.headers_mut();
    // What is no page of ours has a stricter one.
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
    let mut say = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Not `no-referrer`: by that a browser does not say either from which page a form comes.
    say(header::REFERRER_POLICY, "same-origin");
    say(header::CACHE_CONTROL, "no-store");
    response
}
