//! Packs: files to whose end sealed chunks are put.
//!
//! What was synced never changes; a chunk moves only into another pack, and a pack goes only as a whole. A frame
//! says its length and its chunk's address, so all that an index knows can be read from the packs again.
//! Not here: which chunks are where (`index`), and when what was put is told to be stored (`store`).

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use gate_core::tree::id::Address;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread, retry_on_intr};

use crate::hash;
use crate::seal::{SEALED_BYTES_MAX, SEALED_BYTES_MIN};

/// Room on the disk that chunks leave to what it takes to go on: entries, the index, a daemon that starts, and
/// deleting.
pub const RESERVE_BYTES: u64 = 4 * 1024 * 1024;

/// No pack becomes longer.
pub const PACK_BYTES_MAX: u64 = if cfg!(test) { 1024 * 1024 } else { 256 * 1024 * 1024 };
/// What every pack begins with.
pub const PACK_HEAD: [u8; 8] = *b"GATEPK\x01\0";
/// Where the version stands in it.
const VERSION_AT: usize = 6;
/// What stands before a chunk: its length and its address.
pub const FRAME_HEAD_BYTES: usize = 4 + 32;
/// After damage, at most so many places that look like a frame are looked at: each costs a hash.
const LOOKS_MAX: usize = 20_000;
/// How much is searched for a frame at once.
const SEARCH_BYTES: usize = 1024 * 1024;

/// A pack, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId(pub u32);

/// Where a chunk's frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub pack: PackId,
    /// Of the frame in the pack.
    pub offset: u32,
    /// Of the sealed bytes.
    pub len: u32,
}

/// A pack to whose end chunks are put.
#[derive(Debug)]
pub struct Pack {
    pub id: PackId,
    file: File,
    len: u64,
    #[cfg(test)]
    pub(crate) room: Option<u64>,
}

/// Why a pack cannot be used.
#[derive(Debug)]
pub enum PackError {
    /// Make room, or look at the disk, and try again.
    Io(io::Error),
    /// A newer gate made it: use that one.
    UnknownVersion(PackId, u8),
    /// It does not begin as a pack does.
    NoPack(PackId),
}

/// Something that a scan met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    Frame(Address, Place),
    /// From here to there is nothing that can be read; its head says this address.
    Damage {
        from: u64,
        to: u64,
        address: Option<Address>,
    },
}

impl PackId {
    pub fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:08}", self.0))
    }

    /// Returns the pack that a file's name is of.
    pub fn of_name(name: &std::ffi::OsStr) -> Option<PackId> {
        let name = name.to_str().filter(|name| name.len() >= 8)?;
        let id = name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok())??;
        (format!("{id:08}") == name).then_some(PackId(id))
    }
}

impl Place {
    /// Returns where the next frame would begin.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + FRAME_HEAD_BYTES as u64 + u64::from(self.len)
    }
}

