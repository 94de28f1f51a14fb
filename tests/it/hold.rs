//! `gate hold`: what it takes, how it ends, and how it lets its command live, beside flock(1).

mod outages;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use gate_tests::run::Running;
use gate_tests::terminal::Terminal;
use gate_tests::wait::{SOON, wait_until};
use gate_tests::{Actor, World};
use rustix::io::Errno;
use rustix::process::Signal;

/// Runs a script that takes `f` by `lock`, or for a shell by `shell`, with the options in `$O`, and
/// says how that ended.
const CASES: &str = r#"
    mkfifo ready go
    # $1: how somebody else has it, $2: how it is asked for, then the command.
    try() {
        local held=$1 asked=$2; shift 2
        if [ "$held" != free ]; then
            O=$held lock sh -c 'echo > ready; read -r x < go' & read -r x < ready
        fi
        local status=0
        O=$asked lock "$@" || status=$?
        echo "$held|$asked|$*: $status"
        if [ "$held" != free ]; then echo > go; wait; fi
    }
    for held in free "" -s -x; do
        for asked in -n "-n -s" "-n -E 9" "-E 9 -w 0.1" "--conflict-exit-code 0 -n" "-w 0" "-w 60 -n" \
            "-n --shared" "-n -e" "-n --exclusive" "-n -s -x" "-ns -xs"; do
            try "$held" "$asked" true
        done
    done
    for command in 'exit 7' 'echo a b | tr a-z A-Z; false' 'kill -TERM $$' 'no-such-command' 'unfinished ('; do
        status=0; O= shell "$command" 2>/dev/null || status=$?
        echo "$command: $status"
    done
    SHELL=$BASH O=-s shell 'echo run by ${BASH_VERSION:+bash}'
    SHELL= O=-x shell 'echo run by ${0##*/}'
    try free "" sh -c 'exit 7'
    try free "" sh -c 'exit 255'
    for signal in TERM KILL INT USR1; do try free "" sh -c "kill -$signal \$\$"; done
    echo text | try free "" cat
    try free "" sh -c 'echo out; echo err >&2' 2>&1
    try free "" env lock_is_no_variable=1 sh -c 'echo $lock_is_no_variable'
    printf 'echo no interpreter is named\n' > script; chmod +x script
    try free "" ./script
    # What one has let go of the next finds free.
    for i in $(seq 20); do O=-n lock true; done
"#;

#[test]
fn a_hold_ends_as_flock_does() {
    let world = World::new();
    let run = |dir: &Path, lock: &str| {
        fs::write(dir.join("f"), "").unwrap();
        world.script(dir, &format!("{lock}{CASES}")).args([world.program("gate")]).run().success()
    };
    let flock = r#"lock() { flock $O f "$@"; }; shell() { flock $O f -c "$1"; }"#;
    let hold = r#"lock() { "$0" hold $O f -- "$@"; }; shell() { "$0" hold $O f -c "$1"; }"#;
    assert_eq!(run(&world.view(), hold), run(&world.twin(), flock));
}

/// Nobody comes anew: S waits for H's file under another name by now, before X, for whom H waits.
#[test]
fn a_circle_that_a_rename_closes_is_told_to_the_youngest_who_waits_in_it() {
    let world = World::new();
    for name in ["d/f", "e/g", "q"] {
        world.seed(name, "");
    }
    let view = world.view();
    let mut b = world.actor_under_hold(&view, ["e"]);
    let [mut h, mut s] = [world.actor(&view), world.actor(&view)];
    let file = h.open("w", "d/f");
    s.tell(["open", "w", "d/f"]);
    world.await_waiting("d/f", 1);
    let x = world.gate(["hold", "e", "q", "--", "true"]).dir(&view).start();
    world.await_waiting("q", 1);
    h.tell(["open", "w", "q"]);
    world.await_waiting("q", 2);
    b.ask(["rename", "d", "e/d"]).unwrap();
    assert_eq!(h.answer(), Err(Errno::DEADLK));
    let why = world.gate(["why", "q"]).dir(&view).run().success();
    assert!(why.contains("EDEADLK"), "{why}");
    assert!(s.is_busy());
    h.close(file);
    b.leave();
    let file = s.opened();
    s.close(file);
    x.finish(SOON).success();
}

