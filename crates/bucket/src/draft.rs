//! A change of the tree, told by paths: what becomes one entry.
//!
//! Whoever drafts sees the tree as it is and what was drafted so far. Nothing is done before the whole is
//! committed (`bucket`), and each thing that is asked for is drafted whole or refused.
//! Not here: the bytes of files (`vault`). What the errors mean to a kernel is said where one asks.

mod error;
mod rename;

use gate_core::tree::id::{Address, EntryId, FileId, LinkId, OpId};
use gate_core::tree::op::{Attribute, Content, Kind, Name, Op, Stamp};
use gate_core::tree::overlay::{Changes, Overlay};
use gate_core::tree::record::{FileRecord, LinkRecord, Rank};
use gate_core::tree::seen::Seen;
use gate_core::tree::shown::{Directory, Merged, What};
use gate_core::tree::state::State;
use gate_core::tree::tables::Look;
use gate_core::tree::walk::TreePath;

pub use error::DraftError;
pub use rename::Over;

use crate::bucket::Tree;
use crate::entry::{CHUNKS_MAX, ENTRY_BYTES_MAX, OPS_MAX};
use crate::merge::TextLens;
use crate::parts;
use crate::random;
use crate::record;
use crate::shelf::{ShelfError, Snapshot};
use crate::vault::Stored;

/// The most bytes of a draft: of its operations, and [`CHUNK_BYTES`] for each chunk that it brings. The rest of
/// an entry is for what else there is in it.
pub const DRAFT_BYTES_MAX: usize = ENTRY_BYTES_MAX - 64 * 1024;
/// The most operations of a draft. A new file is two.
pub const DRAFT_OPS_MAX: usize = OPS_MAX;
/// The most chunks of a draft.
pub const DRAFT_CHUNKS_MAX: usize = CHUNKS_MAX;
/// The most entries that come before that of a draft: those of one version, and of some shorter ones.
const BEFORE_MAX: usize = 64;
/// What the name of a chunk takes.
pub const CHUNK_BYTES: usize = size_of::<Address>();

/// A change that is being made up.
pub struct Draft {
    state: State<Overlay<Snapshot>>,
    lens: TextLens,
    /// The entry that it becomes, and what that has seen.
    next: Next,
    ops: Vec<Op>,
    /// So many were done in the state, those among them that were taken back.
    applied: usize,
    chunks: Vec<Address>,
    bytes: usize,
    /// Parts of long versions: each an entry of its own before that of the draft.
    before: Vec<Ahead>,
    /// How the ids of all that it makes begin: what is made together lies together in the index.
    beginning: [u8; 8],
}

/// What a draft becomes: one entry, and others before it with parts of what is written in that.
#[derive(Debug)]
pub(crate) struct Entries {
    pub before: Vec<Ahead>,
    pub ops: Vec<Op>,
    pub chunks: Vec<Address>,
    /// What follows from the one entry, if it is the only one.
    pub drafted: Option<Drafted>,
}

/// What follows from an entry if it becomes what it was drafted as.
#[derive(Debug)]
pub(crate) struct Drafted {
    pub next: Next,
    pub changes: Changes,
}

/// An entry with a part of a long version, and the chunks that it brings.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub op: Op,
    pub chunks: Vec<Address>,
}

/// What an entry is before anything is in it.
#[derive(Clone, Debug)]
pub(crate) struct Next {
    pub id: EntryId,
    pub lamport: u64,
    pub seen: Seen,
}

/// What a new node or a new version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, 0o7777.
    pub mode: u32,
    pub modified: Stamp,
}

impl Draft {
    pub(crate) fn new(beneath: Tree, lens: TextLens, next: Next) -> Draft {
        let state = State::new(Overlay::new(beneath.into_tables()));
        let (lens, beginning) = (lens.with_draft(next.id), random::bytes());
        let (ops, applied, chunks, bytes, before) = Default::default();
        Draft { state, lens, next, ops, applied, chunks, bytes, before, beginning }
    }

    /// Returns what it becomes, by the numbers that the entries get.
    pub(crate) fn into_entries(self) -> Entries {
        let Draft { state, mut ops, chunks, mut before, next, applied, .. } = self;
        let (first, count) = (next.id.number, before.len() as u64);
        // While it was drafted nobody knew how many come before it: those had the numbers after its own.
        let number = |id: &mut OpId| {
            if id.entry.feed == next.id.feed && id.entry.number >= first {
                let place = id.entry.number - first;
                id.entry.number = first + if place == 0 { count } else { place - 1 };
            }
        };
        for op in before.iter_mut().map(|ahead| &mut ahead.op).chain(&mut ops) {
            versions(op).for_each(number);
        }
        let (is_all, changes) = (applied == ops.len(), state.into_tables().into_changes());
        let drafted = (is_all && before.is_empty()).then_some(Drafted { next, changes });
        Entries { before, ops, chunks, drafted }
    }

