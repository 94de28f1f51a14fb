//! What happened, in words for people: a line of `gate log`, the past of `gate why`.

use std::fmt::Write as _;
use std::time::Duration;

use gate_api::wire::{Cursor, Deed, Fate, Former, Happening, Pass, Presence, Record, Subject};
use gate_core::lock::claim::Process;
use gate_core::lock::event::{RecallCause, RecallStage, Refusal, Revocation, Standstill};
use gate_core::lock::want::Op;
use gate_core::path::ViewPath;

use crate::{board, duration, processes};

/// Names of one claim that are shown.
const NAMES_SHOWN_MAX: usize = 4;

/// Tells of a record, with its time on this machine.
pub fn line(record: &Record<'_>) -> String {
    format!("{} {}", board::local(record.at_ms), story(record))
}

/// Tells of a record.
pub fn story(record: &Record<'_>) -> String {
    match &record.what {
        Happening::Started { version, former } => {
            format!("the broker began, gate {version}{}", former_words(*former))
        }
        Happening::Stopped => "the broker ended".to_owned(),
        Happening::Missing { count } => {
            format!("{count} records are missing: they could not be kept")
        }
        Happening::Client { client, process, became, .. } => {
            let pid = process.map(|process| format!(", process {}", process.pid));
            let became = match became {
                Presence::Came => "came",
                Presence::Lost => "lost its connection",
                Presence::Overdue => {
                    "was away for a lease, and is kept while nobody wants what it has"
                }
                Presence::Back => "came back",
                Presence::Gone => "is gone",
            };
            format!("{client}{} {became}", pid.unwrap_or_default())
        }
        Happening::Claim { became, claim } => claim_words(became, claim),
    }
}

fn claim_words(became: &Fate<'_>, claim: &Subject<'_>) -> String {
    let mut text = format!("{} {}{}", who(claim), claim.op.as_str(), names(claim));
    if matches!(claim.op, Op::Open(_) | Op::Hold(_) | Op::Lock(_)) {
        let _ = write!(text, " to {}", board::mode(claim.op.access()));
    }
    if let Some(ticket) = claim.ticket {
        let _ = write!(text, " (ticket {ticket})");
    }
    let _ = write!(text, " {}", fate_words(became));
    let said = match became {
        Fate::Revoked { reason, .. } | Fate::Refused { reason, .. } if !reason.is_empty() => {
            &**reason
        }
        Fate::Recalled(recall) if !recall.reason.is_empty() => &recall.reason,
        _ => &*claim.reason,
    };
    if !said.is_empty() {
        let _ = write!(text, ": {said}");
    }
    text
}

fn fate_words(became: &Fate<'_>) -> String {
    match became {
        Fate::Waits => "waits".to_owned(),
        Fate::Granted { waited, pass, .. } => match pass {
            Pass::None if waited.is_zero() => "was let in".to_owned(),
            Pass::None => format!("was let in after {}", span(*waited)),
            Pass::Own => "was let in beside its own".to_owned(),
            Pass::AwaitedByHolder => "passed because a holder waits for it".to_owned(),
        },
        Fate::Counted(count) => format!("now counts {count}"),
        Fate::Released { held: Some(held) } => format!("let go after {}", span(*held)),
        Fate::Released { held: None } => "left the line".to_owned(),
        Fate::Refused { why, .. } => format!("was refused: {}", refusal(*why)),
        Fate::Recalled(recall) => {
            let asked = match recall.stage {
                RecallStage::Warned => "will be asked to let go",
                RecallStage::Asked => "is asked to let go",
            };
            let why = match recall.why {
                RecallCause::MaxHold => ", for it is held long enough",
                RecallCause::Request => "",
            };
            format!("{asked} within {}{why}", span(recall.within))
        }
        Fate::Revoked { why, .. } => format!("lost its turn: {}", revocation(*why)),
        Fate::Guarded(Deed::Kept(number)) => {
            format!("overwrote what it had not seen: kept as version {number}")
        }
        Fate::Guarded(Deed::TooLarge) => {
            "overwrote what it had not seen, which was too large to be kept".to_owned()
        }
        Fate::Guarded(Deed::Failed) => {
            "overwrote what it had not seen, which could not be kept".to_owned()
        }
        Fate::Guarded(Deed::Refused) => {
            "was not to overwrite what it had not seen (EBUSY)".to_owned()
        }
        Fate::Ungated => {
            "read without a turn: those who had it open had been idle for read_wait".to_owned()
        }
    }
}

fn who(claim: &Subject<'_>) -> String {
    // A client that holds for another command knows best what that is.
    let command = match claim.op {
        Op::Hold(_) => Some(claim.client.to_string()),
        _ => claim.process.and_then(processes::command),
    };
    let agent = || claim.process.and_then(processes::agent).unwrap_or_default();
    let owner = match (&*claim.owner, &*claim.party) {
        ("", "") => agent(),
        ("", party) => party.to_owned(),
        (owner, _) => owner.to_owned(),
    };
    match (owner.as_str(), command, claim.process) {
        ("", Some(command), Some(process)) => format!("{command}, process {}", process.pid),
        ("", None, Some(Process { pid, .. })) => format!("process {pid}"),
        ("", _, None) => "a client".to_owned(),
        (owner, Some(command), _) => format!("{owner} ({command})"),
        (owner, None, _) => owner.to_owned(),
    }
}

