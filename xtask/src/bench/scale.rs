//! A broker with a crowd at its doors: does it ever pause, and what does each of them cost?

mod crowd;
mod probe;

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use gate_api::QueryError;
use gate_api::wire::Scope;
use gate_core::path::ViewPath;

use super::home::{Broker, Home};
use super::peer::samples;
use super::pong::Pong;
use super::process::{mebibytes, resident_bytes};
use super::sample::{print_heads, print_row, show};
use super::turns::{Gate, Turns};
use crate::step::Failure;
use crowd::Crowd;
use probe::Probe;

const SESSIONS: u32 = 1_000;
/// Locks held, each on a path of its own; then those that wait for one path besides.
const HELD: [usize; 3] = [10_000, 50_000, 100_000];
const WAITING: [usize; 3] = [1_000, 5_000, 10_000];
const HAND_OFFS: usize = 2_000;
/// Who follow every change.
const WATCHERS: usize = 4;
/// How long things go on while grants are timed.
const SPAN: Duration = Duration::from_secs(4);
/// How long a member of the crowd may be silent: longer than all of this takes.
const LEASE: Duration = Duration::from_secs(600);
/// The same for a crowd that is to vanish, and for how long its end is watched.
const LEASE_SHORT: Duration = Duration::from_secs(20);
const SPAN_OF_LEASES: Duration = Duration::from_secs(22);
/// How long who follows all changes waits for one.
const NEWS_PATIENCE: Duration = Duration::from_secs(1);

/// Measures and prints.
pub fn run(home: &Home) -> Result<(), Failure> {
    let broker = home.start_broker("scale")?;
    let fail = |error| Failure::new("cannot measure a broker under load", error);
    crowd::raise_descriptor_limit().map_err(fail)?;
    let mut crowd = gather(&broker).map_err(fail)?;
    print_hand_offs(&mut crowd).map_err(fail)?;
    let pong = Pong::start(home.at("scale-pong")).map_err(fail)?;
    print_pauses(&broker, &pong, crowd).map_err(fail)
}

/// Lets the crowd grow, and prints what the broker needs for it.
fn gather(broker: &Broker) -> io::Result<Crowd> {
    println!();
    print_heads(&["standing at the broker", "memory", "each more"]);
    let mut memory = resident_bytes(broker.pid())?;
    print_row(&["nobody", &mebibytes(memory), ""]);
    let mut tell = |name: String, more: usize| {
        let before = std::mem::replace(&mut memory, resident_bytes(broker.pid())?);
        let each = memory.saturating_sub(before) / more;
        print_row(&[&name, &mebibytes(memory), &format!("{each} B")]);
        io::Result::Ok(())
    };
    let mut crowd = Crowd::of(SESSIONS, &broker.state_dir, LEASE)?;
    tell(format!("{SESSIONS} sessions"), SESSIONS as usize)?;
    let mut held = 0;
    for count in HELD {
        crowd.hold(count)?;
        tell(format!("and {count} held locks"), count - held)?;
        held = count;
    }
    let mut waiting = 0;
    for count in WAITING {
        crowd.queue(count)?;
        tell(format!("and {count} waiters"), count - waiting)?;
        waiting = count;
    }
    println!();
    Ok(crowd)
}

fn print_hand_offs(crowd: &mut Crowd) -> io::Result<()> {
    let title = format!("hand-off to the next of {}", WAITING[WAITING.len() - 1]);
    print_heads(&[&title, "p50", "p99", "worst"]);
    let times = samples(hand_offs(crowd)?);
    let cells = [times.median(), times.percentile(99), times.percentile(100)].map(show);
    print_row(&["", &cells[0], &cells[1], &cells[2]]);
    println!();
    Ok(())
}

fn hand_offs(crowd: &mut Crowd) -> io::Result<Vec<Duration>> {
    (0..HAND_OFFS).map(|_| crowd.hand_on()).collect()
}

/// Prints how long others wait for a grant of what nobody else wants.
fn print_pauses(broker: &Broker, pong: &Pong, mut crowd: Crowd) -> io::Result<()> {
    let gate = Gate::at(broker.state_dir.clone());
    let probe = Probe { gate: &gate, pong };
    print_heads(&["a grant while", "p50", "p99", "p99.9", "worst", "worst ping"]);
    let rest = |span| {
        park_timeout(span);
        Ok(())
    };
    probe.during("nothing else happens", || rest(SPAN))?;
    probe.during("turns are handed on", || hand_offs(&mut crowd).map(drop))?;
    probe.during("`locks` and `why` are asked", || ask(broker))?;
    probe.during(&format!("handed on, {WATCHERS} watch"), || {
        watched(broker, || hand_offs(&mut crowd).map(drop))
    })?;
    probe.during("handed on, nothing can be logged", || {
        unlogged(broker, || hand_offs(&mut crowd).map(drop))
    })?;
    probe.during(&format!("{SESSIONS} say good-bye at once"), || {
        crowd.say_goodbye();
        rest(SPAN)
    })?;
    let mut crowd = Crowd::of(SESSIONS, &broker.state_dir, LEASE_SHORT)?;
    crowd.hold(HELD[HELD.len() - 1])?;
    crowd.queue(WAITING[WAITING.len() - 1])?;
    probe.during(&format!("{SESSIONS} vanish, their leases end"), || {
        drop(crowd);
        rest(SPAN_OF_LEASES)
    })
}

/// Asks for all there is, and for all about the root, over and over.
fn ask(broker: &Broker) -> io::Result<()> {
    let asker = Turns::connect(&broker.state_dir, 0)?;
    let root = Scope::Within { space: asker.space_name.clone(), path: ViewPath::root() };
    let started = Instant::now();
    while started.elapsed() < SPAN {
        let no_answer = |error: QueryError| io::Error::other(error);
        asker.session.locks(&Scope::Everything, None, SPAN).map_err(no_answer)?;
        asker.session.why(root.clone()).map_err(no_answer)?;
    }
    Ok(())
}

/// Does `work` while somebody else has the log, so that all that happens waits to be written.
fn unlogged(broker: &Broker, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let mut sqlite = Command::new("sqlite3")
        .arg(broker.state_dir.join("audit.sqlite"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = sqlite.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let said = sqlite.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    writeln!(line, "PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE; SELECT 'mine';")?;
    let is_had = BufReader::new(said).lines().map_while(Result::ok).any(|said| said == "mine");
    let worked = if is_had { work() } else { Err(io::Error::other("cannot lock the log")) };
    drop(line); // It ends, and gives the log back.
    sqlite.wait()?;
    worked
}

/// Does `work` while some follow all that changes, as `gate locks --watch` does.
fn watched(broker: &Broker, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..WATCHERS {
            let watcher = Turns::connect(&broker.state_dir, 0)?;
            let over = &over;
            scope.spawn(move || {
                let mut version = None;
                while !over.load(Ordering::Relaxed) {
                    let locks = watcher.session.locks(&Scope::Everything, version, NEWS_PATIENCE);
                    version = locks.map_or(version, |locks| Some(locks.version));
                }
            });
        }
        let worked = work();
        over.store(true, Ordering::Relaxed);
        worked
    })
}
