//! What people see of a directory: one name for each thing, whatever came together.
//!
//! Versions of a file that do not bear its name are shown beside it, but for some that would be in the way there
//! (`aside`).

mod aside;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::content::Body;
use super::encode::encode;
use super::id::{FeedId, FileId, LinkId, OpId};
use super::op::{Kind, NAME_BYTES_MAX, Name};
use super::record::{FileRecord, Rank};
use super::state::State;
use super::tables::Look;

/// Names that are read from a table at once.
const NAMES_AT_ONCE: usize = 1024;

/// A directory as people see it: several that came to one name are one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Directory {
    parts: Vec<FileId>,
    is_aside: bool,
}

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub name: Name,
    pub what: What,
}

/// What bears a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Directory(Directory),
    /// A file or a symbolic link.
    File {
        link: LinkId,
        file: FileId,
    },
    /// A version of a file that does not bear its name.
    Beside {
        link: LinkId,
        file: FileId,
        version: OpId,
    },
}

impl What {
    /// Returns the file that it is, of directories that show as one the first.
    pub fn file(&self) -> FileId {
        match self {
            What::Directory(directory) => directory.first(),
            What::File { file, .. } | What::Beside { file, .. } => *file,
        }
    }
}

/// What a tree is looked at through: it says what follows from no table.
pub trait Lens {
    /// Says who wrote a feed, in a word that is short and fits into a name.
    fn label(&self, feed: &FeedId) -> String;

    /// Returns what several versions of a file merge to, if they do; it is the same for the same versions.
    fn merged<T: Look>(
        &self,
        _state: &State<T>,
        _record: &FileRecord,
    ) -> Result<Option<Merged>, T::Error> {
        Ok(None)
    }
}

/// What several versions of a file are shown as, until somebody writes it: the bytes of none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    pub size: u64,
    pub body: Arc<Body>,
}

impl<F: Fn(&FeedId) -> String> Lens for F {
    fn label(&self, feed: &FeedId) -> String {
        self(feed)
    }
}

impl Directory {
    /// Returns the directory without a name.
    pub fn root() -> Directory {
        Directory { parts: vec![FileId::ROOT], is_aside: false }
    }

    /// Returns one that shows versions, and that nobody made: nothing can be put there.
    pub(super) fn aside(id: FileId) -> Directory {
        Directory { parts: vec![id], is_aside: true }
    }

    /// Whether it shows versions that are not beside their files: nobody made it, and nothing can be put there.
    pub fn is_aside(&self) -> bool {
        self.is_aside
    }

    /// Returns the directory in which what is new is put.
    pub fn first(&self) -> FileId {
        self.parts[0]
    }

    /// Returns all that show as this one, the first first.
    pub fn all(&self) -> &[FileId] {
        &self.parts
    }
}

/// What came to one name: the first of them keeps it.
struct Group {
    name: Name,
    /// Those that came there, in the order in which they did.
    links: Vec<(Rank, LinkId, FileId)>,
}

impl<T: Look> State<T> {
    /// Returns what is in a directory, by name.
    pub fn list(&self, of: &Directory, lens: &impl Lens) -> Result<Vec<Shown>, T::Error> {
        self.list_some(of, b"", lens)
    }

