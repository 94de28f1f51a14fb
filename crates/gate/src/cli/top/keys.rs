//! What keys do to the picture.

use gate_api::wire::{LineState, Scope};
use gate_core::lock::limits::TEXT_BYTES_MAX;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::picture::{Details, Order, OrderKind, Picture, Sheet};

/// Rows by which a page is turned.
const PAGE_ROWS: isize = 10;

/// What people are told of it.
pub const HELP: &str = "\
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

/// What is to be done besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Nothing.
    None,
    /// End.
    Quit,
    /// Make room for the shell.
    Suspend,
    /// Ask all about a path.
    AskWhy(Scope),
    /// Have the broker do something.
    Order(Order),
}

/// Does what a key is for.
pub fn press(picture: &mut Picture, key: KeyEvent) -> Deed {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Deed::Quit,
            KeyCode::Char('z') => Deed::Suspend,
            _ => Deed::None,
        };
    }
    picture.notice = None;
    match &mut picture.sheet {
        Sheet::None => press_on_board(picture, key.code),
        Sheet::Filter { .. } => {
            type_filter(picture, key.code);
            Deed::None
        }
        Sheet::Order(_) => type_reason(picture, key.code),
        Sheet::Help { scrolled } => {
            if !scroll(scrolled, HELP, key.code) {
                picture.sheet = Sheet::None;
            }
            Deed::None
        }
        Sheet::Details(details) => {
            let text = details.text.as_deref().unwrap_or_default();
            if !scroll(&mut details.scrolled, text, key.code) {
                picture.sheet = Sheet::None;
            }
            Deed::None
        }
    }
}

fn press_on_board(picture: &mut Picture, key: KeyCode) -> Deed {
    match key {
        KeyCode::Esc if !picture.filter().is_empty() => picture.filter_by(String::new()),
        KeyCode::Char('q') | KeyCode::Esc => return Deed::Quit,
        KeyCode::Up | KeyCode::Char('k') => picture.choose_by(-1),
        KeyCode::Down | KeyCode::Char('j') => picture.choose_by(1),
        KeyCode::PageUp => picture.choose_by(-PAGE_ROWS),
        KeyCode::PageDown => picture.choose_by(PAGE_ROWS),
        KeyCode::Home | KeyCode::Char('g') => picture.choose_by(isize::MIN),
        KeyCode::End | KeyCode::Char('G') => picture.choose_by(isize::MAX),
        KeyCode::Char('p') => picture.is_paused = !picture.is_paused,
        KeyCode::Char('s') => picture.sort_by(picture.sort().next()),
        KeyCode::Char('?') => picture.sheet = Sheet::Help { scrolled: 0 },
        KeyCode::Char('/') => picture.sheet = Sheet::Filter { before: picture.filter().to_owned() },
        KeyCode::Char('b') => begin_order(picture, OrderKind::Break),
        KeyCode::Char('r') => begin_order(picture, OrderKind::Recall),
        KeyCode::Enter => return ask_details(picture),
        _ => {}
    }
    Deed::None
}

fn type_filter(picture: &mut Picture, key: KeyCode) {
    let mut filter = picture.filter().to_owned();
    match (key, std::mem::take(&mut picture.sheet)) {
        (KeyCode::Enter, _) => return,
        (KeyCode::Esc, Sheet::Filter { before }) => return picture.filter_by(before),
        (KeyCode::Backspace, sheet) => {
            picture.sheet = sheet;
            filter.pop();
        }
        (KeyCode::Char(c), sheet) => {
            picture.sheet = sheet;
            filter.push(c);
        }
        (_, sheet) => picture.sheet = sheet,
    }
    picture.filter_by(filter);
}

/// Nobody can give back what it only waits for.
fn begin_order(picture: &mut Picture, what: OrderKind) {
    let Some((line, _)) = picture.chosen() else { return };
    let ticket = line.ticket;
    if what == OrderKind::Recall && matches!(line.state, LineState::Waiting { .. }) {
        picture.notice = Some(format!("ticket {ticket} holds nothing yet; b sends it away"));
        return;
    }
    picture.sheet = Sheet::Order(Order { what, ticket, reason: String::new() });
}

/// A reason is typed; Enter gives the order, Esc takes it back. Who loses a lock is told why.
fn type_reason(picture: &mut Picture, key: KeyCode) -> Deed {
    let Sheet::Order(order) = &mut picture.sheet else { return Deed::None };
    let is_unfounded = order.what == OrderKind::Break && order.reason.trim().is_empty();
    match key {
        KeyCode::Enter if !is_unfounded => {
            let deed = Deed::Order(order.clone());
            picture.sheet = Sheet::None;
            return deed;
        }
        KeyCode::Esc => picture.sheet = Sheet::None,
        KeyCode::Backspace => drop(order.reason.pop()),
        KeyCode::Char(c) if order.reason.len() + c.len_utf8() <= TEXT_BYTES_MAX => {
            order.reason.push(c);
        }
        _ => {}
    }
    Deed::None
}

