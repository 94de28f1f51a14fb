//! A client: the real session state, and around it what its thread does, told here again without
//! a thread.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gate_api::link::Outgoing;
use gate_api::session::Moment;
use gate_api::session::state::{Call, State};
use gate_api::wire::{ClientMessage, Hello, Known, MaxHold, Query, ServerMessage, Source, Welcome};
use gate_core::id::SessionId;
use gate_core::lock::claim::Process;
use gate_core::time::Time;

use super::contact::LEASE_MAX;
use super::net::Parcel;
use super::scene::{Scene, Wake};
use super::work::Work;
use crate::mail::ConnectionId;

/// The real ones are private to the session's thread.
const GREETING_PATIENCE: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(250);
const SILENCES_MAX: usize = 3;
/// How long the first client lets its own hold, while others wait.
const MAX_HOLD: Duration = Duration::from_millis(500);

/// No process of the machine that the test runs on.
pub const NAMESPACE: u64 = 7;

pub struct Client {
    number: usize,
    /// Rises with each death: another process is another client.
    life: u32,
    pub remote: bool,
    phase: Phase,
    state: Option<State>,
    said: Tape,
    pub work: Work,
    /// The instant at the start of the world's time.
    start: Instant,
    stalled_until: Time,
    /// Until then it may act on what it holds.
    good_until: Time,
}

/// What the session's thread is busy with.
enum Phase {
    /// Not born yet, or dead: until then, if not for ever.
    Off(Option<Time>),
    /// There is no connection; the next attempt is due.
    Apart { retry_at: Time, pause: Duration },
    /// Waits for the broker's greeting.
    Greeting { line: ConnectionId, since: Time, pause: Duration },
    /// Listens. The broker was greeted then, and heard of the session after that.
    Here { line: ConnectionId, greeted: Moment, heard: Moment, ping_at: Time },
}

/// What the session says, to be sent once it is done speaking.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<ClientMessage>>>);

impl Outgoing for Tape {
    fn send(&mut self, message: &ClientMessage) {
        self.0.lock().unwrap().push(message.clone());
    }
}

impl Client {
    pub fn new(number: usize, remote: bool, born: Time, start: Instant) -> Client {
        Client {
            number,
            life: 1,
            remote,
            phase: Phase::Off(Some(born)),
            state: None,
            said: Tape::default(),
            work: Work::new(number, 1),
            start,
            stalled_until: Time::ZERO,
            good_until: Time::ZERO,
        }
    }

    pub fn is_off(&self) -> bool {
        matches!(self.phase, Phase::Off(_))
    }

    /// Does nothing until then, as if it was stopped.
    pub fn stall(&mut self, until: Time) {
        self.stalled_until = until;
    }

    pub fn line(&self) -> Option<ConnectionId> {
        match self.phase {
            Phase::Greeting { line, .. } | Phase::Here { line, .. } => Some(line),
            Phase::Off(_) | Phase::Apart { .. } => None,
        }
    }

    pub fn session(&self) -> Option<SessionId> {
        Some(SessionId(self.state.as_ref()?.resume().session))
    }

    /// Dies; `reborn` says when another process takes its place, if one does.
    pub fn die(&mut self, scene: &mut Scene, reborn: Option<Time>) -> Option<SessionId> {
        scene.note(|| format!("c{}: dies", self.number));
        if let Some(line) = self.line() {
            scene.client_leaves(line);
        }
        let session = self.session();
        scene.oracle.dies(self.number);
        self.life += 1;
        self.state = None;
        self.good_until = Time::ZERO;
        self.work = Work::new(self.number, self.life);
        self.phase = Phase::Off(reborn.filter(|_| !scene.calm));
        if let Some(at) = reborn {
            scene.wake(at, Wake::Client(self.number));
        }
        session
    }

    /// Asks the broker to end somebody's claim, or to have it ended.
    pub fn order(&mut self, query: Query, scene: &mut Scene) {
        let (answer, _) = std::sync::mpsc::channel();
        if let Some(state) = &mut self.state {
            state.query(query, answer);
        }
        self.send_what_was_said(scene);
    }

    pub fn turn(&mut self, scene: &mut Scene) {
        if scene.now < self.stalled_until {
            return scene.wake(self.stalled_until, Wake::Client(self.number));
        }
        self.listen(scene);
        self.mind_the_time(scene);
        let now = self.instant(scene.now);
        if let Some(state) = &mut self.state {
            self.work.go_on(state, now, scene);
        }
        self.send_what_was_said(scene);
        self.run_errands(scene);
        if scene.calm && self.work.is_done() {
            self.retire(scene);
        }
        if let Some(at) = self.next_turn(scene) {
            scene.wake(at, Wake::Client(self.number));
        }
    }

