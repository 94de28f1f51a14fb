//! A checkpoint is made while a bucket is in use, and nobody has to ask for it.

use super::*;

#[test]
fn a_bucket_in_use_has_a_checkpoint_once_much_was_done() {
    let mut world = World::new();
    let path = world.bucket.join("checkpoint");
    let name = Name::try_from(&b"a"[..]).unwrap();
    world.live().make_file(&Directory::root(), &name, &Kind::File, 0o644).unwrap();
    let what = world.find("a").unwrap();
    let mut count: u32 = 0;
    while !path.exists() {
        let value = [&count.to_le_bytes()[..], &[7; 60_000]].concat();
        world.live().set_extended(&what, b"user.x", Some(&value)).unwrap();
        world.live().settle().unwrap();
        count += 1;
    }
    assert!(count > 10, "little was done: {count}");
    let expected = world.live().extended(&what).unwrap();
    world.reopen();
    assert_eq!(world.live().extended(&what).unwrap(), expected);
}
