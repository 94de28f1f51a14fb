//! Who may come in by HTTP, and what for.
//!
//! A request with a token may do what the token says, under whatever name it found this broker: the
//! token is what a foreign page does not have. One without is let in from this machine alone, if it
//! names this machine: else any web site whose name leads here could lock the files of who visits
//! it. Pages of other sites are turned away in any case. Where there are pages, a cookie stands for a
//! token ([`sign_in`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use gate_api::bearer::{Rights, TokenFile};

use super::routes::error;
use super::sign_in::{self, SignIns};
use crate::actor::is_trusted;

/// What a client of this machine may do without a token.
const RIGHTS_OF_LOOPBACK: Rights = Rights::Lock;

/// What is asked of those who come by HTTP.
#[derive(Debug)]
pub enum Policy {
    /// Who comes is this user or root: for a socket file.
    Owner,
    /// Who comes from this machine needs no token; nobody comes from elsewhere.
    Loopback,
    /// Who comes from elsewhere needs one of these tokens.
    TokenFromElsewhere(TokenFile),
    /// Everybody needs one of these tokens.
    Token(TokenFile),
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy)]
pub(super) enum Peer {
    /// Somebody there.
    At(SocketAddr),
    /// This user of this machine.
    User(u32),
}

/// Who stands at one door.
#[derive(Debug)]
pub(super) struct Guard {
    policy: Policy,
    /// Whether there are pages, and among them one to sign in.
    has_pages: bool,
    pub(super) sign_ins: SignIns,
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// It shows no token.
    NoToken,
    /// It shows a token that is none of ours.
    WrongToken,
    /// It comes by way of another name.
    ForeignHost,
    /// It comes from a page of another site.
    ForeignOrigin,
    /// It shows a cookie, and comes from a page of another address, or does not say from which.
    ForeignPage,
    /// It comes from another user.
    ForeignUser,
}

/// Lets requests in by a policy; routes say by [`needs`] what is needed for them.
pub(super) fn guarded(router: Router, guard: Arc<Guard>) -> Router {
    router.layer(middleware::from_fn_with_state(guard, let_in))
}

/// Lets in only who may do that much.
pub fn needs<S: Clone + Send + Sync + 'static>(rights: Rights, router: Router<S>) -> Router<S> {
    router.route_layer(middleware::from_fn_with_state(rights, check))
}

async fn let_in(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    match guard.judge(&request) {
        Ok(rights) => {
            request.extensions_mut().insert(rights);
            next.run(request).await
        }
        Err(Denial::NoToken | Denial::ForeignPage)
            if guard.has_pages && sign_in::is_open(request.uri()) =>
        {
            next.run(request).await
        }
        Err(Denial::NoToken | Denial::ForeignPage)
            if guard.has_pages && sign_in::wants_page(&request) =>
        {
            sign_in::show_in(&request)
        }
        Err(denial) => denial.response(),
    }
}

async fn check(State(needed): State<Rights>, request: Request, next: Next) -> Response {
    match request.extensions().get::<Rights>() {
        Some(rights) if *rights >= needed => next.run(request).await,
        _ => {
            let why = format!("this takes a token with the scope {needed}");
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
            challenged(error(StatusCode::FORBIDDEN, &why), &challenge)
        }
    }
}

impl Guard {
    pub(super) fn new(policy: Policy, has_pages: bool) -> Guard {
        Guard { policy, has_pages, sign_ins: SignIns::default() }
    }

    /// Returns what the bearer of a token may do.
    pub(super) fn rights_of_token(&self, shown: &[u8]) -> Option<Rights> {
        self.policy.tokens()?.rights_of(shown)
    }

    /// As [`Policy::judge`], where a cookie may stand for a token.
    fn judge(&self, request: &Request) -> Result<Rights, Denial> {
        let judged = self.policy.judge(request);
        let (true, Err(Denial::NoToken)) = (self.has_pages, judged) else { return judged };
        let rights = sign_in::cookie(request)
            .and_then(|key| self.sign_ins.rights_of(key, Instant::now()))
            .ok_or(Denial::NoToken)?;
        if sign_in::is_own(request) { Ok(rights) } else { Err(Denial::ForeignPage) }
    }
}

impl Policy {
    /// Returns the tokens that count.
    fn tokens(&self) -> Option<&TokenFile> {
        match self {
            Policy::Owner | Policy::Loopback => None,
            Policy::TokenFromElsewhere(tokens) | Policy::Token(tokens) => Some(tokens),
        }
    }

