//! Which way the bytes of an open file go: through the view, or past it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gate_tests::actor::Actor;
use gate_tests::wait::{SOON, wait_for, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::process::Signal;

/// Larger than what is read through the view by default.
const LARGE: usize = 1 << 20;

fn seed_large(world: &World, name: &str) {
    world.seed(name, &"0123456789abcdef".repeat(LARGE / 16));
}

/// Returns how many bytes the server of the view has read and written so far.
fn moved(world: &World) -> [u64; 2] {
    let io = fs::read_to_string(format!("/proc/{}/io", world.server_of(&world.view()).pid()));
    let io = io.unwrap();
    ["rchar: ", "wchar: "].map(|name| {
        let count = io.lines().find_map(|line| line.strip_prefix(name));
        count.unwrap().parse().unwrap()
    })
}

/// Returns how many bytes the server moved while something was done.
fn moved_by(world: &World, act: impl FnOnce()) -> [u64; 2] {
    let before = moved(world);
    act();
    let after = moved(world);
    [after[0] - before[0], after[1] - before[1]]
}

fn read_all(path: &Path) {
    assert_eq!(fs::read(path).unwrap().len(), LARGE);
}

#[test]
fn the_kernel_reads_large_files_itself_where_it_may() {
    let large = LARGE as u64;
    for (args, through_the_view) in [(vec![], false), (vec!["--mode", "strict"], true)] {
        let world = World::with_view(&args);
        seed_large(&world, "large");
        let [read, _] = moved_by(&world, || read_all(&world.view().join("large")));
        assert_eq!(read >= large, through_the_view, "{args:?}: {read}");
    }
}

/// Returns how much memory is the server's own.
fn memory(world: &World) -> usize {
    kernel::memory(world.server_of(&world.view()).pid())
}

/// Each that works for a view gets some of what is read and written side by side; of that they keep
/// less than one piece of 1 MiB for each of the usual ones.
#[test]
fn a_view_gives_back_the_memory_that_large_files_went_through() {
    const LITTLE: usize = 4 << 20;
    for mode in ["default", "strict"] {
        let world = World::with_view(["--mode", mode]);
        let before = memory(&world);
        for how in ["if=/dev/zero of=$i", "if=$i of=/dev/null"] {
            let script = format!("for i in {{1..8}}; do dd {how} bs=1M count=8 & done; wait");
            world.script(&world.view(), &script).run().success();
            wait_until(SOON, "it is given back", || memory(&world) < before + LITTLE);
        }
    }
}

/// Returns a large file that has not changed for long: nobody can make one at once, but every
/// machine has some.
fn large_file_at_rest() -> PathBuf {
    let long_ago = SystemTime::now() - Duration::from_secs(90);
    let at_rest = |path: &PathBuf| {
        let Ok(metadata) = fs::symlink_metadata(path) else { return false };
        let changed = UNIX_EPOCH + Duration::from_secs(metadata.ctime().unsigned_abs());
        metadata.is_file() && metadata.len() >= LARGE as u64 && changed < long_ago
    };
    let mut programs = fs::read_dir("/usr/bin").unwrap().map(|entry| entry.unwrap().path());
    programs.find(at_rest).expect("a machine with programs that were there before")
}

#[test]
fn what_is_at_rest_can_be_opened_as_often_as_one_likes() {
    let file = large_file_at_rest();
    let bytes = fs::read(&file).unwrap();
    for mode in ["default", "strict", "fast"] {
        let mut world = World::bare();
        world.start_broker([""; 0]);
        world.mount(file.parent().unwrap(), &world.view(), ["--mode", mode]);
        let seen = world.view().join(file.file_name().unwrap());
        for time in 1..=3 {
            let read = fs::read(&seen).unwrap_or_else(|error| panic!("{mode}, {time}: {error}"));
            assert!(read == bytes, "{mode}, {time}");
        }
    }
}

/// Nothing but the cache has its bytes at hand where the kernel does not read the file itself.
#[test]
fn what_is_at_rest_is_read_from_the_cache_when_it_is_opened_again() {
    let file = large_file_at_rest();
    let length = fs::metadata(&file).unwrap().len();
    for (standing, mode) in [
        (Standing::Runner, "strict"),
        (Standing::OrdinaryUser, "default"),
        (Standing::UserNamespace, "default"),
    ] {
        let mut world = World::bare_of(standing);
        world.start_broker([""; 0]);
        let view = world.view();
        world.mount(file.parent().unwrap(), &view, ["--mode", mode]);
        let script = format!("exec cat {} > /dev/null", file.file_name().unwrap().display());
        let [first, second] = [(); 2].map(|()| {
            let [read, _] = moved_by(&world, || {
                world.script(&view, &script).run().success();
            });
            read
        });
        assert!(first >= length, "{standing:?}: {first} of {length}");
        assert!(second < length / 2, "{standing:?}: {second} of {length} once more");
    }
}

/// Who opens a file right after a change passes the cache, but may map it, and then is in there.
#[test]
fn a_file_that_grew_large_is_mapped_and_read_by_all_who_have_it_open() {
    for (before, after) in [("at 1 map s 1", "at 2 pread 0 1"), ("at 1 fstat", "at 1 map s 1")] {
        let world = World::new();
        let mut actor = world.actor(&world.view());
        let opened = ["at 0 open rw+ f", "at 1 open rw f", "at 0 close"];
        let grown = [before, "at 1 ftruncate 131072", "at 2 open r f", after];
        for line in opened.into_iter().chain(grown) {
            let answer = actor.ask(line.split(' '));
            assert!(answer.is_ok(), "{line}: {answer:?}");
        }
    }
}

/// The kernel reads files itself for none but root.
#[test]
fn an_ordinary_user_reads_large_files_through_the_view() {
    for standing in [Standing::OrdinaryUser, Standing::UserNamespace] {
        let world = World::with_view_of(standing, [""; 0]);
        seed_large(&world, "large");
        let mut user = world.actor(&world.view());
        let fd = user.open("r", "large");
        let [read, _] = moved_by(&world, || {
            assert_eq!(user.read(fd, LARGE).unwrap().len(), LARGE);
        });
        assert!(read >= LARGE as u64, "{standing:?}: {read}");
    }
}

/// A call to the view at each close would be one for nothing where nothing can go wrong by then. A
/// view that stands still answers none.
#[test]
fn who_closes_what_cannot_fail_any_more_does_not_call_the_view() {
    let world = World::new();
    world.seed("f", "text");
    let server = world.server_of(&world.view());
    for (how, calls) in [("r", false), ("w", false), ("rw", true)] {
        let mut actor = world.actor(&world.view());
        let fd = actor.open(how, "f");
        server.stop();
        actor.tell_on("close", fd, &[]);
        if calls {
            wait_until(SOON, "it calls", || kernel::is_in_call(actor.pid(), libc::SYS_close));
            assert!(actor.is_busy(), "{how}");
        } else {
            assert_eq!(actor.answer(), Ok(String::new()), "{how}");
        }
        server.signal(Signal::CONT);
        if calls {
            actor.answer().unwrap();
        }
    }
}

/// Handles of one file must all go one way: whoever came first, everything still works.
#[test]
fn handles_of_one_file_read_and_write_side_by_side() {
    let orders: [[&str; 3]; 4] =
        [["r", "w", "rw"], ["rw", "r", "w"], ["w", "rw", "r"], ["w", "r", "rw"]];
    for mode in ["default", "strict", "fast"] {
        let world = World::with_view(["--mode", mode]);
        for order in orders {
            seed_large(&world, "f");
            let mut actor = world.actor(&world.view());
            let handles = order.map(|how| (how, actor.open(how, "f")));
            for (number, (how, fd)) in handles.iter().filter(|(how, _)| *how != "r").enumerate() {
                actor.on("seek", *fd, &["8"]).unwrap();
                actor.write(*fd, &format!("{mode}{number}")).unwrap();
                let written = format!("{mode}{number}");
                for (reader, fd) in handles.iter().filter(|(how, _)| *how != "w") {
                    actor.on("seek", *fd, &["8"]).unwrap();
                    let seen = actor.read(*fd, written.len()).unwrap();
                    assert_eq!(seen, written, "{mode} {order:?} {how} {reader}");
                }
            }
            for (_, fd) in handles {
                actor.close(fd);
            }
            let length = fs::metadata(world.source().join("f")).unwrap().len();
            assert_eq!(length, LARGE as u64);
        }
    }
}

/// N7: by default nothing that writes goes past the view, beside a backed reader neither.
#[test]
fn n7_what_is_written_is_fenced_beside_a_backed_reader() {
    let world = World::new();
    for how in ["w", "rw"] {
        seed_large(&world, "f");
        let mut actor = world.actor(&world.view());
        let reader = actor.open("r", "f");
        let writer = actor.open(how, "f");
        actor.write(writer, "mine").unwrap();
        break_turns_of_holders(&world);
        wait_until(SOON, "it is fenced", || actor.write(writer, "late") == Err(Errno::IO));
        let mut next = world.actor(&world.view());
        let theirs = next.open("w0", "f");
        next.write(theirs, "theirs").unwrap();
        assert_eq!(actor.write(writer, "late"), Err(Errno::IO));
        assert_eq!(world.source_text("f"), "theirs");
        drop((reader, actor, next));
    }
}

/// Opens `f` to be read and written, and maps the start of it.
fn map(actor: &mut Actor) {
    actor.ask(["at", "0", "open", "rw", "f"]).unwrap();
    actor.ask(["at", "0", "map", "sw", "4096"]).unwrap();
}

/// Stores four times the letter of that number at the start of what is mapped.
fn store(actor: &mut Actor, letter: u8) {
    actor.ask(["at", "0", "store", "0", "4", &(letter - b'a').to_string()]).unwrap();
}

/// N7: a mapping of a backed file is the kernel's alone, but what is stored in it then goes nowhere.
#[test]
fn n7_what_is_stored_late_beside_a_backed_reader_goes_to_a_file_without_a_name() {
    let world = World::new();
    seed_large(&world, "f");
    let [mut holder, mut next] = [(); 2].map(|()| world.actor(&world.view()));
    holder.open("r", "f");
    map(&mut holder);
    store(&mut holder, b'm');
    next.tell(["open", "rw", "f"]);
    world.await_waiting("f", 1);
    break_turns_of_holders(&world);
    let theirs = next.opened();
    store(&mut holder, b'l');
    assert_eq!(holder.ask(["at", "0", "write", "4", "0"]), Err(Errno::IO));
    assert_eq!(next.read(theirs, 8).as_deref(), Ok("mmmm4567"), "what was stored in time");
    next.write(theirs, "theirs").unwrap();
    store(&mut holder, b'l');
    next.close(theirs);
    assert!(world.source_text("f").starts_with("mmmm4567theirsef"));
}

/// N7: the same beside a writer that has no turn. It goes on writing: its file keeps its name.
#[test]
fn n7_who_mapped_a_file_beside_a_backed_writer_is_waited_for() {
    let world = World::new();
    seed_large(&world, "f.log");
    let [mut logger, mut holder, mut next] = [(); 3].map(|()| world.actor(&world.view()));
    let log = logger.open("rw", "f.log");
    logger.ask(["rename", "f.log", "f"]).unwrap();
    map(&mut holder);
    next.tell(["open", "rw", "f"]);
    world.await_waiting("f", 1);
    break_turns_of_holders(&world);
    assert_eq!(holder.ask(["at", "0", "write", "4", "0"]), Err(Errno::IO));
    store(&mut holder, b'l');
    logger.write(log, "log").unwrap();
    assert!(next.is_busy(), "let in beside one who still stores");
    holder.ask(["at", "0", "unmap"]).unwrap();
    let _fenced = holder.ask(["at", "0", "close"]);
    let theirs = next.opened();
    assert_eq!(next.read(theirs, 8).as_deref(), Ok("logl4567"));
}

/// Nobody tells the view of such stores: who asks for the time is told the source's.
#[test]
fn when_a_file_was_stored_into_beside_a_backed_reader_shows_at_once() {
    let world = World::new();
    seed_large(&world, "f");
    let [bare, seen] = [world.source(), world.view()].map(|dir| dir.join("f"));
    let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let before = SystemTime::now() - Duration::from_secs(90);
    fs::File::options().write(true).open(&bare).unwrap().set_modified(before).unwrap();
    let mut actor = world.actor(&world.view());
    actor.open("r", "f");
    map(&mut actor);
    assert_eq!(modified(&seen), before);
    store(&mut actor, b'm');
    assert_ne!(modified(&bare), before);
    assert_eq!(modified(&seen), modified(&bare));
}

/// Who was let in when a lease ran out has the file: it is too late to give its name to a copy.
#[test]
fn a_fast_view_that_lost_its_lease_takes_no_file_from_who_came_next() {
    let mut world = World::bare();
    world.start_broker(["--lease-ms", "500"]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, ["--lease-ms", "500", "--mode", "fast"]);
    let second = super::spaces::second_view(&mut world, ["--lease-ms", "500"]);
    world.seed("f", "old");
    world.seed("g", "");
    let [mut frozen, mut other] = [world.actor(&view), world.actor(&second)];
    frozen.open("rw", "f");
    let file = fs::metadata(source.join("f")).unwrap().ino();
    world.server_of(&view).stop();
    let theirs = other.open("w0", "f");
    world.server_of(&view).signal(Signal::CONT);
    // Whoever is let in again has heard of all that it lost.
    wait_for(SOON, "the view is back", || frozen.ask(["open", "w", "g"]).ok());
    wait_until(SOON, "that it keeps its name is said", || {
        world.server_of(&view).so_far().contains("written past the view until it is closed")
    });
    other.write(theirs, "theirs").unwrap();
    assert_eq!(fs::metadata(source.join("f")).unwrap().ino(), file);
    assert_eq!(world.source_text("f"), "theirs");
}

/// Who still writes the file by right does not lose what it writes.
#[test]
fn a_file_keeps_its_name_while_another_handle_writes_it_by_right() {
    let world = World::with_view(["--mode", "fast"]);
    world.seed("f", "old");
    let [mut holder, mut next] = [(); 2].map(|()| world.actor(&world.view()));
    let [_, by_right] = [(); 2].map(|()| holder.open("rw", "f"));
    next.tell(["open", "rw", "f"]);
    world.await_waiting("f", 1);
    break_turn_of_holder(&world);
    holder.write(by_right, "mine").unwrap();
    assert_eq!(world.source_text("f"), "mine");
    break_turns_of_holders(&world);
    let theirs = next.opened();
    holder.write(by_right, "late").unwrap();
    assert_eq!(next.read(theirs, 9).as_deref(), Ok("mine"));
}

#[test]
fn a_fast_view_lets_the_kernel_write_too() {
    for (mode, through_the_view) in [("fast", false), ("default", true)] {
        let world = World::with_view(["--mode", mode]);
        let text = "x".repeat(LARGE);
        let [_, written] = moved_by(&world, || fs::write(world.view().join("new"), &text).unwrap());
        assert_eq!(written >= LARGE as u64, through_the_view, "{mode}: {written}");
        assert_eq!(world.source_text("new"), text);
        // What the kernel has written is seen at once.
        assert_eq!(fs::metadata(world.view().join("new")).unwrap().len(), LARGE as u64);
    }
}

/// Takes the turn of whoever holds `f` away, while somebody waits for it.
fn break_turn_of_holder(world: &World) {
    let board = world.board();
    let line = board.held("f").next().expect("it is held");
    world.gate(["break", &line.ticket.to_string(), "--reason", "test"]).run().success();
}

fn break_turns_of_holders(world: &World) {
    for line in world.board().held("f") {
        world.gate(["break", &line.ticket.to_string(), "--reason", "test"]).run().success();
    }
}

/// N7: nobody can stop the kernel, but what it writes then goes nowhere.
#[test]
fn n7_in_a_fast_view_what_is_written_late_goes_to_a_file_without_a_name() {
    let world = World::with_view(["--mode", "fast"]);
    world.seed("f", "old");
    let [mut holder, mut waiter] = [(); 2].map(|()| world.actor(&world.view()));
    let fd = holder.open("rw", "f");
    holder.write(fd, "mine").unwrap();
    waiter.tell(["open", "rw", "f"]);
    wait_until(SOON, "the other waits", || world.board().waiting("f").count() == 1);
    break_turn_of_holder(&world);
    let theirs = waiter.opened();
    assert_eq!(waiter.read(theirs, 9).unwrap(), "mine", "what was written in time is there");
    waiter.write(theirs, " theirs").unwrap();
    holder.write(fd, " late").unwrap();
    waiter.close(theirs);
    assert_eq!(world.source_text("f"), "mine theirs");
    assert_eq!(fs::read_to_string(world.view().join("f")).unwrap(), "mine theirs");
}

/// N7: what cannot be set apart is waited for, for longer than a lease.
#[test]
fn n7_in_a_fast_view_a_file_with_two_names_is_waited_for() {
    let world = World::with_view(["--mode", "fast", "--lease-ms", "300"]);
    world.seed("f", "old");
    fs::hard_link(world.source().join("f"), world.source().join("g")).unwrap();
    let [mut holder, mut waiter] = [(); 2].map(|()| world.actor(&world.view()));
    let fd = holder.open("rw", "f");
    waiter.tell(["open", "rw", "f"]);
    wait_until(SOON, "the other waits", || world.board().waiting("f").count() == 1);
    let began = Instant::now();
    break_turn_of_holder(&world);
    wait_until(SOON, "leases have gone by", || {
        assert!(waiter.is_busy(), "let in beside one who still writes");
        began.elapsed() > Duration::from_millis(900)
    });
    holder.write(fd, "mine").unwrap();
    assert_eq!(holder.on("close", fd, &[]), Err(Errno::IO), "it is told at last");
    let theirs = waiter.opened();
    assert_eq!(waiter.read(theirs, 9).unwrap(), "mine");
}

#[test]
fn with_kill_who_cannot_be_stopped_otherwise_is_killed() {
    let world = World::with_view(["--mode", "fast", "--kill"]);
    world.seed("f", "old");
    fs::hard_link(world.source().join("f"), world.source().join("g")).unwrap();
    let [mut holder, mut waiter] = [(); 2].map(|()| world.actor(&world.view()));
    holder.open("rw", "f");
    waiter.tell(["open", "rw", "f"]);
    wait_until(SOON, "the other waits", || world.board().waiting("f").count() == 1);
    break_turn_of_holder(&world);
    waiter.opened();
    assert_eq!(holder.end(SOON), Some(Signal::KILL.as_raw()));
}

/// The kernel drops a name when it may have changed, also one that is in use; then it calls the file
/// deleted, whatever it finds there when it looks again.
#[test]
fn with_kill_who_has_a_file_whose_name_was_dropped_is_killed() {
    let world = World::with_view(["--mode", "fast", "--kill"]);
    world.seed("f", "old");
    let name = |name: &str| world.source().join(name);
    fs::hard_link(name("f"), name("g")).unwrap();
    let mut holder = world.actor(&world.view());
    holder.open("rw", "f");
    fs::rename(name("f"), name("moved")).unwrap();
    let files = format!("/proc/{}/fd", holder.pid());
    let is_dropped = |target: PathBuf| target.as_os_str().as_bytes().ends_with(b"/f (deleted)");
    wait_until(SOON, "its name is dropped", || {
        let mut files = fs::read_dir(&files).unwrap().flatten();
        files.any(|file| fs::read_link(file.path()).is_ok_and(is_dropped))
    });
    fs::rename(name("moved"), name("f")).unwrap();
    let mut waiter = world.actor(&world.view());
    waiter.tell(["open", "rw", "f"]);
    wait_until(SOON, "the other waits", || world.board().waiting("f").count() == 1);
    break_turn_of_holder(&world);
    waiter.opened();
    assert_eq!(holder.end(SOON), Some(Signal::KILL.as_raw()));
}

/// Over its own source the view's file and the bare one bear the same path.
#[test]
fn with_kill_in_place_who_has_the_bare_file_is_spared() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.seed("f", "old");
    let source = world.source();
    fs::hard_link(source.join("f"), source.join("g")).unwrap();
    let mut bare = world.actor(&source);
    bare.open("r", "f");
    world.mount(&source, &source, ["--force", "--mode", "fast", "--kill"]);
    let [mut holder, mut waiter] = [(); 2].map(|()| world.actor(&source));
    holder.open("rw", "f");
    waiter.tell(["open", "rw", "f"]);
    wait_until(SOON, "the other waits", || world.board().waiting("f").count() == 1);
    break_turn_of_holder(&world);
    waiter.opened();
    assert_eq!(holder.end(SOON), Some(Signal::KILL.as_raw()));
    bare.ask(["stat", "f"]).unwrap();
}

