//! The tickets of calls that wait outside of the kernel's locks: the rules of [`park`](super).
//!
//! Pure: it is told what happened and says what is to be done; it knows no kernel, no broker and
//! no clock. `C` is a call in hand, `W` a parked walk. A thread makes one call at a time and so
//! has one ticket; who comes back to it later has its [`Stub`], or a [`Watch`] for the state that
//! it was in.
//!
//! It must hold: a call is sent outside once; a turn is handed to one call or given back.

use std::collections::BTreeMap;
use std::ffi::CString;

use gate_core::lock::want::Node;
use gate_fuse::{Errno, NodeId};

use crate::turn::{Round, Turn, Verdict};

/// The tickets of a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tickets<C, W>(BTreeMap<u32, Ticket<C, W>>);

/// Names one ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Stub {
    pub thread: u32,
    /// Tells it from earlier tickets of the thread.
    pub number: u64,
}

/// Names one state of a ticket: once it has moved on this means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Watch {
    pub stub: Stub,
    moves: u32,
}

/// What a call is about, however the kernel issues it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Spot {
    /// The directory of its name, and of the second name if it has two.
    pub parents: [NodeId; 2],
    /// Its (first) name.
    pub name: CString,
}

/// A call as it comes.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub spot: Spot,
    /// In its last round it must not be sent outside.
    pub round: Round,
    /// What stands at its places.
    pub stands: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ticket<C, W> {
    number: u64,
    spot: Spot,
    /// What the broker was asked for.
    asked_for: Vec<Node>,
    owner: Option<u64>,
    state: State<C, W>,
    moves: u32,
    /// Whether the program was told EINTR: nothing of its call is outstanding.
    is_answered: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State<C, W> {
    /// The call holds the kernel's locks and waits for a word of the broker.
    Asked(C),
    /// The call was sent outside; its walk may have come and be parked.
    InLine(Option<W>),
    /// It is its turn; the call will come again.
    Turn(Turn),
    /// It was told no; the call will come again to hear it.
    Refused(Errno),
    /// The walk was interrupted; the program may make the call anew.
    Kept,
    /// The call did not come again in time.
    Expired,
}

/// What becomes of a call that arrives.
#[derive(Debug, PartialEq)]
pub(crate) enum Arrival<C> {
    /// It has a ticket, and the broker is to be asked.
    Ask,
    Run(C, Turn),
    Fail(C, Errno),
    /// Its place was kept; it is to be sent outside.
    Send(C, Watch),
    /// It must not be sent outside: it waits a moment, with the kernel's locks.
    AskBriefly(C),
}

/// What the broker's last word on a ticket leads to.
#[derive(Debug, PartialEq)]
pub(crate) enum Decided<C, W> {
    /// The call hears it at once.
    Now(C),
    /// The call hears it when it comes again; its walk, if it has come, goes on.
    Later(Option<W>, Watch),
    /// There is nobody to hear it: a turn is to be given back.
    Nobody,
}

/// What an ended ticket leaves, to be given back to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Rest {
    Nothing,
    /// The owner's place in line.
    Place(u64),
    Turn(Turn),
}

impl<C, W> Tickets<C, W> {
    /// A call has come that may have to wait.
    pub fn arrive(&mut self, stub: Stub, about: About, call: C) -> (Rest, Arrival<C>) {
        let Some(mut ticket) = self.0.remove(&stub.thread) else {
            return (Rest::Nothing, self.begin(stub, about, call));
        };
        if ticket.spot != about.spot {
            let arrival = self.begin(stub, about, call);
            return (ticket.rest(), arrival);
        }
        match (&ticket.state, about.round) {
            (State::Turn(turn), _) if ticket.asked_for == about.stands => {
                (Rest::Nothing, Arrival::Run(call, *turn))
            }
            (State::Refused(errno), _) => (Rest::Nothing, Arrival::Fail(call, *errno)),
            (State::Kept, Round::First) => {
                ticket.turn_to(State::InLine(None));
                ticket.is_answered = false;
                let watch = ticket.watch(stub.thread);
                self.0.insert(stub.thread, ticket);
                (Rest::Nothing, Arrival::Send(call, watch))
            }
            // It was sent outside, and comes too late, without a walk, or to something else.
            _ => (ticket.rest(), Arrival::AskBriefly(call)),
        }
    }

