//! What a daemon offers by REST beside the mounts: locks, holds, sessions, how it is, and who may ask.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use gate_tests::rest::{MOUNTS, Rest};
use gate_tests::run::Run;
use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::{Standing, find_program};
use gate_tests::{World, is_soak, kernel, scaled};
use serde_json::{Value, json};

use super::managed::with_daemon;

#[test]
fn locks_are_shown_asked_for_and_taken_away_with_a_reason() {
    let (world, rest) = with_daemon(Standing::Runner);
    world.seed("d/f", "");
    world.gate(["mount", "add", "source", "view", "--start"]).run().success();
    let mut holder = world.actor(&world.view());
    let fd = holder.open("w", "d/f");
    let mut waiter = world.actor(&world.view());
    waiter.tell(["open", "w", "d/f"]);
    world.await_waiting("d/f", 1);
    let board = rest.ask("GET", "/api/v0/locks");
    assert_eq!(board.status, 200, "{board:?}");
    let told = world.gate(["locks", "--json"]).run().success();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(board.body, told, "the same as in a terminal");
    let path = format!("/api/v0/locks?path={}", world.source().join("d").display());
    assert_eq!(rest.ask("GET", &path).body["locks"], told["locks"], "and of one directory");
    symlink("view/d", world.home().join("link")).unwrap();
    for path in ["view/d", "view/d/f", "link", "source/d/f"] {
        let path = world.home().join(path);
        let board = rest.ask("GET", &format!("/api/v0/locks?path={}", path.display()));
        assert_eq!(board.body["locks"], told["locks"], "{}", path.display());
        for page in ["why", "log"] {
            let page = rest.ask("GET", &format!("/{page}?path={}", path.display()));
            assert_eq!(page.status, 200, "{}", path.display());
        }
    }
    let space = told["locks"][0]["space"].as_str().unwrap();
    let other = rest.ask("GET", &format!("/api/v0/locks?space={space}&path=e"));
    assert_eq!((other.status, &other.body["locks"]), (200, &json!([])));
    let unknown = rest.ask("GET", "/api/v0/locks?space=nobody&path=e");
    assert_eq!((unknown.status, &unknown.body["code"]), (404, &json!("not_found")));
    let ticket = told["locks"][0]["ticket"].as_u64().unwrap();
    let order = |what: &str, body: Value| {
        rest.tell("POST", &format!("/api/v0/locks/{ticket}/{what}"), &body)
    };
    for (what, body, why) in [
        ("break", json!({}), "there is no reason"),
        ("break", json!({"reason": "x".repeat(100_000)}), "less than 64 KiB"),
        ("break", json!({"reason": "x".repeat(10_000)}), "the reason is too long"),
        ("break", json!({"reason": "r", "within_ms": 1}), "is broken at once"),
        ("recall", json!({"within_ms": 1u64 << 60}), "within_ms is"),
        ("recall", json!({"why": "r"}), "unknown field `why`"),
    ] {
        let refused = order(what, body);
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(format!("{} {}", refused.body["message"], refused.body["hint"]).contains(why));
    }
    let asked = order("recall", json!({"reason": "lunch", "within_ms": 60_000}));
    assert_eq!((asked.status, asked.body), (200, json!({"ticket": ticket})));
    let recalled = rest.ask("GET", "/api/v0/locks").body["locks"][0]["recalled_until"].clone();
    assert!(recalled.is_string(), "{recalled}");
    assert_eq!(order("break", json!({"reason": "it hangs"})).status, 200);
    waiter.opened();
    assert!(holder.write(fd, "late").is_err(), "it is fenced");
    let gone = order("break", json!({"reason": "again"}));
    assert_eq!((gone.status, &gone.body["code"]), (404, &json!("not_found")));
    let log = world.gate(["log", "--json"]).run().success();
    assert!(log.contains("it hangs"), "{log}");
    drop((holder, waiter));
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn holds_sessions_and_how_all_is_are_told() {
    let (world, rest) = with_daemon(Standing::Runner);
    world.seed("f", "");
    world.gate(["mount", "add", "source", "view", "--start"]).run().success();
    let mut hold = world.gate(["hold", "view/f", "--reason", "lunch", "--", "cat"]);
    hold = hold.within(SOON * 6);
    let mut hold = hold.start_with_input();
    world.await_held("f", 1);
    let holds = rest.ask("GET", "/api/v0/holds").body["holds"].clone();
    assert_eq!(holds.as_array().unwrap().len(), 1, "{holds}");
    assert_eq!((&holds[0]["path"], &holds[0]["reason"]), (&json!("f"), &json!("lunch")));
    let sessions = rest.ask("GET", "/api/v0/sessions").body["sessions"].clone();
    let named = |name: &str| {
        let is_it = |session: &&Value| session["name"].as_str().unwrap().starts_with(name);
        let found = sessions.as_array().unwrap().iter().find(is_it);
        found.unwrap_or_else(|| panic!("{name}: {sessions}")).clone()
    };
    let [view, holder] = [named("gate mount"), named("gate hold")];
    assert_eq!(view["spaces"], holder["spaces"]);
    assert_eq!((&holder["away"], &holder["elsewhere"]), (&json!(false), &json!(false)));
    assert_eq!(holder["lease_ms"], 10_000);
    assert!(kernel::processes_of(world.home()).iter().any(|(pid, _)| view["pid"] == *pid));
    let status = rest.ask("GET", "/api/v0/status").body;
    assert_eq!((&status["version"], &status["broker"]["held"]), (&json!(1), &json!(1)));
    let counts = json!({"stopped": 0, "starting": 0, "running": 1, "stopping": 0, "error": 0});
    assert_eq!(status["mounts"], counts);
    assert_eq!(rest.ask("GET", "/_status/livez").body["status"], "ok");
    assert_eq!(rest.ask("GET", "/_status/readyz").status, 200);
    let identity = rest.ask("GET", "/_status/identity").body;
    assert_eq!((&identity["pid"], &identity["user"]), (&status["broker"]["pid"], &json!(0)));
    let version = rest.ask("GET", "/_status/version").body;
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(rest.ask("GET", "/v1/locks/status").status, 200, "the broker's own is there, too");
    let figures = rest.ask("GET", "/metrics").body;
    for line in
        ["gate_mounts{status=\"running\"} 1", "gate_mounts{status=\"error\"} 0", "gate_held 1"]
    {
        assert!(figures.as_str().unwrap().lines().any(|told| told == line), "{line}: {figures}");
    }
    drop(hold.stdin());
    assert_eq!(hold.finish(SOON).code, Some(0));
    world.gate(["daemon", "stop"]).run().success();
}

/// N12: by TCP nothing is told without a token, and a token does what it says.
#[test]
fn n12_at_a_port_a_token_is_asked_for_and_says_what_may_be_done() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    let port = world.http().port;
    let words = port.to_string();
    world.gate(["daemon", "start", "--api-port", &words]).run().success();
    let own = world.state().join("api.tokens");
    assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&own).unwrap();
    let admin = text.trim().strip_prefix("admin ").unwrap();
    for path in [MOUNTS, "/api/v0/locks", "/_status/livez", "/metrics", "/nothing"] {
        assert_eq!(Rest::at_port(port, None).ask("GET", path).status, 401, "{path}");
        assert_eq!(Rest::at_port(port, Some("wrong")).ask("GET", path).status, 401, "{path}");
    }
    assert_eq!(Rest::at_port(port, Some(admin)).ask("GET", MOUNTS).status, 200);
    let secret = world.home().join("tokens");
    let (reader, other) = ("reader-0123456789abcdefghijklmnop", "admin-0123456789abcdefghijklmnop");
    fs::write(&secret, format!("read {reader}\nadmin {other}\n")).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    world.gate(["daemon", "restart", "--api-token-file", "tokens"]).run().success();
    wait_until(SOON, "it is there at the same port", || {
        Rest::at_port(port, Some(reader)).ask("GET", MOUNTS).status == 200
    });
    assert_eq!(Rest::at_port(port, Some(admin)).ask("GET", MOUNTS).status, 401);
    let body = json!({"source": world.source(), "mount_point": world.view()});
    let refused = Rest::at_port(port, Some(reader)).tell("POST", MOUNTS, &body);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(Rest::at_port(port, Some(other)).tell("POST", MOUNTS, &body).status, 201);
    let told = world.gate(["log", "--json"]).run().success();
    assert!(!told.contains(other) && !told.contains(reader), "{told}");
    world.gate(["daemon", "stop"]).run().success();
}

