//! Locks between views of every kind: shared and private, of root and of an ordinary user.

use std::ffi::OsString;
use std::path::PathBuf;

use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel};
use rustix::io::Errno;

use super::{FILE, Locker, WAYS, Way, sleeps};

/// Where somebody works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    View,
    /// Another one that is shared.
    Second,
    /// One of this agent's own, over the source.
    Private(&'static str),
    Bare,
}

const PAIRS: [[Place; 2]; 7] = [
    [Place::View, Place::Second],
    [Place::View, Place::Bare],
    [Place::Bare, Place::View],
    [Place::Private("ada"), Place::Private("bob")],
    [Place::Private("ada"), Place::View],
    [Place::View, Place::Private("ada")],
    [Place::Private("ada"), Place::Bare],
];

#[test]
fn advisory_locks_exclude_across_views_of_every_kind() {
    for standing in [Standing::Runner, Standing::OrdinaryUser] {
        let world = scene(standing);
        for places in PAIRS {
            let [mut one, mut two] = places.map(|place| locker(&world, place));
            for way in WAYS {
                let what = format!("{standing:?} {way:?} {places:?}");
                assert_eq!(one.lock(way, "s"), Ok(()), "{what}");
                assert_eq!(two.lock(way, "s"), Ok(()), "{what}");
                assert_eq!(one.lock(way, "x"), Err(Errno::AGAIN), "{what}");
                // Who wants more than it has by flock(2) may lose what it had.
                let _ = two.lock(way, "u");
                let _ = one.lock(way, "u");
                assert_eq!(two.lock(way, "x"), Ok(()), "{what}");
                assert_eq!(one.lock(way, "s"), Err(Errno::AGAIN), "{what}");
                assert_eq!(two.lock(way, "u"), Ok(()), "{what}");
            }
            assert_eq!(one.bytes("x", 0, 10), Ok(()), "{places:?}");
            assert_eq!(two.bytes("x", 10, 10), Ok(()), "{places:?}");
            assert_eq!(two.bytes("x", 9, 1), Err(Errno::AGAIN), "{places:?}");
        }
    }
}

#[test]
fn who_waits_for_an_advisory_lock_of_another_view_gets_it_whatever_its_kind() {
    for standing in [Standing::Runner, Standing::OrdinaryUser] {
        let world = scene(standing);
        for places in PAIRS {
            let [mut one, mut two] = places.map(|place| locker(&world, place));
            for way in WAYS {
                assert_eq!(one.lock(way, "x"), Ok(()));
                wait_for_lock(&world, &mut two, way);
                assert_eq!(one.lock(way, "u"), Ok(()));
                let what = format!("{standing:?} {way:?} {places:?}");
                assert_eq!(two.actor.answer(), Ok(String::new()), "{what}");
                assert_eq!(one.lock(way, "x"), Err(Errno::AGAIN), "{what}");
                assert_eq!(two.lock(way, "u"), Ok(()), "{what}");
            }
        }
        // With a private view its locks end.
        let [mut one, mut two] = [Place::Private("ada"), Place::View].map(|at| locker(&world, at));
        assert_eq!(one.lock(Way::Flock, "x"), Ok(()));
        wait_for_lock(&world, &mut two, Way::Flock);
        one.actor.leave();
        one.actor.end(SOON);
        assert_eq!(two.actor.answer(), Ok(String::new()));
    }
}

fn scene(standing: Standing) -> World {
    let mut world = World::with_view_of(standing, [""; 0]);
    world.seed(FILE, "text");
    let [source, second] = [world.source(), second(&world)];
    std::fs::create_dir(&second).unwrap();
    world.hand_over(&second);
    world.mount(&source, &second, [""; 0]);
    world
}

fn second(world: &World) -> PathBuf {
    world.home().join("second")
}

fn locker(world: &World, place: Place) -> Locker {
    let mut actor = match place {
        Place::View => world.actor(&world.view()),
        Place::Second => world.actor(&second(world)),
        Place::Bare => world.actor(&world.source()),
        Place::Private(agent) => {
            let words = ["run", "--view", "private", "--agent", agent, "--in", "source", "--"];
            let gate = world.program("gate").into_os_string();
            let words = words.into_iter().map(OsString::from);
            world.actor_by(std::iter::once(gate).chain(words), world.home())
        }
    };
    let fd = actor.open("rw", FILE);
    Locker { actor, fd, servers: Vec::new() }
}

/// Lets it wait for a lock. In a private view it is a child of the one that was started.
fn wait_for_lock(world: &World, locker: &mut Locker, way: Way) {
    locker.tell_lock(way, "x");
    wait_until(SOON, "it waits", || {
        let mut all = kernel::processes_of(world.home()).into_iter();
        all.any(|(pid, line)| line.contains("actor") && sleeps(pid))
    });
}
