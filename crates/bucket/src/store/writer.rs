//! Where chunks are put: the newest pack, and those before it, which are on their way to the disk.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::pack::{Pack, PackId};

/// So many packs are on their way to the disk; who fills one more waits.
pub(super) const FULL_PACKS_MAX: usize = 4;

/// Who puts chunks to the end.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub pack: Option<Pack>,
    /// Those before it, on their way to the disk: whoever fills them does not wait for that.
    pub full: Vec<FullPack>,
    pub next: u32,
    /// After a sync that failed, nobody knows what the disk has of the pack.
    pub is_doubtful: bool,
    #[cfg(test)]
    pub room: Option<u64>,
}

/// A pack to which nothing more is put, and who waits for the disk to have it.
#[derive(Debug)]
pub(super) struct FullPack {
    pack: Arc<Pack>,
    /// None if there was no room for another thread.
    syncing: Option<JoinHandle<io::Result<()>>>,
}

impl Writer {
    /// Returns up to where the packs go to which was put since the last sync.
    pub fn ends(&self) -> Vec<(PackId, u64)> {
        let full = self.full.iter().map(|full| &*full.pack);
        full.chain(&self.pack).map(|pack| (pack.id, pack.len())).collect()
    }

    /// Ends the newest pack; the next chunk makes another.
    pub fn end_pack(&mut self) {
        let Some(pack) = self.pack.take().map(Arc::new) else { return };
        let syncing = thread::Builder::new().name("gate-packs".to_owned()).spawn({
            let pack = Arc::clone(&pack);
            move || pack.sync()
        });
        self.full.push(FullPack { pack, syncing: syncing.ok() });
    }

    /// Returns when the disk has all that was put.
    pub fn sync(&mut self) -> io::Result<()> {
        let mut outcome = Ok(());
        for full in self.full.drain(..) {
            let synced = match full.syncing {
                Some(syncing) => syncing.join().unwrap_or_else(|panic| resume_unwind(panic)),
                None => full.pack.sync(),
            };
            outcome = outcome.and(synced);
        }
        let outcome = outcome.and_then(|()| self.pack.as_ref().map_or(Ok(()), Pack::sync));
        self.is_doubtful |= outcome.is_err();
        outcome
    }
}
