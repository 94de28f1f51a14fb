//! Who holds, who waits and why, for people and programs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gate_api::wire::{
    Line, LinePlace, LineState, Locks, LogQuery, PrivateLine, PrivateView, Reply, Scope,
    SessionLine, Sessions, SpaceLine, Status, Stretch, Why,
};
use gate_core::id::{SessionId, SpaceId, Ticket};
use gate_core::lock::table::{Standing, State, Table};
use gate_core::path::ViewPath;

use super::Desk;
use crate::audit::{Filter, Question};
use crate::bounds;
use crate::clock::Reading;
use crate::mail::{ConnectionId, Mail};
use crate::metrics::Metrics;
use crate::sessions::Client;
use crate::spaces;
use crate::stateless;

/// Lines in one answer: what is told in one go holds nobody up.
const LINES_MAX: usize = 128;
/// Bytes of text in one answer, about; far enough from the bound of a frame.
const LINES_BYTES_MAX: usize = 128 * 1024;
/// Names shown of one claim.
const PLACES_SHOWN_MAX: usize = 16;
/// Records in one answer.
const RECORDS_MAX: usize = 512;
/// Records of the past of one path.
const PAST_MAX: usize = 64;
/// How long a question may wait for something to happen.
const LOG_PATIENCE_MAX: Duration = Duration::from_secs(60);

impl Desk {
    pub(super) fn locks(&self, scope: &Scope, after: Ticket) -> Reply {
        let tickets = match scope {
            Scope::Everything => self.table.tickets_after(after, LINES_MAX + 1),
            Scope::Within { .. } | Scope::Absolute(_) => {
                let Some((space, path)) = self.resolve(scope) else { return Reply::Unknown };
                self.table.tickets_at(space, &path, after, LINES_MAX + 1)
            }
        };
        let mut lines: Vec<Line> = Vec::new();
        let mut bytes = 0;
        let reading = Reading::take();
        let mut more = false;
        for standing in self.table.standings(tickets) {
            let is_full = lines.len() >= LINES_MAX || bytes >= LINES_BYTES_MAX;
            // The two lines of one ticket stay together: the next page begins after it.
            if is_full && lines.last().is_some_and(|last| last.ticket != standing.ticket.0) {
                more = true;
                break;
            }
            let line = self.line(&standing, reading);
            bytes += bytes_of(&line);
            lines.push(line);
        }
        Reply::Locks(Locks { version: self.version, lines, more })
    }

    /// Answers with what stands; what happened is for the log to add.
    pub(super) fn answer_why(&mut self, connection: ConnectionId, id: u64, scope: &Scope) {
        let Some(why) = self.why(scope) else {
            return self.answered(connection, id, Reply::Unknown);
        };
        let filter = match scope {
            Scope::Everything => Filter::TakenAway,
            Scope::Within { .. } | Scope::Absolute(_) => {
                Filter::OddAt { space: why.space.clone(), path: why.path.clone() }
            }
        };
        let inbox = self.inbox.clone();
        self.log.ask(Question {
            filter,
            stretch: Stretch::UpTo(None),
            limit: PAST_MAX,
            until: Instant::now(),
            answer: Box::new(move |page| {
                let reply = Reply::Why(Why { past: page.entries, ..why });
                inbox.send(Mail::Answered { connection, id, reply });
            }),
        });
    }

    /// Passes a question about what happened on to the log.
    pub(super) fn answer_log(&mut self, connection: ConnectionId, id: u64, query: LogQuery) {
        let filter = match &query.scope {
            Scope::Everything => Some(Filter::All),
            // A space that is forgotten still has a past.
            Scope::Within { space, path } => {
                Some(Filter::Beneath { space: space.clone(), path: path.clone() })
            }
            Scope::Absolute(_) => self.resolve(&query.scope).and_then(|(space, path)| {
                let space = self.spaces.get(space)?.name.clone();
                Some(Filter::Beneath { space, path })
            }),
        };
        let Some(filter) = filter else {
            return self.reply(connection, id, Reply::Unknown);
        };
        if let Some(visitor) = self.visitors.get_mut(&connection) {
            visitor.asked.of_log += 1;
        }
        let inbox = self.inbox.clone();
        self.log.ask(Question {
            filter,
            stretch: query.stretch,
            limit: usize::try_from(query.limit).unwrap_or(usize::MAX).clamp(1, RECORDS_MAX),
            until: Instant::now() + query.patience.min(LOG_PATIENCE_MAX),
            answer: Box::new(move |page| {
                inbox.send(Mail::Answered { connection, id, reply: Reply::Log(page) });
            }),
        });
    }