    /// The broker was asked for a ticket; returns whether its answer is still wanted. Owners have
    /// rising numbers: whoever asked first may be late to say so.
    pub fn asked(&mut self, stub: Stub, owner: u64) -> bool {
        let Some(ticket) = self.get_mut(stub) else { return false };
        ticket.owner = ticket.owner.max(Some(owner));
        !matches!(ticket.state, State::Expired)
    }

    /// Returns whether a call does not hold the kernel's locks, and will come again.
    pub fn is_outside(&mut self, stub: Stub) -> bool {
        let state = self.get_mut(stub).map(|ticket| &ticket.state);
        matches!(state, Some(State::InLine(_) | State::Kept))
    }

    /// Something else stands at the places of a call that is outside: the broker is asked anew.
    pub fn asks_for(&mut self, stub: Stub, stands: Vec<Node>) {
        if let Some(ticket) = self.get_mut(stub) {
            (ticket.asked_for, ticket.owner) = (stands, None);
        }
    }

    /// The broker's answer is not yes, or overdue: the call is to be sent outside, or to fail.
    pub fn must_wait(&mut self, stub: Stub) -> Option<(C, Watch)> {
        let ticket = self.get_mut(stub)?;
        if !matches!(ticket.state, State::Asked(_)) {
            return None;
        }
        let State::Asked(call) = ticket.turn_to(State::InLine(None)) else {
            unreachable!("looked at above")
        };
        Some((call, ticket.watch(stub.thread)))
    }

    /// The broker has said its last word.
    pub fn decided(&mut self, stub: Stub, verdict: Verdict) -> Decided<C, W> {
        let Some(ticket) = self.get_mut(stub) else { return Decided::Nobody };
        let next = match verdict {
            Verdict::Go(turn) => State::Turn(turn),
            Verdict::Stop(errno) => State::Refused(errno),
        };
        match (&ticket.state, verdict) {
            (State::InLine(_), _) | (State::Kept, Verdict::Go(_)) => {
                let walk = match ticket.turn_to(next) {
                    State::InLine(walk) => walk,
                    _ => None,
                };
                Decided::Later(walk, ticket.watch(stub.thread))
            }
            // Kept, the program has had its answer; it may ask anew.
            (State::Asked(_), _) | (State::Kept, Verdict::Stop(_)) => {
                match self.0.remove(&stub.thread).map(|ticket| ticket.state) {
                    Some(State::Asked(call)) => Decided::Now(call),
                    _ => Decided::Nobody,
                }
            }
            (State::Turn(_) | State::Refused(_) | State::Expired, _) => Decided::Nobody,
        }
    }

    /// A GETATTR has come; returns the ticket of the call whose walk it is and that has to wait.
    pub fn walk_of(&self, thread: u32, node: NodeId) -> Option<Stub> {
        let ticket = self.0.get(&thread)?;
        let waits = matches!(ticket.state, State::InLine(None));
        (waits && ticket.spot.parents.contains(&node))
            .then_some(Stub { thread, number: ticket.number })
    }

    /// A walk was parked; gives it back if there is nothing left to wait for.
    pub fn parked(&mut self, stub: Stub, walk: W) -> Option<W> {
        match self.get_mut(stub).map(|ticket| &mut ticket.state) {
            Some(State::InLine(waiting @ None)) => {
                *waiting = Some(walk);
                None
            }
            _ => Some(walk),
        }
    }

    /// The walk was interrupted: the program sees EINTR, and may make the call anew.
    pub fn interrupted(&mut self, stub: Stub) -> Option<Watch> {
        if let State::Expired = self.get_mut(stub)?.state {
            self.0.remove(&stub.thread);
            return None;
        }
        let ticket = self.get_mut(stub)?;
        ticket.is_answered = true;
        if let State::InLine(_) = ticket.state {
            ticket.turn_to(State::Kept);
        }
        Some(ticket.watch(stub.thread))
    }

