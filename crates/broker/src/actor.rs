//! The one thread that decides. Five verbs: receive, decide, journal, apply, tell.
//!
//! It is itself the event loop of all connections, so a request costs no hop between threads. Each
//! turn takes what came, decides it, commits all of it at once ([`crate::books`]), and only then tells
//! anybody (N3).

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use gate_api::bearer::Rights;
use gate_api::process;
use gate_api::wire::ServerMessage;
use gate_core::id::SessionId;
use gate_core::lock::claim::Process;
use gate_core::time::Time;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustc_hash::FxHashMap;

use crate::backlog::Backlog;
use crate::books::Books;
use crate::bounds::CONNECTIONS_MAX;
use crate::clock;
use crate::desk::{Desk, Guest, Letter, Way};
use crate::doors::{Arrival, Doors, Read};
use crate::journal::{self, Journal};
use crate::kin::ToProber;
use crate::mail::{ConnectionId, Mail};
use crate::rounds::Rounds;
use crate::stateless::{Outcome, Reply};

pub(crate) const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
const FIRST_CONNECTION: usize = 2;
/// Tokens with this bit belong to processes that are watched.
const PROCESS_BIT: usize = 1 << 62;

/// The pauses after commits that fail before whoever waits for them is told no: many a disk has room
/// again in a moment.
const RETRY_PAUSES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];
/// Letters from other threads that are opened in one turn.
const MAIL_PER_TURN_MAX: usize = 128;
/// Messages of one client heard in one turn.
const MESSAGES_PER_CLIENT_MAX: usize = 64;
/// Messages heard in one turn of all clients that had said more than was heard in their last.
const BACKLOG_PER_TURN_MAX: usize = 256;
/// How many of these clients have a turn at once.
const BACKLOG_CLIENTS_MAX: usize = 16;
/// Clients let in in one turn.
const ACCEPTS_PER_TURN_MAX: usize = 4;
const EVENTS_MAX: usize = 256;

pub(crate) struct Actor {
    poll: Poll,
    listener: UnixListener,
    mail: Receiver<Mail>,
    desk: Desk,
    doors: Doors,
    books: Books,
    prober: Sender<ToProber>,
    watched: FxHashMap<Token, (SessionId, OwnedFd)>,
    watches: FxHashMap<SessionId, Token>,
    next_watch: usize,
    /// Connections that may have something to read, and mail that may have come meanwhile.
    unread: BTreeSet<ConnectionId>,
    /// Connections that said more than was heard.
    backlog: Backlog,
    unopened: bool,
    /// Whether somebody may stand before the door.
    unaccepted: bool,
    /// When to look after what no event tells of, if there is such a thing.
    rounds: Rounds,
}

/// What the thread begins with.
pub(crate) struct Parts {
    pub poll: Poll,
    pub listener: UnixListener,
    pub mail: Receiver<Mail>,
    pub desk: Desk,
    pub journal: Journal,
    pub prober: Sender<ToProber>,
}

impl Actor {
    pub fn new(parts: Parts) -> io::Result<Actor> {
        let Parts { poll, listener, mail, desk, journal, prober } = parts;
        listener.set_nonblocking(true)?;
        let mut source = SourceFd(&listener.as_raw_fd());
        poll.registry().register(&mut source, LISTENER, Interest::READABLE)?;
        let doors = Doors::new(poll.registry().try_clone()?, FIRST_CONNECTION);
        Ok(Actor {
            poll,
            listener,
            mail,
            desk,
            doors,
            books: Books::new(journal),
            prober,
            watched: FxHashMap::default(),
            watches: FxHashMap::default(),
            next_watch: PROCESS_BIT,
            unread: BTreeSet::new(),
            backlog: Backlog::default(),
            unopened: true,
            unaccepted: true,
            rounds: Rounds::default(),
        })
    }

    /// Runs until it is told to stop.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut stopping = false;
        let mut now = clock::now();
        while !stopping {
            // What the last run left must be journaled and told first.
            self.settle_accounts(false);
            let due = self.due();
            match self.poll.poll(&mut events, self.patience(due)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            if let Some(due) = due {
                clock::wake(due, now);
            }
            now = clock::now();
            for event in &events {
                self.receive(event, now);
            }
            self.accept(now);
            self.read_on(now);
            stopping = self.open_mail(now);
            self.make_rounds(now);
            self.desk.answer_some();
            self.desk.tick(now);
        }
        self.settle_accounts(true);
        self.desk.stop();
        Ok(())
    }

    /// Returns when something is to be done by the clock.
    fn due(&self) -> Option<Time> {
        let due = [self.desk.deadline(), self.books.deadline(), self.rounds.deadline()];
        due.into_iter().flatten().min()
    }

