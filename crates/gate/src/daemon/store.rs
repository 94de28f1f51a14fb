//! What is configured, in SQLite: one row for each mount.
//!
//! How a mount is, is not written down: that is looked at, and so is true also after a crash. Only that
//! somebody stopped a mount which would come up by itself is remembered until the machine is started
//! anew, or the daemon ended in order.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, Row, params};
use uuid::Uuid;

/// The name of the file in the state directory.
const NAME: &str = "mounts.sqlite";
/// The name under which it is made.
const NAME_NEW: &str = "mounts.sqlite.new";
/// Its mode.
const PRIVATE: u32 = 0o600;

const PRAGMAS: &str = "
    PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 2000;
";

/// What makes each version of the tables out of the one before. Only ever added to.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE mount (
        id TEXT PRIMARY KEY,
        source BLOB NOT NULL,
        mount_point BLOB NOT NULL UNIQUE,
        enabled INTEGER NOT NULL,
        auto_mount INTEGER NOT NULL,
        read_only INTEGER NOT NULL,
        allow_other INTEGER NOT NULL,
        cache_size_mb INTEGER NOT NULL,
        cache_ttl_secs INTEGER NOT NULL,
        stopped_in_boot INTEGER,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL
    ) STRICT;
",
    "ALTER TABLE mount ADD COLUMN bucket TEXT;",
];

const COLUMNS: &str = "id, source, mount_point, enabled, auto_mount, read_only, allow_other,
    cache_size_mb, cache_ttl_secs, stopped_in_boot, created_at, updated_at, bucket";

/// The file.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

/// One configured mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: Uuid,
    /// The directory behind the view, or what the bucket is called.
    pub source: PathBuf,
    /// The bucket behind the view, if it is one.
    pub bucket: Option<Uuid>,
    /// Where it is shown.
    pub point: PathBuf,
    pub settings: Settings,
    /// In which run of the machine somebody stopped it.
    pub stopped_in_boot: Option<u64>,
    pub created_at: String,
    pub updated_at: String,
}

/// How it is to be shown, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether it may be started at all.
    pub enabled: bool,
    /// Whether it comes up with the daemon, and comes back when it died.
    pub auto_mount: bool,
    /// Whether all changes are refused.
    pub read_only: bool,
    /// Whether other users are let in.
    pub allow_other: bool,
    /// How much of a bucket is kept in memory.
    pub cache_size_mb: u32,
    /// How long.
    pub cache_ttl_secs: u32,
}

/// Why nothing can be read or written.
#[derive(Debug)]
pub enum StoreError {
    /// Another release wrote it: use that, or set the file aside.
    Version { path: PathBuf, found: i64 },
    /// It makes no sense: set it aside.
    Corrupt { path: PathBuf, error: String },
    /// The disk is full.
    Full,
    /// Another process has it locked: end that one.
    Locked,
    /// The mount point is another mount's.
    Taken,
    /// The file system says no.
    Failed(String),
}

