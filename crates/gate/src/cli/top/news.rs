//! Where news come from: each source is a thread, and all tell one listener.
//!
//! Nobody asks by itself: the listener says when it is ready for more, so that a board never asks
//! faster than it draws.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use gate_api::mounts::{self, Mount};
use gate_api::wire::{Locks, Scope, Status};
use gate_api::{QueryError, Quiet, Session, Watcher};
use gate_core::lock::event::Revocation;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use rustix::process::Signal;

use super::picture::{Order, OrderKind};
use crate::cli::why;
use crate::duration::rough;
use crate::failure::Failure;
use crate::signals::Signals;
use crate::target::Target;

/// How long one question for changes may stay open before it is asked again.
const NEWS_PATIENCE: Duration = Duration::from_secs(60);
/// How long a holder that is asked has to let go, as with `gate recall`.
const RECALL_WITHIN: Duration = Duration::from_secs(30);
/// Signals that end the board, or stop it.
const KEPT: [Signal; 5] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::TSTP];

/// Something new.
pub enum News {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// The terminal has nothing more to say.
    Deaf,
    /// A signal came.
    Signalled(Signal),
    /// Who holds and who waits, in that epoch.
    Locks(Result<(u64, Locks), QueryError>),
    /// How the broker is, and the views there are.
    Status(Result<Box<Status>, QueryError>, Vec<Mount>),
    /// All about a path.
    Why(Scope, String),
    /// What became of an order.
    Ordered(String),
    /// The broker is away.
    Away,
    /// It is back.
    Back,
}

/// A question to the broker that is answered at once.
pub enum Question {
    Status,
    Why(Scope),
    Order(Order),
}

/// Asks the broker, on threads of its own.
pub struct Asker {
    changes: Sender<Option<u64>>,
    questions: Sender<Question>,
}

impl Asker {
    /// Lets answers go to a listener.
    pub fn start(session: &Session, tell: &Sender<News>) -> Asker {
        let (changes, asked) = mpsc::channel();
        let (own, tell_locks) = (session.clone(), tell.clone());
        thread::spawn(move || answer_changes(&own, &asked, &tell_locks));
        let (questions, asked) = mpsc::channel();
        let (own, tell) = (session.clone(), tell.clone());
        thread::spawn(move || answer_questions(&own, &asked, &tell));
        Asker { changes, questions }
    }

    /// Asks for the locks, once they are newer than that.
    pub fn ask_locks(&self, newer_than: Option<u64>) {
        self.changes.send(newer_than).expect("the thread lives as long as this sender");
    }

    /// Asks something else.
    pub fn ask(&self, question: Question) {
        self.questions.send(question).expect("the thread lives as long as this sender");
    }
}

/// Hears the session.
pub struct Ear(pub Sender<News>);

impl Watcher for Ear {
    fn revoked(&self, _owner: u64, _why: Revocation, _reason: &str) -> Quiet {
        Quiet::Now
    }

    fn contended(&self, _owner: u64) {}

    fn away(&self) {
        // Who no longer listens is ending.
        let _ = self.0.send(News::Away);
    }

    fn back(&self) {
        let _ = self.0.send(News::Back);
    }
}

/// Hears signals; before any other thread starts.
pub fn listen_to_signals(tell: Sender<News>) -> Result<(), Failure> {
    let signals = Signals::keep(&KEPT)
        .map_err(|error| Failure::new("cannot listen to signals", error, "try again"))?;
    thread::spawn(move || {
        while let Ok(received) = signals.next() {
            if tell.send(News::Signalled(received.signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Hears the terminal.
pub fn listen_to_keys(tell: Sender<News>) {
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            let news = match event {
                Event::Key(key) if key.kind != KeyEventKind::Release => News::Key(key),
                Event::Resize(..) => News::Resized,
                _ => continue,
            };
            if tell.send(news).is_err() {
                return;
            }
        }
        let _ = tell.send(News::Deaf);
    });
}

fn answer_changes(session: &Session, asked: &Receiver<Option<u64>>, tell: &Sender<News>) {
    for newer_than in asked {
        let locks = loop {
            match session.locks(&Scope::Everything, newer_than, NEWS_PATIENCE) {
                Err(QueryError::Unchanged) => {}
                answer => break answer,
            }
        };
        let news = News::Locks(locks.map(|locks| (session.broker().epoch, locks)));
        if tell.send(news).is_err() {
            return;
        }
    }
}

fn answer_questions(session: &Session, asked: &Receiver<Question>, tell: &Sender<News>) {
    for question in asked {
        let news = match question {
            // A machine without a table of mounts shows none.
            Question::Status => {
                News::Status(session.status().map(Box::new), mounts::all().unwrap_or_default())
            }
            Question::Why(scope) => {
                let text = match session.why(scope.clone()) {
                    Ok(why) => why::tell(why),
                    Err(error) => format!("no answer: {error}"),
                };
                News::Why(scope, text)
            }
            Question::Order(order) => News::Ordered(carry_out(session, order)),
        };
        if tell.send(news).is_err() {
            return;
        }
    }
}

/// Returns what became of it, in one line.
fn carry_out(session: &Session, order: Order) -> String {
    let Order { what, ticket, reason } = order;
    let target = Target { session: session.clone(), ticket, command: "gate top" };
    let (done, told) = match what {
        OrderKind::Break => (
            target.order(|session, ticket| session.break_lock(ticket, reason.clone())),
            format!("ticket {ticket} is broken"),
        ),
        OrderKind::Recall => (
            target.order(|session, ticket| session.recall(ticket, reason.clone(), RECALL_WITHIN)),
            format!("ticket {ticket} has {} to let go", rough(RECALL_WITHIN)),
        ),
    };
    match done {
        Ok(()) => told,
        Err(failure) => failure.to_string().lines().collect::<Vec<_>>().join("; "),
    }
}
