//! Trees as they were: what differs between two, and how one becomes the other again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::Location;
use std::slice;

use proptest::test_runner::{TestCaseResult, TestRunner};

use super::super::diff::{Change, Difference, Held, Node, diff};
use super::super::restore::{RestoreError, restore};
use super::super::shown::Shown;
use super::super::undo::{UndoError, undo};
use super::lineage::Blend;
use super::*;

type Path = Vec<Name>;
type Model = BTreeMap<Path, Thing>;

/// What something is to people, whichever version that is.
#[derive(Clone, Debug, PartialEq)]
struct Thing {
    node: Node,
    body: Body,
}

impl Thing {
    fn of(state: &State<Memory>, mut node: Node) -> Thing {
        let body = state.body_of(&node.held).unwrap();
        (node.held.version, node.held.merged) = (None, None);
        Thing { node, body }
    }

    /// Returns how much it holds, and what.
    fn held(state: &State<Memory>, held: &Held) -> (u64, Body) {
        (held.size, state.body_of(held).unwrap())
    }
}

/// Does several things in one entry.
fn act_at_once(world: &mut World, who: usize, acts: &[Act]) {
    let (base, seen, lamport) = {
        let peer = &world.peers[who];
        (peer.state.clone(), peer.seen.clone(), peer.lamport + 1)
    };
    let id = EntryId { feed: world.peers[who].feed, number: seen.count(&world.peers[who].feed) };
    let mut entry = Entry { id, lamport, seen, ops: Vec::new() };
    for act in acts {
        let Some(ops) = world.ops(who, act) else { continue };
        entry.ops.extend(ops);
        world.peers[who].state = with(&base, &entry);
    }
    if !entry.ops.is_empty() {
        world.peers[who].lamport = lamport;
        world.peers[who].seen.see(id);
        world.entries.push(entry);
    }
}

fn with(state: &State<Memory>, entry: &Entry) -> State<Memory> {
    let mut state = state.clone();
    state.apply(entry.batch()).unwrap();
    state
}

/// Returns the tree of all entries that were seen.
fn at(world: &World, seen: &Seen) -> State<Memory> {
    let mut state = State::default();
    for entry in world.entries.iter().filter(|entry| seen.covers(entry.id)) {
        state.apply(entry.batch()).unwrap();
    }
    state
}

/// Does operations by a feed that did nothing before.
fn done(world: &World, ops: &[Op]) -> State<Memory> {
    let mut seen = Seen::new();
    world.entries.iter().for_each(|entry| seen.see(entry.id));
    let lamport = world.entries.iter().map(|entry| entry.lamport).max().unwrap_or(0) + 1;
    let mut state = at(world, &seen);
    // One in each entry: they may be split anywhere.
    for (number, op) in (0..).zip(ops) {
        let id = EntryId { feed: FeedId([9; 32]), number };
        let batch = Batch { id, lamport: lamport + number, seen: &seen, ops: slice::from_ref(op) };
        state.apply(batch).unwrap();
        seen.see(id);
    }
    state
}

fn everything(state: &State<Memory>) -> Vec<(Path, What)> {
    let mut all = vec![(Vec::new(), What::Directory(Directory::root()))];
    let mut next = 0;
    while let Some((path, what)) = all.get(next).cloned() {
        next += 1;
        let What::Directory(directory) = what else { continue };
        for Shown { name, what } in state.list(&directory, &Blend).unwrap() {
            all.push((path.iter().cloned().chain([name]).collect(), what));
        }
    }
    all
}

fn model(state: &State<Memory>) -> Model {
    let thing = |(path, what)| (path, Thing::of(state, state.node(&what, &Blend).unwrap()));
    everything(state).into_iter().map(thing).collect()
}

fn beneath(model: &Model, path: &[Name]) -> Model {
    let those = model.iter().filter(|(at, _)| at.starts_with(path));
    those.map(|(path, node)| (path.clone(), node.clone())).collect()
}

/// Whether everything has the name that was given to it.
fn has_plain_names(state: &State<Memory>) -> bool {
    everything(state).iter().skip(1).all(|(path, what)| {
        let is_named = |link| {
            let place = state.tables().link(link).unwrap().unwrap().place.unwrap().value;
            Some(&place.name) == path.last()
        };
        match what {
            // Nobody gave it one.
            What::Directory(d) if d.is_aside() => true,
            What::Directory(d) => d.all().len() == 1 && is_named(LinkId::of_directory(d.first())),
            What::File { link, .. } => is_named(*link),
            What::Beside { .. } => true,
        }
    })
}