impl Store {
    /// Opens the file of a state directory, or makes it.
    pub fn open(state_dir: &Path) -> Result<Store, StoreError> {
        let path = state_dir.join(NAME);
        match fs::metadata(&path) {
            // To SQLite that is a new list; but what is made here has its tables when it gets its name.
            Ok(metadata) if metadata.len() == 0 => {
                return Err(StoreError::Corrupt { path, error: "it is empty".to_owned() });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => Store::make(state_dir)?,
            Err(error) => return Err(StoreError::Failed(error.to_string())),
        }
        Store::open_file(path)
    }

    /// Makes the file under another name, with its tables, and gives it its own.
    fn make(state_dir: &Path) -> Result<(), StoreError> {
        let failed = |error: io::Error| StoreError::Failed(error.to_string());
        let path = state_dir.join(NAME_NEW);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(PRIVATE);
        options.open(&path).map_err(failed)?;
        // Closed, it is one file.
        let made = Store::open_file(path.clone())?;
        made.connection.close().map_err(|(_, error)| StoreError::of_opening(&error, &path))?;
        // What SQLite kept beside a file that somebody has set aside is nothing of this one.
        for end in ["-wal", "-shm"] {
            match fs::remove_file(state_dir.join(format!("{NAME}{end}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        fs::rename(&path, state_dir.join(NAME)).map_err(failed)?;
        File::open(state_dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }

    fn open_file(path: PathBuf) -> Result<Store, StoreError> {
        let unreadable = |error: rusqlite::Error| StoreError::of_opening(&error, &path);
        let mut connection = Connection::open(&path).map_err(unreadable)?;
        connection.execute_batch(PRAGMAS).map_err(unreadable)?;
        let found: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(unreadable)?;
        let done = usize::try_from(found).ok().filter(|done| *done <= MIGRATIONS.len());
        let Some(done) = done else { return Err(StoreError::Version { path, found }) };
        for (version, migration) in (1..).zip(MIGRATIONS).skip(done) {
            let step = connection.transaction().map_err(unreadable)?;
            step.execute_batch(migration)
                .and_then(|()| step.pragma_update(None, "user_version", version))
                .and_then(|()| step.commit())
                .map_err(unreadable)?;
        }
        Ok(Store { connection })
    }

    /// Returns all, the oldest first.
    pub fn all(&self) -> Result<Vec<Record>, StoreError> {
        let text = format!("SELECT {COLUMNS} FROM mount ORDER BY created_at, id");
        let mut query = self.connection.prepare(&text)?;
        let records = query.query_map([], record_of)?;
        Ok(records.collect::<rusqlite::Result<_>>()?)
    }

    /// Writes down a mount, new or changed.
    pub fn put(&self, record: &Record) -> Result<(), StoreError> {
        let text = format!(
            "INSERT INTO mount ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (id) DO UPDATE SET
                source = ?2, mount_point = ?3, enabled = ?4, auto_mount = ?5, read_only = ?6,
                allow_other = ?7, cache_size_mb = ?8, cache_ttl_secs = ?9, stopped_in_boot = ?10,
                updated_at = ?12"
        );
        let Settings { enabled, auto_mount, read_only, allow_other, .. } = record.settings;
        let Settings { cache_size_mb, cache_ttl_secs, .. } = record.settings;
        self.connection.execute(
            &text,
            params![
                record.id.to_string(),
                record.source.as_os_str().as_bytes(),
                record.point.as_os_str().as_bytes(),
                enabled,
                auto_mount,
                read_only,
                allow_other,
                cache_size_mb,
                cache_ttl_secs,
                record.stopped_in_boot.map(u64::cast_signed),
                record.created_at,
                record.updated_at,
                record.bucket.map(|bucket| bucket.to_string()),
            ],
        )?;
        Ok(())
    }

    /// Forgets a mount.
    pub fn remove(&self, id: Uuid) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM mount WHERE id = ?1", [id.to_string()])?;
        Ok(())
    }

    /// Forgets what somebody stopped.
    pub fn forget_stops(&self) -> Result<(), StoreError> {
        self.connection.execute("UPDATE mount SET stopped_in_boot = NULL", [])?;
        Ok(())
    }
}

fn record_of(row: &Row<'_>) -> rusqlite::Result<Record> {
    let id: String = row.get(0)?;
    let path = |index| row.get::<_, Vec<u8>>(index).map(|bytes| OsString::from_vec(bytes).into());
    let uuid = |index, text: &str| {
        Uuid::parse_str(text).map_err(|error| {
            let kind = rusqlite::types::Type::Text;
            rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(error))
        })
    };
    let bucket: Option<String> = row.get(12)?;
    let id = uuid(0, &id)?;
    Ok(Record {
        id,
        source: path(1)?,
        bucket: bucket.map(|bucket| uuid(12, &bucket)).transpose()?,
        point: path(2)?,
        settings: Settings {
            enabled: row.get(3)?,
            auto_mount: row.get(4)?,
            read_only: row.get(5)?,
            allow_other: row.get(6)?,
            cache_size_mb: row.get(7)?,
            cache_ttl_secs: row.get(8)?,
        },
        stopped_in_boot: row.get::<_, Option<i64>>(9)?.map(i64::cast_unsigned),
        created_at: row.get(10)?,
        updated_at: row.get(11)?,
    })
}

impl StoreError {
    fn of_opening(error: &rusqlite::Error, path: &Path) -> StoreError {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                StoreError::Corrupt { path: path.to_owned(), error: error.to_string() }
            }
            _ => StoreError::of(error),
        }
    }

    fn of(error: &rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked,
            Some(ErrorCode::ConstraintViolation) => StoreError::Taken,
            _ => StoreError::Failed(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        StoreError::of(&error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Version { path, found } => {
                let (path, known) = (path.display(), MIGRATIONS.len());
                write!(f, "{path} has version {found}, this release knows those up to {known}")
            }
            StoreError::Corrupt { path, error } => {
                write!(f, "{} cannot be read: {error}", path.display())
            }
            StoreError::Full => f.write_str("the disk of the state directory is full"),
            StoreError::Locked => f.write_str("another process has the list of mounts locked"),
            StoreError::Taken => f.write_str("another mount is configured there"),
            StoreError::Failed(error) => write!(f, "the list of mounts cannot be used: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(point: &str) -> Record {
        Record {
            id: Uuid::new_v4(),
            source: OsString::from_vec(b"/s/\xff".to_vec()).into(),
            bucket: Some(Uuid::new_v4()),
            point: point.into(),
            settings: Settings {
                enabled: true,
                auto_mount: false,
                read_only: true,
                allow_other: false,
                cache_size_mb: 100,
                cache_ttl_secs: 60,
            },
            stopped_in_boot: Some(u64::MAX),
            created_at: "2026-01-02T03:04:05Z".to_owned(),
            updated_at: "2026-01-02T03:04:05Z".to_owned(),
        }
    }

    #[test]
    fn what_is_configured_is_there_when_it_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = record("/m/1");
        let store = Store::open(dir.path()).unwrap();
        store.put(&one).unwrap();
        one.settings.auto_mount = true;
        one.stopped_in_boot = None;
        store.put(&one).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.all().unwrap(), [one.clone()]);
        store.remove(one.id).unwrap();
        assert_eq!(store.all().unwrap(), []);
    }

    #[test]
    fn a_list_that_was_not_made_to_its_end_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME_NEW), "").unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.all().unwrap(), []);
        drop(store);
        let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), [NAME], "nothing else is left");
    }

    #[test]
    fn nothing_of_a_list_that_was_set_aside_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.put(&record("/m/1")).unwrap();
        assert!(dir.path().join(format!("{NAME}-wal")).exists(), "as after a crash");
        fs::rename(dir.path().join(NAME), dir.path().join("aside")).unwrap();
        let next = Store::open(dir.path()).unwrap();
        assert_eq!(next.all().unwrap(), []);
    }

    #[test]
    fn one_mount_point_has_one_mount() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut two = [record("/m/1"), record("/m/2")];
        two.iter().for_each(|record| store.put(record).unwrap());
        assert!(matches!(store.put(&record("/m/1")), Err(StoreError::Taken)));
        two[1].point = "/m/1".into();
        assert!(matches!(store.put(&two[1]), Err(StoreError::Taken)));
        assert_eq!(store.all().unwrap().len(), 2);
    }

    #[test]
    fn stops_are_remembered_until_they_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.put(&record("/m/1")).unwrap();
        assert_eq!(store.all().unwrap()[0].stopped_in_boot, Some(u64::MAX));
        store.forget_stops().unwrap();
        assert_eq!(store.all().unwrap()[0].stopped_in_boot, None);
    }

    #[test]
    fn n16_an_unknown_version_of_the_list_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        let file = Connection::open(dir.path().join(NAME)).unwrap();
        file.pragma_update(None, "user_version", 99).unwrap();
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(NAME) && error.contains("version 99"), "{error}");
        file.pragma_update(None, "user_version", -1).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Version { found: -1, .. })));
    }

    #[test]
    fn a_file_that_makes_no_sense_and_one_that_is_locked_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "SQLite? ".repeat(1000)).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Corrupt { .. })));
        std::fs::write(dir.path().join(NAME), "").unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Corrupt { .. })), "empty");
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let other = Connection::open(dir.path().join(NAME)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(matches!(store.put(&record("/m/1")), Err(StoreError::Locked)));
    }
}
