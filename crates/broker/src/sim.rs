//! Whole lives of a broker and its clients, each determined by a seed.
//!
//! The broker's desk, books and journal and the clients' session state are the real ones; time,
//! chance, the net and all that fails are made up ([`scene`], [`net`], [`fate`]). A judge who knows
//! the rules and none of their code ([`oracle`]) looks after each step.
//!
//! **Messages** are late, and lost with their connection. What is said in frames is said once on each
//! connection; who comes back lists all it has and waits for, whatever the broker heard of that before.
//! A request of the stateless interface has a connection of its own: it is lost, or its answer is, or
//! others overtake it, and who hears nothing sends it again ([`caller`], [`post`]).
//!
//! **Clocks.** The world's goes on whatever happens, as `CLOCK_BOOTTIME` does; by that clients tell for
//! how long they may act. The broker's is `CLOCK_MONOTONIC` less the time for which it was stopped. It
//! stands still while the machine sleeps ([`fate`]: `Suspend`), which to clients is a jump ahead, and
//! while the broker is stopped (`Stall`); it begins anew with the machine (`PowerLoss`). By the time of
//! day, which may be set, nobody decides anything: there is none in this world.
//!
//! A life that fails says how to live it again: `GATE_SIM_SEED=n`. `GATE_SIM_SEEDS=n` lives more of
//! them, and `GATE_SIM_FROM=n` leaves out those before. Not here: threads, sockets, processes; the
//! tests beside this and `tests/it` have those.

mod caller;
mod chance;
mod client;
mod contact;
mod counter;
mod fate;
mod files;
mod footprint;
mod host;
mod net;
mod oracle;
mod post;
mod scene;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gate_core::time::Time;

use caller::Caller;
use chance::Chance;
use client::Client;
use fate::Fate;
use host::Host;
use oracle::Tally;
use scene::{Scene, Wake};

/// Lives of one run of the tests, if nothing else is said; `cargo xtask test` lives more.
const LIVES: u64 = 1_000;
/// After how many a long run says how far it is.
const LIVES_TOLD: u64 = 10_000;
/// How long things go wrong, in milliseconds.
const TROUBLE_MS: std::ops::Range<usize> = 500..16_000;
/// How long it may take after that until everybody got an answer and is gone.
const PEACE: Duration = Duration::from_secs(600);
/// When the kernel at last tells of all the dead: their leases are over by then.
const FUNERAL: Duration = Duration::from_secs(60);

/// Lives that failed once, and what was wrong.
const FORMER_FAILURES: [(u64, &str); 15] = [
    (52, "a lock that was recalled lived on when it had been held for as long as it may be"),
    (105, "a lock that was asked for again ended with the lease of the first request"),
    (2_008, "who asked again for what it had let go of before a power loss got an old token"),
    (5_444, "a grace ended before sessions were back that the journal had lost"),
    (7_159, "what a client lists was judged as if it were let in anew"),
    (7_676, "a client was taken back that had been ended, which the journal had lost"),
    (8_457, "a file was created while the connection broke, and locked by its former name alone"),
    (17_461, "who had its answer while a list was on its way was let in once more, for nobody"),
    (
        25_154,
        "who was silent beyond its lease was judged as if it were there, and waited for itself",
    ),
    (29_314, "a newcomer's short lease was over long before anybody looked"),
    (78_264, "a made up view renamed another file than the one that its turn was for"),
    (96_796, "what was taken away, and listed on return, was handed on before its owner knew"),
    (134_684, "what was being created stayed locked by its former name as its directory moved"),
    (152_754, "what was being created was judged by its former name as its directory moved"),
    (378_366, "neither what was created nor that its directory moved was known yet to the broker"),
];

/// Where the clients are, by the last digit of the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// All are on the broker's machine.
    Here,
    /// Some are elsewhere.
    Mixed,
    /// Some are elsewhere, and the broker's disk is full now and then.
    Tight,
    /// All are elsewhere, and sleep, while the broker forgets.
    Elsewhere,
}

impl Place {
    fn of_seed(seed: u64) -> Place {
        match seed % 10 {
            3 | 8 => Place::Here,
            0 | 5 => Place::Tight,
            9 => Place::Elsewhere,
            _ => Place::Mixed,
        }
    }
}

/// Whether there are clients of the stateless interface in a life, by the last digit of its seed. They
/// are on the broker's machine, which may sleep.
fn has_callers(seed: u64) -> bool {
    matches!(seed % 10, 2 | 5 | 8)
}

struct World {
    scene: Scene,
    host: Host,
    clients: Vec<Client>,
    callers: Vec<Caller>,
    fate: Fate,
}