/// Does what the differences say to a model, in the order that they promise.
fn apply(one: &State<Memory>, other: &State<Memory>, changes: &[Change]) -> Model {
    let mut model = model(one);
    let mut out: Vec<(&Path, Option<&Path>)> = Vec::new();
    for Change { path, what } in changes {
        match what {
            Difference::Renamed { from } => out.push((from, Some(path))),
            Difference::Removed(_) => out.push((path, None)),
            _ => {}
        }
    }
    out.sort();
    let mut held = BTreeMap::new();
    for (from, to) in out.into_iter().rev() {
        let some = beneath(&model, from);
        assert!(some.contains_key(from), "{from:?} was there");
        model.retain(|path, _| !some.contains_key(path));
        match to {
            Some(to) => drop(held.insert(to, (from, some))),
            None => assert_eq!(some.len(), 1, "what is in it is told of"),
        }
    }
    for Change { path, what } in changes {
        match what {
            Difference::Added(node) => {
                let thing = Thing::of(other, node.clone());
                assert_eq!(model.insert(path.clone(), thing), None, "{path:?}");
            }
            Difference::Renamed { .. } => {
                let (from, some) = held.remove(path).unwrap();
                for (old, node) in some {
                    let new = [&path[..], &old[from.len()..]].concat();
                    assert_eq!(model.insert(new, node), None, "{path:?}");
                }
            }
            _ => {}
        }
    }
    for Change { path, what } in changes {
        let Some(Thing { node, body }) = model.get_mut(path) else {
            assert!(matches!(what, Difference::Removed(_)), "{path:?} {what:?}");
            continue;
        };
        match what {
            Difference::Removed(_) | Difference::Added(_) | Difference::Renamed { .. } => {}
            Difference::Content { before, after } => {
                assert_eq!((node.held.size, body.clone()), Thing::held(one, before));
                (node.held.size, *body) = Thing::held(other, after);
            }
            Difference::Target { before, after } => {
                assert_eq!(node.kind, Kind::Symlink(before.clone()));
                node.kind = Kind::Symlink(after.clone());
            }
            Difference::Mode { before, after } => {
                assert_eq!(node.mode, *before);
                node.mode = *after;
            }
            Difference::Extended { name, before, after } => {
                assert_eq!(node.extended.get(name), before.as_ref());
                node.extended.remove(name);
                node.extended.extend(after.clone().map(|value| (name.clone(), value)));
            }
        }
    }
    model
}

fn diff_of(before: &State<Memory>, after: &State<Memory>) -> Vec<Change> {
    let Ok(changes) = diff::<_, _, Infallible>(before, after, &Blend);
    changes
}

fn restored(
    now: &State<Memory>,
    then: &State<Memory>,
    path: &[Name],
) -> Result<Vec<Op>, RestoreError<Infallible>> {
    let mut number = 0_u128;
    let fresh = || {
        number += 1;
        (number | 1 << 119).to_be_bytes()
    };
    restore(now, then, path, &Blend, fresh)
}

/// Holds a law to inputs at random: to one for each `per` that the environment asks for.
///
/// `proptest!` would run as many as that, whatever its configuration says.
#[track_caller]
fn hold<S: Strategy>(per: u32, inputs: &S, law: impl Fn(S::Value) -> TestCaseResult) {
    let usual = ProptestConfig::default();
    let (cases, source_file) = (usual.cases.div_ceil(per), Some(Location::caller().file()));
    let mut runner = TestRunner::new(ProptestConfig { cases, source_file, ..usual });
    runner.run(inputs, law).unwrap_or_else(|error| panic!("{error}"));
}

fn groups(peers: usize) -> impl Strategy<Value = Vec<(usize, Vec<Act>)>> {
    let group = (0..peers, proptest::collection::vec(act(), 1..4));
    proptest::collection::vec(group, 1..25)
}

fn play_groups(groups: &[(usize, Vec<Act>)]) -> World {
    let mut world = World::new();
    for (who, acts) in groups {
        for act in acts.iter().filter(|act| matches!(act, Act::Hear(_))) {
            world.act(*who, act);
        }
        act_at_once(&mut world, *who, acts);
    }
    world
}

/// Returns a version, as people name it: an entry and what its author had seen.
fn version(world: &World, number: usize) -> Option<State<Memory>> {
    let entry = pick(&world.entries, number)?;
    let mut seen = entry.seen.clone();
    seen.see(entry.id);
    Some(at(world, &seen))
}

