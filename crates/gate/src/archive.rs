//! Trees of files as a stream: tar, as every system reads and writes it.
//!
//! Times to the nanosecond and extended attributes are put down as other programs do: `mtime` and
//! `SCHILY.xattr.NAME`, or `LIBARCHIVE.xattr.NAME` in base64 where the value or the name has bytes that the
//! former cannot carry. Who owns a file is not said.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use base64ct::{Base64Unpadded, Encoding as _};
use gate_api::http::{quoted, unquoted};
use tar::{Archive, Builder, Entry, EntryType, Header};

/// What an attribute's name comes after.
const SCHILY: &str = "SCHILY.xattr.";
const LIBARCHIVE: &str = "LIBARCHIVE.xattr.";
/// The longest target that a header itself has room for, in bytes.
const TARGET_BYTES_MAX: usize = 100;

/// What is said of something beside its name and its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Permissions.
    pub mode: u32,
    /// Seconds since 1970, and nanoseconds after them.
    pub modified: (i64, u32),
    /// Extended attributes.
    pub extended: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Directory,
    /// A file, and how many bytes it has.
    File(u64),
    /// A symbolic link, and where it leads.
    Symlink(Vec<u8>),
    /// Another name of a file that came before, by its path.
    HardLink(Vec<u8>),
    /// What only a disk has: a device, a FIFO.
    Other,
}

/// Writes a tree.
pub struct Writer<W: Write>(Builder<W>);

impl<W: Write> Writer<W> {
    pub fn new(to: W) -> Writer<W> {
        Writer(Builder::new(to))
    }

    /// Puts something there that is no file; what it lies in came before it.
    pub fn put(&mut self, path: &[u8], item: &Item, facts: &Facts) -> io::Result<()> {
        let (kind, target) = match item {
            Item::Directory => (EntryType::Directory, None),
            Item::Symlink(target) => (EntryType::Symlink, Some(target)),
            Item::HardLink(target) => (EntryType::Link, Some(target)),
            Item::File(_) | Item::Other => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let mut header = self.begin(kind, facts, target.map(Vec::as_slice))?;
        self.0.append_data(&mut header, path_of(path), io::empty())
    }

    /// Puts a file there; exactly so many bytes are read.
    pub fn put_file(
        &mut self,
        path: &[u8],
        facts: &Facts,
        size: u64,
        bytes: impl Read,
    ) -> io::Result<()> {
        let mut header = self.begin(EntryType::Regular, facts, None)?;
        header.set_size(size);
        let mut bytes = Counted { from: bytes.take(size), read: 0 };
        self.0.append_data(&mut header, path_of(path), &mut bytes)?;
        match bytes.read == size {
            true => Ok(()),
            false => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter meanwhile"))
            }
        }
    }

    /// Ends the tree.
    pub fn finish(self) -> io::Result<W> {
        self.0.into_inner()
    }

    fn begin(
        &mut self,
        kind: EntryType,
        facts: &Facts,
        target: Option<&[u8]>,
    ) -> io::Result<Header> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(facts.mode);
        header.set_mtime(u64::try_from(facts.modified.0).unwrap_or(0));
        let mut more: Vec<(String, Vec<u8>)> = Vec::new();
        match target {
            Some(target) if target.len() <= TARGET_BYTES_MAX => {
                header.set_link_name_literal(target)?;
            }
            Some(target) => more.push(("linkpath".to_owned(), target.to_owned())),
            None => {}
        }
        if facts.modified.1 != 0 || facts.modified.0 < 0 {
            more.push(("mtime".to_owned(), decimal(facts.modified).into_bytes()));
        }
        for (name, value) in &facts.extended {
            more.push(match std::str::from_utf8(name) {
                Ok(name) if !value.contains(&b'\n') && !name.contains(['=', '\n']) => {
                    (format!("{SCHILY}{name}"), value.clone())
                }
                _ => {
                    let value = Base64Unpadded::encode_string(value).into_bytes();
                    (format!("{LIBARCHIVE}{}", quoted(name)), value)
                }
            });
        }
        self.0.append_pax_extensions(more.iter().map(|(key, value)| (&**key, &**value)))?;
        Ok(header)
    }
}

/// Reads a tree: `take` is given each path, what is there, and the bytes of a file.
pub fn read(
    from: impl Read,
    mut take: impl FnMut(&[u8], &Item, &Facts, &mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let mut archive = Archive::new(from);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let facts = facts(&mut entry)?;
        let target = |entry: &Entry<'_, _>| {
            let target = entry.link_name_bytes().map(|bytes| bytes.into_owned());
            target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a link leads nowhere"))
        };
        let item = match entry.header().entry_type() {
            EntryType::Directory => Item::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                Item::File(entry.size())
            }
            EntryType::Symlink => Item::Symlink(target(&entry)?),
            EntryType::Link => Item::HardLink(target(&entry)?),
            // Of the archive itself.
            EntryType::XGlobalHeader => continue,
            _ => Item::Other,
        };
        let path = entry.path_bytes().into_owned();
        take(&path, &item, &facts, &mut entry)?;
    }
    Ok(())
}

