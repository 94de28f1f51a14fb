//! A client with nothing to wait for: how long does it wait all the same?

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::bench::peer::{Client, Peer, samples};
use crate::bench::pong::Pong;
use crate::bench::sample::{print_row, show};
use crate::bench::turns::Gate;

/// What only the probe takes.
const OWN: u64 = u64::MAX - 1;

/// Asks the broker, and in turn with it somebody who has nothing to decide: what the machine
/// itself lets wait shows in both.
pub struct Probe<'a> {
    pub gate: &'a Gate,
    pub pong: &'a Pong,
}

impl Probe<'_> {
    /// Times grants while `work` goes on, and prints them.
    pub fn during(&self, what: &str, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let over = AtomicBool::new(false);
        let mut turns = self.gate.client(OWN)?;
        let mut pings = self.pong.client(OWN)?;
        let (worked, timed) = std::thread::scope(|scope| {
            let probing = scope.spawn(|| {
                let mut times = [Vec::new(), Vec::new()];
                while !over.load(Ordering::Relaxed) {
                    times[0].push(take(&mut *turns)?);
                    times[1].push(take(&mut *pings)?);
                }
                io::Result::Ok(times)
            });
            let worked = work();
            over.store(true, Ordering::Relaxed);
            (worked, probing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        worked?;
        let [grants, pings] = timed?.map(samples);
        let [median, late] = [grants.median(), grants.percentile(99)].map(show);
        let [latest, worst] = [grants.per_mille(999), grants.per_mille(1_000)].map(show);
        print_row(&[what, &median, &late, &latest, &worst, &show(pings.per_mille(1_000))]);
        Ok(())
    }
}

fn take(client: &mut dyn Client) -> io::Result<Duration> {
    let asked = Instant::now();
    client.take()?;
    let took = asked.elapsed();
    client.give_back()?;
    Ok(took)
}
