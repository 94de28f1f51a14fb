//! Who counts as one, and who excludes whom.

use std::time::{Duration, Instant};

use gate_tests::wait::{SOON, wait_until};
use gate_tests::{Actor, World, kernel};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn what_a_process_has_open_it_may_open_again_and_no_other_process_may() {
    let world = World::new();
    world.seed("f", "");
    let mut holder = world.actor(&world.view());
    let first = holder.open("w", "f");
    holder.open("r", "f");
    let again = holder.open("rw", "f");
    let mut other = world.actor(&world.view());
    other.tell(["open", "r", "f"]);
    world.await_waiting("f", 1);
    holder.close(first);
    holder.close(again);
    other.opened();
}

/// A turn belongs to the open file, whoever has it by now; it ends with its last descriptor.
#[test]
fn a_turn_outlives_the_process_that_took_it_while_another_has_the_descriptor() {
    let world = World::new();
    world.seed("f", "");
    let script = "sleeper=$(exec 3>>f; sleep 1000 >&2 & echo $!); echo opened
                  read -r go || kill $sleeper";
    let mut shell = world.script(&world.view(), script).start_with_input();
    let input = shell.stdin();
    wait_until(SOON, "it is open", || shell.so_far().contains("opened"));
    let mut other = world.actor(&world.view());
    other.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    drop(input);
    other.opened();
}

#[test]
fn with_the_scope_handle_each_open_file_is_on_its_own() {
    let world = World::with_view(["--owner-scope", "handle"]);
    world.seed("f", "");
    let mut holder = world.actor(&world.view());
    holder.ask(["catch"]).unwrap();
    let first = holder.open("r", "f");
    holder.open("r", "f");
    holder.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    holder.signal(rustix::process::Signal::INT);
    assert_eq!(holder.answer(), Err(Errno::INTR));
    holder.close(first);
}

#[test]
fn with_the_scope_agent_the_processes_of_one_agent_do_not_exclude_each_other() {
    let world = World::with_view(["--owner-scope", "agent"]);
    world.seed("f", "");
    let mut holder = agent(&world, "ada");
    let mut other_agent = agent(&world, "bob");
    let mut nobody = world.actor(&world.view());
    let fd = holder.open("w", "f");
    agent(&world, "ada").open("w", "f");
    other_agent.tell(["open", "r", "f"]);
    world.await_waiting("f", 1);
    nobody.tell(["open", "r", "f"]);
    world.await_waiting("f", 2);
    holder.close(fd);
    other_agent.opened();
    nobody.opened();
}

#[test]
fn within_one_agent_processes_exclude_each_other_by_default() {
    let world = World::new();
    world.seed("f", "");
    let mut holder = agent(&world, "ada");
    holder.open("w", "f");
    agent(&world, "ada").tell(["open", "w", "f"]);
    let mut other = agent(&world, "ada");
    other.tell(["open", "w", "f"]);
    wait_until(SOON, "the other waits", || world.board().waiting("f").count() > 0);
    assert!(other.is_busy());
}

#[test]
fn with_the_scope_mount_a_view_is_one_owner() {
    let mut world = World::with_view(["--owner-scope", "mount"]);
    let second = super::spaces::second_view(&mut world, ["--owner-scope", "mount"]);
    world.seed("f", "");
    let [mut one, mut two] = [world.actor(&world.view()), world.actor(&world.view())];
    let [one_fd, two_fd] = [one.open("w", "f"), two.open("w", "f")];
    let mut beside = world.actor(&second);
    beside.tell(["open", "r", "f"]);
    world.await_waiting("f", 1);
    one.close(one_fd);
    assert!(beside.is_busy(), "the first view still has it open");
    two.close(two_fd);
    beside.opened();
}

#[test]
fn a_hold_stops_a_view_that_is_one_owner() {
    let world = World::with_view(["--owner-scope", "mount"]);
    world.seed("f", "");
    let mut holder = world.actor_under_hold(&world.view(), ["f"]);
    let mut other = world.actor(&world.view());
    other.tell(["open", "r", "f"]);
    world.await_waiting("f", 1);
    holder.leave();
    other.opened();
}

/// Whatever is one owner in a view: what a hold's command opens is not stopped by that hold.
#[test]
fn a_hold_leads_its_command_in_views_of_every_scope() {
    for scope in ["handle", "process", "agent", "mount"] {
        let world = World::with_view(["--owner-scope", scope]);
        world.seed("f", "");
        let args = ["hold", "f", "--", "sh", "-c", "echo one >> f && echo two >> f && cat f"];
        let run = world.gate(args).dir(world.view()).run();
        assert_eq!(run.success(), "one\ntwo\n", "{scope}");
    }
}

#[test]
fn an_owner_that_is_named_is_shown_by_its_name() {
    let world = World::with_view(["--owner", "the build server"]);
    world.seed("f", "");
    let mut holder = world.actor(&world.view());
    holder.open("w", "f");
    let board: Value =
        serde_json::from_str(&world.gate(["locks", "--json"]).run().success()).unwrap();
    assert_eq!(board["locks"][0]["owner"], "the build server", "{board}");
    let why = world.gate(["why"]).args([world.view().join("f")]).run().success();
    assert!(why.contains("the build server"), "{why}");
}

