//! Versions that are not shown beside their files, in `.conflicts`.

use std::collections::BTreeMap;

use super::*;

/// All files that are shown, and what is in them; hashes are left out.
fn shown(state: &State<Memory>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut met = vec![(String::new(), Directory::root())];
    while let Some((beneath, directory)) = met.pop() {
        for shown in state.list(&directory, &label).unwrap() {
            let found = state.find(&directory, &shown.name, &label).unwrap();
            assert_eq!(found.as_ref(), Some(&shown.what), "what is listed is found");
            let mut path = format!("{beneath}{}", shown.name.bytes().escape_ascii());
            let record = state.file(shown.what.file()).unwrap();
            let version = match shown.what {
                What::Directory(directory) => {
                    met.push((format!("{path}/"), directory));
                    continue;
                }
                What::File { .. } => *record.winner().unwrap().0,
                What::Beside { version, .. } => {
                    path.truncate(path.find('@').unwrap() + 1);
                    version
                }
            };
            let Some(Body::Inline(bytes)) = state.body(version).unwrap() else { panic!("{path}") };
            all.insert(path, String::from_utf8(bytes).unwrap());
        }
    }
    all
}

fn texts<const N: usize>(expected: [(&str, &str); N]) -> BTreeMap<String, String> {
    expected.map(|(path, text)| (path.to_owned(), text.to_owned())).into()
}

/// Two write to each of these at the same time.
fn contested(at: &[&str]) -> World {
    let mut world = World::new();
    for directory in ["a", "a/.git", "a/.git/refs"] {
        world.make(0, directory, Kind::Directory);
    }
    for at in at {
        world.put(0, at, "0");
    }
    world.all_hear_all();
    for (who, text) in [(0, "A"), (1, "B")] {
        for at in at {
            world.write(who, at, text);
        }
    }
    world.all_hear_all();
    world
}

#[test]
fn what_would_be_in_the_way_is_under_its_path_in_conflicts() {
    let world = contested(&["a/.git/HEAD", "a/.git/refs/x", "a/x.db", "a/f"]);
    let expected = texts([
        (".conflicts/a/.git/HEAD@", "A"),
        (".conflicts/a/.git/refs/x@", "A"),
        (".conflicts/a/x.db@", "A"),
        ("a/.git/HEAD", "B"),
        ("a/.git/refs/x", "B"),
        ("a/f", "B"),
        ("a/f@", "A"),
        ("a/x.db", "B"),
    ]);
    for peer in &world.peers {
        assert_eq!(shown(&peer.state), expected);
    }
    naive::Tree::of(&world.entries).check(&world.peers[0].state);
}

#[test]
fn conflicts_are_there_while_something_is_in_them() {
    let mut world = contested(&["a/f"]);
    assert!(!shown(&world.peers[0].state).keys().any(|path| path.starts_with(".conflicts")));
    world = contested(&["x.db"]);
    // Somebody called something so himself.
    world.put(0, ".conflicts", "mine");
    world.all_hear_all();
    let now = shown(&world.peers[1].state);
    let expected = texts([(".conflicts", "mine"), (".conflicts~2/x.db@", "A"), ("x.db", "B")]);
    assert_eq!(now, expected);
    world.remove(0, ".conflicts");
    world.all_hear_all();
    let find = |world: &World, at: &str| {
        let path = crate::tree::walk::TreePath::try_from(at.as_bytes()).unwrap();
        world.peers[1].state.walk(path.names(), &label)
    };
    let loser = shown(&world.peers[1].state).into_keys().find(|path| path.contains('@'));
    assert_eq!(loser.as_deref(), Some(".conflicts/x.db@"));
    let Ok(What::Directory(aside)) = find(&world, ".conflicts") else {
        panic!("it is a directory")
    };
    let list = world.peers[1].state.list(&aside, &label).unwrap();
    let [crate::tree::shown::Shown { what: What::Beside { file, version, .. }, .. }] = list[..]
    else {
        panic!("{list:?}")
    };
    // What is moved takes it along, and one that is given up is gone.
    world.make(1, "d", Kind::Directory);
    world.rename(1, "x.db", "d/y.db");
    assert_eq!(shown(&world.peers[1].state), texts([(".conflicts/d/y.db@", "A"), ("d/y.db", "B")]));
    world.commit(1, vec![Op::Resolve { file, given_up: vec![version] }]);
    assert_eq!(shown(&world.peers[1].state), texts([("d/y.db", "B")]));
    assert!(find(&world, ".conflicts").is_err());
}
