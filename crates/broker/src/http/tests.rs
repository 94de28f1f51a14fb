//! The HTTP interface over real TCP.

mod sign_in;
mod tokens;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use gate_api::Address;
use gate_api::wire::{Line, LineState, Scope};
use gate_core::lock::want::{Access, Op};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tests::{SOON, connect, connect_to, source};
use crate::{Broker, Listen, Options, Policy, Running, StartError};

struct Served {
    broker: Running,
    _state: TempDir,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    body: Value,
}

/// A request whose answer was not read yet.
struct Pending(TcpStream);

fn serve() -> Served {
    let state = tempfile::tempdir().unwrap();
    serve_in(state, |_| {})
}

fn serve_in(state: TempDir, adapt: impl FnOnce(&mut Options)) -> Served {
    let mut options = Options::new(state.path().to_owned());
    options.listen = Some(listen("127.0.0.1", Policy::Loopback));
    adapt(&mut options);
    Served { broker: Broker::start(options).unwrap(), _state: state }
}

fn listen(host: &str, policy: Policy) -> Listen {
    Listen { host: host.to_owned(), port: 0, policy }
}

impl Served {
    fn at(&self) -> SocketAddr {
        self.broker.http_address().unwrap()
    }

    fn raw(&self, head: &str, body: &[u8]) -> Pending {
        let mut stream = TcpStream::connect(self.at()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let head = format!("{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        // A server that refuses by the head may close before all of the body is sent.
        let _ = stream.write_all(&[head.as_bytes(), body].concat());
        Pending(stream)
    }

    fn send(&self, what: &str, body: &Value) -> Pending {
        let head = format!("POST /v1/locks/{what} HTTP/1.1\r\nHost: {}", self.at());
        self.raw(&head, body.to_string().as_bytes())
    }

    fn post(&self, what: &str, body: &Value) -> Reply {
        self.send(what, body).reply()
    }

    fn status(&self, query: &str) -> Value {
        let head = format!("GET /v1/locks/status{query} HTTP/1.1\r\nHost: {}", self.at());
        self.raw(&head, b"").reply().body
    }

    fn acquire(&self, path: &str, mode: &str, owner: &str) -> Reply {
        self.post("acquire", &json!({"path": path, "mode": mode, "owner": owner}))
    }

    /// Waits for the moment at which so many wait.
    fn await_queue(&self, count: usize) {
        let waits = |line: &&Line| matches!(line.state, LineState::Waiting { .. });
        self.await_lines(|lines| lines.iter().filter(waits).count() == count);
    }

    /// Waits for the moment at which all that is held and waited for is as it should be.
    fn await_lines(&self, is_so: impl Fn(&[Line]) -> bool) {
        let (client, mut version) = (connect(&self.broker.address(), "watch"), None);
        loop {
            let locks = client.session.locks(&Scope::Everything, version, SOON).unwrap();
            if is_so(&locks.lines) {
                return;
            }
            version = Some(locks.version);
        }
    }
}

impl Pending {
    #[track_caller]
    fn reply(mut self) -> Reply {
        let mut text = String::new();
        self.0.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, body: serde_json::from_str(body).unwrap_or(Value::Null) }
    }
}

fn lock_id(reply: &Reply) -> String {
    assert_eq!((reply.status, &reply.body["status"]), (200, &json!("granted")), "{reply:?}");
    reply.body["lock"]["lock_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_grant_has_all_the_fields_that_clients_rely_on() {
    let served = serve();
    let reply = served.acquire("/a//b", "write", "alice");
    let lock = &reply.body["lock"];
    assert_eq!(lock["path"], "a/b");
    assert_eq!(lock["mode"], "write");
    assert_eq!(lock["owner"], "alice");
    assert_eq!(lock["hold_count"], 1);
    assert_eq!(lock["max_hold_ms"], 3_600_000);
    let time = |field: &str| lock[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let lease = time("lease_expires_at").duration_since(time("acquired_at"));
    assert!((3_599..=3_601).contains(&lease.as_secs()), "{lease:?}");
    assert!(lock["acquired_at"].as_str().unwrap().ends_with('Z'));
    let board = served.status("?path=a/b");
    assert_eq!(board["locks"][0], *lock);
    assert_eq!(board["queue"], json!([]));
    assert_eq!(served.status("?path=a")["locks"], json!([]));
}

#[test]
fn owners_take_turns_in_order() {
    let served = serve();
    let first = lock_id(&served.acquire("f", "write", "a"));
    let second = served.send("acquire", &json!({"path": "f", "mode": "write", "owner": "b"}));
    served.await_queue(1);
    let third = served.send("acquire", &json!({"path": "f", "mode": "read", "owner": "c"}));
    served.await_queue(2);
    let queue = served.status("")["queue"].clone();
    assert_eq!([&queue[0]["owner"], &queue[1]["owner"]], ["b", "c"]);
    assert_eq!([&queue[0]["place"], &queue[1]["place"]], [1, 2]);
    served.post("release", &json!({"lock_id": first, "owner": "a"}));
    let second = lock_id(&second.reply());
    served.post("release", &json!({"lock_id": second, "owner": "b"}));
    lock_id(&third.reply());
}

#[test]
fn the_same_owner_reenters_and_upgrades_under_one_id() {
    let served = serve();
    let read = served.acquire("f", "read", "a");
    let write = served.acquire("f", "write", "a");
    assert_eq!(lock_id(&read), lock_id(&write));
    assert_eq!(
        (&write.body["lock"]["mode"], &write.body["lock"]["hold_count"]),
        (&json!("write"), &json!(2))
    );
    let again = served.acquire("f", "read", "a");
    assert_eq!(
        (&again.body["lock"]["mode"], &again.body["lock"]["hold_count"]),
        (&json!("write"), &json!(3))
    );
    let release = json!({"lock_id": lock_id(&read), "owner": "a"});
    for _ in 0..3 {
        assert_eq!(served.post("release", &release).body, json!({"status": "released"}));
    }
    let gone = served.post("release", &release);
    assert_eq!(gone.status, 404);
    assert!(gone.body["error"].is_string());
}

#[test]
fn a_try_and_a_timeout_answer_408_and_leave_no_place() {
    let served = serve();
    lock_id(&served.acquire("f", "write", "a"));
    for timeout_ms in [0, 20] {
        let body = json!({"path": "f", "mode": "read", "owner": "b", "timeout_ms": timeout_ms});
        let reply = served.post("acquire", &body);
        assert_eq!((reply.status, reply.body), (408, json!({"status": "timeout"})));
    }
    assert_eq!(served.status("")["queue"], json!([]));
}

#[test]
fn a_client_that_goes_away_loses_its_place_at_once() {
    let served = serve();
    let first = lock_id(&served.acquire("f", "write", "a"));
    let leaving = served.send("acquire", &json!({"path": "f", "mode": "write", "owner": "b"}));
    served.await_queue(1);
    let staying = served.send("acquire", &json!({"path": "f", "mode": "write", "owner": "c"}));
    served.await_queue(2);
    drop(leaving);
    served.await_queue(1);
    served.post("release", &json!({"lock_id": first, "owner": "a"}));
    lock_id(&staying.reply());
}

#[test]
fn two_requests_of_one_owner_share_a_place_and_each_has_its_own_patience() {
    let served = serve();
    let first = lock_id(&served.acquire("f", "write", "a"));
    let patient = served.send("acquire", &json!({"path": "f", "mode": "write", "owner": "b"}));
    served.await_queue(1);
    let hasty = json!({"path": "f", "mode": "write", "owner": "b", "timeout_ms": 20});
    assert_eq!(served.post("acquire", &hasty).status, 408);
    served.post("release", &json!({"lock_id": first, "owner": "a"}));
    let granted = patient.reply();
    assert_eq!(granted.body["lock"]["hold_count"], 1, "{granted:?}");
}

#[test]
fn the_wrong_owner_is_told_so() {
    let served = serve();
    let id = lock_id(&served.acquire("f", "write", "a"));
    for what in ["release", "heartbeat"] {
        assert_eq!(served.post(what, &json!({"lock_id": id, "owner": "b"})).status, 403);
        assert_eq!(served.post(what, &json!({"lock_id": "none", "owner": "a"})).status, 404);
        assert_eq!(served.post(what, &json!({"owner": "a"})).status, 400);
    }
    let ok = served.post("heartbeat", &json!({"lock_id": id, "owner": "a", "lease_ms": 5000}));
    assert_eq!((ok.status, ok.body), (200, json!({"status": "ok"})));
}

#[test]
fn a_lock_ends_with_its_lease_or_its_cap() {
    let served = serve();
    for field in ["lease_ms", "max_hold_ms"] {
        let body = json!({"path": "f", "mode": "write", "owner": field, field: 30});
        let id = lock_id(&served.post("acquire", &body));
        let next = lock_id(&served.acquire("f", "write", "next"));
        let late = served.post("heartbeat", &json!({"lock_id": id, "owner": field}));
        assert_eq!(late.status, 404, "{field}");
        served.post("release", &json!({"lock_id": next, "owner": "next"}));
    }
    let body = json!({"path": "g", "mode": "write", "owner": "a", "max_hold_ms": null});
    assert_eq!(served.post("acquire", &body).body["lock"]["max_hold_ms"], Value::Null);
}

#[test]
fn nonsense_is_refused_and_harms_nothing() {
    let served = serve();
    let nonsense = [
        json!({}),
        json!({"path": "f", "mode": "maybe", "owner": "a"}),
        json!({"path": "../f", "mode": "read", "owner": "a"}),
        json!({"path": "", "mode": "read", "owner": "a"}),
        json!({"path": "f", "mode": "read", "owner": ""}),
        json!({"path": "f", "mode": "read", "owner": "a", "lease_ms": 0}),
        json!({"path": "f", "mode": "read", "owner": "a", "lease_ms": u64::MAX, "max_hold_ms": 0}),
        json!({"path": "f", "mode": "read", "owner": "a", "timeout_ms": -1}),
        json!([1, 2]),
    ];
    for body in nonsense {
        let reply = served.post("acquire", &body);
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.body["error"].is_string(), "{body}");
    }
    let long_name = json!({"path": "f", "mode": "read", "owner": "o".repeat(257)});
    let reply = served.post("acquire", &long_name);
    assert_eq!((reply.status, &reply.body["error"]), (429, &json!("limit: text-bytes")));
    assert_eq!(reply.body["code"], "too_many_requests");
    assert!(reply.body["message"].is_string() && reply.body["hint"].is_string());
    let head = format!("POST /v1/locks/acquire HTTP/1.1\r\nHost: {}", served.at());
    assert_eq!(served.raw(&head, b"\xff{not json").reply().status, 400);
    let big = vec![b' '; gate_api::v1::BODY_BYTES_MAX + 1];
    let reply = served.raw(&head, &big).reply();
    assert_eq!(reply.status, 413);
    assert_eq!(reply.body["error"], "the body has more than 65536 bytes");
    let head = format!("GET /v1/locks/acquire HTTP/1.1\r\nHost: {}", served.at());
    let reply = served.raw(&head, b"").reply();
    assert!(reply.status == 405 && reply.body["error"].is_string(), "{reply:?}");
    let id = lock_id(&served.acquire("f", "read", "a"));
    let endless = json!({"lock_id": id, "owner": "a", "lease_ms": 1_u64 << 63});
    assert_eq!(served.post("heartbeat", &endless).status, 400);
}

#[test]
fn n16_who_speaks_other_frames_is_told_which_are_spoken_here() {
    let served = serve();
    for upgrade in ["", "\r\nConnection: upgrade\r\nUpgrade: gate-frames/2"] {
        let head = format!("GET /gate/frames HTTP/1.1\r\nHost: {}{upgrade}", served.at());
        let mut text = String::new();
        served.raw(&head, b"").0.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 426 "), "{text}");
        assert!(text.to_lowercase().contains("\r\nupgrade: gate-frames/1\r\n"), "{text}");
    }
}

#[test]
fn pages_of_other_sites_are_turned_away() {
    let served = serve();
    let cases = [
        ("Host: evil.example", 403),
        ("Host: 127.0.0.1.evil.example", 403),
        ("Host: 127.0.0.1\r\nOrigin: https://evil.example", 403),
        ("Host: 127.0.0.1\r\nOrigin: null", 403),
        ("Host: localhost:1\r\nOrigin: http://localhost:3000", 200),
        ("Host: [::1]:8787", 200),
    ];
    for (headers, status) in cases {
        let head = format!("GET /v1/locks/status HTTP/1.1\r\n{headers}");
        assert_eq!(served.raw(&head, b"").reply().status, status, "{headers}");
    }
}

#[test]
fn an_address_that_others_reach_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let mut options = Options::new(state.path().to_owned());
    options.listen = Some(listen("0.0.0.0", Policy::Loopback));
    assert!(matches!(
        Broker::start(options),
        Err(StartError::Listen(crate::ListenError::NeedsTokens(_)))
    ));
}

#[test]
fn views_by_host_and_port_and_stateless_clients_share_the_default_space() {
    let served = serve();
    let address = Address::Tcp { host: "127.0.0.1".to_owned(), port: served.at().port() };
    let mut source = source();
    source.by_host_and_port = true;
    let client = connect_to(&address, "view", source);
    assert_eq!(client.attachment.name, "default");
    let id = lock_id(&served.acquire("a/b", "write", "alice"));
    let owner = client.acquire(client.ask(Op::Open(Access::Read), "a/b"));
    owner.waits();
    served.post("release", &json!({"lock_id": id, "owner": "alice"}));
    let grant = owner.is_granted();
    let other = json!({"path": "a/b", "mode": "write", "owner": "alice", "timeout_ms": 0});
    assert_eq!(served.post("acquire", &other).status, 408);
    let board = served.status("");
    assert_eq!(board["locks"][0]["token"], grant.token.to_string());
    // Over TCP one may look, but not end what others hold.
    let broken = client.session.break_lock(grant.ticket.0, "stuck".to_owned());
    assert_eq!(broken, Err(gate_api::QueryError::Forbidden));
}

#[test]
fn locks_outlive_the_broker_and_places_in_line_do_not() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().to_owned();
    let served = serve_in(state, |_| {});
    let id = lock_id(&served.acquire("f", "write", "a"));
    let waiting = served.send("acquire", &json!({"path": "f", "mode": "write", "owner": "b"}));
    served.await_queue(1);
    let Served { broker, _state: state } = served;
    broker.stop().unwrap();
    drop(waiting);
    assert_eq!(state.path(), path);
    let served = serve_in(state, |_| {});
    let board = served.status("");
    assert_eq!(board["locks"][0]["lock_id"], id);
    assert_eq!(board["queue"], json!([]));
    let again = served.acquire("f", "write", "a");
    assert_eq!((lock_id(&again), &again.body["lock"]["hold_count"]), (id, &json!(2)));
}

