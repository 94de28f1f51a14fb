//! What happened, as JSON: a line of `gate log --json`, an event of `GET /v1/events`.
//!
//! Fields that say nothing of an event are left out. Names may be added; none changes its meaning
//! within one version.

use std::time::Duration;

use gate_core::lock::event::{RecallCause, RecallStage, Refusal, Revocation, Standstill};
use gate_core::lock::want::{Access, Op};
use gate_core::path::ViewPath;
use serde::Serialize;

use crate::wire::{Deed, Entry, Fate, Former, Happening, Pass, Presence, Subject};

/// The version of the names and their meaning.
const VERSION: u32 = 1;

/// One thing that happened.
#[derive(Debug, Serialize)]
pub struct Event {
    version: u32,
    /// The run of the broker and the number in it.
    pub cursor: String,
    /// RFC 3339, UTC.
    pub at: String,
    /// What.
    pub event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<u64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    claim: Option<Claim>,
    #[serde(flatten)]
    more: More,
}

/// Of which claim.
#[derive(Debug, Serialize)]
struct Claim {
    op: &'static str,
    mode: &'static str,
    space: String,
    /// The first of its names.
    path: Option<String>,
    /// All of them, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
    owner: String,
    agent: String,
    reason: String,
}

/// What only some events have.
#[derive(Debug, Default, Serialize)]
struct More {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_us: Option<u64>,
    /// By which right it passed others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'static str>,
    /// Acquires behind a claim, or records that are missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    /// The number of the version that the guard kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<u64>,
    /// Why it was refused or revoked, or could not be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// How long a holder has to let go.
    #[serde(skip_serializing_if = "Option::is_none")]
    within_us: Option<u64>,
    /// What whoever broke or recalled it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    said: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// The release of the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<String>,
    /// How the log of the run before ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    former: Option<&'static str>,
    /// The last record known of the run before, if it was cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    former_end: Option<String>,
}

impl Event {
    /// Words a record.
    pub fn of(entry: &Entry) -> Event {
        let mut more = More::default();
        let (event, subject) = match &entry.record.what {
            Happening::Started { version, former } => {
                more.broker = Some(version.to_string());
                (more.former, more.former_end) = match former {
                    Former::None => (Some("none"), None),
                    Former::Whole => (Some("whole"), None),
                    Former::Cut(end) => (Some("cut"), Some(end.to_string())),
                    Former::Unreadable => (Some("unreadable"), None),
                };
                ("broker-started", None)
            }
            Happening::Stopped => ("broker-stopped", None),
            Happening::Missing { count } => {
                more.count = Some(*count);
                ("missing", None)
            }
            Happening::Client { session, client, process, became } => {
                more.session = Some(*session);
                more.client = Some(client.to_string());
                more.pid = process.map(|process| process.pid);
                (presence(*became), None)
            }
            Happening::Claim { became, claim } => {
                more.session = Some(claim.session);
                more.client = Some(claim.client.to_string());
                more.pid = claim.process.map(|process| process.pid);
                (more.tell(became), Some(claim))
            }
        };
        Event {
            version: VERSION,
            cursor: entry.cursor.to_string(),
            at: rfc3339(entry.record.at_ms),
            event,
            ticket: subject.and_then(|claim| claim.ticket),
            claim: subject.map(Claim::of),
            more,
        }
    }
}

impl Claim {
    fn of(claim: &Subject<'_>) -> Claim {
        let paths = claim.places.iter().filter_map(|place| place.path.as_ref());
        let paths: Vec<String> = paths.map(ViewPath::to_string).collect();
        Claim {
            op: claim.op.as_str(),
            mode: mode(claim.op),
            space: claim.places.first().map(|place| place.space.to_string()).unwrap_or_default(),
            path: paths.first().cloned(),
            paths: if paths.len() > 1 { paths } else { Vec::new() },
            owner: claim.owner.to_string(),
            agent: claim.party.to_string(),
            reason: claim.reason.to_string(),
        }
    }
}

