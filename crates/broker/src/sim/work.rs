//! What the processes behind a client do: ask, wait, work, let go, give up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gate_api::session::state::State;
use gate_api::wire::Party as Spoken;
use gate_api::{Answer, Ask, Grant};
use gate_core::id::{OwnerId, SessionId, SpaceId};
use gate_core::lock::claim::{Caller, Label, Party, Patience, Process};
use gate_core::lock::event::{Refusal, Revocation};
use gate_core::lock::want::{Access, Node, Op, Want};
use gate_core::time::Time;

use super::client::NAMESPACE;
use super::footprint::Footprint;
use super::oracle::Belief;
use super::scene::Scene;

/// Processes behind one client.
const WORKERS: usize = 3;
/// What one process asks for at once.
const JOBS_MAX: usize = 3;

type Told = Arc<Mutex<Vec<(u64, Answer)>>>;

pub struct Work {
    client: usize,
    life: u32,
    pub space: Option<SpaceId>,
    jobs: BTreeMap<u64, Job>,
    next_job: u64,
    told: Told,
    act_at: Time,
}

/// One thing that a process does.
struct Job {
    worker: usize,
    owner: u64,
    want: Want,
    stage: Stage,
}

enum Stage {
    /// Waits for an answer.
    Asked,
    /// Works until then.
    Held { until: Time },
    /// Its turn was taken away, and what was under way is done then.
    Lost { until: Time },
}

impl Work {
    pub fn new(client: usize, life: u32) -> Work {
        Work {
            client,
            life,
            space: None,
            jobs: BTreeMap::new(),
            next_job: 1,
            told: Told::default(),
            act_at: Time::ZERO,
        }
    }

