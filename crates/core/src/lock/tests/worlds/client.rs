//! A client: asks, writes under its token, lets go; loses its broker, and comes back.

use std::collections::VecDeque;

use super::{Faults, Job, LEASE, Step, World};
use crate::id::{OwnerId, SessionId, Token};
use crate::lock::event::Command;
use crate::lock::table::{Record, Table};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    pub job: Job,
    pub session: SessionId,
    pub link: Link,
    /// What the broker said and it has not heard.
    pub words: VecDeque<Word>,
    /// When the broker last heard of it.
    pub heard: u64,
    /// From when its lease runs, once the broker counts it as away.
    pub lost_at: Option<u64>,
    /// It acts for a lease after this, and trusts what comes over its connection for a lease after
    /// that.
    pub proof: u64,
    pub link_proof: u64,
    pub state: State,
    /// Under which token a write is under way.
    pub writing: Option<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    Up,
    /// The client notices when it comes back.
    Gone,
    /// The client is dead.
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Idle,
    Asked,
    Holds {
        token: Token,
        wrote: bool,
    },
    /// It learned that its turn was taken away, and a write is under way.
    Lost {
        token: Token,
    },
    /// It let go, or has nothing.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    Granted(Token),
    Revoked,
}

impl Client {
    pub fn new(job: Job) -> Client {
        Client {
            job,
            session: SessionId::STATELESS,
            link: Link::Gone,
            words: VecDeque::new(),
            heard: 0,
            lost_at: None,
            proof: 0,
            link_proof: 0,
            state: State::Idle,
            writing: None,
        }
    }

    pub fn begin(&mut self, session: SessionId, now: u64) {
        self.session = session;
        self.connect(now);
        self.proof = now;
    }

    pub fn notice(&mut self) {
        self.link = Link::Gone;
        self.words.clear();
    }

    fn connect(&mut self, now: u64) {
        (self.link, self.heard, self.link_proof, self.lost_at) = (Link::Up, now, now, None);
        self.words.clear();
    }

    /// What was longer ago than a lease was a lease ago: it makes no difference.
    pub fn age(&mut self, now: u64) {
        let oldest = now.saturating_sub(LEASE);
        for moment in [&mut self.heard, &mut self.proof, &mut self.link_proof] {
            *moment = oldest.max(*moment);
        }
        self.lost_at = self.lost_at.map(|at| oldest.max(at));
    }

    fn has_lapsed(&self, now: u64) -> bool {
        self.proof + LEASE <= now
    }

    pub fn owner(&self) -> OwnerId {
        OwnerId { session: self.session, number: 1 }
    }

    pub fn begin_to_write(&mut self) {
        let State::Holds { token, wrote } = &mut self.state else { unreachable!("offered") };
        *wrote = true;
        self.writing = Some(*token);
    }
}

impl World {
    pub fn steps_of(&self, i: usize, left: &Faults, steps: &mut Vec<Step>) {
        let (client, up) = (&self.clients[i], self.table().is_some());
        match client.link {
            Link::Dead => return,
            Link::Up => {
                if client.state == State::Idle {
                    steps.push(Step::Ask(i));
                }
                let is_heard = client.words.is_empty() && client.state != State::Done;
                if is_heard && client.proof < self.now {
                    steps.push(Step::Beat(i));
                }
                if left.cuts > 0 {
                    steps.push(Step::Cut(i));
                }
            }
            Link::Gone if up => steps.push(Step::Return(i)),
            Link::Gone => {}
        }
        if !client.words.is_empty() {
            steps.push(Step::Hear(i));
        }
        if client.writing.is_some() {
            steps.push(Step::Land(i));
        } else if let State::Holds { wrote, .. } = client.state {
            if !wrote && !client.has_lapsed(self.now) {
                steps.push(Step::Write(i));
            } else {
                steps.push(Step::LetGo(i));
            }
        }
        if left.kills > 0 {
            steps.push(Step::Kill(i));
        }
        if left.breaks > 0 && self.has_turn(i) {
            steps.push(Step::Break(i));
        }
    }

    fn has_turn(&self, i: usize) -> bool {
        let record = self.table().and_then(|table| {
            let ticket = table.ticket_of(self.clients[i].owner())?;
            table.record(ticket)
        });
        matches!(record, Some(Record::Held { .. }))
    }

    pub fn ask(&mut self, i: usize) {
        let client = &mut self.clients[i];
        client.state = State::Asked;
        client.heard = self.now;
        let claim = client.job.claim(client.owner());
        self.execute(Command::Acquire { claim, leaders: Vec::new() });
    }

