//! Givers of turns, and how they are timed.

use std::io;
use std::process::Child;
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use super::sample::Samples;

/// How long servers may take to answer, and waiters to stand in line.
const PREPARED_WITHIN: Duration = Duration::from_secs(20);

/// Something that gives turns.
pub trait Peer {
    /// What it is called in the table.
    fn name(&self) -> &'static str;

    /// Connects a client that takes something of its own, told from others' by `number`.
    fn client(&self, number: u64) -> io::Result<Box<dyn Client>>;

    /// Lets so many writers queue for one thing and hands it on from one to the next; returns how
    /// long each hand-off took, from the release to the next one's yes. Nothing, if it has no line.
    fn hand_offs(&self, waiters: u64) -> io::Result<Vec<Duration>>;
}

/// One client of a giver of turns.
pub trait Client: Send {
    /// Waits for its turn.
    fn take(&mut self) -> io::Result<()>;

    /// Gives it back.
    fn give_back(&mut self) -> io::Result<()>;
}

/// What some clients did together.
pub struct Rate {
    pub pairs_per_second: f64,
    pub times: Vec<Duration>,
}

/// Lets all clients take and give back for so long, each in a thread of its own.
pub fn rate(clients: Vec<Box<dyn Client>>, span: Duration) -> io::Result<Rate> {
    let start = Barrier::new(clients.len());
    let shares = std::thread::scope(|scope| {
        let spawn = |client| scope.spawn(|| pairs(client, &start, span));
        let threads: Vec<_> = clients.into_iter().map(spawn).collect();
        threads.into_iter().map(joined).collect::<io::Result<Vec<Share>>>()
    })?;
    // Not the span: where threads wait for a core, the last begins late.
    let began = shares.iter().map(|share| share.began).min();
    let ended = shares.iter().map(|share| share.ended).max();
    let took = began.zip(ended).map_or(span, |(began, ended)| ended - began);
    let times: Vec<Duration> = shares.into_iter().flat_map(|share| share.times).collect();
    Ok(Rate { pairs_per_second: times.len() as f64 / took.as_secs_f64(), times })
}

/// What one client did.
struct Share {
    began: Instant,
    ended: Instant,
    times: Vec<Duration>,
}

fn pairs(mut client: Box<dyn Client>, start: &Barrier, span: Duration) -> io::Result<Share> {
    let mut times = Vec::new();
    start.wait();
    let began = Instant::now();
    while began.elapsed() < span {
        let pair = Instant::now();
        client.take()?;
        client.give_back()?;
        times.push(pair.elapsed());
    }
    Ok(Share { began, ended: Instant::now(), times })
}

/// Hands one thing on among clients that block in threads of their own. `holder` has it first;
/// `lined_up` tells whether all others wait for it.
pub fn hand_on<C: Client>(
    mut holder: C,
    waiters: Vec<C>,
    lined_up: impl FnMut() -> io::Result<bool>,
) -> io::Result<Vec<Duration>> {
    let released = Mutex::new((Instant::now(), Vec::new()));
    let stamp = || released.lock().unwrap_or_else(PoisonError::into_inner);
    holder.take()?;
    std::thread::scope(|scope| {
        let wait = |mut waiter: C| {
            waiter.take()?;
            let taken = Instant::now();
            let mut stamp = stamp();
            let since = stamp.0;
            stamp.1.push(taken - since);
            stamp.0 = Instant::now();
            drop(stamp);
            waiter.give_back()
        };
        let spawn = |waiter| scope.spawn(move || wait(waiter));
        let threads: Vec<_> = waiters.into_iter().map(spawn).collect();
        let waited = wait_for("all stand in line", lined_up);
        stamp().0 = Instant::now();
        holder.give_back()?;
        waited.and(threads.into_iter().try_for_each(joined))
    })?;
    Ok(released.into_inner().unwrap_or_else(PoisonError::into_inner).1)
}

/// Waits for something that no event tells of.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let started = Instant::now();
    while !is_so()? {
        if started.elapsed() > PREPARED_WITHIN {
            return Err(io::Error::other(format!("not so: {what}")));
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    Ok(())
}

/// Waits for what a server brings about.
pub fn await_event(
    server: &mut Child,
    what: &str,
    mut is_so: impl FnMut() -> bool,
) -> io::Result<()> {
    wait_for(what, || match server.try_wait()? {
        None => Ok(is_so()),
        Some(status) => Err(io::Error::other(format!("its server ended: {status}"))),
    })
}

/// Returns the median of some rounds' paces.
pub fn median_pace(mut paces: Vec<f64>) -> f64 {
    paces.sort_unstable_by(f64::total_cmp);
    paces.get(paces.len() / 2).copied().unwrap_or_default()
}

/// Sorts times.
pub fn samples(mut times: Vec<Duration>) -> Samples {
    times.sort_unstable();
    Samples(times)
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
