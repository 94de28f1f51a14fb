//! `gate hold`

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gate_api::session::{Party, Recall};
use gate_api::{Address, Answer, Ask, ClientInfo, Session, Watcher, process};
use gate_core::id::SpaceId;
use gate_core::lock::claim::{Label, Patience};
use gate_core::lock::event::{RecallCause, RecallStage, Refusal, Revocation};
use gate_core::lock::limits::TEXT_BYTES_MAX;
use gate_core::lock::want::{Access, Op, Place, Want};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::run::{cannot_run, name_of, prepare};
use crate::config::Settings;
use crate::duration;
use crate::failure::{Exit, Failure};
use crate::output::printable;
use crate::processes::AGENT_VARIABLE;
use crate::reach::{BrokerFlags, Unreached, Wanted};
use crate::seen::{About, Seen};
use crate::signals::{Received, Signals, unmasked};
use crate::told::revocation;

/// Signals that are for the command: it ends by them, and this process after it.
const PASSED_ON: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// Take paths, all or none, run a command, let go
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: the command's; 1 if somebody else holds it (-n), 124 if the \
    time ran out, 130 if interrupted, 2 if there is no view or no broker")]
pub struct Args {
    /// Files or directories in a gated view; they need not exist
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Share them with other readers
    #[arg(long)]
    read: bool,
    /// Fail at once if somebody else holds one of them
    #[arg(short = 'n', long = "nonblock", conflicts_with = "timeout")]
    nonblock: bool,
    /// Wait no longer than this, as in 30s, 500ms, 2m; a bare number is seconds
    #[arg(short = 'w', long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Exit status if somebody else holds one of them
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = 1)]
    conflict_exit_code: u8,
    /// Say why, to those who wait
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = reason)]
    reason: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What can happen while a hold waits or stands.
enum Event {
    Told(Answer),
    Recalled(Recall),
    Revoked(Revocation, String),
    Signalled(Received),
}

/// What is held, and where to hear of it.
struct Hold {
    session: Session,
    owner: u64,
    events: Receiver<Event>,
}

/// Tells of the one owner there is.
struct Ear(Sender<Event>);

impl Watcher for Ear {
    fn revoked(&self, _owner: u64, why: Revocation, reason: &str) {
        // Who no longer listens is ending.
        let _ = self.0.send(Event::Revoked(why, reason.to_owned()));
    }

    fn recalled(&self, _owner: u64, recall: &Recall) {
        let _ = self.0.send(Event::Recalled(recall.clone()));
    }

    fn contended(&self, _owner: u64) {}
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let (tell, events) = mpsc::channel();
        listen_to_signals(tell.clone())?;
        let mut seen = self.look()?;
        let address = one_broker(&seen)?;
        let name = format!("gate hold … -- {}", name_of(&self.command[0]));
        let ear = Arc::new(Ear(tell.clone()));
        let wanted = Wanted::find(&BrokerFlags::default(), &Settings::load()?)?;
        let (by, client) = (wanted.approach(address.clone()), ClientInfo::named(name));
        let session =
            Session::connect(by, client, ear).map_err(|error| Unreached { address, error })?;
        let mut hold = Hold { session, owner: 0, events };
        let mut attached = Vec::new();
        loop {
            let ask = self.ask(places(&hold.session, &mut attached, &seen)?);
            let tell = tell.clone();
            let told = move |answer| drop(tell.send(Event::Told(answer)));
            hold.owner = hold.session.acquire(ask, Box::new(told));
            if let Some(exit) = hold.await_turn(self.conflict_exit_code)? {
                return Ok(exit);
            }
            // Those who were first may have replaced a file: then this turn is on the one that
            // is gone, and others may be in line for the new one.
            let now = self.look()?;
            if seen.iter().map(|seen| seen.node).eq(now.iter().map(|now| now.node)) {
                break;
            }
            hold.session.release(hold.owner, None);
            seen = now;
        }
        let exit = hold.run(&self.command);
        hold.session.release(hold.owner, None);
        exit
    }

    fn look(&self) -> Result<Vec<Seen>, Failure> {
        self.paths.iter().map(|path| Seen::find(path)).collect()
    }

    fn ask(&self, places: Vec<Place>) -> Ask {
        let access = if self.read { Access::Read } else { Access::Write };
        let patience = match (self.nonblock, self.timeout) {
            (true, _) => Patience::Try,
            (false, Some(limit)) => Patience::Limited(limit),
            (false, None) => Patience::Endless,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let label = Label {
            owner: std::env::var(AGENT_VARIABLE).unwrap_or_default(),
            reason: self.reason.clone(),
            asked_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        };
        Ask {
            party: Party::Process(process::own()),
            caller: Some(process::own_call()),
            patience,
            read_wait: None,
            label,
            want: Want { op: Op::Hold(access), places },
        }
    }
}

