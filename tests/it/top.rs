//! `gate top`: the board in a terminal.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use gate_tests::World;
use gate_tests::terminal::Terminal;
use rustix::process::Signal;

/// What makes a holder green.
const GREEN: &str = "\x1b[38;5;2m";

/// Opens a terminal and the board in it; the shell says when it has the terminal again.
fn open(world: &World, width: u16, height: u16) -> Terminal {
    let terminal = Terminal::open(world, width, height);
    terminal.enter(&format!("{} top; echo left by $?", world.program("gate").display()));
    terminal
}

#[test]
fn top_shows_a_waiter_come_and_go_and_gives_the_terminal_back() {
    let world = World::new();
    world.seed("d/f", "");
    let terminal = open(&world, 100, 24);
    terminal.wait_for("nobody holds anything and nobody waits");
    terminal.wait_for(&format!("shown at {}", world.view().display()));
    let mut holder = world.actor(&world.view());
    let fd = holder.open("w", "d/f");
    terminal.wait_until("the holder", |screen| row(screen, "held", "d/f"));
    let mut other = world.actor(&world.view());
    other.tell(["open", "w", "d/f"]);
    terminal.wait_until("the waiter", |screen| row(screen, "waiting #1", "d/f"));
    terminal.press(["j"]);
    terminal.wait_for(&format!("process {}, holds d/f to write", holder.pid()));
    terminal.press(["Enter"]);
    terminal.wait_for(&format!("end process {}", holder.pid()));
    terminal.press(["q"]);
    holder.close(fd);
    let fd = other.opened();
    terminal.wait_until("nobody waits", |screen| {
        row(screen, "held", "d/f") && !screen.contains("waiting #1")
    });
    other.close(fd);
    terminal.wait_for("nobody holds anything and nobody waits");
    terminal.press(["q"]);
    terminal.wait_for("left by 0");
    terminal.assert_sane();
}

#[test]
fn top_guesses_a_wait_by_what_it_saw() {
    let world = World::new();
    world.seed("f", "");
    let terminal = open(&world, 120, 24);
    terminal.wait_for("nobody holds anything and nobody waits");
    let [mut holder, mut other] = [world.actor(&world.view()), world.actor(&world.view())];
    let fd = holder.open("w", "f");
    other.tell(["open", "w", "f"]);
    terminal.wait_until("no guess", |screen| row(screen, "waiting #1", " ? "));
    holder.close(fd);
    let fd = other.opened();
    terminal.wait_until("the second holds", |screen| !screen.contains("waiting #1"));
    holder.tell(["open", "w", "f"]);
    // The guess may be over by the time it is seen.
    terminal.wait_until("a guess", |screen| {
        row(screen, "waiting #1", " ~") || row(screen, "waiting #1", "overdue")
    });
    other.close(fd);
    holder.opened();
}

#[test]
fn top_goes_on_over_a_restart_of_the_broker() {
    let mut world = World::new();
    world.seed("f", "");
    let mut holder = world.actor(&world.view());
    holder.open("w", "f");
    let terminal = open(&world, 100, 24);
    terminal.wait_until("the holder", |screen| row(screen, "held", " f "));
    world.kill_broker();
    terminal.wait_for("BROKER AWAY");
    world.start_broker([""; 0]);
    terminal.wait_until("the broker is back", |screen| {
        row(screen, "held", " f ") && !screen.contains("BROKER AWAY")
    });
    let mut other = world.actor(&world.view());
    other.tell(["open", "w", "f"]);
    terminal.wait_until("a waiter of the new run", |screen| row(screen, "waiting #1", " f "));
}

#[test]
fn top_gives_the_terminal_back_when_a_signal_ends_it() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let world = World::new();
        let terminal = open(&world, 80, 24);
        terminal.wait_for("nobody holds anything");
        let pid = rustix::process::Pid::from_raw(pid_of_top(&world)).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        terminal.wait_for(&format!("left by {}", 128 + signal.as_raw()));
        terminal.assert_sane();
    }
}

#[test]
fn top_makes_room_for_the_shell_and_comes_back() {
    let world = World::new();
    let terminal = open(&world, 80, 24);
    terminal.wait_for("nobody holds anything");
    terminal.press(["C-z"]);
    terminal.wait_for("left by 148");
    terminal.assert_sane();
    terminal.enter("clear; fg; echo left by $?");
    terminal.wait_for("nobody holds anything");
    terminal.press(["C-c"]);
    terminal.wait_for("left by 0");
    terminal.assert_sane();
}

