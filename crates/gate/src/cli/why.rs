//! `gate why`

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use gate_api::event::Event;
use gate_api::wire::{Entry, Fate, Happening, Why};
use gate_core::lock::event::Refusal;
use gate_view::written;
use serde::Serialize;

use super::locks::{broker_of, no_answer};
use super::restore;
use crate::board::{self, Row};
use crate::failure::{Exit, Failure};
use crate::output::{self, printable};
use crate::overwritten::Kept;
use crate::reach::BrokerFlags;
use crate::seen::{About, resolve};
use crate::tie::{self, Tie};
use crate::told;

/// The version of the JSON form.
const JSON_VERSION: u32 = 1;
/// How long something can still be done about what went wrong.
const LATELY: Duration = Duration::from_secs(600);
/// Pairs of a holder and one whom it keeps waiting that are looked at.
const TIED_MAX: usize = 256;

/// Tell who holds a path, who waits for it, what went wrong there, and what to do
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The path, in a view or behind one
    path: PathBuf,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    broker: BrokerFlags,
}

/// All about a path, for programs.
#[derive(Serialize)]
struct Report {
    version: u32,
    space: String,
    /// In its space.
    #[serde(with = "written")]
    path: PathBuf,
    /// As in `gate locks --json`.
    locks: Vec<Row>,
    /// What somebody may ask about, as in `gate log --json`, the oldest first.
    past: Vec<Event>,
    /// The glob of the rule by which it is not gated.
    ungated_by: Option<String>,
    /// As in `gate restore --list --json`; none where this user may not see it.
    overwritten: Vec<restore::Row>,
    advice: Vec<String>,
}

impl Args {
    pub fn run(self) -> Result<Exit, Failure> {
        let (session, scope) = broker_of(&self.path, &self.broker, "gate why")?;
        let why = session.why(scope).map_err(|error| no_answer(error, Some(&self.path)))?;
        // Whoever may not see what was kept still learns the rest.
        let kept = Kept::find(&self.path).ok();
        if self.json {
            return output::print_json(&self.report(why, kept)).map(|()| Exit::Success);
        }
        output::print(&tell(why))?;
        if let Some(glob) = self.ungated_by() {
            let rule = printable(&format!("{glob}=none"));
            output::print(&format!("not gated, by `{rule}`: who opens it takes no turn\n"))?;
        }
        if let Some(kept) = kept {
            output::print(&kept.tell_lately(&self.path))?;
        }
        Ok(Exit::Success)
    }

    fn report(&self, why: Why, kept: Option<Kept>) -> Report {
        let locks: Vec<Row> = why.lines.into_iter().flat_map(board::rows).collect();
        let versions = kept.and_then(|kept| kept.versions().ok()).unwrap_or_default();
        Report {
            version: JSON_VERSION,
            space: why.space,
            path: board::path_of(&why.path),
            past: why.past.iter().map(Event::of).collect(),
            ungated_by: self.ungated_by(),
            overwritten: versions.iter().map(restore::Row::of).collect(),
            advice: advice(&locks, &why.past),
            locks,
        }
    }
}

impl Args {
    /// Returns the glob by which the path is not gated in its view, if it is not.
    fn ungated_by(&self) -> Option<String> {
        let absolute = resolve(&self.path).ok()?;
        let about = About::of(&absolute).ok()?;
        about.ungated_by(&about.inner(&absolute)?)
    }
}

/// Puts all about a path into lines.
pub fn tell(why: Why) -> String {
    let mut text = printable(&format!("{} in the space {}", why.path, why.space));
    text.push('\n');
    let rows: Vec<Row> = why.lines.into_iter().flat_map(board::rows).collect();
    if rows.is_empty() {
        text.push_str("  nobody holds it and nobody waits\n");
    }
    for row in &rows {
        let _ = writeln!(text, "  {}", printable(&tell_row(row)));
    }
    if !why.past.is_empty() {
        text.push_str("lately\n");
    }
    for entry in &why.past {
        let _ = writeln!(text, "  {}", printable(&told::line(&entry.record)));
    }
    for advice in advice(&rows, &why.past) {
        let _ = writeln!(text, "what to do: {advice}");
    }
    text
}

/// Tells of one who holds or waits.
pub fn tell_row(row: &Row) -> String {
    let pid = row.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    let (who, op, mode, path) = (row.who(), row.op, row.mode, row.shown_path());
    let age = row.age();
    let mut text = match row.place {
        None => format!("{who}{pid} holds {path} to {mode} ({op}) since {age}"),
        Some(place) => {
            format!("{who}{pid} waits for {path} to {mode} ({op}) since {age}, place {place}")
        }
    };
    let _ = write!(text, ", ticket {}", row.ticket);
    if let Some(until) = &row.recalled_until {
        let _ = write!(text, ", asked to let go until {until}");
    }
    if row.by_kin {
        text.push_str(", let in because a holder waits for it");
    }
    if !row.behind.is_empty() {
        let behind: Vec<String> = row.behind.iter().map(u64::to_string).collect();
        let _ = write!(text, ", behind {}", behind.join(", "));
    }
    if !row.reason.is_empty() {
        let _ = write!(text, ": {}", row.reason);
    }
    text
}

