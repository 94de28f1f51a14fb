//! A file whose sectors are sealed, for redb to keep an index in.
//!
//! Each 512 bytes are under AES-256-XTS with their place as the tweak: nothing of the index can be read without
//! the device's key, and a page costs no room beside itself. XTS hides, it does not vouch: whoever changes the
//! file changes what is read, so what is found in it is checked against what lies in the packs.
//! A crash tears a write where it would tear a plain one, at blocks of 16 bytes, and redb allows for that.

mod xts;

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use redb::StorageBackend;

use xts::Xts;

/// What is sealed at once.
pub const SECTOR_BYTES: usize = 512;

/// How much is sealed before it is written, whatever is given.
const PIECE_BYTES: usize = 128 * SECTOR_BYTES;

/// A file of sealed sectors. It is locked for as long as it is open.
pub struct Sectors {
    file: File,
    cipher: Xts,
    /// A multiple of [`SECTOR_BYTES`].
    len: AtomicU64,
    /// Held while a part of a sector is replaced.
    edge: Mutex<()>,
}

impl Sectors {
    /// Takes a file that is open for reading and writing; fails with [`ErrorKind::WouldBlock`] if another has it.
    pub fn new(file: File, key: &[u8; 64]) -> io::Result<Sectors> {
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })?;
        // A sector that a crash cut off was never synced.
        let len = file.metadata()?.len() / SECTOR_BYTES as u64 * SECTOR_BYTES as u64;
        let (cipher, len) = (Xts::new(key), AtomicU64::new(len));
        Ok(Sectors { file, cipher, len, edge: Mutex::new(()) })
    }

    fn check_range(&self, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len as u64);
        if end.is_some_and(|end| end <= self.len.load(Ordering::Acquire)) {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::UnexpectedEof, "there is no such place in the file"))
    }

    /// Reads whole sectors.
    fn read_sectors(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)?;
        for (place, sector) in (offset / SECTOR_BYTES as u64..).zip(out.as_chunks_mut().0) {
            // No sector is sealed to zeros: one that reads so was never written, and holds zeros.
            if sector.iter().any(|byte| *byte != 0) {
                self.cipher.decrypt(place, sector);
            }
        }
        Ok(())
    }

    /// Seals and writes whole sectors.
    fn write_sectors(&self, offset: u64, sectors: &mut [u8]) -> io::Result<()> {
        for (place, sector) in (offset / SECTOR_BYTES as u64..).zip(sectors.as_chunks_mut().0) {
            self.cipher.encrypt(place, sector);
        }
        self.file.write_all_at(sectors, offset)
    }
}

/// Returns the sectors' bytes from the one in which a range begins, and where the range lies in them.
fn around(offset: u64, len: usize) -> (u64, usize, usize) {
    let before = (offset % SECTOR_BYTES as u64) as usize;
    (offset - before as u64, before, (before + len).next_multiple_of(SECTOR_BYTES))
}

impl StorageBackend for Sectors {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Acquire))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_range(offset, out.len())?;
        let (start, before, len) = around(offset, out.len());
        if len == out.len() {
            return self.read_sectors(start, out);
        }
        let mut sectors = vec![0; len];
        self.read_sectors(start, &mut sectors)?;
        out.copy_from_slice(&sectors[before..before + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(SECTOR_BYTES as u64) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a length ends within a sector"));
        }
        self.file.set_len(len)?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_range(offset, data.len())?;
        let (start, before, len) = around(offset, data.len());
        if len == data.len() {
            for (n, piece) in data.chunks(PIECE_BYTES).enumerate() {
                self.write_sectors(start + (n * PIECE_BYTES) as u64, &mut piece.to_vec())?;
            }
            return Ok(());
        }
        let _edge = self.edge.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sectors = vec![0; len];
        self.read_sectors(start, &mut sectors)?;
        sectors[before..before + data.len()].copy_from_slice(data);
        self.write_sectors(start, &mut sectors)
    }
}

