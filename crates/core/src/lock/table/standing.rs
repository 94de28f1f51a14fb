//! Who holds, who waits, and behind whom: the table as people and programs see it.

use std::ops::Bound;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::super::claim::Claim;
use super::super::event::Passed;
use super::super::key::Key;
use super::super::mode::Mode;
use super::super::slot::{QueueId, Slot, Waiting};
use super::Table;
use crate::id::{OwnerId, SessionId, SpaceId, Ticket, Token};
use crate::path::ViewPath;
use crate::time::Time;

/// How many of those in its way are named for one waiter.
pub const BLOCKERS_SHOWN_MAX: usize = 16;

/// How many stand before a ticket in each line, as far as it was walked: a line of thousands is
/// listed in one walk.
type Counted = FxHashMap<(QueueId, Mode), (Ticket, usize)>;

/// One claim as it stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its place in line.
    pub ticket: Ticket,
    /// What it is.
    pub claim: Arc<Claim>,
    /// Whether it holds or waits.
    pub state: State,
    /// Since when, on the broker's clock.
    pub since: Time,
    /// How many acquires of its owner stand behind it.
    pub count: u32,
}

/// Whether a claim holds or waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It was let in.
    Held {
        /// Its fencing token.
        token: Token,
        /// Whom it passed.
        passed: Passed,
        /// When its lease ends, if it lives by one.
        lease_ends_at: Option<Time>,
        /// Until when it has to let go, if it was asked to, or what it has was taken away.
        asked_until: Option<Time>,
    },
    /// It stands in line.
    Waiting {
        /// How many requests in its way stand before it, plus one.
        place: usize,
        /// Some of those in its way, holders first.
        behind: Vec<Ticket>,
    },
}

/// Since when a claim waits and is held, as far as it does and is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Since {
    /// Since when it waits.
    pub waiting: Option<Time>,
    /// Since when it is held.
    pub held: Option<Time>,
}

impl Table {
    /// Returns since when a claim waits and is held.
    pub fn since(&self, ticket: Ticket) -> Since {
        self.slots.get(&ticket).map_or(Since::default(), |slot| Since {
            waiting: slot.waiting.as_ref().map(|waiting| waiting.since),
            held: slot.held.as_ref().map(|held| held.since),
        })
    }

    /// Returns the tickets of the claims later than one, oldest first, at most `most`: to list
    /// them page by page.
    pub fn tickets_after(&self, after: Ticket, most: usize) -> Vec<Ticket> {
        let later = (Bound::Excluded(after), Bound::Unbounded);
        self.slots.range(later).map(|(ticket, _)| *ticket).take(most).collect()
    }

    /// Returns the tickets, later than one, of the claims that use a path or, for a directory,
    /// anything beneath it: oldest first, at most `most`.
    pub fn tickets_at(
        &self,
        space: SpaceId,
        path: &ViewPath,
        after: Ticket,
        most: usize,
    ) -> Vec<Ticket> {
        let keys = [Key::Path(space, path.clone()), Key::Tree(space, path.clone())];
        let queues = keys.iter().filter_map(|key| self.queue(key));
        oldest(queues.flat_map(|queue| queue.tickets(after, most)).collect(), most)
    }

    /// Returns the tickets, later than one, of the claims that name this very path: oldest first, at
    /// most `most`.
    pub fn tickets_on(
        &self,
        space: SpaceId,
        path: &ViewPath,
        after: Ticket,
        most: usize,
    ) -> Vec<Ticket> {
        let queue = self.queue(&Key::Path(space, path.clone()));
        oldest(queue.into_iter().flat_map(|queue| queue.tickets(after, most)).collect(), most)
    }

