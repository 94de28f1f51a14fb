//! How somebody could still come past a view: `gate status` and `gate doctor` tell.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::ORDINARY_USER;
use gate_tests::{World, kernel};
use serde_json::{Value, json};

#[test]
fn a_source_is_open_by_its_path_until_a_view_lies_over_it() {
    let mut world = with_broker();
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    let open_to = |world: &World| way(world, "bare-path").map(|way| way["open_to"].clone());
    assert_eq!(open_to(&world), Some(json!({"who": "everybody"})));
    let status = world.gate(["status"]).run().success();
    assert!(status.contains("its own path is open to everybody"), "{status}");
    let mend = format!("`gate mount {}`", source.display());
    assert!(mends(&world, &view).iter().any(|said| said.contains(&mend)));
    let close = |mode| fs::set_permissions(&source, Permissions::from_mode(mode)).unwrap();
    close(0o710);
    assert_eq!(open_to(&world), Some(json!({"who": "group", "id": 0})));
    close(0o700);
    assert_eq!(open_to(&world), None, "it is open to root alone");
    close(0o755);
    assert!(open_to(&world).is_some());
    world.mount(&source, &source, [""; 0]);
    assert_eq!(open_to(&world), None);
    world.umount(&source);
    assert!(open_to(&world).is_some());
}

#[test]
fn each_source_of_the_broker_is_spoken_for_whatever_it_is_called() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = with_broker();
    world.script(world.home(), "mkdir view/{1,2,3}; mount --bind source twin").run().success();
    let sources = [world.source(), world.twin(), world.home().join(OsStr::from_bytes(b"n\xff"))];
    fs::create_dir(&sources[2]).unwrap();
    let points = ["1", "2", "3"].map(|name| world.view().join(name));
    for (source, point) in sources.iter().zip(&points) {
        world.mount(source, point, [""; 0]);
    }
    let report = report(&world);
    let mounts = report["mounts"].as_array().unwrap().iter();
    let listed: Vec<_> = mounts.map(|view| view["mountpoint"].as_str()).collect();
    for (source, point) in sources.iter().zip(&points) {
        assert!(listed.contains(&point.to_str()), "{report}");
        assert!(ways_past(&report, source).iter().any(|way| way["way"] == "bare-path"), "{report}");
    }
    points.iter().for_each(|point| world.umount(point));
    world.script(world.home(), "umount twin").run().success();
}

#[test]
fn the_source_of_a_dead_view_is_spoken_for() {
    let mut world = with_broker();
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    world.server_of(&view).signal(rustix::process::Signal::KILL);
    wait_until(SOON, "its server is gone", || !world.server_of(&view).is_running());
    wait_until(SOON, "it is dead", || {
        let report = report(&world);
        let mut mounts = report["mounts"].as_array().unwrap().iter();
        mounts.any(|view| view["source"].as_str() == source.to_str() && view["state"] == "dead")
    });
    assert_eq!(way(&world, "bare-path").unwrap()["open_to"], json!({"who": "everybody"}));
    world.bury(&view);
}

#[test]
fn what_is_mounted_elsewhere_too_is_named_until_it_is_unmounted() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = with_broker();
    world.seed("d/f", "");
    let [source, twin] = [world.source(), world.twin()];
    for (of, path, shows) in [
        ("source", twin.clone(), source.clone()),
        ("source/d", twin.clone(), source.join("d")),
        (".", twin.join("source"), source.clone()),
    ] {
        let bind = format!("mount --bind {of} twin; mount --make-private twin");
        world.script(world.home(), &bind).run().success();
        world.mount(&source, &source, [""; 0]);
        let found = way(&world, "other-mount").unwrap();
        assert_eq!(
            [&found["path"], &found["shows"], &found["mount"]].map(Value::as_str),
            [path.to_str(), shows.to_str(), twin.to_str()]
        );
        let mend = format!("`umount {}`", twin.display());
        assert!(mends(&world, &source).contains(&mend));
        world.script(world.home(), "umount twin").run().success();
        assert_eq!(way(&world, "other-mount"), None);
        world.umount(&source);
    }
}