/// Where flock has one exit status for all, ours tell apart.
#[test]
fn a_hold_tells_a_wait_that_was_too_long_and_a_command_that_is_none() {
    let world = World::new();
    for (name, mode) in [("f", 0o644), ("d/no-program", 0o644)] {
        world.seed(name, "text");
        fs::set_permissions(world.source().join(name), permissions(mode)).unwrap();
    }
    let _holder = world.actor_under_hold(&world.view(), ["f"]);
    let code = |args: &[&str]| {
        let words = ["hold"].iter().chain(args).copied().collect::<Vec<_>>();
        world.gate(words).dir(world.view()).run()
    };
    assert_eq!(code(&["-w", "0.1", "f", "--", "true"]).code, Some(124));
    assert_eq!(code(&["--timeout", "100ms", "--read", "f", "--", "true"]).code, Some(124));
    for (command, status) in [("./d/no-program", 126), ("./d", 126), ("./missing", 127)] {
        let outcome = code(&["g", "--", command]);
        assert_eq!(outcome.code, Some(status), "{outcome}");
        assert!(outcome.refusal().contains(command));
    }
    world.await_held("g", 0);
}

#[test]
fn what_a_hold_cannot_take_is_refused_in_three_lines() {
    let world = World::new();
    world.seed("f", "");
    let outside = world.twin();
    let outside = outside.to_str().unwrap();
    for (args, word) in [
        (&["f"][..], "<CMD>"),
        (&["f", "--"], "<CMD>"),
        (&["f", "-c", "true", "--", "true"], "cannot be used with"),
        (&["--", "true"], "<PATH>"),
        (&["-n", "-E", "256", "f", "--", "true"], "256"),
        (&["-w", "soon", "f", "--", "true"], "soon"),
        (&["f", outside, "--", "true"], "takes no turns"),
        (&["missing/f", "--", "true"], "missing/f"),
        (&["f/g", "--", "true"], "f/g"),
    ] {
        let words = ["hold"].iter().chain(args).copied().collect::<Vec<_>>();
        let outcome = world.gate(words).dir(world.view()).run();
        assert_eq!(outcome.code, Some(2), "{outcome}");
        assert!(outcome.clone().refusal().contains(word), "{word}: {outcome}");
    }
    world.await_idle();
}

/// One ticket for all, however often and by whatever way something is named.
#[test]
fn a_hold_takes_paths_however_they_are_written() {
    let world = World::new();
    for name in ["f", "g", "d/f", "d/e/f"] {
        world.seed(name, "");
    }
    fs::hard_link(world.source().join("g"), world.source().join("hard")).unwrap();
    symlink("f", world.source().join("link")).unwrap();
    let absolute = world.view().join("d/e/f");
    let paths = ["../f", "../d/../f", "../link", "../g", "../hard", ".", "f", "e", "../new"];
    let paths = paths.iter().map(AsRef::as_ref).chain([absolute.as_os_str()]);
    let mut holder = world.actor_under_hold(&world.view().join("d"), paths);
    let board = world.board();
    let tickets: BTreeSet<u64> = board.locks.iter().map(|lock| lock.ticket).collect();
    assert_eq!(tickets.len(), 1, "{board:?}");
    for name in ["../f", "../g", "f", "e/f", "../new", "e/fresh"] {
        holder.ask(["append", name, "x"]).unwrap();
    }
    let blocked = ["f", "g", "hard", "d/f", "d/e/f", "d/other", "new"];
    let mut others: Vec<Actor> = blocked.iter().map(|_| world.actor(&world.view())).collect();
    for ((other, name), waiting) in others.iter_mut().zip(blocked).zip(1..) {
        other.tell(["open", "w+", name]);
        // A file with two names may be shown by either.
        let waiters = || world.board().locks.into_iter().filter(|lock| lock.state == "waiting");
        wait_until(SOON, name, || waiters().count() == waiting);
    }
    world.actor(&world.view()).ask(["append", "free", "x"]).unwrap();
    holder.leave();
    for other in &mut others {
        let fd = other.opened();
        other.close(fd);
    }
}

