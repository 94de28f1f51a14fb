//! Who watches in a view (inotify) hears of what is done in it, in other views and beside.

mod differs;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gate_tests::wait::{SOON, try_wait_for, wait_until};
use gate_tests::{Actor, World};
use rustix::process::Signal;

/// A flood takes its time.
const LONG: Duration = Duration::from_secs(60);

/// A view, another one of its source, and who watches in that one.
struct Watched {
    watcher: Actor,
    other: PathBuf,
    world: World,
}

impl Watched {
    fn new() -> Watched {
        Watched::in_world(World::new())
    }

    fn in_world(mut world: World) -> Watched {
        let other = world.home().join("other");
        world.script(world.home(), "mkdir other").run().success();
        world.mount(&world.source(), &other, [""; 0]);
        let watcher = watcher(&world, &other);
        Watched { watcher, other, world }
    }

    fn heard_until(&mut self, end: &str) -> Vec<String> {
        heard_until(&mut self.watcher, end)
    }

    /// Returns all that is heard until now.
    fn heard(&mut self) -> Vec<String> {
        let mark = self.world.source().join("mark");
        File::create(&mark).unwrap();
        let heard = self.heard_until("create:mark");
        fs::remove_file(&mark).unwrap();
        assert_eq!(self.heard_until("delete:mark"), [""; 0]);
        heard
    }
}

fn watcher(world: &World, path: &Path) -> Actor {
    let mut watcher = world.actor(world.home());
    watcher.ask(["watch".as_ref(), path.as_os_str()]).unwrap();
    watcher
}

/// Returns what is heard before that.
#[track_caller]
fn heard_until(watcher: &mut Actor, end: &str) -> Vec<String> {
    let mut heard: Vec<String> = Vec::new();
    let ended = try_wait_for(SOON, || {
        let more = watcher.ask(["heard"]).unwrap();
        heard.extend(more.split_terminator(' ').map(str::to_owned));
        heard.iter().any(|event| event == end).then_some(())
    });
    assert!(ended.is_some(), "no {end} in {heard:?}");
    assert_eq!(heard.pop().as_deref(), Some(end));
    heard
}

fn write_to(path: &Path) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"text").unwrap();
}

/// Does one thing of each kind that lasts, and returns what is to be heard of it.
fn do_to_names(dir: &Path) -> Vec<&'static str> {
    let path = |name: &str| dir.join(name);
    File::create_new(path("f")).unwrap();
    fs::rename(path("f"), path("g")).unwrap();
    fs::create_dir(path("d")).unwrap();
    fs::rename(path("d"), path("e")).unwrap();
    std::os::unix::fs::symlink("g", path("s")).unwrap();
    fs::hard_link(path("g"), path("h")).unwrap();
    fs::rename(path("h"), path("s")).unwrap();
    fs::remove_file(path("s")).unwrap();
    fs::remove_file(path("g")).unwrap();
    fs::remove_dir(path("e")).unwrap();
    let made = ["create:f", "from:f", "to:g", "create:d/", "from:d/", "to:e/", "create:s"];
    [&made[..], &["create:h", "from:h", "to:s", "delete:s", "delete:g", "delete:e/"]].concat()
}

fn protect(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o640)).unwrap();
}

#[test]
fn watchers_hear_once_of_names_that_come_and_go_here_elsewhere_and_beside() {
    let mut watched = Watched::new();
    for dir in [watched.world.view(), watched.world.source(), watched.other.clone()] {
        let done = do_to_names(&dir);
        assert_eq!(watched.heard(), done, "{}", dir.display());
        assert!(fs::read_dir(&watched.other).unwrap().next().is_none());
    }
}

#[test]
fn watchers_hear_of_the_content_the_attributes_and_the_end_of_a_file() {
    let mut watched = Watched::new();
    for dir in [watched.world.view(), watched.world.source(), watched.other.clone()] {
        watched.world.seed("f", "old");
        watched.heard();
        let file = watched.other.join("f");
        let mut of_file = watcher(&watched.world, &file);
        for (act, told) in [(write_to as fn(&Path), "modify:"), (protect, "attrib:")] {
            act(&dir.join("f"));
            watched.heard_until(&format!("{told}f"));
            // A file that is watched itself has no name.
            heard_until(&mut of_file, told);
        }
        let twice: Vec<String> = watched.heard();
        assert!(twice.is_empty(), "{twice:?} was heard twice");
        assert_eq!(fs::read_to_string(&file).unwrap(), "oldtext");
        fs::remove_file(dir.join("f")).unwrap();
        heard_until(&mut of_file, "end:");
        watched.heard_until("delete:f");
    }
}

