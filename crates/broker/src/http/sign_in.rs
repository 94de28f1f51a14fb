//! Who comes with a browser: a token that was shown once, and the cookie that stands for it from then on.
//!
//! A browser sends a cookie along whichever page asks, and to every port of its host. So the cookie is no
//! token but a key that ends with this process, after [`AGE_MAX`] or when its owner signs out; and it
//! counts only where the request comes from a page of this very address, or from no page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Form, FromRequest as _, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use gate_api::bearer::Rights;
use gate_api::http::quoted;
use serde::Deserialize;

use super::guard::{Denial, Guard};
use crate::sessions::random_key;

/// Where who has no rights signs in, …
const SIGN_IN: &str = "/login";
/// … and what the page of that is made of.
const ASSETS: &str = "/assets/";
/// How long a cookie counts.
const AGE_MAX: Duration = Duration::from_secs(12 * 3600);
/// How many count at once; the oldest goes first.
const SIGN_INS_MAX: usize = 64;
/// How long a form may take to come.
const FORM_MAX: Duration = Duration::from_secs(10);

/// The cookies that count.
#[derive(Debug, Default)]
pub(super) struct SignIns(Mutex<VecDeque<SignIn>>);

struct SignIn {
    key: u128,
    rights: Rights,
    at: Instant,
}

/// What is said at the door.
#[derive(Deserialize)]
struct Shown {
    #[serde(default)]
    token: String,
    /// Where to go then.
    #[serde(default)]
    to: String,
}

/// Returns the routes by which a browser signs in and out; the page for that is another's.
pub(super) fn router(guard: Arc<Guard>) -> Router {
    Router::new().route(SIGN_IN, post(enter)).route("/logout", post(leave)).with_state(guard)
}

/// Returns whether somebody without rights may come there.
pub(super) fn is_open(uri: &Uri) -> bool {
    uri.path() == SIGN_IN || uri.path() == "/logout" || uri.path().starts_with(ASSETS)
}

/// Returns whether a request is for a page to be shown to people.
pub(super) fn wants_page(request: &Request) -> bool {
    text(request.headers(), header::ACCEPT).is_some_and(|accepted| accepted.contains("text/html"))
}

/// Leads to where one signs in, and from there back to what was asked for.
pub(super) fn show_in(request: &Request) -> Response {
    let uri = request.uri();
    let to = match (request.method(), uri.path_and_query()) {
        (&Method::GET, Some(wanted)) => {
            format!("{SIGN_IN}?to={}", quoted(wanted.as_str().as_bytes()))
        }
        _ => SIGN_IN.to_owned(),
    };
    lead(&to)
}

async fn enter(State(guard): State<Arc<Guard>>, request: Request) -> Response {
    if !is_own(&request) {
        return Denial::ForeignPage.response();
    }
    let cookie_name = cookie_name(&request);
    let form = tokio::time::timeout(FORM_MAX, Form::<Shown>::from_request(request, &())).await;
    let Ok(Ok(Form(Shown { token, to }))) = form else {
        return super::routes::error(StatusCode::BAD_REQUEST, "this is no form with a token");
    };
    // Elsewhere than here nobody is led.
    let is_here = to.starts_with('/') && !to.starts_with("//") && !to.contains(['\\', '\n', '\r']);
    let to = if is_here { &*to } else { "/" };
    match guard.rights_of_token(token.trim().as_bytes()) {
        None => lead(&format!("{SIGN_IN}?wrong=1&to={}", quoted(to.as_bytes()))),
        Some(rights) => {
            let key = guard.sign_ins.enter(rights, Instant::now());
            set_cookie(lead(to), &format!("{cookie_name}={key:032x}"))
        }
    }
}

async fn leave(State(guard): State<Arc<Guard>>, request: Request) -> Response {
    if !is_own(&request) {
        return Denial::ForeignPage.response();
    }
    if let Some(key) = cookie(&request) {
        guard.sign_ins.leave(key);
    }
    set_cookie(lead(SIGN_IN), &format!("{}=; Max-Age=0", cookie_name(&request)))
}

