//! Timelines as text: `who does what` and, after two spaces, what comes of it.
//!
//! A name is a process with a session of its own, but for V, a client of the stateless interface; it
//! may have several claims. One-shot operations
//! (unlink, rename, …) are done and released as soon as they are granted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{Epoch, OwnerId, SessionId, SpaceId, Ticket};
use crate::lock::claim::{Caller, Claim, Party, Patience, Process, Terms};
use crate::lock::event::{Change, Command, Notice, RecallStage, Refusal};
use crate::lock::key::FileKey;
use crate::lock::table::{Record, Restore, Standing, State, Table};
use crate::lock::want::{Access, Node, Op, Place, Want};
use crate::path::ViewPath;
use crate::time::Time;

const SPACE: SpaceId = SpaceId(1);
const LEASE: Duration = Duration::from_secs(10);

/// Runs a timeline and panics with both texts where it differs.
#[track_caller]
pub fn check(script: &str) {
    let mut world = World::new();
    let mut actual = String::new();
    let mut expected = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (action, outcome) = line.split_once("  ").unwrap_or((line, ""));
        let outcome = outcome.split('(').next().unwrap_or_default().trim();
        writeln!(expected, "{action:<20}{outcome}").unwrap();
        writeln!(actual, "{action:<20}{}", world.act(action.trim())).unwrap();
    }
    assert_eq!(actual, expected, "\nactual:\n{actual}\nexpected:\n{expected}");
}

struct World {
    table: Table,
    now: Time,
    names: BTreeMap<String, FileKey>,
    next_inode: u64,
    next_owner: u64,
    claims: BTreeMap<OwnerId, Kept>,
    /// What outlives the machine, if it goes down.
    synced: Vec<(Ticket, Record)>,
    acting: SessionId,
    /// Whether it is told which open handles are to tell of their I/O.
    is_attentive: bool,
}

/// What the client side of a claim knows.
struct Kept {
    claim: Arc<Claim>,
    token: Option<crate::id::Token>,
    one_shot: Option<Option<Change>>,
}

impl World {
    fn new() -> World {
        World {
            table: Table::new(Epoch(1)),
            now: Time(1_000_000_000_000),
            names: BTreeMap::new(),
            next_inode: 1,
            next_owner: 1,
            claims: BTreeMap::new(),
            synced: Vec::new(),
            acting: SessionId(0),
            is_attentive: false,
        }
    }

    fn act(&mut self, action: &str) -> String {
        let words: Vec<&str> = action.split_whitespace().collect();
        match words[0] {
            "synced" => {
                self.synced = self.records();
                String::new()
            }
            "attentive" => {
                self.is_attentive = true;
                String::new()
            }
            "look" => self.look(),
            "load" => {
                let ((hold, wait), line) = (self.table.load(), self.table.longest_line());
                let grace = if self.table.in_grace() { ", in grace" } else { "" };
                format!("{hold} hold, {wait} wait, {line} in one line{grace}")
            }
            "restart" if words.get(1) == Some(&"lost") => {
                let records = std::mem::take(&mut self.synced);
                self.restart(records, true)
            }
            "restart" => self.restart(self.records(), words.get(1) == Some(&"incomplete")),
            "tick" => {
                self.acting = SessionId::STATELESS;
                self.now = self.now + Duration::from_millis(words[1].parse().unwrap());
                self.run(Command::Tick)
            }
            name => self.act_of(session_of(name), &words),
        }
    }