#[test]
fn top_follows_the_size_of_its_terminal() {
    let world = World::new();
    world.seed("f", "");
    let mut holder = world.actor(&world.view());
    holder.open("w", "f");
    let terminal = open(&world, 120, 24);
    terminal.wait_until("all columns", |screen| row(screen, "STATE", "TICKET"));
    terminal.resize(50, 12);
    terminal.wait_until("few columns", |screen| {
        row(screen, "held", " f ") && !screen.contains("TICKET")
    });
    terminal.resize(39, 9);
    terminal.wait_for("at least 40x10 needed");
    terminal.resize(120, 24);
    terminal.wait_until("all columns", |screen| row(screen, "STATE", "TICKET"));
}

#[test]
fn top_filters_and_pauses() {
    let world = World::new();
    let names = ["one", "two"];
    let mut holder = world.actor(&world.view());
    for name in names {
        world.seed(name, "");
        holder.open("w", name);
    }
    let terminal = open(&world, 80, 24);
    let both = |screen: &str| names.iter().all(|name| row(screen, "held", name));
    terminal.wait_until("both", both);
    terminal.press(["/", "t", "w"]);
    terminal.wait_for("paths that contain: tw_");
    terminal.wait_until("one of them", |screen| {
        row(screen, "held", "two") && !row(screen, "held", "one")
    });
    terminal.press(["Enter"]);
    terminal.wait_for("filter: tw");
    terminal.press(["Escape"]);
    terminal.wait_until("both", both);
    terminal.press(["p"]);
    terminal.wait_for("PAUSED");
    holder.leave();
    world.await_idle();
    assert!(both(&terminal.screen()), "{}", terminal.screen());
    terminal.press(["p"]);
    terminal.wait_for("nobody holds anything");
}

#[test]
fn top_recalls_and_breaks_a_lock_for_a_reason() {
    let world = World::new();
    world.seed("f", "");
    let mut holder = world.actor(&world.view());
    let fd = holder.open("w", "f");
    let terminal = open(&world, 100, 24);
    terminal.wait_until("the holder", |screen| row(screen, "held", " f "));
    terminal.press(["r"]);
    terminal.wait_for("to let go? Enter, or Esc.");
    terminal.enter("please");
    terminal.wait_until("it is asked", |screen| row(screen, "held (asked)", " f "));
    terminal.press(["b"]);
    terminal.wait_for("break ticket");
    terminal.enter("it hangs");
    terminal.wait_for("is broken");
    terminal.wait_for("nobody holds anything");
    assert_eq!(holder.write(fd, "late"), Err(rustix::io::Errno::IO));
    let why = world.gate(["why"]).args([world.view().join("f")]).run().success();
    assert!(why.contains("it hangs"), "{why}");
}

#[test]
fn top_shows_names_that_would_steer_the_terminal() {
    let world = World::new();
    let name = OsString::from_vec(b"n\xff\x1b[2J\xe2\x80\xae".to_vec());
    std::fs::write(world.source().join(&name), "").unwrap();
    let mut holder = world.actor(&world.view());
    holder.open("w", &name);
    let terminal = open(&world, 80, 24);
    terminal.wait_for(r"n\xff\u{1b}[2J\u{202e}");
}

#[test]
fn top_without_a_terminal_says_what_to_use() {
    let world = World::new();
    let outcome = world.gate(["top"]).run();
    assert_eq!(outcome.code, Some(2), "{outcome}");
    assert!(outcome.refusal().contains("gate locks --watch"));
    let terminal = Terminal::open(&world, 80, 24);
    terminal.enter(&format!("TERM=dumb {} top", world.program("gate").display()));
    terminal.wait_for("TERM says that it is dumb");
}

#[test]
fn top_has_no_colours_where_nobody_wants_them() {
    let world = World::new();
    world.seed("f", "");
    let mut holder = world.actor(&world.view());
    holder.open("w", "f");
    for (variable, colours) in [("", true), ("NO_COLOR=1", false)] {
        let terminal = Terminal::open(&world, 80, 24);
        terminal.enter(&format!("{variable} {} top", world.program("gate").display()));
        terminal.wait_until("the holder", |screen| row(screen, "held", " f "));
        let screen = terminal.screen_with_colours();
        assert_eq!(screen.contains(GREEN), colours, "{screen:?}");
    }
}

fn pid_of_top(world: &World) -> i32 {
    let processes = gate_tests::kernel::processes_of(world.home());
    let top = processes.iter().find(|(_, line)| line.ends_with("gate top"));
    top.unwrap_or_else(|| panic!("no board among {processes:?}")).0
}

fn row(screen: &str, one: &str, other: &str) -> bool {
    screen.lines().any(|line| line.contains(one) && line.contains(other))
}
