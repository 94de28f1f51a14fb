//! The flags that servers see.

use bitflags::bitflags;

bitflags! {
    /// What kernel and server agree on in INIT.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InitFlags: u64 {
        /// Reads of one file may be in flight together.
        const ASYNC_READ = 1 << 0;
        /// Locks of fcntl(2) are the server's to keep.
        const POSIX_LOCKS = 1 << 1;
        /// OPEN carries O_TRUNC.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// Lookups of "." and ".." are answered (NFS export).
        const EXPORT_SUPPORT = 1 << 4;
        /// A WRITE may be larger than a page.
        const BIG_WRITES = 1 << 5;
        /// The kernel leaves the umask to the server.
        const DONT_MASK = 1 << 6;
        /// Locks of flock(2) are the server's to keep.
        const FLOCK_LOCKS = 1 << 10;
        /// A changed size or mtime drops cached pages.
        const AUTO_INVAL_DATA = 1 << 12;
        /// READDIRPLUS is understood.
        const DO_READDIRPLUS = 1 << 13;
        /// The kernel chooses between READDIR and READDIRPLUS.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O may be in flight together.
        const ASYNC_DIO = 1 << 15;
        /// Lookups and listings of one directory run side by side.
        const PARALLEL_DIROPS = 1 << 18;
        /// The kernel reads, keeps and enforces POSIX ACLs.
        const POSIX_ACL = 1 << 20;
        /// A request may be larger than 32 pages.
        const MAX_PAGES = 1 << 22;
        /// Targets of symbolic links are cached.
        const CACHE_SYMLINKS = 1 << 23;
        /// The server strips suid and sgid when it is told to.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR has its longer layout.
        const SETXATTR_EXT = 1 << 29;
        /// The upper half of these flags is valid.
        const INIT_EXT = 1 << 30;
        /// Requests that create carry the caller's group that matters.
        const CREATE_SUPP_GROUP = 1 << 34;
        /// Files under direct I/O may be mapped, shared.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// Handles may be backed by a file of the server.
        const PASSTHROUGH = 1 << 37;

        const _ = !0;
    }

    /// How the kernel shall treat an open file (`FOPEN_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct OpenFlags: u32 {
        /// Bypass the page cache.
        const DIRECT_IO = 1 << 0;
        /// Keep what is cached of the file.
        const KEEP_CACHE = 1 << 1;
        /// The file cannot seek.
        const NONSEEKABLE = 1 << 2;
        /// Cache the listing of this directory.
        const CACHE_DIR = 1 << 3;
        /// The file has no position at all.
        const STREAM = 1 << 4;
        /// Send no FLUSH for this handle.
        const NOFLUSH = 1 << 5;
        /// Direct writes to one file may run side by side.
        const PARALLEL_DIRECT_WRITES = 1 << 6;
        /// Read and write the backing file, not the server.
        const PASSTHROUGH = 1 << 7;
    }
}
