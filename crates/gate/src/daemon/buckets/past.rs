//! The past of buckets: their versions, and ways back.

use gate_bucket::bucket::Bucket;
use gate_bucket::bucket::history::{self, Asked, PastError, Wanted};
use gate_core::tree::op::Op;
use jiff::Timestamp;

use super::files::{changed, read_path};
use super::{Buckets, lock, now_ms, refusal};
use crate::board;
use crate::daemon::body::bucket::{BucketVersion, BucketVersions, Changed};
use crate::daemon::refusal::{Kind, Refusal};

/// Versions that an answer tells of, unless fewer are asked for.
const TOLD_MAX: usize = 1000;

impl Buckets {
    /// Returns versions, the newest first; of a path those in which something was done to it or in it.
    pub fn history(
        &self,
        words: &str,
        path: Option<&[u8]>,
        after: Option<&str>,
        most: usize,
    ) -> Result<BucketVersions, Refusal> {
        let bucket = self.get(words)?;
        let mut bucket = lock(&bucket)?;
        let after = after.map(|after| version(&mut bucket, after)).transpose()?;
        let path = path.map(read_path).transpose()?;
        let path = path.map(|path| path.names().to_vec()).filter(|names| !names.is_empty());
        let most = most.min(TOLD_MAX);
        // One more tells whether there are more.
        let after = after.and_then(|version| version.entry);
        let asked = Asked { after, most: most + 1, path };
        let lens = bucket.lens();
        let mut told = bucket.told(&asked, &lens).map_err(not_past)?;
        let are_more = told.len() > most;
        told.truncate(most);
        let versions = told.into_iter().map(|told| BucketVersion {
            version: told.hash.to_string(),
            at: board::utc(told.at_ms),
            author: told.author.to_string(),
            did: told.deeds.iter().map(ToString::to_string).collect(),
            more: told.more as u64,
            is_kept: told.is_kept,
        });
        Ok(BucketVersions { versions: versions.collect(), are_more })
    }

    /// Makes what is at a path as it was in a version, with all in it.
    pub fn restore(&self, words: &str, path: &[u8], at: &str) -> Result<Changed, Refusal> {
        let bucket = self.get(words)?;
        let mut bucket = lock(&bucket)?;
        let path = read_path(path)?;
        let then = version(&mut bucket, at)?;
        let lens = bucket.lens();
        let ops = bucket.restoring(path.names(), &then, &lens).map_err(not_past)?;
        commit(&mut bucket, ops)
    }

    /// Takes back what was done that led to a version, the newest without one.
    pub fn undo(&self, words: &str, named: Option<&str>) -> Result<Changed, Refusal> {
        let bucket = self.get(words)?;
        let mut bucket = lock(&bucket)?;
        let entry = version(&mut bucket, named.unwrap_or("~0"))?.entry.ok_or_else(nothing)?;
        let ops = bucket.undoing(entry).map_err(not_past)?;
        commit(&mut bucket, ops)
    }
}

/// Commits operations that name chunks which are there, in as many entries as they need.
fn commit(bucket: &mut Bucket, ops: Vec<Op>) -> Result<Changed, Refusal> {
    let mut entry = None;
    for part in history::parts(ops) {
        entry = Some(bucket.commit(&part, Vec::new(), now_ms()).map_err(refusal)?);
    }
    Ok(changed(bucket, entry))
}

/// Finds the version that somebody names.
pub(super) fn version(bucket: &mut Bucket, text: &str) -> Result<history::Version, Refusal> {
    bucket.version(&wanted(text)?).map_err(not_past)
}

/// As [`version`]; nothing for a time before all versions.
pub(super) fn version_by(
    bucket: &mut Bucket,
    text: &str,
) -> Result<Option<history::Version>, Refusal> {
    let wanted = wanted(text)?;
    match bucket.version(&wanted) {
        Err(PastError::NoEntry) if matches!(wanted, Wanted::At(_)) => Ok(None),
        version => version.map(Some).map_err(not_past),
    }
}

fn wanted(text: &str) -> Result<Wanted, Refusal> {
    let time = || {
        let time: Timestamp = text.parse().ok()?;
        Some(Wanted::At(u64::try_from(time.as_millisecond()).unwrap_or(0)))
    };
    text.parse().ok().or_else(time).ok_or_else(|| {
        let hint = "write four or more digits of its id, `~N` for N entries ago, or a time as \
                    2026-11-22T09:00:00Z";
        Refusal::new(Kind::Invalid, format!("`{text}` names no version"), hint)
    })
}

fn nothing() -> Refusal {
    Refusal::new(
        Kind::NotFound,
        "nothing was done yet",
        "`gate bucket history` shows what was done",
    )
}

/// Says why nothing comes of the past.
pub(super) fn not_past(error: PastError) -> Refusal {
    let (kind, hint) = match error {
        PastError::NoEntry => (Kind::NotFound, "`gate bucket history` shows the versions"),
        PastError::Ambiguous(_) => (Kind::Invalid, "write more of it"),
        PastError::NotThere => {
            (Kind::NotFound, "`gate bucket history BUCKET PATH` shows when it was")
        }
        PastError::Forgotten => {
            (Kind::State, "`gate bucket history` shows which versions are kept")
        }
        PastError::InTheWay(_) => (Kind::State, "move it out of the way, or restore that"),
        PastError::Changed(_) => (Kind::State, "undo that first, or restore what is wanted"),
        PastError::Bucket(error) => return refusal(error),
    };
    Refusal::new(kind, error, hint)
}
