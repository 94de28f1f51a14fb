//! A caller: a client of the stateless interface. Who hears nothing says it again.
//!
//! Whatever became of what it said before, it relies on what it can account for: as long as it heard of
//! more grants of a lock than it sent releases of it, for a lease from when it sent what was answered.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use gate_api::v1::{AcquireRequest, HeartbeatRequest, Lock, Mode, ReleaseRequest};
use gate_core::id::{Epoch, SpaceId, Token};
use gate_core::lock::claim::Party;
use gate_core::lock::event::Refusal;
use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_core::time::Time;

use super::counter::whose_is;
use super::footprint::{Footprint, NAMES, path_of};
use super::oracle::{Belief, Whose};
use super::post::{Said, Told};
use super::scene::{Scene, Wake};
use crate::stateless::RequestId;

/// The judge knows callers by numbers from here on.
const NUMBERS: usize = 100;
/// How long it waits for an answer before it says the same again, and how often it does.
const PATIENCE_MS: Range<usize> = 50..3_000;
const TRIES: u32 = 4;
const LEASES: [Duration; 3] =
    [Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)];
/// The longest that any but the first caller has a lock.
const MAX_HOLD: Duration = Duration::from_millis(1_500);

pub struct Caller {
    number: usize,
    lease: Duration,
    max_hold: Option<Duration>,
    phase: Phase,
    stalled_until: Time,
    pending: Option<Pending>,
    lock: Option<Kept>,
    /// Of each lock: the grants heard of, less the releases sent.
    accounts: BTreeMap<String, i64>,
    act_at: Time,
}

enum Phase {
    /// Not born yet, or dead: until then, if not for ever.
    Off(Option<Time>),
    On,
}

/// A request whose answer is to come.
struct Pending {
    id: RequestId,
    said: Said,
    sent: Time,
    /// When it is where the broker is, if it gets there.
    arrives: Option<Time>,
    until: Time,
    tries: u32,
}

/// A lock that it was told of.
struct Kept {
    id: String,
    path: String,
    /// It may act until then.
    until: Time,
    /// When it ends, however it is renewed.
    end: Option<Time>,
    beat_at: Time,
    /// When it asks for the same once more.
    again_at: Option<Time>,
    done_at: Time,
}

impl Caller {
    pub fn new(number: usize, born: Time) -> Caller {
        Caller {
            number,
            lease: LEASES[number % LEASES.len()],
            max_hold: (number > 0).then_some(MAX_HOLD),
            phase: Phase::Off(Some(born)),
            stalled_until: Time::ZERO,
            pending: None,
            lock: None,
            accounts: BTreeMap::new(),
            act_at: Time::ZERO,
        }
    }

    pub fn is_off(&self) -> bool {
        matches!(self.phase, Phase::Off(_))
    }

    /// Does nothing until then, as if it was stopped.
    pub fn stall(&mut self, until: Time) {
        self.stalled_until = until;
    }

    /// Its process ends. What takes its place has its name, and what it said may still arrive.
    pub fn die(&mut self, scene: &mut Scene, reborn: Time) {
        scene.note(|| format!("v{}: dies", self.number));
        self.hang_up(scene);
        self.drop_lock(scene);
        self.accounts.values_mut().for_each(|account| *account = (*account).min(0));
        self.phase = Phase::Off(Some(reborn).filter(|_| !scene.calm));
        scene.wake(reborn, Wake::Caller(self.number));
    }

    /// The connection breaks by which it waits for an answer.
    pub fn break_off(&mut self, scene: &mut Scene) {
        if let Some(pending) = self.hang_up(scene) {
            self.say_again(pending, scene);
            scene.wake(scene.now, Wake::Caller(self.number));
        }
    }