    pub fn is_done(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Says what is unfinished, for people.
    pub fn unfinished(&self) -> Vec<String> {
        let shown = |job: &Job| {
            let stage = match job.stage {
                Stage::Asked => "waits",
                Stage::Held { .. } => "holds",
                Stage::Lost { .. } => "is not done with",
            };
            format!("c{}: {} {stage} {:?}", self.client, job.owner, job.want)
        };
        self.jobs.values().map(shown).collect()
    }

    pub fn next_turn(&self, now: Time) -> Option<Time> {
        let ends = self.jobs.values().filter_map(|job| match job.stage {
            Stage::Held { until } if !self.is_stopped(job.worker) => Some(until),
            Stage::Lost { until } => Some(until),
            Stage::Held { .. } | Stage::Asked => None,
        });
        ends.chain((self.act_at > now).then_some(self.act_at)).min()
    }

    /// Ends what is done, and begins something else.
    pub fn go_on(&mut self, state: &mut State, now: Instant, scene: &mut Scene) {
        self.hear_answers(state, scene);
        let due = |job: &Job| match job.stage {
            Stage::Held { until } => until <= scene.now && !self.is_stopped(job.worker),
            Stage::Lost { until } => until <= scene.now,
            Stage::Asked => false,
        };
        let done: Vec<u64> =
            self.jobs.iter().filter(|(_, job)| due(job)).map(|(id, _)| *id).collect();
        for id in done {
            self.finish(id, state, scene);
        }
        if scene.calm || scene.now < self.act_at {
            return;
        }
        self.act_at = scene.now + scene.chance.millis(1..scene.haste_ms);
        if scene.chance.one_in(12) {
            self.give_up(state, scene);
        } else {
            self.ask(state, now, scene);
        }
    }

    pub fn hear_answers(&mut self, state: &mut State, scene: &mut Scene) {
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        for (id, answer) in told {
            let (client, owner) = (self.client, self.jobs.get(&id).map(|job| job.owner));
            scene.note(|| format!("c{client}: {owner:?} is told {answer:?}"));
            match answer {
                Answer::Waiting { .. } => {}
                Answer::Granted(grant) => self.begin(id, grant, state, scene),
                Answer::Ungated | Answer::Refused(_) | Answer::BrokerGone => {
                    let job = self.jobs.remove(&id);
                    let waited = job.is_some_and(|job| matches!(job.stage, Stage::Asked));
                    assert!(waited, "two last answers for one");
                }
            }
        }
    }

    /// It is asked to let go; some do.
    pub fn hurry(&mut self, owner: u64, scene: &mut Scene) {
        let mut jobs = self.jobs.values_mut();
        if let Some(Job { stage: Stage::Held { until }, .. }) = jobs.find(|job| job.owner == owner)
            && scene.chance.one_in(2)
        {
            *until = scene.now;
        }
    }

    /// What it held was taken away; something may be under way, but for no lease.
    pub fn lose(&mut self, (owner, why): (u64, Revocation), state: &mut State, scene: &mut Scene) {
        let job = self.jobs.iter_mut().find(|(_, job)| job.owner == owner);
        let (id, job) = job.expect("what is held is a job's");
        if why != Revocation::LeaseLost && scene.chance.one_in(2) {
            job.stage = Stage::Lost { until: scene.now + scene.chance.millis(0..100) };
            return;
        }
        let id = *id;
        self.jobs.remove(&id);
        scene.oracle.lets_go(self.client, owner);
        state.release(owner, None);
    }

    fn begin(&mut self, id: u64, grant: Grant, state: &mut State, scene: &mut Scene) {
        let job = self.jobs.get_mut(&id).expect("a job is answered while it is there");
        assert!(matches!(job.stage, Stage::Asked), "two last answers for one");
        let span = match scene.chance.below(20) {
            0 => scene.chance.millis(500..4_000),
            1..6 => scene.chance.millis(20..400),
            _ => scene.chance.millis(0..20),
        };
        job.stage = Stage::Held { until: scene.now + span };
        let session = SessionId(state.resume().session);
        let owner = OwnerId { session, number: grant.owner };
        let footprint = scene.oracle.relied_on(job.want.op, Footprint::of(&job.want));
        let party = party_of(spoken(self.client, self.life, job.worker), owner);
        scene
            .oracle
            .believes(owner, Belief { client: self.client, party, footprint, token: grant.token });
        if job.want.op == Op::Create
            && let Some(file) = scene.files.create(&job.want)
        {
            state.created(grant.owner, file);
            job.want.op = Op::Open(Access::Write);
            job.want.places[0].node = Node::File(file);
            let footprint = scene.oracle.relied_on(job.want.op, Footprint::of(&job.want));
            scene.oracle.created(owner, footprint);
        }
    }

    fn finish(&mut self, id: u64, state: &mut State, scene: &mut Scene) {
        let job = self.jobs.remove(&id).expect("found just before");
        let (client, owner) = (self.client, job.owner);
        scene.note(|| format!("c{client}: {owner} lets go"));
        scene.oracle.lets_go(client, owner);
        let change = scene.files.perform(&job.want);
        state.release(job.owner, change);
    }

    fn give_up(&mut self, state: &mut State, scene: &mut Scene) {
        let waiting: Vec<u64> = self
            .jobs
            .values()
            .filter(|job| matches!(job.stage, Stage::Asked))
            .map(|job| job.owner)
            .collect();
        if !waiting.is_empty() {
            let owner = *scene.chance.pick(&waiting);
            let client = self.client;
            scene.note(|| format!("c{client}: {owner} gives up"));
            state.withdraw(owner, Refusal::Interrupted);
        }
    }

    fn ask(&mut self, state: &mut State, now: Instant, scene: &mut Scene) {
        let worker = scene.chance.below(WORKERS);
        let busy = self.jobs.values().filter(|job| job.worker == worker).count();
        let Some(space) = self.space.filter(|_| busy < JOBS_MAX && !self.is_stopped(worker)) else {
            return;
        };
        let mut want = scene.files.choose(&mut scene.chance, scene.names);
        for place in &mut want.places {
            place.space = space;
        }
        let patience = match scene.chance.below(10) {
            0..2 => Patience::Try,
            2..4 => Patience::Limited(scene.chance.millis(5..3_000)),
            _ => Patience::Endless,
        };
        let reads = want.op == Op::Open(Access::Read) && scene.chance.one_in(4);
        let process = process_of(self.client, self.life, worker);
        let ask = Ask {
            party: spoken(self.client, self.life, worker),
            caller: Some(Caller {
                process,
                thread: process.pid,
                single_threaded: is_single_threaded(worker),
            }),
            patience,
            read_wait: reads.then(|| Duration::from_secs(1)),
            label: Label::default(),
            want: want.clone(),
        };
        let (id, told) = (self.next_job, self.told.clone());
        self.next_job += 1;
        let then = Box::new(move |answer| told.lock().unwrap().push((id, answer)));
        let (owner, _) = state.acquire(ask, then, now);
        let client = self.client;
        scene.note(|| format!("c{client}: {owner} of w{worker} asks {patience:?} {want:?}"));
        self.jobs.insert(id, Job { worker, owner, want, stage: Stage::Asked });
    }

    /// A process with one thread does nothing while it waits.
    fn is_stopped(&self, worker: usize) -> bool {
        let waits = |job: &Job| job.worker == worker && matches!(job.stage, Stage::Asked);
        is_single_threaded(worker) && self.jobs.values().any(waits)
    }
}

/// The first process of a client has one thread, the second several, the third is not known.
fn is_single_threaded(worker: usize) -> bool {
    worker == 0
}

fn spoken(client: usize, life: u32, worker: usize) -> Spoken {
    match worker {
        0 | 1 => Spoken::Process(process_of(client, life, worker)),
        _ if client == 0 => Spoken::Session,
        _ if client == 1 => Spoken::Named("team".to_owned()),
        _ => Spoken::Owner,
    }
}

fn process_of(client: usize, life: u32, worker: usize) -> Process {
    let pid = u32::try_from(client * 10 + worker).expect("few") * 1_000 + life;
    Process { namespace: NAMESPACE, pid, start: 1 }
}

fn party_of(spoken: Spoken, owner: OwnerId) -> Party {
    match spoken {
        Spoken::Process(process) => Party::Process(process),
        Spoken::Named(name) => Party::Named(name.into()),
        Spoken::Session => Party::Session(owner.session),
        Spoken::Owner => Party::Owner(owner),
    }
}
