//! Several views of one source: what is changed through one shows in the others.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gate_tests::wait::{SOON, wait_until};
use gate_tests::{Actor, World, kernel};
use rustix::process::Signal;

/// How many views one source has in a crowd.
const CROWD: usize = 20;

/// What a program that looks at a name is told.
fn look(path: &Path) -> Option<(u64, u32, u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.ino(), found.mode(), found.size(), found.nlink()))
}

fn names(directory: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = fs::read_dir(directory)
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// Makes further views of the source.
fn more_views(world: &mut World, how_many: usize) -> Vec<PathBuf> {
    let source = world.source();
    let points = (0..how_many).map(|number| world.home().join(format!("view-{number}")));
    let points: Vec<PathBuf> = points.collect();
    for point in &points {
        fs::create_dir(point).unwrap();
        world.mount(&source, point, [""; 0]);
    }
    points
}

/// Makes two views of a source with one file, and somebody in each.
fn two_views_of(name: &str, text: &str) -> (World, PathBuf, [Actor; 2]) {
    let mut world = World::new();
    world.seed(name, text);
    let other = more_views(&mut world, 1).remove(0);
    let actors = [world.actor(&world.view()), world.actor(&other)];
    (world, other, actors)
}

/// Looks at names and lists directories in the other views, lets one view change something, and
/// waits for the others to show that. What they were told the kernel may keep for longer than this.
fn check(names_: &[&str], change: impl FnOnce(&Path)) {
    let mut world = World::new();
    fs::create_dir_all(world.source().join("d/e")).unwrap();
    fs::create_dir(world.source().join("other")).unwrap();
    for name in ["f", "g", "d/f", "d/e/f"] {
        world.seed(name, "old");
    }
    let others = more_views(&mut world, 2);
    let view = world.view();
    let agree = |other: &PathBuf, name: &str| {
        let [here, there] = [view.join(name), other.join(name)];
        look(&here) == look(&there) && names(&here) == names(&there)
    };
    for other in &others {
        assert!(names_.iter().all(|name| agree(other, name)));
    }
    change(&view);
    let source = world.source();
    for name in names_ {
        assert_eq!(look(&view.join(name)), look(&source.join(name)), "at once, where it was done");
        for other in &others {
            wait_until(SOON, "the other view shows it", || agree(other, name));
        }
    }
}

#[test]
fn what_is_made_through_one_view_shows_in_the_others() {
    check(&[".", "d", "new", "d/dir", "d/dir/in", "link", "hard", "f"], |view| {
        fs::write(view.join("new"), "text").unwrap();
        fs::create_dir(view.join("d/dir")).unwrap();
        fs::write(view.join("d/dir/in"), "text").unwrap();
        symlink("f", view.join("link")).unwrap();
        fs::hard_link(view.join("f"), view.join("hard")).unwrap();
    });
}

#[test]
fn what_is_removed_through_one_view_is_gone_from_the_others() {
    check(&[".", "f", "d", "d/f", "d/e", "d/e/f"], |view| {
        fs::remove_file(view.join("f")).unwrap();
        fs::remove_file(view.join("d/f")).unwrap();
        fs::remove_dir_all(view.join("d/e")).unwrap();
    });
}

#[test]
fn what_is_moved_through_one_view_is_moved_in_the_others() {
    let looked_at =
        [".", "f", "g", "d", "d/e", "d/e/f", "other", "other/e", "other/e/f", "d/moved"];
    check(&looked_at, |view| {
        fs::rename(view.join("f"), view.join("g")).unwrap();
        fs::rename(view.join("d/e"), view.join("other/e")).unwrap();
        fs::rename(view.join("g"), view.join("d/moved")).unwrap();
    });
}

#[test]
fn sizes_modes_and_times_that_one_view_changes_show_in_the_others() {
    check(&["f", "g", "d"], |view| {
        fs::write(view.join("f"), "longer").unwrap();
        fs::File::options().write(true).open(view.join("g")).unwrap().set_len(1).unwrap();
        fs::set_permissions(view.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
    });
}

/// An open file of a name that is not gated, whose pages the kernel keeps.
#[test]
fn what_one_view_writes_is_read_by_who_has_the_file_open_in_another() {
    let (_world, _, [mut writer, mut follower]) = two_views_of("x.log", "one");
    let fd = follower.open("r", "x.log");
    assert_eq!(follower.read(fd, 99).unwrap(), "one");
    for text in [" two", " three"] {
        writer.ask(["append", "x.log", text]).unwrap();
        let mut read = String::new();
        wait_until(SOON, "it is read", || {
            read += &follower.read(fd, 99).unwrap();
            read == text
        });
    }
    let again = writer.open("w", "x.log");
    writer.write(again, "ONE").unwrap();
    wait_until(SOON, "what was written over it is read", || {
        follower.on("seek", fd, &["0"]).unwrap();
        follower.read(fd, 3).unwrap() == "ONE"
    });
}

/// Nothing asks for what is mapped: the pages themselves must go.
#[test]
fn what_one_view_writes_is_loaded_through_a_mapping_in_another() {
    let (_world, _, [mut writer, mut reader]) = two_views_of("x.log", "a");
    let fd = reader.open("r", "x.log");
    assert_eq!(reader.on("mmap", fd, &["1"]), Ok("a".to_owned()));
    reader.close(fd);
    for text in ["b", "c"] {
        let fd = writer.open("w", "x.log");
        writer.write(fd, text).unwrap();
        writer.close(fd);
        wait_until(SOON, "it is loaded", || reader.ask(["load"]).unwrap() == text);
    }
    let fd = writer.open("rw", "x.log");
    writer.on("store", fd, &["d"]).unwrap();
    writer.close(fd);
    wait_until(SOON, "what was stored is loaded", || reader.ask(["load"]).unwrap() == "d");
}

/// The kernel stores into the source's own pages, and tells nobody.
#[test]
fn what_is_stored_in_a_mapping_that_stays_shows_elsewhere_when_it_is_closed_or_opened_anew_there() {
    let (world, other, [mut writer, mut reader]) = two_views_of("x.log", "a");
    let fd = reader.open("r", "x.log");
    assert_eq!(reader.on("mmap", fd, &["1"]), Ok("a".to_owned()));
    writer.ask(["at", "0", "open", "rw", "x.log"]).unwrap();
    writer.ask(["at", "0", "map", "sw", "1"]).unwrap();
    writer.ask(["at", "0", "store", "0", "1", "7"]).unwrap();
    for place in [world.view(), world.source()] {
        assert_eq!(fs::read_to_string(place.join("x.log")).unwrap(), "h", "there it shows at once");
    }
    writer.ask(["at", "0", "msync", "0", "1"]).unwrap();
    assert_eq!(reader.ask(["load"]), Ok("a".to_owned()), "if this shows now, mend the docs");
    assert_eq!(
        fs::read_to_string(other.join("x.log")).unwrap(),
        "h",
        "who opens it sees it as it is"
    );
    assert_eq!(reader.ask(["load"]), Ok("h".to_owned()));
    writer.ask(["at", "0", "store", "0", "1", "8"]).unwrap();
    writer.ask(["at", "0", "unmap"]).unwrap();
    writer.ask(["at", "0", "close"]).unwrap();
    wait_until(SOON, "it is loaded elsewhere", || reader.ask(["load"]).unwrap() == "i");
    // Within one time that the kernel gave it, as the page is not written back between.
    writer.ask(["at", "0", "open", "rw", "x.log"]).unwrap();
    writer.ask(["at", "0", "map", "sw", "1"]).unwrap();
    for (seed, text) in [("9", "j"), ("10", "k")] {
        writer.ask(["at", "0", "store", "0", "1", seed]).unwrap();
        assert_eq!(fs::read_to_string(other.join("x.log")).unwrap(), text);
        assert_eq!(reader.ask(["load"]).unwrap(), text);
    }
}

/// One process, which does not wait for itself. Its gated file is read and written past the pages of
/// the mapping, which nobody may take from under who stores into it.
#[test]
fn what_is_mapped_to_be_written_in_two_views_is_loaded_once_it_is_opened_anew() {
    let mut world = World::new();
    world.seed("f", "a");
    let other = more_views(&mut world, 1).remove(0).join("f");
    let mut actor = world.actor(&world.view());
    let mapped = actor.open("rw", &other);
    assert_eq!(actor.on("mmap", mapped, &["1"]), Ok("a".to_owned()));
    let fd = actor.open("rw", "f");
    actor.on("store", fd, &["b"]).unwrap();
    actor.on("fsync", fd, &[]).unwrap();
    assert_eq!(actor.read(mapped, 1), Ok("b".to_owned()), "read, it shows at once");
    assert_eq!(actor.ask(["load"]), Ok("a".to_owned()), "if this shows now, mend the docs");
    actor.open("r", &other);
    assert_eq!(actor.ask(["load"]), Ok("b".to_owned()));
}

#[test]
fn twenty_views_of_one_source_agree_and_take_turns() {
    let mut world = World::new();
    world.seed("f", "");
    let views = more_views(&mut world, CROWD - 1);
    let mut actors: Vec<_> = views.iter().map(|view| world.actor(view)).collect();
    for (number, actor) in actors.iter_mut().enumerate() {
        assert!(actor.ask(["stat", "made"]).is_err());
        actor.tell(["repeat", "5", "append", "f", &format!("{number:02}")]);
    }
    for actor in &mut actors {
        assert_eq!(actor.answer(), Ok(String::new()));
    }
    assert_eq!(world.source_text("f").len(), 2 * 5 * (CROWD - 1));
    fs::create_dir(world.view().join("made")).unwrap();
    for actor in &mut actors {
        wait_until(SOON, "each view shows it", || actor.ask(["stat", "made"]).is_ok());
    }
}

/// N8: who copies a file goes by its size, and would cut off what was added.
#[test]
fn n8_who_opens_a_file_finds_all_of_it_however_late_the_kernel_hears_of_the_name() {
    let mut late = answered_late(["open", "r", "f"]);
    let fd = late.asker.opened();
    assert_eq!(late.asker.on("send", fd, &["99"]), Ok("7".to_owned()));
    assert_eq!(late.asker.on("fstat", fd, &[]), Ok("7".to_owned()));
    assert_eq!(late.asker.read(fd, 99), Ok(String::new()), "all of it was sent");
}

/// N8: the listing had it right, but what came before that was taken.
#[test]
fn n8_who_opens_a_file_finds_all_of_it_however_late_a_listing_was_passed_by_the_name() {
    let Late { world, view, mut asker } = answered_late(["stat", "f"]);
    asker.answer().unwrap();
    let changed = fs::metadata(world.source().join("f")).unwrap().modified().unwrap();
    wait_until(SOON, "the file is old", || is_old(changed));
    let mut reader = world.actor(&view);
    let fd = reader.open("r", "f");
    assert_eq!(reader.on("fstat", fd, &[]), Ok("7".to_owned()));
    assert_eq!(reader.read(fd, 99), Ok("one two".to_owned()));
}

/// N8: who sends or copies a file may do so without asking how long it is.
#[test]
fn n8_who_waited_for_a_writer_sends_all_of_what_it_wrote() {
    let (world, _, [mut writer, mut reader]) = two_views_of("f", "one");
    reader.ask(["stat", "f"]).unwrap();
    let fd = writer.open("wa", "f");
    reader.tell(["open", "r", "f"]);
    world.await_waiting("f", 1);
    writer.write(fd, " two").unwrap();
    writer.close(fd);
    let fd = reader.opened();
    assert_eq!(reader.on("send", fd, &["99"]), Ok("7".to_owned()));
}

#[test]
fn what_the_kernel_hears_late_of_a_name_is_soon_mended() {
    let mut late = answered_late(["stat", "f"]);
    late.asker.answer().unwrap();
    wait_until(SOON, "it shows", || late.asker.ask(["stat", "f"]) == Ok("7".to_owned()));
}

#[test]
fn who_opens_what_another_view_has_changed_has_not_read_it_yet() {
    let (world, _, [mut writer, mut reader]) = two_views_of("f", "one");
    reader.ask(["stat", "f"]).unwrap();
    writer.ask(["append", "f", " two"]).unwrap();
    let accessed = || fs::metadata(world.source().join("f")).unwrap().accessed().unwrap();
    let before = accessed();
    let fd = reader.open("r", "f");
    assert_eq!(accessed(), before);
    assert_eq!(reader.read(fd, 99), Ok("one two".to_owned()));
    assert!(accessed() > before, "times of access are kept here");
}

/// Somebody who heard late of `f` in another view.
struct Late {
    asker: Actor,
    view: PathBuf,
    world: World,
}

/// What has changed of late the kernel is told to ask for again and again.
fn is_old(changed: SystemTime) -> bool {
    changed.elapsed().is_ok_and(|age| age > Duration::from_secs(3))
}

/// Lets somebody in another view ask for `f`, which has "one" in it, and have no processor to take the
/// answer until " two" was added, the other view has heard of that, and somebody lists the directory.
fn answered_late<const N: usize>(words: [&str; N]) -> Late {
    let mut world = World::new();
    for name in ["f", "known", "seen"] {
        world.seed(name, "one");
    }
    let other = more_views(&mut world, 1).remove(0);
    let changed = fs::metadata(world.source().join("seen")).unwrap().modified().unwrap();
    wait_until(SOON, "the files are old", || is_old(changed));
    let [mut writer, mut lister] = [world.actor(&world.view()), world.actor(&other)];
    let mut asker = world.actor_by(["taskset", "-c", "0"].map(OsString::from), &other);
    asker.open("r", "known");
    let size = |name: &str| fs::metadata(other.join(name)).unwrap().size();
    assert_eq!(size("seen"), 3);
    let server = world.server_of(&other);
    server.stop();
    asker.tell(words);
    let asks = |pid| !kernel::is_in_call(pid, libc::SYS_read) && !kernel::is_runnable(pid);
    wait_until(SOON, "it asks for the name", || asks(asker.pid()));
    let script = "ulimit -t 5; echo on; while :; do :; done";
    let hog = ["-f", "1", "taskset", "-c", "0", "sh", "-c", script];
    let hog = world.command("chrt".as_ref()).args(hog).start();
    wait_until(SOON, "the processor is taken", || hog.so_far() == "on\n");
    server.signal(Signal::CONT);
    wait_until(SOON, "it was answered", || kernel::is_runnable(asker.pid()));
    for name in ["f", "seen"] {
        writer.ask(["append", name, " two"]).unwrap();
    }
    wait_until(SOON, "the other view has heard of it", || size("seen") == 7);
    lister.tell(["list", "."]);
    let lists = |pid| kernel::is_in_call(pid, libc::SYS_getdents64) && !kernel::is_runnable(pid);
    wait_until(SOON, "the listing has come to the name", || lists(lister.pid()));
    // Longer than a view looks for what it told too early.
    let changed = fs::metadata(world.source().join("seen")).unwrap().modified().unwrap();
    let is_late = || changed.elapsed().is_ok_and(|age| age > Duration::from_millis(600));
    wait_until(SOON, "it is late", is_late);
    hog.signal(Signal::KILL);
    let _ = hog.finish(SOON);
    lister.answer().unwrap();
    Late { asker, view: other, world }
}
