//! The broker as its thread runs it: decide, journal, tell; and all the ways in which it ends.
//!
//! The desk, the books and the journal are the real ones. What the thread does around them is told
//! here again, with a crash possible between any two of its steps.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gate_api::bearer::Rights;
use gate_api::wire::{BrokerInfo, ClientMessage, Query, Resume, ServerMessage};
use gate_core::id::{OwnerId, SessionId, Ticket};
use gate_core::lock::table::{Record, Standing};
use gate_core::time::Time;
use mio::{Poll, Token};
use tempfile::TempDir;

use super::contact::LEASE;
use super::counter::{Counter, whose_is};
use super::net::Parcel;
use super::oracle::{Heard, Now, Wish};
use super::scene::{Scene, Wake};
use crate::audit::Audit;
use crate::books::Books;
use crate::clock;
use crate::desk::{Desk, Guest, Letter, Parts, Terms, Way};
use crate::journal::{self, JOURNAL_NAME, Journal};
use crate::mail::{ConnectionId, Inbox};
use crate::metrics::Metrics;
use crate::rounds::Rounds;
use crate::stateless::{Outcome, Reply};

/// What the clock of a machine shows that has just begun.
const BOOT: Time = Time(5_000_000_000);

/// Where in its next turn the broker's process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    BeforeCommit,
    AfterCommit,
    AfterLetters(usize),
}

/// What became of the journal's log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    /// More lies in it, if anything does.
    Longer,
    /// All of it is synced, and what is written over it is not to be torn off.
    Folded,
}

pub struct Host {
    running: Option<Running>,
    state_dir: TempDir,
    /// Nobody reads what other threads would send: there are none.
    inbox: Inbox,
    boots: u32,
    back_at: Time,
    stalled_until: Time,
    /// Until then its machine sleeps.
    asleep_until: Time,
    /// The machine's clock begins with its next run.
    begins_anew: bool,
    /// By how much the machine's clock is behind the world's: it began later, and stood still while
    /// the machine slept.
    behind: Duration,
    /// Until then its disk is full.
    full_until: Time,
    /// For how long the broker's clock stood still beside the machine's.
    stopped: Duration,
    crash: Option<Crash>,
    /// Clients whose process ended, and when the kernel says so.
    dead: Vec<(Time, SessionId)>,
    /// How long the log was after each commit of this run, from the last that was synced.
    log_lengths: Vec<u64>,
    /// What was synced of those who are elsewhere.
    elsewhere_ms: i64,
}

struct Running {
    desk: Desk,
    books: Books,
    now: Now,
    /// When each connection was last heard.
    heard: BTreeMap<ConnectionId, Time>,
    rounds: Rounds,
    counter: Counter,
    /// When it is to wake up.
    due: Option<Time>,
}

impl Host {
    pub fn new() -> Host {
        // Crashes are of processes, or said where: nothing is lost if memory is its disk.
        let memory = PathBuf::from("/dev/shm");
        let state_dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        Host {
            running: None,
            state_dir: state_dir.unwrap(),
            inbox: Inbox::new(Poll::new().unwrap().registry(), Token(0)).unwrap().0,
            boots: 1,
            back_at: Time::ZERO,
            stalled_until: Time::ZERO,
            asleep_until: Time::ZERO,
            begins_anew: false,
            behind: Duration::ZERO,
            full_until: Time::ZERO,
            stopped: Duration::ZERO,
            crash: None,
            dead: Vec::new(),
            log_lengths: Vec::new(),
            elsewhere_ms: 0,
        }
    }

    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// Dies in its next turn.
    pub fn doom(&mut self, crash: Crash) {
        self.crash = Some(crash);
    }

    /// Its machine sleeps until then, and the clock with it.
    pub fn sleep(&mut self, now: Time, until: Time) {
        let since = self.asleep_until.max(now);
        self.behind += until.since(since);
        self.asleep_until = until.max(since);
    }

    /// Does nothing until then, as if it was stopped.
    pub fn stall(&mut self, until: Time) {
        self.stalled_until = until;
    }

    /// Can write nothing down until then.
    pub fn fill_disk(&mut self, until: Time) {
        self.full_until = until;
    }

