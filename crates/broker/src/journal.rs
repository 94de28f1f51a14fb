//! The broker's memory: what must outlive it, in SQLite.
//!
//! A row holds a thing as it stands, not its story: claims by ticket, sessions, spaces. A batch is
//! one transaction in write-ahead mode: it survives the death of the process as soon as it is
//! committed, that of the machine once it is synced. The run's epoch is synced before anything
//! else is written (N4); if the machine went down since, the tail may be missing, and the boot id
//! tells: it is that of the last run that knew all there was to know. That somebody may hold
//! something who is elsewhere, and outlives the machine, is synced as well, with the longest lease
//! of such clients, in milliseconds; 0 is nobody.
//!
//! Checkpoints are made by a thread of their own, so that no grant waits for a disk.
//!
//! The file is this process's alone as long as it is open: SQLite locks it once instead of with
//! each commit, and keeps the index of the write-ahead log in memory.

mod checkpoint;
#[cfg(test)]
mod probe;
mod rows;
#[cfg(test)]
mod tests;

use std::ffi::CStr;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gate_core::id::{Epoch, SessionId, SpaceId, Ticket};
use gate_core::lock::event::Standstill;
use gate_core::lock::table::Record;
use gate_core::time::Time;
use rusqlite::{Connection, OpenFlags, params};
use rustc_hash::FxHashSet;

use crate::sessions::Client;
use crate::spaces::Space;
use checkpoint::{Checkpointer, LOG_PAGES_MAX};

/// The name of the journal in the state directory.
pub(crate) const JOURNAL_NAME: &str = "journal.sqlite";
/// Its mode: it holds the keys of sessions.
const PRIVATE: u32 = 0o600;
/// The version of what the rows hold, and the one before it, which is read, too.
const FORMAT_VERSION: i64 = 4;
const FORMER_VERSION: i64 = 3;
/// SQLite's access to files that no other process is to open.
const ALONE: &CStr = c"unix-excl";
/// Bytes of a page: each commit writes at least one, and a row has some 200.
const PAGE_BYTES: i64 = 1024;
/// Transactions after which the write-ahead log is folded into the file.
const CHECKPOINT_COMMITS: u32 = 1_000;

const SCHEMA: &str = "
    CREATE TABLE run (only INTEGER PRIMARY KEY CHECK (only = 0), epoch INTEGER NOT NULL, boot TEXT NOT NULL, elsewhere INTEGER NOT NULL);
    CREATE TABLE claim (id INTEGER PRIMARY KEY, row BLOB NOT NULL);
    CREATE TABLE session (id INTEGER PRIMARY KEY, row BLOB NOT NULL);
    CREATE TABLE space (id INTEGER PRIMARY KEY, row BLOB NOT NULL);
    INSERT INTO run VALUES (0, 0, '', 0);
";

/// An open journal.
pub(crate) struct Journal {
    connection: Connection,
    /// The boot of this run.
    boot: String,
    /// The longest lease, in milliseconds, of clients that it may still have to do with and that
    /// outlive the machine, as is synced; 0 if there is none.
    elsewhere_ms: i64,
    /// The tickets that have a row: most claims come and go between two commits.
    stored: FxHashSet<Ticket>,
    commits: u32,
    checkpointer: Checkpointer,
}

/// What a former run left.
pub(crate) struct Memory {
    /// The run that begins.
    pub epoch: Epoch,
    pub loss: Loss,
    /// The longest lease of clients that the run may have lost and that may come back.
    pub lease_lost: Duration,
    pub claims: Vec<(Ticket, Record)>,
    pub sessions: Vec<(SessionId, Client)>,
    pub spaces: Vec<(SpaceId, Space)>,
}

/// What went down with the former run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Its process at most: all that was granted is known.
    Nothing,
    /// The machine: the last of what was granted may be missing, and clients elsewhere know of it.
    Tail,
    /// The machine, and all clients with it: nobody comes back.
    Clients,
}

/// One thing as it now stands: `None` if it is gone.
pub(crate) enum Entry<'a> {
    Claim(Ticket, Option<Record>),
    Session(SessionId, Option<&'a Client>),
    Space(SpaceId, Option<&'a Space>),
    /// What a former run may have lost is known by now, or nobody's any more.
    Complete,
    /// A client with this lease may hold something that does not go down with this machine.
    Elsewhere(Duration),
    /// Nothing; but whether anything can be written.
    Trial,
}

/// Why a journal cannot be used.
#[derive(Debug)]
pub enum JournalError {
    /// It was written by another release (N16): use that, or set the file aside.
    Version(PathBuf, i64),
    /// It cannot be read: set the file aside, and with it what was held.
    Corrupt(PathBuf, String),
    /// It cannot be written: make room or mend the permissions.
    Unwritable(PathBuf, String),
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Version(path, version) => write!(
                f,
                "{} has format version {version}, this release knows {FORMAT_VERSION}; use the \
                 release that wrote it, or move the file away",
                path.display()
            ),
            JournalError::Corrupt(path, why) => write!(
                f,
                "{0} cannot be read: {why}; move it and {0}-wal away to start without what was held",
                path.display()
            ),
            JournalError::Unwritable(path, why) => {
                write!(f, "{} cannot be written: {why}", path.display())
            }
        }
    }
}

