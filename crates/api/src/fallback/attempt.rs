//! One owner asks, on a thread of its own, until it is let in, refused, or given up.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gate_core::id::Ticket;
use gate_core::lock::claim::Patience;
use gate_core::lock::event::{Refusal, Standstill};
use gate_core::lock::limits::Limit;
use gate_core::lock::want::{Access, Want};
use gate_core::path::ViewPath;
use serde::Deserialize;

use super::Desk;
use super::books::{Lock, Name};
use super::clerk::{CALL_PATIENCE, Errand};
use super::http::Call;
use crate::http::{Reply, Request};
use crate::v1::{AcquireRequest, ErrorAnswer, Mode};
use crate::wire::{Acquire, ServerMessage};

/// A thread's stack: it does little.
const STACK_BYTES: usize = 256 * 1024;

/// How long a try waits for one that tries the same.
const TRY_GRACE: Duration = Duration::from_millis(5);

struct Attempt {
    desk: Arc<Desk>,
    acquire: Arc<Acquire>,
    ticket: Ticket,
    call: Arc<Call>,
    /// When its patience ends.
    until: Option<Instant>,
    told_waiting: bool,
}

/// Why an owner is not let in.
enum No {
    Refused(Refusal),
    /// The broker is away, or this owner has given up.
    Broken(io::Error),
}

/// As much of the answer as matters here.
#[derive(Deserialize)]
struct GrantedAnswer {
    lock: GrantedLock,
}

#[derive(Deserialize)]
struct GrantedLock {
    lock_id: String,
}

/// Begins to ask.
pub(super) fn start(desk: &Arc<Desk>, acquire: &Arc<Acquire>) {
    let owner = acquire.owner;
    let Some((ticket, call)) = desk.books.ask(owner) else { return };
    let until = match acquire.patience {
        Patience::Limited(limit) => Instant::now().checked_add(limit),
        Patience::Try | Patience::Endless => None,
    };
    let (desk, acquire) = (desk.clone(), acquire.clone());
    let (of, asked) = (desk.clone(), call.clone());
    let attempt = Attempt { desk, acquire, ticket, call, until, told_waiting: false };
    let thread = std::thread::Builder::new().name("gate-v1-ask".into()).stack_size(STACK_BYTES);
    if thread.spawn(move || attempt.run()).is_err() {
        of.books.refuse(owner, &asked, Refusal::Limit(Limit::WaitersPerSession));
    }
}

impl Attempt {
    fn run(mut self) {
        let mut taken = Vec::new();
        let outcome = self.take_all(&mut taken);
        let (desk, owner, call) = (&self.desk, self.acquire.owner, &self.call);
        let unwanted = match outcome {
            Ok(()) => desk.books.grant((owner, self.ticket), call, taken).err().unwrap_or_default(),
            Err(No::Refused(why)) => {
                desk.books.refuse(owner, call, why);
                taken
            }
            Err(No::Broken(error)) => {
                if desk.books.is_asking(owner, call) {
                    desk.broke(&error);
                }
                taken
            }
        };
        for lock in unwanted {
            desk.errand(Errand::Release(lock));
        }
    }

    fn take_all(&mut self, taken: &mut Vec<Lock>) -> Result<(), No> {
        for path in paths(&self.acquire.want) {
            taken.push(self.take(path)?);
        }
        Ok(())
    }

    /// Takes one path. Tries first, because whoever waits is to be told so, and v1 says nothing.
    fn take(&mut self, path: String) -> Result<Lock, No> {
        let desk = self.desk.clone();
        let name = Name { owner: desk.books.owner_name(&self.acquire), path };
        let asker = (self.acquire.owner, &self.call);
        let at_once = desk.books.turn(&name, asker, Some(Instant::now() + TRY_GRACE));
        let tried = match &at_once {
            Some(_) => self.ask(&name, Some(Duration::ZERO))?,
            None => None,
        };
        let id = match tried {
            Some(id) => id,
            None if self.acquire.patience == Patience::Try => {
                return Err(No::Refused(Refusal::WouldBlock));
            }
            None => {
                self.tell_waiting();
                let asker = (self.acquire.owner, &self.call);
                let turn = at_once.or_else(|| desk.books.turn(&name, asker, self.until));
                let _turn = turn.ok_or(No::Refused(Refusal::TimedOut))?;
                let left = self.until.map(|at| at.saturating_duration_since(Instant::now()));
                self.ask(&name, left)?.ok_or(No::Refused(Refusal::TimedOut))?
            }
        };
        Ok(Lock { id, owner: name.owner })
    }