    fn judge(&self, request: &Request) -> Result<Rights, Denial> {
        let origin = sign_in::text(request.headers(), header::ORIGIN);
        if !origin.is_none_or(is_loopback_origin) {
            return Err(Denial::ForeignOrigin);
        }
        let shown = request.headers().get(header::AUTHORIZATION).and_then(bearer);
        if let Policy::Owner = self {
            let peer = request.extensions().get();
            let is_owner = matches!(peer, Some(Peer::User(uid)) if is_trusted(*uid));
            return if is_owner { Ok(Rights::Admin) } else { Err(Denial::ForeignUser) };
        }
        if let (Some(tokens), Some(shown)) = (self.tokens(), shown) {
            return tokens.rights_of(shown).ok_or(Denial::WrongToken);
        }
        let is_here = |peer: &Peer| match peer {
            Peer::At(address) => address.ip().to_canonical().is_loopback(),
            Peer::User(_) => false,
        };
        let needs_none = !matches!(self, Policy::Token(_));
        if !(needs_none && request.extensions().get().is_some_and(is_here)) {
            return Err(Denial::NoToken);
        }
        match sign_in::host(request).is_some_and(is_loopback) {
            true => Ok(RIGHTS_OF_LOOPBACK),
            false => Err(Denial::ForeignHost),
        }
    }
}

impl Denial {
    pub(super) fn response(self) -> Response {
        match self {
            Denial::NoToken => {
                challenged(error(StatusCode::UNAUTHORIZED, "this takes a token"), "Bearer")
            }
            Denial::WrongToken => challenged(
                error(StatusCode::UNAUTHORIZED, "the token is not known here"),
                "Bearer error=\"invalid_token\"",
            ),
            Denial::ForeignHost => error(StatusCode::FORBIDDEN, "the Host is not this machine"),
            Denial::ForeignOrigin => error(StatusCode::FORBIDDEN, "the Origin is not this machine"),
            Denial::ForeignPage => {
                error(StatusCode::FORBIDDEN, "the request comes from a page of another address")
            }
            Denial::ForeignUser => error(StatusCode::FORBIDDEN, "this is another user's"),
        }
    }
}

fn challenged(mut response: Response, challenge: &str) -> Response {
    let challenge = HeaderValue::from_str(challenge).expect("made of constants");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Returns the token of an `Authorization`, if it is of that kind.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Returns whether a `Host` names this machine: `localhost:80`, `127.0.0.1`, `[::1]:8787`.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _)) => name,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Returns whether an `Origin` is a page of this machine.
