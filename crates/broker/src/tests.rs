//! The real thing, over its socket.

mod crowds;
mod hostile;
mod power;
mod revoked;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use gate_api::link::Connector;
use gate_api::wire::{
    Directory, Entry, Fate, Happening, Inode, LineState, LogQuery, Origin, Party, Scope, Source,
    Stretch,
};
use gate_api::{
    Address, Answer, Ask, Attachment, ClientInfo, Grant, QueryError, Quiet, Session, Watcher,
};
use gate_core::lock::claim::{Label, Patience};
use gate_core::lock::event::{Refusal, Revocation, Standstill};
use gate_core::lock::key::FileKey;
use gate_core::lock::want::{Access, Node, Op, Place, Want};
use gate_core::path::ViewPath;
use tempfile::TempDir;

use crate::{Broker, Options, Running};

/// Long enough for a busy machine; a test that waits so long has failed.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What a client hears that it did not ask for.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Revoked(u64, Revocation),
    Contended(u64),
    Away,
    Back,
}

/// Tells what it hears, and when it is done with what is taken away.
struct Ears(mpsc::Sender<Heard>, Quiet);

impl Watcher for Ears {
    fn revoked(&self, owner: u64, why: Revocation, _reason: &str) -> Quiet {
        let _ = self.0.send(Heard::Revoked(owner, why));
        self.1
    }
    fn contended(&self, owner: u64) {
        let _ = self.0.send(Heard::Contended(owner));
    }
    fn away(&self) {
        let _ = self.0.send(Heard::Away);
    }
    fn back(&self) {
        let _ = self.0.send(Heard::Back);
    }
}

/// Hears nothing.
pub(crate) struct Deaf;

impl Watcher for Deaf {
    fn revoked(&self, _owner: u64, _why: Revocation, _reason: &str) -> Quiet {
        Quiet::Now
    }

    fn contended(&self, _owner: u64) {}
}

/// A client with a source of its own making.
pub(crate) struct Client {
    pub session: Session,
    pub attachment: Attachment,
    pub heard: mpsc::Receiver<Heard>,
}

/// An owner's answers.
pub(crate) struct Owner {
    pub number: u64,
    answers: mpsc::Receiver<Answer>,
}

pub(crate) fn start(state: &TempDir) -> Running {
    Broker::start(Options::new(state.path().to_owned())).unwrap()
}

/// A directory of another machine, at which nobody looks.
pub(crate) fn source() -> Source {
    let root = Inode { device: 1, number: 1 };
    let directory = Directory { machine: 1, path: b"/source".to_vec(), root, above: Vec::new() };
    Source {
        origin: Origin::Directory(directory),
        space: None,
        by_host_and_port: false,
        rules: None,
    }
}

pub(crate) fn connect(address: &Address, name: &str) -> Client {
    connect_to(address, name, source())
}

