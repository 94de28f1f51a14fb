//! The session without a broker: what is said on a fake connection, and what owners are told.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gate_core::id::{Epoch, SpaceId, Ticket, Token};
use gate_core::lock::claim::{Label, Patience};
use gate_core::lock::event::{Change, Refusal, Revocation};
use gate_core::lock::key::FileKey;
use gate_core::lock::want::{Access, Op, Want};
use gate_core::path::ViewPath;

use super::standing::Moment;
use super::state::{Call, State};
use super::{Answer, Ask, Grant};
use crate::link::Outgoing;
use crate::wire::{
    AttachRefusal, Attached, BrokerInfo, ClientMessage, Granted, Known, Origin, Party, Resume,
    ServerMessage, Source, Welcome,
};

const LEASE: Duration = Duration::from_secs(10);
/// How long who asks later than that still waits.
const MOMENT: Duration = Duration::from_secs(1);

/// A connection that only remembers what was said, one word for each message.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<String>>>);

impl Outgoing for Tape {
    fn send(&mut self, message: &ClientMessage) {
        let word = match message {
            ClientMessage::Acquire(acquire) => format!("acquire {}", acquire.owner),
            ClientMessage::Held { acquire, .. } => format!("held {}", acquire.owner),
            ClientMessage::Waits { acquire } => format!("waits {}", acquire.owner),
            ClientMessage::Listed => "listed".to_owned(),
            ClientMessage::Release { owner, change: None } => format!("release {owner}"),
            ClientMessage::Release { owner, change: Some(_) } => format!("release+ {owner}"),
            ClientMessage::Withdraw { owner, .. } => format!("withdraw {owner}"),
            ClientMessage::Created { owner, .. } => format!("created {owner}"),
            ClientMessage::Ping => "ping".to_owned(),
            ClientMessage::Active { owner } => format!("active {owner}"),
            ClientMessage::Attach { space, .. } => format!("attach {}", space.0),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(word);
    }
}

impl Tape {
    fn said(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).join(", ")
    }
}

/// A session whose thread is the test.
struct Stage {
    state: State,
    tape: Tape,
    told: Arc<Mutex<Vec<String>>>,
    now: Instant,
}

fn welcome(known: Known) -> Welcome {
    let broker = BrokerInfo { epoch: 1, version: String::new(), pid: 1, state_dir: Vec::new() };
    Welcome { session: Resume { session: 7, key: 8 }, known, lease: LEASE, broker }
}

fn stage() -> Stage {
    let tape = Tape::default();
    let state = State::new(Box::new(tape.clone()), welcome(Known::Nothing), false);
    Stage { state, tape, told: Arc::default(), now: Instant::now() }
}

fn word(answer: Answer) -> &'static str {
    match answer {
        Answer::Waiting { .. } => "waits",
        Answer::Granted(Grant { .. }) => "granted",
        Answer::Ungated => "ungated",
        Answer::Refused(Refusal::Interrupted) => "interrupted",
        Answer::Refused(Refusal::WouldBlock) => "would block",
        Answer::Refused(Refusal::TimedOut) => "timed out",
        Answer::Refused(_) => "refused",
        Answer::BrokerGone => "broker gone",
    }
}

impl Stage {
    fn ask(&mut self, patience: Patience) -> u64 {
        let ask = Ask {
            party: Party::Owner,
            caller: None,
            patience,
            read_wait: None,
            label: Label::default(),
            want: Want { op: Op::Open(Access::Write), places: Vec::new() },
        };
        let told = self.told.clone();
        let number = Arc::new(Mutex::new(0));
        let known = number.clone();
        let then = move |answer| {
            let line = format!("{} {}", known.lock().unwrap(), word(answer));
            told.lock().unwrap().push(line);
        };
        let (owner, _) = self.state.acquire(ask, Box::new(then), self.now);
        *number.lock().unwrap() = owner;
        owner
    }

    fn hears(&mut self, message: ServerMessage) {
        let call = self.state.receive(message);
        self.carry_out(call);
    }

