//! Who shows which token may do what.

use std::os::unix::fs::OpenOptionsExt;

use gate_api::bearer::TokenFile;
use gate_api::{Approach, AttachError, ClientInfo, ConnectError, QueryError, Session};
use gate_core::lock::event::Revocation;

use super::*;
use crate::tests::{Deaf, Heard, source};

pub(super) const READ: &str = "read-read-read-0123456789abcdefgh";
const LOCK: &str = "lock-lock-lock-0123456789abcdefgh";
pub(super) const ADMIN: &str = "admin-admin-admin-0123456789abcd";
pub(super) const WRONG: &str = "wrong-wrong-wrong-0123456789abcd";

/// A broker that asks for tokens, and a directory with a file for each.
pub(super) fn serve_with(policy: fn(TokenFile) -> Policy) -> Served {
    let state = tempfile::tempdir().unwrap();
    for (name, token) in [("read", READ), ("lock", LOCK), ("admin", ADMIN), ("wrong", WRONG)] {
        write_secret(&state.path().join(name), &format!("lock {token}\n"));
    }
    let all = state.path().join("tokens");
    write_secret(&all, &format!("read {READ}\nlock {LOCK}\nadmin {ADMIN}\n"));
    let tokens = TokenFile::load(&all).unwrap();
    serve_in(state, |options| options.listen = Some(listen("127.0.0.1", policy(tokens))))
}

fn write_secret(path: &std::path::Path, text: &str) {
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(path);
    file.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
}

impl Served {
    /// Sends a request with a token, or with none; returns status and challenge.
    fn shows(&self, token: Option<&str>, line: &str, body: &Value) -> (u16, Option<String>) {
        let token = token.map(|token| format!("\r\nAuthorization: Bearer {token}"));
        let head = format!("{line} HTTP/1.1\r\nHost: any{}", token.unwrap_or_default());
        let mut text = String::new();
        self.raw(&head, body.to_string().as_bytes()).0.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let challenge = text.lines().find_map(|line| line.strip_prefix("www-authenticate: "));
        (status, challenge.map(str::to_owned))
    }

    /// Returns the tokens that it knows.
    pub(super) fn tokens(&self) -> TokenFile {
        TokenFile::load(&self._state.path().join("tokens")).unwrap()
    }

    fn connects(&self, token: Option<&str>) -> Result<Session, ConnectError> {
        let address = Address::Tcp { host: self.at().ip().to_string(), port: self.at().port() };
        let token_file = token.map(|name| self._state.path().join(name));
        let client = ClientInfo::named("test");
        Session::connect(Approach { address, token_file }, client, std::sync::Arc::new(Deaf))
    }
}

#[test]
fn without_a_token_or_with_a_wrong_one_nothing_is_told() {
    let served = serve_with(Policy::Token);
    for (token, challenge) in [
        (None, "Bearer"),
        (Some(WRONG), "Bearer error=\"invalid_token\""),
        (Some(""), "Bearer"),
        (Some(&LOCK[1..]), "Bearer error=\"invalid_token\""),
    ] {
        for line in ["GET /v1/locks/status", "POST /v1/locks/acquire", "GET /gate/frames", "GET /"]
        {
            let told = served.shows(token, line, &json!({}));
            assert_eq!(told, (401, Some(challenge.to_owned())), "{token:?} {line}");
        }
    }
    assert!(matches!(served.connects(None), Err(ConnectError::Unauthorized(_))));
    assert!(matches!(served.connects(Some("wrong")), Err(ConnectError::Unauthorized(_))));
    assert!(matches!(served.connects(Some("none")), Err(ConnectError::Token(_))));
}

#[test]
fn each_scope_opens_its_doors_and_names_the_one_that_is_needed() {
    let served = serve_with(Policy::Token);
    let acquire = json!({"path": "f", "mode": "write", "owner": "a"});
    for (token, looks, locks) in [(READ, 200, 403), (LOCK, 200, 200), (ADMIN, 200, 200)] {
        assert_eq!(served.shows(Some(token), "GET /v1/locks/status", &json!({})).0, looks);
        let (status, challenge) = served.shows(Some(token), "POST /v1/locks/acquire", &acquire);
        assert_eq!(status, locks, "{token}");
        let named = challenge.is_some_and(|challenge| challenge.contains("scope=\"lock\""));
        assert_eq!(named, locks == 403, "{token}");
    }
    for what in ["release", "heartbeat"] {
        let (status, _) = served.shows(Some(READ), &format!("POST /v1/locks/{what}"), &json!({}));
        assert_eq!(status, 403, "{what}");
    }
    assert_eq!(served.shows(Some(READ), "GET /nothing", &json!({})).0, 404);
}

