//! A view without a gate: the directory as it is, for the suites that judge a file system.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use gate_fuse::{
    Entry, Errno, FileSystem, HandleId, NodeId, OpenFlags, Opened, Operation, Reply, Request,
};

use crate::directory::listing::OpenDirectory;
use crate::directory::{Directory, OpenFile};
use crate::source::{File, Found, Listing, Make, SetXattr};
use crate::view::{list, list_found};

const VALID: Duration = Duration::from_secs(1);

pub struct Ungated {
    pub directory: Directory,
    files: Handles<OpenFile>,
    directories: Handles<OpenDirectory>,
}

impl Ungated {
    pub fn new(directory: Directory) -> Ungated {
        Ungated { directory, files: Handles::default(), directories: Handles::default() }
    }

    fn names(&self, request: &Request<'_>, reply: Reply) {
        let (directory, node, caller) = (&self.directory, request.node, &request.caller);
        let made = match request.operation {
            Operation::Lookup { name } => directory.lookup(node, name),
            Operation::Mkdir { name, mode, umask } => {
                directory.mkdir(node, name, &Make { caller, mode, umask })
            }
            Operation::Mknod { name, mode, rdev, umask } => {
                directory.mknod(node, name, &Make { caller, mode, umask }, rdev)
            }
            Operation::Symlink { name, target } => directory.symlink(node, name, target, caller),
            Operation::Link { existing, name } => directory.link(existing, node, name),
            _ => return self.removals(request, reply),
        };
        match made {
            Ok(found) => reply.entry(&entry(&found)),
            Err(errno) => reply.error(errno),
        }
    }

    fn removals(&self, request: &Request<'_>, reply: Reply) {
        let (directory, node) = (&self.directory, request.node);
        let done = match request.operation {
            Operation::Unlink { name } => directory.unlink(node, name),
            Operation::Rmdir { name } => directory.rmdir(node, name),
            Operation::Rename { name, new_parent, new_name, flags } => {
                directory.rename((node, name), (new_parent, new_name), flags)
            }
            Operation::Setxattr { name, value, flags, kill_sgid } => {
                let xattr = SetXattr { name, value, flags, kill_sgid };
                directory.setxattr(&request.caller, node, &xattr)
            }
            Operation::Removexattr { name } => directory.removexattr(node, name),
            Operation::Syncfs => directory.syncfs(node),
            _ => return self.answers(request, reply),
        };
        done_or_error(reply, done);
    }

    fn answers(&self, request: &Request<'_>, reply: Reply) {
        let (directory, node) = (&self.directory, request.node);
        let size_of = |size: usize| u32::try_from(size).map_err(|_| Errno::OVERFLOW);
        match request.operation {
            Operation::Getattr { .. } => {
                answer(reply, directory.getattr(node), |reply, attr| reply.attr(&attr, VALID));
            }
            Operation::Setattr(change) => {
                let file = change.handle.and_then(|handle| self.files.get(handle).ok());
                let file = file.as_deref().map(|file| file as &dyn File);
                let attr = directory.setattr(&request.caller, node, file, &change);
                answer(reply, attr, |reply, attr| reply.attr(&attr, VALID));
            }
            Operation::Readlink => answer(reply, directory.readlink(node), bytes),
            Operation::Statfs => {
                answer(reply, directory.statfs(node), |reply, figures| reply.statfs(&figures));
            }
            Operation::Getxattr { name, size: 0 } => {
                let size = directory.xattr_size(node, name).and_then(size_of);
                answer(reply, size, Reply::xattr_size);
            }
            Operation::Getxattr { name, size } => {
                answer(reply, directory.getxattr(node, name, size), bytes);
            }
            Operation::Listxattr { size: 0 } => {
                let size = directory.listxattr(&request.caller, node).map(|list| list.len());
                answer(reply, size.and_then(size_of), Reply::xattr_size);
            }
            Operation::Listxattr { .. } => {
                answer(reply, directory.listxattr(&request.caller, node), bytes);
            }
            _ => self.opens(request, reply),
        }
    }

    fn opens(&self, request: &Request<'_>, reply: Reply) {
        let (directory, node, caller) = (&self.directory, request.node, &request.caller);
        let created = |reply: Reply, (found, file): (Found, OpenFile)| {
            reply.created(&entry(&found), &opened(self.files.insert(file)));
        };
        match request.operation {
            Operation::Open { flags, kill_suidgid } => {
                answer(reply, directory.open(node, flags, kill_suidgid), |reply, file| {
                    reply.opened(&opened(self.files.insert(file)));
                });
            }
            Operation::Create { name, flags, mode, umask, .. } => {
                let make = Make { caller, mode, umask };
                answer(reply, directory.create(node, name, &make, flags), created);
            }
            Operation::Tmpfile { flags, mode, umask } => {
                let make = Make { caller, mode, umask };
                answer(reply, directory.tmpfile(node, &make, flags), created);
            }
            Operation::Opendir { .. } => {
                answer(reply, directory.opendir(node), |reply, directory| {
                    reply.opened(&opened(self.directories.insert(directory)));
                });
            }
            Operation::Release { handle, .. } => done_or_error(reply, self.files.remove(handle)),
            Operation::Releasedir { handle } => {
                done_or_error(reply, self.directories.remove(handle));
            }
            _ => self.directories(request, reply),
        }
    }

