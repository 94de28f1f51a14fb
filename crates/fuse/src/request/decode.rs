//! From a frame's bytes to an [`Incoming`].

use std::ffi::CStr;

use rustix::fs::Timespec;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{
    Caller, CopyFileRange, HandleId, Incoming, LockRequest, NodeId, Offer, Operation, Request,
    SetAttr, SetTime, Unique, Write,
};
use crate::abi::{self, InitFlags, bit, fattr, opcode};

/// A frame that the protocol does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than a header, or of another length than the header says: nothing to answer.
    Frame,
    /// The header is whole and the rest is not.
    Request {
        /// The request to refuse.
        unique: Unique,
        /// What it asked.
        opcode: u32,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The arguments end early.
    Truncated,
    /// A name is empty, holds a slash or has no end.
    Name,
    /// The extensions do not add up.
    Extension,
}

/// Decodes one frame.
pub fn decode(frame: &[u8]) -> Result<Incoming<'_>, Malformed> {
    let (header, rest) = abi::InHeader::read_from_prefix(frame).map_err(|_| Malformed::Frame)?;
    if header.len as usize != frame.len() {
        return Err(Malformed::Frame);
    }
    let (unique, opcode) = (Unique(header.unique), header.opcode);
    incoming(&header, rest).map_err(|fault| Malformed::Request { unique, opcode, fault })
}

/// The lookups that one FORGET or BATCH_FORGET gives back: pairs of node and count.
#[derive(Clone, Debug)]
pub struct Forgets<'a>(Batch<'a>);

#[derive(Clone, Debug)]
enum Batch<'a> {
    One(Option<(NodeId, u64)>),
    Many(&'a [u8]),
}

impl Iterator for Forgets<'_> {
    type Item = (NodeId, u64);

    fn next(&mut self) -> Option<(NodeId, u64)> {
        match &mut self.0 {
            Batch::One(one) => one.take(),
            Batch::Many(bytes) => {
                let (one, rest) = abi::ForgetOne::read_from_prefix(bytes).ok()?;
                *bytes = rest;
                Some((NodeId(one.node), one.lookups))
            }
        }
    }
}

fn incoming<'a>(header: &abi::InHeader, rest: &'a [u8]) -> Result<Incoming<'a>, Fault> {
    let unique = Unique(header.unique);
    let extensions_len = usize::from(header.extensions) * abi::RECORD_ALIGN;
    let body_len = rest.len().checked_sub(extensions_len).ok_or(Fault::Extension)?;
    let (body, extensions) = rest.split_at(body_len);
    let mut arguments = Arguments(body);
    Ok(match header.opcode {
        opcode::INIT => Incoming::Init { unique, offer: offer(&mut arguments)? },
        opcode::FORGET => {
            let forget: abi::ForgetIn = arguments.take()?;
            Incoming::Forget(Forgets(Batch::One(Some((NodeId(header.node), forget.lookups)))))
        }
        opcode::BATCH_FORGET => {
            let batch: abi::BatchForgetIn = arguments.take()?;
            let len = size_of::<abi::ForgetOne>() * batch.count as usize;
            Incoming::Forget(Forgets(Batch::Many(arguments.bytes(len)?)))
        }
        opcode::INTERRUPT => {
            let interrupt: abi::InterruptIn = arguments.take()?;
            Incoming::Interrupt { target: Unique(interrupt.unique) }
        }
        opcode::DESTROY => Incoming::Destroy { unique },
        _ => Incoming::Request(Request {
            unique,
            node: NodeId(header.node),
            caller: Caller {
                uid: header.uid,
                gid: header.gid,
                tid: header.pid,
                supplementary_gid: supplementary_gid(extensions)?,
            },
            operation: on_names(header.opcode, &mut arguments)?,
        }),
    })
}