/// One thread: 250 ms. Several: the one that opened the file must sleep for two seconds.
#[test]
fn a_holder_that_sleeps_for_whom_it_blocks_lets_it_in() {
    for (threads, at_least) in [(1, Duration::from_millis(250)), (2, Duration::from_secs(2))] {
        let world = World::new();
        world.seed("f", "text");
        let mut holder = world.actor(&world.view());
        for _ in 1..threads {
            holder.ask(["thread"]).unwrap();
        }
        holder.open("w", "f");
        let since = Instant::now();
        assert_eq!(holder.ask(["capture", "cat", "f"]), Ok("text".to_owned()));
        let took = since.elapsed();
        assert!(took >= at_least, "{threads} threads: {took:?}");
        let why = world.gate(["why"]).args([world.view().join("f")]).run().success();
        assert!(why.contains("passed because a holder waits for it"), "{why}");
    }
}

/// In poll(2) nobody can see for whom a program waits: it stays for the user to end it, who is told.
#[test]
fn why_names_a_waiter_that_its_holder_may_wait_for_unseen() {
    let world = World::new();
    world.seed("f", "");
    let script = "from subprocess import PIPE, Popen
with open('f', 'a'):
    Popen(['cat', 'f'], stdout=PIPE, stderr=PIPE).communicate()";
    let holder = world.python(&world.view(), script).start();
    world.await_waiting("f", 1);
    let [held, waiting] = [world.board().held("f").count(), world.board().waiting("f").count()];
    assert_eq!((held, waiting), (1, 1), "a holder in poll has no kin");
    let why = world.gate(["why"]).args([world.view().join("f")]).run().success();
    let waiter = world.board().waiting("f").next().and_then(|lock| lock.pid).unwrap();
    let named = format!("cat (process {waiter}) runs below python3 (process {})", holder.pid());
    assert!(why.contains(&named) && why.contains("neither goes on"), "{why}");
    assert!(!why.contains("finish"), "{why}");
    let waiter = rustix::process::Pid::from_raw(waiter).unwrap();
    rustix::process::kill_process(waiter, Signal::KILL).unwrap();
    assert_eq!(holder.finish(SOON).code, Some(0));
}

/// What kin was given conflicts with everybody else: it does not open the file to the world.
#[test]
fn whom_kin_lets_in_still_excludes_everybody_else() {
    let world = World::new();
    world.seed("f", "");
    let mut holder = world.actor(&world.view());
    let fd = holder.open("r", "f");
    holder.tell(["capture", "bash", "-c", "exec 3>>f; echo in; read -r go < go"]);
    let made = world.script(&world.view(), "mkfifo go").run();
    assert_eq!(made.code, Some(0), "{made}");
    wait_until(SOON, "the child is let in", || world.board().held("f").count() == 2);
    let mut other = world.actor(&world.view());
    other.tell(["open", "r", "f"]);
    world.await_waiting("f", 1);
    world.script(&world.view(), "echo go > go").run().success();
    assert_eq!(holder.answer(), Ok("in\\n".to_owned()));
    other.opened();
    holder.close(fd);
}

/// A caller that the view's pid namespace does not know could not be interrupted while it waits.
#[test]
fn a_caller_beyond_the_pid_namespace_is_never_parked() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.seed("f", "");
    // A container: pids of its own, and a directory that it shares with the world around it.
    let container = r#"
        mount --bind . . && mount --make-shared . && cd "$PWD"
        exec unshare --pid --mount --fork --kill-child --propagation unchanged bash -euc '
            mount --make-private /proc && mount -t proc proc /proc
            exec "$0" mount --foreground source view' "$0""#;
    let gate = world.program("gate");
    let server = world.script(world.home(), container).args([gate]).start();
    let view = world.view();
    wait_until(SOON, "the view is mounted", || {
        assert!(server.is_running(), "the mount ended: {}", server.so_far());
        kernel::mounts_below(&view).iter().any(kernel::Mount::is_fuse)
    });
    let [mut holder, mut other] = [world.actor(&view), world.actor(&view)];
    let fd = holder.open("w", "f");
    for words in [&["open", "r", "f"][..], &["unlink", "f"], &["chmod", "f", "600"]] {
        assert_eq!(other.ask(words), Err(Errno::AGAIN), "{words:?}");
    }
    assert_eq!(holder.ask(["open", "w", "f"]), Err(Errno::AGAIN), "it cannot be told apart");
    holder.write(fd, "text").unwrap();
    holder.close(fd);
    other.open("w", "f");
    drop((holder, other));
    world.gate(["umount".as_ref(), view.as_os_str()]).run().success();
    assert_eq!(server.finish(SOON).code, Some(0));
    // Lazily: the broker may have opened its log here, through the directory that was mounted over.
    world.script("/".as_ref(), "umount --lazy \"$0\"").args([world.home()]).run().success();
}

/// Starts an actor below a `gate run`, in the view.
pub(super) fn agent(world: &World, name: &str) -> Actor {
    let gate = [world.program("gate").into_os_string()];
    let words = ["run", "--agent", name, "--"].map(Into::into);
    world.actor_by(gate.into_iter().chain(words), &world.view())
}