    /// Returns claims by their tickets, which are in order: each as held first, then as waiting.
    pub fn standings(&self, tickets: Vec<Ticket>) -> impl Iterator<Item = Standing> + '_ {
        let mut counted = Counted::default();
        tickets.into_iter().flat_map(move |ticket| self.standings_of(ticket, &mut counted))
    }

    fn standings_of(&self, ticket: Ticket, counted: &mut Counted) -> Vec<Standing> {
        let Some(slot) = self.slots.get(&ticket) else { return Vec::new() };
        let held = slot.held.as_ref().map(|held| Standing {
            ticket,
            claim: held.claim.clone(),
            state: State::Held {
                token: held.token,
                passed: held.passed,
                lease_ends_at: held.lease_ends_at(),
                asked_until: held.asked_until(),
            },
            since: held.since,
            count: slot.count,
        });
        held.into_iter().chain(self.waiting_standing(ticket, slot, counted)).collect()
    }

    fn waiting_standing(
        &self,
        ticket: Ticket,
        slot: &Slot,
        counted: &mut Counted,
    ) -> Option<Standing> {
        let waiting = slot.waiting.as_ref()?;
        let mut behind: Vec<Ticket> = self.blockers(ticket).take(BLOCKERS_SHOWN_MAX * 4).collect();
        behind.sort_unstable();
        behind.dedup();
        let place = 1 + self.waiters_before(ticket, waiting, counted);
        behind.sort_by_key(|t| self.slot(*t).held.is_none());
        behind.truncate(BLOCKERS_SHOWN_MAX);
        Some(Standing {
            ticket,
            claim: waiting.claim.clone(),
            state: State::Waiting { place, behind },
            since: waiting.since,
            count: slot.count,
        })
    }

    fn waiters_before(&self, ticket: Ticket, waiting: &Waiting, counted: &mut Counted) -> usize {
        let before = waiting.keys.iter().map(|(id, mode)| {
            let (from, count) = counted.get(&(*id, *mode)).copied().unwrap_or((Ticket(0), 0));
            let since = self.queues[*id].waiters_between(*mode, from, ticket);
            let count = count + since.count();
            counted.insert((*id, *mode), (ticket, count));
            count
        });
        before.max().unwrap_or(0)
    }

    /// Returns the ticket of an owner, if it has a claim.
    pub fn ticket_of(&self, owner: OwnerId) -> Option<Ticket> {
        self.owners.get(&owner).copied()
    }

    /// Returns whether a claim waits, whatever it holds meanwhile.
    pub fn waits(&self, ticket: Ticket) -> bool {
        self.slots.get(&ticket).is_some_and(|slot| slot.waiting.is_some())
    }

    /// Returns whom a waiter waits for, those who hold: at most `most`. Its kin are not among them,
    /// so that who learns of some is shown others the next time.
    pub fn holders_before(&self, ticket: Ticket, most: usize) -> Vec<Ticket> {
        if !self.waits(ticket) {
            return Vec::new();
        }
        let held = |holder: &Ticket| self.slot(*holder).held.is_some();
        let mut holders: Vec<Ticket> = self.blockers(ticket).filter(held).take(most).collect();
        holders.sort_unstable();
        holders.dedup();
        holders
    }

    /// Returns how many claims hold and how many wait.
    pub fn load(&self) -> (usize, usize) {
        (self.slots.len() - self.waiting.min(self.slots.len()), self.waiting)
    }

    /// Returns how many wait for one key, where most do.
    pub fn longest_line(&self) -> usize {
        if self.waiting == 0 {
            return 0;
        }
        self.queues.iter().map(|(_, queue)| queue.length()).max().unwrap_or(0)
    }

    /// Returns whether former sessions may still come back.
    pub fn in_grace(&self) -> bool {
        self.grace.is_some()
    }

    /// Returns whether former sessions may have been ended without anybody knowing it any more.
    pub fn may_have_forgotten(&self) -> bool {
        self.grace.is_some_and(|grace| grace.sealed)
    }

    /// Returns whether a session holds or waits for anything.
    pub fn has_claims(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| !session.tickets.is_empty())
    }

    /// Returns the living sessions, the stateless one apart.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions.keys().copied().filter(|session| *session != SessionId::STATELESS)
    }
}

