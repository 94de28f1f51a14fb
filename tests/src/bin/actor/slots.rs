//! What scripts do with open files and mappings, each in a slot that the script chose, so that a
//! line means the same to two actors.
//!
//! Bytes are told by their number and a digest; what is written follows from a seed. A mapping is
//! reached by system calls, so that what would be a signal is an errno.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, MemfdFlags, OFlags, SeekFrom, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

use crate::names::{show, times};
use crate::{close, counted, mode, none, number, open, word};

/// What direct I/O is aligned to.
const BLOCK: usize = 4096;

#[derive(Default)]
pub(crate) struct Slots {
    files: BTreeMap<u64, OwnedFd>,
    mappings: BTreeMap<u64, Mapping>,
}

impl Slots {
    /// Does what the words behind the number of a slot say.
    pub(crate) fn act(&mut self, words: &[&OsStr]) -> Result<OsString> {
        let slot = number(words, 0)?;
        let (verb, rest) = words[1..].split_first().ok_or(Errno::INVAL)?;
        let verb = verb.to_str().ok_or(Errno::INVAL)?;
        match verb {
            "open" => {
                let file = open_without_waiting(word(rest, 0)?, word(rest, 1)?)?;
                self.files.insert(slot, file);
                Ok(none(()))
            }
            "close" => close(self.files.remove(&slot).ok_or(Errno::BADF)?),
            "map" => {
                let mapping = Mapping::new(self.file(slot)?, word(rest, 0)?, length(rest, 1)?)?;
                self.mappings.insert(slot, mapping);
                Ok(none(()))
            }
            "unmap" => self.mappings.remove(&slot).map(|_| none(())).ok_or(Errno::INVAL),
            "load" | "store" | "msync" => {
                let mapping = self.mappings.get(&slot).ok_or(Errno::INVAL)?;
                mapping.act(verb, rest)
            }
            "copy" | "sendfile" => self.transfer(verb, slot, rest),
            "read" | "write" | "writev" | "pread" | "pwrite" => bytes(self.file(slot)?, verb, rest),
            _ => attributes(self.file(slot)?, verb, rest),
        }
    }

    fn file(&self, slot: u64) -> Result<&OwnedFd> {
        self.files.get(&slot).ok_or(Errno::BADF)
    }

    fn transfer(&self, verb: &str, slot: u64, rest: &[&OsStr]) -> Result<OsString> {
        let (from, to) = (self.file(slot)?, self.file(number(rest, 0)?)?);
        if is_direct(from)? || is_direct(to)? {
            return Err(Errno::OPNOTSUPP);
        }
        let (mut offset, length) = (number(rest, 1)?, length(rest, 2)?);
        if verb == "sendfile" {
            return rustix::fs::sendfile(to, from, Some(&mut offset), length).map(counted);
        }
        let mut to_offset = number(rest, 3)?;
        let (from_at, to_at) = (Some(&mut offset), Some(&mut to_offset));
        rustix::fs::copy_file_range(from, from_at, to, to_at, length).map(counted)
    }
}

/// Nobody is at the other end of a FIFO, and a view opens no devices.
fn open_without_waiting(flags: &OsStr, path: &OsStr) -> Result<OwnedFd> {
    let kind = rustix::fs::stat(path).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        Ok(FileType::Fifo) => open(&[flags, OsStr::new("n")].join(OsStr::new("")), path),
        Ok(FileType::CharacterDevice) => Err(Errno::ACCESS),
        _ => open(flags, path),
    }
}

/// Reads and writes. Direct I/O is kept to whole blocks.
fn bytes(file: &OwnedFd, verb: &str, rest: &[&OsStr]) -> Result<OsString> {
    let direct = is_direct(file)?;
    let whole = |count: usize| if direct { count / BLOCK * BLOCK } else { count };
    match verb {
        "pread" => {
            let offset = whole(length(rest, 0)?);
            let mut buffer = Aligned::new(whole(length(rest, 1)?));
            let count = rustix::io::pread(file, buffer.bytes(), offset as u64)?;
            Ok(digest(&buffer.bytes()[..count]))
        }
        "pwrite" => {
            let offset = whole(length(rest, 0)?);
            let text = text(whole(length(rest, 1)?), number(rest, 2)?);
            let mut buffer = Aligned::new(text.len());
            buffer.bytes().copy_from_slice(&text);
            rustix::io::pwrite(file, buffer.bytes(), offset as u64).map(counted)
        }
        _ if direct => Err(Errno::OPNOTSUPP),
        "read" => {
            let mut buffer = vec![0; length(rest, 0)?];
            let count = rustix::io::read(file, &mut buffer)?;
            Ok(digest(&buffer[..count]))
        }
        "write" => rustix::io::write(file, &text(length(rest, 0)?, number(rest, 1)?)).map(counted),
        _ => {
            let text = text(length(rest, 0)?, number(rest, 1)?);
            let (first, second) = text.split_at(text.len() / 3);
            let parts = [IoSlice::new(first), IoSlice::new(second), IoSlice::new(b"end")];
            rustix::io::writev(file, &parts).map(counted)
        }
    }
}

