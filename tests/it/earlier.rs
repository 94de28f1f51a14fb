//! What earlier systems of this kind got wrong, each a test. Those that have one elsewhere are
//! listed with these in docs/semantics.md.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use gate_tests::http::{Http, Reply};
use gate_tests::wait::{SOON, wait_until};
use gate_tests::{Actor, World, kernel};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Clients of the one that lost locks.
const CLIENTS: usize = 64;
const ROUNDS: usize = 10;

/// Bytes that each thread reads and writes at once.
const BLOCK: usize = 4_096;
const BLOCKS_PER_THREAD: usize = 64;
const THREADS: usize = 8;

/// A server that seeks and then reads mixes up who asked for what.
#[test]
fn threads_that_read_and_write_by_one_descriptor_get_what_they_asked_for() {
    let world = World::new();
    let block = |number: usize| [u8::try_from(number % 251).unwrap(); BLOCK];
    let blocks = THREADS * BLOCKS_PER_THREAD;
    fs::write(world.source().join("f"), (0..blocks).flat_map(block).collect::<Vec<_>>()).unwrap();
    let file = File::options().read(true).write(true).open(world.view().join("f")).unwrap();
    thread::scope(|scope| {
        for first in 0..THREADS {
            let file = &file;
            scope.spawn(move || {
                // Each thread's blocks lie between those of the others.
                for number in (first..blocks).step_by(THREADS) {
                    let mut bytes = [0; BLOCK];
                    file.read_exact_at(&mut bytes, (number * BLOCK) as u64).unwrap();
                    assert!(bytes == block(number), "block {number} is another one");
                    file.write_all_at(&block(number + 1), (number * BLOCK) as u64).unwrap();
                }
            });
        }
    });
    drop(file);
    let written = fs::read(world.source().join("f")).unwrap();
    assert!(written.chunks(BLOCK).zip(1..).all(|(bytes, number)| bytes == block(number)));
}

/// Only opens took locks there: whatever changed a file by its path went past its writer.
#[test]
fn what_changes_a_file_by_its_path_does_not_pass_its_writer() {
    for words in [
        &["rename", "other", "f"][..],
        &["rename", "f", "gone"],
        &["unlink", "f"],
        &["truncate", "f", "0"],
        &["chmod", "f", "600"],
    ] {
        let world = World::new();
        world.seed("f", "");
        world.seed("other", "other");
        let mut writer = world.actor(&world.view());
        let fd = writer.open("w", "f");
        let mut other = world.actor(&world.view());
        other.tell(words);
        wait_until(SOON, &format!("{words:?} waits"), || {
            world.board().locks.iter().any(|lock| lock.state == "waiting")
        });
        writer.write(fd, "text").unwrap();
        assert_eq!(world.source_text("f"), "text", "{words:?} did not wait");
        assert_eq!(fs::metadata(world.source().join("f")).unwrap().mode() & 0o777, 0o644);
        writer.close(fd);
        assert_eq!(other.answer(), Ok(String::new()), "{words:?}");
    }
}

/// Locks were kept by path, and the path was another one by then.
#[test]
fn a_second_writer_of_a_renamed_directorys_file_waits_for_the_first() {
    let world = World::new();
    world.seed("d/e/f", "");
    let [mut first, mut second] = [world.actor(&world.view()), world.actor(&world.view())];
    let fd = first.open("w", "d/e/f");
    second.ask(["rename", "d", "moved"]).unwrap();
    second.tell(["open", "w", "moved/e/f"]);
    wait_until(SOON, "the second writer waits", || {
        world.board().locks.iter().any(|lock| lock.state == "waiting")
    });
    first.write(fd, "first").unwrap();
    first.close(fd);
    let fd = second.opened();
    second.write(fd, "second").unwrap();
    assert_eq!(world.source_text("moved/e/f"), "second");
}

#[test]
fn hard_links_are_one_file_with_one_line() {
    let world = World::new();
    world.seed("one", "");
    let [mut first, mut second] = [world.actor(&world.view()), world.actor(&world.view())];
    first.ask(["link", "one", "two"]).unwrap();
    let fd = first.open("w", "one");
    second.tell(["open", "w", "two"]);
    wait_until(SOON, "the second writer waits", || {
        world.board().locks.iter().any(|lock| lock.state == "waiting")
    });
    first.ask(["unlink", "one"]).unwrap();
    first.write(fd, "text").unwrap();
    first.close(fd);
    second.opened();
    let two = fs::metadata(world.source().join("two")).unwrap();
    assert_eq!((world.source_text("two"), two.nlink()), ("text".to_owned(), 1));
}

/// They were swapped on their way to the source.
#[test]
fn links_take_target_and_name_in_their_order() {
    let world = World::new();
    world.seed("target", "text");
    let mut actor = world.actor(&world.view());
    actor.ask(["symlink", "target", "soft"]).unwrap();
    actor.ask(["link", "target", "hard"]).unwrap();
    for dir in [world.view(), world.source()] {
        assert_eq!(fs::read_link(dir.join("soft")).unwrap(), Path::new("target"));
        assert_eq!(fs::read(dir.join("hard")).unwrap(), b"text");
        assert!(!dir.join("target").is_symlink());
    }
}

