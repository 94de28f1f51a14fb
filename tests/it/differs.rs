//! Where a view differs from the bare directory: what docs/semantics.md says of it, where no other
//! test shows it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use gate_tests::World;
use gate_tests::wait::{SOON, wait_until};
use rustix::fs::inotify::{self, ReadFlags};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, StatxAttributes, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

/// A hold, an open file: none of it is beside the view.
#[test]
fn who_works_beside_the_view_takes_no_turn_and_is_stopped_by_none() {
    let world = World::new();
    world.seed("d/f", "text");
    let mut writer = world.actor(&world.view());
    writer.open("rw", "d/f");
    let mut beside = world.actor(&world.source());
    let fd = beside.open("w0", "d/f");
    assert_eq!(world.board().locks.len(), 1, "that of the writer in the view");
    beside.close(fd);
    beside.ask(["rename", "d/f", "d/g"]).unwrap();
    beside.ask(["unlink", "d/g"]).unwrap();
}

/// Others wait for the hold; who has the file open comes by that, for all that can be known.
#[test]
fn who_has_a_file_open_changes_its_attributes_by_its_path_too_without_waiting() {
    let world = World::new();
    world.seed("d/f", "text");
    let [mut one, mut other] = [world.actor(&world.view()), world.actor(&world.view())];
    let fd = one.open("r", "d/f");
    let mut holder = world.actor_under_hold(&world.view(), ["--read", "d"]);
    other.tell(["chmod", "d/f", "640"]);
    world.await_waiting("d/f", 1);
    one.on("fchmod", fd, &["600"]).unwrap();
    one.ask(["chmod", "d/f", "604"]).unwrap();
    one.ask(["capture", "chmod", "606", "d/f"]).unwrap();
    assert!(other.is_busy());
    holder.leave();
    one.close(fd);
    other.answer().unwrap();
    assert_eq!(fs::metadata(world.source().join("d/f")).unwrap().mode() & 0o777, 0o640);
}

/// Neither place nor length is one that a disk could do by itself. What the kernel works on, past
/// the view, is the source's file.
#[test]
fn direct_io_is_accepted_and_buffered_but_where_the_kernel_works_on_the_file_itself() {
    let misaligned = |path: &Path, how: OFlags| {
        let file = open(path, how | OFlags::DIRECT);
        let read = rustix::io::pread(&file, &mut [0; 3], 1);
        (read, how.contains(OFlags::RDWR).then(|| rustix::io::pwrite(&file, b"abc", 1)))
    };
    for (mode, name, how, is_kernels) in [
        ("default", "f", OFlags::RDWR, false),
        ("default", "large", OFlags::RDONLY, true),
        ("strict", "f", OFlags::RDWR, false),
        ("strict", "large", OFlags::RDONLY, false),
        ("fast", "f", OFlags::RDWR, true),
    ] {
        let world = World::with_view(["--mode", mode]);
        world.seed("f", "0123456789");
        world.seed("large", &"0123456789".repeat(100_000));
        let done = misaligned(&world.view().join(name), how);
        let buffered = (Ok(3), how.contains(OFlags::RDWR).then_some(Ok(3)));
        let bare = || misaligned(&world.source().join(name), how);
        assert!(done == buffered || is_kernels && done == bare(), "{mode} {name}: {done:?}");
    }
}

#[test]
fn reads_and_writes_that_must_not_wait_or_stay_or_be_torn_are_refused() {
    let world = World::new();
    for (name, text) in [("f", "text"), ("f.log", "text"), ("large", &*"x".repeat(1 << 20))] {
        world.seed(name, text);
        let file = open(&world.view().join(name), OFlags::RDWR);
        let read = |how| preadv2(&file, &mut [IoSliceMut::new(&mut [0; 4])], 0, how);
        let write = |how| pwritev2(&file, &[IoSlice::new(b"TEXT")], 0, how);
        for how in [libc::RWF_NOWAIT, libc::RWF_DONTCACHE, libc::RWF_ATOMIC] {
            let how = ReadWriteFlags::from_bits_retain(how.cast_unsigned());
            assert_eq!(read(how), Err(Errno::OPNOTSUPP), "{name} {how:?}");
            assert_eq!(write(how), Err(Errno::OPNOTSUPP), "{name} {how:?}");
        }
        for how in [ReadWriteFlags::HIPRI, ReadWriteFlags::DSYNC, ReadWriteFlags::SYNC] {
            assert_eq!((read(how), write(how)), (Ok(4), Ok(4)), "{name} {how:?}");
        }
    }
}