impl More {
    /// Takes what an event has to say, and returns its name.
    fn tell(&mut self, became: &Fate<'_>) -> &'static str {
        match became {
            Fate::Waits => "waiting",
            Fate::Granted { token, waited, pass } => {
                self.token = Some(token.to_string());
                self.waited_us = Some(micros(*waited));
                self.pass = match pass {
                    Pass::None => None,
                    Pass::Own => Some("own"),
                    Pass::AwaitedByHolder => Some("awaited-by-holder"),
                };
                "granted"
            }
            Fate::Counted(count) => {
                self.count = Some(u64::from(*count));
                "counted"
            }
            Fate::Released { held } => {
                self.held_us = held.map(micros);
                "released"
            }
            Fate::Refused { why, reason } => {
                self.why = Some(refusal(*why));
                self.said = said(reason);
                "refused"
            }
            Fate::Recalled(recall) => {
                self.why = Some(cause(recall.why).to_owned());
                self.within_us = Some(micros(recall.within));
                self.said = said(&recall.reason);
                match recall.stage {
                    RecallStage::Warned => "recall-warned",
                    RecallStage::Asked => "recalled",
                }
            }
            Fate::Revoked { why, reason, held } => {
                self.held_us = held.map(micros);
                self.why = Some(revocation(*why).to_owned());
                self.said = said(reason);
                "revoked"
            }
            Fate::Ungated => "ungated",
            Fate::Guarded(became) => {
                let (name, why) = match became {
                    Deed::Kept(number) => {
                        self.kept = Some(*number);
                        ("guard-kept", None)
                    }
                    Deed::TooLarge => ("guard-lost", Some("too-large")),
                    Deed::Failed => ("guard-lost", Some("failed")),
                    Deed::Refused => ("guard-refused", None),
                };
                self.why = why.map(str::to_owned);
                name
            }
        }
    }
}

fn said(reason: &str) -> Option<String> {
    Some(reason.to_owned()).filter(|reason| !reason.is_empty())
}

/// Returns the name of what a recall is for.
pub fn cause(why: RecallCause) -> &'static str {
    match why {
        RecallCause::MaxHold => "max-hold",
        RecallCause::Request => "request",
    }
}

fn presence(became: Presence) -> &'static str {
    match became {
        Presence::Came => "client-came",
        Presence::Lost => "client-lost",
        Presence::Overdue => "client-overdue",
        Presence::Back => "client-back",
        Presence::Gone => "client-gone",
    }
}

fn mode(op: Op) -> &'static str {
    match op.access() {
        Access::Read => "read",
        Access::Write => "write",
    }
}

/// Returns the name of a refusal.
pub fn refusal(why: Refusal) -> String {
    let name = match why {
        Refusal::TimedOut => "timed-out",
        Refusal::WouldBlock => "would-block",
        Refusal::Interrupted => "interrupted",
        Refusal::Deadlock => "deadlock",
        Refusal::Limit(limit) => return format!("limit: {limit}"),
        Refusal::Unknown => "unknown",
        Refusal::OwnerBusy => "owner-busy",
        Refusal::Broken => "broken",
        Refusal::Standstill(why) => standstill(why),
    };
    name.to_owned()
}

/// Returns the name of what keeps a broker from granting anything.
pub fn standstill(why: Standstill) -> &'static str {
    match why {
        Standstill::NoRoom => "no-room",
        Standstill::Fault => "journal-fault",
    }
}

/// Returns the name of a revocation.
pub fn revocation(why: Revocation) -> &'static str {
    match why {
        Revocation::MaxHold => "max-hold",
        Revocation::LeaseLost => "lease-lost",
        Revocation::Broken => "broken",
        Revocation::Recalled => "recalled",
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn rfc3339(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Cursor, Named, Record};

    fn json(what: Happening<'static>) -> String {
        let cursor = Cursor { epoch: 2, number: 9 };
        let record = Record { at_ms: 1_500, what };
        serde_json::to_string(&Event::of(&Entry { cursor, record })).expect("plain data")
    }

    /// Programs rely on these names.
    #[test]
    fn the_names_of_fields_are_fixed() {
        let named = |path: &[u8]| Named {
            space: "s".into(),
            path: ViewPath::parse(path).ok(),
            directory: false,
        };
        let claim = Subject {
            ticket: Some(7),
            op: Op::Rename,
            places: vec![named(b"a"), named(b"b")],
            owner: "ada".into(),
            party: "bot".into(),
            reason: "".into(),
            process: None,
            session: 3,
            client: "mount /m".into(),
        };
        let held = Some(Duration::from_millis(2));
        let became = Fate::Revoked { why: Revocation::Broken, reason: "stuck".into(), held };
        let expected = concat!(
            r#"{"version":1,"cursor":"2.9","at":"1970-01-01T00:00:01.5Z","event":"revoked","#,
            r#""ticket":7,"op":"rename","mode":"write","space":"s","path":"a","paths":["a","b"],"#,
            r#""owner":"ada","agent":"bot","reason":"","held_us":2000,"why":"broken","#,
            r#""said":"stuck","session":3,"client":"mount /m"}"#,
        );
        assert_eq!(json(Happening::Claim { became, claim }), expected);
        let former = Former::Cut(Cursor { epoch: 1, number: 8 });
        let expected = concat!(
            r#"{"version":1,"cursor":"2.9","at":"1970-01-01T00:00:01.5Z","event":"broker-started","#,
            r#""broker":"0","former":"cut","former_end":"1.8"}"#,
        );
        assert_eq!(json(Happening::Started { version: "0".into(), former }), expected);
    }
}
