//! Clients that lie, flood or do not listen: what they cannot do to the others.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use gate_api::frame::{self, Decoder, PREAMBLE};
use gate_api::wire::{
    Acquire, ClientMessage, Hello, Known, LEASE_MS_MAX, LEASE_MS_MIN, Query, Reply, Resume,
    ServerMessage, Welcome,
};
use gate_core::id::SpaceId;
use gate_core::lock::limits::SESSIONS_MAX;

use super::*;
use crate::bounds::WATCHES_PER_CLIENT_MAX;

/// Questions that one client asks at once: far more than it is told while it does not listen.
const FLOOD: u64 = 20_000;

/// A client that says what it wants.
struct Raw {
    stream: UnixStream,
    decoder: Decoder,
}

impl Raw {
    /// Connects and says hello; returns its session, too.
    fn connect(broker: &Running, resume: Option<Resume>) -> (Raw, Resume, bool) {
        // It is silent for as long as it takes.
        let (raw, welcome) = Raw::greet(broker, resume, SOON * 10);
        (raw, welcome.session, welcome.known != Known::Nothing)
    }

    fn greet(broker: &Running, resume: Option<Resume>, lease: Duration) -> (Raw, Welcome) {
        let Address::Unix(socket) = broker.address() else { panic!("a socket file") };
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut raw = Raw { stream, decoder: Decoder::default() };
        raw.stream.write_all(&PREAMBLE).unwrap();
        raw.say([ClientMessage::Hello(Hello {
            client: "raw".to_owned(),
            process: gate_api::process::own(),
            machine: gate_api::process::machine(),
            lease: Some(lease),
            max_hold: None,
            resume,
            private: None,
        })]);
        raw.await_bytes();
        while raw.decoder.preamble().unwrap().is_none() {
            raw.await_bytes();
        }
        let ServerMessage::Welcome(welcome) = raw.hears() else { panic!("it is welcome") };
        (raw, welcome)
    }

    fn say(&self, messages: impl IntoIterator<Item = ClientMessage>) {
        let mut bytes = Vec::new();
        for message in messages {
            frame::encode(&message, &mut bytes).unwrap();
        }
        (&self.stream).write_all(&bytes).unwrap();
    }

    fn await_bytes(&mut self) {
        let mut bytes = [0; 64 * 1024];
        let length = self.stream.read(&mut bytes).unwrap();
        assert_ne!(length, 0, "it was hung up on");
        self.decoder.push(&bytes[..length]);
    }

    fn hears(&mut self) -> ServerMessage {
        loop {
            if let Some(message) = self.decoder.message().unwrap() {
                return message;
            }
            self.await_bytes();
        }
    }
}

/// Another broker may be starting again: it has as long as its clients wait before they ask again.
#[test]
fn a_source_that_was_refused_is_served_to_who_finds_it_free_twice() {
    let [state, dir] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let broker = start(&state);
    let directory = gate_api::source::directory(dir.path()).unwrap();
    let source = Source { origin: Origin::Directory(directory), ..source() };
    let taken = std::fs::File::open(dir.path()).unwrap();
    taken.lock().unwrap();
    let (mut raw, ..) = Raw::connect(&broker, None);
    let mut is_served = || {
        raw.say([ClientMessage::Attach { space: SpaceId(1), source: source.clone() }]);
        matches!(raw.hears(), ServerMessage::Attached { .. })
    };
    assert!(!is_served());
    drop(taken);
    assert!(!is_served());
    let other = std::fs::File::open(dir.path()).unwrap();
    assert!(other.try_lock().is_ok(), "it was only looked at");
    drop(other);
    assert!(is_served());
}

fn acquire(owner: u64, space: u32, path: &str) -> ClientMessage {
    let path = Some(ViewPath::parse(path.as_bytes()).unwrap());
    let place = Place { space: SpaceId(space), path, node: Node::None };
    ClientMessage::Acquire(Arc::new(Acquire {
        owner,
        party: Party::Owner,
        caller: None,
        patience: Patience::Endless,
        read_wait: None,
        label: Label { owner: "raw".to_owned(), reason: String::new(), asked_at_ms: 0 },
        want: Want { op: Op::Hold(Access::Write), places: vec![place] },
    }))
}

