//! Views of one run's own: at the same place, seen by nobody else, gone with their last process.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use gate_tests::run::{Outcome, Run};
use gate_tests::wait::{SOON, wait_until};
use gate_tests::{Actor, World, kernel, scaled};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_private_view_is_at_the_same_place_and_nobody_else_sees_it() {
    for world in worlds() {
        seed(&world, "d/f", "text");
        let dir = world.source().join("d");
        let mut ada = actor(&world, &dir, "ada");
        assert_eq!(ada.ask(["capture", "pwd", "-P"]), Ok(format!("{}\\n", dir.display())));
        assert_eq!(ada.ask(["capture", "cat", "f"]), Ok("text".to_owned()));
        let kind = ["capture", "stat", "-f", "-c", "%T", "."];
        assert_eq!(ada.ask(kind), Ok("fuseblk\\n".to_owned()));
        let fd = ada.open("w+", "new");
        world.await_held("new", 1);
        ada.write(fd, "new").unwrap();
        assert!(kernel::mounts_below(world.home()).is_empty());
        assert_eq!(world.source_text("d/new"), "new");
        ada.leave();
        ada.end(SOON);
        await_no_server(&world);
    }
}

/// No two share what the kernel keeps of a file.
#[test]
fn each_private_view_is_a_file_system_of_its_own() {
    for mut world in worlds() {
        seed(&world, "f", "");
        let [source, view] = [world.source(), world.view()];
        world.mount(&source, &view, [""; 0]);
        let device = ["capture", "stat", "-c", "%d", "f"];
        let mut all = [
            actor(&world, &source, "ada"),
            actor(&world, &source, "bob"),
            world.actor(&view),
            world.actor(&source),
        ];
        let devices: BTreeSet<_> = all.iter_mut().map(|at| at.ask(device).unwrap()).collect();
        assert_eq!(devices.len(), all.len(), "{devices:?}");
    }
}

/// As a run does that does not say which view it wants.
#[test]
fn a_run_in_the_shared_view_works_where_all_do() {
    for mut world in worlds() {
        seed(&world, "f", "");
        let source = world.source();
        world.mount(&source, &source, [""; 0]);
        let look = "readlink /proc/self/ns/mnt; stat -c %d source/f; echo ${GATE_AGENT-nobody}";
        let bare = world.script(world.home(), look).run().success();
        let words = ["run", "--view", "shared", "--agent", "ada", "--", "bash", "-c", look];
        let said = world.gate(words).run().success();
        assert_eq!(said, bare.replace("nobody", "ada"));
        assert!(servers(&world).is_empty(), "no view is made for it");
    }
}

#[test]
fn who_runs_in_private_views_and_who_does_not_take_turns_in_one_line() {
    for mut world in worlds() {
        seed(&world, "f", "");
        let source = world.source();
        world.mount(&source, &source, [""; 0]);
        let mut ada = actor(&world, &source, "ada");
        let mut bob = actor(&world, &source, "bob");
        let mut shared = world.actor(&source);
        let held = ada.open("w", "f");
        shared.tell(["open", "r", "f"]);
        world.await_waiting("f", 1);
        bob.tell(["open", "w", "f"]);
        world.await_waiting("f", 2);
        ada.close(held);
        let read = shared.opened();
        assert!(bob.is_busy(), "first come, first granted");
        shared.close(read);
        bob.opened();
    }
}

#[test]
fn nothing_is_lost_between_private_views_and_the_shared_one() {
    for mut world in worlds() {
        seed(&world, "f", "");
        let source = world.source();
        world.mount(&source, &source, [""; 0]);
        let times = scaled(100, 2000);
        let mut all =
            [actor(&world, &source, "ada"), actor(&world, &source, "bob"), world.actor(&source)];
        for actor in &mut all {
            actor.tell(["repeat", &times.to_string(), "append", "f", "x"]);
        }
        for actor in &mut all {
            actor.answer_by(LONG).unwrap();
        }
        let length = all[2].ask(["stat", "f"]);
        assert_eq!(length, Ok((3 * times).to_string()));
    }
}

/// It stands over what its source's other view shows, wherever that is, and goes by its rules.
#[test]
fn a_private_view_of_a_view_has_its_source_and_its_rules() {
    for mut world in worlds() {
        let [source, view] = [world.source(), world.view()];
        world.mount(&source, &view, ["--policy", "*.free=none", "--read-wait", "7s"]);
        for name in ["d/f", "d/x.free"] {
            seed(&world, name, "");
        }
        let dir = view.join("d");
        let mut ada = actor(&world, &dir, "ada");
        assert_eq!(ada.ask(["capture", "pwd", "-P"]), Ok(format!("{}\\n", dir.display())));
        let mut other = world.actor(&dir);
        let [held, free] = ["f", "x.free"].map(|name| ada.open("w", name));
        let fd = other.open("w", "x.free");
        other.close(fd);
        other.tell(["open", "r", "f"]);
        world.await_waiting("d/f", 1);
        ada.close(held);
        ada.close(free);
        other.opened();
    }
}

