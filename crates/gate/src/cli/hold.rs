//! `gate hold`

mod command;
mod said;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvError, Sender};
use std::time::{Duration, Instant};

use gate_api::process;
use gate_api::session::Recall;
use gate_api::{Address, Answer, Ask, ClientInfo, Quiet, Session, Watcher};
use gate_core::id::SpaceId;
use gate_core::lock::claim::{Caller, Label, Patience};
use gate_core::lock::event::{Refusal, Revocation};
use gate_core::lock::limits::TEXT_BYTES_MAX;
use gate_core::lock::want::{Access, Place};
use rustix::process::Signal;

use super::run::name_of;
use crate::board;
use crate::config::Settings;
use crate::duration;
use crate::failure::{Exit, Failure};
use crate::processes::AGENT_VARIABLE;
use crate::reach::{BrokerFlags, Deaf, Unreached, Wanted};
use crate::seen::{About, Seen};
use crate::signals::{Received, Signals};
use command::by_signal;
use said::{broker_gone, held_above, lost, not_let_in, sent_away};

/// Signals that are for the command: it ends by them, and this process after it.
const PASSED_ON: [Signal; 6] =
    [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// How long who watches a terminal may wait without being told for what.
const QUIET: Duration = Duration::from_secs(1);

/// How long a hold waits for a broker that is away, unless it has a lease of its own: as long as who
/// opens a file in a view does.
const BROKER_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked for.
const BROKER_PAUSE: Duration = Duration::from_millis(20);

/// What runs a command of `-c` where the environment names no shell.
const SHELL_DEFAULT: &str = "/bin/sh";

/// Take paths, all or none, run a command, let go
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: the command's; 1 if somebody else holds it (-n) or took it \
    away, 124 if the time ran out (CODE, for both, with -E), 126 or 127 if the command cannot be \
    run, 130 if interrupted, 2 if there is no view, or no broker that could tell")]
pub struct Args {
    /// Files or directories in a gated view; they need not exist, but their directories must
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Share them with other readers
    #[arg(short = 's', long, visible_alias = "shared", overrides_with = "exclusive")]
    read: bool,
    /// Have them alone, the default; of this and --read the last one counts
    #[arg(short = 'x', visible_short_alias = 'e', long)]
    exclusive: bool,
    /// Fail at once if somebody else holds one of them
    #[arg(short = 'n', long, alias = "nb")]
    nonblock: bool,
    /// Wait no longer than this, as in 30s, 500ms, 2m; a bare number is seconds, 0 is -n
    #[arg(short = 'w', long, alias = "wait", value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Exit status if somebody else holds one of them or the time runs out
    #[arg(short = 'E', long, value_name = "CODE")]
    conflict_exit_code: Option<u8>,
    /// Say why, to those who wait
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = reason)]
    reason: String,
    /// Keep what is held while broker and hold do not reach each other for so long
    /// [default: 10000]
    #[arg(long, value_name = "MS", env = "GATE_LEASE_MS", value_parser = duration::lease_ms())]
    lease_ms: Option<u64>,
    /// Have $SHELL, or /bin/sh, run this in place of CMD
    #[arg(short = 'c', long = "command", value_name = "COMMAND", conflicts_with = "command")]
    script: Option<OsString>,
    /// The command and its arguments
    #[arg(last = true, required_unless_present = "script", value_name = "CMD")]
    command: Vec<OsString>,
}

/// What can happen while a hold waits or stands.
enum Event {
    Told(Answer),
    Recalled(Recall),
    Revoked(Revocation, String),
    Signalled(Received),
}

/// Why a hold ends with the exit status that flock has for it.
enum Refused {
    Held,
    TimedOut,
    Signalled(Signal),
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
    fn revoked(&self, _owner: u64, why: Revocation, reason: &str) -> Quiet {
        // Who no longer listens is ending.
        let _ = self.0.send(Event::Revoked(why, reason.to_owned()));
        Quiet::Now
    }

    fn recalled(&self, _owner: u64, recall: &Recall) {
        let _ = self.0.send(Event::Recalled(recall.clone()));
    }

