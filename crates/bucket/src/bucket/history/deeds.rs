//! What an entry did, for people: a line for each path.

use std::collections::BTreeSet;
use std::fmt;

use gate_core::tree::id::FileId;
use gate_core::tree::op::{Attribute, Kind, Name, Op};

use super::places::Spot;

/// The most lines that are told of one entry.
pub const DEEDS_MAX: usize = 1000;

/// What was done to one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// What it is called after the entry, or was before if it is removed.
    pub path: Vec<Name>,
    /// In the order in which it was done.
    pub did: Vec<Did>,
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    Made(Made),
    /// A file that was there got this name, too.
    Named,
    Renamed {
        from: Vec<Name>,
    },
    /// It was removed before, and is there again.
    BroughtBack,
    Removed,
    Written {
        size: u64,
    },
    Mode(u32),
    Times,
    /// An extended attribute was set, or removed.
    Attribute {
        name: Vec<u8>,
        is_set: bool,
    },
    /// Of several versions some were given up.
    Settled,
}

/// What was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    File,
    Directory,
    Symlink,
}

/// What an entry did to one thing, and where that was.
#[derive(Debug)]
pub struct Done {
    pub file: Option<FileId>,
    pub before: Option<Spot>,
    /// It was there before the entry, and deleted.
    pub was_deleted: bool,
    pub after: Option<Spot>,
    pub did: Vec<Did>,
}

impl Did {
    /// Returns what an operation does to something.
    pub fn of(op: &Op, before: Option<&Spot>, was_deleted: bool) -> Did {
        match op {
            Op::Create { kind, .. } => Did::Made(match kind {
                Kind::File => Made::File,
                Kind::Directory => Made::Directory,
                Kind::Symlink(_) => Made::Symlink,
            }),
            Op::Link { .. } => Did::Named,
            Op::Move { .. } if was_deleted => Did::BroughtBack,
            Op::Move { .. } => {
                Did::Renamed { from: before.map(|spot| spot.path.clone()).unwrap_or_default() }
            }
            Op::Delete { .. } => Did::Removed,
            Op::Write { size, .. } => Did::Written { size: *size },
            Op::SetAttr { attribute, .. } => match attribute {
                Attribute::Mode(mode) => Did::Mode(*mode),
                Attribute::Modified(_) => Did::Times,
                Attribute::Extended { name, value } => {
                    Did::Attribute { name: name.clone(), is_set: value.is_some() }
                }
            },
            Op::Resolve { .. } => Did::Settled,
        }
    }
}

impl Done {
    /// Returns what it is, if it had that path.
    pub fn file_at(&self, path: &[Name]) -> Option<FileId> {
        let spots = [&self.before, &self.after].into_iter().flatten();
        spots.into_iter().any(|spot| spot.path == path).then_some(self.file).flatten()
    }

    /// Whether it is one of those, or was or is in one of them.
    pub fn is_in(&self, wanted: &BTreeSet<FileId>) -> bool {
        let spots = [&self.before, &self.after].into_iter().flatten();
        let within = spots.flat_map(|spot| &spot.within);
        self.file.iter().chain(within).any(|file| wanted.contains(file))
    }
}

/// Returns a line for each path, in their order.
pub fn lines(done: Vec<Done>) -> Vec<Deed> {
    let mut lines: Vec<Deed> = done.into_iter().filter_map(line).collect();
    lines.sort_by(|a, b| a.path.cmp(&b.path));
    // When something in it comes or goes, a directory has another time.
    let changed: BTreeSet<Vec<Name>> = lines.iter().filter_map(|line| parent(&line.path)).collect();
    lines.retain(|line| line.did != [Did::Times] || !changed.contains(&line.path));
    lines
}

fn parent(path: &[Name]) -> Option<Vec<Name>> {
    path.split_last().map(|(_, parent)| parent.to_vec())
}

fn line(done: Done) -> Option<Deed> {
    let Done { before, after, mut did, .. } = done;
    let is_gone = did.iter().rev().find_map(|one| match one {
        Did::Removed => Some(true),
        Did::Made(_) | Did::Named | Did::Renamed { .. } | Did::BroughtBack => Some(false),
        _ => None,
    });
    let is_new = did.iter().any(|one| matches!(one, Did::Made(_) | Did::Named));
    if is_gone == Some(true) {
        // What came and went within an entry nobody saw.
        let path = before.filter(|_| !is_new)?.path;
        return Some(Deed { path, did: vec![Did::Removed] });
    }
    let path = after.or(before)?.path;
    let is_made = did.iter().any(|one| matches!(one, Did::Made(_)));
    did.retain(|one| match one {
        // Who makes something writes it, and says what it is like.
        Did::Written { .. } | Did::Mode(_) | Did::Times => !is_made,
        Did::Renamed { from } => !is_new && *from != path,
        _ => true,
    });
    // Who writes sets the time.
    let is_written = did.iter().any(|one| matches!(one, Did::Written { .. }));
    did.retain(|one| !is_written || *one != Did::Times);
    // Of what was done twice the last counts.
    let mut kept: Vec<Did> = Vec::new();
    for one in did.into_iter().rev() {
        let is_there = |there: &Did| match (there, &one) {
            (Did::Attribute { name, .. }, Did::Attribute { name: other, .. }) => name == other,
            (there, one) => std::mem::discriminant(there) == std::mem::discriminant(one),
        };
        if !kept.iter().any(is_there) {
            kept.push(one);
        }
    }
    kept.reverse();
    (!kept.is_empty()).then_some(Deed { path, did: kept })
}

/// Returns a path as people write it.
pub fn text(path: &[Name]) -> String {
    let names = path.iter().map(|name| name.bytes().escape_ascii().to_string());
    format!("/{}", names.collect::<Vec<_>>().join("/"))
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let did: Vec<_> = self.did.iter().map(Did::to_string).collect();
        write!(f, "{}: {}", text(&self.path), did.join(", "))
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Did::Made(Made::File) => f.write_str("made"),
            Did::Made(Made::Directory) => f.write_str("made, a directory"),
            Did::Made(Made::Symlink) => f.write_str("made, a symbolic link"),
            Did::Named => f.write_str("another name"),
            Did::Renamed { from } => write!(f, "renamed from {}", text(from)),
            Did::BroughtBack => f.write_str("brought back"),
            Did::Removed => f.write_str("removed"),
            Did::Written { size } => write!(f, "written, {size} bytes"),
            Did::Mode(mode) => write!(f, "mode {mode:o}"),
            Did::Times => f.write_str("times"),
            Did::Attribute { name, is_set: true } => {
                write!(f, "attribute {}", name.escape_ascii())
            }
            Did::Attribute { name, is_set: false } => {
                write!(f, "attribute {} removed", name.escape_ascii())
            }
            Did::Settled => f.write_str("settled"),
        }
    }
}
