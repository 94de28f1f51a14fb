//! What must not happen to bytes: written after a turn was taken away, lost without a word, or
//! written outside the source.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use gate_tests::actor::Actor;
use gate_tests::wait::{SOON, try_wait_for, wait_for, wait_until};
use gate_tests::{World, kernel, scaled};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// N7: a view that was away for longer than its lease comes back without what it held.
#[test]
fn n7_a_view_that_lost_its_lease_writes_nothing_through_what_it_held() {
    let mut world = World::bare();
    world.start_broker(["--lease-ms", "500"]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, ["--lease-ms", "500"]);
    let second = super::spaces::second_view(&mut world, ["--lease-ms", "500"]);
    world.seed("f", "old");
    world.seed("g", "");
    let [mut frozen, mut other] = [world.actor(&view), world.actor(&second)];
    let fd = frozen.open("rw", "f");
    world.server_of(&view).stop();
    other.tell(["open", "w0", "f"]);
    let others = other.opened();
    other.write(others, "theirs").unwrap();
    world.server_of(&view).signal(Signal::CONT);
    // Whoever is let in again has heard of all that it lost.
    wait_for(SOON, "the view is back", || frozen.ask(["open", "w", "g"]).ok());
    assert_eq!(frozen.write(fd, "mine"), Err(Errno::IO));
    assert_eq!(frozen.read(fd, 9), Err(Errno::IO));
    assert_eq!(frozen.on("ftruncate", fd, &["0"]), Err(Errno::IO));
    assert_eq!(frozen.on("fsync", fd, &[]), Err(Errno::IO));
    let mode = || fs::metadata(world.source().join("f")).unwrap().permissions().mode() & 0o777;
    let before = mode();
    assert_eq!(frozen.on("fchmod", fd, &["604"]), Err(Errno::IO));
    assert_eq!(mode(), before);
    assert_eq!(world.source_text("f"), "theirs");
    assert_eq!(frozen.on("close", fd, &[]), Err(Errno::IO), "N8: nobody may believe it is there");
    other.close(others);
    frozen.open("w", "f");
}

/// N7: the moment it goes on, before it has heard of its broker, it writes nothing either.
#[test]
fn n7_a_stopped_view_writes_nothing_late_not_even_at_once() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.find_broker_by_socket();
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, ["--lease-ms", "500"]);
    let second = super::spaces::second_view(&mut world, ["--lease-ms", "500"]);
    world.seed("f", "old");
    let [mut frozen, mut other] = [world.actor(&view), world.actor(&second)];
    let fd = frozen.open("rw", "f");
    world.server_of(&view).stop();
    frozen.tell_on("write", fd, &["mine"]);
    other.tell(["open", "w0", "f"]);
    // N5: who is stopped does not hold up others beyond its lease.
    let others = other.opened();
    other.write(others, "theirs").unwrap();
    world.server_of(&view).signal(Signal::CONT);
    // This one waited in the kernel's queue and is the first that the view sees.
    assert_eq!(frozen.answer(), Err(Errno::IO));
    assert_eq!(world.source_text("f"), "theirs");
    other.close(others);
}

/// N7: what is to be overwritten may take so long to be kept that others were let in meanwhile.
#[test]
fn n7_a_view_that_was_stopped_while_it_kept_does_not_overwrite_what_others_wrote() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.find_broker_by_socket();
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, ["--lease-ms", "500"]);
    let second = super::spaces::second_view(&mut world, [""; 0]);
    world.seed("first", "text");
    world.seed("f", "text");
    let mut ada = super::owners::agent(&world, "ada");
    let fd = ada.open("w0", "first");
    ada.close(fd);
    let lock = super::guard::locked_store(&world);
    ada.tell(["open", "w0", "f"]);
    world.await_held("f", 1);
    world.server_of(&view).stop();
    let mut other = world.actor(&second);
    let fd = other.open("w0", "f");
    other.write(fd, "theirs").unwrap();
    // Once it goes on it cannot hear of its loss in time.
    let broker = Pid::from_raw(world.broker_pid()).unwrap();
    kill_process(broker, Signal::STOP).unwrap();
    drop(lock);
    world.server_of(&view).signal(Signal::CONT);
    let answer = ada.answer();
    kill_process(broker, Signal::CONT).unwrap();
    assert_eq!(answer, Err(Errno::IO));
    assert_eq!(world.source_text("f"), "theirs");
}

