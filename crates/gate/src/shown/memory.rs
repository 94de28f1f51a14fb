//! A tree in memory as the source of a view: as little as a file system can be.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use gate_core::lock::key::FileKey;
use gate_fuse::{Attr, Caller, DirEntry, Errno, NodeId, SetAttr, StatFs, Statx, Write};
use gate_view::nodes::{Anchor, Book, Nodes};
use gate_view::source::{File, Found, Listing, Make, Opening, SetXattr, Source, Who};
use rustix::fs::{FileType, RenameFlags};

type Result<T> = std::result::Result<T, Errno>;

/// A tree in memory.
pub struct Memory {
    nodes: Nodes<Leaf>,
    /// Held while names are changed.
    names: Mutex<()>,
    newest: AtomicU64,
}

/// A file or directory, for as long as anybody knows it.
#[derive(Clone, Debug)]
struct Leaf(Arc<Inode>);

#[derive(Debug)]
struct Inode {
    number: u64,
    kind: FileType,
    data: Mutex<Data>,
}

#[derive(Debug)]
struct Data {
    mode: u32,
    nlink: u32,
    changed: SystemTime,
    content: Vec<u8>,
    names: BTreeMap<Vec<u8>, Leaf>,
}

#[derive(Debug)]
struct Names(Vec<(CString, u64, FileType)>);

impl Anchor for Leaf {
    type Key = u64;

    fn key(&self) -> u64 {
        self.0.number
    }

    fn kind(&self) -> FileType {
        self.0.kind
    }

    fn is_told(&self) -> bool {
        true
    }
}

impl Leaf {
    fn new(number: u64, kind: FileType, mode: u32) -> Leaf {
        let changed = SystemTime::now();
        let (content, names) = (Vec::new(), BTreeMap::new());
        let data = Data { mode: mode & 0o7777, nlink: 1, changed, content, names };
        Leaf(Arc::new(Inode { number, kind, data: Mutex::new(data) }))
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        self.0.data.lock().unwrap()
    }

    fn change(&self) -> MutexGuard<'_, Data> {
        let mut data = self.data();
        data.changed = SystemTime::now();
        data
    }

    fn attr(&self) -> Attr {
        let data = self.data();
        let changed = data.changed.duration_since(UNIX_EPOCH).unwrap();
        let (seconds, nanos) = (changed.as_secs(), changed.subsec_nanos());
        Attr {
            ino: self.0.number,
            size: data.content.len() as u64,
            mode: self.0.kind.as_raw_mode() | data.mode,
            nlink: data.nlink,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: seconds,
            mtime_nsec: nanos,
            ctime: seconds,
            ctime_nsec: nanos,
            blksize: 4096,
            ..Attr::default()
        }
    }

    fn named(&self, name: &CStr) -> Result<Leaf> {
        self.data().names.get(name.to_bytes()).cloned().ok_or(Errno::NOENT)
    }
}

impl Memory {
    pub fn new() -> Memory {
        let nodes = Nodes::new(Leaf::new(1, FileType::Directory, 0o755));
        Memory { nodes, names: Mutex::new(()), newest: AtomicU64::new(1) }
    }

    fn leaf(&self, node: NodeId) -> Result<Leaf> {
        Ok(Leaf::clone(&*self.nodes.get(node)?))
    }

    fn found(&self, leaf: Leaf, parent: NodeId, name: &CStr) -> Found {
        let attr = leaf.attr();
        Found { node: self.nodes.found(leaf, (parent, name.to_bytes())).id, attr }
    }

    fn make(
        &self,
        parent: NodeId,
        name: &CStr,
        kind: FileType,
        mode: u32,
    ) -> Result<(Found, Leaf)> {
        let _names = self.names.lock().unwrap();
        let directory = self.leaf(parent)?;
        if directory.named(name).is_ok() {
            return Err(Errno::EXIST);
        }
        let leaf = Leaf::new(self.newest.fetch_add(1, Ordering::Relaxed) + 1, kind, mode);
        directory.change().names.insert(name.to_bytes().to_vec(), leaf.clone());
        Ok((self.found(leaf.clone(), parent, name), leaf))
    }

