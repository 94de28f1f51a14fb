//! Folds the write-ahead log into the file, beside the thread that decides.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Makes a checkpoint when it is asked to, on a thread that begins with the first.
pub(super) struct Checkpointer {
    path: PathBuf,
    requests: Option<SyncSender<()>>,
}

impl Checkpointer {
    pub fn new(path: PathBuf) -> Checkpointer {
        Checkpointer { path, requests: None }
    }

    /// Returns one that makes none.
    #[cfg(test)]
    pub fn idle() -> Checkpointer {
        Checkpointer { path: PathBuf::new(), requests: Some(sync_channel(1).0) }
    }

    /// Asks for a checkpoint, unless one is already asked for.
    pub fn request(&mut self) {
        let requests = self.requests.get_or_insert_with(|| {
            let (requests, asked) = sync_channel(1);
            let path = self.path.clone();
            std::thread::spawn(move || serve(path, &asked));
            requests
        });
        let _ = requests.try_send(());
    }
}

fn serve(path: PathBuf, asked: &Receiver<()>) {
    let mut connection = None;
    while asked.recv().is_ok() {
        if connection.is_none() {
            connection = super::open_alone(&path).ok();
        }
        let Some(connection) = &connection else { continue };
        // Passive: takes what nobody uses and waits for nobody.
        let folded = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |_| Ok(()));
        if let Err(error) = folded {
            tracing::warn!(%error, "the journal's log could not be folded into its file");
        }
    }
}
