//! What goes wrong: each life has its own selection of troubles, so that each meets the others in
//! many mixtures.

use std::time::Duration;

use gate_api::wire::Query;
use gate_core::time::Time;

use super::caller::Caller;
use super::client::Client;
use super::host::{Crash, Host};
use super::scene::{Scene, Wake};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// A connection breaks.
    Break,
    /// A connection to another machine falls silent.
    Dark,
    /// A client's process is killed.
    Death,
    /// A client sleeps.
    Sleep,
    /// A client sleeps for longer than its lease.
    LongSleep,
    /// The broker's process is killed.
    Crash,
    /// The broker's process is killed in the middle of its next turn.
    CrashWithin,
    /// The broker's machine goes down.
    PowerLoss,
    /// The broker sleeps.
    Stall,
    /// Somebody finds that a holder waits for whom it blocks.
    Kin,
    /// A person ends a lock.
    Broken,
    /// The broker's disk is full.
    FullDisk,
    /// The broker's machine sleeps, and all who are on it.
    Suspend,
}

const TROUBLES: [Trouble; 10] = [
    Trouble::Break,
    Trouble::Dark,
    Trouble::Death,
    Trouble::Sleep,
    Trouble::Crash,
    Trouble::CrashWithin,
    Trouble::PowerLoss,
    Trouble::Stall,
    Trouble::Kin,
    Trouble::Broken,
];

pub struct Fate {
    troubles: Vec<Trouble>,
    /// The longest peace between two troubles.
    peace_ms: usize,
}

impl Fate {
    pub fn new(scene: &mut Scene) -> Fate {
        let chance = &mut scene.chance;
        let troubles: Vec<Trouble> = TROUBLES.into_iter().filter(|_| chance.one_in(2)).collect();
        let peace_ms = *chance.pick(&[200, 1_000, 4_000]);
        scene.note(|| format!("fate: {troubles:?}"));
        Fate { troubles, peace_ms }
    }

    /// As [`Fate::new`], on a disk that is full now and then.
    pub fn of_full_disks(scene: &mut Scene) -> Fate {
        let mut fate = Fate::new(scene);
        fate.troubles.push(Trouble::FullDisk);
        fate
    }

    /// The same, on a machine that may sleep.
    pub fn with_sleep(mut self, scene: &mut Scene) -> Fate {
        self.troubles.extend(scene.chance.one_in(2).then_some(Trouble::Suspend));
        self
    }

    /// Clients sleep for longer than their lease, and the end of that is lost with the power.
    pub fn of_forgetting() -> Fate {
        Fate { troubles: vec![Trouble::LongSleep, Trouble::PowerLoss], peace_ms: 4_000 }
    }

    /// Lets one thing go wrong.
    pub fn strike(
        &self,
        host: &mut Host,
        (clients, callers): (&mut [Client], &mut [Caller]),
        scene: &mut Scene,
    ) {
        let next = scene.now + scene.chance.millis(1..self.peace_ms);
        scene.wake(next, Wake::Fate);
        if self.troubles.is_empty() {
            return;
        }
        let trouble = *scene.chance.pick(&self.troubles);
        let victim = scene.chance.below(clients.len() + callers.len());
        if let Some(caller) = victim.checked_sub(clients.len())
            && trouble.befall(&mut callers[caller], scene)
        {
            return;
        }
        let victim = victim % clients.len();
        match trouble {
            Trouble::Break => {
                if let Some(line) = clients[victim].line() {
                    scene.note(|| format!("fate: {} breaks", line.0));
                    scene.break_off(line);
                }
            }
            Trouble::Dark => {
                if let Some(line) = clients[victim].line().filter(|_| clients[victim].remote) {
                    scene.note(|| format!("fate: {} falls silent", line.0));
                    scene.net.darken(line);
                }
            }
            Trouble::Death => kill(&mut clients[victim], host, scene),
            Trouble::Sleep => {
                let until = scene.now + nap(scene);
                scene.note(|| format!("fate: c{victim} sleeps until {until:?}"));
                clients[victim].stall(until);
            }
            Trouble::LongSleep => {
                let until = scene.now + scene.chance.millis(2_000..15_000);
                clients[victim].stall(until);
            }
            Trouble::Crash => host.die(scene),
            Trouble::CrashWithin => host.doom(crash_point(scene)),
            Trouble::PowerLoss if host.is_up() => cut_power(host, clients, callers, scene),
            Trouble::PowerLoss => {}
            Trouble::Suspend => suspend(host, clients, callers, scene),
            Trouble::Stall => {
                let until = scene.now + nap(scene);
                scene.note(|| format!("fate: the broker sleeps until {until:?}"));
                host.stall(until);
            }
            Trouble::FullDisk => {
                let until = scene.now + nap(scene);
                scene.note(|| format!("fate: the disk is full until {until:?}"));
                host.fill_disk(until);
            }
            Trouble::Kin => {
                let draw = scene.chance.below(1_000_000);
                if let Some((waiter, holder)) = scene.oracle.possible_kin(|count| draw % count) {
                    host.told_of_kin(scene, waiter, holder);
                }
            }
            Trouble::Broken => end_a_lock(&mut clients[victim], scene),
        }
    }
}

