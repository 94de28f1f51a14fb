//! The prober: finds holders that wait for the very process they block.
//!
//! A thread of its own, for looking at processes takes time. It is told of each waiter and of the
//! holders in its way, and looks after a while, then ever less often, whether a holder sleeps for
//! it; and again as soon as one has slept long enough. What it finds is a command like any other.
//! If more wait than it watches at a time, they are watched in turn.

pub(crate) mod look;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use gate_api::process::Stat;
use gate_core::id::{OwnerId, Ticket};
use gate_core::lock::claim::Process;
use gate_core::lock::limits::WAITERS_MAX;

use crate::mail::{Inbox, Mail};
use look::Sleep;

/// How long a waiter waits before anybody looks who sleeps for it.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a thread among several must sleep for a waiter.
const PATIENCE_THREADS: Duration = Duration::from_secs(2);
/// The longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Waiters that are looked at, at a time.
pub(crate) const CASES_MAX: usize = 4_096;

/// What the prober asks: the cases of these, if they still wait.
pub(crate) type Question = Vec<Ticket>;

/// What the prober is told.
pub(crate) enum ToProber {
    Case(Case),
    /// One that was asked for does not wait any more.
    NoCase(Ticket),
}

/// A waiter and the holders in its way.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub ticket: Ticket,
    pub owner: OwnerId,
    pub process: Process,
    pub suspects: Vec<Suspect>,
}

/// A holder that may wait for the process it blocks.
#[derive(Clone, Debug)]
pub(crate) struct Suspect {
    pub owner: OwnerId,
    pub process: Process,
    /// The thread that asked; 0 if not known.
    pub thread: u32,
    /// Whether it is a hold: who works below it is its kin anyway, but not always waited for.
    pub is_hold: bool,
}

struct Watched {
    case: Case,
    pause: Duration,
    look_at: Instant,
    /// Whether the deciding thread was asked if it still waits.
    asked: bool,
}

struct Prober {
    inbox: Inbox,
    /// How many are watched at most.
    places: usize,
    watched: BTreeMap<Ticket, Watched>,
    /// Those for which there was no place, some of which may wait no longer.
    beyond: VecDeque<Ticket>,
    /// Since when threads among several were seen asleep for a waiter.
    asleep: HashMap<(OwnerId, OwnerId), Instant>,
}