impl std::error::Error for JournalError {}

impl Journal {
    /// Opens or makes the journal of a state directory and begins a new run in it.
    pub fn open(
        state_dir: &Path,
        boot: &str,
        now: Time,
    ) -> Result<(Journal, Memory), JournalError> {
        let path = state_dir.join(JOURNAL_NAME);
        make_private(&path)?;
        let connection = open_alone(&path).map_err(|error| trouble(&path, &error))?;
        let mut journal = Journal {
            connection,
            boot: boot.to_owned(),
            elsewhere_ms: 0,
            stored: FxHashSet::default(),
            commits: 0,
            checkpointer: Checkpointer::new(path.clone()),
        };
        let memory = journal.begin(&path, now)?;
        journal.stored = memory.claims.iter().map(|(ticket, _)| *ticket).collect();
        Ok((journal, memory))
    }

    fn begin(&mut self, path: &Path, now: Time) -> Result<Memory, JournalError> {
        let trouble = |error: rusqlite::Error| trouble(path, &error);
        self.prepare(path)?;
        let (former, former_boot, elsewhere_ms) = self
            .connection
            .query_row("SELECT epoch, boot, elsewhere FROM run", (), |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
            })
            .map_err(trouble)?;
        let epoch = former + 1;
        let corrupt = |why: &str| JournalError::Corrupt(path.to_owned(), why.to_owned());
        let mut memory = Memory {
            epoch: Epoch(u64::try_from(epoch).map_err(|_| corrupt("a negative epoch"))?),
            loss: match former > 0 && former_boot != self.boot {
                false => Loss::Nothing,
                true if elsewhere_ms > 0 => Loss::Tail,
                true => Loss::Clients,
            },
            lease_lost: Duration::from_millis(elsewhere_ms.unsigned_abs()),
            claims: self
                .load(&CLAIM, path, |id, row| Some((Ticket(id), rows::decode_claim(row)?)))?,
            sessions: self.load(&SESSION, path, |id, row| {
                Some((SessionId(id), rows::decode_session(row)?))
            })?,
            spaces: self.load(&SPACE, path, |id, row| {
                Some((SpaceId(u32::try_from(id).ok()?), rows::decode_space(row)?))
            })?,
        };
        let unwritable =
            |error: rusqlite::Error| JournalError::Unwritable(path.to_owned(), error.to_string());
        let boot = if memory.loss == Loss::Nothing { &self.boot } else { &former_boot };
        // Where all are remembered, nobody else is expected.
        self.elsewhere_ms = match memory.loss {
            Loss::Tail => elsewhere_ms,
            Loss::Nothing | Loss::Clients => {
                let leases =
                    memory.sessions.iter().filter_map(|(_, client)| client.lease_elsewhere());
                leases.map(noted_ms).max().unwrap_or(0)
            }
        };
        let begun = Transaction::begin(&self.connection).and_then(|begin| {
            if memory.loss != Loss::Nothing {
                // Instants of another boot mean nothing in this one, and its boot is forgotten some day.
                for (ticket, record) in &mut memory.claims {
                    if let Record::Held { since, .. } = record {
                        *since = now;
                        let entry = Entry::Claim(*ticket, Some(record.clone()));
                        write(&self.connection, &entry, &self.stored, &self.boot)?;
                    }
                }
            }
            self.connection.execute(
                "UPDATE run SET epoch = ?1, boot = ?2, elsewhere = ?3",
                params![epoch, boot, self.elsewhere_ms],
            )?;
            begin.commit()
        });
        begun.map_err(unwritable)?;
        self.connection.pragma_update(None, "synchronous", "NORMAL").map_err(unwritable)?;
        Ok(memory)
    }

    /// Checks the format, or makes it.
    fn prepare(&mut self, path: &Path) -> Result<(), JournalError> {
        let trouble = |error: rusqlite::Error| trouble(path, &error);
        let version: i64 = self
            .connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(trouble)?;
        let tables: i64 = self
            .connection
            .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
            .map_err(trouble)?;
        let is_known = [FORMAT_VERSION, FORMER_VERSION].contains(&version);
        if (version, tables) != (0, 0) && !is_known {
            return Err(JournalError::Version(path.to_owned(), version));
        }
        // Everything until the epoch is written is synced.
        self.connection
            .execute_batch(&format!(
                "PRAGMA page_size = {PAGE_BYTES};
                 PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 PRAGMA wal_autocheckpoint = 0; PRAGMA busy_timeout = 200;
                 PRAGMA journal_size_limit = {};",
                LOG_PAGES_MAX * PAGE_BYTES
            ))
            .map_err(trouble)?;
        if tables == 0 {
            let made = Transaction::begin(&self.connection).and_then(|make| {
                self.connection.execute_batch(SCHEMA)?;
                self.connection.pragma_update(None, "user_version", FORMAT_VERSION)?;
                make.commit()
            });
            made.map_err(|e| JournalError::Unwritable(path.to_owned(), e.to_string()))?;
        } else if version == FORMER_VERSION {
            // What is written from now on the release before cannot read.
            self.connection
                .pragma_update(None, "user_version", FORMAT_VERSION)
                .map_err(|e| JournalError::Unwritable(path.to_owned(), e.to_string()))?;
        }
        Ok(())
    }

    fn load<T>(
        &self,
        table: &Table,
        path: &Path,
        decode: impl Fn(u64, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, JournalError> {
        let trouble = |error: rusqlite::Error| trouble(path, &error);
        let mut select = self.connection.prepare(table.select).map_err(trouble)?;
        let mut rows = select.query(()).map_err(trouble)?;
        let mut loaded = Vec::new();
        while let Some(row) = rows.next().map_err(trouble)? {
            let id: i64 = row.get(0).map_err(trouble)?;
            let bytes = row.get_ref(1).map_err(trouble)?;
            let bytes = bytes.as_blob().unwrap_or_default();
            let decoded = u64::try_from(id).ok().and_then(|id| decode(id, bytes));
            loaded.push(decoded.ok_or_else(|| {
                let why = format!("{} {id} makes no sense", table.name);
                JournalError::Corrupt(path.to_owned(), why)
            })?);
        }
        Ok(loaded)
    }

    /// Writes a batch, all or nothing. Only then may anybody be told of it (N3).
    pub fn commit<'a>(
        &mut self,
        entries: impl Iterator<Item = Entry<'a>>,
    ) -> Result<(), rusqlite::Error> {
        let written = self.write_all(entries);
        if written.is_err() {
            // What is folded leaves room in the log, which the disk may not have.
            self.checkpointer.fall_behind();
        }
        written
    }

    fn write_all<'a>(
        &mut self,
        entries: impl Iterator<Item = Entry<'a>>,
    ) -> Result<(), rusqlite::Error> {
        let mut touched = Vec::new();
        let mut elsewhere_ms = 0;
        self.checkpointer.catch_up(&self.connection);
        let transaction = Transaction::begin(&self.connection)?;
        for entry in entries {
            write(&self.connection, &entry, &self.stored, &self.boot)?;
            match entry {
                Entry::Claim(ticket, record) => touched.push((ticket, record.is_some())),
                Entry::Elsewhere(lease) => elsewhere_ms = elsewhere_ms.max(noted_ms(lease)),
                Entry::Session(..) | Entry::Space(..) | Entry::Complete | Entry::Trial => {}
            }
        }
        transaction.commit()?;
        for (ticket, stands) in touched {
            if stands {
                self.stored.insert(ticket)
            } else {
                self.stored.remove(&ticket)
            };
        }
        self.commits += 1;
        if self.commits >= CHECKPOINT_COMMITS {
            self.commits = 0;
            self.checkpointer.request();
        }
        self.note_elsewhere(elsewhere_ms)
    }

    /// Syncs, once for each lease that is longer than all before, that somebody may hold something
    /// who outlives the machine: should its session be lost with the tail, it is waited for all the
    /// same.
    fn note_elsewhere(&mut self, lease_ms: i64) -> Result<(), rusqlite::Error> {
        if lease_ms > self.elsewhere_ms {
            self.connection.pragma_update(None, "synchronous", "FULL")?;
            let noted = self.connection.execute("UPDATE run SET elsewhere = ?1", [lease_ms]);
            self.connection.pragma_update(None, "synchronous", "NORMAL")?;
            noted?;
            self.elsewhere_ms = lease_ms;
        }
        Ok(())
    }
}

