//! What the session's thread does: hears the broker, calls owners back, reconnects.
//!
//! It is one at a time, which may be relieved: see [`post`](super::post).

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::standing::Moment;
use super::state::Call;
use super::{Answer, Quiet, Shared};
use crate::frame::FrameError;
use crate::link::{Broken, ConnectError, Connection, Connector, Incoming};
use crate::sync::{self, thread};
use crate::wire::{ClientMessage, Hello, Known, ServerMessage, Welcome};

/// How long a broker may take to greet.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);
/// The first pause between two attempts to reconnect; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Connections that break sooner than that, one after the other, are not made anew before such a pause,
/// either.
const STEADY_MIN: Duration = Duration::from_secs(1);
/// The longest such pause where the broker is there and does not let this client in: that is for people
/// to mend, and who asks once they have waits for longer than that.
const PAUSE_BARRED_MAX: Duration = Duration::from_millis(500);
/// The longest such pause where the broker wants another token.
const PAUSE_DENIED_MAX: Duration = Duration::from_secs(30);
/// Silent heartbeats after which a connection counts as broken.
const SILENCES_MAX: usize = 3;

/// Connects and exchanges greetings.
pub(super) fn greet(
    connector: &dyn Connector,
    hello: &Hello,
) -> Result<(Connection, Welcome), ConnectError> {
    let mut connection = connector.connect()?;
    connection.say(&ClientMessage::Hello(hello.clone()));
    match connection.incoming.receive(Some(GREETING_PATIENCE)) {
        Ok(Some(ServerMessage::Welcome(welcome))) => Ok((connection, welcome)),
        Ok(Some(ServerMessage::Unwelcome { why })) => Err(ConnectError::Refused(why)),
        Err(Broken::Frame(FrameError::Version(theirs))) => Err(ConnectError::Version(theirs)),
        Err(Broken::Frame(error)) => Err(ConnectError::Refused(error.to_string())),
        Ok(_) | Err(Broken::Closed | Broken::Io(_)) => Err(ConnectError::Silent),
    }
}

/// Starts the thread; `greeted` before its connection said anything.
pub(super) fn start(
    shared: &Arc<Shared>,
    incoming: Box<dyn Incoming>,
    greeted: Moment,
) -> io::Result<()> {
    spawn(shared, Some(Link::new(incoming, greeted)))
}

fn spawn(shared: &Arc<Shared>, link: Option<Link>) -> io::Result<()> {
    let shared = shared.clone();
    let run = move || shared.serve(link);
    thread::Builder::new().name("gate-session".into()).spawn(run).map(drop)
}

/// The way back from the broker, while it holds.
pub(super) struct Link {
    incoming: Box<dyn Incoming>,
    greeted: Moment,
    /// The broker heard of the session after that.
    heard: Moment,
    /// When it is to hear of it next.
    next: Option<Instant>,
    /// When what it refused to serve is asked for next.
    attach_next: Option<Instant>,
}

impl Link {
    fn new(incoming: Box<dyn Incoming>, greeted: Moment) -> Link {
        Link { incoming, greeted, heard: greeted, next: None, attach_next: None }
    }
}

/// Why a thread hears the broker no more.
enum Heard {
    Goodbye,
    Relieved,
}

/// Why a thread listens no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listened {
    Broken,
    Relieved,
}

impl Shared {
    /// Serves the session until it says good-bye, or another thread does; without a link stands by
    /// first.
    fn serve(self: &Arc<Self>, mut link: Option<Link>) {
        while let Some(connected) = link.or_else(|| self.post.stand_by()) {
            if self.post.wants_another()
                && let Err(error) = spawn(self, None)
            {
                tracing::debug!(%error, "the session has one thread");
                self.post.has_no_other();
            }
            match self.hear(connected) {
                Heard::Goodbye => return self.post.end(),
                Heard::Relieved if self.post.may_stay() => link = None,
                Heard::Relieved => return,
            }
        }
    }

    fn hear(&self, mut link: Link) -> Heard {
        let mut pause = Duration::ZERO;
        loop {
            let connected_at = sync::now();
            if self.listen(link) == Listened::Relieved {
                return Heard::Relieved;
            }
            if sync::now().duration_since(connected_at) >= STEADY_MIN {
                pause = Duration::ZERO;
            }
            link = match self.return_to_broker(pause) {
                Some(another) => another,
                None => return Heard::Goodbye,
            };
            pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        }
    }

