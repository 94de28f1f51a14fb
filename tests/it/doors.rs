//! Who gets in at the broker's doors, and what for.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use gate_tests::World;
use gate_tests::run::{Run, Running};
use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::{ORDINARY_USER, User};
use rustix::process::Signal;
use serde_json::json;

const READ: &str = "read-read-read-0123456789abcdefgh";
const LOCK: &str = "lock-lock-lock-0123456789abcdefgh";
const WRONG: &str = "wrong-wrong-wrong-0123456789abcd";

#[test]
fn an_address_that_others_reach_is_refused_without_tokens() {
    let world = World::bare();
    let refusal = world.gate(["broker", "--host", "0.0.0.0"]).run().refusal();
    assert!(refusal.contains("--token-file"), "{refusal}");
    let refusal = world.gate(["broker", "--require-token"]).run().refusal();
    assert!(refusal.contains("--token-file"), "{refusal}");
}

#[test]
fn a_token_file_that_is_no_secret_or_makes_no_sense_is_refused_by_file_and_line() {
    let world = World::bare();
    let file = world.home().join("tokens");
    let refusal = |text: &str, mode: u32| {
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let broker = ["broker", "--host", "0.0.0.0"];
        let refusal = world.gate(broker).env("GATE_TOKEN_FILE", &file).run().refusal();
        assert!(!refusal.contains(LOCK), "{refusal}");
        refusal
    };
    let exposed = refusal(&format!("lock {LOCK}\n"), 0o644);
    assert!(exposed.contains("0644") && exposed.contains("chmod 600"), "{exposed}");
    let nonsense = refusal(&format!("# ours\nlock {LOCK}\nwrite {LOCK}\n"), 0o600);
    assert!(nonsense.contains("line 3") && nonsense.contains("scope"), "{nonsense}");
    let short = refusal("lock 0123456789abcdef\n", 0o600);
    assert!(short.contains("line 1") && short.contains("32 characters"), "{short}");
    assert!(refusal("", 0o600).contains("no token"));
}

/// In a network of its own, where this machine has an address that is not loopback.
#[test]
fn n12_who_comes_from_elsewhere_shows_a_token_which_shows_nowhere_else() {
    let world = World::bare();
    world.seed("f", "");
    secret(&world, "tokens", &format!("read {READ}\nlock {LOCK}\n"));
    for (name, token) in [("read", READ), ("lock", LOCK), ("wrong", WRONG)] {
        secret(&world, name, &format!("lock {token}\n"));
    }
    let script = r#"
        ip link set lo up && ip address add 192.0.2.1/32 dev lo
        export GATE_BROKER_HOST=192.0.2.1 GATE_LOG=trace
        gate broker --host 0.0.0.0 --token-file tokens 2> broker.log & broker=$!
        until grep -q 'broker ready' broker.log; do kill -0 $broker; done
        it() { "$@" 2>&1 && echo "exit 0" || echo "exit $?"; }
        get() { curl -sS -o /dev/null -w "%{http_code}\n" "$@"; }
        at=http://192.0.2.1:$GATE_BROKER_PORT/v1/locks

        echo "== no token"; it gate locks; get $at/status
        echo "== wrong token"; it gate locks --token-file wrong
        echo "== read token"; it gate locks --token-file read
        header="Authorization: Bearer $(cut -d' ' -f2 read)"
        get -H "$header" $at/status
        curl -sS -H "$header" -d '{}' $at/acquire; echo
        it gate mount source view --token-file read
        echo "== lock token"; export GATE_TOKEN_FILE=lock
        gate mount source view
        it gate hold view/f -- gate locks view/f
        gate umount view
        echo "== this machine"; export GATE_BROKER_HOST=127.0.0.1 GATE_TOKEN_FILE=
        it gate locks; get http://127.0.0.1:$GATE_BROKER_PORT/v1/locks/status
        kill $broker; wait $broker
    "#;
    let told = in_a_network_of_its_own(&world, script).run().success();
    let part = |name: &str| {
        let from = told.split_once(&format!("== {name}\n")).unwrap_or_else(|| panic!("{told}")).1;
        from.split("\n== ").next().unwrap().to_owned()
    };
    for (name, hint) in [("no token", "--token-file"), ("wrong token", "another one")] {
        assert!(part(name).contains("exit 2") && part(name).contains(hint), "{told}");
    }
    assert!(part("no token").ends_with("401"), "{told}");
    let read = part("read token");
    assert!(read.contains("exit 0\n200\n"), "{told}");
    assert!(read.contains("takes a token with the scope lock"), "{told}");
    assert!(read.contains("only the scope read") && read.contains("exit 1"), "{told}");
    assert!(part("lock token").contains("held"), "{told}");
    assert!(part("this machine").contains("exit 0\n200"), "{told}");
    let log = fs::read_to_string(world.home().join("broker.log")).unwrap();
    for token in [READ, LOCK, WRONG] {
        assert!(!told.contains(token) && !log.contains(token), "{told}\n{log}");
    }
}

