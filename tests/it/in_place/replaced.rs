//! Views over their own source whose server died, or which another one takes the place of.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel};
use rustix::io::Errno;
use rustix::process::Signal;

use super::{kill_server, mount, mounts_beneath, names, or_by_force, with_broker};

/// A server that hangs may be replaced, too.
#[test]
fn a_view_that_hangs_is_replaced() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = with_broker();
    let source = world.source();
    world.seed("f", "text");
    world.mount(&source, &source, [""; 0]);
    world.server_of(&source).stop();
    let refusal = mount(&world, &source, &[]);
    assert!(refusal.contains("does not answer") && refusal.contains("--replace"), "{refusal}");
    if !mounts_beneath() {
        assert_makes_no_way(&world, &source);
        return world.server_of(&source).signal(Signal::CONT);
    }
    let former = world.mount_anew(&source, ["--replace"]);
    assert_eq!(world.script(&source, "cat f").run().success(), "text");
    former.signal(Signal::CONT);
    assert_eq!(former.finish(SOON).code, Some(0));
}

/// What is mounted in a directory that others share is mounted for them, too, and so is what
/// comes from beneath.
#[test]
fn a_dead_view_is_replaced_where_mounts_are_shared() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = with_broker();
    world.seed("f", "text");
    let script = r#"
        mount --bind . . && mount --make-shared . && cd "$PWD"
        exec 4> ready
        unshare --mount --propagation unchanged bash -euc 'echo >&4; read -r line
            cat source/f; grep -c "$PWD/source " /proc/self/mountinfo' < <(
                until [ -s ready ]; do :; done
                for round in 1 2; do
                    "$0" mount "$@" source
                    kill -KILL $("$0" doctor --json source | grep -o 'process [0-9]*' | tail -1 | tr -dc 0-9)
                    while stat source > /dev/null 2>&1; do :; done
                done >&2
                "$0" mount "$@" source
                echo
            )
        "$0" umount source
        grep -c "$PWD/source " /proc/self/mountinfo || true"#;
    let run = world.command("unshare".as_ref()).args(["--mount", "bash", "-euc", script]);
    let run = run.args([world.program("gate")]).args(or_by_force());
    assert_eq!(run.run().success(), "text1\n0\n");
}

/// N15: the bare directory is looked at by a descriptor of before. Nothing may be written through
/// these views, so what is found in it has gone past them.
#[test]
fn n15_in_place_views_let_nothing_through_dead_or_while_they_are_replaced() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = with_broker();
    let source = world.source();
    world.seed("f", "text");
    let bare = Bare::open(&source);
    world.mount(&source, &source, ["--force", "--read-only"]);
    let writers = Writers::start(&world, &source);
    for _ in 0..gate_tests::scaled(10, 100) {
        kill_server(&world, &source);
        writers.await_tries("it is tried to write to the dead view");
        assert_eq!(bare.names(), ["f"]);
        if !mounts_beneath() {
            assert!(mount(&world, &source, &["--read-only"]).contains("bare for a moment"));
            break;
        }
        let tried = writers.tries_of_all();
        let former = world.mount_anew(&source, ["--read-only"]);
        assert!(writers.tries_of_all() > tried, "it is tried while the dead view is replaced");
        assert_ne!(former.finish(SOON).code, Some(0));
        let tried = writers.tries_of_all();
        let living = world.mount_anew(&source, ["--read-only", "--replace"]);
        assert!(writers.tries_of_all() > tried, "it is tried while the living view is replaced");
        assert_eq!(living.finish(SOON).code, Some(0));
        assert_eq!(kernel::mounts_below(&source).len(), 1, "the former two are gone");
        assert_eq!(bare.names(), ["f"]);
    }
    kill_server(&world, &source);
    writers.await_tries("it is tried to write to the dead view");
    assert_eq!(bare.names(), ["f"]);
    assert_eq!(writers.end(), [""; 0], "nobody was told that it had written");
    world.bury(&source);
    assert_eq!(world.source_text("f"), "text");
}

/// N15: all that somebody was told to have written is there, and nothing comes while the view is dead.
#[test]
fn n15_what_is_written_in_place_goes_through_a_living_view_or_nowhere() {
    for standing in [Standing::Runner, Standing::OrdinaryUser] {
        let mut world = World::bare_of(standing);
        world.start_broker([""; 0]);
        let source = world.source();
        world.seed("f", "");
        let bare = Bare::open(&source);
        world.mount(&source, &source, ["--force"]);
        let writers = Writers::start(&world, &source);
        // Who may not put one view beneath another takes the dead one away first.
        let seamless = standing == Standing::Runner && mounts_beneath();
        for _ in 0..gate_tests::scaled(2, 20) {
            let written = bare.names().len();
            wait_until(SOON, "more is written", || bare.names().len() > written + 5);
            kill_server(&world, &source);
            let left = (bare.names(), bare.text("f"));
            writers.await_tries("it is tried to write to the dead view");
            assert_is_dead(&world, &source);
            assert_eq!((bare.names(), bare.text("f")), left);
            let former = world.mount_anew(&source, (!seamless).then_some("--force"));
            assert_ne!(former.finish(SOON).code, Some(0));
        }
        let written = bare.names().len();
        wait_until(SOON, "more is written", || bare.names().len() > written + 5);
        let told = writers.end();
        let there = bare.names();
        let lost: Vec<_> = told.iter().filter(|name| !there.contains(name)).collect();
        assert!(told.len() > 10 && lost.is_empty(), "{lost:?} of {}", told.len());
    }
}

