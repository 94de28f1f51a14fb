//! Who writes a long file does not wait for what he wrote to be sealed.
//!
//! Bytes that lie side by side are sealed once they are many, by threads of their own while the next are written;
//! one of them cuts while another seals what it cut before. Whoever writes faster than that waits, so that no more than
//! four times as many are in memory.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::file::Face;
use super::{Inner, lock};
use crate::bucket::BucketError;
use crate::contents::{Ahead, SEAL_BYTES_DUE, Stretch, Tail};
use crate::store::StoreError;
use crate::vault::Vault;

/// From so many on their writer waits.
const UNSEALED_BYTES_MAX: u64 = 4 * SEAL_BYTES_DUE;
/// So many seal at most: more have to wait for the memory.
const HANDS_MAX: usize = 4;
/// So many stretches wait to be sealed; who comes then seals what is his himself.
const WAITING_MAX: usize = 4;

/// Seals what others wrote.
pub(super) struct Sealer {
    /// None once it ends.
    waiting: Option<SyncSender<Task>>,
    workers: Vec<JoinHandle<()>>,
}

/// Stretches of a file that are cut one after the other, and where it is told what each became, to whoever has the
/// file alone.
#[derive(Debug, Default)]
pub(super) struct Sealing {
    tail: Arc<Mutex<Tail>>,
    awaited: Mutex<VecDeque<Receiver<Outcome>>>,
}

type Outcome = Result<Ahead, StoreError>;

/// Asks what became of a stretch.
type Ask = fn(&Receiver<Outcome>) -> Result<Outcome, TryRecvError>;

const WHAT_IS_TOLD: Ask = Receiver::try_recv;
const WAIT: Ask = |told| told.recv().map_err(|_| TryRecvError::Disconnected);

struct Task {
    stretch: Stretch,
    tail: Arc<Mutex<Tail>>,
    told: SyncSender<Outcome>,
}

impl Sealing {
    fn is_done(&mut self) -> bool {
        self.awaited().is_empty()
    }

    fn awaited(&mut self) -> &mut VecDeque<Receiver<Outcome>> {
        self.awaited.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    fn work(self, vault: &Vault) {
        let cut = self.stretch.cut(&mut lock(&self.tail));
        // Nobody may want it any more.
        let _ = self.told.send(cut.seal(vault));
    }
}

/// Does what is asked, as one of several, until nothing comes any more.
fn work(tasks: &Mutex<Receiver<Task>>, vault: &Vault) {
    loop {
        let waiting = lock(tasks);
        let Ok(Task { stretch, tail, told }) = waiting.recv() else { return };
        // Who takes the next one comes to the tail after this one.
        let mut tail = lock(&tail);
        drop(waiting);
        let cut = stretch.cut(&mut tail);
        drop(tail);
        // Nobody may want it any more.
        let _ = told.send(cut.seal(vault));
    }
}

impl Sealer {
    pub(super) fn begin(vault: &Vault) -> io::Result<Sealer> {
        let (waiting, tasks) = sync_channel(WAITING_MAX);
        let mut sealer = Sealer { waiting: Some(waiting), workers: Vec::new() };
        let tasks = Arc::new(Mutex::new(tasks));
        let hands = thread::available_parallelism().map_or(1, usize::from).min(HANDS_MAX);
        for _ in 0..hands {
            let (tasks, vault) = (Arc::clone(&tasks), vault.clone());
            let worker = thread::Builder::new().name("gate-sealer".to_owned());
            sealer.workers.push(worker.spawn(move || work(&tasks, &vault))?);
        }
        Ok(sealer)
    }

    /// Has a stretch sealed; gives it back if too many wait.
    fn seal(&self, task: Task) -> Result<(), Task> {
        let Some(waiting) = &self.waiting else { return Err(task) };
        waiting.try_send(task).map_err(|error| match error {
            TrySendError::Full(task) | TrySendError::Disconnected(task) => task,
        })
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        self.waiting = None;
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a thread that seals what is written is gone");
            }
        }
    }
}

impl Inner {
    /// Has bytes of a file sealed once they are many.
    pub(super) fn seal_beside(&self, face: &mut Face) -> Result<(), BucketError> {
        if face.contents.unsealed() < SEAL_BYTES_DUE {
            return Ok(());
        }
        while self.take_in_next(face, WHAT_IS_TOLD)? {}
        while face.contents.unsealed() >= UNSEALED_BYTES_MAX && self.take_in_next(face, WAIT)? {}
        // What others became who do not go on here comes first.
        let is_free =
            face.contents.is_sealing() || face.sealing.as_mut().is_none_or(Sealing::is_done);
        if face.contents.due() < SEAL_BYTES_DUE || !is_free {
            return Ok(());
        }
        let stretch = face.contents.begin_to_seal();
        if stretch.is_first() {
            face.sealing = None;
        }
        let sealing = face.sealing.get_or_insert_default();
        let (told, outcome) = sync_channel(1);
        let task = Task { stretch, tail: Arc::clone(&sealing.tail), told };
        let Err(task) = self.sealer.seal(task) else {
            sealing.awaited().push_back(outcome);
            return Ok(());
        };
        // Those before it come first.
        while self.take_in_next(face, WAIT)? {}
        task.work(&self.vault);
        face.sealing.get_or_insert_default().awaited().push_back(outcome);
        self.take_in_next(face, WAIT).map(drop)
    }

    /// Waits for what is being sealed of a file.
    pub(super) fn finish_sealing(&self, face: &mut Face) -> Result<(), BucketError> {
        while self.take_in_next(face, WAIT)? {}
        end_sealing(face);
        Ok(())
    }

    /// Takes in what the next stretch of a file became, if that is known.
    fn take_in_next(&self, face: &mut Face, ask: Ask) -> Result<bool, BucketError> {
        let Some(awaited) = face.sealing.as_mut().map(Sealing::awaited) else { return Ok(false) };
        let Some(outcome) = awaited.front().map(ask) else { return Ok(false) };
        let ahead = match outcome {
            Err(TryRecvError::Empty) => return Ok(false),
            Ok(Ok(ahead)) => ahead,
            failed => {
                // The bytes are there as they were written.
                end_sealing(face);
                return failed.map_or(Ok(false), |outcome| Ok(outcome.map(|_| false)?));
            }
        };
        awaited.pop_front();
        let ahead = face.contents.sealed(ahead);
        self.tell_sealed(face, ahead)?;
        Ok(true)
    }
}

fn end_sealing(face: &mut Face) {
    face.sealing = None;
    face.contents.end_sealing();
}