#[test]
fn a_long_board_is_whole_though_it_is_read_page_by_page() {
    let served = serve();
    let client = connect_to(
        &Address::Tcp { host: "127.0.0.1".to_owned(), port: served.at().port() },
        "view",
        gate_api::wire::Source { by_host_and_port: true, ..source() },
    );
    let owners: Vec<_> = (0..300).map(|number| client.hold(&format!("f{number}"))).collect();
    for owner in &owners {
        owner.is_granted();
    }
    let waiters: Vec<_> = (0..200).map(|_| client.hold("f0")).collect();
    for waiter in &waiters {
        waiter.waits();
    }
    let board = served.status("");
    let [locks, queue] = ["locks", "queue"].map(|part| board[part].as_array().unwrap().clone());
    assert_eq!((locks.len(), queue.len()), (300, 200));
    let places: Vec<_> = queue.iter().map(|waiter| waiter["place"].as_u64().unwrap()).collect();
    assert!(places.is_sorted() && places[199] == 200, "{places:?}");
    let one = served.status("?path=f0");
    let lines = |part: &str| one[part].as_array().unwrap().len();
    assert_eq!((lines("locks"), lines("queue")), (1, 200));
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let served = serve();
    let mut stream = TcpStream::connect(served.at()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = format!("POST /v1/locks/acquire HTTP/1.1\r\nHost: {}", served.at());
    let head = format!("{head}\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{{");
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(Pending(stream).reply().status, 400);
}

#[test]
fn v1_clients_have_nothing_but_their_own() {
    let served = serve();
    let client = connect(&served.broker.address(), "view");
    let grant = client.hold("f").is_granted();
    let id = lock_id(&served.acquire("g", "write", "ada"));
    for (lock_id, owner, status) in [
        // Held by a session: shown to v1 clients, and not theirs.
        (format!("ticket-{}", grant.ticket), "test", 404),
        (format!("{:016x}", grant.owner), "test", 404),
        (id.clone(), "eve", 403),
        (id.clone(), "", 403),
        (format!("{id}0"), "ada", 404),
        ("-1".to_owned(), "ada", 404),
    ] {
        for what in ["release", "heartbeat"] {
            let reply = served.post(what, &json!({"lock_id": lock_id, "owner": owner}));
            assert_eq!(reply.status, status, "{what} {lock_id} {owner}");
        }
    }
    let waiting = client.hold("f");
    waiting.waits();
    assert_eq!(served.status("?path=g")["locks"][0]["owner"], "ada");
}