    fn contended(&self, _owner: u64) {}
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let since = Instant::now();
        let (tell, events) = mpsc::channel();
        listen_to_signals(tell.clone())?;
        let mut seen = self.look()?;
        said::warn_of_ungated(&seen);
        let session = self.reach(&seen, Arc::new(Ear(tell.clone())), (&events, since))?;
        let mut hold = Hold { session, owner: 0, events };
        let mut attached = Vec::new();
        loop {
            let places = places(&hold.session, &mut attached, &seen)?;
            let ask = self.ask(places, since.elapsed());
            let tell = tell.clone();
            let told = move |answer| drop(tell.send(Event::Told(answer)));
            hold.owner = hold.session.acquire(ask, Box::new(told));
            if let Some(refused) = hold.await_turn(&seen, since)? {
                if !matches!(refused, Refused::Signalled(_)) {
                    said::refused(&hold.session, &seen);
                }
                return Ok(self.exit_of(refused));
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
        let (session, owner) = (hold.session.clone(), hold.owner);
        let exit = hold.run(&self.words());
        session.release(owner, None);
        exit
    }

    fn look(&self) -> Result<Vec<Seen>, Failure> {
        self.paths.iter().map(|path| Seen::find(path)).collect()
    }

    /// Returns the command and its arguments.
    fn words(&self) -> Vec<OsString> {
        let Some(script) = &self.script else { return self.command.clone() };
        let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
        vec![shell.unwrap_or_else(|| SHELL_DEFAULT.into()), "-c".into(), script.clone()]
    }

    /// Connects to the broker of all these paths: what is taken at once is decided by one.
    fn reach(
        &self,
        seen: &[Seen],
        ear: Arc<dyn Watcher>,
        meanwhile: (&Receiver<Event>, Instant),
    ) -> Result<Session, Failure> {
        let settings = Settings::load()?;
        let wanted = Wanted::find(&BrokerFlags::default(), &settings)?;
        let lease = self.lease_ms.or(settings.lease_ms).map(Duration::from_millis);
        let name = format!("gate hold … -- {}", name_of(&self.words()[0]));
        let client = ClientInfo { lease, ..ClientInfo::named(name) };
        let connect = |address: &Address, ear: Arc<dyn Watcher>| {
            when_it_is_there(self.patience_with_broker(lease), meanwhile, || {
                Session::connect(wanted.approach(address.clone()), client.clone(), ear.clone())
                    .map_err(|error| Unreached { address: address.clone(), error })
            })
        };
        let mut addresses: Vec<Address> = seen.iter().map(|seen| seen.about.address()).collect();
        addresses.dedup();
        let (first, others) = addresses.split_first().expect("clap demands a path");
        let session = connect(first, ear)?;
        for other in others.iter().filter(|other| *other != first) {
            // One broker has several doors.
            if connect(other, Arc::new(Deaf))?.broker() != session.broker() {
                return Err(said::two_brokers(first, other));
            }
        }
        Ok(session)
    }

    /// Says how long to wait, after having waited.
    fn patience(&self, waited: Duration) -> Patience {
        match self.timeout {
            _ if self.nonblock => Patience::Try,
            Some(Duration::ZERO) => Patience::Try,
            Some(limit) => Patience::Limited(limit.saturating_sub(waited)),
            None => Patience::Endless,
        }
    }

    /// Says how long to wait for a broker that is away.
    fn patience_with_broker(&self, lease: Option<Duration>) -> Duration {
        let usual = lease.unwrap_or(BROKER_PATIENCE);
        match self.patience(Duration::ZERO) {
            Patience::Try => Duration::ZERO,
            Patience::Limited(limit) => limit.min(usual),
            Patience::Endless => usual,
        }
    }

    fn exit_of(&self, refused: Refused) -> Exit {
        match (refused, self.conflict_exit_code) {
            (Refused::Held | Refused::TimedOut, Some(code)) => Exit::Code(code),
            (Refused::Held, None) => Exit::Failed,
            (Refused::TimedOut, None) => Exit::TimedOut,
            (Refused::Signalled(signal), _) => by_signal(signal),
        }
    }

    fn ask(&self, places: Vec<Place>, waited: Duration) -> Ask {
        let access = if self.read { Access::Read } else { Access::Write };
        let label = Label {
            owner: std::env::var(AGENT_VARIABLE).unwrap_or_default(),
            reason: self.reason.clone(),
            asked_at_ms: board::now_ms(),
        };
        // This thread will sleep for the command.
        let caller = Caller { thread: std::process::id(), ..process::own_call() };
        let ask = Ask::hold(access, places, self.patience(waited), label);
        Ask { caller: Some(caller), ..ask }
    }
}

impl Hold {
    /// Waits to be let in; otherwise says how that ended.
    fn await_turn(&self, seen: &[Seen], since: Instant) -> Result<Option<Refused>, Failure> {
        let mut line = None;
        while let Ok(event) = self.next_event(seen, since) {
            match event {
                Event::Told(Answer::Waiting { ticket }) => line = ticket,
                Event::Recalled(_) => {}
                Event::Told(Answer::Granted(grant)) if grant.by_kin => {
                    self.session.release(grant.owner, None);
                    return Err(held_above());
                }
                Event::Told(Answer::Granted(_)) => return Ok(None),
                Event::Told(Answer::Refused(Refusal::WouldBlock)) => {
                    return Ok(Some(Refused::Held));
                }
                Event::Told(Answer::Refused(Refusal::TimedOut)) => {
                    return Ok(Some(Refused::TimedOut));
                }
                Event::Told(Answer::Refused(Refusal::Broken)) => {
                    return Err(sent_away(&said::reason_of(&self.session, seen, line)));
                }
                Event::Told(Answer::Refused(why)) => return Err(not_let_in(why)),
                Event::Told(Answer::BrokerGone) | Event::Told(Answer::Ungated) => {
                    return Err(broker_gone());
                }
                Event::Revoked(why, reason) => return Err(lost(why, &reason)),
                Event::Signalled(Received { signal: Signal::CHILD, .. }) => {}
                Event::Signalled(Received { signal, .. }) => {
                    self.session.withdraw(self.owner, Refusal::Interrupted);
                    return Ok(Some(Refused::Signalled(signal)));
                }
            }
        }
        Err(broker_gone())
    }

