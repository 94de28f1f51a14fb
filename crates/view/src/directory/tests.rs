//! The directory as it is used: first called directly, then through a mount without a gate.
//! Tests that act as other users or mount need root, and say so.

mod apart;
mod listed;
mod mounted;
mod owners;
mod sightings;
mod ungated;

use std::ffi::CString;
use std::fs;
use std::path::PathBuf;

use super::*;

/// A source and its `Directory`.
struct World {
    bare: tempfile::TempDir,
    directory: Directory,
}

impl World {
    /// Every path is an empty file; one that ends in a slash is a directory.
    fn new(paths: &[&str]) -> World {
        let bare = tempfile::tempdir().unwrap();
        for path in paths {
            let full = bare.path().join(path);
            match path.ends_with('/') {
                true => fs::create_dir(full).unwrap(),
                false => fs::write(full, b"").unwrap(),
            }
        }
        let directory = Directory::new(fs::File::open(bare.path()).unwrap(), 1).unwrap();
        World { bare, directory }
    }

    fn bare(&self, path: &str) -> PathBuf {
        self.bare.path().join(path)
    }

    /// Looks up each component in turn.
    fn walk(&self, path: &str) -> Result<NodeId, Errno> {
        path.split('/').try_fold(NodeId::ROOT, |parent, name| {
            let found = self.directory.lookup(parent, &CString::new(name).unwrap())?;
            Ok(found.node)
        })
    }

    fn check_path(&self, node: NodeId, expected: Option<&str>) {
        let path = self.directory.nodes.path_of(node).map(|path| String::from_utf8(path).unwrap());
        assert_eq!(path.as_deref(), expected);
    }
}

fn as_root() {
    let root = rustix::process::geteuid().is_root();
    assert!(root, "this test acts as several users: run it as root");
}

#[test]
fn a_node_lives_as_long_as_its_lookups() {
    let world = World::new(&["f"]);
    let first = world.walk("f").unwrap();
    assert_eq!(world.walk("f"), Ok(first));
    world.directory.nodes.forget(first, 1);
    assert!(world.directory.getattr(first).is_ok());
    world.directory.nodes.forget(first, 1);
    assert_eq!(world.directory.getattr(first), Err(Errno::STALE));
    assert_eq!(world.directory.nodes.count(), 1);
    assert_ne!(world.walk("f"), Ok(first), "a node id came back");
}

/// The kernel is told to trust for long only what it hears of from the watches.
#[test]
fn of_what_is_not_watched_nothing_is_promised_to_be_told() {
    for watched in [true, false] {
        let mut world = World::new(&["d/", "d/f"]);
        if !watched {
            world.directory.watches = None;
        }
        let node = world.walk("d/f").unwrap();
        let attr = world.directory.getattr(node).unwrap();
        let told = world.directory.nodes.tell(node, &attr);
        assert_eq!(told.name, watched);
        assert!(!told.attributes, "it was changed a moment ago");
        assert_eq!(world.directory.is_watched(world.walk("d").unwrap()), watched);
    }
}

#[test]
fn a_file_whose_node_was_retired_is_found_as_another() {
    let world = World::new(&["f"]);
    let retired = world.walk("f").unwrap();
    world.directory.nodes.retire(retired);
    let node = world.walk("f").unwrap();
    assert_ne!(node, retired);
    assert_eq!(world.directory.file_key(node), world.directory.file_key(retired));
    assert_eq!([retired, node].map(|node| world.directory.nodes.is_retired(node)), [true, false]);
    world.check_path(node, Some("f"));
    // What it leaves is not what took its place.
    world.directory.nodes.forget(retired, 1);
    assert_eq!(world.walk("f"), Ok(node));
}

#[test]
fn a_directory_outlives_its_lookups_while_something_below_is_known() {
    let world = World::new(&["d/", "d/s/", "d/s/f"]);
    let (d, s, f) = (world.walk("d").unwrap(), world.walk("d/s").unwrap(), world.walk("d/s/f"));
    let f = f.unwrap();
    world.directory.nodes.forget(d, 3);
    world.directory.nodes.forget(s, 2);
    world.check_path(f, Some("d/s/f"));
    assert_eq!(world.walk("d"), Ok(d), "it is still the same node");
    world.directory.nodes.forget(d, 1);
    world.directory.nodes.forget(f, 1);
    assert_eq!(world.directory.nodes.count(), 1);
}