    /// Returns what is in a directory under names that begin in some way, or was given others instead of those.
    fn list_some(
        &self,
        of: &Directory,
        beginning: &[u8],
        lens: &impl Lens,
    ) -> Result<Vec<Shown>, T::Error> {
        if of.is_aside {
            return self.list_aside(of);
        }
        let mut groups = BTreeMap::<Name, BTreeSet<LinkId>>::new();
        let first = Name::try_from(beginning).ok();
        for parent in &of.parts {
            if let Some(first) = &first {
                let links = self.tables.named(*parent, first)?;
                if !links.is_empty() {
                    groups.entry(first.clone()).or_default().extend(links);
                }
            }
            let mut after = first.clone();
            loop {
                let some = self.tables.names(*parent, after.as_ref(), NAMES_AT_ONCE)?;
                let Some((last, _)) = some.last() else { break };
                after = Some(last.clone());
                let is_beyond = !last.bytes().starts_with(beginning) && last.bytes() > beginning;
                for (name, links) in some {
                    if name.bytes().starts_with(beginning) {
                        groups.entry(name).or_default().extend(links);
                    }
                }
                if is_beyond {
                    break;
                }
            }
        }
        let taken: BTreeSet<Name> = groups.keys().cloned().collect();
        let mut shown = Shelf { taken, list: Vec::new() };
        let groups = groups.into_iter().map(|(name, links)| self.group(name, links));
        let groups: Vec<Group> = groups.collect::<Result<_, _>>()?;
        // Who keeps a name has it before anybody gets another instead.
        for group in &groups {
            if let Some(what) = group.keeper() {
                shown.list.push(Shown { name: group.name.clone(), what });
            }
        }
        for group in &groups {
            for (rank, what) in group.others() {
                let label = lens.label(&rank.op.entry.feed);
                shown.put(with_label(&group.name, &label), what);
            }
            for (_, link, file) in group.links.iter().filter(|(_, _, f)| !f.is_directory()) {
                self.put_versions_beside(&mut shown, &group.name, (*link, *file), lens)?;
            }
        }
        if of.first() == FileId::ROOT && aside::NAME.starts_with(beginning) && self.has_aside()? {
            let name = Name::try_from(aside::NAME).expect("it is a name");
            shown.put(name, What::Directory(Directory::aside(FileId::CONFLICTS)));
        }
        shown.list.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(shown.list)
    }

    /// Finds a name in a directory.
    pub fn find(
        &self,
        of: &Directory,
        name: &Name,
        lens: &impl Lens,
    ) -> Result<Option<What>, T::Error> {
        let mut links = BTreeSet::new();
        for parent in of.all().iter().filter(|_| !of.is_aside) {
            links.extend(self.tables.named(*parent, name)?);
        }
        if let Some(what) = self.group(name.clone(), links)?.keeper() {
            return Ok(Some(what));
        }
        // A name that was given instead of another has one of these behind its first byte, and begins as
        // the other does up to there; so does whatever may have taken it.
        let is_mark = |byte: &u8| matches!(byte, b'~' | b'@');
        if of.is_aside || (name.bytes() == aside::NAME && of.first() == FileId::ROOT) {
            let mut all = self.list_some(of, name.bytes(), lens)?.into_iter();
            return Ok(all.find(|shown| shown.name == *name).map(|shown| shown.what));
        }
        let Some(place) = name.bytes().iter().skip(1).position(is_mark) else { return Ok(None) };
        let mut some = self.list_some(of, &name.bytes()[..=place], lens)?.into_iter();
        Ok(some.find(|shown| shown.name == *name).map(|shown| shown.what))
    }

    fn group(&self, name: Name, links: BTreeSet<LinkId>) -> Result<Group, T::Error> {
        let mut all = Vec::with_capacity(links.len());
        for id in links {
            let record = self.link(id)?;
            let (Some(place), Some(born)) = (record.place, record.born) else { continue };
            all.push((place.rank.max(born.rank), id, born.value));
        }
        all.sort_unstable();
        Ok(Group { name, links: all })
    }

    fn put_versions_beside(
        &self,
        shown: &mut Shelf,
        name: &Name,
        (link, file): (LinkId, FileId),
        lens: &impl Lens,
    ) -> Result<(), T::Error> {
        let record = self.file(file)?;
        let is_one = record.heads.len() < 2 || self.is_apart(link)?;
        if !is_one && self.merged(&record, lens)?.is_none() {
            self.put_losers(shown, name, (link, file), &record)?;
        }
        Ok(())
    }