/// Returns whether the key was for scrolling.
fn scroll(scrolled: &mut u16, text: &str, key: KeyCode) -> bool {
    let moved = match key {
        KeyCode::Up | KeyCode::Char('k') => scrolled.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => scrolled.saturating_add(1),
        _ => return false,
    };
    let last = text.lines().count().saturating_sub(1);
    *scrolled = moved.min(u16::try_from(last).unwrap_or(u16::MAX));
    true
}

/// Of a file that has lost its name nothing can be asked.
fn ask_details(picture: &mut Picture) -> Deed {
    let asked = picture.chosen().and_then(|(line, place)| {
        let path = line.places[place].path.clone()?;
        Some(Scope::Within { space: line.space.clone(), path })
    });
    let Some(scope) = asked else { return Deed::None };
    picture.sheet = Sheet::Details(Details { scope: scope.clone(), text: None, scrolled: 0 });
    Deed::AskWhy(scope)
}

#[cfg(test)]
mod tests {
    use gate_api::wire::Locks;

    use super::super::lines::{held, waits};
    use super::*;

    fn picture() -> Picture {
        let lines = vec![held(1, "w ab", 0), held(2, "w b", 0), waits(3, "w b", &[2])];
        let mut picture = Picture::default();
        picture.learn_locks(1, Locks { version: 1, lines, more: false });
        picture
    }

    fn scope(path: &str) -> Scope {
        let path = gate_core::path::ViewPath::parse(path.as_bytes()).unwrap();
        Scope::Within { space: "default".into(), path }
    }

    /// Presses keys: characters as they are, `^` for Esc, `$` for Enter, `<` for Backspace.
    fn press_all(picture: &mut Picture, keys: &str) -> Deed {
        let code = |c| match c {
            '^' => KeyCode::Esc,
            '$' => KeyCode::Enter,
            '<' => KeyCode::Backspace,
            c => KeyCode::Char(c),
        };
        let deeds = keys.chars().map(|c| press(picture, KeyEvent::from(code(c))));
        deeds.last().unwrap()
    }

    #[test]
    fn a_filter_is_typed_kept_and_given_up() {
        let mut picture = picture();
        press_all(&mut picture, "/abq<");
        assert_eq!((picture.filter(), picture.rows()), ("ab", 1));
        press_all(&mut picture, "$/x^");
        assert_eq!((picture.filter(), &picture.sheet), ("ab", &Sheet::None));
        assert_eq!(press_all(&mut picture, "^"), Deed::None);
        assert_eq!((picture.filter(), picture.rows()), ("", 3));
        assert_eq!(press_all(&mut picture, "^"), Deed::Quit);
    }

    #[test]
    fn control_c_ends_from_everywhere_and_control_z_suspends() {
        for keys in ["s", "/x", "?", "$"] {
            let mut picture = picture();
            press_all(&mut picture, keys);
            for (key, deed) in [('c', Deed::Quit), ('z', Deed::Suspend)] {
                let key = KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL);
                assert_eq!(press(&mut picture, key), deed, "{keys}");
            }
        }
        assert_eq!(press_all(&mut picture(), "jq"), Deed::Quit);
    }

    #[test]
    fn details_are_asked_of_the_chosen_path_and_scroll() {
        let mut picture = picture();
        assert_eq!(press_all(&mut picture, "jjj$"), Deed::AskWhy(scope("ab")));
        let Sheet::Details(details) = &mut picture.sheet else { panic!("no details") };
        details.text = Some("a\nb\nc\n".into());
        press_all(&mut picture, "jjjjk");
        let Sheet::Details(details) = &picture.sheet else { panic!("no details") };
        assert_eq!(details.scrolled, 1);
        assert_eq!(press_all(&mut picture, "q"), Deed::None);
        assert_eq!(picture.sheet, Sheet::None);
    }

    #[test]
    fn a_lock_is_broken_for_a_reason_and_only_then() {
        let mut picture = picture();
        assert_eq!(press_all(&mut picture, "b$ $"), Deed::None);
        let order = Order { what: OrderKind::Break, ticket: 2, reason: " x".into() };
        assert_eq!(press_all(&mut picture, "xy<$"), Deed::Order(order));
        assert_eq!(picture.sheet, Sheet::None);
        assert_eq!(press_all(&mut picture, "bx^$"), Deed::AskWhy(scope("b")));
    }

    #[test]
    fn who_holds_is_asked_to_let_go_and_who_waits_is_not() {
        let mut picture = picture();
        let order = Order { what: OrderKind::Recall, ticket: 2, reason: String::new() };
        assert_eq!(press_all(&mut picture, "r$"), Deed::Order(order));
        assert_eq!((press_all(&mut picture, "jr"), &picture.sheet), (Deed::None, &Sheet::None));
        assert!(picture.notice.is_some());
        press_all(&mut picture, "k");
        assert_eq!(picture.notice, None);
    }

    #[test]
    fn pause_sort_and_help() {
        let mut picture = picture();
        press_all(&mut picture, "ps?");
        assert!(picture.is_paused);
        assert_eq!(
            (picture.sort().as_str(), &picture.sheet),
            ("oldest", &Sheet::Help { scrolled: 0 })
        );
        press_all(&mut picture, "xp");
        assert!(!picture.is_paused);
    }
}