/// N7: a write that was past the view's check is not found in the turn of the next.
#[test]
fn n7_the_next_is_let_in_when_the_last_write_of_a_broken_turn_has_ended() {
    let mut world = World::bare();
    let disk = Disk::below_the_source_of(&world);
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    world.seed("f", "old");
    let [mut holder, mut next] = [world.actor(&view), world.actor(&view)];
    let fd = holder.open("rw", "f");
    next.tell(["open", "rw", "f"]);
    world.await_waiting("f", 1);
    disk.freeze();
    holder.tell_on("write", fd, &["last"]);
    let server = world.server_of(&view).pid();
    wait_until(SOON, "the write is under way", || kernel::is_in_call(server, libc::SYS_pwrite64));
    let ticket = world.board().held("f").next().unwrap().ticket;
    world.gate(["break", &ticket.to_string(), "--reason", "stuck"]).run().success();
    let board = world.board();
    assert_eq!(board.held("f").next().map(|lock| lock.ticket), Some(ticket), "{board:?}");
    assert_eq!(board.waiting("f").count(), 1, "{board:?}");
    disk.thaw();
    assert_eq!(holder.answer().as_deref(), Ok("4"));
    let theirs = next.opened();
    assert_eq!(next.read(theirs, 9).as_deref(), Ok("last"));
    assert_eq!(holder.write(fd, "late"), Err(Errno::IO));
    let log = world.gate(["log", "--json", "--since", "0.0"]).run().success();
    let events = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let events = events.filter(|event| event["ticket"] == ticket);
    let events: Vec<_> = events.map(|event| event["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["granted", "revoked"]);
    drop((holder, next));
    world.umount(&view);
    world.script(world.home(), "umount source").run().success();
}

/// N7: a file that is set apart has its new name before the next is let in, also if a write was under
/// way.
#[test]
fn n7_the_next_is_let_in_when_what_is_stored_late_has_lost_the_files_name() {
    let mut world = World::bare();
    let disk = Disk::below_the_source_of(&world);
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    world.seed("f", &"old".repeat(100_000));
    let [mut holder, mut next] = [world.actor(&view), world.actor(&view)];
    let reader = holder.open("r", "f");
    let writer = holder.open("rw", "f");
    holder.close(reader);
    next.tell(["open", "rw", "f"]);
    world.await_waiting("f", 1);
    disk.freeze();
    holder.tell_on("write", writer, &["last"]);
    let server = world.server_of(&view).pid();
    wait_until(SOON, "the write is under way", || kernel::is_in_call(server, libc::SYS_pwrite64));
    for lock in world.board().held("f") {
        world.gate(["break", &lock.ticket.to_string(), "--reason", "stuck"]).run().success();
    }
    disk.thaw();
    assert_eq!(holder.answer().as_deref(), Ok("4"));
    let theirs = next.opened();
    next.write(theirs, "theirs").unwrap();
    holder.on("store", writer, &["late"]).unwrap();
    next.on("fsync", theirs, &[]).unwrap();
    assert!(world.source_text("f").starts_with("theirs"));
    drop((holder, next));
    world.umount(&view);
    world.script(world.home(), "umount source").run().success();
}

/// N7: what is stored late stays in the pages of who stored it: the kernel would write them back by the
/// handle of whoever maps the file, too.
#[test]
fn n7_what_is_stored_late_is_not_written_back_for_the_next() {
    for mode in ["default", "strict"] {
        let world = World::with_view(["--mode", mode]);
        world.seed("f", "old....");
        let play = |actor: &mut Actor, lines: &[&str]| {
            lines.iter().for_each(|line| drop(actor.ask(line.split(' ')).unwrap()));
        };
        let [mut holder, mut next] = [(); 2].map(|()| world.actor(&world.view()));
        play(&mut holder, &["at 0 open rw f", "at 0 map sw 7", "at 0 store 0 1 12"]);
        next.tell("at 0 open rw f".split(' '));
        world.await_waiting("f", 1);
        let ticket = world.board().held("f").next().unwrap().ticket;
        world.gate(["break", &ticket.to_string(), "--reason", "test"]).run().success();
        assert_eq!(next.answer(), Ok(String::new()));
        play(&mut next, &["at 0 map sw 7", "at 0 store 3 2 19"]);
        play(&mut holder, &["at 0 store 5 2 11"]);
        play(&mut next, &["at 0 msync"]);
        assert_eq!(holder.ask("at 0 msync".split(' ')), Err(Errno::IO));
        play(&mut next, &["at 0 store 3 1 19", "at 0 unmap", "at 0 close"]);
        assert_eq!(world.source_text("f"), "oldtt..", "{mode}");
        let seen = fs::read_to_string(world.view().join("f")).unwrap();
        assert_eq!(seen, "oldtt..", "{mode}");
    }
}

/// N7: the kernel has what is written in its cache before the view refuses it; nobody sees it there.
#[test]
fn n7_what_is_refused_to_who_lost_its_turn_is_not_seen_meanwhile() {
    let world = World::new();
    world.seed("f", "old");
    let view = world.view();
    let [mut holder, mut next] = [world.actor(&view), world.actor(&view)];
    let late = holder.open("rw", "f");
    let ticket = world.board().held("f").next().unwrap().ticket;
    world.gate(["break", &ticket.to_string(), "--reason", "test"]).run().success();
    let reader = next.open("rw", "f");
    for _ in 0..scaled(1_000, 100_000) {
        holder.tell_on("write", late, &["new"]);
        assert_eq!(next.read(reader, 3).as_deref(), Ok("old"));
        assert_eq!(holder.answer(), Err(Errno::IO));
        next.on("seek", reader, &["0"]).unwrap();
    }
    assert_eq!(world.source_text("f"), "old");
}

/// A disk that can be stopped: nothing is written to it until it goes on.
struct Disk {
    point: PathBuf,
}

impl Disk {
    fn below_the_source_of(world: &World) -> Disk {
        assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
        let make = "truncate -s 16M image; mkfs.ext4 -q image; mount -o loop image source";
        world.script(world.home(), make).run().success();
        Disk { point: world.source() }
    }

    fn freeze(&self) {
        assert!(self.tell("-f"));
    }

    fn thaw(&self) {
        assert!(self.tell("-u"));
    }

    fn tell(&self, what: &str) -> bool {
        let mut fsfreeze = Command::new("fsfreeze");
        fsfreeze.arg(what).arg(&self.point).stderr(Stdio::null());
        fsfreeze.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Nothing ends that waits for it. It goes on already if all went well.
        self.tell("-u");
    }
}

/// Who was stopped and missed by nobody goes on as if nothing had been.
#[test]
fn a_stopped_view_that_nobody_missed_keeps_what_it_held() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, ["--lease-ms", "300"]);
    world.seed("f", "");
    let mut actor = world.actor(&view);
    let fd = actor.open("rw", "f");
    world.server_of(&view).stop();
    wait_until(SOON, "its lease ran out", || {
        let status = world.gate(["status", "--json"]).run().success();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["broker"]["away"] == 1
    });
    world.server_of(&view).signal(Signal::CONT);
    actor.write(fd, "mine").unwrap();
    actor.close(fd);
    assert_eq!(world.source_text("f"), "mine");
}