fn attributes(file: &OwnedFd, verb: &str, rest: &[&OsStr]) -> Result<OsString> {
    match verb {
        // Positions within a directory are its file system's own.
        "seek" if is_directory(file)? => Err(Errno::ISDIR),
        "seek" => {
            let offset = number(rest, 1)?;
            let to = match word(rest, 0)?.to_str() {
                Some("cur") => SeekFrom::Current(offset.cast_signed()),
                Some("end") => SeekFrom::End(offset.cast_signed()),
                Some("data") => SeekFrom::Data(offset),
                Some("hole") => SeekFrom::Hole(offset),
                _ => SeekFrom::Start(offset),
            };
            rustix::fs::seek(file, to).map(counted)
        }
        "ftruncate" => rustix::fs::ftruncate(file, number(rest, 0)?).map(none),
        "fallocate" => {
            let how =
                FallocateFlags::from_bits_retain(u32::try_from(number(rest, 0)?).unwrap_or(0));
            rustix::fs::fallocate(file, how, number(rest, 1)?, number(rest, 2)?).map(none)
        }
        "fsync" => rustix::fs::fsync(file).map(none),
        "fdatasync" => rustix::fs::fdatasync(file).map(none),
        "fstat" => rustix::fs::fstat(file).map(|stat| show(&stat).into()),
        "fchmod" => rustix::fs::fchmod(file, mode(rest, 0)?).map(none),
        "fchown" => {
            let id = u32::try_from(number(rest, 0)?).map_err(|_| Errno::INVAL)?;
            rustix::fs::fchown(file, Some(Uid::from_raw(id)), Some(Gid::from_raw(id))).map(none)
        }
        "futimens" => {
            let times = times(number(rest, 0)?, number(rest, 1)?);
            rustix::fs::futimens(file, &times).map(none)
        }
        "fsetxattr" => {
            let value = word(rest, 1)?.as_encoded_bytes();
            rustix::fs::fsetxattr(file, word(rest, 0)?, value, XattrFlags::empty()).map(none)
        }
        "fgetxattr" => {
            let mut value = [0; 256];
            let count = rustix::fs::fgetxattr(file, word(rest, 0)?, &mut value)?;
            Ok(digest(&value[..count]))
        }
        "name" => {
            let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
            rustix::fs::linkat(CWD, from, CWD, word(rest, 0)?, AtFlags::SYMLINK_FOLLOW).map(none)
        }
        _ => Err(Errno::NOSYS),
    }
}

/// A piece of a file in memory.
struct Mapping {
    first: *mut c_void,
    length: usize,
    /// Bytes go through it, so that the kernel is the one who touches the mapping.
    carrier: OwnedFd,
}

impl Mapping {
    /// `s` shared or `p` private, and `w` to write.
    fn new(file: &OwnedFd, how: &OsStr, length: usize) -> Result<Mapping> {
        let has = |flag: u8| how.as_encoded_bytes().contains(&flag);
        let access =
            ProtFlags::READ | if has(b'w') { ProtFlags::WRITE } else { ProtFlags::empty() };
        let flags = if has(b's') { MapFlags::SHARED } else { MapFlags::PRIVATE };
        let carrier = rustix::fs::memfd_create("carrier", MemfdFlags::CLOEXEC)?;
        // SAFETY: the kernel chooses the address, and nobody else learns it.
        let first = unsafe { mmap(std::ptr::null_mut(), length, access, flags, file, 0)? };
        Ok(Mapping { first, length, carrier })
    }

    fn act(&self, verb: &str, rest: &[&OsStr]) -> Result<OsString> {
        if verb == "msync" {
            // SAFETY: the range is the mapping's own; writing it back changes no memory.
            return unsafe { msync(self.first, self.length, MsyncFlags::SYNC) }.map(none);
        }
        let offset = length(rest, 0)?.min(self.length);
        let count = length(rest, 1)?.min(self.length - offset);
        // SAFETY: the sum stays within the mapping.
        let place = unsafe { self.first.byte_add(offset) };
        rustix::fs::ftruncate(&self.carrier, count as u64)?;
        if verb == "load" {
            let moved = self.call(|carrier| {
                // SAFETY: the kernel reads the mapping, and answers EFAULT where it may not.
                unsafe { libc::pwrite(carrier, place, count, 0) }
            })?;
            let mut bytes = vec![0; moved];
            let count = rustix::io::pread(&self.carrier, &mut bytes, 0)?;
            return Ok(digest(&bytes[..count]));
        }
        rustix::io::pwrite(&self.carrier, &text(count, number(rest, 2)?), 0)?;
        // SAFETY: the kernel writes into the mapping, which no reference leads to.
        self.call(|carrier| unsafe { libc::pread(carrier, place, count, 0) }).map(counted)
    }

    fn call(&self, call: impl FnOnce(i32) -> isize) -> Result<usize> {
        let count = call(std::os::fd::AsRawFd::as_raw_fd(&self.carrier));
        usize::try_from(count).map_err(|_| crate::last_errno())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and ends with it.
        let _ = unsafe { munmap(self.first, self.length) };
    }
}

/// Bytes that begin at a block, as direct I/O needs it.
struct Aligned {
    room: Vec<u8>,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Aligned {
        Aligned { room: vec![0; length + BLOCK], length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let before = self.room.as_ptr().align_offset(BLOCK);
        &mut self.room[before..before + self.length]
    }
}

fn is_direct(file: &OwnedFd) -> Result<bool> {
    Ok(rustix::fs::fcntl_getfl(file)?.contains(OFlags::DIRECT))
}

fn is_directory(file: &OwnedFd) -> Result<bool> {
    let stat = rustix::fs::fstat(file)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn text(length: usize, seed: u64) -> Vec<u8> {
    (0..length as u64).map(|i| b'a' + u8::try_from((seed + i / 7) % 26).unwrap_or(0)).collect()
}

/// Tells bytes by their number and a digest.
pub(crate) fn digest(bytes: &[u8]) -> OsString {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{} bytes {:016x}", bytes.len(), hasher.finish()).into()
}

fn length(words: &[&OsStr], index: usize) -> Result<usize> {
    usize::try_from(number(words, index)?).map_err(|_| Errno::INVAL)
}