#[test]
fn a_hold_in_a_private_view_excludes_everybody_else() {
    for mut world in worlds() {
        seed(&world, "f", "");
        let source = world.source();
        world.mount(&source, &source, [""; 0]);
        let gate = world.program("gate");
        let script = r#""$0" hold f -- sh -c 'echo held; read -r go'"#;
        let command = ["bash".into(), "-euc".into(), script.into(), gate.into_os_string()];
        let mut ada = run(&world, &source, "ada", command).start_with_input();
        wait_until(SOON, "it is held", || ada.so_far().contains("held"));
        let mut other = world.actor(&source);
        other.tell(["open", "r", "f"]);
        world.await_waiting("f", 1);
        drop(ada.stdin());
        other.opened();
        assert_eq!(ada.finish(SOON).code, Some(1), "read met the end of its input");
    }
}

#[test]
fn what_looks_around_works_in_a_private_view() {
    for world in worlds() {
        seed(&world, "f", "");
        let script = r#"
            exec 3>>f
            "$0" why f; "$0" locks f; "$0" status; "$0" log f; "$0" restore --list f"#;
        let gate = world.program("gate").into_os_string();
        let command = ["bash".into(), "-euc".into(), script.into(), gate];
        let said = run(&world, &world.source(), "ada", command).run().success();
        assert!(said.contains("ada (bash)") && said.contains("holds f to write"), "{said}");
    }
}

/// Whatever the environment says by then.
#[test]
fn all_in_a_private_view_are_its_agent() {
    for world in worlds() {
        seed(&world, "f", "bob's");
        let mut other = world.actor(&world.source());
        let script = r#"cat f; read -r go || :; env -i sh -c 'echo mine > f'"#;
        let mut ada =
            run(&world, &world.source(), "ada", ["bash", "-euc", script]).start_with_input();
        wait_until(SOON, "it has read", || ada.so_far().contains("bob's"));
        let fd = other.open("w0", "f");
        other.write(fd, "bob's again").unwrap();
        other.close(fd);
        drop(ada.stdin());
        let _ = ada.finish(SOON);
        let list = world.gate(["restore", "--list", "source/f"]).run().success();
        assert!(list.contains("ada"), "{list}");
    }
}

#[test]
fn its_exit_status_and_its_signals_are_those_of_its_command() {
    for world in worlds() {
        let source = world.source();
        let outcome = run(&world, &source, "ada", ["sh", "-c", "exit 7"]).run();
        assert_eq!(outcome.code, Some(7), "{outcome}");
        let outcome = run(&world, &source, "ada", ["sh", "-c", "kill -TERM $$"]).run();
        assert_eq!(outcome.signal, Some(libc::SIGTERM), "{outcome}");
        let outcome = run(&world, &source, "ada", ["/no/such/program"]).run();
        assert_eq!(outcome.code, Some(127), "{outcome}");
        // It has no child that it did not start.
        let script = "wait -n; echo $?; cat /proc/$$/task/$$/children";
        let said = run(&world, &source, "ada", ["bash", "-c", script]).run().success();
        assert_eq!(said.trim(), "127");
        await_no_server(&world);
    }
}

#[test]
fn a_private_view_lives_as_long_as_the_last_process_in_it() {
    for world in worlds() {
        seed(&world, "f", "");
        world.script(world.home(), "mkfifo go").run().success();
        let script = "{ read -r line < ../go; echo late >> f; } > /dev/null 2>&1 &";
        run(&world, &world.source(), "ada", ["bash", "-c", script]).run().success();
        assert_eq!(servers(&world).len(), 1, "who was left behind still sees it");
        world.script(world.home(), "echo on > go").run().success();
        await_no_server(&world);
        assert_eq!(world.source_text("f"), "late\n");
    }
}

