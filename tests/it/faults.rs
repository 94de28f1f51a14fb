//! Bad input and faults: three lines that say what to do, and nothing lost.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use gate_tests::http::Reply;
use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_until};
use gate_tests::{World, kernel};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::{Value, json};

/// For a million files.
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_mount_of_what_cannot_be_mounted_is_refused() {
    let world = with_broker();
    world.seed("d/f", "x");
    fs::write(world.home().join("file"), "x").unwrap();
    fs::write(world.twin().join("f"), "x").unwrap();
    for (source, point, named) in [
        ("missing", "view", "missing"),
        ("file", "view", "file"),
        ("source", "missing", "missing"),
        ("source", "file", "file"),
        ("source", "twin", "twin"),
        ("source", "source/d", "source/d"),
        ("state", "view", "state"),
        (".", "view", "state"),
    ] {
        let refusal = mount_refused(&world, source, point);
        assert!(refusal.contains(named), "{source} at {point}: {refusal}");
    }
    assert!(kernel::mounts_below(world.home()).is_empty());
}

#[test]
fn a_mount_point_that_is_busy_is_refused_and_the_first_view_goes_on() {
    let world = World::new();
    world.seed("f", "text");
    fs::create_dir(world.home().join("second")).unwrap();
    let refusal = mount_refused(&world, "second", "view");
    assert!(refusal.contains("view"), "{refusal}");
    assert_eq!(world.script(&world.view(), "cat f").run().success(), "text");
}

#[test]
fn a_mount_point_that_its_user_may_not_reach_is_refused_with_the_reason() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let locked = world.home().join("locked");
    fs::create_dir_all(locked.join("view")).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    let refusal = mount_refused(&world, "source", "locked/view");
    assert!(refusal.contains("may not be searched"), "{refusal}");
}

#[test]
fn without_fuse_the_error_says_so() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = with_broker();
    let gate = world.program("gate");
    let script = r#"
        mkdir dev && mount -t tmpfs tmpfs dev
        cp -a /dev/null /dev/zero /dev/random /dev/urandom dev
        mount --move dev /dev
        exec "$0" mount --foreground source view"#;
    let unshare = ["-m", "bash", "-euc", script];
    let run = world.command("unshare".as_ref()).args(unshare).args([gate]);
    let refusal = run.run().refusal();
    assert!(refusal.contains("/dev/fuse"), "{refusal}");
}

#[test]
fn a_broker_that_does_not_answer_at_the_start_is_an_error_at_once() {
    let world = World::bare();
    let refusal = mount_refused(&world, "source", "view");
    assert!(refusal.contains(&world.http().port.to_string()), "{refusal}");
    for command in [&["locks"][..], &["hold", "source", "--", "true"]] {
        let outcome = world.gate(command).run();
        assert_eq!(outcome.code, Some(2), "{outcome}");
        let _ = outcome.refusal();
    }
}

#[test]
fn a_port_that_is_taken_is_refused_with_its_number() {
    let world = with_broker();
    let other = world.home().join("other-state");
    let run = world.gate(["broker".as_ref(), "--state-dir".as_ref(), other.as_os_str()]);
    let refusal = run.run().refusal();
    assert!(refusal.contains(&world.http().port.to_string()), "{refusal}");
}

#[test]
fn a_second_broker_on_one_state_directory_is_refused_naming_the_first() {
    let world = with_broker();
    let refusal = world.gate(["broker", "--port", "0"]).run().refusal();
    assert!(refusal.contains("state"), "{refusal}");
    let first = kernel::processes_of(world.home());
    let (pid, _) = first.iter().find(|(_, line)| line.contains("broker")).unwrap();
    assert!(refusal.contains(&pid.to_string()), "{refusal}");
}

/// One source, one broker: a second is joined or refused, and never serves beside the first.
#[test]
fn a_second_broker_for_one_source_is_refused_naming_the_first() {
    let world = World::new();
    let mut second = World::bare();
    second.start_broker([""; 0]);
    world.seed("d/f", "x");
    for source in [world.source(), world.source().join("d")] {
        let args = ["mount".as_ref(), "--foreground".as_ref(), source.as_os_str()];
        let refusal = second.gate(args).args([second.view()]).run().refusal();
        assert!(refusal.contains(&format!("process {}", world.broker_pid())), "{refusal}");
    }
}

#[test]
fn a_corrupt_journal_is_refused_by_its_name_and_left_as_it_is() {
    let mut world = with_broker();
    let id = acquire(&world, "f");
    assert!(!id.is_empty());
    world.stop_broker();
    let journal = journal_of(&world);
    let mut bytes = fs::read(&journal).unwrap();
    bytes[..512].fill(0xA5);
    fs::write(&journal, &bytes).unwrap();
    let refusal = world.gate(["broker"]).run().refusal();
    assert!(refusal.contains(journal.to_str().unwrap()), "{refusal}");
    assert_eq!(fs::read(&journal).unwrap(), bytes, "a refused journal is evidence");
}

