//! What all that a daemon serves has at hand: its keeper of mounts, its buckets, and a client of its own broker.

use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gate_api::wire::Scope;
use gate_api::{ClientInfo, ConnectError, QueryError, Session, Watcher};
use gate_broker::Running;
use gate_core::lock::limits::TEXT_BYTES_MAX;
use gate_core::path::ViewPath;

use super::body;
use super::buckets::Buckets;
use super::keeper::Keeper;
use super::refusal::{Kind, Refusal};
use crate::board::{Board, Row};
use crate::reach::Deaf;
use crate::seen::About;
use crate::standing::Standing;
use crate::within::within;

/// What it calls itself at the broker.
const NAME: &str = "gate daemon";
/// How long the broker may take to answer.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long who is asked to let go has for it, unless said otherwise; …
pub const RECALL_WITHIN: Duration = Duration::from_secs(30);
/// … and how long at most.
const RECALL_WITHIN_MS_MAX: u64 = 24 * 3600 * 1000;

/// What is at hand; its calls wait for the broker, so they are for threads that may wait.
#[derive(Clone)]
pub struct Office {
    pub keeper: Keeper,
    pub buckets: Buckets,
    session: Arc<Session>,
}

impl Office {
    /// Comes in by the door for clients of the broker's own process.
    pub fn open(
        keeper: Keeper,
        buckets: Buckets,
        running: &Running,
    ) -> Result<Office, ConnectError> {
        let deaf: Arc<dyn Watcher> = Arc::new(Deaf);
        let session = Session::connect(running.door(), ClientInfo::named(NAME), deaf)?;
        Ok(Office { keeper, buckets, session: Arc::new(session) })
    }

    /// Returns the session at the broker.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Returns who holds and who waits, everywhere or in a place.
    pub fn locks(&self, scope: &Scope) -> Result<Board, Refusal> {
        let locks =
            self.session.locks(scope, None, ANSWER_PATIENCE).map_err(|error| match error {
                QueryError::Unknown => {
                    let hint = "`gate status` names the sources and their spaces";
                    Refusal::new(Kind::NotFound, "there is no such place", hint)
                }
                error => no_answer(error),
            })?;
        Ok(Board::new(self.session.broker().epoch, locks))
    }

    /// Returns those of them that hold for a command, or wait to.
    pub fn holds(&self) -> Result<Vec<Row>, Refusal> {
        let board = self.locks(&Scope::Everything)?;
        Ok(board.rows().iter().filter(|row| row.op == "hold").cloned().collect())
    }

    /// Returns how the broker is.
    pub fn standing(&self) -> Result<Standing, Refusal> {
        let status = self.session.status().map_err(no_answer)?;
        Ok(Standing::new(NAME.to_owned(), status))
    }

    /// Returns all clients of the broker.
    pub fn sessions(&self) -> Result<Vec<body::Session>, Refusal> {
        let lines = self.session.sessions().map_err(no_answer)?;
        Ok(lines.into_iter().map(body::Session::new).collect())
    }

    /// Takes a lock away from its holder, or sends a waiter away.
    pub fn break_lock(&self, ticket: u64, reason: &str) -> Result<(), Refusal> {
        let reason = read_reason(reason)?;
        if reason.is_empty() {
            let hint = "whoever loses it wants to know why";
            return Err(Refusal::new(Kind::Invalid, "there is no reason", hint));
        }
        self.session.break_lock(ticket, reason).map_err(|error| of_ticket(ticket, error))
    }

    /// Asks a holder to let go.
    pub fn recall(&self, ticket: u64, reason: &str, within_ms: Option<u64>) -> Result<(), Refusal> {
        let within = match within_ms {
            None => RECALL_WITHIN,
            Some(ms) if ms <= RECALL_WITHIN_MS_MAX => Duration::from_millis(ms),
            Some(ms) => {
                let hint = format!("give a number up to {RECALL_WITHIN_MS_MAX}");
                return Err(Refusal::new(Kind::Invalid, format!("within_ms is {ms}"), hint));
            }
        };
        let reason = read_reason(reason)?;
        self.session.recall(ticket, reason, within).map_err(|error| of_ticket(ticket, error))
    }
}

/// Does what may wait on a thread of its own.
pub async fn aside<T: Send + 'static, E: From<Refusal> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| {
        Err(Refusal::new(Kind::Failed, "the daemon failed at it", "its log says why").into())
    })
}

/// Returns the place of an absolute path of this machine, in a view or behind one; asks the view.
pub fn absolute(path: Vec<u8>) -> Scope {
    let written = PathBuf::from(OsString::from_vec(path.clone()));
    // By way of the source: the view may be another broker's, who has other spaces.
    let behind = within(ANSWER_PATIENCE, move || {
        let path = crate::seen::resolve(&written).ok()?;
        let Ok(about) = About::of(&path) else { return Some(path) };
        let inner = path.strip_prefix(&about.mountpoint).ok()?;
        Some(about.source.join(inner))
    });
    let behind = behind.flatten().map(|path| path.into_os_string().into_vec());
    Scope::Absolute(behind.unwrap_or(path))
}

/// Reads a place: a space and a path in it, or a path of this machine alone, as [`absolute`] does.
pub fn scope(space: Option<String>, path: Option<String>) -> Result<Scope, Refusal> {
    let hint = "name a path in that space, whose root is `.`, or an absolute one alone";
    match (space, path) {
        (None, None) => Ok(Scope::Everything),
        (None, Some(path)) if path.starts_with('/') => Ok(absolute(path.into_bytes())),
        (Some(space), Some(path)) => match ViewPath::parse(path.as_bytes()) {
            Ok(path) => Ok(Scope::Within { space, path }),
            Err(error) => Err(Refusal::new(Kind::Invalid, format!("path: {error}"), hint)),
        },
        (Some(_), None) => Err(Refusal::new(Kind::Invalid, "a space without a path", hint)),
        (None, Some(_)) => Err(Refusal::new(Kind::Invalid, "a path without its space", hint)),
    }
}

fn read_reason(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    match text.len() <= TEXT_BYTES_MAX {
        true => Ok(text.to_owned()),
        false => {
            let hint = format!("say it in {TEXT_BYTES_MAX} bytes");
            Err(Refusal::new(Kind::Invalid, "the reason is too long", hint))
        }
    }
}

fn of_ticket(ticket: u64, error: QueryError) -> Refusal {
    match error {
        QueryError::Unknown => {
            let hint = "it may have ended by itself: look again";
            Refusal::new(Kind::NotFound, format!("nobody has the ticket {ticket}"), hint)
        }
        error => no_answer(error),
    }
}

/// Says that a question has no answer.
pub fn no_answer(error: impl Display) -> Refusal {
    Refusal::new(Kind::Failed, format!("the broker did not answer: {error}"), "try again")
}