fn facts(entry: &mut Entry<'_, impl Read>) -> io::Result<Facts> {
    let mode = entry.header().mode()? & 0o7777;
    let mut modified = (i64::try_from(entry.header().mtime()?).unwrap_or(i64::MAX), 0);
    let mut extended = Vec::new();
    // What is no line of its own is a value that has several: nobody can tell where it ends.
    for one in entry.pax_extensions()?.into_iter().flatten().flatten() {
        let Ok(key) = one.key() else { continue };
        let value = one.value_bytes();
        if key == "mtime" {
            let text = one.value().ok();
            modified = text.and_then(of_decimal).ok_or_else(|| malformed("a time"))?;
        } else if let Some(name) = key.strip_prefix(SCHILY) {
            extended.push((name.as_bytes().to_vec(), value.to_vec()));
        } else if let Some(name) = key.strip_prefix(LIBARCHIVE) {
            let text = one.value().ok();
            let value =
                text.and_then(|text| Base64Unpadded::decode_vec(text.trim_end_matches('=')).ok());
            let value = value.ok_or_else(|| malformed("an attribute"))?;
            extended.push((unquoted(name), value));
        }
    }
    // Some programs write an attribute in both ways.
    extended.sort_unstable();
    extended.dedup_by(|a, b| a.0 == b.0);
    Ok(Facts { mode, modified, extended })
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} in the archive makes no sense"))
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Writes a time as a decimal number.
fn decimal((seconds, nanos): (i64, u32)) -> String {
    match (seconds, nanos) {
        // A moment before -1 is -1 and a bit, though its second is -2.
        (..0, 1..) => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
        _ => format!("{seconds}.{nanos:09}"),
    }
}

fn of_decimal(text: &str) -> Option<(i64, u32)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = part.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match whole.starts_with('-') && nanos > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        false => Some((seconds, nanos)),
    }
}

/// Counts what is read.
struct Counted<R> {
    from: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts_of(mode: u32, modified: (i64, u32)) -> Facts {
        Facts { mode, modified, extended: Vec::new() }
    }

    #[test]
    fn what_was_written_is_read() {
        let long = [&b"d/"[..], &[b'n'; 255], b"/", &[0xff; 200]].concat();
        let target = vec![b't'; 300];
        let odd = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
        let mut extended =
            vec![odd(b"user.a", b"1"), odd(b"user.b%\n\xff", b"x\ny"), odd(b"user.c", b"")];
        extended.sort_unstable();
        let rich = Facts { mode: 0o4755, modified: (-2, 5), extended };
        let all = [
            (&b"d"[..], Item::Directory, facts_of(0o700, (0, 0))),
            (b"d/f", Item::File(5), rich),
            (&long, Item::File(0), facts_of(0, (1 << 40, 999_999_999))),
            (b"d/\xfe", Item::Symlink(b"../elsewhere".to_vec()), facts_of(0o777, (7, 0))),
            (b"e", Item::Symlink(target), facts_of(0o777, (7, 8))),
            (b"g", Item::HardLink(b"d/f".to_vec()), facts_of(0o4755, (-2, 0))),
        ];
        let mut writer = Writer::new(Vec::new());
        for (path, item, facts) in &all {
            match item {
                Item::File(size) => writer.put_file(path, facts, *size, &b"hello, more"[..]),
                _ => writer.put(path, item, facts),
            }
            .unwrap();
        }
        let bytes = writer.finish().unwrap();
        let mut found = Vec::new();
        read(&bytes[..], |path, item, facts, bytes| {
            let mut content = Vec::new();
            bytes.read_to_end(&mut content)?;
            assert_eq!(content.len() as u64, if let Item::File(size) = item { *size } else { 0 });
            let path = path.strip_suffix(b"/").unwrap_or(path).to_vec();
            found.push((path, item.clone(), facts.clone()));
            Ok(())
        })
        .unwrap();
        assert_eq!(found, all.map(|(path, item, facts)| (path.to_vec(), item, facts)));
    }

    #[test]
    fn a_file_that_becomes_shorter_is_told() {
        let mut writer = Writer::new(Vec::new());
        let short = writer.put_file(b"f", &Facts::default(), 5, &b"four"[..]);
        assert_eq!(short.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn times_are_decimal_numbers() {
        for (time, text) in [
            ((0, 0), "0.000000000"),
            ((1, 500_000_000), "1.500000000"),
            ((-1, 0), "-1.000000000"),
            ((-1, 500_000_000), "-0.500000000"),
            ((-2, 750_000_000), "-1.250000000"),
        ] {
            assert_eq!(decimal(time), text);
            assert_eq!(of_decimal(text), Some(time), "{text}");
        }
        assert_eq!(of_decimal("12"), Some((12, 0)));
        assert_eq!(of_decimal("12.3456789019"), Some((12, 345_678_901)));
        for wrong in ["", "x", "1.x", "1e9", "--1"] {
            assert_eq!(of_decimal(wrong), None, "{wrong}");
        }
    }
}