    fn granted(&mut self, owner: u64) {
        let token = Token { epoch: Epoch(1), counter: owner };
        let ticket = Ticket(owner);
        self.hears(ServerMessage::Granted(Granted {
            owner,
            ticket,
            token,
            count: 1,
            by_kin: false,
        }));
    }

    fn breaks(&mut self) {
        self.state.lose(self.now);
        self.run_errands();
    }

    fn run_errands(&mut self) {
        while let Some(call) = self.state.next_errand(self.now) {
            self.carry_out(Some(call));
        }
    }

    fn later(&mut self, by: Duration) {
        self.now += by;
        self.state.next_deadline(self.now);
        self.run_errands();
    }

    fn returns(&mut self, known: Known) {
        let tape = Box::new(self.tape.clone());
        for call in self.state.come_back(tape, false, welcome(known), self.now) {
            self.carry_out(Some(call));
        }
    }

    fn carry_out(&mut self, call: Option<Call>) {
        let line = match call {
            None => return,
            Some(Call::Final { mut then, answer }) => return then(answer),
            Some(Call::Waiting { owner, mut then, ticket }) => {
                then(Answer::Waiting { ticket });
                return self.state.give_back(owner, then);
            }
            Some(Call::Revoked { owner, .. }) => format!("{owner} revoked"),
            Some(Call::Recalled { owner, recall }) => format!("{owner} recalled {}", recall.reason),
            Some(Call::Contended { owner }) => format!("{owner} contended"),
            Some(Call::Proven { .. } | Call::Restored) => return,
        };
        self.told.lock().unwrap().push(line);
    }

    /// Compares what was told and said since the last look.
    #[track_caller]
    fn check(&mut self, told: &str, said: &str) {
        let heard = std::mem::take(&mut *self.told.lock().unwrap()).join(", ");
        assert_eq!((heard.as_str(), self.tape.said().as_str()), (told, said));
    }
}

#[test]
fn an_owner_hears_waiting_once_and_then_one_final_answer() {
    let mut stage = stage();
    let owner = stage.ask(Patience::Endless);
    for _ in 0..2 {
        stage.hears(ServerMessage::Waiting { owner, ticket: Ticket(1) });
    }
    stage.granted(owner);
    stage.hears(ServerMessage::Refused { owner, why: Refusal::Deadlock });
    stage.state.release(owner, None);
    stage.hears(ServerMessage::Revoked { owner, why: Revocation::Broken, reason: "no".into() });
    stage.check("1 waits, 1 granted", "acquire 1, release 1");
}

#[test]
fn a_grant_that_crosses_its_withdrawal_is_not_told() {
    let mut stage = stage();
    let owner = stage.ask(Patience::Endless);
    stage.state.withdraw(owner, Refusal::Interrupted);
    stage.granted(owner);
    // The broker lets go of it without a word.
    stage.check("1 interrupted", "acquire 1, withdraw 1");
    stage.state.withdraw(owner, Refusal::Interrupted);
    stage.check("", "");
}

#[test]
fn a_withdrawal_after_the_grant_was_told_does_nothing() {
    let mut stage = stage();
    let owner = stage.ask(Patience::Endless);
    stage.granted(owner);
    stage.state.withdraw(owner, Refusal::Interrupted);
    stage.check("1 granted", "acquire 1");
}

#[test]
fn to_owners_an_outage_is_contention() {
    let mut stage = stage();
    let [held, waiting] = [(); 2].map(|()| stage.ask(Patience::Endless));
    stage.granted(held);
    stage.check("1 granted", "acquire 1, acquire 2");
    stage.breaks();
    let later = stage.ask(Patience::Endless);
    stage.run_errands();
    stage.check("2 waits, 3 waits", "");
    stage.returns(Known::All);
    stage.check("", "held 1, waits 2, waits 3, listed");
    stage.hears(ServerMessage::Granted(Granted {
        owner: held,
        ticket: Ticket(1),
        token: Token { epoch: Epoch(1), counter: 1 },
        count: 1,
        by_kin: false,
    }));
    stage.granted(waiting);
    stage.granted(later);
    stage.check("2 granted, 3 granted", "");
}

