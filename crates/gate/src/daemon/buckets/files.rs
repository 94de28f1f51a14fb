//! What is in buckets: shown, read, put, moved, removed, by paths.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gate_bucket::bucket::{Bucket, Tree};
use gate_bucket::draft::{Draft, DraftError, Meta};
use gate_bucket::live::Live;
use gate_bucket::merge::TextLens;
use gate_bucket::shelf::ShelfError;
use gate_bucket::vault::{Reader, TakeInError};
use gate_core::tree::content::Body;
use gate_core::tree::diff::{Change, Held, MODE_DEFAULT, Node, diff};
use gate_core::tree::id::EntryId;
use gate_core::tree::op::{Kind as NodeKind, Name, Stamp};
use gate_core::tree::record::FileRecord;
use gate_core::tree::shown::{Directory, Lens, Shown, What};
use gate_core::tree::state::State;
use gate_core::tree::tables::Memory;
use gate_core::tree::walk::TreePath;
use jiff::Timestamp;

use super::past::{not_past, version};
use super::{Buckets, lock, now_ms, refusal};
use crate::daemon::body::WrittenPath;
use crate::daemon::body::bucket::{self as body, Changed};
use crate::daemon::refusal::{Kind, Refusal};

/// Nodes of which an answer tells at once; more are for programs that walk, or for an export.
const LISTED_MAX: usize = 100_000;
/// What is made has these permissions unless somebody says others.
const FILE_MODE: u32 = 0o644;
pub(super) const DIRECTORY_MODE: u32 = MODE_DEFAULT;

/// Something in a bucket, as people look at it.
pub struct Looked {
    pub here: body::Node,
    /// Some of what is in it, by name, if it is a directory, …
    pub entries: Vec<body::Node>,
    /// … of so many.
    pub total: usize,
    /// Which version it is of, if that is not the newest.
    pub version: Option<String>,
}

/// A bucket, and a tree of it that stays as it is.
pub(super) struct View {
    bucket: Arc<Live>,
    tree: AnyTree,
    lens: TextLens,
}

