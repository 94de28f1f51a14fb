//! What is written down of a version.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The version of its text that this release knows (N16).
const FORMAT: u32 = 1;

/// What the guard did once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    /// What was overwritten: a path from the source's root.
    #[serde(with = "crate::written")]
    pub path: PathBuf,
    /// When: milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// Who overwrote it.
    pub agent: String,
    /// By which operation.
    pub op: String,
    /// What became of its bytes.
    pub outcome: Outcome,
    /// What it was like.
    pub file: Facts,
}

/// What became of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// They are in the store.
    Kept,
    /// They were overwritten: there were more than may be kept.
    TooLarge,
    /// They were overwritten: they could not be kept.
    Failed(String),
    /// They were not overwritten: that was refused.
    Refused,
}

/// What a file was like, apart from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// How many bytes it had.
    pub size: u64,
    /// Its permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was last written: seconds since 1970, UTC.
    pub modified_s: i64,
    /// And nanoseconds.
    pub modified_ns: u32,
    /// How many names it had.
    pub links: u32,
}

impl Record {
    /// Begins a record of now.
    pub fn new(path: PathBuf, (agent, op): (&str, &str), file: Facts) -> Record {
        Record {
            format: FORMAT,
            path,
            at_ms: super::now_ms(),
            agent: agent.to_owned(),
            op: op.to_owned(),
            outcome: Outcome::Kept,
            file,
        }
    }

    /// Says what became of the bytes.
    pub fn with(self, outcome: Outcome) -> Record {
        Record { outcome, ..self }
    }

    pub(super) fn read(path: &Path) -> io::Result<Record> {
        Record::parse(&fs::read(path)?)
    }

    fn parse(text: &[u8]) -> io::Result<Record> {
        #[derive(Deserialize)]
        struct Formatted {
            format: u32,
        }
        let Formatted { format } = serde_json::from_slice(text)?;
        if format != FORMAT {
            let text = format!("it is of format {format}, this release knows {FORMAT}");
            return Err(io::Error::new(ErrorKind::Unsupported, text));
        }
        Ok(serde_json::from_slice(text)?)
    }
}

impl Facts {
    /// Finds out what an open file is like; `O_PATH` will do.
    pub fn of(file: &OwnedFd) -> io::Result<Facts> {
        let stat = rustix::fs::fstat(file)?;
        Ok(Facts {
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            modified_s: stat.st_mtime,
            modified_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_n16_an_unknown_format_is_not_guessed_at() {
        let file = Facts::of(&fs::File::open("/proc/self/exe").unwrap().into()).unwrap();
        let name = PathBuf::from(OsString::from_vec(b"d/\xff".to_vec()));
        let record = Record::new(name, ("ada", "open"), file).with(Outcome::Failed("x".into()));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(Record::parse(text.as_bytes()).unwrap(), record);
        let newer = text.replace("\"format\":1", "\"format\":2");
        assert_eq!(Record::parse(newer.as_bytes()).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