#[test]
fn nodes_are_idle_from_the_oldest_on_and_around() {
    let world = World::new(&["d/", "d/e/", "d/f", "g", "h", "i"]);
    let [d, e, f, g, h, i] =
        ["d", "d/e", "d/f", "g", "h", "i"].map(|path| world.walk(path).unwrap());
    fs::hard_link(world.bare("g"), world.bare("d/g")).unwrap();
    assert_eq!(world.walk("d/g"), Ok(g));
    let idle = |after, most| {
        let idle = world.directory.nodes.idle(after, most, &|node| node == h);
        idle.into_iter().map(|idle| idle.node).collect::<Vec<_>>()
    };
    assert_eq!(idle(NodeId::ROOT, 9), [d, e, f, g, i], "not what is busy");
    assert_eq!(idle(f, 2), [g, i]);
    assert_eq!(idle(g, 3), [i, d, e]);
    let places = world.directory.nodes.idle(f, 1, &|_| false).remove(0).places;
    assert_eq!(places.iter().map(|(_, name)| &**name).collect::<Vec<_>>(), [b"g", b"g"]);
    world.directory.unlink(NodeId::ROOT, c"i").unwrap();
    assert_eq!(idle(NodeId::ROOT, 9), [d, e, f, g], "what has no name cannot be asked for");
}

#[test]
fn dots_stay_inside_the_source() {
    let world = World::new(&["d/", "d/s/"]);
    let (d, s) = (world.walk("d").unwrap(), world.walk("d/s").unwrap());
    assert_eq!(world.walk(".."), Ok(NodeId::ROOT));
    let lookup = |node, name| world.directory.lookup(node, name).map(|found| found.node);
    assert_eq!(
        (lookup(s, c".."), lookup(s, c"."), lookup(d, c"..")),
        (Ok(d), Ok(s), Ok(NodeId::ROOT))
    );
    // Moved out of the source, it has no parent that we would tell.
    let outside = tempfile::tempdir_in(world.bare.path().parent().unwrap()).unwrap();
    fs::rename(world.bare("d/s"), outside.path().join("s")).unwrap();
    assert_eq!(world.walk("d/s"), Err(Errno::NOENT));
    assert_eq!(lookup(s, c".."), Err(Errno::STALE));
}

#[test]
fn a_symbolic_link_is_a_node_and_is_never_followed() {
    let world = World::new(&["f"]);
    let caller = own();
    let found = world.directory.symlink(NodeId::ROOT, c"l", c"/etc/passwd", &caller).unwrap();
    assert_eq!(world.directory.readlink(found.node).unwrap(), b"/etc/passwd");
    assert_eq!(world.walk("l"), Ok(found.node));
    assert_eq!(world.walk("l/x"), Err(Errno::NOTDIR));
    let opened = world.directory.open(found.node, 0, false);
    assert_eq!(opened.err(), Some(Errno::LOOP));
    let etc = world.directory.symlink(NodeId::ROOT, c"e", c"/etc", &caller).unwrap();
    assert_eq!(world.directory.lookup(etc.node, c"passwd").err(), Some(Errno::NOTDIR));
}

#[test]
fn names_follow_the_operations() {
    let world = World::new(&["d/", "d/f", "e/"]);
    let (directory, root) = (&world.directory, NodeId::ROOT);
    let (d, f, e) =
        (world.walk("d").unwrap(), world.walk("d/f").unwrap(), world.walk("e").unwrap());
    let linked = directory.link(f, e, c"g").unwrap();
    assert_eq!((linked.node, linked.attr.nlink), (f, 2));
    world.check_path(f, Some("e/g"));
    directory.rename((root, c"e"), (d, c"e"), 0).unwrap();
    world.check_path(f, Some("d/e/g"));
    directory.unlink(e, c"g").unwrap();
    world.check_path(f, Some("d/f"));
    assert_eq!(directory.nodes.known(d, c"f"), Some(f));
    directory.unlink(d, c"f").unwrap();
    world.check_path(f, None);
    assert_eq!(directory.getattr(f).unwrap().nlink, 0, "it is still there without a name");
    directory.rmdir(d, c"e").unwrap();
    world.check_path(e, None);
}

