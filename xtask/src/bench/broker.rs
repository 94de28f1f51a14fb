//! The price of a turn: the broker, beside a bare ping-pong of the same two round trips, beside
//! `flock(2)` and beside etcd.

use std::path::Path;
use std::time::Duration;

use super::etcd::Etcd;
use super::flock::Flock;
use super::home::Home;
use super::peer::{Peer, median_pace, rate, samples};
use super::pong::Pong;
use super::sample::{Samples, print_heads, print_row, show};
use super::turns::Gate;
use crate::step::Failure;

const CLIENTS: [u64; 3] = [1, 8, 64];
/// Writers that wait for one file.
const QUEUED: u64 = 32;
/// How often each has its round, and for how long.
const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_millis(500);
/// How often the line is let through.
const HAND_OFF_ROUNDS: usize = 10;
/// Where a disk costs nothing.
const MEMORY: &str = "/dev/shm";

/// Measures and prints.
pub fn run(home: &Home) -> Result<(), Failure> {
    let fail = |error| Failure::new("cannot start what the broker is compared with", error);
    let pong = Pong::start(home.at("pong")).map_err(fail)?;
    let gate = Gate::at(home.state_dir());
    let flock = Flock::new(home.make_dir("flock")?);
    let etcd = Etcd::start("etcd, 1 server", &home.at("run")).map_err(fail)?;
    let memory = Etcd::start("etcd, data in memory", Path::new(MEMORY)).map_err(fail)?;
    let peers: [&dyn Peer; 5] = [&gate, &pong, &flock, &etcd, &memory];
    println!();
    for clients in CLIENTS {
        let title = format!("take and give back, {clients} clients");
        print_heads(&[&title, "pairs/s", "median", "p99", "gate/this"]);
        print_rates(&measure_rates(&peers, clients)?);
        println!();
    }
    let title = format!("hand-off to the next of {QUEUED}");
    print_heads(&[&title, "median", "p99", "this/gate"]);
    print_hand_offs(&measure_hand_offs(&peers)?);
    Ok(())
}

/// What one did in all its rounds.
struct Pace {
    name: &'static str,
    pairs_per_second: f64,
    times: Samples,
}

fn measure_rates(peers: &[&dyn Peer], clients: u64) -> Result<Vec<Pace>, Failure> {
    let mut rounds: Vec<Vec<_>> = peers.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (peer, rounds) in peers.iter().zip(&mut rounds) {
            let fail = |error| Failure::new(format!("cannot measure {}", peer.name()), error);
            let clients = (0..clients).map(|number| peer.client(number));
            let clients = clients.collect::<Result<Vec<_>, _>>().map_err(fail)?;
            rounds.push(rate(clients, SPAN).map_err(fail)?);
        }
    }
    let pace = |(peer, rounds): (&&dyn Peer, Vec<super::peer::Rate>)| Pace {
        name: peer.name(),
        pairs_per_second: median_pace(rounds.iter().map(|rate| rate.pairs_per_second).collect()),
        times: samples(rounds.into_iter().flat_map(|rate| rate.times).collect()),
    };
    Ok(peers.iter().zip(rounds).map(pace).collect())
}

fn print_rates(paces: &[Pace]) {
    let gate = paces.first().map_or(0.0, |pace| pace.pairs_per_second);
    for Pace { name, pairs_per_second, times } in paces {
        print_row(&[
            name,
            &format!("{pairs_per_second:.0}"),
            &show(times.median()),
            &show(times.percentile(99)),
            &format!("{:.2}×", gate / pairs_per_second),
        ]);
    }
}

fn measure_hand_offs(peers: &[&dyn Peer]) -> Result<Vec<(&'static str, Samples)>, Failure> {
    let mut times: Vec<Vec<Duration>> = peers.iter().map(|_| Vec::new()).collect();
    for _ in 0..HAND_OFF_ROUNDS {
        for (peer, times) in peers.iter().zip(&mut times) {
            let fail = |error| Failure::new(format!("cannot measure {}", peer.name()), error);
            times.extend(peer.hand_offs(QUEUED).map_err(fail)?);
        }
    }
    Ok(peers.iter().zip(times).map(|(peer, times)| (peer.name(), samples(times))).collect())
}

fn print_hand_offs(rows: &[(&str, Samples)]) {
    let gate = rows.first().map_or(Duration::ZERO, |(_, times)| times.median());
    for (name, times) in rows.iter().filter(|(_, times)| !times.0.is_empty()) {
        let ratio = super::sample::ratio(times.median(), gate);
        print_row(&[name, &show(times.median()), &show(times.percentile(99)), &ratio]);
    }
}
