//! How something gets another name, also one that something else has.

use std::collections::BTreeSet;

use gate_core::tree::id::{FileId, LinkId, OpId};
use gate_core::tree::op::{Attribute, Content, Name, Op, Stamp};
use gate_core::tree::record::{FileRecord, Version};
use gate_core::tree::shown::{Directory, What};
use gate_core::tree::tables::Look;
use gate_core::tree::walk::TreePath;

use super::{Draft, DraftError, Meta, check_open, is_plain, links, removal};

/// What becomes of a file that another is put in place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Where both have one name and are plain, it stays, and gets the content of the other.
    Content,
    /// It loses its name to the other.
    Name,
}

impl Draft {
    /// Gives something another name, in place of a file or an empty directory that has it.
    pub fn rename(&mut self, from: &TreePath, to: &TreePath) -> Result<(), DraftError> {
        let what = self.find(from)?;
        if from.names().is_empty() || to.names().is_empty() {
            return Err(DraftError::IsRoot);
        }
        if from == to {
            return Ok(());
        }
        let (parent, name) = self.place(to)?.ok_or(DraftError::IsRoot)?;
        self.rename_to(what, &parent, name, Over::Content)
    }

    /// As [`Draft::rename`], of what was found, into a directory that is known.
    pub fn rename_to(
        &mut self,
        what: What,
        parent: &Directory,
        name: &Name,
        over: Over,
    ) -> Result<(), DraftError> {
        check_open(parent)?;
        if let What::Directory(directory) = &what {
            check_open(directory)?;
            if self.state.is_in(parent, directory)? {
                return Err(DraftError::IntoItself);
            }
        }
        let there = self.at(parent, name)?;
        if there.as_ref() == Some(&what) {
            return Ok(());
        }
        let mut ops = match (&what, there) {
            (_, None) => Vec::new(),
            (What::Directory(_), Some(What::Directory(there))) => {
                if !self.is_vacant(&there)? {
                    return Err(DraftError::NotEmpty);
                }
                removal(&What::Directory(there))
            }
            (What::Directory(_), Some(_)) => return Err(DraftError::NotADirectory),
            (_, Some(What::Directory(_))) => return Err(DraftError::IsADirectory),
            (What::File { file, .. }, Some(What::File { file: there, .. })) if *file == there => {
                return Ok(());
            }
            (What::File { link, file }, Some(What::File { link: other, file: there })) => {
                if over == Over::Content
                    && let Some(ops) = self.ops_to_replace(*file, *link, there)?
                {
                    return self.push(ops, &[]);
                }
                vec![Op::Delete { link: other }]
            }
            // Put in place of it below.
            (What::Beside { .. }, Some(_)) => Vec::new(),
            (What::File { .. }, Some(there @ What::Beside { .. })) => removal(&there),
        };
        let to_there = |link| Op::Move { link, parent: parent.first(), name: name.clone() };
        match what {
            What::Directory(directory) => {
                // All that show as one directory move.
                let links = directory.all().iter().map(|part| LinkId::of_directory(*part));
                ops.extend(links.map(to_there));
            }
            What::File { link, .. } => ops.push(to_there(link)),
            What::Beside { file, version, .. } => {
                let record = self.file(file)?;
                let size = record.heads.get(&version).ok_or(DraftError::NotFound)?.size;
                let content = self.content_again(file, version, size)?;
                ops.extend(self.ops_to_put(parent, name, (size, content), meta(&record))?);
                ops.push(Op::Resolve { file, given_up: vec![version] });
            }
        }
        self.push(ops, &[])
    }

    /// Gives two things each other's names.
    pub fn exchange(
        &mut self,
        one: (&Directory, &Name),
        other: (&Directory, &Name),
    ) -> Result<(), DraftError> {
        let mut ops = Vec::new();
        for ((parent, name), (to, to_name)) in [(one, other), (other, one)] {
            let what = self.at(parent, name)?.ok_or(DraftError::NotFound)?;
            if let What::Directory(directory) = &what {
                check_open(directory)?;
                if self.state.is_in(to, directory)? {
                    return Err(DraftError::IntoItself);
                }
            }
            let (parent, name) = (to.first(), to_name);
            let links = links(&what).ok_or(DraftError::IsBeside)?;
            ops.extend(links.map(|link| Op::Move { link, parent, name: name.clone() }));
        }
        self.push(ops, &[])
    }