/// Programs that rebuild what was written would rebuild what was read.
#[test]
fn what_is_read_through_a_view_is_not_seen_as_written() {
    for standing in Standing::ALL {
        let mut world = World::with_view_of(standing, [""; 0]);
        seed_large(&world, "large");
        world.seed("small", "s");
        let [source, view] = [world.source(), world.view()];
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, &source, inotify::WatchFlags::ALL_EVENTS).unwrap();
        world.script(&view, "cat large small > /dev/null").run().success();
        // The view closes a file a moment after its reader, and by its own end all that it opened.
        world.umount(&view);
        let seen = events(&watch);
        for name in ["large", "small"] {
            let closed = (name.to_owned(), inotify::ReadFlags::CLOSE_NOWRITE);
            assert!(seen.contains(&closed), "{standing:?} {name}: {seen:?}");
        }
        let written = |(_, flags): &(_, inotify::ReadFlags)| {
            flags.intersects(inotify::ReadFlags::MODIFY | inotify::ReadFlags::CLOSE_WRITE)
        };
        assert!(!seen.iter().any(written), "{standing:?}: {seen:?}");
        world.mount(&source, &view, [""; 0]);
        world.script(&view, "echo t > small").run().success();
        assert!(events(&watch).iter().any(written), "{standing:?}");
    }
}

/// Returns what happened to which names.
fn events(watch: &OwnedFd) -> Vec<(String, inotify::ReadFlags)> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    let mut seen = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| name.to_str().unwrap().to_owned());
                seen.push((name.unwrap_or_default(), event.events()));
            }
            Err(Errno::AGAIN) => return seen,
            Err(errno) => panic!("{errno}"),
        }
    }
}