fn now(world: &World) -> State<Memory> {
    done(world, &[])
}

#[test]
fn the_differences_make_one_tree_of_the_other() {
    hold(10, &(groups(PEERS), (any::<usize>(), any::<usize>())), |(groups, (one, other))| {
        let world = play_groups(&groups);
        let (Some(one), Some(other)) = (version(&world, one), version(&world, other)) else {
            return Ok(());
        };
        let changes = diff_of(&one, &other);
        prop_assert!(changes.is_sorted_by_key(|change| &change.path));
        prop_assert_eq!(apply(&one, &other, &changes), model(&other), "{:#?}", changes);
        prop_assert!(!changes.is_empty() || model(&one) == model(&other));
        Ok(())
    });
}

#[test]
fn what_is_restored_whole_is_as_it_was() {
    hold(10, &(groups(PEERS), any::<usize>()), |(groups, which)| {
        let world = play_groups(&groups);
        let Some(then) = version(&world, which) else { return Ok(()) };
        let ops = restored(&now(&world), &then, &[]).unwrap();
        let by_now = done(&world, &ops);
        prop_assert_eq!(model(&by_now), model(&then));
        prop_assert_eq!(restored(&by_now, &then, &[]).unwrap(), [], "once is enough");
        Ok(())
    });
}

#[test]
fn a_part_that_is_restored_is_as_it_was_and_no_other_name_changes() {
    hold(10, &(groups(PEERS), (any::<usize>(), any::<usize>())), |(groups, (which, part))| {
        let world = play_groups(&groups);
        let Some(then) = version(&world, which) else { return Ok(()) };
        let path = pick(&everything(&then), part).unwrap().0;
        let is_aside = |path: &Path| path.first().is_some_and(|name| name.bytes() == b".conflicts");
        let now = now(&world);
        if is_aside(&path) {
            prop_assert_eq!(restored(&now, &then, &path), Err(RestoreError::NotThere));
            return Ok(());
        }
        let ops = match restored(&now, &then, &path) {
            Ok(ops) => ops,
            Err(RestoreError::InTheWay(at)) => {
                prop_assert!(path.starts_with(&at));
                prop_assert_ne!(&model(&now)[&at].node.kind, &Kind::Directory);
                return Ok(());
            }
            Err(error) => panic!("{error:?}"),
        };
        let by_now = model(&done(&world, &ops));
        prop_assert_eq!(beneath(&by_now, &path), beneath(&model(&then), &path), "{:?}", path);
        let others = |model: &Model| -> Vec<Path> {
            let others = model.keys().filter(|at| !at.starts_with(&path) && !path.starts_with(at));
            // Versions beside a file go with a file that is restored.
            let is_version = |at: &Path| at.last().unwrap().bytes().contains(&b'@') || is_aside(at);
            others.filter(|at| !is_version(at)).cloned().collect()
        };
        prop_assert_eq!(others(&by_now), others(&model(&now)));
        Ok(())
    });
}

#[test]
fn the_newest_entry_undone_gives_the_tree_before() {
    hold(10, &(groups(PEERS), any::<usize>()), |(groups, which)| {
        let mut world = play_groups(&groups);
        world.entries.truncate(which % (world.entries.len() + 1));
        let Some(newest) = world.entries.pop() else { return Ok(()) };
        // It is the newest where its author was, and to him.
        world.entries.retain(|entry| newest.seen.covers(entry.id));
        let before = now(&world);
        world.entries.push(newest.clone());
        let after = now(&world);
        if has_plain_names(&before) && has_plain_names(&after) {
            let ops = undo(&newest.ops, &before, &after, &after);
            let ops = ops.unwrap_or_else(|error| panic!("{error:?}\n{newest:?}"));
            prop_assert_eq!(model(&done(&world, &ops)), model(&before), "{:?}", newest);
        }
        Ok(())
    });
}

