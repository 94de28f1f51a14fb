//! Advisory locks: flock(2) and fcntl(2) in views of one source and on the bare directory.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
mod differs;
mod views;

use std::path::{Path, PathBuf};
use std::time::Duration;

use gate_tests::actor::{Actor, Fd};
use gate_tests::wait::{SOON, wait_until};
use gate_tests::{World, kernel};
use rustix::io::Errno;
use rustix::process::Signal;

const LONG: Duration = Duration::from_secs(120);

/// Not gated, so that only the locks decide.
const FILE: &str = "f.lock";

/// The ways to lock, each as words for an actor, to which how and which bytes are added.
const WAYS: [Way; 3] = [Way::Flock, Way::Process, Way::OpenFile];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// flock(2)
    Flock,
    /// `F_SETLK`
    Process,
    /// `F_OFD_SETLK`
    OpenFile,
}

/// An actor with a file open.
struct Locker {
    actor: Actor,
    fd: Fd,
    /// The servers of all views that others see, too.
    servers: Vec<i32>,
}

/// A source with two views, and the bare directory beside them.
struct Scene {
    world: World,
    second: PathBuf,
}

impl Scene {
    fn new() -> Scene {
        let mut world = World::new();
        world.seed(FILE, "text");
        let second = world.home().join("second");
        fs::create_dir(&second).unwrap();
        let source = world.source();
        world.mount(&source, &second, [""; 0]);
        Scene { world, second }
    }

    /// Every two places from which the source's files are seen, that need not be the same.
    fn pairs(&self) -> [[PathBuf; 2]; 4] {
        let [view, second, bare] = [self.world.view(), self.second.clone(), self.world.source()];
        [
            [view.clone(), view.clone()],
            [view.clone(), second],
            [view.clone(), bare.clone()],
            [bare, view],
        ]
    }

    fn locker(&self, place: &Path) -> Locker {
        self.opener(place, "rw", FILE)
    }

    fn opener(&self, place: &Path, how: &str, name: &str) -> Locker {
        let mut actor = self.world.actor(place);
        let fd = actor.open(how, name);
        let servers = [&self.world.view(), &self.second];
        let servers = servers.map(|view| self.world.server_of(view).pid()).into();
        Locker { actor, fd, servers }
    }

    /// How many have the file locked by flock(2), in whatever place.
    fn flocks(&self) -> usize {
        let inode = self.world.source().join(FILE).metadata().unwrap().ino();
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let of_file = format!(":{inode} ");
        locks.lines().filter(|lock| lock.contains(": FLOCK ") && lock.contains(&of_file)).count()
    }
}

impl Locker {
    /// Locks, or unlocks, all bytes.
    fn lock(&mut self, way: Way, how: &str) -> Result<(), Errno> {
        let (verb, words) = way.words(how);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.actor.on(verb, self.fd, &words).map(drop)
    }

    fn tell_lock(&mut self, way: Way, how: &str) {
        let (verb, words) = way.words(&format!("{how}w"));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.actor.tell_on(verb, self.fd, &words);
    }

    /// Locks bytes for the process.
    fn bytes(&mut self, how: &str, first: u32, count: u32) -> Result<(), Errno> {
        let [first, count] = [first, count].map(|number| number.to_string());
        self.actor.on("lock", self.fd, &[how, &first, &count]).map(drop)
    }

    /// Asks what would be in the way of locking all bytes.
    fn in_the_way(&mut self, how: &str) -> String {
        self.actor.on("getlk", self.fd, &[how, "0", "0"]).unwrap()
    }

    fn pid(&self) -> i32 {
        self.actor.pid()
    }
}

impl Way {
    fn words(self, how: &str) -> (&'static str, Vec<String>) {
        match self {
            Way::Flock => ("flock", vec![how.to_owned()]),
            Way::Process => ("lock", [how, "0", "0"].map(str::to_owned).into()),
            Way::OpenFile => {
                let how = format!("{how}o");
                ("lock", [&how, "0", "0"].map(str::to_owned).into())
            }
        }
    }
}

