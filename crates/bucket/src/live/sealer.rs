//! Who writes a long file does not wait for what he wrote to be sealed.
//!
//! Bytes that lie side by side are sealed once they are many, by a thread of its own while the next are written.
//! Whoever writes faster than that waits, so that no more than four times as many are in memory.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::Inner;
use super::file::Face;
use crate::bucket::BucketError;
use crate::contents::{Ahead, SEAL_BYTES_DUE, Stretch};
use crate::store::StoreError;
use crate::vault::Vault;

/// From so many on their writer waits.
const UNSEALED_BYTES_MAX: u64 = 4 * SEAL_BYTES_DUE;
/// So many stretches wait to be sealed; who comes then seals what is his himself.
const WAITING_MAX: usize = 4;

/// Seals what others wrote.
pub(super) struct Sealer {
    vault: Vault,
    /// None once it ends.
    waiting: Option<SyncSender<Task>>,
    worker: Option<JoinHandle<()>>,
}

/// Where it is told what a stretch of a file became, to whoever has the file alone.
#[derive(Debug)]
pub(super) struct Sealing(Mutex<Receiver<Outcome>>);

type Outcome = Result<Ahead, StoreError>;

struct Task {
    stretch: Stretch,
    told: SyncSender<Outcome>,
}

impl Sealing {
    fn told(&mut self) -> &Receiver<Outcome> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    fn work(&self, vault: &Vault) {
        // Nobody may want it any more.
        let _ = self.told.send(self.stretch.seal(vault));
    }
}

impl Sealer {
    pub(super) fn begin(vault: Vault) -> io::Result<Sealer> {
        let (waiting, tasks) = sync_channel::<Task>(WAITING_MAX);
        let worker = thread::Builder::new().name("gate-sealer".to_owned());
        let worker = worker.spawn({
            let vault = vault.clone();
            move || tasks.into_iter().for_each(|task| task.work(&vault))
        })?;
        Ok(Sealer { vault, waiting: Some(waiting), worker: Some(worker) })
    }

    fn seal(&self, stretch: Stretch) -> Sealing {
        let (told, outcome) = sync_channel(1);
        let sealing = Sealing(Mutex::new(outcome));
        let task = Task { stretch, told };
        let Some(waiting) = &self.waiting else {
            task.work(&self.vault);
            return sealing;
        };
        if let Err(TrySendError::Full(task) | TrySendError::Disconnected(task)) =
            waiting.try_send(task)
        {
            task.work(&self.vault);
        }
        sealing
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        self.waiting = None;
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("the thread that seals what is written is gone");
        }
    }
}

impl Inner {
    /// Has bytes of a file sealed once they are many.
    pub(super) fn seal_beside(&self, face: &mut Face) -> Result<(), BucketError> {
        let unsealed = face.contents.unsealed();
        if unsealed < SEAL_BYTES_DUE {
            return Ok(());
        }
        if unsealed >= UNSEALED_BYTES_MAX {
            self.finish_sealing(face)?;
        } else if let Some(sealing) = &mut face.sealing {
            match sealing.told().try_recv() {
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => face.sealing = None,
                Ok(outcome) => self.take_in_sealed(face, outcome)?,
            }
        }
        if face.contents.unsealed() >= SEAL_BYTES_DUE {
            face.sealing = Some(self.sealer.seal(face.contents.begin_to_seal()));
        }
        Ok(())
    }

    /// Waits for what is being sealed of a file.
    pub(super) fn finish_sealing(&self, face: &mut Face) -> Result<(), BucketError> {
        match face.sealing.as_mut().map(|sealing| sealing.told().recv()) {
            Some(Ok(outcome)) => self.take_in_sealed(face, outcome),
            // The bytes are there as they were written.
            Some(Err(_)) | None => {
                face.sealing = None;
                Ok(())
            }
        }
    }

    fn take_in_sealed(&self, face: &mut Face, outcome: Outcome) -> Result<(), BucketError> {
        face.sealing = None;
        let ahead = face.contents.sealed(outcome?);
        self.tell_sealed(face, ahead)
    }
}