    /// Says good-bye; one that never got a greeting has nobody to say it to.
    fn retire(&mut self, scene: &mut Scene) {
        let Some(line) = self.line() else {
            if self.state.is_none() {
                self.phase = Phase::Off(None);
            }
            return;
        };
        if let Some(state) =
            self.state.as_mut().filter(|_| matches!(self.phase, Phase::Here { .. }))
        {
            state.goodbye();
            self.send_what_was_said(scene);
            scene.client_leaves(line);
            self.phase = Phase::Off(None);
        }
    }

    fn listen(&mut self, scene: &mut Scene) {
        while let Some(line) = self.line() {
            let Some(parcel) = scene.net.heard_by_client(line, scene.now) else { return };
            let greeted = matches!(self.phase, Phase::Here { .. });
            match parcel {
                Parcel::Said(message) if greeted => self.hear(line, message, scene),
                Parcel::Said(ServerMessage::Welcome(welcome)) => self.begin(line, welcome, scene),
                Parcel::End if greeted => self.lose(line, scene),
                Parcel::Said(_) | Parcel::End => self.fail_to_connect(line, scene),
                Parcel::Begin => unreachable!("brokers connect to nobody"),
            }
        }
    }

    /// Takes a message, unless the lease may be over: then a grant may no longer be one.
    fn hear(&mut self, line: ConnectionId, message: ServerMessage, scene: &mut Scene) {
        let (Phase::Here { heard, greeted, .. }, Some(state)) = (&mut self.phase, &mut self.state)
        else {
            return;
        };
        if heard.0 + state.lease() <= moment(scene.now).0 {
            return self.lose(line, scene);
        }
        let lease = state.lease();
        match state.receive(message) {
            Some(Call::Proven { sent }) => {
                *heard = sent;
                self.may_act(Time::ZERO + sent.0 + lease, scene);
            }
            Some(Call::Restored) => {
                let until = Time::ZERO + greeted.0 + lease;
                self.may_act(until, scene);
            }
            call => self.carry_out(call, scene),
        }
        self.send_what_was_said(scene);
    }

    fn may_act(&mut self, until: Time, scene: &mut Scene) {
        self.good_until = self.good_until.max(until);
        scene.oracle.relies(self.number, until, scene.now);
    }

    fn begin(&mut self, line: ConnectionId, mut welcome: Welcome, scene: &mut Scene) {
        let Phase::Greeting { since, .. } = self.phase else { return };
        if scene.now < self.good_until {
            welcome.known = welcome.known.to_one_who_could_act();
        }
        let (number, known, lease) = (self.number, welcome.known, welcome.lease);
        scene.note(|| format!("c{number}: welcome on {}, known: {known:?}", line.0));
        let tape = Box::new(self.said.clone());
        let now = self.instant(scene.now);
        let lost = match &mut self.state {
            None => {
                let mut state = State::new(tape, welcome, true);
                let (answer, _) = std::sync::mpsc::channel();
                self.work.space = state.attach(source(scene.shared), answer);
                self.state = Some(state);
                Vec::new()
            }
            Some(state) => state.come_back(tape, true, welcome, now),
        };
        let greeted = moment(since);
        let ping_at = scene.now + self.state.as_ref().and_then(State::heartbeat).expect("it is up");
        self.phase = Phase::Here { line, greeted, heard: greeted, ping_at };
        for call in lost {
            self.carry_out(Some(call), scene);
        }
        if known == Known::Nothing {
            // What was taken away in the former session, and is not done with, counts for nothing in
            // this one: its lease is over.
            scene.oracle.dies(self.number);
            self.may_act(since + lease, scene);
        }
        self.send_what_was_said(scene);
    }

    fn lose(&mut self, line: ConnectionId, scene: &mut Scene) {
        let number = self.number;
        scene.note(|| format!("c{number}: lost {}", line.0));
        scene.client_leaves(line);
        let now = self.instant(scene.now);
        if let Some(state) = &mut self.state {
            state.lose(now);
        }
        self.phase = Phase::Apart { retry_at: scene.now, pause: PAUSE_MIN };
        self.run_errands(scene);
    }

    fn fail_to_connect(&mut self, line: ConnectionId, scene: &mut Scene) {
        let Phase::Greeting { pause, .. } = self.phase else { return };
        scene.client_leaves(line);
        self.wait_before_another_try(pause, scene);
    }

    fn mind_the_time(&mut self, scene: &mut Scene) {
        let now = scene.now;
        match &mut self.phase {
            Phase::Off(Some(at)) if *at <= now => {
                self.phase = Phase::Apart { retry_at: now, pause: PAUSE_MIN };
                self.connect(scene);
            }
            Phase::Apart { retry_at, .. } if *retry_at <= now => self.connect(scene),
            Phase::Greeting { line, since, .. } if *since + GREETING_PATIENCE <= now => {
                let line = *line;
                self.fail_to_connect(line, scene);
            }
            Phase::Here { line, ping_at, .. } if *ping_at <= now => {
                let line = *line;
                let Some(state) = &mut self.state else { return };
                if state.unanswered() >= SILENCES_MAX {
                    return self.lose(line, scene);
                }
                state.ping(moment(now));
                *ping_at = now + state.heartbeat().expect("it is up");
                self.send_what_was_said(scene);
            }
            _ => {}
        }
    }

