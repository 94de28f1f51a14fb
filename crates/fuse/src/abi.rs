//! The bytes of the protocol: `include/uapi/linux/fuse.h`, version 7.45, as types.
//!
//! Field order and widths are the kernel's. Nothing here knows what a request means;
//! `request` and `reply` give the bytes their names.

mod flags;

pub use flags::{InitFlags, OpenFlags};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol's major version.
pub(crate) const MAJOR: u32 = 7;
/// The newest minor version spoken here (Linux 6.18).
pub(crate) const MINOR_MAX: u32 = 45;
/// The oldest minor version spoken here (Linux 5.14): from there on SETXATTR_EXT and
/// HANDLE_KILLPRIV_V2 are always on offer, so no frame has two layouts.
pub(crate) const MINOR_MIN: u32 = 34;

/// `FUSE_DEV_IOC_CLONE`: `_IOR(229, 0, u32)`.
pub(crate) const DEV_IOC_CLONE: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(229, 0);
/// `FUSE_DEV_IOC_BACKING_OPEN`: `_IOW(229, 1, struct fuse_backing_map)`.
pub(crate) const DEV_IOC_BACKING_OPEN: rustix::ioctl::Opcode =
    rustix::ioctl::opcode::write::<BackingMap>(229, 1);
/// `FUSE_DEV_IOC_BACKING_CLOSE`: `_IOW(229, 2, u32)`.
pub(crate) const DEV_IOC_BACKING_CLOSE: rustix::ioctl::Opcode =
    rustix::ioctl::opcode::write::<u32>(229, 2);

/// Records of a directory listing, and extensions, are aligned to this.
pub(crate) const RECORD_ALIGN: usize = 8;

/// Operation codes.
pub(crate) mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const BMAP: u32 = 37;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const POLL: u32 = 40;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
}

/// Declares plain wire structs: kernel layout, no padding, readable from unaligned bytes.
macro_rules! wire {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident { $($fields:tt)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        $vis struct $name { $($fields)* }
    )*};
}

