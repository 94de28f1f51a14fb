//! Browsers: signing in by a form, the cookie that stands for the token, signing out.

use axum::Router;
use axum::routing::get;
use gate_api::bearer::Rights;

use super::tokens::{ADMIN, READ, WRONG, serve_with};
use super::*;
use crate::{Http, needs};

/// A broker whose owner brings pages along, at an address of their own.
struct Pages {
    http: Http,
    _served: Served,
}

fn pages() -> Pages {
    let served = serve_with(Policy::Token);
    let to_look = needs(Rights::Read, Router::new().route("/page", get(|| async { "page" })));
    let to_order =
        needs(Rights::Admin, Router::new().route("/order", axum::routing::post(|| async {})));
    let more = to_look
        .merge(to_order)
        .route("/login", get(|| async { "sign in" }))
        .route("/assets/style.css", get(|| async { "style" }));
    let policy = Policy::Token(served.tokens());
    let http = served.broker.offer(listen("127.0.0.1", policy), more).unwrap();
    Pages { http, _served: served }
}

impl Pages {
    /// Sends a request; returns the answer's head in lower case, and its body.
    fn send(&self, line: &str, headers: &str, body: &str) -> (String, String) {
        let at = self.http.address().unwrap();
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let length = body.len();
        let form = "Content-Type: application/x-www-form-urlencoded\r\nConnection: close";
        let head = format!("{line} HTTP/1.1\r\nHost: {at}\r\n{form}\r\nContent-Length: {length}");
        let headers = headers.replace("OWN", &format!("http://{at}"));
        stream.write_all(format!("{head}\r\n{headers}\r\n{body}").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }

    /// Signs in; returns the header that shows the cookie.
    fn sign_in(&self, token: &str) -> String {
        let (head, _) = self.send("POST /login", "Origin: OWN\r\n", &format!("token={token}"));
        assert!(head.contains(" 303 "), "{head}");
        let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        for said in ["; httponly", "; samesite=strict", "; path=/"] {
            assert!(cookie.contains(said), "{cookie}");
        }
        assert!(!cookie.contains(token), "the cookie is no token");
        format!("Cookie: {}\r\n", cookie.split(';').next().unwrap())
    }
}

#[test]
fn who_signs_in_is_led_to_what_was_asked_for_and_signs_out_again() {
    let pages = pages();
    let (head, _) = pages.send("GET /page?a=1%20b", "Accept: text/html\r\n", "");
    assert!(head.contains(" 303 "), "{head}");
    assert!(head.contains("location: /login?to=/page%3fa%3d1%2520b"), "{head}");
    assert_eq!(pages.send("GET /login", "", "").1, "sign in");
    assert_eq!(pages.send("GET /assets/style.css", "", "").1, "style");
    let form = format!("token=+{READ}%0A&to=/page%3Fa");
    let (head, _) = pages.send("POST /login", "Origin: OWN\r\n", &form);
    assert!(head.contains(" 303 ") && head.contains("location: /page?a"), "{head}");
    let cookie = pages.sign_in(READ);
    assert_eq!(pages.send("GET /page", &cookie, "").1, "page");
    let (head, _) = pages.send("POST /logout", &format!("Origin: OWN\r\n{cookie}"), "");
    assert!(head.contains("location: /login") && head.contains("max-age=0"), "{head}");
    assert!(pages.send("GET /page", &cookie, "").0.contains(" 401 "), "it counts no more");
}

#[test]
fn who_does_not_sign_in_is_told_nothing_and_programs_are_told_so() {
    let pages = pages();
    for line in ["GET /page", "POST /order", "GET /v1/locks/status", "GET /nothing"] {
        assert!(pages.send(line, "", "").0.contains(" 401 "), "{line}");
    }
    let (head, _) =
        pages.send("POST /login", "Origin: OWN\r\n", &format!("token={WRONG}&to=/page"));
    assert!(head.contains("location: /login?wrong=1&to=/page"), "{head}");
    assert!(!head.contains("set-cookie"), "{head}");
    for elsewhere in ["//example.org", "https://example.org", "/%5Cexample.org", "/a%0D%0Ab"] {
        let form = format!("token={READ}&to={elsewhere}");
        let (head, _) = pages.send("POST /login", "Origin: OWN\r\n", &form);
        assert!(head.lines().any(|line| line == "location: /"), "{elsewhere}: {head}");
    }
}

#[test]
fn a_page_of_another_address_neither_signs_in_nor_orders_nor_signs_out() {
    let pages = pages();
    let cookie = pages.sign_in(ADMIN);
    let foreign =
        ["", "Origin: http://localhost:1\r\n", "Origin: OWN\r\nSec-Fetch-Site: same-site\r\n"];
    for from in foreign {
        let form = format!("token={ADMIN}");
        assert!(pages.send("POST /login", from, &form).0.contains(" 403 "), "{from}");
        for line in ["POST /order", "POST /logout"] {
            assert!(pages.send(line, &format!("{cookie}{from}"), "").0.contains(" 403 "), "{line}");
        }
    }
    let own = format!("Origin: OWN\r\nSec-Fetch-Site: same-origin\r\n{cookie}");
    assert!(pages.send("POST /order", &own, "").0.contains(" 200 "));
    let reader = pages.sign_in(READ);
    assert!(pages.send("POST /order", &format!("Origin: OWN\r\n{reader}"), "").0.contains(" 403 "));
}

/// A broker without pages has none to lead to.
#[test]
fn a_broker_without_pages_has_no_sign_in() {
    let served = serve_with(Policy::Token);
    for line in ["GET /login", "POST /login", "GET /assets/style.css"] {
        let head = format!("{line} HTTP/1.1\r\nHost: {}\r\nAccept: text/html", served.at());
        assert_eq!(served.raw(&head, b"").reply().status, 401, "{line}");
    }
}
