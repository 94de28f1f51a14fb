//! The HTTP interface, as clients that know nothing of Gate's frames rely on it.

use gate_tests::World;
use gate_tests::http::{Http, Reply};
use gate_tests::older::Older;
use gate_tests::wait::{SOON, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

#[test]
fn a_grant_a_heartbeat_a_release() {
    let (_world, http) = broker();
    let granted = acquire(http, "a/b", "write", "ada", &json!({}));
    let id = granted.lock_id();
    let lock = &granted.body["lock"];
    assert_eq!(
        (&lock["path"], &lock["mode"], &lock["owner"]),
        (&json!("a/b"), &json!("write"), &json!("ada"))
    );
    assert_eq!((&lock["hold_count"], &lock["max_hold_ms"]), (&json!(1), &json!(3_600_000)));
    for time in ["acquired_at", "lease_expires_at"] {
        assert!(lock[time].as_str().is_some_and(is_rfc_3339_utc), "{time}: {lock}");
    }

    let beat = http.post("/v1/locks/heartbeat", &json!({"lock_id": id, "owner": "ada"}));
    assert_eq!((beat.status, &beat.body["status"]), (200, &json!("ok")));
    let status = http.get("/v1/locks/status?path=a/b");
    assert_eq!(status.status, 200);
    assert_eq!(status.body["locks"][0]["lock_id"], json!(id));
    assert_eq!(status.body["queue"], json!([]));

    let released = release(http, &id, "ada");
    assert_eq!((released.status, &released.body["status"]), (200, &json!("released")));
    assert_eq!(http.get("/v1/locks/status").body["locks"], json!([]));
    assert_eq!(release(http, &id, "ada").status, 404);
}

#[test]
fn a_second_owner_waits_in_line_and_is_told_when_it_is_its_turn() {
    let (_world, http) = broker();
    let first = acquire(http, "f", "write", "ada", &json!({})).lock_id();
    let body = json!({"path": "/f", "mode": "read", "owner": "bob"});
    let pending = http.send("POST", "/v1/locks/acquire", body.to_string().as_bytes());
    await_queue(http, 1);
    let queue = http.get("/v1/locks/status?path=f").body["queue"].clone();
    assert_eq!((&queue[0]["path"], &queue[0]["owner"]), (&json!("f"), &json!("bob")));
    assert_eq!(queue[0]["mode"], json!("read"));
    assert!(queue[0]["req_id"].is_string() && queue[0]["requested_at"].is_string(), "{queue}");
    assert!(pending.is_waiting());
    assert_eq!(release(http, &first, "ada").status, 200);
    let second = pending.reply(SOON).lock_id();
    assert_eq!(release(http, &second, "bob").status, 200);
}

#[test]
fn a_client_that_goes_away_while_it_waits_loses_its_place_at_once() {
    let (_world, http) = broker();
    let first = acquire(http, "f", "write", "ada", &json!({})).lock_id();
    let body = json!({"path": "f", "mode": "write", "owner": "bob"});
    let pending = http.send("POST", "/v1/locks/acquire", body.to_string().as_bytes());
    await_queue(http, 1);
    drop(pending);
    await_queue(http, 0);
    release(http, &first, "ada");
    assert_eq!(acquire(http, "f", "write", "eve", &json!({"timeout_ms": 0})).status, 200);
}

#[test]
fn a_time_out_of_zero_tries_once_and_another_waits_that_long() {
    let (_world, http) = broker();
    let _held = acquire(http, "f", "write", "ada", &json!({})).lock_id();
    for timeout_ms in [0, 50] {
        let refused = acquire(http, "f", "read", "bob", &json!({"timeout_ms": timeout_ms}));
        assert_eq!((refused.status, refused.body), (408, json!({"status": "timeout"})));
    }
    await_queue(http, 0);
}

#[test]
fn the_same_owner_enters_again_and_counts() {
    let (_world, http) = broker();
    let id = acquire(http, "f", "write", "ada", &json!({})).lock_id();
    let again = acquire(http, "f", "read", "ada", &json!({}));
    assert_eq!((again.lock_id(), &again.body["lock"]["hold_count"]), (id.clone(), &json!(2)));
    assert_eq!(again.body["lock"]["mode"], json!("write"), "a read under its own write");
    assert_eq!(release(http, &id, "ada").status, 200);
    assert_eq!(acquire(http, "f", "read", "bob", &json!({"timeout_ms": 0})).status, 408);
    assert_eq!(release(http, &id, "ada").status, 200);
    assert_eq!(acquire(http, "f", "read", "bob", &json!({"timeout_ms": 0})).status, 200);
}

#[test]
fn an_upgrade_keeps_the_lock_and_the_younger_of_two_is_refused() {
    let (_world, http) = broker();
    let ada = acquire(http, "f", "read", "ada", &json!({})).lock_id();
    let alone = acquire(http, "f", "write", "ada", &json!({}));
    assert_eq!((alone.lock_id(), &alone.body["lock"]["mode"]), (ada.clone(), &json!("write")));
    assert_eq!(alone.body["lock"]["hold_count"], json!(2));
    release(http, &ada, "ada");
    release(http, &ada, "ada");

    let ada = acquire(http, "f", "read", "ada", &json!({})).lock_id();
    let bob = acquire(http, "f", "read", "bob", &json!({})).lock_id();
    let body = json!({"path": "f", "mode": "write", "owner": "ada"});
    let pending = http.send("POST", "/v1/locks/acquire", body.to_string().as_bytes());
    await_queue(http, 1);
    let refused = acquire(http, "f", "write", "bob", &json!({}));
    assert_eq!((refused.status, &refused.body["error"]), (409, &json!("deadlock")));
    release(http, &bob, "bob");
    assert_eq!(pending.reply(SOON).lock_id(), ada);
}

#[test]
fn a_lease_or_a_hold_that_ran_out_frees_the_lock() {
    let (_world, http) = broker();
    for limit in [json!({"lease_ms": 100}), json!({"max_hold_ms": 100})] {
        let id = acquire(http, "f", "write", "ada", &limit).lock_id();
        let next = acquire(http, "f", "write", "bob", &json!({})).lock_id();
        let beat = http.post("/v1/locks/heartbeat", &json!({"lock_id": id, "owner": "ada"}));
        assert_eq!(beat.status, 404);
        release(http, &next, "bob");
    }
    let uncapped = acquire(http, "f", "write", "ada", &json!({"max_hold_ms": null}));
    assert_eq!(uncapped.body["lock"]["max_hold_ms"], Value::Null);
}

#[test]
fn refusals_have_their_status_and_their_shape() {
    let (_world, http) = broker();
    let id = acquire(http, "f", "write", "ada", &json!({})).lock_id();
    for path in ["release", "heartbeat"] {
        let path = format!("/v1/locks/{path}");
        let refused = |status, body: &Value| {
            let reply = http.post(&path, body);
            assert_eq!(reply.status, status, "{path} {body}: {reply:?}");
            assert!(reply.body["error"].is_string(), "{path} {body}: {reply:?}");
        };
        refused(403, &json!({"lock_id": id, "owner": "bob"}));
        refused(404, &json!({"lock_id": "nothing", "owner": "ada"}));
        refused(400, &json!({"lock_id": id}));
    }
    let long = "x".repeat(5000);
    for body in [
        json!({"mode": "write", "owner": "ada"}),
        json!({"path": "f", "mode": "write"}),
        json!({"path": "f", "mode": "steal", "owner": "ada"}),
        json!({"path": "f", "mode": "write", "owner": ""}),
        json!({"path": "../f", "mode": "write", "owner": "ada"}),
        json!({"path": "f", "mode": "write", "owner": "ada", "timeout_ms": -1}),
    ] {
        let reply = http.post("/v1/locks/acquire", &body);
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
        assert!(reply.body["error"].is_string(), "{body}: {reply:?}");
    }
    for (body, limit) in [
        (json!({"path": long, "mode": "write", "owner": "ada"}), "path-bytes"),
        (json!({"path": "f", "mode": "write", "owner": long}), "text-bytes"),
    ] {
        let reply = http.post("/v1/locks/acquire", &body);
        assert_eq!(reply.status, 429, "{body}: {reply:?}");
        assert_eq!(reply.body["error"], format!("limit: {limit}"));
    }
    for nonsense in ["", "{", "[]"] {
        let reply = http.send("POST", "/v1/locks/acquire", nonsense.as_bytes()).reply(SOON);
        assert_eq!(reply.status, 400, "{nonsense}: {reply:?}");
    }
    let flood = vec![b' '; 70_000];
    let reply = http.send("POST", "/v1/locks/acquire", &flood).reply(SOON);
    assert!([400, 413].contains(&reply.status), "{reply:?}");
    assert_eq!(http.get("/v1/nothing").status, 404);
}

#[test]
fn a_v1_lock_blocks_an_open_in_a_view_and_the_other_way_round() {
    let world = World::new();
    world.seed("a/b", "text");
    let http = world.http();
    let id = acquire(http, "/a/b", "write", "ada", &json!({})).lock_id();
    let mut actor = world.actor(&world.view());
    actor.tell(["open", "r", "a/b"]);
    world.await_waiting("a/b", 1);
    assert!(actor.is_busy());
    release(http, &id, "ada");
    let fd = actor.opened();

    let body = json!({"path": "a/b", "mode": "write", "owner": "ada"});
    assert_eq!(acquire(http, "a/b", "write", "ada", &json!({"timeout_ms": 0})).status, 408);
    let pending = http.send("POST", "/v1/locks/acquire", body.to_string().as_bytes());
    await_queue(http, 1);
    actor.close(fd);
    assert_eq!(pending.reply(SOON).status, 200);
}

#[test]
fn v1_locks_outlive_a_restart_and_v1_waiters_do_not() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    let http = world.http();
    let id = acquire(http, "f", "write", "ada", &json!({})).lock_id();
    let body = json!({"path": "f", "mode": "write", "owner": "bob"});
    let _pending = http.send("POST", "/v1/locks/acquire", body.to_string().as_bytes());
    await_queue(http, 1);
    world.kill_broker();
    world.start_broker([""; 0]);
    let status = http.get("/v1/locks/status").body;
    assert_eq!((&status["locks"][0]["lock_id"], &status["queue"]), (&json!(id), &json!([])));
    assert_eq!(acquire(http, "f", "write", "bob", &json!({"timeout_ms": 0})).status, 408);
    assert_eq!(release(http, &id, "ada").status, 200);
}

