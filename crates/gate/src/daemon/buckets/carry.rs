//! Trees that are carried into a bucket and out of it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::mem;
use std::os::unix::ffi::OsStrExt as _;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use gate_bucket::draft::{Draft, DraftError, Meta};
use gate_bucket::live::Live;
use gate_bucket::vault::{EXTENTS_MAX, Stored, Vault};
use gate_core::tree::diff::Node;
use gate_core::tree::id::FileId;
use gate_core::tree::op::{Content, Kind as NodeKind, Stamp};
use gate_core::tree::shown::{Directory, What};
use gate_core::tree::walk::TreePath;

use super::files::{DIRECTORY_MODE, View, modified, not_done, not_taken, now, read_path};
use super::{Buckets, lock, now_ms, refusal};
use crate::archive::{self, Facts, Item};
use crate::daemon::body::bucket::Imported;
use crate::daemon::refusal::{Kind, Refusal};

/// So much that is imported becomes one entry, at most.
const STEPS_MAX: usize = 1000;
/// So many chunks of files may wait for that: a list of them is long for a long file.
const EXTENTS_WAITING_MAX: usize = EXTENTS_MAX;

/// A directory of a bucket that is to be written as an archive.
pub struct Export {
    view: View,
    at: PathBuf,
    directory: Directory,
}

/// What of an archive is not on its way into the bucket yet.
struct Import {
    steps: Vec<Step>,
    /// The chunks of that.
    extents: usize,
    to: SyncSender<Vec<Step>>,
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

/// What is where something is put.
struct There {
    what: What,
    node: Node,
    modified: Stamp,
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
        let vault = lock(&bucket)?.vault().map_err(refusal)?;
        let base = read_path(path)?;
        let meta = Meta { mode: DIRECTORY_MODE, modified: now() };
        self.change_in(&bucket, |draft| draft.make_directories(&base, meta))?;
        thread::scope(|scope| {
            // While some of it is committed, what comes next is sealed.
            let (to, batches) = mpsc::sync_channel(0);
            let committing = scope.spawn(|| commit_all(&bucket, batches));
            let taken = take_in(&vault, &base, from, Import { steps: Vec::new(), extents: 0, to });
            let committed = committing.join().unwrap_or_else(|panic| resume_unwind(panic));
            // Whoever takes in stops when nobody commits any more, and does not know why.
            committed.and_then(|done| taken.map(|()| done))
        })
    }
}

