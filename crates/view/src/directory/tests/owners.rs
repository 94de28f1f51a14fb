//! Whose the new files are, and which bits they lose.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use gate_fuse::{Caller, SetAttr, Write};
use rustix::process::Uid;

use super::*;
use crate::source::{File as _, Make};

const ADA: Caller = Caller { uid: 4001, gid: 4002, tid: 0, supplementary_gid: None };
const ROOT: Caller = Caller { uid: 0, gid: 0, tid: 0, supplementary_gid: None };
const RDWR: u32 = libc::O_RDWR.cast_unsigned();

fn make(caller: &Caller, mode: u32, umask: u32) -> Make<'_> {
    Make { caller, mode, umask }
}

/// Owner, group and permissions.
fn whose(world: &World, path: &str) -> (u32, u32, u32) {
    let metadata = fs::symlink_metadata(world.bare(path)).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

#[test]
fn what_is_made_is_the_callers() {
    as_root();
    let world = World::new(&[]);
    let (directory, root) = (&world.directory, NodeId::ROOT);
    let by_ada = |mode| make(&ADA, mode, 0o027);
    directory.mkdir(root, c"d", &by_ada(0o777)).unwrap();
    directory.mknod(root, c"p", &by_ada(0o010_666), 0).unwrap();
    directory.symlink(root, c"l", c"x", &ADA).unwrap();
    directory.create(root, c"f", &by_ada(0o100_666), RDWR).unwrap();
    assert_eq!(whose(&world, "d"), (4001, 4002, 0o750));
    assert_eq!(whose(&world, "p"), (4001, 4002, 0o640));
    assert_eq!(whose(&world, "l"), (4001, 4002, 0o777));
    assert_eq!(whose(&world, "f"), (4001, 4002, 0o640));
    // The thread is itself again.
    directory.create(root, c"r", &make(&ROOT, 0o100_666, 0), RDWR).unwrap();
    assert_eq!(whose(&world, "r"), (0, 0, 0o666));
}

#[test]
fn device_numbers_arrive_whole() {
    as_root();
    let world = World::new(&[]);
    // Major 0x123, minor 0x45678.
    let rdev = 0x78 | 0x123 << 8 | 0x456 << 20;
    let by_root = make(&ROOT, 0o020_600, 0);
    let found = world.directory.mknod(NodeId::ROOT, c"c", &by_root, rdev).unwrap();
    assert_eq!(found.attr.rdev, rdev);
    let device = fs::metadata(world.bare("c")).unwrap().rdev();
    assert_eq!((rustix::fs::major(device), rustix::fs::minor(device)), (0x123, 0x45678));
}

#[test]
fn the_group_that_the_kernel_names_keeps_sgid() {
    as_root();
    let world = World::new(&["shared/"]);
    chown(world.bare("shared"), Some(0), Some(4100)).unwrap();
    fs::set_permissions(world.bare("shared"), PermissionsExt::from_mode(0o2777)).unwrap();
    let shared = world.walk("shared").unwrap();
    let member = Caller { supplementary_gid: Some(4100), ..ADA };
    for (name, caller) in [(c"stranger", ADA), (c"member", member)] {
        world.directory.create(shared, name, &make(&caller, 0o102_775, 0), RDWR).unwrap();
    }
    assert_eq!(whose(&world, "shared/stranger"), (4001, 4100, 0o775));
    assert_eq!(whose(&world, "shared/member"), (4001, 4100, 0o2775));
}

#[test]
fn somebody_elses_new_file_is_not_opened_with_our_rights() {
    as_root();
    let world = World::new(&["secret", "own"]);
    fs::set_permissions(world.bare("secret"), PermissionsExt::from_mode(0o600)).unwrap();
    chown(world.bare("own"), Some(ADA.uid), Some(ADA.gid)).unwrap();
    let create = |name, flags| {
        let created = world.directory.create(NodeId::ROOT, name, &make(&ADA, 0o666, 0), flags);
        created.map(|_| ()).err()
    };
    fs::set_permissions(world.bare.path(), PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(create(c"secret", RDWR), Some(Errno::ACCESS));
    assert_eq!(create(c"own", RDWR), None);
    assert_eq!(create(c"own", RDWR | libc::O_EXCL.cast_unsigned()), Some(Errno::EXIST));
    // And the thread has its rights back.
    assert!(world.directory.open(world.walk("secret").unwrap(), RDWR, false).is_ok());
}

#[test]
fn suid_goes_when_the_kernel_says_so() {
    as_root();
    let world = World::new(&["f"]);
    let node = world.walk("f").unwrap();
    let file = world.directory.open(node, RDWR, false).unwrap();
    let suid = || fs::set_permissions(world.bare("f"), PermissionsExt::from_mode(0o6755)).unwrap();
    let handle = gate_fuse::HandleId(0);
    let data = &b"x"[..];
    let write = Write { handle, offset: 0, data, flags: 0, cached: false, kill_suidgid: true };
    for (kill_suidgid, expected) in [(true, 0o755), (false, 0o6755), (true, 0o755)] {
        suid();
        file.write(&Write { kill_suidgid, ..write }).unwrap();
        assert_eq!(whose(&world, "f").2, expected);
        suid();
        let change = SetAttr { size: Some(0), kill_suidgid, ..SetAttr::default() };
        world.directory.setattr(&ADA, node, Some(&file), &change).unwrap();
        assert_eq!(whose(&world, "f").2, expected);
        suid();
        world.directory.open(node, RDWR | libc::O_TRUNC.cast_unsigned(), kill_suidgid).unwrap();
        assert_eq!(whose(&world, "f").2, expected);
    }
    suid();
    file.allocate(&ADA, 0, 0, 10).unwrap();
    assert_eq!(whose(&world, "f").2, 0o755);
}

#[test]
fn an_ordinary_user_makes_only_its_own() {
    as_root();
    let world = World::new(&[]);
    chown(world.bare.path(), Some(ADA.uid), Some(ADA.gid)).unwrap();
    std::thread::scope(|scope| {
        let ordinary = scope.spawn(|| {
            // This thread alone becomes ada, for good.
            let uid = Uid::from_raw(ADA.uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            let create = |name, caller| {
                let made = make(caller, 0o100_666, 0o077);
                world.directory.create(NodeId::ROOT, name, &made, RDWR).map(|_| ()).err()
            };
            assert_eq!(create(c"own", &ADA), None);
            assert_eq!(create(c"others", &ROOT), Some(Errno::PERM));
        });
        ordinary.join().unwrap();
    });
    assert_eq!(whose(&world, "own").0, ADA.uid);
    assert_eq!(whose(&world, "own").2, 0o600);
}

/// What is asked past the kernel's own checks: one that the source makes is made for the caller.
#[test]
fn flags_are_set_with_the_rights_of_the_caller() {
    const IMMUTABLE: u32 = 0x10;
    const NO_ATIME: u32 = 0x80;
    as_root();
    let world = World::new(&["adas", "roots"]);
    std::os::unix::fs::chown(world.bare("adas"), Some(ADA.uid), Some(ADA.gid)).unwrap();
    let set = |name, caller: &Caller, flags: u32| {
        let node = world.walk(name).unwrap();
        let had = world.directory.control(node, caller, (Control::Flags, &[])).unwrap();
        let had = u32::from_ne_bytes(had.try_into().unwrap());
        let flags = (had ^ flags).to_ne_bytes();
        world.directory.control(node, caller, (Control::SetFlags, &flags)).map(drop)
    };
    assert_eq!(set("adas", &ADA, NO_ATIME), Ok(()));
    assert_eq!(set("adas", &ADA, IMMUTABLE), Err(Errno::PERM));
    assert_eq!(set("roots", &ADA, NO_ATIME), Err(Errno::PERM));
    assert_eq!(set("roots", &ROOT, IMMUTABLE), Ok(()));
    assert_eq!(set("roots", &ROOT, IMMUTABLE), Ok(()));
}
