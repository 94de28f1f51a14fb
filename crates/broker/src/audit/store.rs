//! The log's file: blocks of records in SQLite, the oldest given up by size and by age.
//!
//! In write-ahead mode without a sync at each commit: what was written survives the death of the
//! broker; of a power cut the last moments may be missing, which the next run says. A file that
//! cannot be read is set aside and begun anew; one of another release is refused (N16).

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gate_api::wire::{Cursor, Former, Happening};
use gate_core::id::Epoch;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, params};

use super::Bounds;
use super::block::{Block, Records};

/// The name of the log in the state directory.
const LOG_NAME: &str = "audit.sqlite";
/// What a log is renamed to that cannot be gone on with; an older one of that name is given up.
const ASIDE_NAME: &str = "audit.sqlite.aside";
/// Its mode: it tells who worked on what.
const PRIVATE: u32 = 0o600;
/// The version of the tables and of the records in them.
const FORMAT_VERSION: i64 = 1;
/// Blocks that are given up in one step.
const STEP_BLOCKS: u32 = 8;
/// Such steps between two rounds of writing.
const STEPS_MAX: u32 = 32;
/// Pages without content that may stay in the file, to be filled again.
const FREE_PAGES_MAX: u64 = 2_048;

const PRAGMAS: &str = "
    PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
    PRAGMA wal_autocheckpoint = 4096; PRAGMA journal_size_limit = 16777216;
    PRAGMA busy_timeout = 200;
";
const SCHEMA: &str = "
    CREATE TABLE block (id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, first INTEGER NOT NULL,
        last INTEGER NOT NULL, at_ms INTEGER NOT NULL, odd INTEGER NOT NULL, records BLOB NOT NULL);
    CREATE UNIQUE INDEX block_place ON block (epoch, last);
    CREATE INDEX block_time ON block (at_ms);
    CREATE INDEX block_odd ON block (epoch, last) WHERE odd = 1;
";
const INSERT: &str = "INSERT OR REPLACE INTO block (epoch, first, last, at_ms, odd, records) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const AFTER: &str = "SELECT epoch, first, last, at_ms, odd, records FROM block
    WHERE (epoch, last) > (?1, ?2) ORDER BY epoch, last";
const UP_TO: &str = "SELECT epoch, first, last, at_ms, odd, records FROM block
    WHERE (epoch, first) <= (?1, ?2) ORDER BY epoch DESC, last DESC";
const UP_TO_ODD: &str = "SELECT epoch, first, last, at_ms, odd, records FROM block
    WHERE odd = 1 AND (epoch, first) <= (?1, ?2) ORDER BY epoch DESC, last DESC";
const SINCE: &str = "SELECT epoch, first FROM block WHERE at_ms >= ?1 ORDER BY at_ms, id LIMIT 1";
const GIVE_UP_OLD: &str = "DELETE FROM block WHERE id IN (
    SELECT id FROM block WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)";
const GIVE_UP_FIRST: &str = "DELETE FROM block WHERE id IN (
    SELECT id FROM block ORDER BY id LIMIT ?1)";

/// Gives pages back to the file system, so many in one round.
const VACUUM: &str = "PRAGMA incremental_vacuum(512)";

/// The log's file, as far as it can be used.
pub(super) struct Store {
    state_dir: PathBuf,
    epoch: Epoch,
    bounds: Bounds,
    connection: Option<Connection>,
    /// Whether the last attempt failed, so that it is told once.
    is_failing: bool,
}

/// Which blocks are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    All,
    /// Those with records that somebody may ask about: few, so that one sees far with them.
    Odd,
}

/// The log is of another release: use that, or set the file aside.
#[derive(Debug)]
pub struct UnknownFormat {
    /// The file.
    pub path: PathBuf,
    version: i64,
}

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, version) = (self.path.display(), self.version);
        write!(f, "{path} has format version {version}, this release knows {FORMAT_VERSION}")
    }
}

impl std::error::Error for UnknownFormat {}

/// Why the file cannot be used.
enum Trouble {
    Format(UnknownFormat),
    /// It makes no sense, or belongs to another journal.
    Useless(String),
    /// It, or the disk, is out of reach for now.
    Unreachable(String),
}

impl Store {
    /// Opens or makes the log of a state directory for the run of that epoch, and says how the run
    /// before ends in it. What cannot be opened now is tried again at each writing.
    pub fn open(
        state_dir: &Path,
        epoch: Epoch,
        bounds: Bounds,
    ) -> Result<(Store, Former), UnknownFormat> {
        let state_dir = state_dir.to_owned();
        let mut store = Store { state_dir, epoch, bounds, connection: None, is_failing: false };
        match store.try_open() {
            Ok(former) => return Ok((store, former)),
            Err(Trouble::Format(unknown)) => return Err(unknown),
            Err(Trouble::Useless(why)) => store.set_aside(&why),
            Err(Trouble::Unreachable(why)) => store.fail(&why),
        }
        Ok((store, Former::Unreadable))
    }