    /// Returns what puts a file's content in place of another's, which stays what it is for whoever knew it: an
    /// editor that saves so loses nothing. None unless both are files with one name and one version.
    fn ops_to_replace(
        &self,
        file: FileId,
        link: LinkId,
        there: FileId,
    ) -> Result<Option<Vec<Op>>, DraftError> {
        let Some((new, old)) = self.to_replace(file, there)? else { return Ok(None) };
        let [(version, Version { size, .. })] = &new.heads.iter().collect::<Vec<_>>()[..] else {
            return Ok(None);
        };
        let base = old.heads.keys().copied().collect();
        let mut ops = vec![self.state.write_again(there, **version, *size, base)?];
        ops.extend(self.ops_to_set(there, meta(&new))?);
        ops.extend(ops_to_extend(there, &new, &old));
        ops.push(Op::Delete { link });
        Ok(Some(ops))
    }

    /// Returns what a version is written as once more.
    fn content_again(&self, file: FileId, version: OpId, size: u64) -> Result<Content, DraftError> {
        match self.state.write_again(file, version, size, Vec::new())? {
            Op::Write { content, .. } => Ok(content),
            _ => unreachable!("who writes again writes"),
        }
    }

    /// Drafts that a file gets the mode and the attributes of another, which loses its name: who drafts it sees to the
    /// content and the time.
    pub(crate) fn succeed(
        &mut self,
        (link, file): (LinkId, FileId),
        there: FileId,
    ) -> Result<(), DraftError> {
        let (new, old) = self.to_replace(file, there)?.ok_or(DraftError::NotFound)?;
        let set = self.ops_to_set(there, Meta { modified: meta(&old).modified, ..meta(&new) })?;
        let mut ops: Vec<_> = set;
        ops.extend(ops_to_extend(there, &new, &old));
        ops.push(Op::Delete { link });
        self.push(ops, &[])
    }

    /// Returns what is known of two files of which one may be put in place of the other: each has one name.
    pub(crate) fn to_replace(
        &self,
        file: FileId,
        there: FileId,
    ) -> Result<Option<(FileRecord, FileRecord)>, DraftError> {
        let (new, old) = (self.file(file)?, self.file(there)?);
        let is_one = file != there && is_plain(&new) && is_plain(&old);
        let is_one = is_one && self.has_one_name(&new)? && self.has_one_name(&old)?;
        Ok(is_one.then_some((new, old)))
    }

    fn has_one_name(&self, record: &FileRecord) -> Result<bool, DraftError> {
        Ok(self.count_names(record)? == 1)
    }

    /// Returns how many names a file has that are shown.
    pub fn count_names(&self, record: &FileRecord) -> Result<u64, DraftError> {
        let mut count = 0;
        for link in &record.links {
            let is_shown = self.state.tables().link(*link)?.is_some_and(|link| link.is_shown);
            count += u64::from(is_shown);
        }
        Ok(count)
    }
}

/// Returns what gives a file the extended attributes of another.
fn ops_to_extend(there: FileId, new: &FileRecord, old: &FileRecord) -> Vec<Op> {
    let names: BTreeSet<_> = old.extended.keys().chain(new.extended.keys()).collect();
    let mut ops = Vec::new();
    for name in names {
        let value = |record: &FileRecord| record.extended.get(name)?.value.clone();
        if value(new) != value(old) {
            let (name, value) = (name.clone(), value(new));
            ops.push(Op::SetAttr { file: there, attribute: Attribute::Extended { name, value } });
        }
    }
    ops
}

fn meta(record: &FileRecord) -> Meta {
    Meta {
        mode: record.mode.as_ref().map_or(0o644, |mode| mode.value),
        modified: record.modified.as_ref().map_or(Stamp::default(), |at| at.value),
    }
}