    pub fn turn(&mut self, scene: &mut Scene) {
        if scene.now < self.stalled_until {
            return scene.wake(self.stalled_until, Wake::Caller(self.number));
        }
        match self.phase {
            Phase::Off(Some(at)) if at <= scene.now => self.phase = Phase::On,
            Phase::Off(_) => return,
            Phase::On => {}
        }
        while let Some((id, told)) = scene.post.heard_by(self.number, scene.now) {
            if let Some(pending) = self.pending.take_if(|pending| pending.id == id) {
                self.hear(pending, told, scene);
            }
        }
        if self.pending.as_ref().is_some_and(|pending| pending.until <= scene.now)
            && let Some(pending) = self.hang_up(scene)
        {
            self.say_again(pending, scene);
        }
        if self.pending.is_none() {
            self.act(scene);
        }
        if scene.calm && self.pending.is_none() && self.lock.is_none() {
            self.phase = Phase::Off(None);
        } else {
            let next = self.next_turn(scene.now);
            scene.wake(next, Wake::Caller(self.number));
        }
    }

    fn next_turn(&self, now: Time) -> Time {
        let next = match (&self.pending, &self.lock) {
            (Some(pending), _) => pending.until,
            (None, Some(lock)) => {
                let again = lock.again_at.into_iter();
                again.fold(lock.beat_at.min(lock.done_at), Time::min)
            }
            (None, None) => self.act_at,
        };
        next.max(now)
    }

    fn hear(&mut self, pending: Pending, told: Told, scene: &mut Scene) {
        let number = self.number;
        scene.note(|| format!("v{number}: is told {told:?} of {}", pending.id));
        if matches!(told, Told::Nothing) {
            return self.say_again(pending, scene);
        }
        match (&pending.said, told) {
            (Said::Acquire(_), Told::Granted(lock, since)) => {
                self.take(pending.sent, *lock, since, scene);
            }
            (Said::Acquire(_), Told::Refused(Refusal::Limit(limit))) => panic!("limit: {limit}"),
            // It may try again later.
            (Said::Acquire(_), Told::Refused(_) | Told::Unknown) => {}
            (Said::Release(body), Told::Done) => {
                // Some look for what else there is of theirs.
                if self.accounts[&body.lock_id] <= 0 && self.number % 2 == 1 {
                    self.drop_lock(scene);
                }
            }
            (Said::Heartbeat(_), Told::Done) => self.renew(pending.sent, scene),
            (Said::Release(_) | Said::Heartbeat(_), Told::Unknown) => self.drop_lock(scene),
            (said, told) => panic!("{said:?} is answered by {told:?}"),
        }
    }

    fn take(&mut self, sent: Time, lock: Lock, since: Time, scene: &mut Scene) {
        let (end, until) = (self.max_hold.map(|limit| since + limit), sent + self.lease);
        if self.lock.as_ref().is_none_or(|kept| kept.id != lock.lock_id) {
            self.drop_lock(scene);
            let again_at = scene.chance.one_in(3).then(|| scene.now + scene.chance.millis(1..900));
            let span = match scene.chance.below(6) {
                0 => scene.chance.millis(1_000..9_000),
                _ => scene.chance.millis(1..400),
            };
            self.lock = Some(Kept {
                id: lock.lock_id.clone(),
                path: lock.path.clone(),
                until,
                end,
                beat_at: scene.now + self.lease / 3,
                again_at,
                done_at: scene.now + span,
            });
        }
        let account = self.accounts.entry(lock.lock_id.clone()).or_default();
        *account += 1;
        let account = *account;
        scene.oracle.tally.locks += 1;
        if account > 0
            && let Whose::Lock(owner) = whose_is(&lock.lock_id)
        {
            scene.oracle.believes(owner, self.belief_in(&lock));
            self.rely(until, scene);
        }
    }

    fn belief_in(&self, lock: &Lock) -> Belief {
        let access = match lock.mode {
            Mode::Read => Access::Read,
            Mode::Write => Access::Write,
        };
        let path = NAMES.iter().position(|name| *name == lock.path).map(path_of);
        let place = Place { space: SpaceId(0), path, node: Node::None };
        let footprint = Footprint::of(&Want { op: Op::Lock(access), places: vec![place] });
        let (epoch, counter) = lock.token.split_once('.').expect("a token has two parts");
        let number = |text: &str| text.parse().expect("a token is made of numbers");
        let token = Token { epoch: Epoch(number(epoch)), counter: number(counter) };
        let party = Party::Named(self.owner().into());
        Belief { client: self.judged_as(), party, footprint, token }
    }

