//! What changes in a source beside its view.

use std::ffi::CString;
use std::time::Duration;

use gate_fuse::NodeId;
use rustc_hash::FxHashSet;

/// Changes that wait to be looked at, each but once. With more, anything may have changed.
const CHANGES_MAX: usize = 16_384;

/// Changes of others that watchers are yet to be told of; with more, they miss some, as they do with
/// too many events.
const OTHERS_MAX: usize = 16_384;

/// Who hears of changes.
pub trait News: Send + Sync {
    /// Waits until there may be something to be heard ([`Source::heard`](super::Source::heard)), at most
    /// for so long; `None` once there is nothing more to wait for, as when the source is dropped.
    fn wait(&self, patience: Option<Duration>) -> Option<()>;
}

/// What was told of a source.
#[derive(Debug, Default)]
pub struct Heard {
    /// What may have changed.
    pub changes: FxHashSet<Change>,
    /// What others did, in their order.
    pub by_others: Vec<Happening>,
}

/// What may have changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// What bears this name in that directory, and the directory.
    Name(NodeId, CString),
    /// Anything: there were more changes than the kernel remembers.
    Anything,
}

/// What happened to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// The directory.
    pub directory: NodeId,
    /// The name.
    pub name: CString,
    /// What was done.
    pub what: What,
    /// The same of both halves of a rename, and of nothing else; 0 if it is none.
    pub rename: u32,
    /// Whether it is, or was, the name of a directory.
    pub is_directory: bool,
}

/// What is done to what bears a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// It came to be.
    Made,
    /// It was removed.
    Gone,
    /// It got another name …
    MovedFrom,
    /// … which is this.
    MovedTo,
    /// Its content was changed.
    Written,
    /// Who might write to it has closed it.
    Closed,
    /// Its attributes were changed.
    Attributes,
}

impl What {
    /// Whether a name leads elsewhere by it, or no longer, or only now.
    pub(crate) fn is_of_name(self) -> bool {
        match self {
            What::Made | What::Gone | What::MovedFrom | What::MovedTo => true,
            What::Written | What::Closed | What::Attributes => false,
        }
    }
}

impl Heard {
    /// Whether nothing was told.
    pub fn is_nothing(&self) -> bool {
        self.changes.is_empty() && self.by_others.is_empty()
    }

    /// Adds a change; with more than are kept, anything may have changed.
    pub fn change(&mut self, change: Change) {
        if self.changes.len() >= CHANGES_MAX {
            self.changes.clear();
            self.changes.insert(Change::Anything);
        }
        self.changes.insert(change);
    }

    /// Adds what others did, unless watchers miss it.
    pub fn others_did(&mut self, happening: Happening) {
        if self.by_others.len() < OTHERS_MAX {
            self.by_others.push(happening);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_bound() {
        let mut heard = Heard::default();
        for node in 0..=2 * CHANGES_MAX as u64 {
            heard.change(Change::Name(NodeId(node), c"n".to_owned()));
        }
        assert!(heard.changes.len() <= CHANGES_MAX && heard.changes.contains(&Change::Anything));
    }
}