wire! {
    /// The attributes of a node, as the kernel keeps them.
    pub struct Attr {
        /// Inode number shown to users.
        pub ino: u64,
        /// Size in bytes.
        pub size: u64,
        /// Blocks of 512 bytes.
        pub blocks: u64,
        /// Last access, seconds.
        pub atime: u64,
        /// Last change of the content, seconds.
        pub mtime: u64,
        /// Last change of the node, seconds.
        pub ctime: u64,
        /// Last access, nanoseconds.
        pub atime_nsec: u32,
        /// Last change of the content, nanoseconds.
        pub mtime_nsec: u32,
        /// Last change of the node, nanoseconds.
        pub ctime_nsec: u32,
        /// Type and permissions.
        pub mode: u32,
        /// Number of names.
        pub nlink: u32,
        /// Owner.
        pub uid: u32,
        /// Group.
        pub gid: u32,
        /// Device number of a device node: minor in bits 0–7 and 20–31, major in 8–19.
        pub rdev: u32,
        /// Preferred size of I/O.
        pub blksize: u32,
        /// `FUSE_ATTR_*`; 0 here.
        pub flags: u32,
    }

    /// A time of [`Statx`].
    pub struct StatxTime {
        /// Seconds.
        pub seconds: i64,
        /// Nanoseconds.
        pub nanoseconds: u32,
        /// Unused.
        pub reserved: i32,
    }

    /// The attributes of a node as statx(2) tells them, `stx_` apart.
    pub struct Statx {
        /// `STATX_*`: which of these are told.
        pub mask: u32,
        /// Preferred size of I/O.
        pub blksize: u32,
        /// `STATX_ATTR_*`.
        pub attributes: u64,
        /// Number of names.
        pub nlink: u32,
        /// Owner.
        pub uid: u32,
        /// Group.
        pub gid: u32,
        /// Type and permissions.
        pub mode: u16,
        /// Unused.
        pub spare: [u16; 1],
        /// Inode number shown to users.
        pub ino: u64,
        /// Size in bytes.
        pub size: u64,
        /// Blocks of 512 bytes.
        pub blocks: u64,
        /// Which of the `attributes` are known.
        pub attributes_mask: u64,
        /// Last access.
        pub atime: StatxTime,
        /// Birth.
        pub btime: StatxTime,
        /// Last change of the node.
        pub ctime: StatxTime,
        /// Last change of the content.
        pub mtime: StatxTime,
        /// Device number of a device node.
        pub rdev_major: u32,
        /// Device number of a device node.
        pub rdev_minor: u32,
        /// File system.
        pub dev_major: u32,
        /// File system.
        pub dev_minor: u32,
        /// Unused.
        pub spare2: [u64; 14],
    }

    /// A byte-range lock, or the question for one.
    pub struct FileLock {
        /// First byte.
        pub start: u64,
        /// Last byte.
        pub end: u64,
        /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
        pub kind: u32,
        /// Process that holds it.
        pub pid: u32,
    }

    pub(crate) struct InHeader {
        pub len: u32,
        pub opcode: u32,
        pub unique: u64,
        pub node: u64,
        pub uid: u32,
        pub gid: u32,
        pub pid: u32,
        /// Length of the extensions at the frame's end, in units of 8 bytes.
        pub extensions: u16,
        pub padding: u16,
    }
    pub(crate) struct OutHeader { pub len: u32, pub error: i32, pub unique: u64 }
    pub(crate) struct ExtHeader { pub size: u32, pub kind: u32 }

    pub(crate) struct InitIn {
        pub major: u32,
        pub minor: u32,
        pub max_readahead: u32,
        pub flags: u32,
        pub flags2: u32,
        pub unused: [u32; 11],
    }
    pub(crate) struct InitOut {
        pub major: u32,
        pub minor: u32,
        pub max_readahead: u32,
        pub flags: u32,
        pub max_background: u16,
        pub congestion_threshold: u16,
        pub max_write: u32,
        pub time_gran: u32,
        pub max_pages: u16,
        pub map_alignment: u16,
        pub flags2: u32,
        pub max_stack_depth: u32,
        pub request_timeout: u16,
        pub unused: [u16; 11],
    }

    pub(crate) struct ForgetIn { pub lookups: u64 }
    pub(crate) struct ForgetOne { pub node: u64, pub lookups: u64 }
    pub(crate) struct BatchForgetIn { pub count: u32, pub dummy: u32 }
    pub(crate) struct InterruptIn { pub unique: u64 }

    pub(crate) struct GetattrIn { pub flags: u32, pub dummy: u32, pub handle: u64 }
    pub(crate) struct SetattrIn {
        pub valid: u32,
        pub padding: u32,
        pub handle: u64,
        pub size: u64,
        pub lock_owner: u64,
        pub atime: u64,
        pub mtime: u64,
        pub ctime: u64,
        pub atime_nsec: u32,
        pub mtime_nsec: u32,
        pub ctime_nsec: u32,
        pub mode: u32,
        pub unused4: u32,
        pub uid: u32,
        pub gid: u32,
        pub unused5: u32,
    }
    pub(crate) struct MknodIn { pub mode: u32, pub rdev: u32, pub umask: u32, pub padding: u32 }
    pub(crate) struct MkdirIn { pub mode: u32, pub umask: u32 }
    pub(crate) struct RenameIn { pub new_parent: u64 }
    pub(crate) struct Rename2In { pub new_parent: u64, pub flags: u32, pub padding: u32 }
    pub(crate) struct LinkIn { pub node: u64 }
    pub(crate) struct OpenIn { pub flags: u32, pub open_flags: u32 }
    pub(crate) struct CreateIn { pub flags: u32, pub mode: u32, pub umask: u32, pub open_flags: u32 }
    pub(crate) struct ReadIn {
        pub handle: u64,
        pub offset: u64,
        pub size: u32,
        pub read_flags: u32,
        pub lock_owner: u64,
        pub flags: u32,
        pub padding: u32,
    }
    pub(crate) struct WriteIn {
        pub handle: u64,
        pub offset: u64,
        pub size: u32,
        pub write_flags: u32,
        pub lock_owner: u64,
        pub flags: u32,
        pub padding: u32,
    }
    pub(crate) struct ReleaseIn {
        pub handle: u64,
        pub flags: u32,
        pub release_flags: u32,
        pub lock_owner: u64,
    }
    pub(crate) struct FlushIn { pub handle: u64, pub unused: u32, pub padding: u32, pub lock_owner: u64 }
    pub(crate) struct FsyncIn { pub handle: u64, pub flags: u32, pub padding: u32 }
    pub(crate) struct SetxattrIn {
        pub size: u32,
        pub flags: u32,
        pub setxattr_flags: u32,
        pub padding: u32,
    }
    pub(crate) struct GetxattrIn { pub size: u32, pub padding: u32 }
    pub(crate) struct LkIn {
        pub handle: u64,
        pub owner: u64,
        pub lock: FileLock,
        pub flags: u32,
        pub padding: u32,
    }
    pub(crate) struct AccessIn { pub mask: u32, pub padding: u32 }
    pub(crate) struct BmapIn { pub block: u64, pub blocksize: u32, pub padding: u32 }
    pub(crate) struct IoctlIn {
        pub handle: u64,
        pub flags: u32,
        pub command: u32,
        pub argument: u64,
        pub in_size: u32,
        pub out_size: u32,
    }
    pub(crate) struct PollIn { pub handle: u64, pub kernel_handle: u64, pub flags: u32, pub events: u32 }
    pub(crate) struct FallocateIn {
        pub handle: u64,
        pub offset: u64,
        pub length: u64,
        pub mode: u32,
        pub padding: u32,
    }
    pub(crate) struct LseekIn { pub handle: u64, pub offset: u64, pub whence: u32, pub padding: u32 }
    pub(crate) struct CopyFileRangeIn {
        pub handle_in: u64,
        pub offset_in: u64,
        pub node_out: u64,
        pub handle_out: u64,
        pub offset_out: u64,
        pub length: u64,
        pub flags: u64,
    }
    pub(crate) struct StatxIn {
        pub getattr_flags: u32,
        pub reserved: u32,
        pub handle: u64,
        pub flags: u32,
        pub mask: u32,
    }

    pub(crate) struct EntryOut {
        pub node: u64,
        pub generation: u64,
        pub entry_valid: u64,
        pub attr_valid: u64,
        pub entry_valid_nsec: u32,
        pub attr_valid_nsec: u32,
        pub attr: Attr,
    }
    pub(crate) struct AttrOut { pub valid: u64, pub valid_nsec: u32, pub dummy: u32, pub attr: Attr }
    pub(crate) struct BackingMap { pub fd: i32, pub flags: u32, pub padding: u64 }
    pub(crate) struct StatxOut {
        pub valid: u64,
        pub valid_nsec: u32,
        pub flags: u32,
        pub spare: [u64; 2],
        pub stat: Statx,
    }
    pub(crate) struct IoctlOut { pub result: i32, pub flags: u32, pub in_iovs: u32, pub out_iovs: u32 }
    pub(crate) struct OpenOut { pub handle: u64, pub open_flags: u32, pub backing: i32 }
    pub(crate) struct WriteOut { pub size: u32, pub padding: u32 }
    pub(crate) struct GetxattrOut { pub size: u32, pub padding: u32 }
    pub(crate) struct StatfsOut {
        pub blocks: u64,
        pub bfree: u64,
        pub bavail: u64,
        pub files: u64,
        pub ffree: u64,
        pub bsize: u32,
        pub namelen: u32,
        pub frsize: u32,
        pub padding: u32,
        pub spare: [u32; 6],
    }
    pub(crate) struct LseekOut { pub offset: u64 }
    pub(crate) struct Dirent { pub ino: u64, pub offset: u64, pub name_len: u32, pub kind: u32 }

    pub(crate) struct InvalInodeOut { pub node: u64, pub offset: i64, pub length: i64 }
    pub(crate) struct StoreOut { pub node: u64, pub offset: u64, pub size: u32, pub padding: u32 }
    pub(crate) struct InvalEntryOut { pub parent: u64, pub name_len: u32, pub flags: u32 }
    pub(crate) struct PruneOut { pub count: u32, pub padding: u32, pub spare: u64 }
    pub(crate) struct DeleteOut { pub parent: u64, pub child: u64, pub name_len: u32, pub padding: u32 }
}