    pub fn learns_of_death(&mut self, at: Time, session: SessionId) {
        self.dead.push((at, session));
    }

    /// Whoever still has a session is dead.
    pub fn bury_all(&mut self, scene: &mut Scene) {
        let sessions = self.running.iter().flat_map(|running| running.desk.table().sessions());
        self.dead = sessions.map(|session| (scene.now, session)).collect();
        scene.wake(scene.now, Wake::Broker);
    }

    /// Somebody looked: the waiter is kin of the holder.
    pub fn told_of_kin(&mut self, scene: &mut Scene, waiter: OwnerId, holder: OwnerId) {
        let Some(running) = &mut self.running else { return };
        scene.note(|| format!("broker: {waiter:?} is kin of {holder:?}"));
        scene.oracle.are_kin_now(waiter, holder);
        running.desk.kin(running.now.at_broker, waiter, holder);
        running.look(scene);
        scene.wake(scene.now, Wake::Broker);
    }

    pub fn turn(&mut self, scene: &mut Scene) {
        let until = self.stalled_until.max(self.asleep_until);
        if scene.now < until {
            return scene.wake(until, Wake::Broker);
        }
        if self.running.is_none() {
            if scene.now < self.back_at {
                return scene.wake(self.back_at, Wake::Broker);
            }
            self.start(scene);
        }
        let crash = self.crash.take();
        let Some(running) = &mut self.running else { return };
        running.wake_up(&mut self.stopped, scene.now - self.behind, scene.now);
        running.receive(scene);
        self.dead.retain(|(at, session)| *at > scene.now || !running.bury(*session, scene));
        running.make_rounds(scene);
        running.desk.tick(running.now.at_broker);
        running.look(scene);
        if !running.is_behind() {
            scene.oracle.at_rest(running.desk.table(), running.now.at_broker);
        }
        if crash == Some(Crash::BeforeCommit) {
            return self.die(scene);
        }
        let mut spared = match crash {
            Some(Crash::AfterLetters(letters)) => letters,
            Some(_) => 0,
            None => usize::MAX,
        };
        running.books.journal().fill_disk(scene.now < self.full_until);
        loop {
            if running.journal(scene) == Log::Folded {
                self.log_lengths.clear();
            }
            running.desk.hand_over();
            running.deliver(scene, &mut spared);
            if !running.desk.is_dirty() {
                scene.oracle.written();
            }
            if spared == 0 {
                return self.die(scene);
            }
            if !running.desk.has_letters() {
                break;
            }
        }
        running.counter.answer(running.desk.table(), running.now, scene);
        running.due = running.next_turn();
        if let Some(at) = running.due {
            scene.wake(at + self.stopped + self.behind, Wake::Broker);
        }
        self.note_log_length();
    }

    /// The process is killed; it comes back after `away`.
    pub fn die(&mut self, scene: &mut Scene) {
        let Some(running) = self.running.take() else { return };
        running.counter.break_off(scene);
        let away = match scene.chance.below(8) {
            0 if !scene.calm => scene.chance.millis(5_000..40_000),
            1..4 => scene.chance.millis(200..5_000),
            _ => scene.chance.millis(1..200),
        };
        scene.note(|| format!("broker: dies, back in {away:?}"));
        self.back_at = scene.now + away;
        // One that cannot write does not begin.
        self.full_until = Time::ZERO;
        scene.open = false;
        for id in scene.net.ids() {
            scene.break_off(id);
            scene.broker_leaves(id);
        }
        scene.wake(self.back_at, Wake::Broker);
    }

    /// The machine goes down, and with it the end of the log.
    pub fn lose_power(&mut self, scene: &mut Scene) {
        self.note_log_length();
        self.die(scene);
        self.begins_anew = true;
        self.boots += 1;
        self.dead.clear();
        let Some(synced) = self.log_lengths.first().copied() else { return };
        let kept = *scene.chance.pick(&self.log_lengths);
        // A commit under way is torn anywhere.
        let torn = scene.chance.below(4_000) as u64;
        let log = fs::File::options().write(true).open(self.log()).unwrap();
        log.set_len(kept.saturating_sub(torn).max(synced)).unwrap();
        let _ = fs::remove_file(self.state_dir.path().join(format!("{JOURNAL_NAME}-shm")));
        scene.note(|| format!("broker: the log is cut to {kept} less {torn}"));
    }

