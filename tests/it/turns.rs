//! Turns: nothing is lost, the line is kept, readers share.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use gate_tests::actor::{Actor, Fd};
use gate_tests::wait::{SOON, wait_until};
use gate_tests::{World, scaled};

const PROCESSES: usize = 16;
const TIMES: usize = 200;
const LONG: Duration = Duration::from_secs(120);

/// N1: two owners never hold conflicting grants.
#[test]
fn sixteen_processes_increment_under_hold_and_lose_nothing() {
    // Each is three programs: what a hold costs is for the bench to say.
    let times = scaled(25, TIMES);
    let world = World::new();
    world.seed("n", "0");
    let actor = world.program("actor");
    let gate = world.program("gate");
    let script = r#"for i in $(seq $1); do "$2" hold n -- "$3" increment n; done"#;
    let shells: Vec<_> = (0..PROCESSES)
        .map(|_| {
            let run = world.script(&world.view(), script);
            run.args(["-".as_ref(), times.to_string().as_ref(), gate.as_os_str(), actor.as_ref()])
                .start()
        })
        .collect();
    for shell in shells {
        shell.finish(LONG).success();
    }
    assert_eq!(world.source_text("n"), (PROCESSES * times).to_string());
}

/// N1, without a hold: an open to write is a turn of its own, from open to close.
#[test]
fn sixteen_processes_append_by_open_write_close_and_lose_nothing() {
    let world = World::new();
    let mut actors: Vec<_> = (0..PROCESSES).map(|_| world.actor(&world.view())).collect();
    for actor in &mut actors {
        actor.tell(["repeat", &TIMES.to_string(), "append", "f", "0123456789"]);
    }
    for actor in &mut actors {
        assert_eq!(actor.answer_by(LONG), Ok(String::new()));
    }
    assert_eq!(world.source_text("f"), "0123456789".repeat(PROCESSES * TIMES));
}

/// N1: who makes a file without a name is its writer when it gets one. What never gets one takes no
/// turn.
#[test]
fn n1_a_file_that_was_made_without_a_name_has_its_writer_when_it_gets_one() {
    for mode in ["default", "strict", "fast"] {
        let world = World::with_view(["--mode", mode]);
        let [mut maker, mut next] = [(); 2].map(|()| world.actor(&world.view()));
        let mut make = |line: &str| drop(maker.ask(line.split(' ')).unwrap());
        make("at 0 open rwt! .");
        assert!(world.board().locks.is_empty(), "{mode}: {:?}", world.board());
        ["at 0 open rwt .", "at 0 write 4 0", "at 0 name f"].into_iter().for_each(&mut make);
        next.tell(["open", "rw", "f"]);
        world.await_waiting("f", 1);
        ["at 0 pwrite 0 4 1", "at 0 close"].into_iter().for_each(make);
        let theirs = next.opened();
        assert_eq!(next.read(theirs, 9).as_deref(), Ok("bbbb"), "{mode}");
    }
}

#[test]
fn a_file_without_a_name_is_linked_as_on_the_bare_directory() {
    let world = World::new();
    let bare = world.home().join("bare");
    fs::create_dir(&bare).unwrap();
    let script = [
        ["at 0 open rwt! .", "at 0 write 9 0", "at 0 name f", "at 0 close"],
        ["at 1 open rwt .", "at 1 write 9 1", "at 1 name f", "at 1 name f"],
        ["at 1 name g", "at 1 write 9 2", "at 1 fstat", "at 2 open wt missing"],
        ["look f", "at 1 close", "unlink f", "tree ."],
    ];
    let [as_seen, as_bare] = [world.view(), bare].map(|dir| {
        let mut actor = world.actor(&dir);
        script.map(|lines| lines.map(|line| actor.ask(line.split(' '))))
    });
    assert_eq!(as_seen, as_bare);
}

/// N2: first come, first granted.
#[test]
fn writers_are_let_in_in_the_order_of_their_arrival() {
    let world = World::new();
    world.seed("f", "");
    let (mut holder, held) = opened(&world, "w");
    let mut line: Vec<Actor> = Vec::new();
    for place in 1..=8 {
        let mut actor = world.actor(&world.view());
        actor.tell(["open", "w", "f"]);
        world.await_waiting("f", place);
        line.push(actor);
    }
    holder.close(held);
    let mut line = line.into_iter();
    while let Some(mut actor) = line.next() {
        let fd = actor.opened();
        assert!(line.as_slice().iter().all(Actor::is_busy), "somebody passed");
        actor.close(fd);
    }
}