#[test]
fn a_grant_that_was_lost_with_the_connection_is_told_on_return() {
    let mut stage = stage();
    let owner = stage.ask(Patience::Endless);
    stage.breaks();
    stage.returns(Known::All);
    stage.granted(owner);
    stage.check("1 waits, 1 granted", "acquire 1, waits 1, listed");
}

#[test]
fn after_a_lease_without_a_broker_who_waits_is_told_and_what_is_held_stays() {
    let mut stage = stage();
    let [held, _waiting] = [(); 2].map(|()| stage.ask(Patience::Endless));
    stage.granted(held);
    stage.breaks();
    stage.later(LEASE);
    stage.check("1 granted, 2 waits, 2 broker gone", "acquire 1, acquire 2");
    stage.returns(Known::All);
    stage.check("", "held 1, listed");
}

#[test]
fn who_asks_after_a_lease_without_a_broker_waits_a_moment_for_it() {
    let mut stage = stage();
    stage.breaks();
    stage.later(LEASE);
    stage.ask(Patience::Endless);
    stage.run_errands();
    stage.check("1 waits", "");
    stage.later(MOMENT);
    stage.check("1 broker gone", "");
    let owner = stage.ask(Patience::Endless);
    stage.run_errands();
    stage.later(MOMENT / 2);
    stage.returns(Known::All);
    stage.granted(owner);
    stage.check("2 waits, 2 granted", "waits 2, listed");
}

#[test]
fn tries_and_time_outs_do_not_wait_for_a_broker_that_is_away() {
    let mut stage = stage();
    stage.ask(Patience::Try);
    stage.ask(Patience::Limited(Duration::from_secs(3)));
    stage.breaks();
    stage.ask(Patience::Try);
    stage.run_errands();
    stage.check("1 would block, 2 waits, 3 would block", "acquire 1, acquire 2");
    stage.later(Duration::from_secs(3));
    stage.check("2 timed out", "");
    stage.returns(Known::All);
    stage.check("", "listed");
}

#[test]
fn who_is_withdrawn_during_an_outage_is_answered_and_not_listed() {
    let mut stage = stage();
    let owner = stage.ask(Patience::Endless);
    stage.breaks();
    assert!(stage.state.withdraw(owner, Refusal::Interrupted));
    stage.run_errands();
    stage.returns(Known::All);
    stage.check("1 waits, 1 interrupted", "acquire 1, listed");
}

#[test]
fn a_withdrawal_that_was_under_way_when_the_connection_broke_is_answered() {
    let mut stage = stage();
    let owner = stage.ask(Patience::Endless);
    stage.state.withdraw(owner, Refusal::Interrupted);
    stage.breaks();
    stage.returns(Known::All);
    stage.check("1 interrupted", "acquire 1, withdraw 1, listed");
}

#[test]
fn what_is_let_go_of_during_an_outage_is_not_listed_but_its_names_are_told() {
    let mut stage = stage();
    let [plain, renamed] = [(); 2].map(|()| stage.ask(Patience::Endless));
    stage.granted(plain);
    stage.granted(renamed);
    stage.check("1 granted, 2 granted", "acquire 1, acquire 2");
    stage.breaks();
    stage.state.release(plain, None);
    let change = Change::Removed { space: SpaceId(1), path: ViewPath::root() };
    stage.state.release(renamed, Some(change));
    stage.returns(Known::All);
    stage.check("", "held 2, listed, release+ 2");
}

/// N1: until the broker knows the file, its name alone is locked, and names move.
#[test]
fn n1_what_was_created_is_told_again_on_return() {
    let mut stage = stage();
    let [told, untold] = [(); 2].map(|()| stage.ask(Patience::Endless));
    stage.granted(told);
    stage.granted(untold);
    let file = |inode| FileKey { volume: 1, inode, generation: 1 };
    stage.state.created(told, file(1));
    stage.check("1 granted, 2 granted", "acquire 1, acquire 2, created 1");
    stage.breaks();
    stage.state.created(untold, file(2));
    stage.returns(Known::All);
    stage.check("", "held 1, held 2, listed, created 1, created 2");
}