#[test]
fn who_was_there_before_the_view_is_named_until_it_has_left() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = with_broker();
    let source = world.source();
    world.seed("d/f", "");
    fs::copy("/bin/cat", source.join("cat")).unwrap();
    // To be called as Gate is makes nobody one of its programs.
    fs::copy("/bin/cat", source.join("gate")).unwrap();
    for (there, has) in [
        ("cd source/d; read -r line", "working-directory"),
        ("exec python3 -c 'import os; os.chroot(\"source/d\"); input()'", "root-directory"),
        ("exec 3>> source/d/f; read -r line", "open-file"),
        ("exec source/cat", "mapping"),
        ("exec source/gate", "mapping"),
    ] {
        let mut shell = world.script(world.home(), there).start_with_input();
        let input = shell.stdin();
        wait_until(SOON, "the shell is there", || kernel::uses(shell.pid(), &source));
        world.mount(&source, &source, ["--force"]);
        let found = way(&world, "bare-use").unwrap();
        let found = found["users"].as_array().unwrap();
        let pids: Vec<_> = found.iter().map(|user| user["pid"].as_i64()).collect();
        assert_eq!(pids, [Some(shell.pid().into())]);
        assert_eq!(found[0]["has"], has);
        let status = world.gate(["status"]).run().success();
        assert!(status.contains(&format!("(process {}: ", shell.pid())), "{status}");
        drop(input);
        let _ = shell.finish(SOON);
        assert_eq!(way(&world, "bare-use"), None, "who works in the view is not past it");
        world.umount(&source);
    }
}

/// Between the look for such and the mount: there the command says where else the directory is seen,
/// to somebody who does not listen yet.
#[test]
fn who_comes_in_just_before_the_view_is_named_once_it_is_there() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = with_broker();
    let source = world.source();
    world.script(world.home(), "mount --bind source view").run().success();
    let script = "import os, subprocess, sys
hear, say = os.pipe()
os.set_blocking(say, False)
try:
    while True:
        os.write(say, b'.')
except BlockingIOError:
    os.set_blocking(say, True)
gate = subprocess.Popen([sys.argv[1], 'mount', '--foreground', 'source'], stderr=say)
os.close(say)
print(gate.pid, flush=True)
sys.stdin.readline()
while said := os.read(hear, 65536):
    os.write(1, said.strip(b'.'))
sys.exit(gate.wait())";
    let mount = world.python(world.home(), script).args([world.program("gate")]);
    let mut mount = mount.start_with_input();
    let input = mount.stdin();
    wait_until(SOON, "it says where else the directory is seen", || {
        let pid = mount.so_far().trim().parse();
        pid.is_ok_and(|pid| kernel::is_in_call(pid, libc::SYS_write))
    });
    assert!(kernel::mounts_below(&source).is_empty());
    let mut shell = world.script(&source, "read -r line").start_with_input();
    let stays = shell.stdin();
    wait_until(SOON, "the shell is there", || kernel::uses(shell.pid(), &source));
    drop(input);
    wait_until(SOON, "the view is there", || mount.so_far().contains("view ready"));
    let said = mount.so_far();
    let told =
        said.lines().find(|line| line.contains("came in")).unwrap_or_else(|| panic!("{said}"));
    assert!(told.contains(&format!("(process {}: working directory", shell.pid())), "{told}");
    assert!(told.contains("`gate status`"), "{told}");
    assert_eq!(way(&world, "bare-use").unwrap()["users"][0]["pid"], shell.pid());
    drop(stays);
    let _ = shell.finish(SOON);
    world.gate(["umount", "source"]).run().success();
    mount.finish(SOON).success();
    world.script(world.home(), "umount view").run().success();
}

/// It has left what the threads of its process share.
#[test]
fn what_one_thread_has_alone_is_named_too() {
    let mut world = with_broker();
    let source = world.source();
    world.seed("f", "");
    for (what, alone, has) in [
        ("CLONE_FS", "os.chdir('source')", "working-directory"),
        ("CLONE_FILES", "os.open('source/f', os.O_WRONLY)", "open-file"),
    ] {
        let script = format!(
            "import ctypes, os, sys, threading
def alone():
    flag = dict(CLONE_FS=0x200, CLONE_FILES=0x400)['{what}']
    assert ctypes.CDLL(None).unshare(flag) == 0
    {alone}
    print('there', flush=True)
    sys.stdin.readline()
thread = threading.Thread(target=alone)
thread.start()
thread.join()"
        );
        let mut program = world.python(world.home(), &script).start_with_input();
        let input = program.stdin();
        wait_until(SOON, "its thread is there", || !program.so_far().is_empty());
        let refusal = world.gate(["mount", "--foreground", "source"]).run().refusal();
        assert!(refusal.contains(&format!("(process {}: ", program.pid())), "{refusal}");
        world.mount(&source, &source, ["--force"]);
        let users = &way(&world, "bare-use").unwrap()["users"];
        assert_eq!((&users[0]["pid"], &users[0]["has"]), (&json!(program.pid()), &json!(has)));
        drop(input);
        let _ = program.finish(SOON);
        world.umount(&source);
    }
}

#[test]
fn servers_of_a_replaced_release_are_not_past_the_view() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    assert!(world.program("gate").starts_with(world.home()));
    let upgrade = "cp bin/gate bin/new; mv bin/new bin/gate";
    world.script(world.home(), upgrade).run().success();
    assert_eq!(way(&world, "bare-use"), None);
}