#[test]
fn holds_to_read_share_and_keep_writers_out() {
    let world = World::new();
    world.seed("d/f", "");
    let mut one = world.actor_under_hold(&world.view(), ["--read", "d"]);
    let mut two = world.actor_under_hold(&world.view(), ["--read", "d/f"]);
    let mut reader = world.actor(&world.view());
    let fd = reader.open("r", "d/f");
    reader.close(fd);
    let mut writer = world.actor(&world.view());
    writer.tell(["open", "w", "d/f"]);
    world.await_waiting("d/f", 1);
    one.leave();
    two.leave();
    writer.opened();
}

/// Its hold is not in their way, but who is before them in line waits for it.
#[test]
fn readers_below_a_hold_to_read_do_not_stand_behind_those_who_wait_for_it() {
    let world = World::new();
    world.seed("d/f", "text");
    let mut holder = world.actor_under_hold(&world.view(), ["--read", "d"]);
    let mut writer = world.actor(&world.view());
    writer.tell(["open", "w", "d/f"]);
    world.await_waiting("d/f", 1);
    let fd = holder.open("r", "d/f");
    assert_eq!(holder.read(fd, 9), Ok("text".to_owned()));
    assert!(writer.is_busy());
    holder.close(fd);
    holder.leave();
    writer.opened();
}

#[test]
fn a_hold_spans_two_sources_of_one_broker() {
    let (world, second) = two_sources([]);
    world.seed("f", "");
    let paths = [world.view().join("f"), second.join("f")];
    let mut holder = world.actor_under_hold(world.home(), &paths);
    let board = world.board();
    assert_eq!(board.locks.len(), 2, "{board:?}");
    assert_eq!(board.locks[0].ticket, board.locks[1].ticket);
    let [mut one, mut two] = [world.actor(&world.view()), world.actor(&second)];
    for other in [&mut one, &mut two] {
        other.tell(["open", "w", "f"]);
    }
    world.await_waiting("f", 2);
    for path in &paths {
        holder.ask(["append".as_ref(), path.as_os_str(), "x".as_ref()]).unwrap();
    }
    holder.leave();
    one.opened();
    two.opened();
}

/// By its socket and by its port it is the same broker.
#[test]
fn a_hold_spans_views_that_reach_one_broker_in_different_ways() {
    let (world, second) = two_sources(["--state-dir"]);
    world.seed("f", "");
    let paths = [world.view().join("f"), second.join("f")];
    let mut holder = world.actor_under_hold(world.home(), &paths);
    world.await_held("f", 2);
    holder.leave();
}

#[test]
fn paths_of_two_brokers_are_refused_with_both_named() {
    let world = World::new();
    let other = World::new();
    let paths = [world.view().join("f"), other.view().join("f")];
    let outcome = world.gate(["hold"]).args(&paths).args(["--", "true"]).run();
    assert_eq!(outcome.code, Some(2), "{outcome}");
    let refusal = outcome.refusal();
    for world in [&world, &other] {
        assert!(refusal.contains(&format!(":{}", world.http().port)), "{refusal}");
    }
    assert!(refusal.contains("one `gate hold` for each broker"), "{refusal}");
}

