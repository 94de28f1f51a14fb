//! A broker whose machine went down, and who may come back then.

use std::path::Path;
use std::time::Duration;

use gate_api::link::Connector;
use gate_api::wire::{ClientMessage, Hello, Known, Resume, ServerMessage, Welcome};
use gate_api::{Address, process};
use gate_core::id::SpaceId;

use super::{SOON, connect, source};
use crate::http::{Listen, Policy};
use crate::journal::JOURNAL_NAME;
use crate::{Broker, Options, Running};

/// No test waits for its end.
const LEASE: Duration = Duration::from_secs(3_600);

fn start(state: &Path) -> Running {
    let listen = Listen { host: "127.0.0.1".to_owned(), port: 0, policy: Policy::Loopback };
    let defaults = Options::new(state.to_owned());
    let options = Options { listen: Some(listen), lease_session: LEASE, ..defaults };
    Broker::start(options).unwrap()
}

/// Ends a broker, and then its machine.
fn lose_power(broker: Running, state: &Path) {
    broker.stop().unwrap();
    let journal = rusqlite::Connection::open(state.join(JOURNAL_NAME)).unwrap();
    journal.execute("UPDATE run SET boot = 'a former one'", ()).unwrap();
}

/// Says hello, attaches what it has not, and goes away without a good-bye.
fn greet(address: &Address, machine: u64, resume: Option<Resume>) -> Welcome {
    let mut connection = address.connect().unwrap();
    connection.say(&ClientMessage::Hello(Hello {
        client: "visitor".to_owned(),
        process: process::own(),
        machine,
        lease: None,
        max_hold: None,
        resume,
        private: None,
    }));
    let Ok(Some(ServerMessage::Welcome(welcome))) = connection.incoming.receive(Some(SOON)) else {
        panic!("it is welcome")
    };
    if resume.is_none() {
        let attach = ClientMessage::Attach { space: SpaceId(1), source: source() };
        connection.say(&attach);
        let attached = connection.incoming.receive(Some(SOON));
        assert!(matches!(attached, Ok(Some(ServerMessage::Attached { .. }))));
    }
    welcome
}

#[test]
fn clients_that_went_down_with_the_brokers_machine_are_not_waited_for() {
    let state = tempfile::tempdir().unwrap();
    let broker = start(state.path());
    let before = connect(&broker.address(), "before");
    before.hold("f").is_granted();
    lose_power(broker, state.path());
    drop(before);
    let broker = start(state.path());
    let after = connect(&broker.address(), "after");
    for path in ["f", "g"] {
        after.hold(path).is_granted();
    }
    let status = after.session.status().unwrap();
    assert_eq!((status.sessions, status.in_grace), (1, false));
}

/// The end of the journal may lack what they have.
#[test]
fn n1_clients_that_are_elsewhere_are_waited_for_when_the_brokers_machine_went_down() {
    let elsewhere = process::machine() ^ 1;
    for (over_tcp, machine) in [(true, process::machine()), (false, elsewhere)] {
        let state = tempfile::tempdir().unwrap();
        let way = |broker: &Running| match broker.http_address().filter(|_| over_tcp) {
            Some(at) => Address::Tcp { host: at.ip().to_string(), port: at.port() },
            None => broker.address(),
        };
        let broker = start(state.path());
        let visitor = greet(&way(&broker), machine, None).session;
        let back = greet(&way(&broker), machine, Some(visitor));
        assert_eq!(back.known, Known::All);
        lose_power(broker, state.path());
        let broker = start(state.path());
        connect(&broker.address(), "new").hold("f").waits();
        let back = greet(&way(&broker), machine, Some(visitor));
        assert_eq!((back.known, back.session), (Known::Part, visitor));
    }
}