#[test]
fn tokens_may_be_asked_for_on_this_machine_too() {
    let mut world = World::bare();
    secret(&world, "tokens", &format!("lock {LOCK}\n"));
    world.start_broker(["--token-file", "tokens", "--require-token"]);
    assert_eq!(world.http().get("/v1/locks/status").status, 401);
    let body = json!({"path": "f", "mode": "write", "owner": "ada"});
    assert_eq!(world.http().post("/v1/locks/acquire", &body).status, 401);
    let refusal = world.gate(["locks"]).run().refusal();
    assert!(refusal.contains("--token-file"), "{refusal}");
    world.gate(["locks", "--token-file", "tokens"]).run().success();
    fs::set_permissions(world.home().join("tokens"), Permissions::from_mode(0o604)).unwrap();
    let refusal = world.gate(["locks", "--token-file", "tokens"]).run().refusal();
    assert!(refusal.contains("0604"), "{refusal}");
    // The socket is its user's own.
    world.find_broker_by_socket();
    world.gate(["locks"]).run().success();
}

#[test]
fn another_user_is_turned_away_at_the_socket() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = World::bare();
    let state = world.home().join("fresh");
    world.start_broker(["--state-dir".as_ref(), state.as_os_str()]);
    let socket = state.join("gate.sock");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(&state)), (0o600, 0o700));
    // As if both had been set wrong: the kernel still says who is there.
    for (path, mode) in [(world.home(), 0o755), (&state, 0o755), (&socket, 0o666)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let gate = world.home().join("bin/gate");
    fs::copy(world.program("gate"), &gate).unwrap();
    let User { uid, gid } = ORDINARY_USER;
    let words = [format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()];
    let other = world.command("setpriv".as_ref()).args(words).args([gate.as_os_str()]);
    let refusal = other.args(["locks".as_ref(), "--state-dir".as_ref(), state.as_os_str()]);
    assert!(refusal.run().refusal().contains("does not answer"));
    world.gate(["locks"]).args(["--state-dir".as_ref(), state.as_os_str()]).run().success();
}

fn secret(world: &World, name: &str, text: &str) {
    let path = world.home().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
}

/// Prepares a script of `gate` commands that reaches nothing but itself.
fn in_a_network_of_its_own(world: &World, script: &str) -> Run {
    let flags = if rustix::process::geteuid().is_root() { "-n" } else { "-rn" };
    let gate = world.program("gate");
    let path = [gate.parent().unwrap(), Path::new("/usr/sbin"), Path::new("/sbin")];
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let path = path.iter().map(|dir| (*dir).to_owned()).chain(std::env::split_paths(&rest));
    let path: OsString = std::env::join_paths(path).unwrap();
    let words = [flags, "bash", "-euo", "pipefail", "-c", script];
    world.command("unshare".as_ref()).args(words).env("PATH", path)
}

#[test]
fn a_flood_over_tcp_leaves_descriptors_for_who_comes_by_the_socket() {
    let world = World::bare_of_ordinary_user();
    let broker = broker_with_few_descriptors(&world);
    let port = world.http().port;
    let flood: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap()).collect();
    wait_until(SOON, "the flood is turned away", || broker.so_far().contains("turned away"));
    let locks = world.gate(["locks", "--json"]);
    let locks = locks.without_env("GATE_BROKER_HOST").without_env("GATE_BROKER_PORT").run();
    assert!(locks.success().contains("\"locks\""));
    assert_eq!(broker.so_far().matches("turned away").count(), 1, "{}", broker.so_far());
    drop(flood);
    let mut answered = || world.http().get("/v1/locks/status").status == 200;
    wait_until(SOON, "who comes after the flood is let in", &mut answered);
    end(broker);
}

#[test]
fn without_descriptors_the_broker_says_so_once_and_goes_on_when_there_are_some() {
    let world = World::bare_of_ordinary_user();
    let broker = broker_with_few_descriptors(&world);
    let socket = world.state().join("gate.sock");
    let crowd: Vec<UnixStream> = (0..200).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    wait_until(SOON, "no descriptor is left", || broker.so_far().contains("a client could not"));
    let waiting = world.http().send("GET", "/v1/locks/status", b"");
    let told = || broker.so_far().matches("an HTTP client could not be let in").count();
    wait_until(SOON, "it is told that there is none for HTTP", || told() > 0);
    // By the socket it is told anew each second: until then HTTP tried some times.
    let by_socket = || broker.so_far().matches(" a client could not be let in").count();
    let before = by_socket();
    wait_until(SOON, "time has passed", || by_socket() > before);
    assert_eq!(told(), 1);
    drop(crowd);
    assert_eq!(waiting.reply(SOON).status, 200);
    end(broker);
}

/// Starts a broker that may have 128 files open.
fn broker_with_few_descriptors(world: &World) -> Running {
    // Root would raise the limit.
    let broker = world.command("prlimit".as_ref()).args(["--nofile=128"]);
    let broker = broker.args([world.program("gate").as_os_str(), "broker".as_ref()]).start();
    wait_until(SOON, "the broker listens", || {
        assert!(broker.is_running(), "the broker ended: {}", broker.so_far());
        TcpStream::connect((Ipv4Addr::LOCALHOST, world.http().port)).is_ok()
    });
    broker
}

fn end(broker: Running) {
    broker.signal(Signal::TERM);
    assert_eq!(broker.finish(SOON).code, Some(0));
}
