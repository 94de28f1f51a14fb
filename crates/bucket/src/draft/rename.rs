//! How something gets another name, also one that something else has.

use std::collections::BTreeSet;

use gate_core::tree::id::{FileId, LinkId};
use gate_core::tree::op::{Attribute, Op, Stamp};
use gate_core::tree::record::{FileRecord, Version};
use gate_core::tree::shown::What;
use gate_core::tree::tables::Look;
use gate_core::tree::walk::TreePath;

use super::{Draft, DraftError, Meta, is_plain, removal, whole};

impl Draft<'_> {
    /// Gives something another name, in place of a file or an empty directory that has it.
    pub fn rename(&mut self, from: &TreePath, to: &TreePath) -> Result<(), DraftError> {
        let what = self.find(from)?;
        if from.names().is_empty() || to.names().is_empty() {
            return Err(DraftError::IsRoot);
        }
        if from == to {
            return Ok(());
        }
        let is_directory = matches!(what, What::Directory(_));
        if is_directory && to.names().starts_with(from.names()) {
            return Err(DraftError::IntoItself);
        }
        let (parent, name) = self.place(to)?.ok_or(DraftError::IsRoot)?;
        let mut ops = match (&what, self.at(&parent, name)?) {
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
                if let Some(ops) = self.ops_to_replace(*file, *link, there)? {
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
                let head = record.heads.get(&version).ok_or(DraftError::NotFound)?;
                let content = (head.size, &whole(&head.body));
                ops.extend(self.ops_to_put(to, content, meta(&record))?);
                ops.push(Op::Resolve { file, given_up: vec![version] });
            }
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
        let (new, old) = (self.file(file)?, self.file(there)?);
        let is_alone = self.has_one_name(&new)? && self.has_one_name(&old)?;
        let [Version { size, body, .. }] = &new.heads.values().collect::<Vec<_>>()[..] else {
            return Ok(None);
        };
        if !is_alone || !is_plain(&new) || !is_plain(&old) {
            return Ok(None);
        }
        let (size, content) = (*size, whole(body));
        let base = old.heads.keys().copied().collect();
        let mut ops = vec![Op::Write { file: there, size, content, base, fence: None }];
        ops.extend(self.ops_to_set(there, meta(&new))?);
        let names: BTreeSet<_> = old.extended.keys().chain(new.extended.keys()).collect();
        for name in names {
            let value = |record: &FileRecord| record.extended.get(name)?.value.clone();
            if value(&new) != value(&old) {
                let (name, value) = (name.clone(), value(&new));
                let attribute = Attribute::Extended { name, value };
                ops.push(Op::SetAttr { file: there, attribute });
            }
        }
        ops.push(Op::Delete { link });
        Ok(Some(ops))
    }

    fn has_one_name(&self, record: &FileRecord) -> Result<bool, DraftError> {
        let mut count = 0;
        for link in &record.links {
            let is_shown = self.state.tables().link(*link)?.is_some_and(|link| link.is_shown);
            count += usize::from(is_shown);
        }
        Ok(count == 1)
    }
}

fn meta(record: &FileRecord) -> Meta {
    Meta {
        mode: record.mode.as_ref().map_or(0o644, |mode| mode.value),
        modified: record.modified.as_ref().map_or(Stamp::default(), |at| at.value),
    }
}