    /// Returns the tree with all that was drafted so far.
    pub fn tree(&self) -> &State<impl Look<Error = ShelfError>> {
        &self.state
    }

    /// Returns what that is looked at through.
    pub fn lens(&self) -> &TextLens {
        &self.lens
    }

    /// Returns what was drafted.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Whether an operation is one of those that were drafted.
    pub(crate) fn is_own(&self, op: OpId) -> bool {
        op.entry == self.next.id
    }

    /// Drafts operations once more.
    pub(crate) fn redo(&mut self, ops: Vec<Op>) -> Result<(), DraftError> {
        self.push(ops, &[])
    }

    /// Takes back the newest operations, which are seen until the rest is drafted once more.
    pub(crate) fn take_back(&mut self, to: usize) {
        self.ops.truncate(to);
    }

    /// Takes the first operations off, which were committed: what they did stays to be seen.
    pub(crate) fn forget(&mut self, done: usize) {
        self.ops.drain(..done);
    }

    /// Whether there may soon be no room for more.
    pub(crate) fn is_crowded(&self) -> bool {
        self.bytes > DRAFT_BYTES_MAX / 2 || self.ops.len() > DRAFT_OPS_MAX / 2
    }

    /// Whether nothing was drafted.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Returns what is at a path.
    pub fn find(&self, path: &TreePath) -> Result<What, DraftError> {
        Ok(self.state.walk(path.names(), &self.lens)?)
    }

    /// Makes a directory where nothing is.
    pub fn make_directory(&mut self, path: &TreePath, meta: Meta) -> Result<(), DraftError> {
        let (parent, name) = self.place(path)?.ok_or(DraftError::Exists)?;
        self.make_directory_at(&parent, name, meta)
    }

    /// As [`Draft::make_directory`], in a directory that is known.
    pub fn make_directory_at(
        &mut self,
        parent: &Directory,
        name: &Name,
        meta: Meta,
    ) -> Result<(), DraftError> {
        self.check_free(parent, name)?;
        self.make_directory_in(parent, name, meta)
    }

    /// Makes a directory and all on the way to it, as far as they are not there.
    pub fn make_directories(&mut self, path: &TreePath, meta: Meta) -> Result<(), DraftError> {
        let mut at = Directory::root();
        for name in path.names() {
            if self.at(&at, name)?.is_none() {
                self.make_directory_in(&at, name, meta)?;
            }
            at = match self.at(&at, name)? {
                Some(What::Directory(directory)) => directory,
                Some(_) => return Err(DraftError::NotADirectory),
                None => return Err(DraftError::NotFound),
            };
        }
        Ok(())
    }

    /// Puts a file where nothing is, or a new version of the file that is there.
    pub fn put(&mut self, path: &TreePath, stored: &Stored, meta: Meta) -> Result<(), DraftError> {
        let (parent, name) = self.place(path)?.ok_or(DraftError::IsADirectory)?;
        if self.before.len() + parts::count(&stored.content) > BEFORE_MAX && !self.is_empty() {
            return Err(DraftError::Full);
        }
        let Stored { size, content, chunks } = stored.clone();
        let file = FileId::of_file(self.id());
        let mut parts = parts::cut(content, chunks);
        let last = parts.pop().expect("there is one at least");
        let mut before = Vec::new();
        let mut of = None;
        for part in parts {
            let chunks = part.chunks.clone();
            before.push(Ahead { op: parts::write(file, size, part.content(of)), chunks });
            of = Some(self.id_ahead(before.len()));
        }
        let chunks = last.chunks.clone();
        let ops = self.ops_to_put(&parent, name, (size, last.content(of)), meta)?;
        self.push(ops, &chunks)?;
        for ahead in before {
            let rank = Rank { lamport: self.next.lamport, op: self.id_ahead(1) };
            self.state.apply_one(rank, &self.next.seen, &ahead.op)?;
            self.before.push(ahead);
        }
        Ok(())
    }

    /// Returns what names the part that is so many places behind the last.
    fn id_ahead(&self, place: usize) -> OpId {
        let EntryId { feed, number } = self.next.id;
        let number = number + (self.before.len() + place) as u64;
        OpId { entry: EntryId { feed, number }, place: 0 }
    }