    /// Writes blocks, all or none; returns whether that was possible. Writing them again, after an
    /// error that came late, does no harm.
    pub fn write(&mut self, blocks: &[Arc<Block>]) -> bool {
        self.reopen();
        let written = self.attempt(|_, connection| {
            let transaction = connection.transaction()?;
            for block in blocks {
                let Block { epoch, first, last, at_ms, odd, records } = &**block;
                let places = [epoch, first, last, at_ms].map(|number| signed(*number));
                let [epoch, first, last, at_ms] = places;
                transaction.prepare_cached(INSERT)?.execute(params![
                    epoch,
                    first,
                    last,
                    at_ms,
                    odd,
                    records.written()
                ])?;
            }
            transaction.commit()
        });
        if written.is_some() && std::mem::take(&mut self.is_failing) {
            tracing::info!("the log is written again");
        }
        written.is_some()
    }

    /// Gives up what is too old or too much, a few steps at a time.
    pub fn trim(&mut self, now_ms: u64) {
        self.attempt(|store, connection| store.give_up(connection, now_ms));
    }

    /// Returns blocks that end after a place, oldest first, about as many bytes as asked for.
    pub fn after(&mut self, place: Cursor, bytes_max: usize) -> Vec<Arc<Block>> {
        self.attempt(|_, connection| select(connection, AFTER, place, bytes_max))
            .unwrap_or_default()
    }

    /// Returns blocks that begin before a place, newest first, about as many bytes as asked for.
    pub fn up_to(&mut self, place: Cursor, bytes_max: usize, kind: Kind) -> Vec<Arc<Block>> {
        let query = match kind {
            Kind::All => UP_TO,
            Kind::Odd => UP_TO_ODD,
        };
        self.attempt(|_, connection| select(connection, query, place, bytes_max))
            .unwrap_or_default()
    }

    /// Returns the place before the first block that goes up to a time.
    pub fn since(&mut self, at_ms: u64) -> Option<Cursor> {
        self.attempt(|_, connection| {
            let before = |row: &Row<'_>| {
                let (epoch, first): (i64, i64) = (row.get(0)?, row.get(1)?);
                Ok(Cursor { epoch: unsigned(epoch), number: unsigned(first).saturating_sub(1) })
            };
            connection.prepare_cached(SINCE)?.query_row([signed(at_ms)], before).optional()
        })?
    }

    /// Returns whether anything of that run is there.
    pub fn knows(&mut self, epoch: u64) -> bool {
        self.attempt(|_, connection| {
            let query = "SELECT EXISTS (SELECT 1 FROM block WHERE epoch = ?1)";
            connection.prepare_cached(query)?.query_row([signed(epoch)], |row| row.get(0))
        })
        .unwrap_or(false)
    }

    /// Does something with the file; what fails is told, and a useless file set aside.
    fn attempt<T>(
        &mut self,
        act: impl FnOnce(&Store, &mut Connection) -> rusqlite::Result<T>,
    ) -> Option<T> {
        let mut connection = self.connection.take()?;
        match act(self, &mut connection).map_err(|error| trouble(&error)) {
            Ok(done) => {
                self.connection = Some(connection);
                return Some(done);
            }
            Err(Trouble::Useless(why)) => {
                drop(connection);
                self.set_aside(&why);
            }
            Err(Trouble::Unreachable(why)) => {
                self.connection = Some(connection);
                self.fail(&why);
            }
            Err(Trouble::Format(_)) => {}
        }
        None
    }

    fn reopen(&mut self) {
        if self.connection.is_some() {
            return;
        }
        match self.try_open() {
            Ok(_) => {}
            Err(Trouble::Useless(why)) => self.set_aside(&why),
            Err(Trouble::Unreachable(why)) => self.fail(&why),
            Err(Trouble::Format(unknown)) => self.fail(&unknown.to_string()),
        }
    }

    fn fail(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(why, "the log cannot be written for now");
        }
    }

    fn give_up(&self, connection: &Connection, now_ms: u64) -> rusqlite::Result<()> {
        let pragma = |name| -> rusqlite::Result<u64> {
            let number: i64 = connection.pragma_query_value(None, name, |row| row.get(0))?;
            Ok(unsigned(number))
        };
        let page_bytes = pragma("page_size")?;
        let age_max = u64::try_from(self.bounds.age_max.as_millis()).unwrap_or(u64::MAX);
        let oldest_ms = signed(now_ms.saturating_sub(age_max));
        for _ in 0..STEPS_MAX {
            let used = pragma("page_count")?.saturating_sub(pragma("freelist_count")?) * page_bytes;
            let gone = match used > self.bounds.bytes_max {
                true => connection.prepare_cached(GIVE_UP_FIRST)?.execute([STEP_BLOCKS])?,
                false => connection
                    .prepare_cached(GIVE_UP_OLD)?
                    .execute(params![oldest_ms, STEP_BLOCKS])?,
            };
            if gone == 0 {
                break;
            }
        }
        if pragma("freelist_count")? > FREE_PAGES_MAX {
            // Each step gives one page back.
            let mut vacuum = connection.prepare_cached(VACUUM)?;
            let mut pages = vacuum.query(())?;
            while pages.next()?.is_some() {}
        }
        Ok(())
    }

    fn try_open(&mut self) -> Result<Former, Trouble> {
        let path = self.state_dir.join(LOG_NAME);
        make_private(&path).map_err(|error| Trouble::Unreachable(error.to_string()))?;
        let mut connection = Connection::open(&path).map_err(|error| trouble(&error))?;
        let prepared = prepare(&mut connection).map_err(|error| trouble(&error))?;
        if let Err(version) = prepared {
            return Err(Trouble::Format(UnknownFormat { path, version }));
        }
        let newest = Cursor { epoch: u64::MAX, number: u64::MAX };
        let newest = select(&connection, UP_TO, newest, 1).map_err(|error| trouble(&error))?;
        let former = self.former(newest.first().map(Arc::as_ref))?;
        self.connection = Some(connection);
        Ok(former)
    }

    /// Says how the run before ends, whose last block this is: one that was killed early may have left
    /// none.
    fn former(&self, newest: Option<&Block>) -> Result<Former, Trouble> {
        let Some(newest) = newest else {
            return Ok(if self.epoch.0 == 1 { Former::None } else { Former::Cut(Cursor::START) });
        };
        if newest.epoch >= self.epoch.0 {
            let why = format!("it knows of run {}, this is {}", newest.epoch, self.epoch.0);
            return Err(Trouble::Useless(why));
        }
        let records = newest.decode();
        let records =
            records.ok_or_else(|| Trouble::Useless("its last records make no sense".to_owned()))?;
        Ok(match records.last().map(|read| &read.entry.record.what) {
            Some(Happening::Stopped) => Former::Whole,
            _ => Former::Cut(newest.end()),
        })
    }

    /// Puts a log out of the way, and begins a new one.
    fn set_aside(&mut self, why: &str) {
        self.connection = None;
        let aside = self.state_dir.join(ASIDE_NAME);
        for suffix in ["", "-wal", "-shm"] {
            let from = self.state_dir.join(format!("{LOG_NAME}{suffix}"));
            let to = self.state_dir.join(format!("{ASIDE_NAME}{suffix}"));
            match std::fs::rename(&from, &to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return self.fail(&format!("{why}; and it cannot be set aside: {error}"));
                }
                _ => {}
            }
        }
        tracing::error!(why, aside = %aside.display(), "the log is useless and was set aside");
        if let Err(Trouble::Useless(why) | Trouble::Unreachable(why)) = self.try_open() {
            self.fail(&why);
        }
    }
}