pub(crate) fn connect_to(
    connector: &(impl Connector + Clone + 'static),
    name: &str,
    source: Source,
) -> Client {
    connect_as(connector, name, source, Quiet::Now)
}

fn connect_as(
    connector: &(impl Connector + Clone + 'static),
    name: &str,
    source: Source,
    quiet: Quiet,
) -> Client {
    let (ears, heard) = mpsc::channel();
    let ears = Arc::new(Ears(ears, quiet));
    let session = Session::connect(connector.clone(), ClientInfo::named(name), ears).unwrap();
    let attachment = session.attach(source).unwrap();
    Client { session, attachment, heard }
}

impl Client {
    pub fn ask(&self, op: Op, path: &str) -> Ask {
        let path = Some(ViewPath::parse(path.as_bytes()).unwrap());
        let place = Place { space: self.attachment.space, path, node: Node::None };
        Ask {
            party: Party::Owner,
            caller: None,
            patience: Patience::Endless,
            read_wait: None,
            label: Label { owner: "test".to_owned(), reason: String::new(), asked_at_ms: 0 },
            want: Want { op, places: vec![place] },
        }
    }

    pub fn acquire(&self, ask: Ask) -> Owner {
        let (sender, answers) = mpsc::channel();
        let then = Box::new(move |answer| {
            let _ = sender.send(answer);
        });
        Owner { number: self.session.acquire(ask, then), answers }
    }

    pub fn hold(&self, path: &str) -> Owner {
        self.acquire(self.ask(Op::Hold(Access::Write), path))
    }

    pub fn hears(&self) -> Heard {
        self.heard.recv_timeout(SOON).unwrap()
    }
}

impl Owner {
    pub fn hears(&self) -> Answer {
        self.answers.recv_timeout(SOON).unwrap()
    }

    #[track_caller]
    pub fn is_granted(&self) -> Grant {
        match self.hears() {
            Answer::Granted(grant) => grant,
            other => panic!("expected a grant: {other:?}"),
        }
    }

    #[track_caller]
    pub fn waits(&self) {
        let answer = self.hears();
        assert!(matches!(answer, Answer::Waiting { .. }), "{answer:?}");
    }

    pub fn has_heard_nothing(&self) -> bool {
        self.answers.try_recv().is_err()
    }
}

#[test]
fn owners_take_turns() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let [a, b] = ["a", "b"].map(|name| connect(&broker.address(), name));
    let first = a.hold("f");
    let granted = first.is_granted();
    let second = b.hold("f");
    second.waits();
    let third = a.hold("f");
    third.waits();
    a.session.release(first.number, None);
    let next = second.is_granted();
    assert!(next.token > granted.token, "N4: {next:?}");
    assert!(third.has_heard_nothing(), "N2");
    b.session.release(second.number, None);
    third.is_granted();
}

/// A broker that a crash ended: its state, as it was at that moment, and nothing running.
fn crash(broker: Running, state: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["journal.sqlite", "journal.sqlite-wal"] {
        std::fs::copy(state.path().join(name), copy.path().join(name)).unwrap();
    }
    drop(broker);
    copy
}

/// Leads to whichever broker is there now.
#[derive(Clone)]
struct Wandering(Arc<std::sync::Mutex<Address>>);

impl Connector for Wandering {
    fn connect(&self) -> Result<gate_api::link::Connection, gate_api::ConnectError> {
        let address = self.0.lock().unwrap().clone();
        address.connect()
    }
}

#[test]
fn n4_after_a_crash_clients_reclaim_and_tokens_still_rise() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let to = Wandering(Arc::new(std::sync::Mutex::new(broker.address())));
    let [a, b] = ["a", "b"].map(|name| connect_to(&to, name, source()));
    let held = a.hold("f");
    let before = held.is_granted();
    let waiting = b.hold("f");
    waiting.waits();

    let copy = crash(broker, &state);
    assert_eq!([a.hears(), b.hears()], [Heard::Away, Heard::Away]);
    // Whoever asks meanwhile waits; whoever lets go meanwhile has let go.
    let later = a.hold("g");
    later.waits();
    let broker = start(&copy);
    *to.0.lock().unwrap() = broker.address();
    assert_eq!([a.hears(), b.hears()], [Heard::Back, Heard::Back]);
    later.is_granted();
    assert!(waiting.has_heard_nothing(), "N1: the grant still stands");
    a.session.release(held.number, None);
    let after = waiting.is_granted();
    assert!(after.token > before.token, "{after:?} after {before:?}");
    assert_eq!(after.token.epoch.0, before.token.epoch.0 + 1);
    assert!(a.heard.try_recv().is_err(), "nothing was revoked");
}

/// N12: what is held in a bucket stays held by the files that it is; names alone are held no longer than the broker lives.
#[test]
fn n12_names_in_a_bucket_are_not_journaled_and_its_files_stay_held() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let to = Wandering(Arc::new(std::sync::Mutex::new(broker.address())));
    let bucket = || Source { origin: Origin::Bucket("b".to_owned()), ..source() };
    let [a, b] = ["a", "b"].map(|name| connect_to(&to, name, bucket()));
    let file = |client: &Client| {
        let mut ask = client.ask(Op::Hold(Access::Write), "secret-file");
        ask.want.places[0].node = Node::File(FileKey { volume: 1, inode: 2, generation: 0 });
        client.acquire(ask)
    };
    let (held, name) = (file(&a), a.hold("secret-name"));
    held.is_granted();
    name.is_granted();
    let waiting = file(&b);
    waiting.waits();
    let told = format!("{:?}", a.session.locks(&Scope::Everything, None, SOON).unwrap());
    assert!(told.contains("secret-file") && told.contains("secret-name"), "{told}");

    let copy = crash(broker, &state);
    for file in std::fs::read_dir(copy.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"secret"), "it is written down");
    }
    assert_eq!([a.hears(), b.hears()], [Heard::Away, Heard::Away]);
    let broker = start(&copy);
    *to.0.lock().unwrap() = broker.address();
    assert_eq!([a.hears(), b.hears()], [Heard::Back, Heard::Back]);
    assert_eq!(a.hears(), Heard::Revoked(name.number, Revocation::LeaseLost));
    assert!(waiting.has_heard_nothing(), "N1: the file is held");
    a.session.release(held.number, None);
    waiting.is_granted();
}

