//! Versions that would be in the way beside their files, and where they are shown instead.
//!
//! A program that owns all of a directory takes what is beside its files for its own: a ref that shows up breaks git. So
//! what is in `.git`, and what are databases, has its other versions under the same path in `.conflicts`, in the
//! root. That is there while something is in it, and nothing can be put there: a version is given up by removing it, or
//! by giving it a name elsewhere.

use std::collections::BTreeSet;

use super::{Directory, Shelf, Shown, What};
use crate::tree::id::{FileId, LinkId};
use crate::tree::op::Name;
use crate::tree::overlay::Overlay;
use crate::tree::state::State;
use crate::tree::tables::Look;

/// What the directory is called.
pub(super) const NAME: &[u8] = b".conflicts";

/// In a directory of this name all is its program's own.
const OWNED: &[u8] = b".git";

/// How names of databases end, and what is after that in names of what belongs to one.
const DATABASES: [&[u8]; 3] = [b".sqlite", b".sqlite3", b".db"];
const COMPANIONS: [&[u8]; 2] = [b"-wal", b"-journal"];

/// Files of which it is noted that they have several versions are read so many at once.
const FILES_AT_ONCE: usize = 1024;

impl<T: Look> State<T> {
    /// Whether the other versions of what bears a name are not shown beside it.
    pub(super) fn is_apart(&self, link: LinkId) -> Result<bool, T::Error> {
        Ok(self.path_of(link)?.is_some_and(|path| is_apart(&path)))
    }

    /// Whether something is shown in `.conflicts`.
    pub(super) fn has_aside(&self) -> Result<bool, T::Error> {
        let mut has_any = false;
        self.each_aside(|_, _| {
            has_any = true;
            Ok(false)
        })?;
        Ok(has_any)
    }

    /// Returns what is in `.conflicts`, or in a directory there.
    pub(super) fn list_aside(&self, of: &Directory) -> Result<Vec<Shown>, T::Error> {
        let mut directories = BTreeSet::new();
        let mut shown = Shelf::default();
        self.each_aside(|path, (link, file)| {
            let (name, above) = path.split_last().expect("what has a path has a name");
            let mut at = FileId::CONFLICTS;
            for name in above {
                if at == of.first() {
                    directories.insert(name.clone());
                    return Ok(true);
                }
                at = below(at, name);
            }
            if at == of.first() {
                self.put_losers(&mut shown, name, (link, file), &self.file(file)?)?;
            }
            Ok(true)
        })?;
        for name in directories {
            let what = What::Directory(Directory::aside(below(of.first(), &name)));
            shown.put(name, what);
        }
        shown.list.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(shown.list)
    }

    /// Calls for each name whose file has versions that are shown in `.conflicts`, until told to stop.
    fn each_aside(
        &self,
        mut take: impl FnMut(&[Name], (LinkId, FileId)) -> Result<bool, T::Error>,
    ) -> Result<(), T::Error> {
        let mut after = None;
        loop {
            let some = self.tables.names(FileId::SEVERAL, after.as_ref(), FILES_AT_ONCE)?;
            let Some((last, _)) = some.last() else { return Ok(()) };
            after = Some(last.clone());
            for link in some.into_iter().flat_map(|(_, links)| links) {
                let file = FileId::of_file(*link.bytes());
                for link in self.file(file)?.links {
                    if !self.link(link)?.is_shown {
                        continue;
                    }
                    if let Some(path) = self.path_of(link)?.filter(|path| is_apart(path))
                        && !take(&path, (link, file))?
                    {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Returns where a name is, by the names that were given, if that is in the tree.
    fn path_of(&self, link: LinkId) -> Result<Option<Vec<Name>>, T::Error> {
        let mut path = Vec::new();
        let mut at = link;
        loop {
            let Some(place) = self.link(at)?.place else { return Ok(None) };
            path.push(place.value.name);
            if place.value.parent == FileId::ROOT {
                path.reverse();
                return Ok(Some(path));
            }
            at = LinkId::of_directory(place.value.parent);
        }
    }
}

impl<T> State<Overlay<T>> {
    /// Notes whether a file has several versions.
    pub(in crate::tree) fn note_versions(&mut self, file: FileId, had: bool, has: bool) {
        if had == has {
            return;
        }
        let text: String = file.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let name = Name::try_from(text.into_bytes()).expect("digits are a name");
        let link = LinkId::of_file(*file.bytes());
        self.tables.put_named(FileId::SEVERAL, &name, link, has);
    }
}

fn below(directory: FileId, name: &Name) -> FileId {
    FileId::of_directory(directory, name.bytes(), u32::MAX)
}

fn is_apart(path: &[Name]) -> bool {
    let Some((name, above)) = path.split_last() else { return false };
    let bytes = name.bytes();
    let companion = COMPANIONS.iter().find_map(|ending| bytes.strip_suffix(*ending));
    let of = companion.unwrap_or(bytes);
    above.iter().any(|name| name.bytes() == OWNED) || DATABASES.iter().any(|end| of.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_git_and_what_are_databases_is_apart() {
        let is_apart = |path: &str| {
            let names = path.split('/').map(|name| Name::try_from(name.as_bytes()).unwrap());
            is_apart(&names.collect::<Vec<_>>())
        };
        for path in
            [".git/HEAD", "a/.git/refs/heads/main", "x.db", "a/x.sqlite3-wal", "x.sqlite-journal"]
        {
            assert!(is_apart(path), "{path}");
        }
        for path in [".gitignore", "a.git/HEAD", ".git", "x.db.txt", "x-wal", "x.database", "db"] {
            assert!(!is_apart(path), "{path}");
        }
    }
}
