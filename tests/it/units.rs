//! The units by which systemd keeps a daemon running, and what it hears of one.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::Path;

use gate_tests::kernel::WORLD_VARIABLE;
use gate_tests::rest::{MOUNTS, Rest};
use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn a_unit_is_written_shown_and_taken_away() {
    for standing in [Standing::Runner, Standing::OrdinaryUser] {
        let mut world = World::bare_of(standing);
        world.unset_env("GATE_STATE_DIR");
        let daemon = |words: &[&str]| world.gate(["daemon"]).args(words).run();
        let path = world.home().join("home/.config/systemd/user/gate.service");
        let printed = daemon(&["install", "--user", "--print"]).success();
        assert!(!path.exists(), "it is shown and no more");
        let program = format!("ExecStart=\"{}\" daemon run\n", world.program("gate").display());
        assert!(printed.contains(&program) && printed.contains("KillMode=process\n"), "{printed}");
        let written = daemon(&["install", "--user"]).success();
        assert!(written.contains("systemctl --user enable --now gate"), "{written}");
        assert!(written.contains(path.to_str().unwrap()), "{written}");
        assert_eq!(fs::read_to_string(&path).unwrap(), printed);
        let socket = path.with_file_name("gate.socket");
        let printed_socket = daemon(&["install", "--user", "--print=socket"]).success();
        assert_eq!(fs::read_to_string(&socket).unwrap(), printed_socket);
        let listens = "ListenStream=%h/.local/state/gate/http.sock\nSocketMode=0600\n";
        assert!(printed_socket.contains(listens), "{printed_socket}");
        let again = daemon(&["install", "--user"]).success();
        assert!(again.contains("is there already"), "{again}");
        daemon(&["install", "--user", "--state-dir", "/x y", "--lease-ms", "500"]).success();
        let other = fs::read_to_string(&path).unwrap();
        assert!(
            other.contains("--state-dir \"/x y\" --lease-ms \"500\"\n"),
            "what nobody changed is replaced: {other}"
        );
        let listens = fs::read_to_string(&socket).unwrap();
        assert!(listens.contains("ListenStream=/x y/http.sock\n"), "{listens}");
        fs::write(&path, format!("{other}Nice=5\n")).unwrap();
        for verb in ["install", "uninstall"] {
            let refused = daemon(&[verb, "--user"]).refusal();
            assert!(
                refused.contains("somebody changed it") && refused.contains("--force"),
                "{refused}"
            );
        }
        assert!(fs::read_to_string(&path).unwrap().ends_with("Nice=5\n"));
        daemon(&["install", "--user", "--force"]).success();
        assert_eq!(fs::read_to_string(&path).unwrap(), printed);
        for (target, unit) in [("default", "gate.service"), ("sockets", "gate.socket")] {
            let wants = path.with_file_name(format!("{target}.target.wants"));
            fs::create_dir(&wants).unwrap();
            std::os::unix::fs::symlink(path.with_file_name(unit), wants.join(unit)).unwrap();
            let refused = daemon(&["uninstall", "--user"]).refusal();
            let hint = format!("systemctl --user disable --now {unit}");
            assert!(refused.contains(&hint), "{refused}");
            assert!(path.exists() && socket.exists(), "all or nothing");
            fs::remove_dir_all(&wants).unwrap();
        }
        daemon(&["uninstall", "--user"]).success();
        assert!(!path.exists() && !socket.exists());
        let none = daemon(&["uninstall", "--user"]).success();
        assert!(none.contains("there is no"), "{none}");
        let refused = daemon(&["status", "--force"]).refusal();
        assert!(refused.contains("for install and uninstall"), "{refused}");
    }
}

/// It complains of what it does not know, and goes on: a word on standard error is what counts.
#[test]
fn systemd_understands_every_word_of_the_units() {
    let mut world = World::bare();
    world.unset_env("GATE_STATE_DIR");
    for (whose, manager) in [("--system", "--system"), ("--user", "--user")] {
        for (print, name) in [("--print", "gate.service"), ("--print=socket", "gate.socket")] {
            let unit = world.gate(["daemon", "install", print, whose]).run().success();
            fs::write(world.home().join(name), &unit).unwrap();
        }
        let verify = ["verify", "--man=no", manager, "./gate.service", "./gate.socket"];
        let verified = world.command("systemd-analyze".as_ref()).args(verify).run();
        assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""), "{verified}");
    }
}