    /// Makes a symbolic link where nothing is.
    pub fn symlink(
        &mut self,
        path: &TreePath,
        target: &[u8],
        modified: Stamp,
    ) -> Result<(), DraftError> {
        let (parent, name) = self.place(path)?.ok_or(DraftError::Exists)?;
        let kind = Kind::Symlink(target.to_vec());
        self.make_file_at(&parent, name, kind, Meta { mode: 0o777, modified }).map(drop)
    }

    /// Makes a symbolic link, or a file that nobody wrote yet, in a directory that is known, where nothing is.
    pub fn make_file_at(
        &mut self,
        parent: &Directory,
        name: &Name,
        kind: Kind,
        meta: Meta,
    ) -> Result<(LinkId, FileId), DraftError> {
        self.check_free(parent, name)?;
        let (create, link, file) = self.create(parent, name, kind, meta);
        self.push(vec![create], &[])?;
        Ok((link, file))
    }

    /// Gives a file another name.
    pub fn link(&mut self, path: &TreePath, other: &TreePath) -> Result<(), DraftError> {
        let file = match self.find(path)? {
            What::File { file, .. } => file,
            What::Directory(_) => return Err(DraftError::IsADirectory),
            What::Beside { .. } => return Err(DraftError::IsBeside),
        };
        let (parent, name) = self.place(other)?.ok_or(DraftError::Exists)?;
        self.link_at(file, &parent, name).map(drop)
    }

    /// As [`Draft::link`], in a directory that is known.
    pub fn link_at(
        &mut self,
        file: FileId,
        parent: &Directory,
        name: &Name,
    ) -> Result<LinkId, DraftError> {
        self.check_free(parent, name)?;
        let (link, parent) = (LinkId::of_file(self.id()), parent.first());
        self.push(vec![Op::Link { link, file, parent, name: name.clone() }], &[])?;
        Ok(link)
    }

    /// As [`Draft::make_file_at`], of a file that had no name before.
    pub(crate) fn name_at(
        &mut self,
        file: FileId,
        parent: &Directory,
        name: &Name,
        kind: Kind,
        Meta { mode, modified }: Meta,
    ) -> Result<LinkId, DraftError> {
        self.check_free(parent, name)?;
        let (link, parent, name) = (LinkId::of_file(self.id()), parent.first(), name.clone());
        let create = Op::Create { link, file, parent, name, kind, mode, modified, former: 0 };
        self.push(vec![create], &[])?;
        Ok(link)
    }

    /// Takes away a name, or a directory in which nothing is.
    pub fn remove(&mut self, path: &TreePath) -> Result<(), DraftError> {
        let what = self.find(path)?;
        if path.names().is_empty() {
            return Err(DraftError::IsRoot);
        }
        self.remove_this(&what)
    }

    /// As [`Draft::remove`], of what was found.
    pub fn remove_this(&mut self, what: &What) -> Result<(), DraftError> {
        match what {
            What::Directory(directory) if directory.is_aside() => Err(DraftError::IsBeside),
            What::Directory(directory) if !self.is_vacant(directory)? => Err(DraftError::NotEmpty),
            what => self.push(removal(what), &[]),
        }
    }

    /// Takes away a name, and what is beneath it if that is a directory.
    pub fn remove_all(&mut self, path: &TreePath) -> Result<(), DraftError> {
        let what = self.find(path)?;
        if path.names().is_empty() {
            return Err(DraftError::IsRoot);
        }
        if let What::Directory(directory) = &what {
            check_open(directory)?;
        }
        // What is in a directory goes before it: one in which something lives stays.
        let mut ops = Vec::new();
        let mut met = vec![what];
        while let Some(what) = met.pop() {
            if let What::Directory(directory) = &what {
                let list = self.state.list(directory, &self.lens)?;
                let here = list.into_iter().map(|shown| shown.what);
                met.extend(here.filter(|what| !matches!(what, What::Beside { .. })));
            }
            ops.extend(removal(&what));
            if ops.len() > DRAFT_OPS_MAX {
                return Err(self.full());
            }
        }
        ops.reverse();
        self.push(ops, &[])
    }

    /// Sets the permission bits of what is at a path, 0o7777.
    pub fn set_mode(&mut self, path: &TreePath, mode: u32) -> Result<(), DraftError> {
        self.set(path, Attribute::Mode(mode))
    }