fn attach() -> ClientMessage {
    ClientMessage::Attach { space: SpaceId(1), source: source() }
}

#[test]
fn a_lease_is_long_enough_to_be_kept_and_has_an_end() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    for (asked, ms) in [(Duration::ZERO, LEASE_MS_MIN), (Duration::MAX, LEASE_MS_MAX)] {
        let (_raw, welcome) = Raw::greet(&broker, None, asked);
        assert_eq!(welcome.lease, Duration::from_millis(ms));
    }
}

#[test]
fn who_asks_without_end_and_does_not_listen_waits_for_itself_alone() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let (mut flooder, ..) = Raw::connect(&broker, None);
    let writing = flooder.stream.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let writer = Raw { stream: writing, decoder: Decoder::default() };
        for id in 0..FLOOD {
            writer.say([ClientMessage::Query { id, query: Query::Status }]);
        }
    });
    let [one, two] = ["one", "two"].map(|name| connect(&broker.address(), name));
    let mut held = (&one, one.hold("f"));
    held.1.is_granted();
    for turn in 0..100 {
        let next = if turn % 2 == 0 { &two } else { &one };
        let waiter = next.hold("f");
        waiter.waits();
        held.0.session.release(held.1.number, None);
        waiter.is_granted();
        held = (next, waiter);
    }
    // It is not cut off, either: it hears every answer, in order, once it listens.
    for expected in 0..FLOOD {
        match flooder.hears() {
            ServerMessage::Reply { id, reply: Reply::Status(_) } => assert_eq!(id, expected),
            other => panic!("{other:?}"),
        }
    }
    flood.join().unwrap();
}

#[test]
fn what_a_client_says_beyond_its_turn_is_heard_in_the_next_even_if_it_has_gone() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let (mut raw, ..) = Raw::connect(&broker, None);
    raw.say([attach()]);
    let many = 5_000;
    raw.say((1..=many).map(|number| acquire(number, 1, &format!("f{number}"))));
    let mut granted = 0;
    while granted < many {
        granted += u64::from(matches!(raw.hears(), ServerMessage::Granted(_)));
    }
    raw.say((1..many).map(|owner| ClientMessage::Release { owner, change: None }));
    raw.say([acquire(many + 1, 1, "last"), ClientMessage::Query { id: 1, query: Query::Status }]);
    raw.stream.shutdown(Shutdown::Write).unwrap();
    let status = loop {
        if let ServerMessage::Reply { reply: Reply::Status(status), .. } = raw.hears() {
            break status;
        }
    };
    assert_eq!((status.held, status.waiting), (2, 0));
}

#[test]
fn who_watches_too_much_is_answered_at_once() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let (mut raw, ..) = Raw::connect(&broker, None);
    let watch = |id| {
        let scope = Scope::Everything;
        let query = Query::Locks { scope, newer_than: Some(u64::MAX), after: 0 };
        ClientMessage::Query { id, query }
    };
    let most = u64::try_from(WATCHES_PER_CLIENT_MAX).unwrap();
    raw.say((0..=most).map(watch));
    assert!(matches!(raw.hears(), ServerMessage::Reply { id, .. } if id == most));
    // A change answers the others.
    connect(&broker.address(), "other").hold("f").is_granted();
    for expected in 0..most {
        assert!(matches!(raw.hears(), ServerMessage::Reply { id, .. } if id == expected));
    }
}