#[test]
fn who_works_in_the_view_is_not_past_it() {
    let mut world = with_broker();
    let source = world.source();
    world.seed("f", "");
    world.mount(&source, &source, [""; 0]);
    let mut actor = world.actor(&source);
    let _fd = actor.open("w", "f");
    assert_eq!(ways(&world), [json!({"way": "privileged", "users": [0]})]);
}

#[test]
fn programs_that_see_other_mounts_are_named_until_they_end() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = with_broker();
    let source = world.source();
    let words = ["--mount", "--propagation", "private", "bash", "-c", "echo > there; read -r line"];
    let mut inside = world.command("unshare".as_ref()).args(words).start_with_input();
    let input = inside.stdin();
    wait_until(SOON, "it has mounts of its own", || world.home().join("there").exists());
    world.mount(&source, &source, [""; 0]);
    let seen = |world: &World| {
        let found = way(world, "other-namespace")?;
        // Other tests have namespaces, too.
        let namespaces = found["namespaces"].as_array().unwrap().clone();
        namespaces.into_iter().find(|seen| seen["pid"] == inside.pid())
    };
    assert_eq!(seen(&world).unwrap()["path"].as_str(), source.to_str());
    drop(input);
    wait_until(SOON, "it has ended", || kernel::is_dead(inside.pid()));
    assert_eq!(seen(&world), None);
    let _ = inside.finish(SOON);
}

/// No view is asked.
#[test]
fn a_view_that_hangs_hangs_no_report() {
    let mut world = with_broker();
    let source = world.source();
    world.mount(&source, &source, [""; 0]);
    world.server_of(&source).stop();
    assert_eq!(ways(&world), [json!({"way": "privileged", "users": [0]})]);
    world.server_of(&source).signal(rustix::process::Signal::CONT);
}

#[test]
fn the_user_of_a_view_is_named_beside_root() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    let user = ORDINARY_USER.uid;
    assert_eq!(way(&world, "privileged").unwrap()["users"], json!([0, user]));
    fs::set_permissions(world.home(), Permissions::from_mode(0o700)).unwrap();
    let open_to = json!({"who": "user", "id": user});
    assert_eq!(way(&world, "bare-path").unwrap()["open_to"], open_to);
}

#[test]
fn the_source_of_a_private_view_is_open_to_others() {
    let world = with_broker();
    let words = ["run", "--view", "private", "--agent", "ada", "--in", "source", "--"];
    let words = [world.program("gate").into()].into_iter().chain(words.map(Into::into));
    let mut ada = world.actor_by(words, world.home());
    ada.ask(["stat", "/"]).unwrap();
    assert_eq!(way(&world, "bare-path").unwrap()["open_to"], json!({"who": "everybody"}));
    ada.leave();
    ada.end(SOON);
    wait_until(SOON, "its view has ended", || {
        // Dead views of other tests may be spoken of, too.
        let source = json!(world.source());
        !report(&world)["bypasses"].as_array().unwrap().iter().any(|of| of["source"] == source)
    });
}

fn with_broker() -> World {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world
}

fn report(world: &World) -> Value {
    serde_json::from_str(&world.gate(["status", "--json"]).run().success()).unwrap()
}

/// Returns the ways past the views of a world's source; other namespaces may be those of other tests.
#[track_caller]
fn ways(world: &World) -> Vec<Value> {
    let mut ways = ways_past(&report(world), &world.source());
    let pids: Vec<_> = kernel::processes_of(world.home()).into_iter().map(|(pid, _)| pid).collect();
    let is_ours = |seen: &Value| pids.iter().any(|pid| seen["pid"] == *pid);
    ways.retain(|way| {
        way["way"] != "other-namespace" || way["namespaces"].as_array().unwrap().iter().any(is_ours)
    });
    ways
}

#[track_caller]
fn ways_past(report: &Value, source: &Path) -> Vec<Value> {
    let written = match source.to_str() {
        Some(text) => json!(text),
        None => json!(source.as_os_str().as_bytes()),
    };
    let mut bypasses = report["bypasses"].as_array().unwrap().iter();
    let of_source = bypasses.find(|found| found["source"] == written);
    of_source.unwrap_or_else(|| panic!("{report}"))["ways"].as_array().unwrap().clone()
}

#[track_caller]
fn way(world: &World, name: &str) -> Option<Value> {
    ways(world).into_iter().find(|way| way["way"] == name)
}

/// Returns what the doctor says closes the ways past a view.
#[track_caller]
fn mends(world: &World, view: &Path) -> Vec<String> {
    let said = world.gate(["doctor", "--json"]).args([view]).run().success();
    let report: Value = serde_json::from_str(&said).unwrap();
    let checks = report["checks"].as_array().unwrap().iter();
    let ways = checks.filter(|check| check["check"] == "bypass");
    ways.filter_map(|check| Some(check["mend"].as_str()?.to_owned())).collect()
}