    /// Returns how long nothing is to be done.
    fn patience(&self, due: Option<Time>) -> Option<Duration> {
        let is_unheard = !self.unread.is_empty() || self.backlog.len() > 0;
        let is_busy = is_unheard || self.unopened || self.unaccepted;
        if is_busy || self.desk.is_behind() || self.desk.has_questions() {
            return Some(Duration::ZERO);
        }
        Some(due?.since(clock::now()))
    }

    fn receive(&mut self, event: &Event, now: Time) {
        match event.token() {
            WAKER => self.unopened = true,
            LISTENER => self.unaccepted = true,
            Token(process) if process & PROCESS_BIT != 0 => self.bury(Token(process), now),
            Token(connection) => {
                let connection = ConnectionId(connection);
                if event.is_writable() {
                    self.doors.unblock(connection);
                }
                if event.is_readable() || event.is_read_closed() {
                    self.unread.insert(connection);
                }
            }
        }
    }

    fn accept(&mut self, now: Time) {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            if !self.unaccepted {
                return;
            }
            let stream = match self.listener.accept() {
                Ok((stream, _)) => OwnedFd::from(stream),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.unaccepted = false;
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::warn!(%error, "a client could not be let in");
                        self.rounds.soon(now);
                    }
                    return;
                }
            };
            match peer_of(&stream) {
                Some(peer) if is_trusted(peer.uid) => {
                    let way = Way::Local(process::of_pid(peer.pid));
                    self.admit(Arrival::local(stream), Guest { way, rights: Rights::Admin }, now);
                }
                _ => tracing::warn!("a client of another user was turned away"),
            }
        }
    }

    fn admit(&mut self, arrival: Arrival, guest: Guest, now: Time) {
        if self.doors.len() >= CONNECTIONS_MAX {
            tracing::warn!("a client was turned away: too many connections");
            return;
        }
        match self.doors.admit(arrival, now) {
            Ok(id) => {
                self.desk.enter(id, guest);
                self.rounds.soon(now);
                self.unread.insert(id);
            }
            Err(error) => tracing::warn!(%error, "a client could not be let in"),
        }
    }

    /// Reads a turn of every connection that may have something to say; of those that said more
    /// than was heard only some, in order, so that any number of them is no burden to the others.
    fn read_on(&mut self, now: Time) {
        let mut unread = std::mem::take(&mut self.unread);
        unread.retain(|id| !self.backlog.contains(id));
        for id in unread {
            self.read(id, MESSAGES_PER_CLIENT_MAX, now);
        }
        let clients = self.backlog.len().clamp(1, BACKLOG_CLIENTS_MAX);
        let most = (BACKLOG_PER_TURN_MAX / clients).min(MESSAGES_PER_CLIENT_MAX);
        for _ in 0..clients {
            let Some(id) = self.backlog.pop_front() else { return };
            self.read(id, most, now);
        }
    }

    /// Hears so many messages of a client, none after a question that is not answered yet.
    fn read(&mut self, id: ConnectionId, most: usize, now: Time) {
        let desk = &mut self.desk;
        if desk.awaits_answer(id) {
            return;
        }
        let mut heard = 0;
        let hear = |message| {
            desk.hear(now, id, message);
            heard += 1;
            match heard >= most || desk.awaits_answer(id) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        match self.doors.read(id, now, hear) {
            Read::Drained => {}
            Read::Partly => self.backlog.push_back(id),
            Read::Gone => self.part(id, now),
        }
    }

    fn part(&mut self, id: ConnectionId, now: Time) {
        self.doors.close(id);
        self.desk.leave(now, id, now);
    }

    /// Returns whether it is time to stop.
    fn open_mail(&mut self, now: Time) -> bool {
        for _ in 0..MAIL_PER_TURN_MAX {
            match self.mail.try_recv() {
                Ok(Mail::Stop) => return true,
                Ok(mail) => self.open(mail, now),
                Err(_) => {
                    self.unopened = false;
                    return false;
                }
            }
        }
        false
    }

    fn open(&mut self, mail: Mail, now: Time) {
        match mail {
            Mail::Enter { door, answers } => {
                let id = self.doors.admit_inside(door, answers);
                let way = Way::Local(Some(process::own()));
                self.desk.enter(id, Guest { way, rights: Rights::Admin });
            }
            Mail::Said { door, message } => {
                if let Some(id) = self.doors.inside(door) {
                    self.desk.hear(now, id, message);
                }
            }
            Mail::Left { door } => {
                if let Some(id) = self.doors.inside(door) {
                    self.part(id, now);
                }
            }
            Mail::Upgraded { socket, first_bytes, rights, place } => {
                let arrival = Arrival { fd: socket, first_bytes, place: Some(place) };
                self.admit(arrival, Guest { way: Way::Tcp, rights }, now);
            }
            Mail::Stateless(call) => self.desk.call(now, call),
            Mail::Kin { waiter, holder } => self.desk.kin(now, waiter, holder),
            Mail::Probe(tickets) => self.desk.probe(&tickets),
            Mail::AskLog(question) => self.desk.ask_log(question),
            Mail::Figures(answer) => {
                // Who asked may be gone.
                let _ = answer.send(self.desk.figures());
            }
            Mail::Answered { connection, id, reply } => self.desk.answered(connection, id, reply),
            Mail::Stop => {}
        }
    }

    fn bury(&mut self, token: Token, now: Time) {
        if let Some((session, pidfd)) = self.watched.remove(&token) {
            let _ = self.poll.registry().deregister(&mut SourceFd(&pidfd.as_raw_fd()));
            self.watches.remove(&session);
            tracing::debug!(session = session.0, "a client's process ended");
            self.desk.close(now, session);
        }
    }

    /// Parts from clients that were silent for a lease: it ran out.
    fn make_rounds(&mut self, now: Time) {
        if !self.rounds.begin(now) {
            return;
        }
        self.unaccepted = true;
        let heard = self.doors.last_heard().into_iter();
        let clients = heard.map(|(id, heard)| (id, heard, self.desk.silence_allowed(id)));
        for (id, heard) in self.rounds.silent(now, clients) {
            tracing::info!(connection = id.0, "a client was silent for its lease");
            self.doors.close(id);
            self.desk.leave(now, id, heard);
        }
    }

    /// Journals what changed, and tells whoever is to be told; until nothing is left to tell.
    fn settle_accounts(&mut self, all: bool) {
        loop {
            let now = clock::now();
            self.journal(all, now);
            self.desk.hand_over();
            self.deliver(now);
            let lost = self.doors.flush();
            self.desk.told();
            self.unread.extend(self.doors.take_heard_again());
            for id in &lost {
                self.part(*id, now);
            }
            if lost.is_empty() && !self.desk.has_letters() {
                return;
            }
        }
    }

    /// Journals what must be by now. Where that cannot be, the desk stands still.
    fn journal(&mut self, all: bool, now: Time) {
        let mut written = match all {
            true => self.books.commit(&mut self.desk, now),
            false => self.books.settle(&mut self.desk, now),
        };
        for pause in RETRY_PAUSES {
            if written.is_ok() || self.desk.stands_still() {
                break;
            }
            // The journal has no event to wait for: a disk does not tell when it has room.
            let until = rustix::time::Timespec::try_from(pause).ok();
            let _ = rustix::event::poll(&mut [], until.as_ref());
            written = self.books.commit(&mut self.desk, clock::now());
        }
        if let Err(error) = written {
            self.desk.stand_still(now, journal::standstill(&error), error.to_string());
        }
    }

    fn deliver(&mut self, now: Time) {
        for letter in self.desk.take_letters() {
            match letter {
                Letter::Client(id, message) => {
                    self.doors.send(id, &message);
                    match message {
                        ServerMessage::Welcome(welcome) => {
                            self.rounds.lease_begins(now, welcome.lease);
                        }
                        // It was not heard while it waited for that.
                        ServerMessage::Reply { .. } => drop(self.unread.insert(id)),
                        _ => {}
                    }
                }
                Letter::HangUp(id) => self.part(id, now),
                Letter::Stateless(Reply { answer, outcome }) => {
                    if let Err(Outcome::Granted(lock)) = answer.send(outcome) {
                        self.desk.undelivered(now, &lock);
                    }
                }
                Letter::Watch(session, process) => self.watch(session, process, now),
                Letter::Unwatch(session) => {
                    if let Some(token) = self.watches.remove(&session) {
                        self.watched.remove(&token);
                    }
                }
                Letter::Probe(case) => {
                    // Without the prober there are no kin, which costs patience alone.
                    let _ = self.prober.send(ToProber::Case(case));
                }
                Letter::Unprobe(ticket) => {
                    // As above.
                    let _ = self.prober.send(ToProber::NoCase(ticket));
                }
            }
        }
    }

    fn watch(&mut self, session: SessionId, process: Process, now: Time) {
        let Some(pidfd) = process::watch(process) else {
            if !process::is_alive(process) {
                self.desk.close(now, session);
            }
            return;
        };
        let token = Token(self.next_watch);
        self.next_watch += 1;
        let mut source = SourceFd(&pidfd.as_raw_fd());
        match self.poll.registry().register(&mut source, token, Interest::READABLE) {
            Ok(()) => {
                self.watches.insert(session, token);
                self.watched.insert(token, (session, pidfd));
            }
            Err(error) => tracing::warn!(%error, "a client's process cannot be watched"),
        }
    }
}

/// Who is at the other end of a Unix socket.
struct Peer {
    pid: u32,
    uid: u32,
}

/// Returns whether processes of this user may speak to this broker at all.
pub(crate) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

fn peer_of(stream: &OwnedFd) -> Option<Peer> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).ok()?;
    // SAFETY: the kernel writes at most `length` bytes, the size of `peer`, and nothing else.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    // A peer beyond this pid namespace has the number 0.
    (outcome == 0).then_some(Peer { pid: u32::try_from(peer.pid).ok()?, uid: peer.uid })
}
