//! Where a view differs from the bare directory: what docs/semantics.md says of it, where no other
//! test shows it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use gate_tests::World;
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
        let expected =
            if is_kernels { misaligned(&world.source().join(name), how) } else { buffered };
        assert_eq!(done, expected, "{mode} {name}");
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

/// The C library tells it by the type of the file system, and supposes the least of one it does not know.
#[test]
fn how_many_names_a_file_may_have_is_what_the_source_allows_and_told_is_less() {
    let world = World::new();
    world.seed("f", "");
    let script = "
import os
print(os.pathconf('f', 'PC_LINK_MAX'))
for number in range(200):
    os.link('f', str(number))
print(os.stat('f').st_nlink)";
    assert_eq!(world.python(&world.view(), script).run().success(), "127\n201\n");
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

/// The kernel keeps them with the file as that mount shows it.
#[test]
fn sockets_fifos_and_what_runs_are_those_of_one_view() {
    let mut world = World::new();
    let second = super::spaces::second_view(&mut world, [""; 0]);
    let script = r#"
import errno, os, shutil, socket, subprocess, sys
def tried(what):
    try:
        what()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
def open_to_write(path):
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
view = sys.argv[1]
server = socket.socket(socket.AF_UNIX)
server.bind(f"{view}/socket")
server.listen()
os.mkfifo(f"{view}/fifo")
fifo = os.open(f"{view}/fifo", os.O_RDONLY | os.O_NONBLOCK)
shutil.copy(shutil.which("cat"), f"{view}/program.log")  # not gated
running = subprocess.Popen([f"{view}/program.log"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
running.stdin.write(b"x")
running.stdin.flush()
running.stdout.read(1)
for place in sys.argv[1:]:
    connected = tried(lambda: socket.socket(socket.AF_UNIX).connect(f"{place}/socket"))
    print(connected, *(tried(lambda: open_to_write(f"{place}/{name}")) for name in ("fifo", "program.log")))
running.communicate()
"#;
    let places = [world.view(), second, world.source()];
    let said = world.python(world.home(), script).args(places).run().success();
    let elsewhere = "ECONNREFUSED ENXIO done\n";
    assert_eq!(said, ["done done ETXTBSY\n", elsewhere, elsewhere].concat());
}

fn open(path: &Path, how: OFlags) -> OwnedFd {
    rustix::fs::open(path, how, Mode::empty()).unwrap()
}
