//! Folds the write-ahead log into the file, beside the thread that decides.
//!
//! The log begins anew once all of it is folded. While commits never pause there is always more
//! of it when a checkpoint is done; so from some length on the thread that commits makes one
//! itself, which has little left to fold.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::Connection;

/// Pages of the log beyond which the commits wait for it, and which it shrinks to when it begins
/// anew.
pub(super) const LOG_PAGES_MAX: i64 = 32 * 1024;

/// Makes a checkpoint when it is asked to, on a thread that begins with the first.
pub(super) struct Checkpointer {
    path: PathBuf,
    requests: Option<SyncSender<()>>,
    /// The log is longer than it may be.
    behind: Arc<AtomicBool>,
}

impl Checkpointer {
    pub fn new(path: PathBuf) -> Checkpointer {
        Checkpointer { path, requests: None, behind: Arc::default() }
    }

    /// Returns one that makes none.
    #[cfg(test)]
    pub fn idle() -> Checkpointer {
        Checkpointer { requests: Some(sync_channel(1).0), ..Checkpointer::new(PathBuf::new()) }
    }

    /// From now on the log counts as too long.
    pub fn fall_behind(&mut self) {
        self.behind.store(true, Ordering::Relaxed);
    }

    /// Asks for a checkpoint, unless one is already asked for.
    pub fn request(&mut self) {
        let requests = self.requests.get_or_insert_with(|| {
            let (requests, asked) = sync_channel(1);
            let (path, behind) = (self.path.clone(), self.behind.clone());
            std::thread::spawn(move || serve(path, &asked, &behind));
            requests
        });
        let _ = requests.try_send(());
    }

    /// Makes a checkpoint here and now if those beside the commits do not keep up with them.
    pub fn catch_up(&mut self, connection: &Connection) {
        if self.behind.load(Ordering::Relaxed) {
            // Where that fails the commit that follows says so, if it matters.
            let _ = fold(connection, &self.behind);
        }
    }
}

fn serve(path: PathBuf, asked: &Receiver<()>, behind: &AtomicBool) {
    let mut connection = None;
    while asked.recv().is_ok() {
        if connection.is_none() {
            connection = super::open_alone(&path).ok();
        }
        let Some(connection) = &connection else { continue };
        if let Err(error) = fold(connection, behind) {
            tracing::warn!(%error, "the journal's log could not be folded into its file");
        }
    }
}

fn fold(connection: &Connection, behind: &AtomicBool) -> Result<(), rusqlite::Error> {
    // Passive: takes what nobody uses and waits for nobody. All that is folded begins anew.
    let (pages, folded) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", (), |row| {
        Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    })?;
    behind.store(pages > LOG_PAGES_MAX && folded < pages, Ordering::Relaxed);
    Ok(())
}