#[test]
fn a_client_lets_go_of_renews_and_names_nothing_but_its_own() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let victim = connect(&broker.address(), "victim");
    let held = victim.hold("f");
    let grant = held.is_granted();
    let (mut raw, ..) = Raw::connect(&broker, None);
    let owner = held.number;
    // Owners are numbered by each session for itself; a ticket is a name for people.
    for owner in [owner, grant.ticket.0] {
        raw.say([
            ClientMessage::Release { owner, change: None },
            ClientMessage::Withdraw { owner, why: Refusal::Interrupted },
            ClientMessage::Active { owner },
        ]);
    }
    // A space is known to who attached it; nothing is asked for without one.
    raw.say([acquire(1, 1, "f"), acquire(2, 0, "f")]);
    for owner in [1, 2] {
        match raw.hears() {
            ServerMessage::Refused { owner: told, why: Refusal::Unknown } if told == owner => {}
            other => panic!("{other:?}"),
        }
    }
    raw.say([attach()]);
    assert!(matches!(raw.hears(), ServerMessage::Attached { .. }));
    raw.say([acquire(3, 1, "f")]);
    assert!(matches!(raw.hears(), ServerMessage::Waiting { owner: 3, .. }), "it holds still");
    victim.session.release(held.number, None);
    assert!(matches!(raw.hears(), ServerMessage::Granted(granted) if granted.owner == 3));
}

#[test]
fn clients_that_come_and_go_leave_room_for_others_and_what_is_held() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let (holder, held, _) = Raw::connect(&broker, None);
    holder.say([attach(), acquire(1, 1, "f"), ClientMessage::Ping]);
    drop(holder);
    for _ in 0..SESSIONS_MAX + 10 {
        let (raw, ..) = Raw::connect(&broker, None);
        raw.say([attach()]);
    }
    let status = connect(&broker.address(), "other").session.status().unwrap();
    assert_eq!((status.sessions, status.held), (u64::try_from(SESSIONS_MAX).unwrap(), 1));
    let (_, _, resumed) = Raw::connect(&broker, Some(held));
    assert!(resumed, "who has something may come back");
}

#[test]
fn a_session_is_resumed_by_its_key_alone() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let (first, session, _) = Raw::connect(&broker, None);
    first.say([attach(), acquire(1, 1, "f")]);
    for key in [0, session.key ^ 1, !session.key] {
        let (_, given, resumed) = Raw::connect(&broker, Some(Resume { key, ..session }));
        assert!(!resumed && given.session != session.session);
    }
    let (_, given, resumed) = Raw::connect(&broker, Some(session));
    assert!(resumed && given == session);
}

#[test]
fn who_went_before_its_source_was_attached_is_told_on_return() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    let (mut first, session, _) = Raw::connect(&broker, None);
    first.say([attach()]);
    let ServerMessage::Attached { attached, .. } = first.hears() else { panic!("it is attached") };
    drop(first);
    let (mut again, _, resumed) = Raw::connect(&broker, Some(session));
    assert!(resumed);
    again.say([attach(), ClientMessage::Listed]);
    let told = again.hears();
    assert!(matches!(&told, ServerMessage::Attached { attached: now, .. } if *now == attached));
    assert!(matches!(again.hears(), ServerMessage::Restored));
}

#[test]
fn a_path_that_leads_out_of_its_source_is_no_path() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(&state);
    for path in ["../f", "a/../../f", "a/.."] {
        let (mut raw, ..) = Raw::connect(&broker, None);
        raw.say([attach()]);
        assert!(matches!(raw.hears(), ServerMessage::Attached { .. }));
        // As long as the path it stands for, so that the frame is whole.
        let mut bytes = Vec::new();
        let stand_in = "x".repeat(path.len());
        frame::encode(&acquire(1, 1, &stand_in), &mut bytes).unwrap();
        let at = bytes.windows(path.len()).position(|bytes| bytes == stand_in.as_bytes()).unwrap();
        bytes[at..at + path.len()].copy_from_slice(path.as_bytes());
        raw.stream.write_all(&bytes).unwrap();
        assert_eq!(raw.stream.read(&mut [0; 64]).unwrap(), 0, "{path}");
    }
    assert_eq!(connect(&broker.address(), "sane").session.status().unwrap().held, 0);
}