impl fmt::Debug for Sectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sectors of {} bytes", self.len.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use redb::{Database, ReadableDatabase, TableDefinition};

    use super::*;

    const TABLE: TableDefinition<'_, &str, &str> = TableDefinition::new("names of secrets");

    fn key(seed: u8) -> [u8; 64] {
        std::array::from_fn(|n| n as u8 ^ seed)
    }

    fn sectors(key: &[u8; 64]) -> (File, Sectors) {
        let file = tempfile::tempfile().unwrap();
        (file.try_clone().unwrap(), Sectors::new(file, key).unwrap())
    }

    /// IEEE 1619's vector 10: the key and the first block of a sector of 00 to ff twice, at place 0xff.
    #[test]
    fn a_sector_is_sealed_as_the_standard_says() {
        let mut key = key(1);
        key[..32].copy_from_slice(&hex(
            "2718281828459045235360287471352662497757247093699959574966967627",
        ));
        key[32..].copy_from_slice(&hex(
            "3141592653589793238462643383279502884197169399375105820974944592",
        ));
        let (raw, sectors) = sectors(&key);
        sectors.set_len(0x100 * SECTOR_BYTES as u64).unwrap();
        let plain: Vec<u8> = (0..SECTOR_BYTES).map(|n| n as u8).collect();
        sectors.write(0xff * SECTOR_BYTES as u64, &plain).unwrap();
        let mut found = [0; 16];
        raw.read_exact_at(&mut found, 0xff * SECTOR_BYTES as u64).unwrap();
        assert_eq!(found[..], hex("1c3b3a102f770386e4836c99e370cf9b"));
    }

    fn hex(text: &str) -> Vec<u8> {
        let byte = |n: usize| u8::from_str_radix(&text[n..n + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn a_database_in_it_shows_nothing_and_opens_with_its_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let open = |key: &[u8; 64]| {
            let mut options = File::options();
            let file = options.read(true).write(true).create(true).truncate(false);
            let sectors = Sectors::new(file.open(&path).unwrap(), key).unwrap();
            Database::builder().create_with_backend(sectors)
        };
        let database = open(&key(1)).unwrap();
        let write = database.begin_write().unwrap();
        let known = "a text that is known to all";
        write.open_table(TABLE).unwrap().insert("key of the table", known).unwrap();
        write.commit().unwrap();
        drop(database);
        let raw = fs::read(&path).unwrap();
        for text in ["redb", "known", "key of the table", "names of secrets"] {
            assert!(!raw.windows(text.len()).any(|bytes| bytes == text.as_bytes()), "{text}");
        }
        assert!(open(&key(2)).is_err());
        let database = open(&key(1)).unwrap();
        let read = database.begin_read().unwrap().open_table(TABLE).unwrap();
        assert_eq!(read.get("key of the table").unwrap().unwrap().value(), known);
    }

    #[test]
    fn a_second_who_opens_it_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = Sectors::new(file.reopen().unwrap(), &key(1)).unwrap();
        let refused = Sectors::new(file.reopen().unwrap(), &key(1)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        drop(first);
        Sectors::new(file.reopen().unwrap(), &key(1)).unwrap();
    }

    #[test]
    fn n12_the_key_of_sectors_shows_in_no_debug() {
        let (_, sectors) = sectors(&key(1));
        assert_eq!(format!("{sectors:?}"), "sectors of 0 bytes");
    }

    /// The same bytes at two places, or of two buckets, look different.
    #[test]
    fn equal_sectors_do_not_look_equal() {
        let (raw, sectors) = sectors(&key(1));
        sectors.set_len(1024).unwrap();
        sectors.write(0, &[7; 1024]).unwrap();
        let mut found = [0; 1024];
        raw.read_exact_at(&mut found, 0).unwrap();
        assert_ne!(found[..512], found[512..]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = (any::<u8>(), 0..3000_usize)
            .prop_map(|(seed, len)| (0..len).map(|n| (n as u8).wrapping_mul(seed)).collect());
        prop_oneof![
            4 => (0..9000_u64, bytes).prop_map(|(at, bytes)| Step::Write(at, bytes)),
            2 => (0..20_u64).prop_map(|n| Step::SetLen(n * SECTOR_BYTES as u64)),
            1 => Just(Step::Reopen),
        ]
    }

    proptest! {
        #[test]
        fn it_reads_as_a_plain_file_would(
            steps in prop::collection::vec(step(), 1..20),
            ranges in prop::collection::vec((0..9000_u64, 0..3000_usize), 1..10),
        ) {
            let (raw, mut sectors) = sectors(&key(1));
            let mut plain: Vec<u8> = Vec::new();
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        let range = at as usize..at as usize + bytes.len();
                        let is_inside = range.end <= plain.len();
                        prop_assert_eq!(sectors.write(at, &bytes).is_ok(), is_inside);
                        if is_inside {
                            plain[range].copy_from_slice(&bytes);
                        }
                    }
                    Step::SetLen(len) => {
                        sectors.set_len(len).unwrap();
                        plain.resize(len as usize, 0);
                    }
                    Step::Reopen => {
                        drop(sectors);
                        sectors = Sectors::new(raw.try_clone().unwrap(), &key(1)).unwrap();
                    }
                }
                prop_assert_eq!(sectors.len().unwrap(), plain.len() as u64);
            }
            let mut all = vec![1; plain.len()];
            sectors.read(0, &mut all).unwrap();
            prop_assert!(all == plain);
            for (at, len) in ranges {
                let mut out = vec![1; len];
                let outcome = sectors.read(at, &mut out);
                match plain.get(at as usize..at as usize + len) {
                    Some(expected) => prop_assert!(out == expected && outcome.is_ok()),
                    None => prop_assert!(outcome.is_err()),
                }
            }
        }
    }
}