impl SignIns {
    pub fn enter(&self, rights: Rights, now: Instant) -> u128 {
        let key = random_key();
        let mut all = self.lock();
        all.push_back(SignIn { key, rights, at: now });
        while all.len() > SIGN_INS_MAX {
            all.pop_front();
        }
        key
    }

    /// Returns what the bearer of a key may do. Keys are compared as numbers: how long that takes tells
    /// nothing of how much of one is right.
    pub fn rights_of(&self, key: u128, now: Instant) -> Option<Rights> {
        let mut all = self.lock();
        all.retain(|one| now.saturating_duration_since(one.at) < AGE_MAX);
        all.iter().filter(|one| one.key == key).map(|one| one.rights).max()
    }

    fn leave(&self, key: u128) {
        self.lock().retain(|one| one.key != key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<SignIn>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SignIn {
    /// Its key shows itself nowhere (N12).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.rights)
    }
}

/// Returns the key that a request shows.
pub(super) fn cookie(request: &Request) -> Option<u128> {
    let name = cookie_name(request);
    let cookies = request.headers().get_all(header::COOKIE);
    let pairs = cookies.iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(';'));
    let value = pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(of, _)| *of == name);
    u128::from_str_radix(value?.1, 16).ok()
}

/// Returns whether a request comes from a page of the very address it goes to, or from none: by one
/// that changes something its page must be named.
pub(super) fn is_own(request: &Request) -> bool {
    let headers = request.headers();
    let is_page = match text(headers, header::ORIGIN) {
        Some(origin) => {
            let from = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            let host = host(request);
            from.zip(host).is_some_and(|(from, host)| from.eq_ignore_ascii_case(host))
        }
        None => matches!(*request.method(), Method::GET | Method::HEAD),
    };
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    is_page && matches!(site, None | Some(b"same-origin" | b"none"))
}

/// Of each port one: a browser tells hosts apart by their cookies, not their ports.
fn cookie_name(request: &Request) -> String {
    let port = host(request).and_then(|host| host.rsplit_once(':')).map(|(_, port)| port);
    let port = port.filter(|port| port.bytes().all(|digit| digit.is_ascii_digit()));
    format!("gate-{}", port.unwrap_or("80"))
}

/// Returns by which name a request found this machine.
pub(super) fn host(request: &Request) -> Option<&str> {
    let named = text(request.headers(), header::HOST);
    named.or_else(|| Some(request.uri().authority()?.as_str()))
}

/// Returns what a header says; one that is no text says nothing.
pub(super) fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or(""))
}

fn lead(to: &str) -> Response {
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

fn set_cookie(mut response: Response, cookie: &str) -> Response {
    let cookie = format!("{cookie}; Path=/; HttpOnly; SameSite=Strict");
    let cookie = HeaderValue::from_str(&cookie).expect("a port and a number");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_counts_until_it_is_ended_too_old_or_one_of_too_many() {
        let (sign_ins, now) = (SignIns::default(), Instant::now());
        let keys = [Rights::Read, Rights::Admin].map(|rights| sign_ins.enter(rights, now));
        assert_eq!(sign_ins.rights_of(keys[0], now), Some(Rights::Read));
        assert_eq!(sign_ins.rights_of(keys[1], now), Some(Rights::Admin));
        assert_eq!(sign_ins.rights_of(keys[0] ^ 1, now), None);
        sign_ins.leave(keys[1]);
        assert_eq!(sign_ins.rights_of(keys[1], now), None);
        for _ in 0..SIGN_INS_MAX {
            sign_ins.enter(Rights::Lock, now);
        }
        assert_eq!(sign_ins.rights_of(keys[0], now), None, "the oldest has gone");
        let key = sign_ins.enter(Rights::Lock, now);
        assert_eq!(
            sign_ins.rights_of(key, now + AGE_MAX - Duration::from_secs(1)),
            Some(Rights::Lock)
        );
        assert_eq!(sign_ins.rights_of(key, now + AGE_MAX), None);
    }
}
