//! What watchers do not hear.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use gate_tests::World;
use gate_tests::wait::{SOON, wait_until};
use rustix::fs::inotify::{self, ReadFlags};
use rustix::io::Errno;

use crate::spaces::second_view;

/// What changes is told from elsewhere, not who looks.
#[test]
fn watchers_do_not_hear_who_opens_reads_or_closes_elsewhere() {
    let mut world = World::new();
    world.seed("f", "text");
    let second = second_view(&mut world, [""; 0]);
    let watch = watch(&second);
    let script = "echo more >> f; cat f > /dev/null";
    for dir in [world.view(), world.source()] {
        world.script(&dir, script).run().success();
    }
    let mut heard = ReadFlags::empty();
    wait_until(SOON, "the content is told", || {
        heard |= told(&watch);
        heard.contains(ReadFlags::MODIFY)
    });
    File::create(world.source().join("mark")).unwrap();
    wait_until(SOON, "all before is told", || {
        heard |= told(&watch);
        heard.contains(ReadFlags::CREATE)
    });
    let looks =
        ReadFlags::OPEN | ReadFlags::ACCESS | ReadFlags::CLOSE_WRITE | ReadFlags::CLOSE_NOWRITE;
    assert_eq!(heard & looks, ReadFlags::empty(), "{heard:?}");
    world.script(&second, script).run().success();
    assert!(told(&watch).contains(looks), "of the own view they are told");
}

#[test]
fn watchers_in_a_view_that_is_read_only_hear_nothing_of_others() {
    let mut world = World::new();
    let second = second_view(&mut world, ["--read-only"]);
    let watch = watch(&second);
    fs::write(world.source().join("f"), "text").unwrap();
    fs::write(world.view().join("g"), "text").unwrap();
    wait_until(SOON, "it is seen", || ["f", "g"].iter().all(|name| second.join(name).exists()));
    fs::read(second.join("f")).unwrap();
    let heard = told(&watch);
    assert!(heard.contains(ReadFlags::OPEN), "{heard:?}");
    assert!(!heard.intersects(ReadFlags::CREATE | ReadFlags::MODIFY), "{heard:?}");
}

/// And gets a descriptor of what was opened, which the kernel opens for it.
#[test]
fn who_listens_by_fanotify_hears_of_the_own_view_and_takes_a_turn_for_each_descriptor() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = World::new();
    for name in ["f", "own", "held"] {
        world.seed(name, "text");
    }
    let second = second_view(&mut world, [""; 0]);
    let watch = watch(&second);
    let listener = world.python(world.home(), LISTEN).args([&second]).start();
    let await_said = |what: &str| wait_until(SOON, what, || listener.so_far().contains(what));
    await_said("ready");
    for dir in [world.view(), world.source()] {
        world.script(&dir, "echo more >> f").run().success();
        wait_until(SOON, "it is told", || told(&watch).contains(ReadFlags::MODIFY));
    }
    world.script(&second, "echo more >> own").run().success();
    await_said("own");
    assert!(!listener.so_far().contains('f'), "{}", listener.so_far());
    let mut holder = world.actor(&second);
    let fd = holder.open("w", "held");
    world.await_waiting("held", 1);
    assert!(!listener.so_far().contains("held"), "{}", listener.so_far());
    holder.close(fd);
    await_said("held");
}

/// Names what is opened or written in a directory.
const LISTEN: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
listener = libc.fanotify_init(0, os.O_RDONLY)
events = ctypes.c_uint64(0x2 | 0x8 | 0x20 | 0x08000000)  # MODIFY, CLOSE_WRITE, OPEN, EVENT_ON_CHILD
assert libc.fanotify_mark(listener, 1, events, -100, sys.argv[1].encode()) == 0
print("ready", flush=True)
while True:
    told = os.read(listener, 4096)
    for at in range(0, len(told), 24):
        [file] = struct.unpack_from("i", told, at + 16)
        print(os.path.basename(os.readlink(f"/proc/self/fd/{file}")), flush=True)
        os.close(file)
"#;

fn watch(dir: &Path) -> OwnedFd {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, dir, inotify::WatchFlags::ALL_EVENTS).unwrap();
    watch
}

/// All that was told since it was last asked for.
fn told(watch: &OwnedFd) -> ReadFlags {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    let mut told = ReadFlags::empty();
    loop {
        match events.next() {
            Ok(event) => told |= event.events(),
            Err(Errno::AGAIN) => return told,
            Err(errno) => panic!("{errno}"),
        }
    }
}
