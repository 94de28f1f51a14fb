//! The log: what happened, the newest first, by place, kind and time.

use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use gate_api::bearer::Rights;
use gate_api::event::Event;
use gate_api::wire::{Cursor, Entry, LogQuery, Scope, Stretch};

use super::page::{Fault, Frame, page as made};
use super::shown::Line;
use super::why::scope;
use crate::cli::log::{Since, parse_since};
use crate::daemon::office::{Office, aside};
use crate::daemon::refusal::{Kind as Wrong, Refusal};
use crate::query::{self, Asked};

/// Lines of a page, about.
const LINES: usize = 100;
/// Records that are asked for at once, …
const RECORDS: u32 = 256;
/// … and how often for one page: where little is of the kind, the next has more.
const QUESTIONS_MAX: usize = 32;

/// Kinds of what happened: a name, what it is called, and the names of its events.
const KINDS: [(&str, &str, &[&str]); 12] = [
    // Every command is a client that comes and goes; what it did tells of it.
    ("", "what was done", &[]),
    ("all", "everything", &[]),
    ("waits", "waited", &["waiting"]),
    ("granted", "was let in", &["granted"]),
    ("released", "let go", &["released", "counted"]),
    ("refused", "was refused", &["refused"]),
    ("recalled", "was asked to let go", &["recalled", "recall-warned"]),
    ("revoked", "lost its turn", &["revoked"]),
    ("ungated", "read without a turn", &["ungated"]),
    ("guard", "overwrote unseen", &["guard-kept", "guard-lost", "guard-refused"]),
    (
        "clients",
        "clients",
        &["client-came", "client-lost", "client-overdue", "client-back", "client-gone"],
    ),
    ("daemon", "the daemon", &["broker-started", "broker-stopped", "missing"]),
];

#[derive(Template)]
#[template(path = "log.html")]
struct Page {
    frame: Frame,
    path: String,
    /// Which there are, and whether it is the one that was asked for.
    spaces: Vec<(String, bool)>,
    kinds: Vec<(&'static str, &'static str, bool)>,
    since: String,
    lines: Vec<Line>,
    newest: Option<String>,
    older: Option<String>,
}

/// What to show.
struct Wanted {
    scope: Scope,
    kind: &'static str,
    names: &'static [&'static str],
    since: Option<Since>,
    before: Option<Cursor>,
}

/// `GET /log`
pub async fn page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    asked: Asked,
) -> Result<Response, Fault> {
    aside(move || {
        let wanted = Wanted::parse(&office, &asked)?;
        let (lines, place) = wanted.look(&office)?;
        let text = |name| asked.text(name).unwrap_or_default().to_owned();
        let spaces = office.standing().map_err(Fault::of)?.spaces.into_iter();
        let chosen = text("space");
        let spaces =
            spaces.map(|space| (space.name == chosen, space.name)).map(|(is, of)| (of, is));
        let kinds = KINDS.map(|(name, label, _)| (name, label, name == wanted.kind)).to_vec();
        let there = |before: &str| {
            let bytes = |name| asked.bytes(name).unwrap_or_default();
            query::address(
                "/log",
                &[
                    ("path", bytes("path")),
                    ("space", bytes("space")),
                    ("kind", bytes("kind")),
                    ("since", bytes("since")),
                    ("before", before.as_bytes()),
                ],
            )
        };
        Ok(made(&Page {
            frame: Frame::new("Log", "log", rights),
            path: text("path"),
            spaces: spaces.collect(),
            kinds,
            since: text("since"),
            lines,
            newest: wanted.before.map(|_| there("")),
            older: place.map(|place| there(&place.to_string())),
        }))
    })
    .await
}

impl Wanted {
    fn parse(office: &Office, asked: &Asked) -> Result<Wanted, Fault> {
        let wrong = |what: &str, hint: &str| {
            Fault::of(Refusal::new(Wrong::Invalid, what, hint)).back("/log")
        };
        let scope = match (asked.bytes("path"), asked.text("space")) {
            (None, None) => Scope::Everything,
            (None, Some(space)) => scope(office, Some(space), b".")?,
            (Some(path), space) => {
                scope(office, space, path).map_err(|fault| fault.back("/log"))?
            }
        };
        let kind = asked.text("kind").unwrap_or_default();
        let known = KINDS.into_iter().find(|(name, _, _)| *name == kind);
        let (kind, _, names) = known.ok_or_else(|| wrong("there is no such kind", "choose one"))?;
        let since = asked.text("since").map(parse_since).transpose();
        let since = since.map_err(|hint| wrong("`since` is no time", &hint))?;
        let before = asked.text("before").map(str::parse).transpose();
        let before = before.map_err(|_| wrong("`before` is no record", "begin at the newest"))?;
        Ok(Wanted { scope, kind, names, since, before })
    }

    /// Returns lines, the newest first, and where to go on, if there is more.
    fn look(&self, office: &Office) -> Result<(Vec<Line>, Option<Cursor>), Fault> {
        let (mut lines, mut place) = (Vec::new(), self.before);
        for _ in 0..QUESTIONS_MAX {
            let question = LogQuery {
                scope: self.scope.clone(),
                stretch: Stretch::UpTo(place),
                limit: RECORDS.min(u32::try_from(LINES).unwrap_or(RECORDS)),
                patience: Duration::ZERO,
            };
            let page = office.session().log(question);
            let page = page.map_err(|error| Fault::of_query(error).back("/log"))?;
            for entry in page.entries.iter().rev() {
                if self.is_over(entry) {
                    return Ok((lines, None));
                }
                if self.tells(entry) {
                    lines.push(Line::of(entry));
                }
            }
            if !page.more {
                return Ok((lines, None));
            }
            place = Some(page.begin);
            if lines.len() >= LINES {
                break;
            }
        }
        Ok((lines, place))
    }

    fn tells(&self, entry: &Entry) -> bool {
        let event = Event::of(entry).event;
        match self.kind {
            "" => !matches!(event, "client-came" | "client-gone"),
            "all" => true,
            _ => self.names.contains(&event),
        }
    }

    fn is_over(&self, entry: &Entry) -> bool {
        match self.since {
            None => false,
            Some(Since::Time(at_ms)) => entry.record.at_ms < at_ms,
            Some(Since::Record(cursor)) => entry.cursor <= cursor,
        }
    }
}