/// Says what can be done.
pub fn advice(rows: &[Row], past: &[Entry]) -> Vec<String> {
    let mut advice = Vec::new();
    let (waiting, holding): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| row.place.is_some());
    if let Some(first) = holding.first().filter(|_| !waiting.is_empty()) {
        let tied = Tied::find(&holding, &waiting);
        let holder = tied.as_ref().map_or(*first, |tied| tied.holder);
        advice.push(tied.map_or_else(|| let_finish(holder), |tied| tied.advice()));
        let ticket = holder.ticket;
        advice.push(format!(
            "`gate recall {ticket}` asks it to let go, `gate break {ticket} --reason …` takes it away"
        ));
    }
    if past.iter().any(is_new_deadlock) {
        advice.push(
            "take all of them at once: `gate hold PATH… -- CMD` around what was refused".to_owned(),
        );
    }
    advice
}

fn let_finish(holder: &Row) -> String {
    match holder.pid {
        Some(pid) if holder.has_ended => {
            format!("process {pid} passed an open file on: end whoever has it")
        }
        Some(pid) => format!("let {} finish, or end process {pid}", printable(&holder.who())),
        None => format!("let {} finish", printable(&holder.who())),
    }
}

/// A holder that may wait for one whom it keeps waiting, as in poll(2), where that cannot be seen.
struct Tied<'a> {
    holder: &'a Row,
    waiter: &'a Row,
    tie: Tie,
}

impl<'a> Tied<'a> {
    fn find(holding: &[&'a Row], waiting: &[&'a Row]) -> Option<Tied<'a>> {
        let pairs = holding.iter().flat_map(|holder| {
            blocked_by(holder.ticket, waiting).into_iter().map(|waiter| (*holder, waiter))
        });
        pairs.take(TIED_MAX).find_map(|(holder, waiter)| {
            let tie = tie::between(holder.process?, waiter.process?)?;
            Some(Tied { holder, waiter, tie })
        })
    }

    fn advice(&self) -> String {
        let named = |row: &Row| {
            let pid = row.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            printable(&format!("{}{pid}", row.who()))
        };
        let (holder, waiter) = (named(self.holder), named(self.waiter));
        let how = match self.tie {
            Tie::Below => "runs below",
            Tie::Pipe => "shares a pipe with",
        };
        format!(
            "{waiter} {how} {holder}: if that waits for it, neither goes on; \
            the file must be closed before, or one of them ended"
        )
    }
}

/// Returns who waits for a ticket, or for who waits for it.
fn blocked_by<'a>(ticket: u64, waiting: &[&'a Row]) -> Vec<&'a Row> {
    let mut in_the_way = BTreeSet::from([ticket]);
    let mut waiting = waiting.to_vec();
    waiting.sort_unstable_by_key(|row| row.ticket);
    waiting.retain(|row| {
        let is_blocked = row.behind.iter().any(|ticket| in_the_way.contains(ticket));
        if is_blocked {
            in_the_way.insert(row.ticket);
        }
        is_blocked
    });
    waiting
}

fn is_new_deadlock(entry: &Entry) -> bool {
    let Happening::Claim { became, .. } = &entry.record.what else { return false };
    let age = Duration::from_millis(board::now_ms().saturating_sub(entry.record.at_ms));
    age < LATELY && matches!(became, Fate::Refused { why: Refusal::Deadlock, .. })
}

#[cfg(test)]
mod tests {
    use gate_api::wire::{Cursor, Record};
    use gate_core::lock::want::{Access, Op};
    use gate_core::path::ViewPath;

    use super::*;

    #[test]
    fn a_deadlock_is_named_by_its_errno_and_comes_with_advice() {
        let path = ViewPath::parse(b"f").unwrap();
        let became = Fate::Refused { why: Refusal::Deadlock, reason: "".into() };
        let claim = told::tests::subject(Op::Open(Access::Write), "f");
        let at_ms = board::now_ms();
        let record = Record { at_ms, what: Happening::Claim { became, claim } };
        let past = Entry { cursor: Cursor::START, record };
        let text = tell(Why { space: "default".into(), path, lines: vec![], past: vec![past] });
        let at = board::local(at_ms);
        let expected = format!(
            "f in the space default\n  \
            nobody holds it and nobody waits\nlately\n  \
            {at} ada open f to write (ticket 3) was refused: \
            it and those it waited for waited for each other (EDEADLK)\n\
            what to do: take all of them at once: `gate hold PATH… -- CMD` around what was refused\n"
        );
        assert_eq!(text, expected);
    }
}