/// N2: readers share, and never pass a queued writer.
#[test]
fn readers_share_but_do_not_pass_a_waiting_writer() {
    let world = World::new();
    world.seed("f", "text");
    let (mut first, first_fd) = opened(&world, "r");
    let (mut second, second_fd) = opened(&world, "r");
    let mut writer = world.actor(&world.view());
    writer.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    let mut third = world.actor(&world.view());
    third.tell(["open", "r", "f"]);
    world.await_waiting("f", 2);

    assert_eq!(second.read(second_fd, 4), Ok("text".to_owned()));
    first.close(first_fd);
    assert!(writer.is_busy(), "one reader is left");
    second.close(second_fd);
    let writer_fd = writer.opened();
    assert!(third.is_busy(), "the reader came after the writer");
    writer.close(writer_fd);
    third.opened();
}

/// A turn lasts until the last descriptor is closed, not until the first.
#[test]
fn a_turn_lasts_from_open_to_the_last_close() {
    let world = World::new();
    world.seed("f", "");
    let script = "exec 3>>f; (echo one >&3); echo opened; read -r go; exec 3>&-; read -r go";
    let mut shell = world.script(&world.view(), script).start_with_input();
    gate_tests::wait::wait_until(SOON, "the shell has it open", || {
        shell.so_far().contains("opened")
    });
    let mut other = world.actor(&world.view());
    other.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    assert!(other.is_busy(), "the subshell's close ended the turn");
    let mut input = shell.stdin();
    std::io::Write::write_all(&mut input, b"go\n").unwrap();
    other.opened();
    assert!(shell.is_running());
}

/// Whoever waits for a name gets the file that has the name when it is let in.
#[test]
fn who_waits_for_a_file_that_is_replaced_gets_the_new_one() {
    let world = World::new();
    let cases = [("f1", "w", false), ("f2", "r", false), ("f3", "w", true), ("f4", "w+", true)];
    for (f, how, gone) in cases {
        world.seed(f, "old");
        world.seed("tmp", "new");
        let [mut holder, mut other] = [world.actor(&world.view()), world.actor(&world.view())];
        let held = holder.open("rw", f);
        other.tell(["open", how, f]);
        world.await_waiting(f, 1);
        match gone {
            false => holder.ask(["rename", "tmp", f]).unwrap(),
            true => holder.ask(["unlink", f]).unwrap(),
        };
        holder.close(held);
        match (how, gone) {
            ("r", _) => {
                let fd = other.opened();
                assert_eq!(other.read(fd, 9), Ok("new".to_owned()));
            }
            ("w", true) => assert_eq!(other.answer(), Err(rustix::io::Errno::NOENT)),
            _ => {
                let fd = other.opened();
                other.write(fd, "now").unwrap();
                assert_eq!(world.source_text(f), "now", "{how}: it wrote to an orphan");
            }
        }
    }
}

/// N6: the kernel walks a path twice; a second ESTALE would be the program's.
#[test]
fn who_waits_for_a_file_that_is_gone_and_whose_name_is_taken_is_told_to_try_again() {
    let world = World::new();
    world.seed("d/f", "old");
    let [mut holder, mut other] = [world.actor(&world.view()), world.actor(&world.view())];
    let held = holder.open("rw", "d/f");
    other.tell(["open", "w+", "d/f"]);
    world.await_waiting("d/f", 1);
    let next = world.gate(["hold", "d", "--", "cat"]).dir(world.view()).start_with_input();
    world.await_waiting("d", 1);
    holder.ask(["unlink", "d/f"]).unwrap();
    holder.close(held);
    assert_eq!(other.answer(), Err(rustix::io::Errno::AGAIN));
    next.finish(SOON).success();
    other.open("w+", "d/f");
}

