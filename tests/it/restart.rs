//! The broker dies and comes back: grants, places and tokens outlive it.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use gate_tests::actor::{Actor, Fd};
use gate_tests::locks::{Board, Lock};
use gate_tests::run::Running;
use gate_tests::wait::{SOON, wait_for, wait_until};
use gate_tests::world::Standing;
use gate_tests::{World, kernel, scaled};
use rustix::process::Signal;
use serde_json::Value;

const LONG: Duration = Duration::from_secs(120);

/// N1, N2, N3, N4: what was told stands, what waits keeps its place, tokens only rise.
#[test]
fn holders_and_waiters_outlive_a_killed_broker() {
    let mut world = World::new();
    let names = ["f", "g", "h"];
    for name in names {
        world.seed(name, "");
    }
    for _ in 0..scaled(20, 500) {
        let mut scenes: Vec<Scene> = names.iter().map(|name| Scene::set(&world, name)).collect();
        let before = world.board();
        world.kill_broker();
        world.start_broker([""; 0]);
        let after = reclaimed(&world, &before);
        assert!(after.epoch > before.epoch, "a run of the broker is an epoch");
        after.assert_no_conflict();
        assert_eq!(essence(&after), essence(&before));
        for scene in &mut scenes {
            scene.play();
        }
        let last = before.locks.iter().filter_map(|lock| lock.token.clone()).max();
        drop(scenes);
        world.await_idle();
        let mut fresh = world.actor(&world.view());
        let fd = fresh.open("w", "f");
        let token = world.board().held("f").next().and_then(|lock| lock.token.clone());
        assert!(token > last, "N4: {token:?} after {last:?}");
        fresh.close(fd);
    }
}

#[test]
fn since_when_somebody_holds_is_told_alike_by_the_next_broker() {
    let mut world = World::new();
    world.seed("f", "");
    let mut holder = world.actor(&world.view());
    let fd = holder.open("rw", "f");
    let since = |world: &World| -> jiff::Timestamp {
        let told = world.gate(["locks", "--json"]).run().success();
        let told: Value = serde_json::from_str(&told).unwrap();
        told["locks"][0]["since"].as_str().unwrap().parse().unwrap()
    };
    let before = since(&world);
    world.kill_broker();
    // By more than clocks that are read one after the other may differ.
    let age = Duration::from_secs(2);
    wait_until(SOON, "it is held for a while", || {
        jiff::Timestamp::now().duration_since(before).unsigned_abs() > age
    });
    world.start_broker([""; 0]);
    world.await_held("f", 1);
    let after = since(&world);
    assert!(after.duration_since(before).unsigned_abs() < age / 2, "{before}, then {after}");
    holder.close(fd);
}

/// N1 and N3 at random moments of the work: nothing is lost, nobody sees an error.
#[test]
fn appends_lose_nothing_while_the_broker_is_killed_at_random_moments() {
    kill_the_broker_of_appenders(Standing::Runner, scaled(20, 500));
    kill_the_broker_of_appenders(Standing::OrdinaryUser, scaled(3, 500));
    kill_the_broker_of_appenders(Standing::UserNamespace, scaled(3, 500));
}

fn kill_the_broker_of_appenders(standing: Standing, kills: usize) {
    const ACTORS: usize = 6;
    let times = kills * 40;
    let mut world = World::with_view_of(standing, [""; 0]);
    world.seed("f", "");
    let seed = RandomState::new().hash_one(std::process::id());
    println!("seed {seed}");
    let mut actors: Vec<_> = (0..ACTORS).map(|_| world.actor(&world.view())).collect();
    for actor in &mut actors {
        actor.tell(["repeat", &times.to_string(), "append", "f", "0123456789"]);
    }
    let mut dice = seed;
    for kill in 1..=kills {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let appends = kill * times * ACTORS / (kills + 2) + usize::try_from(dice >> 59).unwrap();
        wait_until(SOON, &format!("{appends} appends"), || {
            world.source_text("f").len() >= appends * 10
        });
        world.kill_broker();
        world.start_broker([""; 0]);
    }
    for actor in &mut actors {
        assert_eq!(actor.answer_by(LONG), Ok(String::new()));
    }
    assert_eq!(world.source_text("f"), "0123456789".repeat(times * ACTORS));
}

