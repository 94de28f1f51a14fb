//! A lock as people name it: by its ticket, or by a path that one owner holds.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use gate_api::wire::{Line, LineState};
use gate_api::{Address, ClientInfo, QueryError, Session};

use crate::board::{self, Row};
use crate::cli::locks::{broker_of, no_answer, reach};
use crate::failure::{Exit, Failure};
use crate::output::printable;
use crate::reach::{BrokerFlags, Deaf};

/// One claim at a broker.
pub struct Target {
    /// Where to speak of it.
    pub session: Session,
    /// Which it is.
    pub ticket: u64,
    /// The command that speaks.
    pub command: &'static str,
}

impl Target {
    /// Finds what `lock` means; reaches its broker, as that command.
    pub fn find(lock: &str, flags: &BrokerFlags, command: &'static str) -> Result<Target, Failure> {
        if let Ok(ticket) = lock.parse() {
            let session = reach(flags, command)?.session;
            return Ok(Target { session, ticket, command });
        }
        let path = Path::new(lock);
        let (session, scope) = broker_of(path, flags, command)?;
        let why = session.why(scope).map_err(|error| no_answer(error, Some(path)))?;
        let of_path = |line: &&Line| {
            matches!(line.state, LineState::Held { .. })
                && (line.op.is_hold()
                    || line.places.iter().any(|place| place.path.as_ref() == Some(&why.path)))
        };
        let holders: Vec<&Line> = why.lines.iter().filter(of_path).collect();
        match holders[..] {
            [holder] => Ok(Target { ticket: holder.ticket, session, command }),
            [] => Err(Failure::new(
                format!("there is no lock to speak of at {lock}"),
                "nobody holds it",
                "`gate locks` lists what is held, with tickets",
            )),
            _ => Err(several(lock, &holders)),
        }
    }

    /// Has the broker do something about it that only some may ask for.
    pub fn order(
        &self,
        order: impl Fn(&Session, u64) -> Result<(), QueryError>,
    ) -> Result<(), Failure> {
        let mut done = order(&self.session, self.ticket);
        if done == Err(QueryError::Forbidden)
            && let Some(session) = self.by_its_socket()
        {
            done = order(&session, self.ticket);
        }
        done.map_err(|error| self.failed(error))
    }

    /// Reaches the same broker by its socket, where more is allowed.
    fn by_its_socket(&self) -> Option<Session> {
        let broker = self.session.broker();
        let state_dir = Path::new(OsStr::from_bytes(&broker.state_dir));
        let client = ClientInfo::named(self.command);
        let session =
            Session::connect(Address::of_state_dir(state_dir), client, Arc::new(Deaf)).ok()?;
        (session.broker() == broker).then_some(session)
    }

    fn failed(&self, error: QueryError) -> Failure {
        let what = format!("nothing was done about ticket {}", self.ticket);
        match error {
            QueryError::Unknown => {
                let cause = "the broker knows no holder of that ticket";
                Failure::new(what, cause, "`gate locks` lists them").exit(Exit::Failed)
            }
            QueryError::Forbidden => {
                let hint = "ask on the broker's machine, as the user it runs as";
                Failure::new(what, error, hint).exit(Exit::Unable)
            }
            QueryError::Nonsense => {
                Failure::new(what, error, "say why, by --reason").exit(Exit::Unable)
            }
            QueryError::Unchanged | QueryError::BrokerGone => {
                Failure::new(what, error, "try again").exit(Exit::Unable)
            }
        }
    }
}

fn several(lock: &str, holders: &[&Line]) -> Failure {
    let named = |line: &&Line| {
        let row: Option<Row> = board::rows(Line::clone(line)).into_iter().next();
        let who = row.map(|row| printable(&row.who())).unwrap_or_default();
        format!("{} ({who})", line.ticket)
    };
    let named: Vec<String> = holders.iter().map(named).collect();
    let cause = format!("{} hold it: {}", holders.len(), named.join(", "));
    Failure::new(
        format!("cannot tell which lock of {lock} is meant"),
        cause,
        "name one by its ticket",
    )
}
