//! What two do to one name at the same time, each of seven things against each.
//!
//! Where both need something there, both know `f`, which holds 0. Who needs it while the other makes
//! something new has made it himself, with `a` or `b` in it, and nobody has heard of that. The first,
//! who is `1`, writes A, the second, `2`, writes B. After both have heard all, they see the same.

use std::fmt::Write as _;

use super::*;
use crate::tree::shown::Shown;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Create,
    Modify,
    Delete,
    Chmod,
    Mkdir,
    /// To `p`, or `q` by the second.
    Rename,
    /// A file goes, and a directory of its name comes, with a file `x`.
    Turn,
}

use Deed::{Chmod, Create, Delete, Mkdir, Modify, Rename, Turn};

const DEEDS: [Deed; 7] = [Create, Modify, Delete, Chmod, Mkdir, Rename, Turn];

/// What is there then: of a file what is in it, and who changed its mode; a version beside is named
/// without its hash.
#[rustfmt::skip]
const CELLS: [(Deed, [&str; 7]); 7] = [
    // Create, Modify, Delete, Chmod, Mkdir, Rename, Turn.
    (Create, ["f=A f~2=B", "f=A f~2=B", "f=A", "f=A f~2=b!2", "f=A f~2/", "f=A q=b", "f=A f~2/ f~2/x=B"]),
    (Modify, ["f=A f~2=B", "f=B f@=A", "f=A", "f=A!2", "f=A f~2/", "q=A", "f=A f~2/ f~2/x=B"]),
    (Delete, ["f=B", "f=B", "", "f=0!2", "f/", "q=0", "f/ f/x=B"]),
    (Chmod,  ["f=a!1 f~2=B", "f=B!1", "f=0!1", "f=0!2", "f=a!1 f~2/", "q=0!1", "f=0!1 f~2/ f~2/x=B"]),
    (Mkdir,  ["f/ f~2=B", "f/ f~2=B", "f/", "f/ f~2=b!2", "f/", "f/ q=b", "f/ f/x=B"]),
    (Rename, ["f=B p=a", "p=B", "p=0", "p=0!2", "f/ p=a", "q=0", "f/ f/x=B p=0"]),
    (Turn,   ["f=B f~1/ f~1/x=A", "f=B f~1/ f~1/x=A", "f/ f/x=A", "f=0!2 f~1/ f~1/x=A", "f/ f/x=A", "f/ f/x=A q=0", "f/ f/x=A f/x~2=B"]),
];

/// The other way: a directory `f` that all know, with 0 in its `x`, becomes a file by the first, while the
/// second does something to it or in it.
const BACK: [(Deed, &str); 7] = [
    (Create, "f/ f/y=B f~1=A"),
    (Modify, "f/ f/x=B f~1=A"),
    (Delete, "f=A"),
    (Chmod, "f/!2 f~1=A"),
    (Mkdir, "f/ f/d/ f~1=A"),
    (Rename, "f=A q/"),
    (Turn, "f=A f~2=B"),
];

fn needs_a_file(deed: Deed) -> bool {
    !matches!(deed, Create | Mkdir)
}

impl World {
    fn do_deed(&mut self, who: usize, deed: Deed) {
        let (text, new, mode) = [("A", "p", 0o601), ("B", "q", 0o602)][who];
        match deed {
            Create => self.put(who, "f", text),
            Modify => self.write(who, "f", text),
            Delete => self.remove(who, "f"),
            Chmod => self.chmod(who, "f", mode),
            Mkdir => self.make(who, "f", Kind::Directory),
            Rename => self.rename(who, "f", new),
            Turn => {
                self.remove(who, "f");
                self.make(who, "f", Kind::Directory);
                self.put(who, "f/x", text);
            }
        }
    }

    fn do_deed_to_a_directory(&mut self, who: usize, deed: Deed) {
        let text = ["A", "B"][who];
        match deed {
            Create => self.put(who, "f/y", text),
            Modify => self.write(who, "f/x", text),
            Mkdir => self.make(who, "f/d", Kind::Directory),
            Chmod | Rename => self.do_deed(who, deed),
            Delete | Turn => {
                self.remove(who, "f/x");
                self.remove(who, "f");
                if deed == Turn {
                    self.put(who, "f", text);
                }
            }
        }
    }
}

/// Tells all that is there, as the cells do.
fn told(state: &State<Memory>) -> String {
    let mut all = Vec::new();
    let mut met = vec![(String::new(), Directory::root())];
    while let Some((beneath, directory)) = met.pop() {
        for Shown { name, what } in state.list(&directory, &label).unwrap() {
            let mut path = format!("{beneath}{}", name.bytes().escape_ascii());
            let record = state.file(what.file()).unwrap();
            let mark = match record.mode.as_ref().unwrap().value & 7 {
                1 => "!1",
                2 => "!2",
                _ => "",
            };
            let version = match what {
                What::Directory(directory) => {
                    path.push('/');
                    met.push((path.clone(), directory));
                    all.push(path + mark);
                    continue;
                }
                What::File { .. } => record.winner().map(|(id, _)| *id),
                What::Beside { version, .. } => {
                    path.truncate(path.find('@').unwrap() + 1);
                    Some(version)
                }
            };
            let body = version.and_then(|id| state.body(id).unwrap()).unwrap_or_default();
            let Body::Inline(bytes) = body else { panic!("{body:?}") };
            write!(path, "={}{mark}", bytes.escape_ascii()).unwrap();
            all.push(path);
        }
    }
    all.sort();
    all.join(" ")
}

fn both_do(first: Deed, second: Deed) -> World {
    let mut world = World::new();
    if needs_a_file(first) && needs_a_file(second) {
        world.put(2, "f", "0");
        world.all_hear_all();
    } else {
        for (who, deed, text) in [(0, first, "a"), (1, second, "b")] {
            if needs_a_file(deed) {
                world.put(who, "f", text);
            }
        }
    }
    world.do_deed(0, first);
    world.do_deed(1, second);
    world.all_hear_all();
    world
}

/// Returns what both see, of which nothing is lost.
fn agreed(world: &World) -> String {
    let state = &world.peers[0].state;
    for other in &world.peers[1..] {
        assert!(other.state == *state, "who knows the same has the same");
    }
    let naive = naive::Tree::of(&world.entries);
    naive.check(state);
    // What anybody wrote is there, or was taken away by somebody who had seen it.
    let sight = look(state);
    naive.check_sight(&sight.links, &sight.beside);
    told(state)
}

#[test]
fn of_what_two_do_to_one_name_nothing_is_lost_and_both_see_the_same() {
    for (first, row) in CELLS {
        for (second, expected) in DEEDS.into_iter().zip(row) {
            let found = agreed(&both_do(first, second));
            assert_eq!(found, expected, "{first:?} and {second:?}");
        }
    }
    assert_eq!(CELLS.map(|(first, _)| first), DEEDS);
}

#[test]
fn of_what_one_does_in_a_directory_that_another_makes_a_file_nothing_is_lost() {
    for (second, expected) in BACK {
        let mut world = World::new();
        world.make(2, "f", Kind::Directory);
        world.put(2, "f/x", "0");
        world.all_hear_all();
        world.do_deed_to_a_directory(0, Turn);
        world.do_deed_to_a_directory(1, second);
        world.all_hear_all();
        assert_eq!(agreed(&world), expected, "{second:?}");
    }
}
