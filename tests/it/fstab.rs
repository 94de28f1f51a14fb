//! `mount -t gate`, lines of fstab, and the helpers that mount(8) calls for them.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use gate_tests::run::Run;
use gate_tests::wait::{SOON, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel};

/// A world with a broker and `mount.gate`, a link to `gate` as a package lays one.
fn with_helper(standing: Standing) -> (World, PathBuf) {
    let mut world = World::bare_of(standing);
    world.seed("f", "text");
    world.start_broker([""; 0]);
    let helper = world.home().join("mount.gate");
    symlink(world.program("gate"), &helper).unwrap();
    (world, helper)
}

/// As mount(8) calls it: source and mount point first, then flags.
fn call(world: &World, helper: &Path, flags: &[&str]) -> Run {
    world.command(helper).args([world.source(), world.view()]).args(flags)
}

fn is_mounted(world: &World) -> bool {
    kernel::mounts_below(&world.view()).iter().any(kernel::Mount::is_fuse)
}

#[test]
fn the_helper_mounts_as_mount_asks_for_it() {
    for standing in [Standing::Runner, Standing::OrdinaryUser] {
        let (world, helper) = with_helper(standing);
        let options = "rw,nosuid,nodev,noauto,user,_netdev,x-systemd.automount,read_wait=5s,policy=*.tmp=none";
        let said = call(&world, &helper, &["-n", "-v", "-o", options]).run();
        assert!(said.stderr.contains("--read-wait=5s --policy=*.tmp=none"), "{said}");
        said.success();
        assert_eq!(world.script(&world.view(), "cat f; echo x >new").run().success(), "text");
        let status = world.gate(["status"]).run().success();
        assert!(status.contains(world.view().to_str().unwrap()), "{status}");
        world.gate(["umount", "view"]).run().success();
        call(&world, &helper, &["-o", "ro"]).run().success();
        let refused = world.script(&world.view(), "touch other").run();
        assert!(refused.stderr.contains("Read-only file system"), "{refused}");
        world.gate(["umount", "view"]).run().success();
        call(&world, &helper, &["-f"]).run().success();
        assert!(!is_mounted(&world));
    }
}

#[test]
fn a_view_that_is_mounted_with_noexec_runs_no_programs() {
    let (world, helper) = with_helper(Standing::Runner);
    world.script(&world.source(), "printf '#!/bin/sh\\n' >run; chmod 755 run").run().success();
    call(&world, &helper, &["-o", "noexec,nosuid,nodev"]).run().success();
    let refused = world.script(&world.view(), "echo x >>f; ./run").run();
    assert_eq!(refused.code, Some(126), "{refused}");
    assert_eq!(world.source_text("f"), "textx\n");
    world.gate(["umount", "view"]).run().success();
    let (world, helper) = with_helper(Standing::OrdinaryUser);
    let refused = call(&world, &helper, &["-o", "noexec"]).run();
    assert_eq!(refused.code, Some(32), "{refused}");
    assert!(refused.refusal().contains("user,exec"));
    wait_until(SOON, "the view is gone", || !is_mounted(&world));
}

#[test]
fn the_helper_fails_as_mount_expects_it() {
    let (world, helper) = with_helper(Standing::Runner);
    let unknown = call(&world, &helper, &["-o", "colour=red"]).run();
    assert_eq!(unknown.code, Some(1), "{unknown}");
    assert!(unknown.refusal().contains("no option `colour=red`"));
    assert!(!is_mounted(&world));
    call(&world, &helper, &["-s", "-o", "colour=red"]).run().success();
    world.gate(["umount", "view"]).run().success();
    let failed = world.command(&helper).args(["none", "view"]).run();
    assert_eq!(failed.code, Some(32), "{failed}");
    assert!(failed.refusal().contains("give an existing directory"));
}

/// With the links where mount(8) looks for them, which nobody but this test sees.
#[test]
fn mount_and_fstab_and_umount_work_with_the_type_gate() {
    let mut world = World::apart();
    world.seed("f", "text");
    world.start_broker([""; 0]);
    let gate = world.program("gate");
    let lay = "mount -t tmpfs none \"$(realpath /sbin)\"
               for name in mount.gate mount.fuse.gate; do ln -s \"$0\" /sbin/$name; done";
    world.script(world.home(), lay).args([&gate]).run().success();
    let [source, view] = [world.source(), world.view()];
    let [source, view] = [source.to_str().unwrap(), view.to_str().unwrap()];
    let fstab = world.home().join("fstab");
    let options = "noauto,nofail,x-systemd.automount,x-systemd.requires=gate.service,ro";
    std::fs::write(&fstab, format!("{source} {view} gate {options} 0 0\n")).unwrap();
    let run = |script: &str| world.script(world.home(), script).args(["", source, view]).run();
    for mount in [
        "mount -t gate \"$1\" \"$2\" -o rw,allow_other,noatime",
        "mount -t fuse.gate \"$1\" \"$2\"",
        "mount -T fstab \"$2\"; mount -T fstab -o remount,rw \"$2\"",
        // It says again what is in force.
        "mount -t gate \"$1\" \"$2\" -o allow_other; mount -o remount,rw,allow_other \"$2\"",
    ] {
        run(mount).success();
        let said = run(
            "findmnt -no FSTYPE,SOURCE \"$2\"; cat \"$2/f\"; echo -n >\"$2/f\"; echo -n text >\"$2/f\"",
        );
        assert_eq!(said.success(), format!("fuse.gate {source}\ntext"), "{mount}");
        run("umount \"$2\"").success();
        assert!(!is_mounted(&world), "{mount}");
    }
    run("mount -T fstab \"$2\"").success();
    let refused = run("touch \"$2/new\"");
    assert!(refused.stderr.contains("Read-only file system"), "{refused}");
    run("umount \"$2\"").success();
    let failed = run("mount -t gate \"$1\" \"$2\" -o colour=red");
    assert_eq!(failed.code, Some(1), "{failed}");
    assert!(failed.stderr.contains("no option `colour=red`"), "{failed}");
}
