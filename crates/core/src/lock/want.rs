//! What a request asks for, and which keys that takes: the table of the rules as code.

use super::key::{FileKey, Key, Keys};
use super::mode::Mode;
use crate::id::SpaceId;
use crate::path::ViewPath;

/// What is to be done. Each name is the one a person would look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Open an existing file, until its release.
    Open(Access),
    /// Make a file and open it.
    Create,
    /// Truncate by path.
    Truncate,
    /// Remove a file's name.
    Unlink,
    /// Give a file another name.
    Link,
    /// Rename or exchange; each place says whether it is a directory.
    Rename,
    /// Change the mode bits.
    Chmod,
    /// Change owner or group.
    Chown,
    /// Change the times.
    Utimens,
    /// Set or remove an extended attribute.
    Setxattr,
    /// Make a directory.
    Mkdir,
    /// Make a FIFO, socket or device, or an empty file.
    Mknod,
    /// Make a symbolic link.
    Symlink,
    /// Remove a directory.
    Rmdir,
    /// Hold files or directories over time.
    Hold(Access),
    /// A lock of the stateless HTTP interface.
    Lock(Access),
}

/// One writer or many readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    /// Shared with other readers.
    Read,
    /// Alone.
    Write,
}

impl Access {
    fn whole(self) -> Mode {
        match self {
            Access::Read => Mode::Shared,
            Access::Write => Mode::Exclusive,
        }
    }

    fn intent(self) -> Mode {
        match self {
            Access::Read => Mode::IntentShared,
            Access::Write => Mode::IntentExclusive,
        }
    }
}

/// One thing an operation touches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The space its name is in.
    pub space: SpaceId,
    /// Its name; `None` once an open file has lost it.
    pub path: Option<ViewPath>,
    /// What the name stands for.
    pub node: Node,
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// Nothing yet, or nothing that is locked by identity.
    None,
    /// A file with bytes.
    File(FileKey),
    /// A directory.
    Directory,
}

/// An operation on places: all that the lock table needs to know of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Want {
    /// What is to be done.
    pub op: Op,
    /// What it touches, one or more.
    pub places: Vec<Place>,
}

impl Op {
    /// Returns whether who gets this only reads.
    pub fn access(self) -> Access {
        match self {
            Op::Open(access) | Op::Hold(access) | Op::Lock(access) => access,
            _ => Access::Write,
        }
    }

    /// Returns the name people and logs use.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Open(_) => "open",
            Op::Create => "create",
            Op::Truncate => "truncate",
            Op::Unlink => "unlink",
            Op::Link => "link",
            Op::Rename => "rename",
            Op::Chmod => "chmod",
            Op::Chown => "chown",
            Op::Utimens => "utimens",
            Op::Setxattr => "setxattr",
            Op::Mkdir => "mkdir",
            Op::Mknod => "mknod",
            Op::Symlink => "symlink",
            Op::Rmdir => "rmdir",
            Op::Hold(_) => "hold",
            Op::Lock(_) => "lock",
        }
    }

    /// Returns whether its names follow the file: an open handle stays with what it opened.
    pub fn follows_file(self) -> bool {
        matches!(self, Op::Open(_))
    }

    /// Returns whether it lives longer than one call and is never passed by `read_wait`.
    pub fn is_hold(self) -> bool {
        matches!(self, Op::Hold(_) | Op::Lock(_))
    }
}

impl Want {
    /// Returns the keys that this takes.
    pub fn keys(&self) -> Keys {
        let mut keys = Keys::default();
        for place in &self.places {
            place.add_keys(self.op, &mut keys);
        }
        keys
    }
}

impl Place {
    fn add_keys(&self, op: Op, keys: &mut Keys) {
        self.add_file_key(op, keys);
        let Some(path) = &self.path else { return };
        let name = match op {
            Op::Hold(access) | Op::Lock(access) => access.whole(),
            Op::Create => Mode::Exclusive,
            _ => op.access().intent(),
        };
        keys.add(Key::Path(self.space, path.clone()), name);
        let holds = op.is_hold();
        for above in path.ancestors() {
            if holds {
                keys.add(Key::Holds(self.space, above.clone()), Mode::IntentExclusive);
            }
            if op == Op::Create {
                keys.add(Key::Names(self.space, above.clone()), Mode::IntentExclusive);
            }
            keys.add(Key::Tree(self.space, above), op.access().intent());
        }
        self.add_directory_keys(op, path, keys);
    }

    fn add_file_key(&self, op: Op, keys: &mut Keys) {
        let Node::File(file) = self.node else { return };
        let mode = match op {
            Op::Open(access) | Op::Hold(access) => access.whole(),
            Op::Truncate => Mode::Exclusive,
            Op::Unlink | Op::Link | Op::Rename => Mode::Shared,
            Op::Chmod | Op::Chown | Op::Utimens | Op::Setxattr => Mode::Shared,
            // A file that is being made is locked by its name alone until it exists.
            Op::Create | Op::Mkdir | Op::Mknod | Op::Symlink | Op::Rmdir | Op::Lock(_) => return,
        };
        keys.add(Key::File(file), mode);
    }