/// N1: what has waited for the writer of a file does not take it for the one that has its name by
/// then, which has a writer of its own.
#[test]
fn n1_what_waited_for_one_file_waits_for_the_one_that_took_its_name() {
    let world = World::new();
    let bare = world.source();
    let calls: [(&str, &[&str]); 5] = [
        ("f1", &["rename", "tmp", "f1"]),
        ("f2", &["unlink", "f2"]),
        ("f3", &["chmod", "f3", "600"]),
        ("f4", &["truncate", "f4", "0"]),
        ("f5", &["rename", "f5", "other"]),
    ];
    for (f, call) in calls {
        world.seed(f, "old");
        world.seed("tmp", "moved");
        let mut actors = [(); 3].map(|()| world.actor(&world.view()));
        let [first, second, changer] = &mut actors;
        let held = first.open("rw", f);
        changer.tell(call.iter().copied());
        world.await_waiting(f, 1);
        fs::write(bare.join("next"), "new").unwrap();
        fs::rename(bare.join("next"), bare.join(f)).unwrap();
        let shows = |dir: &Path| fs::read_to_string(dir.join(f)).unwrap();
        wait_until(SOON, "the new file shows", || shows(&world.view()) == "new");
        let held_too = second.open("rw", f);
        first.close(held);
        wait_until(SOON, &format!("{call:?} asks for the new file"), || {
            let board = world.board();
            let turn = board.held(f).find(|lock| lock.pid == Some(second.pid()));
            turn.is_some_and(|turn| board.waiting(f).any(|lock| lock.ticket > turn.ticket))
        });
        assert_eq!(world.source_text(f), "new", "{call:?}");
        second.close(held_too);
        assert_eq!(changer.answer(), Ok(String::new()), "{call:?}");
    }
}

/// Saves by rename and appends do not lose each other.
#[test]
fn saves_by_rename_and_appends_lose_nothing() {
    const TIMES: usize = 50;
    let world = World::new();
    world.seed("f", "");
    let save = r#"for i in $(seq $1); do
        "$0" hold f -- sh -c '{ cat f; echo saved; } > f.$$ && mv f.$$ f'; done"#;
    let append = "for i in $(seq $1); do echo appended >> f; done";
    let times = TIMES.to_string();
    let run = |script: &str| {
        let run = world.script(&world.view(), script);
        run.args([world.program("gate").as_os_str(), times.as_ref()]).start()
    };
    let scripts = [run(save), run(save), run(append), run(append)];
    for script in scripts {
        script.finish(LONG).success();
    }
    let text = world.source_text("f");
    let count = |line: &str| text.lines().filter(|l| *l == line).count();
    assert_eq!((count("saved"), count("appended")), (2 * TIMES, 2 * TIMES));
}

/// Several paths are one place in the line: all or nothing.
#[test]
fn a_hold_of_several_paths_takes_all_or_none() {
    let world = World::new();
    world.seed("a", "");
    world.seed("b", "");
    world.seed("d/c", "");
    let mut holder = world.actor_under_hold(&world.view(), ["a", "d"]);
    let mut other = world.actor(&world.view());
    let _both = world.gate(["hold", "b", "a", "--", "true"]).dir(world.view()).start();
    world.await_waiting("a", 1);
    other.tell(["open", "w", "b"]);
    world.await_waiting("b", 2);
    assert_eq!(world.board().held("b").count(), 0, "who waits for all holds none of them");
    assert!(holder.ask(["append", "d/c", "x"]).is_ok(), "below the hold its own work goes on");
    let mut third = world.actor(&world.view());
    third.tell(["open", "w", "d/c"]);
    world.await_waiting("d/c", 1);
}

#[test]
fn hold_has_the_exit_codes_of_flock() {
    let world = World::new();
    world.seed("f", "");
    let (_holder, _fd) = opened(&world, "w");
    let hold = |args: &[&str]| {
        let words = ["hold"].iter().chain(args).chain(&["--", "true"]).copied();
        world.gate(words.collect::<Vec<_>>()).dir(world.view()).run().code
    };
    assert_eq!(hold(&["-n", "f"]), Some(1));
    assert_eq!(hold(&["-n", "-E", "9", "f"]), Some(9));
    assert_eq!(hold(&["--timeout", "100ms", "f"]), Some(124));
    assert_eq!(hold(&["-w", "0.1", "f"]), Some(124));
    assert_eq!(hold(&["--read", "-n", "f"]), Some(1));
    assert_eq!(hold(&["-n", "other"]), Some(0));
    let status = world.gate(["hold", "other", "--", "sh", "-c", "exit 7"]).dir(world.view());
    assert_eq!(status.run().code, Some(7), "the command's exit status is ours");
}