#[test]
fn what_was_let_go_of_during_an_outage_is_free_afterwards() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let to = Wandering(Arc::new(std::sync::Mutex::new(broker.address())));
    let [a, b] = ["a", "b"].map(|name| connect_to(&to, name, source()));
    let held = a.hold("f");
    held.is_granted();
    let copy = crash(broker, &state);
    assert_eq!([a.hears(), b.hears()], [Heard::Away, Heard::Away]);
    a.session.release(held.number, None);
    let broker = start(&copy);
    *to.0.lock().unwrap() = broker.address();
    assert_eq!([a.hears(), b.hears()], [Heard::Back, Heard::Back]);
    let next = b.hold("f");
    // It may be asked for before the broker has heard the other's whole list.
    let first = next.hears();
    if !matches!(first, Answer::Granted(_)) {
        assert!(matches!(first, Answer::Waiting { .. }), "{first:?}");
        next.is_granted();
    }
}

#[test]
fn a_broker_without_its_journal_revokes_what_it_does_not_know() {
    let [state, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let broker = start(&state);
    let to = Wandering(Arc::new(std::sync::Mutex::new(broker.address())));
    let [a, b] = ["a", "b"].map(|name| connect_to(&to, name, source()));
    let held = a.hold("f");
    held.is_granted();
    let waiting = b.hold("f");
    waiting.waits();
    drop(broker);
    assert_eq!([a.hears(), b.hears()], [Heard::Away, Heard::Away]);
    let broker = start(&other);
    *to.0.lock().unwrap() = broker.address();
    assert_eq!(a.hears(), Heard::Revoked(held.number, Revocation::LeaseLost));
    waiting.is_granted();
    // The source is attached anew under the number the client speaks of.
    a.hold("g").is_granted();
}

/// Somebody else writes to the journal for a while: to the broker that is a disk that fails.
#[test]
fn n3_nobody_is_told_of_what_the_journal_does_not_have() {
    /// Longer than the broker lets SQLite try by itself.
    const OUTAGE: Duration = Duration::from_millis(400);
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let [a, b] = ["a", "b"].map(|name| connect(&broker.address(), name));
    let journal = rusqlite::Connection::open(state.path().join("journal.sqlite")).unwrap();
    journal.execute_batch("BEGIN IMMEDIATE").unwrap();
    let [first, second] = [a.hold("f-early"), b.hold("g")];
    assert!(first.answers.recv_timeout(OUTAGE).is_err(), "told before it was journaled");
    assert!(second.has_heard_nothing());
    // Nor does the log tell of it, which has a thread and a file of its own.
    let log = rusqlite::Connection::open(state.path().join("audit.sqlite")).unwrap();
    let told = "SELECT count(*) FROM block WHERE instr(records, CAST('f-early' AS BLOB))";
    assert_eq!(log.query_row(told, (), |row| row.get::<_, i64>(0)), Ok(0));
    journal.execute_batch("ROLLBACK").unwrap();
    first.is_granted();
    second.is_granted();
    let (scope, stretch) = (Scope::Everything, Stretch::UpTo(None));
    let query = LogQuery { scope, stretch, limit: 512, patience: Duration::ZERO };
    let page = a.session.log(query).unwrap();
    let granted = |entry: &Entry| {
        let Happening::Claim { became, claim } = &entry.record.what else { return false };
        let path = claim.places[0].path.as_ref().map(ToString::to_string);
        matches!(became, Fate::Granted { .. }) && path.as_deref() == Some("f-early")
    };
    assert!(page.entries.iter().any(granted), "who was told of it can read of it: {page:?}");
}

#[test]
fn n3_who_asks_while_the_journal_cannot_be_written_is_told_no_and_who_waits_stays() {
    let no = Answer::Refused(Refusal::Standstill(Standstill::Fault));
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let [a, b, c] = ["a", "b", "c"].map(|name| connect(&broker.address(), name));
    let held = a.hold("f");
    held.is_granted();
    let waiting = b.hold("f");
    waiting.waits();
    let journal = rusqlite::Connection::open(state.path().join("journal.sqlite")).unwrap();
    journal.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The first is decided before it is known; the others hear it at once.
    assert_eq!(c.hold("g").hears(), no);
    assert_eq!([c.hold("g"), c.hold("f")].map(|owner| owner.hears()), [no, no]);
    a.session.release(held.number, None);
    let halt = a.session.status().unwrap().halt.expect("it says so");
    assert_eq!(halt.kind, Standstill::Fault);
    let board = c.session.locks(&Scope::Everything, None, SOON).unwrap();
    assert!(matches!(&board.lines[..], [line] if matches!(line.state, LineState::Waiting { .. })));
    assert!(waiting.has_heard_nothing(), "let in by nobody who could remember it");
    // Who comes anew may look.
    connect(&broker.address(), "d").session.status().unwrap();
    journal.execute_batch("ROLLBACK").unwrap();
    waiting.is_granted();
    assert_eq!(a.session.status().unwrap().halt, None);
    c.hold("g").is_granted();
    let state = crash(broker, &state);
    let again = start(&state);
    let board = connect(&again.address(), "e").session.locks(&Scope::Everything, None, SOON);
    assert_eq!(board.unwrap().lines.len(), 2, "f and g, and nothing that was refused");
}

#[test]
fn a_second_broker_is_refused_naming_the_first() {
    let state = tempfile::tempdir().unwrap();
    let _first = start(&state);
    match Broker::start(Options::new(state.path().to_owned())) {
        Err(crate::StartError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two brokers of one state directory"),
    }
}

#[test]
fn a_state_directory_may_lie_deeper_than_a_socket_address_is_long() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("d".repeat(100)).join("e".repeat(100));
    let broker = Broker::start(Options::new(state)).unwrap();
    connect(&broker.address(), "far").hold("f").is_granted();
}

#[test]
fn n11_a_client_of_the_same_process_takes_turns_with_the_others() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let outside = connect(&broker.address(), "outside");
    let inside = connect_to(&broker.door(), "inside", source());
    let first = inside.hold("f");
    first.is_granted();
    let second = outside.hold("f");
    second.waits();
    // The end of the session frees what it had.
    drop(inside);
    second.is_granted();
}