/// An upgrade, to a release that lies elsewhere: who has files open goes on by the old view, and who
/// comes meets the new one. Each write is told to have succeeded, and is there.
#[test]
fn a_living_view_is_replaced_under_writers_who_lose_nothing() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = with_broker();
    let source = world.source();
    world.seed("f", "");
    world.seed("held", "");
    world.mount(&source, &source, [""; 0]);
    if !mounts_beneath() {
        return assert_makes_no_way(&world, &source);
    }
    let mut holder = world.actor(world.home());
    let fd = holder.open("w", source.join("held"));
    let loops = "i=0; while [ ! -e stop ]; do
            i=$((i + 1)); echo $0 $i >> source/f; echo $0 $i > source/f$0.$i
        done; echo $i";
    let writers: Vec<_> =
        ["a", "b"].map(|name| world.script(world.home(), loops).args([name]).start()).into();
    let releases = [world.home().join("bin/gate"), world.program("gate")];
    fs::copy(&releases[1], &releases[0]).unwrap();
    let mut former = Vec::new();
    for release in releases.iter().cycle().take(gate_tests::scaled(5, 50)) {
        let written = fs::read_dir(&source).unwrap().count();
        wait_until(SOON, "more is written", || {
            fs::read_dir(&source).unwrap().count() > written + 5
        });
        former.push(world.mount_anew_by(release, &source, ["--replace"]));
    }
    // Turns are taken across both views: one broker decides.
    let mut other = world.actor(world.home());
    other.tell(["open".as_ref(), "w".as_ref(), source.join("held").as_os_str()]);
    world.await_waiting("held", 1);
    holder.write(fd, "old").unwrap();
    holder.close(fd);
    let fd = other.opened();
    assert_eq!(other.read(fd, 9), Err(rustix::io::Errno::BADF), "it is open to write");
    drop((holder, other));
    fs::write(world.home().join("stop"), "").unwrap();
    let mut lines = 0;
    for writer in writers {
        let outcome = writer.finish(SOON);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome}");
        lines += outcome.stdout.trim().parse::<usize>().unwrap();
    }
    assert_eq!(world.source_text("f").lines().collect::<BTreeSet<_>>().len(), lines);
    assert_eq!(names(&source).len(), lines + 2);
    assert_eq!(world.source_text("held"), "old");
    for server in former {
        assert_eq!(server.finish(SOON).code, Some(0), "the old view ends with its last user");
    }
}

/// Their working directory is at no path any more.
#[test]
fn who_works_in_a_view_that_was_replaced_finds_the_new_one() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = with_broker();
    let source = world.source();
    world.seed("d/f", "text");
    world.mount(&source, &source, [""; 0]);
    if !mounts_beneath() {
        return assert_makes_no_way(&world, &source);
    }
    let mut actor = world.actor(&source.join("d"));
    actor.ask(["stat", "f"]).unwrap();
    let former = world.mount_anew(&source, ["--replace"]);
    let gate = world.program("gate").display().to_string();
    let script = format!("{gate} hold f new -- {gate} why f; {gate} run --view private -- pwd");
    let said = actor.ask(["capture", "bash", "-euc", &script]).unwrap();
    assert!(said.contains("holds d/f"), "{said}");
    assert!(said.ends_with(&format!("{}\\n", source.join("d").display())), "{said}");
    drop(actor);
    assert_eq!(former.finish(SOON).code, Some(0));
}