    fn add_directory_keys(&self, op: Op, path: &ViewPath, keys: &mut Keys) {
        let holds = || Key::Holds(self.space, path.clone());
        let names = || Key::Names(self.space, path.clone());
        let directory = self.node == Node::Directory;
        match op {
            Op::Lock(_) => keys.add(holds(), Mode::IntentExclusive),
            Op::Hold(access) if directory => {
                keys.add(Key::Tree(self.space, path.clone()), access.whole());
                keys.add(holds(), Mode::IntentExclusive);
            }
            Op::Rmdir if directory => keys.add(holds(), Mode::Exclusive),
            Op::Create => keys.add(names(), Mode::IntentExclusive),
            // One at a time changes what a name stands for: who has looked at it may rely on that.
            Op::Unlink => keys.add(names(), Mode::Exclusive),
            Op::Rename => {
                keys.add(names(), Mode::Exclusive);
                keys.add(holds(), Mode::Exclusive);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const FILE: Node = Node::File(FileKey { volume: 1, inode: 1, generation: 0 });

    /// Compares the keys of an operation on `d/n`, which is such a node, with those of the rules.
    #[track_caller]
    fn check(op: Op, node: Node, expected: &str) {
        let path = Some(ViewPath::parse(b"d/n").unwrap());
        let want = Want { op, places: vec![Place { space: SpaceId(1), path, node }] };
        let mut keys: Vec<String> = want.keys().iter().map(word).collect();
        keys.sort();
        assert_eq!(keys.join(" "), expected, "{op:?}");
    }

    fn word((key, mode): (&Key, Mode)) -> String {
        let mode = match mode {
            Mode::IntentShared => "IS",
            Mode::IntentExclusive => "IX",
            Mode::Shared => "S",
            Mode::Exclusive => "X",
        };
        match key {
            Key::File(_) => format!("F:{mode}"),
            Key::Path(_, path) => format!("P({path}):{mode}"),
            Key::Tree(_, path) => format!("T({path}):{mode}"),
            Key::Holds(_, path) => format!("H({path}):{mode}"),
            Key::Names(_, path) => format!("N({path}):{mode}"),
        }
    }

    #[test]
    fn what_is_open_has_its_bytes_and_announces_its_name() {
        check(Op::Open(Access::Read), FILE, "F:S P(d/n):IS T(.):IS T(d):IS");
        check(Op::Open(Access::Write), FILE, "F:X P(d/n):IX T(.):IX T(d):IX");
        check(Op::Truncate, FILE, "F:X P(d/n):IX T(.):IX T(d):IX");
    }

    #[test]
    fn who_changes_a_file_but_not_its_bytes_waits_for_its_writers() {
        for op in [Op::Link, Op::Chmod, Op::Chown, Op::Utimens, Op::Setxattr] {
            check(op, FILE, "F:S P(d/n):IX T(.):IX T(d):IX");
        }
    }

    #[test]
    fn one_at_a_time_takes_a_name_from_a_file_or_gives_it_to_another() {
        check(Op::Unlink, FILE, "F:S N(d/n):X P(d/n):IX T(.):IX T(d):IX");
        check(Op::Rename, FILE, "F:S H(d/n):X N(d/n):X P(d/n):IX T(.):IX T(d):IX");
        check(Op::Rename, Node::None, "H(d/n):X N(d/n):X P(d/n):IX T(.):IX T(d):IX");
    }

    #[test]
    fn what_is_made_has_a_name_alone() {
        check(Op::Create, Node::None, "N(.):IX N(d):IX N(d/n):IX P(d/n):X T(.):IX T(d):IX");
        for op in [Op::Mkdir, Op::Mknod, Op::Symlink] {
            check(op, Node::None, "P(d/n):IX T(.):IX T(d):IX");
        }
    }

    #[test]
    fn a_directory_that_moves_or_goes_waits_for_the_holds_beneath_it() {
        check(Op::Rmdir, Node::Directory, "H(d/n):X P(d/n):IX T(.):IX T(d):IX");
        check(Op::Rename, Node::Directory, "H(d/n):X N(d/n):X P(d/n):IX T(.):IX T(d):IX");
        check(Op::Rmdir, Node::None, "P(d/n):IX T(.):IX T(d):IX");
    }

    #[test]
    fn a_hold_is_announced_to_the_directories_above_it() {
        let (read, write) = (Op::Hold(Access::Read), Op::Hold(Access::Write));
        check(read, FILE, "F:S H(.):IX H(d):IX P(d/n):S T(.):IS T(d):IS");
        check(write, FILE, "F:X H(.):IX H(d):IX P(d/n):X T(.):IX T(d):IX");
        check(write, Node::None, "H(.):IX H(d):IX P(d/n):X T(.):IX T(d):IX");
        let all = "H(.):IX H(d):IX H(d/n):IX P(d/n):S T(.):IS T(d):IS T(d/n):S";
        check(read, Node::Directory, all);
        let all = "H(.):IX H(d):IX H(d/n):IX P(d/n):X T(.):IX T(d):IX T(d/n):X";
        check(write, Node::Directory, all);
    }

    /// Whatever stands there: who asks through HTTP names paths alone.
    #[test]
    fn a_lock_is_of_a_path() {
        let all = "H(.):IX H(d):IX H(d/n):IX P(d/n):S T(.):IS T(d):IS";
        check(Op::Lock(Access::Read), FILE, all);
        let all = "H(.):IX H(d):IX H(d/n):IX P(d/n):X T(.):IX T(d):IX";
        check(Op::Lock(Access::Write), Node::Directory, all);
    }

    #[test]
    fn operations_are_told_apart_by_their_names() {
        let each = [
            Op::Open(Access::Read),
            Op::Create,
            Op::Truncate,
            Op::Unlink,
            Op::Link,
            Op::Rename,
            Op::Chmod,
            Op::Chown,
            Op::Utimens,
            Op::Setxattr,
            Op::Mkdir,
            Op::Mknod,
            Op::Symlink,
            Op::Rmdir,
            Op::Hold(Access::Read),
            Op::Lock(Access::Read),
        ];
        let names: BTreeSet<&str> = each.into_iter().map(Op::as_str).collect();
        assert_eq!(names.len(), each.len());
    }
}