/// N5: who died while the broker was away holds up nobody.
#[test]
fn a_waiter_that_died_during_the_outage_is_no_orphan_in_the_queue() {
    let mut world = World::new();
    world.seed("f", "");
    let mut scene = Scene::set(&world, "f");
    world.kill_broker();
    scene.waiters[0].signal(Signal::KILL);
    scene.waiters[0].end(SOON);
    world.start_broker([""; 0]);
    wait_until(SOON, "the dead waiter's place is free", || {
        world.board().waiting("f").count() == scene.waiters.len() - 1
    });
    scene.waiters.remove(0);
    scene.play();
}

/// Rule 5: open handles go on during an outage, calls that would take a lock park.
#[test]
fn open_handles_go_on_while_the_broker_is_away_and_opens_wait_for_it() {
    let mut world = World::new();
    world.seed("f", "");
    world.seed("g", "");
    let mut holder = world.actor(&world.view());
    let fd = holder.open("rw", "f");
    world.kill_broker();
    holder.write(fd, "text").unwrap();
    holder.on("fsync", fd, &[]).unwrap();
    let mut other = world.actor(&world.view());
    assert_eq!(other.ask(["stat", "g"]), Ok("0".to_owned()));
    other.tell(["open", "w", "g"]);
    holder.close(fd);
    world.start_broker([""; 0]);
    other.opened();
}

/// N6 holds in an outage too.
#[test]
fn a_call_that_waits_for_an_absent_broker_can_be_killed() {
    let mut world = World::new();
    world.seed("f", "");
    let mut actor = world.actor(&world.view());
    world.kill_broker();
    actor.tell(["open", "w", "f"]);
    // Between two opens of one thread of the view nothing overtakes: once this one is known to
    // be parked, or not yet sent, the kill must end it either way.
    actor.signal(Signal::KILL);
    assert_eq!(actor.end(SOON), Some(Signal::KILL.as_raw()));
    world.start_broker([""; 0]);
    world.await_idle();
}

#[test]
fn an_outage_longer_than_a_lease_is_an_error_and_not_a_hang() {
    let mut world = World::bare();
    world.start_broker(["--lease-ms", "1000"]);
    let [source, view] = [world.source(), world.view()];
    world.mount(&source, &view, ["--lease-ms", "1000"]);
    world.seed("f", "");
    let mut actor = world.actor(&view);
    world.kill_broker();
    assert_eq!(actor.ask(["open", "w", "f"]), Err(rustix::io::Errno::IO));
    world.start_broker(["--lease-ms", "1000"]);
    // The view finds it a little later; who asks until then waits for that.
    actor.open("w", "f");
}

#[test]
fn a_make_in_the_view_spans_a_restart() {
    let mut world = World::new();
    let makefile = ".PHONY: all\n\
                    all: $(foreach i,$(shell seq 60),$(i).o)\n\
                    %.c:\n\techo 'int f$*(void) { return $*; }' > $@\n\
                    .SECONDARY:\n";
    world.seed("Makefile", makefile);
    let make = world.script(&world.view(), "make -s -j2").start();
    for done in ["10.o", "25.o", "40.o"] {
        wait_until(LONG, "make gets on", || world.source().join(done).exists());
        world.kill_broker();
        world.start_broker([""; 0]);
    }
    make.finish(LONG).success();
    assert!(world.source().join("60.o").exists());
}

/// One file, a holder of it, and a line: a writer, two readers, a writer.
struct Scene {
    holder: Actor,
    fd: Fd,
    waiters: Vec<Actor>,
}