    /// Passes a question of the HTTP interface on to the log.
    pub fn ask_log(&self, question: Question) {
        self.log.ask(question);
    }

    /// Hands out the figures, with how much there is by now.
    pub fn figures(&self) -> Arc<Metrics> {
        self.measure();
        self.metrics.clone()
    }

    fn why(&self, scope: &Scope) -> Option<Why> {
        if *scope == Scope::Everything {
            let (space, path) = (String::new(), ViewPath::root());
            return Some(Why { space, path, lines: Vec::new(), past: Vec::new() });
        }
        let (space, path) = self.resolve(scope)?;
        let is_hold =
            |ticket: &Ticket| self.claim_of(*ticket).is_some_and(|claim| claim.want().op.is_hold());
        let mut tickets = self.table.tickets_at(space, &path, Ticket(0), LINES_MAX);
        for above in path.ancestors() {
            let on = self.table.tickets_on(space, &above, Ticket(0), LINES_MAX);
            tickets.extend(on.into_iter().filter(is_hold));
        }
        tickets.sort_unstable();
        tickets.dedup();
        let reading = Reading::take();
        let mut bytes = 0;
        let lines = self.table.standings(tickets).map(|standing| self.line(&standing, reading));
        let lines = lines.take(LINES_MAX).take_while(|line| {
            bytes += bytes_of(line);
            bytes < LINES_BYTES_MAX
        });
        let name = self.spaces.get(space).map(|space| space.name.clone()).unwrap_or_default();
        let lines = lines.collect();
        Some(Why { space: name, lines, past: Vec::new(), path })
    }

    pub(super) fn status(&self) -> Status {
        let (held, waiting) = self.table.load();
        let spaces = self.spaces.iter().map(|(_, space)| SpaceLine {
            name: space.name.clone(),
            source: space
                .source
                .as_ref()
                .map(|source| spaces::shown(&source.origin))
                .unwrap_or_default(),
            clients: count(space.clients),
            gap: space.gap(),
        });
        Status {
            broker: self.info.clone(),
            started_at_ms: self.started_at_ms,
            in_grace: self.table.in_grace(),
            halt: self.halt.clone(),
            sessions: count(self.sessions.len()),
            away: count(self.sessions.iter().filter(|(_, c)| c.connection.is_none()).count()),
            held: count(held),
            waiting: count(waiting),
            spaces: spaces.take(LINES_MAX).collect(),
            private: self.private_views(),
            limits: bounds::all().into_iter().map(|(name, most)| (name, count(most))).collect(),
            counts: self.metrics.counts(),
        }
    }

    pub(super) fn sessions_after(&self, after: SessionId) -> Sessions {
        let mut all: Vec<(SessionId, &Client)> =
            self.sessions.iter().filter(|(id, _)| *id > after).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        let mut bytes = 0;
        let lines = all.iter().map(|(id, client)| self.session_line(*id, client));
        let lines = lines.take(LINES_MAX).take_while(|line| {
            let is_room = bytes < LINES_BYTES_MAX;
            let spaces: usize = line.spaces.iter().map(|name| name.len() + 8).sum();
            bytes += line.name.len() + line.agent.as_ref().map_or(0, String::len) + spaces + 128;
            is_room
        });
        let lines: Vec<SessionLine> = lines.collect();
        Sessions { more: lines.len() < all.len(), lines }
    }

