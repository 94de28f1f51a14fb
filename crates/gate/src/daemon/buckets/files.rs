//! What is in buckets: shown, read, put, moved, removed, by paths.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gate_bucket::bucket::{Bucket, Tree};
use gate_bucket::draft::{Draft, DraftError, Meta};
use gate_bucket::shelf::{ShelfError, guarded};
use gate_bucket::vault::{Reader, TakeInError};
use gate_core::tree::content::Body;
use gate_core::tree::id::EntryId;
use gate_core::tree::op::{Kind as NodeKind, Name, Stamp};
use gate_core::tree::record::FileRecord;
use gate_core::tree::shown::{Authors, Directory, Shown, What};
use gate_core::tree::state::State;
use gate_core::tree::tables::{Look, Memory};
use gate_core::tree::walk::{TreePath, WalkError};
use jiff::Timestamp;

use super::past::version;
use super::{Buckets, now_ms, refusal};
use crate::daemon::body::WrittenPath;
use crate::daemon::body::bucket::{Changed, Node};
use crate::daemon::refusal::{Kind, Refusal};

/// Nodes of which an answer tells at once; more are for programs that walk, or for an export.
const LISTED_MAX: usize = 100_000;
/// What is made has these permissions unless somebody says others.
const FILE_MODE: u32 = 0o644;
pub(super) const DIRECTORY_MODE: u32 = 0o755;

/// A bucket, and a tree of it that stays as it is.
pub(super) struct View {
    bucket: Arc<Mutex<Bucket>>,
    tree: AnyTree,
}

/// A tree of a bucket.
enum AnyTree {
    Now(Tree),
    Then(Box<State<Memory>>),
}

impl Buckets {
    /// Returns what is in a directory, by name, or all that is beneath it, or one file.
    pub fn list(
        &self,
        words: &str,
        path: &[u8],
        at: Option<&str>,
        all: bool,
    ) -> Result<Vec<Node>, Refusal> {
        let view = self.view(words, at)?;
        let mut nodes = Vec::new();
        let (path, what) = view.find(path)?;
        let mut left = match what {
            What::Directory(directory) => vec![(path, directory)],
            what => return Ok(vec![view.node(path, &what)?]),
        };
        while let Some((at, directory)) = left.pop() {
            let mut inside = Vec::new();
            for (path, what) in view.entries(&at, &directory)? {
                if nodes.len() == LISTED_MAX {
                    let hint = "list a directory of it, or export it";
                    let message = format!("there are more than {LISTED_MAX}");
                    return Err(Refusal::new(Kind::Limit, message, hint));
                }
                nodes.push(view.node(path.clone(), &what)?);
                if let (What::Directory(directory), true) = (what, all) {
                    inside.push((path, directory));
                }
            }
            left.extend(inside.into_iter().rev());
        }
        if all {
            nodes.sort_by(|a, b| a.path.cmp(&b.path));
        }
        Ok(nodes)
    }

    /// Returns one of them.
    pub fn stat(&self, words: &str, path: &[u8], at: Option<&str>) -> Result<Node, Refusal> {
        let view = self.view(words, at)?;
        let (path, what) = view.find(path)?;
        view.node(path, &what)
    }

    /// Opens a file.
    pub fn open_file(&self, words: &str, path: &[u8], at: Option<&str>) -> Result<Reader, Refusal> {
        let view = self.view(words, at)?;
        let (path, what) = view.find(path)?;
        let (kind, size, body) = view.content(&what)?;
        let not = |what: &str, hint: &str| {
            Err(Refusal::new(Kind::Invalid, format!("{} is {what}", path.display()), hint))
        };
        match kind {
            NodeKind::Directory => not("a directory", "name a file in it"),
            NodeKind::Symlink(_) => not("a symbolic link", "`stat` tells where it leads"),
            NodeKind::File => view.reader(body, size),
        }
    }

