//! What an actor hears of what it watches: inotify.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::{Errno, Result};

const TOLD: [(ReadFlags, &str); 7] = [
    (ReadFlags::CREATE, "create"),
    (ReadFlags::DELETE, "delete"),
    (ReadFlags::MODIFY, "modify"),
    (ReadFlags::ATTRIB, "attrib"),
    (ReadFlags::MOVED_FROM, "from"),
    (ReadFlags::MOVED_TO, "to"),
    (ReadFlags::DELETE_SELF, "end"),
];

/// What is watched.
#[derive(Default)]
pub struct Ears(Option<OwnedFd>);

impl Ears {
    /// Watches a directory or a file.
    pub fn watch(&mut self, path: &OsStr) -> Result<OsString> {
        let inotify = match self.0.take() {
            Some(inotify) => inotify,
            None => inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
        };
        let flags = TOLD.iter().fold(WatchFlags::empty(), |flags, (flag, _)| {
            flags | WatchFlags::from_bits_retain(flag.bits())
        });
        let added = inotify::add_watch(self.0.insert(inotify), path, flags);
        added.map(|_| OsString::new())
    }

    /// Tells what was heard since it was last asked: `EVENT:NAME`, each ended by a space, the name
    /// of a directory by a slash before that.
    pub fn heard(&self) -> Result<OsString> {
        let inotify = self.0.as_ref().ok_or(Errno::BADF)?;
        let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
        let mut reader = Reader::new(inotify, &mut buffer);
        let mut heard = Vec::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(OsString::from_vec(heard)),
                Err(errno) => return Err(errno),
            };
            let Some((_, what)) = TOLD.iter().find(|(flag, _)| event.events().contains(*flag))
            else {
                continue;
            };
            let name = event.file_name().map_or(&b""[..], |name| name.to_bytes());
            let slash = if event.events().contains(ReadFlags::ISDIR) { "/" } else { "" };
            heard.extend([what.as_bytes(), b":", name, slash.as_bytes(), b" "].concat());
        }
    }
}
