//! The command line: variables, what wins over them, and output for programs.

use std::os::unix::fs::PermissionsExt as _;

use gate_tests::wait::{SOON, wait_until};
use gate_tests::{World, kernel};
use rustix::io::Errno;
use serde_json::{Value, json};

#[test]
fn gate_state_dir_says_where_the_state_is_and_the_flag_wins() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.stop_broker();
    assert!(std::fs::read_dir(world.state()).unwrap().next().is_some());
    let other = world.home().join("other");
    world.start_broker(["--state-dir".as_ref(), other.as_os_str()]);
    assert!(std::fs::read_dir(other).unwrap().next().is_some());
}

#[test]
fn gate_broker_host_and_port_say_where_the_broker_is_and_the_flags_win() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    let port = world.http().port.to_string();
    for (name, value) in [("GATE_BROKER_PORT", "1"), ("GATE_BROKER_HOST", "host.invalid")] {
        let refusal = world.gate(["locks"]).env(name, value).run().refusal();
        assert!(refusal.contains(value), "{name}: {refusal}");
        let mount = ["mount", "--foreground", "source", "view"];
        let refusal = world.gate(mount).env(name, value).run().refusal();
        assert!(refusal.contains(value), "{name}: {refusal}");
    }
    let run = world.gate(["mount", "--broker-host", "127.0.0.1", "--broker-port", &port]);
    let run = run.args(["source", "view"]).env("GATE_BROKER_PORT", "1");
    run.run().success();
    assert!(kernel::mounts_below(&world.view()).iter().any(kernel::Mount::is_fuse));
    world.gate(["umount", "view"]).run().success();
}

#[test]
fn gate_lease_ms_sets_the_lease_of_stateless_clients() {
    let mut world = World::bare();
    let broker = |world: &World| {
        let body = json!({"path": "f", "mode": "write", "owner": "ada"});
        world.http().post("/v1/locks/acquire", &body).body["lock"].clone()
    };
    world.start_broker([""; 0]);
    let lock = broker(&world);
    assert_eq!(lease_of(&lock), 3_600, "the default is an hour: {lock}");
    world.stop_broker();
    world.set_env("GATE_LEASE_MS", "120000");
    world.set_env("GATE_MAX_HOLD_MS", "77000");
    let other = world.home().join("other");
    world.start_broker(["--state-dir".as_ref(), other.as_os_str()]);
    let lock = broker(&world);
    assert_eq!(lease_of(&lock), 120, "{lock}");
    assert_eq!(lock["max_hold_ms"], json!(77_000), "GATE_MAX_HOLD_MS");
    world.stop_broker();
    let another = world.home().join("another");
    let flags = ["--lease-ms", "60000", "--max-hold-ms", "66000", "--state-dir"];
    world.start_broker(flags.map(std::ffi::OsStr::new).into_iter().chain([another.as_os_str()]));
    let lock = broker(&world);
    assert_eq!((lease_of(&lock), &lock["max_hold_ms"]), (60, &json!(66_000)));
}

#[test]
fn a_lease_that_nobody_could_keep_or_without_end_is_refused_wherever_it_is_said() {
    let world = World::new();
    world.seed("f", "");
    let commands =
        [&["mount", "source", "twin"][..], &["hold", "view/f", "--", "true"], &["broker"]];
    let range = "is not in 100..=86400000";
    for command in commands {
        for ms in ["0", "86400001"] {
            let flag = [&command[..1], &["--lease-ms", ms], &command[1..]].concat();
            let by_flag = world.gate(flag).run().refusal();
            let by_variable = world.gate(command).env("GATE_LEASE_MS", ms).run().refusal();
            for refusal in [by_flag, by_variable] {
                assert!(refusal.contains("lease") && refusal.contains(range), "{refusal}");
            }
        }
    }
    let config = world.home().join("home/.config/gate");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("gate.toml"), "lease_ms = 0\n").unwrap();
    let by_file = world.gate(["hold", "view/f", "--", "true"]).run().refusal();
    assert!(by_file.contains("line 1") && by_file.contains(range), "{by_file}");
}

