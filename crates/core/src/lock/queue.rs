//! One key's holders and line.
//!
//! Counts by mode answer "is anything in the way" without a walk. Each waiter *watches* one key
//! that stops it; only a change of that key makes it look again. Waiters of one mode behind one
//! key are stopped alike, so a change wakes the first of each mode, and the next only when that one
//! gets through: a release costs the same with ten waiters and with ten thousand. Waiters that may
//! be kin of a holder are not alike, and are watched apart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::key::Key;
use super::mode::Mode;
use crate::id::Ticket;

/// A key somebody holds or waits for.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Queue {
    /// What it is the queue of.
    pub key: Key,
    /// Who is let in.
    pub holders: BTreeMap<Ticket, Mode>,
    held: [u32; 4],
    line: Option<Box<Line>>,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
struct Line {
    waiting: [BTreeSet<Ticket>; 4],
    watchers: [BTreeSet<Ticket>; 4],
    kin_watchers: BTreeSet<Ticket>,
}

impl Queue {
    pub fn new(key: Key) -> Queue {
        Queue { key, holders: BTreeMap::new(), held: [0; 4], line: None }
    }

    pub fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.line.is_none()
    }

    /// Panics unless the counts are those of the lists, and somebody is here.
    #[cfg(any(test, debug_assertions))]
    pub fn check(&self) {
        for mode in Mode::ALL {
            let holders = self.holders.values().filter(|held| **held == mode).count();
            assert_eq!(self.held[mode as usize] as usize, holders, "{:?}", self.key);
        }
        let waits = self.waiters().next().is_some();
        assert_eq!(self.line.is_some(), waits, "{:?}", self.key);
        assert!(waits || !self.holders.is_empty(), "nobody is here: {:?}", self.key);
    }

    /// Returns how many wait for it.
    pub fn length(&self) -> usize {
        let line = self.line.as_deref();
        line.map_or(0, |line| line.waiting.iter().map(BTreeSet::len).sum())
    }

    pub fn hold(&mut self, ticket: Ticket, mode: Mode) {
        let before = self.holders.insert(ticket, mode);
        assert!(before.is_none(), "a ticket holds a key once: {ticket} {:?}", self.key);
        self.held[mode as usize] += 1;
    }

    pub fn let_go(&mut self, ticket: Ticket) {
        let mode = self.holders.remove(&ticket).expect("a holder's keys name their holder");
        self.held[mode as usize] -= 1;
    }

    pub fn wait(&mut self, ticket: Ticket, mode: Mode) {
        self.line.get_or_insert_default().waiting[mode as usize].insert(ticket);
    }

    pub fn leave(&mut self, ticket: Ticket, mode: Mode) {
        let line = self.line.as_mut().expect("a waiter's keys have a line");
        line.waiting[mode as usize].remove(&ticket);
        if line.waiting.iter().all(BTreeSet::is_empty) {
            self.line = None;
        }
    }

    pub fn watch(&mut self, ticket: Ticket, mode: Mode, may_be_kin: bool) {
        let line = self.line.as_mut().expect("who watches, waits");
        if may_be_kin {
            line.kin_watchers.insert(ticket);
        } else {
            line.watchers[mode as usize].insert(ticket);
        }
    }

    pub fn unwatch(&mut self, ticket: Ticket, mode: Mode) {
        if let Some(line) = &mut self.line {
            line.watchers[mode as usize].remove(&ticket);
            line.kin_watchers.remove(&ticket);
        }
    }

    /// Returns whether anybody holds this in a mode that conflicts.
    pub fn is_held_against(&self, mode: Mode) -> bool {
        Mode::ALL.into_iter().any(|held| self.held[held as usize] > 0 && held.conflicts(mode))
    }

    /// Returns the holders that stand against `mode`, oldest first.
    pub fn holders_against(&self, mode: Mode) -> impl Iterator<Item = Ticket> + '_ {
        let any = self.is_held_against(mode);
        let holders = any.then_some(&self.holders).into_iter().flatten();
        holders.filter(move |(_, held)| held.conflicts(mode)).map(|(ticket, _)| *ticket)
    }

    /// Returns the waiters before `ticket` that stand against `mode`, oldest of each mode first.
    pub fn waiters_against(&self, mode: Mode, ticket: Ticket) -> impl Iterator<Item = Ticket> + '_ {
        self.waiters_between(mode, Ticket(0), ticket)
    }

    /// Returns those of them that do not stand before `from`, which is no later.
    pub fn waiters_between(
        &self,
        mode: Mode,
        from: Ticket,
        ticket: Ticket,
    ) -> impl Iterator<Item = Ticket> + '_ {
        let lines = self.line.iter().flat_map(|line| Mode::ALL.into_iter().zip(&line.waiting));
        lines
            .filter(move |(asked, _)| asked.conflicts(mode))
            .flat_map(move |(_, waiting)| waiting.range(from..ticket).copied())
    }

    /// Returns all who hold or wait and are later than `after`: of those who hold, and of the
    /// waiters of each mode, the oldest `most`.
    pub fn tickets(&self, after: Ticket, most: usize) -> impl Iterator<Item = Ticket> + '_ {
        let later = (Bound::Excluded(after), Bound::Unbounded);
        let holders = self.holders.range(later).map(|(ticket, _)| *ticket).take(most);
        let lines = self.line.iter().flat_map(|line| &line.waiting);
        holders.chain(lines.flat_map(move |waiting| waiting.range(later).copied().take(most)))
    }

    /// Returns all who wait here.
    pub fn waiters(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.line.iter().flat_map(|line| line.waiting.iter().flatten().copied())
    }

    /// Returns whether a ticket holds this in a mode that conflicts.
    pub fn is_held_by(&self, ticket: Ticket, mode: Mode) -> bool {
        self.holders.get(&ticket).is_some_and(|held| held.conflicts(mode))
    }

    /// Returns whether a ticket waits for this in a mode that conflicts.
    pub fn is_waited_for_by(&self, ticket: Ticket, mode: Mode) -> bool {
        let mut lines = self.line.iter().flat_map(|line| Mode::ALL.into_iter().zip(&line.waiting));
        lines.any(|(asked, waiting)| asked.conflicts(mode) && waiting.contains(&ticket))
    }

    /// Returns the oldest watcher of a mode.
    pub fn first_watcher(&self, mode: Mode) -> Option<Ticket> {
        self.line.as_ref()?.watchers[mode as usize].first().copied()
    }

    /// Returns who must look again when somebody here is gone: the oldest watcher of each mode,
    /// and all that may be kin of a holder.
    pub fn concerned(&self) -> impl Iterator<Item = Ticket> + '_ {
        let first = Mode::ALL.into_iter().filter_map(|mode| self.first_watcher(mode));
        first.chain(self.line.iter().flat_map(|line| line.kin_watchers.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SpaceId;
    use crate::path::ViewPath;

    #[test]
    fn only_holders_in_conflict_stand_against_a_mode() {
        let mut queue = Queue::new(Key::Path(SpaceId(1), ViewPath::root()));
        queue.hold(Ticket(1), Mode::Shared);
        assert!(queue.is_held_against(Mode::Exclusive));
        assert!(!queue.is_held_against(Mode::Shared));
        queue.let_go(Ticket(1));
        assert!(!queue.is_held_against(Mode::Exclusive));
    }

    #[test]
    fn a_line_is_as_long_as_those_in_it() {
        let mut queue = Queue::new(Key::Path(SpaceId(1), ViewPath::root()));
        assert_eq!(queue.length(), 0);
        queue.wait(Ticket(1), Mode::Shared);
        queue.wait(Ticket(2), Mode::Exclusive);
        assert_eq!(queue.length(), 2);
        queue.leave(Ticket(1), Mode::Shared);
        assert_eq!(queue.length(), 1);
        assert!(!queue.is_empty());
        queue.leave(Ticket(2), Mode::Exclusive);
        assert!(queue.is_empty());
    }
}