#[test]
fn pages_of_other_origins_and_names_are_refused() {
    let (world, _http) = broker();
    let port = world.http().port;
    for head in
        ["Host: evil.example", &format!("Host: 127.0.0.1:{port}\r\nOrigin: http://evil.example")]
    {
        let script = "exec 3<>/dev/tcp/127.0.0.1/$1; printf 'GET /v1/locks/status HTTP/1.1\\r\\n%s\\r\\nConnection: close\\r\\n\\r\\n' \"$2\" >&3; head -n 1 <&3";
        let run = world.script(world.home(), script).args(["-", &port.to_string(), head]);
        let line = run.run().success();
        assert!(line.starts_with("HTTP/1.1 403"), "{head}: {line}");
    }
}

#[test]
fn views_at_an_older_broker_take_turns() {
    let (world, older) = at_an_older_broker();
    let mut one = world.actor(&world.view());
    let mut other = world.actor(&world.twin());
    let writing = one.open("w", "f");
    other.tell(["open", "r", "f"]);
    await_queue(world.http(), 1);
    assert!(other.is_busy());
    // What a process has already costs it nothing, though v1 knows no processes.
    let reading = one.open("r", "f");
    one.ask(["chmod", "f", "600"]).unwrap();
    one.close(writing);
    assert!(other.is_busy(), "the other handle is still open");
    one.close(reading);
    let reading = other.opened();

    one.tell(["rename", "f", "g"]);
    await_queue(world.http(), 1);
    other.close(reading);
    one.answer().unwrap();
    assert_eq!(world.source_text("g"), "text");
    await_locks(world.http(), 0);

    let reading = one.open("r", "g");
    let board = world.gate(["locks"]).args(older.flags()).run();
    assert!(board.stderr.contains("older"), "it is said once: {board}");
    let board = board.success();
    assert!(board.contains(" g ") && board.contains("held"), "{board}");
    one.close(reading);
}