#[test]
fn withdrawing_ends_a_wait_and_leaves_no_grant() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let [a, b] = ["a", "b"].map(|name| connect(&broker.address(), name));
    let held = a.hold("f");
    held.is_granted();
    let waiting = b.hold("f");
    waiting.waits();
    b.session.withdraw(waiting.number, Refusal::Interrupted);
    assert_eq!(waiting.hears(), Answer::Refused(Refusal::Interrupted));
    a.session.release(held.number, None);
    a.hold("f").is_granted();
}

#[test]
fn locks_why_status_and_break_tell_of_what_is() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let [a, b] = ["a", "b"].map(|name| connect(&broker.address(), name));
    let held = a.hold("d/f");
    let grant = held.is_granted();
    let waiting = b.hold("d/f");
    waiting.waits();
    let all = b.session.locks(&Scope::Everything, None, SOON).unwrap();
    assert_eq!(all.lines.len(), 2);
    assert!(matches!(all.lines[0].state, LineState::Held { token, .. } if token == grant.token));
    let LineState::Waiting { place, behind } = &all.lines[1].state else { panic!("{all:?}") };
    assert_eq!((*place, behind), (1, &vec![grant.ticket.0]));

    let watching = b.session.clone();
    let watch = std::thread::spawn(move || {
        watching.locks(&Scope::Everything, Some(all.version), SOON).unwrap()
    });
    let unfounded = a.session.break_lock(grant.ticket.0, " ".to_owned());
    assert_eq!(unfounded, Err(QueryError::Nonsense));
    a.session.break_lock(grant.ticket.0, "it is stuck".to_owned()).unwrap();
    assert_eq!(a.hears(), Heard::Revoked(held.number, Revocation::Broken));
    waiting.is_granted();
    assert!(watch.join().unwrap().version > all.version);

    let path = ViewPath::parse(b"d/f").unwrap();
    let scope = Scope::Within { space: a.attachment.name.clone(), path };
    let why = a.session.why(scope).unwrap();
    assert_eq!(why.lines.len(), 1);
    assert_eq!(why.past.len(), 1);
    let Happening::Claim { became, .. } = &why.past[0].record.what else { panic!("{why:?}") };
    assert!(
        matches!(became, Fate::Revoked { reason, .. } if reason == "it is stuck"),
        "{became:?}"
    );
    let status = a.session.status().unwrap();
    assert_eq!((status.sessions, status.held, status.waiting), (2, 1, 0));
    let gone = a.session.break_lock(grant.ticket.0, "it is stuck".to_owned());
    assert_eq!(gone, Err(QueryError::Unknown));
}