/// N8: a full disk is told where the bytes were lost.
#[test]
fn n8_a_full_disk_is_told_by_write_and_by_fsync() {
    let mut world = World::bare();
    world.lay_small_disk(&world.source(), "64k");
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    let fill = "truncate -s 8192 holes; dd if=/dev/zero of=filler bs=4k 2>&1 || true";
    let said = world.script(&view, fill).run().success();
    assert!(said.contains("No space left"), "{said}");
    let mut actor = world.actor(&view);
    let fd = actor.open("w+", "f");
    assert_eq!(actor.write(fd, "text"), Err(Errno::NOSPC));
    actor.close(fd);
    // What is stored through a mapping reaches the view only when it is written back.
    let fd = actor.open("rw", "holes");
    actor.on("store", fd, &["text"]).unwrap();
    assert!(actor.on("fsync", fd, &[]).is_err(), "fsync said yes to lost bytes");
    actor.close(fd);
    drop(actor);
    world.umount(&view);
    world.script(world.home(), "umount source").run().success();
}

/// N8: what `close` and `fsync` said yes to is in the source.
#[test]
fn n8_what_was_stored_and_synced_is_in_the_source() {
    let world = World::new();
    world.seed("f", "....");
    let mut actor = world.actor(&world.view());
    let fd = actor.open("rw", "f");
    actor.on("store", fd, &["text"]).unwrap();
    actor.on("fsync", fd, &[]).unwrap();
    assert_eq!(world.source_text("f"), "text");
    actor.on("store", fd, &["more"]).unwrap();
    actor.close(fd);
    assert_eq!(world.source_text("f"), "more");
}

