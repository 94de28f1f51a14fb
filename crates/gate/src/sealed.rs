//! A bucket as what is behind a view.
//!
//! What a node stands for is a file of the bucket, whatever its names; what is done goes to the bucket in use
//! ([`Live`]), which is seen at once and becomes entries a little later. A bucket has no owners: all is the
//! user's who keeps it. Nor has it times but that of the last change of a file's bytes: a node tells of
//! its own changes for as long as the kernel knows it.
//! Not here: turns, the kernel's caches, and what is kept on a disk.

mod faces;
mod file;
mod names;
mod node;

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gate_bucket::bucket::BucketError;
use gate_bucket::draft::DraftError;
use gate_bucket::frames::FramesError;
use gate_bucket::index::IndexError;
use gate_bucket::live::{Live, Tidings};
use gate_bucket::log::LogError;
use gate_bucket::store::StoreError;
use gate_core::fold;
use gate_core::lock::key::FileKey;
use gate_core::tree::op::{Kind, Name, NameError};
use gate_core::tree::shown::{Directory, What};
use gate_fuse::{Attr, Caller, Errno, NodeId, SetAttr, SetTime, StatFs, Statx};
use gate_view::nodes::{Book, Nodes};
use gate_view::source::{
    Change, File, Found, Heard, Listing, Make, News, Opening, SetXattr, Source, Who,
};

use faces::Faces;
use node::Leaf;

/// What is behind the view of a bucket.
pub struct Sealed {
    live: Arc<Live>,
    nodes: Nodes<Leaf>,
    faces: Arc<Faces>,
    /// Tells the bucket's files from others.
    volume: u64,
    /// Where the bucket lies.
    dir: PathBuf,
    /// Whose all of it is.
    uid: u32,
    gid: u32,
    tidings: Arc<Tidings>,
}