    /// Panics unless nothing is left of anybody.
    pub fn must_be_empty(&self) {
        let running = self.running.as_ref().expect("it is back by now");
        let table = running.desk.table();
        assert_eq!(table.tickets_after(Ticket(0), usize::MAX), [], "claims are left");
        assert_eq!(table.sessions().count(), 0, "sessions are left");
        assert_eq!(running.books.journal().rows(), 0, "the journal keeps what is gone");
    }

    /// Returns what stands in the table, for people.
    pub fn board(&self) -> Vec<String> {
        let Some(running) = &self.running else { return Vec::new() };
        let table = running.desk.table();
        let shown = |standing: Standing| {
            let Standing { ticket, claim, state, .. } = standing;
            let (op, places) = (claim.want().op, &claim.want().places);
            let names: Vec<_> = places.iter().map(|place| (&place.path, place.node)).collect();
            format!("{ticket} {:?} {:?} {op:?} {names:?} {state:?}", claim.owner, claim.party)
        };
        table.standings(table.tickets_after(Ticket(0), usize::MAX)).map(shown).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.running.as_ref().is_some_and(|running| {
            let table = running.desk.table();
            let is_free = table.tickets_after(Ticket(0), 1).is_empty();
            is_free && table.sessions().next().is_none() && !running.desk.is_dirty()
        })
    }

    fn start(&mut self, scene: &mut Scene) {
        self.stopped = Duration::ZERO;
        if std::mem::take(&mut self.begins_anew) {
            self.behind = scene.now.since(BOOT);
        }
        let now = Now { at_broker: scene.now - self.behind, for_clients: scene.now };
        let boot = format!("boot {}", self.boots);
        let (mut journal, memory) =
            Journal::open(self.state_dir.path(), &boot, now.at_broker).unwrap();
        journal.forgo_order();
        let loss = memory.loss;
        let epoch = memory.epoch.0;
        let terms = Terms {
            lease_session: LEASE,
            lease_stateless: LEASE,
            max_hold: None,
            acquire_timeout: None,
        };
        let info = BrokerInfo { epoch, version: String::new(), pid: 1, state_dir: Vec::new() };
        scene.note(|| format!("broker: begins run {epoch}, lost: {loss:?}"));
        let (log, pen) = Audit::unkept(memory.epoch);
        let metrics = Arc::new(Metrics::new());
        scene.post.lose_arrived(scene.now);
        let parts = Parts { terms, info, pen, log, inbox: self.inbox.clone(), metrics };
        let desk = Desk::restore(memory, parts, now.at_broker);
        scene.oracle.after_restart(desk.table(), loss, now.at_broker);
        let (books, heard) = (Books::new(journal), BTreeMap::new());
        self.running = Some(Running {
            desk,
            books,
            now,
            heard,
            rounds: Rounds::default(),
            counter: Counter::default(),
            due: None,
        });
        scene.open = true;
        self.elsewhere_ms = 0;
        self.log_lengths.clear();
        self.note_log_length();
    }

    fn note_log_length(&mut self) {
        let synced_ms = self.running.as_ref().map_or(0, |r| r.books.journal().elsewhere_ms());
        if std::mem::replace(&mut self.elsewhere_ms, synced_ms) < synced_ms {
            self.log_lengths.clear();
        }
        let length = fs::metadata(self.log()).map_or(0, |log| log.len());
        if self.log_lengths.last() != Some(&length) {
            self.log_lengths.push(length);
        }
    }

    fn log(&self) -> PathBuf {
        self.state_dir.path().join(format!("{JOURNAL_NAME}-wal"))
    }
}

impl Running {
    /// Reads the clocks. The broker's own goes back if it wakes up late.
    fn wake_up(&mut self, stopped: &mut Duration, machine: Time, now: Time) {
        if let Some(due) = self.due {
            *stopped += clock::time_lost(machine - *stopped, due, self.now.at_broker);
        }
        self.now = Now { at_broker: machine - *stopped, for_clients: now };
    }

    fn look(&self, scene: &mut Scene) {
        scene.oracle.after(self.desk.table(), self.now);
    }

