//! The broker's pace: acquire and release, beside a bare ping-pong of the same two round trips.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::places::Places;
use super::sample::{Samples, print_heads, print_row, show};
use super::turns::{self, Turns};
use crate::step::Failure;

const CLIENTS: [usize; 3] = [1, 8, 64];
/// Writers that wait for one file, and how often they are let through.
const QUEUED: u64 = 32;
const HAND_OFF_ROUNDS: usize = 50;
const SPAN: Duration = Duration::from_secs(2);
const MESSAGE: [u8; 64] = [b'x'; 64];

/// One client of something that takes and gives back.
pub trait Client: Send {
    /// Takes and gives back once: two round trips.
    fn pair(&mut self) -> std::io::Result<()>;
}

/// Measures and prints.
pub fn run(places: &Places) -> Result<(), Failure> {
    let fail = |error| Failure::new("cannot measure a ping-pong", error);
    let socket = places.beside("pong");
    let listener = UnixListener::bind(&socket).map_err(fail)?;
    std::thread::spawn(move || serve_pong(&listener));
    println!();
    print_heads(&["two round trips", "pairs/s", "median", "p99"]);
    for count in CLIENTS {
        let clients = (0..count).map(|_| Ping::connect(&socket)).collect::<Result<Vec<_>, _>>();
        let pong = rate(clients.map_err(fail)?).map_err(fail)?;
        pong.print(&format!("ping-pong, {count} clients"));
        let state = places.beside("state");
        let clients = (0..count as u64).map(|number| Turns::connect(&state, number));
        let clients = clients.collect::<Result<Vec<_>, _>>().map_err(fail)?;
        let turns = rate(clients).map_err(fail)?;
        turns.print(&format!("acquire+release, {count} clients"));
        println!("  ratio {:.2}", turns.pairs_per_second / pong.pairs_per_second);
    }
    let mut times = Vec::new();
    for _ in 0..HAND_OFF_ROUNDS {
        times.extend(turns::hand_offs(&places.beside("state"), QUEUED).map_err(fail)?);
    }
    times.sort_unstable();
    let times = Samples(times);
    let (median, late) = (show(times.median()), show(times.percentile(99)));
    println!("hand-off to the next of {QUEUED} queued writers: median {median}, p99 {late}");
    Ok(())
}

/// What some clients did together.
struct Rate {
    pairs_per_second: f64,
    times: Samples,
}

impl Rate {
    fn print(&self, name: &str) {
        let cells = [
            format!("{:.0}", self.pairs_per_second),
            show(self.times.median()),
            show(self.times.percentile(99)),
        ];
        let cells = std::iter::once(name).chain(cells.iter().map(String::as_str));
        print_row(&cells.collect::<Vec<_>>());
    }
}

/// Lets all clients do pairs for a while, each in a thread of its own.
fn rate<C: Client>(clients: Vec<C>) -> std::io::Result<Rate> {
    let start = Barrier::new(clients.len());
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> =
            clients.into_iter().map(|client| scope.spawn(|| pairs(client, &start))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<std::io::Result<Vec<Vec<Duration>>>>()
    })?;
    let mut times = times.concat();
    times.sort_unstable();
    Ok(Rate { pairs_per_second: times.len() as f64 / SPAN.as_secs_f64(), times: Samples(times) })
}

fn pairs(mut client: impl Client, start: &Barrier) -> std::io::Result<Vec<Duration>> {
    let mut times = Vec::new();
    start.wait();
    let started = Instant::now();
    while started.elapsed() < SPAN {
        let pair = Instant::now();
        client.pair()?;
        times.push(pair.elapsed());
    }
    Ok(times)
}

struct Ping {
    stream: UnixStream,
}

impl Ping {
    fn connect(socket: &Path) -> std::io::Result<Self> {
        UnixStream::connect(socket).map(|stream| Self { stream })
    }
}

impl Client for Ping {
    fn pair(&mut self) -> std::io::Result<()> {
        for _ in 0..2 {
            self.stream.write_all(&MESSAGE)?;
            self.stream.read_exact(&mut [0; MESSAGE.len()])?;
        }
        Ok(())
    }
}

/// One thread answers all, as the broker does.
fn serve_pong(listener: &UnixListener) {
    let mut streams: Vec<UnixStream> = Vec::new();
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        fds.extend(streams.iter().map(|s| PollFd::from_borrowed_fd(s.as_fd(), PollFlags::IN)));
        if poll(&mut fds, None).is_err() {
            return;
        }
        let is_ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = is_ready.iter().skip(1);
        streams.retain(|stream| !ready.next().copied().unwrap_or(false) || pong(stream).is_ok());
        if is_ready[0] {
            streams.extend(listener.accept().map(|(stream, _)| stream));
        }
    }
}

fn pong(mut stream: &UnixStream) -> std::io::Result<()> {
    let mut message = MESSAGE;
    stream.read_exact(&mut message)?;
    stream.write_all(&message)
}