/// N15: who may not mount beneath is told that the directory would be bare for a moment.
#[test]
fn an_ordinary_user_replaces_a_dead_view_only_by_force() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let source = world.source();
    let bare = Bare::open(&source);
    world.mount(&source, &source, ["--force"]);
    world.script(&source, "echo text > f").run().success();
    kill_server(&world, &source);
    let tries =
        "for i in {1..100}; do ! echo x > source/w$i; ! mkdir source/d$i; done 2> /dev/null";
    world.script(world.home(), tries).run().success();
    assert_is_dead(&world, &source);
    assert_eq!(bare.names(), ["f"]);
    let refusal = mount(&world, &source, &[]);
    assert!(refusal.contains("bare for a moment"), "{refusal}");
    // Who starts it by `gate mount start` has no flag for that.
    let source_shown = source.display();
    assert!(refusal.contains(&format!("`gate umount {source_shown}`")), "{refusal}");
    assert!(refusal.contains(&format!("`gate mount --force {source_shown} ")), "{refusal}");
    let former = world.mount_anew(&source, ["--force"]);
    assert_ne!(former.finish(SOON).code, Some(0));
    assert!(world.server_of(&source).so_far().contains("is bare until"));
    assert_eq!(world.script(&source, "cat f").run().success(), "text\n");
    assert_eq!(kernel::mounts_below(&source).len(), 1);
    let refusal = mount(&world, &source, &["--replace"]);
    assert!(refusal.contains("cannot make way"), "{refusal}");
}

/// The kernel does not make mounts with longer names; they cannot be placed beneath others then.
#[test]
fn a_dead_view_of_a_very_long_path_is_replaced_only_by_force() {
    let mut world = with_broker();
    let deep = world.source().join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    world.mount(&deep, &deep, [""; 0]);
    kill_server(&world, &deep);
    let refusal = mount(&world, &deep, &[]);
    assert!(refusal.contains("bare for a moment"), "{refusal}");
    assert_ne!(world.mount_anew(&deep, ["--force"]).finish(SOON).code, Some(0));
    assert_eq!(kernel::mounts_below(&deep).len(), 1);
}

/// The bare directory, by a descriptor that was taken before anything lay over it.
struct Bare(File);

impl Bare {
    fn open(dir: &Path) -> Bare {
        Bare(File::open(dir).unwrap())
    }

    fn names(&self) -> Vec<String> {
        names(&self.path())
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

#[track_caller]
fn assert_makes_no_way(world: &World, dir: &Path) {
    let refusal = mount(world, dir, &["--replace"]);
    assert!(refusal.contains("cannot make way") && refusal.contains("gate umount"), "{refusal}");
}

/// Whatever is asked of a dead view is answered by what it is, but for attributes that the kernel was
/// told a moment ago.
#[track_caller]
fn assert_is_dead(world: &World, dir: &Path) {
    let mut actor = world.actor(world.home());
    let path = |name: &str| dir.join(name).into_os_string();
    for words in [
        &["open".into(), "r".into(), path("f")][..],
        &["open".into(), "rw".into(), path("f")],
        &["open".into(), "w+!".into(), path("new")],
        &["mkdir".into(), path("new")],
        &["list".into(), path("")],
    ] {
        assert_eq!(actor.ask(words), Err(Errno::NOTCONN), "{words:?}");
    }
    for name in ["", "f"] {
        wait_until(SOON, "what it looks like is forgotten", || {
            actor.ask(["stat".into(), path(name)]) == Err(Errno::NOTCONN)
        });
    }
}

/// They make files and directories, under new names each time, and append to `f`, whatever comes of it.
struct Writers {
    running: Vec<Running>,
    home: PathBuf,
}

impl Writers {
    const NAMES: [&str; 2] = ["a", "b"];

    fn start(world: &World, dir: &Path) -> Writers {
        let script = "set +e; i=0; exec 2> /dev/null
            while :; do
                i=$((i + 1))
                if echo x > $0/w$1.$i; then echo w$1.$i >> told$1; fi
                if mkdir $0/d$1.$i; then echo d$1.$i >> told$1; fi
                echo x >> $0/f
                printf . >> tries$1
            done";
        let start =
            |name: &&str| world.script(world.home(), script).args([dir]).args([name]).start();
        Writers { running: Self::NAMES.iter().map(start).collect(), home: world.home().to_owned() }
    }

    /// Returns how often each has tried all of it.
    fn tries(&self) -> [usize; 2] {
        Self::NAMES.map(|name| self.wrote(&format!("tries{name}")).len())
    }

    fn tries_of_all(&self) -> usize {
        self.tries().iter().sum()
    }

    /// Waits until each has begun and ended a round of them.
    #[track_caller]
    fn await_tries(&self, what: &str) {
        let before = self.tries();
        wait_until(SOON, what, || {
            self.tries().iter().zip(&before).all(|(tries, before)| *tries > before + 5)
        });
    }

    /// Ends them, and returns the names that they were told to have made.
    fn end(mut self) -> Vec<String> {
        for writer in self.running.drain(..) {
            writer.signal(Signal::KILL);
            let _ = writer.finish(SOON);
        }
        let told = Self::NAMES.map(|name| self.wrote(&format!("told{name}")));
        told.iter().flat_map(|told| told.lines()).map(str::to_owned).collect()
    }

    fn wrote(&self, name: &str) -> String {
        fs::read_to_string(self.home.join(name)).unwrap_or_default()
    }
}