#[test]
fn a_journal_of_an_unknown_version_is_not_guessed_at() {
    let mut world = with_broker();
    world.stop_broker();
    let journal = journal_of(&world);
    let script = "sqlite3 \"$0\" 'pragma user_version = 9999'";
    world.script(world.home(), script).args([&journal]).run().success();
    let refusal = world.gate(["broker"]).run().refusal();
    assert!(refusal.contains("9999"), "{refusal}");
}

/// The broker reads and writes it as the only one: who looks into it meanwhile is named as the trouble,
/// not the journal.
#[test]
fn a_journal_that_somebody_else_has_open_is_locked_not_damaged() {
    let mut world = with_broker();
    world.stop_broker();
    let journal = world.state().join("journal.sqlite");
    let mut other = Command::new("sqlite3")
        .arg(&journal)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut asks = other.stdin.take().unwrap();
    asks.write_all(b"begin; select count(*) from run;\n").unwrap();
    let mut said = String::new();
    BufReader::new(other.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "1\n");
    let refusal = world.gate(["broker"]).run().refusal();
    assert!(refusal.contains("locked") && !refusal.contains("away"), "{refusal}");
    drop(asks);
    other.wait().unwrap();
    world.start_broker([""; 0]);
}

/// N3: what cannot be written down is not granted, and whoever asks hears that at once.
#[test]
fn n3_a_full_disk_under_the_journal_refuses_and_loses_nothing() {
    let mut world = World::bare();
    world.lay_small_disk(&world.state(), "1m");
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    world.seed("f", "");
    world.seed("g", "");
    let [mut holder, mut waiter, mut newcomer] = [(); 3].map(|()| world.actor(&view));
    let fd = holder.open("w", "f");
    let id = acquire(&world, "kept");
    waiter.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);

    let refused = fill_up(&world);
    let said = refused.body["error"].as_str().unwrap();
    assert!(refused.status == 507 && said.starts_with("no room"), "{refused:?}");
    assert_eq!(newcomer.ask(["open", "r", "g"]), Err(Errno::NOSPC));
    let held = world.gate(["hold", "view/g", "--", "true"]).run();
    assert!(held.code == Some(2) && held.stderr.contains("make room"), "{held}");
    let status = world.gate(["status"]).run().success();
    assert!(status.contains("journal  cannot be written"), "{status}");
    assert_eq!(halt_of(&world)["kind"], "no-room");
    let figures = world.http().get("/metrics").body;
    assert!(figures.as_str().unwrap().contains("gate_halted 1"), "{figures}");
    holder.write(fd, "text").unwrap();
    holder.close(fd);
    world.await_waiting("f", 1);

    fs::remove_file(world.state().join("filler")).unwrap();
    waiter.opened();
    assert_eq!(halt_of(&world), Value::Null);
    world.kill_broker();
    world.start_broker([""; 0]);
    let status = world.http().get("/v1/locks/status?path=kept").body;
    assert_eq!(status["locks"][0]["lock_id"], json!(id), "{status}");
    drop((holder, waiter, newcomer));
    world.umount(&view);
    world.stop_broker();
    world.script(world.home(), "umount state").run().success();
}

/// A broker whose last words find no room ends all the same.
#[test]
fn a_broker_on_a_full_disk_can_be_stopped() {
    let mut world = World::bare();
    world.lay_small_disk(&world.state(), "1m");
    world.start_broker([""; 0]);
    fill_up(&world);
    world.stop_broker();
    world.script(world.home(), "umount state").run().success();
}

fn halt_of(world: &World) -> Value {
    let status = world.gate(["status", "--json"]).run().success();
    let status: Value = serde_json::from_str(&status).unwrap();
    status["broker"]["halt"].clone()
}

/// Fills the disk of the broker's state; returns what whoever asks is told then.
fn fill_up(world: &World) -> Reply {
    world.fill_disk(&world.state());
    let refused = (0..2000).find_map(|i| {
        let body =
            json!({"path": format!("full/{i}"), "mode": "write", "owner": "ada", "timeout_ms": 0});
        let reply = world.http().post("/v1/locks/acquire", &body);
        (reply.status != 200).then_some(reply)
    });
    refused.expect("a full disk is noticed")
}

