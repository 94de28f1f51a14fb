//! From the kernel's requests to the view's methods.

use std::sync::Arc;

use gate_fuse::{Errno, FileSystem, NodeId, Operation, Reply, Request};

use super::View;
use super::control::Asked;
use super::files::Creation;
use super::listing::{list, list_found};
use super::names::{Move, New, answer};
use crate::advisory::Wait;
use crate::room;
use crate::source::SetXattr;

/// A view, as the session layer serves it.
pub(crate) struct Served(pub Arc<View>);

impl FileSystem for Served {
    fn handle(&self, request: Request<'_>, reply: Reply) {
        match self.0.echoes.answer(&request) {
            None => self.0.handle_name(request, reply),
            Some(answer) => self.0.answer_echo(request.node, answer, reply),
        }
    }

    fn forget(&self, node: NodeId, lookups: u64) {
        self.0.source.book().forget(node, lookups);
    }
}

// One long list in three parts: each hands on what it does not know.

impl View {
    /// Operations on names.
    fn handle_name(&self, request: Request<'_>, reply: Reply) {
        let Request { node, caller, ref operation, .. } = request;
        match *operation {
            Operation::Lookup { name } => self.lookup(node, name, room::TRIES, reply),
            Operation::Symlink { name, target } => {
                let new = New::Symlink { target: target.to_owned() };
                self.make(caller, node, name, new, reply);
            }
            Operation::Mknod { name, mode, rdev, umask } => {
                self.make(caller, node, name, New::Node { mode, umask, rdev }, reply);
            }
            Operation::Mkdir { name, mode, umask } => {
                self.make(caller, node, name, New::Directory { mode, umask }, reply);
            }
            Operation::Unlink { name } => self.unlink(caller, node, name, reply),
            Operation::Rmdir { name } => self.rmdir(caller, node, name, reply),
            Operation::Rename { name, new_parent, new_name, flags } => {
                let (from, to) = ((node, name.to_owned()), (new_parent, new_name.to_owned()));
                self.rename(caller, Move { from, to, flags }, reply);
            }
            Operation::Link { existing, name } => self.link(caller, existing, (node, name), reply),
            Operation::Create { name, flags, mode, umask, .. } => {
                self.create(caller, node, name, Creation { flags, mode, umask }, reply);
            }
            Operation::Tmpfile { flags, mode, umask } => {
                self.tmpfile(caller, node, Creation { flags, mode, umask }, reply);
            }
            _ => self.handle_node(request, reply),
        }
    }

    /// Operations on nodes.
    fn handle_node(&self, request: Request<'_>, reply: Reply) {
        let Request { node, caller, ref operation, .. } = request;
        match *operation {
            Operation::Getattr { .. } => {
                let Some(reply) = self.wait_in_walk(caller.tid, node, reply) else { return };
                match self.source.getattr(node) {
                    Ok(attr) => self.answer_attr(node, &attr, reply),
                    Err(errno) => reply.error(errno),
                }
            }
            Operation::Statx { .. } => match self.source.statx(node) {
                Ok((attr, stat)) => {
                    let told = self.source.book().tell(node, &attr);
                    reply.statx(&stat, self.attr_valid(node, &told));
                }
                Err(errno) => reply.error(errno),
            },
            Operation::Setattr(change) => self.setattr(caller, node, change, reply),
            Operation::Setxattr { name, value, flags, kill_sgid } => {
                let xattr = SetXattr { name, value, flags, kill_sgid };
                self.setxattr(caller, node, &xattr, reply);
            }
            Operation::Removexattr { name } => self.removexattr(caller, node, name, reply),
            Operation::Getxattr { name, size } => self.getxattr(node, name, size, reply),
            Operation::Listxattr { size } => self.listxattr(caller, node, size, reply),
            Operation::Readlink => match self.source.readlink(node) {
                Ok(target) => reply.data(&target),
                Err(errno) => reply.error(errno),
            },
            Operation::Statfs => match self.source.statfs(node) {
                Ok(figures) => reply.statfs(&figures),
                Err(errno) => reply.error(errno),
            },
            Operation::Syncfs => answer(self.source.syncfs(node), reply),
            Operation::Open { flags, kill_suidgid } => {
                self.open(caller, node, (flags, kill_suidgid), reply);
            }
            _ => self.handle_handle(request, reply),
        }
    }

    /// Operations on what is open.
    fn handle_handle(&self, request: Request<'_>, reply: Reply) {
        let Request { node, caller, ref operation, .. } = request;
        match *operation {
            Operation::Read { handle, offset, size } => self.read(handle, offset, size, reply),
            Operation::Write(ref write) => self.write(write, reply),
            Operation::CopyFileRange(ref range) => self.copy(&caller, range, reply),
            Operation::Ioctl { handle, on_directory, command, input, out_size } => {
                let asked = Asked { handle, on_directory, command, input, out_size };
                self.control(caller, node, &asked, reply);
            }
            Operation::Getlk(ref request) => self.tell_lock(request, reply),
            Operation::Setlk(ref request) => self.set_lock(request, Wait::No, reply),
            Operation::Setlkw(ref request) => self.set_lock(request, Wait::Yes, reply),
            Operation::Flush { handle, lock_owner } => {
                answer(self.flush(handle, lock_owner), reply);
            }
            Operation::Release { handle, .. } => {
                self.release(handle);
                reply.ok();
            }
            Operation::Fsync { handle, data_only } => {
                let synced = self.enter(handle).and_then(|h| h.file().sync(data_only));
                answer(synced, reply);
            }
            Operation::Fallocate { handle, offset, length, mode } => {
                answer(self.allocate(&caller, handle, (offset, length), mode), reply);
            }
            Operation::Lseek { handle, offset, whence } => {
                match self.enter(handle).and_then(|h| h.file().seek(offset, whence)) {
                    Ok(position) => reply.lseek(position),
                    Err(errno) => reply.error(errno),
                }
            }
            Operation::Opendir { .. } => match self.source.opendir(node) {
                Ok(directory) => reply.opened(&gate_fuse::Opened {
                    handle: self.handles.insert_directory(directory),
                    flags: self.listing_flags(node),
                    backing: None,
                }),
                Err(errno) => reply.error(errno),
            },
            Operation::Readdir { handle, offset, size } => {
                let listing = self
                    .handles
                    .directory(handle)
                    .and_then(|directory| list(&*directory, offset, size));
                match listing {
                    Ok(listing) => reply.directory(listing),
                    Err(errno) => reply.error(errno),
                }
            }
            Operation::Readdirplus { handle, offset, size } => {
                let listing = self.handles.directory(handle).and_then(|directory| {
                    let find = |name: &_| self.find_listed(node, name);
                    list_found(&*directory, (offset, size), find)
                });
                match listing {
                    Ok(listing) => reply.directory(listing),
                    Err(errno) => reply.error(errno),
                }
            }
            Operation::Releasedir { handle } => {
                self.handles.remove_directory(handle);
                reply.ok();
            }
            Operation::Fsyncdir { handle, data_only } => {
                let synced = self.handles.directory(handle).and_then(|d| d.sync(data_only));
                answer(synced, reply);
            }
            // The kernel checks permissions and polls by itself once it is told that we do not.
            _ => reply.error(Errno::NOSYS),
        }
    }
}