    /// Puts a file into a directory that is there; one that is there gets a new version.
    pub fn put(
        &self,
        words: &str,
        (parent, name): (&[u8], &[u8]),
        from: &mut dyn Read,
    ) -> Result<Changed, Refusal> {
        let bucket = self.get(words)?;
        let mut names = read_path(parent)?.names().to_vec();
        let name = Name::try_from(name);
        names.push(name.map_err(|error| invalid(&error))?);
        let path = TreePath::from(names);
        let vault = lock(&bucket).vault().map_err(refusal)?;
        // Before it is read: who sends much is not to send it in vain.
        self.change_in(&bucket, |draft| match draft.find(&parent_of(&path))? {
            What::Directory(_) => Ok(()),
            What::File { .. } | What::Beside { .. } => Err(DraftError::NotADirectory),
        })
        .map_err(|refusal| match refusal.kind {
            Kind::NotFound => {
                let hint = "make it: `gate bucket mkdir -p`";
                Refusal::new(Kind::Invalid, "there is no such directory", hint)
            }
            _ => refusal,
        })?;
        let stored = vault.take_in(from).map_err(not_taken)?;
        let put = self.change_in(&bucket, |draft| {
            let mode = match draft.find(&path) {
                Ok(what) => mode_in(&record_of(draft.tree(), &what)?).unwrap_or(FILE_MODE),
                Err(_) => FILE_MODE,
            };
            draft.put(&path, &stored, Meta { mode, modified: now() })
        });
        put.map_err(|refusal| cannot("store", &path, refusal))
    }

    /// Makes a directory.
    pub fn make_directory(
        &self,
        words: &str,
        path: &[u8],
        parents: bool,
    ) -> Result<Changed, Refusal> {
        let path = read_path(path)?;
        let meta = Meta { mode: DIRECTORY_MODE, modified: now() };
        let made = self.change(words, |draft| match parents {
            true => draft.make_directories(&path, meta),
            false => draft.make_directory(&path, meta),
        });
        made.map_err(|refusal| cannot("make", &path, refusal))
    }

    /// Moves something: into a directory that is there, or to a path, in the place of a file that is there.
    pub fn move_to(&self, words: &str, from: &[u8], to: &[u8]) -> Result<Changed, Refusal> {
        let (from, to) = (read_path(from)?, read_path(to)?);
        let moved = self.change(words, |draft| {
            let mut to = to.clone();
            if let (Ok(What::Directory(_)), Some(name)) = (draft.find(&to), from.names().last()) {
                to = TreePath::from([to.names(), std::slice::from_ref(name)].concat());
            }
            draft.rename(&from, &to)
        });
        moved.map_err(|refusal| cannot("move", &from, refusal))
    }

    /// Removes something.
    pub fn remove(&self, words: &str, path: &[u8], recursive: bool) -> Result<Changed, Refusal> {
        let path = read_path(path)?;
        let removed = self.change(words, |draft| match recursive {
            true => draft.remove_all(&path),
            false => draft.remove(&path),
        });
        removed.map_err(|refusal| cannot("remove", &path, refusal))
    }

    /// Returns the tree of a bucket as it is now, or as it was in a version.
    pub(super) fn view(&self, words: &str, at: Option<&str>) -> Result<View, Refusal> {
        let bucket = self.get(words)?;
        let tree = {
            let mut bucket = lock(&bucket);
            let version = at.map(|at| version(&bucket, at)).transpose()?;
            match version.filter(|version| !bucket.is_newest(version)) {
                None => AnyTree::Now(bucket.snapshot().map_err(refusal)?),
                Some(version) => AnyTree::Then(Box::new(bucket.at(&version).map_err(refusal)?)),
            }
        };
        Ok(View { bucket, tree })
    }

