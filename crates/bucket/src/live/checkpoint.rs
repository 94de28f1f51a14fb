//! A checkpoint is made beside all other work, by a thread of its own.

use std::thread::{self, Scope, ScopedJoinHandle};

use super::{Inner, Live, lock, now_ms};
use crate::checkpoint::CheckpointError;

impl Live {
    /// Makes a checkpoint of all that is in entries; false if there was nothing new. Nobody waits for it meanwhile.
    pub fn checkpoint(&self) -> Result<bool, CheckpointError> {
        self.inner.checkpoint(&|| true)
    }
}

impl Inner {
    /// Begins a checkpoint if one is due, and the one before has come to its end.
    pub(super) fn begin_checkpoint<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        beside: &mut Option<ScopedJoinHandle<'scope, ()>>,
    ) {
        let is_free = beside.as_ref().is_none_or(|thread| thread.is_finished());
        if !is_free || !lock(&self.bucket).is_checkpoint_due() {
            return;
        }
        let work = || match self.checkpoint(&|| !self.bell.is_closed()) {
            Ok(_) | Err(CheckpointError::NotWanted) => {}
            Err(error) => tracing::warn!(%error, "no checkpoint is made of a bucket"),
        };
        // If there is no room for a thread, it stays due.
        *beside = thread::Builder::new()
            .name("gate-checkpoint".to_owned())
            .spawn_scoped(scope, work)
            .ok();
    }

    fn checkpoint(&self, is_wanted: &dyn Fn() -> bool) -> Result<bool, CheckpointError> {
        let Some(dumping) = lock(&self.bucket).dumping()? else { return Ok(false) };
        let dump = dumping.write(is_wanted)?;
        lock(&self.bucket).keep(dump, now_ms())
    }
}