fn offer(arguments: &mut Arguments<'_>) -> Result<Offer, Fault> {
    // Before 7.36 INIT ended after `flags`.
    let start = arguments.bytes(16)?;
    let mut bytes = [0; size_of::<abi::InitIn>()];
    let extended = &arguments.0[..arguments.0.len().min(bytes.len() - start.len())];
    bytes[..start.len()].copy_from_slice(start);
    bytes[start.len()..start.len() + extended.len()].copy_from_slice(extended);
    let init = abi::InitIn::read_from_bytes(&bytes).map_err(|_| Fault::Truncated)?;
    let low = InitFlags::from_bits_retain(u64::from(init.flags));
    let high = if low.contains(InitFlags::INIT_EXT) { u64::from(init.flags2) << 32 } else { 0 };
    Ok(Offer {
        major: init.major,
        minor: init.minor,
        readahead_max: init.max_readahead,
        flags: low | InitFlags::from_bits_retain(high),
    })
}

fn supplementary_gid(mut extensions: &[u8]) -> Result<Option<u32>, Fault> {
    while !extensions.is_empty() {
        let mut arguments = Arguments(extensions);
        let header: abi::ExtHeader = arguments.take().map_err(|_| Fault::Extension)?;
        let size = (header.size as usize).next_multiple_of(abi::RECORD_ALIGN);
        if size < size_of::<abi::ExtHeader>() {
            return Err(Fault::Extension);
        }
        if header.kind == abi::EXT_GROUPS {
            let count: u32 = arguments.take().map_err(|_| Fault::Extension)?;
            let first = if count == 0 { None } else { Some(arguments.take()) };
            return first.transpose().map_err(|_| Fault::Extension);
        }
        extensions = extensions.get(size..).ok_or(Fault::Extension)?;
    }
    Ok(None)
}

// One long list in four parts: each hands on what it does not know.

fn on_names<'a>(code: u32, arguments: &mut Arguments<'a>) -> Result<Operation<'a>, Fault> {
    Ok(match code {
        opcode::LOOKUP => Operation::Lookup { name: arguments.name()? },
        opcode::SYMLINK => {
            Operation::Symlink { name: arguments.name()?, target: arguments.string()? }
        }
        opcode::MKNOD => {
            let abi::MknodIn { mode, rdev, umask, .. } = arguments.take()?;
            Operation::Mknod { name: arguments.name()?, mode, rdev, umask }
        }
        opcode::MKDIR => {
            let abi::MkdirIn { mode, umask } = arguments.take()?;
            Operation::Mkdir { name: arguments.name()?, mode, umask }
        }
        opcode::UNLINK => Operation::Unlink { name: arguments.name()? },
        opcode::RMDIR => Operation::Rmdir { name: arguments.name()? },
        opcode::RENAME => {
            let abi::RenameIn { new_parent } = arguments.take()?;
            rename(NodeId(new_parent), 0, arguments)?
        }
        opcode::RENAME2 => {
            let abi::Rename2In { new_parent, flags, .. } = arguments.take()?;
            rename(NodeId(new_parent), flags, arguments)?
        }
        opcode::LINK => {
            let abi::LinkIn { node } = arguments.take()?;
            Operation::Link { existing: NodeId(node), name: arguments.name()? }
        }
        opcode::CREATE => {
            let abi::CreateIn { flags, mode, umask, open_flags } = arguments.take()?;
            let kill_suidgid = open_flags & bit::OPEN_KILL_SUIDGID != 0;
            Operation::Create { name: arguments.name()?, flags, mode, umask, kill_suidgid }
        }
        // The name that follows TMPFILE is the kernel's own ("/") and means nothing.
        opcode::TMPFILE => {
            let abi::CreateIn { flags, mode, umask, .. } = arguments.take()?;
            Operation::Tmpfile { flags, mode, umask }
        }
        _ => return on_files(code, arguments),
    })
}

fn rename<'a>(
    new_parent: NodeId,
    flags: u32,
    arguments: &mut Arguments<'a>,
) -> Result<Operation<'a>, Fault> {
    let name = arguments.name()?;
    Ok(Operation::Rename { name, new_parent, new_name: arguments.name()?, flags })
}

