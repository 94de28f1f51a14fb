//! What lies over the board: help, and all about one path.

use ratatui::Frame;
use ratatui::layout::{Margin, Rect};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::super::keys::HELP;
use super::super::picture::{Picture, Sheet};
use super::Palette;

const TITLE: &str = " j and k scroll, any other key goes back ";

/// Draws it, if there is one.
pub fn draw(frame: &mut Frame<'_>, picture: &Picture, palette: &Palette) {
    let area = frame.area().inner(Margin { horizontal: 1, vertical: 1 });
    match &picture.sheet {
        Sheet::None | Sheet::Filter { .. } | Sheet::Order(_) => {}
        Sheet::Help { scrolled } => draw_sheet(frame, area, (HELP, *scrolled), palette),
        Sheet::Details(details) => {
            let text = details.text.as_deref().unwrap_or("asking the broker");
            draw_sheet(frame, area, (text, details.scrolled), palette);
        }
    }
}

fn draw_sheet(frame: &mut Frame<'_>, area: Rect, (text, scrolled): (&str, u16), palette: &Palette) {
    let block = Block::bordered().title(TITLE).title_style(palette.heading);
    let text = Paragraph::new(text).wrap(Wrap { trim: false }).scroll((scrolled, 0)).block(block);
    frame.render_widget(Clear, area);
    frame.render_widget(text, area);
}