    /// Sets when what is at a path was modified.
    pub fn set_modified(&mut self, path: &TreePath, modified: Stamp) -> Result<(), DraftError> {
        self.set(path, Attribute::Modified(modified))
    }

    /// Sets an extended attribute of what is at a path, or removes it.
    pub fn set_extended(
        &mut self,
        path: &TreePath,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), DraftError> {
        let (name, value) = (name.to_vec(), value.map(<[u8]>::to_vec));
        self.set(path, Attribute::Extended { name, value })
    }

    fn set(&mut self, path: &TreePath, attribute: Attribute) -> Result<(), DraftError> {
        let what = self.find(path)?;
        if let What::Directory(directory) = &what {
            check_open(directory)?;
        }
        self.set_attribute(what.file(), attribute)
    }

    /// Sets an attribute of a file or a directory that is known.
    pub fn set_attribute(&mut self, file: FileId, attribute: Attribute) -> Result<(), DraftError> {
        self.push(vec![Op::SetAttr { file, attribute }], &[])
    }

    /// Returns where a path's last name is put; the root has none.
    fn place<'p>(&self, path: &'p TreePath) -> Result<Option<(Directory, &'p Name)>, DraftError> {
        let Some((name, parent)) = path.names().split_last() else { return Ok(None) };
        match self.state.walk(parent, &self.lens)? {
            What::Directory(directory) => Ok(Some((directory, name))),
            What::File { .. } | What::Beside { .. } => Err(DraftError::NotADirectory),
        }
    }

    fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.beginning);
        id[8..].copy_from_slice(&random::bytes::<8>());
        id
    }

    /// Finds a name in a directory that is known.
    pub fn at(&self, parent: &Directory, name: &Name) -> Result<Option<What>, DraftError> {
        Ok(self.state.find(parent, name, &self.lens)?)
    }

    fn check_free(&self, parent: &Directory, name: &Name) -> Result<(), DraftError> {
        check_open(parent)?;
        if self.at(parent, name)?.is_none() { Ok(()) } else { Err(DraftError::Exists) }
    }

    /// Returns what is known of a file or a directory.
    pub fn file(&self, id: FileId) -> Result<FileRecord, DraftError> {
        Ok(self.state.tables().file(id)?.unwrap_or_default())
    }

    /// Returns what the versions of a file are shown as, if they merge.
    pub fn merged(&self, record: &FileRecord) -> Result<Option<Merged>, DraftError> {
        Ok(self.state.merged(record, &self.lens)?)
    }

    /// Returns what is known of a name.
    pub fn link_record(&self, id: LinkId) -> Result<Option<LinkRecord>, DraftError> {
        Ok(self.state.tables().link(id)?)
    }

    fn is_vacant(&self, directory: &Directory) -> Result<bool, DraftError> {
        for part in directory.all() {
            if !self.state.tables().names(*part, None, 1)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn make_directory_in(
        &mut self,
        parent: &Directory,
        name: &Name,
        Meta { mode, modified }: Meta,
    ) -> Result<(), DraftError> {
        check_open(parent)?;
        let (parent, name) = (parent.first(), name.clone());
        let (file, former) = self.state.id_of_new_directory(parent, &name)?;
        let (link, kind) = (LinkId::of_directory(file), Kind::Directory);
        self.push(vec![Op::Create { link, file, parent, name, kind, mode, modified, former }], &[])
    }

    fn ops_to_put(
        &self,
        parent: &Directory,
        name: &Name,
        (size, content): (u64, Content),
        meta: Meta,
    ) -> Result<Vec<Op>, DraftError> {
        check_open(parent)?;
        // What a patch is of is among those in whose place it comes, whatever file that is.
        let of = match &content {
            Content::Patch { of, .. } => Some(*of),
            Content::Inline(_) | Content::Extents(_) => None,
        };
        let (file, mut base) = match self.at(parent, name)? {
            Some(What::Directory(_)) => return Err(DraftError::IsADirectory),
            Some(What::Beside { file, version, .. }) => (file, vec![version]),
            Some(What::File { file, .. }) => {
                let record = self.file(file)?;
                if !is_plain(&record) {
                    return Err(DraftError::Exists);
                }
                (file, self.replaced(&record)?)
            }
            None => {
                let (create, _, file) = self.create(parent, name, Kind::File, meta);
                let base = of.into_iter().collect();
                return Ok(vec![create, Op::Write { file, size, content, base, fence: None }]);
            }
        };
        base.extend(of.filter(|of| !base.contains(of)));
        let mut ops = vec![Op::Write { file, size, content, base, fence: None }];
        ops.extend(self.ops_to_set(file, meta)?);
        Ok(ops)
    }

    /// Returns the versions that are shown as what bears a name: of several that do not merge one.
    fn replaced(&self, record: &FileRecord) -> Result<Vec<OpId>, DraftError> {
        let shown = if self.merged(record)?.is_some() { record.heads.len() } else { 1 };
        Ok(record.by_rank().into_iter().take(shown).map(|(id, _)| *id).collect())
    }

    /// Returns what makes a file or a symbolic link.
    fn create(
        &self,
        parent: &Directory,
        name: &Name,
        kind: Kind,
        meta: Meta,
    ) -> (Op, LinkId, FileId) {
        let (link, file) = (LinkId::of_file(self.id()), FileId::of_file(self.id()));
        let (parent, name, Meta { mode, modified }) = (parent.first(), name.clone(), meta);
        (Op::Create { link, file, parent, name, kind, mode, modified, former: 0 }, link, file)
    }

    /// Returns what sets the mode, if it is another, and the time.
    fn ops_to_set(&self, file: FileId, meta: Meta) -> Result<Vec<Op>, DraftError> {
        let record = self.file(file)?;
        let is_mode = record.mode.is_some_and(|mode| mode.value == meta.mode);
        let is_modified = record.modified.is_some_and(|at| at.value == meta.modified);
        let mode = (!is_mode).then_some(Attribute::Mode(meta.mode));
        let modified = (!is_modified).then_some(Attribute::Modified(meta.modified));
        let set = mode.into_iter().chain(modified);
        Ok(set.map(|attribute| Op::SetAttr { file, attribute }).collect())
    }

    /// Drafts operations, all or none.
    fn push(&mut self, ops: Vec<Op>, chunks: &[Address]) -> Result<(), DraftError> {
        let mut bytes = chunks.len() * CHUNK_BYTES;
        for op in &ops {
            op.check()?;
            bytes += record::encode(op).len();
        }
        let is_full = self.ops.len() + ops.len() > DRAFT_OPS_MAX
            || self.chunks.len() + chunks.len() > DRAFT_CHUNKS_MAX
            || self.bytes + bytes > DRAFT_BYTES_MAX;
        if is_full {
            return Err(self.full());
        }
        self.bytes += bytes;
        self.chunks.extend_from_slice(chunks);
        for op in ops {
            let place = self.ops.len() as u32;
            let rank = Rank { lamport: self.next.lamport, op: OpId { entry: self.next.id, place } };
            self.applied += 1;
            self.state.apply_one(rank, &self.next.seen, &op)?;
            self.ops.push(op);
        }
        Ok(())
    }

    fn full(&self) -> DraftError {
        if self.is_empty() { DraftError::TooLarge } else { DraftError::Full }
    }
}

/// Nothing is put where versions are shown that are not beside their files.
fn check_open(directory: &Directory) -> Result<(), DraftError> {
    if directory.is_aside() { Err(DraftError::IsBeside) } else { Ok(()) }
}

/// Returns the versions that an operation names.
fn versions(op: &mut Op) -> impl Iterator<Item = &mut OpId> {
    let (named, content) = match op {
        Op::Write { base, content, .. } => (&mut base[..], Some(content)),
        Op::Resolve { given_up, .. } => (&mut given_up[..], None),
        _ => (&mut [][..], None),
    };
    let of = content.and_then(|content| match content {
        Content::Patch { of, .. } => Some(of),
        Content::Inline(_) | Content::Extents(_) => None,
    });
    named.iter_mut().chain(of)
}

fn is_plain(record: &FileRecord) -> bool {
    record.made.as_ref().is_some_and(|made| made.value == Kind::File)
}

/// Returns what takes something away. A version beside is given up for the others.
fn removal(what: &What) -> Vec<Op> {
    if let What::Beside { file, version, .. } = what {
        return vec![Op::Resolve { file: *file, given_up: vec![*version] }];
    }
    links(what).into_iter().flatten().map(|link| Op::Delete { link }).collect()
}

/// Returns the links by which something bears its name: all that show as one directory have it. A version beside has none.
fn links(what: &What) -> Option<impl Iterator<Item = LinkId>> {
    let (directories, file) = match what {
        What::Directory(directory) => (directory.all(), None),
        What::File { link, .. } => (&[][..], Some(*link)),
        What::Beside { .. } => return None,
    };
    Some(directories.iter().map(|part| LinkId::of_directory(*part)).chain(file))
}

#[cfg(test)]
mod tests;