    fn renew(&mut self, sent: Time, scene: &mut Scene) {
        let Some(lock) = &self.lock else { return };
        if self.accounts[&lock.id] > 0 {
            self.rely(sent + self.lease, scene);
        }
    }

    /// It may act until then, but for no longer than it may have the lock.
    fn rely(&mut self, until: Time, scene: &mut Scene) {
        let me = self.judged_as();
        let Some(lock) = &mut self.lock else { return };
        lock.until = until.max(lock.until);
        let until = lock.end.into_iter().fold(lock.until, Time::min);
        scene.oracle.relies(me, until, scene.now);
    }

    fn act(&mut self, scene: &mut Scene) {
        let (now, lease) = (scene.now, self.lease);
        let Some(lock) = &mut self.lock else {
            if now >= self.act_at && !scene.calm {
                self.act_at = now + scene.chance.millis(1..scene.haste_ms * 2);
                let path = NAMES[1 + scene.chance.below(NAMES.len() - 1)].to_owned();
                self.ask(path, scene);
            }
            return;
        };
        let (id, owner) = (lock.id.clone(), owner_of(self.number));
        if scene.calm || lock.done_at <= now {
            return self.say(Said::Release(ReleaseRequest { lock_id: id, owner }), 0, scene);
        }
        if lock.again_at.take_if(|at| *at <= now).is_some() {
            let path = lock.path.clone();
            return self.ask(path, scene);
        }
        if lock.beat_at <= now {
            lock.beat_at = now + lease / 3;
            let lease_ms = scene.chance.one_in(2).then(|| in_ms(lease));
            let beat = HeartbeatRequest { lock_id: id, owner, lease_ms };
            self.say(Said::Heartbeat(beat), 0, scene);
        }
    }

    fn ask(&mut self, path: String, scene: &mut Scene) {
        let timeout_ms = match scene.chance.below(5) {
            0 => Some(0),
            1..3 => Some(5 + scene.chance.below(1_500) as u64),
            _ => None,
        };
        let mode = if scene.chance.one_in(2) { Mode::Read } else { Mode::Write };
        let body = AcquireRequest {
            path,
            mode,
            owner: self.owner(),
            timeout_ms,
            lease_ms: Some(in_ms(self.lease)),
            max_hold_ms: self.max_hold.map(|limit| Some(in_ms(limit))),
            space: None,
        };
        self.say(Said::Acquire(body), 0, scene);
    }

    fn say(&mut self, said: Said, tries: u32, scene: &mut Scene) {
        if let Said::Release(body) = &said {
            let account = self.accounts.entry(body.lock_id.clone()).or_default();
            *account -= 1;
            if *account <= 0 {
                scene.oracle.dies(self.judged_as());
            }
        }
        let (id, arrives) = scene.call(self.number, said.clone());
        let number = self.number;
        scene.note(|| format!("v{number}: says {id} for the {tries}. time again: {said:?}"));
        scene.oracle.tally.repeated += u64::from(tries > 0);
        let until = scene.now + scene.chance.millis(PATIENCE_MS);
        self.pending = Some(Pending { id, said, sent: scene.now, arrives, until, tries });
    }

    /// Says the same once more, unless that was in vain too often.
    fn say_again(&mut self, pending: Pending, scene: &mut Scene) {
        let Pending { said, tries, .. } = pending;
        let is_pointless = scene.calm && matches!(said, Said::Acquire(_));
        if tries < TRIES && !is_pointless {
            return self.say(said, tries + 1, scene);
        }
        if matches!(said, Said::Release(_)) {
            self.drop_lock(scene);
        }
    }

    /// Waits for no answer any more; the broker may not hear of that.
    fn hang_up(&mut self, scene: &mut Scene) -> Option<Pending> {
        let pending = self.pending.take()?;
        scene.hang_up(pending.id, pending.arrives);
        Some(pending)
    }

    fn drop_lock(&mut self, scene: &mut Scene) {
        self.lock = None;
        scene.oracle.dies(self.judged_as());
    }

    fn owner(&self) -> String {
        owner_of(self.number)
    }

    fn judged_as(&self) -> usize {
        NUMBERS + self.number
    }
}

fn owner_of(number: usize) -> String {
    format!("v{number}")
}

fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("short")
}
