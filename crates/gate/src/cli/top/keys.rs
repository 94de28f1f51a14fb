//! What keys do to the picture.

use gate_api::wire::Scope;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::picture::{Details, Picture, Sheet};

/// Rows by which a page is turned.
const PAGE_ROWS: isize = 10;

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
    match &mut picture.sheet {
        Sheet::None => press_on_board(picture, key.code),
        Sheet::Filter { .. } => {
            type_filter(picture, key.code);
            Deed::None
        }
        Sheet::Help => {
            picture.sheet = Sheet::None;
            Deed::None
        }
        Sheet::Details(details) => {
            if !scroll(details, key.code) {
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
        KeyCode::Char('?') => picture.sheet = Sheet::Help,
        KeyCode::Char('/') => picture.sheet = Sheet::Filter { before: picture.filter().to_owned() },
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

/// Returns whether the key was for scrolling.
fn scroll(details: &mut Details, key: KeyCode) -> bool {
    let scrolled = match key {
        KeyCode::Up | KeyCode::Char('k') => details.scrolled.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => details.scrolled.saturating_add(1),
        _ => return false,
    };
    let lines = details.text.as_ref().map_or(0, |text| text.lines().count());
    details.scrolled = scrolled.min(u16::try_from(lines.saturating_sub(1)).unwrap_or(u16::MAX));
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
        let path = gate_core::path::ViewPath::parse(b"ab").unwrap();
        let scope = Scope::Within { space: "default".into(), path };
        assert_eq!(press_all(&mut picture, "jjj$"), Deed::AskWhy(scope));
        let Sheet::Details(details) = &mut picture.sheet else { panic!("no details") };
        details.text = Some("a\nb\nc\n".into());
        press_all(&mut picture, "jjjjk");
        let Sheet::Details(details) = &picture.sheet else { panic!("no details") };
        assert_eq!(details.scrolled, 1);
        assert_eq!(press_all(&mut picture, "q"), Deed::None);
        assert_eq!(picture.sheet, Sheet::None);
    }

    #[test]
    fn pause_sort_and_help() {
        let mut picture = picture();
        press_all(&mut picture, "ps?");
        assert!(picture.is_paused);
        assert_eq!((picture.sort().as_str(), &picture.sheet), ("oldest", &Sheet::Help));
        press_all(&mut picture, "xp");
        assert!(!picture.is_paused);
    }
}
