//! The broker's end of the stateless interface, as its tasks run it: each request waits for its answer
//! for as long as it says, and while its caller is there.

use std::collections::BTreeMap;
use std::time::Duration;

use gate_api::v1::ReleaseRequest;
use gate_core::id::{OwnerId, SessionId, Ticket};
use gate_core::lock::table::Table;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{self, Receiver};

use super::oracle::{Heard, Now, Whose, Wish};
use super::post::{Said, Stir, Told};
use super::scene::{Scene, Wake};
use crate::stateless::{Call, Outcome, RequestId};

/// The longest that a task takes to look for the answer that is there.
const IDLE_MS: std::ops::Range<usize> = 0..5;

#[derive(Default)]
pub struct Counter {
    waiting: BTreeMap<RequestId, Waiting>,
}

struct Waiting {
    caller: usize,
    answer: Receiver<Outcome>,
    /// By what name the lock is known that it asks for, if it does.
    asks: Option<Whose>,
}

impl Counter {
    /// Returns what the deciding thread is to do, and what that means.
    pub fn attend(
        &mut self,
        id: RequestId,
        stir: Stir,
        scene: &mut Scene,
    ) -> Option<(Call, Heard)> {
        match stir {
            Stir::Comes { caller, said } => Some(self.begin(id, caller, said, scene)),
            Stir::TimesOut => {
                let whose = self.waiting.get(&id)?.asks.clone()?;
                Some((Call::GiveUp { request: id }, Heard { whose, wish: Wish::LetsGo }))
            }
            Stir::Leaves => {
                let mut waiting = self.waiting.remove(&id)?;
                waiting.answer.close();
                let whose = waiting.asks?;
                let call = match waiting.answer.try_recv() {
                    Ok(Outcome::Granted(lock)) => {
                        let body = ReleaseRequest { lock_id: lock.lock_id, owner: lock.owner };
                        Call::Release { body, answer: oneshot::channel().0 }
                    }
                    _ => Call::Abandon { request: id },
                };
                Some((call, Heard { whose, wish: Wish::LetsGo }))
            }
        }
    }

    fn begin(
        &mut self,
        id: RequestId,
        caller: usize,
        said: Said,
        scene: &mut Scene,
    ) -> (Call, Heard) {
        let (sender, answer) = oneshot::channel();
        let limit = |ms: Option<u64>| ms.map(Duration::from_millis);
        let (call, heard, asks) = match said {
            Said::Acquire(body) => {
                if let Some(patience) = limit(body.timeout_ms).filter(|time| !time.is_zero()) {
                    scene.stir(scene.now + patience, id, Stir::TimesOut);
                }
                let whose = Whose::Named { owner: body.owner.clone(), path: body.path.clone() };
                let heard = Heard { whose: whose.clone(), wish: Wish::Asks(limit(body.lease_ms)) };
                (Call::Acquire { request: id, body, answer: sender }, heard, Some(whose))
            }
            Said::Release(body) => {
                let heard = Heard { whose: whose_is(&body.lock_id), wish: Wish::LetsGo };
                (Call::Release { body, answer: sender }, heard, None)
            }
            Said::Heartbeat(body) => {
                let wish = Wish::Renews(limit(body.lease_ms));
                let heard = Heard { whose: whose_is(&body.lock_id), wish };
                (Call::Heartbeat { body, answer: sender }, heard, None)
            }
        };
        self.waiting.insert(id, Waiting { caller, answer, asks });
        (call, heard)
    }

    /// Sends on what the deciding thread answered.
    pub fn answer(&mut self, table: &Table, now: Now, scene: &mut Scene) {
        let ids: Vec<RequestId> = self.waiting.keys().copied().collect();
        for id in ids {
            if !scene.calm && scene.chance.one_in(16) {
                let later = scene.now + scene.chance.millis(IDLE_MS);
                scene.wake(later, Wake::Broker);
                continue;
            }
            let waiting = self.waiting.get_mut(&id).expect("listed above");
            let outcome = match waiting.answer.try_recv() {
                Ok(outcome) => outcome,
                Err(TryRecvError::Empty) => continue,
                Err(TryRecvError::Closed) => panic!("the request {id} is never answered"),
            };
            let caller = waiting.caller;
            self.waiting.remove(&id);
            scene.note(|| format!("broker: answers v{caller} {id} {outcome:?}"));
            scene.answer(caller, id, told_of(outcome, table, now));
        }
    }

    /// The broker ends; some connections are seen to break.
    pub fn break_off(self, scene: &mut Scene) {
        for (id, waiting) in self.waiting {
            if scene.calm || scene.chance.one_in(2) {
                scene.answer(waiting.caller, id, Told::Nothing);
            }
        }
    }
}

/// Returns whose lock an id stands for.
pub fn whose_is(lock_id: &str) -> Whose {
    let number = u64::from_str_radix(lock_id, 16).expect("it was told so");
    Whose::Lock(OwnerId { session: SessionId::STATELESS, number })
}

fn told_of(outcome: Outcome, table: &Table, now: Now) -> Told {
    match outcome {
        Outcome::Granted(lock) => {
            // One that is gone by now was held for no time.
            let since = table.since(Ticket(lock.ticket)).held.unwrap_or(now.at_broker);
            Told::Granted(lock, now.for_clients - now.at_broker.since(since))
        }
        Outcome::Released | Outcome::Renewed => Told::Done,
        Outcome::Refused(why) => Told::Refused(why),
        Outcome::Unknown => Told::Unknown,
        outcome => panic!("nobody asked for {outcome:?}"),
    }
}