/// N15: who has lost its view meets an error, and nothing reaches the bare directory.
#[test]
fn n15_a_private_view_whose_server_died_lets_nothing_through() {
    for mut world in worlds() {
        seed(&world, "f", "");
        let source = world.source();
        let bare = Bare::of(&world);
        for covered in [false, true] {
            if covered {
                world.mount(&source, &source, ["--force"]);
            }
            let mut ada = actor(&world, &source, "ada");
            let fd = ada.open("w", "f");
            signal(servers(&world)[0], Signal::KILL);
            wait_until(SOON, "it is dead", || ada.write(fd, "late") == Err(Errno::NOTCONN));
            for path in ["f", source.join("f").to_str().unwrap()] {
                assert_eq!(ada.ask(["open", "w+", path]), Err(Errno::NOTCONN));
            }
            assert_eq!(bare.text("f"), "");
            // Nobody waits for the dead.
            world.gate(["status"]).run().success();
        }
    }
}

/// N15: a call that keeps a directory locked waits for the server, which waits for the directory.
#[test]
fn n15_a_private_view_that_dies_while_it_drops_a_name_is_dead_all_the_same() {
    for world in worlds() {
        for name in ["f", "g", "t0", "t1"] {
            seed(&world, name, name);
        }
        let mut ada = actor(&world, &world.source(), "ada");
        ada.ask(["capture", "cat", "g"]).unwrap();
        ada.ask(["rename", "t0", "f"]).unwrap();
        // Who replaces what it has not seen waits for the place where that is kept.
        seed(&world, "f", "unseen");
        let _store = super::deaths::locked_store(&world);
        ada.tell(["rename", "t1", "f"]);
        super::deaths::kill_while_it_drops(server(&world, "ada"), &world.source().join("g"));
        assert!(ada.answer().is_err());
        wait_until(SOON, "it is dead", || ada.ask(["open", "r", "f"]) == Err(Errno::NOTCONN));
    }
}

#[test]
fn who_is_killed_takes_its_private_view_along() {
    for world in worlds() {
        seed(&world, "f", "");
        let mut ada = actor(&world, &world.source(), "ada");
        ada.open("w", "f");
        let mut bob = actor(&world, &world.source(), "bob");
        bob.tell(["open", "w", "f"]);
        world.await_waiting("f", 1);
        ada.signal(Signal::KILL);
        bob.opened();
        drop((ada, bob));
        await_no_server(&world);
    }
}

#[test]
fn private_views_outlive_their_broker() {
    for mut world in worlds() {
        seed(&world, "f", "");
        let [mut ada, mut bob] = ["ada", "bob"].map(|name| actor(&world, &world.source(), name));
        let fd = ada.open("w", "f");
        world.kill_broker();
        bob.tell(["open", "w", "f"]);
        ada.write(fd, "ada's").unwrap();
        world.start_broker([""; 0]);
        world.await_waiting("f", 1);
        ada.close(fd);
        bob.opened();
    }
}

/// N7: who was stopped with its view for longer than a lease writes nothing when it goes on.
#[test]
fn n7_a_private_view_that_was_stopped_too_long_wakes_up_fenced() {
    for mut world in worlds() {
        world.set_env("GATE_LEASE_MS", "500");
        seed(&world, "f", "old");
        let [mut ada, mut bob] = ["ada", "bob"].map(|name| actor(&world, &world.source(), name));
        let fd = ada.open("rw", "f");
        let server = server(&world, "ada");
        for pid in [ada.pid(), server] {
            signal(pid, Signal::STOP);
        }
        bob.tell(["open", "w0", "f"]);
        let theirs = bob.opened();
        bob.write(theirs, "bob's").unwrap();
        for pid in [server, ada.pid()] {
            signal(pid, Signal::CONT);
        }
        assert_eq!(ada.write(fd, "ada's"), Err(Errno::IO));
        assert_eq!(world.source_text("f"), "bob's");
        bob.close(theirs);
    }
}

#[test]
fn a_private_view_in_a_private_view_is_refused() {
    for world in worlds() {
        let gate = world.program("gate").into_os_string();
        let script = r#"exec "$0" run --agent bob --view private -- true"#;
        let command = ["sh".into(), "-c".into(), script.into(), gate];
        let outcome = run(&world, &world.source(), "ada", command).run();
        assert_eq!(outcome.code, Some(2), "{outcome}");
        let refusal = outcome.refusal();
        assert!(refusal.contains("the agent ada"), "{refusal}");
    }
}