    /// Asks once; `None` if it is not granted in that time.
    fn ask(&self, name: &Name, patience: Option<Duration>) -> Result<Option<String>, No> {
        let mode = match self.acquire.want.op.access() {
            Access::Read => Mode::Read,
            Access::Write => Mode::Write,
        };
        let body = AcquireRequest {
            path: name.path.clone(),
            mode,
            owner: name.owner.clone(),
            timeout_ms: patience.map(millis),
            lease_ms: Some(millis(self.desk.books.lease()).max(1)),
            max_hold_ms: None,
            space: None,
        };
        let request = Request::json("POST", "/v1/locks/acquire", &body)?;
        let answered_within = patience.map(|patience| patience.saturating_add(CALL_PATIENCE));
        let reply = self.desk.http.call(&request, answered_within, &self.call)?;
        id_of(&reply)
    }

    fn tell_waiting(&mut self) {
        let owner = self.acquire.owner;
        if !self.told_waiting && self.desk.books.is_asking(owner, &self.call) {
            self.desk.books.tell(ServerMessage::Waiting { owner, ticket: self.ticket });
        }
        self.told_waiting = true;
    }
}

/// Returns what v1 can lock of a want: its names, in order.
fn paths(want: &Want) -> BTreeSet<String> {
    let named = want.places.iter().filter_map(|place| place.path.as_ref());
    named.map(ViewPath::to_string).collect()
}

fn id_of(reply: &Reply) -> Result<Option<String>, No> {
    match reply.status {
        200 => {
            let granted: GrantedAnswer =
                serde_json::from_slice(&reply.body).map_err(io::Error::from)?;
            Ok(Some(granted.lock.lock_id))
        }
        408 => Ok(None),
        409 => Err(No::Refused(Refusal::Deadlock)),
        429 => Err(No::Refused(Refusal::Limit(limit_of(&reply.body)))),
        507 => Err(No::Refused(Refusal::Standstill(Standstill::NoRoom))),
        500.. => Err(No::Broken(io::Error::other(format!("status {}", reply.status)))),
        status => {
            let answer = String::from_utf8_lossy(&reply.body);
            tracing::warn!(status, %answer, "the older broker does not understand a request");
            Err(No::Refused(Refusal::Unknown))
        }
    }
}

/// An older broker may have bounds that ours does not know.
fn limit_of(body: &[u8]) -> Limit {
    let answer = serde_json::from_slice::<ErrorAnswer>(body).ok();
    let name = answer.as_ref().and_then(|answer| answer.error.strip_prefix("limit: "));
    let known = Limit::ALL.iter().find(|(limit, _)| Some(limit.as_str()) == name);
    known.map_or(Limit::Waiters, |(limit, _)| *limit)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl From<io::Error> for No {
    fn from(error: io::Error) -> No {
        No::Broken(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, expected: Result<Option<&str>, Refusal>) {
        let told = match id_of(&Reply { status, body: body.as_bytes().to_vec() }) {
            Ok(id) => Ok(id),
            Err(No::Refused(why)) => Err(why),
            Err(No::Broken(error)) => panic!("{error}"),
        };
        assert_eq!(told, expected.map(|id| id.map(str::to_owned)));
    }

    #[test]
    fn each_status_is_an_answer() {
        check(200, r#"{"status":"granted","lock":{"lock_id":"7","path":"f"}}"#, Ok(Some("7")));
        check(408, r#"{"status":"timeout"}"#, Ok(None));
        check(409, r#"{"error":"deadlock"}"#, Err(Refusal::Deadlock));
        check(429, r#"{"error":"limit: grants"}"#, Err(Refusal::Limit(Limit::Grants)));
        check(429, "slow down", Err(Refusal::Limit(Limit::Waiters)));
        check(400, r#"{"error":"no"}"#, Err(Refusal::Unknown));
        let ending = Reply { status: 503, body: Vec::new() };
        assert!(matches!(id_of(&ending), Err(No::Broken(_))), "the broker may come back");
    }
}