/// By random requests that the document allows, and others: each answer is one that it names.
#[test]
fn whatever_is_asked_is_answered_as_it_is_documented() {
    let mut world = World::bare_of_ordinary_user();
    world.find_broker_by_socket();
    let port = world.http().port;
    world.gate(["daemon", "start", "--api-port", &port.to_string()]).run().success();
    let text = fs::read_to_string(world.state().join("api.tokens")).unwrap();
    let admin = text.trim().strip_prefix("admin ").unwrap();
    let rest = Rest::at_port(port, Some(admin));
    let document = rest.ask("GET", "/api/v0/openapi.json");
    assert_eq!(document.body["info"]["version"], env!("CARGO_PKG_VERSION"));
    let requests = scaled(20, 1_000).to_string();
    let url = format!("http://127.0.0.1:{port}/api/v0/openapi.json");
    let header = format!("Authorization: Bearer {admin}");
    let words = ["run", &url, "--header", &header, "--max-examples", &requests];
    // Whether a directory is there no document can tell.
    let without = ["--exclude-checks", "positive_data_acceptance", "--no-color"];
    // A stream has no end.
    let endless = ["--exclude-path", "/api/v0/mounts/events"];
    // In the long tier another dice is thrown each time.
    let seed: &[&str] = if is_soak() { &[] } else { &["--seed", "1"] };
    let tool = Run::new(Command::new(find_program("schemathesis")), world.home());
    let asked = tool
        .args(words)
        .args(without)
        .args(endless)
        .args(seed)
        .dir(world.home())
        .within(SOON * 12)
        .run();
    assert_eq!(asked.code, Some(0), "{asked}");
    assert_eq!(rest.ask("GET", "/_status/readyz").status, 200, "it goes on");
    world.gate(["daemon", "stop"]).run().success();
}

#[test]
fn a_port_that_is_taken_and_a_second_daemon_are_refused_with_a_hint() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = world.gate(["daemon", "start", "--api-port", &port]).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.refusal().contains("--api-port"));
    assert_eq!(world.gate(["daemon", "status"]).run().code, Some(1), "it did not stay");
    world.gate(["daemon", "start"]).run().success();
    let second = world.gate(["daemon", "run"]).run();
    assert_eq!(second.code, Some(1), "{second}");
    assert!(second.refusal().contains("is the broker of"));
    let again = world.gate(["daemon", "start"]).run().success();
    assert!(again.contains("it runs already"), "{again}");
    world.gate(["daemon", "stop"]).run().success();
}