    /// Returns what is shown of a file under its names instead of its versions, if they merge. What is apart under one of
    /// its names never does.
    pub fn merged(
        &self,
        record: &FileRecord,
        lens: &impl Lens,
    ) -> Result<Option<Merged>, T::Error> {
        let is_file = record.made.as_ref().is_some_and(|made| made.value == Kind::File);
        if record.heads.len() < 2 || !is_file {
            return Ok(None);
        }
        for link in &record.links {
            if self.link(*link)?.is_shown && self.is_apart(*link)? {
                return Ok(None);
            }
        }
        lens.merged(self, record)
    }

    /// Gives a name to each version of a file that does not bear its name.
    fn put_losers(
        &self,
        shown: &mut Shelf,
        name: &Name,
        (link, file): (LinkId, FileId),
        record: &FileRecord,
    ) -> Result<(), T::Error> {
        let winner = record.winner().map(|(id, _)| *id);
        for (version, head) in record.heads.iter().filter(|(id, _)| Some(**id) != winner) {
            let body = self.body(*version)?.unwrap_or_default();
            let bytes = encode(&(head.size, &body));
            let label = &blake3::hash(&bytes).to_hex()[..8];
            let what = What::Beside { link, file, version: *version };
            shown.put(joined(name.bytes(), b"@", label.as_bytes()), what);
        }
        Ok(())
    }
}

impl Group {
    fn keeper(&self) -> Option<What> {
        let (_, link, file) = *self.links.first()?;
        Some(match file.is_directory() {
            true => What::Directory(self.directory()),
            false => What::File { link, file },
        })
    }

    fn directory(&self) -> Directory {
        let all = self.links.iter().map(|(_, _, file)| *file);
        let parts = all.filter(|file| file.is_directory()).collect();
        Directory { parts, is_aside: false }
    }

    /// Returns those that need another name. All directories are one.
    fn others(&self) -> Vec<(Rank, What)> {
        let is_kept_by_directory = self.links.first().is_some_and(|(_, _, f)| f.is_directory());
        let directory = self.links.iter().find(|(_, _, file)| file.is_directory());
        let directory = directory.filter(|_| !is_kept_by_directory);
        let directory = directory.map(|(rank, ..)| (*rank, What::Directory(self.directory())));
        let files = self.links.iter().skip(1).filter(|(_, _, file)| !file.is_directory());
        let files =
            files.map(|(rank, link, file)| (*rank, What::File { link: *link, file: *file }));
        directory.into_iter().chain(files).collect()
    }
}

/// The names that are given.
#[derive(Default)]
struct Shelf {
    taken: BTreeSet<Name>,
    list: Vec<Shown>,
}

impl Shelf {
    /// Gives something a name, or one that is like it.
    fn put(&mut self, wanted: Name, what: What) {
        let mut name = wanted.clone();
        let mut number = 2_u32;
        while !self.taken.insert(name.clone()) {
            name = joined(wanted.bytes(), b"~", number.to_string().as_bytes());
            number += 1;
        }
        self.list.push(Shown { name, what });
    }
}

/// Returns `name~label.ext` for `name.ext`.
fn with_label(name: &Name, label: &str) -> Name {
    let bytes = name.bytes();
    let dot = bytes.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0);
    let (stem, ending) = bytes.split_at(dot.unwrap_or(bytes.len()));
    let label = [b"~", label.as_bytes()].concat();
    joined(stem, &label, ending)
}

/// Joins parts of a name, whose first gives way where there is no room.
fn joined(first: &[u8], middle: &[u8], last: &[u8]) -> Name {
    let last = &last[..last.len().min(NAME_BYTES_MAX / 2)];
    let room = NAME_BYTES_MAX.saturating_sub(middle.len() + last.len());
    let mut end = first.len().min(room);
    // A letter of several bytes is left out whole.
    while end > 0 && end < first.len() && first[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    let whole = [&first[..end], middle, last].concat();
    Name::try_from(whole).expect("parts of names and a label make a name")
}