/// Checks the format, or makes it; the inner error is an unknown version.
fn prepare(connection: &mut Connection) -> rusqlite::Result<Result<(), i64>> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    if (version, tables) != (0, 0) && version != FORMAT_VERSION {
        return Ok(Err(version));
    }
    connection.execute_batch(PRAGMAS)?;
    if tables == 0 {
        let make = connection.transaction()?;
        make.execute_batch(SCHEMA)?;
        make.pragma_update(None, "user_version", FORMAT_VERSION)?;
        make.commit()?;
    }
    Ok(Ok(()))
}

fn select(
    connection: &Connection,
    query: &str,
    place: Cursor,
    bytes_max: usize,
) -> rusqlite::Result<Vec<Arc<Block>>> {
    let mut select = connection.prepare_cached(query)?;
    let mut rows = select.query([signed(place.epoch), signed(place.number)])?;
    let mut blocks = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let block = block_of(row)?;
        bytes += block.records.told.len();
        blocks.push(Arc::new(block));
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(blocks)
}

fn block_of(row: &Row<'_>) -> rusqlite::Result<Block> {
    let number = |column| row.get(column).map(unsigned);
    let (epoch, first, last, at_ms) = (number(0)?, number(1)?, number(2)?, number(3)?);
    if first == 0 || last < first {
        return Err(rusqlite::Error::IntegralValueOutOfRange(2, signed(last)));
    }
    let (odd, records) = (row.get(4)?, Records::read(row.get(5)?));
    Ok(Block { epoch, first, last, at_ms, odd, records })
}

/// Tells a file that makes no sense from one that cannot be reached.
fn trouble(error: &rusqlite::Error) -> Trouble {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Trouble::Useless(error.to_string())
        }
        // A file without our tables, or with other types in them, is none of ours.
        None | Some(ErrorCode::Unknown) => Trouble::Useless(error.to_string()),
        Some(_) => Trouble::Unreachable(error.to_string()),
    }
}

/// Makes the file, if it is not there, for this user alone; what SQLite puts beside it has the
/// same mode.
fn make_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// SQLite's numbers are signed; ours rise from 1, and times are far from its bound.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
