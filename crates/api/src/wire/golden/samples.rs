//! One value of every kind, with every variant of what is in it.

use std::sync::Arc;
use std::time::Duration;

use gate_core::id::{Epoch, SpaceId, Ticket, Token};
use gate_core::lock::claim::{Caller, Label, Patience, Process};
use gate_core::lock::event::{Change, RecallCause, RecallStage, Refusal, Revocation, Standstill};
use gate_core::lock::key::FileKey;
use gate_core::lock::limits::Limit;
use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_core::path::ViewPath;

use crate::wire::{
    Acquire, AttachRefusal, Attached, BrokerInfo, ClientMessage, Cursor, Deed, Directory, Entry,
    Fate, Former, Granted, Halt, Happening, Hello, Inode, Known, Line, LinePlace, LineState, Locks,
    LogPage, LogQuery, MaxHold, Named, Origin, Overwrite, Party, Pass, Presence, PrivateLine,
    PrivateView, Query, Recall, Record, Reply, Resume, Rules, Scope, ServerMessage, SessionLine,
    Sessions, Source, SpaceLine, Status, Stretch, Subject, Welcome, Why,
};

const PROCESS: Process = Process { namespace: 6, pid: 7, start: 8 };
const FILE: FileKey = FileKey { volume: 1, inode: 2, generation: 3 };
const TOKEN: Token = Token { epoch: Epoch(4), counter: 1 << 40 };

const REFUSALS: [Refusal; 10] = [
    Refusal::TimedOut,
    Refusal::WouldBlock,
    Refusal::Interrupted,
    Refusal::Deadlock,
    Refusal::Limit(Limit::Waiters),
    Refusal::Unknown,
    Refusal::OwnerBusy,
    Refusal::Broken,
    Refusal::Standstill(Standstill::NoRoom),
    Refusal::Standstill(Standstill::Fault),
];
const REVOCATIONS: [Revocation; 4] =
    [Revocation::MaxHold, Revocation::LeaseLost, Revocation::Broken, Revocation::Recalled];
const OPS: [Op; 16] = [
    Op::Open(Access::Read),
    Op::Create,
    Op::Truncate,
    Op::Unlink,
    Op::Link,
    Op::Rename,
    Op::Chmod,
    Op::Chown,
    Op::Utimens,
    Op::Setxattr,
    Op::Mkdir,
    Op::Mknod,
    Op::Symlink,
    Op::Rmdir,
    Op::Hold(Access::Write),
    Op::Lock(Access::Write),
];

pub fn client_messages() -> Vec<ClientMessage> {
    let mut all = hellos();
    all.extend(OPS.map(|op| ClientMessage::Acquire(acquire(op).into())));
    all.extend(patient().map(|acquire| ClientMessage::Waits { acquire: acquire.into() }));
    all.push(ClientMessage::Held {
        acquire: Arc::new(acquire(Op::Hold(Access::Read))),
        token: TOKEN,
    });
    all.extend([ClientMessage::Listed, ClientMessage::Ping, ClientMessage::Goodbye]);
    all.extend(sources().map(|source| ClientMessage::Attach { space: SpaceId(300), source }));
    all.extend(changes().map(|change| ClientMessage::Release { owner: 5, change }));
    all.extend(REFUSALS.map(|why| ClientMessage::Withdraw { owner: 5, why }));
    all.push(ClientMessage::Created { owner: 5, file: FILE });
    all.push(ClientMessage::Active { owner: u64::MAX });
    all.push(ClientMessage::Guarded(Overwrite {
        space: SpaceId(1),
        path: path(b"f"),
        op: Op::Rename,
        agent: "ada".into(),
        became: Deed::Kept(300),
    }));
    all.extend(queries().into_iter().map(|query| ClientMessage::Query { id: 9, query }));
    all
}

pub fn server_messages() -> Vec<ServerMessage> {
    let broker = broker();
    let space = SpaceId(1);
    let session = Resume { session: 1 << 32 | 1, key: u128::MAX - 1 };
    let welcome = Welcome {
        session,
        known: Known::Part,
        lease: Duration::from_millis(1_500),
        broker: broker.clone(),
    };
    let attached = Attached {
        space: "default".into(),
        prefix: path(b"sub/dir"),
        notice: Some("as told".into()),
    };
    let refusal = AttachRefusal { reason: "no".into(), fix: "do".into() };
    let granted = Granted { owner: 5, ticket: Ticket(6), token: TOKEN, count: 1, by_kin: false };
    let mut all = vec![
        ServerMessage::Welcome(welcome),
        ServerMessage::Unwelcome { why: "limit: sessions".into() },
        ServerMessage::Restored,
        ServerMessage::Attached { space, attached },
        ServerMessage::AttachRefused { space, refusal },
        ServerMessage::Waiting { owner: 5, ticket: Ticket(6) },
        ServerMessage::Granted(granted),
        ServerMessage::Ungated { owner: 5 },
        ServerMessage::Contended { owner: 5 },
        ServerMessage::Pong,
    ];
    all.extend(REFUSALS.map(|why| ServerMessage::Refused { owner: 5, why }));
    all.extend(REVOCATIONS.map(|why| ServerMessage::Revoked { owner: 5, why, reason: "r".into() }));
    let recalls =
        [(RecallCause::MaxHold, RecallStage::Warned), (RecallCause::Request, RecallStage::Asked)];
    all.extend(recalls.map(|(why, stage)| {
        let within = Duration::new(30, 5);
        let recall = Recall { why, stage, within, reason: "lunch".into() };
        ServerMessage::Recalled { owner: 5, recall }
    }));
    all.extend(replies(broker).into_iter().map(|reply| ServerMessage::Reply { id: 9, reply }));
    all
}

