//! What a hold says: why it is not let in, what is asked of it, why it ended.

use gate_api::session::Recall;
use gate_api::wire::{Fate, Happening, LineState, Why};
use gate_api::{Address, Session};
use gate_core::id::Ticket;
use gate_core::lock::event::{RecallCause, RecallStage, Refusal, Revocation, Standstill};
use gate_core::lock::limits::{KEYS_PER_REQUEST_MAX, Limit};

use crate::board;
use crate::duration;
use crate::failure::{Exit, Failure};
use crate::output::{self, printable};
use crate::seen::Seen;
use crate::told::revocation;

/// Who was let in by kin is followed by nobody: the command would wait for this hold.
pub fn held_above() -> Failure {
    Failure::new(
        "cannot hold what is held above",
        "a hold, or an open file, of a process above this one is on these paths already",
        "leave this hold out: what runs below the one above works there",
    )
}

/// Says why it is not let in.
pub fn not_let_in(why: Refusal) -> Failure {
    let (cause, hint, exit) = match why {
        Refusal::Deadlock => {
            ("those in the way wait for this process", "take all paths by one hold", Exit::Failed)
        }
        Refusal::Limit(limit @ Limit::KeysPerRequest) => {
            let cause = format!(
                "the bound `{limit}`, {KEYS_PER_REQUEST_MAX}, is reached: a name that does not exist \
                 takes one of them, a file two, and each directory above them two"
            );
            return Failure::new("not let in", cause, "hold a directory they lie in instead");
        }
        Refusal::Limit(limit) => {
            let cause = format!("the bound `{limit}` is reached");
            return Failure::new("not let in", cause, "see `gate status --limits`");
        }
        Refusal::Interrupted => {
            ("it was ended from outside", "`gate why` tells more", Exit::Failed)
        }
        Refusal::Broken => return sent_away(""),
        Refusal::TimedOut | Refusal::WouldBlock => {
            ("somebody else holds it", "`gate why` tells who", Exit::Failed)
        }
        Refusal::Standstill(Standstill::NoRoom) => (
            "the broker's disk has no room to write it down",
            "make room on the disk of its state directory: `gate status` names it",
            Exit::Unable,
        ),
        Refusal::Standstill(Standstill::Fault) => (
            "the broker cannot write it down",
            "`gate status` says why, and so does the broker's log",
            Exit::Unable,
        ),
        Refusal::Unknown | Refusal::OwnerBusy => {
            ("the broker does not know this session", "try again", Exit::Unable)
        }
    };
    Failure::new("not let in", cause, hint).exit(exit)
}

/// Says that its wait was ended, and what was said of that.
pub fn sent_away(reason: &str) -> Failure {
    let cause = with_reason("somebody ended its wait", reason);
    Failure::new("not let in", cause, "ask them, or try again later")
}

/// Returns what was said when the wait with that ticket was ended.
pub fn reason_of(session: &Session, seen: &[Seen], ticket: Option<Ticket>) -> String {
    let reason = why(session, seen).flat_map(|why| why.past).rev().find_map(|entry| {
        match entry.record.what {
            Happening::Claim { became: Fate::Refused { reason, .. }, claim }
                if claim.ticket.is_some() && claim.ticket == ticket.map(|ticket| ticket.0) =>
            {
                Some(reason.into_owned())
            }
            _ => None,
        }
    });
    reason.unwrap_or_default()
}

/// Tells of names that others open without a turn, whoever holds them.
pub fn warn_of_ungated(seen: &[Seen]) {
    for Seen { about, path, .. } in seen {
        if let Some(glob) = about.ungated_by(path) {
            let text = format!("{path} is not gated (`{glob}=none`): this stops other holds alone");
            output::say_line(format_args!("gate hold: {}", printable(&text)));
        }
    }
}

/// Tells who watches what it waits for.
pub fn waits(session: &Session, seen: &[Seen]) {
    match holder(session, seen) {
        Some(holder) => output::say_line(format_args!("gate hold: waits: {holder}")),
        None => output::say_line("gate hold: waits in line"),
    }
}

/// Tells who watches that there is nobody yet who could let it in.
pub fn waits_for_broker() {
    output::say_line("gate hold: waits: the broker is away");
}

/// Tells in one line who has what was not to be had.
pub fn refused(session: &Session, seen: &[Seen]) {
    match holder(session, seen) {
        Some(holder) => output::say_line(format_args!("gate hold: not let in: {holder}")),
        None => output::say_line("gate hold: not let in: somebody else had it"),
    }
}

/// Says who holds one of these paths.
fn holder(session: &Session, seen: &[Seen]) -> Option<String> {
    let mut held = why(session, seen)
        .flat_map(|why| why.lines)
        .filter(|line| matches!(line.state, LineState::Held { .. }));
    let row = board::rows(held.next()?).into_iter().next()?;
    let pid = row.pid.map(|pid| format!(", process {pid},")).unwrap_or_default();
    let (who, path, mode) = (row.who(), row.shown_path(), row.mode);
    let text = format!("{who}{pid} holds {path} to {mode} since {}", row.age());
    Some(printable(&with_reason(&text, &row.reason)))
}

fn why(session: &Session, seen: &[Seen]) -> impl DoubleEndedIterator<Item = Why> {
    seen.iter().filter_map(Seen::scope).filter_map(|scope| session.why(scope).ok())
}

/// Says why it ended.
pub fn lost(why: Revocation, reason: &str) -> Failure {
    let hint = "what the command opened since then took turns of its own, and others may have come between; check it";
    Failure::new("the hold was taken away", with_reason(revocation(why), reason), hint)
}

/// Says that nobody knows whether it was held to the end.
pub fn unproven() -> Failure {
    Failure::new(
        "the hold may have been taken away",
        "the broker was not heard of for longer than a lease",
        "`gate log` tells once it is back; until then take what the command did as done without a turn",
    )
    .exit(Exit::Unable)
}

/// Words a request to let go.
pub fn recalled(recall: &Recall) -> String {
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

/// Says that nobody is there to let it in.
pub fn broker_gone() -> Failure {
    let cause = "the broker was away for longer than a lease";
    Failure::new("not let in", cause, "`gate status` tells whether it is back").exit(Exit::Unable)
}

/// Says that there is nobody to decide about all of it.
pub fn two_brokers(one: &Address, other: &Address) -> Failure {
    Failure::new(
        "cannot take all of that at once",
        format!("some is decided by {one}, some by {other}"),
        "use one `gate hold` for each broker",
    )
    .exit(Exit::Unable)
}
