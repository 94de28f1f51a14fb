//! Sources that overlap: one truth, or a refusal that says why.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use gate_tests::wait::{SOON, wait_until};
use gate_tests::{Actor, World};
use rustix::io::Errno;

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

/// The server of the one would walk into the other, and wait there for who waits for it.
#[test]
fn no_view_lies_in_what_another_shows_whichever_comes_first() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.seed("d/f", "");
    let [source, view, inner] = [world.source(), world.view(), world.source().join("d")];
    world.mount(&source, &view, [""; 0]);
    let empty = world.source().join("empty");
    fs::create_dir(&empty).unwrap();
    for words in [vec![&inner], vec![&world.twin(), &empty]] {
        let words = words.into_iter().map(|path| path.as_os_str());
        let refusal = world.gate(["mount", "--foreground"]).args(words).run().refusal();
        let named = format!("the view {} shows what lies there", view.display());
        assert!(refusal.contains(&named), "{refusal}");
    }
    let hint = format!("work in {}", view.join("d").display());
    let refusal = world.gate(["mount".as_ref(), inner.as_os_str()]).run().refusal();
    assert!(refusal.contains(&hint), "{refusal}");
    world.umount(&view);
    world.mount(&inner, &inner, [""; 0]);
    assert!(refused(&world, &source).contains("there is a view in it"));
}

/// The private view is seen by its own processes alone: the server of the other walks past it.
#[test]
fn a_private_view_of_what_another_view_shows_takes_turns_with_it() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.seed("d/f", "");
    let [view, inner] = [world.view(), world.source().join("d")];
    world.mount(&world.source(), &view, [""; 0]);
    let mut ada = private_actor(&world, &inner);
    let mut other = world.actor(&view);
    let fd = ada.open("w", "f");
    other.tell(["open", "w", "d/f"]);
    world.await_waiting("d/f", 1);
    ada.close(fd);
    other.opened();
}

/// Its server is outside the namespace in which it is seen.
#[test]
fn a_view_is_not_mounted_into_what_a_private_view_shows() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.seed("d/f", "");
    let mut ada = private_actor(&world, &world.source());
    let mount = ["mount", "--foreground", "source/d"];
    let refusal = world.gate(mount).run().refusal();
    assert!(refusal.contains("the private view of ada shows what lies there"), "{refusal}");
    ada.open("w", "d/f");
}

/// However it came there, as from another mount namespace.
#[test]
fn a_view_does_not_walk_into_another() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    world.seed("d/f", "");
    let other = place(&world, "other");
    world.mount(&world.twin(), &other, [""; 0]);
    world.mount(&world.source(), &world.view(), [""; 0]);
    let mut actor = world.actor(&world.view());
    world.script(world.home(), "mount --bind other source/d").run().success();
    assert_eq!(actor.ask(["stat", "d/f"]), Err(Errno::XDEV));
    world.script(world.home(), "umount source/d").run().success();
    assert_eq!(actor.ask(["stat", "d/f"]), Ok("0".to_owned()));
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

/// Somebody else's directory that it lies in may be searched and not opened: a broker for that
/// one is not met.
#[test]
fn that_two_brokers_could_serve_a_source_is_said_at_the_mount_and_later() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let above = place(&world, "above");
    let source = above.join("source");
    fs::create_dir(&source).unwrap();
    world.hand_over(&source);
    let close = |mode| fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
    let gap = format!("{} cannot be locked against other brokers: Permission", above.display());
    for (mode, is_told) in [(0o755, false), (0o711, true)] {
        close(mode);
        let point = world.view();
        world.mount(&source, &point, [""; 0]);
        wait_until(SOON, "it is ready", || world.server_of(&point).so_far().contains("ready"));
        let status = world.gate(["status"]).run().success();
        let doctor = world.gate(["doctor", "view"]).run().stdout;
        for said in [world.server_of(&point).so_far(), status, doctor] {
            assert_eq!(said.contains(&gap), is_told, "{mode:o}: {said}");
        }
        world.umount(&point);
    }
}

/// Its own broker was down when the other took it.
#[test]
fn a_view_whose_source_another_broker_has_says_so_and_takes_turns_again_when_it_is_free() {
    let mut world = World::with_view(["--lease-ms", "1000"]);
    world.seed("f", "");
    let mut actor = world.actor(&world.view());
    world.kill_broker();
    let mut other = World::bare();
    other.start_broker([""; 0]);
    let point = other.view();
    other.mount(&world.source(), &point, [""; 0]);
    world.start_broker([""; 0]);
    let named = format!("is served by process {}", other.broker_pid());
    let why = || world.gate(["why", "view/f"]).run();
    wait_until(SOON, "the view is refused", || why().stderr.contains(&named));
    assert_eq!(actor.ask(["open", "w", "f"]), Err(Errno::IO));
    let status = world.gate(["status"]).run().success();
    assert!(status.contains(" refused\n"), "{status}");
    let doctor = world.gate(["doctor", "view"]).run();
    assert!(doctor.stdout.contains(&named), "{doctor}");
    other.umount(&point);
    wait_until(SOON, "the view is served again", || actor.ask(["open", "w", "f"]).is_ok());
    assert!(why().success().contains(" holds"));
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

fn private_actor(world: &World, dir: &Path) -> Actor {
    let words = ["run", "--agent", "ada", "--view", "private", "--in"].map(OsString::from);
    let words = words.into_iter().chain([dir.into(), "--".into()]);
    let mut ada = world.actor_by(std::iter::once(world.program("gate").into()).chain(words), dir);
    ada.ask(["stat", "."]).expect("the view is there");
    ada
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