#[test]
fn advisory_locks_exclude_across_views_and_on_the_bare_directory() {
    let scene = Scene::new();
    for places in scene.pairs() {
        for way in WAYS {
            let [mut one, mut two] = places.each_ref().map(|place| scene.locker(place));
            let what = format!("{way:?} {places:?}");
            assert_eq!(one.lock(way, "s"), Ok(()), "{what}");
            assert_eq!(two.lock(way, "s"), Ok(()), "{what}");
            assert_eq!(one.lock(way, "x"), Err(Errno::AGAIN), "{what}");
            assert_eq!(two.lock(way, "u"), Ok(()), "{what}");
            assert_eq!(one.lock(way, "x"), Ok(()), "{what}");
            assert_eq!(two.lock(way, "s"), Err(Errno::AGAIN), "{what}");
            assert_eq!(two.lock(way, "x"), Err(Errno::AGAIN), "{what}");
            assert_eq!(one.lock(way, "s"), Ok(()), "{what}");
            assert_eq!(two.lock(way, "s"), Ok(()), "{what}");
            assert_eq!(one.lock(way, "u"), Ok(()), "{what}");
            assert_eq!(two.lock(way, "x"), Ok(()), "{what}");
        }
    }
}

/// What is locked by flock(2) and what is locked by fcntl(2) are strangers to each other.
#[test]
fn the_two_families_of_advisory_locks_do_not_meet() {
    let scene = Scene::new();
    for places in scene.pairs() {
        let [mut one, mut two] = places.each_ref().map(|place| scene.locker(place));
        assert_eq!(one.lock(Way::Flock, "x"), Ok(()));
        assert_eq!(two.lock(Way::Process, "x"), Ok(()), "{places:?}");
        // Those of processes and of open files do.
        assert_eq!(one.lock(Way::OpenFile, "x"), Err(Errno::AGAIN), "{places:?}");
    }
}

#[test]
fn bytes_are_locked_apart_from_others() {
    let scene = Scene::new();
    for places in scene.pairs() {
        let [mut one, mut two] = places.each_ref().map(|place| scene.locker(place));
        assert_eq!(one.bytes("x", 0, 10), Ok(()));
        assert_eq!(two.bytes("x", 10, 10), Ok(()), "{places:?}");
        assert_eq!(two.bytes("x", 9, 1), Err(Errno::AGAIN), "{places:?}");
        assert_eq!(one.bytes("u", 4, 2), Ok(()));
        assert_eq!(two.bytes("x", 4, 2), Ok(()), "{places:?}");
        assert_eq!(two.bytes("x", 3, 1), Err(Errno::AGAIN), "{places:?}");
        assert_eq!(two.bytes("s", 6, 0), Err(Errno::AGAIN), "{places:?}");
        assert_eq!(one.in_the_way("x").split(' ').take(3).collect::<Vec<_>>(), ["x", "4", "2"]);
    }
}

#[test]
fn who_asks_is_told_which_lock_is_in_the_way_and_whose() {
    let scene = Scene::new();
    for [holder, asker] in scene.pairs() {
        let [mut one, mut two] = [scene.locker(&holder), scene.locker(&asker)];
        assert_eq!(two.in_the_way("x"), "");
        assert_eq!(one.bytes("s", 3, 4), Ok(()));
        assert_eq!(two.in_the_way("s"), "");
        // A lock of a view is one of an open file to others, which the kernel gives no owner (-1); to
        // other views it is nobody's whom they know.
        let bare = scene.world.source();
        let pid = match () {
            () if holder == asker || holder == bare => one.pid(),
            () if asker == bare => -1,
            () => 0,
        };
        let what = format!("{holder:?} {asker:?}");
        assert_eq!(two.in_the_way("x"), format!("s 3 4 {pid}"), "{what}");
        // In a view the kernel tells no pid to who asks for an open file.
        assert_eq!(two.in_the_way("xo"), "s 3 4 -1", "{what}");
        // A process is not in its own way, but in that of its open file.
        assert_eq!(one.in_the_way("x"), "", "{what}");
        assert_eq!(one.in_the_way("xo").split(' ').next(), Some("s"), "{what}");
    }
}