/// Returns the oldest `most` in order, each once.
fn oldest(mut tickets: Vec<Ticket>, most: usize) -> Vec<Ticket> {
    tickets.sort_unstable();
    tickets.dedup();
    tickets.truncate(most);
    tickets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;
    use crate::lock::claim::{Party, Terms};
    use crate::lock::event::Command;
    use crate::lock::want::{Access, Node, Op, Place, Want};
    use std::time::Duration;

    const SPACE: SpaceId = SpaceId(1);
    const SESSION: SessionId = SessionId(1);

    fn claim(number: u64, path: &str) -> Arc<Claim> {
        claim_of(number, &[path])
    }

    fn claim_of(number: u64, paths: &[&str]) -> Arc<Claim> {
        let owner = OwnerId { session: SESSION, number };
        let terms = Terms::of(owner, Party::Owner(owner));
        let place = |path: &&str| {
            let path = ViewPath::parse(path.as_bytes()).unwrap();
            Place { space: SPACE, path: Some(path), node: Node::None }
        };
        let places = paths.iter().map(place).collect();
        Arc::new(Claim::new(terms, Want { op: Op::Hold(Access::Write), places }))
    }

    #[test]
    fn a_line_is_listed_page_by_page_as_in_one_piece() {
        let mut table = Table::new(Epoch(1));
        let lease = Duration::from_secs(10);
        table.execute(Time::ZERO, Command::Open { session: SESSION, lease }).unwrap();
        // One holds, nine wait; between them stand others who wait for nobody.
        for number in 0..20 {
            let other = format!("d/other-{number}");
            let path = if number % 2 == 0 { "d/f" } else { &other };
            let command = Command::Acquire { claim: claim(number, path), leaders: Vec::new() };
            table.execute(Time::ZERO, command).unwrap();
        }
        let places_by = |most: usize, path: &str| {
            let path = ViewPath::parse(path.as_bytes()).unwrap();
            let (mut places, mut after) = (Vec::new(), Ticket(0));
            loop {
                let page = table.tickets_at(SPACE, &path, after, most);
                let Some(last) = page.last() else { break places };
                after = *last;
                places.extend(table.standings(page).filter_map(|standing| match standing.state {
                    State::Waiting { place, .. } => Some(place),
                    State::Held { .. } => None,
                }));
            }
        };
        for most in [1, 3, 7, usize::MAX] {
            for path in ["d/f", "d", "."] {
                assert_eq!(places_by(most, path), Vec::from_iter(1..=9), "{path} by {most}");
            }
            let mut all = table.tickets_after(Ticket(5), most);
            all.truncate(2);
            assert_eq!(all, [Ticket(6), Ticket(7)][..most.min(2)]);
        }
        assert_eq!(table.tickets_on(SPACE, &ViewPath::root(), Ticket(0), 9), []);
        let path = ViewPath::parse(b"d/f").unwrap();
        assert_eq!(table.tickets_on(SPACE, &path, Ticket(3), 2), [Ticket(5), Ticket(7)]);
    }

    #[test]
    fn who_holds_is_named_first_however_many_stand_before() {
        let mut table = Table::new(Epoch(1));
        let lease = Duration::from_secs(10);
        table.execute(Time::ZERO, Command::Open { session: SESSION, lease }).unwrap();
        assert!(!table.has_claims(SESSION));
        let mut ask = |number, paths: &[&str]| {
            let command = Command::Acquire { claim: claim_of(number, paths), leaders: Vec::new() };
            table.execute(Time::ZERO, command).unwrap();
        };
        let shown = BLOCKERS_SHOWN_MAX as u64;
        // Twice as many as are shown wait for one name, and one more waits for another beside.
        ask(0, &["f"]);
        ask(1, &["g"]);
        (2..2 + 2 * shown).for_each(|number| ask(number, &["f"]));
        let last = 2 + 2 * shown;
        ask(last, &["f", "g"]);
        assert!(table.has_claims(SESSION));
        let ticket = table.ticket_of(OwnerId { session: SESSION, number: last }).unwrap();
        let standing = table.standings(vec![ticket]).next().unwrap();
        let State::Waiting { place, behind } = standing.state else { panic!("{standing:?}") };
        assert_eq!(place, 2 * BLOCKERS_SHOWN_MAX + 1);
        // Tickets count from one.
        let expected: Vec<Ticket> = (1..=shown).map(Ticket).collect();
        assert_eq!(behind, expected);
    }
}