    /// A thread opens a file, by that name if by any, which may be a CREATE that waited until the
    /// name existed. Its ticket ends; returns the round of the open.
    pub fn open(&mut self, thread: u32, name: Option<&(NodeId, CString)>) -> (Rest, Round) {
        let Some(ticket) = self.0.remove(&thread) else { return (Rest::Nothing, Round::First) };
        let is_same = |(parent, name): &(NodeId, CString)| {
            ticket.spot.parents[0] == *parent && ticket.spot.name == *name
        };
        let again = !ticket.is_answered && name.is_some_and(is_same);
        (ticket.rest(), if again { Round::Last } else { Round::First })
    }

    /// Nobody has come in time: gives up what waits or was granted, and remembers that the thread
    /// was sent outside.
    pub fn expire(&mut self, watch: Watch) -> Option<Rest> {
        let ticket = self.get_mut(watch.stub)?;
        let (owner, in_state) = (ticket.owner, ticket.moves == watch.moves);
        let unclaimed =
            !matches!(ticket.state, State::Asked(_) | State::InLine(Some(_)) | State::Expired);
        if !in_state || !unclaimed {
            return None;
        }
        if ticket.is_answered {
            return Some(self.end(watch.stub));
        }
        let before = ticket.turn_to(State::Expired);
        Some(before.rest(owner))
    }

    /// Ends a ticket whose call will not come again.
    pub fn end(&mut self, stub: Stub) -> Rest {
        match self.get_mut(stub) {
            Some(_) => self.0.remove(&stub.thread).map_or(Rest::Nothing, Ticket::rest),
            None => Rest::Nothing,
        }
    }

    /// Forgets that a thread was sent outside.
    pub fn forget(&mut self, stub: Stub) {
        if self.get_mut(stub).is_some_and(|ticket| matches!(ticket.state, State::Expired)) {
            self.0.remove(&stub.thread);
        }
    }

    /// Returns the calls that hold the kernel's locks.
    pub fn in_hand(&self) -> impl Iterator<Item = (Stub, &C)> {
        self.0.iter().filter_map(|(thread, ticket)| match &ticket.state {
            State::Asked(call) => Some((Stub { thread: *thread, number: ticket.number }, call)),
            _ => None,
        })
    }

    /// Returns how many tickets there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn begin(&mut self, stub: Stub, about: About, call: C) -> Arrival<C> {
        let About { spot, round, stands: asked_for } = about;
        if round == Round::Last {
            return Arrival::AskBriefly(call);
        }
        let Stub { thread, number } = stub;
        let state = State::Asked(call);
        let (owner, moves, is_answered) = (None, 0, false);
        let ticket = Ticket { number, spot, asked_for, owner, state, moves, is_answered };
        self.0.insert(thread, ticket);
        Arrival::Ask
    }

    fn get_mut(&mut self, stub: Stub) -> Option<&mut Ticket<C, W>> {
        self.0.get_mut(&stub.thread).filter(|ticket| ticket.number == stub.number)
    }
}

impl<C, W> Ticket<C, W> {
    fn turn_to(&mut self, state: State<C, W>) -> State<C, W> {
        self.moves += 1;
        std::mem::replace(&mut self.state, state)
    }

    fn watch(&self, thread: u32) -> Watch {
        Watch { stub: Stub { thread, number: self.number }, moves: self.moves }
    }

    fn rest(self) -> Rest {
        self.state.rest(self.owner)
    }
}

impl<C, W> State<C, W> {
    fn rest(self, owner: Option<u64>) -> Rest {
        match self {
            State::Turn(turn) => Rest::Turn(turn),
            // Without a number its broker has yet to be asked: `asked` tells that it is in vain.
            State::Asked(_) | State::InLine(_) | State::Kept => {
                owner.map_or(Rest::Nothing, Rest::Place)
            }
            State::Refused(_) | State::Expired => Rest::Nothing,
        }
    }
}

impl<C, W> Default for Tickets<C, W> {
    fn default() -> Self {
        Tickets(BTreeMap::new())
    }
}
