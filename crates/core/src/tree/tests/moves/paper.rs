//! The algorithm of the paper, nearly as its figure 4 has it: operations in their order, each with what it
//! replaced; an older one that comes late is done after all newer were undone, and then these again.
//!
//! Nothing of the tree's own code is in it but the names of things.

use std::collections::BTreeMap;

use super::super::Entry;
use crate::tree::id::{FileId, LinkId, OpId};
use crate::tree::op::{Name, Op};

/// To make something is to move it from nowhere.
#[derive(Clone)]
pub struct Move {
    time: (u64, OpId),
    parent: FileId,
    name: Name,
    child: LinkId,
}

pub struct Logged {
    op: Move,
    former: Option<(FileId, Name)>,
}

#[derive(Default)]
pub struct Replica {
    log: Vec<Logged>,
    /// Each child's parent, and its name there.
    pub tree: BTreeMap<LinkId, (FileId, Name)>,
}

impl Move {
    pub fn of(entry: &Entry) -> Move {
        let ([Op::Create { link, parent, name, .. }] | [Op::Move { link, parent, name }]) =
            &entry.ops[..]
        else {
            panic!("{entry:?}")
        };
        let time = (entry.lamport, OpId { entry: entry.id, place: 0 });
        Move { time, parent: *parent, name: name.clone(), child: *link }
    }
}

impl Replica {
    pub fn apply(&mut self, op: Move) {
        match self.log.pop() {
            Some(last) if op.time < last.op.time => {
                self.undo(&last);
                self.apply(op);
                self.perform(last.op);
            }
            last => {
                self.log.extend(last);
                self.perform(op);
            }
        }
    }

    fn perform(&mut self, op: Move) {
        let former = self.tree.get(&op.child).cloned();
        if !self.is_ancestor_or_same(op.child, op.parent) {
            self.tree.insert(op.child, (op.parent, op.name.clone()));
        }
        self.log.push(Logged { op, former });
    }

    fn undo(&mut self, Logged { op, former }: &Logged) {
        match former {
            Some(former) => self.tree.insert(op.child, former.clone()),
            None => self.tree.remove(&op.child),
        };
    }

    fn is_ancestor_or_same(&self, above: LinkId, below: FileId) -> bool {
        let below = LinkId::of_directory(below);
        let parent = self.tree.get(&below).map(|(parent, _)| *parent);
        above == below || parent.is_some_and(|parent| self.is_ancestor_or_same(above, parent))
    }
}