impl Pack {
    /// Makes an empty pack that outlasts a crash.
    pub fn create(dir: &Path, id: PackId) -> Result<Pack, PackError> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(id.path(dir))?;
        file.write_all_at(&PACK_HEAD, 0)?;
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(Pack::of(id, file, PACK_HEAD.len() as u64))
    }

    /// Opens a pack to put more to its end, which is here; what is there beyond is cut off.
    pub fn open_at(dir: &Path, id: PackId, len: u64) -> Result<Pack, PackError> {
        let file = File::options().read(true).write(true).open(id.path(dir))?;
        check_head(&file, id)?;
        if file.metadata()?.len() > len {
            file.set_len(len)?;
            file.sync_data()?;
        }
        Ok(Pack::of(id, file, len))
    }

    fn of(id: PackId, file: File, len: u64) -> Pack {
        Pack {
            id,
            file,
            len,
            #[cfg(test)]
            room: None,
        }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was put into it.
    pub fn is_empty(&self) -> bool {
        self.len <= PACK_HEAD.len() as u64
    }

    /// Whether a chunk of so many sealed bytes can be put.
    pub fn has_room(&self, sealed_len: usize) -> bool {
        self.len + (FRAME_HEAD_BYTES + sealed_len) as u64 <= PACK_BYTES_MAX
    }

    /// Puts a chunk to the end. It is not stored before [`Pack::sync`].
    pub fn append(&mut self, address: &Address, sealed: &[u8]) -> io::Result<Place> {
        let mut head = [0; FRAME_HEAD_BYTES];
        head[..4].copy_from_slice(&(sealed.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&address.0);
        if let Err(error) = self.write_frame(&head, sealed) {
            // What was half written is written over by the next one, and is no frame until then.
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        let offset = u32::try_from(self.len).expect("a pack is shorter than its bound");
        self.len += (head.len() + sealed.len()) as u64;
        Ok(Place { pack: self.id, offset, len: sealed.len() as u32 })
    }

    fn write_frame(&mut self, head: &[u8], sealed: &[u8]) -> io::Result<()> {
        let len = (head.len() + sealed.len()) as u64;
        #[cfg(test)]
        if let Some(room) = &mut self.room {
            if *room < len {
                let frame = [head, sealed].concat();
                self.file.write_all_at(&frame[..*room as usize], self.len)?;
                return Err(Errno::NOSPC.into());
            }
            *room -= len;
        }
        let room = rustix::fs::fstatvfs(&self.file)?;
        if room.f_bavail.saturating_mul(room.f_frsize) < RESERVE_BYTES + len {
            return Err(Errno::NOSPC.into());
        }
        self.file.write_all_at(head, self.len)?;
        self.file.write_all_at(sealed, self.len + head.len() as u64)
    }

    /// Returns when all that was put outlasts a crash.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Opens a pack to read.
pub fn open(dir: &Path, id: PackId) -> Result<File, PackError> {
    let file = File::open(id.path(dir))?;
    check_head(&file, id)?;
    Ok(file)
}

/// Lists the packs of a directory, in their order.
pub fn list(dir: &Path) -> io::Result<Vec<PackId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        ids.extend(PackId::of_name(&entry?.file_name()));
    }
    ids.sort_unstable();
    Ok(ids)
}

fn check_head(file: &File, id: PackId) -> Result<(), PackError> {
    let mut head = [0; PACK_HEAD.len()];
    match file.read_exact_at(&mut head, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(PackError::NoPack(id)),
        Err(error) => Err(error.into()),
        Ok(()) if head == PACK_HEAD => Ok(()),
        Ok(()) if head[..VERSION_AT] == PACK_HEAD[..VERSION_AT] => {
            Err(PackError::UnknownVersion(id, head[VERSION_AT]))
        }
        Ok(()) => Err(PackError::NoPack(id)),
    }
}

/// Reads a chunk's sealed bytes; none if another frame, or none, lies there. The bytes are not hashed.
pub fn read(file: &File, address: &Address, place: Place) -> io::Result<Option<Vec<u8>>> {
    if !(SEALED_BYTES_MIN..=SEALED_BYTES_MAX).contains(&(place.len as usize)) {
        return Ok(None);
    }
    let (mut head, at) = ([0; FRAME_HEAD_BYTES], u64::from(place.offset));
    match file.read_exact_at(&mut head, at) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let is_frame = head[..4] == place.len.to_le_bytes() && head[4..] == address.0;
    if !is_frame {
        return Ok(None);
    }
    // Into room that nobody fills with zeros before.
    let mut bytes = Vec::with_capacity(place.len as usize);
    while bytes.len() < place.len as usize {
        let at = at + (FRAME_HEAD_BYTES + bytes.len()) as u64;
        if retry_on_intr(|| pread(file, spare_capacity(&mut bytes), at))? == 0 {
            return Ok(None);
        }
    }
    bytes.truncate(place.len as usize);
    Ok(Some(bytes))
}

/// Goes through the frames from a place on, and over what is damaged; returns where the last good one ended.
///
/// Damage that no frame follows is met, too: whether a crash left it is for the caller to say.
pub fn scan(
    file: &File,
    id: PackId,
    from: u64,
    mut met: impl FnMut(Met) -> io::Result<()>,
) -> io::Result<u64> {
    let len = file.metadata()?.len().min(PACK_BYTES_MAX);
    let (mut at, mut good_to) = (from, from);
    while at < len {
        match look(file, id, at)? {
            Look::Frame(address, place) => {
                met(Met::Frame(address, place))?;
                at = place.end();
                good_to = at;
            }
            Look::Bad { address, next } => {
                let to = follow(file, id, at, next, len)?;
                met(Met::Damage { from: at, to, address })?;
                at = to;
            }
        }
    }
    Ok(good_to)
}

/// What lies at a place.
enum Look {
    Frame(Address, Place),
    /// No frame; but if its head is right, this is its address, and here is the next one.
    Bad {
        address: Option<Address>,
        next: Option<u64>,
    },
}

fn look(file: &File, id: PackId, at: u64) -> io::Result<Look> {
    let none = Look::Bad { address: None, next: None };
    let mut head = [0; FRAME_HEAD_BYTES];
    match file.read_exact_at(&mut head, at) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(none),
        outcome => outcome?,
    }
    let (len, address) = head.split_at(4);
    let len = u32::from_le_bytes(len.try_into().expect("there are four"));
    let address = Address(address.try_into().expect("there are 32"));
    let Ok(offset) = u32::try_from(at) else { return Ok(none) };
    let place = Place { pack: id, offset, len };
    match read(file, &address, place)? {
        Some(bytes) if hash::address(&bytes) == address => Ok(Look::Frame(address, place)),
        Some(_) => Ok(Look::Bad { address: Some(address), next: Some(place.end()) }),
        None => Ok(Look::Bad { address: None, next: None }),
    }
}

/// Returns where frames go on after a bad one, or the end.
fn follow(file: &File, id: PackId, bad: u64, next: Option<u64>, len: u64) -> io::Result<u64> {
    if let Some(next) = next
        && (next == len || matches!(look(file, id, next)?, Look::Frame(..)))
    {
        return Ok(next);
    }
    let mut looks = 0;
    let mut at = bad + 1;
    let mut bytes = Vec::new();
    while at + (FRAME_HEAD_BYTES as u64) < len {
        bytes.resize((len - at).min(SEARCH_BYTES as u64) as usize, 0);
        file.read_exact_at(&mut bytes, at)?;
        for (n, word) in bytes.windows(4).enumerate() {
            let word = u32::from_le_bytes(word.try_into().expect("there are four"));
            if !(SEALED_BYTES_MIN..=SEALED_BYTES_MAX).contains(&(word as usize)) {
                continue;
            }
            looks += 1;
            if looks > LOOKS_MAX {
                return Ok(len);
            }
            if matches!(look(file, id, at + n as u64)?, Look::Frame(..)) {
                return Ok(at + n as u64);
            }
        }
        at += (bytes.len() - 3) as u64;
    }
    Ok(len)
}

impl From<io::Error> for PackError {
    fn from(error: io::Error) -> PackError {
        PackError::Io(error)
    }
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackError::Io(error) => error.fmt(f),
            PackError::UnknownVersion(PackId(id), version) => {
                write!(f, "pack {id:08} has version {version}, which this gate does not know")
            }
            PackError::NoPack(PackId(id)) => {
                write!(f, "pack {id:08} does not begin as a pack does")
            }
        }
    }
}

impl std::error::Error for PackError {}

#[cfg(test)]
mod tests;
