//! The picture as cells of a terminal.

mod sheets;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::time::Duration;

use gate_api::mounts::Mount;
use gate_api::wire::{Line as Claim, LineState, SpaceLine};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use unicode_width::UnicodeWidthChar as _;

use super::chain::{self, By, End};
use super::forecast::Wait;
use super::picture::{Order, OrderKind, Picture, Sheet, count};
use crate::board;
use crate::duration::rough;
use crate::output::printable;

/// Below this nothing can be told.
const SIZE_MIN: (u16, u16) = (40, 10);
/// From here on spaces and chains have room.
const HEIGHT_ROOMY: u16 = 16;
/// Columns that make room for who it is in more words, and for everything.
const WIDTH_USUAL: u16 = 70;
const WIDTH_FULL: u16 = 110;
/// What a terminal has at first; what is beyond that, paths and names share.
const WIDTH_PLAIN: u16 = 80;
/// Spaces that are shown by name.
const SPACES_SHOWN_MAX: usize = 3;
/// Lines for the chain below the table.
const CHAIN_HEIGHT: u16 = 6;
const CHAIN_HEIGHT_MIN: u16 = 2;
/// Between two columns.
const GAP: u16 = 1;

/// How things are told apart, with or without colours.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    held: Style,
    waiting: Style,
    heading: Style,
    alarm: Style,
    faint: Style,
    chosen: Style,
}

impl Palette {
    /// With colours.
    pub fn colourful() -> Palette {
        Palette {
            held: Style::new().fg(Color::Green),
            waiting: Style::new().fg(Color::Yellow),
            alarm: Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            ..Palette::plain()
        }
    }

    /// Without.
    pub fn plain() -> Palette {
        Palette {
            held: Style::new(),
            waiting: Style::new().add_modifier(Modifier::BOLD),
            heading: Style::new().add_modifier(Modifier::BOLD),
            alarm: Style::new().add_modifier(Modifier::BOLD),
            faint: Style::new().add_modifier(Modifier::DIM),
            chosen: Style::new().add_modifier(Modifier::REVERSED),
        }
    }
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, picture: &mut Picture, palette: &Palette) {
    let area = frame.area();
    if area.width < SIZE_MIN.0 || area.height < SIZE_MIN.1 {
        let text = format!("at least {}x{} needed", SIZE_MIN.0, SIZE_MIN.1);
        return frame.render_widget(Paragraph::new(text), area);
    }
    let roomy = area.height >= HEIGHT_ROOMY;
    let head = head(picture, palette, roomy);
    let head_height = u16::try_from(head.len()).unwrap_or(area.height);
    let chain_height = if roomy { CHAIN_HEIGHT } else { CHAIN_HEIGHT_MIN };
    let [head_area, table_area, chain_area, foot_area] = Layout::vertical([
        Constraint::Length(head_height),
        Constraint::Min(2),
        Constraint::Length(chain_height),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head), head_area);
    draw_table(frame, table_area, picture, palette);
    frame.render_widget(Paragraph::new(chain_lines(picture, palette)), chain_area);
    frame.render_widget(foot(picture, palette), foot_area);
    sheets::draw(frame, picture, palette);
}

fn head(picture: &Picture, palette: &Palette, roomy: bool) -> Vec<Line<'static>> {
    let mut lines = vec![title(picture, palette), Line::from(load(picture))];
    let Some((status, _)) = picture.status.as_ref().filter(|_| roomy) else { return lines };
    for space in status.spaces.iter().take(SPACES_SHOWN_MAX) {
        lines.push(Line::styled(space_text(space, picture), palette.faint));
    }
    let more = status.spaces.len().saturating_sub(SPACES_SHOWN_MAX);
    if more > 0 {
        lines.push(Line::styled(format!("and {more} more spaces"), palette.faint));
    }
    lines
}

fn space_text(space: &SpaceLine, picture: &Picture) -> String {
    if space.source.is_empty() {
        return printable(&format!("space {}: no source", space.name));
    }
    let is_of_space = |view: &&Mount| view.is_gated && view.source.starts_with(&space.source);
    let points = picture.views.iter().filter(is_of_space);
    let points: Vec<String> = points.map(|view| view.point.display().to_string()).collect();
    let mut text = format!("space {}: {}, clients {}", space.name, space.source, space.clients);
    if !points.is_empty() {
        let _ = write!(text, ", shown at {}", points.join(", "));
    }
    printable(&text)
}

fn title(picture: &Picture, palette: &Palette) -> Line<'static> {
    let mut spans = vec![Span::styled("gate top", palette.heading)];
    let mut alarm = |text: String| spans.push(Span::styled(format!("  {text}"), palette.alarm));
    if let Some(since_ms) = picture.away_since_ms {
        alarm(format!("BROKER AWAY for {}", ago(picture.now_ms, since_ms)));
    }
    if picture.is_paused {
        alarm("PAUSED".to_owned());
    }
    let status = picture.status.as_ref().map(|(status, _)| status);
    if let Some(halt) = status.and_then(|status| status.halt.as_ref()) {
        alarm(format!("GRANTS NOTHING: the journal cannot be written: {}", halt.why));
    }
    if status.is_some_and(|status| status.in_grace) && picture.away_since_ms.is_none() {
        alarm("GRACE: former sessions may still come back".to_owned());
    }
    let mut text = format!("  {}", picture.address);
    if let Some(status) = status {
        let up = ago(picture.now_ms, status.started_at_ms);
        let _ = write!(text, ", process {}, up {up}", status.broker.pid);
    }
    spans.push(Span::raw(printable(&text)));
    Line::from(spans)
}