/// What is done here and elsewhere in turns is told apart. One process does both, which does not wait
/// for itself: the next change may come before the view has heard that the file was closed.
#[test]
fn watchers_hear_of_each_of_two_views_that_change_one_file_in_turns() {
    let mut watched = Watched::new();
    watched.world.seed("f", "");
    watched.heard();
    let dirs = [watched.other.clone(), watched.world.view(), watched.world.source()];
    for _ in 0..10 {
        for dir in &dirs {
            write_to(&dir.join("f"));
            assert_eq!(watched.heard(), ["modify:f"], "{}", dir.display());
        }
    }
}

#[test]
fn watchers_hear_of_what_is_written_elsewhere_while_the_file_is_open_here() {
    let mut watched = Watched::new();
    // The first is gated; the other is not, and the kernel itself writes it.
    for name in ["f", "f.log"] {
        watched.world.seed(name, "");
        watched.heard();
        let told = format!("modify:{name}");
        let mut here = OpenOptions::new().append(true).open(watched.other.join(name)).unwrap();
        for _ in 0..10 {
            here.write_all(b"text").unwrap();
            let heard = watched.heard();
            assert!(heard == [&*told] || name == "f.log" && heard.contains(&told), "{heard:?}");
            for dir in [watched.world.view(), watched.world.source()] {
                write_to(&dir.join(name));
                assert_eq!(watched.heard(), [&*told], "{}", dir.display());
            }
        }
    }
}

