//! What no version of a bucket needs is freed, and versions of long ago are given up.

use std::time::{Duration, SystemTime};

use gate_bucket::store;

use super::{Buckets, lock, past, refusal};
use crate::daemon::body::bucket::{Checking, Freed};
use crate::daemon::refusal::Refusal;

/// Whatever is put may be named by an entry that is still to come: for so long it waits for that.
const YOUNG: Duration = Duration::from_secs(24 * 60 * 60);

impl Buckets {
    /// Gives up what files held before a version, if one is named; it is freed by [`Buckets::free`].
    pub fn forget(&self, words: &str, keep_from: Option<&str>) -> Result<(), Refusal> {
        let bucket = self.get(words)?;
        let Some(keep_from) = keep_from else { return Ok(()) };
        let mut bucket = lock(&bucket)?;
        // A time before all versions leaves all of them.
        let Some(version) = past::version_by(&mut bucket, keep_from)? else { return Ok(()) };
        bucket.forget_before(&version).map_err(past::not_past).map(drop)
    }

    /// Frees what no version of a bucket needs that is kept.
    pub fn free(&self, words: &str, progress: &mut dyn FnMut(Checking)) -> Result<Freed, Refusal> {
        let bucket = self.get(words)?;
        let store = lock(&bucket)?.store().clone();
        // What is put or asked for from now on stays; what is named before is marked.
        let collection = store.collection().map_err(|error| refusal(error.into()))?;
        // What is in no entry before that is asked for, may be in one by then.
        let in_use = bucket.chunks();
        let mut marks = lock(&bucket)?.marks().map_err(refusal)?;
        marks.extend(in_use);
        let since = SystemTime::now().checked_sub(YOUNG).unwrap_or(SystemTime::UNIX_EPOCH);
        let told = |store::Progress { packs_done, packs }| {
            progress(Checking { packs_done: packs_done as u64, packs: packs as u64 });
        };
        let freed = collection.run(since, |address| marks.contains(address), told);
        let freed = freed.map_err(|error| refusal(error.into()))?;
        drop(collection);
        // Before that it would make the newest pack a young one, which stays.
        if lock(&bucket)?.is_checkpoint_worth_while()
            && let Err(error) = bucket.checkpoint()
        {
            tracing::warn!(%error, "no checkpoint is made of a bucket");
        }
        Ok(Freed {
            bytes: freed.bytes,
            chunks: freed.chunks,
            packs: freed.packs,
            young_bytes: freed.young_bytes,
            damaged_packs: freed.damaged_packs,
        })
    }
}