#[test]
fn an_exchange_swaps_the_paths() {
    let world = World::new(&["d/", "d/f", "g"]);
    let (f, g) = (world.walk("d/f").unwrap(), world.walk("g").unwrap());
    let (root, exchange) = (NodeId::ROOT, rustix::fs::RenameFlags::EXCHANGE.bits());
    world.directory.rename((root, c"d"), (root, c"g"), exchange).unwrap();
    world.check_path(f, Some("g/f"));
    world.check_path(g, Some("d"));
}

#[test]
fn what_happened_behind_the_view_is_learnt_at_the_next_lookup() {
    let world = World::new(&["d/", "d/f", "g"]);
    let (d, f, g) =
        (world.walk("d").unwrap(), world.walk("d/f").unwrap(), world.walk("g").unwrap());
    fs::rename(world.bare("d"), world.bare("moved")).unwrap();
    assert_eq!(world.walk("moved"), Ok(d));
    world.check_path(f, Some("moved/f"));
    fs::rename(world.bare("moved/f"), world.bare("g")).unwrap();
    assert_eq!(world.walk("g"), Ok(f));
    world.check_path(g, None);
    fs::remove_file(world.bare("g")).unwrap();
    assert_eq!(world.walk("g"), Err(Errno::NOENT));
    assert_eq!(world.directory.nodes.known(NodeId::ROOT, c"g"), None);
}

#[test]
fn a_recycled_inode_number_is_never_an_old_node() {
    const FILES: usize = 200;
    let world = World::new(&["f"]);
    let old = world.walk("f").unwrap();
    let key = world.directory.file_key(old).unwrap();
    fs::remove_file(world.bare("f")).unwrap();
    for number in 0..FILES {
        let name = format!("new{number}");
        fs::write(world.bare(&name), b"").unwrap();
        let new = world.walk(&name).unwrap();
        assert_ne!(new, old);
        assert_ne!(world.directory.file_key(new), Ok(key));
    }
}

#[test]
fn a_peek_tells_without_remembering() {
    let world = World::new(&["f"]);
    let (key, attr) = world.directory.peek(NodeId::ROOT, c"f").unwrap();
    assert_eq!(world.directory.nodes.count(), 1);
    let node = world.walk("f").unwrap();
    assert_eq!((world.directory.file_key(node), attr.nlink), (Ok(key), 1));
    assert_eq!(world.directory.peek(NodeId::ROOT, c"none").err(), Some(Errno::NOENT));
}

#[test]
fn two_names_of_one_file_have_one_key() {
    let world = World::new(&["f", "d/"]);
    fs::hard_link(world.bare("f"), world.bare("d/g")).unwrap();
    let (f, g) = (world.walk("f").unwrap(), world.walk("d/g").unwrap());
    assert_eq!(f, g);
    world.check_path(g, Some("d/g"));
    world.walk("f").unwrap();
    world.check_path(g, Some("f"));
}

#[test]
fn threads_leave_nothing_behind() {
    const ROUNDS: usize = 500;
    let world = World::new(&["a/", "b/", "a/f", "b/g"]);
    let (directory, names) = (&world.directory, [c"a", c"b", c"f", c"g", c"x"]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let [one, other] = [0, 7].map(|step| names[(round * 3 + thread + step) % 5]);
                    let Ok(dir) = directory.lookup(NodeId::ROOT, one) else { continue };
                    if let Ok(file) = directory.lookup(dir.node, other) {
                        let _ = directory.rename((dir.node, other), (NodeId::ROOT, c"x"), 0);
                        let _ = directory.rename((NodeId::ROOT, c"x"), (dir.node, other), 0);
                        directory.nodes.path_of(file.node);
                        directory.nodes.forget(file.node, 1);
                    }
                    directory.nodes.forget(dir.node, 1);
                }
            });
        }
    });
    assert_eq!(directory.nodes.count(), 1);
}

#[test]
fn the_descriptor_limit_is_the_hard_one_at_least() {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(0);
    let limit = raise_descriptor_limit().unwrap();
    assert!(limit >= hard);
    assert_eq!(rustix::process::getrlimit(Resource::Nofile).current, Some(limit));
}

/// This process as a caller.
fn own() -> gate_fuse::Caller {
    gate_fuse::Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        tid: 0,
        supplementary_gid: None,
    }
}