fn on_files<'a>(code: u32, arguments: &mut Arguments<'a>) -> Result<Operation<'a>, Fault> {
    Ok(match code {
        opcode::OPEN => {
            let abi::OpenIn { flags, open_flags } = arguments.take()?;
            Operation::Open { flags, kill_suidgid: open_flags & bit::OPEN_KILL_SUIDGID != 0 }
        }
        opcode::READ => {
            let abi::ReadIn { handle, offset, size, .. } = arguments.take()?;
            Operation::Read { handle: HandleId(handle), offset, size }
        }
        opcode::WRITE => {
            let write: abi::WriteIn = arguments.take()?;
            Operation::Write(Write {
                handle: HandleId(write.handle),
                offset: write.offset,
                data: arguments.bytes(write.size as usize)?,
                flags: write.flags,
                cached: write.write_flags & bit::WRITE_CACHE != 0,
                kill_suidgid: write.write_flags & bit::WRITE_KILL_SUIDGID != 0,
            })
        }
        opcode::RELEASE => {
            let abi::ReleaseIn { handle, release_flags, lock_owner, .. } = arguments.take()?;
            let flock_unlock = release_flags & bit::RELEASE_FLOCK_UNLOCK != 0;
            Operation::Release { handle: HandleId(handle), lock_owner, flock_unlock }
        }
        opcode::FSYNC => {
            let (handle, data_only) = arguments.fsync()?;
            Operation::Fsync { handle, data_only }
        }
        opcode::FLUSH => {
            let abi::FlushIn { handle, lock_owner, .. } = arguments.take()?;
            Operation::Flush { handle: HandleId(handle), lock_owner }
        }
        opcode::FALLOCATE => {
            let abi::FallocateIn { handle, offset, length, mode, .. } = arguments.take()?;
            Operation::Fallocate { handle: HandleId(handle), offset, length, mode }
        }
        opcode::LSEEK => {
            let abi::LseekIn { handle, offset, whence, .. } = arguments.take()?;
            Operation::Lseek { handle: HandleId(handle), offset, whence }
        }
        opcode::COPY_FILE_RANGE => {
            let copy: abi::CopyFileRangeIn = arguments.take()?;
            Operation::CopyFileRange(CopyFileRange {
                handle_in: HandleId(copy.handle_in),
                offset_in: copy.offset_in,
                node_out: NodeId(copy.node_out),
                handle_out: HandleId(copy.handle_out),
                offset_out: copy.offset_out,
                length: copy.length,
                flags: copy.flags,
            })
        }
        opcode::IOCTL => {
            let abi::IoctlIn { handle, flags, command, in_size, out_size, .. } =
                arguments.take()?;
            let (handle, input) = (HandleId(handle), arguments.bytes(in_size as usize)?);
            let on_directory = flags & bit::IOCTL_DIRECTORY != 0;
            Operation::Ioctl { handle, on_directory, command, input, out_size }
        }
        opcode::POLL => {
            let abi::PollIn { handle, kernel_handle, flags, events } = arguments.take()?;
            Operation::Poll { handle: HandleId(handle), kernel_handle, flags, events }
        }
        _ => return on_directories(code, arguments),
    })
}

fn on_directories<'a>(code: u32, arguments: &mut Arguments<'a>) -> Result<Operation<'a>, Fault> {
    Ok(match code {
        opcode::OPENDIR => {
            let abi::OpenIn { flags, .. } = arguments.take()?;
            Operation::Opendir { flags }
        }
        opcode::READDIR => {
            let abi::ReadIn { handle, offset, size, .. } = arguments.take()?;
            Operation::Readdir { handle: HandleId(handle), offset, size }
        }
        opcode::READDIRPLUS => {
            let abi::ReadIn { handle, offset, size, .. } = arguments.take()?;
            Operation::Readdirplus { handle: HandleId(handle), offset, size }
        }
        opcode::RELEASEDIR => {
            let abi::ReleaseIn { handle, .. } = arguments.take()?;
            Operation::Releasedir { handle: HandleId(handle) }
        }
        opcode::FSYNCDIR => {
            let (handle, data_only) = arguments.fsync()?;
            Operation::Fsyncdir { handle, data_only }
        }
        _ => return on_nodes(code, arguments),
    })
}