/// Takes in all files of an archive, and sends on what is where.
fn take_in(
    vault: &Vault,
    base: &TreePath,
    from: &mut dyn Read,
    mut import: Import,
) -> Result<(), Refusal> {
    let mut refused = None;
    let outcome = archive::read(from, |path, item, facts, bytes| {
        let mut take = || -> Result<(), Refusal> {
            let path = inner(base, path)?;
            let what = match item {
                Item::Directory => Put::Directory,
                Item::File(_) => Put::File(vault.take_in(bytes).map_err(not_taken)?),
                Item::Symlink(target) => Put::Symlink(target.clone()),
                Item::HardLink(first) => Put::Link(inner(base, first)?),
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
    import.send()
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
        let inner = path.strip_prefix(&self.at).expect("it is in the directory").to_owned();
        let to = inner.as_os_str().as_bytes();
        let (modified, is_linked) = (modified(&record), record.links.len() > 1);
        let node = self.view.node(what).map_err(failed)?;
        let facts = facts(&node, modified);
        if let What::File { file, .. } = what
            && is_linked
        {
            if let Some(first) = names.get(file) {
                let item = Item::HardLink(first.as_os_str().as_bytes().to_vec());
                return writer.put(to, &item, &facts);
            }
            names.insert(*file, inner.clone());
        }
        match node.kind {
            NodeKind::Directory => writer.put(to, &Item::Directory, &facts),
            NodeKind::Symlink(target) => writer.put(to, &Item::Symlink(target), &facts),
            NodeKind::File => {
                let bytes = self.view.reader(&node.held).map_err(failed)?;
                writer.put_file(to, &facts, node.held.size, bytes)
            }
        }
    }
}

impl Import {
    fn add(&mut self, step: Step) -> Result<(), Refusal> {
        if let Put::File(Stored { content: Content::Extents(extents), .. }) = &step.what {
            self.extents += extents.len();
        }
        self.steps.push(step);
        let is_enough = self.steps.len() >= STEPS_MAX || self.extents >= EXTENTS_WAITING_MAX;
        if is_enough { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Refusal> {
        self.extents = 0;
        self.to.send(mem::take(&mut self.steps)).map_err(|_| {
            let hint = "import once more to put the rest";
            Refusal::new(Kind::Failed, "what came before it could not be put", hint)
        })
    }
}

/// Commits what comes, until no more does.
fn commit_all(bucket: &Live, batches: Receiver<Vec<Step>>) -> Result<Imported, Refusal> {
    let mut done = Imported::default();
    for steps in batches {
        commit(bucket, steps, &mut done)?;
    }
    Ok(done)
}

/// Commits steps, in as many entries as they need.
fn commit(bucket: &Live, mut steps: Vec<Step>, done: &mut Imported) -> Result<(), Refusal> {
    while !steps.is_empty() {
        let mut at = None;
        let drafted = lock(bucket)?.change(now_ms(), |draft| {
            let mut so_far = *done;
            for (number, step) in steps.iter().enumerate() {
                at = Some(&step.path);
                match step.draft(draft, &mut so_far) {
                    // It is drafted anew in the next entry.
                    Err(DraftError::Full) => return Ok((number, so_far)),
                    outcome => outcome?,
                }
            }
            Ok((steps.len(), so_far))
        });
        let (_, (count, so_far)) = drafted.map_err(|error| {
            let Refusal { kind, message, hint } = not_done(error);
            let at = at.map(|path| format!("{path}: ")).unwrap_or_default();
            Refusal { kind, message: format!("cannot import {at}{message}"), hint }
        })?;
        *done = so_far;
        steps.drain(..count);
    }
    Ok(())
}

impl Step {
    fn draft(&self, draft: &mut Draft, done: &mut Imported) -> Result<(), DraftError> {
        let path = &self.path;
        let (seconds, nanos) = self.facts.modified;
        let modified = Stamp { seconds, nanos };
        let meta = Meta { mode: self.facts.mode, modified };
        let there = There::find(draft, path)?;
        let is_same = there.as_ref().map(|there| there.holds(&self.what, draft)).transpose()?;
        let is_same = is_same.unwrap_or(false);
        match &there {
            // What a file holds is replaced; what is something else goes first.
            Some(there) if !is_same => match (&there.node.kind, &self.what) {
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
        let facts = there.filter(|_| is_same).map(|there| facts(&there.node, there.modified));
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
    fn set_facts(&self, draft: &mut Draft, now: Facts) -> Result<bool, DraftError> {
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

impl There {
    fn find(draft: &Draft, path: &TreePath) -> Result<Option<There>, DraftError> {
        let what = match draft.find(path) {
            Err(DraftError::NotFound) => return Ok(None),
            what => what?,
        };
        let record = draft.tree().file(what.file())?;
        let node = draft.tree().node(&what, draft.lens())?;
        Ok(Some(There { what, node, modified: modified(&record) }))
    }

    /// Whether it is what is put there, but for what is said of that.
    fn holds(&self, put: &Put, draft: &Draft) -> Result<bool, DraftError> {
        let Node { kind, held, .. } = &self.node;
        Ok(match (kind, put) {
            (NodeKind::Directory, Put::Directory) => true,
            // The same bytes become the same chunks.
            (NodeKind::File, Put::File(stored)) => {
                held.size == stored.size
                    && Content::from(draft.tree().body_of(held)?) == stored.content
            }
            (NodeKind::Symlink(to), Put::Symlink(target)) => to == target,
            (_, Put::Link(first)) => {
                let is_file = matches!(self.what, What::File { .. });
                is_file && draft.find(first)?.file() == self.what.file()
            }
            _ => false,
        })
    }
}

fn facts(node: &Node, Stamp { seconds, nanos }: Stamp) -> Facts {
    let extended = node.extended.iter().map(|(name, value)| (name.clone(), value.clone()));
    Facts { mode: node.mode, modified: (seconds, nanos), extended: extended.collect() }
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
