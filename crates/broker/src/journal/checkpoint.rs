//! Folds the write-ahead log into the file, beside the thread that decides.

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};

/// A thread that makes a checkpoint when it is asked to.
pub(super) struct Checkpointer {
    requests: SyncSender<()>,
}

impl Checkpointer {
    pub fn start(path: PathBuf) -> Checkpointer {
        let (requests, asked) = sync_channel(1);
        std::thread::spawn(move || {
            let mut connection = None;
            while asked.recv().is_ok() {
                if connection.is_none() {
                    connection = super::open_beside(&path).ok();
                }
                let Some(connection) = &connection else { continue };
                // Passive: takes what nobody uses and waits for nobody.
                let folded = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()));
                if let Err(error) = folded {
                    tracing::warn!(%error, "the journal's log could not be folded into its file");
                }
            }
        });
        Checkpointer { requests }
    }

    /// Asks for a checkpoint, unless one is already asked for.
    pub fn request(&self) {
        let _ = self.requests.try_send(());
    }
}