/// Signals that somebody sends to the hold are meant for the command.
#[test]
fn signals_reach_the_command_and_its_end_is_that_of_the_hold() {
    let world = World::new();
    world.seed("f", "");
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT, Signal::USR1, Signal::USR2]
    {
        let number = signal.as_raw();
        let script = format!("trap 'exit 40' {number}; echo ready; while :; do read -r x; done");
        let mut hold = held(&world, &["f", "--", "bash", "-c", &script]);
        let _input = hold.stdin();
        hold.signal(signal);
        let outcome = hold.finish(SOON);
        assert_eq!(outcome.code, Some(40), "{signal:?}: {outcome}");
        let mut hold = held(&world, &["f", "--", "bash", "-c", "echo ready; exec cat"]);
        let _input = hold.stdin();
        hold.signal(signal);
        let outcome = hold.finish(SOON);
        assert_eq!(outcome.code, Some(128 + number), "{signal:?}: {outcome}");
        world.await_idle();
    }
}

#[test]
fn what_is_held_need_not_exist_but_its_directory_must() {
    let world = World::new();
    let view = world.view();
    world.gate(["hold", "a", "b", "--", "true"]).dir(&view).run().success();
    let refusal = world.gate(["hold", "a", "c/d", "--", "touch", "ran"]).dir(&view).run().refusal();
    assert!(refusal.contains("cannot look at c/d") && refusal.contains("make that directory"));
    let help = world.gate(["hold", "--help"]).run().success();
    assert!(help.contains("their directories must"), "{help}");
    assert!(!world.source().join("ran").exists());
}

#[test]
fn a_signal_ends_the_wait_for_a_hold_and_its_place() {
    let world = World::new();
    world.seed("f", "");
    let _holder = world.actor_under_hold(&world.view(), ["f"]);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2]
    {
        let hold = world.gate(["hold", "f", "--", "touch", "ran"]).dir(world.view()).start();
        world.await_waiting("f", 1);
        hold.signal(signal);
        assert_eq!(hold.finish(SOON).code, Some(128 + signal.as_raw()), "{signal:?}");
        world.await_waiting("f", 0);
    }
    assert!(!world.source().join("ran").exists());
}

#[test]
fn a_command_under_a_hold_has_the_terminal() {
    let world = World::new();
    world.seed("f", "");
    let terminal = Terminal::open(&world, 80, 24);
    terminal.enter(&format!("cd {}; PS1='% '; clear", world.view().display()));
    let gate = world.program("gate");
    let hold = |command: &str| format!("{} hold f -- {command}; echo ended by $?", gate.display());
    terminal.enter(&hold("sh -c 'read -r word; echo said $word'"));
    world.await_held("f", 1);
    terminal.enter("something");
    terminal.wait_for("said something\nended by 0");
    // Ctrl-C is for both; Ctrl-Z stops both, and what is held stays held.
    let counting = r#"sh -c 'trap "exit 5" INT; while :; do sleep 0.1; echo on and "on"; done'"#;
    terminal.enter(&hold(counting));
    terminal.wait_for("on and on");
    terminal.press(["C-z"]);
    terminal.wait_for("ended by 148");
    world.await_held("f", 1);
    terminal.enter("clear; fg; echo ended by $?");
    terminal.wait_until("it goes on", |screen| {
        screen.contains("on and on") && !screen.contains("ended by 148")
    });
    world.await_held("f", 1);
    terminal.press(["C-c"]);
    terminal.wait_for("ended by 5");
    world.await_idle();
    terminal.assert_sane();
}

#[test]
fn why_names_who_is_in_the_way_of_a_hold_that_waits() {
    let world = World::new();
    world.seed("d/f", "");
    let mut holder = world.actor(&world.view());
    holder.open("w", "d/f");
    let args = ["hold", "--reason", "release", "d", "--", "true"];
    let waiting = world.gate(args).dir(world.view()).start();
    world.await_waiting("d", 1);
    let why = world.gate(["why"]).args([world.view().join("d")]).run().success();
    for word in [
        &format!("process {} holds d/f to write", holder.pid()),
        &format!("process {} waits for d to write (hold)", waiting.pid()),
        "release",
        &format!("end process {}", holder.pid()),
    ] {
        assert!(why.contains(word), "{word}: {why}");
    }
    holder.leave();
    assert_eq!(waiting.finish(SOON).code, Some(0));
}

