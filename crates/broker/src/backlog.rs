//! Connections in the order in which they are to be heard further, each once.

use std::collections::VecDeque;

use rustc_hash::FxHashSet;

use crate::mail::ConnectionId;

#[derive(Default)]
pub(crate) struct Backlog {
    line: VecDeque<ConnectionId>,
    members: FxHashSet<ConnectionId>,
}

impl Backlog {
    /// Puts a connection at the end, unless it stands in line already.
    pub fn push_back(&mut self, id: ConnectionId) {
        if self.members.insert(id) {
            self.line.push_back(id);
        }
    }

    pub fn pop_front(&mut self) -> Option<ConnectionId> {
        let id = self.line.pop_front()?;
        self.members.remove(&id);
        Some(id)
    }

    pub fn contains(&self, id: &ConnectionId) -> bool {
        self.members.contains(id)
    }

    pub fn len(&self) -> usize {
        self.line.len()
    }
}