/// A watcher knows from what it hears which names there are.
#[test]
fn watchers_hear_of_the_last_of_a_thousand_changes() {
    let mut watched = Watched::new();
    let [view, source] = [watched.world.view(), watched.world.source()];
    std::thread::scope(|scope| {
        for (dir, mark) in [(&view, "v"), (&source, "s")] {
            scope.spawn(move || {
                for number in 0..250 {
                    let path = |stem: &str| dir.join(format!("{stem}{mark}{number}"));
                    fs::write(path("tmp"), "text").unwrap();
                    fs::rename(path("tmp"), path("")).unwrap();
                    if number % 3 == 0 {
                        fs::remove_file(path("")).unwrap();
                    }
                }
            });
        }
    });
    File::create(source.join("end")).unwrap();
    let mut heard = BTreeSet::new();
    wait_until(LONG, "the end is heard", || {
        for event in watched.watcher.ask(["heard"]).unwrap().split_terminator(' ') {
            match event.split_once(':').unwrap() {
                ("create" | "to", name) => assert!(heard.insert(name.to_owned()), "{event}"),
                ("delete" | "from", name) => assert!(heard.remove(name), "{event}"),
                _ => {}
            }
        }
        heard.contains("end")
    });
    assert_eq!(heard, names(&source));
    assert_eq!(heard, names(&watched.other));
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What is echoed is a stand-in: what really bears the name by then is not touched.
#[test]
fn directories_that_are_made_and_moved_elsewhere_can_be_worked_in_at_once() {
    let mut watched = Watched::new();
    let source = watched.world.source();
    for number in 0..20 {
        for name in ["d", "e"] {
            fs::create_dir(source.join(name)).unwrap();
        }
        fs::remove_dir(source.join("d")).unwrap();
        fs::rename(source.join("e"), source.join("d")).unwrap();
        let inside = watched.other.join("d/in");
        wait_until(SOON, "it is seen", || fs::create_dir(&inside).is_ok());
        let mut guest = watched.world.actor(&inside);
        fs::rename(source.join("d"), source.join(number.to_string())).unwrap();
        watched.heard_until(&format!("to:{number}/"));
        let path = watched.other.join(format!("{number}/in"));
        wait_until(SOON, "who works there knows where that is", || {
            guest.ask(["capture", "/bin/pwd", "-P"]) == Ok(format!("{}\\n", path.display()))
        });
        guest.leave();
        guest.end(SOON);
    }
}

/// Makes changes for as long as something is done.
fn while_busy(dir: &Path, act: impl FnOnce()) {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        scope.spawn(|| {
            for number in 0.. {
                let path = dir.join(format!("busy{}", number % 100));
                match path.exists() {
                    true => fs::remove_file(path).unwrap(),
                    false => fs::write(path, "text").unwrap(),
                }
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        act();
    });
}

#[test]
fn a_view_that_tells_its_watchers_of_others_can_be_unmounted_at_any_moment() {
    for world in [World::new(), ordinary()] {
        let mut watched = Watched::in_world(world);
        let source = watched.world.source();
        while_busy(&source, || {
            for _ in 0..10 {
                watched.heard_until_any();
                watched.world.umount(&watched.other);
                watched.world.mount(&source, &watched.other, [""; 0]);
                watched.watcher = watcher(&watched.world, &watched.other);
            }
        });
    }
}

#[test]
fn a_view_that_dies_while_it_tells_its_watchers_of_others_is_dead_all_the_same() {
    for world in [World::new(), ordinary()] {
        let mut watched = Watched::in_world(world);
        let source = watched.world.source();
        while_busy(&source, || {
            for _ in 0..10 {
                watched.heard_until_any();
                watched.world.server_of(&watched.other).signal(Signal::KILL);
                let inside = watched.other.join("busy0");
                wait_until(SOON, "it is dead", || {
                    watched.watcher.ask(["stat".as_ref(), inside.as_os_str()])
                        == Err(rustix::io::Errno::NOTCONN)
                });
                watched.world.bury(&watched.other);
                watched.world.mount(&source, &watched.other, [""; 0]);
                watched.watcher = watcher(&watched.world, &watched.other);
            }
        });
    }
}

impl Watched {
    fn heard_until_any(&mut self) {
        let heard = || !self.watcher.ask(["heard"]).unwrap().is_empty();
        wait_until(SOON, "something is heard", heard);
    }
}

/// A world in which an ordinary user mounts, and root works beside.
fn ordinary() -> World {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    world
}

#[test]
fn watchers_in_the_view_of_an_ordinary_user_hear_of_what_is_done_elsewhere() {
    let mut watched = Watched::in_world(ordinary());
    let source = watched.world.source();
    let done = "echo > f; mv f g; mkdir d; mv d e; rm g; rmdir e";
    watched.world.script(&source, done).run().success();
    let expected = ["create:f", "from:f", "to:g", "create:d/", "from:d/", "to:e/"];
    watched.world.script(&source, "mkdir mark").run().success();
    let heard = watched.heard_until("create:mark/");
    let lasting: Vec<&str> =
        heard.iter().map(String::as_str).filter(|event| *event != "modify:f").collect();
    assert_eq!(lasting, [&expected[..], &["delete:g", "delete:e/"]].concat());
    watched.world.script(&source, "chmod 700 mark").run().success();
    watched.heard_until("attrib:mark/");
    watched.world.script(&source, ": > file").run().success();
    watched.heard_until("create:file");
    watched.world.script(&source, "echo >> file").run().success();
    watched.heard_until("modify:file");
}

#[test]
fn watchers_in_private_views_hear_of_what_is_done_elsewhere() {
    for mut world in [World::apart(), World::bare_of_ordinary_user()] {
        world.start_broker([""; 0]);
        let source = world.source();
        let gate = world.program("gate").into_os_string();
        let words = ["run", "--view", "private", "--agent", "ada", "--in"].map(OsString::from);
        let words = [gate].into_iter().chain(words).chain([source.clone().into(), "--".into()]);
        let mut ada = world.actor_by(words, world.home());
        ada.ask(["watch".as_ref(), source.as_os_str()]).unwrap();
        world.script(&source, "mkdir d; echo > f; rm f").run().success();
        let heard = heard_until(&mut ada, "delete:f");
        assert!(heard.starts_with(&["create:d/".to_owned(), "create:f".to_owned()]), "{heard:?}");
        ada.ask(["mkdir", "own", "755"]).unwrap();
        world.script(&source, "mkdir end").run().success();
        assert_eq!(heard_until(&mut ada, "create:end/"), ["create:own/"]);
        ada.leave();
        ada.end(SOON);
    }
}

/// Each call of a view in its own mount is logged.
#[test]
fn nothing_is_called_where_nobody_watches() {
    let mut world = World::bare();
    world.set_env("GATE_LOG", "gate_view::echo=debug");
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    fs::create_dir(view.join("watched")).unwrap();
    fs::create_dir(view.join("d")).unwrap();
    let mut watcher = watcher(&world, &view.join("watched"));
    do_to_names(&source.join("d"));
    File::create(source.join("watched/f")).unwrap();
    heard_until(&mut watcher, "create:f");
    let said = world.server_of(&view).so_far();
    let called: Vec<&str> = said.lines().filter(|line| line.contains("is echoed")).collect();
    assert_eq!(called.len(), 1 + 1 + 1, "a proof, a lookup and the call itself: {called:#?}");
}