#[test]
fn who_may_look_may_neither_lock_nor_break() {
    let served = serve_with(Policy::Token);
    let owner = connect(&served.broker.address(), "owner");
    let grant = owner.hold("f").is_granted();
    for (token, may_attach, may_break) in
        [("read", false, false), ("lock", true, false), ("admin", true, true)]
    {
        let session = served.connects(Some(token)).unwrap();
        assert_eq!(session.locks(&Scope::Everything, None, SOON).unwrap().lines.len(), 1);
        match session.attach(source()) {
            Ok(_) => assert!(may_attach, "{token}"),
            Err(AttachError::Refused(refusal)) => {
                assert!(!may_attach && refusal.reason.contains("read"), "{token}: {refusal:?}");
            }
            Err(AttachError::BrokerGone) => panic!("{token}"),
        }
        let broken = session.break_lock(grant.ticket.0, "stuck".to_owned());
        let expected = if may_break { Ok(()) } else { Err(QueryError::Forbidden) };
        assert_eq!(broken, expected, "{token}");
    }
}

#[test]
fn locks_are_recalled_and_broken_with_the_scope_admin_alone() {
    let served = serve_with(Policy::TokenFromElsewhere);
    let owner = connect(&served.broker.address(), "owner");
    let held = owner.hold("f");
    let ticket = held.is_granted().ticket.0;
    let recall = json!({"ticket": ticket, "reason": "please", "within_ms": 3_600_000});
    let end = json!({"ticket": ticket, "reason": "now"});
    for token in [None, Some(READ), Some(LOCK)] {
        assert_ne!(served.shows(token, "POST /v1/locks/recall", &recall).0, 200, "{token:?}");
        assert_ne!(served.shows(token, "POST /v1/locks/break", &end).0, 200, "{token:?}");
    }
    assert_eq!(served.post("break", &end).status, 403, "this machine without a token");
    let by_admin = |what: &str, body: &Value| served.shows(Some(ADMIN), what, body).0;
    for reason in ["", " \n"] {
        let unfounded = json!({"ticket": ticket, "reason": reason});
        assert_eq!(by_admin("POST /v1/locks/break", &unfounded), 400, "{reason:?}");
    }
    assert_eq!(by_admin("POST /v1/locks/recall", &recall), 200);
    let lines = owner.session.locks(&Scope::Everything, None, SOON).unwrap().lines;
    assert!(matches!(&lines[0].state, LineState::Held { recalled_until_ms: Some(_), .. }));
    assert_eq!(served.shows(Some(ADMIN), "POST /v1/locks/break", &end).0, 200);
    assert_eq!(owner.hears(), Heard::Revoked(held.number, Revocation::Broken));
    // It is there until its owner has said that it writes nothing any more.
    served.await_lines(<[_]>::is_empty);
    assert_eq!(served.shows(Some(ADMIN), "POST /v1/locks/break", &end).0, 404);
}

#[test]
fn on_this_machine_a_token_is_needed_only_if_it_is_asked_for() {
    let served = serve_with(Policy::TokenFromElsewhere);
    lock_id(&served.acquire("f", "write", "a"));
    // A token that is shown counts, whether one is needed or not.
    assert_eq!(served.shows(Some(WRONG), "GET /v1/locks/status", &json!({})).0, 401);
    assert_eq!(served.shows(Some(READ), "POST /v1/locks/acquire", &json!({})).0, 403);
    // Only a token makes up for a Host that is not this machine.
    assert_eq!(served.shows(None, "GET /v1/locks/status", &json!({})).0, 403);
    assert_eq!(served.shows(Some(READ), "GET /v1/locks/status", &json!({})).0, 200);
    let unknown = serve();
    let head = format!("GET /v1/locks/status HTTP/1.1\r\nHost: {}", unknown.at());
    let head = format!("{head}\r\nAuthorization: Bearer {WRONG}");
    assert_eq!(unknown.raw(&head, b"").reply().status, 200, "where there are no tokens");
}

#[test]
fn a_page_of_another_site_is_turned_away_though_it_had_a_token() {
    let served = serve_with(Policy::Token);
    let head = format!(
        "GET /v1/locks/status HTTP/1.1\r\nHost: {}\r\nOrigin: https://evil.example\r\n\
         Authorization: Bearer {ADMIN}",
        served.at()
    );
    assert_eq!(served.raw(&head, b"").reply().status, 403);
}