#[test]
fn a_v1_lock_blocks_an_open_at_an_older_broker() {
    let (world, _older) = at_an_older_broker();
    let http = world.http();
    let id = acquire(http, "f", "write", "ada", &json!({})).lock_id();
    let mut actor = world.actor(&world.view());
    actor.tell(["open", "r", "f"]);
    await_queue(http, 1);
    release(http, &id, "ada");
    let reading = actor.opened();
    assert_eq!(acquire(http, "f", "write", "ada", &json!({"timeout_ms": 0})).status, 408);
    actor.close(reading);

    let id = acquire(http, "f", "read", "ada", &json!({})).lock_id();
    actor.tell(["open", "w", "f"]);
    await_queue(http, 1);
    actor.signal(Signal::KILL);
    await_queue(http, 0);
    release(http, &id, "ada");
    await_locks(http, 0);
}

#[test]
fn a_lease_at_an_older_broker_is_renewed_while_its_view_lives() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.seed("f", "text");
    let [source, view] = [world.source(), world.view()];
    let older = Older::before(world.http());
    let flags = [older.flags().to_vec(), vec!["--lease-ms".into(), "500".into()]].concat();
    world.mount(&source, &view, flags);
    let mut actor = world.actor(&view);
    let writing = actor.open("w", "f");
    let http = world.http();
    // Three leases long.
    assert_eq!(acquire(http, "f", "read", "ada", &json!({"timeout_ms": 1500})).status, 408);
    assert_eq!(actor.write(writing, "more").unwrap(), "4");
    world.server_of(&view).signal(Signal::KILL);
    let id = acquire(http, "f", "write", "ada", &json!({})).lock_id();
    release(http, &id, "ada");
    drop(actor);
    world.bury(&view);
}

