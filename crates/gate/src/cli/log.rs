//! `gate log`

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gate_api::event::Event;
use gate_api::wire::{Cursor, Entry, Happening, LogPage, LogQuery, Presence, Scope, Stretch};
use gate_api::{QueryError, Session};
use jiff::tz::TimeZone;

use super::locks::{broker_of, no_answer, reach};
use crate::duration;
use crate::failure::{Exit, Failure};
use crate::output::{self, printable};
use crate::reach::BrokerFlags;
use crate::told;

/// What it calls itself at the broker.
const COMMAND: &str = "gate log";
/// How many lines are shown if neither their number nor their age is named.
const LINES_DEFAULT: usize = 100;
/// Records asked for at once.
const PAGE_RECORDS: u32 = 512;
/// How long one question for news may stay open before it is asked again.
const NEWS_PATIENCE: Duration = Duration::from_secs(30);
/// The pause before a broker that is away is asked again; a session comes back by itself.
const AWAY_PAUSE: Duration = Duration::from_millis(100);

/// Tell what happened: who waited, was let in, let go, was refused or lost a turn
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only at and beneath this path
    path: Option<PathBuf>,
    /// Go on with what happens from now on, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Begin at a time, so long ago (10m, 2h) or after a record (3.141)
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<Since>,
    /// Show the newest so many at most [default: 100, without --since]
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<usize>,
    /// Show each client that comes and goes, too
    #[arg(long, conflicts_with = "json")]
    all: bool,
    /// Write JSON, one line for each event of every kind
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// After a record.
    Record(Cursor),
    /// At a time: milliseconds since 1970, UTC.
    Time(u64),
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let (session, scope) = match &self.path {
            Some(path) => broker_of(path, &self.broker, COMMAND)?,
            None => (reach(&self.broker, COMMAND)?.session, Scope::Everything),
        };
        let reader = Reader { session, scope };
        let told = match self.since {
            None => self.tell_newest(&reader),
            Some(since) => self.tell_since(&reader, since),
        };
        let mut end = told.map_err(|trouble| self.failure(trouble))?;
        if !self.follow {
            return Ok(Exit::Success);
        }
        loop {
            end = self.tell_news(&reader, end).map_err(|trouble| self.failure(trouble))?;
        }
    }

    /// Shows the newest records; returns where they end.
    fn tell_newest(&self, reader: &Reader) -> Result<Cursor, Trouble> {
        let limit = self.limit.unwrap_or(LINES_DEFAULT);
        let mut pages: VecDeque<LogPage> = VecDeque::new();
        let mut place = None;
        let mut missing = limit;
        loop {
            // Some of them may not be told.
            let asked = missing.max(LINES_DEFAULT);
            let page = reader.page(Stretch::UpTo(place), asked, Duration::ZERO)?;
            missing -= page.entries.iter().filter(|entry| self.tells(entry)).count().min(missing);
            place = Some(page.begin);
            let more = page.more;
            pages.push_front(page);
            if missing == 0 || !more {
                break;
            }
        }
        let end = pages.back().map_or(Cursor::START, |page| page.end);
        let entries = pages.iter().flat_map(|page| &page.entries);
        let told: Vec<&Entry> = entries.filter(|entry| self.tells(entry)).collect();
        for entry in &told[told.len().saturating_sub(limit)..] {
            self.show(entry)?;
        }
        Ok(end)
    }

    /// Shows all records from there on, or the newest of them; returns where they end.
    fn tell_since(&self, reader: &Reader, since: Since) -> Result<Cursor, Trouble> {
        let mut stretch = match since {
            Since::Record(cursor) => Stretch::After(cursor),
            Since::Time(at_ms) => Stretch::Since(at_ms),
        };
        let mut kept: VecDeque<Entry> = VecDeque::new();
        loop {
            let page = reader.page(stretch, usize::MAX, Duration::ZERO)?;
            self.tell_gap(&page);
            match self.limit {
                None => page.entries.iter().try_for_each(|entry| self.show(entry))?,
                Some(limit) => {
                    kept.extend(page.entries.into_iter().filter(|entry| self.tells(entry)));
                    kept.drain(..kept.len().saturating_sub(limit));
                }
            }
            if !page.more {
                kept.iter().try_for_each(|entry| self.show(entry))?;
                return Ok(page.end);
            }
            stretch = Stretch::After(page.end);
        }
    }

    /// Waits for what happens next and shows it, over a restart of the broker too.
    fn tell_news(&self, reader: &Reader, end: Cursor) -> Result<Cursor, Trouble> {
        match reader.page(Stretch::After(end), usize::MAX, NEWS_PATIENCE) {
            Ok(page) => {
                self.tell_gap(&page);
                page.entries.iter().try_for_each(|entry| self.show(entry))?;
                Ok(page.end)
            }
            // Whether it was asked or not: it comes back by itself, and knows where we are.
            Err(QueryError::BrokerGone | QueryError::Unchanged) => {
                std::thread::park_timeout(AWAY_PAUSE);
                Ok(end)
            }
            Err(error) => Err(Trouble::Query(error)),
        }
    }

    fn tell_gap(&self, page: &LogPage) {
        if page.gap {
            output::say_line(format_args!(
                "the log goes on after record {}; what was before is not known",
                page.begin
            ));
        }
    }

    /// Returns whether somebody may want to know of it. Every command is a client that comes and
    /// goes, those that only look too; what a client did tells of it.
    fn tells(&self, entry: &Entry) -> bool {
        let is_passage = matches!(
            entry.record.what,
            Happening::Client { became: Presence::Came | Presence::Gone, .. }
        );
        self.all || self.json || !is_passage
    }

    fn show(&self, entry: &Entry) -> Result<(), Failure> {
        if !self.tells(entry) {
            return Ok(());
        }
        if self.json {
            return output::print_json(&Event::of(entry));
        }
        output::print(&format!("{}\n", printable(&told::line(&entry.record))))
    }

    fn failure(&self, trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Query(error) => no_answer(error, self.path.as_deref()),
            Trouble::Output(failure) => failure,
        }
    }
}