impl Trouble {
    /// Strikes a caller, if it is a trouble that callers have.
    fn befall(self, caller: &mut Caller, scene: &mut Scene) -> bool {
        match self {
            Trouble::Break => caller.break_off(scene),
            Trouble::Death if !caller.is_off() => {
                let reborn = scene.now + scene.chance.millis(1..8_000);
                caller.die(scene, reborn);
            }
            Trouble::Sleep => {
                let until = scene.now + nap(scene);
                caller.stall(until);
            }
            _ => return false,
        }
        true
    }
}

/// The broker's machine goes down, with all who are on it.
fn cut_power(host: &mut Host, clients: &mut [Client], callers: &mut [Caller], scene: &mut Scene) {
    host.lose_power(scene);
    for client in clients.iter_mut().filter(|client| !client.remote) {
        let reborn = scene.now + scene.chance.millis(100..5_000);
        client.die(scene, Some(reborn));
    }
    for caller in callers {
        let reborn = scene.now + scene.chance.millis(100..5_000);
        caller.die(scene, reborn);
    }
    scene.post.lose_all();
}

/// The broker's machine sleeps for a while, with all who are on it.
fn suspend(host: &mut Host, clients: &mut [Client], callers: &mut [Caller], scene: &mut Scene) {
    let until = scene.now + nap(scene);
    scene.note(|| format!("fate: the broker's machine sleeps until {until:?}"));
    host.sleep(scene.now, until);
    let here = clients.iter_mut().filter(|client| !client.remote);
    here.for_each(|client| client.stall(until));
    callers.iter_mut().for_each(|caller| caller.stall(until));
}

/// A person breaks or recalls something, by way of a client of the broker's machine.
fn end_a_lock(client: &mut Client, scene: &mut Scene) {
    let held = scene.oracle.held_tickets();
    if held.is_empty() || client.remote {
        return;
    }
    let ticket = *scene.chance.pick(&held);
    let (ticket, reason) = (ticket.0, "fate".to_owned());
    let query = match scene.chance.one_in(2) {
        true => Query::Break { ticket, reason },
        false => {
            let within = scene.chance.millis(1..2_000);
            Query::Recall { ticket, reason, within }
        }
    };
    client.order(query, scene);
}

/// The kernel tells the broker of a death that it can see.
fn kill(client: &mut Client, host: &mut Host, scene: &mut Scene) {
    if client.is_off() {
        return;
    }
    let reborn = scene.now + scene.chance.millis(1..8_000);
    let dark = client.line().filter(|_| client.remote && scene.chance.one_in(2));
    if let Some(line) = dark {
        // Its machine went with it.
        scene.net.darken(line);
    }
    let session = client.die(scene, Some(reborn));
    let seen = !client.remote && scene.chance.one_in(2);
    if let Some(session) = session.filter(|_| seen) {
        let at: Time = scene.now + scene.chance.millis(0..20);
        host.learns_of_death(at, session);
        scene.wake(at, Wake::Broker);
    }
}

fn crash_point(scene: &mut Scene) -> Crash {
    match scene.chance.below(4) {
        0 => Crash::BeforeCommit,
        1 => Crash::AfterCommit,
        _ => Crash::AfterLetters(1 + scene.chance.below(3)),
    }
}

fn nap(scene: &mut Scene) -> Duration {
    match scene.chance.below(4) {
        0 => scene.chance.millis(2_000..45_000),
        1 => scene.chance.millis(200..2_000),
        _ => scene.chance.millis(1..200),
    }
}
