//! Names move in one event with the operation that moved them.
//!
//! An open handle announced its name and the directories above it. When that name is removed the
//! announcement goes; when it moves, or a directory above it does, the announcement moves along.
//! What a handle has of the file itself stays. What is being created has but a name, until its file
//! is known: no name at or above it changes meanwhile. Holds are on names, and stay where they are.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::claim::Claim;
use super::super::event::{Change, Event, Part};
use super::super::key::Key;
use super::super::want::Place;
use super::Table;
use super::judge::Asker;
use crate::id::{SpaceId, Ticket};
use crate::path::ViewPath;

impl Table {
    /// Returns the new shapes of all claims whose names a change moved; `by` made the change.
    pub(super) fn reshapes(&self, change: &Change, by: Ticket) -> Vec<Event> {
        let mut touched = BTreeSet::new();
        for top in change.tops() {
            touched.extend(self.users_of(change.space(), top));
        }
        touched.remove(&by);
        touched.into_iter().flat_map(|ticket| self.reshaped(ticket, change)).collect()
    }

    /// Returns the claims that announced a path or something beneath it.
    fn users_of(&self, space: SpaceId, top: &ViewPath) -> impl Iterator<Item = Ticket> + '_ {
        let keys = [Key::Path(space, top.clone()), Key::Tree(space, top.clone())];
        keys.into_iter().filter_map(|key| self.queue(&key)).flat_map(|queue| {
            queue.holders.keys().copied().chain(queue.waiters()).collect::<Vec<_>>()
        })
    }

    fn reshaped(&self, ticket: Ticket, change: &Change) -> impl Iterator<Item = Event> {
        let slot = self.slot(ticket);
        let held = slot.held.as_ref().and_then(|held| moved(&held.claim, change));
        let held = held.map(|claim| {
            let asker = Asker { ticket, party: &claim.party, kin: &slot.kin };
            let claim = match self.fits(asker, &claim) {
                true => claim,
                // Where the new name lies under another's hold the handle keeps its file alone.
                false => claim.nameless(),
            };
            Event::Reshaped { ticket, part: Part::Held, claim: Arc::new(claim) }
        });
        let waiting = slot.waiting.as_ref().map(|waiting| &waiting.claim);
        let waiting = waiting.and_then(|claim| moved(claim, change)).map(|claim| {
            let part = Part::Waiting;
            Event::Reshaped { ticket, part, claim: Arc::new(claim) }
        });
        held.into_iter().chain(waiting)
    }
}

/// Returns the new shape of a claim, if a change moved its names.
fn moved(claim: &Claim, change: &Change) -> Option<Claim> {
    let follows = claim.want().op.follows_file();
    follows.then(|| claim.renamed(|place| new_name(place, change)))?
}

/// Returns the new name of a place, `Some(None)` if it has none any more, `None` if it stays.
fn new_name(place: &Place, change: &Change) -> Option<Option<ViewPath>> {
    let path = place.path.as_ref().filter(|_| change.space() == place.space)?;
    let moved = |from: &ViewPath, to: &ViewPath| {
        let rest = path.beneath(from)?;
        Some(rest.below(to).ok())
    };
    match change {
        Change::Removed { path: gone, .. } => (path == gone).then_some(None),
        Change::Renamed { from, to, .. } => {
            moved(from, to).or_else(|| (path == to).then_some(None))
        }
        Change::Exchanged { one, other, .. } => moved(one, other).or_else(|| moved(other, one)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SpaceId;
    use crate::lock::want::Node;

    fn path(text: &str) -> ViewPath {
        ViewPath::parse(text.as_bytes()).unwrap()
    }

    /// Says what a change in the first space does to `d/f` there, and in another one.
    #[track_caller]
    fn check(change: &Change, expected: Option<Option<&str>>) {
        let named = |space| {
            let place = Place { space: SpaceId(space), path: Some(path("d/f")), node: Node::None };
            new_name(&place, change)
        };
        assert_eq!(named(1), expected.map(|name| name.map(path)));
        assert_eq!(named(2), None, "another space has names of its own");
    }

    #[test]
    fn names_move_with_what_bears_them() {
        let space = SpaceId(1);
        check(&Change::Removed { space, path: path("d/f") }, Some(None));
        check(&Change::Removed { space, path: path("d") }, None);
        let renamed = |from, to| Change::Renamed { space, from: path(from), to: path(to) };
        check(&renamed("d/f", "g"), Some(Some("g")));
        check(&renamed("d", "e/d"), Some(Some("e/d/f")));
        check(&renamed("g", "d/f"), Some(None));
        check(&renamed("g", "h"), None);
        let exchanged =
            |one, other| Change::Exchanged { space, one: path(one), other: path(other) };
        check(&exchanged("d/f", "g"), Some(Some("g")));
        check(&exchanged("g", "d"), Some(Some("g/f")));
        check(&exchanged("g", "h"), None);
    }
}
