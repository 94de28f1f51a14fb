//! A broker with one line for each file, and the view's session with it.
//!
//! What a client says arrives at once, what the broker says in its order and at any time: so
//! whatever crosses on the way is crossed here.

use std::collections::{BTreeMap, VecDeque};

use gate_fuse::Errno;

use super::{Fault, Faults, Step};
use crate::park::tickets::Stub;
use crate::turn::{Round, Turn, Verdict};

/// An owner of another session.
const SOMEBODY: u64 = 0;

/// For whom an owner asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    Ticket(Stub),
    /// An open of that caller, which waits as long as it takes.
    Open(usize, Round),
    /// A call of that caller that waits a moment at most.
    Briefly(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broker {
    /// The owners of each line; the first has the file.
    lines: [Vec<u64>; 2],
    /// What the session knows.
    owners: BTreeMap<u64, Owner>,
    is_away: bool,
    /// What the session's thread has yet to hear.
    words: VecDeque<(u64, Word)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Owner {
    name: usize,
    purpose: Purpose,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Asked {
        told: bool,
    },
    Withdrawn,
    Held,
    /// Taken away, and not let go of: the next waits for that.
    Revoked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Word {
    Waiting,
    Granted,
    Refused(Errno),
    Revoked,
}

impl Broker {
    pub fn new(taken: [bool; 2]) -> Broker {
        let line = |taken| if taken { vec![SOMEBODY] } else { Vec::new() };
        Broker {
            lines: taken.map(line),
            owners: BTreeMap::new(),
            is_away: false,
            words: VecDeque::new(),
        }
    }

    pub fn steps(&self, left: &Faults, steps: &mut Vec<Step>) {
        if !self.words.is_empty() {
            steps.push(Step::Hear);
        }
        for (name, line) in self.lines.iter().enumerate() {
            match line.first() {
                Some(&SOMEBODY) => steps.push(Step::LetGo(name)),
                Some(owner) if left.may(Fault::Revocation) && self.may_revoke(*owner) => {
                    steps.push(Step::Revoke(*owner));
                }
                _ => {}
            }
            let waiting = line.iter().skip(1).filter(|owner| {
                left.may(Fault::Timeout) || self.owners.get(owner).is_some_and(Owner::is_brief)
            });
            if !self.is_away {
                steps.extend(waiting.map(|owner| Step::TimeOut(*owner)));
            }
        }
        if self.is_away {
            steps.extend([Step::Return { resumed: true }, Step::Return { resumed: false }]);
            if self.owners.iter().any(|(owner, of)| of.waits() && !self.is_answered(*owner)) {
                steps.push(Step::LeaseEnds);
            }
        } else if left.may(Fault::Outage) {
            steps.push(Step::Lose);
        }
    }

    pub fn ask(&mut self, owner: u64, name: usize, purpose: Purpose) {
        let state = State::Asked { told: false };
        self.owners.insert(owner, Owner { name, purpose, state });
        if !self.is_away {
            return self.queue_up(owner);
        }
        self.say(owner, Word::Waiting);
    }

    pub fn release(&mut self, owner: u64) {
        if self.owners.remove(&owner).is_some() && !self.is_away {
            self.leave(owner);
        }
    }

    pub fn withdraw(&mut self, owner: u64) {
        let Some(known) = self.owners.get_mut(&owner).filter(|owner| owner.waits()) else { return };
        known.state = State::Withdrawn;
        if self.is_away || self.leave(owner) {
            self.say(owner, Word::Refused(Errno::INTR));
        }
    }

    pub fn withdraw_open(&mut self, caller: usize) {
        let is_its = |owner: &Owner| matches!(owner.purpose, Purpose::Open(of, _) if of == caller);
        let owner = self.owners.iter().find(|(_, owner)| is_its(owner)).map(|(owner, _)| *owner);
        self.withdraw(owner.expect("an open that waits has an owner"));
    }

    /// The session's thread hears the next word; returns whom it tells what.
    pub fn hear(&mut self) -> Option<(Purpose, Option<Verdict>)> {
        let (owner, word) = self.words.pop_front().expect("offered");
        let known = self.owners.get_mut(&owner)?;
        let purpose = known.purpose;
        let verdict = match (word, known.state) {
            (Word::Waiting, State::Asked { told: false }) => {
                known.state = State::Asked { told: true };
                return Some((purpose, None));
            }
            (Word::Granted, State::Asked { .. }) => {
                known.state = State::Held;
                return Some((purpose, Some(Verdict::Go(Turn::Granted { owner }))));
            }
            (Word::Granted | Word::Refused(_), State::Withdrawn) => Verdict::Stop(Errno::INTR),
            (Word::Refused(errno), State::Asked { .. }) => Verdict::Stop(errno),
            (Word::Revoked, State::Asked { .. } | State::Withdrawn) => {
                self.leave(owner);
                Verdict::Stop(Errno::INTR)
            }
            (Word::Revoked, State::Held) => {
                known.state = State::Revoked;
                return None;
            }
            _ => return None,
        };
        self.owners.remove(&owner);
        Some((purpose, Some(verdict)))
    }

    pub fn somebody_lets_go(&mut self, name: usize) {
        self.lines[name].remove(0);
        self.tell_first(name);
    }

    pub fn time_out(&mut self, owner: u64, left: &mut Faults) {
        if !self.owners.get(&owner).is_some_and(Owner::is_brief) {
            left.happens(Fault::Timeout);
        }
        self.leave(owner);
        self.say(owner, Word::Refused(Errno::TIMEDOUT));
    }

    pub fn revoke(&mut self, owner: u64) {
        self.say(owner, Word::Revoked);
    }

    fn may_revoke(&self, owner: u64) -> bool {
        let is_revoked = |known: &Owner| known.state == State::Revoked;
        !self.is_away
            && !self.words.contains(&(owner, Word::Revoked))
            && !self.owners.get(&owner).is_some_and(is_revoked)
    }

    /// The connection is gone, with all that was on its way.
    pub fn lose(&mut self) {
        self.is_away = true;
        self.words.clear();
        for (owner, known) in &self.owners {
            let word = match known.state {
                State::Withdrawn => Word::Refused(Errno::INTR),
                State::Asked { told: false } => Word::Waiting,
                State::Asked { told: true } | State::Held | State::Revoked => continue,
            };
            self.words.push_back((*owner, word));
        }
    }

    /// It is away for as long as a lease lasts: who waits is told.
    pub fn lease_ends(&mut self) {
        for (owner, known) in self.owners.clone() {
            if known.waits() && !self.is_answered(owner) {
                self.say(owner, Word::Refused(Errno::IO));
            }
        }
    }

    /// The session is back; a broker that no longer knows it begins it anew.
    pub fn come_back(&mut self, resumed: bool) {
        self.is_away = false;
        self.words.clear();
        if !resumed {
            self.owners.retain(|_, owner| !matches!(owner.state, State::Held | State::Revoked));
        }
        let owners = self.owners.clone();
        let is_listed = |owner: &u64| resumed && owners.get(owner).is_some_and(Owner::is_listed);
        for line in &mut self.lines {
            line.retain(|owner| *owner == SOMEBODY || is_listed(owner));
        }
        for (owner, known) in &owners {
            let line = &mut self.lines[known.name];
            match (known.state, line.contains(owner)) {
                (State::Held | State::Revoked, true) | (State::Revoked, false) => {}
                // What the broker lost of it is taken back if there is room.
                (State::Held, false) if line.is_empty() => line.push(*owner),
                (State::Held, false) => self.say(*owner, Word::Revoked),
                (State::Asked { .. }, true) => {
                    let granted = line.first() == Some(owner);
                    self.say(*owner, if granted { Word::Granted } else { Word::Waiting });
                }
                (State::Asked { .. }, false) => self.queue_up(*owner),
                (State::Withdrawn, _) => self.say(*owner, Word::Refused(Errno::INTR)),
            }
        }
    }

    /// Whether an owner has the file, as far as the view can know, in its turn.
    pub fn is_first(&self, owner: u64, name: usize) -> bool {
        let holds = self.holds(Turn::Granted { owner });
        holds && (self.is_away || self.lines[name].first() == Some(&owner))
    }

    /// Whether a caller waits for a moment at most.
    pub fn waits_briefly(&self, caller: usize) -> bool {
        self.owners.values().any(|owner| owner.purpose == Purpose::Briefly(caller))
    }

    pub fn holds(&self, turn: Turn) -> bool {
        let Turn::Granted { owner } = turn else { return true };
        self.owners.get(&owner).is_some_and(|owner| owner.state == State::Held)
    }

    pub fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.lines.iter().all(Vec::is_empty)
    }

    fn queue_up(&mut self, owner: u64) {
        let line = &mut self.lines[self.owners[&owner].name];
        line.push(owner);
        let granted = line.len() == 1;
        self.say(owner, if granted { Word::Granted } else { Word::Waiting });
    }

    /// Takes an owner out of its line; returns whether it waited there.
    fn leave(&mut self, owner: u64) -> bool {
        for name in 0..self.lines.len() {
            let Some(place) = self.lines[name].iter().position(|known| *known == owner) else {
                continue;
            };
            self.lines[name].remove(place);
            if place == 0 {
                self.tell_first(name);
            }
            return place > 0;
        }
        false
    }

    fn tell_first(&mut self, name: usize) {
        if let Some(&first) = self.lines[name].first()
            && !self.is_away
        {
            self.say(first, Word::Granted);
        }
    }

    fn say(&mut self, owner: u64, word: Word) {
        self.words.push_back((owner, word));
    }

    fn is_answered(&self, owner: u64) -> bool {
        self.words.iter().any(|(of, word)| *of == owner && matches!(word, Word::Refused(_)))
    }
}

impl Owner {
    fn waits(&self) -> bool {
        matches!(self.state, State::Asked { .. })
    }

    pub fn is_brief(&self) -> bool {
        matches!(self.purpose, Purpose::Briefly(_))
    }

    /// Whether the session lists it when it is back.
    fn is_listed(&self) -> bool {
        !matches!(self.state, State::Withdrawn)
    }
}