impl Hold {
    /// Waits to be let in; otherwise says how this ends.
    fn await_turn(&self, conflict_exit_code: u8) -> Result<Option<Exit>, Failure> {
        while let Ok(event) = self.events.recv() {
            match event {
                Event::Told(Answer::Waiting { .. }) | Event::Recalled(_) => {}
                Event::Told(Answer::Granted(grant)) if grant.by_kin => {
                    self.session.release(grant.owner, None);
                    return Err(held_above());
                }
                Event::Told(Answer::Granted(_)) => return Ok(None),
                Event::Told(Answer::Refused(Refusal::WouldBlock)) => {
                    return Ok(Some(Exit::Code(conflict_exit_code)));
                }
                Event::Told(Answer::Refused(Refusal::TimedOut)) => return Ok(Some(Exit::TimedOut)),
                Event::Told(Answer::Refused(why)) => return Err(not_let_in(why)),
                Event::Told(Answer::BrokerGone) | Event::Told(Answer::Ungated) => {
                    return Err(broker_gone());
                }
                Event::Revoked(why, reason) => return Err(lost(why, &reason)),
                Event::Signalled(Received { signal: Signal::CHILD, .. }) => {}
                Event::Signalled(Received { signal, .. }) => {
                    self.session.withdraw(self.owner, Refusal::Interrupted);
                    return Ok(Some(by_signal(signal)));
                }
            }
        }
        Err(broker_gone())
    }

    /// Runs the command to its end. What it starts stays below this process, and so may open
    /// what is held, however it detaches itself.
    fn run(&self, command: &[OsString]) -> Result<Exit, Failure> {
        let cannot = |error| cannot_run(command, &error);
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|errno| cannot(errno.into()))?;
        let child = unmasked(&mut prepare(command)).spawn().map_err(cannot)?;
        let mut outcome = None;
        while let Ok(event) = self.events.recv() {
            match event {
                Event::Told(_) => {}
                Event::Recalled(recall) => eprintln!("gate hold: {}", recalled(&recall)),
                Event::Revoked(why, reason) => outcome = Some(lost(why, &reason).report()),
                Event::Signalled(Received { signal: Signal::CHILD, .. }) => {
                    if let Some(exit) = reap(&child) {
                        return Ok(outcome.unwrap_or(exit));
                    }
                }
                // The terminal has told the command already.
                Event::Signalled(Received { by_kernel: true, .. }) => {}
                Event::Signalled(Received { signal, .. }) => {
                    // It may have ended just now; then its end is on the way.
                    let _ = rustix::process::kill_process(Pid::from_child(&child), signal);
                }
            }
        }
        Err(broker_gone())
    }
}

