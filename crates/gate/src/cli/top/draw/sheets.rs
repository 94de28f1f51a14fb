//! What lies over the board: help, and all about one path.

use ratatui::Frame;
use ratatui::layout::{Margin, Rect};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::super::picture::{Picture, Sheet};
use super::Palette;

const HELP: &str = "\
up, down, j, k  choose a row; PgUp, PgDn, Home, End, g, G
Enter           all about its path, as `gate why` tells it
/               show only paths that contain what you type
s               sort: longest line, oldest, path
p               pause, go on
r               ask who holds to let go, as `gate recall`
b               take a lock away, for a reason, as `gate break`
q, Esc, Ctrl-C  quit; Ctrl-Z suspends

STILL is how much longer a waiter may wait: the holders in its way
and the waiters before it are each taken to hold as long as the
median of those seen to end on the same path while this board ran.
?: none was seen. overdue: the holder takes longer than usual.
waits/s counts requests that could not be granted at once.";

/// Draws it, if there is one.
pub fn draw(frame: &mut Frame<'_>, picture: &Picture, palette: &Palette) {
    let area = frame.area().inner(Margin { horizontal: 1, vertical: 1 });
    match &picture.sheet {
        Sheet::None | Sheet::Filter { .. } | Sheet::Order(_) => {}
        Sheet::Help => draw_sheet(frame, area, " any key goes back ", HELP, 0, palette),
        Sheet::Details(details) => {
            let text = details.text.as_deref().unwrap_or("asking the broker");
            let title = " j and k scroll, any other key goes back ";
            draw_sheet(frame, area, title, text, details.scrolled, palette);
        }
    }
}

fn draw_sheet(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    text: &str,
    scrolled: u16,
    palette: &Palette,
) {
    let block = Block::bordered().title(title).title_style(palette.heading);
    let text = Paragraph::new(text).wrap(Wrap { trim: false }).scroll((scrolled, 0)).block(block);
    frame.render_widget(Clear, area);
    frame.render_widget(text, area);
}