#[test]
fn what_was_taken_away_is_held_no_more_and_let_go_of_once() {
    let mut stage = stage();
    let owner = stage.ask(Patience::Endless);
    stage.granted(owner);
    let revoked = || ServerMessage::Revoked { owner, why: Revocation::Broken, reason: "no".into() };
    stage.hears(revoked());
    stage.check("1 granted, 1 revoked", "acquire 1");
    assert!(!stage.state.holds(owner));
    // Who is done with it says so, with what it did to names.
    let change = Change::Removed { space: SpaceId(1), path: ViewPath::root() };
    stage.state.release(owner, Some(change));
    stage.state.release(owner, None);
    stage.hears(revoked());
    stage.check("", "release+ 1");
}

/// A session with two owners whose turns were taken away, and that are not done with them.
fn two_taken_away() -> (Stage, [u64; 2]) {
    let mut stage = stage();
    let [busy, done] = [(); 2].map(|()| stage.ask(Patience::Endless));
    for owner in [busy, done] {
        stage.granted(owner);
        stage.hears(ServerMessage::Revoked { owner, why: Revocation::Broken, reason: "".into() });
    }
    stage.check("1 granted, 1 revoked, 2 granted, 2 revoked", "acquire 1, acquire 2");
    (stage, [busy, done])
}

/// N7: what is slow is not let go of because nobody speaks of it.
#[test]
fn n7_who_is_not_done_with_what_was_taken_away_says_so_with_each_heartbeat() {
    let (mut stage, [busy, done]) = two_taken_away();
    stage.state.release(done, None);
    stage.check("", "release 2");
    for _ in 0..2 {
        stage.state.ping(Moment::now());
        stage.check("", "ping, active 1");
    }
    stage.state.release(busy, None);
    stage.state.ping(Moment::now());
    stage.check("", "release 1, ping");
}

/// N7: else the broker would count it as let go of.
#[test]
fn n7_what_was_taken_away_is_listed_on_return_until_it_is_done_with() {
    let (mut stage, [busy, done]) = two_taken_away();
    stage.breaks();
    stage.state.release(done, None);
    stage.returns(Known::All);
    stage.check("", "held 1, listed");
    // A broker that forgot it, or tells of it again, is told the same.
    stage.granted(busy);
    stage.hears(ServerMessage::Revoked { owner: busy, why: Revocation::Broken, reason: "".into() });
    assert!(!stage.state.holds(busy));
    stage.state.release(busy, None);
    stage.check("", "release 1");
}

#[test]
fn a_grant_that_was_taken_away_before_it_was_heard_of_is_let_go_of() {
    let mut stage = stage();
    let owner = stage.ask(Patience::Endless);
    stage.breaks();
    stage.returns(Known::All);
    stage.hears(ServerMessage::Revoked { owner, why: Revocation::Broken, reason: "".into() });
    stage.check("1 waits, 1 interrupted", "acquire 1, waits 1, listed, release 1");
}

#[test]
fn who_had_an_answer_while_the_list_was_on_its_way_leaves_the_place_it_got_from_it() {
    let mut stage = stage();
    let (early, late) = (stage.ask(Patience::Endless), stage.ask(Patience::Endless));
    stage.breaks();
    stage.returns(Known::All);
    let said = "acquire 1, acquire 2, waits 1, waits 2, listed";
    stage.check("1 waits, 2 waits", said);
    for owner in [early, late] {
        stage.hears(ServerMessage::Refused { owner, why: Refusal::Interrupted });
    }
    stage.hears(ServerMessage::Waiting { owner: early, ticket: Ticket(9) });
    stage.granted(late);
    stage.check("1 interrupted, 2 interrupted", "withdraw 1, release 2");
}

fn bucket(name: &str) -> Source {
    Source {
        origin: Origin::Bucket(name.to_owned()),
        space: None,
        by_host_and_port: false,
        rules: None,
    }
}

#[test]
fn what_was_attached_is_told_again_on_return() {
    let mut stage = stage();
    stage.state.attach(bucket("b"), crate::sync::mpsc::channel().0);
    let held = stage.ask(Patience::Endless);
    stage.granted(held);
    stage.check("2 granted", "attach 1, acquire 2");
    stage.breaks();
    stage.returns(Known::All);
    stage.check("", "attach 1, held 2, listed");
}