fn on_nodes<'a>(code: u32, arguments: &mut Arguments<'a>) -> Result<Operation<'a>, Fault> {
    Ok(match code {
        opcode::GETATTR => {
            let abi::GetattrIn { flags, handle, .. } = arguments.take()?;
            let handle = (flags & bit::GETATTR_HANDLE != 0).then_some(HandleId(handle));
            Operation::Getattr { handle }
        }
        opcode::SETATTR => Operation::Setattr(setattr(&arguments.take()?)),
        opcode::READLINK => Operation::Readlink,
        opcode::STATFS => Operation::Statfs,
        opcode::SETXATTR => {
            let abi::SetxattrIn { size, flags, setxattr_flags, .. } = arguments.take()?;
            Operation::Setxattr {
                name: arguments.string()?,
                value: arguments.bytes(size as usize)?,
                flags,
                kill_sgid: setxattr_flags & bit::SETXATTR_KILL_SGID != 0,
            }
        }
        opcode::GETXATTR => {
            let abi::GetxattrIn { size, .. } = arguments.take()?;
            Operation::Getxattr { name: arguments.string()?, size }
        }
        opcode::LISTXATTR => {
            let abi::GetxattrIn { size, .. } = arguments.take()?;
            Operation::Listxattr { size }
        }
        opcode::REMOVEXATTR => Operation::Removexattr { name: arguments.string()? },
        opcode::GETLK => Operation::Getlk(arguments.lock()?),
        opcode::SETLK => Operation::Setlk(arguments.lock()?),
        opcode::SETLKW => Operation::Setlkw(arguments.lock()?),
        opcode::ACCESS => {
            let abi::AccessIn { mask, .. } = arguments.take()?;
            Operation::Access { mask }
        }
        opcode::BMAP => {
            let abi::BmapIn { block, blocksize, .. } = arguments.take()?;
            Operation::Bmap { block, blocksize }
        }
        opcode::SYNCFS => Operation::Syncfs,
        opcode::STATX => {
            let abi::StatxIn { getattr_flags, handle, flags, mask, .. } = arguments.take()?;
            let handle = (getattr_flags & bit::GETATTR_HANDLE != 0).then_some(HandleId(handle));
            Operation::Statx { handle, flags, mask }
        }
        opcode => Operation::Unknown { opcode },
    })
}

fn setattr(wire: &abi::SetattrIn) -> SetAttr {
    let has = |bit| wire.valid & bit != 0;
    let time = |set, now, seconds: u64, nanoseconds: u32| match (has(now), has(set)) {
        (true, _) => Some(SetTime::Now),
        (false, true) => Some(SetTime::At(Timespec {
            tv_sec: seconds.cast_signed(),
            tv_nsec: i64::from(nanoseconds),
        })),
        (false, false) => None,
    };
    SetAttr {
        mode: has(fattr::MODE).then_some(wire.mode),
        uid: has(fattr::UID).then_some(wire.uid),
        gid: has(fattr::GID).then_some(wire.gid),
        size: has(fattr::SIZE).then_some(wire.size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, wire.atime, wire.atime_nsec),
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, wire.mtime, wire.mtime_nsec),
        handle: has(fattr::HANDLE).then_some(HandleId(wire.handle)),
        lock_owner: has(fattr::LOCK_OWNER).then_some(wire.lock_owner),
        kill_suidgid: has(fattr::KILL_SUIDGID),
    }
}

/// The not yet decoded rest of a frame.
struct Arguments<'a>(&'a [u8]);

impl<'a> Arguments<'a> {
    fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, Fault> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Fault::Truncated)?;
        self.0 = rest;
        Ok(value)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Fault::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn string(&mut self) -> Result<&'a CStr, Fault> {
        let string = CStr::from_bytes_until_nul(self.0).map_err(|_| Fault::Name)?;
        self.0 = &self.0[string.count_bytes() + 1..];
        Ok(string)
    }

    /// A single component: whatever is done with it stays in the directory or goes to its parent.
    fn name(&mut self) -> Result<&'a CStr, Fault> {
        let name = self.string()?;
        let single = !name.is_empty() && !name.to_bytes().contains(&b'/');
        if single { Ok(name) } else { Err(Fault::Name) }
    }

    fn fsync(&mut self) -> Result<(HandleId, bool), Fault> {
        let abi::FsyncIn { handle, flags, .. } = self.take()?;
        Ok((HandleId(handle), flags & bit::FSYNC_DATA_ONLY != 0))
    }

    fn lock(&mut self) -> Result<LockRequest, Fault> {
        let abi::LkIn { handle, owner, lock, flags, .. } = self.take()?;
        Ok(LockRequest { handle: HandleId(handle), owner, lock, flock: flags & bit::LK_FLOCK != 0 })
    }
}