    pub fn hear(&mut self, i: usize) {
        let now = self.now;
        let client = &mut self.clients[i];
        // What was said to a session whose lease may be over may no longer be so.
        if now >= client.link_proof + LEASE {
            if client.link == Link::Up {
                self.lose(i);
            }
            return self.clients[i].notice();
        }
        match (client.words.pop_front().expect("offered"), client.state) {
            (Word::Granted(token), State::Asked) => {
                client.state = State::Holds { token, wrote: false };
            }
            (Word::Granted(token), State::Holds { wrote, .. }) => {
                client.state = State::Holds { token, wrote };
            }
            (Word::Revoked, State::Holds { token, .. }) if client.writing.is_some() => {
                client.state = State::Lost { token };
            }
            (Word::Revoked, State::Asked | State::Holds { .. }) => self.let_go(i),
            (Word::Granted(_) | Word::Revoked, _) => {}
        }
    }

    pub fn land(&mut self, i: usize) {
        let client = &mut self.clients[i];
        let token = client.writing.take().expect("offered");
        let is_lost = matches!(client.state, State::Lost { .. });
        for file in client.job.files() {
            self.write_file(*file, token);
        }
        if is_lost {
            self.let_go(i);
        }
    }

    pub fn let_go(&mut self, i: usize) {
        let client = &mut self.clients[i];
        client.state = State::Done;
        if client.link == Link::Up {
            client.heard = self.now;
            let owner = client.owner();
            if self.table().is_some_and(|table| table.ticket_of(owner).is_some()) {
                self.execute(Command::Release { owner, change: None });
            }
        }
    }

    /// A heartbeat is answered after all that was said before. One that is answered late proves
    /// no more than none.
    pub fn beat(&mut self, i: usize) {
        let client = &mut self.clients[i];
        (client.heard, client.proof, client.link_proof) = (self.now, self.now, self.now);
    }

    pub fn kill(&mut self, i: usize) {
        if self.clients[i].link == Link::Up {
            self.lose(i);
        }
        self.clients[i].words.clear();
        self.clients[i].writing = None;
        self.clients[i].link = Link::Dead;
    }

    /// It lists what it has; where its session is no more it begins anew and has nothing. It lists
    /// nothing either if it could not act for a while and the broker may have forgotten that it
    /// ended it.
    pub fn come_back(&mut self, i: usize) {
        let known =
            self.table().is_some_and(|t| t.sessions().any(|s| s == self.clients[i].session));
        if !known {
            self.begin_session(i);
            return self.begin_again(i);
        }
        let may_forget = self.table().is_some_and(Table::may_have_forgotten);
        let client = &mut self.clients[i];
        let is_sure = !may_forget || !client.has_lapsed(self.now);
        client.connect(self.now);
        let (session, claim) = (client.session, client.job.claim(client.owner()));
        let (held, waiting) = match client.state {
            State::Holds { token, .. } | State::Lost { token } if is_sure => {
                (vec![(claim, token)], Vec::new())
            }
            State::Asked if is_sure => (Vec::new(), vec![(claim, Vec::new())]),
            State::Holds { .. } | State::Lost { .. } | State::Asked | State::Idle | State::Done => {
                (Vec::new(), Vec::new())
            }
        };
        let owner = client.owner();
        let is_listed = !held.is_empty() || !waiting.is_empty();
        self.execute(Command::Reclaim { session, held, waiting });
        if !is_sure {
            self.begin_again(i);
        } else if is_listed {
            self.tell_whereabouts(i, owner);
        }
        while !self.clients[i].words.is_empty() {
            self.hear(i);
        }
        self.clients[i].proof = self.now;
    }

    /// What it held is lost; what it waits for it asks for anew.
    fn begin_again(&mut self, i: usize) {
        match self.clients[i].state {
            State::Asked => self.ask(i),
            State::Holds { .. } | State::Lost { .. } => self.clients[i].state = State::Done,
            State::Idle | State::Done => {}
        }
    }

    /// Who lists something is told what became of it.
    fn tell_whereabouts(&mut self, i: usize, owner: OwnerId) {
        let Some(table) = self.table() else { return };
        let word = match table.ticket_of(owner).and_then(|ticket| table.record(ticket)) {
            Some(Record::Held { token, revoked: None, .. }) => Word::Granted(token),
            Some(Record::Waiting(_)) => return,
            Some(Record::Held { .. }) | None => Word::Revoked,
        };
        self.clients[i].words.push_back(word);
    }
}
