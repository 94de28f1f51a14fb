//! All stores of a state directory: what is kept of every source, those included of which no view
//! is mounted any more.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::record::When;
use super::{LIMITS, LOCK, Limits, Place, Store, Unfinished};

/// How often they are looked at, at least.
pub const TRIM_PAUSE: Duration = Duration::from_secs(60 * 60);

/// Returns where the stores of a state directory are.
pub fn root(state_dir: &Path) -> PathBuf {
    state_dir.join("kept")
}

/// Removes what is beyond the bounds: of each store its own, and of all together the largest of
/// those; the newest win.
pub fn trim(root: &Path) {
    let mut stores: Vec<Store> = places(root).map(Store::open_or_make_later).collect();
    stores.retain(|store| !store.known.is_empty());
    let bytes_max = stores.iter().map(|store| store.limits().bytes_max).max().unwrap_or_default();
    let mut bytes: u64 = stores.iter().map(Store::bytes).sum();
    let now = When::now();
    while bytes > bytes_max {
        let oldest = stores.iter_mut().filter_map(|store| Some((store.oldest()?, store)));
        let oldest = oldest.max_by_key(|((_, held), _)| held.when.age_ms(now));
        let Some(((id, held), store)) = oldest else { return };
        store.forget(id);
        bytes = bytes.saturating_sub(held.bytes);
    }
}

/// Whose bounds cannot be read is left alone: another release may know them.
fn places(root: &Path) -> impl Iterator<Item = Place> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    // A store has had a writer. That of another user shows nothing.
    let stores = dirs.map(|entry| entry.path()).filter(|dir| dir.join(LOCK).is_file());
    stores.filter_map(|dir| match Limits::read(&dir) {
        Ok(limits) => Some(Place { dir, limits }),
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "the bounds of kept versions cannot be read");
            None
        }
    })
}

impl Limits {
    /// Reads those of a store; of one from an earlier release they are not known.
    fn read(dir: &Path) -> io::Result<Limits> {
        match fs::read(dir.join(LIMITS)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Limits::default()),
            Err(error) => Err(error),
        }
    }
}

impl Store {
    /// Trims all stores of the state directory if that is due: at first, from time to time, and
    /// once so much was added that those who trim might be far off.
    pub fn trim_all(&mut self) {
        if !self.is_marked {
            self.is_marked = self.mark().is_ok(); // Before its first version there is none.
        }
        let is_due = self.trimmed.is_none_or(|at| at.elapsed() >= TRIM_PAUSE);
        if (is_due || self.untold_bytes > self.place.limits.file_bytes_max)
            && let Some(root) = self.place.dir.parent()
        {
            trim(root);
            (self.trimmed, self.untold_bytes) = (Some(Instant::now()), 0);
        }
    }

    /// Writes the bounds into a store that exists.
    fn mark(&self) -> io::Result<()> {
        let text = serde_json::to_vec(&self.place.limits)?;
        if fs::read(self.place.dir.join(LIMITS)).is_ok_and(|present| present == text) {
            return Ok(());
        }
        fs::metadata(self.place.dir.join(LOCK))?;
        let _adding = self.lock(FlockOperation::LockShared)?;
        let unfinished = Unfinished::make(&self.place.dir)?;
        fs::write(unfinished.0.join(LIMITS), text)?;
        fs::rename(unfinished.0.join(LIMITS), self.place.dir.join(LIMITS))
    }
}