#[test]
fn who_attaches_while_the_broker_is_away_is_answered_on_return() {
    let mut stage = stage();
    let attached = Attached { space: "b".to_owned(), prefix: ViewPath::root(), notice: None };
    let [(early, to_early), (late, to_late)] = [(); 2].map(|()| crate::sync::mpsc::channel());
    stage.state.attach(bucket("a"), early);
    stage.check("", "attach 1");
    stage.breaks();
    let space = stage.state.attach(bucket("b"), late).unwrap();
    let forgotten = stage.state.attach(bucket("c"), crate::sync::mpsc::channel().0).unwrap();
    stage.state.forget_attach(forgotten);
    stage.returns(Known::All);
    stage.check("", "attach 1, attach 2, listed");
    for space in [SpaceId(1), space] {
        stage.hears(ServerMessage::Attached { space, attached: attached.clone() });
    }
    for answered in [to_early, to_late] {
        assert_eq!(answered.try_recv(), Ok(Ok(attached.clone())));
    }
    // Who has said good-bye does not come back.
    stage.state.goodbye();
    assert_eq!(stage.state.attach(bucket("d"), crate::sync::mpsc::channel().0), None);
}

#[test]
fn what_was_served_and_is_refused_on_return_is_asked_for_again() {
    let mut stage = stage();
    let (answer, answered) = crate::sync::mpsc::channel();
    let space = stage.state.attach(bucket("b"), answer).unwrap();
    let attached = Attached { space: "b".to_owned(), prefix: ViewPath::root(), notice: None };
    let refusal = AttachRefusal { reason: "another has it".to_owned(), fix: "wait".to_owned() };
    stage.hears(ServerMessage::Attached { space, attached: attached.clone() });
    assert_eq!(answered.try_recv(), Ok(Ok(attached.clone())));
    stage.state.attach_refused();
    stage.breaks();
    stage.returns(Known::Nothing);
    stage.check("", "attach 1, attach 1");
    for _ in 0..2 {
        stage.hears(ServerMessage::AttachRefused { space, refusal: refusal.clone() });
        assert_eq!(stage.state.refusal(space), Some(&refusal));
        stage.state.attach_refused();
        stage.check("", "attach 1");
    }
    stage.hears(ServerMessage::Attached { space, attached });
    assert_eq!(stage.state.refusal(space), None);
    stage.state.attach_refused();
    stage.check("", "");
}

#[test]
fn a_broker_that_does_not_know_the_session_took_all_that_was_held() {
    let mut stage = stage();
    let [held, waiting] = [(); 2].map(|()| stage.ask(Patience::Endless));
    stage.granted(held);
    stage.breaks();
    stage.check("1 granted, 2 waits", "acquire 1, acquire 2");
    stage.returns(Known::Nothing);
    stage.check("1 revoked", "acquire 2");
    stage.granted(waiting);
    stage.check("2 granted", "");
}

#[test]
fn n1_who_could_not_act_lists_nothing_to_a_broker_that_may_have_ended_it() {
    let mut stage = stage();
    let [held, let_go, _waiting] = [(); 3].map(|()| stage.ask(Patience::Endless));
    stage.granted(held);
    stage.granted(let_go);
    stage.breaks();
    let path = ViewPath::root();
    stage.state.release(let_go, Some(Change::Removed { space: SpaceId(1), path }));
    stage.check("1 granted, 2 granted, 3 waits", "acquire 1, acquire 2, acquire 3");
    // What it waits for it may have been granted, too.
    stage.returns(Known::Part);
    stage.check("1 revoked", "listed, acquire 3");
    assert_eq!(Known::Part.to_one_who_could_act(), Known::All);
    assert_eq!(Known::Nothing.to_one_who_could_act(), Known::Nothing);
}

#[test]
fn a_try_that_was_asked_while_the_broker_returned_is_no_place_in_line() {
    let mut stage = stage();
    stage.breaks();
    stage.ask(Patience::Try);
    // The session's thread was busy greeting: nobody ran the errand.
    stage.returns(Known::All);
    stage.check("", "listed, acquire 1");
}