    fn change(
        &self,
        words: &str,
        draft: impl FnOnce(&mut Draft<'_>) -> Result<(), DraftError>,
    ) -> Result<Changed, Refusal> {
        let bucket = self.get(words)?;
        self.change_in(&bucket, draft)
    }

    pub(super) fn change_in(
        &self,
        bucket: &Mutex<Bucket>,
        draft: impl FnOnce(&mut Draft<'_>) -> Result<(), DraftError>,
    ) -> Result<Changed, Refusal> {
        let mut bucket = lock(bucket);
        let (entry, ()) = bucket.change(now_ms(), draft).map_err(not_done)?;
        Ok(changed(&bucket, entry))
    }
}

pub(super) fn changed(bucket: &Bucket, entry: Option<EntryId>) -> Changed {
    let hash = entry.and_then(|entry| bucket.hash(entry));
    Changed { version: hash.map(|hash| hash.to_string()) }
}

impl AnyTree {
    fn walk(&self, names: &[Name], authors: &impl Authors) -> Result<What, DraftError> {
        match self {
            AnyTree::Now(tree) => {
                let mut found = None;
                guarded(|| {
                    found = Some(tree.walk(names, authors));
                    Ok(())
                })?;
                Ok(found.expect("it was asked for")?)
            }
            AnyTree::Then(tree) => tree.walk(names, authors).map_err(|error| match error {
                WalkError::NotFound => DraftError::NotFound,
                WalkError::NotADirectory => DraftError::NotADirectory,
                WalkError::Tables(never) => match never {},
            }),
        }
    }

    fn list(
        &self,
        directory: &Directory,
        authors: &impl Authors,
    ) -> Result<Vec<Shown>, ShelfError> {
        match self {
            AnyTree::Now(tree) => guarded(|| tree.list(directory, authors)),
            AnyTree::Then(tree) => tree.list(directory, authors).map_err(|never| match never {}),
        }
    }

    fn record(&self, what: &What) -> Result<FileRecord, ShelfError> {
        match self {
            AnyTree::Now(tree) => guarded(|| record_of(tree, what)),
            AnyTree::Then(tree) => record_of(tree, what).map_err(|never| match never {}),
        }
    }
}

impl View {
    /// Returns what is at a path, and the path as it is told.
    pub fn find(&self, path: &[u8]) -> Result<(PathBuf, What), Refusal> {
        let path = read_path(path)?;
        let bucket = lock(&self.bucket);
        let what = self.tree.walk(path.names(), bucket.authors());
        let what = what.map_err(|error| cannot("find", &path, not_done(error)))?;
        Ok((told(&path), what))
    }

    /// Returns what is in a directory, with the paths.
    pub fn entries(
        &self,
        at: &Path,
        directory: &Directory,
    ) -> Result<Vec<(PathBuf, What)>, Refusal> {
        let bucket = lock(&self.bucket);
        let shown = self.tree.list(directory, bucket.authors()).map_err(not_read)?.into_iter();
        let path = |name: &[u8]| at.join(OsString::from_vec(name.to_vec()));
        Ok(shown.map(|shown| (path(shown.name.bytes()), shown.what)).collect())
    }

    pub fn record(&self, what: &What) -> Result<FileRecord, Refusal> {
        self.tree.record(what).map_err(not_read)
    }

    /// Returns what something is, how long it is if it is a file, and what that holds.
    pub fn content(&self, what: &What) -> Result<(NodeKind, u64, Body), Refusal> {
        let mut record = self.record(what)?;
        let kind = kind_of(&record, what);
        let version = match what {
            What::Beside { version, .. } => Some(*version),
            What::Directory(_) | What::File { .. } => record.winner().map(|(id, _)| *id),
        };
        let head = version.and_then(|version| record.heads.remove(&version));
        let (size, body) = head.map_or((0, Body::default()), |head| (head.size, head.body));
        Ok((kind, size, body))
    }

    pub fn reader(&self, body: Body, size: u64) -> Result<Reader, Refusal> {
        Ok(lock(&self.bucket).vault().map_err(refusal)?.reader(body, size))
    }

    fn node(&self, path: PathBuf, what: &What) -> Result<Node, Refusal> {
        let record = self.record(what)?;
        let (kind, size, _) = self.content(what)?;
        let (kind, target) = match kind {
            NodeKind::File => ("file", None),
            NodeKind::Directory => ("directory", None),
            NodeKind::Symlink(to) => ("symlink", Some(WrittenPath(OsString::from_vec(to).into()))),
        };
        let stamp = record.modified.as_ref().map(|set| set.value).unwrap_or_default();
        let nanos = i32::try_from(stamp.nanos).unwrap_or(0);
        let modified = Timestamp::new(stamp.seconds, nanos).unwrap_or(Timestamp::MAX).to_string();
        let mode = mode_in(&record).unwrap_or(DIRECTORY_MODE);
        Ok(Node { path, kind: kind.to_owned(), size, mode, modified, target })
    }
}

pub(super) fn record_of<T: Look>(tree: &State<T>, what: &What) -> Result<FileRecord, T::Error> {
    let file = match what {
        What::Directory(directory) => directory.first(),
        What::File { file, .. } | What::Beside { file, .. } => *file,
    };
    Ok(tree.tables().file(file)?.unwrap_or_default())
}

pub(super) fn kind_of(record: &FileRecord, what: &What) -> NodeKind {
    match (what, &record.made) {
        (What::Directory(_), _) => NodeKind::Directory,
        (_, Some(made)) => made.value.clone(),
        (_, None) => NodeKind::File,
    }
}

pub(super) fn mode_in(record: &FileRecord) -> Option<u32> {
    record.mode.as_ref().map(|set| set.value)
}

pub(super) fn lock(bucket: &Mutex<Bucket>) -> MutexGuard<'_, Bucket> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a path in a bucket; one slash at its end says nothing.
pub(super) fn read_path(path: &[u8]) -> Result<TreePath, Refusal> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    TreePath::try_from(path).map_err(|error| invalid(&error))
}

fn invalid(error: &dyn std::error::Error) -> Refusal {
    let hint = "write it as in `/notes/today.md`";
    Refusal::new(Kind::Invalid, format!("that is no path: {error}"), hint)
}

/// Says what could not be done, and to what.
fn cannot(what: &str, path: &TreePath, refusal: Refusal) -> Refusal {
    let message = format!("cannot {what} {path}: {}", refusal.message);
    Refusal { message, ..refusal }
}

fn parent_of(path: &TreePath) -> TreePath {
    let names = path.names();
    TreePath::from(names[..names.len().saturating_sub(1)].to_vec())
}

pub(super) fn told(path: &TreePath) -> PathBuf {
    let mut told = PathBuf::from("/");
    told.extend(path.names().iter().map(|name| std::ffi::OsStr::from_bytes(name.bytes())));
    told
}

pub(super) fn now() -> Stamp {
    let now = Timestamp::now();
    let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
    Stamp { seconds: now.as_second(), nanos }
}

pub(super) fn not_read(error: ShelfError) -> Refusal {
    not_done(DraftError::Tree(error))
}

pub(super) fn not_taken(error: TakeInError) -> Refusal {
    match error {
        TakeInError::Store(error) => refusal(error.into()),
        TakeInError::Read(error) => {
            let message = format!("not all of it came: {error}");
            Refusal::new(Kind::Invalid, message, "nothing was changed; send it again")
        }
        error @ TakeInError::TooLarge => {
            Refusal::new(Kind::Limit, error, "put it into several files")
        }
    }
}

/// Says why something was not done in a bucket.
pub(super) fn not_done(error: DraftError) -> Refusal {
    let (kind, hint) = match &error {
        DraftError::NotFound => (Kind::NotFound, "`gate bucket ls` shows what is there"),
        DraftError::NotADirectory => (Kind::Invalid, "name a directory"),
        DraftError::IsADirectory => (Kind::Invalid, "name a file"),
        DraftError::Exists => (Kind::Taken, "choose another path, or remove what is there"),
        DraftError::NotEmpty => (Kind::State, "remove what is in it, too: `-r`"),
        DraftError::IntoItself => (Kind::Invalid, "choose another path"),
        DraftError::IsRoot => (Kind::Invalid, "name something in it"),
        DraftError::IsBeside => (Kind::State, "give it a name of its own, or remove it"),
        DraftError::Invalid(error) => return invalid(error),
        DraftError::Fault(_) => {
            (Kind::Invalid, "it is too long, or has bytes that it may not have")
        }
        DraftError::Full | DraftError::TooLarge => (Kind::Limit, "do it in several steps"),
        DraftError::Tree(_) => (Kind::Failed, "`gate bucket fsck` looks at the bucket"),
        DraftError::Bucket(_) => {
            let DraftError::Bucket(error) = error else { unreachable!("it was looked at") };
            return refusal(error);
        }
    };
    Refusal::new(kind, error, hint)
}