/// Their logs lie on that disk, too: that they cannot be written ends nobody.
#[test]
fn where_the_disk_of_broker_and_logs_is_full_calls_fail_and_go_on_when_there_is_room() {
    let mut world = World::bare();
    world.find_broker_by_socket();
    world.lay_small_disk(&world.state(), "1m");
    let [source, view] = [world.source(), world.view()];
    let mount = ["mount", "--lease-ms", "1000"].map(OsStr::new);
    let mount = mount.into_iter().chain([source.as_os_str(), view.as_os_str()]);
    world.gate(mount).env("GATE_LOG", "info").run().success();
    world.script(&view, "echo one > f").run().success();

    let fill = "dd if=/dev/zero of=filler bs=4k 2>/dev/null || true";
    world.script(&world.state(), fill).run().success();
    let failed = (0..2000).find_map(|i| {
        let outcome = world.script(&view, &format!("echo > {i}")).within(SOON).run();
        (outcome.code != Some(0)).then_some(outcome)
    });
    let failed = failed.expect("a full disk is noticed");
    assert!(failed.stderr.contains("No space left on device"), "{failed}");
    let told = world.gate(["doctor"]).run();
    let said = ["make room", "grants nothing: its journal cannot be written"];
    assert!(said.iter().all(|words| told.stdout.contains(words)), "{told}");

    fs::remove_file(world.state().join("filler")).unwrap();
    wait_until(SOON, "the broker goes on", || {
        world.script(&view, "echo two > f").within(SOON).run().code == Some(0)
    });
    assert_eq!(world.source_text("f"), "two\n");
    world.gate(["umount".as_ref(), view.as_os_str()]).run().success();
    world.gate(["daemon", "stop"]).run().success();
    world.script(world.home(), "umount state").run().success();
}

#[test]
fn a_view_that_nobody_can_hear_is_served_all_the_same() {
    let world = with_broker();
    world.seed("f", "text");
    let gate = world.program("gate");
    let script = r#"
        "$GATE" mount --foreground source view 2>/dev/full &
        until mountpoint -q view; do :; done
        cat view/f && "$GATE" umount view && wait $!
    "#;
    let outcome = world.script(world.home(), script).env("GATE", gate).env("GATE_LOG", "debug");
    assert_eq!(outcome.run().success(), "text");
}

fn with_broker() -> World {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world
}

#[track_caller]
fn mount_refused(world: &World, source: &str, point: &str) -> String {
    world.gate(["mount", "--foreground", source, point]).run().refusal()
}

fn acquire(world: &World, path: &str) -> String {
    let body = json!({"path": path, "mode": "write", "owner": "ada"});
    world.http().post("/v1/locks/acquire", &body).lock_id()
}

/// Finds the journal by what every SQLite file begins with.
fn journal_of(world: &World) -> PathBuf {
    let files = fs::read_dir(world.state()).unwrap().flatten().map(|entry| entry.path());
    let is_journal =
        |path: &PathBuf| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3"));
    files.filter(|path| path.is_file()).find(is_journal).expect("the broker keeps a journal")
}

#[test]
fn more_files_than_descriptors_are_walked_again_and_again() {
    const FILES: &str = "5000";
    // Root would raise the limit.
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let fill = "mkdir d{1..50} big
        for d in d{1..50}; do for f in {1..50}; do echo $d $f > $d/$f; done; done
        for f in {1..2500}; do echo big $f > big/$f; done";
    world.script(&world.source(), fill).run().success();
    let (view, server) = mount_with_few_descriptors(&world);
    let walk = r#"
        cd d1
        exec 3< 1 4>> 2
        for round in 1 2; do
            find .. -type f | wc -l
            find .. -type f -printf '%s\n' | wc -l
            du -a .. | wc -l
            grep -r '[0-9]$' .. | wc -l
            tar -c .. 2> /dev/null | tar -t | grep -c '[0-9]$'
        done
        cat <&3
        echo more >&4
        cat 2
        [ "$(/bin/pwd)" = "$PWD" ] && readlink /proc/$$/fd/3
    "#;
    let output = world.script(&view, walk).run().success();
    let open = view.join("d1/1").into_os_string().into_string().unwrap();
    let round = [FILES, FILES, "5052", FILES, FILES];
    let expected = [&round[..], &round, &["d1 1", "d1 2", "more", &open]].concat();
    assert_eq!(output.lines().collect::<Vec<_>>(), expected);
    world.gate(["umount".as_ref(), view.as_os_str()]).run().success();
    assert_eq!(server.finish(SOON).code, Some(0));
}