    fn directories(&self, request: &Request<'_>, reply: Reply) {
        match request.operation {
            Operation::Readdir { handle, offset, size } => {
                let listing =
                    self.directories.get(handle).and_then(|open| list(&*open, offset, size));
                answer(reply, listing, Reply::directory);
            }
            Operation::Readdirplus { handle, offset, size } => {
                let listing = self.directories.get(handle).and_then(|open| {
                    let find = |name: &CStr| self.directory.lookup(request.node, name).ok();
                    let find = |name: &CStr| find(name).as_ref().map(entry);
                    list_found(&*open, (offset, size), find)
                });
                answer(reply, listing, Reply::directory);
            }
            Operation::Fsyncdir { handle, data_only } => {
                let done = self.directories.get(handle).and_then(|open| open.sync(data_only));
                done_or_error(reply, done);
            }
            _ => self.contents(request, reply),
        }
    }

    fn contents(&self, request: &Request<'_>, reply: Reply) {
        let caller = &request.caller;
        let file = |handle| self.files.get(handle);
        match request.operation {
            Operation::Read { handle, offset, size } => {
                reply.data_with(size, |buffer| file(handle)?.read(buffer, offset));
            }
            Operation::Write(write) => {
                let written = file(write.handle).and_then(|file| file.write(&write));
                answer(reply, written, |reply, size| reply.written(size as u32));
            }
            Operation::Flush { handle, .. } => {
                done_or_error(reply, file(handle).and_then(|file| file.flush()));
            }
            Operation::Fsync { handle, data_only } => {
                done_or_error(reply, file(handle).and_then(|file| file.sync(data_only)));
            }
            Operation::Fallocate { handle, offset, length, mode } => {
                let done =
                    file(handle).and_then(|file| file.allocate(caller, mode, offset, length));
                done_or_error(reply, done);
            }
            Operation::Lseek { handle, offset, whence } => {
                let found = file(handle).and_then(|file| file.seek(offset, whence));
                answer(reply, found, Reply::lseek);
            }
            Operation::CopyFileRange(range) => {
                let copied = file(range.handle_in)
                    .and_then(|from| from.copy_to(&*file(range.handle_out)?, caller, &range));
                answer(reply, copied, Reply::written);
            }
            _ => reply.error(Errno::NOSYS),
        }
    }
}

impl FileSystem for Ungated {
    fn handle(&self, request: Request<'_>, reply: Reply) {
        self.names(&request, reply);
    }

    fn forget(&self, node: NodeId, lookups: u64) {
        self.directory.book().forget(node, lookups);
    }
}

struct Handles<T> {
    open: RwLock<HashMap<HandleId, Arc<T>>>,
    newest: AtomicU64,
}

impl<T> Default for Handles<T> {
    fn default() -> Handles<T> {
        Handles { open: RwLock::default(), newest: AtomicU64::new(0) }
    }
}

impl<T> Handles<T> {
    fn insert(&self, open: T) -> HandleId {
        let handle = HandleId(self.newest.fetch_add(1, Ordering::Relaxed) + 1);
        self.open.write().unwrap().insert(handle, Arc::new(open));
        handle
    }

    fn get(&self, handle: HandleId) -> Result<Arc<T>, Errno> {
        self.open.read().unwrap().get(&handle).cloned().ok_or(Errno::BADF)
    }

    fn remove(&self, handle: HandleId) -> Result<(), Errno> {
        let removed = self.open.write().unwrap().remove(&handle);
        removed.map(drop).ok_or(Errno::BADF)
    }
}

fn entry(found: &Found) -> Entry {
    let (node, attr) = (found.node, found.attr);
    Entry { node, generation: 0, attr, entry_valid: VALID, attr_valid: VALID }
}

fn opened(handle: HandleId) -> Opened {
    Opened { handle, flags: OpenFlags::empty(), backing: None }
}

fn bytes(reply: Reply, bytes: Vec<u8>) {
    reply.data(&bytes);
}

fn answer<T>(reply: Reply, result: Result<T, Errno>, tell: impl FnOnce(Reply, T)) {
    match result {
        Ok(value) => tell(reply, value),
        Err(errno) => reply.error(errno),
    }
}

fn done_or_error(reply: Reply, done: Result<(), Errno>) {
    answer(reply, done, |reply, ()| reply.ok());
}
