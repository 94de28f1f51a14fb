//! What becomes of a file, and of its name, when it is set apart.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::super::KeptName;
use super::*;

#[test]
fn the_name_goes_to_a_copy_and_the_writer_keeps_the_rest() {
    let world = World::new(&["d/", "d/f"]);
    let path = world.bare("d/f");
    fs::write(&path, "before").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let text = b"text";
    rustix::fs::setxattr(&path, "user.mark", text, rustix::fs::XattrFlags::empty()).unwrap();
    let was = fs::metadata(&path).unwrap();
    let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
    let node = world.walk("d/f").unwrap();
    let parent = world.walk("d").unwrap();
    assert_eq!(world.directory.set_apart(node), Ok((parent, c"f".to_owned())));
    writer.write_all(b" and after").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    let is = fs::metadata(&path).unwrap();
    assert_ne!(is.ino(), was.ino());
    let same =
        |meta: &fs::Metadata| (meta.mode(), meta.uid(), meta.gid(), meta.modified().unwrap());
    assert_eq!(same(&is), same(&was));
    let mut mark = [0; 8];
    let length = rustix::fs::getxattr(&path, "user.mark", &mut mark).unwrap();
    assert_eq!(&mark[..length], text);
    world.check_path(node, None);
    assert_eq!(fs::read_dir(world.bare("d")).unwrap().count(), 1, "nothing else is left");
    assert_ne!(world.walk("d/f").unwrap(), node);
}

#[test]
fn what_cannot_be_replaced_keeps_its_name() {
    let world = World::new(&["f", "large", "moved"]);
    fs::hard_link(world.bare("f"), world.bare("g")).unwrap();
    fs::File::options().write(true).open(world.bare("large")).unwrap().set_len(65 << 20).unwrap();
    let moved = world.walk("moved").unwrap();
    fs::rename(world.bare("moved"), world.bare("elsewhere")).unwrap();
    let apart = |node| world.directory.set_apart(node).unwrap_err();
    assert_eq!(apart(world.walk("f").unwrap()), KeptName::OtherNames);
    assert_eq!(apart(world.walk("large").unwrap()), KeptName::Large);
    assert_eq!(apart(moved), KeptName::OtherNames);
}