/// As between any two file systems; whoever knows no better copies.
#[test]
fn between_a_view_and_its_source_nothing_is_linked_renamed_or_copied_by_the_kernel() {
    let world = World::new();
    world.seed("f", "text");
    let mut actor = world.actor(&world.view());
    for [from, to] in [[world.view(), world.source()], [world.source(), world.view()]] {
        let [from, to] = [from.join("f"), to.join("g")];
        for verb in ["link", "rename"] {
            let words = [verb.as_ref(), from.as_os_str(), to.as_os_str()];
            assert_eq!(actor.ask(words), Err(Errno::XDEV), "{verb} {from:?}");
        }
        for (slot, how, path) in [("0", "r", &from), ("1", "w+", &to)] {
            actor
                .ask(
                    ["at", slot, "open", how]
                        .map(AsRef::as_ref)
                        .into_iter()
                        .chain([path.as_os_str()]),
                )
                .unwrap();
        }
        let copied = actor.ask(["at", "0", "copy", "1", "0", "4", "0"]);
        assert_eq!(copied, Err(Errno::XDEV), "{from:?}");
        assert_eq!(actor.ask(["at", "0", "sendfile", "1", "0", "4"]), Ok("4".to_owned()));
        actor.ask(["leave"]).unwrap();
        fs::remove_file(to).unwrap();
    }
    world.script(&world.view(), "cp f ../source/h; mv f ../source/g").run().success();
    assert_eq!(["g", "h"].map(|name| world.source_text(name)), ["text", "text"]);
}

/// Commands find the view's broker by it; whoever copies attributes meets it nowhere.
#[test]
fn one_name_of_an_attribute_is_the_views_own() {
    let world = World::new();
    world
        .script(&world.source(), "echo text > f; setfattr -n user.gate.view -v own f")
        .run()
        .success();
    let script = "
        getfattr --only-values -n user.gate.view f | head -c 1; echo
        getfattr -dm- f; mkdir d; getfattr -dm- d
        setfattr -n user.gate.view -v other f 2>&1 || true
        setfattr -x user.gate.view f 2>&1 || true";
    let said = world.script(&world.view(), script).run().success();
    let refused = "setfattr: f: Operation not permitted\n";
    assert_eq!(said, format!("{{\n{refused}{refused}"));
    let own = world.script(&world.source(), "getfattr --only-values -n user.gate.view f").run();
    assert_eq!(own.success(), "own");
}

#[test]
fn attributes_that_only_statx_tells_end_at_the_view() {
    let world = World::new();
    world.script(&world.source(), "echo text > f; chattr +d f").run().success();
    let flags = StatxFlags::ALL | StatxFlags::DIOALIGN;
    let [bare, seen] = [world.source(), world.view()]
        .map(|dir| rustix::fs::statx(CWD, dir.join("f"), AtFlags::empty(), flags).unwrap());
    assert!(bare.stx_attributes.contains(StatxAttributes::NODUMP), "{bare:?}");
    let told = seen.stx_attributes | seen.stx_attributes_mask;
    assert!(!told.contains(StatxAttributes::NODUMP), "{seen:?}");
    assert_eq!((seen.stx_dio_mem_align, seen.stx_dio_offset_align), (0, 0));
    assert_ne!(seen.stx_mnt_id, bare.stx_mnt_id);
    assert_eq!(seen.stx_ino, bare.stx_ino);
    let listed = world.script(&world.view(), "lsattr f").run().success();
    assert!(listed.split(' ').next().unwrap().contains('d'), "{listed}");
}

#[test]
fn file_systems_inside_the_source_show_their_inodes_under_the_views_device() {
    let mut world = World::bare();
    world.seed("disk/under", "");
    world.lay_small_disk(&world.source().join("disk"), "1m");
    world.seed("disk/f", "text");
    world.seed("f", "text");
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    let [of, under] = ["f", "disk/f"].map(|name| fs::metadata(view.join(name)).unwrap());
    assert_eq!(of.dev(), under.dev());
    for (name, seen) in [("f", &of), ("disk/f", &under)] {
        assert_eq!(seen.ino(), fs::metadata(source.join(name)).unwrap().ino(), "{name}");
    }
    world.umount(&view);
    world.script(&source, "umount disk").run().success();
}

#[test]
fn positions_in_a_directory_are_those_of_its_source() {
    let world = World::new();
    for number in 0..50 {
        world.seed(&format!("d/{number}"), "");
    }
    let [expected, found] = [world.source(), world.view()].map(|dir| positions(&dir.join("d")));
    assert!(expected.len() >= 50, "{expected:?}");
    assert_eq!(found, expected);
}

fn positions(dir: &Path) -> BTreeMap<Vec<u8>, u64> {
    let dir = open(dir, OFlags::RDONLY | OFlags::DIRECTORY);
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut names = RawDir::new(dir.as_fd(), &mut buffer);
    let mut positions = BTreeMap::new();
    while let Some(entry) = names.next() {
        let entry = entry.unwrap();
        positions.insert(entry.file_name().to_bytes().to_vec(), entry.next_entry_cookie());
    }
    positions
}

/// What is stored through a mapping stays in the view until somebody asks for it.
#[test]
fn syncfs_writes_what_is_in_the_view_into_the_source() {
    let world = World::new();
    world.seed("f", "text");
    let mut actor = world.actor(&world.view());
    let fd = actor.open("rw", "f");
    actor.on("store", fd, &["TEXT"]).unwrap();
    world.script(&world.view(), "sync -f .").run().success();
    assert_eq!(world.source_text("f"), "TEXT");
    actor.close(fd);
}