#[test]
fn a_long_board_is_told_page_by_page() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let client = connect(&broker.address(), "a");
    let owners: Vec<Owner> = (0..1_300).map(|number| client.hold(&format!("f{number}"))).collect();
    for owner in &owners {
        owner.is_granted();
    }
    let all = client.session.locks(&Scope::Everything, None, SOON).unwrap();
    let mut tickets: Vec<u64> = all.lines.iter().map(|line| line.ticket).collect();
    tickets.dedup();
    assert_eq!((tickets.len(), all.more), (1_300, false));
}

#[test]
fn nonsense_ends_a_connection_and_nothing_else() {
    use std::io::{Read, Write};
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let Address::Unix(socket) = broker.address() else { panic!("a socket file") };
    let nonsense: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GATE\x09\0\0\0",
        b"GATE\x01\0\0\0\xff\xff\xff\xff",
        b"GATE\x01\0\0\0\x02\0\0\0\xee\xee",
        // Speaks before it said hello.
        b"GATE\x01\0\0\0\x02\0\0\0\x09\x01",
    ];
    for bytes in nonsense {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut said = Vec::new();
        // The preamble, then the end.
        stream.read_to_end(&mut said).unwrap();
        assert_eq!(said, gate_api::frame::PREAMBLE, "{bytes:?}");
    }
    connect(&broker.address(), "sane").hold("f").is_granted();
}

#[test]
fn n5_a_client_that_falls_silent_on_tcp_loses_its_session_with_its_lease() {
    use std::io::{Read, Write};
    let state = tempfile::tempdir().unwrap();
    let mut options = Options::new(state.path().to_owned());
    let (host, policy) = ("127.0.0.1".to_owned(), crate::Policy::Loopback);
    options.listen = Some(crate::Listen { host, port: 0, policy });
    let broker = Broker::start(options).unwrap();
    let at = broker.http_address().unwrap();
    let mut silent = std::net::TcpStream::connect(at).unwrap();
    silent.set_read_timeout(Some(SOON)).unwrap();
    let upgrade = "GET /gate/frames HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\n\
                   Upgrade: gate-frames/1\r\n\r\n";
    let mut said = upgrade.as_bytes().to_vec();
    said.extend_from_slice(&gate_api::frame::PREAMBLE);
    let hello = gate_api::wire::Hello {
        client: "silent".to_owned(),
        process: gate_api::process::own(),
        machine: gate_api::process::machine(),
        lease: Some(Duration::from_millis(100)),
        max_hold: None,
        resume: None,
        private: None,
    };
    let hello = gate_api::wire::ClientMessage::Hello(hello);
    gate_api::frame::encode(&hello, &mut said).unwrap();
    silent.write_all(&said).unwrap();
    let mut heard = Vec::new();
    // It is welcomed, and later hung up on.
    silent.read_to_end(&mut heard).unwrap();
    assert!(heard.starts_with(b"HTTP/1.1 101"));
    let status = connect(&broker.address(), "living").session.status().unwrap();
    assert_eq!(status.sessions, 1, "only the one that asks");
}

#[test]
fn n5_a_dead_clients_session_ends_at_once() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let living = connect(&broker.address(), "living");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::client_that_is_killed", "--nocapture"])
        .env(CHILD, state.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let said = std::io::BufReader::new(child.stdout.take().unwrap());
    let said = std::io::BufRead::lines(said).map_while(Result::ok);
    assert!(said.into_iter().any(|line| line.contains("holds")), "the child holds");
    let waiting = living.hold("f");
    waiting.waits();
    child.kill().unwrap();
    // Far less than its lease of ten minutes.
    waiting.is_granted();
    child.wait().unwrap();
}

const CHILD: &str = "GATE_TEST_CHILD";

/// Not a test of its own: the client that the test above kills.
#[test]
fn client_that_is_killed() {
    let Some(state) = std::env::var_os(CHILD) else { return };
    let (ears, _heard) = mpsc::channel();
    let lease = Some(Duration::from_secs(600));
    let info = ClientInfo { lease, ..ClientInfo::named("child") };
    let address = Address::of_state_dir(state.as_ref());
    let session = Session::connect(address, info, Arc::new(Ears(ears, Quiet::Now))).unwrap();
    let attachment = session.attach(source()).unwrap();
    let client = Client { session, attachment, heard: mpsc::channel().1 };
    client.hold("f").is_granted();
    println!("holds");
    // Until it is killed, or its parent is gone.
    std::io::Read::read(&mut std::io::stdin(), &mut [0]).unwrap();
}
