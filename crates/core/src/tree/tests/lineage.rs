//! What versions have in common, and what is shown of those that merge.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::lineage::HEADS_MAX;
use super::super::record::FileRecord;
use super::super::shown::{Lens, Merged};
use super::*;

/// Merges some versions and not others, by what is in them and in what they have in common alone.
pub struct Blend;

impl Lens for Blend {
    fn label(&self, feed: &FeedId) -> String {
        label(feed)
    }

    fn merged<T: Look>(
        &self,
        state: &State<T>,
        record: &FileRecord,
    ) -> Result<Option<Merged>, T::Error> {
        let heads: Vec<OpId> = record.heads.keys().copied().collect();
        let Some(base) = state.common_base(&heads)? else { return Ok(None) };
        let in_turn = record.by_rank().into_iter().map(|(id, _)| *id);
        let mut all = Vec::new();
        for id in in_turn.chain([base]) {
            let whole = state.whole(id)?.unwrap();
            all.extend(postcard::to_stdvec(&(whole.size, whole.body)).unwrap());
        }
        let hash = blake3::hash(&all);
        let bytes = hash.as_bytes()[..8].to_vec();
        let body = Arc::new(Body::Inline(bytes));
        Ok((hash.as_bytes()[8] < 200).then_some(Merged { size: 8, body }))
    }
}

/// Returns a version and all in whose place it came, in one step or in many.
fn past(entries: &[Entry], of: OpId) -> BTreeSet<OpId> {
    let mut all = BTreeSet::from([of]);
    let mut left = vec![of];
    while let Some(id) = left.pop() {
        let entry = entries.iter().find(|entry| entry.id == id.entry).unwrap();
        let Op::Write { base, .. } = &entry.ops[id.place as usize] else { panic!("{id:?}") };
        left.extend(base.iter().filter(|id| all.insert(**id)));
    }
    all
}

fn naive(entries: &[Entry], heads: &[OpId]) -> Option<OpId> {
    let mut pasts = heads.iter().map(|head| past(entries, *head));
    let first = pasts.next()?;
    let common = pasts.fold(first, |common, past| &common & &past);
    let is_nearest = |id: &&OpId| {
        common.iter().all(|other| other == *id || !past(entries, *other).contains(*id))
    };
    match common.iter().filter(is_nearest).collect::<Vec<_>>()[..] {
        [one] => Some(*one),
        _ => None,
    }
}

proptest! {
    #[test]
    fn what_versions_have_in_common_is_the_newest_that_all_came_in_place_of(
        acts in acts(30),
        choices in proptest::collection::vec(0..97_usize, 1..30),
    ) {
        let mut world = play(&[]);
        for (who, act) in &acts {
            world.act(*who, act);
        }
        // Also of what nobody knows yet of each other.
        let written = world.entries.iter().flat_map(|entry| {
            let ids = (0..).map(|place| OpId { entry: entry.id, place });
            let is_write = |(_, op): &(OpId, &Op)| matches!(op, Op::Write { .. });
            ids.zip(&entry.ops).filter(is_write).map(|(id, _)| id)
        });
        let written: Vec<_> = written.collect();
        world.all_hear_all();
        let (state, reordered) = (&world.peers[0].state, world.reordered(&choices));
        let records = look(state).links.into_iter().map(|(_, file)| state.file(file).unwrap());
        let heads = records.map(|record| record.heads.into_keys().collect::<Vec<_>>());
        let some = choices.windows(3).map(|three| {
            three.iter().filter_map(|n| pick(&written, *n)).collect::<Vec<_>>()
        });
        for several in heads.chain(some) {
            let expected = naive(&world.entries, &several);
            prop_assert_eq!(state.common_base(&several).unwrap(), expected);
            let turned: Vec<_> = several.into_iter().rev().collect();
            prop_assert_eq!(reordered.common_base(&turned).unwrap(), expected);
        }
    }
}

fn heads(world: &World) -> Vec<OpId> {
    let state = &world.peers[0].state;
    let (_, file) = look(state).links[0];
    state.file(file).unwrap().heads.into_keys().collect()
}

/// Two write at the same time what both had, and then each in place of both.
#[test]
fn versions_that_have_two_things_in_common_have_none() {
    let mut world = World::new();
    world.put(0, "f", "0");
    world.all_hear_all();
    let first = heads(&world)[0];
    for round in ["A", "B"] {
        (0..2).for_each(|who| world.write(who, "f", round));
        world.all_hear_all();
        let expected = (round == "A").then_some(first);
        assert_eq!(world.peers[2].state.common_base(&heads(&world)).unwrap(), expected);
    }
    // Who writes in place of all ends it.
    world.write(0, "f", "C");
    world.all_hear_all();
    let one = heads(&world)[0];
    (0..PEERS).for_each(|who| world.write(who, "f", "D"));
    world.all_hear_all();
    assert_eq!(world.peers[1].state.common_base(&heads(&world)).unwrap(), Some(one));
    assert_eq!(world.peers[1].state.common_base(&vec![one; HEADS_MAX + 1]).unwrap(), None);
}

/// What merges is shown as one, but for what is apart under one of its names.
#[test]
fn versions_that_merge_are_not_beside() {
    let mut world = World::new();
    world.make(0, ".git", Kind::Directory);
    world.put(0, "f", "0");
    world.all_hear_all();
    // Whether these merge is up to what is in them.
    let mut tried = 0;
    while tried < 100 {
        (0..2).for_each(|who| world.write(who, "f", &format!("{tried} of {who}")));
        world.all_hear_all();
        let state = &world.peers[0].state;
        let (root, at) = (Directory::root(), Name::try_from(&b"f"[..]).unwrap());
        let what = state.find(&root, &at, &Blend).unwrap().unwrap();
        let node = state.node(&what, &Blend).unwrap();
        let names = state.list(&root, &Blend).unwrap().len();
        assert_eq!(state.list(&root, &label).unwrap().len(), 3);
        assert_eq!(state.node(&what, &label).unwrap().held.merged, None);
        if node.held.merged.is_some() {
            assert_eq!((names, node.held.size, node.held.version), (2, 8, None));
            let Body::Inline(bytes) = state.body_of(&node.held).unwrap() else {
                panic!("{node:?}")
            };
            assert_eq!(bytes.len(), 8);
            break;
        }
        assert_eq!(names, 3);
        world.write(0, "f", "again");
        world.all_hear_all();
        tried += 1;
    }
    assert!(tried < 100, "some merge");
    world.rename(1, "f", ".git/f");
    let state = &world.peers[1].state;
    let list = state.list(&Directory::root(), &Blend).unwrap();
    let names: Vec<_> = list.iter().map(|shown| shown.name.bytes()).collect();
    assert_eq!(names, [&b".conflicts"[..], b".git"]);
}
