//! The thread that lets go, renews and asks, one after the other.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::books::Lock;
use super::http::Call;
use super::{Desk, board};
use crate::http::Request;
use crate::v1::{HeartbeatRequest, ReleaseRequest};
use crate::wire::{Reply, Scope, ServerMessage};

/// How long an answer may take that waits for nobody.
pub(super) const CALL_PATIENCE: Duration = Duration::from_secs(5);
/// The shortest pause between two rounds of renewals.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Something to be done.
pub(super) enum Errand {
    Release(Lock),
    /// Renew everything now.
    Renew,
    /// See whether the broker is there.
    Ping,
    Show {
        id: u64,
        scope: Scope,
        after: u64,
    },
    /// All was done: whoever waits for the other end of this goes on.
    End(Sender<()>),
}

/// Does errands as they come, and one renewal whenever there is no errand, until the end.
pub(super) fn run(desk: &Desk, errands: &Receiver<Errand>) {
    let mut round: Vec<Lock> = Vec::new();
    let mut next_round = Instant::now();
    loop {
        let pause = match round.is_empty() {
            true => next_round.saturating_duration_since(Instant::now()),
            false => Duration::ZERO,
        };
        let done = match errands.recv_timeout(pause) {
            Ok(Errand::End(done)) => return drop(done),
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(Errand::Renew) => {
                next_round = Instant::now();
                Ok(())
            }
            Ok(errand) => desk.run(errand),
            Err(RecvTimeoutError::Timeout) => match round.pop() {
                Some(lock) => desk.renew(&lock),
                None => {
                    round = desk.books.renewals();
                    next_round = Instant::now() + (desk.books.lease() / 3).max(PAUSE_MIN);
                    Ok(())
                }
            },
        };
        if let Err(error) = done {
            round.clear();
            desk.broke(&error);
        }
    }
}

impl Desk {
    fn run(&self, errand: Errand) -> io::Result<()> {
        match errand {
            Errand::Release(Lock { id: lock_id, owner, .. }) => {
                let request =
                    Request::json("POST", "/v1/locks/release", &ReleaseRequest { lock_id, owner })?;
                // One that is gone already is as good as released.
                self.http.call(&request, Some(CALL_PATIENCE), &Call::default()).map(drop)
            }
            Errand::Ping => {
                board::probe(&self.http)?;
                self.books.tell(ServerMessage::Pong);
                Ok(())
            }
            Errand::Show { id, scope, after } => {
                let reply = match board::show(&self.http, &scope, after)? {
                    Some(locks) => Reply::Locks(locks),
                    None => Reply::Unknown,
                };
                self.books.tell(ServerMessage::Reply { id, reply });
                Ok(())
            }
            Errand::Renew | Errand::End(_) => Ok(()),
        }
    }

    fn renew(&self, lock: &Lock) -> io::Result<()> {
        let (lock_id, owner) = (lock.id.clone(), lock.owner.clone());
        let body = HeartbeatRequest { lock_id, owner, lease_ms: None };
        let request = Request::json("POST", "/v1/locks/heartbeat", &body)?;
        let reply = self.http.call(&request, Some(CALL_PATIENCE), &Call::default())?;
        if let 403 | 404 = reply.status {
            // Released meanwhile, it has no owner any more, and nobody is told.
            for other in self.books.lose(&lock.id) {
                self.errand(Errand::Release(other));
            }
        }
        Ok(())
    }
}