    /// Returns whether it put off what is due.
    fn is_behind(&self) -> bool {
        let is_due = self.desk.deadline().is_some_and(|at| at <= self.now.at_broker);
        is_due || self.desk.stands_still()
    }

    fn journal(&mut self, scene: &mut Scene) -> Log {
        let now = self.now.at_broker;
        // A batch that comes after one that failed folds the log before.
        let log = if self.desk.stands_still() { Log::Folded } else { Log::Longer };
        let Err(error) = self.books.settle(&mut self.desk, now) else { return log };
        scene.note(|| format!("broker: writes nothing: {error}"));
        if !self.desk.stands_still() {
            scene.oracle.halts(now);
        }
        self.desk.stand_still(now, journal::standstill(&error), error.to_string());
        self.look(scene);
        log
    }

    fn receive(&mut self, scene: &mut Scene) {
        for id in scene.net.ids() {
            while let Some(parcel) = scene.net.heard_by_broker(id, scene.now) {
                match parcel {
                    Parcel::Begin => self.admit(id, scene),
                    Parcel::Said(message) => self.hear(id, message, scene),
                    Parcel::End => self.part(id, self.now.at_broker, scene),
                }
                self.look(scene);
            }
        }
        while let Some((id, stir)) = scene.post.heard_by_broker(scene.now) {
            scene.note(|| format!("broker: {id} {stir:?}"));
            if let Some((call, heard)) = self.counter.attend(id, stir, scene) {
                scene.oracle.hears_call(heard);
                self.desk.call(self.now.at_broker, call);
                self.look(scene);
            }
        }
    }

    fn admit(&mut self, id: ConnectionId, scene: &mut Scene) {
        scene.oracle.begins(id, self.now.at_broker);
        let rights = match scene.net.client_of(id) {
            Some(client) if client % 2 == 0 => Rights::Admin,
            _ => Rights::Lock,
        };
        self.desk.enter(id, Guest { way: Way::Local(None), rights });
        self.heard.insert(id, self.now.at_broker);
        self.rounds.soon(self.now.at_broker);
    }

    fn hear(&mut self, id: ConnectionId, message: ClientMessage, scene: &mut Scene) {
        if !matches!(message, ClientMessage::Ping) {
            scene.note(|| format!("broker: hears {} {}", id.0, shown(&message)));
        }
        let now = self.now.at_broker;
        match self.sends_away(&message) {
            true => scene.oracle.parts(id, now),
            false => scene.oracle.hears(id, &message, now),
        }
        if let ClientMessage::Query { query, .. } = &message {
            match query {
                Query::Break { ticket, .. } => scene.oracle.may_end(Ticket(*ticket), now),
                Query::Recall { ticket, within, .. } => {
                    scene.oracle.may_end(Ticket(*ticket), now + *within);
                }
                Query::Locks { .. }
                | Query::Why { .. }
                | Query::Status
                | Query::Log(_)
                | Query::Sessions { .. } => {}
            }
        }
        self.heard.insert(id, now);
        self.desk.hear(now, id, message);
    }

    /// Who comes back while nothing can be written is not heard.
    fn sends_away(&self, message: &ClientMessage) -> bool {
        let is_known = |resume: Resume| {
            self.desk.table().sessions().any(|session| session == SessionId(resume.session))
        };
        let comes_back = match message {
            ClientMessage::Hello(hello) => hello.resume.is_some_and(is_known),
            ClientMessage::Listed => true,
            _ => false,
        };
        comes_back && self.desk.stands_still()
    }

    fn part(&mut self, id: ConnectionId, heard: Time, scene: &mut Scene) {
        scene.note(|| format!("broker: parts with {}", id.0));
        self.heard.remove(&id);
        scene.oracle.parts(id, heard);
        self.desk.leave(self.now.at_broker, id, heard);
        scene.broker_leaves(id);
    }

    /// A client's process is dead, as the kernel says.
    fn bury(&mut self, session: SessionId, scene: &mut Scene) -> bool {
        scene.note(|| format!("broker: buries {session:?}"));
        scene.oracle.buried(session);
        self.desk.close(self.now.at_broker, session);
        self.look(scene);
        true
    }