    /// What somebody does, whose name is the first word.
    fn act_of(&mut self, session: SessionId, words: &[&str]) -> String {
        self.acting = session;
        if session != SessionId::STATELESS && !self.table.sessions().any(|known| known == session) {
            self.run(Command::Open { session, lease: LEASE });
        }
        match words[1] {
            "lose" => self.run(Command::Lose { session, heard: self.now }),
            "silent" => {
                let heard = self.now - Duration::from_millis(words[2].parse().unwrap());
                self.run(Command::Lose { session, heard })
            }
            "close" => {
                self.claims.retain(|owner, _| owner.session != session);
                self.run(Command::Close { session })
            }
            "reclaim" => self.reclaim(session, &words[2..]),
            "release" => self.release(session, words.get(2).copied()),
            "withdraw" => {
                let owner = self.last_of(session);
                self.run(Command::Withdraw { owner, why: Refusal::Interrupted })
            }
            "active" => {
                let owner = self.last_of(session);
                self.run(Command::Active { owner })
            }
            "renew" => {
                let owner = self.last_of(session);
                let lease = words.get(2).map(|ms| Duration::from_millis(ms.parse().unwrap()));
                self.run(Command::Renew { owner, lease })
            }
            "kin" => {
                let waiter = self.last_of(session);
                let holder = self.first_of(session_of(words[2]));
                match self.table.decide(self.now, Command::Kin { waiter, holder }).as_deref() {
                    Ok([]) => "no news".to_owned(),
                    _ => self.run(Command::Kin { waiter, holder }),
                }
            }
            "created" => {
                let made = |(owner, kept): &(&OwnerId, &Kept)| {
                    owner.session == session && kept.claim.want().op == Op::Create
                };
                let made = self.claims.iter().rfind(made).map(|(owner, _)| *owner);
                let owner = made.unwrap_or_else(|| self.last_of(session));
                let file = self.file(words[2]);
                self.run(Command::Created { owner, file })
            }
            "would" => self.would(session, &words[2..]),
            "again" | "upgrade" => self.again(session, words[1] == "upgrade"),
            "broken" => {
                let ticket = self.table.ticket_of(self.last_of(session)).unwrap();
                self.run(Command::Break { ticket })
            }
            "recalled" => {
                let ticket = self.table.ticket_of(self.last_of(session)).unwrap();
                let within = Duration::from_millis(words[2].parse().unwrap());
                self.run(Command::Recall { ticket, within })
            }
            _ => self.ask(session, &words[1..]),
        }
    }

    /// Asks for `[try|wait MS|below WHO|patient|eager|threads|apart|leashed|limited MS]… OP PATH…`.
    fn ask(&mut self, session: SessionId, words: &[&str]) -> String {
        let mut terms = self.terms(session);
        let mut leaders = Vec::new();
        let mut words = words;
        loop {
            match words[0] {
                "try" => terms.patience = Patience::Try,
                "wait" => {
                    let limit = Duration::from_millis(words[1].parse().unwrap());
                    terms.patience = Patience::Limited(limit);
                    words = &words[1..];
                }
                "below" => {
                    leaders.push(self.first_of(session_of(words[1])));
                    words = &words[1..];
                }
                "patient" => terms.read_wait = Some(Duration::from_secs(30)),
                "eager" => terms.read_wait = Some(Duration::ZERO),
                "threads" => terms.caller = None,
                "apart" => terms.party = Party::Owner(terms.owner),
                "leashed" => {
                    terms.lease = Some(LEASE);
                    terms.max_hold = Some(Duration::from_secs(60));
                }
                "limited" => {
                    let limit = Duration::from_millis(words[1].parse().unwrap());
                    terms.max_hold = Some(limit);
                    words = &words[1..];
                }
                _ => break,
            }
            words = &words[1..];
        }
        let (want, one_shot) = self.want(words);
        let claim = Arc::new(Claim::new(terms, want));
        let kept = Kept { claim: claim.clone(), token: None, one_shot };
        self.claims.insert(claim.owner, kept);
        self.run(Command::Acquire { claim, leaders })
    }

    /// Says what a claim would wait for, were it made.
    fn would(&mut self, session: SessionId, words: &[&str]) -> String {
        let (terms, (want, _)) = (self.terms(session), self.want(words));
        let claim = Claim::new(terms, want);
        if !self.table.would_wait(&claim) {
            return "go in".to_owned();
        }
        let holders = self.table.holders_in_the_way(&claim, 1).into_iter();
        let names = holders.filter_map(|holder| match self.table.record(holder)? {
            Record::Held { claim, .. } => Some(name_of(claim.owner.session)),
            Record::Waiting(_) => None,
        });
        format!("wait for {}", names.collect::<BTreeSet<_>>().into_iter().collect::<String>())
    }