/// Bits of `SetattrIn::valid`.
pub(crate) mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const HANDLE: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const LOCK_OWNER: u32 = 1 << 9;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// Single bits of the smaller flag words.
pub(crate) mod bit {
    pub const GETATTR_HANDLE: u32 = 1 << 0;
    pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
    pub const WRITE_CACHE: u32 = 1 << 0;
    pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
    pub const FSYNC_DATA_ONLY: u32 = 1 << 0;
    pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
    pub const SETXATTR_KILL_SGID: u32 = 1 << 0;
    pub const LK_FLOCK: u32 = 1 << 0;
    pub const IOCTL_DIRECTORY: u32 = 1 << 4;
}

/// Type of an extension that carries supplementary groups.
pub(crate) const EXT_GROUPS: u32 = 32;

/// Codes of unsolicited messages to the kernel.
pub(crate) mod notify {
    pub const INVAL_INODE: i32 = 2;
    pub const STORE: i32 = 4;
    pub const INVAL_ENTRY: i32 = 3;
    pub const DELETE: i32 = 6;
    pub const PRUNE: i32 = 9;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    /// Sizes as `sizeof` gives them for the structs of the uapi header.
    #[test]
    fn sizes_are_the_kernels() {
        assert_eq!(
            [size_of::<InHeader>(), size_of::<OutHeader>(), size_of::<InitIn>()],
            [40, 16, 64]
        );
        assert_eq!(
            [
                size_of::<InitOut>(),
                size_of::<Attr>(),
                size_of::<StatfsOut>(),
                size_of::<FileLock>()
            ],
            [64, 88, 80, 24]
        );
        assert_eq!(
            [size_of::<EntryOut>(), size_of::<AttrOut>(), size_of::<OpenOut>(), size_of::<LkIn>()],
            [128, 104, 16, 48]
        );
        assert_eq!(
            [
                size_of::<SetattrIn>(),
                size_of::<ReadIn>(),
                size_of::<WriteIn>(),
                size_of::<IoctlIn>()
            ],
            [88, 40, 40, 32]
        );
        assert_eq!(
            [size_of::<ReleaseIn>(), size_of::<FlushIn>(), size_of::<CopyFileRangeIn>()],
            [24, 24, 56]
        );
        assert_eq!(
            [size_of::<StatxIn>(), size_of::<FallocateIn>(), size_of::<LseekIn>()],
            [24, 32, 24]
        );
        assert_eq!(
            [size_of::<Statx>(), size_of::<StatxOut>(), size_of::<IoctlOut>()],
            [256, 288, 16]
        );
        assert_eq!(
            [size_of::<Dirent>(), size_of::<DeleteOut>(), size_of::<InvalEntryOut>()],
            [24, 24, 16]
        );
        assert_eq!(size_of::<PruneOut>(), 16);
    }

    #[test]
    fn fields_lie_where_the_kernel_looks() {
        assert_eq!(offset_of!(InHeader, extensions), 36);
        assert_eq!(offset_of!(SetattrIn, mode), 68);
        assert_eq!(offset_of!(InitOut, max_pages), 28);
        assert_eq!(offset_of!(InitOut, flags2), 32);
        assert_eq!(offset_of!(InitOut, max_stack_depth), 36);
        assert_eq!(offset_of!(EntryOut, attr), 40);
        assert_eq!(offset_of!(Attr, mode), 60);
        assert_eq!(offset_of!(Statx, ino), 32);
        assert_eq!(offset_of!(Statx, btime), 80);
        assert_eq!(offset_of!(Statx, rdev_major), 128);
        assert_eq!(DEV_IOC_CLONE, 0x8004_e500);
        assert_eq!(DEV_IOC_BACKING_OPEN, 0x4010_e501);
        assert_eq!(DEV_IOC_BACKING_CLOSE, 0x4004_e502);
    }
}
