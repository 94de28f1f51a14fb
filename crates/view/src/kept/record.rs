//! What is written down of a version.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gate_api::process;
use gate_api::session::Moment;
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
    /// And by a clock that nobody sets; records of earlier releases do not say.
    #[serde(default)]
    in_run: Option<InRun>,
    /// Who overwrote it.
    pub agent: String,
    /// By which operation.
    pub op: String,
    /// What became of its bytes.
    pub outcome: Outcome,
    /// What it was like.
    pub file: Facts,
}

/// A time in one run of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct InRun {
    boot: u64,
    ms: u64,
}

/// A time by two clocks: one that may be set, and one that ends with the run of the machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    at_ms: u64,
    in_run: Option<InRun>,
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
        let When { at_ms, in_run } = When::now();
        Record {
            format: FORMAT,
            path,
            at_ms,
            in_run,
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

    pub(super) fn when(&self) -> When {
        When { at_ms: self.at_ms, in_run: self.in_run }
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

impl When {
    pub fn now() -> When {
        let since_boot = u64::try_from(Moment::now().0.as_millis()).unwrap_or(u64::MAX);
        let in_run = Some(InRun { boot: process::machine(), ms: since_boot });
        When { at_ms: super::now_ms(), in_run }
    }

    /// Returns how many milliseconds ago that was, whatever happened to the time of day in this run
    /// of the machine.
    pub fn age_ms(self, now: When) -> u64 {
        match (self.in_run, now.in_run) {
            (Some(then), Some(now)) if then.boot == now.boot => now.ms.saturating_sub(then.ms),
            _ => now.at_ms.saturating_sub(self.at_ms),
        }
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

/// Reads bytes as a record. What makes sense says the same when it is written again, and has an age.
#[cfg(fuzzing)]
pub(crate) fn read_any(text: &[u8]) {
    let Ok(record) = Record::parse(text) else { return };
    assert_eq!(record.format, FORMAT, "N16");
    let again = serde_json::to_vec(&record).expect("plain data");
    assert_eq!(Record::parse(&again).expect("just written"), record);
    let when = record.when();
    assert_eq!(when.age_ms(when), 0);
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

    /// The time of day may jump; the clock of this run of the machine does not.
    #[test]
    fn age_is_told_by_the_clock_that_nobody_sets_while_the_machine_runs() {
        const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;
        let when = |at_ms, boot, ms| When { at_ms, in_run: Some(InRun { boot, ms }) };
        let kept = when(YEAR_MS, 7, 1000);
        assert_eq!(kept.age_ms(when(2 * YEAR_MS, 7, 3000)), 2000, "it was set forward");
        assert_eq!(kept.age_ms(when(0, 7, 3000)), 2000, "and back");
        assert_eq!(kept.age_ms(when(YEAR_MS + 5, 8, 1)), 5, "the machine began anew");
        let of_earlier_release = When { at_ms: YEAR_MS, in_run: None };
        assert_eq!(of_earlier_release.age_ms(when(YEAR_MS + 5, 7, 9)), 5);
        assert!(When::now().age_ms(When::now()) < YEAR_MS);
    }
}