#[test]
fn who_waits_for_an_advisory_lock_gets_it_when_it_is_given_back() {
    let scene = Scene::new();
    for places in scene.pairs() {
        for way in WAYS {
            let [mut one, mut two] = places.each_ref().map(|place| scene.locker(place));
            assert_eq!(one.lock(way, "x"), Ok(()));
            two.await_lock(way, "x");
            assert_eq!(one.lock(way, "u"), Ok(()));
            assert_eq!(two.actor.answer(), Ok(String::new()), "{way:?} {places:?}");
            one.await_lock(way, "s");
            two.actor.signal(Signal::KILL);
            assert_eq!(one.actor.answer(), Ok(String::new()), "{way:?} {places:?}");
        }
    }
}

#[test]
fn who_waits_for_an_advisory_lock_ends_when_killed_and_leaves_nothing() {
    let scene = Scene::new();
    for [holder, place] in scene.pairs() {
        for way in WAYS {
            for signal in [Signal::INT, Signal::KILL] {
                let mut one = scene.locker(&holder);
                assert_eq!(one.lock(way, "x"), Ok(()));
                let mut two = scene.locker(&place);
                two.await_lock(way, "x");
                two.actor.signal(signal);
                assert_eq!(two.actor.end(SOON), Some(signal.as_raw()), "{way:?} {place:?}");
                assert_eq!(one.lock(way, "u"), Ok(()));
                let mut three = scene.locker(&holder);
                assert_eq!(three.lock(way, "x"), Ok(()), "{way:?} {place:?}");
            }
        }
    }
}

#[test]
fn an_interrupted_wait_for_an_advisory_lock_fails_and_may_be_made_anew() {
    let scene = Scene::new();
    let [one, two] = [(); 2].map(|()| scene.locker(&scene.world.view()));
    let [mut one, mut two] = [one, two];
    assert_eq!(two.actor.ask(["catch"]), Ok(String::new()));
    for way in WAYS {
        assert_eq!(one.lock(way, "x"), Ok(()));
        two.await_lock(way, "x");
        two.actor.signal(Signal::INT);
        assert_eq!(two.actor.answer(), Err(Errno::INTR), "{way:?}");
        two.await_lock(way, "x");
        assert_eq!(one.lock(way, "u"), Ok(()));
        assert_eq!(two.actor.answer(), Ok(String::new()), "{way:?}");
        assert_eq!(two.lock(way, "u"), Ok(()));
    }
}

/// While somebody waits, neither the others of its file nor more waiters than a view has threads
/// are in anybody's way.
#[test]
fn who_waits_for_an_advisory_lock_is_in_nobodys_way() {
    let scene = Scene::new();
    let view = scene.world.view();
    let mut holder = scene.locker(&view);
    assert_eq!(holder.bytes("x", 0, 10), Ok(()));
    let mut waiters: Vec<_> = (0..8).map(|_| scene.locker(&view)).collect();
    for waiter in &mut waiters {
        waiter.await_lock(Way::Process, "x");
    }
    let mut other = scene.locker(&view);
    assert_eq!(other.bytes("x", 20, 1), Ok(()));
    assert_eq!(other.actor.read(other.fd, 4), Ok("text".to_owned()));
    assert_eq!(other.bytes("u", 20, 1), Ok(()));
    assert_eq!(holder.bytes("u", 0, 10), Ok(()));
    while !waiters.is_empty() {
        let done = waiters.iter().position(|waiter| !waiter.actor.is_busy());
        drop(done.map(|at| waiters.remove(at)));
    }
}