    fn remove(&self, parent: NodeId, name: &CStr) -> Result<()> {
        let _names = self.names.lock().unwrap();
        let directory = self.leaf(parent)?;
        let leaf = directory.named(name)?;
        if !leaf.data().names.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        directory.change().names.remove(name.to_bytes());
        leaf.change().nlink -= 1;
        self.nodes.unlinked((parent, name.to_bytes()));
        Ok(())
    }
}

impl Source for Memory {
    fn book(&self) -> &dyn Book {
        &self.nodes
    }

    fn lookup(&self, parent: NodeId, name: &CStr) -> Result<Found> {
        self.nodes.enter();
        let leaf = self.leaf(parent)?.named(name)?;
        Ok(self.found(leaf, parent, name))
    }

    fn peek(&self, parent: NodeId, name: &CStr) -> Result<(FileKey, Attr)> {
        let leaf = self.leaf(parent)?.named(name)?;
        Ok((FileKey { volume: 0, inode: leaf.0.number, generation: 0 }, leaf.attr()))
    }

    fn getattr(&self, node: NodeId) -> Result<Attr> {
        Ok(self.leaf(node)?.attr())
    }

    fn statx(&self, _: NodeId) -> Result<(Attr, Statx)> {
        Err(Errno::NOSYS)
    }

    fn file_key(&self, node: NodeId) -> Result<FileKey> {
        Ok(FileKey { volume: 0, inode: self.leaf(node)?.0.number, generation: 0 })
    }

    fn readlink(&self, _: NodeId) -> Result<Vec<u8>> {
        Err(Errno::INVAL)
    }

    fn statfs(&self, _: NodeId) -> Result<StatFs> {
        Err(Errno::NOSYS)
    }

    fn is_empty(&self, parent: NodeId, name: &CStr) -> Result<bool> {
        Ok(self.leaf(parent)?.named(name)?.data().names.is_empty())
    }

    fn opendir(&self, node: NodeId) -> Result<Box<dyn Listing>> {
        self.nodes.enter();
        let leaf = self.leaf(node)?;
        let data = leaf.data();
        let names = data
            .names
            .iter()
            .map(|(name, leaf)| (CString::new(name.clone()).unwrap(), leaf.0.number, leaf.0.kind));
        Ok(Box::new(Names(names.collect())))
    }

    fn open(&self, node: NodeId, opening: &Opening<'_>) -> Result<Box<dyn File>> {
        let leaf = self.leaf(node)?;
        if opening.flags.cast_signed() & libc::O_TRUNC != 0 {
            leaf.change().content.clear();
        }
        Ok(Box::new(leaf))
    }

    fn create(
        &self,
        (parent, name): (NodeId, &CStr),
        make: &Make<'_>,
        opening: &Opening<'_>,
    ) -> Result<(Found, Box<dyn File>)> {
        assert!(opening.token.is_some() && opening.by.agent.as_deref() == Some("ada"));
        let (found, leaf) = self.make(parent, name, FileType::RegularFile, make.mode)?;
        Ok((found, Box::new(leaf)))
    }

    fn tmpfile(&self, _: NodeId, _: &Make<'_>, _: &Opening<'_>) -> Result<(Found, Box<dyn File>)> {
        Err(Errno::OPNOTSUPP)
    }

    fn mkdir(&self, parent: NodeId, name: &CStr, make: &Make<'_>) -> Result<Found> {
        Ok(self.make(parent, name, FileType::Directory, make.mode)?.0)
    }

    fn mknod(&self, _: NodeId, _: &CStr, _: &Make<'_>, _: u32) -> Result<Found> {
        Err(Errno::PERM)
    }

    fn symlink(&self, _: NodeId, _: &CStr, _: &CStr, _: &Caller) -> Result<Found> {
        Err(Errno::PERM)
    }

    fn link(&self, existing: NodeId, parent: NodeId, name: &CStr) -> Result<Found> {
        let _names = self.names.lock().unwrap();
        let (leaf, directory) = (self.leaf(existing)?, self.leaf(parent)?);
        if directory.named(name).is_ok() {
            return Err(Errno::EXIST);
        }
        leaf.change().nlink += 1;
        directory.change().names.insert(name.to_bytes().to_vec(), leaf.clone());
        self.nodes.linked(&self.nodes.get(existing)?, (parent, name.to_bytes()));
        Ok(Found { node: existing, attr: leaf.attr() })
    }

