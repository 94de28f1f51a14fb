//! Sources that overlap: one truth, or a refusal that says why.

use std::fs;
use std::path::{Path, PathBuf};

use gate_tests::World;

#[test]
fn a_source_that_is_mounted_elsewhere_too_is_one_source() {
    let mut world = World::new();
    world.seed("f", "");
    let bind = Bind::of(&world, "source");
    let second = place(&world, "second");
    world.mount(&bind.point, &second, [""; 0]);
    let mut holder = world.actor_under_hold(&world.view(), ["."]);
    let mut other = world.actor(&second);
    other.tell(["mkdir", "d"]);
    world.await_waiting("d", 1);
    holder.leave();
    assert_eq!(other.answer(), Ok(String::new()));
}

/// Locks on paths would not meet: the one does not see the directories above the other.
#[test]
fn a_part_of_a_source_that_is_mounted_elsewhere_is_refused_whichever_comes_first() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.seed("d/f", "");
    let bind = Bind::of(&world, "source/d");
    let [source, view] = [world.source(), world.view()];
    for [first, then] in [[&source, &bind.point], [&bind.point, &source]] {
        world.mount(first, &view, [""; 0]);
        let refusal = refused(&world, then);
        assert!(refusal.contains("by another path"), "{refusal}");
        world.umount(&view);
    }
    let inner = place(&world, "inner");
    world.mount(&source, &view, [""; 0]);
    world.mount(&source.join("d"), &inner, [""; 0]);
    let [mut one, mut two] = [world.actor(&view), world.actor(&inner)];
    one.open("w", "d/f");
    two.tell(["open", "r", "f"]);
    world.await_waiting("d/f", 1);
}

#[test]
fn brokers_meet_where_a_part_of_a_source_is_mounted_elsewhere() {
    let world = World::new();
    world.seed("d/f", "");
    let bind = Bind::of(&world, "source/d");
    let mut other = World::bare();
    other.start_broker([""; 0]);
    let named = |refusal: &str| refusal.contains(&format!("process {}", world.broker_pid()));
    for source in [&bind.point, &world.source().join("d"), &world.source()] {
        let refusal = refused(&other, source);
        assert!(named(&refusal), "{}: {refusal}", source.display());
    }
}

#[test]
fn a_broker_of_another_user_is_named() {
    let world = World::new();
    let mut other = World::bare_of_ordinary_user();
    other.start_broker([""; 0]);
    world.seed("d/f", "");
    for source in [world.source(), world.source().join("d")] {
        let refusal = refused(&other, &source);
        assert!(refusal.contains(&format!("process {}", world.broker_pid())), "{refusal}");
    }
}

/// A bind mount at a world's twin; gone at its end.
struct Bind {
    point: PathBuf,
}

impl Bind {
    fn of(world: &World, directory: &str) -> Bind {
        assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
        let script = format!("mount --bind {directory} twin; mount --make-private twin");
        world.script(world.home(), &script).run().success();
        Bind { point: world.twin() }
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::DETACH);
    }
}

fn place(world: &World, name: &str) -> PathBuf {
    let place = world.home().join(name);
    fs::create_dir(&place).unwrap();
    place
}

#[track_caller]
fn refused(world: &World, source: &Path) -> String {
    let place = world.home().join("refused");
    fs::create_dir_all(&place).unwrap();
    let words = ["mount".as_ref(), "--foreground".as_ref(), source.as_os_str(), place.as_ref()];
    world.gate(words).run().refusal()
}