/// Probes until the deciding thread ends.
pub(crate) fn run(inbox: Inbox, cases: &Receiver<ToProber>) {
    let mut prober = Prober::new(inbox, CASES_MAX);
    loop {
        let received = match prober.ask_at(Instant::now()) {
            None => cases.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => cases.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match received {
            Ok(said) => prober.hear(said, Instant::now()),
            Err(RecvTimeoutError::Timeout) => prober.ask(Instant::now()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Prober {
    fn new(inbox: Inbox, places: usize) -> Prober {
        let (watched, beyond) = (BTreeMap::new(), VecDeque::new());
        Prober { inbox, places, watched, beyond, asleep: HashMap::new() }
    }

    /// Returns when the deciding thread is to be asked next.
    fn ask_at(&self, now: Instant) -> Option<Instant> {
        if !self.beyond.is_empty() && self.watched.len() < self.places {
            return Some(now);
        }
        let looks = self.watched.values().filter(|watched| !watched.asked);
        looks.map(|watched| watched.look_at).min()
    }

    fn hear(&mut self, said: ToProber, now: Instant) {
        match said {
            ToProber::Case(case) => self.take(case, now),
            ToProber::NoCase(ticket) => drop(self.watched.remove(&ticket)),
        }
    }

    fn take(&mut self, case: Case, now: Instant) {
        let has_place = self.watched.len() < self.places;
        let Some(watched) = self.watched.get_mut(&case.ticket) else {
            let ticket = case.ticket;
            if has_place {
                let look_at = now + PATIENCE;
                let fresh = Watched { case, pause: PATIENCE, look_at, asked: false };
                self.watched.insert(ticket, fresh);
            } else {
                self.beyond.push_back(ticket);
            }
            return;
        };
        watched.case = case.clone();
        if std::mem::take(&mut watched.asked) {
            let pause = watched.pause;
            watched.pause = (pause * 2).min(PAUSE_MAX);
            self.look_for_sleepers(&case, now);
            let slept = self.slept_enough_at(&case, now);
            if pause == PAUSE_MAX && slept.is_none() && !self.beyond.is_empty() {
                // It was looked at for long enough that its place is another's now.
                self.watched.remove(&case.ticket);
                self.beyond.push_back(case.ticket);
                return;
            }
            let watched = self.watched.get_mut(&case.ticket).expect("it was found above");
            watched.look_at = slept.map_or(now + pause, |at| at.min(now + pause));
        }
    }

    /// Returns when the first of the threads in a waiter's way will have slept long enough that do
    /// not yet.
    fn slept_enough_at(&self, case: &Case, now: Instant) -> Option<Instant> {
        let in_way = |holder| case.suspects.iter().any(|suspect| suspect.owner == holder);
        let asleep = self.asleep.iter().filter(|((_, holder), _)| in_way(*holder));
        asleep.map(|(_, since)| *since + PATIENCE_THREADS).filter(|at| *at > now).min()
    }

    /// Asks which of those that are due still wait, and of those beyond as many as there are places
    /// for; of more than can wait some do so no longer.
    fn ask(&mut self, now: Instant) {
        let room = self.places.saturating_sub(self.watched.len());
        let asked = room.max(self.beyond.len().saturating_sub(WAITERS_MAX));
        let mut due: Vec<Ticket> = self.beyond.drain(..asked.min(self.beyond.len())).collect();
        for (ticket, watched) in &mut self.watched {
            if !watched.asked && watched.look_at <= now {
                watched.asked = true;
                due.push(*ticket);
            }
        }
        let living = &self.watched;
        self.asleep.retain(|(waiter, _), _| living.values().any(|w| w.case.owner == *waiter));
        if !due.is_empty() {
            self.inbox.send(Mail::Probe(due));
        }
    }

    /// Looks for whom the holders in a waiter's way sleep: for it, or for another that waits.
    fn look_for_sleepers(&mut self, case: &Case, now: Instant) {
        for suspect in &case.suspects {
            let Some(stat) = Stat::read(suspect.process.pid) else { continue };
            if stat.start != suspect.process.start {
                continue;
            }
            let alone = stat.threads == 1;
            let thread = if alone { suspect.process.pid } else { suspect.thread };
            if suspect.is_hold {
                self.look_below(suspect, thread);
                continue;
            }
            let Some(sleep) = Sleep::of(suspect.process.pid, thread) else {
                self.asleep.retain(|(_, holder), _| *holder != suspect.owner);
                continue;
            };
            let waiters = self.watched.values().map(|watched| &watched.case);
            let waiters: Vec<(OwnerId, Process)> =
                waiters.map(|other| (other.owner, other.process)).collect();
            for (waiter, process) in waiters {
                self.weigh(waiter, process, suspect, &sleep, alone, now);
            }
        }
    }

    /// Looks for whom a hold waits: for its command, and whom that waits for in turn.
    fn look_below(&self, hold: &Suspect, thread: u32) {
        for Watched { case, .. } in self.watched.values() {
            let is_other = case.process != hold.process;
            if is_other && look::only_waits_for(case.process, hold.process, thread) {
                self.tell(case.owner, hold.owner);
            }
        }
    }

    fn weigh(
        &mut self,
        waiter: OwnerId,
        process: Process,
        suspect: &Suspect,
        sleep: &Sleep,
        alone: bool,
        now: Instant,
    ) {
        let pair = (waiter, suspect.owner);
        if process == suspect.process || !sleep.is_for(process, suspect.process) {
            self.asleep.remove(&pair);
            return;
        }
        let since = *self.asleep.entry(pair).or_insert(now);
        if alone || now.saturating_duration_since(since) >= PATIENCE_THREADS {
            self.tell(waiter, suspect.owner);
        }
    }

    fn tell(&self, waiter: OwnerId, holder: OwnerId) {
        self.inbox.send(Mail::Kin { waiter, holder });
    }
}
