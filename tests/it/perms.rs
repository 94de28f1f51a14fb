//! Without root: mounts through `fusermount3`, and what is said where nothing helps.

use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel};

#[test]
fn an_ordinary_user_mounts_works_and_unmounts() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    let mount = kernel::mounts_below(&view).pop().unwrap();
    let options = mount.options.into_string().unwrap();
    for option in ["nosuid", "nodev", "default_permissions"] {
        assert!(options.split(',').any(|o| o == option), "{option} is missing: {options}");
    }
    world.script(&view, "echo text > f; chmod 600 f; mkdir d; mv f d; cat d/f").run().success();
    world.umount(&view);
    assert!(kernel::mounts_below(&view).is_empty());
}

#[test]
fn writers_of_an_ordinary_user_take_turns() {
    let mut world = World::bare_of_ordinary_user();
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    let [mut first, mut second] = [world.actor(&view), world.actor(&view)];
    let fd = first.open("w+", "f");
    second.tell(["open", "w", "f"]);
    world.await_waiting("f", 1);
    first.close(fd);
    second.opened();
}

/// Who is root in a user namespace mounts there by itself; nobody else sees the view.
#[test]
fn in_a_user_namespace_its_root_mounts_works_and_unmounts() {
    let mut world = World::with_view_of(Standing::UserNamespace, [""; 0]);
    let view = world.view();
    assert!(kernel::mounts_below(&view).is_empty());
    let script =
        "mountpoint -q . && id -u; echo text > f; mkdir d; mv f d; stat -c %u d/f; rev d/f";
    let said = world.script(&view, script).run().success();
    assert_eq!(said, "0\n0\ntxet\n");
    world.umount(&view);
    assert_eq!(world.source_text("d/f"), "text\n");
}

/// The view acts with the caller's ids: what root's view lets others do is what the modes say.
#[test]
fn files_made_through_a_view_belong_to_their_maker() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let world = World::with_view(["--allow-other"]);
    let script = "
        chmod 755 .. . && mkdir -m 1777 shared && mkdir -m 700 own && echo x > own/secret
        setpriv --reuid games --regid games --clear-groups bash -c '
            umask 027; echo mine > shared/f; mkdir shared/d; ln -s f shared/l
            stat -c \"%U:%G %a\" shared/f shared/d; stat -c %U:%G shared/l
            cat own/secret 2>/dev/null || echo denied
            chown root shared/f 2>/dev/null || echo denied'
        rm -rf own shared";
    world.same_as_bare(script, SOON, &[]);
}

#[test]
fn without_the_right_to_mount_the_error_names_a_way_out() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = World::bare();
    world.start_broker([""; 0]);
    let script = r#"exec setpriv --bounding-set -sys_admin "$0" mount --foreground source view"#;
    let gate = world.program("gate");
    let refusal = world.script(world.home(), script).args([gate]).run().refusal();
    assert!(refusal.contains("/view"), "{refusal}");
    assert!(kernel::mounts_below(&world.view()).is_empty());
}

#[test]
fn a_file_of_root_stays_closed_to_an_ordinary_user_in_their_own_view() {
    assert!(rustix::process::geteuid().is_root(), "needs root: run `cargo xtask test`");
    let mut world = World::bare_of_ordinary_user();
    world.seed("secret", "text");
    let secret = world.source().join("secret");
    std::os::unix::fs::chown(&secret, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    world.start_broker([""; 0]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, [""; 0]);
    let mut actor = world.actor(&view);
    assert_eq!(actor.ask(["open", "r", "secret"]), Err(rustix::io::Errno::ACCESS));
    wait_until(SOON, "what fails anyway does not queue", || world.board().locks.is_empty());
}
