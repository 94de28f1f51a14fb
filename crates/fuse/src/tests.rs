//! A small file system in memory, really mounted. These tests need root and `/dev/fuse`.

mod memory;

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use self::memory::{Event, HELLO, LATER, Memory};
use crate::mount::fusermount;
use crate::*;

/// Ample even for a busy machine; a test that fails waits this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// How many serve a [`World`] usually.
const WORKERS: usize = 3;

/// A mounted [`Memory`]; gone when dropped, whatever the test did.
struct World {
    directory: tempfile::TempDir,
    memory: Arc<Memory>,
    negotiated: Negotiated,
    notifier: Notifier,
    backer: Option<Backer>,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl World {
    fn new() -> World {
        World::mounted_by(mount, Wishes { posix_acl: false, passthrough: false, locks: false })
    }

    fn mounted_by(
        mount: fn(&Path, &MountOptions) -> Result<Device, MountError>,
        wishes: Wishes,
    ) -> World {
        let root = rustix::process::geteuid().is_root();
        assert!(root, "this test mounts a file system: run it as root");
        let directory = tempfile::tempdir().unwrap();
        let device = mount(directory.path(), &options()).unwrap();
        let session = Session::start(device, wishes).unwrap();
        let (negotiated, notifier) = (session.negotiated(), session.notifier());
        let backer = session.backer();
        let memory = Arc::new(Memory::default());
        let served = Arc::clone(&memory);
        let workers = WORKERS.try_into().unwrap();
        let server = std::thread::spawn(move || session.serve(workers, &served));
        World { directory, memory, negotiated, notifier, backer, server: Some(server) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a process that opens a file and waits until the open has reached the server.
    fn reader(&self, name: &str) -> Reader {
        let child = Command::new("cat").arg(self.path(name)).stdout(Stdio::piped()).spawn();
        let reader = Reader(child.unwrap());
        self.expect(if name == "stuck" { Event::Stuck } else { Event::Parked });
        reader
    }

    fn expect(&self, event: Event) {
        let next = self.memory.events.lock().unwrap().1.recv_timeout(DEADLINE);
        assert_eq!(next, Ok(event));
    }

    fn end(&mut self) -> io::Result<()> {
        unmount(self.directory.path()).expect("the mount is unused");
        self.server.take().expect("ended once").join().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        // Parked readers are answered, so that nothing keeps the mount alive.
        self.memory.parked.lock().unwrap().clear();
        if unmount(self.directory.path()).is_err() {
            let _ = detach(self.directory.path());
        }
        if !std::thread::panicking() {
            server.join().unwrap().unwrap();
        }
    }
}

/// A child process that is killed when dropped.
struct Reader(Child);

impl Reader {
    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end, but not for ever.
    fn end(&mut self) -> ExitStatus {
        let process = pidfd_open(self.pid(), PidfdFlags::empty()).unwrap();
        let deadline = Timespec::try_from(DEADLINE).unwrap();
        let mut ready = [PollFd::new(&process, PollFlags::IN)];
        assert_eq!(poll(&mut ready, Some(&deadline)), Ok(1), "the process outlived its signal");
        self.0.wait().unwrap()
    }

    fn output(&mut self) -> String {
        let mut output = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        output
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn options() -> MountOptions {
    MountOptions::new("a, name\\", "gate")
}

/// The line of the mount table of what is mounted there.
fn table_line(point: &Path) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(1) == point.to_str());
    line.map(str::to_owned)
}

#[test]
fn reads_lists_and_stats() {
    let world = World::new();
    assert_eq!(std::fs::read(world.path("hello")).unwrap(), b"hello, world\n");
    assert_eq!(std::fs::metadata(world.path("hello")).unwrap().ino(), HELLO.0);
    assert_eq!(File::open(world.path("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    let names = std::fs::read_dir(world.directory.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["hello", "later", "panic", "parked", "stuck"]);
}

#[test]
fn negotiates_what_this_kernel_can() {
    let world = World::new();
    assert!(world.negotiated.minor >= abi::MINOR_MIN);
    let needed = InitFlags::HANDLE_KILLPRIV_V2 | InitFlags::SETXATTR_EXT | InitFlags::MAX_PAGES;
    assert!(world.negotiated.flags.contains(needed));
    assert!(!world.negotiated.flags.intersects(InitFlags::PASSTHROUGH | InitFlags::POSIX_ACL));
}

#[test]
fn is_in_the_mount_table_with_safe_options() {
    let world = World::new();
    let line = table_line(world.directory.path()).unwrap();
    let fields: Vec<_> = line.split(' ').collect();
    assert_eq!(fields[..1], [r"a,\040name\134"]);
    assert_eq!(fields[2], "fuse.gate");
    for option in ["rw", "nosuid", "nodev", "default_permissions"] {
        assert!(fields[3].split(',').any(|has| has == option), "{option} in {}", fields[3]);
    }
}

#[test]
fn answers_from_another_thread() {
    let world = World::new();
    assert_eq!(std::fs::read(world.path("later")).unwrap(), b"hello, world\n");
    assert_eq!(std::fs::metadata(world.path("later")).unwrap().ino(), LATER.0);
}

#[test]
fn a_parked_open_goes_on_when_it_is_resumed() {
    let world = World::new();
    let mut reader = world.reader("parked");
    // Others are served meanwhile, by fewer workers than there are waiters.
    let _others: Vec<_> = (0..8).map(|_| world.reader("parked")).collect();
    assert_eq!(std::fs::read(world.path("hello")).unwrap(), b"hello, world\n");
    let first = world.memory.parked.lock().unwrap().remove(0);
    memory::open(first.resume().expect("nobody interrupted it"));
    assert!(reader.end().success());
    assert_eq!(reader.output(), "hello, world\n");
}

#[test]
fn a_parked_open_ends_at_sigint_and_at_sigkill() {
    for signal in [Signal::INT, Signal::KILL] {
        let world = World::new();
        let mut reader = world.reader("parked");
        let start = Instant::now();
        reader.signal(signal);
        let status = reader.end();
        assert_eq!(status.signal(), Some(signal.as_raw()));
        world.expect(Event::Interrupted);
        assert!(world.memory.parked.lock().unwrap().remove(0).resume().is_none());
        eprintln!("{signal:?}: ended after {:?}", start.elapsed());
    }
}

#[test]
fn calls_that_are_stuck_in_the_server_leave_it_to_others() {
    let world = World::new();
    let memory = Arc::clone(&world.memory);
    let mut readers = Vec::new();
    let stuck = memory.stuck.lock().unwrap();
    for _ in 0..3 * WORKERS {
        readers.push(world.reader("stuck"));
    }
    assert_eq!(std::fs::read(world.path("hello")).unwrap(), b"hello, world\n");
    drop(stuck);
    for mut reader in readers {
        assert!(reader.end().success());
    }
}

#[test]
fn a_fault_answers_eio_and_the_mount_lives_on() {
    let world = World::new();
    for _ in 0..8 {
        let error = File::open(world.path("panic")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    }
    assert_eq!(std::fs::read(world.path("hello")).unwrap(), b"hello, world\n");
}

#[test]
fn notifications_drop_what_is_cached() {
    let world = World::new();
    let size = || std::fs::metadata(world.path("hello")).map(|hello| hello.len());
    let before = size().unwrap();
    *world.memory.content.lock().unwrap() = Some(b"shorter".to_vec());
    assert_eq!(size().unwrap(), before, "attributes are cached for long");
    world.notifier.inval_inode(HELLO, Stale::Attributes).unwrap();
    assert_eq!(size().unwrap(), 7);
    *world.memory.content.lock().unwrap() = None;
    assert_eq!(size().unwrap(), 7, "the name is cached for long");
    world.notifier.inval_entry(NodeId::ROOT, b"hello").unwrap();
    assert_eq!(size().unwrap_err().kind(), io::ErrorKind::NotFound);
    // What the kernel does not know is no error.
    world.notifier.inval_inode(NodeId(999), Stale::Everything).unwrap();
    world.notifier.delete(NodeId::ROOT, HELLO, b"none").unwrap();
}

#[test]
fn a_forgotten_node_is_told() {
    let world = World::new();
    std::fs::metadata(world.path("hello")).unwrap();
    world.notifier.inval_entry(NodeId::ROOT, b"hello").unwrap();
    world.expect(Event::Forgotten(HELLO));
}

#[test]
fn a_node_is_pruned_once_nobody_uses_it() {
    let world = World::new();
    let open = File::open(world.path("hello")).unwrap();
    match world.notifier.prune(&[NodeId(999), HELLO]) {
        Err(Errno::INVAL) => return, // Linux < 6.18
        done => done.unwrap(),
    }
    drop(open);
    world.notifier.prune(&[HELLO]).unwrap();
    world.expect(Event::Forgotten(HELLO));
}

#[test]
fn unmount_ends_the_session() {
    let mut world = World::new();
    let open = File::open(world.path("hello")).unwrap();
    let refused = unmount(world.directory.path());
    assert!(matches!(refused, Err(UnmountError::Busy(_))), "{refused:?}");
    drop(open);
    world.end().unwrap();
    world.notifier.inval_inode(HELLO, Stale::Everything).unwrap();
    let refused = unmount(world.directory.path());
    assert!(matches!(refused, Err(UnmountError::NotMounted(_))), "{refused:?}");
}

#[test]
fn the_helper_mounts_and_unmounts_too() {
    let mut world = World::mounted_by(
        fusermount::mount,
        Wishes { posix_acl: false, passthrough: false, locks: false },
    );
    assert_eq!(std::fs::read(world.path("hello")).unwrap(), b"hello, world\n");
    let open = File::open(world.path("hello")).unwrap();
    let refused = fusermount::unmount(world.directory.path(), &["-u"]);
    assert!(matches!(refused, Err(UnmountError::Busy(_))), "{refused:?}");
    drop(open);
    fusermount::unmount(world.directory.path(), &["-u"]).unwrap();
    world.server.take().unwrap().join().unwrap().unwrap();
    let refused = fusermount::unmount(world.directory.path(), &["-u"]);
    assert!(matches!(refused, Err(UnmountError::NotMounted(_))), "{refused:?}");
}

#[test]
fn a_made_mount_lies_nowhere_until_it_is_placed() {
    let directory = tempfile::tempdir().unwrap();
    let is_mounted = || table_line(directory.path()).is_some();
    let made = make(&options()).unwrap();
    assert!(!is_mounted());
    made.mount.place(Place::On(directory.path())).unwrap();
    assert!(is_mounted());
    detach(directory.path()).unwrap();
    drop(make(&options()).unwrap().mount);
    assert!(!is_mounted());
}

/// What lies over a directory is replaced, and never is the directory bare.
#[test]
fn a_dead_mount_is_replaced_from_beneath() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("bare"), "").unwrap();
    drop(mount(directory.path(), &options()).unwrap());
    let cover = Cover::at(directory.path()).unwrap();
    let beneath = cover.beneath().unwrap();
    assert!(rustix::fs::statat(&beneath, "bare", rustix::fs::AtFlags::empty()).is_ok());
    let made = make(&MountOptions { fsname: "new".into(), ..options() }).unwrap();
    made.mount.place(Place::Beneath(&cover)).unwrap();
    assert_eq!(std::fs::metadata(directory.path()).unwrap_err().raw_os_error(), Some(107));
    cover.remove().unwrap();
    let line = table_line(directory.path());
    detach(directory.path()).unwrap();
    assert!(line.is_some_and(|line| line.starts_with("new ")));
    assert!(directory.path().join("bare").exists(), "nothing else lay there");
}

#[test]
fn a_name_too_long_for_a_made_mount_is_mounted_all_the_same() {
    let name = "n".repeat(300);
    let options = MountOptions { fsname: name.clone().into(), ..options() };
    assert!(matches!(make(&options), Err(MountError::Unsupported(_))));
    let directory = tempfile::tempdir().unwrap();
    let device = mount(directory.path(), &options).unwrap();
    let line = table_line(directory.path());
    drop(device);
    detach(directory.path()).unwrap();
    assert!(line.is_some_and(|line| line.starts_with(&name)));
}

#[test]
fn refusals_name_their_cause() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let refused = mount(&file, &options());
    assert!(matches!(refused, Err(MountError::NoMountpoint(_))), "{refused:?}");
    File::create(&file).unwrap();
    let refused = mount(&file, &options());
    assert!(matches!(refused, Err(MountError::NotDirectory(_))), "{refused:?}");
}

#[test]
fn a_mount_without_server_is_dead_and_can_be_detached() {
    let directory = tempfile::tempdir().unwrap();
    drop(mount(directory.path(), &options()).unwrap());
    let refused = mount(directory.path(), &options());
    let detached = detach(directory.path());
    assert!(matches!(refused, Err(MountError::Dead(_))), "{refused:?}");
    detached.unwrap();
}

#[test]
fn the_kernel_reads_a_backing_file_itself() {
    let world =
        World::mounted_by(mount, Wishes { posix_acl: false, passthrough: true, locks: false });
    let mut disk = tempfile::tempfile().unwrap();
    disk.write_all(b"from the disk").unwrap();
    let backing = world.backer.as_ref().expect("Linux 6.9 or newer").open(&disk).unwrap();
    *world.memory.backing.lock().unwrap() = Some(backing);
    assert_eq!(std::fs::read_to_string(world.path("hello")).unwrap(), "from the disk");
    // Taken back, it is served again by whoever has it open still.
    let mut open = File::open(world.path("hello")).unwrap();
    *world.memory.backing.lock().unwrap() = None;
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from the disk");
    drop(open);
    assert_eq!(std::fs::read_to_string(world.path("later")).unwrap(), "hello, world\n");
}

#[test]
fn what_was_not_agreed_on_is_not_offered() {
    assert!(World::new().backer.is_none());
}

/// N15: of a killed server the thread that drops names may be left for long.
#[test]
fn n15_who_asks_while_nothing_but_the_names_is_left_of_a_server_hears_that_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let device = mount(&path, &options()).unwrap();
    let wishes = Wishes { posix_acl: false, passthrough: false, locks: false };
    let Session { channel, names, .. } = Session::start(device, wishes).unwrap();
    let names::Names { orders, _guardian: guardian } = Arc::into_inner(names.unwrap()).unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    let ask = |path: PathBuf| {
        let told = told.clone();
        std::thread::spawn(move || told.send(std::fs::metadata(path).map(drop)).unwrap());
    };
    let hears = || heard.recv_timeout(DEADLINE).unwrap().unwrap_err().raw_os_error();
    ask(path.join("a"));
    // What its end does to the descriptors of a server.
    drop((guardian.expect("it has a guardian"), channel));
    assert_eq!(hears(), Some(rustix::io::Errno::NOTCONN.raw_os_error()));
    ask(path.join("b"));
    assert_eq!(hears(), Some(rustix::io::Errno::NOTCONN.raw_os_error()), "it goes on");
    drop(orders);
    detach(&path).unwrap();
}