fn hellos() -> Vec<ClientMessage> {
    let plain = Hello {
        client: "naïve".into(),
        process: PROCESS,
        machine: 9,
        lease: None,
        max_hold: None,
        resume: None,
        private: None,
    };
    let full = Hello {
        lease: Some(Duration::from_secs(10)),
        max_hold: Some(MaxHold::After(Duration::from_millis(2))),
        resume: Some(Resume { session: 1, key: 1 << 100 }),
        ..plain.clone()
    };
    let endless = Hello { max_hold: Some(MaxHold::Never), ..plain.clone() };
    let private = Hello { private: Some(private_view()), ..plain.clone() };
    [plain, full, endless, private].map(ClientMessage::Hello).into()
}

fn private_view() -> PrivateView {
    PrivateView { agent: "ada".into(), mountpoint: b"/mnt".into(), source: b"/srv".into() }
}

fn acquire(op: Op) -> Acquire {
    let nodes = [Node::File(FILE), Node::None, Node::Directory];
    let place = |node| Place { space: SpaceId(4), path: Some(path(b"a/\xff")), node };
    let mut places: Vec<Place> = nodes.map(place).into();
    places.push(Place { space: SpaceId(5), path: None, node: Node::None });
    Acquire {
        owner: 5,
        party: Party::Process(PROCESS),
        caller: Some(Caller { process: PROCESS, thread: 9, single_threaded: true }),
        patience: Patience::Endless,
        read_wait: None,
        label: Label { owner: "o".into(), reason: "r".into(), asked_at_ms: 11 },
        want: Want { op, places },
    }
}

fn patient() -> [Acquire; 3] {
    let plain = || acquire(Op::Hold(Access::Write));
    [
        Acquire { patience: Patience::Try, party: Party::Owner, caller: None, ..plain() },
        Acquire { party: Party::Session, read_wait: Some(Duration::from_secs(30)), ..plain() },
        Acquire {
            party: Party::Named("ada".into()),
            patience: Patience::Limited(Duration::from_micros(1)),
            ..plain()
        },
    ]
}

fn sources() -> [Source; 2] {
    let inode = |number| Inode { device: 1 << 8, number };
    let directory = Directory {
        machine: 9,
        path: b"/srv/\xff".to_vec(),
        root: inode(3),
        above: vec![(inode(2), b"\xff".to_vec()), (inode(1), b"srv".to_vec())],
    };
    let rules = Rules { read_wait: Some(Duration::from_secs(30)), policies: "p".into() };
    [
        Source {
            origin: Origin::Directory(directory),
            space: Some("s".into()),
            by_host_and_port: true,
            rules: Some(rules),
        },
        Source {
            origin: Origin::Bucket("b".into()),
            space: None,
            by_host_and_port: false,
            rules: Some(Rules { read_wait: None, policies: String::new() }),
        },
    ]
}

fn changes() -> [Option<Change>; 4] {
    let space = SpaceId(1);
    [
        None,
        Some(Change::Removed { space, path: path(b"f") }),
        Some(Change::Renamed { space, from: path(b"f"), to: path(b"g") }),
        Some(Change::Exchanged { space, one: path(b"f"), other: path(b"g") }),
    ]
}

fn queries() -> Vec<Query> {
    let within = || Scope::Within { space: "s".into(), path: path(b"d") };
    let cursor = Cursor { epoch: 4, number: 300 };
    let stretches = [
        Stretch::After(cursor),
        Stretch::Since(14),
        Stretch::UpTo(None),
        Stretch::UpTo(Some(cursor)),
    ];
    let mut all = vec![
        Query::Locks { scope: Scope::Everything, newer_than: None, after: 0 },
        Query::Locks { scope: within(), newer_than: Some(7), after: 8 },
        Query::Why { scope: Scope::Absolute(b"/srv/f".to_vec()) },
        Query::Status,
        Query::Break { ticket: 3, reason: "stuck".into() },
        Query::Recall { ticket: 3, reason: String::new(), within: Duration::from_secs(30) },
    ];
    all.extend(stretches.map(|stretch| {
        let patience = Duration::from_secs(60);
        Query::Log(LogQuery { scope: Scope::Everything, stretch, limit: 100, patience })
    }));
    all.push(Query::Sessions { after: 7 });
    all
}

