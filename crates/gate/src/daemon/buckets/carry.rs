//! Trees that are carried into a bucket and out of it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use gate_bucket::bucket::Bucket;
use gate_bucket::draft::{Draft, DraftError, Meta};
use gate_bucket::vault::Stored;
use gate_core::tree::content::Body;
use gate_core::tree::id::FileId;
use gate_core::tree::op::{Content, Kind as NodeKind, Stamp};
use gate_core::tree::record::FileRecord;
use gate_core::tree::shown::{Directory, What};
use gate_core::tree::walk::TreePath;

use super::files::{
    DIRECTORY_MODE, View, kind_of, lock, mode_in, not_done, not_taken, now, read_path, record_of,
};
use super::{Buckets, now_ms, refusal};
use crate::archive::{self, Facts, Item};
use crate::daemon::body::bucket::Imported;
use crate::daemon::refusal::{Kind, Refusal};

/// So much that is imported becomes one entry, at most.
const STEPS_MAX: usize = 1000;

/// A directory of a bucket that is to be written as an archive.
pub struct Export {
    view: View,
    at: PathBuf,
    directory: Directory,
}

/// What is being put into a bucket.
struct Import<'a> {
    bucket: &'a Mutex<Bucket>,
    /// What is not committed yet.
    steps: Vec<Step>,
    done: Imported,
}

struct Step {
    path: TreePath,
    what: Put,
    facts: Facts,
}

enum Put {
    Directory,
    File(Stored),
    Symlink(Vec<u8>),
    /// Another name of the file at this path.
    Link(TreePath),
}

impl Buckets {
    /// Writes all that is in a directory as an archive.
    pub fn export(&self, words: &str, path: &[u8], at: Option<&str>) -> Result<Export, Refusal> {
        let view = self.view(words, at)?;
        match view.find(path)? {
            (at, What::Directory(directory)) => Ok(Export { view, at, directory }),
            (at, _) => {
                let message = format!("{} is no directory", at.display());
                Err(Refusal::new(Kind::Invalid, message, "`gate bucket get` gets files"))
            }
        }
    }

    /// Puts all that is in an archive into a directory, which is made if it is missing.
    pub fn import(
        &self,
        words: &str,
        path: &[u8],
        from: &mut dyn Read,
    ) -> Result<Imported, Refusal> {
        let bucket = self.get(words)?;
        let vault = lock(&bucket).vault().map_err(refusal)?;
        let base = read_path(path)?;
        let meta = Meta { mode: DIRECTORY_MODE, modified: now() };
        self.change_in(&bucket, |draft| draft.make_directories(&base, meta))?;
        let (steps, done) = (Vec::new(), Imported::default());
        let mut import = Import { bucket: &bucket, steps, done };
        let mut refused = None;
        let outcome = archive::read(from, |path, item, facts, bytes| {
            let mut take = || -> Result<(), Refusal> {
                let path = inner(&base, path)?;
                let what = match item {
                    Item::Directory => Put::Directory,
                    Item::File(_) => Put::File(vault.take_in(bytes).map_err(not_taken)?),
                    Item::Symlink(target) => Put::Symlink(target.clone()),
                    Item::HardLink(first) => Put::Link(inner(&base, first)?),
                    Item::Other => return Ok(()),
                };
                import.add(Step { path, what, facts: facts.clone() })
            };
            take().map_err(|refusal| {
                refused = Some(refusal);
                io::ErrorKind::Other.into()
            })
        });
        if let Some(refusal) = refused {
            return Err(refusal);
        }
        outcome.map_err(|error| {
            let hint = "what came before it is there; import once more to put the rest";
            Refusal::new(Kind::Invalid, format!("not all of the archive came: {error}"), hint)
        })?;
        import.commit()?;
        Ok(import.done)
    }
}