#[test]
fn the_demo_shows_turns_and_its_check_tells_a_view_from_a_bare_directory() {
    let world = World::new();
    world.gate(["demo".as_ref(), world.view().as_os_str()]).run().success();
    world.gate(["demo".as_ref(), "--check".as_ref(), world.view().as_os_str()]).run().success();
    let bare = world.gate(["demo".as_ref(), "--check".as_ref(), world.twin().as_os_str()]).run();
    assert_ne!(bare.code, Some(0), "on a bare directory nobody takes turns: {bare}");
    world.await_idle();
}

fn opened(world: &World, how: &str) -> (Actor, Fd) {
    let mut actor = world.actor(&world.view());
    let fd = actor.open(how, "f");
    (actor, fd)
}

/// Who got in by passing its own leader serves itself alone: its command could not work.
#[test]
fn a_hold_within_a_hold_of_the_same_is_refused_at_once() {
    let world = World::new();
    world.seed("d/a", "");
    let gate = world.program("gate");
    for (outer, inner) in [("d/a", "d/a"), ("d", "d/a")] {
        let hold = |path: &str| ["hold".into(), path.into(), "--".into()];
        let nested: Vec<OsString> = [hold(outer).to_vec(), vec![gate.clone().into()]].concat();
        let nested = [nested, hold(inner).to_vec(), vec!["true".into()]].concat();
        let refusal = world.gate(nested).dir(world.view()).within(SOON).run().refusal();
        assert!(refusal.contains("held above"), "{refusal}");
    }
    world.await_idle();
}

/// Two that each have what the other waits for, one of them a hold at least.
#[test]
fn a_circle_through_a_hold_is_cut_at_the_youngest() {
    let hold_and_open = r#""$GATE" hold a -- sh -c 'read go; cat f'"#;
    let by_open = "deadlock avoided";
    for (older, younger, said) in [
        (hold_and_open, r#""$GATE" hold f -- sh -c 'read go; cat a; exit $?'"#, by_open),
        (
            r#""$GATE" hold a -- sh -c 'read go; "$GATE" hold f -- true'"#,
            r#""$GATE" hold f -- sh -c 'read go; "$GATE" hold a -- true; exit $?'"#,
            "those in the way wait for this process",
        ),
        (hold_and_open, "exec 3<>f; read go || cat a; exit $?", by_open),
    ] {
        let world = World::new();
        world.seed("a", "");
        world.seed("f", "");
        let start = |script, held| {
            let script = world.script(&world.view(), script).env("GATE", world.program("gate"));
            let running = script.start_with_input();
            wait_until(SOON, "it has it", || world.board().held(held).count() == 1);
            running
        };
        let [mut older, mut younger] = [start(older, "a"), start(younger, "f")];
        drop(older.stdin());
        world.await_waiting("f", 1);
        drop(younger.stdin());
        let refused = younger.finish(SOON);
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stderr.contains(said), "{refused}");
        older.finish(SOON).success();
        let path = world.view().join("a");
        let why = world.gate(["why".as_ref(), path.as_os_str()]).run().success();
        assert!(why.contains("EDEADLK"), "{why}");
    }
}

/// Sent to walk once more, a call on a file that has lost its name would come to another file, and be
/// sent once more.
#[test]
fn who_changes_a_file_that_has_lost_its_name_waits_for_a_moment() {
    let world = World::new();
    world.seed("f", "text");
    let [mut holder, mut other] = [world.actor(&world.view()), world.actor(&world.view())];
    let file = holder.open("rw", "f");
    holder.ask(["unlink", "f"]).unwrap();
    let mut open = fs::read_dir(format!("/proc/{}/fd", holder.pid())).unwrap().flatten();
    let gone = world.view().join("f (deleted)");
    let path = open.find(|open| fs::read_link(open.path()).is_ok_and(|path| path == gone));
    let path = path.unwrap().path().to_str().unwrap().to_owned();
    for words in [["truncate", &path, "0"], ["chmod", &path, "600"]] {
        assert_eq!(other.ask(words), Err(rustix::io::Errno::AGAIN), "{words:?}");
    }
    assert_eq!(holder.read(file, 9), Ok("text".to_owned()));
}
