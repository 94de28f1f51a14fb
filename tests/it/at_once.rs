//! What several ask for in the same moment.

use gate_tests::run::USUAL;
use gate_tests::{World, kernel};

/// How often several try to be the first.
const ROUNDS: usize = 10;

/// One of them gates it; the others are told what they would be told a moment later.
#[test]
fn of_several_who_mount_one_directory_at_once_one_does() {
    for mut world in [World::bare(), World::bare_of_ordinary_user()] {
        world.start_broker([""; 0]);
        for place in [&["source"][..], &["source", "view"]] {
            for _ in 0..ROUNDS {
                let mounts = [(); 3].map(|()| world.gate(["mount"]).args(place).start());
                let outcomes = mounts.map(|mount| mount.finish(USUAL));
                let (done, refused): (Vec<_>, Vec<_>) =
                    outcomes.into_iter().partition(|outcome| outcome.code == Some(0));
                assert_eq!(done.len(), 1, "{done:?} {refused:?}");
                for outcome in refused {
                    assert_eq!(outcome.code, Some(2), "{outcome}");
                    assert!(outcome.clone().refusal().contains("gated already"), "{outcome}");
                }
                let mounted = kernel::mounts_below(world.home());
                assert_eq!(mounted.len(), 1, "{mounted:?}");
                world.gate(["umount"]).args(&place[place.len() - 1..]).run().success();
            }
        }
    }
}