    fn connect(&mut self, scene: &mut Scene) {
        let Phase::Apart { pause, .. } = self.phase else { return };
        self.run_errands(scene);
        let Some(line) = scene.dial(self.number) else {
            let lease = self.state.as_ref().filter(|_| !self.remote).map(State::lease);
            // On its own machine it sees that no broker runs.
            if let Some(lease) = lease.filter(|_| scene.now < self.good_until) {
                self.may_act(scene.now + lease, scene);
            }
            return self.wait_before_another_try(pause, scene);
        };
        let hello = ClientMessage::Hello(self.hello(scene));
        scene.ask(line, hello);
        self.phase = Phase::Greeting { line, since: scene.now, pause };
    }

    fn wait_before_another_try(&mut self, pause: Duration, scene: &Scene) {
        let retry_at = scene.now + pause;
        self.phase = Phase::Apart { retry_at, pause: (pause * 2).min(PAUSE_MAX) };
    }

    fn hello(&self, scene: &mut Scene) -> Hello {
        let leases = [None, None, Some(Duration::from_secs(2)), Some(LEASE_MAX)];
        let lease = leases[(self.number + self.life as usize) % leases.len()];
        scene.note(|| format!("c{}: hello", self.number));
        let pid = u32::try_from(self.number).expect("few") * 1_000 + self.life;
        Hello {
            client: format!("c{}", self.number),
            process: Process { namespace: NAMESPACE, pid, start: 1 },
            machine: if self.remote { NAMESPACE } else { gate_api::process::machine() },
            max_hold: (self.number == 0).then_some(MaxHold::After(MAX_HOLD)),
            lease,
            resume: self.state.as_ref().map(State::resume),
            private: None,
        }
    }

    /// The session's thread runs errands while it is not greeting.
    fn run_errands(&mut self, scene: &mut Scene) {
        if !matches!(self.phase, Phase::Apart { .. }) {
            return;
        }
        let now = self.instant(scene.now);
        if let Some(state) = &mut self.state {
            state.next_deadline(now);
        }
        while let Some(call) = self.state.as_mut().and_then(|state| state.next_errand(now)) {
            self.carry_out(Some(call), scene);
        }
    }

    fn carry_out(&mut self, call: Option<Call>, scene: &mut Scene) {
        let Some(state) = &mut self.state else { return };
        match call {
            None => {}
            Some(Call::Final { mut then, answer }) => then(answer),
            Some(Call::Waiting { owner, mut then, ticket }) => {
                then(gate_api::Answer::Waiting { ticket });
                state.give_back(owner, then);
            }
            Some(Call::Recalled { owner, recall }) => {
                scene.note(|| format!("c{}: {owner} is recalled: {recall:?}", self.number));
                self.work.hurry(owner, scene);
            }
            Some(Call::Revoked { owner, why, .. }) => {
                scene.note(|| format!("c{}: {owner} is revoked: {why:?}", self.number));
                self.work.lose((owner, why), state, scene);
            }
            Some(Call::Contended { owner }) => {
                state.say(&ClientMessage::Active { owner });
            }
            Some(Call::Proven { .. } | Call::Restored) => {}
        }
        self.work.hear_answers(state, scene);
    }

    fn send_what_was_said(&mut self, scene: &mut Scene) {
        let said = std::mem::take(&mut *self.said.0.lock().unwrap());
        let Phase::Here { line, .. } = self.phase else { return };
        for message in said {
            scene.ask(line, message);
        }
    }

    fn next_turn(&mut self, scene: &Scene) -> Option<Time> {
        let own = match &self.phase {
            Phase::Off(at) => return *at,
            Phase::Apart { retry_at, .. } => Some(*retry_at),
            Phase::Greeting { since, .. } => Some(*since + GREETING_PATIENCE),
            Phase::Here { ping_at, .. } => Some(*ping_at),
        };
        let apart = matches!(self.phase, Phase::Apart { .. });
        let now = self.instant(scene.now);
        let due = self.state.as_mut().filter(|_| apart).and_then(|state| state.next_deadline(now));
        let due = due.map(|at| scene.now + at.saturating_duration_since(now));
        [own, due, self.work.next_turn(scene.now)].into_iter().flatten().min()
    }

    fn instant(&self, now: Time) -> Instant {
        self.start + now.since(Time::ZERO)
    }
}

/// The client's clock that goes on while it sleeps.
fn moment(now: Time) -> Moment {
    Moment(now.since(Time::ZERO))
}

/// All work on one source, which may be that of the stateless interface.
fn source(shared: bool) -> Source {
    Source { by_host_and_port: shared, ..crate::tests::source() }
}