#[test]
fn an_older_broker_may_go_and_come_back() {
    let (mut world, _older) = at_an_older_broker();
    let mut holder = world.actor(&world.view());
    let mut waiter = world.actor(&world.twin());
    let writing = holder.open("w", "f");
    waiter.tell(["open", "r", "f"]);
    await_queue(world.http(), 1);
    world.kill_broker();
    assert_eq!(holder.write(writing, "more").unwrap(), "4");
    world.start_broker([""; 0]);
    await_queue(world.http(), 1);
    assert!(waiter.is_busy(), "what is held outlives the outage");
    holder.close(writing);
    let reading = waiter.opened();
    assert_eq!(waiter.read(reading, 4).unwrap(), "more");
    waiter.close(reading);
    await_locks(world.http(), 0);
}

#[test]
fn what_an_older_broker_cannot_do_is_refused_by_name() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    let flags = Older::before(world.http()).flags();
    let mount = ["mount", "--foreground", "source", "view", "--space", "mine"].map(str::to_owned);
    let outcome = world.gate([mount.to_vec(), flags.to_vec()].concat()).run();
    assert_ne!(outcome.code, Some(0), "{outcome}");
    assert!(outcome.stderr.contains("no space `mine`"), "{outcome}");
}

/// Makes a world with two views of one source, at the view's and at the twin's place, whose
/// broker seems to know v1 alone.
fn at_an_older_broker() -> (World, Older) {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.seed("f", "text");
    let older = Older::before(world.http());
    let source = world.source();
    for point in [world.view(), world.twin()] {
        world.mount(&source, &point, older.flags());
    }
    (world, older)
}

fn await_locks(http: Http, count: usize) {
    wait_until(SOON, &format!("{count} locks"), || {
        http.get("/v1/locks/status").body["locks"].as_array().unwrap().len() == count
    });
}

fn broker() -> (World, Http) {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    let http = world.http();
    (world, http)
}

fn acquire(http: Http, path: &str, mode: &str, owner: &str, more: &Value) -> Reply {
    let mut body = json!({"path": path, "mode": mode, "owner": owner});
    let extra = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(extra);
    http.post("/v1/locks/acquire", &body)
}

fn release(http: Http, id: &str, owner: &str) -> Reply {
    http.post("/v1/locks/release", &json!({"lock_id": id, "owner": owner}))
}

fn await_queue(http: Http, length: usize) {
    wait_until(SOON, &format!("{length} in the queue"), || {
        http.get("/v1/locks/status").body["queue"].as_array().unwrap().len() == length
    });
}

/// `2026-01-02T03:04:05.678Z`
fn is_rfc_3339_utc(time: &str) -> bool {
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let seconds = shape.strip_prefix("0000-00-00T00:00:00");
    seconds.is_some_and(|rest| rest.trim_start_matches(['.', '0']) == "Z")
}