/// The source's file was opened to write only.
#[test]
fn a_file_that_is_made_to_read_and_write_is_readable() {
    let world = World::new();
    let mut actor = world.actor(&world.view());
    for how in ["rw+", "rw+!", "rw+0"] {
        let fd = actor.open(how, how);
        actor.write(fd, "text").unwrap();
        actor.on("seek", fd, &["0"]).unwrap();
        assert_eq!(actor.read(fd, 9), Ok("text".to_owned()), "{how}");
        actor.close(fd);
    }
}

/// It said yes and did nothing. A file system that tells what it is asked lies below the view.
#[test]
fn fsync_reaches_the_source() {
    for mode in ["default", "strict", "fast"] {
        let mut world = World::bare();
        world.start_broker([""; 0]);
        let [source, below, view] = [world.source(), world.home().join("below"), world.view()];
        fs::create_dir(&below).unwrap();
        let run = world.command("bindfs".as_ref()).args(["-d".as_ref(), source.as_os_str()]);
        let bindfs = run.args([&below]).start();
        wait_until(SOON, "the lower file system is there", || {
            kernel::mounts_below(&below).iter().any(kernel::Mount::is_fuse)
        });
        world.mount(&below, &view, ["--mode", mode]);
        let mut actor = world.actor(&view);
        let mut ask = |line: &str| actor.ask(line.split(' ')).unwrap();
        let synced = || bindfs.so_far().matches("opcode: FSYNC").count();
        ask("at 0 open rw+ f");
        for (change, sync, text) in [
            ("at 0 write 7 0", "at 0 fsync", "aaaaaaa"),
            ("at 0 store 0 3 1", "at 0 msync", "bbbaaaa"),
            ("at 0 store 0 3 2", "at 0 fsync", "cccaaaa"),
        ] {
            let before = synced();
            ask(change);
            assert_eq!(synced(), before, "{mode} {change}: nobody asked for it yet");
            ask(sync);
            assert!(synced() > before, "{mode} {sync}: {}", bindfs.so_far());
            assert_eq!(world.source_text("f"), text, "{mode} {change}");
            ask("at 0 map sw 7");
        }
        drop(actor);
        world.umount(&view);
        world.command("umount".as_ref()).args([&below]).run().success();
        assert_eq!(bindfs.finish(SOON).code, Some(0));
    }
}

#[test]
fn no_lock_of_sixty_four_clients_is_lost() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    let http = world.http();
    let count = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let count = &count;
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let granted = acquire(http, "n", client, &json!({}));
                    // Two that do this at once lose one of their steps.
                    let before = count.load(Ordering::SeqCst);
                    thread::yield_now();
                    count.store(before + 1, Ordering::SeqCst);
                    assert_eq!(release(http, &granted.lock_id(), client), 200);
                }
            });
        }
    });
    assert_eq!(count.into_inner(), CLIENTS * ROUNDS);
    let held = |client| acquire(http, &format!("f{client}"), client, &json!({})).lock_id();
    let ids: Vec<String> = (0..CLIENTS).map(held).collect();
    world.kill_broker();
    world.start_broker([""; 0]);
    let status = http.get("/v1/locks/status").body;
    assert_eq!(status["locks"].as_array().map(Vec::len), Some(CLIENTS));
    for (client, id) in ids.iter().enumerate() {
        assert_eq!(release(http, id, client), 200, "{client}");
    }
}

/// Rows of waiters that were no more stood in the queue for ever.
#[test]
fn waiters_that_went_before_a_restart_block_nobody_after_it() {
    let mut world = World::new();
    world.seed("f", "");
    let mut holder = world.actor(&world.view());
    let fd = holder.open("w", "f");
    let http = world.http();
    let body = json!({"path": "f", "mode": "write", "owner": "gone"}).to_string();
    let _pending = http.send("POST", "/v1/locks/acquire", body.as_bytes());
    world.await_waiting("f", 1);
    let mut killed = world.actor(&world.view());
    killed.tell(["open", "w", "f"]);
    let hold = world.gate(["hold", "f", "--", "true"]).dir(world.view()).start();
    world.await_waiting("f", 3);
    world.kill_broker();
    killed.signal(Signal::KILL);
    killed.end(SOON);
    hold.signal(Signal::KILL);
    let _ = hold.finish(SOON);
    world.start_broker([""; 0]);
    world.await_waiting("f", 0);
    holder.close(fd);
    // The kernel tells of a close a moment later.
    wait_until(SOON, "nobody holds it", || world.board().held("f").count() == 0);
    let granted = acquire(http, "f", 0, &json!({"timeout_ms": 0}));
    assert_eq!(release(http, &granted.lock_id(), 0), 200);
    let mut next: Actor = world.actor(&world.view());
    next.open("w", "f");
}

fn acquire(http: Http, path: &str, client: usize, more: &Value) -> Reply {
    let mut body = json!({"path": path, "mode": "write", "owner": format!("client {client}")});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    http.post("/v1/locks/acquire", &body)
}

fn release(http: Http, id: &str, client: usize) -> u16 {
    let body = json!({"lock_id": id, "owner": format!("client {client}")});
    http.post("/v1/locks/release", &body).status
}
