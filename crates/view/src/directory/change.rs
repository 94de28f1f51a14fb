//! Changes of names: making, linking, moving, removing.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use gate_fuse::{Caller, Errno, NodeId};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};

use super::caller::{self, Strip};
use super::own::Deed;

use super::{Bare, Directory, OpenFile, attributes, descriptor_path, stat};
use crate::nodes::Book as _;
use crate::source::{Found, Make, What};

impl Make<'_> {
    fn permissions(&self) -> Mode {
        Mode::from_raw_mode(self.mode & 0o7777)
    }

    fn run<T>(&self, make: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        caller::create_as(self.caller, self.umask, make)
    }
}

impl Directory {
    /// Makes a directory.
    pub fn mkdir(&self, parent: NodeId, name: &CStr, make: &Make<'_>) -> Result<Found, Errno> {
        let directory = self.nodes.get(parent)?;
        let mkdir = || rustix::fs::mkdirat(&directory.descriptor, name, make.permissions());
        self.doing(made(parent, name), || make.run(mkdir))?;
        self.lookup(parent, name)
    }

    /// Makes a file, FIFO, socket or device node.
    pub fn mknod(
        &self,
        parent: NodeId,
        name: &CStr,
        make: &Make<'_>,
        rdev: u32,
    ) -> Result<Found, Errno> {
        let directory = self.nodes.get(parent)?;
        let kind = FileType::from_raw_mode(make.mode);
        let (major, minor) = ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xfff00));
        let device = rustix::fs::makedev(major, minor);
        let permissions = make.permissions();
        let mknod = || rustix::fs::mknodat(&directory.descriptor, name, kind, permissions, device);
        self.doing(made(parent, name), || make.run(mknod))?;
        self.lookup(parent, name)
    }

    /// Makes a symbolic link.
    pub fn symlink(
        &self,
        parent: NodeId,
        name: &CStr,
        target: &CStr,
        caller: &Caller,
    ) -> Result<Found, Errno> {
        let directory = self.nodes.get(parent)?;
        let make = Make { caller, mode: 0o777, umask: 0 };
        let symlink = || rustix::fs::symlinkat(target, &directory.descriptor, name);
        self.doing(made(parent, name), || make.run(symlink))?;
        self.lookup(parent, name)
    }

    /// Makes a file and opens it. `flags` are open(2)'s. Without O_EXCL a file that somebody
    /// has just made is opened instead, if the caller may.
    pub fn create(
        &self,
        parent: NodeId,
        name: &CStr,
        make: &Make<'_>,
        flags: u32,
    ) -> Result<(Found, OpenFile), Errno> {
        let directory = self.nodes.get(parent)?;
        let wanted = OpenFile::flags(flags) | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let permissions = make.permissions();
        let create = || {
            let flags = wanted | OFlags::CREATE | OFlags::EXCL;
            rustix::fs::openat(&directory.descriptor, name, flags, permissions)
        };
        let file = match self.doing(made(parent, name), || make.run(create)) {
            // The kernel has checked no permission on a file that it did not know of.
            Err(Errno::EXIST) if flags & libc::O_EXCL.cast_unsigned() == 0 => {
                caller::with_rights_of(make.caller, || {
                    rustix::fs::openat(&directory.descriptor, name, wanted, Mode::empty())
                })?
            }
            made => made?,
        };
        let found = self.found_open(&file, Some((parent, name)))?;
        Ok((found, OpenFile::new(file)))
    }

    /// Makes a file without a name in the directory's file system, and opens it.
    pub fn tmpfile(
        &self,
        parent: NodeId,
        make: &Make<'_>,
        flags: u32,
    ) -> Result<(Found, OpenFile), Errno> {
        let directory = self.nodes.get(parent)?;
        // O_EXCL says that the file will never get a name.
        let exclusive = OFlags::from_bits_retain(flags) & OFlags::EXCL;
        let flags = OpenFile::flags(flags) | exclusive | OFlags::TMPFILE | OFlags::CLOEXEC;
        let permissions = make.permissions();
        let file =
            make.run(|| rustix::fs::openat(&directory.descriptor, c".", flags, permissions))?;
        let found = self.found_open(&file, None)?;
        Ok((found, OpenFile::new(file)))
    }

    /// Gives a node a further name.
    pub fn link(&self, existing: NodeId, parent: NodeId, name: &CStr) -> Result<Found, Errno> {
        let node = self.nodes.get(existing)?;
        let directory = self.nodes.get(parent)?;
        let follow = AtFlags::SYMLINK_FOLLOW;
        let path = node.reopen_path();
        self.doing(made(parent, name), || {
            rustix::fs::linkat(rustix::fs::CWD, path, &directory.descriptor, name, follow)
        })?;
        self.nodes.linked(&node, (parent, name.to_bytes()));
        let attr = self.getattr(existing).inspect_err(|_| self.nodes.forget(existing, 1))?;
        Ok(Found { node: existing, attr })
    }

    /// Removes the name of anything but a directory.
    pub fn unlink(&self, parent: NodeId, name: &CStr) -> Result<(), Errno> {
        self.remove(parent, name, AtFlags::empty())
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: NodeId, name: &CStr) -> Result<(), Errno> {
        self.remove(parent, name, AtFlags::REMOVEDIR)
    }

    /// Renames, with the flags of renameat2(2).
    pub fn rename(
        &self,
        from: (NodeId, &CStr),
        to: (NodeId, &CStr),
        flags: u32,
    ) -> Result<(), Errno> {
        let (old, new) = (self.nodes.get(from.0)?, self.nodes.get(to.0)?);
        let flags = RenameFlags::from_bits_retain(flags);
        let deeds = match flags.contains(RenameFlags::EXCHANGE) {
            true => Deed::exchange(from, to),
            false => Deed::rename(from, to).to_vec(),
        };
        self.doing(deeds, || {
            rustix::fs::renameat_with(&old.descriptor, from.1, &new.descriptor, to.1, flags)
        })?;
        let (from, to) = ((from.0, from.1.to_bytes()), (to.0, to.1.to_bytes()));
        if flags.contains(RenameFlags::EXCHANGE) {
            self.nodes.exchanged(from, to);
        } else {
            self.nodes.renamed(from, to);
        }
        Ok(())
    }

    /// Begins to replace a file: it and what takes its place change their names.
    pub fn swap(&self, from: (NodeId, &CStr), to: (NodeId, &CStr)) -> Result<(), Errno> {
        let (old, new) = (self.nodes.get(from.0)?, self.nodes.get(to.0)?);
        let exchange = RenameFlags::EXCHANGE;
        self.doing(Deed::exchange(from, to), || {
            rustix::fs::renameat_with(&old.descriptor, from.1, &new.descriptor, to.1, exchange)
        })
    }

    /// Ends what [`Directory::swap`] has begun: what was replaced loses its other name, too.
    pub fn drop_swapped(&self, from: (NodeId, &CStr), to: (NodeId, &CStr)) -> Result<(), Errno> {
        let old = self.nodes.get(from.0)?;
        let removed = self.doing(gone(from.0, from.1), || {
            rustix::fs::unlinkat(&old.descriptor, from.1, AtFlags::empty())
        });
        self.nodes.renamed((from.0, from.1.to_bytes()), (to.0, to.1.to_bytes()));
        removed
    }

    /// Opens a file, with the flags of open(2). `kill_suidgid` is the kernel's wish for O_TRUNC.
    pub fn open(&self, node: NodeId, flags: u32, kill_suidgid: bool) -> Result<OpenFile, Errno> {
        let node = self.nodes.get(node)?;
        let append = OFlags::from_bits_retain(flags) & OFlags::APPEND;
        let flags = OpenFile::flags(flags);
        let cuts = flags.contains(OFlags::TRUNC);
        if cuts {
            caller::strip_suidgid(Strip::if_asked(kill_suidgid))?;
        }
        let deeds = cuts.then_some(Deed::ToNode(What::Written, node.id));
        let file = self.doing(deeds, || match node.reopen(flags) {
            // It may be one that can only be appended to (`chattr +a`).
            Err(Errno::PERM) if !append.is_empty() => node.reopen(flags | append),
            opened => opened,
        })?;
        Ok(OpenFile::new(file))
    }

    fn remove(&self, parent: NodeId, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
        let directory = self.nodes.get(parent)?;
        self.doing(gone(parent, name), || {
            rustix::fs::unlinkat(&directory.descriptor, name, flags)
        })?;
        self.nodes.unlinked((parent, name.to_bytes()));
        Ok(())
    }

    /// The node of an open file, found through the file itself: its name may be another's by now.
    fn found_open(&self, file: &OwnedFd, place: Option<(NodeId, &CStr)>) -> Result<Found, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(descriptor_path(file), flags, Mode::empty())?;
        let stat = stat(&descriptor)?;
        let bare = Bare::new(descriptor, &stat);
        let node = match place {
            Some((parent, name)) => self.nodes.found(bare, (parent, name.to_bytes())),
            None => self.nodes.found_nameless(bare),
        };
        Ok(Found { node: node.id, attr: attributes::attr_of(&stat) })
    }
}

fn made(parent: NodeId, name: &CStr) -> [Deed; 1] {
    [Deed::ToName(What::Made, parent, name.to_owned())]
}

fn gone(parent: NodeId, name: &CStr) -> [Deed; 1] {
    [Deed::ToName(What::Gone, parent, name.to_owned())]
}