    /// Waits for what happens next; who watches is told what it waits for if that takes long.
    fn next_event(&self, seen: &[Seen], since: Instant) -> Result<Event, RecvError> {
        let quiet = QUIET.saturating_sub(since.elapsed());
        if !quiet.is_zero() && std::io::stderr().is_terminal() {
            match self.events.recv_timeout(quiet) {
                Ok(event) => return Ok(event),
                Err(_) => said::waits(&self.session, seen),
            }
        }
        self.events.recv()
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

/// Connects to a broker; one that is away is waited for.
fn when_it_is_there(
    patience: Duration,
    (events, since): (&Receiver<Event>, Instant),
    connect: impl Fn() -> Result<Session, Unreached>,
) -> Result<Session, Failure> {
    let mut is_told = !std::io::stderr().is_terminal();
    loop {
        let unreached = match connect() {
            Err(unreached) if unreached.error.may_pass() => unreached,
            outcome => return Ok(outcome?),
        };
        if since.elapsed() >= patience {
            return Err(unreached.into());
        }
        if since.elapsed() >= QUIET && !std::mem::replace(&mut is_told, true) {
            said::waits_for_broker();
        }
        if let Ok(Event::Signalled(Received { signal, .. })) = events.recv_timeout(BROKER_PAUSE)
            && signal != Signal::CHILD
        {
            return Err(Failure::silent(by_signal(signal)));
        }
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
        assert_eq!((args.nonblock, args.conflict_exit_code), (true, Some(9)));
        assert_eq!((args.paths.len(), args.command.len()), (2, 3));
        for words in [&["-w", "0.1"], &["--wait", "100ms"], &["--timeout", "0.1s"]] {
            let args = parse(&[words, &["a", "--", "true"][..]].concat()).unwrap();
            assert_eq!(args.timeout, Some(Duration::from_millis(100)));
        }
    }

    #[test]
    fn a_limit_is_for_the_whole_wait() {
        let patience = |words: &[&str], waited_ms| {
            let args = parse(&[words, &["a", "--", "true"]].concat()).unwrap();
            args.patience(Duration::from_millis(waited_ms))
        };
        assert_eq!(patience(&[], 9), Patience::Endless);
        assert_eq!(patience(&["-w", "1"], 0), Patience::Limited(Duration::from_secs(1)));
        assert_eq!(patience(&["-w", "1"], 300), Patience::Limited(Duration::from_millis(700)));
        assert_eq!(patience(&["-w", "1"], 2_000), Patience::Limited(Duration::ZERO));
        assert_eq!(patience(&["-w", "0"], 9), Patience::Try);
        assert_eq!(patience(&["-w", "1", "--nb"], 9), Patience::Try);
    }

    #[test]
    fn a_broker_is_waited_for_as_long_as_a_lease_unless_a_limit_is_shorter() {
        let patience = |words: &[&str], lease_s: Option<u64>| {
            let args = parse(&[words, &["a", "--", "true"]].concat()).unwrap();
            args.patience_with_broker(lease_s.map(Duration::from_secs)).as_secs()
        };
        assert_eq!((patience(&[], None), patience(&[], Some(60))), (10, 60));
        assert_eq!((patience(&["-w", "20"], None), patience(&["-w", "20"], Some(60))), (10, 20));
        assert_eq!(patience(&["-n"], Some(60)), 0);
    }

    #[test]
    fn paths_and_a_command_are_needed() {
        assert!(parse(&["--", "true"]).is_err());
        assert!(parse(&["a"]).is_err());
    }
}
