//! A directory as the source of a view. It is all the same to it whose an open is.

use std::ffi::CStr;
use std::sync::Arc;

use gate_core::lock::key::FileKey;
use gate_fuse::{Attr, Caller, Errno, NodeId, SetAttr, StatFs, Statx};

use super::{Control, Directory, Doing};
use crate::nodes::Book;
use crate::source::{File, Found, Heard, Listing, Make, News, Opening, SetXattr, Source, Who};

impl Source for Directory {
    fn book(&self) -> &dyn Book {
        &self.nodes
    }

    fn lookup(&self, parent: NodeId, name: &CStr) -> Result<Found, Errno> {
        self.lookup(parent, name)
    }

    fn peek(&self, parent: NodeId, name: &CStr) -> Result<(FileKey, Attr), Errno> {
        self.peek(parent, name)
    }

    fn getattr(&self, node: NodeId) -> Result<Attr, Errno> {
        self.getattr(node)
    }

    fn statx(&self, node: NodeId) -> Result<(Attr, Statx), Errno> {
        self.statx(node)
    }

    fn file_key(&self, node: NodeId) -> Result<FileKey, Errno> {
        self.file_key(node)
    }

    fn readlink(&self, node: NodeId) -> Result<Vec<u8>, Errno> {
        self.readlink(node)
    }

    fn statfs(&self, node: NodeId) -> Result<StatFs, Errno> {
        self.statfs(node)
    }

    fn is_empty(&self, parent: NodeId, name: &CStr) -> Result<bool, Errno> {
        self.is_empty(parent, name)
    }

    fn opendir(&self, node: NodeId) -> Result<Box<dyn Listing>, Errno> {
        Ok(Box::new(self.opendir(node)?))
    }

    fn open(&self, node: NodeId, opening: &Opening<'_>) -> Result<Box<dyn File>, Errno> {
        Ok(Box::new(self.open(node, opening.flags, opening.kill_suidgid)?))
    }

    fn create(
        &self,
        (parent, name): (NodeId, &CStr),
        make: &Make<'_>,
        opening: &Opening<'_>,
    ) -> Result<(Found, Box<dyn File>), Errno> {
        let (found, file) = self.create(parent, name, make, opening.flags)?;
        Ok((found, Box::new(file)))
    }

    fn tmpfile(
        &self,
        parent: NodeId,
        make: &Make<'_>,
        opening: &Opening<'_>,
    ) -> Result<(Found, Box<dyn File>), Errno> {
        let (found, file) = self.tmpfile(parent, make, opening.flags)?;
        Ok((found, Box::new(file)))
    }

    fn mkdir(&self, parent: NodeId, name: &CStr, make: &Make<'_>) -> Result<Found, Errno> {
        self.mkdir(parent, name, make)
    }

    fn mknod(
        &self,
        parent: NodeId,
        name: &CStr,
        make: &Make<'_>,
        rdev: u32,
    ) -> Result<Found, Errno> {
        self.mknod(parent, name, make, rdev)
    }

    fn symlink(
        &self,
        parent: NodeId,
        name: &CStr,
        target: &CStr,
        caller: &Caller,
    ) -> Result<Found, Errno> {
        self.symlink(parent, name, target, caller)
    }

    fn link(&self, existing: NodeId, parent: NodeId, name: &CStr) -> Result<Found, Errno> {
        self.link(existing, parent, name)
    }

    fn unlink(&self, parent: NodeId, name: &CStr) -> Result<(), Errno> {
        self.unlink(parent, name)
    }

    fn rmdir(&self, parent: NodeId, name: &CStr) -> Result<(), Errno> {
        self.rmdir(parent, name)
    }

    fn rename(
        &self,
        from: (NodeId, &CStr),
        to: (NodeId, &CStr),
        flags: u32,
        _: &Who,
    ) -> Result<(), Errno> {
        self.rename(from, to, flags)
    }

    fn setattr(
        &self,
        caller: &Caller,
        node: NodeId,
        file: Option<&dyn File>,
        change: &SetAttr,
    ) -> Result<Attr, Errno> {
        self.setattr(caller, node, file, change)
    }

    fn getxattr(&self, node: NodeId, name: &CStr, size: u32) -> Result<Vec<u8>, Errno> {
        self.getxattr(node, name, size)
    }

    fn xattr_size(&self, node: NodeId, name: &CStr) -> Result<usize, Errno> {
        self.xattr_size(node, name)
    }

    fn listxattr(&self, caller: &Caller, node: NodeId) -> Result<Vec<u8>, Errno> {
        self.listxattr(caller, node)
    }

    fn setxattr(&self, caller: &Caller, node: NodeId, xattr: &SetXattr<'_>) -> Result<(), Errno> {
        self.setxattr(caller, node, xattr)
    }

    fn removexattr(&self, node: NodeId, name: &CStr) -> Result<(), Errno> {
        self.removexattr(node, name)
    }

    fn syncfs(&self, node: NodeId) -> Result<(), Errno> {
        self.syncfs(node)
    }

    fn control(
        &self,
        node: NodeId,
        caller: &Caller,
        asked: (Control, &[u8]),
    ) -> Result<Vec<u8>, Errno> {
        self.control(node, caller, asked)
    }

    fn is_watched(&self, directory: NodeId) -> bool {
        self.is_watched(directory)
    }

    fn news(&self) -> Option<Arc<dyn News>> {
        let watches = self.watches.clone()?;
        Some(watches)
    }

    fn heard(&self) -> Heard {
        self.heard()
    }

    fn begin_to_write(&self, node: NodeId) -> Option<Doing<'_>> {
        Some(self.begin_to_write(node))
    }
}
