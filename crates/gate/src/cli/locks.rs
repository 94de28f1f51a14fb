//! `gate locks`

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use gate_api::wire::{AttachRefusal, Scope};
use gate_api::{ClientInfo, QueryError, Session, Watcher};

use crate::board::Board;
use crate::config::Settings;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::reach::{BrokerFlags, Deaf, Reached, Unreached, Wanted, connect};
use crate::seen::{About, cannot_look, resolve};

/// How long one question for news may stay open before it is asked again.
const NEWS_PATIENCE: Duration = Duration::from_secs(60);
/// How often what is shown is shown anew: it says for how long things have lasted.
const REFRESH: Duration = Duration::from_secs(1);
/// What it calls itself at the broker.
const COMMAND: &str = "gate locks";
/// Moves the cursor to the top and clears the terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Show who holds and who waits, in the order of their turns
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only at and beneath this path
    path: Option<PathBuf>,
    /// Show it again whenever it changes, until interrupted
    #[arg(long)]
    watch: bool,
    /// Write JSON, one line each time
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let (session, scope) = match &self.path {
            Some(path) => broker_of(path, &self.broker, COMMAND)?,
            None => (reach(&self.broker, COMMAND)?.session, Scope::Everything),
        };
        let path = self.path.as_deref();
        let locks =
            session.locks(&scope, None, NEWS_PATIENCE).map_err(|error| no_answer(error, path))?;
        let version = locks.version;
        let board = Board::new(session.broker().epoch, locks);
        self.show(&board)?;
        if !self.watch {
            return Ok(Exit::Success);
        }
        let (news, heard) = mpsc::channel();
        thread::spawn(move || follow(&session, &scope, version, &news));
        self.keep_showing(board, &heard)
    }

    fn keep_showing(&self, mut board: Board, news: &Receiver<News>) -> Result<Exit, Failure> {
        let refresh = if self.is_on_screen() { REFRESH } else { Duration::MAX };
        loop {
            match news.recv_timeout(refresh) {
                Ok(new) => board = new.map_err(|error| no_answer(error, self.path.as_deref()))?,
                Err(RecvTimeoutError::Timeout) if board.is_empty() => continue,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Exit::Success),
            }
            self.show(&board)?;
        }
    }

    /// Tells whether what is shown takes the place of what was shown before.
    fn is_on_screen(&self) -> bool {
        self.watch && !self.json && std::io::stdout().is_terminal()
    }

    fn show(&self, board: &Board) -> Result<(), Failure> {
        if self.json {
            return output::print_json(board);
        }
        if self.is_on_screen() {
            output::print(CLEAR)?;
        }
        output::print(&board.table())
    }
}

/// What holds and waits by now, or why that is not known.
type News = Result<Board, QueryError>;

/// Asks for what is newer than that version, again and again, until there is no answer.
fn follow(session: &Session, scope: &Scope, mut version: u64, news: &Sender<News>) {
    loop {
        let answer = session.locks(scope, Some(version), NEWS_PATIENCE);
        if matches!(answer, Err(QueryError::Unchanged)) {
            continue;
        }
        let board = answer.map(|locks| {
            version = locks.version;
            Board::new(session.broker().epoch, locks)
        });
        let is_last = board.is_err();
        if news.send(board).is_err() || is_last {
            return;
        }
    }
}

/// Reaches the broker that was named, or the one that runs here, as one of these commands.
pub fn reach(flags: &BrokerFlags, command: &str) -> Result<Reached, Failure> {
    let deaf: Arc<dyn Watcher> = Arc::new(Deaf);
    Wanted::find(flags, &Settings::load()?)?.reach_one(&ClientInfo::named(command), &deaf)
}

/// Reaches the broker that decides about a path, in a view or behind one.
pub fn broker_of(
    path: &Path,
    flags: &BrokerFlags,
    command: &str,
) -> Result<(Session, Scope), Failure> {
    use std::os::unix::ffi::OsStrExt as _;

    let absolute = resolve(path).map_err(|error| cannot_look(path, &error))?;
    let Ok(about) = About::of(&absolute) else {
        let scope = Scope::Absolute(absolute.as_os_str().as_bytes().to_vec());
        return Ok((reach(flags, command)?.session, scope));
    };
    if let Some(AttachRefusal { reason, fix }) = &about.refused {
        let what = format!("nobody takes turns in {}", about.mountpoint.display());
        let cause = format!("it is refused by its broker: {reason}");
        return Err(Failure::new(what, cause, fix).exit(Exit::Unable));
    }
    let approach = Wanted::find(flags, &Settings::load()?)?.approach(about.address());
    let deaf: Arc<dyn Watcher> = Arc::new(Deaf);
    let session = connect(&approach, &ClientInfo::named(command), &deaf)
        .map_err(|error| Unreached { address: approach.address, error })?;
    Ok((session, about.scope(&absolute, path)?))
}

/// Says why a question has no answer.
pub fn no_answer(error: QueryError, path: Option<&Path>) -> Failure {
    match (error, path) {
        (QueryError::Unknown, Some(path)) => Failure::new(
            format!("nothing is known of {}", path.display()),
            "it is neither in a gated view nor behind one",
            "`gate status` lists the views",
        ),
        (error, _) => Failure::new("the broker did not answer", error, "try again"),
    }
    .exit(Exit::Unable)
}
