//! Where locks in a view differ from those on the bare directory.

use std::os::unix::fs::MetadataExt as _;

use gate_tests::wait::{SOON, wait_until};
use rustix::io::Errno;

use super::{FILE, Scene};

/// A view takes them for its processes, each by an open file of its own.
#[test]
fn locks_in_a_view_are_those_of_open_files_to_the_bare_directory() {
    let scene = Scene::new();
    let file = std::fs::metadata(scene.world.source().join(FILE)).unwrap();
    let mut one = scene.locker(&scene.world.view());
    assert_eq!(one.bytes("x", 3, 4), Ok(()));
    let of_file = format!(":{} 3 6", file.ino());
    wait_until(SOON, "the kernel shows it", || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let mut of_file = locks.lines().filter(|lock| lock.ends_with(&of_file));
        of_file.next().is_some_and(|lock| lock.contains("OFDLCK"))
    });
}

/// On the bare directory among processes only.
#[test]
fn circles_of_who_waits_for_locks_are_found_within_one_view_and_of_open_files_too() {
    let scene = Scene::new();
    let [view, bare] = [scene.world.view(), scene.world.source()];
    for (one, two, how, is_found) in [
        (&view, &view, "xow", true),
        (&view, &scene.second, "xow", false),
        (&view, &scene.second, "xw", false),
        (&bare, &bare, "xow", false),
    ] {
        let [mut one, mut two] = [scene.locker(one), scene.locker(two)];
        assert_eq!(one.bytes(how, 0, 1), Ok(()));
        assert_eq!(two.bytes(how, 1, 1), Ok(()));
        one.await_bytes(how, 1, 1);
        if is_found {
            assert_eq!(two.bytes(how, 0, 1), Err(Errno::DEADLK), "{how}");
        } else {
            two.await_bytes(how, 0, 1);
            assert!(one.actor.is_busy() && two.actor.is_busy(), "{how}");
        }
    }
}
