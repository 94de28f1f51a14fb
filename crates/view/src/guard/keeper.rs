//! The thread that keeps what is about to be overwritten, one file after the other.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};

use gate_api::wire::{Deed, Overwrite};
use gate_core::lock::want::Op;
use gate_core::path::ViewPath;

use crate::agent::Agent;
use crate::kept::{Addition, Facts, Outcome, Place, Record, Store, TRIM_PAUSE, Take, Went};
use crate::view::View;

/// How many files may wait for it. Who comes then waits for room, in the thread that it has.
const QUEUE_MAX: usize = 64;

/// The way to the thread. Dropping it ends the thread, once everything is done.
pub(super) struct Keeper(SyncSender<Job>);

/// What it is to do.
pub(super) enum Job {
    Keep { victim: OwnedFd, take: Take, event: Event, then: Box<dyn FnOnce() -> Went + Send> },
    Refused { victim: OwnedFd, event: Event },
}

/// Who overwrites what.
pub(super) struct Event {
    pub path: PathBuf,
    pub agent: Arc<Agent>,
    pub op: Op,
    pub view: Arc<View>,
}

impl Keeper {
    /// Starts it. The caller's thread must be as it was when the process began: this one will
    /// make files.
    pub fn start(place: Place) -> io::Result<Keeper> {
        let (queue, jobs) = sync_channel(QUEUE_MAX);
        std::thread::Builder::new().name("view-keeper".into()).spawn(move || work(place, &jobs))?;
        Ok(Keeper(queue))
    }

    pub fn hand(&self, job: Job) {
        // The thread ends after this only.
        let _ = self.0.send(job);
    }

    /// As `hand`, for whoever may be on the thread itself: that must not wait for the room that only
    /// it makes.
    pub fn hand_over(&self, job: Job) {
        if let Err(TrySendError::Full(job)) = self.0.try_send(job) {
            let queue = self.0.clone();
            std::thread::spawn(move || queue.send(job));
        }
    }
}

fn work(place: Place, jobs: &Receiver<Job>) {
    let mut store = Store::open_or_make_later(place);
    let mut refused = None;
    loop {
        store.trim_all();
        match jobs.recv_timeout(TRIM_PAUSE) {
            Ok(job) => work_on(job, &mut store, &mut refused),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// `refused` is who was refused last, and what.
fn work_on(job: Job, store: &mut Store, refused: &mut Option<(Arc<Agent>, PathBuf)>) {
    match job {
        Job::Keep { victim, take, event, then } => {
            let added = keep(store, (&victim, take), &event);
            let went = then();
            let (became, is_so) = match added {
                Ok(added) => (Deed::Kept(added.id), store.settle(added, went)),
                Err(lost) => (lost, went == Went::Ahead),
            };
            if is_so {
                event.tell_broker(became);
            }
        }
        Job::Refused { victim, event } => {
            // Who is refused may try again and again.
            let who = (event.agent.clone(), event.path.clone());
            if refused.replace(who.clone()) != Some(who) {
                note(store, &victim, &event, Outcome::Refused);
                event.tell_broker(Deed::Refused);
            }
        }
    }
}

fn keep(
    store: &mut Store,
    (victim, take): (&OwnedFd, Take),
    event: &Event,
) -> Result<Addition, Deed> {
    let (path, agent) = (event.path.display(), &event.agent.name);
    let lost = |error: &io::Error| event.tell_lost(error);
    let record = event.record(victim).inspect_err(lost).map_err(|_| Deed::Failed)?;
    if record.file.size > store.limits().file_bytes_max {
        note(store, victim, event, Outcome::TooLarge);
        return Err(Deed::TooLarge);
    }
    match store.keep(victim, take, &record).inspect_err(lost) {
        Ok(added) => {
            tracing::info!(%path, agent, id = added.id, "kept what is overwritten unseen");
            Ok(added)
        }
        Err(error) => {
            note(store, victim, event, Outcome::Failed(error.to_string()));
            Err(Deed::Failed)
        }
    }
}

fn note(store: &mut Store, victim: &OwnedFd, event: &Event, outcome: Outcome) {
    let (path, agent) = (event.path.display(), &event.agent.name);
    tracing::info!(%path, agent, ?outcome, "an agent overwrites what it has not seen");
    let noted = event.record(victim).and_then(|record| store.note(&record.with(outcome)));
    if let Err(error) = noted {
        tracing::warn!(%path, %error, "that could not be written down");
    }
}

impl Event {
    /// Lets the log know, if the broker is there.
    fn tell_broker(&self, became: Deed) {
        let Ok(path) = ViewPath::parse(self.path.as_os_str().as_bytes()) else { return };
        let (space, op, agent) = (self.view.settings.space, self.op, self.agent.name.clone());
        self.view.broker.guarded(Overwrite { space, path, op, agent, became });
    }

    fn record(&self, victim: &OwnedFd) -> io::Result<Record> {
        let by = (self.agent.name.as_str(), self.op.as_str());
        Ok(Record::new(self.path.clone(), by, Facts::of(victim)?))
    }

    fn tell_lost(&self, error: &io::Error) {
        let (path, agent) = (self.path.display(), &self.agent.name);
        tracing::warn!(%path, agent, %error, "what is overwritten unseen could not be kept");
    }
}