impl World {
    fn new(seed: u64, with_script: bool, start: Instant) -> World {
        let mut scene = Scene::new(Chance::of_seed(seed), with_script);
        let place = Place::of_seed(seed);
        let fate = match place {
            Place::Here | Place::Mixed => Fate::new(&mut scene),
            Place::Tight => Fate::of_full_disks(&mut scene),
            Place::Elsewhere => Fate::of_forgetting(),
        };
        let clients = match has_callers(seed) {
            true => 1 + scene.chance.below(2),
            false => 2 + scene.chance.below(4),
        };
        let clients = (0..clients).map(|number| {
            let born = scene.now + scene.chance.millis(0..500);
            scene.wake(born, Wake::Client(number));
            let remote = match place {
                Place::Here => false,
                Place::Mixed | Place::Tight => number % 2 == 1,
                Place::Elsewhere => true,
            };
            Client::new(number, remote, born, start)
        });
        let clients = clients.collect();
        let (callers, fate) = match has_callers(seed) {
            true => (World::callers(&mut scene), fate.with_sleep(&mut scene)),
            false => (Vec::new(), fate),
        };
        scene.wake(scene.now, Wake::Broker);
        scene.wake(scene.now, Wake::Fate);
        World { scene, host: Host::new(), clients, callers, fate }
    }

    fn callers(scene: &mut Scene) -> Vec<Caller> {
        scene.shared = true;
        let callers = 2 + scene.chance.below(3);
        let callers = (0..callers).map(|number| {
            let born = scene.now + scene.chance.millis(0..500);
            scene.wake(born, Wake::Caller(number));
            Caller::new(number, born)
        });
        callers.collect()
    }

    fn live(&mut self) {
        let end_of_trouble = self.scene.now + self.scene.chance.millis(TROUBLE_MS);
        let end = end_of_trouble + PEACE;
        let mut funeral: Option<Time> = None;
        while let Some(who) = self.scene.next() {
            if self.scene.now >= end_of_trouble && !self.scene.calm {
                self.scene.calm = true;
                self.scene.note(|| "peace".to_owned());
            }
            match who {
                Wake::Broker => self.host.turn(&mut self.scene),
                Wake::Client(number) => self.clients[number].turn(&mut self.scene),
                Wake::Caller(number) => self.callers[number].turn(&mut self.scene),
                Wake::Fate if !self.scene.calm => {
                    let all = (&mut self.clients[..], &mut self.callers[..]);
                    self.fate.strike(&mut self.host, all, &mut self.scene);
                }
                Wake::Fate => {}
            }
            assert!(self.scene.now < end, "no end: {:#?}", self.unfinished());
            let all_off = self.clients.iter().all(Client::is_off);
            if !self.scene.calm || !all_off || !self.callers.iter().all(Caller::is_off) {
                continue;
            }
            if self.host.is_empty() {
                return self.host.must_be_empty();
            }
            if funeral.is_some_and(|at| at <= self.scene.now) {
                self.host.bury_all(&mut self.scene);
                funeral = None;
            }
            if funeral.is_none() {
                let at = self.scene.now + FUNERAL;
                funeral = Some(at);
                self.scene.wake(at, Wake::Broker);
            }
        }
        panic!("nothing happens any more: {:#?}", self.unfinished());
    }

    fn unfinished(&self) -> Vec<String> {
        let clients = self.clients.iter().flat_map(|client| client.work.unfinished());
        clients.chain(self.host.board()).collect()
    }
}

fn live(seed: u64, start: Instant) -> Option<Tally> {
    let life = || {
        let mut world = World::new(seed, false, start);
        world.live();
        world.scene.oracle.tally
    };
    catch_unwind(life).ok()
}

/// Lives a life again, with a script; returns what is to be said of its failure.
fn retell(seed: u64, start: Instant) -> String {
    let mut world = World::new(seed, true, start);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.live()));
    let why = match outcome {
        Ok(()) => "it ends well".to_owned(),
        Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_owned(),
            (None, None) => "a panic without words".to_owned(),
        },
    };
    let (script, tally) = (world.scene.script(), world.scene.oracle.tally);
    format!("{script}{:#?}\n{tally:?}\nseed {seed}: {why}", world.host.board())
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number of lives or a seed"))
}

#[test]
fn n1_n2_n3_n4_n5_hold_in_every_life() {
    let start = Instant::now();
    if let Some(seed) = number_of("GATE_SIM_SEED") {
        println!("{}", retell(seed, start));
        return assert!(live(seed, start).is_some(), "seed {seed} fails");
    }
    let lives = number_of("GATE_SIM_SEEDS").unwrap_or(LIVES);
    let next = AtomicU64::new(number_of("GATE_SIM_FROM").unwrap_or(0));
    let total = Mutex::new(Tally::default());
    let failed = Mutex::new(None);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let former = FORMER_FAILURES.get(at as usize).map(|(seed, _)| *seed);
                    let seed = former.unwrap_or(at);
                    if at >= lives || failed.lock().unwrap().is_some() {
                        return;
                    }
                    if at > 0 && at.is_multiple_of(LIVES_TOLD) {
                        eprintln!("{at} lives");
                    }
                    match live(seed, start) {
                        Some(tally) => total.lock().unwrap().add(tally),
                        None => {
                            failed.lock().unwrap().get_or_insert(seed);
                        }
                    }
                }
            });
        }
    });
    if let Some(seed) = failed.into_inner().unwrap() {
        println!("{}", retell(seed, start));
        panic!("seed {seed} fails; live it again with GATE_SIM_SEED={seed}");
    }
    let total = total.into_inner().unwrap();
    let is_whole = lives >= LIVES && number_of("GATE_SIM_FROM").is_none();
    assert!(!is_whole || total.repeated > lives, "hardly anything is said twice: {total:#?}");
    println!("{lives} lives in {:?}, 0 inversions: {total:#?}", start.elapsed());
}