fn load(picture: &Picture) -> String {
    let Some((status, _)) = &picture.status else { return String::new() };
    let rate = |rate: Option<f64>| rate.map_or("?".to_owned(), |rate| format!("{rate:.1}"));
    let mut text = format!(
        "{} held  {} waiting  {} sessions  {} grants/s  {} waits/s",
        status.held,
        status.waiting,
        status.sessions,
        rate(picture.rates.grants),
        rate(picture.rates.waits),
    );
    for name in ["refused", "revoked"] {
        if let Some(count) = count(status, name).filter(|count| *count > 0) {
            let _ = write!(text, "  {count} {name}");
        }
    }
    text
}

/// One column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    State,
    Mode,
    Op,
    Path,
    Who,
    Pid,
    Age,
    Wait,
    Ticket,
}

impl Column {
    fn shown_at(width: u16) -> &'static [Column] {
        use Column::{Age, Mode, Op, Path, Pid, State, Ticket, Wait, Who};

        match width {
            ..WIDTH_USUAL => &[State, Path, Who, Age],
            WIDTH_USUAL..WIDTH_FULL => &[State, Mode, Path, Who, Age, Wait],
            WIDTH_FULL.. => &[State, Mode, Op, Path, Who, Pid, Age, Wait, Ticket],
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Column::State => "STATE",
            Column::Mode => "MODE",
            Column::Op => "OP",
            Column::Path => "PATH",
            Column::Who => "WHO",
            Column::Pid => "PID",
            Column::Age => "SINCE",
            Column::Wait => "STILL",
            Column::Ticket => "TICKET",
        }
    }

    /// Returns how wide it is; the path takes what is left.
    fn width(self, total: u16) -> u16 {
        match self {
            Column::State => 12,
            Column::Mode => 5,
            Column::Op => 8,
            Column::Path => {
                let columns = Column::shown_at(total);
                let others = columns.iter().filter(|column| **column != Column::Path);
                let others = others.map(|column| column.width(total) + GAP).sum();
                total.saturating_sub(others)
            }
            Column::Who => match total {
                ..WIDTH_USUAL => 10,
                WIDTH_USUAL..WIDTH_FULL => 16 + total.saturating_sub(WIDTH_PLAIN) / 2,
                WIDTH_FULL.. => 24,
            },
            Column::Pid => 7,
            Column::Age | Column::Wait => 7,
            Column::Ticket => 8,
        }
    }
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, picture: &mut Picture, palette: &Palette) {
    let columns = Column::shown_at(area.width);
    let widths: Vec<u16> = columns.iter().map(|column| column.width(area.width)).collect();
    let now_ms = picture.now_ms;
    // One row is the heading's.
    let height = usize::from(area.height.saturating_sub(1));
    let (window, chosen) = picture.window(height);
    let window: Vec<(Claim, usize)> =
        window.into_iter().map(|(line, place)| (line.clone(), place)).collect();
    let rows = window.into_iter().enumerate().filter_map(|(at, (line, place))| {
        let wait = picture.wait_of(line.ticket);
        let row = board::rows(line).into_iter().nth(place)?;
        let style = if row.place.is_some() { palette.waiting } else { palette.held };
        let style = if at == chosen { style.patch(palette.chosen) } else { style };
        let cells = columns.iter().zip(&widths);
        let cells =
            cells.map(|(column, width)| Cell::from(cell(*column, &row, wait, now_ms, *width)));
        Some(Row::new(cells.collect::<Vec<_>>()).style(style))
    });
    let rows: Vec<Row<'_>> = rows.collect();
    if rows.is_empty() {
        let empty = match (picture.is_known(), picture.filter()) {
            (false, _) => "the broker has not answered yet".to_owned(),
            (_, "") => "nobody holds anything and nobody waits".to_owned(),
            (_, filter) => format!("no path contains {}", printable(filter)),
        };
        return frame.render_widget(Paragraph::new(empty), area);
    }
    let heading = Row::new(columns.iter().map(|column| column.heading())).style(palette.heading);
    frame.render_widget(Table::new(rows, widths).header(heading).column_spacing(GAP), area);
}