/// Hears signals on a thread of its own; before any other thread starts.
fn listen_to_signals(tell: Sender<Event>) -> Result<(), Failure> {
    let kept: Vec<Signal> = PASSED_ON.into_iter().chain([Signal::CHILD]).collect();
    let signals = Signals::keep(&kept)
        .map_err(|error| Failure::new("cannot listen to signals", error, "try again"))?;
    std::thread::spawn(move || {
        while let Ok(received) = signals.next() {
            if tell.send(Event::Signalled(received)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// All that is taken at once is decided by one broker.
fn one_broker(seen: &[Seen]) -> Result<Address, Failure> {
    let mut addresses = seen.iter().map(|seen| seen.about.address());
    let first = addresses.next().expect("clap demands a path");
    match addresses.find(|other| *other != first) {
        None => Ok(first),
        Some(other) => Err(Failure::new(
            "cannot take all of that at once",
            format!("some is decided by {first}, some by {other}"),
            "use one `gate hold` for each broker",
        )
        .exit(Exit::Unable)),
    }
}

/// Attaches the source of each view once, and says where the paths lie in them.
fn places(
    session: &Session,
    attached: &mut Vec<(About, SpaceId)>,
    seen: &[Seen],
) -> Result<Vec<Place>, Failure> {
    let mut places = Vec::new();
    for Seen { about, path, node, .. } in seen {
        let known = attached.iter().find(|(other, _)| other.source == about.source);
        let space = match known {
            Some((_, space)) => *space,
            None => {
                let space = about.attach(session)?.space;
                attached.push((about.clone(), space));
                space
            }
        };
        places.push(Place { space, path: Some(path.clone()), node: *node });
    }
    Ok(places)
}

/// Collects who ended; says how the command did if it is among them.
fn reap(command: &Child) -> Option<Exit> {
    let command = Pid::from_child(command);
    let mut exit = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == command {
            exit = Some(exit_of(status));
        }
    }
    exit
}

fn exit_of(status: WaitStatus) -> Exit {
    let number = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(number(code)),
        (None, signal) => Exit::Signal(signal.map_or(0, number)),
    }
}

fn by_signal(signal: Signal) -> Exit {
    Exit::Signal(u8::try_from(signal.as_raw()).unwrap_or(0))
}

/// Who was let in by kin is followed by nobody: the command would wait for this hold.
fn held_above() -> Failure {
    Failure::new(
        "cannot hold what is held above",
        "a hold, or an open file, of a process above this one is on these paths already",
        "leave this hold out: what runs below the one above works there",
    )
}

fn not_let_in(why: Refusal) -> Failure {
    let (cause, hint, exit) = match why {
        Refusal::Deadlock => {
            ("those in the way wait for this process", "take all paths by one hold", Exit::Failed)
        }
        Refusal::Limit(limit) => {
            let cause = format!("the bound `{limit}` is reached");
            return Failure::new("not let in", cause, "see `gate status --limits`");
        }
        Refusal::Interrupted => {
            ("it was ended from outside", "`gate why` tells more", Exit::Failed)
        }
        Refusal::Broken => ("somebody ended its wait", "`gate why` tells more", Exit::Failed),
        Refusal::TimedOut | Refusal::WouldBlock => {
            ("somebody else holds it", "`gate why` tells who", Exit::Failed)
        }
        Refusal::Unknown | Refusal::OwnerBusy => {
            ("the broker does not know this session", "try again", Exit::Unable)
        }
    };
    Failure::new("not let in", cause, hint).exit(exit)
}

fn lost(why: Revocation, reason: &str) -> Failure {
    let hint = "what the command did since then was done without a turn; check it";
    Failure::new("the hold was taken away", with_reason(revocation(why), reason), hint)
}

/// Words a request to let go.
fn recalled(recall: &Recall) -> String {
    let within = duration::rough(recall.within);
    let text = match (recall.why, recall.stage) {
        (RecallCause::MaxHold, RecallStage::Warned) => {
            format!("somebody waits, and it was held for long: it ends in {within}")
        }
        (RecallCause::MaxHold, RecallStage::Asked) => {
            format!("somebody still waits: let go, the hold is taken away in {within}")
        }
        (RecallCause::Request, _) => {
            format!("please let go: once somebody waits, the hold is taken away in {within}")
        }
    };
    with_reason(&text, &recall.reason)
}

/// Adds what somebody said of it, as far as a terminal may show it.
fn with_reason(text: &str, reason: &str) -> String {
    match reason {
        "" => text.to_owned(),
        reason => format!("{text}: {}", printable(reason)),
    }
}

fn broker_gone() -> Failure {
    let cause = "the broker was away for longer than a lease";
    Failure::new("not let in", cause, "`gate status` tells whether it is back").exit(Exit::Unable)
}

/// Reads a reason from the command line.
pub fn reason(text: &str) -> Result<String, String> {
    match text.len() <= TEXT_BYTES_MAX {
        true => Ok(text.to_owned()),
        false => Err(format!("a reason has at most {TEXT_BYTES_MAX} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from([&["hold"], words].concat()).map(|line| line.args)
    }

    #[test]
    fn the_habits_of_flock() {
        let args = parse(&["-n", "-E", "9", "a", "b", "--", "sh", "-c", "x"]).unwrap();
        assert_eq!((args.nonblock, args.conflict_exit_code), (true, 9));
        assert_eq!((args.paths.len(), args.command.len()), (2, 3));
        let args = parse(&["-w", "0.1", "a", "--", "true"]).unwrap();
        assert_eq!(args.timeout, Some(Duration::from_millis(100)));
        assert!(matches!(args.ask(vec![]).patience, Patience::Limited(_)));
    }

    #[test]
    fn paths_and_a_command_are_needed() {
        assert!(parse(&["--", "true"]).is_err());
        assert!(parse(&["a"]).is_err());
        assert!(parse(&["-n", "-w", "1", "a", "--", "true"]).is_err());
    }

    #[test]
    fn a_command_ends_as_shells_say_it() {
        let status = |script: &str| {
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = Pid::from_child(&child);
            let status = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            drop(child.try_wait());
            exit_of(status.unwrap().unwrap().1).code()
        };
        assert_eq!(status("exit 7"), 7);
        assert_eq!(status("kill -TERM $$"), 143);
    }
}