#[test]
fn gate_acquire_timeout_ms_ends_a_wait_with_etimedout() {
    let mut world = World::bare();
    world.seed("f", "");
    world.start_broker([""; 0]);
    world.set_env("GATE_ACQUIRE_TIMEOUT_MS", "100");
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    let [mut holder, mut other] = [world.actor(&view), world.actor(&view)];
    holder.open("w", "f");
    assert_eq!(other.ask(["open", "w", "f"]), Err(Errno::TIMEDOUT));
    assert_eq!(other.ask(["unlink", "f"]), Err(Errno::TIMEDOUT));
    drop((holder, other));
    world.umount(&view);
    world.mount(&source, &view, ["--acquire-timeout-ms", "60000"]);
    let [mut holder, mut other] = [world.actor(&view), world.actor(&view)];
    let fd = holder.open("w", "f");
    other.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    holder.close(fd);
    other.opened();
}

/// The old way: the turn ends when the writer flushes, not when the last descriptor is gone.
#[test]
fn gate_release_on_flush_ends_a_turn_at_flush() {
    for with_flag in [false, true] {
        let mut world = World::bare();
        world.seed("f", "");
        world.start_broker([""; 0]);
        let flags: &[&str] = if with_flag { &["--release-on-flush"] } else { &[] };
        if !with_flag {
            world.set_env("GATE_RELEASE_ON_FLUSH", "1");
        }
        let [source, view] = [world.source(), world.view()];
        world.mount(&source, &view, flags);
        let script = "exec 3>>f; (echo one >&3); echo flushed; read -r go";
        let mut shell = world.script(&view, script).start_with_input();
        let _input = shell.stdin();
        wait_until(SOON, "the subshell is gone", || shell.so_far().contains("flushed"));
        let mut other = world.actor(&view);
        other.open("w", "f");
    }
}

/// fchmod(2) and its like are not told by which descriptor they come.
#[test]
fn who_gave_its_turn_back_at_flush_still_changes_what_it_has_open() {
    let mut world = World::bare();
    world.seed("f", "");
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, ["--release-on-flush"]);
    let mut writer = world.actor(&view);
    let fd = writer.open("w", "f");
    let copy = writer.on("dup", fd, &[]).unwrap();
    writer.ask(["close", &copy]).unwrap();
    let mut other = world.actor(&view);
    other.open("w", "f");
    writer.on("fchmod", fd, &["604"]).unwrap();
    let mode = std::fs::metadata(world.source().join("f")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o604);
}

#[test]
fn gate_sudo_cmd_is_read() {
    let world = World::bare();
    let status = world.gate(["status", "--json"]).env("GATE_SUDO_CMD", "doas").run().success();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["sudo"], json!("doas"), "{status}");
}

#[test]
fn version_and_status_speak_json() {
    let world = World::new();
    let version = world.gate(["version", "--json"]).run().success();
    let version: Value = serde_json::from_str(&version).unwrap();
    assert_eq!(version["version"], json!(env!("CARGO_PKG_VERSION")));
    let plain = world.gate(["version"]).run().success();
    assert!(plain.contains(env!("CARGO_PKG_VERSION")), "{plain}");
    let status = world.gate(["status", "--json"]).run().success();
    let parsed: Value = serde_json::from_str(&status).unwrap();
    // Of the machine's views, only this one is known to be there.
    let view = json!(world.view());
    let mut mounts = parsed["mounts"].as_array().into_iter().flatten();
    assert!(mounts.any(|mount| mount["mountpoint"] == view), "{status}");
    let limits = world.gate(["status", "--limits"]).run().success();
    let shown = limits.lines().skip(1).filter_map(|line| line.trim().rsplit_once(' '));
    let shown: Vec<_> = shown.map(|(name, most)| (name.trim(), most.to_owned())).collect();
    let told = parsed["limits"].as_object().unwrap_or_else(|| panic!("{status}"));
    let told: Vec<_> = told.iter().map(|(name, most)| (name.as_str(), most.to_string())).collect();
    assert_eq!(shown, told, "{limits}");
    for limit in [("sessions", "4096"), ("waiters", "65536"), ("event-readers", "1024")] {
        assert!(shown.contains(&(limit.0, limit.1.to_owned())), "{limit:?}: {limits}");
    }
}