fn replies(broker: BrokerInfo) -> Vec<Reply> {
    let entries = entries();
    let held = LineState::Held {
        token: TOKEN,
        by_kin: true,
        lease_expires_at_ms: Some(12),
        recalled_until_ms: None,
    };
    let waiting = LineState::Waiting { place: 1, behind: vec![3, 200] };
    let status = Status {
        broker,
        started_at_ms: 13,
        in_grace: true,
        halt: Some(Halt { kind: Standstill::NoRoom, since_ms: 14, why: "full".into() }),
        sessions: 1,
        away: 6,
        held: 2,
        waiting: 3,
        spaces: vec![SpaceLine {
            name: "s".into(),
            source: "/srv".into(),
            clients: 4,
            gap: Some("closed".into()),
        }],
        private: vec![PrivateLine { view: private_view(), pid: 300 }],
        limits: vec![("sessions".into(), 4_096)],
        counts: vec![("granted".into(), 5)],
    };
    let why = Why {
        space: "s".into(),
        path: path(b"f"),
        lines: vec![line(held.clone())],
        past: entries[..1].to_vec(),
    };
    let locks = Locks { version: 7, lines: vec![line(held), line(waiting)], more: true };
    let (begin, end) = (Cursor { epoch: 4, number: 299 }, Cursor { epoch: 5, number: 1 });
    let session = SessionLine {
        session: 1 << 33,
        name: "mount".into(),
        process: Some(PROCESS),
        elsewhere: true,
        away: false,
        lease: Duration::from_millis(10_500),
        spaces: vec!["s".into()],
        agent: Some("ada".into()),
    };
    let log = LogPage { entries, begin, end, gap: true, more: false };
    vec![
        Reply::Locks(locks),
        Reply::Why(why),
        Reply::Status(status),
        Reply::Done,
        Reply::Log(log),
        Reply::Unknown,
        Reply::Forbidden,
        Reply::Nonsense,
        Reply::Sessions(Sessions { lines: vec![session], more: true }),
    ]
}

fn line(state: LineState) -> Line {
    let named = LinePlace { path: Some(path(b"f")), directory: false };
    Line {
        ticket: 3,
        space: "s".into(),
        places: vec![named, LinePlace { path: None, directory: true }],
        op: Op::Open(Access::Write),
        access: Access::Write,
        state,
        count: 1,
        since_ms: 1 << 41,
        owner: "ada".into(),
        reason: "why".into(),
        process: Some(PROCESS),
        client: "mount".into(),
    }
}

/// One entry of every kind.
fn entries() -> Vec<Entry> {
    let cursor = Cursor { epoch: 4, number: 300 };
    let version = || "0.1.0".into();
    let formers = [Former::None, Former::Whole, Former::Cut(cursor), Former::Unreadable];
    let presences =
        [Presence::Came, Presence::Lost, Presence::Overdue, Presence::Back, Presence::Gone];
    let client = |became| Happening::Client {
        session: 17,
        client: "mount".into(),
        process: Some(PROCESS),
        became,
    };
    let claim = |became| Happening::Claim { became, claim: subject() };
    let mut all: Vec<Happening<'_>> =
        formers.map(|former| Happening::Started { version: version(), former }).into();
    all.extend([Happening::Stopped, Happening::Missing { count: 18 }]);
    all.extend(presences.map(client));
    all.extend(fates().into_iter().map(claim));
    let entry = |what| Entry { cursor, record: Record { at_ms: 14, what } };
    all.into_iter().map(entry).collect()
}

fn fates() -> Vec<Fate<'static>> {
    let waited = Duration::new(1, 2);
    let granted = |pass| Fate::Granted { token: TOKEN, waited, pass };
    let recall = Recall {
        why: RecallCause::MaxHold,
        stage: RecallStage::Asked,
        within: waited,
        reason: "lunch".into(),
    };
    let mut all = vec![Fate::Waits, Fate::Counted(2), Fate::Recalled(recall), Fate::Ungated];
    all.extend([Pass::None, Pass::Own, Pass::AwaitedByHolder].map(granted));
    all.extend([None, Some(waited)].map(|held| Fate::Released { held }));
    let deeds = [Deed::Kept(300), Deed::TooLarge, Deed::Failed, Deed::Refused];
    all.extend(deeds.map(Fate::Guarded));
    all.extend(REFUSALS.map(|why| Fate::Refused { why, reason: "no".into() }));
    all.extend(REVOCATIONS.map(|why| Fate::Revoked { why, reason: "now".into(), held: None }));
    all
}

fn subject() -> Subject<'static> {
    let place = Named { space: "s".into(), path: Some(path(b"f")), directory: true };
    Subject {
        ticket: Some(3),
        op: Op::Create,
        places: vec![place, Named { space: "t".into(), path: None, directory: false }],
        owner: "ada".into(),
        party: "v1".into(),
        reason: "why".into(),
        process: None,
        session: 17,
        client: "mount".into(),
    }
}

fn broker() -> BrokerInfo {
    BrokerInfo { epoch: 4, version: "0.1.0".into(), pid: 70_000, state_dir: b"/var".to_vec() }
}

fn path(bytes: &[u8]) -> ViewPath {
    ViewPath::parse(bytes).expect("a path")
}