/// What came later is there after it.
#[test]
fn what_is_undone_loses_nothing_that_came_after() {
    hold(10, &(groups(1), any::<usize>()), |(groups, which)| {
        let world = play_groups(&groups);
        let Some(entry) = pick(&world.entries, which) else { return Ok(()) };
        let before = at(&world, &entry.seen);
        let after = with(&before, &entry);
        let now = now(&world);
        let Ok(ops) = undo(&entry.ops, &before, &after, &now) else { return Ok(()) };
        let by_now = done(&world, &ops);
        let newest = world.entries.last().unwrap();
        for (place, op) in (0..).zip(&newest.ops).filter(|_| newest.id != entry.id) {
            let id = OpId { entry: newest.id, place };
            match op {
                Op::Write { file, .. } => {
                    let head = |state: &State<Memory>| {
                        state.tables().file(*file).unwrap().unwrap().heads.remove(&id)
                    };
                    prop_assert_eq!(head(&by_now), head(&now));
                }
                Op::Move { link, .. } => {
                    let place = |state: &State<Memory>| {
                        let record = state.tables().link(*link).unwrap().unwrap();
                        (record.place, record.deletes)
                    };
                    // Not all that was to be moved was.
                    if place(&now).0.is_some_and(|set| set.rank.op == id) {
                        prop_assert_eq!(place(&by_now), place(&now));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    });
}

/// What one peer does in one entry.
type Does<'a> = &'a dyn Fn(&State<Memory>) -> Vec<Op>;

/// Plays what one peer does.
fn played(entries: &[Does<'_>]) -> (World, Vec<State<Memory>>) {
    let mut world = World::new();
    let mut states = vec![State::default()];
    for (number, ops) in (0..).zip(entries) {
        let before = states.last().unwrap();
        let mut seen = Seen::new();
        world.entries.iter().for_each(|entry| seen.see(entry.id));
        let id = EntryId { feed: FeedId([1; 32]), number };
        let entry = Entry { id, lamport: number + 1, seen, ops: ops(before) };
        states.push(with(before, &entry));
        world.entries.push(entry);
    }
    (world, states)
}

fn named(text: &str) -> Name {
    Name::try_from(text.as_bytes()).unwrap()
}

fn make(number: u8, parent: FileId, name: &str, kind: Kind) -> Op {
    let (link, file) = match kind {
        Kind::Directory => {
            let file = FileId::of_directory(parent, name.as_bytes(), 0);
            (LinkId::of_directory(file), file)
        }
        _ => (LinkId::of_file([number; 16]), FileId::of_file([number; 16])),
    };
    let (mode, modified, name) = (0o644, Stamp::default(), named(name));
    Op::Create { link, file, parent, name, kind, mode, modified, former: 0 }
}

fn write(number: u8, text: &str, state: &State<Memory>) -> Op {
    let file = FileId::of_file([number; 16]);
    let known = state.tables().file(file).unwrap().unwrap_or_default();
    let (size, content) = (text.len() as u64, Content::Inline(text.as_bytes().to_vec()));
    Op::Write { file, size, content, base: known.heads.into_keys().collect(), fence: None }
}

fn told(changes: &[Change]) -> Vec<String> {
    let text = |path: &[Name]| {
        let names = path.iter().map(|name| name.bytes().escape_ascii().to_string());
        names.collect::<Vec<_>>().join("/")
    };
    let what = |what: &Difference| match what {
        Difference::Removed(_) => "removed".to_owned(),
        Difference::Added(_) => "added".to_owned(),
        Difference::Renamed { from } => format!("was {}", text(from)),
        Difference::Content { before, after } => format!("{} to {} bytes", before.size, after.size),
        Difference::Target { .. } => "target".to_owned(),
        Difference::Mode { before, after } => format!("{before:o} to {after:o}"),
        Difference::Extended { .. } => "attribute".to_owned(),
    };
    changes.iter().map(|change| format!("{}: {}", text(&change.path), what(&change.what))).collect()
}

#[test]
fn a_renamed_directory_is_one_difference_and_what_changed_in_it_another() {
    let d = FileId::of_directory(FileId::ROOT, b"d", 0);
    let (_, states) = played(&[
        &|s| {
            vec![
                make(0, FileId::ROOT, "d", Kind::Directory),
                make(1, d, "same", Kind::File),
                make(2, d, "changed", Kind::File),
                make(3, d, "gone", Kind::File),
                make(4, FileId::ROOT, "to", Kind::Symlink(b"x".to_vec())),
                write(1, "text", s),
            ]
        },
        &|s| {
            vec![
                Op::Move { link: LinkId::of_directory(d), parent: FileId::ROOT, name: named("e") },
                write(2, "more", s),
                Op::Delete { link: LinkId::of_file([3; 16]) },
                make(5, d, "new", Kind::File),
                Op::Delete { link: LinkId::of_file([4; 16]) },
                make(6, FileId::ROOT, "to", Kind::Symlink(b"y".to_vec())),
                Op::SetAttr { file: FileId::of_file([1; 16]), attribute: Attribute::Mode(0o600) },
            ]
        },
    ]);
    assert_eq!(
        told(&diff_of(&states[1], &states[2])),
        [
            "d/gone: removed",
            "e: was d",
            "e/changed: 0 to 4 bytes",
            "e/new: added",
            "e/same: 644 to 600",
            "to: target",
        ]
    );
}

#[test]
fn what_something_later_changed_is_not_undone_and_named() {
    let d = FileId::of_directory(FileId::ROOT, b"d", 0);
    let rename = |number: u8, name| {
        let link = LinkId::of_file([number; 16]);
        Op::Move { link, parent: FileId::ROOT, name: named(name) }
    };
    let (world, states) = played(&[
        &|s| {
            let dir = make(0, FileId::ROOT, "d", Kind::Directory);
            vec![dir, make(1, FileId::ROOT, "a", Kind::File), write(1, "one", s)]
        },
        &|s| vec![write(1, "two", s)],
        &|_| vec![rename(1, "b")],
        &|_| vec![make(2, FileId::ROOT, "a", Kind::File)],
        &|_| vec![make(3, d, "in", Kind::File)],
    ]);
    let now = states.last().unwrap();
    let undone = |which: usize| {
        let ops = &world.entries[which].ops;
        undo(ops, &states[which], &states[which + 1], now)
    };
    let refused = |which| match undone(which) {
        Err(UndoError::Changed(paths)) => {
            paths.iter().map(|path| format!("{path:?}")).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    // The file was written and renamed, the directory has something in it.
    assert_eq!(refused(0), ["[b]", "[d, in]"]);
    // Its name is taken.
    assert_eq!(refused(2), ["[a]"]);
    // Whatever its name is by now, its content is as the second left it.
    let by_now = model(&done(&world, &undone(1).unwrap()));
    assert_eq!(by_now[&vec![named("b")]].body, Body::Inline(b"one".to_vec()));
}

#[test]
fn what_is_large_is_restored_in_few_bytes_and_keeps_its_identity() {
    let file = FileId::of_file([1; 16]);
    let many = |first: u64| {
        let extents = (0..1000).map(|n| extent(first + n * 64, 7, 64)).collect();
        Content::Extents(extents)
    };
    let size = 70_000;
    let (world, states) = played(&[
        &|_| {
            let content = many(0);
            let write = Op::Write { file, size, content, base: vec![], fence: None };
            vec![make(1, FileId::ROOT, "a", Kind::File), write]
        },
        &|s| vec![write(1, "short", s)],
        &|_| vec![Op::Delete { link: LinkId::of_file([1; 16]) }],
    ]);
    let ops = restored(&states[3], &states[1], &[named("a")]).unwrap();
    let bytes = postcard::to_stdvec(&ops).unwrap();
    assert!(bytes.len() < 500, "{} bytes", bytes.len());
    let state = done(&world, &ops);
    assert_eq!(model(&state), model(&states[1]));
    assert!(state.tables().file(file).unwrap().unwrap().heads.len() == 1, "it is the same file");
}

/// A directory that was deleted shows for what was put into it meanwhile, and may be what takes a place.
#[test]
fn what_shows_only_for_what_is_in_it_stays_when_that_goes() {
    let d = FileId::of_directory(FileId::ROOT, b"d", 0);
    let second = FileId::of_directory(FileId::ROOT, b"d", 1);
    let made_again = Op::Create {
        link: LinkId::of_directory(second),
        file: second,
        parent: FileId::ROOT,
        name: named("d"),
        kind: Kind::Directory,
        mode: 0o644,
        modified: Stamp::default(),
        former: 1,
    };
    let (mut world, states) = played(&[
        &|_| vec![make(0, FileId::ROOT, "d", Kind::Directory)],
        &|_| {
            let link = LinkId::of_directory(d);
            vec![Op::Move { link, parent: FileId::ROOT, name: named("e") }, made_again.clone()]
        },
        &|_| vec![Op::Delete { link: LinkId::of_directory(second) }],
    ]);
    // Another knows nothing of the last.
    let mut seen = Seen::new();
    world.entries[..2].iter().for_each(|entry| seen.see(entry.id));
    let id = EntryId { feed: FeedId([2; 32]), number: 0 };
    let ops = vec![make(1, second, "in", Kind::File)];
    world.entries.push(Entry { id, lamport: 3, seen, ops });
    let now = now(&world);
    let path = [named("d")];
    assert!(model(&now).contains_key(&vec![named("d"), named("in")]));
    let by_now = model(&done(&world, &restored(&now, &states[1], &path).unwrap()));
    assert_eq!(beneath(&by_now, &path), beneath(&model(&states[1]), &path));
}
