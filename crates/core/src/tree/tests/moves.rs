//! Directories that are moved at the same time, against the algorithm of others.
//!
//! Kleppmann, Mulligan, Gomes and Beresford, "A highly-available move operation for replicated trees"
//! (2021), say what moves come to, and prove it; `crdt_tree` is their algorithm as others have written it.

use crdt_tree::{Clock, OpMove};

use super::*;
use crate::tree::shown::Shown;

/// Returns all paths that there are, in their order.
fn paths(state: &State<Memory>) -> String {
    let mut all = Vec::new();
    let mut met = vec![(String::new(), Directory::root())];
    while let Some((beneath, directory)) = met.pop() {
        for Shown { name, what } in state.list(&directory, &label).unwrap() {
            let path = format!("{beneath}{}", name.bytes().escape_ascii());
            all.push(path.clone());
            if let What::Directory(directory) = what {
                met.push((format!("{path}/"), directory));
            }
        }
    }
    all.sort();
    all.join(" ")
}

fn kind(at: &str) -> Kind {
    if at.contains('.') { Kind::File } else { Kind::Directory }
}

/// What somebody does who has not heard of the others: `1: a -> b/a`, or `2: rm a`.
fn check(made: &str, script: &[&str], expected: &str) {
    let mut world = World::new();
    made.split(' ').for_each(|at| world.make(0, at, kind(at)));
    world.all_hear_all();
    for line in script {
        let (who, what) = line.split_once(": ").unwrap();
        let who = who.parse().unwrap();
        match what.split_once(" -> ") {
            Some((from, to)) => world.rename(who, from, to),
            None => world.remove(who, what.strip_prefix("rm ").unwrap()),
        }
    }
    world.all_hear_all();
    let naive = naive::Tree::of(&world.entries);
    for (who, peer) in world.peers.iter().enumerate() {
        assert_eq!(paths(&peer.state), expected, "to {who}, of {script:?}");
        naive.check(&peer.state);
        assert!(peer.state == world.peers[0].state, "who knows the same has the same");
    }
}

/// The paper's figure 1: no copy, and no node with two parents.
#[test]
fn what_two_move_to_different_places_is_where_the_later_put_it() {
    check("a b c", &["0: a -> b/a", "1: a -> c/a"], "b c c/a");
    check("a b c", &["1: a -> b/a", "0: a -> c/a"], "b b/a c");
    check("a a/x.txt b c", &["0: a -> b/a", "2: a -> c/a"], "b c c/a c/a/x.txt");
    check("x.txt b c", &["0: x.txt -> b/x.txt", "1: x.txt -> c/x.txt"], "b c c/x.txt");
    check("x.txt b c", &["1: x.txt -> b/y.txt", "0: x.txt -> c/x.txt"], "b b/y.txt c");
}

/// The paper's figure 2: no ring that nobody can reach, no copies, and only one move is none.
#[test]
fn of_two_that_move_directories_into_each_other_the_earlier_does() {
    check("a b", &["0: b -> a/b", "1: a -> b/a"], "a a/b");
    check("a b", &["1: b -> a/b", "0: a -> b/a"], "b b/a");
    check("a a/x.txt b b/y.txt", &["0: a -> b/a", "2: b -> a/b"], "b b/a b/a/x.txt b/y.txt");
}

#[test]
fn of_three_that_move_directories_into_one_another_in_a_ring_the_last_does_not() {
    check("a b c", &["0: a -> b/a", "1: b -> c/b", "2: c -> a/c"], "c c/b c/b/a");
    check("a b c", &["2: a -> b/a", "1: b -> c/b", "0: c -> a/c"], "a a/c a/c/b");
}

#[test]
fn a_directory_is_not_moved_below_what_was_moved_into_it_meanwhile() {
    check("a b b/c", &["0: b -> a/b", "1: a -> b/c/a"], "a a/b a/b/c");
    check("a b b/c", &["1: b -> a/b", "0: a -> b/c/a"], "b b/c b/c/a");
    // Who took out what was in the way first moves as he saw it.
    check("a a/b", &["0: a/b -> b", "0: a -> b/a", "1: a -> c"], "b b/a");
    check("a a/b", &["1: a/b -> b", "1: a -> b/a", "0: a/b -> a/c"], "b b/a");
}

/// The paper's undoing and doing again: what was none counts when something earlier comes in its way.
#[test]
fn a_move_that_was_none_counts_when_an_earlier_one_takes_away_what_stood_against_it() {
    let mut world = World::new();
    ["a", "b", "c"].into_iter().for_each(|at| world.make(0, at, Kind::Directory));
    world.all_hear_all();
    world.rename(0, "b", "a/b");
    world.rename(1, "a", "b/a");
    world.rename(2, "b", "a/d");
    world.hear(2, 1);
    assert_eq!(paths(&world.peers[2].state), "b b/a c", "the later of two is none");
    world.hear(2, 0);
    assert_eq!(paths(&world.peers[2].state), "a a/d c", "by now the one against it is none");
}