    fn make_rounds(&mut self, scene: &mut Scene) {
        let now = self.now.at_broker;
        if !self.rounds.begin(now) {
            return;
        }
        let allowed = |id| self.desk.silence_allowed(id);
        let clients = self.heard.iter().map(|(id, heard)| (*id, *heard, allowed(*id)));
        for (id, heard) in self.rounds.silent(now, clients) {
            scene.note(|| format!("broker: {} was silent for too long", id.0));
            self.part(id, heard, scene);
            self.look(scene);
        }
    }

    fn deliver(&mut self, scene: &mut Scene, spared: &mut usize) {
        for letter in self.desk.take_letters() {
            if *spared == 0 {
                return;
            }
            *spared -= 1;
            match letter {
                Letter::Client(id, message) => self.tell(id, message, scene),
                Letter::HangUp(id) => {
                    self.part(id, self.now.at_broker, scene);
                    self.look(scene);
                }
                Letter::Stateless(reply) => self.reply(reply, scene),
                Letter::Watch(..) | Letter::Unwatch(_) | Letter::Probe(_) | Letter::Unprobe(_) => {}
            }
        }
    }

    /// N3: what is told is in the journal.
    fn tell(&mut self, id: ConnectionId, message: ServerMessage, scene: &mut Scene) {
        match &message {
            ServerMessage::Granted(granted) => {
                let record = self.books.journal().remembers(granted.ticket);
                let stored =
                    matches!(record, Some(Record::Held { token, .. }) if token == granted.token);
                // Another letter of the same batch may say that it is gone again.
                let stands = self.desk.table().record(granted.ticket).is_some();
                assert!(stored || !stands, "N3: {granted:?} is not in the journal");
            }
            ServerMessage::Waiting { ticket, .. } => {
                let stored = self.books.journal().remembers(*ticket).is_some();
                let stands = self.desk.table().record(*ticket).is_some();
                assert!(stored || !stands, "N3: the place {ticket} is not in the journal");
            }
            ServerMessage::Refused { .. } => scene.oracle.tally.refused += 1,
            ServerMessage::Welcome(welcome) => {
                self.rounds.lease_begins(self.now.at_broker, welcome.lease);
            }
            _ => {}
        }
        if !matches!(message, ServerMessage::Pong) {
            scene.note(|| format!("broker: tells {} {message:?}", id.0));
        }
        scene.oracle.tells(id, &message);
        scene.tell(id, message);
    }

    /// N3, as above. What nobody waits for any more is taken back.
    fn reply(&mut self, reply: Reply, scene: &mut Scene) {
        let Reply { answer, outcome } = reply;
        if let Outcome::Granted(lock) = &outcome {
            let ticket = Ticket(lock.ticket);
            let stored =
                matches!(self.books.journal().remembers(ticket), Some(Record::Held { .. }));
            let stands = self.desk.table().record(ticket).is_some();
            assert!(stored || !stands, "N3: {lock:?} is not in the journal");
            scene.oracle.tells_of_lock(ticket);
        }
        if let Err(Outcome::Granted(lock)) = answer.send(outcome) {
            let whose = whose_is(&lock.lock_id);
            scene.oracle.hears_call(Heard { whose, wish: Wish::LetsGo });
            self.desk.undelivered(self.now.at_broker, &lock);
            self.look(scene);
        }
    }

    fn next_turn(&self) -> Option<Time> {
        if self.desk.is_behind() {
            return Some(self.now.at_broker);
        }
        [self.desk.deadline(), self.books.deadline(), self.rounds.deadline()]
            .into_iter()
            .flatten()
            .min()
    }
}

fn shown(message: &ClientMessage) -> String {
    match message {
        ClientMessage::Acquire(acquire) => {
            let names: Vec<String> = acquire.want.places.iter().map(|p| format!("{p:?}")).collect();
            format!("{} {:?} {}", acquire.owner, acquire.want.op, names.join(" "))
        }
        ClientMessage::Held { acquire, token } => format!("held {} {token}", acquire.owner),
        ClientMessage::Waits { acquire } => format!("waits {}", acquire.owner),
        ClientMessage::Hello(hello) => format!("hello {} {:?}", hello.client, hello.resume),
        ClientMessage::Attach { space, .. } => format!("attach {}", space.0),
        other => format!("{other:?}"),
    }
}