    fn unlink(&self, parent: NodeId, name: &CStr) -> Result<()> {
        self.remove(parent, name)
    }

    fn rmdir(&self, parent: NodeId, name: &CStr) -> Result<()> {
        self.remove(parent, name)
    }

    fn rename(
        &self,
        (from, old): (NodeId, &CStr),
        (to, new): (NodeId, &CStr),
        flags: u32,
        by: &Who,
    ) -> Result<()> {
        assert!(by.process.is_some());
        if !RenameFlags::from_bits_retain(flags).is_empty() {
            return Err(Errno::INVAL);
        }
        let _names = self.names.lock().unwrap();
        let (from_directory, to_directory) = (self.leaf(from)?, self.leaf(to)?);
        let leaf = from_directory.named(old)?;
        from_directory.change().names.remove(old.to_bytes());
        let replaced = to_directory.change().names.insert(new.to_bytes().to_vec(), leaf);
        if let Some(replaced) = replaced {
            replaced.change().nlink -= 1;
        }
        self.nodes.renamed((from, old.to_bytes()), (to, new.to_bytes()));
        Ok(())
    }

    fn setattr(
        &self,
        _: &Caller,
        node: NodeId,
        _: Option<&dyn File>,
        change: &SetAttr,
    ) -> Result<Attr> {
        let leaf = self.leaf(node)?;
        let mut data = leaf.change();
        if let Some(mode) = change.mode {
            data.mode = mode & 0o7777;
        }
        if let Some(size) = change.size {
            data.content.resize(size as usize, 0);
        }
        drop(data);
        Ok(leaf.attr())
    }

    fn getxattr(&self, _: NodeId, _: &CStr, _: u32) -> Result<Vec<u8>> {
        Err(Errno::NODATA)
    }

    fn xattr_size(&self, _: NodeId, _: &CStr) -> Result<usize> {
        Err(Errno::NODATA)
    }

    fn listxattr(&self, _: &Caller, _: NodeId) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn setxattr(&self, _: &Caller, _: NodeId, _: &SetXattr<'_>) -> Result<()> {
        Err(Errno::OPNOTSUPP)
    }

    fn removexattr(&self, _: NodeId, _: &CStr) -> Result<()> {
        Err(Errno::NODATA)
    }

    fn syncfs(&self, _: NodeId) -> Result<()> {
        Ok(())
    }

    fn is_watched(&self, _: NodeId) -> bool {
        true
    }
}

/// What it holds lives as long as it is open.
impl File for Leaf {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let data = self.data();
        let rest = data.content.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn peek(&self, offset: u64) -> Result<Option<u8>> {
        Ok(self.data().content.get(offset as usize).copied())
    }

    fn write(&self, write: &Write<'_>) -> Result<usize> {
        let mut data = self.change();
        let appends = write.flags.cast_signed() & libc::O_APPEND != 0 && !write.cached;
        let at = if appends { data.content.len() } else { write.offset as usize };
        let end = at + write.data.len();
        let len = data.content.len().max(end);
        data.content.resize(len, 0);
        data.content[at..end].copy_from_slice(write.data);
        Ok(write.data.len())
    }

    fn sync(&self, _: bool) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn may_fail_at_close(&self) -> bool {
        false
    }

    fn allocate(&self, _: &Caller, _: u32, _: u64, _: u64) -> Result<()> {
        Err(Errno::OPNOTSUPP)
    }

    fn seek(&self, _: u64, _: u32) -> Result<u64> {
        Err(Errno::NOSYS)
    }
}

impl Listing for Names {
    fn visit(&self, mark: u64, take: &mut dyn FnMut(&DirEntry<'_>, &CStr) -> bool) -> Result<()> {
        for (number, (name, ino, kind)) in self.0.iter().enumerate().skip(mark as usize) {
            let kind = (kind.as_raw_mode() >> 12) as u8;
            let offset = number as u64 + 1;
            let entry = DirEntry { ino: *ino, offset, kind, name: name.to_bytes() };
            if !take(&entry, name) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&self, _: bool) -> Result<()> {
        Ok(())
    }
}