    /// Hears the broker until the connection breaks, or proves nothing any more: what was said to a
    /// session whose lease may be over, such as a grant, may no longer be so.
    fn listen(&self, mut link: Link) -> Listened {
        let (heartbeat, lease) = {
            let state = self.state();
            (state.heartbeat(), state.lease())
        };
        link.next = link.next.or_else(|| heartbeat.map(|pause| sync::now() + pause));
        link.attach_next = link.attach_next.or_else(|| Some(sync::now() + lease));
        loop {
            if let (Some(at), Some(pause)) = (link.next, heartbeat)
                && sync::now() >= at
            {
                if self.state().unanswered() >= SILENCES_MAX {
                    break;
                }
                self.state().ping(Moment::now());
                if link.attach_next.is_none_or(|at| sync::now() >= at) {
                    self.state().attach_refused();
                    link.attach_next = Some(sync::now() + lease);
                }
                link.next = Some(sync::now() + pause);
            }
            let patience = link.next.map(|at| at.saturating_duration_since(sync::now()));
            let message = match link.incoming.receive(patience) {
                Ok(Some(message)) => message,
                Ok(None) => continue,
                Err(broken) => {
                    if !self.state().is_closed() {
                        tracing::info!(?broken, "the connection to the broker broke");
                    }
                    break;
                }
            };
            if heartbeat.is_some() && link.heard.is_past(lease) {
                tracing::info!("the broker was not heard of for a lease");
                break;
            }
            let call = self.state().receive(message);
            match call {
                Some(Call::Proven { sent }) => {
                    link.heard = sent;
                    self.standing.extend(sent, lease);
                }
                Some(Call::Restored) => self.standing.extend(link.greeted, lease),
                Some(call @ Call::Final { .. }) => {
                    let receipt = self.post.lay_aside(link);
                    self.carry_out(Some(call));
                    match self.post.take_back(receipt) {
                        Some(laid_aside) => link = laid_aside,
                        None => return Listened::Relieved,
                    }
                }
                call => self.carry_out(call),
            }
        }
        self.state().lose(sync::now());
        Listened::Broken
    }

    /// Tries until the broker is back, after a pause; `None` once the session was closed.
    fn return_to_broker(&self, pause: Duration) -> Option<Link> {
        if self.state().is_closed() {
            return None;
        }
        self.watcher.away();
        if !self.wait(sync::now() + pause) {
            return None;
        }
        let mut pause = PAUSE_MIN;
        loop {
            self.run_errands();
            let resume = Some(self.state().resume());
            let hello = Hello { resume, ..self.hello.clone() };
            let tried = Moment::now();
            let pause_max = match greet(&*self.connector, &hello) {
                Ok((connection, welcome)) => return Some(self.resume(connection, welcome, tried)),
                Err(error) => self.take_note(&error, tried),
            };
            if !self.wait(sync::now() + pause) {
                return None;
            }
            pause = (pause * 2).min(pause_max);
        }
    }

    /// Takes note of why the broker is still away; returns the longest pause until it is tried again.
    fn take_note(&self, error: &ConnectError, tried: Moment) -> Duration {
        // A broker that starts after this gives former sessions a lease to come back.
        if error.proves_that_no_broker_runs() {
            self.standing.prolong(tried, self.state().lease());
        }
        let bar = error.bar();
        let is_barred = bar.is_some();
        // One that breaks off without a word may be the one of before.
        let is_news = !matches!(error, ConnectError::Silent) && self.state().note_bar(bar);
        match is_news {
            true => tracing::error!(%error, "the broker is back, but lets this client not in"),
            false => tracing::debug!(%error, "the broker is still away"),
        }
        match error {
            ConnectError::Unauthorized(_) | ConnectError::Token(_) => PAUSE_DENIED_MAX,
            _ if is_barred => PAUSE_BARRED_MAX,
            _ => PAUSE_MAX,
        }
    }

    fn resume(&self, connection: Connection, mut welcome: Welcome, greeted: Moment) -> Link {
        let Connection { outgoing, incoming, heartbeat } = connection;
        if self.standing.is_good() {
            welcome.known = welcome.known.to_one_who_could_act();
        }
        let (known, lease) = (welcome.known, welcome.lease);
        let lost = self.state().come_back(outgoing, heartbeat, welcome, sync::now());
        for call in lost {
            self.carry_out(Some(call));
        }
        if known == Known::Nothing {
            self.standing.extend(greeted, lease);
        }
        // Who asked while it was away is answered, too.
        self.state().ping(Moment::now());
        self.watcher.back();
        Link::new(incoming, greeted)
    }

    /// Runs errands until then; `false` once the session was closed.
    fn wait(&self, until: Instant) -> bool {
        loop {
            self.run_errands();
            let mut state = self.silent_state();
            let now = sync::now();
            if state.is_closed() {
                return false;
            }
            if now >= until {
                return true;
            }
            let next = state.next_deadline(now).unwrap_or(until).min(until);
            let pause = next.saturating_duration_since(now);
            if !pause.is_zero() {
                let waited = self.stirred.wait_timeout(state, pause);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    fn run_errands(&self) {
        loop {
            let call = self.state().next_errand(sync::now());
            if call.is_none() {
                return;
            }
            self.carry_out(call);
        }
    }

    fn carry_out(&self, call: Option<Call>) {
        match call {
            None => {}
            Some(Call::Final { mut then, answer }) => then(answer),
            Some(Call::Waiting { owner, mut then, ticket }) => {
                then(Answer::Waiting { ticket });
                self.state().give_back(owner, then);
            }
            Some(Call::Revoked { owner, why, reason }) => {
                let quiet = self.watcher.revoked(owner, why, &reason);
                if quiet == Quiet::Now {
                    self.state().release(owner, None);
                }
            }
            Some(Call::Recalled { owner, recall }) => self.watcher.recalled(owner, &recall),
            Some(Call::Contended { owner }) => self.watcher.contended(owner),
            Some(Call::Proven { .. } | Call::Restored) => {}
        }
    }
}