/// Starts a hold whose command says that it is ready.
fn held(world: &World, args: &[&str]) -> Running {
    let words = ["hold"].iter().chain(args).copied().collect::<Vec<_>>();
    let hold = world.gate(words).dir(world.view()).start_with_input();
    wait_until(SOON, "the command runs", || {
        assert!(hold.is_running(), "{}", hold.so_far());
        hold.so_far().contains("ready")
    });
    hold
}

/// A world with a view of its twin, too; `flags` may name the state directory.
fn two_sources<const N: usize>(flags: [&str; N]) -> (World, std::path::PathBuf) {
    let mut world = World::new();
    let [twin, second, state] = [world.twin(), world.home().join("second"), world.state()];
    fs::create_dir(&second).unwrap();
    fs::write(twin.join("f"), "").unwrap();
    let values = flags.iter().flat_map(|flag| [(*flag).to_owned(), state.display().to_string()]);
    let args: Vec<String> = if N == 0 { Vec::new() } else { values.collect() };
    world.mount(&twin, &second, args);
    (world, second)
}

fn permissions(mode: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(mode)
}

#[test]
fn who_is_not_let_in_is_told_who_holds_it() {
    let world = World::new();
    world.seed("d/f", "");
    let mut holder = world.actor_under_hold(&world.view(), ["--reason", "a release", "d"]);
    for (flags, code) in [(&["-n"][..], 1), (&["-w", "0.05"], 124), (&["-n", "-E", "9"], 9)] {
        let hold = world.gate(["hold"]).args(flags).args(["d/f", "--", "true"]);
        let outcome = hold.dir(world.view()).run();
        assert_eq!(outcome.code, Some(code), "{outcome}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
        for words in ["not let in: gate hold", "holds d to write", "a release"] {
            assert!(outcome.stderr.contains(words), "{words}: {outcome}");
        }
    }
    holder.leave();
}

#[test]
fn who_watches_a_hold_wait_is_told_for_whom() {
    let mut world = World::new();
    world.seed("f", "");
    let mut holder = world.actor_under_hold(&world.view(), ["f"]);
    let terminal = Terminal::open(&world, 120, 24);
    let gate = world.program("gate");
    terminal.enter(&format!(
        "cd {}; {} hold f -- echo in $((40 + 2))",
        world.view().display(),
        gate.display()
    ));
    terminal.wait_for("gate hold: waits: gate hold");
    holder.leave();
    terminal.wait_for("in 42");
    world.kill_broker();
    terminal.enter(&format!("{} hold f -- echo in $((40 + 3))", gate.display()));
    terminal.wait_for("gate hold: waits: the broker is away");
    world.start_broker([""; 0]);
    terminal.wait_for("in 43");
    // Its working directory is not in the way of the view's end.
    terminal.enter("cd /");
}

#[test]
fn what_a_hold_does_not_stop_is_said() {
    let world = World::new();
    let view = world.view();
    let outcome = world.gate(["hold", "x.log", "f", "--", "true"]).dir(&view).run();
    assert!(outcome.stderr.contains("x.log is not gated (`*.log=none`)"), "{outcome}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    let why = |name| world.gate(["why", name]).dir(&view).run().success();
    assert!(why("x.log").contains("not gated, by `*.log=none`"), "{}", why("x.log"));
    assert!(!why("f").contains("not gated"), "{}", why("f"));
}

#[test]
fn of_too_many_names_it_is_said_how_many_fit() {
    let world = World::new();
    let names = (0..1_024).map(|number| format!("n{number}"));
    let hold = world.gate(["hold"]).args(names).args(["--", "true"]).dir(world.view()).run();
    assert_eq!(hold.code, Some(1), "{hold}");
    assert!(hold.refusal().contains("1024, is reached: a name that does not exist takes one"));
}