/// fcntl(2) locks end with the first descriptor that their process closes, others with the last.
#[test]
fn advisory_locks_end_when_files_are_closed() {
    let scene = Scene::new();
    for [place, asker] in scene.pairs() {
        for (way, how) in WAYS.into_iter().flat_map(|way| [(way, "rw"), (way, "r")]) {
            let mut one = scene.opener(&place, how, FILE);
            let mut two = scene.locker(&asker);
            let (mine, what) =
                (if how == "r" { "s" } else { "x" }, format!("{way:?} {how} {place:?}"));
            assert_eq!(one.lock(way, mine), Ok(()), "{what}");
            let copy = one.actor.on("dup", one.fd, &[]).unwrap();
            assert_eq!(one.actor.ask(["close", &copy]), Ok(String::new()));
            let expected = if way == Way::Process { Ok(()) } else { Err(Errno::AGAIN) };
            assert_eq!(two.lock(way, "x"), expected, "{what} {asker:?}");
            assert_eq!(two.lock(way, "u"), Ok(()));
            assert_eq!(one.lock(way, mine), Ok(()), "{what}");
            one.actor.close(one.fd);
            two.lock_soon(way);
            // Its end would be told after the next begins.
            assert_eq!(two.lock(way, "u"), Ok(()));
        }
    }
}

/// A handle that is opened in a turn to be read is closed without a word of the kernel; the end of
/// the last descriptor is told.
#[test]
fn advisory_locks_of_a_gated_reader_end_with_its_last_close() {
    let scene = Scene::new();
    scene.world.seed("gated", "text");
    for [place, asker] in scene.pairs() {
        for way in [Way::Flock, Way::Process, Way::OpenFile] {
            let [mut one, mut two] = [&place, &asker].map(|at| scene.opener(at, "r", "gated"));
            let (mine, others) = if way == Way::Flock { ("x", "x") } else { ("s", "s") };
            assert_eq!(one.lock(way, mine), Ok(()));
            if way == Way::Flock {
                assert_eq!(two.lock(way, others), Err(Errno::AGAIN), "{place:?} {asker:?}");
            }
            one.actor.close(one.fd);
            two.lock_soon_as(way, others);
            let mut bare = scene.opener(&scene.world.source(), "rw", "gated");
            two.actor.close(two.fd);
            bare.lock_soon(way);
        }
    }
}

/// The next try may come before the RELEASE of what was closed.
#[test]
fn who_tries_right_after_a_close_gets_the_lock() {
    let scene = Scene::new();
    let times = gate_tests::scaled(5000, 100_000).to_string();
    for name in [FILE, "gated"] {
        scene.world.seed(name, "text");
        let mut actor = scene.world.actor(&scene.world.view());
        actor.tell(["repeat", &times, "relock", name]);
        assert_eq!(actor.answer_by(LONG), Ok(String::new()), "{name}");
    }
}

#[test]
fn processes_that_wait_for_each_other_are_told_of_their_deadlock() {
    let scene = Scene::new();
    let view = scene.world.view();
    for place in [&view, &scene.world.source()] {
        let [mut one, mut two] = [(); 2].map(|()| scene.locker(place));
        assert_eq!(one.bytes("x", 0, 1), Ok(()));
        assert_eq!(two.bytes("x", 1, 1), Ok(()));
        one.await_bytes("x", 1, 1);
        assert_eq!(two.bytes("xw", 0, 1), Err(Errno::DEADLK), "{place:?}");
        assert_eq!(two.bytes("u", 1, 1), Ok(()));
        assert_eq!(one.actor.answer(), Ok(String::new()));
    }
    // Over two files, and three processes.
    scene.world.seed("g.lock", "text");
    let mut lockers = [(); 3].map(|()| scene.locker(&view));
    let mut in_g = lockers[2].actor.open("rw", "g.lock");
    let _ = &mut in_g;
    assert_eq!(lockers[0].bytes("x", 0, 1), Ok(()));
    assert_eq!(lockers[1].bytes("x", 1, 1), Ok(()));
    assert_eq!(lockers[2].actor.on("lock", in_g, &["x", "0", "1"]), Ok(String::new()));
    let of_first = lockers[0].actor.open("rw", "g.lock");
    lockers[0].actor.tell_on("lock", of_first, &["xw", "0", "1"]);
    lockers[0].await_sleep();
    lockers[1].await_bytes("x", 0, 1);
    assert_eq!(lockers[2].bytes("xw", 1, 1), Err(Errno::DEADLK));
}