impl Sealed {
    /// Shows a bucket, which lies in a directory.
    pub fn new(live: Arc<Live>, dir: &Path) -> Sealed {
        let root = What::Directory(Directory::root());
        let root = Leaf::new(root.clone(), root.file(), &Kind::Directory);
        Sealed {
            tidings: live.tidings(),
            live,
            nodes: Nodes::new(root),
            faces: Arc::default(),
            volume: fold::fold(dir.as_os_str().as_encoded_bytes()),
            dir: dir.to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    fn attr(&self, leaf: &Leaf) -> Result<Attr, Errno> {
        let what = leaf.what();
        let facts = self.live.facts(&what).map_err(errno_of)?;
        drop(what);
        Ok(leaf.attr(&facts, (self.uid, self.gid)))
    }

    /// Returns what a node for this stands for.
    fn leaf(&self, what: What, kind: &Kind) -> Leaf {
        let face = self.faces.of(what.file());
        Leaf::new(what, face, kind)
    }

    /// Returns the directory that a node stands for, and a name in it.
    fn place(&self, parent: NodeId, name: &CStr) -> Result<(Directory, Name), Errno> {
        Ok((self.directory(parent)?, name_of(name)?))
    }

    fn directory(&self, node: NodeId) -> Result<Directory, Errno> {
        match &*self.nodes.get(node)?.what() {
            What::Directory(directory) => Ok(directory.clone()),
            What::File { .. } | What::Beside { .. } => Err(Errno::NOTDIR),
        }
    }

    fn find(&self, parent: NodeId, name: &CStr) -> Result<What, Errno> {
        let (directory, name) = self.place(parent, name)?;
        self.live.find(&directory, &name).map_err(errno_of)?.ok_or(Errno::NOENT)
    }

    /// Returns the node of what was found or made, and counts a lookup of it.
    fn found(&self, parent: NodeId, name: &CStr, what: What) -> Result<Found, Errno> {
        self.nodes.enter();
        let facts = self.live.facts(&what).map_err(errno_of)?;
        let node = self.nodes.found(self.leaf(what, &facts.kind), (parent, name.to_bytes()));
        let attr = node.attr(&facts, (self.uid, self.gid));
        Ok(Found { node: node.id, attr })
    }

    /// As [`Sealed::found`], of what was made in a directory, or was not.
    fn made(
        &self,
        parent: NodeId,
        name: &CStr,
        made: Result<What, DraftError>,
    ) -> Result<Found, Errno> {
        self.changed(Some(parent));
        self.found(parent, name, made.map_err(errno_of)?)
    }

    fn found_again(&self, node: NodeId) -> Result<Found, Errno> {
        let node = self.nodes.found_again(node)?;
        match self.attr(&node) {
            Ok(attr) => Ok(Found { node: node.id, attr }),
            Err(errno) => {
                self.nodes.forget(node.id, 1);
                Err(errno)
            }
        }
    }

    /// Notes that a known node was changed, if it is known.
    fn changed(&self, node: Option<NodeId>) {
        if let Some(node) = node.and_then(|node| self.nodes.get(node).ok()) {
            node.change();
        }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.tidings.close();
    }
}

impl Source for Sealed {
    fn book(&self) -> &dyn Book {
        &self.nodes
    }

    fn lookup(&self, parent: NodeId, name: &CStr) -> Result<Found, Errno> {
        match name.to_bytes() {
            b"." => self.found_again(parent),
            b".." => self.found_again(self.nodes.parent(parent).unwrap_or(NodeId::ROOT)),
            bytes if is_litter(bytes) => Err(Errno::NOENT),
            bytes => match self.find(parent, name) {
                Ok(what) => self.found(parent, name, what),
                Err(errno) => {
                    self.nodes.unlinked((parent, bytes));
                    Err(errno)
                }
            },
        }
    }

    fn peek(&self, parent: NodeId, name: &CStr) -> Result<(FileKey, Attr), Errno> {
        let what = self.find(parent, name)?;
        let facts = self.live.facts(&what).map_err(errno_of)?;
        let leaf = self.leaf(what, &facts.kind);
        let attr = match self.nodes.child((parent, name.to_bytes())) {
            // It tells of its own changes, too.
            Some(node) if self.file_key(node)? == leaf.file_key(self.volume) => {
                self.getattr(node)?
            }
            _ => leaf.attr(&facts, (self.uid, self.gid)),
        };
        Ok((leaf.file_key(self.volume), attr))
    }

    fn getattr(&self, node: NodeId) -> Result<Attr, Errno> {
        self.attr(&*self.nodes.get(node)?)
    }

    fn statx(&self, node: NodeId) -> Result<(Attr, Statx), Errno> {
        let attr = self.getattr(node)?;
        Ok((attr, node::statx_of(&attr)))
    }

    fn file_key(&self, node: NodeId) -> Result<FileKey, Errno> {
        Ok(self.nodes.get(node)?.file_key(self.volume))
    }

    fn readlink(&self, node: NodeId) -> Result<Vec<u8>, Errno> {
        match self.live.kind(&self.nodes.get(node)?.what()).map_err(errno_of)? {
            Kind::Symlink(target) => Ok(target),
            Kind::File | Kind::Directory => Err(Errno::INVAL),
        }
    }

    fn statfs(&self, _node: NodeId) -> Result<StatFs, Errno> {
        node::figures_of(&self.dir)
    }

    fn is_empty(&self, parent: NodeId, name: &CStr) -> Result<bool, Errno> {
        match self.find(parent, name)? {
            What::Directory(directory) => {
                Ok(self.live.list(&directory).map_err(errno_of)?.is_empty())
            }
            What::File { .. } | What::Beside { .. } => Err(Errno::NOTDIR),
        }
    }

    fn opendir(&self, node: NodeId) -> Result<Box<dyn Listing>, Errno> {
        self.nodes.enter();
        let parent = self.nodes.parent(node).unwrap_or(NodeId::ROOT);
        let above = self.getattr(parent)?.ino;
        let here = self.nodes.get(node)?;
        let own = here.ino();
        let directory = self.directory(node)?;
        Ok(Box::new(names::Open::new((&self.live, &self.faces), directory, own, above)))
    }

    fn open(&self, node: NodeId, opening: &Opening<'_>) -> Result<Box<dyn File>, Errno> {
        let node = self.nodes.get(node)?;
        file::open(&self.live, node, opening).map(file::boxed)
    }

    fn create(
        &self,
        (parent, name): (NodeId, &CStr),
        make: &Make<'_>,
        opening: &Opening<'_>,
    ) -> Result<(Found, Box<dyn File>), Errno> {
        let made = self.mknod(parent, name, &Make { mode: make.mode | libc::S_IFREG, ..*make }, 0);
        let found = match made {
            Err(Errno::EXIST) if opening.flags & libc::O_EXCL.cast_unsigned() == 0 => {
                self.lookup(parent, name)?
            }
            made => made?,
        };
        match self.open(found.node, opening) {
            Ok(file) => Ok((found, file)),
            Err(errno) => {
                self.nodes.forget(found.node, 1);
                Err(errno)
            }
        }
    }

    fn tmpfile(
        &self,
        parent: NodeId,
        make: &Make<'_>,
        opening: &Opening<'_>,
    ) -> Result<(Found, Box<dyn File>), Errno> {
        self.directory(parent)?;
        let (what, opened) = self.live.make_nameless(permissions(make));
        let node = self.nodes.found_nameless(self.leaf(what, &Kind::File));
        let attr = self.attr(&node)?;
        let id = node.id;
        Ok((
            Found { node: id, attr },
            file::boxed(file::Sheet::of(&self.live, node, opened, opening)),
        ))
    }

    fn mkdir(&self, parent: NodeId, name: &CStr, make: &Make<'_>) -> Result<Found, Errno> {
        let (directory, checked) = self.new_place(parent, name)?;
        self.made(parent, name, self.live.make_directory(&directory, &checked, permissions(make)))
    }

    fn mknod(
        &self,
        parent: NodeId,
        name: &CStr,
        make: &Make<'_>,
        _rdev: u32,
    ) -> Result<Found, Errno> {
        // A bucket carries files, directories and symbolic links.
        if make.mode & libc::S_IFMT != libc::S_IFREG {
            return Err(Errno::PERM);
        }
        let (directory, checked) = self.new_place(parent, name)?;
        self.made(
            parent,
            name,
            self.live.make_file(&directory, &checked, &Kind::File, permissions(make)),
        )
    }

    fn symlink(
        &self,
        parent: NodeId,
        name: &CStr,
        target: &CStr,
        _caller: &Caller,
    ) -> Result<Found, Errno> {
        let (directory, checked) = self.new_place(parent, name)?;
        let kind = Kind::Symlink(target.to_bytes().to_vec());
        self.made(parent, name, self.live.make_file(&directory, &checked, &kind, 0o777))
    }

    fn link(&self, existing: NodeId, parent: NodeId, name: &CStr) -> Result<Found, Errno> {
        let (directory, checked) = self.new_place(parent, name)?;
        let node = self.nodes.get(existing)?;
        self.live.link(&node.what(), &directory, &checked).map_err(errno_of)?;
        node.change();
        self.changed(Some(parent));
        self.nodes.linked(&node, (parent, name.to_bytes()));
        Ok(Found { node: node.id, attr: self.attr(&node)? })
    }

    fn unlink(&self, parent: NodeId, name: &CStr) -> Result<(), Errno> {
        self.remove(parent, name, false)
    }

    fn rmdir(&self, parent: NodeId, name: &CStr) -> Result<(), Errno> {
        self.remove(parent, name, true)
    }

    fn rename(
        &self,
        from: (NodeId, &CStr),
        to: (NodeId, &CStr),
        flags: u32,
        by: &Who,
    ) -> Result<(), Errno> {
        self.give_name(from, to, flags, by)
    }

    fn setattr(
        &self,
        _caller: &Caller,
        node: NodeId,
        _file: Option<&dyn File>,
        change: &SetAttr,
    ) -> Result<Attr, Errno> {
        let node = self.nodes.get(node)?;
        let is_other = |wanted: Option<u32>, is: u32| wanted.is_some_and(|id| id != is);
        if is_other(change.uid, self.uid) || is_other(change.gid, self.gid) {
            return Err(Errno::PERM);
        }
        if let Some(mode) = change.mode {
            self.live.set_mode(&node.what(), mode & 0o7777).map_err(errno_of)?;
        }
        if let Some(size) = change.size {
            let opened = self.live.open(&node.what(), true).map_err(errno_of)?;
            opened.set_size(size, None).map_err(errno_of)?;
            if change.kill_suidgid {
                file::strip(&self.live, &node.what())?;
            }
        }
        if let Some(time) = change.mtime {
            let modified = match time {
                SetTime::Now => node::now(),
                SetTime::At(time) => node::stamp_of(time)?,
            };
            self.live.set_modified(&node.what(), modified).map_err(errno_of)?;
        }
        node.change();
        self.attr(&node)
    }

    fn getxattr(&self, node: NodeId, name: &CStr, size: u32) -> Result<Vec<u8>, Errno> {
        let value = self.extended(node, name)?;
        if value.len() > size as usize { Err(Errno::RANGE) } else { Ok(value) }
    }

    fn xattr_size(&self, node: NodeId, name: &CStr) -> Result<usize, Errno> {
        Ok(self.extended(node, name)?.len())
    }

    fn listxattr(&self, _caller: &Caller, node: NodeId) -> Result<Vec<u8>, Errno> {
        let all = self.live.extended(&self.nodes.get(node)?.what()).map_err(errno_of)?;
        Ok(all.into_keys().flat_map(|name| [name, vec![0]].concat()).collect())
    }

    fn setxattr(&self, _caller: &Caller, node: NodeId, xattr: &SetXattr<'_>) -> Result<(), Errno> {
        self.set_extended(node, xattr)
    }

    fn removexattr(&self, node: NodeId, name: &CStr) -> Result<(), Errno> {
        self.extended(node, name)?;
        let node = self.nodes.get(node)?;
        self.live.set_extended(&node.what(), name.to_bytes(), None).map_err(errno_of)?;
        node.change();
        Ok(())
    }

    fn syncfs(&self, _node: NodeId) -> Result<(), Errno> {
        self.live.sync().map_err(|error| errno_of(error.into()))
    }

    fn is_watched(&self, _directory: NodeId) -> bool {
        true
    }

    fn news(&self) -> Option<Arc<dyn News>> {
        Some(Arc::new(Telling(Arc::clone(&self.tidings))))
    }

    fn heard(&self) -> Heard {
        let mut heard = Heard::default();
        if self.tidings.take() {
            heard.change(Change::Anything);
        }
        heard
    }
}

/// What waits until somebody else changed the bucket.
struct Telling(Arc<Tidings>);

impl News for Telling {
    fn wait(&self, patience: Option<Duration>) -> Option<()> {
        self.0.wait(patience)
    }
}

/// Names that a Mac leaves in each directory, and that nobody wants to have elsewhere.
fn is_litter(name: &[u8]) -> bool {
    const LITTER: [&[u8]; 5] =
        [b".DS_Store", b".Spotlight-V100", b".Trashes", b".fseventsd", b".TemporaryItems"];
    LITTER.contains(&name) || name.starts_with(b"._")
}

fn permissions(make: &Make<'_>) -> u32 {
    make.mode & !make.umask & 0o7777
}

fn name_of(name: &CStr) -> Result<Name, Errno> {
    Name::try_from(name.to_bytes()).map_err(|error| match error {
        NameError::TooLong => Errno::NAMETOOLONG,
        NameError::Empty | NameError::Forbidden => Errno::INVAL,
    })
}

fn c_string(name: &Name) -> CString {
    CString::new(name.bytes()).expect("a name has no NUL byte")
}

/// Says to a caller why a bucket did not do what was asked.
fn errno_of(error: DraftError) -> Errno {
    match error {
        DraftError::NotFound => Errno::NOENT,
        DraftError::NotADirectory => Errno::NOTDIR,
        DraftError::IsADirectory => Errno::ISDIR,
        DraftError::Exists => Errno::EXIST,
        DraftError::NotEmpty => Errno::NOTEMPTY,
        DraftError::IntoItself | DraftError::Invalid(_) | DraftError::Fault(_) => Errno::INVAL,
        DraftError::IsRoot => Errno::BUSY,
        DraftError::IsBeside => Errno::ROFS,
        DraftError::TooLarge => Errno::FBIG,
        error @ (DraftError::Full | DraftError::Tree(_)) => {
            tracing::warn!(%error, "a bucket does not do what was asked");
            Errno::IO
        }
        DraftError::Bucket(error) => errno_of_bucket(&error),
    }
}

fn errno_of_bucket(error: &BucketError) -> Errno {
    let io = match error {
        BucketError::MayNotWrite => return Errno::ROFS,
        BucketError::Log(LogError::Full) => return Errno::NOSPC,
        BucketError::NoKey(_) => return Errno::ACCESS,
        BucketError::Io(error)
        | BucketError::Log(LogError::Io(error))
        | BucketError::Store(StoreError::Io(error))
        | BucketError::Frames(FramesError::Io(error))
        | BucketError::Index(IndexError::Io(error)) => Errno::from_io_error(error),
        _ => None,
    };
    tracing::warn!(%error, "a bucket does not do what was asked");
    io.unwrap_or(Errno::IO)
}