/// Why it cannot go on.
enum Trouble {
    Query(QueryError),
    Output(Failure),
}

impl From<QueryError> for Trouble {
    fn from(error: QueryError) -> Trouble {
        Trouble::Query(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Output(failure)
    }
}

/// Asks one broker about one place.
struct Reader {
    session: Session,
    scope: Scope,
}

impl Reader {
    fn page(
        &self,
        stretch: Stretch,
        limit: usize,
        patience: Duration,
    ) -> Result<LogPage, QueryError> {
        let limit = u32::try_from(limit).unwrap_or(PAGE_RECORDS).min(PAGE_RECORDS);
        self.session.log(LogQuery { scope: self.scope.clone(), stretch, limit, patience })
    }
}

/// Parses a cursor, a time, or how long ago.
pub fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(cursor) = text.parse() {
        return Ok(Since::Record(cursor));
    }
    let ms = if let Some(time) = parse_time(text) {
        u64::try_from(time.as_millisecond()).unwrap_or(0)
    } else {
        let ago = duration::parse(text).map_err(|_| {
            "write it as 10m, 2026-01-31 12:00, 2026-01-31T12:00Z or 3.141".to_owned()
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.saturating_sub(ago).as_millis()).unwrap_or(u64::MAX)
    };
    Ok(Since::Time(ms))
}

/// Parses a time; without a zone it is as the log shows it.
fn parse_time(text: &str) -> Option<jiff::Timestamp> {
    let local = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(TimeZone::system()).ok();
    text.parse().ok().or_else(|| Some(local()?.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board;

    #[test]
    fn a_beginning_is_a_record_a_time_or_so_long_ago() {
        let cursor = Cursor { epoch: 3, number: 141 };
        assert_eq!(parse_since("3.141"), Ok(Since::Record(cursor)));
        assert_eq!(parse_since("1970-01-01T00:00:02Z"), Ok(Since::Time(2_000)));
        let shown = board::local(1_700_000_000_250);
        assert_eq!(parse_since(&shown), Ok(Since::Time(1_700_000_000_250)));
        assert!(matches!(parse_since("10m"), Ok(Since::Time(ms)) if ms > 0));
        for nonsense in ["", "yesterday", "1.2.3", "-1s"] {
            assert!(parse_since(nonsense).is_err(), "{nonsense}");
        }
    }
}