/// A tree of a bucket.
pub(super) enum AnyTree {
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
    ) -> Result<Vec<body::Node>, Refusal> {
        let view = self.view(words, at)?;
        let mut nodes = Vec::new();
        let (path, what) = view.find(path)?;
        let mut left = match what {
            What::Directory(directory) => vec![(path, directory)],
            what => return Ok(vec![view.tell(path, &what)?]),
        };
        while let Some((at, directory)) = left.pop() {
            let mut inside = Vec::new();
            for (path, what) in view.entries(&at, &directory)? {
                if nodes.len() == LISTED_MAX {
                    let hint = "list a directory of it, or export it";
                    let message = format!("there are more than {LISTED_MAX}");
                    return Err(Refusal::new(Kind::Limit, message, hint));
                }
                nodes.push(view.tell(path.clone(), &what)?);
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

    /// Returns what is at a path, and of what is in it, from the `first` on, as `most` say.
    pub fn look(
        &self,
        words: &str,
        path: &[u8],
        at: Option<&str>,
        (first, most): (usize, usize),
    ) -> Result<Looked, Refusal> {
        let view = self.view(words, at)?;
        let (path, what) = view.find(path)?;
        let here = view.tell(path.clone(), &what)?;
        let inside = match what {
            What::Directory(directory) => view.entries(&path, &directory)?,
            What::File { .. } | What::Beside { .. } => Vec::new(),
        };
        let total = inside.len();
        let shown = inside.into_iter().skip(first).take(most);
        let entries = shown.map(|(path, what)| view.tell(path, &what)).collect::<Result<_, _>>()?;
        let version = match (&view.tree, at) {
            (AnyTree::Then(_), Some(at)) => {
                let mut bucket = lock(&view.bucket)?;
                let entry = version(&mut bucket, at)?.entry;
                entry.and_then(|entry| bucket.hash(entry)).map(|hash| hash.to_string())
            }
            _ => None,
        };
        Ok(Looked { here, entries, total, version })
    }

    /// Returns one of them.
    pub fn stat(&self, words: &str, path: &[u8], at: Option<&str>) -> Result<body::Node, Refusal> {
        let view = self.view(words, at)?;
        let (path, what) = view.find(path)?;
        view.tell(path, &what)
    }

    /// Opens a file.
    pub fn open_file(&self, words: &str, path: &[u8], at: Option<&str>) -> Result<Reader, Refusal> {
        let view = self.view(words, at)?;
        let (path, what) = view.find(path)?;
        let node = view.node(&what)?;
        let not = |what: &str, hint: &str| {
            Err(Refusal::new(Kind::Invalid, format!("{} is {what}", path.display()), hint))
        };
        match node.kind {
            NodeKind::Directory => not("a directory", "name a file in it"),
            NodeKind::Symlink(_) => not("a symbolic link", "`stat` tells where it leads"),
            NodeKind::File => view.reader(&node.held),
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
        let parent = read_path(parent)?;
        let name = Name::try_from(name).map_err(|error| invalid(&error))?;
        let path = TreePath::from([parent.names(), &[name]].concat());
        let vault = lock(&bucket)?.vault().map_err(refusal)?;
        // Before it is read: who sends much is not to send it in vain.
        self.change_in(&bucket, |draft| match draft.find(&parent)? {
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
                Ok(what) => draft.tree().node(&what, draft.lens())?.mode,
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
        let (tree, lens) = {
            let mut bucket = lock(&bucket)?;
            (AnyTree::of(&mut bucket, at)?, bucket.lens())
        };
        Ok(View { bucket, tree, lens })
    }

    fn change(
        &self,
        words: &str,
        draft: impl FnOnce(&mut Draft) -> Result<(), DraftError>,
    ) -> Result<Changed, Refusal> {
        let bucket = self.get(words)?;
        self.change_in(&bucket, draft)
    }

    pub(super) fn change_in(
        &self,
        bucket: &Live,
        draft: impl FnOnce(&mut Draft) -> Result<(), DraftError>,
    ) -> Result<Changed, Refusal> {
        let mut bucket = lock(bucket)?;
        let (entry, ()) = bucket.change(now_ms(), draft).map_err(not_done)?;
        Ok(changed(&bucket, entry))
    }
}

pub(super) fn changed(bucket: &Bucket, entry: Option<EntryId>) -> Changed {
    let hash = entry.and_then(|entry| bucket.hash(entry));
    Changed { version: hash.map(|hash| hash.to_string()) }
}

impl AnyTree {
    /// Returns the tree as it is now, or as it was in a version.
    pub fn of(bucket: &mut Bucket, at: Option<&str>) -> Result<AnyTree, Refusal> {
        let version = at.map(|at| version(bucket, at)).transpose()?;
        Ok(match version.filter(|version| !bucket.is_newest(version)) {
            None => AnyTree::Now(bucket.snapshot().map_err(refusal)?),
            Some(version) => AnyTree::Then(Box::new(bucket.at(&version).map_err(not_past)?)),
        })
    }

    /// Returns a tree with nothing in it.
    pub fn nothing() -> AnyTree {
        AnyTree::Then(Box::default())
    }

    /// Returns what is different in another tree.
    pub fn diff(&self, after: &AnyTree, lens: &impl Lens) -> Result<Vec<Change>, ShelfError> {
        match (self, after) {
            (AnyTree::Now(before), AnyTree::Now(after)) => diff(before, after, lens),
            (AnyTree::Now(before), AnyTree::Then(after)) => diff(before, after, lens),
            (AnyTree::Then(before), AnyTree::Now(after)) => diff(before, after, lens),
            (AnyTree::Then(before), AnyTree::Then(after)) => diff(before, after, lens),
        }
    }

    pub fn walk(&self, names: &[Name], lens: &impl Lens) -> Result<What, DraftError> {
        match self {
            AnyTree::Now(tree) => Ok(tree.walk(names, lens)?),
            AnyTree::Then(tree) => Ok(tree.walk(names, lens)?),
        }
    }

    fn list(&self, directory: &Directory, lens: &impl Lens) -> Result<Vec<Shown>, ShelfError> {
        match self {
            AnyTree::Now(tree) => tree.list(directory, lens),
            AnyTree::Then(tree) => Ok(tree.list(directory, lens)?),
        }
    }

    /// Returns the bytes of a file that was found in it.
    pub fn body_of(&self, held: &Held) -> Result<Body, ShelfError> {
        match self {
            AnyTree::Now(tree) => tree.body_of(held),
            AnyTree::Then(tree) => Ok(tree.body_of(held)?),
        }
    }

    fn node(&self, what: &What, lens: &impl Lens) -> Result<Node, ShelfError> {
        match self {
            AnyTree::Now(tree) => tree.node(what, lens),
            AnyTree::Then(tree) => Ok(tree.node(what, lens)?),
        }
    }

    fn record(&self, what: &What) -> Result<FileRecord, ShelfError> {
        match self {
            AnyTree::Now(tree) => tree.file(what.file()),
            AnyTree::Then(tree) => Ok(tree.file(what.file())?),
        }
    }
}

impl View {
    /// Returns what is at a path, and the path as it is told.
    pub fn find(&self, path: &[u8]) -> Result<(PathBuf, What), Refusal> {
        let path = read_path(path)?;
        let what = self.tree.walk(path.names(), &self.lens);
        let what = what.map_err(|error| cannot("find", &path, not_done(error)))?;
        Ok((told(&path), what))
    }

    /// Returns what is in a directory, with the paths.
    pub fn entries(
        &self,
        at: &Path,
        directory: &Directory,
    ) -> Result<Vec<(PathBuf, What)>, Refusal> {
        let shown = self.tree.list(directory, &self.lens).map_err(not_read)?.into_iter();
        let path = |name: &[u8]| at.join(OsString::from_vec(name.to_vec()));
        Ok(shown.map(|shown| (path(shown.name.bytes()), shown.what)).collect())
    }

    pub fn record(&self, what: &What) -> Result<FileRecord, Refusal> {
        self.tree.record(what).map_err(not_read)
    }

    pub fn node(&self, what: &What) -> Result<Node, Refusal> {
        self.tree.node(what, &self.lens).map_err(not_read)
    }

    pub fn reader(&self, held: &Held) -> Result<Reader, Refusal> {
        let body = self.tree.body_of(held).map_err(not_read)?;
        Ok(lock(&self.bucket)?.vault().map_err(refusal)?.reader(body, held.size))
    }

    fn tell(&self, path: PathBuf, what: &What) -> Result<body::Node, Refusal> {
        let record = self.record(what)?;
        let stamp = modified(&record);
        let Node { kind, mode, held, .. } = self.node(what)?;
        let merged_of = held.merged.is_some().then_some(record.heads.len() as u64);
        let (kind, target) = match kind {
            NodeKind::File => ("file", None),
            NodeKind::Directory => ("directory", None),
            NodeKind::Symlink(to) => ("symlink", Some(WrittenPath(OsString::from_vec(to).into()))),
        };
        let nanos = i32::try_from(stamp.nanos).unwrap_or(0);
        let modified = Timestamp::new(stamp.seconds, nanos).unwrap_or(Timestamp::MAX).to_string();
        let (kind, size) = (kind.to_owned(), held.size);
        Ok(body::Node { path, kind, size, mode, modified, target, merged_of })
    }
}

/// Returns when something was modified.
pub(super) fn modified(record: &FileRecord) -> Stamp {
    record.modified.as_ref().map(|set| set.value).unwrap_or_default()
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
pub(super) fn cannot(what: &str, path: &TreePath, refusal: Refusal) -> Refusal {
    let message = format!("cannot {what} {path}: {}", refusal.message);
    Refusal { message, ..refusal }
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
    let (kind, hint) = match error {
        DraftError::NotFound => (Kind::NotFound, "`gate bucket ls` shows what is there"),
        DraftError::NotADirectory => (Kind::Invalid, "name a directory"),
        DraftError::IsADirectory => (Kind::Invalid, "name a file"),
        DraftError::Exists => (Kind::Taken, "choose another path, or remove what is there"),
        DraftError::NotEmpty => (Kind::State, "remove what is in it, too: `-r`"),
        DraftError::IntoItself => (Kind::Invalid, "choose another path"),
        DraftError::IsRoot => (Kind::Invalid, "name something in it"),
        DraftError::IsBeside => (Kind::State, "give it a name of its own, or remove it"),
        DraftError::Invalid(error) => return invalid(&error),
        DraftError::Fault(_) => {
            (Kind::Invalid, "it is too long, or has bytes that it may not have")
        }
        DraftError::Full | DraftError::TooLarge => (Kind::Limit, "do it in several steps"),
        DraftError::Tree(_) => (Kind::Failed, "`gate bucket fsck` looks at the bucket"),
        DraftError::Bucket(error) => return refusal(error),
    };
    Refusal::new(kind, error, hint)
}