    /// Says how all claims stand: since when, and who waits for whom.
    fn look(&self) -> String {
        let tickets = self.table.tickets_after(Ticket(0), usize::MAX);
        let names = |tickets: &[Ticket]| -> String {
            let claims = self.table.standings(tickets.to_vec());
            let names: BTreeSet<char> = claims.map(|of| name_of(of.claim.owner.session)).collect();
            names.into_iter().collect()
        };
        let line = |standing: Standing| {
            let name = name_of(standing.claim.owner.session);
            let (since, age) = (self.table.since(standing.ticket), self.now.since(standing.since));
            match standing.state {
                State::Held { lease_ends_at, asked_until, .. } => {
                    assert_eq!(since.held, Some(standing.since));
                    let left = |word: &str, until: Option<Time>| match until {
                        Some(until) => format!(", {word} {}", until.since(self.now).as_millis()),
                        None => String::new(),
                    };
                    let lease = left("leased", lease_ends_at);
                    let asked = left("asked", asked_until);
                    format!("{name} holds {}{lease}{asked}", age.as_millis())
                }
                State::Waiting { place, behind } => {
                    assert_eq!(since.waiting, Some(standing.since));
                    let holders = self.table.holders_before(standing.ticket, usize::MAX);
                    let (all, holders) = (names(&behind), names(&holders));
                    let age = age.as_millis();
                    format!("{name} waits {age}, place {place} behind {all}, for {holders}")
                }
            }
        };
        self.table.standings(tickets).map(line).collect::<Vec<_>>().join("; ")
    }

    fn terms(&mut self, session: SessionId) -> Terms {
        let number = self.next_owner;
        self.next_owner += 1;
        let pid = u32::try_from(session.0).unwrap();
        let process = Process { namespace: 1, pid, start: 1 };
        let caller = Caller { process, thread: pid, single_threaded: true };
        let owner = OwnerId { session, number };
        Terms { caller: Some(caller), ..Terms::of(owner, Party::Process(process)) }
    }

    fn want(&mut self, words: &[&str]) -> (Want, Option<Option<Change>>) {
        let path = |text: &str| ViewPath::parse(text.as_bytes()).unwrap();
        let removed = |text: &str| Change::Removed { space: SPACE, path: path(text) };
        let renamed =
            |from: &str, to: &str| Change::Renamed { space: SPACE, from: path(from), to: path(to) };
        let (op, change) = match words[0] {
            "R" => (Op::Open(Access::Read), None),
            "W" => (Op::Open(Access::Write), None),
            "create" => (Op::Create, None),
            "unlink" => (Op::Unlink, Some(Some(removed(words[1])))),
            "chmod" => (Op::Chmod, Some(None)),
            "truncate" => (Op::Truncate, Some(None)),
            "mkdir" => (Op::Mkdir, Some(None)),
            "rmdir" => (Op::Rmdir, Some(Some(removed(words[1])))),
            "rename" | "mv" => (Op::Rename, Some(Some(renamed(words[1], words[2])))),
            "hold" if words[1] == "R" => (Op::Hold(Access::Read), None),
            "hold" => (Op::Hold(Access::Write), None),
            "lock" if words[1] == "R" => (Op::Lock(Access::Read), None),
            "lock" => (Op::Lock(Access::Write), None),
            other => panic!("unknown word {other}"),
        };
        let paths = if op.is_hold() { &words[2..] } else { &words[1..] };
        let directories = matches!(words[0], "rmdir" | "mv");
        let places = paths.iter().map(|text| Place {
            space: SPACE,
            path: Some(path(text)),
            node: match op {
                Op::Mkdir | Op::Create | Op::Lock(_) => Node::None,
                _ if directories || text.ends_with('/') => Node::Directory,
                _ => Node::File(self.file(text)),
            },
        });
        let places = places.collect::<Vec<_>>();
        (Want { op, places }, change)
    }