fn names(claim: &Subject<'_>) -> String {
    let mut paths = claim.places.iter().filter_map(|place| place.path.as_ref());
    let shown = paths.by_ref().take(NAMES_SHOWN_MAX).map(ViewPath::to_string);
    let mut text: String = shown.map(|path| format!(" {path}")).collect();
    if paths.next().is_some() {
        text.push_str(" …");
    }
    // What is open after its name is gone, and what names of a bucket were left out of.
    if let (true, Some(place)) = (text.is_empty(), claim.places.first()) {
        text = format!(" (in {})", place.space);
    }
    text
}

fn former_words(former: Former) -> String {
    match former {
        Former::None | Former::Whole => String::new(),
        Former::Cut(Cursor::START) => "; the log of the runs before is lost".to_owned(),
        Former::Cut(end) => format!("; what came after record {end} of the run before is lost"),
        Former::Unreadable => "; the log of the runs before could not be read".to_owned(),
    }
}

/// Writes how long something took, short times too.
fn span(duration: Duration) -> String {
    match duration.as_millis() {
        0 => format!("{}µs", duration.as_micros()),
        1..1_000 => format!("{}ms", duration.as_millis()),
        _ => duration::rough(duration),
    }
}

fn refusal(why: Refusal) -> String {
    match why {
        Refusal::TimedOut => "it waited as long as it was allowed to (ETIMEDOUT)".to_owned(),
        Refusal::WouldBlock => "it would have had to wait (EAGAIN)".to_owned(),
        Refusal::Interrupted => "it was interrupted (EINTR)".to_owned(),
        Refusal::Deadlock => {
            "it and those it waited for waited for each other (EDEADLK)".to_owned()
        }
        Refusal::Limit(limit) => format!("the bound `{limit}` was reached (ENOLCK)"),
        Refusal::Unknown => "the broker knew no such owner".to_owned(),
        Refusal::OwnerBusy => "its owner was waiting already".to_owned(),
        Refusal::Broken => "somebody ended its wait (EIO)".to_owned(),
        Refusal::Standstill(Standstill::NoRoom) => {
            "the broker's disk had no room to write it down (ENOSPC)".to_owned()
        }
        Refusal::Standstill(Standstill::Fault) => {
            "the broker could not write it down (EIO)".to_owned()
        }
    }
}

/// Says why a grant was taken away.
pub fn revocation(why: Revocation) -> &'static str {
    match why {
        Revocation::MaxHold => "it was held for longer than max_hold while somebody waited",
        Revocation::LeaseLost => "its client was away for longer than a lease",
        Revocation::Broken => "somebody broke it",
        Revocation::Recalled => "it was asked to let go, and did not",
    }
}

#[cfg(test)]
pub mod tests {
    use gate_api::wire::{Cursor, Named};
    use gate_core::lock::want::Access;

    use super::*;

    /// Makes somebody's claim.
    pub fn subject(op: Op, path: &str) -> Subject<'static> {
        let path = ViewPath::parse(path.as_bytes()).ok();
        Subject {
            ticket: Some(3),
            op,
            places: vec![Named { space: "default".into(), path, directory: false }],
            owner: "ada".into(),
            party: "".into(),
            reason: "".into(),
            process: None,
            session: 1,
            client: "mount /m".into(),
        }
    }

    #[track_caller]
    fn check(what: Happening<'static>, expected: &str) {
        let text = line(&Record { at_ms: 0, what });
        assert_eq!(text, format!("{} {expected}", board::local(0)));
    }

    #[test]
    fn a_line_says_who_did_what_and_how_it_ended() {
        let claim = || subject(Op::Open(Access::Write), "src/a");
        let of = |became| Happening::Claim { became, claim: claim() };
        check(of(Fate::Waits), "ada open src/a to write (ticket 3) waits");
        let held = Some(Duration::from_millis(70));
        check(of(Fate::Released { held }), "ada open src/a to write (ticket 3) let go after 70ms");
        let broken = Fate::Revoked { why: Revocation::Broken, reason: "stuck".into(), held };
        check(
            of(broken),
            "ada open src/a to write (ticket 3) lost its turn: somebody broke it: stuck",
        );
        let refused = subject(Op::Unlink, "src/a");
        let claim = Subject { ticket: None, ..refused };
        let became = Fate::Refused { why: Refusal::WouldBlock, reason: "".into() };
        check(
            Happening::Claim { became, claim },
            "ada unlink src/a was refused: it would have had to wait (EAGAIN)",
        );
    }

    #[test]
    fn what_is_lost_is_told() {
        let former = Former::Cut(Cursor { epoch: 2, number: 9 });
        check(
            Happening::Started { version: "0.1".into(), former },
            "the broker began, gate 0.1; what came after record 2.9 of the run before is lost",
        );
        check(Happening::Missing { count: 5 }, "5 records are missing: they could not be kept");
    }
}