/// A lock that is converted while it waits is lost first, as flock(2) says.
#[test]
fn two_readers_that_both_want_to_write_get_their_turns() {
    let scene = Scene::new();
    for places in scene.pairs() {
        let [mut one, mut two] = places.each_ref().map(|place| scene.locker(place));
        assert_eq!(one.lock(Way::Flock, "s"), Ok(()));
        assert_eq!(two.lock(Way::Flock, "s"), Ok(()));
        one.await_lock(Way::Flock, "x");
        wait_until(SOON, "its own is lost", || scene.flocks() == 1);
        assert_eq!(two.lock(Way::Flock, "xw"), Ok(()), "{places:?}");
        assert_eq!(two.lock(Way::Flock, "u"), Ok(()));
        assert_eq!(one.actor.answer(), Ok(String::new()), "{places:?}");
    }
}

/// What descriptors share, what children inherit and what threads have in common.
#[test]
fn processes_share_advisory_locks_as_on_the_bare_directory() {
    let script = r#"
import fcntl, os, struct, threading

def child(act):
    pid = os.fork()
    if pid == 0:
        try:
            print(act(), flush=True)
        except OSError as error:
            print(error.errno, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)

def posix(file, kind=fcntl.LOCK_EX):
    fcntl.lockf(file, kind | fcntl.LOCK_NB)

OFD_SETLK = 37
def ofd(file, kind=fcntl.F_WRLCK):
    fcntl.fcntl(file, OFD_SETLK, struct.pack("hhqqi4x", kind, 0, 0, 0, 0))

for lock in (posix, ofd, lambda file: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)):
    file = open("f.lock", "r+")
    lock(file)
    child(lambda: lock(file))                      # inherited
    child(lambda: lock(open("f.lock", "r+")))      # opened anew
    child(file.close)
    child(lambda: lock(open("f.lock", "r+")))      # after a child's close
    other = open("f.lock", "r+")
    try:
        lock(other)                                # the same process, another open file
        print("same")
    except OSError as error:
        print(error.errno)
    def in_thread():
        try:
            lock(other)
            print("thread")
        except OSError as error:
            print("thread", error.errno)
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    other.close()
    child(lambda: lock(open("f.lock", "r+")))      # after the close of another open file
    copy = os.dup(file.fileno())
    file.close()
    child(lambda: lock(open("f.lock", "r+")))      # after the close of one of two descriptors
    os.close(copy)
"#;
    let world = World::new();
    world.says_as_bare(
        &format!(
            "echo text > f.lock; python3 - <<'E'
{script}
E"
        ),
        SOON,
    );
}

/// In one view a lock goes from hand to hand; in another one, or on the bare directory, somebody
/// waits for it, too.
#[test]
fn a_lock_that_goes_round_in_one_view_comes_to_others() {
    let scene = Scene::new();
    let view = scene.world.view();
    for elsewhere in [&scene.second, &scene.world.source()] {
        let mut ring = [(); 2].map(|()| scene.locker(&view));
        assert_eq!(ring[0].lock(Way::Flock, "x"), Ok(()));
        let mut other = scene.locker(elsewhere);
        other.await_lock(Way::Flock, "x");
        wait_until(SOON, "it comes to the other", || {
            let [holder, next] = &mut ring;
            next.await_lock(Way::Flock, "x");
            assert_eq!(holder.lock(Way::Flock, "u"), Ok(()));
            wait_until(SOON, "somebody gets it", || {
                !next.actor.is_busy() || !other.actor.is_busy()
            });
            if other.actor.is_busy() {
                assert_eq!(next.actor.answer(), Ok(String::new()));
                ring.reverse();
            }
            !other.actor.is_busy()
        });
        assert_eq!(other.actor.answer(), Ok(String::new()));
    }
}

/// Eight processes, four in each of two directories, which are one on the bare directory.
#[test]
fn locks_of_directories_end_at_the_view() {
    let scene = Scene::new();
    fs::create_dir(scene.world.source().join("d")).unwrap();
    let mut one = scene.opener(&scene.world.view(), "r", "d");
    assert_eq!(one.lock(Way::Flock, "x"), Ok(()));
    for (place, expected) in [
        (scene.world.view(), Err(Errno::AGAIN)),
        (scene.second.clone(), Ok(())),
        (scene.world.source(), Ok(())),
    ] {
        let mut two = scene.opener(&place, "r", "d");
        assert_eq!(two.lock(Way::Flock, "x"), expected, "{place:?}");
    }
}