/// All or nothing of what is written meanwhile. It does what rusqlite's does, with statements that
/// are parsed once.
struct Transaction<'a>(&'a Connection);

impl Transaction<'_> {
    fn begin(connection: &Connection) -> Result<Transaction<'_>, rusqlite::Error> {
        run(connection, "BEGIN")?;
        Ok(Transaction(connection))
    }

    fn commit(self) -> Result<(), rusqlite::Error> {
        run(self.0, "COMMIT")
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // Where nothing is open any more there is nothing to undo.
        if !self.0.is_autocommit()
            && let Err(error) = run(self.0, "ROLLBACK")
        {
            tracing::error!(%error, "a batch of the journal could not be taken back");
        }
    }
}

fn run(connection: &Connection, statement: &str) -> Result<(), rusqlite::Error> {
    connection.prepare_cached(statement)?.execute(()).map(drop)
}

/// Returns a lease as it is noted: no shorter, and never nobody's.
fn noted_ms(lease: Duration) -> i64 {
    i64::try_from(lease.as_millis()).unwrap_or(i64::MAX).saturating_add(1)
}

fn write(
    connection: &Connection,
    entry: &Entry<'_>,
    stored: &FxHashSet<Ticket>,
    boot: &str,
) -> Result<(), rusqlite::Error> {
    let (table, id, row) = match entry {
        Entry::Claim(ticket, None) if !stored.contains(ticket) => return Ok(()),
        Entry::Claim(ticket, record) => (&CLAIM, ticket.0, record.as_ref().map(rows::encode_claim)),
        Entry::Session(id, client) => (&SESSION, id.0, client.map(rows::encode_session)),
        Entry::Space(id, space) => (&SPACE, u64::from(id.0), space.map(rows::encode_space)),
        Entry::Complete => {
            return connection.execute("UPDATE run SET boot = ?1", [boot]).map(drop);
        }
        Entry::Elsewhere(_) => return Ok(()),
        Entry::Trial => return connection.execute("UPDATE run SET only = only", ()).map(drop),
    };
    let id = i64::try_from(id).expect("ids rise from 1, one by one");
    match row {
        Some(row) => connection.prepare_cached(table.put)?.execute(params![id, row])?,
        None => connection.prepare_cached(table.delete)?.execute(params![id])?,
    };
    Ok(())
}

