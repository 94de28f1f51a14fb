//! The session's thread, and brokers that come and go in ways that real ones seldom do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use gate_core::id::{Epoch, SpaceId, Ticket, Token};
use gate_core::lock::claim::{Label, Patience};
use gate_core::lock::event::Revocation;
use gate_core::lock::want::{Access, Op, Want};

use super::*;
use crate::link::Outgoing;
use crate::session::{Ask, ClientInfo, NoGrant, Session, Watcher};
use crate::wire::{BrokerInfo, Granted, Party, Resume};

const SOON: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_millis(600);
const SPACE: SpaceId = SpaceId(1);

/// A broker that greets whoever comes, and hangs up.
struct Fickle(mpsc::Sender<Instant>);

struct Unheard;

struct Greeting(VecDeque<ServerMessage>);

struct Deaf;

impl Connector for Fickle {
    fn connect(&self) -> Result<Connection, ConnectError> {
        // The test may have seen enough.
        let _ = self.0.send(Instant::now());
        let greeting = VecDeque::from([welcome(Known::Nothing, Duration::ZERO)]);
        let (outgoing, incoming) = (Box::new(Unheard), Box::new(Greeting(greeting)));
        Ok(Connection { outgoing, incoming, heartbeat: true })
    }
}

fn welcome(known: Known, lease: Duration) -> ServerMessage {
    let broker = BrokerInfo { epoch: 1, version: String::new(), pid: 1, state_dir: Vec::new() };
    let session = Resume { session: 1, key: 1 };
    ServerMessage::Welcome(Welcome { session, known, lease, broker })
}

impl Outgoing for Unheard {
    fn send(&mut self, _: &ClientMessage) {}
}

impl Incoming for Greeting {
    fn receive(&mut self, _: Option<Duration>) -> Result<Option<ServerMessage>, Broken> {
        self.0.pop_front().map(Some).ok_or(Broken::Closed)
    }
}

impl Watcher for Deaf {
    fn revoked(&self, _owner: u64, _why: Revocation, _reason: &str) -> Quiet {
        Quiet::Now
    }

    fn contended(&self, _owner: u64) {}
}

#[test]
fn who_is_greeted_and_hung_up_on_comes_back_after_pauses_that_grow() {
    let (came, comes) = mpsc::channel();
    let session = Session::connect(Fickle(came), ClientInfo::named("test"), Arc::new(Deaf));
    let came: Vec<Instant> = (0..7).map(|_| comes.recv_timeout(SOON).unwrap()).collect();
    drop(session);
    // The first time it comes back at once.
    let pauses = came.windows(2).skip(1).map(|pair| pair[1] - pair[0]);
    let least = (0..).map(|attempt| PAUSE_MIN * (1 << attempt));
    for (pause, least) in pauses.zip(least) {
        assert!(pause >= least, "{pause:?}, {least:?} at least");
    }
}

/// A broker that lets everybody in, while it is of this release.
#[derive(Clone)]
struct Renewed(Arc<Mutex<Release>>);

struct Release {
    /// The version of another one's frames.
    other: Option<u32>,
    /// The way to the client, if it is connected.
    say: Option<mpsc::Sender<ServerMessage>>,
    /// Says what clients do.
    tell: mpsc::Sender<&'static str>,
}

struct Foreign(u32);

struct Said(mpsc::Receiver<ServerMessage>);

impl Renewed {
    fn lock(&self) -> MutexGuard<'_, Release> {
        self.0.lock().unwrap()
    }

    /// Replaces it by one that speaks another version, or this one again.
    fn renew(&self, other: Option<u32>) {
        let mut release = self.lock();
        (release.other, release.say) = (other, None);
    }
}

impl Connector for Renewed {
    fn connect(&self) -> Result<Connection, ConnectError> {
        let mut release = self.lock();
        release.tell.send("comes").unwrap();
        let (say, said) = mpsc::channel();
        let incoming: Box<dyn Incoming> = match release.other {
            Some(version) => Box::new(Foreign(version)),
            None => Box::new(Said(said)),
        };
        release.say = Some(say);
        Ok(Connection { outgoing: Box::new(self.clone()), incoming, heartbeat: true })
    }
}

impl Outgoing for Renewed {
    fn send(&mut self, message: &ClientMessage) {
        let release = self.lock();
        let answer = match message {
            ClientMessage::Hello(hello) => {
                let known = if hello.resume.is_some() { Known::All } else { Known::Nothing };
                welcome(known, LEASE)
            }
            ClientMessage::Ping => ServerMessage::Pong,
            ClientMessage::Acquire(acquire) => granted(acquire.owner),
            ClientMessage::Held { acquire, .. } => {
                release.tell.send("lists").unwrap();
                granted(acquire.owner)
            }
            ClientMessage::Listed => ServerMessage::Restored,
            _ => return,
        };
        if let Some(say) = &release.say {
            // Where it has ended nobody hears that.
            let _ = say.send(answer);
        }
    }
}

impl Incoming for Foreign {
    fn receive(&mut self, _: Option<Duration>) -> Result<Option<ServerMessage>, Broken> {
        Err(FrameError::Version(self.0).into())
    }
}

impl Incoming for Said {
    fn receive(&mut self, patience: Option<Duration>) -> Result<Option<ServerMessage>, Broken> {
        match self.0.recv_timeout(patience.unwrap_or(SOON)) {
            Ok(message) => Ok(Some(message)),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(Broken::Closed),
        }
    }
}

fn granted(owner: u64) -> ServerMessage {
    let token = Token { epoch: Epoch(1), counter: owner };
    let ticket = Ticket(owner);
    ServerMessage::Granted(Granted { owner, ticket, token, count: 1, by_kin: false })
}

fn ask() -> Ask {
    Ask {
        party: Party::Owner,
        caller: None,
        patience: Patience::Endless,
        read_wait: None,
        label: Label::default(),
        want: Want { op: Op::Open(Access::Write), places: Vec::new() },
    }
}

/// It may let others in, and knows nothing of who was there before.
#[test]
fn n16_while_the_broker_is_of_another_release_nobody_is_let_in_or_acts_and_nothing_is_lost() {
    let (tell, told) = mpsc::channel();
    let broker = Renewed(Arc::new(Mutex::new(Release { other: None, say: None, tell })));
    let client = ClientInfo::named("test");
    let session = Session::connect(broker.clone(), client, Arc::new(Deaf)).unwrap();
    let held = session.acquire_blocking(ask()).unwrap().owner;
    assert!(session.stands(held, SOON));
    broker.renew(Some(2));
    let happens = |what| while told.recv_timeout(SOON).unwrap() != what {};
    (0..3).for_each(|_| happens("comes"));
    let bar = session.refusal(SPACE).expect("it says why it is not let in");
    assert!(bar.reason.contains("another release: the peer speaks version 2"), "{bar:?}");
    assert_eq!(session.acquire_blocking(ask()), Err(NoGrant::BrokerGone));
    assert!(!session.may_act(Duration::ZERO), "a lease has gone by");
    assert!(session.holds(held));
    broker.renew(None);
    happens("lists");
    assert!(session.stands(held, SOON));
    assert_eq!(session.refusal(SPACE), None);
    assert!(session.acquire_blocking(ask()).is_ok());
}