#[test]
fn a_private_view_is_not_unmounted_from_within() {
    for world in worlds() {
        let gate = world.program("gate").into_os_string();
        let command = ["sh".into(), "-c".into(), r#"exec "$0" umount ."#.into(), gate];
        let refusal = run(&world, &world.source(), "ada", command).run().refusal();
        assert!(refusal.contains("the agent ada"), "{refusal}");
    }
}

/// What would take two turns, or cannot be covered, is not shown once more.
#[test]
fn what_cannot_be_shown_once_more_is_refused() {
    for mut world in worlds() {
        let [source, inner] = [world.source(), world.source().join("inner")];
        world.script(&source, "mkdir inner").run().success();
        let twin = world.twin();
        world.mount(&twin, &inner, [""; 0]);
        for (dir, cause) in [(source.as_path(), "a view in it"), ("/".as_ref(), "own state")] {
            let outcome = run(&world, dir, "ada", ["touch", "ran"]).run();
            assert_eq!(outcome.code, Some(2), "{outcome}");
            let refusal = outcome.refusal();
            assert!(refusal.contains(cause), "{refusal}");
        }
        assert!(!source.join("ran").exists());
    }
}

/// Who serves it stays outside, so nothing waits for itself.
#[test]
fn a_private_view_may_show_the_program_of_gate_and_its_settings() {
    for world in worlds() {
        let source = world.source();
        world.script(&source, "mkdir bin gate; echo > gate/gate.toml; echo > f").run().success();
        fs::copy(world.program("gate"), source.join("bin/gate")).unwrap();
        let gate = world.command(&source.join("bin/gate")).env("XDG_CONFIG_HOME", &source);
        let words = ["run", "--view", "private", "--agent", "ada", "--"];
        let inside = ["bin/gate", "hold", "f", "--", "bin/gate", "why", "f"];
        let said = gate.args(words).args(inside).dir(&source).run().success();
        assert!(said.contains("ada"), "{said}");
    }
}

/// Never does it run in the shared view instead.
#[test]
fn where_user_namespaces_are_forbidden_that_is_said_and_nothing_is_run() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let outcome = without_namespaces(&world, &["run", "--view", "private", "--", "touch", "ran"]);
    assert_eq!(outcome.code, Some(2), "{outcome}");
    let refusal = outcome.refusal();
    assert!(refusal.contains("user namespace"), "{refusal}");
    assert!(!world.source().join("ran").exists());
    await_no_server(&world);
    let doctor = without_namespaces(&world, &["doctor", "--json"]).stdout;
    let doctor: Value = serde_json::from_str(&doctor).unwrap();
    let checks = doctor["checks"].as_array().unwrap().iter();
    let mut checks = checks.filter(|check| check["check"] == "private-views");
    assert_eq!(checks.next().unwrap()["level"], "warn", "{doctor}");
}

/// Runs `gate` where this user may make no user namespace.
fn without_namespaces(world: &World, args: &[&str]) -> Outcome {
    // Inside of the first of these there may be one more, which is the second.
    let script = r#"
        unshare --user --map-root-user bash -euc '
            echo 1 > /proc/sys/user/max_user_namespaces
            exec unshare --user --map-user=5 --map-group=60 "$@"' "$0" "$0" "$@""#;
    let gate = world.program("gate").into_os_string();
    let args = args.iter().map(OsString::from);
    world.script(&world.source(), script).args([gate].into_iter().chain(args)).run()
}

#[test]
fn status_tells_of_private_views_wherever_it_is_asked() {
    for mut world in worlds() {
        let source = world.source();
        let ada = actor(&world, &source, "ada");
        let expected = serde_json::json!([{
            "agent": "ada", "mountpoint": source, "source": source, "pid": server(&world, "ada"),
        }]);
        let status = |run: Run| {
            let status: Value = serde_json::from_str(&run.run().success()).unwrap();
            status["private"].clone()
        };
        assert_eq!(status(world.gate(["status", "--json"])), expected);
        world.kill_broker();
        world.start_broker([""; 0]);
        wait_until(SOON, "the view is back", || {
            status(world.gate(["status", "--json"])) == expected
        });
        let text = world.gate(["status"]).run().success();
        assert!(text.contains("PRIVATE VIEW"), "{text}");
        drop(ada);
        wait_until(SOON, "it is gone", || {
            status(world.gate(["status", "--json"])) == serde_json::json!([])
        });
    }
}

/// What lies past it is asked of its source, too: nothing else is at its own place.
#[test]
fn status_tells_what_a_private_view_at_another_place_shows() {
    for mut world in worlds() {
        let [source, view] = [world.source(), world.view()];
        world.mount(&source, &view, [""; 0]);
        let _ada = actor(&world, &view, "ada");
        let status = world.gate(["status", "--json"]).run().success();
        let status: Value = serde_json::from_str(&status).unwrap();
        let private = &status["private"][0];
        let paths = serde_json::json!([view, source]);
        assert_eq!(serde_json::json!([private["mountpoint"], private["source"]]), paths);
        let bypasses = status["bypasses"].as_array().unwrap();
        // Others of the machine have their own.
        let ours = |bypass: &&Value| [&paths[0], &paths[1]].contains(&&bypass["source"]);
        let sources: Vec<_> = bypasses.iter().filter(ours).map(|of| &of["source"]).collect();
        assert_eq!(sources, [&paths[1]]);
    }
}