/// The statements of one kind of row.
struct Table {
    name: &'static str,
    select: &'static str,
    put: &'static str,
    delete: &'static str,
}

const CLAIM: Table = Table {
    name: "claim",
    select: "SELECT id, row FROM claim",
    put: "INSERT OR REPLACE INTO claim (id, row) VALUES (?1, ?2)",
    delete: "DELETE FROM claim WHERE id = ?1",
};
const SESSION: Table = Table {
    name: "session",
    select: "SELECT id, row FROM session",
    put: "INSERT OR REPLACE INTO session (id, row) VALUES (?1, ?2)",
    delete: "DELETE FROM session WHERE id = ?1",
};
const SPACE: Table = Table {
    name: "space",
    select: "SELECT id, row FROM space",
    put: "INSERT OR REPLACE INTO space (id, row) VALUES (?1, ?2)",
    delete: "DELETE FROM space WHERE id = ?1",
};

/// Tells a file that makes no sense from one that cannot be reached.
fn trouble(path: &Path, error: &rusqlite::Error) -> JournalError {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure,
    };
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(
            CannotOpen | DatabaseBusy | DiskFull | PermissionDenied | ReadOnly | SystemIoFailure,
        ) => JournalError::Unwritable(path, error.to_string()),
        _ => JournalError::Corrupt(path, error.to_string()),
    }
}

/// Returns what whoever waits for a batch is told that cannot be written.
pub(crate) fn standstill(error: &rusqlite::Error) -> Standstill {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Standstill::NoRoom,
        _ => Standstill::Fault,
    }
}

/// Makes the file, if it is not there, for this user alone; what SQLite puts beside it has the
/// same mode.
fn make_private(path: &Path) -> Result<(), JournalError> {
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(JournalError::Unwritable(path.to_owned(), error.to_string()))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Opens the file, which several connections of this process may.
fn open_alone(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags_and_vfs(path, flags, ALONE)
}

/// Reads bytes as each kind of row; what makes sense is written as it was read.
#[cfg(fuzzing)]
pub(crate) fn read_any(bytes: &[u8]) {
    if let Some(record) = rows::decode_claim(bytes) {
        assert_eq!(rows::decode_claim(&rows::encode_claim(&record)), Some(record));
    }
    if let Some(client) = rows::decode_session(bytes) {
        let row = rows::encode_session(&client);
        assert!(
            rows::decode_session(&row).is_some_and(|again| rows::encode_session(&again) == row)
        );
    }
    if let Some(space) = rows::decode_space(bytes) {
        let row = rows::encode_space(&space);
        assert!(rows::decode_space(&row).is_some_and(|again| rows::encode_space(&again) == row));
    }
}