impl Export {
    /// Writes it, each directory before what is in it.
    pub fn write(self, to: &mut impl Write) -> io::Result<()> {
        let mut writer = archive::Writer::new(to);
        let mut names: HashMap<FileId, PathBuf> = HashMap::new();
        let mut left = vec![(self.at.clone(), self.directory.clone())];
        while let Some((at, directory)) = left.pop() {
            let mut inside = Vec::new();
            for (path, what) in self.view.entries(&at, &directory).map_err(failed)? {
                self.put(&mut writer, &path, &what, &mut names)?;
                if let What::Directory(directory) = what {
                    inside.push((path, directory));
                }
            }
            left.extend(inside.into_iter().rev());
        }
        writer.finish().map(drop)
    }

    fn put(
        &self,
        writer: &mut archive::Writer<impl Write>,
        path: &Path,
        what: &What,
        names: &mut HashMap<FileId, PathBuf>,
    ) -> io::Result<()> {
        let record = self.view.record(what).map_err(failed)?;
        let facts = facts_of(&record);
        let inner = path.strip_prefix(&self.at).expect("it is in the directory").to_owned();
        let to = inner.as_os_str().as_bytes();
        if let What::File { file, .. } = what
            && record.links.len() > 1
        {
            if let Some(first) = names.get(file) {
                let item = Item::HardLink(first.as_os_str().as_bytes().to_vec());
                return writer.put(to, &item, &facts);
            }
            names.insert(*file, inner.clone());
        }
        match kind_of(&record, what) {
            NodeKind::Directory => writer.put(to, &Item::Directory, &facts),
            NodeKind::Symlink(target) => writer.put(to, &Item::Symlink(target), &facts),
            NodeKind::File => {
                let (_, size, body) = self.view.content(what).map_err(failed)?;
                let bytes = self.view.reader(body, size).map_err(failed)?;
                writer.put_file(to, &facts, size, bytes)
            }
        }
    }
}

impl Import<'_> {
    fn add(&mut self, step: Step) -> Result<(), Refusal> {
        self.steps.push(step);
        if self.steps.len() >= STEPS_MAX { self.commit() } else { Ok(()) }
    }

    /// Commits what there is, in as many entries as it needs.
    fn commit(&mut self) -> Result<(), Refusal> {
        while !self.steps.is_empty() {
            let mut bucket = lock(self.bucket);
            let steps = &self.steps;
            let mut at = None;
            let drafted = bucket.change(now_ms(), |draft| {
                let mut done = self.done;
                for (number, step) in steps.iter().enumerate() {
                    at = Some(&step.path);
                    match step.draft(draft, &mut done) {
                        // It is drafted anew in the next entry.
                        Err(DraftError::Full) => return Ok((number, done)),
                        outcome => outcome?,
                    }
                }
                Ok((steps.len(), done))
            });
            let (_, (count, done)) = drafted.map_err(|error| {
                let Refusal { kind, message, hint } = not_done(error);
                let at = at.map(|path| format!("{path}: ")).unwrap_or_default();
                Refusal { kind, message: format!("cannot import {at}{message}"), hint }
            })?;
            drop(bucket);
            self.done = done;
            self.steps.drain(..count);
        }
        Ok(())
    }
}