    fn session_line(&self, id: SessionId, client: &Client) -> SessionLine {
        let mut spaces: Vec<String> = client
            .seats
            .values()
            .filter_map(|seat| self.spaces.get(seat.space))
            .map(|space| space.name.clone())
            .collect();
        spaces.sort_unstable();
        spaces.dedup();
        SessionLine {
            session: id.0,
            name: client.name.clone(),
            process: Some(client.process),
            elsewhere: client.is_elsewhere(),
            away: client.connection.is_none(),
            lease: client.lease,
            spaces,
            agent: client.private.as_ref().map(|view| view.agent.clone()),
        }
    }

    fn private_views(&self) -> Vec<PrivateLine> {
        let mut bytes = 0;
        let line = |(_, client): (SessionId, &Client)| {
            let view = client.private.clone()?;
            Some(PrivateLine { view, pid: client.process.pid })
        };
        let lines = self.sessions.iter().filter_map(line).take_while(|line| {
            let PrivateView { agent, mountpoint, source } = &line.view;
            bytes += agent.len() + mountpoint.len() + source.len() + 16;
            bytes < LINES_BYTES_MAX
        });
        let mut lines: Vec<PrivateLine> = lines.collect();
        lines.sort_by(|a, b| (&a.view.mountpoint, a.pid).cmp(&(&b.view.mountpoint, b.pid)));
        lines
    }

    fn resolve(&self, scope: &Scope) -> Option<(SpaceId, ViewPath)> {
        match scope {
            Scope::Everything => None,
            Scope::Within { space, path } => {
                let (id, _) = self.spaces.iter().find(|(_, known)| known.name == *space)?;
                Some((id, path.clone()))
            }
            Scope::Absolute(path) => self.spaces.of_absolute(path),
        }
    }

    fn line(&self, standing: &Standing, reading: Reading) -> Line {
        let claim = &standing.claim;
        let want = claim.want();
        let space = want.places.first().and_then(|place| self.spaces.get(place.space));
        let client = self.sessions.get(claim.owner.session);
        let places = want.places.iter().take(PLACES_SHOWN_MAX).map(|place| LinePlace {
            path: place.path.clone(),
            directory: place.node == gate_core::lock::want::Node::Directory,
        });
        Line {
            ticket: standing.ticket.0,
            space: space.map(|space| space.name.clone()).unwrap_or_default(),
            places: places.collect(),
            op: want.op,
            access: want.op.access(),
            state: line_state(&standing.state, reading),
            count: standing.count,
            since_ms: reading.wall_ms_of(standing.since),
            owner: claim.label.owner.clone(),
            reason: claim.label.reason.clone(),
            process: claim.caller.map(|caller| caller.process),
            client: client.map(|client| client.name.clone()).unwrap_or_default(),
        }
    }
}

/// Returns a held claim as the stateless interface shows it.
pub(super) fn v1_lock(table: &Table, ticket: Ticket) -> Option<gate_api::v1::Lock> {
    let held = table.standings(vec![ticket]).find(is_held)?;
    stateless::show_lock(&held, Reading::take())
}

fn is_held(standing: &Standing) -> bool {
    matches!(standing.state, State::Held { .. })
}

fn line_state(state: &State, reading: Reading) -> LineState {
    match state {
        State::Held { token, passed, lease_ends_at, asked_until } => LineState::Held {
            token: *token,
            by_kin: passed.anybody(),
            lease_expires_at_ms: lease_ends_at.map(|at| reading.wall_ms_of(at)),
            recalled_until_ms: asked_until.map(|until| reading.wall_ms_of(until)),
        },
        State::Waiting { place, behind } => LineState::Waiting {
            place: count(*place),
            behind: behind.iter().map(|ticket| ticket.0).collect(),
        },
    }
}

fn bytes_of(line: &Line) -> usize {
    let places = line.places.iter().flat_map(|place| &place.path);
    let paths: usize = places.map(|path| path.as_bytes().len() + 8).sum();
    paths + line.space.len() + line.owner.len() + line.reason.len() + line.client.len() + 256
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
