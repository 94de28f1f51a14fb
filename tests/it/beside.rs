//! What others change in the source, beside the view, shows in the view.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use gate_tests::World;
use gate_tests::wait::{SOON, wait_until};

/// What a program that looks at a name is told.
fn look(path: &Path) -> Option<(u64, u32, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.ino(), metadata.mode(), metadata.size()))
}

/// Looks at names in the view, lets the source change, and waits for the view to show that. The
/// kernel may keep what it was told for longer than this waits.
fn check(names: &[&str], change: impl FnOnce(&Path)) {
    let world = World::new();
    fs::create_dir_all(world.source().join("d/e")).unwrap();
    for name in ["f", "d/f", "d/e/f"] {
        world.seed(name, "old");
    }
    let [source, view] = [world.source(), world.view()];
    for name in names {
        assert_eq!(look(&view.join(name)), look(&source.join(name)), "{name}");
    }
    change(&source);
    for name in names {
        wait_until(SOON, "the view shows it", || {
            look(&view.join(name)) == look(&source.join(name))
        });
    }
}

#[test]
fn what_others_write_shows() {
    check(&["f", "d/f"], |source| {
        fs::write(source.join("f"), "longer").unwrap();
        fs::write(source.join("d/f"), "longer").unwrap();
    });
}

#[test]
fn what_others_make_and_remove_shows() {
    check(&["new", "d/new", "f", "d/e/f"], |source| {
        fs::write(source.join("new"), "").unwrap();
        fs::create_dir(source.join("d/new")).unwrap();
        fs::remove_file(source.join("f")).unwrap();
        fs::remove_dir_all(source.join("d/e")).unwrap();
    });
}

#[test]
fn what_others_rename_shows() {
    check(&["f", "d/f", "d", "moved", "moved/e/f"], |source| {
        fs::rename(source.join("f"), source.join("d/f")).unwrap();
        fs::rename(source.join("d"), source.join("moved")).unwrap();
    });
}

#[test]
fn whose_mode_others_change_shows() {
    check(&["f", "d"], |source| {
        for name in ["f", "d"] {
            fs::set_permissions(source.join(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
    });
}

/// Elsewhere they may not be had at all, either.
#[test]
fn what_others_change_shows_where_nothing_can_be_watched() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.seed("f", "old");
    world.seed("gone", "");
    let script = r#"
        echo 0 > /proc/sys/user/max_inotify_watches
        "$0" mount --foreground source view >&2 &
        until [ -e view/f ]; do :; done
        [ ! -e view/new ]; [ -e view/gone ]; [ "$(stat -c %s view/f)" = 3 ]
        echo longer > source/f; echo > source/new; rm source/gone
        until [ "$(cat view/f)" = longer ] && [ -e view/new ] && [ ! -e view/gone ]; do :; done
        grep -h '^inotify' /proc/$!/fdinfo/* || true
        "$0" umount view
        wait $!"#;
    let apart = ["--user", "--map-root-user", "--mount", "--propagation", "private"];
    let run = world.command("unshare".as_ref()).args(apart).args(["bash", "-euc", script]);
    let watched = run.args([world.program("gate")]).within(SOON).run().success();
    assert_eq!(watched, "");
}

/// Nothing asks for what is mapped, and no watch tells of it.
#[test]
fn what_is_mapped_where_nothing_can_be_watched_shows_once_somebody_looks_at_the_file() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.seed("x.log", "old");
    let script = r#"
        echo 0 > /proc/sys/user/max_inotify_watches
        "$0" mount --foreground source view >&2 &
        until [ -e view/x.log ]; do :; done
        python3 -c "$1"
        "$0" umount view
        wait $!"#;
    let look = "import mmap, os
file = os.open('view/x.log', os.O_RDONLY)
mapped = mmap.mmap(file, 3, mmap.MAP_SHARED, mmap.PROT_READ)
assert mapped[:] == b'old'
with open('source/x.log', 'r+') as source:
    source.write('new')
assert mapped[:] == b'old', 'if this shows now, mend the docs'
while mapped[:] != b'new':
    os.stat('view/x.log')";
    let apart = ["--user", "--map-root-user", "--mount", "--propagation", "private"];
    let run = world.command("unshare".as_ref()).args(apart).args(["bash", "-euc", script]);
    run.args([world.program("gate")]).args([look]).within(SOON).run().success();
}

/// What is changed under a name that nobody looked at.
#[test]
fn what_others_write_under_another_name_shows() {
    let world = World::new();
    world.seed("f", "old");
    fs::create_dir(world.source().join("d")).unwrap();
    fs::hard_link(world.source().join("f"), world.source().join("d/g")).unwrap();
    assert_eq!(look(&world.view().join("f")), look(&world.source().join("f")));
    fs::write(world.source().join("d/g"), "longer").unwrap();
    wait_until(SOON, "the view shows it", || {
        look(&world.view().join("f")).unwrap().2 == "longer".len() as u64
    });
}

/// More changes than the kernel remembers.
#[test]
fn a_flood_of_changes_shows() {
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: usize = most.trim().parse().unwrap();
    let world = World::new();
    world.seed("f", "old");
    fs::create_dir(world.source().join("d")).unwrap();
    let [source, view] = [world.source(), world.view()];
    assert_eq!(look(&view.join("f")), look(&source.join("f")));
    assert_eq!(look(&view.join("d/0")), None);
    world.server_of(&view).stop();
    for number in 0..=most / 2 {
        let path = source.join(format!("d/{number}"));
        fs::write(&path, "").unwrap();
    }
    fs::write(source.join("f"), "longer").unwrap();
    world.server_of(&view).signal(rustix::process::Signal::CONT);
    for name in ["f", "d/0"] {
        wait_until(SOON, "the view shows it", || {
            look(&view.join(name)) == look(&source.join(name))
        });
    }
}

/// A program that follows a file sees what is appended beside the view.
#[test]
fn what_others_append_is_read_by_who_has_the_file_open() {
    let world = World::new();
    world.seed("x.log", "one");
    let mut follower = world.actor(&world.view());
    let fd = follower.open("r", "x.log");
    assert_eq!(follower.read(fd, 99).unwrap(), "one");
    fs::write(world.source().join("x.log"), "one two").unwrap();
    let mut read = String::new();
    wait_until(SOON, "it is read", || {
        read += &follower.read(fd, 99).unwrap();
        read == " two"
    });
}