impl Step {
    fn draft(&self, draft: &mut Draft<'_>, done: &mut Imported) -> Result<(), DraftError> {
        let path = &self.path;
        let (seconds, nanos) = self.facts.modified;
        let modified = Stamp { seconds, nanos };
        let meta = Meta { mode: self.facts.mode, modified };
        let there = match draft.find(path) {
            Err(DraftError::NotFound) => None,
            what => {
                let what = what?;
                let record = record_of(draft.tree(), &what)?;
                Some((kind_of(&record, &what), what, record))
            }
        };
        let is_same = match (&there, &self.what) {
            (None, _) => false,
            (Some((NodeKind::Directory, ..)), Put::Directory) => true,
            (Some((NodeKind::File, _, record)), Put::File(stored)) => holds(record, stored),
            (Some((NodeKind::Symlink(to), ..)), Put::Symlink(target)) => to == target,
            (Some((_, What::File { file, .. }, _)), Put::Link(first)) => {
                matches!(draft.find(first)?, What::File { file: other, .. } if other == *file)
            }
            _ => false,
        };
        match &there {
            // What a file holds is replaced; what is something else goes first.
            Some((kind, ..)) if !is_same => match (kind, &self.what) {
                (NodeKind::File, Put::File(_)) => {}
                _ => draft.remove(path)?,
            },
            _ => {}
        }
        match &self.what {
            Put::Directory if !is_same => draft.make_directory(path, meta)?,
            Put::File(stored) if !is_same => draft.put(path, stored, meta)?,
            Put::Symlink(target) if !is_same => draft.symlink(path, target, modified)?,
            Put::Link(first) if !is_same => draft.link(first, path)?,
            _ => {}
        }
        let facts = there.filter(|_| is_same).map(|(_, _, record)| facts_of(&record));
        let are_set = self.set_facts(
            draft,
            facts.unwrap_or_else(|| Facts {
                mode: meta.mode,
                modified: self.facts.modified,
                extended: Vec::new(),
            }),
        )?;
        match &self.what {
            _ if is_same && !are_set => done.unchanged += 1,
            Put::Directory => done.directories += 1,
            Put::File(stored) => {
                done.files += 1;
                done.bytes += stored.size;
            }
            Put::Symlink(_) | Put::Link(_) => done.links += 1,
        }
        Ok(())
    }

    /// Sets what is said of it and not so yet; returns whether that is anything.
    fn set_facts(&self, draft: &mut Draft<'_>, now: Facts) -> Result<bool, DraftError> {
        let Facts { mode, modified: (seconds, nanos), extended } = &self.facts;
        if matches!(self.what, Put::Symlink(_) | Put::Link(_)) {
            return Ok(false);
        }
        let mut are_set = false;
        if now.mode != *mode {
            are_set = true;
            draft.set_mode(&self.path, *mode)?;
        }
        if now.modified != (*seconds, *nanos) {
            are_set = true;
            draft.set_modified(&self.path, Stamp { seconds: *seconds, nanos: *nanos })?;
        }
        let is_wanted = |name: &[u8]| extended.iter().any(|(wanted, _)| wanted == name);
        for (name, _) in now.extended.iter().filter(|(name, _)| !is_wanted(name)) {
            are_set = true;
            draft.set_extended(&self.path, name, None)?;
        }
        for (name, value) in extended.iter().filter(|one| !now.extended.contains(one)) {
            are_set = true;
            draft.set_extended(&self.path, name, Some(value))?;
        }
        Ok(are_set)
    }
}

/// Whether a file holds what was taken in: the same bytes become the same chunks.
fn holds(record: &FileRecord, stored: &Stored) -> bool {
    let mut heads = record.heads.values();
    let (Some(head), None) = (heads.next(), heads.next()) else { return false };
    let is_same = match (&head.body, &stored.content) {
        (Body::Inline(bytes), Content::Inline(new)) => bytes == new,
        (Body::Extents(extents), Content::Extents(new)) => extents == new,
        _ => false,
    };
    is_same && head.size == stored.size
}

fn facts_of(record: &FileRecord) -> Facts {
    let stamp = record.modified.as_ref().map(|set| set.value).unwrap_or_default();
    let extended = record.extended.iter();
    Facts {
        mode: mode_in(record).unwrap_or(DIRECTORY_MODE),
        modified: (stamp.seconds, stamp.nanos),
        extended: extended
            .filter_map(|(name, set)| Some((name.clone(), set.value.clone()?)))
            .collect(),
    }
}

/// Returns where something of an archive is put; nothing leads out of the directory.
fn inner(base: &TreePath, path: &[u8]) -> Result<TreePath, Refusal> {
    let mut names = base.names().to_vec();
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    for part in parts {
        names.extend(read_path(part)?.names().iter().cloned());
    }
    Ok(TreePath::from(names))
}

fn failed(refusal: Refusal) -> io::Error {
    io::Error::other(refusal.message)
}