/// N9: whatever is done to the source beside the view, the view stays in it.
#[test]
fn n9_no_name_leads_the_view_out_of_its_source() {
    let world = World::new();
    world.seed("d/sub/f", "inside");
    let outside = world.home().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "outside").unwrap();

    // A directory becomes a link that leads out, under somebody who is in it.
    let mut actor = world.actor(&world.view().join("d/sub"));
    fs::rename(world.source().join("d/sub"), world.source().join("d/moved")).unwrap();
    symlink(&outside, world.source().join("d/sub")).unwrap();
    for words in [&["append", "new", "x"][..], &["append", "f", "+"], &["mkdir", "dir"]] {
        actor.ask(words).unwrap();
    }
    assert_eq!(world.source_text("d/moved/f"), "inside+");
    let names = |dir: &std::path::Path| fs::read_dir(dir).unwrap().count();
    assert_eq!((names(&outside), names(&world.source().join("d/moved"))), (1, 3));

    // A link is changed, never what it leads to.
    symlink(outside.join("f"), world.source().join("link")).unwrap();
    let mut actor = world.actor(&world.view());
    actor.ask(["rename", "link", "moved"]).unwrap();
    actor.ask(["link", "moved", "hard"]).unwrap();
    actor.ask(["unlink", "moved"]).unwrap();
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "outside");
    assert_eq!(
        fs::metadata(outside.join("f")).map(|m| std::os::unix::fs::MetadataExt::nlink(&m)).unwrap(),
        1
    );

    // Above the view's root is what lies above its mount point, not above the source.
    let above = world.script(&world.view(), "ls -d ../view && stat -c %i ..").run().success();
    let home = std::os::unix::fs::MetadataExt::ino(&fs::metadata(world.home()).unwrap());
    assert!(above.contains(&home.to_string()), "{above}");
}

/// The broker keeps a source busy as long as it is shown.
#[test]
fn a_source_can_be_unmounted_as_soon_as_its_view_is() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = World::bare();
    world.script(world.home(), "mount -t tmpfs tmpfs source").run().success();
    world.start_broker([""; 0]);
    let view = world.view();
    let server = world.gate(["mount", "--foreground", "source", "view"]).start();
    wait_until(SOON, "it is mounted", || !kernel::mounts_below(&view).is_empty());
    let broker = Pid::from_raw(world.broker_pid()).unwrap();
    kill_process(broker, Signal::STOP).unwrap();
    let umount = world.gate(["umount".as_ref(), view.as_os_str()]).start();
    wait_until(SOON, "it is unmounted", || kernel::mounts_below(&view).is_empty());
    let is_over = || kernel::is_dead(server.pid()).then_some(());
    let early = try_wait_for(Duration::from_millis(300), is_over);
    assert_eq!(early, None, "it did not wait until the broker knows");
    kill_process(broker, Signal::CONT).unwrap();
    umount.finish(SOON).success();
    world.script(world.home(), "umount source").run().success();
    server.finish(SOON).success();
}

/// N15: nothing that somebody still uses is unmounted, and nothing is lost by trying.
#[test]
fn n15_a_busy_view_is_not_unmounted_and_its_user_is_named() {
    let world = World::new();
    let mut actor = world.actor(&world.view());
    let fd = actor.open("w+", "f");
    let outcome = world.gate(["umount".as_ref(), world.view().as_os_str()]).run();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    let refusal = outcome.refusal();
    assert!(refusal.contains(&actor.pid().to_string()), "{refusal}");
    world.server_of(&world.view()).signal(Signal::TERM);
    wait_until(SOON, "the view says that it stays", || {
        world.server_of(&world.view()).so_far().contains("in use by")
    });
    actor.write(fd, "text").unwrap();
    actor.close(fd);
    assert_eq!(world.source_text("f"), "text");
}