#[test]
fn who_starts_a_daemon_is_told_when_it_is_ready_and_when_it_ends() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    let path = world.home().join("notify");
    let name = world.home().join("abstract").display().to_string();
    let sockets = [
        (path.display().to_string(), UnixDatagram::bind(&path).unwrap()),
        (
            format!("@{name}"),
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
        ),
    ];
    for (variable, socket) in sockets {
        socket.set_read_timeout(Some(SOON)).unwrap();
        let hear = || {
            let mut bytes = [0; 64];
            let length = socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        let daemon = world.gate(["daemon"]).env("NOTIFY_SOCKET", &variable).start();
        assert_eq!(hear(), "READY=1");
        world.gate(["daemon", "status"]).run().success();
        let refused = world.gate(["daemon", "restart"]).run().refusal();
        assert!(refused.contains("restart gate`"), "{refused}");
        world.gate(["mount", "add", "source", "view", "--start"]).run().success();
        let of_mount = |(pid, line): &(i32, String)| line.contains(" mount ").then_some(*pid);
        let view = kernel::processes_of(world.home()).iter().find_map(of_mount).unwrap();
        let variables = fs::read(format!("/proc/{view}/environ")).unwrap();
        let variables = String::from_utf8_lossy(&variables).into_owned();
        assert!(!variables.contains("NOTIFY_SOCKET"), "what it starts speaks for itself alone");
        daemon.signal(Signal::TERM);
        assert_eq!(hear(), "STOPPING=1");
        assert_eq!(daemon.finish(SOON).code, Some(0));
        let is_mounted = || !kernel::mounts_below(&world.view()).is_empty();
        assert!(is_mounted(), "a daemon that is told to end hands its mounts over");
        world.gate(["umount", "view"]).run().success();
        wait_until(SOON, "the view is gone", || !is_mounted());
        fs::remove_file(world.state().join("mounts.sqlite")).unwrap();
    }
}

/// Listens at a socket until somebody comes, and runs the daemon then, as systemd does by the socket's unit.
fn keep(world: &World, socket: &Path) -> Running {
    let keeper = world.command("systemd-socket-activate".as_ref());
    let keeper = keeper.args(["--setenv", WORLD_VARIABLE, "--listen"]).args([socket]);
    let keeper = keeper.args([world.program("gate")]);
    let keeper = keeper.args(["daemon", "run", "--state-dir"]).args([world.state()]).start();
    wait_until(SOON, "somebody listens", || is_listened_at(socket));
    keeper
}

/// The name is there before anybody listens, and who comes then is refused; who looks by coming would start the daemon.
fn is_listened_at(socket: &Path) -> bool {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let mut lines = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.any(
        |words| matches!(words[..], [_, _, _, LISTENS, _, _, _, path] if Path::new(path) == socket),
    )
}

/// How the kernel marks a socket that somebody listens at.
const LISTENS: &str = "00010000";

#[test]
fn a_daemon_is_started_by_who_asks_it_first_at_a_socket_that_is_kept_for_it() {
    for standing in [Standing::Runner, Standing::OrdinaryUser] {
        let mut world = World::bare_of(standing);
        world.find_broker_by_socket();
        let state = world.state();
        let make = format!("mkdir -p -m 700 {}", state.display());
        world.script(world.home(), &make).run().success();
        let socket = state.join("http.sock");
        let keeper = keep(&world, &socket);
        assert_eq!(world.gate(["daemon", "status"]).run().code, Some(1), "nobody asked yet");
        let rest = Rest::of_state_dir(&state);
        let reply = rest.ask("GET", MOUNTS);
        assert_eq!((reply.status, &reply.body), (200, &json!({"mounts": []})));
        world.gate(["daemon", "status"]).run().success();
        world.gate(["mount", "add", "source", "view", "--start"]).run().success();
        let of_mount = |(pid, line): &(i32, String)| line.contains(" mount ").then_some(*pid);
        let view = kernel::processes_of(world.home()).iter().find_map(of_mount).unwrap();
        let variables = fs::read(format!("/proc/{view}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&variables).contains("LISTEN_"), "they are the daemon's");
        let listening = fs::metadata(&socket).unwrap().ino();
        let descriptors = fs::read_dir(format!("/proc/{view}/fd")).unwrap();
        let opened = descriptors.flatten().filter_map(|fd| fs::metadata(fd.path()).ok());
        assert!(opened.into_iter().all(|found| found.ino() != listening), "so is the socket");
        world.gate(["daemon", "stop"]).run().success();
        assert_eq!(keeper.finish(SOON).code, Some(0));
        assert!(socket.exists(), "it is the keeper's");
        world.gate(["daemon", "start"]).run().success();
        assert_eq!(rest.ask("GET", MOUNTS).status, 200, "a socket that nobody keeps is replaced");
        world.gate(["daemon", "stop"]).run().success();
        assert!(!socket.exists());
    }
}

#[test]
fn a_socket_elsewhere_is_told_of_and_left_alone() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    let other = world.home().join("other.sock");
    let keeper = keep(&world, &other);
    let _asked = UnixStream::connect(&other).unwrap();
    let own = world.state().join("http.sock");
    wait_until(SOON, "the daemon is there", || own.exists());
    assert_eq!(Rest::of_state_dir(&world.state()).ask("GET", MOUNTS).status, 200);
    world.gate(["daemon", "stop"]).run().success();
    let ended = keeper.finish(SOON);
    assert!(ended.stderr.contains("a socket is given that is of no use here"), "{ended}");
}
