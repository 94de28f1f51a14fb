//! A naive broker, and the view's session with it.
//!
//! Claims stand in the order in which they came; who conflicts with nobody that has something and nobody
//! before it is let in. What a client says arrives at once. What the broker says to the view arrives in its order
//! and at any time, so whatever crosses on the way is crossed here; other sessions hear at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gate_core::lock::event::Change;
use gate_fuse::Errno;

use super::wish::{Job, Wish};
use super::{Fault, Faults, Step};
use crate::park::tickets::Stub;
use crate::turn::{Round, Turn, Verdict};

/// For whom an owner asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A call that may be sent outside.
    Ticket(Stub, Job),
    /// An open of that caller, which waits as long as it takes.
    Open(usize, Round),
    /// A call of that caller that waits a moment at most.
    Briefly(usize),
}

/// Whose a claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// An owner of the view.
    View(u64),
    /// Another session.
    Other(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Broker {
    claims: Vec<Claim>,
    /// What the view's session knows.
    owners: BTreeMap<u64, Owner>,
    is_away: bool,
    /// What the session's thread has yet to hear.
    words: VecDeque<(u64, Word)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Claim {
    whose: Whose,
    wish: Arc<Wish>,
    is_held: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owner {
    wish: Arc<Wish>,
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
    pub fn new() -> Broker {
        Broker {
            claims: Vec::new(),
            owners: BTreeMap::new(),
            is_away: false,
            words: VecDeque::new(),
        }
    }

    pub fn steps(&self, left: &Faults, steps: &mut Vec<Step>) {
        for claim in &self.claims {
            let Whose::View(owner) = claim.whose else { continue };
            let is_brief = self.owners.get(&owner).is_some_and(Owner::is_brief);
            if claim.is_held && left.may(Fault::Revocation) && self.may_revoke(owner) {
                steps.push(Step::Revoke(owner));
            } else if !claim.is_held && !self.is_away && (is_brief || left.may(Fault::Timeout)) {
                steps.push(Step::TimeOut(owner));
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

    pub fn is_away(&self) -> bool {
        self.is_away
    }

    /// Whether the session's thread has something to hear.
    pub fn has_words(&self) -> bool {
        !self.words.is_empty()
    }

    pub fn ask(&mut self, owner: u64, wish: Arc<Wish>, purpose: Purpose) {
        let state = State::Asked { told: false };
        self.owners.insert(owner, Owner { wish, purpose, state });
        if self.is_away {
            return self.say(owner, Word::Waiting);
        }
        self.queue_up(owner);
        self.settle();
        if !self.has(Whose::View(owner)) {
            self.say(owner, Word::Waiting);
        }
    }

    /// Another session asks.
    pub fn ask_elsewhere(&mut self, other: usize, wish: Arc<Wish>) {
        self.claims.push(Claim { whose: Whose::Other(other), wish, is_held: false });
        self.settle();
    }

    pub fn release(&mut self, owner: u64, change: Option<&Change>) {
        let known = self.owners.remove(&owner);
        if let Some(change) = change {
            self.move_names(change);
        }
        if known.is_some() && !self.is_away {
            self.leave(Whose::View(owner));
        }
    }

    /// Another session lets go.
    pub fn release_elsewhere(&mut self, other: usize, change: Option<&Change>) {
        if let Some(change) = change {
            self.move_names(change);
        }
        self.leave(Whose::Other(other));
    }

    /// What an owner was to create is there.
    pub fn created(&mut self, owner: u64, file: u8) {
        let claims = self.claims.iter_mut().filter(|claim| claim.whose == Whose::View(owner));
        let known = self.owners.get_mut(&owner).map(|known| &mut known.wish);
        for wish in claims.map(|claim| &mut claim.wish).chain(known) {
            *wish = wish.created(file);
        }
        if !self.is_away {
            self.settle();
        }
    }

    pub fn withdraw(&mut self, owner: u64) {
        let Some(known) = self.owners.get_mut(&owner).filter(|owner| owner.waits()) else { return };
        known.state = State::Withdrawn;
        if self.is_away || self.leave(Whose::View(owner)) {
            self.say(owner, Word::Refused(Errno::INTR));
        }
    }

    pub fn withdraw_open(&mut self, caller: usize) {
        let is_its = |owner: &Owner| matches!(owner.purpose, Purpose::Open(of, _) if of == caller);
        let owner = self.owners.iter().find(|(_, owner)| is_its(owner)).map(|(owner, _)| *owner);
        self.withdraw(owner.expect("an open that waits has an owner"));
    }

    /// The session's thread hears the next word; returns whom it tells what, and for what was asked.
    pub fn hear(&mut self) -> Option<(Purpose, Option<Verdict>, Arc<Wish>)> {
        let (owner, word) = self.words.pop_front().expect("offered");
        let known = self.owners.get_mut(&owner)?;
        let (purpose, wish) = (known.purpose, known.wish.clone());
        let verdict = match (word, known.state) {
            (Word::Waiting, State::Asked { told: false }) => {
                known.state = State::Asked { told: true };
                return Some((purpose, None, wish));
            }
            (Word::Granted, State::Asked { .. }) => {
                known.state = State::Held;
                return Some((purpose, Some(Verdict::Go(Turn::of(owner))), wish));
            }
            (Word::Granted | Word::Refused(_), State::Withdrawn) => Verdict::Stop(Errno::INTR),
            (Word::Refused(errno), State::Asked { .. }) => Verdict::Stop(errno),
            (Word::Revoked, State::Asked { .. } | State::Withdrawn) => {
                self.leave(Whose::View(owner));
                Verdict::Stop(Errno::INTR)
            }
            (Word::Revoked, State::Held) => {
                known.state = State::Revoked;
                return None;
            }
            _ => return None,
        };
        self.owners.remove(&owner);
        Some((purpose, Some(verdict), wish))
    }

    pub fn time_out(&mut self, owner: u64, left: &mut Faults) {
        if !self.owners.get(&owner).is_some_and(Owner::is_brief) {
            left.happens(Fault::Timeout);
        }
        self.leave(Whose::View(owner));
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

    /// The broker is gone, with all that was on its way.
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

    /// It is back, and so are all sessions, before anybody is let in; one that no longer knows the view's begins
    /// that anew.
    pub fn come_back(&mut self, resumed: bool) {
        self.is_away = false;
        self.words.clear();
        if !resumed {
            self.owners.retain(|_, owner| !matches!(owner.state, State::Held | State::Revoked));
        }
        let owners = &self.owners;
        self.claims.retain(|claim| match claim.whose {
            Whose::View(owner) => resumed && owners.get(&owner).is_some_and(Owner::is_listed),
            Whose::Other(_) => true,
        });
        let asked: Vec<u64> = self
            .owners
            .iter()
            .filter(|(_, known)| known.waits())
            .map(|(owner, _)| *owner)
            .collect();
        for owner in &asked {
            if !self.claims.iter().any(|claim| claim.whose == Whose::View(*owner)) {
                self.queue_up(*owner);
            }
        }
        self.let_in();
        for (owner, known) in self.owners.clone() {
            let word = match known.state {
                State::Asked { .. } if self.has(Whose::View(owner)) => Word::Granted,
                State::Asked { .. } => Word::Waiting,
                State::Withdrawn => Word::Refused(Errno::INTR),
                State::Held | State::Revoked => continue,
            };
            self.say(owner, word);
        }
    }

    /// Whether an owner may act, as far as the view can know.
    pub fn may_act(&self, owner: u64) -> bool {
        self.holds(Turn::of(owner)) && (self.is_away || self.has(Whose::View(owner)))
    }

    /// Whether somebody has been let in.
    pub fn has(&self, whose: Whose) -> bool {
        self.claims.iter().any(|claim| claim.whose == whose && claim.is_held)
    }

    /// Returns what all others have.
    pub fn held_beside(&self, whose: Whose) -> impl Iterator<Item = &Wish> {
        let others = self.claims.iter().filter(move |claim| claim.is_held && claim.whose != whose);
        others.map(|claim| &*claim.wish)
    }

    /// Whether a caller waits for a moment at most.
    pub fn waits_briefly(&self, caller: usize) -> bool {
        self.owners.values().any(|owner| owner.purpose == Purpose::Briefly(caller))
    }

    /// Returns the owners that wait for a ticket, and for which.
    pub fn in_line(&self) -> impl Iterator<Item = (u64, Stub)> {
        self.owners.iter().filter_map(|(owner, known)| match (known.purpose, known.state) {
            (Purpose::Ticket(stub, _), State::Asked { .. }) => Some((*owner, stub)),
            _ => None,
        })
    }

    pub fn holds(&self, turn: Turn) -> bool {
        let Turn::Granted { owner, .. } = turn else { return true };
        self.owners.get(&owner).is_some_and(|owner| owner.state == State::Held)
    }

    pub fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.claims.is_empty()
    }

    fn queue_up(&mut self, owner: u64) {
        let wish = self.owners[&owner].wish.clone();
        self.claims.push(Claim { whose: Whose::View(owner), wish, is_held: false });
    }

    /// Takes a claim out; returns whether it waited.
    fn leave(&mut self, whose: Whose) -> bool {
        let Some(place) = self.claims.iter().position(|claim| claim.whose == whose) else {
            return false;
        };
        let claim = self.claims.remove(place);
        self.settle();
        !claim.is_held
    }

    fn settle(&mut self) {
        for whose in self.let_in() {
            if let Whose::View(owner) = whose {
                self.say(owner, Word::Granted);
            }
        }
    }

    /// Lets in whoever's turn it is.
    fn let_in(&mut self) -> Vec<Whose> {
        let mut news = Vec::new();
        for place in 0..self.claims.len() {
            let claim = &self.claims[place];
            let mut others = self.claims.iter().enumerate();
            let is_stopped = others.any(|(at, other)| {
                at != place && (other.is_held || at < place) && other.wish.conflicts(&claim.wish)
            });
            if !claim.is_held && !is_stopped {
                news.push(claim.whose);
                self.claims[place].is_held = true;
            }
        }
        news
    }

    /// Open files keep up with their names.
    fn move_names(&mut self, change: &Change) {
        let claims = self.claims.iter_mut().map(|claim| &mut claim.wish);
        for wish in claims.chain(self.owners.values_mut().map(|owner| &mut owner.wish)) {
            if let Some(moved) = wish.moved(change) {
                *wish = moved;
            }
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

    fn is_brief(&self) -> bool {
        matches!(self.purpose, Purpose::Briefly(_))
    }

    /// Whether the session lists it when it is back.
    fn is_listed(&self) -> bool {
        !matches!(self.state, State::Withdrawn)
    }
}
