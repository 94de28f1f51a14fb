//! What tells a file's content from another.

use rustix::fs::FileType;

use super::*;

/// Two writes within one tick of the clock are the guard's to tell apart.
#[test]
fn content_moves_the_stamp_and_names_and_modes_do_not() {
    let world = World::new(&["f"]);
    let node = world.walk("f").unwrap();
    let stamp = || world.directory.sighting(node).unwrap().stamp;
    let before = stamp();
    fs::hard_link(world.bare("f"), world.bare("g")).unwrap();
    fs::rename(world.bare("g"), world.bare("h")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(world.bare("f"), mode).unwrap();
    assert_eq!(stamp(), before);
    fs::write(world.bare("f"), "x").unwrap();
    assert_ne!(stamp(), before);
}

#[test]
fn what_is_pinned_stays_when_its_name_is_anothers() {
    let world = World::new(&["f", "g"]);
    fs::write(world.bare("f"), "old").unwrap();
    let by_name = world.directory.pin_name(NodeId::ROOT, c"f").unwrap();
    let by_node = world.directory.pin(world.walk("f").unwrap()).unwrap();
    fs::rename(world.bare("g"), world.bare("f")).unwrap();
    for pinned in [by_name, by_node] {
        let path = descriptor_path(&pinned.descriptor);
        assert_eq!(fs::read_to_string(path).unwrap(), "old");
        assert_eq!((pinned.kind, pinned.sighting.stamp.size), (FileType::RegularFile, 3));
    }
}
