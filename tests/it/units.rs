//! The units by which systemd keeps a daemon running, and what it hears of one.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel};
use rustix::process::Signal;

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
        let again = daemon(&["install", "--user"]).success();
        assert!(again.contains("is there already"), "{again}");
        daemon(&["install", "--user", "--state-dir", "/x y", "--lease-ms", "500"]).success();
        let other = fs::read_to_string(&path).unwrap();
        assert!(
            other.contains("--state-dir \"/x y\" --lease-ms \"500\"\n"),
            "what nobody changed is replaced: {other}"
        );
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
        let wants = path.with_file_name("default.target.wants");
        fs::create_dir(&wants).unwrap();
        std::os::unix::fs::symlink(&path, wants.join("gate.service")).unwrap();
        let refused = daemon(&["uninstall", "--user"]).refusal();
        assert!(refused.contains("systemctl --user disable --now gate"), "{refused}");
        fs::remove_dir_all(&wants).unwrap();
        daemon(&["uninstall", "--user"]).success();
        assert!(!path.exists());
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
        let unit = world.gate(["daemon", "install", "--print", whose]).run().success();
        fs::write(world.home().join("gate.service"), &unit).unwrap();
        let verify = ["verify", "--man=no", manager, "./gate.service"];
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
