//! Files of a bucket that are open in its view.

use std::fmt;
use std::sync::Arc;

use gate_bucket::live::{Live, Opened};
use gate_core::id::Token;
use gate_core::tree::op::Fence;
use gate_core::tree::shown::What;
use gate_fuse::{Caller, Errno, Write};
use gate_view::nodes::Node;
use gate_view::source::{File, Opening};
use rustix::fs::FallocateFlags;

use super::node::Leaf;
use super::{errno_of, names};
use gate_bucket::bucket::BucketError;

/// An open file.
pub struct Sheet {
    node: Arc<Node<Leaf>>,
    opened: Opened,
    live: Arc<Live>,
    fence: Option<Fence>,
}

impl Sheet {
    /// Takes a file that is open.
    pub fn of(
        live: &Arc<Live>,
        node: Arc<Node<Leaf>>,
        opened: Opened,
        opening: &Opening<'_>,
    ) -> Sheet {
        Sheet { node, opened, live: Arc::clone(live), fence: opening.token.map(fence_of) }
    }
}

/// Opens a file.
pub fn open(
    live: &Arc<Live>,
    node: Arc<Node<Leaf>>,
    opening: &Opening<'_>,
) -> Result<Sheet, Errno> {
    let has = |flag: i32| opening.flags & flag.cast_unsigned() != 0;
    let to_write =
        opening.flags & libc::O_ACCMODE.cast_unsigned() != libc::O_RDONLY.cast_unsigned();
    let is_cut = has(libc::O_TRUNC);
    let opened = live.open(&node.what(), to_write || is_cut).map_err(errno_of)?;
    live.saw(names::seer(opening.by), &node.what()).map_err(errno_of)?;
    let fence = opening.token.map(fence_of);
    if is_cut && opened.size() > 0 {
        opened.set_size(0, fence).map_err(errno_of)?;
        if opening.kill_suidgid {
            strip(live, &node.what())?;
        }
        node.change();
    }
    Ok(Sheet { node, opened, live: Arc::clone(live), fence })
}

pub fn boxed(sheet: Sheet) -> Box<dyn File> {
    Box::new(sheet)
}

/// Takes suid and sgid from a file whose bytes somebody changed who might not set them.
pub fn strip(live: &Live, what: &What) -> Result<(), Errno> {
    const SUID_AND_SGID: u32 = 0o6000;
    let mode = live.facts(what).map_err(errno_of)?.mode;
    match mode & SUID_AND_SGID {
        0 => Ok(()),
        _ => live.set_mode(what, mode & !SUID_AND_SGID).map_err(errno_of),
    }
}

fn fence_of(token: Token) -> Fence {
    Fence { epoch: token.epoch.0, token: token.counter }
}

impl File for Sheet {
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let read = self.opened.read_at(offset, buffer);
        read.map_err(|error| errno_of(BucketError::from(error).into()))
    }

    fn peek(&self, offset: u64) -> Result<Option<u8>, Errno> {
        let mut byte = [0];
        Ok((self.read(&mut byte, offset)? == 1).then_some(byte[0]))
    }

    fn write(&self, write: &Write<'_>) -> Result<usize, Errno> {
        let append = write.flags & libc::O_APPEND.cast_unsigned() != 0;
        if append && !write.cached {
            self.opened.append(write.data, self.fence).map_err(errno_of)?;
        } else {
            self.opened.write_at(write.offset, write.data, self.fence).map_err(errno_of)?;
        }
        if write.kill_suidgid {
            strip(&self.live, &self.node.what())?;
        }
        self.node.change();
        Ok(write.data.len())
    }

    fn sync(&self, _data_only: bool) -> Result<(), Errno> {
        self.opened.sync().map_err(errno_of)
    }

    fn flush(&self) -> Result<(), Errno> {
        self.opened.flush().map_err(errno_of)
    }

    fn may_fail_at_close(&self) -> bool {
        self.opened.is_writer()
    }

    fn allocate(&self, _: &Caller, mode: u32, offset: u64, length: u64) -> Result<(), Errno> {
        let mode = FallocateFlags::from_bits_retain(mode);
        let end = offset.checked_add(length).ok_or(Errno::FBIG)?;
        let (keep, punch) = (FallocateFlags::KEEP_SIZE, FallocateFlags::PUNCH_HOLE);
        let is_zeroing = mode.contains(FallocateFlags::ZERO_RANGE);
        if !(mode - keep - punch - FallocateFlags::ZERO_RANGE).is_empty() {
            return Err(Errno::OPNOTSUPP);
        }
        if mode.contains(punch) || is_zeroing {
            self.opened.zero(offset, length, self.fence).map_err(errno_of)?;
        }
        if !mode.contains(keep) && end > self.opened.size() {
            self.opened.set_size(end, self.fence).map_err(errno_of)?;
        }
        self.node.change();
        Ok(())
    }

    fn seek(&self, offset: u64, whence: u32) -> Result<u64, Errno> {
        let found = match whence.cast_signed() {
            libc::SEEK_DATA => self.opened.seek_data(offset),
            libc::SEEK_HOLE => self.opened.seek_hole(offset),
            _ => return Err(Errno::INVAL),
        };
        found.ok_or(Errno::NXIO)
    }
}

impl fmt::Debug for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.opened)
    }
}