fn cell(column: Column, row: &board::Row, wait: Option<Wait>, now_ms: u64, width: u16) -> String {
    match column {
        Column::State => row.state_with_place(),
        Column::Mode => row.mode.to_owned(),
        Column::Op => row.op.to_owned(),
        // The end of a path says more than its beginning.
        Column::Path => tail(&printable(&row.shown_path()), width),
        Column::Who => printable(&row.who()),
        Column::Pid => row.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        Column::Age => row.age_at(now_ms),
        Column::Wait => match (row.place, wait) {
            (None, _) => String::new(),
            (Some(_), None) => "?".to_owned(),
            (Some(_), Some(Wait::Overdue)) => "overdue".to_owned(),
            (Some(_), Some(Wait::About(time))) => format!("~{}", rough(whole_seconds(time))),
        },
        Column::Ticket => row.ticket.to_string(),
    }
}

/// A guess is not better than by seconds, except where it is short.
fn whole_seconds(time: Duration) -> Duration {
    if time < Duration::from_secs(1) { time } else { Duration::from_secs(time.as_secs()) }
}

fn ago(now_ms: u64, since_ms: u64) -> String {
    rough(Duration::from_millis(now_ms.saturating_sub(since_ms)))
}

/// Returns the end of a text that fits so many columns.
fn tail(text: &str, width: u16) -> String {
    const CUT: char = '…';
    let width_of = |c: char| c.width().unwrap_or(0);
    let width = usize::from(width);
    if text.chars().map(width_of).sum::<usize>() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(width_of(CUT));
    let fits = |c: &char| {
        let left = room.checked_sub(width_of(*c));
        room = left.unwrap_or(room);
        left.is_some()
    };
    let kept: Vec<char> = text.chars().rev().take_while(fits).collect();
    std::iter::once(CUT).chain(kept.into_iter().rev()).collect()
}

fn chain_lines(picture: &Picture, palette: &Palette) -> Vec<Line<'static>> {
    let Some((line, _)) = picture.chosen() else { return Vec::new() };
    let lines = picture.lines();
    let LineState::Waiting { .. } = line.state else {
        let is_behind = |other: &&Claim| match &other.state {
            LineState::Waiting { behind, .. } => behind.contains(&line.ticket),
            LineState::Held { .. } => false,
        };
        let behind = lines.iter().filter(is_behind).count();
        let text = format!("ticket {}: {behind} wait behind it", line.ticket);
        return vec![Line::styled(text, palette.heading)];
    };
    let chain = chain::of(lines, line);
    let heading = format!("ticket {} waits behind", line.ticket);
    let mut told = vec![Line::styled(heading, palette.heading)];
    told.extend(chain.links.iter().map(|link| {
        let (lead, others) = match link.by {
            By::Conflict { others: 0 } => ("", String::new()),
            By::Conflict { others } => ("", format!(" (and {others} more)")),
            By::SameProcess => ("it, too, waits: ", String::new()),
        };
        let style = match link.line.state {
            LineState::Held { .. } => palette.held,
            LineState::Waiting { .. } => palette.waiting,
        };
        let claim = claim_text(link.line, picture.now_ms);
        Line::styled(format!("  {lead}{claim}{others}"), style)
    }));
    match chain.end {
        End::Holder => {}
        End::Nobody => told.push(Line::raw("  nobody who is listed")),
        End::Circle => told.push(Line::styled("  and so on: a circle", palette.alarm)),
        End::TooLong => told.push(Line::raw("  and so on")),
    }
    told
}

fn claim_text(line: &Claim, now_ms: u64) -> String {
    let Some(row) = board::rows(line.clone()).into_iter().next() else {
        return format!("ticket {}", line.ticket);
    };
    let verb = if row.place.is_some() { "waits for" } else { "holds" };
    let pid = row.pid.map(|pid| format!(", process {pid},")).unwrap_or_default();
    let (who, path, mode, age) = (row.who(), row.shown_path(), row.mode, row.age_at(now_ms));
    let mut text = format!("{who}{pid} {verb} {path} to {mode} since {age}");
    if !row.reason.is_empty() {
        let _ = write!(text, ": {}", row.reason);
    }
    printable(&text)
}

fn foot(picture: &Picture, palette: &Palette) -> Line<'static> {
    if let Sheet::Filter { .. } = picture.sheet {
        let typed = format!("paths that contain: {}_", printable(picture.filter()));
        return Line::styled(typed, palette.heading);
    }
    if let Sheet::Order(order) = &picture.sheet {
        return Line::styled(asked(order), palette.alarm);
    }
    if let Some(notice) = &picture.notice {
        return Line::styled(printable(notice), palette.heading);
    }
    let filter = match picture.filter() {
        "" => String::new(),
        filter => format!(" | filter: {}", printable(filter)),
    };
    let sort = picture.sort().as_str();
    let keys = format!("? help  q quit | by {sort}{filter} | rows {}", picture.rows());
    Line::styled(keys, palette.faint)
}

fn asked(order: &Order) -> String {
    let (ticket, reason) = (order.ticket, printable(&order.reason));
    match order.what {
        OrderKind::Break => format!("break ticket {ticket}? Enter, or Esc. reason: {reason}_"),
        OrderKind::Recall => {
            format!("ask ticket {ticket} to let go? Enter, or Esc. reason: {reason}_")
        }
    }
}