fn is_loopback_origin(origin: &str) -> bool {
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    host.is_some_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn tokens() -> TokenFile {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, format!("admin {TOKEN}")).unwrap();
        let secret = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, secret).unwrap();
        TokenFile::load(&path).unwrap()
    }

    fn request(from: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Peer::At(from.parse().unwrap()));
        for (name, value) in headers {
            let name = header::HeaderName::try_from(*name).unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        request
    }

    #[test]
    fn who_comes_from_elsewhere_is_known_by_a_token_alone() {
        let policy = Policy::TokenFromElsewhere(tokens());
        let local = [("host", "localhost")];
        for (from, admitted) in [
            ("127.0.0.1:1", Ok(Rights::Lock)),
            ("127.9.9.9:1", Ok(Rights::Lock)),
            ("[::1]:1", Ok(Rights::Lock)),
            ("[::ffff:127.0.0.1]:1", Ok(Rights::Lock)),
            ("192.0.2.1:1", Err(Denial::NoToken)),
            ("[::ffff:192.0.2.1]:1", Err(Denial::NoToken)),
            ("[2001:db8::1]:1", Err(Denial::NoToken)),
        ] {
            assert_eq!(policy.judge(&request(from, &local)), admitted, "{from}");
            for scheme in ["Bearer", "bearer"] {
                let value = format!("{scheme} {TOKEN}");
                let shown = request(from, &[("host", "gate.lan"), ("authorization", &value)]);
                assert_eq!(policy.judge(&shown), Ok(Rights::Admin), "{from}");
            }
        }
        let basic = request("192.0.2.1:1", &[("authorization", "Basic YTpi")]);
        assert_eq!(policy.judge(&basic), Err(Denial::NoToken));
        assert_eq!(Policy::Owner.judge(&basic), Err(Denial::ForeignUser));
        let mut own = Request::new(Body::empty());
        own.extensions_mut().insert(Peer::User(rustix::process::geteuid().as_raw()));
        assert_eq!(Policy::Owner.judge(&own), Ok(Rights::Admin));
        assert_eq!(policy.judge(&own), Err(Denial::NoToken), "not by TCP");
        let nobody = Request::new(Body::empty());
        assert_eq!(policy.judge(&nobody), Err(Denial::NoToken), "not even from nowhere");
    }

    #[test]
    fn a_cookie_counts_where_its_own_pages_or_no_page_asks_and_nowhere_else() {
        let guard = Guard::new(Policy::Token(tokens()), true);
        let key = guard.sign_ins.enter(Rights::Admin, Instant::now());
        let cookie = format!("a=b; gate-8787={key:032x}; c=d");
        let judge = |method: &str, more: &[(&str, &str)]| {
            let own = [("host", "localhost:8787"), ("cookie", &*cookie)];
            let mut request = request("127.0.0.1:1", &[&own, more].concat());
            *request.method_mut() = method.parse().unwrap();
            guard.judge(&request)
        };
        let site = |said| ("sec-fetch-site", said);
        let origin = |said| ("origin", said);
        let own = origin("http://localhost:8787");
        for (method, more, judged) in [
            ("GET", &[][..], Ok(Rights::Admin)),
            ("HEAD", &[site("none")], Ok(Rights::Admin)),
            ("GET", &[site("same-origin")], Ok(Rights::Admin)),
            ("GET", &[site("same-site")], Err(Denial::ForeignPage)),
            ("GET", &[site("cross-site")], Err(Denial::ForeignPage)),
            ("GET", &[origin("http://localhost:3000")], Err(Denial::ForeignPage)),
            ("POST", &[own], Ok(Rights::Admin)),
            ("POST", &[own, site("same-origin")], Ok(Rights::Admin)),
            ("POST", &[], Err(Denial::ForeignPage)),
            ("DELETE", &[site("same-origin")], Err(Denial::ForeignPage)),
            ("POST", &[own, site("same-site")], Err(Denial::ForeignPage)),
            // Other pages of this machine are as foreign as any.
            ("POST", &[origin("http://localhost:3000")], Err(Denial::ForeignPage)),
            ("POST", &[origin("http://localhost")], Err(Denial::ForeignPage)),
            ("POST", &[origin("http://127.0.0.1:8787")], Err(Denial::ForeignPage)),
            ("POST", &[origin("http://sub.localhost:8787")], Err(Denial::ForeignOrigin)),
            ("POST", &[origin("null")], Err(Denial::ForeignOrigin)),
            ("POST", &[origin("https://example.org")], Err(Denial::ForeignOrigin)),
        ] {
            assert_eq!(judge(method, more), judged, "{method} {more:?}");
        }
    }

    #[test]
    fn a_cookie_is_of_one_port_and_counts_where_there_are_pages() {
        let guard = Guard::new(Policy::Token(tokens()), true);
        let key = guard.sign_ins.enter(Rights::Read, Instant::now());
        for (host, cookie, judged) in [
            ("localhost:8787", format!("gate-8787={key:032x}"), Ok(Rights::Read)),
            ("localhost:8788", format!("gate-8787={key:032x}"), Err(Denial::NoToken)),
            ("localhost:8787", format!("gate-8787={:032x}", key ^ 1), Err(Denial::NoToken)),
            ("localhost:8787", format!("gate-8787={TOKEN}"), Err(Denial::NoToken)),
            ("localhost:8787", "gate-8787=".to_owned(), Err(Denial::NoToken)),
        ] {
            let shown = request("127.0.0.1:1", &[("host", host), ("cookie", &cookie)]);
            assert_eq!(guard.judge(&shown), judged, "{host} {cookie}");
        }
        let cookie = format!("gate-80={key:032x}");
        let shown = || request("127.0.0.1:1", &[("host", "localhost"), ("cookie", &cookie)]);
        assert_eq!(guard.judge(&shown()), Ok(Rights::Read));
        let bare = Guard::new(Policy::Token(tokens()), false);
        let key = bare.sign_ins.enter(Rights::Read, Instant::now());
        let cookie = format!("gate-80={key:032x}");
        let shown = request("127.0.0.1:1", &[("host", "localhost"), ("cookie", &cookie)]);
        assert_eq!(bare.judge(&shown), Err(Denial::NoToken));
    }
}