/// The name is held, and not what somebody makes of it.
#[test]
fn of_a_name_that_is_held_before_it_is_a_directory_nothing_beneath_is_held() {
    let world = World::new();
    let mut holder = world.actor_under_hold(&world.view(), ["new"]);
    holder.ask(["mkdir", "new"]).unwrap();
    let [mut beneath, mut by_name] = [world.actor(&world.view()), world.actor(&world.view())];
    beneath.ask(["append", "new/f", "text"]).unwrap();
    by_name.tell(["rename", "new", "other"]);
    world.await_waiting("new", 1);
    holder.leave();
    by_name.answer().unwrap();
}

#[test]
fn a_held_directory_does_not_stop_what_has_a_name_elsewhere() {
    let world = World::new();
    for name in ["d/linked", "d/moved", "d/f"] {
        world.seed(name, "text");
    }
    fs::hard_link(world.source().join("d/linked"), world.source().join("elsewhere")).unwrap();
    let mut holder = world.actor_under_hold(&world.view(), ["d"]);
    let mut other = world.actor(&world.view());
    other.ask(["append", "elsewhere", "text"]).unwrap();
    holder.ask(["rename", "d/moved", "moved"]).unwrap();
    other.ask(["append", "moved", "text"]).unwrap();
    other.tell(["append", "d/f", "text"]);
    world.await_waiting("d/f", 1);
    holder.leave();
    other.answer().unwrap();
}

/// flock(1) leaves its lock to whoever has its descriptor.
#[test]
fn a_hold_ends_with_its_command_whatever_that_has_left_running() {
    let world = World::new();
    world.seed("f", "");
    let script = r#"
        rm -f ../go; mkfifo ../go
        O= lock sh -c 'cat ../go > left &'
        O=-n lock true && echo free || echo locked
        echo go > ../go; until grep -q go left; do :; done"#;
    let hold = r#"lock() { "$0" hold $O f -- "$@"; }"#;
    let flock = r#"lock() { flock $O f "$@"; }"#;
    let said = [(world.view(), hold), (world.twin(), flock)].map(|(dir, lock)| {
        let run = world.script(&dir, &format!("{lock}{script}"));
        run.args([world.program("gate")]).run().success()
    });
    assert_eq!(said, ["free\n", "locked\n"]);
}

/// The kernel does not issue it again, so it cannot wait outside the kernel's locks.
#[test]
fn a_socket_is_not_bound_in_a_held_directory_and_that_is_said_after_a_moment() {
    let world = World::new();
    world.seed("d/f", "text");
    let mut holder = world.actor_under_hold(&world.view(), ["d"]);
    let bind = "import socket; socket.socket(socket.AF_UNIX).bind('d/socket')";
    let refused = world.python(&world.view(), bind).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("BlockingIOError: [Errno 11]"), "{refused}");
    assert!(!world.source().join("d/socket").exists());
    holder.ask(["capture", "python3", "-c", bind]).unwrap();
    holder.leave();
    world.await_held("d", 0);
    fs::remove_file(world.view().join("d/socket")).unwrap();
    world.python(&world.view(), bind).run().success();
}

/// A thousand threads wait, the next is told; and of one file a process has locked every other byte.
#[test]
fn there_is_a_bound_to_who_waits_for_advisory_locks_and_to_pieces_that_are_locked() {
    let world = World::new();
    world.seed("f.lock", "text");
    let script = r#"
import errno, fcntl, threading
def bounded(what):
    try:
        what()
    except OSError as error:
        print(errno.errorcode[error.errno])
held = open("f.lock", "r+")
fcntl.flock(held, fcntl.LOCK_EX)
threading.stack_size(1 << 16)
def wait():
    with open("f.lock") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
def wait_or_tell():
    bounded(wait)
    told.set()
told = threading.Event()
threads = [threading.Thread(target=wait_or_tell) for _ in range(1025)]
for thread in threads:
    thread.start()
told.wait()
fcntl.flock(held, fcntl.LOCK_UN)
for thread in threads:
    thread.join()
def lock_each_other():
    for piece in range(5000):
        last[0] = piece
        fcntl.lockf(held, fcntl.LOCK_EX, 1, 2 * piece)
last = [0]
bounded(lock_each_other)
print(last[0])
"#;
    let said = world.python(&world.view(), script).run().success();
    assert_eq!(said, "ENOLCK\nENOLCK\n4096\n");
}

/// What changes is told from elsewhere, not who looks.
#[test]
fn watchers_do_not_hear_who_opens_reads_or_closes_elsewhere() {
    let mut world = World::new();
    world.seed("f", "text");
    let second = super::spaces::second_view(&mut world, [""; 0]);
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
    let second = super::spaces::second_view(&mut world, ["--read-only"]);
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
    let second = super::spaces::second_view(&mut world, [""; 0]);
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

fn open(path: &Path, how: OFlags) -> OwnedFd {
    rustix::fs::open(path, how, Mode::empty()).unwrap()
}