/// Leases and directory notifications are the kernel's own, of each mount: a view has them as a
/// directory has that nobody uses but through this view.
#[test]
fn leases_and_notifications_tell_of_what_happens_in_the_same_view() {
    let script = r#"
import fcntl, os, signal, sys
view, second, bare = sys.argv[1:]
heard = []
def told():
    return len(heard)
signal.signal(signal.SIGIO, lambda *_: heard.append(1))
leased = os.open(f"{view}/f.lock", os.O_RDONLY)
fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_RDLCK)
for place in (second, bare, view):
    try:
        os.close(os.open(f"{place}/f.lock", os.O_WRONLY | os.O_NONBLOCK))
        print("opened", told())
    except BlockingIOError:
        print("refused", told())
fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_UNLCK)
heard.clear()
fcntl.fcntl(os.open(view, os.O_RDONLY), fcntl.F_NOTIFY, fcntl.DN_CREATE | fcntl.DN_MULTISHOT)
for place in (second, bare, view):
    open(f"{place}/made-in-{os.path.basename(place)}.lock", "w").close()
    print("told", told())
"#;
    let scene = Scene::new();
    let places = [scene.world.view(), scene.second.clone(), scene.world.source()];
    let said = scene.world.python(scene.world.home(), script).args(places).run().success();
    assert_eq!(said, "opened 0\nopened 0\nrefused 1\ntold 0\ntold 0\ntold 1\n");
}

/// What a process has locked through a file it reads stays when it goes on to write.
#[test]
fn locks_of_a_reader_stand_beside_those_of_the_same_process_as_a_writer() {
    let scene = Scene::new();
    let mut one = scene.opener(&scene.world.view(), "r", FILE);
    assert_eq!(one.bytes("s", 0, 10), Ok(()));
    assert_eq!(one.bytes("x", 0, 10), Err(Errno::BADF));
    one.fd = one.actor.open("rw", FILE);
    assert_eq!(one.bytes("x", 20, 10), Ok(()));
    let mut bare = scene.locker(&scene.world.source());
    assert_eq!(bare.bytes("s", 0, 10), Ok(()));
    assert_eq!(bare.bytes("x", 0, 10), Err(Errno::AGAIN));
    assert_eq!(bare.bytes("s", 29, 1), Err(Errno::AGAIN));
    assert_eq!(one.bytes("u", 0, 0), Ok(()));
    assert_eq!(bare.bytes("x", 0, 0), Ok(()));
}

impl Locker {
    /// Waits until it sleeps in the call that it was told to make, and no view has that in hand any
    /// more: it waits for nothing but the lock.
    fn await_sleep(&self) {
        wait_until(SOON, "it waits", || {
            sleeps(self.pid()) && self.servers.iter().all(|server| kernel::is_at_rest(*server))
        });
    }

    /// Lets it wait for a lock.
    fn await_lock(&mut self, way: Way, how: &str) {
        self.tell_lock(way, how);
        self.await_sleep();
        assert!(self.actor.is_busy());
    }

    fn await_bytes(&mut self, how: &str, first: u32, count: u32) {
        let [first, count] = [first, count].map(|number| number.to_string());
        self.actor.tell_on("lock", self.fd, &[&format!("{how}w"), &first, &count]);
        self.await_sleep();
    }

    /// Gets a lock that is given back by now, or is about to be.
    fn lock_soon(&mut self, way: Way) {
        self.lock_soon_as(way, "x");
    }

    fn lock_soon_as(&mut self, way: Way, how: &str) {
        wait_until(SOON, "the lock is free", || self.lock(way, how).is_ok());
    }
}

/// Whether a process sleeps in a call: here, in the one that it was told to make.
fn sleeps(pid: i32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = call.split(' ').next().and_then(|number| number.parse().ok());
    [libc::SYS_flock, libc::SYS_fcntl].iter().any(|waits| number == Some(*waits))
}