    fn file(&self, name: &str) -> FileKey {
        let inode = self.names.get(name).map_or_else(|| fold(name), |file| file.inode);
        FileKey { volume: 1, inode, generation: 0 }
    }

    fn again(&mut self, session: SessionId, upgrade: bool) -> String {
        let owner = self.first_of(session);
        let claim = &self.claims[&owner].claim;
        let mut want = claim.want().clone();
        if upgrade {
            want.op = Op::Open(Access::Write);
        }
        let claim = Arc::new(claim.with_want(want));
        self.run(Command::Acquire { claim, leaders: Vec::new() })
    }

    fn release(&mut self, session: SessionId, which: Option<&str>) -> String {
        let owners: Vec<OwnerId> =
            self.claims.keys().copied().filter(|owner| owner.session == session).collect();
        let owners = match which {
            Some("all") => owners,
            Some(path) => {
                let path = ViewPath::parse(path.as_bytes()).unwrap();
                let at = |owner: &OwnerId| {
                    let want = self.claims[owner].claim.want();
                    want.places.iter().any(|place| place.path.as_ref() == Some(&path))
                };
                vec![owners.into_iter().find(at).unwrap()]
            }
            None => vec![*owners.last().unwrap()],
        };
        let mut told = Vec::new();
        for owner in owners {
            told.push(self.run(Command::Release { owner, change: None }));
        }
        told.retain(|text| !text.is_empty());
        told.join("; ")
    }

    fn records(&self) -> Vec<(Ticket, Record)> {
        let tickets = self.table.tickets_after(Ticket(0), usize::MAX);
        tickets.into_iter().map(|ticket| (ticket, self.table.record(ticket).unwrap())).collect()
    }

    fn restart(&mut self, claims: Vec<(Ticket, Record)>, incomplete: bool) -> String {
        let restore = Restore {
            sessions: self.table.sessions().map(|session| (session, LEASE)).collect(),
            claims,
            incomplete,
            grace: LEASE,
        };
        let epoch = Epoch(self.table.epoch().0 + 1);
        self.table = Table::restore(epoch, self.now, restore);
        String::new()
    }

    /// Reclaims all that the client side knows, but for paths listed after `but`.
    fn reclaim(&mut self, session: SessionId, words: &[&str]) -> String {
        let forgotten = |claim: &Claim| {
            words.iter().any(|word| {
                let path = ViewPath::parse(word.as_bytes()).unwrap();
                claim.want().places.iter().any(|place| place.path.as_ref() == Some(&path))
            })
        };
        let mine = self
            .claims
            .iter()
            .filter(|(owner, kept)| owner.session == session && !forgotten(&kept.claim));
        let (held, waiting): (Vec<_>, Vec<_>) =
            mine.map(|(_, kept)| (kept.claim.clone(), kept.token)).partition(|(_, t)| t.is_some());
        let held = held.into_iter().map(|(claim, token)| (claim, token.unwrap())).collect();
        let waiting = waiting.into_iter().map(|(claim, _)| (claim, Vec::new())).collect();
        self.run(Command::Reclaim { session, held, waiting })
    }

    fn run(&mut self, command: Command) -> String {
        let outcome = match self.table.execute(self.now, command) {
            Ok(outcome) => outcome,
            Err(refusal) => return refusal_text(refusal),
        };
        self.table.check();
        let mut told = Vec::new();
        let mut finished = Vec::new();
        for notice in outcome.notices {
            if let Notice::Granted { owner, token, .. } = notice {
                let kept = self.claims.get_mut(&owner).unwrap();
                kept.token = Some(token);
                if kept.one_shot.is_some() {
                    finished.push(owner);
                }
            }
            if let Notice::Refused { owner, .. } | Notice::Revoked { owner, .. } = notice
                && self.claims[&owner].token.is_none()
            {
                self.claims.remove(&owner);
            }
            told.extend(self.tell(&notice));
        }
        for owner in finished {
            let change = self.claims.remove(&owner).unwrap().one_shot.unwrap();
            self.follow(change.as_ref());
            told.push(self.run(Command::Release { owner, change }));
        }
        told.retain(|text| !text.is_empty());
        if told.iter().any(|text| text == "EDEADLK") {
            told.retain(|text| text != "waits");
        }
        told.join("; ")
    }