#[test]
fn what_is_moved_into_a_directory_that_somebody_deletes_keeps_it_there() {
    check("a b", &["0: a -> b/a", "1: rm b"], "b b/a");
    check("a b", &["1: a -> b/a", "0: rm b"], "b b/a");
    // Who moves what another deletes has not seen why.
    check("a b", &["0: a -> b/a", "1: rm a"], "b b/a");
}

/// Numbers choose among all directories and what a peer sees.
#[derive(Clone, Debug)]
enum Step {
    Make(usize),
    Move(usize, usize),
    Hear(usize),
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let n = 0..64_usize;
    let step = prop_oneof![
        2 => n.clone().prop_map(Step::Make),
        8 => (n.clone(), n).prop_map(|(which, to)| Step::Move(which, to)),
        3 => (0..PEERS).prop_map(Step::Hear),
    ];
    (0..PEERS, step)
}

/// Names of their own, so that each directory is made once.
fn do_step(world: &mut World, who: usize, step: &Step) {
    let name = Name::try_from(format!("{}", world.entries.len()).as_bytes()).unwrap();
    let seen = &world.peers[who].seen;
    let known: Vec<FileId> = world
        .entries
        .iter()
        .filter(|entry| seen.covers(entry.id))
        .filter_map(|entry| match &entry.ops[..] {
            [Op::Create { file, .. }] => Some(*file),
            _ => None,
        })
        .collect();
    let parent = |number| pick(&known, number).filter(|_| number % 7 > 0).unwrap_or(FileId::ROOT);
    let op = match *step {
        Step::Hear(other) => return world.hear(who, other),
        Step::Make(number) => {
            let parent = parent(number);
            let file = FileId::of_directory(parent, name.bytes(), 0);
            let link = LinkId::of_directory(file);
            let (kind, mode, modified) = (Kind::Directory, 0o755, Stamp::default());
            Op::Create { link, file, parent, name, kind, mode, modified, former: 0 }
        }
        Step::Move(number, to) => {
            let Some(which) = pick(&known, number) else { return };
            Op::Move { link: LinkId::of_directory(which), parent: parent(to), name }
        }
    };
    world.commit(who, vec![op]);
}

/// A tree of the others: of directories, by what they are called, in the order of operations.
type Theirs = crdt_tree::State<LinkId, Name, OpId>;

/// Returns what an entry is to them: to make something is to move it from nowhere.
fn theirs(entry: &Entry) -> OpMove<LinkId, Name, OpId> {
    let ([Op::Create { link, parent, name, .. }] | [Op::Move { link, parent, name }]) =
        &entry.ops[..]
    else {
        panic!("{entry:?}")
    };
    let at = Clock::new(OpId { entry: entry.id, place: 0 }, Some(entry.lamport));
    OpMove::new(at, LinkId::of_directory(*parent), name.clone(), *link)
}

/// Compares where the directories are with where the others have them.
fn compare(state: &State<Memory>, theirs: &Theirs) {
    let found: BTreeMap<LinkId, (LinkId, Name)> = look(state)
        .links
        .into_iter()
        .map(|(link, _)| {
            let place = state.tables().link(link).unwrap().unwrap().place.unwrap().value;
            (link, (LinkId::of_directory(place.parent), place.name))
        })
        .collect();
    let expected = theirs.clone().into_iter();
    let expected = expected.map(|(link, at)| (link, (*at.parent_id(), at.metadata().clone())));
    assert_eq!(found, expected.collect::<BTreeMap<_, _>>());
}

proptest! {
    #[test]
    fn directories_are_where_the_algorithm_of_others_has_them(
        steps in proptest::collection::vec(step(), 0..32),
        choices in proptest::collection::vec(0..97_usize, 1..30),
    ) {
        let mut world = World::new();
        let mut replicas: [Theirs; PEERS] = Default::default();
        let mut told: [Seen; PEERS] = Default::default();
        let mut tell = |world: &World, who: usize| {
            let seen = &world.peers[who].seen;
            for entry in world.entries.iter().filter(|entry| seen.covers(entry.id)) {
                if !told[who].covers(entry.id) {
                    replicas[who].apply_op(theirs(entry));
                    told[who].see(entry.id);
                }
            }
            compare(&world.peers[who].state, &replicas[who]);
        };
        for (who, step) in &steps {
            do_step(&mut world, *who, step);
            tell(&world, *who);
        }
        world.all_hear_all();
        (0..PEERS).for_each(|who| tell(&world, who));
        compare(&world.reordered(&choices), &replicas[0]);
        prop_assert_eq!(replicas[0].tree(), replicas[1].tree());
        prop_assert_eq!(replicas[0].tree(), replicas[2].tree());
    }
}