/// What a view keeps of files grows with their number and no faster, and goes with them.
#[test]
fn a_view_needs_little_memory_for_many_files_and_gives_up_what_is_removed() {
    const BYTES_OF_A_FILE_MAX: usize = 1024;
    /// What does not come of the files: threads for what is asked at once, and their heaps.
    const SLACK_BYTES: usize = 4 << 20;
    let soak = [100_000, 300_000, 1_000_000];
    let counts = if gate_tests::scaled(0, 1) == 0 { &[10_000, 30_000][..] } else { &soak };
    let mut former: Option<(usize, usize)> = None;
    for files in counts {
        let world = World::new();
        let pid = world.server_of(&world.view()).pid();
        let open = || open_files_of(pid, &world.source());
        let (before, open_before) = (kernel::memory(pid), open());
        let walk = || {
            let fill = format!("mkdir d && cd d && seq {files} | xargs touch");
            world.script(&world.source(), &fill).within(LONG).run().success();
            let walk = "find d -type f -size 0 | wc -l; ls -f d | wc -l";
            let said = world.script(&world.view(), walk).within(LONG).run().success();
            assert_eq!(said, format!("{files}\n{}\n", files + 2));
            kernel::memory(pid).saturating_sub(before)
        };
        let first = walk();
        world.script(&world.view(), "rm -r d").within(LONG).run().success();
        wait_until(LONG, "removed files are forgotten", || open() <= open_before);
        let second = walk();
        println!("{files} files: {} KiB; others in their place: {} KiB", first >> 10, second >> 10);
        let most = files * BYTES_OF_A_FILE_MAX + SLACK_BYTES;
        assert!(first < most, "{first} bytes for {files} files");
        if let Some((fewer, less)) = former.replace((*files, first)) {
            let most = less / fewer * files * 6 / 5 + SLACK_BYTES;
            assert!(first < most, "{first} bytes for {files} files, {less} for {fewer}");
        }
        assert!(
            second < first * 3 / 2 + SLACK_BYTES,
            "{first}, then {second} bytes: what was removed is kept"
        );
    }
}

/// Counts what a process has open in a directory, removed or not.
fn open_files_of(pid: i32, directory: &Path) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let leads_there = |path: PathBuf| path.starts_with(directory);
    descriptors.filter(|of| fs::read_link(of.path()).is_ok_and(leads_there)).count()
}

/// Above a mark the view has the kernel forget directories, too, but not one that a process is in.
#[test]
fn more_directories_than_descriptors_are_walked_again_and_again() {
    assert!(kernel::is_at_least(6, 18), "needs Linux 6.18: others cannot be asked to");
    // Root would raise the limit.
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    world.script(&world.source(), "mkdir -p {1..100}/{1..20}/{a,b}").run().success();
    let (view, server) = mount_with_few_descriptors(&world);
    let walk = "cd 1/1/a
        for round in 1 2 3; do find ../../.. -mindepth 1 -type d | wc -l; done
        /bin/pwd; touch here; ls";
    let said = world.script(&view, walk).run().success();
    let here = view.join("1/1/a").into_os_string().into_string().unwrap();
    let all = (100 + 2000 + 4000).to_string();
    assert_eq!(said.lines().collect::<Vec<_>>(), [&all, &all, &all, &*here, "here"]);
    assert!(open_files_of(server.pid(), Path::new("/")) < 1024);
    world.gate(["umount".as_ref(), view.as_os_str()]).run().success();
    assert_eq!(server.finish(SOON).code, Some(0));
}

/// Mounts the view by a server that may have 1 024 files open.
fn mount_with_few_descriptors(world: &World) -> (PathBuf, Running) {
    let [source, view] = [world.source(), world.view()];
    let server = world
        .command("prlimit".as_ref())
        .args(["--nofile=1024".as_ref(), world.program("gate").as_os_str()])
        .args(["mount".as_ref(), "--foreground".as_ref(), source.as_os_str(), view.as_ref()])
        .start();
    wait_until(SOON, "the view is mounted", || {
        assert!(server.is_running(), "the mount ended: {}", server.so_far());
        kernel::mounts_below(&view).iter().any(|mount| mount.is_fuse())
    });
    (view, server)
}

#[test]
fn a_broker_has_more_clients_than_its_limit_of_open_files_was() {
    // Root would raise the hard limit, too.
    let world = World::bare_of_ordinary_user();
    let broker = world
        .command("prlimit".as_ref())
        .args(["--nofile=256:1024".as_ref(), world.program("gate").as_os_str()])
        .args(["broker"])
        .start();
    let socket = world.state().join("gate.sock");
    wait_until(SOON, "the broker listens", || {
        assert!(broker.is_running(), "the broker ended: {}", broker.so_far());
        UnixStream::connect(&socket).is_ok()
    });
    let clients: Vec<UnixStream> =
        (0..300).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    for (number, mut client) in clients.iter().enumerate() {
        client.set_read_timeout(Some(SOON)).unwrap();
        let greeted = client.read_exact(&mut [0; 8]);
        assert!(greeted.is_ok(), "client {number} is let in: {greeted:?}");
    }
    for (number, mut client) in clients.iter().enumerate() {
        client.set_nonblocking(true).unwrap();
        let said = client.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(said, Err(ErrorKind::WouldBlock), "client {number} had to make room");
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.finish(SOON).code, Some(0));
}
