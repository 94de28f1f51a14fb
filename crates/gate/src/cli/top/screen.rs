//! The terminal, taken and given back: on return, on an error, on a panic, and while stopped.

use std::io::{self, Stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};

use crate::signals;

/// What a program of Rust ends with that panicked.
const PANICKED: i32 = 101;

/// Whether the terminal is ours: to be given back once, whoever does it.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal, while it is ours.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal.
    pub fn take() -> io::Result<Screen> {
        give_back_on_panic();
        let terminal = enter()?;
        Ok(Screen { terminal })
    }

    /// Draws what is new.
    pub fn draw(&mut self, paint: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(paint).map(drop)
    }

    /// Stops until the shell says otherwise, with the terminal as the shell knows it.
    pub fn suspend(&mut self) -> io::Result<()> {
        leave();
        signals::stop()?;
        self.terminal = enter()?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Returns the terminal with an empty screen.
fn enter() -> io::Result<Terminal<CrosstermBackend<Stdout>>> {
    TAKEN.store(true, Ordering::Relaxed);
    let taken = enable_raw_mode().and_then(|()| execute!(io::stdout(), EnterAlternateScreen, Hide));
    let terminal = taken.and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
    terminal.inspect_err(|_| leave())
}

/// A terminal that is gone needs no order.
fn leave() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// A panic of any thread ends all: a board that hears nothing any more would tell of the past.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave();
            tell(panic);
            std::process::exit(PANICKED);
        }));
    });
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const VARIABLE: &str = "GATE_TEST_PANICS_ON_A_SCREEN";

    /// Runs itself in a terminal, where it panics, and looks at what is left of the terminal.
    #[test]
    fn a_panic_gives_the_terminal_back() {
        if std::env::var_os(VARIABLE).is_some() {
            let _screen = Screen::take().unwrap();
            let _ = std::thread::spawn(|| panic!("here it ends")).join();
            return;
        }
        let test = std::env::current_exe().unwrap();
        let own = "a_panic_gives_the_terminal_back";
        let line = format!("{} --nocapture {own}; echo ended by $?; stty -a", test.display());
        let mut script = Command::new("script");
        let output = script.args(["-qec", &line, "/dev/null"]).env(VARIABLE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let (screen, after) = said.split_once("\x1b[?1049l").expect("the screen was left");
        assert!(screen.contains("\x1b[?1049h"), "{said}");
        for words in ["here it ends", "ended by 101", " echo ", " icanon "] {
            assert!(after.contains(words), "{words}: {said}");
        }
    }
}
