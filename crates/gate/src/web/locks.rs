//! The board of locks: who holds, who waits, in which order and for whom.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use gate_api::bearer::Rights;
use gate_api::wire::{self, Fate, Happening, LogQuery, Scope, Stretch};
use gate_core::path::ViewPath;

use super::page::{Fault, Frame, page as made};
use super::shown::{Line, Shown};
use crate::board;
use crate::daemon::office::{ANSWER_PATIENCE, Office, aside};
use crate::query::{self, Asked};

/// Rows that are shown.
const ROWS_MAX: usize = 500;
/// Records that are looked through for reads without a turn, …
const RECORDS: u32 = 256;
/// … how many of those are shown, …
const UNGATED_MAX: usize = 5;
/// … and from how long ago.
const LATELY_MS: u64 = 10 * 60 * 1000;

#[derive(Template)]
#[template(path = "locks.html")]
struct Locks {
    frame: Frame,
    board: Board,
    at: String,
}

#[derive(Template)]
#[template(path = "board.html")]
pub struct Board {
    summary: String,
    groups: Vec<Group>,
    /// Rows that are left out.
    more: usize,
    ungated: Vec<Line>,
    is_admin: bool,
}

/// A path, and all who hold it or wait for it, in their order.
struct Group {
    path: Shown,
    space: Shown,
    why: String,
    rows: Vec<Row>,
    waiting: usize,
}

/// One of them.
pub struct Row {
    pub ticket: u64,
    /// Of its element.
    pub id: String,
    pub state: &'static str,
    pub label: String,
    pub who: Shown,
    pub pid: Option<u32>,
    pub mode: &'static str,
    pub does: String,
    /// RFC 3339.
    pub since: String,
    pub age: String,
    pub recalled_until: Option<String>,
    /// Tickets in its way, and whose they are.
    pub behind: Vec<(u64, Shown)>,
    pub reason: Shown,
    pub path: Shown,
    pub space: Shown,
    pub why: String,
}

/// `GET /locks`
pub async fn page(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
    asked: Asked,
) -> Result<Response, Fault> {
    let mut frame = Frame::new("Locks", "locks", rights);
    let ticket = asked.text("ticket").and_then(|ticket| ticket.parse::<u64>().ok());
    frame.done = match (asked.text("done"), ticket) {
        (Some("break"), Some(ticket)) => Some(format!("Ticket {ticket} is broken.")),
        (Some("recall"), Some(ticket)) => Some(format!("Ticket {ticket} is asked to let go.")),
        _ => None,
    };
    let board = aside(move || Board::look(&office, rights)).await?;
    Ok(made(&Locks { frame, board, at: board::local(board::now_ms()) }))
}

/// `GET /locks/board`: what changes of it.
pub async fn part(
    State(office): State<Office>,
    Extension(rights): Extension<Rights>,
) -> Result<Response, Fault> {
    aside(move || Board::look(&office, rights)).await.map(|board| made(&board))
}

impl Board {
    fn look(office: &Office, rights: Rights) -> Result<Board, Fault> {
        let rows = rows(office)?;
        let count = |state| {
            let tickets = rows.iter().filter(|row| row.state == state).map(|row| row.ticket);
            tickets.collect::<std::collections::BTreeSet<u64>>().len()
        };
        let (held, waiting) = (count("held"), count("waiting"));
        let more = rows.len().saturating_sub(ROWS_MAX);
        Ok(Board {
            summary: format!("{held} held, {waiting} waiting"),
            groups: groups(rows),
            more,
            ungated: ungated(office)?,
            is_admin: rights >= Rights::Admin,
        })
    }

    fn columns(&self) -> usize {
        if self.is_admin { 7 } else { 6 }
    }
}

/// Returns a row for each name that is held or waited for, oldest first.
pub fn rows(office: &Office) -> Result<Vec<Row>, Fault> {
    let locks = office.session().locks(&Scope::Everything, None, ANSWER_PATIENCE);
    let lines = locks.map_err(Fault::of_query)?.lines;
    let mut whose: HashMap<u64, Shown> = HashMap::new();
    let mut rows = Vec::new();
    for line in lines {
        let places = line.places.clone();
        for (index, (row, place)) in board::rows(line).into_iter().zip(&places).enumerate() {
            let who = || if row.owner.is_empty() { row.who() } else { row.owner.clone() };
            whose.entry(row.ticket).or_insert_with(|| Shown::new(who()));
            rows.push(Row::new(&row, place, index));
        }
    }
    for (ticket, who) in rows.iter_mut().flat_map(|row| &mut row.behind) {
        *who = whose.get(ticket).cloned().unwrap_or_default();
    }
    Ok(rows)
}