    /// Does to the names what the operation did.
    fn follow(&mut self, change: Option<&Change>) {
        match change {
            Some(Change::Removed { path, .. }) => {
                self.next_inode += 1;
                let fresh = FileKey { volume: 1, inode: self.next_inode, generation: 0 };
                self.names.insert(path.to_string(), fresh);
            }
            Some(Change::Renamed { from, to, .. }) => {
                let moved = self.file(&from.to_string());
                self.names.insert(to.to_string(), moved);
            }
            Some(Change::Exchanged { .. }) | None => {}
        }
    }

    fn tell(&self, notice: &Notice) -> Option<String> {
        let (owner, text) = match notice {
            Notice::Granted { owner, token, count, .. } if *count > 1 => {
                (owner, format!("granted {} x{count}", token.counter))
            }
            Notice::Granted { owner, token, .. } => (owner, format!("granted {}", token.counter)),
            Notice::Waiting { owner, .. } => (owner, "waits".to_owned()),
            Notice::Refused { owner, why } => (owner, refusal_text(*why)),
            Notice::Ungated { owner } => (owner, "ungated".to_owned()),
            Notice::Revoked { owner, .. } => (owner, "revoked".to_owned()),
            Notice::Recalled { owner, recall } => {
                let left = recall.until.since(self.now).as_millis();
                let stage = match recall.stage {
                    RecallStage::Warned => "warned",
                    RecallStage::Asked => "asked",
                };
                (owner, format!("{stage} {left}"))
            }
            Notice::Contended { owner } if self.is_attentive => (owner, "contended".to_owned()),
            Notice::Contended { .. } | Notice::Restored { .. } => return None,
        };
        let own = owner.session == self.acting;
        Some(if own { text } else { format!("{} {text}", name_of(owner.session)) })
    }

    fn last_of(&self, session: SessionId) -> OwnerId {
        *self.claims.keys().rfind(|owner| owner.session == session).expect("it has claims")
    }

    fn first_of(&self, session: SessionId) -> OwnerId {
        let stands = |owner: &&OwnerId| self.table.ticket_of(**owner).is_some();
        let mut owners = self.claims.keys().filter(stands);
        *owners.find(|owner| owner.session == session).expect("it has claims")
    }
}

fn refusal_text(refusal: Refusal) -> String {
    match refusal {
        Refusal::TimedOut => "ETIMEDOUT".into(),
        Refusal::WouldBlock => "EAGAIN".into(),
        Refusal::Interrupted => "EINTR".into(),
        Refusal::Deadlock => "EDEADLK".into(),
        Refusal::Limit(limit) => format!("limit {limit}"),
        Refusal::Unknown => "unknown".into(),
        Refusal::OwnerBusy => "busy".into(),
        Refusal::Broken => "broken".into(),
        Refusal::Standstill(_) => "the table grants whatever can be written".into(),
    }
}

fn session_of(name: &str) -> SessionId {
    match name.as_bytes()[0] {
        b'V' => SessionId::STATELESS,
        letter => SessionId(u64::from(letter)),
    }
}

fn name_of(session: SessionId) -> char {
    match session {
        SessionId::STATELESS => 'V',
        SessionId(letter) => char::from(u8::try_from(letter).unwrap()),
    }
}

fn fold(name: &str) -> u64 {
    name.bytes().fold(1_000_000, |hash, byte| hash.wrapping_mul(31) + u64::from(byte))
}