/// What people see: all else here runs with its output in files.
#[test]
fn commands_work_in_a_terminal() {
    let world = World::bare();
    let in_terminal = |words: &str| {
        let line = format!("{} {words}", world.program("gate").display());
        world.command("script".as_ref()).args(["-qec", &line, "/dev/null"]).run()
    };
    let version = in_terminal("version").success();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let refused = in_terminal("locks");
    assert_eq!(refused.code, Some(2), "{refused}");
    let lines: Vec<&str> = refused.stdout.lines().collect();
    let [error, cause, hint] = lines[..] else { panic!("expected three lines: {refused}") };
    for (line, head) in [(error, "error: "), (cause, "cause: "), (hint, "hint:  ")] {
        assert!(line.starts_with(head), "{refused}");
    }
}

#[test]
fn completions_are_written_for_each_shell() {
    let world = World::bare();
    for shell in ["bash", "zsh", "fish"] {
        let text = world.gate(["completions", shell]).run().success();
        assert!(text.contains("umount"), "{shell}: {text}");
    }
    let bash = "source <(\"$0\" completions bash) && complete -p gate";
    let gate = world.program("gate");
    world.script(world.home(), bash).args([gate]).run().success();
}

#[test]
fn a_users_config_that_is_out_of_reach_is_left_out_with_a_warning() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let config = world.home().join("locked/gate");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("gate.toml"), "broker_port = 1").unwrap();
    let locked = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(world.home().join("locked"), locked).unwrap();
    let locks = world.gate(["locks"]).env("XDG_CONFIG_HOME", world.home().join("locked")).run();
    assert!(locks.stderr.contains("locked/gate/gate.toml"), "{locks}");
    locks.success();
}

#[test]
fn nonsense_is_refused_with_a_usage_error() {
    let world = World::bare();
    for words in [&["nonsense"][..], &["mount"], &["hold", "--", "true"], &["locks", "--nonsense"]]
    {
        let outcome = world.gate(words).run();
        assert_eq!(outcome.code, Some(2), "{words:?}: {outcome}");
        assert_eq!(outcome.stdout, "", "{words:?}");
    }
}

/// `gate mount` without a broker starts one for this user and says so in one line.
#[test]
fn a_mount_without_a_broker_starts_one() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    let said = world.gate(["mount", "source", "view"]).run();
    assert_eq!(said.stderr.lines().filter(|line| line.contains("broker")).count(), 1, "{said}");
    said.success();
    world.gate(["locks"]).run().success();
    let is_broker = |(_, line): &(_, String)| line.contains("daemon");
    let (broker, _) = kernel::processes_of(world.home()).into_iter().find(is_broker).unwrap();
    world.gate(["daemon", "stop"]).run().success();
    let process = format!("/proc/{broker}");
    wait_until(SOON, "the view has buried its broker", || !std::fs::exists(&process).unwrap());
    world.gate(["umount", "view"]).run().success();
    for (pid, line) in kernel::processes_of(world.home()) {
        assert!(line.contains("broker") || line.contains("daemon"), "{line}");
        kernel::kill(pid);
    }
}

#[test]
fn run_gives_its_command_a_name_and_its_exit_status_back() {
    let world = World::new();
    world.seed("f", "");
    let script = "exec 3>>f; echo open; read -r go; exit 7";
    let agent = ["run", "--agent", "ada", "--", "bash", "-c", script];
    let mut run = world.gate(agent).dir(world.view()).start_with_input();
    let input = run.stdin();
    wait_until(SOON, "the agent has it open", || run.so_far().contains("open"));
    let board = world.gate(["locks", "--json"]).run().success();
    assert!(board.contains("ada"), "{board}");
    drop(input);
    assert_eq!(run.finish(SOON).code, Some(7));
}

fn lease_of(lock: &Value) -> i64 {
    let seconds = |name: &str| {
        let time = lock[name].as_str().unwrap();
        let script = std::process::Command::new("date").args(["-d", time, "+%s"]).output().unwrap();
        String::from_utf8(script.stdout).unwrap().trim().parse::<i64>().unwrap()
    };
    seconds("lease_expires_at") - seconds("acquired_at")
}