/// Puts rows together by path; where somebody waits comes first.
fn groups(rows: Vec<Row>) -> Vec<Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for row in rows {
        let group = groups.entry(row.why.clone()).or_insert_with(|| Group {
            path: row.path.clone(),
            space: row.space.clone(),
            why: row.why.clone(),
            rows: Vec::new(),
            waiting: 0,
        });
        group.waiting += usize::from(row.state == "waiting");
        group.rows.push(row);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| group.waiting == 0);
    let mut room = ROWS_MAX;
    for group in &mut groups {
        // Who holds stands before who waits, whoever came first.
        group.rows.sort_by_key(|row| (row.state == "waiting", row.ticket));
        group.rows.truncate(room);
        room -= group.rows.len();
    }
    groups.retain(|group| !group.rows.is_empty());
    groups
}

/// Returns who lately read without a turn.
fn ungated(office: &Office) -> Result<Vec<Line>, Fault> {
    let newest = LogQuery {
        scope: Scope::Everything,
        stretch: Stretch::UpTo(None),
        limit: RECORDS,
        patience: Duration::ZERO,
    };
    let page = office.session().log(newest).map_err(Fault::of_query)?;
    let now = board::now_ms();
    let is_one = |entry: &&wire::Entry| {
        let Happening::Claim { became, .. } = &entry.record.what else { return false };
        matches!(became, Fate::Ungated) && now.saturating_sub(entry.record.at_ms) < LATELY_MS
    };
    Ok(page.entries.iter().rev().filter(is_one).take(UNGATED_MAX).map(Line::of).collect())
}

impl Row {
    fn new(row: &board::Row, place: &wire::LinePlace, index: usize) -> Row {
        let path = place.path.as_ref().map(ViewPath::as_bytes);
        let bytes = path.map(|bytes| if bytes.is_empty() { b"." } else { bytes });
        let asked = [("path", bytes.unwrap_or_default()), ("space", row.space.as_bytes())];
        Row {
            ticket: row.ticket,
            id: format!("t{}-{index}", row.ticket),
            state: row.state,
            label: row.state_with_place(),
            who: Shown::new(row.who()),
            pid: row.pid,
            mode: row.mode,
            does: match row.op {
                "open" | "hold" | "lock" => format!("{} to {}", row.op, row.mode),
                op => op.to_owned(),
            },
            since: row.since.clone(),
            age: row.age(),
            recalled_until: row.recalled_until.clone(),
            behind: row.behind.iter().map(|ticket| (*ticket, Shown::default())).collect(),
            reason: Shown::new(&row.reason),
            path: Shown::new(row.shown_path()),
            space: Shown::new(&row.space),
            why: query::address("/why", &asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ticket: u64, state: &'static str, path: &str) -> Row {
        Row {
            ticket,
            id: format!("t{ticket}-0"),
            state,
            label: state.to_owned(),
            who: Shown::default(),
            pid: None,
            mode: "write",
            does: "open to write".to_owned(),
            since: String::new(),
            age: String::new(),
            recalled_until: None,
            behind: Vec::new(),
            reason: Shown::default(),
            path: Shown::new(path),
            space: Shown::default(),
            why: path.to_owned(),
        }
    }

    #[test]
    fn where_somebody_waits_comes_first_and_holders_before_waiters() {
        let rows = vec![
            row(1, "held", "a"),
            row(2, "waiting", "b"),
            row(3, "held", "b"),
            row(4, "waiting", "b"),
        ];
        let tickets = |group: &Group| group.rows.iter().map(|row| row.ticket).collect::<Vec<_>>();
        let groups: Vec<_> = groups(rows).iter().map(tickets).collect();
        assert_eq!(groups, [vec![3, 2, 4], vec![1]]);
    }

    #[test]
    fn a_long_board_is_cut_and_its_names_are_no_markup() {
        let rows = (0..2_000).map(|ticket| row(ticket, "held", "<script>alert(1)</script>"));
        let groups = groups(rows.collect());
        assert_eq!(groups.iter().map(|group| group.rows.len()).sum::<usize>(), ROWS_MAX);
        let board = Board {
            summary: String::new(),
            groups,
            more: 1_500,
            ungated: Vec::new(),
            is_admin: false,
        };
        let text = board.render().unwrap();
        assert!(!text.contains("<script>") && text.contains("script"), "{text}");
        assert!(text.contains("And 1500 more"), "{text}");
        assert!(!text.contains("/break"), "who may only look is offered nothing");
    }
}