impl Scene {
    fn set(world: &World, name: &str) -> Self {
        let mut holder = world.actor(&world.view());
        let fd = holder.open("w", name);
        let mut waiters = Vec::new();
        for (place, how) in (1..).zip(["w", "r", "r", "w"]) {
            let mut waiter = world.actor(&world.view());
            waiter.tell(["open", how, name]);
            world.await_waiting(name, place);
            waiters.push(waiter);
        }
        Self { holder, fd, waiters }
    }

    /// Lets everybody have a turn, in order.
    fn play(&mut self) {
        assert!(self.waiters.iter().all(Actor::is_busy), "a waiter was let in beside the holder");
        self.holder.write(self.fd, "x").unwrap();
        self.holder.close(self.fd);
        let mut waiters = self.waiters.iter_mut();
        while let Some(waiter) = waiters.next() {
            let fd = waiter.opened();
            if let Some(next) = waiters.as_slice().first()
                && waiters.len() == 1
            {
                assert!(next.is_busy(), "the last writer waits for the readers");
            }
            waiter.close(fd);
        }
    }
}

/// Waits until the new broker knows all that the former one knew.
fn reclaimed(world: &World, before: &Board) -> Board {
    wait_for(SOON, "everybody has reclaimed", || {
        let board = world.board();
        (board.locks.len() == before.locks.len()).then_some(board)
    })
}

/// What must be the same after a restart: who holds what by which token, who waits, in which order.
fn essence(board: &Board) -> Vec<String> {
    let mut locks: Vec<&Lock> = board.locks.iter().collect();
    locks.sort_by_key(|lock| (&lock.path, lock.ticket));
    let line = |lock: &&Lock| {
        let Lock { path, state, mode, pid, token, .. } = lock;
        format!("{path} {state} {mode} {pid:?} {token:?}")
    };
    locks.iter().map(line).collect()
}

/// All clients went down with the machine, by another boot than the broker's now: nobody is waited
/// for.
#[test]
fn after_a_reboot_turns_are_taken_at_once_where_all_clients_were_on_the_machine() {
    let mut world = World::bare();
    world.start_broker([""; 0]);
    let [source, view, state] = [world.source(), world.view(), world.state()];
    let by_its_socket = ["--state-dir".as_ref(), state.as_os_str()];
    world.mount(&source, &view, by_its_socket);
    world.seed("f", "");
    let mut before = world.actor(&view);
    before.open("w", "f");
    world.kill_broker();
    world.server_of(&view).signal(Signal::KILL);
    before.leave();
    world.bury(&view);
    let reboot = "sqlite3 \"$0\" \"update run set boot = 'a former one'\"";
    world.script(&state, reboot).args(["journal.sqlite"]).run().success();
    world.start_broker([""; 0]);
    let status = world.gate(["status", "--json"]).run().success();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["broker"]["in_grace"], false, "{status}");
    world.mount(&source, &view, by_its_socket);
    let mut after = world.actor(&view);
    let fd = after.open("w", "f");
    after.close(fd);
}

#[test]
fn a_hold_that_begins_while_the_broker_is_away_waits_for_it_if_it_may() {
    let mut world = World::new();
    world.seed("f", "");
    let view = world.view();
    world.kill_broker();
    let hold = |flags: &[&str]| {
        let words = [&["hold"], flags, &["f", "--", "sh", "-c", "echo in"]].concat();
        world.gate(words).dir(&view)
    };
    for at_once in [&["-n"][..], &["-w", "0"], &["-w", "50ms"]] {
        let outcome = hold(at_once).run();
        assert_eq!(outcome.code, Some(2), "{outcome}");
        assert!(outcome.refusal().contains("cannot reach the broker"));
    }
    let [waits, ends] = [(); 2].map(|()| hold(&[]).start());
    let looks = |hold: &Running| kernel::is_in_call(hold.pid(), libc::SYS_futex);
    wait_until(SOON, "they look for it", || looks(&waits) && looks(&ends));
    ends.signal(Signal::INT);
    assert_eq!(ends.finish(SOON).code, Some(130));
    world.start_broker([""; 0]);
    assert_eq!(waits.finish(SOON).success(), "in\n");
}