/// A private view goes on without the one that all others see. When that one is at rest is for the
/// machine's mounts to say: where copies of them are not told of it, who has one is named.
#[test]
fn the_shared_view_is_unmounted_under_a_private_one() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let [world, _] = worlds();
    seed(&world, "f", "text\n");
    let script = r#"
        mkfifo came go told
        "$0" mount source
        "$0" run --view private --in source -- \
            sh -c 'echo in > ../came; read -r line < ../go; cat f' & ada=$!
        read -r line < came
        exec 3<> go
        "$0" umount source 2> told & umount=$!
        read -r line < told || [ "$1" = shared ]; echo "$line"
        if [ "$1" = shared ]; then wait "$umount"; fi
        echo on >&3
        wait "$ada"; wait "$umount"
        rm came go told"#;
    let gate = world.program("gate");
    for (propagation, told) in [("shared", "\n"), ("private", "still see it")] {
        let unshare = ["-m", "--propagation", propagation, "bash", "-euc", script];
        let run = world.command("unshare".as_ref()).args(unshare);
        let said = run.args([gate.as_os_str(), propagation.as_ref()]).run().success();
        let (first, rest) = said.split_once('\n').unwrap();
        assert!(format!("{first}\n").contains(told) && rest == "text\n", "{propagation}: {said}");
    }
}

#[test]
fn many_private_views_of_one_source_stand_side_by_side() {
    const VIEWS: usize = 50;
    let mut world = World::apart_of_ordinary_user();
    world.start_broker([""; 0]);
    seed(&world, "f", "0");
    let mut all: Vec<Actor> =
        (0..VIEWS).map(|n| actor(&world, &world.source(), &format!("agent-{n}"))).collect();
    for actor in &mut all {
        actor.tell(["append", "f", "x"]);
    }
    for actor in &mut all {
        actor.answer_by(LONG).unwrap();
    }
    assert_eq!(world.source_text("f").len(), 1 + VIEWS);
    drop(all);
    await_no_server(&world);
}

/// Worlds in which root acts and in which somebody does who may not mount.
fn worlds() -> [World; 2] {
    [World::bare(), World::bare_of_ordinary_user()].map(|mut world| {
        world.start_broker([""; 0]);
        world
    })
}

/// The bare directory, opened before anything lies over it.
struct Bare(File);

impl Bare {
    fn of(world: &World) -> Bare {
        Bare(File::open(world.source()).unwrap())
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd())).unwrap()
    }
}

fn words(world: &World, dir: &Path, agent: &str) -> impl Iterator<Item = OsString> {
    let gate = world.program("gate").into_os_string();
    let flags = ["run", "--view", "private", "--agent", agent, "--in"].map(OsString::from);
    [gate].into_iter().chain(flags).chain([dir.into(), "--".into()])
}

/// Writes a file into the source, as whoever acts.
fn seed(world: &World, name: &str, text: &str) {
    let script = r#"mkdir -p "${0%/*}" && printf %s "$1" > "$0""#;
    let path = world.source().join(name);
    world.script(world.home(), script).args([path.as_os_str(), text.as_ref()]).run().success();
}

/// Prepares a command in a private view.
fn run<S: Into<OsString>>(
    world: &World,
    dir: &Path,
    agent: &str,
    command: impl IntoIterator<Item = S>,
) -> Run {
    let command: Vec<OsString> = command.into_iter().map(Into::into).collect();
    world.gate(words(world, dir, agent).skip(1).chain(command)).dir(world.home())
}

/// Starts an actor in a private view.
fn actor(world: &World, dir: &Path, agent: &str) -> Actor {
    let mut actor = world.actor_by(words(world, dir, agent), world.home());
    actor.ask(["stat", "/"]).unwrap();
    actor
}

/// Returns the processes that serve private views.
fn servers(world: &World) -> Vec<i32> {
    let all = kernel::processes_of(world.home()).into_iter();
    all.filter(|(_, line)| line.contains("mount --private")).map(|(pid, _)| pid).collect()
}

fn server(world: &World, agent: &str) -> i32 {
    let all = kernel::processes_of(world.home());
    let mark = format!("mount --private {agent} ");
    all.into_iter().find(|(_, line)| line.contains(&mark)).map(|(pid, _)| pid).unwrap()
}

fn await_no_server(world: &World) {
    wait_until(SOON, "who served the view has ended", || servers(world).is_empty());
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}
